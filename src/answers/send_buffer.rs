//! Divides the send buffer of a socket among its clients: `SO_SNDBUF` limits the memory of all datagrams
//! that they have not read.

use super::Recipient;
use crate::socket::DatagramSocket;
use crate::sockopt;
use nix::libc::{SO_SNDBUF, SO_SNDBUFFORCE};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The largest part of a datagram that the kernel allocates as one piece (`SKB_MAX_ALLOC`); the rest
/// is in pages.
const LINEAR: usize = 16064;
/// The largest part of a datagram in pages (`MAX_SKB_FRAGS`).
const PAGED: usize = 17 * PAGE;
const PAGE: usize = 4096;
/// The size to which the buffer is enlarged before the first answer.
const FIRST_SIZE: usize = 1 << 20;
/// The size up to which it is enlarged.
const MAX_SIZE: usize = 64 << 20;

/// The unread answers of a client may take the free memory divided by this. With 4, a client may have a
/// hundred small answers unread, and a buffer that cannot grow is full only when some thirty clients
/// do not read.
const SHARE_DIVISOR: usize = 4;

/// The shortest time from an answer beyond the share of a client to the next one, if the first seems unread.
/// The time doubles with each: a client that does not read gets some twenty in a day.
const FIRST_DOUBT: Duration = Duration::from_millis(100);

/// The permission to enlarge the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// It may be enlarged, to 64 MiB at most.
    Allowed,
    /// It stays unchanged.
    Forbidden,
}

/// The send buffer of a socket, with the memory that each client takes in it.
///
/// The queue of a client that is connected to the socket has no limit (`unix_dgram_sendmsg`): a client
/// that does not read would fill the buffer, and no other client could be answered. The kernel reports
/// only the sum of what is unread (`SIOCOUTQ`), so each client's share is estimated.
#[derive(Debug)]
pub(super) struct SendBuffer {
    shares: HashMap<Recipient, Share>,
    /// The sum of the shares.
    total: usize,
    /// The memory in the buffer that belongs to no share.
    rest: usize,
    size: usize,
    growth: Growth,
    /// The number of answers so far.
    answers: u64,
}

/// An estimate of what a client has not read.
#[derive(Debug, Default)]
struct Share {
    unread: usize,
    /// The number of the last answer to it.
    last: u64,
    doubt: Option<Doubt>,
}

/// The doubt whether a client has really not read what its estimate says. It got an answer beyond its share:
/// one that reads lets the sum of the kernel fall again.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    /// The estimate before this answer.
    before: usize,
    /// The time from this answer to the next one, if this one seems unread.
    interval: Duration,
    next: Instant,
}

impl Share {
    /// Returns whether an answer may be sent beyond the share: the last such answer was read, or was sent
    /// long ago.
    fn is_in_doubt(&self, now: Instant) -> bool {
        (self.doubt).is_none_or(|doubt| self.unread <= doubt.before || doubt.next <= now)
    }

    /// Notes that an answer is sent beyond the share.
    fn exceed(&mut self, now: Instant) {
        let interval = match self.doubt {
            None => FIRST_DOUBT,
            Some(last) if self.unread <= last.before => (last.interval / 2).max(FIRST_DOUBT),
            Some(last) => last.interval * 2,
        };
        self.doubt = Some(Doubt {
            before: self.unread,
            interval,
            next: now + interval,
        });
    }
}

impl SendBuffer {
    pub(super) fn new(growth: Growth) -> Self {
        Self {
            shares: HashMap::new(),
            total: 0,
            rest: 0,
            size: 0,
            growth,
            answers: 0,
        }
    }

    /// Returns whether an answer of `len` bytes surely may be sent to the client now, by the estimates alone.
    pub(super) fn fits(&self, recipient: &Recipient, len: usize) -> bool {
        self.fits_share(recipient, charge(len))
    }

    /// Returns whether an answer of `len` bytes may be sent to the client now: if the client has read
    /// all earlier ones, if its unread answers take a small part of the free memory, or if they seem to take
    /// more, and this is in doubt.
    pub(super) fn permits(
        &mut self,
        socket: &DatagramSocket,
        recipient: &Recipient,
        len: usize,
    ) -> bool {
        let charge = charge(len);
        if self.fits_share(recipient, charge) {
            return true;
        }
        if self.size == 0 {
            self.size = size(socket);
            self.grow(socket, FIRST_SIZE);
        }
        self.update(socket);
        if self.fits_share(recipient, charge) {
            return true;
        }
        if let Some(share) = self.shares.get(recipient) {
            return share.is_in_doubt(Instant::now()) && self.holds(socket, charge);
        }
        // Make room for several answers of this size. Double the size, so that many clients that do not read cost
        // few updates, each of which sorts all shares.
        let several = self.total + self.rest + 2 * SHARE_DIVISOR * charge;
        self.grow(socket, several.max(2 * self.size));
        // The kernel accepts a datagram while anything is free (`sock_alloc_send_pskb`), even one that
        // is larger than that, and then no client could be answered. Send such a one only into an empty
        // buffer.
        charge <= self.free() || self.total + self.rest == 0
    }

