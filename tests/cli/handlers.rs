//! The commands of `listen --exec`: their environment, their end, and what they do not delay.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::harness::{Peer, Sandbox, close, fifo, limited, peer};
use crate::running::Watch;
use crate::sys::{peak_memory, send_descriptors};

#[test]
fn a_background_child_that_keeps_the_output_open_does_not_delay_the_next_packet() {
    let sandbox = Sandbox::new();
    let fifo = fifo(&sandbox, "fifo");
    let server = sandbox.listen([
        "--exec",
        "exec 8<fifo; cat <&8 2>&1 & echo answer",
        "-p",
        "text",
        "-n",
        "2",
        "s",
    ]);
    let client = sandbox.bind("client");
    for _ in 0..2 {
        client.send_to(b"question", sandbox.path("s")).unwrap();
        assert_eq!(client.take(), b"answer");
    }
    close(fifo);
    server.finish().succeeds("question\nquestion\n");
}

#[test]
fn a_background_child_that_never_stops_printing_does_not_delay_the_next_packet() {
    let sandbox = Sandbox::new();
    // It ends when its output is closed.
    let server = sandbox.listen(["--exec", "yes 2>&1 & exit 0", "-p", "text", "-n", "2", "s"]);
    for packet in ["one", "two"] {
        sandbox
            .udgram(["send", "-p", "text", "s", packet])
            .run()
            .succeeds("");
    }
    let outcome = server.finish();
    assert_eq!(outcome.stdout(), b"one\ntwo\n");
}

#[test]
fn a_command_that_prints_more_than_a_datagram_carries_is_ended_and_reported() {
    let sandbox = Sandbox::new();
    let server = sandbox.listen([
        "--exec",
        "read line; test \"$line\" = end && echo done || yes",
        "-p",
        "text",
        "s",
    ]);
    let client = sandbox.bind("client");
    client.send_to(b"endless\n", sandbox.path("s")).unwrap();
    client.send_to(b"end\n", sandbox.path("s")).unwrap();
    assert_eq!(client.take(), b"done");
    let peak = peak_memory(server.pid());
    assert!(peak < 100_000 << 10, "{peak} bytes");
    server.signal(Signal::SIGTERM);
    server.finish().dies_of(Signal::SIGTERM, "endless\nend\n").says(
        "udgram: warning: 'read line; test \"$line\" = end && echo done || yes' was ended: it printed more than a datagram carries",
    );
}

#[test]
fn an_interrupt_from_the_terminal_lets_the_running_command_finish() {
    let sandbox = Sandbox::new();
    let mut fifo = fifo(&sandbox, "fifo");
    let server = sandbox.listen(["--exec", ": >started; read x <fifo; echo $x", "s"]);
    let watch = Watch::on(sandbox.dir());
    let client = sandbox.bind("client");
    client.send_to(b"1", sandbox.path("s")).unwrap();
    let _ = watch.created(&server, |name| name == "started");
    // The terminal sends it to the whole process group.
    killpg(Pid::from_raw(server.pid()), Signal::SIGINT).unwrap();
    fifo.write_all(b"2\n").unwrap();
    assert_eq!(client.take(), b"2");
    server
        .finish()
        .dies_of(Signal::SIGINT, "1\n")
        .says_nothing();
}

#[test]
fn a_second_signal_ends_the_command_and_what_it_has_started() {
    let sandbox = Sandbox::new();
    let _fifo = fifo(&sandbox, "fifo");
    let server = sandbox.listen(["--exec", ": >started; cat fifo; true", "s"]);
    let watch = Watch::on(sandbox.dir());
    let client = sandbox.bind("client");
    client.send_to(b"1", sandbox.path("s")).unwrap();
    let _ = watch.created(&server, |name| name == "started");
    server.signal(Signal::SIGINT);
    server.signal(Signal::SIGTERM);
    // Its end includes the end of stderr, which cat has.
    let outcome = server.finish();
    assert_eq!(outcome.stdout(), b"1\n");
    client.has_nothing_more();
}

