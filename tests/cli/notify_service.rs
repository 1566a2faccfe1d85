//! `udgram exec --notify`: a service manager for one service.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::harness::{
    Invocation, Peer, Sandbox, at, bind_abstract, close, limited, peer, text, timeless,
};

/// A service in Python: the function `say` sends a notification, with descriptors if given.
const SERVICE: &str = "\
import os, socket, sys, time, signal, array
def say(text, fds=()):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))] if fds else []
    s.sendmsg([text.encode()], control, 0, os.environ['NOTIFY_SOCKET'])
";

/// Runs a service under `exec` with these options.
fn service(sandbox: &Sandbox, options: &[&str], script: &str) -> Invocation {
    let script = format!("{SERVICE}{script}");
    sandbox
        .udgram(["exec"])
        .args(options)
        .args(["--", "python3", "-c", &script])
        .env("TMPDIR", sandbox.dir())
}

#[test]
fn every_notification_is_printed_and_the_status_is_that_of_the_service() {
    peer!("python3");
    let sandbox = Sandbox::new();
    service(
        &sandbox,
        &["--notify", "-t", "100s"],
        "say('STATUS=loading'); say('READY=1\\nSTATUS=up'); say('STOPPING=1'); sys.exit(7)",
    )
    .run()
    .ends(
        7,
        "{\"STATUS\":\"loading\"}\n{\"READY\":\"1\",\"STATUS\":\"up\"}\n{\"STOPPING\":\"1\"}\n",
    )
    .says_nothing();
    assert_eq!(fs::read_dir(sandbox.dir()).unwrap().count(), 0);
}

#[test]
fn a_service_that_is_not_ready_in_time_is_ended_with_status_124() {
    let sandbox = Sandbox::new();
    let start = Instant::now();
    let outcome = sandbox
        .udgram(["exec", "--notify", "-t", "1s", "--", "sleep", "600"])
        .run();
    assert!(start.elapsed() >= Duration::from_secs(1));
    outcome.fails(
        124,
        "udgram: CMD is not ready (READY=1) after 1s: ending it",
    );
}

#[test]
fn a_service_that_goes_on_after_sigterm_is_killed_ten_seconds_later() {
    let sandbox = Sandbox::new();
    let start = Instant::now();
    let outcome = sandbox
        .udgram(["exec", "--notify", "-t", "1s", "--", "sh", "-c"])
        .arg("trap '' TERM; exec sleep 600")
        .run()
        .ends(124, "");
    assert!(start.elapsed() >= Duration::from_secs(11));
    assert_eq!(
        outcome.diagnostics(),
        [
            "udgram: CMD is not ready (READY=1) after 1s: ending it",
            "udgram: warning: CMD is still running 10s after SIGTERM: killing it",
        ]
    );
}

#[test]
fn a_service_may_ask_for_more_time() {
    let sandbox = Sandbox::new();
    let limit = Duration::from_secs(5);
    let start = Instant::now();
    let mut running = sandbox
        .udgram(["exec", "--notify", "-t", "5s", "--", "sh", "-c"])
        .arg("echo \"$NOTIFY_SOCKET\"; read -r line")
        .stdin_open()
        .start();
    let service = running.line();
    let say = |text: &str| {
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(text.as_bytes(), &service).unwrap();
    };
    // A shorter time takes nothing back.
    say("EXTEND_TIMEOUT_USEC=600000000\nEXTEND_TIMEOUT_USEC=1");
    assert_eq!(
        running.line(),
        "{\"EXTEND_TIMEOUT_USEC\":[\"600000000\",\"1\"]}"
    );
    let left = (limit + Duration::from_millis(100)).saturating_sub(start.elapsed());
    poll(&mut [], PollTimeout::try_from(left).unwrap()).unwrap();
    say("READY=1");
    assert_eq!(running.line(), "{\"READY\":\"1\"}");
    running.write("\n");
    let outcome = running.finish();
    assert_eq!(outcome.code(), Some(0));
    outcome.says_nothing();
}

