//! The protocol that the user names, chosen at run time: packets as lines of text, and as the values
//! of envelopes.

use crate::cli::Protocol;
use crate::json::{write_base64, write_string};
use crate::terminal::Controls;
use serde_json::value::RawValue;
use std::borrow::Cow;
use udgram::UnixDatagramEndpoint;
use udgram::protocol::{
    Base64, Carrier, Cbor, DatagramProtocol, FieldList, Fields, Hex, Json, MessagePack, ParseError,
    Raw, Syslog, SyslogMessage, Text,
};

/// The client of the program: packets are lines of the protocol that the user names.
pub(crate) type Client = UnixDatagramEndpoint<Protocol>;

impl DatagramProtocol for Protocol {
    type Sent = [u8];
    type View<'d> = Cow<'d, [u8]>;
    type Received = Vec<u8>;

    fn make_datagram<'p>(&self, line: &'p [u8]) -> Result<Cow<'p, [u8]>, ParseError> {
        if *self == Self::Raw {
            return Raw.make_datagram(line);
        }
        let line = Text.build_packet(line)?;
        match self {
            Self::Raw | Self::Text => Text.make_datagram(line),
            Self::Json => Json.make_datagram(line),
            Self::Hex => Hex.make_datagram(line),
            Self::Base64 => Base64.make_datagram(line),
            Self::Cbor => Cbor.make_datagram(line),
            Self::Msgpack => MessagePack.make_datagram(line),
            Self::Fields => {
                let fields = FieldList::from_json(line)?;
                let datagram = Fields.make_datagram(&fields)?;
                Ok(datagram.into_owned().into())
            }
            Self::Syslog => {
                let message = SyslogMessage::from_json(line)?;
                let datagram = Syslog.make_datagram(&message)?;
                Ok(datagram.into_owned().into())
            }
        }
    }

    fn build_packet<'d>(&self, datagram: &'d [u8]) -> Result<Cow<'d, [u8]>, ParseError> {
        Ok(match self {
            Self::Raw => datagram.into(),
            Self::Text => Text.build_packet(datagram)?.as_bytes().into(),
            Self::Json => match Json.build_packet(datagram)? {
                Cow::Borrowed(value) => value.as_bytes().into(),
                Cow::Owned(value) => value.into_bytes().into(),
            },
            Self::Hex => Hex.build_packet(datagram)?.into_bytes().into(),
            Self::Base64 => Base64.build_packet(datagram)?.into_bytes().into(),
            Self::Cbor => Cbor.build_packet(datagram)?.into_bytes().into(),
            Self::Msgpack => MessagePack.build_packet(datagram)?.into_bytes().into(),
            Self::Fields => {
                let fields = Fields.build_packet(datagram)?;
                fields.to_json().into_bytes().into()
            }
            Self::Syslog => {
                let message = Syslog.build_packet(datagram)?;
                message.to_json().into_bytes().into()
            }
        })
    }

    fn carrier(&self) -> Carrier {
        match self {
            Self::Fields => Fields.carrier(),
            _ => Carrier::Datagram,
        }
    }
}

/// The form of a packet in an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Embedding {
    /// The JSON value itself.
    Value,
    /// A JSON string of the text.
    Text,
    /// A JSON string of the datagram's bytes in base64.
    Bytes,
}

impl Protocol {
    fn embedding(self) -> Embedding {
        match self {
            _ if self.lines_are_json() => Embedding::Value,
            Self::Text => Embedding::Text,
            _ => Embedding::Bytes,
        }
    }

    /// Returns how control characters in the line of a packet are escaped on a terminal; `None` if
    /// raw bytes were asked for.
    pub(crate) fn controls(self) -> Option<Controls> {
        match self {
            Self::Raw => None,
            Self::Text => Some(Controls::Text),
            _ => Some(Controls::Json),
        }
    }

    /// Returns whether a line break is added to a received packet, which makes it a line.
    pub(crate) fn adds_line_break(self, packet: &[u8]) -> bool {
        match self {
            Self::Raw => false,
            Self::Text => !packet.ends_with(b"\n"),
            _ => true,
        }
    }

    /// Appends a received packet as a JSON value; `datagram` is what it was read from.
    pub(crate) fn write_value(self, packet: &[u8], datagram: &[u8], json: &mut Vec<u8>) {
        match self.embedding() {
            Embedding::Value => json.extend_from_slice(packet),
            // It is UTF-8: `build_packet` has checked that.
            Embedding::Text => write_string(&String::from_utf8_lossy(packet), json),
            Embedding::Bytes => write_base64(datagram, json),
        }
    }

    /// Returns the datagram of an envelope's `packet`.
    pub(crate) fn value_to_datagram(self, value: &RawValue) -> Result<Vec<u8>, ParseError> {
        let string = |expected| {
            serde_json::from_str::<String>(value.get()).map_err(|_| ParseError::new(0, expected))
        };
        match self.embedding() {
            Embedding::Value => self
                .make_datagram(value.get().as_bytes())
                .map(Cow::into_owned),
            Embedding::Text => string("expected a string").map(String::into_bytes),
            Embedding::Bytes => base64_to_datagram(&string("expected a string of base64")?),
        }
    }
}

/// Decodes a base64 string of an envelope.
pub(crate) fn base64_to_datagram(string: &str) -> Result<Vec<u8>, ParseError> {
    Base64.make_datagram(string).map(Cow::into_owned)
}
