//! How the program ends: its exit statuses, and which errors lead to each.

use anyhow::Error;
use nix::sys::signal::Signal;
use std::process::ExitCode;
use udgram::ErrorKind;

/// An end of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: what was asked for is done.
    Done,
    /// 1: the system refused.
    Refused,
    /// 2: it was asked for wrongly.
    Usage,
    /// 3: bytes or a line that are no valid packet.
    Parse,
    /// 4: no such socket, or nobody behind it.
    NobodyThere,
    /// 124: the timeout ran out before what was asked for had come.
    TimedOut,
    /// 126: CMD cannot be run.
    CannotRun,
    /// 127: CMD is not found.
    NotFound,
    /// The status of CMD.
    Command(u8),
    /// Ended by a signal, which is let through once all is cleaned up.
    Signal(Signal),
    /// The signal that ended CMD: udgram ends by the same one, which may be a real-time signal.
    CommandSignal(i32),
}

impl Exit {
    /// Returns the exit that an error leads to.
    pub(crate) fn of(error: &Error) -> Self {
        if let Some(exit) = error.downcast_ref::<Failure>() {
            return exit.exit;
        }
        match kind_of(error) {
            Some(ErrorKind::NobodyThere) => Self::NobodyThere,
            Some(ErrorKind::Unusable) => Self::Usage,
            Some(ErrorKind::Parse) => Self::Parse,
            Some(ErrorKind::TimedOut) => Self::TimedOut,
            Some(ErrorKind::OutputGone) => Self::Signal(Signal::SIGPIPE),
            _ => Self::Refused,
        }
    }

    pub(crate) fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Parse => 3,
            Self::NobodyThere => 4,
            Self::TimedOut => 124,
            Self::CannotRun => 126,
            Self::NotFound => 127,
            Self::Command(status) => status,
            // Only where the signal itself did not end the process.
            Self::Signal(_) | Self::CommandSignal(_) => {
                128 + u8::try_from(self.signal().unwrap_or(0)).unwrap_or(0)
            }
        })
    }

    /// Returns the number of the signal that is to end the program.
    pub(crate) fn signal(self) -> Option<i32> {
        match self {
            Self::Signal(signal) => Some(signal as i32),
            Self::CommandSignal(number) => Some(number),
            _ => None,
        }
    }
}

fn kind_of(error: &Error) -> Option<ErrorKind> {
    error
        .downcast_ref::<udgram::Error>()
        .map(udgram::Error::kind)
}

/// Returns whether `error` is an error of the library and of this kind.
pub(crate) fn has_kind(error: &Error, kind: ErrorKind) -> bool {
    kind_of(error) == Some(kind)
}

/// An error that is not the library's, with the exit it leads to.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn error(exit: Exit, message: impl Into<String>) -> Error {
        Error::new(Self {
            exit,
            message: message.into(),
            hint: None,
        })
    }

    /// Returns an error with a hint: what may help.
    pub(crate) fn with_hint(
        exit: Exit,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Error {
        Error::new(Self {
            exit,
            message: message.into(),
            hint: Some(hint.into()),
        })
    }

    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub(crate) fn usage(message: impl Into<String>) -> Error {
        Self::error(Exit::Usage, message)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
