//! The asynchronous client: the same methods, awaited. It runs under any executor; the waiting is
//! done by async-io's own thread.

use crate::address::Address;
use crate::ancillary::{Control, DEFAULT_ROOM, Room};
use crate::client::{Message, UnixDatagramClient, UnixDatagramEndpoint, closed, ends_sequence};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::protocol::DatagramProtocol;
use crate::socket::{DatagramSocket, Name, Outgoing, reading_shut_down};
use crate::wait::{Deadline, Ready, Until, Wake, wait};
use async_io::{Async, Timer};
use futures_lite::{Stream, StreamExt, future, stream};
use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// [`UnixDatagramEndpoint`] with methods to await: a Unix datagram socket that speaks a protocol,
/// with or without one peer of its own.
///
/// It runs under any executor (tokio, smol, …), and changes no flag of the socket. Every method
/// takes `&self`; tasks may send, receive and [`close`](Self::close) at the same time.
///
/// What is ready at once does not yield to the executor: a task that does nothing but receive from a
/// peer faster than itself should yield at times.
///
/// No method has a timeout: the runtime's own does for all of them, for every future here may be
/// dropped at any moment. A receive that is dropped before it is ready has taken no datagram, and
/// a send that is dropped before it is ready has sent none.
///
/// Dropping the endpoint closes it.
#[derive(Debug)]
pub struct AsyncUnixDatagramEndpoint<P> {
    endpoint: UnixDatagramEndpoint<P>,
    /// Tells when the socket is ready; none once closed.
    socket: Mutex<Option<Arc<Async<Arc<DatagramSocket>>>>>,
    /// Readable once closed.
    closed: Async<OwnedFd>,
}

fn waiter<T: AsFd>(source: T) -> Result<Async<T>> {
    // Not `Async::new`, which would set O_NONBLOCK for all who share the socket.
    Async::new_nonblocking(source).map_err(|error| unwaitable(&error))
}

fn unwaitable(error: &io::Error) -> Error {
    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    Error::system("wait", Subject::None, errno)
}

/// Whether the socket is ready, and how, without waiting.
fn is_ready(socket: &DatagramSocket, until: Until) -> Result<Option<Ready>> {
    let now = Deadline::after(Some(Duration::ZERO));
    match wait(socket.as_fd(), until, now, &Wake::default()) {
        Ok(ready) => Ok(Some(ready)),
        Err(error) if error.kind() == ErrorKind::TimedOut => Ok(None),
        Err(error) => Err(error),
    }
}

impl<P: DatagramProtocol> AsyncUnixDatagramEndpoint<P> {
    /// Packets over `socket`, as it is. It needs no executor yet.
    pub fn new(socket: DatagramSocket, protocol: P) -> Result<Self> {
        UnixDatagramEndpoint::new(socket, protocol).and_then(Self::from_endpoint)
    }

    fn from_endpoint(endpoint: UnixDatagramEndpoint<P>) -> Result<Self> {
        Ok(Self {
            socket: Mutex::new(Some(Arc::new(waiter(endpoint.socket()?)?))),
            closed: waiter(endpoint.closing()?)?,
            endpoint,
        })
    }

    /// The protocol.
    pub fn protocol(&self) -> &P {
        self.endpoint.protocol()
    }

    /// The socket, for its options and addresses. It cannot be closed through this; when the
    /// client is closed, it stays open for as long as somebody holds what this gave.
    pub fn socket(&self) -> Result<Arc<DatagramSocket>> {
        self.endpoint.socket()
    }

