//! The loop from the socket to stdout that all receiving commands share: it receives in batches,
//! prints and handles each datagram, and ends by count, time, signal or a closed stdout.

use crate::admission::Admission;
use crate::commands::Descriptors;
use crate::endpoint::{Opened, Origin, is_stamped};
use crate::exit::{Exit, has_kind};
use crate::handler::Handler;
use crate::limits::{Allowance, Limits};
use crate::printer::{Printer, ReceiveOptions};
use crate::protocol::Client;
use crate::report::Report;
use crate::signal::Signals;
use crate::socket_file::WatchedFile;
use crate::stats::TOTALS;
use crate::strangers::Strangers;
use anyhow::Result;
use nix::libc;
use nix::sys::signal::Signal;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};
use udgram::wait::{self, Deadline, Ready, Until, Wake};
use udgram::{BATCH, Batch, Binding, Datagram, ErrorKind, ReceiveMode, sockopt};

/// The interval at which a receiver that never has to wait checks for a signal.
pub(crate) const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(1);
/// The time for which queued datagrams are handled at the end, and for which the queue of a shared socket, which
/// cannot be shut down, is drained.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The action when the output buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    /// It is written, which may block.
    Write,
    /// It grows.
    Keep,
}

/// The datagrams that are replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replies {
    /// Any datagram.
    All,
    /// Those that come once the question has been received: while it is unread, nothing can be its answer.
    /// SIOCOUTQ says whether anything sent from the socket is unread.
    OnceRead,
    /// None: they were queued before the question.
    Late,
}

/// The rules by which the datagrams of a batch are taken in.
#[derive(Debug, Clone, Copy)]
struct Intake<'w> {
    wake: &'w Wake<'w>,
    full: Full,
    replies: Replies,
    /// None is handled after this.
    until: Deadline,
}

pub(crate) struct Receiver<H> {
    pub(crate) batch: Batch,
    pub(crate) printer: Printer,
    pub(crate) admission: Admission,
    pub(crate) handler: H,
    origin: Origin,
    pub(crate) strangers: Strangers,
    /// The descriptors of senders that the kernel supplies now; `None` if that is not to be changed.
    senders: Option<Descriptors>,
    /// True if each datagram has its time of arrival from now on.
    stamped: bool,
    /// The time at which the last receive began.
    called: SystemTime,
    /// The time of the last check for a signal, also in an earlier run: one that answers a single question may
    /// never sleep.
    checked: Instant,
    /// The number of datagrams that were taken in, valid or not.
    pub(crate) received: u64,
    /// The number of those that were printed and not handled.
    unhandled: u64,
    /// The number of datagrams still wanted.
    left: Option<u64>,
    file: WatchedFile,
}

impl<H: Handler> Receiver<H> {
    /// Returns a receiver for the socket of `client`, which was opened as `opened` says and has the
    /// options on that `options` needs. `max` is how many datagrams it will take in all, if that is
    /// known.
    pub(crate) fn new(
        client: &Client,
        opened: Opened,
        options: ReceiveOptions,
        handler: H,
        max: Option<u64>,
        report: Report,
    ) -> Result<Self> {
        let max = max
            .map_or(BATCH, |max| usize::try_from(max).unwrap_or(BATCH))
            .min(handler.max());
        let socket = client.socket()?;
        let batch = Batch::new(&socket, options.space, max)?;
        let supplied = opened.origin == Origin::New
            && sockopt::get_int(&socket, libc::SO_PASSPIDFD).is_ok_and(|value| value != 0);
        Ok(Self {
            batch,
            printer: Printer::new(options, report),
            admission: Admission::default(),
            handler,
            origin: opened.origin,
            strangers: Strangers::to(opened.only_from),
            senders: supplied.then_some(Descriptors::Wanted),
            stamped: opened.stamped,
            called: SystemTime::UNIX_EPOCH,
            checked: Instant::now(),
            received: 0,
            unhandled: 0,
            left: None,
            file: WatchedFile::default(),
        })
    }

    /// Owns the socket file, and reports once if it loses its name.
    pub(crate) fn watch(&mut self, binding: Option<Binding>) {
        self.file = WatchedFile::new(binding, self.printer.report);
    }

    /// Reports once that the socket file is lost.
    fn report_loss(&mut self) {
        self.file.report_loss(self.printer.report);
    }

