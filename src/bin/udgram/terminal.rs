//! Escapes control characters, so that text from outside cannot control a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// The replacement of control characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controls {
    /// JSON escapes (`\u009b`), which leave the meaning of JSON unchanged. Line ends and tabs stay.
    Json,
    /// Escapes like `\x9b`. Line ends and tabs stay.
    Text,
    /// Rust escapes (`\n`, `\u{9b}`).
    Rust,
    /// A space for each: the text stays one line.
    Space,
}

impl Controls {
    fn replaces(self, character: char) -> bool {
        let kept = match self {
            Self::Json | Self::Text => matches!(character, '\n' | '\t'),
            Self::Rust | Self::Space => false,
        };
        character.is_control() && !kept
    }
}

/// Replaces the control characters of `text`. Returns it unchanged if it has none.
pub(crate) fn escape_controls(text: &str, controls: Controls) -> Cow<'_, str> {
    if !text.chars().any(|character| controls.replaces(character)) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if !controls.replaces(character) {
            escaped.push(character);
            continue;
        }
        let code = u32::from(character);
        // Writing to a string cannot fail.
        let _ = match controls {
            Controls::Json => write!(escaped, "\\u{code:04x}"),
            Controls::Text => write!(escaped, "\\x{code:02x}"),
            Controls::Rust => write!(escaped, "{}", character.escape_default()),
            Controls::Space => escaped.write_char(' '),
        };
    }
    escaped.into()
}

/// Replaces the control characters of `lines[start..]`. Leaves it unchanged if it is not UTF-8.
pub(crate) fn escape(lines: &mut Vec<u8>, start: usize, controls: Controls) {
    let Ok(text) = std::str::from_utf8(&lines[start..]) else {
        return;
    };
    if let Cow::Owned(escaped) = escape_controls(text, controls) {
        lines.truncate(start);
        lines.extend_from_slice(escaped.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_as_their_place_needs() {
        let text = "a\n\t\u{1b}\u{7f}\u{9b}";
        for (controls, escaped) in [
            (Controls::Json, "a\n\t\\u001b\\u007f\\u009b"),
            (Controls::Text, "a\n\t\\x1b\\x7f\\x9b"),
            (Controls::Rust, "a\\n\\t\\u{1b}\\u{7f}\\u{9b}"),
            (Controls::Space, "a     "),
        ] {
            assert_eq!(escape_controls(text, controls), escaped);
        }
    }

    #[test]
    fn only_the_text_behind_the_start_is_escaped() {
        let mut lines = b"\x1b|\x1b".to_vec();
        escape(&mut lines, 2, Controls::Json);
        assert_eq!(lines, b"\x1b|\\u001b");
        let mut bytes = b"\x1b\xff".to_vec();
        escape(&mut bytes, 0, Controls::Text);
        assert_eq!(bytes, b"\x1b\xff");
    }
}
