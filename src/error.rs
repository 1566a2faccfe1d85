//! The one error type: the operation that failed, its subject, and the cause.

use crate::address::{Address, AddressError};
use crate::quoted::Quoted;
use nix::errno::Errno;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an [`Error`]: enough to choose an exit status or to decide on a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The system refused; [`Error::raw_os_error`] has the reason.
    System,
    /// There is no peer: no such socket, a socket file that no socket is bound to, or a peer that has
    /// closed its socket.
    NobodyThere,
    /// A live socket has the pathname to bind, or one that may not be tested.
    /// [`Occupied::Replace`](crate::Occupied::Replace) takes the name from it.
    InUse,
    /// The argument cannot be used: not a socket, not `AF_UNIX`, not connected, too long a name.
    Unusable,
    /// The bytes are not a valid packet.
    Parse,
    /// The datagram is longer than the socket or the kernel carries.
    TooLong,
    /// The deadline passed.
    TimedOut,
    /// The stop descriptor of the wait became readable ([`Wake::stop`](crate::wait::Wake)).
    Stopped,
    /// The reader of the output is gone ([`Wake::output`](crate::wait::Wake)).
    OutputGone,
    /// The client or endpoint was closed.
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

/// A failed operation: the operation, its subject, and the cause.
///
/// `Display` shows one line, `cannot send to '/run/app.sock': Connection refused`, with the cause
/// last; [`hint`](Self::hint) returns what may help. It converts into [`std::io::Error`], which keeps
/// it as its inner error.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    errno: Option<Errno>,
    operation: &'static str,
    cause: Cause,
    /// Rare parts, so that an error stays small.
    details: Option<Box<Details>>,
}

#[derive(Debug, Clone)]
struct Details {
    subject: Subject,
    hint: Option<Cow<'static, str>>,
}

#[derive(Debug, Clone)]
enum Cause {
    Static(&'static str),
    Text(Box<str>),
    QueueFull { after: Duration },
    SendBufferFull { after: Duration },
    TooManyInFlight { after: Duration },
}

impl From<Cow<'static, str>> for Cause {
    fn from(text: Cow<'static, str>) -> Self {
        match text {
            Cow::Borrowed(text) => Self::Static(text),
            Cow::Owned(text) => Self::Text(text.into()),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(text) => f.write_str(text),
            Self::Text(text) => f.write_str(text),
            Self::QueueFull { after } if *after > Duration::ZERO => {
                write!(f, "its queue is still full after {after:?}")
            }
            Self::SendBufferFull { after } if *after > Duration::ZERO => {
                write!(
                    f,
                    "the send buffer of this socket is still full after {after:?}"
                )
            }
            Self::TooManyInFlight { after } if *after > Duration::ZERO => {
                write!(
                    f,
                    "too many descriptors are still in flight after {after:?}"
                )
            }
            Self::QueueFull { .. } | Self::SendBufferFull { .. } | Self::TooManyInFlight { .. } => {
                f.write_str(self.text())
            }
        }
    }
}

impl Cause {
    fn text(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Text(text) => text,
            Self::QueueFull { .. } => "its queue is full",
            Self::SendBufferFull { .. } => "the send buffer of this socket is full",
            Self::TooManyInFlight { .. } => "too many descriptors are in flight",
        }
    }
}

impl Error {
    fn from_parts(
        kind: ErrorKind,
        operation: &'static str,
        subject: Subject,
        cause: Cause,
    ) -> Self {
        let details = (subject != Subject::None).then(|| {
            Box::new(Details {
                subject,
                hint: None,
            })
        });
        Self {
            kind,
            errno: None,
            operation,
            cause,
            details,
        }
    }

    /// Makes an error of this kind, with its cause in words. `operation` completes "cannot …".
    pub fn new(
        kind: ErrorKind,
        operation: &'static str,
        subject: Subject,
        cause: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::from_parts(kind, operation, subject, cause.into().into())
    }

    /// Makes the error of a system call that failed with `errno`.
    #[must_use]
    pub fn from_raw_os_error(operation: &'static str, subject: Subject, errno: i32) -> Self {
        Self::system(operation, subject, Errno::from_raw(errno))
    }

    pub(crate) fn system(operation: &'static str, subject: Subject, errno: Errno) -> Self {
        let cause = Cause::Static(describe(errno));
        Self {
            errno: Some(errno),
            ..Self::from_parts(ErrorKind::System, operation, subject, cause)
        }
    }

    /// Makes the error of a queue that had no room within `timeout`.
    pub(crate) fn queue_full(to: Address<'static>, timeout: Option<Duration>) -> Self {
        let after = timeout.unwrap_or_default();
        let cause = Cause::QueueFull { after };
        Self::from_parts(ErrorKind::TimedOut, "send to", Subject::Address(to), cause)
    }

