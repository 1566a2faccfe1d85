//! `udgram listen --peek`: prints the packets sent to a socket of another process.

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;

use crate::harness::{
    Invocation, Peer, Sandbox, at, bind_abstract, close, peer, root, split_time, text, timeless,
};
use crate::peers::{chronyd, rsyslogd};

fn peek(sandbox: &Sandbox, args: &[&str]) -> Invocation {
    sandbox.udgram(["listen", "--peek"]).args(args)
}

/// A client of the socket `name`.
fn client(sandbox: &Sandbox, name: &str) -> UnixDatagram {
    let client = UnixDatagram::unbound().unwrap();
    client.connect(sandbox.path(name)).unwrap();
    client
}

/// Fails if the socket has a filter.
#[track_caller]
fn has_no_filter(sandbox: &Sandbox, socket: &UnixDatagram) {
    let descriptor = format!("{}:{}", std::process::id(), socket.as_raw_fd());
    sandbox
        .udgram(["sockopt", "-s", &descriptor, "SO_GET_FILTER"])
        .run()
        .succeeds("none\n");
}

/// Returns a number in the line of `--stats`.
#[track_caller]
fn total(line: &str, name: &str) -> u64 {
    let number = line
        .split(' ')
        .find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    number.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
}

fn creds(pid: i32, comm: &str) -> String {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    format!(r#""creds":{{"pid":{pid},"uid":{uid},"gid":{gid},"comm":"{comm}"}}"#)
}

#[test]
fn packets_of_logger_to_rsyslogd_are_printed_and_logged() {
    root!();
    peer!("rsyslogd", "logger");
    let sandbox = Sandbox::new();
    let mut daemon = rsyslogd(&sandbox);
    let mut peek = peek(&sandbox, &["-p", "text", "-n", "3", "-e", "log"]).start_ready();
    for n in 0..3 {
        let logger = sandbox
            .command("logger", ["-d", "-u", "log", "-t", "tag"])
            .arg(format!("message {n}"))
            .start();
        let pid = logger.pid();
        logger.finish().succeeds("");
        let line = timeless(&peek.line());
        assert!(
            line.ends_with(&format!("{}}}", creds(pid, "logger"))),
            "{line}"
        );
        assert!(line.contains(&format!(" tag: message {n}\",")), "{line}");
        let message = daemon.line();
        assert!(
            message.starts_with(&format!("tag| message {n}|{pid}|")),
            "{message}"
        );
    }
    assert_eq!(peek.finish().code(), Some(0));
    daemon.signal(Signal::SIGTERM);
    let _ = daemon.finish();
}

#[test]
fn packets_of_chronyc_to_chronyd_are_printed_and_answered() {
    root!();
    peer!("chronyd", "chronyc");
    let sandbox = Sandbox::new();
    let daemon = chronyd(&sandbox);
    let socket = sandbox.path("run/command.sock");
    sandbox
        .udgram(["send", "--wait", text(&socket)])
        .run()
        .succeeds("");
    // From 4.8 on, it changes to the user of chronyd, which is root here.
    let help = sandbox.command("chronyc", ["--help"]).run();
    let has_user = String::from_utf8_lossy(help.stdout()).contains("-u USER");
    let user: &[&str] = if has_user { &["-u", "root"] } else { &[] };
    let peek = peek(&sandbox, &["-p", "base64", "-n", "3", "-e", text(&socket)]).start_ready();
    let mut askers = Vec::new();
    for _ in 0..3 {
        // With its default timeout of a second, it would send the request again on a busy machine.
        let chronyc = sandbox
            .command("chronyc", ["-h", text(&socket), "-c", "-m"])
            .args(user)
            .args(["timeout 60000", "tracking"])
            .start();
        askers.push(chronyc.pid());
        let answer = chronyc.finish().one_line();
        assert!(answer.ends_with(",Not synchronised"), "{answer}");
    }
    for (line, pid) in peek.finish().lines().iter().zip(askers) {
        let line = timeless(line);
        // A command of protocol version 6: REQ_TRACKING (33), sent for the first time (0).
        let begin = r#"{"size":104,"packet":"BgEAAAAhAA"#;
        assert!(line.starts_with(begin), "{line}");
        assert!(
            line.ends_with(&format!("{}}}", creds(pid, "chronyc"))),
            "{line}"
        );
    }
    daemon.signal(Signal::SIGTERM);
    let _ = daemon.finish();
}

#[test]
fn an_envelope_has_the_time_the_size_the_packet_and_the_sender() {
    root!();
    let sandbox = Sandbox::new();
    let name = sandbox.unique();
    let server = bind_abstract(&name);
    let peek = peek(&sandbox, &["-n", "3", "-e", &at(&name)]).start_ready();
    let sender = sandbox
        .udgram(["send", &at(&name), r#"{"a": 1}"#, "2", "[]"])
        .start();
    let pid = sender.pid();
    sender.finish().succeeds("");
    let lines = peek.finish().lines();
    let lines: Vec<String> = lines.iter().map(|line| timeless(line)).collect();
    let creds = creds(pid, "udgram");
    assert_eq!(
        lines,
        [
            format!(r#"{{"size":8,"packet":{{"a": 1}},{creds}}}"#),
            format!(r#"{{"size":1,"packet":2,{creds}}}"#),
            format!(r#"{{"size":2,"packet":[],{creds}}}"#),
        ]
    );
    assert_eq!([server.take(), server.take()], [&br#"{"a": 1}"#[..], b"2"]);
}

#[test]
fn every_protocol_prints_the_observed_packets() {
    root!();
    let sandbox = Sandbox::new();
    let server = sandbox.bind("s");
    for (protocol, datagram, line) in [
        ("json", &b"{\"a\":\n1}"[..], "{\"a\":1}\n"),
        ("text", b"two\nlines", "two\nlines\n"),
        ("hex", b"\xff\0", "ff00\n"),
        ("base64", b"\xff\0", "/wA=\n"),
        ("cbor", b"\x81\x01", "[1]\n"),
        ("msgpack", b"\x91\x01", "[1]\n"),
        ("fields", b"READY=1", "{\"READY\":\"1\"}\n"),
        (
            "syslog",
            b"<0>x\0",
            "{\"facility\":\"kern\",\"severity\":\"emerg\",\"message\":\"x\"}\n",
        ),
    ] {
        let peek = peek(&sandbox, &["-p", protocol, "-n", "1", "s"]).start_ready();
        client(&sandbox, "s").send(datagram).unwrap();
        assert_eq!(server.take(), datagram);
        peek.finish().succeeds(line);
    }
    let peek = peek(&sandbox, &["-p", "raw", "-n", "1", "s"]).start_ready();
    client(&sandbox, "s").send(b"\xff\0").unwrap();
    peek.finish().succeeds(b"\xff\0");
}

#[test]
fn a_datagram_that_is_not_a_valid_packet_is_reported_with_its_sender_and_status_3() {
    root!();
    let sandbox = Sandbox::new();
    let server = sandbox.bind("s");
    let peek = peek(&sandbox, &["-n", "2", "-e", "s"]).start_ready();
    let sender = sandbox.udgram(["send", "-p", "text", "s", "{"]).start();
    let pid = sender.pid();
    sender.finish().succeeds("");
    client(&sandbox, "s").send(b"1").unwrap();
    let outcome = peek.finish();
    assert_eq!(outcome.code(), Some(3));
    let printed = String::from_utf8(outcome.stdout().to_vec()).unwrap();
    assert_eq!(printed.lines().count(), 2);
    let line = timeless(printed.lines().next().unwrap());
    let end = format!(r#""raw":"ew==",{}}}"#, creds(pid, "udgram"));
    assert!(
        line.starts_with(r#"{"size":1,"error":{"kind":"parse","#),
        "{line}"
    );
    assert!(line.ends_with(&end), "{line}");
    outcome.mentions(&["packet from udgram", &pid.to_string()]);
    assert_eq!([server.take(), server.take()], [b"{", b"1"]);
}

#[test]
fn descriptors_and_credentials_reach_the_observed_socket() {
    root!();
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", "content");
    let receiver = sandbox.udgram(["recv", "--creds", "s"]).start();
    receiver.wait_bound("s");
    let peek = peek(&sandbox, &["-n", "1", "s"]).start_ready();
    let sender = sandbox
        .udgram(["send", "--fd", "9", "s", "1"])
        .descriptor(std::fs::File::open(&file).unwrap(), 9)
        .start();
    let pid = sender.pid();
    sender.finish().succeeds("");
    peek.finish().succeeds("1\n");
    let envelope: serde_json::Value = serde_json::from_str(&receiver.finish().one_line()).unwrap();
    assert_eq!(envelope["creds"]["pid"], pid);
    assert_eq!(envelope["fds"][0]["path"], text(&file));
}

#[test]
fn a_datagram_of_four_megabytes_is_printed_whole() {
    root!();
    let sandbox = Sandbox::new();
    let server = sandbox.bind("s");
    let whole = "x".repeat(4_000_000);
    let peek = peek(&sandbox, &["-p", "text", "-n", "1", "s"]).start_ready();
    sandbox
        .udgram(["send", "-p", "raw", "s"])
        .stdin(&whole)
        .run()
        .succeeds("");
    let arrived = server.take() == whole.as_bytes();
    assert!(arrived, "another datagram arrived");
    peek.finish().succeeds(whole + "\n");
}

#[test]
fn the_descriptor_of_a_process_is_observed() {
    root!();
    let sandbox = Sandbox::new();
    let server = sandbox.bind("s");
    let descriptor = format!("{}:{}", std::process::id(), server.as_raw_fd());
    let peek = peek(&sandbox, &["--stats", "-n", "2", "-s", &descriptor]).start_ready();
    let client = client(&sandbox, "s");
    client.send(b"1").unwrap();
    client.send(b"[2]").unwrap();
    peek.finish()
        .ends(0, "1\n[2]\n")
        .mentions(&["received=2 received_bytes=4 not_packets=0 missed=0 sent=0 "]);
    has_no_filter(&sandbox, &server);
}

#[test]
fn a_timeout_ends_the_observation() {
    root!();
    let sandbox = Sandbox::new();
    let _server = sandbox.bind("s");
    peek(&sandbox, &["-t", "50ms", "s"]).run().succeeds("");
    peek(&sandbox, &["-t", "50ms", "-n", "2", "s"]).run().fails(
        124,
        "udgram: cannot observe 's': no packet was sent within 50ms",
    );
}

#[test]
fn the_end_of_the_owner_is_reported_with_status_4() {
    root!();
    peer!("python3");
    let sandbox = Sandbox::new();
    let owner = sandbox
        .python(
            "import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('s')
sys.stdin.read()",
        )
        .stdin_open()
        .start();
    owner.wait_bound("s");
    let mut peek = peek(&sandbox, &["-n", "9", "s"]).start_ready();
    let client = client(&sandbox, "s");
    client.send(b"1").unwrap();
    assert_eq!(peek.line(), "1");
    owner.finish().succeeds("");
    // The observer has no copy of the socket.
    let refused = client.send(b"2").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let outcome = peek.finish();
    // The kernel runs the filter, if it still exists, before it refuses the datagram.
    let printed = outcome.stdout().to_vec();
    assert!([&b"1\n"[..], b"1\n2\n"].contains(&&printed[..]));
    outcome
        .ends(4, printed)
        .says("udgram: cannot observe 's': it was closed");
}

#[test]
fn packets_sent_before_a_signal_are_printed() {
    root!();
    let sandbox = Sandbox::new();
    let server = sandbox.bind("s");
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let peek = peek(&sandbox, &["s"]).start_ready();
        let client = client(&sandbox, "s");
        for n in 0..5 {
            client.send(n.to_string().as_bytes()).unwrap();
        }
        peek.signal(signal);
        peek.finish()
            .dies_of(signal, "0\n1\n2\n3\n4\n")
            .says_nothing();
        for n in 0..5 {
            assert_eq!(server.take(), n.to_string().as_bytes());
        }
        has_no_filter(&sandbox, &server);
    }
}

#[test]
fn the_next_observer_replaces_a_killed_one() {
    root!();
    let sandbox = Sandbox::new();
    let server = sandbox.bind("s");
    let killed = peek(&sandbox, &["s"]).start_ready();
    peek(&sandbox, &["s"]).run().fails(
        1,
        "udgram: cannot observe 's': it is being observed already",
    );
    killed.signal(Signal::SIGKILL);
    let _ = killed.finish().dies_of(Signal::SIGKILL, "");
    let client = client(&sandbox, "s");
    client.send(b"1").unwrap();
    assert_eq!(server.take(), b"1");
    let next = peek(&sandbox, &["-n", "1", "s"]).start_ready();
    client.send(b"2").unwrap();
    assert_eq!(server.take(), b"2");
    next.finish().succeeds("2\n");
    has_no_filter(&sandbox, &server);
}

#[test]
fn of_observers_that_start_at_the_same_time_one_observes() {
    root!();
    let sandbox = Sandbox::new();
    let server = sandbox.bind("s");
    let client = client(&sandbox, "s");
    for _ in 0..3 {
        let (ended, ends) = std::sync::mpsc::channel();
        let observers: Vec<_> = (0..3)
            .map(|_| {
                let running = peek(&sandbox, &["-n", "1", "s"]).start();
                let ended = ended.clone();
                std::thread::spawn(move || ended.send(running.finish()).unwrap())
            })
            .collect();
        for _ in 1..observers.len() {
            ends.recv().unwrap().fails(
                1,
                "udgram: cannot observe 's': it is being observed already",
            );
        }
        client.send(b"1").unwrap();
        assert_eq!(server.take(), b"1");
        ends.recv().unwrap().succeeds("1\n");
        for observer in observers {
            observer.join().unwrap();
        }
        has_no_filter(&sandbox, &server);
    }
}

#[test]
fn a_blocked_stdout_does_not_delay_the_observed_socket() {
    root!();
    let sandbox = Sandbox::new();
    let server = sandbox.bind("s");
    let (mut reader, writer) = crate::harness::pipe();
    let peek = peek(&sandbox, &["--stats", "-p", "raw", "s"])
        .stdout_to(OwnedFd::from(writer))
        .start_ready();
    let client = client(&sandbox, "s");
    let datagram = vec![b'x'; 200_000];
    // More than fits into the ring and the pipe.
    for _ in 0..400 {
        client.send(&datagram).unwrap();
        let arrived = server.take() == datagram;
        assert!(arrived, "another datagram arrived");
    }
    peek.signal(Signal::SIGTERM);
    let outcome = peek.finish().dies_of(Signal::SIGTERM, "");
    let messages = outcome.diagnostics();
    assert_eq!(messages.len(), 4, "{messages:?}");
    assert!(messages[0].contains("packets are missed"), "{messages:?}");
    assert!(
        messages[1].contains("bytes were not written"),
        "{messages:?}"
    );
    let missed = total(&messages[3], "missed");
    let in_all = format!("warning: {missed} packets in all were missed");
    assert!(messages[2].ends_with(&in_all), "{messages:?}");
    assert_eq!(
        total(&messages[3], "received") + missed,
        400,
        "{messages:?}"
    );
    let mut printed = Vec::new();
    reader.read_to_end(&mut printed).unwrap();
    assert!(!printed.is_empty());
    has_no_filter(&sandbox, &server);
}

#[test]
fn a_stdout_that_is_gone_closed_or_full_ends_the_observation_and_removes_the_filter() {
    root!();
    let sandbox = Sandbox::new();
    let server = sandbox.bind("s");
    let client = client(&sandbox, "s");
    let (reader, writer) = crate::harness::pipe();
    let running = peek(&sandbox, &["s"])
        .stdout_to(OwnedFd::from(writer))
        .start_ready();
    close(reader);
    running.finish().dies_of(Signal::SIGPIPE, "").says_nothing();
    has_no_filter(&sandbox, &server);

    sandbox
        .shell("udgram listen --peek s >&-")
        .run()
        .fails(1, "udgram: cannot write to stdout: it is closed");

    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let running = peek(&sandbox, &["s"]).stdout_to(full).start_ready();
    client.send(b"1").unwrap();
    running
        .finish()
        .fails(1, "udgram: cannot write to stdout: No space left on device");
    has_no_filter(&sandbox, &server);
}

#[test]
fn a_socket_that_cannot_be_observed_is_refused() {
    root!();
    let sandbox = Sandbox::new();
    let _server = sandbox.bind("s");
    peek(&sandbox, &[]).run().fails(
        2,
        "udgram: --peek needs the address of a socket to observe, or --socket-fd (hint: try 'udgram listen --help')",
    );
    peek(&sandbox, &["-s", "0", "s"]).run().fails(
        2,
        "udgram: the address to observe and --socket-fd exclude each other (hint: try 'udgram listen --help')",
    );
    for option in [
        "--echo",
        "--replace",
        "--connect=x",
        "--mode=600",
        "-orcvbuf=1",
    ] {
        peek(&sandbox, &[option, "s"])
            .run()
            .refuses(2, &["--peek", "exclude each other"]);
    }
    peek(&sandbox, &["missing"])
        .run()
        .refuses(4, &["'missing'"]);
    sandbox.stale("stale");
    peek(&sandbox, &["stale"]).run().refuses(4, &["'stale'"]);
    let _stream = std::os::unix::net::UnixListener::bind(sandbox.path("stream")).unwrap();
    peek(&sandbox, &["stream"]).run().refuses(1, &["'stream'"]);
    assert!(!sandbox.exists("missing"));
}

/// Returns an observer that has these capabilities only.
fn with_capabilities(sandbox: &Sandbox, capabilities: &str, arg: &str) -> Invocation {
    sandbox
        .command("setpriv", [format!("--bounding-set=-all{capabilities}")])
        .arg(format!("--inh-caps=-all{capabilities}"))
        .args(["udgram", "listen", "--peek", "-e", "-n", "1", arg])
}

#[test]
fn each_missing_privilege_is_named() {
    root!();
    peer!("setpriv");
    let sandbox = Sandbox::new();
    let server = sandbox.bind("s");
    with_capabilities(&sandbox, "", "s").run().fails(
        1,
        "udgram: cannot find a process that holds 's': no process that may be traced holds it (hint: \
         tracing another user's processes needs CAP_SYS_PTRACE)",
    );
    let descriptor = format!("-s{}:{}", std::process::id(), server.as_raw_fd());
    with_capabilities(&sandbox, "", &descriptor)
        .run()
        .refuses(1, &["Operation not permitted", "CAP_SYS_PTRACE"]);
    // If unprivileged users may load programs, CAP_BPF is not needed.
    let disabled = std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled");
    if let Some(disabled) = disabled.ok().filter(|disabled| disabled != "0\n") {
        let hint = format!("kernel.unprivileged_bpf_disabled is {}", disabled.trim());
        with_capabilities(&sandbox, ",+sys_ptrace", "s")
            .run()
            .fails(
                1,
                format!("udgram: cannot observe 's': CAP_BPF is missing (hint: {hint})"),
            );
    }
    let peek = with_capabilities(&sandbox, ",+sys_ptrace,+bpf", "s").start_ready();
    client(&sandbox, "s").send(b"1").unwrap();
    let outcome = peek.finish();
    let line = String::from_utf8(outcome.stdout().to_vec()).unwrap();
    assert_eq!(timeless(line.trim_end()), r#"{"size":1,"packet":1}"#);
    outcome.mentions(&["warning: envelopes have no creds", "CAP_PERFMON"]);
    has_no_filter(&sandbox, &server);
}

#[test]
fn in_a_user_namespace_the_missing_capabilities_are_those_of_the_initial_one() {
    root!();
    peer!("python3", "unshare");
    let sandbox = Sandbox::new();
    let script = "
import socket, subprocess, sys
held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
held.bind('s')
sys.exit(subprocess.run(['udgram', 'listen', '--peek', 's']).returncode)
";
    sandbox
        .command("unshare", ["-Ur", "python3", "-c", script])
        .run()
        .fails(
            1,
            "udgram: cannot observe 's': bpf(2) needs capabilities of the initial user namespace",
        );
}

#[test]
fn an_owner_that_may_no_longer_be_traced_still_has_its_socket() {
    root!();
    peer!("setpriv", "python3");
    let sandbox = Sandbox::new();
    let script = "
import ctypes, socket, sys
held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
held.bind('s')
print('bound', flush=True)
sys.stdin.readline()
assert ctypes.CDLL(None).prctl(4, 0) == 0 # PR_SET_DUMPABLE
print('hidden', flush=True)
sys.stdin.read()
";
    let mut owner = sandbox
        .command("setpriv", ["--bounding-set=-all", "--inh-caps=-all"])
        .args(["python3", "-c", script])
        .stdin_open()
        .start();
    assert_eq!(owner.line(), "bound");
    let observe = |args: &[&str]| {
        let capabilities = ",+bpf,+perfmon";
        sandbox
            .command("setpriv", [format!("--bounding-set=-all{capabilities}")])
            .arg(format!("--inh-caps=-all{capabilities}"))
            .args(["udgram", "listen", "--peek"])
            .args(args)
            .arg("s")
    };
    // It looks for the owner several times within this time.
    let peek = observe(&["-n", "1", "-t", "1s"]).start_ready();
    owner.write("\n");
    assert_eq!(owner.line(), "hidden");
    peek.finish().fails(
        124,
        "udgram: cannot observe 's': no packet was sent within 1s",
    );
    observe(&[])
        .run()
        .refuses(1, &["'s'", "may be traced", "CAP_SYS_PTRACE"]);
    owner.finish().succeeds("bound\nhidden\n");
}

#[test]
fn the_owner_that_removes_the_filter_ends_the_observation() {
    root!();
    peer!("setpriv");
    let sandbox = Sandbox::new();
    let server = sandbox.bind("s");
    let descriptor = format!("{}:{}", std::process::id(), server.as_raw_fd());
    // Without CAP_SYS_ADMIN, the kernel does not list programs.
    let capabilities = ",+sys_ptrace,+bpf,+perfmon";
    for start in [
        peek(&sandbox, &["-e", "-n", "1", "s"]),
        with_capabilities(&sandbox, capabilities, "s"),
    ] {
        let peek = start.start_ready();
        // SOL_SOCKET, SO_DETACH_FILTER.
        let detached = sandbox.udgram(["sockopt", "-s", &descriptor, "1:27=0"]);
        let _ = detached.run().one_line();
        peek.finish().fails(
            1,
            "udgram: cannot observe 's': another program replaced or removed the filter",
        );
    }
}

#[test]
fn a_filter_that_is_removed_while_it_is_examined_is_no_obstacle() {
    root!();
    peer!("strace");
    let sandbox = Sandbox::new();
    let server = sandbox.bind("s");
    // The fifth call asks for the filter; EACCES says that it is an eBPF program, as that of an observer which
    // ends then.
    let peek = sandbox
        .command("strace", ["-qq", "-f", "-o", "trace"])
        .args(["-e", "trace=getsockopt"])
        .args(["-e", "inject=getsockopt:error=EACCES:when=5"])
        .args(["udgram", "listen", "--peek", "-n1", "s"])
        .start_ready();
    let trace = std::fs::read_to_string(sandbox.path("trace")).unwrap();
    let injected = trace.lines().filter(|line| line.ends_with("(INJECTED)"));
    let injected: Vec<&str> = injected.collect();
    assert_eq!(injected.len(), 1, "{trace}");
    assert!(injected[0].contains("SO_GET_FILTER"), "{trace}");
    client(&sandbox, "s").send(b"1").unwrap();
    peek.finish().succeeds("1\n");
    has_no_filter(&sandbox, &server);
}

#[test]
fn a_kernel_without_bpf_or_a_part_of_it_is_reported() {
    root!();
    peer!("strace", "setpriv");
    let sandbox = Sandbox::new();
    let _server = sandbox.bind("s");
    let strace = |inject: &str| {
        sandbox
            .command("strace", ["-qq", "-f", "-o", "trace"])
            .args(["-e", "trace=bpf,setsockopt", "-e", inject])
            .args(["udgram", "listen", "--peek", "-e", "-n1", "s"])
    };
    for (inject, cause) in [
        (
            "bpf:error=ENOSYS",
            "this kernel has no bpf(2) (CONFIG_BPF_SYSCALL)",
        ),
        (
            "bpf:error=EPERM",
            "Operation not permitted (hint: a seccomp filter may forbid bpf(2), or RLIMIT_MEMLOCK \
             be too small (before Linux 5.11))",
        ),
        (
            "bpf:error=EINVAL:when=2",
            "this kernel has no BPF ring buffers (Linux 5.8)",
        ),
        (
            "bpf:error=EINVAL:when=3..5",
            "this kernel refuses the BPF program (Invalid argument)",
        ),
        // It is not tried again with fewer helpers.
        ("bpf:error=ENFILE:when=3", "File table overflow"),
        (
            "setsockopt:error=ENOMEM",
            "there is not enough memory for a filter (hint: net.core.optmem_max limits the memory \
             of a socket's filter)",
        ),
    ] {
        strace(&format!("inject={inject}"))
            .run()
            .fails(1, format!("udgram: cannot observe 's': {cause}"));
    }
    // Either capability is enough.
    for capability in ["+bpf", "+sys_admin"] {
        sandbox
            .command(
                "setpriv",
                [format!("--bounding-set=-all,+sys_ptrace,{capability}")],
            )
            .args(["strace", "-qq", "-f", "-o", "trace", "-e", "trace=bpf"])
            .args(["-e", "inject=bpf:error=EPERM"])
            .args(["udgram", "listen", "--peek", "s"])
            .run()
            .fails(
                1,
                "udgram: cannot observe 's': Operation not permitted (hint: a seccomp filter may \
                 forbid bpf(2), or RLIMIT_MEMLOCK be too small (before Linux 5.11))",
            );
    }
    // Without some helpers, the times come from another clock.
    for calls in ["3", "3..4"] {
        let inject = format!("inject=bpf:error=EINVAL:when={calls}");
        let peek = strace(&inject).start_ready();
        let now = || {
            sandbox
                .command("date", ["-u", "+%FT%T.%NZ"])
                .run()
                .one_line()
        };
        let before = now();
        client(&sandbox, "s").send(b"1").unwrap();
        let after = now();
        let outcome = peek.finish();
        let line = String::from_utf8(outcome.stdout().to_vec()).unwrap();
        let (time, _) = split_time(&line);
        assert!(
            *before <= *time && *time <= *after,
            "{before} {time} {after}"
        );
    }
    // A signal interrupted the verifier.
    let peek = strace("inject=bpf:error=EAGAIN:when=3..5").start_ready();
    client(&sandbox, "s").send(b"1").unwrap();
    let envelope = peek.finish().one_line();
    assert!(envelope.contains("\"creds\":"), "{envelope}");
    // The third call loads the program with all helpers, the fourth without some.
    let peek = strace("inject=bpf:error=EINVAL:when=3..4").start_ready();
    client(&sandbox, "s").send(b"1").unwrap();
    let outcome = peek.finish();
    let line = String::from_utf8(outcome.stdout().to_vec()).unwrap();
    assert_eq!(timeless(line.trim_end()), r#"{"size":1,"packet":1}"#);
    outcome.mentions(&["warning: envelopes have no creds"]);
}

#[test]
fn each_datagram_is_printed_before_the_next_is_sent() {
    root!();
    let sandbox = Sandbox::new();
    let _server = sandbox.bind("s");
    let mut peek = peek(&sandbox, &["s"]).start_ready();
    let client = client(&sandbox, "s");
    for n in 0..3 {
        client.send(n.to_string().as_bytes()).unwrap();
        assert_eq!(peek.line(), n.to_string());
    }
    peek.signal(Signal::SIGTERM);
    peek.finish()
        .dies_of(Signal::SIGTERM, "0\n1\n2\n")
        .says_nothing();
}
