//! `udgram send`: one packet, one datagram.

use std::fs::File;
use std::time::{Duration, Instant};

use crate::harness::{Peer, Sandbox, root, text};
use crate::sys;

/// Returns the datagrams that a peer gets from `send` with these arguments and this standard input.
#[track_caller]
fn datagrams(args: &[&str], stdin: impl AsRef<[u8]>) -> Vec<Vec<u8>> {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    sandbox
        .udgram(["send"])
        .args(args)
        .stdin(stdin)
        .run()
        .succeeds("");
    peer.set_nonblocking(true).unwrap();
    let mut got = Vec::new();
    let mut buffer = vec![0; 65536];
    while let Ok(size) = peer.recv(&mut buffer) {
        got.push(buffer[..size].to_vec());
    }
    got
}

#[test]
fn each_argument_is_one_datagram() {
    assert_eq!(
        datagrams(&["s", "{\"op\":\"ping\"}", "2", "[ ]"], ""),
        [&b"{\"op\":\"ping\"}"[..], b"2", b"[ ]"]
    );
}

#[test]
fn each_line_of_standard_input_is_one_datagram_without_its_line_break() {
    assert_eq!(
        datagrams(&["s"], "1\n\"two\"\n[3]"),
        [&b"1"[..], b"\"two\"", b"[3]"]
    );
}

#[test]
fn arguments_keep_standard_input_from_being_read() {
    assert_eq!(datagrams(&["s", "1"], "2\n"), [b"1"]);
}

#[test]
fn empty_standard_input_sends_no_packet() {
    for protocol in ["json", "text", "raw", "hex", "base64"] {
        assert!(
            datagrams(&["-p", protocol, "s"], "").is_empty(),
            "{protocol}"
        );
    }
}

#[test]
fn blank_lines_of_json_are_skipped() {
    assert_eq!(datagrams(&["s"], "\n1\n\n  \t\r\n2\n\n"), [b"1", b"2"]);
}

#[test]
fn an_empty_line_of_text_hex_and_base64_is_an_empty_datagram() {
    for protocol in ["text", "hex", "base64"] {
        assert_eq!(
            datagrams(&["-p", protocol, "s"], "\n6162\n\n").len(),
            3,
            "{protocol}"
        );
    }
}

#[test]
fn an_empty_argument_is_an_empty_datagram() {
    for protocol in ["text", "raw", "hex", "base64"] {
        assert_eq!(
            datagrams(&["-p", protocol, "s", ""], ""),
            [b""],
            "{protocol}"
        );
    }
}

#[test]
fn json_is_sent_unchanged() {
    for json in [
        "12345678901234567890.10",
        "1E400",
        "-0",
        r#"{"b":1,"a":2,"b":3}"#,
        r#""\u00e9\/\n\ud83d\ude00""#,
        r#""\ud800""#,
        "\"\u{7f}\u{2028}\u{1f600}\"",
        "[ 1 ,\t2 ]",
        "null",
        "{}",
    ] {
        // Without the dashes, -0 is the option.
        let sent = datagrams(&["--", "s", json], "");
        assert_eq!(sent, [json.as_bytes()], "{json}");
    }
}

#[test]
fn json_of_any_depth_is_sent() {
    let json = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    assert_eq!(datagrams(&["s"], &json), [json.into_bytes()]);
}

#[test]
fn a_line_of_text_keeps_all_but_its_line_feed() {
    assert_eq!(
        datagrams(&["-p", "text", "s"], " one \ntwo\r\nthree"),
        [&b" one "[..], b"two\r", b"three"]
    );
}

#[test]
fn an_argument_of_text_is_sent_unchanged() {
    assert_eq!(datagrams(&["-p", "text", "s", "a\nb\n"], ""), [b"a\nb\n"]);
}

#[test]
fn raw_standard_input_is_one_datagram() {
    assert_eq!(
        datagrams(&["-p", "raw", "s"], b"\0\xff\n\nend\n"),
        [b"\0\xff\n\nend\n"]
    );
}

#[test]
fn hexadecimal_digits_may_be_of_either_case_and_spaced() {
    assert_eq!(
        datagrams(&["-p", "hex", "s"], "00ff\nDE ad\tBE  ef \n"),
        [&b"\0\xff"[..], b"\xde\xad\xbe\xef"]
    );
}

#[test]
fn base64_is_decoded() {
    assert_eq!(
        datagrams(&["-p", "base64", "s"], "AP8=\nAAAA\n"),
        [&b"\0\xff"[..], b"\0\0\0"]
    );
}

