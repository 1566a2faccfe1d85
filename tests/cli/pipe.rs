//! `listen --pipe`: one command gets the packets as lines, and each line that it prints answers the packet in
//! the same place.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::harness::{LIMIT, Peer, Sandbox, fifo, peer, timeless};
use crate::running::{Running, children};
use crate::sys::{pidfd, send_descriptors};

/// Answers each line with itself, except that a line that begins with `-` gets an empty line.
const SELECTIVE: &str = r#"while read -r x; do case $x in -*) echo;; *) echo "$x";; esac; done"#;

fn listen(sandbox: &Sandbox, command: &str) -> Running {
    sandbox.listen(["-p", "text", "--pipe", command, "s"])
}

fn send(client: &UnixDatagram, sandbox: &Sandbox, packet: impl AsRef<[u8]>) {
    client.send_to(packet.as_ref(), sandbox.path("s")).unwrap();
}

#[test]
fn each_of_many_clients_gets_its_own_answers_in_order() {
    let sandbox = Sandbox::new();
    let server = sandbox.listen(["-p", "text", "-n", "800", "--pipe", "cat", "s"]);
    thread::scope(|scope| {
        for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let client = sandbox.bind(name);
            let server = sandbox.path("s");
            scope.spawn(move || {
                // Several packets are under way at once, but no more than fit in the client's queue.
                for round in 0..25 {
                    for number in 0..4 {
                        let packet = format!("{name} {round} {number}");
                        client.send_to(packet.as_bytes(), &server).unwrap();
                    }
                    for number in 0..4 {
                        let answer = String::from_utf8(client.take()).unwrap();
                        assert_eq!(answer, format!("{name} {round} {number}"));
                    }
                }
                client.has_nothing_more();
            });
        }
    });
    let outcome = server.finish();
    assert_eq!(outcome.lines().len(), 800);
}

#[test]
fn an_empty_line_is_no_reply() {
    let sandbox = Sandbox::new();
    let server = sandbox.listen(["-p", "text", "-n", "3", "--pipe", SELECTIVE, "s"]);
    let client = sandbox.bind("client");
    for packet in ["-1", "-2", "3"] {
        send(&client, &sandbox, packet);
    }
    assert_eq!(client.take(), b"3");
    server.finish().succeeds("-1\n-2\n3\n");
    client.has_nothing_more();
}

#[test]
fn a_reply_is_a_packet_of_the_protocol() {
    let sandbox = Sandbox::new();
    let command = "sed -u 's/1/2/'";
    for (protocol, packet, answer) in [
        ("json", &b"{\"a\":\r\n1}"[..], &b"{\"a\":2}"[..]),
        ("hex", b"\x01\x02", b"\x02\x02"),
        ("cbor", b"\x01", b"\x02"),
    ] {
        let server = sandbox.listen(["-p", protocol, "-n", "1", "--pipe", command, "s"]);
        let client = sandbox.bind(protocol);
        send(&client, &sandbox, packet);
        assert_eq!(client.take(), answer, "{protocol}");
        assert_eq!(server.finish().lines().len(), 1);
    }
}

#[test]
fn a_line_too_many_ends_the_command_and_is_reported() {
    let sandbox = Sandbox::new();
    let server = listen(&sandbox, "while read x; do echo $x; echo $x; done");
    let client = sandbox.bind("client");
    send(&client, &sandbox, "1");
    assert_eq!(client.take(), b"1");
    server.finish().ends(1, "1\n").says(
        "udgram: 'while read x; do echo $x; echo $x; done' was ended: it printed a line too many after its answer to packet 1",
    );
    assert!(!sandbox.exists("s"));
    let server = sandbox.udgram(["listen", "--pipe", "echo hello; cat", "s"]);
    server.run().fails(
        1,
        "udgram: 'echo hello; cat' was ended: it printed a line too many before the first packet",
    );
}

#[test]
fn many_lines_too_many_are_reported_once() {
    let sandbox = Sandbox::new();
    let server = sandbox.udgram(["listen", "--pipe", "seq 9; cat", "s"]);
    server.run().fails(
        1,
        "udgram: 'seq 9; cat' was ended: it printed a line too many before the first packet",
    );
}

