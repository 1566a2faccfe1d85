//! The socket file: whose it is, who may use it, and that it goes away.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use nix::libc;
use nix::sys::signal::Signal;

use crate::harness::{Peer, Sandbox, peer, root, text};
use crate::running::{Running, Watch};

/// Starts `recv` and waits until it is bound to `s`.
#[track_caller]
fn receiver(sandbox: &Sandbox, options: &[&str]) -> Running {
    let running = sandbox.udgram(["recv"]).args(options).arg("s").start();
    running.wait_bound("s");
    running
}

#[test]
fn the_socket_file_is_for_its_owner_only() {
    let sandbox = Sandbox::new();
    let running = sandbox.listen(["-n", "1", "s"]);
    assert_eq!(sandbox.mode("s"), 0o600);
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    running.finish().succeeds("1\n");
}

#[test]
fn the_mode_is_the_one_asked_for_whatever_the_umask() {
    let sandbox = Sandbox::new();
    for (umask, option, mode) in [
        ("000", "", 0o600),
        ("077", "--mode 0666", 0o666),
        ("777", "-m 640", 0o640),
        ("022", "--mode=0", 0),
    ] {
        let script = format!("umask {umask}; exec udgram listen {option} s");
        let running = sandbox.shell(&script).start_ready();
        assert_eq!(sandbox.mode("s"), mode, "{script}");
        running.signal(Signal::SIGTERM);
        running.finish().dies_of(Signal::SIGTERM, "").says_nothing();
    }
}

#[test]
fn the_umask_of_a_command_run_by_udgram_is_left_alone() {
    let sandbox = Sandbox::new();
    let running = sandbox
        .shell("umask 027; exec udgram recv s -- sh -c umask")
        .start();
    running.wait_bound("s");
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    running.finish().succeeds("0027\n");
}

#[test]
fn a_mode_that_is_not_octal_permission_bits_is_a_usage_error() {
    let sandbox = Sandbox::new();
    for mode in ["888", "", "u=rw", "0x1ff", "-1", "77777"] {
        let option = format!("--mode={mode}");
        sandbox
            .udgram(["recv", &option, "s"])
            .run()
            .refuses(2, &["--mode"]);
    }
    assert!(!sandbox.exists("s"));
}

#[test]
fn there_is_no_moment_at_which_the_file_is_more_open_than_asked() {
    peer!("strace");
    let sandbox = Sandbox::new();
    // Every bind(2) is followed by a pause, during which the file can be looked at.
    let watch = Watch::on(sandbox.dir());
    let running = sandbox
        .shell(
            "umask 0; exec strace -f -qqq -o trace -e trace=bind \
             -e inject=bind:delay_exit=300000 udgram recv s",
        )
        .start();
    let name = watch.created(&running, |name| name != "trace");
    let mode = sandbox.mode(name.to_str().unwrap());
    assert_eq!(mode & !0o600, 0, "the file is born with mode {mode:o}");
    running.wait_bound("s");
    assert_eq!(sandbox.mode("s"), 0o600);
}

#[test]
fn the_owner_is_the_one_asked_for() {
    root!();
    let sandbox = Sandbox::new();
    for (option, uid, gid) in [("65534", 65534, 0), ("1234:5678", 1234, 5678)] {
        let running = sandbox.listen(["--owner", option, "s"]);
        let file = fs::symlink_metadata(sandbox.path("s")).unwrap();
        assert_eq!((file.uid(), file.gid()), (uid, gid));
        running.signal(Signal::SIGTERM);
        running.finish().dies_of(Signal::SIGTERM, "").says_nothing();
    }
}

#[test]
fn an_owner_that_is_not_made_of_numbers_is_a_usage_error() {
    let sandbox = Sandbox::new();
    for owner in ["", ":", "nobody!", "1:2:3", "-1", "99999999999"] {
        let option = format!("--owner={owner}");
        sandbox
            .udgram(["recv", &option, "s"])
            .run()
            .refuses(2, &["--owner"]);
    }
}

#[test]
fn an_owner_that_may_not_be_given_leaves_no_file() {
    root!();
    let sandbox = Sandbox::new();
    std::os::unix::fs::chown(sandbox.dir(), Some(65534), Some(65534)).unwrap();
    sandbox
        .udgram_as(65534, ["recv", "--owner", "0", "s"])
        .run()
        .refuses(1, &["'s'", "Operation not permitted"]);
    assert_eq!(fs::read_dir(sandbox.dir()).unwrap().count(), 0);
}

