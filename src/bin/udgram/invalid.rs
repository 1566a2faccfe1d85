//! Makes the errors of bytes that are not a valid packet: the cause, its place and a hint.

use crate::cli::Protocol;
use crate::exit::{Exit, Failure};
use anyhow::Error;
use std::fmt::Display;
use std::path::Path;
use udgram::protocol::{ParseError, ParseErrorKind};
use udgram::{Quoted, metadata};

/// The source of a packet to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Argument,
    Line,
    /// A part of stdin that ends with a NUL.
    Record,
}

impl Origin {
    /// Returns its name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Argument => "argument",
            Self::Line => "line",
            Self::Record => "packet",
        }
    }
}

/// The form in which packets are read and printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) protocol: Protocol,
    pub(crate) envelope: bool,
}

/// Describes the fault of a received datagram, as the end of a sentence that begins with "the packet".
pub(crate) fn describe(protocol: Protocol, error: &ParseError) -> String {
    let at = format!("byte {}", error.offset());
    match error.kind() {
        ParseErrorKind::Empty => "is empty, not JSON".to_owned(),
        ParseErrorKind::NotUtf8 => format!("is not UTF-8 ({at})"),
        ParseErrorKind::Malformed => {
            format!("is not {} ({at}: {})", name(protocol), error.message())
        }
        _ => what_json(error, &at),
    }
}

/// Makes the error of a received datagram that is not a valid packet; `what` describes the fault.
pub(crate) fn invalid_datagram(
    from: impl Display,
    what: &str,
    form: Form,
    error: Option<&ParseError>,
) -> Error {
    let message = format!("packet from {from} {what}");
    let hint = match error.map(ParseError::kind) {
        None => return Failure::error(Exit::Parse, message),
        Some(ParseErrorKind::FinalNul) => {
            "the sender may count the NUL that ends a C string: -p text takes it"
        }
        Some(ParseErrorKind::NotUtf8 | ParseErrorKind::Malformed) => "-p hex takes any bytes",
        Some(_) => "-p text",
    };
    if form.envelope {
        return Failure::with_hint(Exit::Parse, message, hint);
    }
    Failure::with_hint(Exit::Parse, message, format!("{hint}, or -e to see it"))
}

/// Makes the error of an argument or a line that is not a valid packet.
pub(crate) fn invalid_input(
    (origin, number): (Origin, u64),
    packet: &[u8],
    form: Form,
    error: &ParseError,
    sent: u64,
) -> Error {
    let place = format!("{} {number}", origin.name());
    let at = format!("column {}", error.offset() + 1);
    let what = match error.kind() {
        ParseErrorKind::Malformed => format!(", {at}: {}", error.message()),
        ParseErrorKind::NotUtf8 => format!(" is not UTF-8 ({at})"),
        ParseErrorKind::Empty | ParseErrorKind::NotJson | ParseErrorKind::SingleQuotes
            if form.envelope =>
        {
            let at = detail(error, &at);
            format!(" is not an envelope, a JSON object such as {{\"packet\":…}} ({at})")
        }
        ParseErrorKind::Empty => " is empty, which is not JSON".to_owned(),
        ParseErrorKind::SecondValue => {
            format!(" has a second JSON value ({at}): one packet for each argument or line")
        }
        ParseErrorKind::UnexpectedEnd if origin == Origin::Line => {
            " ends inside a JSON value: one packet for each line".to_owned()
        }
        _ => format!(" {}", what_json(error, &at)),
    };
    let message = format!("{place}{what}; {}", sent_so_far(sent));
    match hint(origin, packet, form, error) {
        Some(hint) => Failure::with_hint(Exit::Parse, message, hint),
        None => Failure::error(Exit::Parse, message),
    }
}

/// Returns how many packets were sent before an error, in words.
pub(crate) fn sent_so_far(sent: u64) -> String {
    match sent {
        0 => "nothing was sent".to_owned(),
        1 => "1 packet was sent".to_owned(),
        sent => format!("{sent} packets were sent"),
    }
}

