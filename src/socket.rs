//! A Unix datagram socket: made, named, connected; datagrams received and sent in batches.
//!
//! Nothing here changes the socket's file status flags, which a socket shared with another
//! process has in common with it: each call says for itself that it does not wait
//! (`MSG_DONTWAIT`), and [`wait`] does the waiting.

use crate::address::Address;
use crate::ancillary::Control;
use crate::batch::Batch;
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::sockopt::{self, SocketOption};
use crate::sys::{self, End, MessageToSend, RawName};
use crate::wait::{Deadline, Ready, Until, Wake, wait};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc::{self, c_int};
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socket, socketpair};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// How many datagrams one system call takes or gives at most.
pub const BATCH: usize = sys::BATCH;

/// How often a call that would block is tried again, after yielding the processor, before the
/// process goes to sleep: a peer at work on another processor is usually quicker than a wake-up.
const YIELDS: usize = 16;

/// How long a receiver goes on like that where the last wait turned out shorter: to sleep and to be
/// woken takes both sides about as long.
const EAGERNESS: Duration = Duration::from_micros(50);

/// What setsockopt(2)'s `SO_SNDBUF` must exceed a datagram's length by.
const SEND_OVERHEAD: usize = 32;

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

impl From<DatagramSocket> for OwnedFd {
    fn from(socket: DatagramSocket) -> Self {
        socket.fd
    }
}

impl DatagramSocket {
    /// A new socket without a name, close-on-exec.
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

    /// Two sockets connected to each other; socketpair(2).
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

