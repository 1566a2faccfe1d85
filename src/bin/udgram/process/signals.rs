//! The actions of signals, and how the process ends, stops and passes signals on.

use super::start::{CHANGED, found};
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::siginfo;
use nix::unistd::Pid;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

/// Sets the action of a signal to ignoring it or to the default; signal(7).
fn set_action(number: c_int, ignored: bool) -> nix::Result<()> {
    let action = if ignored {
        libc::SIG_IGN
    } else {
        libc::SIG_DFL
    };
    // SAFETY: neither action runs code of ours.
    let before = unsafe { libc::signal(number, action) };
    if before == libc::SIG_ERR {
        return Err(Errno::last());
    }
    Ok(())
}

/// Sets the actions of signals that the program relies on.
pub(crate) fn set_actions() {
    let [pipe_ignored, ..] = found().ignored;
    // None of these can fail: the signals exist and can be caught.
    // The Rust runtime ignores SIGPIPE. Commands that clean up block it in `Signals::install`.
    let _ = set_action(libc::SIGPIPE, pipe_ignored);
    // If SIGCHLD is ignored, waitpid(2) fails with ECHILD.
    let _ = set_action(libc::SIGCHLD, false);
    // Beyond the limit of RLIMIT_FSIZE, write(2) then fails with EFBIG, which is reported.
    let _ = set_action(libc::SIGXFSZ, true);
}

/// Makes `command` start with the signals blocked and ignored that udgram found so.
pub(crate) fn hand_on_signals(command: &mut Command) {
    let found = found();
    let restore = move || {
        for (signal, ignored) in CHANGED.into_iter().zip(found.ignored) {
            set_action(signal as c_int, ignored)?;
        }
        Ok(found.blocked.thread_set_mask()?)
    };
    // SAFETY: the closure makes system calls and allocates nothing.
    unsafe { command.pre_exec(restore) };
}

/// Sends a signal to this thread and lets it act, although it is blocked.
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

/// Ends the process by a signal, as if it had never been blocked. Returns only where the signal does not
/// do that: in PID 1, which a default action does not end.
pub(crate) fn die_of(number: c_int) {
    // The core dump would take the place of the one of the command that died of the same signal.
    // RLIMIT_CORE does not prevent a dump that core_pattern pipes to a program.
    let _ = prctl::set_dumpable(false);
    // It fails for SIGKILL, which needs no action.
    let _ = set_action(number, false);
    raise_unblocked(number);
}

/// Stops the process by a signal that stopped a command of it: a shell with job control watches this
/// process. Returns when the process continues, or at once if nothing would continue it: in an orphaned
/// process group the kernel does not let the signals of a terminal stop a process.
pub(crate) fn stop_by(number: c_int) {
    if [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&number) {
        raise_unblocked(number);
        // This cannot fail: the set is valid.
        let _ = SigSet::all().thread_block();
    }
}

/// Sends a signal that came to this process on to another one, with the value that sigqueue(3) gave it.
pub(crate) fn pass_on(info: &siginfo, to: Pid) -> nix::Result<()> {
    let number = c_int::try_from(info.ssi_signo).map_err(|_| Errno::EINVAL)?;
    let sent = if info.ssi_code == libc::SI_QUEUE {
        let address = usize::try_from(info.ssi_ptr).unwrap_or_default();
        let value = libc::sigval {
            sival_ptr: ptr::without_provenance_mut(address),
        };
        // SAFETY: the call takes numbers and checks them; the value is for the receiver alone.
        unsafe { libc::sigqueue(to.as_raw(), number, value) }
    } else {
        // SAFETY: the call takes numbers and checks them.
        unsafe { libc::kill(to.as_raw(), number) }
    };
    Errno::result(sent).map(drop)
}
