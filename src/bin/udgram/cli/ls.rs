//! Defines the command line of `udgram ls`.

use super::packets::Shown;
use super::value::peer;
use clap::Args;
use udgram::Address;

const EXAMPLES: &str = "\
Examples:
  udgram ls                                       all, sockets in trouble first
  udgram ls /dev/log                              whose it is, and whether it is full
  udgram ls --all /run/app.sock | jq .queued      number of queued datagrams
  udgram ls | jq -r 'select(.full).address'       sockets whose queue is full";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "udgram ls [OPTIONS] [ADDR]...")]
pub(crate) struct Ls {
    /// List the sockets bound to ADDR [default: all with a name]
    ///
    /// A pathname, @NAME for an abstract name, or ./@NAME for the pathname @NAME.
    ///
    /// If no socket is bound to it, the exit status is 4.
    #[arg(value_name = "ADDR", value_parser = peer())]
    pub(crate) addresses: Vec<Address<'static>>,

    /// Count each queue; list sockets without a name, too
    ///
    /// No packet is removed. Needs the right to trace the socket's process.
    ///
    /// udgram looks through each queue in a copy of the socket (pidfd_getfd(2)). If that is refused, 'queued'
    /// is absent.
    #[arg(short, long, help_heading = "Output")]
    pub(crate) all: bool,

    /// Print an address and a description a line, for completion scripts
    #[arg(long, hide = true)]
    pub(crate) candidates: bool,

    #[command(flatten)]
    pub(crate) shown: Shown,
}
