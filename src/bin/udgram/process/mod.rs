//! Runs commands: sets their signals, descriptors and environment, and records the state of the process at
//! its start. This module and those below it have the only `unsafe` code of the program: code between
//! fork(2) and execve(2), code before `main`, and system calls that nix does not have, or not for real-time
//! signals.
#![allow(unsafe_code)]

mod children;
mod posix_spawn;
mod signals;
mod start;
mod window;

pub(crate) use children::{WitnessProcess, inherits_orphans, poll_child, reap_orphans, spawn};
pub(crate) use posix_spawn::{PosixSpawn, SpawnedProcess};
pub(crate) use signals::{
    STOPS, end_by_signal, forward_signal, is_pending, restore_signals, set_actions, stop_by_signal,
    take_broken_pipe,
};
pub(crate) use start::{is_ignored, require_open_at_start, take_descriptor, was_closed_at_start};
pub(crate) use window::terminal_width;

use crate::exit::{Exit, Failure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use nix::unistd::{AccessFlags, faccessat};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use udgram::Quoted;

// Links the unwinder of libgcc_eh.a into the program, which shortens a run of `udgram send` by an eighth:
// the dynamic linker then does not load libgcc_s.so.1, which the standard library links only if a symbol
// of it is needed. GCC installs the archive beside libgcc.a and crtbegin.o, which every link needs. Not on
// arm64: there the archive of GCC 14 needs functions of libgcc.a that are not on Rust's link line.
#[cfg(all(
    target_arch = "x86_64",
    target_env = "gnu",
    not(target_feature = "crt-static")
))]
#[link(name = "gcc_eh")]
unsafe extern "C" {}

/// Opens a descriptor that becomes readable when the process has ended; pidfd_open(2).
pub(crate) fn pidfd(pid: libc::pid_t) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes two numbers and checks them.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let pidfd = Errno::result(pidfd)
        .and_then(|number| RawFd::try_from(number).map_err(|_| Errno::EBADF))?;
    // SAFETY: the call has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// Makes `command` start with `descriptors` at these numbers, which are distinct, without
/// close-on-exec.
///
/// The standard library reports a failure of execve(2) through a pipe, which must not be at one of these
/// numbers. It is not if they are from 3 up without a gap: this process has at least as many descriptors
/// open, so the pipe gets a higher number.
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
        // Copy all sources above the targets first: a source may have the number of another's target.
        for source in &mut sources {
            // execve(2) closes the copy.
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

/// Replaces this process by `command`; execve(2). Returns only if that fails. Then it restores the
/// descriptors at `numbers`, so that the error is printed on the former stderr. They are not close-on-exec any more: the
/// process is to end.
pub(crate) fn replace_process(command: &mut Command, numbers: &[RawFd]) -> io::Error {
    let above = numbers.iter().max().map_or(0, |number| number + 1);
    let mut saved = Vec::new();
    for number in numbers {
        // SAFETY: the call takes any number and checks it.
        let open = unsafe { libc::fcntl(*number, libc::F_GETFD) };
        if open < 0 {
            continue;
        }
        // SAFETY: the call takes numbers and checks them.
        let copy = unsafe { libc::fcntl(*number, libc::F_DUPFD_CLOEXEC, above) };
        if copy < 0 {
            return io::Error::last_os_error();
        }
        saved.push((copy, *number));
    }
    let error = command.exec();
    for (copy, number) in saved {
        // SAFETY: the call takes numbers and checks them. It restores the former descriptor at `number`.
        unsafe { libc::dup2(copy, number) };
    }
    error
}

/// Makes the descriptors from `first` up close-on-exec; close_range(2). Allocates nothing.
pub(crate) fn close_on_exec(first: RawFd) {
    let from = libc::c_uint::try_from(first).unwrap_or(0);
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: the call takes three numbers and checks them.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, from, libc::c_uint::MAX, flags) };
    if closed < 0 {
        // ENOSYS before Linux 5.9, EINVAL before 5.11.
        close_each_on_exec(first);
    }
}

/// Makes the descriptors from `first` up close-on-exec, one by one. Allocates nothing.
fn close_each_on_exec(first: RawFd) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call fills the structure that it is given.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    // 1,048,576 is the default of fs.nr_open, the kernel's limit for RLIMIT_NOFILE.
    let end = RawFd::try_from(limit.rlim_cur.min(1 << 20)).unwrap_or(1 << 20);
    for number in first..end {
        // SAFETY: the call takes numbers and checks them.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Returns how many bytes a pipe holds; ioctl_pipe(2), FIONREAD.
pub(crate) fn bytes_in_pipe(pipe: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the request writes one int.
    Errno::result(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Sets `LISTEN_PID` to the process id of the command, which is known only after fork(2).
///
/// Call it last: it copies the program, the arguments and the environment, and later changes have no
/// effect. Fails if one of them contains a NUL.
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

/// Removes `UDGRAM_SOCKET_FD`, `UDGRAM_SOCKET_INODE` and `UDGRAM_PEER` from the environment of `command` if one of `numbers`
/// replaces the inherited socket that they describe.
pub(crate) fn unset_overwritten(command: &mut Command, numbers: &[RawFd]) {
    let inherited = std::env::var("UDGRAM_SOCKET_FD")
        .ok()
        .and_then(|number| number.parse().ok());
    if inherited.is_some_and(|number| numbers.contains(&number)) {
        command
            .env_remove("UDGRAM_SOCKET_FD")
            .env_remove("UDGRAM_SOCKET_INODE")
            .env_remove("UDGRAM_PEER");
    }
}

/// Makes the error of a command that could not be run: status 127 if it was not found, 126 otherwise.
pub(crate) fn spawn_failure(command: &OsStr, error: &io::Error) -> anyhow::Error {
    let exit = if error.kind() == io::ErrorKind::NotFound {
        Exit::NotFound
    } else {
        Exit::CannotRun
    };
    let cause = error.raw_os_error().map_or_else(
        || error.to_string(),
        |errno| udgram::strerror(errno).to_owned(),
    );
    Failure::error(exit, format!("cannot run {}: {cause}", Quoted(command)))
}

/// Fails if execvp(3) would not find `command` or may not run it: status 127 or 126. Call it before a
/// packet is received for the command.
pub(crate) fn require_command(command: &OsStr) -> anyhow::Result<()> {
    let checked = if command.as_bytes().contains(&b'/') {
        check_executable(Path::new(command))
    } else if command.is_empty() {
        Err(Errno::ENOENT)
    } else {
        // The default of execvp(3) without PATH.
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        // An empty entry is the current directory.
        find_executable(std::env::split_paths(&path).map(|directory| directory.join(command)))
    };
    checked.map_err(|errno| spawn_failure(command, &errno.into()))
}

/// Fails if none of the files can be run: with EACCES if one exists and may not be run, as execvp(3) does,
/// otherwise with ENOENT.
fn find_executable(files: impl Iterator<Item = PathBuf>) -> nix::Result<()> {
    let mut failure = Errno::ENOENT;
    for file in files {
        match check_executable(&file) {
            Ok(()) => return Ok(()),
            Err(Errno::EACCES) => failure = Errno::EACCES,
            Err(_) => {}
        }
    }
    Err(failure)
}

fn check_executable(file: &Path) -> nix::Result<()> {
    faccessat(AT_FDCWD, file, AccessFlags::X_OK, AtFlags::AT_EACCESS)?;
    // A directory may have the permission bit, too; execve(2) of one fails with EACCES.
    if file.is_file() {
        Ok(())
    } else {
        Err(Errno::EACCES)
    }
}
