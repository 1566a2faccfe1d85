//! Sends and receives packets of a protocol over a socket without a fixed peer.

use crate::address::{Address, ToAddress};
use crate::ancillary::{Ancillary, Control, ControlSpace, DEFAULT_CONTROL_LEN, ONE_DESCRIPTOR_LEN};
use crate::batch::{Batch, Datagram, ReceiveMode};
use crate::binding::{BindOptions, Binding, bind};
use crate::diagnose::peer_lost;
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::outgoing::{Destination, MemfdDatagram, Outgoing, PeerName};
use crate::protocol::DatagramProtocol;
use crate::socket::DatagramSocket;
use crate::wait::{Deadline, Wake};
#[cfg(feature = "async")]
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::borrow::Cow;
use std::os::fd::AsFd;
#[cfg(feature = "async")]
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// A Unix datagram socket with a protocol and without a fixed peer: it receives from every sender, and each
/// send names its destination.
///
/// Sends and receives take `&self`. In several threads they do not block each other, and each has its own
/// timeout. After [`close`](Self::close) every call that
/// needs the socket fails with [`ErrorKind::Closed`]. Dropping the endpoint closes it.
///
/// ```
/// use udgram::protocol::Json;
/// use udgram::{UnixDatagramClient, UnixDatagramEndpoint};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("app.sock");
/// let server = UnixDatagramEndpoint::bind(&path, Json)?;
/// let client = UnixDatagramClient::connect(&path, Json)?;
/// client.send_packet(r#"{"op": "ping"}"#, None)?;
/// let request = server.recv_message(None)?;
/// server.send_packet_to(r#"{"op": "pong"}"#, &request.sender, None)?;
/// # assert_eq!(client.recv_packet(None)?, r#"{"op": "pong"}"#);
/// # Ok::<(), udgram::Error>(())
/// ```
#[derive(Debug)]
pub struct UnixDatagramEndpoint<P> {
    /// The socket; `None` after `close`.
    open: Mutex<Option<Open>>,
    /// An eventfd that is readable after `close`.
    closed: EventFd,
    /// The buffers of an earlier receive, for reuse. Each receive that waits has its own, so that several
    /// threads can wait at the same time.
    spare: Mutex<Option<Inbox>>,
    protocol: P,
}

/// The parts that `close` drops.
#[derive(Debug)]
struct Open {
    // Fields are dropped in this order: the socket is closed before its file is removed.
    socket: Arc<DatagramSocket>,
    binding: Option<Binding>,
}

/// The buffers of a receive.
struct Inbox {
    batch: Batch,
    space: ControlSpace,
}

impl Inbox {
    fn new(socket: &DatagramSocket, space: ControlSpace) -> Result<Self> {
        let batch = Batch::new(socket, space, 1)?;
        Ok(Self { batch, space })
    }

    /// Returns whether later receives may reuse it. For other spaces, the length depends on the options of
    /// the socket, which may change.
    fn is_reusable(&self) -> bool {
        matches!(
            self.space,
            ControlSpace::NoDescriptors
                | ControlSpace::Bytes(DEFAULT_CONTROL_LEN | ONE_DESCRIPTOR_LEN)
        )
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox")
            .field("space", &self.space)
            .finish_non_exhaustive()
    }
}

/// A received packet with its sender and its ancillary data.
#[derive(Debug)]
#[non_exhaustive]
pub struct Message<R> {
    /// The packet.
    pub packet: R,
    /// The address of the sender.
    pub sender: Address<'static>,
    /// The ancillary data; descriptors that are not taken out are closed with it.
    pub ancillary: Ancillary,
}

/// The outcome of one attempt to receive.
pub(crate) enum Received<R> {
    /// A message.
    Message(Message<R>),
    /// Nothing was queued, or nothing arrived before the deadline.
    Nothing,
    /// A datagram from another socket than the peer; it was dropped.
    Stranger,
}

/// Locks a mutex.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Guarded values are never left inconsistent, so poisoning is ignored.
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

