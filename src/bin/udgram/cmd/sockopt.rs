//! `udgram sockopt`, and `--sockopt` of the other commands: options as they are written.

use crate::cli::Sockopt;
use crate::color;
use crate::endpoint::{self, Endpoint, Source};
use crate::exit::Exit;
use crate::output::Output;
use crate::report::Report;
use crate::signal::Signals;
use crate::value::parse_duration;
use anyhow::Result;
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use humantime::format_duration;
use nix::errno::Errno;
use serde_json::Value as Json;
use std::time::Duration;
use udgram::sockopt::{self, Access, Kind, SocketOption, Value};
use udgram::wait::Wake;
use udgram::{Address, DatagramSocket, Error, ErrorKind, Quoted, Subject};

/// A socket option and the value to set it to: `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    option: SocketOption,
    value: Value,
}

impl Setting {
    /// Reads `NAME=VALUE`. What cannot be meant is an error of the kind [`ErrorKind::Unusable`].
    pub(crate) fn parse(written: &str) -> Result<Self> {
        match Request::parse(written)? {
            Request::Set(setting) => Ok(setting),
            Request::Show(option) => Err(Error::new(
                ErrorKind::Unusable,
                "set the socket option",
                Subject::Option(option.name().to_owned()),
                "no value is given",
            )
            .with_hint(format!("write {}=VALUE", option.name()))
            .into()),
        }
    }

    /// Sets the option.
    pub(crate) fn apply(&self, socket: &DatagramSocket) -> udgram::Result<()> {
        sockopt::set(socket, &self.option, &self.value)
    }

    /// What the kernel made of the value; the value itself where it does not say.
    fn outcome(&self, socket: &DatagramSocket) -> udgram::Result<Value> {
        match sockopt::get(socket, &self.option) {
            Err(error) if error.errno() == Some(Errno::ENOPROTOOPT) => Ok(self.value.clone()),
            result => result,
        }
    }
}

/// What one argument asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Request {
    Show(SocketOption),
    Set(Setting),
}

impl Request {
    fn parse(written: &str) -> udgram::Result<Self> {
        let Some((name, written)) = written.split_once('=') else {
            return sockopt::find(written).map(Self::Show);
        };
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

    fn parse_all(written: &[String]) -> udgram::Result<Vec<Self>> {
        written.iter().map(|written| Self::parse(written)).collect()
    }

    fn carry_out(&self, socket: &DatagramSocket) -> udgram::Result<(&SocketOption, Value)> {
        match self {
            Self::Show(option) => Ok((option, sockopt::get(socket, option)?)),
            Self::Set(setting) => {
                setting.apply(socket)?;
                Ok((&setting.option, setting.outcome(socket)?))
            }
        }
    }
}

pub(crate) fn run(options: &Sockopt, report: Report) -> Result<Exit> {
    // Before anything is bound: what cannot be meant leaves no trace.
    let asked = Request::parse_all(&options.options)?;
    let request = endpoint::Request {
        source: match Source::of(options.bind.as_ref(), true, &options.inherited)? {
            // Nobody is to answer to it.
            Source::Autobound => Source::Bound(&Address::Unnamed),
            source => source,
        },
        connect: options.connect.as_ref(),
        settings: &[],
        file: &options.file,
        needs: &[],
    };
    let _signals = Signals::install()?;
    let Endpoint {
        socket,
        traces: _traces,
        ..
    } = Endpoint::open(&request, report)?;
    let mut output = Output::new();
    let answer = answer(&socket, &asked, output.terminal)?;
    output.lines.extend(answer.bytes());
    if asked.len() != 1 && color::wanted(options.shown.color, output.terminal) {
        color::paint(&mut output.lines, 0);
    }
    output.lines.push(b'\n');
    output.flush(&Wake::default())?;
    Ok(Exit::Done)
}

/// Does what is asked for: the text for stdout, without its last line end.
///
/// Nothing asked for: one JSON object with all there is to see. One request: its value alone, in
/// the form that `NAME=VALUE` takes back. Several: one JSON object. With `lines`, an object has a
/// line for each member.
fn answer(socket: &DatagramSocket, asked: &[Request], lines: bool) -> Result<String> {
    if let [request] = asked {
        return Ok(text(&request.carry_out(socket)?.1));
    }
    let mut members = if asked.is_empty() {
        overview(socket)?
    } else {
        Members::default()
    };
    for request in asked {
        let (option, value) = request.carry_out(socket)?;
        members.set(option.name(), json(&value));
    }
    Ok(members.object(lines))
}

/// All there is to see of a socket: addresses, queue, options.
fn overview(socket: &DatagramSocket) -> Result<Members> {
    let mut members = Members::default();
    members.set_address("local", &socket.local_address()?);
    let peer = socket.peer_address()?.unwrap_or(Address::Unnamed);
    members.set_address("peer", &peer);
    let mut queue = Members::default();
    let lengths = sockopt::queue(socket)?;
    queue.set("inq", lengths.inq.to_string());
    queue.set("outq", lengths.outq.to_string());
    members.set("queue", queue.object(false));
    for (option, value) in sockopt::list(socket) {
        members.set(option.name(), json(&value));
    }
    Ok(members)
}

/// The members of a JSON object, in the order in which they first came.
#[derive(Debug, Default)]
struct Members(Vec<(String, String)>);

impl Members {
    fn set(&mut self, name: impl Into<String>, json: String) {
        let name = name.into();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, value)) => *value = json,
            None => self.0.push((name, json)),
        }
    }

    fn set_address(&mut self, name: &str, address: &Address<'_>) {
        self.set(
            name,
            match address {
                Address::Unnamed => "null".to_owned(),
                named => string(&named.to_string()),
            },
        );
        if let Address::Pathname(path) = address
            && str::from_utf8(path).is_err()
        {
            self.set(format!("{name}_raw"), string(&BASE64.encode(path)));
        }
    }

    /// The object on one line or, for people, with a line for each member.
    fn object(&self, lines: bool) -> String {
        let [start, colon, between, end] = if lines {
            ["{\n  ", ": ", ",\n  ", "\n}"]
        } else {
            ["{", ":", ",", "}"]
        };
        let members: Vec<String> = self
            .0
            .iter()
            .map(|(name, json)| [&string(name), colon, json].concat())
            .collect();
        [start, &members.join(between), end].concat()
    }
}