    /// Takes an open socket over. [`ErrorKind::Unusable`] if it is no socket, not of the family
    /// `AF_UNIX` or not of the type `SOCK_DGRAM`.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        Self::checked(fd, &Subject::None)
    }

    /// A copy of descriptor `number` of this process, which stays open; or, with `pid`, of
    /// another one (pidfd_getfd(2)). Checked as [`from_fd`](Self::from_fd) does.
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
        match socket.option_int(libc::SO_DOMAIN) {
            Ok(libc::AF_UNIX) => {}
            Ok(_) => return refuse("it is not an AF_UNIX socket".to_owned()),
            Err(_) => return refuse("it is not a socket".to_owned()),
        }
        match socket.option_int(libc::SO_TYPE)? {
            libc::SOCK_DGRAM => Ok(socket),
            libc::SOCK_STREAM => refuse("it is a SOCK_STREAM socket, not SOCK_DGRAM".to_owned()),
            libc::SOCK_SEQPACKET => {
                refuse("it is a SOCK_SEQPACKET socket, not SOCK_DGRAM".to_owned())
            }
            other => refuse(format!("it is a socket of type {other}, not SOCK_DGRAM")),
        }
    }

    /// Gives the socket an abstract name of the kernel's choosing, so that peers can answer.
    /// Nothing happens if it has a name.
    pub fn autobind(&self) -> Result<()> {
        match sys::bind(self.as_fd(), &RawName::UNNAMED) {
            // It has a name already.
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(errno) => Err(Error::system("bind an abstract name", Subject::None, errno)),
        }
    }

    /// Exchanges datagrams with `peer` only, from now on; connect(2). A pathname of any length.
    ///
    /// Fails with [`ErrorKind::NobodyThere`] if there is no such socket or nobody behind it.
    pub fn connect(&self, peer: &Address<'_>) -> Result<()> {
        let failed = |errno| Error::peer("connect to", peer, errno);
        let name = Name::of(peer).map_err(failed)?;
        sys::connect(self.as_fd(), &name.raw).map_err(failed)
    }

    /// The address the socket is bound to.
    #[doc(alias = "getsockname")]
    pub fn local_address(&self) -> Result<Address<'static>> {
        sys::name_of(self.as_fd(), End::Local)
            .map(|name| name.address().into_owned())
            .map_err(|errno| Error::system("get the local address", Subject::None, errno))
    }

    /// The address of the peer the socket is connected to; `None` if it is not connected.
    #[doc(alias = "getpeername")]
    pub fn peer_address(&self) -> Result<Option<Address<'static>>> {
        match sys::name_of(self.as_fd(), End::Peer) {
            Ok(name) => Ok(Some(name.address().into_owned())),
            Err(Errno::ENOTCONN) => Ok(None),
            Err(errno) => Err(Error::system(
                "get the peer's address",
                Subject::None,
                errno,
            )),
        }
    }

    /// An option of `SOL_SOCKET` whose value is an `int`.
    pub fn option_int(&self, option: c_int) -> Result<c_int> {
        let mut value = [0; size_of::<c_int>()];
        let option = SocketOption::numbered(libc::SOL_SOCKET, option);
        sockopt::read(self, &option, &mut value)?;
        Ok(c_int::from_ne_bytes(value))
    }

    /// Sets an option of `SOL_SOCKET` whose value is an `int`.
    pub fn set_option_int(&self, option: c_int, value: c_int) -> Result<()> {
        let option = SocketOption::numbered(libc::SOL_SOCKET, option);
        sockopt::write(self, &option, &value.to_ne_bytes())
    }

    /// From now on senders get `EPIPE`; what is queued stays readable. It acts on the socket
    /// itself, and so for every process that shares it.
    #[doc(alias = "SHUT_RD")]
    pub fn shut_reading_down(&self) -> Result<()> {
        shutdown(self.fd.as_raw_fd(), Shutdown::Read)
            .map_err(|errno| Error::system("shut the reading side down", Subject::None, errno))
    }

    /// Receives into `batch`, without waiting, at most `most` datagrams: how many came.
    pub fn try_receive(&self, batch: &mut Batch, most: usize, mode: Take) -> Result<usize> {
        match batch.fill(self.as_fd(), most, mode) {
            Ok(count) => Ok(count),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(errno) => Err(Error::system("receive", Subject::None, errno)),
        }
    }

    /// Receives into `batch` at least one and at most `most` datagrams, and waits for the first.
    /// Before it waits for more than a moment it calls `idle`, once for each time. Where the last
    /// wait was short it asks for up to 50 µs, yielding the processor, before it sleeps.
    ///
    /// What `wake` names is looked at when it sleeps: whoever never has to asks [`Wake::check`].
    /// Fails with [`ErrorKind::TimedOut`] when the deadline passes, as [`Wake`] says, and with
    /// [`ErrorKind::System`]`(EPIPE)` when the reading side is shut down and nothing is queued.
    pub fn receive<E: From<Error>>(
        &self,
        batch: &mut Batch,
        most: usize,
        deadline: Deadline,
        wake: &Wake<'_>,
        mut idle: impl FnMut(&mut Batch) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut shut_down = false;
        let mut woken = false;
        loop {
            for _ in 0..=YIELDS {
                let count = self.try_receive(batch, most, Take::Remove)?;
                if count > 0 {
                    return Ok(count);
                }
                // No time to wait is none to yield, either: others might take long.
                if deadline.passed() {
                    break;
                }
                std::thread::yield_now();
            }
            if woken && deadline.passed() {
                // Others took what it woke for, each time.
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    "receive",
                    Subject::None,
                    "no time is left",
                )
                .into());
            }
            if shut_down {
                return Err(reading_shut_down().into());
            }
            idle(batch)?;
            let since = Instant::now();
            while batch.eager && since.elapsed() < EAGERNESS && !deadline.passed() {
                let count = self.try_receive(batch, most, Take::Remove)?;
                if count > 0 {
                    return Ok(count);
                }
                std::thread::yield_now();
            }
            let waited = wait(self.as_fd(), Until::Readable, deadline, wake);
            batch.eager = waited.is_ok() && since.elapsed() < EAGERNESS;
            // What was queued before a shutdown is still to be read.
            shut_down = waited? == Ready::ShutDown;
            woken = true;
        }
    }

    /// Sends every message, in order, each whole, waiting where a queue is full: `timeout` is the
    /// longest wait for each. Raises `SO_SNDBUF` for a datagram that needs it.
    ///
    /// On failure the error comes with how many messages had gone.
    pub fn send(
        &self,
        messages: &[Outgoing<'_>],
        timeout: Option<Duration>,
        wake: &Wake<'_>,
    ) -> Result<(), (usize, Error)> {
        let mut sent = 0;
        while sent < messages.len() {
            let deadline = Deadline::after(timeout);
            sent += self
                .send_some(&messages[sent..], deadline, wake)
                .map_err(|error| (sent, error))?;
        }
        Ok(())
    }

    /// Sends what goes without waiting, in order, each whole: how many messages went; zero, when
    /// the queue of the first one's destination is full. Raises `SO_SNDBUF` for a datagram that
    /// needs it.
    pub fn try_send(&self, messages: &[Outgoing<'_>]) -> Result<usize> {
        let Some(head) = messages.first() else {
            return Ok(0);
        };
        self.send_now(head, messages)
    }

    fn send_now(&self, head: &Outgoing<'_>, messages: &[Outgoing<'_>]) -> Result<usize> {
        loop {
            let raw = messages.iter().map(|message| MessageToSend {
                bytes: message.bytes,
                to: message.to.map(|name| &name.raw),
                control: message.control.map_or(&[], Control::words),
            });
            match sys::send(self.as_fd(), raw) {
                Ok(count) => return Ok(count),
                Err(Errno::EAGAIN) => return Ok(0),
                Err(Errno::EINTR) => {}
                Err(Errno::EMSGSIZE) if self.raise_send_buffer(head.bytes.len()) => {}
                Err(Errno::EMSGSIZE) => return Err(self.too_long(head)),
                // The largest datagram is far below what memory pressure would refuse.
                Err(Errno::ENOBUFS) if head.bytes.len() > 4_000_000 => {
                    return Err(self.too_long(head));
                }
                Err(errno) => return Err(self.send_error(head, errno)),
            }
        }
    }

    /// Sends at least one of the messages, waiting if it must: how many went.
    fn send_some(
        &self,
        messages: &[Outgoing<'_>],
        deadline: Deadline,
        wake: &Wake<'_>,
    ) -> Result<usize> {
        let head = &messages[0];
        let mut yields = 0;
        let mut woken = false;
        loop {
            match self.send_now(head, messages)? {
                0 if yields < YIELDS && !deadline.passed() => {
                    yields += 1;
                    std::thread::yield_now();
                }
                // Others took the room it woke for, each time.
                0 if woken && deadline.passed() => return Err(self.queue_full(head)),
                0 => match self.wait_for_room(head, deadline, wake) {
                    Err(error) if error.kind() == ErrorKind::TimedOut => {
                        return Err(self.queue_full(head));
                    }
                    waited => {
                        waited?;
                        woken = true;
                    }
                },
                count => return Ok(count),
            }
        }
    }

    /// A socket whose writability tells whether the queue of the message's own destination has
    /// room: poll(2) knows the queue of a socket's peer only. It says nothing of the buffer of
    /// the socket that is to send. `None`: the message goes to this socket's peer.
    pub(crate) fn gauge(&self, message: &Outgoing<'_>) -> Result<Option<Self>> {
        let Some(name) = message.to else {
            return Ok(None);
        };
        let gauge = Self::new()?;
        sys::connect(gauge.as_fd(), &name.raw).map_err(|errno| self.send_error(message, errno))?;
        Ok(Some(gauge))
    }

    /// Waits until the destination's queue and this socket's own buffer have room.
    fn wait_for_room(
        &self,
        head: &Outgoing<'_>,
        deadline: Deadline,
        wake: &Wake<'_>,
    ) -> Result<()> {
        if let Some(gauge) = self.gauge(head)? {
            let now = Deadline::after(Some(Duration::ZERO));
            match wait(gauge.as_fd(), Until::Writable, now, wake) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    return wait(gauge.as_fd(), Until::Writable, deadline, wake).map(drop);
                }
                Err(error) => return Err(error),
            }
        }
        wait(self.as_fd(), Until::Writable, deadline, wake).map(drop)
    }

    /// Makes `SO_SNDBUF` large enough for a datagram of `len` bytes, past `net.core.wmem_max` if
    /// the process may; whether it has become larger and suffices.
    #[doc(alias = "SO_SNDBUF")]
    fn raise_send_buffer(&self, len: usize) -> bool {
        let Ok(wanted) = c_int::try_from(len + SEND_OVERHEAD) else {
            return false;
        };
        let holds = |socket: &Self| {
            socket
                .option_int(libc::SO_SNDBUF)
                .is_ok_and(|size| size >= wanted)
        };
        !holds(self)
            && [libc::SO_SNDBUF, libc::SO_SNDBUFFORCE]
                .into_iter()
                .any(|option| {
                    // The kernel doubles what it is given, for its own overhead.
                    self.set_option_int(option, wanted).is_ok() && holds(self)
                })
    }

    /// Who the head of a batch goes to, for a message.
    fn destination(&self, head: &Outgoing<'_>) -> Address<'static> {
        match head.to {
            Some(name) => name.address().into_owned(),
            None => self
                .peer_address()
                .ok()
                .flatten()
                .unwrap_or(Address::Unnamed),
        }
    }

    fn send_error(&self, head: &Outgoing<'_>, errno: Errno) -> Error {
        if errno == Errno::ENOTCONN || errno == Errno::EDESTADDRREQ {
            let cause = "the socket is not connected, and no destination is given";
            return Error::new(ErrorKind::Unusable, "send", Subject::None, cause);
        }
        let error = Error::peer("send to", &self.destination(head), errno);
        let claims = head.control.is_some_and(Control::claims_others);
        if claims && matches!(errno, Errno::EPERM | Errno::ESRCH) {
            return error.with_hint(
                "it may be the credentials: only the privileged may claim another's, and the process must be there",
            );
        }
        error
    }

    fn queue_full(&self, head: &Outgoing<'_>) -> Error {
        let limit = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen");
        let limit = limit.as_deref().unwrap_or("10").trim();
        let to = Subject::Address(self.destination(head));
        Error::new(ErrorKind::TimedOut, "send to", to, "its queue is full and no time is left").with_hint(format!(
            "the receiver is not reading; net.unix.max_dgram_qlen is {limit}, and counts when the receiver makes its socket"
        ))
    }

    fn too_long(&self, head: &Outgoing<'_>) -> Error {
        let buffer = usize::try_from(self.option_int(libc::SO_SNDBUF).unwrap_or(0)).unwrap_or(0);
        let len = head.bytes.len();
        let to = Subject::Address(self.destination(head));
        let error =
            |errno, cause| Error::new(ErrorKind::System(errno), "send to", to.clone(), cause);
        if len + SEND_OVERHEAD > buffer {
            let most = buffer.saturating_sub(SEND_OVERHEAD);
            error(
                Errno::EMSGSIZE,
                format!("a datagram of {len} bytes is too long, this socket sends {most} at most"),
            )
            .with_hint("net.core.wmem_max bounds SO_SNDBUF; root is not bound by it")
        } else {
            error(
                Errno::ENOBUFS,
                format!("a datagram of {len} bytes is too long for the kernel"),
            )
            .with_hint("the kernel carries about 4 MiB; pass a file or a memfd with --fd instead")
        }
    }
}

