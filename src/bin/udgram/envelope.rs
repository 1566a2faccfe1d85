//! Envelopes: one JSON object a line, with a packet and what is known about it.

use crate::cli::Protocol;
use crate::line::{base64_to_datagram, write_base64, write_string};
use crate::value::{Descriptor, parse_peer};
use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;
use udgram::ancillary::Credentials;
use udgram::protocol::{DatagramProtocol, Json, ParseError};
use udgram::{Address, Datagram, describe_descriptor};

/// What an envelope shows beside the packet.
#[derive(Debug)]
pub(crate) struct Fields {
    protocol: Protocol,
    /// Whether it shows the sender's credentials.
    credentials: bool,
    clock: Clock,
}

/// Writes times; what it wrote last serves for all of the same second.
#[derive(Debug, Default)]
struct Clock {
    second: u64,
    /// RFC 3339 up to the second, without the zone.
    text: String,
}

impl Clock {
    fn write(&mut self, time: SystemTime, json: &mut Vec<u8>) {
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        if self.text.is_empty() || self.second != since.as_secs() {
            self.second = since.as_secs();
            self.text = humantime::format_rfc3339_seconds(time).to_string();
            self.text.truncate(self.text.trim_end_matches('Z').len());
        }
        json.extend_from_slice(self.text.as_bytes());
        let mut fraction = *b".000000000Z";
        let mut nanoseconds = since.subsec_nanos();
        for digit in fraction[1..10].iter_mut().rev() {
            *digit += (nanoseconds % 10) as u8;
            nanoseconds /= 10;
        }
        json.extend_from_slice(&fraction);
    }
}

impl Fields {
    pub(crate) fn new(protocol: Protocol, credentials: bool) -> Self {
        Self {
            protocol,
            credentials,
            clock: Clock::default(),
        }
    }

    /// Appends the envelope of `datagram` and a line end, with its packet or why it is none.
    /// Descriptors have the numbers that `numbers` gives them, or else their own.
    pub(crate) fn write(
        &mut self,
        datagram: &Datagram<'_>,
        packet: Result<&[u8], &udgram::Error>,
        numbers: Option<&[RawFd]>,
        json: &mut Vec<u8>,
    ) {
        json.push(b'{');
        if let Some(time) = datagram.ancillary.time {
            json.extend_from_slice(b"\"time\":\"");
            self.clock.write(time, json);
            json.extend_from_slice(b"\",");
        }
        json.extend_from_slice(b"\"from\":");
        write_address("from", &datagram.from(), json);
        // A vector takes what is written to it, here and below.
        let _ = write!(json, ",\"size\":{}", datagram.size);
        match packet {
            Ok(packet) => {
                json.extend_from_slice(b",\"packet\":");
                self.protocol.write_value(packet, datagram.bytes, json);
            }
            Err(error) => {
                let kind = if datagram.is_cut() {
                    "truncated"
                } else {
                    "parse"
                };
                let _ = write!(json, ",\"error\":{{\"kind\":\"{kind}\",\"message\":");
                write_string(error.cause(), json);
                json.extend_from_slice(b"},\"raw\":");
                write_base64(datagram.bytes, json);
            }
        }
        if let Some(credentials) = datagram.ancillary.credentials.filter(|_| self.credentials) {
            json.extend_from_slice(b",\"creds\":");
            write_credentials(credentials, json);
        }
        if !datagram.ancillary.descriptors.is_empty() {
            json.extend_from_slice(b",\"fds\":[");
            for (index, descriptor) in datagram.ancillary.descriptors.iter().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                let number = numbers.and_then(|numbers| numbers.get(index).copied());
                let description = describe_descriptor(descriptor.as_fd());
                let _ = write!(
                    json,
                    "{{\"fd\":{},\"type\":",
                    number.unwrap_or(descriptor.as_raw_fd())
                );
                write_string(&description.kind, json);
                json.extend_from_slice(b",\"path\":");
                write_string(&description.target.to_string_lossy(), json);
                if str::from_utf8(description.target.as_bytes()).is_err() {
                    json.extend_from_slice(b",\"path_raw\":");
                    write_base64(description.target.as_bytes(), json);
                }
                if let Some(access) = description.access {
                    let _ = write!(json, ",\"access\":\"{}\"", access.as_str());
                }
                json.push(b'}');
            }
            json.push(b']');
        }
        if datagram.ancillary.truncated {
            json.extend_from_slice(b",\"ancillary_truncated\":true");
        }
        json.extend_from_slice(b"}\n");
    }
}

/// Appends an address as a JSON value: a string, or `null` if it is unnamed. A pathname that is
/// not UTF-8 has its bytes beside it, in the field `NAME_raw`.
pub(crate) fn write_address(name: &str, address: &Address<'_>, json: &mut Vec<u8>) {
    match address {
        Address::Unnamed => json.extend_from_slice(b"null"),
        Address::Pathname(path) => match str::from_utf8(path) {
            Ok(path) if !path.starts_with('@') => write_string(path, json),
            Ok(_) => write_string(&address.to_string(), json),
            Err(_) => {
                write_string(&address.to_string(), json);
                let _ = write!(json, ",\"{name}_raw\":");
                write_base64(path, json);
            }
        },
        Address::Abstract(_) => write_string(&address.to_string(), json),
    }
}

/// Appends credentials as a JSON object; a process that the kernel did not name is `null`.
pub(crate) fn write_credentials(credentials: Credentials, json: &mut Vec<u8>) {
    let Credentials { pid, uid, gid } = credentials;
    let _ = match pid {
        0 => write!(json, "{{\"pid\":null,\"uid\":{uid},\"gid\":{gid}}}"),
        pid => write!(json, "{{\"pid\":{pid},\"uid\":{uid},\"gid\":{gid}}}"),
    };
}

