//! The buffers that a socket receives into, and the datagrams that lie in them.

use crate::address::Address;
use crate::ancillary::{Ancillary, ControlSpace};
use crate::error::{Error, Result, Subject};
use crate::memfd;
use crate::protocol::{Carrier, ParseError};
use crate::spin::Spin;
use crate::sys::{self, ReceiveBuffers, Received, SockAddrRef};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};

/// The space for one datagram in bytes: twice the largest datagram. The extra 320 bytes stagger slots
/// across cache sets.
const SLOT_LEN: NonZeroUsize = match NonZeroUsize::new((8 << 20) + 320) {
    Some(len) => len,
    None => NonZeroUsize::MIN,
};

/// The number of bytes of large datagrams that are received at a time, after the first of them.
const BURST: usize = 32 << 20;

/// The largest number of datagrams that one system call sends or receives.
pub const BATCH: usize = sys::BATCH;

/// Selects whether receiving takes datagrams out of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(alias = "MSG_PEEK")]
pub enum ReceiveMode {
    /// It takes them.
    Remove,
    /// It leaves them; each call copies their descriptors to this process.
    Peek,
}

/// The buffers that a socket receives into: up to [`BATCH`] datagrams at a time, each of any size
/// the kernel carries, with its sender and its ancillary data. Memory is used when it is first touched.
pub struct Batch {
    buffers: ReceiveBuffers,
    /// Ancillary data of each slot; empty if none arrived.
    ancillary: Vec<Ancillary>,
    /// True if an attempt to receive has found the queue empty.
    emptied: bool,
    /// Decides whether a receiver spins before it sleeps.
    pub(crate) spin: Spin,
    /// The longest datagram since the last [`trim`](Self::trim).
    longest: usize,
    /// The length to expect of a datagram: that of a recent one.
    expected: usize,
}

/// A received datagram.
pub struct Datagram<'b> {
    /// Its bytes.
    pub bytes: &'b [u8],
    /// Its length on the wire; more than that of `bytes` if it was truncated.
    pub size: usize,
    /// Its ancillary data; descriptors left in it are closed before the next receive.
    pub ancillary: &'b mut Ancillary,
    from: SockAddrRef<'b>,
}

impl std::fmt::Debug for Datagram<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datagram")
            .field("bytes", &self.bytes)
            .field("size", &self.size)
            .field("sender", &self.sender())
            .field("ancillary", &self.ancillary)
            .finish()
    }
}

impl<'b> Datagram<'b> {
    /// Returns the address of the sender.
    #[must_use]
    pub fn sender(&self) -> Address<'b> {
        self.from.address()
    }

    /// Returns the bytes of the packet: those of the datagram, or if it is empty and packets travel in memfds, a
    /// copy of the contents of the memfd that it carries. Reading does not block, and the copy has at most 64 MiB.
    ///
    /// Fails if an empty datagram carries anything else, or more.
    pub fn payload(&self, carrier: Carrier) -> std::result::Result<Cow<'b, [u8]>, ParseError> {
        let contents = match carrier {
            Carrier::DatagramOrMemfd if self.size == 0 && !self.ancillary.truncated => {
                memfd::packet(&self.ancillary.descriptors)?
            }
            _ => None,
        };
        Ok(contents.map_or(Cow::Borrowed(self.bytes), Cow::Owned))
    }

    /// Returns the number of descriptors besides a memfd that carries the packet.
    #[must_use]
    pub fn descriptors_beside(&self, carrier: Carrier) -> usize {
        match self.payload(carrier) {
            Ok(Cow::Owned(_)) => 0,
            _ => self.ancillary.descriptors.len(),
        }
    }

    /// Does the same as [`payload`](Self::payload), and closes the memfd. If there is none to read, returns the bytes
    /// of the datagram and keeps its descriptors.
    pub fn take_payload(&mut self, carrier: Carrier) -> Cow<'b, [u8]> {
        match self.payload(carrier) {
            Ok(Cow::Owned(contents)) => {
                self.ancillary.descriptors.clear();
                contents.into()
            }
            _ => self.bytes.into(),
        }
    }

    /// Returns whether bytes were lost because the buffer was too small: `MSG_TRUNC`.
    #[must_use]
    #[doc(alias = "MSG_TRUNC")]
    pub fn is_truncated(&self) -> bool {
        self.size > self.bytes.len()
    }
}

