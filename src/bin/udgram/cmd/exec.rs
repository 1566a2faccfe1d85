//! `udgram exec`: opens a socket and runs CMD with it as descriptor 3.

use crate::cli::Exec;
use crate::endpoint::{Connect, Endpoint, Purpose, Request, Source};
use crate::exit::Exit;
use crate::process::{place_descriptors, set_listen_pid, set_signal_mask, spawn_failure};
use crate::report::Report;
use crate::signal::block;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

/// Where sd_listen_fds(3) looks for the first passed descriptor.
const FIRST: i32 = 3;
/// The signals that are forwarded to CMD.
const FORWARDED: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGPIPE,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

pub(crate) fn run(options: &Exec, report: Report) -> Result<Exit> {
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
    // Blocked before the socket is bound, so that no signal skips the cleanup.
    let mut set: SigSet = FORWARDED.into_iter().collect();
    set.add(Signal::SIGCHLD);
    let found = block(&set)?;
    let signals = SignalFd::new(&set).context("cannot wait for signals")?;
    let Endpoint {
        socket,
        cleanup: _cleanup,
        ..
    } = Endpoint::open(&request, report)?;
    let mut command = Command::new(&options.command[0]);
    command
        .args(&options.command[1..])
        .env("UDGRAM_SOCKET_FD", FIRST.to_string())
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "udgram");
    let socket = socket
        .as_fd()
        .try_clone_to_owned()
        .context("cannot copy the socket")?;
    set_signal_mask(&mut command, found);
    place_descriptors(&mut command, vec![(socket, FIRST)]);
    set_listen_pid(&mut command).context("cannot run CMD")?;
    let child = command
        .spawn()
        .map_err(|error| spawn_failure(&options.command[0], &error))?;
    let status = wait_forwarding_signals(child, &signals)?;
    Ok(
        match (status.code(), status.signal().map(Signal::try_from)) {
            (Some(code), _) => Exit::Command(u8::try_from(code).unwrap_or(u8::MAX)),
            (None, Some(Ok(signal))) => Exit::Signal(signal),
            (None, _) => Exit::Refused,
        },
    )
}

/// Waits for CMD and forwards signals to it.
fn wait_forwarding_signals(mut child: Child, signals: &SignalFd) -> Result<ExitStatus> {
    // The number stays valid until the process is waited for.
    let pid = Pid::from_raw(i32::try_from(child.id()).context("no process number")?);
    loop {
        let info = match signals.read_signal() {
            Err(Errno::EINTR) => continue,
            read => read.context("cannot wait for signals")?,
        };
        let ended = loop {
            match child.try_wait() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                ended => break ended.context("cannot wait for CMD")?,
            }
        };
        if let Some(status) = ended {
            return Ok(status);
        }
        let Some(info) = info else { continue };
        let signal = i32::try_from(info.ssi_signo)
            .ok()
            .and_then(|number| Signal::try_from(number).ok());
        // The terminal sends its signals to the whole process group: CMD has them already.
        let from_terminal = info.ssi_code == nix::libc::SI_KERNEL;
        if let Some(signal) = signal.filter(|signal| *signal != Signal::SIGCHLD && !from_terminal) {
            // This fails if CMD has ended meanwhile, which the next round notices.
            let _ = kill(pid, signal);
        }
    }
}
