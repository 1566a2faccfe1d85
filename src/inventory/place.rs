//! Finds the file that the name of a socket leads to, for this process or for one that holds the socket.

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
use std::fs;
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
    /// True if it leads this process to the socket.
    pub(super) reachable: Option<bool>,
    /// The name by which this process reaches the socket, if it does.
    pub(super) reached: Address<'static>,
}

impl Place {
    /// Looks where `name` leads, which `socket` is bound to.
    pub(super) fn of(
        name: &Address<'static>,
        socket: &UnixSocket,
        owners: &[Owner],
        probe: Option<&Probe>,
    ) -> Self {
        let place = |state, reachable| Self {
            address: name.clone(),
            state,
            reachable,
            reached: name.clone(),
        };
        let path = match name {
            Address::Unnamed => return place(None, Some(false)),
            Address::Abstract(_) => return place(Some(State::Live), Some(true)),
            Address::Pathname(path) => Path::new(OsStr::from_bytes(path)),
        };
        let leads = |path: &Path| leads_to(path, socket, probe);
        let reachable = match leads(path) {
            // A relative name is one of the owner's.
            _ if path.is_relative() => None,
            Ok(true) => return place(Some(State::Live), Some(true)),
            Ok(false) => Some(false),
            Err(error) => (error.kind() == io::ErrorKind::NotFound).then_some(false),
        };
        for owner in owners {
            let process = format!("/proc/{}", owner.pid);
            let base = Path::new(&process).join(if path.is_absolute() { "root" } else { "cwd" });
            let theirs = base.join(path.strip_prefix("/").unwrap_or(path));
            let state = match leads(&theirs) {
                Ok(true) => State::Live,
                // The owner may have bound a relative name in another working directory.
                Ok(false) if path.is_relative() => continue,
                Ok(false) => State::Shadowed,
                // The owner may have ended, or may not be seen.
                Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_absolute() => {
                    match fs::metadata(&base) {
                        Ok(_) => State::Removed,
                        Err(_) => continue,
                    }
                }
                Err(_) => continue,
            };
            let absolute = absolute(path, &base);
            let absolute = absolute.filter(|path| leads(path).is_ok_and(|leads| leads));
            return Self {
                state: Some(state),
                reachable: absolute.as_ref().map_or(reachable, |_| Some(true)),
                reached: pathname(&theirs),
                address: absolute.map_or_else(|| name.clone(), |path| pathname(&path)),
            };
        }
        place(None, reachable)
    }
}

/// Returns the absolute form of a relative path, by the working directory that the link `base` is.
fn absolute(path: &Path, base: &Path) -> Option<PathBuf> {
    let directory = fs::read_link(base).ok().filter(|_| path.is_relative())?;
    Some(directory.join(path))
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

    /// Returns whether a sender finds no room: a socket that is connected to it is not writable.
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
