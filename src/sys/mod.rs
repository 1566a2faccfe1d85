//! Every `unsafe` of the library: the system calls that nix does not offer, or not safely.
#![allow(unsafe_code)]

pub(crate) mod bpf;
mod clock;
mod control;
pub(crate) mod map_memory;
mod mmsg;
mod sockaddr;
mod status;

pub(crate) use clock::realtime_offset;
#[cfg(fuzzing)]
pub(crate) use control::Contents;
pub(crate) use control::{
    ReceivedControl, SO_TIMESTAMP_NEW, SO_TIMESTAMPING_NEW, SO_TIMESTAMPNS_NEW,
};
pub(crate) use mmsg::{BATCH, MessageToSend, ReceiveBuffers, Received, send};
pub(crate) use sockaddr::{SockAddr, SockAddrRef};
pub(crate) use status::Status;

use nix::NixPath;
use nix::errno::Errno;
use nix::libc::{self, c_int, sockaddr_un, socklen_t};
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

type Result<T, E = Errno> = std::result::Result<T, E>;

/// Binds `socket`; bind(2).
pub(crate) fn bind(socket: BorrowedFd<'_>, name: &SockAddr) -> Result<()> {
    // SAFETY: the pointer and the length describe a live `sockaddr_un`.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), name.pointer(), name.len) }).map(drop)
}

/// Connects `socket`; connect(2), which never blocks for datagram sockets.
pub(crate) fn connect(socket: BorrowedFd<'_>, name: &SockAddr) -> Result<()> {
    // SAFETY: the pointer and the length describe a live `sockaddr_un`.
    Errno::result(unsafe { libc::connect(socket.as_raw_fd(), name.pointer(), name.len) }).map(drop)
}

/// An end of a connected socket.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Local,
    Peer,
}

/// Returns the name of one end; getsockname(2), getpeername(2).
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

/// Reads an option into `value`; getsockopt(2). Returns the length that the kernel gave, in bytes.
pub(crate) fn getsockopt(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: &mut [u8],
) -> Result<usize> {
    // The kernel takes and gives the length of a filter in instructions (`sk_get_filter`).
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

/// Returns a descriptor of the process that made the pair of sockets; getsockopt(2), `SO_PEERPIDFD`.
pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut pidfd = [0; size_of::<RawFd>()];
    getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEERPIDFD, &mut pidfd)?;
    // SAFETY: the kernel has just installed this descriptor (`sk_getsockopt`).
    Ok(unsafe { own(RawFd::from_ne_bytes(pidfd)) })
}

/// Sets an option; setsockopt(2).
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

/// 68 years.
const LONGEST_WAIT: Duration = Duration::from_secs(i32::MAX.unsigned_abs() as u64);

/// Returns the metadata of an open file; statx(2), or fstat64(2) before Linux 4.11. That of nix, fstat(2), fails
/// on 32-bit targets (EOVERFLOW) if the inode number or the size takes more than 32 bits.
pub(crate) fn metadata(file: BorrowedFd<'_>) -> Result<Metadata> {
    // SAFETY: the descriptor is open as long as `file` is borrowed, and `ManuallyDrop` does not close it.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(file.as_raw_fd()) });
    file.metadata().map_err(|error| errno(&error))
}

/// Returns the errno of an error of the standard library.
fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Waits on these entries for at most `timeout`; ppoll(2).
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> Result<()> {
    // Callers wait again until their deadline; `time_t` has 32 bits on some targets.
    let timeout = timeout.map(|left| TimeSpec::from(left.min(LONGEST_WAIT)));
    let left = timeout
        .as_ref()
        .map_or(ptr::null(), |left| ptr::from_ref(left.as_ref()));
    let count = entries.len().try_into().unwrap_or(libc::nfds_t::MAX);
    // SAFETY: the pointers describe live entries and a live (or no) time.
    Errno::result(unsafe { libc::ppoll(entries.as_mut_ptr(), count, left, ptr::null()) })?;
    Ok(())
}

