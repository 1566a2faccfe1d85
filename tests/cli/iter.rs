//! `udgram iter`: what is already waiting, within one total time.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::harness::{Peer, Sandbox, limited, peer};
use crate::running::Running;

#[test]
fn what_is_waiting_is_printed_and_nothing_is_waited_for() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let iter = || {
        sandbox
            .udgram(["iter", "--socket-fd", "5"])
            .descriptor(&theirs, 5)
            .run()
    };
    iter().succeeds("");
    for packet in ["1", "2", "3"] {
        ours.send(packet.as_bytes()).unwrap();
    }
    iter().succeeds("1\n2\n3\n");
    iter().succeeds("");
}

#[test]
fn an_address_is_bound_for_the_time_given() {
    let sandbox = Sandbox::new();
    let start = Instant::now();
    let mut running = sandbox.udgram(["iter", "--timeout", "400ms", "s"]).start();
    running.wait_bound("s");
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    assert_eq!(running.line(), "1");
    running.finish().succeeds("1\n");
    assert!(start.elapsed() >= Duration::from_millis(400));
    assert!(!sandbox.exists("s"));
}

#[test]
fn it_ends_early_with_the_packet_that_completes_the_count() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    for packet in ["1", "2", "3"] {
        ours.send(packet.as_bytes()).unwrap();
    }
    sandbox
        .udgram(["iter", "-n", "2", "-t", "none", "-s", "5"])
        .descriptor(&theirs, 5)
        .run()
        .succeeds("1\n2\n");
    assert_eq!(limited(theirs).take(), b"3");
}

#[test]
fn a_datagram_that_is_no_packet_is_reported_and_the_rest_is_printed() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    for packet in ["1", "oops", "3"] {
        ours.send(packet.as_bytes()).unwrap();
    }
    sandbox
        .udgram(["iter", "-s", "5"])
        .descriptor(&theirs, 5)
        .run()
        .ends(3, "1\n3\n")
        .mentions(&["offset 0"]);
}

#[test]
fn peeking_leaves_every_datagram_and_option_as_it_was() {
    let sandbox = Sandbox::new();
    let socket = sandbox.bind("s");
    let options = || {
        sandbox
            .udgram(["sockopt", "-s", "5"])
            .descriptor(&socket, 5)
            .run()
            .one_line()
    };
    let sender = sandbox.bind("sender");
    for packet in ["1", "\"two\"", "", "[4]"] {
        sender
            .send_to(packet.as_bytes(), sandbox.path("s"))
            .unwrap();
    }
    let before = options();
    // The kernel shows an empty datagram to the first look only.
    for seen in ["1\n\"two\"\n\n[4]\n", "1\n\"two\"\n[4]\n"] {
        sandbox
            .udgram(["iter", "--peek", "-p", "text", "-s", "5"])
            .descriptor(&socket, 5)
            .run()
            .succeeds(seen);
    }
    assert_eq!(options(), before);
    for packet in ["1", "\"two\"", "", "[4]"] {
        assert_eq!(socket.take(), packet.as_bytes());
    }
    socket.has_nothing_more();
}

const DAEMON: &str = "
import socket, sys
daemon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
daemon.bind('s')
print(daemon.fileno(), flush=True)
sys.stdin.readline()
for _ in range(2):
    print(daemon.recv(100).decode(), flush=True)
";

/// A daemon that reads its socket only when it is told to, and the number of that socket.
#[track_caller]
fn stuck_daemon(sandbox: &Sandbox) -> (Running, String) {
    let mut daemon = sandbox.python(DAEMON).stdin_open().start();
    let number = daemon.line();
    let socket = format!("{}:{number}", daemon.pid());
    (daemon, socket)
}

#[test]
fn the_queue_of_a_stuck_daemon_can_be_looked_at() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let (mut daemon, socket) = stuck_daemon(&sandbox);
    sandbox.udgram(["send", "s", "1", "2"]).run().succeeds("");
    sandbox
        .udgram(["iter", "--peek", "-s", &socket])
        .run()
        .succeeds("1\n2\n");
    let queue = sandbox.udgram(["sockopt", "-s", &socket]).run().one_line();
    assert!(queue.starts_with('{') && queue.contains("\"s\""), "{queue}");
    daemon.write("go\n");
    assert_eq!([daemon.line(), daemon.line()], ["1", "2"]);
    assert!(daemon.finish().code() == Some(0));
}

#[test]
fn the_queue_of_another_process_can_be_taken() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let (mut daemon, socket) = stuck_daemon(&sandbox);
    sandbox
        .udgram(["send", "s", "1", "2", "3", "4"])
        .run()
        .succeeds("");
    sandbox
        .udgram(["iter", "-n2", "-s", &socket])
        .run()
        .ends(0, "1\n2\n")
        .says(format!(
            "udgram: warning: packets taken from the socket of process {} are gone for it; iter --peek leaves them",
            socket.split(':').next().unwrap()
        ));
    daemon.write("go\n");
    assert_eq!([daemon.line(), daemon.line()], ["3", "4"]);
    assert!(daemon.finish().code() == Some(0));
}

#[test]
fn the_activated_socket_is_found() {
    peer!("systemd-socket-activate");
    let sandbox = Sandbox::new();
    let path = sandbox.path("s");
    let running = sandbox
        .command("systemd-socket-activate", ["-d", "-l"])
        .arg(&path)
        .args(["udgram", "iter"])
        .start();
    running.wait_bound("s");
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    let outcome = running.finish();
    assert_eq!((outcome.code(), outcome.stdout()), (Some(0), &b"1\n"[..]));
}
