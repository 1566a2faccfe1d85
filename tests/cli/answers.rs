//! The answers of `listen --echo`: their recipients, and clients that do not read them.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use crate::harness::{Peer, Sandbox, bind_abstract, limited, peer, pipe, root, text};
use crate::running::Running;

/// Sends packets and never reads an answer. The socket must be kept.
fn send_only(client: &UnixDatagram, server: &Path, packets: usize) {
    for _ in 0..packets {
        client.send_to(b"0", server).unwrap();
    }
}

/// Checks that a client that asks one question at a time is answered.
#[track_caller]
fn is_answered(client: &UnixDatagram, server: &Path) {
    for question in [b"1", b"2", b"3"] {
        client.send_to(question, server).unwrap();
        assert_eq!(client.take(), question);
    }
}

/// Starts an echo server that prints nowhere.
fn echo(sandbox: &Sandbox) -> Running {
    let null = fs::File::create("/dev/null").unwrap();
    sandbox
        .udgram(["listen", "--echo", "s"])
        .stdout_to(null)
        .start_ready()
}

#[test]
fn a_connected_client_that_never_reads_does_not_delay_others() {
    let sandbox = Sandbox::new();
    let _server = echo(&sandbox);
    let path = sandbox.path("s");
    let innocent = sandbox.bind("innocent");
    // It has no queue limit, and would fill the send buffer of the server.
    let deaf = sandbox.bind("deaf");
    deaf.connect(&path).unwrap();
    for _ in 0..1000 {
        deaf.send(b"0").unwrap();
    }
    is_answered(&innocent, &path);
    // The same for a client that is connected.
    innocent.connect(&path).unwrap();
    innocent.send(b"1").unwrap();
    assert_eq!(innocent.take(), b"1");
}

#[test]
fn an_unconnected_client_that_never_reads_does_not_delay_others() {
    let sandbox = Sandbox::new();
    let _server = echo(&sandbox);
    let deaf = sandbox.bind("deaf");
    send_only(&deaf, &sandbox.path("s"), 1000);
    is_answered(&sandbox.bind("innocent"), &sandbox.path("s"));
}

#[test]
fn many_clients_that_never_read_do_not_delay_others() {
    let sandbox = Sandbox::new();
    let _server = echo(&sandbox);
    let path = sandbox.path("s");
    let mut deaf = Vec::new();
    for number in 0..16 {
        let client = sandbox.bind(format!("deaf-{number}"));
        if number % 2 == 0 {
            client.connect(&path).unwrap();
            for _ in 0..300 {
                client.send(b"0").unwrap();
            }
        } else {
            send_only(&client, &path, 50);
        }
        deaf.push(client);
        is_answered(&sandbox.bind(format!("innocent-{number}")), &path);
    }
}

#[test]
fn a_large_answer_that_is_never_read_does_not_delay_others() {
    let sandbox = Sandbox::new();
    let _server = echo(&sandbox);
    let path = sandbox.path("s");
    let deaf = sandbox.bind("deaf");
    deaf.connect(&path).unwrap();
    // Twice as much as the send buffer of the server holds at first.
    for _ in 0..4 {
        deaf.send(&vec![b' '; 100_000]).unwrap();
    }
    is_answered(&sandbox.bind("innocent"), &path);
}

#[test]
fn a_client_that_reads_is_answered_after_a_silent_one_was_answered_last() {
    let sandbox = Sandbox::new();
    let _server = echo(&sandbox);
    let path = sandbox.path("s");
    let [reader, deaf] = ["reader", "deaf"].map(|name| {
        let client = sandbox.bind(name);
        setsockopt(&client, sockopt::SndBuf, &(1 << 20)).unwrap();
        client.connect(&path).unwrap();
        client
    });
    let large = vec![b'x'; 60_000];
    for _ in 0..3 {
        reader.send(&large).unwrap();
    }
    // Fewer than would be refused, and the last answers of all.
    for _ in 0..215 {
        deaf.send(b"0").unwrap();
    }
    // The server answers in order: the answers of the silent client are sent before this one.
    is_answered(&sandbox.bind("witness"), &path);
    for _ in 0..3 {
        assert_eq!(reader.take(), large);
    }
    for _ in 0..20 {
        reader.send(&large).unwrap();
        assert_eq!(reader.take(), large);
    }
}

