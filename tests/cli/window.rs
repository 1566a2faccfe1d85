//! `send --reply --window`: several questions under way at once.

use std::io::Read;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Peer, Sandbox, close, peer, pipe};
use crate::running::children;

#[test]
fn as_many_questions_are_under_way_as_the_window_holds() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut running = sandbox
        .udgram(["send", "-r", "--window", "3", "s", "1", "2", "3", "4", "5"])
        .start();
    let (bytes, from) = peer.take_from();
    assert_eq!(bytes, b"1");
    assert_eq!((peer.take(), peer.take()), (b"2".to_vec(), b"3".to_vec()));
    peer.has_nothing_more();
    peer.send_to_addr(b"\"one\"", &from).unwrap();
    assert_eq!(running.line(), "\"one\"");
    assert_eq!(peer.take(), b"4");
    peer.has_nothing_more();
    for answer in [&b"\"two\""[..], b"\"three\"", b"\"four\""] {
        peer.send_to_addr(answer, &from).unwrap();
    }
    assert_eq!(peer.take(), b"5");
    peer.send_to_addr(b"\"five\"", &from).unwrap();
    running
        .finish()
        .succeeds("\"one\"\n\"two\"\n\"three\"\n\"four\"\n\"five\"\n");
}

#[test]
fn every_question_gets_all_its_replies() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox
        .udgram(["send", "-r=2", "--window", "2", "s"])
        .stdin("1\n2\n3\n")
        .start();
    let (_, from) = peer.take_from();
    assert_eq!(peer.take(), b"2");
    peer.send_to_addr(b"11", &from).unwrap();
    peer.has_nothing_more();
    peer.send_to_addr(b"12", &from).unwrap();
    assert_eq!(peer.take(), b"3");
    for answer in [&b"21"[..], b"22", b"31", b"32"] {
        peer.send_to_addr(answer, &from).unwrap();
    }
    running.finish().succeeds("11\n12\n21\n22\n31\n32\n");
}

#[test]
fn thousands_of_answers_of_a_server_come_in_order() {
    let sandbox = Sandbox::new();
    let _server = sandbox.listen(["--echo", "s"]);
    for (window, count) in [("2", 1000), ("64", 5_000), ("1000", 5_000)] {
        let numbers: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        let packets = numbers.join("\n") + "\n";
        sandbox
            .udgram(["send", "-r", "--window", window, "s"])
            .stdin(&packets)
            .run()
            .succeeds(&packets);
    }
}

#[test]
fn a_missing_answer_ends_it_with_the_number_of_its_question() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let start = Instant::now();
    let running = sandbox
        .udgram([
            "send", "-r", "--window", "3", "-t", "2s", "s", "1", "2", "3",
        ])
        .start();
    let (_, from) = peer.take_from();
    peer.send_to_addr(b"1", &from).unwrap();
    running
        .finish()
        .ends(124, "1\n")
        .mentions(&["udgram: argument 2: cannot get a reply from 's': no reply came within 2s"]);
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!((peer.take(), peer.take()), (b"2".to_vec(), b"3".to_vec()));
}

#[test]
fn some_of_the_answers_to_a_question_are_not_all() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox
        .udgram(["send", "-r=3", "--window", "2", "-t", "2s", "s", "1", "2"])
        .start();
    let (_, from) = peer.take_from();
    for answer in [b"1", b"2"] {
        peer.send_to_addr(answer, &from).unwrap();
    }
    running
        .finish()
        .ends(124, "1\n2\n")
        .mentions(&["udgram: argument 1: cannot get a reply from 's': 2 of 3 replies came, and then none within 2s"]);
}

#[test]
fn a_peer_that_closes_its_socket_ends_it_with_the_number_of_the_question() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut running = sandbox
        .udgram(["send", "-r", "--window", "2", "s"])
        .stdin("1\n2\n3\n")
        .start();
    let (_, from) = peer.take_from();
    assert_eq!(peer.take(), b"2");
    peer.send_to_addr(b"1", &from).unwrap();
    assert_eq!(running.line(), "1");
    assert_eq!(peer.take(), b"3");
    close(peer);
    running
        .finish()
        .ends(4, "1\n")
        .mentions(&["udgram: line 2: cannot get a reply from 's': the peer has closed its socket"]);
}

#[test]
fn a_surplus_answer_is_not_taken_for_that_to_a_later_question() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox
        .udgram(["send", "-r", "--window", "2", "s", "1", "2", "3"])
        .start();
    let (_, from) = peer.take_from();
    assert_eq!(peer.take(), b"2");
    running.stop();
    for answer in [&b"1"[..], b"2", b"\"surplus\""] {
        peer.send_to_addr(answer, &from).unwrap();
    }
    running.resume();
    assert_eq!(peer.take(), b"3");
    peer.send_to_addr(b"3", &from).unwrap();
    running.finish().ends(0, "1\n2\n3\n").mentions(&[
        "warning: a packet of 9 bytes from ",
        "came before the question was received: it is not the answer",
    ]);
}

