//! A session of `udgram exec`: a socket and the address of its peer in the environment. The peer may go
//! away and come back between two commands.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use nix::sys::stat::fstat;

use crate::harness::{Invocation, Peer, Sandbox, close, peer, text};

/// An invocation within a session: with a socket that `udgram exec` has connected to the peer `s`.
fn session<const N: usize>(
    sandbox: &Sandbox,
    socket: &UnixDatagram,
    arguments: [&str; N],
) -> Invocation {
    let inode = fstat(socket).unwrap().st_ino;
    sandbox
        .udgram(arguments)
        .env("UDGRAM_SOCKET_FD", "7")
        .env("UDGRAM_SOCKET_INODE", inode.to_string())
        .env("UDGRAM_PEER", sandbox.path("s"))
        .descriptor(socket, 7)
}

/// A socket bound to `own` and connected to the peer `s`, which has gone: the kernel noticed that at
/// a send.
#[track_caller]
fn session_without_peer(sandbox: &Sandbox) -> UnixDatagram {
    let own = sandbox.bind("own");
    let peer = sandbox.bind("s");
    own.connect(sandbox.path("s")).unwrap();
    session(sandbox, &own, ["send", "-", "1"])
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"1");
    close(peer);
    session(sandbox, &own, ["send", "-", "2"])
        .run()
        .refuses(4, &["cannot send to", text(&sandbox.path("s"))]);
    fs::remove_file(sandbox.path("s")).unwrap();
    own
}

/// Sends a packet that comes from the address `stranger`.
#[track_caller]
fn intrude(sandbox: &Sandbox) {
    intrude_at(sandbox, "own");
}

#[track_caller]
fn intrude_at(sandbox: &Sandbox, name: &str) {
    let stranger = sandbox.bind("stranger");
    stranger.send_to(b"666", sandbox.path(name)).unwrap();
    fs::remove_file(sandbox.path("stranger")).unwrap();
}

#[test]
fn a_session_whose_peer_has_gone_receives_nothing_from_others() {
    let sandbox = Sandbox::new();
    let own = session_without_peer(&sandbox);
    intrude(&sandbox);
    for command in ["recv", "iter", "listen"] {
        session(&sandbox, &own, [command, "-t", "0"])
            .run()
            .refuses(4, &["cannot connect to", text(&sandbox.path("s"))]);
    }
    assert_eq!(own.take(), b"666");
}

#[test]
fn a_session_reaches_the_socket_that_has_its_peers_address_now() {
    let sandbox = Sandbox::new();
    let own = session_without_peer(&sandbox);
    intrude(&sandbox);
    let waiting = session(&sandbox, &own, ["send", "--wait", "-", "3"]).start();
    waiting.wait_watching();
    let peer = sandbox.bind("s");
    assert_eq!(peer.take(), b"3");
    waiting.finish().succeeds("");
    peer.send_to(b"4", sandbox.path("own")).unwrap();
    let dropped = format!(
        "udgram: warning: dropped a packet from '{}', which is not the peer",
        text(&sandbox.path("stranger"))
    );
    session(&sandbox, &own, ["recv"])
        .run()
        .ends(0, "4\n")
        .says(dropped);
}

#[test]
fn a_session_needs_no_wait_for_a_peer_that_has_come_back() {
    let sandbox = Sandbox::new();
    let own = sandbox.bind("own");
    let old = sandbox.bind("s");
    own.connect(sandbox.path("s")).unwrap();
    close(old);
    fs::remove_file(sandbox.path("s")).unwrap();
    let peer = sandbox.bind("s");
    // Connected to the old socket, and then to none.
    session(&sandbox, &own, ["send", "-", "1"])
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"1");
    close(peer);
    fs::remove_file(sandbox.path("s")).unwrap();
    session(&sandbox, &own, ["send", "-", "2"])
        .run()
        .refuses(4, &[]);
    let peer = sandbox.bind("s");
    peer.send_to(b"5", sandbox.path("own")).unwrap();
    session(&sandbox, &own, ["recv"]).run().succeeds("5\n");
    session(&sandbox, &own, ["send", "-", "3"])
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"3");
}

#[test]
fn packets_of_others_are_not_answers_in_a_session_whose_peer_came_back() {
    let sandbox = Sandbox::new();
    let own = session_without_peer(&sandbox);
    intrude(&sandbox);
    let asking = session(&sandbox, &own, ["send", "--wait", "--reply", "-", "3"]).start();
    asking.wait_watching();
    intrude(&sandbox);
    let peer = sandbox.bind("s");
    assert_eq!(peer.take(), b"3");
    peer.send_to(b"4", sandbox.path("own")).unwrap();
    let path = sandbox.path("stranger");
    let stranger = text(&path);
    asking.finish().ends(0, "4\n").says(format!(
        "udgram: warning: a packet of 3 bytes from '{stranger}' came before the question was \
         received: it is not the answer\n\
         udgram: warning: dropped a packet from '{stranger}', which is not the peer"
    ));
}