    /// Returns whether other processes may send from the socket.
    pub(crate) fn is_shared(&self) -> bool {
        self.origin == Origin::Inherited
    }

    /// Receives until a limit is reached, a signal arrives, or the reader of stdout has gone.
    pub(crate) fn run(
        &mut self,
        client: &Client,
        limits: &Limits,
        replies: Replies,
        signals: Option<&Signals>,
    ) -> Result<Exit> {
        let stop = signals.map(Signals::stop);
        let notice = self.handler.notice(self.file.notice())?;
        let mut wake = Wake::new(stop, self.printer.output.watched());
        wake.notice = notice.as_ref().map(AsFd::as_fd);
        let intake = Intake {
            wake: &wake,
            full: Full::Write,
            replies,
            until: Deadline::NEVER,
        };
        self.left = limits.count;
        let exit = self.receive(client, limits, intake).and_then(|exit| {
            let wake = Wake::new(stop, None);
            if !limits.patience.is_for_first() {
                self.printer.output.flush(&wake)?;
            }
            let report = self.printer.report;
            let ended = self.handler.has_ended();
            self.handler
                .finish(client, report, Deadline::NEVER, &wake)?;
            if ended && self.origin == Origin::New {
                self.drain_for(client, Duration::ZERO, &wake)?;
                self.printer.flush_after_signal()?;
            }
            Ok(exit)
        });
        let exit = match (exit, signals) {
            (Err(error), Some(signals)) if has_kind(&error, ErrorKind::Stopped) => {
                self.stop(client, limits, signals)
            }
            (exit, _) => exit,
        };
        if let Err(error) = &exit {
            // The error is returned; the lines that are ready are printed before it.
            let _ = self.printer.output.flush_at_exit();
            if Exit::of(error) != Exit::Signal(Signal::SIGPIPE) {
                let (report, now) = (self.printer.report, Deadline::after(Some(Duration::ZERO)));
                let _ = self.handler.finish(client, report, now, &Wake::default());
            }
        }
        if self.unhandled > 0 && self.handler.answers() {
            self.printer.report.warning(format_args!(
                "stopped: {} more of the packets printed were not answered",
                self.unhandled
            ));
        }
        exit.map(|exit| match exit {
            Exit::Done => self.handler.exit(),
            exit => exit,
        })
    }

    fn receive(&mut self, client: &Client, limits: &Limits, intake: Intake<'_>) -> Result<Exit> {
        let began = SystemTime::now();
        let mut time = Allowance::new(limits.patience, &self.printer);
        while self.left != Some(0) && !self.handler.has_ended() {
            let until = time.deadline(&self.printer);
            let over = until.passed();
            if over
                && time.is_total()
                && (self.batch.has_been_empty() || self.is_exceeded(client, until))
            {
                // All that was queued at the start is printed, or it cannot be distinguished from later datagrams.
                return Ok(limits.expired);
            }
            let count = if over && limits.patience.is_for_first() {
                // Nothing is waited for, so the lines stay collected.
                self.called = SystemTime::now();
                let max = self.max();
                client.try_receive(&mut self.batch, max, ReceiveMode::Remove)?
            } else {
                self.take_batch(client, until, intake.wake)?
            };
            if count == 0 {
                if self.handler.max() == 0 {
                    // It waits for the handler, not for a packet.
                    time.renew(&self.printer);
                }
                if time.deadline(&self.printer).passed() {
                    return Ok(limits.expired);
                }
                self.report_loss();
                continue;
            }
            let later = over && self.came_after(began);
            let (taken, handled) = self.accept_batch(client, intake);
            handled?;
            if later && time.is_total() {
                return Ok(limits.expired);
            }
            if taken > 0 {
                time.renew(&self.printer);
            } else if over && !time.is_total() {
                // Datagrams that are not admitted do not extend the time.
                return Ok(limits.expired);
            }
            let now = Instant::now();
            self.printer.output.flush_if_stale(now, intake.wake)?;
            if now.duration_since(self.checked) >= STOP_CHECK_INTERVAL {
                if intake.wake.check()? {
                    self.report_loss();
                }
                self.checked = now;
            }
            if taken > 0 && limits.patience.is_for_first() {
                return Ok(Exit::Done);
            }
        }
        Ok(Exit::Done)
    }

