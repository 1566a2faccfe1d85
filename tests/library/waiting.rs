//! Answers that wait for room in `Answers`: how many may wait, in what order they are sent, and what ends the wait.

use super::nobody_forks;
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use udgram::ancillary::ControlSpace;
use udgram::answers::{Answers, Growth, Outcome, Reason, Recipient};
use udgram::users::Users;
use udgram::wait::{Deadline, Wake};
use udgram::{Address, BATCH, Batch, DatagramSocket, ReceiveMode};

/// A server and what it has to send.
struct Setting {
    server: DatagramSocket,
    answers: Answers,
}

/// A client that has asked something.
struct Client {
    socket: UnixDatagram,
    recipient: Recipient,
}

impl Client {
    /// Reads all that is queued. Returns how many datagrams it was.
    fn drain(&self) -> usize {
        self.socket.set_nonblocking(true).unwrap();
        std::iter::from_fn(|| self.socket.recv(&mut [0; 64]).ok()).count()
    }
}

impl Setting {
    fn new(growth: Growth) -> Self {
        Self {
            server: super::named_socket().0,
            answers: Answers::new(growth),
        }
    }

    /// Makes the server and its only client: two sockets that are connected have no queue limit for each other.
    fn pair(growth: Growth) -> (Self, Client) {
        let (server, client) = DatagramSocket::pair().unwrap();
        let socket = UnixDatagram::from(client);
        socket.send(b"?").unwrap();
        let recipient = asker(&server);
        let answers = Answers::new(growth);
        (Self { server, answers }, Client { socket, recipient })
    }

    /// Makes a client with an abstract name. Its queue has a limit.
    fn client(&self) -> Client {
        let socket = UnixDatagram::from(super::named_socket().0);
        let Address::Abstract(name) = self.server.local_address().unwrap() else {
            panic!("the server has no abstract name");
        };
        let to = SocketAddr::from_abstract_name(name).unwrap();
        socket.send_to_addr(b"?", &to).unwrap();
        let recipient = asker(&self.server);
        Client { socket, recipient }
    }

    /// Makes a client for which an empty answer waits.
    fn full_client(&mut self) -> Client {
        let client = self.client();
        self.fill(&client);
        client
    }

    /// Sends empty answers to a client until one waits.
    fn fill(&mut self, client: &Client) {
        let before = self.answers.waiting();
        while self.answers.waiting() == before {
            assert_eq!(self.answer(client, b"", Vec::new()), None);
        }
    }

    /// Sends an answer to a client. Returns why it is not delivered; `None` if it is sent, or waits.
    fn answer(
        &mut self,
        client: &Client,
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Option<Reason> {
        let mut reason = None;
        let to = client.recipient.clone();
        let outcomes = &mut |outcome: Outcome<'_>| {
            if let Outcome::Undelivered(undelivered) = outcome {
                reason = Some(undelivered.reason());
            }
        };
        (self.answers).send_with(&self.server, to, bytes, descriptors, outcomes);
        reason
    }

    /// Lets a client read until no answer waits. Returns the number of answers that each outcome is of, and why
    /// they are not delivered, and whether any other would fail alike.
    fn finish(&mut self, client: &Client) -> Vec<(usize, Option<(Reason, bool)>)> {
        let mut outcomes = Vec::new();
        loop {
            client.drain();
            let left = (self.answers).retry(&self.server, &mut |outcome| {
                outcomes.push(match outcome {
                    Outcome::Sent { .. } => (1, None),
                    Outcome::Undelivered(answers) => (
                        answers.count(),
                        Some((answers.reason(), answers.is_for_all())),
                    ),
                });
            });
            if left.is_none() {
                client.drain();
                return outcomes;
            }
        }
    }
}

/// Receives a datagram, and returns its sender.
fn asker(server: &DatagramSocket) -> Recipient {
    let mut batch = Batch::new(server, ControlSpace::NoDescriptors, 1).unwrap();
    let count = server.try_receive(&mut batch, 1, ReceiveMode::Remove);
    assert_eq!(count.unwrap(), 1);
    let datagram = batch.datagrams().next().unwrap();
    Recipient::of(&datagram, Users::of_this_process())
}