#[test]
fn a_line_printed_before_a_packet_was_written_does_not_answer_it() {
    let sandbox = Sandbox::new();
    let mut fifo = fifo(&sandbox, "fifo");
    let command = "read x; echo a; read y <fifo; echo extra; : >printed; cat";
    let mut server = listen(&sandbox, command);
    let client = sandbox.bind("client");
    send(&client, &sandbox, "1");
    assert_eq!(client.take(), b"a");
    assert_eq!(server.line(), "1");
    server.wait_asleep();
    server.stop();
    fifo.write_all(b"\n").unwrap();
    server.wait_until("printed", || sandbox.exists("printed"));
    send(&client, &sandbox, "2");
    server.resume();
    let outcome = server.finish();
    assert_eq!(outcome.code(), Some(1));
    let said = outcome.stderr_text();
    assert!(
        said.contains("a line too many after its answer to packet 1"),
        "{said}"
    );
    client.has_nothing_more();
}

#[test]
fn the_end_of_the_command_ends_listen_with_its_status() {
    let sandbox = Sandbox::new();
    for (command, status, how) in [
        ("read x; echo a", 0, "ended with status 0"),
        ("read x; echo a; exit 3", 3, "ended with status 3"),
    ] {
        let server = listen(&sandbox, command);
        let client = sandbox.bind(format!("client{status}"));
        send(&client, &sandbox, "1");
        assert_eq!(client.take(), b"a");
        server.finish().ends(status, "1\n").says(format!(
            "udgram: warning: '{command}' {how}, after packet 1"
        ));
        assert!(!sandbox.exists("s"));
    }
    let server = listen(&sandbox, "read x; kill -USR1 $$");
    send(&sandbox.bind("client"), &sandbox, "1");
    server.finish().dies_of(Signal::SIGUSR1, "1\n").says(
        "udgram: warning: packet 1 was not answered: 'read x; kill -USR1 $$' was ended by signal 10",
    );
    assert!(!sandbox.exists("s"));
}

#[test]
fn a_background_child_that_keeps_the_output_of_the_command_open_does_not_delay_the_end() {
    let sandbox = Sandbox::new();
    let _fifo = fifo(&sandbox, "fifo");
    let command = "cat fifo 2>/dev/null & read x; echo a; exit 4";
    let server = listen(&sandbox, command);
    let client = sandbox.bind("client");
    send(&client, &sandbox, "1");
    assert_eq!(client.take(), b"a");
    server.finish().ends(4, "1\n").says(format!(
        "udgram: warning: '{command}' ended with status 4, after packet 1"
    ));
}

#[test]
fn packets_that_the_command_leaves_unanswered_are_reported_with_their_numbers() {
    let sandbox = Sandbox::new();
    let command = "read a; read b; read c; read d; echo $a; echo; exit 7";
    let server = listen(&sandbox, command);
    let client = sandbox.bind("client");
    for packet in ["1", "2", "3", "4"] {
        send(&client, &sandbox, packet);
    }
    assert_eq!(client.take(), b"1");
    server.finish().ends(7, "1\n2\n3\n4\n").says(format!(
        "udgram: warning: packets 3 to 4 were not answered: '{command}' ended with status 7"
    ));
}

#[test]
fn packets_that_wait_when_the_command_ends_are_printed_and_counted() {
    let sandbox = Sandbox::new();
    let mut fifo = fifo(&sandbox, "fifo");
    let command = "read x <fifo; exit 3";
    let server = listen(&sandbox, command);
    let client = sandbox.bind("client");
    // 100 packets are under way, and the others stay in the queue.
    for number in 0..105 {
        send(&client, &sandbox, number.to_string());
    }
    server.wait_asleep();
    fifo.write_all(b"\n").unwrap();
    let lines: Vec<String> = (0..105).map(|number| number.to_string()).collect();
    let outcome = server.finish().ends(3, lines.join("\n") + "\n");
    // One more line, before these, if the command answers nothing for a second.
    let reported = outcome.diagnostics();
    assert_eq!(
        reported[reported.len() - 2..],
        [
            format!(
                "udgram: warning: packets 1 to 100 were not answered: '{command}' ended with status 3"
            ),
            "udgram: warning: stopped: 5 more of the packets printed were not answered".to_owned(),
        ]
    );
}

