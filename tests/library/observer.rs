//! The observer of the socket of another process. It needs root.
#![allow(clippy::print_stdout)]

use crate::forking::spawn;
use crate::{LIMIT, nobody_forks, within_limit};
use nix::errno::Errno;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use udgram::ancillary::Credentials;
use udgram::sockopt::{self, Value};
use udgram::wait::{Deadline, Wake};
use udgram::{Address, DatagramSocket, ErrorKind, Observer, Outgoing, Progress};

/// Ends the test with a printed reason unless it runs as root.
macro_rules! root {
    () => {
        if !nix::unistd::geteuid().is_root() {
            assert!(
                std::env::var_os("UDGRAM_FORBID_SKIPS").is_none_or(|value| value != "1"),
                "skips are forbidden: this needs root"
            );
            println!("skipped: this needs root");
            return;
        }
    };
}

/// A copy of an observed datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    bytes: Vec<u8>,
    time: SystemTime,
    credentials: Option<Credentials>,
    comm: Vec<u8>,
}

fn in_time() -> Deadline {
    Deadline::after(Some(LIMIT))
}

/// Returns the first datagrams that an observer sees: at least `count`.
#[track_caller]
fn see(observer: &mut Observer, count: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    while seen.len() < count {
        match observer.next_batch(in_time(), &Wake::default()).unwrap() {
            Progress::Datagrams => seen.extend(observer.datagrams().map(|datagram| {
                assert_eq!(datagram.size, datagram.bytes.len());
                Seen {
                    bytes: datagram.bytes.to_vec(),
                    time: datagram.time,
                    credentials: datagram.sender.map(|sender| sender.credentials),
                    comm: datagram
                        .sender
                        .map_or(Vec::new(), |sender| sender.comm.to_vec()),
                }
            })),
            other => panic!("{other:?} after {} datagrams", seen.len()),
        }
    }
    seen
}

fn bytes(seen: Vec<Seen>) -> Vec<Vec<u8>> {
    seen.into_iter().map(|seen| seen.bytes).collect()
}

/// Attaches an observer to a socket of this process.
#[track_caller]
fn observe(socket: &UnixDatagram) -> Observer {
    attach(socket).unwrap()
}

fn attach(socket: &UnixDatagram) -> udgram::Result<Observer> {
    Observer::attach(nix::unistd::getpid().as_raw(), socket.as_raw_fd())
}

fn address(path: &Path) -> Address<'_> {
    Address::Pathname(path.as_os_str().as_bytes().into())
}

/// Returns the value of `SO_GET_FILTER`.
fn filter(socket: &UnixDatagram) -> Result<Value, Option<Errno>> {
    let option = sockopt::find("SO_GET_FILTER").unwrap();
    sockopt::get(socket, &option).map_err(|error| error.raw_os_error().map(Errno::from_raw))
}

const NO_FILTER: Result<Value, Option<Errno>> = Ok(Value::None);

/// Attaches a classic filter that passes everything.
#[allow(unsafe_code)]
fn attach_classic(socket: &UnixDatagram) {
    let mut pass = nix::libc::sock_filter {
        // BPF_RET | BPF_K: pass this number of bytes.
        code: 6,
        jt: 0,
        jf: 0,
        k: u32::MAX,
    };
    let program = nix::libc::sock_fprog {
        len: 1,
        filter: &raw mut pass,
    };
    // SAFETY: the program and its one instruction live until the call returns.
    let attached = unsafe {
        nix::libc::setsockopt(
            socket.as_raw_fd(),
            nix::libc::SOL_SOCKET,
            nix::libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program).try_into().unwrap(),
        )
    };
    Errno::result(attached).unwrap();
}

