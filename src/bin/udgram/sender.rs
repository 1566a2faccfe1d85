//! Sending packets: makes a datagram of each argument or line, sends it to its destination, waits for
//! peers that went away, and awaits replies.

use crate::cli::value::{Claim, Descriptor, Replies};
use crate::cli::{Protocol, Send};
use crate::envelope::{Claims, OutgoingEnvelope};
use crate::exit::{Exit, Failure};
use crate::input::Input;
use crate::process::require_open_at_start;
use crate::progress::Progress;
use crate::protocol::Client;
use crate::receive::{Limits, Patience, PrintOnly, Receiver, wake};
use crate::report::Report;
use crate::signal::Signals;
use crate::stats::TOTALS;
use anyhow::Result;
use std::borrow::Cow;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use udgram::ancillary::{Control, Credentials};
use udgram::protocol::DatagramProtocol;
use udgram::wait::{Deadline, Wake};
use udgram::{
    Address, BATCH, DatagramSocket, Destination, Error, ErrorKind, Outgoing, PeerWatch, duplicate,
    may_come,
};

/// Where the packets go.
pub(crate) enum Target {
    /// The socket is connected to this peer, and receives from no other.
    Peer(Address<'static>),
    /// Each datagram is sent to this address, or to the one that its envelope names.
    Each(Option<Address<'static>>),
    /// The socket is inherited, and connected already.
    Unchanged,
}

fn open_descriptor(descriptor: &Descriptor) -> Result<OwnedFd> {
    require_open_at_start(descriptor.pid, descriptor.number)?;
    Ok(duplicate(descriptor.pid, descriptor.number)?)
}

fn control(descriptors: &[OwnedFd], credentials: Option<Credentials>) -> Result<Control> {
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    Ok(Control::new(&borrowed, credentials)?)
}

/// Sends packets from one socket, each to its destination, and awaits the replies.
pub(crate) struct Sender<'s> {
    client: Client,
    receiver: Option<Receiver<PrintOnly>>,
    options: &'s Send,
    wake: Wake<'s>,
    signals: Option<&'s Signals>,
    report: Report,
    /// Where datagrams go whose envelope names no other destination.
    destination: Option<Destination>,
    descriptors: Vec<OwnedFd>,
    credentials: Option<Credentials>,
    control: Control,
    sent: u64,
    /// How many bytes of input have been read as packets.
    read: u64,
    progress: Option<Progress>,
    warned_described: bool,
}

/// A datagram to send, with the destination and ancillary data that its envelope gives it.
struct Prepared<'p> {
    /// The number of its line or argument.
    number: u64,
    bytes: Cow<'p, [u8]>,
    to: Option<Destination>,
    control: Option<Control>,
    /// Kept open until it is sent.
    _descriptors: Vec<OwnedFd>,
}

/// Where packets come from, as messages call it.
#[derive(Clone, Copy)]
enum Origin {
    Argument,
    Line,
}

impl Origin {
    fn name(self) -> &'static str {
        match self {
            Self::Argument => "argument",
            Self::Line => "line",
        }
    }
}

impl<'s> Sender<'s> {
    /// Returns a sender that uses the socket of `client`, and `receiver` for the replies.
    pub(crate) fn new(
        client: Client,
        receiver: Option<Receiver<PrintOnly>>,
        options: &'s Send,
        signals: Option<&'s Signals>,
        report: Report,
    ) -> Result<Self> {
        let output = receiver
            .as_ref()
            .and_then(|receiver| receiver.printer.output.watched());
        let descriptors = options
            .fd
            .iter()
            .map(open_descriptor)
            .collect::<Result<Vec<_>>>()?;
        let credentials = options.creds.map(|claim| match claim {
            Claim::Own => Credentials::own(),
            Claim::Of(credentials) => credentials,
        });
        Ok(Self {
            control: control(&descriptors, credentials)?,
            descriptors,
            credentials,
            client,
            receiver,
            options,
            wake: wake(signals.map(Signals::stop), output),
            signals,
            report,
            destination: None,
            sent: 0,
            read: 0,
            progress: None,
            warned_described: false,
        })
    }

    /// Prints final warnings and returns the exit status.
    pub(crate) fn conclude(&mut self, exit: Exit) -> Exit {
        match &mut self.receiver {
            Some(receiver) => receiver.printer.conclude(exit),
            None => exit,
        }
    }