#[test]
fn all_that_the_command_printed_before_its_end_is_sent() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let mut fifo = fifo(&sandbox, "fifo");
    // A pipe of 1 MiB (F_SETPIPE_SZ) takes the answer at once.
    sandbox.file(
        "command",
        "import fcntl, sys
fcntl.fcntl(1, 1031, 1 << 20)
sys.stdin.readline()
open('fifo').readline()
print('x' * 150000, flush=True)
",
    );
    let mut server = listen(&sandbox, "python3 command");
    let client = sandbox.bind("client");
    send(&client, &sandbox, "1");
    assert_eq!(server.line(), "1");
    server.wait_asleep();
    let [command] = children(server.pid())[..] else {
        panic!("not one child\n{}", server.context());
    };
    let ended = pidfd(command);
    server.stop();
    fifo.write_all(b"\n").unwrap();
    let mut watched = [PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
    assert_eq!(
        poll(&mut watched, PollTimeout::try_from(LIMIT).unwrap()),
        Ok(1)
    );
    server.resume();
    assert_eq!(client.take().len(), 150_000);
    server
        .finish()
        .ends(0, "1\n")
        .says("udgram: warning: 'python3 command' ended with status 0, after packet 1");
}

#[test]
fn an_answer_without_a_line_end_is_not_sent() {
    let sandbox = Sandbox::new();
    let server = listen(&sandbox, "read x; printf half");
    let client = sandbox.bind("client");
    send(&client, &sandbox, "1");
    server.finish().ends(0, "1\n").says(
        "udgram: warning: packet 1 was not answered: 'read x; printf half' ended with status 0 inside a line",
    );
    client.has_nothing_more();
}

#[test]
fn a_command_that_closes_its_output_or_input_and_goes_on_is_ended() {
    let sandbox = Sandbox::new();
    let _fifo = fifo(&sandbox, "fifo");
    let command = "exec >&2; cat fifo";
    let server = listen(&sandbox, command);
    server.finish().fails(
        1,
        format!("udgram: warning: '{command}' was ended, before the first packet"),
    );
    let command = "exec <fifo; : >closed; cat";
    let server = listen(&sandbox, command);
    server.wait_until("closed", || sandbox.exists("closed"));
    send(&sandbox.bind("client"), &sandbox, "1");
    server.finish().ends(1, "1\n").says(format!(
        "udgram: warning: packet 1 was not answered: '{command}' was ended"
    ));
}

#[test]
fn a_command_that_does_not_read_makes_senders_wait_and_loses_nothing() {
    let sandbox = Sandbox::new();
    let mut fifo = fifo(&sandbox, "fifo");
    let server = listen(&sandbox, "read x <fifo; cat");
    let client = sandbox.bind("client");
    for number in 0..100 {
        send(&client, &sandbox, number.to_string());
    }
    client.set_nonblocking(true).unwrap();
    let mut sent = 100_usize;
    // The sleeping server takes none of them: only the queue has room.
    server.wait_asleep();
    while client
        .send_to(sent.to_string().as_bytes(), sandbox.path("s"))
        .is_ok()
    {
        sent += 1;
    }
    client.set_nonblocking(false).unwrap();
    server.wait_stderr("has not answered packet 1 for 1s");
    fifo.write_all(b"\n").unwrap();
    for number in 0..sent {
        assert_eq!(client.take(), number.to_string().as_bytes());
    }
    server.signal(Signal::SIGTERM);
    let lines: Vec<String> = (0..sent).map(|number| number.to_string()).collect();
    let lines = lines.join("\n") + "\n";
    server.finish().dies_of(Signal::SIGTERM, lines).says(
        "udgram: warning: 'read x <fifo; cat' has not answered packet 1 for 1s (hint: it may buffer its output: jq --unbuffered, sed -u, stdbuf -oL)",
    );
}