/// Takes the next datagram.
fn take(socket: &UnixDatagram) -> Vec<u8> {
    let mut buffer = vec![0; 5_000_000];
    let len = socket.recv(&mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

/// Returns pseudo-random bytes that depend on the length.
fn pattern(len: usize) -> Vec<u8> {
    let mut value = 0x9e37_79b9_u32 ^ u32::try_from(len).unwrap();
    let next = || {
        value = value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        value.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn datagrams_of_any_size_are_observed_and_received_completely() {
    root!();
    within_limit(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let client = DatagramSocket::new().unwrap();
        client.connect(address(&path)).unwrap();
        let mut observer = Observer::attach_to(&path).unwrap();
        let sizes = [
            0, 1, 79, 80, 81, 207, 208, 209, 4_000, 4_048, 4_049, 32_720, 32_721, 65_536, 212_960,
            1_048_528, 1_048_529, 4_000_000, 0, 4_150_000,
        ];
        for size in sizes {
            let sent = pattern(size);
            let outgoing = Outgoing {
                bytes: &sent,
                ..Outgoing::default()
            };
            client.send(&[outgoing], None, &Wake::default()).unwrap();
            assert!(take(&daemon) == sent, "{size} bytes do not arrive");
            let seen = bytes(see(&mut observer, 1));
            assert!(seen == [sent], "{size} bytes are not seen");
        }
        assert_eq!(observer.lost(), 0);
    });
}

#[test]
fn senders_connected_before_after_or_not_at_all_are_observed_with_their_time_and_name() {
    root!();
    within_limit(|| {
        let name = format!("observed-{}", std::process::id());
        let bound = SocketAddr::from_abstract_name(&name).unwrap();
        let daemon = UnixDatagram::bind_addr(&bound).unwrap();
        let before = UnixDatagram::unbound().unwrap();
        before.connect_addr(&bound).unwrap();
        let address = Address::Abstract(name.as_bytes().into());
        let mut observer = Observer::attach_to(&address).unwrap();
        let after = UnixDatagram::unbound().unwrap();
        after.connect_addr(&bound).unwrap();
        let began = SystemTime::now();
        before.send(b"before").unwrap();
        after.send(b"after").unwrap();
        let unconnected = UnixDatagram::unbound().unwrap();
        unconnected.send_to_addr(b"", &bound).unwrap();
        let ended = SystemTime::now();
        let seen = see(&mut observer, 3);
        for seen in &seen {
            assert!(began <= seen.time && seen.time <= ended, "{seen:?}");
            if observer.sees_senders() {
                assert_eq!(seen.credentials, Some(Credentials::own()));
                let comm = std::fs::read("/proc/thread-self/comm").unwrap();
                assert_eq!(seen.comm, comm.trim_ascii_end());
            }
        }
        assert_eq!(bytes(seen), [&b"before"[..], b"after", b""]);
        assert_eq!(
            [take(&daemon), take(&daemon), take(&daemon)],
            [&b"before"[..], b"after", b""]
        );
    });
}

#[test]
fn all_packets_of_concurrent_senders_are_observed_in_the_order_of_each() {
    const SENDERS: usize = 8;
    const EACH: usize = 10_000;
    root!();
    within_limit(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut observer = observe(&daemon);
        let message = |sender: usize, number: usize| {
            let mut message = [sender.to_ne_bytes(), number.to_ne_bytes()].concat();
            // Several sizes, so that the sizes of records differ, too.
            message.resize(16 + number * 7 % 400, 0x55);
            message
        };
        let check = move |all: Vec<Vec<u8>>| {
            let mut next: HashMap<usize, usize> = HashMap::new();
            for datagram in all {
                let sender = usize::from_ne_bytes(*datagram.first_chunk().unwrap());
                let number = next.entry(sender).or_default();
                assert_eq!(datagram, message(sender, *number));
                *number += 1;
            }
            assert_eq!(next.len(), SENDERS);
            assert!(next.values().all(|number| *number == EACH));
        };
        std::thread::scope(|scope| {
            for sender in 0..SENDERS {
                let path = &path;
                scope.spawn(move || {
                    let client = UnixDatagram::unbound().unwrap();
                    client.connect(path).unwrap();
                    for number in 0..EACH {
                        client.send(&message(sender, number)).unwrap();
                    }
                });
            }
            let taken = scope.spawn(|| {
                (0..SENDERS * EACH)
                    .map(|_| {
                        let mut buffer = [0; 1024];
                        let len = daemon.recv(&mut buffer).unwrap();
                        buffer[..len].to_vec()
                    })
                    .collect()
            });
            check(bytes(see(&mut observer, SENDERS * EACH)));
            check(taken.join().unwrap());
        });
        assert_eq!(observer.lost(), 0);
    });
}

#[test]
fn packets_to_a_full_queue_are_observed_and_the_daemon_receives_the_queued_ones() {
    root!();
    within_limit(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut observer = observe(&daemon);
        let client = UnixDatagram::unbound().unwrap();
        client.set_nonblocking(true).unwrap();
        let tried: Vec<Vec<u8>> = (0..100_u32).map(|n| n.to_ne_bytes().to_vec()).collect();
        let queued = tried
            .iter()
            .filter(|datagram| client.send_to(datagram, &path).is_ok());
        let queued: Vec<_> = queued.cloned().collect();
        assert!(!queued.is_empty() && queued.len() < tried.len());
        assert_eq!(bytes(see(&mut observer, tried.len())), tried);
        let taken: Vec<_> = queued.iter().map(|_| take(&daemon)).collect();
        assert_eq!(taken, queued);
        daemon.set_nonblocking(true).unwrap();
        assert!(daemon.recv(&mut [0; 8]).is_err());
    });
}

#[test]
fn packets_lost_by_a_slow_reader_are_counted() {
    root!();
    within_limit(|| {
        let daemon = UnixDatagram::bind_addr(&autobind()).unwrap();
        let mut observer = observe(&daemon);
        let client = UnixDatagram::unbound().unwrap();
        client.connect_addr(&daemon.local_addr().unwrap()).unwrap();
        let large = vec![7; 200_000];
        let mut sent = 0;
        while observer.lost() < 3 {
            client.send(&large).unwrap();
            let arrived = take(&daemon) == large;
            assert!(arrived, "another datagram arrived");
            sent += 1;
        }
        client.send(b"small").unwrap();
        let lost = usize::try_from(observer.lost()).unwrap();
        let seen = see(&mut observer, sent - lost);
        assert!(
            seen.iter()
                .take(sent - lost)
                .all(|seen| seen.bytes == large)
        );
        // There is space again.
        client.send(b"again").unwrap();
        let rest = seen.into_iter().skip(sent - lost);
        let mut rest = bytes(rest.collect());
        while rest.last().is_none_or(|last| last != b"again") {
            rest.extend(bytes(see(&mut observer, 1)));
        }
        let lost_small = usize::try_from(observer.lost()).unwrap() - lost;
        assert_eq!(rest.len() + lost_small, 2);
    });
}

/// Returns an abstract name that no other socket has.
fn autobind() -> SocketAddr {
    let socket = DatagramSocket::new().unwrap();
    socket.autobind().unwrap();
    let address = socket.local_address().unwrap();
    let Address::Abstract(name) = address else {
        panic!("{address} is not abstract")
    };
    // The kernel chooses five digits, so no autobound name has one more character.
    SocketAddr::from_abstract_name([&name, &b"o"[..]].concat()).unwrap()
}

#[test]
fn the_observer_removes_its_filter_and_does_not_keep_the_socket_open() {
    root!();
    within_limit(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        client.connect(&path).unwrap();
        assert_eq!(filter(&daemon), NO_FILTER);
        let mut observer = observe(&daemon);
        assert_eq!(filter(&daemon), Err(Some(Errno::EACCES)));
        client.send(b"one").unwrap();
        observer.detach();
        assert_eq!(filter(&daemon), NO_FILTER);
        client.send(b"two").unwrap();
        assert_eq!(bytes(see(&mut observer, 1)), [b"one"]);
        let end = observer.next_batch(Deadline::NEVER, &Wake::default());
        assert_eq!(end.unwrap(), Progress::Ended);
        drop(observer);

        let mut observer = observe(&daemon);
        drop(observe(&UnixDatagram::unbound().unwrap()));
        client.send(b"three").unwrap();
        let none_forks = nobody_forks();
        drop(daemon);
        drop(none_forks);
        let refused = client.send(b"four").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        // The kernel runs the filter before it refuses.
        assert_eq!(bytes(see(&mut observer, 2)), [&b"three"[..], b"four"]);
        let end = observer.next_batch(in_time(), &Wake::default());
        assert_eq!(end.unwrap(), Progress::Ended);
    });
}