    /// The address the socket is bound to.
    pub fn local_address(&self) -> Result<Address<'static>> {
        self.endpoint.local_address()
    }

    /// Closes the socket; it waits for nothing. Receives and sends that wait in other tasks fail with
    /// [`ErrorKind::Closed`], and so does every later call; closing again does nothing.
    pub fn close(&self) {
        self.endpoint.close();
        self.waiter().take();
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.endpoint.is_closed()
    }

    /// The next packet. [`ErrorKind::Parse`] on a datagram that is no packet, which is then gone.
    pub async fn recv_packet(&self) -> Result<P::Received> {
        let message = self.recv(Room::NoDescriptors).await;
        message.map(|message| message.packet)
    }

    /// The next packet, its sender and what came beside it, with [`DEFAULT_ROOM`] for that.
    pub async fn recv_message(&self) -> Result<Message<P::Received>> {
        self.recv(Room::Bytes(DEFAULT_ROOM)).await
    }

    /// [`recv_message`](Self::recv_message) with `room` bytes for control data.
    pub async fn recv_message_with_room(&self, room: usize) -> Result<Message<P::Received>> {
        self.recv(Room::Bytes(room)).await
    }

    /// The packets that come within `budget`, the time for all of them together; zero: those
    /// that are there already; `None`: until it is closed. What passes from asking for a packet
    /// until it comes is counted, what passes between two packets is not.
    ///
    /// The stream ends when the time is over. A datagram that is no packet is an item, an error
    /// ([`ErrorKind::Parse`]), and the next follow; any other error is the last item.
    pub fn iter_received_packets(
        &self,
        budget: impl Into<Option<Duration>>,
    ) -> impl Stream<Item = Result<P::Received>> + Unpin {
        let packets = stream::unfold(Some(budget.into()), async |left| {
            let left: Option<Duration> = left?;
            let start = Instant::now();
            let packet = match self.try_recv(Room::NoDescriptors) {
                Ok(Some(message)) => Ok(message.packet),
                Ok(None) if left == Some(Duration::ZERO) => return None,
                Ok(None) => {
                    future::or(async { Some(self.recv_packet().await) }, over(left)).await?
                }
                Err(error) => Err(error),
            };
            let ended = packet.as_ref().is_err_and(ends_sequence);
            let left = left.map(|left| left.saturating_sub(start.elapsed()));
            Some((packet, (!ended).then_some(left)))
        });
        Box::pin(packets.fuse())
    }

    /// Sends `packet` to `to`, waiting for room in its queue.
    pub async fn send_packet_to(&self, packet: &P::Sent, to: &Address<'_>) -> Result<()> {
        let to = Name::of_peer(to)?;
        self.send(packet, Some(&to), None).await
    }

    /// [`send_packet_to`](Self::send_packet_to) with descriptors or credentials beside it.
    pub async fn send_packet_to_with(
        &self,
        packet: &P::Sent,
        to: &Address<'_>,
        control: &Control,
    ) -> Result<()> {
        let to = Name::of_peer(to)?;
        self.send(packet, Some(&to), Some(control)).await
    }

    async fn recv(&self, room: Room) -> Result<Message<P::Received>> {
        let mut woken = false;
        let mut shut_down = false;
        loop {
            // Between taking a datagram and returning it, nothing is awaited.
            if let Some(message) = self.try_recv(room)? {
                return Ok(message);
            }
            if shut_down {
                return Err(reading_shut_down());
            }
            let waiter = self.open_waiter()?;
            if woken && is_ready(waiter.get_ref(), Until::Readable)? == Some(Ready::ShutDown) {
                // What was queued before is still to be read.
                shut_down = true;
                continue;
            }
            self.unless_closed(waiter.readable()).await?;
            woken = true;
        }
    }

    fn try_recv(&self, room: Room) -> Result<Option<Message<P::Received>>> {
        self.endpoint.try_recv(room)
    }

    async fn send(
        &self,
        packet: &P::Sent,
        to: Option<&Name>,
        control: Option<&Control>,
    ) -> Result<()> {
        let bytes = &self.endpoint.datagram(packet)?;
        let outgoing = Outgoing { bytes, to, control };
        loop {
            let socket = self.socket()?;
            if socket.try_send(&[outgoing])? > 0 {
                return Ok(());
            }
            let gauge = socket.gauge(&outgoing)?;
            match gauge.filter(|gauge| !matches!(is_ready(gauge, Until::Writable), Ok(Some(_)))) {
                Some(gauge) => self.unless_closed(waiter(gauge)?.writable()).await?,
                None => self.unless_closed(self.open_waiter()?.writable()).await?,
            }
        }
    }

    fn waiter(&self) -> MutexGuard<'_, Option<Arc<Async<Arc<DatagramSocket>>>>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_waiter(&self) -> Result<Arc<Async<Arc<DatagramSocket>>>> {
        self.waiter().clone().ok_or_else(closed)
    }

    async fn unless_closed(&self, ready: impl Future<Output = io::Result<()>>) -> Result<()> {
        let closing = async {
            let became = self.closed.readable().await;
            Err(became.map_or_else(|error| unwaitable(&error), |()| closed()))
        };
        let ready = async { ready.await.map_err(|error| unwaitable(&error)) };
        future::or(closing, ready).await
    }
}

