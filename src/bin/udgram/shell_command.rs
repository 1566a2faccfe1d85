//! Runs the command of --exec with sh(1), once for each packet.

use crate::cli::Protocol;
use crate::exit::{Exit, has_kind};
use crate::printer::Printer;
use crate::process::{SpawnedProcess, bytes_in_pipe, pidfd};
use crate::report::Report;
use crate::shell::{ShellLine, variable};
use crate::signal::Signals;
use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, pipe2};
use std::ffi::{CString, OsStr};
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::time::Duration;
use udgram::protocol::DatagramProtocol;
use udgram::wait::{Deadline, Ready, Until, Wake, pause, wait};
use udgram::{Datagram, Error, ErrorKind, Subject};

/// The limit for the output of a command. The kernel carries at most 4 MiB and 17 pages in a datagram
/// (`unix_dgram_sendmsg`), which is less.
const MAX_OUTPUT: usize = (4 << 20) + (64 << 12);
/// The time between two checks whether a command has ended, without pidfd_open(2).
const EXIT_CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// A command that runs for each packet, one at a time.
pub(crate) struct ShellCommand<'l> {
    line: ShellLine<'l>,
    protocol: Protocol,
    signals: &'l Signals,
    phase: Phase,
}

/// The phase of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Each packet is printed before its command runs, and a signal lets the command finish.
    Serving,
    /// A signal has arrived: nothing is printed, because stdout may be blocked, and the next signal kills
    /// the command.
    Stopping,
}

/// The outcome of a run.
pub(crate) struct Finished {
    /// The reply; empty if there is none.
    pub(crate) reply: Vec<u8>,
    /// An error if udgram must stop.
    pub(crate) stopped: Result<()>,
}

impl<'l> ShellCommand<'l> {
    pub(crate) fn new(
        command: &'l OsStr,
        protocol: Protocol,
        signals: &'l Signals,
    ) -> Result<Self> {
        Ok(Self {
            line: ShellLine::new(command)?,
            protocol,
            signals,
            phase: Phase::Serving,
        })
    }

    /// Changes to the phase after a signal.
    pub(crate) fn stop(&mut self) {
        self.phase = Phase::Stopping;
    }