#[test]
fn packets_larger_than_a_pipe_pass_both_ways() {
    let sandbox = Sandbox::new();
    let server = sandbox.listen(["-p", "text", "-n", "6", "--pipe", "cat", "s"]);
    let client = sandbox.bind("client");
    let packets = b"abcdef".map(|byte| vec![byte; 150_000]);
    thread::scope(|scope| {
        scope.spawn(|| {
            for packet in &packets {
                send(&client, &sandbox, packet);
            }
        });
        for packet in &packets {
            let answered = client.take() == *packet;
            assert!(answered, "another answer arrived");
        }
    });
    assert_eq!(server.finish().lines().len(), 6);
}

#[test]
fn a_command_that_answers_behind_a_packet_larger_than_a_pipe_gets_all_of_it() {
    let sandbox = Sandbox::new();
    // It prints nothing before it has read the whole line.
    let server = listen(&sandbox, "sed -u 's/a*/b/'");
    let client = sandbox.bind("client");
    send(&client, &sandbox, vec![b'a'; 200_000]);
    assert_eq!(client.take(), b"b");
    server.signal(Signal::SIGTERM);
    let _ = server.finish();
}

#[test]
fn an_answer_that_is_not_a_valid_packet_is_reported_and_not_sent() {
    let sandbox = Sandbox::new();
    let server = sandbox.listen(["-n", "2", "--pipe", "sed -u 's/1/no/'", "s"]);
    let client = sandbox.bind("client");
    send(&client, &sandbox, "1");
    send(&client, &sandbox, "2");
    assert_eq!(client.take(), b"2");
    server
        .finish()
        .ends(3, "1\n2\n")
        .says("udgram: the answer to packet 1 is not JSON (byte 1: expected value)");
}

#[test]
fn a_datagram_that_is_not_a_valid_packet_is_not_given_to_the_command() {
    let sandbox = Sandbox::new();
    for envelope in [&[][..], &["-e"]] {
        let server = sandbox
            .udgram(["listen", "-n", "2", "--pipe", "cat >lines; cat lines", "s"])
            .args(envelope)
            .start_ready();
        let client = sandbox.bind(format!("client{}", envelope.len()));
        send(&client, &sandbox, "no");
        send(&client, &sandbox, "1");
        let _ = client.take();
        let outcome = server.finish();
        assert_eq!(outcome.code(), Some(3));
        outcome.mentions(&["packet from", "is not JSON"]);
        let lines = fs::read_to_string(sandbox.path("lines")).unwrap();
        assert_eq!(lines.lines().count(), 1, "{lines}");
    }
}

#[test]
fn text_of_several_lines_is_reported_and_given_as_an_envelope_only() {
    let sandbox = Sandbox::new();
    let server = sandbox.listen(["-p", "text", "-n", "2", "--pipe", "cat", "s"]);
    let client = sandbox.bind("client");
    send(&client, &sandbox, "a\nb");
    send(&client, &sandbox, "c\n");
    assert_eq!(client.take(), b"c");
    server.finish().ends(3, "a\nb\nc\n").says(format!(
        "udgram: packet from '{}' has a line break (byte 1), and was not given to 'cat' (hint: -e gives each packet as an envelope, which is one line)",
        sandbox.path("client").display()
    ));
    let command = r#"sed -u 's/.*"packet":"\([^"]*\)".*/\1/'"#;
    let server = sandbox.listen(["-e", "-p", "text", "-n", "1", "--pipe", command, "s"]);
    send(&client, &sandbox, "a\nb");
    assert_eq!(client.take(), br"a\nb");
    let _ = server.finish().one_line();
}