    /// Makes the error of a send buffer that had no room within `timeout`.
    pub(crate) fn send_buffer_full(to: Address<'static>, timeout: Option<Duration>) -> Self {
        let after = timeout.unwrap_or_default();
        let cause = Cause::SendBufferFull { after };
        Self::from_parts(ErrorKind::TimedOut, "send to", Subject::Address(to), cause)
    }

    /// Makes the error of too many descriptors in flight (ETOOMANYREFS) for longer than `timeout`.
    pub(crate) fn too_many_in_flight(to: Address<'static>, timeout: Option<Duration>) -> Self {
        let after = timeout.unwrap_or_default();
        let cause = Cause::TooManyInFlight { after };
        Self::from_parts(ErrorKind::TimedOut, "send to", Subject::Address(to), cause)
    }

    /// Returns the same error with another kind; its `errno` stays.
    #[must_use]
    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
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
        self.cause = cause.into().into();
        self
    }

    /// Returns the same error with a hint: what may help.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        let details = self.details.get_or_insert_with(|| {
            Box::new(Details {
                subject: Subject::None,
                hint: None,
            })
        });
        details.hint = Some(hint.into());
        self
    }

    /// Returns the same error with the hint that its system call came with Linux `since`, if the kernel does
    /// not have it (ENOSYS).
    #[must_use]
    pub fn of_call(self, call: &str, since: &str) -> Self {
        if self.errno != Some(Errno::ENOSYS) {
            return self;
        }
        self.with_hint(format!(
            "{call}(2) came with Linux {since}; a sandbox may forbid it"
        ))
    }

    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the `errno` of the system call that failed; `None` if no system call did.
    #[must_use]
    #[doc(alias = "errno")]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.errno.map(|errno| errno as i32)
    }

    pub(crate) fn errno(&self) -> Option<Errno> {
        self.errno
    }

    /// Returns the object of the operation; [`Subject::None`] if it has none.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        match &self.details {
            Some(details) => &details.subject,
            None => &Subject::None,
        }
    }

    /// Returns the cause, without the operation and its subject.
    #[must_use]
    pub fn cause(&self) -> &str {
        self.cause.text()
    }

    /// Returns what may help, if that is known. It is a guess.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        let hint = self
            .details
            .as_ref()
            .and_then(|details| details.hint.as_deref());
        hint.or(match self.cause {
            Cause::QueueFull { .. } => Some(
                "the receiver is not reading; net.unix.max_dgram_qlen, as it was when the receiver made its socket, limits its queue",
            ),
            Cause::SendBufferFull { .. } => Some(
                "the receiver has not read what this socket has sent; SO_SNDBUF limits the memory of that",
            ),
            Cause::TooManyInFlight { .. } => Some(
                "a user's descriptors that are sent and not yet received are limited by RLIMIT_NOFILE (ulimit -n)",
            ),
            _ => None,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operation, subject, cause) = (self.operation, self.subject(), &self.cause);
        write!(f, "cannot {operation}{subject}: {cause}")
    }
}

impl std::error::Error for Error {}

impl From<AddressError> for Error {
    fn from(error: AddressError) -> Self {
        let (operation, written, cause) = error.into_parts();
        let subject = Subject::File(written.into());
        Self::new(ErrorKind::Unusable, operation, subject, cause)
    }
}

/// Keeps the error as the inner one, as an [`Error`].
impl From<AddressError> for io::Error {
    fn from(error: AddressError) -> Self {
        Error::from(error).into()
    }
}

/// Keeps the error as the inner one: `io::Error::downcast::<udgram::Error>` returns it.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let of_system = || {
            error
                .raw_os_error()
                .map(|errno| Self::from_raw_os_error(errno).kind())
        };
        let kind = match error.kind {
            ErrorKind::System => of_system().unwrap_or(io::ErrorKind::Other),
            ErrorKind::NobodyThere => of_system().unwrap_or(io::ErrorKind::ConnectionRefused),
            ErrorKind::Unusable | ErrorKind::TooLong => io::ErrorKind::InvalidInput,
            ErrorKind::InUse => io::ErrorKind::AddrInUse,
            ErrorKind::Parse => io::ErrorKind::InvalidData,
            ErrorKind::TimedOut => io::ErrorKind::TimedOut,
            ErrorKind::OutputGone => io::ErrorKind::BrokenPipe,
            ErrorKind::Closed => io::ErrorKind::NotConnected,
            // Not `Interrupted`: loops of the standard library would try again.
            ErrorKind::Stopped => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Returns the text of strerror(3) in glibc's words, whatever the C library.
#[must_use]
pub fn strerror(errno: i32) -> &'static str {
    describe(Errno::from_raw(errno))
}

