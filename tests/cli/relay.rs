//! `udgram relay`: passes packets and answers on with what belongs to them, loses none, and lets no client or
//! peer cost the others anything.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::poll;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{getegid, geteuid};

use crate::harness::{
    NO_WPA_SUPPLICANT, Peer, Sandbox, bind_abstract, close, content, limited, peer, root, skip,
    text, timeless,
};
use crate::running::{Running, children};
use crate::sys;

/// Starts a relay and waits until it is ready.
#[track_caller]
fn relay(sandbox: &Sandbox, arguments: &[&str]) -> Running {
    sandbox.udgram(["relay"]).args(arguments).start_ready()
}

/// Starts a relay that prints nowhere.
#[track_caller]
fn quiet_relay(sandbox: &Sandbox, arguments: &[&str]) -> Running {
    let null = fs::File::create("/dev/null").unwrap();
    let relay = sandbox.udgram(["relay"]).args(arguments);
    relay.stdout_to(null).start_ready()
}

/// Ends a relay, whose diagnostics are none.
#[track_caller]
fn ends_silently(relay: Running) {
    relay.signal(Signal::SIGTERM);
    let outcome = relay.finish();
    assert_eq!(outcome.stderr_text(), "");
}

/// Answers a sender.
#[track_caller]
fn answer(daemon: &UnixDatagram, bytes: &[u8], to: &SocketAddr) {
    daemon.send_to_addr(bytes, to).unwrap();
}

/// Returns the envelope that a relay prints, without its time and its credentials.
#[track_caller]
fn envelope(relay: &mut Running) -> String {
    let line = timeless(&relay.line());
    let mut line = line.as_str();
    let mut envelope = String::new();
    if let Some((before, creds)) = line.split_once(",\"creds\":{") {
        envelope.push_str(before);
        line = creds.split_once('}').unwrap().1;
    }
    envelope + line
}

#[test]
fn a_packet_and_its_answer_are_passed_on_and_printed_with_both_addresses() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let mut relay = relay(&sandbox, &["s", "daemon"]);
    let name = sandbox.unique();
    let client = bind_abstract(&name);
    client.send_to(b"[1]", sandbox.path("s")).unwrap();
    let (question, from) = daemon.take_from();
    assert_eq!(question, b"[1]");
    assert_eq!(
        envelope(&mut relay),
        format!(r#"{{"from":"@{name}","to":"daemon","size":3,"packet":[1]}}"#)
    );
    answer(&daemon, b"2", &from);
    let (reply, server) = client.take_from();
    assert_eq!(reply, b"2");
    assert_eq!(server.as_pathname(), Some(sandbox.path("s").as_path()));
    assert_eq!(
        envelope(&mut relay),
        format!(
            r#"{{"from":"{}","to":"@{name}","size":1,"packet":2}}"#,
            text(&sandbox.path("daemon"))
        )
    );
    ends_silently(relay);
    assert!(!sandbox.exists("s"));
}

#[test]
fn later_events_go_to_the_client_that_asked_for_them() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["-p", "text", "s", "daemon"]);
    let clients: Vec<_> = (0..3)
        .map(|number| sandbox.bind(format!("client-{number}")))
        .collect();
    let mut upstream = Vec::new();
    for client in &clients {
        // The kernel lets a connected client receive from the socket of ADDR only.
        client.connect(sandbox.path("s")).unwrap();
        client.send(b"0").unwrap();
        upstream.push(daemon.take_from().1);
    }
    for round in 0..3 {
        for (number, from) in upstream.iter().enumerate().rev() {
            answer(&daemon, format!("{number}{round}").as_bytes(), from);
        }
    }
    for (number, client) in clients.iter().enumerate() {
        for round in 0..3 {
            assert_eq!(client.take(), format!("{number}{round}").as_bytes());
        }
        client.has_nothing_more();
    }
    ends_silently(relay);
}

#[test]
fn the_peer_sees_the_credentials_of_the_client_of_a_privileged_relay() {
    root!();
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    sys::ask_for_credentials(&daemon);
    let relay = quiet_relay(&sandbox, &["--mode", "0666", "s", "daemon"]);
    let own = std::process::id().try_into().unwrap();
    sandbox.bind("me").send_to(b"0", sandbox.path("s")).unwrap();
    let seen = sys::take_message(&daemon).credentials.unwrap();
    assert_eq!(
        (seen.pid(), seen.uid(), seen.gid()),
        (own, geteuid().as_raw(), getegid().as_raw())
    );
    let client = sandbox.udgram_as(7, ["send", "s"]).stdin_open().start();
    let mut client = client;
    client.write("1\n");
    let seen = sys::take_message(&daemon).credentials.unwrap();
    assert_eq!((seen.pid(), seen.uid(), seen.gid()), (client.pid(), 7, 7));
    client.finish().succeeds("");
    ends_silently(relay);
}

#[test]
fn the_user_of_a_client_that_has_exited_is_passed_on_with_the_process_of_the_relay() {
    root!();
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    sys::ask_for_credentials(&daemon);
    let relay = quiet_relay(&sandbox, &["--mode", "0666", "s", "daemon"]);
    relay.stop();
    for _ in 0..2 {
        sandbox.udgram_as(7, ["send", "s", "1"]).run().succeeds("");
    }
    relay.resume();
    for _ in 0..2 {
        let seen = sys::take_message(&daemon).credentials.unwrap();
        assert_eq!((seen.pid(), seen.uid(), seen.gid()), (relay.pid(), 7, 7));
    }
    relay.signal(Signal::SIGTERM);
    relay.finish().dies_of(Signal::SIGTERM, "").mentions(&[
        "packets are passed on with the process of udgram",
        "has exited",
    ]);
}

#[test]
fn the_user_of_a_client_outside_its_pid_namespace_is_passed_on_with_the_process_of_the_relay() {
    peer!("unshare");
    root!();
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    sys::ask_for_credentials(&daemon);
    let relay = sandbox
        .command("unshare", ["-pf", "--mount-proc", "--kill-child", "udgram"])
        .args(["relay", "--mode", "0666", "s", "daemon"])
        .stdout_to(fs::File::create("/dev/null").unwrap())
        .start_ready();
    let [init] = children(relay.pid())[..] else {
        panic!("not one child\n{}", relay.context());
    };
    sandbox.udgram_as(7, ["send", "s", "1"]).run().succeeds("");
    let seen = sys::take_message(&daemon).credentials.unwrap();
    assert_eq!((seen.pid(), seen.uid(), seen.gid()), (init, 7, 7));
    sys::signal(init, Signal::SIGTERM as i32);
    let diagnostics = relay.finish().diagnostics();
    assert_eq!(
        diagnostics[0],
        "udgram: warning: packets are passed on with the process of udgram: the client's process has no number in this PID namespace"
    );
}

