//! The packets of [`Syslog`](super::Syslog): log messages, and their form in JSON.

use super::super::byte_value::{write_bytes, write_members, write_string};
use super::super::{ParseError, json};
use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

/// The names of the facilities by their numbers; syslog(3), and RFC 5424 for 12 to 15.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// The members of a message in JSON.
const MEMBERS: &str = "facility, severity, timestamp, hostname, app, pid, msgid, data and message";

/// The names of the severities by their numbers; syslog(3).
const SEVERITIES: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];

/// The part of a system that a log message is about; syslog(3), `LOG_USER` and others.
///
/// ```
/// use udgram::protocol::Facility;
///
/// let facility = Facility::from_name("local0").unwrap();
/// assert_eq!((facility.number(), facility.name()), (16, "local0"));
/// assert_eq!(Facility::default(), Facility::USER);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Facility(u8);

impl Facility {
    /// Messages of the kernel.
    pub const KERN: Self = Self(0);
    /// Messages of user processes: the default.
    pub const USER: Self = Self(1);
    /// Messages of daemons that have no facility of their own.
    pub const DAEMON: Self = Self(3);

    /// Returns the facility with this number, from 0 to 23.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        (usize::from(number) < FACILITIES.len()).then_some(Self(number))
    }

    /// Returns the facility with this name, such as `daemon` or `local0`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        position(&FACILITIES, name).map(Self)
    }

    /// Returns its number, from 0 to 23.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        FACILITIES[usize::from(self.0)]
    }
}

impl Default for Facility {
    fn default() -> Self {
        Self::USER
    }
}

/// The severity of a log message; syslog(3), `LOG_ERR` and others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // The names say it.
pub enum Severity {
    Emergency,
    Alert,
    Critical,
    Error,
    Warning,
    /// The default.
    #[default]
    Notice,
    Info,
    Debug,
}

impl Severity {
    const ALL: [Self; 8] = [
        Self::Emergency,
        Self::Alert,
        Self::Critical,
        Self::Error,
        Self::Warning,
        Self::Notice,
        Self::Info,
        Self::Debug,
    ];

    /// Returns the severity with this number, from 0 to 7.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Returns the severity with this name: `emerg`, `alert`, `crit`, `err`, `warning`, `notice`, `info` or
    /// `debug`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::from_number(position(&SEVERITIES, name)?)
    }

    /// Returns its number, from 0 to 7.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        SEVERITIES[usize::from(self.number())]
    }
}

fn position(names: &[&str], name: &str) -> Option<u8> {
    let place = names.iter().position(|other| *other == name)?;
    u8::try_from(place).ok()
}

/// An element of the structured data of RFC 5424.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct SyslogElement {
    /// Its name, such as `timeQuality` or `exampleSDID@32473`.
    pub id: String,
    /// Its parameters in order: names, which may repeat, and values.
    pub params: Vec<(String, String)>,
}

/// A log message: the packet of [`Syslog`](super::Syslog). What is not set is `None` or empty.
///
/// ```
/// use udgram::protocol::{Severity, SyslogMessage};
///
/// let message = SyslogMessage {
///     severity: Severity::Error,
///     app: Some("backup".into()),
///     message: b"disk full".to_vec(),
///     ..SyslogMessage::default()
/// };
/// let json = r#"{"facility":"user","severity":"err","app":"backup","message":"disk full"}"#;
/// assert_eq!(message.to_json(), json);
/// assert_eq!(SyslogMessage::from_json(json)?, message);
/// # Ok::<(), udgram::protocol::ParseError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct SyslogMessage {
    /// The facility; `user` by default.
    pub facility: Facility,
    /// The severity; `notice` by default.
    pub severity: Severity,
    /// The time, unchanged: `Nov 22 08:41:00`, or in the form of RFC 3339.
    pub timestamp: Option<String>,
    /// The name of the host.
    pub hostname: Option<String>,
    /// The name of the program: `TAG` of RFC 3164, `APP-NAME` of RFC 5424.
    pub app: Option<String>,
    /// The process, a number in most messages: `PROCID` of RFC 5424.
    pub pid: Option<String>,
    /// The type of message: `MSGID` of RFC 5424.
    pub msgid: Option<String>,
    /// The structured data of RFC 5424.
    pub data: Vec<SyslogElement>,
    /// The text; bytes, because not all programs write UTF-8.
    pub message: Vec<u8>,
}

