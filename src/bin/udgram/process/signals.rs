//! Sets the actions of signals, ends or stops the process by a signal, and forwards signals.

use super::start::{CHANGED, initial_state};
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::siginfo;
use nix::unistd::Pid;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

/// Sets the action of a signal to ignoring it or to the default; signal(7).
pub(super) fn set_action(number: c_int, ignored: bool) -> nix::Result<()> {
    let action = if ignored {
        libc::SIG_IGN
    } else {
        libc::SIG_DFL
    };
    // SAFETY: neither action runs a handler.
    let before = unsafe { libc::signal(number, action) };
    if before == libc::SIG_ERR {
        return Err(Errno::last());
    }
    Ok(())
}

/// Sets the actions of signals that the program relies on.
pub(crate) fn set_actions() {
    let [pipe_ignored, ..] = initial_state().ignored;
    // None of these calls can fail: the signals exist and can be caught.
    // The Rust runtime ignores SIGPIPE. Commands that clean up block it in `Signals::install`.
    let _ = set_action(libc::SIGPIPE, pipe_ignored);
    // The parent may have ignored SIGCHLD, which is inherited: waitpid(2) would fail with ECHILD.
    let _ = set_action(libc::SIGCHLD, false);
    // The default action of SIGXFSZ ends the process. If the signal is ignored, a write(2) beyond
    // RLIMIT_FSIZE fails with EFBIG, which is reported.
    let _ = set_action(libc::SIGXFSZ, true);
}

/// Takes the SIGPIPE that a write(2) of this thread has caused, while the signal is blocked.
pub(crate) fn take_broken_pipe() {
    let mut set = SigSet::empty();
    set.add(Signal::SIGPIPE);
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the set and the time are initialized and live, and the call writes nothing. It fails with EAGAIN
    // if the signal is ignored, so that none is pending.
    unsafe { libc::sigtimedwait(set.as_ref(), ptr::null_mut(), &raw const now) };
}

/// Makes `command` start with those signals blocked and ignored that were so when udgram started.
pub(crate) fn restore_signals(command: &mut Command) {
    let initial = initial_state();
    let restore = move || {
        for (signal, ignored) in CHANGED.into_iter().zip(initial.ignored) {
            set_action(signal as c_int, ignored)?;
        }
        Ok(initial.blocked.thread_set_mask()?)
    };
    // SAFETY: the closure makes system calls and allocates nothing.
    unsafe { command.pre_exec(restore) };
}

/// Sends a signal to this thread and unblocks it, so that it takes effect.
fn raise_unblocked(number: c_int) {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the call initializes the live set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the call takes any number and checks it; the set is initialized.
    unsafe { libc::sigaddset(set.as_mut_ptr(), number) };
    // SAFETY: the call takes any number and checks it.
    unsafe { libc::raise(number) };
    // SAFETY: the set is initialized and live.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut()) };
}

/// Ends the process by a signal, whose action it sets to the default and which it unblocks. Returns only if
/// the signal does not end the process: in PID 1, for which the kernel drops it.
pub(crate) fn end_by_signal(number: c_int) {
    // A core dump would overwrite that of the command that ended by the same signal. RLIMIT_CORE does
    // not prevent a dump that core_pattern pipes to a program; PR_SET_DUMPABLE does.
    let _ = prctl::set_dumpable(false);
    // EINVAL for SIGKILL, whose action cannot be changed.
    let _ = set_action(number, false);
    raise_unblocked(number);
}

/// The signals of job control that stop a process.
pub(crate) const STOPS: [c_int; 3] = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// Stops the process by a signal that has stopped its command, so that a shell with job control notices.
/// Returns when the process continues. Returns at once in an orphaned process group, in which the kernel
/// drops SIGTSTP, SIGTTIN and SIGTTOU, since no shell would continue the process. Returns `true` if it is one
/// of these.
pub(crate) fn stop_by_signal(number: c_int) -> bool {
    let stops = STOPS.contains(&number);
    if stops {
        raise_unblocked(number);
        // It cannot fail: the set is valid.
        let _ = SigSet::all().thread_block();
    }
    stops
}

/// Returns whether a blocked signal is pending.
pub(crate) fn is_pending(number: c_int) -> bool {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the call writes to the live set.
    unsafe { libc::sigpending(set.as_mut_ptr()) };
    // SAFETY: the call takes any number and checks it; the set is initialized.
    unsafe { libc::sigismember(set.as_ptr(), number) == 1 }
}

/// Forwards a received signal to another process, with its value if sigqueue(3) sent it.
pub(crate) fn forward_signal(info: &siginfo, to: Pid) -> nix::Result<()> {
    let number = c_int::try_from(info.ssi_signo).map_err(|_| Errno::EINVAL)?;
    let sent = if info.ssi_code == libc::SI_QUEUE {
        let address = usize::try_from(info.ssi_ptr).unwrap_or_default();
        let value = libc::sigval {
            sival_ptr: ptr::without_provenance_mut(address),
        };
        // SAFETY: the call takes numbers and checks them, and does not use the value as a pointer.
        unsafe { libc::sigqueue(to.as_raw(), number, value) }
    } else {
        // SAFETY: the call takes numbers and checks them.
        unsafe { libc::kill(to.as_raw(), number) }
    };
    Errno::result(sent).map(drop)
}
