//! The protocols `fields` and `syslog`, and the programs that speak them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{LIMIT, Sandbox, close, peer, root, text, timeless};
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
        close(receiver);
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
        (
            r#"{"A":[]}"#,
            "column 6: expected an array that is not empty",
        ),
        (
            r#"{"A":["1",[]]}"#,
            "column 11: expected an array that is not empty",
        ),
        (
            r#"{"A":["1",2]}"#,
            "column 11: expected a string or an array of bytes",
        ),
        (
            r#"{"A":[1,"2"]}"#,
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
    let same = content == format!("B={value}\n");
    assert!(same, "the content differs");
    assert_eq!(take_message(&receiver).bytes, b"A=2\n");
    close(receiver);

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

/// Starts a systemd-journald with its sockets in `run/systemd/journal` and its journal in `run/log/journal`.
fn journald(sandbox: &Sandbox) -> Running {
    std::fs::create_dir_all(sandbox.path("run/systemd/journal")).unwrap();
    sandbox.file(
        "journald.conf",
        "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nForwardToSyslog=no\nForwardToWall=no\n\
         ReadKMsg=no\n",
    );
    sandbox
        .command("unshare", ["-m", "sh", "-ec"])
        .arg(
            "mount --bind run /run
             mount --bind journald.conf /etc/systemd/journald.conf
             exec /usr/lib/systemd/systemd-journald",
        )
        .start_ready()
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

#[test]
fn a_log_message_goes_both_ways() {
    for (packet, datagram, line) in [
        (
            r#"{"message":"hello"}"#,
            "<13>hello",
            Some(r#"{"facility":"user","severity":"notice","message":"hello"}"#),
        ),
        (
            r#"{"facility":"local0","severity":"err","timestamp":"Nov 22 08:41:00","hostname":"attic","app":"backup","pid":"812","message":"two\nlines"}"#,
            "<131>Nov 22 08:41:00 attic backup[812]: two\nlines",
            None,
        ),
        (
            r#"{"facility":"user","severity":"notice","timestamp":"2026-11-22T08:41:00Z","app":"backup","msgid":"END","data":{"x@1":{"n":["1","2"],"q":"\"\\]"},"y@1":{}},"message":"é"}"#,
            r#"<13>1 2026-11-22T08:41:00Z - backup - END [x@1 n="1" n="2" q="\"\\\]"][y@1] é"#,
            None,
        ),
        (
            r#"{"facility":"user","severity":"notice","message":"error: disk full"}"#,
            "<13>: error: disk full",
            None,
        ),
    ] {
        let sandbox = Sandbox::new();
        let receiver = sandbox.bind("s");
        sandbox
            .udgram(["send", "-p", "syslog", "s", packet])
            .run()
            .succeeds("");
        let message = take_message(&receiver);
        assert_eq!(String::from_utf8_lossy(&message.bytes), datagram);
        close(receiver);
        let running = receiver!(sandbox, "-p", "syslog");
        let sender = sandbox.bind("me");
        sender
            .send_to(datagram.as_bytes(), sandbox.path("s"))
            .unwrap();
        running
            .finish()
            .succeeds(format!("{}\n", line.unwrap_or(packet)));
    }
}

#[test]
fn an_object_that_is_no_log_message_is_refused_with_its_column() {
    let sandbox = Sandbox::new();
    let _receiver = sandbox.bind("s");
    for (packet, message) in [
        (
            r#"{"severity":"error"}"#,
            "column 13: expected a severity: emerg, alert, crit, err, warning, notice, info, debug",
        ),
        (r#"{"pid":812}"#, "column 8: expected a string"),
        (
            r#"{"host":"attic"}"#,
            "column 9: expected no 'host', but facility, severity, timestamp, hostname, app, pid, \
             msgid, data and message",
        ),
        (
            r#"{"timestamp":"Nov 22 08:41:00","msgid":"END"}"#,
            "column 1: expected a timestamp such as '2026-11-22T08:41:00Z', which RFC 5424 has: RFC \
             3164 cannot carry this message",
        ),
    ] {
        sandbox
            .udgram(["send", "-p", "syslog", "s", packet])
            .run()
            .fails(
                3,
                format!("udgram: argument 1, {message}; nothing was sent"),
            );
    }
}

#[test]
fn the_formats_of_logger_are_received() {
    peer!("logger");
    let sandbox = Sandbox::new();
    let mut listen = sandbox.listen(["-p", "syslog", "s"]);
    let mut log = |arguments: &[&str]| -> Value {
        sandbox
            .command("logger", ["-d", "-u", "s", "-t", "tag", "-p", "daemon.err"])
            .args(arguments)
            .run()
            .succeeds("");
        let mut message: Value = serde_json::from_str(&listen.line()).unwrap();
        let time = message.as_object_mut().unwrap().remove("timestamp");
        assert!(time.is_none_or(|time| time.is_string()));
        message
    };
    assert_eq!(
        log(&["hello: you"]),
        json!({"facility": "daemon", "severity": "err", "app": "tag", "message": "hello: you"})
    );
    assert_eq!(
        log(&["--id=77", "x"]),
        json!({"facility": "daemon", "severity": "err", "app": "tag", "pid": "77", "message": "x"})
    );
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let hostname = hostname.trim_end();
    assert_eq!(
        log(&["--rfc3164", "--id=77", "x"]),
        json!({"facility": "daemon", "severity": "err", "hostname": hostname, "app": "tag",
               "pid": "77", "message": "x"})
    );
    assert_eq!(
        log(&[
            "--rfc5424=notq",
            "--msgid",
            "ID7",
            "--sd-id",
            "a@1",
            "--sd-param",
            "b=\"c\"",
            "x"
        ]),
        json!({"facility": "daemon", "severity": "err", "hostname": hostname, "app": "tag",
               "msgid": "ID7", "data": {"a@1": {"b": "c"}}, "message": "x"})
    );
    let message = log(&["--rfc5424", "x"]);
    assert!(
        message["data"]["timeQuality"]["tzKnown"].is_string(),
        "{message}"
    );
    assert_eq!(
        log(&["--rfc5424=notime,notq,nohost", "x"]),
        json!({"facility": "daemon", "severity": "err", "app": "tag", "message": "x"})
    );
    listen.signal(Signal::SIGTERM);
    let _ = listen.finish();
}

#[test]
fn the_messages_of_python_and_of_syslog_3_are_received() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let running = receiver!(sandbox, "-p", "syslog", "-n", "3");
    sandbox
        .python(
            "import logging.handlers
handler = logging.handlers.SysLogHandler('s', facility='local3')
log = logging.getLogger('app')
log.addHandler(handler)
log.error('disk é full')
handler.setFormatter(logging.Formatter('%(name)s[77]: %(message)s'))
log.critical('two\\nlines')
handler.append_nul = False
log.warning('no NUL')",
        )
        .run()
        .succeeds("");
    running.finish().succeeds(concat!(
        r#"{"facility":"local3","severity":"err","message":"disk é full"}"#,
        "\n",
        r#"{"facility":"local3","severity":"crit","app":"app","pid":"77","message":"two\nlines"}"#,
        "\n",
        r#"{"facility":"local3","severity":"warning","app":"app","pid":"77","message":"no NUL"}"#,
        "\n",
    ));
}

#[test]
fn an_empty_program_of_syslog_3_is_none() {
    peer!("unshare", "python3");
    root!();
    let sandbox = Sandbox::new();
    let running = receiver!(sandbox, "-p", "syslog");
    // syslog(3) sends to /dev/log, which is a link to the socket in a /dev of its own.
    sandbox
        .command("unshare", ["-m", "sh", "-ec"])
        .arg(
            "mount -t tmpfs none /dev; ln -s $PWD/s /dev/log
             exec python3 -c 'import syslog; syslog.openlog(\"\"); syslog.syslog(\"error: disk full\")'",
        )
        .run()
        .succeeds("");
    let mut message: Value = serde_json::from_slice(&running.finish().stdout).unwrap();
    assert!(
        message
            .as_object_mut()
            .unwrap()
            .remove("timestamp")
            .is_some()
    );
    assert_eq!(
        message,
        json!({"facility": "user", "severity": "info", "message": "error: disk full"})
    );
}

/// Starts an rsyslogd that receives at `log`, prints what it reads in each message, and forwards each to `s` in
/// one of its formats.
fn rsyslogd(sandbox: &Sandbox, format: &str) -> Running {
    sandbox.file(
        "rsyslog.conf",
        format!(
            r#"
global(workDirectory="{dir}" localHostname="attic")
module(load="imuxsock" SysSock.Use="off")
module(load="omuxsock")
input(type="imuxsock" Socket="{dir}/log" CreatePath="off" UseSpecialParser="off" ParseHostname="on" RateLimit.Interval="0")
template(name="line" type="string"
         string="%syslogfacility-text%.%syslogseverity-text%|%hostname%|%app-name%|%procid%|%msgid%|%structured-data%|%msg%\n")
action(type="omfile" file="/dev/stdout" template="line")
$OMUxSockSocket {dir}/s
*.* :omuxsock:;{format}
"#,
            dir = text(sandbox.dir())
        ),
    );
    let running = sandbox
        .command("rsyslogd", ["-n", "-f", "rsyslog.conf", "-i"])
        .arg(sandbox.path("rsyslogd.pid"))
        .start();
    running.wait_bound("log");
    running
}

#[test]
fn rsyslogd_reads_log_messages_and_forwards_them() {
    peer!("rsyslogd");
    for format in [
        "RSYSLOG_TraditionalForwardFormat",
        "RSYSLOG_ForwardFormat",
        "RSYSLOG_SyslogProtocol23Format",
    ] {
        let sandbox = Sandbox::new();
        let mut listen = sandbox.listen(["-p", "syslog", "s"]);
        let mut daemon = rsyslogd(&sandbox, format);
        let mut log = |message: &Value| {
            sandbox
                .udgram(["send", "-p", "syslog", "log"])
                .arg(message.to_string())
                .run()
                .succeeds("");
            let mut forwarded: Value = serde_json::from_str(&listen.line()).unwrap();
            let time = forwarded.as_object_mut().unwrap().remove("timestamp");
            assert!(time.is_some());
            (daemon.line(), forwarded)
        };
        let local = json!({"facility": "local0", "severity": "err", "timestamp": "Nov 22 08:41:00",
                           "hostname": "cellar", "app": "backup", "pid": "812", "message": "disk full"});
        let (line, forwarded) = log(&local);
        assert_eq!(line, "local0.err|cellar|backup|812|-|-| disk full");
        // rsyslogd takes the space before the text for a part of it, and RFC 5424 keeps it.
        let mut wanted = local;
        wanted.as_object_mut().unwrap().remove("timestamp");
        if format == "RSYSLOG_SyslogProtocol23Format" {
            wanted["message"] = " disk full".into();
        }
        assert_eq!(forwarded, wanted, "{format}");
        let full = json!({"facility": "daemon", "severity": "info",
                          "timestamp": "2026-11-22T08:41:00.123456+01:00", "hostname": "cellar",
                          "app": "backup", "msgid": "END", "data": {"a@1": {"b": "\"]"}},
                          "message": "done"});
        let (line, forwarded) = log(&full);
        assert_eq!(
            line,
            r#"daemon.info|cellar|backup|-|END|[a@1 b="\"\]"]|done"#
        );
        if format == "RSYSLOG_SyslogProtocol23Format" {
            let mut wanted = full;
            wanted.as_object_mut().unwrap().remove("timestamp");
            assert_eq!(forwarded, wanted);
        }
        let (line, _) = log(&json!({"message": "error: disk full"}));
        assert_eq!(line, "user.notice|attic|-|-|-|-| error: disk full");
        for running in [daemon, listen] {
            running.signal(Signal::SIGTERM);
            let _ = running.finish();
        }
    }
}

#[test]
fn journald_reads_log_messages() {
    root!();
    peer!("unshare", "journalctl", "../lib/systemd/systemd-journald");
    let sandbox = Sandbox::new();
    let daemon = journald(&sandbox);
    let mut journal = journalctl(&sandbox, "_TRANSPORT=syslog");
    sandbox
        .udgram(["send", "-p", "syslog", "run/systemd/journal/dev-log"])
        .arg(r#"{"facility":"daemon","severity":"err","timestamp":"Nov 22 08:41:00","app":"backup","pid":"812","message":"disk full"}"#)
        .run()
        .succeeds("");
    let names = [
        "PRIORITY",
        "SYSLOG_FACILITY",
        "SYSLOG_IDENTIFIER",
        "SYSLOG_PID",
        "SYSLOG_TIMESTAMP",
        "MESSAGE",
    ];
    assert_eq!(
        entry(&mut journal, &names),
        json!({"PRIORITY": "3", "SYSLOG_FACILITY": "3", "SYSLOG_IDENTIFIER": "backup",
               "SYSLOG_PID": "812", "SYSLOG_TIMESTAMP": "Nov 22 08:41:00 ", "MESSAGE": "disk full"})
    );
    // An empty program before the message, which looks as if it had one.
    sandbox
        .udgram(["send", "-p", "syslog", "run/systemd/journal/dev-log"])
        .arg(r#"{"message":"error: disk full"}"#)
        .run()
        .succeeds("");
    assert_eq!(
        entry(&mut journal, &names),
        json!({"PRIORITY": "5", "SYSLOG_FACILITY": "1", "SYSLOG_IDENTIFIER": "",
               "MESSAGE": "error: disk full"})
    );
    for running in [journal, daemon] {
        running.signal(Signal::SIGTERM);
        let _ = running.finish();
    }
}

/// Sends a request for `/x` over HTTP to a server bound to a stream socket.
fn request(sandbox: &Sandbox, server: &str) {
    let mut stream = UnixStream::connect(sandbox.path(server)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET /x HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("204"), "{answer}");
}

#[test]
fn the_log_of_haproxy_is_received() {
    peer!("haproxy");
    let sandbox = Sandbox::new();
    let mut listen = sandbox.listen(["-p", "syslog", "s"]);
    let dir = text(sandbox.dir());
    sandbox.file(
        "haproxy.cfg",
        format!(
            "global
  log {dir}/s local0
  log {dir}/s format rfc5424 local1
  log {dir}/s format rfc3164 local2
defaults
  mode http
  timeout client 10s
frontend web
  bind unix@{dir}/http
  log global
  log-format \"%HM %HU\"
  http-request return status 204
"
        ),
    );
    let server = sandbox
        .command("haproxy", ["-Ws", "-f", "haproxy.cfg"])
        .start_ready();
    request(&sandbox, "http");
    let mut seen = BTreeSet::new();
    while seen.len() < 3 {
        let message: Value = serde_json::from_str(&listen.line()).unwrap();
        assert_eq!(message["app"], "haproxy", "{message}");
        assert!(message["pid"].is_string(), "{message}");
        if message["message"] == "GET /x" {
            assert_eq!(message["severity"], "info", "{message}");
            seen.insert(message["facility"].as_str().unwrap().to_owned());
        }
    }
    assert!(seen.iter().eq(["local0", "local1", "local2"]));
    for running in [server, listen] {
        running.signal(Signal::SIGTERM);
        let _ = running.finish();
    }
}

#[test]
fn the_log_of_nginx_is_received() {
    root!();
    peer!("nginx");
    let sandbox = Sandbox::new();
    let mut listen = sandbox.listen(["-p", "syslog", "s"]);
    let dir = text(sandbox.dir());
    sandbox.file(
        "nginx.conf",
        format!(
            "daemon off; pid {dir}/pid; user root; error_log syslog:server=unix:{dir}/s notice;
             events {{ }}
             http {{
               log_format line '$request';
               access_log syslog:server=unix:{dir}/s,facility=local6,tag=web,severity=debug line;
               client_body_temp_path {dir}/t; proxy_temp_path {dir}/t; fastcgi_temp_path {dir}/t;
               uwsgi_temp_path {dir}/t; scgi_temp_path {dir}/t;
               server {{ listen unix:{dir}/http; location / {{ return 204; }} }}
             }}"
        ),
    );
    let server = sandbox
        .command("nginx", ["-c", text(&sandbox.path("nginx.conf"))])
        .start();
    // It logs that it starts its workers once it listens.
    let mut asked = false;
    loop {
        let message: Value = serde_json::from_str(&listen.line()).unwrap();
        if message["message"] == "GET /x HTTP/1.0" {
            assert_eq!(message["app"], "web");
            assert_eq!(message["facility"], "local6");
            assert_eq!(message["severity"], "debug");
            break;
        }
        assert_eq!(message["app"], "nginx", "{message}");
        assert_eq!(message["facility"], "local7", "{message}");
        if !asked
            && message["message"]
                .as_str()
                .unwrap()
                .contains("start worker")
        {
            request(&sandbox, "http");
            asked = true;
        }
    }
    for running in [server, listen] {
        running.signal(Signal::SIGTERM);
        let _ = running.finish();
    }
}
