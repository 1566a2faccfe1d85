//! Defines the command line of `udgram listen`.

use super::packets::Receive;
use super::socket::Depth;
use super::value::{Timeout, count, peer, timeout, user};
use clap::Args;
use std::ffi::OsString;
use udgram::Address;

const EXAMPLES: &str = "\
Examples:
  udgram listen --creds app.sock                  print senders and times
  udgram listen -p text --exec 'tr a-z A-Z' s     a server
  udgram listen --pipe 'jq -c --unbuffered .id' s a fast server
  udgram listen -p text --peek -e /dev/log        observe a daemon's socket
  udgram listen -e app.sock >capture.jsonl        capture, and send again:
  udgram send -e app.sock <capture.jsonl";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "udgram listen [OPTIONS] ADDR")]
pub(crate) struct Listen {
    /// The address to bind; with --peek, to observe
    ///
    /// A pathname, @NAME for an abstract name, or ./@NAME for the pathname @NAME.
    ///
    /// A relative pathname is bound in its absolute form. Without ADDR, the command uses --socket-fd or the
    /// inherited socket; with --connect, it uses a new socket with an abstract name that the kernel chooses.
    #[arg(value_name = "ADDR", value_parser = peer())]
    pub(crate) address: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) receive: Receive,

    #[command(flatten)]
    pub(crate) depth: Depth,

    /// End after N packets
    ///
    /// Counts all datagrams, valid packets or not.
    ///
    /// Without this option, a signal, the exit of the reader of stdout or --timeout ends listen.
    #[arg(short = 'n', long, value_name = "N", value_parser = count, allow_negative_numbers = true, help_heading = "Packets")]
    pub(crate) count: Option<u64>,

    /// Longest wait for each packet (250ms, '1m 30s')
    ///
    /// A bare number is seconds. The status is 124 with --count, otherwise 0.
    ///
    /// The default, none, is no limit.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true, default_value = "none", hide_default_value = true, help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    /// Print what is sent to another process's socket
    ///
    /// ADDR or -s is that socket; it gets every packet. Needs CAP_BPF.
    ///
    /// Binds nothing. A BPF socket filter copies each datagram when it is sent, whole. Envelopes have the
    /// time, and the process, user, group and command that sent the datagram, but not its address or
    /// descriptors. This also needs the right to trace the process, and, for the credentials of senders,
    /// CAP_PERFMON.
    #[arg(long, conflicts_with_all = ["connect", "sockopt", "mode", "owner", "replace", "queue", "ancillary_bufsize", "allow_uid", "echo", "exec", "pipe"], help_heading = "Packets")]
    pub(crate) peek: bool,

    /// Accept packets of this user only; may repeat
    ///
    /// Packets of other users are dropped and counted.
    ///
    /// Takes a number or a name. The kernel verifies the user of the sender. Descriptors in dropped packets
    /// are closed.
    #[arg(long, value_name = "UID|NAME", value_parser = user, help_heading = "Descriptors and credentials")]
    pub(crate) allow_uid: Vec<u32>,

    /// Send every datagram back to its sender
    ///
    /// Echoed byte for byte, valid packet or not, and printed.
    ///
    /// An echo waits for space in the client's queue for up to a second; a failed echo is only reported, once
    /// for each client.
    #[arg(long, conflicts_with_all = ["exec", "pipe"], help_heading = "Packets")]
    pub(crate) echo: bool,

    /// Run CMD for each packet; what it prints is the reply
    ///
    /// Runs CMD by sh -c, with the bytes of the datagram on its stdin.
    ///
    /// It runs for one packet at a time. Its environment has UDGRAM_FROM, UDGRAM_PID, UDGRAM_UID and
    /// UDGRAM_GID, and the received descriptors are numbered from 3 up; UDGRAM_FDS is their number. When CMD
    /// ends, its output is sent to the sender as one datagram, unless it is empty. One final newline is
    /// removed from it (not with -p raw).
    #[arg(
        long,
        value_name = "CMD",
        conflicts_with = "pipe",
        help_heading = "Packets"
    )]
    pub(crate) exec: Option<OsString>,

    /// Keep one CMD: a packet is its line, its line a reply
    ///
    /// Runs CMD by sh -c, once. It must flush each line.
    ///
    /// Each packet is a line on its stdin (with --envelope its envelope). CMD must print one line for each, at
    /// once (jq --unbuffered, sed -u). The line is a packet of --protocol and the reply to the packet in the
    /// same place; an empty line is no reply.
    /// Up to 100 packets are under way; the others wait in the kernel's queue. When CMD ends, listen ends
    /// with its status.
    #[arg(long, value_name = "CMD", help_heading = "Packets")]
    pub(crate) pipe: Option<OsString>,
}
