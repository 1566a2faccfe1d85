//! Which process has a socket, and under which number.

use crate::address::Address;
use crate::error::{Error, Result, Subject};
use crate::sock_diag::{UnixSocket, unix_socket, unix_sockets};
use crate::socket::DatagramSocket;
use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::fstat;
use std::fs;
use std::io::ErrorKind::PermissionDenied;
use std::os::fd::RawFd;
use std::os::linux::fs::MetadataExt;
use std::os::unix::ffi::OsStrExt;

const FIND: &str = "find the process that has";

/// A descriptor of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    /// The process.
    pub(super) pid: i32,
    /// The number of the descriptor there.
    pub(super) number: RawFd,
}

impl Holder {
    /// Finds a process that has the datagram socket which is bound to `address` now. Of several any
    /// will do.
    ///
    /// Nothing is sent to it. Fails as [`DatagramSocket::connect`] does, and with an errno if no process that has it can be seen, or looked into.
    pub(super) fn bound_to(address: &Address<'_>) -> Result<Self> {
        let subject = || Subject::Address(address.clone().into_owned());
        let inode = inode_bound_to(address)?;
        match Self::of_socket(inode) {
            Ok(Some(holder)) => Ok(holder),
            Ok(None) => Err(Error::system(FIND, subject(), Errno::ESRCH)
                .with_cause("no process here has it")
                .with_hint("it may be in another pid namespace")),
            Err(errno) => Err(Error::system(FIND, subject(), errno)
                .with_cause("there are processes that may not be looked into")
                .with_hint("looking into another user's processes needs CAP_SYS_PTRACE")),
        }
    }

    /// Finds a process that has the socket with this inode number; EACCES if none has, but some
    /// cannot be looked into.
    pub(super) fn of_socket(inode: u64) -> Result<Option<Self>, Errno> {
        let target = link_target(inode);
        let mut hidden = false;
        let processes = fs::read_dir("/proc").map_err(|_| Errno::EACCES)?;
        for process in processes.flatten() {
            let Some(pid) = number(&process.file_name()) else {
                continue;
            };
            let found = fs::read_dir(process.path().join("fd"))
                .and_then(|descriptors| find_link(descriptors, &target));
            match found {
                Ok(Some(number)) => return Ok(Some(Self { pid, number })),
                Ok(None) => {}
                Err(error) => hidden |= error.kind() == PermissionDenied,
            }
        }
        if hidden { Err(Errno::EACCES) } else { Ok(None) }
    }

    /// Returns whether the descriptor is the socket with this inode number.
    pub(super) fn has(self, inode: u64) -> bool {
        let Self { pid, number } = self;
        fs::read_link(format!("/proc/{pid}/fd/{number}"))
            .is_ok_and(|link| link.as_os_str() == link_target(inode).as_str())
    }

    /// Copies the descriptor; pidfd_getfd(2).
    pub(super) fn socket(self) -> Result<DatagramSocket> {
        DatagramSocket::from_number(Some(self.pid), self.number)
    }

    pub(super) fn subject(self) -> Subject {
        Subject::Descriptor {
            pid: Some(self.pid),
            number: self.number,
        }
    }
}

/// The number of the descriptor that is a link to `target`. Root may list the descriptors of a process
/// that it may not look into.
fn find_link(descriptors: fs::ReadDir, target: &str) -> std::io::Result<Option<RawFd>> {
    for entry in descriptors.flatten() {
        match fs::read_link(entry.path()) {
            Ok(link) if link.as_os_str() == target => return Ok(number(&entry.file_name())),
            Err(error) if error.kind() == PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(None)
}

fn link_target(inode: u64) -> String {
    format!("socket:[{inode}]")
}

fn number(name: &std::ffi::OsStr) -> Option<i32> {
    name.to_str()?.parse().ok()
}

/// The inode number of the socket that is bound to `address`: a socket is connected to it, and the
/// kernel says to which.
fn inode_bound_to(address: &Address<'_>) -> Result<u64> {
    let failed = |errno| {
        let subject = Subject::Address(address.clone().into_owned());
        Error::system("look up", subject, errno)
    };
    let probe = DatagramSocket::new()?;
    match probe.connect(address) {
        Ok(()) => {
            let own = fstat(&probe).map_err(failed)?.st_ino;
            let own = u32::try_from(own).map_err(|_| failed(Errno::EOVERFLOW))?;
            let peer = unix_socket(own).map_err(failed)?.peer;
            peer.filter(|peer| *peer != 0)
                .map(u64::from)
                .ok_or_else(|| failed(Errno::ECONNREFUSED))
        }
        // A socket that is connected refuses everybody but its peer.
        Err(error) if error.errno() == Some(Errno::EPERM) => {
            let sockets = unix_sockets().map_err(failed)?;
            let bound = sockets.iter().find(|socket| is_bound_to(socket, address));
            bound.map(|socket| socket.inode.into()).ok_or(error)
        }
        Err(error) => Err(error),
    }
}

/// Returns whether a socket has this abstract name, or the file that this pathname leads to.
fn is_bound_to(socket: &UnixSocket, address: &Address<'_>) -> bool {
    if socket.kind != libc::SOCK_DGRAM {
        return false;
    }
    let Some(bound) = &socket.name else {
        return false;
    };
    match address {
        Address::Unnamed => false,
        Address::Abstract(name) => bound.strip_prefix(b"\0") == Some(name),
        Address::Pathname(path) => {
            let file = fs::metadata(std::ffi::OsStr::from_bytes(path));
            // The kernel tells the low half of the file's inode number.
            let low = file.ok().map(|file| file.st_ino() & u64::from(u32::MAX));
            let last = |path: &[u8]| {
                let path = path.strip_suffix(b"\0").unwrap_or(path);
                path.rsplit(|byte| *byte == b'/').next().map(<[u8]>::to_vec)
            };
            low.is_some() && low == socket.file.map(u64::from) && last(path) == last(bound)
        }
    }
}
