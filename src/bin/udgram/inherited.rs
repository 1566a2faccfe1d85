//! A socket that is open already: a descriptor of this process or of another one, the socket that is
//! bound to an address, or what the environment passes.

use crate::cli::value::{Descriptor, OpenSocket, parse_peer};
use crate::exit::Failure;
use crate::process::require_open_at_start;
use crate::report::Report;
use anyhow::{Context, Result};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::fs::MetadataExt;
use udgram::inventory::{Inventory, State};
use udgram::{Address, DatagramSocket, Destination, Holder, Quoted, duplicate, metadata};

/// The variable in which `udgram exec` passes the address of the peer that the socket in `UDGRAM_SOCKET_FD` was
/// connected to.
pub(crate) const PEER_VARIABLE: &str = "UDGRAM_PEER";
/// The variable in which it passes the inode number of that socket. A descriptor's number alone does not say which
/// socket it is: CMD may have closed it and opened another.
pub(crate) const INODE_VARIABLE: &str = "UDGRAM_SOCKET_INODE";

/// A socket that is open already.
#[derive(Debug, Clone)]
pub(crate) struct InheritedSocket {
    socket: OpenSocket,
    /// The peer that `udgram exec` connected it to.
    peer: Option<Address<'static>>,
    /// The number of sockets that socket activation passed; only this one is used.
    passed: usize,
}

impl InheritedSocket {
    /// Returns the socket of `--socket-fd`.
    pub(crate) fn named(socket: &OpenSocket) -> Result<Self> {
        let session = match socket {
            OpenSocket::Descriptor(Descriptor { pid: None, number }) => {
                self::number("UDGRAM_SOCKET_FD")? == Some(*number) && is_session_socket(*number)
            }
            _ => false,
        };
        Ok(Self {
            socket: socket.clone(),
            peer: if session { session_peer()? } else { None },
            passed: 1,
        })
    }

    /// Returns the socket that is bound to `address`.
    pub(crate) fn bound(address: &Address<'static>) -> Self {
        Self {
            socket: OpenSocket::Bound(address.clone()),
            peer: None,
            passed: 1,
        }
    }

    /// Returns the socket that PEER `-` asks for.
    pub(crate) fn as_peer() -> Result<Self> {
        Self::from_environment()?.ok_or_else(|| {
            Failure::usage(
                "PEER '-' is the inherited socket, and neither UDGRAM_SOCKET_FD nor socket activation passes one",
            )
        })
    }

    /// Returns the socket that the environment passes: that of `udgram exec`, or else the first Unix
    /// datagram socket of socket activation (sd_listen_fds(3)).
    pub(crate) fn from_environment() -> Result<Option<Self>> {
        if let Some(number) = number("UDGRAM_SOCKET_FD")? {
            let descriptor = Descriptor { pid: None, number };
            return Self::named(&OpenSocket::Descriptor(descriptor)).map(Some);
        }
        let own = i32::try_from(std::process::id()).ok();
        let activated = std::env::var_os("LISTEN_PID").is_some() && number("LISTEN_PID")? == own;
        if !activated {
            // The variables are for another process.
            return Ok(None);
        }
        let count = match number("LISTEN_FDS")? {
            Some(count) if count > 0 => count,
            _ => return Ok(None),
        };
        let open = |number: &i32| duplicate(None, *number).is_ok();
        let usable = |number: &i32| DatagramSocket::from_number(None, *number).is_ok();
        // The descriptors that are passed are consecutive. If none is usable, the error says what the
        // first one is.
        let mut passed = (3..3_i32.saturating_add(count)).take_while(open);
        let number = passed.find(usable).unwrap_or(3);
        Ok(Some(Self {
            socket: OpenSocket::Descriptor(Descriptor { pid: None, number }),
            peer: None,
            passed: usize::try_from(count).unwrap_or(1),
        }))
    }

    /// Copies the socket.
    pub(crate) fn open(&self, report: Report) -> Result<OpenedCopy> {
        let Descriptor { pid, number } = match &self.socket {
            OpenSocket::Descriptor(descriptor) => *descriptor,
            OpenSocket::Bound(address) => return open_bound(address, report),
        };
        require_open_at_start(pid, number)?;
        let socket = DatagramSocket::from_number(pid, number)?;
        if self.passed > 1 {
            report.warning(format_args!(
                "LISTEN_FDS passes {} sockets; only descriptor {number} is used",
                self.passed
            ));
        }
        Ok(OpenedCopy { socket, of: pid })
    }

