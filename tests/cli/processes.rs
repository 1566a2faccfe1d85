//! Processes: udgram as PID 1, its children, the signals and descriptors that it inherits and passes on.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::poll::{PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;

use crate::harness::{Invocation, Peer, Sandbox, close, peer, root};
use crate::outcome::{SIGNALS, ordinary_signals};
use crate::running::{Running, Watch, children};
use crate::sys::{self, send_descriptors};

/// udgram as PID 1 of a PID namespace of its own. unshare(1), its parent, ends with its status.
fn as_init(sandbox: &Sandbox, args: &[&str]) -> Invocation {
    sandbox
        .command("unshare", ["-pf", "--mount-proc", "--kill-child", "udgram"])
        .args(args)
}

/// Sends a signal to the udgram that unshare(1) has started.
#[track_caller]
fn signal_init(unshare: &Running, signal: Signal) {
    let [init] = children(unshare.pid())[..] else {
        panic!("not one child\n{}", unshare.context());
    };
    sys::signal(init, signal as i32);
}

/// Fails while there are zombies, and prints `clean` as soon as there are none.
const WAIT_FOR_ZOMBIES: &str =
    "while grep -qs '^State:.Z' /proc/[0-9]*/status; do :; done; echo clean";

#[test]
fn as_process_1_every_command_ends_on_a_signal() {
    root!();
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("peer");
    let full = sandbox.bind("full");
    sandbox.fill("full");
    // Each is ready when its socket is bound, or when it has said what its address is.
    for (args, bound) in [
        (&["listen", "s"][..], true),
        (&["recv", "s"], true),
        (&["recv", "s", "--", "true"], true),
        (&["iter", "-t", "none", "s"], true),
        (&["exec", "-b", "s", "--", "sleep", "1000"], true),
        (&["send", "-v", "--reply", "peer", "1"], false),
        (&["send", "-v", "--wait", "--to", "nobody", "1"], false),
        (&["send", "-v", "peer"], false),
        (&["send", "-v", "full", "1"], false),
    ] {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let running = as_init(&sandbox, args).stdin_open().start();
            if bound {
                running.wait_bound("s");
            } else {
                running.wait_stderr("local address");
            }
            signal_init(&running, signal);
            let _ = running.finish().ends(128 + signal as i32, "");
            assert!(!sandbox.exists("s"), "{args:?}");
        }
    }
    drop((peer, full));
}

#[test]
fn as_process_1_sockopt_ends_by_a_signal_while_nobody_reads_its_stdout() {
    root!();
    let sandbox = Sandbox::new();
    let (reader, mut writer) = crate::harness::pipe();
    let room = fcntl(&writer, FcntlArg::F_GETPIPE_SZ).unwrap();
    writer
        .write_all(&vec![0; usize::try_from(room).unwrap()])
        .unwrap();
    let running = as_init(&sandbox, &["sockopt", "-b", "s"])
        .stdout_to(writer)
        .start();
    running.wait_bound("s");
    signal_init(&running, Signal::SIGTERM);
    running
        .finish()
        .ends(128 + libc::SIGTERM, "")
        .says_nothing();
    assert!(!sandbox.exists("s"));
    close(reader);
}

#[test]
fn as_process_1_orphans_are_reaped() {
    root!();
    let sandbox = Sandbox::new();
    let orphan = "sh -c 'true & exit 0'";
    let script = format!("{orphan}; {orphan}; {WAIT_FOR_ZOMBIES}");
    as_init(&sandbox, &["exec", "-b", "", "--", "sh", "-c", &script])
        .run()
        .succeeds("clean\n");
    let handler = format!("{orphan} >&-; {orphan} >&-; {WAIT_FOR_ZOMBIES}");
    let listen = as_init(
        &sandbox,
        &["listen", "-q", "-p", "text", "--exec", &handler, "s"],
    )
    .start();
    listen.wait_bound("s");
    for _ in 0..2 {
        sandbox
            .udgram(["send", "-p", "text", "--reply", "s", "1"])
            .run()
            .succeeds("clean\n");
    }
    signal_init(&listen, Signal::SIGTERM);
    let _ = listen.finish().ends(128 + libc::SIGTERM, "1\n1\n");
}

