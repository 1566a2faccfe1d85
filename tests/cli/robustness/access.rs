//! Access to a socket: the modes and owners of socket files, races for a name, `--allow-uid`.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{LIMIT, Peer, Sandbox, peer, root};
use crate::outcome::Outcome;
use crate::running::{Running, children};
use crate::sys;

use super::scaled;

/// The system calls that may give other users access to a file.
const CALLS: [&str; 7] = [
    "bind", "fchmod", "fchmodat", "chmod", "fchown", "fchownat", "flock",
];

/// Runs `udgram listen` with these options and this umask until it is ready, kills it, and returns
/// those of its system calls that are in [`CALLS`].
fn calls(sandbox: &Sandbox, umask: &str, options: &str) -> Vec<String> {
    let script = format!("umask {umask}; exec strace -o trace udgram listen s {options}");
    let listen = sandbox.shell(&script).start_ready();
    let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
    // strace ends once udgram is reaped, so the socket is closed when `finish` returns.
    kill(traced(&listen), Signal::SIGKILL).unwrap();
    let _ = listen.finish();
    let calls = trace.lines().filter_map(|line| {
        let (name, rest) = line.split_once('(')?;
        // An older strace does not know fchmodat2(2); its number is 452 on every architecture.
        if name == "fchmodat2" || name == "syscall_0x1c4" {
            let mode = rest.split(", ").nth(2)?;
            let mode = match mode.strip_prefix("0x") {
                Some(mode) => u32::from_str_radix(mode, 16),
                None => u32::from_str_radix(mode, 8),
            };
            let (_, result) = rest.rsplit_once(") ")?;
            let result = result.trim_start();
            return Some(format!("fchmodat2(0{:o}) {result}", mode.ok()?));
        }
        let words: Vec<_> = rest.split_whitespace().collect();
        CALLS
            .contains(&name)
            .then(|| format!("{name}({}", words.join(" ")))
    });
    calls.collect()
}

/// Returns the process that strace runs.
#[track_caller]
fn traced(strace: &Running) -> Pid {
    let children = children(strace.pid());
    assert_eq!(children.len(), 1, "{}", strace.context());
    Pid::from_raw(children[0])
}

#[test]
fn a_socket_file_is_never_more_open_than_asked() {
    peer!("strace");
    for (umask, mode) in [("0", 0o600), ("0", 0o660), ("077", 0o600), ("077", 0o666)] {
        let sandbox = Sandbox::new();
        let calls = calls(&sandbox, umask, &format!("--mode {mode:04o}"));
        let bound = calls
            .iter()
            .position(|call| call.starts_with("bind("))
            .unwrap();
        // The mode is set on the socket before bind(2) makes the file; no later call adds permissions.
        assert!(
            calls[..bound]
                .iter()
                .any(|call| call.contains(&format!(", 0{mode:o}) = 0"))),
            "{calls:?}"
        );
        for call in calls.iter().filter(|call| call.contains("chmod")) {
            assert!(call.contains(&format!("0{mode:o}")), "{calls:?}");
        }
        assert_eq!(sandbox.mode("s"), mode);
    }
}

#[test]
fn a_file_is_accessible_to_its_creator_only_until_its_owner_is_set() {
    peer!("strace");
    root!();
    let sandbox = Sandbox::new();
    let calls = calls(&sandbox, "0", "--mode 0666 --owner 1:1");
    let place = |what: &str| calls.iter().position(|call| call.contains(what)).unwrap();
    assert!(place("0600) = 0") < place("bind("), "{calls:?}");
    assert!(place("bind(") < place("chown"), "{calls:?}");
    assert!(place("chown") < place("0666) = 0"), "{calls:?}");
    assert_eq!(sandbox.mode("s"), 0o666);
}

#[test]
fn a_free_name_is_bound_without_a_lock_and_a_stale_file_is_replaced_under_a_lock() {
    peer!("strace");
    let sandbox = Sandbox::new();
    assert!(
        !calls(&sandbox, "0", "")
            .iter()
            .any(|call| call.starts_with("flock("))
    );
    // `calls` killed that listener, so its socket file is stale.
    let calls = calls(&sandbox, "0", "");
    let binds = |bound: &str| {
        let found = |call: &String| call.starts_with("bind(") && call.ends_with(bound);
        calls.iter().position(found).unwrap()
    };
    let lock = calls
        .iter()
        .position(|call| call.starts_with("flock("))
        .unwrap();
    assert!(
        binds("(Address already in use)") < lock && lock < binds("= 0"),
        "{calls:?}"
    );
}

#[test]
fn a_symbolic_link_is_never_followed_nor_replaced() {
    let sandbox = Sandbox::new();
    sandbox.stale("stale");
    let _live = sandbox.bind("live");
    let file = sandbox.file("file", "precious");
    for target in ["stale", "live", "file", "nothing"] {
        std::os::unix::fs::symlink(target, sandbox.path("link")).unwrap();
        sandbox
            .udgram(["iter", "-t0", "link", "--replace"])
            .run()
            .refuses(1, &["link", "symbolic link"]);
        fs::remove_file(sandbox.path("link")).unwrap();
    }
    assert_eq!(fs::read(file).unwrap(), b"precious");
    assert!(sandbox.exists("stale") && sandbox.exists("live") && !sandbox.exists("nothing"));
}