/// Describes the fault of bytes that are not one JSON value; `at` is the place in words.
fn what_json(error: &ParseError, at: &str) -> String {
    match error.kind() {
        ParseErrorKind::UnexpectedEnd => format!("ends inside a JSON value ({at})"),
        ParseErrorKind::SecondValue => format!("has a second JSON value ({at})"),
        ParseErrorKind::ByteOrderMark => {
            format!("begins with a byte order mark, which JSON does not allow ({at})")
        }
        ParseErrorKind::FinalNul => format!("has a NUL after its JSON ({at})"),
        _ => format!("is not JSON ({})", detail(error, at)),
    }
}

/// Returns the place, and what the parser expected there if that is known.
fn detail(error: &ParseError, at: &str) -> String {
    if error.offset() == 0 || error.kind() != ParseErrorKind::NotJson {
        return at.to_owned();
    }
    format!("{at}: {}", error.message())
}

/// Returns a hint for the sender of a packet.
fn hint(origin: Origin, packet: &[u8], form: Form, error: &ParseError) -> Option<String> {
    let begun = packet.trim_ascii_start();
    let word = |offset: usize| packet.get(offset).is_some_and(u8::is_ascii_alphabetic);
    Some(match error.kind() {
        ParseErrorKind::Empty if !form.envelope => "-p text sends an empty datagram".to_owned(),
        ParseErrorKind::SingleQuotes => "strings stand in double quotes".to_owned(),
        ParseErrorKind::NotJson if begun.starts_with(b"{") => {
            if origin != Origin::Argument || !word(error.offset()) {
                return None;
            }
            "a shell removes double quotes: single quotes around it keep them".to_owned()
        }
        ParseErrorKind::NotJson if !form.envelope && form.protocol == Protocol::Json => {
            "for plain text use -p text".to_owned()
        }
        ParseErrorKind::NotJson if !form.envelope => {
            format!("-p {} takes JSON", form.protocol.written())
        }
        ParseErrorKind::UnexpectedEnd if origin == Origin::Line => match file_of_stdin() {
            Some(file) => format!("jq -c . {file}"),
            None => "jq -c . makes one line of each value".to_owned(),
        },
        ParseErrorKind::ByteOrderMark if origin != Origin::Argument => {
            r"sed '1s/^\xef\xbb\xbf//' removes it".to_owned()
        }
        ParseErrorKind::FinalNul => r"tr -d '\0' removes it".to_owned(),
        ParseErrorKind::NotUtf8 if !form.envelope => {
            "-p raw, hex and base64 take any bytes".to_owned()
        }
        _ => return None,
    })
}

/// Returns the name of the file that stdin is, quoted for a shell. `None` if it is not a regular file.
fn file_of_stdin() -> Option<String> {
    if !metadata(std::io::stdin()).is_ok_and(|metadata| metadata.is_file()) {
        return None;
    }
    let path = std::fs::read_link("/proc/self/fd/0").ok()?;
    let below = std::env::current_dir().ok();
    let path = below
        .and_then(|directory| path.strip_prefix(directory).ok().map(Path::to_owned))
        .unwrap_or(path);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._/-+".contains(byte);
    let text = path.to_str()?;
    if text.bytes().all(|byte| plain(&byte)) {
        return Some(text.to_owned());
    }
    Some(Quoted(path.as_os_str()).to_string())
}

/// Returns the word for a valid datagram of this protocol: "is not …".
fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Json => "JSON",
        Protocol::Text => "text",
        Protocol::Raw | Protocol::Hex | Protocol::Base64 => "valid",
        Protocol::Cbor => "CBOR",
        Protocol::Msgpack => "MessagePack",
        Protocol::Fields => "NAME=value lines",
        Protocol::Syslog => "a syslog message",
    }
}