const RELATIVE_PEER: &str = "
import os, socket, sys
peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
peer.bind('s')
print('bound', flush=True)
sys.stdin.readline()
peer.setblocking(False)
try:
    print(peer.recv(100).decode(), flush=True)
except BlockingIOError:
    print('nothing', flush=True)
os.unlink('s')
";

#[test]
fn a_peer_that_is_known_by_a_relative_name_only_is_not_connected_to_again() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let start = || {
        let mut peer = sandbox.python(RELATIVE_PEER).stdin_open().start();
        assert_eq!(peer.line(), "bound");
        peer
    };
    let own = sandbox.bind("own");
    let send = |packet: &str, option: Option<&str>| {
        sandbox
            .udgram(["send"])
            .args(option)
            .args(["-", packet])
            .env("UDGRAM_SOCKET_FD", "7")
            .descriptor(&own, 7)
            .run()
    };
    let mut peer = start();
    own.connect(sandbox.path("s")).unwrap();
    send("1", None).succeeds("");
    peer.write("\n");
    assert_eq!(peer.line(), "1");
    peer.finish().succeeds("bound\n1\n");
    // Here the name means the same socket, elsewhere it would not.
    let mut other = start();
    send("2", Some("--wait")).refuses(4, &["'s'"]);
    // The kernel has disconnected the socket: whose it was is not known any more.
    send("3", None).refuses(2, &["not connected"]);
    other.write("\n");
    assert_eq!(other.line(), "nothing");
    other.finish().succeeds("bound\nnothing\n");
}

#[test]
fn the_peer_of_a_session_is_not_that_of_another_socket_with_its_number() {
    let sandbox = Sandbox::new();
    let own = session_without_peer(&sandbox);
    let peer = sandbox.bind("s");
    let other = sandbox.bind("other");
    for option in ["-", "--socket-fd=7"] {
        session(&sandbox, &own, ["send", option, "1"])
            .descriptor(&other, 7)
            .run()
            .refuses(2, &["not connected"]);
    }
    peer.has_nothing_more();
    peer.send_to(b"1", sandbox.path("other")).unwrap();
    intrude_at(&sandbox, "other");
    session(&sandbox, &own, ["iter"])
        .descriptor(&other, 7)
        .run()
        .succeeds("1\n666\n");
}

#[test]
fn a_descriptor_that_replaces_the_socket_of_a_session_is_not_named_as_that_socket() {
    let sandbox = Sandbox::new();
    let file = File::open(sandbox.file("file", "")).unwrap();
    for (number, named) in [("3", "none"), ("4", "3 set set")] {
        let name = format!("s{number}");
        let script = "echo ${UDGRAM_SOCKET_FD-none} ${UDGRAM_SOCKET_INODE+set} ${UDGRAM_PEER+set}";
        let peer = sandbox.bind(format!("peer{number}"));
        let session = sandbox
            .udgram(["exec", "--bind", &name, "--connect"])
            .arg(text(&sandbox.path(format!("peer{number}"))))
            .args([
                "--", "udgram", "recv", "--fd", number, "--", "sh", "-c", script,
            ])
            .start();
        session.wait_bound(&name);
        crate::sys::send_descriptors(&peer, &sandbox.path(&name), b"1", &[file.as_fd()]);
        session.finish().succeeds(format!("{named}\n"));
    }
}

#[test]
fn a_peer_without_an_inode_number_or_with_a_relative_name_is_ignored() {
    let sandbox = Sandbox::new();
    let own = session_without_peer(&sandbox);
    let peer = sandbox.bind("s");
    for (name, value) in [
        ("UDGRAM_SOCKET_INODE", ""),
        ("UDGRAM_SOCKET_INODE", "1"),
        ("UDGRAM_PEER", "s"),
        ("UDGRAM_PEER", "./s"),
    ] {
        session(&sandbox, &own, ["send", "-", "1"])
            .env(name, value)
            .run()
            .refuses(2, &["not connected"]);
    }
    peer.has_nothing_more();
    session(&sandbox, &own, ["send", "-", "1"])
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"1");
}

#[test]
fn a_session_within_a_session_has_its_peer() {
    let sandbox = Sandbox::new();
    let own = session_without_peer(&sandbox);
    let script = "echo $UDGRAM_PEER; exec udgram send - 1";
    let peer = sandbox.bind("s");
    session(&sandbox, &own, ["exec", "--", "sh", "-c", script])
        .run()
        .succeeds(format!("{}\n", text(&sandbox.path("s"))));
    assert_eq!(peer.take(), b"1");
    let inner = "echo ${UDGRAM_PEER-unset}";
    session(
        &sandbox,
        &own,
        ["exec", "-b", "new", "--", "sh", "-c", inner],
    )
    .run()
    .succeeds("unset\n");
}
