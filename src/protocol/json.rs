//! JSON: each datagram is one value, checked and passed on token by token.

use super::scan::{Found, scan};
use super::{DatagramProtocol, ParseError, ParseErrorKind, utf8};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// One JSON value (RFC 8259) as its text. It is checked, never rebuilt: numbers of any size, the
/// order of keys, duplicate keys and escapes are kept. White space around the value and
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

/// The characters that end a line.
const BREAKS: [char; 2] = ['\n', '\r'];

/// Returns the one JSON value of a text, without the white space around it.
pub(super) fn check(text: &str) -> Result<Found<'_>, ParseError> {
    if let Some(found) = scan(text) {
        return Ok(found);
    }
    // `RawValue` checks the text at any depth and builds no value.
    let value: &RawValue = serde_json::from_str(text).map_err(|error| parse_error(text, &error))?;
    Ok(Found {
        value: value.get(),
        broken: value.get().contains(BREAKS),
    })
}

fn one_line(text: &str) -> Result<Cow<'_, str>, ParseError> {
    let Found { value, broken } = check(text)?;
    Ok(if broken {
        // JSON strings cannot contain line breaks, so all of them are between tokens.
        value.replace(BREAKS, "").into()
    } else {
        value.into()
    })
}

/// Returns the error of a text that `serde_json` refused with `error`.
pub(super) fn parse_error(text: &str, error: &serde_json::Error) -> ParseError {
    let whole = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = whole.strip_suffix(&place).unwrap_or(&whole);
    let offset = if error.is_eof() {
        text.len()
    } else {
        let before = error.line().saturating_sub(1);
        let line: usize = text.split_inclusive('\n').take(before).map(str::len).sum();
        // The column counts from 1, except that this one error has the column of the byte before.
        line + error
            .column()
            .saturating_sub(usize::from(!message.starts_with("control character")))
    };
    if error.is_data() {
        // Valid JSON, but not of the requested type.
        return ParseError::new(offset, message.to_owned());
    }
    let (kind, offset) = kind_of(text, error.is_eof(), offset, message);
    let words = match kind {
        ParseErrorKind::Empty => "expected a JSON value",
        ParseErrorKind::SingleQuotes => "expected double quotes",
        ParseErrorKind::UnexpectedEnd => "the JSON value does not end",
        ParseErrorKind::SecondValue => "a second JSON value",
        ParseErrorKind::ByteOrderMark => "a byte order mark before the JSON value",
        ParseErrorKind::FinalNul => "a NUL after the JSON value",
        _ if message == "expected ident" => "expected value",
        _ => return ParseError::of_kind(kind, offset, message.to_owned()),
    };
    ParseError::of_kind(kind, offset, words)
}

