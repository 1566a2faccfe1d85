//! `udgram send --reply`: which datagrams are answers to a question, and how the wait for them ends.

use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Peer, Sandbox, close, limited, text, timeless};
use crate::running::Running;

/// Both ends of a socketpair; the first one is the test's.
fn pair() -> (UnixDatagram, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    (limited(ours), theirs)
}

/// Starts `send --socket-fd 5` with this socket and these arguments.
#[track_caller]
fn ask(sandbox: &Sandbox, socket: &UnixDatagram, arguments: &[&str]) -> Running {
    sandbox
        .udgram(["send", "--socket-fd", "5"])
        .args(arguments)
        .descriptor(socket, 5)
        .start()
}

const LATE: &str = "came before the question was received: it is not the answer";

#[test]
fn packets_queued_before_the_question_are_reported_line_by_line_and_are_not_answers() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = pair();
    for late in ["\"old\"", "10"] {
        ours.send(late.as_bytes()).unwrap();
    }
    let running = ask(&sandbox, &theirs, &["--reply", "--", "1"]);
    assert_eq!(ours.take(), b"1");
    ours.send(b"\"new\"").unwrap();
    running.finish().ends(0, "\"new\"\n").says(format!(
        "udgram: warning: a packet of 5 bytes from an unnamed socket {LATE}\n\
         udgram: warning: a packet of 2 bytes from an unnamed socket {LATE}"
    ));
}

#[test]
fn with_envelopes_what_was_queued_before_the_question_is_printed_as_late_and_not_counted() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = pair();
    ours.send(b"\"old\"").unwrap();
    let running = ask(&sandbox, &theirs, &["-e", "--reply", "{\"packet\":1}"]);
    assert_eq!(ours.take(), b"1");
    ours.send(b"\"new\"").unwrap();
    let lines = running.finish().lines();
    let late = "{\"from\":null,\"size\":5,\"packet\":\"old\",\"late\":true}";
    assert_eq!(lines.len(), 2, "{lines:?}");
    // The kernel has noted the arrival of the second one only.
    assert_eq!(lines[0], late);
    assert_eq!(
        timeless(&lines[1]),
        "{\"from\":null,\"size\":5,\"packet\":\"new\"}"
    );
}

#[test]
fn a_second_answer_to_one_question_is_not_the_answer_to_the_next() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let path = sandbox.path("s");
    let running = sandbox
        .udgram(["send", "--reply", "s", "\"a\"", "\"b\""])
        .start();
    let (question, from) = peer.take_from();
    assert_eq!(question, b"\"a\"");
    peer.send_to_addr(b"\"a1\"", &from).unwrap();
    peer.wait_queued();
    // It has asked again: this answers the question before.
    peer.send_to_addr(b"\"a2\"", &from).unwrap();
    running.wait_stderr("a packet of 4 bytes");
    assert_eq!(peer.take(), b"\"b\"");
    peer.send_to_addr(b"\"b1\"", &from).unwrap();
    running.finish().ends(0, "\"a1\"\n\"b1\"\n").says(format!(
        "udgram: warning: a packet of 4 bytes from '{}' {LATE}",
        text(&path)
    ));
}

#[test]
fn a_second_answer_that_comes_between_two_questions_is_not_the_answer_to_the_second() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let path = sandbox.path("s");
    let mut running = sandbox
        .udgram(["send", "--reply", "s"])
        .stdin_open()
        .start();
    running.write("\"a\"\n");
    let (_, from) = peer.take_from();
    for answer in [b"\"a1\"", b"\"a2\""] {
        peer.send_to_addr(answer, &from).unwrap();
    }
    assert_eq!(running.line(), "\"a1\"");
    running.write("\"b\"\n");
    assert_eq!(peer.take(), b"\"b\"");
    peer.send_to_addr(b"\"b1\"", &from).unwrap();
    running.finish().ends(0, "\"a1\"\n\"b1\"\n").says(format!(
        "udgram: warning: a packet of 4 bytes from '{}' {LATE}",
        text(&path)
    ));
}

