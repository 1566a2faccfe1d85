//! Socket options as arguments: `NAME` and `NAME=VALUE`, parsed into options and values, and values
//! formatted the same way. Nothing here touches a socket.

use super::value::parse_duration;
use crate::terminal::{Controls, escape_controls, shell_word};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use humantime::format_duration;
use std::time::Duration;
use udgram::sockopt::{self, Access, Kind, SocketOption, Value};
use udgram::{Error, ErrorKind, Quoted, Subject};

/// A socket option and the value to set it to: `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) option: SocketOption,
    pub(crate) value: Value,
}

impl Setting {
    /// Parses `NAME=VALUE`. An unknown name, a wrong value and a missing one are errors of the kind
    /// [`ErrorKind::Unusable`].
    pub(crate) fn parse(written: &str) -> udgram::Result<Self> {
        match Request::parse(written)? {
            Request::Set(setting) => Ok(setting),
            Request::Show(option) => {
                let error = unusable(option.name(), "no value is given");
                Err(error.with_hint(format!("write {}=VALUE", option.name())))
            }
            Request::Part(part) => Err(unusable(part.name(), "it can only be read")),
        }
    }
}

/// The request of one argument of `udgram sockopt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// `NAME`: show the option.
    Show(SocketOption),
    /// `NAME=VALUE`: set the option, then show it.
    Set(Setting),
    /// `local`, `peer`, `queue`: show this part of the listing, which is not an option.
    Part(Part),
}

/// The parts of the listing of a socket besides its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The address that it is bound to.
    Local,
    /// The address of its peer.
    Peer,
    /// The bytes in its queue, and the bytes that it has sent and that are unread.
    Queue,
}

impl Part {
    /// All, in the order of the listing.
    pub(crate) const ALL: [Self; 3] = [Self::Local, Self::Peer, Self::Queue];

    /// Returns its name in the listing.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Peer => "peer",
            Self::Queue => "queue",
        }
    }

    fn named(name: &str) -> Option<Self> {
        let known = |part: &Self| part.name().eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(known)
    }
}

/// Returns the error of something that cannot be set so.
fn unusable(name: &str, cause: &'static str) -> Error {
    let subject = Subject::Option(name.to_owned());
    Error::new(ErrorKind::Unusable, "set the socket option", subject, cause)
}

impl Request {
    /// Parses `NAME` or `NAME=VALUE`.
    pub(crate) fn parse(written: &str) -> udgram::Result<Self> {
        let (name, written) = match (written.split_once('='), Part::named(written)) {
            (Some(setting), _) => setting,
            (None, Some(part)) => return Ok(Self::Part(part)),
            (None, None) => return sockopt::find(written).map(Self::Show),
        };
        if let Some(part) = Part::named(name) {
            return Err(unusable(part.name(), "it can only be read"));
        }
        let option = sockopt::find(name)?;
        let value = parse_value(option.kind(), written).unwrap_or(Value::None);
        match option.check(&value) {
            Ok(()) => Ok(Self::Set(Setting { option, value })),
            Err(error) => Err(match example(option.kind()) {
                Some(example) if option.access() != Access::Read => {
                    let given = Quoted(written.as_ref());
                    error.with_hint(format!("{given} is given; write {example}"))
                }
                _ => error,
            }),
        }
    }

    /// Parses all arguments; the first error counts. A value or an address in place of an option
    /// gets a hint.
    pub(crate) fn parse_all(written: &[String]) -> udgram::Result<Vec<Self>> {
        let mut requests: Vec<Self> = Vec::with_capacity(written.len());
        for word in written {
            let request = Self::parse(word).map_err(|error| match requests.last() {
                Some(Self::Show(option)) if parse_value(option.kind(), word).is_some() => {
                    let name = &written[requests.len() - 1];
                    error.with_hint(format!("did you mean {name}={word}?"))
                }
                _ if is_address(word) => error.with_hint(format!(
                    "that is an address: -s {}",
                    shell_word(word.as_ref())
                )),
                _ => error,
            })?;
            requests.push(request);
        }
        Ok(requests)
    }
}

/// Returns whether it is an address in place of an option: no option's name has such characters.
fn is_address(written: &str) -> bool {
    !written.contains('=') && written.contains(['/', '.', '@'])
}

