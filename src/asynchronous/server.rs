//! The asynchronous server.

use super::{Readiness, waiter};
use crate::address::{Address, ToAddress};
use crate::binding::BindOptions;
use crate::endpoint::{Message, UnixDatagramEndpoint};
use crate::error::{ErrorKind, Result};
use crate::protocol::DatagramProtocol;
use crate::server::{SPACE, ServerEvent, UnixDatagramServer};
use crate::socket::DatagramSocket;
use async_io::{Async, Timer};
use futures_lite::future;
use std::borrow::Borrow;
use std::os::fd::OwnedFd;

/// [`UnixDatagramServer`] with methods to await: receives packets from every client, and answers each.
///
/// It runs under any executor, as [`AsyncUnixDatagramEndpoint`](crate::AsyncUnixDatagramEndpoint) does,
/// and makes the same promises as the [`UnixDatagramServer`].
///
/// ```
/// use futures_lite::future;
/// use udgram::protocol::Json;
/// use udgram::{AsyncUnixDatagramClient, AsyncUnixDatagramServer};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("app.sock");
/// let server = AsyncUnixDatagramServer::bind(&path, Json)?;
/// # future::block_on(async {
/// let serving = server.serve(|request| async move { Some(request.packet) });
/// let asking = async {
///     let client = AsyncUnixDatagramClient::connect(&path, Json)?;
///     let answer = client.request(r#"{"op": "ping"}"#).await;
///     server.stop();
///     answer
/// };
/// let (served, answer) = future::zip(serving, asking).await;
/// assert_eq!(answer?, r#"{"op": "ping"}"#);
/// served
/// # })?;
/// # Ok::<(), udgram::Error>(())
/// ```
#[derive(Debug)]
pub struct AsyncUnixDatagramServer<P> {
    server: UnixDatagramServer<P>,
    readiness: Readiness,
    /// Readable after `stop`.
    stopping: Async<OwnedFd>,
}

impl<P: DatagramProtocol> AsyncUnixDatagramServer<P> {
    /// Makes a server with a new socket bound to `address`, as [`UnixDatagramServer::bind`] does. Binding
    /// does not wait, and needs no executor yet.
    pub fn bind(address: impl ToAddress, protocol: P) -> Result<Self> {
        UnixDatagramServer::bind(address, protocol).and_then(Self::from_server)
    }

    /// Does the same as [`bind`](Self::bind) with options.
    pub fn bind_with(address: impl ToAddress, options: BindOptions, protocol: P) -> Result<Self> {
        UnixDatagramServer::bind_with(address, options, protocol).and_then(Self::from_server)
    }

    /// Makes a server with `socket`, as [`UnixDatagramServer::new`] does.
    pub fn new(socket: DatagramSocket, protocol: P) -> Result<Self> {
        UnixDatagramServer::new(socket, protocol).and_then(Self::from_server)
    }

    /// Makes an asynchronous server of one that blocks.
    pub fn from_server(server: UnixDatagramServer<P>) -> Result<Self> {
        let readiness = Readiness::of(server.endpoint())?;
        let stopping = waiter(server.stopping()?)?;
        Ok(Self {
            server,
            readiness,
            stopping,
        })
    }

    /// Returns the endpoint, as [`UnixDatagramServer::endpoint`] does. Its methods block.
    pub fn endpoint(&self) -> &UnixDatagramEndpoint<P> {
        self.server.endpoint()
    }

    /// Returns the address that the socket is bound to.
    pub fn local_address(&self) -> Result<Address<'static>> {
        self.server.local_address()
    }

    /// Stops the server, as [`UnixDatagramServer::stop`] does.
    pub fn stop(&self) {
        self.server.stop();
    }

    /// Returns whether it was stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.server.is_stopped()
    }

    /// Closes the socket and removes the socket file, as [`UnixDatagramServer::close`] does.
    pub fn close(&self) {
        self.readiness.close();
        self.server.close();
    }

    /// Calls `handler` for each packet, and sends the reply that its future returns to the sender, as
    /// [`UnixDatagramServer::serve`] does. Returns after [`stop`](Self::stop).
    ///
    /// One packet is handled at a time, in the order in which they came. While the handler waits,
    /// answers that wait for room are still sent. Call `serve` in several tasks to handle several
    /// packets at the same time; then two packets of one client may be handled at the same time.
    ///
    /// The future may be dropped at any moment. Then the packet that is handled gets no answer, and no
    /// other is lost: those that are queued, and the answers that wait for room, stay for the next
    /// call.
    pub async fn serve<F, R>(&self, handler: impl FnMut(Message<P::Received>) -> F) -> Result<()>
    where
        F: Future<Output = Option<R>>,
        R: Borrow<P::Sent>,
    {
        self.serve_with(handler, |_| {}).await
    }

    /// Does the same as [`serve`](Self::serve), and calls `events` for each datagram and each answer
    /// that went wrong, as [`UnixDatagramServer::serve_with`] does.
    pub async fn serve_with<F, R>(
        &self,
        mut handler: impl FnMut(Message<P::Received>) -> F,
        mut events: impl FnMut(ServerEvent<'_>),
    ) -> Result<()>
    where
        F: Future<Output = Option<R>>,
        R: Borrow<P::Sent>,
    {
        let socket = self.endpoint().socket()?;
        let served = loop {
            match self.next_request(&socket, &mut events).await {
                Ok(Some(request)) => {
                    let recipient = self.server.recipient(&request);
                    let answering = self.answering(&socket, &mut events);
                    if let Some(reply) = future::or(handler(request), answering).await {
                        let reply = reply.borrow();
                        self.server.answer(&socket, recipient, reply, &mut events);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
            // A client that never stops must not keep the executor from other tasks.
            future::yield_now().await;
        };
        while served.is_ok() {
            let Some(soon) = self.server.retry(&socket, &mut events) else {
                break;
            };
            let soon = async {
                Timer::after(soon).await;
                Ok(())
            };
            if self.readiness.unless_closed(soon).await.is_err() {
                break;
            }
        }
        self.server.abandon(&mut events);
        served
    }

    /// Receives the next request, and sends the answers that wait meanwhile. Returns `None` after a stop,
    /// when no packet is left.
    async fn next_request(
        &self,
        socket: &DatagramSocket,
        events: &mut impl FnMut(ServerEvent<'_>),
    ) -> Result<Option<Message<P::Received>>> {
        while !self.is_stopped() {
            let stopped = async {
                let _ = self.stopping.readable().await;
                None
            };
            let received = async {
                let try_recv = || self.endpoint().try_recv(SPACE, None);
                Some(self.readiness.recv(try_recv).await)
            };
            let waiting = future::or(stopped, received);
            match future::or(waiting, self.answering(socket, events)).await {
                None => {}
                Some(Err(error)) if error.kind() == ErrorKind::Parse => {
                    events(ServerEvent::InvalidPacket(error));
                    future::yield_now().await;
                }
                Some(received) => return received.map(Some),
            }
        }
        self.server.next_queued(socket, events)
    }

    /// Sends the answers that wait, whenever there may be room; never returns.
    async fn answering<T>(
        &self,
        socket: &DatagramSocket,
        events: &mut impl FnMut(ServerEvent<'_>),
    ) -> T {
        loop {
            match self.server.retry(socket, events) {
                Some(soon) => Timer::after(soon).await,
                None => future::pending().await,
            };
        }
    }
}
