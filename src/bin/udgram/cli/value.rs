//! The values of arguments: addresses, durations, descriptors, credentials, modes, users, parsed from
//! text. An error that begins with "takes" describes the valid values.

use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser};
use nix::unistd::User;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;
use udgram::Address;
use udgram::ancillary::Credentials;

/// The value of `--timeout`; `None` is no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeout(pub(crate) Option<Duration>);

/// The place at which `exec --notify` reports that the service is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadyReport {
    None,
    /// This descriptor gets a line break.
    Descriptor(RawFd),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replies {
    Count(u64),
    All,
}

/// The value of `--creds` of send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// This process's own credentials.
    Own,
    /// Credentials as given.
    Of(Credentials),
}

/// The value of `--stats`: when totals are printed, besides on SIGUSR1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reporting {
    /// At the end.
    AtEnd,
    /// At the end, and each time this interval is over.
    Every(Duration),
}

/// The value of `--rate`: the time from one packet to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) Duration);

/// A descriptor of this process or of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) pid: Option<i32>,
    pub(crate) number: RawFd,
}

/// A socket that is open already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OpenSocket {
    /// A descriptor.
    Descriptor(Descriptor),
    /// The one that is bound to this address, whichever process holds it.
    Bound(Address<'static>),
}

/// Makes the parser of an address; the empty string is the unnamed one.
pub(crate) fn address() -> ValueParser {
    OsStringValueParser::new()
        .try_map(|written| {
            if written.is_empty() {
                return Ok(Address::Unnamed);
            }
            parse_peer(&written)
        })
        .into()
}

/// Makes the parser of an address that has a name.
pub(crate) fn peer() -> ValueParser {
    OsStringValueParser::new()
        .try_map(|written| parse_peer(&written))
        .into()
}

pub(crate) fn parse_peer(written: &OsString) -> Result<Address<'static>, String> {
    match Address::parse(written.as_bytes()) {
        Ok(Address::Unnamed) => Err("the address is empty".to_owned()),
        // The kernel accepts such a name, but as an argument it is a mistake.
        Ok(Address::Abstract(name)) if name.is_empty() => {
            Err("the abstract name is empty".to_owned())
        }
        parsed => parsed
            .map(Address::into_owned)
            .map_err(|error| error.cause().to_owned()),
    }
}

/// Parses the value of `--notify`: `none`, or the number of a descriptor.
pub(crate) fn ready_report(written: &str) -> Result<ReadyReport, String> {
    if written == "none" {
        return Ok(ReadyReport::None);
    }
    match written.parse() {
        Ok(number) if number >= 0 => Ok(ReadyReport::Descriptor(number)),
        _ => Err("takes the number of a descriptor".to_owned()),
    }
}

pub(crate) fn timeout(written: &str) -> Result<Timeout, String> {
    if written == "none" {
        return Ok(Timeout(None));
    }
    match parse_duration(written) {
        Some(duration) => Ok(Timeout(Some(duration))),
        None => Err("takes a duration such as 250ms, 2s or 1m".to_owned()),
    }
}

/// Parses a duration such as `250ms` or `1m 30s`; a bare number, which may have a fraction, is seconds.
pub(crate) fn parse_duration(written: &str) -> Option<Duration> {
    let bare = !written.is_empty()
        && written
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if bare {
        return written
            .parse::<f64>()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    }
    humantime::parse_duration(written).ok()
}

/// Parses when totals are printed.
pub(crate) fn reporting(written: &str) -> Result<Reporting, String> {
    const SHORTEST: Duration = Duration::from_millis(1);
    if written == "end" {
        return Ok(Reporting::AtEnd);
    }
    match parse_duration(written) {
        Some(interval) if interval >= SHORTEST => Ok(Reporting::Every(interval)),
        _ => Err("takes a duration from 1ms up, such as 1s".to_owned()),
    }
}

