//! Totals, colours, progress.

use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::harness::{Peer, Sandbox, peer};

#[test]
fn totals_are_printed_at_the_end() {
    let sandbox = Sandbox::new();
    let receiver = sandbox.bind("s");
    let outcome = sandbox.udgram(["send", "--stats", "s", "1", "[2]"]).run();
    let told = outcome.stderr_text();
    let expected = "udgram: received=0 received_bytes=0 not_packets=0 sent=2 sent_bytes=4 seconds=";
    assert!(told.starts_with(expected), "{told}");
    let _ = outcome.ends(0, "");
    assert_eq!(
        (receiver.take(), receiver.take()),
        (b"1".to_vec(), b"[2]".to_vec())
    );
}

#[test]
fn totals_are_printed_on_sigusr1_and_after_a_fatal_signal() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.listen(["--stats", "--echo", "s"]);
    let sender = sandbox.bind("c");
    for packet in ["1", "{"] {
        sender
            .send_to(packet.as_bytes(), sandbox.path("s"))
            .unwrap();
        assert_eq!(sender.take(), packet.as_bytes());
    }
    assert_eq!(running.line(), "1");
    running.signal(Signal::SIGUSR1);
    running.wait_stderr("udgram: received=2 received_bytes=2 not_packets=1 sent=2 sent_bytes=2 ");
    sender.send_to(b"3", sandbox.path("s")).unwrap();
    assert_eq!(running.line(), "3");
    running.signal(Signal::SIGTERM);
    let outcome = running.finish();
    let told = outcome.stderr_text();
    assert!(
        told.contains("udgram: received=3 received_bytes=3 "),
        "{told}"
    );
    let _ = outcome.dies_of(Signal::SIGTERM, "1\n3\n");
}

#[test]
fn a_command_inherits_the_action_of_sigusr1_unchanged() {
    let sandbox = Sandbox::new();
    let script = "kill -USR1 $$; echo still here";
    let running = sandbox.listen(["--stats", "-p", "text", "--exec", script, "-n", "1", "s"]);
    sandbox
        .udgram(["send", "-p", "text", "-r", "-t", "100ms", "s", "x"])
        .run()
        .refuses(124, &["no reply came"]);
    let _ = running.finish();
}

#[test]
fn totals_of_a_program_that_another_replaces_are_refused() {
    let sandbox = Sandbox::new();
    sandbox
        .udgram(["recv", "--stats", "s", "--", "true"])
        .run()
        .refuses(2, &["--stats with a CMD: udgram is gone when it ends"]);
}

#[test]
fn json_is_coloured_when_asked_for_and_stays_the_same_text() {
    let sandbox = Sandbox::new();
    let running = sandbox.listen(["--color", "always", "-n", "1", "s"]);
    let packet = r#"{"a": [1.50, "x"]}"#;
    sandbox.udgram(["send", "s", packet]).run().succeeds("");
    running.finish().succeeds(
        "{\u{1b}[1m\u{1b}[34m\"a\"\u{1b}[0m: [\u{1b}[36m1.50\u{1b}[0m, \u{1b}[32m\"x\"\u{1b}[0m]}\n",
    );
}

#[test]
fn json_on_a_terminal_is_coloured_unless_no_color_is_set() {
    peer!("script");
    let sandbox = Sandbox::new();
    let show = |color: &str| {
        let command = format!("{color} udgram sockopt passcred type");
        let outcome = sandbox
            .command("script", ["-qec", &command, "/dev/null"])
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .run();
        String::from_utf8_lossy(outcome.stdout()).into_owned()
    };
    assert!(show("").contains("\u{1b}[1m\u{1b}[34m\"SO_TYPE\"\u{1b}[0m"));
    assert!(!show("NO_COLOR=1").contains('\u{1b}'));
    assert!(!show("TERM=dumb").contains('\u{1b}'));
}

