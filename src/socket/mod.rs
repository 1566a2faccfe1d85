//! Makes and connects Unix datagram sockets, and receives batches of datagrams. The module `send` sends
//! them; `queue` makes sockets with a longer queue.
//!
//! The file status flags of a socket stay unchanged, because other processes may share them: each call
//! sets `MSG_DONTWAIT`, and [`wait`] waits.

mod queue;
mod send;

use crate::address::{Address, ToAddress};
#[cfg(doc)]
use crate::ancillary::Ancillary;
use crate::batch::{Batch, ReceiveMode};
use crate::descriptor::duplicate;
use crate::diagnose::{peer_error, peer_lost, proc_missing};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::outgoing::{Destination, PeerName, SocketName};
use crate::sock_diag::{inode_of, unix_socket};
use crate::sockopt;
use crate::sys::{self, End, SockAddr};
use crate::wait::{Deadline, Ready, Until, Wake, wait};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_int, c_short};
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socket, socketpair};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// The number of times that a call that would block is repeated before the process sleeps, each time after
/// yielding the processor. A peer that runs on another processor is usually faster than a wake-up.
const YIELDS: u32 = 16;

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

/// The locks of a socket: the number of the byte that fcntl(2) locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Of the process that moves `SO_PEEK_OFF`.
    Peek = 0,
    /// Of the process that is about to attach an observer's filter.
    Observe = 1,
}

impl DatagramSocket {
    /// Makes an unnamed socket with the close-on-exec flag; socket(2).
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

    /// Copies the descriptor; dup(2). Both descriptors share the socket, its queue and its options.
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

    /// Checks that `fd` is a Unix datagram socket.
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

    /// Binds the socket to an abstract name that the kernel chooses, so that peers can answer. Does nothing
    /// if the socket has a name.
    pub fn autobind(&self) -> Result<()> {
        match sys::bind(self.as_fd(), &SockAddr::UNNAMED) {
            // EINVAL: the socket has a name.
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(errno) => Err(Error::system("bind an abstract name", Subject::None, errno)),
        }
    }

    /// Connects the socket to `peer`; connect(2). It then sends to this peer by default and accepts only its
    /// datagrams. A pathname may have any length.
    ///
    /// Fails with [`ErrorKind::NobodyThere`] if there is no such socket. After a failure, an earlier
    /// connection remains.
    pub fn connect(&self, peer: impl ToAddress) -> Result<()> {
        self.connect_for("connect to", &peer.to_address()?)
    }

    /// Makes one attempt to connect as [`connect`](Self::connect) does.
    ///
    /// Fails with the errno of the system call, whose cause is not looked for.
    pub fn try_connect(&self, peer: &Address<'_>) -> io::Result<()> {
        let name = SocketName::of(peer)?;
        Ok(sys::connect(self.as_fd(), &name.raw)?)
    }

    /// Connects as [`connect`](Self::connect) does, in the course of `operation`.
    pub(crate) fn connect_for(&self, operation: &'static str, peer: &Address<'_>) -> Result<()> {
        let failed = |errno| peer_error(operation, peer, errno);
        let name = SocketName::of(peer).map_err(failed)?;
        sys::connect(self.as_fd(), &name.raw).map_err(|errno| match errno {
            Errno::ENOENT if name.needs_proc() => proc_missing(operation, peer),
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
            // EPERM: the socket exists, and is connected to another one, perhaps this one.
            Err(error) if error.errno() == Some(Errno::EPERM) => Ok(()),
            connected => connected,
        }
    }

    /// Returns whether the peer has closed its socket, after which no answer will arrive. If sock_diag(7) does not
    /// list this socket, returns whether nobody receives at the peer's pathname.
    #[must_use]
    pub fn peer_is_closed(&self) -> bool {
        let own = inode_of(self).and_then(|inode| unix_socket(inode).ok());
        own.map_or_else(|| self.peer_name_is_stale(), |own| own.peer == Some(0))
    }

    /// Returns whether the pathname of the peer leads to a socket that is closed. sock_diag(7) does not list the
    /// socket itself if it is in another network namespace, as one with a longer queue is.
    fn peer_name_is_stale(&self) -> bool {
        let Ok(Some(address @ Address::Pathname(_))) = self.peer_address() else {
            return false;
        };
        let connected = Self::new().and_then(|probe| probe.connect(&address));
        connected.is_err_and(|error| error.raw_os_error() == Some(libc::ECONNREFUSED))
    }

    /// Returns the name of the peer that the socket is connected to, as the kernel reports it; `None` if the
    /// socket is not connected.
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

    /// Returns the address of the peer that the socket is connected to; `None` if the socket is not connected.
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
        sockopt::set_int(self, sockopt::TIMESTAMPNS, on.into())
    }

