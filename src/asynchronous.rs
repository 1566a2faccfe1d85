//! The asynchronous client: the same methods, awaited. It runs under any executor; async-io's own
//! thread waits.

use crate::address::Address;
use crate::ancillary::{Control, ControlSpace, DEFAULT_CONTROL_LEN};
use crate::client::UnixDatagramClient;
use crate::endpoint::{Message, Received, UnixDatagramEndpoint, closed, ends_sequence, locked};
use crate::error::{Error, Result, Subject};
use crate::outgoing::{Destination, Outgoing};
use crate::protocol::DatagramProtocol;
use crate::socket::{DatagramSocket, reading_shut_down};
use crate::wait::{Deadline, Ready, Until, Wake, wait};
use async_io::{Async, Timer};
use futures_lite::{Stream, StreamExt, future, stream};
use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The first and the longest interval at which a send is tried again that no event announces.
const RETRY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Tells when a socket is ready, or closed.
#[derive(Debug)]
struct Readiness {
    /// None once closed.
    socket: Mutex<Option<Arc<Async<Arc<DatagramSocket>>>>>,
    /// Readable once closed.
    closed: Async<OwnedFd>,
}

impl Readiness {
    fn of<P: DatagramProtocol>(endpoint: &UnixDatagramEndpoint<P>) -> Result<Self> {
        Ok(Self {
            socket: Mutex::new(Some(Arc::new(waiter(endpoint.socket()?)?))),
            closed: waiter(endpoint.closing()?)?,
        })
    }

    fn close(&self) {
        locked(&self.socket).take();
    }

    fn open(&self) -> Result<Arc<Async<Arc<DatagramSocket>>>> {
        locked(&self.socket).clone().ok_or_else(closed)
    }

    async fn unless_closed(&self, ready: impl Future<Output = io::Result<()>>) -> Result<()> {
        let closing = async {
            let became = self.closed.readable().await;
            Err(became.map_or_else(|error| unwaitable(&error), |()| closed()))
        };
        let ready = async { ready.await.map_err(|error| unwaitable(&error)) };
        future::or(closing, ready).await
    }

    /// Receives the next message, waiting for it.
    async fn recv<R>(&self, try_recv: impl Fn() -> Result<Received<R>>) -> Result<Message<R>> {
        let mut woken = false;
        let mut shut_down = false;
        loop {
            // Between taking a datagram and returning it, nothing is awaited.
            match try_recv()? {
                Received::Message(message) => return Ok(message),
                Received::Stranger => continue,
                Received::Nothing if shut_down => return Err(reading_shut_down()),
                Received::Nothing => {}
            }
            let waiter = self.open()?;
            if woken && is_ready(waiter.get_ref(), Until::Readable)? == Some(Ready::ShutDown) {
                // What was queued before is still to be read.
                shut_down = true;
                continue;
            }
            self.unless_closed(waiter.readable()).await?;
            woken = true;
        }
    }

    /// Returns the items of [`AsyncUnixDatagramEndpoint::iter_received_packets`].
    fn sequence<'s, R>(
        &'s self,
        budget: Option<Duration>,
        try_recv: impl Fn() -> Result<Received<R>> + 's,
    ) -> impl Stream<Item = Result<R>> + Unpin + 's
    where
        R: 's,
    {
        let packets = stream::unfold(Some((budget, try_recv)), move |state| async move {
            let (left, try_recv) = state?;
            let start = Instant::now();
            // A stranger's datagram is dropped, and the next one may be the peer's.
            let first = loop {
                match try_recv() {
                    Ok(Received::Stranger) => {}
                    received => break received,
                }
            };
            let packet = match first {
                Ok(Received::Message(message)) => Ok(message.packet),
                Ok(_) if left == Some(Duration::ZERO) => return None,
                Ok(_) => {
                    let next = async { Some(self.recv(&try_recv).await) };
                    future::or(next, over(left))
                        .await?
                        .map(|message| message.packet)
                }
                Err(error) => Err(error),
            };
            let ended = packet.as_ref().is_err_and(ends_sequence);
            let left = left.map(|left| left.saturating_sub(start.elapsed()));
            Some((packet, (!ended).then_some((left, try_recv))))
        });
        Box::pin(packets.fuse())
    }

    /// Sends one datagram, waiting for room.
    async fn send(&self, outgoing: Outgoing<'_>) -> Result<()> {
        let mut interval = RETRY.0;
        loop {
            let waiter = self.open()?;
            let socket = waiter.get_ref();
            if socket.try_send(&[outgoing])? > 0 {
                return Ok(());
            }
            let probe = socket.probe(&outgoing)?;
            let soon = async {
                Timer::after(interval).await;
                Ok(())
            };
            match probe {
                Some(probe) if is_ready(&probe, Until::Writable)?.is_none() => {
                    let probe = self::waiter(probe)?;
                    self.unless_closed(future::or(probe.writable(), soon))
                        .await?;
                }
                _ if is_ready(socket, Until::Writable)?.is_none() => {
                    self.unless_closed(future::or(waiter.writable(), soon))
                        .await?;
                }
                // No event announces the room: too many descriptors are in flight.
                _ => self.unless_closed(soon).await?,
            }
            interval = (interval * 2).min(RETRY.1);
        }
    }
}

