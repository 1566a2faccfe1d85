//! Processes: the signals, descriptors and environment of the commands that udgram runs, and what
//! the process itself found at its start. This is the program's only module with `unsafe` code: it
//! holds what runs between fork(2) and execve(2) and what runs before `main`.
#![allow(unsafe_code)]

use crate::exit::{Exit, Failure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use udgram::Quoted;

/// Opens a descriptor that becomes readable when the process has ended; pidfd_open(2).
pub(crate) fn pidfd(pid: u32) -> nix::Result<OwnedFd> {
    let pid = i32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: the call takes two numbers and checks them.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let pidfd = Errno::result(pidfd)
        .and_then(|number| RawFd::try_from(number).map_err(|_| Errno::EBADF))?;
    // SAFETY: the call has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// Restores the default action of a signal; signal(7).
pub(crate) fn default_action(number: Signal) -> nix::Result<()> {
    // SAFETY: the default action runs no code of ours.
    unsafe { signal(number, SigHandler::SigDfl) }.map(drop)
}

/// Makes `command` start with `descriptors` at these numbers, which are distinct, without
/// close-on-exec.
pub(crate) fn place_descriptors(command: &mut Command, descriptors: Vec<(OwnedFd, RawFd)>) {
    let above = descriptors
        .iter()
        .map(|(_, target)| target + 1)
        .max()
        .unwrap_or(0);
    let mut sources: Vec<RawFd> = descriptors
        .iter()
        .map(|(source, _)| source.as_raw_fd())
        .collect();
    let place = move || {
        // First above all targets: a source may have the number that another one is to get.
        for source in &mut sources {
            // The copy is close-on-exec, so execve(2) closes it.
            // SAFETY: the call takes numbers and checks them.
            *source = Errno::result(unsafe { libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, above) })?;
        }
        for (source, (_, target)) in sources.iter().zip(&descriptors) {
            // SAFETY: the call takes numbers and checks them; the descriptor at the target is
            // replaced on purpose, in a process that is about to run another program.
            Errno::result(unsafe { libc::dup2(*source, *target) })?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls and allocates nothing.
    unsafe { command.pre_exec(place) };
}

/// Makes `command` start with exactly these signals blocked, whatever this thread has blocked.
pub(crate) fn set_signal_mask(command: &mut Command, blocked: SigSet) {
    let set = move || Ok(blocked.thread_set_mask()?);
    // SAFETY: the closure makes a system call and allocates nothing.
    unsafe { command.pre_exec(set) };
}

/// Sets `LISTEN_PID` to the number of the command's own process, which is known only after fork(2).
///
/// Call it last: it takes the program, the arguments and the environment as they are set now, and
/// later changes have no effect. Fails if any of them contains a NUL.
pub(crate) fn set_listen_pid(command: &mut Command) -> io::Result<()> {
    const NAME: &[u8] = b"LISTEN_PID=";
    let mut environment: Vec<CString> = Vec::new();
    let set = |key: &OsStr| command.get_envs().any(|(name, _)| name == key);
    let inherited = std::env::vars_os().filter(|(key, _)| !set(key));
    let changed = command
        .get_envs()
        .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
    for (key, value) in inherited
        .chain(changed)
        .filter(|(key, _)| key != "LISTEN_PID")
    {
        environment.push(CString::new(
            [key.as_bytes(), b"=", value.as_bytes()].concat(),
        )?);
    }
    let arguments = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|argument| CString::new(argument.as_bytes()))
        .collect::<Result<Vec<_>, _>>()?;
    let pointers = |strings: &[CString]| -> Vec<usize> {
        strings
            .iter()
            .map(|string| string.as_ptr().addr())
            .collect()
    };
    let mut listen_pid = [NAME, &[0; 12]].concat();
    let mut argv = pointers(&arguments);
    argv.push(0);
    let mut envp = pointers(&environment);
    envp.extend([listen_pid.as_ptr().addr(), 0]);
    let run = move || {
        let mut pid = std::process::id();
        let digits = pid.checked_ilog10().unwrap_or(0) as usize + 1;
        for digit in listen_pid[NAME.len()..NAME.len() + digits].iter_mut().rev() {
            *digit = b'0' + (pid % 10) as u8;
            pid /= 10;
        }
        // SAFETY: both arrays hold addresses of NUL-terminated strings that this closure owns
        // (`arguments`, `environment`, `listen_pid`) and end with a null one.
        unsafe {
            libc::execvpe(
                arguments[0].as_ptr(),
                argv.as_ptr().cast(),
                envp.as_ptr().cast(),
            )
        };
        let _ = &environment;
        Err(io::Error::last_os_error())
    };
    // SAFETY: the closure formats a number in place and calls execve(2); it allocates nothing.
    unsafe { command.pre_exec(run) };
    Ok(())
}

/// Removes `UDGRAM_SOCKET_FD` from the environment of `command` if one of `numbers` replaces the
/// inherited socket that it names.
pub(crate) fn forget_overwritten(command: &mut Command, numbers: &[RawFd]) {
    let inherited = std::env::var("UDGRAM_SOCKET_FD")
        .ok()
        .and_then(|number| number.parse().ok());
    if inherited.is_some_and(|number| numbers.contains(&number)) {
        command.env_remove("UDGRAM_SOCKET_FD");
    }
}

/// Returns the error of a command that could not be run: status 127 if it was not found, 126
/// otherwise.
pub(crate) fn spawn_failure(command: &OsStr, error: &io::Error) -> anyhow::Error {
    let exit = if error.kind() == io::ErrorKind::NotFound {
        Exit::NotFound
    } else {
        Exit::CannotRun
    };
    let cause = error.raw_os_error().map_or_else(
        || error.to_string(),
        |errno| udgram::describe(Errno::from_raw(errno)).to_owned(),
    );
    Failure::error(exit, format!("cannot run {}: {cause}", Quoted(command)))
}

/// Which of stdin, stdout and stderr were closed when the process started. Before `main`, Rust's
/// runtime opens /dev/null in their place, where packets would be lost without an error.
static CLOSED_AT_START: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

extern "C" fn look_at_standard_descriptors() {
    for (number, closed) in (0..).zip(&CLOSED_AT_START) {
        // SAFETY: the call takes any number and checks it.
        closed.store(
            unsafe { libc::fcntl(number, libc::F_GETFD) } < 0,
            Ordering::Relaxed,
        );
    }
}

// SAFETY: the C library runs what this section points to before `main`; the function makes three
// system calls and needs nothing that is set up later.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = look_at_standard_descriptors;

/// Returns whether descriptor 0, 1 or 2 was closed when the process started.
pub(crate) fn was_closed_at_start(number: usize) -> bool {
    CLOSED_AT_START
        .get(number)
        .is_some_and(|closed| closed.load(Ordering::Relaxed))
}
