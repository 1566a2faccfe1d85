//! The options of a Unix datagram socket; socket(7), unix(7), getsockopt(2).
//!
//! [`OPTIONS`] is the one table of them. [`find`] takes an option by its name or by its numbers,
//! [`get`] and [`set`] read and write it with a value of the option's own kind.
//!
//! ```
//! use udgram::DatagramSocket;
//! use udgram::sockopt::{self, Value};
//!
//! let socket = DatagramSocket::new()?;
//! let option = sockopt::find("passcred")?;
//! sockopt::set(&socket, &option, &Value::Flag(true))?;
//! assert_eq!(sockopt::get(&socket, &option)?, Value::Flag(true));
//! assert_eq!(option.name(), "SO_PASSCRED");
//! # Ok::<(), udgram::Error>(())
//! ```

use crate::ancillary::Credentials;
use crate::error::{Error, ErrorKind, Quoted, Result, Subject, describe};
use crate::socket::DatagramSocket;
use crate::sys;
use nix::errno::Errno;
use nix::libc::{self, c_int};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

const INT: usize = size_of::<c_int>();
const TIME: usize = size_of::<libc::time_t>();
// libc has not got them yet. They are the same on every architecture Rust has but SPARC.
const SO_RCVPRIORITY: c_int = 82;
const SO_PASSRIGHTS: c_int = 83;

const GET: &str = "get the socket option";
const SET: &str = "set the socket option";
/// Room for a value of any length: the most there is are the 65,536 groups of a process.
const LONGEST: usize = 65_536 * INT;

/// What kind of value an option has.
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
    /// What an option that is not in the table has: an `int` or bytes.
    Raw,
}

/// What an option takes, in words: `a size in bytes`.
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

/// What can be done with an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// It is read and set.
    ReadWrite,
    /// It is read only.
    Read,
    /// It is set only; reading it reads the option with this number.
    Set {
        /// The option to read in its place, of the same level.
        reads: c_int,
    },
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// The kernel has none to give, such as the credentials of a peer that it does not know.
    None,
    /// On or off.
    Flag(bool),
    /// A number of an option that may be negative.
    Integer(i32),
    /// A number from 0 up: of bytes, where the option has a size.
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

/// What `SO_MEMINFO` tells of a socket's memory: nine figures, in bytes but for the drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(alias = "SO_MEMINFO")]
pub struct Memory([u32; 9]);

impl Memory {
    /// Each figure under its name in the kernel's `SK_MEMINFO_…` constants, in their order:
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

/// An option of a socket: one of [`OPTIONS`], or one known by its numbers alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOption {
    name: Cow<'static, str>,
    level: c_int,
    number: c_int,
    kind: Kind,
    access: Access,
    description: &'static str,
    /// What to tell whom the kernel does not permit to set it.
    denied: Option<&'static str>,
}

impl SocketOption {
    const fn new(
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

    const fn denied(mut self, hint: &'static str) -> Self {
        self.denied = Some(hint);
        self
    }

    /// The option with these numbers: the one in the table, or else one whose value is an `int`
    /// or bytes, named `LEVEL:NUMBER`.
    #[must_use]
    pub fn numbered(level: c_int, number: c_int) -> Self {
        let known = OPTIONS
            .iter()
            .find(|option| (option.level, option.number) == (level, number));
        known.cloned().unwrap_or_else(|| Self {
            name: format!("{level}:{number}").into(),
            level,
            number,
            kind: Kind::Raw,
            access: Access::ReadWrite,
            description: "not in the table",
            denied: None,
        })
    }

    /// Its name, as C has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its level: `SOL_SOCKET` for all in the table.
    #[must_use]
    pub fn level(&self) -> c_int {
        self.level
    }

    /// Its number within the level.
    #[must_use]
    pub fn number(&self) -> c_int {
        self.number
    }

    /// What kind of value it has.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it is read, set, or both.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// What it is for, in a line.
    #[must_use]
    pub fn description(&self) -> &'static str {
        self.description
    }

