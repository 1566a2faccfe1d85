//! A Unix datagram socket: creates, binds and connects it, and receives and sends batches of datagrams.
//!
//! The socket's file status flags stay unchanged, for other processes may share them: each call sets
//! `MSG_DONTWAIT`, and [`wait`] waits.

use crate::address::{Address, ToAddress};
#[cfg(doc)]
use crate::ancillary::Ancillary;
use crate::ancillary::Control;
use crate::batch::{Batch, ReceiveMode};
use crate::descriptor::duplicate;
use crate::diagnose::{peer_error, peer_lost, proc_missing};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::outgoing::{Destination, Outgoing, PeerName, SocketName};
use crate::sock_diag::unix_socket;
use crate::sockopt;
use crate::sys::{self, End, MessageToSend, SockAddr};
use crate::wait::{Deadline, Ready, Until, Wake, pause, wait};
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socket, socketpair};
use nix::sys::stat::fstat;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// How often a call that would block is repeated after yielding the processor, before the process
/// sleeps: a peer running on another processor is usually faster than a wake-up.
const YIELDS: usize = 16;

/// How long to spin before sleeping if the last wait was shorter. Sleeping and waking cost about the
/// same.
const SPIN: Duration = Duration::from_micros(50);

/// The kernel sends a datagram only if it is this many bytes shorter than `SO_SNDBUF`.
const SEND_OVERHEAD: usize = 32;

