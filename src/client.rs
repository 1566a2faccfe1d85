//! Packets over a socket: a protocol on one side, datagrams on the other.

use crate::address::Address;
use crate::ancillary::{Ancillary, Control, DEFAULT_ROOM, Room};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::protocol::{DatagramProtocol, ParseError};
use crate::socket::{Batch, Datagram, DatagramSocket, Name, Outgoing, Take};
use crate::wait::{Deadline, Wake};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A Unix datagram socket that speaks a protocol, with or without one peer of its own: it
/// receives from whom the kernel lets through, and sends where it is told.
///
/// Every method takes `&self`, and sending and receiving do not wait for each other. After
/// [`close`](Self::close) every call fails with [`ErrorKind::Closed`].
#[derive(Debug)]
pub struct UnixDatagramEndpoint<P> {
    socket: Mutex<Option<Arc<DatagramSocket>>>,
    /// Readable once closed.
    closed: EventFd,
    inbox: Mutex<Option<Inbox>>,
    protocol: P,
}

struct Inbox {
    batch: Batch,
    room: Room,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox")
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

/// A packet received, and what came with it.
#[derive(Debug)]
pub struct Message<R> {
    /// The packet.
    pub packet: R,
    /// Who sent it.
    pub from: Address<'static>,
    /// What came beside it; descriptors that are not taken out are closed with it.
    pub ancillary: Ancillary,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the mutexes guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> Error {
    Error::new(
        ErrorKind::Closed,
        "use the client",
        Subject::None,
        "it is closed",
    )
}

impl<P: DatagramProtocol> UnixDatagramEndpoint<P> {
    /// Packets over `socket`, as it is.
    pub fn new(socket: DatagramSocket, protocol: P) -> Result<Self> {
        let closed = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| Error::system("make a client", Subject::None, errno))?;
        let socket = Mutex::new(Some(Arc::new(socket)));
        Ok(Self {
            socket,
            closed,
            inbox: Mutex::new(None),
            protocol,
        })
    }

    /// The protocol.
    pub fn protocol(&self) -> &P {
        &self.protocol
    }

    /// The socket, for its options and addresses. It cannot be closed through this.
    pub fn socket(&self) -> Result<Arc<DatagramSocket>> {
        locked(&self.socket).clone().ok_or_else(closed)
    }

    /// The address the socket is bound to.
    pub fn local_address(&self) -> Result<Address<'static>> {
        self.socket()?.local_address()
    }

    /// Closes the socket. A receive or send that waits in another thread fails with
    /// [`ErrorKind::Closed`]; closing again does nothing.
    pub fn close(&self) {
        locked(&self.socket).take();
        // It stays readable, for nobody reads it; a counter at its limit is readable too.
        let _ = self.closed.write(1);
    }

    fn wake<'w>(&'w self, wake: &Wake<'w>) -> Wake<'w> {
        Wake {
            closed: Some(self.closed.as_fd()),
            ..*wake
        }
    }

    /// The next packet, waiting for it no longer than `timeout` (`None`: without limit).
    ///
    /// Fails with [`ErrorKind::TimedOut`], and with [`ErrorKind::Parse`] on a datagram that is
    /// no packet, which is then gone.
    pub fn recv_packet(&self, timeout: Option<Duration>) -> Result<P::Received> {
        self.recv(Deadline::after(timeout), Room::NoDescriptors)
            .map(|message| message.packet)
    }

    /// The next packet, its sender and what came beside it, with [`DEFAULT_ROOM`] for that.
    pub fn recv_message(&self, timeout: Option<Duration>) -> Result<Message<P::Received>> {
        self.recv(Deadline::after(timeout), Room::Bytes(DEFAULT_ROOM))
    }

    /// [`recv_message`](Self::recv_message) with `room` bytes for control data.
    pub fn recv_message_with_room(
        &self,
        timeout: Option<Duration>,
        room: usize,
    ) -> Result<Message<P::Received>> {
        self.recv(Deadline::after(timeout), Room::Bytes(room))
    }

