//! `udgram listen`: every packet, for as long as it runs; a server, with --echo or --exec.

use crate::admission::Admission;
use crate::cli::{Listen, Protocol};
use crate::cmd::timed_out;
use crate::endpoint::{Endpoint, Request};
use crate::exit::Exit;
use crate::output::Output;
use crate::process::{self, place_descriptors, set_signal_mask};
use crate::receive::{Client, Handler, Limits, Patience, Printer, Receiver, Wanted};
use crate::report::Report;
use crate::signal::Signals;
use crate::stats::TOTALS;
use anyhow::{Context, Result};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use udgram::wait::{Deadline, Until, Wake, wait};
use udgram::{Address, BATCH, Datagram, DatagramSocket, ErrorKind, Name, Outgoing};

/// How long an answer waits for room in the queue of who is to get it. One client that does not
/// read must not keep the others waiting.
const ANSWERING: Duration = Duration::from_secs(1);

pub(crate) fn run(options: &Listen, report: Report) -> Result<Exit> {
    let receive = &options.receive;
    let wanted = Wanted::by(receive, options.exec.is_some());
    let mut needs = wanted.needs();
    let who = options.exec.is_some() || !options.allow_uid.is_empty();
    if who && !needs.contains(&libc::SO_PASSCRED) {
        needs.push(libc::SO_PASSCRED);
    }
    let request = Request::to_receive(options.address.as_ref(), receive, &needs)?;
    Output::require()?;
    let signals = Signals::install()?;
    let Endpoint {
        socket,
        origin,
        traces: _traces,
    } = Endpoint::open(&request, report)?;
    let client = Client::new(socket, wanted.protocol)?;
    let handler = match (&options.exec, options.echo) {
        (Some(command), _) => Action::Run {
            command,
            protocol: wanted.protocol,
            signals: &signals,
        },
        (None, true) => Action::Echo,
        (None, false) => Action::Nothing,
    };
    let mut receiver = Receiver::new(&client, origin, wanted, handler, options.count, report)?;
    receiver.admission = Admission::of(&options.allow_uid);
    let service = Service::of_environment(report);
    service.tell("READY=1");
    let limits = Limits {
        count: options.count,
        patience: Patience::Each(options.timeout.0),
        // Without a count there is nothing that was asked for and has not come.
        expired: if options.count.is_some() {
            Exit::TimedOut
        } else {
            Exit::Done
        },
        drain: true,
    };
    let exit = receiver.run(&client, &limits, Some(&signals));
    service.tell("STOPPING=1");
    receiver.admission.conclude(report);
    let exit = exit?;
    if exit == Exit::TimedOut {
        let count = options.count.unwrap_or_default();
        return Err(timed_out(
            &client,
            options.address.as_ref(),
            receiver.received,
            count,
            options.timeout,
        ));
    }
    receiver.conclude(&client, exit)
}

/// The service manager, if there is one: sd_notify(3).
struct Service {
    address: Option<OsString>,
    report: Report,
}

impl Service {
    fn of_environment(report: Report) -> Self {
        let address = std::env::var_os("NOTIFY_SOCKET");
        // Other forms are for virtual machines, and no Unix sockets.
        let unix = |address: &OsString| matches!(address.as_bytes().first(), Some(b'/' | b'@'));
        Self {
            address: address.filter(unix),
            report,
        }
    }

    fn tell(&self, state: &str) {
        let Some(address) = &self.address else { return };
        let told = || -> udgram::Result<()> {
            // Here an abstract name has no escapes.
            let address = match address.as_bytes() {
                [b'@', name @ ..] => Address::Abstract(name.into()),
                path => Address::Pathname(path.into()),
            };
            let message = Outgoing {
                bytes: state.as_bytes(),
                to: Some(&Name::of_peer(&address)?),
                control: None,
            };
            let socket = DatagramSocket::new()?;
            socket
                .send(&[message], Some(ANSWERING), &Wake::default())
                .map_err(|(_, error)| error)
        };
        if let Err(error) = told() {
            self.report.warning(format_args!(
                "the service manager (NOTIFY_SOCKET) was not told {state}: {error}"
            ));
        }
    }
}

/// What is done with each packet.
enum Action<'l> {
    Nothing,
    /// It goes back to its sender.
    Echo,
    /// A shell runs this, one at a time.
    Run {
        command: &'l OsStr,
        protocol: Protocol,
        signals: &'l Signals,
    },
}