#[test]
fn a_missing_answer_is_reported_with_the_number_of_its_line() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut running = sandbox
        .udgram(["send", "-r", "-t", "2s", "s"])
        .stdin_open()
        .start();
    running.write("1\n");
    let (_, from) = peer.take_from();
    peer.send_to_addr(b"1", &from).unwrap();
    assert_eq!(running.line(), "1");
    running.write("2\n");
    assert_eq!(peer.take(), b"2");
    running
        .finish()
        .ends(124, "1\n")
        .mentions(&["udgram: line 2: cannot get a reply from 's': no reply came within 2s"]);
}

#[test]
fn missing_answers_are_counted_for_their_own_question() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut running = sandbox
        .udgram(["send", "-r=2", "-t", "2s", "s", "1", "2"])
        .start();
    let (_, from) = peer.take_from();
    for answer in ["10", "11"] {
        peer.send_to_addr(answer.as_bytes(), &from).unwrap();
        assert_eq!(running.line(), answer);
    }
    assert_eq!(peer.take(), b"2");
    peer.send_to_addr(b"20", &from).unwrap();
    running.finish().ends(124, "10\n11\n20\n").mentions(&[
        "udgram: argument 2: cannot get a reply from 's': 1 of 2 replies came, and then none within 2s (hint: ",
    ]);
}

#[test]
fn surplus_answers_are_received_in_the_totals_and_lost_ones_are_reported() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut running = sandbox
        .udgram(["send", "-e", "-r", "--stats", "s"])
        .stdin_open()
        .start();
    let mut lines = Vec::new();
    for question in ["1", "2"] {
        running.write(format!("{{\"packet\":{question}}}\n"));
        let (_, from) = peer.take_from();
        // The line of the surplus one to question 1 comes with question 2.
        running.stop();
        peer.send_to_addr(b"[]", &from).unwrap();
        peer.send_to_addr(b"{}", &from).unwrap();
        running.resume();
        lines.push(running.line());
    }
    assert!(lines[0].contains("\"packet\":[]"), "{lines:?}");
    assert!(lines[1].contains("\"late\":true"), "{lines:?}");
    let outcome = running.finish();
    assert_eq!(outcome.code(), Some(0));
    let [lost, totals] = <[_; 2]>::try_from(outcome.diagnostics()).unwrap();
    assert!(lost.ends_with("1 more packet was queued and is lost (hint: --reply=N)"));
    assert!(totals.contains(" received=3 received_bytes=6 not_packets=0 sent=2 "));
}

/// Sends answers without a pause, until the socket that they go to is closed.
fn answer_for_ever(peer: &UnixDatagram, to: &SocketAddr) -> usize {
    let mut sent = 0;
    while peer.send_to_addr(b"1", to).is_ok() {
        sent += 1;
    }
    sent
}

#[test]
fn all_answers_end_with_the_time_although_more_keep_coming() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let start = Instant::now();
    let running = sandbox
        .udgram(["send", "--reply=all", "--timeout", "2s", "s", "1"])
        .start();
    let (_, from) = peer.take_from();
    let answers = thread::spawn(move || answer_for_ever(&peer, &from));
    let outcome = running.finish();
    assert!(start.elapsed() >= Duration::from_secs(2));
    let sent = answers.join().unwrap();
    let printed = outcome.stdout().len() / 2;
    assert!(0 < printed && printed <= sent, "{printed} of {sent}");
    assert_eq!(outcome.code(), Some(0));
}

#[test]
fn all_answers_are_a_timeout_when_there_are_none() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox
        .udgram([
            "send",
            "--reply=all",
            "-t",
            "50ms",
            "--bind",
            "me",
            "s",
            "1",
        ])
        .start();
    assert_eq!(peer.take(), b"1");
    running.finish().fails(
        124,
        format!(
            "udgram: cannot get a reply from 's': no reply came within 50ms (hint: it may answer \
             from another address, --to; or it may not write to '{}', --mode 0666)",
            sandbox.path("me").display()
        ),
    );
}

