//! Answering the packets of `listen`: --echo sends each back, --exec runs a command for each and sends
//! what it prints.

use crate::cli::Protocol;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::process::{
    AwaitedChild, forget_overwritten, hand_on_signals, pidfd, place_descriptors, spawn,
    spawn_failure,
};
use crate::protocol::Client;
use crate::receive::Handler;
use crate::report::Report;
use crate::signal::Signals;
use crate::stats::TOTALS;
use anyhow::{Context, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;
use udgram::wait::{Deadline, Until, Wake, wait};
use udgram::{Address, BATCH, Datagram, Destination, ErrorKind, Outgoing, Quoted};

/// How long an answer waits for room in the client's queue. A client that does not read must not
/// delay the others for longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How packets are answered.
pub(crate) enum Action<'l> {
    /// They are not.
    Nothing,
    /// Each datagram is sent back to its sender.
    Echo,
    /// The output of a command is sent; one command runs at a time.
    Run(ShellCommand<'l>),
}

impl Handler for Action<'_> {
    fn max(&self) -> usize {
        match self {
            // Packets wait in the kernel's queue, where they count for senders, not in a batch.
            Self::Run(_) => 1,
            Self::Echo | Self::Nothing => BATCH,
        }
    }

    fn answers(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    fn handle(
        &mut self,
        client: &Client,
        datagram: &mut Datagram<'_>,
        printer: &mut Printer,
        wake: &Wake<'_>,
    ) -> Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Echo => answer(
                client,
                &datagram.sender(),
                datagram.bytes,
                printer.report,
                wake,
            ),
            Self::Run(command) => command.handle(client, datagram, printer, wake),
        }
    }
}

/// The command of --exec, which sh(1) runs.
pub(crate) struct ShellCommand<'l> {
    pub(crate) command: &'l OsStr,
    pub(crate) protocol: Protocol,
    pub(crate) signals: &'l Signals,
}

impl ShellCommand<'_> {
    /// Runs the command for a datagram and sends what it prints to the sender.
    fn handle(
        &self,
        client: &Client,
        datagram: &mut Datagram<'_>,
        printer: &mut Printer,
        wake: &Wake<'_>,
    ) -> Result<()> {
        printer.output.flush(wake).inspect_err(|_| {
            printer.report.warning(format_args!(
                "the end came first: the packet of {} was not handled",
                datagram.sender().quoted()
            ));
        })?;
        let handler = match self.start(datagram) {
            Ok(handler) => handler,
            // Without a shell no packet is ever handled; otherwise the next one may be.
            Err(error) if Exit::of(&error) == Exit::NotFound => return Err(error),
            Err(error) => {
                printer.note_unhandled(&error);
                return Ok(());
            }
        };
        let (reply, stopped) = self.finish(handler, printer.report, wake)?;
        let reply = match self.protocol {
            Protocol::Raw => reply.as_slice(),
            _ => reply.strip_suffix(b"\n").unwrap_or(&reply),
        };
        if !reply.is_empty() {
            answer(client, &datagram.sender(), reply, printer.report, wake)?;
        }
        stopped
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
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(self.command)
            .stdin(input)
            .stdout(Stdio::piped());
        shell.env("UDGRAM_FROM", datagram.sender().to_os_string());
        for name in [
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
            "UDGRAM_PID",
            "UDGRAM_UID",
            "UDGRAM_GID",
        ] {
            shell.env_remove(name);
        }
        if let Some(credentials) = datagram.ancillary.credentials {
            shell
                .env("UDGRAM_UID", credentials.uid.to_string())
                .env("UDGRAM_GID", credentials.gid.to_string());
            if credentials.pid != 0 {
                shell.env("UDGRAM_PID", credentials.pid.to_string());
            }
        }
        let descriptors = std::mem::take(&mut datagram.ancillary.descriptors);
        let placed: Vec<_> = descriptors.into_iter().zip(3..).collect();
        let numbers: Vec<RawFd> = placed.iter().map(|(_, number)| *number).collect();
        hand_on_signals(&mut shell);
        forget_overwritten(&mut shell, &numbers);
        place_descriptors(&mut shell, placed);
        spawn(&mut shell).map_err(|error| spawn_failure(OsStr::new("sh"), &error))
    }

    /// Waits for the command. Returns what it printed, and whether udgram is to stop: a signal lets
    /// the command finish and then stops udgram, a second one kills the command, too.
    fn finish(
        &self,
        mut handler: AwaitedChild,
        report: Report,
        wake: &Wake<'_>,
    ) -> Result<(Vec<u8>, Result<()>)> {
        let mut printed = Vec::new();
        let mut piece = vec![0; 64 << 10];
        let mut output = handler.stdout.take();
        let ended = pidfd(handler.id()).context("cannot wait for the command")?;
        let mut stopped = Ok(());
        loop {
            // First the end of its output, then its exit.
            let awaited = output.as_ref().map_or(ended.as_fd(), AsFd::as_fd);
            let waited = wait(awaited, Until::Readable, Deadline::NEVER, wake);
            match (waited, &mut output) {
                (Ok(_), None) => break,
                (Ok(_), Some(pipe)) => match pipe.read(&mut piece) {
                    Ok(0) => output = None,
                    Ok(count) => printed.extend_from_slice(&piece[..count]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        // An incomplete output is not sent; the next packet may succeed.
                        let _ = handler.kill();
                        let error = anyhow::Error::new(error);
                        report.error(&error.context("cannot read what the command prints"));
                        printed.clear();
                        output = None;
                    }
                },
                (Err(error), _) if error.kind() == ErrorKind::Stopped && stopped.is_ok() => {
                    self.signals.take();
                    stopped = Err(error.into());
                }
                // A second signal, or the reader of stdout is gone: both end the program now.
                (Err(error), _) => {
                    if error.kind() == ErrorKind::Stopped {
                        self.signals.take();
                    }
                    // It fails if the command has ended by itself.
                    let _ = handler.kill();
                    stopped = Err(error.into());
                    break;
                }
            }
        }
        let status = handler.wait().context("cannot wait for the command")?;
        report_status(self.command, status, report);
        Ok((printed, stopped))
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

/// Sends `bytes` to the sender of a datagram. A failure is only reported.
fn answer(
    client: &Client,
    to: &Address<'_>,
    bytes: &[u8],
    report: Report,
    wake: &Wake<'_>,
) -> Result<()> {
    let name;
    let to = match to {
        // The other end of a socketpair has no name, but is the peer.
        Address::Unnamed if client.socket()?.peer_address()?.is_some() => None,
        Address::Unnamed => {
            report.warning("a packet cannot be answered: its sender has no address");
            return Ok(());
        }
        named => match Destination::named(named) {
            Ok(found) => {
                name = found;
                Some(&name)
            }
            Err(error) => {
                report.error(&error.into());
                return Ok(());
            }
        },
    };
    let message = Outgoing {
        bytes,
        to,
        control: None,
    };
    match client.send_batch(&[message], Some(ANSWER_TIMEOUT), wake) {
        Err((_, error)) if matches!(error.kind(), ErrorKind::Stopped | ErrorKind::OutputGone) => {
            let to = to.map_or(&Address::Unnamed, Destination::address);
            report.warning(format_args!(
                "{} was not answered: the end came first",
                to.quoted()
            ));
            Err(error.into())
        }
        Err((_, error)) => {
            report.error(&error.into());
            Ok(())
        }
        Ok(()) => {
            TOTALS.sent.add(1, bytes.len());
            Ok(())
        }
    }
}
