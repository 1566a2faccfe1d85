//! `udgram exec`: opens a socket and runs CMD with it as descriptor 3, or as a service.

use crate::cli::Exec;
use crate::endpoint::{Cleanup, Connect, Endpoint, Purpose, Request, Source};
use crate::exit::Exit;
use crate::inherited::{INODE_VARIABLE, PEER_VARIABLE, inode};
use crate::manager::Manager;
use crate::process::{
    place_descriptors, require_command, restore_signals, set_listen_pid, spawn, spawn_failure,
};
use crate::report::Report;
use crate::signal::{self, Signals};
use crate::supervision::supervise;
use crate::witness::Witness;
use anyhow::{Context, Result};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use udgram::{Address, DatagramSocket};

/// The number of the first descriptor that sd_listen_fds(3) reports (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;

pub(crate) fn run(options: &Exec, report: Report) -> Result<Exit> {
    require_command(&options.command[0])?;
    // A blocked stderr watches these. They are passed on like all others, and do not end this process.
    Signals::install()?;
    // Blocked before the socket is bound, so that no signal skips the cleanup.
    SigSet::all()
        .thread_block()
        .context("cannot block signals")?;
    let signals = signal::open(&SigSet::all())?;
    let mut manager = match options.service.notify {
        Some(_) => Some(Manager::new(&options.service, report)?),
        None => None,
    };
    let mut command = Command::new(&options.command[0]);
    command.args(&options.command[1..]);
    restore_signals(&mut command);
    let wants_socket = options.bind.is_some()
        || options.connect.is_some()
        || options.socket.inherited.socket_fd.is_some();
    // Undoes its changes at the end.
    let session = if wants_socket || manager.is_none() {
        Some(pass_socket(options, &mut command, report)?)
    } else {
        None
    };
    if let Some(manager) = &manager {
        manager.set_variable(&mut command);
    }
    if session.is_some() {
        set_listen_pid(&mut command).context("cannot run CMD")?;
    }
    if let Some(manager) = &mut manager {
        manager.start();
    }
    // Before CMD: a signal that reaches CMD reaches the witness, too.
    let witness = Witness::start()?;
    let child = spawn(&mut command).map_err(|error| spawn_failure(&options.command[0], &error))?;
    let pid = i32::try_from(child.id()).context("no process number")?;
    let status = supervise(Pid::from_raw(pid), witness, &signals, manager.as_mut())?;
    let exit = match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Command(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, signal) => Exit::CommandSignal(signal.unwrap_or_default()),
    };
    match manager {
        Some(manager) => manager.conclude(exit),
        None => Ok(exit),
    }
}

/// Opens the socket, and passes it to CMD with the variables that describe it.
fn pass_socket(options: &Exec, command: &mut Command, report: Report) -> Result<Cleanup> {
    let request = Request {
        source: Source::of(
            options.bind.as_ref(),
            options.connect.is_some(),
            &options.socket.inherited,
            "--bind or --connect",
        )?,
        connect: options.connect.as_ref().map(Connect::now),
        settings: &options.socket.sockopt,
        file: &options.file,
        queue: options.depth.queue,
        needs: &[],
        purpose: Purpose::Leave,
    };
    let Endpoint {
        socket, cleanup, ..
    } = Endpoint::open(&request, report)?;
    let peer = match (&request.connect, &request.source) {
        (Some(connect), _) => absolute(connect.peer),
        (None, Source::Inherited(inherited)) => inherited.session_peer().and_then(absolute),
        (None, _) => None,
    };
    describe(command, socket, peer)?;
    Ok(cleanup)
}

/// Gives CMD the socket and the variables that describe it.
fn describe(command: &mut Command, socket: DatagramSocket, peer: Option<OsString>) -> Result<()> {
    command
        .env("UDGRAM_SOCKET_FD", FIRST.to_string())
        .env(INODE_VARIABLE, inode(&socket)?.to_string())
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "udgram");
    match peer {
        Some(peer) => command.env(PEER_VARIABLE, peer),
        None => command.env_remove(PEER_VARIABLE),
    };
    place_descriptors(command, vec![(socket.into(), FIRST)]);
    Ok(())
}

/// Returns an address as text that means the same in every working directory. There is none for a
/// relative pathname in a directory that cannot be named (getcwd(3)).
fn absolute(address: &Address<'_>) -> Option<OsString> {
    match address {
        Address::Pathname(path) => std::path::absolute(Path::new(OsStr::from_bytes(path)))
            .ok()
            .map(OsString::from),
        other => Some(other.to_os_string()),
    }
}