#[test]
fn a_service_that_ends_before_it_is_ready_is_reported() {
    peer!("python3");
    let sandbox = Sandbox::new();
    service(&sandbox, &["--notify"], "say('STATUS=broken'); sys.exit(3)")
        .run()
        .ends(3, "{\"STATUS\":\"broken\"}\n")
        .says("udgram: CMD has ended before it was ready (READY=1)");
    let _ = service(
        &sandbox,
        &["--notify"],
        "say('READY=1'); os.kill(os.getpid(), signal.SIGUSR2)",
    )
    .run()
    .dies_of(Signal::SIGUSR2, "{\"READY\":\"1\"}\n");
}

#[test]
fn the_descriptor_gets_a_line_break_when_the_service_is_ready_and_is_not_inherited() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let (reader, writer) = crate::harness::pipe();
    let (released, release) = crate::harness::pipe();
    let running = service(
        &sandbox,
        &["--notify=5"],
        "say('STATUS=x'); os.read(0, 1)
try: os.fstat(5)
except OSError: say('READY=1')
say('READY=1'); sys.stdin.read()",
    )
    .descriptor(&writer, 5)
    .stdin_from(OwnedFd::from(released))
    .start();
    close(OwnedFd::from(writer));
    let mut release = release;
    std::io::Write::write_all(&mut release, b"x").unwrap();
    let mut byte = [0; 1];
    std::io::Read::read_exact(&mut &reader, &mut byte).unwrap();
    assert_eq!(byte, *b"\n");
    close(OwnedFd::from(release));
    running
        .finish()
        .succeeds("{\"STATUS\":\"x\"}\n{\"READY\":\"1\"}\n{\"READY\":\"1\"}\n");
    assert_eq!(crate::harness::content(reader.into()), b"");
}

#[test]
fn a_standard_stream_that_gets_the_line_break_stays_that_of_the_service() {
    let sandbox = Sandbox::new();
    let outcome = sandbox
        .udgram(["exec", "--notify=2", "--", "sh", "-c", "echo said >&2"])
        .run()
        .ends(0, "");
    assert_eq!(
        outcome.stderr_text(),
        "said\nudgram: CMD has ended before it was ready (READY=1)\n"
    );
}

#[test]
fn barriers_end_and_stored_descriptors_are_described_and_closed() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let outcome = service(
        &sandbox,
        &["--notify", "-e"],
        "r, w = os.pipe(); say('BARRIER=1', [w]); os.close(w); os.read(r, 1)
r, w = os.pipe(); say('FDSTORE=1\\nFDNAME=x', [w]); os.close(w); os.read(r, 1)
say('READY=1')",
    )
    .run();
    let lines = outcome.lines();
    assert_eq!(lines.len(), 3, "{lines:?}");
    for (line, packet) in lines.iter().zip([
        "{\"BARRIER\":\"1\"}",
        "{\"FDSTORE\":\"1\",\"FDNAME\":\"x\"}",
        "{\"READY\":\"1\"}",
    ]) {
        let envelope = timeless(line);
        assert!(envelope.contains(&format!("\"packet\":{packet}")), "{line}");
        assert_eq!(
            envelope.contains("\"type\":\"pipe\""),
            !packet.contains("READY"),
            "{line}"
        );
    }
}

#[test]
fn systemd_notify_returns_after_its_barrier() {
    peer!("systemd-notify");
    let sandbox = Sandbox::new();
    sandbox
        .udgram(["exec", "--notify", "-t", "100s", "--"])
        .args(["systemd-notify", "--ready", "--status=42"])
        .run()
        .ends(
            0,
            "{\"READY\":\"1\",\"STATUS\":\"42\"}\n{\"BARRIER\":\"1\"}\n",
        )
        .says_nothing();
}

#[test]
fn notifications_and_their_descriptors_go_on_to_the_outer_service_manager() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let outer = limited(UnixDatagram::bind(sandbox.path("outer")).unwrap());
    let running = service(
        &sandbox,
        &["--notify"],
        "say('READY=1'); r, w = os.pipe(); say('BARRIER=1', [w]); os.close(w); os.read(r, 1); say('STOPPING=1')",
    )
    .env("NOTIFY_SOCKET", sandbox.path("outer"))
    .start();
    assert_eq!(outer.take(), b"READY=1");
    let barrier = crate::sys::take_message(&outer);
    assert_eq!(barrier.bytes, b"BARRIER=1");
    assert_eq!(barrier.descriptors.len(), 1);
    outer.has_nothing_more();
    for descriptor in barrier.descriptors {
        close(descriptor);
    }
    assert_eq!(outer.take(), b"STOPPING=1");
    running
        .finish()
        .succeeds("{\"READY\":\"1\"}\n{\"BARRIER\":\"1\"}\n{\"STOPPING\":\"1\"}\n");
}

