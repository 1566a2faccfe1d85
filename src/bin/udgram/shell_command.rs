//! The command of --exec, which sh(1) runs for each packet.

use crate::cli::Protocol;
use crate::exit::{Exit, has_kind};
use crate::printer::{FIRST_DESCRIPTOR, Printer};
use crate::process::{
    AwaitedChild, bytes_in_pipe, close_others, hand_on_signals, pidfd, place_descriptors, spawn,
    spawn_failure,
};
use crate::report::Report;
use crate::signal::Signals;
use anyhow::{Context, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;
use udgram::wait::{Deadline, Ready, Until, Wake, pause, wait};
use udgram::{Datagram, ErrorKind, Quoted};

/// What no datagram carries: the kernel's limit is 4 MiB and 17 pages (`unix_dgram_sendmsg`).
const MAX_OUTPUT: usize = (4 << 20) + (64 << 12);
/// How often a command is looked at whose end no descriptor announces.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Variables that are for udgram itself, or that say what is not so for the command.
const NOT_FOR_COMMANDS: [&str; 8] = [
    "NOTIFY_SOCKET",
    "UDGRAM_SOCKET_FD",
    "UDGRAM_SOCKET_INODE",
    "UDGRAM_PEER",
    "UDGRAM_PACKET",
    "UDGRAM_PID",
    "UDGRAM_UID",
    "UDGRAM_GID",
];
const NOT_FOR_COMMANDS_PREFIXES: [&str; 2] = ["LISTEN_", "WATCHDOG_"];

/// A command that runs for each packet, one at a time.
pub(crate) struct ShellCommand<'l> {
    command: &'l OsStr,
    protocol: Protocol,
    signals: &'l Signals,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// What is printed is written before the command runs, and a signal lets it finish.
    Serving,
    /// A signal has come: stdout may be blocked, and the next signal kills the command.
    Stopping,
}

/// Outcome of a run.
pub(crate) struct Finished {
    /// The reply; empty if there is none.
    pub(crate) reply: Vec<u8>,
    /// An error if udgram is to stop.
    pub(crate) stopped: Result<()>,
}

impl<'l> ShellCommand<'l> {
    pub(crate) fn new(command: &'l OsStr, protocol: Protocol, signals: &'l Signals) -> Self {
        Self {
            command,
            protocol,
            signals,
            phase: Phase::Serving,
        }
    }

    /// Prepares for the packets that are handled after a signal.
    pub(crate) fn stop(&mut self) {
        self.phase = Phase::Stopping;
    }

    /// Runs the command for a datagram. Meanwhile it calls `meanwhile` as often as that asks for.
    pub(crate) fn run(
        &self,
        datagram: &mut Datagram<'_>,
        printer: &mut Printer,
        wake: &Wake<'_>,
        meanwhile: &mut dyn FnMut() -> Result<Option<Duration>>,
    ) -> Result<Finished> {
        let nothing = |stopped| Finished {
            reply: Vec::new(),
            stopped,
        };
        let mut stopped = Ok(());
        if self.phase == Phase::Serving {
            match printer.output.flush(wake) {
                // The packet is printed as taken, so it is handled.
                Err(error) if has_kind(&error, ErrorKind::Stopped) => {
                    self.signals.take();
                    stopped = Err(error);
                }
                flushed => flushed.inspect_err(|_| {
                    printer.report.warning(format_args!(
                        "stopped: the packet of {} was not handled",
                        datagram.sender().quoted()
                    ));
                })?,
            }
        }
        let handler = match self.start(datagram) {
            Ok(handler) => handler,
            // Without a shell no packet is ever handled; otherwise the next one may be.
            Err(error) if Exit::of(&error) == Exit::NotFound => return Err(error),
            Err(error) => {
                printer.note_unhandled(&error);
                return Ok(nothing(stopped));
            }
        };
        let mut finished = self.finish(handler, stopped, printer.report, wake, meanwhile);
        if self.protocol != Protocol::Raw && finished.reply.last() == Some(&b'\n') {
            finished.reply.pop();
        }
        Ok(finished)
    }

