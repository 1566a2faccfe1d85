//! The limits at which a receiver ends, and the time that it may still wait.

use crate::exit::Exit;
use crate::printer::Printer;
use std::time::Duration;
use udgram::wait::Deadline;

/// The time that a receiver waits.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    /// So long for each packet.
    Each(Option<Duration>),
    /// So long for all of them, and until all that was queued at the start is printed.
    Total(Option<Duration>),
    /// Until then for the first ones. More are received at once, so the caller writes the lines, before it
    /// waits for anything.
    First(Deadline),
}

impl Patience {
    pub(crate) fn is_for_first(self) -> bool {
        matches!(self, Self::First(_))
    }
}

/// The limits at which a receiver ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// After so many datagrams, good or bad.
    pub(crate) count: Option<u64>,
    pub(crate) patience: Patience,
    /// The exit when time runs out.
    pub(crate) expired: Exit,
    /// True if the queue is drained when a signal ends it.
    pub(crate) drain: bool,
}

/// The time that a receiver may wait. Time spent writing to stdout does not count.
pub(crate) struct Allowance {
    patience: Patience,
    deadline: Deadline,
    /// The time that writing had taken when the deadline was set.
    written: Duration,
}

impl Allowance {
    pub(crate) fn new(patience: Patience, printer: &Printer) -> Self {
        Self {
            patience,
            deadline: match patience {
                Patience::Each(timeout) | Patience::Total(timeout) => Deadline::after(timeout),
                Patience::First(deadline) => deadline,
            },
            written: printer.output.writing,
        }
    }

    pub(crate) fn is_total(&self) -> bool {
        matches!(self.patience, Patience::Total(_))
    }

    pub(crate) fn deadline(&self, printer: &Printer) -> Deadline {
        self.deadline
            .extended(printer.output.writing.saturating_sub(self.written))
    }

    /// Restarts the time after a packet, if it is for each packet.
    pub(crate) fn renew(&mut self, printer: &Printer) {
        if !self.is_total() {
            *self = Self::new(self.patience, printer);
        }
    }
}
