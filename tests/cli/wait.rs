//! `udgram send --wait`: a peer that is not bound yet, or went away.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Peer, Sandbox, bind_abstract, close, limited, root};

#[test]
fn a_peer_that_comes_later_gets_every_packet() {
    let sandbox = Sandbox::new();
    let running = sandbox
        .udgram(["send", "--wait", "--bind", "me", "s", "1", "2"])
        .start();
    running.wait_until("me", || sandbox.exists("me"));
    let peer = sandbox.bind("s");
    assert_eq!([peer.take(), peer.take()], [b"1", b"2"]);
    running.finish().succeeds("");
}

#[test]
fn a_peer_in_a_directory_that_comes_later_gets_every_packet() {
    let sandbox = Sandbox::new();
    let running = sandbox
        .udgram(["send", "-w", "--bind", "me", "a/b/s", "1"])
        .start();
    running.wait_until("me", || sandbox.exists("me"));
    sandbox.directory("a");
    sandbox.directory("a/b");
    let peer = sandbox.bind("a/b/s");
    assert_eq!(peer.take(), b"1");
    running.finish().succeeds("");
}

#[test]
fn a_peer_that_replaces_a_stale_file_gets_every_packet() {
    let sandbox = Sandbox::new();
    sandbox.stale("s");
    let running = sandbox
        .udgram(["send", "-w", "--bind", "me", "s", "1"])
        .start();
    running.wait_until("me", || sandbox.exists("me"));
    let peer = sandbox.bind("new");
    fs::rename(sandbox.path("new"), sandbox.path("s")).unwrap();
    assert_eq!(peer.take(), b"1");
    running.finish().succeeds("");
}

#[test]
fn an_abstract_peer_that_comes_later_gets_every_packet() {
    let sandbox = Sandbox::new();
    let name = sandbox.unique();
    let running = sandbox
        .udgram(["send", "-w", "--bind", "me"])
        .arg(format!("@{name}"))
        .arg("1")
        .start();
    running.wait_until("me", || sandbox.exists("me"));
    let peer = bind_abstract(&name);
    assert_eq!(peer.take(), b"1");
    running.finish().succeeds("");
}

#[test]
fn a_peer_that_is_restarted_loses_nothing_that_was_not_yet_in_its_queue() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.udgram(["send", "--wait", "s"]).stdin_open().start();
    for round in 0..5 {
        let peer = sandbox.bind("s");
        running.write(format!("{round}\n"));
        assert_eq!(peer.take(), round.to_string().as_bytes());
        close(peer);
        if round % 2 == 0 {
            fs::remove_file(sandbox.path("s")).unwrap();
            running.write(format!("\"after {round}\"\n"));
        } else {
            running.write(format!("\"after {round}\"\n"));
            fs::remove_file(sandbox.path("s")).unwrap();
        }
        let peer = sandbox.bind("s");
        assert_eq!(peer.take(), format!("\"after {round}\"").as_bytes());
        close(peer);
        fs::remove_file(sandbox.path("s")).unwrap();
    }
    running.finish().succeeds("");
}

#[test]
fn a_peer_that_went_away_and_never_comes_back_is_a_timeout() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut running = sandbox
        .udgram(["send", "--wait", "--timeout", "200ms", "s"])
        .stdin_open()
        .start();
    running.write("1\n");
    assert_eq!(peer.take(), b"1");
    close(peer);
    running.write("2\n");
    running.finish().refuses(124, &["'s'"]);
}

#[test]
fn a_peer_that_shut_its_reading_side_has_gone_away() {
    let sandbox = Sandbox::new();
    let old = sandbox.bind("s");
    old.shutdown(std::net::Shutdown::Read).unwrap();
    let running = sandbox
        .udgram(["send", "--wait", "--bind", "me", "s", "1"])
        .start();
    running.wait_until("me", || sandbox.exists("me"));
    fs::remove_file(sandbox.path("s")).unwrap();
    let peer = sandbox.bind("s");
    assert_eq!(peer.take(), b"1");
    running.finish().succeeds("");
}

#[test]
fn a_peer_that_never_comes_is_waited_for_no_longer_than_the_timeout() {
    let sandbox = Sandbox::new();
    sandbox.stale("stale");
    for peer in [
        "missing",
        "stale",
        "no/dir/s",
        &format!("@{}", sandbox.unique()),
    ] {
        let start = Instant::now();
        sandbox
            .udgram(["send", "--wait", "--timeout", "150ms", peer, "1"])
            .run()
            .refuses(124, &[&format!("'{}'", peer.replace('\\', "\\\\"))]);
        assert!(start.elapsed() >= Duration::from_millis(150), "{peer}");
    }
}