#[test]
fn a_socket_that_another_descriptor_holds_is_still_observed_and_has_no_filter_afterwards() {
    root!();
    within_limit(|| {
        let daemon = UnixDatagram::bind_addr(&autobind()).unwrap();
        let mut observer = observe(&daemon);
        let copy = daemon.try_clone().unwrap();
        drop(daemon);
        let client = UnixDatagram::unbound().unwrap();
        client.connect_addr(&copy.local_addr().unwrap()).unwrap();
        let some_time = Deadline::after(Some(Duration::from_millis(300)));
        let nothing = observer.next_batch(some_time, &Wake::default());
        assert_eq!(nothing.unwrap(), Progress::Nothing);
        client.send(b"one").unwrap();
        assert_eq!(bytes(see(&mut observer, 1)), [b"one"]);
        drop(observer);
        assert_eq!(filter(&copy), NO_FILTER);
    });
}

#[test]
fn a_socket_whose_descriptor_is_another_socket_now_is_closed() {
    root!();
    within_limit(|| {
        let daemon = UnixDatagram::unbound().unwrap();
        let mut observer = observe(&daemon);
        let mut descriptor = OwnedFd::from(daemon);
        let other = UnixDatagram::unbound().unwrap();
        let nobody_forks = nobody_forks();
        nix::unistd::dup3(&other, &mut descriptor, nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        drop(nobody_forks);
        let end = observer.next_batch(in_time(), &Wake::default());
        assert_eq!(end.unwrap(), Progress::Ended);
    });
}

#[test]
fn a_socket_that_has_a_filter_or_a_lock_is_refused() {
    root!();
    within_limit(|| {
        let daemon = UnixDatagram::unbound().unwrap();
        attach_classic(&daemon);
        let before = filter(&daemon);
        let refused = attach(&daemon).unwrap_err();
        assert_eq!(
            refused.raw_os_error().map(Errno::from_raw),
            Some(Errno::EEXIST)
        );
        assert_eq!(
            refused.cause(),
            "it has a filter already, of 1 instructions"
        );
        assert_eq!(filter(&daemon), before);

        let daemon = UnixDatagram::unbound().unwrap();
        let first = observe(&daemon);
        let refused = attach(&daemon).unwrap_err();
        assert_eq!(
            refused.raw_os_error().map(Errno::from_raw),
            Some(Errno::EBUSY)
        );
        assert_eq!(refused.cause(), "it is being observed already");
        drop(first);
        drop(observe(&daemon));

        let lock = sockopt::find("SO_LOCK_FILTER").unwrap();
        sockopt::set(&daemon, &lock, &Value::Flag(true)).unwrap();
        let refused = attach(&daemon).unwrap_err();
        assert_eq!(
            refused.raw_os_error().map(Errno::from_raw),
            Some(Errno::EPERM)
        );
        assert_eq!(refused.cause(), "its filter is locked (SO_LOCK_FILTER)");
        assert_eq!(filter(&daemon), NO_FILTER);
    });
}

#[test]
fn a_classic_filter_that_replaces_the_observers_is_reported_and_not_removed() {
    root!();
    within_limit(|| {
        let daemon = UnixDatagram::unbound().unwrap();
        let mut observer = observe(&daemon);
        attach_classic(&daemon);
        let replaced = observer
            .next_batch(in_time(), &Wake::default())
            .unwrap_err();
        assert_eq!(
            replaced.cause(),
            "another program replaced or removed the filter"
        );
        drop(observer);
        assert!(matches!(filter(&daemon), Ok(Value::Bytes(_))));
    });
}

#[test]
fn a_missing_socket_or_one_of_another_type_is_refused() {
    root!();
    within_limit(|| {
        let pid = nix::unistd::getpid().as_raw();
        let file = std::fs::File::open("/dev/null").unwrap();
        let refused = Observer::attach(pid, file.as_raw_fd()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unusable);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let refused = Observer::attach_to(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NobodyThere);
        let stream = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let refused = Observer::attach_to(&path).unwrap_err();
        assert_eq!(
            refused.raw_os_error().map(Errno::from_raw),
            Some(Errno::EPROTOTYPE)
        );
        drop(stream);
    });
}

#[test]
fn a_socket_connected_to_another_socket_is_found_by_its_name() {
    root!();
    within_limit(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let abstract_name = autobind();
        let name = abstract_name.as_abstract_name().unwrap();
        for (daemon, address) in [
            (UnixDatagram::bind(&path).unwrap(), address(&path)),
            (
                UnixDatagram::bind_addr(&abstract_name).unwrap(),
                Address::Abstract(name.into()),
            ),
        ] {
            let peer = UnixDatagram::bind_addr(&autobind()).unwrap();
            let to = peer.local_addr().unwrap();
            daemon.connect_addr(&to).unwrap();
            let mut observer = Observer::attach_to(&address).unwrap();
            peer.connect_addr(&daemon.local_addr().unwrap()).unwrap();
            peer.send(b"one").unwrap();
            assert_eq!(bytes(see(&mut observer, 1)), [b"one"]);
        }
    });
}

