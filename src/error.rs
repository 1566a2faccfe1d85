//! The one error type: what was attempted, on what, and why it failed. All wording is here.

use crate::address::Address;
use nix::errno::Errno;
use std::ffi::OsStr;
use std::fmt;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure an [`Error`] is; enough to choose an exit status or to decide on a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The system refused, with this `errno`.
    System(Errno),
    /// Nobody is at the address: no such socket, or a socket file with nobody behind it.
    NobodyThere,
    /// What was given cannot be used: not a socket, not `AF_UNIX`, not connected, too long a name.
    Unusable,
    /// Bytes that are no valid packet.
    Parse,
    /// The deadline passed.
    TimedOut,
    /// The stop descriptor of the wait became readable ([`Wake::stop`](crate::wait::Wake)).
    Stopped,
    /// The reader of the output is gone ([`Wake::output`](crate::wait::Wake)).
    OutputGone,
    /// The client was closed.
    Closed,
}

/// What an operation was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Nothing worth naming.
    None,
    /// A socket address.
    Address(Address<'static>),
    /// A file.
    File(PathBuf),
    /// A descriptor number, of this process or of the process named.
    Descriptor {
        /// The process that has it; `None`: this one.
        pid: Option<i32>,
        /// Its number there.
        number: RawFd,
    },
    /// A socket option, by name.
    Option(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Address(address) => write!(f, " {}", address.quoted()),
            Self::File(path) => write!(f, " {}", Quoted(path.as_os_str())),
            Self::Descriptor { pid: None, number } => write!(f, " descriptor {number}"),
            Self::Descriptor {
                pid: Some(pid),
                number,
            } => {
                write!(f, " descriptor {number} of process {pid}")
            }
            Self::Option(name) => write!(f, " {name}"),
        }
    }
}

/// Text from outside, for a message: in single quotes, control characters and bytes that are no
/// UTF-8 escaped, so that a message stays one line whatever it names.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a OsStr);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("'")?;
        for chunk in self.0.as_bytes().utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_str("'")
    }
}

/// A failed operation: what was attempted, on what, and the cause.
///
/// `Display` gives one line, `cannot send to '/run/app.sock': Connection refused`, with the cause
/// last; [`hint`](Self::hint) says what to do about it, where that is known.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    subject: Subject,
    cause: String,
    hint: Option<String>,
    errno: Option<Errno>,
}

impl Error {
    /// An error of the given kind with its cause in words. `operation` completes "cannot …".
    pub fn new(
        kind: ErrorKind,
        operation: &'static str,
        subject: Subject,
        cause: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            operation,
            subject,
            cause: cause.into(),
            hint: None,
            errno: match kind {
                ErrorKind::System(errno) => Some(errno),
                _ => None,
            },
        }
    }

    /// A system call refused.
    #[must_use]
    pub fn system(operation: &'static str, subject: Subject, errno: Errno) -> Self {
        Self::new(
            ErrorKind::System(errno),
            operation,
            subject,
            describe(errno),
        )
    }

    /// Connecting or sending to `peer` failed: tells a peer that is not there from one that
    /// refuses, and finds the hint.
    #[must_use]
    pub fn peer(operation: &'static str, peer: &Address<'_>, errno: Errno) -> Self {
        let mut error = Self::system(
            operation,
            Subject::Address(peer.clone().into_owned()),
            errno,
        );
        match errno {
            Errno::ENOENT | Errno::EPIPE => error.kind = ErrorKind::NobodyThere,
            Errno::ECONNREFUSED => {
                // The kernel looks for an abstract name among datagram sockets only.
                let other = match peer {
                    Address::Abstract(_) => bound_type(peer).map(|kind| {
                        format!("it is a {kind} socket, udgram speaks to datagram sockets")
                    }),
                    _ => (peer.as_path().and_then(file_kind))
                        .filter(|kind| *kind != "socket")
                        .map(|kind| format!("it is a {kind}, not a socket")),
                };
                match other {
                    Some(cause) => error.cause = cause,
                    None => error.kind = ErrorKind::NobodyThere,
                }
            }
            _ => {}
        }
        if errno == Errno::EPIPE {
            "the receiver has shut down its reading side".clone_into(&mut error.cause);
        }
        error.hint = peer_hint(peer, errno, error.kind);
        error
    }

    /// The same error with a hint: what the user can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The `errno` behind it, where a system call refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }

    /// The same failure where it was about `peer`, but was told of another address, or of none:
    /// the kernel forgets a connected peer that it finds gone.
    #[must_use]
    pub fn about(self, peer: &Address<'_>) -> Self {
        match self.errno {
            Some(errno) if self.kind == ErrorKind::NobodyThere => {
                Self::peer(self.operation, peer, errno)
            }
            _ => self,
        }
    }

    /// Why it failed, without what was attempted.
    #[must_use]
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// What can be done about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot {}{}: {}",
            self.operation, self.subject, self.cause
        )
    }
}

