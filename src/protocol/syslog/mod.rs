//! Syslog: the datagrams of log messages in the forms of RFC 5424, RFC 3164 and syslog(3).

mod message;
mod reader;
mod time;

pub use message::{Facility, Severity, SyslogElement, SyslogMessage};

use super::{DatagramProtocol, ParseError};
use reader::{Reader, is_word};
use std::borrow::Cow;
use time::{bsd_time_len, is_rfc5424_time};

/// Log messages: in the form of RFC 5424; in that of RFC 3164, whose time may also be that of RFC 3339, as rsyslogd
/// forwards it; and in that of local programs, syslog(3), which has no host name and perhaps no time. A packet is
/// a [`SyslogMessage`].
///
/// A datagram begins with its priority, `<13>`. In the second and third form the rest is optional: a time; the name
/// of a host, but only between a time and the name of a program; the name of a program, up to a colon and a space, with
/// its process in brackets; the text. What is not clearly one of these is text. An empty name of a program, as in
/// `<13>: text`, is none. NULs and line breaks at the end do not belong to the message.
///
/// A message is sent in the form of local programs, with a host name in that of RFC 3164. Without the name of a program, a
/// text that looks like one of these parts is sent behind an empty name, `<13>: error: disk full`. The form of RFC 5424
/// is used if the time has the form of RFC 3339, or if the first form would be read as another message: with `msgid` or
/// `data`, or with a host name or a process without the name of a program. Fails if no form can carry the message.
///
/// ```
/// use udgram::protocol::{DatagramProtocol, Syslog};
///
/// let mut message = Syslog.build_packet(b"<13>Nov 22 08:41:00 backup[812]: done\n")?;
/// assert_eq!(message.app.as_deref(), Some("backup"));
/// assert_eq!(message.pid.as_deref(), Some("812"));
/// assert_eq!(message.text(), Some("done"));
/// assert_eq!(&Syslog.make_datagram(&message)?[..], b"<13>Nov 22 08:41:00 backup[812]: done");
///
/// message.timestamp = None;
/// message.msgid = Some("END".into());
/// assert_eq!(&Syslog.make_datagram(&message)?[..], b"<13>1 - - backup 812 END - done");
/// # Ok::<(), udgram::protocol::ParseError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Syslog;

/// The byte order mark before a text in UTF-8; RFC 5424, section 6.4.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

impl DatagramProtocol for Syslog {
    type Sent = SyslogMessage;
    type View<'d> = SyslogMessage;
    type Received = SyslogMessage;

    fn make_datagram<'p>(&self, packet: &'p SyslogMessage) -> Result<Cow<'p, [u8]>, ParseError> {
        let text = trimmed(&packet.message);
        let time = packet.timestamp.as_ref().map(String::as_bytes);
        let forms = if time.is_some_and(is_rfc5424_time) {
            [rfc5424, local, local_without_name]
        } else {
            [local, local_without_name, rfc5424]
        };
        for form in forms {
            let datagram = form(packet, text);
            // Neither form quotes anything outside of structured data, so only reading it shows what it carries.
            let read = self.build_packet(&datagram);
            if read.is_ok_and(|read| read.carries(packet, text)) {
                return Ok(datagram.into());
            }
        }
        Err(fault(packet))
    }

    fn build_packet(&self, datagram: &[u8]) -> Result<SyslogMessage, ParseError> {
        Reader::new(trimmed(datagram)).message()
    }
}

/// Returns the bytes without NULs and line breaks at the end: Python's SysLogHandler sends a NUL, others a line
/// break.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let kept = bytes.iter().rposition(|byte| !b"\0\n".contains(byte));
    &bytes[..kept.map_or(0, |last| last + 1)]
}

impl SyslogMessage {
    /// Returns whether this is `other` with this text.
    fn carries(&self, other: &Self, text: &[u8]) -> bool {
        let rest = |message: &Self| Self {
            message: Vec::new(),
            ..message.clone()
        };
        self.message == text && rest(self) == rest(other)
    }

    fn priority(&self) -> String {
        let number = self.facility.number() * 8 + self.severity.number();
        format!("<{number}>")
    }
}

/// Writes a message in the form of local programs, or of RFC 3164 with a host name.
fn local(message: &SyslogMessage, text: &[u8]) -> Vec<u8> {
    let mut header = before_name(message);
    if let Some(app) = &message.app {
        header.push_str(app);
        if let Some(pid) = &message.pid {
            header.push('[');
            header.push_str(pid);
            header.push(']');
        }
        header.push_str(": ");
    }
    [header.as_bytes(), text].concat()
}

