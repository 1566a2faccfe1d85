//! Conversion between JSON text and the items of a binary format, shared by CBOR and MessagePack.
//! Nothing here recurses, so values may nest to any depth.

use super::{ParseError, json};
use data_encoding::BASE64;
use std::borrow::Cow;
use std::io::{self, Write};

/// A token of JSON text; an array or object has the number of its elements or pairs.
#[derive(Debug)]
pub(super) enum Token<'t> {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(Cow<'t, str>),
    Array(usize),
    Map(usize),
}

/// An item of a binary format.
#[derive(Debug)]
pub(super) enum Item<'d> {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(Cow<'d, str>),
    Bytes(Cow<'d, [u8]>),
    /// An array of this many elements; `None`: until a [`Break`](Self::Break).
    Array(Option<u64>),
    /// A map of this many pairs; `None`: until a [`Break`](Self::Break).
    Map(Option<u64>),
    Break,
}

/// Reads a datagram of a binary format item by item.
pub(super) trait Items<'d> {
    /// Returns the next item; fails with [`too_short`] if bytes are missing.
    fn next(&mut self) -> Result<Item<'d>, ParseError>;

    /// Returns the number of bytes read.
    fn position(&self) -> usize;
}

pub(super) fn too_short(len: usize) -> ParseError {
    ParseError::new(len, "expected more bytes")
}

/// Passes every token of one JSON value to `put`, in order. An error of `put` is reported at the
/// offset of the token.
pub(super) fn from_json(
    text: &str,
    mut put: impl FnMut(Token<'_>) -> Result<(), Cow<'static, str>>,
) -> Result<(), ParseError> {
    // The text is valid JSON from here on, so the first byte of a token determines its type.
    json::check(text)?;
    let mut lengths = lengths(text.as_bytes()).into_iter();
    let mut at = 0;
    while let Some(first) = text.as_bytes().get(at) {
        let rest = &text[at..];
        let (token, len) = match first {
            b'n' => (Token::Null, 4),
            b't' => (Token::Bool(true), 4),
            b'f' => (Token::Bool(false), 5),
            b'"' => {
                let written = &rest[..string_len(rest.as_bytes())];
                (Token::Text(unquoted(written, at)?), written.len())
            }
            b'[' => (Token::Array(lengths.next().unwrap_or(0)), 1),
            b'{' => (Token::Map(lengths.next().unwrap_or(0)), 1),
            b'-' | b'0'..=b'9' => {
                let other =
                    |byte: &u8| !matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let len = rest.as_bytes().iter().position(other);
                let written = &rest[..len.unwrap_or(rest.len())];
                (number(written, at)?, written.len())
            }
            // Skip white space, separators and closing brackets.
            _ => {
                at += 1;
                continue;
            }
        };
        put(token).map_err(|message| ParseError::new(at, message))?;
        at += len;
    }
    Ok(())
}

/// Returns the number of elements or pairs of every array and object of a valid text, in the order
/// in which they begin.
fn lengths(text: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at += string_len(&text[at..]) - 1,
            b'[' | b'{' => {
                let inner = text[at + 1..].trim_ascii_start();
                open.push(lengths.len());
                lengths.push(usize::from(!matches!(inner.first(), Some(b']' | b'}'))));
            }
            b',' => {
                if let Some(&container) = open.last() {
                    lengths[container] += 1;
                }
            }
            b']' | b'}' => {
                open.pop();
            }
            _ => {}
        }
        at += 1;
    }
    lengths
}

/// Returns the length of the string at the start of the text, quotes included.
fn string_len(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        at += found;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}

fn unquoted(written: &str, at: usize) -> Result<Cow<'_, str>, ParseError> {
    let inner = &written[1..written.len() - 1];
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Ok(inner.into());
    }
    serde_json::from_str(written).map(Cow::Owned).map_err(|_| {
        ParseError::new(
            at,
            "half of a surrogate pair, which is no text, is in the string",
        )
    })
}

fn number(written: &str, at: usize) -> Result<Token<'static>, ParseError> {
    let refuse = |message: &'static str| Err(ParseError::new(at, message));
    // An integer has no negative zero; a float has.
    if written != "-0" && !written.contains(['.', 'e', 'E']) {
        return match written.parse() {
            Ok(integer) => Ok(Token::Integer(integer)),
            Err(_) => refuse("the integer has more than 64 bits"),
        };
    }
    match written.parse::<f64>() {
        Ok(float) if float.is_finite() => Ok(Token::Float(float)),
        _ => refuse("the number is beyond the range of a 64-bit float"),
    }
}

