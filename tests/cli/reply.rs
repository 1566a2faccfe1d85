//! `udgram send --reply`: ask, wait for the answers, and end with the last of them.

use nix::sys::socket::{setsockopt, sockopt};
use std::os::linux::net::SocketAddrExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Peer, Sandbox, close, root, timeless};

#[test]
fn the_reply_is_printed_and_ends_the_program() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox
        .udgram(["send", "--reply", "s", "{\"op\":\"ping\"}"])
        .start();
    let (bytes, from) = peer.take_from();
    assert_eq!(bytes, b"{\"op\":\"ping\"}");
    assert!(
        from.as_abstract_name().is_some(),
        "a sender is given a name by itself"
    );
    peer.send_to_addr(b"{\"op\":\"pong\"}", &from).unwrap();
    running.finish().succeeds("{\"op\":\"pong\"}\n");
}

#[test]
fn without_reply_the_sender_is_autobound_unless_bind_is_empty() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    assert!(peer.take_from().1.as_abstract_name().is_some());
    sandbox
        .udgram(["send", "--bind", "", "s", "1"])
        .run()
        .succeeds("");
    assert!(peer.take_from().1.is_unnamed());
}

#[test]
fn each_packet_waits_for_its_replies() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut running = sandbox.udgram(["send", "-r=2", "s", "1", "2"]).start();
    for packet in [&b"1"[..], b"2"] {
        let (bytes, from) = peer.take_from();
        assert_eq!(bytes, packet);
        peer.has_nothing_more();
        peer.send_to_addr(b"\"first\"", &from).unwrap();
        assert_eq!(running.line(), "\"first\"");
        peer.has_nothing_more();
        peer.send_to_addr(b"\"second\"", &from).unwrap();
        assert_eq!(running.line(), "\"second\"");
    }
    running
        .finish()
        .succeeds("\"first\"\n\"second\"\n".repeat(2));
}

#[test]
fn all_replies_are_printed_until_the_timeout_which_is_a_normal_end() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let start = Instant::now();
    let running = sandbox
        .udgram(["send", "--reply=all", "--timeout", "2s", "s", "1"])
        .start();
    let (_, from) = peer.take_from();
    for reply in [&b"1"[..], b"2", b"3"] {
        peer.send_to_addr(reply, &from).unwrap();
    }
    running.finish().succeeds("1\n2\n3\n");
    assert!(start.elapsed() >= Duration::from_secs(2));
}

#[test]
fn no_reply_in_time_is_never_a_success() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let start = Instant::now();
    sandbox
        .udgram(["send", "--reply", "--timeout", "100ms", "s", "1"])
        .run()
        .refuses(124, &["reply", "'s'"]);
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert_eq!(peer.take(), b"1");
}

#[test]
fn one_reply_of_two_is_printed_and_is_not_enough() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox
        .udgram(["send", "--reply=2", "--timeout", "2s", "s", "1"])
        .start();
    let (_, from) = peer.take_from();
    peer.send_to_addr(b"1", &from).unwrap();
    running.finish().ends(124, "1\n").mentions(&["repl"]);
}

#[test]
fn a_reply_that_is_not_a_valid_packet_is_reported() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox.udgram(["send", "--reply", "s", "1"]).start();
    let (_, from) = peer.take_from();
    peer.send_to_addr(b"oops", &from).unwrap();
    running.finish().refuses(3, &["/s'", "byte 0"]);
}

#[test]
fn a_reply_with_envelope_says_where_it_came_from() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox
        .udgram(["send", "--reply", "--envelope", "s", "{\"packet\":1}"])
        .start();
    let (_, from) = peer.take_from();
    peer.send_to_addr(b"2", &from).unwrap();
    let path = serde_json::to_string(&sandbox.path("s")).unwrap();
    assert_eq!(
        timeless(&running.finish().one_line()),
        format!("{{\"from\":{path},\"size\":1,\"packet\":2}}")
    );
}

#[test]
fn credentials_to_send_do_not_make_envelopes_of_replies() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox
        .udgram(["send", "--reply", "--creds", "s", "1"])
        .start();
    let (_, from) = peer.take_from();
    peer.send_to_addr(b"2", &from).unwrap();
    running.finish().succeeds("2\n");
}

#[test]
fn an_empty_reply_is_printed_and_ends_the_wait() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    for (protocol, printed) in [("text", "\n"), ("raw", ""), ("hex", "\n"), ("base64", "\n")] {
        let running = sandbox
            .udgram(["send", "--reply", "-p", protocol, "s", ""])
            .start();
        let (_, from) = peer.take_from();
        peer.send_to_addr(b"", &from).unwrap();
        running.finish().succeeds(printed);
    }
}

#[test]
fn a_wrong_number_of_replies_is_a_usage_error() {
    let sandbox = Sandbox::new();
    for number in ["-1", "some", "1.5"] {
        let option = format!("--reply={number}");
        sandbox
            .udgram(["send", &option, "s", "1"])
            .run()
            .refuses(2, &["--reply"]);
    }
}

#[test]
fn the_value_of_reply_is_never_the_next_argument() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("2");
    let running = sandbox.udgram(["send", "--reply", "2", "1"]).start();
    let (_, from) = peer.take_from();
    peer.send_to_addr(b"3", &from).unwrap();
    running.finish().succeeds("3\n");
}

#[test]
fn a_daemon_that_dropped_its_privileges_can_answer() {
    root!();
    let sandbox = Sandbox::new();
    let socket = sandbox.bind("s");
    // A question that comes before the daemon asks for credentials would have none.
    setsockopt(&socket, sockopt::PassCred, &true).unwrap();
    let daemon = sandbox
        .udgram_as(65534, ["listen", "--echo", "-n", "1", "--socket-fd", "5"])
        .descriptor(socket, 5)
        .start();
    sandbox
        .udgram([
            "send", "--reply", "--bind", "me", "--mode", "0666", "s", "1",
        ])
        .run()
        .succeeds("1\n");
    daemon.finish().succeeds("1\n");
}

#[test]
fn a_reader_that_goes_away_ends_the_wait_for_a_reply() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let (reader, writer) = crate::harness::pipe();
    let running = sandbox
        .udgram(["send", "--reply", "s", "1"])
        .stdout_to(writer)
        .start();
    assert_eq!(peer.take(), b"1");
    close(reader);
    running.finish().dies_of(Signal::SIGPIPE, "").says_nothing();
}
