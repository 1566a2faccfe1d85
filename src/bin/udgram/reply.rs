//! Waits for the reply of a peer, and notices when no reply is possible any more.

use crate::exit::{Exit, Failure};
use crate::handler::Handler;
use crate::invalid::Origin;
use crate::printer::Printer;
use crate::protocol::Client;
use crate::report::Report;
use crate::stats::TOTALS;
use anyhow::Result;
use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};
use udgram::wait::{Deadline, Wake};
use udgram::{Address, Datagram, Destination};

/// The time between two checks whether a peer that should answer has closed its socket: no event reports
/// that.
pub(crate) const PEER_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// A question that was sent and is not answered yet.
#[derive(Debug)]
pub(crate) struct Question {
    /// The argument or line that it is, by its number.
    pub(crate) place: (Origin, u64),
    /// The destination that its envelope names.
    pub(crate) to: Option<Address<'static>>,
    /// A time shortly before it was sent. What was sent before is no answer.
    pub(crate) asked: SystemTime,
    /// The time at which it was to be sent.
    pub(crate) due: Instant,
    /// The number of replies that are still to come.
    pub(crate) left: u64,
    /// The longest wait for each of them.
    pub(crate) timeout: Option<Duration>,
    /// The time until which the next one has to come.
    pub(crate) deadline: Deadline,
}

/// The state of waiting for replies.
pub(crate) struct ReplyHandler {
    /// True if the socket is connected to the peer that should answer.
    pub(crate) connected: bool,
    /// The questions that are under way, in the order in which they were sent. A reply answers the first.
    pub(crate) questions: VecDeque<Question>,
    /// The time at which the last question was sent.
    asked: Instant,
    /// True once the peer has closed its socket. Its earlier replies may still be queued, so the wait ends
    /// only at the next check.
    gone: bool,
}

impl ReplyHandler {
    pub(crate) fn new() -> Self {
        Self {
            connected: false,
            questions: VecDeque::new(),
            asked: Instant::now(),
            gone: false,
        }
    }

    /// Starts the wait for the replies to a question that was just sent.
    pub(crate) fn ask(&mut self, question: Question) {
        self.questions.push_back(question);
        self.asked = Instant::now();
        // The peer may have exited after its last answer, and a new one have taken its address.
        self.gone = false;
    }
}

impl Handler for ReplyHandler {
    fn is_late(&self, sent: SystemTime) -> bool {
        (self.questions.front()).is_some_and(|question| sent < question.asked)
    }

    fn handle(
        &mut self,
        _: &Client,
        _: &mut Datagram<'_>,
        _: &mut Printer,
        _: &Wake<'_>,
    ) -> Result<()> {
        let Some(question) = self.questions.front_mut() else {
            return Ok(());
        };
        // More of its replies than fit into one batch may be queued: the next check comes after them.
        self.gone = false;
        TOTALS.note_reply(question.due);
        question.left = question.left.saturating_sub(1);
        question.deadline = Deadline::after(question.timeout);
        if question.left == 0 {
            self.questions.pop_front();
        }
        Ok(())
    }

    fn retry(&mut self, client: &Client, _: Report) -> Result<Option<Duration>> {
        if !self.connected {
            return Ok(None);
        }
        if self.gone {
            let message = "the peer has closed its socket";
            return Err(Failure::error(Exit::NobodyThere, message));
        }
        // A quick answer needs no check, which costs several system calls.
        if self.asked.elapsed() < PEER_CHECK_INTERVAL {
            return Ok(Some(PEER_CHECK_INTERVAL));
        }
        let socket = client.socket()?;
        self.gone = socket.peer_is_closed() || socket.peer_name()?.is_none();
        Ok(Some(if self.gone {
            Duration::ZERO
        } else {
            PEER_CHECK_INTERVAL
        }))
    }
}

/// Returns a hint why the peer at `to` may not be able to answer a socket bound to `local`.
pub(crate) fn no_reply_hint(local: &Address<'_>, to: Option<&Destination>) -> Option<String> {
    let name = local.quoted();
    let unreachable = match local {
        // Both ends of a socketpair(2) are connected, so the peer can answer.
        Address::Unnamed => return None,
        Address::Pathname(_) => format!("it may not write to {name}, --mode 0666"),
        Address::Abstract(_) => format!(
            "it may not write to {name}, --bind PATH --mode 0666; or it runs in another network namespace, which abstract names do not reach"
        ),
    };
    Some(if to.is_some_and(Destination::is_connected) {
        format!("it may answer from another address, --to; or {unreachable}")
    } else {
        unreachable
    })
}