impl SyslogMessage {
    /// Returns the text; `None` if it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.message).ok()
    }

    /// Returns the message as a JSON object: `facility` and `severity` by their names, and what is set of
    /// `timestamp`, `hostname`, `app`, `pid`, `msgid`, `data` and `message`.
    ///
    /// `data` is an object of an object for each element; a parameter that repeats has an array of its values, at
    /// the place of the first. `message` is an array of its bytes if it is not UTF-8.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = format!(
            "{{\"facility\":\"{}\",\"severity\":\"{}\"",
            self.facility.name(),
            self.severity.name()
        );
        for (name, value) in [
            ("timestamp", &self.timestamp),
            ("hostname", &self.hostname),
            ("app", &self.app),
            ("pid", &self.pid),
            ("msgid", &self.msgid),
        ] {
            if let Some(value) = value {
                json.push_str(",\"");
                json.push_str(name);
                json.push_str("\":");
                write_string(value, &mut json);
            }
        }
        if !self.data.is_empty() {
            json.push_str(",\"data\":");
            write_data(&self.data, &mut json);
        }
        if !self.message.is_empty() {
            json.push_str(",\"message\":");
            write_bytes(&self.message, &mut json);
        }
        json.push('}');
        json
    }

    /// Parses a JSON object in the form of [`to_json`](Self::to_json); each member may be absent.
    ///
    /// Fails on other members, and on values of other types.
    pub fn from_json(json: &str) -> Result<Self, ParseError> {
        let object = json::check(json)?.value;
        let mut message = Self::default();
        let mut seen = Vec::new();
        for (name, value) in members(json, object)? {
            if seen.contains(&name) {
                return Err(at(json, value, format!("expected one '{name}', not two")));
            }
            match name.as_str() {
                "facility" => {
                    message.facility = Facility::from_name(&string(json, value)?).ok_or_else(|| {
                        let expected = "expected a facility: kern, user, mail, daemon, local0 or another of syslog(3)";
                        at(json, value, expected)
                    })?;
                }
                "severity" => {
                    message.severity =
                        Severity::from_name(&string(json, value)?).ok_or_else(|| {
                            let expected =
                                format!("expected a severity: {}", SEVERITIES.join(", "));
                            at(json, value, expected)
                        })?;
                }
                "timestamp" => message.timestamp = Some(string(json, value)?),
                "hostname" => message.hostname = Some(string(json, value)?),
                "app" => message.app = Some(string(json, value)?),
                "pid" => message.pid = Some(string(json, value)?),
                "msgid" => message.msgid = Some(string(json, value)?),
                "data" => message.data = data(json, value)?,
                "message" => message.message = bytes(json, value)?,
                _ => {
                    let expected = format!("expected no '{name}', but {MEMBERS}");
                    return Err(at(json, value, expected));
                }
            }
            seen.push(name);
        }
        Ok(message)
    }
}

fn write_data(data: &[SyslogElement], json: &mut String) {
    for (index, element) in data.iter().enumerate() {
        json.push(if index == 0 { '{' } else { ',' });
        write_string(&element.id, json);
        json.push(':');
        let params = element.params.iter();
        let params = params.map(|(name, value)| (name.as_str(), value.as_bytes()));
        write_members(params, element.params.len(), json);
    }
    json.push('}');
}

/// Makes an error at a value in a text.
fn at(json: &str, value: &RawValue, message: impl Into<Cow<'static, str>>) -> ParseError {
    ParseError::new(offset(json, value.get()), message)
}