/// Whether the `creds` of an envelope are claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claims {
    /// They are.
    Count,
    /// They are passed over, whatever they are.
    Ignored,
}

/// An envelope to send.
#[derive(Debug, Default)]
pub(crate) struct Letter {
    /// The datagram.
    pub(crate) bytes: Vec<u8>,
    /// Where it goes, if it says so.
    pub(crate) to: Option<Address<'static>>,
    /// Descriptors of this process to attach.
    pub(crate) descriptors: Vec<Descriptor>,
    /// Credentials to claim.
    pub(crate) credentials: Option<Credentials>,
    /// How many entries of `fds` only describe descriptors that a receiver had.
    pub(crate) described: usize,
}

impl Letter {
    /// Reads an envelope; what it has besides `packet`, `raw`, `to`, `fds` and `creds` is passed
    /// over, so that what a receiver printed can be sent again; and so is `creds`, where
    /// [`Claims::Ignored`] says so.
    pub(crate) fn parse(
        line: &[u8],
        protocol: Protocol,
        claims: Claims,
    ) -> Result<Self, ParseError> {
        let text = str::from_utf8(line)
            .map_err(|error| ParseError::new(error.valid_up_to(), "expected UTF-8"))?;
        // The whole line first, so that an error has its place.
        Json.make_datagram(text)?;
        let parts: Parts<'_> = serde_json::Deserializer::from_str(text)
            .deserialize_map(EnvelopeVisitor)
            // It is JSON: it can still be no object, or have half a surrogate pair in a key.
            .map_err(|_| ParseError::new(0, "expected an envelope, a JSON object"))?;
        let at = |value: &RawValue| value.get().as_ptr().addr() - text.as_ptr().addr();
        let bytes = match (parts.packet, parts.raw) {
            (Some(_), Some(_)) => {
                return Err(ParseError::new(
                    0,
                    "expected one of 'packet' and 'raw', not both",
                ));
            }
            (None, None) => return Err(ParseError::new(0, "expected a field 'packet' or 'raw'")),
            (Some(packet), None) => protocol.value_to_datagram(packet).map_err(|error| {
                ParseError::new(at(packet) + error.offset(), error.message().to_owned())
            })?,
            (None, Some(raw)) => string(raw)
                .and_then(|base64| base64_to_datagram(&base64).ok())
                .ok_or_else(|| ParseError::new(at(raw), "expected a string of base64"))?,
        };
        let mut letter = Self {
            bytes,
            ..Self::default()
        };
        if let Some(to) = parts.to.filter(|to| to.get() != "null") {
            let address = string(to)
                .ok_or_else(|| ParseError::new(at(to), "expected an address as a string"))?;
            letter.to =
                Some(parse_peer(&address.into()).map_err(|cause| ParseError::new(at(to), cause))?);
        }
        if let Some(fds) = parts.fds {
            let expected = || ParseError::new(at(fds), "expected an array of descriptor numbers");
            let list: Vec<&RawValue> = serde_json::from_str(fds.get()).map_err(|_| expected())?;
            for entry in list {
                if entry.get().starts_with('{') {
                    letter.described += 1;
                    continue;
                }
                let number = entry
                    .get()
                    .parse()
                    .ok()
                    .filter(|number| *number >= 0)
                    .ok_or_else(expected)?;
                letter.descriptors.push(Descriptor { pid: None, number });
            }
        }
        if let Some(creds) = parts.creds.filter(|_| claims == Claims::Count) {
            letter.credentials = Some(credentials(creds.get()).ok_or_else(|| {
                ParseError::new(
                    at(creds),
                    "expected an object with the numbers pid, uid and gid",
                )
            })?);
        }
        Ok(letter)
    }
}

fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

fn credentials(json: &str) -> Option<Credentials> {
    let fields: serde_json::Value = serde_json::from_str(json).ok()?;
    let number = |name: &str| fields.get(name)?.as_u64();
    Some(Credentials {
        pid: match fields.get("pid") {
            // What a receiver prints that was not told.
            None | Some(serde_json::Value::Null) => Credentials::own().pid,
            Some(pid) => pid.as_i64()?.try_into().ok().filter(|pid| *pid > 0)?,
        },
        uid: number("uid")?.try_into().ok()?,
        gid: number("gid")?.try_into().ok()?,
    })
}

/// The fields of an envelope that count, as they stand in the line.
#[derive(Default)]
struct Parts<'l> {
    packet: Option<&'l RawValue>,
    raw: Option<&'l RawValue>,
    to: Option<&'l RawValue>,
    fds: Option<&'l RawValue>,
    creds: Option<&'l RawValue>,
}

struct EnvelopeVisitor;

impl<'l> Visitor<'l> for EnvelopeVisitor {
    type Value = Parts<'l>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope, a JSON object")
    }

    fn visit_map<A: MapAccess<'l>>(self, mut map: A) -> Result<Parts<'l>, A::Error> {
        let mut parts = Parts::default();
        while let Some(key) = map.next_key::<String>()? {
            let field = match key.as_str() {
                "packet" => &mut parts.packet,
                "raw" => &mut parts.raw,
                "to" => &mut parts.to,
                "fds" => &mut parts.fds,
                "creds" => &mut parts.creds,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = Some(map.next_value()?);
        }
        Ok(parts)
    }
}
