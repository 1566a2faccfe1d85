//! Answers on their way: those that find no room wait, for each client in order, and hold up nobody
//! else.

use crate::protocol::Client;
use crate::recipient::{Asker, Refusal};
use crate::report::Report;
use crate::send_buffer::{Growth, SendBuffer};
use crate::stats::TOTALS;
use crate::unanswered::Unanswered;
use anyhow::Result;
use nix::libc;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};
use udgram::wait::{Deadline, Wake, pause};
use udgram::{Error, Outgoing, Subject};

/// How long an answer waits for room.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many answers wait for one client, and their bytes.
const MAX_OF_CLIENT: (usize, usize) = (1024, 8 << 20);
/// How many answers wait, and their bytes.
const MAX_WAITING: (usize, usize) = (10_000, 64 << 20);
/// How many clients are tried before the next packet is received, and how many answers go to each.
const PASS: (usize, usize) = (64, 64);
/// The shortest and the longest time between two tries. Nothing announces room in the queue of
/// another socket.
const INTERVAL: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(16));

/// Sends answers.
#[derive(Debug)]
pub(crate) struct Answers {
    waiting: HashMap<Asker, Queue>,
    /// The clients in `waiting`, in the order in which they are tried.
    order: VecDeque<Asker>,
    /// How many answers wait, and their bytes.
    count: usize,
    bytes: usize,
    next: Instant,
    interval: Duration,
    buffer: SendBuffer,
    unanswered: Unanswered,
    /// Effective user of this process.
    own: u32,
}

/// The answers that wait for one client.
#[derive(Debug, Default)]
struct Queue {
    answers: VecDeque<Answer>,
    bytes: usize,
}

#[derive(Debug)]
struct Answer {
    bytes: Box<[u8]>,
    deadline: Instant,
}

/// Outcome of a try.
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
            next: Instant::now(),
            interval: INTERVAL.0,
            buffer: SendBuffer::new(growth),
            unanswered: Unanswered::default(),
            own: nix::unistd::geteuid().as_raw(),
        }
    }

    /// Sends an answer, or keeps it until there is room. A failure is only reported.
    pub(crate) fn send(
        &mut self,
        client: &Client,
        asker: Asker,
        bytes: &[u8],
        report: Report,
    ) -> Result<()> {
        if !self.waiting.contains_key(&asker) {
            match self.try_send(client, &asker, bytes)? {
                Outcome::Sent => return Ok(()),
                Outcome::NoRoom => {}
                Outcome::Refused(refusal) => {
                    self.unanswered.refused(&asker, refusal, 1, report);
                    return Ok(());
                }
            }
        }
        let queue = self.waiting.get(&asker);
        let (answers, held) = queue.map_or((0, 0), |queue| (queue.answers.len(), queue.bytes));
        if answers >= MAX_OF_CLIENT.0
            || self.count >= MAX_WAITING.0
            || held + bytes.len() > MAX_OF_CLIENT.1
            || self.bytes + bytes.len() > MAX_WAITING.1
        {
            let cause = "too many answers wait for it or others to read";
            self.unanswered.dropped(&asker, cause, 1, report);
            return Ok(());
        }
        let now = Instant::now();
        if self.order.is_empty() {
            self.interval = INTERVAL.0;
            self.next = now + self.interval;
        }
        if queue.is_none() {
            self.order.push_back(asker.clone());
        }
        let queue = self.waiting.entry(asker).or_default();
        queue.answers.push_back(Answer {
            bytes: bytes.into(),
            deadline: now + PATIENCE,
        });
        queue.bytes += bytes.len();
        self.count += 1;
        self.bytes += bytes.len();
        Ok(())
    }

    /// Tries the answers that wait. Returns how soon they are to be tried again; `None` if none waits.
    pub(crate) fn retry(&mut self, client: &Client, report: Report) -> Result<Option<Duration>> {
        if self.order.is_empty() {
            return Ok(None);
        }
        let now = Instant::now();
        if now < self.next {
            return Ok(Some(self.next - now));
        }
        let mut sent = 0;
        for _ in 0..self.order.len().min(PASS.0) {
            let Some(asker) = self.order.pop_front() else {
                break;
            };
            let Some(mut queue) = self.waiting.remove(&asker) else {
                continue;
            };
            let (count, bytes) = (queue.answers.len(), queue.bytes);
            sent += self.try_queue(client, &asker, &mut queue, report)?;
            self.count -= count - queue.answers.len();
            self.bytes -= bytes - queue.bytes;
            if !queue.answers.is_empty() {
                self.waiting.insert(asker.clone(), queue);
                self.order.push_back(asker);
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

    /// Sends what there is room for, and drops what has waited for too long. Returns how many were
    /// sent.
    fn try_queue(
        &mut self,
        client: &Client,
        asker: &Asker,
        queue: &mut Queue,
        report: Report,
    ) -> Result<usize> {
        let mut sent = 0;
        while let Some(answer) = queue.answers.front().filter(|_| sent < PASS.1) {
            match self.try_send(client, asker, &answer.bytes)? {
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
                        let cause = format!("it had no room for {PATIENCE:?}");
                        self.unanswered.dropped(asker, &cause, expired, report);
                    }
                    break;
                }
                Outcome::Refused(refusal) => {
                    // The next one meets the same, unless this one is too long.
                    let refused = if refusal.is_for_all() {
                        queue.answers.len()
                    } else {
                        1
                    };
                    for _ in 0..refused {
                        queue.remove_first();
                    }
                    self.unanswered.refused(asker, refusal, refused, report);
                }
            }
        }
        Ok(sent)
    }

    fn try_send(&mut self, client: &Client, asker: &Asker, bytes: &[u8]) -> Result<Outcome> {
        let socket = client.socket()?;
        if !self.buffer.permits(&socket, asker, bytes.len()) {
            return Ok(Outcome::NoRoom);
        }
        let to = match asker.destination(&socket, self.own) {
            Ok(to) => to,
            Err(refusal) => return Ok(Outcome::Refused(refusal)),
        };
        let message = Outgoing {
            bytes,
            to: to.as_ref(),
            control: None,
        };
        Ok(match socket.try_send_one(&message) {
            Ok(false) => Outcome::NoRoom,
            Ok(true) => {
                self.buffer.add(asker, bytes.len());
                TOTALS.sent.add(1, bytes.len());
                Outcome::Sent
            }
            Err(error) => {
                // To explain each of many would hold up the others.
                let error = if self.unanswered.reports(asker) {
                    socket.explain(&message, &error)
                } else {
                    let errno = error.raw_os_error().unwrap_or(0);
                    Error::from_raw_os_error("send to", Subject::None, errno)
                };
                Outcome::Refused(Refusal::Unreachable(error))
            }
        })
    }

    /// Gives the answers that wait the rest of their time, until `until` at most, and reports those
    /// that were not sent.
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
        for asker in std::mem::take(&mut self.order) {
            if let Some(queue) = self.waiting.remove(&asker) {
                let cause = "it had no room before the end";
                self.unanswered
                    .dropped(&asker, cause, queue.answers.len(), report);
            }
        }
        self.unanswered.conclude(report);
    }
}

impl Queue {
    fn remove_first(&mut self) {
        if let Some(answer) = self.answers.pop_front() {
            self.bytes -= answer.bytes.len();
        }
    }
}

impl Refusal {
    /// Returns whether it holds for every answer to the same client.
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
