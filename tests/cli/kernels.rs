//! Kernels and sandboxes without a system call: its failure is injected by strace.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;

use nix::unistd::{getegid, geteuid};

use crate::harness::{Invocation, Sandbox, peer, timeless};

/// Runs udgram where a system call fails with an errno.
fn without(sandbox: &Sandbox, call: &str, errno: &str, arguments: &[&str]) -> Invocation {
    let inject = format!("inject={call}:error={errno}");
    sandbox
        .command("strace", ["-f", "-qqq", "-o", "trace", "-e", &inject])
        .arg("udgram")
        .args(arguments)
}

#[test]
fn a_missing_system_call_is_named_with_the_linux_that_has_it() {
    peer!("strace");
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("peer");
    for (call, arguments, operation, hint) in [
        (
            // musl calls signalfd(2) where there is no signalfd4.
            "signalfd4,?signalfd",
            &["recv", "s"][..],
            "wait for signals",
            "signalfd4(2) came with Linux 2.6.27",
        ),
        (
            "recvmmsg,?recvmmsg_time64",
            &["recv", "s"],
            "receive",
            "recvmmsg(2) came with Linux 2.6.33",
        ),
        (
            "sendmmsg",
            &["send", "peer", "1"],
            "send to 'peer'",
            "sendmmsg(2) came with Linux 3.0",
        ),
        (
            "ppoll,?ppoll_time64",
            &["recv", "s"],
            "wait",
            "ppoll(2) came with Linux 2.6.16",
        ),
    ] {
        without(&sandbox, call, "ENOSYS", arguments).run().fails(
            1,
            format!(
                "udgram: cannot {operation}: Function not implemented (hint: {hint}; a sandbox may forbid it)"
            ),
        );
    }
}

#[test]
fn a_socket_of_another_process_needs_pidfd_getfd() {
    peer!("strace");
    let sandbox = Sandbox::new();
    let socket = sandbox.bind("s");
    let own = format!("{}:{}", std::process::id(), socket.as_fd().as_raw_fd());
    for call in ["pidfd_open", "pidfd_getfd"] {
        without(&sandbox, call, "ENOSYS", &["sockopt", "-s", &own, "type"])
            .run()
            .refuses(1, &["pidfd_getfd(2) came with Linux 5.6"]);
    }
}

#[test]
fn a_refused_time_of_arrival_is_a_warning() {
    peer!("strace");
    let sandbox = Sandbox::new();
    for errno in ["EPERM", "ENOPROTOOPT"] {
        let receiver = without(&sandbox, "setsockopt", errno, &["recv", "-e", "s"]).start();
        receiver.wait_bound(sandbox.path("s"));
        sandbox.bind("me").send_to(b"1", sandbox.path("s")).unwrap();
        let from = sandbox.path("me").display().to_string();
        std::fs::remove_file(sandbox.path("me")).unwrap();
        let outcome = receiver.finish();
        assert_eq!(
            outcome.stdout(),
            format!("{{\"from\":\"{from}\",\"size\":1,\"packet\":1}}\n").as_bytes()
        );
        outcome.mentions(&["udgram: warning: the time of arrival is missing"]);
    }
}

#[test]
fn credentials_need_no_descriptors_of_the_senders() {
    peer!("strace");
    let sandbox = Sandbox::new();
    // The calls set SO_TIMESTAMPNS, SO_PASSCRED and SO_PASSPIDFD, which came with Linux 6.5.
    let arguments = ["recv", "--creds", "s"];
    let missing = "ENOPROTOOPT:when=3+";
    let receiver = without(&sandbox, "setsockopt", missing, &arguments).start();
    receiver.wait_bound(sandbox.path("s"));
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"1", sandbox.path("s")).unwrap();
    let envelope = timeless(&receiver.finish().one_line());
    let (pid, uid, gid) = (std::process::id(), geteuid(), getegid());
    assert_eq!(
        envelope,
        format!(
            "{{\"from\":null,\"size\":1,\"packet\":1,\"creds\":{{\"pid\":{pid},\"uid\":{uid},\"gid\":{gid}}}}}"
        )
    );
    let missing = "ENOPROTOOPT:when=2";
    without(&sandbox, "setsockopt", missing, &arguments)
        .run()
        .fails(
            1,
            "udgram: cannot set the socket option SO_PASSCRED: this kernel has no such option for Unix datagram sockets",
        );
    assert!(!sandbox.exists("s"));
}

#[test]
fn a_command_without_memfd_create_is_not_started() {
    peer!("strace");
    let sandbox = Sandbox::new();
    let server = without(
        &sandbox,
        "memfd_create",
        "ENOSYS",
        &["listen", "-n", "1", "--exec", "cat", "s"],
    )
    .start();
    server.wait_bound(sandbox.path("s"));
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    server
        .finish()
        .ends(126, "1\n")
        .mentions(&["memfd_create(2) came with Linux 3.17"]);
}