#[test]
fn a_peer_that_may_not_be_written_to_in_time_is_named_with_the_cause() {
    root!();
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("s");
    sandbox
        .udgram_as(7, ["send", "--wait", "-t", "20ms", "s", "1"])
        .run()
        .refuses(
            124,
            &[
                "cannot connect to 's': Permission denied",
                ", still after 20ms",
                "hint",
            ],
        );
}

#[test]
fn with_no_packets_the_peer_is_waited_for_and_nothing_is_sent() {
    let sandbox = Sandbox::new();
    let running = sandbox.udgram(["send", "--wait", "s"]).start();
    let peer = sandbox.bind("s");
    running.finish().succeeds("");
    peer.has_nothing_more();
    close(peer);
    sandbox
        .udgram(["send", "--wait", "--timeout", "20ms", "s"])
        .run()
        .refuses(124, &["'s'"]);
}

#[test]
fn a_file_that_cannot_become_a_peer_is_not_waited_for() {
    let sandbox = Sandbox::new();
    let _listener = std::os::unix::net::UnixListener::bind(sandbox.path("stream")).unwrap();
    sandbox
        .udgram(["send", "--wait", "stream", "1"])
        .run()
        .refuses(1, &["'stream'", "stream"]);
}

#[test]
fn a_peer_that_is_not_waited_for_costs_nobody_the_name_that_would_be_bound() {
    let sandbox = Sandbox::new();
    let _listener = std::os::unix::net::UnixListener::bind(sandbox.path("stream")).unwrap();
    let holder = sandbox.bind("me");
    sandbox
        .udgram(["send", "--wait", "--bind", "me", "--replace", "stream", "1"])
        .run()
        .refuses(1, &["'stream'", "stream"]);
    sandbox.udgram(["send", "me", "2"]).run().succeeds("");
    assert_eq!(holder.take(), b"2");
}

#[test]
fn a_signal_ends_the_wait() {
    let sandbox = Sandbox::new();
    let running = sandbox
        .udgram(["send", "--wait", "--bind", "me", "s", "1"])
        .start();
    running.wait_until("me", || sandbox.exists("me"));
    running.signal(Signal::SIGTERM);
    running.finish().dies_of(Signal::SIGTERM, "").says_nothing();
    assert!(!sandbox.exists("me"));
}

#[test]
fn nobody_is_heard_while_the_peer_is_waited_for() {
    let sandbox = Sandbox::new();
    let running = sandbox
        .udgram(["send", "--wait", "--bind", "me", "s", "1"])
        .start();
    running.wait_bound("me");
    let stranger = UnixDatagram::unbound().unwrap();
    let refused = stranger.send_to(b"x", sandbox.path("me")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(nix::libc::EPERM));
    running.signal(Signal::SIGTERM);
    running.finish().dies_of(Signal::SIGTERM, "").says_nothing();
}

#[test]
fn a_reply_is_waited_for_after_the_wait_for_the_peer() {
    let sandbox = Sandbox::new();
    let running = sandbox
        .udgram(["send", "--wait", "--reply", "s", "1"])
        .start();
    let peer = limited(UnixDatagram::bind(sandbox.path("s")).unwrap());
    let (_, from) = peer.take_from();
    peer.send_to_addr(b"2", &from).unwrap();
    running.finish().succeeds("2\n");
}

#[test]
fn an_address_in_an_envelope_that_is_waited_for_does_not_become_the_peer_of_the_socket() {
    let sandbox = Sandbox::new();
    let own = sandbox.bind("own");
    let peer = sandbox.bind("s");
    own.connect(sandbox.path("s")).unwrap();
    for missing in ["missing", "stale"] {
        if missing == "stale" {
            sandbox.stale("stale");
        }
        let running = sandbox
            .udgram(["send", "--wait", "--envelope", "--socket-fd", "5"])
            .descriptor(&own, 5)
            .stdin(format!(
                "{{\"packet\":1}}\n{{\"to\":\"{missing}\",\"packet\":2}}\n{{\"packet\":3}}\n"
            ))
            .start();
        assert_eq!(peer.take(), b"1");
        running.wait_watching();
        let other = sandbox.bind("new");
        fs::rename(sandbox.path("new"), sandbox.path(missing)).unwrap();
        assert_eq!(other.take(), b"2");
        assert_eq!(peer.take(), b"3");
        running.finish().succeeds("");
        other.has_nothing_more();
        peer.has_nothing_more();
        assert_eq!(
            own.peer_addr().unwrap().as_pathname(),
            Some(sandbox.path("s").as_path())
        );
    }
}