    /// Runs the command for a datagram. While it runs, calls `meanwhile` repeatedly; that returns the
    /// time until its next call.
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
                // The packet has been received and may be printed, so run the command before stopping.
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
        let running = match self.start(datagram) {
            Ok(running) => running,
            // Without a shell, no packet can be handled: stop. After another failure, such as EAGAIN,
            // the next packet may be.
            Err(error) if Exit::of(&error) == Exit::NotFound => return Err(error),
            Err(error) => {
                printer.note_unhandled(&error);
                return Ok(nothing(stopped));
            }
        };
        let mut finished = self.finish(running, stopped, printer.report, wake, meanwhile);
        if self.protocol != Protocol::Raw && finished.reply.last() == Some(&b'\n') {
            finished.reply.pop();
        }
        Ok(finished)
    }

    /// Starts the command with the datagram on its stdin and its descriptors from 3 up.
    fn start(&self, datagram: &mut Datagram<'_>) -> Result<RunningCommand> {
        // A memfd that carries the packet is used up.
        let payload = datagram.take_payload(self.protocol.carrier());
        let descriptors = std::mem::take(&mut datagram.ancillary.descriptors);
        // A memfd takes a datagram of any size at once. A pipe holds 64 KiB, and the rest would have to
        // be written while the command runs.
        let input = memfd_create(c"packet", MFdFlags::MFD_CLOEXEC).map_err(|errno| {
            Error::from_raw_os_error("hold the packet", Subject::None, errno as i32)
                .of_call("memfd_create", "3.17")
        })?;
        let mut input = File::from(input);
        input
            .write_all(&payload)
            .and_then(|()| input.rewind())
            .context("cannot hold the packet")?;
        let (output, printed) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        let variables = describe_packet(datagram, descriptors.len())?;
        let (stdin, stdout) = (input.as_fd(), printed.as_fd());
        let process = self.line.start(stdin, stdout, &descriptors, &variables)?;
        Ok(RunningCommand::of(process, output))
    }

    /// Reads the output of the command until the command ends. A signal lets it finish and then stops
    /// udgram; a second signal kills it.
    fn finish(
        &self,
        mut running: RunningCommand,
        mut stopped: Result<()>,
        report: Report,
        wake: &Wake<'_>,
        meanwhile: &mut dyn FnMut() -> Result<Option<Duration>>,
    ) -> Finished {
        let reply = loop {
            if running.has_ended() {
                match running.read_rest() {
                    Ok(()) => break running.printed,
                    Err(fault) => break self.note(fault, report),
                }
            }
            match meanwhile().and_then(|soon| Ok(running.wait(soon, wake)?)) {
                Ok(Waited::Unchanged) => {}
                Ok(Waited::Ready) => {
                    if let Err(fault) = running.read() {
                        running.kill();
                        break self.note(fault, report);
                    }
                }
                Err(error) if has_kind(&error, ErrorKind::Stopped) => {
                    self.signals.take();
                    let first = stopped.is_ok() && self.phase == Phase::Serving;
                    stopped = Err(error);
                    if !first {
                        running.kill();
                        break Vec::new();
                    }
                }
                // For example, the reader of stdout has exited.
                Err(error) => {
                    running.kill();
                    stopped = Err(error);
                    break Vec::new();
                }
            }
        };
        if let Some(status) = running.status {
            self.line.report_status(status, report);
        }
        Finished { reply, stopped }
    }

    /// Reports output that cannot be sent. Returns an empty reply: incomplete output is never sent.
    fn note(&self, fault: Fault, report: Report) -> Vec<u8> {
        let command = self.line.quoted();
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

/// Returns the variables that describe the packet.
fn describe_packet(datagram: &Datagram<'_>, descriptors: usize) -> Result<Vec<CString>> {
    let number =
        |name: &str, value: &dyn Display| variable(name.as_bytes(), value.to_string().as_ref());
    let mut variables = vec![
        variable(b"UDGRAM_FROM", &datagram.sender().to_os_string())?,
        number("UDGRAM_FDS", &descriptors)?,
    ];
    if let Some(credentials) = datagram.ancillary.credentials {
        variables.push(number("UDGRAM_UID", &credentials.uid)?);
        variables.push(number("UDGRAM_GID", &credentials.gid)?);
        if credentials.pid != 0 {
            variables.push(number("UDGRAM_PID", &credentials.pid)?);
        }
    }
    Ok(variables)
}

/// A running command.
struct RunningCommand {
    child: SpawnedProcess,
    /// A descriptor that becomes readable when the command ends; `None` before Linux 5.3, which has no
    /// pidfd_open(2).
    ended: Option<OwnedFd>,
    /// The pipe from its stdout, until the end is read.
    output: Option<File>,
    printed: Vec<u8>,
    /// Its exit status; `None` while it runs, and if it was killed here or reaped elsewhere.
    status: Option<ExitStatus>,
}

/// The result of waiting for output.
enum Waited {
    Unchanged,
    Ready,
}

/// The reason why the output of a command cannot be sent.
enum Fault {
    TooMuch,
    Unreadable(io::Error),
}

impl RunningCommand {
    /// Takes over a started command, with the pipe from its stdout.
    fn of(child: SpawnedProcess, output: OwnedFd) -> Self {
        Self {
            ended: pidfd(child.id()).ok(),
            output: Some(output.into()),
            child,
            printed: Vec::new(),
            status: None,
        }
    }

    /// Returns whether the command has ended; does not wait.
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

    /// Waits until the command prints or ends, for `soon` at most.
    fn wait(&self, soon: Option<Duration>, wake: &Wake<'_>) -> udgram::Result<Waited> {
        let mut wake = *wake;
        wake.notice = self.ended.as_ref().map(AsFd::as_fd);
        let mut deadline = Deadline::after(soon);
        if self.ended.is_none() {
            deadline = deadline.or_after(EXIT_CHECK_INTERVAL);
        }
        let Some(output) = &self.output else {
            return pause(deadline, &wake).map(|()| Waited::Unchanged);
        };
        Ok(match wait(output, Until::Readable, deadline, &wake)? {
            None | Some(Ready::Notice) => Waited::Unchanged,
            Some(_) => Waited::Ready,
        })
    }

    /// Reads a piece of the output. Call it when the pipe is readable, or it blocks.
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

    /// Reads what the pipe holds after the command has ended. It does not read until the end of the pipe:
    /// a background process of the command may keep the pipe open and write to it forever.
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

    /// Kills the process group of the command.
    fn kill(&mut self) {
        // ESRCH: all of its processes have ended.
        let _ = killpg(Pid::from_raw(self.child.id()), Signal::SIGKILL);
        self.child.wait();
    }
}