#[test]
fn an_unprivileged_relay_passes_its_own_credentials_and_says_so_once() {
    root!();
    let sandbox = Sandbox::new();
    let public = sandbox.directory("pub");
    fs::set_permissions(&public, fs::Permissions::from_mode(0o777)).unwrap();
    let daemon = sandbox.bind("daemon");
    fs::set_permissions(sandbox.path("daemon"), fs::Permissions::from_mode(0o666)).unwrap();
    sys::ask_for_credentials(&daemon);
    let relay = sandbox.udgram_as(7, ["relay", "pub/s", "daemon"]).start();
    relay.wait_bound("pub/s");
    // First a client of the same user, then two of others.
    let mut client = sandbox.udgram_as(7, ["send", "pub/s"]).stdin_open().start();
    client.write("1\n");
    let me = sandbox.bind("me");
    let seen = sys::take_message(&daemon).credentials.unwrap();
    assert_eq!((seen.pid(), seen.uid(), seen.gid()), (relay.pid(), 7, 7));
    for _ in 0..2 {
        me.send_to(b"2", sandbox.path("pub/s")).unwrap();
        let seen = sys::take_message(&daemon).credentials.unwrap();
        assert_eq!((seen.pid(), seen.uid(), seen.gid()), (relay.pid(), 7, 7));
    }
    relay.signal(Signal::SIGTERM);
    let outcome = relay.finish();
    assert_eq!(
        outcome.diagnostics(),
        [
            format!(
                "udgram: warning: packets are passed on with the process of udgram: claiming process {} needs CAP_SYS_ADMIN",
                client.pid()
            ),
            "udgram: warning: packets are passed on with the credentials of udgram: claiming user 0 and group 0 needs CAP_SETUID and CAP_SETGID"
                .to_owned(),
        ]
    );
    client.finish().succeeds("");
}

#[test]
fn descriptors_are_passed_both_ways_and_none_stays_open() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["s", "daemon"]);
    let client = sandbox.bind("client");
    client.send_to(b"0", sandbox.path("s")).unwrap();
    let (_, from) = daemon.take_from();
    let before = relay.wait_asleep().open_descriptors();
    for (sender, receiver, to) in [
        (&client, &daemon, sandbox.path("s")),
        (&daemon, &client, sandbox.path("@")),
    ] {
        let (reader, writer) = crate::harness::pipe();
        if to == sandbox.path("s") {
            sys::send_descriptors(sender, &to, b"1", &[writer.as_fd()]);
        } else {
            sender.connect_addr(&from).unwrap();
            sys::send_to_peer(sender, b"1", writer.as_fd());
        }
        drop(writer);
        let message = sys::take_message(receiver);
        let [passed] = <[_; 1]>::try_from(message.descriptors).unwrap();
        fs::File::from(passed).write_all(b"through").unwrap();
        // The pipe ends only if the relay has closed its copy.
        assert_eq!(content(reader.into()), b"through");
    }
    assert_eq!(relay.wait_asleep().open_descriptors(), before);
    ends_silently(relay);
}

#[test]
fn a_datagram_with_253_descriptors_is_passed_on() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["s", "daemon"]);
    let (_reader, writer) = crate::harness::pipe();
    let many = vec![writer.as_fd(); 253];
    let client = sandbox.bind("client");
    for _ in 0..5 {
        sys::send_descriptors(&client, &sandbox.path("s"), b"1", &many);
        assert_eq!(sys::take_message(&daemon).descriptors.len(), 253);
    }
    ends_silently(relay);
}

#[test]
fn descriptors_that_a_relay_cannot_receive_are_reported_once() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let null = fs::File::create("/dev/null").unwrap();
    let relay = sandbox.udgram(["relay", "s", "daemon"]);
    let relay = relay.descriptor_limit(64).stdout_to(null).start_ready();
    let client = sandbox.bind("client");
    let (_reader, writer) = crate::harness::pipe();
    for _ in 0..2 {
        let many = vec![writer.as_fd(); 100];
        sys::send_descriptors(&client, &sandbox.path("s"), b"1", &many);
        let passed = sys::take_message(&daemon).descriptors.len();
        assert!((30..100).contains(&passed), "{passed}");
    }
    relay.signal(Signal::SIGTERM);
    relay.finish().dies_of(Signal::SIGTERM, "").says(format!(
        "udgram: warning: not all descriptors that '{}' sent could be received and passed on",
        text(&sandbox.path("client"))
    ));
}

#[test]
fn a_relay_that_may_pass_no_more_descriptors_waits_without_using_the_processor() {
    root!();
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let public = sandbox.directory("pub");
    for path in [sandbox.path("daemon"), public] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    // The kernel lets five packets of an ordinary user with this limit be in flight (`too_many_unix_fds`).
    let relay = sandbox
        .udgram_as(65531, ["relay", "-q", "pub/s", "daemon"])
        .descriptor_limit(40)
        .stdout_to(fs::File::create("/dev/null").unwrap())
        .start();
    relay.wait_bound("pub/s");
    let (_reader, writer) = crate::harness::pipe();
    let client = sandbox.bind("client");
    for number in 0..8 {
        let packet = number.to_string();
        let descriptors = vec![writer.as_fd(); 10];
        sys::send_descriptors(
            &client,
            &sandbox.path("pub/s"),
            packet.as_bytes(),
            &descriptors,
        );
    }
    daemon.wait_queued();
    for _ in 0..3 {
        relay.wait_asleep();
    }
    for number in 0..8 {
        let message = sys::take_message(&daemon);
        assert_eq!(message.bytes, number.to_string().as_bytes());
        assert_eq!(message.descriptors.len(), 10);
    }
    ends_silently(relay);
}

#[test]
fn datagrams_of_every_size_are_passed_on_unchanged() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["-p", "text", "s", "daemon"]);
    let client = sandbox.bind("client");
    setsockopt(&client, sockopt::SndBuf, &(8 << 20)).unwrap();
    for size in [
        0,
        1,
        70_000,
        200_000,
        if geteuid().is_root() {
            4_000_000
        } else {
            150_000
        },
    ] {
        let bytes: Vec<u8> = (b'a'..=b'w').cycle().take(size).collect();
        client.send_to(&bytes, sandbox.path("s")).unwrap();
        let (question, from) = daemon.take_from();
        assert!(question == bytes, "{size}: {} bytes came", question.len());
        answer(&daemon, &question[..size.min(100_000)], &from);
        let answered = client.take() == question[..size.min(100_000)];
        assert!(answered, "another answer arrived");
    }
    ends_silently(relay);
}

#[test]
fn a_datagram_that_is_no_packet_is_passed_on_reported_and_printed_with_its_bytes() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let mut relay = relay(&sandbox, &["s", "daemon"]);
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"oops", sandbox.path("s")).unwrap();
    assert_eq!(daemon.take(), b"oops");
    assert_eq!(
        envelope(&mut relay),
        r#"{"from":null,"to":"daemon","size":4,"error":{"kind":"parse","message":"the packet is not JSON (byte 0)"},"raw":"b29wcw=="}"#
    );
    relay.signal(Signal::SIGTERM);
    relay
        .finish()
        .mentions(&["packet from an unnamed socket is not JSON"]);
}

#[test]
fn the_packets_of_an_unnamed_client_come_from_an_unnamed_socket() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["s", "daemon"]);
    let client = UnixDatagram::unbound().unwrap();
    client.send_to(b"1", sandbox.path("s")).unwrap();
    let (question, from) = daemon.take_from();
    assert_eq!(question, b"1");
    assert!(from.is_unnamed(), "{from:?}");
    ends_silently(relay);
}

