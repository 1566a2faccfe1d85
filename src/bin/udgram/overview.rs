//! Writes what `udgram sockopt` prints of a socket: options, addresses, the queue.

use crate::cli::setting::{Part, format_value};
use crate::json::{Layout, Object, write_option_value};
use crate::terminal::{Controls, escape};
use std::os::unix::ffi::OsStrExt;
use udgram::sockopt::{self, Queue, Value};
use udgram::{Address, DatagramSocket};

/// A part of the listing of a socket.
pub(crate) enum Shown {
    Option(Value),
    Address(Address<'static>),
    Queue(Queue),
}

impl Shown {
    /// Reads this part.
    pub(crate) fn of(part: Part, socket: &DatagramSocket) -> udgram::Result<Self> {
        Ok(match part {
            Part::Local => Self::Address(socket.local_address()?),
            Part::Peer => Self::Address(socket.peer_address()?.unwrap_or(Address::Unnamed)),
            Part::Queue => Self::Queue(sockopt::queue(socket)?),
        })
    }

    /// Appends it as a member of an object.
    pub(crate) fn write(&self, name: &str, object: &mut Object<'_>) {
        match self {
            Self::Option(value) => write_option_value(value, object.member(name)),
            Self::Address(address) => object.address(name, address),
            Self::Queue(lengths) => write_queue(*lengths, object.member(name)),
        }
    }

    /// Appends the value without its name: that of an option as `NAME=VALUE` takes it, an address as the
    /// command line takes it.
    pub(crate) fn write_alone(&self, lines: &mut Vec<u8>) {
        match self {
            Self::Option(value) => match format_value(value) {
                Some(text) => lines.extend_from_slice(text.as_bytes()),
                None => write_option_value(value, lines),
            },
            Self::Address(Address::Unnamed) => lines.extend_from_slice(b"null"),
            Self::Address(address) => {
                let start = lines.len();
                lines.extend_from_slice(address.to_os_string().as_bytes());
                escape(lines, start, Controls::Rust);
            }
            Self::Queue(lengths) => write_queue(*lengths, lines),
        }
    }
}

fn write_queue(lengths: Queue, json: &mut Vec<u8>) {
    let mut queue = Object::begin(json, Layout::Compact);
    queue.literal("inq", lengths.inq);
    queue.literal("outq", lengths.outq);
    queue.end();
}