/// Returns the offset of a part of a text.
fn offset(json: &str, part: &str) -> usize {
    part.as_ptr().addr() - json.as_ptr().addr()
}

fn string(json: &str, value: &RawValue) -> Result<String, ParseError> {
    serde_json::from_str(value.get()).map_err(|_| at(json, value, "expected a string"))
}

fn bytes(json: &str, value: &RawValue) -> Result<Vec<u8>, ParseError> {
    if value.get().starts_with('[') {
        let bytes = serde_json::from_str(value.get());
        return bytes.map_err(|_| at(json, value, "expected a string or an array of bytes"));
    }
    string(json, value).map(String::into_bytes)
}

fn data(json: &str, value: &RawValue) -> Result<Vec<SyslogElement>, ParseError> {
    let mut data = Vec::new();
    let mut ids = HashSet::new();
    for (id, value) in members(json, value.get())? {
        if !ids.insert(id.clone()) {
            return Err(at(
                json,
                value,
                format!("expected one element '{id}', not two"),
            ));
        }
        let mut params = Vec::new();
        for (name, value) in members(json, value.get())? {
            if !value.get().starts_with('[') {
                params.push((name, string(json, value)?));
                continue;
            }
            let values: Vec<String> = serde_json::from_str(value.get())
                .ok()
                .filter(|values: &Vec<String>| !values.is_empty())
                .ok_or_else(|| at(json, value, "expected a string or an array of strings"))?;
            params.extend(values.into_iter().map(|value| (name.clone(), value)));
        }
        data.push(SyslogElement { id, params });
    }
    Ok(data)
}

/// Returns the members of an object that is a part of a valid text.
fn members<'t>(json: &str, object: &'t str) -> Result<Vec<(String, &'t RawValue)>, ParseError> {
    serde_json::Deserializer::from_str(object)
        .deserialize_map(Members)
        .map_err(|_| ParseError::new(offset(json, object), "expected an object"))
}

struct Members;

impl<'t> Visitor<'t> for Members {
    type Value = Vec<(String, &'t RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_facility_and_severity_has_a_name() {
        for number in 0..=255 {
            let facility = Facility::from_number(number);
            assert_eq!(facility.is_some(), number < 24);
            if let Some(facility) = facility {
                assert_eq!(Facility::from_name(facility.name()), Some(facility));
            }
            let severity = Severity::from_number(number);
            assert_eq!(severity.is_some(), number < 8);
            if let Some(severity) = severity {
                assert_eq!(severity.number(), number);
                assert_eq!(Severity::from_name(severity.name()), Some(severity));
            }
        }
        assert_eq!(Severity::from_name("warn"), None);
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_place() {
        for (json, offset) in [
            ("1", 0),
            (" [1]", 1),
            (r#"{"facility":1}"#, 12),
            (r#"{"facility":"users"}"#, 12),
            (r#"{"severity":"error"}"#, 12),
            (r#"{"app":null}"#, 7),
            (r#"{"pid":812}"#, 7),
            (r#"{"host":"x"}"#, 8),
            (r#"{"app":"x", "app":"y"}"#, 18),
            (r#"{"message":[256]}"#, 11),
            (r#"{"message":1}"#, 11),
            (r#"{"data":[]}"#, 8),
            (r#"{"data":{"a":1}}"#, 13),
            (r#"{"data":{"a":{"b":1}}}"#, 18),
            (r#"{"data":{"a":{"b":[]}}}"#, 18),
            (r#"{"data":{"a":{},"a":{}}}"#, 20),
            (r#"{"app":"\ud800"}"#, 7),
            (r#"{"app":"x",}"#, 11),
        ] {
            let error = SyslogMessage::from_json(json).expect_err(json);
            assert_eq!(error.offset(), offset, "{json}: {error}");
        }
    }
}