    /// Starts the command with the datagram on its stdin and its descriptors from 3 up.
    fn start(&self, datagram: &mut Datagram<'_>) -> Result<AwaitedChild> {
        // A file takes a datagram of any size at once. A pipe would have to be filled while the
        // command runs.
        let mut input = memfd_create(c"packet", MFdFlags::MFD_CLOEXEC)
            .map(File::from)
            .context("cannot hold the packet")?;
        input
            .write_all(datagram.bytes)
            .and_then(|()| input.rewind())
            .context("cannot hold the packet")?;
        let descriptors = std::mem::take(&mut datagram.ancillary.descriptors);
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(self.command)
            .stdin(input)
            .stdout(Stdio::piped())
            // Ctrl-C is for the whole foreground process group of the terminal; udgram lets the
            // command finish.
            .process_group(0);
        set_environment(&mut shell, datagram, descriptors.len());
        let placed: Vec<_> = descriptors.into_iter().zip(FIRST_DESCRIPTOR..).collect();
        let above = placed.last().map_or(FIRST_DESCRIPTOR, |(_, last)| last + 1);
        hand_on_signals(&mut shell);
        place_descriptors(&mut shell, placed);
        close_others(&mut shell, above);
        spawn(&mut shell).map_err(|error| spawn_failure(OsStr::new("sh"), &error))
    }

    /// Waits for the command, and reads what it prints. A signal lets it finish and then stops
    /// udgram; a second one kills it.
    fn finish(
        &self,
        handler: AwaitedChild,
        mut stopped: Result<()>,
        report: Report,
        wake: &Wake<'_>,
        meanwhile: &mut dyn FnMut() -> Result<Option<Duration>>,
    ) -> Finished {
        let mut handler = Handler::of(handler);
        let reply = loop {
            if handler.has_ended() {
                match handler.read_rest() {
                    Ok(()) => break handler.printed,
                    Err(fault) => break self.note(fault, report),
                }
            }
            match meanwhile().and_then(|soon| Ok(handler.wait(soon, wake)?)) {
                Ok(Output::Unchanged) => {}
                Ok(Output::Ready) => {
                    if let Err(fault) = handler.read() {
                        handler.kill();
                        break self.note(fault, report);
                    }
                }
                Err(error) if has_kind(&error, ErrorKind::Stopped) => {
                    self.signals.take();
                    let first = stopped.is_ok() && self.phase == Phase::Serving;
                    stopped = Err(error);
                    if !first {
                        handler.kill();
                        break Vec::new();
                    }
                }
                // The reader of stdout is gone, for example.
                Err(error) => {
                    handler.kill();
                    stopped = Err(error);
                    break Vec::new();
                }
            }
        };
        if let Some(status) = handler.status {
            report_status(self.command, status, report);
        }
        Finished { reply, stopped }
    }

    /// Reports output that cannot be sent; an incomplete one is no reply.
    fn note(&self, fault: Fault, report: Report) -> Vec<u8> {
        let command = Quoted(self.command);
        match fault {
            Fault::TooMuch => report.warning(format_args!(
                "{command} was ended: it printed more than a datagram carries"
            )),
            Fault::Unreadable(error) => {
                let error = anyhow::Error::new(error);
                report.error(&error.context("cannot read what the command prints"));
            }
        }
        Vec::new()
    }
}

/// Sets the variables that tell of the packet, and removes those that are not for the command.
fn set_environment(shell: &mut Command, datagram: &Datagram<'_>, descriptors: usize) {
    let names = std::env::vars_os().map(|(name, _)| name);
    let is_prefixed = |name: &OsString| {
        let name = name.as_encoded_bytes();
        NOT_FOR_COMMANDS_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix.as_bytes()))
    };
    for name in names.filter(is_prefixed) {
        shell.env_remove(name);
    }
    for name in NOT_FOR_COMMANDS {
        shell.env_remove(name);
    }
    shell
        .env("UDGRAM_FROM", datagram.sender().to_os_string())
        .env("UDGRAM_FDS", descriptors.to_string());
    if let Some(credentials) = datagram.ancillary.credentials {
        shell
            .env("UDGRAM_UID", credentials.uid.to_string())
            .env("UDGRAM_GID", credentials.gid.to_string());
        if credentials.pid != 0 {
            shell.env("UDGRAM_PID", credentials.pid.to_string());
        }
    }
}

