//! Destinations: packets go only to the named peer, and are received only from it.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use std::os::fd::{AsFd, AsRawFd};

use crate::harness::{Peer, Sandbox, at, bind_abstract, close, limited, peer, root, timeless};
use crate::running::Running;
use crate::sys;

/// Sends from an unnamed socket, and returns the kernel's error.
#[track_caller]
fn refused(to: &Path) -> ErrorKind {
    let stranger = UnixDatagram::unbound().unwrap();
    stranger.send_to(b"\"stranger\"", to).unwrap_err().kind()
}

#[test]
fn strangers_are_refused_while_the_peer_is_waited_for_and_after_it_has_come() {
    let sandbox = Sandbox::new();
    let mut running = sandbox
        .udgram(["send", "--wait", "--reply=2", "--bind", "me", "s", "1"])
        .start();
    running.wait_bound("me");
    // EPERM: the socket is connected to another socket.
    assert_eq!(refused(&sandbox.path("me")), ErrorKind::PermissionDenied);
    let peer = sandbox.bind("s");
    assert_eq!(peer.take(), b"1");
    peer.send_to(b"2", sandbox.path("me")).unwrap();
    assert_eq!(running.line(), "2");
    assert_eq!(refused(&sandbox.path("me")), ErrorKind::PermissionDenied);
    peer.send_to(b"3", sandbox.path("me")).unwrap();
    running.finish().succeeds("2\n3\n");
}

/// Runs udgram under strace, and returns its calls of bind(2) and connect(2) to one of its names.
#[track_caller]
fn calls(sandbox: &Sandbox, arguments: &[&str]) -> Vec<&'static str> {
    let traced = ["-qqq", "-o", "trace", "-e", "trace=bind,connect", "udgram"];
    let _ = sandbox
        .command("strace", traced)
        .args(arguments)
        .run()
        .code();
    let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
    let calls = trace.lines().filter(|line| line.ends_with(" = 0"));
    calls
        .map(|line| match line.split_once('(') {
            Some(("bind", _)) => "bind",
            Some(("connect", _)) => "connect",
            _ => panic!("{line}"),
        })
        .collect()
}

#[test]
fn a_socket_is_connected_before_it_has_a_name() {
    peer!("strace");
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("s");
    let abstract_peer = bind_abstract(sandbox.unique());
    let name = at(&sandbox.unique());
    for arguments in [
        &["send", "s", "1"][..],
        &["send", "--reply", "-t", "0", "s", "1"],
        &["send", "--wait", "--bind", "me", "s", "1"],
        &["send", "--bind", "me", &name, "1"],
        &["send", "--bind", "me", "-o", "passcred=1", "s", "1"],
        &["recv", "-t", "0", "--connect", "s", "me"],
        &["recv", "-t", "0", "--creds", "--connect", "s", "me"],
        &["iter", "-t", "0", "--connect", "s", "me"],
        &["listen", "-t", "0", "--connect", "s", "me"],
        &["exec", "-c", "s", "-b", "me", "--", "true"],
        &["exec", "-c", "s", "--", "true"],
        &["sockopt", "-c", "s", "-b", "me"],
    ] {
        assert_eq!(
            calls(&sandbox, arguments),
            ["connect", "bind"],
            "{arguments:?}"
        );
    }
    assert_eq!(abstract_peer.take(), b"1");
}

#[test]
fn the_owner_of_an_address_can_be_answered_from_the_socket_that_it_is_connected_to() {
    let sandbox = Sandbox::new();
    let own = sandbox.bind("own");
    let client = sandbox.bind("client");
    client.connect(sandbox.path("own")).unwrap();
    sandbox
        .udgram(["send", "--socket-fd", "5", "--to", "client", "1"])
        .descriptor(&own, 5)
        .run()
        .succeeds("");
    let envelope = "{\"to\":\"client\",\"packet\":2}";
    sandbox
        .udgram(["send", "--socket-fd", "5", "--envelope", envelope])
        .descriptor(&own, 5)
        .run()
        .succeeds("");
    assert_eq!([client.take(), client.take()], [b"1", b"2"]);
}

#[test]
fn a_slow_client_is_waited_for_from_the_socket_that_it_is_connected_to() {
    const COUNT: usize = 600;
    let sandbox = Sandbox::new();
    let own = sandbox.bind("own");
    let client = sandbox.bind("client");
    client.connect(sandbox.path("own")).unwrap();
    // More than the send buffer of the socket holds.
    let lines = format!("\"{}\"\n", "x".repeat(1000)).repeat(COUNT);
    let running = sandbox
        .udgram(["send", "--socket-fd", "5", "--to", "client"])
        .descriptor(&own, 5)
        .stdin(lines)
        .start();
    client.wait_queued();
    running.wait_asleep();
    for _ in 0..COUNT {
        assert_eq!(client.take().len(), 1002);
    }
    running.finish().succeeds("");
    client.has_nothing_more();
}

