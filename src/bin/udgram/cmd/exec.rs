//! `udgram exec`: opens a socket and runs CMD with it as descriptor 3.

use crate::cli::Exec;
use crate::endpoint::{Connect, Endpoint, Purpose, Request, Source};
use crate::exit::Exit;
use crate::inherited::{INODE_VARIABLE, PEER_VARIABLE, inode};
use crate::process::{
    self, place_descriptors, require_command, restore_signals, set_listen_pid, spawn_failure,
};
use crate::report::Report;
use crate::signal::{self, Signals};
use crate::witness::Witness;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SignalFd, siginfo};
use nix::unistd::{Pid, getpgid, getpgrp};
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use udgram::wait::{Deadline, Until, Wake, wait};
use udgram::{Address, DatagramSocket};

/// The number of the first descriptor that sd_listen_fds(3) reports (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;
/// The number of signals that are handled together.
const TOGETHER: usize = 64;

pub(crate) fn run(options: &Exec, report: Report) -> Result<Exit> {
    require_command(&options.command[0])?;
    let request = Request {
        source: Source::of(
            options.bind.as_ref(),
            options.connect.is_some(),
            &options.socket.inherited,
        )?,
        connect: options.connect.as_ref().map(Connect::now),
        settings: &options.socket.sockopt,
        file: &options.file,
        needs: &[],
        purpose: Purpose::Leave,
    };
    // A blocked stderr watches these. They are passed on like all others, and do not end this process.
    Signals::install()?;
    // Blocked before the socket is bound, so that no signal skips the cleanup.
    SigSet::all()
        .thread_block()
        .context("cannot block signals")?;
    let signals = signal::open(&SigSet::all())?;
    let Endpoint {
        socket,
        cleanup: _cleanup,
        ..
    } = Endpoint::open(&request, report)?;
    let peer = match (&request.connect, &request.source) {
        (Some(connect), _) => absolute(connect.peer),
        (None, Source::Inherited(inherited)) => inherited.session_peer().and_then(absolute),
        (None, _) => None,
    };
    let mut command = command(&options.command, &socket, peer)?;
    // Before CMD: a signal that reaches CMD reaches the witness, too.
    let witness = Witness::start()?;
    let child =
        process::spawn(&mut command).map_err(|error| spawn_failure(&options.command[0], &error))?;
    let pid = i32::try_from(child.id()).context("no process number")?;
    let status = supervise(Pid::from_raw(pid), witness, &signals)?;
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Command(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, signal) => Exit::CommandSignal(signal.unwrap_or_default()),
    })
}

/// Returns CMD with a copy of the socket and the variables that describe it.
fn command(words: &[OsString], socket: &DatagramSocket, peer: Option<OsString>) -> Result<Command> {
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .env("UDGRAM_SOCKET_FD", FIRST.to_string())
        .env(INODE_VARIABLE, inode(socket)?.to_string())
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "udgram");
    match peer {
        Some(peer) => command.env(PEER_VARIABLE, peer),
        None => command.env_remove(PEER_VARIABLE),
    };
    let socket = socket
        .as_fd()
        .try_clone_to_owned()
        .context("cannot copy the socket")?;
    restore_signals(&mut command);
    place_descriptors(&mut command, vec![(socket, FIRST)]);
    set_listen_pid(&mut command).context("cannot run CMD")?;
    Ok(command)
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

/// Waits for CMD. Passes signals on to it, stops with it, and reaps what it leaves to PID 1.
fn supervise(cmd: Pid, mut witness: Witness, signals: &SignalFd) -> Result<ExitStatus> {
    loop {
        let came = next(signals)?;
        // A number stays valid until the process is waited for, which this does.
        match process::poll_child(cmd).context("cannot wait for CMD")? {
            None => {}
            Some(status) => match status.stopped_signal() {
                Some(signal) => process::stop_by_signal(signal),
                None => return Ok(status),
            },
        }
        process::reap_orphans();
        let own = std::process::id();
        let came: Vec<&siginfo> = came
            .iter()
            .filter(|info| number(info) != libc::SIGCHLD && info.ssi_pid != own)
            .collect();
        let numbers: Vec<c_int> = came.iter().map(|info| number(info)).collect();
        // In a process group of its own, CMD does not get what is sent to that of the witness.
        let missing = if numbers.is_empty() || getpgid(Some(cmd)) != Ok(getpgrp()) {
            numbers
        } else {
            witness.missing(&numbers)
        };
        for info in came {
            if missing.contains(&number(info)) {
                // This fails if CMD has ended meanwhile, which the next round notices.
                let _ = process::forward_signal(info, cmd);
            }
        }
    }
}

/// Waits for signals and returns those that are pending.
fn next(signals: &SignalFd) -> Result<Vec<siginfo>> {
    wait(
        signals.as_fd(),
        Until::Readable,
        Deadline::NEVER,
        &Wake::default(),
    )?;
    let mut came = Vec::new();
    while came.len() < TOGETHER {
        match signals.read_signal() {
            Ok(Some(info)) => came.push(info),
            Ok(None) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for signals"),
        }
    }
    Ok(came)
}

fn number(info: &siginfo) -> c_int {
    c_int::try_from(info.ssi_signo).unwrap_or_default()
}
