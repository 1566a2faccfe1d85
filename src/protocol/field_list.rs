//! The packets of [`Fields`](super::Fields): lists of fields, and their form in JSON.

use super::ParseError;
use super::byte_value::write_members;
use super::transcode::{Token, from_json};
use std::borrow::Cow;

/// The largest number of fields in a packet; systemd-journald drops an entry that has more.
pub(super) const MAX_FIELDS: usize = 1024;

/// An ordered list of fields: the packet of [`Fields`](super::Fields). A field is a name and a value of any
/// bytes; names may repeat.
///
/// ```
/// use udgram::protocol::FieldList;
///
/// let mut fields = FieldList::from([("MESSAGE", "disk full"), ("PRIORITY", "3")]);
/// fields.push("DISK", "sda");
/// fields.push("DISK", "sdb");
/// assert_eq!(fields.text("PRIORITY"), Some("3"));
/// assert_eq!(fields.values("DISK").count(), 2);
/// assert_eq!(fields.to_json(), r#"{"MESSAGE":"disk full","PRIORITY":"3","DISK":["sda","sdb"]}"#);
/// assert_eq!(FieldList::from_json(&fields.to_json())?, fields);
/// # Ok::<(), udgram::protocol::ParseError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FieldList(Vec<(String, Vec<u8>)>);

impl FieldList {
    /// Makes an empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field at the end. [`Fields`](super::Fields) checks the name when the list is sent.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.0.push((name.into(), value.into()));
    }

    /// Returns the number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the fields in order: names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Returns the value of the first field with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find_map(|(other, value)| (other == name).then_some(value))
    }

    /// Returns the value of the first field with this name; `None` also if the value is not UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Returns the values of all fields with this name, in order.
    pub fn values<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f [u8]> {
        self.iter()
            .filter_map(move |(other, value)| (other == name).then_some(value))
    }

    /// Returns the list as a JSON object, in the form of `journalctl -o json`: a value is a string, or an
    /// array of its bytes if it is not UTF-8. A name that repeats has an array of its values, at the place of
    /// the first.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        write_members(self.iter(), self.len(), &mut json);
        json
    }

    /// Parses a JSON object in the form of [`to_json`](Self::to_json). A key that repeats is a name that
    /// repeats.
    ///
    /// Fails on other values than strings and arrays, on an empty array, and on names that
    /// [`Fields`](super::Fields) cannot send.
    pub fn from_json(json: &str) -> Result<Self, ParseError> {
        let mut reader = Reader {
            fields: Self::new(),
            name: String::new(),
            next: Next::Object,
        };
        from_json(json, |token| reader.take(token))?;
        Ok(reader.fields)
    }
}

impl<N: Into<String>, V: Into<Vec<u8>>> FromIterator<(N, V)> for FieldList {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        let fields = fields.into_iter();
        Self(
            fields
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

impl<N: Into<String>, V: Into<Vec<u8>>, const LEN: usize> From<[(N, V); LEN]> for FieldList {
    fn from(fields: [(N, V); LEN]) -> Self {
        fields.into_iter().collect()
    }
}

/// Returns what is wrong with a name that cannot be sent.
pub(super) fn name_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("expected a name, which is not empty");
    }
    name.contains(['=', '\n'])
        .then_some("expected a name without '=' and line breaks")
}

pub(super) fn too_many() -> Cow<'static, str> {
    format!("expected at most {MAX_FIELDS} fields").into()
}

/// The part of a JSON object that the reader expects next.
enum Next {
    /// The object.
    Object,
    /// The name of a field.
    Name,
    /// The value of a field, or an array of its values.
    Value,
    /// One of so many values of a field.
    Values(usize),
    /// One of so many bytes of a value, after which so many more values follow.
    Bytes {
        left: usize,
        value: Vec<u8>,
        values: usize,
    },
    /// The first element of an array of this length, which tells bytes from values.
    Element(usize),
}

/// Collects the fields of a JSON object token by token.
struct Reader {
    fields: FieldList,
    /// The name of the field whose values follow.
    name: String,
    next: Next,
}

