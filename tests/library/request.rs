//! Tests requests to a peer: which packet is the answer, and what happens without one.

use crate::{LIMIT, nobody_forks, this_thread, until_polling, within_limit};
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};
use udgram::ancillary::Control;
use udgram::protocol::{Raw, Text};
use udgram::{DatagramSocket, Error, ErrorKind, UnixDatagramClient, sockopt};

const SOON: Option<Duration> = Some(LIMIT);

fn pair() -> (UnixDatagramClient<Text>, UnixDatagramClient<Text>) {
    let (one, other) = DatagramSocket::pair().unwrap();
    (
        UnixDatagramClient::from_connected(one, Text).unwrap(),
        UnixDatagramClient::from_connected(other, Text).unwrap(),
    )
}

/// Asks `question` in a thread. Returns the thread once it waits for the answer, with its number.
fn ask<'scope>(
    scope: &'scope Scope<'scope, '_>,
    client: &'scope UnixDatagramClient<Text>,
) -> (ScopedJoinHandle<'scope, Result<String, Error>>, i32) {
    let (started, start) = mpsc::channel();
    let asking = scope.spawn(move || {
        started.send(this_thread()).unwrap();
        client.request("question", None)
    });
    let thread = start.recv().unwrap();
    until_polling(thread);
    (asking, thread)
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn packets_queued_before_the_question_are_not_the_answer() {
    within_limit(|| {
        let (ours, theirs) = DatagramSocket::pair().unwrap();
        let client = UnixDatagramClient::from_connected(ours, Text).unwrap();
        let peer = UnixDatagramClient::from_connected(theirs, Raw).unwrap();
        for late in [&b"late"[..], b"not text: \xff", b"late, too"] {
            peer.send_packet(late, None).unwrap();
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(peer.recv_packet(None).unwrap(), b"question");
                peer.send_packet(b"answer", None).unwrap();
                peer.send_packet(b"more", None).unwrap();
            });
            assert_eq!(client.request("question", None).unwrap(), "answer");
        });
        assert_eq!(client.recv_packet(SOON).unwrap(), "more");
    });
}

#[test]
fn a_packet_that_comes_while_the_question_is_unread_is_not_the_answer() {
    within_limit(|| {
        let (client, peer) = pair();
        std::thread::scope(|scope| {
            let (asking, thread) = ask(scope, &client);
            peer.send_packet("late", None).unwrap();
            // The packet was received and is not the answer: the request waits again.
            let socket = peer.socket().unwrap();
            while sockopt::queue(&*socket).unwrap().outq > 0 {
                std::thread::yield_now();
            }
            until_polling(thread);
            assert_eq!(peer.recv_packet(None).unwrap(), "question");
            peer.send_packet("answer", None).unwrap();
            assert_eq!(asking.join().unwrap().unwrap(), "answer");
        });
    });
}

#[test]
fn a_question_without_an_answer_times_out() {
    let (client, _peer) = pair();
    let timeout = Duration::from_millis(30);
    let begin = Instant::now();
    let answer = client.request("question", Some(timeout));
    assert_eq!(kind(answer), ErrorKind::TimedOut);
    assert!(begin.elapsed() >= timeout);
}

#[test]
fn a_peer_that_closes_its_socket_without_an_answer_is_an_error() {
    within_limit(|| {
        for answers in [false, true] {
            let (client, peer) = pair();
            let answer = std::thread::scope(|scope| {
                scope.spawn(|| {
                    assert_eq!(peer.recv_packet(None).unwrap(), "question");
                    if answers {
                        peer.send_packet("answer", None).unwrap();
                    }
                    let _alone = nobody_forks();
                    peer.close();
                });
                client.request("question", None)
            });
            if answers {
                assert_eq!(answer.unwrap(), "answer");
            } else {
                assert_eq!(kind(answer), ErrorKind::NobodyThere);
            }
            assert_eq!(
                kind(client.request("question", None)),
                ErrorKind::NobodyThere
            );
        }
    });
}

#[test]
fn a_question_and_its_answer_may_carry_descriptors() {
    within_limit(|| {
        let (client, peer) = pair();
        let null = File::open("/dev/null").unwrap();
        let control = Control::new(&[null.as_fd()], None).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let question = peer.recv_message(None).unwrap();
                assert_eq!(question.ancillary.descriptors.len(), 1);
                peer.send_packet_with("answer", &control, None).unwrap();
            });
            let answer = client.request_message("question", &control, None).unwrap();
            assert_eq!(answer.packet, "answer");
            assert_eq!(answer.ancillary.descriptors.len(), 1);
        });
    });
}

#[test]
fn a_question_or_an_answer_that_is_not_valid_is_a_parse_error() {
    within_limit(|| {
        let (ours, theirs) = DatagramSocket::pair().unwrap();
        let client = UnixDatagramClient::from_connected(ours, udgram::protocol::Json).unwrap();
        let peer = UnixDatagramClient::from_connected(theirs, Text).unwrap();
        assert_eq!(kind(client.request("{", None)), ErrorKind::Parse);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(peer.recv_packet(None).unwrap(), "1");
                peer.send_packet("not JSON", None).unwrap();
            });
            assert_eq!(kind(client.request("1", None)), ErrorKind::Parse);
        });
    });
}

#[test]
fn a_close_ends_a_request_whose_question_is_unread() {
    within_limit(|| {
        let (client, _peer) = pair();
        std::thread::scope(|scope| {
            let (asking, _) = ask(scope, &client);
            client.close();
            assert_eq!(kind(asking.join().unwrap()), ErrorKind::Closed);
        });
    });
}