#[test]
fn a_slow_client_that_is_connected_to_the_socket_is_a_timeout() {
    let sandbox = Sandbox::new();
    let own = sandbox.bind("own");
    let client = sandbox.bind("client");
    client.connect(sandbox.path("own")).unwrap();
    sandbox
        .udgram(["send", "-t", "20ms", "--socket-fd", "5", "--to", "client"])
        .descriptor(&own, 5)
        .stdin(format!("\"{}\"\n", "x".repeat(1000)).repeat(600))
        .run()
        .refuses(124, &["line ", "'client'", "full", "20ms"]);
}

#[test]
fn a_destination_leaves_the_socket_unconnected_so_that_another_address_may_answer() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let other = sandbox.bind("other");
    for arguments in [&["--to", "s", "1"][..], &["-e", "s", "{\"packet\":1}"]] {
        let running = sandbox.udgram(["send", "--reply"]).args(arguments).start();
        let (question, from) = peer.take_from();
        assert_eq!(question, b"1");
        other.send_to_addr(b"2", &from).unwrap();
        let answer = running.finish().one_line();
        if arguments[0] == "-e" {
            let from = serde_json::to_string(&sandbox.path("other")).unwrap();
            let wanted = format!("{{\"from\":{from},\"size\":1,\"packet\":2}}");
            assert_eq!(timeless(&answer), wanted);
        } else {
            assert_eq!(answer, "2");
        }
    }
}

#[test]
fn the_peer_comes_first_whatever_socket_the_environment_passes() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let peer = sandbox.bind("s");
    sandbox
        .udgram(["send", "s", "1"])
        .env("UDGRAM_SOCKET_FD", "7")
        .descriptor(&theirs, 7)
        .run()
        .succeeds("");
    let (packet, from) = peer.take_from();
    assert_eq!(packet, b"1");
    assert!(from.as_abstract_name().is_some(), "{from:?}");
    sandbox
        .shell("LISTEN_PID=$$ LISTEN_FDS=1 exec udgram send s 2")
        .descriptor(&theirs, 3)
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"2");
    // There is no peer '1': it is no packet for the inherited socket.
    sandbox
        .udgram(["send", "1", "2"])
        .env("UDGRAM_SOCKET_FD", "7")
        .descriptor(&theirs, 7)
        .run()
        .refuses(4, &["'1'"]);
    ours.has_nothing_more();
}

#[test]
fn the_peer_of_the_inherited_socket_is_written_as_a_hyphen() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    sandbox
        .udgram(["send", "-", "1"])
        .env("UDGRAM_SOCKET_FD", "7")
        .descriptor(&theirs, 7)
        .run()
        .succeeds("");
    sandbox
        .shell("LISTEN_PID=$$ LISTEN_FDS=1 exec udgram send - 2")
        .descriptor(&theirs, 3)
        .run()
        .succeeds("");
    assert_eq!([ours.take(), ours.take()], [b"1", b"2"]);
    // A file of that name is written otherwise.
    let peer = sandbox.bind("-");
    sandbox.udgram(["send", "./-", "3"]).run().succeeds("");
    assert_eq!(peer.take(), b"3");
}

#[test]
fn a_hyphen_without_an_inherited_socket_or_with_an_address_to_bind_is_a_usage_error() {
    let sandbox = Sandbox::new();
    sandbox.udgram(["send", "-", "1"]).run().fails(
        2,
        "udgram: PEER '-' is the inherited socket, and neither UDGRAM_SOCKET_FD nor socket \
         activation passes one (hint: try 'udgram send --help')",
    );
    let (_ours, theirs) = UnixDatagram::pair().unwrap();
    sandbox
        .udgram(["send", "--bind", "me", "-", "1"])
        .env("UDGRAM_SOCKET_FD", "7")
        .descriptor(&theirs, 7)
        .run()
        .fails(
            2,
            "udgram: PEER '-' is the inherited socket, which --bind does not bind (hint: try 'udgram send --help')",
        );
    assert!(!sandbox.exists("me"));
}

/// Starts an ordinary user's `send` of packets with eight descriptors each, of which the kernel lets
/// so many be in flight that three packets go.
#[track_caller]
fn send_descriptors(sandbox: &Sandbox, socket: &UnixDatagram, arguments: &[&str]) -> Running {
    sandbox
        .udgram_as(65534, ["send", "--socket-fd", "5"])
        .args(["--fd=0"; 8])
        .args(arguments)
        .descriptor(socket, 5)
        .descriptor_limit(20)
        .start()
}

#[test]
fn too_many_descriptors_in_flight_are_waited_for() {
    root!();
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let ours = limited(ours);
    let packets = ["1", "2", "3", "4", "5", "6"];
    let running = send_descriptors(&sandbox, &theirs, &packets);
    ours.wait_queued();
    running.wait_asleep();
    for packet in packets {
        let message = sys::take_message(&ours);
        assert_eq!(message.bytes, packet.as_bytes());
        assert_eq!(message.descriptors.len(), 8);
    }
    running.finish().succeeds("");
}

