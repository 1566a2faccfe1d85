//! Finds the file that the name of a socket leads to, for this process or for one that holds the socket.

use super::mounts::remote_devices;
use super::root::{Root, path_of};
use super::{Owner, State, pathname};
use crate::address::Address;
use crate::error::Result;
use crate::holder::{peer_of, scratch_socket};
use crate::outgoing::SocketName;
use crate::sock_diag::UnixSocket;
use crate::socket::DatagramSocket;
use crate::sys;
use crate::wait::{Deadline, Until, Wake, wait};
use nix::errno::Errno;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The socket or file that a name leads to.
pub(super) struct Place {
    /// The name, absolute if that leads to the socket.
    pub(super) address: Address<'static>,
    pub(super) state: Option<State>,
    /// The root directory below which `address` leads to the socket, if not that of this process.
    pub(super) root: Option<PathBuf>,
    /// True if it leads this process to the socket.
    pub(super) reachable: Option<bool>,
    /// The socket file, if only an owner finds it.
    file: Option<File>,
}

impl Place {
    /// Looks up `name`, which `socket` is bound to: as this process, then as the owners.
    pub(super) fn of(
        name: &Address<'static>,
        socket: &UnixSocket,
        owners: &[Owner],
        probe: Option<&Probe>,
    ) -> Self {
        let path = match name {
            Address::Unnamed => return Self::new(name.clone(), None, Some(false)),
            Address::Abstract(_) => {
                return Self::new(name.clone(), Some(State::Live), Some(true));
            }
            Address::Pathname(path) => Path::new(OsStr::from_bytes(path)),
        };
        let leads = |path: &Path| leads_to(path, socket, probe);
        let reachable = match leads(path) {
            // The kernel resolved a relative name in the working directory of the owner.
            _ if path.is_relative() => None,
            Ok(true) => return Self::new(name.clone(), Some(State::Live), Some(true)),
            Ok(false) => Some(false),
            Err(error) => (error.kind() == io::ErrorKind::NotFound).then_some(false),
        };
        for owner in owners {
            let process = PathBuf::from(format!("/proc/{}", owner.pid));
            if path.is_relative() {
                let directory = fs::read_link(process.join("cwd")).unwrap_or_default();
                let absolute = directory.join(path);
                if absolute.is_absolute() && leads(&absolute).is_ok_and(|leads| leads) {
                    return Self::new(pathname(&absolute), Some(State::Live), Some(true));
                }
            }
            // The owner may have file systems mounted that this process has not.
            let remote = remote_devices(&process);
            if socket.device.is_some_and(|device| remote.contains(&device)) {
                return Self::new(name.clone(), None, reachable);
            }
            if let Some((state, address, file)) = as_owner(&process, path, leads) {
                let address = address.filter(|_| state == State::Live);
                return Self {
                    root: address.is_some().then(|| process.join("root")),
                    file,
                    ..Self::new(
                        address.map_or_else(|| name.clone(), |path| pathname(&path)),
                        Some(state),
                        reachable,
                    )
                };
            }
        }
        Self::new(name.clone(), None, reachable)
    }

    /// Makes one whose state is not known, because nothing was looked up.
    pub(super) fn unknown(name: &Address<'static>) -> Self {
        Self::new(name.clone(), None, None)
    }

    fn new(address: Address<'static>, state: Option<State>, reachable: Option<bool>) -> Self {
        Self {
            address,
            state,
            root: None,
            reachable,
            file: None,
        }
    }

    /// Returns the address by which this process reaches the socket, if the state is [`State::Live`].
    pub(super) fn reached(&self) -> Address<'static> {
        match &self.file {
            Some(file) => pathname(&path_of(file)),
            None => self.address.clone(),
        }
    }
}

/// Looks up a path as the process whose folder in /proc is `process`. Returns the state with the path
/// below its root and the file; `None` if that cannot be found out.
fn as_owner(
    process: &Path,
    path: &Path,
    leads: impl Fn(&Path) -> io::Result<bool>,
) -> Option<(State, Option<PathBuf>, Option<File>)> {
    // The owner has ended, or this process may not trace it.
    let root = Root::open(process).ok()?;
    let absolute = root.absolute(path)?;
    let file = match root.file(&absolute) {
        Ok(file) => file,
        // The owner may have bound a relative name in another working directory.
        Err(Errno::ENOENT) if path.is_absolute() => return Some((State::Removed, None, None)),
        Err(_) => return None,
    };
    match leads(&path_of(&file)) {
        Ok(true) => Some((State::Live, Some(absolute), Some(file))),
        Ok(false) if path.is_absolute() => Some((State::Shadowed, None, None)),
        _ => None,
    }
}

/// Returns whether a path leads to the file of a socket.
fn leads_to(path: &Path, socket: &UnixSocket, probe: Option<&Probe>) -> io::Result<bool> {
    let file = fs::metadata(path)?;
    Ok(socket.has_file(&file)
        // The file system may number its files differently for stat(2).
        || probe.is_some_and(|probe| probe.reaches(&pathname(path), socket.inode)))
}

/// A scratch socket, which is connected to one socket after the other. It sends nothing.
#[derive(Debug)]
pub(super) struct Probe(DatagramSocket);

impl Probe {
    pub(super) fn new() -> Result<Self> {
        scratch_socket().map(Self)
    }

    /// Returns whether a connect(2) to the address reaches the socket with this inode number.
    fn reaches(&self, address: &Address<'_>, inode: u32) -> bool {
        self.connect(address).is_ok() && peer_of(&self.0) == Ok(Some(inode))
    }

    /// Returns whether a sender finds no space in the queue: a socket that is connected to it is not writable.
    pub(super) fn is_full(&self, address: &Address<'_>) -> Option<bool> {
        self.connect(address).ok()?;
        let now = Deadline::after(Some(Duration::ZERO));
        let writable = wait(&self.0, Until::Writable, now, &Wake::default()).ok()?;
        Some(writable.is_none())
    }

    /// Connects without finding out what an error is about, which costs a list of all sockets.
    fn connect(&self, address: &Address<'_>) -> Result<(), Errno> {
        sys::connect(self.0.as_fd(), &SocketName::of(address)?.raw)
    }
}
