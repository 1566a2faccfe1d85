//! Describes and copies open descriptors.

use crate::error::{Error, ErrorKind, Result, Subject};
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::SFlag;
use nix::sys::statfs::{FsType, fstatfs};
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// `PIDFS_MAGIC` of linux/magic.h.
const PIDFS: FsType = FsType(0x5049_4446);

/// A description of the file that an open descriptor refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The kind: `file`, `dir`, `pipe`, `socket`, `tty`, `char`, `block`, `symlink`, `memfd`, or the
    /// kernel's name of an anonymous inode: `pidfd`, `eventfd`, `epoll`, `timerfd`, `signalfd`, … That name is
    /// `unknown` if /proc is not mounted, except for `pidfd` since Linux 6.9.
    pub kind: String,
    /// The target of its link in /proc/self/fd: a path, `pipe:[INODE]`, `socket:[INODE]`, …; empty if
    /// /proc is not mounted.
    pub target: OsString,
    /// The access mode; `None` for an `O_PATH` descriptor.
    pub access: Option<Access>,
}

/// The access mode of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `O_RDONLY`.
    Read,
    /// `O_WRONLY`.
    Write,
    /// `O_RDWR`.
    ReadWrite,
}

impl Access {
    /// Returns `r`, `w` or `rw`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "r",
            Self::Write => "w",
            Self::ReadWrite => "rw",
        }
    }
}

/// Returns whether the process that a pidfd refers to has not been reaped: its number is still its own.
#[must_use]
pub fn process_exists(pidfd: BorrowedFd<'_>) -> bool {
    let mut polled = [libc::pollfd {
        fd: pidfd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    // A pidfd is readable once its process has exited.
    if sys::poll(&mut polled, Some(Duration::ZERO)).is_ok() && polled[0].revents == 0 {
        return true;
    }
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()));
    // It is -1 once the process was reaped.
    info.is_ok_and(|info| {
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
        pid.is_some_and(|pid| pid.trim().parse::<u32>().is_ok_and(|pid| pid > 0))
    })
}

/// Describes an open descriptor. Does not read from it or change it.
#[must_use]
pub fn describe_descriptor(fd: BorrowedFd<'_>) -> Description {
    let target = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .map(OsString::from)
        .unwrap_or_default();
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_or(OFlag::empty(), OFlag::from_bits_retain);
    let access = match flags & OFlag::O_ACCMODE {
        _ if flags.contains(OFlag::O_PATH) => None,
        OFlag::O_WRONLY => Some(Access::Write),
        OFlag::O_RDWR => Some(Access::ReadWrite),
        _ => Some(Access::Read),
    };
    let mode = metadata(fd).map_or(0, |metadata| metadata.mode());
    let kind = match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => regular(fd, target.as_bytes()),
        SFlag::S_IFDIR => "dir",
        SFlag::S_IFIFO => "pipe",
        SFlag::S_IFSOCK => "socket",
        SFlag::S_IFCHR if nix::unistd::isatty(fd).unwrap_or(false) => "tty",
        SFlag::S_IFCHR => "char",
        SFlag::S_IFBLK => "block",
        SFlag::S_IFLNK => "symlink",
        _ => {
            return Description {
                kind: anonymous(fd, &target),
                target,
                access,
            };
        }
    };
    Description {
        kind: kind.to_owned(),
        target,
        access,
    }
}

/// Returns the kind of a regular file. A memfd is one, and a pidfd on some kernels (pidfs, Linux 6.9).
fn regular(fd: BorrowedFd<'_>, target: &[u8]) -> &'static str {
    if target.starts_with(b"/memfd:") {
        "memfd"
    } else if target.starts_with(b"pidfd:") {
        "pidfd"
    } else if target.is_empty() {
        by_file_system(fd).unwrap_or("file")
    } else {
        "file"
    }
}

/// Returns the kind of a file on an internal file system of the kernel. Does not need /proc.
fn by_file_system(fd: BorrowedFd<'_>) -> Option<&'static str> {
    if fstatfs(fd).is_ok_and(|system| system.filesystem_type() == PIDFS) {
        return Some("pidfd");
    }
    // All memfds are on one internal file system, which has no other files that can be opened.
    let memfd = memfd_create("", MFdFlags::MFD_CLOEXEC).ok()?;
    let device = |fd: BorrowedFd<'_>| metadata(fd).map(|metadata| metadata.dev());
    (device(fd).ok()? == device(memfd.as_fd()).ok()?).then_some("memfd")
}

/// Returns the kind of an anonymous inode from its link, such as `anon_inode:[eventfd]`.
fn anonymous(fd: BorrowedFd<'_>, target: &OsStr) -> String {
    let target = target.to_string_lossy();
    let name = target.strip_prefix("anon_inode:").unwrap_or(&target);
    match name.trim_matches(['[', ']']) {
        "eventpoll" => "epoll",
        "" => by_file_system(fd).unwrap_or("unknown"),
        name => name,
    }
    .to_owned()
}

/// Returns the metadata of an open file: its type, size, owner, inode number; statx(2).
///
/// The numbers have 64 bits on every target, which those of fstat(2) have not. Fails with the error of the
/// kernel.
#[doc(alias = "fstat")]
pub fn metadata(fd: impl AsFd) -> io::Result<Metadata> {
    Ok(sys::metadata(fd.as_fd())?)
}

/// Copies descriptor `number`, close-on-exec: of this process or, with `pid`, of another one
/// (pidfd_getfd(2)).
///
/// Fails with [`ErrorKind::Unusable`] if it is not open there, and with [`ErrorKind::System`] if there
/// is no such process or it may not be traced.
#[doc(alias = "pidfd_getfd")]
pub fn duplicate(pid: Option<i32>, number: RawFd) -> Result<OwnedFd> {
    let copied = match pid {
        None => sys::duplicate(number),
        Some(pid) => sys::pidfd_open(pid).and_then(|pidfd| sys::pidfd_getfd(pidfd.as_fd(), number)),
    };
    // pidfd_open(2) is older: Linux 5.3.
    let subject = Subject::Descriptor { pid, number };
    copied.map_err(|errno| match errno {
        Errno::EBADF => Error::new(ErrorKind::Unusable, "use", subject, "it is not open"),
        Errno::ESRCH => Error::system("copy", subject, errno).with_cause("there is no such process"),
        Errno::EPERM => Error::system("copy", subject, errno).with_hint(
            "copying from another process needs the right to trace it (ptrace(2)): its user and kernel.yama.ptrace_scope 0, or CAP_SYS_PTRACE",
        ),
        errno => Error::system("copy", subject, errno).of_call("pidfd_getfd", "5.6"),
    })
}
