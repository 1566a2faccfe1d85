//! Records the state of the process at its start: its standard descriptors and its signals.

use crate::exit::Failure;
use nix::libc::{self, c_int};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;
use std::mem::MaybeUninit;
use std::os::fd::{OwnedFd, RawFd};
use std::ptr;
use std::sync::OnceLock;

/// The signals whose actions udgram changes, and restores for the commands that it runs.
pub(super) const CHANGED: [Signal; 3] = [Signal::SIGPIPE, Signal::SIGCHLD, Signal::SIGXFSZ];

/// The state of the process at its start. The Rust runtime changes some of it before `main`.
#[derive(Debug)]
pub(super) struct InitialState {
    /// True for each of stdin, stdout and stderr that was closed. The runtime opens /dev/null for them, which would
    /// swallow packets without an error.
    closed: [bool; 3],
    /// True for each signal of [`CHANGED`] that was ignored.
    pub(super) ignored: [bool; 3],
    /// The signals that were blocked.
    pub(super) blocked: SigSet,
}

static INITIAL_STATE: OnceLock<InitialState> = OnceLock::new();

/// Returns the state at the start. The first call records it.
pub(super) fn initial_state() -> &'static InitialState {
    INITIAL_STATE.get_or_init(|| {
        // SAFETY: the call takes any number and checks it.
        let closed = [0, 1, 2].map(|number| unsafe { libc::fcntl(number, libc::F_GETFD) } < 0);
        InitialState {
            closed,
            ignored: CHANGED.map(is_ignored),
            blocked: SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty()),
        }
    })
}

extern "C" fn record_initial_state() {
    initial_state();
}

// SAFETY: the C library calls the functions in this section before `main`. The function makes system calls
// and needs nothing that is initialized later.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = record_initial_state;

/// Returns whether descriptor 0, 1 or 2 was closed when the process started.
pub(crate) fn was_closed_at_start(number: usize) -> bool {
    initial_state()
        .closed
        .get(number)
        .is_some_and(|closed| *closed)
}

/// Returns whether the process had this descriptor when it started.
fn was_open_at_start(number: RawFd) -> bool {
    if let Some(closed) = usize::try_from(number)
        .ok()
        .and_then(|number| initial_state().closed.get(number))
    {
        return !closed;
    }
    // Every descriptor that udgram opens is close-on-exec; execve(2) closes those, so an inherited one is
    // not.
    // SAFETY: the call takes any number and checks it.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Fails with a usage error if descriptor `number` of this process was not open when it started: udgram may
/// have opened it since for itself. Does not check a descriptor of another process, `pid`.
pub(crate) fn require_open_at_start(pid: Option<i32>, number: RawFd) -> anyhow::Result<()> {
    let own = pid.is_none_or(|pid| pid == Pid::this().as_raw());
    if own && !was_open_at_start(number) {
        return Err(Failure::usage(format!(
            "cannot use descriptor {number}: it is not open"
        )));
    }
    Ok(())
}

/// Copies a descriptor that the process had when it started, and keeps the original from the commands that
/// it runs, unless it is stdin, stdout or stderr. Fails with a usage error if it was not open.
pub(crate) fn take_descriptor(number: RawFd) -> anyhow::Result<OwnedFd> {
    require_open_at_start(None, number)?;
    let copy = udgram::duplicate(None, number)?;
    if number > libc::STDERR_FILENO {
        // SAFETY: the call takes numbers and checks them.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(copy)
}

/// Returns whether the process ignores a signal; sigaction(2).
pub(crate) fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the call writes the current action to the live `action`, and changes nothing.
    let asked = unsafe { libc::sigaction(signal as c_int, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zeros is a valid `sigaction`, and so is what the call has written.
    let action = unsafe { action.assume_init() };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}
