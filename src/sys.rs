//! Every `unsafe` of the library: the system calls that nix does not offer, or not safely.
//!
//! nix is used wherever it serves. Here stands what it cannot do: names decoded from their raw
//! length (its `UnixAddr` panics on an unnamed sender), recvmmsg(2) and sendmmsg(2) with names
//! and control data for each message, and socket options by number. The two calls for batches go past the C library's functions, which prepare for
//! pthread_cancel(3) each time, and whose types differ from one library to the other.
#![allow(unsafe_code)]

use crate::address::{Address, SUN_PATH_LEN};
use nix::errno::Errno;
use nix::libc::{self, c_char, c_int, c_void, iovec, mmsghdr, msghdr, sockaddr_un, socklen_t};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags};
use std::mem;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::time::Duration;

type Result<T, E = Errno> = std::result::Result<T, E>;

const FAMILY_LEN: usize = size_of::<libc::sa_family_t>();
/// Control data is laid out in words, the alignment cmsg(3) asks for.
const WORD: usize = size_of::<usize>();

/// A `sockaddr_un` and how much of it counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawName {
    raw: sockaddr_un,
    len: socklen_t,
}

impl RawName {
    /// No name: to bind(2), the wish for an autobound one.
    #[allow(clippy::cast_possible_truncation)] // Both constants fit.
    pub(crate) const UNNAMED: Self = Self {
        raw: sockaddr_un {
            sun_family: libc::AF_UNIX as libc::sa_family_t,
            sun_path: [0; SUN_PATH_LEN],
        },
        len: FAMILY_LEN as socklen_t,
    };

    /// The raw form of `address`; `None` where it does not fit.
    pub(crate) fn new(address: &Address<'_>) -> Option<Self> {
        let mut name = Self::UNNAMED;
        let (start, bytes) = match address {
            Address::Unnamed => return Some(name),
            Address::Pathname(path) => (0, path),
            Address::Abstract(abstract_name) => (1, abstract_name),
        };
        let end = start + bytes.len();
        for (to, from) in name
            .raw
            .sun_path
            .get_mut(start..end)?
            .iter_mut()
            .zip(bytes.iter())
        {
            *to = c_char::from_ne_bytes([*from]);
        }
        // A path of 108 bytes goes without its NUL: the kernel puts one behind it.
        let nul = usize::from(start == 0 && end < SUN_PATH_LEN);
        name.len = socklen_t::try_from(FAMILY_LEN + end + nul).ok()?;
        Some(name)
    }

    pub(crate) fn address(&self) -> Address<'_> {
        // SAFETY: `c_char` and `u8` have one size and alignment, and the array is initialised.
        let path = unsafe { &*ptr::from_ref(&self.raw.sun_path).cast::<[u8; SUN_PATH_LEN]>() };
        Address::from_raw(path, self.len as usize)
    }

    fn pointer(&self) -> *const libc::sockaddr {
        ptr::from_ref(&self.raw).cast()
    }
}

/// bind(2).
pub(crate) fn bind(socket: BorrowedFd<'_>, name: &RawName) -> Result<()> {
    // SAFETY: the pointer and the length describe a live `sockaddr_un`.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), name.pointer(), name.len) }).map(drop)
}

/// connect(2), which for datagram sockets never blocks.
pub(crate) fn connect(socket: BorrowedFd<'_>, name: &RawName) -> Result<()> {
    // SAFETY: the pointer and the length describe a live `sockaddr_un`.
    Errno::result(unsafe { libc::connect(socket.as_raw_fd(), name.pointer(), name.len) }).map(drop)
}

/// Which end's name.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Local,
    Peer,
}

/// getsockname(2) and getpeername(2).
pub(crate) fn name_of(socket: BorrowedFd<'_>, end: End) -> Result<RawName> {
    let mut name = RawName::UNNAMED;
    name.len = socklen_t::try_from(size_of::<sockaddr_un>()).unwrap_or(socklen_t::MAX);
    let call = match end {
        End::Local => libc::getsockname,
        End::Peer => libc::getpeername,
    };
    // SAFETY: the pointer and the length describe a live, writable `sockaddr_un`.
    Errno::result(unsafe {
        call(
            socket.as_raw_fd(),
            ptr::from_mut(&mut name.raw).cast(),
            &raw mut name.len,
        )
    })?;
    Ok(name)
}