async fn over<T>(left: Option<Duration>) -> Option<T> {
    match left {
        Some(left) => Timer::after(left).await,
        None => future::pending().await,
    };
    None
}

/// [`UnixDatagramClient`] with methods to await: an [`AsyncUnixDatagramEndpoint`] connected to one
/// peer, from which alone it receives. It dereferences to that, which has the receiving methods.
///
/// ```
/// use udgram::protocol::Json;
/// use udgram::{AsyncUnixDatagramClient, DatagramSocket};
///
/// # futures_lite::future::block_on(async {
/// let (ours, theirs) = DatagramSocket::pair()?;
/// let client = AsyncUnixDatagramClient::from_connected(ours, Json)?;
/// let peer = AsyncUnixDatagramClient::from_connected(theirs, Json)?;
/// client.send_packet(r#"{"data": 42}"#).await?;
/// assert_eq!(peer.recv_packet().await?, r#"{"data": 42}"#);
/// # Ok::<(), udgram::Error>(())
/// # })?;
/// # Ok::<(), udgram::Error>(())
/// ```
#[derive(Debug)]
pub struct AsyncUnixDatagramClient<P> {
    endpoint: AsyncUnixDatagramEndpoint<P>,
    peer: Address<'static>,
}

impl<P> std::ops::Deref for AsyncUnixDatagramClient<P> {
    type Target = AsyncUnixDatagramEndpoint<P>;

    fn deref(&self) -> &Self::Target {
        &self.endpoint
    }
}

impl<P: DatagramProtocol> AsyncUnixDatagramClient<P> {
    /// A client of `peer`, as [`UnixDatagramClient::connect`] makes it: connecting a datagram
    /// socket waits for nobody.
    pub fn connect(peer: &Address<'_>, protocol: P) -> Result<Self> {
        UnixDatagramClient::connect(peer, protocol).and_then(Self::from_client)
    }

    /// A client over a socket that is connected already, as
    /// [`UnixDatagramClient::from_connected`] makes it.
    pub fn from_connected(socket: impl Into<OwnedFd>, protocol: P) -> Result<Self> {
        UnixDatagramClient::from_connected(socket, protocol).and_then(Self::from_client)
    }

    fn from_client(client: UnixDatagramClient<P>) -> Result<Self> {
        let (endpoint, peer) = client.into_parts();
        Ok(Self {
            endpoint: AsyncUnixDatagramEndpoint::from_endpoint(endpoint)?,
            peer,
        })
    }

    /// The peer's address, as it was when the client was made.
    pub fn peer_address(&self) -> &Address<'static> {
        &self.peer
    }

    /// Sends `packet` to the peer, waiting for room in its queue.
    pub async fn send_packet(&self, packet: &P::Sent) -> Result<()> {
        self.endpoint.send(packet, None, None).await
    }

    /// [`send_packet`](Self::send_packet) with descriptors or credentials beside it.
    pub async fn send_packet_with(&self, packet: &P::Sent, control: &Control) -> Result<()> {
        self.endpoint.send(packet, None, Some(control)).await
    }
}