#[test]
fn a_notification_with_as_many_descriptors_as_a_datagram_has_goes_on() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let outer = sandbox.bind("outer");
    service(&sandbox, &["--notify"], "say('READY=1', [0] * 253)")
        .env("NOTIFY_SOCKET", sandbox.path("outer"))
        .run()
        .succeeds("{\"READY\":\"1\"}\n");
    assert_eq!(crate::sys::take_message(&outer).descriptors.len(), 253);
}

#[test]
fn an_outer_service_manager_that_reads_nothing_holds_up_neither_readiness_nor_signals() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let outer = limited(UnixDatagram::bind(sandbox.path("outer")).unwrap());
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    let mut filled = 0;
    while other.send_to(b"x", sandbox.path("outer")).is_ok() {
        filled += 1;
    }
    // A second for each of them would be longer than the time to be ready.
    let mut running = service(
        &sandbox,
        &["--notify", "-t", "100s"],
        "[say('STATUS=x') for _ in range(40)]; say('READY=1'); [say('STATUS=y') for _ in range(20)]
signal.pause()",
    )
    .env("NOTIFY_SOCKET", sandbox.path("outer"))
    .start();
    let statuses = |letter: &str, count| format!("{{\"STATUS\":\"{letter}\"}}\n").repeat(count);
    let printed = statuses("x", 40) + "{\"READY\":\"1\"}\n" + &statuses("y", 20);
    for line in printed.lines() {
        assert_eq!(running.line(), line);
    }
    // In order, once there is room.
    for _ in 0..filled {
        assert_eq!(outer.take(), b"x");
    }
    for _ in 0..40 {
        assert_eq!(outer.take(), b"STATUS=x");
    }
    assert_eq!(outer.take(), b"READY=1");
    for _ in 0..20 {
        assert_eq!(outer.take(), b"STATUS=y");
    }
    running.signal(Signal::SIGTERM);
    running
        .finish()
        .dies_of(Signal::SIGTERM, printed)
        .says_nothing();
}

#[test]
fn notifications_that_an_outer_service_manager_does_not_read_before_the_end_are_counted() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let _outer = sandbox.bind("outer");
    sandbox.fill("outer");
    for (script, printed, left) in [
        (
            "say('READY=1')",
            "{\"READY\":\"1\"}\n",
            "1 notification was",
        ),
        (
            "say('READY=1'); say('STOPPING=1')",
            "{\"READY\":\"1\"}\n{\"STOPPING\":\"1\"}\n",
            "2 notifications were",
        ),
    ] {
        service(&sandbox, &["--notify"], script)
            .env("NOTIFY_SOCKET", sandbox.path("outer"))
            .run()
            .ends(0, printed)
            .says(format!(
                "udgram: warning: {left} not passed on to the service manager (NOTIFY_SOCKET): its queue is full"
            ));
    }
}

#[test]
fn an_outer_service_manager_that_reads_nothing_misses_what_udgram_does_not_hold_back() {
    peer!("python3");
    let sandbox = Sandbox::new();
    for (script, printed, held, ready) in [
        (
            "[say('STATUS=x') for _ in range(70)]",
            "{\"STATUS\":\"x\"}\n".repeat(70),
            64,
            false,
        ),
        (
            "[say('STATUS=x', [0] * 120) for _ in range(3)]",
            "{\"STATUS\":\"x\"}\n".repeat(3),
            2,
            // It has no descriptors.
            true,
        ),
    ] {
        let outer = sandbox.bind(format!("outer{held}"));
        let filled = sandbox.fill(&format!("outer{held}"));
        let script = format!("{script}; say('READY=1'); sys.stdin.read()");
        let (released, release) = crate::harness::pipe();
        let mut running = service(&sandbox, &["--notify"], &script)
            .env("NOTIFY_SOCKET", sandbox.path(format!("outer{held}")))
            .stdin_from(OwnedFd::from(released))
            .start();
        let printed = printed + "{\"READY\":\"1\"}\n";
        for line in printed.lines() {
            assert_eq!(running.line(), line);
        }
        for _ in 0..filled {
            assert_eq!(outer.take(), b"0");
        }
        for _ in 0..held {
            assert_eq!(outer.take(), b"STATUS=x");
        }
        if ready {
            assert_eq!(outer.take(), b"READY=1");
        }
        close(OwnedFd::from(release));
        let outcome = running.finish().ends(0, printed);
        outcome.says(
            "udgram: warning: notifications are not passed on to the service manager (NOTIFY_SOCKET): its queue is full",
        );
        outer.has_nothing_more();
    }
}