#[test]
fn the_command_gets_the_envelopes_that_are_printed_and_the_descriptors_are_closed() {
    let sandbox = Sandbox::new();
    let command = "tee lines | sed -u 's/.*\"type\":\"\\([a-z]*\\)\".*/\"\\1\"/'";
    let mut server = sandbox.listen(["--creds", "--pipe", command, "s"]);
    let client = sandbox.bind("client");
    let file = File::open(sandbox.file("file", "")).unwrap();
    let before = server.open_descriptors();
    let descriptors = vec![file.as_fd(); 20];
    send_descriptors(&client, &sandbox.path("s"), b"1", &descriptors);
    assert_eq!(client.take(), b"\"file\"");
    assert!(server.open_descriptors() < before + 20);
    let line = server.line();
    assert_eq!(
        fs::read_to_string(sandbox.path("lines")).unwrap(),
        format!("{line}\n")
    );
    let rest = timeless(&line);
    assert!(rest.contains("\"creds\""), "{rest}");
    server.signal(Signal::SIGTERM);
    let _ = server.finish();
}

#[test]
fn a_client_that_is_gone_is_reported_and_the_next_is_answered() {
    let sandbox = Sandbox::new();
    let mut fifo = fifo(&sandbox, "fifo");
    let server = sandbox.listen(["-n", "2", "--pipe", "read x <fifo; cat", "s"]);
    let gone = sandbox.bind("gone");
    send(&gone, &sandbox, "1");
    crate::harness::close(gone);
    let client = sandbox.bind("client");
    send(&client, &sandbox, "2");
    fifo.write_all(b"\n").unwrap();
    assert_eq!(client.take(), b"2");
    let outcome = server.finish().ends(0, "1\n2\n");
    outcome.mentions(&["cannot send to", "gone", "Connection refused"]);
}

#[test]
fn a_signal_closes_the_input_of_the_command_and_sends_the_remaining_answers() {
    let sandbox = Sandbox::new();
    let server = listen(&sandbox, "cat >lines; cat lines");
    let client = sandbox.bind("client");
    for packet in ["1", "2", "3"] {
        send(&client, &sandbox, packet);
    }
    server.signal(Signal::SIGTERM);
    for answer in [b"1", b"2", b"3"] {
        assert_eq!(client.take(), answer);
    }
    server
        .finish()
        .dies_of(Signal::SIGTERM, "1\n2\n3\n")
        .says_nothing();
    assert!(!sandbox.exists("s"));
}

#[test]
fn packets_left_unanswered_are_not_reported_when_the_reader_of_stdout_has_gone() {
    let sandbox = Sandbox::new();
    let _fifo = fifo(&sandbox, "fifo");
    let (reader, writer) = crate::harness::pipe();
    let server = sandbox
        .udgram(["listen", "--pipe", "cat fifo", "s"])
        .stdout_to(writer)
        .start_ready();
    send(&sandbox.bind("client"), &sandbox, "1");
    server.wait_asleep();
    crate::harness::close(reader);
    let outcome = server.finish().dies_of(Signal::SIGPIPE, "");
    // Another line, if that took more than a second, says that the packet is not answered yet.
    let said = outcome.stderr_text();
    assert!(!said.contains("was not answered"), "{said}");
}

#[test]
fn a_lost_socket_file_is_reported_while_the_command_waits_for_packets() {
    let sandbox = Sandbox::new();
    let server = listen(&sandbox, "cat");
    fs::remove_file(sandbox.path("s")).unwrap();
    server.wait_stderr("the socket file was removed");
    server.signal(Signal::SIGTERM);
    let _ = server.finish();
}

#[test]
fn after_a_signal_queued_packets_are_handled_as_soon_as_the_command_has_room_for_them() {
    let sandbox = Sandbox::new();
    let mut fifo = fifo(&sandbox, "fifo");
    let server = listen(&sandbox, "read x <fifo; cat");
    let client = sandbox.bind("client");
    for number in 0..100 {
        send(&client, &sandbox, number.to_string());
    }
    server.wait_asleep();
    // 100 packets are under way: these stay in the queue.
    for number in 100..105 {
        send(&client, &sandbox, number.to_string());
    }
    server.signal(Signal::SIGTERM);
    fifo.write_all(b"\n").unwrap();
    for number in 0..105 {
        assert_eq!(client.take(), number.to_string().as_bytes());
    }
    let lines: Vec<String> = (0..105).map(|number| number.to_string()).collect();
    server
        .finish()
        .dies_of(Signal::SIGTERM, lines.join("\n") + "\n")
        .says_nothing();
}

