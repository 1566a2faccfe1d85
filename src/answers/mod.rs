//! Sends answers to clients. An answer for which there is no room waits in a queue of its client, so
//! that a client that does not read delays no other client.

mod outcome;
mod recipient;
mod send_buffer;

pub use outcome::{Outcome, Reason, Undelivered};
pub use recipient::Recipient;
pub use send_buffer::Growth;

use crate::ancillary::{Control, MAX_DESCRIPTORS};
use crate::batch::BATCH;
use crate::outgoing::{Destination, Outgoing};
use crate::socket::DatagramSocket;
use crate::wait::{Deadline, Ready as Event, Until, Wake, pause, wait};
use nix::libc::ECONNREFUSED;
use outcome::{Cause, Failure};
use send_buffer::SendBuffer;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// The time that an answer waits for room before it is dropped.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest number of answers that wait for one client, and of their bytes.
const MAX_OF_CLIENT: (usize, usize) = (1024, 8 << 20);
/// The largest number of answers that wait for all clients, and of their bytes.
const MAX_WAITING: (usize, usize) = (10_000, 64 << 20);
/// The largest number of descriptors that wait with answers for all clients.
const MAX_WAITING_DESCRIPTORS: usize = MAX_DESCRIPTORS;
/// The largest number of clients that one call of [`Answers::retry`] sends to, and of answers to each:
/// then the next packet is received.
const MAX_RETRIED: (usize, usize) = (64, 64);
/// The shortest and the longest time between two attempts. poll(2) does not report room in the queue
/// of a socket that this one is not connected to.
const INTERVAL: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(16));

/// Sends answers over one socket, and keeps those for which there is no room.
///
/// An answer for which its client has no room waits for up to a second, and does not delay the answers
/// to other clients. At most 1024 answers or 8 MiB wait for one client, and 10,000 or 64 MiB for all.
/// The answers to one client are sent in order. The [`Outcome`] of each is given to a function; a client
/// that cannot be answered is never an error.
#[derive(Debug)]
pub struct Answers {
    waiting: HashMap<Recipient, Queue>,
    /// The clients in `waiting`, in the order of the next attempts.
    order: VecDeque<Recipient>,
    /// The number of answers that wait.
    count: usize,
    /// The bytes of these answers.
    bytes: usize,
    /// The descriptors of these answers.
    descriptors: usize,
    /// The time of the next attempt.
    next: Instant,
    /// The time from one attempt to the next.
    interval: Duration,
    buffer: SendBuffer,
    /// The effective user of this process.
    own: u32,
}

/// The answers that wait for one client.
#[derive(Debug, Default)]
struct Queue {
    answers: VecDeque<Answer>,
    bytes: usize,
    descriptors: usize,
}

#[derive(Debug)]
struct Answer {
    bytes: Box<[u8]>,
    descriptors: Vec<OwnedFd>,
    deadline: Instant,
}

/// An answer that is sent together with others.
struct Ready<'b> {
    recipient: Recipient,
    to: Option<Destination>,
    bytes: &'b [u8],
}

/// An attempt to send an answer.
enum Attempt {
    Sent,
    NoRoom,
    Failed(Failure),
}

impl Answers {
    /// Makes a sender of answers. `growth` says whether it may enlarge the send buffer (`SO_SNDBUF`) of
    /// its socket.
    #[must_use]
    pub fn new(growth: Growth) -> Self {
        Self {
            waiting: HashMap::new(),
            order: VecDeque::new(),
            count: 0,
            bytes: 0,
            descriptors: 0,
            next: Instant::now(),
            interval: INTERVAL.0,
            buffer: SendBuffer::new(growth),
            own: nix::unistd::geteuid().as_raw(),
        }
    }

