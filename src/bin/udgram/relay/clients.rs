//! The clients of a relay: the socket of each towards the first peer, and when it was used last.

use super::events::{Events, Interest};
use super::identity::Identity;
use crate::report::Report;
use nix::libc;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use udgram::answers::Recipient;
use udgram::{Address, DatagramSocket, Error, Result};

/// The token of the first client.
pub(crate) const FIRST_TOKEN: u64 = 1 << 32;
/// The number of clients from which on those that have gone are looked for.
const FIRST_SWEEP: usize = 64;
/// A sweep makes system calls for each client. If it finds none that has gone, one part in so many is closed
/// for new clients before the next sweep.
const SWEEP_SHARE: usize = 64;

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) recipient: Recipient,
    /// The socket that sends the client's packets to the first peer and receives the answers.
    pub(crate) socket: DatagramSocket,
    pub(crate) identity: Identity,
    /// The time of the last packet from it or to it.
    pub(crate) used: Instant,
}

#[derive(Debug)]
pub(crate) struct Clients {
    tokens: HashMap<Recipient, u64>,
    by_token: HashMap<u64, Client>,
    next_token: u64,
    max: usize,
    /// The number of clients at which those that have gone are looked for next.
    sweep_at: usize,
    /// The number of clients to close for new ones before that.
    evictions: usize,
    /// The time after which an idle client is closed, and when to look for such clients next.
    timeout: Option<Duration>,
    next_check: Option<Instant>,
}

impl Clients {
    /// Makes an empty set for at most `max` clients, each of which may be idle for `timeout`.
    pub(crate) fn new(max: usize, timeout: Option<Duration>) -> Self {
        Self {
            tokens: HashMap::new(),
            by_token: HashMap::new(),
            next_token: FIRST_TOKEN,
            max,
            sweep_at: FIRST_SWEEP.min(max),
            evictions: 0,
            timeout,
            next_check: None,
        }
    }

    pub(crate) fn find(&self, recipient: &Recipient) -> Option<u64> {
        self.tokens.get(recipient).copied()
    }

    pub(crate) fn get_mut(&mut self, token: u64) -> Option<&mut Client> {
        self.by_token.get_mut(&token)
    }

    pub(crate) fn tokens(&self) -> Vec<u64> {
        self.by_token.keys().copied().collect()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.by_token.len() >= self.max
    }

    pub(crate) fn needs_sweep(&self) -> bool {
        self.by_token.len() >= self.sweep_at && self.evictions == 0
    }

    /// Opens a socket for a client, connected to `peer`, and returns its token.
    ///
    /// It is connected before it has a name, so that no other process can send to it. The socket of
    /// clients without a name has none either: the peer learns that it cannot answer.
    pub(crate) fn open(
        &mut self,
        recipient: &Recipient,
        peer: &Address<'_>,
        events: &Events,
        now: Instant,
        report: Report,
    ) -> Result<u64> {
        let socket = DatagramSocket::new()?;
        socket.connect(peer)?;
        if *recipient.address() != Address::Unnamed {
            socket.set_timestamps(true)?;
            socket.set_passcred(true)?;
            socket.autobind()?;
        }
        if report.is_verbose() {
            report.note(format_args!(
                "the socket for {} is {}",
                recipient.address().quoted(),
                socket.local_address()?.quoted()
            ));
        }
        let token = self.next_token;
        self.next_token += 1;
        events
            .add(&socket, token, Interest::Readable)
            .map_err(|errno| {
                Error::from_raw_os_error("watch a socket", udgram::Subject::None, errno as i32)
            })?;
        self.tokens.insert(recipient.clone(), token);
        self.by_token.insert(
            token,
            Client {
                recipient: recipient.clone(),
                socket,
                identity: Identity::default(),
                used: now,
            },
        );
        Ok(token)
    }

    /// Closes the socket of a client.
    pub(crate) fn close(&mut self, token: u64) {
        if let Some(client) = self.by_token.remove(&token) {
            self.tokens.remove(&client.recipient);
        }
    }

    /// Returns the client to close for a new one, if there are as many as may be: that whose last packet is
    /// the oldest.
    pub(crate) fn evict(&mut self) -> Option<u64> {
        if !self.is_full() {
            return None;
        }
        self.evictions = self.evictions.saturating_sub(1);
        let idle = self.by_token.iter().min_by_key(|(_, client)| client.used);
        idle.map(|(token, _)| *token)
    }

    /// Returns the clients whose address no socket is bound to any more. The next sweep follows when there
    /// are twice as many clients as are left.
    pub(crate) fn sweep(&mut self) -> Vec<u64> {
        let gone = self.by_token.iter().filter(|(_, client)| client.is_gone());
        let gone: Vec<u64> = gone.map(|(token, _)| *token).collect();
        let left = self.by_token.len() - gone.len();
        self.evictions = if gone.is_empty() && self.is_full() {
            self.max / SWEEP_SHARE
        } else {
            0
        };
        self.sweep_at = (2 * left).max(FIRST_SWEEP).min(self.max);
        gone
    }

    /// Returns the clients that have been idle for too long.
    pub(crate) fn idle(&mut self, now: Instant) -> Vec<u64> {
        let Some(timeout) = self.timeout else {
            return Vec::new();
        };
        if self.next_check.is_some_and(|check| now < check) || self.by_token.is_empty() {
            return Vec::new();
        }
        let is_idle = |client: &Client| now.saturating_duration_since(client.used) >= timeout;
        let idle = self.by_token.iter().filter(|(_, client)| is_idle(client));
        let idle = idle.map(|(token, _)| *token).collect();
        let others = self.by_token.values().filter(|client| !is_idle(client));
        let oldest = others.map(|client| client.used).min().unwrap_or(now);
        self.next_check = oldest.checked_add(timeout);
        idle
    }

    /// Returns when to look for idle clients next.
    pub(crate) fn next_check(&self) -> Option<Instant> {
        self.next_check.filter(|_| !self.by_token.is_empty())
    }
}

impl Client {
    /// Returns whether no socket is bound to the address of the client. EPERM is the answer of a socket
    /// that is connected to this process.
    fn is_gone(&self) -> bool {
        let address = self.recipient.address();
        let relative = address.as_path().is_some_and(std::path::Path::is_relative);
        if *address == Address::Unnamed || relative {
            return false;
        }
        let Ok(probe) = DatagramSocket::new() else {
            return false;
        };
        let gone = [libc::ENOENT, libc::ENOTDIR, libc::ECONNREFUSED];
        probe.try_connect(address).is_err_and(|error| {
            error
                .raw_os_error()
                .is_some_and(|errno| gone.contains(&errno))
        })
    }
}
