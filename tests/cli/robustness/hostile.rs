//! Hostile peers: floods of descriptors, forged credentials, unusual names, control characters,
//! senders that never stop, empty and large datagrams.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use crate::harness::{Peer, Sandbox, limited, peer, root};
use crate::running::Running;
use crate::sys::{
    autobound, bind_unterminated, peak_memory, send_descriptors, send_to_peer, wait_received,
};

use super::scaled;

/// Sends `messages` messages with `descriptors` copies of the write end of a pipe each, and checks that
/// the receiver has closed all of them in the end.
#[track_caller]
fn flood(listen: &Running, messages: usize, descriptors: usize) {
    let socket = limited(UnixDatagram::unbound().unwrap());
    let path = listen.dir.join("s");
    let before = listen.open_descriptors();
    let (reader, writer) = crate::harness::pipe();
    let held = vec![writer.as_fd(); descriptors];
    for round in 0..messages {
        send_descriptors(&socket, &path, b"1", &held);
        if round % 1000 == 0 {
            // At most the descriptors of one batch, 64 messages, are open.
            let open = listen.open_descriptors();
            assert!(open <= before + 64 * descriptors, "{open} are open");
        }
    }
    drop(writer);
    assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    // All messages have been received.
    assert!(listen.open_descriptors() <= before + 2);
}

#[test]
fn unrequested_descriptors_are_closed() {
    let sandbox = Sandbox::new();
    let null = File::create("/dev/null").unwrap();
    let listen = sandbox
        .udgram(["listen", "s"])
        .stdout_to(null)
        .start_ready();
    flood(&listen, scaled(5_000, 500_000), 1);
    flood(&listen, scaled(50, 5_000), 253);
    listen.signal(Signal::SIGTERM);
    let outcome = listen.finish().dies_of(Signal::SIGTERM, "");
    assert!(outcome.stderr_text().contains("messages were dropped"));
}

#[test]
fn requested_descriptors_are_closed_after_their_message() {
    let sandbox = Sandbox::new();
    let null = File::create("/dev/null").unwrap();
    let listen = sandbox
        .udgram(["listen", "s", "--envelope"])
        .stdout_to(null)
        .start_ready();
    flood(&listen, scaled(5_000, 500_000), 1);
    flood(&listen, scaled(20, 2_000), 253);
    listen.signal(Signal::SIGTERM);
    listen.finish().dies_of(Signal::SIGTERM, "").says_nothing();
}

#[test]
fn more_descriptors_than_a_process_may_open_do_not_stop_listen() {
    for options in ["--envelope", "--exec 'cat; echo'"] {
        let sandbox = Sandbox::new();
        let script = format!("ulimit -n 64; exec udgram listen s {options}");
        let listen = sandbox.shell(&script).start_ready();
        flood(&listen, 20, 253);
        let client = sandbox.bind("client");
        client.send_to(b"2", sandbox.path("s")).unwrap();
        if options != "--envelope" {
            // The packets before it have no answer: their sender has no name.
            assert_eq!(client.take(), b"2");
        }
        listen.signal(Signal::SIGTERM);
        let outcome = listen.finish();
        let lines = outcome.stdout().split(|byte| *byte == b'\n');
        assert_eq!(lines.count(), 22);
    }
}

#[test]
fn a_small_control_buffer_leaks_no_descriptor_and_truncation_is_reported() {
    for bytes in ["0", "1", "16", "20", "24", "100"] {
        let sandbox = Sandbox::new();
        let mut listen = sandbox.listen(["s", "--envelope", "--ancillary-bufsize", bytes]);
        flood(&listen, 10, 100);
        for _ in 0..10 {
            assert!(listen.line().contains("\"ancillary_truncated\":true"));
        }
        listen.signal(Signal::SIGTERM);
        let _ = listen.finish();
    }
}

#[test]
fn nested_sockets_in_transit_are_closed() {
    let sandbox = Sandbox::new();
    let listen = sandbox.listen(["s", "--envelope"]);
    let (reader, writer) = crate::harness::pipe();
    let mut held = Vec::new();
    for depth in 0..4 {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        let inner: BorrowedFd<'_> = held
            .last()
            .map_or(writer.as_fd(), |socket: &UnixDatagram| socket.as_fd());
        send_to_peer(&sender, b"", inner);
        held.push(receiver);
        assert_eq!(held.len(), depth + 1);
    }
    let outside = UnixDatagram::unbound().unwrap();
    send_descriptors(
        &outside,
        &sandbox.path("s"),
        b"1",
        &[held.last().unwrap().as_fd()],
    );
    drop((writer, held));
    // The kernel's garbage collector for sockets in transit closes them.
    assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    listen.signal(Signal::SIGTERM);
    let _ = listen.finish();
}

