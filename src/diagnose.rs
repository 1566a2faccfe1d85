//! Finds out why a peer cannot be reached: examines its file and the kernel's list of sockets.

use crate::address::Address;
use crate::error::{Error, ErrorKind, Subject};
use crate::quoted::Quoted;
use crate::sock_diag::{self, UnixSocket, unix_sockets};
use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::SFlag;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Makes the error of a connect(2) or a sendmsg(2) to `peer`: distinguishes a peer that does not exist
/// from one that refuses, and adds a hint.
pub(crate) fn peer_error(operation: &'static str, peer: &Address<'_>, errno: Errno) -> Error {
    let error = Error::system(
        operation,
        Subject::Address(peer.clone().into_owned()),
        errno,
    );
    let error = match errno {
        Errno::ENOENT => error.with_kind(ErrorKind::NobodyThere),
        Errno::EPIPE => error
            .with_kind(ErrorKind::NobodyThere)
            .with_cause("the receiver has shut down its reading side"),
        Errno::ECONNREFUSED => match not_a_datagram_socket(peer) {
            Some(cause) => error.with_cause(cause),
            None => error.with_kind(ErrorKind::NobodyThere),
        },
        // The kernel sets this error when the peer connects elsewhere (`unix_dgram_disconnected`).
        Errno::ECONNRESET => {
            error.with_cause("the peer has connected elsewhere, and its queued datagrams are lost")
        }
        _ => error,
    };
    match peer_hint(peer, errno, error.kind()) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Makes the error of a peer that has closed its socket. The kernel has disconnected this socket when it
/// noticed that, so system calls return ENOTCONN instead of a cause.
pub(crate) fn peer_lost(operation: &'static str, peer: &Address<'_>) -> Error {
    let subject = Subject::Address(peer.clone().into_owned());
    Error::new(
        ErrorKind::NobodyThere,
        operation,
        subject,
        "the peer has closed its socket",
    )
}

/// Returns whether /proc is mounted.
pub(crate) fn has_proc() -> bool {
    std::fs::metadata("/proc/self/fd").is_ok()
}

/// Makes the error of a path that is longer than `sun_path` and was not found (ENOENT): the cause may be
/// that /proc is not mounted.
pub(crate) fn proc_missing(operation: &'static str, peer: &Address<'_>) -> Error {
    if has_proc() {
        return peer_error(operation, peer, Errno::ENOENT);
    }
    let subject = Subject::Address(peer.clone().into_owned());
    Error::system(operation, subject, Errno::ENAMETOOLONG)
        .with_cause("a path of more than 107 bytes is reached through /proc, which is not mounted")
}

/// Returns the type of the file at `path` in words, following symbolic links.
pub(crate) fn file_kind(path: &Path) -> Option<&'static str> {
    let mode = std::fs::metadata(path).ok()?.mode();
    Some(file_type(mode))
}

/// Returns the type of a file with this `st_mode` in words.
pub(crate) fn file_type(mode: u32) -> &'static str {
    match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
        SFlag::S_IFSOCK => "socket",
        SFlag::S_IFLNK => "symbolic link",
        SFlag::S_IFDIR => "directory",
        SFlag::S_IFIFO => "FIFO",
        SFlag::S_IFREG => "regular file",
        _ => "device",
    }
}

/// Returns the cause of ECONNREFUSED if `peer` is not a Unix datagram socket.
fn not_a_datagram_socket(peer: &Address<'_>) -> Option<String> {
    if let Some(path) = peer.as_path() {
        let kind = file_kind(path).filter(|kind| *kind != "socket")?;
        return Some(format!("it is a {kind}, not a socket"));
    }
    // The kernel finds an abstract name only among sockets of the same type (`unix_find_abstract`).
    let kind = type_name(find(peer, |socket| !socket.is_datagram())?.kind);
    Some(format!("it is a {kind} socket, not a datagram socket"))
}