/// Nothing is queued, and nothing will come.
pub(crate) fn reading_shut_down() -> Error {
    Error::new(
        ErrorKind::System(Errno::EPIPE),
        "receive",
        Subject::None,
        "its reading side is shut down",
    )
}

/// A copy of descriptor `number`, close-on-exec: of this process or, with `pid`, of another one.
///
/// [`ErrorKind::Unusable`] if it is not open there; [`ErrorKind::System`] if the process is not
/// there or does not let itself be looked into.
#[doc(alias = "pidfd_getfd")]
pub fn duplicate(pid: Option<i32>, number: RawFd) -> Result<OwnedFd> {
    let copied = match pid {
        None => sys::duplicate(number),
        Some(pid) => sys::pidfd_open(pid).and_then(|pidfd| sys::pidfd_getfd(pidfd.as_fd(), number)),
    };
    let subject = Subject::Descriptor { pid, number };
    copied.map_err(|errno| match errno {
        Errno::EBADF => Error::new(ErrorKind::Unusable, "use", subject, "it is not open"),
        Errno::ESRCH => Error::new(ErrorKind::System(errno), "copy", subject, "there is no such process"),
        Errno::EPERM => Error::system("copy", subject, errno).with_hint(
            "copying from another process needs the right to trace it (ptrace(2)): its user and kernel.yama.ptrace_scope 0, or CAP_SYS_PTRACE",
        ),
        errno => Error::system("copy", subject, errno),
    })
}

