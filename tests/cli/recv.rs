//! `udgram recv`: wait for a packet, print it, end.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use crate::harness::{Peer, Sandbox, close, limited, peer, split_time, timeless};
use crate::outcome::Outcome;
use crate::running::Running;

/// Starts `recv` with these options, bound to `s`.
#[track_caller]
fn receiver(sandbox: &Sandbox, options: &[&str]) -> Running {
    let running = sandbox.udgram(["recv"]).args(options).arg("s").start();
    running.wait_bound("s");
    running
}

/// Runs `recv` with these options, and sends it these datagrams from an unnamed sender.
#[track_caller]
fn received(options: &[&str], datagrams: &[&[u8]]) -> Outcome {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, options);
    let sender = limited(UnixDatagram::unbound().unwrap());
    for datagram in datagrams {
        sender.send_to(datagram, sandbox.path("s")).unwrap();
    }
    running.finish()
}

#[test]
fn one_packet_is_printed_and_ends_the_program() {
    received(&[], &[b"{\"data\":42}"]).succeeds("{\"data\":42}\n");
}

#[test]
fn the_socket_is_gone_after_one_packet() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &[]);
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"1", sandbox.path("s")).unwrap();
    running.finish().succeeds("1\n");
    assert_eq!(
        sender.send_to(b"2", sandbox.path("s")).unwrap_err().kind(),
        std::io::ErrorKind::NotFound
    );
}

#[test]
fn as_many_packets_as_asked_for_are_printed() {
    received(&["--count", "3"], &[b"1", b"2", b"3"]).succeeds("1\n2\n3\n");
    received(&["-n2"], &[b"1", b"2"]).succeeds("1\n2\n");
}

#[test]
fn each_packet_is_printed_before_the_next_one_is_waited_for() {
    let sandbox = Sandbox::new();
    let mut running = receiver(&sandbox, &["-n", "3"]);
    let sender = UnixDatagram::unbound().unwrap();
    for packet in ["1", "2", "3"] {
        sender
            .send_to(packet.as_bytes(), sandbox.path("s"))
            .unwrap();
        assert_eq!(running.line(), packet);
    }
    running.finish().succeeds("1\n2\n3\n");
}

#[test]
fn a_packet_before_the_timeout_is_printed_although_the_next_one_is_missing() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.send(b"1").unwrap();
    let start = Instant::now();
    sandbox
        .udgram(["recv", "-n", "2", "-t", "300ms", "-s", "5"])
        .descriptor(&theirs, 5)
        .run()
        .ends(124, "1\n")
        .mentions(&["1 of 2 packets"]);
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn the_timeout_is_for_each_packet() {
    peer!("strace");
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.send(b"1").unwrap();
    let start = Instant::now();
    // The timeout passes while recvmmsg(2) returns the first packet.
    let delay = "inject=recvmmsg,?recvmmsg_time64:delay_exit=500000:when=1";
    sandbox
        .command("strace", ["-qq", "-o", "trace", "-e", delay])
        .args(["udgram", "recv", "-n", "2", "-t", "400ms", "-s", "5"])
        .descriptor(&theirs, 5)
        .run()
        .ends(124, "1\n")
        .mentions(&["1 of 2 packets"]);
    // If the timeout were for both packets, it would have ended at once.
    assert!(start.elapsed() >= Duration::from_millis(500 + 400));
}

#[test]
fn a_timeout_of_none_is_accepted() {
    let sandbox = Sandbox::new();
    let running = sandbox.udgram(["recv", "--timeout", "none", "s"]).start();
    running.wait_bound("s");
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"1", sandbox.path("s")).unwrap();
    running.finish().succeeds("1\n");
}

#[test]
fn a_timeout_is_a_duration_with_units_or_a_number_of_seconds() {
    let sandbox = Sandbox::new();
    for (duration, least) in [
        ("0", 0),
        ("30ms", 30),
        ("0.05", 50),
        (".05", 50),
        ("0s 20ms", 20),
        ("20000us", 20),
    ] {
        let start = Instant::now();
        sandbox
            .udgram(["recv", "--timeout", duration, "s"])
            .run()
            .refuses(124, &["packet"]);
        assert!(
            start.elapsed() >= Duration::from_millis(least),
            "{duration}"
        );
    }
    for duration in [
        "",
        "soon",
        "-1",
        "1x",
        "NaN",
        "inf",
        "1 2",
        "99999999999999999999999",
    ] {
        sandbox
            .udgram(["recv", &format!("--timeout={duration}"), "s"])
            .run()
            .refuses(2, &["--timeout"]);
    }
}

