//! The asynchronous client, endpoint and server: the same methods to await. They run under any executor; the
//! thread of async-io waits.

mod server;

pub use server::AsyncUnixDatagramServer;

use crate::address::{Address, ToAddress};
use crate::ancillary::{Control, ControlSpace, DEFAULT_CONTROL_LEN};
use crate::binding::{BindOptions, Binding};
use crate::client::{UnixDatagramClient, is_packet};
use crate::diagnose::peer_lost;
use crate::endpoint::{Message, Received, UnixDatagramEndpoint, closed, ends_sequence, locked};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result, Subject};
use crate::outgoing::{Destination, MemfdDatagram, Outgoing};
use crate::protocol::{Carrier, DatagramProtocol};
use crate::question::{PEER_CHECK_INTERVAL, Question, unread};
use crate::socket::{DatagramSocket, reading_shut_down};
use crate::wait::{Deadline, Ready, Until, Wake, wait};
use async_io::{Async, Timer};
use futures_lite::{Stream, StreamExt, future, stream};
use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The first and the longest interval at which a send is repeated if no event announces room.
const RETRY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Waits until a socket is ready, or closed.
#[derive(Debug)]
struct Readiness {
    /// `None` once closed.
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
                // Datagrams queued before the shutdown can still be read.
                shut_down = true;
                continue;
            }
            self.unless_closed(waiter.readable()).await?;
            woken = true;
        }
    }

    /// Returns the items of [`AsyncUnixDatagramEndpoint::iter_received_messages`].
    fn sequence<'s, R>(
        &'s self,
        budget: Option<Duration>,
        try_recv: impl Fn() -> Result<Received<R>> + 's,
    ) -> impl Stream<Item = Result<Message<R>>> + Unpin + 's
    where
        R: 's,
    {
        let messages = stream::unfold(Some((budget, try_recv)), move |state| async move {
            let (left, try_recv) = state?;
            let start = Instant::now();
            // A stranger's datagram is dropped, and the next one may be the peer's.
            let first = loop {
                match try_recv() {
                    Ok(Received::Stranger) => {}
                    received => break received,
                }
            };
            let message = match first {
                Ok(Received::Message(message)) => Ok(message),
                Ok(_) if left == Some(Duration::ZERO) => return None,
                Ok(_) => {
                    let next = async { Some(self.recv(&try_recv).await) };
                    future::or(next, over(left)).await?
                }
                Err(error) => Err(error),
            };
            let ended = message.as_ref().is_err_and(ends_sequence);
            let left = left.map(|left| left.saturating_sub(start.elapsed()));
            Some((message, (!ended).then_some((left, try_recv))))
        });
        Box::pin(messages.fuse())
    }

    /// Sends one datagram, waiting for room; in a memfd if it is too long and the carrier permits that.
    async fn send(&self, outgoing: Outgoing<'_>, carrier: Carrier) -> Result<()> {
        let Err(error) = self.send_datagram(outgoing).await else {
            return Ok(());
        };
        let datagram = MemfdDatagram::replacing(&outgoing, error, carrier)?;
        self.send_datagram(datagram.outgoing(outgoing.to)).await
    }

    async fn send_datagram(&self, outgoing: Outgoing<'_>) -> Result<()> {
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
                // Too many descriptors are in flight: no event announces room for more.
                _ => self.unless_closed(soon).await?,
            }
            interval = (interval * 2).min(RETRY.1);
        }
    }
}

