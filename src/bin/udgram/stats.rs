//! `--stats`: the totals of received and sent datagrams, reported at the end and on every SIGUSR1.

use crate::report::Report;
use crate::signal::on_every;
use anyhow::Result;
use nix::sys::signal::Signal;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The totals of this process.
pub(crate) static TOTALS: Totals = Totals {
    received: Total::zero(),
    not_packets: AtomicU64::new(0),
    sent: Total::zero(),
    missed: OnceLock::new(),
};

#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) received: Total,
    not_packets: AtomicU64,
    pub(crate) sent: Total,
    /// Datagrams that an observer could not record; empty if none observes.
    missed: OnceLock<AtomicU64>,
}

/// Datagrams and their bytes.
#[derive(Debug)]
pub(crate) struct Total {
    datagrams: AtomicU64,
    bytes: AtomicU64,
}

impl Total {
    const fn zero() -> Self {
        Self {
            datagrams: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn add(&self, datagrams: usize, bytes: usize) {
        self.datagrams
            .fetch_add(datagrams as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Totals {
    /// Counts a datagram that is not a valid packet.
    pub(crate) fn note_no_packet(&self) {
        self.not_packets.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets how many datagrams an observer has missed. From the first call on, the totals have it.
    pub(crate) fn set_missed(&self, missed: u64) {
        let total = self.missed.get_or_init(AtomicU64::default);
        total.store(missed, Ordering::Relaxed);
    }
}

/// Reports the totals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stats {
    report: Report,
    since: Instant,
}

impl Stats {
    /// Reports the totals on every SIGUSR1 from now on. Call it before any thread is started: a
    /// thread that has not blocked SIGUSR1 would take the signal.
    pub(crate) fn start(report: Report) -> Result<Self> {
        let stats = Self {
            report,
            since: Instant::now(),
        };
        on_every(Signal::SIGUSR1, move || stats.tell())?;
        Ok(stats)
    }

    pub(crate) fn tell(self) {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let missed = match TOTALS.missed.get() {
            Some(missed) => format!("missed={} ", load(missed)),
            None => String::new(),
        };
        self.report.total(format_args!(
            "received={} received_bytes={} not_packets={} {missed}sent={} sent_bytes={} seconds={:.3}",
            load(&TOTALS.received.datagrams),
            load(&TOTALS.received.bytes),
            load(&TOTALS.not_packets),
            load(&TOTALS.sent.datagrams),
            load(&TOTALS.sent.bytes),
            self.since.elapsed().as_secs_f64(),
        ));
    }
}
