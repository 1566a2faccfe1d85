//! Prints diagnostics on stderr, one line each: `udgram: `, the message, the cause, the hint. On a terminal, the
//! words that say what kind of line it is are coloured.

use crate::exit::{Exit, Failure};
use crate::stderr;
use crate::terminal::{self, Controls, escape_controls, shell_word};
use crate::verbosity::Verbosity;
use anstyle::{AnsiColor, Style};
use anyhow::Error;
use nix::errno::Errno;
use std::borrow::Cow;
use std::fmt::Display;
use std::io;
use std::process::ExitCode;
use udgram::{Address, ErrorKind, Subject, strerror};

/// `udgram:` before an error.
const ERROR: Style = AnsiColor::Red.on_default().bold();
/// `warning:`.
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// `hint:`.
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// The kind of a diagnostic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Error,
    Warning,
    Note,
}

impl Kind {
    /// Returns what stands between `udgram: ` and the message.
    fn label(self) -> &'static str {
        match self {
            Self::Warning => "warning: ",
            Self::Error | Self::Note => "",
        }
    }
}

/// A printer of diagnostics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    verbosity: Verbosity,
}

impl Report {
    pub(crate) fn new(verbosity: Verbosity) -> Self {
        Self { verbosity }
    }

    /// Returns whether notes are printed.
    pub(crate) fn is_verbose(self) -> bool {
        self.verbosity == Verbosity::Verbose
    }

    /// Returns whether progress is shown on a terminal.
    pub(crate) fn shows_progress(self) -> bool {
        self.verbosity != Verbosity::Quiet
    }

    /// Prints an error with its causes and its hint.
    pub(crate) fn error(self, error: &Error) {
        self.error_with_hint(error, hint(error).as_deref());
    }

    /// Prints an error of the command line. The hint names the command that prints the help.
    pub(crate) fn usage_error(self, error: &Error, help: &str) {
        let help = format!("try '{help}'");
        let hint = match hint(error) {
            None => help,
            Some(hint) if hint.ends_with('?') => format!("{hint} {help}"),
            Some(hint) => format!("{hint}; {help}"),
        };
        self.error_with_hint(error, Some(&hint));
    }

    fn error_with_hint(self, error: &Error, hint: Option<&str>) {
        let causes: Vec<String> = error.chain().map(in_words).collect();
        let message = causes.join(": ");
        match hint.filter(|_| self.verbosity != Verbosity::Quiet) {
            Some(hint) => self.line(Kind::Error, &format!("{message} (hint: {hint})")),
            None => self.line(Kind::Error, &message),
        }
    }

    /// Prints a warning: something is not as expected, and the program continues.
    pub(crate) fn warning(self, message: impl Display) {
        if self.verbosity != Verbosity::Quiet {
            self.line(Kind::Warning, &message.to_string());
        }
    }

    /// Prints the totals of `--stats`, whatever the verbosity.
    pub(crate) fn total(self, message: impl Display) {
        self.line(Kind::Note, &message.to_string());
    }

    /// Prints a note, with `--verbose`.
    pub(crate) fn note(self, message: impl Display) {
        if self.is_verbose() {
            self.line(Kind::Note, &message.to_string());
        }
    }

    #[allow(clippy::unused_self)] // A `Report` is the only way to print.
    fn line(self, kind: Kind, message: &str) {
        // Quoted text is escaped already. The messages of other crates may have line ends.
        let message = escape_controls(message, Controls::Space);
        if stderr::is_terminal() && terminal::wants_color() {
            stderr::write_line(&colored(kind, &message));
        } else {
            stderr::write_line(&format!("udgram: {}{message}\n", kind.label()));
        }
    }
}

/// Returns the line of a diagnostic with colours, which do not change its text.
fn colored(kind: Kind, message: &str) -> String {
    let start = match kind {
        Kind::Error => format!("{ERROR}udgram:{ERROR:#} "),
        Kind::Warning => format!("udgram: {WARNING}{}{WARNING:#}", kind.label()),
        Kind::Note => "udgram: ".to_owned(),
    };
    // The hint is the last thing in a message.
    match message.rsplit_once("(hint:") {
        Some((text, hint)) if hint.ends_with(')') => {
            format!("{start}{text}({HINT}hint:{HINT:#}{hint}\n")
        }
        _ => format!("{start}{message}\n"),
    }
}

/// Returns the text of a cause, without the name and the number of an errno.
fn in_words(cause: &(dyn std::error::Error + 'static)) -> String {
    let errno = match cause.downcast_ref::<Errno>() {
        Some(errno) => Some(*errno as i32),
        None => cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error),
    };
    errno.map_or_else(|| cause.to_string(), |errno| strerror(errno).to_owned())
}

/// Returns the hint of an error.
fn hint(error: &Error) -> Option<Cow<'_, str>> {
    error
        .chain()
        .find_map(|cause| match cause.downcast_ref::<udgram::Error>() {
            Some(error) => match (error.hint(), option_for(error)) {
                (Some(hint), Some(option)) => Some(format!("{hint}; {option}").into()),
                (hint, option) => option.or(hint.map(Cow::Borrowed)),
            },
            None => cause.downcast_ref::<Failure>()?.hint().map(Cow::Borrowed),
        })
}

/// Returns a hint with the option or the command that helps against an error of the library, which knows
/// none.
fn option_for(error: &udgram::Error) -> Option<Cow<'static, str>> {
    let word = || match error.subject() {
        Subject::Address(Address::Unnamed) => None,
        Subject::Address(address) => Some(shell_word(&address.to_os_string())),
        _ => None,
    };
    match error.kind() {
        // A live socket is in use: --replace, which takes the name from it, is no advice.
        ErrorKind::InUse if error.cause().starts_with("it is in use") => {
            Some(format!("to see what it is sent: udgram listen --peek {}", word()?).into())
        }
        ErrorKind::InUse if error.cause().ends_with("not a datagram socket") => None,
        ErrorKind::InUse => Some("--replace takes the name from it".into()),
        ErrorKind::TooLong => Some("pass a file or a memfd with --fd instead".into()),
        ErrorKind::TimedOut if error.cause() == "the send buffer of this socket is full" => {
            Some("-o sndbuf=BYTES enlarges it".into())
        }
        ErrorKind::TimedOut if error.cause() == "its queue is full" => {
            Some(format!("udgram ls {} shows the receiver", word()?).into())
        }
        _ => None,
    }
}

/// Prints the help or the version and returns the exit status: 0 on stdout, or 1 if that fails; 2 on
/// stderr, if the help was not asked for.
pub(crate) fn print_help(help: &clap::Error) -> ExitCode {
    match help.print() {
        Ok(()) if !help.use_stderr() => Exit::Done.code(),
        Err(error) if !help.use_stderr() => {
            let error = Error::new(error).context("cannot write to stdout");
            Report::new(Verbosity::Normal).error(&error);
            Exit::Refused.code()
        }
        _ => Exit::Usage.code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_are_words_alone() {
        let error = io::Error::from_raw_os_error(Errno::EACCES as i32);
        assert_eq!(in_words(&error), "Permission denied");
        assert_eq!(in_words(&Errno::EINTR), "Interrupted system call");
        let error = Failure::error(Exit::Refused, "it is closed");
        assert_eq!(
            error.chain().map(in_words).collect::<String>(),
            "it is closed"
        );
    }
}
