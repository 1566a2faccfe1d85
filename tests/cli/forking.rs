//! Makes children that keep nothing open which another test closes.
//!
//! A child has a copy of every descriptor of its parent. execve(2) closes the close-on-exec ones, but the caller of
//! posix_spawn(3) may go on before that: `begin_new_exec` releases the memory of the parent (`exec_mmap`), which wakes
//! it, and then calls `do_close_on_exec`. So a child closes its copies before execve(2).

#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use nix::libc;
use nix::sys::resource::{Resource, getrlimit};

/// Locked for reading while a child may have copies of the descriptors of this process.
static FORKING: RwLock<()> = RwLock::new(());

/// Starts a program. When this returns, the program has only the descriptors that it was given.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    // No test has more descriptors. The limit of the process may be a million.
    let end = getrlimit(Resource::RLIMIT_NOFILE)?.0.min(4096);
    let end = RawFd::try_from(end).unwrap();
    let close = move || {
        (3..end).for_each(close_copy);
        Ok(())
    };
    // SAFETY: the closure calls nothing but fcntl(2), getsockopt(2) and close(2).
    unsafe { command.pre_exec(close) };
    // The lock guards no data, so the panic of a failed test does not matter.
    let _forking = FORKING.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// Returns a lock. While it is held, no child has a copy of a descriptor of this process.
pub(crate) fn nobody_forks() -> RwLockWriteGuard<'static, ()> {
    FORKING.write().unwrap_or_else(PoisonError::into_inner)
}

/// Closes a close-on-exec descriptor, except a socket of type SOCK_SEQPACKET, over which the standard library reports
/// the error of execve(2).
fn close_copy(descriptor: RawFd) {
    let mut kind: libc::c_int = 0;
    let mut size: libc::socklen_t = 4;
    // SAFETY: the call takes numbers only; EBADF if there is no such descriptor.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    let (level, name) = (libc::SOL_SOCKET, libc::SO_TYPE);
    // SAFETY: `kind` and `size` outlive the call, and `size` is the size of `kind`.
    unsafe {
        libc::getsockopt(
            descriptor,
            level,
            name,
            (&raw mut kind).cast(),
            &raw mut size,
        )
    };
    if flags == libc::FD_CLOEXEC && kind != libc::SOCK_SEQPACKET {
        // SAFETY: nothing uses the copies of a child between fork(2) and execve(2).
        unsafe { libc::close(descriptor) };
    }
}
