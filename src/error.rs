//! The one error type: the operation that failed, its subject, and the cause.

use crate::address::Address;
use crate::quoted::Quoted;
use nix::errno::Errno;
use std::borrow::Cow;
use std::fmt;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an [`Error`]: enough to choose an exit status or to decide on a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The system refused, with this `errno`.
    System(Errno),
    /// There is no peer: no such socket, or a socket file that no socket is bound to.
    NobodyThere,
    /// A live socket has the pathname to bind, or one that may not be tested.
    /// [`Occupied::Replace`](crate::Occupied::Replace) takes the name from it.
    InUse,
    /// The argument cannot be used: not a socket, not `AF_UNIX`, not connected, too long a name.
    Unusable,
    /// The bytes are not a valid packet.
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

/// The object of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// Nothing worth naming.
    None,
    /// A socket address.
    Address(Address<'static>),
    /// A file.
    File(PathBuf),
    /// A descriptor number, of this process or of another one.
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

/// A failed operation: what was attempted, on what, and the cause.
///
/// `Display` gives one line, `cannot send to '/run/app.sock': Connection refused`, with the cause
/// last; [`hint`](Self::hint) says what may help, where that is known.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    subject: Subject,
    cause: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    errno: Option<Errno>,
}

impl Error {
    /// Makes an error of this kind, with its cause in words. `operation` completes "cannot …".
    pub fn new(
        kind: ErrorKind,
        operation: &'static str,
        subject: Subject,
        cause: impl Into<Cow<'static, str>>,
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

    /// Makes the error of a system call that failed with `errno`.
    #[must_use]
    pub fn system(operation: &'static str, subject: Subject, errno: Errno) -> Self {
        Self::new(
            ErrorKind::System(errno),
            operation,
            subject,
            describe(errno),
        )
    }

    /// Returns the same error as one of a peer that is not there; its `errno` stays.
    #[must_use]
    pub(crate) fn nobody_there(mut self) -> Self {
        self.kind = ErrorKind::NobodyThere;
        self
    }

    /// Returns the same error as one that [`Occupied::Replace`](crate::Occupied::Replace) overcomes; its
    /// `errno` stays.
    #[must_use]
    pub(crate) fn replaceable(mut self) -> Self {
        self.kind = ErrorKind::InUse;
        self
    }

    /// Returns the same error with another cause.
    #[must_use]
    pub(crate) fn with_cause(mut self, cause: impl Into<Cow<'static, str>>) -> Self {
        self.cause = cause.into();
        self
    }

    /// Returns the same error with a hint: what may help.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the `errno` of the system call that refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }

    /// Returns why it failed, without the operation and its subject.
    #[must_use]
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// Returns what may help, where that is known.
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

/// Returns the text of strerror(3) in glibc's words, without the name and number that `Display` of
/// [`Errno`] puts before it.
#[must_use]
pub fn describe(errno: Errno) -> &'static str {
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