#[test]
fn as_process_1_orphans_are_reaped_while_it_waits_too() {
    root!();
    let sandbox = Sandbox::new();
    let listen = as_init(&sandbox, &["listen", "s"]).start();
    listen.wait_bound("s");
    let init = children(listen.pid())[0].to_string();
    // What `docker exec` does: a process enters, and leaves another one behind.
    let script = format!("sh -c 'true & exit 0'; {WAIT_FOR_ZOMBIES}");
    sandbox
        .command("nsenter", ["-t", &init, "-p", "-m", "sh", "-c", &script])
        .run()
        .succeeds("clean\n");
    signal_init(&listen, Signal::SIGTERM);
    let _ = listen.finish().ends(128 + libc::SIGTERM, "");
}

#[test]
fn two_signals_that_come_together_count_as_two() {
    let sandbox = Sandbox::new();
    nix::unistd::mkfifo(&sandbox.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let listen = sandbox
        .udgram([
            "listen",
            "-p",
            "text",
            "s",
            "--exec",
            ": >runs; exec cat fifo",
        ])
        .start_ready();
    let watch = Watch::on(sandbox.dir());
    sandbox
        .udgram(["send", "-p", "text", "s", "1"])
        .run()
        .succeeds("");
    let _ = watch.created(&listen, |name| name == "runs");
    // One lets the handler finish, which it never does; two end it.
    listen.signal(Signal::SIGSTOP);
    listen.signal(Signal::SIGTERM);
    listen.signal(Signal::SIGINT);
    listen.signal(Signal::SIGCONT);
    let outcome = listen.finish();
    assert_eq!(outcome.stdout(), b"1\n");
    assert!(outcome.status.signal().is_some());
    assert!(!sandbox.exists("s"));
}

#[test]
fn a_signal_that_was_ignored_stays_ignored_without_proc() {
    root!();
    let sandbox = Sandbox::new();
    let script = "mount -t tmpfs none /proc; trap '' HUP; exec udgram recv s";
    let running = sandbox
        .command("unshare", ["-m", "sh", "-c", script])
        .start();
    running.wait_bound("s");
    running.signal(Signal::SIGHUP);
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    running.finish().succeeds("1\n");
}

/// Runs `command` with these signals ignored, and SIGUSR2 blocked.
fn with_ignored(sandbox: &Sandbox, ignored: &[&str], command: &[&str]) -> Invocation {
    let ignored = ignored.join(",");
    sandbox
        .python(
            "import os, signal, sys\n\
             ignored = [signal.Signals[name] for name in sys.argv[1].split(',') if name]\n\
             for number in ['SIGPIPE', 'SIGXFSZ', 'SIGCHLD', 'SIGINT', 'SIGQUIT', 'SIGHUP']:\n\
             \x20   number = signal.Signals[number]\n\
             \x20   signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)\n\
             signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])\n\
             os.execvp(sys.argv[2], sys.argv[2:])",
        )
        .arg(ignored)
        .args(command)
}

#[test]
fn commands_find_the_signals_ignored_and_blocked_as_udgram_found_them() {
    peer!("python3");
    let sandbox = Sandbox::new();
    for ignored in [
        &[][..],
        &[
            "SIGPIPE", "SIGXFSZ", "SIGCHLD", "SIGINT", "SIGQUIT", "SIGHUP",
        ],
    ] {
        let direct = with_ignored(&sandbox, ignored, &SIGNALS).run().lines();
        let direct = ordinary_signals(&direct);
        let exec = [&["udgram", "exec", "-b", "", "--"][..], &SIGNALS].concat();
        let exec = with_ignored(&sandbox, ignored, &exec).run().lines();
        assert_eq!(ordinary_signals(&exec), direct, "exec, {ignored:?}");

        let recv = [&["udgram", "recv", "s", "--"][..], &SIGNALS].concat();
        let recv = with_ignored(&sandbox, ignored, &recv).start();
        recv.wait_bound("s");
        sandbox.udgram(["send", "s", "1"]).run().succeeds("");
        assert_eq!(
            ordinary_signals(&recv.finish().lines()),
            direct,
            "recv, {ignored:?}"
        );

        // sh(1) may change them.
        let handler = SIGNALS.map(|word| format!("'{word}'")).join(" ");
        let direct = with_ignored(&sandbox, ignored, &["sh", "-c", &handler]);
        let direct = ordinary_signals(&direct.run().lines());
        let listen = [
            "udgram", "listen", "-q", "-n1", "-p", "text", "--stats", "--exec", &handler, "s",
        ];
        let listen = with_ignored(&sandbox, ignored, &listen).start();
        listen.wait_bound("s");
        let reply = sandbox
            .udgram(["send", "-p", "text", "--reply", "s", "1"])
            .run()
            .lines();
        assert_eq!(ordinary_signals(&reply), direct, "listen, {ignored:?}");
        let _ = listen.finish().ends(0, "1\n");
    }
}

#[test]
fn a_descriptor_that_was_not_open_at_the_start_is_a_usage_error() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    // Those of udgram itself are among them.
    for number in 3..10 {
        let message = format!("cannot use descriptor {number}: it is not open");
        let refuses = |arguments: &str| {
            // What the test inherited, and udgram with it, is closed.
            sandbox
                .shell(&format!("exec udgram {arguments} {number}<&-"))
                .run()
                .refuses(2, &[&message]);
        };
        refuses(&format!("send --fd {number} s 1"));
        refuses(&format!("send -e s '{{\"packet\":1,\"fds\":[{number}]}}'"));
        refuses(&format!("sockopt -s {number}"));
        refuses(&format!("exec -s {number} -- true"));
        sandbox
            .shell(&format!("exec udgram recv {number}<&-"))
            .env("UDGRAM_SOCKET_FD", number.to_string())
            .run()
            .refuses(2, &[&message]);
    }
    peer.has_nothing_more();
}

