//! Other programs as peers: daemons, loggers, socat, nc, Python.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::geteuid;

use crate::harness::{Peer, Sandbox, bind_abstract, peer, root, text, timeless};

/// Starts a receiver bound to `s`.
macro_rules! receiver {
    ($sandbox:expr, $($arg:expr),*) => {{
        let running = $sandbox.udgram(["recv", $($arg,)* "s"]).start();
        running.wait_bound("s");
        running
    }};
}

/// Starts an rsyslogd that receives datagrams at `log` and prints what it knows of each.
#[track_caller]
pub(crate) fn rsyslogd(sandbox: &Sandbox) -> crate::running::Running {
    let config = format!(
        r#"
global(workDirectory="{dir}")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{dir}/log" CreatePath="off" UsePIDFromSystem="on" Annotate="on"
      ParseTrusted="on" RateLimit.Interval="0")
template(name="line" type="string"
         string="%programname%|%msg%|%$!pid%|%$!uid%|%$!gid%|%syslogfacility-text%.%syslogseverity-text%\n")
action(type="omfile" file="/dev/stdout" template="line")
"#,
        dir = text(sandbox.dir())
    );
    sandbox.file("rsyslog.conf", config);
    let running = sandbox
        .command("rsyslogd", ["-n", "-f", "rsyslog.conf", "-i"])
        .arg(sandbox.path("rsyslogd.pid"))
        .start();
    running.wait_bound("log");
    running
}

#[test]
fn rsyslogd_logs_a_line_with_the_process_and_the_user_of_udgram() {
    peer!("rsyslogd");
    let sandbox = Sandbox::new();
    let mut daemon = rsyslogd(&sandbox);
    let sender = sandbox
        .udgram([
            "send",
            "-p",
            "text",
            "log",
            "<13>Nov 22 08:41:00 udgram: hello, log",
        ])
        .start();
    let pid = sender.pid();
    sender.finish().succeeds("");
    let user = geteuid();
    assert_eq!(
        daemon.line(),
        format!(
            "udgram| hello, log|{pid}|{user}|{}|user.notice",
            nix::unistd::getegid()
        )
    );
    daemon.signal(Signal::SIGTERM);
    let _ = daemon.finish();
}

#[test]
fn rsyslogd_logs_every_line_of_a_script_in_order() {
    peer!("rsyslogd");
    let sandbox = Sandbox::new();
    let mut daemon = rsyslogd(&sandbox);
    let lines: Vec<String> = (0..300)
        .map(|n| format!("<14>Nov 22 08:41:00 loop: {n}"))
        .collect();
    sandbox
        .udgram(["send", "-p", "text", "log"])
        .stdin(lines.join("\n"))
        .run()
        .succeeds("");
    for n in 0..300 {
        let line = daemon.line();
        assert!(line.starts_with(&format!("loop| {n}|")), "{line}");
    }
    daemon.signal(Signal::SIGTERM);
    let _ = daemon.finish();
}

/// Starts a chronyd that leaves the clock alone. It takes time samples at `ref.sock`, writes each
/// to `refclocks.log`, and answers commands at `run/command.sock`.
#[track_caller]
pub(crate) fn chronyd(sandbox: &Sandbox) -> crate::running::Running {
    let dir = text(sandbox.dir());
    // A sample is taken if it is at most two polling intervals old: 128 s with "poll 6".
    let config = format!(
        "refclock SOCK {dir}/ref.sock refid TEST poll 6\n\
         bindcmdaddress {dir}/run/command.sock\n\
         pidfile {dir}/chronyd.pid\n\
         port 0\n\
         cmdport 0\n\
         logdir {dir}\n\
         log refclocks\n\
         logbanner 0\n"
    );
    sandbox.file("chrony.conf", config);
    sandbox
        .command("chronyd", ["-x", "-d", "-u", "root", "-f"])
        .arg(sandbox.path("chrony.conf"))
        .start()
}