/// Writes a message in the form that syslog(3) sends if the name of the program is empty (`openlog("", …)`). Unlike
/// RFC 5424, systemd-journald and rsyslogd read it at /dev/log, and find no name in the text.
fn local_without_name(message: &SyslogMessage, text: &[u8]) -> Vec<u8> {
    let header = before_name(message) + ": ";
    [header.as_bytes(), text].concat()
}

/// Returns the priority, and the time and the host name with a space behind each.
fn before_name(message: &SyslogMessage) -> String {
    let mut header = message.priority();
    for part in [&message.timestamp, &message.hostname]
        .into_iter()
        .flatten()
    {
        header.push_str(part);
        header.push(' ');
    }
    header
}

/// Writes a message in the form of RFC 5424.
fn rfc5424(message: &SyslogMessage, text: &[u8]) -> Vec<u8> {
    let mut header = message.priority() + "1";
    for part in [
        &message.timestamp,
        &message.hostname,
        &message.app,
        &message.pid,
        &message.msgid,
    ] {
        header.push(' ');
        header.push_str(part.as_deref().unwrap_or("-"));
    }
    header.push(' ');
    if message.data.is_empty() {
        header.push('-');
    }
    for element in &message.data {
        header.push('[');
        header.push_str(&element.id);
        for (name, value) in &element.params {
            header.push(' ');
            header.push_str(name);
            header.push_str("=\"");
            for character in value.chars() {
                if matches!(character, '"' | '\\' | ']') {
                    header.push('\\');
                }
                header.push(character);
            }
            header.push('"');
        }
        header.push(']');
    }
    let mut datagram = header.into_bytes();
    if !text.is_empty() {
        datagram.push(b' ');
    }
    if text.starts_with(BYTE_ORDER_MARK) {
        datagram.extend_from_slice(BYTE_ORDER_MARK);
    }
    datagram.extend_from_slice(text);
    datagram
}

