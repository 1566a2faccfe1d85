//! Wrong command lines: what clap refuses, and what it understands otherwise than it is meant, in one
//! line each, with a hint at what may have been meant.

use super::value::{credentials, factor, ready_report, replies, reporting};
use super::{COMMANDS, Cli, Command, Protocol};
use crate::exit::{Exit, Failure};
use crate::terminal::shell_word;
use anyhow::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, ValueEnum};
use std::ffi::{OsStr, OsString};
use std::fs::symlink_metadata;
use udgram::Quoted;

/// The commands that carry packets: they have --protocol and --timeout.
const CARRIERS: [&str; 6] = ["send", "recv", "listen", "iter", "talk", "relay"];
/// The units of time that follow a number as a word of their own.
const UNITS: [&str; 14] = [
    "ns", "us", "ms", "msec", "s", "sec", "secs", "seconds", "m", "min", "mins", "minutes", "h",
    "hours",
];

/// A hint shows no command line that is longer.
const LONGEST_LINE: usize = 200;

/// Returns the help that a message about these arguments refers to.
pub(crate) fn help_of(arguments: &[OsString]) -> String {
    match command_of(arguments) {
        Some((_, command)) => format!("udgram {command} --help"),
        None => "udgram --help".to_owned(),
    }
}

/// Returns the place and the name of the command.
fn command_of(arguments: &[OsString]) -> Option<(usize, &'static str)> {
    let is_option = |word: &OsString| word.as_encoded_bytes().starts_with(b"-");
    let known = |word: &OsString| COMMANDS.into_iter().find(|name| *name == word);
    let mut words = arguments.iter().enumerate().skip(1);
    if !arguments.get(1).is_some_and(is_option) {
        let (at, word) = words.next()?;
        return Some((at, known(word)?));
    }
    // The argument before it may be an option that goes after the command, with its value.
    words.find_map(|(at, word)| Some((at, known(word)?)))
}

/// Returns the arguments with `--null` in place of `-0`. Where a negative number may stand, such as for a
/// packet, clap takes `-0` for one.
pub(super) fn null_spelled_out(arguments: &[OsString]) -> Vec<OsString> {
    let mut arguments = arguments.to_vec();
    if command_of(&arguments).is_some_and(|(_, name)| CARRIERS.contains(&name)) {
        let options = arguments.iter_mut().take_while(|word| *word != "--");
        for word in options.filter(|word| *word == "-0") {
            *word = "--null".into();
        }
    }
    arguments
}

/// Returns the error of a command line that clap refuses.
pub(super) fn refused(error: &clap::Error, arguments: &[OsString]) -> Error {
    if let Some(mistake) = misread(arguments, Parsed::Not) {
        return mistake;
    }
    let name = command_of(arguments).map_or("", |(_, name)| name);
    let argument = text(error, ContextKind::InvalidArg).unwrap_or("an argument");
    let subject = &written(argument);
    let (message, hint) = match error.kind() {
        ErrorKind::UnknownArgument => return unknown_argument(error, argument, arguments, name),
        ErrorKind::InvalidSubcommand => {
            let given = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            (format!("there is no command {}", quoted(given)), None)
        }
        ErrorKind::InvalidValue => invalid_value(error, subject),
        ErrorKind::ValueValidation => (wrong_value(error, subject), None),
        ErrorKind::NoEquals => (equals_sign(subject, "N"), None),
        ErrorKind::TooManyValues => (format!("{subject} takes no value"), None),
        ErrorKind::ArgumentConflict => (conflict(error, subject), None),
        ErrorKind::MissingRequiredArgument => {
            let hint = (subject == "CMD").then(|| format!("udgram {name} -- CMD..."));
            (format!("{subject} is missing"), hint)
        }
        ErrorKind::MissingSubcommand => ("a command is missing".to_owned(), None),
        ErrorKind::InvalidUtf8 => ("an argument is not UTF-8".to_owned(), None),
        kind => (kind.to_string(), None),
    };
    failure(message, hint.or_else(|| suggestion(error)))
}

/// Returns the error of a command line that clap accepts and the user means otherwise.
pub(super) fn misunderstood(arguments: &[OsString], command: &Command) -> Option<Error> {
    let peer = match command {
        Command::Send(send) => send.peer(),
        _ => None,
    };
    misread(arguments, Parsed::As { peer })
}

fn failure(message: String, hint: Option<String>) -> Error {
    match hint {
        Some(hint) => Failure::with_hint(Exit::Usage, message, hint),
        None => Failure::usage(message),
    }
}

/// The verdict of clap on the arguments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parsed<'a> {
    Not,
    /// It does, and takes this word for PEER of `send`.
    As {
        peer: Option<&'a OsStr>,
    },
}

