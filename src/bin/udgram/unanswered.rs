//! Reports the answers that were not sent, once for each client, and counts the others.

use crate::report::Report;
use crate::stats::TOTALS;
use std::collections::HashSet;
use udgram::answers::{Outcome, Reason, Recipient, Undelivered};

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
    /// Returns what takes the outcome of each answer: it counts those that were sent, and reports the
    /// clients whose answers were not.
    pub(crate) fn outcomes(&mut self, report: Report) -> impl FnMut(Outcome<'_>) {
        move |outcome| match outcome {
            Outcome::Sent { bytes, .. } => TOTALS.note_sent(1, bytes),
            Outcome::Undelivered(undelivered) => self.note(&undelivered, report),
        }
    }

    /// Counts answers that were not delivered, and reports the client once.
    fn note(&mut self, undelivered: &Undelivered<'_>, report: Report) {
        let (recipient, count) = (undelivered.recipient(), undelivered.count());
        TOTALS.note_dropped(count);
        match undelivered.reason() {
            Reason::Untrusted => {
                // One line for all: a sender could use a new path for each packet.
                self.more += if self.distrust_reported {
                    count
                } else {
                    count - 1
                };
                if self.distrust_reported {
                    return;
                }
                self.distrust_reported = true;
            }
            _ if self.is_new(recipient, count) => {}
            _ => return,
        }
        let error = undelivered.error();
        let cause = match error.hint() {
            Some(hint) => format!("{} (hint: {hint})", error.cause()),
            None => error.cause().to_owned(),
        };
        match undelivered.reason() {
            Reason::Unreachable => report.error(&error.into()),
            Reason::Unnamed => {
                report.warning(format_args!("a packet cannot be answered: {cause}"));
            }
            _ => report.warning(format_args!(
                "{} was not answered: {cause}",
                recipient.address().quoted()
            )),
        }
    }

    /// Counts answers that were not sent. Returns whether to report the client: only the first time.
    fn is_new(&mut self, recipient: &Recipient, count: usize) -> bool {
        let new = self.reported.len() < MAX_REPORTED && !self.reported.contains(recipient);
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
