//! Diagnostics on stderr: one line each, `udgram: ` first, the cause last, then the hint.

use crate::exit::{Exit, Failure};
use crate::terminal::{Controls, escape_controls};
use anyhow::Error;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use udgram::ErrorKind;

/// Which diagnostics are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// Errors without hints (`--quiet`).
    Quiet,
    /// Errors with hints, warnings, and progress.
    Normal,
    /// These and notes (`--verbose`).
    Verbose,
}

/// Prints diagnostics.
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
        let hint = error
            .chain()
            .find_map(|cause| match cause.downcast_ref::<udgram::Error>() {
                Some(error) => error.hint().or_else(|| option_for(error.kind())),
                None => cause.downcast_ref::<Failure>()?.hint(),
            });
        match hint.filter(|_| self.verbosity != Verbosity::Quiet) {
            Some(hint) => self.line(&format!("{error:#} (hint: {hint})")),
            None => self.line(&format!("{error:#}")),
        }
    }

    /// Prints a warning: the program goes on, but something is not as expected.
    pub(crate) fn warning(self, message: impl Display) {
        if self.verbosity != Verbosity::Quiet {
            self.line(&format!("warning: {message}"));
        }
    }

    /// Prints the totals of `--stats`, whatever the verbosity.
    pub(crate) fn total(self, message: impl Display) {
        self.line(&message.to_string());
    }

    /// Prints a note, with `--verbose`.
    pub(crate) fn note(self, message: impl Display) {
        if self.is_verbose() {
            self.line(&message.to_string());
        }
    }

    #[allow(clippy::unused_self)] // A `Report` is the only way to print.
    fn line(self, message: &str) {
        // Quoted text is escaped already; this keeps the messages of other crates on one line.
        let message = escape_controls(message, Controls::Space);
        // One call: a line is not interleaved with those of other processes. A stderr that cannot
        // be written to leaves nobody to report that to.
        let _ = std::io::stderr()
            .lock()
            .write_all(format!("udgram: {message}\n").as_bytes());
    }
}

/// Names the option that helps with an error of the library, which does not know of options.
fn option_for(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::InUse => Some("--replace takes the name from it"),
        ErrorKind::TooLong => Some("pass a file or a memfd with --fd instead"),
        _ => None,
    }
}

/// Prints what is wrong with a command line as one diagnostic, or the help or version asked for to
/// stdout. Returns the exit status.
pub(crate) fn report_usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // The help is lost if stdout cannot be written to: status 1.
        return if error.print().is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let text = error.render().to_string();
    let text = text.split("\n\nUsage:").next().unwrap_or_default();
    let text = text
        .split("\n\nFor more information")
        .next()
        .unwrap_or_default();
    let words: Vec<&str> = text
        .strip_prefix("error: ")
        .unwrap_or(text)
        .split_whitespace()
        .collect();
    let message = words.join(" ").replace(" tip: ", "; ");
    // clap suggests `-- VALUE`, which is wrong for the value of an option.
    let message = message.split("; to pass '").next().unwrap_or_default();
    Report::new(Verbosity::Normal).error(&Failure::usage(message));
    Exit::Usage.code()
}
