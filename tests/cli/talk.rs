//! `udgram talk`: lines of stdin go out as they come, packets of the peer are printed as they come.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::poll::poll;
use nix::sys::signal::Signal;

use crate::harness::{NO_WPA_SUPPLICANT, Peer, Sandbox, close, peer, skip, text, timeless};
use crate::running::Running;

/// Starts a conversation at a terminal with the peer `s`.
fn at_a_terminal(sandbox: &Sandbox, options: &str) -> Running {
    let command = format!("stty -echo; exec udgram talk {options} s");
    sandbox
        .command("script", ["-qefc", &command, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .env("TERM", "dumb")
        .stdin_open()
        .start()
}

/// Reads lines until one contains this text.
#[track_caller]
fn until(talk: &mut Running, text: &str) {
    while !talk.line().contains(text) {}
}

/// Takes the next datagram, as text, and its sender.
#[track_caller]
fn next(peer: &UnixDatagram) -> (String, SocketAddr) {
    let (packet, from) = peer.take_from();
    (String::from_utf8(packet).unwrap(), from)
}

#[track_caller]
fn answer(peer: &UnixDatagram, to: &SocketAddr, line: &str) {
    peer.send_to_addr(line.as_bytes(), to).unwrap();
}

/// Returns what follows the contents of [`crate::harness::full_pipe`].
fn behind_dots(printed: &[u8]) -> &[u8] {
    let dots = printed.iter().take_while(|byte| **byte == b'.').count();
    &printed[dots..]
}

#[test]
fn lines_go_out_and_packets_come_in_at_any_time() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut talk = sandbox
        .udgram(["talk", "-p", "text", "s"])
        .stdin_open()
        .start();
    talk.write("one\n");
    let (packet, from) = next(&peer);
    assert_eq!(packet, "one");
    answer(&peer, &from, "first");
    assert_eq!(talk.line(), "first");
    answer(&peer, &from, "event");
    answer(&peer, &from, "another");
    assert_eq!(talk.line(), "event");
    assert_eq!(talk.line(), "another");
    talk.write("two\nthree\n");
    assert_eq!(peer.take(), b"two");
    assert_eq!(peer.take(), b"three");
    answer(&peer, &from, "last");
    assert_eq!(talk.line(), "last");
    talk.finish().succeeds("first\nevent\nanother\nlast\n");
}

#[test]
fn after_the_end_of_stdin_it_listens_for_a_second_from_the_last_packet_on() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let start = Instant::now();
    let talk = sandbox.udgram(["talk", "s"]).stdin("1\n").start();
    let (_, from) = next(&peer);
    answer(&peer, &from, "2");
    let outcome = talk.finish();
    assert!(start.elapsed() >= Duration::from_secs(1));
    outcome.succeeds("2\n");
}

#[test]
fn the_timeout_is_the_time_after_the_end_of_stdin() {
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("s");
    sandbox.udgram(["talk", "-t", "0", "s"]).run().succeeds("");
    let talk = sandbox.udgram(["talk", "-t", "none", "s"]).start();
    talk.wait_asleep();
    talk.signal(Signal::SIGTERM);
    talk.finish().dies_of(Signal::SIGTERM, "").says_nothing();
}

#[test]
fn a_last_line_without_a_line_end_is_sent() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    sandbox
        .udgram(["talk", "-t", "0", "-p", "text", "s"])
        .stdin("a\n\nb")
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"a");
    assert_eq!(peer.take(), b"");
    assert_eq!(peer.take(), b"b");
}

#[test]
fn raw_lines_keep_their_line_ends() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    sandbox
        .udgram(["talk", "-t", "0", "-p", "raw", "s"])
        .stdin(b"a\xff\n\nb")
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"a\xff\n");
    assert_eq!(peer.take(), b"\n");
    assert_eq!(peer.take(), b"b");
}

#[test]
fn a_bad_line_from_a_pipe_ends_the_input_and_answers_are_still_printed() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut talk = sandbox.udgram(["talk", "s"]).stdin_open().start();
    talk.write("1\nx\n2\n");
    talk.wait_stderr("line 2 is not JSON");
    let (packet, from) = next(&peer);
    assert_eq!(packet, "1");
    answer(&peer, &from, "\"answer\"");
    talk.finish().ends(3, "\"answer\"\n").says(
        "udgram: line 2 is not JSON (column 1); 1 packet was sent (hint: for plain text use -p text)",
    );
    peer.has_nothing_more();
}

