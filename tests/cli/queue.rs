//! `--queue`: a queue that holds more than the system's limit.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

use crate::harness::{Peer, Sandbox, close, root};

const LIMIT: &str = "/proc/sys/net/unix/max_dgram_qlen";

fn system_limit() -> u32 {
    fs::read_to_string(LIMIT).unwrap().trim().parse().unwrap()
}

/// Sends 100 datagrams from each of 40 sockets without waiting. Returns how many were accepted.
fn burst(sandbox: &Sandbox) -> usize {
    let mut accepted = 0;
    for _ in 0..40 {
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        sender.connect(sandbox.path("s")).unwrap();
        accepted += (0..100).filter(|_| sender.send(b"1").is_ok()).count();
    }
    accepted
}

#[test]
fn a_burst_into_a_deep_queue_is_received_by_a_program_that_did_not_read() {
    root!();
    let sandbox = Sandbox::new();
    let before = system_limit();
    let running = sandbox.listen(["--queue", "4096", "-n", "4000", "s"]);
    running.stop();
    assert_eq!(burst(&sandbox), 4000);
    running.resume();
    running.finish().succeeds("1\n".repeat(4000));
    assert_eq!(system_limit(), before);

    let receiver = sandbox.udgram(["recv", "--queue", "4096", "-n", "4000", "s"]);
    let running = receiver.start();
    running.wait_bound("s");
    running.stop();
    assert_eq!(burst(&sandbox), 4000);
    running.resume();
    running.finish().succeeds("1\n".repeat(4000));
}

#[test]
fn the_queue_of_exec_holds_what_its_command_has_not_read() {
    root!();
    let sandbox = Sandbox::new();
    let running = sandbox
        .udgram(["exec", "--queue", "100", "-b", "s", "--"])
        .args(["sh", "-c", "read go; exec udgram iter -s 3 -n 50"])
        .stdin_open()
        .start();
    running.wait_bound("s");
    // One sender may have no more than SO_SNDBUF unread: small datagrams, of which 101 fit.
    let accepted = sandbox.fill("s");
    assert_eq!(accepted, 101);
    let mut running = running;
    running.write("\n");
    running.finish().succeeds("0\n".repeat(50));
}

#[test]
fn a_peer_at_a_pathname_can_be_connected_to() {
    root!();
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("p");
    let running = sandbox.listen(["--queue", "50", "-n", "1", "-c", "p", "s"]);
    peer.send_to(b"1", sandbox.path("s")).unwrap();
    running.finish().succeeds("1\n");
}

#[test]
fn the_end_of_the_peer_of_a_socket_with_a_deep_queue_is_noticed() {
    root!();
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox
        .udgram(["exec", "--queue", "100", "-b", "me", "-c", "s", "--"])
        .args(["sh", "-c", "exec udgram send -r -t 100s - 1"])
        .start();
    assert_eq!(peer.take(), b"1");
    close(peer);
    running.finish().refuses(
        4,
        &["cannot get a reply from ", "the peer has closed its socket"],
    );
}

#[test]
fn the_lack_of_a_descriptor_is_the_cause_of_a_socket_that_is_not_made() {
    root!();
    Sandbox::new()
        .udgram(["listen", "--queue", "50", "s"])
        .descriptor_limit(5)
        .run()
        .refuses(
            1,
            &["/proc/sys/net/unix/max_dgram_qlen: Too many open files"],
        );
}

#[test]
fn with_a_network_namespace_but_no_right_to_its_limits_the_message_says_so() {
    root!();
    let sandbox = Sandbox::new();
    let other = (system_limit() + 1).to_string();
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let capability = ["--inh-caps=+sys_admin", "--ambient-caps=+sys_admin"];
    fs::set_permissions(sandbox.dir(), fs::Permissions::from_mode(0o777)).unwrap();
    sandbox
        .command("setpriv", user)
        .args(capability)
        .args(["udgram", "recv", "--queue", &other, "s"])
        .run()
        .fails(
            1,
            "udgram: cannot make a socket with its own queue limit: writing \
             /proc/sys/net/unix/max_dgram_qlen needs CAP_NET_ADMIN",
        );
}

#[test]
fn without_privileges_the_message_names_the_one_that_is_missing() {
    root!();
    let sandbox = Sandbox::new();
    let other = (system_limit() + 1).to_string();
    sandbox
        .udgram_as(65534, ["recv", "--queue", &other, "s"])
        .run()
        .fails(
            1,
            "udgram: cannot make a socket with its own queue limit: a network namespace of its own needs CAP_SYS_ADMIN",
        );
}

#[test]
fn the_limit_of_the_system_needs_no_privileges() {
    root!();
    let sandbox = Sandbox::new();
    let directory = sandbox.directory("d");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    let same = system_limit().to_string();
    sandbox
        .udgram_as(65534, ["recv", "--queue", &same, "-t", "10ms", "d/s"])
        .run()
        .refuses(124, &["no packet came within 10ms"]);
}

#[test]
fn the_number_has_bounds() {
    let sandbox = Sandbox::new();
    for wrong in ["0", "-1", "x", "1000001", "4294967296"] {
        sandbox
            .udgram(["recv", "--queue", wrong, "s"])
            .run()
            .refuses(2, &["--queue takes a number from 1 to 1000000"]);
    }
}