#[test]
fn nobody_but_the_peer_reaches_a_client_through_its_socket() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["s", "daemon"]);
    let client = sandbox.bind("client");
    client.send_to(b"1", sandbox.path("s")).unwrap();
    let (_, from) = daemon.take_from();
    let stranger = UnixDatagram::unbound().unwrap();
    let refused = stranger.send_to_addr(b"0", &from).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::EPERM as i32));
    ends_silently(relay);
}

#[test]
fn a_further_peer_gets_a_copy_of_each_packet_and_cannot_answer() {
    let sandbox = Sandbox::new();
    let [first, second, third] = ["first", "second", "third"].map(|name| sandbox.bind(name));
    let relay = quiet_relay(&sandbox, &["s", "first", "second", "third"]);
    let client = sandbox.bind("client");
    let (reader, writer) = crate::harness::pipe();
    sys::send_descriptors(&client, &sandbox.path("s"), b"1", &[writer.as_fd()]);
    drop(writer);
    for peer in [&second, &third, &first] {
        let message = sys::take_message(peer);
        assert_eq!(
            (message.bytes.as_slice(), message.descriptors.len()),
            (&b"1"[..], 1)
        );
    }
    assert_eq!(content(reader.into()), b"");
    client.send_to(b"2", sandbox.path("s")).unwrap();
    assert!(second.take_from().1.is_unnamed());
    assert!(third.take_from().1.is_unnamed());
    let (_, from) = first.take_from();
    answer(&first, b"3", &from);
    assert_eq!(client.take(), b"3");
    ends_silently(relay);
}

/// Sends numbers to `s` in a thread.
fn send_numbers(sandbox: &Sandbox, client: UnixDatagram, count: usize) -> thread::JoinHandle<()> {
    let path = sandbox.path("s");
    thread::spawn(move || {
        for number in 0..count {
            client
                .send_to(number.to_string().as_bytes(), &path)
                .unwrap();
        }
    })
}

#[test]
fn a_further_peer_that_never_reads_delays_the_first_by_no_more_than_its_time_and_is_reported() {
    let sandbox = Sandbox::new();
    let [first, _second] = ["first", "second"].map(|name| sandbox.bind(name));
    let relay = quiet_relay(&sandbox, &["s", "first", "second"]);
    let sender = send_numbers(&sandbox, sandbox.bind("client"), 5000);
    for number in 0..5000 {
        assert_eq!(first.take(), number.to_string().as_bytes());
    }
    sender.join().unwrap();
    relay.signal(Signal::SIGTERM);
    let outcome = relay.finish().dies_of(Signal::SIGTERM, "");
    let [first, last] = <[_; 2]>::try_from(outcome.diagnostics()).unwrap();
    assert_eq!(
        first,
        "udgram: warning: 'second' misses a copy: it had no room for 1s (hint: it may not be reading)"
    );
    assert!(
        last.starts_with("udgram: warning: 'second' has missed 49"),
        "{last}"
    );
}

#[test]
fn a_further_peer_that_reads_slowly_misses_nothing() {
    let sandbox = Sandbox::new();
    let [first, second] = ["first", "second"].map(|name| sandbox.bind(name));
    let relay = quiet_relay(&sandbox, &["s", "first", "second"]);
    // Each copy has a second, so they are not many.
    let sender = send_numbers(&sandbox, sandbox.bind("client"), 100);
    for peer in [&first, &second] {
        for number in 0..100 {
            assert_eq!(peer.take(), number.to_string().as_bytes());
        }
    }
    sender.join().unwrap();
    ends_silently(relay);
}

#[test]
fn copies_wait_for_a_further_peer_that_restarts() {
    let sandbox = Sandbox::new();
    let [first, second] = ["first", "second"].map(|name| sandbox.bind(name));
    let relay = quiet_relay(&sandbox, &["-p", "text", "s", "first", "second"]);
    let client = sandbox.bind("client");
    let pass = |packet: &[u8]| {
        client.send_to(packet, sandbox.path("s")).unwrap();
        assert_eq!(first.take(), packet);
    };
    pass(b"1");
    assert_eq!(second.take(), b"1");
    fs::remove_file(sandbox.path("second")).unwrap();
    close(second);
    let (_reader, writer) = crate::harness::pipe();
    sys::send_descriptors(&client, &sandbox.path("s"), b"2", &[writer.as_fd()]);
    assert_eq!(sys::take_message(&first).descriptors.len(), 1);
    pass(b"");
    let second = sandbox.bind("second");
    pass(b"3");
    for (packet, descriptors) in [(&b"2"[..], 1), (b"", 0), (b"3", 0)] {
        let copy = sys::take_message(&second);
        assert_eq!(
            (&copy.bytes[..], copy.descriptors.len()),
            (packet, descriptors)
        );
    }
    ends_silently(relay);
}

#[test]
fn large_copies_that_waited_count_no_longer_once_they_are_sent_or_dropped() {
    root!();
    let sandbox = Sandbox::new();
    let [first, second] = ["first", "second"].map(|name| sandbox.bind(name));
    let relay = quiet_relay(&sandbox, &["-q", "-p", "raw", "s", "first", "second"]);
    let client = sandbox.bind("client");
    setsockopt(&client, sockopt::SndBuf, &(8 << 20)).unwrap();
    // 8 MiB and 253 descriptors may wait, and 12 MB and 400 descriptors wait one after another.
    let (_reader, writer) = crate::harness::pipe();
    for byte in [b'a', b'b', b'c', b'd'] {
        let filled = sandbox.fill("second");
        let packet = vec![byte; 3_000_000];
        client.send_to(&packet, sandbox.path("s")).unwrap();
        let passed = first.take() == packet;
        assert!(passed, "another packet arrived");
        let many = vec![writer.as_fd(); 100];
        sys::send_descriptors(&client, &sandbox.path("s"), &[byte], &many);
        assert_eq!(sys::take_message(&first).descriptors.len(), 100);
        relay.wait_asleep();
        for _ in 0..filled {
            assert_eq!(second.take(), b"0");
        }
        // The copies come within a second or never.
        relay.wait_idle();
        second.set_nonblocking(true).unwrap();
        while second.recv(&mut [0; 1]).is_ok() {}
        second.set_nonblocking(false).unwrap();
    }
    relay.signal(Signal::SIGTERM);
    let _ = relay.finish();
}

/// Starts a relay whose second peer goes away. Returns it, and its first peer.
fn relay_without_second(sandbox: &Sandbox) -> (Running, UnixDatagram) {
    let [first, second] = ["first", "second"].map(|name| sandbox.bind(name));
    let relay = quiet_relay(sandbox, &["s", "first", "second"]);
    fs::remove_file(sandbox.path("second")).unwrap();
    close(second);
    (relay, first)
}

