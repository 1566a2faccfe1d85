//! Sending packets: makes a datagram of each argument or line, sends it to its destination, waits for
//! peers that went away, and awaits replies.

use crate::cli::value::{Claim, Descriptor, Replies};
use crate::cli::{Protocol, Send};
use crate::envelope::{Claims, OutgoingEnvelope};
use crate::exit::{Exit, Failure};
use crate::input::Input;
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
use std::sync::Arc;
use udgram::ancillary::{Control, Credentials};
use udgram::protocol::DatagramProtocol;
use udgram::wait::{Deadline, Wake};
use udgram::{
    Address, BATCH, DatagramSocket, Error, ErrorKind, Name, Outgoing, PeerWatch, Subject,
    connect_when_there, duplicate,
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
    /// The peer that the socket is connected to, if it can be found again.
    peer: Option<Address<'static>>,
    /// Where datagrams go if not to the socket's peer.
    to: Option<Name>,
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
    to: Option<Name>,
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
            peer: None,
            to: None,
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
        match target {
            Target::Peer(peer) => {
                self.connect(&socket, peer)?;
                self.report
                    .note(format_args!("the peer is {}", peer.quoted()));
                self.peer = Some(peer.clone());
            }
            Target::Each(None) => {}
            Target::Each(Some(to)) => {
                // The socket stays unconnected, so that others can answer; a second one checks
                // that the peer exists.
                self.connect(&DatagramSocket::new()?, to)?;
                self.to = Some(Name::of_peer(to)?);
            }
            Target::Unchanged => {
                let peer = socket.peer_address()?;
                if peer.is_none() && !self.options.packets.envelope {
                    return Err(Failure::usage(
                        "the socket is not connected, and there is no --to that says where packets go",
                    ));
                }
                // The other end of a socketpair is unnamed: it cannot be found again.
                self.peer = peer.filter(|peer| *peer != Address::Unnamed);
                if self.receiver.is_some()
                    && self.peer.is_some()
                    && socket.local_address()? == Address::Unnamed
                {
                    return Err(Failure::usage(
                        "--reply: nobody can answer an unnamed socket",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Connects `socket` to `peer`, waiting for it with --wait.
    fn connect(&self, socket: &DatagramSocket, peer: &Address<'_>) -> Result<()> {
        if self.options.wait {
            connect_when_there(
                socket,
                peer,
                Deadline::after(self.options.timeout.0),
                &self.wake,
            )?;
        } else {
            socket.connect(peer)?;
        }
        Ok(())
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
            self.deliver(&batch).map_err(|error| {
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
            to: envelope.to.as_ref().map(Name::of_peer).transpose()?,
            control: Some(Control::new(&all, credentials)?),
            _descriptors: descriptors,
        })
    }

    /// Sends datagrams in order, each to its destination, and counts those that were sent.
    fn deliver(&mut self, batch: &[Prepared<'_>]) -> Result<()> {
        let outgoing: Vec<Outgoing<'_>> = batch
            .iter()
            .map(|prepared| Outgoing {
                bytes: &prepared.bytes,
                to: prepared.to.as_ref().or(self.to.as_ref()),
                control: Some(prepared.control.as_ref().unwrap_or(&self.control)),
            })
            .collect();
        let mut rest = outgoing.as_slice();
        let mut renewed = false;
        let mut waiting = None;
        while let Err((sent, error)) =
            self.client
                .send_batch(rest, self.options.timeout.0, &self.wake)
        {
            self.sent += count(&rest[..sent]);
            rest = &rest[sent..];
            if sent > 0 {
                (renewed, waiting) = (false, None);
            }
            let named = rest
                .first()
                .and_then(|head| head.to.map(Name::address))
                .or_else(|| self.peer.clone());
            let Some(peer) = &named else {
                return Err(error.into());
            };
            // The kernel disconnects a socket whose peer is gone: the next error would be ENOTCONN.
            let error = error.about(peer);
            if error.kind() != ErrorKind::NobodyThere {
                return Err(error.into());
            }
            if self.options.wait {
                self.await_peer(peer, &mut waiting)?;
            } else if renewed || self.peer.is_none() || self.client.socket()?.connect(peer).is_err()
            {
                return Err(error.into());
            }
            // The socket that has the name now may be another one: one more attempt.
            renewed = true;
        }
        self.sent += count(rest);
        Ok(())
    }

    /// Waits until a peer that went away may be back. Called again for the same packet (the peer can
    /// be connected to, but accepts nothing), it goes on waiting until the same deadline.
    fn await_peer(
        &self,
        peer: &Address<'_>,
        waiting: &mut Option<(PeerWatch, Deadline)>,
    ) -> Result<()> {
        let timeout = self.options.timeout.0;
        let (watch, deadline) =
            waiting.get_or_insert_with(|| (PeerWatch::new(peer), Deadline::after(timeout)));
        let socket = match self.peer {
            Some(_) => self.client.socket()?,
            None => Arc::new(DatagramSocket::new()?),
        };
        loop {
            watch
                .wait(*deadline, &self.wake)
                .map_err(|error| match error.kind() {
                    ErrorKind::TimedOut => nobody_came(peer),
                    _ => error,
                })?;
            match socket.connect(peer) {
                Err(error) if error.kind() == ErrorKind::NobodyThere => {}
                connected => return Ok(connected?),
            }
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
        let error = Failure::error(Exit::TimedOut, message);
        Err(match &self.peer {
            Some(peer) => error.context(format!("cannot get a reply from {}", peer.quoted())),
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

/// Returns the error of a peer that did not appear in time.
fn nobody_came(peer: &Address<'_>) -> Error {
    let subject = Subject::Address(peer.clone().into_owned());
    Error::new(
        ErrorKind::TimedOut,
        "send to",
        subject,
        "nobody is there, and no time is left",
    )
}