#[test]
fn waiting_ends_at_the_deadline_or_when_the_process_is_asked_to_stop() {
    root!();
    within_limit(|| {
        let daemon = UnixDatagram::unbound().unwrap();
        let mut observer = observe(&daemon);
        let began = Instant::now();
        let time = Duration::from_millis(50);
        let nothing = observer.next_batch(Deadline::after(Some(time)), &Wake::default());
        assert_eq!(nothing.unwrap(), Progress::Nothing);
        assert!(began.elapsed() >= time);
        let (stop, writer) = crate::pipe();
        drop(writer);
        let wake = Wake::new(Some(stop.as_fd()), None);
        let stopped = observer.next_batch(Deadline::NEVER, &wake).unwrap_err();
        assert_eq!(stopped.kind(), ErrorKind::Stopped);
    });
}

const OBSERVED: &str = "UDGRAM_TEST_OBSERVED";

/// Runs the other half of this test in another process, which observes `path` until its stdin ends.
fn observe_elsewhere(path: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = spawn(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("observer::the_next_observer_takes_the_place_of_a_killed_one")
            .env(OBSERVED, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    )
    .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("observing") {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "it ended");
    }
    (child, stdout)
}

#[test]
fn the_next_observer_takes_the_place_of_a_killed_one() {
    root!();
    if let Some(path) = std::env::var_os(OBSERVED) {
        let observer = Observer::attach_to(Path::new(&path)).unwrap();
        println!("\nobserving");
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        drop(observer);
        return;
    }
    within_limit(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        client.connect(&path).unwrap();
        let (mut child, _stdout) = observe_elsewhere(&path);
        let refused = attach(&daemon).unwrap_err();
        assert_eq!(refused.cause(), "it is being observed already");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(filter(&daemon), Err(Some(Errno::EACCES)));
        client.send(b"one").unwrap();
        assert_eq!(take(&daemon), b"one");
        let mut observer = attach(&daemon).unwrap();
        client.send(b"two").unwrap();
        assert_eq!(bytes(see(&mut observer, 1)), [b"two"]);
        assert_eq!(take(&daemon), b"two");
        drop(observer);
        assert_eq!(filter(&daemon), NO_FILTER);
    });
}

#[test]
fn more_bytes_than_the_ring_holds_are_observed_one_after_the_other() {
    root!();
    within_limit(|| {
        let (ours, theirs) = DatagramSocket::pair().unwrap();
        let ours = UnixDatagram::from(ours);
        let mut observer = observe(&ours);
        let bytes = pattern(900_000);
        let message = Outgoing {
            bytes: &bytes,
            ..Outgoing::default()
        };
        // The ring has 32 MiB.
        for _ in 0..40 {
            assert_eq!(theirs.try_send(&[message]).unwrap(), 1);
            assert!(take(&ours) == bytes);
            let seen = see(&mut observer, 1);
            assert!(seen[0].bytes == bytes);
        }
    });
}