#[test]
fn an_invalid_argument_is_refused_and_nothing_is_sent() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    for (protocol, packet) in [
        ("json", "NaN"),
        ("json", "Infinity"),
        ("json", "01"),
        ("json", "1 2"),
        ("json", "{\"a\":1}}"),
        ("json", "\u{feff}1"),
        ("json", "'a'"),
        ("json", "{a:1}"),
        ("json", "[1,]"),
        ("json", "\"tab\there\""),
        ("json", "\"\\x\""),
        ("json", "truex"),
        ("json", "\"open"),
        ("json", ""),
        ("hex", "0"),
        ("hex", "zz"),
        ("hex", "0x00"),
        ("base64", "A"),
        ("base64", "AP8"),
        ("base64", "A-8="),
        ("base64", "AP9="),
    ] {
        sandbox
            .udgram(["send", "-p", protocol, "s", packet])
            .run()
            .refuses(3, &[]);
    }
    peer.has_nothing_more();
}

#[test]
fn bytes_that_are_not_utf8_are_neither_json_nor_text() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    for (protocol, line) in [
        ("json", &b"\"\xff\"\n"[..]),
        ("text", b"a\xffb\n"),
        ("json", b"\"\xed\xa0\x80\""),
    ] {
        sandbox
            .udgram(["send", "-p", protocol, "s"])
            .stdin(line)
            .run()
            .refuses(3, &["line 1 is not UTF-8 (column 2); nothing was sent"]);
    }
    peer.has_nothing_more();
}

#[test]
fn an_invalid_line_is_reported_with_its_column_and_the_count_sent() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    sandbox
        .udgram(["send", "s"])
        .stdin("1\n\n2\n[1, x]\n3\n")
        .run()
        .refuses(3, &["line 4", "column 5", "2 packets were sent"]);
    assert_eq!([peer.take(), peer.take()], [b"1", b"2"]);
    peer.has_nothing_more();
}

#[test]
fn an_invalid_line_after_a_hundred_thousand_valid_ones_is_reported() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 8];
        (0..100_000).all(|_| {
            peer.wait_queued();
            peer.recv(&mut buffer)
                .is_ok_and(|size| &buffer[..size] == b"1")
        })
    });
    let mut lines = "1\n".repeat(100_000);
    lines.push_str("nul\n");
    sandbox
        .udgram(["send", "s"])
        .stdin(lines)
        .run()
        .refuses(3, &["line 100001", "column", "100000 packets were sent"]);
    assert!(reader.join().unwrap());
}

#[test]
fn a_line_longer_than_what_is_read_at_a_time_is_whole() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let line = "x".repeat(1_000_000);
    let file = sandbox.file("lines", format!("1\n{line}\n2"));
    for command in ["send", "talk"] {
        let running = sandbox
            .udgram([command, "-p", "text", "s"])
            .stdin_from(File::open(&file).unwrap())
            .start();
        assert_eq!(peer.take(), b"1");
        assert_eq!(peer.take(), line.as_bytes());
        assert_eq!(peer.take(), b"2");
        running.finish().succeeds("");
    }
}

#[test]
fn many_lines_take_bounded_memory() {
    let sandbox = Sandbox::new();
    let line = "x".repeat(9_999) + "\n";
    // Nobody is there: they are dropped.
    let mut running = sandbox
        .udgram(["send", "--drop", "-p", "text", "s"])
        .stdin_open()
        .start();
    running.write(line.repeat(10));
    running.wait_read().wait_asleep();
    let before = sys::peak_memory(running.pid());
    running.write(line.repeat(3_000));
    running.wait_read().wait_asleep();
    let grown = sys::peak_memory(running.pid()) - before;
    assert!(grown < 8 << 20, "{grown}");
    running
        .finish()
        .ends(0, "")
        .mentions(&["3010 of 3010 packets were dropped"]);
}

#[test]
fn a_stdin_that_is_a_directory_is_reported() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    sandbox
        .udgram(["send", "s"])
        .stdin_from(File::open(sandbox.dir()).unwrap())
        .run()
        .fails(1, "udgram: cannot read stdin: Is a directory");
    peer.has_nothing_more();
}

#[test]
fn a_stdin_that_does_not_block_is_waited_for() {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use std::io::Write as _;
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let (reader, mut writer) = crate::harness::pipe();
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    // It watches nothing else with an unnamed socket, and reads at once.
    let running = sandbox
        .udgram(["send", "s", "--bind", ""])
        .stdin_from(reader)
        .start();
    running.wait_asleep();
    for packet in ["1\n", "2\n"] {
        writer.write_all(packet.as_bytes()).unwrap();
        assert_eq!(peer.take(), packet.trim_end().as_bytes());
    }
    crate::harness::close(writer);
    running.finish().succeeds("");
}