#[test]
fn a_packet_that_is_not_valid_is_reported_and_the_status_is_3() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut talk = sandbox.udgram(["talk", "s"]).stdin_open().start();
    talk.write("1\n");
    let (_, from) = next(&peer);
    answer(&peer, &from, "nojson");
    answer(&peer, &from, "2");
    assert_eq!(talk.line(), "2");
    talk.finish()
        .ends(3, "2\n")
        .mentions(&["packet from", "is not JSON (byte 1"]);
}

#[test]
fn without_a_peer_the_status_is_4() {
    let sandbox = Sandbox::new();
    sandbox.udgram(["talk", "s"]).stdin("1\n").run().fails(
        4,
        "udgram: cannot connect to 's': No such file or directory",
    );
}

#[test]
fn a_peer_that_goes_away_ends_a_conversation_from_a_pipe() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut talk = sandbox.udgram(["talk", "s"]).stdin_open().start();
    talk.write("1\n");
    let (_, from) = next(&peer);
    answer(&peer, &from, "\"bye\"");
    close(peer);
    assert_eq!(talk.line(), "\"bye\"");
    talk.wait_stderr("closed");
    talk.finish()
        .ends(4, "\"bye\"\n")
        .says("udgram: 's' has closed its socket");
}

#[test]
fn a_peer_that_goes_away_after_a_rest_ends_a_conversation_from_a_pipe() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut talk = sandbox.udgram(["talk", "s"]).stdin_open().start();
    talk.write("1\n");
    let (_, from) = next(&peer);
    answer(&peer, &from, "2");
    assert_eq!(talk.line(), "2");
    // Several times the interval at which it looks for the peer.
    poll(&mut [], 500_u16).unwrap();
    close(peer);
    talk.wait_stderr("closed");
    talk.finish()
        .ends(4, "2\n")
        .says("udgram: 's' has closed its socket");
}

#[test]
fn a_peer_that_goes_away_after_the_end_of_stdin_is_no_failure() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let talk = sandbox
        .udgram(["talk", "-t", "none", "s"])
        .stdin("1\n")
        .start();
    let (_, from) = next(&peer);
    answer(&peer, &from, "2");
    close(peer);
    talk.finish().succeeds("2\n");
}

#[test]
fn with_wait_it_connects_to_a_peer_that_comes_back_and_loses_no_line() {
    let sandbox = Sandbox::new();
    let mut talk = sandbox
        .udgram(["talk", "-v", "--wait", "s"])
        .stdin_open()
        .start();
    talk.write("1\n");
    talk.wait_watching();
    for round in 0..3 {
        let peer = sandbox.bind("s");
        let (packet, from) = next(&peer);
        assert_eq!(packet, (2 * round + 1).to_string());
        answer(&peer, &from, &format!("\"event {round}\""));
        assert_eq!(talk.line(), format!("\"event {round}\""));
        close(peer);
        // The second and the third time, the peer is away when the line comes.
        fs::remove_file(sandbox.path("s")).unwrap();
        talk.write(format!("{}\n", 2 * round + 3));
        talk.wait_watching();
    }
    let peer = sandbox.bind("s");
    assert_eq!(peer.take(), b"7");
    let outcome = talk.finish();
    let said = outcome.stderr_text();
    for event in [
        "closed its socket: waiting for it",
        "connected to 's' again",
    ] {
        assert_eq!(said.matches(event).count(), 3, "{said}");
    }
    let _ = outcome.ends(0, "\"event 0\"\n\"event 1\"\n\"event 2\"\n");
}

/// Starts `talk`, whose peer has got a line. Returns it, its peer, and the socket that has the name of the peer since.
fn talk_to_a_superseded_peer(sandbox: &Sandbox) -> (Running, UnixDatagram, UnixDatagram) {
    let old = sandbox.bind("s");
    let mut talk = sandbox
        .udgram(["talk", "-v", "-p", "text", "s"])
        .stdin_open()
        .start();
    talk.write("one\n");
    assert_eq!(old.take(), b"one");
    fs::remove_file(sandbox.path("s")).unwrap();
    let new = sandbox.bind("s");
    (talk, old, new)
}

