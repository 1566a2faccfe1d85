//! `udgram listen --peek`: prints the datagrams that are sent to the socket of another process, and leaves
//! them to that process.

use crate::cli::Listen;
use crate::cli::value::OpenSocket;
use crate::exit::{Exit, Failure, has_kind};
use crate::notify::Service;
use crate::output::Output;
use crate::printer::{Printer, ReceiveOptions};
use crate::report::Report;
use crate::signal::Signals;
use crate::stats::TOTALS;
use anyhow::Result;
use nix::sys::signal::Signal;
use udgram::wait::{Deadline, Wake};
use udgram::{ErrorKind, Observer, Progress};

pub(crate) fn run(options: &Listen, report: Report) -> Result<Exit> {
    Output::require()?;
    let signals = Signals::install()?;
    let (observer, socket) = attach(options)?;
    let wanted = ReceiveOptions::from_args(&options.receive, false);
    if wanted.envelope && !observer.sees_senders() {
        report.warning(
            "envelopes have no creds: they need CAP_PERFMON, and a kernel that returns the sender to socket filters",
        );
    }
    let mut peek = Peek {
        observer,
        socket,
        printer: Printer::new(wanted, report),
        left: options.count,
        printed: 0,
        lost: 0,
    };
    peek.note_losses();
    let service = Service::from_environment(report);
    service.notify("READY=1");
    let exit = match peek.print_all(options, &signals) {
        Err(error) if has_kind(&error, ErrorKind::Stopped) => peek.stop(&signals),
        exit => exit,
    };
    service.notify("STOPPING=1");
    peek.note_losses();
    if exit.is_err() {
        // The error is returned; the lines that are ready are printed before it.
        let _ = peek.printer.output.flush_at_exit();
    }
    if peek.lost > 1 {
        let lost = peek.lost;
        report.warning(format_args!("{lost} packets in all were missed"));
    }
    Ok(peek.printer.conclude(exit?))
}

/// Attaches an observer to the socket that the command line names. Returns it with that name.
fn attach(options: &Listen) -> Result<(Observer, String)> {
    match (
        &options.address,
        &options.receive.socket.inherited.socket_fd,
    ) {
        (Some(address), None) | (None, Some(OpenSocket::Bound(address))) => {
            Ok((Observer::attach_to(address)?, address.quoted().to_string()))
        }
        (None, Some(OpenSocket::Descriptor(descriptor))) => {
            let own = nix::unistd::getpid().as_raw();
            let (pid, number) = (descriptor.pid.unwrap_or(own), descriptor.number);
            let name = format!("descriptor {number} of process {pid}");
            Ok((Observer::attach(pid, number)?, name))
        }
        (Some(_), Some(_)) => Err(Failure::usage(
            "the address to observe and --socket-fd exclude each other",
        )),
        (None, None) => Err(Failure::usage(
            "--peek needs the address of a socket to observe, or --socket-fd",
        )),
    }
}

/// An observed socket, with the printer of its datagrams.
struct Peek {
    observer: Observer,
    /// The name of the socket, for messages.
    socket: String,
    printer: Printer,
    /// The number of datagrams that are still to be printed; `None`: no limit.
    left: Option<u64>,
    /// The number of datagrams of the observer's batch that are printed.
    printed: usize,
    /// The number of losses that are reported.
    lost: u64,
}

impl Peek {
    /// Prints datagrams until the count is reached, the timeout has passed, a signal arrives, the reader of
    /// stdout exits or the socket is closed.
    fn print_all(&mut self, options: &Listen, signals: &Signals) -> Result<Exit> {
        let wake = Wake::new(Some(signals.stop()), self.printer.output.watched());
        let timeout = options.timeout.0;
        let mut deadline = Deadline::after(timeout);
        while self.left != Some(0) {
            self.printed = 0;
            match self.observer.next_batch(deadline, &wake)? {
                Progress::Datagrams => {
                    self.print_batch(Some(&wake))?;
                    self.printer.output.flush(&wake)?;
                    deadline = Deadline::after(timeout);
                }
                Progress::Ended => return Err(self.socket_closed()),
                _ if !deadline.passed() => {}
                _ if options.count.is_none() => return Ok(Exit::Done),
                _ => return Err(self.timed_out(options)),
            }
            self.note_losses();
        }
        Ok(Exit::Done)
    }

    /// Prints the rest of the batch. Without `wake`, writes nothing to stdout yet.
    fn print_batch(&mut self, wake: Option<&Wake<'_>>) -> Result<()> {
        for datagram in self.observer.datagrams().skip(self.printed) {
            if self.left == Some(0) {
                break;
            }
            self.printer.print_observed(&datagram);
            TOTALS.note_received(1, datagram.size);
            self.printed += 1;
            self.left = self.left.map(|left| left - 1);
            if let Some(wake) = wake {
                self.printer.output.flush_if_full(wake)?;
            }
        }
        Ok(())
    }

    /// Prints the datagrams that were sent before a signal, and returns its exit.
    fn stop(&mut self, signals: &Signals) -> Result<Exit> {
        let signal = signals.take();
        if signal == Signal::SIGPIPE {
            return Ok(Exit::Signal(signal));
        }
        self.observer.detach();
        self.print_batch(None)?;
        let now = Deadline::after(Some(std::time::Duration::ZERO));
        while self.observer.next_batch(now, &Wake::default())? == Progress::Datagrams {
            self.printed = 0;
            self.print_batch(None)?;
        }
        self.note_losses();
        self.printer.flush_after_signal()?;
        Ok(Exit::Signal(signal))
    }

    /// Reports the first loss. The number of missed packets is reported at the end.
    fn note_losses(&mut self) {
        let lost = self.observer.lost();
        if lost > 0 && self.lost == 0 {
            self.printer
                .report
                .warning("packets are missed: they are sent faster than they can be printed");
        }
        self.lost = lost;
        TOTALS.set_missed(lost);
    }

    fn socket_closed(&self) -> anyhow::Error {
        let message = format!("cannot observe {}: it was closed", self.socket);
        Failure::error(Exit::NobodyThere, message)
    }

    fn timed_out(&self, options: &Listen) -> anyhow::Error {
        let timeout = humantime::format_duration(options.timeout.0.unwrap_or_default());
        let count = options.count.unwrap_or_default();
        let cause = match count - self.left.unwrap_or_default() {
            0 => format!("no packet was sent within {timeout}"),
            sent => format!("{sent} of {count} packets were sent, and then none within {timeout}"),
        };
        let message = format!("cannot observe {}: {cause}", self.socket);
        Failure::error(Exit::TimedOut, message)
    }
}
