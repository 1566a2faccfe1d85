//! CBOR, with JSON text as its packets.

use super::transcode::{Item, Items, Token, from_json, to_json, too_short};
use super::{DatagramProtocol, ParseError};
use minicbor::data::{Int, Type};
use minicbor::{Decoder, Encoder};
use std::borrow::Cow;

/// One CBOR item (RFC 8949) as JSON text.
///
/// To JSON: byte strings become base64, tags are dropped, `undefined` is `null`, lengths may be
/// indefinite, the order of keys and duplicate keys are kept. NaN, infinities, keys that are not text
/// and simple values without a JSON name are parse errors.
///
/// From JSON: numbers without fraction and exponent are exact integers, and a parse error outside the
/// range of CBOR (-2⁶⁴ to 2⁶⁴-1); other numbers are rounded to 64-bit floats. Every item has its
/// shortest form, a float the shortest that keeps its value.
///
/// ```
/// use udgram::protocol::{Cbor, DatagramProtocol};
///
/// let datagram = Cbor.make_datagram(r#"{"data": 42}"#)?;
/// assert_eq!(&datagram[..], b"\xa1\x64data\x18\x2a");
/// assert_eq!(Cbor.build_packet(&datagram)?, r#"{"data":42}"#);
/// # Ok::<(), udgram::protocol::ParseError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Cbor;

impl DatagramProtocol for Cbor {
    type Sent = str;
    type View<'d> = String;
    type Received = String;

    fn make_datagram<'p>(&self, packet: &'p str) -> Result<Cow<'p, [u8]>, ParseError> {
        let mut encoder = Encoder::new(Vec::with_capacity(packet.len()));
        from_json(packet, |token| put(&mut encoder, token))?;
        Ok(encoder.into_writer().into())
    }

    fn build_packet(&self, datagram: &[u8]) -> Result<String, ParseError> {
        to_json(datagram.len(), Reader(Decoder::new(datagram)))
    }
}

fn put(encoder: &mut Encoder<Vec<u8>>, token: Token<'_>) -> Result<(), Cow<'static, str>> {
    let written = match token {
        Token::Null => encoder.null(),
        Token::Bool(value) => encoder.bool(value),
        Token::Integer(value) => {
            let value = Int::try_from(value).map_err(|_| "the integer is beyond those of CBOR")?;
            encoder.int(value)
        }
        Token::Float(value) => match (half(value), single(value)) {
            (Some(half), _) => {
                encoder.writer_mut().push(0xf9);
                encoder.writer_mut().extend(half.to_be_bytes());
                return Ok(());
            }
            (None, Some(single)) => encoder.f32(single),
            (None, None) => encoder.f64(value),
        },
        Token::Text(text) => encoder.str(&text),
        Token::Array(length) => encoder.array(length as u64),
        Token::Map(length) => encoder.map(length as u64),
    };
    written.map(drop).map_err(|error| error.to_string().into())
}

/// Returns the number as a 32-bit float, if that is exact.
pub(super) fn single(value: f64) -> Option<f32> {
    #[allow(clippy::cast_possible_truncation)] // The comparison below detects a loss.
    let single = value as f32;
    (f64::from(single).to_bits() == value.to_bits()).then_some(single)
}

/// Returns the number as a 16-bit float (binary16 of IEEE 754), if that is exact.
fn half(value: f64) -> Option<u16> {
    let bits = single(value)?.to_bits();
    let sign = bits >> 16 & 0x8000;
    let exponent = (bits >> 23) & 0xff;
    let fraction = bits & 0x007f_ffff;
    // binary32 has an exponent bias of 127 and a fraction of 23 bits, binary16 of 15 and 10.
    let (magnitude, lost) = match exponent {
        0 => (0, fraction),
        113..=142 => ((exponent - 112) << 10 | fraction >> 13, fraction & 0x1fff),
        103..=112 => {
            let fraction = fraction | 0x0080_0000;
            let shift = 126 - exponent;
            (fraction >> shift, fraction & ((1 << shift) - 1))
        }
        _ => return None,
    };
    if lost != 0 {
        return None;
    }
    u16::try_from(sign | magnitude).ok()
}

/// Returns the value of a 16-bit float.
fn from_half(bits: u16) -> f64 {
    let fraction = f64::from(bits & 0x03ff);
    let exponent = u64::from(bits >> 10 & 0x1f);
    // 2^(exponent - 25), from its exponent in a 64-bit float: the precision of powi is unspecified.
    let scale = f64::from_bits((exponent.max(1) + 1023 - 25) << 52);
    let magnitude = match exponent {
        0 => fraction * scale,
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (fraction + 1024.0) * scale,
    };
    if bits & 0x8000 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

struct Reader<'d>(Decoder<'d>);

impl<'d> Items<'d> for Reader<'d> {
    fn next(&mut self) -> Result<Item<'d>, ParseError> {
        let start = self.0.position();
        let decoder = &mut self.0;
        let len = decoder.input().len();
        read(decoder).map_err(|error| match error {
            ReadError::NoItem(message) => ParseError::new(start, message),
            ReadError::Cbor(error) if error.is_end_of_input() => too_short(len),
            ReadError::Cbor(error) if is_beyond_memory(decoder.input(), error.position()) => {
                too_short(len)
            }
            // Text that is not UTF-8, or a piece of a string that has the wrong type.
            ReadError::Cbor(error) => {
                let at = error.position().unwrap_or(start);
                ParseError::new(at, "expected a piece of a string, text in UTF-8")
            }
        })
    }

    fn position(&self) -> usize {
        self.0.position()
    }
}

