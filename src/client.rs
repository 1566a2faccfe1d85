//! Packets over a socket: a protocol on one side, datagrams on the other.

use crate::address::Address;
use crate::ancillary::{Ancillary, Control, DEFAULT_ROOM, Room};
use crate::batch::{Batch, Datagram};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::protocol::DatagramProtocol;
use crate::socket::{DatagramSocket, Name, Outgoing, Take};
use crate::wait::{Deadline, Wake};
#[cfg(feature = "async")]
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A Unix datagram socket that speaks a protocol, with or without one peer of its own: it
/// receives from whom the kernel lets through, and sends where it is told.
///
/// Every method takes `&self`, and sending and receiving do not wait for each other; nor do
/// receives in several threads, each of which has its own timeout. After [`close`](Self::close)
/// every call that needs the socket fails with [`ErrorKind::Closed`]. Dropping it closes it.
#[derive(Debug)]
pub struct UnixDatagramEndpoint<P> {
    socket: Mutex<Option<Arc<DatagramSocket>>>,
    /// Readable once closed.
    closed: EventFd,
    /// Buffers of an earlier receive. Each receive has its own while it waits, so that several
    /// threads wait side by side, each for as long as it was told.
    spare: Mutex<Option<Inbox>>,
    protocol: P,
}

struct Inbox {
    batch: Batch,
    room: Room,
}

impl Inbox {
    fn new(socket: &DatagramSocket, room: Room) -> Result<Self> {
        let batch = Batch::new(socket, room, 1)?;
        Ok(Self { batch, room })
    }

