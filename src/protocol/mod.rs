//! What datagrams mean: a protocol makes packets of datagrams and datagrams of packets.
//!
//! [`Json`], [`Text`], [`Hex`], [`Base64`], [`Cbor`] and [`MessagePack`] have text as their packets,
//! the very lines that `udgram` prints and reads; [`Raw`] has bytes. [`Format::typed`] makes
//! protocols of types that serde knows, and [`DatagramProtocol`] is open to any other.

mod bytes;
mod cbor;
mod json;
mod msgpack;
mod scan;
mod text;
mod transcode;
mod typed;

pub use bytes::{Base64, Hex, Raw};
pub use cbor::Cbor;
pub use json::Json;
pub use msgpack::MessagePack;
pub use text::Text;
pub use typed::{Format, Typed};

use std::borrow::Cow;
use std::fmt;

/// How packets become datagrams and datagrams packets, one for one.
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
    /// A packet received, as it lies in the datagram.
    type View<'d>: Into<Self::Received>;
    /// A packet received, on its own.
    type Received;

    /// The datagram that carries `packet`; fails if it is no valid packet.
    fn make_datagram<'p>(&self, packet: &'p Self::Sent) -> Result<Cow<'p, [u8]>, ParseError>;

    /// The packet that `datagram` carries; fails if it carries none.
    fn build_packet<'d>(&self, datagram: &'d [u8]) -> Result<Self::View<'d>, ParseError>;
}

/// Bytes that are no valid packet: where, and what was expected there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    offset: usize,
    message: Cow<'static, str>,
}

impl ParseError {
    /// An error at a byte of what was read, counted from 0.
    pub fn new(offset: usize, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            offset,
            message: message.into(),
        }
    }

    /// The same error, of something that begins at `start` of a whole.
    pub(crate) fn behind(mut self, start: usize) -> Self {
        self.offset += start;
        self
    }

    /// The byte where it went wrong, counted from 0; the length of it all, if there was too little.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// What was expected there, or found.
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

/// UTF-8, or where it ends.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, ParseError> {
    str::from_utf8(bytes).map_err(|error| ParseError::new(error.valid_up_to(), "expected UTF-8"))
}
