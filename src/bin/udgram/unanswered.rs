//! Reports the answers that were not sent, once for each client, and counts the others.

use crate::recipient::{Recipient, Refusal};
use crate::report::Report;
use crate::stats::TOTALS;
use std::collections::HashSet;

/// The largest number of clients that are reported with a line each.
const MAX_REPORTED: usize = 256;

/// The clients that were not answered and have been reported.
#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    reported: HashSet<Recipient>,
    /// True once a path that may lead to another user's socket was reported.
    distrust_reported: bool,
    /// The number of answers that were not sent and have no line.
    more: usize,
}

impl Unanswered {
    /// Counts `count` answers that were dropped because there was no room, and reports the client once.
    pub(crate) fn dropped(
        &mut self,
        recipient: &Recipient,
        cause: &str,
        count: usize,
        report: Report,
    ) {
        TOTALS.note_dropped(count);
        if self.is_new(recipient, count) {
            report.warning(format_args!(
                "{} was not answered: {cause} (hint: it may not be reading)",
                recipient.address().quoted()
            ));
        }
    }

    /// Counts `count` answers that could not be sent, and reports the client once.
    pub(crate) fn refused(
        &mut self,
        recipient: &Recipient,
        refusal: Refusal,
        count: usize,
        report: Report,
    ) {
        TOTALS.note_dropped(count);
        if let Refusal::Untrusted(cause) = refusal {
            // One line for all: a sender could use a new path for each packet.
            if self.distrust_reported {
                self.more += count;
                return;
            }
            self.distrust_reported = true;
            self.more += count - 1;
            report.warning(format_args!(
                "{} was not answered: {cause}",
                recipient.address().quoted()
            ));
        } else if self.is_new(recipient, count) {
            match refusal {
                Refusal::Unreachable(error) => report.error(&error.into()),
                _ => report.warning("a packet cannot be answered: its sender has no address"),
            }
        }
    }

    /// Returns whether a failure to answer this client would be reported.
    pub(crate) fn will_report(&self, recipient: &Recipient) -> bool {
        self.reported.len() < MAX_REPORTED && !self.reported.contains(recipient)
    }

    /// Counts answers that were not sent. Returns whether to report the client: only the first time.
    fn is_new(&mut self, recipient: &Recipient, count: usize) -> bool {
        let new = self.will_report(recipient);
        if new {
            self.reported.insert(recipient.clone());
        }
        self.more += if new { count - 1 } else { count };
        new
    }

    /// Reports how many more answers were not sent.
    pub(crate) fn conclude(&mut self, report: Report) {
        let more = std::mem::take(&mut self.more);
        match more {
            0 => {}
            1 => report.warning("1 more answer was not sent"),
            _ => report.warning(format_args!("{more} more answers were not sent")),
        }
    }
}
