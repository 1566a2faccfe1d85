//! Packets exchanged with one peer.

use crate::address::{Address, ToAddress};
use crate::ancillary::{Control, ControlSpace, DEFAULT_CONTROL_LEN};
use crate::binding::{BindOptions, Binding, bind};
use crate::diagnose::peer_lost;
use crate::endpoint::{Message, Peer, Received, UnixDatagramEndpoint, locked, sequence, timed_out};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::outgoing::Destination;
use crate::protocol::DatagramProtocol;
use crate::question::{PEER_CHECK_INTERVAL, Question, unread};
use crate::socket::DatagramSocket;
use crate::wait::{Deadline, Wake};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A client: exchanges packets with one peer, and receives from no other socket.
///
/// Every method takes `&self`; threads may send, receive and [`close`](Self::close) at the same time,
/// as with a [`UnixDatagramEndpoint`]. When the peer's socket is closed, sending and receiving fail
/// with [`ErrorKind::NobodyThere`] until [`reconnect`](Self::reconnect) succeeds: until then nothing is
/// received from other sockets.
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
    address: Address<'static>,
    destination: Mutex<Arc<Destination>>,
}

impl<P: DatagramProtocol> UnixDatagramClient<P> {
    /// Makes a client of `peer`, with an abstract name that the kernel chooses, so that the peer can
    /// answer.
    ///
    /// Fails with [`ErrorKind::NobodyThere`] if there is no such socket.
    pub fn connect(peer: impl ToAddress, protocol: P) -> Result<Self> {
        let (socket, destination) = connected(peer)?;
        socket.autobind()?;
        Self::new(socket, None, destination, protocol)
    }

    /// Makes a client of `peer` that is bound to `local`, which the peer may recognise or be permitted to
    /// answer. The socket file has mode 0600 and is removed when the client is closed.
    pub fn connect_from(local: impl ToAddress, peer: impl ToAddress, protocol: P) -> Result<Self> {
        Self::connect_from_with(local, BindOptions::default(), peer, protocol)
    }

    /// Does the same as [`connect_from`](Self::connect_from) with options for the socket file: a peer of
    /// another user needs write permission on it to answer.
    pub fn connect_from_with(
        local: impl ToAddress,
        options: BindOptions,
        peer: impl ToAddress,
        protocol: P,
    ) -> Result<Self> {
        let local = local.to_address()?;
        let (socket, destination) = connected(peer)?;
        let binding = bind(&socket, &local, options)?;
        Self::new(socket, binding, destination, protocol)
    }

    /// Makes a client of a socket that is connected already, and owns it: it is closed with the client,
    /// or at once if this fails. It may be unnamed, such as either end of a socketpair(2).
    ///
    /// Fails with [`ErrorKind::Unusable`] if it is not a socket, not `AF_UNIX`, not `SOCK_DGRAM` or not
    /// connected.
    pub fn from_connected(socket: impl Into<OwnedFd>, protocol: P) -> Result<Self> {
        let socket = DatagramSocket::from_fd(socket)?;
        let Some(name) = socket.peer_name()? else {
            return Err(Error::new(
                ErrorKind::Unusable,
                "use the socket",
                Subject::None,
                "it is not connected",
            ));
        };
        Self::new(socket, None, Destination::found(name), protocol)
    }

    fn new(
        socket: DatagramSocket,
        binding: Option<Binding>,
        destination: Destination,
        protocol: P,
    ) -> Result<Self> {
        Ok(Self {
            endpoint: UnixDatagramEndpoint::with_binding(socket, binding, protocol)?,
            address: destination.address().clone(),
            destination: Mutex::new(Arc::new(destination)),
        })
    }

    #[cfg(feature = "async")]
    pub(crate) fn endpoint(&self) -> &UnixDatagramEndpoint<P> {
        &self.endpoint
    }

    pub(crate) fn destination(&self) -> Arc<Destination> {
        Arc::clone(&locked(&self.destination))
    }