/// Returns whether the string at `position` has a length that only more than 32 bits can hold, on a target
/// where no datagram has as many bytes.
fn is_beyond_memory(input: &[u8], position: Option<usize>) -> bool {
    let string = position.and_then(|position| input.get(position..)?.split_first());
    let Some((0x5b | 0x7b, rest)) = string else {
        return false;
    };
    let length = rest.first_chunk().map(|length| u64::from_be_bytes(*length));
    length.is_some_and(|length| usize::try_from(length).is_err())
}

enum ReadError {
    NoItem(Cow<'static, str>),
    Cbor(minicbor::decode::Error),
}

impl From<minicbor::decode::Error> for ReadError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::Cbor(error)
    }
}

/// Reads one item and the tags before it.
fn read<'d>(decoder: &mut Decoder<'d>) -> Result<Item<'d>, ReadError> {
    let mut tagged = false;
    while decoder.datatype()? == Type::Tag {
        decoder.tag()?;
        tagged = true;
    }
    Ok(match decoder.datatype()? {
        Type::Null => {
            decoder.null()?;
            Item::Null
        }
        Type::Undefined => {
            decoder.undefined()?;
            Item::Null
        }
        Type::Bool => Item::Bool(decoder.bool()?),
        Type::U8
        | Type::U16
        | Type::U32
        | Type::U64
        | Type::I8
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::Int => Item::Integer(decoder.int()?.into()),
        Type::F16 => Item::Float(read_half(decoder)?),
        Type::F32 => Item::Float(decoder.f32()?.into()),
        Type::F64 => Item::Float(decoder.f64()?),
        Type::String => Item::Text(decoder.str()?.into()),
        Type::StringIndef => Item::Text(decoder.str_iter()?.collect::<Result<String, _>>()?.into()),
        Type::Bytes => Item::Bytes(decoder.bytes()?.into()),
        Type::BytesIndef => Item::Bytes(read_pieces(decoder)?.into()),
        Type::Array | Type::ArrayIndef => Item::Array(decoder.array()?),
        Type::Map | Type::MapIndef => Item::Map(decoder.map()?),
        Type::Break if !tagged => {
            decoder.set_position(decoder.position() + 1);
            Item::Break
        }
        Type::Break => return Err(ReadError::NoItem("a tag of nothing".into())),
        Type::Simple => {
            let value = decoder.simple()?;
            return Err(ReadError::NoItem(
                format!("JSON has no simple value {value}").into(),
            ));
        }
        Type::Tag | Type::Unknown(_) => {
            return Err(ReadError::NoItem("expected a CBOR item".into()));
        }
    })
}

/// Reads a 16-bit float.
fn read_half(decoder: &mut Decoder<'_>) -> Result<f64, minicbor::decode::Error> {
    let start = decoder.position();
    let bytes = decoder.input()[start + 1..].first_chunk();
    let bytes = bytes.ok_or_else(minicbor::decode::Error::end_of_input)?;
    decoder.set_position(start + 3);
    Ok(from_half(u16::from_be_bytes(*bytes)))
}