fn waiter<T: AsFd>(source: T) -> Result<Async<T>> {
    // `Async::new` would set O_NONBLOCK for every process that shares the socket.
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
/// without a fixed peer.
///
/// It runs under any executor (tokio, smol, …), and changes no flag of the socket. Every method
/// takes `&self`; tasks may send, receive and [`close`](Self::close) at the same time.
///
/// A call that is ready at once does not yield to the executor: a task that only receives, from a
/// peer faster than itself, should yield at times.
///
/// No method has a timeout: use the one of the runtime. Every future may be dropped at any moment. A
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
    /// Makes an endpoint of a new socket and binds it to `address`, as [`UnixDatagramEndpoint::bind`]
    /// does. Binding does not wait, and needs no executor yet.
    pub fn bind(address: impl ToAddress, protocol: P) -> Result<Self> {
        UnixDatagramEndpoint::bind(address, protocol).and_then(Self::from_endpoint)
    }

    /// Does the same as [`bind`](Self::bind) with options.
    pub fn bind_with(address: impl ToAddress, options: BindOptions, protocol: P) -> Result<Self> {
        UnixDatagramEndpoint::bind_with(address, options, protocol).and_then(Self::from_endpoint)
    }

    /// Makes an endpoint of `socket`, which stays unchanged. It needs no executor yet.
    pub fn new(socket: DatagramSocket, protocol: P) -> Result<Self> {
        UnixDatagramEndpoint::new(socket, protocol).and_then(Self::from_endpoint)
    }

    /// Makes an asynchronous endpoint of one that blocks.
    pub fn from_endpoint(endpoint: UnixDatagramEndpoint<P>) -> Result<Self> {
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

    /// Returns the socket and its [`Binding`], as [`UnixDatagramEndpoint::into_socket`] does.
    pub fn into_socket(self) -> Result<(DatagramSocket, Option<Binding>)> {
        drop(self.readiness);
        self.endpoint.into_socket()
    }

    /// Closes the socket and removes the socket file; does not wait. Receives and sends that wait in
    /// other tasks fail with [`ErrorKind::Closed`], and so does every later call; closing again does
    /// nothing.
    pub fn close(&self) {
        self.readiness.close();
        self.endpoint.close();
    }

    /// Returns whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.endpoint.is_closed()
    }

    /// Receives the next packet. Fails with [`ErrorKind::Parse`] on a datagram that is not a valid
    /// packet, which is then lost.
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
    /// control data, at most [`MAX_CONTROL_LEN`](crate::ancillary::MAX_CONTROL_LEN).
    pub async fn recv_message_with_space(
        &self,
        control_len: usize,
    ) -> Result<Message<P::Received>> {
        self.recv(ControlSpace::Bytes(control_len)).await
    }

    /// Receives the packets that arrive within `budget`, the time for all of them together. Zero:
    /// those that are queued already; `None`: until it is closed. The time from asking for a packet
    /// until it comes counts; the time between two packets does not.
    ///
    /// The stream ends when the time is over. A datagram that is not a valid packet is an error item
    /// ([`ErrorKind::Parse`]), and more items follow; any other error is the last item.
    pub fn iter_received_packets(
        &self,
        budget: impl Into<Option<Duration>>,
    ) -> impl Stream<Item = Result<P::Received>> + Unpin {
        let try_recv = || self.endpoint.try_recv(ControlSpace::NoDescriptors, None);
        let messages = self.readiness.sequence(budget.into(), try_recv);
        messages.map(|message| message.map(|message| message.packet))
    }

    /// Does the same as [`iter_received_packets`](Self::iter_received_packets) with whole messages: each
    /// packet with its sender and its ancillary data.
    pub fn iter_received_messages(
        &self,
        budget: impl Into<Option<Duration>>,
    ) -> impl Stream<Item = Result<Message<P::Received>>> + Unpin {
        let space = ControlSpace::Bytes(DEFAULT_CONTROL_LEN);
        let try_recv = move || self.endpoint.try_recv(space, None);
        self.readiness.sequence(budget.into(), try_recv)
    }

    /// Sends `packet` to `to`, waiting for room in its queue.
    pub async fn send_packet_to(&self, packet: &P::Sent, to: impl ToAddress) -> Result<()> {
        self.send(packet, Destination::named(to)?, None).await
    }

    /// Does the same as [`send_packet_to`](Self::send_packet_to) with control data.
    pub async fn send_packet_to_with(
        &self,
        packet: &P::Sent,
        to: impl ToAddress,
        control: &Control,
    ) -> Result<()> {
        self.send(packet, Destination::named(to)?, Some(control))
            .await
    }

    async fn recv(&self, space: ControlSpace) -> Result<Message<P::Received>> {
        self.readiness
            .recv(|| self.endpoint.try_recv(space, None))
            .await
    }

    async fn send(
        &self,
        packet: &P::Sent,
        to: Destination,
        control: Option<&Control>,
    ) -> Result<()> {
        let bytes = &self.endpoint.datagram(packet)?;
        let to = Some(&to);
        let carrier = self.endpoint.protocol().carrier();
        let outgoing = Outgoing { bytes, to, control };
        self.readiness.send(outgoing, carrier).await
    }
}