/// Returns the kind of error of a text that is not one JSON value, and its offset. The parser
/// stopped at `offset` with this message; `ended` reports that the text ended too early.
fn kind_of(text: &str, ended: bool, offset: usize, message: &str) -> (ParseErrorKind, usize) {
    let one_value = |text: &str| serde_json::from_str::<&RawValue>(text).is_ok();
    let begun = text.trim_start();
    if begun.is_empty() {
        return (ParseErrorKind::Empty, 0);
    }
    if text.starts_with('\u{feff}') {
        return (ParseErrorKind::ByteOrderMark, 0);
    }
    let without = text.trim_end_matches('\0');
    if without.len() < text.len() && one_value(without) {
        return (ParseErrorKind::FinalNul, without.len());
    }
    if ended {
        // The beginning of a literal, such as "tr", is not the beginning of a value.
        return if begun.starts_with(['{', '[', '"']) {
            (ParseErrorKind::UnexpectedEnd, offset)
        } else {
            (ParseErrorKind::NotJson, text.len() - begun.len())
        };
    }
    let rest = text.get(offset..).unwrap_or_default();
    if rest.starts_with('\'') {
        return (ParseErrorKind::SingleQuotes, offset);
    }
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
    if message == "trailing characters" && matches!(values.next(), Some(Ok(_))) {
        return (ParseErrorKind::SecondValue, offset);
    }
    (ParseErrorKind::NotJson, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_valid_passes_through_unchanged() {
        let depth = if cfg!(miri) { 100 } else { 100_000 };
        let deep = "[".repeat(depth) + &"]".repeat(depth);
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

    /// Returns every text of up to four of these pieces, and longer ones of some; fewer under Miri.
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
        // Miri takes some 30 ms for each text. The scanner reads blocks of 64 bytes: behind 62 and 124 letters,
        // most of what follows lies across the end of a block.
        let (most, step) = if cfg!(miri) { (1, 62) } else { (4, 1) };
        for _ in 0..most {
            let longer = |text: &String| pieces.map(|piece| format!("{text}{piece}"));
            texts = texts
                .iter()
                .flat_map(longer)
                .chain([String::new()])
                .collect();
        }
        let strings = pieces.iter().flat_map(|piece| {
            (0..140)
                .step_by(step)
                .map(move |len| format!("\"{}{piece}\"", "x".repeat(len)))
        });
        texts.extend(strings.collect::<Vec<_>>());
        let tails = ["\\n", "\\u00e9", "\\\"", "\\\\", "é", "😀"];
        for tail in tails {
            for lead in (0..=130).step_by(step) {
                let text = format!("[1,\"{}{tail}\",\"b\"]\n", "x".repeat(lead));
                let ends = text.char_indices().map(|(end, _)| text[..end].to_owned());
                texts.extend(ends.skip(lead).collect::<Vec<_>>());
                texts.push(text);
            }
        }
        let nested = (60..70)
            .step_by(if cfg!(miri) { 3 } else { 1 })
            .flat_map(|depth| {
                [("[", "]"), ("{\"a\":", "}")]
                    .map(|(open, close)| format!("{}1{}", open.repeat(depth), close.repeat(depth)))
            });
        texts.extend(nested.collect::<Vec<_>>());
        texts
    }

    /// Returns whether the text nests more deeply than the scanner supports.
    fn is_deep(text: &str) -> bool {
        text.bytes().filter(|byte| b"[{".contains(byte)).count() > 62
    }

    #[test]
    fn the_scanner_and_serde_json_accept_the_same_values() {
        for text in texts() {
            let slow = serde_json::from_str::<&RawValue>(&text)
                .ok()
                .map(RawValue::get);
            match scan(&text) {
                Some(Found { value, broken }) => {
                    assert_eq!(Some(value), slow, "{text:?}");
                    assert_eq!(broken, value.contains(BREAKS), "{text:?}");
                }
                None => assert!(
                    slow.is_none() || is_deep(&text),
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
        for (datagram, kind, offset) in [
            (&b""[..], ParseErrorKind::Empty, 0),
            (b" \n", ParseErrorKind::Empty, 0),
            (b"{\"a\":", ParseErrorKind::UnexpectedEnd, 5),
            (b"\"a", ParseErrorKind::UnexpectedEnd, 2),
            (b"NaN", ParseErrorKind::NotJson, 0),
            (b" tr", ParseErrorKind::NotJson, 1),
            (b"hello", ParseErrorKind::NotJson, 0),
            (b"{'a':1}", ParseErrorKind::SingleQuotes, 1),
            (b"'{}'", ParseErrorKind::SingleQuotes, 0),
            (b"\xef\xbb\xbf1", ParseErrorKind::ByteOrderMark, 0),
            (b"1 2", ParseErrorKind::SecondValue, 2),
            (b"{}{}", ParseErrorKind::SecondValue, 2),
            (b"1 file", ParseErrorKind::NotJson, 2),
            (b"1]", ParseErrorKind::NotJson, 1),
            (b"{} \0\0", ParseErrorKind::FinalNul, 3),
            (b"[1,\n2,\n]", ParseErrorKind::NotJson, 7),
            (b"\"\xff\"", ParseErrorKind::NotUtf8, 1),
            (b"[\"a\x00b\"]", ParseErrorKind::NotJson, 3),
            (b"01", ParseErrorKind::NotJson, 1),
        ] {
            let error = Json.build_packet(datagram).unwrap_err();
            assert_eq!(
                (error.kind(), error.offset()),
                (kind, offset),
                "{error} in {}",
                datagram.escape_ascii()
            );
        }
    }
}
