//! Arguments about packets that commands share: the protocol, envelopes, what receiving commands
//! have in common, and how packets are shown.

use super::socket::{Socket, SocketFile};
use super::value::{Reporting, peer, reporting, room};
use clap::{Args, ValueEnum};
use udgram::Address;

// What every command that receives takes. Where arguments are flattened into those of a command,
// a documentation comment would become the command's.
#[derive(Debug, Args)]
pub(crate) struct Receive {
    /// Exchange packets with this peer only
    ///
    /// The kernel then refuses packets of other senders (connect(2)).
    ///
    /// Packets that had arrived before are dropped and reported.
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
    /// Prints the sender's process, user, group and command.
    ///
    /// The kernel verifies them (SO_PASSCRED), except for the command's name. A packet that was queued before
    /// the socket asked for credentials has none.
    #[arg(long, help_heading = "Descriptors and credentials")]
    pub(crate) creds: bool,

    /// Buffer size for ancillary data in bytes
    ///
    /// The default holds everything that one message can carry.
    ///
    /// It is CMSG_SPACE(8192). Descriptors that do not fit are lost, and the envelope reports this
    /// (ancillary_truncated).
    /// Without --envelope, --creds or a CMD, the option is a usage error.
    #[arg(long, value_name = "BYTES", value_parser = room, allow_negative_numbers = true, hide_short_help = true, help_heading = "Descriptors and credentials")]
    pub(crate) ancillary_bufsize: Option<u32>,

    #[command(flatten)]
    pub(crate) counting: Counting,
}

// How a datagram becomes a line of text, and back.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Packets")]
pub(crate) struct Packets {
    /// json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog
    ///
    /// Converts each datagram to a line of text, and back.
    ///
    /// Bytes that the protocol does not accept are a parse error, reported with their position: status 3.
    /// udgram-protocols(7) describes the protocols.
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

    /// One JSON object a line: packet, sender, time, ...
    ///
    /// send and talk read such objects, too (udgram-protocols(7)).
    ///
    /// The object is an envelope. It also describes the received descriptors and, with --creds, has the
    /// credentials of the sender.
    #[arg(short, long)]
    pub(crate) envelope: bool,

    /// Packets end with a NUL instead of a line break
    ///
    /// On stdin and stdout, so that a packet may contain line breaks.
    ///
    /// The option is that of xargs(1). JSON may be written over several lines. Without --envelope, -p raw has no line
    /// ends, and the option is a usage error.
    #[arg(short = '0', long)]
    pub(crate) null: bool,
}

/// The byte that ends a packet on stdin and stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Terminator {
    LineBreak,
    Nul,
}

impl Terminator {
    /// Returns its name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LineBreak => "line break",
            Self::Nul => "NUL",
        }
    }

    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::LineBreak => b'\n',
            Self::Nul => 0,
        }
    }
}

impl Packets {
    /// Returns what ends a packet.
    pub(crate) fn terminator(self) -> Terminator {
        if self.null {
            Terminator::Nul
        } else {
            Terminator::LineBreak
        }
    }
}

/// Selects the form of a datagram and of its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// One JSON value, passed through unchanged
    Json,
    /// UTF-8 text
    Text,
    /// Unchanged bytes; send reads all of stdin as one packet
    Raw,
    /// Bytes as hexadecimal digits
    Hex,
    /// Bytes as base64
    Base64,
    /// One CBOR value, shown as JSON
    Cbor,
    /// One MessagePack value, shown as JSON
    Msgpack,
    /// NAME=value lines of sd_notify(3) and journald, as JSON
    Fields,
    /// A log message of RFC 5424, RFC 3164 or syslog(3), as JSON
    Syslog,
}

impl Protocol {
    /// Returns whether the line of a packet is JSON.
    pub(crate) fn lines_are_json(self) -> bool {
        match self {
            Self::Json | Self::Cbor | Self::Msgpack | Self::Fields | Self::Syslog => true,
            Self::Text | Self::Raw | Self::Hex | Self::Base64 => false,
        }
    }

    /// Returns its name on the command line.
    pub(crate) fn written(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

/// The cases in which JSON is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal
    Auto,
    /// Everywhere
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
    /// With auto, JSON is coloured on a terminal; NO_COLOR prevents it.
    ///
    /// CLICOLOR=0 and TERM=dumb prevent it, too. An empty NO_COLOR has no effect.
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

    /// Print totals at the end, on SIGUSR1, each INTERVAL
    ///
    /// One line on stderr. INTERVAL is a duration such as 1s or 500ms.
    ///
    /// The line has the datagrams received and their bytes, those that were not valid packets, the datagrams
    /// sent and their bytes, the seconds since the start, the packets a second, and the packets that were
    /// refused or dropped. With send --reply, it also has the median, the 99th percentile and the maximum of
    /// the round trips in microseconds, each from the time at which the packet was due. The packets a second
    /// in the lines of an INTERVAL are those of that interval.
    #[arg(long, value_name = "INTERVAL", value_parser = reporting, num_args = 0..=1, require_equals = true, default_missing_value = "end", display_order = 899)]
    pub(crate) stats: Option<Reporting>,
}