/// Returns a sample for chronyd's SOCK reference clock: `struct sock_sample` of 64-bit Linux.
fn sock_sample(time: Duration, offset: f64) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(time.as_secs().to_ne_bytes());
    bytes.extend(u64::from(time.subsec_micros()).to_ne_bytes());
    bytes.extend(offset.to_ne_bytes());
    // No pulse per second, no leap second, padding, and the magic number "SOCK".
    for field in [0, 0, 0, 0x534f_434b_i32] {
        bytes.extend(field.to_ne_bytes());
    }
    bytes
}

#[test]
fn chronyd_takes_the_time_samples_that_udgram_sends_as_hex() {
    peer!("chronyd");
    root!();
    let sandbox = Sandbox::new();
    nix::unistd::mkfifo(&sandbox.path("refclocks.log"), Mode::S_IRWXU).unwrap();
    let mut log = sandbox.command("cat", ["refclocks.log"]).start();
    let daemon = chronyd(&sandbox);
    daemon.wait_bound("ref.sock");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let samples = [(3, 0.125), (2, 0.25), (1, 0.5)].map(|(age, offset)| {
        let age = Duration::from_micros(1_000_001) * age;
        (now.checked_sub(age).unwrap(), offset)
    });
    let lines = samples.map(|(time, offset)| HEXLOWER.encode(&sock_sample(time, offset)));
    sandbox
        .udgram(["send", "-p", "hex", "ref.sock"])
        .stdin(lines.join("\n"))
        .run()
        .succeeds("");
    for (time, offset) in samples {
        // DATE TIME REFID COUNT LEAP PULSE RAW-OFFSET …
        let line = log.line();
        let fields: Vec<_> = line.split_whitespace().collect();
        let micros = format!(".{:06}", time.subsec_micros());
        assert!(fields[1].ends_with(&micros), "{line}, not at {time:?}");
        assert_eq!(fields[2], "TEST", "{line}");
        assert_eq!(fields[6].parse(), Ok(offset), "{line}");
    }
    daemon.signal(Signal::SIGTERM);
    let _ = daemon.finish();
}

#[test]
fn chronyd_answers_a_command_that_udgram_sends_as_hex() {
    peer!("chronyd");
    root!();
    let sandbox = Sandbox::new();
    let daemon = chronyd(&sandbox);
    // REQ_N_SOURCES, with the sequence number 0xdecade, padded to the length of its reply.
    let request = format!("06010000{:08x}{:08x}{:040x}", 14 << 16, 0x00de_cade, 0);
    // RPY_N_SOURCES: a success with the same sequence number, and one source.
    let reply = format!(
        "06020000{:08x}{:016x}{:08x}{:016x}{:08x}",
        14 << 16 | 2,
        0,
        0x00de_cade,
        0,
        1
    );
    // chronyd sends its reply to a pathname, never to an abstract name.
    sandbox
        .udgram(["send", "--wait", "--reply", "-p", "hex", "--bind"])
        .arg(sandbox.path("me.sock"))
        .args(["run/command.sock", &request])
        .run()
        .succeeds(reply + "\n");
    daemon.signal(Signal::SIGTERM);
    let _ = daemon.finish();
}

#[test]
fn systemd_notify_says_that_it_is_ready() {
    peer!("systemd-notify");
    let sandbox = Sandbox::new();
    let receiver = receiver!(sandbox, "-p", "text");
    // Without its barrier, which waits for a second datagram to be taken.
    let notifier = sandbox
        .command("systemd-notify", ["--no-block", "--ready"])
        .env("NOTIFY_SOCKET", sandbox.path("s"))
        .start();
    receiver.finish().succeeds("READY=1\n");
    notifier.finish().succeeds("");
}

