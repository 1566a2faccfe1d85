//! Typed packets: values of serde's types in JSON, CBOR or MessagePack.

use super::{DatagramProtocol, Json, ParseError, json, utf8};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// A data format that can encode serde's types: [`Json`], and with the feature `typed`
/// [`Cbor`](super::Cbor) and [`MessagePack`](super::MessagePack).
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use udgram::protocol::{DatagramProtocol, Format, Json};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Reading { sensor: String, celsius: f64 }
///
/// let protocol = Json.typed::<Reading>();
/// let reading = Reading { sensor: "attic".into(), celsius: 21.5 };
/// let datagram = protocol.make_datagram(&reading)?;
/// assert_eq!(&datagram[..], br#"{"sensor":"attic","celsius":21.5}"#);
/// assert_eq!(protocol.build_packet(&datagram)?, reading);
/// # Ok::<(), udgram::protocol::ParseError>(())
/// ```
///
/// Values nest at most 128 deep. Structures are maps with their fields' names as keys.
pub trait Format: Sized {
    /// Encodes a value; fails if the format cannot express it.
    fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Vec<u8>, ParseError>;

    /// Decodes the one value in the bytes; fails if they are not exactly one value of the type `T`.
    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ParseError>;

    /// Makes a protocol that sends and receives packets of the type `T`.
    fn typed<T>(self) -> Typed<Self, T> {
        self.typed_pair()
    }

    /// Makes a protocol that sends packets of the type `S` and receives packets of the type `R`, such
    /// as requests and replies.
    fn typed_pair<S: ?Sized, R>(self) -> Typed<Self, S, R> {
        Typed {
            format: self,
            types: PhantomData,
        }
    }
}

/// A protocol whose packets are values of serde's types: `S` sent, `R` received.
/// [`Format::typed`] makes one.
pub struct Typed<F, S: ?Sized, R = S> {
    format: F,
    #[allow(clippy::type_complexity)] // It marks values as passed in and out, not held.
    types: PhantomData<(fn(&S), fn() -> R)>,
}

impl<F: Clone, S: ?Sized, R> Clone for Typed<F, S, R> {
    fn clone(&self) -> Self {
        Self {
            format: self.format.clone(),
            types: PhantomData,
        }
    }
}

impl<F: fmt::Debug, S: ?Sized, R> fmt::Debug for Typed<F, S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Typed").field(&self.format).finish()
    }
}

impl<F: Format, S: Serialize + ?Sized, R: DeserializeOwned> DatagramProtocol for Typed<F, S, R> {
    type Sent = S;
    type View<'d> = R;
    type Received = R;

    fn make_datagram<'p>(&self, packet: &'p S) -> Result<Cow<'p, [u8]>, ParseError> {
        self.format.encode(packet).map(Cow::Owned)
    }

    fn build_packet(&self, datagram: &[u8]) -> Result<R, ParseError> {
        self.format.decode(datagram)
    }
}

/// Encodes and decodes as `serde_json` does: NaN and infinities become `null`, bytes become arrays of
/// numbers, and keys of maps must be text or numbers.
impl Format for Json {
    fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Vec<u8>, ParseError> {
        serde_json::to_vec(value).map_err(unwritable)
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ParseError> {
        let text = utf8(bytes)?;
        serde_json::from_str(text).map_err(|error| json::parse_error(text, &error))
    }
}

/// Makes the error of a value that cannot be encoded. Its offset is 0: there are no bytes yet.
fn unwritable(error: impl fmt::Display) -> ParseError {
    ParseError::new(0, error.to_string())
}

#[cfg(feature = "typed")]
mod binary {
    use super::super::transcode::too_short;
    use super::super::{Cbor, MessagePack};
    use super::{DeserializeOwned, Format, ParseError, Serialize, unwritable};
    use ciborium::de::Error as CborError;
    use rmp_serde::decode::Error as MessagePackError;
    use std::io::Cursor;

    /// The depth to which values may nest, as in `serde_json`: a type that contains itself is decoded
    /// recursively, and a datagram must not exhaust the stack.
    const DEPTH: usize = 128;

    /// Returns the value; fails if bytes follow it.
    fn end<T>(value: T, position: usize, bytes: &[u8]) -> Result<T, ParseError> {
        if position < bytes.len() {
            return Err(ParseError::new(
                position,
                "expected the end, more bytes follow",
            ));
        }
        Ok(value)
    }

    /// Encodes serde's bytes as byte strings. NaN and infinities are kept.
    impl Format for Cbor {
        fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Vec<u8>, ParseError> {
            let mut bytes = Vec::new();
            ciborium::into_writer(value, &mut bytes).map_err(unwritable)?;
            Ok(bytes)
        }

        fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ParseError> {
            let mut rest = bytes;
            let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH);
            let position = bytes.len() - rest.len();
            let value = value.map_err(|error| match error {
                CborError::Io(_) => too_short(bytes.len()),
                CborError::Syntax(offset) => ParseError::new(offset, "expected a CBOR item"),
                CborError::Semantic(offset, message) => {
                    ParseError::new(offset.unwrap_or(position), message)
                }
                CborError::RecursionLimitExceeded => ParseError::new(position, "it nests too deep"),
            })?;
            end(value, position, bytes)
        }
    }

