//! Defines the exit statuses, and maps errors to them.

use anyhow::Error;
use nix::sys::signal::Signal;
use std::process::ExitCode;
use udgram::ErrorKind;

/// A way in which the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: the command has done its work.
    Done,
    /// 1: the system refused an operation.
    Refused,
    /// 2: the command line is wrong.
    Usage,
    /// 3: a datagram, an argument or a line is not a valid packet.
    Parse,
    /// 4: there is no such socket, or no process has it open.
    NobodyThere,
    /// 124: the timeout ran out.
    TimedOut,
    /// 126: CMD cannot be run.
    CannotRun,
    /// 127: CMD is not found.
    NotFound,
    /// The status of CMD.
    Command(u8),
    /// The signal that stopped the program: it ends by the same one after the cleanup.
    Signal(Signal),
    /// The signal that ended CMD: udgram ends by the same one. It may be a real-time signal, which
    /// [`Signal`] does not have.
    CommandSignal(i32),
}

impl Exit {
    /// Returns the exit for an error.
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

    /// Returns the exit status.
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
            // Reached only if the signal did not end the process: in PID 1.
            Self::Signal(_) | Self::CommandSignal(_) => {
                128 + u8::try_from(self.signal().unwrap_or(0)).unwrap_or(0)
            }
        })
    }

    /// Returns the number of the signal by which the program ends.
    pub(crate) fn signal(self) -> Option<i32> {
        match self {
            Self::Signal(signal) => Some(signal as i32),
            Self::CommandSignal(number) => Some(number),
            _ => None,
        }
    }
}

/// Returns the kind of an error of the library.
fn kind_of(error: &Error) -> Option<ErrorKind> {
    error
        .downcast_ref::<udgram::Error>()
        .map(udgram::Error::kind)
}

/// Returns whether `error` is an error of the library of this kind.
pub(crate) fn has_kind(error: &Error, kind: ErrorKind) -> bool {
    kind_of(error) == Some(kind)
}

/// An error of the program, with its exit.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// Returns an error without a hint.
    pub(crate) fn error(exit: Exit, message: impl Into<String>) -> Error {
        Error::new(Self {
            exit,
            message: message.into(),
            hint: None,
        })
    }

    /// Returns an error with a hint, which says what may help.
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

    /// Returns the hint.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns an error of the command line.
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