#[test]
fn a_client_that_reads_late_gets_all_its_answers_in_order() {
    let sandbox = Sandbox::new();
    let server = echo(&sandbox);
    let path = sandbox.path("s");
    for connected in [false, true] {
        let slow = sandbox.bind(format!("slow-{connected}"));
        setsockopt(&slow, sockopt::SndBuf, &(1 << 20)).unwrap();
        if connected {
            slow.connect(&path).unwrap();
        }
        let packets: Vec<_> = (0..20)
            .map(|n| format!("{n}{}", " ".repeat(20_000)).into_bytes())
            .collect();
        for packet in &packets {
            if connected {
                slow.send(packet).unwrap();
            } else {
                slow.send_to(packet, &path).unwrap();
            }
        }
        for packet in &packets {
            assert_eq!(&slow.take(), packet);
        }
    }
    server.signal(Signal::SIGTERM);
    server.finish().dies_of(Signal::SIGTERM, "").says_nothing();
}

#[test]
fn answers_that_find_no_room_for_a_second_are_dropped_and_reported_once() {
    let sandbox = Sandbox::new();
    let server = echo(&sandbox);
    let deaf = sandbox.bind("deaf");
    let room = sandbox.fill("deaf");
    for _ in 0..3 {
        deaf.send_to(b"1", sandbox.path("s")).unwrap();
    }
    let path = sandbox.path("deaf");
    server.wait_stderr(&format!(
        "udgram: warning: '{}' was not answered: it had no room for 1s (hint: it may not be reading)\n",
        path.display()
    ));
    server.signal(Signal::SIGTERM);
    let outcome = server.finish().dies_of(Signal::SIGTERM, "");
    assert_eq!(
        outcome.diagnostics()[1..],
        ["udgram: warning: 2 more answers were not sent"]
    );
    for _ in 0..room {
        assert_eq!(deaf.take(), b"0");
    }
    deaf.has_nothing_more();
}

#[test]
fn an_answer_to_the_last_packet_counted_is_waited_for() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.listen(["--echo", "-n", "1", "s"]);
    let slow = sandbox.bind("slow");
    let room = sandbox.fill("slow");
    slow.send_to(b"1", sandbox.path("s")).unwrap();
    assert_eq!(server.line(), "1");
    for _ in 0..room {
        assert_eq!(slow.take(), b"0");
    }
    assert_eq!(slow.take(), b"1");
    server.finish().succeeds("1\n");
}

#[test]
fn a_client_that_went_away_is_reported_once_and_does_not_delay_the_next_one() {
    let sandbox = Sandbox::new();
    let server = echo(&sandbox);
    server.signal(Signal::SIGSTOP);
    let gone = limited(bind_abstract(sandbox.unique()));
    for _ in 0..5 {
        gone.send_to(b"1", sandbox.path("s")).unwrap();
    }
    crate::harness::close(gone);
    server.signal(Signal::SIGCONT);
    is_answered(&sandbox.bind("next"), &sandbox.path("s"));
    server.signal(Signal::SIGTERM);
    let outcome = server.finish().dies_of(Signal::SIGTERM, "");
    let lines = outcome.diagnostics();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with(&format!(
        "udgram: cannot send to '@{}': Connection refused",
        sandbox.unique()
    )));
    assert_eq!(lines[1], "udgram: warning: 4 more answers were not sent");
}

#[test]
fn a_client_that_is_connected_elsewhere_is_reported_and_the_next_one_is_served() {
    let sandbox = Sandbox::new();
    let server = echo(&sandbox);
    let other = sandbox.bind("other");
    let client = sandbox.bind("client");
    client.connect(sandbox.path("other")).unwrap();
    client.send_to(b"1", sandbox.path("s")).unwrap();
    is_answered(&sandbox.bind("next"), &sandbox.path("s"));
    other.has_nothing_more();
    server.signal(Signal::SIGTERM);
    let outcome = server.finish().dies_of(Signal::SIGTERM, "");
    let path = sandbox.path("client");
    outcome.mentions(&[text(&path), "Operation not permitted"]);
}

#[test]
fn the_other_end_of_a_socket_pair_is_answered_and_the_socket_stays_unnamed() {
    let sandbox = Sandbox::new();
    let (theirs, ours) = UnixDatagram::pair().unwrap();
    let ours = limited(ours);
    let server = sandbox
        .udgram(["listen", "--echo", "--socket-fd", "3", "-n", "1"])
        .descriptor(theirs.as_fd(), 3)
        .start();
    ours.send(b"1").unwrap();
    let (answer, from) = ours.take_from();
    assert_eq!(answer, b"1");
    assert!(from.is_unnamed(), "{from:?}");
    server.finish().succeeds("1\n");
}

