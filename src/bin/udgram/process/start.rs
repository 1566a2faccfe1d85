//! What the process found when it started: its standard descriptors and its signals.

use crate::exit::Failure;
use nix::libc::{self, c_int};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::OnceLock;

/// The signals whose actions udgram sets; commands that it runs get them as udgram found them.
pub(super) const CHANGED: [Signal; 3] = [Signal::SIGPIPE, Signal::SIGCHLD, Signal::SIGXFSZ];

/// What the process found when it started. The Rust runtime changes some of it before `main`.
#[derive(Debug)]
pub(super) struct Found {
    /// Which of stdin, stdout and stderr were closed. The runtime opens /dev/null in their place, where
    /// packets would be lost without an error.
    closed: [bool; 3],
    /// Which of the signals of [`CHANGED`] were ignored.
    pub(super) ignored: [bool; 3],
    /// The signals that were blocked.
    pub(super) blocked: SigSet,
}

static FOUND: OnceLock<Found> = OnceLock::new();

pub(super) fn found() -> &'static Found {
    FOUND.get_or_init(|| {
        // SAFETY: the call takes any number and checks it.
        let closed = [0, 1, 2].map(|number| unsafe { libc::fcntl(number, libc::F_GETFD) } < 0);
        Found {
            closed,
            ignored: CHANGED.map(is_ignored),
            blocked: SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty()),
        }
    })
}

extern "C" fn look_around() {
    found();
}

// SAFETY: the C library runs what this section points to before `main`; the function makes system calls
// and needs nothing that is set up later.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = look_around;

/// Returns whether descriptor 0, 1 or 2 was closed when the process started.
pub(crate) fn was_closed_at_start(number: usize) -> bool {
    found().closed.get(number).is_some_and(|closed| *closed)
}

/// Returns whether the process had this descriptor when it started.
fn was_open_at_start(number: RawFd) -> bool {
    if let Some(closed) = usize::try_from(number)
        .ok()
        .and_then(|number| found().closed.get(number))
    {
        return !closed;
    }
    // Every descriptor that udgram opens is close-on-exec; one that was inherited through execve(2) is not.
    // SAFETY: the call takes any number and checks it.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Fails, as a usage error, if descriptor `number` of this process was not open when it started: a
/// number that udgram has used since is not one that its caller means. One of another process, `pid`, is
/// not looked at.
pub(crate) fn require_open_at_start(pid: Option<i32>, number: RawFd) -> anyhow::Result<()> {
    let own = pid.is_none_or(|pid| pid == Pid::this().as_raw());
    if own && !was_open_at_start(number) {
        return Err(Failure::usage(format!(
            "cannot use descriptor {number}: it is not open"
        )));
    }
    Ok(())
}

/// Returns whether the process ignores a signal; sigaction(2).
pub(crate) fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the call writes the present action to the live `action`, and sets none.
    let asked = unsafe { libc::sigaction(signal as c_int, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zeros is a valid `sigaction`, and so is what the call has written.
    let action = unsafe { action.assume_init() };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}
