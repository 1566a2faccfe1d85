//! The protocols `fields` and `syslog`, and the programs that speak them.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Sandbox, peer, root, timeless};
use crate::running::Running;
use crate::sys::{self, take_message};

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

/// Makes a memfd with these bytes, not sealed.
fn memfd(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn fields_in_a_memfd_are_received_and_its_descriptor_is_described() {
    let sandbox = Sandbox::new();
    let running = receiver!(sandbox, "-p", "fields", "-n", "2");
    let sender = sandbox.bind("me");
    sys::connect(&sender, &sandbox.path("s")).unwrap();
    sys::send_to_peer(&sender, b"", memfd(b"A=1\nB=2\n").as_fd());
    sender.send(b"A=2").unwrap();
    let outcome = running.finish();
    outcome.succeeds("{\"A\":\"1\",\"B\":\"2\"}\n{\"A\":\"2\"}\n");

    let running = receiver!(sandbox, "-e", "-p", "fields");
    sys::connect(&sender, &sandbox.path("s")).unwrap();
    sys::send_to_peer(&sender, b"", memfd(b"A=1\n").as_fd());
    let line = running.finish().one_line();
    let (before, after) = line.split_once(r#""fds":[{"fd":"#).unwrap();
    assert!(
        before.ends_with(r#""size":0,"packet":{"A":"1"},"#),
        "{line}"
    );
    assert!(
        after.contains(r#""type":"memfd","path":"/memfd:test"#),
        "{line}"
    );
}

#[test]
fn a_command_gets_the_contents_of_a_memfd_and_not_its_descriptor() {
    let sandbox = Sandbox::new();
    let sender = sandbox.bind("me");
    let script = "cat >&2; echo \"fds $UDGRAM_FDS\" >&2";
    let server = sandbox.listen(["--exec", script, "-p", "fields", "-n", "2", "s"]);
    sys::connect(&sender, &sandbox.path("s")).unwrap();
    sys::send_to_peer(&sender, b"", memfd(b"A=1\n").as_fd());
    sys::send_to_peer(&sender, b"A=2\n", memfd(b"").as_fd());
    let outcome = server.finish();
    assert_eq!(outcome.stderr_text(), "A=1\nfds 0\nA=2\nfds 1\n");
    assert_eq!(outcome.stdout(), b"{\"A\":\"1\"}\n{\"A\":\"2\"}\n");

    let running = sandbox
        .udgram(["recv", "-p", "fields", "s", "--", "sh", "-c"])
        .arg("echo \"$UDGRAM_PACKET $LISTEN_FDS\"")
        .start();
    running.wait_bound("s");
    sys::connect(&sender, &sandbox.path("s")).unwrap();
    sys::send_to_peer(&sender, b"", memfd(b"A=1\n").as_fd());
    running.finish().succeeds("{\"A\":\"1\"} 0\n");
}

#[test]
fn an_empty_datagram_with_anything_but_a_memfd_is_a_parse_error() {
    let sandbox = Sandbox::new();
    let sender = sandbox.bind("me");
    let (pipe, _writer) = nix::unistd::pipe().unwrap();
    let huge = memfd(b"A=1");
    huge.set_len(1 << 50).unwrap();
    let zero = File::open("/dev/zero").unwrap();
    let file = File::open(sandbox.file("file", "A=1\n")).unwrap();
    for (descriptor, message) in [
        (pipe, "expected a memfd, not a descriptor of the kind pipe"),
        (
            zero.into(),
            "expected a memfd, not a descriptor of the kind char",
        ),
        (
            file.into(),
            "expected a memfd, not a descriptor of the kind file",
        ),
        (
            huge.into(),
            "expected at most 64 MiB, the memfd has 1125899906842624 bytes",
        ),
        (
            memfd(b"hello").into(),
            "expected '=', or a line break and a binary value",
        ),
        (memfd(b"").into(), "expected NAME=value"),
    ] {
        let descriptor: OwnedFd = descriptor;
        let running = receiver!(sandbox, "-q", "-p", "fields");
        sys::connect(&sender, &sandbox.path("s")).unwrap();
        sys::send_to_peer(&sender, b"", descriptor.as_fd());
        let outcome = running.finish();
        assert_eq!(outcome.code(), Some(3));
        assert!(
            outcome.stderr_text().contains(message),
            "{}",
            outcome.stderr_text()
        );
    }
    // The bytes of a memfd that is no packet are in the envelope.
    let running = receiver!(sandbox, "-e", "-p", "fields");
    sys::connect(&sender, &sandbox.path("s")).unwrap();
    sys::send_to_peer(&sender, b"", memfd(b"hello").as_fd());
    let outcome = running.finish();
    let envelope = String::from_utf8_lossy(outcome.stdout()).into_owned();
    assert!(envelope.contains(r#""raw":"aGVsbG8=""#), "{envelope}");
}

#[test]
fn descriptors_beside_fields_are_dropped_with_a_warning() {
    let sandbox = Sandbox::new();
    let sender = sandbox.bind("me");
    let running = receiver!(sandbox, "-p", "fields");
    sys::connect(&sender, &sandbox.path("s")).unwrap();
    sys::send_to_peer(&sender, b"FDSTORE=1", memfd(b"x").as_fd());
    let outcome = running.finish();
    let warning = format!(
        "udgram: warning: dropped descriptors from '{}'; --envelope lists them, a CMD receives them\n",
        sandbox.path("me").display()
    );
    assert_eq!(outcome.stderr_text(), warning);
    assert_eq!(outcome.stdout(), b"{\"FDSTORE\":\"1\"}\n");
}

#[test]
fn fields_that_are_too_long_for_a_datagram_are_sent_in_a_sealed_memfd() {
    let sandbox = Sandbox::new();
    let receiver = sandbox.bind("s");
    // The kernel carries about 4 MiB in a datagram.
    let value = "x".repeat(5 << 20);
    let lines = format!("{{\"A\":\"1\"}}\n{{\"B\":\"{value}\"}}\n{{\"A\":\"2\"}}\n");
    sandbox
        .udgram(["send", "-p", "fields", "s"])
        .stdin(&lines)
        .run()
        .succeeds("");
    assert_eq!(take_message(&receiver).bytes, b"A=1\n");
    let mut message = take_message(&receiver);
    assert_eq!(message.bytes, b"");
    let memfd = message.descriptors.remove(0);
    let seals = fcntl(&memfd, FcntlArg::F_GET_SEALS).unwrap();
    let all = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;
    assert_eq!(seals & all, all);
    let mut file = File::from(memfd);
    file.rewind().unwrap();
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    assert!(content == format!("B={value}\n"));
    assert_eq!(take_message(&receiver).bytes, b"A=2\n");
    drop(receiver);

    // Both ends together, with --fd, beside which nothing says which descriptor is the memfd.
    let running = receiver!(sandbox, "-p", "fields", "-n", "3");
    sandbox
        .udgram(["send", "-p", "fields", "s"])
        .stdin(&lines)
        .run()
        .succeeds("");
    running.finish().succeeds(&lines);
    let _receiver = sandbox.bind("t");
    sandbox
        .udgram(["send", "-p", "fields", "--fd", "0", "t"])
        .stdin(&lines)
        .run()
        .refuses(1, &["line 2", "too long"]);
}

/// Starts systemd-journald with its sockets in `run/systemd/journal` and its journal in `run/log/journal`.
fn journald(sandbox: &Sandbox) -> Running {
    std::fs::create_dir_all(sandbox.path("run/systemd/journal")).unwrap();
    sandbox.file(
        "journald.conf",
        "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nForwardToSyslog=no\nForwardToWall=no\n\
         ReadKMsg=no\n",
    );
    let running = sandbox
        .command("unshare", ["-m", "sh", "-ec"])
        .arg(
            "mount --bind run /run
             mount --bind journald.conf /etc/systemd/journald.conf
             exec /usr/lib/systemd/systemd-journald",
        )
        .start();
    running.wait_bound("run/systemd/journal/socket");
    running
}

/// Starts a journalctl(1) that prints the entries with this field as they are written.
fn journalctl(sandbox: &Sandbox, field: &str) -> Running {
    sandbox
        .command(
            "journalctl",
            ["-f", "-n", "all", "--boot=all", "-o", "json", "--directory"],
        )
        .arg(sandbox.path("run/log/journal"))
        .arg(field)
        .start()
}

/// Returns the next entry as journalctl(1) prints it, only its fields with these names.
fn entry(journalctl: &mut Running, names: &[&str]) -> Value {
    let line: Value = serde_json::from_str(&journalctl.line()).unwrap();
    let Value::Object(mut entry) = line else {
        panic!("{line}")
    };
    entry.retain(|name, _| names.contains(&name.as_str()));
    entry.into()
}

#[test]
fn journald_writes_the_fields_that_are_sent_to_it() {
    root!();
    peer!("unshare", "journalctl", "../lib/systemd/systemd-journald");
    let sandbox = Sandbox::new();
    let daemon = journald(&sandbox);
    let mut journal = journalctl(&sandbox, "UDGRAM=1");
    let names = ["MESSAGE", "PRIORITY", "X", "lower", "_UNDER", "9X"];
    for (packet, written) in [
        (
            r#"{"UDGRAM":"1","MESSAGE":"plain","PRIORITY":"3","X":["1","2"]}"#,
            json!({"MESSAGE": "plain", "PRIORITY": "3", "X": ["1", "2"]}),
        ),
        (
            r#"{"UDGRAM":"1","MESSAGE":"two\nlines\n","X":[255,10,0]}"#,
            json!({"MESSAGE": "two\nlines\n", "X": [255, 10, 0]}),
        ),
        (
            r#"{"UDGRAM":"1","MESSAGE":"é","X":["a",[254],"b"]}"#,
            json!({"MESSAGE": "é", "X": ["a", [254], "b"]}),
        ),
        // What it does of names that are not its own.
        (
            r#"{"UDGRAM":"1","MESSAGE":"x","lower":"1","_UNDER":"1","9X":"1"}"#,
            json!({"MESSAGE": "x"}),
        ),
    ] {
        sandbox
            .udgram(["send", "-p", "fields", "run/systemd/journal/socket", packet])
            .run()
            .succeeds("");
        assert_eq!(entry(&mut journal, &names), written);
    }
    // It reads a memfd only if that is sealed.
    let long = "x".repeat(5 << 20);
    sandbox
        .udgram(["send", "-p", "fields", "run/systemd/journal/socket"])
        .stdin(format!(r#"{{"UDGRAM":"1","MESSAGE":"long","X":"{long}"}}"#))
        .run()
        .succeeds("");
    // journalctl prints null for a value that is longer than 4096 bytes.
    assert_eq!(
        entry(&mut journal, &names),
        json!({"MESSAGE": "long", "X": null})
    );
    for running in [journal, daemon] {
        running.signal(Signal::SIGTERM);
        let _ = running.finish();
    }
}
