//! A socket that is already open: `--socket-fd`, `UDGRAM_SOCKET_FD` and socket activation.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use crate::harness::{Peer, Sandbox, close, limited, timeless};

#[test]
fn a_connected_socket_needs_no_peer() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let ours = limited(ours);
    sandbox
        .udgram(["send", "--socket-fd", "5", "1", "2"])
        .descriptor(&theirs, 5)
        .run()
        .succeeds("");
    assert_eq!([ours.take(), ours.take()], [b"1", b"2"]);
    ours.has_nothing_more();
}

#[test]
fn packets_are_received_on_an_open_socket() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.send(b"1").unwrap();
    ours.send(b"2").unwrap();
    sandbox
        .udgram(["recv", "-s", "5"])
        .descriptor(&theirs, 5)
        .run()
        .succeeds("1\n");
    sandbox
        .udgram(["recv", "-s5"])
        .descriptor(&theirs, 5)
        .run()
        .succeeds("2\n");
}

#[test]
fn an_open_socket_may_be_any_of_the_standard_streams() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.send(b"1").unwrap();
    sandbox
        .udgram(["recv", "--socket-fd", "0"])
        .stdin_from(std::os::fd::OwnedFd::from(theirs))
        .run()
        .succeeds("1\n");
}

#[test]
fn a_reply_comes_over_an_open_socket() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let ours = limited(ours);
    let running = sandbox
        .udgram(["send", "--reply", "--socket-fd", "5", "1"])
        .descriptor(&theirs, 5)
        .start();
    assert_eq!(ours.take(), b"1");
    ours.send(b"2").unwrap();
    running.finish().succeeds("2\n");
}

#[test]
fn a_question_over_an_open_socket_is_asked_at_once() {
    let sandbox = Sandbox::new();
    let _server = sandbox.listen(["--echo", "server"]);
    let socket = sandbox.bind("me");
    socket.connect(sandbox.path("server")).unwrap();
    // On a busy machine some may take longer, but not all.
    let times = (0..8).map(|_| {
        let start = Instant::now();
        sandbox
            .udgram(["send", "--reply", "-s", "5", "1"])
            .descriptor(&socket, 5)
            .run()
            .succeeds("1\n");
        start.elapsed()
    });
    assert!(times.min() < Some(Duration::from_secs(1)));
}

#[test]
fn a_destination_is_named_for_an_open_socket() {
    let sandbox = Sandbox::new();
    let own = sandbox.bind("own");
    let peer = sandbox.bind("s");
    sandbox
        .udgram(["send", "--socket-fd", "5", "--to", "s", "1"])
        .descriptor(&own, 5)
        .run()
        .succeeds("");
    let (bytes, from) = peer.take_from();
    assert_eq!(
        (bytes.as_slice(), from.as_pathname()),
        (&b"1"[..], Some(sandbox.path("own").as_path()))
    );
    assert!(
        sandbox.exists("own"),
        "the socket file of an inherited socket is not ours to remove"
    );
}

#[test]
fn a_destination_may_be_given_with_a_local_address() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    sandbox
        .udgram(["send", "--bind", "me", "--to", "s", "1", "2"])
        .run()
        .succeeds("");
    let (bytes, from) = peer.take_from();
    assert_eq!(
        (bytes.as_slice(), from.as_pathname()),
        (&b"1"[..], Some(&*sandbox.path("me")))
    );
    assert_eq!(peer.take(), b"2");
}

#[test]
fn the_environment_names_an_open_socket() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let ours = limited(ours);
    sandbox
        .udgram(["send", "-", "1"])
        .env("UDGRAM_SOCKET_FD", "7")
        .descriptor(&theirs, 7)
        .run()
        .succeeds("");
    assert_eq!(ours.take(), b"1");
    ours.send(b"2").unwrap();
    sandbox
        .udgram(["recv"])
        .env("UDGRAM_SOCKET_FD", "7")
        .descriptor(&theirs, 7)
        .run()
        .succeeds("2\n");
}

#[test]
fn an_address_goes_before_the_environment() {
    let sandbox = Sandbox::new();
    let (_ours, theirs) = UnixDatagram::pair().unwrap();
    let running = sandbox
        .udgram(["recv", "s"])
        .env("UDGRAM_SOCKET_FD", "7")
        .descriptor(&theirs, 7)
        .start();
    running.wait_bound("s");
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    running.finish().succeeds("1\n");
}

