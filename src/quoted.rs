//! Text from outside, quoted for a message that stays one line.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// Shows text from outside in single quotes, on one line: escapes the characters of
/// [`escapes`](Self::escapes), and bytes that are not UTF-8.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a OsStr);

impl Quoted<'_> {
    /// Returns whether a character is escaped because it would change what a terminal shows: control
    /// characters, line and paragraph separators, and format characters, which reorder the text (as
    /// U+202E does) or are invisible. The joiners U+200C and U+200D are not escaped: Persian words and
    /// emoji contain them.
    #[must_use]
    pub fn escapes(character: char) -> bool {
        character.is_control()
            || matches!(
                character,
                '\u{ad}'
                    | '\u{61c}'
                    | '\u{180e}'
                    | '\u{200b}'
                    | '\u{200e}'..='\u{200f}'
                    | '\u{2028}'..='\u{202e}'
                    | '\u{2060}'..='\u{206f}'
                    | '\u{feff}'
                    | '\u{fff9}'..='\u{fffb}'
                    | '\u{e0001}'..='\u{e007f}'
            )
    }
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("'")?;
        for chunk in self.0.as_bytes().utf8_chunks() {
            for character in chunk.valid().chars() {
                if Self::escapes(character) {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_str("'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_change_the_display_are_escaped() {
        let quoted = |text: &str| Quoted(OsStr::new(text)).to_string();
        assert_eq!(quoted("a\n\u{9b}"), r"'a\n\u{9b}'");
        assert_eq!(quoted("gpj.\u{202e}exe"), r"'gpj.\u{202e}exe'");
        assert_eq!(quoted("a\u{2028}\u{e0061}"), r"'a\u{2028}\u{e0061}'");
        assert_eq!(Quoted(OsStr::from_bytes(b"a\xff")).to_string(), r"'a\xff'");
        let legitimate = "می\u{200c}شود 👨\u{200d}👩 \u{600}";
        assert_eq!(quoted(legitimate), format!("'{legitimate}'"));
    }
}
