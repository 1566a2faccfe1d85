//! Defines the command line of `udgram exec`.

use super::packets::{Protocol, Shown};
use super::socket::{Depth, Socket, SocketFile};
use super::value::{ReadyReport, Timeout, address, peer, ready_report, timeout};
use clap::Args;
use std::ffi::OsString;
use udgram::Address;

const EXAMPLES: &str = "\
Examples:
  udgram exec -b me -c app.sock -- sh script      one socket for a script
  udgram exec -b app.sock -- ./daemon             activation without systemd
  udgram exec --notify -t 10s -- ./daemon         is it ready within 10 s?";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "udgram exec [OPTIONS] -- CMD...")]
pub(crate) struct Exec {
    /// The program to run, with its arguments
    ///
    /// Its descriptor 3 is the socket. udgram exits with its status.
    ///
    /// Its environment has UDGRAM_SOCKET_FD=3, UDGRAM_SOCKET_INODE, LISTEN_FDS=1, LISTEN_PID, LISTEN_FDNAMES
    /// and, with --connect, UDGRAM_PEER (the absolute address of the peer). udgram forwards signals to CMD.
    #[arg(value_name = "CMD", last = true, required = true)]
    pub(crate) command: Vec<OsString>,

    /// Local address; '' for none
    ///
    /// With --connect alone, the kernel chooses an abstract name.
    #[arg(short, long, value_name = "ADDR", value_parser = address(), help_heading = "Socket")]
    pub(crate) bind: Option<Address<'static>>,

    /// Connect the socket to this peer
    #[arg(short, long, value_name = "ADDR", value_parser = peer(), help_heading = "Socket")]
    pub(crate) connect: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) socket: Socket,

    #[command(flatten)]
    pub(crate) file: SocketFile,

    #[command(flatten)]
    pub(crate) depth: Depth,

    #[command(flatten)]
    pub(crate) service: ServiceManager,
}

// The service manager for CMD.
#[derive(Debug, Args)]
#[command(next_help_heading = "Service manager")]
pub(crate) struct ServiceManager {
    /// Take CMD's notifications; tell FD that it is ready
    ///
    /// CMD gets a NOTIFY_SOCKET; FD gets a line break at READY=1.
    ///
    /// The protocol is that of sd_notify(3). Each notification is printed on stdout as a packet, its descriptors are closed, and it is passed on to
    /// the NOTIFY_SOCKET of udgram, if there is one. FD is a descriptor of udgram that CMD does not inherit.
    /// Without --bind, --connect and --socket-fd, no other socket is opened.
    #[arg(long, value_name = "FD", value_parser = ready_report, num_args = 0..=1, require_equals = true, default_missing_value = "none")]
    pub(crate) notify: Option<ReadyReport>,

    /// Longest time to READY=1 (250ms, '1m 30s')
    ///
    /// A bare number is seconds. When it expires, CMD is ended: status 124.
    ///
    /// CMD is ended with SIGTERM, and ten seconds later with SIGKILL. EXTEND_TIMEOUT_USEC of CMD extends the
    /// time. The default, none, is no limit.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true)]
    pub(crate) timeout: Option<Timeout>,

    /// Protocol of notifications: fields (default), text, ...
    ///
    /// Converts each notification to a line, as with the other commands.
    #[arg(
        short,
        long,
        value_name = "NAME",
        value_enum,
        hide_possible_values = true
    )]
    pub(crate) protocol: Option<Protocol>,

    /// One JSON object a line: packet, sender, time, ...
    ///
    /// Envelopes have the credentials, too, and describe the descriptors.
    ///
    /// The descriptors are closed.
    #[arg(short, long)]
    pub(crate) envelope: bool,

    #[command(flatten)]
    pub(crate) shown: Shown,
}