fn waiter<T: AsFd>(source: T) -> Result<Async<T>> {
    // Not `Async::new`, which would set O_NONBLOCK for all who share the socket.
    Async::new_nonblocking(source).map_err(|error| unwaitable(&error))
}

fn unwaitable(error: &io::Error) -> Error {
    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    Error::system("wait", Subject::None, errno)
}

async fn over<T>(left: Option<Duration>) -> Option<T> {
    match left {
        Some(left) => Timer::after(left).await,
        None => future::pending().await,
    };
    None
}

/// Returns whether the socket is ready, and how, without waiting.
fn is_ready(socket: &DatagramSocket, until: Until) -> Result<Option<Ready>> {
    let now = Deadline::after(Some(Duration::ZERO));
    wait(socket, until, now, &Wake::default())
}

/// [`UnixDatagramEndpoint`] with methods to await: a Unix datagram socket that speaks a protocol,
/// without one peer of its own.
///
/// It runs under any executor (tokio, smol, …), and changes no flag of the socket. Every method
/// takes `&self`; tasks may send, receive and [`close`](Self::close) at the same time.
///
/// A call that is ready at once does not yield to the executor: a task that only receives, from a
/// peer faster than itself, should yield at times.
///
/// No method has a timeout: use the runtime's own. Every future here may be dropped at any moment. A
/// receive that is dropped before it is ready has taken no datagram, and a send that is dropped
/// before it is ready has sent none.
///
/// Dropping the endpoint closes it.
#[derive(Debug)]
pub struct AsyncUnixDatagramEndpoint<P> {
    endpoint: UnixDatagramEndpoint<P>,
    readiness: Readiness,
}

impl<P: DatagramProtocol> AsyncUnixDatagramEndpoint<P> {
    /// Makes an endpoint of `socket`, which stays as it is. It needs no executor yet.
    pub fn new(socket: DatagramSocket, protocol: P) -> Result<Self> {
        let endpoint = UnixDatagramEndpoint::new(socket, protocol)?;
        let readiness = Readiness::of(&endpoint)?;
        Ok(Self {
            endpoint,
            readiness,
        })
    }

    /// Returns the protocol.
    pub fn protocol(&self) -> &P {
        self.endpoint.protocol()
    }

    /// Returns the socket, as [`UnixDatagramEndpoint::socket`] does.
    pub fn socket(&self) -> Result<Arc<DatagramSocket>> {
        self.endpoint.socket()
    }

    /// Returns the address that the socket is bound to.
    pub fn local_address(&self) -> Result<Address<'static>> {
        self.endpoint.local_address()
    }

    /// Closes the socket; does not wait. Receives and sends that wait in other tasks fail with
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed), and so does every later call; closing again
    /// does nothing.
    pub fn close(&self) {
        self.endpoint.close();
        self.readiness.close();
    }

    /// Returns whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.endpoint.is_closed()
    }

    /// Receives the next packet. [`ErrorKind::Parse`](crate::ErrorKind::Parse) on a datagram that is
    /// not a valid packet, which is then gone.
    pub async fn recv_packet(&self) -> Result<P::Received> {
        let message = self.recv(ControlSpace::NoDescriptors).await;
        message.map(|message| message.packet)
    }

    /// Receives the next packet with its sender and its ancillary data, for which there is a space of
    /// [`DEFAULT_CONTROL_LEN`] bytes.
    pub async fn recv_message(&self) -> Result<Message<P::Received>> {
        self.recv(ControlSpace::Bytes(DEFAULT_CONTROL_LEN)).await
    }

    /// Does the same as [`recv_message`](Self::recv_message) with a space of `control_len` bytes for
    /// control data.
    pub async fn recv_message_with_space(
        &self,
        control_len: usize,
    ) -> Result<Message<P::Received>> {
        self.recv(ControlSpace::Bytes(control_len)).await
    }

    /// Receives the packets that come within `budget`, the time for all of them together. Zero:
    /// those that are there already; `None`: until it is closed. The time from asking for a packet
    /// until it comes counts; the time between two packets does not.
    ///
    /// The stream ends when the time is over. A datagram that is not a valid packet is an item, an
    /// error ([`ErrorKind::Parse`](crate::ErrorKind::Parse)), and the next follow; any other error is
    /// the last item.
    pub fn iter_received_packets(
        &self,
        budget: impl Into<Option<Duration>>,
    ) -> impl Stream<Item = Result<P::Received>> + Unpin {
        self.readiness.sequence(budget.into(), || {
            self.endpoint.try_recv(ControlSpace::NoDescriptors, None)
        })
    }

    /// Sends `packet` to `to`, waiting for room in its queue.
    pub async fn send_packet_to(&self, packet: &P::Sent, to: &Address<'_>) -> Result<()> {
        self.send(packet, to, None).await
    }

    /// Does the same as [`send_packet_to`](Self::send_packet_to) with control data.
    pub async fn send_packet_to_with(
        &self,
        packet: &P::Sent,
        to: &Address<'_>,
        control: &Control,
    ) -> Result<()> {
        self.send(packet, to, Some(control)).await
    }

    async fn recv(&self, space: ControlSpace) -> Result<Message<P::Received>> {
        self.readiness
            .recv(|| self.endpoint.try_recv(space, None))
            .await
    }

    async fn send(
        &self,
        packet: &P::Sent,
        to: &Address<'_>,
        control: Option<&Control>,
    ) -> Result<()> {
        let to = Destination::named(to)?;
        let bytes = &self.endpoint.datagram(packet)?;
        let to = Some(&to);
        self.readiness.send(Outgoing { bytes, to, control }).await
    }
}