    /// Returns how many answers wait for room.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.count
    }

    /// Sends an answer, or queues it if there is no room; then call [`retry`](Self::retry) until it is
    /// sent. Does not wait. Always use the same `socket`.
    ///
    /// ```
    /// use udgram::ancillary::ControlSpace;
    /// use udgram::answers::{Answers, Growth, Outcome, Recipient};
    /// use udgram::users::Users;
    /// use udgram::{Batch, DatagramSocket, ReceiveMode};
    ///
    /// let (server, client) = DatagramSocket::pair()?;
    /// # client.try_send(&[udgram::Outgoing { bytes: b"ping", ..Default::default() }])?;
    /// let mut batch = Batch::new(&server, ControlSpace::NoDescriptors, 1)?;
    /// server.try_receive(&mut batch, 1, ReceiveMode::Remove)?;
    /// let users = Users::of_this_process();
    /// let mut answers = Answers::new(Growth::Allowed);
    /// let mut sent = 0;
    /// for datagram in batch.datagrams() {
    ///     let recipient = Recipient::of(&datagram, users);
    ///     answers.send(&server, recipient, b"pong", &mut |outcome| match outcome {
    ///         Outcome::Sent { .. } => sent += 1,
    ///         Outcome::Undelivered(undelivered) => println!("{}", undelivered.error()),
    ///     });
    /// }
    /// assert_eq!(sent, 1);
    /// # Ok::<(), udgram::Error>(())
    /// ```
    pub fn send(
        &mut self,
        socket: &DatagramSocket,
        recipient: Recipient,
        bytes: &[u8],
        outcomes: &mut dyn FnMut(Outcome<'_>),
    ) {
        self.send_with(socket, recipient, bytes, Vec::new(), outcomes);
    }

    /// Sends an answer with descriptors, as [`send`](Self::send) does. At most 253 descriptors wait with
    /// answers for all clients.
    pub fn send_with(
        &mut self,
        socket: &DatagramSocket,
        recipient: Recipient,
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
        outcomes: &mut dyn FnMut(Outcome<'_>),
    ) {
        if !self.waiting.contains_key(&recipient) {
            match self.try_send(socket, &recipient, bytes, &descriptors) {
                Attempt::NoRoom => {}
                Attempt::Sent => return outcomes(Outcome::sent(&recipient, bytes)),
                Attempt::Failed(failure) => {
                    let cause = Cause::Failure {
                        failure,
                        socket,
                        bytes,
                    };
                    return outcomes(Outcome::undelivered(&recipient, 1, cause));
                }
            }
        }
        self.enqueue(recipient, bytes, descriptors, outcomes);
    }

    /// Sends answers in order, as [`send`](Self::send) does, up to [`BATCH`] of them with one
    /// system call.
    pub fn send_all<'b>(
        &mut self,
        socket: &DatagramSocket,
        answers: impl IntoIterator<Item = (Recipient, &'b [u8])>,
        outcomes: &mut dyn FnMut(Outcome<'_>),
    ) {
        let mut ready = Vec::new();
        for (recipient, bytes) in answers {
            let waits = self.waiting.contains_key(&recipient);
            let to = if waits || !self.buffer.fits(&recipient, bytes.len()) {
                None
            } else {
                recipient.destination(socket, self.own).ok()
            };
            let Some(to) = to else {
                self.send_ready(socket, &mut ready, outcomes);
                self.send(socket, recipient, bytes, outcomes);
                continue;
            };
            self.buffer.add(&recipient, bytes.len());
            // At most one file is open at a time.
            let is_last = to.as_ref().is_some_and(Destination::needs_proc);
            ready.push(Ready {
                recipient,
                to,
                bytes,
            });
            if is_last || ready.len() == BATCH {
                self.send_ready(socket, &mut ready, outcomes);
            }
        }
        self.send_ready(socket, &mut ready, outcomes);
    }

    /// Sends the answers that are ready. Those for which there is no room wait.
    fn send_ready(
        &mut self,
        socket: &DatagramSocket,
        ready: &mut Vec<Ready<'_>>,
        outcomes: &mut dyn FnMut(Outcome<'_>),
    ) {
        let mut done = 0;
        while done < ready.len() {
            let rest = &ready[done..];
            let waits = |answer: &Ready<'_>| self.waiting.contains_key(&answer.recipient);
            let messages: Vec<_> = rest
                .iter()
                .take_while(|answer| !waits(answer) && answer.to.is_none() == rest[0].to.is_none())
                .map(|answer| Outgoing {
                    bytes: answer.bytes,
                    to: answer.to.as_ref(),
                    control: None,
                })
                .collect();
            let to = rest[0].to.as_ref();
            let sent = spare_queue(socket, to).and_then(|()| socket.try_send_some(&messages));
            for answer in &rest[..*sent.as_ref().unwrap_or(&0)] {
                outcomes(Outcome::sent(&answer.recipient, answer.bytes));
            }
            let head = &mut ready[done];
            let bytes = head.bytes;
            if !matches!(sent, Ok(1..)) {
                self.buffer.take_back(&head.recipient, bytes.len());
            }
            done += match sent {
                Ok(0) => {
                    self.enqueue(head.recipient.clone(), bytes, Vec::new(), outcomes);
                    1
                }
                Ok(count) => count,
                Err(error) => {
                    let cause = Cause::Failure {
                        failure: Failure::System(head.to.take(), error),
                        socket,
                        bytes,
                    };
                    outcomes(Outcome::undelivered(&head.recipient, 1, cause));
                    1
                }
            };
        }
        ready.clear();
    }

    /// Lets an answer wait for room, unless too many wait already.
    fn enqueue(
        &mut self,
        recipient: Recipient,
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
        outcomes: &mut dyn FnMut(Outcome<'_>),
    ) {
        let queue = self.waiting.get(&recipient);
        let (answers, held) = queue.map_or((0, 0), |queue| (queue.answers.len(), queue.bytes));
        if answers >= MAX_OF_CLIENT.0
            || self.count >= MAX_WAITING.0
            || held + bytes.len() > MAX_OF_CLIENT.1
            || self.bytes + bytes.len() > MAX_WAITING.1
            || (!descriptors.is_empty()
                && self.descriptors + descriptors.len() > MAX_WAITING_DESCRIPTORS)
        {
            return outcomes(Outcome::undelivered(&recipient, 1, Cause::TooMany));
        }
        let now = Instant::now();
        if self.order.is_empty() {
            self.interval = INTERVAL.0;
            self.next = now + self.interval;
        }
        if queue.is_none() {
            self.order.push_back(recipient.clone());
        }
        let queue = self.waiting.entry(recipient).or_default();
        queue.bytes += bytes.len();
        queue.descriptors += descriptors.len();
        self.count += 1;
        self.bytes += bytes.len();
        self.descriptors += descriptors.len();
        queue.answers.push_back(Answer {
            bytes: bytes.into(),
            descriptors,
            deadline: now + ROOM_TIMEOUT,
        });
    }

    /// Sends the answers that wait, as far as there is room. Returns the time until the next attempt;
    /// `None` if no answer waits.
    pub fn retry(
        &mut self,
        socket: &DatagramSocket,
        outcomes: &mut dyn FnMut(Outcome<'_>),
    ) -> Option<Duration> {
        if self.order.is_empty() {
            return None;
        }
        let now = Instant::now();
        if now < self.next {
            return Some(self.next - now);
        }
        let mut sent = 0;
        for _ in 0..self.order.len().min(MAX_RETRIED.0) {
            let Some(recipient) = self.order.pop_front() else {
                break;
            };
            let Some(mut queue) = self.waiting.remove(&recipient) else {
                continue;
            };
            let (count, bytes) = (queue.answers.len(), queue.bytes);
            let descriptors = queue.descriptors;
            sent += self.try_queue(socket, &recipient, &mut queue, outcomes);
            self.count -= count - queue.answers.len();
            self.bytes -= bytes - queue.bytes;
            self.descriptors -= descriptors - queue.descriptors;
            if !queue.answers.is_empty() {
                self.waiting.insert(recipient.clone(), queue);
                self.order.push_back(recipient);
            }
        }
        self.interval = if sent > 0 {
            INTERVAL.0
        } else {
            (self.interval * 2).min(INTERVAL.1)
        };
        self.next = now + self.interval;
        (!self.order.is_empty()).then_some(self.interval)
    }

    /// Sends the answers of one client as far as there is room, and drops those whose deadline has
    /// passed. Returns how many were sent.
    fn try_queue(
        &mut self,
        socket: &DatagramSocket,
        recipient: &Recipient,
        queue: &mut Queue,
        outcomes: &mut dyn FnMut(Outcome<'_>),
    ) -> usize {
        let mut sent = 0;
        while let Some(answer) = queue.answers.front().filter(|_| sent < MAX_RETRIED.1) {
            match self.try_send(socket, recipient, &answer.bytes, &answer.descriptors) {
                Attempt::Sent => {
                    outcomes(Outcome::sent(recipient, &answer.bytes));
                    queue.remove_first();
                    sent += 1;
                }
                Attempt::NoRoom => {
                    let expired = queue.remove_expired();
                    if expired > 0 {
                        let cause = Cause::NoRoom(ROOM_TIMEOUT);
                        outcomes(Outcome::undelivered(recipient, expired, cause));
                    }
                    break;
                }
                Attempt::Failed(failure) => {
                    // The other answers would fail alike, unless this one failed for its length.
                    let others = if failure.is_for_all() {
                        queue.answers.len() - 1
                    } else {
                        0
                    };
                    let bytes = &answer.bytes;
                    let cause = Cause::Failure {
                        failure,
                        socket,
                        bytes,
                    };
                    outcomes(Outcome::undelivered(recipient, 1 + others, cause));
                    for _ in 0..=others {
                        queue.remove_first();
                    }
                }
            }
        }
        sent
    }

    fn try_send(
        &mut self,
        socket: &DatagramSocket,
        recipient: &Recipient,
        bytes: &[u8],
        descriptors: &[OwnedFd],
    ) -> Attempt {
        if !self.buffer.permits(socket, recipient, bytes.len()) {
            return Attempt::NoRoom;
        }
        let to = match recipient.destination(socket, self.own) {
            Ok(to) => to,
            Err(refusal) => return Attempt::Failed(Failure::Refused(refusal)),
        };
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let control = match Control::new(&borrowed, None) {
            Ok(control) => control,
            Err(error) => return Attempt::Failed(Failure::Refused(error.into())),
        };
        let message = Outgoing {
            bytes,
            to: to.as_ref(),
            control: Some(&control),
        };
        match spare_queue(socket, to.as_ref()).and_then(|()| socket.try_send_one(&message)) {
            Ok(false) => Attempt::NoRoom,
            Ok(true) => {
                self.buffer.add(recipient, bytes.len());
                Attempt::Sent
            }
            Err(error) => Attempt::Failed(Failure::System(to, error)),
        }
    }

    /// Waits until every answer is sent or its deadline has passed, but no longer than `until`, and no
    /// longer than `wake` permits. The answers that wait then are not delivered.
    pub fn finish(
        &mut self,
        socket: &DatagramSocket,
        until: Deadline,
        wake: &Wake<'_>,
        outcomes: &mut dyn FnMut(Outcome<'_>),
    ) {
        self.next = Instant::now();
        while let Some(soon) = self.retry(socket, outcomes) {
            if until.passed() || pause(until.or_after(soon), wake).is_err() {
                break;
            }
        }
        self.abandon(outcomes);
    }

    /// Drops the answers that wait.
    pub(crate) fn abandon(&mut self, outcomes: &mut dyn FnMut(Outcome<'_>)) {
        for recipient in std::mem::take(&mut self.order) {
            if let Some(queue) = self.waiting.remove(&recipient) {
                let count = queue.answers.len();
                outcomes(Outcome::undelivered(&recipient, count, Cause::Ended));
            }
        }
        self.count = 0;
        self.bytes = 0;
        self.descriptors = 0;
    }
}

/// Fails with ECONNREFUSED, as sending would, if sending discarded packets that are not received yet.
///
/// A failure to send to the connected peer (`to` is `None`), because it has closed its socket, empties the
/// queue of this socket (`unix_dgram_disconnected`). A peer that sends and closes between this check
/// and the next system call, a few microseconds, still loses its packets.
fn spare_queue(socket: &DatagramSocket, to: Option<&Destination>) -> io::Result<()> {
    if to.is_none() && has_packets(socket) && socket.peer_is_closed() {
        return Err(io::Error::from_raw_os_error(ECONNREFUSED));
    }
    Ok(())
}

fn has_packets(socket: &DatagramSocket) -> bool {
    let now = Deadline::after(Some(Duration::ZERO));
    let event = wait(socket, Until::Readable, now, &Wake::default());
    matches!(event, Ok(Some(Event::Now)))
}

impl Queue {
    fn remove_first(&mut self) {
        if let Some(answer) = self.answers.pop_front() {
            self.bytes -= answer.bytes.len();
            self.descriptors -= answer.descriptors.len();
        }
    }

    /// Removes the answers whose deadline has passed. Returns how many they were.
    fn remove_expired(&mut self) -> usize {
        let now = Instant::now();
        let first = self.answers.iter();
        let expired = first.take_while(|answer| answer.deadline <= now).count();
        for _ in 0..expired {
            self.remove_first();
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::users::Users;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn attempts_without_room_are_ever_longer_apart_and_one_with_room_ends_that() {
        let (server, client) = DatagramSocket::pair().unwrap();
        let client = UnixDatagram::from(client);
        client.set_nonblocking(true).unwrap();
        let recipient = Recipient::new(Address::Unnamed, None, Users::of_this_process());
        let mut answers = Answers::new(Growth::Forbidden);
        while answers.waiting() == 0 {
            answers.send(&server, recipient.clone(), b"1", &mut |_| {});
        }
        let queue = answers.waiting.get_mut(&recipient).unwrap();
        queue.answers[0].deadline += Duration::from_secs(10_000);
        let mut intervals = Vec::new();
        for _ in 0..9 {
            answers.next = Instant::now();
            let left = answers.retry(&server, &mut |outcome| panic!("{outcome:?}"));
            intervals.push(left.unwrap());
        }
        let expected = [2, 4, 8, 16, 32, 64, 128, 160, 160].map(|times: u32| INTERVAL.0 * times);
        assert_eq!(intervals, expected);
        while client.recv(&mut [0]).is_ok() {}
        // Before its time, no attempt is made.
        answers.next = Instant::now() + Duration::from_secs(10_000);
        let left = answers.retry(&server, &mut |outcome| panic!("{outcome:?}"));
        assert!(left > Some(Duration::from_secs(5000)));
        answers.next = Instant::now();
        assert_eq!(answers.retry(&server, &mut |_| {}), None);
        assert_eq!(answers.interval, INTERVAL.0);
    }
}