#[test]
fn it_connects_at_once_to_the_socket_that_has_the_address_of_the_peer_that_went_away() {
    let sandbox = Sandbox::new();
    let (mut talk, old, new) = talk_to_a_superseded_peer(&sandbox);
    close(old);
    talk.wait_stderr("connected to 's' again");
    talk.write("two\n");
    let (packet, from) = next(&new);
    assert_eq!(packet, "two");
    answer(&new, &from, "answer");
    assert_eq!(talk.line(), "answer");
    let outcome = talk.finish().ends(0, "answer\n");
    assert!(!outcome.stderr_text().contains("closed"));
}

#[test]
fn a_line_that_the_peer_refuses_goes_to_the_socket_that_has_its_address_now() {
    let sandbox = Sandbox::new();
    let (mut talk, old, new) = talk_to_a_superseded_peer(&sandbox);
    old.shutdown(std::net::Shutdown::Read).unwrap();
    talk.write("two\n");
    assert_eq!(new.take(), b"two");
    let outcome = talk.finish().ends(0, "");
    assert!(outcome.stderr_text().contains("connected to 's' again"));
}

#[test]
fn a_peer_that_has_shut_its_reading_side_is_status_4_or_waited_for() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    peer.shutdown(std::net::Shutdown::Read).unwrap();
    sandbox.udgram(["talk", "s"]).stdin("1\n").run().fails(
        4,
        "udgram: cannot send to 's': the receiver has shut down its reading side",
    );
    let mut talk = sandbox
        .udgram(["talk", "-v", "--wait", "s"])
        .stdin_open()
        .start();
    talk.write("1\n");
    talk.wait_stderr("'s' has closed its socket: waiting for it");
    fs::remove_file(sandbox.path("s")).unwrap();
    let new = sandbox.bind("s");
    assert_eq!(new.take(), b"1");
    assert_eq!(talk.finish().code(), Some(0));
}

#[test]
fn a_peer_that_takes_datagrams_of_another_socket_alone_is_status_1() {
    for wait in [&[][..], &["--wait"]] {
        let sandbox = Sandbox::new();
        let peer = sandbox.bind("s");
        let _other = sandbox.bind("other");
        let mut talk = sandbox
            .udgram(["talk", "s"])
            .args(wait)
            .stdin_open()
            .start();
        talk.write("1\n");
        assert_eq!(peer.take(), b"1");
        peer.connect(sandbox.path("other")).unwrap();
        talk.write("2\n");
        talk.finish().refuses(
            1,
            &["line 2: cannot send to 's'", "Operation not permitted"],
        );
    }
}

#[test]
fn packets_that_were_sent_before_the_peer_went_away_are_printed_before_it_is_noticed() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut talk = sandbox.udgram(["talk", "s"]).stdin_open().start();
    talk.write("1\n");
    let (_, from) = next(&peer);
    talk.stop();
    for number in 2..8 {
        answer(&peer, &from, &number.to_string());
    }
    talk.write("9\n");
    close(peer);
    // It finds both at once: what is queued, and a line that cannot be sent.
    talk.resume();
    talk.finish()
        .ends(4, "2\n3\n4\n5\n6\n7\n")
        .mentions(&["line 2: cannot connect to 's'"]);
}

#[test]
fn all_packets_of_a_peer_without_a_queue_limit_are_printed_before_a_line_is_found_unsendable() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut talk = sandbox.udgram(["talk", "s"]).stdin_open().start();
    talk.write("1\n");
    let (_, from) = next(&peer);
    talk.stop();
    // The queue between two connected sockets has no limit: it holds several batches.
    peer.connect_addr(&from).unwrap();
    let packets: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    for packet in &packets {
        peer.send(packet.as_bytes()).unwrap();
    }
    talk.write("2\n");
    close(peer);
    talk.resume();
    talk.finish()
        .ends(4, packets.join("\n") + "\n")
        .mentions(&["line 2: cannot connect to 's'"]);
}

#[test]
fn nobody_but_the_peer_is_heard() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut talk = sandbox.udgram(["talk", "s"]).stdin_open().start();
    talk.write("1\n");
    let (_, from) = peer.take_from();
    let stranger = UnixDatagram::unbound().unwrap();
    let refused = stranger.send_to_addr(b"666", &from);
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(nix::libc::EPERM));
    drop(talk.finish());
}

