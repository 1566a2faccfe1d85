//! The guarantees of the blocking client.

use crate::forking::spawn;
use crate::{
    LIMIT, bound_socket, named_socket, nobody_forks, this_thread, until_polling, within_limit,
};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket, socketpair};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};
use udgram::ancillary::{
    Control, Credentials, DEFAULT_CONTROL_LEN, MAX_CONTROL_LEN, MAX_DESCRIPTORS,
};
use udgram::protocol::{Format, Json, Raw, Text};
use udgram::sockopt;
use udgram::wait::{Deadline, Wake, pause};
use udgram::{
    Address, Datagram, DatagramSocket, Error, ErrorKind, UnixDatagramClient, UnixDatagramEndpoint,
};

const NOW: Option<Duration> = Some(Duration::ZERO);
const SOON: Option<Duration> = Some(LIMIT);

fn pair() -> (UnixDatagramClient<Text>, UnixDatagramClient<Text>) {
    let (one, other) = DatagramSocket::pair().unwrap();
    (
        UnixDatagramClient::from_connected(one, Text).unwrap(),
        UnixDatagramClient::from_connected(other, Text).unwrap(),
    )
}

#[test]
fn a_program_that_is_started_inherits_no_descriptor_of_an_endpoint() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let server = UnixDatagramEndpoint::bind(path.as_path(), Text).unwrap();
    let _client = UnixDatagramClient::connect(path.as_path(), Text).unwrap();
    let mut list = Command::new("ls");
    list.args(["-l", "/proc/self/fd"]).stdout(Stdio::piped());
    let listed = spawn(&mut list).unwrap().wait_with_output().unwrap();
    assert!(listed.status.success());
    let listed = String::from_utf8(listed.stdout).unwrap();
    for target in ["eventfd", directory.path().to_str().unwrap()] {
        assert!(!listed.contains(target), "{listed}");
    }
    drop(server);
}

/// Returns a client and the endpoint that it is connected to, which has its own queue.
fn client_and_server() -> (UnixDatagramClient<Text>, UnixDatagramEndpoint<Text>) {
    let (socket, address) = named_socket();
    let server = UnixDatagramEndpoint::new(socket, Text).unwrap();
    (UnixDatagramClient::connect(&address, Text).unwrap(), server)
}

/// Sends until the queue is full. Returns how many were sent.
fn fill(client: &UnixDatagramClient<Text>) -> usize {
    for sent in 0.. {
        if let Err(error) = client.send_packet("filler", NOW) {
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
            assert!(error.hint().unwrap().contains("max_dgram_qlen"));
            return sent;
        }
    }
    unreachable!()
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn all_methods_may_be_called_from_several_threads() {
    within_limit(|| {
        const EACH: usize = 200;
        let (client, peer) = pair();
        std::thread::scope(|scope| {
            for sender in 0..4 {
                let client = &client;
                scope.spawn(move || {
                    for number in 0..EACH {
                        let packet = format!("{sender} {number}");
                        client.send_packet(&packet, Some(LIMIT)).unwrap();
                    }
                });
            }
            let receivers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..EACH)
                            .map(|_| peer.recv_packet(Some(LIMIT)).unwrap())
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            let mut received: Vec<String> = receivers
                .into_iter()
                .flat_map(|receiver| receiver.join().unwrap())
                .collect();
            received.sort();
            received.dedup();
            assert_eq!(received.len(), 4 * EACH);
        });
    });
}

#[test]
fn sending_does_not_wait_for_a_receive() {
    within_limit(|| {
        let (client, peer) = pair();
        std::thread::scope(|scope| {
            let (started, start) = mpsc::channel();
            let client = &client;
            let receiver = scope.spawn(move || {
                started.send(this_thread()).unwrap();
                client.recv_packet(None).unwrap()
            });
            until_polling(start.recv().unwrap());
            client.send_packet("question", None).unwrap();
            assert_eq!(peer.recv_packet(None).unwrap(), "question");
            peer.send_packet("answer", None).unwrap();
            assert_eq!(receiver.join().unwrap(), "answer");
        });
    });
}