#[test]
fn copies_for_a_further_peer_that_stays_away_are_dropped_after_a_second_and_counted() {
    let sandbox = Sandbox::new();
    let (relay, first) = relay_without_second(&sandbox);
    let client = sandbox.bind("client");
    for packet in [b"1", b"2"] {
        client.send_to(packet, sandbox.path("s")).unwrap();
        assert_eq!(first.take(), packet);
    }
    let cause = "'second' misses a copy: no socket has been there for 1s";
    relay.wait_stderr(cause);
    relay.signal(Signal::SIGTERM);
    let outcome = relay.finish().dies_of(Signal::SIGTERM, "");
    assert_eq!(
        outcome.diagnostics(),
        [
            format!("udgram: warning: {cause}"),
            "udgram: warning: 'second' has missed 2 copies".to_owned(),
        ]
    );
}

#[test]
fn a_single_missed_copy_is_reported_once() {
    let sandbox = Sandbox::new();
    let (relay, first) = relay_without_second(&sandbox);
    let client = sandbox.bind("client");
    client.send_to(b"1", sandbox.path("s")).unwrap();
    assert_eq!(first.take(), b"1");
    let cause = "'second' misses a copy: no socket has been there for 1s";
    relay.wait_stderr(cause);
    relay.signal(Signal::SIGTERM);
    relay
        .finish()
        .dies_of(Signal::SIGTERM, "")
        .says(format!("udgram: warning: {cause}"));
}

#[test]
fn a_copy_that_a_further_peer_refuses_is_reported_with_the_cause_and_delays_nobody() {
    let sandbox = Sandbox::new();
    let [first, second, _other] = ["first", "second", "other"].map(|name| sandbox.bind(name));
    let relay = quiet_relay(&sandbox, &["s", "first", "second"]);
    second.connect(sandbox.path("other")).unwrap();
    let client = sandbox.bind("client");
    client.send_to(b"1", sandbox.path("s")).unwrap();
    assert_eq!(first.take(), b"1");
    relay.signal(Signal::SIGTERM);
    relay.finish().dies_of(Signal::SIGTERM, "").mentions(&[
        "warning: 'second' misses a copy: cannot send to",
        "Operation not permitted",
    ]);
}

#[test]
fn packets_wait_for_a_first_peer_whose_queue_is_full() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["s", "daemon"]);
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    let mut sent = 0;
    // Until nothing fits into the queue of the daemon, the relay and the queue of the relay.
    let mut refused = 0;
    while refused < 100 {
        let packet = sent.to_string();
        if filler.send_to(packet.as_bytes(), sandbox.path("s")).is_ok() {
            (sent, refused) = (sent + 1, 0);
        } else {
            refused += 1;
            relay.wait_asleep();
        }
    }
    assert!(sent > 20, "{sent}");
    for number in 0..sent {
        assert_eq!(daemon.take(), number.to_string().as_bytes());
    }
    daemon.has_nothing_more();
    ends_silently(relay);
}

#[test]
fn eight_clients_at_once_lose_nothing_and_keep_their_order() {
    const COUNT: usize = 500;
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["s", "daemon"]);
    let path = sandbox.path("s");
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let socket = sandbox.bind(format!("client-{client}"));
            socket.connect(&path).unwrap();
            thread::spawn(move || {
                // Each has up to five questions under way.
                for number in 0..COUNT + 5 {
                    if number < COUNT {
                        socket
                            .send(format!("[{client},{number}]").as_bytes())
                            .unwrap();
                    }
                    if number >= 5 {
                        let answer = format!("[{client},{}]", number - 5);
                        assert_eq!(socket.take(), answer.as_bytes());
                    }
                }
            })
        })
        .collect();
    let mut next = [0; 8];
    for _ in 0..8 * COUNT {
        let (question, from) = daemon.take_from();
        let [client, number]: [usize; 2] = serde_json::from_slice(&question).unwrap();
        assert_eq!(number, next[client], "of client {client}");
        next[client] += 1;
        answer(&daemon, &question, &from);
    }
    for client in clients {
        client.join().unwrap();
    }
    ends_silently(relay);
}

#[test]
fn packets_wait_for_a_peer_that_restarts() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["s", "daemon"]);
    let client = sandbox.bind("client");
    client.send_to(b"1", sandbox.path("s")).unwrap();
    assert_eq!(daemon.take(), b"1");
    // It is back before the next packet: nobody notices.
    fs::remove_file(sandbox.path("daemon")).unwrap();
    close(daemon);
    let daemon = sandbox.bind("daemon");
    client.send_to(b"2", sandbox.path("s")).unwrap();
    let (question, from) = daemon.take_from();
    assert_eq!(question, b"2");
    answer(&daemon, b"3", &from);
    assert_eq!(client.take(), b"3");
    // It is away for a while.
    fs::remove_file(sandbox.path("daemon")).unwrap();
    close(daemon);
    for number in [4, 5, 6] {
        let packet = number.to_string();
        client
            .send_to(packet.as_bytes(), sandbox.path("s"))
            .unwrap();
    }
    relay.wait_stderr("packets wait for it for 5s");
    let daemon = sandbox.bind("daemon");
    for number in [4, 5, 6] {
        assert_eq!(daemon.take(), number.to_string().as_bytes());
    }
    relay.signal(Signal::SIGTERM);
    let outcome = relay.finish().dies_of(Signal::SIGTERM, "");
    assert_eq!(
        outcome.diagnostics(),
        [
            "udgram: warning: cannot connect to 'daemon': No such file or directory; packets wait for it for 5s",
            "udgram: warning: 'daemon' is back",
        ]
    );
}

#[test]
fn packets_for_a_peer_that_stays_away_are_dropped_and_counted() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["s", "daemon"]);
    fs::remove_file(sandbox.path("daemon")).unwrap();
    close(daemon);
    let start = Instant::now();
    let client = sandbox.bind("client");
    let sender = send_numbers(&sandbox, client.try_clone().unwrap(), 100);
    sender.join().unwrap();
    assert!(
        start.elapsed() >= Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    relay.wait_stderr("still no socket at 'daemon' after 5s: packets are dropped");
    sys::wait_received(&client);
    relay.wait_asleep();
    // Attempts to reach it are 50 ms apart at most.
    let daemon = sandbox.bind("daemon");
    poll(&mut [], 60_u16).unwrap();
    client.send_to(b"0", sandbox.path("s")).unwrap();
    assert_eq!(daemon.take(), b"0");
    relay.signal(Signal::SIGTERM);
    let outcome = relay.finish().dies_of(Signal::SIGTERM, "");
    assert_eq!(
        outcome.diagnostics()[2..],
        [
            "udgram: warning: 'daemon' is back",
            "udgram: warning: 100 packets were not passed on to 'daemon'"
        ]
    );
}

#[test]
fn packets_for_a_peer_whose_address_a_stream_socket_has_taken_are_dropped() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["s", "daemon"]);
    fs::remove_file(sandbox.path("daemon")).unwrap();
    close(daemon);
    let client = sandbox.bind("client");
    client.send_to(b"1", sandbox.path("s")).unwrap();
    relay.wait_stderr("packets wait for it for 5s");
    let _listener = UnixListener::bind(sandbox.path("daemon")).unwrap();
    relay.wait_stderr("it is a stream socket");
    relay.wait_idle();
    relay.signal(Signal::SIGTERM);
    let outcome = relay.finish().dies_of(Signal::SIGTERM, "");
    assert_eq!(
        outcome.diagnostics()[2..],
        ["udgram: warning: 1 packet was not passed on to 'daemon'"]
    );
}