#[test]
fn packets_that_the_command_has_no_room_for_after_a_signal_are_printed_and_counted() {
    let sandbox = Sandbox::new();
    let _fifo = fifo(&sandbox, "fifo");
    let server = listen(&sandbox, "cat fifo");
    let client = sandbox.bind("client");
    for number in 0..100 {
        send(&client, &sandbox, number.to_string());
    }
    server.wait_asleep();
    for number in 100..105 {
        send(&client, &sandbox, number.to_string());
    }
    server.signal(Signal::SIGTERM);
    let lines: Vec<String> = (0..105).map(|number| number.to_string()).collect();
    let outcome = server
        .finish()
        .dies_of(Signal::SIGTERM, lines.join("\n") + "\n");
    // One more line, before these, if the command answers nothing for a second.
    let reported = outcome.diagnostics();
    assert_eq!(
        reported[reported.len() - 2..],
        [
            "udgram: warning: packets 1 to 100 were not answered: 'cat fifo' was ended",
            "udgram: warning: stopped: 5 more of the packets printed were not answered",
        ]
    );
}

#[test]
fn answers_are_awaited_after_the_last_packet() {
    let sandbox = Sandbox::new();
    let mut fifo = fifo(&sandbox, "fifo");
    let server = sandbox.listen([
        "-n",
        "2",
        "--pipe",
        "for i in 1 2; do read x; echo $x; done <fifo",
        "s",
    ]);
    let client = sandbox.bind("client");
    send(&client, &sandbox, "1");
    send(&client, &sandbox, "2");
    server.wait_stderr("has not answered packet 1 for 1s");
    for answer in ["3\n", "4\n"] {
        fifo.write_all(answer.as_bytes()).unwrap();
        assert_eq!(client.take(), answer.trim_end().as_bytes());
    }
    let _ = server.finish().ends(0, "1\n2\n");
}

#[test]
fn the_timeout_bounds_the_wait_for_each_answer_after_the_last_packet() {
    let sandbox = Sandbox::new();
    let _fifo = fifo(&sandbox, "fifo");
    let start = std::time::Instant::now();
    let command = "cat fifo";
    let server = sandbox.listen(["-n", "1", "-t", "1500ms", "--pipe", command, "s"]);
    send(&sandbox.bind("client"), &sandbox, "1");
    let outcome = server.finish();
    assert!(start.elapsed().as_millis() >= 1500);
    outcome
        .ends(0, "1\n")
        .says("udgram: warning: packet 1 was not answered: 'cat fifo' was ended");
}

#[test]
fn a_signal_ends_the_wait_for_answers_after_the_last_packet() {
    let sandbox = Sandbox::new();
    let _fifo = fifo(&sandbox, "fifo");
    let server = sandbox.listen(["-n", "1", "--pipe", "cat fifo", "s"]);
    send(&sandbox.bind("client"), &sandbox, "1");
    server.wait_stderr("has not answered packet 1 for 1s");
    server.signal(Signal::SIGTERM);
    let outcome = server.finish().dies_of(Signal::SIGTERM, "1\n");
    assert_eq!(
        outcome.diagnostics()[1..],
        ["udgram: warning: packet 1 was not answered: 'cat fifo' was ended"]
    );
}

#[test]
fn a_command_that_closed_its_output_is_not_awaited() {
    let sandbox = Sandbox::new();
    let _fifo = fifo(&sandbox, "fifo");
    let command = "read x; exec >&-; read x <fifo";
    let server = sandbox.listen(["-n", "1", "--pipe", command, "s"]);
    send(&sandbox.bind("client"), &sandbox, "1");
    server.finish().ends(0, "1\n").says(format!(
        "udgram: warning: packet 1 was not answered: '{command}' was ended"
    ));
}

