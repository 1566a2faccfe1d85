//! Arguments about packets that commands share: the protocol, envelopes, what receiving commands
//! have in common, and how packets are shown.

use super::socket::{Socket, SocketFile};
use super::value::{peer, room};
use clap::{Args, ValueEnum};
use udgram::Address;

// What every command that receives takes. Where arguments are flattened into those of a command,
// a documentation comment would become the command's.
#[derive(Debug, Args)]
pub(crate) struct Receive {
    /// Exchange packets with this peer only
    ///
    /// The kernel then refuses everybody else's (connect(2)).
    #[arg(short, long, value_name = "ADDR", value_parser = peer(), help_heading = "Socket")]
    pub(crate) connect: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) socket: Socket,

    #[command(flatten)]
    pub(crate) file: SocketFile,

    #[command(flatten)]
    pub(crate) packets: Packets,

    /// Ask for credentials; implies --envelope
    ///
    /// They are the sender's process, user and group, as the kernel vouches for them (SO_PASSCRED).
    /// A packet queued before the socket asked for them has none.
    #[arg(long, help_heading = "Descriptors and credentials")]
    pub(crate) creds: bool,

    /// Room for control data in bytes
    ///
    /// The default is CMSG_SPACE(8192), which holds all that one message carries. Descriptors that
    /// there is no room for are lost, and the envelope says so (ancillary_truncated). Without --envelope, --creds or a CMD it means nothing and is a usage
    /// error.
    #[arg(long, value_name = "BYTES", value_parser = room, allow_negative_numbers = true, help_heading = "Descriptors and credentials")]
    pub(crate) ancillary_bufsize: Option<u32>,

    #[command(flatten)]
    pub(crate) counting: Counting,
}

// How datagrams and lines translate.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Packets")]
pub(crate) struct Packets {
    /// json (default), text, raw, hex, base64, cbor, msgpack
    ///
    /// It says how datagrams and lines translate; see udgram(1). Bytes that it does not accept are
    /// a parse error, with its place: status 3.
    #[arg(
        short,
        long,
        value_name = "NAME",
        value_enum,
        default_value = "json",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub(crate) protocol: Protocol,

    /// Lines are JSON objects with all that is known
    ///
    /// Such an envelope has the packet, its sender, its time and more; its fields are in udgram(1).
    #[arg(short, long)]
    pub(crate) envelope: bool,
}

/// The wire's form, and the line's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// One JSON value, passed through unchanged
    Json,
    /// UTF-8 text
    Text,
    /// Bytes as they are; send takes all of stdin as one packet
    Raw,
    /// Bytes as hexadecimal digits
    Hex,
    /// Bytes as base64
    Base64,
    /// One CBOR value, shown as JSON
    Cbor,
    /// One MessagePack value, shown as JSON
    Msgpack,
}

impl Protocol {
    /// Returns whether the line of a packet is JSON.
    pub(crate) fn lines_are_json(self) -> bool {
        matches!(self, Self::Json | Self::Cbor | Self::Msgpack)
    }

    /// Returns its name, as it is written on the command line.
    pub(crate) fn written(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

/// When JSON is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal
    Auto,
    /// Wherever it goes
    Always,
    /// Nowhere
    Never,
}

// How commands show JSON.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Shown {
    /// Colour JSON: auto (default), always, never
    ///
    /// With auto, JSON is coloured on a terminal, unless NO_COLOR is set to something or TERM is
    /// dumb.
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true,
        hide_possible_values = true,
        display_order = 898
    )]
    pub(crate) color: When,
}

// How commands that carry packets show them.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Counting {
    #[command(flatten)]
    pub(crate) shown: Shown,

    /// Print totals at the end, and on SIGUSR1
    ///
    /// They go to stderr, on one line: the datagrams received and their bytes, those that were no
    /// packets, the datagrams sent and their bytes, and the seconds that it took.
    #[arg(long, display_order = 899)]
    pub(crate) stats: bool,
}