#[test]
fn a_peer_that_closes_its_socket_while_its_answer_is_awaited_is_status_four() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox.udgram(["send", "--reply", "s", "1"]).start();
    assert_eq!(peer.take(), b"1");
    close(peer);
    running.finish().fails(
        4,
        "udgram: cannot get a reply from 's': the peer has closed its socket",
    );
}

#[test]
fn a_peer_that_closes_its_socket_before_the_first_of_all_answers_is_status_four() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox
        .udgram(["send", "--reply=all", "-t", "60s", "s", "1"])
        .start();
    assert_eq!(peer.take(), b"1");
    close(peer);
    running.finish().fails(
        4,
        "udgram: cannot get a reply from 's': the peer has closed its socket",
    );
}

#[test]
fn a_socketpair_whose_other_end_is_closed_without_an_answer_is_status_four() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = pair();
    let running = ask(&sandbox, &theirs, &["--reply", "--", "1"]);
    assert_eq!(ours.take(), b"1");
    close(ours);
    running.finish().fails(
        4,
        "udgram: cannot get a reply from an unnamed socket: the peer has closed its socket",
    );
}

#[test]
fn a_peer_that_answers_and_closes_its_socket_has_answered() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox.udgram(["send", "--reply=2", "s", "1"]).start();
    let (_, from) = peer.take_from();
    // Both are queued before it checks whether the peer is still there.
    running.stop();
    for answer in [b"2", b"3"] {
        peer.send_to_addr(answer, &from).unwrap();
    }
    close(peer);
    running.resume();
    running.finish().succeeds("2\n3\n");
}

#[test]
fn a_peer_that_closes_its_socket_after_one_of_two_answers_is_status_four() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox.udgram(["send", "--reply=2", "s", "1"]).start();
    let (_, from) = peer.take_from();
    peer.send_to_addr(b"2", &from).unwrap();
    close(peer);
    running
        .finish()
        .ends(4, "2\n")
        .says("udgram: cannot get a reply from 's': the peer has closed its socket");
}

#[test]
fn a_peer_that_closes_its_socket_after_some_of_all_answers_has_answered() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox
        .udgram(["send", "--reply=all", "--timeout", "60s", "s", "1"])
        .start();
    let (_, from) = peer.take_from();
    for answer in [b"2", b"3"] {
        peer.send_to_addr(answer, &from).unwrap();
    }
    close(peer);
    // No more can come: it does not wait for the time to pass.
    running.finish().succeeds("2\n3\n");
}

#[test]
fn packets_of_others_queued_before_the_socket_was_connected_are_not_answers() {
    let sandbox = Sandbox::new();
    let own = sandbox.bind("own");
    let peer = sandbox.bind("s");
    let stranger = sandbox.bind("stranger");
    for packet in [b"1", b"2"] {
        stranger.send_to(packet, sandbox.path("own")).unwrap();
    }
    own.connect(sandbox.path("s")).unwrap();
    let running = ask(&sandbox, &own, &["--reply", "\"question\""]);
    assert_eq!(peer.take(), b"\"question\"");
    peer.send_to(b"\"answer\"", sandbox.path("own")).unwrap();
    running.finish().ends(0, "\"answer\"\n").says(format!(
        "udgram: warning: dropped a packet from '{}', which is not the peer\n\
         udgram: warning: 2 packets of others than the peer were dropped",
        text(&sandbox.path("stranger"))
    ));
}

#[test]
fn a_packet_that_arrives_while_the_question_waits_for_room_is_not_an_answer() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let fillers = sandbox.fill("s");
    let running = sandbox
        .udgram(["send", "--reply", "--bind", "me", "s", "\"question\""])
        .start();
    running.wait_bound("me").wait_asleep();
    peer.send_to(b"\"stale\"", sandbox.path("me")).unwrap();
    for _ in 0..fillers {
        assert_eq!(peer.take(), b"0");
    }
    assert_eq!(peer.take(), b"\"question\"");
    peer.send_to(b"\"answer\"", sandbox.path("me")).unwrap();
    running.finish().ends(0, "\"answer\"\n").mentions(&[
        "a packet of ",
        "came before the question was received: it is not the answer",
    ]);
}

