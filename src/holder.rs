//! Finds a process that holds a socket, and the number of its descriptor.
//!
//! A scratch socket is connected to the address, and sock_diag(7) reports the inode number of its peer. The links
//! in /proc/PID/fd have that number. Nothing is sent.

use crate::address::{Address, ToAddress};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::quoted::Quoted;
use crate::sock_diag::{UnixSocket, find, inode_of, unix_socket, unix_sockets, unix_sockets_of};
use crate::socket::DatagramSocket;
use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const FIND: &str = "find the socket at";
const FIND_HOLDER: &str = "find a process that holds";

/// A descriptor of a process that refers to a socket.
///
/// `Display` names the process: `python3 (process 812)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: i32,
    /// The number of the descriptor there.
    pub number: RawFd,
}

impl Holder {
    /// Copies the datagram socket that is bound to `address` now from any process that holds it, and
    /// returns that process; pidfd_getfd(2).
    ///
    /// A pathname leads to the socket of its file, in any network namespace. An abstract name that no socket has
    /// in this namespace is looked up in those of the processes that this process sees, which needs
    /// CAP_SYS_ADMIN.
    ///
    /// Fails with [`ErrorKind::NobodyThere`] if there is no such socket, as
    /// [`DatagramSocket::connect`] does if it is something else, and with [`ErrorKind::System`] if this
    /// process may not see or trace a process that holds it.
    pub fn copy_bound(address: impl ToAddress) -> Result<(DatagramSocket, Self)> {
        let address = address.to_address()?;
        let inode = inode_bound_to(&address)?;
        let subject = Subject::Address(address.into_owned());
        copy(holders(inode.into()), inode, &subject)
    }

    /// Finds a process that holds the datagram socket which is bound to `address` now.
    ///
    /// Fails as [`copy_bound`](Self::copy_bound) does.
    pub fn bound_to(address: impl ToAddress) -> Result<Self> {
        let address = address.to_address()?;
        let inode = inode_bound_to(&address)?;
        let subject = Subject::Address(address.into_owned());
        match Self::of_socket(inode.into()) {
            Ok(Some(holder)) => Ok(holder),
            Ok(None) => Err(unseen(subject, None)),
            Err(errno) => Err(unseen(subject, Some(errno))),
        }
    }

    /// Finds a process that holds the socket with this inode number. EACCES if none is found and there are
    /// processes that this process may not trace.
    pub(crate) fn of_socket(inode: u64) -> Result<Option<Self>, Errno> {
        let mut hidden = false;
        for holder in holders(inode) {
            match holder {
                Ok(holder) => return Ok(Some(holder)),
                Err(_) => hidden = true,
            }
        }
        if hidden { Err(Errno::EACCES) } else { Ok(None) }
    }

    /// Returns whether the descriptor still is the socket with this inode number.
    pub(crate) fn has(self, inode: u64) -> bool {
        let link = format!("/proc/{}/fd/{}", self.pid, self.number);
        socket_inode(Path::new(&link)).is_ok_and(|socket| socket.map(u64::from) == Some(inode))
    }

    /// Copies the descriptor; pidfd_getfd(2).
    ///
    /// Fails as [`DatagramSocket::from_number`] does.
    pub fn socket(self) -> Result<DatagramSocket> {
        DatagramSocket::from_number(Some(self.pid), self.number)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = command(self.pid);
        if command.contains(Quoted::escapes) {
            Quoted(OsStr::new(&command)).fmt(f)?;
        } else {
            f.write_str(&command)?;
        }
        write!(f, " (process {})", self.pid)
    }
}

/// Copies the socket with this inode number from the first of `holders` that permits it.
pub(crate) fn copy(
    holders: impl IntoIterator<Item = io::Result<Holder>>,
    inode: u32,
    subject: &Subject,
) -> Result<(DatagramSocket, Holder)> {
    let mut refused = None;
    let mut hidden = None;
    for holder in holders {
        let Ok(holder) = holder else {
            hidden = Some(Errno::EACCES);
            continue;
        };
        match holder.socket() {
            Ok(socket) if inode_of(&socket) == Some(inode) => return Ok((socket, holder)),
            // It has been closed since.
            Ok(_) => {}
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| unseen(subject.clone(), hidden)))
}

/// Makes the error of a socket whose holders are not seen.
fn unseen(subject: Subject, errno: Option<Errno>) -> Error {
    match errno {
        None => Error::system(FIND_HOLDER, subject, Errno::ESRCH)
            .with_cause("no process in this pid namespace holds it")
            .with_hint("its process may be in another pid namespace"),
        Some(errno) => Error::system(FIND_HOLDER, subject, errno)
            .with_cause("no process that may be traced holds it")
            .with_hint("tracing another user's processes needs CAP_SYS_PTRACE"),
    }
}