pub(crate) fn timed_out() -> Error {
    Error::new(
        ErrorKind::TimedOut,
        "receive",
        Subject::None,
        "no packet came in time",
    )
}

/// Returns the items of a sequence of receives. It ends when the time is over, and after an error
/// other than [`ErrorKind::Parse`].
pub(crate) fn sequence<R>(
    budget: Option<Duration>,
    receive: impl Fn(Deadline) -> Result<Option<R>>,
) -> impl Iterator<Item = Result<R>> {
    let mut left = budget;
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let start = Instant::now();
        let item = receive(Deadline::after(left)).transpose();
        left = left.map(|left| left.saturating_sub(start.elapsed()));
        over = item
            .as_ref()
            .is_some_and(|item| item.as_ref().is_err_and(ends_sequence));
        item
    })
}

/// Returns whether this error is the last item of a sequence of receives.
pub(crate) fn ends_sequence(error: &Error) -> bool {
    error.kind() != ErrorKind::Parse
}

/// Copies an eventfd, in the course of `operation`.
#[cfg(feature = "async")]
pub(crate) fn copy(event: &EventFd, operation: &'static str) -> Result<OwnedFd> {
    event.as_fd().try_clone_to_owned().map_err(|error| {
        let errno = error.raw_os_error().map_or(Errno::EMFILE, Errno::from_raw);
        Error::system(operation, Subject::None, errno)
    })
}

impl<P: DatagramProtocol> UnixDatagramEndpoint<P> {
    /// Makes an endpoint with a new socket bound to `address`; bind(2). The socket file has mode 0600, and is
    /// removed when the endpoint is closed.
    ///
    /// A stale socket file is replaced. Fails if a live socket has the address.
    pub fn bind(address: impl ToAddress, protocol: P) -> Result<Self> {
        Self::bind_with(address, BindOptions::default(), protocol)
    }

    /// Does the same as [`bind`](Self::bind) with options: the mode and the owner of the socket file, and the
    /// action if a live socket has the pathname.
    pub fn bind_with(address: impl ToAddress, options: BindOptions, protocol: P) -> Result<Self> {
        Self::bind_socket(DatagramSocket::new()?, address, options, protocol)
    }

    /// Does the same as [`bind_with`](Self::bind_with) with a given socket. Set options that add ancillary
    /// data, such as [`set_passcred`](DatagramSocket::set_passcred), before: they apply only to datagrams
    /// that arrive later.
    pub fn bind_socket(
        socket: DatagramSocket,
        address: impl ToAddress,
        options: BindOptions,
        protocol: P,
    ) -> Result<Self> {
        let binding = bind(&socket, &address.to_address()?, options)?;
        Self::with_binding(socket, binding, protocol)
    }

    /// Makes an endpoint with `socket`, which it leaves unchanged.
    pub fn new(socket: DatagramSocket, protocol: P) -> Result<Self> {
        Self::with_binding(socket, None, protocol)
    }