#[test]
fn nobody_is_heard_while_the_peer_is_away() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let stranger = UnixDatagram::unbound().unwrap();
    let mut talk = sandbox
        .udgram(["talk", "--wait", "-v", "s"])
        .stdin_open()
        .start();
    talk.write("1\n");
    let (_, from) = peer.take_from();
    close(peer);
    talk.wait_stderr("waiting for it");
    assert_eq!(
        stranger
            .send_to_addr(b"666", &from)
            .unwrap_err()
            .raw_os_error(),
        Some(nix::libc::EPERM)
    );
    talk.signal(Signal::SIGINT);
    let _ = talk.finish().dies_of(Signal::SIGINT, "");
}

#[test]
fn a_full_queue_holds_up_lines_and_not_packets() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut talk = sandbox.udgram(["talk", "s"]).stdin_open().start();
    talk.write("0\n");
    let (_, from) = next(&peer);
    let lines: Vec<String> = (1..=500).map(|number| number.to_string()).collect();
    talk.write(lines.join("\n") + "\n");
    peer.wait_queued();
    for number in 0..100 {
        answer(&peer, &from, &number.to_string());
        assert_eq!(talk.line(), number.to_string());
    }
    for line in lines {
        assert_eq!(peer.take(), line.as_bytes());
    }
    let printed = talk.finish().lines();
    assert_eq!(printed.len(), 100);
}

#[test]
fn a_blocked_stdout_holds_up_packets_and_not_lines() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let (reader, writer) = crate::harness::full_pipe();
    let mut talk = sandbox
        .udgram(["talk", "s"])
        .stdin_open()
        .stdout_to(OwnedFd::from(writer))
        .start();
    talk.write("0\n");
    let (_, from) = next(&peer);
    answer(&peer, &from, "\"held up\"");
    for number in 1..=50 {
        talk.write(format!("{number}\n"));
        assert_eq!(peer.take(), number.to_string().as_bytes());
    }
    let printed = std::thread::spawn(move || crate::harness::content(reader.into()));
    talk.finish().succeeds("");
    assert_eq!(behind_dots(&printed.join().unwrap()), b"\"held up\"\n");
}

#[test]
fn while_stdout_is_blocked_packets_that_wait_in_the_queue_do_not_keep_it_awake() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let (_reader, writer) = crate::harness::full_pipe();
    let mut talk = sandbox
        .udgram(["talk", "-p", "text", "s"])
        .stdin_open()
        .stdout_to(OwnedFd::from(writer))
        .start();
    talk.write("1\n");
    let (_, from) = next(&peer);
    let packet = "x".repeat(64 << 10);
    peer.set_nonblocking(true).unwrap();
    // Until neither udgram nor the queue takes more.
    let mut refused = 0;
    while refused < 10 {
        if peer.send_to_addr(packet.as_bytes(), &from).is_ok() {
            refused = 0;
        } else {
            refused += 1;
            talk.wait_asleep();
        }
    }
    talk.signal(Signal::SIGINT);
    let _ = talk.finish();
}

#[test]
fn while_stdout_is_blocked_lines_take_in_no_more_packets_than_it_holds() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let (reader, writer) = crate::harness::full_pipe();
    let mut talk = sandbox
        .udgram(["talk", "-p", "text", "s"])
        .stdin_open()
        .stdout_to(OwnedFd::from(writer))
        .start();
    let packet = "x".repeat(64 << 10);
    let mut sent = 0;
    for number in 1..=100 {
        talk.write(format!("{number}\n"));
        let (line, from) = next(&peer);
        assert_eq!(line, number.to_string());
        peer.set_nonblocking(true).unwrap();
        while peer.send_to_addr(packet.as_bytes(), &from).is_ok() {
            sent += 1;
        }
        peer.set_nonblocking(false).unwrap();
    }
    // 256 KiB, a batch of 64 packets, and what the queue holds; without a limit, a queue for each line.
    assert!(sent < 200, "{sent}");
    let printed = std::thread::spawn(move || crate::harness::content(reader.into()));
    talk.finish().succeeds("");
    assert_eq!(
        behind_dots(&printed.join().unwrap()),
        (packet + "\n").repeat(sent).as_bytes()
    );
}