/// Formats a value as `NAME=VALUE` takes it; `None` for the values of read-only options that have
/// no such form (credentials, groups, memory).
pub(crate) fn format_value(value: &Value) -> Option<String> {
    let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
    Some(match value {
        Value::None | Value::Duration(Duration::ZERO) => "none".to_owned(),
        Value::Flag(on) => switch(*on),
        Value::Linger(None) => switch(false),
        Value::Duration(time) | Value::Linger(Some(time)) => format_duration(*time).to_string(),
        Value::Integer(number) | Value::Process(number) => number.to_string(),
        Value::Unsigned(number) => number.to_string(),
        Value::Bytes(bytes) => format!("hex:{}", HEXLOWER.encode(bytes)),
        Value::Text(bytes) => {
            escape_controls(&String::from_utf8_lossy(bytes), Controls::Rust).into_owned()
        }
        _ => return None,
    })
}

/// Parses the value of an option; `None` if an option of this kind cannot have it.
fn parse_value(kind: Kind, written: &str) -> Option<Value> {
    match kind {
        Kind::Flag => flag(written).map(Value::Flag),
        Kind::Integer => i32::try_from(integer(written)?).ok().map(Value::Integer),
        Kind::Unsigned | Kind::Unsigned64 => {
            u64::try_from(integer(written)?).ok().map(Value::Unsigned)
        }
        Kind::Size => size(written).map(Value::Unsigned),
        Kind::Duration if written == "none" => Some(Value::Duration(Duration::ZERO)),
        Kind::Duration => parse_duration(written).map(Value::Duration),
        Kind::Linger if flag(written) == Some(false) && written != "0" => Some(Value::Linger(None)),
        Kind::Linger => parse_duration(written).map(|time| Value::Linger(Some(time))),
        Kind::Text => Some(Value::Text(written.as_bytes().to_vec())),
        Kind::Raw => match written.strip_prefix("hex:") {
            Some(digits) => HEXLOWER_PERMISSIVE
                .decode(digits.as_bytes())
                .ok()
                .map(Value::Bytes),
            None => integer(written).and_then(word).map(Value::Integer),
        },
        _ => None,
    }
}

/// Returns how a value of this kind is written, for hints.
fn example(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Flag => "on or off",
        Kind::Integer | Kind::Unsigned | Kind::Unsigned64 => "a number such as 6 or 0x1f",
        Kind::Size => "a size such as 65536, 64K, or 1MiB",
        Kind::Duration => "a duration such as 250ms, 1m 30s, 5 (seconds), or none",
        Kind::Linger => "off, or a duration such as 5s",
        Kind::Raw => "a number such as 6 or 0x1f, or bytes such as hex:00ff",
        _ => return None,
    })
}

/// Parses the words for on and off.
fn flag(written: &str) -> Option<bool> {
    let is = |word: &&str| word.eq_ignore_ascii_case(written);
    if ["on", "true", "yes", "1"].iter().any(is) {
        Some(true)
    } else if ["off", "false", "no", "0"].iter().any(is) {
        Some(false)
    } else {
        None
    }
}

/// Parses an integer, decimal or hexadecimal with `0x`.
fn integer(written: &str) -> Option<i128> {
    let (sign, digits) = match written.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, written),
    };
    let hex = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"));
    let (digits, radix) = hex.map_or((digits, 10), |digits| (digits, 16));
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let number = u64::from_str_radix(digits, radix).ok()?;
    Some(sign * i128::from(number))
}

/// Returns the 32 bits of a signed or an unsigned number.
fn word(number: i128) -> Option<i32> {
    let unsigned = || u32::try_from(number).ok().map(u32::to_ne_bytes);
    i32::try_from(number)
        .ok()
        .or_else(|| unsigned().map(i32::from_ne_bytes))
}

