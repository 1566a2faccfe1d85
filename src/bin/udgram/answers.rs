//! Sends answers to clients. An answer for which there is no room waits in a queue of its client, so
//! that a client that does not read delays no other client.

use crate::protocol::Client;
use crate::recipient::{Recipient, Refusal};
use crate::report::Report;
use crate::send_buffer::{Growth, SendBuffer};
use crate::stats::TOTALS;
use crate::unanswered::Unanswered;
use anyhow::Result;
use nix::libc;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use udgram::ancillary::{Control, MAX_DESCRIPTORS};
use udgram::wait::{Deadline, Wake, pause};
use udgram::{Error, Outgoing, Subject};

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

/// The sender of answers, with those that wait for room.
#[derive(Debug)]
pub(crate) struct Answers {
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
    unanswered: Unanswered,
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

/// The state of an answer after the call that took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Sent,
    /// It waits for room.
    Waiting,
    /// It was dropped, because too many wait.
    Dropped,
    /// The client cannot be reached, or may not be answered.
    Refused,
}

/// The outcome of an attempt to send an answer.
enum Outcome {
    Sent,
    NoRoom,
    Refused(Refusal),
}

impl Answers {
    pub(crate) fn new(growth: Growth) -> Self {
        Self {
            waiting: HashMap::new(),
            order: VecDeque::new(),
            count: 0,
            bytes: 0,
            descriptors: 0,
            next: Instant::now(),
            interval: INTERVAL.0,
            buffer: SendBuffer::new(growth),
            unanswered: Unanswered::default(),
            own: nix::unistd::geteuid().as_raw(),
        }
    }

    /// Sends an answer, or queues it if there is no room. A failure is reported and is no error.
    pub(crate) fn send(
        &mut self,
        client: &Client,
        recipient: Recipient,
        bytes: &[u8],
        report: Report,
    ) -> Result<()> {
        self.pass(client, recipient, bytes, Vec::new(), report)
            .map(drop)
    }