#[test]
fn an_outer_service_manager_may_have_an_abstract_name() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let outer = bind_abstract(sandbox.unique());
    service(&sandbox, &["--notify"], "say('READY=1')")
        .env("NOTIFY_SOCKET", at(&sandbox.unique()))
        .run()
        .succeeds("{\"READY\":\"1\"}\n");
    assert_eq!(outer.take(), b"READY=1");
}

#[test]
fn a_directory_for_the_socket_that_does_not_exist_is_named() {
    let sandbox = Sandbox::new();
    sandbox
        .udgram(["exec", "--notify", "--", "true"])
        .env("TMPDIR", "/nonexistent")
        .run()
        .fails(
            1,
            "udgram: cannot make a directory in '/nonexistent': No such file or directory",
        );
}

#[test]
fn the_socket_is_in_tmpdir_unless_that_is_relative_or_too_long_a_name_to_connect_to() {
    let sandbox = Sandbox::new();
    // The socket has 21 bytes more, and a pathname at most 107.
    for (length, fits) in [(86, true), (87, false)] {
        let name = "d".repeat(length - 1 - sandbox.dir().as_os_str().len());
        let directory = sandbox.directory(&name);
        let outcome = sandbox
            .udgram(["exec", "--notify", "--", "sh", "-c"])
            .arg("echo \"$NOTIFY_SOCKET\"")
            .env("TMPDIR", &directory)
            .run();
        let printed = String::from_utf8(outcome.stdout().to_vec()).unwrap();
        let socket = printed.trim_end();
        assert_eq!(socket.starts_with(text(&directory)), fits, "{socket}");
        assert!(socket.len() <= 107, "{socket}");
        outcome.mentions(&["before it was ready"]);
    }
    // A relative name would mean another directory to a service that changes its own.
    let relative = sandbox.directory("relative");
    let outcome = sandbox
        .udgram(["exec", "--notify", "--", "sh", "-c"])
        .arg("echo \"$NOTIFY_SOCKET\"")
        .env("TMPDIR", relative.file_name().unwrap())
        .run();
    assert!(outcome.stdout().starts_with(b"/tmp/udgram-"));
    outcome.mentions(&["before it was ready"]);
}

#[test]
fn an_outer_service_manager_that_has_gone_is_reported_once() {
    peer!("python3");
    let sandbox = Sandbox::new();
    service(
        &sandbox,
        &["--notify"],
        "say('READY=1'); say('STATUS=up'); say('STOPPING=1')",
    )
    .env("NOTIFY_SOCKET", sandbox.path("outer"))
    .run()
    .ends(
        0,
        "{\"READY\":\"1\"}\n{\"STATUS\":\"up\"}\n{\"STOPPING\":\"1\"}\n",
    )
    .mentions(&[
        "notifications are not passed on",
        "NOTIFY_SOCKET",
        "No such file",
    ]);
}

#[test]
fn a_descriptor_of_notify_that_takes_nothing_does_not_hold_up_the_service() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let (reader, writer) = crate::harness::full_pipe();
    let script = format!("{SERVICE}say('READY=1')");
    sandbox
        .udgram(["exec", "--notify=0", "--", "python3", "-c", &script])
        .stdin_from(OwnedFd::from(writer))
        .run()
        .ends(0, "{\"READY\":\"1\"}\n")
        .mentions(&["cannot write to the descriptor of --notify"]);
    close(OwnedFd::from(reader));
}

