//! Defines the command line of `udgram iter`.

use super::packets::Receive;
use super::value::{Timeout, count, peer, timeout};
use clap::Args;
use std::time::Duration;
use udgram::Address;

const EXAMPLES: &str = "\
Examples:
  udgram iter --peek -e app.sock                  show the queue of a daemon
  udgram iter -t 1s app.sock                      packets of one second
  udgram iter -s 3                                empty an inherited queue";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "udgram iter [OPTIONS] [ADDR]")]
pub(crate) struct Iter {
    /// Address to bind; with --peek, of a bound socket
    ///
    /// A pathname, @NAME for an abstract name, or ./@NAME for the pathname @NAME.
    ///
    /// A relative pathname is bound in its absolute form. Without ADDR, the command uses --socket-fd or the
    /// inherited socket; with --connect, it uses a new socket with an abstract name that the kernel chooses.
    /// With --peek nothing is bound: the command shows the queue of the socket that is bound
    /// to ADDR, whichever process holds it.
    #[arg(value_name = "ADDR", value_parser = peer())]
    pub(crate) address: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) receive: Receive,

    /// End after N packets
    ///
    /// Counts all datagrams, valid packets or not.
    #[arg(short = 'n', long, value_name = "N", value_parser = count, allow_negative_numbers = true, help_heading = "Packets")]
    pub(crate) count: Option<u64>,

    /// Time for all packets together (250ms; default 0)
    ///
    /// A bare number is seconds. Timing out is normal here: status 0.
    ///
    /// 0 prints everything that was queued at the start, none is no limit. The time to write output does not
    /// count.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true, help_heading = "Packets")]
    pub(super) timeout: Option<Timeout>,

    /// Leave the packets in the queue
    ///
    /// The program that has the socket still receives them.
    ///
    /// This uses SO_PEEK_OFF (socket(7)), and restores it; a program that peeks, too, may notice. The kernel
    /// shows an empty packet to the first peek only. The option excludes --timeout and --creds.
    #[arg(long, conflicts_with_all = ["timeout", "creds"], help_heading = "Packets")]
    pub(crate) peek: bool,
}

impl Iter {
    /// Returns the time for all packets together.
    pub(crate) fn timeout(&self) -> Timeout {
        self.timeout.unwrap_or(Timeout(Some(Duration::ZERO)))
    }
}