#[test]
fn a_peer_that_connects_to_one_client_is_reported_and_gets_no_packets_of_others() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["s", "daemon"]);
    let [client, other] = ["client", "other"].map(|name| sandbox.bind(name));
    client.send_to(b"1", sandbox.path("s")).unwrap();
    let (_, from) = daemon.take_from();
    daemon.connect_addr(&from).unwrap();
    other.send_to(b"2", sandbox.path("s")).unwrap();
    // Its queue has no limit now.
    for number in 10..40 {
        let packet = format!("{number}");
        client
            .send_to(packet.as_bytes(), sandbox.path("s"))
            .unwrap();
    }
    for number in 10..40 {
        assert_eq!(daemon.take(), number.to_string().as_bytes());
    }
    daemon.send(b"3").unwrap();
    assert_eq!(client.take(), b"3");
    relay.signal(Signal::SIGTERM);
    let outcome = relay.finish().dies_of(Signal::SIGTERM, "");
    let [refused, dropped] = <[_; 2]>::try_from(outcome.diagnostics()).unwrap();
    assert!(
        refused.contains("Operation not permitted")
            && refused.contains("takes datagrams from it alone"),
        "{refused}"
    );
    assert_eq!(
        dropped,
        "udgram: warning: 1 packet was not passed on to 'daemon'"
    );
}

#[test]
fn a_peer_that_connects_to_another_client_does_not_keep_the_relay_awake() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let mut relay = relay(&sandbox, &["s", "daemon"]);
    let [client, other] = ["client", "other"].map(|name| sandbox.bind(name));
    let [from, to] = [&client, &other].map(|client| {
        client.send_to(b"1", sandbox.path("s")).unwrap();
        let _ = relay.line();
        daemon.take_from().1
    });
    daemon.connect_addr(&from).unwrap();
    client.send_to(b"2", sandbox.path("s")).unwrap();
    let _ = relay.line();
    // The unread packet is dropped, and its sender's socket gets an error.
    daemon.connect_addr(&to).unwrap();
    relay.wait_asleep();
    answer(&daemon, b"3", &from);
    assert_eq!(client.take(), b"3");
    ends_silently(relay);
}

#[test]
fn a_client_that_restarts_is_answered_at_its_name() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["s", "daemon"]);
    let client = sandbox.bind("client");
    client.send_to(b"1", sandbox.path("s")).unwrap();
    let (_, before) = daemon.take_from();
    fs::remove_file(sandbox.path("client")).unwrap();
    close(client);
    let client = sandbox.bind("client");
    client.send_to(b"2", sandbox.path("s")).unwrap();
    let (_, from) = daemon.take_from();
    assert_eq!(from.as_abstract_name(), before.as_abstract_name());
    answer(&daemon, b"3", &from);
    assert_eq!(client.take(), b"3");
    ends_silently(relay);
}

#[test]
fn the_peer_learns_that_a_client_has_gone() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["s", "daemon"]);
    let [gone, other] = ["gone", "other"].map(|name| sandbox.bind(name));
    gone.send_to(b"1", sandbox.path("s")).unwrap();
    let (_, from) = daemon.take_from();
    close(gone);
    answer(&daemon, b"2", &from);
    relay.wait_stderr("gone");
    other.send_to(b"3", sandbox.path("s")).unwrap();
    assert_eq!(daemon.take(), b"3");
    let refused = daemon.send_to_addr(b"4", &from).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::ECONNREFUSED as i32));
    relay.signal(Signal::SIGTERM);
    relay.finish().mentions(&["cannot send to", "gone"]);
}

#[test]
fn the_socket_of_an_idle_client_is_closed_after_the_timeout() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["-t", "100ms", "s", "daemon"]);
    // It has closed the socket that it has sent READY=1 from.
    let open = relay.wait_asleep().open_descriptors();
    let client = sandbox.bind("client");
    let start = Instant::now();
    client.send_to(b"1", sandbox.path("s")).unwrap();
    let (_, from) = daemon.take_from();
    while relay.open_descriptors() > open {
        thread::yield_now();
    }
    assert!(start.elapsed() >= Duration::from_millis(90));
    let refused = daemon.send_to_addr(b"4", &from).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::ECONNREFUSED as i32));
    // Its next packet comes from another socket.
    client.send_to(b"2", sandbox.path("s")).unwrap();
    let (question, again) = daemon.take_from();
    assert_eq!(question, b"2");
    assert_ne!(again.as_abstract_name(), from.as_abstract_name());
    ends_silently(relay);
}

#[test]
fn the_longest_idle_client_makes_room_for_a_new_one() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = sandbox
        .udgram(["relay", "s", "daemon"])
        .descriptor_limit(40)
        .start_ready();
    let clients: Vec<_> = (0..11)
        .map(|number| sandbox.bind(format!("client-{number}")))
        .collect();
    let mut upstream = Vec::new();
    for client in &clients {
        client.send_to(b"1", sandbox.path("s")).unwrap();
        upstream.push(daemon.take_from().1);
    }
    let refused = daemon.send_to_addr(b"4", &upstream[0]).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::ECONNREFUSED as i32));
    for (client, from) in clients.iter().zip(&upstream).skip(1) {
        answer(&daemon, b"2", from);
        assert_eq!(client.take(), b"2");
    }
    relay.signal(Signal::SIGTERM);
    relay.finish().mentions(&["too many clients"]);
}

#[test]
fn clients_that_have_gone_make_room_first() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = sandbox
        .udgram(["relay", "-p", "text", "s", "daemon"])
        .descriptor_limit(40)
        .start_ready();
    let waiting = sandbox.bind("waiting");
    waiting.send_to(b"1", sandbox.path("s")).unwrap();
    let (_, from) = daemon.take_from();
    for _ in 0..100 {
        let (client, _) = sys::autobound();
        client.send_to(b"1", sandbox.path("s")).unwrap();
        assert_eq!(daemon.take(), b"1");
        close(client);
    }
    answer(&daemon, b"2", &from);
    assert_eq!(waiting.take(), b"2");
    ends_silently(relay);
}

#[test]
fn no_client_makes_room_while_another_one_has_gone() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = sandbox
        .udgram(["relay", "s", "daemon"])
        .descriptor_limit(40)
        .stdout_to(fs::File::create("/dev/null").unwrap())
        .start_ready();
    let mut clients = Vec::new();
    let mut ask = |name: String| {
        let client = sandbox.bind(name);
        client.send_to(b"1", sandbox.path("s")).unwrap();
        clients.push(client);
        daemon.take_from().1
    };
    // The first makes room for the last: none has gone.
    let upstream: Vec<_> = (0..11).map(|number| ask(number.to_string())).collect();
    close(clients.remove(5));
    let another = sandbox.bind("another");
    another.send_to(b"1", sandbox.path("s")).unwrap();
    assert_eq!(daemon.take(), b"1");
    answer(&daemon, b"2", &upstream[1]);
    assert_eq!(clients[1].take(), b"2");
    relay.signal(Signal::SIGTERM);
    relay.finish().mentions(&["too many clients"]);
}

