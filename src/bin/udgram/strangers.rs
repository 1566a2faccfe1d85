//! Drops the datagrams of other sockets than the peer, and reports them.

use crate::protocol::Client;
use crate::report::Report;
use crate::stats::TOTALS;
use anyhow::Result;
use udgram::wait::Deadline;
use udgram::{BATCH, Batch, Datagram, PeerName, ReceiveMode};

/// The filter of a socket that has one peer.
#[derive(Debug)]
pub(crate) struct Strangers {
    /// The peer; `None` if datagrams of every socket are taken.
    pub(crate) peer: Option<PeerName>,
    /// True if the socket was connected to the peer when the batch at hand had been received. If the peer
    /// goes away, the kernel disconnects the socket, and another socket may send with the peer's name.
    connected: bool,
    dropped: u64,
}

impl Strangers {
    /// Makes the filter that takes only the datagrams of `peer`, or all if there is none.
    pub(crate) fn to(peer: Option<PeerName>) -> Self {
        Self {
            peer,
            connected: false,
            dropped: 0,
        }
    }

    /// Begins a batch.
    pub(crate) fn begin_batch(&mut self, client: &Client) {
        let is_connected = || {
            let socket = client.socket()?;
            socket.peer_name().map(|name| name.is_some())
        };
        self.connected = self.peer.is_some() && is_connected().unwrap_or(false);
    }

    /// Returns whether `datagram` is taken; refuses it otherwise.
    pub(crate) fn admits(&mut self, datagram: &mut Datagram<'_>, report: Report) -> bool {
        let from_peer =
            (self.peer.as_ref()).is_none_or(|peer| self.connected && peer.has_sent(datagram));
        if !from_peer {
            self.refuse(datagram, report);
        }
        from_peer
    }

    /// Closes the descriptors of a datagram that another socket than the peer has sent, and reports the first
    /// such datagram.
    pub(crate) fn refuse(&mut self, datagram: &mut Datagram<'_>, report: Report) {
        self.dropped += 1;
        if self.dropped == 1 {
            report.warning(format_args!(
                "dropped a packet from {}, which is not the peer",
                datagram.sender().quoted()
            ));
        }
        datagram.ancillary.descriptors.clear();
        TOTALS.note_refused();
    }

    /// Refuses what is queued, until the queue is empty or the time is over.
    pub(crate) fn refuse_queued(
        &mut self,
        client: &Client,
        batch: &mut Batch,
        until: Deadline,
        report: Report,
    ) -> Result<()> {
        while !until.passed() && client.try_receive(batch, BATCH, ReceiveMode::Remove)? > 0 {
            for mut datagram in batch.datagrams() {
                self.refuse(&mut datagram, report);
            }
        }
        Ok(())
    }

    /// Reports how many datagrams were dropped, unless the one was reported.
    pub(crate) fn conclude(&self, report: Report) {
        if self.dropped > 1 {
            report.warning(format_args!(
                "{} packets of others than the peer were dropped",
                self.dropped
            ));
        }
    }
}