#[test]
fn packets_of_a_socket_pair_are_all_served_after_its_other_end_has_closed() {
    let sandbox = Sandbox::new();
    let (theirs, ours) = UnixDatagram::pair().unwrap();
    for packet in [b"1", b"2", b"3"] {
        ours.send(packet).unwrap();
    }
    crate::harness::close(ours);
    let outcome = sandbox
        .udgram(["listen", "--exec", "cat", "--socket-fd", "3", "-n", "3"])
        .descriptor(theirs.as_fd(), 3)
        .run()
        .ends(0, "1\n2\n3\n");
    let lines = [
        "udgram: cannot send to an unnamed socket: Connection refused",
        "udgram: warning: 2 more answers were not sent",
    ];
    assert_eq!(outcome.diagnostics(), lines);
}

/// Sends a packet to `s` as user 1, from a socket with the pathname `pub/me`, while the server is
/// stopped. The name is free then.
fn send_as_another_user(sandbox: &Sandbox, server: &Running) {
    let public = sandbox.directory("pub");
    fs::set_permissions(&public, fs::Permissions::from_mode(0o777)).unwrap();
    server.signal(Signal::SIGSTOP);
    let me = public.join("me");
    sandbox
        .udgram_as(1, ["send", "--bind", text(&me), "s", "1"])
        .run()
        .succeeds("");
}

/// A server that any user may ask.
fn open_echo(sandbox: &Sandbox) -> Running {
    sandbox.listen(["--echo", "--mode", "0666", "s"])
}

#[test]
fn another_user_is_answered_at_its_own_pathname() {
    root!();
    let sandbox = Sandbox::new();
    let server = open_echo(&sandbox);
    let public = sandbox.directory("pub");
    fs::set_permissions(&public, fs::Permissions::from_mode(0o777)).unwrap();
    let me = public.join("me");
    sandbox
        .udgram_as(1, ["send", "--reply", "--bind", text(&me), "s", "1"])
        .run()
        .succeeds("1\n");
    server.signal(Signal::SIGTERM);
    server
        .finish()
        .dies_of(Signal::SIGTERM, "1\n")
        .says_nothing();
}

#[test]
fn no_answer_to_another_user_follows_a_link() {
    root!();
    let sandbox = Sandbox::new();
    let secret = sandbox.bind("secret");
    let mut server = open_echo(&sandbox);
    // It is reported once.
    for _ in 0..2 {
        send_as_another_user(&sandbox, &server);
        symlink("../secret", sandbox.path("pub/me")).unwrap();
        server.signal(Signal::SIGCONT);
        assert_eq!(server.line(), "1");
        is_answered(&sandbox.bind("next"), &sandbox.path("s"));
        for question in ["1", "2", "3"] {
            assert_eq!(server.line(), question);
        }
        fs::remove_file(sandbox.path("pub/me")).unwrap();
        fs::remove_file(sandbox.path("next")).unwrap();
    }
    secret.has_nothing_more();
    server.signal(Signal::SIGTERM);
    let outcome = server.finish();
    let me = sandbox.path("pub/me");
    assert_eq!(
        outcome.diagnostics(),
        [
            format!(
                "udgram: warning: '{}' was not answered: its path is a symbolic link, and user 1 sent the packet",
                me.display()
            ),
            "udgram: warning: 1 more answer was not sent".to_owned()
        ]
    );
}

#[test]
fn no_answer_to_another_user_goes_to_a_socket_that_is_not_its_own() {
    root!();
    let sandbox = Sandbox::new();
    let mut server = open_echo(&sandbox);
    send_as_another_user(&sandbox, &server);
    let own = nix::unistd::geteuid();
    let other = sandbox.bind("pub/me");
    server.signal(Signal::SIGCONT);
    assert_eq!(server.line(), "1");
    is_answered(&sandbox.bind("next"), &sandbox.path("s"));
    other.has_nothing_more();
    server.signal(Signal::SIGTERM);
    server
        .finish()
        .dies_of(Signal::SIGTERM, "1\n1\n2\n3\n")
        .mentions(&[
            "pub/me' was not answered",
            &format!("its file belongs to user {own}, and user 1 sent the packet"),
        ]);
}

/// A client that becomes user `argv[1]`, binds the relative pathname `priv/me` in its directory and
/// asks. With `argv[2]`, it prints the answer.
const RELATIVE: &str = "import ctypes, os, socket, sys
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
# PR_SET_DUMPABLE: a server of the same user may look up the working directory.
ctypes.CDLL(None).prctl(4, 1)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('priv/me')
s.sendto(b'1', '../s')
s.settimeout(30)
if len(sys.argv) > 2:
    print(s.recv(10).decode())
";