    /// Whether it can be set, and to this value, as far as can be told without a socket.
    ///
    /// [`ErrorKind::Unusable`] if not, with the kind of value it takes.
    pub fn check(&self, value: &Value) -> Result<()> {
        self.encode(value).map(drop)
    }

    /// What setsockopt(2) takes for `value`.
    fn encode(&self, value: &Value) -> Result<Vec<u8>> {
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

    /// The value in what getsockopt(2) gave; `None` if that is too short for one.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Option<Value> {
        let int = || bytes.first_chunk().map(|int| c_int::from_ne_bytes(*int));
        Some(match self.kind {
            Kind::Flag => Value::Flag(int()? != 0),
            Kind::Integer => Value::Integer(int()?),
            Kind::Raw if bytes.len() == INT => Value::Integer(int()?),
            Kind::Unsigned | Kind::Size => Value::Unsigned(int()?.cast_unsigned().into()),
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
            Kind::Process => process(int()?).map_or(Value::None, Value::Process),
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

    /// How long a value is at most.
    fn len(&self) -> usize {
        match self.kind {
            Kind::Flag | Kind::Integer | Kind::Unsigned | Kind::Size | Kind::Process => INT,
            Kind::Unsigned64 | Kind::Linger => 8,
            Kind::Duration => size_of::<libc::timeval>(),
            Kind::Credentials => size_of::<libc::ucred>(),
            Kind::Memory => size_of::<Memory>(),
            Kind::Groups | Kind::Text | Kind::Bytes | Kind::Raw => LONGEST,
        }
    }

    fn subject(&self) -> Subject {
        Subject::Option(self.name.to_string())
    }

    /// getsockopt(2) and setsockopt(2) refused.
    fn refused(&self, operation: &'static str, errno: Errno) -> Error {
        let cause = match errno {
            Errno::ENOPROTOOPT => "this kernel has no such option for Unix datagram sockets",
            Errno::EOPNOTSUPP => "this kernel does not support it for Unix datagram sockets",
            errno => describe(errno),
        };
        let error = Error::new(ErrorKind::System(errno), operation, self.subject(), cause);
        match (errno, self.denied) {
            (Errno::EPERM | Errno::EACCES, Some(hint)) => error.with_hint(hint),
            _ => error,
        }
    }
}

fn integers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let (integers, _) = bytes.as_chunks();
    integers.iter().map(|integer| u32::from_ne_bytes(*integer))
}

/// A `struct timeval`. What is less than a microsecond counts as one: zero would be no limit.
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

/// The process that a pidfd just received stands for, if it is alive and to be seen from here.
fn process(pidfd: c_int) -> Option<i32> {
    // It is this function's own, and closed at its end.
    let pidfd = sys::own(pidfd);
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok().filter(|pid| *pid > 0)
}

/// Reads an option. Most reads change nothing; that of `SO_ERROR` clears the error.
///
/// [`Value::None`] where the kernel knows the option and has no value for it.
/// [`ErrorKind::System`] if this kernel lacks the option, or gives a value that is too short.
#[doc(alias = "getsockopt")]
pub fn get(socket: &DatagramSocket, option: &SocketOption) -> Result<Value> {
    let mut buffer = vec![0; option.len()];
    match read(socket, option, &mut buffer) {
        Ok(len) => option
            .decode(&buffer[..len.min(buffer.len())])
            .ok_or_else(|| {
                let cause = format!("its value has {len} bytes, too few");
                let kind = ErrorKind::System(Errno::EINVAL);
                Error::new(kind, GET, option.subject(), cause)
            }),
        // Nothing is known of a peer that was not there at socketpair(2).
        Err(error) if error.errno() == Some(Errno::ENODATA) => Ok(Value::None),
        Err(error) => Err(error),
    }
}

/// getsockopt(2) into `buffer`; the length of the value.
pub(crate) fn read(
    socket: &DatagramSocket,
    option: &SocketOption,
    buffer: &mut [u8],
) -> Result<usize> {
    let number = match option.access {
        Access::Set { reads } => reads,
        Access::Read | Access::ReadWrite => option.number,
    };
    sys::getsockopt(socket.as_fd(), option.level, number, buffer)
        .map_err(|errno| option.refused(GET, errno))
}

/// Sets an option. What the kernel made of the value, [`get`] tells: it doubles buffer sizes,
/// for its own overhead, and rounds durations up to its clock.
///
/// [`ErrorKind::Unusable`] if the option takes no such value or can only be read;
/// [`ErrorKind::System`] if this kernel lacks the option or refuses the value, with a hint where
/// a capability is missing.
#[doc(alias = "setsockopt")]
pub fn set(socket: &DatagramSocket, option: &SocketOption, value: &Value) -> Result<()> {
    write(socket, option, &option.encode(value)?)
}

/// setsockopt(2) from `bytes`.
pub(crate) fn write(socket: &DatagramSocket, option: &SocketOption, bytes: &[u8]) -> Result<()> {
    sys::setsockopt(socket.as_fd(), option.level, option.number, bytes)
        .map_err(|errno| option.refused(SET, errno))
}

/// Every option of the table that is to be read and that this kernel answers, in the order of
/// the table, without changing anything: an error that is pending stays so, and `SO_ERROR` is the
/// text `pending` then.
#[must_use]
pub fn list(socket: &DatagramSocket) -> Vec<(&'static SocketOption, Value)> {
    OPTIONS
        .iter()
        .filter(|option| !matches!(option.access, Access::Set { .. }))
        .filter_map(|option| {
            let value = match option.number {
                libc::SO_ERROR => pending_error(socket),
                _ => get(socket, option),
            };
            Some((option, value.ok()?))
        })
        .collect()
}

/// `SO_ERROR` without clearing it: poll(2) tells whether there is one.
fn pending_error(socket: &DatagramSocket) -> Result<Value> {
    let mut polled = [libc::pollfd {
        fd: socket.as_fd().as_raw_fd(),
        events: 0,
        revents: 0,
    }];
    sys::poll(&mut polled, Some(Duration::ZERO))
        .map_err(|errno| Error::system("poll", Subject::None, errno))?;
    Ok(if polled[0].revents & libc::POLLERR == 0 {
        Value::Integer(0)
    } else {
        Value::Text(b"pending".to_vec())
    })
}

/// What is on its way in and out of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// The length in bytes of the first datagram that waits to be received; 0 if none does, and
    /// also if that one is empty.
    #[doc(alias = "SIOCINQ")]
    pub inq: i32,
    /// The memory in bytes of what was sent from the socket and is not yet received, with the
    /// kernel's overhead. It counts against `SO_SNDBUF`.
    #[doc(alias = "SIOCOUTQ")]
    pub outq: i32,
}

/// What is on its way in and out of a socket; unix(7), `SIOCINQ`.
pub fn queue(socket: &DatagramSocket) -> Result<Queue> {
    let ask = |request| {
        sys::ioctl_int(socket.as_fd(), request)
            .map_err(|errno| Error::system("get the length of the queue", Subject::None, errno))
    };
    Ok(Queue {
        inq: ask(libc::FIONREAD)?,
        outq: ask(libc::TIOCOUTQ)?,
    })
}

/// The option that is written `name`: `SO_PASSCRED`, of which the case does not count and `SO_`
/// may be left out, or `LEVEL:NUMBER`, two numbers, decimal or with `0x`
/// ([`SocketOption::numbered`]).
///
/// [`ErrorKind::Unusable`] if there is none, with a hint at the nearest name.
pub fn find(name: &str) -> Result<SocketOption> {
    if let Some((level, number)) = name.split_once(':') {
        return match (integer(level), integer(number)) {
            (Some(level), Some(number)) => Ok(SocketOption::numbered(level, number)),
            _ => Err(unknown(
                name,
                "LEVEL:NUMBER takes two numbers, decimal or with 0x",
            )),
        };
    }
    let stem = stem(name);
    let known = |option: &&SocketOption| self::stem(&option.name).eq_ignore_ascii_case(stem);
    if let Some(option) = OPTIONS.iter().find(known) {
        return Ok(option.clone());
    }
    let error = unknown(name, "there is no such option for Unix datagram sockets");
    Err(match nearest(stem) {
        Some(option) => error.with_hint(format!("did you mean {}?", option.name)),
        None => error.with_hint("an option that is not in the table is written LEVEL:NUMBER"),
    })
}

fn unknown(name: &str, cause: &str) -> Error {
    let subject = Subject::Option(Quoted(OsStr::new(name)).to_string());
    Error::new(ErrorKind::Unusable, "use the socket option", subject, cause)
}

fn integer(written: &str) -> Option<c_int> {
    let hex = written
        .strip_prefix("0x")
        .or_else(|| written.strip_prefix("0X"));
    let (digits, radix) = hex.map_or((written, 10), |digits| (digits, 16));
    // A sign is no digit.
    let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    c_int::from_str_radix(digits, radix).ok().filter(|_| plain)
}

fn stem(name: &str) -> &str {
    match name.split_at_checked(3) {
        Some((prefix, stem)) if prefix.eq_ignore_ascii_case("SO_") => stem,
        _ => name,
    }
}

/// The option whose name takes the fewest edits to get from `written`, unless that would be
/// another word altogether.
fn nearest(written: &str) -> Option<&'static SocketOption> {
    let written = written.to_ascii_uppercase();
    OPTIONS
        .iter()
        .map(|option| (distance(&written, stem(&option.name)), option))
        .filter(|(edits, option)| 2 * edits <= written.len().max(stem(&option.name).len()))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, option)| option)
}

