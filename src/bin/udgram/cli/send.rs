//! Defines the command line of `udgram send`.

use super::packets::{Counting, Packets};
use super::socket::{Socket, SocketFile};
use super::value::{
    Claim, Descriptor, Rate, Replies, Timeout, address, credentials, descriptor, factor, peer,
    rate, replies, timeout, window,
};
use clap::Args;
use std::ffi::OsString;
use udgram::Address;

const EXAMPLES: &str = "\
Examples:
  udgram send app.sock '{\"op\":\"start\"}'           one packet
  udgram send app.sock <packets.jsonl             each line of a file
  udgram send -p text -r -t 2s ctrl/wlan0 PING    request and reply
  udgram send -w -t 10s app.sock </dev/null       wait for the peer
  udgram send --fd 3 app.sock '{}' 3<file         pass an open file";

#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    override_usage = "udgram send [OPTIONS] PEER [PACKET]...\n       udgram send [OPTIONS] - [PACKET]...\n       udgram send [OPTIONS] --to ADDR [PACKET]...\n       udgram send [OPTIONS] --socket-fd FD|ADDR [PACKET]..."
)]
pub(crate) struct Send {
    /// Destination, then packets [default: lines of stdin]
    ///
    /// PEER is a pathname, @NAME for an abstract name, or - for the inherited socket.
    ///
    /// ./@NAME is the pathname @NAME. The PEER - is the socket of UDGRAM_SOCKET_FD or socket activation, and
    /// the peer that it is connected to. With --to or --socket-fd there is no PEER: every argument is a
    /// packet. An empty argument sends an empty datagram; empty stdin sends nothing.
    #[arg(value_name = "PEER [PACKET]", allow_negative_numbers = true)]
    pub(crate) arguments: Vec<OsString>,

    /// Local address; '' for none [default: autobound]
    ///
    /// To answer to a pathname, the peer needs write permission (--mode).
    ///
    /// By default the kernel chooses an abstract name, so that the peer can answer. With '' the socket is
    /// unnamed and cannot be answered. A relative pathname is bound in its absolute form.
    #[arg(short, long, value_name = "ADDR", value_parser = address(), help_heading = "Socket")]
    pub(crate) bind: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) socket: Socket,

    #[command(flatten)]
    pub(crate) file: SocketFile,

    /// Send to this address: every argument is a packet
    ///
    /// The socket is not connected, so that any socket can answer.
    ///
    /// The packets are sent from the inherited socket if there is one, otherwise from a new one. The 'to' of
    /// an envelope has precedence.
    #[arg(long, value_name = "ADDR", value_parser = peer(), help_heading = "Socket")]
    pub(crate) to: Option<Address<'static>>,

    /// Wait for a peer that does not exist, or goes away
    ///
    /// Waits within --timeout instead of failing with status 4.
    ///
    /// The current packet is sent again; none is lost. Missing permission on the socket file (EACCES) is waited
    /// for, too: a daemon may set the mode after it has bound its socket. With no packets (</dev/null), nothing is sent and the
    /// exit status says whether the peer exists.
    #[arg(short, long, help_heading = "Socket")]
    pub(crate) wait: bool,

    #[command(flatten)]
    pub(crate) packets: Packets,

    /// Longest wait for peer, queue, reply (250ms, 1m)
    ///
    /// A bare number is seconds. When it expires, the exit status is 124.
    ///
    /// It limits each wait: for space in the peer's queue, for the peer (--wait) and for each reply (--reply).
    /// The message names what was awaited. The default, none, is no limit.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true, default_value = "none", hide_default_value = true, help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    /// Await N replies to each (default 1), or all
    ///
    /// Prints them as recv does. No reply within --timeout is status 124.
    ///
    /// The command exits when the last reply arrives; with all, when the timeout expires, with status 0.
    /// Packets that arrived before the request are reported, not counted. A peer that closes its socket
    /// before it replies is status 4.
    #[arg(short, long, value_name = "N", value_parser = replies, num_args = 0..=1, require_equals = true, default_missing_value = "1", help_heading = "Packets")]
    pub(crate) reply: Option<Replies>,

    /// Questions under way at once, for a server in order
    ///
    /// With --reply, sends up to N packets before their replies arrive.
    ///
    /// Replies carry no number: the server must answer in order, and each reply belongs to the oldest packet
    /// without one. The timeout counts for each packet by itself. A reply that does not come ends the command
    /// with the number of its packet. Not with --reply=all.
    #[arg(long, value_name = "N", value_parser = window, default_value = "1", hide_default_value = true, hide_short_help = true, help_heading = "Packets")]
    pub(crate) window: usize,

    /// Drop packets that cannot be sent at once
    ///
    /// Reports the number of dropped packets at the end.
    ///
    /// The command never waits, and does not fail, if the peer's queue is full or the peer does not exist.
    #[arg(long, conflicts_with_all = ["wait", "reply"], help_heading = "Packets")]
    pub(crate) drop: bool,

    /// At most N packets a second (or /m, /h, /ms)
    ///
    /// There is no burst after a stall.
    ///
    /// Each packet has its time, so that delays do not add up.
    #[arg(long, value_name = "N[/UNIT]", value_parser = rate, allow_negative_numbers = true, conflicts_with = "pace", help_heading = "Packets")]
    pub(crate) rate: Option<Rate>,

    /// Keep the gaps between the envelopes' times
    ///
    /// With --envelope. A FACTOR of 2 is twice as fast.
    ///
    /// The wait between two packets is the difference of their 'time', divided by FACTOR. An envelope without
    /// a time, or with an earlier time than the envelope before it, is sent at once.
    #[arg(long, value_name = "FACTOR", value_parser = factor, num_args = 0..=1, require_equals = true, default_missing_value = "1", hide_short_help = true, help_heading = "Packets")]
    pub(crate) pace: Option<f64>,

    /// Attach a descriptor to each packet; may repeat
    ///
    /// With PID:N, a copy of descriptor N of process PID.
    ///
    /// Otherwise N is a descriptor of udgram. The copy (pidfd_getfd(2)) needs the right to trace the process.
    /// One message carries at most 253 descriptors.
    #[arg(long, value_name = "[PID:]N", value_parser = descriptor, help_heading = "Descriptors and credentials")]
    pub(crate) fd: Vec<Descriptor>,

    /// Attach credentials: its own, or these
    ///
    /// Credentials of another process need privileges.
    ///
    /// They are the numbers of process, user and group (SCM_CREDENTIALS). If the kernel refuses them, the
    /// status is 1. The option does not change how replies are printed.
    #[arg(long, value_name = "PID:UID:GID", value_parser = credentials, num_args = 0..=1, require_equals = true, default_missing_value = "own", help_heading = "Descriptors and credentials")]
    pub(crate) creds: Option<Claim>,

    #[command(flatten)]
    pub(crate) counting: Counting,
}
