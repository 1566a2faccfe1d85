//! Reads the datagrams of log messages.

use super::super::ParseError;
use super::BYTE_ORDER_MARK;
use super::message::{Facility, Severity, SyslogElement, SyslogMessage};
use super::time::{bsd_time_len, is_rfc5424_time, rfc3339_len};
use std::borrow::Cow;
use std::collections::HashSet;

/// Reads a datagram part by part.
pub(super) struct Reader<'d> {
    bytes: &'d [u8],
    at: usize,
}

impl<'d> Reader<'d> {
    /// Makes a reader of a datagram without NULs and line breaks at its end.
    pub(super) fn new(bytes: &'d [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Reads the message.
    pub(super) fn message(&mut self) -> Result<SyslogMessage, ParseError> {
        let mut message = self.priority()?;
        if self.rest().starts_with(b"1 ") && self.begins_rfc5424() {
            self.at += 2;
            self.rfc5424(&mut message)?;
        } else {
            self.local(&mut message);
        }
        message.message = self.rest().to_vec();
        Ok(message)
    }

    fn rest(&self) -> &'d [u8] {
        &self.bytes[self.at..]
    }

    fn refuse<T>(&self, expected: impl Into<Cow<'static, str>>) -> Result<T, ParseError> {
        Err(ParseError::new(self.at, expected))
    }

    /// Reads the priority.
    fn priority(&mut self) -> Result<SyslogMessage, ParseError> {
        const EXPECTED: &str = "expected a priority from <0> to <191>";
        let Some(written) = self.bytes.strip_prefix(b"<") else {
            return self.refuse(EXPECTED);
        };
        let len = written.iter().take_while(|byte| byte.is_ascii_digit());
        let len = len.count();
        let digits = std::str::from_utf8(&written[..len]).unwrap_or_default();
        let number: Option<u8> = digits.parse().ok();
        // RFC 3164, section 4.1.1: no zeros before the number.
        let number = number.filter(|number| number.to_string() == digits);
        let priority = number.and_then(|number| {
            let facility = Facility::from_number(number / 8)?;
            Some((facility, Severity::from_number(number % 8)?))
        });
        let (Some((facility, severity)), Some(b'>')) = (priority, written.get(len)) else {
            self.at = 1;
            return self.refuse(EXPECTED);
        };
        self.at = len + 2;
        Ok(SyslogMessage {
            facility,
            severity,
            ..SyslogMessage::default()
        })
    }

    /// Returns whether a header of RFC 5424 follows the priority, rather than a text that begins with "1".
    fn begins_rfc5424(&self) -> bool {
        let rest = &self.rest()[2..];
        rest.starts_with(b"- ")
            || rest
                .get(..5)
                .is_some_and(|year| year[..4].iter().all(u8::is_ascii_digit) && year[4] == b'-')
    }

    /// Reads the parts before the text in the form of RFC 5424.
    fn rfc5424(&mut self, message: &mut SyslogMessage) -> Result<(), ParseError> {
        let start = self.at;
        message.timestamp = self.word(32, "a timestamp")?;
        let time = message.timestamp.as_ref();
        if time.is_some_and(|time| !is_rfc5424_time(time.as_bytes())) {
            self.at = start;
            return self.refuse("expected a timestamp such as 2026-11-22T08:41:00.123456Z, or '-'");
        }
        message.hostname = self.word(255, "a hostname")?;
        message.app = self.word(48, "the name of a program")?;
        message.pid = self.word(128, "a process")?;
        message.msgid = self.word(32, "the type of message")?;
        if self.rest().starts_with(b"-") {
            self.at += 1;
        } else {
            self.data(message)?;
        }
        match self.rest().first() {
            None => {}
            Some(b' ') => self.at += 1,
            Some(_) => return self.refuse("expected a space after the structured data"),
        }
        if self.rest().starts_with(BYTE_ORDER_MARK) {
            self.at += BYTE_ORDER_MARK.len();
        }
        Ok(())
    }

    /// Reads a word of RFC 5424 and the space after it; `None` for "-".
    fn word(&mut self, max: usize, what: &str) -> Result<Option<String>, ParseError> {
        let len = memchr::memchr(b' ', self.rest()).unwrap_or(self.rest().len());
        let word = &self.rest()[..len];
        if !is_word(word, max) {
            return self.refuse(format!(
                "expected {what}: up to {max} printable ASCII characters, or '-'"
            ));
        }
        if len == self.rest().len() {
            self.at += len;
            return self.refuse(format!("expected a space after {what}"));
        }
        self.at += len + 1;
        let word = String::from_utf8_lossy(word).into_owned();
        Ok((word != "-").then_some(word))
    }