#[test]
fn credentials_that_a_sender_may_not_claim_are_refused_by_the_kernel() {
    root!();
    let sandbox = Sandbox::new();
    let listen = sandbox.listen(["s", "--creds", "--mode", "0666"]);
    for claim in ["--creds=1:1:1", "--creds=1:0:0", "--creds=0:1:1"] {
        let sent = sandbox.udgram_as(1, ["send", "s", "1", claim]).run();
        assert_ne!(sent.code(), Some(0));
    }
    listen.signal(Signal::SIGTERM);
    let _ = listen.finish().dies_of(Signal::SIGTERM, "");
}

#[test]
fn packets_of_senders_with_any_name_or_none_are_printed_and_answered() {
    let sandbox = Sandbox::new();
    let unnamed = limited(UnixDatagram::unbound().unwrap());
    let (named, _) = autobound();
    let full = limited(UnixDatagram::unbound().unwrap());
    let name = "n".repeat(108 - sandbox.dir().as_os_str().len() - 1);
    bind_unterminated(&full, &sandbox.path(name));
    let foreign = sandbox.bind(Path::new(&crate::harness::bytes_path(
        b"\xff\x1b[2J\n\xc2\x9b",
    )));
    for options in [["--envelope", "-v"], ["--echo", "-v"], ["--exec", "cat"]] {
        let mut listen = sandbox.listen([["s"].as_slice(), &options].concat());
        for sender in [&unnamed, &named, &full, &foreign] {
            sender.send_to(b"1", sandbox.path("s")).unwrap();
            assert!(listen.line().contains('1'));
        }
        for sender in [&named, &full, &foreign] {
            if options[0] != "--envelope" {
                assert_eq!(sender.take(), b"1");
            }
        }
        listen.signal(Signal::SIGTERM);
        let outcome = listen.finish();
        assert!(!outcome.stderr_text().contains(['\x1b', '\u{9b}']));
    }
}

#[test]
fn no_received_control_character_reaches_a_terminal() {
    peer!("script");
    let evil = "\x1b]0;owned\x07\x1b[2J\u{9b}31m\x08\r\x7f";
    for (options, packet) in [
        ("-p text", evil.to_owned()),
        ("-p text -e", evil.to_owned()),
        // JSON may contain DEL and the C1 controls unescaped.
        ("", "\"\u{9b}31m\x7f\"".to_owned()),
        ("-e", "{\"\u{9b}\":\"\u{90}\x7f\"}".to_owned()),
        // Not a valid packet: the message quotes it.
        ("", evil.to_owned()),
        ("-e", evil.to_owned()),
        ("-p hex", evil.to_owned()),
    ] {
        let sandbox = Sandbox::new();
        let sender = sandbox.bind(Path::new(&crate::harness::bytes_path(
            b"\x1b[2J\xc2\x9b\x07",
        )));
        let command = format!("udgram listen s -v --count 1 {options}");
        let shown = sandbox
            .command("script", ["-qec", &command, "/dev/null"])
            .env("TERM", "xterm-256color")
            .start();
        shown.wait_bound("s");
        sender
            .send_to(packet.as_bytes(), sandbox.path("s"))
            .unwrap();
        let outcome = shown.finish();
        let mut text = String::from_utf8(outcome.stdout().to_vec()).unwrap();
        // Remove the colours that udgram prints.
        for style in ["0", "1", "31", "32", "33", "34", "36"] {
            text = text.replace(&format!("\x1b[{style}m"), "");
        }
        let harmful = |c: char| c.is_control() && c != '\r' && c != '\n';
        assert!(
            !text.contains(harmful),
            "{options}: {}",
            text.escape_debug()
        );
        // The terminal adds a carriage return to each line end.
        assert_eq!(text.matches('\r').count(), text.matches("\r\n").count());
    }
}

