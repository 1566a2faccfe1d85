//! A batch of messages with names and control data in one call: recvmmsg(2), sendmmsg(2).
//!
//! recvmmsg(2) does not reset `msg_namelen` and `msg_controllen`, and nix reuses its headers without
//! resetting them: the sender and the descriptors of the message after an unnamed one without control
//! data would be lost. The sendmmsg of nix shares one set of control messages among all messages.
//!
//! recvmmsg is the C library's function, which is the system call in musl, too. sendmmsg is the system
//! call itself: on 64-bit processors, musl's function calls sendmsg(2) once for each message, and
//! musl 1.2.5 copies control data into 1024 bytes, so that 253 descriptors (1032 bytes) fail with
//! ENOMEM. The padding that musl clears in its structures is zero here.

use super::control::{Contents, ReceivedControl};
use super::sockaddr::{SockAddr, SockAddrRef};
use nix::errno::Errno;
use nix::libc::{self, c_int, c_uint, c_void, iovec, mmsghdr, msghdr, sockaddr_un, socklen_t};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags};
use std::mem;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

type Result<T, E = Errno> = std::result::Result<T, E>;

/// The alignment of control data; cmsg(3).
const WORD: usize = size_of::<usize>();

/// Zeroed memory of `slots` buffers, each of `slot_len` bytes. The kernel provides each page when it is
/// first touched.
struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping is plain memory that this value alone points to.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(len: NonZeroUsize) -> Result<Self> {
        let mut flags = MapFlags::MAP_PRIVATE;
        // Miri does not know this flag.
        flags.set(MapFlags::MAP_NORESERVE, cfg!(not(miri)));
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new anonymous mapping takes nothing that is in use.
        let start = unsafe { nix::sys::mman::mmap_anonymous(None, len, access, flags) }?;
        Ok(Self {
            start,
            len: len.get(),
        })
    }

    /// Returns the pointer to a byte of it, valid for the whole mapping.
    fn at(&self, offset: usize) -> *mut c_void {
        assert!(offset <= self.len, "beyond the mapping");
        // SAFETY: the offset lies within the mapping or at its end.
        unsafe { self.start.byte_add(offset) }.as_ptr()
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is readable, `len` long, zeroed by the kernel, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len) }
    }

    /// Gives the memory of a range back to the kernel; it reads as zeros from then on.
    fn release(&mut self, from: usize, len: usize) {
        assert!(
            from.checked_add(len).is_some_and(|end| end <= self.len),
            "beyond the mapping"
        );
        // SAFETY: the range begins within the mapping.
        let start = unsafe { self.start.byte_add(from) };
        // SAFETY: the range lies within the mapping, and `&mut self` excludes readers. A failure leaves
        // the memory in use, which does no harm.
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
    /// `None` if there is no room for control data.
    control: Option<Mapping>,
    control_len: usize,
    data: Mapping,
    slot_len: usize,
    /// The number of headers that the last call may have written to.
    written: usize,
    received: usize,
}

// SAFETY: the raw pointers point into storage that the value owns.
unsafe impl Send for ReceiveBuffers {}

