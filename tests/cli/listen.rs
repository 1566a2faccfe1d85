//! `udgram listen`: prints every packet until it is stopped, and loses none.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::harness::{Peer, Sandbox, close, limited, peer, timeless};

#[test]
fn every_packet_is_printed_as_it_comes() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.listen(["s"]);
    let sender = UnixDatagram::unbound().unwrap();
    for packet in ["1", "{\"a\": 2}", "3"] {
        sender
            .send_to(packet.as_bytes(), sandbox.path("s"))
            .unwrap();
        assert_eq!(running.line(), packet);
    }
    running.signal(Signal::SIGTERM);
    running
        .finish()
        .dies_of(Signal::SIGTERM, "1\n{\"a\": 2}\n3\n")
        .says_nothing();
    assert!(!sandbox.exists("s"));
}

#[test]
fn a_service_manager_is_notified_of_the_start_and_the_end() {
    let sandbox = Sandbox::new();
    let running = sandbox.listen(["s"]);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.notification(), "STOPPING=1");
    running.finish().dies_of(Signal::SIGTERM, "").says_nothing();
    let running = sandbox.listen(["--count", "1", "s"]);
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    assert_eq!(running.notification(), "STOPPING=1");
    running.finish().succeeds("1\n");
}

#[test]
fn a_missing_service_manager_is_not_an_error() {
    let sandbox = Sandbox::new();
    let running = sandbox
        .udgram(["listen", "-n", "1", "s"])
        .env("NOTIFY_SOCKET", sandbox.path("missing"))
        .start();
    running.wait_bound("s");
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    let outcome = running.finish();
    assert_eq!(outcome.code(), Some(0));
    assert_eq!(outcome.stdout(), b"1\n");
}

#[test]
fn listen_ends_after_count_packets() {
    let sandbox = Sandbox::new();
    let running = sandbox.listen(["--count", "2", "s"]);
    sandbox.udgram(["send", "s", "1", "2"]).run().succeeds("");
    running.finish().succeeds("1\n2\n");
}

#[test]
fn a_timeout_without_packets_is_status_0() {
    let sandbox = Sandbox::new();
    let start = Instant::now();
    sandbox
        .listen(["--timeout", "100ms", "s"])
        .finish()
        .succeeds("");
    assert!(start.elapsed() >= Duration::from_millis(100));
}

#[test]
fn a_timeout_before_count_packets_is_status_124() {
    let sandbox = Sandbox::new();
    sandbox
        .listen(["--timeout", "50ms", "--count", "1", "s"])
        .finish()
        .refuses(124, &["packet"]);
}

#[test]
fn a_datagram_that_is_not_a_valid_packet_is_reported_and_the_next_ones_are_printed() {
    let sandbox = Sandbox::new();
    let running = sandbox.listen(["--count", "3", "s"]);
    let sender = UnixDatagram::unbound().unwrap();
    for datagram in ["1", "oops", "3"] {
        sender
            .send_to(datagram.as_bytes(), sandbox.path("s"))
            .unwrap();
    }
    running
        .finish()
        .ends(3, "1\n3\n")
        .mentions(&["unnamed", "byte 0"]);
}

#[test]
fn listen_dies_of_a_signal_also_after_a_parse_error() {
    let sandbox = Sandbox::new();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let running = sandbox.listen(["s"]);
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"oops", sandbox.path("s")).unwrap();
        running.wait_stderr("byte 0");
        running.signal(signal);
        running.finish().dies_of(signal, "").mentions(&["byte 0"]);
        assert!(!sandbox.exists("s"));
    }
}

#[test]
fn a_closed_reader_of_stdout_ends_listen_although_no_packet_comes() {
    let sandbox = Sandbox::new();
    let (reader, writer) = crate::harness::pipe();
    let running = sandbox
        .udgram(["listen", "s"])
        .stdout_to(writer)
        .start_ready();
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    let mut lines = BufReader::new(reader);
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "1\n");
    drop(lines);
    running.finish().dies_of(Signal::SIGPIPE, "").says_nothing();
    assert!(!sandbox.exists("s"));
}

#[test]
fn nothing_is_lost_or_reordered_when_standard_output_is_read_slowly() {
    let sandbox = Sandbox::new();
    let (reader, writer) = crate::harness::pipe();
    let running = sandbox
        .udgram(["listen", "-n", "10000", "s"])
        .stdout_to(writer)
        .start_ready();
    let padding = "x".repeat(100);
    let lines: Vec<String> = (0..10_000)
        .map(|n| format!("[{n},\"{padding}\"]"))
        .collect();
    let sender = sandbox
        .udgram(["send", "s"])
        .stdin(lines.join("\n"))
        .start();
    // A line at a time, through a buffer of one line: slower than any sender.
    let mut reader = BufReader::with_capacity(128, reader);
    for wanted in &lines {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), wanted);
    }
    sender.finish().succeeds("");
    running.finish().succeeds("");
}