#[test]
fn the_sockets_of_clients_that_have_gone_are_closed_when_there_are_twice_as_many_clients() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let null = fs::File::create("/dev/null").unwrap();
    let relay = sandbox.udgram(["relay", "s", "daemon"]);
    let relay = relay.descriptor_limit(1024).stdout_to(null).start_ready();
    let before = relay.wait_asleep().open_descriptors();
    let ask = |count: usize| -> Vec<_> {
        let clients = (0..count).map(|_| {
            let (client, _) = sys::autobound();
            client.send_to(b"1", sandbox.path("s")).unwrap();
            assert_eq!(daemon.take(), b"1");
            client
        });
        clients.collect()
    };
    // The relay looks for clients that have gone at 64, and finds none.
    let clients = ask(65);
    assert_eq!(relay.wait_asleep().open_descriptors(), before + 65);
    for client in clients {
        close(client);
    }
    let _clients = ask(64);
    assert_eq!(relay.wait_asleep().open_descriptors(), before + 64);
    ends_silently(relay);
}

#[test]
fn clients_that_come_and_go_have_no_more_than_64_sockets() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let null = fs::File::create("/dev/null").unwrap();
    let relay = sandbox.udgram(["relay", "s", "daemon"]);
    let relay = relay.descriptor_limit(1024).stdout_to(null).start_ready();
    let before = relay.wait_asleep().open_descriptors();
    for _ in 0..180 {
        let (client, _) = sys::autobound();
        client.send_to(b"1", sandbox.path("s")).unwrap();
        assert_eq!(daemon.take(), b"1");
        close(client);
    }
    assert!(relay.wait_asleep().open_descriptors() <= before + 64);
    ends_silently(relay);
}

#[test]
fn a_copy_that_waits_is_sent_as_soon_as_there_is_room() {
    let sandbox = Sandbox::new();
    let [first, second] = ["first", "second"].map(|name| sandbox.bind(name));
    let relay = quiet_relay(&sandbox, &["-q", "s", "first", "second"]);
    let client = sandbox.bind("client");
    let times = (0..8).map(|_| {
        let filled = sandbox.fill("second");
        client.send_to(b"1", sandbox.path("s")).unwrap();
        assert_eq!(first.take(), b"1");
        relay.wait_asleep();
        let start = Instant::now();
        for _ in 0..filled {
            assert_eq!(second.take(), b"0");
        }
        relay.wait_idle();
        let time = start.elapsed();
        second.set_nonblocking(true).unwrap();
        let _ = second.recv(&mut [0; 1]);
        second.set_nonblocking(false).unwrap();
        time
    });
    // On a busy machine some may take longer, but not all take the second after which a copy is dropped.
    assert!(times.min() < Some(Duration::from_millis(500)));
    relay.signal(Signal::SIGTERM);
    let _ = relay.finish();
}

#[test]
fn a_relay_opens_no_more_sockets_than_a_quarter_of_its_descriptors() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let null = fs::File::create("/dev/null").unwrap();
    let relay = sandbox.udgram(["relay", "s", "daemon"]);
    let relay = relay.descriptor_limit(600).stdout_to(null).start_ready();
    let before = relay.wait_asleep().open_descriptors();
    let clients: Vec<_> = (0..180).map(|_| sys::autobound().0).collect();
    for client in &clients {
        client.send_to(b"1", sandbox.path("s")).unwrap();
        assert_eq!(daemon.take(), b"1");
    }
    assert_eq!(relay.wait_asleep().open_descriptors(), before + 150);
    relay.signal(Signal::SIGTERM);
    relay.finish().mentions(&["too many clients"]);
}

#[test]
fn a_client_that_never_reads_its_answers_does_not_delay_others() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.listen(["--echo", "daemon"]);
    let relay = quiet_relay(&sandbox, &["s", "daemon"]);
    let path = sandbox.path("s");
    let mut deaf = Vec::new();
    for number in 0..8 {
        let client = sandbox.bind(format!("deaf-{number}"));
        if number % 2 == 0 {
            client.connect(&path).unwrap();
        }
        for _ in 0..200 {
            client.send_to(b"0", &path).unwrap();
        }
        deaf.push(client);
    }
    let innocent = sandbox.bind("innocent");
    for question in [b"1", b"2", b"3"] {
        innocent.send_to(question, &path).unwrap();
        assert_eq!(innocent.take(), question);
    }
    relay.signal(Signal::SIGTERM);
    let diagnostics = relay.finish().diagnostics();
    let deaf = diagnostics
        .iter()
        .filter(|line| line.contains("deaf-") && line.contains(" was not answered: "));
    // Those that are connected have no queue limit.
    assert!(deaf.count() >= 4, "{diagnostics:?}");
}

#[test]
fn no_answer_to_another_user_follows_a_link() {
    root!();
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let secret = sandbox.bind("secret");
    let public = sandbox.directory("pub");
    fs::set_permissions(&public, fs::Permissions::from_mode(0o777)).unwrap();
    let relay = quiet_relay(&sandbox, &["--mode", "0666", "s", "daemon"]);
    let me = public.join("me");
    sandbox
        .udgram_as(7, ["send", "--bind", text(&me), "s", "1"])
        .run()
        .succeeds("");
    let (_, from) = daemon.take_from();
    symlink("../secret", &me).unwrap();
    answer(&daemon, b"2", &from);
    relay.wait_stderr("its path is a symbolic link, and user 7 sent the packet");
    secret.has_nothing_more();
    relay.signal(Signal::SIGTERM);
    let _ = relay.finish();
}

#[test]
fn what_was_accepted_before_a_signal_is_passed_on() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let copy = sandbox.bind("copy");
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut relay = relay(&sandbox, &["s", "daemon", "copy"]);
        let client = UnixDatagram::unbound().unwrap();
        client.send_to(b"0", sandbox.path("s")).unwrap();
        assert_eq!((daemon.take(), copy.take()), (b"0".to_vec(), b"0".to_vec()));
        let _ = relay.line();
        relay.stop();
        for number in 1..8 {
            let packet = number.to_string();
            client
                .send_to(packet.as_bytes(), sandbox.path("s"))
                .unwrap();
        }
        relay.signal(signal);
        relay.resume();
        for number in 1..8 {
            assert_eq!(daemon.take(), number.to_string().as_bytes());
            assert_eq!(copy.take(), number.to_string().as_bytes());
        }
        assert_eq!(relay.notification(), "STOPPING=1");
        let outcome = relay.finish();
        assert_eq!(outcome.stderr_text(), "");
        assert_eq!(outcome.stdout().split(|byte| *byte == b'\n').count(), 9);
        assert!(!sandbox.exists("s"));
    }
}