impl Handler for Action<'_> {
    fn most(&self) -> usize {
        match self {
            // What a handler has not come to waits in the kernel's queue.
            Self::Run { .. } => 1,
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
        match *self {
            Self::Nothing => Ok(()),
            Self::Echo => answer(
                client,
                &datagram.from(),
                datagram.bytes,
                printer.report,
                wake,
            ),
            Self::Run {
                command,
                protocol,
                signals,
            } => {
                printer.output.flush(wake).inspect_err(|_| {
                    printer.report.warning(format_args!(
                        "the end came first: the packet of {} was not handled",
                        datagram.from().quoted()
                    ));
                })?;
                let handler = match start(command, datagram, signals) {
                    Ok(handler) => handler,
                    // Without a shell no packet is ever handled; otherwise, the next one may be.
                    Err(error) if Exit::of(&error) == Exit::NotFound => return Err(error),
                    Err(error) => {
                        printer.note_unhandled(&error);
                        return Ok(());
                    }
                };
                let (answered, stopped) = finish(handler, command, printer.report, signals, wake)?;
                let answered = match protocol {
                    Protocol::Raw => answered.as_slice(),
                    _ => answered.strip_suffix(b"\n").unwrap_or(&answered),
                };
                if !answered.is_empty() {
                    answer(client, &datagram.from(), answered, printer.report, wake)?;
                }
                stopped
            }
        }
    }
}

/// Sends `bytes` to the sender of a datagram. That it cannot be sent is reported, no more.
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
        named => match Name::of_peer(named) {
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
    match client.send_batch(&[message], Some(ANSWERING), wake) {
        Err((_, error)) if matches!(error.kind(), ErrorKind::Stopped | ErrorKind::OutputGone) => {
            let to = to.map_or(Address::Unnamed, |name| name.address());
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

/// Runs `command` with the datagram on its stdin and its descriptors from 3 up.
fn start(command: &OsStr, datagram: &mut Datagram<'_>, signals: &Signals) -> Result<Child> {
    // A file takes a datagram of any size at once; a pipe would have to be filled while the
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
        .arg(command)
        .stdin(input)
        .stdout(Stdio::piped());
    shell.env("UDGRAM_FROM", datagram.from().to_os_string());
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
    set_signal_mask(&mut shell, signals.found());
    super::forget_overwritten(&mut shell, &numbers);
    place_descriptors(&mut shell, placed);
    shell
        .spawn()
        .map_err(|error| super::spawn_failure(OsStr::new("sh"), &error))
}

/// What the command printed. A signal lets it finish, and then ends the program; a second one
/// ends the command, too.
fn finish(
    mut handler: Child,
    command: &OsStr,
    report: Report,
    signals: &Signals,
    wake: &Wake<'_>,
) -> Result<(Vec<u8>, Result<()>)> {
    let mut printed = Vec::new();
    let mut piece = vec![0; 64 << 10];
    let mut output = handler.stdout.take();
    let ended = process::pidfd(handler.id()).context("cannot wait for the command")?;
    let mut stopped = Ok(());
    loop {
        // All that it prints, and then its end.
        let awaited = output.as_ref().map_or(ended.as_fd(), AsFd::as_fd);
        let waited = wait(awaited, Until::Readable, Deadline::NEVER, wake);
        match (waited, &mut output) {
            (Ok(_), None) => break,
            (Ok(_), Some(pipe)) => match pipe.read(&mut piece) {
                Ok(0) => output = None,
                Ok(count) => printed.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // What it printed is incomplete, and no answer; the next one may be read.
                    let _ = handler.kill();
                    let error = anyhow::Error::new(error);
                    report.error(&error.context("cannot read what the command prints"));
                    printed.clear();
                    output = None;
                }
            },
            (Err(error), _) if error.kind() == ErrorKind::Stopped && stopped.is_ok() => {
                signals.take();
                stopped = Err(error.into());
            }
            // A second signal, or the reader of stdout is gone: which ends the program.
            (Err(error), _) => {
                if error.kind() == ErrorKind::Stopped {
                    signals.take();
                }
                // It may have ended by itself, which is as well.
                let _ = handler.kill();
                stopped = Err(error.into());
                break;
            }
        }
    }
    let status = handler.wait().context("cannot wait for the command")?;
    let command = udgram::Quoted(command);
    match (status.code(), status.signal()) {
        (Some(0), _) => {}
        (Some(code), _) => report.warning(format_args!("{command} ended with status {code}")),
        (None, signal) => report.warning(format_args!(
            "{command} was ended by signal {}",
            signal.unwrap_or_default()
        )),
    }
    Ok((printed, stopped))
}