#[test]
fn no_command_is_started_after_a_second_signal() {
    let sandbox = Sandbox::new();
    let _fifo = fifo(&sandbox, "fifo");
    let server = sandbox.listen(["--exec", ": >started; cat fifo; true", "s"]);
    let watch = Watch::on(sandbox.dir());
    let client = sandbox.bind("client");
    for packet in [b"1", b"2", b"3"] {
        client.send_to(packet, sandbox.path("s")).unwrap();
    }
    let _ = watch.created(&server, |name| name == "started");
    server.signal(Signal::SIGINT);
    server.signal(Signal::SIGTERM);
    let outcome = server.finish();
    assert_eq!(outcome.stdout(), b"1\n2\n3\n");
    outcome.mentions(&["stopped: 2 more of the packets printed were not answered"]);
    client.has_nothing_more();
}

#[test]
fn a_commands_environment_has_no_variable_meant_for_udgram() {
    let sandbox = Sandbox::new();
    let script = "env | grep -E '^(LISTEN|WATCHDOG|NOTIFY|UDGRAM)' | sort";
    let server = sandbox
        .udgram(["listen", "--exec", script, "-p", "text", "-n", "1", "s"])
        .env("WATCHDOG_PID", "1")
        .env("WATCHDOG_USEC", "1")
        .env("UDGRAM_SOCKET_FD", "0")
        .env("UDGRAM_SOCKET_INODE", "1")
        .env("UDGRAM_PEER", "peer")
        .env("UDGRAM_PACKET", "packet")
        .env("UDGRAM_FDS", "9")
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "name")
        .env("LISTEN_PIDFDID", "1")
        .start_ready();
    let client = limited(crate::harness::bind_abstract(sandbox.unique()));
    client.send_to(b"1", sandbox.path("s")).unwrap();
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    assert_eq!(
        String::from_utf8(client.take()).unwrap(),
        format!(
            "UDGRAM_FDS=0\nUDGRAM_FROM=@{}\nUDGRAM_GID={gid}\nUDGRAM_PID={}\nUDGRAM_UID={uid}",
            sandbox.unique(),
            std::process::id()
        )
    );
    server.finish().succeeds("1\n");
}

#[test]
fn without_a_shell_listen_ends_with_the_first_packet() {
    let sandbox = Sandbox::new();
    let mut listen = sandbox
        .udgram(["listen", "--exec", "cat", "s"])
        .env("PATH", "/nonexistent")
        .start_ready();
    let client = sandbox.bind("client");
    client.send_to(b"1", sandbox.path("s")).unwrap();
    assert_eq!(listen.line(), "1");
    listen
        .finish()
        .ends(127, "1\n")
        .says("udgram: cannot run 'sh': No such file or directory");
    assert!(!sandbox.exists("s"));
}

#[test]
fn a_command_that_cannot_be_started_is_reported_and_the_next_packet_is_served() {
    peer!("strace");
    let sandbox = Sandbox::new();
    let listen = sandbox
        .command("strace", ["-f", "-qq", "-o", "trace"])
        .args(["-e", "inject=memfd_create:error=EMFILE:when=1"])
        .args(["udgram", "listen", "-n", "2", "--exec", "cat", "s"])
        .start_ready();
    let client = sandbox.bind("client");
    client.send_to(b"1", sandbox.path("s")).unwrap();
    client.send_to(b"2", sandbox.path("s")).unwrap();
    assert_eq!(client.take(), b"2");
    listen
        .finish()
        .ends(126, "1\n2\n")
        .says("udgram: cannot hold the packet: Too many open files");
}

