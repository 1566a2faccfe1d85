//! Waits for the reply of a peer, and notices when no reply is possible any more.

use crate::exit::{Exit, Failure};
use crate::handler::Handler;
use crate::printer::Printer;
use crate::protocol::Client;
use crate::report::Report;
use anyhow::Result;
use std::time::{Duration, Instant};
use udgram::wait::Wake;
use udgram::{Address, Datagram, Destination};

/// The time between two checks whether a peer that should answer has closed its socket: no event reports
/// that.
pub(crate) const PEER_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The state of waiting for replies.
pub(crate) struct ReplyHandler {
    /// True if the socket is connected to the peer that should answer.
    pub(crate) connected: bool,
    /// The time at which the question was sent.
    asked: Instant,
    /// True once the peer has closed its socket. Its earlier replies may still be queued, so the wait ends
    /// only at the next check.
    gone: bool,
}

impl ReplyHandler {
    pub(crate) fn new() -> Self {
        Self {
            connected: false,
            asked: Instant::now(),
            gone: false,
        }
    }

    /// Starts the wait for the replies to a question that was just sent.
    pub(crate) fn ask(&mut self) {
        self.asked = Instant::now();
        // The peer may have exited after its last answer, and a new one have taken its address.
        self.gone = false;
    }
}

impl Handler for ReplyHandler {
    fn handle(
        &mut self,
        _: &Client,
        _: &mut Datagram<'_>,
        _: &mut Printer,
        _: &Wake<'_>,
    ) -> Result<()> {
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