#[test]
fn a_standard_descriptor_that_was_closed_at_the_start_is_a_usage_error() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    for (number, redirection) in [(0, "<&-"), (1, ">&-")] {
        let script = format!("exec udgram send --fd {number} s 1 {redirection}");
        sandbox.shell(&script).run().refuses(
            2,
            &[&format!("cannot use descriptor {number}: it is not open")],
        );
    }
    sandbox
        .shell("exec udgram send --fd 2 s 1 2>&-")
        .run()
        .ends(2, "")
        .says_nothing();
    peer.has_nothing_more();
}

#[test]
fn a_command_that_is_not_found_takes_no_packet() {
    let sandbox = Sandbox::new();
    let socket = sandbox.bind("s");
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    sandbox
        .udgram(["recv", "-s3", "--", "no-such-command-anywhere"])
        .descriptor(&socket, 3)
        .run()
        .fails(
            127,
            "udgram: cannot run 'no-such-command-anywhere': No such file or directory",
        );
    assert_eq!(socket.take(), b"1");
}

#[test]
fn a_command_is_looked_for_in_the_path_as_by_a_shell() {
    let sandbox = Sandbox::new();
    sandbox.directory("one/name");
    sandbox.directory("two");
    sandbox.file("two/name", "");
    let run = |path: &str, name: &str| {
        sandbox
            .udgram(["exec", "-b", "", "--", name])
            .env("PATH", path)
            .run()
    };
    // What is there and cannot be run is the reason, unless another one can.
    run("none:one:two", "name").fails(126, "udgram: cannot run 'name': Permission denied");
    script(&sandbox, "two/name", "/bin/sh\necho found \"$0\"");
    script(&sandbox, "here", "/bin/sh\necho \"$0\"");
    run("none:one:two", "name").succeeds("found two/name\n");
    // An empty entry is the current directory.
    run("none::two", "here").succeeds("here\n");
    run("none", "name").fails(127, "udgram: cannot run 'name': No such file or directory");
}