/// Parses a number of packets for a unit of time.
pub(crate) fn rate(written: &str) -> Result<Rate, String> {
    let (number, unit) = written.split_once('/').unwrap_or((written, "s"));
    let unit: Option<u64> = match unit {
        "ms" => Some(1_000_000),
        "s" => Some(1_000_000_000),
        "m" => Some(60_000_000_000),
        "h" => Some(3_600_000_000_000),
        _ => None,
    };
    let number = number.parse().ok().filter(|number| *number > 0);
    match (number, unit) {
        // Rounded up: never more packets than asked for.
        (Some(number), Some(unit)) => Ok(Rate(Duration::from_nanos(unit.div_ceil(number)))),
        _ => Err("takes a number from 1 up, with /s, /m, /h or /ms, such as 100/s".to_owned()),
    }
}

/// Parses how many times as fast packets are sent as they were received.
pub(crate) fn factor(written: &str) -> Result<f64, String> {
    match written.parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(factor),
        _ => Err("takes a number above 0, such as 2 or 0.5".to_owned()),
    }
}

/// Parses how many questions are under way at once.
pub(crate) fn window(written: &str) -> Result<usize, String> {
    const MAX: usize = 1 << 20;
    match written.parse() {
        Ok(window) if (1..=MAX).contains(&window) => Ok(window),
        _ => Err(format!("takes a number from 1 to {MAX}")),
    }
}

/// Parses the limit of a queue, which holds one datagram more. The memory of a queue is limited by the send buffers of its
/// senders alone.
pub(crate) fn queue(written: &str) -> Result<u32, String> {
    const MAX: u32 = 1_000_000;
    match written.parse() {
        Ok(limit) if (1..=MAX).contains(&limit) => Ok(limit),
        _ => Err(format!("takes a number from 1 to {MAX}")),
    }
}

/// Parses a number of packets.
pub(crate) fn count(written: &str) -> Result<u64, String> {
    match written.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("takes a number from 1 up".to_owned()),
    }
}

/// Parses the number of a descriptor of this process.
pub(crate) fn number(written: &str) -> Result<RawFd, String> {
    match written.parse() {
        Ok(number) if number >= 0 => Ok(number),
        _ => Err("takes a descriptor number from 0 up".to_owned()),
    }
}

/// Parses a size for control data, in bytes. The kernel's limit, net.core.optmem_max, is far below MAX.
pub(crate) fn room(written: &str) -> Result<u32, String> {
    const MAX: u32 = 16 << 20;
    match written.parse() {
        Ok(bytes) if bytes <= MAX => Ok(bytes),
        _ => Err(format!("takes a number of bytes from 0 to {MAX}")),
    }
}

pub(crate) fn replies(written: &str) -> Result<Replies, String> {
    match written {
        "all" => Ok(Replies::All),
        number => match number.parse() {
            Ok(count) if count > 0 => Ok(Replies::Count(count)),
            _ => Err("takes a number from 1 up, or all".to_owned()),
        },
    }
}

pub(crate) fn descriptor(written: &str) -> Result<Descriptor, String> {
    let (pid, number) = match written.split_once(':') {
        Some((pid, number)) => (Some(pid), number),
        None => (None, written),
    };
    let pid = pid.map(|pid| {
        pid.parse()
            .ok()
            .filter(|pid| *pid > 0)
            .ok_or("takes PID:FD with a process number from 1 up")
    });
    let number = number.parse().ok().filter(|number| *number >= 0);
    Ok(Descriptor {
        pid: pid.transpose()?,
        number: number.ok_or("takes a descriptor number from 0 up, with a process as PID:FD")?,
    })
}

/// Makes the parser of an open socket: `FD`, `PID:FD`, or an address, which has a letter, `/`, `.` or `@` in it.
pub(crate) fn open_socket() -> ValueParser {
    let marks_address =
        |byte: &u8| byte.is_ascii_alphabetic() || b"/.@".contains(byte) || !byte.is_ascii();
    OsStringValueParser::new()
        .try_map(move |written| {
            if written.as_bytes().iter().any(marks_address) {
                return parse_peer(&written).map(OpenSocket::Bound);
            }
            descriptor(&written.to_string_lossy()).map(OpenSocket::Descriptor)
        })
        .into()
}

