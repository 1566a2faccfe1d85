//! A program that has nothing to do sleeps until something happens: no timer wakes it.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::harness::{LIMIT, Peer, Sandbox};
use crate::running::Running;

/// Sends a packet and takes its answer.
#[track_caller]
fn ask(sandbox: &Sandbox, client: &UnixDatagram) {
    client.send_to(b"1", sandbox.path("s")).unwrap();
    assert_eq!(client.take(), b"1");
}

/// Ends a program.
#[track_caller]
fn end(running: Running) {
    running.signal(Signal::SIGTERM);
    let _ = running.finish();
}

#[test]
fn a_server_without_a_question_waits_for_the_next_one_alone() {
    let sandbox = Sandbox::new();
    let client = sandbox.bind("client");
    for action in [
        &["--echo"][..],
        &["--exec", "cat"],
        &["--pipe", "cat"],
        &["--pipe", "cat", "--envelope", "-q"],
    ] {
        let server = sandbox.udgram(["listen", "s"]).args(action).start_ready();
        server.wait_idle();
        if action.len() < 3 {
            ask(&sandbox, &client);
            server.wait_idle();
        }
        end(server);
    }
}

#[test]
fn a_receiver_without_a_timeout_waits_for_a_packet_alone() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["listen", "s"][..],
        &["listen", "--creds", "--stats", "s"],
        &["recv", "s"],
        &["iter", "--timeout", "none", "s"],
    ] {
        let receiver = sandbox.udgram(arguments).start();
        receiver.wait_bound("s").wait_idle();
        end(receiver);
    }
}

#[test]
fn a_relay_without_a_timeout_waits_for_a_packet_alone() {
    let sandbox = Sandbox::new();
    let [daemon, _copy] = ["daemon", "copy"].map(|name| sandbox.bind(name));
    let null = fs::File::create("/dev/null").unwrap();
    let relay = sandbox
        .udgram(["relay", "s", "daemon", "copy"])
        .stdout_to(null)
        .start_ready();
    relay.wait_idle();
    let client = sandbox.bind("client");
    client.send_to(b"1", sandbox.path("s")).unwrap();
    let (_, from) = daemon.take_from();
    daemon.send_to_addr(b"2", &from).unwrap();
    assert_eq!(client.take(), b"2");
    relay.wait_idle();
    end(relay);
}

#[test]
fn a_manager_of_a_service_that_is_ready_waits_for_a_notification_alone() {
    let sandbox = Sandbox::new();
    let outer = sandbox.bind("outer");
    let script = "udgram send -p text \"$NOTIFY_SOCKET\" READY=1; cat";
    let mut manager = sandbox
        .udgram(["exec", "--notify", "-t", "100s", "--", "sh", "-c", script])
        .env("NOTIFY_SOCKET", sandbox.path("outer"))
        .stdin_open()
        .start();
    assert_eq!(manager.line(), "{\"READY\":\"1\"}");
    assert_eq!(outer.take(), b"READY=1");
    manager.wait_idle();
    manager.finish().succeeds("{\"READY\":\"1\"}\n");
}

#[test]
fn a_manager_whose_stdout_is_blocked_waits_for_its_reader_or_a_notification() {
    let sandbox = Sandbox::new();
    let outer = sandbox.bind("outer");
    let (mut reader, writer) = crate::harness::full_pipe();
    let script = "udgram send -p text \"$NOTIFY_SOCKET\" READY=1; cat";
    let manager = sandbox
        .udgram(["exec", "--notify", "-t", "100s", "--", "sh", "-c", script])
        .env("NOTIFY_SOCKET", sandbox.path("outer"))
        .stdin_open()
        .stdout_to(writer)
        .start();
    assert_eq!(outer.take(), b"READY=1");
    manager.wait_idle();
    let mut printed = Vec::new();
    while !printed.ends_with(b"{\"READY\":\"1\"}\n") {
        let mut watched = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(LIMIT).unwrap();
        assert_eq!(poll(&mut watched, limit), Ok(1));
        let mut piece = vec![0; 65536];
        let count = reader.read(&mut piece).unwrap();
        printed.extend_from_slice(&piece[..count]);
    }
    let _ = manager.finish();
}

/// Returns how often a process has slept so far.
#[track_caller]
fn sleeps(pid: i32) -> u128 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let name = "voluntary_ctxt_switches:";
    let count = status.lines().find_map(|line| line.strip_prefix(name));
    count.unwrap().trim().parse().unwrap()
}

/// Checks that a conversation sleeps no more often than to look for its peer.
#[track_caller]
fn looks_for_its_peer_ten_times_a_second(talk: &Running) {
    talk.wait_asleep();
    let start = Instant::now();
    let before = sleeps(talk.pid());
    while sleeps(talk.pid()) < before + 20 {
        assert!(start.elapsed() < LIMIT, "it does not wake");
        std::thread::yield_now();
    }
    // Half of the time leaves room for the sleeps in a lock or a page fault.
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_conversation_at_rest_looks_for_its_peer_ten_times_a_second() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    for wait in [&[][..], &["--wait"]] {
        let mut talk = sandbox
            .udgram(["talk", "s"])
            .args(wait)
            .stdin_open()
            .start();
        talk.write("1\n");
        assert_eq!(peer.take(), b"1");
        looks_for_its_peer_ten_times_a_second(&talk);
        talk.finish().succeeds("");
    }
}

#[test]
fn a_conversation_whose_stdout_is_blocked_looks_for_its_peer_ten_times_a_second() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let (_reader, writer) = crate::harness::full_pipe();
    let mut talk = sandbox
        .udgram(["talk", "s"])
        .stdin_open()
        .stdout_to(writer)
        .start();
    talk.write("1\n");
    let (_, from) = peer.take_from();
    peer.send_to_addr(b"2", &from).unwrap();
    crate::sys::wait_received(&peer);
    looks_for_its_peer_ten_times_a_second(&talk);
    end(talk);
}