#[test]
fn a_count_that_is_not_a_positive_number_is_a_usage_error() {
    let sandbox = Sandbox::new();
    for count in ["-1", "x", "1.5", "", "0x10"] {
        sandbox
            .udgram(["recv", &format!("--count={count}"), "s"])
            .run()
            .refuses(2, &["--count"]);
    }
}

#[test]
fn json_is_printed_on_one_line_and_otherwise_unchanged() {
    for json in [
        "12345678901234567890.10",
        "1E400",
        r#"{"b":1,"a":2,"b":3}"#,
        r#""\u00e9\/\n""#,
        "\"\u{1f600}\u{2028}\"",
        "[ 1 ,\t2 ]",
    ] {
        received(&[], &[json.as_bytes()]).succeeds(format!("{json}\n"));
    }
    received(&[], &[b"{\"a\":\r\n  1,\n\"b\":\n\"x\\ny\"}\n"])
        .succeeds("{\"a\":  1,\"b\":\"x\\ny\"}\n");
}

#[test]
fn json_of_any_depth_is_printed() {
    let json = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    received(&[], &[json.as_bytes()]).succeeds(format!("{json}\n"));
    let line = received(&["-e"], &[json.as_bytes()]).one_line();
    assert_eq!(
        timeless(&line),
        format!("{{\"from\":null,\"size\":100000,\"packet\":{json}}}")
    );
}

#[test]
fn text_is_given_a_final_newline_unless_it_has_one() {
    received(&["-p", "text", "-n3"], &[b"a", b"b\n", b""]).succeeds("a\nb\n\n");
}

#[test]
fn raw_bytes_are_printed_unchanged() {
    received(&["-p", "raw", "-n3"], &[b"\0\xff", b"", b"a\n"]).succeeds(b"\0\xffa\n");
}

#[test]
fn bytes_are_printed_as_hexadecimal_digits_or_base64() {
    received(&["-p", "hex", "-n2"], &[b"\0\xffA", b""]).succeeds("00ff41\n\n");
    received(&["-p", "base64", "-n2"], &[b"\0\xffA\n", b""]).succeeds("AP9BCg==\n\n");
}

#[test]
fn a_datagram_that_is_not_a_valid_packet_is_reported_with_its_sender_and_the_place() {
    for (protocol, datagram, place) in [
        ("json", &b"[1,\n x]"[..], "byte 5"),
        ("json", b"", "is empty, not JSON"),
        ("json", b"1 2", "byte 2"),
        ("json", b"\xef\xbb\xbf1", "byte 0"),
        ("json", b"\"\xff\"", "byte 1"),
        ("text", b"ab\xffcd", "byte 2"),
    ] {
        received(&["-p", protocol], &[datagram]).refuses(3, &["unnamed", place]);
    }
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &[]);
    sandbox
        .udgram(["send", "-p", "text", "--bind", "me", "s", "oops"])
        .run()
        .succeeds("");
    running.finish().refuses(3, &["/me'", "byte 0"]);
}

#[test]
fn a_datagram_that_is_not_a_valid_packet_counts_and_does_not_end_recv() {
    received(&["-n", "3"], &[b"1", b"oops", b"3"])
        .ends(3, "1\n3\n")
        .mentions(&["byte 0"]);
}

#[test]
fn a_datagram_that_is_not_a_valid_packet_is_printed_with_its_bytes_in_an_envelope() {
    let outcome = received(&["-e"], &[b"\xff{"]);
    let line = String::from_utf8(outcome.stdout().to_vec()).unwrap();
    outcome.ends(3, &line).mentions(&["byte 0"]);
    let rest = timeless(line.trim_end());
    let message = rest
        .strip_prefix("{\"from\":null,\"size\":2,\"error\":{\"kind\":\"parse\",\"message\":")
        .and_then(|rest| rest.strip_suffix("},\"raw\":\"/3s=\"}"))
        .unwrap_or_else(|| panic!("an unexpected envelope: {line}"));
    let message: String = serde_json::from_str(message).unwrap();
    assert!(message.contains("byte 0"), "{message}");
}

