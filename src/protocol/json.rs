//! JSON: one value a datagram, checked and passed through token by token.

use super::{DatagramProtocol, ParseError, utf8};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// One JSON value (RFC 8259) as its text. It is checked, never rebuilt: numbers of any size, the
/// order of keys, duplicate keys and escapes are what they were. White space around the value and
/// line breaks between its tokens are dropped, so that a packet is one line.
///
/// ```
/// use udgram::protocol::{DatagramProtocol, Json};
///
/// assert_eq!(Json.build_packet(b"{\"n\":\n 1.10e400, \"n\": 1}\n")?, "{\"n\": 1.10e400, \"n\": 1}");
/// assert_eq!(Json.build_packet(b"[1,]").unwrap_err().offset(), 3);
/// # Ok::<(), udgram::protocol::ParseError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

impl DatagramProtocol for Json {
    type Sent = str;
    type View<'d> = Cow<'d, str>;
    type Received = String;

    fn make_datagram<'p>(&self, packet: &'p str) -> Result<Cow<'p, [u8]>, ParseError> {
        Ok(match one_line(packet)? {
            Cow::Borrowed(value) => value.as_bytes().into(),
            Cow::Owned(value) => value.into_bytes().into(),
        })
    }

    fn build_packet<'d>(&self, datagram: &'d [u8]) -> Result<Cow<'d, str>, ParseError> {
        one_line(utf8(datagram)?)
    }
}

/// What JSON takes for white space.
const BLANK: [char; 4] = [' ', '\t', '\n', '\r'];

/// The one JSON value of a text, without the white space around it.
pub(super) fn check(text: &str) -> Result<&str, ParseError> {
    if let Some(value) = scan(text.trim_matches(BLANK)) {
        return Ok(value);
    }
    // `RawValue` goes through the text without building anything, at any depth.
    let value: &RawValue = serde_json::from_str(text).map_err(|error| parse_error(text, &error))?;
    Ok(value.get())
}

/// `text`, if it is one JSON value and nothing else. `None` where that cannot be said quickly: it
/// may be wrong, or nested more than 64 levels deep.
///
/// This is what every packet goes through; it takes a sixth of the time that serde_json takes.
fn scan(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    // The containers that are open, the innermost last: a bit each, 1 for an object.
    let (mut open, mut depth) = (0_u64, 0_u32);
    let mut at = 0;
    loop {
        // Here a value begins.
        at = blank(bytes, at);
        let first = *bytes.get(at)?;
        at = match first {
            b'"' => string(bytes, at + 1)?,
            b'-' | b'0'..=b'9' => number(bytes, at)?,
            b't' => word(bytes, at, b"true")?,
            b'f' => word(bytes, at, b"false")?,
            b'n' => word(bytes, at, b"null")?,
            b'{' | b'[' => {
                let object = first == b'{';
                at = blank(bytes, at + 1);
                let next = *bytes.get(at)?;
                if next == if object { b'}' } else { b']' } {
                    at + 1
                } else {
                    if depth == u64::BITS {
                        return None;
                    }
                    (open, depth) = (open << 1 | u64::from(object), depth + 1);
                    if object {
                        at = key(bytes, at)?;
                    }
                    continue;
                }
            }
            _ => return None,
        };
        // Here one has ended.
        loop {
            if depth == 0 {
                return (at == bytes.len()).then_some(text);
            }
            at = blank(bytes, at);
            match (*bytes.get(at)?, open & 1 == 1) {
                (b',', false) => {
                    at += 1;
                    break;
                }
                (b',', true) => {
                    at = key(bytes, blank(bytes, at + 1))?;
                    break;
                }
                (b'}', true) | (b']', false) => (open, depth, at) = (open >> 1, depth - 1, at + 1),
                _ => return None,
            }
        }
    }
}

/// Past the white space at `at`.
fn blank(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Past the key at `at` and its colon.
fn key(bytes: &[u8], at: usize) -> Option<usize> {
    if *bytes.get(at)? != b'"' {
        return None;
    }
    let colon = blank(bytes, string(bytes, at + 1)?);
    (*bytes.get(colon)? == b':').then_some(colon + 1)
}

/// Past the rest of a string, from behind its first quote.
fn string(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        if let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
            let specials = specials(u64::from_le_bytes(*eight));
            if specials == 0 {
                at += 8;
                continue;
            }
            at += (specials.trailing_zeros() / 8) as usize;
        }
        match *bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => match *bytes.get(at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                b'u' if bytes.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => at += 6,
                _ => return None,
            },
            ..b' ' => return None,
            _ => at += 1,
        }
    }
}

