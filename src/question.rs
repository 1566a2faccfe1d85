//! Finds out whether a peer has read a question: before that, no datagram can be its answer.

use crate::socket::DatagramSocket;
use crate::sockopt;
use std::time::Duration;

/// The time between two checks whether a peer that should answer has closed its socket: no event reports
/// that.
pub(crate) const PEER_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// A question that was sent. While it is unread, no datagram can be its answer. The kernel counts a datagram
/// as unread until the peer's recvmsg(2) has copied it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    /// The value of `SIOCOUTQ` when the question was the only unread datagram; 0 if that is not known.
    unread: i32,
}

impl Question {
    /// Makes the question that has just been sent from `socket`; `before` is what [`unread`] returned
    /// before.
    pub(crate) fn sent(socket: &DatagramSocket, before: i32) -> Self {
        let unread = if before == 0 { unread(socket) } else { 0 };
        Self { unread }
    }

    /// Returns whether it is unread; `false` if that is not known.
    pub(crate) fn is_unread(self, socket: &DatagramSocket) -> bool {
        self.unread > 0 && unread(socket) == self.unread
    }
}

/// Returns the memory of the datagrams that were sent from `socket` and are unread (`SIOCOUTQ`); 1 if the
/// kernel does not report it.
pub(crate) fn unread(socket: &DatagramSocket) -> i32 {
    sockopt::unread(socket).unwrap_or(1)
}