/// The first and the longest interval at which a send is repeated if no event announces room: in
/// another socket's queue, or for descriptors in flight.
const RETRY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A Unix datagram socket; unix(7).
#[derive(Debug)]
pub struct DatagramSocket {
    fd: OwnedFd,
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for DatagramSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl From<DatagramSocket> for UnixDatagram {
    fn from(socket: DatagramSocket) -> Self {
        socket.fd.into()
    }
}

impl From<DatagramSocket> for OwnedFd {
    fn from(socket: DatagramSocket) -> Self {
        socket.fd
    }
}

impl DatagramSocket {
    /// Makes an unnamed socket, close-on-exec; socket(2).
    #[doc(alias = "SOCK_DGRAM")]
    pub fn new() -> Result<Self> {
        socket(
            AddressFamily::Unix,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .map(|fd| Self { fd })
        .map_err(|errno| Error::system("make a socket", Subject::None, errno))
    }

    /// Makes two unnamed sockets connected to each other; socketpair(2).
    pub fn pair() -> Result<(Self, Self)> {
        socketpair(
            AddressFamily::Unix,
            SockType::Datagram,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map(|(one, other)| (Self { fd: one }, Self { fd: other }))
        .map_err(|errno| Error::system("make a pair of sockets", Subject::None, errno))
    }

    /// Takes over an open socket, such as a [`UnixDatagram`] of the standard library.
    ///
    /// Fails with [`ErrorKind::Unusable`] if it is not a socket, not of the family `AF_UNIX` or not of
    /// the type `SOCK_DGRAM`.
    pub fn from_fd(fd: impl Into<OwnedFd>) -> Result<Self> {
        Self::checked(fd.into(), &Subject::None)
    }

    /// Copies the descriptor: both share the socket, its queue and its options; dup(2).
    pub fn try_clone(&self) -> Result<Self> {
        duplicate(None, self.fd.as_raw_fd()).map(|fd| Self { fd })
    }

    /// Copies descriptor `number` of this process or, with `pid`, of another one (pidfd_getfd(2)). The
    /// original stays open. Fails as [`from_fd`](Self::from_fd) does.
    pub fn from_number(pid: Option<i32>, number: RawFd) -> Result<Self> {
        Self::checked(
            duplicate(pid, number)?,
            &Subject::Descriptor { pid, number },
        )
    }

    fn checked(fd: OwnedFd, subject: &Subject) -> Result<Self> {
        let socket = Self { fd };
        let refuse = |cause: String| {
            Err(Error::new(
                ErrorKind::Unusable,
                "use",
                subject.clone(),
                cause,
            ))
        };
        match sockopt::get_int(&socket, libc::SO_DOMAIN) {
            Ok(libc::AF_UNIX) => {}
            Ok(_) => return refuse("it is not an AF_UNIX socket".to_owned()),
            Err(_) => return refuse("it is not a socket".to_owned()),
        }
        match sockopt::get_int(&socket, libc::SO_TYPE)? {
            libc::SOCK_DGRAM => Ok(socket),
            libc::SOCK_STREAM => refuse("it is a SOCK_STREAM socket, not SOCK_DGRAM".to_owned()),
            libc::SOCK_SEQPACKET => {
                refuse("it is a SOCK_SEQPACKET socket, not SOCK_DGRAM".to_owned())
            }
            other => refuse(format!("it is a socket of type {other}, not SOCK_DGRAM")),
        }
    }

    /// Binds the socket to an abstract name that the kernel chooses, so that peers can answer. Does
    /// nothing if it has a name.
    pub fn autobind(&self) -> Result<()> {
        match sys::bind(self.as_fd(), &SockAddr::UNNAMED) {
            // EINVAL: it has a name already.
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(errno) => Err(Error::system("bind an abstract name", Subject::None, errno)),
        }
    }

    /// Connects to `peer`: from now on the socket exchanges datagrams with it only; connect(2). A
    /// pathname may have any length.
    ///
    /// Fails with [`ErrorKind::NobodyThere`] if there is no such socket. If it fails, an earlier
    /// connection stays.
    pub fn connect(&self, peer: impl ToAddress) -> Result<()> {
        let peer = &peer.to_address()?;
        let failed = |errno| peer_error("connect to", peer, errno);
        let name = SocketName::of(peer).map_err(failed)?;
        sys::connect(self.as_fd(), &name.raw).map_err(|errno| match errno {
            Errno::ENOENT if name.needs_proc() => proc_missing("connect to", peer),
            errno => failed(errno),
        })
    }

    /// Makes `destination` reachable from this socket: connects to it, or looks up its name again and
    /// checks that a socket is bound to it.
    ///
    /// Fails with [`ErrorKind::NobodyThere`] if there is none.
    pub fn establish(&self, destination: &mut Destination) -> Result<()> {
        if !destination.can_be_found() {
            return Err(peer_lost("connect to", destination.address()));
        }
        if destination.is_connected() {
            self.connect(destination.address())?;
            let name = sys::name_of(self.as_fd(), End::Peer)
                .map_err(|errno| peer_error("connect to", destination.address(), errno))?;
            destination.set_peer_name(PeerName::new(name));
            return Ok(());
        }
        destination.refresh()?;
        match Self::new()?.connect(destination.address()) {
            // EPERM: the socket exists and is connected, maybe to this one; it refuses all others.
            Err(error) if error.errno() == Some(Errno::EPERM) => Ok(()),
            connected => connected,
        }
    }

    /// Returns whether the peer has closed its socket, so that no answer will come. `false` if the
    /// kernel does not report it (sock_diag(7)).
    #[must_use]
    pub fn peer_is_closed(&self) -> bool {
        let inode = fstat(&self.fd)
            .ok()
            .and_then(|status| u32::try_from(status.st_ino).ok());
        inode
            .and_then(|inode| unix_socket(inode).ok())
            .is_some_and(|socket| socket.peer == Some(0))
    }

    /// Returns the name of the peer that the socket is connected to; `None` if it is not connected.
    #[doc(alias = "getpeername")]
    pub fn peer_name(&self) -> Result<Option<PeerName>> {
        match sys::name_of(self.as_fd(), End::Peer) {
            Ok(name) => Ok(Some(PeerName::new(name))),
            Err(Errno::ENOTCONN) => Ok(None),
            Err(errno) => Err(Error::system(
                "get the peer's address",
                Subject::None,
                errno,
            )),
        }
    }

    /// Returns the address that the socket is bound to.
    #[doc(alias = "getsockname")]
    pub fn local_address(&self) -> Result<Address<'static>> {
        sys::name_of(self.as_fd(), End::Local)
            .map(|name| name.address().into_owned())
            .map_err(|errno| Error::system("get the local address", Subject::None, errno))
    }

    /// Returns the address of the peer that the socket is connected to; `None` if it is not connected.
    #[doc(alias = "getpeername")]
    pub fn peer_address(&self) -> Result<Option<Address<'static>>> {
        let name = self.peer_name()?;
        Ok(name.map(|name| name.address().into_owned()))
    }

