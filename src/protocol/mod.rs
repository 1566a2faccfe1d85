//! Protocols: the conversion between packets and datagrams.
//!
//! The packets of [`Json`], [`Text`], [`Hex`], [`Base64`], [`Cbor`] and [`MessagePack`] are text, the
//! same that `udgram` prints and reads as lines; those of [`Raw`] are bytes; those of [`Fields`] and
//! [`Syslog`] have types of their own, with a form in JSON. [`Format::typed`] makes
//! protocols for types that implement serde's traits. Implement [`DatagramProtocol`] for others.

mod byte_value;
mod bytes;
mod cbor;
mod field_list;
mod fields;
mod json;
mod msgpack;
mod scan;
mod syslog;
mod text;
mod transcode;
mod typed;

pub use bytes::{Base64, Hex, Raw};
pub use cbor::Cbor;
pub use field_list::FieldList;
pub use fields::Fields;
pub use json::Json;
pub use msgpack::MessagePack;
pub use syslog::{Facility, Severity, Syslog, SyslogElement, SyslogMessage};
pub use text::Text;
pub use typed::{Format, Typed};

use std::borrow::Cow;
use std::fmt;

/// Converts each packet to one datagram, and each datagram to one packet.
///
/// ```
/// use std::borrow::Cow;
/// use udgram::protocol::{DatagramProtocol, ParseError};
///
/// /// A temperature in tenths of a degree, two bytes, big endian.
/// struct Thermometer;
///
/// impl DatagramProtocol for Thermometer {
///     type Sent = i16;
///     type View<'d> = i16;
///     type Received = i16;
///
///     fn make_datagram<'p>(&self, tenths: &'p i16) -> Result<Cow<'p, [u8]>, ParseError> {
///         Ok(tenths.to_be_bytes().to_vec().into())
///     }
///
///     fn build_packet(&self, datagram: &[u8]) -> Result<i16, ParseError> {
///         let bytes = datagram.try_into().map_err(|_| ParseError::new(0, "expected two bytes"))?;
///         Ok(i16::from_be_bytes(bytes))
///     }
/// }
///
/// assert_eq!(Thermometer.build_packet(&[0, 215])?, 215);
/// # Ok::<(), ParseError>(())
/// ```
pub trait DatagramProtocol {
    /// A packet to send.
    type Sent: ?Sized;
    /// A packet received, which may borrow from the datagram.
    type View<'d>: Into<Self::Received>;
    /// A packet received, which owns its data.
    type Received;

    /// Returns the datagram of `packet`; fails if it is not a valid packet.
    fn make_datagram<'p>(&self, packet: &'p Self::Sent) -> Result<Cow<'p, [u8]>, ParseError>;

    /// Returns the packet of `datagram`; fails if that is not a valid packet.
    fn build_packet<'d>(&self, datagram: &'d [u8]) -> Result<Self::View<'d>, ParseError>;

    /// Returns where the bytes of packets travel. Clients and endpoints send and receive them there.
    fn carrier(&self) -> Carrier {
        Carrier::Datagram
    }
}

/// The place in which the bytes of a packet travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Carrier {
    /// In the datagram.
    Datagram,
    /// In the datagram; or, if they are too many for one, in a sealed memfd (memfd_create(2)) that is the only
    /// descriptor of an empty datagram, as in the native protocol of systemd-journald.
    DatagramOrMemfd,
}

/// The longest packet of [`Fields`] and the longest one in a memfd, in bytes.
pub(crate) const MAX_PACKET_LEN: usize = 64 << 20;

/// The kind of a [`ParseError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// The bytes are not what the protocol expects; the message describes that.
    Malformed,
    /// The bytes are not UTF-8.
    NotUtf8,
    /// There are no bytes, or only white space, in place of a JSON value.
    Empty,
    /// The bytes are not JSON.
    NotJson,
    /// A JSON string or key is in single quotes.
    SingleQuotes,
    /// A JSON value begins and does not end.
    UnexpectedEnd,
    /// A second JSON value follows the first.
    SecondValue,
    /// A byte order mark precedes the JSON value.
    ByteOrderMark,
    /// A NUL follows the JSON value.
    FinalNul,
}

/// The error of bytes that are not a valid packet: its kind, offset and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    kind: ParseErrorKind,
    offset: usize,
    message: Cow<'static, str>,
}

impl ParseError {
    /// Makes an error of the kind [`ParseErrorKind::Malformed`] at a byte of the input, counted from 0.
    pub fn new(offset: usize, message: impl Into<Cow<'static, str>>) -> Self {
        Self::of_kind(ParseErrorKind::Malformed, offset, message)
    }

    /// Makes an error of this kind.
    pub fn of_kind(
        kind: ParseErrorKind,
        offset: usize,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            kind,
            offset,
            message: message.into(),
        }
    }

    /// Returns the same error with `start` added to its offset, for input that begins there in a longer one.
    #[must_use]
    pub fn behind(mut self, start: usize) -> Self {
        self.offset += start;
        self
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> ParseErrorKind {
        self.kind
    }

    /// Returns the offset of the first wrong byte, counted from 0; the length of the input if bytes are
    /// missing.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Returns what was expected or found at the offset.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}", self.message, self.offset)
    }
}

impl std::error::Error for ParseError {}

/// Returns the bytes as text; fails at the first byte that is not UTF-8.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, ParseError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let place = error.valid_up_to();
        ParseError::of_kind(ParseErrorKind::NotUtf8, place, "expected UTF-8")
    })
}