#[test]
fn a_signal_ends_a_relay_that_never_rests() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["-q", "s", "daemon"]);
    let path = sandbox.path("s");
    let senders: Vec<_> = (0..3)
        .map(|number| {
            let client = sandbox.bind(format!("client-{number}"));
            let path = path.clone();
            // Until the relay has shut down its reading side.
            thread::spawn(move || while client.send_to(b"1", &path).is_ok() {})
        })
        .collect();
    for _ in 0..2000 {
        assert_eq!(daemon.take(), b"1");
    }
    relay.signal(Signal::SIGTERM);
    daemon
        .set_read_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    while daemon.recv(&mut [0; 1]).is_ok() {}
    for sender in senders {
        sender.join().unwrap();
    }
    let _ = relay.finish().dies_of(Signal::SIGTERM, "");
}

#[test]
fn a_copy_that_waits_is_sent_after_a_signal_if_there_is_room() {
    let sandbox = Sandbox::new();
    let [first, second] = ["first", "second"].map(|name| sandbox.bind(name));
    let relay = quiet_relay(&sandbox, &["s", "first", "second"]);
    let filled = sandbox.fill("second");
    let client = sandbox.bind("client");
    client.send_to(b"1", sandbox.path("s")).unwrap();
    assert_eq!(first.take(), b"1");
    relay.wait_asleep();
    relay.stop();
    for _ in 0..filled {
        assert_eq!(second.take(), b"0");
    }
    relay.signal(Signal::SIGTERM);
    relay.resume();
    assert_eq!(second.take(), b"1");
    relay.finish().dies_of(Signal::SIGTERM, "").says_nothing();
}

#[test]
fn nothing_delays_the_end_when_everything_is_passed_on() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let copy = sandbox.bind("copy");
    let times = (0..8).map(|_| {
        let relay = quiet_relay(&sandbox, &["s", "daemon", "copy"]);
        let client = UnixDatagram::unbound().unwrap();
        client.send_to(b"0", sandbox.path("s")).unwrap();
        assert_eq!((daemon.take(), copy.take()), (b"0".to_vec(), b"0".to_vec()));
        let start = Instant::now();
        ends_silently(relay);
        start.elapsed()
    });
    // The time that packets have to be passed on.
    assert!(times.min() < Some(Duration::from_secs(1)));
}

#[test]
fn a_peer_without_room_delays_the_end_by_a_second_at_most_and_the_rest_is_counted() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.bind("daemon");
    let full = sandbox.fill("daemon");
    assert!(full > 0);
    let relay = quiet_relay(&sandbox, &["s", "daemon"]);
    let client = UnixDatagram::unbound().unwrap();
    for number in 0..5 {
        let packet = number.to_string();
        client
            .send_to(packet.as_bytes(), sandbox.path("s"))
            .unwrap();
    }
    let start = Instant::now();
    relay.signal(Signal::SIGTERM);
    relay
        .finish()
        .dies_of(Signal::SIGTERM, "")
        .says("udgram: warning: 5 packets were not passed on to 'daemon'");
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_closed_reader_of_stdout_ends_a_relay_that_waits() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.bind("daemon");
    let (reader, writer) = crate::harness::pipe();
    let relay = sandbox
        .udgram(["relay", "s", "daemon"])
        .stdout_to(writer)
        .start_ready();
    close(reader);
    relay.finish().dies_of(Signal::SIGPIPE, "").says_nothing();
    assert!(!sandbox.exists("s"));
}

#[test]
fn a_lost_socket_file_is_reported() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.bind("daemon");
    let relay = quiet_relay(&sandbox, &["s", "daemon"]);
    fs::remove_file(sandbox.path("s")).unwrap();
    relay.wait_stderr("the socket file was removed");
    relay.signal(Signal::SIGTERM);
    let _ = relay.finish();
}

#[test]
fn the_totals_count_both_ways() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let copy = sandbox.bind("copy");
    let relay = quiet_relay(&sandbox, &["--stats", "s", "daemon", "copy"]);
    let client = sandbox.bind("client");
    client.send_to(b"12", sandbox.path("s")).unwrap();
    let (_, from) = daemon.take_from();
    assert_eq!(copy.take(), b"12");
    answer(&daemon, b"345", &from);
    assert_eq!(client.take(), b"345");
    relay.signal(Signal::SIGTERM);
    relay
        .finish()
        .mentions(&["received=2 received_bytes=5 not_packets=0 sent=3 sent_bytes=7"]);
}

#[test]
fn a_peer_that_is_not_there_is_status_4_and_nothing_is_bound() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.bind("daemon");
    for peers in [&["missing"][..], &["daemon", "missing"]] {
        sandbox
            .udgram(["relay", "s"])
            .args(peers)
            .run()
            .refuses(4, &["cannot connect to 'missing'"]);
        assert!(!sandbox.exists("s"));
    }
}

#[test]
fn a_relay_does_not_take_the_name_of_its_own_peer() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    symlink("daemon", sandbox.path("link")).unwrap();
    for peer in ["daemon", "./daemon", "link"] {
        sandbox
            .udgram(["relay", "--replace", "daemon", peer])
            .run()
            .refuses(2, &["udgram would send to itself"]);
    }
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"1", sandbox.path("daemon")).unwrap();
    assert_eq!(daemon.take(), b"1");
}

#[test]
fn command_lines_that_cannot_be_meant_are_usage_errors() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.bind("daemon");
    let cases: &[(&[&str], &str)] = &[
        (&[], "ADDR is missing"),
        (&["s"], "PEER is missing"),
        (&["s", "daemon", "daemon"], "PEER 'daemon' is given twice"),
        (&["@s", "@s"], "'@s' is ADDR and PEER"),
        (&["-t", "0", "s", "daemon"], "--timeout 0 closes"),
        (
            &["--mode", "0666", "@s", "daemon"],
            "an abstract name has no file",
        ),
        (&["-t", "1", "ms", "s", "daemon"], "--timeout 1ms"),
        (&["-e", "s", "daemon"], "unexpected argument '-e'"),
        (&["--text", "s", "daemon"], "did you mean -p text?"),
        (&["-o", "nonsense=1", "s", "daemon"], "nonsense"),
    ];
    for (arguments, said) in cases {
        sandbox
            .udgram(["relay"])
            .args(*arguments)
            .run()
            .refuses(2, &[said]);
        assert!(!sandbox.exists("s"));
    }
}

#[test]
fn the_options_of_the_socket_file_and_of_the_socket_apply_to_addr() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.bind("daemon");
    let _taken = sandbox.bind("s");
    let relay = quiet_relay(
        &sandbox,
        &["--replace", "-m", "0640", "-o", "passsec=on", "s", "daemon"],
    );
    assert_eq!(sandbox.mode("s"), 0o640);
    let _ = sandbox
        .udgram(["sockopt", "-s", "s", "passsec"])
        .run()
        .lines();
    ends_silently(relay);
}