impl Batch {
    /// Makes buffers for at most `max` datagrams at a time, with this space for control data. The
    /// options of `socket` that add control data must be set before.
    ///
    /// If descriptors may arrive, it limits the batch so that they cannot exceed `RLIMIT_NOFILE`, and
    /// leaves some of them to the process.
    ///
    /// Fails with [`ErrorKind::Unusable`](crate::ErrorKind::Unusable) on more than
    /// [`MAX_CONTROL_LEN`](crate::ancillary::MAX_CONTROL_LEN) bytes for control data.
    pub fn new(socket: impl AsFd, space: ControlSpace, max: usize) -> Result<Self> {
        space.check()?;
        let free = match space.max_descriptors() {
            0 => 0,
            _ => free_descriptors(),
        };
        let space = space.within(free);
        let slots = match space.max_descriptors() {
            0 => BATCH,
            each => (free / each).max(1),
        };
        let slots = max.min(BATCH).min(slots).max(1);
        let control_len = space.buffer_len(socket.as_fd());
        // Fewer slots fit into a small address space (RLIMIT_AS).
        let made = [slots, slots.min(8), 1].into_iter().find_map(|slots| {
            ReceiveBuffers::new(NonZeroUsize::new(slots)?, SLOT_LEN, control_len).ok()
        });
        let buffers = made.ok_or_else(|| {
            Error::system("receive", Subject::None, Errno::ENOMEM)
                .with_cause("there is no memory for a datagram")
        })?;
        let ancillary = std::iter::repeat_with(Ancillary::default).take(buffers.slots());
        Ok(Self {
            ancillary: ancillary.collect(),
            buffers,
            emptied: false,
            spin: Spin::new(),
            longest: 0,
            expected: 0,
        })
    }

    /// Returns the datagrams of the last receive, in the order they were sent.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        self.buffers
            .messages()
            .zip(&mut self.ancillary)
            .map(|(received, ancillary)| Datagram {
                bytes: received.bytes(),
                size: received.size(),
                ancillary,
                from: received.sender(),
            })
    }

    /// Returns whether an attempt to receive has found the queue empty: datagrams received after that
    /// were sent after it.
    #[must_use]
    pub fn has_been_empty(&self) -> bool {
        self.emptied
    }

    /// Closes the descriptors of the last receive that were not taken.
    fn clear(&mut self) {
        let used = self.buffers.messages().zip(&mut self.ancillary);
        used.for_each(|(_, ancillary)| *ancillary = Ancillary::default());
    }

    /// Gives the memory of large datagrams back to the kernel. If there were any, this drops the
    /// datagrams of the last receive.
    pub fn trim(&mut self) {
        const KEPT: usize = 64 << 10;
        if self.longest > KEPT {
            self.clear();
            self.buffers.trim(KEPT);
            self.longest = 0;
        }
    }

    /// Receives at most `max` datagrams without waiting. Returns how many it received.
    pub(crate) fn fill(
        &mut self,
        socket: BorrowedFd<'_>,
        max: usize,
        mode: ReceiveMode,
    ) -> nix::Result<usize> {
        self.clear();
        let flags = match mode {
            ReceiveMode::Remove => 0,
            ReceiveMode::Peek => libc::MSG_PEEK,
        };
        let max = max.min(BURST / self.expected.max(1)).max(1);
        let count = self
            .buffers
            .receive(socket, max, flags)
            .inspect_err(|errno| self.emptied |= *errno == Errno::EAGAIN)?;
        for (index, ancillary) in self.ancillary[..count].iter_mut().enumerate() {
            if let Some(control) = self.buffers.take_control(index) {
                *ancillary = control.into();
            }
        }
        let sizes = self.buffers.messages().map(Received::size);
        let longest = sizes.max().unwrap_or(0);
        self.longest = self.longest.max(longest);
        self.expected = longest.max(self.expected - self.expected.div_ceil(64));
        Ok(count)
    }
}