    /// Reads the elements of structured data.
    fn data(&mut self, message: &mut SyslogMessage) -> Result<(), ParseError> {
        let mut ids = HashSet::new();
        while message.data.is_empty() || self.rest().starts_with(b"[") {
            if !self.rest().starts_with(b"[") {
                return self.refuse("expected structured data: '[' or '-'");
            }
            self.at += 1;
            let start = self.at;
            let id = self.name()?;
            if !ids.insert(id.clone()) {
                self.at = start;
                return self.refuse(format!("expected one element '{id}', not two"));
            }
            let mut params = Vec::new();
            loop {
                match self.rest().first() {
                    Some(b']') => break,
                    Some(b' ') => self.at += 1,
                    _ => return self.refuse("expected a space or ']'"),
                }
                let name = self.name()?;
                if !self.rest().starts_with(b"=\"") {
                    return self.refuse("expected =\" and a value");
                }
                self.at += 2;
                params.push((name, self.value()?));
            }
            self.at += 1;
            message.data.push(SyslogElement { id, params });
        }
        Ok(())
    }

    /// Reads the name of an element or a parameter.
    fn name(&mut self) -> Result<String, ParseError> {
        let ends = |byte: &u8| !byte.is_ascii_graphic() || b"=]\"".contains(byte);
        let len = self.rest().iter().position(ends);
        let name = &self.rest()[..len.unwrap_or(self.rest().len())];
        if !is_name(name) {
            return self.refuse("expected a name of up to 32 printable ASCII characters");
        }
        self.at += name.len();
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    /// Reads the value of a parameter and the quote after it.
    fn value(&mut self) -> Result<String, ParseError> {
        let start = self.at;
        let mut value = Vec::new();
        loop {
            match self.rest() {
                // Before other characters, a backslash is one; RFC 5424, section 6.3.3.
                [b'\\', escaped @ (b'"' | b'\\' | b']'), ..] => {
                    value.push(*escaped);
                    self.at += 2;
                }
                [b'"', ..] => break,
                [b']', ..] | [] => return self.refuse("expected '\"' after the value"),
                [byte, ..] => {
                    value.push(*byte);
                    self.at += 1;
                }
            }
        }
        let value = String::from_utf8(value).map_err(|_| {
            // Escapes are ASCII, so the written value has the same fault.
            let written = std::str::from_utf8(&self.bytes[start..self.at]);
            let valid = written.err().map_or(0, |error| error.valid_up_to());
            ParseError::new(start + valid, "expected a value in UTF-8")
        })?;
        self.at += 1;
        Ok(value)
    }

    /// Reads the parts before the text in the form of RFC 3164 or of local programs.
    fn local(&mut self, message: &mut SyslogMessage) {
        let rest = self.rest();
        let time = bsd_time_len(rest).or_else(|| rfc3339_len(rest));
        let time = time.filter(|len| matches!(rest.get(*len), None | Some(b' ')));
        if let Some(len) = time {
            message.timestamp = Some(String::from_utf8_lossy(&rest[..len]).into_owned());
            self.at += (len + 1).min(rest.len());
        }
        if self.rest().starts_with(b": ") {
            // The name is empty: `openlog("", …)`.
            self.at += 2;
            return;
        }
        if self.tag(message) || time.is_none() {
            return;
        }
        let start = self.at;
        let Some(len) = memchr::memchr(b' ', self.rest()) else {
            return;
        };
        let host = &self.rest()[..len];
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(byte);
        if len > 255 || !host.iter().all(plain) {
            return;
        }
        self.at += len + 1;
        if !self.tag(message) {
            self.at = start;
        } else if len > 0 {
            message.hostname = Some(String::from_utf8_lossy(host).into_owned());
        }
        // Without a name: nginx does not know that of the host at first.
    }

    /// Reads the name of a program, its process, and the colon. Returns whether they are there.
    fn tag(&mut self, message: &mut SyslogMessage) -> bool {
        let rest = self.rest();
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b":[".contains(byte);
        let len = rest.iter().position(ends).unwrap_or(0);
        let Ok(app) = std::str::from_utf8(&rest[..len]) else {
            return false;
        };
        if app.is_empty() || app.chars().any(char::is_control) {
            return false;
        }
        let mut end = len;
        let mut pid = None;
        if rest[len] == b'[' {
            let digits = rest[len + 1..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit());
            let digits = &rest[len + 1..][..digits.count()];
            end += digits.len() + 2;
            if digits.is_empty() || rest.get(end - 1) != Some(&b']') {
                return false;
            }
            pid = Some(String::from_utf8_lossy(digits).into_owned());
        }
        // "http://" is not the name of a program.
        let space = match (rest.get(end), rest.get(end + 1), &pid) {
            (Some(b':'), Some(b' '), _) => 1,
            (Some(b':'), None, _) | (Some(b':'), Some(_), Some(_)) => 0,
            _ => return false,
        };
        message.app = Some(app.to_owned());
        message.pid = pid;
        self.at += end + 1 + space;
        true
    }
}

/// Returns whether this is `PRINTUSASCII` of RFC 5424 of 1 to `len` characters.
pub(super) fn is_word(word: &[u8], len: usize) -> bool {
    (1..=len).contains(&word.len()) && word.iter().all(u8::is_ascii_graphic)
}

/// Returns whether this is an `SD-NAME` of RFC 5424.
fn is_name(name: &[u8]) -> bool {
    is_word(name, 32) && !name.iter().any(|byte| b"=]\"".contains(byte))
}
