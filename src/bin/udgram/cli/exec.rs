//! Defines the command line of `udgram exec`.

use super::socket::{Depth, Socket, SocketFile};
use super::value::{address, peer};
use clap::Args;
use std::ffi::OsString;
use udgram::Address;

const EXAMPLES: &str = "\
Examples:
  udgram exec -b me -c app.sock -- sh script      one socket for a script
  udgram exec -b app.sock -- ./daemon             activation without systemd";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "udgram exec [OPTIONS] -- CMD...")]
pub(crate) struct Exec {
    /// The program to run, with its arguments
    ///
    /// The socket is descriptor 3 of CMD. Its environment has UDGRAM_SOCKET_FD=3,
    /// UDGRAM_SOCKET_INODE, LISTEN_FDS=1, LISTEN_PID, LISTEN_FDNAMES and, with --connect,
    /// UDGRAM_PEER (the absolute address of the peer). udgram forwards signals to CMD and exits
    /// with its status.
    #[arg(value_name = "CMD", last = true, required = true)]
    pub(crate) command: Vec<OsString>,

    /// Local address; '' for none
    ///
    /// With --connect alone, the kernel chooses an abstract name, so that the peer can answer.
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
}
