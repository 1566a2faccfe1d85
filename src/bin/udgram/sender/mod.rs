//! Sending packets: makes a datagram of each argument or line, sends it to its destination, waits for
//! peers that went away, and awaits replies.

mod dropping;
mod replies;
mod window;

use crate::cli::value::{Claim, Rate};
use crate::cli::{Protocol, Send, Terminator};
use crate::endpoint::unreachable_in_time;
use crate::envelope::Times;
use crate::exit::{Exit, Failure};
use crate::input::Input;
use crate::invalid::Origin;
use crate::pacing::{Due, Pace, Pacing};
use crate::prepared::Prepared;
use crate::preparer::{Preparer, too_long};
use crate::progress::Progress;
use crate::protocol::Client;
use crate::receive::Receiver;
use crate::reply::ReplyHandler;
use crate::report::Report;
use crate::signal::Signals;
use crate::stats::TOTALS;
use anyhow::Result;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::{Instant, SystemTime};
use udgram::ancillary::Credentials;
use udgram::protocol::DatagramProtocol;
use udgram::wait::{Deadline, Wake, pause};
use udgram::{
    Address, BATCH, Destination, Error, ErrorKind, MemfdDatagram, Outgoing, PeerWatch,
    may_become_reachable,
};

/// The destination of the packets.
pub(crate) enum Target {
    /// The socket is connected to this peer, and receives from no other.
    Peer(Address<'static>),
    /// Each datagram is sent to this address, or to the one that its envelope names.
    Each(Option<Address<'static>>),
    /// The socket is inherited, and connected already.
    Unchanged,
}

/// Sends packets from one socket, each to its destination, and awaits the replies.
pub(crate) struct Sender<'s> {
    client: Client,
    receiver: Option<Receiver<ReplyHandler>>,
    options: &'s Send,
    wake: Wake<'s>,
    signals: Option<&'s Signals>,
    report: Report,
    /// The destination of datagrams whose envelope names none.
    destination: Option<Destination>,
    preparer: Preparer,
    sent: u64,
    /// The number of bytes of input that have been read as packets.
    read: u64,
    progress: Option<Progress>,
    pacing: Pacing,
    /// The time since which the packets at hand are there.
    available: Instant,
    dropped: dropping::Dropped,
    /// True if the current packet is the only one sent from the socket that can be unread.
    alone: bool,
    /// The time at which it was sent.
    asked: SystemTime,
}

impl<'s> Sender<'s> {
    /// Returns a sender that uses the socket of `client`, which is connected to `peer`, and
    /// `receiver` for the replies.
    pub(crate) fn new(
        client: Client,
        peer: Option<Destination>,
        receiver: Option<Receiver<ReplyHandler>>,
        options: &'s Send,
        signals: Option<&'s Signals>,
        report: Report,
    ) -> Result<Self> {
        let output = receiver
            .as_ref()
            .and_then(|receiver| receiver.printer.output.watched());
        let credentials = options.creds.map(|claim| match claim {
            Claim::Own => Credentials::own(),
            Claim::Of(credentials) => credentials,
        });
        let times = match options.pace {
            Some(_) => Times::Count,
            None => Times::Ignored,
        };
        Ok(Self {
            preparer: Preparer::new(options.packets, times, &options.fd, credentials, report)?,
            client,
            receiver,
            options,
            wake: Wake::new(signals.map(Signals::stop), output),
            signals,
            report,
            destination: peer,
            sent: 0,
            read: 0,
            progress: None,
            pacing: Pacing::new(pace(options)),
            available: Instant::now(),
            dropped: dropping::Dropped::default(),
            alone: false,
            asked: SystemTime::UNIX_EPOCH,
        })
    }

    /// Prints final warnings and returns the exit status.
    pub(crate) fn conclude(&mut self, exit: Exit) -> Result<Exit> {
        match &mut self.receiver {
            Some(receiver) => receiver.conclude(&self.client, exit, "--reply=N"),
            None => Ok(exit),
        }
    }

    /// Reports the packets that were dropped.
    pub(crate) fn report_dropped(&self) {
        self.dropped.report(self.sent, self.report);
    }

