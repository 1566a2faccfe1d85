//! Sends batches of datagrams, waits for room, and finds the cause of a failure.

use super::{DatagramSocket, YIELDS};
use crate::address::Address;
use crate::ancillary::Control;
use crate::diagnose::{peer_error, peer_lost, proc_missing};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::outgoing::{Destination, Outgoing};
use crate::sockopt;
use crate::sys::{self, MessageToSend};
use crate::wait::{Deadline, Until, Wake, pause, wait};
use nix::errno::Errno;
use nix::libc::{self, c_int};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

/// The kernel refuses a datagram that is longer than `SO_SNDBUF` less this number of bytes
/// (`unix_dgram_sendmsg`).
const SEND_OVERHEAD: usize = 32;

/// The first and the longest interval between two attempts to send, if no event reports room: in the queue of
/// a socket that is not the peer, or for descriptors in flight.
const RETRY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The outcome of one sendmmsg(2).
enum Sent {
    /// The number of messages that were sent.
    Count(usize),
    /// None: the queue of the first destination is full, or the send buffer of this socket.
    NoRoom,
    /// None: the user has too many descriptors in flight.
    TooManyInFlight,
}

impl DatagramSocket {
    /// Sends all messages in order, and waits while a queue is full, for `timeout` at most for each message.
    /// Raises `SO_SNDBUF` for a datagram that needs it.
    ///
    /// An error comes with the number of messages that were sent before it: [`ErrorKind::TimedOut`]
    /// if there was no room in time, [`ErrorKind::NobodyThere`] if the destination does not exist any more,
    /// [`ErrorKind::TooLong`] if a datagram is too long.
    ///
    /// Returns a time shortly before the last message was queued. A datagram that was sent before that time,
    /// according to its `SO_TIMESTAMPNS`, cannot be an answer to the message.
    pub fn send(
        &self,
        messages: &[Outgoing<'_>],
        timeout: Option<Duration>,
        wake: &Wake<'_>,
    ) -> Result<SystemTime, (usize, Error)> {
        let wake = wake.without_notice();
        let mut sent = 0;
        let mut began = SystemTime::now();
        while sent < messages.len() {
            let some = self
                .send_some(&messages[sent..], timeout, &wake)
                .map_err(|error| (sent, error))?;
            sent += some.0;
            began = some.1;
        }
        Ok(began)
    }

    /// Sends messages in order without waiting. Returns how many were sent: 0 if there is
    /// no room for the first. Raises `SO_SNDBUF` for a datagram that needs it.
    pub fn try_send(&self, messages: &[Outgoing<'_>]) -> Result<usize> {
        let Some(head) = messages.first() else {
            return Ok(0);
        };
        match self.send_now(head, messages)? {
            Sent::Count(count) => Ok(count),
            Sent::NoRoom | Sent::TooManyInFlight => Ok(0),
        }
    }

    /// Sends messages as [`try_send`](Self::try_send) does. Fails with the errno of the system call.
    pub(crate) fn try_send_some(&self, messages: &[Outgoing<'_>]) -> io::Result<usize> {
        let Some(head) = messages.first() else {
            return Ok(0);
        };
        Ok(match self.send_bare(head, messages)? {
            Sent::Count(count) => count,
            Sent::NoRoom | Sent::TooManyInFlight => 0,
        })
    }

    /// Sends one message as [`try_send`](Self::try_send) does. Returns whether there was room for it.
    ///
    /// Fails with the errno of the system call; [`explain`](Self::explain) finds its cause.
    pub fn try_send_one(&self, message: &Outgoing<'_>) -> io::Result<bool> {
        let sent = self.send_bare(message, std::slice::from_ref(message))?;
        Ok(matches!(sent, Sent::Count(_)))
    }

    /// Finds the cause of a failure to send `message`. It may list all sockets of the network namespace.
    #[must_use]
    pub fn explain(&self, message: &Outgoing<'_>, error: &io::Error) -> Error {
        self.send_error(
            message,
            Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
        )
        .of_call("sendmmsg", "3.0")
    }

    /// Makes one attempt to send messages, the first of which is `head`. Finds the cause of a failure.
    fn send_now(&self, head: &Outgoing<'_>, messages: &[Outgoing<'_>]) -> Result<Sent> {
        self.send_bare(head, messages)
            .map_err(|errno| self.send_error(head, errno).of_call("sendmmsg", "3.0"))
    }

    /// Makes one attempt to send messages, the first of which is `head`.
    fn send_bare(
        &self,
        head: &Outgoing<'_>,
        messages: &[Outgoing<'_>],
    ) -> std::result::Result<Sent, Errno> {
        loop {
            let raw = messages.iter().map(|message| MessageToSend {
                bytes: message.bytes,
                to: message.to.and_then(Destination::raw),
                control: message.control.map_or(&[], Control::words),
            });
            match sys::send(self.as_fd(), raw) {
                Ok(count) => return Ok(Sent::Count(count)),
                Err(Errno::EAGAIN) => return Ok(Sent::NoRoom),
                // Descriptors in flight count against RLIMIT_NOFILE (`too_many_unix_fds`).
                Err(Errno::ETOOMANYREFS) => return Ok(Sent::TooManyInFlight),
                Err(Errno::EINTR) => {}
                // The peer has connected elsewhere (`unix_dgram_disconnected`). The kernel reports this once,
                // and it says nothing about another destination.
                Err(Errno::ECONNRESET) if head.to.is_some_and(|to| !to.is_connected()) => {}
                Err(Errno::EMSGSIZE) if self.raise_send_buffer(head.bytes.len()) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Sends at least one of the messages, waiting for room. Returns how many were sent, and the time before
    /// the call that sent them.
    fn send_some(
        &self,
        messages: &[Outgoing<'_>],
        timeout: Option<Duration>,
        wake: &Wake<'_>,
    ) -> Result<(usize, SystemTime)> {
        let head = &messages[0];
        let deadline = Deadline::after(timeout);
        let mut yields = 0;
        let mut interval = RETRY.0;
        loop {
            let began = SystemTime::now();
            let sent = self.send_now(head, messages)?;
            if let Sent::Count(count) = sent {
                return Ok((count, began));
            }
            if deadline.passed() {
                let to = self.destination(head);
                return Err(match sent {
                    Sent::TooManyInFlight => Error::too_many_in_flight(to, timeout),
                    _ if self.send_buffer_is_full() => Error::send_buffer_full(to, timeout),
                    _ => Error::queue_full(to, timeout),
                });
            }
            if yields < YIELDS {
                yields += 1;
                std::thread::yield_now();
                continue;
            }
            self.wait_for_room(head, &sent, deadline, interval, wake)?;
            interval = (interval * 2).min(RETRY.1);
        }
    }

    /// Returns whether the datagrams of this socket that are unread take the whole send buffer
    /// (`sock_alloc_send_pskb`).
    fn send_buffer_is_full(&self) -> bool {
        let size = sockopt::get_int(self, libc::SO_SNDBUF);
        sockopt::unread(self).is_ok_and(|unread| size.is_ok_and(|size| unread >= size))
    }

    /// Waits until there may be room for a message in the queue of the destination and in the send buffer of
    /// this socket. Returns after `interval` if no event can report the room.
    fn wait_for_room(
        &self,
        head: &Outgoing<'_>,
        lack: &Sent,
        deadline: Deadline,
        interval: Duration,
        wake: &Wake<'_>,
    ) -> Result<()> {
        let soon = deadline.or_after(interval);
        if matches!(lack, Sent::TooManyInFlight) {
            return pause(soon, wake);
        }
        let named = head.to.is_some_and(|to| to.raw().is_some());
        // poll(2) of this socket also requires room in the queue of its connected peer
        // (`unix_dgram_poll`). If the message goes elsewhere, that may never come: wait for `interval`.
        let own_room = || {
            wait(
                self,
                Until::Writable,
                if named { soon } else { deadline },
                wake,
            )
        };
        let Some(probe) = self.probe(head)? else {
            return own_room().map(drop);
        };
        let now = Deadline::after(Some(Duration::ZERO));
        if wait(&probe, Until::Writable, now, wake)?.is_none() {
            return wait(&probe, Until::Writable, deadline, wake).map(drop);
        }
        // The queue has room, so the send buffer of this socket is full.
        own_room().map(drop)
    }

    /// Returns a probe connected to the destination of a message: poll(2) reports room only for a
    /// socket's connected peer. `None` if the message goes to this socket's own peer, or to a socket
    /// that is connected to this one: it refuses the probe (EPERM), and the only limit is then `SO_SNDBUF` of
    /// this socket (`unix_dgram_sendmsg`).
    pub(crate) fn probe(&self, message: &Outgoing<'_>) -> Result<Option<Self>> {
        let Some(name) = message.to.and_then(Destination::raw) else {
            return Ok(None);
        };
        let probe = Self::new()?;
        match sys::connect(probe.as_fd(), name) {
            Ok(()) => Ok(Some(probe)),
            Err(Errno::EPERM) => Ok(None),
            Err(errno) => Err(self.send_error(message, errno)),
        }
    }

    /// Raises `SO_SNDBUF` for a datagram of `len` bytes, beyond `net.core.wmem_max` if the process may.
    /// Returns whether it was raised enough.
    #[doc(alias = "SO_SNDBUF")]
    fn raise_send_buffer(&self, len: usize) -> bool {
        let Ok(wanted) = c_int::try_from(len + SEND_OVERHEAD) else {
            return false;
        };
        let holds = |socket: &Self| {
            sockopt::get_int(socket, libc::SO_SNDBUF).is_ok_and(|size| size >= wanted)
        };
        !holds(self)
            && [libc::SO_SNDBUF, libc::SO_SNDBUFFORCE]
                .into_iter()
                .any(|option| {
                    // The kernel doubles the value for its own overhead.
                    sockopt::set_int(self, option, wanted).is_ok() && holds(self)
                })
    }

    /// Returns the destination of `head`, for an error message.
    fn destination(&self, head: &Outgoing<'_>) -> Address<'static> {
        match head.to {
            Some(to) => to.address().clone(),
            None => self
                .peer_address()
                .ok()
                .flatten()
                .unwrap_or(Address::Unnamed),
        }
    }

    /// Makes the error of a failure to send `head`.
    fn send_error(&self, head: &Outgoing<'_>, errno: Errno) -> Error {
        match (errno, head.to) {
            (Errno::EMSGSIZE, _) => return self.too_long(head),
            // ENOBUFS: the datagram exceeds 4 MiB and 17 pages, or the kernel has no memory.
            (Errno::ENOBUFS, _) if head.bytes.len() > 4_000_000 => return self.too_long(head),
            // sendmmsg(2) returns no error for a message after the first. If that was ECONNREFUSED, the
            // kernel has disconnected the socket (`unix_dgram_sendmsg`), and the next call fails with
            // ENOTCONN.
            (Errno::ENOTCONN, Some(to)) => return peer_lost("send to", to.address()),
            (Errno::ENOTCONN | Errno::EDESTADDRREQ, None) => {
                return Error::system("send", Subject::None, errno)
                    .with_cause("the socket is not connected, and no destination is given");
            }
            (Errno::ENOENT, Some(to)) if to.needs_proc() => {
                return proc_missing("send to", to.address());
            }
            _ => {}
        }
        let error = peer_error("send to", &self.destination(head), errno);
        let Some(control) = head.control else {
            return error;
        };
        match (errno, control.foreign_credentials()) {
            (Errno::ESRCH, Some(claimed)) => error.with_cause(format!(
                "process {} has exited, so its credentials cannot be claimed",
                claimed.pid
            )),
            (Errno::EPERM, Some(_)) => error.with_hint(
                "claiming the credentials of another process needs CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID",
            ),
            (Errno::EPERM, None) if control.has_descriptors() => {
                error.with_hint("the receiver may refuse descriptors (SO_PASSRIGHTS is off)")
            }
            _ => error,
        }
    }

    /// Makes the error of a datagram that is too long.
    fn too_long(&self, head: &Outgoing<'_>) -> Error {
        let buffer = self.send_buffer_size().unwrap_or(0);
        let len = head.bytes.len();
        let error = |errno| {
            let to = Subject::Address(self.destination(head));
            Error::system("send to", to, errno).with_kind(ErrorKind::TooLong)
        };
        if len + SEND_OVERHEAD > buffer {
            let max = buffer.saturating_sub(SEND_OVERHEAD);
            error(Errno::EMSGSIZE)
                .with_cause(format!(
                    "a datagram of {len} bytes is too long, this socket sends {max} at most"
                ))
                .with_hint("net.core.wmem_max limits SO_SNDBUF, except for root")
        } else {
            error(Errno::ENOBUFS).with_cause(format!(
                "a datagram of {len} bytes is too long for the kernel, which carries about 4 MiB"
            ))
        }
    }
}