#[test]
fn a_datagram_of_four_mebibytes_is_sent_whole() {
    root!(); // SO_SNDBUFFORCE
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let bytes: Vec<u8> = (0..=255).cycle().take(4 << 20).collect();
    sandbox
        .udgram(["send", "-p", "raw", "s"])
        .stdin(&bytes)
        .run()
        .succeeds("");
    let arrived = peer.take() == bytes;
    assert!(arrived, "another datagram arrived");
}

#[test]
fn a_datagram_as_large_as_an_ordinary_user_may_send_is_sent() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let bytes = vec![b'x'; 200_000];
    sandbox
        .udgram(["send", "-p", "raw", "s"])
        .stdin(&bytes)
        .run()
        .succeeds("");
    let arrived = peer.take() == bytes;
    assert!(arrived, "another datagram arrived");
}

#[test]
fn a_datagram_too_long_for_the_kernel_is_refused_with_its_size() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    sandbox
        .udgram(["send", "-p", "raw", "s"])
        .stdin(vec![b'x'; 16 << 20])
        .run()
        .refuses(
            1,
            &[
                "cannot send to ",
                "'s'",
                "16777216",
                "(hint: pass a file or a memfd with --fd instead)",
            ],
        );
    peer.has_nothing_more();
}

#[test]
fn a_full_queue_is_waited_for() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let lines: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    let running = sandbox
        .udgram(["send", "s"])
        .stdin(lines.join("\n"))
        .start();
    for line in lines {
        assert_eq!(peer.take(), line.as_bytes());
    }
    running.finish().succeeds("");
    peer.has_nothing_more();
}

#[test]
fn a_full_send_buffer_is_not_taken_for_a_full_queue() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let line = format!("{:060000}\n", 1);
    sandbox
        .udgram([
            "send",
            "-p",
            "text",
            "-o",
            "sndbuf=100000",
            "-t",
            "20ms",
            "s",
        ])
        .stdin(line.repeat(9))
        .run()
        .refuses(
            124,
            &[
                "cannot send to 's': the send buffer of this socket is still full after 20ms",
                "SO_SNDBUF limits the memory of that; -o sndbuf=BYTES enlarges it)",
            ],
        );
    // The queue has room for another sender.
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    sandbox
        .udgram(["send", "--drop", "-p", "text", "-o", "sndbuf=100000", "s"])
        .stdin(line.repeat(9))
        .run()
        .mentions(&["found the queue or the send buffer full"]);
    assert_eq!(peer.take().len(), 60_000);
}

#[test]
fn a_full_queue_at_the_end_of_the_timeout_is_reported_and_the_packets_before_it_are_sent() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let room = sandbox.fill("s");
    for _ in 0..2 {
        assert_eq!(peer.take(), b"0");
    }
    let start = Instant::now();
    sandbox
        .udgram(["send", "--timeout", "200ms", "s", "1", "2", "3"])
        .run()
        .refuses(
            124,
            &[
                "argument 3: cannot send to ",
                "'s'",
                "its queue is still full after 200ms",
                "net.unix.max_dgram_qlen",
                "; udgram ls s shows the receiver)",
            ],
        );
    assert!(start.elapsed() >= Duration::from_millis(200));
    for _ in 0..room - 2 {
        assert_eq!(peer.take(), b"0");
    }
    assert_eq!([peer.take(), peer.take()], [b"1", b"2"]);
    peer.has_nothing_more();
}

#[test]
fn a_timeout_of_zero_does_not_wait_for_a_full_queue() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    sandbox
        .udgram(["send", "-t", "0", "s", "1"])
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"1");
    sandbox.fill("s");
    sandbox
        .udgram(["send", "-t", "0", "s", "1"])
        .run()
        .refuses(124, &["its queue is full"]);
}

#[test]
fn without_packets_the_status_is_that_of_connecting_to_the_peer() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    sandbox.stale("stale");
    sandbox.udgram(["send", "s"]).run().succeeds("");
    peer.has_nothing_more();
    sandbox
        .udgram(["send", "missing"])
        .run()
        .refuses(4, &["'missing'", "No such file or directory"]);
    sandbox
        .udgram(["send", "stale"])
        .run()
        .refuses(4, &["'stale'", "Connection refused"]);
    sandbox.file("file", "");
    sandbox
        .udgram(["send", "file"])
        .run()
        .refuses(1, &["'file'"]);
}

#[test]
fn each_packet_is_sent_as_soon_as_its_line_arrives() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut running = sandbox.udgram(["send", "s"]).stdin_open().start();
    for packet in ["1", "2", "3"] {
        running.write(format!("{packet}\n"));
        assert_eq!(peer.take(), packet.as_bytes());
    }
    running.finish().succeeds("");
}