/// Says of which type the socket with this name is, to which connect(2) has failed with EPROTOTYPE.
pub(crate) fn other_socket_type(name: &Address<'_>) -> String {
    let kind = find(name, |_| true).map_or("stream or seqpacket", |socket| type_name(socket.kind));
    format!("it is a {kind} socket, not a datagram socket")
}

/// Returns a hint on why `peer` cannot be reached.
fn peer_hint(peer: &Address<'_>, errno: Errno, kind: ErrorKind) -> Option<String> {
    Some(match (errno, peer) {
        (Errno::ECONNREFUSED, Address::Pathname(path)) if kind == ErrorKind::NobodyThere => {
            // No hint if the file does not exist: a connected peer may have removed it and exited.
            std::fs::symlink_metadata(OsStr::from_bytes(path)).ok()?;
            "a stale socket file, or a bind mount of an old one: no socket is bound to it"
                .to_owned()
        }
        (Errno::ECONNREFUSED, Address::Abstract(name)) if kind == ErrorKind::NobodyThere => {
            padded_twin(name).unwrap_or_else(|| {
                "no datagram socket has this abstract name in this network namespace".to_owned()
            })
        }
        (Errno::EPROTOTYPE, _) => other_socket_type(peer),
        (Errno::EACCES, Address::Pathname(path)) => denied(Path::new(OsStr::from_bytes(path)))?,
        (Errno::EPERM, _) => match find(peer, UnixSocket::is_datagram) {
            Some(UnixSocket { peer: Some(_), .. }) => {
                "that socket is connected to another peer and takes datagrams from it alone"
                    .to_owned()
            }
            _ => "a sandbox or a security module may forbid it".to_owned(),
        },
        (Errno::ENOBUFS | Errno::ENOMEM, _) => {
            "the kernel has no memory for a datagram of this size".to_owned()
        }
        _ => return None,
    })
}

/// Returns the name of a socket type.
fn type_name(kind: libc::c_int) -> &'static str {
    match kind {
        libc::SOCK_STREAM => "stream",
        libc::SOCK_SEQPACKET => "seqpacket",
        _ => "datagram",
    }
}

/// Finds a socket that is bound to `address` in this network namespace and that `fits` accepts.
fn find(address: &Address<'_>, fits: impl Fn(&UnixSocket) -> bool) -> Option<UnixSocket> {
    let mut sockets = unix_sockets().ok()?;
    sockets.retain(fits);
    sock_diag::find(sockets.iter(), address).cloned()
}

/// Returns a hint if a socket is bound to the same abstract name, padded with NULs to 108 bytes: a program
/// that passes `sizeof(struct sockaddr_un)` to bind(2) binds that one.
fn padded_twin(name: &[u8]) -> Option<String> {
    let mut padded = name.to_vec();
    padded.resize(107, 0);
    let twin = Address::Abstract(padded.into());
    if name.len() >= 107 || find(&twin, |_| true).is_none() {
        return None;
    }
    Some(format!(
        "that name padded with NULs to 108 bytes is bound: {}",
        twin.quoted()
    ))
}

/// Returns the first part of `path` for which this process lacks a permission, with its mode and owner.
fn denied(path: &Path) -> Option<String> {
    let mut parts: Vec<&Path> = path
        .ancestors()
        .filter(|part| !part.as_os_str().is_empty())
        .collect();
    parts.reverse();
    for part in parts {
        let metadata = std::fs::metadata(part).ok()?;
        let (need, why) = if metadata.is_dir() && part != path {
            (nix::unistd::AccessFlags::X_OK, "it must be searchable")
        } else {
            (
                nix::unistd::AccessFlags::W_OK,
                "sending needs write permission",
            )
        };
        if nix::unistd::eaccess(part, need).is_err() {
            return Some(format!(
                "{} has mode {:04o} and belongs to {}:{}; {why}",
                Quoted(part.as_os_str()),
                metadata.mode() & 0o7777,
                metadata.uid(),
                metadata.gid(),
            ));
        }
    }
    None
}