#[test]
fn a_packet_whose_line_finds_no_reader_of_stdout_is_named_and_starts_no_command() {
    let sandbox = Sandbox::new();
    let (reader, writer) = crate::harness::full_pipe();
    let listen = sandbox
        .udgram(["listen", "--exec", ": >ran", "s"])
        .stdout_to(writer)
        .start_ready();
    let client = sandbox.bind("client");
    client.send_to(b"1", sandbox.path("s")).unwrap();
    crate::sys::wait_received(&client);
    listen.wait_asleep();
    close(reader);
    listen.finish().dies_of(Signal::SIGPIPE, "").says(format!(
        "udgram: warning: stopped: the packet of '{}' was not handled",
        sandbox.path("client").display()
    ));
    assert!(!sandbox.exists("ran"));
}

/// Prints the descriptors from 3 to 9 that the command has, and how many it is told of.
const DESCRIPTORS: &str =
    "for n in 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$n ] && printf %s $n; done; echo \" $UDGRAM_FDS\"";

#[test]
fn a_command_that_begins_with_a_hyphen_is_no_option_of_the_shell() {
    let sandbox = Sandbox::new();
    let server = sandbox.listen(["--exec=-x; echo answer", "-n", "1", "s"]);
    let client = sandbox.bind("client");
    client.send_to(b"1", sandbox.path("s")).unwrap();
    assert_eq!(client.take(), b"answer");
    let _ = server.finish().ends(0, "1\n");
}

#[test]
fn a_command_has_the_descriptors_of_its_packet_and_no_other() {
    let sandbox = Sandbox::new();
    let null = File::open("/dev/null").unwrap();
    let server = sandbox
        .udgram([
            "listen",
            "--exec",
            DESCRIPTORS,
            "-p",
            "text",
            "-n",
            "3",
            "s",
        ])
        .descriptor(&null, 3)
        .descriptor(&null, 7)
        .start_ready();
    let client = sandbox.bind("client");
    for (count, found) in [(0, " 0"), (2, "34 2"), (0, " 0")] {
        if count == 0 {
            client.send_to(b"1", sandbox.path("s")).unwrap();
        } else {
            let descriptors = vec![null.as_fd(); count];
            send_descriptors(&client, &sandbox.path("s"), b"1", &descriptors);
        }
        assert_eq!(String::from_utf8(client.take()).unwrap(), found);
    }
    server.finish().succeeds("1\n1\n1\n");
}

#[test]
fn a_command_does_not_have_the_inherited_socket() {
    let sandbox = Sandbox::new();
    let socket = sandbox.bind("s");
    let server = sandbox
        .udgram(["listen", "--exec", DESCRIPTORS, "-p", "text", "-n", "1"])
        .args(["--socket-fd", "3"])
        .descriptor(&socket, 3)
        .start_ready();
    let client = limited(crate::harness::bind_abstract(sandbox.unique()));
    client.send_to(b"1", sandbox.path("s")).unwrap();
    assert_eq!(client.take(), b" 0");
    server.finish().succeeds("1\n");
}

#[test]
fn envelopes_show_the_numbers_that_the_command_has() {
    let sandbox = Sandbox::new();
    let null = File::open("/dev/null").unwrap();
    let server = sandbox.listen(["-e", "--exec", "true", "-n", "1", "s"]);
    let client = UnixDatagram::unbound().unwrap();
    let descriptors = [null.as_fd(), null.as_fd()];
    send_descriptors(&client, &sandbox.path("s"), b"1", &descriptors);
    let line = server.finish().one_line();
    let envelope: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(envelope["fds"][0]["fd"], 3, "{line}");
    assert_eq!(envelope["fds"][1]["fd"], 4, "{line}");
}