#[test]
fn a_standard_output_that_nobody_reads_holds_the_senders_back() {
    let sandbox = Sandbox::new();
    let (reader, writer) = crate::harness::pipe();
    let running = sandbox
        .udgram(["listen", "-n", "3000", "s"])
        .stdout_to(writer)
        .start_ready();
    let line = format!("\"{}\"\n", "x".repeat(1000));
    let sender = sandbox
        .udgram(["send", "s"])
        .stdin(line.repeat(3000))
        .start();
    let mut lines = BufReader::new(reader).lines();
    assert!(
        lines
            .by_ref()
            .take(3000)
            .all(|got| got.unwrap() == line.trim_end())
    );
    sender.finish().succeeds("");
    running.finish().succeeds("");
}

#[test]
fn everything_taken_from_the_queue_is_written_when_a_signal_comes_in_a_burst() {
    let sandbox = Sandbox::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGTERM] {
        let mut running = sandbox.listen(["s"]);
        let path = sandbox.path("s");
        let sender = std::thread::spawn(move || {
            let socket = limited(UnixDatagram::unbound().unwrap());
            // Until the socket is gone: what the kernel took is what must be printed.
            (0..100_000_000_u32)
                .take_while(|n| socket.send_to(n.to_string().as_bytes(), &path).is_ok())
                .count()
        });
        for n in 0..100 {
            assert_eq!(running.line(), n.to_string());
        }
        running.signal(signal);
        let accepted = sender.join().unwrap();
        let wanted: Vec<String> = (0..accepted).map(|n| format!("{n}\n")).collect();
        running
            .finish()
            .dies_of(signal, wanted.concat())
            .says_nothing();
    }
}

#[test]
fn each_packet_begins_the_time_to_the_next_anew() {
    let sandbox = Sandbox::new();
    let socket = sandbox.bind("s");
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    let start = Instant::now();
    sandbox
        .udgram([
            "listen",
            "--timeout",
            "1s",
            "--exec",
            "sleep 1.2",
            "-s",
            "5",
        ])
        .descriptor(&socket, 5)
        .run()
        .succeeds("1\n");
    assert!(start.elapsed() >= Duration::from_millis(2200));
}

#[test]
fn a_blocked_standard_output_does_not_keep_listen_from_dying() {
    let sandbox = Sandbox::new();
    let (reader, writer) = crate::harness::pipe();
    let running = sandbox
        .udgram(["listen", "s"])
        .stdout_to(writer)
        .start_ready();
    let line = format!("\"{}\"\n", "x".repeat(1000));
    let sender = sandbox
        .udgram(["send", "-t", "500ms", "s"])
        .stdin(line.repeat(10_000))
        .start();
    assert_eq!(sender.finish().code(), Some(124), "the queue is full now");
    running.signal(Signal::SIGTERM);
    let outcome = running.finish();
    let _ = outcome.dies_of(Signal::SIGTERM, "");
    assert!(!sandbox.exists("s"));
    close(reader);
}

#[test]
fn datagrams_are_echoed_unchanged_to_their_sender() {
    let sandbox = Sandbox::new();
    let running = sandbox.listen(["--echo", "-n", "2", "s"]);
    let peer = sandbox.bind("peer");
    peer.send_to(b"[1, 2]", sandbox.path("s")).unwrap();
    assert_eq!(peer.take(), b"[1, 2]");
    peer.send_to(b"\xffoops", sandbox.path("s")).unwrap();
    assert_eq!(peer.take(), b"\xffoops");
    running.finish().ends(3, "[1, 2]\n").mentions(&["byte 0"]);
}

#[test]
fn an_echo_to_an_unnamed_sender_is_reported_and_the_next_packet_is_answered() {
    let sandbox = Sandbox::new();
    let running = sandbox.listen(["--echo", "-n", "2", "s"]);
    UnixDatagram::unbound()
        .unwrap()
        .send_to(b"1", sandbox.path("s"))
        .unwrap();
    let peer = sandbox.bind("peer");
    peer.send_to(b"2", sandbox.path("s")).unwrap();
    assert_eq!(peer.take(), b"2");
    running
        .finish()
        .ends(0, "1\n2\n")
        .says("udgram: warning: a packet cannot be answered: its sender has no address");
}

