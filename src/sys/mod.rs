//! Every `unsafe` of the library: the system calls that nix does not offer, or not safely.
#![allow(unsafe_code)]

mod mmsg;
mod sockaddr;

pub(crate) use mmsg::{BATCH, MessageToSend, ReceiveBuffers, send};
pub(crate) use sockaddr::{SockAddr, SockAddrRef};

use nix::NixPath;
use nix::errno::Errno;
use nix::libc::{self, c_int, sockaddr_un, socklen_t};
use nix::sys::stat::Mode;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

type Result<T, E = Errno> = std::result::Result<T, E>;

/// bind(2).
pub(crate) fn bind(socket: BorrowedFd<'_>, name: &SockAddr) -> Result<()> {
    // SAFETY: the pointer and the length describe a live `sockaddr_un`.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), name.pointer(), name.len) }).map(drop)
}

/// connect(2), which for datagram sockets never blocks.
pub(crate) fn connect(socket: BorrowedFd<'_>, name: &SockAddr) -> Result<()> {
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
pub(crate) fn name_of(socket: BorrowedFd<'_>, end: End) -> Result<SockAddr> {
    let mut name = SockAddr::UNNAMED;
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

/// Sets the permission bits of a file that is open with `O_PATH`: fchmodat2(2), since Linux 6.6; ENOSYS
/// before.
pub(crate) fn fchmod_path(file: BorrowedFd<'_>, mode: Mode) -> Result<()> {
    // SAFETY: the path is a live C string, and the other arguments are numbers.
    let set = unsafe {
        libc::syscall(
            libc::SYS_fchmodat2,
            file.as_raw_fd(),
            c"".as_ptr(),
            mode.bits(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::result(set).map(drop)
}

/// Renames a file inside `directory` unless the new name is taken (EEXIST): renameat2(2), which nix
/// has for glibc only.
pub(crate) fn rename_noreplace(directory: impl AsFd, from: &OsStr, to: &OsStr) -> Result<()> {
    let directory = directory.as_fd().as_raw_fd();
    let renamed = from.with_nix_path(|from| {
        to.with_nix_path(|to| {
            // SAFETY: both paths are live C strings, and the other arguments are numbers.
            unsafe {
                libc::syscall(
                    libc::SYS_renameat2,
                    directory,
                    from.as_ptr(),
                    directory,
                    to.as_ptr(),
                    libc::RENAME_NOREPLACE,
                )
            }
        })
    })??;
    Errno::result(renamed).map(drop)
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
