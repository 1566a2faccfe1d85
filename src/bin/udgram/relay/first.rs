//! Passes packets to the first peer, and keeps them while it has no room or is away.

use super::clients::Clients;
use super::events::{Events, Interest};
use super::identity::Impersonator;
use super::parcel::{Kept, Parcel};
use crate::report::Report;
use crate::stats::TOTALS;
use nix::libc;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use udgram::answers::Recipient;
use udgram::{Address, DatagramSocket, Error, Outgoing, may_become_reachable};

/// The time that packets wait for a peer that is away.
pub(crate) const AWAY_TIMEOUT: Duration = Duration::from_secs(5);
/// The shortest and the longest time between two attempts to reach a peer that is away.
pub(crate) const INTERVAL: (Duration, Duration) =
    (Duration::from_millis(1), Duration::from_millis(50));

/// A packet that waits.
#[derive(Debug)]
struct Held {
    recipient: Recipient,
    kept: Rc<Kept>,
}

/// The presence of the peer.
#[derive(Debug, Clone, Copy)]
enum Presence {
    There,
    Away {
        since: Instant,
        next: Instant,
        interval: Duration,
    },
    /// Away for so long that packets are dropped.
    Missed {
        next: Instant,
    },
    /// The relay ends: packets are dropped.
    Ended,
}

/// An attempt to pass a packet on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Passed,
    Dropped,
    /// It has to wait.
    NotNow,
}

#[derive(Debug)]
pub(crate) struct FirstPeer {
    pub(crate) address: Address<'static>,
    pub(crate) clients: Clients,
    held: VecDeque<Held>,
    presence: Presence,
    /// The client whose socket is watched for room.
    watched: Option<u64>,
    /// The client whose packet found no room.
    full: Option<u64>,
    /// The number of packets that were not passed on.
    dropped: u64,
    /// True once a packet that the peer refuses was reported.
    refusal_reported: bool,
    report: Report,
}

impl FirstPeer {
    pub(crate) fn new(address: Address<'static>, clients: Clients, report: Report) -> Self {
        Self {
            address,
            clients,
            held: VecDeque::new(),
            presence: Presence::There,
            watched: None,
            full: None,
            dropped: 0,
            refusal_reported: false,
            report,
        }
    }

    /// Returns whether packets wait: then no more are received.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Keeps a packet until those before it have been passed on.
    pub(crate) fn hold(&mut self, recipient: Recipient, kept: Rc<Kept>) {
        self.held.push_back(Held { recipient, kept });
    }

    /// Returns the client whose packet waits first.
    pub(crate) fn next_held(&self) -> Option<(Recipient, Rc<Kept>)> {
        let held = self.held.front()?;
        Some((held.recipient.clone(), Rc::clone(&held.kept)))
    }

    /// Removes the packet that waits first, which was passed on or dropped.
    pub(crate) fn remove_held(&mut self) {
        self.held.pop_front();
    }

    /// Makes one attempt to pass a packet of a client on. Returns `false` if it has to wait.
    pub(crate) fn pass(
        &mut self,
        recipient: &Recipient,
        parcel: Parcel<'_>,
        impersonator: &mut Impersonator,
        events: &Events,
        now: Instant,
    ) -> bool {
        let attempt = self.attempt(recipient, parcel, impersonator, events, now);
        if attempt == Attempt::Dropped {
            self.dropped += 1;
        }
        attempt != Attempt::NotNow
    }

    fn attempt(
        &mut self,
        recipient: &Recipient,
        parcel: Parcel<'_>,
        impersonator: &mut Impersonator,
        events: &Events,
        now: Instant,
    ) -> Attempt {
        if matches!(self.presence, Presence::Ended) {
            return Attempt::Dropped;
        }
        // The second attempt is that of a new socket: the peer may have closed its own and be back.
        for _ in 0..2 {
            let token = match self.clients.find(recipient) {
                Some(token) => token,
                None => match self.connect(recipient, events, now) {
                    Ok(token) => token,
                    Err(attempt) => return attempt,
                },
            };
            let Some(client) = self.clients.get_mut(token) else {
                return Attempt::Dropped;
            };
            let mut sent = impersonator.send(&client.socket, parcel, &mut client.identity);
            if errno(&sent) == Some(libc::ECONNRESET) {
                // The peer has connected elsewhere. The kernel reports this once.
                sent = impersonator.send(&client.socket, parcel, &mut client.identity);
            }
            match sent {
                Ok(true) => {
                    client.used = now;
                    TOTALS.note_sent(1, parcel.bytes.len());
                    self.full = None;
                    return Attempt::Passed;
                }
                Ok(false) => {
                    self.full = Some(token);
                    return Attempt::NotNow;
                }
                Err(error) if is_gone(&error) => self.clients.close(token),
                Err(error) => {
                    let error = explain(&client.socket, parcel, &error);
                    return self.refused(error);
                }
            }
        }
        let address = &self.address;
        let error = Error::from_raw_os_error(
            "send to",
            udgram::Subject::Address(address.clone()),
            libc::EPIPE,
        );
        self.is_away(&error, now)
    }

