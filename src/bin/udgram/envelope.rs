//! Writes the envelopes of received datagrams, and parses those that `send` reads. An envelope is one
//! JSON object on a line: a packet with its sender, its time and its ancillary data.

use crate::cli::Protocol;
use crate::cli::value::{Descriptor, parse_peer};
use crate::commands::Commands;
use crate::json::{Layout, Object, write_credentials};
use crate::protocol::base64_to_datagram;
use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;
use udgram::ancillary::Credentials;
use udgram::protocol::{DatagramProtocol, Json, ParseError, ParseErrorKind, Text};
use udgram::{Address, Datagram, ObservedDatagram, describe_descriptor};

/// A writer of the envelopes of received datagrams.
#[derive(Debug)]
pub(crate) struct EnvelopeWriter {
    protocol: Protocol,
    /// The names of the senders' commands; `None` if envelopes do not have the sender's credentials.
    pub(crate) commands: Option<Commands>,
    clock: Clock,
    last: LastSender,
}

/// A formatter of times. It keeps the text of the last second, for more times in the same one.
#[derive(Debug, Default)]
struct Clock {
    second: u64,
    /// The second in RFC 3339, without the zone.
    text: String,
}

impl Clock {
    /// Appends `time` in RFC 3339 with nanoseconds.
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

/// The JSON of the last sender's address and credentials: most datagrams come from the same sender as the
/// one before.
#[derive(Debug)]
struct LastSender {
    address: Address<'static>,
    /// The member `from`, and `from_raw` if there is one; empty before the first datagram.
    from: Vec<u8>,
    credentials: Option<Credentials>,
    command: Option<Vec<u8>>,
    /// The value of `creds`.
    creds: Vec<u8>,
}

impl LastSender {
    fn new() -> Self {
        Self {
            address: Address::Unnamed,
            from: Vec::new(),
            credentials: None,
            command: None,
            creds: Vec::new(),
        }
    }

    /// Returns the members for a sender's address.
    fn from(&mut self, address: Address<'_>) -> &[u8] {
        if self.from.is_empty() || self.address != address {
            self.from.clear();
            Object::within(&mut self.from).address("from", &address);
            self.address = address.into_owned();
        }
        &self.from
    }

    /// Returns the value of `creds` for a sender's credentials and the name of its command.
    fn creds(&mut self, credentials: Credentials, command: Option<&[u8]>) -> &[u8] {
        if self.credentials != Some(credentials) || self.command.as_deref() != command {
            self.creds.clear();
            write_credentials(credentials, command, &mut self.creds);
            self.credentials = Some(credentials);
            self.command = command.map(<[u8]>::to_vec);
        }
        &self.creds
    }
}

/// The time of a packet relative to the question that it may answer, and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival<'a> {
    /// After the question, or there is no question.
    Timely,
    /// Before the question, so it is no answer to it.
    Late,
    /// It is passed on to this address.
    Passing(&'a Address<'a>),
}

impl EnvelopeWriter {
    pub(crate) fn new(protocol: Protocol, credentials: bool) -> Self {
        Self {
            protocol,
            commands: credentials.then(Commands::new),
            clock: Clock::default(),
            last: LastSender::new(),
        }
    }

    /// Appends the envelope of `datagram`. `packet` is the packet, or the cause why the
    /// datagram is not a valid packet, and `bytes` are its bytes; `numbers` replaces the numbers of the
    /// descriptors.
    pub(crate) fn write(
        &mut self,
        datagram: &Datagram<'_>,
        bytes: &[u8],
        packet: Result<&[u8], &str>,
        numbers: Option<&[RawFd]>,
        arrival: Arrival<'_>,
        json: &mut Vec<u8>,
    ) {
        let mut object = Object::begin(json, Layout::Compact);
        if let Some(time) = datagram.ancillary.time {
            self.write_time(time, object.member("time"));
        }
        object.members(self.last.from(datagram.sender()));
        if let Arrival::Passing(to) = arrival {
            object.address("to", to);
        }
        object.number("size", datagram.size);
        self.write_packet(&mut object, bytes, datagram.size, packet);
        if arrival == Arrival::Late {
            object.literal("late", true);
        }
        if let (Some(credentials), Some(commands)) =
            (datagram.ancillary.credentials, &mut self.commands)
        {
            let creds = self.last.creds(credentials, commands.name(datagram));
            object.member("creds").extend_from_slice(creds);
        }
        let descriptors = &datagram.ancillary.descriptors;
        if !descriptors.is_empty() {
            write_descriptors(descriptors, numbers, object.member("fds"));
        }
        if datagram.ancillary.truncated {
            object.literal("ancillary_truncated", true);
        }
        object.end();
    }

    /// Appends the envelope of an observed datagram. `packet` is the packet, or the cause why
    /// the datagram is not a valid packet.
    pub(crate) fn write_observed(
        &mut self,
        datagram: &ObservedDatagram<'_>,
        packet: Result<&[u8], &str>,
        json: &mut Vec<u8>,
    ) {
        let mut object = Object::begin(json, Layout::Compact);
        self.write_time(datagram.time, object.member("time"));
        object.number("size", datagram.size);
        self.write_packet(&mut object, datagram.bytes, datagram.size, packet);
        if let Some(sender) = datagram.sender {
            let json = object.member("creds");
            write_credentials(sender.credentials, Some(sender.comm), json);
        }
        object.end();
    }

