//! System calls that the tests make by themselves; every `unsafe` that the other tests have not.

#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd};

use nix::libc;

/// pidfd_open(2): a descriptor that is readable once the process has ended.
#[track_caller]
pub(crate) fn pidfd(pid: i32) -> OwnedFd {
    // SAFETY: the call takes two numbers and checks them.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(pidfd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made it for this process.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(pidfd).unwrap()) }
}