#[test]
fn a_socket_that_takes_the_place_of_another_at_a_long_path_is_found() {
    let sandbox = Sandbox::new();
    let path = sandbox.long_path("s");
    for arguments in [
        &["--wait", "--to"][..],
        &["--wait", "--"],
        &["--to"],
        &["--"],
        &["--envelope", "--"],
    ] {
        let serve = || {
            let peer = sandbox.bind("new");
            fs::rename(sandbox.path("new"), &path).unwrap();
            peer
        };
        let old = serve();
        let mut running = sandbox
            .udgram(["send"])
            .args(arguments)
            .arg(&path)
            .stdin_open()
            .start();
        let envelope = arguments[0] == "--envelope";
        let packet = |number: u32| {
            if envelope {
                format!("{{\"packet\":{number}}}\n")
            } else {
                format!("{number}\n")
            }
        };
        running.write(packet(1));
        assert_eq!(old.take(), b"1");
        close(old);
        let new = serve();
        running.write(packet(2));
        assert_eq!(new.take(), b"2", "{arguments:?}");
        running.finish().succeeds("");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_peer_at_a_long_path_that_went_away_is_waited_for() {
    let sandbox = Sandbox::new();
    let path = sandbox.long_path("s");
    for arguments in [&["--to"][..], &["--"]] {
        let old = sandbox.bind("old");
        fs::rename(sandbox.path("old"), &path).unwrap();
        let mut running = sandbox
            .udgram(["send", "--wait"])
            .args(arguments)
            .arg(&path)
            .stdin_open()
            .start();
        running.write("1\n");
        assert_eq!(old.take(), b"1");
        close(old);
        fs::remove_file(&path).unwrap();
        running.write("2\n");
        running.wait_watching();
        let new = sandbox.bind("new");
        fs::rename(sandbox.path("new"), &path).unwrap();
        assert_eq!(new.take(), b"2");
        running.finish().succeeds("");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_long_path_in_an_envelope_is_waited_for_and_holds_up_no_packet_before_it() {
    let sandbox = Sandbox::new();
    let path = sandbox.long_path("s");
    let peer = sandbox.bind("s");
    let envelope = format!("{{\"to\":\"{}\",\"packet\":2}}", path.display());
    let running = sandbox
        .udgram(["send", "--wait", "--envelope", "s"])
        .stdin(format!("{{\"packet\":1}}\n{envelope}\n{{\"packet\":3}}\n"))
        .start();
    assert_eq!(peer.take(), b"1");
    running.wait_watching();
    let other = sandbox.bind("new");
    fs::rename(sandbox.path("new"), &path).unwrap();
    assert_eq!(other.take(), b"2");
    assert_eq!(peer.take(), b"3");
    running.finish().succeeds("");
    fs::remove_file(&path).unwrap();
    sandbox
        .udgram(["send", "--envelope", "s", &envelope])
        .run()
        .refuses(4, &["cannot send to", "No such file or directory"]);
}

#[test]
fn a_peer_that_goes_away_in_the_middle_of_batches_again_and_again_gets_the_last_packet() {
    const ROUNDS: usize = 60;
    let sandbox = Sandbox::new();
    let mut running = sandbox
        .udgram(["send", "--wait", "--timeout", "100s", "s"])
        .stdin_open()
        .start();
    let done = AtomicBool::new(false);
    let serve = |round: usize| {
        let peer = sandbox.bind("s");
        for _ in 0..=round * 7 % 97 {
            assert_eq!(peer.take(), b"1");
        }
        peer
    };
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            for round in 0..ROUNDS {
                // What is in its queue is lost with it, which the sender cannot know.
                close(serve(round));
                fs::remove_file(sandbox.path("s")).unwrap();
            }
            let last = serve(ROUNDS);
            done.store(true, Ordering::Relaxed);
            while last.take() != b"\"last\"" {}
            last.has_nothing_more();
        });
        while !done.load(Ordering::Relaxed) && !server.is_finished() {
            running.write("1\n".repeat(100));
        }
        running.write("\"last\"\n");
        server.join().unwrap();
    });
    running.finish().succeeds("");
}