#[test]
fn it_ends_quietly_when_the_reader_of_stdout_has_gone() {
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("s");
    let (reader, writer) = crate::harness::pipe();
    let talk = sandbox
        .udgram(["talk", "s"])
        .stdin_open()
        .stdout_to(OwnedFd::from(writer))
        .start();
    talk.wait_asleep();
    close(OwnedFd::from(reader));
    talk.finish().dies_of(Signal::SIGPIPE, "").says_nothing();
}

#[test]
fn a_signal_ends_it_after_what_is_queued_was_printed() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut talk = sandbox.udgram(["talk", "s"]).stdin_open().start();
    talk.write("1\n");
    let (_, from) = next(&peer);
    talk.stop();
    answer(&peer, &from, "2");
    answer(&peer, &from, "3");
    talk.signal(Signal::SIGTERM);
    talk.resume();
    talk.finish()
        .dies_of(Signal::SIGTERM, "2\n3\n")
        .says_nothing();
}

#[test]
fn lines_that_a_signal_leaves_unsent_are_counted() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let queued = sandbox.fill("s");
    // More than are sent together.
    let many = "1\n".repeat(100);
    for (lines, warning) in [
        ("1\n", "1 line that was read was not sent"),
        ("1\n2\n3\n", "3 lines that were read were not sent"),
        // The second one cannot be sent.
        ("1\n{\n", "2 lines that were read were not sent"),
        (&many, "100 lines that were read were not sent"),
    ] {
        let mut talk = sandbox.udgram(["talk", "s"]).stdin_open().start();
        talk.write(lines);
        // It has read them when the pipe is empty, and waits for room.
        talk.wait_read().wait_asleep();
        talk.signal(Signal::SIGTERM);
        talk.finish()
            .dies_of(Signal::SIGTERM, "")
            .says(format!("udgram: warning: stopped: {warning}"));
    }
    for _ in 0..queued {
        assert_eq!(peer.take(), b"0");
    }
    peer.has_nothing_more();
}

#[test]
fn fields_too_long_for_a_datagram_are_sent_in_a_memfd() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let value = "x".repeat(5 << 20);
    sandbox
        .udgram(["talk", "-p", "fields", "-t", "0", "s"])
        .stdin(format!("{{\"A\":\"{value}\"}}\n{{\"B\":\"2\"}}\n"))
        .run()
        .succeeds("");
    let message = crate::sys::take_message(&peer);
    assert_eq!((message.bytes.len(), message.descriptors.len()), (0, 1));
    assert_eq!(peer.take(), b"B=2\n");
}

#[test]
fn a_socket_whose_reading_side_is_shut_down_is_refused() {
    let sandbox = Sandbox::new();
    let (own, peer) = UnixDatagram::pair().unwrap();
    own.shutdown(std::net::Shutdown::Read).unwrap();
    sandbox
        .udgram(["talk", "--socket-fd", "5"])
        .descriptor(&own, 5)
        .stdin("1\n")
        .run()
        .refuses(
            1,
            &[
                "cannot receive",
                "the reading side of the socket is shut down",
            ],
        );
    close(peer);
}

#[test]
fn envelopes_go_both_ways_and_to_the_peer_alone() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut talk = sandbox.udgram(["talk", "-e", "s"]).stdin_open().start();
    talk.write("{\"packet\":1,\"to\":\"s\"}\n");
    let (packet, from) = next(&peer);
    assert_eq!(packet, "1");
    answer(&peer, &from, "2");
    assert_eq!(
        timeless(&talk.line()),
        format!(
            "{{\"from\":\"{}\",\"size\":1,\"packet\":2}}",
            text(&sandbox.path("s"))
        )
    );
    talk.write("{\"packet\":1,\"to\":\"other\"}\n");
    talk.finish()
        .mentions(&["line 2; 1 packet was sent: the envelope is to 'other'"]);
}

#[test]
fn the_inherited_socket_is_a_peer() {
    let sandbox = Sandbox::new();
    let (own, other) = UnixDatagram::pair().unwrap();
    other.send(b"2").unwrap();
    sandbox
        .udgram(["talk", "-s", "7"])
        .descriptor(&own, 7)
        .stdin("1\n")
        .run()
        .succeeds("2\n");
    let other = crate::harness::limited(other);
    assert_eq!(other.take(), b"1");
    let unconnected = UnixDatagram::unbound().unwrap();
    sandbox
        .udgram(["talk", "-"])
        .env("UDGRAM_SOCKET_FD", "7")
        .descriptor(&unconnected, 7)
        .run()
        .refuses(2, &["the socket is not connected"]);
    sandbox
        .udgram(["talk", "-"])
        .run()
        .refuses(2, &["PEER '-' is the inherited socket"]);
}

