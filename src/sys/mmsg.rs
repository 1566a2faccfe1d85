//! recvmmsg(2) and sendmmsg(2): a batch of messages with names and control data in one call.
//!
//! recvmmsg(2) does not reset `msg_namelen` and `msg_controllen`, and nix reuses its headers without
//! resetting them either: the sender and the descriptors of the message after an unnamed, bare one
//! would be lost. nix's sendmmsg shares one set of control messages among all messages.
//!
//! recvmmsg is the C library's function; musl's, too, is the system call. sendmmsg is the system
//! call itself: on 64-bit processors, musl's function calls sendmsg(2) once for each message, and
//! musl 1.2.5 copies control data into 1024 bytes, so that 253 descriptors (1032 bytes) fail with
//! ENOMEM. What musl corrects there is the padding of its structures, which is zero here.

use super::sockaddr::{SockAddr, SockAddrRef};
use nix::errno::Errno;
use nix::libc::{self, c_int, c_uint, c_void, iovec, mmsghdr, msghdr, sockaddr_un, socklen_t};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags};
use std::mem;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

type Result<T, E = Errno> = std::result::Result<T, E>;

/// Control data is laid out in words, the alignment that cmsg(3) asks for.
const WORD: usize = size_of::<usize>();

/// Memory that is there when touched: `slots` buffers of `slot_len` bytes each.
pub(crate) struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping is plain memory that this value alone points to.
unsafe impl Send for Mapping {}

impl Mapping {
    pub(crate) fn new(len: NonZeroUsize) -> Result<Self> {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new anonymous mapping takes nothing that is in use.
        let start = unsafe { nix::sys::mman::mmap_anonymous(None, len, access, flags) }?;
        Ok(Self {
            start,
            len: len.get(),
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is readable, `len` long, zeroed by the kernel, and lives as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len) }
    }

    /// Gives the memory behind `range` back; it reads as zeros from then on.
    pub(crate) fn release(&mut self, from: usize, len: usize) {
        debug_assert!(from + len <= self.len);
        // SAFETY: the range lies within the mapping.
        let start = unsafe { self.start.byte_add(from) };
        // SAFETY: `&mut self` says that nobody reads it; what was there is given up on purpose.
        // A failure leaves the memory in use, which is no harm.
        let _ = unsafe { nix::sys::mman::madvise(start, len, MmapAdvise::MADV_DONTNEED) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no slice of it outlives the value.
        let _ = unsafe { nix::sys::mman::munmap(self.start, self.len) };
    }
}

/// The buffers of recvmmsg(2): for each message of a batch its bytes, its sender's name and its
/// control data, and the headers that point to them.
pub(crate) struct ReceiveBuffers {
    headers: Vec<mmsghdr>,
    // The headers point into these; their storage never moves while they live.
    _vectors: Vec<iovec>,
    names: Vec<sockaddr_un>,
    control: Vec<usize>,
    control_len: usize,
    data: Mapping,
    slot_len: usize,
    /// How many headers the last call may have written to.
    written: usize,
    received: usize,
}

// SAFETY: the raw pointers point into storage that the value owns.
unsafe impl Send for ReceiveBuffers {}

impl ReceiveBuffers {
    /// Room for `slots` messages of `slot_len` bytes and `control_len` bytes of control data each.
    pub(crate) fn new(
        slots: NonZeroUsize,
        slot_len: NonZeroUsize,
        control_len: usize,
    ) -> Result<Self> {
        let slots = slots.get();
        let total = slot_len
            .checked_mul(NonZeroUsize::new(slots).ok_or(Errno::EINVAL)?)
            .ok_or(Errno::ENOMEM)?;
        let data = Mapping::new(total)?;
        let slot_len = slot_len.get();
        let mut control = vec![0_usize; control_len.div_ceil(WORD) * slots];
        let mut names = vec![SockAddr::UNNAMED.raw; slots];
        let mut vectors: Vec<iovec> = (0..slots)
            .map(|slot| iovec {
                // SAFETY: the mapping holds `slots` slots of `slot_len` bytes.
                iov_base: unsafe { data.start.byte_add(slot * slot_len) }.as_ptr(),
                iov_len: slot_len,
            })
            .collect();
        let words = control_len.div_ceil(WORD);
        let headers = (0..slots)
            .map(|slot| {
                let mut header = empty_header();
                header.msg_name = ptr::from_mut(&mut names[slot]).cast();
                header.msg_iov = &raw mut vectors[slot];
                header.msg_iovlen = 1;
                if words > 0 {
                    header.msg_control = ptr::from_mut(&mut control[slot * words]).cast();
                }
                mmsghdr {
                    msg_hdr: header,
                    msg_len: 0,
                }
            })
            .collect();
        Ok(Self {
            headers,
            _vectors: vectors,
            names,
            control,
            control_len,
            data,
            slot_len,
            written: slots,
            received: 0,
        })
    }

    pub(crate) fn slots(&self) -> usize {
        self.headers.len()
    }

