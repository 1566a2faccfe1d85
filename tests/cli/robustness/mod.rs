//! Hostile peers, faults of the system, load and races. TESTING.md lists what is tested and what
//! must hold. `UDGRAM_LONG=1` selects the long forms.

mod access;
mod faults;
mod hostile;
mod load;

/// Returns `long` if the long forms are selected, and `short` otherwise.
fn scaled<T>(short: T, long: T) -> T {
    if std::env::var_os("UDGRAM_LONG").is_some_and(|value| value == "1") {
        long
    } else {
        short
    }
}
