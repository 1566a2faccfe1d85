//! Defines the command line of `udgram relay`.

use super::packets::{Counting, Protocol};
use super::socket::SocketFile;
use super::value::{Timeout, peer, timeout};
use clap::Args;
use udgram::Address;

const EXAMPLES: &str = "\
Examples:
  udgram relay /run/me.sock /run/app.sock         watch a client and a daemon talk
  udgram relay -p text metrics /run/dd.sock copy  two receivers for one client
  udgram relay -p text -m 0666 log /dev/log       give a container the log";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "udgram relay [OPTIONS] ADDR PEER...")]
pub(crate) struct Relay {
    /// The address to bind, for clients
    ///
    /// A pathname, @NAME for an abstract name, or ./@NAME for the pathname @NAME.
    ///
    /// A relative pathname is bound in its absolute form.
    #[arg(value_name = "ADDR", value_parser = peer())]
    pub(crate) address: Address<'static>,

    /// The peers that get the packets; the first one answers
    ///
    /// The others get a copy of each packet. All must exist at the start.
    ///
    /// Each packet is sent to the first PEER from a socket of its own client, so that answers, also later
    /// ones, find their way back.
    #[arg(value_name = "PEER", value_parser = peer(), required = true)]
    pub(crate) peers: Vec<Address<'static>>,

    /// Set an option of the socket of ADDR; may repeat
    ///
    /// NAME is rcvbuf or SO_RCVBUF; udgram-sockopt(1) lists the options.
    ///
    /// VALUE is an integer, on or off, a size (1MiB) or a duration.
    #[arg(short = 'o', long, value_name = "NAME=VALUE", help_heading = "Socket")]
    pub(crate) sockopt: Vec<String>,

    #[command(flatten)]
    pub(crate) file: SocketFile,

    /// json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog
    ///
    /// The form of a packet in the envelopes that are printed.
    ///
    /// Datagrams are passed on unchanged, valid packets or not; one that is not valid is reported, and printed
    /// with its bytes. udgram-protocols(7) describes the protocols.
    #[arg(
        short,
        long,
        value_name = "NAME",
        value_enum,
        default_value = "json",
        hide_default_value = true,
        hide_possible_values = true,
        help_heading = "Packets"
    )]
    pub(crate) protocol: Protocol,

    /// Close the socket of a client that is idle so long
    ///
    /// A bare number is seconds. By default, it stays open.
    ///
    /// A client is idle if no packet passes from it or to it. If it sends again, it gets another socket, and
    /// another address for PEER. Sockets of clients that no longer exist are closed without this option, too.
    /// none is no limit.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true, default_value = "none", hide_default_value = true, help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    #[command(flatten)]
    pub(crate) counting: Counting,
}
