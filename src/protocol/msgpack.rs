//! MessagePack, with JSON text as its packets.

use super::cbor::single;
use super::transcode::{Item, Items, Token, from_json, to_json, too_short};
use super::{DatagramProtocol, ParseError};
use rmp::Marker;
use rmp::decode::{self, Bytes};
use rmp::encode::{self, ByteBuf};
use std::borrow::Cow;

/// One MessagePack value as JSON text.
///
/// To JSON: `bin` becomes base64, the order of keys and duplicate keys are kept. NaN, infinities,
/// keys that are not text, text that is not UTF-8, extension types and timestamps are parse
/// errors.
///
/// From JSON: numbers without fraction and exponent are exact integers, and a parse error outside the
/// range of MessagePack (-2⁶³ to 2⁶⁴-1); other numbers are rounded to 64-bit floats. Every value has
/// its shortest form, a float the shortest that keeps its value.
///
/// ```
/// use udgram::protocol::{DatagramProtocol, MessagePack};
///
/// let datagram = MessagePack.make_datagram(r#"{"data": 42}"#)?;
/// assert_eq!(&datagram[..], b"\x81\xa4data\x2a");
/// assert_eq!(MessagePack.build_packet(&datagram)?, r#"{"data":42}"#);
/// # Ok::<(), udgram::protocol::ParseError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[doc(alias = "msgpack")]
pub struct MessagePack;

impl DatagramProtocol for MessagePack {
    type Sent = str;
    type View<'d> = String;
    type Received = String;

    fn make_datagram<'p>(&self, packet: &'p str) -> Result<Cow<'p, [u8]>, ParseError> {
        let mut buffer = ByteBuf::with_capacity(packet.len());
        from_json(packet, |token| put(&mut buffer, token))?;
        Ok(buffer.into_vec().into())
    }

    fn build_packet(&self, datagram: &[u8]) -> Result<String, ParseError> {
        to_json(
            datagram.len(),
            Reader {
                datagram,
                position: 0,
            },
        )
    }
}

fn put(buffer: &mut ByteBuf, token: Token<'_>) -> Result<(), Cow<'static, str>> {
    const TOO_LONG: &str = "MessagePack has no such length";
    let length = |length: usize| u32::try_from(length).map_err(|_| TOO_LONG);
    let written = match token {
        Token::Null => encode::write_nil(buffer).map_err(|error| error.to_string()),
        Token::Bool(value) => encode::write_bool(buffer, value).map_err(|error| error.to_string()),
        Token::Integer(value) => match (u64::try_from(value), i64::try_from(value)) {
            (Ok(value), _) => encode::write_uint(buffer, value),
            (Err(_), Ok(value)) => encode::write_sint(buffer, value),
            _ => return Err("the integer is beyond those of MessagePack".into()),
        }
        .map(drop)
        .map_err(|error| error.to_string()),
        Token::Float(value) => match single(value) {
            Some(single) => encode::write_f32(buffer, single),
            None => encode::write_f64(buffer, value),
        }
        .map_err(|error| error.to_string()),
        Token::Text(text) => {
            length(text.len())?;
            encode::write_str(buffer, &text).map_err(|error| error.to_string())
        }
        Token::Array(elements) => encode::write_array_len(buffer, length(elements)?)
            .map(drop)
            .map_err(|error| error.to_string()),
        Token::Map(pairs) => encode::write_map_len(buffer, length(pairs)?)
            .map(drop)
            .map_err(|error| error.to_string()),
    };
    written.map_err(Cow::Owned)
}

struct Reader<'d> {
    datagram: &'d [u8],
    position: usize,
}

impl<'d> Reader<'d> {
    /// Reads with a function of rmp. The marker is known to match, so an error means that bytes are
    /// missing.
    fn read<T, E>(
        &mut self,
        read: impl FnOnce(&mut Bytes<'d>) -> Result<T, E>,
    ) -> Result<T, ParseError> {
        let rest = &self.datagram[self.position..];
        let mut bytes = Bytes::new(rest);
        let value = read(&mut bytes).map_err(|_| too_short(self.datagram.len()))?;
        self.position += rest.len() - bytes.remaining_slice().len();
        Ok(value)
    }

    fn take(&mut self, len: u32) -> Result<&'d [u8], ParseError> {
        let end = self.position.saturating_add(len as usize);
        let taken = self.datagram.get(self.position..end);
        self.position = end;
        taken.ok_or_else(|| too_short(self.datagram.len()))
    }
}

