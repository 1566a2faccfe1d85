//! `relay`: the loop that passes packets between clients and peers, until a signal or a closed stdout ends
//! it.

mod clients;
mod copies;
mod events;
mod exchange;
mod first;
mod identity;
mod parcel;

use crate::answering::Answers;
use crate::exit::{Exit, has_kind};
use crate::printer::{Printer, ReceiveOptions};
use crate::protocol::Client;
use crate::receive::STOP_CHECK_INTERVAL;
use crate::report::Report;
use crate::signal::Signals;
use crate::socket_file::WatchedFile;
use anyhow::{Context, Result};
use clients::FIRST_TOKEN;
use copies::CopyPeer;
use events::{Events, Interest};
use exchange::Exchange;
use first::FirstPeer;
use identity::Impersonator;
use nix::sys::signal::Signal;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use udgram::ancillary::MAX_DESCRIPTORS;
use udgram::answers::Growth;
use udgram::users::Users;
use udgram::wait::{Deadline, Ready, Until, Wake, wait};
use udgram::{Address, BATCH, Batch, ErrorKind, ReceiveMode};

/// The tokens of the socket of ADDR, of its file, and of the first of the further peers.
const FRONT: u64 = 0;
const FILE: u64 = 1;
const COPIES: u64 = 2;

/// The number of turns without work, each after yielding the processor, before the relay waits.
const YIELDS: u32 = 16;
/// The number of waits that an event ends without work, after which room is not watched for
/// [`PAUSE`]: too many descriptors are in flight, which no event reports the end of.
const MAX_FUTILE: u32 = 16;
const PAUSE: Duration = Duration::from_millis(1);
/// The time that packets have to be passed on at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The settings of a relay.
pub(crate) struct Settings<'s> {
    pub(crate) peers: &'s [Address<'static>],
    /// The time after which the socket of an idle client is closed.
    pub(crate) timeout: Option<Duration>,
    pub(crate) printing: ReceiveOptions,
    pub(crate) growth: Growth,
    /// The number of descriptors that the process may have open.
    pub(crate) descriptor_limit: usize,
}

/// The packets that clients can still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intake {
    Open,
    /// Nothing: what is queued is received.
    ShutDown,
    /// Nothing, and nothing is queued.
    Ended,
}

pub(crate) struct Relay {
    exchange: Exchange,
    /// The buffers for the clients' packets.
    questions: Batch,
    file: WatchedFile,
    /// The descriptor that is watched for its loss.
    _notice: Option<OwnedFd>,
    intake: Intake,
    /// True if packets of clients may be queued.
    ready: bool,
    /// True while the socket of ADDR is watched.
    watched: bool,
    /// The time of the next attempt to send answers that wait.
    answers_due: Option<Instant>,
    /// The number of waits that an event ended, and after which there was nothing to do.
    futile: u32,
}

impl Relay {
    /// Returns a relay for the clients of `front`, whose socket file is `file`.
    pub(crate) fn new(
        front: Client,
        file: WatchedFile,
        settings: &Settings<'_>,
        report: Report,
    ) -> Result<Self> {
        let events = Events::new()?;
        let socket = front.socket()?;
        let watch = "cannot watch the socket";
        events
            .add(&*socket, FRONT, Interest::Readable)
            .context(watch)?;
        let notice = file.notice();
        if let Some(notice) = &notice {
            events
                .add(notice, FILE, Interest::Readable)
                .context(watch)?;
        }
        let [first, others @ ..] = settings.peers else {
            return Err(anyhow::Error::msg("a peer is missing"));
        };
        let copies = (COPIES..)
            .zip(others)
            .map(|(token, peer)| CopyPeer::new(peer.clone(), token, &events, report))
            .collect::<udgram::Result<_>>()?;
        let limit = settings.descriptor_limit;
        let clients = exchange::clients(limit, settings.timeout);
        // A quarter of the descriptors may be received with one batch.
        let slots = (limit / 4 / MAX_DESCRIPTORS).max(1);
        let users = Users::of_this_process();
        let batch = |slots: usize| Batch::new(&*socket, settings.printing.space, slots);
        Ok(Self {
            questions: batch(slots.min(BATCH))?,
            exchange: Exchange {
                replies: batch(slots.min(BATCH / 4))?,
                events,
                printer: Printer::new(settings.printing, report),
                first: FirstPeer::new(first.clone(), clients, report),
                copies,
                answers: Answers::new(settings.growth),
                impersonator: Impersonator::new(users, report),
                users,
                eviction_reported: false,
                truncation_reported: false,
                front,
            },
            file,
            _notice: notice,
            intake: Intake::Open,
            ready: true,
            watched: true,
            answers_due: None,
            futile: 0,
        })
    }

    /// Passes packets until a signal or a stdout that is gone ends it.
    pub(crate) fn run(&mut self, signals: &Signals) -> Result<Exit> {
        let output = self.exchange.printer.output.watched();
        let wake = Wake::new(Some(signals.stop()), output);
        let Err(error) = self.serve(&wake);
        if has_kind(&error, ErrorKind::Stopped) {
            return self.stop(signals);
        }
        // The error is returned; the lines that are ready are printed before it.
        let _ = self.exchange.printer.output.flush_at_exit();
        Err(error)
    }

    fn serve(&mut self, wake: &Wake<'_>) -> Result<std::convert::Infallible> {
        let mut checked = Instant::now();
        loop {
            let now = Instant::now();
            if self.turn(now)? {
                let output = &mut self.exchange.printer.output;
                output.flush_if_full(wake)?;
                output.flush_if_stale(now, wake)?;
                if now.duration_since(checked) >= STOP_CHECK_INTERVAL {
                    wake.check()?;
                    checked = now;
                }
            } else if !self.turn_again()? {
                self.exchange.printer.output.flush(wake)?;
                self.questions.trim();
                self.exchange.replies.trim();
                self.sleep(Deadline::NEVER, wake)?;
            }
        }
    }