pub(crate) fn credentials(written: &str) -> Result<Claim, String> {
    if written == "own" {
        return Ok(Claim::Own);
    }
    let parts: Vec<&str> = written.split(':').collect();
    let [pid, uid, gid] = parts.as_slice() else {
        return Err("takes three numbers, PID:UID:GID".to_owned());
    };
    let parsed = (pid.parse(), uid.parse(), gid.parse());
    let (Ok(pid), Ok(uid), Ok(gid)) = parsed else {
        return Err("takes three numbers, PID:UID:GID".to_owned());
    };
    if pid < 1 {
        return Err("takes PID:UID:GID with a process number from 1 up".to_owned());
    }
    Ok(Claim::Of(Credentials { pid, uid, gid }))
}

pub(crate) fn mode(written: &str) -> Result<u32, String> {
    match u32::from_str_radix(written, 8) {
        Ok(mode) if mode <= 0o7777 && !written.starts_with('+') => Ok(mode),
        _ => Err("takes permission bits as octal digits, 0 to 7777".to_owned()),
    }
}

pub(crate) fn owner(written: &str) -> Result<(u32, Option<u32>), String> {
    // No user has the highest number: to chown(2) it means unchanged.
    let number = |digits: &str| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits
            .parse()
            .ok()
            .filter(|number| plain && *number < u32::MAX);
        number.ok_or_else(|| "takes numbers, UID or UID:GID".to_owned())
    };
    match written.split_once(':') {
        None => Ok((number(written)?, None)),
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
    }
}

/// Parses a user, by number or by name.
pub(crate) fn user(written: &str) -> Result<u32, String> {
    if !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_digit()) {
        // To system calls the highest number means no user.
        return match written.parse() {
            Ok(uid) if uid < u32::MAX => Ok(uid),
            _ => Err("there is no user of so high a number".to_owned()),
        };
    }
    match User::from_name(written) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err("there is no user of this name".to_owned()),
        Err(errno) => Err(format!(
            "the user cannot be looked up: {}",
            udgram::strerror(errno as i32)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_is_seconds() {
        assert_eq!(parse_duration("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1m 30s"), Some(Duration::from_secs(90)));
        for wrong in ["", ".", "-1", "1e3", "1 fortnight", "99999999999999999999"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_the_time_from_one_packet_to_the_next() {
        for (written, nanoseconds) in [
            ("1", 1_000_000_000),
            ("100/s", 10_000_000),
            ("3", 333_333_334),
            ("30/m", 2_000_000_000),
            ("7200/h", 500_000_000),
            ("2/ms", 500_000),
            ("18446744073709551615", 1),
        ] {
            let expected = Rate(Duration::from_nanos(nanoseconds));
            assert_eq!(rate(written), Ok(expected), "{written}");
        }
        for wrong in [
            "",
            "0",
            "-1",
            "1.5",
            "1/",
            "/s",
            "1/d",
            "1/s/s",
            "18446744073709551616",
        ] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_open_socket_is_an_address_if_it_has_a_letter_or_a_mark_in_it() {
        let parse = |written: &str| {
            let command = clap::Command::new("").no_binary_name(true);
            let argument = clap::Arg::new("socket")
                .allow_hyphen_values(true)
                .value_parser(open_socket());
            let matches = command.arg(argument).try_get_matches_from([written]);
            matches.map(|mut matches| matches.remove_one::<OpenSocket>("socket"))
        };
        for (written, pid, number) in [("3", None, 3), ("812:3", Some(812), 3)] {
            let descriptor = OpenSocket::Descriptor(Descriptor { pid, number });
            assert_eq!(parse(written).unwrap(), Some(descriptor), "{written}");
        }
        for written in ["a", "3a", "./3", "/3", "3.sock", "@3", "1:2:x", "\u{e9}"] {
            let address = Address::parse(written.as_bytes()).unwrap().into_owned();
            assert_eq!(parse(written).unwrap(), Some(OpenSocket::Bound(address)));
        }
        for wrong in ["", "-1", "1:", ":1", "1:2:3", "3 4", "@\\x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_user_is_a_number_or_a_name_of_this_system() {
        assert_eq!(user("0"), Ok(0));
        assert_eq!(user("root"), Ok(0));
        for wrong in [
            "",
            "-1",
            "4294967295",
            "99999999999",
            "no such user",
            "a\0b",
        ] {
            assert!(user(wrong).is_err(), "{wrong:?}");
        }
    }
}
