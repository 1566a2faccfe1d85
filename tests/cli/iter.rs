//! `udgram iter`: prints queued packets, within one total time.

use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use crate::harness::{Invocation, Peer, Sandbox, close, limited, peer, root, timeless};
use crate::ls::with_pending_error;
use crate::running::Running;

#[test]
fn queued_packets_are_printed_without_waiting() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let iter = || {
        sandbox
            .udgram(["iter", "--socket-fd", "5"])
            .descriptor(&theirs, 5)
            .run()
    };
    iter().succeeds("");
    for packet in ["1", "2", "3"] {
        ours.send(packet.as_bytes()).unwrap();
    }
    iter().succeeds("1\n2\n3\n");
    iter().succeeds("");
}

#[test]
fn an_address_is_bound_for_the_time_given() {
    let sandbox = Sandbox::new();
    let start = Instant::now();
    let mut running = sandbox.udgram(["iter", "--timeout", "2s", "s"]).start();
    running.wait_bound("s");
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    assert_eq!(running.line(), "1");
    running.finish().succeeds("1\n");
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert!(!sandbox.exists("s"));
}

#[test]
fn iter_ends_early_with_the_packet_that_completes_the_count() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    for packet in ["1", "2", "3"] {
        ours.send(packet.as_bytes()).unwrap();
    }
    sandbox
        .udgram(["iter", "-n", "2", "-t", "none", "-s", "5"])
        .descriptor(&theirs, 5)
        .run()
        .succeeds("1\n2\n");
    assert_eq!(limited(theirs).take(), b"3");
}

#[test]
fn a_datagram_that_is_not_a_valid_packet_is_reported_and_the_rest_is_printed() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    for packet in ["1", "oops", "3"] {
        ours.send(packet.as_bytes()).unwrap();
    }
    sandbox
        .udgram(["iter", "-s", "5"])
        .descriptor(&theirs, 5)
        .run()
        .ends(3, "1\n3\n")
        .mentions(&["byte 0"]);
}

#[test]
fn peeking_leaves_every_datagram_and_option_as_it_was() {
    let sandbox = Sandbox::new();
    let socket = sandbox.bind("s");
    let options = || {
        sandbox
            .udgram(["sockopt", "-s", "5"])
            .descriptor(&socket, 5)
            .run()
            .one_line()
    };
    let sender = sandbox.bind("sender");
    for packet in ["1", "\"two\"", "", "[4]"] {
        sender
            .send_to(packet.as_bytes(), sandbox.path("s"))
            .unwrap();
    }
    let before = options();
    // recvmsg(2) with MSG_PEEK returns an empty datagram only once.
    for seen in ["1\n\"two\"\n\n[4]\n", "1\n\"two\"\n[4]\n"] {
        sandbox
            .udgram(["iter", "--peek", "-p", "text", "-s", "5"])
            .descriptor(&socket, 5)
            .run()
            .succeeds(seen);
    }
    assert_eq!(options(), before);
    for packet in ["1", "\"two\"", "", "[4]"] {
        assert_eq!(socket.take(), packet.as_bytes());
    }
    socket.has_nothing_more();
}

const DAEMON: &str = "
import socket, sys
daemon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
daemon.bind('s')
print(daemon.fileno(), flush=True)
sys.stdin.readline()
for _ in range(2):
    print(daemon.recv(100).decode(), flush=True)
";

/// Starts a daemon that reads its socket only on request; returns it and the number of that socket.
#[track_caller]
fn stuck_daemon(sandbox: &Sandbox) -> (Running, String) {
    let mut daemon = sandbox.python(DAEMON).stdin_open().start();
    let number = daemon.line();
    let socket = format!("{}:{number}", daemon.pid());
    (daemon, socket)
}

#[test]
fn the_queue_of_a_stuck_daemon_can_be_looked_at() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let (mut daemon, socket) = stuck_daemon(&sandbox);
    sandbox.udgram(["send", "s", "1", "2"]).run().succeeds("");
    sandbox
        .udgram(["iter", "--peek", "-s", &socket])
        .run()
        .succeeds("1\n2\n");
    let queue = sandbox.udgram(["sockopt", "-s", &socket]).run().one_line();
    assert!(queue.starts_with('{') && queue.contains("\"s\""), "{queue}");
    daemon.write("go\n");
    assert_eq!([daemon.line(), daemon.line()], ["1", "2"]);
    assert_eq!(daemon.finish().code(), Some(0));
}