impl std::error::Error for Error {}

/// strerror(3)'s text, without the name and number that `Display` of [`Errno`] puts before it.
#[must_use]
pub fn describe(errno: Errno) -> &'static str {
    // glibc's own words, which every other tool prints.
    match errno {
        Errno::ECONNREFUSED => "Connection refused",
        Errno::EACCES => "Permission denied",
        Errno::EPERM => "Operation not permitted",
        Errno::EMSGSIZE => "Message too long",
        Errno::EPROTOTYPE => "Protocol wrong type for socket",
        Errno::EADDRINUSE => "Address already in use",
        Errno::ENOPROTOOPT => "Protocol not available",
        errno => errno.desc(),
    }
}

/// The kind of file at `path` in words, symbolic links followed; `None` if it cannot be told.
pub(crate) fn file_kind(path: &Path) -> Option<&'static str> {
    let kind = std::fs::metadata(path).ok()?.file_type();
    Some(if kind.is_socket() {
        "socket"
    } else if kind.is_dir() {
        "directory"
    } else if kind.is_fifo() {
        "FIFO"
    } else if kind.is_block_device() || kind.is_char_device() {
        "device"
    } else {
        "regular file"
    })
}

fn peer_hint(peer: &Address<'_>, errno: Errno, kind: ErrorKind) -> Option<String> {
    Some(match (errno, peer) {
        (Errno::ECONNREFUSED, Address::Pathname(_)) if kind == ErrorKind::NobodyThere => {
            "a stale socket file, or a bind mount of an old one: nobody is bound to it".to_owned()
        }
        (Errno::ECONNREFUSED, Address::Abstract(name)) if kind == ErrorKind::NobodyThere => {
            padded_twin(name).unwrap_or_else(|| {
                "nobody is bound to this abstract name in this network namespace".to_owned()
            })
        }
        (Errno::EPROTOTYPE, _) => match bound_type(peer) {
            Some(kind) => format!("it is a {kind} socket, udgram speaks to datagram sockets"),
            None => {
                "it is a stream or seqpacket socket, udgram speaks to datagram sockets".to_owned()
            }
        },
        (Errno::EACCES, Address::Pathname(path)) => denied(Path::new(OsStr::from_bytes(path)))?,
        (Errno::EPERM, _) => {
            "that socket is connected to another peer and takes datagrams from it alone".to_owned()
        }
        (Errno::ENOBUFS | Errno::ENOMEM, _) => {
            "the kernel has no memory for a datagram of this size".to_owned()
        }
        _ => return None,
    })
}

/// Which part of `path` this process may not pass, and its mode and owner.
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

/// The named rows of /proc/net/unix: each socket's type number and its name as that file has it.
fn bound_sockets(table: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    table
        .split(|&byte| byte == b'\n')
        .skip(1)
        .filter_map(|row| {
            // "address: RefCount Protocol Flags Type St Inode Path", all but the first and the last
            // two of fixed width.
            let row = &row[memchr::memchr(b':', row)? + 2..];
            let inode = row.get(35..)?.trim_ascii_start();
            let name = &inode[memchr::memchr(b' ', inode)? + 1..];
            Some((row.get(27..31)?, name))
        })
}

fn bound_type(peer: &Address<'_>) -> Option<&'static str> {
    let table = std::fs::read("/proc/net/unix").ok()?;
    let wanted: Vec<u8> = match peer {
        Address::Pathname(path) => path.to_vec(),
        Address::Abstract(name) => [b"@", name.as_ref()].concat(),
        Address::Unnamed => return None,
    };
    let kind = bound_sockets(&table).find(|(_, name)| *name == wanted)?.0;
    match kind {
        b"0001" => Some("stream"),
        b"0005" => Some("seqpacket"),
        _ => None,
    }
}

/// A socket bound to the same abstract name padded with NULs to the full 108 bytes, as programs
/// do that pass `sizeof(struct sockaddr_un)` to bind(2).
fn padded_twin(name: &[u8]) -> Option<String> {
    let table = std::fs::read("/proc/net/unix").ok()?;
    let mut padded = vec![b'@'];
    padded.extend_from_slice(name);
    // The file prints a NUL as '@'.
    padded.resize(108, b'@');
    if name.len() >= 107 || !bound_sockets(&table).any(|(_, bound)| bound == padded) {
        return None;
    }
    let mut full = name.to_vec();
    full.resize(107, 0);
    let twin = Address::Abstract(full.into());
    Some(format!(
        "that name padded with NULs to 108 bytes is bound: {}",
        twin.quoted()
    ))
}
