//! A socket option: its name and numbers, the type of its value, and how that is encoded.

use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result, Subject, describe};
use nix::errno::Errno;
use nix::libc::{self, c_int, c_uint};
use std::borrow::Cow;
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

const INT: usize = size_of::<c_int>();
const TIME: usize = size_of::<libc::time_t>();

pub(super) const GET: &str = "get the socket option";
pub(super) const SET: &str = "set the socket option";
/// The longest value there is: the 65,536 groups of a process.
const LONGEST: usize = 65_536 * INT;

/// The kind of value that an option has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// On or off.
    Flag,
    /// A number: an `int`.
    Integer,
    /// A number from 0 up: an `unsigned int`.
    Unsigned,
    /// A number from 0 up, of 64 bits.
    Unsigned64,
    /// A number of bytes: an `int`.
    Size,
    /// A `struct timeval`; zero is no limit.
    Duration,
    /// A `struct linger`: off, or whole seconds.
    Linger,
    /// A `struct ucred`.
    Credentials,
    /// A pidfd.
    Process,
    /// A list of group ids.
    Groups,
    /// Text.
    Text,
    /// The figures of `SO_MEMINFO`.
    Memory,
    /// Bytes that have no other form here.
    Bytes,
    /// An `int` or bytes: the value of an option that is not in the table.
    Raw,
}

/// Shows the values that an option takes: `a size in bytes`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "on or off",
            Self::Integer => "an integer of 32 bits",
            Self::Unsigned => "an integer from 0 up, of 32 bits",
            Self::Unsigned64 => "an integer from 0 up, of 64 bits",
            Self::Size => "a size in bytes, less than 2 GiB",
            Self::Duration => "a duration",
            Self::Linger => "off or a duration of whole seconds",
            Self::Credentials => "credentials",
            Self::Process => "a process",
            Self::Groups => "groups",
            Self::Text => "text",
            Self::Memory => "memory figures",
            Self::Bytes => "bytes",
            Self::Raw => "an integer of 32 bits, or bytes",
        })
    }
}

/// The directions of an option: read, set, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// It can be read and set.
    ReadWrite,
    /// It can only be read.
    Read,
    /// It can only be set; reading it reads the option with another number.
    Set {
        /// The number of the option to read instead, of the same level.
        reads: c_int,
    },
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// The kernel has no value, such as for the credentials of an unknown peer.
    None,
    /// On or off.
    Flag(bool),
    /// A number of an option that may be negative.
    Integer(i32),
    /// A number from 0 up; a number of bytes if the option is a size.
    Unsigned(u64),
    /// A length of time; zero is no limit.
    Duration(Duration),
    /// Off, or a length of time in whole seconds.
    Linger(Option<Duration>),
    /// A process and its user and group.
    Credentials(Credentials),
    /// A process.
    Process(i32),
    /// Group ids.
    Groups(Vec<u32>),
    /// Text, without a final NUL.
    Text(Vec<u8>),
    /// The figures of `SO_MEMINFO`.
    Memory(Memory),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// The memory of a socket, from `SO_MEMINFO`: eight figures in bytes and a count of drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(alias = "SO_MEMINFO")]
pub struct Memory([u32; 9]);

impl Memory {
    /// Returns each figure with its name in the kernel's `SK_MEMINFO_…` constants, in their order:
    /// `rmem_alloc`, `rcvbuf`, `wmem_alloc`, `sndbuf`, `fwd_alloc`, `wmem_queued`, `optmem`,
    /// `backlog`, and `drops`, a count of datagrams.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let names = [
            "rmem_alloc",
            "rcvbuf",
            "wmem_alloc",
            "sndbuf",
            "fwd_alloc",
            "wmem_queued",
            "optmem",
            "backlog",
            "drops",
        ];
        names.into_iter().zip(self.0)
    }
}

/// An option of a socket: one of [`OPTIONS`](super::OPTIONS), or one known by its numbers only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOption {
    pub(super) name: Cow<'static, str>,
    pub(super) level: c_int,
    pub(super) number: c_int,
    pub(super) kind: Kind,
    pub(super) access: Access,
    description: &'static str,
    /// Hint shown when setting the option fails with EPERM.
    denied: Option<&'static str>,
}