#[test]
fn of_two_listeners_started_at_once_on_one_path_one_binds_it_and_the_other_fails() {
    for round in 0..scaled(30, 500) {
        let sandbox = Sandbox::new();
        if round % 2 == 0 {
            sandbox.stale("s");
        }
        let start = || sandbox.udgram(["listen", "s", "--count", "1"]).start();
        let both = [start(), start()];
        // The one that cannot bind ends; the other one waits for a packet.
        let mut ended =
            [0, 1].map(|one: usize| PollFd::new(both[one].ended.as_fd(), PollFlags::POLLIN));
        let limit = PollTimeout::try_from(LIMIT).unwrap();
        assert!(poll(&mut ended, limit).unwrap() > 0, "both are bound");
        sandbox
            .udgram(["send", "s", "1", "--wait", "--timeout", "100s"])
            .run()
            .succeeds("");
        let mut outcomes = both.map(Running::finish);
        outcomes.sort_by_key(Outcome::code);
        let [won, lost] = outcomes;
        won.ends(0, "1\n").says_nothing();
        lost.refuses(1, &["cannot bind 's'", "in use"]);
        assert!(!sandbox.exists("s"), "round {round}");
    }
}

#[test]
fn a_listener_that_ends_removes_only_its_own_file() {
    for _ in 0..scaled(10, 200) {
        let sandbox = Sandbox::new();
        let first = sandbox.listen(["s"]);
        let second = sandbox.listen(["s", "--replace"]);
        first.signal(Signal::SIGTERM);
        let third = sandbox.udgram(["listen", "s", "--replace"]).start_ready();
        second.signal(Signal::SIGTERM);
        let _ = (first.finish(), second.finish());
        assert!(sandbox.exists("s"));
        sandbox.udgram(["send", "s", "1"]).run().succeeds("");
        third.signal(Signal::SIGTERM);
        let _ = third.finish().dies_of(Signal::SIGTERM, "1\n");
        assert!(!sandbox.exists("s"));
    }
}

#[test]
fn a_file_that_replaces_the_socket_file_before_stat_is_not_removed() {
    peer!("strace");
    root!();
    let sandbox = Sandbox::new();
    // strace delays the return of bind(2): the file exists, and udgram has not called stat(2) yet.
    let script = "exec strace -o trace -e inject=bind:delay_exit=300000 udgram listen s";
    let listen = sandbox.shell(script).start();
    listen.wait_bound("s");
    fs::remove_file(sandbox.path("s")).unwrap();
    let successor = sandbox.bind("s");
    kill(traced(&listen), Signal::SIGTERM).unwrap();
    let _ = listen.finish().dies_of(Signal::SIGTERM, "");
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    assert_eq!(successor.take(), b"1");
}

#[test]
fn a_file_that_replaces_the_socket_file_before_stat_is_an_error_for_an_unprivileged_user() {
    peer!("strace", "setpriv");
    root!();
    let sandbox = Sandbox::new();
    // Without CAP_NET_ADMIN, SIOCUNIXFILE fails with EPERM.
    let user = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    let script = format!(
        "chmod 777 . && cp \"$(command -v udgram)\" u && \
         exec strace -o trace -e inject=bind:delay_exit=300000 {user} ./u listen -m 666 s"
    );
    let listen = sandbox.shell(&script).start();
    listen.wait_bound("s");
    fs::remove_file(sandbox.path("s")).unwrap();
    let successor = sandbox.bind("s");
    let mode = sandbox.mode("s");
    listen.finish().fails(
        1,
        "udgram: cannot bind 's': another program replaced the socket file at once",
    );
    assert_eq!(sandbox.mode("s"), mode);
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    assert_eq!(successor.take(), b"1");
}

#[test]
fn packets_are_accepted_by_the_senders_user_id_in_the_kernel() {
    root!();
    let sandbox = Sandbox::new();
    let mut listen = sandbox.listen([
        "s",
        "--mode",
        "0666",
        "--allow-uid",
        "1",
        "--allow-uid",
        "root",
    ]);
    for (user, packet) in [(0, "0"), (1, "1"), (2, "2"), (1, "3"), (2, "4"), (2, "5")] {
        sandbox
            .udgram_as(user, ["send", "s", packet])
            .run()
            .succeeds("");
    }
    // A process that may claim the credentials of another user counts as that user.
    sandbox
        .udgram(["send", "s", "6", "--creds=1:2:2"])
        .run()
        .succeeds("");
    sandbox.udgram(["send", "s", "7"]).run().succeeds("");
    for packet in ["0", "1", "3", "7"] {
        assert_eq!(listen.line(), packet);
    }
    listen.signal(Signal::SIGTERM);
    let outcome = listen.finish().dies_of(Signal::SIGTERM, "0\n1\n3\n7\n");
    let said = outcome.diagnostics();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].contains("user 2") && said[0].contains("--allow-uid"),
        "{said:?}"
    );
    assert!(said[1].contains("4 packets"), "{said:?}");
}