/// How many characters to insert, delete or replace to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (done, from) in one.bytes().enumerate() {
        let mut diagonal = done;
        row[0] = done + 1;
        for (column, to) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

const RW: Access = Access::ReadWrite;
const R: Access = Access::Read;
const ADMIN: &str = "it takes CAP_NET_ADMIN";
const ADMIN_OR_RAW: &str = "it takes CAP_NET_ADMIN or CAP_NET_RAW";
const RAW: &str = "it takes CAP_NET_RAW to change one that is set";

/// The options of Unix datagram sockets, sorted by name. Which of them there are depends on the
/// kernel. Left out are those that take pointers or descriptors (filters), those of other
/// protocols, and old names of options that are here.
#[rustfmt::skip]
pub static OPTIONS: &[SocketOption] = &[
    SocketOption::new("SO_ACCEPTCONN", libc::SO_ACCEPTCONN, Kind::Flag, R, "whether it listens for connections; a datagram socket never does"),
    SocketOption::new("SO_BINDTODEVICE", libc::SO_BINDTODEVICE, Kind::Text, RW, "network interface; no effect on Unix sockets").denied(RAW),
    SocketOption::new("SO_BINDTOIFINDEX", libc::SO_BINDTOIFINDEX, Kind::Integer, RW, "network interface by its index; no effect on Unix sockets").denied(RAW),
    SocketOption::new("SO_BPF_EXTENSIONS", libc::SO_BPF_EXTENSIONS, Kind::Integer, R, "BPF extensions that filters may use"),
    SocketOption::new("SO_BROADCAST", libc::SO_BROADCAST, Kind::Flag, RW, "may send to broadcast addresses; no effect on Unix sockets"),
    SocketOption::new("SO_BUF_LOCK", libc::SO_BUF_LOCK, Kind::Integer, RW, "buffer sizes that were set by hand: 1 send, 2 receive, 3 both"),
    SocketOption::new("SO_BUSY_POLL", libc::SO_BUSY_POLL, Kind::Integer, RW, "microseconds to poll the network device; no effect on Unix sockets").denied(ADMIN),
    SocketOption::new("SO_COOKIE", libc::SO_COOKIE, Kind::Unsigned64, R, "number that no other socket has until the next boot"),
    SocketOption::new("SO_DEBUG", libc::SO_DEBUG, Kind::Flag, RW, "kernel debugging").denied(ADMIN),
    SocketOption::new("SO_DOMAIN", libc::SO_DOMAIN, Kind::Integer, R, "address family: 1, AF_UNIX"),
    SocketOption::new("SO_DONTROUTE", libc::SO_DONTROUTE, Kind::Flag, RW, "bypass routing; no effect on Unix sockets"),
    SocketOption::new("SO_ERROR", libc::SO_ERROR, Kind::Integer, R, "errno of the pending error; reading it clears it"),
    SocketOption::new("SO_GET_FILTER", libc::SO_GET_FILTER, Kind::Bytes, R, "classic BPF program that arriving datagrams must pass"),
    SocketOption::new("SO_INCOMING_CPU", libc::SO_INCOMING_CPU, Kind::Integer, RW, "processor that handles arriving packets; no effect on Unix sockets"),
    SocketOption::new("SO_INCOMING_NAPI_ID", libc::SO_INCOMING_NAPI_ID, Kind::Unsigned, R, "receive queue of the last packet; 0 for Unix sockets"),
    SocketOption::new("SO_KEEPALIVE", libc::SO_KEEPALIVE, Kind::Flag, RW, "keep-alive messages; no effect on datagram sockets"),
    SocketOption::new("SO_LINGER", libc::SO_LINGER, Kind::Linger, RW, "longest wait of close(2) for unsent data; no effect on datagram sockets"),
    SocketOption::new("SO_LOCK_FILTER", libc::SO_LOCK_FILTER, Kind::Flag, RW, "no filter may be attached, changed or detached any more").denied("a lock stays for the life of the socket"),
    SocketOption::new("SO_MARK", libc::SO_MARK, Kind::Unsigned, RW, "mark of sent packets for filters and routing").denied(ADMIN_OR_RAW),
    SocketOption::new("SO_MAX_PACING_RATE", libc::SO_MAX_PACING_RATE, Kind::Unsigned64, RW, "most bytes a second; no effect on Unix sockets"),
    SocketOption::new("SO_MEMINFO", libc::SO_MEMINFO, Kind::Memory, R, "memory that the socket uses, and datagrams dropped"),
    SocketOption::new("SO_NETNS_COOKIE", libc::SO_NETNS_COOKIE, Kind::Unsigned64, R, "number of its network namespace, to which abstract names belong"),
    SocketOption::new("SO_NOFCS", libc::SO_NOFCS, Kind::Flag, RW, "no frame check sequence; no effect on Unix sockets"),
    SocketOption::new("SO_NO_CHECK", libc::SO_NO_CHECK, Kind::Flag, RW, "no checksums; no effect on Unix sockets"),
    SocketOption::new("SO_OOBINLINE", libc::SO_OOBINLINE, Kind::Flag, RW, "urgent data among the rest; no effect on datagram sockets"),
    SocketOption::new("SO_PASSCRED", libc::SO_PASSCRED, Kind::Flag, RW, "credentials of the sender beside each datagram"),
    SocketOption::new("SO_PASSPIDFD", libc::SO_PASSPIDFD, Kind::Flag, RW, "pidfd of the sender beside each datagram"),
    SocketOption::new("SO_PASSRIGHTS", SO_PASSRIGHTS, Kind::Flag, RW, "descriptors may come beside datagrams; off, sending them here fails"),
    SocketOption::new("SO_PASSSEC", libc::SO_PASSSEC, Kind::Flag, RW, "security label of the sender beside each datagram"),
    SocketOption::new("SO_PEEK_OFF", libc::SO_PEEK_OFF, Kind::Integer, RW, "offset at which MSG_PEEK reads, which it moves on; -1: the start, always"),
    SocketOption::new("SO_PEERCRED", libc::SO_PEERCRED, Kind::Credentials, R, "credentials of the peer, as they were at socketpair(2)"),
    SocketOption::new("SO_PEERGROUPS", libc::SO_PEERGROUPS, Kind::Groups, R, "supplementary groups of the peer, as they were at socketpair(2)"),
    SocketOption::new("SO_PEERPIDFD", libc::SO_PEERPIDFD, Kind::Process, R, "process that made the pair of sockets, while it lives"),
    SocketOption::new("SO_PEERSEC", libc::SO_PEERSEC, Kind::Text, R, "security label of the peer, where a security module gives one"),
    SocketOption::new("SO_PREFER_BUSY_POLL", libc::SO_PREFER_BUSY_POLL, Kind::Flag, RW, "busy polling before interrupts; no effect on Unix sockets").denied(ADMIN),
    SocketOption::new("SO_PRIORITY", libc::SO_PRIORITY, Kind::Integer, RW, "priority of sent packets, 0 to 6, or more with CAP_NET_ADMIN").denied(ADMIN_OR_RAW),
    SocketOption::new("SO_PROTOCOL", libc::SO_PROTOCOL, Kind::Integer, R, "protocol within the family: 0"),
    SocketOption::new("SO_RCVBUF", libc::SO_RCVBUF, Kind::Size, RW, "receive buffer; the kernel doubles what is set, up to net.core.rmem_max. It does not bound the queue of a Unix datagram socket"),
    SocketOption::new("SO_RCVBUFFORCE", libc::SO_RCVBUFFORCE, Kind::Size, Access::Set { reads: libc::SO_RCVBUF }, "SO_RCVBUF past net.core.rmem_max").denied(ADMIN),
    SocketOption::new("SO_RCVLOWAT", libc::SO_RCVLOWAT, Kind::Integer, RW, "least bytes to receive at once; no effect on datagram sockets"),
    SocketOption::new("SO_RCVMARK", libc::SO_RCVMARK, Kind::Flag, RW, "mark of the packet beside each datagram").denied(ADMIN_OR_RAW),
    SocketOption::new("SO_RCVPRIORITY", SO_RCVPRIORITY, Kind::Flag, RW, "priority of the packet beside each datagram").denied(ADMIN_OR_RAW),
    SocketOption::new("SO_RCVTIMEO", libc::SO_RCVTIMEO, Kind::Duration, RW, "longest wait of a blocking receive; zero: no limit"),
    SocketOption::new("SO_RESERVE_MEM", libc::SO_RESERVE_MEM, Kind::Size, RW, "memory set aside; TCP only, as a rule"),
    SocketOption::new("SO_REUSEADDR", libc::SO_REUSEADDR, Kind::Flag, RW, "bind an address still in use; no effect on Unix sockets"),
    SocketOption::new("SO_REUSEPORT", libc::SO_REUSEPORT, Kind::Flag, RW, "several sockets on one port; no effect on Unix sockets"),
    SocketOption::new("SO_RXQ_OVFL", libc::SO_RXQ_OVFL, Kind::Flag, RW, "count of dropped datagrams beside each datagram"),
    SocketOption::new("SO_SELECT_ERR_QUEUE", libc::SO_SELECT_ERR_QUEUE, Kind::Flag, RW, "poll(2) says POLLPRI when the error queue has something"),
    SocketOption::new("SO_SNDBUF", libc::SO_SNDBUF, Kind::Size, RW, "send buffer, which bounds the size of a datagram; the kernel doubles what is set, up to net.core.wmem_max"),
    SocketOption::new("SO_SNDBUFFORCE", libc::SO_SNDBUFFORCE, Kind::Size, Access::Set { reads: libc::SO_SNDBUF }, "SO_SNDBUF past net.core.wmem_max").denied(ADMIN),
    SocketOption::new("SO_SNDLOWAT", libc::SO_SNDLOWAT, Kind::Integer, R, "least bytes to send at once: 1"),
    SocketOption::new("SO_SNDTIMEO", libc::SO_SNDTIMEO, Kind::Duration, RW, "longest wait of a blocking send; zero: no limit"),
    SocketOption::new("SO_TIMESTAMP", libc::SO_TIMESTAMP, Kind::Flag, RW, "time of arrival beside each datagram, in microseconds"),
    SocketOption::new("SO_TIMESTAMPING", libc::SO_TIMESTAMPING, Kind::Unsigned, RW, "timestamps to take, as SOF_TIMESTAMPING_ flags"),
    SocketOption::new("SO_TIMESTAMPNS", libc::SO_TIMESTAMPNS, Kind::Flag, RW, "time of arrival beside each datagram, in nanoseconds"),
    SocketOption::new("SO_TYPE", libc::SO_TYPE, Kind::Integer, R, "type: 2, SOCK_DGRAM"),
    SocketOption::new("SO_WIFI_STATUS", libc::SO_WIFI_STATUS, Kind::Flag, RW, "whether wireless packets were acknowledged; no effect on Unix sockets"),
    SocketOption::new("SO_ZEROCOPY", libc::SO_ZEROCOPY, Kind::Flag, RW, "send without copying; not for Unix sockets"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::Outgoing;
    use crate::wait::Wake;

    fn of(name: &str) -> SocketOption {
        find(name).unwrap()
    }

    #[test]
    fn the_table_is_sorted_and_complete() {
        assert!(OPTIONS.is_sorted_by(|one, next| one.name < next.name));
        for option in OPTIONS {
            assert!(option.name.starts_with("SO_"), "{}", option.name);
            assert!(option.description.len() > 5, "{}", option.name);
            assert!(!option.description.contains('\n'), "{}", option.name);
            assert_ne!(option.kind, Kind::Raw, "{}", option.name);
            let numbered = SocketOption::numbered(option.level, option.number);
            assert_eq!(numbered, *option, "two with one number");
            if let Access::Set { reads } = option.access {
                assert_eq!(
                    SocketOption::numbered(option.level, reads).kind,
                    option.kind
                );
            }
        }
    }

    #[test]
    fn names_are_found_however_they_are_written() {
        for name in [
            "SO_SNDBUF",
            "so_sndbuf",
            "SndBuf",
            "1:7",
            "0x1:0x7",
            "0X1:07",
        ] {
            assert_eq!(of(name).name(), "SO_SNDBUF", "{name}");
        }
        assert_eq!(of("41:0x10").name(), "41:16");
        assert_eq!(of("41:16").kind(), Kind::Raw);
    }

    #[test]
    fn a_name_that_is_none_suggests_the_nearest() {
        for (typo, meant) in [
            ("SO_SENDBUF", "SO_SNDBUF"),
            ("so_sndbuff", "SO_SNDBUF"),
            ("passcreds", "SO_PASSCRED"),
            ("rcvtimeout", "SO_RCVTIMEO"),
            ("SO_PEERCERD", "SO_PEERCRED"),
            ("timestamp_ns", "SO_TIMESTAMPNS"),
        ] {
            let error = find(typo).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unusable);
            assert_eq!(
                error.hint(),
                Some(format!("did you mean {meant}?").as_str())
            );
        }
        for nonsense in ["", "SO_", "xyzzy", "ü", "\n"] {
            let error = find(nonsense).unwrap_err();
            assert!(error.hint().unwrap().contains("LEVEL:NUMBER"), "{nonsense}");
            assert!(!error.to_string().contains('\n'));
        }
        for wrong in [
            ":",
            "1:",
            ":7",
            "1:x",
            "-1:7",
            "+1:7",
            "1:7:1",
            "0x:1",
            "1:99999999999",
        ] {
            let error = find(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unusable, "{wrong}");
        }
    }

    #[test]
    fn distances() {
        for (one, other, edits) in [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3)] {
            assert_eq!(distance(one, other), edits);
            assert_eq!(distance(other, one), edits);
        }
    }

    #[test]
    fn what_is_set_is_read_back() {
        let socket = DatagramSocket::new().unwrap();
        let seconds = Duration::from_secs;
        for (name, value) in [
            ("SO_PASSCRED", Value::Flag(true)),
            ("SO_PEEK_OFF", Value::Integer(7)),
            ("SO_PEEK_OFF", Value::Integer(-1)),
            ("SO_PRIORITY", Value::Integer(5)),
            ("SO_RCVTIMEO", Value::Duration(seconds(90))),
            ("SO_SNDTIMEO", Value::Duration(Duration::from_millis(1500))),
            ("SO_SNDTIMEO", Value::Duration(Duration::ZERO)),
            ("SO_LINGER", Value::Linger(Some(seconds(3)))),
            ("SO_LINGER", Value::Linger(None)),
            ("SO_MAX_PACING_RATE", Value::Unsigned(1 << 40)),
            ("1:16", Value::Flag(false)),
        ] {
            let option = of(name);
            set(&socket, &option, &value).unwrap();
            assert_eq!(get(&socket, &option).unwrap(), value, "{name}");
        }
        let sizes = ["SO_SNDBUF", "SO_SNDBUFFORCE"];
        set(&socket, &of(sizes[0]), &Value::Unsigned(30_000)).unwrap();
        for name in sizes {
            let doubled = Value::Unsigned(60_000);
            assert_eq!(get(&socket, &of(name)).unwrap(), doubled, "{name}");
        }
    }

    #[test]
    fn less_than_a_microsecond_is_not_no_limit() {
        let socket = DatagramSocket::new().unwrap();
        let option = of("SO_RCVTIMEO");
        set(&socket, &option, &Value::Duration(Duration::from_nanos(1))).unwrap();
        assert_ne!(
            get(&socket, &option).unwrap(),
            Value::Duration(Duration::ZERO)
        );
    }

    #[test]
    fn values_of_another_kind_are_refused() {
        for (name, value, cause) in [
            ("SO_PASSCRED", Value::Integer(1), "it takes on or off"),
            ("SO_SNDBUF", Value::Unsigned(1 << 31), "it takes a size"),
            ("SO_MARK", Value::Unsigned(1 << 32), "it takes an integer"),
            (
                "SO_RCVTIMEO",
                Value::Duration(Duration::MAX),
                "it takes a duration",
            ),
            (
                "SO_LINGER",
                Value::Linger(Some(Duration::from_millis(1))),
                "whole seconds",
            ),
            ("SO_TYPE", Value::Integer(1), "it can only be read"),
            (
                "1:9999",
                Value::Flag(true),
                "it takes an integer of 32 bits, or bytes",
            ),
        ] {
            let error = of(name).check(&value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unusable);
            assert!(error.to_string().contains(cause), "{error}");
        }
    }

    #[test]
    fn a_peer_is_known_from_socketpair_only() {
        let (one, _other) = DatagramSocket::pair().unwrap();
        let own = Credentials::own();
        let value = |name| get(&one, &of(name)).unwrap();
        assert_eq!(value("SO_PEERCRED"), Value::Credentials(own));
        assert!(matches!(value("SO_PEERGROUPS"), Value::Groups(_)));
        let alone = DatagramSocket::new().unwrap();
        for name in ["SO_PEERCRED", "SO_PEERGROUPS"] {
            assert_eq!(get(&alone, &of(name)).unwrap(), Value::None, "{name}");
        }
        // Linux 6.5 and later.
        if let Ok(Value::Process(pid)) = get(&one, &of("SO_PEERPIDFD")) {
            assert_eq!(pid, own.pid);
        }
    }

    #[test]
    fn what_the_kernel_lacks_is_said_and_not_listed() {
        let socket = DatagramSocket::new().unwrap();
        for name in ["1:9999", "41:1"] {
            for result in [
                get(&socket, &of(name)).map(drop),
                set(&socket, &of(name), &Value::Integer(1)),
            ] {
                let error = result.unwrap_err();
                assert!(error.errno().is_some());
                assert!(error.to_string().contains(": this kernel "), "{error}");
            }
        }
        let listed = list(&socket);
        assert!(listed.len() > 20);
        for (option, _) in listed {
            assert!(!option.name.contains("FORCE"), "{}", option.name);
        }
    }

    #[test]
    fn a_listing_leaves_a_pending_error_pending() {
        let (one, other) = DatagramSocket::pair().unwrap();
        let message = Outgoing {
            bytes: b"unread",
            ..Outgoing::default()
        };
        other.send(&[message], None, &Wake::default()).unwrap();
        // One that connects elsewhere drops what its peer had sent, and the peer is told.
        let elsewhere = DatagramSocket::new().unwrap();
        elsewhere.autobind().unwrap();
        one.connect(&elsewhere.local_address().unwrap()).unwrap();
        let listed = |socket| {
            let listed = list(socket);
            let found = listed.iter().find(|(option, _)| option.name == "SO_ERROR");
            found.unwrap().1.clone()
        };
        assert_eq!(listed(&other), Value::Text(b"pending".to_vec()));
        let error = get(&other, &of("SO_ERROR")).unwrap();
        assert_eq!(error, Value::Integer(libc::ECONNRESET));
        assert_eq!(listed(&other), Value::Integer(0));
    }
}