#[test]
fn receiving_does_not_wait_for_a_send() {
    within_limit(|| {
        let (client, server) = client_and_server();
        let filled = fill(&client);
        std::thread::scope(|scope| {
            let (started, start) = mpsc::channel();
            let client = &client;
            let sender = scope.spawn(move || {
                started.send(this_thread()).unwrap();
                client.send_packet("last", None).unwrap();
            });
            until_polling(start.recv().unwrap());
            let address = client.local_address().unwrap();
            server.send_packet_to("hello", &address, None).unwrap();
            assert_eq!(client.recv_packet(None).unwrap(), "hello");
            for _ in 0..filled {
                assert_eq!(server.recv_packet(None).unwrap(), "filler");
            }
            assert_eq!(server.recv_packet(None).unwrap(), "last");
            sender.join().unwrap();
        });
    });
}

#[test]
fn close_does_not_wait_for_a_blocked_receive_which_fails_with_closed() {
    within_limit(|| {
        let (client, _peer) = pair();
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..2)
                .map(|_| {
                    let (started, start) = mpsc::channel();
                    let client = &client;
                    let receiver = scope.spawn(move || {
                        started.send(this_thread()).unwrap();
                        client.recv_packet(None)
                    });
                    (receiver, start.recv().unwrap())
                })
                .collect();
            for (_, thread) in &waiting {
                until_polling(*thread);
            }
            client.close();
            for (receiver, _) in waiting {
                assert_eq!(kind(receiver.join().unwrap()), ErrorKind::Closed);
            }
        });
    });
}

#[test]
fn close_ends_a_blocked_send() {
    within_limit(|| {
        let (client, _server) = client_and_server();
        fill(&client);
        std::thread::scope(|scope| {
            let (started, start) = mpsc::channel();
            let client = &client;
            let sender = scope.spawn(move || {
                started.send(this_thread()).unwrap();
                client.send_packet("last", None)
            });
            until_polling(start.recv().unwrap());
            client.close();
            assert_eq!(kind(sender.join().unwrap()), ErrorKind::Closed);
        });
    });
}

#[test]
fn closing_twice_is_fine_and_every_call_after_it_fails_with_closed() {
    let (client, peer) = pair();
    peer.send_packet("never received", None).unwrap();
    assert!(!client.is_closed());
    client.close();
    client.close();
    assert!(client.is_closed());
    let control = Control::default();
    assert_eq!(kind(client.recv_packet(None)), ErrorKind::Closed);
    assert_eq!(kind(client.recv_packet(NOW)), ErrorKind::Closed);
    assert_eq!(kind(client.recv_message(None)), ErrorKind::Closed);
    assert_eq!(
        kind(client.recv_message_with_space(None, 64)),
        ErrorKind::Closed
    );
    assert_eq!(kind(client.send_packet("", None)), ErrorKind::Closed);
    assert_eq!(
        kind(client.send_packet_with("", &control, None)),
        ErrorKind::Closed
    );
    assert_eq!(kind(client.socket()), ErrorKind::Closed);
    assert_eq!(kind(client.local_address()), ErrorKind::Closed);
    let mut packets = client.iter_received_packets(None);
    assert_eq!(kind(packets.next().unwrap()), ErrorKind::Closed);
    assert!(packets.next().is_none());
}

#[test]
fn closing_closes_the_socket() {
    let _alone = nobody_forks();
    let (client, peer) = pair();
    client.close();
    assert_eq!(kind(peer.send_packet("", NOW)), ErrorKind::NobodyThere);
}

#[test]
fn a_timeout_covers_the_whole_call_also_while_another_thread_receives() {
    within_limit(|| {
        let (client, _peer) = pair();
        std::thread::scope(|scope| {
            let (started, start) = mpsc::channel();
            let client = &client;
            let waiting = scope.spawn(move || {
                started.send(this_thread()).unwrap();
                client.recv_packet(None)
            });
            until_polling(start.recv().unwrap());
            let timeout = Duration::from_millis(30);
            let begin = Instant::now();
            assert_eq!(kind(client.recv_packet(Some(timeout))), ErrorKind::TimedOut);
            assert!(begin.elapsed() >= timeout);
            assert_eq!(kind(client.recv_message(NOW)), ErrorKind::TimedOut);
            client.close();
            assert_eq!(kind(waiting.join().unwrap()), ErrorKind::Closed);
        });
    });
}

