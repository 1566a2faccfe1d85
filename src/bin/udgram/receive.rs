//! The loop from the socket to stdout that all receiving commands share: it receives in batches,
//! prints and handles each datagram, and ends by count, time, signal or a closed stdout.

use crate::admission::Admission;
use crate::endpoint::Origin;
use crate::exit::{Exit, has_kind};
use crate::printer::{Printer, ReceiveOptions};
use crate::protocol::Client;
use crate::report::Report;
use crate::signal::Signals;
use crate::stats::TOTALS;
use anyhow::Result;
use nix::sys::signal::Signal;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};
use udgram::wait::{Deadline, Wake};
use udgram::{BATCH, Batch, Datagram, ErrorKind, ReceiveMode};

/// How often a receiver that never has to wait checks whether it is to stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(1);
/// How long the queue of a shared socket, which cannot be shut down, is drained at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a receiver waits.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    /// So long for each packet.
    Each(Option<Duration>),
    /// Until then for all of them.
    Total(Deadline),
}

/// When a receiver ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// After so many datagrams, good or bad.
    pub(crate) count: Option<u64>,
    pub(crate) patience: Patience,
    /// What it is when time runs out.
    pub(crate) expired: Exit,
    /// Whether the queue is drained when a signal ends it.
    pub(crate) drain: bool,
}

/// What is done when the output buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    /// It is written, which may block.
    Write,
    /// It grows.
    Keep,
}

/// What is done with each datagram besides printing it.
pub(crate) trait Handler {
    /// How many datagrams may be taken from the queue at a time.
    fn most(&self) -> usize {
        BATCH
    }

    /// Whether senders expect an answer.
    fn answers(&self) -> bool {
        false
    }

    /// Handles one.
    fn handle(
        &mut self,
        client: &Client,
        datagram: &mut Datagram<'_>,
        printer: &mut Printer,
        wake: &Wake<'_>,
    ) -> Result<()>;
}

/// Datagrams are printed only.
pub(crate) struct PrintOnly;

impl Handler for PrintOnly {
    fn handle(
        &mut self,
        _: &Client,
        _: &mut Datagram<'_>,
        _: &mut Printer,
        _: &Wake<'_>,
    ) -> Result<()> {
        Ok(())
    }
}

pub(crate) struct Receiver<H> {
    pub(crate) batch: Batch,
    pub(crate) printer: Printer,
    pub(crate) admission: Admission,
    handler: H,
    origin: Origin,
    /// How many datagrams have come and were taken in, good or bad.
    pub(crate) received: u64,
}

impl<H: Handler> Receiver<H> {
    /// Returns a receiver for a client whose socket has this origin and the options that `options`
    /// needs. `most` is how many datagrams it will take in all, if that is known.
    pub(crate) fn new(
        client: &Client,
        origin: Origin,
        options: ReceiveOptions,
        handler: H,
        most: Option<u64>,
        report: Report,
    ) -> Result<Self> {
        let most = most
            .map_or(BATCH, |most| usize::try_from(most).unwrap_or(BATCH))
            .min(handler.most());
        let batch = Batch::new(&*client.socket()?, options.room, most)?;
        Ok(Self {
            batch,
            printer: Printer::new(options, report),
            admission: Admission::default(),
            handler,
            origin,
            received: 0,
        })
    }

    /// Receives until the limits, a signal or a stdout that is gone end it.
    pub(crate) fn run(
        &mut self,
        client: &Client,
        limits: &Limits,
        signals: Option<&Signals>,
    ) -> Result<Exit> {
        let stop = signals.map(Signals::stop);
        let exit = self.receive(client, limits, stop).and_then(|exit| {
            self.printer.output.flush(&wake(stop, None))?;
            Ok(exit)
        });
        let exit = match (exit, signals) {
            (Err(error), Some(signals)) if has_kind(&error, ErrorKind::Stopped) => {
                self.stop(client, limits, signals)
            }
            (exit, _) => exit,
        };
        if exit.is_err() {
            // The error is returned; the lines that are ready are printed before it.
            let _ = self.printer.output.flush_at_exit();
        }
        exit
    }

    fn receive(
        &mut self,
        client: &Client,
        limits: &Limits,
        stop: Option<BorrowedFd<'_>>,
    ) -> Result<Exit> {
        let wake = wake(stop, self.printer.output.watched());
        let deadline = || match limits.patience {
            Patience::Each(timeout) => Deadline::after(timeout),
            Patience::Total(deadline) => deadline,
        };
        let mut until = deadline();
        let mut left = limits.count;
        let mut looked = Instant::now();
        while left != Some(0) {
            let most = left
                .map_or(BATCH, |left| usize::try_from(left).unwrap_or(BATCH))
                .min(self.handler.most());
            let output = &mut self.printer.output;
            let received = client.receive(&mut self.batch, most, until, &wake, |batch| {
                output.flush(&wake)?;
                batch.trim();
                anyhow::Ok(())
            })?;
            if received == 0 {
                return Ok(limits.expired);
            }
            let (taken, handled) = self.take_in(client, &wake, Full::Write);
            left = left.map(|left| left.saturating_sub(taken));
            handled?;
            if taken > 0 {
                until = deadline();
            } else if until.passed() {
                // Datagrams that are not admitted do not extend the time.
                return Ok(limits.expired);
            }
            let now = Instant::now();
            self.printer.output.flush_if_stale(now, &wake)?;
            if now.duration_since(looked) >= STOP_CHECK_INTERVAL {
                wake.check()?;
                if matches!(limits.patience, Patience::Total(deadline) if deadline.passed()) {
                    return Ok(limits.expired);
                }
                looked = now;
            }
        }
        Ok(Exit::Done)
    }

