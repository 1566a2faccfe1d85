//! The options of a Unix datagram socket; socket(7), unix(7), getsockopt(2).
//!
//! [`OPTIONS`] is the table of them. [`find`] looks up an option by its name or by its numbers, [`get`]
//! and [`set`] read and set it with a value of the option's own kind. For the most common options
//! [`DatagramSocket`](crate::DatagramSocket) has methods.
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

use crate::error::{Error, ErrorKind, Result, Subject};
use crate::quoted::Quoted;
use crate::sys;
use nix::errno::Errno;
use nix::libc::{self, c_int};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

mod option;
mod table;

pub use option::{Access, Kind, Memory, SocketOption, Value};
use option::{GET, SET};
pub use table::{OPTIONS, numbered};

/// The option that gives each datagram its time of arrival: `SO_TIMESTAMPNS` with times of 64 bits, which 32-bit
/// targets have since Linux 5.1, as `SO_TIMESTAMPNS_NEW`.
#[doc(alias = "SO_TIMESTAMPNS")]
pub const TIMESTAMPNS: c_int = if cfg!(target_pointer_width = "32") {
    sys::SO_TIMESTAMPNS_NEW
} else {
    libc::SO_TIMESTAMPNS
};

/// Returns the value of an option of `SOL_SOCKET` whose value is an `int`.
pub fn get_int(socket: impl AsFd, option: c_int) -> Result<c_int> {
    let mut value = [0; size_of::<c_int>()];
    read(socket, &numbered(libc::SOL_SOCKET, option), &mut value)?;
    Ok(c_int::from_ne_bytes(value))
}

/// Sets an option of `SOL_SOCKET` whose value is an `int`.
pub fn set_int(socket: impl AsFd, option: c_int, value: c_int) -> Result<()> {
    write(
        socket,
        &numbered(libc::SOL_SOCKET, option),
        &value.to_ne_bytes(),
    )
}

/// Reads an option. Reading `SO_ERROR` clears the error; other reads change nothing.
///
/// Returns [`Value::None`] if the kernel knows the option and has no value for it. Fails with
/// [`ErrorKind::System`] if this kernel lacks the option, or returns a value that is too short.
#[doc(alias = "getsockopt")]
pub fn get(socket: impl AsFd, option: &SocketOption) -> Result<Value> {
    let value = match option.kind {
        Kind::Process => sys::peer_pidfd(socket.as_fd())
            .map(|pidfd| option::process(&pidfd))
            .map_err(|errno| option.refused(GET, errno)),
        _ => get_bytes(socket, option),
    };
    match value {
        // Only socketpair(2) makes a peer known.
        Err(error) if error.errno() == Some(Errno::ENODATA) => Ok(Value::None),
        value => value,
    }
}

fn get_bytes(socket: impl AsFd, option: &SocketOption) -> Result<Value> {
    let mut buffer = vec![0; option.len()];
    let len = read(socket, option, &mut buffer)?;
    let value = option.decode(&buffer[..len.min(buffer.len())]);
    value.ok_or_else(|| {
        Error::system(GET, option.subject(), Errno::EINVAL)
            .with_cause(format!("its value has {len} bytes, too few"))
    })
}

/// Reads an option into `buffer`; getsockopt(2). Returns the length of the value.
pub(crate) fn read(socket: impl AsFd, option: &SocketOption, buffer: &mut [u8]) -> Result<usize> {
    let number = match option.access {
        Access::Set { reads } => reads,
        Access::Read | Access::ReadWrite => option.number,
    };
    sys::getsockopt(socket.as_fd(), option.level, number, buffer)
        .map_err(|errno| option.refused(GET, errno))
}

/// Sets an option. The kernel may change the value, which [`get`] returns then: it doubles buffer
/// sizes for its own overhead, and rounds durations up.
///
/// Fails with [`ErrorKind::Unusable`] if the option takes no such value or can only be read, and with
/// [`ErrorKind::System`] if this kernel lacks the option or refuses the value, with a hint if a
/// capability is missing.
#[doc(alias = "setsockopt")]
pub fn set(socket: impl AsFd, option: &SocketOption, value: &Value) -> Result<()> {
    write(socket, option, &option.encode(value)?)
}

/// Sets an option from `bytes`; setsockopt(2).
pub(crate) fn write(socket: impl AsFd, option: &SocketOption, bytes: &[u8]) -> Result<()> {
    sys::setsockopt(socket.as_fd(), option.level, option.number, bytes)
        .map_err(|errno| option.refused(SET, errno))
}

/// Returns every readable option of the table that this kernel supports, in the order of the table.
/// Changes nothing: a pending error stays pending, and the value of `SO_ERROR` is then the text
/// `pending`.
#[must_use]
pub fn list(socket: impl AsFd) -> Vec<(&'static SocketOption, Value)> {
    let socket = socket.as_fd();
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

/// Returns whether the socket has an error that the next receive or the next read of `SO_ERROR` returns
/// and clears. poll(2) reports this and clears nothing.
pub fn has_pending_error(socket: impl AsFd) -> Result<bool> {
    let mut polled = [libc::pollfd {
        fd: socket.as_fd().as_raw_fd(),
        events: 0,
        revents: 0,
    }];
    sys::poll(&mut polled, Some(Duration::ZERO))
        .map_err(|errno| Error::system("poll", Subject::None, errno))?;
    Ok(polled[0].revents & libc::POLLERR != 0)
}

/// Returns a value for `SO_ERROR` without clearing it.
fn pending_error(socket: impl AsFd) -> Result<Value> {
    Ok(if has_pending_error(socket)? {
        Value::Text(b"pending".to_vec())
    } else {
        Value::Integer(0)
    })
}

/// The queue lengths of a socket, in and out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// The length in bytes of the first datagram that waits to be received; 0 if none does, or if it
    /// is empty.
    #[doc(alias = "SIOCINQ")]
    pub inq: i32,
    /// The memory in bytes of the datagrams sent from the socket and not yet received, with the
    /// kernel's overhead. It counts against `SO_SNDBUF`.
    #[doc(alias = "SIOCOUTQ")]
    pub outq: i32,
}