    /// Writes the lines that a caller with [`Patience::First`](crate::limits::Patience::First) has left.
    pub(crate) fn write_lines(&mut self, signals: Option<&Signals>) -> Result<Exit> {
        let wake = Wake::new(signals.map(Signals::stop), None);
        match (self.printer.output.flush(&wake), signals) {
            (Err(error), Some(signals)) if has_kind(&error, ErrorKind::Stopped) => {
                let signal = signals.take();
                if signal != Signal::SIGPIPE {
                    self.printer.flush_after_signal()?;
                }
                Ok(Exit::Signal(signal))
            }
            (written, _) => written.map(|()| Exit::Done),
        }
    }

    /// Returns whether a queue that never looks empty is left: the deadline passed long ago, and
    /// without times of arrival datagrams queued at the start cannot be distinguished from later ones.
    fn is_exceeded(&self, client: &Client, deadline: Deadline) -> bool {
        let exceeded = deadline.extended(DRAIN_TIMEOUT).passed()
            && !client.socket().is_ok_and(|socket| is_stamped(&socket));
        if exceeded {
            self.printer.report.warning(format_args!(
                "stopped {} after the end of the time: packets that were queued may be left",
                humantime::format_duration(DRAIN_TIMEOUT)
            ));
        }
        exceeded
    }

    /// Receives a batch, waiting for it until the deadline or until the handler wants to be called.
    fn take_batch(&mut self, client: &Client, until: Deadline, wake: &Wake<'_>) -> Result<usize> {
        let soon = match self.handler.retry(client, self.printer.report)? {
            Some(time) => until.or_after(time),
            None => until,
        };
        let max = self.max();
        let (output, senders) = (&mut self.printer.output, &mut self.senders);
        if max == 0 {
            output.flush(wake)?;
            self.batch.trim();
            wait::pause(soon, wake)?;
            return Ok(0);
        }
        self.called = SystemTime::now();
        if self.handler.is_busy() {
            let count = client.try_receive(&mut self.batch, max, ReceiveMode::Remove)?;
            if count > 0 {
                return Ok(count);
            }
            output.flush(wake)?;
            self.batch.trim();
            // The receive below would first spin, and not see a notice.
            let ready = wait::wait(client.socket()?, Until::Readable, soon, wake)?;
            if matches!(ready, None | Some(Ready::Notice)) {
                return Ok(0);
            }
            self.called = SystemTime::now();
        }
        client.receive(&mut self.batch, max, soon, wake, |batch| {
            // Any process may be the next to send.
            ask_for_senders(client, senders, Descriptors::Wanted)?;
            output.flush(wake)?;
            batch.trim();
            anyhow::Ok(())
        })
    }

    /// Returns how many datagrams are wanted at once.
    fn wanted(&self) -> usize {
        self.left
            .map_or(BATCH, |left| usize::try_from(left).unwrap_or(BATCH))
    }

    /// Returns how many datagrams may be taken at once: never more than are wanted.
    fn max(&self) -> usize {
        self.wanted().min(self.handler.max())
    }

    /// Returns whether a datagram of the batch was sent after `began`. The kernel notes the time of a
    /// datagram when it is sent, or, if the socket did not ask for it then, when it is received.
    fn came_after(&mut self, began: SystemTime) -> bool {
        let called = self.called;
        self.batch.datagrams().any(|datagram| {
            let time = datagram.ancillary.time;
            time.is_some_and(|time| began < time && time < called)
        })
    }

