//! `--drop`: sends what can be sent at once, and drops the rest.

use super::{Prepared, Sender, count};
use crate::report::Report;
use crate::stats::TOTALS;
use anyhow::Result;
use udgram::protocol::DatagramProtocol;
use udgram::{Error, MemfdDatagram, may_become_reachable};

/// The packets that were dropped.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    /// The number of those for which there was no room.
    full: u64,
    /// The number of those whose peer could not be reached.
    absent: u64,
    /// The last error of those.
    error: Option<Error>,
}

impl Dropped {
    pub(super) fn count(&self) -> u64 {
        self.full + self.absent
    }

    /// Reports how many packets were dropped, and why; `sent` were not.
    pub(super) fn report(&self, sent: u64, report: Report) {
        if self.count() == 0 {
            return;
        }
        let (dropped, all) = (self.count(), self.count() + sent);
        let full = (self.full > 0)
            .then(|| format!("{} found the queue or the send buffer full", self.full));
        let error = self.error.as_ref();
        let absent = error.map(|error| format!("{} failed, the last: {error}", self.absent));
        let causes: Vec<String> = full.into_iter().chain(absent).collect();
        report.warning(format_args!(
            "{dropped} of {all} packets were dropped: {}",
            causes.join("; ")
        ));
    }
}

impl Sender<'_> {
    /// Sends datagrams in order without waiting, and drops each that cannot be sent now.
    pub(super) fn deliver_or_drop(&mut self, batch: &mut [Prepared<'_>]) -> Result<()> {
        let socket = self.client.socket()?;
        let mut done = 0;
        // True if the destination of the next packet was looked up again.
        let mut established = false;
        while done < batch.len() {
            let outgoing = self.outgoing(&batch[done..]);
            let mut error = match socket.try_send(&outgoing) {
                Ok(0) => None,
                Ok(sent) => {
                    self.sent += count(&outgoing[..sent]);
                    done += sent;
                    established = false;
                    continue;
                }
                Err(error) if may_become_reachable(&error) => Some(error),
                Err(error) => {
                    let carrier = self.options.packets.protocol.carrier();
                    batch[done].memfd =
                        Some(MemfdDatagram::replacing(&outgoing[0], error, carrier)?);
                    continue;
                }
            };
            // A socket may have the address that is another one than the one that went away.
            let to = batch[done].to.as_mut().or(self.destination.as_mut());
            if let (Some(failure), Some(to), false) = (&mut error, to, established) {
                match socket.establish(to) {
                    Ok(()) => {
                        established = true;
                        continue;
                    }
                    Err(cause) => *failure = cause,
                }
            }
            match error {
                None => self.dropped.full += 1,
                Some(error) => {
                    self.dropped.absent += 1;
                    self.dropped.error = Some(error);
                }
            }
            TOTALS.note_dropped(1);
            done += 1;
            established = false;
        }
        Ok(())
    }
}