/// Finds words that are written as other tools take them.
fn misread(arguments: &[OsString], parsed: Parsed<'_>) -> Option<Error> {
    let words: Vec<&str> = (arguments.iter())
        .map(|word| word.to_str().unwrap_or_default())
        .collect();
    let end = words.iter().position(|word| *word == "--");
    let words = &words[..end.unwrap_or(words.len())];
    words.iter().enumerate().skip(1).find_map(|(at, word)| {
        let next = words.get(at + 1).copied().unwrap_or_default();
        single_dash(word, arguments)
            .or_else(|| apart(word, next, parsed, arguments))
            .or_else(|| {
                let rest = words.get(at + 2..).unwrap_or_default();
                unit(word, next, rest, parsed, arguments)
            })
    })
}

/// Explains a long option after one dash: `-timeout`, which clap reads as `-t imeout`.
fn single_dash(word: &str, arguments: &[OsString]) -> Option<Error> {
    let name = word.strip_prefix('-')?.split('=').next()?;
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
    if name.starts_with('-') || !name.bytes().all(is_name) {
        return None;
    }
    let (_, command) = command_of(arguments)?;
    let mut all = Cli::command();
    all.build();
    let mut known = all.find_subcommand(command)?.get_arguments();
    known.find(|argument| argument.get_long() == Some(name))?;
    Some(failure(
        format!("there is no option -{name}"),
        Some(format!("did you mean --{name}?")),
    ))
}

/// Explains a value without its equals sign, `-r 3 PEER`, `PEER -r 3` or `-r3`, for an option that needs the
/// sign. The value would be taken for PEER, for ADDR or for a packet.
fn apart(word: &str, next: &str, parsed: Parsed<'_>, arguments: &[OsString]) -> Option<Error> {
    let (_, command) = command_of(arguments)?;
    let attached = word
        .strip_prefix("-r")
        .filter(|value| is_value("--reply", value));
    let (option, value) = match word {
        _ if attached.is_some() => ("--reply", attached?),
        _ if ends_in(word, 'r') => ("--reply", next),
        option => (option, next),
    };
    let has_it = match option {
        "--reply" | "--creds" | "--pace" => command == "send",
        "--stats" => CARRIERS.contains(&command),
        "--notify" => command == "exec",
        _ => false,
    };
    let is_socket = match parsed {
        Parsed::Not => false,
        Parsed::As { peer } => peer.is_none_or(|peer| peer == value) && exists(value),
    };
    if !has_it || !is_value(option, value) || is_socket {
        return None;
    }
    let hint = match command {
        "send" => Some(format!("a packet {value} goes after --")),
        _ => None,
    };
    Some(failure(equals_sign(option, value), hint))
}

/// Returns whether a word is a value of an option that needs the equals sign.
fn is_value(option: &str, word: &str) -> bool {
    let accepted = match option {
        "--reply" => replies(word).is_ok(),
        "--creds" => credentials(word).is_ok(),
        "--pace" => factor(word).is_ok(),
        "--stats" => reporting(word).is_ok(),
        "--notify" => ready_report(word).is_ok(),
        _ => false,
    };
    // A name that stands for the missing value is for clap alone.
    accepted && (word.starts_with(|first: char| first.is_ascii_digit()) || word == "all")
}

fn equals_sign(option: &str, value: &str) -> String {
    match option {
        "--reply" => format!("the number goes with an equals sign: --reply={value}"),
        option => format!("the value goes with an equals sign: {option}={value}"),
    }
}

/// Explains a unit apart from its number, `-t 100 ms`, which would be read as an address.
fn unit(
    word: &str,
    number: &str,
    rest: &[&str],
    parsed: Parsed<'_>,
    arguments: &[OsString],
) -> Option<Error> {
    let is_number =
        number.starts_with(|digit: char| digit.is_ascii_digit()) && number.parse::<f64>().is_ok();
    let (unit, after) = rest.split_first()?;
    if !(word == "--timeout" || ends_in(word, 't')) || !is_number || !UNITS.contains(unit) {
        return None;
    }
    let (_, command) = command_of(arguments)?;
    // A socket may have the name of a unit.
    let meant = match parsed {
        Parsed::Not => true,
        Parsed::As { .. } if exists(unit) => false,
        Parsed::As { .. } if unit.len() > 1 => true,
        Parsed::As { .. } => command == "send" && after.first().is_some_and(|peer| exists(peer)),
    };
    (meant && CARRIERS.contains(&command)).then(|| {
        failure(
            format!("write it as one word: --timeout {number}{unit}"),
            None,
        )
    })
}

/// Returns whether a word names a socket that may be there.
fn exists(word: &str) -> bool {
    word.starts_with('@') || symlink_metadata(word).is_ok()
}