    /// Prints and handles the admitted datagrams of the batch, and returns how many they are. All
    /// are printed, even if handling one fails.
    fn accept_batch(&mut self, client: &Client, intake: Intake<'_>) -> (u64, Result<()>) {
        let all_late = match intake.replies {
            Replies::All => false,
            Replies::OnceRead => question_is_unread(client),
            Replies::Late => true,
        };
        self.stamped |= self.batch.has_been_empty();
        self.strangers.begin_batch(client);
        let answers = self.handler.answers();
        let mut to_answer = Vec::with_capacity(if answers { BATCH } else { 0 });
        let (mut taken, mut handled, mut written) = (0_u64, Ok(()), Ok(()));
        let printer = &mut self.printer;
        for mut datagram in self.batch.datagrams() {
            let sent = datagram.ancillary.time;
            let late = all_late || sent.is_some_and(|sent| self.handler.is_late(sent));
            if !self.stamped {
                self.stamped = keep_time_of_arrival(&mut datagram, self.called);
            }
            if !self.strangers.admits(&mut datagram, printer.report) {
                continue;
            }
            if !self.admission.admits(&mut datagram, printer.report) {
                TOTALS.note_refused();
                continue;
            }
            // Before it is answered: no total has more sent than received.
            TOTALS.note_received(1, datagram.size);
            if late {
                printer.print_late(&datagram);
                continue;
            }
            taken += 1;
            if self.handler.prints() {
                printer.print(&datagram);
            }
            if handled.is_err() || intake.until.passed() {
                self.unhandled += 1;
                continue;
            }
            handled = self
                .handler
                .handle(client, &mut datagram, printer, intake.wake);
            if handled.is_ok() && written.is_ok() && intake.full == Full::Write {
                // A batch of large datagrams must not be held in memory twice, except after a signal.
                written = printer.output.flush_if_full(intake.wake);
            }
            if answers {
                to_answer.push(datagram);
            }
        }
        let answered = self.handler.end_batch(client, &to_answer, printer.report);
        let handled = handled.and(written).and(answered);
        self.left = self.left.map(|left| left.saturating_sub(taken));
        self.received += taken;
        (taken, handled.and_then(|()| self.end_batch(client)))
    }

    /// Asks the kernel for descriptors of the next senders only if they are needed.
    fn end_batch(&mut self, client: &Client) -> Result<()> {
        match self.printer.end_batch() {
            Some(wanted) => ask_for_senders(client, &mut self.senders, wanted),
            None => Ok(()),
        }
    }

    /// Reports what is queued before a question: it is not the answer.
    pub(crate) fn set_late_aside(&mut self, client: &Client, wake: &Wake<'_>) -> Result<()> {
        let intake = Intake {
            wake,
            full: Full::Write,
            replies: Replies::Late,
            until: Deadline::NEVER,
        };
        self.called = SystemTime::now();
        // A sender that never stops does not keep the question from being sent.
        let until = Deadline::after(Some(DRAIN_TIMEOUT));
        while !until.passed()
            && client.try_receive(&mut self.batch, BATCH, ReceiveMode::Remove)? > 0
        {
            self.accept_batch(client, intake).1?;
            intake.wake.check()?;
        }
        Ok(())
    }

    /// Drops what is queued while the kernel has forgotten the peer: it is of others.
    pub(crate) fn drop_queued(&mut self, client: &Client) -> Result<()> {
        // A sender that never stops does not keep the peer from being connected again.
        let until = Deadline::after(Some(DRAIN_TIMEOUT));
        let report = self.printer.report;
        self.strangers
            .refuse_queued(client, &mut self.batch, until, report)
    }

    /// Prints one batch of what is queued; does not wait, not even for stdout. Returns how many datagrams
    /// were queued.
    pub(crate) fn take_queued(&mut self, client: &Client, wake: &Wake<'_>) -> Result<usize> {
        let intake = Intake {
            wake,
            full: Full::Keep,
            replies: Replies::All,
            until: Deadline::NEVER,
        };
        self.called = SystemTime::now();
        let count = client.try_receive(&mut self.batch, BATCH, ReceiveMode::Remove)?;
        if count > 0 {
            self.accept_batch(client, intake).1?;
        }
        Ok(count)
    }

    /// Prints final warnings and returns the exit status. Datagrams queued behind the last one asked
    /// for are lost with a socket that udgram made; that is reported with a `hint`.
    pub(crate) fn conclude(&mut self, client: &Client, exit: Exit, hint: &str) -> Result<Exit> {
        if self.origin == Origin::New && exit == Exit::Done {
            client.socket()?.shutdown_read()?;
            let mut left = 0;
            while let count @ 1.. =
                client.try_receive(&mut self.batch, BATCH, ReceiveMode::Remove)?
            {
                left += count;
            }
            let lost = match left {
                1 => "1 more packet was queued and is".to_owned(),
                left => format!("{left} more packets were queued and are"),
            };
            if left > 0 {
                let report = self.printer.report;
                report.warning(format_args!("{lost} lost (hint: {hint})"));
            }
        }
        self.strangers.conclude(self.printer.report);
        Ok(self.printer.conclude(exit))
    }