#[test]
fn a_send_waits_for_room_no_longer_than_its_timeout() {
    within_limit(|| {
        let (client, server) = client_and_server();
        fill(&client);
        let timeout = Duration::from_millis(30);
        let to = server.local_address().unwrap();
        let (stranger, _) = named_socket();
        let stranger = UnixDatagramEndpoint::new(stranger, Text).unwrap();
        for send in [
            &|| client.send_packet("", Some(timeout)) as Result<(), Error>,
            &|| stranger.send_packet_to("", &to, Some(timeout)),
        ] as [&dyn Fn() -> Result<(), Error>; 2]
        {
            let begin = Instant::now();
            assert_eq!(kind(send()), ErrorKind::TimedOut);
            assert!(begin.elapsed() >= timeout);
        }
    });
}

#[test]
fn iter_received_packets_without_a_budget_yields_what_is_queued() {
    let (client, peer) = pair();
    for packet in ["one", "", "three"] {
        peer.send_packet(packet, None).unwrap();
    }
    let packets: Result<Vec<_>, _> = client.iter_received_packets(Duration::ZERO).collect();
    assert_eq!(packets.unwrap(), ["one", "", "three"]);
    assert_eq!(client.iter_received_packets(Duration::ZERO).count(), 0);
}

#[test]
fn iter_received_packets_has_one_budget_for_all() {
    within_limit(|| {
        let (client, peer) = pair();
        std::thread::scope(|scope| {
            let peer = &peer;
            peer.send_packet("first", None).unwrap();
            // With a budget for each packet, these packets would keep the iterator going.
            scope.spawn(move || {
                while peer.send_packet("again", None).is_ok() {
                    let next = Deadline::after(Some(Duration::from_millis(5)));
                    pause(next, &Wake::default()).unwrap();
                }
            });
            let budget = Duration::from_millis(60);
            let begin = Instant::now();
            let packets = client.iter_received_packets(budget).count();
            assert!(packets > 0 && begin.elapsed() >= budget);
            client.close();
        });
    });
}

#[test]
fn time_between_packets_does_not_count_against_the_budget_of_iter_received_packets() {
    let (client, peer) = pair();
    peer.send_packet("first", None).unwrap();
    let budget = Duration::from_millis(60);
    let mut packets = client.iter_received_packets(budget);
    let begin = Instant::now();
    assert_eq!(packets.next().unwrap().unwrap(), "first");
    let first = begin.elapsed();
    pause(Deadline::after(Some(budget * 2)), &Wake::default()).unwrap();
    let begin = Instant::now();
    assert!(packets.next().is_none());
    assert!(first + begin.elapsed() >= budget);
    assert!(packets.next().is_none());
}

#[test]
fn a_parse_error_names_the_sender_and_the_next_packet_follows() {
    let (socket, address) = named_socket();
    let server = UnixDatagramEndpoint::new(socket, Json).unwrap();
    let client = UnixDatagramClient::connect(&address, Raw).unwrap();
    for datagram in [&b"[1,]"[..], b"[1]", b"", b"[2]"] {
        client.send_packet(datagram, None).unwrap();
    }
    let error = server.recv_packet(SOON).unwrap_err();
    assert!(format!("{server:?}").contains("Inbox { space: "));
    assert_eq!(error.kind(), ErrorKind::Parse);
    let text = error.to_string();
    assert!(
        text.contains(&client.local_address().unwrap().to_string()),
        "{text}"
    );
    assert!(text.contains("offset 3"), "{text}");
    let rest: Vec<_> = server.iter_received_packets(Duration::ZERO).collect();
    let kinds: Vec<_> = rest
        .into_iter()
        .map(|packet| packet.map_err(|error| error.kind()))
        .collect();
    assert_eq!(
        kinds,
        [
            Ok("[1]".to_owned()),
            Err(ErrorKind::Parse),
            Ok("[2]".to_owned())
        ]
    );
    let json = UnixDatagramClient::connect(&address, Json).unwrap();
    assert_eq!(kind(json.send_packet("{", None)), ErrorKind::Parse);
    assert_eq!(kind(server.recv_packet(NOW)), ErrorKind::TimedOut);
}

