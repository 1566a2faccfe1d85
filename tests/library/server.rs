//! The server: answers many clients, and none of them delays the others.

#![allow(clippy::print_stdout)]

use crate::{named_socket, nobody_forks, within_limit};
use nix::libc;
use std::cell::Cell;
use std::collections::HashSet;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use udgram::ancillary::{Control, Credentials};
use udgram::answers::Reason;
use udgram::protocol::{Json, Raw, Text};
use udgram::{
    Address, DatagramSocket, ErrorKind, Message, ServerEvent, Subject, UnixDatagramClient,
    UnixDatagramEndpoint, UnixDatagramServer,
};

/// The shortest time that an answer waits for room.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

fn bound<P: udgram::protocol::DatagramProtocol>(
    protocol: P,
) -> (UnixDatagramServer<P>, Address<'static>) {
    // An autobound name is not in use.
    let (socket, address) = named_socket();
    drop(socket);
    let server = UnixDatagramServer::bind(&address, protocol).unwrap();
    (server, address)
}

#[allow(clippy::unnecessary_wraps)]
fn echo<R>(request: Message<R>) -> Option<R> {
    Some(request.packet)
}

/// An event of a server, in a form that tests compare.
#[derive(Debug, PartialEq, Eq)]
enum Noted {
    InvalidPacket(String),
    InvalidReply(String),
    Undelivered(Address<'static>, usize, Reason),
}

fn note(event: ServerEvent<'_>) -> Noted {
    match event {
        ServerEvent::InvalidPacket(error) => Noted::InvalidPacket(error.to_string()),
        ServerEvent::InvalidReply(error) => Noted::InvalidReply(error.to_string()),
        ServerEvent::Undelivered(undelivered) => Noted::Undelivered(
            undelivered.recipient().address().clone(),
            undelivered.count(),
            undelivered.reason(),
        ),
        event => panic!("{event:?}"),
    }
}

#[test]
fn every_client_gets_its_own_answers_in_its_own_order() {
    within_limit(|| {
        let (server, address) = bound(Text);
        thread::scope(|scope| {
            let serving = scope.spawn(|| server.serve(echo));
            let clients: Vec<_> = (0..20)
                .map(|client| {
                    let address = &address;
                    scope.spawn(move || {
                        let socket = UnixDatagramClient::connect(address, Text).unwrap();
                        for packet in 0..100 {
                            let packet = format!("{client} {packet}");
                            socket.send_packet(&packet, None).unwrap();
                            assert_eq!(socket.recv_packet(None).unwrap(), packet);
                        }
                        // Several under way at a time.
                        for packet in ["a", "b", "c", "d", "e"] {
                            socket.send_packet(packet, None).unwrap();
                        }
                        let mut answers = socket.iter_received_packets(None).flatten();
                        for packet in ["a", "b", "c", "d", "e"] {
                            assert_eq!(answers.next().unwrap(), packet);
                        }
                    })
                })
                .collect();
            for client in clients {
                client.join().unwrap();
            }
            server.stop();
            serving.join().unwrap().unwrap();
        });
    });
}

#[test]
fn clients_that_do_not_read_delay_no_other_client() {
    within_limit(|| {
        let (server, address) = bound(Text);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deaf");
        let deaf = UnixDatagramEndpoint::bind(path, Text).unwrap();
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            let serving =
                scope.spawn(|| server.serve_with(echo, |event| tell.send(note(event)).unwrap()));
            let start = Instant::now();
            for _ in 0..50 {
                deaf.send_packet_to("x", &address, None).unwrap();
            }
            // The queue of a connected socket has no limit but the send buffer of the server, which
            // these answers would fill.
            let connected = UnixDatagramClient::connect(&address, Text).unwrap();
            for packet in 0..400 {
                connected.send_packet(&packet.to_string(), None).unwrap();
            }
            let client = UnixDatagramClient::connect(&address, Text).unwrap();
            let mut asked = 0;
            let mut dropped = HashSet::new();
            // Ask as long as answers to the others wait, until some of both are dropped.
            while dropped.len() < 2 {
                let packet = format!("{asked}");
                assert_eq!(client.request(&packet, None).unwrap(), packet);
                asked += 1;
                dropped.extend(told.try_iter().map(|noted| match noted {
                    Noted::Undelivered(address, _, Reason::NoRoom) => address,
                    _ => panic!("{noted:?}"),
                }));
            }
            assert!(start.elapsed() >= ROOM_TIMEOUT, "{:?}", start.elapsed());
            assert!(asked > 2, "only {asked} answers");
            let both = [
                deaf.local_address().unwrap(),
                connected.local_address().unwrap(),
            ];
            assert_eq!(dropped, HashSet::from(both));
            // What it had room for is there, in order. On a slow machine, answers to late questions find room that
            // was not there when earlier ones were dropped.
            let answered: Vec<u32> = connected
                .iter_received_packets(Duration::ZERO)
                .map(|packet| packet.unwrap().parse().unwrap())
                .collect();
            assert_eq!(answered.first(), Some(&0));
            assert!(
                answered.is_sorted_by(|one, next| one < next),
                "{answered:?}"
            );
            server.stop();
            serving.join().unwrap().unwrap();
        });
    });
}