#[test]
fn a_line_may_come_in_pieces() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut running = sandbox.udgram(["send", "s"]).stdin_open().start();
    running.write("1\n[");
    assert_eq!(peer.take(), b"1");
    running.write("2]\n");
    assert_eq!(peer.take(), b"[2]");
    running.finish().succeeds("");
}

#[test]
fn envelopes_carry_the_packet_in_the_form_of_the_protocol() {
    for (protocol, packet, bytes) in [
        (
            "json",
            r#"{"b":1.0,"a":"\u0041"}"#,
            &br#"{"b":1.0,"a":"\u0041"}"#[..],
        ),
        ("text", r#""line\nline""#, b"line\nline"),
        ("text", r#""""#, b""),
        ("raw", r#""AP8=""#, b"\0\xff"),
        ("hex", r#""AP8=""#, b"\0\xff"),
        ("base64", r#""AP8=""#, b"\0\xff"),
    ] {
        let line = format!("{{\"packet\":{packet}}}");
        assert_eq!(
            datagrams(&["--envelope", "-p", protocol, "s"], &line),
            [bytes],
            "{protocol}"
        );
        assert_eq!(
            datagrams(&["-e", "-p", protocol, "s", &line], ""),
            [bytes],
            "{protocol}"
        );
    }
}

#[test]
fn an_envelope_may_carry_raw_bytes_instead_of_a_packet() {
    assert_eq!(
        datagrams(
            &["-e", "s"],
            r#"{"size":3,"error":{"kind":"parse","message":"x"},"raw":"ew=="}"#
        ),
        [b"{"]
    );
}

#[test]
fn fields_an_envelope_does_not_need_are_ignored() {
    assert_eq!(
        datagrams(
            &["-e", "s"],
            r#"{"time":"2026-11-22T08:41:00.123456789Z","from":null,"size":99,"packet":1,"creds":{"pid":1,"uid":2,"gid":3},"x":[{}]}"#
        ),
        [b"1"]
    );
}

#[test]
fn an_envelope_names_its_own_destination() {
    let sandbox = Sandbox::new();
    let default = sandbox.bind("default");
    let other = sandbox.bind("other");
    let lines = format!(
        "{{\"packet\":1}}\n{{\"to\":{},\"packet\":2}}\n{{\"packet\":3}}\n",
        serde_json::to_string(text(&sandbox.path("other"))).unwrap()
    );
    sandbox
        .udgram(["send", "-e", "default"])
        .stdin(lines)
        .run()
        .succeeds("");
    assert_eq!([default.take(), default.take()], [b"1", b"3"]);
    assert_eq!(other.take(), b"2");
}

#[test]
fn a_line_that_is_not_an_envelope_is_refused() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    for line in [
        "1",
        "[]",
        "{}",
        r#"{"packet":1"#,
        r#"{"raw":"%"}"#,
        r#"{"raw":1}"#,
        r#"{"packet":1,"to":2}"#,
        r#"{"packet":1,"fds":2}"#,
        r#"{"packet":1,"fds":["x"]}"#,
    ] {
        sandbox
            .udgram(["send", "-e", "s"])
            .stdin(format!("{{\"packet\":0}}\n{line}\n"))
            .run()
            .refuses(3, &["line 2", "1 packet was sent"]);
        assert_eq!(peer.take(), b"0");
    }
    sandbox
        .udgram(["send", "-e", "-p", "text", "s", "{\"packet\":1}"])
        .run()
        .refuses(3, &["string"]);
    peer.has_nothing_more();
}

#[test]
fn a_reply_to_an_unnamed_socket_is_a_usage_error() {
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("s");
    sandbox
        .udgram(["send", "--reply", "--bind", "", "s", "1"])
        .run()
        .refuses(2, &["--reply"]);
}

#[test]
fn verbose_reports_both_addresses() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let outcome = sandbox
        .udgram(["send", "-v", "--bind", "me", "s", "1"])
        .run();
    assert_eq!(peer.take(), b"1");
    let lines = outcome.diagnostics().join("\n");
    assert!(lines.contains("/me'") && lines.contains("'s'"), "{lines}");
    let _ = outcome.ends(0, "");
}

#[test]
fn credentials_in_an_envelope_are_used_only_with_creds() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    for creds in [
        "\"x\"",
        "null",
        "{\"pid\":\"zz\",\"uid\":0,\"gid\":0}",
        "{\"pid\":0,\"uid\":0,\"gid\":0}",
    ] {
        let envelope = format!("{{\"packet\":1,\"creds\":{creds}}}");
        sandbox
            .udgram(["send", "-e", "s", &envelope])
            .run()
            .succeeds("");
        assert_eq!(peer.take(), b"1");
        if creds != "null" {
            sandbox
                .udgram(["send", "-e", "--creds", "s", &envelope])
                .run()
                .refuses(3, &["pid, uid and gid"]);
        }
    }
}
