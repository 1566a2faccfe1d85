//! What a person reads on a terminal: text from outside must not control it.

use crate::cli::Protocol;
use std::io::Write;

/// Escapes the control characters in `lines[start..]`. In JSON that is `\u009b`, which means the
/// same; in the text of a bare packet it is `\x9b`. Line ends and tabs stay. Raw bytes are
/// what was asked for. `bare` is the protocol of a bare packet.
pub(crate) fn escape(lines: &mut Vec<u8>, start: usize, bare: Option<Protocol>) {
    let text = bare == Some(Protocol::Text);
    let harmless = |character: char| !character.is_control() || "\n\t".contains(character);
    let Ok(new) = str::from_utf8(&lines[start..]) else {
        return;
    };
    if bare == Some(Protocol::Raw) || new.chars().all(harmless) {
        return;
    }
    let new = new.to_owned();
    lines.truncate(start);
    for character in new.chars() {
        // A vector takes what is written to it.
        let _ = match (harmless(character), text) {
            (true, _) => write!(lines, "{character}"),
            (false, true) => write!(lines, "\\x{:02x}", u32::from(character)),
            (false, false) => write!(lines, "\\u{:04x}", u32::from(character)),
        };
    }
}
