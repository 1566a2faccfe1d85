//! `--reply`: awaits the replies to a packet that was sent.

use super::{Prepared, Sender};
use crate::cli::value::Replies as Wanted;
use crate::exit::{Exit, Failure};
use crate::invalid::Origin;
use crate::limits::{Limits, Patience};
use crate::receive::Replies;
use crate::reply::{Question, no_reply_hint};
use anyhow::Result;
use std::time::Instant;
use udgram::wait::Deadline;
use udgram::{Address, Destination, sockopt};

impl Sender<'_> {
    /// Reports what was queued before the question: it is not the answer.
    pub(super) fn set_late_aside(&mut self, batch: &[Prepared<'_>]) -> Result<()> {
        let (Some(receiver), false) = (&mut self.receiver, batch.is_empty()) else {
            return Ok(());
        };
        receiver.set_late_aside(&self.client, &self.wake)?;
        // Of a socket that is shared, others may have sent what is unread.
        let unread = sockopt::unread(self.client.socket()?)? > 0;
        self.alone = !unread && !receiver.is_shared();
        Ok(())
    }

    /// Waits for the replies to the packet just sent, which was `due` then, if there are to be any, and
    /// prints them.
    pub(super) fn await_replies(
        &mut self,
        origin: Origin,
        packet: &Prepared<'_>,
        due: Instant,
    ) -> Result<Exit> {
        let (Some(wanted), Some(receiver)) = (self.options.reply, &mut self.receiver) else {
            return Ok(Exit::Done);
        };
        let timeout = self.options.timeout.0;
        let (count, patience) = match wanted {
            Wanted::Count(count) => (Some(count), Patience::Each(timeout)),
            Wanted::All => (None, Patience::Total(timeout)),
        };
        let limits = Limits {
            count,
            patience,
            expired: Exit::TimedOut,
            drain: false,
        };
        receiver.handler.questions.clear();
        receiver.handler.ask(Question {
            place: (origin, packet.number),
            to: packet.own_address(),
            asked: self.asked,
            due,
            left: count.unwrap_or(u64::MAX),
            timeout,
            deadline: Deadline::NEVER,
        });
        let replies = if self.alone {
            Replies::OnceRead
        } else {
            Replies::All
        };
        let before = receiver.received;
        let exit = receiver.run(&self.client, &limits, replies, self.signals);
        let came = receiver.received - before;
        let error = match exit {
            Ok(Exit::TimedOut) if wanted == Wanted::All && came > 0 => return Ok(Exit::Done),
            Ok(Exit::TimedOut) => self.no_reply(wanted, came),
            Err(error) if Exit::of(&error) == Exit::NobodyThere => {
                if wanted == Wanted::All && came > 0 {
                    // The peer has answered, and no more can come.
                    return Ok(Exit::Done);
                }
                error
            }
            exit => return exit,
        };
        Err(packet.add_place(self.no_reply_from_peer(error), origin))
    }

    /// Adds to an error whose reply did not come.
    pub(super) fn no_reply_from_peer(&self, error: anyhow::Error) -> anyhow::Error {
        let shared = self.destination.as_ref().map(Destination::address);
        match self.named_by_envelope().or(shared) {
            Some(to) => error.context(format!("cannot get a reply from {}", to.quoted())),
            None => error,
        }
    }

    /// Returns the destination of the oldest question, if its envelope names it.
    pub(super) fn named_by_envelope(&self) -> Option<&Address<'static>> {
        let receiver = self.receiver.as_ref()?;
        receiver.handler.questions.front()?.to.as_ref()
    }

    /// Returns the error of replies that did not come in time.
    pub(super) fn no_reply(&self, wanted: Wanted, came: u64) -> anyhow::Error {
        let timeout = humantime::format_duration(self.options.timeout.0.unwrap_or_default());
        let message = match wanted {
            Wanted::Count(count) if count > 1 => {
                format!("{came} of {count} replies came, and then none within {timeout}")
            }
            _ => format!("no reply came within {timeout}"),
        };
        let local = self.client.local_address().unwrap_or(Address::Unnamed);
        // A socket whose packets have their own destinations is not connected.
        let shared = self.destination.as_ref();
        let peer = shared.filter(|_| self.named_by_envelope().is_none());
        match no_reply_hint(&local, peer) {
            Some(hint) => Failure::with_hint(Exit::TimedOut, message, hint),
            None => Failure::error(Exit::TimedOut, message),
        }
    }
}