/// Returns how many descriptors this process may receive now.
fn free_descriptors() -> usize {
    /// The number that it keeps for other uses, such as starting a command.
    const KEPT: usize = 16;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(usize::MAX, |(soft, _)| {
        usize::try_from(soft).unwrap_or(usize::MAX)
    });
    let open = std::fs::read_dir("/proc/self/fd").map_or(16, Iterator::count);
    limit.saturating_sub(open + KEPT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ancillary::{Control, DEFAULT_CONTROL_LEN};
    use crate::outgoing::Outgoing;
    use crate::socket::DatagramSocket;
    use crate::wait::Wake;
    use std::os::fd::AsFd;

    #[test]
    fn ancillary_data_belongs_to_its_own_datagram() {
        let (ours, theirs) = DatagramSocket::pair().unwrap();
        let mut batch = Batch::new(&ours, ControlSpace::Bytes(DEFAULT_CONTROL_LEN), BATCH).unwrap();
        let descriptors = Control::new(&[theirs.as_fd()], None).unwrap();
        for with in [[true, false], [false, true], [false, false], [true, true]] {
            let outgoing = with.map(|with| Outgoing {
                control: with.then_some(&descriptors),
                ..Outgoing::default()
            });
            theirs.send(&outgoing, None, &Wake::default()).unwrap();
            assert_eq!(
                ours.try_receive(&mut batch, BATCH, ReceiveMode::Remove)
                    .unwrap(),
                2
            );
            let came = batch
                .datagrams()
                .map(|datagram| datagram.ancillary.descriptors.len());
            assert_eq!(came.collect::<Vec<_>>(), with.map(usize::from));
        }
        assert_eq!(
            ours.try_receive(&mut batch, BATCH, ReceiveMode::Remove)
                .unwrap(),
            0
        );
        assert_eq!(batch.datagrams().count(), 0);
    }

    #[test]
    fn ancillary_data_is_cleared_before_the_next_receive() {
        let (ours, theirs) = DatagramSocket::pair().unwrap();
        let mut batch = Batch::new(&ours, ControlSpace::NoDescriptors, 1).unwrap();
        for _ in 0..2 {
            let bare = [Outgoing::default()];
            theirs.send(&bare, None, &Wake::default()).unwrap();
            let count = ours
                .try_receive(&mut batch, 1, ReceiveMode::Remove)
                .unwrap();
            assert_eq!(count, 1);
            let datagram = batch.datagrams().next().unwrap();
            assert!(!datagram.ancillary.truncated);
            datagram.ancillary.truncated = true;
        }
    }

    fn receive(socket: &DatagramSocket, batch: &mut Batch) -> usize {
        let remove = ReceiveMode::Remove;
        socket.try_receive(batch, BATCH, remove).unwrap()
    }

    fn send(socket: &DatagramSocket, len: usize, count: usize) {
        let bytes = vec![0; len];
        let message = Outgoing {
            bytes: &bytes,
            ..Outgoing::default()
        };
        let messages = vec![message; count];
        assert_eq!(socket.try_send(&messages).unwrap(), count);
    }

    #[test]
    fn only_a_large_datagram_is_dropped_when_its_memory_is_given_back() {
        let (ours, theirs) = DatagramSocket::pair().unwrap();
        let mut batch = Batch::new(&ours, ControlSpace::NoDescriptors, BATCH).unwrap();
        for (len, kept) in [(1, 1), (64 << 10, 1), ((64 << 10) + 1, 0), (1, 1)] {
            send(&theirs, len, 1);
            assert_eq!(receive(&ours, &mut batch), 1);
            batch.trim();
            assert_eq!(batch.datagrams().count(), kept, "{len}");
        }
    }

    #[test]
    fn after_large_datagrams_fewer_are_received_at_once_until_small_ones_have_come() {
        let (ours, theirs) = DatagramSocket::pair().unwrap();
        let mut batch = Batch::new(&ours, ControlSpace::NoDescriptors, BATCH).unwrap();
        batch.expected = 1 << 20;
        send(&theirs, 1, BATCH);
        assert_eq!(receive(&ours, &mut batch), BURST >> 20);
        while batch.expected > 1 {
            let before = batch.expected;
            send(&theirs, 1, 1);
            assert!(receive(&ours, &mut batch) > 0);
            assert!(batch.expected < before);
        }
        while receive(&ours, &mut batch) > 0 {}
        send(&theirs, 1, BATCH);
        assert_eq!(receive(&ours, &mut batch), BATCH);
    }

    #[test]
    fn a_batch_has_been_empty_after_the_first_attempt_that_finds_nothing() {
        let (ours, theirs) = DatagramSocket::pair().unwrap();
        let mut batch = Batch::new(&ours, ControlSpace::NoDescriptors, BATCH).unwrap();
        send(&theirs, 1, 1);
        for (count, emptied) in [(1, false), (0, true)] {
            assert_eq!(receive(&ours, &mut batch), count);
            assert_eq!(batch.has_been_empty(), emptied);
        }
        send(&theirs, 1, 1);
        assert_eq!(receive(&ours, &mut batch), 1);
        assert!(batch.has_been_empty());
    }
}