#[test]
fn a_service_that_has_dropped_its_privileges_is_heard_and_other_users_are_not() {
    crate::harness::root!();
    peer!("python3");
    let sandbox = Sandbox::new();
    let script = format!("{SERVICE}os.setuid(65534); say('READY=1'); sys.stdin.read()");
    let (released, release) = crate::harness::pipe();
    let mut running = sandbox
        .udgram(["exec", "--notify", "--", "python3", "-c", &script])
        .stdin_from(OwnedFd::from(released))
        .start();
    assert_eq!(running.line(), "{\"READY\":\"1\"}");
    let child = crate::running::children(running.pid())
        .into_iter()
        .find_map(|child| {
            let environment = fs::read(format!("/proc/{child}/environ")).ok()?;
            let environment = String::from_utf8(environment).ok()?;
            let mut variables = environment.split('\0').map(str::to_owned);
            let name = variables.find(|variable| variable.starts_with("NOTIFY_SOCKET="))?;
            Some(name["NOTIFY_SOCKET=".len()..].to_owned())
        })
        .unwrap();
    let stranger = format!("{SERVICE}os.setuid(65533); say('STATUS=stranger')");
    sandbox
        .command("python3", ["-c", &stranger])
        .env("NOTIFY_SOCKET", &child)
        .run()
        .succeeds("");
    running.wait_stderr("dropped a notification");
    close(OwnedFd::from(release));
    running
        .finish()
        .ends(0, "{\"READY\":\"1\"}\n")
        .mentions(&["dropped a notification", "does not belong to CMD"]);
}

#[test]
fn signals_reach_the_service_while_its_notifications_are_awaited() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let mut running = service(&sandbox, &["--notify"], "say('READY=1'); time.sleep(60)").start();
    assert_eq!(running.line(), "{\"READY\":\"1\"}");
    running.signal(Signal::SIGTERM);
    running
        .finish()
        .dies_of(Signal::SIGTERM, "{\"READY\":\"1\"}\n")
        .says_nothing();
    assert_eq!(fs::read_dir(sandbox.dir()).unwrap().count(), 0);
}

#[test]
fn a_reader_of_stdout_that_goes_away_does_not_end_the_service() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let (reader, writer) = crate::harness::pipe();
    close(OwnedFd::from(reader));
    service(
        &sandbox,
        &["--notify"],
        "say('READY=1'); r, w = os.pipe(); say('BARRIER=1', [w]); os.close(w); os.read(r, 1); sys.exit(5)",
    )
    .stdout_to(OwnedFd::from(writer))
    .run()
    .ends(5, "")
    .says_nothing();
}

#[test]
fn a_stdout_that_cannot_be_written_to_is_reported_once_and_does_not_end_the_service() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    service(
        &sandbox,
        &["--notify"],
        "for _ in range(3): r, w = os.pipe(); say('BARRIER=1', [w]); os.close(w); os.read(r, 1)
say('READY=1'); sys.exit(5)",
    )
    .stdout_to(full)
    .run()
    .ends(5, "")
    .says("udgram: cannot write to stdout: No space left on device");
}

#[test]
fn a_blocked_stdout_does_not_use_up_the_time_to_be_ready() {
    let sandbox = Sandbox::new();
    let (reader, writer) = crate::harness::full_pipe();
    // More than the 256 KiB that udgram holds, and than the queue of the socket.
    let status = format!("STATUS={}\n", "x".repeat(60_000));
    sandbox.file("notifications", status.repeat(25) + "READY=1\n");
    let start = Instant::now();
    // What it takes without the blocked time is a small part of the limit, also on a busy machine.
    let running = sandbox
        .udgram(["exec", "--notify", "-t", "6s", "--", "sh", "-c"])
        .arg("exec udgram send -p text \"$NOTIFY_SOCKET\" <notifications")
        .stdout_to(OwnedFd::from(writer))
        .start();
    let left = Duration::from_secs(7).saturating_sub(start.elapsed());
    poll(&mut [], PollTimeout::try_from(left).unwrap()).unwrap();
    let printed = std::thread::spawn(move || crate::harness::content(reader.into()));
    running.finish().succeeds("");
    assert!(printed.join().unwrap().ends_with(b"{\"READY\":\"1\"}\n"));
}

