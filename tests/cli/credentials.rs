//! Credentials of senders, received and claimed.

use std::os::unix::net::UnixDatagram;

use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::{getegid, geteuid};

use crate::harness::{Sandbox, peer, root, skip, timeless};
use crate::running::{Running, children};
use crate::sys::{ask_for_credentials, signal, take_message};

#[track_caller]
fn receiver(sandbox: &Sandbox, options: &[&str]) -> Running {
    let running = sandbox.udgram(["recv"]).args(options).arg("s").start();
    running.wait_bound("s");
    running
}

/// Returns the field `comm` of this process, which the kernel supports since Linux 6.5.
fn comm() -> String {
    let socket = udgram::DatagramSocket::new().unwrap();
    if socket.set_passpidfd(true).is_err() {
        return String::new();
    }
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    format!(",\"comm\":\"{}\"", name.trim_end())
}

#[test]
fn the_senders_credentials_are_printed_in_an_envelope() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["--creds"]);
    UnixDatagram::unbound()
        .unwrap()
        .send_to(b"1", sandbox.path("s"))
        .unwrap();
    assert_eq!(
        timeless(&running.finish().one_line()),
        format!(
            "{{\"from\":null,\"size\":1,\"packet\":1,\"creds\":{{\"pid\":{},\"uid\":{},\"gid\":{}{}}}}}",
            std::process::id(),
            geteuid(),
            getegid(),
            comm(),
        )
    );
}

#[test]
fn an_envelope_has_no_credentials_unless_they_were_requested() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["-e"]);
    UnixDatagram::unbound()
        .unwrap()
        .send_to(b"1", sandbox.path("s"))
        .unwrap();
    assert_eq!(
        timeless(&running.finish().one_line()),
        "{\"from\":null,\"size\":1,\"packet\":1}"
    );
}

#[test]
fn send_without_claims_has_its_own_credentials() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    ask_for_credentials(&peer);
    for options in [&["s", "1"][..], &["--creds", "s", "1"]] {
        let running = sandbox.udgram(["send"]).args(options).start();
        let pid = running.pid();
        let credentials = take_message(&peer).credentials.unwrap();
        assert_eq!(
            (credentials.pid(), credentials.uid(), credentials.gid()),
            (pid, geteuid().as_raw(), getegid().as_raw())
        );
        running.finish().succeeds("");
    }
}

#[test]
fn credentials_may_be_claimed_where_the_kernel_allows_it() {
    root!();
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    ask_for_credentials(&peer);
    let pid = std::process::id();
    let option = format!("--creds={pid}:1234:5678");
    sandbox
        .udgram(["send", &option, "s", "1"])
        .run()
        .succeeds("");
    let credentials = take_message(&peer).credentials.unwrap();
    assert_eq!(
        (credentials.pid(), credentials.uid(), credentials.gid()),
        (i32::try_from(pid).unwrap(), 1234, 5678)
    );
}

#[test]
fn credentials_that_may_not_be_claimed_are_refused() {
    root!();
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("s");
    std::fs::set_permissions(
        sandbox.path("s"),
        std::os::unix::fs::PermissionsExt::from_mode(0o666),
    )
    .unwrap();
    sandbox
        .udgram_as(65534, ["send", "--creds=1:0:0", "s", "1"])
        .run()
        .refuses(
            1,
            &[
                "cannot send to ",
                "'s'",
                "Operation not permitted",
                "credentials",
            ],
        );
}

#[test]
fn claimed_credentials_that_are_not_three_numbers_are_a_usage_error() {
    let sandbox = Sandbox::new();
    for given in ["1", "1:2", "1:2:3:4", "a:b:c", "", "-1:0:0"] {
        let option = format!("--creds={given}");
        sandbox
            .udgram(["send", &option, "s", "1"])
            .run()
            .refuses(2, &["--creds"]);
    }
}

#[test]
fn envelopes_claim_credentials_only_when_asked_to() {
    root!();
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    ask_for_credentials(&peer);
    let pid = std::process::id();
    let line = format!("{{\"packet\":1,\"creds\":{{\"pid\":{pid},\"uid\":7,\"gid\":8}}}}");
    sandbox
        .udgram(["send", "-e", "--creds", "s", &line])
        .run()
        .succeeds("");
    let credentials = take_message(&peer).credentials.unwrap();
    assert_eq!((credentials.uid(), credentials.gid()), (7, 8));
    sandbox
        .udgram(["send", "-e", "s", &line])
        .run()
        .succeeds("");
    let credentials = take_message(&peer).credentials.unwrap();
    assert_eq!((credentials.uid(), credentials.gid()), (0, 0));
}

#[test]
fn credentials_and_descriptors_travel_together() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    ask_for_credentials(&peer);
    let file = std::fs::File::open("/dev/null").unwrap();
    sandbox
        .udgram(["send", "--creds", "--fd", "3", "s", "1"])
        .descriptor(&file, 3)
        .run()
        .succeeds("");
    let message = take_message(&peer);
    assert_eq!(
        (message.descriptors.len(), message.credentials.is_some()),
        (1, true)
    );
}

#[test]
fn an_unknown_process_id_is_null() {
    let sandbox = Sandbox::new();
    let socket = sandbox.bind("s");
    // The packet is queued before SO_PASSCRED is set, so it has no credentials.
    UnixDatagram::unbound()
        .unwrap()
        .send_to(b"1", sandbox.path("s"))
        .unwrap();
    let line = sandbox
        .udgram(["recv", "--creds", "--socket-fd", "5"])
        .descriptor(&socket, 5)
        .run()
        .one_line();
    // The kernel did not note its time either.
    assert_eq!(
        line,
        "{\"from\":null,\"size\":1,\"packet\":1,\"creds\":{\"pid\":null,\"uid\":65534,\"gid\":65534}}"
    );
}

