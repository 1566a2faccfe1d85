//! Escapes control and format characters, so that text from outside cannot control a terminal or
//! reorder what it shows, and quotes words that a user may paste into a shell. It also finds whether the
//! user of a terminal wants colours.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write;
use udgram::Quoted;

/// Returns whether the environment permits colours on a terminal: `NO_COLOR`, `CLICOLOR` and `TERM`.
pub(crate) fn wants_color() -> bool {
    !anstyle_query::no_color()
        && anstyle_query::clicolor() != Some(false)
        && anstyle_query::term_supports_ansi_color()
}

/// The replacement of the characters of [`Quoted::escapes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controls {
    /// JSON escapes (`\u009b`), which leave the meaning of JSON unchanged. Line ends and tabs stay.
    Json,
    /// Escapes like `\x9b` and `\u{202e}`. Line ends and tabs stay.
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
        Quoted::escapes(character) && !kept
    }
}

/// Replaces the control and format characters of `text`. Returns it unchanged if it has none.
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
        // Writing to a string cannot fail.
        let _ = match controls {
            Controls::Json => {
                let mut units = [0; 2];
                let mut units = character.encode_utf16(&mut units).iter();
                units.try_for_each(|unit| write!(escaped, "\\u{unit:04x}"))
            }
            Controls::Text if character.is_control() => {
                write!(escaped, "\\x{:02x}", u32::from(character))
            }
            Controls::Text => write!(escaped, "{}", character.escape_unicode()),
            Controls::Rust => write!(escaped, "{}", character.escape_default()),
            Controls::Space => escaped.write_char(' '),
        };
    }
    escaped.into()
}

/// Replaces the control and format characters of `lines[start..]`. Leaves it unchanged if it is not UTF-8.
pub(crate) fn escape(lines: &mut Vec<u8>, start: usize, controls: Controls) {
    let Ok(text) = std::str::from_utf8(&lines[start..]) else {
        return;
    };
    if let Cow::Owned(escaped) = escape_controls(text, controls) {
        lines.truncate(start);
        lines.extend_from_slice(escaped.as_bytes());
    }
}

/// Returns a word for a command line in a message, quoted if a shell would change it.
pub(crate) fn shell_word(word: &OsStr) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._/-+=:,@%".contains(byte);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.as_bytes().iter().all(plain) => text.to_owned(),
        _ => Quoted(word).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_format_characters_are_escaped_in_the_syntax_of_their_place() {
        let text = "a\n\t\u{1b}\u{7f}\u{9b}\u{202e}\u{e0061}";
        for (controls, escaped) in [
            (
                Controls::Json,
                "a\n\t\\u001b\\u007f\\u009b\\u202e\\udb40\\udc61",
            ),
            (Controls::Text, "a\n\t\\x1b\\x7f\\x9b\\u{202e}\\u{e0061}"),
            (
                Controls::Rust,
                "a\\n\\t\\u{1b}\\u{7f}\\u{9b}\\u{202e}\\u{e0061}",
            ),
            (Controls::Space, "a       "),
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
