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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_unchanged_and_other_bytes_are_refused_with_their_place() {
        for text in ["", "a\n", "é\0"] {
            assert_eq!(Text.make_datagram(text).unwrap(), text.as_bytes());
            assert_eq!(Text.build_packet(text.as_bytes()).unwrap(), text);
        }
        assert_eq!(Text.build_packet(b"ab\xff").unwrap_err().offset(), 2);
    }
}