impl SocketOption {
    pub(super) const fn new(
        name: &'static str,
        number: c_int,
        kind: Kind,
        access: Access,
        description: &'static str,
    ) -> Self {
        Self {
            name: Cow::Borrowed(name),
            level: libc::SOL_SOCKET,
            number,
            kind,
            access,
            description,
            denied: None,
        }
    }

    pub(super) const fn denied(mut self, hint: &'static str) -> Self {
        self.denied = Some(hint);
        self
    }

    /// Makes an option that is not in the table: its value is an `int` or bytes, its name
    /// `LEVEL:NUMBER`.
    pub(super) fn unlisted(level: c_int, number: c_int) -> Self {
        Self {
            name: format!("{level}:{number}").into(),
            level,
            number,
            kind: Kind::Raw,
            access: Access::ReadWrite,
            description: "not in the table",
            denied: None,
        }
    }

    /// Returns its name in C.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its level: `SOL_SOCKET` for all in the table.
    #[must_use]
    pub fn level(&self) -> c_int {
        self.level
    }

    /// Returns its number within the level.
    #[must_use]
    pub fn number(&self) -> c_int {
        self.number
    }

    /// Returns the kind of its value.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns whether it is read, set, or both.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// Returns its purpose in one line.
    #[must_use]
    pub fn description(&self) -> &'static str {
        self.description
    }

    /// Checks without a socket that it can be set to this value.
    ///
    /// Fails with [`ErrorKind::Unusable`] if not, with the kind of value it takes.
    pub fn check(&self, value: &Value) -> Result<()> {
        self.encode(value).map(drop)
    }

    /// Encodes `value` for setsockopt(2).
    pub(super) fn encode(&self, value: &Value) -> Result<Vec<u8>> {
        let refuse = |cause: String| Error::new(ErrorKind::Unusable, SET, self.subject(), cause);
        if self.access == Access::Read {
            return Err(refuse("it can only be read".to_owned()));
        }
        let bytes = match (self.kind, value) {
            (Kind::Flag, Value::Flag(on)) => Some(c_int::from(*on).to_ne_bytes().to_vec()),
            (Kind::Integer | Kind::Raw, Value::Integer(number)) => {
                Some(number.to_ne_bytes().to_vec())
            }
            (Kind::Unsigned, Value::Unsigned(number)) => {
                u32::try_from(*number).ok().map(|n| n.to_ne_bytes().into())
            }
            (Kind::Unsigned64, Value::Unsigned(number)) => Some(number.to_ne_bytes().to_vec()),
            (Kind::Size, Value::Unsigned(size)) => {
                c_int::try_from(*size).ok().map(|n| n.to_ne_bytes().into())
            }
            (Kind::Duration, Value::Duration(time)) => timeval(*time),
            (Kind::Linger, Value::Linger(time)) => linger(*time),
            (Kind::Text, Value::Text(bytes)) | (Kind::Raw, Value::Bytes(bytes)) => {
                Some(bytes.clone())
            }
            _ => None,
        };
        bytes.ok_or_else(|| refuse(format!("it takes {}", self.kind)))
    }

    /// Decodes the bytes from getsockopt(2); `None` if they are too short for a value, and for a
    /// process, whose pidfd [`process`] reads.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Option<Value> {
        let int = || bytes.first_chunk().map(|int| c_int::from_ne_bytes(*int));
        let unsigned = || bytes.first_chunk().map(|int| c_uint::from_ne_bytes(*int));
        Some(match self.kind {
            Kind::Flag => Value::Flag(int()? != 0),
            Kind::Integer => Value::Integer(int()?),
            Kind::Raw if bytes.len() == INT => Value::Integer(int()?),
            Kind::Unsigned | Kind::Size => Value::Unsigned(unsigned()?.into()),
            Kind::Unsigned64 => Value::Unsigned(u64::from_ne_bytes(*bytes.first_chunk()?)),
            Kind::Duration => Value::Duration(time(bytes)?),
            Kind::Linger => {
                let seconds = c_int::from_ne_bytes(*bytes.get(INT..)?.first_chunk()?);
                let time = Duration::from_secs(seconds.try_into().unwrap_or(0));
                Value::Linger((int()? != 0).then_some(time))
            }
            Kind::Credentials => match Credentials::from_bytes(bytes)? {
                Credentials {
                    pid: 0,
                    uid: u32::MAX,
                    ..
                } => Value::None,
                known => Value::Credentials(known),
            },
            Kind::Process => return None,
            Kind::Groups => Value::Groups(integers(bytes).collect()),
            Kind::Text => Value::Text(bytes.strip_suffix(b"\0").unwrap_or(bytes).to_vec()),
            Kind::Memory => {
                let mut figures = [0; 9];
                for (figure, given) in figures.iter_mut().zip(integers(bytes)) {
                    *figure = given;
                }
                Value::Memory(Memory(figures))
            }
            Kind::Bytes if bytes.is_empty() => Value::None,
            Kind::Bytes | Kind::Raw => Value::Bytes(bytes.to_vec()),
        })
    }

    /// Returns the largest length of a value.
    pub(super) fn len(&self) -> usize {
        match self.kind {
            Kind::Flag | Kind::Integer | Kind::Unsigned | Kind::Size | Kind::Process => INT,
            Kind::Unsigned64 | Kind::Linger => 8,
            Kind::Duration => size_of::<libc::timeval>(),
            Kind::Credentials => size_of::<libc::ucred>(),
            Kind::Memory => size_of::<Memory>(),
            Kind::Groups | Kind::Text | Kind::Bytes | Kind::Raw => LONGEST,
        }
    }

    pub(super) fn subject(&self) -> Subject {
        Subject::Option(self.name.to_string())
    }

    /// Makes the error of a getsockopt(2) or setsockopt(2) that failed.
    pub(super) fn refused(&self, operation: &'static str, errno: Errno) -> Error {
        let cause = match errno {
            Errno::ENOPROTOOPT => "this kernel has no such option for Unix datagram sockets",
            Errno::EOPNOTSUPP => "this kernel does not support it for Unix datagram sockets",
            errno => describe(errno),
        };
        let error = Error::system(operation, self.subject(), errno).with_cause(cause);
        match (errno, self.denied) {
            (Errno::EPERM | Errno::EACCES, Some(hint)) => error.with_hint(hint),
            _ => error,
        }
    }
}