#[test]
fn an_error_stored_in_so_error_is_returned_by_the_next_send() {
    let (client, peer) = pair();
    let (_other, elsewhere) = named_socket();
    // Connecting elsewhere with a datagram unread makes the kernel store ECONNRESET in the sender.
    client.send_packet("lost", None).unwrap();
    peer.socket().unwrap().connect(&elsewhere).unwrap();
    let error = client.send_packet("", None).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    let error = client.send_packet("", None).unwrap_err();
    assert_ne!(error.raw_os_error(), Some(libc::ECONNRESET));
}

#[test]
fn a_peer_that_connects_elsewhere_does_not_stop_a_send_to_another_socket() {
    let ((one, first), (two, second)) = (named_socket(), named_socket());
    let (other, elsewhere) = named_socket();
    let other = UnixDatagramEndpoint::new(other, Text).unwrap();
    one.connect(&second).unwrap();
    two.connect(&first).unwrap();
    let endpoint = UnixDatagramEndpoint::new(one, Text).unwrap();
    endpoint.send_packet_to("lost", &second, NOW).unwrap();
    // The kernel stores ECONNRESET in the first socket.
    two.connect(&elsewhere).unwrap();
    endpoint.send_packet_to("1", &elsewhere, NOW).unwrap();
    assert_eq!(other.recv_packet(NOW).unwrap(), "1");
}

fn refused(socket: impl Into<OwnedFd>) -> String {
    let error = UnixDatagramClient::from_connected(socket, Text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    error.to_string()
}

#[test]
fn a_descriptor_that_is_not_a_connected_unix_datagram_socket_is_refused_with_the_reason() {
    let cause = refused(File::open("/dev/null").unwrap());
    assert!(cause.contains("not a socket"), "{cause}");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(udp.local_addr().unwrap()).unwrap();
    let cause = refused(udp);
    assert!(cause.contains("not an AF_UNIX socket"), "{cause}");
    for (kind, name) in [
        (SockType::Stream, "SOCK_STREAM"),
        (SockType::SeqPacket, "SOCK_SEQPACKET"),
    ] {
        let (one, _other) =
            socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let cause = refused(one);
        assert!(
            cause.contains(name) && cause.contains("not SOCK_DGRAM"),
            "{cause}"
        );
    }
    let unconnected = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    );
    let cause = refused(unconnected.unwrap());
    assert!(cause.contains("not connected"), "{cause}");
}

#[test]
fn both_ends_of_an_unnamed_socketpair_work_both_ways() {
    let (one, other) = pair();
    assert_eq!(one.local_address().unwrap(), Address::Unnamed);
    assert_eq!(one.peer_address(), &Address::Unnamed);
    for (from, to) in [(&one, &other), (&other, &one)] {
        from.send_packet("hello", None).unwrap();
        let message = to.recv_message(SOON).unwrap();
        assert_eq!(
            (message.packet.as_str(), message.sender),
            ("hello", Address::Unnamed)
        );
    }
}

#[test]
fn ownership_of_the_socket_passes_to_the_client() {
    let _alone = nobody_forks();
    let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
    drop(UnixDatagramClient::from_connected(ours, Text).unwrap());
    assert_eq!(
        theirs.send(b"").unwrap_err().raw_os_error(),
        Some(libc::ECONNREFUSED)
    );
    // A socket that is refused is closed, too.
    let (socket, address) = named_socket();
    refused(socket);
    assert_eq!(
        kind(UnixDatagramClient::connect(&address, Text)),
        ErrorKind::NobodyThere
    );
}

#[test]
fn a_client_connects_by_pathname_and_fails_once_its_peer_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, address, binding) = bound_socket(&directory);
    let server = UnixDatagramEndpoint::new(socket, Text).unwrap();
    let client = UnixDatagramClient::connect(&address, Text).unwrap();
    assert_eq!(client.peer_address(), &address);
    client.send_packet("question", None).unwrap();
    let question = server.recv_message(SOON).unwrap();
    assert_eq!(question.sender, client.local_address().unwrap());
    server
        .send_packet_to("answer", &question.sender, None)
        .unwrap();
    assert_eq!(client.recv_packet(SOON).unwrap(), "answer");
    let alone = nobody_forks();
    drop((server, binding));
    drop(alone);
    assert_eq!(kind(client.send_packet("", None)), ErrorKind::NobodyThere);
    assert_eq!(
        kind(UnixDatagramClient::connect(&address, Text)),
        ErrorKind::NobodyThere
    );
}