    /// Makes sure that the packets have a destination, and that a reply is possible.
    pub(crate) fn find_destination(&mut self, target: &Target) -> Result<()> {
        match target {
            Target::Peer(_) => {}
            Target::Each(None) => self.destination = None,
            Target::Each(Some(to)) => self.reach_address(to)?,
            Target::Unchanged => self.keep_peer()?,
        }
        let socket = self.client.socket()?;
        if let Some(receiver) = &mut self.receiver {
            let to = self.destination.as_ref();
            receiver.strangers.peer = to.and_then(Destination::peer_name);
            receiver.handler.connected = to.is_some_and(Destination::is_connected);
            match (target, socket.peer_address()?) {
                (Target::Each(Some(to)), Some(peer)) if *to != peer => {
                    return Err(Failure::usage(format!(
                        "--reply: the socket is connected to {}, which alone can answer",
                        peer.quoted()
                    )));
                }
                _ => {}
            }
            // The other end of a socketpair answers without a name.
            let found = to.is_none_or(Destination::can_be_found);
            if found && socket.local_address()? == Address::Unnamed {
                return Err(Failure::usage(
                    "--reply: nobody can answer an unnamed socket",
                ));
            }
        }
        Ok(())
    }

    /// Makes sure that there is a socket at `to`. The own socket stays unconnected, so that others
    /// can answer.
    fn reach_address(&mut self, to: &Address<'static>) -> Result<()> {
        let socket = self.client.socket()?;
        let timeout = self.options.timeout.0;
        let deadline = Deadline::after(timeout);
        let mut watch = PeerWatch::new(to);
        let destination = loop {
            // A path that is too long for sun_path is opened: it has to be there.
            let reached = Destination::named(to).and_then(|mut destination| {
                socket.establish(&mut destination)?;
                Ok(destination)
            });
            match reached {
                Err(error) if self.options.drop && may_become_reachable(&error) => {
                    break Destination::named(to)?;
                }
                Err(error) if self.waits_for(&error) => {
                    if !watch.wait(deadline, &self.wake)? {
                        return Err(unreachable_in_time(
                            &Destination::connected(to),
                            &error,
                            timeout,
                        ));
                    }
                }
                reached => break reached?,
            }
        };
        self.destination = Some(destination);
        Ok(())
    }

    /// Keeps the peer that an inherited socket is or was connected to.
    fn keep_peer(&mut self) -> Result<()> {
        if self.destination.is_some() || self.options.packets.envelope {
            return Ok(());
        }
        Err(Failure::usage(
            "the socket is not connected, and there is no --to that says where packets go",
        ))
    }

