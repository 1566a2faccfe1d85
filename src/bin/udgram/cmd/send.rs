//! `udgram send`: sends packets from arguments or stdin, and prints the replies to them.

use crate::cli::Send;
use crate::cli::value::parse_peer;
use crate::endpoint::{Endpoint, Request, Source};
use crate::exit::{Exit, Failure, has_kind};
use crate::printer::ReceiveOptions;
use crate::protocol::Client;
use crate::receive::{PrintOnly, Receiver};
use crate::report::Report;
use crate::sender::{Sender, Target};
use crate::signal::Signals;
use anyhow::Result;
use std::ffi::OsString;
use udgram::ancillary::{ControlSpace, DEFAULT_CONTROL_LEN};
use udgram::{Address, ErrorKind};

pub(crate) fn run(options: &Send, report: Report) -> Result<Exit> {
    let route = Route::of(options)?;
    let wanted = reply_options(options);
    let request = Request {
        source: route.source,
        connect: None,
        settings: &options.socket.sockopt,
        file: &options.file,
        needs: &options.reply.map(|_| wanted.needs()).unwrap_or_default(),
    };
    // With no file to remove and no replies or totals to print, a signal may end the process at once.
    let bound = matches!(options.bind, Some(Address::Pathname(_)));
    let signals = Signals::install_if(bound || options.reply.is_some() || options.counting.stats)?;
    let Endpoint {
        socket,
        origin,
        cleanup: _cleanup,
    } = Endpoint::open(&request, report)?;
    let client = Client::new(socket, wanted.protocol)?;
    let receiver = match options.reply {
        Some(_) => Some(Receiver::new(
            &client, origin, wanted, PrintOnly, None, report,
        )?),
        None => None,
    };
    let mut sender = Sender::new(client, receiver, options, signals.as_ref(), report)?;
    let sent = sender
        .connect_to_destination(&route.target)
        .and_then(|()| sender.send_all(route.packets));
    let exit = match (sent, &signals) {
        (Err(error), Some(signals)) if has_kind(&error, ErrorKind::Stopped) => {
            Exit::Signal(signals.take())
        }
        (sent, _) => sent?,
    };
    Ok(sender.conclude(exit))
}

/// Returns how replies are printed.
fn reply_options(options: &Send) -> ReceiveOptions {
    ReceiveOptions {
        protocol: options.packets.protocol,
        envelope: options.packets.envelope,
        credentials: false,
        room: if options.packets.envelope {
            ControlSpace::Bytes(DEFAULT_CONTROL_LEN)
        } else {
            ControlSpace::NoDescriptors
        },
        color: options.counting.shown.color,
    }
}

/// Which socket sends, where to, and which arguments are packets.
struct Route<'s> {
    source: Source<'s>,
    target: Target,
    packets: &'s [OsString],
}

impl<'s> Route<'s> {
    /// Sorts out the arguments: PEER or packet.
    fn of(options: &'s Send) -> Result<Self> {
        let arguments = options.arguments.as_slice();
        let named = &options.socket.inherited;
        let envelope = options.packets.envelope;
        let source = match &options.bind {
            Some(Address::Unnamed) if named.socket_fd.is_none() => Source::Bound(&Address::Unnamed),
            Some(address) => Source::of(Some(address), true, named)?,
            None => Source::of(None, true, named)?,
        };
        let (target, packets) = match (source, &options.to, arguments) {
            (_, Some(to), packets) => (Target::Each(Some(to.clone())), packets),
            (Source::Inherited(_), None, packets) => (Target::Unchanged, packets),
            (_, None, [peer, packets @ ..]) => {
                let peer =
                    parse_peer(peer).map_err(|cause| Failure::usage(format!("PEER: {cause}")))?;
                // An envelope may name another peer, which a connected socket could not reach.
                (
                    if envelope {
                        Target::Each(Some(peer))
                    } else {
                        Target::Peer(peer)
                    },
                    packets,
                )
            }
            (_, None, []) if envelope => (Target::Each(None), arguments),
            (_, None, []) => {
                return Err(Failure::usage(
                    "PEER is missing, and no socket is inherited that is connected to one",
                ));
            }
        };
        Ok(Self {
            source,
            target,
            packets,
        })
    }
}