    /// Returns whether the free memory holds `charge`, after it is enlarged if it does not.
    fn holds(&mut self, socket: &DatagramSocket, charge: usize) -> bool {
        if charge > self.free() {
            self.grow(socket, self.total + self.rest + SHARE_DIVISOR * charge);
        }
        charge <= self.free()
    }

    /// Counts an answer of `len` bytes that was sent, or will be before the next call of
    /// [`permits`](Self::permits).
    pub(super) fn add(&mut self, recipient: &Recipient, len: usize) {
        let charge = charge(len);
        let fits = self.fits_share(recipient, charge);
        self.answers += 1;
        let share = match self.shares.get_mut(recipient) {
            Some(share) => share,
            None => self.shares.entry(recipient.clone()).or_default(),
        };
        if share.unread > 0 && !fits {
            share.exceed(Instant::now());
        }
        share.unread += charge;
        share.last = self.answers;
        self.total += charge;
    }

    /// Forgets an answer of `len` bytes that was counted last for this client, and could not be sent.
    pub(super) fn take_back(&mut self, recipient: &Recipient, len: usize) {
        if let Some(share) = self.shares.get_mut(recipient) {
            let counted = charge(len).min(share.unread);
            share.unread -= counted;
            self.total -= counted;
        }
    }

    fn unread(&self, recipient: &Recipient) -> usize {
        self.shares.get(recipient).map_or(0, |share| share.unread)
    }

    /// Returns whether the share of the client may grow by `charge`.
    fn fits_share(&self, recipient: &Recipient, charge: usize) -> bool {
        self.unread(recipient) + charge <= self.free() / SHARE_DIVISOR
    }

    fn free(&self) -> usize {
        self.size.saturating_sub(self.total + self.rest)
    }