#[test]
fn an_echo_does_not_wait_for_ever_for_a_sender_that_does_not_read() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.listen(["--echo", "s"]);
    let deaf = sandbox.bind("deaf");
    let room = sandbox.fill("deaf");
    deaf.send_to(b"1", sandbox.path("s")).unwrap();
    assert_eq!(running.line(), "1");
    for _ in 0..room {
        assert_eq!(deaf.take(), b"0");
    }
    running.signal(Signal::SIGTERM);
    let outcome = running.finish();
    let _ = outcome.dies_of(Signal::SIGTERM, "1\n");
}

#[test]
fn a_command_runs_for_each_packet_and_its_output_is_the_reply() {
    let sandbox = Sandbox::new();
    let running = sandbox.listen(["--exec", "tr a-z A-Z", "-p", "text", "-n", "2", "s"]);
    for (question, answer) in [("one", "ONE\n"), ("two\n", "TWO\n")] {
        sandbox
            .udgram(["send", "--reply", "-p", "text", "s", question])
            .run()
            .succeeds(answer);
    }
    running.finish().succeeds("one\ntwo\n");
}

#[test]
fn the_reply_of_a_command_loses_one_final_newline_unless_the_protocol_is_raw() {
    let sandbox = Sandbox::new();
    for (protocol, reply) in [("json", &b"1\n"[..]), ("text", b"1\n"), ("raw", b"1\n\n")] {
        let running =
            sandbox.listen(["--exec", "printf '1\\n\\n'", "-p", protocol, "-n", "1", "s"]);
        let peer = sandbox.bind(format!("peer-{protocol}"));
        peer.send_to(b"0", sandbox.path("s")).unwrap();
        assert_eq!(peer.take(), reply, "{protocol}");
        assert_eq!(running.finish().code(), Some(0));
    }
}

#[test]
fn a_command_without_output_sends_no_reply() {
    let sandbox = Sandbox::new();
    let running = sandbox.listen(["--exec", "cat >got", "-n", "1", "s"]);
    let peer = sandbox.bind("peer");
    peer.send_to(b"[1,\n2]", sandbox.path("s")).unwrap();
    running.finish().succeeds("[1,2]\n");
    peer.has_nothing_more();
    assert_eq!(std::fs::read(sandbox.path("got")).unwrap(), b"[1,\n2]");
}

#[test]
fn a_commands_environment_names_the_sender() {
    let sandbox = Sandbox::new();
    let script = "echo \"\\\"$UDGRAM_FROM $UDGRAM_PID $UDGRAM_UID $UDGRAM_GID\\\"\"";
    let running = sandbox.listen(["--exec", script, "-n", "1", "s"]);
    let sender = sandbox
        .udgram(["send", "--reply", "--bind", "me", "s", "1"])
        .start();
    let pid = sender.pid();
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let from = sandbox.path("me").display().to_string();
    sender
        .finish()
        .succeeds(format!("\"{from} {pid} {uid} {gid}\"\n"));
    running.finish().succeeds("1\n");
}

#[test]
fn a_command_gets_the_descriptors_of_the_packet() {
    let sandbox = Sandbox::new();
    sandbox.file("file", "\"content\"");
    let running = sandbox.listen(["--exec", "cat <&3", "-n", "1", "s"]);
    sandbox
        .shell("exec udgram send --reply --fd 5 s 1 5<file")
        .run()
        .succeeds("\"content\"\n");
    running.finish().succeeds("1\n");
}

#[test]
fn a_command_that_fails_is_reported_and_the_next_packet_is_served() {
    let sandbox = Sandbox::new();
    let running = sandbox.listen(["--exec", "read x; test $x = 2 && echo $x", "-n", "2", "s"]);
    let peer = sandbox.bind("peer");
    peer.send_to(b"1", sandbox.path("s")).unwrap();
    peer.send_to(b"2", sandbox.path("s")).unwrap();
    assert_eq!(peer.take(), b"2");
    let outcome = running.finish();
    assert_eq!(outcome.stdout(), b"1\n2\n");
    let lines = outcome.diagnostics();
    assert!(lines.len() == 1 && lines[0].contains("status"), "{lines:?}");
}

#[test]
fn commands_run_one_at_a_time_and_in_order_and_lose_nothing() {
    let sandbox = Sandbox::new();
    let running = sandbox.listen([
        "--exec",
        "mkdir busy || echo overlap >>log; cat >>log; echo >>log; rmdir busy",
        "-n",
        "60",
        "s",
    ]);
    let lines: Vec<String> = (0..60).map(|n| format!("{n}\n")).collect();
    sandbox
        .udgram(["send", "s"])
        .stdin(lines.concat())
        .run()
        .succeeds("");
    running.finish().succeeds(lines.concat());
    assert_eq!(
        std::fs::read_to_string(sandbox.path("log")).unwrap(),
        lines.concat()
    );
}