    /// Ends after a signal: what the socket has accepted is still printed.
    pub(crate) fn stop(
        &mut self,
        client: &Client,
        limits: &Limits,
        signals: &Signals,
    ) -> Result<Exit> {
        let signal = signals.take();
        if signal == Signal::SIGPIPE {
            return Ok(Exit::Signal(signal));
        }
        if limits.drain {
            self.drain(client, signals)?;
        }
        self.printer.flush_after_signal()?;
        Ok(Exit::Signal(signal))
    }

    /// Takes in what is queued, but never more than is wanted. Nothing is accepted afterwards.
    pub(crate) fn drain(&mut self, client: &Client, signals: &Signals) -> Result<()> {
        // A second signal ends a handler that takes too long, and the draining: what follows is only
        // printed.
        let wake = Wake::new(Some(signals.stop()), None);
        let time = if signals.repeated() {
            Duration::ZERO
        } else {
            DRAIN_TIMEOUT
        };
        self.drain_for(client, time, &wake)
    }

    /// Does the same, and handles the datagrams for `time` at most.
    fn drain_for(&mut self, client: &Client, time: Duration, wake: &Wake<'_>) -> Result<()> {
        self.handler.stop();
        if self.origin == Origin::New {
            // From here on senders get EPIPE: none is accepted behind the last datagram read.
            client.socket()?.shutdown_read()?;
        }
        let no_more = Deadline::after(Some(Duration::ZERO));
        let mut intake = Intake {
            wake,
            full: Full::Keep,
            replies: Replies::All,
            until: Deadline::after(Some(time)),
        };
        while self.left != Some(0) {
            let max = if intake.until.passed() {
                self.wanted()
            } else {
                self.max()
            };
            if max == 0 {
                match self.await_handler(client, intake) {
                    Err(error) if has_kind(&error, ErrorKind::Stopped) => intake.until = no_more,
                    Ok(()) if self.handler.has_ended() => intake.until = no_more,
                    waited => waited?,
                }
                continue;
            }
            self.called = SystemTime::now();
            if client.try_receive(&mut self.batch, max, ReceiveMode::Remove)? == 0 {
                break;
            }
            match self.accept_batch(client, intake).1 {
                Err(error) if has_kind(&error, ErrorKind::Stopped) => intake.until = no_more,
                handled => handled?,
            }
            if self.origin == Origin::Inherited && intake.until.passed() {
                break;
            }
        }
        let report = self.printer.report;
        self.handler.finish(client, report, intake.until, wake)
    }

    /// Waits until the handler may take more.
    fn await_handler(&mut self, client: &Client, intake: Intake<'_>) -> Result<()> {
        let soon = self.handler.retry(client, self.printer.report)?;
        if self.handler.max() == 0 && !self.handler.has_ended() {
            let until = soon.map_or(intake.until, |soon| intake.until.or_after(soon));
            self.handler.pause(until, intake.wake)?;
        }
        Ok(())
    }
}

/// Makes the kernel supply descriptors of the senders, or stop doing so; `state` is what it does now.
fn ask_for_senders(
    client: &Client,
    state: &mut Option<Descriptors>,
    wanted: Descriptors,
) -> Result<()> {
    if state.is_some_and(|now| now != wanted) {
        client
            .socket()?
            .set_passpidfd(wanted == Descriptors::Wanted)?;
        *state = Some(wanted);
    }
    Ok(())
}

/// Removes the time of a datagram that was queued before the socket asked for it: the kernel gives the
/// time of receipt, not before the receive was `called`. Returns whether it has the time of arrival.
pub(crate) fn keep_time_of_arrival(datagram: &mut Datagram<'_>, called: SystemTime) -> bool {
    let time = &mut datagram.ancillary.time;
    *time = time.filter(|time| *time < called);
    time.is_some()
}

/// Returns whether something that was sent from the socket is unread: its receiver cannot have
/// answered it. The kernel counts a datagram until recvmsg(2) has copied it.
fn question_is_unread(client: &Client) -> bool {
    client
        .socket()
        .and_then(sockopt::unread)
        .is_ok_and(|unread| unread > 0)
}
