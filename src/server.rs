//! Answers the packets of many clients.

use crate::address::{Address, ToAddress};
use crate::ancillary::{ControlSpace, DEFAULT_CONTROL_LEN};
use crate::answers::{Answers, Growth, Outcome, Recipient, Undelivered};
use crate::binding::BindOptions;
#[cfg(feature = "async")]
use crate::endpoint::copy;
use crate::endpoint::{Message, Received, UnixDatagramEndpoint, locked};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::protocol::DatagramProtocol;
use crate::socket::DatagramSocket;
use crate::users::Users;
use crate::wait::{Deadline, Wake};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::borrow::Borrow;
use std::os::fd::AsFd;
#[cfg(feature = "async")]
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The space for the control data of a request.
pub(crate) const SPACE: ControlSpace = ControlSpace::Bytes(DEFAULT_CONTROL_LEN);

/// A server: receives packets from every client, and answers each.
///
/// [`serve`](Self::serve) calls a handler for each packet, and sends what the handler returns to the
/// socket that sent the packet. A client that does not read costs the others nothing: an answer for
/// which it has no room waits up to a second, while the server handles other packets. The limits of
/// [`Answers`] bound the memory for that.
///
/// Nobody but the sender is answered. If the sender has a pathname and is another user's process, the
/// socket file is opened without following a link, and must belong to that user; otherwise the answer
/// is not delivered.
///
/// Every method takes `&self`. Threads that call `serve` at the same time share the packets among
/// them. Dropping the server closes its socket and removes the socket file.
///
/// ```
/// use std::time::Duration;
/// use udgram::protocol::Json;
/// use udgram::{UnixDatagramClient, UnixDatagramServer};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("app.sock");
/// let server = UnixDatagramServer::bind(&path, Json)?;
/// std::thread::scope(|scope| {
///     let serving = scope.spawn(|| server.serve(|request| Some(request.packet)));
///     let client = UnixDatagramClient::connect(&path, Json)?;
///     let answer = client.request(r#"{"op": "ping"}"#, Some(Duration::from_secs(10)))?;
///     assert_eq!(answer, r#"{"op": "ping"}"#);
///     server.stop();
///     serving.join().unwrap()
/// })?;
/// # Ok::<(), udgram::Error>(())
/// ```
#[derive(Debug)]
pub struct UnixDatagramServer<P> {
    endpoint: UnixDatagramEndpoint<P>,
    origin: Origin,
    answers: Mutex<Answers>,
    users: Users,
    stopped: AtomicBool,
    /// An eventfd that is readable after `stop`.
    stop: EventFd,
}

/// The origin of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The server made it.
    Made,
    /// The caller did, and other processes may share it.
    Given,
}

/// An event of [`UnixDatagramServer::serve_with`], besides the packets.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerEvent<'e> {
    /// A datagram is not a valid packet. The error has its sender ([`Error::subject`]), the offset and
    /// what was expected there. It is not answered.
    InvalidPacket(Error),
    /// A reply of the handler is not a valid packet of the protocol. It was not sent.
    InvalidReply(Error),
    /// Answers to a client were not delivered: it does not read, it is gone, or it may not be answered.
    Undelivered(Undelivered<'e>),
}

impl<P: DatagramProtocol> UnixDatagramServer<P> {
    /// Makes a server with a new socket bound to `address`, as [`UnixDatagramEndpoint::bind`] does. Only
    /// processes of the same user can send to the socket file, which has mode 0600.
    pub fn bind(address: impl ToAddress, protocol: P) -> Result<Self> {
        Self::bind_with(address, BindOptions::default(), protocol)
    }

    /// Does the same as [`bind`](Self::bind) with options: the mode and the owner of the socket file, and the
    /// action if a live socket has the pathname.
    pub fn bind_with(address: impl ToAddress, options: BindOptions, protocol: P) -> Result<Self> {
        let socket = DatagramSocket::new()?;
        // Before it is bound: the option applies only to datagrams that arrive later.
        socket.set_passcred(true)?;
        let endpoint = UnixDatagramEndpoint::bind_socket(socket, address, options, protocol)?;
        Self::with_endpoint(endpoint, Origin::Made)
    }

    /// Makes a server with `socket`, such as one of systemd's socket activation, or an end of a
    /// socketpair(2).
    ///
    /// It sets `SO_PASSCRED` if the socket has a name, and leaves the socket unchanged otherwise. A
    /// client with a pathname that sent its packet before the option was set cannot be answered.
    pub fn new(socket: DatagramSocket, protocol: P) -> Result<Self> {
        Self::from_endpoint(UnixDatagramEndpoint::new(socket, protocol)?)
    }