#[test]
fn a_sender_that_never_stops_delays_neither_other_clients_nor_sigterm() {
    let sandbox = Sandbox::new();
    let null = File::create("/dev/null").unwrap();
    let listen = sandbox
        .udgram(["listen", "s", "--exec", "cat"])
        .stdout_to(null);
    let listen = listen.start_ready();
    let flooder = UnixDatagram::unbound().unwrap();
    flooder.connect(sandbox.path("s")).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) && flooder.send(b"0").is_ok() {
                std::hint::spin_loop();
            }
        });
        for _ in 0..3 {
            sandbox
                .udgram(["send", "s", "1", "--reply", "--timeout", "100s"])
                .run()
                .succeeds("1\n");
        }
        listen.signal(Signal::SIGTERM);
        let _ = listen.finish().dies_of(Signal::SIGTERM, "");
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn no_packet_is_lost_at_sigterm_when_a_client_does_not_read_its_answers() {
    let sandbox = Sandbox::new();
    let listen = sandbox.listen(["s", "--echo"]);
    let deaf = sandbox.bind("deaf");
    assert!(sandbox.fill("deaf") > 0);
    // They are received in one batch; the answer to the first one waits for room in a full queue.
    listen.signal(Signal::SIGSTOP);
    for number in 0..8 {
        let packet = number.to_string();
        deaf.send_to(packet.as_bytes(), sandbox.path("s")).unwrap();
    }
    listen.signal(Signal::SIGCONT);
    wait_received(&deaf);
    listen.signal(Signal::SIGTERM);
    let outcome = listen
        .finish()
        .dies_of(Signal::SIGTERM, "0\n1\n2\n3\n4\n5\n6\n7\n");
    assert!(outcome.stderr_text().contains("not answered"));
}

#[test]
fn unread_answers_take_bounded_memory_and_do_not_delay_other_clients() {
    let sandbox = Sandbox::new();
    let null = File::create("/dev/null").unwrap();
    let listen = sandbox.udgram(["listen", "s", "--echo", "-p", "raw"]);
    let listen = listen.stdout_to(null).start_ready();
    let path = sandbox.path("s");
    let packet = vec![b'0'; 100_000];
    let mut deaf = Vec::new();
    for number in 0..12 {
        let client = sandbox.bind(format!("deaf-{number}"));
        if number % 2 == 0 {
            client.connect(&path).unwrap();
        }
        // The long form sends 2 GB in all, the short form 200 MB.
        for _ in 0..scaled(170, 1700) {
            if number % 2 == 0 {
                client.send(&packet).unwrap();
            } else {
                client.send_to(&packet, &path).unwrap();
            }
        }
        deaf.push(client);
        let innocent = sandbox.bind(format!("innocent-{number}"));
        innocent.send_to(b"1", &path).unwrap();
        assert_eq!(innocent.take(), b"1");
    }
    let peak = peak_memory(listen.pid());
    assert!(peak < 160 << 20, "{peak} bytes");
}

#[test]
fn clients_that_close_before_their_answer_do_not_delay_others_and_at_most_257_lines_are_reported() {
    let sandbox = Sandbox::new();
    let null = File::create("/dev/null").unwrap();
    let listen = sandbox.udgram(["listen", "s", "--echo"]);
    let listen = listen.stdout_to(null).start_ready();
    let clients = scaled(1_000, 100_000);
    listen.signal(Signal::SIGSTOP);
    for round in 0..clients {
        let (gone, _) = autobound();
        gone.send_to(b"1", sandbox.path("s")).unwrap();
        crate::harness::close(gone);
        if round == 0 {
            listen.signal(Signal::SIGCONT);
        }
    }
    let client = sandbox.bind("client");
    client.send_to(b"1", sandbox.path("s")).unwrap();
    assert_eq!(client.take(), b"1");
    listen.signal(Signal::SIGTERM);
    let lines = listen.finish().dies_of(Signal::SIGTERM, "").diagnostics();
    assert!(lines.len() <= 257, "{} lines", lines.len());
    println!("{clients} clients: {} lines", lines.len());
}

#[test]
fn empty_datagrams_are_counted_and_answered() {
    let sandbox = Sandbox::new();
    let listen = sandbox.listen(["s", "-p", "hex", "--count", "1000", "--echo"]);
    let client = sandbox.bind("client");
    for _ in 0..1000 {
        client.send_to(b"", sandbox.path("s")).unwrap();
        assert_eq!(client.take(), b"");
    }
    listen.finish().succeeds("\n".repeat(1000));
}

#[test]
fn datagrams_of_four_megabytes_in_bursts_take_bounded_memory() {
    for options in [["-p", "raw"], ["-p", "text"], ["-ep", "hex"]] {
        let sandbox = Sandbox::new();
        let null = File::create("/dev/null").unwrap();
        let listen = sandbox.udgram(["listen", "s"]).args(options);
        let listen = listen.stdout_to(null).start_ready();
        let client = sandbox.bind("client");
        let size = 4 << 20;
        if setsockopt(&client, sockopt::SndBufForce, &(12 * size)).is_err() {
            return crate::harness::skip("large datagrams need root here");
        }
        let datagram = vec![b'\x01'; size - 4096];
        // Send as many at a time as the queue holds.
        for _ in 0..scaled(25, 500) {
            client.send_to(&datagram, sandbox.path("s")).unwrap();
        }
        let most = peak_memory(listen.pid());
        assert!(most < 320 << 20, "{options:?}: {most} bytes");
        println!("{options:?}: {} MiB at most", most >> 20);
        drop(listen);
    }
}