#[test]
fn answers_for_which_there_is_no_room_wait_and_arrive_in_order_even_after_a_stop() {
    within_limit(|| {
        let (server, address) = bound(Text);
        let (slow, _) = named_socket();
        let slow = UnixDatagramEndpoint::new(slow, Text).unwrap();
        thread::scope(|scope| {
            let serving = scope.spawn(|| {
                let mut noted = Vec::new();
                let result = server.serve_with(echo, |event| noted.push(note(event)));
                (result, noted)
            });
            for packet in 0..60 {
                slow.send_packet_to(&packet.to_string(), &address, None)
                    .unwrap();
            }
            server.stop();
            let mut answers: Vec<u32> = Vec::new();
            let mut finished = false;
            while !finished {
                finished = serving.is_finished();
                let queued = slow.iter_received_packets(Duration::ZERO);
                answers.extend(queued.map(|packet| packet.unwrap().parse::<u32>().unwrap()));
                thread::yield_now();
            }
            let (result, noted) = serving.join().unwrap();
            result.unwrap();
            assert!(answers.is_sorted(), "{answers:?}");
            // On a busy machine, it may not read for a second.
            let late: usize = noted
                .iter()
                .map(|noted| match noted {
                    Noted::Undelivered(_, count, Reason::NoRoom) => *count,
                    _ => panic!("{noted:?}"),
                })
                .sum();
            assert_eq!(answers.len() + late, 60, "{noted:?}");
        });
    });
}

#[test]
fn a_stop_answers_what_was_sent_before_it() {
    within_limit(|| {
        let (server, address) = bound(Text);
        let client = UnixDatagramClient::connect(&address, Text).unwrap();
        for packet in ["1", "2", "3"] {
            client.send_packet(packet, None).unwrap();
        }
        server.stop();
        assert!(server.is_stopped());
        server.serve(echo).unwrap();
        for packet in ["1", "2", "3"] {
            assert_eq!(client.recv_packet(None).unwrap(), packet);
        }
        let refused = client.send_packet("4", None).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPIPE), "{refused}");
        server.serve(|_| -> Option<String> { panic!() }).unwrap();
    });
}