fn descriptors(count: usize) -> Vec<OwnedFd> {
    let null = File::open("/dev/null").unwrap();
    std::iter::repeat_with(|| null.try_clone().unwrap().into())
        .take(count)
        .collect()
}

#[test]
fn answers_are_sent_when_64_are_ready_and_not_before() {
    let (mut setting, client) = Setting::pair(Growth::Allowed);
    // The first answer measures the send buffer.
    assert_eq!(setting.answer(&client, b"1", Vec::new()), None);
    let (sent, before) = (Cell::new(0), RefCell::new(Vec::new()));
    let all = (0..=BATCH).map(|_| {
        before.borrow_mut().push(sent.get());
        (client.recipient.clone(), &b"1"[..])
    });
    let Setting { server, answers } = &mut setting;
    answers.send_all(server, all, &mut |outcome| {
        assert!(matches!(outcome, Outcome::Sent { .. }));
        sent.set(sent.get() + 1);
    });
    let mut expected = vec![0; BATCH];
    expected.push(BATCH);
    assert_eq!(before.into_inner(), expected);
    assert_eq!(sent.get(), BATCH + 1);
    assert_eq!(client.drain(), 1 + BATCH + 1);
}

#[test]
fn at_most_1024_answers_wait_for_one_client_and_10_000_for_all() {
    let mut setting = Setting::new(Growth::Allowed);
    let first = setting.full_client();
    for number in 2..=1024 {
        assert_eq!(
            setting.answer(&first, b"", Vec::new()),
            None,
            "answer {number}"
        );
    }
    assert_eq!(
        setting.answer(&first, b"", Vec::new()),
        Some(Reason::TooMany)
    );
    let others: Vec<Client> = (0..9).map(|_| setting.full_client()).collect();
    for client in &others {
        while setting.answers.waiting() < 10_000 {
            if setting.answer(client, b"", Vec::new()).is_some() {
                break;
            }
        }
    }
    assert_eq!(setting.answers.waiting(), 10_000);
    let last = others.last().unwrap();
    assert_eq!(setting.answer(last, b"", Vec::new()), Some(Reason::TooMany));
}

#[test]
fn at_most_8_mib_of_answers_wait_for_one_client_and_64_mib_for_all() {
    const MIB_8: usize = 8 << 20;
    let bytes = vec![0; MIB_8];
    let mut setting = Setting::new(Growth::Allowed);
    // What was sent does not count any more.
    let early = setting.full_client();
    assert_eq!(setting.answer(&early, b"12345", Vec::new()), None);
    assert_eq!(setting.finish(&early), [(1, None), (1, None)]);
    assert_eq!(setting.answers.waiting(), 0);

    let too_many = Some(Reason::TooMany);
    let clients: Vec<Client> = (0..8).map(|_| setting.full_client()).collect();
    assert_eq!(setting.answer(&clients[0], &bytes, Vec::new()), None);
    assert_eq!(setting.answer(&clients[0], b"1", Vec::new()), too_many);
    assert_eq!(setting.answer(&clients[0], b"", Vec::new()), None);
    for client in &clients[1..] {
        assert_eq!(setting.answer(client, &bytes, Vec::new()), None);
    }
    let other = setting.full_client();
    assert_eq!(setting.answer(&other, b"1", Vec::new()), too_many);
    assert_eq!(setting.answer(&other, b"", Vec::new()), None);
}

#[test]
fn at_most_253_descriptors_wait_with_answers_for_all_clients() {
    let mut setting = Setting::new(Growth::Allowed);
    for _ in 0..2 {
        let (one, other) = (setting.full_client(), setting.full_client());
        assert_eq!(setting.answer(&one, b"1", descriptors(200)), None);
        assert_eq!(setting.answer(&other, b"2", descriptors(53)), None);
        for client in [&one, &other] {
            assert_eq!(
                setting.answer(client, b"3", descriptors(1)),
                Some(Reason::TooMany)
            );
            assert_eq!(setting.answer(client, b"4", Vec::new()), None);
        }
        // Descriptors that were sent do not count any more.
        other.drain();
        let outcomes = setting.finish(&one);
        assert_eq!(outcomes, [(1, None); 6]);
        other.drain();
    }
}