#[test]
fn a_client_receives_from_its_peer_only() {
    let (client, server) = client_and_server();
    let ours = client.local_address().unwrap();
    let (stranger, _) = named_socket();
    let stranger = UnixDatagramEndpoint::new(stranger, Text).unwrap();
    let error = stranger.send_packet_to("psst", &ours, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::System);
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    server.send_packet_to("hello", &ours, None).unwrap();
    let packets: Result<Vec<_>, _> = client.iter_received_packets(Duration::ZERO).collect();
    assert_eq!(packets.unwrap(), ["hello"]);
}

#[test]
fn options_and_names_of_a_clients_socket_can_be_read() {
    let (client, server) = client_and_server();
    let socket = client.socket().unwrap();
    socket.set_send_buffer_size(10_000).unwrap();
    assert_eq!(socket.send_buffer_size().unwrap(), 20_000);
    assert_eq!(sockopt::get_int(&socket, libc::SO_SNDBUF).unwrap(), 20_000);
    assert_eq!(
        socket.local_address().unwrap(),
        client.local_address().unwrap()
    );
    assert_eq!(
        socket.peer_address().unwrap(),
        Some(server.local_address().unwrap())
    );
    drop(socket);
    client.send_packet("open", None).unwrap();
}

#[test]
fn the_status_flags_of_an_inherited_socket_are_unchanged() {
    let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let shared = ours.try_clone().unwrap();
    let flags = fcntl(&shared, FcntlArg::F_GETFL).unwrap();
    let client = UnixDatagramClient::from_connected(ours, Text).unwrap();
    assert_eq!(kind(client.recv_packet(NOW)), ErrorKind::TimedOut);
    theirs.send(b"hello").unwrap();
    assert_eq!(client.recv_packet(SOON).unwrap(), "hello");
    assert_eq!(fcntl(&shared, FcntlArg::F_GETFL).unwrap(), flags);
}

#[test]
fn ancillary_data_yields_descriptors_owned_and_close_on_exec() {
    let (client, peer) = pair();
    let (mut reader, writer) = crate::pipe();
    let control = Control::new(&[writer.as_fd(), client.socket().unwrap().as_fd()], None).unwrap();
    client.send_packet_with("two", &control, None).unwrap();
    drop(writer);
    let mut message = peer.recv_message(SOON).unwrap();
    assert_eq!(message.packet, "two");
    assert!(!message.ancillary.truncated);
    let descriptors = std::mem::take(&mut message.ancillary.descriptors);
    assert_eq!(descriptors.len(), 2);
    for descriptor in &descriptors {
        let flags = fcntl(descriptor, FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, FdFlag::FD_CLOEXEC.bits());
    }
    drop(message);
    std::io::Write::write_all(
        &mut File::from(descriptors.into_iter().next().unwrap()),
        b"written",
    )
    .unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "written");
}

/// Sends a packet with the only copy of a pipe's writing end. Returns its reading end.
fn send_pipe<P: udgram::protocol::DatagramProtocol>(
    client: &UnixDatagramClient<P>,
    packet: &P::Sent,
) -> File {
    let (reader, writer) = crate::pipe();
    let control = Control::new(&[writer.as_fd()], None).unwrap();
    client.send_packet_with(packet, &control, None).unwrap();
    reader
}