/// Returns the error of a message that no form carries. There are no bytes yet, so its offset is 0.
fn fault(message: &SyslogMessage) -> ParseError {
    let printable = |part: &Option<String>, len: usize| {
        part.as_ref()
            .is_none_or(|part| part != "-" && is_word(part.as_bytes(), len))
    };
    let time = message.timestamp.as_ref().map(String::as_bytes);
    let expected = if time
        .is_some_and(|time| bsd_time_len(time) != Some(time.len()) && !is_rfc5424_time(time))
    {
        "expected a timestamp such as 'Nov 22 08:41:00' or '2026-11-22T08:41:00.123456Z'"
    } else if !printable(&message.hostname, 255) {
        "expected a hostname of up to 255 printable ASCII characters without spaces"
    } else if !printable(&message.app, 48) {
        "expected an app of up to 48 printable ASCII characters without spaces"
    } else if !printable(&message.pid, 128) {
        "expected a pid of up to 128 printable ASCII characters without spaces"
    } else if !printable(&message.msgid, 32) {
        "expected a msgid of up to 32 printable ASCII characters without spaces"
    } else if time.is_some_and(|time| !is_rfc5424_time(time)) {
        "expected a timestamp such as '2026-11-22T08:41:00Z', which RFC 5424 has: RFC 3164 cannot carry this message"
    } else {
        "expected data with names of up to 32 printable ASCII characters without spaces, '=', ']' and '\"'"
    };
    ParseError::new(0, expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(datagram: &[u8]) -> String {
        Syslog.build_packet(datagram).unwrap().to_json()
    }

    /// Datagrams that programs send, and their messages; each message is sent again in the same form.
    const SAME: &[(&str, &str)] = &[
        // logger(1), syslog(3).
        (
            "<13>Nov 22 08:41:00 root: hello",
            r#"{"facility":"user","severity":"notice","timestamp":"Nov 22 08:41:00","app":"root","message":"hello"}"#,
        ),
        (
            "<30>Nov  2 08:41:00 postfix/smtpd[812]: two\nlines: x",
            r#"{"facility":"daemon","severity":"info","timestamp":"Nov  2 08:41:00","app":"postfix/smtpd","pid":"812","message":"two\nlines: x"}"#,
        ),
        (
            "<13>Nov 22 08:41:00 attic root:  x",
            r#"{"facility":"user","severity":"notice","timestamp":"Nov 22 08:41:00","hostname":"attic","app":"root","message":" x"}"#,
        ),
        (
            "<13>1 2026-11-22T08:41:00.123456+01:00 attic root 812 - [timeQuality tzKnown=\"1\" isSynced=\"0\"] hello",
            r#"{"facility":"user","severity":"notice","timestamp":"2026-11-22T08:41:00.123456+01:00","hostname":"attic","app":"root","pid":"812","data":{"timeQuality":{"tzKnown":"1","isSynced":"0"}},"message":"hello"}"#,
        ),
        // Python's SysLogHandler.
        (
            "<14>started",
            r#"{"facility":"user","severity":"info","message":"started"}"#,
        ),
        ("<0>", r#"{"facility":"kern","severity":"emerg"}"#),
        (
            "<191>x: ",
            r#"{"facility":"local7","severity":"debug","app":"x"}"#,
        ),
        // Text that is no header.
        (
            "<13>1 file",
            r#"{"facility":"user","severity":"notice","message":"1 file"}"#,
        ),
        (
            "<13>see http://x/ and Foo::Bar: a",
            r#"{"facility":"user","severity":"notice","message":"see http://x/ and Foo::Bar: a"}"#,
        ),
        (
            "<13>Nov 22 08:41:00 (root) CMD: x",
            r#"{"facility":"user","severity":"notice","timestamp":"Nov 22 08:41:00","message":"(root) CMD: x"}"#,
        ),
        (
            "<13>Nov 32 08:41:00 x",
            r#"{"facility":"user","severity":"notice","message":"Nov 32 08:41:00 x"}"#,
        ),
        (
            "<13>array[i]: x",
            r#"{"facility":"user","severity":"notice","message":"array[i]: x"}"#,
        ),
        // An empty name, as syslog(3) sends it after `openlog("", …)`.
        (
            "<13>: error: disk full",
            r#"{"facility":"user","severity":"notice","message":"error: disk full"}"#,
        ),
        (
            "<13>Nov 22 08:41:00 : error: disk full",
            r#"{"facility":"user","severity":"notice","timestamp":"Nov 22 08:41:00","message":"error: disk full"}"#,
        ),
        (
            "<13>: : x",
            r#"{"facility":"user","severity":"notice","message":": x"}"#,
        ),
        (
            "<13>: Nov 22 08:41:00 1 - x",
            r#"{"facility":"user","severity":"notice","message":"Nov 22 08:41:00 1 - x"}"#,
        ),
        // RFC 5424.
        (
            "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"Application\"][x][y a=\"\\\"\\\\\\]\" a=\"\" b=\"é\"] An",
            r#"{"facility":"local4","severity":"notice","timestamp":"2003-10-11T22:14:15.003Z","hostname":"mymachine.example.com","app":"evntslog","msgid":"ID47","data":{"exampleSDID@32473":{"iut":"3","eventSource":"Application"},"x":{},"y":{"a":["\"\\]",""],"b":"é"}},"message":"An"}"#,
        ),
        (
            "<13>1 - - - - ID -",
            r#"{"facility":"user","severity":"notice","msgid":"ID"}"#,
        ),
        (
            "<13>1 - host - - - - x",
            r#"{"facility":"user","severity":"notice","hostname":"host","message":"x"}"#,
        ),
    ];

    #[test]
    fn messages_go_both_ways() {
        for (datagram, json) in SAME {
            assert_eq!(read(datagram.as_bytes()), *json, "{datagram}");
            let message = SyslogMessage::from_json(json).unwrap();
            let again = Syslog.make_datagram(&message).unwrap();
            assert_eq!(String::from_utf8_lossy(&again), *datagram);
        }
    }

    #[test]
    fn other_forms_are_received() {
        for (datagram, json) in [
            (
                &b"<14>started\0"[..],
                r#"{"facility":"user","severity":"info","message":"started"}"#,
            ),
            (
                b"<14>Nov 22 08:41:00 app[1]:x\n\0\n",
                r#"{"facility":"user","severity":"info","timestamp":"Nov 22 08:41:00","app":"app","pid":"1","message":"x"}"#,
            ),
            (
                b"<13>2026-11-22T08:41:00.123456+01:00 attic root: x",
                r#"{"facility":"user","severity":"notice","timestamp":"2026-11-22T08:41:00.123456+01:00","hostname":"attic","app":"root","message":"x"}"#,
            ),
            (
                b"<13>Nov 22 08:41:00  nginx: x",
                r#"{"facility":"user","severity":"notice","timestamp":"Nov 22 08:41:00","app":"nginx","message":"x"}"#,
            ),
            (
                b"<13>Nov 22 08:41:00 : disk full",
                r#"{"facility":"user","severity":"notice","timestamp":"Nov 22 08:41:00","message":"disk full"}"#,
            ),
            (
                b"<13>1 - - - - - - error: disk full",
                r#"{"facility":"user","severity":"notice","message":"error: disk full"}"#,
            ),
            (
                b"<13>1 - - - - - - \xef\xbb\xbfx",
                r#"{"facility":"user","severity":"notice","message":"x"}"#,
            ),
            (
                b"<13>1 - - - - - [a x=\"\\n\"]",
                r#"{"facility":"user","severity":"notice","data":{"a":{"x":"\\n"}}}"#,
            ),
            (
                b"<13>caf\xe9: x",
                r#"{"facility":"user","severity":"notice","message":[99,97,102,233,58,32,120]}"#,
            ),
        ] {
            assert_eq!(read(datagram), json);
        }
    }

    #[test]
    fn a_datagram_without_a_header_that_is_begun_is_refused_with_its_place() {
        for (datagram, offset) in [
            (&b""[..], 0),
            (b"hello", 0),
            (b"<", 1),
            (b"<>x", 1),
            (b"<192>x", 1),
            (b"<013>x", 1),
            (b"<1a>x", 1),
            (b"<13", 1),
            (b"<13>1 - - ", 10),
            (b"<13>1 2026-13-01T00:00:00Z - - - - -", 6),
            (b"<13>1 2026-11-31T00:00:00Z - - - - -", 6),
            (b"<13>1 2026-11-22T08:41:60Z - - - - -", 6),
            (b"<13>1 2026-11-22T08:41:00.1234567Z - - - - -", 6),
            (b"<13>1 2026-11-22T08:41:00 - - - - -", 6),
            (b"<13>1 - h\xc3\xa9 - - - -", 8),
            (b"<13>1 - - - - -", 15),
            (b"<13>1 - - - - - x", 16),
            (b"<13>1 - - - - - -x", 17),
            (b"<13>1 - - - - - []", 17),
            (b"<13>1 - - - - - [a", 18),
            (b"<13>1 - - - - - [a b]", 20),
            (b"<13>1 - - - - - [a b=\"]", 22),
            (b"<13>1 - - - - - [a b=\"]\"]", 22),
            (b"<13>1 - - - - - [a b=\"\\\"\xff\"]", 24),
            (b"<13>1 - - - - - [a][a]", 20),
            (b"<13>1 - - - - - [a]x", 19),
        ] {
            let shown = datagram.escape_ascii();
            let error = Syslog.build_packet(datagram).expect_err(&shown.to_string());
            assert_eq!(error.offset(), offset, "{shown}: {error}");
        }
        let long = format!("<13>1 - - {} - - -", "x".repeat(49));
        assert_eq!(
            Syslog.build_packet(long.as_bytes()).unwrap_err().offset(),
            10
        );
    }

    #[test]
    fn a_message_that_no_form_carries_is_refused_with_the_reason() {
        for (json, part) in [
            (r#"{"timestamp":"now"}"#, "a timestamp such as 'Nov"),
            (r#"{"hostname":"a b"}"#, "a hostname"),
            (r#"{"app":"a b"}"#, "an app"),
            (r#"{"app":"-","msgid":"1"}"#, "an app"),
            (r#"{"pid":""}"#, "a pid"),
            (r#"{"msgid":"é"}"#, "a msgid"),
            (
                r#"{"timestamp":"Nov 22 08:41:00","msgid":"1"}"#,
                "RFC 3164 cannot carry this message",
            ),
            (r#"{"data":{"a=":{}}}"#, "data with names"),
        ] {
            let message = SyslogMessage::from_json(json).unwrap();
            let error = Syslog.make_datagram(&message).unwrap_err();
            assert!(error.message().contains(part), "{json}: {error}");
        }
    }

    #[test]
    fn a_line_break_or_nul_at_the_end_of_the_text_is_not_sent() {
        let message = SyslogMessage {
            app: Some("x".into()),
            message: b"a\nb\n\0".to_vec(),
            ..SyslogMessage::default()
        };
        assert_eq!(&*Syslog.make_datagram(&message).unwrap(), b"<13>x: a\nb");
    }
}
