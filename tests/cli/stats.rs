//! `--stats`: intervals, what was refused or dropped, round trips.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{LIMIT, Peer, Sandbox, close, fifo, pipe};

/// Returns a number in a line of `--stats`.
#[track_caller]
fn total(line: &str, name: &str) -> f64 {
    let number = line
        .split_whitespace()
        .find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    number.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
}

#[test]
fn a_line_is_printed_each_interval_also_while_nothing_comes() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.listen(["--stats=10ms", "s"]);
    running.wait_stderr("\nudgram: received=0 ");
    let sender = sandbox.bind("c");
    sender.send_to(b"1", sandbox.path("s")).unwrap();
    assert_eq!(running.line(), "1");
    running.wait_stderr("udgram: received=1 received_bytes=1 ");
    running.signal(Signal::SIGTERM);
    let outcome = running.finish();
    let told = outcome.stderr_text();
    let last = told.lines().last().unwrap();
    assert!(last.starts_with("udgram: received=1 "), "{told}");
    // The last line has the packets a second of the whole time.
    let expected = 1.0 / total(last, "seconds");
    assert!((total(last, "received_per_second") - expected).abs() <= 0.1 + expected / 10.0);
    let _ = outcome.dies_of(Signal::SIGTERM, "1\n");
}

#[test]
fn lines_that_were_due_while_the_program_was_stopped_are_not_made_up_for() {
    let sandbox = Sandbox::new();
    let start = Instant::now();
    let running = sandbox.listen(["--stats=20ms", "s"]);
    running.wait_stderr("udgram: received=0 ");
    running.stop();
    let stopped = Instant::now();
    let waited = sandbox.udgram(["recv", "-t", "1s", "other"]).run();
    assert_eq!(waited.code(), Some(124));
    let resumed = Instant::now();
    running.resume();
    // Many lines would come at once.
    let waited = sandbox.udgram(["recv", "-t", "100ms", "other"]).run();
    assert_eq!(waited.code(), Some(124));
    running.signal(Signal::SIGTERM);
    let outcome = running.finish();
    let ran = (stopped - start) + resumed.elapsed();
    let lines = outcome.stderr_text().lines().count();
    // One is late, one is the last, and one may be due in the moment in which it is stopped.
    let most = ran.as_millis() / 20 + 3;
    assert!(lines as u128 <= most, "{lines} lines in {ran:?}");
    let _ = outcome.dies_of(Signal::SIGTERM, "");
}

#[test]
fn round_trips_are_those_of_the_replies() {
    let sandbox = Sandbox::new();
    let _server = sandbox.listen(["--echo", "s"]);
    for options in [&[][..], &["--window", "4"]] {
        let outcome = sandbox
            .udgram(["send", "-r", "--stats"])
            .args(options)
            .args(["s", "1", "2", "3"])
            .run();
        let told = outcome.stderr_text();
        assert!(told.contains(" round_trips=3 "), "{told}");
        let [p50, p99, max] = ["p50_us", "p99_us", "max_us"].map(|name| total(&told, name));
        assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{told}");
        // No round trip took more than the whole time, which is rounded to a millisecond.
        assert!(max <= total(&told, "seconds") * 1e6 + 500.0, "{told}");
        let _ = outcome.ends(0, "1\n2\n3\n");
    }
}

#[test]
fn a_round_trip_counts_from_the_time_at_which_the_packet_was_due() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut running = sandbox
        .udgram(["send", "-r", "--stats", "--rate", "1000", "s", "1", "2"])
        .start();
    let (_, from) = peer.take_from();
    // The second packet is due while the first one's reply is still missing.
    peer.set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    assert!(peer.recv(&mut [0; 16]).is_err());
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    peer.send_to_addr(b"1", &from).unwrap();
    assert_eq!(running.line(), "1");
    assert_eq!(peer.take(), b"2");
    peer.send_to_addr(b"2", &from).unwrap();
    let outcome = running.finish();
    let told = outcome.stderr_text();
    assert!(total(&told, "p50_us") >= 150_000.0, "{told}");
    let _ = outcome.ends(0, "1\n2\n");
}

#[test]
fn a_packet_is_counted_before_it_is_answered() {
    let sandbox = Sandbox::new();
    let mut gate = fifo(&sandbox, "gate");
    let mut running = sandbox.listen(["--stats", "-n", "1", "--exec", "read -r x <gate", "s"]);
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    assert_eq!(running.line(), "1");
    running.signal(Signal::SIGUSR1);
    running.wait_stderr("udgram: received=1 received_bytes=1 not_packets=0 sent=0 ");
    gate.write_all(b"go\n").unwrap();
    assert_eq!(running.finish().code(), Some(0));
}

#[test]
fn refused_and_dropped_packets_are_counted() {
    let sandbox = Sandbox::new();
    let other = (nix::unistd::geteuid().as_raw() + 1).to_string();
    let running = sandbox.listen(["--stats=10ms", "--allow-uid", &other, "s"]);
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    running.wait_stderr(" refused=1 ");
    let outcome = sandbox
        .udgram(["send", "--stats", "--drop", "x", "1", "2"])
        .run();
    assert!(outcome.stderr_text().contains(" dropped=2\n"));
    assert_eq!(outcome.code(), Some(0));
}

#[test]
fn an_interval_is_a_duration_from_a_millisecond_up() {
    let sandbox = Sandbox::new();
    for wrong in ["0", "x", "999us"] {
        sandbox
            .udgram(["recv", &format!("--stats={wrong}"), "s"])
            .run()
            .refuses(2, &["--stats takes a duration from 1ms up, such as 1s"]);
    }
}

#[test]
fn no_line_of_stats_is_printed_within_a_packet_that_goes_to_the_same_pipe() {
    let sandbox = Sandbox::new();
    let (mut reader, writer) = pipe();
    let running = sandbox
        .udgram(["listen", "--stats=1ms", "-p", "text", "-n", "1", "s"])
        .stdout_to(writer.try_clone().unwrap())
        .stderr_to(writer.try_clone().unwrap())
        .start();
    running.wait_bound("s");
    let mut piece = [0; 1000];
    let first = reader.read(&mut piece).unwrap();
    let mut printed = String::from_utf8(piece[..first].to_vec()).unwrap();
    // More than the pipe takes.
    let packet = "x".repeat(150_000);
    let sender = sandbox.bind("c");
    sender
        .send_to(packet.as_bytes(), sandbox.path("s"))
        .unwrap();
    running.wait_full(&writer);
    let waited = sandbox.udgram(["recv", "-t", "50ms", "other"]).run();
    assert_eq!(waited.code(), Some(124));
    close(writer);
    loop {
        let count = reader.read(&mut piece).unwrap();
        if count == 0 {
            break;
        }
        printed.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    assert!(printed.contains(&format!("\n{packet}\nudgram: ")));
    running.finish().succeeds("");
}