/// A JSON string. A terminal may take DEL and what follows it for commands, so they are escaped
/// as JSON itself has it for those before the space.
fn string(text: &str) -> String {
    let escape = |character: char| match character {
        control if control.is_control() => format!("\\u{:04x}", u32::from(control)),
        plain => plain.to_string(),
    };
    Json::from(text).to_string().chars().map(escape).collect()
}

/// A value in JSON: numbers and flags as such, `null` where there is none or no limit, what else
/// has no form in JSON as [`text`] has it.
fn json(value: &Value) -> String {
    match value {
        Value::None | Value::Duration(Duration::ZERO) => "null".to_owned(),
        Value::Flag(on) => on.to_string(),
        Value::Linger(None) => "false".to_owned(),
        Value::Integer(number) | Value::Process(number) => number.to_string(),
        Value::Unsigned(number) => number.to_string(),
        Value::Groups(groups) => Json::from(groups.as_slice()).to_string(),
        Value::Credentials(known) => {
            let pid = match known.pid {
                0 => "null".to_owned(),
                pid => pid.to_string(),
            };
            let mut members = Members::default();
            members.set("pid", pid);
            members.set("uid", known.uid.to_string());
            members.set("gid", known.gid.to_string());
            members.object(false)
        }
        Value::Memory(memory) => {
            let mut members = Members::default();
            for (name, figure) in memory.fields() {
                members.set(name, figure.to_string());
            }
            members.object(false)
        }
        Value::Text(bytes) => string(&String::from_utf8_lossy(bytes)),
        other => string(&text(other)),
    }
}

/// A value alone, as `NAME=VALUE` takes it back.
fn text(value: &Value) -> String {
    let switch = |on| if on { "on" } else { "off" };
    match value {
        Value::None | Value::Duration(Duration::ZERO) => "none".to_owned(),
        Value::Flag(on) => switch(*on).to_owned(),
        Value::Linger(None) => switch(false).to_owned(),
        Value::Duration(time) | Value::Linger(Some(time)) => format_duration(*time).to_string(),
        Value::Bytes(bytes) => format!("hex:{}", HEXLOWER.encode(bytes)),
        Value::Text(bytes) => String::from_utf8_lossy(bytes)
            .chars()
            .map(|character| match character {
                control if control.is_control() => control.escape_default().to_string(),
                plain => plain.to_string(),
            })
            .collect(),
        other => json(other),
    }
}