#[test]
fn the_progress_through_a_file_is_shown_on_a_terminal() {
    peer!("script");
    let sandbox = Sandbox::new();
    let receiver = sandbox.bind("s");
    sandbox.file("packets", "12345\n".repeat(6000));
    let start = Instant::now();
    let running = sandbox
        .command("script", ["-qec", "udgram send s <packets", "/dev/null"])
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .start();
    let take = || {
        let mut packet = [0; 8];
        receiver.wait_queued();
        let length = receiver.recv(&mut packet).unwrap();
        assert_eq!(&packet[..length], b"12345");
    };
    for _ in 0..500 {
        take();
    }
    // Progress is shown only if the transfer takes some time.
    while start.elapsed() < Duration::from_secs(1) {
        poll(&mut [], PollTimeout::from(50u16)).unwrap();
    }
    for _ in 500..6000 {
        take();
    }
    let outcome = running.finish();
    let elapsed = start.elapsed();
    let shown = String::from_utf8_lossy(outcome.stdout()).into_owned();
    assert!(shown.contains(" packets, "), "{shown:?}");
    let drawn: Vec<&str> = (shown.split('\r'))
        .filter(|line| line.contains("packets"))
        .collect();
    // It is drawn each 100 ms, from half a second on.
    let most = elapsed.as_millis() / 100 - 4;
    assert!(drawn.len() as u128 <= most, "{elapsed:?}: {drawn:?}");
    for line in drawn {
        let (packets, rest) = line.split_once(" packets, ").unwrap();
        let (read, rest) = rest.split_once(" of 35.1 KiB, ").unwrap();
        let packets: f64 = packets.parse().unwrap();
        let (read, rate) = (
            bytes(read),
            bytes(rest.trim_end().strip_suffix("/s").unwrap()),
        );
        // Each packet is a line of 6 bytes; a size is rounded down to a tenth of a KiB.
        assert!((packets * 6.0 - read).abs() <= 102.4, "{line}");
        // Half a second has passed at least.
        assert!(0.0 < rate && rate <= (read + 102.4) * 2.0, "{line}");
    }
}

#[test]
fn the_progress_has_the_packets_and_the_bytes_read_at_a_rate_and_in_a_window_too() {
    peer!("script");
    let sandbox = Sandbox::new();
    let _server = sandbox.listen(["--echo", "-q", "s"]);
    sandbox.file("packets", "12345\n".repeat(70));
    for options in ["--rate 100", "--rate 100 -r --window 4"] {
        let command = format!("udgram send {options} s <packets >answers");
        let outcome = sandbox
            .command("script", ["-qec", &command, "/dev/null"])
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .run();
        let shown = String::from_utf8_lossy(outcome.stdout()).into_owned();
        let drawn: Vec<&str> = (shown.split('\r'))
            .filter(|line| line.contains("packets"))
            .collect();
        assert!(!drawn.is_empty(), "{shown:?}");
        for line in &drawn {
            let (packets, rest) = line.split_once(" packets, ").unwrap();
            let (read, _) = rest.split_once(" of 420 bytes, ").unwrap();
            let packets: f64 = packets.parse().unwrap();
            // Those that fill the window are read and not sent yet.
            let ahead = bytes(read) - packets * 6.0;
            assert!((0.0..=24.0).contains(&ahead), "{line}");
        }
        // The line is erased, with the two characters that a terminal shows for Ctrl-C.
        let width = drawn.last().unwrap().trim_end().len() + 2;
        let erased = format!("\r{:width$}\r", "");
        assert!(shown.ends_with(&erased), "{shown:?}");
        assert!(!shown.ends_with(&format!(" {}", &erased[1..])), "{shown:?}");
    }
}

/// Returns the number of bytes of a size in the progress.
#[track_caller]
fn bytes(size: &str) -> f64 {
    let (number, unit) = size.split_once(' ').unwrap();
    let factor = match unit {
        "bytes" => 1.0,
        "KiB" => 1024.0,
        unit => panic!("{unit}"),
    };
    number.parse::<f64>().unwrap() * factor
}

#[test]
fn no_progress_is_shown_of_what_takes_no_time_or_with_quiet() {
    peer!("script");
    let sandbox = Sandbox::new();
    let receiver = sandbox.bind("s");
    sandbox.file("packets", "1\n");
    let send = |options: &str| {
        let command = format!("udgram send {options} s <packets");
        let outcome = sandbox
            .command("script", ["-qec", &command, "/dev/null"])
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .start();
        (outcome, Instant::now())
    };
    let (running, start) = send("");
    assert_eq!(receiver.take(), b"1");
    let outcome = running.finish();
    // A busy machine may take the time after which it is shown.
    if start.elapsed() < Duration::from_millis(500) {
        assert_eq!(String::from_utf8_lossy(outcome.stdout()), "");
    }
    sandbox.file("packets", "1\n".repeat(100));
    let (running, start) = send("-q");
    while start.elapsed() < Duration::from_millis(700) {
        poll(&mut [], PollTimeout::from(50u16)).unwrap();
    }
    for _ in 0..100 {
        assert_eq!(receiver.take(), b"1");
    }
    assert_eq!(String::from_utf8_lossy(running.finish().stdout()), "");
}

#[test]
fn no_progress_is_shown_without_a_terminal() {
    let sandbox = Sandbox::new();
    let receiver = sandbox.bind("s");
    sandbox.file("packets", "1\n".repeat(200));
    let running = sandbox.shell("exec udgram send s <packets").start();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(700) {
        poll(&mut [], PollTimeout::from(50u16)).unwrap();
    }
    for _ in 0..200 {
        assert_eq!(receiver.take(), b"1");
    }
    running.finish().succeeds("");
}