#[test]
fn a_stop_leaves_the_queue_of_a_socket_that_the_server_has_not_made() {
    within_limit(|| {
        let (socket, address) = named_socket();
        let server = UnixDatagramServer::new(socket.try_clone().unwrap(), Text).unwrap();
        let client = UnixDatagramClient::connect(&address, Text).unwrap();
        for packet in ["stop", "next"] {
            client.send_packet(packet, None).unwrap();
        }
        server
            .serve(|request| {
                server.stop();
                Some(request.packet)
            })
            .unwrap();
        assert_eq!(client.recv_packet(None).unwrap(), "stop");
        drop(server);
        let next = UnixDatagramServer::new(socket, Text).unwrap();
        let closed = next.serve(|request| {
            next.close();
            assert_eq!(request.packet, "next");
            None::<String>
        });
        assert_eq!(closed.unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn a_stop_from_another_thread_ends_a_server_that_sleeps() {
    within_limit(|| {
        for threads in [1, 3] {
            let (server, _) = bound(Text);
            thread::scope(|scope| {
                let (tell, told) = mpsc::channel();
                let serving: Vec<_> = (0..threads)
                    .map(|_| {
                        let (server, tell) = (&server, tell.clone());
                        scope.spawn(move || {
                            tell.send(crate::this_thread()).unwrap();
                            server.serve(echo)
                        })
                    })
                    .collect();
                for _ in 0..threads {
                    crate::until_polling(told.recv().unwrap());
                }
                server.stop();
                for serving in serving {
                    serving.join().unwrap().unwrap();
                }
            });
        }
    });
}

#[test]
fn a_close_from_another_thread_fails_a_server_that_sleeps() {
    within_limit(|| {
        let (server, _) = bound(Text);
        thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let serving = scope.spawn({
                let server = &server;
                move || {
                    tell.send(crate::this_thread()).unwrap();
                    server.serve(echo)
                }
            });
            crate::until_polling(told.recv().unwrap());
            server.close();
            let error = serving.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed);
        });
    });
}

#[test]
fn threads_that_serve_share_the_packets() {
    within_limit(|| {
        let (server, address) = bound(Text);
        let client = UnixDatagramClient::connect(&address, Text).unwrap();
        // Each handler ends only when the other one has begun.
        let both = Barrier::new(2);
        thread::scope(|scope| {
            let serve = || {
                server.serve(|request| {
                    both.wait();
                    echo(request)
                })
            };
            let serving = [scope.spawn(serve), scope.spawn(serve)];
            for packet in ["1", "2"] {
                client.send_packet(packet, None).unwrap();
            }
            let mut answers = [(); 2].map(|()| client.recv_packet(None).unwrap());
            answers.sort();
            assert_eq!(answers, ["1", "2"]);
            server.stop();
            for serving in serving {
                serving.join().unwrap().unwrap();
            }
        });
    });
}

#[test]
fn an_invalid_packet_and_an_invalid_reply_are_events() {
    within_limit(|| {
        let (server, address) = bound(Json);
        let client = UnixDatagramClient::connect(&address, Text).unwrap();
        let own = client.local_address().unwrap();
        for packet in ["[1,]", "1", "2"] {
            client.send_packet(packet, None).unwrap();
        }
        server.stop();
        let mut noted = Vec::new();
        let reply = |request: Message<String>| {
            Some(if request.packet == "1" {
                "{"
            } else {
                "\"two\""
            })
        };
        let note_with_sender = |event: ServerEvent<'_>| {
            if let ServerEvent::InvalidPacket(error) = &event {
                assert_eq!(*error.subject(), Subject::Address(own.clone()));
            }
            noted.push(note(event));
        };
        server.serve_with(reply, note_with_sender).unwrap();
        let [Noted::InvalidPacket(packet), Noted::InvalidReply(reply)] = &noted[..] else {
            panic!("{noted:?}");
        };
        assert!(packet.ends_with("offset 3"), "{packet}");
        assert!(reply.starts_with("cannot send the packet: "), "{reply}");
        assert_eq!(client.recv_packet(None).unwrap(), "\"two\"");
    });
}

#[test]
fn a_client_that_is_gone_is_an_event() {
    within_limit(|| {
        let (server, address) = bound(Text);
        let client = UnixDatagramClient::connect(&address, Text).unwrap();
        let gone = client.local_address().unwrap();
        client.send_packet("1", None).unwrap();
        client.send_packet("2", None).unwrap();
        {
            let _alone = nobody_forks();
            drop(client);
        }
        let unnamed = DatagramSocket::new().unwrap();
        unnamed.connect(&address).unwrap();
        let unnamed = UnixDatagram::from(unnamed);
        unnamed.send(b"3").unwrap();
        let alive = UnixDatagramClient::connect(&address, Text).unwrap();
        alive.send_packet("4", None).unwrap();
        server.stop();
        let mut noted = Vec::new();
        server
            .serve_with(echo, |event| noted.push(note(event)))
            .unwrap();
        assert_eq!(
            noted,
            [
                Noted::Undelivered(gone.clone(), 1, Reason::Unreachable),
                Noted::Undelivered(gone, 1, Reason::Unreachable),
                Noted::Undelivered(Address::Unnamed, 1, Reason::Unnamed),
            ]
        );
        assert_eq!(alive.recv_packet(None).unwrap(), "4");
    });
}

#[test]
fn a_reply_may_have_four_megabytes() {
    within_limit(|| {
        let (server, address) = bound(Raw);
        let client = UnixDatagramClient::connect(&address, Raw).unwrap();
        thread::scope(|scope| {
            let serving = scope.spawn(|| {
                server.serve_with(
                    |request| Some(request.packet.repeat(1 << 20)),
                    |event| panic!("{event:?}"),
                )
            });
            for packet in [b"four", b"more"] {
                client.send_packet(packet, None).unwrap();
                let answer = client.recv_packet(None).unwrap();
                assert!(answer == packet.repeat(1 << 20), "{} bytes", answer.len());
            }
            server.stop();
            serving.join().unwrap().unwrap();
        });
    });
}

