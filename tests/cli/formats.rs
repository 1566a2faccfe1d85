//! The protocols `fields` and `syslog`, and the programs that speak them.

use crate::harness::{Sandbox, peer, timeless};

/// Starts a receiver bound to `s`.
macro_rules! receiver {
    ($sandbox:expr, $($arg:expr),*) => {{
        let running = $sandbox.udgram(["recv", $($arg,)* "s"]).start();
        running.wait_bound("s");
        running
    }};
}

#[test]
fn fields_go_both_ways() {
    for (packet, datagram, line) in [
        (
            r#"{"READY":"1","STATUS":"up"}"#,
            &b"READY=1\nSTATUS=up\n"[..],
            None,
        ),
        (r#" { "A" : "" } "#, b"A=\n", Some(r#"{"A":""}"#)),
        (
            r#"{"A":["1","2"],"B":"3","A":"4"}"#,
            b"A=1\nA=2\nB=3\nA=4\n",
            Some(r#"{"A":["1","2","4"],"B":"3"}"#),
        ),
        (
            r#"{"A":"two\nlines"}"#,
            b"A\n\x09\0\0\0\0\0\0\0two\nlines\n",
            None,
        ),
        (
            r#"{"A":[255,61,0]}"#,
            b"A\n\x03\0\0\0\0\0\0\0\xff=\0\n",
            None,
        ),
        (r#"{"A":[65,66]}"#, b"A=AB\n", Some(r#"{"A":"AB"}"#)),
        (
            r#"{"A":["1",[254]]}"#,
            b"A=1\nA\n\x01\0\0\0\0\0\0\0\xfe\n",
            None,
        ),
    ] {
        let sandbox = Sandbox::new();
        let receiver = sandbox.bind("s");
        sandbox
            .udgram(["send", "-p", "fields", "s", packet])
            .run()
            .succeeds("");
        let mut bytes = [0; 100];
        let len = receiver.recv(&mut bytes).unwrap();
        assert_eq!(
            bytes[..len].escape_ascii().to_string(),
            datagram.escape_ascii().to_string()
        );
        drop(receiver);
        let running = receiver!(sandbox, "-p", "fields");
        sandbox
            .bind("me")
            .send_to(datagram, sandbox.path("s"))
            .unwrap();
        running
            .finish()
            .succeeds(format!("{}\n", line.unwrap_or(packet)));
    }
}

#[test]
fn an_object_that_is_no_list_of_fields_is_refused_with_its_column() {
    let sandbox = Sandbox::new();
    let _receiver = sandbox.bind("s");
    for (packet, message) in [
        (
            r#"{"READY":1}"#,
            "column 10: expected a string, an array of bytes, or an array of several values",
        ),
        (
            r#"{"":"1"}"#,
            "column 2: expected a name, which is not empty",
        ),
        (
            r#"{"A=B":"1"}"#,
            "column 2: expected a name without '=' and line breaks",
        ),
        (
            r#"{"A":[1,300]}"#,
            "column 9: expected a byte, from 0 to 255",
        ),
        (r#"["A"]"#, "column 1: expected an object of fields"),
        ("{}", "column 1: expected at least one field"),
    ] {
        sandbox
            .udgram(["send", "-p", "fields", "s", packet])
            .run()
            .fails(
                3,
                format!("udgram: argument 1, {message}; nothing was sent"),
            );
    }
}

#[test]
fn an_envelope_has_the_object_of_fields_and_can_be_sent_again() {
    let sandbox = Sandbox::new();
    let running = receiver!(sandbox, "-e", "-p", "fields");
    let packet = r#"{"STATUS":"up","X":["a\nb",[255]]}"#;
    sandbox
        .udgram(["send", "-e", "-p", "fields", "--bind", "", "s"])
        .arg(format!("{{\"packet\":{packet}}}"))
        .run()
        .succeeds("");
    assert_eq!(
        timeless(&running.finish().one_line()),
        format!(r#"{{"from":null,"size":36,"packet":{packet}}}"#)
    );
}

#[test]
fn systemd_notify_is_received_as_fields() {
    peer!("systemd-notify");
    let sandbox = Sandbox::new();
    let running = receiver!(sandbox, "-p", "fields");
    sandbox
        .command(
            "systemd-notify",
            ["--no-block", "--ready", "--status=half way"],
        )
        .env("NOTIFY_SOCKET", sandbox.path("s"))
        .run()
        .succeeds("");
    running
        .finish()
        .succeeds("{\"READY\":\"1\",\"STATUS\":\"half way\"}\n");
}
