//! Sending batches of datagrams: waits for room, and finds the cause of a failure.

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

/// The kernel sends a datagram only if it is this many bytes shorter than `SO_SNDBUF`.
const SEND_OVERHEAD: usize = 32;

/// The first and the longest interval at which a send is repeated if no event announces room: in
/// another socket's queue, or for descriptors in flight.
const RETRY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The outcome of one sendmmsg(2).
enum Sent {
    /// This many messages were sent.
    Some(usize),
    /// The queue of the first one's destination, or this socket's own buffer, is full.
    NoRoom,
    /// The user has too many descriptors in flight.
    TooManyInFlight,
}

impl DatagramSocket {
    /// Sends every message in order, each whole, and waits while a queue is full: `timeout` is the
    /// longest wait for each. Raises `SO_SNDBUF` for a datagram that needs it.
    ///
    /// An error comes with the number of messages that were sent before it: [`ErrorKind::TimedOut`]
    /// if there was no room in time, [`ErrorKind::NobodyThere`] if the destination went away,
    /// [`ErrorKind::TooLong`] if a datagram is too long.
    ///
    /// Returns a moment shortly before the last message was queued: what the kernel noted as sent
    /// before that (`SO_TIMESTAMPNS`) cannot be an answer to it.
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

    /// Sends messages in order, each whole, without waiting. Returns how many were sent: 0 if there is
    /// no room for the first. Raises `SO_SNDBUF` for a datagram that needs it.
    pub fn try_send(&self, messages: &[Outgoing<'_>]) -> Result<usize> {
        let Some(head) = messages.first() else {
            return Ok(0);
        };
        match self.send_now(head, messages)? {
            Sent::Some(count) => Ok(count),
            Sent::NoRoom | Sent::TooManyInFlight => Ok(0),
        }
    }

    /// Sends one message as [`try_send`](Self::try_send) does. Returns whether there was room for it.
    ///
    /// Fails with the bare error of the system call; [`explain`](Self::explain) finds its cause.
    pub fn try_send_one(&self, message: &Outgoing<'_>) -> io::Result<bool> {
        let sent = self.send_bare(message, std::slice::from_ref(message))?;
        Ok(matches!(sent, Sent::Some(_)))
    }

    /// Finds the cause of a failure to send `message`. It may list all sockets of the network namespace.
    #[must_use]
    pub fn explain(&self, message: &Outgoing<'_>, error: &io::Error) -> Error {
        self.send_error(
            message,
            Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
        )
    }

    fn send_now(&self, head: &Outgoing<'_>, messages: &[Outgoing<'_>]) -> Result<Sent> {
        self.send_bare(head, messages)
            .map_err(|errno| self.send_error(head, errno))
    }

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
                Ok(count) => return Ok(Sent::Some(count)),
                Err(Errno::EAGAIN) => return Ok(Sent::NoRoom),
                // Descriptors sent and not yet received count against RLIMIT_NOFILE (`too_many_unix_fds`).
                Err(Errno::ETOOMANYREFS) => return Ok(Sent::TooManyInFlight),
                Err(Errno::EINTR) => {}
                Err(Errno::EMSGSIZE) if self.raise_send_buffer(head.bytes.len()) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Sends at least one of the messages, waiting if it must. Returns how many were sent, and when
    /// the call that sent them began.
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
            if let Sent::Some(count) = sent {
                return Ok((count, began));
            }
            if deadline.passed() {
                let to = self.destination(head);
                return Err(match sent {
                    Sent::TooManyInFlight => Error::too_many_in_flight(to, timeout),
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

    /// Waits until there may be room for a message: in the destination's queue and in this socket's
    /// own buffer. Returns after `interval` if no event announces the room.
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
        // poll(2) also checks the queue of the connected peer (`unix_dgram_poll`): if the message goes
        // elsewhere, it may never report room.
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
        // The queue has room, so this socket's own buffer is full.
        own_room().map(drop)
    }

    /// Returns a probe connected to the destination of a message: poll(2) reports room only for a
    /// socket's connected peer. `None` if the message goes to this socket's own peer, or to a socket
    /// that is connected to this one: that one refuses the probe (EPERM), and its only limit is this
    /// socket's own `SO_SNDBUF` (`unix_dgram_sendmsg`).
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

    /// Returns the address that the head of a batch goes to, for a message.
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

    fn send_error(&self, head: &Outgoing<'_>, errno: Errno) -> Error {
        match (errno, head.to) {
            (Errno::EMSGSIZE, _) => return self.too_long(head),
            // ENOBUFS for less means that memory is short.
            (Errno::ENOBUFS, _) if head.bytes.len() > 4_000_000 => return self.too_long(head),
            // sendmmsg(2) loses the ECONNREFUSED of a message after the first. The kernel has then
            // disconnected the socket (`unix_dgram_sendmsg`), and the next call fails with ENOTCONN.
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