#[test]
fn what_was_queued_before_the_first_question_is_no_answer() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox
        .udgram(["send", "-r", "--window", "8", "-b", "me", "s"])
        .stdin_open()
        .start();
    running.wait_bound("me");
    peer.send_to(b"\"old\"", sandbox.path("me")).unwrap();
    let mut running = running;
    running.write("1\n2\n");
    let (_, from) = peer.take_from();
    assert_eq!(peer.take(), b"2");
    peer.send_to_addr(b"1", &from).unwrap();
    peer.send_to_addr(b"2", &from).unwrap();
    running
        .finish()
        .ends(0, "1\n2\n")
        .mentions(&["warning: a packet of 5 bytes from ", "it is not the answer"]);
}

#[test]
fn a_packet_that_is_not_valid_is_reported_after_the_answers_before_it() {
    let sandbox = Sandbox::new();
    let _server = sandbox.listen(["--echo", "s"]);
    sandbox
        .udgram(["send", "-r", "--window", "8", "s"])
        .stdin("1\n2\n{\n4\n")
        .run()
        .ends(3, "1\n2\n")
        .mentions(&["line 3", "2 packets were sent"]);
}

#[test]
fn answers_that_came_before_the_peer_closed_its_socket_are_printed() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let (mut reader, writer) = pipe();
    let running = sandbox
        .udgram(["send", "-r", "--window", "2", "s", "1", "2", "3"])
        .stdout_to(writer.try_clone().unwrap())
        .start();
    let (_, from) = peer.take_from();
    assert_eq!(peer.take(), b"2");
    // More than the pipe takes: the second answer comes while the first is written.
    let first = format!("\"{}\"", "x".repeat(100_000));
    peer.send_to_addr(first.as_bytes(), &from).unwrap();
    running.wait_full(&writer);
    peer.send_to_addr(b"2", &from).unwrap();
    close(peer);
    close(writer);
    let mut printed = String::new();
    reader.read_to_string(&mut printed).unwrap();
    assert_eq!(printed, format!("{first}\n2\n"));
    running.finish().refuses(4, &["argument 3: cannot "]);
}

/// The signal comes with the system call that sends the first question.
#[test]
fn an_answer_that_came_before_the_second_question_was_sent_is_printed() {
    peer!("strace");
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let inject = "inject=sendmmsg:signal=SIGSTOP:when=1";
    let running = sandbox
        .command("strace", ["-e", "trace=sendmmsg", "-e", inject])
        .args(["udgram", "send", "-r", "--window", "4", "s", "1", "2", "3"])
        .start();
    let (bytes, from) = peer.take_from();
    assert_eq!(bytes, b"1");
    let stopped = children(running.pid())[0];
    running.wait_stderr("--- stopped by SIGSTOP ---");
    peer.has_nothing_more();
    peer.send_to_addr(b"\"one\"", &from).unwrap();
    close(peer);
    kill(Pid::from_raw(stopped), Signal::SIGCONT).unwrap();
    let outcome = running.finish();
    let told = outcome.stderr_text();
    let wanted = "udgram: argument 2: cannot send to 's': Connection refused";
    assert!(told.contains(wanted), "{told}");
    let _ = outcome.ends(4, "\"one\"\n");
}

#[test]
fn the_time_for_an_answer_does_not_run_while_stdout_takes_nothing() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let (mut reader, writer) = pipe();
    let start = Instant::now();
    let running = sandbox
        .udgram(["send", "-r", "-t", "2s", "--window", "2", "s", "1", "2"])
        .stdout_to(writer.try_clone().unwrap())
        .start();
    let (_, from) = peer.take_from();
    assert_eq!(peer.take(), b"2");
    let first = format!("\"{}\"", "x".repeat(100_000));
    peer.send_to_addr(first.as_bytes(), &from).unwrap();
    running.wait_full(&writer);
    let blocked = sandbox.udgram(["recv", "-t", "2100ms", "other"]).run();
    assert_eq!(blocked.code(), Some(124));
    close(writer);
    let mut printed = String::new();
    reader.read_to_string(&mut printed).unwrap();
    running
        .finish()
        .refuses(124, &["argument 2: ", "no reply came within 2s"]);
    assert!(start.elapsed() >= Duration::from_millis(2000 + 2100));
}

#[test]
fn a_question_to_another_peer_waits_for_the_answers_that_are_under_way() {
    let sandbox = Sandbox::new();
    let (one, other) = (sandbox.bind("one"), sandbox.bind("other"));
    let lines = "{\"to\":\"one\",\"packet\":1}\n{\"to\":\"one\",\"packet\":2}\n{\"packet\":3}\n";
    let mut running = sandbox
        .udgram(["send", "-e", "-r", "--window", "8", "--to", "other"])
        .stdin(lines)
        .start();
    let (_, from) = one.take_from();
    assert_eq!(one.take(), b"2");
    running.wait_asleep();
    other.has_nothing_more();
    for answer in [b"1", b"2"] {
        one.send_to_addr(answer, &from).unwrap();
        let wanted = format!("\"packet\":{}}}", char::from(answer[0]));
        assert!(running.line().ends_with(&wanted));
    }
    assert_eq!(other.take(), b"3");
    other.send_to_addr(b"3", &from).unwrap();
    assert!(running.line().ends_with("\"packet\":3}"));
    assert_eq!(running.finish().code(), Some(0));
}