/// getsockopt(2) into `value`; the length the kernel gave, in bytes.
pub(crate) fn getsockopt(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: &mut [u8],
) -> Result<usize> {
    // The length of a filter is counted in instructions, both ways.
    let unit = match (level, option) {
        (libc::SOL_SOCKET, libc::SO_GET_FILTER) => size_of::<libc::sock_filter>(),
        _ => 1,
    };
    let mut len = socklen_t::try_from(value.len() / unit).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the pointer and the length describe `value`, which the kernel writes at most.
    Errno::result(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            value.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    Ok(len as usize * unit)
}

/// setsockopt(2) from `value`.
pub(crate) fn setsockopt(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: &[u8],
) -> Result<()> {
    let len = socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the pointer and the length describe `value`.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            value.as_ptr().cast(),
            len,
        )
    };
    Errno::result(done).map(drop)
}

/// ppoll(2) on these entries, for at most `timeout`.
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> Result<()> {
    let timeout = timeout.map(|left| libc::timespec {
        tv_sec: left.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    let left = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let count = entries.len().try_into().unwrap_or(libc::nfds_t::MAX);
    // SAFETY: the pointers describe live entries and a live (or no) time.
    Errno::result(unsafe { libc::ppoll(entries.as_mut_ptr(), count, left, ptr::null()) })?;
    Ok(())
}

/// flock(2): the exclusive lock, unless another has it (EAGAIN). nix's own guard panics where
/// unlocking fails.
pub(crate) fn try_lock(file: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the call takes two numbers and checks them.
    let locked = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    Errno::result(locked).map(drop)
}

/// The file of a bound socket, as an `O_PATH` descriptor, whatever its name has come to mean;
/// EPERM without CAP_NET_ADMIN.
pub(crate) fn bound_file(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    // linux/un.h; libc has it not.
    const SIOCUNIXFILE: libc::Ioctl = 0x89e0;
    // SAFETY: the request takes no argument and returns a new descriptor.
    let file = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCUNIXFILE) };
    Errno::result(file).map(own)
}

/// ioctl(2) with a request that writes one `int`, such as `SIOCINQ`.
pub(crate) fn ioctl_int(socket: BorrowedFd<'_>, request: libc::Ioctl) -> Result<i32> {
    let mut value: c_int = 0;
    // SAFETY: callers name requests that write one `int`.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut value) })?;
    Ok(value)
}

/// A copy of the descriptor with this number, close-on-exec; EBADF if it is not open.
pub(crate) fn duplicate(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: the call takes any number and checks it.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    Errno::result(copy).map(own)
}

/// pidfd_open(2).
pub(crate) fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: the call takes two numbers and checks them.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    Errno::result(pidfd).and_then(descriptor)
}

/// pidfd_getfd(2): a copy of a descriptor of another process.
pub(crate) fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: RawFd) -> Result<OwnedFd> {
    // SAFETY: the call takes three numbers and checks them.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    Errno::result(copy).and_then(descriptor)
}

fn descriptor(number: libc::c_long) -> Result<OwnedFd> {
    RawFd::try_from(number).map(own).map_err(|_| Errno::EBADF)
}

/// Takes a descriptor that the kernel has just given to this process, and nobody else holds.
pub(crate) fn own(number: RawFd) -> OwnedFd {
    // SAFETY: callers pass what a system call has just returned or installed.
    unsafe { OwnedFd::from_raw_fd(number) }
}

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
        let mut names = vec![RawName::UNNAMED.raw; slots];
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
        // SAFETY: the first `most` headers point to live storage of the lengths they state.
        let received = unsafe {
            libc::syscall(
                libc::SYS_recvmmsg,
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                most,
                flags,
                ptr::null_mut::<libc::timespec>(),
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

/// A sender's name, as the kernel wrote it.
#[derive(Clone, Copy)]
pub(crate) struct Sender<'b> {
    name: &'b sockaddr_un,
    len: socklen_t,
}

impl<'b> Sender<'b> {
    pub(crate) fn address(self) -> Address<'b> {
        let path = &raw const self.name.sun_path;
        // SAFETY: `c_char` and `u8` have one size and alignment; the names are initialised.
        let path = unsafe { &*path.cast::<[u8; SUN_PATH_LEN]>() };
        Address::from_raw(path, self.len as usize)
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
    pub(crate) fn sender(self) -> Sender<'b> {
        Sender {
            name: self.name,
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
    pub(crate) to: Option<&'m RawName>,
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
