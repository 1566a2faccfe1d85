//! Sends answers to clients, counts those that were sent, and reports those that were not.

use crate::protocol::Client;
use crate::report::Report;
use crate::unanswered::Unanswered;
use anyhow::Result;
use std::os::fd::OwnedFd;
use std::time::Duration;
use udgram::answers::{self, Growth, Outcome, Recipient};
use udgram::wait::{Deadline, Wake};

/// The sender of answers, with those that wait for room.
#[derive(Debug)]
pub(crate) struct Answers {
    answers: answers::Answers,
    unanswered: Unanswered,
}

/// The state of an answer after the call that took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It was sent, waits for room, or was dropped for a reason of its own.
    Accepted,
    /// The client is gone, or may not be answered.
    Refused,
}

impl Answers {
    pub(crate) fn new(growth: Growth) -> Self {
        Self {
            answers: answers::Answers::new(growth),
            unanswered: Unanswered::default(),
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
        let outcomes = &mut self.unanswered.outcomes(report);
        let socket = client.socket()?;
        self.answers.send(&socket, recipient, bytes, outcomes);
        Ok(())
    }

    /// Sends answers in order, as [`send`](Self::send) does, with few system calls.
    pub(crate) fn send_all<'b>(
        &mut self,
        client: &Client,
        answers: impl Iterator<Item = (Recipient, &'b [u8])>,
        report: Report,
    ) -> Result<()> {
        let outcomes = &mut self.unanswered.outcomes(report);
        let socket = client.socket()?;
        self.answers.send_all(&socket, answers, outcomes);
        Ok(())
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
        let mut delivery = Delivery::Accepted;
        let mut outcomes = self.unanswered.outcomes(report);
        let socket = client.socket()?;
        (self.answers).send_with(&socket, recipient, bytes, descriptors, &mut |outcome| {
            if matches!(&outcome, Outcome::Undelivered(answer) if answer.is_for_all()) {
                delivery = Delivery::Refused;
            }
            outcomes(outcome);
        });
        Ok(delivery)
    }

    /// Sends the answers that wait, as far as there is room. Returns the time until the next attempt;
    /// `None` if no answer waits.
    pub(crate) fn retry(&mut self, client: &Client, report: Report) -> Result<Option<Duration>> {
        let outcomes = &mut self.unanswered.outcomes(report);
        let socket = client.socket()?;
        Ok(self.answers.retry(&socket, outcomes))
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
        if let Ok(socket) = client.socket() {
            let outcomes = &mut self.unanswered.outcomes(report);
            self.answers.finish(&socket, until, wake, outcomes);
        }
        self.unanswered.conclude(report);
    }
}
