//! `udgram relay`: passes packets between the clients of an address and peers, and prints what passes.

use crate::cli::{Relay as Options, Terminator};
use crate::cmd::sets_send_buffer;
use crate::endpoint::{Endpoint, Purpose, Request, Source};
use crate::exit::{Exit, Failure};
use crate::notify::Service;
use crate::output::Output;
use crate::printer::{DescriptorUse, ReceiveOptions};
use crate::protocol::Client;
use crate::relay::{Relay, Settings};
use crate::report::Report;
use crate::signal::Signals;
use crate::socket_file::WatchedFile;
use anyhow::Result;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs::{metadata, symlink_metadata};
use std::os::unix::fs::MetadataExt;
use udgram::ancillary::{ControlSpace, DEFAULT_CONTROL_LEN};
use udgram::answers::Growth;
use udgram::{Address, DatagramSocket};

pub(crate) fn run(options: &Options, report: Report) -> Result<Exit> {
    let printing = ReceiveOptions {
        protocol: options.protocol,
        terminator: Terminator::LineBreak,
        envelope: true,
        credentials: true,
        space: ControlSpace::Bytes(DEFAULT_CONTROL_LEN),
        descriptor_use: DescriptorUse::Described,
        color: options.counting.shown.color,
    };
    let mut needs = printing.needs();
    // The names of commands would take a pidfd for each sender, beside the socket of each client.
    needs.retain(|option| *option != libc::SO_PASSPIDFD);
    let request = Request {
        source: Source::Bound(&options.address),
        connect: None,
        settings: &options.sockopt,
        queue: None,
        file: &options.file,
        needs: &needs,
        purpose: Purpose::Take,
    };
    Output::require()?;
    for peer in &options.peers {
        DatagramSocket::new()?.connect(peer)?;
        if is_same_file(&options.address, peer) {
            return Err(Failure::usage(format!(
                "{} and {} are the same socket: udgram would send to itself",
                options.address.quoted(),
                peer.quoted()
            )));
        }
    }
    let descriptor_limit = raise_descriptor_limit();
    let signals = Signals::install()?;
    let Endpoint {
        socket,
        mut cleanup,
        ..
    } = Endpoint::open(&request, report)?;
    let file = WatchedFile::new(cleanup.take_binding(), report);
    let front = Client::new(socket, options.protocol)?;
    let settings = Settings {
        peers: &options.peers,
        timeout: options.timeout.0,
        printing,
        growth: if sets_send_buffer(&options.sockopt) {
            Growth::Forbidden
        } else {
            Growth::Allowed
        },
        descriptor_limit,
    };
    let mut relay = Relay::new(front, file, &settings, report)?;
    let service = Service::from_environment(report);
    service.notify("READY=1");
    let exit = relay.run(&signals);
    service.notify("STOPPING=1");
    exit
}

/// Returns whether two pathnames lead to one file: binding the first with --replace would take the name
/// from the second. bind(2) does not follow a final link.
fn is_same_file(bound: &Address<'_>, peer: &Address<'_>) -> bool {
    let (Some(bound), Some(peer)) = (bound.as_path(), peer.as_path()) else {
        return false;
    };
    match (symlink_metadata(bound), metadata(peer)) {
        (Ok(bound), Ok(peer)) => (bound.dev(), bound.ino()) == (peer.dev(), peer.ino()),
        _ => false,
    }
}

/// Raises the number of descriptors that this process may have open as far as it may: each client has a
/// socket. Returns the number.
fn raise_descriptor_limit() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 1024;
    };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft }).unwrap_or(usize::MAX)
}