#[test]
fn the_queue_of_another_process_can_be_taken() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let (mut daemon, socket) = stuck_daemon(&sandbox);
    sandbox
        .udgram(["send", "s", "1", "2", "3", "4"])
        .run()
        .succeeds("");
    sandbox
        .udgram(["iter", "-n2", "-s", &socket])
        .run()
        .ends(0, "1\n2\n")
        .says(format!(
            "udgram: warning: packets taken from the socket of process {} are gone for it; iter --peek and listen --peek leave them",
            socket.split(':').next().unwrap()
        ));
    daemon.write("go\n");
    assert_eq!([daemon.line(), daemon.line()], ["3", "4"]);
    assert_eq!(daemon.finish().code(), Some(0));
}

#[test]
fn the_activated_socket_is_found() {
    peer!("systemd-socket-activate");
    let sandbox = Sandbox::new();
    let path = sandbox.path("s");
    let running = sandbox
        .command("systemd-socket-activate", ["-d", "-l"])
        .arg(&path)
        .args(["udgram", "iter"])
        .start();
    running.wait_bound("s");
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    let outcome = running.finish();
    assert_eq!((outcome.code(), outcome.stdout()), (Some(0), &b"1\n"[..]));
}

/// Queues so many packets, or as many as this user's send buffer has room for, and returns how many.
/// The packets are numbered from 10000 on: each is five bytes long, and six with its line break.
#[track_caller]
fn queue(socket: &UnixDatagram, count: usize) -> usize {
    if setsockopt(socket, sockopt::SndBufForce, &(256 << 20)).is_err() {
        setsockopt(socket, sockopt::SndBuf, &(4 << 20)).unwrap();
    }
    socket.set_nonblocking(true).unwrap();
    let sent = (0..count)
        .take_while(|number| {
            socket
                .send((10_000 + number).to_string().as_bytes())
                .is_ok()
        })
        .count();
    socket.set_nonblocking(false).unwrap();
    sent
}

/// The lines of the packets of [`queue`].
fn numbers(count: usize) -> String {
    (10_000..10_000 + count)
        .flat_map(|number| [number.to_string(), "\n".to_owned()])
        .collect()
}

#[test]
fn a_long_queue_is_printed_completely_with_a_timeout_of_zero() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    for arguments in [&["-s", "5"][..], &["-t", "0", "-s", "5"]] {
        let queued = queue(&ours, 20_000);
        sandbox
            .udgram(["iter"])
            .args(arguments)
            .descriptor(&theirs, 5)
            .run()
            .succeeds(numbers(queued));
    }
}

#[test]
fn of_a_long_queue_no_more_is_taken_than_the_count() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let queued = queue(&ours, 1000);
    for count in [1, 70, 300] {
        let count = count.to_string();
        let _ = sandbox
            .udgram(["iter", "-n", &count, "-s", "5"])
            .descriptor(&theirs, 5)
            .run()
            .lines();
    }
    theirs.set_nonblocking(true).unwrap();
    let mut left = 0;
    while theirs.recv(&mut [0; 8]).is_ok() {
        left += 1;
    }
    assert_eq!(left, queued - 371);
}

/// A program whose output goes into a pipe that is as small as can be, and is full.
struct Held {
    running: Running,
    reader: File,
    writer: File,
}

impl Held {
    #[track_caller]
    fn start(iter: Invocation) -> Self {
        let (reader, writer) = crate::harness::pipe();
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        let running = iter.stdout_to(writer.try_clone().unwrap()).start();
        running.wait_full(&writer);
        Self {
            running,
            reader,
            writer,
        }
    }

    /// Reads all that the program prints, which succeeds.
    #[track_caller]
    fn read(mut self) -> String {
        close(self.writer);
        let mut printed = String::new();
        self.reader.read_to_string(&mut printed).unwrap();
        self.running.finish().succeeds("");
        printed
    }
}

/// Returns what the program prints to a reader that begins to read only when `time` has passed.
#[track_caller]
fn read_slowly(sandbox: &Sandbox, iter: Invocation, time: &str) -> String {
    let held = Held::start(iter);
    // Its end says that the time has passed.
    let clock = sandbox.udgram(["recv", "-t", time, "clock"]).run();
    clock.refuses(124, &["no packet came within"]);
    held.read()
}

