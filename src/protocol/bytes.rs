//! Bytes: unchanged, as hexadecimal digits, or as base64.

use super::{DatagramProtocol, ParseError};
use data_encoding::{BASE64, DecodeKind, Encoding, HEXLOWER, HEXLOWER_PERMISSIVE};
use std::borrow::Cow;

/// Any bytes, unchanged in both directions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

impl DatagramProtocol for Raw {
    type Sent = [u8];
    type View<'d> = &'d [u8];
    type Received = Vec<u8>;

    fn make_datagram<'p>(&self, packet: &'p [u8]) -> Result<Cow<'p, [u8]>, ParseError> {
        Ok(packet.into())
    }

    fn build_packet<'d>(&self, datagram: &'d [u8]) -> Result<&'d [u8], ParseError> {
        Ok(datagram)
    }
}

/// Any bytes as hexadecimal digits. Received bytes become two lower-case digits each; digits to send
/// may have either case, and white space anywhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hex;

impl DatagramProtocol for Hex {
    type Sent = str;
    type View<'d> = String;
    type Received = String;

    fn make_datagram<'p>(&self, packet: &'p str) -> Result<Cow<'p, [u8]>, ParseError> {
        decode(
            &HEXLOWER_PERMISSIVE,
            packet,
            "expected two hexadecimal digits for each byte",
        )
    }

    fn build_packet(&self, datagram: &[u8]) -> Result<String, ParseError> {
        Ok(HEXLOWER.encode(datagram))
    }
}

/// Any bytes as base64 (RFC 4648, section 4), padded; white space in a packet to send is ignored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Base64;

impl DatagramProtocol for Base64 {
    type Sent = str;
    type View<'d> = String;
    type Received = String;

    fn make_datagram<'p>(&self, packet: &'p str) -> Result<Cow<'p, [u8]>, ParseError> {
        decode(&BASE64, packet, "expected base64 with its padding")
    }

    fn build_packet(&self, datagram: &[u8]) -> Result<String, ParseError> {
        Ok(BASE64.encode(datagram))
    }
}

fn decode(
    encoding: &Encoding,
    packet: &str,
    expected: &'static str,
) -> Result<Cow<'static, [u8]>, ParseError> {
    let digits = packet
        .bytes()
        .enumerate()
        .filter(|(_, byte)| !byte.is_ascii_whitespace());
    let (places, digits): (Vec<usize>, Vec<u8>) = digits.unzip();
    // The decoder accepts several padded encodings in a row. A packet is one: refuse digits after its
    // padding.
    let padding = digits.iter().skip_while(|digit| **digit != b'=');
    let behind = padding.clone().skip_while(|digit| **digit == b'=').count();
    if padding.count() > behind && behind > 0 {
        return Err(ParseError::new(places[digits.len() - behind], expected));
    }
    encoding.decode(&digits).map(Cow::Owned).map_err(|error| {
        let place = match error.kind {
            // Digits are missing at the end.
            DecodeKind::Length => None,
            _ => places.get(error.position),
        };
        ParseError::new(place.copied().unwrap_or(packet.len()), expected)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_bytes_are_unchanged_in_both_directions() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        for bytes in [&[][..], &bytes] {
            assert_eq!(Raw.make_datagram(bytes).unwrap(), bytes);
            assert_eq!(Raw.build_packet(bytes).unwrap(), bytes);
        }
    }

    #[test]
    fn hex_takes_either_case_and_white_space_anywhere() {
        for digits in ["00ff7a", " 00 FF 7a\r\n", "0 0f F7\tA"] {
            assert_eq!(Hex.make_datagram(digits).unwrap(), [0, 255, 122].as_slice());
        }
        assert_eq!(Hex.build_packet(&[0, 255, 122]).unwrap(), "00ff7a");
        assert_eq!(Hex.make_datagram("").unwrap().len(), 0);
    }

    #[test]
    fn base64_is_padded_and_white_space_in_it_is_ignored() {
        for (bytes, written) in [
            (&b""[..], ""),
            (b"a", "YQ=="),
            (b"ab", "YWI="),
            (&[0, 255, 122], "AP96"),
        ] {
            assert_eq!(Base64.build_packet(bytes).unwrap(), written);
            assert_eq!(Base64.make_datagram(written).unwrap(), bytes);
        }
        assert_eq!(
            Base64.make_datagram(" YW\r\n I= ").unwrap(),
            b"ab".as_slice()
        );
    }

    #[test]
    fn an_error_has_the_offset_of_the_first_wrong_byte() {
        for (digits, offset) in [("0g", 1), (" 00 zz", 4), ("000", 3), ("é", 0)] {
            assert_eq!(
                Hex.make_datagram(digits).unwrap_err().offset(),
                offset,
                "{digits:?}"
            );
        }
        for (written, offset) in [
            ("YQ==", None),
            ("YQ", Some(2)),
            ("Y!==", Some(1)),
            ("YQ==YQ==", Some(4)),
            ("YWI= YWI=", Some(5)),
            ("=YWI", Some(1)),
        ] {
            assert_eq!(
                Base64
                    .make_datagram(written)
                    .err()
                    .map(|error| error.offset()),
                offset,
                "{written:?}"
            );
        }
    }
}
