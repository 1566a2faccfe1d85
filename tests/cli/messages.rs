//! The exact messages about packets: the fault, its place, a hint.

use std::os::unix::net::UnixDatagram;

use crate::harness::{Peer, Sandbox, limited};

/// Runs `send` with these arguments, in a directory with a socket `app.sock` that gets nothing.
#[track_caller]
fn refused(arguments: &[&str], status: i32, message: &str) {
    let sandbox = Sandbox::new();
    let app = sandbox.bind("app.sock");
    sandbox
        .udgram(["send"])
        .args(arguments)
        .run()
        .fails(status, message);
    app.has_nothing_more();
}

#[test]
fn an_argument_that_is_not_json_says_json_and_the_fix() {
    let sent = "nothing was sent";
    for (packet, message) in [
        (
            "hello",
            format!("argument 1 is not JSON (column 1); {sent} (hint: for plain text use -p text)"),
        ),
        (
            r#"{"a":1} {"b":2}"#,
            format!(
                "argument 1 has a second JSON value (column 9): one packet for each argument or \
                 line; {sent}"
            ),
        ),
        (
            "1 file",
            format!(
                "argument 1 is not JSON (column 3: trailing characters); {sent} (hint: for plain \
                 text use -p text)"
            ),
        ),
        (
            "{'a':1}",
            format!(
                "argument 1 is not JSON (column 2); {sent} (hint: strings stand in double quotes)"
            ),
        ),
        (
            "{a:1}",
            format!(
                "argument 1 is not JSON (column 2: key must be a string); {sent} (hint: a shell \
                 removes double quotes: single quotes around it keep them)"
            ),
        ),
        (
            "{\"a\":\n",
            format!("argument 1 ends inside a JSON value (column 7); {sent}"),
        ),
        (
            "",
            format!(
                "argument 1 is empty, which is not JSON; {sent} (hint: -p text sends an empty \
                 datagram)"
            ),
        ),
        (
            "\u{feff}{}",
            format!(
                "argument 1 begins with a byte order mark, which JSON does not allow (column 1); \
                 {sent}"
            ),
        ),
    ] {
        refused(&["app.sock", packet], 3, &format!("udgram: {message}"));
    }
}

#[test]
fn an_argument_that_is_not_an_envelope_reports_the_form_of_one() {
    for packet in ["hello", "[1]", "7", ""] {
        refused(
            &["-e", "app.sock", packet],
            3,
            "udgram: argument 1 is not an envelope, a JSON object such as {\"packet\":…} (column 1); \
             nothing was sent",
        );
    }
    for (packet, message) in [
        (
            r#"{"packet":1,}"#,
            "argument 1 is not an envelope, a JSON object such as {\"packet\":…} (column 13: key \
             must be a string); nothing was sent",
        ),
        (
            r#"{"packet":1"#,
            "argument 1 ends inside a JSON value (column 12); nothing was sent",
        ),
        (
            r#"{"packet":1} {"packet":2}"#,
            "argument 1 has a second JSON value (column 14): one packet for each argument or line; \
             nothing was sent",
        ),
        (
            r#"{"packet":1,"to":"@"}"#,
            "argument 1, column 18: the abstract name is empty; nothing was sent",
        ),
    ] {
        refused(
            &["-e", "app.sock", packet],
            3,
            &format!("udgram: {message}"),
        );
    }
}

#[test]
fn a_protocol_that_takes_json_says_so() {
    for protocol in ["cbor", "msgpack"] {
        refused(
            &["-p", protocol, "app.sock", "hello"],
            3,
            &format!(
                "udgram: argument 1 is not JSON (column 1); nothing was sent (hint: -p {protocol} \
                 takes JSON)"
            ),
        );
    }
}

