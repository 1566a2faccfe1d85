//! `send --rate` and `--pace`: when packets are sent; `--drop`: which are not.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Peer, Sandbox, close};

#[test]
fn a_rate_sets_the_time_between_packets() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    for rate in ["20", "20/s", "1200/m", "72000/h"] {
        let start = Instant::now();
        sandbox
            .udgram(["send", "--rate", rate, "s", "1", "2", "3"])
            .run()
            .succeeds("");
        assert!(start.elapsed() >= Duration::from_millis(100), "{rate}");
        assert_eq!((peer.take(), peer.take()), (b"1".to_vec(), b"2".to_vec()));
        assert_eq!(peer.take(), b"3");
    }
}

#[test]
fn a_rate_holds_for_questions_and_for_lines() {
    let sandbox = Sandbox::new();
    let _server = sandbox.listen(["--echo", "s"]);
    for options in [&["-r"][..], &["-r", "--window", "2"]] {
        let start = Instant::now();
        sandbox
            .udgram(["send", "--rate", "20"])
            .args(options)
            .arg("s")
            .stdin("1\n2\n3\n")
            .run()
            .succeeds("1\n2\n3\n");
        assert!(start.elapsed() >= Duration::from_millis(100));
    }
}

#[test]
fn a_line_that_comes_later_than_it_is_due_is_sent_at_once() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut running = sandbox
        .udgram(["send", "--rate", "1/h", "s"])
        .stdin_open()
        .start();
    running.write("1\n");
    assert_eq!(peer.take(), b"1");
    running.signal(Signal::SIGTERM);
    let _ = running.finish().dies_of(Signal::SIGTERM, "");
}

#[test]
fn a_signal_ends_the_wait_for_the_next_packet() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox
        .udgram(["send", "--rate", "1/h", "-b", "me", "s", "1", "2"])
        .start();
    assert_eq!(peer.take(), b"1");
    running.signal(Signal::SIGTERM);
    let _ = running.finish().dies_of(Signal::SIGTERM, "");
    assert!(!sandbox.exists("me"));
    peer.has_nothing_more();
}

#[test]
fn replies_are_printed_while_the_next_packet_is_not_due() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut running = sandbox
        .udgram([
            "send", "--rate", "1/h", "-r", "--window", "2", "s", "1", "2",
        ])
        .start();
    let (bytes, from) = peer.take_from();
    assert_eq!(bytes, b"1");
    peer.send_to_addr(b"\"one\"", &from).unwrap();
    assert_eq!(running.line(), "\"one\"");
    running.signal(Signal::SIGTERM);
    let _ = running.finish().dies_of(Signal::SIGTERM, "\"one\"\n");
}

#[test]
fn a_wait_for_space_in_the_queue_is_not_made_up_for() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let filled = sandbox.fill("s");
    let running = sandbox
        .udgram(["send", "--rate", "5/s", "s", "1", "2"])
        .start();
    running.wait_asleep();
    let waited = sandbox.udgram(["recv", "-t", "300ms", "other"]).run();
    assert_eq!(waited.code(), Some(124));
    let start = Instant::now();
    for _ in 0..filled {
        assert_eq!(peer.take(), b"0");
    }
    assert_eq!((peer.take(), peer.take()), (b"1".to_vec(), b"2".to_vec()));
    assert!(start.elapsed() >= Duration::from_millis(200));
    running.finish().succeeds("");
}

fn envelope(time: &str, packet: u32) -> String {
    format!("{{\"time\":\"2026-01-01T{time}Z\",\"packet\":{packet}}}\n")
}

#[test]
fn the_pace_keeps_the_gaps_between_times() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    // The fourth went back by an hour: no gap.
    let input = [
        envelope("10:00:00", 1),
        envelope("10:00:00.2", 2),
        "{\"packet\":3}\n".to_owned(),
        envelope("09:00:00.2", 4),
        envelope("09:00:00.4", 5),
    ]
    .concat();
    for (option, shortest) in [("--pace", 400), ("--pace=2", 200), ("--pace=0.8", 500)] {
        let start = Instant::now();
        sandbox
            .udgram(["send", "-e", option, "s"])
            .stdin(&input)
            .run()
            .succeeds("");
        assert!(
            start.elapsed() >= Duration::from_millis(shortest),
            "{option}"
        );
        for packet in 1..=5 {
            assert_eq!(peer.take(), packet.to_string().as_bytes());
        }
    }
    let hour = [envelope("10:00:00", 1), envelope("11:00:00", 2)].concat();
    sandbox
        .udgram(["send", "-e", "--pace=1e9", "s"])
        .stdin(hour)
        .run()
        .succeeds("");
}