    /// Sets whether datagrams that arrive from now on have their sender's credentials
    /// ([`Ancillary::credentials`]). An unnamed socket gets an abstract name when it connects or sends
    /// with this set.
    #[doc(alias = "SO_PASSCRED")]
    pub fn set_passcred(&self, on: bool) -> Result<()> {
        sockopt::set_int(self, libc::SO_PASSCRED, on.into())
    }

    /// Sets whether datagrams that arrive from now on have a descriptor of the sending process
    /// ([`Ancillary::pidfd`]). Linux 6.5 or later.
    #[doc(alias = "SO_PASSPIDFD")]
    pub fn set_passpidfd(&self, on: bool) -> Result<()> {
        sockopt::set_int(self, libc::SO_PASSPIDFD, on.into())
    }

    /// Sets whether datagrams that arrive from now on have the time at which the kernel accepted them
    /// ([`Ancillary::time`]).
    #[doc(alias = "SO_TIMESTAMPNS")]
    pub fn set_timestamps(&self, on: bool) -> Result<()> {
        sockopt::set_int(self, libc::SO_TIMESTAMPNS, on.into())
    }

    /// Sets the size of the send buffer in bytes, which bounds the size of a datagram and how much of
    /// what was sent may be unread. The kernel doubles it for its own overhead, and limits it to
    /// `net.core.wmem_max`. [`send`](Self::send) raises it if a datagram needs that.
    #[doc(alias = "SO_SNDBUF")]
    pub fn set_send_buffer_size(&self, bytes: usize) -> Result<()> {
        let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        sockopt::set_int(self, libc::SO_SNDBUF, bytes)
    }

    /// Returns the size of the send buffer in bytes, with the kernel's overhead.
    #[doc(alias = "SO_SNDBUF")]
    pub fn send_buffer_size(&self) -> Result<usize> {
        let bytes = sockopt::get_int(self, libc::SO_SNDBUF)?;
        Ok(usize::try_from(bytes).unwrap_or(0))
    }

    /// Shuts down the reading side: senders get `EPIPE` from now on, and what is queued stays readable.
    /// This affects every process that shares the socket.
    #[doc(alias = "SHUT_RD")]
    pub fn shutdown_read(&self) -> Result<()> {
        shutdown(self.fd.as_raw_fd(), Shutdown::Read)
            .map_err(|errno| Error::system("shut down the reading side", Subject::None, errno))
    }

    /// Receives at most `max` datagrams into `batch` without waiting. Returns how many came.
    pub fn try_receive(&self, batch: &mut Batch, max: usize, mode: ReceiveMode) -> Result<usize> {
        loop {
            match batch.fill(self.as_fd(), max, mode) {
                Ok(count) => return Ok(count),
                Err(Errno::EAGAIN) => return Ok(0),
                // ECONNRESET: a peer that was connected to this socket has connected elsewhere. The
                // kernel reports it once, and later datagrams arrive as before.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(errno) => return Err(Error::system("receive", Subject::None, errno)),
            }
        }
    }

