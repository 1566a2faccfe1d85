//! Defines the command line of `udgram talk`.

use super::packets::{Counting, Packets};
use super::socket::Socket;
use super::value::{Timeout, timeout};
use clap::Args;
use std::ffi::OsString;

const EXAMPLES: &str = "\
Examples:
  udgram talk -p text ctrl/wlan0                  at a terminal; Ctrl-D ends it
  udgram talk app.sock <requests.jsonl            each line, and what comes back
  udgram talk -w -p text ctrl/wlan0               over restarts of the peer";

#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    override_usage = "udgram talk [OPTIONS] PEER\n       udgram talk [OPTIONS] -\n       udgram talk [OPTIONS] --socket-fd FD|ADDR"
)]
pub(crate) struct Talk {
    /// The address to talk to; - for the inherited socket
    ///
    /// A pathname, @NAME for an abstract name, or ./@NAME for the pathname @NAME.
    ///
    /// The PEER - is the socket of UDGRAM_SOCKET_FD or socket activation, and the peer that it is connected
    /// to. With --socket-fd there is no PEER. Only the peer can answer.
    #[arg(value_name = "PEER")]
    pub(crate) peer: Option<OsString>,

    #[command(flatten)]
    pub(crate) socket: Socket,

    /// Wait for a peer that does not exist, or goes away
    ///
    /// Waits without a time limit. The current packet is sent again.
    ///
    /// The command connects to the new socket at the address of the peer; no packet is lost. As with send,
    /// missing permission on the socket file is waited for, too. Without this
    /// option, a peer that does not exist is status 4. A peer that goes away is reported on a terminal, where
    /// the next line connects to its address again; otherwise it is status 4.
    #[arg(short, long, help_heading = "Socket")]
    pub(crate) wait: bool,

    #[command(flatten)]
    pub(crate) packets: Packets,

    /// Time to go on after stdin ends [default: 1s]
    ///
    /// A bare number is seconds. On a terminal, the default is 0.
    ///
    /// After the end of stdin, the command exits when no packet has arrived for this time. On a terminal,
    /// Ctrl-D ends it at once. With none, only a signal ends it.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true, help_heading = "Packets")]
    pub(crate) timeout: Option<Timeout>,

    #[command(flatten)]
    pub(crate) counting: Counting,
}
