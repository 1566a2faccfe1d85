//! Waiting for the reply of a peer, and noticing that it will not come.

use crate::exit::{Exit, Failure};
use crate::handler::Handler;
use crate::printer::Printer;
use crate::protocol::Client;
use crate::report::Report;
use anyhow::Result;
use std::time::{Duration, Instant};
use udgram::wait::Wake;
use udgram::{Address, Datagram, Destination};

/// How often a peer that is to answer is checked for having closed its socket.
const PEER_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Waits for replies, and notices a peer that will not answer any more.
pub(crate) struct Awaiting {
    /// Whether the socket is connected to the peer that is to answer.
    pub(crate) connected: bool,
    /// When the question was sent.
    asked: Instant,
    /// Whether the peer was found gone: what it sent before is still to be received.
    gone: bool,
}

impl Awaiting {
    pub(crate) fn new() -> Self {
        Self {
            connected: false,
            asked: Instant::now(),
            gone: false,
        }
    }

    /// Begins to wait for the replies to a question that was just sent.
    pub(crate) fn ask(&mut self) {
        self.asked = Instant::now();
        // The peer of the question before may have gone after its answer, and another one come.
        self.gone = false;
    }
}

impl Handler for Awaiting {
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
        // A prompt answer is worth no system call.
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

/// Returns what may keep the peer at `to` from answering a socket that is bound to `local`.
pub(crate) fn no_reply_hint(local: &Address<'_>, to: Option<&Destination>) -> Option<String> {
    let name = local.quoted();
    let unreachable = match local {
        // Either end of a socketpair can always answer.
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