#[test]
fn wpa_cli_talks_to_wpa_supplicant_through_a_relay_and_gets_its_events() {
    peer!("wpa_supplicant", "wpa_cli");
    root!();
    let sandbox = Sandbox::new();
    if !sandbox.runs_wpa_supplicant() {
        return skip(NO_WPA_SUPPLICANT);
    }
    sandbox.directory("real");
    let directory = sandbox.directory("relayed");
    sandbox.file(
        "conf",
        format!("ctrl_interface={}/real\n", text(sandbox.dir())),
    );
    let daemon = sandbox
        .command("wpa_supplicant", ["-D", "wired", "-i", "lo", "-c", "conf"])
        .start();
    daemon.wait_bound("real/lo");
    let mut relay = relay(&sandbox, &["-p", "text", "relayed/lo", "real/lo"]);
    let cli = |arguments: &[&str]| {
        let common = ["-p", text(&directory), "-i", "lo"];
        sandbox.command("wpa_cli", common).args(arguments)
    };
    cli(&["ping"]).run().succeeds("PONG\n");
    let mut attached = cli(&[]).stdin_open().start();
    while !relay.line().contains(r#""packet":"ATTACH""#) {}
    // It writes its first lines once it has asked for everything that it needs.
    let _ = attached.text("w");
    daemon.signal(Signal::SIGTERM);
    while !relay.line().contains("CTRL-EVENT-TERMINATING") {}
    while !attached.line().contains("CTRL-EVENT-TERMINATING") {}
    attached.signal(Signal::SIGTERM);
    let _ = attached.finish();
    let _ = daemon.finish();
    ends_silently(relay);
}

#[test]
fn the_barrier_of_systemd_notify_passes_a_relay() {
    peer!("systemd-notify");
    let sandbox = Sandbox::new();
    let manager = sandbox.listen(["-p", "text", "-e", "-n", "2", "manager"]);
    let relay = quiet_relay(&sandbox, &["-p", "text", "s", "manager"]);
    sandbox
        .command("systemd-notify", ["--ready", "--status=up"])
        .env("NOTIFY_SOCKET", sandbox.path("s"))
        .run()
        .succeeds("");
    let lines = manager.finish().lines();
    assert_eq!(
        timeless(&lines[0]),
        r#"{"from":null,"size":17,"packet":"READY=1\nSTATUS=up"}"#
    );
    assert!(
        timeless(&lines[1]).starts_with(r#"{"from":null,"size":9,"packet":"BARRIER=1","fds":[{"#),
        "{}",
        lines[1]
    );
    relay.signal(Signal::SIGTERM);
    let _ = relay.finish();
}

/// A client that sends metrics as DogStatsD clients do: from an unnamed, non-blocking socket that is
/// connected, several metrics to a datagram.
const METRICS: &str = "
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect('s')
for number in range(500):
    s.send(b'page.views:%d|c|#env:test\\nload:0.5|g' % number)
";

/// Returns the number of each metric in these lines.
fn metrics(lines: &[String]) -> Vec<usize> {
    let number = |line: &String| {
        let (_, metric) = line.split_once(r#""packet":"page.views:"#)?;
        metric
            .strip_suffix(r#"|c|#env:test\nload:0.5|g"}"#)?
            .parse()
            .ok()
    };
    lines.iter().map(|line| number(line).unwrap()).collect()
}

#[test]
fn a_dogstatsd_client_reaches_two_receivers() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let agent = sandbox.listen(["-p", "text", "-e", "-n", "500", "agent"]);
    let mut archive = sandbox.listen(["-p", "text", "-e", "archive"]);
    let relay = quiet_relay(&sandbox, &["-p", "text", "s", "agent", "archive"]);
    sandbox.python(METRICS).run().succeeds("");
    let all: Vec<usize> = (0..500).collect();
    assert_eq!(metrics(&agent.finish().lines()), all);
    relay.signal(Signal::SIGTERM);
    // A copy that has no room within a second is dropped: a busy machine may leave the receiver no time.
    let missed = match &relay.finish().diagnostics()[..] {
        [] => 0,
        [_] => 1,
        [_, total] => {
            let total = total.strip_prefix("udgram: warning: 'archive' has missed ");
            let total = total.and_then(|total| total.strip_suffix(" copies"));
            total.unwrap().parse().unwrap()
        }
        more => panic!("{more:?}"),
    };
    let send = ["send", "-p", "text", "archive", "end"];
    sandbox.udgram(send).run().succeeds("");
    let mut lines = vec![archive.line()];
    while !lines[lines.len() - 1].ends_with(r#""packet":"end"}"#) {
        lines.push(archive.line());
    }
    lines.pop();
    let copied = metrics(&lines);
    assert!(copied.is_sorted(), "{copied:?}");
    assert_eq!(copied.len() + missed, 500);
    archive.signal(Signal::SIGTERM);
    let _ = archive.finish();
}

#[test]
fn rsyslogd_names_the_process_of_a_logger_behind_a_relay() {
    peer!("rsyslogd", "python3");
    root!();
    let sandbox = Sandbox::new();
    let mut daemon = crate::peers::rsyslogd(&sandbox);
    let relay = quiet_relay(&sandbox, &["-p", "text", "s", "log"]);
    let mut client = sandbox
        .udgram(["send", "-p", "text", "s"])
        .stdin_open()
        .start();
    client.write("<13>Nov 22 08:41:00 udgram: hello, log\n");
    assert_eq!(
        daemon.line(),
        format!("udgram| hello, log|{}|0|0|user.notice", client.pid())
    );
    client.finish().succeeds("");
    daemon.signal(Signal::SIGTERM);
    let _ = daemon.finish();
    relay.signal(Signal::SIGTERM);
    let _ = relay.finish();
}

#[test]
fn hostile_clients_do_not_end_a_relay() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.bind("daemon");
    let relay = sandbox
        .udgram(["relay", "-q", "-p", "hex", "s", "daemon"])
        .descriptor_limit(64)
        .start_ready();
    let path = sandbox.path("s");
    let (_reader, writer) = crate::harness::pipe();
    let odd = limited(UnixDatagram::unbound().unwrap());
    sys::bind_unterminated(
        &odd,
        &sandbox.path("x".repeat(107 - sandbox.dir().as_os_str().len())),
    );
    odd.send_to(b"\xff", &path).unwrap();
    assert_eq!(daemon.take(), b"\xff");
    // More descriptors than the relay may open: those that fit are passed on.
    let client = sandbox.bind("client");
    sys::send_descriptors(&client, &path, b"\x00", &vec![writer.as_fd(); 200]);
    let message = sys::take_message(&daemon);
    assert_eq!(message.bytes, b"\0");
    assert!(message.descriptors.len() < 200);
    for _ in 0..200 {
        let (client, _) = sys::autobound();
        sys::send_descriptors(&client, &path, b"1", &[writer.as_fd(); 3]);
        let _ = sys::take_message(&daemon);
    }
    client.send_to(b"2", &path).unwrap();
    let (question, from) = daemon.take_from();
    assert_eq!(question, b"2");
    answer(&daemon, b"3", &from);
    assert_eq!(client.take(), b"3");
    relay.signal(Signal::SIGTERM);
    let _ = relay.finish();
}

#[test]
fn a_relay_without_anything_to_pass_on_does_not_wait_at_its_end() {
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("s");
    // On a busy machine some may take longer, but not all.
    let ends_at_once = (0..20).any(|_| {
        let relay = quiet_relay(&sandbox, &["front", "s"]);
        let start = Instant::now();
        relay.signal(Signal::SIGTERM);
        let _ = relay.finish().dies_of(Signal::SIGTERM, "");
        start.elapsed() < Duration::from_secs(1)
    });
    assert!(ends_at_once);
}