#[test]
fn an_activated_socket_is_descriptor_three_of_the_named_process() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.send(b"1").unwrap();
    sandbox
        .shell("LISTEN_PID=$$ LISTEN_FDS=1 exec udgram recv")
        .descriptor(&theirs, 3)
        .run()
        .succeeds("1\n");
    sandbox
        .shell("LISTEN_PID=$$ LISTEN_FDS=1 UDGRAM_SOCKET_FD=5 exec udgram recv -t 0")
        .descriptor(&theirs, 3)
        .descriptor(sandbox.bind("other"), 5)
        .run()
        .refuses(124, &[]);
    for environment in [
        "LISTEN_PID=1 LISTEN_FDS=1",
        "LISTEN_PID=$$ LISTEN_FDS=0",
        "LISTEN_FDS=1",
    ] {
        sandbox
            .shell(&format!("{environment} exec udgram recv -t 0"))
            .descriptor(&theirs, 3)
            .run()
            .refuses(2, &[]);
    }
}

#[test]
fn a_wrong_descriptor_is_a_usage_error_that_says_what_is_wrong() {
    let sandbox = Sandbox::new();
    let file = File::open(sandbox.file("file", "")).unwrap();
    let (stream, _other) = UnixStream::pair().unwrap();
    let inet = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let unconnected = UnixDatagram::unbound().unwrap();
    let run = |args: &[&str]| {
        sandbox
            .udgram(args)
            .descriptor(&file, 4)
            .descriptor(&stream, 5)
            .descriptor(&inet, 6)
            .descriptor(&unconnected, 7)
            .run()
    };
    for command in ["send", "recv"] {
        run(&[command, "--socket-fd", "66"]).refuses(2, &["66", "not open"]);
        run(&[command, "--socket-fd", "4"]).refuses(2, &["4", "not a socket"]);
        run(&[command, "--socket-fd", "5"]).refuses(2, &["5", "SOCK_STREAM"]);
        run(&[command, "--socket-fd", "6"]).refuses(2, &["6", "AF_UNIX"]);
        for number in ["-1", "", "1:", ":1", "1:2:3", "1 2"] {
            let option = format!("--socket-fd={number}");
            run(&[command, &option]).refuses(2, &["--socket-fd"]);
        }
    }
    run(&["send", "--socket-fd", "7", "1"]).refuses(2, &["not connected", "--to"]);
}

#[test]
fn a_wrong_descriptor_in_the_environment_is_a_usage_error_too() {
    let sandbox = Sandbox::new();
    for value in ["66", "x", "-1", ""] {
        let outcome = sandbox
            .udgram(["recv", "-t", "0"])
            .env("UDGRAM_SOCKET_FD", value)
            .run();
        outcome.refuses(2, &[]);
    }
}

#[test]
fn a_local_address_for_a_socket_that_is_already_there_is_a_usage_error() {
    let sandbox = Sandbox::new();
    let (_ours, theirs) = UnixDatagram::pair().unwrap();
    sandbox
        .udgram(["send", "--socket-fd", "5", "--bind", "me", "1"])
        .descriptor(&theirs, 5)
        .run()
        .refuses(2, &["bind", "--socket-fd"]);
    sandbox
        .udgram(["recv", "--socket-fd", "5", "s"])
        .descriptor(&theirs, 5)
        .run()
        .refuses(2, &[]);
}

#[test]
fn a_non_blocking_socket_is_waited_on_and_stays_non_blocking() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut running = sandbox
        .udgram(["recv", "-n", "2", "--socket-fd", "5"])
        .descriptor(&theirs, 5)
        .start();
    ours.send(b"1").unwrap();
    assert_eq!(running.line(), "1");
    ours.send(b"2").unwrap();
    running.finish().succeeds("1\n2\n");
    assert_eq!(
        theirs.recv(&mut [0; 8]).unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
}

#[test]
fn a_blocking_socket_stays_blocking() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.send(b"1").unwrap();
    sandbox
        .udgram(["recv", "-s", "5"])
        .descriptor(&theirs, 5)
        .run()
        .succeeds("1\n");
    let flags = nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_GETFL).unwrap();
    assert_eq!(flags & nix::libc::O_NONBLOCK, 0);
}