#[test]
fn kernels_without_pidfd_open_and_close_range_serve_the_same() {
    peer!("strace");
    let sandbox = Sandbox::new();
    let fifo = fifo(&sandbox, "fifo");
    let null = File::open("/dev/null").unwrap();
    let script = format!("exec 8<fifo; cat <&8 2>&1 & exec 8<&-; {DESCRIPTORS}");
    let server = sandbox
        .command("strace", ["-f", "-qq", "-o", "trace"])
        .args(["-e", "trace=pidfd_open,close_range"])
        .args(["-e", "inject=pidfd_open,close_range:error=ENOSYS"])
        .args(["udgram", "listen", "--exec", &script])
        .args(["-p", "text", "-n", "2", "s"])
        .descriptor(&null, 7)
        .start_ready();
    let client = sandbox.bind("client");
    for _ in 0..2 {
        client.send_to(b"1", sandbox.path("s")).unwrap();
        assert_eq!(client.take(), b" 0");
    }
    close(fifo);
    let outcome = server.finish();
    assert_eq!(outcome.code(), Some(0));
    let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
    for call in ["pidfd_open", "close_range"] {
        assert!(trace.contains(call), "{trace}");
    }
}

/// The number in `udgram: warning: stopped: N more of the packets …`; 0 without it.
fn unhandled(lines: &[String]) -> usize {
    let number = lines.iter().find_map(|line| {
        let rest = line.strip_prefix("udgram: warning: stopped: ")?;
        rest.split_once(" more of the packets printed were not answered")?
            .0
            .parse()
            .ok()
    });
    number.unwrap_or(0)
}

#[test]
fn a_blocked_standard_output_does_not_keep_a_signal_from_ending_listen() {
    let sandbox = Sandbox::new();
    let (reader, writer) = crate::harness::pipe();
    let server = sandbox
        .udgram(["listen", "-p", "text", "--exec", "echo >>log", "s"])
        .stdout_to(writer)
        .start_ready();
    let line = format!("{}\n", "x".repeat(30_000));
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    let mut accepted = 0;
    // Until the pipe and the queue are full; how far the server has come does not matter.
    while accepted < 3 || sender.send_to(line.as_bytes(), sandbox.path("s")).is_ok() {
        if accepted < 3 {
            sender.set_nonblocking(false).unwrap();
            sender.send_to(line.as_bytes(), sandbox.path("s")).unwrap();
            sender.set_nonblocking(true).unwrap();
        }
        accepted += 1;
    }
    server.signal(Signal::SIGTERM);
    let outcome = server.finish().dies_of(Signal::SIGTERM, "");
    close(reader);
    let lines = outcome.diagnostics();
    assert!(
        lines
            .iter()
            .any(|line| line.contains("stdout takes nothing more")),
        "{lines:?}"
    );
    let handled = fs::read_to_string(sandbox.path("log")).unwrap().len();
    assert_eq!(handled + unhandled(&lines), accepted, "{lines:?}");
    assert!(!sandbox.exists("s"));
}

#[test]
fn what_is_queued_at_the_end_is_handled_for_a_second_and_the_rest_is_counted() {
    let sandbox = Sandbox::new();
    let mut fifo = fifo(&sandbox, "fifo");
    let script = "echo >>log; test -e hurry && sleep 0.4 || read x <fifo";
    let mut server = sandbox.listen(["--exec", script, "s"]);
    let sender = limited(UnixDatagram::unbound().unwrap());
    sender.send_to(b"0", sandbox.path("s")).unwrap();
    assert_eq!(server.line(), "0");
    for _ in 0..10 {
        sender.send_to(b"1", sandbox.path("s")).unwrap();
    }
    sandbox.file("hurry", "");
    server.signal(Signal::SIGTERM);
    fifo.write_all(b"\n").unwrap();
    let outcome = server
        .finish()
        .dies_of(Signal::SIGTERM, format!("0\n{}", "1\n".repeat(10)));
    let lines = outcome.diagnostics();
    let handled = fs::read_to_string(sandbox.path("log")).unwrap().len();
    assert_eq!(handled + unhandled(&lines), 11, "{lines:?}");
    assert!(unhandled(&lines) >= 7, "{lines:?}");
}