#[test]
fn an_inherited_socket_whose_peer_has_gone_hears_nobody_until_the_peer_is_back() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut session = sandbox
        .udgram([
            "exec",
            "--bind",
            "me",
            "--connect",
            text(&sandbox.path("s")),
        ])
        .args(["--", "sh", "-c"])
        .arg("echo up; read x; udgram send - 1; udgram talk -v -p text --wait -")
        .stdin_open()
        .start();
    assert_eq!(session.line(), "up");
    close(peer);
    session.write("\n");
    // The kernel has forgotten the peer: anybody can send to the socket.
    session.wait_stderr("cannot send to");
    let stranger = sandbox.bind("stranger");
    stranger.send_to(b"x", sandbox.path("me")).unwrap();
    session.wait_stderr("has closed its socket: waiting for it");
    fs::remove_file(sandbox.path("s")).unwrap();
    let peer = sandbox.bind("s");
    session.write("2\n");
    let (packet, from) = next(&peer);
    assert_eq!(packet, "2");
    answer(&peer, &from, "answer");
    let outcome = session.finish().ends(0, "up\nanswer\n");
    let said = outcome.stderr_text();
    assert!(
        said.contains("/stranger', which is not the peer\n"),
        "{said}"
    );
}

#[test]
fn what_another_socket_sent_under_the_name_of_a_peer_that_has_gone_is_not_heard() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("s");
    let peer = sandbox.bind("s");
    let mut session = sandbox
        .udgram([
            "exec",
            "--bind",
            "me",
            "--connect",
            text(&path),
            "--",
            "sh",
            "-c",
        ])
        .arg("echo up; read x; udgram send - 1; read x; udgram talk -v -p text --wait -")
        .stdin_open()
        .start();
    assert_eq!(session.line(), "up");
    close(peer);
    session.write("\n");
    // The kernel has forgotten the peer: anybody can send to the socket.
    session.wait_stderr("cannot send to");
    fs::remove_file(&path).unwrap();
    let impostor = sandbox.bind("s");
    impostor.send_to(b"x", sandbox.path("me")).unwrap();
    fs::remove_file(&path).unwrap();
    close(impostor);
    session.write("\n");
    session.wait_stderr("has closed its socket: waiting for it");
    let peer = sandbox.bind("s");
    session.write("2\n");
    let (packet, from) = next(&peer);
    assert_eq!(packet, "2");
    answer(&peer, &from, "answer");
    let outcome = session.finish().ends(0, "up\nanswer\n");
    let said = outcome.stderr_text();
    assert!(said.contains("/s', which is not the peer\n"), "{said}");
}

#[test]
fn without_wait_an_inherited_socket_whose_peer_has_gone_is_status_4() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("s");
    let peer = sandbox.bind("s");
    let mut session = sandbox
        .udgram(["exec", "-q", "--connect", text(&path), "--", "sh", "-c"])
        .arg("echo up; read x; udgram send - 1 2>/dev/null; udgram talk -t none -")
        .stdin_open()
        .start();
    assert_eq!(session.line(), "up");
    close(peer);
    session.write("\n");
    session.wait_stderr("cannot connect to");
    session
        .finish()
        .ends(4, "up\n")
        .mentions(&["/s': Connection refused"]);
}

#[test]
fn a_stranger_is_not_heard_after_another_holder_of_the_socket_has_found_its_peer_gone() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let socket = sandbox.bind("me");
    socket.connect(sandbox.path("s")).unwrap();
    let session = sandbox
        .udgram(["talk", "-p", "text", "-"])
        .env("UDGRAM_SOCKET_FD", "7")
        .descriptor(&socket, 7)
        .stdin_open()
        .start();
    session.wait_asleep();
    // This does not wake it.
    session.stop();
    close(peer);
    assert!(socket.send(b"lost").is_err());
    let stranger = sandbox.bind("stranger");
    stranger.send_to(b"x", sandbox.path("me")).unwrap();
    session.resume();
    session.wait_stderr("has closed its socket");
    let outcome = session.finish().ends(4, "");
    let [dropped, gone] = <[_; 2]>::try_from(outcome.diagnostics()).unwrap();
    assert!(
        dropped.ends_with("/stranger', which is not the peer"),
        "{dropped}"
    );
    assert!(gone.ends_with("/s' has closed its socket"), "{gone}");
}