/// Returns the inode number of the datagram socket that is bound to `address` now: the one that a
/// connect(2) reaches.
pub(crate) fn inode_bound_to(address: &Address<'_>) -> Result<u32> {
    let failed = |errno| {
        let subject = Subject::Address(address.clone().into_owned());
        Error::system(FIND, subject, errno)
    };
    let probe = scratch_socket()?;
    let error = match probe.connect_for(FIND, address) {
        Ok(()) => {
            // The socket may have been closed since.
            let peer = peer_of(&probe).map_err(failed)?;
            return peer
                .ok_or_else(|| failed(Errno::ECONNREFUSED).with_kind(ErrorKind::NobodyThere));
        }
        Err(error) => error,
    };
    let listed = match (error.errno(), address) {
        // EPERM: the socket is connected to another one and accepts only that. EACCES: the file is not writable,
        // but a process of this user may hold the socket.
        (Some(Errno::EPERM | Errno::EACCES), _) => {
            let sockets = unix_sockets().map_err(failed)?;
            match find(
                sockets.iter().filter(|socket| socket.is_datagram()),
                address,
            ) {
                Some(socket) => Some(socket.inode),
                None => elsewhere(address)?,
            }
        }
        (Some(Errno::ECONNREFUSED), Address::Abstract(_)) => elsewhere(address)?,
        _ => None,
    };
    listed.ok_or(error)
}

/// Makes a socket that is connected only for a test. It cannot send, so that it does not count as a client.
pub(crate) fn scratch_socket() -> Result<DatagramSocket> {
    let socket = DatagramSocket::new()?;
    shutdown(socket.as_fd().as_raw_fd(), Shutdown::Write)
        .map_err(|errno| Error::system("shut down a socket", Subject::None, errno))?;
    Ok(socket)
}

/// Returns the inode number of the socket's peer; `None` if that is closed, or if there is none.
pub(crate) fn peer_of(socket: &DatagramSocket) -> Result<Option<u32>, Errno> {
    let own = inode_of(socket).ok_or(Errno::EOVERFLOW)?;
    Ok(unix_socket(own)?.peer.filter(|peer| *peer != 0))
}

/// Finds the socket that is bound to `address` in the other network namespaces. Fails if there are several:
/// which one is meant is unknown.
fn elsewhere(address: &Address<'_>) -> Result<Option<u32>> {
    let found: BTreeSet<u32> = namespaces()
        .iter()
        .filter_map(|sockets| {
            let datagrams = sockets.iter().filter(|socket| socket.is_datagram());
            find(datagrams, address).map(|socket| socket.inode)
        })
        .collect();
    if found.len() > 1 {
        let subject = Subject::Address(address.clone().into_owned());
        let cause = format!(
            "{} other network namespaces have a socket of this name",
            found.len()
        );
        return Err(Error::system(FIND, subject, Errno::ENOTUNIQ)
            .with_cause(cause)
            .with_hint("name one as PID:FD"));
    }
    Ok(found.first().copied())
}

/// Lists the sockets of each other network namespace that a visible process is in; setns(2) needs
/// CAP_SYS_ADMIN.
fn namespaces() -> Vec<Vec<UnixSocket>> {
    let own = fs::read_link("/proc/self/ns/net").ok();
    let mut seen: BTreeSet<_> = own.into_iter().collect();
    let mut namespaces = Vec::new();
    for pid in processes() {
        let link = format!("/proc/{pid}/ns/net");
        if fs::read_link(&link).is_ok_and(|namespace| seen.insert(namespace)) {
            namespaces.extend(unix_sockets_of(Path::new(&link)));
        }
    }
    namespaces
}

/// Finds the processes that hold the socket with this inode number. Returns an error for each process that this
/// process may not trace.
pub(crate) fn holders(inode: u64) -> impl Iterator<Item = io::Result<Holder>> {
    processes().into_iter().flat_map(move |pid| {
        let descriptors = match socket_descriptors(pid) {
            Ok(descriptors) => descriptors,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return vec![Err(error)];
            }
            // It has ended.
            Err(_) => return Vec::new(),
        };
        let holders = descriptors
            .into_iter()
            .filter(|(_, socket)| u64::from(*socket) == inode);
        holders
            .map(|(number, _)| Ok(Holder { pid, number }))
            .collect()
    })
}

/// Returns the numbers of the processes in /proc.
pub(crate) fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Lists the descriptors of a process that are sockets, with their inode numbers.
pub(crate) fn socket_descriptors(pid: i32) -> io::Result<Vec<(RawFd, u32)>> {
    let mut sockets = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let inode = match socket_inode(&entry.path()) {
            Ok(Some(inode)) => inode,
            // Root may list the descriptors of a process that it may not trace, but not read the links.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            _ => continue,
        };
        if let Some(number) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        {
            sockets.push((number, inode));
        }
    }
    Ok(sockets)
}

/// Returns the inode number in a link of /proc/PID/fd to a socket: `socket:[INODE]`.
pub(crate) fn socket_inode(link: &Path) -> io::Result<Option<u32>> {
    let target = fs::read_link(link)?;
    let inode = target
        .as_os_str()
        .as_bytes()
        .strip_prefix(b"socket:[")
        .and_then(|rest| rest.strip_suffix(b"]"));
    Ok(inode
        .and_then(|inode| std::str::from_utf8(inode).ok())
        .and_then(|inode| inode.parse().ok()))
}

/// Returns the name of a process's command, of at most 15 bytes; empty if it has ended.
pub(crate) fn command(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name)).into_owned()
}