#[test]
fn a_missing_directory_is_named() {
    let sandbox = Sandbox::new();
    sandbox
        .udgram(["recv", "no/s"])
        .run()
        .refuses(1, &["'no/s'", "No such file or directory"]);
}

#[test]
fn a_path_that_can_only_be_a_directory_is_refused_as_one() {
    let sandbox = Sandbox::new();
    for name in ["s/", "s/.", ".", "..", "/"] {
        sandbox
            .udgram(["recv", name])
            .run()
            .fails(1, format!("udgram: cannot bind '{name}': Is a directory"));
    }
    assert!(!sandbox.exists("s"));
}

#[test]
fn paths_and_names_about_as_long_as_the_kernel_takes_are_bound_and_removed() {
    let sandbox = Sandbox::new();
    let directory = sandbox.dir().join("d".repeat(80));
    fs::create_dir(&directory).unwrap();
    let rest = |len: usize| "n".repeat(len - text(&directory).len() - 1);
    // A file name of more than 82 bytes in a path of more than 107 needs a second link.
    for (name, files) in [
        (rest(106), 1),
        (rest(107), 1),
        (rest(108), 1),
        (rest(109), 1),
        ("n".repeat(81), 1),
        ("n".repeat(82), 1),
        ("n".repeat(83), 2),
        ("n".repeat(255), 2),
    ] {
        let path = directory.join(&name);
        let listen = sandbox.listen(["-n", "1", text(&path)]);
        let there = fs::read_dir(&directory).unwrap().count();
        assert_eq!(there, files, "{name}");
        sandbox
            .udgram(["send", text(&path), "1"])
            .run()
            .succeeds("");
        listen.finish().succeeds("1\n");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn a_working_directory_that_was_removed_is_missing() {
    let sandbox = Sandbox::new();
    let long = "n".repeat(120);
    for name in ["s", &long] {
        sandbox.directory("gone");
        sandbox
            .shell(&format!("cd gone; rmdir ../gone; exec udgram recv {name}"))
            .run()
            .fails(
                1,
                format!("udgram: cannot bind '{name}': No such file or directory"),
            );
    }
}

#[test]
fn a_bound_socket_that_cannot_be_used_for_want_of_descriptors_leaves_no_file() {
    let sandbox = Sandbox::new();
    let mut refused = 0;
    for limit in 4..=16 {
        let outcome = sandbox
            .udgram(["recv", "-t", "0", "s"])
            .descriptor_limit(limit)
            .run();
        if outcome.code() == Some(124) {
            outcome.fails(
                124,
                "udgram: cannot receive on 's': no packet came within 0s",
            );
        } else {
            refused += 1;
            outcome.refuses(1, &["udgram: cannot ", ": Too many open files"]);
        }
        assert_eq!(fs::read_dir(sandbox.dir()).unwrap().count(), 0, "{limit}");
    }
    assert!((1..13).contains(&refused), "{refused}");
}

#[test]
fn a_directory_that_may_not_be_read_takes_a_socket_file() {
    root!();
    let sandbox = Sandbox::new();
    let directory = sandbox.directory("d");
    std::os::unix::fs::chown(&directory, Some(65534), Some(65534)).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o300)).unwrap();
    sandbox
        .udgram_as(65534, ["recv", "-t", "0", "d/s"])
        .run()
        .fails(
            124,
            "udgram: cannot receive on 'd/s': no packet came within 0s",
        );
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}

#[test]
fn a_directory_without_permission_is_named() {
    root!();
    let sandbox = Sandbox::new();
    sandbox
        .udgram_as(65534, ["recv", "s"])
        .run()
        .refuses(1, &["'s'", "Permission denied"]);
}

#[test]
fn the_socket_file_is_gone_after_success_after_a_timeout_and_after_an_error() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &[]);
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    running.finish().succeeds("1\n");
    assert!(!sandbox.exists("s"), "after success");

    sandbox
        .udgram(["recv", "--timeout", "10ms", "s"])
        .run()
        .refuses(124, &[]);
    assert!(!sandbox.exists("s"), "after a timeout");

    let running = receiver(&sandbox, &[]);
    sandbox
        .udgram(["send", "-p", "text", "s", "x"])
        .run()
        .succeeds("");
    running.finish().refuses(3, &[]);
    assert!(!sandbox.exists("s"), "after a parse error");

    sandbox
        .udgram(["send", "--bind", "s", "missing", "1"])
        .run()
        .refuses(4, &["'missing'"]);
    assert!(!sandbox.exists("s"), "after a send error");
    assert_eq!(fs::read_dir(sandbox.dir()).unwrap().count(), 0);
}

