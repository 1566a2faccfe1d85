//! Colours for JSON on a terminal. The text between the colour codes is unchanged, byte for byte.

use crate::cli::When;
use crate::terminal::wants_color;
use anstyle::{AnsiColor, Style};
use std::io::Write;

const KEY: Style = AnsiColor::Blue.on_default().bold();
const STRING: Style = AnsiColor::Green.on_default();
const NUMBER: Style = AnsiColor::Cyan.on_default();
const WORD: Style = AnsiColor::Yellow.on_default();

/// Returns whether JSON is coloured; `terminal` is true if stdout is a terminal.
pub(crate) fn wanted(when: When, terminal: bool) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => terminal && wants_color(),
    }
}

/// Colours the JSON in `lines[start..]`.
pub(crate) fn paint(lines: &mut Vec<u8>, start: usize) {
    let json = lines.split_off(start);
    let mut rest = json.as_slice();
    while let Some(&first) = rest.first() {
        let (length, style) = match first {
            b'"' => {
                let length = string_length(rest);
                let after = rest[length..].trim_ascii_start();
                let style = if after.starts_with(b":") { KEY } else { STRING };
                (length, style)
            }
            b'-' | b'0'..=b'9' => (run(rest, |byte| !b" \t\r\n,]}".contains(&byte)), NUMBER),
            b'a'..=b'z' => (run(rest, |byte| byte.is_ascii_lowercase()), WORD),
            _ => (1, Style::new()),
        };
        let (token, after) = rest.split_at(length);
        // Writing to a vector cannot fail.
        let _ = write!(lines, "{style}");
        lines.extend_from_slice(token);
        let _ = write!(lines, "{style:#}");
        rest = after;
    }
}

fn run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes
        .iter()
        .position(|byte| !belongs(*byte))
        .unwrap_or(bytes.len())
}

/// Returns the length of the string at the start of `json`, quotes included.
fn string_length(json: &[u8]) -> usize {
    let mut escaped = false;
    let end = json.iter().skip(1).position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(json.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_do_not_change_the_text() {
        let json = r#"{"a\"b\\": [1e5 , -0.10,true,null],"c":{"":"x: \"y\""}} "#;
        let mut lines = b"before ".to_vec();
        lines.extend_from_slice(json.as_bytes());
        paint(&mut lines, 7);
        let painted = String::from_utf8(lines).unwrap();
        assert!(
            painted.contains("\x1b[1m\x1b[34m\"a\\\"b\\\\\"\x1b[0m:"),
            "{painted:?}"
        );
        assert!(
            painted.contains("\x1b[36m-0.10\x1b[0m,\x1b[33mtrue"),
            "{painted:?}"
        );
        assert!(
            painted.contains("\x1b[32m\"x: \\\"y\\\"\"\x1b[0m}}"),
            "{painted:?}"
        );
        let mut plain = String::new();
        let mut rest = painted.as_str();
        while let Some((text, after)) = rest.split_once('\x1b') {
            plain.push_str(text);
            rest = after.split_once('m').unwrap().1;
        }
        assert_eq!(plain + rest, format!("before {json}"));
    }

    #[test]
    fn always_and_never_override_the_detected_terminal() {
        assert!(wanted(When::Always, false));
        assert!(!wanted(When::Never, true));
        assert!(!wanted(When::Auto, false));
    }
}
