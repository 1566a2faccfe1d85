//! Writes the JSON that the program prints: objects, strings, base64, addresses, credentials and socket
//! options. Everything is appended to a buffer of bytes.

use crate::cli::setting::format_value;
use std::fmt::Display;
use std::io::Write;
use std::time::Duration;
use udgram::Address;
use udgram::ancillary::Credentials;
use udgram::sockopt::Value;

/// The layout of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// All members on one line, without spaces.
    Compact,
    /// Each member on its own line, indented by two spaces.
    Lines,
}

/// A JSON object that is being appended to a buffer, member by member. [`Object::end`] closes it.
#[must_use]
pub(crate) struct Object<'j> {
    json: &'j mut Vec<u8>,
    layout: Layout,
    /// The separator before the next member.
    separator: &'static [u8],
}

impl<'j> Object<'j> {
    /// Opens an object at the end of `json`.
    pub(crate) fn begin(json: &'j mut Vec<u8>, layout: Layout) -> Self {
        json.push(b'{');
        Self {
            json,
            layout,
            separator: match layout {
                Layout::Compact => b"",
                Layout::Lines => b"\n  ",
            },
        }
    }

    /// Returns an object on one line without its braces: the members that it appends are appended to another
    /// one by [`members`](Self::members).
    pub(crate) fn within(json: &'j mut Vec<u8>) -> Self {
        Self {
            json,
            layout: Layout::Compact,
            separator: b"",
        }
    }

    /// Appends members that were written before, on one line.
    pub(crate) fn members(&mut self, members: &[u8]) {
        self.json.extend_from_slice(self.separator);
        self.json.extend_from_slice(members);
        self.separator = b",";
    }

    /// Appends the name of a member, which must need no escapes. Returns the buffer for its value.
    pub(crate) fn member(&mut self, name: &str) -> &mut Vec<u8> {
        self.json.extend_from_slice(self.separator);
        self.json.push(b'"');
        self.json.extend_from_slice(name.as_bytes());
        let (colon, separator): (&[u8], &'static [u8]) = match self.layout {
            Layout::Compact => (b"\":", b","),
            Layout::Lines => (b"\": ", b",\n  "),
        };
        self.json.extend_from_slice(colon);
        self.separator = separator;
        self.json
    }

    /// Appends a member whose value is a number, a boolean or `null`.
    pub(crate) fn literal(&mut self, name: &str, value: impl Display) {
        // Writing to a vector cannot fail, here and below.
        let _ = write!(self.member(name), "{value}");
    }

    /// Appends a member whose value is a number. It does not go through `Display`, which takes some 250 instructions.
    pub(crate) fn number(&mut self, name: &str, number: usize) {
        let _ = serde_json::to_writer(self.member(name), &number);
    }

    /// Appends a member whose value is a string.
    pub(crate) fn string(&mut self, name: &str, text: &str) {
        write_string(text, self.member(name));
    }

    /// Appends a member whose value is base64.
    pub(crate) fn base64(&mut self, name: &str, bytes: &[u8]) {
        write_base64(bytes, self.member(name));
    }

    /// Appends an address: a string, or `null` if it is unnamed. If a pathname is not UTF-8, its bytes
    /// follow as base64 in the member `NAME_raw`.
    pub(crate) fn address(&mut self, name: &str, address: &Address<'_>) {
        match address {
            Address::Unnamed => self.literal(name, "null"),
            Address::Pathname(path) => match std::str::from_utf8(path) {
                // `Display` writes the same, but needs an allocation.
                Ok(path) if !path.starts_with('@') => self.string(name, path),
                Ok(_) => self.string(name, &address.to_string()),
                Err(_) => {
                    self.string(name, &address.to_string());
                    self.base64(&format!("{name}_raw"), path);
                }
            },
            Address::Abstract(_) => self.string(name, &address.to_string()),
        }
    }