#[test]
fn the_socket_file_is_gone_after_a_signal_and_the_signal_ends_the_program() {
    let sandbox = Sandbox::new();
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGPIPE,
    ] {
        let running = receiver(&sandbox, &[]);
        running.signal(signal);
        running.finish().dies_of(signal, "").says_nothing();
        assert!(!sandbox.exists("s"), "after {signal}");
    }
}

#[test]
fn a_sender_waiting_for_a_reply_removes_its_socket_file_on_a_signal() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("peer");
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let running = sandbox
            .udgram(["send", "--reply", "--bind", "me", "peer", "1"])
            .start();
        assert_eq!(peer.take(), b"1");
        assert!(sandbox.exists("me"));
        running.signal(signal);
        running.finish().dies_of(signal, "").says_nothing();
        assert!(!sandbox.exists("me"), "after {signal}");
    }
}

#[test]
fn a_sender_held_up_by_a_full_queue_removes_its_socket_file_on_a_signal() {
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("peer");
    sandbox.fill("peer");
    let running = sandbox
        .udgram(["send", "--bind", "me", "peer", "1"])
        .start();
    running.wait_until("me", || sandbox.exists("me"));
    running.signal(Signal::SIGTERM);
    running.finish().dies_of(Signal::SIGTERM, "").says_nothing();
    assert!(!sandbox.exists("me"));
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let sandbox = Sandbox::new();
    let running = sandbox.shell("trap '' HUP; exec udgram recv s").start();
    running.wait_bound("s");
    running.signal(Signal::SIGHUP);
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    running.finish().succeeds("1\n");
}

#[test]
fn the_file_of_a_successor_is_left_alone() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &[]);
    fs::remove_file(sandbox.path("s")).unwrap();
    let successor = sandbox.bind("s");
    let touched = || {
        let file = fs::metadata(sandbox.path("s")).unwrap();
        (file.ctime(), file.ctime_nsec())
    };
    let before = touched();
    running.signal(Signal::SIGTERM);
    running.finish().dies_of(Signal::SIGTERM, "").says_nothing();
    // Renaming it would change its time.
    assert_eq!(touched(), before);
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    assert_eq!(successor.take(), b"1");
}

#[test]
fn a_socket_file_removed_by_others_is_not_an_error() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &[]);
    fs::remove_file(sandbox.path("s")).unwrap();
    running.signal(Signal::SIGINT);
    running.finish().dies_of(Signal::SIGINT, "").says_nothing();
}

#[test]
fn the_local_address_of_send_is_bound_and_removed_like_any_other() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("peer");
    sandbox.stale("me");
    let running = sandbox
        .udgram(["send", "--reply", "-b", "me", "-m", "0666", "peer", "1"])
        .start();
    let (_, from) = peer.take_from();
    assert_eq!(from.as_pathname(), Some(sandbox.path("me").as_path()));
    assert_eq!(sandbox.mode("me"), 0o666);
    peer.send_to(b"2", sandbox.path("me")).unwrap();
    running.finish().succeeds("2\n");
    assert!(!sandbox.exists("me"));
}

#[test]
fn a_file_that_takes_the_name_while_udgram_ends_is_left_alone() {
    peer!("strace");
    let sandbox = Sandbox::new();
    let delay = "inject=renameat2,unlinkat:delay_enter=500000";
    let script = format!("exec strace -o trace -e {delay} udgram recv -t 0 s");
    let receiver = sandbox.shell(&script).start();
    // It has looked at its file, and is about to remove it.
    receiver.wait_child_in(&[libc::SYS_renameat2, libc::SYS_unlinkat]);
    fs::remove_file(sandbox.path("s")).unwrap();
    let successor = sandbox.bind("s");
    receiver.finish().refuses(124, &["no packet"]);
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    assert_eq!(successor.take(), b"1");
    // The socket file and the trace of strace.
    assert_eq!(fs::read_dir(sandbox.dir()).unwrap().count(), 2);
}
