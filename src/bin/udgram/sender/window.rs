//! `--window`: several questions under way at once. Replies carry no number: each answers the oldest question
//! that has no answer.

use super::{Prepared, Sender, count};
use crate::cli::value::Replies as Wanted;
use crate::exit::Exit;
use crate::invalid::Origin;
use crate::limits::{Limits, Patience};
use crate::receive::Replies;
use crate::reply::Question;
use anyhow::Result;
use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};
use udgram::wait::{Deadline, pause};
use udgram::{Address, Destination};

impl Sender<'_> {
    /// Sends every packet, and awaits its replies, with up to `--window` of them under way. All are answered
    /// when it returns.
    pub(super) fn ask_each<'p>(
        &mut self,
        origin: Origin,
        packets: &mut impl Iterator<Item = (u64, &'p [u8])>,
    ) -> Result<Exit> {
        let mut pending = VecDeque::new();
        let mut refused = None;
        loop {
            while refused.is_none() && pending.len() + self.under_way() < self.options.window {
                let Some((number, packet)) = packets.next() else {
                    break;
                };
                self.read += packet.len() as u64 + 1;
                match self.preparer.prepare(number, packet) {
                    Ok(prepared) => pending.push_back(prepared),
                    Err(error) => refused = Some((number, packet, error)),
                }
            }
            if self.under_way() == 0 {
                // It may wait until the next question is due, or for room.
                let written = self.write_replies()?;
                if written != Exit::Done {
                    return Ok(written);
                }
            }
            let before = self.came();
            let (exit, next) = self.ask_some(origin, &mut pending)?;
            if exit != Exit::Done {
                return Ok(exit);
            }
            if let Some(progress) = &mut self.progress {
                progress.show(self.sent, self.read);
            }
            if self.under_way() == 0 && pending.is_empty() {
                return match refused {
                    Some((number, packet, error)) => {
                        Err(self
                            .preparer
                            .refusal((origin, number), packet, error, self.sent))
                    }
                    None => Ok(Exit::Done),
                };
            }
            if self.came() == before {
                // Otherwise more questions have room in the window now.
                let exit = self.take_all(next)?;
                if exit != Exit::Done {
                    return Ok(exit);
                }
            }
        }
    }

    /// Receives all replies that are there. If none is, waits for the next one, as
    /// [`take_replies`](Self::take_replies) does.
    fn take_all(&mut self, mut next: Option<Deadline>) -> Result<Exit> {
        while self.under_way() > 0 {
            let before = self.came();
            let exit = self.take_replies(next)?;
            if exit != Exit::Done {
                return Ok(exit);
            }
            if self.came() == before {
                break;
            }
            next = Some(Deadline::after(Some(Duration::ZERO)));
        }
        Ok(Exit::Done)
    }

    /// Writes the replies that have been received.
    fn write_replies(&mut self) -> Result<Exit> {
        match &mut self.receiver {
            Some(receiver) => receiver.write_lines(self.signals),
            None => Ok(Exit::Done),
        }
    }

    /// Returns how many questions are under way.
    fn under_way(&self) -> usize {
        let receiver = self.receiver.as_ref();
        receiver.map_or(0, |receiver| receiver.handler.questions.len())
    }

    /// Returns how many replies have come.
    fn came(&self) -> u64 {
        let receiver = self.receiver.as_ref();
        receiver.map_or(0, |receiver| receiver.received)
    }

    /// Sends the pending questions that can be sent before the next reply is waited for. Returns when the
    /// next one is due, if it is not yet.
    ///
    /// While questions are under way it does not wait for room: a peer that waits for room for its answers
    /// reads no questions. It sends none to another destination: that one may answer sooner.
    fn ask_some(
        &mut self,
        origin: Origin,
        pending: &mut VecDeque<Prepared<'_>>,
    ) -> Result<(Exit, Option<Deadline>)> {
        while let Some(head) = pending.front() {
            let paced = !self.pacing.is_unlimited();
            let now = Instant::now();
            let due = self.pacing.due(self.available.min(now), head.received);
            let received = head.received;
            if paced && due.at > now {
                if self.under_way() > 0 {
                    return Ok((Exit::Done, Some(Deadline::at(due.at))));
                }
                pause(Deadline::at(due.at), &self.wake)?;
            }
            let to = head.own_address();
            if self.under_way() > 0 && self.named_by_envelope() != to.as_ref() {
                break;
            }
            let same = |packet: &&Prepared<'_>| {
                packet.to.as_ref().map(Destination::address) == to.as_ref()
            };
            let most = if paced {
                1
            } else {
                pending.iter().take_while(same).count()
            };
            if self.may_lose_replies() {
                let exit = self.take_all(Some(Deadline::after(Some(Duration::ZERO))))?;
                if exit != Exit::Done || self.under_way() == 0 {
                    // The replies are written before it waits until a question is due, or for room.
                    return Ok((exit, None));
                }
            }
            let sent = self.ask_now(origin, &mut pending.make_contiguous()[..most])?;
            if sent == 0 {
                break;
            }
            let at = if paced { due.at } else { now };
            self.pacing.note_sent(due, received, Instant::now());
            for question in pending.drain(..sent) {
                self.note_question((origin, question.number), question.own_address(), at);
            }
        }
        Ok((Exit::Done, None))
    }

    /// Returns whether the replies that are queued are lost if the next question finds that the peer has closed
    /// its socket: the kernel then empties the queue of a connected one (`unix_dgram_disconnected`).
    fn may_lose_replies(&self) -> bool {
        let receiver = self.receiver.as_ref();
        self.under_way() > 0 && receiver.is_some_and(|receiver| receiver.handler.connected)
    }

    /// Sends some of the questions, without waiting if any are under way. Returns how many were sent.
    fn ask_now(&mut self, origin: Origin, questions: &mut [Prepared<'_>]) -> Result<usize> {
        if self.under_way() == 0 {
            let first = &mut questions[..1];
            self.set_late_aside(first)?;
            self.deliver_in_place(origin, first)?;
            return Ok(1);
        }
        self.alone = false;
        let asked = SystemTime::now();
        let outgoing = self.outgoing(questions);
        // An error comes again when the replies that are under way have been received.
        let sent = self.client.socket()?.try_send(&outgoing).unwrap_or(0);
        let sent_now = count(&outgoing[..sent]);
        self.sent += sent_now;
        self.asked = asked;
        Ok(sent)
    }

    /// Notes a question that was just sent, and was due at `due`.
    fn note_question(&mut self, place: (Origin, u64), to: Option<Address<'static>>, due: Instant) {
        let left = match self.options.reply {
            Some(Wanted::Count(count)) => count,
            _ => 1,
        };
        let timeout = self.options.timeout.0;
        let question = Question {
            place,
            to,
            asked: self.asked,
            due,
            left,
            timeout,
            deadline: Deadline::after(timeout),
        };
        if let Some(receiver) = &mut self.receiver {
            receiver.handler.ask(question);
        }
    }

    /// Receives replies: those that are there, or the next ones that come until the oldest question's
    /// deadline, or until the `next` question is due.
    fn take_replies(&mut self, next: Option<Deadline>) -> Result<Exit> {
        let Some(receiver) = &mut self.receiver else {
            return Ok(Exit::Done);
        };
        let questions = &receiver.handler.questions;
        let Some(oldest) = questions.front() else {
            return Ok(Exit::Done);
        };
        let (place, deadline, left) = (oldest.place, oldest.deadline, oldest.left);
        let limits = Limits {
            count: Some(questions.iter().map(|question| question.left).sum()),
            patience: Patience::First(next.map_or(deadline, |next| next.or(deadline))),
            expired: Exit::TimedOut,
            drain: false,
        };
        let replies = if self.alone {
            Replies::OnceRead
        } else {
            Replies::All
        };
        let before = receiver.printer.output.writing;
        let exit = receiver.run(&self.client, &limits, replies, self.signals);
        // While stdout took nothing, no reply could be received.
        let written = receiver.printer.output.writing.saturating_sub(before);
        for question in &mut receiver.handler.questions {
            question.deadline = question.deadline.extended(written);
        }
        let deadline = deadline.extended(written);
        let error = match exit {
            Ok(Exit::TimedOut) if !deadline.passed() => return Ok(Exit::Done),
            Ok(Exit::TimedOut) => {
                let written = self.write_replies()?;
                if written != Exit::Done {
                    return Ok(written);
                }
                let wanted = self.options.reply.unwrap_or(Wanted::Count(1));
                let came = match wanted {
                    Wanted::Count(count) => count - left,
                    Wanted::All => 0,
                };
                self.no_reply(wanted, came)
            }
            Err(error) if Exit::of(&error) == Exit::NobodyThere => error,
            exit => return exit,
        };
        let (origin, number) = place;
        let error = self.no_reply_from_peer(error);
        Err(error.context(format!("{} {number}", origin.name())))
    }
}
