//! What every command that receives has in common: the loop from the socket to stdout.

use crate::admission::Admission;
use crate::cli::{Protocol, Receive, When};
use crate::color;
use crate::endpoint::Origin;
use crate::envelope::Fields;
use crate::exit::Exit;
use crate::output::Output;
use crate::report::Report;
use crate::signal::Signals;
use crate::stats::TOTALS;
use crate::terminal;
use anyhow::Result;
use nix::libc;
use nix::sys::signal::Signal;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::{Duration, Instant};
use udgram::ancillary::{DEFAULT_ROOM, Room};
use udgram::wait::{Deadline, Wake};
use udgram::{BATCH, Batch, Datagram, ErrorKind, Take, UnixDatagramEndpoint};

/// How often a program that never has to wait looks whether it is to stop.
const ATTENTION: Duration = Duration::from_millis(1);
/// How long a socket that cannot be shut down, being shared, is emptied at the end.
const EMPTYING: Duration = Duration::from_secs(1);

pub(crate) type Client = UnixDatagramEndpoint<Protocol>;

/// What is printed of each datagram, and where.
#[derive(Debug)]
pub(crate) struct Printer {
    pub(crate) output: Output,
    pub(crate) report: Report,
    protocol: Protocol,
    envelope: Option<Fields>,
    /// Whether what is printed is JSON, and in colours.
    color: bool,
    /// Datagrams that were no packets.
    failures: u64,
    /// Messages whose descriptors the kernel dropped because nobody had asked for them.
    dropped: u64,
    /// Packets for which CMD could not be run.
    unhandled: u64,
    room: Room,
}

/// What is asked for with the packets of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) protocol: Protocol,
    pub(crate) envelope: bool,
    pub(crate) credentials: bool,
    pub(crate) room: Room,
    pub(crate) color: When,
}

impl Wanted {
    /// What the options say; `descriptors`: whether a CMD takes them even without an envelope.
    pub(crate) fn by(receive: &Receive, descriptors: bool) -> Self {
        let envelope = receive.packets.envelope || receive.creds;
        let room = match receive.ancillary_bufsize {
            Some(bytes) => Room::Bytes(bytes as usize),
            None if envelope || descriptors => Room::Bytes(DEFAULT_ROOM),
            None => Room::NoDescriptors,
        };
        Self {
            protocol: receive.packets.protocol,
            envelope,
            credentials: receive.creds,
            room,
            color: receive.counting.shown.color,
        }
    }

    /// The socket options that it takes.
    pub(crate) fn needs(self) -> Vec<libc::c_int> {
        let time = self.envelope.then_some(libc::SO_TIMESTAMPNS);
        time.into_iter()
            .chain(self.credentials.then_some(libc::SO_PASSCRED))
            .collect()
    }
}

impl Printer {
    pub(crate) fn new(wanted: Wanted, report: Report) -> Self {
        let Wanted {
            protocol,
            credentials,
            room,
            ..
        } = wanted;
        let envelope = wanted.envelope.then(|| Fields::new(protocol, credentials));
        let output = Output::new();
        let json = wanted.envelope || protocol.is_json();
        Self {
            color: json && color::wanted(wanted.color, output.terminal),
            output,
            report,
            protocol,
            envelope,
            failures: 0,
            dropped: 0,
            unhandled: 0,
            room,
        }
    }

    /// Gathers what is to be printed of `datagram`, and reports one that is no packet.
    pub(crate) fn print(&mut self, client: &Client, datagram: &Datagram<'_>) {
        let start = self.output.lines.len();
        self.append(client, datagram, None);
        if self.output.terminal {
            let bare = self.envelope.is_none().then_some(self.protocol);
            terminal::escape(&mut self.output.lines, start, bare);
        }
        if self.color {
            color::paint(&mut self.output.lines, start);
        }
    }