#[test]
fn an_envelope_has_the_sender_the_size_and_the_packet() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["--envelope", "-n", "2"]);
    sandbox
        .udgram(["send", "--bind", "me", "s", "{\"data\":42}"])
        .run()
        .succeeds("");
    sandbox
        .udgram(["send", "--bind", "", "s", "{\"data\":[\n] }"])
        .run()
        .succeeds("");
    let lines = running.finish().lines();
    let lines: Vec<String> = lines.iter().map(|line| timeless(line)).collect();
    let from = sandbox.path("me").display().to_string();
    assert_eq!(
        lines[0],
        format!(r#"{{"from":"{from}","size":11,"packet":{{"data":42}}}}"#)
    );
    assert!(
        lines[1].starts_with(r#"{"from":null,"size":1"#)
            && lines[1].ends_with(r#","packet":{"data":[] }}"#),
        "{}",
        lines[1]
    );
}

#[test]
fn the_packet_of_an_envelope_has_the_form_of_the_protocol() {
    for (protocol, bytes, packet) in [
        ("text", &b"a\"b\n"[..], r#""a\"b\n""#),
        ("text", b"", r#""""#),
        ("raw", b"\0\xff", r#""AP8=""#),
        ("hex", b"\0\xff", r#""AP8=""#),
        ("base64", b"\0\xff", r#""AP8=""#),
        ("raw", b"", r#""""#),
    ] {
        assert_eq!(
            timeless(&received(&["-e", "-p", protocol], &[bytes]).one_line()),
            format!(
                "{{\"from\":null,\"size\":{},\"packet\":{packet}}}",
                bytes.len()
            ),
            "{protocol}"
        );
    }
}

#[test]
fn the_time_of_an_envelope_is_when_the_packet_was_sent() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["-e"]);
    let before = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    UnixDatagram::unbound()
        .unwrap()
        .send_to(b"1", sandbox.path("s"))
        .unwrap();
    let after = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let line = running.finish().one_line();
    let stamp = seconds_since_the_epoch(split_time(&line).0);
    assert!(
        (before..=after).contains(&stamp),
        "{line} is not from {before} to {after}"
    );
}

/// Reads `2026-11-22T08:41:00.123456789Z`, by counting days.
fn seconds_since_the_epoch(time: &str) -> u64 {
    let parts: Vec<u64> = time
        .split(['-', 'T', ':', '.', 'Z'])
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().unwrap())
        .collect();
    let (year, month, day) = (parts[0], parts[1], parts[2]);
    let leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_before: u64 = (1970..year).map(|year| 365 + u64::from(leap(year))).sum();
    let lengths = [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let days: u64 = days_before
        + lengths
            .iter()
            .take(usize::try_from(month - 1).unwrap())
            .sum::<u64>()
        + day
        - 1;
    ((days * 24 + parts[3]) * 60 + parts[4]) * 60 + parts[5]
}

#[test]
fn a_datagram_of_four_mebibytes_arrives_whole() {
    crate::harness::root!(); // SO_SNDBUFFORCE
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["-p", "raw"]);
    let bytes: Vec<u8> = (0..=255).cycle().take(4 << 20).collect();
    sandbox
        .udgram(["send", "-p", "raw", "s"])
        .stdin(&bytes)
        .run()
        .succeeds("");
    running.finish().succeeds(bytes);
}

#[test]
fn an_envelope_printed_by_recv_can_be_sent_again() {
    let sandbox = Sandbox::new();
    let first = receiver(&sandbox, &["-e", "--creds", "-n", "3", "-p", "raw"]);
    let sender = UnixDatagram::unbound().unwrap();
    for bytes in [&b"\0\xff"[..], b"", b"a\n"] {
        sender.send_to(bytes, sandbox.path("s")).unwrap();
    }
    let outcome = first.finish();
    let lines = outcome.stdout().to_vec();
    outcome.succeeds(&lines);
    let second = receiver(&sandbox, &["-p", "hex", "-n", "3"]);
    sandbox
        .udgram(["send", "-e", "-p", "raw", "s"])
        .stdin(lines)
        .run()
        .succeeds("");
    second.finish().succeeds("00ff\n\n610a\n");
}

#[test]
fn a_reader_that_has_gone_ends_the_wait_quietly_and_the_socket_file_is_removed() {
    let sandbox = Sandbox::new();
    let (reader, writer) = crate::harness::pipe();
    let running = sandbox.udgram(["recv", "s"]).stdout_to(writer).start();
    running.wait_bound("s");
    close(reader);
    running.finish().dies_of(Signal::SIGPIPE, "").says_nothing();
    assert!(!sandbox.exists("s"));
}

#[test]
fn a_shell_sees_status_141_when_the_reader_has_gone() {
    let sandbox = Sandbox::new();
    let (reader, writer) = crate::harness::pipe();
    let running = sandbox
        .shell("udgram recv s; echo $? >&2")
        .stdout_to(writer)
        .start();
    running.wait_bound("s");
    close(reader);
    let outcome = running.finish();
    // The shell may print a message about the signal before that.
    assert!(
        outcome.stderr_text().ends_with("141\n"),
        "{}",
        outcome.stderr_text()
    );
}

#[test]
fn a_full_device_as_standard_output_is_an_error() {
    let sandbox = Sandbox::new();
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let running = sandbox.udgram(["recv", "s"]).stdout_to(full).start();
    running.wait_bound("s");
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    running
        .finish()
        .refuses(1, &["stdout", "No space left on device"]);
    assert!(!sandbox.exists("s"));
}

#[test]
fn a_closed_stdin_of_recv_and_closed_stdin_and_stdout_of_send_are_accepted() {
    let sandbox = Sandbox::new();
    let running = sandbox.shell("exec udgram recv s <&-").start();
    running.wait_bound("s");
    sandbox
        .shell("exec udgram send s 1 <&- >&-")
        .run()
        .succeeds("");
    running.finish().succeeds("1\n");
}

#[test]
fn a_closed_stdout_is_reported_before_anything_is_bound() {
    let sandbox = Sandbox::new();
    for command in ["recv", "listen", "iter"] {
        sandbox
            .shell(&format!("exec udgram {command} -t9 s >&-"))
            .run()
            .refuses(1, &["stdout", "closed"]);
        assert!(!sandbox.exists("s"));
    }
}

#[test]
fn packets_queued_after_the_last_one_received_are_reported_as_lost() {
    let sandbox = Sandbox::new();
    let running = sandbox.udgram(["recv", "s"]).start();
    running.wait_bound("s");
    // It is stopped until all three packets are queued.
    running.stop();
    let sender = UnixDatagram::unbound().unwrap();
    for packet in [b"1", b"2", b"3"] {
        sender.send_to(packet, sandbox.path("s")).unwrap();
    }
    running.resume();
    running.finish().ends(0, "1\n").says(
        "udgram: warning: 2 more packets were queued and are lost (hint: --count, or listen)",
    );
}

#[test]
fn a_single_packet_queued_after_the_last_one_received_is_reported_as_lost() {
    let sandbox = Sandbox::new();
    let running = sandbox.udgram(["recv", "s"]).start();
    running.wait_bound("s");
    running.stop();
    let sender = UnixDatagram::unbound().unwrap();
    for packet in [b"1", b"2"] {
        sender.send_to(packet, sandbox.path("s")).unwrap();
    }
    running.resume();
    running
        .finish()
        .ends(0, "1\n")
        .says("udgram: warning: 1 more packet was queued and is lost (hint: --count, or listen)");
}

#[test]
fn packets_queued_after_the_one_of_the_command_are_reported_as_lost() {
    let sandbox = Sandbox::new();
    let running = sandbox
        .udgram(["recv", "s", "--", "sh", "-c", "echo \"$UDGRAM_PACKET\""])
        .start();
    running.wait_bound("s");
    running.stop();
    let sender = UnixDatagram::unbound().unwrap();
    for packet in [b"1", b"2", b"3"] {
        sender.send_to(packet, sandbox.path("s")).unwrap();
    }
    running.resume();
    running.finish().ends(0, "1\n").says(
        "udgram: warning: 2 more packets were queued and are lost (hint: --count, or listen)",
    );
}

#[test]
fn a_datagram_that_is_not_a_valid_packet_is_printed_in_its_envelope_instead_of_running_the_command()
{
    let sandbox = Sandbox::new();
    let running = sandbox
        .udgram(["recv", "-e", "s", "--", "echo", "ran"])
        .start();
    running.wait_bound("s");
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"nojson", sandbox.path("s")).unwrap();
    let outcome = running.finish();
    assert_eq!(outcome.code(), Some(3));
    let line = String::from_utf8_lossy(outcome.stdout()).into_owned();
    assert!(line.contains("\"raw\":\"bm9qc29u\""), "{line}");
    assert!(!line.contains("ran"), "{line}");
}

#[test]
fn a_packet_too_long_for_the_environment_is_not_blamed_on_the_command() {
    let sandbox = Sandbox::new();
    let running = sandbox
        .udgram(["recv", "-p", "text", "s", "--", "true"])
        .start();
    running.wait_bound("s");
    let sender = UnixDatagram::unbound().unwrap();
    sender
        .send_to(&vec![b'x'; 150_000], sandbox.path("s"))
        .unwrap();
    running
        .finish()
        .refuses(1, &["UDGRAM_PACKET", "150000 bytes"]);
}

#[test]
fn the_longest_packet_that_fits_in_the_environment_is_handed_over() {
    let sandbox = Sandbox::new();
    // execve(2) limits a variable with its name and NUL to 128 KiB.
    let longest = (128 << 10) - "UDGRAM_PACKET=".len() - 1;
    for (length, code) in [(longest, 0), (longest + 1, 1)] {
        let script = format!("[ ${{#UDGRAM_PACKET}} = {longest} ]");
        let running = sandbox
            .udgram(["recv", "-p", "text", "s", "--", "sh", "-c", &script])
            .start();
        running.wait_bound("s");
        let sender = UnixDatagram::unbound().unwrap();
        sender
            .send_to(&vec![b'x'; length], sandbox.path("s"))
            .unwrap();
        assert_eq!(running.finish().code(), Some(code));
    }
}

#[test]
fn control_characters_are_escaped_on_a_terminal() {
    crate::harness::peer!("script");
    let sandbox = Sandbox::new();
    let running = sandbox
        .command(
            "script",
            ["-qefc", "udgram recv -p text -n 2 s", "/dev/null"],
        )
        .start();
    running.wait_bound("s");
    let sender = UnixDatagram::unbound().unwrap();
    sender
        .send_to(b"red \x1b[31m bell \x07", sandbox.path("s"))
        .unwrap();
    sender.send_to(b"plain", sandbox.path("s")).unwrap();
    let outcome = running.finish();
    let printed = String::from_utf8(outcome.stdout().to_vec()).unwrap();
    assert_eq!(outcome.code(), Some(0));
    assert_eq!(printed, "red \\x1b[31m bell \\x07\r\nplain\r\n");
}

#[test]
fn datagrams_from_many_senders_have_their_senders() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["-e", "-n", "3"]);
    for name in ["one", "two", "three"] {
        sandbox
            .udgram(["send", "--bind", name, "s", "1"])
            .run()
            .succeeds("");
    }
    let lines = running.finish().lines();
    for (line, name) in lines.iter().zip(["one", "two", "three"]) {
        let from = sandbox.path(name).display().to_string();
        assert_eq!(
            timeless(line),
            format!("{{\"from\":\"{from}\",\"size\":1,\"packet\":1}}")
        );
    }
    assert_eq!(lines.len(), 3);
}

#[test]
fn a_line_goes_to_a_socket_as_one_message() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let ours = limited(ours);
    let running = sandbox
        .udgram(["recv", "-p", "text", "s"])
        .stdout_to(OwnedFd::from(theirs))
        .start();
    running.wait_bound("s");
    sandbox
        .udgram(["send", "-p", "text", "s", "some text"])
        .run()
        .succeeds("");
    running.finish().succeeds("");
    assert_eq!(ours.take(), b"some text\n");
    ours.has_nothing_more();
}

#[test]
fn packets_that_arrive_together_are_written_together() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let ours = limited(ours);
    let running = sandbox
        .udgram(["recv", "-n", "4", "s"])
        .stdout_to(OwnedFd::from(theirs))
        .start();
    running.wait_bound("s").wait_asleep();
    running.stop();
    sandbox
        .udgram(["send", "s", "1", "2", "3"])
        .run()
        .succeeds("");
    running.resume();
    assert_eq!(ours.take(), b"1\n2\n3\n");
    sandbox.udgram(["send", "s", "4"]).run().succeeds("");
    assert_eq!(ours.take(), b"4\n");
    running.finish().succeeds("");
}