/// A running command.
struct Handler {
    child: AwaitedChild,
    /// Becomes readable when it ends; `None` if the kernel has no pidfd_open(2).
    ended: Option<OwnedFd>,
    /// Its stdout, until that is closed.
    output: Option<ChildStdout>,
    printed: Vec<u8>,
    /// How it ended, unless it was killed here or reaped elsewhere.
    status: Option<ExitStatus>,
}

/// Result of waiting for a command.
enum Output {
    Unchanged,
    Ready,
}

/// Reason why the output of a command is no reply.
enum Fault {
    TooMuch,
    Unreadable(io::Error),
}

impl Handler {
    fn of(mut child: AwaitedChild) -> Self {
        Self {
            ended: pidfd(child.id()).ok(),
            output: child.stdout.take(),
            child,
            printed: Vec::new(),
            status: None,
        }
    }

    /// Returns whether it has ended; does not wait.
    fn has_ended(&mut self) -> bool {
        match self.child.try_wait() {
            Ok(status) => {
                self.status = status;
                status.is_some()
            }
            // ECHILD: it was reaped elsewhere.
            Err(_) => true,
        }
    }

    /// Waits until it prints or ends, for `soon` at most.
    fn wait(&self, soon: Option<Duration>, wake: &Wake<'_>) -> udgram::Result<Output> {
        let mut wake = *wake;
        wake.notice = self.ended.as_ref().map(AsFd::as_fd);
        let mut deadline = Deadline::after(soon);
        if self.ended.is_none() {
            deadline = deadline.or_after(LOOK_INTERVAL);
        }
        let Some(output) = &self.output else {
            return pause(deadline, &wake).map(|()| Output::Unchanged);
        };
        Ok(match wait(output, Until::Readable, deadline, &wake)? {
            None | Some(Ready::Notice) => Output::Unchanged,
            Some(_) => Output::Ready,
        })
    }

    /// Reads a piece of its output, which must be ready.
    fn read(&mut self) -> Result<(), Fault> {
        let mut piece = [0; 16 << 10];
        let Some(output) = &mut self.output else {
            return Ok(());
        };
        match output.read(&mut piece) {
            Ok(0) => self.output = None,
            Ok(count) => self.printed.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Fault::Unreadable(error)),
        }
        if self.printed.len() > MAX_OUTPUT {
            return Err(Fault::TooMuch);
        }
        Ok(())
    }

    /// Reads what is in the pipe, now that it has ended. A process that it left behind may keep the
    /// pipe open, and fill it for ever.
    fn read_rest(&mut self) -> Result<(), Fault> {
        let Some(mut output) = self.output.take() else {
            return Ok(());
        };
        let count = bytes_in_pipe(output.as_fd()).map_err(Fault::Unreadable)?;
        let start = self.printed.len();
        self.printed.resize(start + count, 0);
        output
            .read_exact(&mut self.printed[start..])
            .map_err(Fault::Unreadable)
    }

    /// Kills it and what it has started.
    fn kill(&mut self) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // It fails if all of them have ended.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        // ECHILD: it was reaped elsewhere.
        let _ = self.child.wait();
    }
}

/// Warns if a command failed.
fn report_status(command: &OsStr, status: ExitStatus, report: Report) {
    let command = Quoted(command);
    match (status.code(), status.signal()) {
        (Some(0), _) => {}
        (Some(code), _) => report.warning(format_args!("{command} ended with status {code}")),
        (None, signal) => report.warning(format_args!(
            "{command} was ended by signal {}",
            signal.unwrap_or_default()
        )),
    }
}
