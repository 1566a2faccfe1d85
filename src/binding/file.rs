//! A socket file, held open: the file itself, whatever its name has come to mean.

use crate::sock_diag::{unix_socket, unix_sockets};
use crate::socket::DatagramSocket;
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat};
use nix::unistd::{Gid, Uid, fchownat};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime};

/// The device and the inode number of a file: no other file has them as long as it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    pub(super) inode: u64,
}

impl Identity {
    pub(super) fn of(status: &FileStat) -> Self {
        Self {
            device: status.st_dev,
            inode: status.st_ino,
        }
    }
}

/// A file that is open with `O_PATH`; a socket file unless [`other_type`](Self::other_type) says
/// otherwise.
#[derive(Debug)]
pub(super) struct SocketFile {
    fd: OwnedFd,
    identity: Identity,
    mode: u32,
    /// When its inode last changed.
    changed: SystemTime,
}

impl SocketFile {
    /// Opens the file of this name, without following a symbolic link.
    pub(super) fn open(directory: &OwnedFd, name: &OsStr) -> Result<Self, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(directory, name, flags, Mode::empty()).and_then(Self::of)
    }

    /// Opens the file that `socket` is bound to; EPERM without CAP_NET_ADMIN.
    pub(super) fn bound_by(socket: &DatagramSocket) -> Result<Self, Errno> {
        sys::bound_file(socket.as_fd()).and_then(Self::of)
    }

    fn of(fd: OwnedFd) -> Result<Self, Errno> {
        let status = fstat(&fd)?;
        let since_epoch = Duration::from_secs(u64::try_from(status.st_ctime).unwrap_or(0))
            + Duration::from_nanos(u64::try_from(status.st_ctime_nsec).unwrap_or(0));
        Ok(Self {
            fd,
            identity: Identity::of(&status),
            mode: status.st_mode,
            changed: SystemTime::UNIX_EPOCH + since_epoch,
        })
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Returns the permission bits that it had when it was opened.
    pub(super) fn mode(&self) -> Mode {
        Mode::from_bits_truncate(self.mode)
    }

    /// Returns the type of a file that is not a socket, in words.
    pub(super) fn other_type(&self) -> Option<&'static str> {
        Some(match SFlag::from_bits_truncate(self.mode) & SFlag::S_IFMT {
            SFlag::S_IFSOCK => return None,
            SFlag::S_IFLNK => "symbolic link",
            SFlag::S_IFDIR => "directory",
            SFlag::S_IFIFO => "FIFO",
            SFlag::S_IFREG => "regular file",
            _ => "device",
        })
    }

    /// Returns whether its inode last changed at least this long ago.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.changed.elapsed().is_ok_and(|elapsed| elapsed >= age)
    }

    /// Returns its path in /proc, which leads to this very file.
    pub(super) fn link(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    /// Returns whether it is the file that `socket` is bound to. `true` if the kernel does not say
    /// otherwise (sock_diag(7)).
    pub(super) fn is_of(&self, socket: &DatagramSocket) -> bool {
        let status = fstat(socket);
        let own = status.ok().and_then(|own| u32::try_from(own.st_ino).ok());
        if own
            .and_then(|own| unix_socket(own).ok())
            .is_some_and(|socket| socket.has_inode(self.identity.inode))
        {
            return true;
        }
        // A file system may report another inode number than the kernel uses: only a socket that has
        // this one shows that the file is not ours.
        let sockets = unix_sockets().unwrap_or_default();
        let mut others = sockets.iter().filter(|other| Some(other.inode) != own);
        !others.any(|other| other.has_inode(self.identity.inode))
    }

    pub(super) fn set_owner(&self, user: u32, group: Option<u32>) -> Result<(), Errno> {
        fchownat(
            &self.fd,
            "",
            Some(Uid::from_raw(user)),
            group.map(Gid::from_raw),
            AtFlags::AT_EMPTY_PATH,
        )
    }

    /// Sets the permission bits. ENOENT before Linux 6.6 if /proc is not mounted.
    pub(super) fn set_mode(&self, mode: Mode) -> Result<(), Errno> {
        match sys::fchmod_path(self.fd.as_fd(), mode) {
            // Linux before 6.6, or a sandbox that does not know the call.
            Err(Errno::ENOSYS | Errno::EPERM) => {}
            set => return set,
        }
        let link = self.link();
        fchmodat(AT_FDCWD, link.as_str(), mode, FchmodatFlags::FollowSymlink)
    }
}
