//! A question to a peer, and which datagrams cannot be its answer.

use crate::socket::DatagramSocket;
use crate::sockopt;
use std::time::Duration;

/// How often a peer that is to answer is checked for having closed its socket: no event announces that.
pub(crate) const PEER_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// A question that was sent and may be unread: while it is, no datagram can be its answer. The kernel
/// counts a datagram as unread until recvmsg(2) has copied it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    /// What `SIOCOUTQ` reported with the question alone unread; 0 if that is not known.
    unread: i32,
}

impl Question {
    /// Makes the question that has just been sent from `socket`, of which `before` was unread.
    pub(crate) fn sent(socket: &DatagramSocket, before: i32) -> Self {
        let unread = if before == 0 { unread(socket) } else { 0 };
        Self { unread }
    }

    /// Returns whether it is certainly unread.
    pub(crate) fn is_unread(self, socket: &DatagramSocket) -> bool {
        self.unread > 0 && unread(socket) == self.unread
    }
}

/// Returns how much that was sent from the socket is unread, with the kernel's overhead; 1 if the kernel
/// does not report it.
pub(crate) fn unread(socket: &DatagramSocket) -> i32 {
    sockopt::queue(socket).map_or(1, |queue| queue.outq)
}
