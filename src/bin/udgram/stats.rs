//! `--stats`: the totals of received and sent datagrams, reported at the end, on every SIGUSR1 and in
//! intervals.

use crate::cli::value::Reporting;
use crate::histogram::Histogram;
use crate::report::Report;
use crate::signal::{in_thread, on_every};
use anyhow::Result;
use nix::sys::signal::Signal;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The totals of this process.
pub(crate) static TOTALS: Totals = Totals {
    counts: Mutex::new(Counts::ZERO),
    round_trips: OnceLock::new(),
};

#[derive(Debug)]
pub(crate) struct Totals {
    /// Some 32-bit processors (ARMv5, MIPS, PowerPC) have no atomic numbers of 64 bits.
    counts: Mutex<Counts>,
    /// The times from packets to their replies; empty if they are not measured.
    round_trips: OnceLock<Mutex<Histogram>>,
}

#[derive(Debug, Clone, Copy)]
struct Counts {
    received: Total,
    not_packets: u64,
    /// Received datagrams that were not accepted because of their sender.
    refused: u64,
    sent: Total,
    /// Packets and answers that were not sent.
    dropped: u64,
    /// Datagrams that an observer could not record; `None` if none observes.
    missed: Option<u64>,
}

impl Counts {
    const ZERO: Self = Self {
        received: Total::ZERO,
        not_packets: 0,
        refused: 0,
        sent: Total::ZERO,
        dropped: 0,
        missed: None,
    };
}

/// Datagrams and their bytes.
#[derive(Debug, Clone, Copy)]
struct Total {
    datagrams: u64,
    bytes: u64,
}

impl Total {
    const ZERO: Self = Self {
        datagrams: 0,
        bytes: 0,
    };

    fn add(&mut self, datagrams: usize, bytes: usize) {
        self.datagrams += datagrams as u64;
        self.bytes += bytes as u64;
    }
}

impl Totals {
    /// Counts received datagrams.
    pub(crate) fn note_received(&self, datagrams: usize, bytes: usize) {
        self.counts().received.add(datagrams, bytes);
    }

    /// Counts sent datagrams.
    pub(crate) fn note_sent(&self, datagrams: usize, bytes: usize) {
        self.counts().sent.add(datagrams, bytes);
    }

    /// Counts a datagram that is not a valid packet.
    pub(crate) fn note_no_packet(&self) {
        self.counts().not_packets += 1;
    }

    /// Counts a received datagram that is not accepted.
    pub(crate) fn note_refused(&self) {
        self.counts().refused += 1;
    }

    /// Counts packets or answers that are not sent.
    pub(crate) fn note_dropped(&self, count: usize) {
        self.counts().dropped += count as u64;
    }

    /// Sets how many datagrams an observer has missed. From the first call on, the totals have it.
    pub(crate) fn set_missed(&self, missed: u64) {
        self.counts().missed = Some(missed);
    }

    /// Records the round trip of a packet that was due then and is answered now, if round trips are measured.
    pub(crate) fn note_reply(&self, due: Instant) {
        if let Some(Ok(mut round_trips)) = self.round_trips.get().map(Mutex::lock) {
            round_trips.record(due.elapsed());
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports the totals.
#[derive(Debug, Clone)]
pub(crate) struct Stats {
    report: Report,
    since: Instant,
    /// True once the last line was printed. Locked while a line is printed.
    concluded: Arc<Mutex<bool>>,
}

/// The lines that follow one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Continue,
    Conclude,
}

/// The start of the time for which packets a second are reported, and the totals then.
#[derive(Debug, Clone, Copy)]
struct Start {
    at: Instant,
    received: u64,
    sent: u64,
}

impl Stats {
    /// Reports the totals on every SIGUSR1 from now on, and in intervals if `reporting` asks for that. Call
    /// it before any thread is started: a thread that has not blocked SIGUSR1 would take the signal.
    pub(crate) fn start(report: Report, reporting: Reporting, round_trips: bool) -> Result<Self> {
        if round_trips {
            TOTALS
                .round_trips
                .get_or_init(|| Mutex::new(Histogram::new()));
        }
        let stats = Self {
            report,
            since: Instant::now(),
            concluded: Arc::default(),
        };
        let on_signal = stats.clone();
        on_every(Signal::SIGUSR1, move || {
            on_signal.print(on_signal.start_of_all(), Then::Continue);
        })?;
        if let Reporting::Every(interval) = reporting {
            let each = stats.clone();
            in_thread(move || each.print_every(interval))?;
        }
        Ok(stats)
    }

    /// Prints the last line.
    pub(crate) fn conclude(&self) {
        self.print(self.start_of_all(), Then::Conclude);
    }

    fn start_of_all(&self) -> Start {
        Start {
            at: self.since,
            received: 0,
            sent: 0,
        }
    }

    /// Prints a line each time an interval is over.
    fn print_every(&self, interval: Duration) {
        let mut start = self.start_of_all();
        let mut due = self.since;
        loop {
            // The time of each line is counted from the start, so that delays do not add up.
            let Some(next) = due.checked_add(interval) else {
                return;
            };
            due = next;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            start = self.print(start, Then::Continue);
            if start.at.saturating_duration_since(due) > interval {
                due = start.at;
            }
        }
    }

    /// Prints a line. Returns what the next interval starts with.
    fn print(&self, start: Start, then: Then) -> Start {
        // The totals are read under the lock: otherwise a line with higher ones could be printed before this one.
        let concluded = self.concluded.lock();
        let counts = *TOTALS.counts();
        let now = Start {
            at: Instant::now(),
            received: counts.received.datagrams,
            sent: counts.sent.datagrams,
        };
        match concluded {
            Ok(mut concluded) if !*concluded => {
                self.report.total(self.line(counts, start, now));
                *concluded = then == Then::Conclude;
            }
            _ => {}
        }
        now
    }

    /// Returns the totals, with the packets a second from `start` until `now`.
    fn line(&self, counts: Counts, start: Start, now: Start) -> String {
        let seconds = (now.at - start.at).as_secs_f64().max(f64::MIN_POSITIVE);
        #[allow(clippy::cast_precision_loss)] // Rounded to a tenth.
        let per_second = |count: u64| count as f64 / seconds;
        let missed = match counts.missed {
            Some(missed) => format!("missed={missed} "),
            None => String::new(),
        };
        let mut line = format!(
            "received={} received_bytes={} not_packets={} {missed}sent={} sent_bytes={} seconds={:.3} received_per_second={:.1} sent_per_second={:.1} refused={} dropped={}",
            now.received,
            counts.received.bytes,
            counts.not_packets,
            now.sent,
            counts.sent.bytes,
            (now.at - self.since).as_secs_f64(),
            per_second(now.received - start.received),
            per_second(now.sent - start.sent),
            counts.refused,
            counts.dropped,
        );
        if let Some(Ok(round_trips)) = TOTALS.round_trips.get().map(Mutex::lock) {
            let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
            // Writing to a string cannot fail.
            let _ = write!(
                line,
                " round_trips={} p50_us={:.1} p99_us={:.1} max_us={:.1}",
                round_trips.count(),
                microseconds(round_trips.percentile(50)),
                microseconds(round_trips.percentile(99)),
                microseconds(round_trips.max()),
            );
        }
        line
    }
}
