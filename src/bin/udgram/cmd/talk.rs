//! `udgram talk`: sends lines of stdin as they come, and prints packets as they come.

use crate::cli::value::parse_peer;
use crate::cli::{SocketFile, Talk};
use crate::endpoint::{Absent, Connect, Endpoint, Purpose, Request, Source};
use crate::exit::{Exit, Failure};
use crate::handler::PrintOnly;
use crate::inherited::InheritedSocket;
use crate::output::Output;
use crate::printer::ReceiveOptions;
use crate::protocol::Client;
use crate::receive::Receiver;
use crate::report::Report;
use crate::signal::Signals;
use crate::talk::Conversation;
use anyhow::Result;
use udgram::Address;
use udgram::wait::Wake;

pub(crate) fn run(options: &Talk, report: Report) -> Result<Exit> {
    let peer = peer(options)?;
    let source = match (&options.socket.inherited.socket_fd, &peer) {
        (Some(socket), _) => Source::Inherited(InheritedSocket::named(socket)?),
        (None, Some(_)) => Source::Autobound,
        (None, None) => Source::Inherited(InheritedSocket::as_peer()?),
    };
    Output::require()?;
    let wanted = ReceiveOptions::for_peer(options.packets, options.counting.shown.color);
    let signals = Signals::install()?;
    let wake = Wake::new(Some(signals.stop()), None);
    let request = Request {
        source,
        connect: peer.as_ref().map(|peer| Connect {
            peer,
            absent: if options.wait {
                Absent::Wait(None, wake)
            } else {
                Absent::Fail
            },
        }),
        settings: &options.socket.sockopt,
        queue: None,
        // An abstract name has no file.
        file: &SocketFile::default(),
        needs: &wanted.needs(),
        // A session whose peer has gone may wait for it.
        purpose: Purpose::Answers,
    };
    let Endpoint {
        socket,
        opened,
        peer,
        cleanup: _cleanup,
    } = Endpoint::open(&request, report)?;
    let Some(peer) = peer else {
        return Err(Failure::usage(
            "the socket is not connected: there is no peer to talk to",
        ));
    };
    let client = Client::new(socket, wanted.protocol)?;
    let receiver = Receiver::new(&client, opened, wanted, PrintOnly, None, report)?;
    Conversation::new(client, peer, receiver, options, &signals, report)?.run()
}

/// Returns PEER, unless it is the one that an open socket is connected to.
fn peer(options: &Talk) -> Result<Option<Address<'static>>> {
    match &options.peer {
        Some(peer) if peer != "-" => parse_peer(peer)
            .map(Some)
            .map_err(|cause| Failure::usage(format!("PEER: {cause}"))),
        _ => Ok(None),
    }
}