    /// Does what can be done without waiting. Returns whether there was anything.
    fn turn(&mut self, now: Instant) -> Result<bool> {
        let mut busy = false;
        for event in self.exchange.events.ready()? {
            match event.token {
                FRONT => self.ready = true,
                FILE => self.file.report_loss(self.exchange.printer.report),
                token if token >= FIRST_TOKEN && event.readable => {
                    busy |= self.exchange.answer(token, now)?;
                }
                // There is room in the queue of a peer.
                _ => {}
            }
        }
        busy |= self.exchange.retry(now)?;
        self.exchange.close_idle(now)?;
        if self.accepts() {
            busy |= self.take_questions(now)?;
        }
        let due = self.exchange.retry_answers()?;
        self.answers_due = due.map(|time| now + time);
        if busy {
            self.futile = 0;
        }
        Ok(busy)
    }

    /// Repeats turns without work for a moment: a process that runs on another processor is usually faster
    /// than a wake-up. Returns whether there was work.
    fn turn_again(&mut self) -> Result<bool> {
        for _ in 0..YIELDS {
            std::thread::yield_now();
            if self.turn(Instant::now())? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns whether packets of clients are received: not while others wait for a peer.
    fn accepts(&self) -> bool {
        let exchange = &self.exchange;
        self.ready
            && self.intake != Intake::Ended
            && !exchange.first.holds()
            && !exchange.copies.iter().any(CopyPeer::delays)
    }

    /// Receives packets of clients and passes them on. Returns whether there were any.
    fn take_questions(&mut self, now: Instant) -> Result<bool> {
        let front = &self.exchange.front;
        let count = front.try_receive(&mut self.questions, BATCH, ReceiveMode::Remove)?;
        if count == 0 {
            self.ready = false;
            if self.intake == Intake::ShutDown {
                self.intake = Intake::Ended;
            }
            return Ok(false);
        }
        for mut datagram in self.questions.datagrams() {
            self.exchange.take(&mut datagram, now)?;
        }
        Ok(true)
    }

    /// Waits until there is something to do, but not after the deadline.
    fn sleep(&mut self, until: Deadline, wake: &Wake<'_>) -> Result<()> {
        let watch = self.futile < MAX_FUTILE;
        let exchange = &mut self.exchange;
        exchange.first.watch_room(&exchange.events, watch);
        for copy in &mut exchange.copies {
            copy.watch_room(&exchange.events, watch);
        }
        self.watch_front()?;
        let now = Instant::now();
        let work = self
            .exchange
            .next_work()
            .into_iter()
            .chain(self.answers_due);
        let mut until = work.fold(until, |until, work| {
            until.or_after(work.saturating_duration_since(now))
        });
        if !watch {
            self.futile = 0;
            until = until.or_after(PAUSE);
        }
        let ready = wait(&self.exchange.events, Until::Readable, until, wake)?;
        if ready == Some(Ready::Now) {
            self.futile += 1;
        }
        Ok(())
    }

    /// Watches the socket of ADDR if packets of clients are to be received.
    fn watch_front(&mut self) -> Result<()> {
        let ready = std::mem::replace(&mut self.ready, true);
        let wanted = self.accepts();
        self.ready = ready;
        if wanted != self.watched {
            let interest = if wanted {
                Interest::Readable
            } else {
                Interest::Nothing
            };
            let socket = self.exchange.front.socket()?;
            let set = self.exchange.events.set(&*socket, FRONT, interest);
            set.context("cannot watch the socket")?;
            self.watched = wanted;
            // It was not watched: packets may have come.
            self.ready |= wanted;
        }
        Ok(())
    }

    /// Ends after a signal: what the socket of ADDR has accepted is still passed on.
    fn stop(&mut self, signals: &Signals) -> Result<Exit> {
        let signal = signals.take();
        if signal == Signal::SIGPIPE {
            return Ok(Exit::Signal(signal));
        }
        // From here on clients get EPIPE: none is accepted behind the last packet read.
        self.exchange.front.socket()?.shutdown_read()?;
        self.intake = Intake::ShutDown;
        self.ready = true;
        // A second signal ends the wait for peers and clients without room.
        let wake = Wake::new(Some(signals.stop()), None);
        let until = Deadline::after(Some(if signals.repeated() {
            Duration::ZERO
        } else {
            DRAIN_TIMEOUT
        }));
        while !until.passed() {
            let busy = self.turn(Instant::now())?;
            if self.is_drained() {
                break;
            }
            if busy {
                continue;
            }
            match self.sleep(until, &wake) {
                Err(error) if has_kind(&error, ErrorKind::Stopped) => break,
                slept => slept?,
            }
        }
        // What is left is printed, and counted as not passed on.
        self.exchange.first.end();
        while self.intake != Intake::Ended {
            self.take_questions(Instant::now())?;
        }
        self.exchange.finish(until, &wake)?;
        self.exchange.printer.flush_after_signal()?;
        Ok(self.exchange.printer.conclude(Exit::Signal(signal)))
    }

    /// Returns whether everything was passed on that was accepted.
    fn is_drained(&self) -> bool {
        let exchange = &self.exchange;
        self.intake == Intake::Ended
            && !exchange.first.holds()
            && !exchange.copies.iter().any(CopyPeer::has_waiting)
    }
}