#[test]
fn too_many_descriptors_in_flight_are_a_timeout_with_its_cause() {
    root!();
    let sandbox = Sandbox::new();
    let (_ours, theirs) = UnixDatagram::pair().unwrap();
    send_descriptors(&sandbox, &theirs, &["-t", "20ms", "1", "2", "3", "4", "5"])
        .finish()
        .refuses(
            124,
            &[
                "argument ",
                "too many descriptors are still in flight after 20ms",
                "RLIMIT_NOFILE",
            ],
        );
    // The receiver has room: nothing is said about it.
    let _peer = sandbox.bind("s");
    fs::set_permissions(sandbox.path("s"), Permissions::from_mode(0o666)).unwrap();
    let outcome = sandbox
        .udgram_as(65534, ["send", "-t", "20ms", "--bind", "", "--fd=0"])
        .args(["--fd=0"; 7])
        .args(["s", "1", "2", "3", "4", "5"])
        .descriptor_limit(20)
        .run();
    assert!(!outcome.stderr_text().contains("udgram ls"));
    outcome.refuses(
        124,
        &["too many descriptors are still in flight after 20ms"],
    );
}

#[test]
fn connecting_uses_no_socket_of_the_environment() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let _other = sandbox.bind("other");
    let own = sandbox.bind("own");
    own.connect(sandbox.path("s")).unwrap();
    for command in ["recv", "listen", "iter"] {
        let _ = sandbox
            .udgram([command, "--connect", "other", "--timeout", "1ms"])
            .env("UDGRAM_SOCKET_FD", "7")
            .descriptor(&own, 7)
            .run();
    }
    sandbox
        .udgram(["send", "-", "1"])
        .env("UDGRAM_SOCKET_FD", "7")
        .descriptor(&own, 7)
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"1");
}

#[test]
fn a_socket_of_another_process_is_not_connected_again() {
    let sandbox = Sandbox::new();
    let own = sandbox.bind("own");
    let peer = sandbox.bind("s");
    own.connect(sandbox.path("s")).unwrap();
    close(peer);
    fs::remove_file(sandbox.path("s")).unwrap();
    let successor = sandbox.bind("s");
    let socket = format!("{}:{}", std::process::id(), own.as_fd().as_raw_fd());
    // Another process may see another file under the name.
    sandbox
        .udgram(["send", "--socket-fd", &socket, "1"])
        .run()
        .refuses(4, &["cannot send to", "/s'"]);
    successor.has_nothing_more();
}

#[test]
fn a_destination_is_there_or_waited_for_as_a_peer_is() {
    let sandbox = Sandbox::new();
    sandbox.file("file", "");
    let missing = "udgram: cannot connect to 'missing': No such file or directory";
    let none: [&str; 0] = [];
    for packets in [&none[..], &["1"]] {
        sandbox
            .udgram(["send", "--to", "missing"])
            .args(packets)
            .run()
            .fails(4, missing);
        sandbox
            .udgram(["send", "-w", "-t", "20ms", "--to", "missing"])
            .args(packets)
            .run()
            .fails(124, "udgram: still no socket at 'missing' after 20ms");
        for options in [&none[..], &["-w"], &["--drop"]] {
            sandbox
                .udgram(["send", "--to", "file"])
                .args(options)
                .args(packets)
                .run()
                .fails(
                    1,
                    "udgram: cannot connect to 'file': it is a regular file, not a socket",
                );
        }
    }
    let running = sandbox.udgram(["send", "-w", "--to", "s", "1"]).start();
    running.wait_watching();
    let peer = sandbox.bind("s");
    assert_eq!(peer.take(), b"1");
    running.finish().succeeds("");
    sandbox
        .udgram(["send", "--drop", "--to", "missing", "1"])
        .run()
        .ends(0, "")
        .says(
            "udgram: warning: 1 of 1 packets were dropped: 1 failed, the last: cannot connect to \
             'missing': No such file or directory",
        );
}

#[test]
fn where_each_envelope_names_its_destination_no_peer_is_named() {
    let sandbox = Sandbox::new();
    let (one, other) = (sandbox.bind("one"), sandbox.bind("other"));
    let lines = "{\"to\":\"one\",\"packet\":1}\n{\"to\":\"other\",\"packet\":2}\n";
    sandbox
        .udgram(["send", "-e"])
        .stdin(lines)
        .run()
        .succeeds("");
    assert_eq!((one.take(), other.take()), (b"1".to_vec(), b"2".to_vec()));
    sandbox
        .udgram(["send", "-e"])
        .stdin("{\"packet\":1}\n")
        .run()
        .fails(
            1,
            "udgram: cannot send: the socket is not connected, and no destination is given",
        );
    sandbox.udgram(["send"]).stdin("1\n").run().fails(
        2,
        "udgram: PEER is missing (hint: try 'udgram send --help')",
    );
}
