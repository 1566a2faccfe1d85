//! Defines the command line of `udgram sockopt`.

use super::packets::Shown;
use super::socket::{Inherited, SocketFile};
use super::value::{address, peer};
use clap::Args;
use udgram::Address;

const EXAMPLES: &str = "\
Examples:
  udgram sockopt                                  options of a new socket
  udgram sockopt -s /run/app.sock queue           queue of a daemon's socket
  udgram sockopt -s 3 sndbuf=1MiB passcred=on     set, and print the result";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "udgram sockopt [OPTIONS] [NAME[=VALUE]]...")]
pub(crate) struct Sockopt {
    /// Options to print (NAME) or set (NAME=VALUE) [default: print all]
    ///
    /// VALUE is an integer, on or off, a size (1MiB), a duration, or hex:BYTES.
    ///
    /// NAME is SO_RCVBUF, rcvbuf, or LEVEL:NUMBER for an option that udgram does not know; local, peer and
    /// queue print these parts of the listing. After setting an option, its value is read back from the
    /// kernel and printed.
    #[arg(value_name = "NAME[=VALUE]")]
    pub(crate) options: Vec<String>,

    /// Local address of a new socket [default: none]
    #[arg(short, long, value_name = "ADDR", value_parser = address(), help_heading = "Socket")]
    pub(crate) bind: Option<Address<'static>>,

    /// Connect the socket to this peer
    #[arg(short, long, value_name = "ADDR", value_parser = peer(), help_heading = "Socket")]
    pub(crate) connect: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) inherited: Inherited,

    #[command(flatten)]
    pub(crate) file: SocketFile,

    #[command(flatten)]
    pub(crate) shown: Shown,
}