    /// Returns the peer to receive from.
    fn peer(&self) -> Result<Peer<'_>> {
        let name = self.destination().peer_name();
        let address = &self.address;
        let name = name.ok_or_else(|| peer_lost("receive from", address))?;
        Ok(Peer { address, name })
    }

    /// Connects again to the peer's address, after the peer has closed its socket: to the socket that is
    /// bound to it now.
    ///
    /// Fails with [`ErrorKind::NobodyThere`] if there is none, or if the peer cannot be found again
    /// ([`Destination::can_be_found`]).
    pub fn reconnect(&self) -> Result<()> {
        let socket = self.socket()?;
        let mut destination = locked(&self.destination);
        let mut renewed = destination.again();
        socket.establish(&mut renewed)?;
        *destination = Arc::new(renewed);
        Ok(())
    }

    /// Returns the peer's address, as it was when the client was made.
    pub fn peer_address(&self) -> &Address<'static> {
        &self.address
    }

    /// Returns the address that the socket is bound to.
    pub fn local_address(&self) -> Result<Address<'static>> {
        self.endpoint.local_address()
    }

    /// Returns the protocol.
    pub fn protocol(&self) -> &P {
        self.endpoint.protocol()
    }

    /// Returns the socket, as [`UnixDatagramEndpoint::socket`] does.
    pub fn socket(&self) -> Result<Arc<DatagramSocket>> {
        self.endpoint.socket()
    }

    /// Returns the socket and its [`Binding`], as [`UnixDatagramEndpoint::into_socket`] does.
    pub fn into_socket(self) -> Result<(DatagramSocket, Option<Binding>)> {
        self.endpoint.into_socket()
    }

    /// Closes the socket, as [`UnixDatagramEndpoint::close`] does.
    pub fn close(&self) {
        self.endpoint.close();
    }

    /// Returns whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.endpoint.is_closed()
    }

    /// Receives the peer's next packet, waiting no longer than `timeout` (`None`: without limit).
    ///
    /// Fails with [`ErrorKind::TimedOut`], with [`ErrorKind::Parse`] on a datagram that is not a valid
    /// packet, which is then lost, and with [`ErrorKind::NobodyThere`] if a send has found the peer's
    /// socket closed.
    pub fn recv_packet(&self, timeout: Option<Duration>) -> Result<P::Received> {
        self.recv(Deadline::after(timeout), ControlSpace::NoDescriptors)?
            .map(|message| message.packet)
            .ok_or_else(timed_out)
    }

    /// Receives the peer's next packet with its ancillary data, for which there is a space of
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
        self.recv(Deadline::after(timeout), space)?
            .ok_or_else(timed_out)
    }

    /// Receives the packets that arrive within `budget`, as
    /// [`UnixDatagramEndpoint::iter_received_packets`] does.
    pub fn iter_received_packets(
        &self,
        budget: impl Into<Option<Duration>>,
    ) -> impl Iterator<Item = Result<P::Received>> {
        sequence(budget.into(), |deadline| {
            let message = self.recv(deadline, ControlSpace::NoDescriptors)?;
            Ok(message.map(|message| message.packet))
        })
    }

    /// Receives the messages that arrive within `budget`, as
    /// [`UnixDatagramEndpoint::iter_received_messages`] does.
    pub fn iter_received_messages(
        &self,
        budget: impl Into<Option<Duration>>,
    ) -> impl Iterator<Item = Result<Message<P::Received>>> {
        let space = ControlSpace::Bytes(DEFAULT_CONTROL_LEN);
        sequence(budget.into(), move |deadline| self.recv(deadline, space))
    }

    fn recv(
        &self,
        deadline: Deadline,
        space: ControlSpace,
    ) -> Result<Option<Message<P::Received>>> {
        // A closed client fails with `Closed`, whatever its peer.
        self.endpoint.socket()?;
        let peer = self.peer()?;
        self.endpoint
            .recv(deadline, space, Some(&peer), &Wake::default())
    }

    /// Receives the next message if one is queued; does not wait.
    pub(crate) fn try_recv(&self, space: ControlSpace) -> Result<Received<P::Received>> {
        self.endpoint.socket()?;
        self.endpoint.try_recv(space, Some(&self.peer()?))
    }

    /// Sends `packet` to the peer, waiting no longer than `timeout` for room in its queue
    /// (`None`: without limit).
    pub fn send_packet(&self, packet: &P::Sent, timeout: Option<Duration>) -> Result<()> {
        self.send(packet, None, Deadline::after(timeout))
    }

    /// Does the same as [`send_packet`](Self::send_packet) with control data.
    pub fn send_packet_with(
        &self,
        packet: &P::Sent,
        control: &Control,
        timeout: Option<Duration>,
    ) -> Result<()> {
        self.send(packet, Some(control), Deadline::after(timeout))
    }

    fn send(&self, packet: &P::Sent, control: Option<&Control>, deadline: Deadline) -> Result<()> {
        let peer = self.destination();
        self.endpoint
            .send_one(packet, Some(&peer), control, deadline)
    }

    /// Sends `packet` and receives the peer's answer, both within `timeout` (`None`: without limit).
    ///
    /// The answer is the first packet that arrives after the question. Packets that were queued before
    /// it are dropped: the late answer to an earlier question is not taken for this one's. A client asks
    /// one question at a time: with questions in several threads, or other receives meanwhile, either
    /// may get the other's answer.
    ///
    /// Fails with [`ErrorKind::TimedOut`], with [`ErrorKind::Parse`] if the question or the answer is
    /// not a valid packet, and with [`ErrorKind::NobodyThere`] if the peer closes its socket without
    /// an answer.
    ///
    /// ```
    /// use std::time::Duration;
    /// use udgram::protocol::Text;
    /// use udgram::{DatagramSocket, UnixDatagramClient};
    ///
    /// # let (ours, theirs) = DatagramSocket::pair()?;
    /// # let client = UnixDatagramClient::from_connected(ours, Text)?;
    /// # let peer = UnixDatagramClient::from_connected(theirs, Text)?;
    /// # std::thread::scope(|scope| {
    /// # scope.spawn(|| {
    /// #     assert_eq!(peer.recv_packet(None).unwrap(), "ping");
    /// #     peer.send_packet("pong", None).unwrap();
    /// # });
    /// let answer = client.request("ping", Some(Duration::from_secs(10)))?;
    /// assert_eq!(answer, "pong");
    /// # Ok::<(), udgram::Error>(())
    /// # })?;
    /// # Ok::<(), udgram::Error>(())
    /// ```
    pub fn request(&self, packet: &P::Sent, timeout: Option<Duration>) -> Result<P::Received> {
        let space = ControlSpace::NoDescriptors;
        let answer = self.ask(packet, None, space, Deadline::after(timeout))?;
        Ok(answer.packet)
    }

    /// Does the same as [`request`](Self::request) with control data for the question. Returns the
    /// answer with its ancillary data.
    pub fn request_message(
        &self,
        packet: &P::Sent,
        control: &Control,
        timeout: Option<Duration>,
    ) -> Result<Message<P::Received>> {
        let space = ControlSpace::Bytes(DEFAULT_CONTROL_LEN);
        self.ask(packet, Some(control), space, Deadline::after(timeout))
    }

    fn ask(
        &self,
        packet: &P::Sent,
        control: Option<&Control>,
        space: ControlSpace,
        deadline: Deadline,
    ) -> Result<Message<P::Received>> {
        let socket = self.socket()?;
        while self.drop_queued()? {
            if deadline.passed() {
                return Err(timed_out());
            }
        }
        let before = unread(&socket);
        self.send(packet, control, deadline)?;
        let question = Question::sent(&socket, before);
        let mut gone = false;
        loop {
            let until = if gone {
                Deadline::after(Some(Duration::ZERO))
            } else {
                deadline.or_after(PEER_CHECK_INTERVAL)
            };
            match self.recv(until, space).transpose() {
                // It was sent before the question could be read.
                Some(received) if is_packet(&received) && question.is_unread(&socket) => {}
                Some(received) => return received,
                None if gone => return Err(peer_lost("receive from", &self.address)),
                None if deadline.passed() => return Err(timed_out()),
                // The peer may have answered before it closed its socket: receive once more.
                None => gone = socket.peer_is_closed(),
            }
        }
    }

    /// Drops a datagram that is queued. Returns whether there was one.
    pub(crate) fn drop_queued(&self) -> Result<bool> {
        match self.try_recv(ControlSpace::NoDescriptors) {
            Ok(Received::Nothing) => Ok(false),
            Err(error) if error.kind() != ErrorKind::Parse => Err(error),
            _ => Ok(true),
        }
    }
}

/// Returns whether a datagram of the peer was received, valid or not.
pub(crate) fn is_packet<R>(received: &Result<R>) -> bool {
    received
        .as_ref()
        .err()
        .is_none_or(|error| error.kind() == ErrorKind::Parse)
}

/// Makes a socket that is connected to `peer`. It is connected before it is bound, so that no other
/// socket's datagram is queued.
fn connected(peer: impl ToAddress) -> Result<(DatagramSocket, Destination)> {
    let socket = DatagramSocket::new()?;
    let mut destination = Destination::connected(&peer.to_address()?);
    socket.establish(&mut destination)?;
    Ok((socket, destination))
}