/// Returns how much is queued in and out of a socket; unix(7), `SIOCINQ`, `SIOCOUTQ`.
pub fn queue(socket: impl AsFd) -> Result<Queue> {
    Ok(Queue {
        inq: queued(&socket, sys::Direction::In)?,
        outq: queued(&socket, sys::Direction::Out)?,
    })
}

/// Returns [`Queue::outq`] alone: whether datagrams sent from the socket are unread. It takes one system
/// call.
#[doc(alias = "SIOCOUTQ")]
pub fn unread(socket: impl AsFd) -> Result<i32> {
    queued(&socket, sys::Direction::Out)
}

fn queued(socket: &impl AsFd, direction: sys::Direction) -> Result<i32> {
    sys::queued(socket.as_fd(), direction)
        .map_err(|errno| Error::system("get the length of the queue", Subject::None, errno))
}

/// Returns the option with this name: `SO_PASSCRED`, in which case does not matter and `SO_` may be
/// left out, or `LEVEL:NUMBER`, two numbers, decimal or with `0x` ([`numbered`]).
///
/// Fails with [`ErrorKind::Unusable`] if there is none, with a hint at the nearest name.
pub fn find(name: &str) -> Result<SocketOption> {
    if let Some((level, number)) = name.split_once(':') {
        return match (integer(level), integer(number)) {
            (Some(level), Some(number)) => Ok(numbered(level, number)),
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

fn unknown(name: &str, cause: &'static str) -> Error {
    let subject = Subject::Option(Quoted(OsStr::new(name)).to_string());
    Error::new(ErrorKind::Unusable, "use the socket option", subject, cause)
}

fn integer(written: &str) -> Option<c_int> {
    let hex = written
        .strip_prefix("0x")
        .or_else(|| written.strip_prefix("0X"));
    let (digits, radix) = hex.map_or((written, 10), |digits| (digits, 16));
    // `from_str_radix` accepts a sign.
    let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    c_int::from_str_radix(digits, radix).ok().filter(|_| plain)
}

fn stem(name: &str) -> &str {
    match name.split_at_checked(3) {
        Some((prefix, stem)) if prefix.eq_ignore_ascii_case("SO_") => stem,
        _ => name,
    }
}

/// Returns the option whose name is the fewest edits away from `written`; `None` if every name needs
/// edits to more than half of its characters.
fn nearest(written: &str) -> Option<&'static SocketOption> {
    let written = written.to_ascii_uppercase();
    OPTIONS
        .iter()
        .map(|option| (distance(&written, stem(&option.name)), option))
        .filter(|(edits, option)| 2 * edits <= written.len().max(stem(&option.name).len()))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, option)| option)
}

/// Returns how many characters to insert, delete or replace to turn one word into the other.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Credentials;
    use crate::outgoing::Outgoing;
    use crate::socket::DatagramSocket;
    use crate::wait::Wake;

    fn of(name: &str) -> SocketOption {
        find(name).unwrap()
    }

    #[test]
    fn the_table_is_sorted_and_complete() {
        assert!(OPTIONS.is_sorted_by(|one, next| one.name < next.name));
        for option in OPTIONS {
            assert!(option.name.starts_with("SO_"), "{}", option.name);
            assert!(option.description().len() > 5, "{}", option.name);
            assert!(!option.description().contains('\n'), "{}", option.name);
            assert_ne!(option.kind, Kind::Raw, "{}", option.name);
            let same = numbered(option.level, option.number);
            assert_eq!(same, *option, "two with one number");
            if let Access::Set { reads } = option.access {
                assert_eq!(numbered(option.level, reads).kind, option.kind);
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
    fn an_unknown_name_suggests_the_nearest() {
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
    fn the_distance_is_the_number_of_edits() {
        for (one, other, edits) in [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3)] {
            assert_eq!(distance(one, other), edits);
            assert_eq!(distance(other, one), edits);
        }
    }

    #[test]
    fn a_value_that_is_set_is_read_back() {
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
    fn a_duration_of_less_than_a_microsecond_does_not_become_no_limit() {
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
    fn an_option_that_the_kernel_lacks_is_reported_and_not_listed() {
        let socket = DatagramSocket::new().unwrap();
        for name in ["1:9999", "41:1"] {
            for result in [
                get(&socket, &of(name)).map(drop),
                set(&socket, &of(name), &Value::Integer(1)),
            ] {
                let error = result.unwrap_err();
                assert!(error.raw_os_error().is_some());
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
        // Connecting elsewhere drops the peer's datagrams and stores ECONNRESET in the peer's socket.
        let elsewhere = DatagramSocket::new().unwrap();
        elsewhere.autobind().unwrap();
        one.connect(elsewhere.local_address().unwrap()).unwrap();
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