#[test]
fn a_packet_that_a_returning_peer_sends_before_it_reads_the_question_is_not_an_answer() {
    let sandbox = Sandbox::new();
    let running = sandbox
        .udgram([
            "send",
            "--wait",
            "--reply",
            "--bind",
            "me",
            "s",
            "\"question\"",
        ])
        .start();
    running.wait_bound("me");
    running.stop();
    let peer = sandbox.bind("s");
    running.resume();
    peer.wait_queued();
    peer.send_to(b"\"I am back\"", sandbox.path("me")).unwrap();
    // The notice is received while the question is unread.
    running.wait_stderr("it is not the answer");
    assert_eq!(peer.take(), b"\"question\"");
    peer.send_to(b"\"answer\"", sandbox.path("me")).unwrap();
    running
        .finish()
        .ends(0, "\"answer\"\n")
        .mentions(&["it is not the answer"]);
}

#[test]
fn a_socket_that_is_connected_elsewhere_cannot_be_answered_by_another_address() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let _other = sandbox.bind("other");
    let own = sandbox.bind("own");
    own.connect(sandbox.path("s")).unwrap();
    sandbox
        .udgram(["send", "--reply", "--socket-fd", "5", "--to", "other", "1"])
        .descriptor(&own, 5)
        .run()
        .refuses(
            2,
            &["--reply", text(&sandbox.path("s")), "alone can answer"],
        );
    peer.has_nothing_more();
    // The one that it is connected to may be named.
    let path = sandbox.path("s");
    let running = ask(&sandbox, &own, &["--reply", "--to", text(&path), "1"]);
    assert_eq!(peer.take(), b"1");
    peer.send_to(b"2", sandbox.path("own")).unwrap();
    running.finish().succeeds("2\n");
}

#[test]
fn replies_that_came_before_the_peer_closed_its_socket_are_all_printed() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox.udgram(["send", "-r=150", "s", "1"]).start();
    let (_, from) = peer.take_from();
    // By then the program looks whether the peer has closed its socket.
    let waited = sandbox.udgram(["recv", "-t", "150ms", "other"]).run();
    assert_eq!(waited.code(), Some(124));
    running.stop();
    // More than two batches.
    let replies: Vec<String> = (0..150).map(|number| number.to_string()).collect();
    for reply in &replies {
        peer.send_to_addr(reply.as_bytes(), &from).unwrap();
    }
    close(peer);
    running.resume();
    running.finish().succeeds(replies.join("\n") + "\n");
}

#[test]
fn a_reply_that_does_not_come_is_that_of_the_peer_which_the_envelope_names() {
    let sandbox = Sandbox::new();
    let (_one, _other) = (sandbox.bind("one"), sandbox.bind("other"));
    for window in ["1", "2"] {
        sandbox
            .udgram(["send", "-e", "-r", "-t", "50ms", "--to", "other"])
            .args(["--window", window])
            .stdin("{\"to\":\"one\",\"packet\":1}\n")
            .run()
            .refuses(124, &["cannot get a reply from 'one': no reply came"]);
    }
}

#[test]
fn what_another_holder_of_the_socket_has_sent_and_is_unread_makes_no_answer_late() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = pair();
    let running = ask(&sandbox, &theirs, &["--reply", "--", "1"]);
    assert_eq!(ours.take(), b"1");
    theirs.send(b"unread").unwrap();
    ours.send(b"2").unwrap();
    running.finish().succeeds("2\n");
}

#[test]
fn an_answer_that_stdout_does_not_take_is_not_missing() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let full = std::fs::File::options().write(true).open("/dev/full");
    let running = sandbox
        .udgram(["send", "-r", "s", "1", "2"])
        .stdout_to(full.unwrap())
        .start();
    let (_, from) = peer.take_from();
    peer.send_to_addr(b"1", &from).unwrap();
    running
        .finish()
        .fails(1, "udgram: cannot write to stdout: No space left on device");
}