    /// Appends the line of `datagram`, if it has any.
    fn append(&mut self, client: &Client, datagram: &Datagram<'_>, numbers: Option<&[RawFd]>) {
        if datagram.ancillary.truncated {
            self.note_truncation(datagram);
        }
        let lines = &mut self.output.lines;
        let packet = client.parse(datagram);
        match (&packet, &mut self.envelope) {
            (Ok(packet), None) => self.protocol.write_line(packet, lines),
            (_, Some(fields)) => fields.write(datagram, packet.as_deref(), numbers, lines),
            (Err(_), None) => {}
        }
        if let Err(error) = packet {
            self.failures += 1;
            TOTALS.note_no_packet();
            self.report.error(&error.into());
        }
    }

    /// The line of `datagram` without its line end, for CMD; its descriptors are to have
    /// `numbers`. `None` if it is no packet: that is reported, and the envelope, if one is asked
    /// for, is there to be printed.
    pub(crate) fn line(
        &mut self,
        client: &Client,
        datagram: &Datagram<'_>,
        numbers: &[RawFd],
    ) -> Option<Vec<u8>> {
        let failures = self.failures;
        self.append(client, datagram, Some(numbers));
        if self.failures > failures {
            return None;
        }
        let mut line = std::mem::take(&mut self.output.lines);
        if self.protocol != Protocol::Raw && line.ends_with(b"\n") {
            line.pop();
        }
        Some(line)
    }

    fn note_truncation(&mut self, datagram: &Datagram<'_>) {
        if self.room == Room::NoDescriptors {
            self.dropped += 1;
            if self.dropped == 1 {
                self.report.warning(format_args!(
                    "the descriptors that {} sent were dropped: only --envelope or a CMD takes them",
                    datagram.from().quoted()
                ));
            }
        } else if self.envelope.is_none() {
            self.report.warning(format_args!(
                "not all descriptors that {} sent could be received",
                datagram.from().quoted()
            ));
        }
    }

    /// CMD could not be run for a packet.
    pub(crate) fn note_unhandled(&mut self, error: &anyhow::Error) {
        self.unhandled += 1;
        self.report.error(error);
    }

    /// The end of all printing: what is still to be told, and the exit status it makes of `exit`.
    pub(crate) fn conclude(&mut self, exit: Exit) -> Exit {
        if self.dropped > 1 {
            self.report.warning(format_args!(
                "the descriptors of {} messages were dropped",
                self.dropped
            ));
        }
        if exit == Exit::Done && self.unhandled > 0 {
            Exit::CannotRun
        } else if exit == Exit::Done && self.failures > 0 {
            Exit::Parse
        } else {
            exit
        }
    }
}

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
    /// Whether the queue is emptied when a signal ends it.
    pub(crate) drain: bool,
}

/// What is done when much has been gathered for stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    /// It is written, however long that takes.
    Write,
    /// It is kept.
    Keep,
}

/// What is done with each datagram beside printing it.
pub(crate) trait Handler {
    /// How many datagrams may be taken from the queue at a time.
    fn most(&self) -> usize {
        BATCH
    }