    /// Sends the packets, or else those of stdin.
    pub(crate) fn send_all(&mut self, packets: &[OsString]) -> Result<Exit> {
        if !packets.is_empty() {
            let packets = packets.iter().map(|packet| packet.as_bytes());
            return self.send_each(Origin::Argument, &mut (1..).zip(packets));
        }
        let terminator = self.options.packets.terminator();
        let mut input = Input::new(terminator)?;
        let protocol = self.options.packets.protocol;
        if protocol == Protocol::Raw && !self.options.packets.envelope {
            let packet = input
                .whole(&self.wake)
                .map_err(|error| too_long("stdin", error, self.sent))?;
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
        let keeps_blank_lines = self.preparer.keeps_blank_lines();
        let origin = match terminator {
            Terminator::LineBreak => Origin::Line,
            Terminator::Nul => Origin::Record,
        };
        let end = terminator.byte();
        let mut numbers = 1_u64..;
        while let Some(lines) = input.lines(&self.wake).map_err(|error| {
            let place = format!("{} {}", origin.name(), numbers.start);
            too_long(&place, error, self.sent)
        })? {
            self.available = Instant::now();
            let mut rest = lines;
            let lines = std::iter::from_fn(|| {
                let len = memchr::memchr(end, rest).map_or(rest.len(), |end| end + 1);
                let (line, after) = rest.split_at(len);
                rest = after;
                (!line.is_empty()).then(|| line.strip_suffix(&[end]).unwrap_or(line))
            });
            let mut packets = lines
                .zip(numbers.by_ref())
                .filter(|(line, _)| keeps_blank_lines || !line.trim_ascii().is_empty())
                .map(|(line, number)| (number, line));
            let exit = self.send_each(origin, &mut packets)?;
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
        if self.options.window > 1 {
            return self.ask_each(origin, packets);
        }
        let alone = self.receiver.is_some() || !self.pacing.is_unlimited();
        let most = if alone { 1 } else { BATCH };
        loop {
            let mut batch = Vec::with_capacity(most);
            let mut refused = None;
            for (number, packet) in packets.by_ref().take(most) {
                self.read += packet.len() as u64 + 1;
                match self.preparer.prepare(number, packet) {
                    Ok(prepared) => batch.push(prepared),
                    Err(error) => {
                        refused = Some((number, packet, error));
                        break;
                    }
                }
            }
            let due = self.wait_until_due(&batch)?;
            let at = due.map_or_else(Instant::now, |due| due.at);
            self.set_late_aside(&batch)?;
            self.deliver_in_place(origin, &mut batch)?;
            if let (Some(due), Some(head)) = (due, batch.first()) {
                self.pacing.note_sent(due, head.received, Instant::now());
            }
            if let Some(progress) = &mut self.progress {
                progress.show(self.sent, self.read);
            }
            if let Some((number, packet, error)) = refused {
                return Err(self
                    .preparer
                    .refusal((origin, number), packet, error, self.sent));
            }
            if batch.is_empty() {
                return Ok(Exit::Done);
            }
            let exit = self.await_replies(origin, &batch[0], at)?;
            if exit != Exit::Done {
                return Ok(exit);
            }
        }
    }

    /// Waits until the first packet is due, and returns when it was; `None` if packets are sent at once.
    fn wait_until_due(&self, batch: &[Prepared<'_>]) -> Result<Option<Due>> {
        let Some(head) = batch.first().filter(|_| !self.pacing.is_unlimited()) else {
            return Ok(None);
        };
        let due = self.pacing.due(self.available, head.received);
        pause(Deadline::at(due.at), &self.wake)?;
        Ok(Some(due))
    }

    /// Sends datagrams as [`deliver`](Self::deliver) does, or as `--drop` asks. An error has the place of
    /// the packet.
    fn deliver_in_place(&mut self, origin: Origin, batch: &mut [Prepared<'_>]) -> Result<()> {
        let before = self.sent + self.dropped.count();
        let delivered = if self.options.drop {
            self.deliver_or_drop(batch)
        } else {
            self.deliver(batch)
        };
        delivered.map_err(|error| {
            let done = self.sent + self.dropped.count() - before;
            match batch.get(usize::try_from(done).unwrap_or(usize::MAX)) {
                Some(packet) => packet.add_place(error, origin),
                None => error,
            }
        })
    }

    /// Sends datagrams in order, each to its destination, and counts those that were sent.
    fn deliver(&mut self, batch: &mut [Prepared<'_>]) -> Result<()> {
        let mut done = 0;
        let mut recovery = None;
        if let Some(Err(error)) = self.destination.as_mut().map(Destination::refresh) {
            self.recover(None, error, &mut recovery)?;
        }
        while done < batch.len() {
            let outgoing = self.outgoing(&batch[done..]);
            let timeout = self.options.timeout.0;
            let outcome = self.client.send_batch(&outgoing, timeout, &self.wake);
            let (sent, began, failure) = match outcome {
                Ok(began) => (outgoing.len(), began, None),
                Err((sent, error)) => (sent, self.asked, Some(error)),
            };
            let counted = count(&outgoing[..sent]);
            let failure = failure.map(|error| {
                let head = outgoing.get(sent).copied().unwrap_or_default();
                let carrier = self.options.packets.protocol.carrier();
                MemfdDatagram::replacing(&head, error, carrier)
            });
            self.sent += counted;
            self.asked = began;
            done += sent;
            if sent > 0 {
                recovery = None;
            }
            match failure {
                Some(Ok(memfd)) => batch[done].memfd = Some(memfd),
                Some(Err(error)) => {
                    let own = batch.get_mut(done).and_then(|head| head.to.as_mut());
                    self.recover(own, error, &mut recovery)?;
                }
                None => {}
            }
        }
        Ok(())
    }

    fn outgoing<'o>(&'o self, batch: &'o [Prepared<'_>]) -> Vec<Outgoing<'o>> {
        let outgoing = batch.iter().map(|prepared| {
            let to = prepared.to.as_ref().or(self.destination.as_ref());
            prepared.outgoing(to, self.preparer.control())
        });
        outgoing.collect()
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
        if let Some(receiver) = &mut self.receiver {
            // The socket that has the peer's address now may be bound with another name.
            receiver.strangers.peer = shared.as_ref().and_then(Destination::peer_name);
        }
        self.destination = shared;
        recovered
    }

    fn waits_for(&self, error: &Error) -> bool {
        self.options.wait && may_become_reachable(error)
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
            Some(failure) => Err(unreachable_in_time(to, &failure, self.options.timeout.0)),
        }
    }
}

/// Returns what sets the time from one packet to the next.
fn pace(options: &Send) -> Pace {
    match (options.rate, options.pace) {
        (Some(Rate(gap)), _) => Pace::Fixed(gap),
        (None, Some(factor)) => Pace::Recorded(factor),
        (None, None) => Pace::Unlimited,
    }
}

/// Adds datagrams to the totals and returns how many they are.
fn count(sent: &[Outgoing<'_>]) -> u64 {
    let bytes = sent.iter().map(|datagram| datagram.bytes.len()).sum();
    TOTALS.note_sent(sent.len(), bytes);
    sent.len() as u64
}