/// [`UnixDatagramClient`] with methods to await: packets exchanged with one peer, from which alone it
/// receives.
///
/// It runs under any executor, as [`AsyncUnixDatagramEndpoint`] does, and its futures may be dropped
/// in the same way.
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
    client: UnixDatagramClient<P>,
    readiness: Readiness,
}

impl<P: DatagramProtocol> AsyncUnixDatagramClient<P> {
    /// Makes a client of `peer`, as [`UnixDatagramClient::connect`] does: connecting a datagram
    /// socket does not wait.
    pub fn connect(peer: &Address<'_>, protocol: P) -> Result<Self> {
        UnixDatagramClient::connect(peer, protocol).and_then(Self::from_client)
    }

    /// Makes a client of a socket that is connected already, as
    /// [`UnixDatagramClient::from_connected`] does.
    pub fn from_connected(socket: impl Into<OwnedFd>, protocol: P) -> Result<Self> {
        UnixDatagramClient::from_connected(socket, protocol).and_then(Self::from_client)
    }

    fn from_client(client: UnixDatagramClient<P>) -> Result<Self> {
        let readiness = Readiness::of(client.endpoint())?;
        Ok(Self { client, readiness })
    }

    /// Connects to the peer's address again, as [`UnixDatagramClient::reconnect`] does.
    pub fn reconnect(&self) -> Result<()> {
        self.client.reconnect()
    }

    /// Returns the peer's address, as it was when the client was made.
    pub fn peer_address(&self) -> &Address<'static> {
        self.client.peer_address()
    }

    /// Returns the address that the socket is bound to.
    pub fn local_address(&self) -> Result<Address<'static>> {
        self.client.local_address()
    }

    /// Returns the protocol.
    pub fn protocol(&self) -> &P {
        self.client.protocol()
    }

    /// Returns the socket, as [`UnixDatagramEndpoint::socket`] does.
    pub fn socket(&self) -> Result<Arc<DatagramSocket>> {
        self.client.socket()
    }

    /// Closes the socket, as [`AsyncUnixDatagramEndpoint::close`] does.
    pub fn close(&self) {
        self.client.close();
        self.readiness.close();
    }

    /// Returns whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Receives the peer's next packet. [`ErrorKind::Parse`](crate::ErrorKind::Parse) on a datagram
    /// that is not a valid packet, which is then gone.
    pub async fn recv_packet(&self) -> Result<P::Received> {
        let message = self.recv(ControlSpace::NoDescriptors).await;
        message.map(|message| message.packet)
    }

    /// Receives the peer's next packet with its ancillary data, for which there is a space of
    /// [`DEFAULT_CONTROL_LEN`] bytes.
    pub async fn recv_message(&self) -> Result<Message<P::Received>> {
        self.recv(ControlSpace::Bytes(DEFAULT_CONTROL_LEN)).await
    }

    /// Does the same as [`recv_message`](Self::recv_message) with a space of `control_len` bytes for
    /// control data.
    pub async fn recv_message_with_space(
        &self,
        control_len: usize,
    ) -> Result<Message<P::Received>> {
        self.recv(ControlSpace::Bytes(control_len)).await
    }

    /// Receives the packets that come within `budget`, as
    /// [`AsyncUnixDatagramEndpoint::iter_received_packets`] does.
    pub fn iter_received_packets(
        &self,
        budget: impl Into<Option<Duration>>,
    ) -> impl Stream<Item = Result<P::Received>> + Unpin {
        self.readiness.sequence(budget.into(), || {
            self.client.try_recv(ControlSpace::NoDescriptors)
        })
    }

    /// Sends `packet` to the peer, waiting for room in its queue.
    pub async fn send_packet(&self, packet: &P::Sent) -> Result<()> {
        self.send(packet, None).await
    }

    /// Does the same as [`send_packet`](Self::send_packet) with control data.
    pub async fn send_packet_with(&self, packet: &P::Sent, control: &Control) -> Result<()> {
        self.send(packet, Some(control)).await
    }

    async fn recv(&self, space: ControlSpace) -> Result<Message<P::Received>> {
        self.readiness.recv(|| self.client.try_recv(space)).await
    }

    async fn send(&self, packet: &P::Sent, control: Option<&Control>) -> Result<()> {
        let bytes = &self.client.endpoint().datagram(packet)?;
        let peer = self.client.destination();
        let to = Some(&*peer);
        self.readiness.send(Outgoing { bytes, to, control }).await
    }
}
