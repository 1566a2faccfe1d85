//! Values of any bytes in JSON, in the form of `journalctl -o json`: a string, or an array of the bytes if they are
//! not UTF-8.

use std::collections::HashMap;

/// Appends a string.
pub(super) fn write_string(text: &str, json: &mut String) {
    // `Value` writes itself without an error type.
    json.push_str(&serde_json::Value::from(text).to_string());
}

/// Appends a value.
pub(super) fn write_bytes(value: &[u8], json: &mut String) {
    if let Ok(text) = std::str::from_utf8(value) {
        return write_string(text, json);
    }
    json.reserve(4 * value.len() + 1);
    for (index, byte) in value.iter().enumerate() {
        json.push(if index == 0 { '[' } else { ',' });
        for divisor in [100, 10, 1] {
            if *byte >= divisor || divisor == 1 {
                json.push(char::from(b'0' + byte / divisor % 10));
            }
        }
    }
    json.push(']');
}

/// Appends an object of `len` values. A name that repeats has an array of its values, at the place of the first.
pub(super) fn write_members<'v>(
    values: impl Iterator<Item = (&'v str, &'v [u8])>,
    len: usize,
    json: &mut String,
) {
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(len);
    let mut members: Vec<(&str, Vec<&[u8]>)> = Vec::with_capacity(len);
    for (name, value) in values {
        let place = *places.entry(name).or_insert(members.len());
        match members.get_mut(place) {
            Some((_, values)) => values.push(value),
            None => members.push((name, vec![value])),
        }
    }
    json.push('{');
    for (index, (name, values)) in members.into_iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        write_string(name, json);
        json.push(':');
        if let [value] = values.as_slice() {
            write_bytes(value, json);
            continue;
        }
        for (index, value) in values.iter().enumerate() {
            json.push(if index == 0 { '[' } else { ',' });
            write_bytes(value, json);
        }
        json.push(']');
    }
    json.push('}');
}