#[test]
fn peer_is_named_once() {
    let sandbox = Sandbox::new();
    sandbox
        .udgram(["talk"])
        .run()
        .refuses(2, &["PEER is missing", "udgram talk --help"]);
    sandbox
        .udgram(["talk", "-s", "0", "s"])
        .run()
        .refuses(2, &["PEER and --socket-fd exclude each other"]);
    sandbox
        .udgram(["talk", "s", "1"])
        .run()
        .refuses(2, &["'1'"]);
}

#[test]
fn totals_have_both_directions() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let talk = sandbox
        .udgram(["talk", "--stats", "s"])
        .stdin("10\n20\n")
        .start();
    let (_, from) = next(&peer);
    answer(&peer, &from, "1");
    talk.finish()
        .ends(0, "1\n")
        .mentions(&["received=1 received_bytes=1 not_packets=0 sent=2 sent_bytes=4"]);
}

#[test]
fn at_a_terminal_a_bad_line_is_reported_and_the_end_of_input_ends_it() {
    peer!("script");
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut talk = at_a_terminal(&sandbox, "");
    talk.write("x\n");
    until(&mut talk, "line 1 is not JSON (column 1); nothing was sent");
    talk.write("2\n");
    let (packet, from) = next(&peer);
    assert_eq!(packet, "2");
    answer(&peer, &from, "\"\\u001b[31m\"");
    until(&mut talk, "[31m");
    talk.write("\x04");
    let outcome = talk.finish();
    assert_eq!(outcome.code(), Some(0));
    assert!(!outcome.stdout().contains(&0x1b));
}

#[test]
fn at_a_terminal_a_peer_that_goes_away_is_reported_and_the_next_line_reaches_the_new_one() {
    peer!("script");
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut talk = at_a_terminal(&sandbox, "-p text");
    talk.write("one\n");
    assert_eq!(peer.take(), b"one");
    close(peer);
    until(
        &mut talk,
        "'s' has closed its socket (hint: the next line connects to its address again",
    );
    talk.write("two\n");
    until(
        &mut talk,
        "line 2 was not sent: cannot connect to 's': Connection refused",
    );
    fs::remove_file(sandbox.path("s")).unwrap();
    let peer = sandbox.bind("s");
    talk.write("three\n");
    assert_eq!(peer.take(), b"three");
    until(&mut talk, "connected to 's' again");
    talk.write("\x04");
    assert_eq!(talk.finish().code(), Some(0));
}

#[test]
fn wpa_supplicant_reports_events_to_a_client_that_attaches() {
    crate::harness::root!();
    peer!("wpa_supplicant");
    let sandbox = Sandbox::new();
    if !sandbox.runs_wpa_supplicant() {
        return skip(NO_WPA_SUPPLICANT);
    }
    let directory = sandbox.path("ctrl");
    let supplicant = sandbox
        .command(
            "wpa_supplicant",
            ["-D", "none", "-i", "lo", "-C", text(&directory)],
        )
        .start();
    let mut talk = sandbox
        .udgram(["talk", "--wait", "-p", "text", "ctrl/lo"])
        .stdin_open()
        .start();
    talk.write("PING\nATTACH\n");
    assert_eq!(talk.line(), "PONG");
    assert_eq!(talk.line(), "OK");
    let ask = |command: &str| {
        let asked = ["send", "-p", "text", "-r", "-t", "100s", "ctrl/lo", command];
        sandbox.udgram(asked).run().one_line()
    };
    assert_eq!(ask("ADD_NETWORK"), "0");
    while talk.line() != "<3>CTRL-EVENT-NETWORK-ADDED 0" {}
    talk.write("PING\n");
    while talk.line() != "PONG" {}
    assert_eq!(ask("TERMINATE"), "OK");
    while talk.line() != "<3>CTRL-EVENT-TERMINATING " {}
    drop(supplicant.finish());
    talk.signal(Signal::SIGTERM);
    drop(talk.finish());
}