/// Of eight bytes, the lowest first, those that are a quote, a backslash or a control character:
/// the highest bit is set of the first of them, and of none before it.
fn specials(eight: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    // A subtraction borrows from the bytes above one that is less, and from none below.
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
    let quotes = below(eight ^ (ONES * u64::from(b'"')), 1);
    let backslashes = below(eight ^ (ONES * u64::from(b'\\')), 1);
    (quotes | backslashes | below(eight, b' ')) & HIGH
}

/// Past the number at `at`.
fn number(bytes: &[u8], mut at: usize) -> Option<usize> {
    let digits = |from: usize| {
        let count = bytes
            .get(from..)?
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        (count > 0).then_some(from + count)
    };
    at += usize::from(bytes[at] == b'-');
    at = if *bytes.get(at)? == b'0' {
        at + 1
    } else {
        digits(at)?
    };
    if bytes.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        at = digits(at + 1 + sign)?;
    }
    Some(at)
}

/// Past the word at `at`, if it stands there.
fn word(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes
        .get(at..)?
        .starts_with(word)
        .then_some(at + word.len())
}

fn one_line(text: &str) -> Result<Cow<'_, str>, ParseError> {
    let value = check(text)?;
    // Inside strings they are not allowed: any there are stand between tokens.
    if memchr::memchr2(b'\n', b'\r', value.as_bytes()).is_none() {
        return Ok(value.into());
    }
    Ok(value.replace(['\n', '\r'], "").into())
}

pub(super) fn parse_error(text: &str, error: &serde_json::Error) -> ParseError {
    let whole = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = whole.strip_suffix(&place).unwrap_or(&whole);
    let offset = if error.is_eof() {
        text.len()
    } else {
        let before = error.line().saturating_sub(1);
        let line: usize = text.split_inclusive('\n').take(before).map(str::len).sum();
        // The column counts from 1; for this one error it is that of the byte before.
        line + error
            .column()
            .saturating_sub(usize::from(!message.starts_with("control character")))
    };
    ParseError::new(offset, message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_valid_passes_through_unchanged() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let values = [
            "12345678901234567890.10",
            "-0",
            "1E+400",
            r#"{"b":1,"a":2,"b":3}"#,
            r#""\u00e9\/\ud800""#,
            "[1, 2 ,3]",
            &deep,
        ];
        for value in values {
            assert_eq!(Json.build_packet(value.as_bytes()).unwrap(), value);
            assert_eq!(Json.make_datagram(value).unwrap(), value.as_bytes());
        }
    }

    /// Every text of up to four of these pieces, and longer ones of some.
    fn texts() -> Vec<String> {
        let pieces = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "u00e9",
            "\"k\"",
            " ",
            "\n",
            "0",
            "1",
            "-",
            ".",
            "e+",
            "true",
            "nul",
            "\u{7f}",
            "\u{c}",
            "\u{1f}",
            "é",
            "abcdefghijk",
        ];
        let mut texts = vec![String::new()];
        for _ in 0..4 {
            let longer = |text: &String| pieces.map(|piece| format!("{text}{piece}"));
            texts = texts
                .iter()
                .flat_map(longer)
                .chain([String::new()])
                .collect();
        }
        let strings = pieces
            .iter()
            .flat_map(|piece| (0..20).map(move |len| format!("\"{}{piece}\"", "x".repeat(len))));
        texts.extend(strings.collect::<Vec<_>>());
        let nested = (60..70).flat_map(|depth| {
            [("[", "]"), ("{\"a\":", "}")]
                .map(|(open, close)| format!("{}1{}", open.repeat(depth), close.repeat(depth)))
        });
        texts.extend(nested.collect::<Vec<_>>());
        texts
    }

    #[test]
    fn the_quick_look_never_says_other_than_serde_json() {
        for text in texts() {
            let slow = serde_json::from_str::<&RawValue>(&text)
                .ok()
                .map(RawValue::get);
            match scan(text.trim_matches(BLANK)) {
                Some(value) => assert_eq!(Some(value), slow, "{text:?}"),
                None => assert!(
                    slow.is_none() || text.len() > 64,
                    "{text:?} is not seen to be valid"
                ),
            }
        }
    }

    #[test]
    fn line_breaks_between_tokens_are_dropped_and_escaped_ones_kept() {
        let packet = Json.build_packet(b"\r\n{\r\n \"a\\n\":\n\n1}\n").unwrap();
        assert_eq!(packet, "{ \"a\\n\":1}");
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        for (datagram, offset) in [
            (&b""[..], 0),
            (b"{\"a\":", 5),
            (b"NaN", 0),
            (b"\xef\xbb\xbf1", 0),
            (b"1 2", 2),
            (b"[1,\n2,\n]", 7),
            (b"\"\xff\"", 1),
            (b"[\"a\x00b\"]", 3),
            (b"01", 1),
        ] {
            let error = Json.build_packet(datagram).unwrap_err();
            assert_eq!(
                error.offset(),
                offset,
                "{error} in {}",
                datagram.escape_ascii()
            );
        }
    }
}