pub(crate) fn describe(errno: Errno) -> &'static str {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_small() {
        assert!(size_of::<Error>() <= 64, "{}", size_of::<Error>());
    }

    #[test]
    fn an_unusable_address_has_the_same_words_in_either_error() {
        for written in [&b"@a\\"[..], b"a\0b", &[b'@'; 109]] {
            let refused = Address::parse(written).unwrap_err();
            let error = Error::from(refused.clone());
            assert_eq!(error.kind(), ErrorKind::Unusable);
            assert_eq!(error.to_string(), refused.to_string());
            assert_eq!(error.cause(), refused.cause());
        }
    }

    #[test]
    fn an_io_error_has_the_kind_and_keeps_the_error() {
        let refused = Error::system("send", Subject::None, Errno::EACCES);
        let timed_out = Error::queue_full(Address::Unnamed, Some(Duration::from_millis(20)));
        for (error, kind) in [
            (refused, io::ErrorKind::PermissionDenied),
            (timed_out, io::ErrorKind::TimedOut),
        ] {
            let text = error.to_string();
            let converted = io::Error::from(error);
            assert_eq!(converted.kind(), kind);
            assert_eq!(converted.to_string(), text);
            let inner = converted.downcast::<Error>().unwrap();
            assert_eq!(inner.to_string(), text);
        }
    }

    #[test]
    fn an_error_of_a_full_queue_names_the_time_waited() {
        let address = Address::parse(b"@s").unwrap();
        let error = |timeout| Error::queue_full(address.clone(), timeout).to_string();
        assert_eq!(error(None), "cannot send to '@s': its queue is full");
        assert_eq!(
            error(Some(Duration::from_millis(20))),
            "cannot send to '@s': its queue is still full after 20ms"
        );
    }

    #[test]
    fn an_error_of_descriptors_in_flight_names_the_time_waited_and_the_limit() {
        let address = Address::parse(b"@s").unwrap();
        let error = |timeout| Error::too_many_in_flight(address.clone(), timeout);
        assert_eq!(
            error(None).to_string(),
            "cannot send to '@s': too many descriptors are in flight"
        );
        let waited = error(Some(Duration::from_millis(20)));
        assert_eq!(
            waited.to_string(),
            "cannot send to '@s': too many descriptors are still in flight after 20ms"
        );
        assert!(waited.hint().unwrap().contains("RLIMIT_NOFILE"));
    }

    #[test]
    fn an_error_number_has_the_words_of_glibc() {
        // Those of musl and of the crate nix differ.
        assert_eq!(strerror(111), "Connection refused");
        assert_eq!(strerror(90), "Message too long");
        assert_eq!(strerror(2), "No such file or directory");
    }

    #[test]
    fn an_io_error_has_the_nearest_kind() {
        let kind_of = |kind| io::Error::from(Error::new(kind, "use", Subject::None, "x")).kind();
        for (kind, expected) in [
            (ErrorKind::NobodyThere, io::ErrorKind::ConnectionRefused),
            (ErrorKind::TimedOut, io::ErrorKind::TimedOut),
            (ErrorKind::Unusable, io::ErrorKind::InvalidInput),
            (ErrorKind::TooLong, io::ErrorKind::InvalidInput),
            (ErrorKind::InUse, io::ErrorKind::AddrInUse),
            (ErrorKind::Parse, io::ErrorKind::InvalidData),
            (ErrorKind::OutputGone, io::ErrorKind::BrokenPipe),
            (ErrorKind::Closed, io::ErrorKind::NotConnected),
            (ErrorKind::Stopped, io::ErrorKind::Other),
        ] {
            assert_eq!(kind_of(kind), expected, "{kind:?}");
        }
        // That of the system is more exact.
        let missing = Error::system("use", Subject::None, Errno::ENOENT);
        assert_eq!(io::Error::from(missing).kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_lack_of_room_without_a_wait_names_no_time() {
        let zero = Some(Duration::ZERO);
        let to = || Address::Abstract(b"x".into());
        for (error, cause) in [
            (Error::queue_full(to(), zero), "its queue is full"),
            (
                Error::send_buffer_full(to(), zero),
                "the send buffer of this socket is full",
            ),
            (
                Error::too_many_in_flight(to(), zero),
                "too many descriptors are in flight",
            ),
        ] {
            assert!(error.to_string().ends_with(cause), "{error}");
        }
    }
}