/// Takes the exclusive lock of a file; flock(2). EAGAIN if another process has it. The guard of nix
/// panics if unlocking fails.
pub(crate) fn try_lock(file: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the call takes two numbers and checks them.
    let locked = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    Errno::result(locked).map(drop)
}

/// Opens the file of a bound socket with `O_PATH`, whatever its name means now. EPERM without
/// CAP_NET_ADMIN.
pub(crate) fn bound_file(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    // linux/un.h; libc lacks it.
    const SIOCUNIXFILE: libc::Ioctl = 0x89e0;
    // SAFETY: the request takes no argument and returns a new descriptor.
    let file = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCUNIXFILE) };
    let file = Errno::result(file)?;
    // SAFETY: the kernel has just installed this descriptor (`unix_open_file`).
    Ok(unsafe { own(file) })
}

/// Sets the permission bits of a file that is open with `O_PATH`: fchmodat2(2), since Linux 6.6; ENOSYS
/// before.
pub(crate) fn fchmod_path(file: BorrowedFd<'_>, mode: Mode) -> Result<()> {
    // asm-generic/unistd.h; libc has it for some targets only. On Alpha and MIPS, which have other numbers, it
    // is a call that does not exist: ENOSYS.
    const FCHMODAT2: libc::c_long = 452;
    // SAFETY: the path is a live C string, and the other arguments are numbers.
    let set = unsafe {
        libc::syscall(
            FCHMODAT2,
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

/// A direction, seen from a socket.
#[derive(Clone, Copy)]
pub(crate) enum Direction {
    In,
    Out,
}

/// Returns how much is queued in a direction; unix(7), `SIOCINQ`, `SIOCOUTQ`.
pub(crate) fn queued(socket: BorrowedFd<'_>, direction: Direction) -> Result<i32> {
    let request = match direction {
        Direction::In => libc::FIONREAD,
        Direction::Out => libc::TIOCOUTQ,
    };
    let mut value: c_int = 0;
    // SAFETY: either request writes one `int` (`unix_ioctl`).
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut value) })?;
    Ok(value)
}

/// Copies the descriptor with this number, close-on-exec; fcntl(2). EBADF if it is not open.
pub(crate) fn duplicate(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: the call takes any number and checks it.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    let copy = Errno::result(copy)?;
    // SAFETY: the call has just made this descriptor.
    Ok(unsafe { own(copy) })
}

/// Opens a descriptor of a process; pidfd_open(2).
pub(crate) fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: the call takes two numbers and checks them.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let pidfd = descriptor_number(Errno::result(pidfd)?)?;
    // SAFETY: the call has just made this descriptor.
    Ok(unsafe { own(pidfd) })
}

/// Copies a descriptor of another process; pidfd_getfd(2).
pub(crate) fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: RawFd) -> Result<OwnedFd> {
    // SAFETY: the call takes three numbers and checks them.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    let copy = descriptor_number(Errno::result(copy)?)?;
    // SAFETY: the call has just made this descriptor.
    Ok(unsafe { own(copy) })
}

fn descriptor_number(returned: libc::c_long) -> Result<RawFd> {
    RawFd::try_from(returned).map_err(|_| Errno::EBADF)
}

/// Owns the descriptor with this number.
///
/// # Safety
///
/// The descriptor is open, and nothing else owns it: a system call has just returned or installed it.
unsafe fn own(number: RawFd) -> OwnedFd {
    // SAFETY: the caller vouches for it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_file_that_is_locked_cannot_be_locked_again() {
        let directory = tempfile::tempdir().unwrap();
        let open = || File::open(directory.path()).unwrap();
        let (one, other) = (open(), open());
        assert_eq!(try_lock(one.as_fd()), Ok(()));
        assert_eq!(try_lock(other.as_fd()), Err(Errno::EAGAIN));
    }
}
