//! Holds a socket file open, so that operations reach this file even after its name is replaced.

use crate::diagnose::file_type;
use crate::sock_diag::{inode_of, unix_socket, unix_sockets};
use crate::socket::DatagramSocket;
use crate::sys::{self, Status};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{Gid, Uid, fchownat};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime};

/// The device and the inode number of a file. No other file has both while this one is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    pub(super) inode: u64,
}

impl Identity {
    pub(super) fn of(status: &Status) -> Self {
        Self {
            device: status.device,
            inode: status.inode,
        }
    }
}

/// A file that is open with `O_PATH`: a socket file, unless [`other_type`](Self::other_type) returns another
/// type.
#[derive(Debug)]
pub(super) struct SocketFile {
    fd: OwnedFd,
    identity: Identity,
    mode: u32,
    /// The time at which its inode last changed.
    changed: SystemTime,
}

impl SocketFile {
    /// Opens the file of this name, without following a symbolic link.
    pub(super) fn open(directory: &OwnedFd, name: &OsStr) -> Result<Self, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(directory, name, flags, Mode::empty()).and_then(Self::of)
    }

    /// Opens the file that `socket` is bound to (`SIOCUNIXFILE`). EPERM without CAP_NET_ADMIN.
    pub(super) fn bound_by(socket: &DatagramSocket) -> Result<Self, Errno> {
        sys::bound_file(socket.as_fd()).and_then(Self::of)
    }

    fn of(fd: OwnedFd) -> Result<Self, Errno> {
        let status = Status::of(fd.as_fd(), OsStr::new(""))?;
        Ok(Self {
            identity: Identity::of(&status),
            mode: status.mode,
            changed: status.changed,
            fd,
        })
    }

    /// Returns its device and inode number.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Returns its permission bits, as they were when it was opened.
    pub(super) fn mode(&self) -> Mode {
        Mode::from_bits_truncate(self.mode)
    }

    /// Returns its type in words; `None` for a socket.
    pub(super) fn other_type(&self) -> Option<&'static str> {
        Some(file_type(self.mode)).filter(|name| *name != "socket")
    }

    /// Returns whether its inode last changed at least this long ago.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.changed.elapsed().is_ok_and(|elapsed| elapsed >= age)
    }

    /// Returns its path in /proc, which leads to this file whatever has its name now.
    pub(super) fn link(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    /// Returns whether it is the file that `socket` is bound to, according to sock_diag(7); `true` if that
    /// is unknown.
    pub(super) fn is_of(&self, socket: &DatagramSocket) -> bool {
        let own = inode_of(socket.as_fd());
        if own
            .and_then(|own| unix_socket(own).ok())
            .is_some_and(|socket| socket.has_inode(self.identity.inode))
        {
            return true;
        }
        // A file system may report another inode number than sock_diag(7) does. The file belongs to
        // another socket only if another socket is listed with this number.
        let sockets = unix_sockets().unwrap_or_default();
        let mut others = sockets.iter().filter(|other| Some(other.inode) != own);
        !others.any(|other| other.has_inode(self.identity.inode))
    }

    /// Sets the owner, and the group if there is one.
    pub(super) fn set_owner(&self, user: u32, group: Option<u32>) -> Result<(), Errno> {
        fchownat(
            &self.fd,
            "",
            Some(Uid::from_raw(user)),
            group.map(Gid::from_raw),
            AtFlags::AT_EMPTY_PATH,
        )
    }

    /// Sets the permission bits. Fails with ENOENT before Linux 6.6 if /proc is not mounted.
    pub(super) fn set_mode(&self, mode: Mode) -> Result<(), Errno> {
        match sys::fchmod_path(self.fd.as_fd(), mode) {
            // ENOSYS: Linux before 6.6 has no fchmodat2(2). EPERM: an old sandbox refuses unknown calls.
            Err(Errno::ENOSYS | Errno::EPERM) => {}
            set => return set,
        }
        let link = self.link();
        fchmodat(AT_FDCWD, link.as_str(), mode, FchmodatFlags::FollowSymlink)
    }
}