    /// Sets the size of the send buffer in bytes. It limits the size of a datagram and the memory of sent
    /// datagrams that are unread. The kernel doubles it for its own overhead, and limits it to
    /// `net.core.wmem_max`. [`send`](Self::send) raises it if a datagram needs more.
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

    /// Locks the socket against other processes that peek at it and move its one `SO_PEEK_OFF`. Returns
    /// false if another process has the lock.
    ///
    /// The lock is a write lock of fcntl(2) on the socket itself, which processes in all namespaces share.
    /// It excludes only those that take it, and ends when this process closes any descriptor of the
    /// socket.
    pub fn lock_for_peeking(&self) -> Result<bool> {
        self.try_lock(Lock::Peek)
    }

    /// Locks the socket as [`lock_for_peeking`](Self::lock_for_peeking) does.
    pub(crate) fn try_lock(&self, lock: Lock) -> Result<bool> {
        let byte = libc::flock {
            l_type: c_short::try_from(libc::F_WRLCK).unwrap_or_default(),
            l_whence: c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
            l_start: lock as libc::off_t,
            l_len: 1,
            l_pid: 0,
        };
        match fcntl(&self.fd, FcntlArg::F_SETLK(&byte)) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(errno) => Err(Error::system("lock the socket", Subject::None, errno)),
        }
    }

    /// Receives at most `max` datagrams into `batch` without waiting. Returns how many it received.
    pub fn try_receive(&self, batch: &mut Batch, max: usize, mode: ReceiveMode) -> Result<usize> {
        loop {
            match batch.fill(self.as_fd(), max, mode) {
                Ok(count) => return Ok(count),
                Err(Errno::EAGAIN) => return Ok(0),
                // ECONNRESET: the peer has connected elsewhere (`unix_dgram_disconnected`). The kernel
                // reports this once, and later datagrams arrive as before.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(errno) => {
                    let error = Error::system("receive", Subject::None, errno);
                    return Err(error.of_call("recvmmsg", "2.6.33"));
                }
            }
        }
    }

    /// Receives at least one and at most `max` datagrams into `batch`, waiting for the first. Returns how
    /// many it received: 0 if the deadline passed, or if [`Wake::notice`] became readable.
    ///
    /// Tries again some times, yielding the processor. Then, if the last wait was shorter than 50 µs, it spins for
    /// up to 50 µs before it sleeps. In the long run all of this takes no more than a third of the time, without
    /// the first 5 µs of each wait, which sleeping would cost.
    ///
    /// Calls `idle` each time before it sleeps or spins. It polls `wake` only while sleeping: a caller that never
    /// blocks must call [`Wake::check`].
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
            let mut tries = 0;
            let most = batch.spin.tries(YIELDS);
            while tries <= most {
                let count = self.try_receive(batch, max, ReceiveMode::Remove)?;
                if count > 0 {
                    batch.spin.spent(tries, Duration::ZERO);
                    return Ok(count);
                }
                tries += 1;
                // Don't yield past the deadline: the scheduler may not return for a while.
                if deadline.passed() {
                    break;
                }
                std::thread::yield_now();
            }
            if woken && deadline.passed() {
                // Another receiver took the datagrams that ended the wait.
                return Ok(0);
            }
            if shut_down {
                return Err(reading_shut_down().into());
            }
            idle(batch)?;
            let start = Instant::now();
            let limit = batch.spin.limit(start);
            while start.elapsed() < limit && !deadline.passed() {
                let count = self.try_receive(batch, max, ReceiveMode::Remove)?;
                if count > 0 {
                    batch.spin.spent(tries, start.elapsed());
                    return Ok(count);
                }
                std::thread::yield_now();
            }
            batch.spin.spent(tries, limit);
            let waited = wait(self.as_fd(), Until::Readable, deadline, wake)?;
            batch.spin.waited(start.elapsed(), waited.is_some());
            match waited {
                None | Some(Ready::Notice) => return Ok(0),
                // Datagrams queued before the shutdown can still be read.
                Some(ready) => shut_down = ready == Ready::ShutDown,
            }
            woken = true;
        }
    }
}

/// Makes the error of a receive after the reading side was shut down.
pub(crate) fn reading_shut_down() -> Error {
    Error::system("receive", Subject::None, Errno::EPIPE)
        .with_cause("its reading side is shut down")
}
