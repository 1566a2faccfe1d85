//! Passes packets from the clients to the peers, and answers from the first peer to the clients.

use super::clients::Clients;
use super::copies::CopyPeer;
use super::events::Events;
use super::first::FirstPeer;
use super::identity::Impersonator;
use super::parcel::{Parcel, Passing};
use crate::answering::{Answers, Delivery};
use crate::printer::Printer;
use crate::protocol::Client;
use crate::stats::TOTALS;
use anyhow::Result;
use std::time::{Duration, Instant};
use udgram::answers::Recipient;
use udgram::users::Users;
use udgram::wait::{Deadline, Wake};
use udgram::{BATCH, Batch, Datagram, ReceiveMode};

/// The largest number of packets that waited and are passed on before answers are looked for.
const MAX_RETRIED: usize = 64;

pub(crate) struct Exchange {
    /// The socket of the clients' packets and of their answers.
    pub(crate) front: Client,
    pub(crate) events: Events,
    pub(crate) printer: Printer,
    pub(crate) first: FirstPeer,
    pub(crate) copies: Vec<CopyPeer>,
    /// The buffers for answers.
    pub(crate) replies: Batch,
    pub(crate) answers: Answers,
    pub(crate) impersonator: Impersonator,
    pub(crate) users: Users,
    /// True once it was reported that a client's socket was closed to make room for another one's.
    pub(crate) eviction_reported: bool,
    /// True once it was reported that descriptors were lost.
    pub(crate) truncation_reported: bool,
}

impl Exchange {
    /// Prints a packet of a client, and passes it on or keeps it.
    pub(crate) fn take(&mut self, datagram: &mut Datagram<'_>, now: Instant) -> Result<()> {
        TOTALS.note_received(1, datagram.size);
        self.printer.print_passed(datagram, &self.first.address);
        if datagram.is_truncated() {
            self.first.note_dropped();
            return Ok(());
        }
        self.note_truncation(datagram);
        let recipient = Recipient::of(datagram, self.users);
        let mut passing = Passing::Received {
            bytes: datagram.bytes,
            descriptors: std::mem::take(&mut datagram.ancillary.descriptors),
            credentials: datagram.ancillary.credentials,
        };
        if self.first.holds() || !self.pass(&recipient, passing.parcel(), now)? {
            self.first.hold(recipient, passing.keep());
        }
        for copy in &mut self.copies {
            copy.send(&mut passing, &mut self.impersonator, &self.events, now);
        }
        Ok(())
    }

    /// Passes on what waits, as far as there is room. Returns whether anything was.
    pub(crate) fn retry(&mut self, now: Instant) -> Result<bool> {
        let mut passed = false;
        for _ in 0..MAX_RETRIED {
            let Some((recipient, kept)) = self.first.next_held() else {
                break;
            };
            if !self.pass(&recipient, kept.parcel(), now)? {
                break;
            }
            self.first.remove_held();
            passed = true;
        }
        for copy in &mut self.copies {
            passed |= copy.retry(&mut self.impersonator, &self.events, now);
        }
        Ok(passed)
    }

    /// Makes one attempt to pass a packet on to the first peer. Returns `false` if it has to wait.
    fn pass(&mut self, recipient: &Recipient, parcel: Parcel<'_>, now: Instant) -> Result<bool> {
        let clients = &self.first.clients;
        let crowded = clients.is_full() || clients.needs_sweep();
        if crowded && clients.find(recipient).is_none() {
            self.make_room(now)?;
        }
        let (impersonator, events) = (&mut self.impersonator, &self.events);
        Ok(self
            .first
            .pass(recipient, parcel, impersonator, events, now))
    }

