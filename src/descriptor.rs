//! What an open descriptor refers to.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};
use std::ffi::OsString;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

/// An open descriptor, described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// `file`, `dir`, `pipe`, `socket`, `tty`, `char`, `block`, `symlink`, `memfd`, or the name the
    /// kernel gives an anonymous inode: `pidfd`, `eventfd`, `epoll`, `timerfd`, `signalfd`, …
    pub kind: String,
    /// What /proc/self/fd says that it refers to: a path, `pipe:[INODE]`, `socket:[INODE]`, …
    pub target: OsString,
    /// How it is open; `None` for one that only names a file (`O_PATH`).
    pub access: Option<Access>,
}

/// How a descriptor is open.
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
    /// `r`, `w` or `rw`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "r",
            Self::Write => "w",
            Self::ReadWrite => "rw",
        }
    }
}

/// Describes an open descriptor; nothing is read from it, and nothing about it changes.
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
    let mode = fstat(fd).map_or(0, |status| status.st_mode);
    let kind = match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
        SFlag::S_IFREG if target.as_bytes().starts_with(b"/memfd:") => "memfd",
        SFlag::S_IFREG => "file",
        SFlag::S_IFDIR => "dir",
        SFlag::S_IFIFO => "pipe",
        SFlag::S_IFSOCK => "socket",
        SFlag::S_IFCHR if nix::unistd::isatty(fd).unwrap_or(false) => "tty",
        SFlag::S_IFCHR => "char",
        SFlag::S_IFBLK => "block",
        SFlag::S_IFLNK => "symlink",
        _ => {
            return Description {
                kind: anonymous(&target),
                target,
                access,
            };
        }
    };
    // A pidfd is a regular file of its own file system.
    let kind = if target.as_bytes().starts_with(b"pidfd:") {
        "pidfd"
    } else {
        kind
    };
    Description {
        kind: kind.to_owned(),
        target,
        access,
    }
}

/// The kind in `anon_inode:[eventfd]`; epoll's is called `eventpoll` there.
fn anonymous(target: &OsString) -> String {
    let target = target.to_string_lossy();
    let name = target.strip_prefix("anon_inode:").unwrap_or(&target);
    match name.trim_matches(['[', ']']) {
        "eventpoll" => "epoll".to_owned(),
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}
