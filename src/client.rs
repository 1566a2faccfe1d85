//! Packets exchanged with one peer.

use crate::address::Address;
use crate::ancillary::{Control, ControlSpace, DEFAULT_CONTROL_LEN};
use crate::diagnose::peer_lost;
#[cfg(feature = "async")]
use crate::endpoint::Received;
use crate::endpoint::{Message, Peer, UnixDatagramEndpoint, locked, sequence, timed_out};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::outgoing::Destination;
use crate::protocol::DatagramProtocol;
use crate::socket::DatagramSocket;
use crate::wait::Deadline;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A client: packets exchanged with one peer, from which alone it receives.
///
/// Every method takes `&self`; threads may send, receive and [`close`](Self::close) at the same time,
/// as with a [`UnixDatagramEndpoint`]. When the peer's socket is closed, sending and receiving fail
/// with [`ErrorKind::NobodyThere`] until [`reconnect`](Self::reconnect) succeeds: nothing is taken
/// from anybody else meanwhile.
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
    /// Makes a client of `peer`, with an abstract name of the kernel's choosing so that the peer can
    /// answer. Fails with [`ErrorKind::NobodyThere`] if there is no such socket.
    pub fn connect(peer: &Address<'_>, protocol: P) -> Result<Self> {
        let socket = DatagramSocket::new()?;
        let mut destination = Destination::connected(peer);
        // Connected before it has a name: nobody else's datagram gets in.
        socket.establish(&mut destination)?;
        socket.autobind()?;
        Self::new(socket, destination, protocol)
    }

    /// Makes a client of a socket that is connected already, which it owns from now on: it is closed
    /// with the client, or at once if this fails. It may be unnamed, such as either end of a
    /// socketpair(2).
    ///
    /// [`ErrorKind::Unusable`] if it is not a socket, not `AF_UNIX`, not `SOCK_DGRAM` or not
    /// connected: the message says which.
    pub fn from_connected(socket: impl Into<OwnedFd>, protocol: P) -> Result<Self> {
        let socket = DatagramSocket::from_fd(socket.into())?;
        let Some(name) = socket.peer_name()? else {
            return Err(Error::new(
                ErrorKind::Unusable,
                "use the socket",
                Subject::None,
                "it is not connected",
            ));
        };
        Self::new(socket, Destination::found(name), protocol)
    }

    fn new(socket: DatagramSocket, destination: Destination, protocol: P) -> Result<Self> {
        Ok(Self {
            endpoint: UnixDatagramEndpoint::new(socket, protocol)?,
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

    /// Returns the peer that datagrams are taken of.
    fn peer(&self) -> Result<Peer<'_>> {
        let name = self.destination().peer_name();
        let address = &self.address;
        let name = name.ok_or_else(|| peer_lost("receive from", address))?;
        Ok(Peer { address, name })
    }

    /// Connects to the peer's address again, after its socket was closed: to the socket that has the
    /// address now.
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
    /// packet, which is then gone, and with [`ErrorKind::NobodyThere`] when the peer is found gone.
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
    /// control data.
    pub fn recv_message_with_space(
        &self,
        timeout: Option<Duration>,
        control_len: usize,
    ) -> Result<Message<P::Received>> {
        let space = ControlSpace::Bytes(control_len);
        self.recv(Deadline::after(timeout), space)?
            .ok_or_else(timed_out)
    }

    /// Receives the packets that come within `budget`, as
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

    fn recv(
        &self,
        deadline: Deadline,
        space: ControlSpace,
    ) -> Result<Option<Message<P::Received>>> {
        // A closed client says that it is closed.
        self.endpoint.socket()?;
        self.endpoint.recv(deadline, space, Some(&self.peer()?))
    }

    /// Receives the next message if it is there already; does not wait.
    #[cfg(feature = "async")]
    pub(crate) fn try_recv(&self, space: ControlSpace) -> Result<Received<P::Received>> {
        self.endpoint.socket()?;
        self.endpoint.try_recv(space, Some(&self.peer()?))
    }

    /// Sends `packet` to the peer, waiting no longer than `timeout` for room in its queue
    /// (`None`: without limit).
    pub fn send_packet(&self, packet: &P::Sent, timeout: Option<Duration>) -> Result<()> {
        let deadline = Deadline::after(timeout);
        let peer = self.destination();
        self.endpoint.send_one(packet, Some(&peer), None, deadline)
    }

    /// Does the same as [`send_packet`](Self::send_packet) with control data.
    pub fn send_packet_with(
        &self,
        packet: &P::Sent,
        control: &Control,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let deadline = Deadline::after(timeout);
        let peer = self.destination();
        self.endpoint
            .send_one(packet, Some(&peer), Some(control), deadline)
    }
}