/// Parses a number of bytes. `K`, `M`, `G`, also as `KiB` or `Ki`, are powers of 1024; `kB`, `MB`, `GB`
/// are powers of 1000, as in dd(1). Case is ignored.
fn size(written: &str) -> Option<u64> {
    if let Some(number) = integer(written) {
        return u64::try_from(number).ok();
    }
    let end = written.find(|digit: char| !digit.is_ascii_digit())?;
    let (digits, unit) = written.split_at(end);
    let number: u64 = digits.parse().ok()?;
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(written: &str) -> Value {
        Setting::parse(written).unwrap().value
    }

    fn refused(written: &str) -> Error {
        Setting::parse(written).unwrap_err()
    }

    #[test]
    fn values_are_read_as_the_option_takes_them() {
        let size = Value::Unsigned;
        let seconds = Duration::from_secs;
        for (written, value) in [
            ("passcred=on", Value::Flag(true)),
            ("passcred=YES", Value::Flag(true)),
            ("passcred=1", Value::Flag(true)),
            ("passcred=False", Value::Flag(false)),
            ("SO_PASSCRED=no", Value::Flag(false)),
            ("sndbuf=65536", size(65536)),
            ("sndbuf=0x10000", size(65536)),
            ("sndbuf=64k", size(65536)),
            ("sndbuf=64KiB", size(65536)),
            ("sndbuf=64 KiB", size(65536)),
            ("sndbuf=1M", size(1 << 20)),
            ("sndbuf=1MiB", size(1 << 20)),
            ("sndbuf=1MB", size(1_000_000)),
            ("sndbuf=7kB", size(7_000)),
            ("sndbuf=1G", size(1 << 30)),
            ("sndbuf=1GB", size(1_000_000_000)),
            ("rcvbufforce=12B", size(12)),
            ("peek_off=-1", Value::Integer(-1)),
            ("priority=0x6", Value::Integer(6)),
            ("mark=0xffffffff", Value::Unsigned(0xffff_ffff)),
            (
                "rcvtimeo=250ms",
                Value::Duration(Duration::from_millis(250)),
            ),
            ("rcvtimeo=1m 30s", Value::Duration(seconds(90))),
            ("rcvtimeo=5", Value::Duration(seconds(5))),
            ("rcvtimeo=none", Value::Duration(Duration::ZERO)),
            ("linger=off", Value::Linger(None)),
            ("linger=5s", Value::Linger(Some(seconds(5)))),
            ("linger=0", Value::Linger(Some(Duration::ZERO))),
            ("bindtodevice=", Value::Text(Vec::new())),
            ("bindtodevice=a=b", Value::Text(b"a=b".to_vec())),
            ("1:7=64k", size(65536)),
            ("1:9999=-2", Value::Integer(-2)),
            ("1:9999=0xfffffffe", Value::Integer(-2)),
            ("1:9999=hex:00fF", Value::Bytes(vec![0, 255])),
            ("1:9999=hex:", Value::Bytes(Vec::new())),
        ] {
            assert_eq!(parsed(written), value, "{written}");
        }
    }

    #[test]
    fn the_error_of_a_wrong_value_has_the_accepted_values() {
        for (written, takes) in [
            ("passcred=maybe", "it takes on or off"),
            ("passcred=2", "it takes on or off"),
            ("passcred=", "it takes on or off"),
            ("sndbuf=big", "it takes a size in bytes"),
            ("sndbuf=-1", "it takes a size in bytes"),
            ("sndbuf=2G", "it takes a size in bytes"),
            ("sndbuf=99999999999999999999G", "it takes a size in bytes"),
            ("sndbuf=0x1M", "it takes a size in bytes"),
            ("rcvtimeo=soon", "it takes a duration"),
            ("rcvtimeo=-1", "it takes a duration"),
            (
                "linger=1500ms",
                "it takes off or a duration of whole seconds",
            ),
            ("priority=4294967296", "it takes an integer"),
            ("priority=--1", "it takes an integer"),
            ("mark=-1", "it takes an integer from 0 up"),
            ("1:9999=hex:0", "it takes an integer of 32 bits, or bytes"),
            ("type=2", "it can only be read"),
            ("peercred=1", "it can only be read"),
            ("passcred", "no value is given"),
            ("sndbuff=1", "there is no such option"),
        ] {
            let error = refused(written);
            assert_eq!(error.kind(), ErrorKind::Unusable, "{written}");
            assert!(error.to_string().contains(takes), "{written}: {error}");
        }
        assert_eq!(
            refused("sndbuf=a\nb").hint(),
            Some("'a\\nb' is given; write a size such as 65536, 64K, or 1MiB")
        );
        assert_eq!(refused("type=2").hint(), None);
        assert_eq!(refused("sndbuff=1").hint(), Some("did you mean SO_SNDBUF?"));
    }
}