#[test]
fn the_name_of_a_command_is_there_for_each_of_many_packets() {
    if comm().is_empty() {
        return skip("this needs Linux 6.5");
    }
    let sandbox = Sandbox::new();
    let running = sandbox.listen(["--creds", "-n", "1000", "s"]);
    let packets = "1\n".repeat(1000);
    // CMD ends only after all packets have been printed: a process that was reaped has no name.
    let mut sender = sandbox.shell("exec udgram send s").stdin_open().start();
    sender.write(&packets);
    let pid = sender.pid();
    let lines = running.finish().lines();
    let creds = format!(
        "\"creds\":{{\"pid\":{pid},\"uid\":{},\"gid\":{}",
        geteuid(),
        getegid()
    );
    let named = lines
        .iter()
        .filter(|line| line.ends_with(&format!("{creds},\"comm\":\"udgram\"}}}}")));
    assert_eq!(named.count(), 1000, "{}", lines[0]);
    sender.finish().succeeds("");
}

#[test]
fn a_process_that_was_reaped_has_no_name() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["--creds"]);
    running.stop();
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    running.resume();
    let line = running.finish().one_line();
    assert!(!line.contains("comm"), "{line}");
}

#[test]
fn another_process_whose_socket_is_used_gets_no_descriptors_of_senders() {
    let sandbox = Sandbox::new();
    let socket = sandbox.bind("s");
    UnixDatagram::unbound()
        .unwrap()
        .send_to(b"1", sandbox.path("s"))
        .unwrap();
    let line = sandbox
        .udgram(["recv", "--creds", "-s", "3"])
        .descriptor(&socket, 3)
        .run()
        .one_line();
    assert!(!line.contains("comm"), "{line}");
}

#[test]
fn senders_that_take_turns_have_each_their_own_name() {
    if comm().is_empty() {
        return skip("this needs Linux 6.5");
    }
    let sandbox = Sandbox::new();
    let mut running = sandbox.listen(["--creds", "s"]);
    let mut other = sandbox.shell("exec udgram send s").stdin_open().start();
    let own = UnixDatagram::unbound().unwrap();
    for _ in 0..3 {
        own.send_to(b"1", sandbox.path("s")).unwrap();
        let line = running.line();
        assert!(line.ends_with(&format!("{}}}}}", comm())), "{line}");
        other.write("2\n");
        let line = running.line();
        assert!(line.ends_with(",\"comm\":\"udgram\"}}"), "{line}");
    }
    other.finish().succeeds("");
}

#[test]
fn a_process_whose_name_was_printed_has_none_after_it_was_reaped() {
    if comm().is_empty() {
        return skip("this needs Linux 6.5");
    }
    let sandbox = Sandbox::new();
    let mut running = sandbox.listen(["--creds", "s"]);
    let mut sender = sandbox.shell("exec udgram send s").stdin_open().start();
    sender.write("1\n");
    let line = running.line();
    assert!(line.ends_with(",\"comm\":\"udgram\"}}"), "{line}");
    running.stop();
    sender.write("2\n");
    sender.finish().succeeds("");
    running.resume();
    let line = running.line();
    assert!(!line.contains("comm"), "{line}");
}

#[test]
fn a_sender_behind_many_packets_of_another_has_its_name() {
    root!();
    if comm().is_empty() {
        return skip("this needs Linux 6.5");
    }
    let sandbox = Sandbox::new();
    let mut running = sandbox.listen(["--creds", "--queue", "100", "s"]);
    running.stop();
    let own = UnixDatagram::unbound().unwrap();
    // As many as are received together.
    for _ in 0..udgram::BATCH {
        own.send_to(b"1", sandbox.path("s")).unwrap();
    }
    let other = sandbox.shell("exec udgram send --rate 1/h s 2 3").start();
    // It has sent the first packet, and is still there.
    other.wait_asleep();
    running.resume();
    for _ in 0..udgram::BATCH {
        let line = running.line();
        assert!(line.ends_with(&format!("{}}}}}", comm())), "{line}");
    }
    let line = running.line();
    assert!(line.ends_with(",\"comm\":\"udgram\"}}"), "{line}");
    other.signal(Signal::SIGTERM);
    let _ = other.finish().dies_of(Signal::SIGTERM, "");
}

#[test]
fn under_load_the_kernel_supplies_no_descriptors_of_senders_that_are_known() {
    root!();
    peer!("strace");
    if comm().is_empty() {
        return skip("this needs Linux 6.5");
    }
    let sandbox = Sandbox::new();
    let calls = |batches: usize| {
        let count = (batches * udgram::BATCH).to_string();
        let running = sandbox
            .command(
                "strace",
                ["-qq", "-o", "trace", "-e", "trace=setsockopt", "udgram"],
            )
            .args(["listen", "--creds", "--queue", "1000", "-n", &count, "s"])
            .start_ready();
        let listen = children(running.pid())[0];
        // The packets are queued before it receives the first.
        signal(listen, libc::SIGSTOP);
        let trace = || std::fs::read_to_string(sandbox.path("trace")).unwrap();
        running.wait_until("trace", || trace().contains("stopped by SIGSTOP"));
        let own = UnixDatagram::unbound().unwrap();
        for _ in 0..batches * udgram::BATCH {
            own.send_to(b"1", sandbox.path("s")).unwrap();
        }
        signal(listen, libc::SIGCONT);
        let lines = running.finish().lines();
        assert!(
            lines
                .iter()
                .all(|line| line.ends_with(&format!("{}}}}}", comm())))
        );
        let off = |line: &&str| line.contains("[0], 4)");
        trace().lines().filter(off).count()
    };
    // The sender is known from the second batch on.
    assert_eq!(calls(3), calls(1) + 1);
}