    /// Whether whoever sent a packet may expect something of it.
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

/// Nothing is done but to print.
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
    /// A receiver for a client whose socket is of this origin and has the options on that
    /// `wanted` needs; `most`: how many datagrams it will take in all, if that is known.
    pub(crate) fn new(
        client: &Client,
        origin: Origin,
        wanted: Wanted,
        handler: H,
        most: Option<u64>,
        report: Report,
    ) -> Result<Self> {
        let most = most
            .map_or(BATCH, |most| usize::try_from(most).unwrap_or(BATCH))
            .min(handler.most());
        let batch = Batch::new(&*client.socket()?, wanted.room, most)?;
        Ok(Self {
            batch,
            printer: Printer::new(wanted, report),
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
            (Err(error), Some(signals)) if is(&error, ErrorKind::Stopped) => {
                self.stop(client, limits, signals)
            }
            (exit, _) => exit,
        };
        if exit.is_err() {
            // The error stands; what is there is printed before it.
            let _ = self.printer.output.finish();
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
            });
            match received {
                Err(error) if is(&error, ErrorKind::TimedOut) => return Ok(limits.expired),
                received => received?,
            };
            let (taken, handled) = self.take_in(client, &wake, Full::Write);
            left = left.map(|left| left.saturating_sub(taken));
            handled?;
            if taken > 0 {
                until = deadline();
            } else if until.passed() {
                // Those who are not admitted do not prolong it.
                return Ok(limits.expired);
            }
            let now = Instant::now();
            self.printer.output.keep_up(now, &wake)?;
            if now.duration_since(looked) >= ATTENTION {
                wake.check()?;
                if matches!(limits.patience, Patience::Total(deadline) if deadline.passed()) {
                    return Ok(limits.expired);
                }
                looked = now;
            }
        }
        Ok(Exit::Done)
    }

    /// Prints and handles the datagrams of the batch that are admitted: how many are. All of them
    /// are printed, whatever becomes of the handling; what was not handled is told.
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
                // Many large datagrams at once must not all be held in two forms.
                handled = printer.output.make_room(wake);
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
            Err(error) if is(&error, ErrorKind::Stopped) => Ok(Exit::Signal(signals.take())),
            looked => looked.map(|()| Exit::Done),
        }
    }

    fn look(&mut self, client: &Client, count: Option<u64>, wake: &Wake<'_>) -> Result<()> {
        // Where the socket's owner keeps reading and senders keep sending, there is no end by itself.
        let until = Deadline::after(Some(EMPTYING));
        while count.is_none_or(|count| self.received < count) && !until.passed() {
            if client.try_receive(&mut self.batch, 1, Take::Peek)? == 0 {
                break;
            }
            self.received += 1;
            for datagram in self.batch.datagrams() {
                self.printer.print(client, &datagram);
                TOTALS.received.add(1, datagram.size);
            }
            self.printer.output.keep_up(Instant::now(), wake)?;
        }
        self.printer.output.flush(wake)
    }

    /// The end of a command that receives: what is still to be told, and the exit status. What
    /// came behind the last packet asked for is lost with a socket of its own, which is told.
    pub(crate) fn conclude(&mut self, client: &Client, exit: Exit) -> Result<Exit> {
        if self.origin == Origin::New && exit == Exit::Done {
            client.socket()?.shut_reading_down()?;
            let mut left = 0;
            loop {
                match client.try_receive(&mut self.batch, BATCH, Take::Remove)? {
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

    /// A signal has asked for the end: what was accepted is still printed.
    fn stop(&mut self, client: &Client, limits: &Limits, signals: &Signals) -> Result<Exit> {
        let signal = signals.take();
        if signal == Signal::SIGPIPE {
            return Ok(Exit::Signal(signal));
        }
        if limits.drain {
            let until = Deadline::after(Some(EMPTYING));
            if self.origin == Origin::New {
                // From here on senders are told; none can slip in behind the last datagram read.
                client.socket()?.shut_reading_down()?;
            }
            // A second signal ends a handler that takes too long, and the rest with it.
            let wake = wake(Some(signals.stop()), None);
            let most = self.handler.most();
            while client.try_receive(&mut self.batch, most, Take::Remove)? > 0 {
                match self.take_in(client, &wake, Full::Keep).1 {
                    Err(error) if is(&error, ErrorKind::Stopped) => break,
                    handled => handled?,
                }
                if self.origin == Origin::Inherited && until.passed() {
                    break;
                }
            }
        }
        match self.printer.output.finish() {
            Err(error) if is(&error, ErrorKind::TimedOut) => {
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

/// Whether the library failed so.
pub(crate) fn is(error: &anyhow::Error, kind: ErrorKind) -> bool {
    error
        .downcast_ref::<udgram::Error>()
        .is_some_and(|error| error.kind() == kind)
}

/// What ends a wait of this program.
pub(crate) fn wake<'w>(stop: Option<BorrowedFd<'w>>, output: Option<BorrowedFd<'w>>) -> Wake<'w> {
    let mut wake = Wake::default();
    wake.stop = stop;
    wake.output = output;
    wake
}