    /// Whether it serves later receives, too: a small room, exactly measured, depends on the
    /// socket's options, which may change.
    fn is_lasting(&self) -> bool {
        matches!(self.room, Room::NoDescriptors | Room::Bytes(DEFAULT_ROOM))
    }
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

pub(crate) fn closed() -> Error {
    Error::new(
        ErrorKind::Closed,
        "use the client",
        Subject::None,
        "it is closed",
    )
}

/// Whether receiving again is of no use, in a sequence of receives.
pub(crate) fn ends_sequence(error: &Error) -> bool {
    error.kind() != ErrorKind::Parse
}

/// A receive as the item of a sequence, which ends when the time is over.
pub(crate) fn packet_or_end<R>(packet: Result<R>) -> Option<Result<R>> {
    match packet {
        Err(error) if error.kind() == ErrorKind::TimedOut => None,
        packet => Some(packet),
    }
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
            spare: Mutex::new(None),
            protocol,
        })
    }

    /// The protocol.
    pub fn protocol(&self) -> &P {
        &self.protocol
    }

    /// The socket, for its options and addresses. It cannot be closed through this; when the
    /// client is closed, it stays open for as long as somebody holds what this gave.
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

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        locked(&self.socket).is_none()
    }

    /// A copy of the descriptor that becomes readable when this is closed.
    #[cfg(feature = "async")]
    pub(crate) fn closing(&self) -> Result<OwnedFd> {
        let copy = self.closed.as_fd().try_clone_to_owned();
        copy.map_err(|error| {
            let errno = error.raw_os_error().map_or(Errno::EMFILE, Errno::from_raw);
            Error::system("make a client", Subject::None, errno)
        })
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
    /// that are there already; `None`: until it is closed. What the caller does between two
    /// packets is not counted.
    ///
    /// The iterator ends when the time is over. A datagram that is no packet is an item, an error
    /// ([`ErrorKind::Parse`]), and the next follow; any other error is the last item.
    pub fn iter_received_packets(
        &self,
        budget: impl Into<Option<Duration>>,
    ) -> impl Iterator<Item = Result<P::Received>> {
        let mut left = budget.into();
        let mut over = false;
        std::iter::from_fn(move || {
            if over {
                return None;
            }
            let start = Instant::now();
            let packet = self.recv_packet(left);
            left = left.map(|left| left.saturating_sub(start.elapsed()));
            over = packet.as_ref().is_err_and(ends_sequence);
            packet_or_end(packet)
        })
    }

    fn recv(&self, deadline: Deadline, room: Room) -> Result<Message<P::Received>> {
        let wake = self.wake(&Wake::default());
        self.recv_with(room, |socket, batch| {
            let trim = |batch: &mut Batch| {
                batch.trim();
                Ok::<(), Error>(())
            };
            socket.receive(batch, 1, deadline, &wake, trim)
        })?
        .ok_or_else(closed)
    }

    /// The next message if it is there already; it does not wait.
    #[cfg(feature = "async")]
    pub(crate) fn try_recv(&self, room: Room) -> Result<Option<Message<P::Received>>> {
        self.recv_with(room, |socket, batch| {
            socket.try_receive(batch, 1, Take::Remove)
        })
    }

    /// Lends `receive` buffers, and makes a message of the datagram that it puts there, if any.
    fn recv_with(
        &self,
        room: Room,
        receive: impl FnOnce(&DatagramSocket, &mut Batch) -> Result<usize>,
    ) -> Result<Option<Message<P::Received>>> {
        let socket = self.socket()?;
        let spare = locked(&self.spare).take_if(|spare| spare.room == room);
        let mut inbox = match spare {
            Some(inbox) => inbox,
            None => Inbox::new(&socket, room)?,
        };
        let message =
            receive(&socket, &mut inbox.batch).and_then(|_| match inbox.batch.datagrams().next() {
                Some(mut datagram) => self.message(&mut datagram).map(Some),
                None => Ok(None),
            });
        if inbox.is_lasting() {
            *locked(&self.spare) = Some(inbox);
        }
        message
    }

    fn message(&self, datagram: &mut Datagram<'_>) -> Result<Message<P::Received>> {
        // Taken out first: what came beside a datagram that is no packet is closed at once.
        let ancillary = std::mem::take(datagram.ancillary);
        let packet = self.parse(datagram)?.into();
        Ok(Message {
            packet,
            from: datagram.from().into_owned(),
            ancillary,
        })
    }

    /// The packet in a datagram; [`ErrorKind::Parse`] if it has none or arrived cut.
    pub fn parse<'d>(&self, datagram: &Datagram<'d>) -> Result<P::View<'d>> {
        let refuse = |cause| {
            let sender = Subject::Address(datagram.from().into_owned());
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
        let deadline = Deadline::after(timeout);
        let to = Name::of_peer(to)?;
        self.send_one(packet, Some(&to), None, deadline)
    }

    /// [`send_packet_to`](Self::send_packet_to) with descriptors or credentials beside it.
    pub fn send_packet_to_with(
        &self,
        packet: &P::Sent,
        to: &Address<'_>,
        control: &Control,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let deadline = Deadline::after(timeout);
        let to = Name::of_peer(to)?;
        self.send_one(packet, Some(&to), Some(control), deadline)
    }

    fn send_one(
        &self,
        packet: &P::Sent,
        to: Option<&Name>,
        control: Option<&Control>,
        deadline: Deadline,
    ) -> Result<()> {
        let socket = self.socket()?;
        let bytes = self.datagram(packet)?;
        let bytes = &bytes;
        let outgoing = Outgoing { bytes, to, control };
        let wake = self.wake(&Wake::default());
        socket
            .send(&[outgoing], deadline.remaining(), &wake)
            .map_err(|(_, error)| error)
    }

    /// The datagram that carries `packet`; [`ErrorKind::Parse`] if it is no valid one.
    pub(crate) fn datagram<'p>(&self, packet: &'p P::Sent) -> Result<Cow<'p, [u8]>> {
        let datagram = self.protocol.make_datagram(packet);
        datagram.map_err(|error| {
            Error::new(
                ErrorKind::Parse,
                "send the packet",
                Subject::None,
                error.to_string(),
            )
        })
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

/// A client: an endpoint connected to one peer, from which alone it receives.
///
/// It dereferences to its [`UnixDatagramEndpoint`], which has the receiving methods.
///
/// ```
/// use std::time::{Duration, Instant};
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
        Ok(Self {
            endpoint: UnixDatagramEndpoint::new(socket, protocol)?,
            peer: peer.clone().into_owned(),
        })
    }

    /// A client over a socket that is connected already, which it owns from now on: it is closed
    /// with the client, or at once if this fails. It may be unnamed, such as either end of a
    /// socketpair(2).
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

    #[cfg(feature = "async")]
    pub(crate) fn into_parts(self) -> (UnixDatagramEndpoint<P>, Address<'static>) {
        (self.endpoint, self.peer)
    }

    /// The peer's address, as it was when the client was made.
    pub fn peer_address(&self) -> &Address<'static> {
        &self.peer
    }

    /// Sends `packet` to the peer, waiting no longer than `timeout` for room in its queue
    /// (`None`: without limit).
    pub fn send_packet(&self, packet: &P::Sent, timeout: Option<Duration>) -> Result<()> {
        let deadline = Deadline::after(timeout);
        self.endpoint.send_one(packet, None, None, deadline)
    }

    /// [`send_packet`](Self::send_packet) with descriptors or credentials beside it.
    pub fn send_packet_with(
        &self,
        packet: &P::Sent,
        control: &Control,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let deadline = Deadline::after(timeout);
        self.endpoint
            .send_one(packet, None, Some(control), deadline)
    }
}
