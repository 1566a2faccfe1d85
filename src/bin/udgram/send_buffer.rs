//! The send buffer of the socket, which all clients share: `SO_SNDBUF` holds what they have not read.

use crate::recipient::Asker;
use nix::libc::{SO_SNDBUF, SO_SNDBUFFORCE};
use std::cmp::Reverse;
use std::collections::HashMap;
use udgram::{DatagramSocket, sockopt};

/// The largest linear part of a datagram's memory; the rest is in pages (`SKB_MAX_ALLOC`).
const LINEAR: usize = 16064;
/// Most of it in pages (`MAX_SKB_FRAGS`).
const PAGED: usize = 17 * PAGE;
const PAGE: usize = 4096;
/// Size that the buffer gets at first, and the one that it may grow to.
const FIRST_SIZE: usize = 1 << 20;
const MAX_SIZE: usize = 64 << 20;

/// A client holds at most this part of what is free: with 4, a client can ask for a hundred small
/// answers before it reads one, and it takes some thirty clients that do not read to fill a buffer
/// that cannot grow.
const PART: usize = 4;

/// Whether the buffer may be enlarged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Growth {
    Allowed,
    Forbidden,
}

/// Divides the send buffer of a socket among its clients.
///
/// A client that is connected to the socket has no queue limit (`unix_dgram_sendmsg`): without this,
/// one that does not read would fill the buffer, and then nobody could be answered. The kernel only
/// tells how much all clients have not read; how much each has is an estimate.
#[derive(Debug)]
pub(crate) struct SendBuffer {
    shares: HashMap<Asker, Share>,
    /// Sum of the shares.
    total: usize,
    /// Memory in the buffer that is nobody's share.
    rest: usize,
    size: usize,
    growth: Growth,
    /// Answers so far.
    answers: u64,
}

/// Estimate of what a client has not read.
#[derive(Debug, Default)]
struct Share {
    unread: usize,
    /// The last answer to it.
    last: u64,
}

impl SendBuffer {
    pub(crate) fn new(growth: Growth) -> Self {
        Self {
            shares: HashMap::new(),
            total: 0,
            rest: 0,
            size: 0,
            growth,
            answers: 0,
        }
    }

    /// Returns whether the client may get an answer of `len` bytes now: if it has read all others, or
    /// if all that it has not read is a small part of what is free.
    pub(crate) fn permits(&mut self, socket: &DatagramSocket, asker: &Asker, len: usize) -> bool {
        let charge = charge(len);
        if self.holds(asker, charge) {
            return true;
        }
        if self.size == 0 {
            self.size = size(socket);
            self.grow(socket, FIRST_SIZE);
        }
        self.update(socket);
        if self.holds(asker, charge) {
            return true;
        }
        if self.unread(asker) > 0 {
            return false;
        }
        // Several answers of this size are to fit.
        self.grow(socket, self.total + self.rest + 2 * PART * charge);
        // The kernel takes a last datagram that is larger than what is free, after which nobody could
        // be answered. It goes alone.
        charge <= self.free() || self.total + self.rest == 0
    }

    /// Adds an answer of `len` bytes that was sent.
    pub(crate) fn add(&mut self, asker: &Asker, len: usize) {
        let charge = charge(len);
        self.answers += 1;
        let share = match self.shares.get_mut(asker) {
            Some(share) => share,
            None => self.shares.entry(asker.clone()).or_default(),
        };
        share.unread += charge;
        share.last = self.answers;
        self.total += charge;
    }

    fn unread(&self, asker: &Asker) -> usize {
        self.shares.get(asker).map_or(0, |share| share.unread)
    }

    fn holds(&self, asker: &Asker, charge: usize) -> bool {
        self.unread(asker) + charge <= self.free() / PART
    }

    fn free(&self) -> usize {
        self.size.saturating_sub(self.total + self.rest)
    }

    /// Corrects the estimates by what the kernel says of all clients together. Those that were
    /// answered last are reduced first: a client that does not read is not answered any more.
    fn update(&mut self, socket: &DatagramSocket) {
        let number = |value: i32| usize::try_from(value).unwrap_or(0);
        // If the kernel does not tell, it still refuses what does not fit (EAGAIN).
        let unread = sockopt::queue(socket).map_or(0, |queue| number(queue.outq));
        self.size = size(socket);
        let mut excess = self.total.saturating_sub(unread);
        self.total -= excess;
        self.rest = unread.saturating_sub(self.total);
        let mut shares: Vec<&mut Share> = self.shares.values_mut().collect();
        shares.sort_unstable_by_key(|share| Reverse(share.last));
        for share in shares {
            let read = share.unread.min(excess);
            share.unread -= read;
            excess -= read;
        }
        self.shares.retain(|_, share| share.unread > 0);
    }

    /// Enlarges the buffer.
    fn grow(&mut self, socket: &DatagramSocket, wanted: usize) {
        let wanted = wanted.min(MAX_SIZE);
        if self.growth == Growth::Forbidden || wanted <= self.size {
            return;
        }
        // The kernel doubles what it is given.
        let half = |size: usize| i32::try_from(size / 2).unwrap_or(i32::MAX);
        if sockopt::set_int(socket, SO_SNDBUFFORCE, half(wanted)).is_err() {
            // Without CAP_NET_ADMIN, net.core.wmem_max is the limit.
            let _ = sockopt::set_int(socket, SO_SNDBUF, half(MAX_SIZE));
            self.growth = Growth::Forbidden;
        }
        self.size = size(socket);
    }
}

/// Returns the size of the send buffer.
fn size(socket: &DatagramSocket) -> usize {
    let size = sockopt::get_int(socket, SO_SNDBUF);
    size.map_or(usize::MAX, |size| usize::try_from(size).unwrap_or(0))
}

/// Returns the memory that the kernel charges for a datagram, or a little more
/// (`sock_alloc_send_pskb`): it rounds the linear part up to a power of two.
fn charge(len: usize) -> usize {
    let paged = len.saturating_sub(LINEAR).min(PAGED).next_multiple_of(PAGE);
    let linear = len.saturating_sub(paged) + 320;
    linear.next_power_of_two().max(1024) + paged + 256
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's charge for one datagram.
    fn charged(len: usize) -> usize {
        let (one, _other) = DatagramSocket::pair().unwrap();
        sockopt::set_int(&one, SO_SNDBUF, 8 << 20).unwrap();
        let bytes = vec![0; len];
        let message = udgram::Outgoing {
            bytes: &bytes,
            ..Default::default()
        };
        assert_eq!(one.try_send(&[message]).unwrap(), 1);
        usize::try_from(sockopt::queue(&one).unwrap().outq).unwrap()
    }

    #[test]
    fn a_datagram_is_charged_no_less_than_the_kernel_charges() {
        for len in [
            0, 1, 200, 384, 700, 704, 705, 1500, 3776, 3777, 8000, 16064, 16065, 50_000, 85_696,
            85_697, 200_000,
        ] {
            let (ours, theirs) = (charge(len), charged(len));
            assert!(ours >= theirs, "{len}: {ours} is less than {theirs}");
            assert!(
                ours <= 2 * theirs + 1024,
                "{len}: {ours} is far above {theirs}"
            );
        }
    }
}