/// [`UnixDatagramClient`] with methods to await: exchanges packets with one peer, and receives from no
/// other socket.
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
    pub fn connect(peer: impl ToAddress, protocol: P) -> Result<Self> {
        UnixDatagramClient::connect(peer, protocol).and_then(Self::from_client)
    }

    /// Makes a client of `peer` that is bound to `local`, as [`UnixDatagramClient::connect_from`] does.
    pub fn connect_from(local: impl ToAddress, peer: impl ToAddress, protocol: P) -> Result<Self> {
        UnixDatagramClient::connect_from(local, peer, protocol).and_then(Self::from_client)
    }

    /// Does the same as [`connect_from`](Self::connect_from) with options for the socket file.
    pub fn connect_from_with(
        local: impl ToAddress,
        options: BindOptions,
        peer: impl ToAddress,
        protocol: P,
    ) -> Result<Self> {
        UnixDatagramClient::connect_from_with(local, options, peer, protocol)
            .and_then(Self::from_client)
    }

    /// Makes a client of a socket that is connected already, as
    /// [`UnixDatagramClient::from_connected`] does.
    pub fn from_connected(socket: impl Into<OwnedFd>, protocol: P) -> Result<Self> {
        UnixDatagramClient::from_connected(socket, protocol).and_then(Self::from_client)
    }

    /// Makes an asynchronous client of one that blocks.
    pub fn from_client(client: UnixDatagramClient<P>) -> Result<Self> {
        let readiness = Readiness::of(client.endpoint())?;
        Ok(Self { client, readiness })
    }

    /// Connects again to the peer's address, as [`UnixDatagramClient::reconnect`] does.
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

    /// Returns the socket and its [`Binding`], as [`UnixDatagramEndpoint::into_socket`] does.
    pub fn into_socket(self) -> Result<(DatagramSocket, Option<Binding>)> {
        drop(self.readiness);
        self.client.into_socket()
    }

    /// Closes the socket, as [`AsyncUnixDatagramEndpoint::close`] does.
    pub fn close(&self) {
        self.readiness.close();
        self.client.close();
    }

    /// Returns whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Receives the peer's next packet. Fails with [`ErrorKind::Parse`] on a datagram that is not a valid
    /// packet, which is then lost.
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
    /// control data, at most [`MAX_CONTROL_LEN`](crate::ancillary::MAX_CONTROL_LEN).
    pub async fn recv_message_with_space(
        &self,
        control_len: usize,
    ) -> Result<Message<P::Received>> {
        self.recv(ControlSpace::Bytes(control_len)).await
    }

    /// Receives the packets that arrive within `budget`, as
    /// [`AsyncUnixDatagramEndpoint::iter_received_packets`] does.
    pub fn iter_received_packets(
        &self,
        budget: impl Into<Option<Duration>>,
    ) -> impl Stream<Item = Result<P::Received>> + Unpin {
        let try_recv = || self.client.try_recv(ControlSpace::NoDescriptors);
        let messages = self.readiness.sequence(budget.into(), try_recv);
        messages.map(|message| message.map(|message| message.packet))
    }

    /// Receives the messages that arrive within `budget`, as
    /// [`AsyncUnixDatagramEndpoint::iter_received_messages`] does.
    pub fn iter_received_messages(
        &self,
        budget: impl Into<Option<Duration>>,
    ) -> impl Stream<Item = Result<Message<P::Received>>> + Unpin {
        let space = ControlSpace::Bytes(DEFAULT_CONTROL_LEN);
        let try_recv = move || self.client.try_recv(space);
        self.readiness.sequence(budget.into(), try_recv)
    }

    /// Sends `packet` to the peer, waiting for room in its queue.
    pub async fn send_packet(&self, packet: &P::Sent) -> Result<()> {
        self.send(packet, None).await
    }

    /// Does the same as [`send_packet`](Self::send_packet) with control data.
    pub async fn send_packet_with(&self, packet: &P::Sent, control: &Control) -> Result<()> {
        self.send(packet, Some(control)).await
    }

    /// Sends `packet` and receives the peer's answer, as [`UnixDatagramClient::request`] does. A future
    /// that is dropped may have sent the question; the next request drops a late answer to it.
    pub async fn request(&self, packet: &P::Sent) -> Result<P::Received> {
        let answer = self.ask(packet, None, ControlSpace::NoDescriptors).await;
        answer.map(|answer| answer.packet)
    }

    /// Does the same as [`request`](Self::request) with control data for the question. Returns the
    /// answer with its ancillary data.
    pub async fn request_message(
        &self,
        packet: &P::Sent,
        control: &Control,
    ) -> Result<Message<P::Received>> {
        let space = ControlSpace::Bytes(DEFAULT_CONTROL_LEN);
        self.ask(packet, Some(control), space).await
    }

    async fn ask(
        &self,
        packet: &P::Sent,
        control: Option<&Control>,
        space: ControlSpace,
    ) -> Result<Message<P::Received>> {
        let socket = self.socket()?;
        while self.client.drop_queued()? {
            future::yield_now().await;
        }
        let before = unread(&socket);
        self.send(packet, control).await?;
        let question = Question::sent(&socket, before);
        loop {
            let received = future::or(
                async { Some(self.recv(space).await) },
                over(Some(PEER_CHECK_INTERVAL)),
            );
            match received.await {
                // It was sent before the question could be read.
                Some(received) if is_packet(&received) && question.is_unread(&socket) => {}
                Some(received) => return received,
                None if socket.peer_is_closed() => return self.last_answer(space),
                None => {}
            }
        }
    }

    /// Receives the answer of a peer that has closed its socket: it may have answered before.
    fn last_answer(&self, space: ControlSpace) -> Result<Message<P::Received>> {
        loop {
            match self.client.try_recv(space)? {
                Received::Message(message) => return Ok(message),
                Received::Nothing => return Err(peer_lost("receive from", self.peer_address())),
                Received::Stranger => {}
            }
        }
    }

    async fn recv(&self, space: ControlSpace) -> Result<Message<P::Received>> {
        self.readiness.recv(|| self.client.try_recv(space)).await
    }

    async fn send(&self, packet: &P::Sent, control: Option<&Control>) -> Result<()> {
        let bytes = &self.client.endpoint().datagram(packet)?;
        let peer = self.client.destination();
        let to = Some(&*peer);
        let carrier = self.client.endpoint().protocol().carrier();
        let outgoing = Outgoing { bytes, to, control };
        self.readiness.send(outgoing, carrier).await
    }
}
