//! The choice of diagnostics: `--quiet`, `--verbose`.

/// The diagnostics that are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// Errors without hints (`--quiet`).
    Quiet,
    /// Errors with hints, warnings, and progress.
    Normal,
    /// These and notes (`--verbose`).
    Verbose,
}