#[test]
fn a_command_that_had_closed_its_input_before_the_last_packet_is_not_awaited() {
    let sandbox = Sandbox::new();
    let _fifo = fifo(&sandbox, "fifo");
    let command = "exec <fifo; : >closed; cat";
    let server = sandbox.listen(["-n", "1", "--pipe", command, "s"]);
    server.wait_until("closed", || sandbox.exists("closed"));
    send(&sandbox.bind("client"), &sandbox, "1");
    server.finish().ends(0, "1\n").says(format!(
        "udgram: warning: packet 1 was not answered: '{command}' was ended"
    ));
}

#[test]
fn every_message_about_missing_descriptors_names_the_operation() {
    let sandbox = Sandbox::new();
    let mut failed = 0;
    for limit in 5..24 {
        let listen = sandbox.udgram(["listen", "-t", "0", "--pipe", "cat", "s"]);
        let outcome = listen.descriptor_limit(limit).run();
        for line in outcome.diagnostics() {
            assert!(line.starts_with("udgram: cannot "), "{limit}: {line}");
            failed += 1;
        }
    }
    assert!(failed > 5, "{failed}");
}

#[test]
fn a_command_that_does_not_end_with_its_input_is_ended_after_a_second() {
    let sandbox = Sandbox::new();
    let _fifo = fifo(&sandbox, "fifo");
    let command = "trap '' TERM; read x; echo $x; cat fifo";
    let server = sandbox.listen(["-n", "1", "--pipe", command, "s"]);
    let client = sandbox.bind("client");
    let start = std::time::Instant::now();
    send(&client, &sandbox, "1");
    assert_eq!(client.take(), b"1");
    let outcome = server.finish();
    assert!(start.elapsed().as_secs() >= 2);
    outcome
        .ends(0, "1\n")
        .says(format!("udgram: warning: '{command}' was ended"));
}

#[test]
fn a_second_signal_ends_the_command_at_once() {
    let sandbox = Sandbox::new();
    let _fifo = fifo(&sandbox, "fifo");
    let command = "trap \"\" TERM; cat fifo";
    let mut server = listen(&sandbox, command);
    send(&sandbox.bind("client"), &sandbox, "1");
    assert_eq!(server.line(), "1");
    server.signal(Signal::SIGTERM);
    server.signal(Signal::SIGINT);
    // Its end includes the end of stderr, which cat has.
    let outcome = server.finish();
    assert_eq!(outcome.stdout(), b"1\n");
    outcome.says(format!(
        "udgram: warning: packet 1 was not answered: '{command}' was ended"
    ));
}

#[test]
fn the_status_of_the_command_counts_after_the_last_packet() {
    let sandbox = Sandbox::new();
    let command = "cat; exit 5";
    let server = sandbox.listen(["-n", "1", "--pipe", command, "s"]);
    let client = sandbox.bind("client");
    send(&client, &sandbox, "1");
    assert_eq!(client.take(), b"1");
    server
        .finish()
        .ends(5, "1\n")
        .says("udgram: warning: 'cat; exit 5' ended with status 5");
}

#[test]
fn a_line_without_an_end_is_bounded() {
    let sandbox = Sandbox::new();
    let server = listen(&sandbox, "read x; tr '\\0' x </dev/zero; cat fifo");
    let client = sandbox.bind("client");
    let _fifo = fifo(&sandbox, "fifo");
    send(&client, &sandbox, "1");
    let message = "was ended: its answer to packet 1 is longer than any datagram";
    server.wait_stderr(message);
    let outcome = server.finish();
    assert_eq!(outcome.code(), Some(1));
    client.has_nothing_more();
}

