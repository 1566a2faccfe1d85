//! System calls that the tests make by themselves; every `unsafe` that the other tests have not.

#![allow(unsafe_code)]

use std::fs;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::harness::LIMIT;

/// pidfd_open(2): a descriptor that is readable once the process has ended.
#[track_caller]
pub(crate) fn pidfd(pid: i32) -> OwnedFd {
    // SAFETY: the call takes two numbers and checks them.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(pidfd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made it for this process.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(pidfd).unwrap()) }
}

/// Sends a descriptor to the socket's peer.
#[track_caller]
pub(crate) fn send_to_peer(socket: &UnixDatagram, bytes: &[u8], descriptor: BorrowedFd<'_>) {
    let numbers = [descriptor.as_raw_fd()];
    let slices = [IoSlice::new(bytes)];
    let control = [ControlMessage::ScmRights(&numbers)];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &slices,
        &control,
        MsgFlags::empty(),
        None,
    )
    .unwrap();
}

/// Whether a datagram waits to be received.
pub(crate) fn queued(socket: &UnixDatagram) -> bool {
    let mut watched = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut watched, PollTimeout::ZERO) == Ok(1)
}

/// The most memory that a process has used so far, in bytes.
#[track_caller]
pub(crate) fn peak_memory(pid: i32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: usize = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kilobytes << 10
}

/// Waits until everything that was sent from the socket has been received.
#[track_caller]
pub(crate) fn wait_received(socket: &UnixDatagram) {
    let start = Instant::now();
    let mut unread: libc::c_int = 1;
    while unread > 0 {
        // SAFETY: the request writes one int.
        let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
        assert!(
            asked == 0 && start.elapsed() < LIMIT,
            "{unread} bytes are not received"
        );
        std::thread::yield_now();
    }
}