impl ReceiveBuffers {
    /// Makes buffers for `slots` messages of `slot_len` bytes and `control_len` bytes of control data
    /// each. ENOMEM if there is no memory for them.
    pub(crate) fn new(
        slots: NonZeroUsize,
        slot_len: NonZeroUsize,
        control_len: usize,
    ) -> Result<Self> {
        let data = Mapping::new(slot_len.checked_mul(slots).ok_or(Errno::ENOMEM)?)?;
        let (slots, slot_len) = (slots.get(), slot_len.get());
        let stride = control_len
            .checked_next_multiple_of(WORD)
            .ok_or(Errno::ENOMEM)?;
        let control_total = stride.checked_mul(slots).ok_or(Errno::ENOMEM)?;
        let control = NonZeroUsize::new(control_total)
            .map(Mapping::new)
            .transpose()?;
        let mut names = vec![SockAddr::UNNAMED.raw; slots];
        let mut vectors: Vec<iovec> = (0..slots)
            .map(|slot| iovec {
                iov_base: data.at(slot * slot_len),
                iov_len: slot_len,
            })
            .collect();
        // Each pointer is derived from the whole storage: a reference to one element would not permit
        // access to the rest, and would end with the next one made.
        let (first_name, first_vector) = (names.as_mut_ptr(), vectors.as_mut_ptr());
        let headers = (0..slots)
            .map(|slot| {
                let mut header = empty_header();
                header.msg_name = first_name.wrapping_add(slot).cast();
                header.msg_iov = first_vector.wrapping_add(slot);
                header.msg_iovlen = 1;
                if let Some(control) = &control {
                    header.msg_control = control.at(slot * stride);
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

    /// Returns how many messages there is room for.
    pub(crate) fn slots(&self) -> usize {
        self.headers.len()
    }

    /// Receives at most `max` messages without waiting; recvmmsg(2). `flags` are added to
    /// `MSG_DONTWAIT`, `MSG_CMSG_CLOEXEC` and `MSG_TRUNC`.
    ///
    /// Descriptors that [`take_control`](Self::take_control) does not take stay open without an owner.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        max: usize,
        flags: c_int,
    ) -> Result<usize> {
        let max = max.min(self.headers.len());
        self.reset_headers();
        let flags = flags | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | libc::MSG_TRUNC;
        let count = c_uint::try_from(max).unwrap_or(c_uint::MAX);
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
        self.note_received(received)
    }

    /// Prepares the headers for a call, which writes lengths into them and does not reset them.
    fn reset_headers(&mut self) {
        self.received = 0;
        for header in &mut self.headers[..self.written] {
            header.msg_hdr.msg_namelen = socklen_t::try_from(size_of::<sockaddr_un>()).unwrap_or(0);
            header.msg_hdr.msg_controllen = self.control_len as _;
            header.msg_hdr.msg_flags = 0;
        }
    }

    /// Notes what a call has returned: the number of messages, or -1 with errno.
    fn note_received(&mut self, received: c_int) -> Result<usize> {
        // The call writes to the header at which it fails, too.
        let count = usize::try_from(received).unwrap_or(0);
        self.written = (count + 1).min(self.headers.len());
        Errno::result(received)?;
        self.received = count;
        Ok(count)
    }

    /// Returns the messages of the last call, in the order of arrival.
    pub(crate) fn messages(&self) -> impl Iterator<Item = Received<'_>> {
        let slots = self.data.bytes().chunks_exact(self.slot_len);
        self.headers[..self.received]
            .iter()
            .zip(&self.names)
            .zip(slots)
            .map(|((header, name), slot)| Received { header, name, slot })
    }

    /// Takes the control data of message `index` of the last call; `None` if it has none, and after the
    /// first call for this message.
    pub(crate) fn take_control(&mut self, index: usize) -> Option<ReceivedControl> {
        let header = &mut self.headers[..self.received][index].msg_hdr;
        let flags = mem::take(&mut header.msg_flags);
        // Its type differs between C libraries.
        #[allow(clippy::unnecessary_cast)]
        let len = (mem::take(&mut header.msg_controllen) as usize).min(self.control_len);
        if len == 0 && flags & libc::MSG_CTRUNC == 0 {
            return None;
        }
        let start = index * self.control_len.next_multiple_of(WORD);
        let control = self.control.as_ref().map_or(&[][..], Mapping::bytes);
        let contents = Contents::of(control.get(start..start + len).unwrap_or_default());
        // SAFETY: the last call installed the descriptors. The length is 0 now, so they are taken once.
        Some(unsafe { contents.own(flags) })
    }

    /// Gives back the memory of each slot beyond about its first `keep` bytes, and forgets the
    /// messages of the last call.
    pub(crate) fn trim(&mut self, keep: usize) {
        // The largest page size of Linux's architectures: madvise(2) takes whole pages.
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
    /// Returns its length on the wire.
    #[inline]
    pub(crate) fn size(self) -> usize {
        self.header.msg_len as usize
    }

    /// Returns its bytes, at most a slot's length.
    #[inline]
    pub(crate) fn bytes(self) -> &'b [u8] {
        &self.slot[..self.size().min(self.slot.len())]
    }

    /// Returns the sender's name.
    #[inline]
    pub(crate) fn sender(self) -> SockAddrRef<'b> {
        SockAddrRef {
            raw: self.name,
            len: self.header.msg_hdr.msg_namelen,
        }
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

/// The number of messages that one call takes or gives at most.
pub(crate) const BATCH: usize = 64;

/// Sends the first [`BATCH`] messages without waiting; sendmmsg(2). Returns how many were sent.
pub(crate) fn send<'m>(
    socket: BorrowedFd<'_>,
    messages: impl Iterator<Item = MessageToSend<'m>>,
) -> Result<usize> {
    let sent = with_headers(messages, |headers, count| {
        // SAFETY: the first `count` headers are initialised and point to slices that live until the
        // call returns, of the lengths they state.
        unsafe {
            libc::syscall(
                libc::SYS_sendmmsg,
                socket.as_raw_fd(),
                headers,
                count,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        }
    });
    Errno::result(sent).map(|sent| usize::try_from(sent).unwrap_or(0))
}

/// Calls `call` with the headers of the first [`BATCH`] messages and their number.
fn with_headers<'m, R>(
    messages: impl Iterator<Item = MessageToSend<'m>>,
    call: impl FnOnce(*mut mmsghdr, c_uint) -> R,
) -> R {
    let mut vectors = [const { mem::MaybeUninit::<iovec>::uninit() }; BATCH];
    let mut headers = [const { mem::MaybeUninit::<mmsghdr>::uninit() }; BATCH];
    let mut count: c_uint = 0;
    for ((message, vector), slot) in messages.zip(&mut vectors).zip(&mut headers) {
        // The kernel only reads through these pointers.
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
    call(headers.as_mut_ptr().cast(), count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::ancillary::Control;
    use crate::credentials::Credentials;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    const CREDENTIALS: Credentials = Credentials {
        pid: 1,
        uid: 2,
        gid: 3,
    };

    fn name(written: &str) -> SockAddr {
        SockAddr::new(&Address::parse(written.as_bytes()).unwrap()).unwrap()
    }

    /// A message as the kernel delivers it.
    #[derive(Clone, Copy)]
    struct Delivered<'m> {
        name: Option<&'m SockAddr>,
        bytes: &'m [u8],
        control: &'m [usize],
        flags: c_int,
    }

    const BARE: Delivered<'_> = Delivered {
        name: None,
        bytes: b"",
        control: &[],
        flags: 0,
    };

    /// Copies bytes as the kernel does.
    ///
    /// # Safety
    ///
    /// Each pointer is that of a live value with so many bytes; null is permitted for 0 bytes.
    unsafe fn copy<T>(to: *mut c_void, room: usize, from: *const T, len: usize) {
        assert!(len <= room, "{len} bytes do not fit into {room}");
        if len > 0 {
            // SAFETY: the caller guarantees it.
            unsafe { ptr::copy_nonoverlapping(from.cast::<u8>(), to.cast(), len) };
        }
    }

    /// Receives these messages: writes through the pointers of the headers what recvmmsg(2) writes.
    #[allow(clippy::unnecessary_cast)] // The type of the length differs between C libraries.
    fn receive(buffers: &mut ReceiveBuffers, messages: &[Delivered<'_>]) {
        buffers.reset_headers();
        let headers = buffers.headers.as_mut_ptr();
        for (slot, message) in messages.iter().enumerate() {
            // SAFETY: there are at least as many headers as messages.
            let header = unsafe { &mut *headers.wrapping_add(slot) };
            let hdr = &mut header.msg_hdr;
            // SAFETY: each header has one vector.
            let vector = unsafe { *hdr.msg_iov };
            let (bytes, control) = (message.bytes, message.control);
            let (from, name_len) = message
                .name
                .map_or((ptr::null(), 0), |name| (name.pointer(), name.len));
            let len = bytes.len().min(vector.iov_len);
            // SAFETY: the vector describes a live buffer.
            unsafe { copy(vector.iov_base, vector.iov_len, bytes.as_ptr(), len) };
            let room = hdr.msg_namelen as usize;
            // SAFETY: the header describes a live name.
            unsafe { copy(hdr.msg_name, room, from, name_len as usize) };
            hdr.msg_namelen = name_len;
            let (room, len) = (hdr.msg_controllen as usize, size_of_val(control));
            // SAFETY: the header describes a live buffer for control data.
            unsafe { copy(hdr.msg_control, room, control.as_ptr(), len) };
            hdr.msg_controllen = len as _;
            hdr.msg_flags = message.flags;
            header.msg_len = c_uint::try_from(bytes.len()).unwrap();
        }
        let count = c_int::try_from(messages.len()).unwrap();
        assert_eq!(buffers.note_received(count), Ok(messages.len()));
    }

    #[test]
    fn each_message_is_read_from_the_buffers_of_its_header() {
        let number = |number| NonZeroUsize::new(number).unwrap();
        let mut buffers = ReceiveBuffers::new(number(3), number(5), 64).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let control = Control::new(&[ours.as_fd()], Some(CREDENTIALS)).unwrap();
        // The buffers own it from now on.
        let _ = ours.into_raw_fd();
        let (short, long) = (name("@a"), name(&"p".repeat(108)));
        let messages = [
            Delivered {
                name: Some(&short),
                bytes: b"bytes",
                control: control.words(),
                ..BARE
            },
            BARE,
            Delivered {
                name: Some(&long),
                bytes: b"too long",
                flags: libc::MSG_CTRUNC,
                ..BARE
            },
        ];
        receive(&mut buffers, &messages);
        let read = buffers
            .messages()
            .map(|message| (message.sender().address(), message.bytes(), message.size()));
        let unnamed = Address::Unnamed;
        let expected = [
            (short.address(), &b"bytes"[..], 5),
            (unnamed, b"", 0),
            (long.address(), b"too l", 8),
        ];
        assert_eq!(read.collect::<Vec<_>>(), expected);
        assert!(buffers.take_control(1).is_none());
        assert!(buffers.take_control(2).unwrap().truncated);
        let taken = buffers.take_control(0).unwrap();
        assert!(!taken.truncated && buffers.take_control(0).is_none());
        assert_eq!(taken.credentials, Some(CREDENTIALS));
        assert_eq!(taken.descriptors.len(), 1);
        // The descriptor is the only one of its end, and closed with the control data.
        drop(taken);
        // read(2): Miri does not know recv(2).
        let mut theirs = File::from(OwnedFd::from(theirs));
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
        // The lengths of the last call do not limit the next one.
        for messages in [[messages[2], messages[2]], [BARE, messages[2]]] {
            receive(&mut buffers, &messages);
            assert_eq!(buffers.messages().count(), 2);
            let last = buffers.messages().last().unwrap();
            assert_eq!(last.sender().address(), long.address());
        }
    }

    #[test]
    #[allow(clippy::unnecessary_cast)] // The types of the lengths differ between C libraries.
    fn each_header_points_to_the_parts_of_its_message() {
        let to = name("@a");
        let control = Control::new(&[], Some(CREDENTIALS)).unwrap();
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        let messages = bytes[..=BATCH].chunks(1).map(|bytes| MessageToSend {
            bytes,
            to: Some(&to).filter(|_| bytes[0] % 2 == 0),
            control: if bytes[0] % 3 == 0 {
                control.words()
            } else {
                &[]
            },
        });
        let count = with_headers(messages.clone(), |headers, count| {
            for (slot, message) in messages.take(count as usize).enumerate() {
                // SAFETY: so many headers are initialised.
                let header = unsafe { &*headers.wrapping_add(slot) }.msg_hdr;
                // SAFETY: each header has one vector.
                let vector = unsafe { *header.msg_iov };
                let read = |from: *const c_void, len| {
                    let mut bytes = vec![0_u8; len];
                    // SAFETY: the header and its vector describe live parts of the message.
                    unsafe { copy(bytes.as_mut_ptr().cast(), len, from, len) };
                    bytes
                };
                assert_eq!(read(vector.iov_base, vector.iov_len), message.bytes);
                let name = read(header.msg_name, header.msg_namelen as usize);
                assert_eq!(name.ends_with(b"\0a"), message.to.is_some());
                assert_eq!(name.len(), message.to.map_or(0, |_| to.len as usize));
                let control = read(header.msg_control, header.msg_controllen as usize);
                let words = message.control.iter().flat_map(|word| word.to_ne_bytes());
                assert!(control.into_iter().eq(words));
            }
            count
        });
        assert_eq!(count as usize, BATCH);
    }

    // Miri does not know madvise(2).
    #[cfg(not(miri))]
    #[test]
    fn memory_that_is_given_back_is_that_beyond_the_kept_bytes_of_each_slot() {
        const SLOT: usize = 200_000;
        const KEEP: usize = 10_000;
        /// Memory is given back in units of this size.
        const PAGE: usize = 64 << 10;
        let slots = NonZeroUsize::new(3).unwrap();
        let mut buffers = ReceiveBuffers::new(slots, SLOT.try_into().unwrap(), 0).unwrap();
        let start = buffers.data.at(0).cast::<u8>();
        // SAFETY: the mapping has this length, and nothing else refers to it.
        unsafe { start.write_bytes(1, 3 * SLOT) };
        buffers.trim(KEEP);
        let bytes = buffers.data.bytes();
        for slot in 0..3 {
            let slot = &bytes[slot * SLOT..][..SLOT];
            assert!(slot[..KEEP].iter().all(|byte| *byte == 1));
            let kept = slot.iter().map(|byte| usize::from(*byte)).sum::<usize>();
            assert!(kept < KEEP + 2 * PAGE, "{kept}");
        }
    }

    // Miri takes memory for each byte of a mapping.
    #[cfg(not(miri))]
    #[test]
    fn a_mapping_that_is_dropped_takes_no_address_space() {
        // A tebibyte, where there are 128 of them.
        let len = NonZeroUsize::new(usize::MAX >> 24).unwrap();
        if Mapping::new(len).is_err() {
            // The system overcommits no memory.
            return;
        }
        for number in 0..1000 {
            assert!(Mapping::new(len).is_ok(), "{number}");
        }
    }
}