    /// Closes the object.
    pub(crate) fn end(self) {
        self.json.extend_from_slice(match self.layout {
            Layout::Compact => b"}",
            Layout::Lines => b"\n}",
        });
    }
}

/// Appends `text` as a JSON string.
pub(crate) fn write_string(text: &str, json: &mut Vec<u8>) {
    // Every string has a JSON form, and writing to a vector cannot fail.
    let _ = serde_json::to_writer(json, text);
}

/// Appends `bytes` as a JSON string of base64.
pub(crate) fn write_base64(bytes: &[u8], json: &mut Vec<u8>) {
    json.push(b'"');
    let start = json.len();
    json.resize(start + data_encoding::BASE64.encode_len(bytes.len()), 0);
    data_encoding::BASE64.encode_mut(bytes, &mut json[start..]);
    json.push(b'"');
}

/// Appends credentials as a JSON object. The pid is `null` if the kernel reports no process.
pub(crate) fn write_credentials(credentials: Credentials, comm: Option<&[u8]>, json: &mut Vec<u8>) {
    let Credentials { pid, uid, gid } = credentials;
    let mut object = Object::begin(json, Layout::Compact);
    match pid {
        0 => object.literal("pid", "null"),
        pid => object.literal("pid", pid),
    }
    object.literal("uid", uid);
    object.literal("gid", gid);
    if let Some(comm) = comm {
        object.string("comm", &String::from_utf8_lossy(comm));
    }
    object.end();
}

/// Appends the value of a socket option: a number, a boolean or an object where there is one; `null` for
/// no value and for no limit; otherwise a string in the form of `NAME=VALUE`.
pub(crate) fn write_option_value(value: &Value, json: &mut Vec<u8>) {
    let _ = match value {
        Value::None | Value::Duration(Duration::ZERO) => write!(json, "null"),
        Value::Flag(on) => write!(json, "{on}"),
        Value::Linger(None) => write!(json, "false"),
        Value::Integer(number) | Value::Process(number) => write!(json, "{number}"),
        Value::Unsigned(number) => write!(json, "{number}"),
        Value::Groups(groups) => serde_json::to_writer(json, groups.as_slice()).map_err(Into::into),
        Value::Credentials(credentials) => {
            write_credentials(*credentials, None, json);
            Ok(())
        }
        Value::Memory(memory) => {
            let mut object = Object::begin(json, Layout::Compact);
            for (name, figure) in memory.fields() {
                object.literal(name, figure);
            }
            object.end();
            Ok(())
        }
        Value::Text(bytes) => {
            write_string(&String::from_utf8_lossy(bytes), json);
            Ok(())
        }
        other => {
            write_string(&format_value(other).unwrap_or_default(), json);
            Ok(())
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(layout: Layout, fill: impl FnOnce(&mut Object<'_>)) -> String {
        let mut json = Vec::new();
        let mut object = Object::begin(&mut json, layout);
        fill(&mut object);
        object.end();
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn an_object_is_one_line_or_has_a_line_for_each_member() {
        let fill = |object: &mut Object<'_>| {
            object.literal("a", 1);
            object.string("b", "x\"\n");
        };
        assert_eq!(object(Layout::Compact, fill), r#"{"a":1,"b":"x\"\n"}"#);
        assert_eq!(
            object(Layout::Lines, fill),
            "{\n  \"a\": 1,\n  \"b\": \"x\\\"\\n\"\n}"
        );
    }

    #[test]
    fn a_pathname_that_is_not_utf8_is_followed_by_its_bytes() {
        let written = object(Layout::Compact, |object| {
            object.address("local", &Address::Pathname(b"\xff/a".into()));
            object.address("peer", &Address::Unnamed);
            object.address("from", &Address::Pathname(b"@a".into()));
        });
        assert_eq!(
            written,
            r#"{"local":"�/a","local_raw":"/y9h","peer":null,"from":"./@a"}"#
        );
    }
}