#[test]
fn a_slow_reader_gets_all_that_was_queued_although_the_time_is_short() {
    let sandbox = Sandbox::new();
    for (time, pause) in [("0", "100ms"), ("100ms", "1200ms")] {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let queued = queue(&ours, 20_000);
        let iter = sandbox
            .udgram(["iter", "-t", time, "-s", "5"])
            .descriptor(&theirs, 5);
        let printed = read_slowly(&sandbox, iter, pause);
        assert!(
            printed == numbers(queued),
            "{} lines",
            printed.lines().count()
        );
    }
}

#[test]
fn packets_that_arrive_later_do_not_prolong_iter() {
    const BATCH: usize = 64;
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let queued = queue(&ours, 5000);
    let iter = sandbox.udgram(["iter", "-s", "5"]).descriptor(&theirs, 5);
    let held = Held::start(iter);
    for _ in 0..3 * BATCH {
        ours.send(b"\"later\"").unwrap();
    }
    let printed = held.read();
    let later = printed.strip_prefix(&numbers(queued)).unwrap();
    assert!(later.lines().count() <= BATCH, "{later}");
}

#[test]
fn a_slow_reader_gets_all_that_is_peeked_at() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let queued = queue(&ours, 3000);
    for _ in 0..2 {
        let iter = sandbox
            .udgram(["iter", "--peek", "-s", "5"])
            .descriptor(&theirs, 5);
        let printed = read_slowly(&sandbox, iter, "50ms");
        assert!(
            printed == numbers(queued),
            "{} lines",
            printed.lines().count()
        );
    }
    assert_eq!(limited(theirs).take(), b"10000");
}

#[test]
fn iter_ends_although_a_sender_never_stops() {
    let sandbox = Sandbox::new();
    for (time, least) in [("0", Duration::ZERO), ("60ms", Duration::from_millis(60))] {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let sender = thread::spawn(move || {
            let mut sent = 0;
            while ours.send(b"1").is_ok() {
                sent += 1;
            }
            sent
        });
        limited(theirs.try_clone().unwrap()).wait_queued();
        let start = Instant::now();
        let outcome = sandbox
            .udgram(["iter", "-t", time, "-s", "5"])
            .descriptor(&theirs, 5)
            .run();
        assert!(start.elapsed() >= least);
        assert_eq!(outcome.code(), Some(0));
        assert!(outcome.stdout().starts_with(b"1\n"));
        close(theirs);
        let sent = sender.join().unwrap();
        assert!(outcome.stdout().len() / 2 <= sent);
        outcome.says_nothing();
    }
}

#[test]
fn an_empty_packet_that_was_peeked_at_before_is_reported_when_it_heads_the_queue() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    for packet in ["", "2"] {
        ours.send(packet.as_bytes()).unwrap();
    }
    let peek = || {
        sandbox
            .udgram(["iter", "--peek", "-p", "text", "-s", "5"])
            .descriptor(&theirs, 5)
            .run()
    };
    let hidden = "udgram: warning: an empty packet heads the queue that was peeked at before: the \
                  kernel shows it once only";
    peek().succeeds("\n2\n");
    peek().ends(0, "2\n").says(hidden);
    assert_eq!(theirs.recv(&mut [0; 8]).unwrap(), 0);
    peek().succeeds("2\n");
    assert_eq!(theirs.recv(&mut [0; 8]).unwrap(), 1);
    peek().succeeds("");
    ours.send(b"").unwrap();
    peek().succeeds("\n");
    peek().ends(0, "").says(hidden);
}

/// `udgram iter -s 5` under strace, which injects this into its system calls.
fn injected(sandbox: &Sandbox, options: &str, injections: &[&str]) -> Invocation {
    let injections: Vec<String> = injections
        .iter()
        .map(|injection| format!("-e inject={injection}"))
        .collect();
    let injections = injections.join(" ");
    sandbox.shell(&format!(
        "exec strace -qqq -o trace {injections} udgram iter {options} -s 5"
    ))
}

#[test]
fn a_queue_that_takes_long_is_printed_to_its_end_although_the_time_is_over() {
    peer!("strace");
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let queued = queue(&ours, 1000);
    injected(
        &sandbox,
        "",
        &["recvmmsg,?recvmmsg_time64:delay_exit=1200000:when=3"],
    )
    .descriptor(&theirs, 5)
    .run()
    .succeeds(numbers(queued));
}