fn integers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes
        .chunks_exact(size_of::<u32>())
        .filter_map(|integer| Some(u32::from_ne_bytes(*integer.first_chunk()?)))
}

/// Encodes a `struct timeval`. Rounds up to a microsecond: zero would be no limit.
fn timeval(time: Duration) -> Option<Vec<u8>> {
    let microseconds = time.as_nanos().div_ceil(1_000);
    let seconds = libc::time_t::try_from(microseconds / 1_000_000).ok()?;
    let rest = libc::suseconds_t::try_from(microseconds % 1_000_000).ok()?;
    let mut bytes = seconds.to_ne_bytes().to_vec();
    bytes.extend(rest.to_ne_bytes());
    bytes.resize(size_of::<libc::timeval>(), 0);
    Some(bytes)
}

fn time(timeval: &[u8]) -> Option<Duration> {
    let seconds = libc::time_t::from_ne_bytes(*timeval.first_chunk()?);
    let rest = libc::suseconds_t::from_ne_bytes(*timeval.get(TIME..)?.first_chunk()?);
    let seconds = Duration::from_secs(seconds.try_into().ok()?);
    seconds.checked_add(Duration::from_micros(rest.try_into().ok()?))
}

fn linger(time: Option<Duration>) -> Option<Vec<u8>> {
    let seconds = match time {
        Some(time) if time.subsec_nanos() > 0 => return None,
        Some(time) => c_int::try_from(time.as_secs()).ok()?,
        None => 0,
    };
    let mut bytes = c_int::from(time.is_some()).to_ne_bytes().to_vec();
    bytes.extend(seconds.to_ne_bytes());
    Some(bytes)
}

/// Returns the process of a pidfd; [`Value::None`] if it has exited or is in another pid namespace.
pub(super) fn process(pidfd: &OwnedFd) -> Value {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()));
    let info = info.unwrap_or_default();
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    let pid = pid.and_then(|pid| pid.trim().parse().ok());
    pid.filter(|pid| *pid > 0)
        .map_or(Value::None, Value::Process)
}