/// Returns whether a word is a group of short options that ends in this one.
fn ends_in(word: &str, option: char) -> bool {
    let group = word.strip_prefix('-').unwrap_or_default();
    group.ends_with(option) && group.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// Returns the error of an argument that the command does not take.
fn unknown_argument(
    error: &clap::Error,
    argument: &str,
    arguments: &[OsString],
    command: &str,
) -> Error {
    let is = |word: &&OsString| {
        let word = word.to_str().unwrap_or_default();
        word == argument
            || argument.len() == 2 && word.starts_with(argument)
            || word.split('=').next() == Some(argument)
    };
    let place = arguments.iter().position(|word| is(&word));
    let at = command_of(arguments).map_or(0, |(at, _)| at);
    if place.is_some_and(|place| place < at) && argument.starts_with('-') {
        return failure(
            format!("{argument} goes after the command"),
            Some(format!("udgram {command} {argument} ...")),
        );
    }
    let mut message = format!("unexpected argument {}", quoted(argument));
    let protocol = argument
        .strip_prefix("--")
        .filter(|name| Protocol::from_str(name, false).is_ok())
        .filter(|_| CARRIERS.contains(&command));
    let hint = if let Some(protocol) = protocol {
        Some(format!("did you mean -p {protocol}?"))
    } else if argument.starts_with('-') {
        suggestion(error)
    } else {
        match (command, place) {
            ("recv" | "exec", _) if arguments.iter().any(|word| word == "--") => {
                Some("the command begins after --".to_owned())
            }
            ("recv" | "exec", Some(place)) => Some(format!(
                "put -- before the command: {}",
                with_dashes(arguments, place, command)
            )),
            ("listen" | "iter", _) => {
                message.push_str(": there is one ADDR");
                None
            }
            _ => None,
        }
    };
    failure(message, hint)
}

/// Returns the command line with `--` before the argument at `place`; of a long one, the form that `command` takes.
fn with_dashes(arguments: &[OsString], place: usize, command: &str) -> String {
    let mut line = String::from("udgram");
    for (at, word) in arguments.iter().enumerate().skip(1) {
        if at == place {
            line.push_str(" --");
        }
        line.push(' ');
        line.push_str(&shell_word(word));
    }
    match command {
        _ if line.len() <= LONGEST_LINE => line,
        "recv" => "udgram recv ADDR -- CMD...".to_owned(),
        command => format!("udgram {command} -- CMD..."),
    }
}

fn invalid_value(error: &clap::Error, subject: &str) -> (String, Option<String>) {
    let given = text(error, ContextKind::InvalidValue).unwrap_or_default();
    let values = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => values.as_slice(),
        _ => &[],
    };
    let message = match (given, values) {
        ("", []) => format!("{subject} needs a value"),
        ("", values) => format!("{subject} needs a value: {}", values.join(", ")),
        (given, _) if subject == "COMMAND" => format!("there is no command {}", quoted(given)),
        (given, values) => {
            format!(
                "{subject} takes {}, not {}",
                values.join(", "),
                quoted(given)
            )
        }
    };
    (message, None)
}

/// Returns what is wrong with a value that an argument's parser refuses.
fn wrong_value(error: &clap::Error, subject: &str) -> String {
    let given = quoted(text(error, ContextKind::InvalidValue).unwrap_or_default());
    let cause = std::error::Error::source(error).map(ToString::to_string);
    match cause.unwrap_or_default() {
        cause if cause.starts_with("takes ") => format!("{subject} {cause}, not {given}"),
        cause => format!("{subject} {given}: {cause}"),
    }
}

fn conflict(error: &clap::Error, subject: &str) -> String {
    let other = match error.get(ContextKind::PriorArg) {
        Some(ContextValue::String(other)) => written(other),
        Some(ContextValue::Strings(others)) => {
            let others: Vec<String> = others.iter().map(|other| written(other)).collect();
            others.join(" and ")
        }
        _ => String::new(),
    };
    if other == subject {
        format!("{subject} is given twice")
    } else {
        format!("{subject} and {other} exclude each other")
    }
}

/// Returns the nearest of the words that clap knows.
fn suggestion(error: &clap::Error) -> Option<String> {
    let kinds = [
        ContextKind::SuggestedArg,
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedValue,
    ];
    let nearest = kinds.iter().find_map(|kind| match error.get(*kind)? {
        ContextValue::String(word) => Some(word.as_str()),
        ContextValue::Strings(words) => words.first().map(String::as_str),
        _ => None,
    })?;
    Some(format!("did you mean {}?", written(nearest)))
}

/// Returns a text of the error's context.
fn text(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        ContextValue::Strings(texts) => texts.first().map(String::as_str),
        _ => None,
    }
}

/// Returns the name of an argument alone: `--count` of `--count <N>`, `ADDR` of `[ADDR]`.
fn written(argument: &str) -> String {
    let name = argument.trim_start_matches(['[', '<']);
    let end = name.find(['[', ']', '<', '>', '=', ' ']);
    name[..end.unwrap_or(name.len())].to_owned()
}

fn quoted(text: &str) -> String {
    Quoted(OsStr::new(text)).to_string()
}