#[test]
fn a_request_has_credentials_and_its_descriptors_are_closed_with_it() {
    within_limit(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let server = UnixDatagramServer::bind(&path, Text).unwrap();
        // It is answered by its pathname.
        let own = directory.path().join("me.sock");
        let client = UnixDatagramClient::connect_from(&own, &path, Text).unwrap();
        let (reader, writer) = UnixDatagram::pair().unwrap();
        reader.set_nonblocking(true).unwrap();
        let control = Control::new(&[writer.as_fd()], None).unwrap();
        client.send_packet_with("1", &control, None).unwrap();
        client.send_packet_with("taken", &control, None).unwrap();
        server.stop();
        let mut taken = Vec::new();
        let alone = nobody_forks();
        drop(writer);
        server
            .serve(|request| {
                assert_eq!(request.ancillary.credentials, Some(Credentials::own()));
                assert_eq!(request.ancillary.descriptors.len(), 1);
                if request.packet == "taken" {
                    taken.extend(request.ancillary.descriptors);
                }
                Some(request.packet)
            })
            .unwrap();
        assert_eq!(client.recv_packet(None).unwrap(), "1");
        let writer = UnixDatagram::from(taken.pop().unwrap());
        writer.send(b"open").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(reader.recv(&mut buffer).unwrap(), 4);
        drop(writer);
        // The peer is gone once no copy is open.
        let gone = reader.send(b"x").unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ECONNREFUSED));
        drop(alone);
    });
}

#[test]
fn a_panic_in_the_handler_leaves_no_socket_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let served = catch_unwind(AssertUnwindSafe(|| {
        let server = UnixDatagramServer::bind(&path, Text).unwrap();
        let client = UnixDatagramClient::connect(&path, Text).unwrap();
        client.send_packet("1", None).unwrap();
        server.serve(|_| -> Option<String> { panic!("the handler panics") })
    }));
    assert!(served.is_err());
    assert!(!path.exists());
}

#[test]
fn a_server_that_is_dropped_removes_its_socket_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let server = UnixDatagramServer::bind(&path, Text).unwrap();
    assert!(path.exists());
    // Whoever still has the socket, the file goes first.
    let socket = server.endpoint().socket().unwrap();
    drop(server);
    assert!(!path.exists());
    drop(socket);
}

#[test]
fn a_client_of_a_given_socket_that_sent_too_early_for_its_credentials_is_not_answered() {
    within_limit(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let endpoint = UnixDatagramEndpoint::bind(path("app"), Text).unwrap();
        let client = UnixDatagramClient::connect_from(path("me"), path("app"), Text).unwrap();
        client.send_packet("early", None).unwrap();
        let server = UnixDatagramServer::from_endpoint(endpoint).unwrap();
        client.send_packet("1", None).unwrap();
        let (mut noted, left) = (Vec::new(), Cell::new(2));
        let reply = |request| {
            left.set(left.get() - 1);
            if left.get() == 0 {
                server.stop();
            }
            echo(request)
        };
        server
            .serve_with(reply, |event| noted.push(note(event)))
            .unwrap();
        let own = client.local_address().unwrap();
        assert_eq!(noted, [Noted::Undelivered(own, 1, Reason::Untrusted)]);
        assert_eq!(client.recv_packet(None).unwrap(), "1");
    });
}

#[test]
fn a_client_whose_file_belongs_to_another_user_than_its_packet_is_not_answered() {
    if !nix::unistd::geteuid().is_root() {
        let skipped = "skipped: only root may claim to be another user";
        assert!(
            std::env::var_os("UDGRAM_FORBID_SKIPS").is_none_or(|value| value != "1"),
            "{skipped}"
        );
        println!("{skipped}");
        return;
    }
    within_limit(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let server = UnixDatagramServer::bind(path("app"), Text).unwrap();
        let client = UnixDatagramClient::connect_from(path("me"), path("app"), Text).unwrap();
        let other = Credentials {
            uid: 12_345,
            ..Credentials::own()
        };
        let control = Control::new(&[], Some(other)).unwrap();
        client.send_packet_with("other", &control, None).unwrap();
        client.send_packet("own", None).unwrap();
        server.stop();
        let mut noted = Vec::new();
        server
            .serve_with(echo, |event| noted.push(note(event)))
            .unwrap();
        let own = client.local_address().unwrap();
        assert_eq!(noted, [Noted::Undelivered(own, 1, Reason::Untrusted)]);
        assert_eq!(client.recv_packet(None).unwrap(), "own");
    });
}

#[test]
fn the_descriptors_by_which_a_server_and_a_client_are_stopped_close_on_exec() {
    let (server, address) = bound(Text);
    let client = UnixDatagramClient::connect(&address, Text).unwrap();
    let mut events = 0;
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        // Another test may close it meanwhile.
        let is_event = std::fs::read_link(&path)
            .is_ok_and(|target| target.as_os_str() == "anon_inode:[eventfd]");
        let number = path.file_name().unwrap().to_str().unwrap();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"));
        let Some(info) = info.ok().filter(|_| is_event) else {
            continue;
        };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = i32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        assert_eq!(flags & libc::O_CLOEXEC, libc::O_CLOEXEC, "{info}");
        events += 1;
    }
    assert!(events >= 3, "{events}");
    drop((server, client));
}