    /// Closes the sockets of clients that have gone, and that of the longest idle one if there are still
    /// too many.
    fn make_room(&mut self, now: Instant) -> Result<()> {
        if self.first.clients.needs_sweep() {
            for token in self.first.clients.sweep() {
                self.dismiss(token, now)?;
            }
        }
        if let Some(token) = self.first.clients.evict() {
            if !self.eviction_reported {
                self.eviction_reported = true;
                self.printer.report.warning(
                    "too many clients: the socket of the longest idle one is closed for each new one (hint: --timeout)",
                );
            }
            self.dismiss(token, now)?;
        }
        Ok(())
    }

    /// Closes the sockets of clients that have been idle for too long.
    pub(crate) fn close_idle(&mut self, now: Instant) -> Result<()> {
        for token in self.first.clients.idle(now) {
            self.dismiss(token, now)?;
        }
        Ok(())
    }

    /// Passes on the last answers to a client, and closes its socket.
    fn dismiss(&mut self, token: u64, now: Instant) -> Result<()> {
        if let Some(client) = self.first.clients.get_mut(token) {
            // From here on the peer gets EPIPE: none is accepted behind the last answer read.
            client.socket.shutdown_read()?;
            while self.answer(token, now)? {}
        }
        self.first.clients.close(token);
        Ok(())
    }

    /// Passes on answers to a client. Returns whether there were any.
    pub(crate) fn answer(&mut self, token: u64, now: Instant) -> Result<bool> {
        let Some(client) = self.first.clients.get_mut(token) else {
            return Ok(false);
        };
        let max = BATCH;
        let count = client
            .socket
            .try_receive(&mut self.replies, max, ReceiveMode::Remove)?;
        if count == 0 {
            return Ok(false);
        }
        client.used = now;
        let report = self.printer.report;
        let mut refused = false;
        for datagram in self.replies.datagrams() {
            TOTALS.note_received(1, datagram.size);
            let recipient = &client.recipient;
            self.printer.print_passed(&datagram, recipient.address());
            let descriptors = std::mem::take(&mut datagram.ancillary.descriptors);
            let (front, bytes) = (&self.front, datagram.bytes);
            let delivery =
                self.answers
                    .pass(front, recipient.clone(), bytes, descriptors, report)?;
            refused |= delivery == Delivery::Refused;
        }
        if refused {
            // The peer learns at its next answer that the client has gone, as if it had sent it itself.
            self.first.clients.close(token);
        }
        Ok(true)
    }

    /// Ends after `until`: passes on the last answers, and reports what was not passed on.
    pub(crate) fn finish(&mut self, until: Deadline, wake: &Wake<'_>) -> Result<()> {
        self.first.end();
        let now = Instant::now();
        for token in self.first.clients.tokens() {
            self.dismiss(token, now)?;
        }
        let report = self.printer.report;
        self.answers.finish(&self.front, report, until, wake);
        self.first.conclude();
        for copy in &mut self.copies {
            copy.conclude();
        }
        Ok(())
    }

    /// Returns the time of the next work that no event reports.
    pub(crate) fn next_work(&self) -> Option<Instant> {
        let copies = self.copies.iter().filter_map(CopyPeer::next_attempt);
        let first = self.first.next_attempt();
        let idle = self.first.clients.next_check();
        copies.chain(first).chain(idle).min()
    }

    /// Tries to send the answers that wait. Returns the time until the next attempt, if any waits.
    pub(crate) fn retry_answers(&mut self) -> Result<Option<Duration>> {
        self.answers.retry(&self.front, self.printer.report)
    }

    fn note_truncation(&mut self, datagram: &Datagram<'_>) {
        if datagram.ancillary.truncated && !self.truncation_reported {
            self.truncation_reported = true;
            self.printer.report.warning(format_args!(
                "not all descriptors that {} sent could be received and passed on",
                datagram.sender().quoted()
            ));
        }
    }
}

/// Makes the clients of a relay whose process may have `limit` descriptors open.
pub(crate) fn clients(limit: usize, timeout: Option<Duration>) -> Clients {
    /// The largest number of clients with a socket each.
    const MAX: usize = 4096;
    Clients::new((limit / 4).clamp(8, MAX), timeout)
}