#[test]
fn a_line_that_is_not_json_says_its_number_and_the_fix() {
    let sandbox = Sandbox::new();
    let app = sandbox.bind("app.sock");
    for (lines, message) in [
        (
            &b"1\nhello\n"[..],
            "line 2 is not JSON (column 1); 1 packet was sent (hint: for plain text use -p text)",
        ),
        (
            b"1\n2\n{\n \"a\": 1\n}\n",
            "line 3 ends inside a JSON value: one packet for each line; 2 packets were sent (hint: \
             jq -c . makes one line of each value)",
        ),
        (
            b"\xef\xbb\xbf{\"a\":1}\n",
            "line 1 begins with a byte order mark, which JSON does not allow (column 1); nothing \
             was sent (hint: sed '1s/^\\xef\\xbb\\xbf//' removes it)",
        ),
        (
            b"{\"a\":1}\0\n",
            "line 1 has a NUL after its JSON (column 8); nothing was sent (hint: tr -d '\\0' \
             removes it)",
        ),
        (
            b"\"\xff\"\n",
            "line 1 is not UTF-8 (column 2); nothing was sent (hint: -p raw, hex and base64 take \
             any bytes)",
        ),
    ] {
        sandbox
            .udgram(["send", "app.sock"])
            .stdin(lines)
            .run()
            .fails(3, format!("udgram: {message}"));
    }
    for _ in 0..3 {
        let _ = app.take();
    }
    app.has_nothing_more();
}

#[test]
fn pretty_printed_input_names_its_file_in_the_hint() {
    let sandbox = Sandbox::new();
    let _app = sandbox.bind("app.sock");
    for (name, written) in [("pretty.json", "pretty.json"), ("two words", "'two words'")] {
        let file = sandbox.file(name, "{\n  \"a\": 1\n}\n");
        sandbox
            .udgram(["send", "app.sock"])
            .stdin_from(std::fs::File::open(file).unwrap())
            .run()
            .fails(
                3,
                format!(
                    "udgram: line 1 ends inside a JSON value: one packet for each line; nothing was \
                     sent (hint: jq -c . {written})"
                ),
            );
    }
}

#[test]
fn a_line_of_more_than_64_mib_has_its_number_and_how_many_were_sent() {
    let sandbox = Sandbox::new();
    let app = sandbox.bind("app.sock");
    let mut lines = b"one\ntwo\n".to_vec();
    lines.resize(lines.len() + (65 << 20), b'x');
    for command in ["send", "talk"] {
        sandbox
            .udgram([command, "-p", "text", "app.sock"])
            .stdin(&lines)
            .run()
            .fails(
                3,
                "udgram: line 3 has more than 64 MiB, which no datagram carries; 2 packets were sent",
            );
        assert_eq!((app.take(), app.take()), (b"one".to_vec(), b"two".to_vec()));
    }
    sandbox
        .udgram(["send", "-p", "raw", "app.sock"])
        .stdin(&lines)
        .run()
        .fails(
            3,
            "udgram: stdin has more than 64 MiB, which no datagram carries; nothing was sent",
        );
}