#[test]
fn what_a_blocked_stdout_held_up_reaches_the_outer_service_manager_after_the_end_of_the_service() {
    let sandbox = Sandbox::new();
    let outer = sandbox.bind("outer");
    let (_reader, writer) = crate::harness::full_pipe();
    // Two of these are more than the 256 KiB that udgram holds.
    let large = format!("STATUS={}\n", "x".repeat(200_000));
    sandbox.file("large", large.repeat(2));
    sandbox.file("small", "STATUS=x\nREADY=1\n");
    let mut running = sandbox
        .udgram(["exec", "--notify", "--", "sh", "-c"])
        .arg("udgram send -p text \"$NOTIFY_SOCKET\" <large; read x; exec udgram send -p text \"$NOTIFY_SOCKET\" <small")
        .env("NOTIFY_SOCKET", sandbox.path("outer"))
        .stdin_open()
        .stdout_to(OwnedFd::from(writer))
        .start();
    for _ in 0..2 {
        assert_eq!(outer.take().len(), large.len() - 1);
    }
    running.wait_asleep();
    running.write("\n");
    assert_eq!(outer.take(), b"STATUS=x");
    assert_eq!(outer.take(), b"READY=1");
    let _ = running.finish();
}

#[test]
fn it_opens_a_socket_only_if_one_is_asked_for() {
    let sandbox = Sandbox::new();
    let script = "echo ${UDGRAM_SOCKET_FD-none}";
    sandbox
        .udgram(["exec", "--notify", "-q", "--", "sh", "-c", script])
        .run()
        .ends(0, "none\n")
        .mentions(&["before it was ready"]);
    sandbox
        .udgram(["exec", "--notify", "-b", "s", "--", "sh", "-c", script])
        .run()
        .ends(0, "3\n")
        .mentions(&["before it was ready"]);
}

#[test]
fn the_options_of_a_service_need_notify() {
    let sandbox = Sandbox::new();
    for option in [
        &["--timeout", "1"][..],
        &["--protocol", "text"],
        &["--envelope"],
    ] {
        sandbox
            .udgram(["exec", "-b", "s"])
            .args(option)
            .args(["--", "true"])
            .run()
            .refuses(
                2,
                &[&format!("{} has no effect without --notify", option[0])],
            );
    }
    sandbox
        .udgram(["exec", "--notify=77", "--", "true"])
        .run()
        .refuses(2, &["cannot use descriptor 77: it is not open"]);
}

#[test]
fn rsyslogd_is_a_service_that_reports_when_it_is_ready() {
    crate::harness::root!();
    peer!("rsyslogd");
    let sandbox = Sandbox::new();
    let configuration = sandbox.file(
        "rsyslog.conf",
        format!(
            "module(load=\"imuxsock\" SysSock.Use=\"off\")\ninput(type=\"imuxsock\" Socket=\"{}\")\n*.* {}\n",
            text(&sandbox.path("log")),
            text(&sandbox.path("messages"))
        ),
    );
    let mut running = sandbox
        .udgram(["exec", "--notify", "-t", "100s", "--", "rsyslogd", "-n"])
        .args(["-i", text(&sandbox.path("pid")), "-f"])
        .arg(configuration)
        .start();
    assert_eq!(running.line(), "{\"READY\":\"1\"}");
    sandbox
        .udgram(["send", "-p", "text", "log", "<13>test: hello"])
        .run()
        .succeeds("");
    running.signal(Signal::SIGTERM);
    running.finish().succeeds("{\"READY\":\"1\"}\n");
}

#[test]
fn the_service_gets_the_socket_that_is_bound_for_it() {
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("peer");
    for options in [
        &["-b", "s"][..],
        &["-c", "peer"],
        &["-b", "s", "-c", "peer"],
    ] {
        let outcome = sandbox
            .udgram(["exec", "-q", "--notify"])
            .args(options)
            .args(["--", "printenv", "UDGRAM_SOCKET_FD", "LISTEN_FDS"])
            .run();
        assert_eq!(outcome.stdout(), b"3\n1\n");
    }
}