#[test]
fn systemd_notify_finishes_when_its_barrier_is_received() {
    peer!("systemd-notify");
    let sandbox = Sandbox::new();
    let receiver = receiver!(sandbox, "-p", "text", "-n", "2", "-e");
    let notifier = sandbox
        .command("systemd-notify", ["--ready", "--status=up"])
        .env("NOTIFY_SOCKET", sandbox.path("s"))
        .start();
    notifier.finish().succeeds("");
    let lines = receiver.finish().lines();
    assert_eq!(
        timeless(&lines[0]),
        r#"{"from":null,"size":17,"packet":"READY=1\nSTATUS=up"}"#
    );
    assert!(
        timeless(&lines[1]).starts_with(r#"{"from":null,"size":9,"packet":"BARRIER=1","fds":[{"#),
        "{}",
        lines[1]
    );
}

#[test]
fn logger_is_received_with_its_process_id() {
    peer!("logger");
    let sandbox = Sandbox::new();
    let receiver = receiver!(sandbox, "-p", "text", "--creds");
    let logger = sandbox
        .command(
            "logger",
            ["-d", "-u", "s", "-t", "tag", "-p", "user.info", "hello"],
        )
        .start();
    let pid = logger.pid();
    logger.finish().succeeds("");
    let line = receiver.finish().one_line();
    let envelope: serde_json::Value = serde_json::from_str(&line).unwrap();
    let message = envelope["packet"].as_str().unwrap();
    assert!(
        message.starts_with("<14>") && message.ends_with(" tag: hello"),
        "{line}"
    );
    assert_eq!(envelope["creds"]["pid"], pid, "{line}");
    assert_eq!(envelope["creds"]["uid"], geteuid().as_raw(), "{line}");
}

const SERVER: &str = "
import json, socketserver

class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        packet, sock = self.request
        question = json.loads(packet)
        answer = {'echo': question, 'from': repr(self.client_address)[:2]}
        sock.sendto(json.dumps(answer).encode(), self.client_address)

server = socketserver.UnixDatagramServer('s', Handler)
for _ in range(2):
    server.handle_request()
";

#[test]
fn a_python_server_answers_a_question_from_an_autobound_and_from_a_bound_socket() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let server = sandbox.python(SERVER).start();
    server.wait_bound("s");
    sandbox
        .udgram(["send", "--reply", "--timeout", "100s", "s", "{\"op\": [1]}"])
        .run()
        .succeeds("{\"echo\": {\"op\": [1]}, \"from\": \"b'\"}\n");
    sandbox
        .udgram(["send", "--reply", "--bind", "me", "s", "2"])
        .run()
        .succeeds("{\"echo\": 2, \"from\": \"'/\"}\n");
    server.finish().succeeds("");
}

#[test]
fn socat_sends_to_udgram() {
    peer!("socat");
    let sandbox = Sandbox::new();
    let receiver = receiver!(sandbox, "-p", "text", "-e", "-n", "2");
    for options in ["UNIX-SENDTO:s", "UNIX-SENDTO:s,bind=me"] {
        sandbox
            .command("socat", ["-u", "-", options])
            .stdin("from socat\n")
            .run()
            .succeeds("");
    }
    let lines: Vec<String> = receiver
        .finish()
        .lines()
        .iter()
        .map(|line| timeless(line))
        .collect();
    assert_eq!(
        lines,
        [
            r#"{"from":null,"size":11,"packet":"from socat\n"}"#,
            r#"{"from":"me","size":11,"packet":"from socat\n"}"#
        ]
    );
}

#[test]
fn socat_receives_from_udgram() {
    peer!("socat");
    let sandbox = Sandbox::new();
    let mut socat = sandbox.command("socat", ["-u", "UNIX-RECV:s", "-"]).start();
    socat.wait_bound("s");
    sandbox
        .udgram(["send", "-p", "text", "s", "one\n", "two\n"])
        .run()
        .succeeds("");
    assert_eq!([socat.line(), socat.line()], ["one", "two"]);
    socat.signal(Signal::SIGTERM);
    let _ = socat.finish();
}