    /// Receives at least one and at most `max` datagrams into `batch`, waiting for the first. Returns
    /// how many came: 0 if the deadline passed, or if [`Wake::notice`] became readable.
    ///
    /// Calls `idle` each time before it waits for more than a moment. If the last wait was short, it
    /// spins for up to 50 µs, yielding the processor, before it sleeps. It polls `wake` only while
    /// sleeping: a caller that never blocks must call [`Wake::check`].
    ///
    /// Fails as [`Wake`] says, and with [`ErrorKind::System`] and `EPIPE` when the reading side is shut
    /// down and nothing is queued.
    pub fn receive<E: From<Error>>(
        &self,
        batch: &mut Batch,
        max: usize,
        deadline: Deadline,
        wake: &Wake<'_>,
        mut idle: impl FnMut(&mut Batch) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut shut_down = false;
        let mut woken = false;
        loop {
            for _ in 0..=YIELDS {
                let count = self.try_receive(batch, max, ReceiveMode::Remove)?;
                if count > 0 {
                    return Ok(count);
                }
                // Don't yield past the deadline: the scheduler may not return for a while.
                if deadline.passed() {
                    break;
                }
                std::thread::yield_now();
            }
            if woken && deadline.passed() {
                // Other receivers took the datagrams that woke it.
                return Ok(0);
            }
            if shut_down {
                return Err(reading_shut_down().into());
            }
            idle(batch)?;
            let start = Instant::now();
            while batch.spin && start.elapsed() < SPIN && !deadline.passed() {
                let count = self.try_receive(batch, max, ReceiveMode::Remove)?;
                if count > 0 {
                    return Ok(count);
                }
                std::thread::yield_now();
            }
            let waited = wait(self.as_fd(), Until::Readable, deadline, wake)?;
            batch.spin = waited.is_some() && start.elapsed() < SPIN;
            match waited {
                None | Some(Ready::Notice) => return Ok(0),
                // Datagrams queued before the shutdown can still be read.
                Some(ready) => shut_down = ready == Ready::ShutDown,
            }
            woken = true;
        }
    }

    /// Sends every message in order, each whole, and waits while a queue is full: `timeout` is the
    /// longest wait for each. Raises `SO_SNDBUF` for a datagram that needs it.
    ///
    /// An error comes with the number of messages that were sent before it: [`ErrorKind::TimedOut`]
    /// if there was no room in time, [`ErrorKind::NobodyThere`] if the destination went away,
    /// [`ErrorKind::TooLong`] if a datagram is too long.
    pub fn send(
        &self,
        messages: &[Outgoing<'_>],
        timeout: Option<Duration>,
        wake: &Wake<'_>,
    ) -> Result<(), (usize, Error)> {
        let wake = wake.without_notice();
        let mut sent = 0;
        while sent < messages.len() {
            sent += self
                .send_some(&messages[sent..], timeout, &wake)
                .map_err(|error| (sent, error))?;
        }
        Ok(())
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
    /// Fails with the bare error of the system call; [`explain`](Self::explain) finds out its cause.
    pub fn try_send_one(&self, message: &Outgoing<'_>) -> io::Result<bool> {
        let sent = self.send_bare(message, std::slice::from_ref(message))?;
        Ok(matches!(sent, Sent::Some(_)))
    }

    /// Finds out why `message` could not be sent. That may take a look at every socket of the system.
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

    /// Sends at least one of the messages, waiting if it must. Returns how many were sent.
    fn send_some(
        &self,
        messages: &[Outgoing<'_>],
        timeout: Option<Duration>,
        wake: &Wake<'_>,
    ) -> Result<usize> {
        let head = &messages[0];
        let deadline = Deadline::after(timeout);
        let mut yields = 0;
        let mut interval = RETRY.0;
        loop {
            let sent = self.send_now(head, messages)?;
            if let Sent::Some(count) = sent {
                return Ok(count);
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
        match errno {
            Errno::ESRCH if control.claims_others() => {
                error.with_cause("the process whose credentials are claimed has exited")
            }
            Errno::EPERM if control.claims_others() => error.with_hint(
                "claiming the credentials of another process needs CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID",
            ),
            Errno::EPERM if control.has_descriptors() => {
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

/// Makes the error of a receive after which nothing will come.
pub(crate) fn reading_shut_down() -> Error {
    Error::system("receive", Subject::None, Errno::EPIPE)
        .with_cause("its reading side is shut down")
}

/// The outcome of one sendmmsg(2).
enum Sent {
    /// This many messages were sent.
    Some(usize),
    /// The queue of the first one's destination, or this socket's own buffer, is full.
    NoRoom,
    /// The user has too many descriptors in flight.
    TooManyInFlight,
}