#[test]
fn a_receiver_of_one_peer_takes_nothing_from_others() {
    let sandbox = Sandbox::new();
    let friend = sandbox.bind("friend");
    let running = sandbox.listen(["--connect", "friend", "-n", "1", "s"]);
    sandbox
        .udgram(["send", "s", "\"stranger\""])
        .run()
        .refuses(1, &["'s'", "Operation not permitted", "connected"]);
    friend.send_to(b"\"friend\"", sandbox.path("s")).unwrap();
    running.finish().succeeds("\"friend\"\n");
}

#[test]
fn credentials_make_envelopes() {
    let sandbox = Sandbox::new();
    let running = sandbox.listen(["--creds", "-n", "1", "s"]);
    let sender = sandbox.udgram(["send", "--bind", "me", "s", "1"]).start();
    let pid = sender.pid();
    sender.finish().succeeds("");
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let from = sandbox.path("me").display().to_string();
    // The name of a command is there unless its process has been reaped already.
    let line = running.finish().one_line();
    let line = line.replace(",\"comm\":\"udgram\"", "");
    assert_eq!(
        timeless(&line),
        format!(
            "{{\"from\":\"{from}\",\"size\":1,\"packet\":1,\
             \"creds\":{{\"pid\":{pid},\"uid\":{uid},\"gid\":{gid}}}}}"
        )
    );
}

#[test]
fn an_unnamed_sender_after_a_named_one_is_not_mistaken_for_it() {
    let sandbox = Sandbox::new();
    let running = sandbox.listen(["-e", "-n", "4", "s"]);
    let named = sandbox.bind("a-rather-long-name");
    let unnamed = UnixDatagram::unbound().unwrap();
    for socket in [&named, &unnamed, &named, &unnamed] {
        socket.send_to(b"1", sandbox.path("s")).unwrap();
    }
    let lines = running.finish().lines();
    let from = serde_json::to_string(&sandbox.path("a-rather-long-name")).unwrap();
    for (line, from) in lines.iter().zip([from.as_str(), "null", &from, "null"]) {
        assert_eq!(
            timeless(line),
            format!("{{\"from\":{from},\"size\":1,\"packet\":1}}")
        );
    }
}

#[test]
fn a_listener_whose_file_was_renamed_waits_after_every_further_change() {
    peer!("strace");
    let sandbox = Sandbox::new();
    let mut running = sandbox
        .command(
            "strace",
            [
                "-f",
                "-qq",
                "-e",
                "trace=poll,ppoll,?ppoll_time64",
                "-o",
                "calls",
            ],
        )
        .arg(env!("CARGO_BIN_EXE_udgram"))
        .args(["listen", "-n", "3", "s"])
        .start();
    running.wait_bound(sandbox.path("s"));
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(sandbox.path("s")).unwrap();
    std::fs::rename(sandbox.path("s"), sandbox.path("t")).unwrap();
    running.wait_stderr("the socket file was removed");
    std::fs::remove_file(sandbox.path("t")).unwrap();
    for packet in ["1", "2", "3"] {
        sender.send(packet.as_bytes()).unwrap();
        assert_eq!(running.line(), packet);
    }
    running.finish().mentions(&["the socket file was removed"]);
    let calls = std::fs::read_to_string(sandbox.path("calls")).unwrap();
    let waits = calls.lines().count();
    assert!(waits < 50, "{waits} waits:\n{calls}");
}

#[test]
fn a_taken_over_listener_does_not_remove_its_successors_file() {
    let sandbox = Sandbox::new();
    let old = sandbox.listen(["s"]);
    let mut new = sandbox.listen(["--replace", "s"]);
    // It may see the moment between the removal of its file and the new one.
    old.wait_stderr("the socket file was ");
    old.signal(Signal::SIGTERM);
    old.finish()
        .dies_of(Signal::SIGTERM, "")
        .mentions(&["the socket file was "]);
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    assert_eq!(new.line(), "1");
    new.signal(Signal::SIGTERM);
    new.finish().dies_of(Signal::SIGTERM, "1\n").says_nothing();
    assert!(!sandbox.exists("s"));
}