    /// Makes a server of an endpoint, with its socket as in [`new`](Self::new).
    pub fn from_endpoint(endpoint: UnixDatagramEndpoint<P>) -> Result<Self> {
        let socket = endpoint.socket()?;
        // An end of a socketpair(2) answers its peer alone, whose user does not matter. `SO_PASSCRED`
        // would bind it to an abstract name with the first answer (`unix_dgram_sendmsg`).
        if socket.local_address()? != Address::Unnamed {
            socket.set_passcred(true)?;
        }
        drop(socket);
        Self::with_endpoint(endpoint, Origin::Given)
    }

    fn with_endpoint(endpoint: UnixDatagramEndpoint<P>, origin: Origin) -> Result<Self> {
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| Error::system("make a server", Subject::None, errno))?;
        let growth = match origin {
            Origin::Made => Growth::Allowed,
            Origin::Given => Growth::Forbidden,
        };
        Ok(Self {
            endpoint,
            origin,
            answers: Mutex::new(Answers::new(growth)),
            users: Users::of_this_process(),
            stopped: AtomicBool::new(false),
            stop,
        })
    }

    /// Returns the endpoint: its protocol, its socket, and methods to send packets that are not answers.
    pub fn endpoint(&self) -> &UnixDatagramEndpoint<P> {
        &self.endpoint
    }

    /// Returns the address that the socket is bound to.
    pub fn local_address(&self) -> Result<Address<'static>> {
        self.endpoint.local_address()
    }

    /// Stops the server; does not wait. [`serve`](Self::serve) returns after it has handled and answered
    /// what clients have sent until now, in every thread, and so does every later call. May be called by
    /// the handler.
    ///
    /// If the server has made its socket, its reading side is shut down: from then on, sending to it
    /// fails with `EPIPE`, and no packet is lost. Packets in the queue of another socket stay there.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        // It is never read, so it stays readable. A write fails only if its counter is at the limit, and
        // then it is readable, too.
        let _ = self.stop.write(1);
    }

    /// Returns a copy of the descriptor that is readable after `stop`.
    #[cfg(feature = "async")]
    pub(crate) fn stopping(&self) -> Result<OwnedFd> {
        copy(&self.stop, "make a server")
    }

    /// Returns whether it was stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Closes the socket and removes the socket file; does not wait. [`serve`](Self::serve) fails with
    /// [`ErrorKind::Closed`] after the packet that it handles. Packets that are queued, and answers that
    /// wait for room, are lost: [`stop`](Self::stop) avoids that.
    pub fn close(&self) {
        self.endpoint.close();
    }

    /// Calls `handler` for each packet, and sends the reply that it returns to the sender. `None` is no
    /// reply. Returns after [`stop`](Self::stop).
    ///
    /// A request has the sender's credentials, as the kernel reports them, and the descriptors that came
    /// with it; those that the handler does not take are closed with the request.
    ///
    /// The packets of a client are handled and answered in the order in which it sent them. The handler
    /// is called for one packet at a time, and other packets wait in the socket's queue meanwhile. If
    /// the handler takes long, call `serve` in several threads; then two packets of one client may be
    /// handled at the same time.
    ///
    /// Ignores datagrams that are not valid packets, and answers that cannot be delivered:
    /// [`serve_with`](Self::serve_with) reports them. Fails with [`ErrorKind::Closed`] after
    /// [`close`](Self::close), and if the socket cannot be read.
    ///
    /// ```
    /// use udgram::protocol::Text;
    /// use udgram::{DatagramSocket, UnixDatagramClient, UnixDatagramServer};
    ///
    /// let (ours, theirs) = DatagramSocket::pair()?;
    /// let server = UnixDatagramServer::new(ours, Text)?;
    /// let client = UnixDatagramClient::from_connected(theirs, Text)?;
    /// for packet in ["3", "a note", "end"] {
    ///     client.send_packet(packet, None)?;
    /// }
    /// server.serve(|request| {
    ///     if request.packet == "end" {
    ///         server.stop();
    ///     }
    ///     let number: u32 = request.packet.parse().ok()?;
    ///     Some((number * 2).to_string())
    /// })?;
    /// assert_eq!(client.recv_packet(None)?, "6");
    /// # Ok::<(), udgram::Error>(())
    /// ```
    pub fn serve<R: Borrow<P::Sent>>(
        &self,
        handler: impl FnMut(Message<P::Received>) -> Option<R>,
    ) -> Result<()> {
        self.serve_with(handler, |_| {})
    }

    /// Does the same as [`serve`](Self::serve), and calls `events` for each datagram and each answer
    /// that went wrong.
    ///
    /// ```
    /// use udgram::protocol::{Json, Text};
    /// use udgram::{DatagramSocket, ServerEvent, UnixDatagramClient, UnixDatagramServer};
    ///
    /// let (ours, theirs) = DatagramSocket::pair()?;
    /// let server = UnixDatagramServer::new(ours, Json)?;
    /// # let client = UnixDatagramClient::from_connected(theirs, Text)?;
    /// # for packet in ["[1,]", "{}"] { client.send_packet(packet, None)?; }
    /// # let mut invalid = 0;
    /// server.serve_with(
    ///     |request| {
    ///         server.stop();
    ///         Some(request.packet)
    ///     },
    ///     |event| match event {
    ///         ServerEvent::InvalidPacket(error) => {
    ///             println!("{error}");
    ///             # invalid += 1;
    ///         }
    ///         ServerEvent::Undelivered(undelivered) => println!("{}", undelivered.error()),
    ///         event => println!("{event:?}"),
    ///     },
    /// )?;
    /// # assert_eq!((client.recv_packet(None)?.as_str(), invalid), ("{}", 1));
    /// # Ok::<(), udgram::Error>(())
    /// ```
    pub fn serve_with<R: Borrow<P::Sent>>(
        &self,
        mut handler: impl FnMut(Message<P::Received>) -> Option<R>,
        mut events: impl FnMut(ServerEvent<'_>),
    ) -> Result<()> {
        let socket = self.endpoint.socket()?;
        let served = loop {
            match self.next_request(&socket, &mut events) {
                Ok(Some(request)) => {
                    let recipient = self.recipient(&request);
                    if let Some(reply) = handler(request) {
                        self.answer(&socket, recipient, reply.borrow(), &mut events);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let until = match served {
            Ok(()) => Deadline::NEVER,
            Err(_) => Deadline::after(Some(Duration::ZERO)),
        };
        let wake = self.endpoint.wake(&Wake::default());
        locked(&self.answers).finish(&socket, until, &wake, &mut outcomes(&mut events));
        served
    }

    /// Receives the next request, and sends the answers that wait meanwhile. Returns `None` after a stop,
    /// when no packet is left.
    fn next_request(
        &self,
        socket: &DatagramSocket,
        events: &mut impl FnMut(ServerEvent<'_>),
    ) -> Result<Option<Message<P::Received>>> {
        let wake = Wake::new(Some(self.stop.as_fd()), None);
        loop {
            let soon = self.retry(socket, events);
            if self.is_stopped() {
                return self.next_queued(socket, events);
            }
            let deadline = soon.map_or(Deadline::NEVER, |soon| Deadline::after(Some(soon)));
            match self.endpoint.recv(deadline, SPACE, None, &wake) {
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::Stopped => {}
                Err(error) if error.kind() == ErrorKind::Parse => {
                    events(ServerEvent::InvalidPacket(error));
                }
                received => return received,
            }
        }
    }

    /// Takes the next request that was queued before the stop; `None` if none is left.
    pub(crate) fn next_queued(
        &self,
        socket: &DatagramSocket,
        events: &mut impl FnMut(ServerEvent<'_>),
    ) -> Result<Option<Message<P::Received>>> {
        if self.origin == Origin::Given {
            return Ok(None);
        }
        socket.shutdown_read()?;
        loop {
            match self.endpoint.try_recv(SPACE, None) {
                Ok(Received::Message(request)) => return Ok(Some(request)),
                Ok(Received::Nothing) => return Ok(None),
                Ok(Received::Stranger) => {}
                Err(error) if error.kind() == ErrorKind::Parse => {
                    events(ServerEvent::InvalidPacket(error));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends the answers that wait, as far as there is room. Returns the time until the next attempt;
    /// `None` if no answer waits.
    pub(crate) fn retry(
        &self,
        socket: &DatagramSocket,
        events: &mut impl FnMut(ServerEvent<'_>),
    ) -> Option<Duration> {
        locked(&self.answers).retry(socket, &mut outcomes(events))
    }

    /// Drops the answers that wait.
    #[cfg(feature = "async")]
    pub(crate) fn abandon(&self, events: &mut impl FnMut(ServerEvent<'_>)) {
        locked(&self.answers).abandon(&mut outcomes(events));
    }

    /// Returns the recipient of the reply to a request.
    pub(crate) fn recipient(&self, request: &Message<P::Received>) -> Recipient {
        Recipient::new(
            request.sender.clone(),
            request.ancillary.credentials,
            self.users,
        )
    }

    /// Sends a reply, or queues it.
    pub(crate) fn answer(
        &self,
        socket: &DatagramSocket,
        recipient: Recipient,
        reply: &P::Sent,
        events: &mut impl FnMut(ServerEvent<'_>),
    ) {
        match self.endpoint.datagram(reply) {
            Ok(bytes) => {
                let outcomes = &mut outcomes(events);
                locked(&self.answers).send(socket, recipient, &bytes, outcomes);
            }
            Err(error) => events(ServerEvent::InvalidReply(error)),
        }
    }
}

/// Returns what reports the answers that were not delivered.
fn outcomes(events: &mut impl FnMut(ServerEvent<'_>)) -> impl FnMut(Outcome<'_>) {
    move |outcome| {
        if let Outcome::Undelivered(undelivered) = outcome {
            events(ServerEvent::Undelivered(undelivered));
        }
    }
}