    /// Encodes serde's bytes as `bin`. NaN and infinities are kept.
    impl Format for MessagePack {
        fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Vec<u8>, ParseError> {
            rmp_serde::to_vec_named(value).map_err(unwritable)
        }

        fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ParseError> {
            let mut deserializer = rmp_serde::Deserializer::new(Cursor::new(bytes));
            deserializer.set_max_depth(DEPTH);
            let value = T::deserialize(&mut deserializer);
            let position = usize::try_from(deserializer.position()).unwrap_or(bytes.len());
            let value = value.map_err(|error| match error {
                // A read from a cursor fails only at its end.
                MessagePackError::InvalidMarkerRead(_) | MessagePackError::InvalidDataRead(_) => {
                    too_short(bytes.len())
                }
                MessagePackError::DepthLimitExceeded => {
                    ParseError::new(position, "it nests too deep")
                }
                error => ParseError::new(position, error.to_string()),
            })?;
            end(value, position, bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Request {
        Ping,
        Set { key: String, value: Option<u64> },
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Nested(Vec<Nested>);

    fn round_trip(format: impl Format + Clone) {
        let protocol = format.clone().typed::<Request>();
        for request in [
            Request::Ping,
            Request::Set {
                key: "é".to_owned(),
                value: Some(u64::MAX),
            },
        ] {
            let datagram = protocol.make_datagram(&request).unwrap();
            assert_eq!(protocol.build_packet(&datagram).unwrap(), request);
            let longer = [&datagram[..], b" 0"].concat();
            protocol.build_packet(&longer).unwrap_err();
            for len in 0..datagram.len() {
                let error = protocol.build_packet(&datagram[..len]).unwrap_err();
                assert!(error.offset() <= len, "{error}");
            }
        }
        let pair = format.clone().typed_pair::<[f32], Vec<f64>>();
        let datagram = pair.make_datagram(&[0.5, -1.25]).unwrap();
        assert_eq!(pair.build_packet(&datagram).unwrap(), [0.5, -1.25]);
        let nested = format.typed::<Nested>();
        let mut value = Nested(Vec::new());
        for _ in 0..100 {
            value = Nested(vec![value]);
        }
        let datagram = nested.make_datagram(&value).unwrap();
        assert!(nested.build_packet(&datagram).is_ok());
    }

    #[test]
    fn typed_packets_go_both_ways_in_json() {
        round_trip(Json);
    }

    #[test]
    fn a_value_that_the_format_cannot_express_is_refused() {
        let protocol = Json.typed::<std::collections::BTreeMap<Vec<u8>, u8>>();
        let packet = [(vec![1], 2)].into();
        let error = protocol.make_datagram(&packet).unwrap_err();
        assert_eq!(error.offset(), 0);
        assert!(error.to_string().contains("key"), "{error}");
    }

    #[test]
    fn a_copy_of_a_typed_protocol_is_the_same_protocol() {
        let protocol = Json.typed::<Request>();
        assert_eq!(format!("{:?}", protocol.clone()), "Typed(Json)");
        let datagram = protocol.clone().make_datagram(&Request::Ping).unwrap();
        assert_eq!(protocol.build_packet(&datagram).unwrap(), Request::Ping);
    }

    #[cfg(feature = "typed")]
    #[test]
    fn typed_packets_go_both_ways_in_cbor_and_messagepack() {
        round_trip(super::super::Cbor);
        round_trip(super::super::MessagePack);
    }

    #[cfg(feature = "typed")]
    #[test]
    fn typed_packets_are_read_from_hostile_bytes() {
        use super::super::{Cbor, MessagePack};

        fn refuses(cbor: &[u8], messagepack: &[u8]) -> (usize, usize) {
            let cbor = Cbor.typed::<Nested>().build_packet(cbor).unwrap_err();
            let messagepack = MessagePack
                .typed::<Nested>()
                .build_packet(messagepack)
                .unwrap_err();
            (cbor.offset(), messagepack.offset())
        }
        let depth = 100_000;
        let (cbor, messagepack) = refuses(&vec![0x81; depth], &vec![0x91; depth]);
        assert!(cbor < 200 && messagepack < 200);
        assert_eq!(
            refuses(
                b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
                b"\xdd\xff\xff\xff\xff"
            ),
            (9, 5)
        );
        assert!(
            Json.typed::<Nested>()
                .build_packet(&vec![b'['; depth])
                .unwrap_err()
                .offset()
                < 200
        );
    }

    #[test]
    fn an_error_of_typed_json_has_its_offset() {
        let protocol = Json.typed::<Vec<u8>>();
        for (datagram, offset) in [(&b"[1,\n300]"[..], 6), (b"[1", 2), (b"[\"\xff\"]", 2)] {
            assert_eq!(
                protocol.build_packet(datagram).unwrap_err().offset(),
                offset
            );
        }
        assert!(protocol.build_packet(b"[1] 2").is_err());
    }
}
