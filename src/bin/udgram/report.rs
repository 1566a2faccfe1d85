//! Diagnostics: one line each on stderr, `udgram: ` first, the cause last, then the hint.

use crate::cli::Diagnostics;
use anyhow::Error;
use std::fmt::Display;
use std::io::Write;

/// Where diagnostics go, and which are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    wanted: Diagnostics,
}

impl Report {
    pub(crate) fn new(wanted: Diagnostics) -> Self {
        Self { wanted }
    }

    /// Whether notes are wanted.
    pub(crate) fn is_verbose(self) -> bool {
        self.wanted.verbose
    }

    /// Something failed.
    pub(crate) fn error(self, error: &Error) {
        let hint = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<udgram::Error>()?.hint());
        match hint.filter(|_| !self.wanted.quiet) {
            Some(hint) => self.line(&format!("{error:#} (hint: {hint})")),
            None => self.line(&format!("{error:#}")),
        }
    }

    /// Something went on, but not as one would expect.
    pub(crate) fn warning(self, message: impl Display) {
        if !self.wanted.quiet {
            self.line(&format!("warning: {message}"));
        }
    }

    /// What was asked for (`--stats`).
    pub(crate) fn total(self, message: impl Display) {
        self.line(&message.to_string());
    }

    /// Whether progress is to be shown, where it can be.
    pub(crate) fn shows_progress(self) -> bool {
        !self.wanted.quiet
    }

    /// Something that is of interest to who asked (`--verbose`).
    pub(crate) fn note(self, message: impl Display) {
        if self.wanted.verbose {
            self.line(&message.to_string());
        }
    }

    #[allow(clippy::unused_self)] // The one that writes is reached through a `Report` only.
    fn line(self, message: &str) {
        let mut line = String::with_capacity(message.len() + 16);
        line.push_str("udgram: ");
        for character in message.chars() {
            // What came from outside is escaped where it is quoted; this holds the promise of one
            // line for what other crates say.
            if character.is_control() {
                line.push(' ');
            } else {
                line.push(character);
            }
        }
        line.push('\n');
        // Where stderr cannot be written to there is nobody to be told.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}