/// Reads a byte string of indefinite length and joins its pieces.
fn read_pieces(decoder: &mut Decoder<'_>) -> Result<Vec<u8>, minicbor::decode::Error> {
    let mut bytes = Vec::new();
    for piece in decoder.bytes_iter()? {
        bytes.extend_from_slice(piece?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    fn bytes(hex: &str) -> Vec<u8> {
        HEXLOWER.decode(hex.as_bytes()).unwrap()
    }

    /// RFC 8949, appendix A: the items in shortest form that JSON can express; they convert both ways.
    const BOTH_WAYS: &[(&str, &str)] = &[
        ("00", "0"),
        ("01", "1"),
        ("0a", "10"),
        ("17", "23"),
        ("1818", "24"),
        ("1819", "25"),
        ("1864", "100"),
        ("1903e8", "1000"),
        ("1a000f4240", "1000000"),
        ("1b000000e8d4a51000", "1000000000000"),
        ("1bffffffffffffffff", "18446744073709551615"),
        ("3bffffffffffffffff", "-18446744073709551616"),
        ("20", "-1"),
        ("29", "-10"),
        ("3863", "-100"),
        ("3903e7", "-1000"),
        ("f90000", "0.0"),
        ("f98000", "-0.0"),
        ("f93c00", "1.0"),
        ("fb3ff199999999999a", "1.1"),
        ("f93e00", "1.5"),
        ("f97bff", "65504.0"),
        ("fa47c35000", "100000.0"),
        ("fa7f7fffff", "3.4028234663852886e38"),
        ("fb7e37e43c8800759c", "1e300"),
        ("f90001", "5.960464477539063e-8"),
        ("f90400", "6.103515625e-5"),
        ("f9c400", "-4.0"),
        ("fbc010666666666666", "-4.1"),
        ("f4", "false"),
        ("f5", "true"),
        ("f6", "null"),
        ("60", r#""""#),
        ("6161", r#""a""#),
        ("6449455446", r#""IETF""#),
        ("62225c", r#""\"\\""#),
        ("62c3bc", r#""ü""#),
        ("63e6b0b4", r#""水""#),
        ("64f0908591", "\"\u{10151}\""),
        ("80", "[]"),
        ("83010203", "[1,2,3]"),
        ("8301820203820405", "[1,[2,3],[4,5]]"),
        (
            "98190102030405060708090a0b0c0d0e0f101112131415161718181819",
            "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25]",
        ),
        ("a0", "{}"),
        ("a26161016162820203", r#"{"a":1,"b":[2,3]}"#),
        ("826161a161626163", r#"["a",{"b":"c"}]"#),
        (
            "a56161614161626142616361436164614461656145",
            r#"{"a":"A","b":"B","c":"C","d":"D","e":"E"}"#,
        ),
        ("a2616201616101", r#"{"b":1,"a":1}"#),
        ("a2616101616102", r#"{"a":1,"a":2}"#),
    ];

    /// The other items of appendix A: they are received, but sent in another form.
    const TO_JSON: &[(&str, &str)] = &[
        ("c249010000000000000000", r#""AQAAAAAAAAAA""#),
        ("f7", "null"),
        (
            "c074323031332d30332d32315432303a30343a30305a",
            r#""2013-03-21T20:04:00Z""#,
        ),
        ("c11a514b67b0", "1363896240"),
        ("c1fb41d452d9ec200000", "1363896240.5"),
        ("d74401020304", r#""AQIDBA==""#),
        ("d818456449455446", r#""ZElFVEY=""#),
        (
            "d82076687474703a2f2f7777772e6578616d706c652e636f6d",
            r#""http://www.example.com""#,
        ),
        ("40", r#""""#),
        ("4401020304", r#""AQIDBA==""#),
        ("5f42010243030405ff", r#""AQIDBAU=""#),
        ("7f657374726561646d696e67ff", r#""streaming""#),
        ("9fff", "[]"),
        ("9f018202039f0405ffff", "[1,[2,3],[4,5]]"),
        ("9f01820203820405ff", "[1,[2,3],[4,5]]"),
        ("83018202039f0405ff", "[1,[2,3],[4,5]]"),
        ("83019f0203ff820405", "[1,[2,3],[4,5]]"),
        ("bf61610161629f0203ffff", r#"{"a":1,"b":[2,3]}"#),
        ("826161bf61626163ff", r#"["a",{"b":"c"}]"#),
        ("bf6346756ef563416d7421ff", r#"{"Fun":true,"Amt":-2}"#),
        ("1800", "0"),
        ("1b0000000000000001", "1"),
        ("fa00000000", "0.0"),
        ("a1c1616101", r#"{"a":1}"#),
        ("bf7f6161ff01ff", r#"{"a":1}"#),
    ];

    #[test]
    fn the_examples_of_the_rfc_go_both_ways() {
        for (hex, json) in BOTH_WAYS {
            assert_eq!(Cbor.build_packet(&bytes(hex)).unwrap(), *json, "{hex}");
            let datagram = Cbor.make_datagram(json).unwrap();
            assert_eq!(HEXLOWER.encode(&datagram), *hex, "{json}");
        }
        for (hex, json) in TO_JSON {
            assert_eq!(Cbor.build_packet(&bytes(hex)).unwrap(), *json, "{hex}");
        }
    }

    #[test]
    fn an_invalid_item_or_invalid_json_is_refused_with_its_offset() {
        for (hex, offset) in [
            ("", 0),
            // Truncated, or with a wrong length.
            ("18", 1),
            ("f93c", 2),
            ("62c3", 2),
            ("8301", 2),
            ("9f01", 2),
            ("a16161", 3),
            ("c1", 1),
            ("5f41", 2),
            ("9bffffffffffffffff", 9),
            ("bbffffffffffffffff00", 10),
            ("7bffffffffffffffff61", 10),
            ("5b7fffffffffffffff61", 10),
            ("a1616101ff", 4),
            // More than one.
            ("0001", 1),
            ("8100f6", 2),
            // Infinities and NaN in each size.
            ("f97c00", 0),
            ("81f97e00", 1),
            ("faff800000", 0),
            ("fb7ff0000000000000", 0),
            ("fb7ff8000000000000", 0),
            // Keys.
            ("a10102", 1),
            ("a2616101416202", 4),
            ("bff600ff", 1),
            // Simple values, reserved forms, breaks.
            ("f0", 0),
            ("f8ff", 0),
            ("f814", 0),
            ("1c", 0),
            ("3f", 0),
            ("fc", 0),
            ("ff", 0),
            ("8201ff", 2),
            ("bf6161ff", 3),
            ("9fc1ff", 1),
            ("81ff", 1),
            // Strings.
            ("61ff", 0),
            ("7f4161ff", 1),
            ("7f7f6161ffff", 1),
            ("5f6161ff", 1),
        ] {
            let error = Cbor.build_packet(&bytes(hex)).expect_err(hex);
            assert_eq!(error.offset(), offset, "{hex}: {error}");
        }
    }

    #[test]
    fn integers_beyond_cbor_are_refused_and_decimals_rounded() {
        for json in [
            "18446744073709551616",
            "-18446744073709551617",
            "12345678901234567890123",
        ] {
            assert_eq!(Cbor.make_datagram(json).unwrap_err().offset(), 0);
        }
        let datagram = Cbor.make_datagram("12345678901234567890123e0").unwrap();
        assert_eq!(
            datagram,
            [
                &[0xfb][..],
                &12_345_678_901_234_567_890_123_f64.to_be_bytes()
            ]
            .concat()
        );
    }

    #[test]
    fn every_half_float_keeps_its_value_and_its_form() {
        // Under Miri three of each sign and exponent, whose fractions have 1024 values.
        let step = if cfg!(miri) { 341 } else { 1 };
        for bits in (0..=u16::MAX).step_by(step) {
            let value = from_half(bits);
            let finite = bits & 0x7c00 != 0x7c00;
            assert_eq!(value.is_finite(), finite);
            assert_eq!(half(value), finite.then_some(bits), "{bits:#06x}");
        }
        // Between the half floats, and just outside.
        for value in [
            65505.0,
            65536.0,
            1.0 / f64::from(1 << 25),
            1.5 / f64::from(1 << 24),
            1.0 + 1.0 / f64::from(1 << 11),
        ] {
            assert_eq!(half(value), None, "{value}");
            assert!(single(value).is_some());
        }
        assert_eq!(
            single(f64::from(f32::MIN_POSITIVE) / 2.0).map(f64::from),
            Some(f64::from(f32::from_bits(1 << 22)))
        );
        assert_eq!(half(f64::from(f32::from_bits(1))), None);
    }

    #[test]
    fn any_depth_passes_both_ways() {
        let depth = if cfg!(miri) { 100 } else { 100_000 };
        let json = "[".repeat(depth) + &"]".repeat(depth);
        let datagram = Cbor.make_datagram(&json).unwrap();
        assert_eq!(datagram.len(), depth);
        assert_eq!(Cbor.build_packet(&datagram).unwrap(), json);
        let json = r#"{"":"#.repeat(depth) + "0" + &"}".repeat(depth);
        let datagram = Cbor.make_datagram(&json).unwrap();
        assert_eq!(Cbor.build_packet(&datagram).unwrap(), json);
        let indefinite = [vec![0x9f; depth], vec![0xff; depth]].concat();
        assert_eq!(Cbor.build_packet(&indefinite).unwrap().len(), 2 * depth);
        let tags = [vec![0xc1; depth], vec![0]].concat();
        assert_eq!(Cbor.build_packet(&tags).unwrap(), "0");
        assert_eq!(
            Cbor.build_packet(&vec![0x81; depth]).unwrap_err().offset(),
            depth
        );
    }
}