#[test]
fn socat_answers_udgram() {
    peer!("socat");
    let sandbox = Sandbox::new();
    let socat = sandbox
        .command("socat", ["UNIX-RECVFROM:s", "EXEC:cat"])
        .start();
    socat.wait_bound("s");
    sandbox
        .udgram(["send", "--reply", "--bind", "me", "s", "{\"op\":\"ping\"}"])
        .run()
        .succeeds("{\"op\":\"ping\"}\n");
    let _ = socat.finish();
}

#[test]
fn nc_sends_to_udgram() {
    peer!("nc");
    let sandbox = Sandbox::new();
    let receiver = receiver!(sandbox, "-p", "text");
    sandbox
        .command("nc", ["-uU", "-w1", "s"])
        .stdin("from nc\n")
        .run()
        .succeeds("");
    receiver.finish().succeeds("from nc\n");
}

#[test]
fn nc_receives_from_udgram() {
    peer!("nc");
    let sandbox = Sandbox::new();
    let nc = sandbox.command("nc", ["-luU", "s"]).stdin_open().start();
    nc.wait_bound("s");
    // nc connects to its first sender, which must have a name and still be there.
    let mut sender = sandbox
        .udgram(["send", "-p", "text", "--bind", "me", "s"])
        .stdin_open()
        .start();
    sender.write("one\n");
    assert_eq!(nc.text("one"), "one");
    sender.write("two\n");
    assert_eq!(nc.text("onetwo"), "onetwo");
    sender.finish().succeeds("");
    nc.signal(Signal::SIGTERM);
    let _ = nc.finish();
}

#[test]
fn a_question_of_nc_is_answered() {
    peer!("nc");
    let sandbox = Sandbox::new();
    let server = sandbox.listen(["-p", "text", "-e", "-n", "1", "--exec", "tr a-z A-Z", "s"]);
    sandbox
        .command("nc", ["-uU", "-W1", "-w20", "s"])
        .stdin("question")
        .run()
        .succeeds("QUESTION");
    let line = server.finish().one_line();
    let envelope: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(envelope["packet"], "question");
    assert!(envelope["from"].is_string(), "{line}");
}

const EASYNETWORK: &str = "
import sys
from easynetwork.clients.unix_datagram import UnixDatagramClient
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import JSONSerializer

with UnixDatagramClient('s', DatagramProtocol(JSONSerializer())) as client:
    client.send_packet({'question': [1, 2.5, None]})
    print(client.recv_packet(timeout=20))
";

#[test]
fn an_easynetwork_client_is_answered() {
    peer!("python3 -m easynetwork");
    let sandbox = Sandbox::new();
    let server = sandbox.listen(["-n", "1", "--exec", "printf '{\"answer\":42}'", "s"]);
    sandbox
        .python(EASYNETWORK)
        .run()
        .succeeds("{'answer': 42}\n");
    server.finish().succeeds("{\"question\":[1,2.5,null]}\n");
}

#[test]
fn a_packet_goes_from_send_to_recv() {
    let sandbox = Sandbox::new();
    let sender = sandbox
        .udgram(["send", "--wait", "s", "{\"hello\":\"world\"}"])
        .start();
    sandbox
        .udgram(["recv", "s"])
        .run()
        .succeeds("{\"hello\":\"world\"}\n");
    sender.finish().succeeds("");
}

#[test]
fn bytes_from_senders_of_every_kind_are_received() {
    let sandbox = Sandbox::new();
    let receiver = receiver!(sandbox, "-p", "hex", "-n", "4");
    let unnamed = UnixDatagram::unbound().unwrap();
    let named = sandbox.bind("named");
    let abstracted = bind_abstract(sandbox.unique());
    for socket in [&unnamed, &named, &abstracted, &unnamed] {
        socket.send_to(b"\xff", sandbox.path("s")).unwrap();
    }
    receiver.finish().succeeds("ff\nff\nff\nff\n");
    named.has_nothing_more();
}