    /// Appends a time as a JSON string.
    fn write_time(&mut self, time: SystemTime, json: &mut Vec<u8>) {
        json.push(b'"');
        self.clock.write(time, json);
        json.push(b'"');
    }

    /// Appends the packet; or the cause why a datagram of this size is not a valid packet, and its bytes.
    fn write_packet(
        &self,
        object: &mut Object<'_>,
        bytes: &[u8],
        size: usize,
        packet: Result<&[u8], &str>,
    ) {
        match packet {
            Ok(packet) => {
                let json = object.member("packet");
                self.protocol.write_value(packet, bytes, json);
            }
            Err(what) => {
                let truncated = size > bytes.len();
                let mut cause = Object::begin(object.member("error"), Layout::Compact);
                cause.string("kind", if truncated { "truncated" } else { "parse" });
                cause.string("message", &format!("the packet {what}"));
                cause.end();
                object.base64("raw", bytes);
            }
        }
    }
}

/// Appends the descriptions of received descriptors as a JSON array of objects.
fn write_descriptors(descriptors: &[OwnedFd], numbers: Option<&[RawFd]>, json: &mut Vec<u8>) {
    let mut before = b'[';
    for (index, descriptor) in descriptors.iter().enumerate() {
        json.push(before);
        before = b',';
        let number = numbers.and_then(|numbers| numbers.get(index).copied());
        let description = describe_descriptor(descriptor.as_fd());
        let mut object = Object::begin(json, Layout::Compact);
        object.literal("fd", number.unwrap_or(descriptor.as_raw_fd()));
        object.string("type", &description.kind);
        if !description.target.is_empty() {
            object.string("path", &description.target.to_string_lossy());
        }
        if std::str::from_utf8(description.target.as_bytes()).is_err() {
            object.base64("path_raw", description.target.as_bytes());
        }
        if let Some(access) = description.access {
            object.string("access", access.as_str());
        }
        object.end();
    }
    json.push(b']');
}

/// The treatment of `creds` in an envelope to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claims {
    /// They are sent as the credentials of the sender.
    Sent,
    /// They are ignored, even if they are invalid.
    Ignored,
}

/// The treatment of `time` in an envelope to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// The gaps between them are kept.
    Count,
    /// They are ignored, even if they are invalid.
    Ignored,
}

/// An envelope to send.
#[derive(Debug, Default)]
pub(crate) struct OutgoingEnvelope {
    /// The bytes of the datagram.
    pub(crate) bytes: Vec<u8>,
    /// Its destination, if the envelope has one.
    pub(crate) to: Option<Address<'static>>,
    /// The descriptors of this process to attach.
    pub(crate) descriptors: Vec<Descriptor>,
    /// The credentials to claim.
    pub(crate) credentials: Option<Credentials>,
    /// The time at which it was received.
    pub(crate) time: Option<SystemTime>,
    /// The number of entries of `fds` that are descriptions from a receiver, not descriptors.
    pub(crate) described: usize,
}

impl OutgoingEnvelope {
    /// Parses an envelope. Ignores fields other than `packet`, `raw`, `to`, `fds` and `creds`, so that
    /// an envelope that a receiver printed can be sent; with [`Claims::Ignored`] it ignores `creds`, too, and
    /// with [`Times::Ignored`] `time`.
    pub(crate) fn parse(
        line: &[u8],
        protocol: Protocol,
        claims: Claims,
        times: Times,
    ) -> Result<Self, ParseError> {
        let text = Text.build_packet(line)?;
        // Check the line with our own parser first: its errors have an offset.
        Json.make_datagram(text)?;
        let raw: RawEnvelope<'_> = serde_json::Deserializer::from_str(text)
            .deserialize_map(EnvelopeVisitor)
            // The line is JSON. This fails if it is no object, or if a key has a lone surrogate.
            .map_err(|_| ParseError::of_kind(ParseErrorKind::NotJson, 0, "expected an object"))?;
        let at = |value: &RawValue| value.get().as_ptr().addr() - text.as_ptr().addr();
        let mut envelope = Self {
            bytes: raw.datagram(protocol, at)?,
            ..Self::default()
        };
        if let Some(to) = raw.to.filter(|to| to.get() != "null") {
            let address = string(to)
                .ok_or_else(|| ParseError::new(at(to), "expected an address as a string"))?;
            envelope.to =
                Some(parse_peer(&address.into()).map_err(|cause| ParseError::new(at(to), cause))?);
        }
        if let Some(fds) = raw.fds {
            let expected = || ParseError::new(at(fds), "expected an array of descriptor numbers");
            let list: Vec<&RawValue> = serde_json::from_str(fds.get()).map_err(|_| expected())?;
            for entry in list {
                if entry.get().starts_with('{') {
                    envelope.described += 1;
                    continue;
                }
                let number = entry
                    .get()
                    .parse()
                    .ok()
                    .filter(|number| *number >= 0)
                    .ok_or_else(expected)?;
                envelope.descriptors.push(Descriptor { pid: None, number });
            }
        }
        if let Some(time) = raw.time.filter(|_| times == Times::Count) {
            let expected =
                || ParseError::new(at(time), "expected a time of RFC 3339 in UTC, from 1970 on");
            let parsed = string(time).and_then(|time| humantime::parse_rfc3339(&time).ok());
            envelope.time = Some(parsed.ok_or_else(expected)?);
        }
        if let Some(creds) = raw.creds.filter(|_| claims == Claims::Sent) {
            envelope.credentials = Some(credentials(creds.get()).ok_or_else(|| {
                ParseError::new(
                    at(creds),
                    "expected an object with the numbers pid, uid and gid",
                )
            })?);
        }
        Ok(envelope)
    }
}

