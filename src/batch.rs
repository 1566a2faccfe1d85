//! The buffers that a socket receives into, and the datagrams that lie in them.

use crate::address::Address;
use crate::ancillary::{Ancillary, ControlSpace};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::sys::{self, ReceiveBuffers, SockAddrRef};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};

/// What a receiver has room for in one datagram, in bytes: twice what the kernel carries. The odd
/// bytes have the beginnings of datagrams lie in different sets of the processor's cache.
const SLOT_LEN: NonZeroUsize = match NonZeroUsize::new((8 << 20) + 320) {
    Some(len) => len,
    None => NonZeroUsize::MIN,
};

/// How many bytes of large datagrams are received at a time, once the first of them has come.
const BURST: usize = 32 << 20;

/// The number of datagrams that one system call sends or receives at most.
pub const BATCH: usize = sys::BATCH;

/// Selects whether receiving takes datagrams out of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(alias = "MSG_PEEK")]
pub enum ReceiveMode {
    /// They are taken.
    Remove,
    /// They stay; each call copies the descriptors among them to this process.
    Peek,
}

/// The buffers that a socket receives into: up to [`BATCH`] datagrams at a time, each of any size
/// the kernel carries, with its sender and its ancillary data. The memory is there when touched.
pub struct Batch {
    buffers: ReceiveBuffers,
    /// What came beside each datagram, slot by slot; nothing where nothing did.
    ancillary: Vec<Ancillary>,
    /// Whether an attempt to receive has found the queue empty.
    emptied: bool,
    /// Whether to spin before sleeping: the last wait for a datagram was shorter than that takes.
    pub(crate) spin: bool,
    /// The longest datagram since the memory was last given back.
    longest: usize,
    /// The longest datagram to reckon with: as long as one that came lately.
    expected: usize,
}

/// A received datagram.
pub struct Datagram<'b> {
    /// Its bytes.
    pub bytes: &'b [u8],
    /// Its length on the wire: more than `bytes` has only if it arrived cut.
    pub size: usize,
    /// What came beside it; descriptors left in it are closed before the next receive.
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

    /// Returns whether bytes were lost because the buffer was too small: `MSG_TRUNC`.
    #[must_use]
    #[doc(alias = "MSG_TRUNC")]
    pub fn is_truncated(&self) -> bool {
        self.size > self.bytes.len()
    }
}

impl Batch {
    /// Buffers for `socket`, whose options must be set by now, with `room` for control data, for
    /// at most `most` datagrams at a time.
    ///
    /// Where descriptors may come, a batch is no longer than the process can hold the
    /// descriptors of (`RLIMIT_NOFILE`), so that none is lost that would not be lost singly; and
    /// no message takes the last of them, which the process needs for its own work.
    pub fn new(socket: impl AsFd, room: ControlSpace, most: usize) -> Result<Self> {
        let spare = spare_descriptors();
        let room = room.within(spare);
        let slots = match room.most_descriptors() {
            0 => BATCH,
            each => (spare / each).max(1),
        };
        let slots = most.min(BATCH).min(slots).max(1);
        let control_len = room.buffer_len(socket.as_fd());
        // A small address space (RLIMIT_AS) is no reason to give up.
        let made = [slots, slots.min(8), 1].into_iter().find_map(|slots| {
            ReceiveBuffers::new(NonZeroUsize::new(slots)?, SLOT_LEN, control_len).ok()
        });
        let buffers = made.ok_or_else(|| {
            Error::new(
                ErrorKind::System(Errno::ENOMEM),
                "receive",
                Subject::None,
                "there is no memory for a datagram",
            )
        })?;
        let ancillary = std::iter::repeat_with(Ancillary::default).take(buffers.slots());
        Ok(Self {
            ancillary: ancillary.collect(),
            buffers,
            emptied: false,
            spin: false,
            longest: 0,
            expected: 0,
        })
    }

    /// The datagrams of the last receive, in the order they were sent.
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