#[test]
fn the_command_has_no_variable_and_no_descriptor_of_udgram() {
    let sandbox = Sandbox::new();
    let null = File::open("/dev/null").unwrap();
    let script = "{ echo has none; env | grep -E '^(LISTEN|WATCHDOG|NOTIFY|UDGRAM)'; for n in 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$n ] && echo $n; done; grep -E 'Sig(Blk|Ign)' /proc/self/status; } >found; cat";
    let server = sandbox
        .udgram(["listen", "--pipe", script, "-n", "1", "s"])
        .env("WATCHDOG_PID", "1")
        .env("UDGRAM_SOCKET_FD", "0")
        .env("UDGRAM_FROM", "x")
        .env("UDGRAM_FDS", "9")
        .env("UDGRAM_PID", "1")
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDS", "1")
        .descriptor(&null, 7)
        .start_ready();
    let client = sandbox.bind("client");
    send(&client, &sandbox, "1");
    assert_eq!(client.take(), b"1");
    server.finish().succeeds("1\n");
    let found = fs::read_to_string(sandbox.path("found")).unwrap();
    let signals = found.trim_start_matches("has none\n");
    assert!(signals.starts_with("Sig"), "{found}");
    for line in signals.lines() {
        let mask = line.split_whitespace().last().unwrap();
        let mask = u64::from_str_radix(mask, 16).unwrap();
        // SIGINT, SIGHUP, SIGTERM, SIGPIPE, SIGCHLD and SIGXFSZ are at their defaults.
        for signal in [2, 1, 15, 13, 17, 25] {
            assert_eq!(mask & 1 << (signal - 1), 0, "{signal} in {found}");
        }
    }
}

#[test]
fn a_command_that_is_missing_is_reported_by_the_shell() {
    let sandbox = Sandbox::new();
    sandbox.file("data", "");
    for (command, status, why) in [
        ("nosuchcommand", 127, "not found"),
        ("nosuchcommand; exit $?", 127, "not found"),
        ("./data", 126, "ermission denied"),
    ] {
        let outcome = sandbox.udgram(["listen", "--pipe", command, "s"]).run();
        assert_eq!(outcome.code(), Some(status), "{command}");
        let said = outcome.stderr_text();
        assert!(said.contains(why), "{said}");
        assert!(said.contains(&format!(
            "ended with status {status}, before the first packet"
        )));
        assert!(!sandbox.exists("s"));
    }
    let outcome = sandbox
        .udgram(["listen", "--pipe", "cat", "s"])
        .env("PATH", "/nonexistent")
        .run();
    outcome.fails(127, "udgram: cannot run 'sh': No such file or directory");
}

#[test]
fn a_plain_command_runs_without_a_shell_and_a_script_without_an_interpreter_with_one() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let script = sandbox.file("script", "echo $0 $1; cat\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    for (command, answer) in [
        ("./script a", "./script a"),
        ("echo $0", "sh"),
        ("ps -o comm= -p 0", ""),
    ] {
        let server = sandbox.listen(["-p", "text", "-n", "1", "--exec", command, "s"]);
        let client = sandbox.bind(answer.replace(['.', '/', ' '], "-") + "asks");
        send(&client, &sandbox, "");
        if !answer.is_empty() {
            assert_eq!(String::from_utf8(client.take()).unwrap(), answer);
        }
        let _ = server.finish();
    }
    let server = listen(&sandbox, "cat");
    let client = sandbox.bind("client");
    send(&client, &sandbox, "1");
    assert_eq!(client.take(), b"1");
    let [child] = children(server.pid())[..] else {
        panic!("not one child");
    };
    let command = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap();
    assert_eq!(command, "cat\0");
    server.signal(Signal::SIGTERM);
    server
        .finish()
        .dies_of(Signal::SIGTERM, "1\n")
        .says_nothing();
}

#[test]
fn a_kernel_without_pidfd_open_serves_the_same() {
    peer!("strace");
    let sandbox = Sandbox::new();
    let server = sandbox
        .command("strace", ["-f", "-qq", "-o", "trace"])
        .args([
            "-e",
            "trace=pidfd_open",
            "-e",
            "inject=pidfd_open:error=ENOSYS",
        ])
        .args([
            "udgram",
            "listen",
            "-p",
            "text",
            "--pipe",
            "read x; echo $x; exit 3",
            "s",
        ])
        .start_ready();
    let client = sandbox.bind("client");
    send(&client, &sandbox, "1");
    assert_eq!(client.take(), b"1");
    let outcome = server.finish().ends(3, "1\n");
    outcome.mentions(&["'read x; echo $x; exit 3' ended with status 3, after packet 1"]);
    let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
    assert!(trace.contains("pidfd_open"), "{trace}");
}
