//! `--null`: packets end with a NUL instead of a line break.

use crate::harness::{Peer, Sandbox};

#[test]
fn packets_that_end_with_a_nul_keep_their_line_breaks() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    for option in ["-0", "--null"] {
        sandbox
            .udgram(["send", option, "-p", "text", "s"])
            .stdin("a\nb\n\0\0c")
            .run()
            .succeeds("");
        for expected in [&b"a\nb\n"[..], b"", b"c"] {
            assert_eq!(peer.take(), expected);
        }
    }
    peer.has_nothing_more();
}

#[test]
fn json_may_be_written_over_several_lines() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let packets = "{\n  \"a\": 1\n}\n\0[\n1,\n2\n]\0\n";
    sandbox
        .udgram(["send", "-0", "s"])
        .stdin(packets)
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"{  \"a\": 1}");
    assert_eq!(peer.take(), b"[1,2]");
    let envelope = "{\"to\": \"s\",\n\"packet\":\n 3}";
    sandbox
        .udgram(["send", "-e0", "s"])
        .stdin(envelope)
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"3");
    peer.has_nothing_more();
}

#[test]
fn a_packet_that_is_not_valid_is_named_by_its_number() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    sandbox
        .udgram(["send", "-0", "s"])
        .stdin("1\0{\n\0")
        .run()
        .refuses(
            3,
            &["packet 2 ends inside a JSON value (column 3); 1 packet was sent"],
        );
    assert_eq!(peer.take(), b"1");
}

#[test]
fn received_packets_end_with_a_nul() {
    let sandbox = Sandbox::new();
    let sender = sandbox.bind("c");
    for (options, packet, printed) in [
        (&[][..], &b"[1,\n2]"[..], &b"[1,2]\0"[..]),
        (&["-p", "text"], b"a\nb\n", b"a\nb\n\0"),
        (&["-p", "text"], b"", b"\0"),
        (&["-p", "hex"], b"\0", b"00\0"),
        (
            &["-p", "raw", "-e"],
            b"\n",
            b"{\"from\":\"c\",\"size\":1,\"packet\":\"Cg==\"}\0",
        ),
    ] {
        for command in ["recv", "listen", "iter"] {
            let running = sandbox
                .udgram([command, "-0", "-n", "1", "-t", "30", "s"])
                .args(options)
                .start();
            running.wait_bound("s");
            sender.send_to(packet, sandbox.path("s")).unwrap();
            let outcome = running.finish();
            let stdout = String::from_utf8_lossy(outcome.stdout()).into_owned();
            let printed = String::from_utf8_lossy(printed);
            let stdout = match stdout.split_once("\"from\":") {
                Some((time, rest)) => {
                    assert!(time.starts_with("{\"time\":\""), "{stdout}");
                    let rest = rest.replace(sandbox.dir().to_str().unwrap(), "");
                    format!("{{\"from\":{}", rest.replace("\"/c\"", "\"c\""))
                }
                None => stdout,
            };
            assert_eq!(stdout, printed, "{command} {options:?}");
        }
    }
}

#[test]
fn replies_and_peeked_packets_end_with_a_nul() {
    let sandbox = Sandbox::new();
    let _server = sandbox.listen(["--echo", "-p", "text", "s"]);
    sandbox
        .udgram(["send", "-0", "-r", "-p", "text", "s"])
        .stdin("a\nb\0c")
        .run()
        .succeeds("a\nb\0c\0");
    sandbox
        .udgram(["send", "-0", "-r", "s", "1"])
        .run()
        .succeeds("1\0");
    let peer = sandbox.bind("p");
    peer.send_to(b"7", sandbox.path("p")).unwrap();
    sandbox
        .udgram(["iter", "-0", "--peek", "p"])
        .run()
        .succeeds("7\0");
}

#[test]
fn behind_two_dashes_minus_zero_is_a_packet() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    sandbox.udgram(["send", "--", "s", "-0"]).run().succeeds("");
    sandbox.udgram(["send", "s", "-1"]).run().succeeds("");
    assert_eq!(peer.take(), b"-0");
    assert_eq!(peer.take(), b"-1");
}