#[test]
fn a_socket_of_another_process_is_used() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let ours = limited(ours);
    let owner = sandbox
        .command("cat", [] as [&str; 0])
        .stdin_open()
        .descriptor(&theirs, 8)
        .start();
    close(theirs);
    let option = format!("--socket-fd={}:8", owner.pid());
    sandbox.udgram(["send", &option, "1"]).run().succeeds("");
    assert_eq!(ours.take(), b"1");
    let wrong = format!("{}:99", owner.pid());
    sandbox
        .udgram(["send", "-s", &wrong, "1"])
        .run()
        .refuses(2, &["99", "not open"]);
    owner.finish().succeeds("");
}

#[test]
fn a_socket_of_a_process_of_another_user_reports_the_missing_permission() {
    crate::harness::root!();
    let sandbox = Sandbox::new();
    let owner = sandbox.command("cat", [] as [&str; 0]).stdin_open().start();
    let option = format!("{}:0", owner.pid());
    sandbox
        .udgram_as(65534, ["send", "-s", &option, "1"])
        .run()
        .refuses(
            1,
            &[
                &owner.pid().to_string(),
                "Operation not permitted",
                "ptrace",
            ],
        );
    owner.finish().succeeds("");
}

#[test]
fn a_process_that_is_not_there_is_named() {
    let sandbox = Sandbox::new();
    let gone = sandbox.command("true", [] as [&str; 0]).start();
    let option = format!("{}:0", gone.pid());
    gone.finish().succeeds("");
    let outcome = sandbox.udgram(["send", "-s", &option, "1"]).run();
    assert!(matches!(outcome.code(), Some(1 | 2)));
    let lines = outcome.diagnostics();
    assert!(
        lines.len() == 1 && lines[0].contains("no such process"),
        "{lines:?}"
    );
}

#[test]
fn of_several_activated_sockets_the_one_that_is_used_is_named() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let (_stream, stream) = UnixStream::pair().unwrap();
    let recv = |three: BorrowedFd<'_>, four: BorrowedFd<'_>| {
        ours.send(b"1").unwrap();
        sandbox
            .shell("LISTEN_PID=$$ LISTEN_FDS=2 exec udgram recv")
            .descriptor(three, 3)
            .descriptor(four, 4)
            .run()
    };
    let other = sandbox.bind("other");
    recv(theirs.as_fd(), other.as_fd())
        .ends(0, "1\n")
        .says("udgram: warning: LISTEN_FDS passes 2 sockets; only descriptor 3 is used");
    recv(stream.as_fd(), theirs.as_fd())
        .ends(0, "1\n")
        .says("udgram: warning: LISTEN_FDS passes 2 sockets; only descriptor 4 is used");
}

#[test]
fn activated_sockets_none_of_which_is_usable_are_a_usage_error_about_the_first() {
    let sandbox = Sandbox::new();
    let (one, other) = UnixStream::pair().unwrap();
    sandbox
        .shell("LISTEN_PID=$$ LISTEN_FDS=2 exec udgram recv")
        .descriptor(&one, 3)
        .descriptor(&other, 4)
        .run()
        .refuses(2, &["descriptor 3", "SOCK_STREAM"]);
}

/// The timestamps that a socket asks for, by the names of their options.
fn stamps(socket: &UnixDatagram) -> (bool, bool) {
    (
        getsockopt(socket, sockopt::ReceiveTimestamp).unwrap(),
        getsockopt(socket, sockopt::ReceiveTimestampns).unwrap(),
    )
}

#[test]
fn the_timestamp_options_of_an_open_socket_are_restored() {
    let sandbox = Sandbox::new();
    let (_ours, theirs) = UnixDatagram::pair().unwrap();
    let iter = || {
        sandbox
            .udgram(["iter", "-e", "-s", "5"])
            .descriptor(&theirs, 5)
            .run()
            .succeeds("");
    };
    iter();
    assert_eq!(stamps(&theirs), (false, false));
    setsockopt(&theirs, sockopt::ReceiveTimestamp, &true).unwrap();
    iter();
    assert_eq!(stamps(&theirs), (true, false));
    setsockopt(&theirs, sockopt::ReceiveTimestampns, &true).unwrap();
    iter();
    assert_eq!(stamps(&theirs), (false, true));
}