    /// The packets that come within `budget`, the time for all of them together; zero: those
    /// that are there already. What the caller does between two packets is not counted.
    ///
    /// The iterator ends when the time is over; an error other than that is an item.
    pub fn iter_received_packets(
        &self,
        budget: Duration,
    ) -> impl Iterator<Item = Result<P::Received>> {
        let mut left = budget;
        std::iter::from_fn(move || {
            let start = std::time::Instant::now();
            let packet = self.recv_packet(Some(left));
            left = left.saturating_sub(start.elapsed());
            match packet {
                Err(error) if error.kind() == ErrorKind::TimedOut => None,
                packet => Some(packet),
            }
        })
    }

    fn recv(&self, deadline: Deadline, room: Room) -> Result<Message<P::Received>> {
        let socket = self.socket()?;
        let mut inbox = locked(&self.inbox);
        let inbox = match &mut *inbox {
            Some(inbox) if inbox.room == room => inbox,
            other => other.insert(Inbox {
                batch: Batch::new(&socket, room, 1)?,
                room,
            }),
        };
        let wake = self.wake(&Wake::default());
        socket.receive(&mut inbox.batch, 1, deadline, &wake, |batch| {
            batch.trim();
            Ok::<(), Error>(())
        })?;
        let Some(datagram) = inbox.batch.datagrams().next() else {
            return Err(closed());
        };
        let packet = self.parse(&datagram)?.into();
        let from = datagram.from.into_owned();
        let ancillary = std::mem::take(datagram.ancillary);
        Ok(Message {
            packet,
            from,
            ancillary,
        })
    }

    /// The packet in a datagram; [`ErrorKind::Parse`] if it has none or arrived cut.
    pub fn parse<'d>(&self, datagram: &Datagram<'d>) -> Result<P::View<'d>> {
        let refuse = |cause| {
            let sender = Subject::Address(datagram.from.clone().into_owned());
            Error::new(ErrorKind::Parse, "read the packet of", sender, cause)
        };
        if datagram.is_cut() {
            let (whole, came) = (datagram.size, datagram.bytes.len());
            return Err(refuse(format!(
                "it has {whole} bytes and arrived cut, to {came}"
            )));
        }
        self.protocol
            .build_packet(datagram.bytes)
            .map_err(|error| refuse(error.to_string()))
    }

    /// Receives a batch, as [`DatagramSocket::receive`] does.
    pub fn receive<E: From<Error>>(
        &self,
        batch: &mut Batch,
        most: usize,
        deadline: Deadline,
        wake: &Wake<'_>,
        idle: impl FnMut(&mut Batch) -> Result<(), E>,
    ) -> Result<usize, E> {
        self.socket()?
            .receive(batch, most, deadline, &self.wake(wake), idle)
    }

    /// Receives what is queued, without waiting, as [`DatagramSocket::try_receive`] does.
    pub fn try_receive(&self, batch: &mut Batch, most: usize, mode: Take) -> Result<usize> {
        self.socket()?.try_receive(batch, most, mode)
    }

    /// Sends `packet` to `to`, waiting no longer than `timeout` for room in its queue (`None`:
    /// without limit).
    pub fn send_packet_to(
        &self,
        packet: &P::Sent,
        to: &Address<'_>,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let to = Name::of_peer(to)?;
        self.send_one(
            packet,
            Outgoing {
                to: Some(&to),
                ..Outgoing::default()
            },
            timeout,
        )
    }

    fn send_one(
        &self,
        packet: &P::Sent,
        outgoing: Outgoing<'_>,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let bytes = self
            .protocol
            .make_datagram(packet)
            .map_err(|error| invalid(&error))?;
        self.send_batch(
            &[Outgoing {
                bytes: &bytes,
                ..outgoing
            }],
            timeout,
            &Wake::default(),
        )
        .map_err(|(_, error)| error)
    }

    /// Sends datagrams as they are, as [`DatagramSocket::send`] does.
    pub fn send_batch(
        &self,
        messages: &[Outgoing<'_>],
        timeout: Option<Duration>,
        wake: &Wake<'_>,
    ) -> Result<(), (usize, Error)> {
        let socket = self.socket().map_err(|error| (0, error))?;
        socket.send(messages, timeout, &self.wake(wake))
    }
}