/// An array or an object that is not closed yet. It is small: a datagram may open one with every
/// byte.
struct Open {
    /// The number of items that follow, a key and its value counted as two; `None`: until a break.
    left: Option<u32>,
    next: Next,
}

/// The next item of an array or an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    FirstElement,
    Element,
    FirstKey,
    Key,
    Value,
}

impl Next {
    fn is_key(self) -> bool {
        matches!(self, Self::FirstKey | Self::Key)
    }

    fn separator(self) -> &'static [u8] {
        match self {
            Self::FirstElement | Self::FirstKey => b"",
            Self::Element | Self::Key => b",",
            Self::Value => b":",
        }
    }

    fn following(self) -> Self {
        match self {
            Self::FirstElement | Self::Element => Self::Element,
            Self::FirstKey | Self::Key => Self::Value,
            Self::Value => Self::Key,
        }
    }

    fn start(self) -> u8 {
        match self {
            Self::FirstElement | Self::Element => b'[',
            Self::FirstKey | Self::Key | Self::Value => b'{',
        }
    }

    fn end(self) -> u8 {
        match self {
            Self::FirstElement | Self::Element => b']',
            Self::FirstKey | Self::Key | Self::Value => b'}',
        }
    }
}

/// Returns the JSON text of a datagram of `len` bytes that holds exactly one item.
pub(super) fn to_json<'d>(len: usize, mut items: impl Items<'d>) -> Result<String, ParseError> {
    let mut writer = Writer {
        json: Vec::with_capacity(len),
        open: Vec::new(),
        len,
    };
    loop {
        let start = items.position();
        let item = items.next()?;
        writer.separate(&item, start)?;
        writer.write(item, start, items.position())?;
        writer.close_full();
        if writer.open.is_empty() {
            break;
        }
    }
    if items.position() < len {
        return Err(ParseError::new(
            items.position(),
            "expected the end, more bytes follow",
        ));
    }
    String::from_utf8(writer.json).map_err(|error| ParseError::new(0, error.to_string()))
}

/// Writes items as JSON text.
struct Writer {
    json: Vec<u8>,
    /// The arrays and objects that are not closed yet, the innermost last.
    open: Vec<Open>,
    /// The length of the datagram.
    len: usize,
}

impl Writer {
    /// Writes the separator before `item`, which begins at `start`, and counts the item in its
    /// container.
    fn separate(&mut self, item: &Item<'_>, start: usize) -> Result<(), ParseError> {
        match (self.open.last_mut(), item) {
            (Some(container), Item::Break)
                if container.left.is_none() && container.next != Next::Value =>
            {
                container.left = Some(0);
            }
            (_, Item::Break) => {
                return Err(ParseError::new(start, "a break that ends nothing"));
            }
            (Some(container), item) => {
                if container.next.is_key() && !matches!(item, Item::Text(_)) {
                    return Err(ParseError::new(start, "JSON has only text as keys"));
                }
                self.json.extend_from_slice(container.next.separator());
                container.next = container.next.following();
                container.left = container.left.map(|left| left.saturating_sub(1));
            }
            (None, _) => {}
        }
        Ok(())
    }

    /// Writes the item at `start..end` of the datagram; of an array or a map, its opening bracket.
    fn write(&mut self, item: Item<'_>, start: usize, end: usize) -> Result<(), ParseError> {
        let unwritten = |error: io::Error| ParseError::new(start, error.to_string());
        match item {
            Item::Array(elements) => return self.begin(Next::FirstElement, elements, start, end),
            Item::Map(pairs) => {
                let items = pairs.map(|pairs| pairs.saturating_mul(2));
                return self.begin(Next::FirstKey, items, start, end);
            }
            Item::Null => self.json.extend_from_slice(b"null"),
            Item::Bool(true) => self.json.extend_from_slice(b"true"),
            Item::Bool(false) => self.json.extend_from_slice(b"false"),
            Item::Integer(integer) => write!(self.json, "{integer}").map_err(unwritten)?,
            // `Debug` writes the fewest digits that parse to the same number.
            Item::Float(float) if float.is_finite() => {
                write!(self.json, "{float:?}").map_err(unwritten)?;
            }
            Item::Float(_) => {
                return Err(ParseError::new(start, "JSON has no NaN and no infinity"));
            }
            Item::Text(text) => serde_json::to_writer(&mut self.json, &*text)
                .map_err(|error| unwritten(error.into()))?,
            Item::Bytes(bytes) => {
                self.json.push(b'"');
                let digits = BASE64.encode(&bytes);
                self.json.extend_from_slice(digits.as_bytes());
                self.json.push(b'"');
            }
            Item::Break => {}
        }
        Ok(())
    }