/// Makes an executable script with this content behind `#!`.
#[track_caller]
fn script(sandbox: &Sandbox, name: &str, content: &str) {
    // Written by this process, it could be open for writing in a child that another test has just
    // forked, and could not be run.
    sandbox
        .shell("printf '#!%s\\n' \"$CONTENT\" >$NAME; chmod +x $NAME")
        .env("CONTENT", content)
        .env("NAME", name)
        .run()
        .succeeds("");
}

/// Returns the number of bytes written to a file.
#[track_caller]
fn size(file: OwnedFd) -> u64 {
    File::from(file).metadata().unwrap().len()
}

#[test]
fn the_message_about_a_command_does_not_go_into_a_received_descriptor() {
    let sandbox = Sandbox::new();
    // It is found, and execve(2) refuses it.
    script(&sandbox, "cmd", "/no/such/interpreter");
    for numbers in [
        &["--fd", "2"][..],
        &["--fd", "2", "--fd", "49", "--fd", "50"],
    ] {
        let file = memfd_create(c"received", MFdFlags::empty()).unwrap();
        let running = sandbox
            .udgram(["recv", "s"])
            .args(numbers)
            .args(["--", "./cmd"])
            .start();
        running.wait_bound("s");
        let sender = UnixDatagram::unbound().unwrap();
        let descriptors = vec![file.as_fd(); numbers.len() / 2];
        send_descriptors(&sender, &sandbox.path("s"), b"1", &descriptors);
        running
            .finish()
            .fails(127, "udgram: cannot run './cmd': No such file or directory");
        assert_eq!(size(file), 0);
    }
}

#[test]
fn a_limit_on_the_size_of_files_ends_it_as_an_error_does() {
    let sandbox = Sandbox::new();
    let listen = sandbox
        .shell("ulimit -f 1; exec udgram listen -p text s >out")
        .start();
    listen.wait_bound("s");
    let packet = "x".repeat(2000);
    sandbox
        .udgram(["send", "-p", "text", "s", &packet])
        .run()
        .succeeds("");
    listen
        .finish()
        .fails(1, "udgram: cannot write to stdout: File too large");
    assert!(!sandbox.exists("s"));
    let mut written = String::new();
    let mut out = File::open(sandbox.path("out")).unwrap();
    out.read_to_string(&mut written).unwrap();
    assert!(written.starts_with("xxx"));
}

#[test]
fn ctrl_c_erases_the_progress_line() {
    peer!("script");
    let sandbox = Sandbox::new();
    let receiver = sandbox.bind("s");
    sandbox.file("packets", "12345\n".repeat(1000));
    let mut running = sandbox
        .command("script", ["-qec", "udgram send s <packets", "/dev/null"])
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .stdin_open()
        .start();
    let start = Instant::now();
    let _ = receiver.take();
    // Progress is shown only if the transfer takes some time.
    while start.elapsed() < Duration::from_secs(1) {
        poll(&mut [], PollTimeout::from(50u16)).unwrap();
    }
    for _ in 0..500 {
        let _ = receiver.take();
    }
    let _ = running.text("100 packets");
    // As from the keyboard.
    running.write("\x03");
    let outcome = running.finish();
    let shown = String::from_utf8_lossy(outcome.stdout()).into_owned();
    assert!(shown.contains(" packets, "), "{shown:?}");
    assert!(shown.ends_with("   \r"), "{shown:?}");
    assert_eq!(outcome.code(), Some(128 + libc::SIGINT), "{shown:?}");
}
