//! Text: a packet is the datagram's UTF-8.

use super::{DatagramProtocol, ParseError, utf8};
use std::borrow::Cow;

/// UTF-8 text, unchanged in both directions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Text;

impl DatagramProtocol for Text {
    type Sent = str;
    type View<'d> = &'d str;
    type Received = String;

    fn make_datagram<'p>(&self, packet: &'p str) -> Result<Cow<'p, [u8]>, ParseError> {
        Ok(packet.as_bytes().into())
    }

    fn build_packet<'d>(&self, datagram: &'d [u8]) -> Result<&'d str, ParseError> {
        utf8(datagram)
    }
}