/// Returns the string that `value` is.
fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// Parses `creds`.
fn credentials(json: &str) -> Option<Credentials> {
    let fields: serde_json::Value = serde_json::from_str(json).ok()?;
    let number = |name: &str| fields.get(name)?.as_u64();
    Some(Credentials {
        pid: match fields.get("pid") {
            // A receiver prints `null` if the kernel reports no process.
            None | Some(serde_json::Value::Null) => Credentials::own().pid,
            Some(pid) => pid.as_i64()?.try_into().ok().filter(|pid| *pid > 0)?,
        },
        uid: number("uid")?.try_into().ok()?,
        gid: number("gid")?.try_into().ok()?,
    })
}

/// The unparsed fields of an envelope that are used.
#[derive(Default)]
struct RawEnvelope<'l> {
    time: Option<&'l RawValue>,
    packet: Option<&'l RawValue>,
    raw: Option<&'l RawValue>,
    to: Option<&'l RawValue>,
    fds: Option<&'l RawValue>,
    creds: Option<&'l RawValue>,
}

impl RawEnvelope<'_> {
    /// Returns the datagram of `packet` or `raw`; `at` is the offset of a value in the line.
    fn datagram(
        &self,
        protocol: Protocol,
        at: impl Fn(&RawValue) -> usize,
    ) -> Result<Vec<u8>, ParseError> {
        match (self.packet, self.raw) {
            (Some(_), Some(_)) => Err(ParseError::new(
                0,
                "expected one of 'packet' and 'raw', not both",
            )),
            (None, None) => Err(ParseError::new(0, "expected a field 'packet' or 'raw'")),
            (Some(packet), None) => protocol
                .value_to_datagram(packet)
                .map_err(|error| error.behind(at(packet))),
            (None, Some(raw)) => string(raw)
                .and_then(|base64| base64_to_datagram(&base64).ok())
                .ok_or_else(|| ParseError::new(at(raw), "expected a string of base64")),
        }
    }
}

struct EnvelopeVisitor;

impl<'l> Visitor<'l> for EnvelopeVisitor {
    type Value = RawEnvelope<'l>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope, a JSON object")
    }

    fn visit_map<A: MapAccess<'l>>(self, mut map: A) -> Result<RawEnvelope<'l>, A::Error> {
        let mut raw = RawEnvelope::default();
        while let Some(key) = map.next_key::<String>()? {
            let field = match key.as_str() {
                "time" => &mut raw.time,
                "packet" => &mut raw.packet,
                "raw" => &mut raw.raw,
                "to" => &mut raw.to,
                "fds" => &mut raw.fds,
                "creds" => &mut raw.creds,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = Some(map.next_value()?);
        }
        Ok(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_time_is_that_of_its_packet() {
        let mut clock = Clock::default();
        for (nanoseconds, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (999_999_999, "1970-01-01T00:00:00.999999999Z"),
            (1_000_000_000, "1970-01-01T00:00:01.000000000Z"),
            (1_000_000_050, "1970-01-01T00:00:01.000000050Z"),
            (500_000_000, "1970-01-01T00:00:00.500000000Z"),
            (1_767_225_599_123_456_789, "2025-12-31T23:59:59.123456789Z"),
        ] {
            let mut json = Vec::new();
            let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds);
            clock.write(time, &mut json);
            assert_eq!(String::from_utf8(json).unwrap(), expected);
        }
    }

    #[test]
    fn a_datagram_that_was_cut_is_an_error_of_its_own() {
        for (size, kind) in [(2, "parse"), (9, "truncated")] {
            let writer = EnvelopeWriter::new(Protocol::Json, false);
            let mut json = Vec::new();
            let mut object = Object::begin(&mut json, Layout::Compact);
            writer.write_packet(&mut object, b"[1", size, Err("is cut"));
            object.end();
            assert_eq!(
                String::from_utf8(json).unwrap(),
                format!(
                    "{{\"error\":{{\"kind\":\"{kind}\",\"message\":\"the packet is cut\"}},\"raw\":\"WzE=\"}}"
                )
            );
        }
    }
}