    /// Returns whether an attempt to receive has found the queue empty: what comes after that was
    /// sent after it.
    #[must_use]
    pub fn has_been_empty(&self) -> bool {
        self.emptied
    }

    /// Closes the descriptors of the last receive that nobody took.
    fn clear(&mut self) {
        let used = self.buffers.messages().zip(&mut self.ancillary);
        used.for_each(|(_, ancillary)| *ancillary = Ancillary::default());
    }

    /// Gives back the memory that large datagrams took. When there were any, it forgets the last
    /// receive.
    pub fn trim(&mut self) {
        const KEPT: usize = 64 << 10;
        if self.longest > KEPT {
            self.clear();
            self.buffers.trim(KEPT);
            self.longest = 0;
        }
    }

    /// Receives at most `most` datagrams, without waiting: how many came.
    pub(crate) fn fill(
        &mut self,
        socket: BorrowedFd<'_>,
        most: usize,
        mode: ReceiveMode,
    ) -> nix::Result<usize> {
        self.clear();
        let flags = match mode {
            ReceiveMode::Remove => 0,
            ReceiveMode::Peek => libc::MSG_PEEK,
        };
        let most = most.min(BURST / self.expected.max(1)).max(1);
        let count = self
            .buffers
            .receive(socket, most, flags)
            .inspect_err(|errno| self.emptied |= *errno == Errno::EAGAIN)?;
        let mut longest = 0;
        for (index, received) in self.buffers.messages().enumerate() {
            if !received.is_bare() {
                let control = self.buffers.control(index);
                self.ancillary[index] = Ancillary::take(control, received.flags());
            }
            longest = longest.max(received.size());
        }
        self.longest = self.longest.max(longest);
        self.expected = longest.max(self.expected - self.expected.div_ceil(64));
        Ok(count)
    }
}

/// How many descriptors this process may receive now.
fn spare_descriptors() -> usize {
    /// What it keeps for itself: what a handler of packets takes to be started, and some more.
    const KEPT: usize = 16;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let open = std::fs::read_dir("/proc/self/fd").map_or(16, Iterator::count);
    usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .saturating_sub(open + KEPT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ancillary::{Control, DEFAULT_CONTROL_LEN};
    use crate::outgoing::Outgoing;
    use crate::socket::DatagramSocket;
    use crate::wait::{Deadline, Wake};
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn what_came_beside_a_datagram_is_beside_no_other() {
        let (ours, theirs) = DatagramSocket::pair().unwrap();
        let mut batch = Batch::new(&ours, ControlSpace::Bytes(DEFAULT_CONTROL_LEN), BATCH).unwrap();
        let descriptors = Control::new(&[theirs.as_fd()], None).unwrap();
        for beside in [[true, false], [false, true], [false, false], [true, true]] {
            let outgoing = beside.map(|beside| Outgoing {
                control: beside.then_some(&descriptors),
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
            assert_eq!(came.collect::<Vec<_>>(), beside.map(usize::from));
        }
        assert_eq!(
            ours.try_receive(&mut batch, BATCH, ReceiveMode::Remove)
                .unwrap(),
            0
        );
        assert_eq!(batch.datagrams().count(), 0);
    }

    #[test]
    fn what_is_put_beside_a_bare_datagram_goes_before_the_next() {
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

    #[test]
    fn a_receiver_that_waited_in_vain_is_not_spin() {
        let (ours, _theirs) = DatagramSocket::pair().unwrap();
        let mut batch = Batch::new(&ours, ControlSpace::NoDescriptors, 1).unwrap();
        batch.spin = true;
        let soon = Deadline::after(Some(Duration::from_millis(1)));
        let idle = |_: &mut Batch| Ok::<(), Error>(());
        let in_vain = ours.receive(&mut batch, 1, soon, &Wake::default(), idle);
        assert_eq!(in_vain.unwrap(), 0);
        assert!(!batch.spin);
    }
}