    /// Connects to the peer, or checks that it exists.
    pub(crate) fn connect_to_destination(&mut self, target: &Target) -> Result<()> {
        let socket = self.client.socket()?;
        let mut destination = match target {
            Target::Peer(peer) => Destination::connected(peer),
            Target::Each(None) => return Ok(()),
            // The socket stays unconnected, so that others can answer.
            Target::Each(Some(to)) => Destination::named(to)?,
            Target::Unchanged => return self.keep_peer(&socket),
        };
        if self.options.wait {
            let deadline = Deadline::after(self.options.timeout.0);
            let mut watch = PeerWatch::new(destination.address());
            let failure = watch.establish(&socket, &mut destination, deadline, &self.wake)?;
            if let Some(failure) = failure {
                return Err(self.never_came(&destination, &failure));
            }
        } else {
            socket.establish(&mut destination)?;
        }
        if destination.is_connected() {
            let peer = destination.address().quoted();
            self.report.note(format_args!("the peer is {peer}"));
        }
        self.destination = Some(destination);
        Ok(())
    }

    /// Keeps the peer that an inherited socket is connected to.
    fn keep_peer(&mut self, socket: &DatagramSocket) -> Result<()> {
        self.destination = socket.peer_name()?.map(Destination::found);
        if self.destination.is_none() && !self.options.packets.envelope {
            return Err(Failure::usage(
                "the socket is not connected, and there is no --to that says where packets go",
            ));
        }
        let found = self
            .destination
            .as_ref()
            .is_some_and(Destination::can_be_found);
        if self.receiver.is_some() && found && socket.local_address()? == Address::Unnamed {
            return Err(Failure::usage(
                "--reply: nobody can answer an unnamed socket",
            ));
        }
        Ok(())
    }

    /// Returns the error of a destination that was not reachable in time.
    fn never_came(&self, destination: &Destination, failure: &Error) -> anyhow::Error {
        let to = destination.address().quoted();
        let timeout = humantime::format_duration(self.options.timeout.0.unwrap_or_default());
        let message = if failure.kind() == ErrorKind::NobodyThere {
            format!("still no socket at {to} after {timeout}")
        } else {
            format!("{failure}, still after {timeout}")
        };
        Failure::error(Exit::TimedOut, message)
    }

    /// Sends the packets, or else those of stdin.
    pub(crate) fn send_all(&mut self, packets: &[OsString]) -> Result<Exit> {
        if !packets.is_empty() {
            let packets = packets.iter().map(|packet| packet.as_bytes());
            return self.send_each(Origin::Argument, &mut (1..).zip(packets));
        }
        let mut input = Input::new()?;
        let protocol = self.options.packets.protocol;
        if protocol == Protocol::Raw && !self.options.packets.envelope {
            let packet = input.whole(&self.wake)?;
            let packet = (!packet.is_empty()).then_some((1, packet));
            return self.send_each(Origin::Line, &mut packet.into_iter());
        }
        let answers_shown = self
            .receiver
            .as_ref()
            .is_some_and(|receiver| receiver.printer.output.terminal);
        if self.report.shows_progress() && !answers_shown {
            self.progress = Progress::of_stdin();
        }
        let mut numbers = 1..;
        while let Some(lines) = input.lines(&self.wake)? {
            let mut rest = lines;
            let lines = std::iter::from_fn(|| {
                let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
                let (line, after) = rest.split_at(end);
                rest = after;
                (!line.is_empty()).then(|| line.strip_suffix(b"\n").unwrap_or(line))
            });
            // With the text protocol, a line of blanks is a packet.
            let text = protocol == Protocol::Text && !self.options.packets.envelope;
            let blank = |line: &[u8]| {
                if text {
                    line.is_empty()
                } else {
                    line.trim_ascii().is_empty()
                }
            };
            let mut packets = lines
                .zip(numbers.by_ref())
                .filter(|(line, _)| !blank(line))
                .map(|(line, number)| (number, line));
            let exit = self.send_each(Origin::Line, &mut packets)?;
            if exit != Exit::Done {
                return Ok(exit);
            }
        }
        Ok(Exit::Done)
    }