    /// Returns the peer that `udgram exec` connected the socket to.
    pub(crate) fn session_peer(&self) -> Option<&Address<'static>> {
        self.peer.as_ref()
    }

    /// Returns the peer of the socket, of which process `of` has a copy: the one that `udgram exec`
    /// connected it to, or the one that the kernel names.
    pub(crate) fn destination(
        &self,
        socket: &DatagramSocket,
        of: Option<i32>,
    ) -> Result<Option<Destination>> {
        let name = socket.peer_name()?;
        Ok(match (&self.peer, name) {
            (Some(peer), Some(name)) => Some(Destination::connected_as(peer, name)),
            // The kernel has found the peer's socket closed, and disconnected this one.
            (Some(peer), None) => Some(Destination::connected(peer)),
            (None, name) if of.is_some() => name.map(Destination::found_elsewhere),
            (None, name) => name.map(Destination::found),
        })
    }
}

/// A copy of a socket.
pub(crate) struct OpenedCopy {
    pub(crate) socket: DatagramSocket,
    /// The other process that holds it.
    pub(crate) of: Option<i32>,
}

/// Copies the socket that is bound to `address` from a process that holds it.
fn open_bound(address: &Address<'_>, report: Report) -> Result<OpenedCopy> {
    let (socket, holder) = Holder::copy_bound(address)?;
    if report.is_verbose() {
        let shown = address.quoted();
        report.note(format_args!(
            "{shown} is descriptor {} of {holder}",
            holder.number
        ));
        match shadowed(address) {
            0 => {}
            1 => report.note(format_args!("another socket had the name {shown} before")),
            count => report.note(format_args!(
                "{count} other sockets had the name {shown} before"
            )),
        }
    }
    let own = i32::try_from(std::process::id()).ok();
    Ok(OpenedCopy {
        socket,
        of: Some(holder.pid).filter(|pid| Some(*pid) != own),
    })
}

/// Counts the sockets that are bound to `address` and that it does not lead to any more.
fn shadowed(address: &Address<'_>) -> usize {
    let entries = Inventory::read().and_then(|mut inventory| inventory.at(address));
    let entries = entries.unwrap_or_default();
    let shadowed = entries
        .iter()
        .filter(|entry| entry.state == Some(State::Shadowed));
    shadowed.count()
}

/// Returns the number in a variable of the environment.
fn number(name: &str) -> Result<Option<i32>> {
    let Some(value) = std::env::var_os(name) else {
        return Ok(None);
    };
    let number = value
        .to_str()
        .and_then(|value| value.parse().ok())
        .filter(|number| *number >= 0);
    number
        .map(Some)
        .ok_or_else(|| Failure::usage(format!("{name} is not a number: {}", Quoted(&value))))
}

/// Returns whether a descriptor is the socket that `udgram exec` connected to its peer.
fn is_session_socket(number: RawFd) -> bool {
    let inode = duplicate(None, number).ok().and_then(|fd| inode(fd).ok());
    let written = std::env::var(INODE_VARIABLE).ok();
    written.is_some_and(|written| inode.is_some_and(|inode| written == inode.to_string()))
}

/// Returns the inode number of a socket, which no other socket has.
pub(crate) fn inode(socket: impl AsFd) -> Result<u64> {
    let metadata = metadata(socket).context("cannot look at the socket")?;
    Ok(metadata.ino())
}

/// Returns the peer in the environment. A relative pathname names none: it depends on the directory.
fn session_peer() -> Result<Option<Address<'static>>> {
    let Some(written) = std::env::var_os(PEER_VARIABLE) else {
        return Ok(None);
    };
    let peer = parse_peer(&written)
        .map_err(|cause| Failure::usage(format!("{PEER_VARIABLE}: {cause}")))?;
    let relative = matches!(&peer, Address::Pathname(path) if !path.starts_with(b"/"));
    Ok((!relative).then_some(peer))
}