/// The directory `pub`, with a directory `priv` for everybody, and the client beside it. The socket
/// is bound to the client's name in the server's directory.
fn other_directory(sandbox: &Sandbox) -> UnixDatagram {
    let theirs = sandbox.directory("pub/priv");
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(sandbox.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.file("client", RELATIVE);
    sandbox.directory("priv");
    sandbox.bind("priv/me")
}

#[test]
fn a_relative_pathname_is_below_the_working_directory_of_its_sender() {
    peer!("python3");
    root!();
    for user in ["0", "1"] {
        let sandbox = Sandbox::new();
        let secret = other_directory(&sandbox);
        let server = open_echo(&sandbox);
        sandbox
            .shell(&format!("cd pub && exec python3 ../client {user} print"))
            .run()
            .succeeds("1\n");
        secret.has_nothing_more();
        server.signal(Signal::SIGTERM);
        server
            .finish()
            .dies_of(Signal::SIGTERM, "1\n")
            .says_nothing();
    }
}

#[test]
fn a_relative_pathname_is_reached_from_a_directory_that_cannot_be_read() {
    peer!("python3");
    root!();
    let sandbox = Sandbox::new();
    let _secret = other_directory(&sandbox);
    fs::set_permissions(sandbox.path("pub"), fs::Permissions::from_mode(0o711)).unwrap();
    let directory = sandbox.directory("own");
    std::os::unix::fs::chown(&directory, Some(1), None).unwrap();
    let server = sandbox
        .udgram_as(1, ["listen", "--echo", "-n", "1", "own/s"])
        .start();
    server.wait_bound("own/s");
    symlink("own/s", sandbox.path("s")).unwrap();
    sandbox
        .shell("cd pub && exec python3 ../client 1 print")
        .run()
        .succeeds("1\n");
    server.finish().succeeds("1\n");
}

#[test]
fn a_relative_pathname_of_another_user_is_never_looked_up_in_the_servers_directory() {
    peer!("python3");
    root!();
    let sandbox = Sandbox::new();
    let secret = other_directory(&sandbox);
    std::os::unix::fs::chown(sandbox.path("priv/me"), Some(1), None).unwrap();
    let mut server = open_echo(&sandbox);
    server.signal(Signal::SIGSTOP);
    // It ended before the answer, so its working directory is unknown.
    sandbox
        .shell("cd pub && exec python3 ../client 1")
        .run()
        .succeeds("");
    server.signal(Signal::SIGCONT);
    assert_eq!(server.line(), "1");
    is_answered(&sandbox.bind("next"), &sandbox.path("s"));
    secret.has_nothing_more();
    server.signal(Signal::SIGTERM);
    server
        .finish()
        .dies_of(Signal::SIGTERM, "1\n1\n2\n3\n")
        .mentions(&["'priv/me' was not answered", "working directory"]);
}

#[test]
fn a_sender_that_the_kernel_does_not_name_is_not_answered_at_a_pathname() {
    let sandbox = Sandbox::new();
    let server = sandbox.bind("s");
    let early = sandbox.bind("early");
    early.send_to(b"1", sandbox.path("s")).unwrap();
    let running = sandbox
        .udgram(["listen", "--echo", "--socket-fd", "3", "-n", "1"])
        .descriptor(server.as_fd(), 3)
        .start();
    running.finish().ends(0, "1\n").mentions(&[
        "early' was not answered",
        "the kernel does not say which user",
        "PassCredentials=yes",
    ]);
    early.has_nothing_more();
}

#[test]
fn a_signal_while_stdout_takes_nothing_leaves_no_packet_of_the_batch_unanswered() {
    let sandbox = Sandbox::new();
    let (_reader, writer) = pipe();
    let server = sandbox
        .udgram(["listen", "--echo", "-p", "text", "s"])
        .stdout_to(writer.try_clone().unwrap())
        .start_ready();
    server.stop();
    // Each fits into a send buffer. Three are collected, and do not fit into the pipe.
    let packet = "x".repeat(100_000);
    let clients: Vec<UnixDatagram> = (0..8)
        .map(|number| sandbox.bind(format!("c{number}")))
        .collect();
    for client in &clients {
        client
            .send_to(packet.as_bytes(), sandbox.path("s"))
            .unwrap();
    }
    server.resume();
    server.wait_full(&writer);
    server.signal(Signal::SIGTERM);
    server
        .finish()
        .dies_of(Signal::SIGTERM, "")
        .mentions(&["warning: stdout takes nothing more: "]);
    for client in &clients {
        assert_eq!(client.take(), packet.as_bytes());
        client.has_nothing_more();
    }
}