    /// Opens the socket of a client, or returns what happens to its packet.
    fn connect(
        &mut self,
        recipient: &Recipient,
        events: &Events,
        now: Instant,
    ) -> Result<u64, Attempt> {
        match self.presence {
            Presence::Away { next, .. } if now < next => return Err(Attempt::NotNow),
            Presence::Missed { next } if now < next => return Err(Attempt::Dropped),
            _ => {}
        }
        let opened = self
            .clients
            .open(recipient, &self.address, events, now, self.report);
        match opened {
            Ok(token) => {
                if !matches!(self.presence, Presence::There) {
                    self.presence = Presence::There;
                    self.report
                        .warning(format_args!("{} is back", self.address.quoted()));
                }
                Ok(token)
            }
            Err(error) if may_become_reachable(&error) => Err(self.is_away(&error, now)),
            Err(error) => Err(self.refused(error)),
        }
    }

    /// Notes that the peer cannot be reached, and returns what happens to the packet.
    fn is_away(&mut self, error: &Error, now: Instant) -> Attempt {
        let (since, interval) = match self.presence {
            Presence::There => {
                self.report.warning(format_args!(
                    "{error}; packets wait for it for {AWAY_TIMEOUT:?}"
                ));
                (now, INTERVAL.0)
            }
            Presence::Away {
                since, interval, ..
            } if now < since + AWAY_TIMEOUT => (since, (2 * interval).min(INTERVAL.1)),
            Presence::Away { .. } => {
                self.report.warning(format_args!(
                    "still no socket at {} after {AWAY_TIMEOUT:?}: packets are dropped until there is one",
                    self.address.quoted()
                ));
                self.presence = Presence::Missed {
                    next: now + INTERVAL.1,
                };
                return Attempt::Dropped;
            }
            Presence::Missed { .. } | Presence::Ended => {
                self.presence = Presence::Missed {
                    next: now + INTERVAL.1,
                };
                return Attempt::Dropped;
            }
        };
        self.presence = Presence::Away {
            since,
            next: now + interval,
            interval,
        };
        Attempt::NotNow
    }

    /// Reports the first packet that the peer refuses.
    fn refused(&mut self, error: Error) -> Attempt {
        if !self.refusal_reported {
            self.refusal_reported = true;
            self.report.error(&error.into());
        }
        Attempt::Dropped
    }

    /// Watches for room the socket whose packet waits, if `watch` says so. Call it before a wait.
    pub(crate) fn watch_room(&mut self, events: &Events, watch: bool) {
        let wanted = self.full.filter(|_| watch && self.holds());
        if wanted == self.watched {
            return;
        }
        for (token, interest) in [(self.watched, Interest::Readable), (wanted, Interest::Both)] {
            let client = token.and_then(|token| Some((token, self.clients.get_mut(token)?)));
            if let Some((token, client)) = client {
                // It was added, and the call needs no memory.
                let _ = events.set(&client.socket, token, interest);
            }
        }
        self.watched = wanted;
    }

    /// Returns when the next attempt follows without an event.
    pub(crate) fn next_attempt(&self) -> Option<Instant> {
        match self.presence {
            Presence::Away { next, .. } if self.holds() => Some(next),
            _ => None,
        }
    }

    /// Drops the packets that wait, and all that follow.
    pub(crate) fn end(&mut self) {
        self.dropped += self.held.len() as u64;
        self.held.clear();
        self.presence = Presence::Ended;
    }

    /// Counts a packet that cannot be passed on.
    pub(crate) fn note_dropped(&mut self) {
        self.dropped += 1;
    }

    /// Reports how many packets were not passed on.
    pub(crate) fn conclude(&self) {
        let to = self.address.quoted();
        match self.dropped {
            0 => {}
            1 => self
                .report
                .warning(format_args!("1 packet was not passed on to {to}")),
            dropped => self
                .report
                .warning(format_args!("{dropped} packets were not passed on to {to}")),
        }
    }
}

fn errno(sent: &io::Result<bool>) -> Option<i32> {
    sent.as_ref().err()?.raw_os_error()
}

/// Returns whether a connected peer has closed its socket, or has shut down its reading side.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    let gone = [libc::ECONNREFUSED, libc::ENOTCONN, libc::EPIPE];
    error
        .raw_os_error()
        .is_some_and(|errno| gone.contains(&errno))
}

/// Finds the cause of a failure to send to the peer of `socket`.
pub(crate) fn explain(socket: &DatagramSocket, parcel: Parcel<'_>, error: &io::Error) -> Error {
    let message = Outgoing {
        bytes: parcel.bytes,
        ..Outgoing::default()
    };
    socket.explain(&message, error)
}