    pub(crate) fn with_binding(
        socket: DatagramSocket,
        binding: Option<Binding>,
        protocol: P,
    ) -> Result<Self> {
        let closed = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| Error::system("make an endpoint", Subject::None, errno))?;
        let socket = Arc::new(socket);
        Ok(Self {
            open: Mutex::new(Some(Open { socket, binding })),
            closed,
            spare: Mutex::new(None),
            protocol,
        })
    }

    /// Returns the protocol.
    pub fn protocol(&self) -> &P {
        &self.protocol
    }

    /// Returns the socket, with its options, addresses and descriptor ([`AsFd`]). After
    /// [`close`](Self::close), the descriptor stays open until the last caller drops its `Arc`. The endpoint
    /// itself has no `AsFd`, because `close` could close the descriptor while it is borrowed.
    pub fn socket(&self) -> Result<Arc<DatagramSocket>> {
        let open = locked(&self.open);
        let socket = open.as_ref().map(|open| Arc::clone(&open.socket));
        socket.ok_or_else(closed)
    }

    /// Returns the socket, and the [`Binding`] of its socket file if the endpoint has bound one. Copies the
    /// descriptor (dup(2)) if a caller still has the [`socket`](Self::socket).
    ///
    /// Fails with [`ErrorKind::Closed`] if the endpoint is closed.
    pub fn into_socket(self) -> Result<(DatagramSocket, Option<Binding>)> {
        let open = locked(&self.open).take();
        let Open { socket, binding } = open.ok_or_else(closed)?;
        let socket = Arc::try_unwrap(socket).or_else(|shared| shared.try_clone())?;
        Ok((socket, binding))
    }

    /// Returns the address that the socket is bound to.
    pub fn local_address(&self) -> Result<Address<'static>> {
        self.socket()?.local_address()
    }

    /// Closes the socket and removes the socket file. A receive or send that waits in another thread fails
    /// with [`ErrorKind::Closed`]. Does nothing if the endpoint is closed.
    pub fn close(&self) {
        let open = locked(&self.open).take();
        // The eventfd is never read, so it stays readable. A write fails only if its counter is at the
        // limit, and then it is readable, too.
        let _ = self.closed.write(1);
        drop(open);
    }

    /// Returns whether the endpoint is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        locked(&self.open).is_none()
    }

    /// Returns a copy of the descriptor that is readable after `close`.
    #[cfg(feature = "async")]
    pub(crate) fn closing(&self) -> Result<OwnedFd> {
        copy(&self.closed, "make an endpoint")
    }

    /// Adds the end by `close` to `wake`.
    pub(crate) fn wake<'w>(&'w self, wake: &Wake<'w>) -> Wake<'w> {
        Wake {
            closed: Some(self.closed.as_fd()),
            ..*wake
        }
    }

    /// Receives the next packet, waiting no longer than `timeout` (`None`: without limit).
    ///
    /// Fails with [`ErrorKind::TimedOut`], and with [`ErrorKind::Parse`] on a datagram that is not a
    /// valid packet, which is then lost.
    pub fn recv_packet(&self, timeout: Option<Duration>) -> Result<P::Received> {
        self.recv(
            Deadline::after(timeout),
            ControlSpace::NoDescriptors,
            None,
            &Wake::default(),
        )?
        .map(|message| message.packet)
        .ok_or_else(timed_out)
    }

    /// Receives the next packet with its sender and its ancillary data, for which there is a space of
    /// [`DEFAULT_CONTROL_LEN`] bytes.
    pub fn recv_message(&self, timeout: Option<Duration>) -> Result<Message<P::Received>> {
        self.recv_message_with_space(timeout, DEFAULT_CONTROL_LEN)
    }

    /// Does the same as [`recv_message`](Self::recv_message) with a space of `control_len` bytes for
    /// control data, at most [`MAX_CONTROL_LEN`](crate::ancillary::MAX_CONTROL_LEN).
    pub fn recv_message_with_space(
        &self,
        timeout: Option<Duration>,
        control_len: usize,
    ) -> Result<Message<P::Received>> {
        let space = ControlSpace::Bytes(control_len);
        self.recv(Deadline::after(timeout), space, None, &Wake::default())?
            .ok_or_else(timed_out)
    }

    /// Receives the packets that arrive within `budget`, the time for all of them together. Zero returns the
    /// packets that are queued already; `None` continues until `close`. The time between two calls of `next`
    /// does not count.
    ///
    /// The iterator ends when the time is over. A datagram that is not a valid packet is an error item
    /// ([`ErrorKind::Parse`]), and more items follow; any other error is the last item.
    pub fn iter_received_packets(
        &self,
        budget: impl Into<Option<Duration>>,
    ) -> impl Iterator<Item = Result<P::Received>> {
        sequence(budget.into(), |deadline| {
            let message = self.recv(
                deadline,
                ControlSpace::NoDescriptors,
                None,
                &Wake::default(),
            )?;
            Ok(message.map(|message| message.packet))
        })
    }

    /// Does the same as [`iter_received_packets`](Self::iter_received_packets) with whole messages: each
    /// packet with its sender and its ancillary data.
    pub fn iter_received_messages(
        &self,
        budget: impl Into<Option<Duration>>,
    ) -> impl Iterator<Item = Result<Message<P::Received>>> {
        let space = ControlSpace::Bytes(DEFAULT_CONTROL_LEN);
        sequence(budget.into(), move |deadline| {
            self.recv(deadline, space, None, &Wake::default())
        })
    }

    /// Receives the next message; `None` if the deadline passes. Fails as `wake` says. With a `peer`, drops the datagrams of other
    /// sockets.
    pub(crate) fn recv(
        &self,
        deadline: Deadline,
        space: ControlSpace,
        peer: Option<&Peer<'_>>,
        wake: &Wake<'_>,
    ) -> Result<Option<Message<P::Received>>> {
        let wake = self.wake(wake);
        loop {
            let received = self.recv_with(space, peer, |socket, batch| {
                let trim = |batch: &mut Batch| {
                    batch.trim();
                    Ok::<(), Error>(())
                };
                socket.receive(batch, 1, deadline, &wake, trim)
            })?;
            match received {
                Received::Message(message) => return Ok(Some(message)),
                Received::Nothing => return Ok(None),
                Received::Stranger => {}
            }
        }
    }

    /// Receives the next message if one is queued; does not wait.
    pub(crate) fn try_recv(
        &self,
        space: ControlSpace,
        peer: Option<&Peer<'_>>,
    ) -> Result<Received<P::Received>> {
        self.recv_with(space, peer, |socket, batch| {
            socket.try_receive(batch, 1, ReceiveMode::Remove)
        })
    }

    /// Calls `receive` with buffers, and makes a message from the datagram that it receives.
    fn recv_with(
        &self,
        space: ControlSpace,
        peer: Option<&Peer<'_>>,
        receive: impl FnOnce(&DatagramSocket, &mut Batch) -> Result<usize>,
    ) -> Result<Received<P::Received>> {
        let socket = self.socket()?;
        if let Some(peer) = peer {
            peer.check(&socket)?;
        }
        let space = space.for_carrier(self.protocol.carrier());
        let kept = locked(&self.spare).take_if(|inbox| inbox.space == space);
        let mut inbox = match kept {
            Some(inbox) => inbox,
            None => Inbox::new(&socket, space)?,
        };
        let received = receive(&socket, &mut inbox.batch)
            .and_then(|_| self.take_message(&socket, &mut inbox.batch, peer));
        if inbox.is_reusable() {
            *locked(&self.spare) = Some(inbox);
        }
        received
    }

    /// Takes the message out of `batch`.
    fn take_message(
        &self,
        socket: &DatagramSocket,
        batch: &mut Batch,
        peer: Option<&Peer<'_>>,
    ) -> Result<Received<P::Received>> {
        let Some(datagram) = batch.datagrams().next() else {
            return Ok(Received::Nothing);
        };
        let payload = datagram.payload(self.protocol.carrier());
        // Take the ancillary data out first: an early return then closes the descriptors.
        let mut ancillary = std::mem::take(datagram.ancillary);
        if let Some(peer) = peer {
            if !peer.name.has_sent(&datagram) {
                return Ok(Received::Stranger);
            }
            peer.check(socket)?;
        }
        let payload = payload.map_err(|error| refused(&datagram, error.to_string()))?;
        let packet = match &payload {
            Cow::Borrowed(_) => self.parse(&datagram)?.into(),
            Cow::Owned(contents) => {
                // The memfd is used up.
                ancillary.descriptors.clear();
                let packet = self.protocol.build_packet(contents);
                packet
                    .map_err(|error| refused(&datagram, error.to_string()))?
                    .into()
            }
        };
        Ok(Received::Message(Message {
            packet,
            sender: datagram.sender().into_owned(),
            ancillary,
        }))
    }

    /// Parses the bytes of a datagram. Fails with [`ErrorKind::Parse`] if they are not a valid packet or were
    /// truncated. Does not read a memfd; [`Datagram::payload`] does.
    pub fn parse<'d>(&self, datagram: &Datagram<'d>) -> Result<P::View<'d>> {
        if datagram.is_truncated() {
            let (whole, came) = (datagram.size, datagram.bytes.len());
            let cause = format!("it has {whole} bytes and was truncated to {came}");
            return Err(refused(datagram, cause));
        }
        self.protocol
            .build_packet(datagram.bytes)
            .map_err(|error| refused(datagram, error.to_string()))
    }

    /// Receives a batch as [`DatagramSocket::receive`] does.
    pub fn receive<E: From<Error>>(
        &self,
        batch: &mut Batch,
        max: usize,
        deadline: Deadline,
        wake: &Wake<'_>,
        idle: impl FnMut(&mut Batch) -> Result<(), E>,
    ) -> Result<usize, E> {
        self.socket()?
            .receive(batch, max, deadline, &self.wake(wake), idle)
    }

    /// Receives a batch without waiting, as [`DatagramSocket::try_receive`] does.
    pub fn try_receive(&self, batch: &mut Batch, max: usize, mode: ReceiveMode) -> Result<usize> {
        self.socket()?.try_receive(batch, max, mode)
    }

    /// Sends `packet` to `to`, waiting no longer than `timeout` for room in its queue (`None`:
    /// without limit).
    pub fn send_packet_to(
        &self,
        packet: &P::Sent,
        to: impl ToAddress,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let deadline = Deadline::after(timeout);
        let to = Destination::named(to)?;
        self.send_one(packet, Some(&to), None, deadline)
    }

    /// Does the same as [`send_packet_to`](Self::send_packet_to) with control data.
    pub fn send_packet_to_with(
        &self,
        packet: &P::Sent,
        to: impl ToAddress,
        control: &Control,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let deadline = Deadline::after(timeout);
        let to = Destination::named(to)?;
        self.send_one(packet, Some(&to), Some(control), deadline)
    }

    pub(crate) fn send_one(
        &self,
        packet: &P::Sent,
        to: Option<&Destination>,
        control: Option<&Control>,
        deadline: Deadline,
    ) -> Result<()> {
        let socket = self.socket()?;
        let bytes = self.datagram(packet)?;
        let bytes = &bytes;
        let outgoing = Outgoing { bytes, to, control };
        let wake = self.wake(&Wake::default());
        let send = |outgoing: Outgoing<'_>| {
            let sent = socket.send(&[outgoing], deadline.remaining(), &wake);
            sent.map(drop).map_err(|(_, error)| error)
        };
        send(outgoing).or_else(|error| {
            let datagram = MemfdDatagram::replacing(&outgoing, error, self.protocol.carrier())?;
            send(datagram.outgoing(to))
        })
    }

    /// Makes the datagram that carries `packet`. Fails with [`ErrorKind::Parse`] if it is not valid.
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

    /// Sends datagrams unchanged, as [`DatagramSocket::send`] does.
    pub fn send_batch(
        &self,
        messages: &[Outgoing<'_>],
        timeout: Option<Duration>,
        wake: &Wake<'_>,
    ) -> Result<SystemTime, (usize, Error)> {
        let socket = self.socket().map_err(|error| (0, error))?;
        socket.send(messages, timeout, &self.wake(wake))
    }
}

/// Makes the error of a datagram that is not a valid packet.
fn refused(datagram: &Datagram<'_>, cause: String) -> Error {
    let sender = Subject::Address(datagram.sender().into_owned());
    Error::new(ErrorKind::Parse, "read the packet of", sender, cause)
}

/// The peer that a client receives from.
pub(crate) struct Peer<'p> {
    pub(crate) address: &'p Address<'static>,
    pub(crate) name: PeerName,
}

impl Peer<'_> {
    /// Fails if the kernel has disconnected this socket because the peer has closed its own
    /// (`unix_dgram_sendmsg`): this socket then accepts datagrams from any socket.
    fn check(&self, socket: &DatagramSocket) -> Result<()> {
        match socket.peer_name()? {
            Some(_) => Ok(()),
            None => Err(peer_lost("receive from", self.address)),
        }
    }
}