    /// Prints and handles the admitted datagrams of the batch, and returns how many they are. All
    /// are printed, even if handling one fails; how many were not handled is reported.
    fn take_in(&mut self, client: &Client, wake: &Wake<'_>, full: Full) -> (u64, Result<()>) {
        let (mut taken, mut unanswered, mut bytes) = (0, 0, 0);
        let mut handled = Ok(());
        for mut datagram in self.batch.datagrams() {
            let printer = &mut self.printer;
            if !self.admission.admits(&mut datagram, printer.report) {
                continue;
            }
            taken += 1;
            bytes += datagram.size;
            printer.print(client, &datagram);
            if handled.is_err() {
                unanswered += 1;
                continue;
            }
            handled = self.handler.handle(client, &mut datagram, printer, wake);
            if handled.is_ok() && full == Full::Write {
                // A batch of large datagrams must not be held in memory twice.
                handled = printer.output.flush_if_full(wake);
            }
        }
        if unanswered > 0 && self.handler.answers() {
            self.printer.report.warning(format_args!(
                "the end came first: {unanswered} more of the packets printed were not answered"
            ));
        }
        self.received += taken as u64;
        TOTALS.received.add(taken, bytes);
        (taken as u64, handled)
    }

    /// Prints what is queued and leaves it there: the socket's `SO_PEEK_OFF` is 0 or more.
    pub(crate) fn peek(
        &mut self,
        client: &Client,
        count: Option<u64>,
        signals: &Signals,
    ) -> Result<Exit> {
        let wake = wake(Some(signals.stop()), self.printer.output.watched());
        match self.look(client, count, &wake) {
            Err(error) if has_kind(&error, ErrorKind::Stopped) => Ok(Exit::Signal(signals.take())),
            looked => looked.map(|()| Exit::Done),
        }
    }

    fn look(&mut self, client: &Client, count: Option<u64>, wake: &Wake<'_>) -> Result<()> {
        // Under load the queue may never look empty; bound the time.
        let until = Deadline::after(Some(DRAIN_TIMEOUT));
        while count.is_none_or(|count| self.received < count) && !until.passed() {
            if client.try_receive(&mut self.batch, 1, ReceiveMode::Peek)? == 0 {
                break;
            }
            self.received += 1;
            for datagram in self.batch.datagrams() {
                self.printer.print(client, &datagram);
                TOTALS.received.add(1, datagram.size);
            }
            self.printer.output.flush_if_stale(Instant::now(), wake)?;
        }
        self.printer.output.flush(wake)
    }

    /// Prints final warnings and returns the exit status. Datagrams queued behind the last one asked
    /// for are lost with a socket that udgram made; that is reported.
    pub(crate) fn conclude(&mut self, client: &Client, exit: Exit) -> Result<Exit> {
        if self.origin == Origin::New && exit == Exit::Done {
            client.socket()?.shutdown_read()?;
            let mut left = 0;
            loop {
                match client.try_receive(&mut self.batch, BATCH, ReceiveMode::Remove)? {
                    0 => break,
                    count => left += count,
                }
            }
            if left > 0 {
                self.printer.report.warning(format_args!(
                    "{left} more came that nobody asked for, and are lost"
                ));
            }
        }
        Ok(self.printer.conclude(exit))
    }

    /// Ends after a signal: what the socket has accepted is still printed.
    fn stop(&mut self, client: &Client, limits: &Limits, signals: &Signals) -> Result<Exit> {
        let signal = signals.take();
        if signal == Signal::SIGPIPE {
            return Ok(Exit::Signal(signal));
        }
        if limits.drain {
            let until = Deadline::after(Some(DRAIN_TIMEOUT));
            if self.origin == Origin::New {
                // From here on senders get EPIPE: none is accepted behind the last datagram read.
                client.socket()?.shutdown_read()?;
            }
            // A second signal ends a handler that takes too long, and the draining.
            let wake = wake(Some(signals.stop()), None);
            let most = self.handler.most();
            while client.try_receive(&mut self.batch, most, ReceiveMode::Remove)? > 0 {
                match self.take_in(client, &wake, Full::Keep).1 {
                    Err(error) if has_kind(&error, ErrorKind::Stopped) => break,
                    handled => handled?,
                }
                if self.origin == Origin::Inherited && until.passed() {
                    break;
                }
            }
        }
        match self.printer.output.flush_at_exit() {
            Ok(()) if !self.printer.output.lines.is_empty() => {
                let left = self.printer.output.lines.len();
                self.printer.report.warning(format_args!(
                    "stdout takes nothing more: {left} bytes were not written"
                ));
            }
            Err(error) if Exit::of(&error) != Exit::Signal(Signal::SIGPIPE) => return Err(error),
            _ => {}
        }
        Ok(Exit::Signal(signal))
    }
}

/// Returns what ends a wait: a signal, or the reader of stdout going away.
pub(crate) fn wake<'w>(stop: Option<BorrowedFd<'w>>, output: Option<BorrowedFd<'w>>) -> Wake<'w> {
    Wake::new(stop, output)
}
