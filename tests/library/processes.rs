//! The processes that send, which the kernel names by pidfds.
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

use crate::bound_socket;
use crate::forking::spawn;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use udgram::ancillary::ControlSpace;
use udgram::{Batch, ReceiveMode, process_exists};

#[test]
fn a_process_exists_until_it_is_reaped() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, address, _binding) = bound_socket(&directory);
    if socket.set_passpidfd(true).is_err() {
        assert!(
            std::env::var_os("UDGRAM_FORBID_SKIPS").is_none_or(|value| value != "1"),
            "skips are forbidden: this needs Linux 6.5"
        );
        println!("skipped: this needs Linux 6.5");
        return;
    }
    let mut send = Command::new(env!("CARGO_BIN_EXE_udgram"));
    send.arg("send")
        .arg(address.as_path().unwrap())
        .stdin(Stdio::piped());
    let mut sender = spawn(&mut send).unwrap();
    let mut stdin = sender.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"1\n").unwrap();
    let mut batch = Batch::new(&socket, ControlSpace::NoDescriptors, 1).unwrap();
    while socket
        .try_receive(&mut batch, 1, ReceiveMode::Remove)
        .unwrap()
        == 0
    {
        std::thread::yield_now();
    }
    let pidfd = {
        let datagram = batch.datagrams().next().unwrap();
        datagram.ancillary.pidfd.take().unwrap()
    };
    assert!(process_exists(pidfd.as_fd()));
    drop(stdin);
    let id = Id::Pid(Pid::from_raw(sender.id().try_into().unwrap()));
    // Its end is awaited, and it is not reaped.
    waitid(id, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    assert!(process_exists(pidfd.as_fd()));
    assert!(sender.wait().unwrap().success());
    assert!(!process_exists(pidfd.as_fd()));
}