/// An address as bind(2), connect(2) and sendmsg(2) take it: made once, used for many datagrams.
#[derive(Debug)]
pub struct Name {
    raw: RawName,
    /// A path longer than `sun_path`, and the open file that it goes through as long as the name
    /// is used.
    through: Option<(Address<'static>, OwnedFd)>,
}

impl Name {
    /// The name of a destination. A pathname too long for `sun_path` is opened, and named by its
    /// descriptor in /proc/self/fd.
    pub fn of_peer(peer: &Address<'_>) -> Result<Self> {
        Self::of(peer).map_err(|errno| Error::peer("send to", peer, errno))
    }

    /// The address it names.
    #[must_use]
    pub fn address(&self) -> Address<'_> {
        match &self.through {
            Some((address, _)) => address.clone(),
            None => self.raw.address(),
        }
    }

    fn of(peer: &Address<'_>) -> Result<Self, Errno> {
        if let Some(raw) = RawName::new(peer) {
            return Ok(Self { raw, through: None });
        }
        let path = peer.as_path().ok_or(Errno::ENAMETOOLONG)?;
        let through = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let short = format!("/proc/self/fd/{}", through.as_raw_fd());
        let raw =
            RawName::new(&Address::Pathname(short.as_bytes().into())).ok_or(Errno::ENAMETOOLONG)?;
        Ok(Self {
            raw,
            through: Some((peer.clone().into_owned(), through)),
        })
    }
}

/// One datagram to send.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outgoing<'o> {
    /// Its bytes; none is a datagram like any other.
    pub bytes: &'o [u8],
    /// Where it goes; `None`: to the peer the socket is connected to.
    pub to: Option<&'o Name>,
    /// What goes beside it.
    pub control: Option<&'o Control>,
}

/// Whether receiving takes datagrams out of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(alias = "MSG_PEEK")]
pub enum Take {
    /// They are taken.
    Remove,
    /// They stay; descriptors among them are copied to this process each time.
    Peek,
}
