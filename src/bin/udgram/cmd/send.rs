//! `udgram send`: sends packets from arguments or stdin, and prints the replies to them.

use crate::cli::Send;
use crate::cli::value::parse_peer;
use crate::endpoint::{Absent, Connect, Endpoint, Purpose, Request, Source};
use crate::exit::{Exit, Failure, has_kind};
use crate::inherited::InheritedSocket;
use crate::printer::ReceiveOptions;
use crate::protocol::Client;
use crate::receive::Receiver;
use crate::reply::ReplyHandler;
use crate::report::Report;
use crate::sender::{Sender, Target};
use crate::signal::Signals;
use anyhow::Result;
use nix::libc::c_int;
use std::ffi::OsString;
use udgram::wait::Wake;
use udgram::{Address, ErrorKind, sockopt};

pub(crate) fn run(options: &Send, report: Report) -> Result<Exit> {
    let route = Route::of(options)?;
    let wanted = ReceiveOptions::for_peer(options.packets, options.counting.shown.color);
    // Without a file to remove, and replies or totals to print, a signal may end the process at once.
    let prints = options.reply.is_some() || options.counting.stats.is_some() || options.drop;
    let bound = matches!(options.bind, Some(Address::Pathname(_)));
    let signals = Signals::install_if(bound || prints)?;
    let sent = send(options, &route, wanted, signals.as_ref(), report);
    match (sent, &signals) {
        (Err(error), Some(signals)) if has_kind(&error, ErrorKind::Stopped) => {
            Ok(Exit::Signal(signals.take()))
        }
        (sent, _) => sent,
    }
}

fn send(
    options: &Send,
    route: &Route<'_>,
    wanted: ReceiveOptions,
    signals: Option<&Signals>,
    report: Report,
) -> Result<Exit> {
    let absent = if options.wait {
        let wake = Wake::new(signals.map(Signals::stop), None);
        Absent::Wait(options.timeout.0, wake)
    } else if options.drop {
        Absent::Ignore
    } else {
        Absent::Fail
    };
    let request = Request {
        source: route.source.clone(),
        connect: match &route.target {
            Target::Peer(peer) => Some(Connect { peer, absent }),
            Target::Each(_) | Target::Unchanged => None,
        },
        settings: &options.socket.sockopt,
        file: &options.file,
        queue: None,
        needs: &options.reply.map(|_| needs(wanted)).unwrap_or_default(),
        // Waiting for a reply receives what is queued.
        purpose: if options.reply.is_some() {
            Purpose::Answers
        } else {
            Purpose::Leave
        },
    };
    let Endpoint {
        socket,
        opened,
        peer,
        cleanup: _cleanup,
    } = Endpoint::open(&request, report)?;
    let client = Client::new(socket, wanted.protocol)?;
    let receiver = match options.reply {
        Some(_) => {
            let handler = ReplyHandler::new();
            let receiver = Receiver::new(&client, opened, wanted, handler, None, report)?;
            Some(receiver)
        }
        None => None,
    };
    let mut sender = Sender::new(client, peer, receiver, options, signals, report)?;
    sender.find_destination(&route.target)?;
    let sent = sender.send_all(route.packets);
    sender.report_dropped();
    sender.conclude(sent?)
}

/// Returns the options of `SOL_SOCKET` that replies need. The time of arrival shows which packets were sent
/// before the question.
fn needs(wanted: ReceiveOptions) -> Vec<c_int> {
    let time = (!wanted.envelope).then_some(sockopt::TIMESTAMPNS);
    wanted.needs().into_iter().chain(time).collect()
}

/// The meaning of the arguments: the socket that sends, its target, and the packets.
struct Route<'s> {
    source: Source<'s>,
    target: Target,
    packets: &'s [OsString],
}

impl<'s> Route<'s> {
    /// Takes PEER from the first argument, unless --to or --socket-fd name the destination. The
    /// environment has no effect on that: a program run by `udgram exec` that does not use its socket
    /// reaches the peer it names, from a socket of its own.
    fn of(options: &'s Send) -> Result<Self> {
        let arguments = options.arguments.as_slice();
        let envelope = options.packets.envelope;
        let named = &options.socket.inherited.socket_fd;
        let own = match &options.bind {
            Some(_) if named.is_some() => {
                return Err(Failure::usage(
                    "an address to bind and --socket-fd exclude each other",
                ));
            }
            Some(address) => Source::Bound(address),
            None => Source::Autobound,
        };
        let (source, target, packets) = match (named, &options.to, arguments) {
            (Some(socket), to, packets) => {
                let source = Source::Inherited(InheritedSocket::named(socket)?);
                let target = match to {
                    Some(to) => Target::Each(Some(to.clone())),
                    None => Target::Unchanged,
                };
                (source, target, packets)
            }
            (None, Some(to), packets) => {
                let inherited = match options.bind {
                    None => InheritedSocket::from_environment()?.map(Source::Inherited),
                    Some(_) => None,
                };
                let target = Target::Each(Some(to.clone()));
                (inherited.unwrap_or(own), target, packets)
            }
            (None, None, [peer, packets @ ..]) if peer == "-" => {
                (inherited(options)?, Target::Unchanged, packets)
            }
            (None, None, [peer, packets @ ..]) => {
                let peer =
                    parse_peer(peer).map_err(|cause| Failure::usage(format!("PEER: {cause}")))?;
                // An envelope may name another peer, which a connected socket could not reach.
                let target = if envelope {
                    Target::Each(Some(peer))
                } else {
                    Target::Peer(peer)
                };
                (own, target, packets)
            }
            (None, None, []) if envelope => (own, Target::Each(None), arguments),
            (None, None, []) => return Err(Failure::usage("PEER is missing")),
        };
        Ok(Self {
            source,
            target,
            packets,
        })
    }
}

/// Returns the socket that PEER `-` asks for.
fn inherited(options: &Send) -> Result<Source<'_>> {
    if options.bind.is_some() {
        return Err(Failure::usage(
            "PEER '-' is the inherited socket, which --bind does not bind",
        ));
    }
    Ok(Source::Inherited(InheritedSocket::as_peer()?))
}
