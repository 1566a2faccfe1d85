//! `--stats`: how much has come and gone, told at the end and whenever SIGUSR1 asks.

use crate::report::Report;
use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// The totals of this process.
pub(crate) static TOTALS: Totals = Totals {
    received: Total::zero(),
    not_packets: AtomicU64::new(0),
    sent: Total::zero(),
};
/// Whether SIGUSR1 asks for them.
static ASKED: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) received: Total,
    not_packets: AtomicU64,
    pub(crate) sent: Total,
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
    /// A datagram has come that is no packet.
    pub(crate) fn note_no_packet(&self) {
        self.not_packets.fetch_add(1, Ordering::Relaxed);
    }
}

/// Somebody who wants to know the totals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stats {
    report: Report,
    since: Instant,
}

impl Stats {
    /// From here on SIGUSR1 asks for the totals. To be called before any other thread is there.
    pub(crate) fn start(report: Report) -> Result<Self> {
        let stats = Self {
            report,
            since: Instant::now(),
        };
        let mut set = SigSet::empty();
        set.add(Signal::SIGUSR1);
        // The thread takes no other signal: what ends the program is for those who clean up.
        let found = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .context("cannot block signals")?;
        ASKED.store(true, Ordering::Relaxed);
        let asking = std::thread::Builder::new().spawn(move || {
            while set.wait().is_ok() {
                stats.tell();
            }
        });
        let mut after = found;
        after.add(Signal::SIGUSR1);
        after.thread_set_mask().context("cannot unblock signals")?;
        asking.context("cannot wait for SIGUSR1")?;
        Ok(stats)
    }

    pub(crate) fn tell(self) {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        self.report.total(format_args!(
            "received={} received_bytes={} not_packets={} sent={} sent_bytes={} seconds={:.3}",
            load(&TOTALS.received.datagrams),
            load(&TOTALS.received.bytes),
            load(&TOTALS.not_packets),
            load(&TOTALS.sent.datagrams),
            load(&TOTALS.sent.bytes),
            self.since.elapsed().as_secs_f64(),
        ));
    }
}

/// The signals that a program which is run starts with, of those that were `found` blocked.
pub(crate) fn without_ours(mut found: SigSet) -> SigSet {
    if ASKED.load(Ordering::Relaxed) {
        found.remove(Signal::SIGUSR1);
    }
    found
}