impl Reader {
    fn take(&mut self, token: Token<'_>) -> Result<(), Cow<'static, str>> {
        const VALUE: &str = "expected a string, an array of bytes, or an array of several values";
        self.next = match (std::mem::replace(&mut self.next, Next::Name), token) {
            (Next::Object, Token::Map(_)) => Next::Name,
            (Next::Object, _) => return Err("expected an object of fields".into()),
            // Only an object has a token behind its last value, and it has no second one.
            (Next::Name, Token::Text(name)) => {
                if let Some(fault) = name_fault(&name) {
                    return Err(fault.into());
                }
                self.name = name.into_owned();
                Next::Value
            }
            (Next::Value, Token::Text(text)) => self.add(text.into_owned().into_bytes(), 0)?,
            (Next::Value, Token::Array(len)) if len > 0 => Next::Element(len),
            (Next::Element(len), token @ Token::Integer(_)) => {
                let bytes = Next::Bytes {
                    left: len,
                    value: Vec::with_capacity(len),
                    values: 0,
                };
                self.next = bytes;
                return self.take(token);
            }
            (Next::Element(len) | Next::Values(len), Token::Text(text)) => {
                self.add(text.into_owned().into_bytes(), len - 1)?
            }
            (Next::Element(len) | Next::Values(len), Token::Array(bytes)) if bytes > 0 => {
                Next::Bytes {
                    left: bytes,
                    value: Vec::with_capacity(bytes),
                    values: len - 1,
                }
            }
            (
                Next::Bytes {
                    left,
                    mut value,
                    values,
                },
                Token::Integer(byte),
            ) => {
                let byte = u8::try_from(byte).map_err(|_| "expected a byte, from 0 to 255")?;
                value.push(byte);
                match left {
                    1 => self.add(value, values)?,
                    left => Next::Bytes {
                        left: left - 1,
                        value,
                        values,
                    },
                }
            }
            (Next::Bytes { .. }, _) => return Err("expected a byte, from 0 to 255".into()),
            (_, Token::Array(0)) => return Err("expected an array that is not empty".into()),
            (Next::Values(_), _) => return Err("expected a string or an array of bytes".into()),
            _ => return Err(VALUE.into()),
        };
        Ok(())
    }

    /// Adds a value of the current field. Returns what follows it: so many more values, or a name.
    fn add(&mut self, value: Vec<u8>, values: usize) -> Result<Next, Cow<'static, str>> {
        if self.fields.len() == MAX_FIELDS {
            return Err(too_many());
        }
        let name = match values {
            0 => std::mem::take(&mut self.name),
            _ => self.name.clone(),
        };
        self.fields.push(name, value);
        Ok(match values {
            0 => Next::Name,
            values => Next::Values(values),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_written_as_its_number() {
        let all: Vec<u8> = (0..=255).rev().collect();
        let fields = FieldList::from([("ALL", all.clone())]);
        let numbers: Vec<_> = all.iter().map(u8::to_string).collect();
        assert_eq!(
            fields.to_json(),
            format!("{{\"ALL\":[{}]}}", numbers.join(","))
        );
        assert_eq!(FieldList::from_json(&fields.to_json()), Ok(fields));
    }

    #[test]
    fn a_repeated_name_is_collected_at_its_first_place() {
        let fields = FieldList::from([("A", "1"), ("B", "2"), ("A", "3"), ("A", "")]);
        assert_eq!(fields.to_json(), r#"{"A":["1","3",""],"B":"2"}"#);
        let repeated = r#"{"A":"1","B":"2","A":["3",""]}"#;
        assert_eq!(FieldList::from_json(repeated), Ok(fields));
    }

    #[test]
    fn arrays_of_numbers_are_bytes_and_other_arrays_are_values() {
        for (json, values) in [
            (r#"{"A":[255]}"#, &[&b"\xff"[..]][..]),
            (r#"{"A":[65, 66]}"#, &[b"AB"]),
            (r#"{"A":["1"]}"#, &[b"1"]),
            (r#"{"A":[[255,0]]}"#, &[b"\xff\0"]),
            (
                r#"{"A":["",[255,0],"x",[1]]}"#,
                &[b"", b"\xff\0", b"x", b"\x01"],
            ),
        ] {
            let fields = FieldList::from_json(json).unwrap();
            assert_eq!(fields.values("A").collect::<Vec<_>>(), values, "{json}");
        }
    }

    #[test]
    fn what_is_no_object_of_fields_is_refused_with_its_place() {
        for (json, offset) in [
            ("1", 0),
            (" [\"A\"]", 1),
            (r#"{"A":1}"#, 5),
            (r#"{"A":null}"#, 5),
            (r#"{"A":{"B":"1"}}"#, 5),
            (r#"{"A":[]}"#, 5),
            (r#"{"A":["1",[]]}"#, 10),
            (r#"{"A":[[[1]]]}"#, 7),
            (r#"{"A":["1",2]}"#, 10),
            (r#"{"A":[1,"2"]}"#, 8),
            (r#"{"A":[1,256]}"#, 8),
            (r#"{"A":[-1]}"#, 6),
            (r#"{"A":[1.0]}"#, 6),
            (r#"{"A":[1,1.0]}"#, 8),
            (r#"{"A":"1","":"2"}"#, 9),
            (r#"{"A=B":"2"}"#, 1),
            (r#"{"A\nB":"2"}"#, 1),
            (r#"{"A":"\ud800"}"#, 5),
            (r#"{"A":"1",}"#, 9),
            ("", 0),
        ] {
            let error = FieldList::from_json(json).expect_err(json);
            assert_eq!(error.offset(), offset, "{json}: {error}");
        }
        let most = vec!["\"\""; MAX_FIELDS].join(",");
        assert!(FieldList::from_json(&format!("{{\"A\":[{most}]}}")).is_ok());
        let error = FieldList::from_json(&format!("{{\"A\":[{most}],\"B\":\"\"}}")).unwrap_err();
        assert_eq!(error.message(), "expected at most 1024 fields");
    }
}