    /// Sends an answer with descriptors, as [`send`](Self::send) does.
    pub(crate) fn pass(
        &mut self,
        client: &Client,
        recipient: Recipient,
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
        report: Report,
    ) -> Result<Delivery> {
        if !self.waiting.contains_key(&recipient) {
            match self.try_send(client, &recipient, bytes, &descriptors)? {
                Outcome::Sent => return Ok(Delivery::Sent),
                Outcome::NoRoom => {}
                Outcome::Refused(refusal) => {
                    self.unanswered.refused(&recipient, refusal, 1, report);
                    return Ok(Delivery::Refused);
                }
            }
        }
        let queue = self.waiting.get(&recipient);
        let (answers, held) = queue.map_or((0, 0), |queue| (queue.answers.len(), queue.bytes));
        if answers >= MAX_OF_CLIENT.0
            || self.count >= MAX_WAITING.0
            || held + bytes.len() > MAX_OF_CLIENT.1
            || self.bytes + bytes.len() > MAX_WAITING.1
            || (!descriptors.is_empty()
                && self.descriptors + descriptors.len() > MAX_WAITING_DESCRIPTORS)
        {
            let cause = "too many answers wait for it or others to read";
            self.unanswered.dropped(&recipient, cause, 1, report);
            return Ok(Delivery::Dropped);
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
        Ok(Delivery::Waiting)
    }

    /// Sends the answers that wait, as far as there is room. Returns the time until the next attempt;
    /// `None` if no answer waits.
    pub(crate) fn retry(&mut self, client: &Client, report: Report) -> Result<Option<Duration>> {
        if self.order.is_empty() {
            return Ok(None);
        }
        let now = Instant::now();
        if now < self.next {
            return Ok(Some(self.next - now));
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
            sent += self.try_queue(client, &recipient, &mut queue, report)?;
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
        Ok((!self.order.is_empty()).then_some(self.interval))
    }

    /// Sends the answers of one client as far as there is room, and drops those whose deadline has
    /// passed. Returns how many were sent.
    fn try_queue(
        &mut self,
        client: &Client,
        recipient: &Recipient,
        queue: &mut Queue,
        report: Report,
    ) -> Result<usize> {
        let mut sent = 0;
        while let Some(answer) = queue.answers.front().filter(|_| sent < MAX_RETRIED.1) {
            match self.try_send(client, recipient, &answer.bytes, &answer.descriptors)? {
                Outcome::Sent => {
                    queue.remove_first();
                    sent += 1;
                }
                Outcome::NoRoom => {
                    let now = Instant::now();
                    let mut expired = 0;
                    while queue
                        .answers
                        .front()
                        .is_some_and(|answer| answer.deadline <= now)
                    {
                        queue.remove_first();
                        expired += 1;
                    }
                    if expired > 0 {
                        let cause = format!("it had no room for {ROOM_TIMEOUT:?}");
                        self.unanswered.dropped(recipient, &cause, expired, report);
                    }
                    break;
                }
                Outcome::Refused(refusal) => {
                    // The other answers would fail alike, unless this one failed for its length.
                    let refused = if refusal.is_for_all() {
                        queue.answers.len()
                    } else {
                        1
                    };
                    for _ in 0..refused {
                        queue.remove_first();
                    }
                    self.unanswered.refused(recipient, refusal, refused, report);
                }
            }
        }
        Ok(sent)
    }

    fn try_send(
        &mut self,
        client: &Client,
        recipient: &Recipient,
        bytes: &[u8],
        descriptors: &[OwnedFd],
    ) -> Result<Outcome> {
        let socket = client.socket()?;
        if !self.buffer.permits(&socket, recipient, bytes.len()) {
            return Ok(Outcome::NoRoom);
        }
        let to = match recipient.destination(&socket, self.own) {
            Ok(to) => to,
            Err(refusal) => return Ok(Outcome::Refused(refusal)),
        };
        let control = if descriptors.is_empty() {
            None
        } else {
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            Some(Control::new(&borrowed, None)?)
        };
        let message = Outgoing {
            bytes,
            to: to.as_ref(),
            control: control.as_ref(),
        };
        Ok(match socket.try_send_one(&message) {
            Ok(false) => Outcome::NoRoom,
            Ok(true) => {
                self.buffer.add(recipient, bytes.len());
                TOTALS.sent.add(1, bytes.len());
                Outcome::Sent
            }
            Err(error) => {
                // `explain` may list all sockets of the network namespace: do that only for a
                // client that is reported.
                let error = if self.unanswered.will_report(recipient) {
                    socket.explain(&message, &error)
                } else {
                    let errno = error.raw_os_error().unwrap_or(0);
                    Error::from_raw_os_error("send to", Subject::None, errno)
                };
                Outcome::Refused(Refusal::Unreachable(error))
            }
        })
    }

    /// Waits until every answer is sent or its deadline has passed, but no longer than `until`. Reports
    /// the answers that were not sent.
    pub(crate) fn finish(
        &mut self,
        client: &Client,
        report: Report,
        until: Deadline,
        wake: &Wake<'_>,
    ) {
        self.next = Instant::now();
        while let Ok(Some(soon)) = self.retry(client, report) {
            if until.passed() || pause(until.or_after(soon), wake).is_err() {
                break;
            }
        }
        for recipient in std::mem::take(&mut self.order) {
            if let Some(queue) = self.waiting.remove(&recipient) {
                let cause = "it had no room before the end";
                self.unanswered
                    .dropped(&recipient, cause, queue.answers.len(), report);
            }
        }
        self.unanswered.conclude(report);
    }
}

impl Queue {
    fn remove_first(&mut self) {
        if let Some(answer) = self.answers.pop_front() {
            self.bytes -= answer.bytes.len();
            self.descriptors -= answer.descriptors.len();
        }
    }
}

impl Refusal {
    /// Returns whether every answer to the same client fails for this reason.
    fn is_for_all(&self) -> bool {
        let too_long = |error: &Error| {
            matches!(
                error.raw_os_error(),
                Some(libc::EMSGSIZE | libc::ENOBUFS | libc::ENOMEM)
            )
        };
        !matches!(self, Self::Unreachable(error) if too_long(error))
    }
}