#[test]
fn ten_thousand_received_descriptors_are_all_closed() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.listen(["-q", "s"]);
    let sender = limited(UnixDatagram::unbound().unwrap());
    sender.send_to(b"0", sandbox.path("s")).unwrap();
    assert_eq!(running.line(), "0");
    let before = running.open_descriptors();
    for _ in 0..100 {
        crate::sys::send_descriptors(&sender, &sandbox.path("s"), b"1", &[sender.as_fd(); 100]);
    }
    for _ in 0..100 {
        assert_eq!(running.line(), "1");
    }
    sender.send_to(b"2", sandbox.path("s")).unwrap();
    assert_eq!(running.line(), "2");
    assert_eq!(running.open_descriptors(), before);
    running.signal(Signal::SIGTERM);
    let _ = running.finish();
}

#[test]
fn systemd_notify_finishes_at_once_with_its_barrier() {
    peer!("systemd-notify");
    let sandbox = Sandbox::new();
    let running = sandbox.listen(["-q", "-p", "text", "-n", "2", "s"]);
    sandbox
        .command("systemd-notify", ["--ready"])
        .env("NOTIFY_SOCKET", sandbox.path("s"))
        .run()
        .succeeds("");
    running.finish().succeeds("READY=1\nBARRIER=1\n");
}

#[test]
fn systemd_socket_activate_starts_a_listener() {
    peer!("systemd-socket-activate");
    let sandbox = Sandbox::new();
    let path = sandbox.path("s");
    let mut running = sandbox
        .command("systemd-socket-activate", ["-d", "-l"])
        .arg(&path)
        .args(["udgram", "listen"])
        .start();
    running.wait_bound("s");
    sandbox.udgram(["send", "s", "1", "2"]).run().succeeds("");
    assert_eq!([running.line(), running.line()], ["1", "2"]);
    running.signal(Signal::SIGTERM);
    let _ = running.finish().dies_of(Signal::SIGTERM, "1\n2\n");
    assert!(
        sandbox.exists("s"),
        "the file of an activated socket is not ours to remove"
    );
}

#[test]
fn a_second_signal_ends_a_command_that_has_closed_its_output() {
    let sandbox = Sandbox::new();
    let listen = sandbox
        .udgram([
            "listen",
            "-p",
            "text",
            "s",
            "--exec",
            "exec >&-; : >closed; exec cat fifo",
        ])
        .start_ready();
    nix::unistd::mkfifo(&sandbox.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let watch = crate::running::Watch::on(sandbox.dir());
    sandbox
        .udgram(["send", "-p", "text", "s", "1"])
        .run()
        .succeeds("");
    let _ = watch.created(&listen, |name| name == "closed");
    listen.signal(Signal::SIGTERM);
    listen.signal(Signal::SIGINT);
    let outcome = listen.finish();
    assert_eq!(outcome.stdout(), b"1\n");
    assert!(!sandbox.exists("s"));
}

#[test]
fn no_more_packets_than_the_count_are_printed_after_a_signal() {
    let sandbox = Sandbox::new();
    let running = sandbox.listen(["-n", "2", "s"]);
    running.wait_asleep();
    running.stop();
    let sender = UnixDatagram::unbound().unwrap();
    for packet in [b"1", b"2", b"3", b"4", b"5"] {
        sender.send_to(packet, sandbox.path("s")).unwrap();
    }
    running.signal(Signal::SIGTERM);
    running.resume();
    let _ = running.finish().dies_of(Signal::SIGTERM, "1\n2\n");
}

#[test]
fn a_blocked_standard_output_and_a_lost_socket_file_do_not_keep_listen_from_dying() {
    let sandbox = Sandbox::new();
    let (mut reader, writer) = crate::harness::pipe();
    let pipe = writer.try_clone().unwrap();
    let is_full = || {
        let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
        poll(&mut polled, PollTimeout::ZERO) == Ok(0)
    };
    let running = sandbox
        .udgram(["listen", "s"])
        .stdout_to(writer)
        .start_ready();
    let line = format!("\"{}\"\n", "x".repeat(1000));
    let sender = sandbox
        .udgram(["send", "-t", "500ms", "s"])
        .stdin(line.repeat(10_000))
        .start();
    assert_eq!(sender.finish().code(), Some(124), "the queue is full now");
    assert!(is_full());
    std::fs::remove_file(sandbox.path("s")).unwrap();
    // It goes on where it waits, and then has both: the loss to report, and a pipe that is full.
    std::io::Read::read_exact(&mut reader, &mut [0; 8192]).unwrap();
    while !is_full() {
        std::thread::yield_now();
    }
    running.signal(Signal::SIGTERM);
    let _ = running.finish().dies_of(Signal::SIGTERM, "");
}
