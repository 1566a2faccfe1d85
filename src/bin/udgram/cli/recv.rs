//! Defines the command line of `udgram recv`.

use super::packets::Receive;
use super::socket::Depth;
use super::value::{Timeout, count, number, peer, timeout};
use clap::Args;
use std::ffi::OsString;
use std::os::fd::RawFd;
use udgram::Address;

const EXAMPLES: &str = "\
Examples:
  udgram recv app.sock                            print one packet
  udgram recv -t 5s -n 3 -e @name                 print three, with senders
  udgram recv in.sock -- cat /dev/fd/3            read a file that is passed";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "udgram recv [OPTIONS] ADDR [-- CMD...]")]
pub(crate) struct Recv {
    /// The address to bind
    ///
    /// A pathname, @NAME for an abstract name, or ./@NAME for the pathname @NAME.
    ///
    /// A relative pathname is bound in its absolute form. Without ADDR, the command uses --socket-fd or the
    /// inherited socket; with --connect, it uses a new socket with an abstract name that the kernel chooses.
    #[arg(value_name = "ADDR", value_parser = peer())]
    pub(crate) address: Option<Address<'static>>,

    /// Run CMD with the packet and its descriptors
    ///
    /// UDGRAM_PACKET is the packet, UDGRAM_FROM the sender; descriptors from 3 up.
    ///
    /// CMD replaces udgram (execve(2)). The received descriptors are announced as sd_listen_fds(3) reads them.
    /// A packet with a NUL cannot be passed in a variable; -p hex and base64 avoid NULs.
    #[arg(value_name = "CMD", last = true)]
    pub(crate) command: Vec<OsString>,

    #[command(flatten)]
    pub(crate) receive: Receive,

    #[command(flatten)]
    pub(crate) depth: Depth,

    /// End after N packets
    ///
    /// Counts all datagrams, valid packets or not.
    ///
    /// One that is not a valid packet is reported, and the exit status is 3; the command still waits for the
    /// rest.
    #[arg(short = 'n', long, value_name = "N", default_value = "1", value_parser = count, allow_negative_numbers = true, conflicts_with = "command", help_heading = "Packets")]
    pub(crate) count: u64,

    /// Longest wait for each packet (250ms, '1m 30s')
    ///
    /// A bare number is seconds. When it expires, the exit status is 124.
    ///
    /// The default, none, is no limit.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true, default_value = "none", hide_default_value = true, help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    /// Number of a received descriptor in CMD; may repeat
    ///
    /// The default is 3, 4, and so on.
    ///
    /// The first descriptor gets the first number. Fewer descriptors than numbers are an error. Surplus
    /// descriptors are closed, with a warning. A number given twice is a usage error.
    #[arg(long, value_name = "N", value_parser = number, allow_negative_numbers = true, help_heading = "Descriptors and credentials")]
    pub(crate) fd: Vec<RawFd>,
}
