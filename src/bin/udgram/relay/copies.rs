//! Sends a copy of each packet to a further peer. A copy for which there is no room waits up to a second.

use super::events::{Events, Interest};
use super::first::{INTERVAL, explain, is_gone};
use super::identity::{Identity, Impersonator};
use super::parcel::{Kept, Parcel, Passing};
use crate::report::Report;
use crate::stats::TOTALS;
use nix::libc;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};
use udgram::ancillary::MAX_DESCRIPTORS;
use udgram::{Address, BATCH, DatagramSocket, Error};

/// The time that a copy waits for room before it is dropped.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest number of copies that wait for a peer.
const MAX_WAITING: usize = 1024;
/// The number of their bytes, and of their descriptors, from which on no more packets are received.
const MAX_HELD: (usize, usize) = (8 << 20, MAX_DESCRIPTORS);

/// A further peer.
#[derive(Debug)]
pub(crate) struct CopyPeer {
    address: Address<'static>,
    /// The socket that sends the copies of all clients; `None` while the peer is away. It has no name, so
    /// that the peer cannot answer.
    socket: Option<DatagramSocket>,
    token: u64,
    /// The interest with which the socket is watched.
    interest: Interest,
    identity: Identity,
    waiting: VecDeque<(Rc<Kept>, Instant)>,
    /// The bytes and the descriptors of the copies that wait.
    held: (usize, usize),
    /// The time of the next attempt to reach a peer that is away.
    next: Instant,
    /// True from the first copy that is dropped until none waits any more: the peer delays nobody.
    behind: bool,
    /// True once a dropped copy was reported.
    reported: bool,
    dropped: u64,
    report: Report,
}

impl CopyPeer {
    /// Connects to the peer.
    pub(crate) fn new(
        address: Address<'static>,
        token: u64,
        events: &Events,
        report: Report,
    ) -> udgram::Result<Self> {
        let mut peer = Self {
            address,
            socket: None,
            token,
            interest: Interest::Nothing,
            identity: Identity::default(),
            waiting: VecDeque::new(),
            held: (0, 0),
            next: Instant::now(),
            behind: false,
            reported: false,
            dropped: 0,
            report,
        };
        peer.connect(events)?;
        Ok(peer)
    }

    fn connect(&mut self, events: &Events) -> udgram::Result<()> {
        let socket = DatagramSocket::new()?;
        socket.connect(&self.address)?;
        let watched = events.add(&socket, self.token, Interest::Nothing);
        watched.map_err(|errno| {
            Error::from_raw_os_error("watch a socket", udgram::Subject::None, errno as i32)
        })?;
        self.interest = Interest::Nothing;
        self.socket = Some(socket);
        Ok(())
    }

    /// Returns whether so many copies wait that no more packets are received. A peer that lets copies
    /// time out delays the others no longer.
    pub(crate) fn delays(&self) -> bool {
        !self.behind
            && (self.waiting.len() + BATCH > MAX_WAITING
                || self.held.0 >= MAX_HELD.0
                || self.held.1 >= MAX_HELD.1)
    }

    /// Sends a copy, or queues it if there is no room.
    pub(crate) fn send(
        &mut self,
        passing: &mut Passing<'_>,
        impersonator: &mut Impersonator,
        events: &Events,
        now: Instant,
    ) {
        if self.waiting.is_empty() && self.attempt(passing.parcel(), impersonator, events, now) {
            return;
        }
        let over = self.held.0 >= MAX_HELD.0 || self.held.1 >= MAX_HELD.1;
        if self.waiting.len() >= MAX_WAITING || (self.behind && over) {
            self.drop_one("too many copies wait for it to read");
            return;
        }
        let kept = passing.keep();
        self.held.0 += kept.parcel().bytes.len();
        self.held.1 += kept.parcel().descriptors.len();
        self.waiting.push_back((kept, now + ROOM_TIMEOUT));
    }

    /// Makes one attempt to send a copy. Returns `false` if it has to wait.
    fn attempt(
        &mut self,
        parcel: Parcel<'_>,
        impersonator: &mut Impersonator,
        events: &Events,
        now: Instant,
    ) -> bool {
        // The second attempt is that of a new socket: the peer may have closed its own and be back.
        for _ in 0..2 {
            if self.socket.is_none() {
                if now < self.next {
                    return false;
                }
                self.next = now + INTERVAL.1;
                if self.connect(events).is_err() {
                    return false;
                }
            }
            let Some(socket) = &self.socket else {
                return false;
            };
            match impersonator.send(socket, parcel, &mut self.identity) {
                Ok(true) => {
                    TOTALS.note_sent(1, parcel.bytes.len());
                    return true;
                }
                Ok(false) => return false,
                Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => {}
                Err(error) if is_gone(&error) => self.socket = None,
                Err(error) => {
                    let cause = explain(socket, parcel, &error).to_string();
                    self.drop_one(&cause);
                    return true;
                }
            }
        }
        false
    }

    /// Sends waiting copies while there is room, and drops those whose time is over. Returns `true` if it has
    /// sent a copy.
    pub(crate) fn retry(
        &mut self,
        impersonator: &mut Impersonator,
        events: &Events,
        now: Instant,
    ) -> bool {
        let before = self.waiting.len();
        while let Some((kept, deadline)) = self.waiting.front() {
            let (kept, over) = (Rc::clone(kept), *deadline <= now);
            if !self.attempt(kept.parcel(), impersonator, events, now) {
                if !over {
                    break;
                }
                self.behind = true;
                self.drop_one(if self.socket.is_some() {
                    "it had no room for 1s (hint: it may not be reading)"
                } else {
                    "no socket has been there for 1s"
                });
            }
            self.held.0 -= kept.parcel().bytes.len();
            self.held.1 -= kept.parcel().descriptors.len();
            self.waiting.pop_front();
        }
        self.behind &= !self.waiting.is_empty();
        self.waiting.len() < before
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Watches the socket for room if copies wait and `watch` says so. Call it before a wait.
    pub(crate) fn watch_room(&mut self, events: &Events, watch: bool) {
        let wanted = if watch && self.has_waiting() {
            Interest::Writable
        } else {
            Interest::Nothing
        };
        if let Some(socket) = self.socket.as_ref().filter(|_| wanted != self.interest) {
            // It was added, and the call needs no memory.
            let _ = events.set(socket, self.token, wanted);
            self.interest = wanted;
        }
    }

    /// Returns when the next attempt follows without an event.
    pub(crate) fn next_attempt(&self) -> Option<Instant> {
        let (_, deadline) = self.waiting.front()?;
        Some(match self.socket {
            Some(_) => *deadline,
            None => self.next.min(*deadline),
        })
    }

    fn drop_one(&mut self, cause: &str) {
        self.dropped += 1;
        if !self.reported {
            self.reported = true;
            self.report.warning(format_args!(
                "{} misses a copy: {cause}",
                self.address.quoted()
            ));
        }
    }

    /// Drops the copies that wait, and reports how many the peer has missed.
    pub(crate) fn conclude(&mut self) {
        for _ in 0..self.waiting.len() {
            self.drop_one("it had no room before the end");
        }
        self.waiting.clear();
        if self.dropped > 1 {
            self.report.warning(format_args!(
                "{} has missed {} copies",
                self.address.quoted(),
                self.dropped
            ));
        }
    }
}