#[test]
fn packets_that_may_be_left_in_a_queue_without_times_of_arrival_are_reported() {
    peer!("strace");
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let queued = queue(&ours, 1000);
    let injections = [
        "setsockopt:error=EPERM",
        "recvmmsg,?recvmmsg_time64:delay_exit=1200000:when=3",
    ];
    let outcome = injected(&sandbox, "", &injections)
        .descriptor(&theirs, 5)
        .run();
    assert_eq!(
        outcome.diagnostics()[1..],
        [
            "udgram: warning: stopped 1s after the end of the time: packets that were queued may be left"
        ]
    );
    assert_eq!(outcome.code(), Some(0));
    assert!(outcome.stdout().len() < numbers(queued).len());
}

#[test]
fn two_programs_do_not_peek_at_one_socket_at_once() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let queued = queue(&ours, 3000);
    let peek = || {
        sandbox
            .udgram(["iter", "--peek", "-s", "5"])
            .descriptor(&theirs, 5)
    };
    let held = Held::start(peek());
    peek().run().fails(
        1,
        "udgram: cannot peek: another udgram is peeking at this socket",
    );
    assert_eq!(held.read(), numbers(queued));
    peek().run().succeeds(numbers(queued));
}

#[test]
fn the_peek_lock_reaches_across_network_namespaces() {
    root!();
    peer!("unshare");
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let queued = queue(&ours, 3000);
    let peek = sandbox.udgram(["iter", "--peek", "-s", "5"]);
    let held = Held::start(peek.descriptor(&theirs, 5));
    sandbox
        .command("unshare", ["-n", "udgram", "iter", "--peek", "-s", "5"])
        .descriptor(&theirs, 5)
        .run()
        .fails(
            1,
            "udgram: cannot peek: another udgram is peeking at this socket",
        );
    let same = held.read() == numbers(queued);
    assert!(same, "other packets were printed");
}

#[test]
fn peeking_leaves_a_pending_error_to_the_program_that_has_the_socket() {
    let sandbox = Sandbox::new();
    let socket = with_pending_error(&sandbox, "s");
    let peek = || sandbox.udgram(["iter", "--peek", "./s"]);
    peek().run().fails(
        1,
        "udgram: cannot peek: the socket has a pending error, which its program has not read yet \
         (hint: peeking would take the error from the program)",
    );
    let error = socket.take_error().unwrap();
    assert_eq!(
        error.and_then(|error| error.raw_os_error()),
        Some(nix::libc::ECONNRESET)
    );
    peek().run().succeeds("1\n");
}

#[test]
fn an_earlier_peek_offset_is_reported_and_restored() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let queued = queue(&ours, 3000);
    let run = |arguments: &[&str]| {
        let invocation = sandbox.udgram(arguments);
        invocation.args(["-s", "5"]).descriptor(&theirs, 5)
    };
    let offset = || run(&["sockopt", "peek_off"]).run().one_line();
    let unchanged = offset();
    let Held {
        running,
        reader,
        writer,
    } = Held::start(run(&["iter", "--peek"]));
    running.signal(Signal::SIGKILL);
    let _ = running.finish();
    close(reader);
    close(writer);
    let left = offset();
    assert_ne!(left, unchanged);
    run(&["iter", "--peek"])
        .run()
        .ends(0, numbers(queued))
        .mentions(&["SO_PEEK_OFF", "stays so", "peek_off=-1"]);
    assert_eq!(offset(), left);
    let _ = run(&["sockopt", "peek_off=-1"]).run().one_line();
    run(&["iter", "--peek", "-n", "1"])
        .run()
        .succeeds("10000\n");
    assert_eq!(offset(), unchanged);
}

#[test]
fn a_queue_that_takes_too_long_to_peek_at_is_reported() {
    peer!("strace");
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let _ = queue(&ours, 3);
    injected(
        &sandbox,
        "--peek",
        &["recvmmsg,?recvmmsg_time64,recvmsg:delay_exit=5100000:when=1"],
    )
    .descriptor(&theirs, 5)
    .run()
    .ends(0, "10000\n")
    .says("udgram: warning: the queue was not peeked to its end within 5s");
}

#[test]
fn a_time_that_the_kernel_sets_at_the_peek_is_not_a_time_of_arrival() {
    let sandbox = Sandbox::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.send(b"1").unwrap();
    setsockopt(&theirs, sockopt::ReceiveTimestampns, &true).unwrap();
    ours.send(b"2").unwrap();
    let lines = sandbox
        .udgram(["iter", "--peek", "-e", "-s", "5"])
        .descriptor(&theirs, 5)
        .run()
        .lines();
    assert_eq!(lines[0], "{\"from\":null,\"size\":1,\"packet\":1}");
    assert_eq!(
        timeless(&lines[1]),
        "{\"from\":null,\"size\":1,\"packet\":2}"
    );
}