#[test]
fn a_packet_has_a_time_if_the_kernel_noted_when_it_came() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let receive = || {
        sandbox
            .udgram(["recv", "-e", "-n", "3", "-s", "5"])
            .descriptor(&theirs, 5)
            .start()
    };
    let bare = "{\"from\":null,\"size\":1,\"packet\":1}";
    for _ in 0..2 {
        ours.send(b"1").unwrap();
    }
    let mut running = receive();
    assert_eq!([running.line(), running.line()], [bare, bare]);
    ours.send(b"1").unwrap();
    assert_eq!(timeless(&running.line()), bare);
    assert_eq!(running.finish().code(), Some(0));
    // A socket that asks for times has them from before the program was started.
    setsockopt(&theirs, sockopt::ReceiveTimestamp, &true).unwrap();
    for _ in 0..3 {
        ours.send(b"1").unwrap();
    }
    for line in receive().finish().lines() {
        assert_eq!(timeless(&line), bare);
    }
}

#[test]
fn an_envelope_has_a_time_with_any_timestamp_option() {
    let sandbox = Sandbox::new();
    for option in ["1:64=1", "1:63=1", "timestamp=on", "timestampns=on"] {
        let running = sandbox.udgram(["recv", "-e", "-o", option, "s"]).start();
        running.wait_bound("s");
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"1", sandbox.path("s")).unwrap();
        let bare = "{\"from\":null,\"size\":1,\"packet\":1}";
        assert_eq!(timeless(&running.finish().one_line()), bare, "{option}");
    }
}

#[test]
fn a_peer_that_connects_elsewhere_does_not_end_the_receiver() {
    let sandbox = Sandbox::new();
    let elsewhere = sandbox.bind("elsewhere");
    for command in ["recv", "listen", "iter"] {
        let own = UnixDatagram::bind(sandbox.path("own")).unwrap();
        let peer = sandbox.bind("s");
        own.connect(sandbox.path("s")).unwrap();
        peer.connect(sandbox.path("own")).unwrap();
        own.send(b"lost").unwrap();
        let mut running = sandbox
            .udgram([command, "-n", "1", "-t", "none", "-s", "5"])
            .descriptor(&own, 5)
            .start();
        running.wait_asleep();
        // The kernel tells the socket of the loss by ECONNRESET.
        peer.connect(sandbox.path("elsewhere")).unwrap();
        peer.send_to(b"1", sandbox.path("own")).unwrap();
        assert_eq!(running.line(), "1");
        running.finish().succeeds("1\n");
        std::fs::remove_file(sandbox.path("own")).unwrap();
        std::fs::remove_file(sandbox.path("s")).unwrap();
    }
    elsewhere.has_nothing_more();
}

#[test]
fn a_huge_number_of_activated_sockets_ends_at_the_first_that_is_not_open() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let (stream, _other) = UnixStream::pair().unwrap();
    for count in ["2147483644", "2147483647"] {
        let script = format!("LISTEN_PID=$$ LISTEN_FDS={count} exec udgram recv");
        let recv =
            |descriptor: BorrowedFd<'_>| sandbox.shell(&script).descriptor(descriptor, 3).run();
        ours.send(b"1").unwrap();
        recv(theirs.as_fd()).ends(0, "1\n").says(format!(
            "udgram: warning: LISTEN_FDS passes {count} sockets; only descriptor 3 is used"
        ));
        recv(stream.as_fd()).refuses(2, &["descriptor 3", "SOCK_STREAM"]);
    }
}

#[test]
fn the_number_of_sockets_that_another_process_is_passed_is_not_read() {
    let sandbox = Sandbox::new();
    for environment in ["LISTEN_PID=1 LISTEN_FDS=x", "LISTEN_FDS=x"] {
        sandbox
            .shell(&format!("{environment} exec udgram recv -t 0"))
            .run()
            .refuses(2, &["ADDR is missing"]);
    }
}

#[test]
fn a_packet_queued_before_timestamps_were_enabled_has_no_time() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let bare = "{\"from\":null,\"size\":1,\"packet\":1}";
    for command in ["recv", "iter"] {
        setsockopt(&theirs, sockopt::ReceiveTimestampns, &false).unwrap();
        ours.send(b"1").unwrap();
        setsockopt(&theirs, sockopt::ReceiveTimestampns, &true).unwrap();
        ours.send(b"1").unwrap();
        let lines = sandbox
            .udgram([command, "-n", "2", "-e", "-s", "5"])
            .descriptor(&theirs, 5)
            .run()
            .lines();
        assert_eq!(lines[0], bare);
        assert_eq!(timeless(&lines[1]), bare);
    }
}