    /// Sends every packet, in batches, or one by one if replies are awaited.
    fn send_each<'p>(
        &mut self,
        origin: Origin,
        packets: &mut impl Iterator<Item = (u64, &'p [u8])>,
    ) -> Result<Exit> {
        let most = if self.receiver.is_some() { 1 } else { BATCH };
        loop {
            let mut batch = Vec::with_capacity(most);
            let mut refused = None;
            for (number, packet) in packets.by_ref().take(most) {
                self.read += packet.len() as u64 + 1;
                match self.prepare(number, packet) {
                    Ok(prepared) => batch.push(prepared),
                    Err(error) => {
                        refused = Some((number, error));
                        break;
                    }
                }
            }
            let sent = self.sent;
            self.deliver(&mut batch).map_err(|error| {
                let done = usize::try_from(self.sent - sent).unwrap_or(usize::MAX);
                match batch.get(done) {
                    // The first packet may be the only one: no number.
                    Some(Prepared { number, .. }) if *number > 1 => {
                        error.context(format!("{} {number}", origin.name()))
                    }
                    _ => error,
                }
            })?;
            if let Some(progress) = &mut self.progress {
                progress.show(self.sent, self.read);
            }
            if let Some((number, error)) = refused {
                return Err(self.refusal(origin, number, error));
            }
            if batch.is_empty() {
                return Ok(Exit::Done);
            }
            let exit = self.await_replies()?;
            if exit != Exit::Done {
                return Ok(exit);
            }
        }
    }

    /// Returns the error of a packet that cannot be sent, with its place and how many were sent.
    fn refusal(&self, origin: Origin, number: u64, error: anyhow::Error) -> anyhow::Error {
        let sent = match self.sent {
            0 => "no packet was sent".to_owned(),
            1 => "1 packet was sent".to_owned(),
            sent => format!("{sent} packets were sent"),
        };
        let name = origin.name();
        match error.downcast::<udgram::protocol::ParseError>() {
            Ok(error) => {
                let column = error.offset() + 1;
                Failure::error(
                    Exit::Parse,
                    format!(
                        "{name} {number}, column {column}: {}; {sent}",
                        error.message()
                    ),
                )
            }
            Err(error) => error.context(format!("{name} {number}; {sent}")),
        }
    }