#[test]
fn packets_of_other_users_do_not_count_do_not_extend_the_timeout_and_are_not_answered() {
    root!();
    let sandbox = Sandbox::new();
    let user = ["--allow-uid", "1"];
    let echo = sandbox.udgram(["listen", "e", "--mode", "0666", "--echo", "--count", "1"]);
    let echo = echo.args(user).start_ready();
    sandbox
        .udgram(["send", "e", "1", "--reply", "--timeout", "100ms"])
        .run()
        .refuses(124, &["no reply"]);
    let answered = ["send", "e", "2", "--reply", "--timeout", "100s"];
    sandbox.udgram_as(1, answered).run().succeeds("2\n");
    let _ = echo.finish().ends(0, "2\n");
    let exec = sandbox.udgram([
        "listen",
        "x",
        "--exec",
        "touch handled",
        "--timeout",
        "200ms",
    ]);
    let exec = exec.args(user).start_ready();
    let stranger = UnixDatagram::unbound().unwrap();
    // Packets of other users do not extend the timeout.
    while stranger.send_to(b"3", sandbox.path("x")).is_ok() {}
    let _ = exec.finish().ends(0, "");
    assert!(!sandbox.exists("handled"));
}

#[test]
fn descriptors_from_other_users_are_closed() {
    root!();
    let sandbox = Sandbox::new();
    let listen = sandbox.listen(["s", "--envelope", "--allow-uid", "1"]);
    let before = listen.open_descriptors();
    let stranger = UnixDatagram::unbound().unwrap();
    for _ in 0..100 {
        let (reader, writer) = crate::harness::pipe();
        let held = [writer.as_fd(); 3];
        sys::send_descriptors(&stranger, &sandbox.path("s"), b"1", &held);
        drop(writer);
        // The read ends when no process has the write end open.
        assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    }
    assert!(listen.open_descriptors() <= before);
}

#[test]
fn a_packet_queued_before_so_passcred_was_set_is_dropped() {
    let sandbox = Sandbox::new();
    let (sender, receiver) = UnixDatagram::pair().unwrap();
    sender.send(b"1").unwrap();
    sandbox
        .udgram(["listen", "--socket-fd", "3", "--timeout", "0"])
        .args(["--allow-uid", "65534"])
        .descriptor(receiver, 3)
        .run()
        .ends(0, "")
        .mentions(&[
            "a packet of an unnamed socket was dropped",
            "queued before SO_PASSCRED was on",
            "PassCredentials=yes",
        ]);
}

#[test]
fn packets_of_users_not_mapped_in_the_user_namespace_are_dropped() {
    peer!("unshare");
    root!();
    let sandbox = Sandbox::new();
    for (namespace, heard) in [("-U --map-user=0 --map-group=0", false), ("-m", true)] {
        let script = format!("exec unshare {namespace} udgram listen s -m 666 --allow-uid 65534");
        let listen = sandbox.shell(&script).start_ready();
        for user in [1, 65534] {
            sandbox
                .udgram_as(user, ["send", "s", &user.to_string()])
                .run()
                .succeeds("");
        }
        listen.signal(Signal::SIGTERM);
        let outcome = listen.finish();
        let lines = outcome.diagnostics();
        if heard {
            let outcome = outcome.dies_of(Signal::SIGTERM, "65534\n");
            outcome.mentions(&["user 1 ", "whom --allow-uid does not name"]);
        } else {
            let _ = outcome.dies_of(Signal::SIGTERM, "");
            assert_eq!(lines.len(), 2, "{lines:?}");
            assert!(
                lines[0].ends_with("its user has no number in this user namespace"),
                "{lines:?}"
            );
        }
    }
}

#[test]
fn a_user_that_does_not_exist_is_a_usage_error() {
    let sandbox = Sandbox::new();
    for user in ["no such user", "4294967295", "-2", ""] {
        let option = format!("--allow-uid={user}");
        sandbox
            .udgram(["listen", "s", &option])
            .run()
            .refuses(2, &["--allow-uid"]);
    }
    assert!(!sandbox.exists("s"));
}

#[test]
fn the_next_listener_binds_the_name_of_a_killed_one() {
    for round in 0..scaled(20, 300) {
        let sandbox = Sandbox::new();
        let dies = sandbox.udgram(["listen", "s"]).start();
        // The moments are before, during and after bind(2), 1 or 2 ms after the start.
        let spin = std::time::Instant::now();
        while spin.elapsed() < std::time::Duration::from_micros(round * 97 % 6000) {
            std::hint::spin_loop();
        }
        dies.signal(Signal::SIGKILL);
        let _ = dies.finish();
        let mut next = sandbox.listen(["s", "--count", "1"]);
        sandbox.udgram(["send", "s", "1"]).run().succeeds("");
        assert_eq!(next.line(), "1");
        let _ = next.finish().ends(0, "1\n");
        assert!(!sandbox.exists("s"));
    }
}
