//! What udgram withstands: hostile peers, faults of the system, load, races. TESTING.md says what
//! is tried and what must hold; with `UDGRAM_LONG=1` the long form of each runs.

#![allow(
    // Tests state what holds; the harness is the one of tests/cli, of which not all is used here.
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    dead_code
)]

#[path = "../cli/harness.rs"]
mod harness;
#[path = "../cli/outcome.rs"]
mod outcome;
#[path = "../cli/running.rs"]
mod running;
#[path = "../cli/sys.rs"]
mod sys;

mod access;
mod faults;
mod hostile;
mod json;
mod load;
mod own;

/// `short`, or `long` where the long form is asked for.
pub(crate) fn scaled<T>(short: T, long: T) -> T {
    if std::env::var_os("UDGRAM_LONG").is_some_and(|value| value == "1") {
        long
    } else {
        short
    }
}