#[test]
fn an_attempt_sends_at_most_64_answers_to_a_client() {
    let (mut setting, client) = Setting::pair(Growth::Allowed);
    setting.fill(&client);
    for _ in 1..100 {
        assert_eq!(setting.answer(&client, b"", Vec::new()), None);
    }
    assert_eq!(setting.answers.waiting(), 100);
    client.drain();
    let mut sent = 0;
    // An attempt before its time sends nothing.
    while sent == 0 {
        let left = (setting.answers).retry(&setting.server, &mut |outcome| {
            assert!(matches!(outcome, Outcome::Sent { .. }), "{outcome:?}");
            sent += 1;
        });
        assert!(left.is_some());
    }
    assert_eq!((sent, setting.answers.waiting()), (64, 36));
}

#[test]
fn all_answers_that_wait_for_a_client_that_goes_are_undelivered_at_once() {
    let mut setting = Setting::new(Growth::Allowed);
    let (gone, other) = (setting.full_client(), setting.full_client());
    for _ in 0..4 {
        assert_eq!(setting.answer(&gone, b"1", Vec::new()), None);
    }
    let alone = nobody_forks();
    drop(gone);
    drop(alone);
    let outcomes = setting.finish(&other);
    assert_eq!(
        outcomes,
        [(5, Some((Reason::Unreachable, true))), (1, None)]
    );
}

#[test]
fn an_answer_that_is_too_long_is_undelivered_alone() {
    let mut setting = Setting::new(Growth::Allowed);
    let client = setting.full_client();
    for len in [1, 6 << 20, 2] {
        assert_eq!(setting.answer(&client, &vec![0; len], Vec::new()), None);
    }
    let too_long = (1, Some((Reason::Unreachable, false)));
    let sent = (1, None);
    assert_eq!(setting.finish(&client), [sent, sent, too_long, sent]);
}

#[test]
fn a_client_whose_next_packet_is_queued_is_answered() {
    let (mut setting, client) = Setting::pair(Growth::Allowed);
    client.socket.send(b"?").unwrap();
    assert_eq!(setting.answer(&client, b"1", Vec::new()), None);
    assert_eq!(setting.answers.waiting(), 0);
    assert_eq!(client.drain(), 1);
}

#[test]
fn answers_that_wait_at_the_end_are_undelivered() {
    let mut setting = Setting::new(Growth::Allowed);
    let client = setting.full_client();
    assert_eq!(setting.answer(&client, b"1", Vec::new()), None);
    let mut outcomes = Vec::new();
    let now = Deadline::after(Some(Duration::ZERO));
    let Setting { server, answers } = &mut setting;
    answers.finish(
        server,
        now,
        &Wake::default(),
        &mut |outcome| match outcome {
            Outcome::Sent { .. } => panic!("{outcome:?}"),
            Outcome::Undelivered(answers) => outcomes.push((answers.count(), answers.reason())),
        },
    );
    assert_eq!(outcomes, [(2, Reason::Ended)]);
    assert_eq!(answers.waiting(), 0);
}

#[test]
fn an_answer_does_not_overtake_one_that_waits_although_there_is_room_again() {
    let mut setting = Setting::new(Growth::Allowed);
    let (slow, quick) = (setting.client(), setting.client());
    // The first answer measures the send buffer. The server does not know that the queue is full.
    assert_eq!(setting.answer(&quick, b"0", Vec::new()), None);
    let Address::Abstract(name) = slow.recipient.address() else {
        panic!("the client has no abstract name");
    };
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to_addr(b"0", &address).is_ok() {}
    let all = [(&slow, b"1"), (&quick, b"2"), (&slow, b"3")];
    let all = all.map(|(client, bytes)| (client.recipient.clone(), &bytes[..]));
    let Setting { server, answers } = &mut setting;
    answers.send_all(server, all, &mut |outcome| {
        assert!(matches!(outcome, Outcome::Sent { .. }), "{outcome:?}");
        slow.drain();
    });
    assert_eq!(answers.waiting(), 2);
    answers.finish(server, Deadline::NEVER, &Wake::default(), &mut |outcome| {
        assert!(matches!(outcome, Outcome::Sent { .. }), "{outcome:?}");
    });
    for expected in [b"1", b"3"] {
        let mut byte = [0];
        assert_eq!(slow.socket.recv(&mut byte).unwrap(), 1);
        assert_eq!(byte, *expected);
    }
}