    /// recvmmsg(2), without waiting: at most `most` messages. `flags` go beside `MSG_DONTWAIT`,
    /// `MSG_CMSG_CLOEXEC` and `MSG_TRUNC`.
    ///
    /// The caller takes the descriptors out of every message's control data before the next call.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        most: usize,
        flags: c_int,
    ) -> Result<usize> {
        let most = most.min(self.headers.len());
        self.received = 0;
        // The call writes lengths into the headers and does not set them back itself.
        for header in &mut self.headers[..self.written] {
            header.msg_hdr.msg_namelen = socklen_t::try_from(size_of::<sockaddr_un>()).unwrap_or(0);
            header.msg_hdr.msg_controllen = self.control_len as _;
            header.msg_hdr.msg_flags = 0;
        }
        let flags = flags | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | libc::MSG_TRUNC;
        let count = c_uint::try_from(most).unwrap_or(c_uint::MAX);
        // SAFETY: the first `count` headers point to live storage of the lengths they state.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count,
                flags as _, // Unsigned in musl.
                ptr::null_mut(),
            )
        };
        // One that failed half-way may have been written to, too.
        let count = usize::try_from(received).unwrap_or(0);
        self.written = (count + 1).min(self.headers.len());
        Errno::result(received)?;
        self.received = count;
        Ok(count)
    }

    /// The messages of the last call, in the order they came.
    pub(crate) fn messages(&self) -> impl Iterator<Item = Received<'_>> {
        let slots = self.data.bytes().chunks_exact(self.slot_len);
        self.headers[..self.received]
            .iter()
            .zip(&self.names)
            .zip(slots)
            .map(|((header, name), slot)| Received { header, name, slot })
    }

    /// What came beside message `index` of the last call.
    pub(crate) fn control(&self, index: usize) -> &[u8] {
        assert!(index < self.received, "no such message in the batch");
        let words = self.control_len.div_ceil(WORD);
        let control = &self.control[index * words..(index + 1) * words];
        // SAFETY: the same storage as bytes, of which every pattern is one.
        let control = unsafe {
            std::slice::from_raw_parts(control.as_ptr().cast::<u8>(), size_of_val(control))
        };
        // Its type differs from one C library to the other.
        #[allow(clippy::unnecessary_cast)]
        let len = self.headers[index].msg_hdr.msg_controllen as usize;
        &control[..len.min(self.control_len)]
    }

    /// Gives back the memory of each slot beyond about its first `keep` bytes, and forgets the
    /// messages of the last call.
    pub(crate) fn trim(&mut self, keep: usize) {
        // The largest page there is: only whole ones can be given back.
        const PAGE: usize = 64 << 10;
        self.received = 0;
        for slot in 0..self.headers.len() {
            let from = (slot * self.slot_len + keep).next_multiple_of(PAGE);
            let to = (slot + 1) * self.slot_len / PAGE * PAGE;
            if from < to {
                self.data.release(from, to - from);
            }
        }
    }
}

/// A message in its buffers.
#[derive(Clone, Copy)]
pub(crate) struct Received<'b> {
    header: &'b mmsghdr,
    name: &'b sockaddr_un,
    slot: &'b [u8],
}

impl<'b> Received<'b> {
    /// How long it is on the wire.
    #[inline]
    pub(crate) fn size(self) -> usize {
        self.header.msg_len as usize
    }

    /// Its bytes, at most a slot's length.
    #[inline]
    pub(crate) fn bytes(self) -> &'b [u8] {
        &self.slot[..self.size().min(self.slot.len())]
    }

    #[inline]
    pub(crate) fn sender(self) -> SockAddrRef<'b> {
        SockAddrRef {
            raw: self.name,
            len: self.header.msg_hdr.msg_namelen,
        }
    }

    /// Whether it came without anything beside it, and nothing of that was cut off.
    #[inline]
    pub(crate) fn is_bare(self) -> bool {
        let header = &self.header.msg_hdr;
        header.msg_controllen == 0 && header.msg_flags & libc::MSG_CTRUNC == 0
    }

    /// `MSG_CTRUNC` and its like.
    pub(crate) fn flags(self) -> c_int {
        self.header.msg_hdr.msg_flags
    }
}

fn empty_header() -> msghdr {
    // SAFETY: a C struct of numbers and pointers, for all of which zero is a value.
    unsafe { mem::zeroed() }
}

/// One message to send.
#[derive(Clone, Copy)]
pub(crate) struct MessageToSend<'m> {
    pub(crate) bytes: &'m [u8],
    pub(crate) to: Option<&'m SockAddr>,
    /// Control messages laid out as cmsg(3) has them, in words for their alignment.
    pub(crate) control: &'m [usize],
}

/// How many messages one call takes or gives at most.
pub(crate) const BATCH: usize = 64;

/// sendmmsg(2), without waiting: how many of the first [`BATCH`] messages went.
pub(crate) fn send<'m>(
    socket: BorrowedFd<'_>,
    messages: impl Iterator<Item = MessageToSend<'m>>,
) -> Result<usize> {
    let mut vectors = [const { mem::MaybeUninit::<iovec>::uninit() }; BATCH];
    let mut headers = [const { mem::MaybeUninit::<mmsghdr>::uninit() }; BATCH];
    let mut count = 0;
    for ((message, vector), slot) in messages.zip(&mut vectors).zip(&mut headers) {
        // The kernel only reads what these point to.
        let vector = vector.write(iovec {
            iov_base: message.bytes.as_ptr().cast_mut().cast(),
            iov_len: message.bytes.len(),
        });
        let mut header = empty_header();
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        if let Some(name) = message.to {
            header.msg_name = name.pointer().cast_mut().cast();
            header.msg_namelen = name.len;
        }
        if !message.control.is_empty() {
            header.msg_control = message.control.as_ptr().cast_mut().cast();
            header.msg_controllen = size_of_val(message.control) as _;
        }
        slot.write(mmsghdr {
            msg_hdr: header,
            msg_len: 0,
        });
        count += 1;
    }
    // SAFETY: the first `count` headers are initialised and point to slices that live until the
    // call returns, of the lengths they state.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_sendmmsg,
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    Errno::result(sent).map(|sent| usize::try_from(sent).unwrap_or(0))
}