#[test]
fn a_time_that_is_none_is_refused_only_if_it_counts() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    for time in ["1", "\"yesterday\"", "\"2026-01-01T10:00:00\""] {
        let line = format!("{{\"time\":{time},\"packet\":1}}");
        sandbox
            .udgram(["send", "-e", "s", &line])
            .run()
            .succeeds("");
        assert_eq!(peer.take(), b"1");
        sandbox
            .udgram(["send", "-e", "--pace", "s", &line])
            .run()
            .refuses(
                3,
                &[
                    "argument 1",
                    "column 9",
                    "a time of RFC 3339 in UTC, from 1970 on",
                ],
            );
    }
    peer.has_nothing_more();
}

#[test]
fn values_that_are_no_rate_no_factor_or_no_window_are_refused() {
    let sandbox = Sandbox::new();
    for (option, wrong) in [
        (
            "--rate=0",
            "--rate takes a number from 1 up, with /s, /m, /h or /ms",
        ),
        ("--rate=1/d", "--rate takes a number from 1 up"),
        ("--pace=0", "--pace takes a number above 0"),
        ("--pace=inf", "--pace takes a number above 0"),
        ("--window=0", "--window takes a number from 1 to 1048576"),
    ] {
        sandbox
            .udgram(["send", option, "s", "1"])
            .run()
            .refuses(2, &[wrong]);
    }
}

#[test]
fn with_drop_fields_too_long_for_a_datagram_are_sent_in_a_memfd() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let value = "x".repeat(5 << 20);
    sandbox
        .udgram(["send", "s", "--drop", "-p", "fields"])
        .stdin(format!(
            "{{\"A\":\"1\"}}\n{{\"A\":\"{value}\"}}\n{{\"A\":\"3\"}}\n"
        ))
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"A=1\n");
    let message = crate::sys::take_message(&peer);
    assert_eq!((message.bytes.len(), message.descriptors.len()), (0, 1));
    assert_eq!(peer.take(), b"A=3\n");
    peer.has_nothing_more();
}

#[test]
fn packets_that_cannot_be_sent_at_once_are_dropped_and_counted() {
    let sandbox = Sandbox::new();
    sandbox
        .udgram(["send", "--drop", "s", "1", "2"])
        .run()
        .ends(0, "")
        .says("udgram: warning: 2 of 2 packets were dropped: 2 failed, the last: cannot connect to 's': No such file or directory");
    let peer = sandbox.bind("s");
    let filled = sandbox.fill("s");
    sandbox
        .udgram(["send", "--drop", "s", "1", "2"])
        .run()
        .ends(0, "")
        .says("udgram: warning: 2 of 2 packets were dropped: 2 found the queue or the send buffer full");
    sandbox
        .udgram(["send", "--drop", "-q", "--to", "s", "1"])
        .run()
        .succeeds("");
    for _ in 0..filled {
        assert_eq!(peer.take(), b"0");
    }
    peer.has_nothing_more();
    sandbox
        .udgram(["send", "--drop", "s", "7"])
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"7");
    sandbox
        .udgram(["send", "--drop", "s", "{"])
        .run()
        .refuses(3, &["argument 1"]);
}

#[test]
fn a_peer_that_comes_back_gets_packets_again() {
    let sandbox = Sandbox::new();
    let mut running = sandbox
        .udgram(["send", "--drop", "--stats=5ms", "s"])
        .stdin_open()
        .start();
    running.write("1\n");
    running.wait_stderr(" dropped=1\n");
    let peer = sandbox.bind("s");
    running.write("2\n");
    assert_eq!(peer.take(), b"2");
    fs::remove_file(sandbox.path("s")).unwrap();
    let other = sandbox.bind("s");
    close(peer);
    running.write("3\n");
    assert_eq!(other.take(), b"3");
    let outcome = running.finish();
    assert!(
        outcome
            .stderr_text()
            .contains("1 of 3 packets were dropped")
    );
    assert_eq!(outcome.code(), Some(0));
}

#[test]
fn what_a_signal_ends_reports_what_was_dropped_and_the_totals() {
    let sandbox = Sandbox::new();
    let dropped = "udgram: warning: 1 of 1 packets were dropped: 1 failed, the last: cannot connect to 's': No such \
                   file or directory";
    let start = |options: &[&str]| {
        let mut running = sandbox
            .udgram(["send", "s"])
            .args(options)
            .stdin_open()
            .start();
        running.write("1\n");
        running.wait_read().wait_asleep();
        running.signal(Signal::SIGTERM);
        running.finish()
    };
    start(&["--drop"])
        .dies_of(Signal::SIGTERM, "")
        .says(dropped);
    let peer = sandbox.bind("s");
    start(&["--stats"])
        .dies_of(Signal::SIGTERM, "")
        .mentions(&["udgram: received=0 received_bytes=0 not_packets=0 sent=1 sent_bytes=1 "]);
    assert_eq!(peer.take(), b"1");
}