fn invalid(error: &ParseError) -> Error {
    Error::new(
        ErrorKind::Parse,
        "send the packet",
        Subject::None,
        error.to_string(),
    )
}

/// A client: an endpoint connected to one peer, from which alone it receives.
///
/// It dereferences to its [`UnixDatagramEndpoint`], which has the receiving methods.
///
/// ```
/// use std::time::Duration;
/// use udgram::protocol::Json;
/// use udgram::{DatagramSocket, UnixDatagramClient};
///
/// let (ours, theirs) = DatagramSocket::pair()?;
/// let client = UnixDatagramClient::from_connected(ours, Json)?;
/// let peer = UnixDatagramClient::from_connected(theirs, Json)?;
/// client.send_packet(r#"{"data": 42}"#, None)?;
/// assert_eq!(peer.recv_packet(Some(Duration::from_secs(1)))?, r#"{"data": 42}"#);
/// # Ok::<(), udgram::Error>(())
/// ```
#[derive(Debug)]
pub struct UnixDatagramClient<P> {
    endpoint: UnixDatagramEndpoint<P>,
    peer: Address<'static>,
}

impl<P> std::ops::Deref for UnixDatagramClient<P> {
    type Target = UnixDatagramEndpoint<P>;

    fn deref(&self) -> &Self::Target {
        &self.endpoint
    }
}

impl<P: DatagramProtocol> UnixDatagramClient<P> {
    /// A client of `peer`, with an abstract name of the kernel's choosing so that the peer can
    /// answer. Fails with [`ErrorKind::NobodyThere`] if there is no such socket.
    pub fn connect(peer: &Address<'_>, protocol: P) -> Result<Self> {
        let socket = DatagramSocket::new()?;
        socket.autobind()?;
        socket.connect(peer)?;
        let endpoint = UnixDatagramEndpoint::new(socket, protocol)?;
        Ok(Self {
            endpoint,
            peer: peer.clone().into_owned(),
        })
    }

    /// A client over a socket that is connected already, which it owns from now on.
    ///
    /// [`ErrorKind::Unusable`] if it is no socket, not `AF_UNIX`, not `SOCK_DGRAM` or not
    /// connected: the message says which.
    pub fn from_connected(socket: impl Into<OwnedFd>, protocol: P) -> Result<Self> {
        let socket = DatagramSocket::from_fd(socket.into())?;
        let Some(peer) = socket.peer_address()? else {
            return Err(Error::new(
                ErrorKind::Unusable,
                "use the socket",
                Subject::None,
                "it is not connected",
            ));
        };
        Ok(Self {
            endpoint: UnixDatagramEndpoint::new(socket, protocol)?,
            peer,
        })
    }

    /// The peer's address, as it was when the client was made.
    pub fn peer_address(&self) -> &Address<'static> {
        &self.peer
    }

    /// Sends `packet` to the peer, waiting no longer than `timeout` for room in its queue
    /// (`None`: without limit).
    pub fn send_packet(&self, packet: &P::Sent, timeout: Option<Duration>) -> Result<()> {
        self.endpoint.send_one(packet, Outgoing::default(), timeout)
    }

    /// [`send_packet`](Self::send_packet) with descriptors or credentials beside it.
    pub fn send_packet_with(
        &self,
        packet: &P::Sent,
        control: &Control,
        timeout: Option<Duration>,
    ) -> Result<()> {
        self.endpoint.send_one(
            packet,
            Outgoing {
                control: Some(control),
                ..Outgoing::default()
            },
            timeout,
        )
    }
}