    /// Opens a container of `items` items, whose header lies at `start..end` of the datagram.
    fn begin(
        &mut self,
        next: Next,
        items: Option<u64>,
        start: usize,
        end: usize,
    ) -> Result<(), ParseError> {
        // Every item takes at least one byte: refuse a length that the rest of the datagram cannot hold.
        if items.is_some_and(|items| items > (self.len - end) as u64) {
            return Err(too_short(self.len));
        }
        let left = items.map(u32::try_from).transpose();
        let left = left.map_err(|_| ParseError::new(start, "it has too many elements"))?;
        self.json.push(next.start());
        self.open.push(Open { left, next });
        Ok(())
    }

    /// Closes the containers that have all their items.
    fn close_full(&mut self) {
        while let Some(Open {
            left: Some(0),
            next,
        }) = self.open.last()
        {
            self.json.push(next.end());
            self.open.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<String>, ParseError> {
        let mut tokens = Vec::new();
        from_json(text, |token| {
            tokens.push(format!("{token:?}"));
            Ok(())
        })?;
        Ok(tokens)
    }

    #[test]
    fn lengths_are_those_of_the_containers_in_order() {
        let text = r#" [ [ ] , {} , { "]" : [1,2 , "a\",\\"], "b":{"c":null} } , [[3]] ] "#;
        assert_eq!(lengths(text.as_bytes()), [4, 0, 0, 2, 3, 1, 1, 1]);
    }

    #[test]
    fn each_kind_of_token_is_recognized() {
        assert_eq!(
            tokens(r#"[null,true,false,-0,-1,1.5,"a\n","é",{"k":18446744073709551615}]"#).unwrap(),
            [
                "Array(9)",
                "Null",
                "Bool(true)",
                "Bool(false)",
                "Float(-0.0)",
                "Integer(-1)",
                "Float(1.5)",
                "Text(\"a\\n\")",
                "Text(\"é\")",
                "Map(1)",
                "Text(\"k\")",
                "Integer(18446744073709551615)",
            ]
        );
    }

    #[test]
    fn a_packet_decoded_from_random_bytes_is_the_same_after_another_round_trip() {
        use crate::protocol::{Cbor, DatagramProtocol, MessagePack};

        fn check(
            protocol: &impl DatagramProtocol<Sent = str, Received = String>,
            bytes: &[u8],
        ) -> bool {
            let Ok(packet) = protocol.build_packet(bytes).map(Into::into) else {
                return false;
            };
            let again = protocol.make_datagram(&packet).unwrap();
            assert_eq!(protocol.build_packet(&again).map(Into::into), Ok(packet));
            true
        }
        let mut state: u64 = 1;
        let mut accepted = 0;
        let tries = if cfg!(miri) { 200 } else { 200_000 };
        for _ in 0..tries {
            // A linear congruential generator, whose high bits are good enough.
            let mut next = || {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                (state >> 56).to_le_bytes()[0]
            };
            let bytes: Vec<u8> = (0..next() % 12).map(|_| next()).collect();
            accepted +=
                usize::from(check(&Cbor, &bytes)) + usize::from(check(&MessagePack, &bytes));
        }
        assert!(accepted > tries / 20, "{accepted}");
    }

    #[test]
    fn json_that_the_format_cannot_represent_is_refused_with_its_offset() {
        for (text, offset) in [
            ("[1e400]", 1),
            (" -1e309", 1),
            (&format!("[0, {}]", "9".repeat(50)), 4),
            (r#"["a","b\ud800c"]"#, 5),
            (r#""\udc00""#, 0),
            ("[1,]", 3),
        ] {
            let error = tokens(text).unwrap_err();
            assert_eq!(error.offset(), offset, "{text}: {error}");
        }
    }
}