impl<'d> Items<'d> for Reader<'d> {
    fn next(&mut self) -> Result<Item<'d>, ParseError> {
        let start = self.position;
        let marker = self.datagram.get(start).copied();
        let marker = marker.ok_or_else(|| too_short(self.datagram.len()))?;
        Ok(match Marker::from_u8(marker) {
            Marker::Null => {
                self.read(decode::read_nil)?;
                Item::Null
            }
            Marker::True | Marker::False => Item::Bool(self.read(decode::read_bool)?),
            Marker::FixPos(_)
            | Marker::FixNeg(_)
            | Marker::U8
            | Marker::U16
            | Marker::U32
            | Marker::U64
            | Marker::I8
            | Marker::I16
            | Marker::I32
            | Marker::I64 => Item::Integer(self.read(decode::read_int)?),
            Marker::F32 => Item::Float(self.read(decode::read_f32)?.into()),
            Marker::F64 => Item::Float(self.read(decode::read_f64)?),
            Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => {
                let len = self.read(decode::read_str_len)?;
                let at = self.position;
                let text = super::utf8(self.take(len)?).map_err(|error| error.behind(at))?;
                Item::Text(text.into())
            }
            Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => {
                let len = self.read(decode::read_bin_len)?;
                Item::Bytes(self.take(len)?.into())
            }
            Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => {
                Item::Array(Some(self.read(decode::read_array_len)?.into()))
            }
            Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => {
                Item::Map(Some(self.read(decode::read_map_len)?.into()))
            }
            Marker::Reserved => {
                return Err(ParseError::new(start, "expected a MessagePack value"));
            }
            Marker::FixExt1
            | Marker::FixExt2
            | Marker::FixExt4
            | Marker::FixExt8
            | Marker::FixExt16
            | Marker::Ext8
            | Marker::Ext16
            | Marker::Ext32 => {
                let kind = self.read(decode::read_ext_meta)?.typeid;
                return Err(ParseError::new(
                    start,
                    match kind {
                        -1 => "JSON has no timestamps (extension type -1)".to_owned(),
                        kind => format!("JSON has no extension type {kind}"),
                    },
                ));
            }
        })
    }

    fn position(&self) -> usize {
        self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    fn bytes(hex: &str) -> Vec<u8> {
        HEXLOWER.decode(hex.as_bytes()).unwrap()
    }

    #[test]
    fn every_format_of_the_specification_goes_both_ways() {
        let long = "a".repeat(65_536);
        let elements = format!("[{}0]", "0,".repeat(65_535));
        let pairs = |count: usize| format!("{{{}\"\":0}}", "\"\":0,".repeat(count - 1));
        for (hex, json) in [
            ("c0", "null"),
            ("c2", "false"),
            ("c3", "true"),
            ("00", "0"),
            ("7f", "127"),
            ("cc80", "128"),
            ("ccff", "255"),
            ("cd0100", "256"),
            ("cdffff", "65535"),
            ("ce00010000", "65536"),
            ("ceffffffff", "4294967295"),
            ("cf0000000100000000", "4294967296"),
            ("cfffffffffffffffff", "18446744073709551615"),
            ("ff", "-1"),
            ("e0", "-32"),
            ("d0df", "-33"),
            ("d080", "-128"),
            ("d1ff7f", "-129"),
            ("d18000", "-32768"),
            ("d2ffff7fff", "-32769"),
            ("d280000000", "-2147483648"),
            ("d3ffffffff7fffffff", "-2147483649"),
            ("d38000000000000000", "-9223372036854775808"),
            ("ca3fc00000", "1.5"),
            ("ca80000000", "-0.0"),
            ("cb3ff199999999999a", "1.1"),
            ("a0", "\"\""),
            ("a3e6b0b4", "\"水\""),
            ("90", "[]"),
            ("93010203", "[1,2,3]"),
            ("80", "{}"),
            // The example of msgpack.org.
            (
                "82a7636f6d70616374c3a6736368656d6100",
                r#"{"compact":true,"schema":0}"#,
            ),
            (
                &("d920".to_owned() + &"61".repeat(32)),
                &format!("\"{}\"", &long[..32]),
            ),
            (
                &("da0100".to_owned() + &"61".repeat(256)),
                &format!("\"{}\"", &long[..256]),
            ),
            (
                &("db00010000".to_owned() + &"61".repeat(65_536)),
                &format!("\"{long}\""),
            ),
            (
                &("dc0010".to_owned() + &"00".repeat(16)),
                &format!("[{}0]", "0,".repeat(15)),
            ),
            (&("dd00010000".to_owned() + &"00".repeat(65_536)), &elements),
            (&("de0010".to_owned() + &"a000".repeat(16)), &pairs(16)),
            (
                &("df00010000".to_owned() + &"a000".repeat(65_536)),
                &pairs(65_536),
            ),
        ] {
            // Miri takes minutes for those with 65,536 elements.
            if cfg!(miri) && json.len() > 1_000 {
                continue;
            }
            assert_eq!(MessagePack.build_packet(&bytes(hex)).unwrap(), json);
            assert_eq!(MessagePack.make_datagram(json).unwrap(), bytes(hex));
        }
    }

    #[test]
    fn longer_forms_and_bytes_are_read() {
        for (hex, json) in [
            ("d300000000000000ff", "255"),
            ("d900", "\"\""),
            ("dd0000000101", "[1]"),
            ("df00000001a16101", r#"{"a":1}"#),
            ("c40401020304", "\"AQIDBA==\""),
            ("c5000101", "\"AQ==\""),
            ("c600000000", "\"\""),
            ("cb3ff8000000000000", "1.5"),
            ("82a16102a16101", r#"{"a":2,"a":1}"#),
        ] {
            assert_eq!(
                MessagePack.build_packet(&bytes(hex)).unwrap(),
                json,
                "{hex}"
            );
        }
    }

    #[test]
    fn an_invalid_value_or_invalid_json_is_refused_with_its_offset() {
        for (hex, offset) in [
            ("", 0),
            // Truncated, or with a wrong length.
            ("cc", 1),
            ("cf00", 2),
            ("a361", 2),
            ("9301", 2),
            ("81a161", 3),
            ("dbffffffff61", 6),
            ("c6ffffffff61", 6),
            ("ddffffffff00", 6),
            ("dfffffffffa0", 6),
            ("da00", 2),
            ("d6", 1),
            // More than one.
            ("0001", 1),
            ("9100c0", 2),
            // NaN and infinities.
            ("ca7fc00000", 0),
            ("91cb7ff0000000000000", 1),
            // Keys.
            ("810102", 1),
            ("82a16101c4016201", 4),
            // Text that is not UTF-8.
            ("91a261ff", 3),
            // Never used; extension types; a timestamp.
            ("c1", 0),
            ("d40500", 0),
            ("91c70305000000", 1),
            ("d6ff00000000", 0),
        ] {
            let error = MessagePack.build_packet(&bytes(hex)).expect_err(hex);
            assert_eq!(error.offset(), offset, "{hex}: {error}");
        }
        let timestamp = MessagePack
            .build_packet(&bytes("d6ff00000000"))
            .unwrap_err();
        assert!(timestamp.message().contains("timestamp"));
    }

    #[test]
    fn integers_beyond_messagepack_are_refused() {
        for json in ["18446744073709551616", "-9223372036854775809"] {
            assert_eq!(MessagePack.make_datagram(json).unwrap_err().offset(), 0);
        }
    }

    #[test]
    fn any_depth_passes_both_ways() {
        let depth = if cfg!(miri) { 100 } else { 100_000 };
        let json = "[".repeat(depth) + &"]".repeat(depth);
        let datagram = MessagePack.make_datagram(&json).unwrap();
        assert_eq!(datagram.len(), depth);
        assert_eq!(MessagePack.build_packet(&datagram).unwrap(), json);
        let json = r#"{"":"#.repeat(depth) + "0" + &"}".repeat(depth);
        let datagram = MessagePack.make_datagram(&json).unwrap();
        assert_eq!(MessagePack.build_packet(&datagram).unwrap(), json);
        assert_eq!(
            MessagePack
                .build_packet(&vec![0x91; depth])
                .unwrap_err()
                .offset(),
            depth
        );
    }
}
