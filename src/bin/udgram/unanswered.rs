//! Answers that were not sent: reported once for each client, and counted.

use crate::recipient::{Asker, Refusal};
use crate::report::Report;
use std::collections::HashSet;

/// How many clients are reported, each with a line of its own.
const MAX_REPORTED: usize = 256;

/// Reports which clients were not answered.
#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    reported: HashSet<Asker>,
    /// Whether a path that may not be the sender's was reported.
    distrust_reported: bool,
    /// Answers that were not sent, less those with a line of their own.
    more: usize,
}

impl Unanswered {
    /// Notes `count` answers that were not sent for lack of room.
    pub(crate) fn dropped(&mut self, asker: &Asker, cause: &str, count: usize, report: Report) {
        if self.is_new(asker, count) {
            report.warning(format_args!(
                "{} was not answered: {cause} (hint: it may not be reading)",
                asker.address().quoted()
            ));
        }
    }

    /// Notes `count` answers that could not be sent.
    pub(crate) fn refused(
        &mut self,
        asker: &Asker,
        refusal: Refusal,
        count: usize,
        report: Report,
    ) {
        if let Refusal::Untrusted(cause) = refusal {
            // Senders could choose ever new paths.
            if self.distrust_reported {
                self.more += count;
                return;
            }
            self.distrust_reported = true;
            self.more += count - 1;
            report.warning(format_args!(
                "{} was not answered: {cause}",
                asker.address().quoted()
            ));
        } else if self.is_new(asker, count) {
            match refusal {
                Refusal::Unreachable(error) => report.error(&error.into()),
                _ => report.warning("a packet cannot be answered: its sender has no address"),
            }
        }
    }

    /// Returns whether the next answer to this client that is not sent is reported.
    pub(crate) fn reports(&self, asker: &Asker) -> bool {
        self.reported.len() < MAX_REPORTED && !self.reported.contains(asker)
    }

    /// Counts, and returns whether the client is to be reported: the first time.
    fn is_new(&mut self, asker: &Asker, count: usize) -> bool {
        let new = self.reports(asker);
        if new {
            self.reported.insert(asker.clone());
        }
        self.more += if new { count - 1 } else { count };
        new
    }

    /// Reports how many answers were not sent besides those reported.
    pub(crate) fn conclude(&mut self, report: Report) {
        let more = std::mem::take(&mut self.more);
        match more {
            0 => {}
            1 => report.warning("1 more answer was not sent"),
            _ => report.warning(format_args!("{more} more answers were not sent")),
        }
    }
}