    /// Makes the datagram of a packet or an envelope.
    fn prepare<'p>(&mut self, number: u64, packet: &'p [u8]) -> Result<Prepared<'p>> {
        let protocol = self.options.packets.protocol;
        if !self.options.packets.envelope {
            let bytes = protocol.make_datagram(packet)?;
            return Ok(Prepared {
                number,
                bytes,
                to: None,
                control: None,
                _descriptors: Vec::new(),
            });
        }
        let claims = match self.credentials {
            Some(_) => Claims::Count,
            None => Claims::Ignored,
        };
        let envelope = OutgoingEnvelope::parse(packet, protocol, claims)?;
        if envelope.described > 0 && !self.warned_described {
            self.warned_described = true;
            self.report.warning(
                "an envelope describes descriptors that its receiver had: they are not sent",
            );
        }
        let descriptors = envelope
            .descriptors
            .iter()
            .map(open_descriptor)
            .collect::<Result<Vec<_>>>()?;
        let credentials = self
            .credentials
            .map(|own| envelope.credentials.unwrap_or(own));
        let all: Vec<_> = self
            .descriptors
            .iter()
            .chain(&descriptors)
            .map(AsFd::as_fd)
            .collect();
        Ok(Prepared {
            number,
            bytes: envelope.bytes.into(),
            to: envelope.to.as_ref().map(Destination::named).transpose()?,
            control: Some(Control::new(&all, credentials)?),
            _descriptors: descriptors,
        })
    }

    /// Sends datagrams in order, each to its destination, and counts those that were sent.
    fn deliver(&mut self, batch: &mut [Prepared<'_>]) -> Result<()> {
        let mut done = 0;
        let mut recovery = None;
        while done < batch.len() {
            let outgoing: Vec<Outgoing<'_>> = batch[done..]
                .iter()
                .map(|prepared| Outgoing {
                    bytes: &prepared.bytes,
                    to: prepared.to.as_ref().or(self.destination.as_ref()),
                    control: Some(prepared.control.as_ref().unwrap_or(&self.control)),
                })
                .collect();
            let timeout = self.options.timeout.0;
            let (sent, failure) = match self.client.send_batch(&outgoing, timeout, &self.wake) {
                Ok(()) => (outgoing.len(), None),
                Err((sent, error)) => (sent, Some(error)),
            };
            self.sent += count(&outgoing[..sent]);
            done += sent;
            if sent > 0 {
                recovery = None;
            }
            if let Some(error) = failure {
                let own = batch.get_mut(done).and_then(|head| head.to.as_mut());
                self.recover(own, error, &mut recovery)?;
            }
        }
        Ok(())
    }

    /// Makes the destination of the packet at hand reachable again after `error`: `own`, or else that
    /// of all packets. It waits with --wait; otherwise it tries once, for a socket may have the
    /// address that is another one than the one that went away.
    fn recover(
        &mut self,
        own: Option<&mut Destination>,
        error: Error,
        recovery: &mut Option<(PeerWatch, Deadline)>,
    ) -> Result<()> {
        let mut shared = self.destination.take();
        let recovered = match own.or(shared.as_mut()) {
            Some(to) if error.kind() == ErrorKind::NobodyThere || self.waits_for(&error) => {
                self.reach(to, error, recovery)
            }
            _ => Err(error.into()),
        };
        self.destination = shared;
        recovered
    }

    fn waits_for(&self, error: &Error) -> bool {
        self.options.wait && may_come(error)
    }

    fn reach(
        &self,
        to: &mut Destination,
        error: Error,
        recovery: &mut Option<(PeerWatch, Deadline)>,
    ) -> Result<()> {
        let socket = self.client.socket()?;
        let first = recovery.is_none();
        let (watch, deadline) = recovery.get_or_insert_with(|| {
            (
                PeerWatch::new(to.address()),
                Deadline::after(self.options.timeout.0),
            )
        });
        if !self.options.wait {
            let established = first && socket.establish(to).is_ok();
            return if established {
                Ok(())
            } else {
                Err(error.into())
            };
        }
        if !to.can_be_found() {
            return Err(error.into());
        }
        // The socket may be there and accept nothing (EPIPE): wait before each further attempt.
        let failure = if watch.wait(*deadline, &self.wake)? {
            watch.establish(&socket, to, *deadline, &self.wake)?
        } else {
            Some(error)
        };
        match failure {
            None => Ok(()),
            Some(failure) => Err(self.never_came(to, &failure)),
        }
    }

    /// Returns what may keep the peer from answering.
    fn no_reply_hint(&self) -> String {
        let local = self.client.local_address().unwrap_or(Address::Unnamed);
        let name = local.quoted();
        let unreachable = match local {
            Address::Pathname(_) => {
                format!("the peer may not be permitted to write to {name}: --mode 0666")
            }
            _ => format!(
                "the peer may be unable to answer the abstract name {name}: --bind PATH --mode 0666"
            ),
        };
        match &self.destination {
            Some(to) if to.is_connected() => {
                format!("{unreachable}; or it answers from another address: --to hears all")
            }
            _ => unreachable,
        }
    }

    /// Waits for the replies to the packet just sent, if there are to be any, and prints them.
    fn await_replies(&mut self) -> Result<Exit> {
        let (Some(replies), Some(receiver)) = (self.options.reply, &mut self.receiver) else {
            return Ok(Exit::Done);
        };
        let limits = Limits {
            count: match replies {
                Replies::Count(count) => Some(count),
                Replies::All => None,
            },
            patience: Patience::Each(self.options.timeout.0),
            expired: Exit::TimedOut,
            drain: false,
        };
        let before = receiver.received;
        let exit = receiver.run(&self.client, &limits, self.signals)?;
        let came = receiver.received - before;
        if exit != Exit::TimedOut || (replies == Replies::All && came > 0) {
            return Ok(if exit == Exit::TimedOut {
                Exit::Done
            } else {
                exit
            });
        }
        let timeout = humantime::format_duration(self.options.timeout.0.unwrap_or_default());
        let message = match replies {
            Replies::Count(count) if count > 1 => {
                format!("{came} of {count} replies came, and then none within {timeout}")
            }
            _ => format!("no reply came within {timeout}"),
        };
        let error = Failure::with_hint(Exit::TimedOut, message, self.no_reply_hint());
        Err(match &self.destination {
            Some(to) => error.context(format!("cannot get a reply from {}", to.address().quoted())),
            None => error,
        })
    }
}

/// Adds datagrams to the totals and returns how many they are.
fn count(sent: &[Outgoing<'_>]) -> u64 {
    let bytes = sent.iter().map(|datagram| datagram.bytes.len()).sum();
    TOTALS.sent.add(sent.len(), bytes);
    sent.len() as u64
}
