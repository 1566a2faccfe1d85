//! Which diagnostics are printed: `--quiet`, `--verbose`.

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