#[test]
fn descriptors_that_are_not_taken_are_closed() {
    within_limit(|| {
        let (ours, theirs) = DatagramSocket::pair().unwrap();
        let client = UnixDatagramClient::from_connected(ours, Raw).unwrap();
        let peer = UnixDatagramClient::from_connected(theirs, Text).unwrap();
        // Each read ends when the last copy of the writing end is closed.
        let mut reader = send_pipe(&client, b"dropped with its message");
        drop(peer.recv_message(None).unwrap());
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        let mut reader = send_pipe(&client, b"received without its descriptor");
        peer.recv_packet(None).unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        let mut reader = send_pipe(&client, b"no packet: \xff");
        assert_eq!(kind(peer.recv_message(None)), ErrorKind::Parse);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        let mut reader = send_pipe(&client, b"never received");
        peer.close();
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn the_default_space_takes_every_message_and_can_be_changed() {
    // CMSG_SPACE(8192) on 64-bit machines.
    assert_eq!(DEFAULT_CONTROL_LEN, 8192 + 16);
    let (client, peer) = pair();
    let null = File::open("/dev/null").unwrap();
    let all = Control::new(&[null.as_fd(); MAX_DESCRIPTORS], None).unwrap();
    client.send_packet_with("all", &all, None).unwrap();
    let message = peer.recv_message(SOON).unwrap();
    assert_eq!(message.ancillary.descriptors.len(), MAX_DESCRIPTORS);
    assert!(!message.ancillary.truncated);
    drop(message);
    let three = Control::new(&[null.as_fd(); 3], None).unwrap();
    for (space, came) in [(16 + 3 * 4, 3), (16 + 4, 1), (0, 0)] {
        client.send_packet_with("three", &three, None).unwrap();
        let message = peer.recv_message_with_space(SOON, space).unwrap();
        assert_eq!(message.ancillary.descriptors.len(), came);
        assert_eq!(message.ancillary.truncated, came < 3);
    }
    assert_eq!(
        kind(Control::new(&[null.as_fd(); MAX_DESCRIPTORS + 1], None)),
        ErrorKind::Unusable
    );
}

#[test]
fn credentials_need_no_space_of_that_for_descriptors() {
    let (client, peer) = pair();
    let null = File::open("/dev/null").unwrap();
    let control = Control::new(&[null.as_fd()], Some(Credentials::own())).unwrap();
    // Before the option is set and after it, with equal buffers.
    client.send_packet_with("", &control, None).unwrap();
    let message = peer.recv_message_with_space(SOON, 16 + 4).unwrap();
    assert_eq!(message.ancillary.credentials, None);
    peer.socket().unwrap().set_passcred(true).unwrap();
    client.send_packet_with("", &control, None).unwrap();
    let message = peer.recv_message_with_space(SOON, 16 + 4).unwrap();
    assert_eq!(message.ancillary.credentials, Some(Credentials::own()));
    assert_eq!(message.ancillary.descriptors.len(), 1);
    assert!(!message.ancillary.truncated);
    // The kernel adds the credentials of a sender that claims none.
    client.send_packet("", None).unwrap();
    let message = peer.recv_message(SOON).unwrap();
    assert_eq!(message.ancillary.credentials, Some(Credentials::own()));
}

#[test]
fn a_space_larger_than_the_maximum_is_an_error() {
    let (client, peer) = pair();
    client.send_packet("hello", None).unwrap();
    for space in [MAX_CONTROL_LEN + 1, usize::MAX] {
        let error = peer.recv_message_with_space(NOW, space).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable);
        assert!(error.to_string().contains("1048576"), "{error}");
    }
    let message = peer.recv_message_with_space(NOW, MAX_CONTROL_LEN);
    assert_eq!(message.unwrap().packet, "hello");
}

#[test]
fn iter_received_messages_gives_senders_and_ancillary_data() {
    let (client, server) = client_and_server();
    let null = File::open("/dev/null").unwrap();
    let control = Control::new(&[null.as_fd()], None).unwrap();
    client.send_packet_with("one", &control, None).unwrap();
    client.send_packet("two", None).unwrap();
    let ours = client.local_address().unwrap();
    let messages: Result<Vec<_>, _> = server.iter_received_messages(Duration::ZERO).collect();
    let messages: Vec<_> = messages
        .unwrap()
        .into_iter()
        .map(|message| {
            (
                message.packet,
                message.ancillary.descriptors.len(),
                message.sender,
            )
        })
        .collect();
    let expected = [("one", 1), ("two", 0)];
    assert_eq!(
        messages,
        expected.map(|(packet, descriptors)| (packet.to_owned(), descriptors, ours.clone()))
    );
    server.send_packet_to("three", &ours, None).unwrap();
    let messages: Result<Vec<_>, _> = client.iter_received_messages(Duration::ZERO).collect();
    assert_eq!(messages.unwrap()[0].packet, "three");
}

#[test]
fn options_that_add_ancillary_data_have_setters() {
    let (client, peer) = pair();
    let socket = peer.socket().unwrap();
    socket.set_timestamps(true).unwrap();
    socket.set_passcred(true).unwrap();
    // Linux 6.5 and later.
    let has_pidfd = socket.set_passpidfd(true).is_ok();
    let before = SystemTime::now();
    client.send_packet("stamped", None).unwrap();
    let message = peer.recv_message(SOON).unwrap();
    let time = message.ancillary.time.unwrap();
    // The kernel's clock and ours may differ by a tick.
    assert!(time + Duration::from_millis(20) > before && time <= SystemTime::now());
    assert_eq!(message.ancillary.credentials, Some(Credentials::own()));
    assert_eq!(message.ancillary.pidfd.is_some(), has_pidfd);
    socket.set_timestamps(false).unwrap();
    socket.set_passcred(false).unwrap();
    client.send_packet("plain", None).unwrap();
    let message = peer.recv_message(SOON).unwrap();
    assert_eq!(message.ancillary.time, None);
    assert_eq!(message.ancillary.credentials, None);
}

#[test]
fn a_datagram_larger_than_a_socket_can_carry_is_too_long() {
    let (client, _peer) = pair();
    let packet = "x".repeat(64 << 20);
    let error = client.send_packet(&packet, NOW).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLong);
    assert!(!error.hint().unwrap_or_default().contains("--"), "{error}");
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
enum Request {
    Ping,
    Set { key: String, value: Vec<f64> },
}

fn typed_packets_over(format: impl Format + Clone) {
    let (one, other) = DatagramSocket::pair().unwrap();
    let client =
        UnixDatagramClient::from_connected(one, format.clone().typed_pair::<Request, u64>());
    let client = client.unwrap();
    let server = UnixDatagramClient::from_connected(other, format.typed_pair::<u64, Request>());
    let server = server.unwrap();
    let set = Request::Set {
        key: "é".to_owned(),
        value: vec![0.5, -2.0],
    };
    for request in [Request::Ping, set] {
        client.send_packet(&request, None).unwrap();
        assert_eq!(server.recv_packet(SOON).unwrap(), request);
    }
    server.send_packet(&u64::MAX, None).unwrap();
    assert_eq!(client.recv_packet(SOON).unwrap(), u64::MAX);
    let bytes = b"\xff";
    let raw = server.socket().unwrap();
    raw.try_send(&[udgram::Outgoing {
        bytes,
        ..Default::default()
    }])
    .unwrap();
    assert_eq!(kind(client.recv_packet(SOON)), ErrorKind::Parse);
}

#[test]
fn packets_of_any_serde_type_go_in_json() {
    typed_packets_over(Json);
}

#[cfg(feature = "typed")]
#[test]
fn packets_of_any_serde_type_go_in_cbor_and_messagepack() {
    typed_packets_over(udgram::protocol::Cbor);
    typed_packets_over(udgram::protocol::MessagePack);
}

#[test]
fn one_packet_is_one_datagram_of_any_size() {
    let (client, peer) = pair();
    for size in [0, 1, 300_000, 3_000_000] {
        let packet = "x".repeat(size);
        client.send_packet(&packet, None).unwrap();
        assert_eq!(peer.recv_packet(SOON).unwrap().len(), size);
    }
}

#[test]
fn reading_shut_down_ends_receives_after_what_is_queued() {
    let (client, peer) = pair();
    peer.send_packet("queued", None).unwrap();
    client.socket().unwrap().shutdown_read().unwrap();
    assert_eq!(client.recv_packet(SOON).unwrap(), "queued");
    let end = client.recv_packet(SOON).unwrap_err();
    assert_eq!(end.raw_os_error(), Some(libc::EPIPE));
    assert_eq!(kind(peer.send_packet("", None)), ErrorKind::NobodyThere);
}

#[test]
fn a_client_and_what_it_receives_may_be_shared_and_sent() {
    fn is_shared_and_sent<T: Send + Sync>() {}
    is_shared_and_sent::<Datagram<'_>>();
    is_shared_and_sent::<UnixDatagramClient<Json>>();
    is_shared_and_sent::<UnixDatagramEndpoint<Json>>();
    #[cfg(feature = "async")]
    is_shared_and_sent::<udgram::AsyncUnixDatagramClient<Json>>();
}