#[test]
fn a_received_datagram_that_is_not_valid_reports_the_fault_and_a_way_to_see_it() {
    for (protocol, datagram, message) in [
        (
            "json",
            &b"hello"[..],
            "is not JSON (byte 0) (hint: -p text, or -e to see it)",
        ),
        (
            "json",
            b"[1,]",
            "is not JSON (byte 3: expected value) (hint: -p text, or -e to see it)",
        ),
        (
            "json",
            b"",
            "is empty, not JSON (hint: -p text, or -e to see it)",
        ),
        (
            "json",
            b"{\"a\":1}\n{\"b\":2}",
            "has a second JSON value (byte 8) (hint: -p text, or -e to see it)",
        ),
        (
            "json",
            b"{\"a\":",
            "ends inside a JSON value (byte 5) (hint: -p text, or -e to see it)",
        ),
        (
            "json",
            b"{\"a\":1}\0",
            "has a NUL after its JSON (byte 7) (hint: the sender may count the NUL that ends a C \
             string: -p text takes it, or -e to see it)",
        ),
        (
            "json",
            b"\xef\xbb\xbf1",
            "begins with a byte order mark, which JSON does not allow (byte 0) (hint: -p text, or \
             -e to see it)",
        ),
        (
            "json",
            b"\"\xff\"",
            "is not UTF-8 (byte 1) (hint: -p hex takes any bytes, or -e to see it)",
        ),
        (
            "text",
            b"\xff",
            "is not UTF-8 (byte 0) (hint: -p hex takes any bytes, or -e to see it)",
        ),
        (
            "cbor",
            b"\x61",
            "is not CBOR (byte 1: expected more bytes) (hint: -p hex takes any bytes, or -e to see \
             it)",
        ),
        (
            "msgpack",
            b"\xc1",
            "is not MessagePack (byte 0: expected a MessagePack value) (hint: -p hex takes any \
             bytes, or -e to see it)",
        ),
        (
            "syslog",
            b"hello",
            "is not a syslog message (byte 0: expected a priority from <0> to <191>) (hint: -p hex \
             takes any bytes, or -e to see it)",
        ),
        (
            "fields",
            b"READY=1\nhello\n",
            "is not NAME=value lines (byte 13: expected '=', or a line break and a binary value) \
             (hint: -p hex takes any bytes, or -e to see it)",
        ),
    ] {
        let sandbox = Sandbox::new();
        let running = sandbox.udgram(["recv", "-p", protocol, "s"]).start();
        running.wait_bound("s");
        let sender = sandbox.bind("me");
        sender.send_to(datagram, sandbox.path("s")).unwrap();
        let from = sandbox.path("me");
        running.finish().fails(
            3,
            format!("udgram: packet from '{}' {message}", from.display()),
        );
    }
}

#[test]
fn an_envelope_has_the_words_of_the_message() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let (ours, theirs) = (limited(ours), limited(theirs));
    ours.send(b"hello").unwrap();
    let outcome = sandbox
        .udgram(["recv", "-e", "-s", "5"])
        .descriptor(&theirs, 5)
        .run();
    let envelope: serde_json::Value = serde_json::from_slice(outcome.stdout()).unwrap();
    assert_eq!(
        envelope["error"],
        serde_json::json!({"kind": "parse", "message": "the packet is not JSON (byte 0)"})
    );
    assert_eq!(outcome.code(), Some(3));
    outcome.says("udgram: packet from an unnamed socket is not JSON (byte 0) (hint: -p text)");
}

#[test]
fn credentials_of_a_process_that_has_exited_are_named() {
    crate::harness::root!();
    let sandbox = Sandbox::new();
    let _app = sandbox.bind("app.sock");
    sandbox
        .udgram(["send", "--creds=99999999:0:0", "app.sock", "1"])
        .run()
        .fails(
            1,
            "udgram: cannot send to 'app.sock': process 99999999 has exited, so its credentials \
             cannot be claimed",
        );
}

#[test]
fn a_packet_without_the_requested_descriptors_is_an_error() {
    for (fds, carried, asked) in [
        (&["--fd", "4"][..], "no descriptor", 1),
        (&["--fd", "4", "--fd", "5"], "no descriptor", 2),
    ] {
        let sandbox = Sandbox::new();
        let running = sandbox
            .udgram(["recv"])
            .args(fds)
            .args(["s", "--", "true"])
            .start();
        running.wait_bound("s");
        sandbox.udgram(["send", "s", "1"]).run().succeeds("");
        running.finish().fails(
            1,
            format!("udgram: the packet carried {carried}, but --fd asks for {asked}"),
        );
    }
}

#[test]
fn no_reply_names_what_may_keep_the_peer_from_answering() {
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("s");
    let me = sandbox.path("me");
    let me = crate::harness::text(&me);
    sandbox
        .udgram(["send", "-r", "-t", "50ms", "-b", me, "s", "1"])
        .run()
        .fails(
            124,
            format!(
                "udgram: cannot get a reply from 's': no reply came within 50ms (hint: it may \
                 answer from another address, --to; or it may not write to '{me}', --mode 0666)"
            ),
        );
    sandbox
        .udgram(["send", "-r", "-t", "50ms", "s", "1"])
        .run()
        .refuses(
            124,
            &[
                "(hint: it may answer from another address, --to; or it may not write to '@",
                "', --bind PATH --mode 0666; or it runs in another network namespace, which \
                 abstract names do not reach)",
            ],
        );
}