/// Reads the value of an option; `None` if it takes no such value.
fn parse_value(kind: Kind, written: &str) -> Option<Value> {
    match kind {
        Kind::Flag => flag(written).map(Value::Flag),
        Kind::Integer => i32::try_from(integer(written)?).ok().map(Value::Integer),
        Kind::Unsigned | Kind::Unsigned64 => {
            u64::try_from(integer(written)?).ok().map(Value::Unsigned)
        }
        Kind::Size => size(written).map(Value::Unsigned),
        Kind::Duration if written == "none" => Some(Value::Duration(Duration::ZERO)),
        Kind::Duration => parse_duration(written).ok().map(Value::Duration),
        Kind::Linger if flag(written) == Some(false) && written != "0" => Some(Value::Linger(None)),
        Kind::Linger => parse_duration(written)
            .ok()
            .map(|time| Value::Linger(Some(time))),
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

/// How a value of this kind is written, where that does not go without saying.
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

/// A number, decimal or with `0x`, perhaps negative.
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

/// 32 bits, given as a number with a sign or without.
fn word(number: i128) -> Option<i32> {
    let unsigned = || u32::try_from(number).ok().map(u32::cast_signed);
    i32::try_from(number).ok().or_else(unsigned)
}

/// A number of bytes. `K`, `M`, `G`, also as `KiB` or `Ki`, are powers of 1024; `kB`, `MB`, `GB`
/// are powers of 1000, as in dd(1). The case does not count.
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
        let error = Setting::parse(written).unwrap_err();
        error.downcast::<Error>().unwrap()
    }

    fn done(socket: &DatagramSocket, arguments: &[&str]) -> Result<String> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        answer(socket, &Request::parse_all(&arguments)?, false)
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
    fn a_wrong_value_is_told_what_the_option_takes() {
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

    #[test]
    fn what_is_printed_alone_can_be_given_back() {
        let socket = DatagramSocket::new().unwrap();
        for (name, values) in [
            ("SO_PASSCRED", ["on", "off"].as_slice()),
            ("SO_PEEK_OFF", &["7", "-1"]),
            ("SO_RCVTIMEO", &["1m 30s", "500ms", "none"]),
            ("SO_LINGER", &["3s", "0s", "off"]),
            ("SO_BINDTODEVICE", &["lo", ""]),
        ] {
            for value in values {
                let set = format!("{name}={value}");
                assert_eq!(done(&socket, &[&set]).unwrap(), *value, "{name}");
                assert_eq!(done(&socket, &[name]).unwrap(), *value, "{name}");
            }
        }
        let doubled = done(&socket, &["sndbuf=30000"]).unwrap();
        assert_eq!(doubled, "60000");
    }

    #[test]
    fn several_are_one_object_in_the_order_given() {
        let socket = DatagramSocket::new().unwrap();
        let arguments = ["passcred=on", "Type", "rcvtimeo", "linger", "1:16=0"];
        let text = done(&socket, &arguments).unwrap();
        // 1:16 is SO_PASSCRED again: one member, with what it came to.
        assert_eq!(
            text,
            r#"{"SO_PASSCRED":false,"SO_TYPE":2,"SO_RCVTIMEO":null,"SO_LINGER":false}"#
        );
        let arguments = ["passcred=on", "typ=1"];
        assert!(done(&socket, &arguments).is_err());
        assert_eq!(done(&socket, &["passcred"]).unwrap(), "off");
    }

    #[test]
    fn the_overview_has_addresses_queue_and_options() {
        let (one, other) = DatagramSocket::pair().unwrap();
        one.autobind().unwrap();
        let json = |socket| -> Json { serde_json::from_str(&done(socket, &[]).unwrap()).unwrap() };
        let (one, other) = (json(&one), json(&other));
        assert!(one["local"].as_str().unwrap().starts_with('@'));
        assert_eq!(one["local"], other["peer"]);
        assert_eq!(other["local"], Json::Null);
        assert_eq!(one["queue"], serde_json::json!({"inq": 0, "outq": 0}));
        assert_eq!(one["SO_PEERCRED"]["pid"], std::process::id());
        assert_eq!(one["SO_ERROR"], 0);
        assert!(one["SO_SNDBUF"].as_u64().unwrap() > 0);
        assert_eq!(one["SO_MEMINFO"]["sndbuf"], one["SO_SNDBUF"]);
    }

    #[test]
    fn names_that_are_not_utf8_have_their_bytes_beside_them() {
        let mut members = Members::default();
        members.set_address("local", &Address::Pathname(b"\xff\x1b\xc2\x9b".into()));
        assert_eq!(
            members.object(false),
            r#"{"local":"�\u001b\u009b","local_raw":"/xvCmw=="}"#
        );
    }
}