    /// Corrects the estimates by the sum that the kernel reports. Reduces the shares of the clients that
    /// were answered last first: a client that does not read gets no more answers. If such a client was
    /// answered after another one that reads, it is taken for the one that reads: the [`Doubt`] is for that.
    fn update(&mut self, socket: &DatagramSocket) {
        let number = |value: i32| usize::try_from(value).unwrap_or(0);
        // If the sum is unknown, send: the kernel refuses what does not fit (EAGAIN).
        let unread = sockopt::unread(socket).map_or(0, number);
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

    /// Enlarges the buffer to `wanted` bytes, or as far as is permitted.
    fn grow(&mut self, socket: &DatagramSocket, wanted: usize) {
        let wanted = wanted.min(MAX_SIZE);
        if self.growth == Growth::Forbidden || wanted <= self.size {
            return;
        }
        // The kernel doubles the value for its own overhead.
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

    /// Returns the kernel's charge for one datagram.
    fn charged(len: usize) -> usize {
        let (one, _other) = DatagramSocket::pair().unwrap();
        sockopt::set_int(&one, SO_SNDBUF, 8 << 20).unwrap();
        send(&one, len);
        unread(&one)
    }

    fn unread(socket: &DatagramSocket) -> usize {
        usize::try_from(sockopt::unread(socket).unwrap()).unwrap()
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

    #[test]
    fn a_client_that_does_not_read_gets_few_answers_beyond_its_share() {
        let mut now = Instant::now();
        let day = now + Duration::from_secs(24 * 60 * 60);
        let mut share = Share {
            unread: 1000,
            ..Share::default()
        };
        let mut answers = 0;
        while now < day {
            if share.is_in_doubt(now) {
                share.exceed(now);
                share.unread += 1000;
                answers += 1;
            }
            now = share.doubt.unwrap().next;
        }
        assert_eq!(answers, 20);
        // One that has read the last of them gets the next one at once.
        share.unread -= 1000;
        assert!(share.is_in_doubt(Instant::now()));
    }

    #[test]
    fn each_answer_that_was_read_halves_the_doubt_down_to_the_first() {
        let now = Instant::now();
        let mut share = Share::default();
        let mut intervals = Vec::new();
        for read in [false, false, false, true, true, true, true, true] {
            share.exceed(now);
            intervals.push(share.doubt.unwrap().interval);
            share.unread += if read { 0 } else { 1000 };
        }
        let expected = [1, 2, 4, 8, 4, 2, 1, 1].map(|times: u32| FIRST_DOUBT * times);
        assert_eq!(intervals, expected);
    }

    fn client(name: &'static [u8]) -> Recipient {
        let address = crate::address::Address::Abstract(name.into());
        Recipient::new(address, None, crate::users::Users::of_this_process())
    }

    fn send(socket: &DatagramSocket, len: usize) {
        let bytes = vec![0; len];
        let message = crate::outgoing::Outgoing {
            bytes: &bytes,
            ..Default::default()
        };
        assert_eq!(socket.try_send(&[message]).unwrap(), 1);
    }

    #[test]
    fn an_answer_that_could_not_be_sent_does_not_count() {
        let client = client(b"1");
        let mut buffer = SendBuffer::new(Growth::Forbidden);
        for len in [100, 3000, 20_000] {
            buffer.add(&client, len);
        }
        let counted = charge(100) + charge(3000);
        buffer.take_back(&client, 20_000);
        assert_eq!((buffer.total, buffer.unread(&client)), (counted, counted));
    }

    #[test]
    fn the_first_answer_to_a_client_raises_no_doubt_however_long_it_is() {
        let client = client(b"1");
        let mut buffer = SendBuffer::new(Growth::Forbidden);
        buffer.add(&client, 100_000);
        assert!(buffer.shares[&client].doubt.is_none());
        buffer.add(&client, 100_000);
        assert!(buffer.shares[&client].doubt.is_some());
    }

    #[test]
    fn a_client_that_has_read_everything_is_forgotten() {
        let ((socket, _peer), client) = (DatagramSocket::pair().unwrap(), client(b"1"));
        let mut buffer = SendBuffer::new(Growth::Forbidden);
        buffer.add(&client, 100);
        buffer.update(&socket);
        assert!(buffer.shares.is_empty());
    }

    #[test]
    fn a_buffer_that_must_not_grow_takes_an_answer_that_is_larger_only_while_it_is_empty() {
        let ((socket, _peer), client) = (DatagramSocket::pair().unwrap(), client(b"1"));
        let size = socket.send_buffer_size().unwrap();
        let mut buffer = SendBuffer::new(Growth::Forbidden);
        assert!(buffer.permits(&socket, &client, size));
        send(&socket, 0);
        assert!(!buffer.permits(&socket, &client, size));
        // Less than what is free, and more than a share.
        assert!(buffer.permits(&socket, &client, size / 2));
        assert_eq!(socket.send_buffer_size().unwrap(), size);
    }

    /// Returns whether this process may enlarge a buffer to any size.
    fn may_grow() -> bool {
        let (socket, _peer) = DatagramSocket::pair().unwrap();
        let may = sockopt::set_int(&socket, SO_SNDBUFFORCE, 8 << 20).is_ok();
        let forbidden = std::env::var_os("UDGRAM_FORBID_SKIPS").is_some_and(|value| value == "1");
        assert!(
            may || !forbidden,
            "skips are forbidden: this needs CAP_NET_ADMIN"
        );
        may
    }

    /// Returns whether the size is as wanted: the kernel halves and doubles it.
    fn has_grown_to(buffer: &SendBuffer, wanted: usize) -> bool {
        buffer.size == wanted / 2 * 2
    }

    #[test]
    fn a_buffer_grows_for_several_answers_of_a_new_client_beside_what_is_unread() {
        if !may_grow() {
            return;
        }
        let (socket, _peer) = DatagramSocket::pair().unwrap();
        let [client, other] = [b"1", b"2"].map(|name| client(name));
        let mut buffer = SendBuffer::new(Growth::Allowed);
        send(&socket, 5000);
        assert!(buffer.permits(&socket, &client, 1 << 20));
        let unread = unread(&socket);
        assert!(has_grown_to(&buffer, unread + 8 * charge(1 << 20)));
        assert!(unread > 5000);
        // Another one's answers are unread, too.
        buffer.add(&other, 100);
        send(&socket, 100);
        send(&socket, 5000);
        let len = 4 << 20;
        assert!(buffer.permits(&socket, &client, len));
        assert!(buffer.total > 0 && buffer.rest > 0);
        assert!(has_grown_to(
            &buffer,
            buffer.total + buffer.rest + 8 * charge(len)
        ));
    }

    #[test]
    fn a_buffer_grows_for_an_answer_to_a_client_with_unread_ones() {
        if !may_grow() {
            return;
        }
        let ((socket, _peer), client) = (DatagramSocket::pair().unwrap(), client(b"1"));
        let mut buffer = SendBuffer::new(Growth::Allowed);
        for _ in 0..2 {
            send(&socket, 1000);
        }
        buffer.add(&client, 1000);
        let len = 4 << 20;
        assert!(buffer.permits(&socket, &client, len));
        assert!(buffer.total > 0 && buffer.rest > 0);
        assert!(has_grown_to(
            &buffer,
            buffer.total + buffer.rest + 4 * charge(len)
        ));
    }
}
