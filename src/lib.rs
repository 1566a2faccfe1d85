//! Unix datagram sockets on Linux: packets, descriptors, credentials, deadlines.
//!
//! A **datagram** is the bytes on the wire; a **packet** is what a protocol makes of them. One packet is
//! exactly one datagram: it is never split or merged, arrives in order, and may have any size that the kernel
//! carries (about 4 MiB).
//!
//! | type | use |
//! |---|---|
//! | [`UnixDatagramClient`] | exchanges packets with one peer |
//! | [`UnixDatagramServer`] | calls a handler for the packets of every client, and answers each |
//! | [`UnixDatagramEndpoint`] | receives packets from every sender, and sends to any address |
//! | [`AsyncUnixDatagramClient`], [`AsyncUnixDatagramServer`], [`AsyncUnixDatagramEndpoint`] | the same with methods to await (feature `async`) |
//! | [`DatagramSocket`] | sends and receives batches of datagrams, without a protocol |
//! | [`Address`] | a pathname, an abstract name, or no name |
//!
//! | feature | adds |
//! |---|---|
//! | `cli` (default) | the program `udgram`; users of the library turn it off: `default-features = false` |
//! | `async` | the asynchronous client, server and endpoint, for any executor |
//! | `typed` | packets of any serde type in CBOR and MessagePack; JSON needs no feature |
//!
//! Complete programs: [an echo server][1], [passing descriptors][2], [deadlines with tokio][3], [a typed
//! protocol][4]. Another page has [what corresponds to std, tokio and EasyNetwork][5].
//!
//! [1]: https://docs.rs/crate/udgram/latest/source/examples/echo_server.rs
//! [2]: https://docs.rs/crate/udgram/latest/source/examples/pass_descriptor.rs
//! [3]: https://docs.rs/crate/udgram/latest/source/examples/tokio_deadlines.rs
//! [4]: https://docs.rs/crate/udgram/latest/source/examples/typed_protocol.rs
//! [5]: https://docs.rs/crate/udgram/latest/source/docs/library.md
//!
//! # Protocols
//!
//! A client needs a [`DatagramProtocol`](protocol::DatagramProtocol). The packets of
//! [`Json`](protocol::Json), [`Cbor`](protocol::Cbor) and [`MessagePack`](protocol::MessagePack) are JSON
//! text, those of [`Text`](protocol::Text) any text, those of [`Raw`](protocol::Raw) bytes, and those of
//! [`Format::typed`](protocol::Format::typed) values of your own types. You can implement
//! [the trait](protocol::DatagramProtocol) in ten lines.
//!
//! # Connecting to a peer
//!
//! [`connect`](UnixDatagramClient::connect) takes an address: text, where `@name` is an abstract name, a
//! [`Path`](std::path::Path), or an [`Address`]. It fails if no socket is bound to it. From then on the client
//! sends to that peer, and receives from no other socket.
//!
//! ```
//! use udgram::UnixDatagramClient;
//! use udgram::protocol::Json;
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("app.sock");
//! # let _server = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
//! // "/run/app.sock", "@app", …
//! let client = UnixDatagramClient::connect(&path, Json)?;
//! println!("Remote address: {}", client.peer_address());
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! The client gets an abstract name that the kernel chooses, so that the peer can answer. Dropping the client
//! closes its socket. If the peer needs to recognise the client, or may only answer a pathname,
//! [`connect_from`](UnixDatagramClient::connect_from) binds one, which is removed when the client is closed:
//!
//! ```
//! use udgram::UnixDatagramClient;
//! use udgram::protocol::Json;
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("app.sock");
//! # let local = directory.path().join("me.sock");
//! # let _server = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
//! let client = UnixDatagramClient::connect_from(&local, &path, Json)?;
//! println!("Local address: {}", client.local_address()?);
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! [`from_connected`](UnixDatagramClient::from_connected) takes over a socket that is connected already: any
//! `AF_UNIX` socket of type `SOCK_DGRAM`, bound or not.
//!
//! ```
//! use std::os::unix::net::UnixDatagram;
//! use udgram::UnixDatagramClient;
//! use udgram::protocol::Json;
//!
//! let (ours, theirs) = UnixDatagram::pair().unwrap();
//! let client = UnixDatagramClient::from_connected(ours, Json)?;
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! # Sending packets
//!
//! A packet that is not valid is not sent; the error says where it is wrong. If the peer's queue is full,
//! sending waits, here for at most a second. A datagram that needs a larger `SO_SNDBUF` raises it.
//!
//! ```
//! use std::time::Duration;
//! # use udgram::protocol::Json;
//! # use udgram::{DatagramSocket, UnixDatagramClient};
//!
//! # let (ours, theirs) = DatagramSocket::pair()?;
//! # let client = UnixDatagramClient::from_connected(ours, Json)?;
//! client.send_packet(r#"{"data": 42}"#, Some(Duration::from_secs(1)))?;
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! [`Control`](ancillary::Control) adds descriptors and credentials to a packet; sendmsg(2), unix(7).
//!
//! ```
//! use std::os::fd::AsFd;
//! use udgram::ancillary::{Control, Credentials};
//! # use udgram::protocol::Json;
//! # use udgram::{DatagramSocket, UnixDatagramClient};
//!
//! # let (ours, theirs) = DatagramSocket::pair()?;
//! # let client = UnixDatagramClient::from_connected(ours, Json)?;
//! # let file = std::fs::File::open("/dev/null").unwrap();
//! let control = Control::new(&[file.as_fd()], Some(Credentials::own()))?;
//! client.send_packet_with(r#"{"data": 42}"#, &control, None)?;
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! # Receiving packets
//!
//! [`recv_packet`](UnixDatagramClient::recv_packet) returns the next packet, already parsed. The timeout is
//! for the whole call; `None` sets no limit.
//!
//! ```
//! use std::time::Duration;
//! use udgram::ErrorKind;
//! # use udgram::protocol::Json;
//! # use udgram::{DatagramSocket, UnixDatagramClient};
//!
//! # let (ours, theirs) = DatagramSocket::pair()?;
//! # let client = UnixDatagramClient::from_connected(ours, Json)?;
//! # let peer = UnixDatagramClient::from_connected(theirs, Json)?;
//! # peer.send_packet("[1]", None)?;
//! match client.recv_packet(Some(Duration::from_millis(10))) {
//!     Ok(packet) => println!("Received packet: {packet}"),
//!     Err(error) if error.kind() == ErrorKind::TimedOut => println!("Timed out"),
//!     Err(error) => return Err(error),
//! }
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! A peer may send anything. A datagram that is not a valid packet is an error with the sender, the offset,
//! and what was expected there. That datagram is lost; the next call receives the next one.
//!
//! ```
//! use udgram::ErrorKind;
//! # use udgram::protocol::{Json, Text};
//! # use udgram::{DatagramSocket, UnixDatagramClient};
//!
//! # let (ours, theirs) = DatagramSocket::pair()?;
//! # let client = UnixDatagramClient::from_connected(ours, Json)?;
//! # let peer = UnixDatagramClient::from_connected(theirs, Text)?;
//! # peer.send_packet("[1,]", None)?;
//! match client.recv_packet(None) {
//!     Ok(packet) => println!("Received packet: {packet}"),
//!     Err(error) if error.kind() == ErrorKind::Parse => {
//!         println!("Not a valid packet: {error}");
//!         # assert!(error.to_string().ends_with("offset 3"), "{error}");
//!     }
//!     Err(error) => return Err(error),
//! }
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! [`recv_message`](UnixDatagramClient::recv_message) returns the packet with its sender and its ancillary
//! data; recvmsg(2). The message owns the descriptors: those that are not taken out are closed with it.
//!
//! ```
//! # use udgram::ancillary::{Control, Credentials};
//! # use udgram::protocol::Json;
//! # use udgram::{DatagramSocket, UnixDatagramClient};
//!
//! # let (ours, theirs) = DatagramSocket::pair()?;
//! # let client = UnixDatagramClient::from_connected(ours, Json)?;
//! # let peer = UnixDatagramClient::from_connected(theirs, Json)?;
//! // Datagrams that arrive from now on have their sender's credentials, verified by the kernel.
//! client.socket()?.set_passcred(true)?;
//!
//! # let file = std::fs::File::open("/dev/null").unwrap();
//! # use std::os::fd::AsFd;
//! # peer.send_packet_with("[1]", &Control::new(&[file.as_fd()], None)?, None)?;
//! let message = client.recv_message(None)?;
//! println!("Received packet: {}", message.packet);
//! for descriptor in message.ancillary.descriptors {
//!     println!("Received descriptor: {descriptor:?}");
//! }
//! if let Some(credentials) = message.ancillary.credentials {
//!     println!("Sent by process {}", credentials.pid);
//!     # assert_eq!(credentials, Credentials::own());
//! }
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! [`recv_message_with_space`](UnixDatagramClient::recv_message_with_space) changes the space for control
//! data, which is [`DEFAULT_CONTROL_LEN`](ancillary::DEFAULT_CONTROL_LEN) bytes, enough for every message.
//!
//! [`iter_received_packets`](UnixDatagramClient::iter_received_packets) receives many packets: with a time of
//! zero those that are queued already, else those that arrive within that time. The time is for all packets
//! together; only waiting counts. [`iter_received_messages`](UnixDatagramClient::iter_received_messages)
//! does the same with messages.
//!
//! ```
//! use std::time::Duration;
//! # use udgram::protocol::Json;
//! # use udgram::{DatagramSocket, UnixDatagramClient};
//!
//! # let (ours, theirs) = DatagramSocket::pair()?;
//! # let client = UnixDatagramClient::from_connected(ours, Json)?;
//! # let peer = UnixDatagramClient::from_connected(theirs, Json)?;
//! # for packet in ["1", "2"] { peer.send_packet(packet, None)?; }
//! for packet in client.iter_received_packets(Duration::ZERO) {
//!     println!("Received packet: {}", packet?);
//! }
//! # assert_eq!(client.iter_received_packets(Duration::ZERO).count(), 0);
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! # Asking
//!
//! [`request`](UnixDatagramClient::request) sends a packet and returns the peer's answer. Packets that were
//! queued before the question are dropped, so a late answer to an earlier question is not taken for this
//! one's. It fails if the peer closes its socket without an answer.
//!
//! ```
//! use std::time::Duration;
//! # use udgram::protocol::Json;
//! # use udgram::{UnixDatagramClient, UnixDatagramEndpoint};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("app.sock");
//! # let server = UnixDatagramEndpoint::bind(&path, Json)?;
//! # let client = UnixDatagramClient::connect(&path, Json)?;
//! # std::thread::scope(|scope| {
//! # scope.spawn(|| {
//! #     let question = server.recv_message(None).unwrap();
//! #     server.send_packet_to("1", &question.sender, None).unwrap();
//! # });
//! let answer = client.request(r#"{"op": "ping"}"#, Some(Duration::from_secs(10)))?;
//! println!("Answer: {answer}");
//! # Ok::<(), udgram::Error>(())
//! # })?;
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! # Answering many clients
//!
//! A [`UnixDatagramServer`] calls a handler for each packet, and sends its reply to the socket that asked.
//! [`bind`](UnixDatagramServer::bind) makes the socket file with mode 0600, replaces a stale one, and
//! removes it when the server is dropped; [`bind_with`](UnixDatagramServer::bind_with) takes [`BindOptions`].
//! A client that does not read costs the others nothing.
//!
//! ```
//! use udgram::protocol::Json;
//! use udgram::{ServerEvent, UnixDatagramClient, UnixDatagramServer};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("app.sock");
//! let server = UnixDatagramServer::bind(&path, Json)?;
//!
//! # let client = UnixDatagramClient::connect(&path, Json)?;
//! # client.send_packet(r#"{"op": "ping"}"#, None)?;
//! server.serve_with(
//!     |request| {
//!         println!("{} from {}", request.packet, request.sender);
//!         // It returns after the packets that were sent before. Other threads may stop it, too.
//!         server.stop();
//!         Some(r#"{"op": "pong"}"#)
//!     },
//!     |event| match event {
//!         ServerEvent::InvalidPacket(error) => println!("{error}"),
//!         ServerEvent::Undelivered(undelivered) => println!("{}", undelivered.error()),
//!         event => println!("{event:?}"),
//!     },
//! )?;
//! # assert_eq!(client.recv_packet(None)?, r#"{"op": "pong"}"#);
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! A [`UnixDatagramEndpoint`] receives from every sender, too, and leaves it to you what to send, to whom,
//! and how long to wait for room. [`answers`] has the queue that the server uses.
//!
//! ```
//! use udgram::protocol::Json;
//! use udgram::{UnixDatagramClient, UnixDatagramEndpoint};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("app.sock");
//! let server = UnixDatagramEndpoint::bind(&path, Json)?;
//!
//! # let client = UnixDatagramClient::connect(&path, Json)?;
//! # client.send_packet(r#"{"op": "ping"}"#, None)?;
//! let question = server.recv_message(None)?;
//! server.send_packet_to(r#"{"op": "pong"}"#, &question.sender, None)?;
//! # assert_eq!(client.recv_packet(None)?, r#"{"op": "pong"}"#);
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! # Asynchronous clients and servers
//!
//! They have the same methods and run under any executor. They have no timeouts: use the runtime's. Any future
//! may be dropped while it waits; a receive that is dropped has taken no datagram.
//!
//! ```
//! # #[cfg(feature = "async")]
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use std::time::Duration;
//! use udgram::AsyncUnixDatagramClient;
//! use udgram::protocol::Json;
//!
//! # let socket = udgram::DatagramSocket::new()?;
//! # socket.autobind()?;
//! # let address = socket.local_address()?;
//! // Connecting does not wait.
//! let client = AsyncUnixDatagramClient::connect(&address, Json)?;
//! client.send_packet(r#"{"data": 42}"#).await?;
//! match tokio::time::timeout(Duration::from_millis(1), client.recv_packet()).await {
//!     Ok(packet) => println!("Received packet: {}", packet?),
//!     Err(_) => println!("Timed out"),
//! }
//! # Ok::<(), udgram::Error>(())
//! # })?;
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! The iterators are streams here:
//!
//! ```
//! # #[cfg(feature = "async")] smol::block_on(async {
//! # use std::time::Duration;
//! # use udgram::protocol::Json;
//! # use udgram::{AsyncUnixDatagramClient, DatagramSocket};
//! use futures_lite::StreamExt;
//!
//! # let (ours, theirs) = DatagramSocket::pair()?;
//! # let client = AsyncUnixDatagramClient::from_connected(ours, Json)?;
//! # let peer = AsyncUnixDatagramClient::from_connected(theirs, Json)?;
//! # for packet in ["1", "2"] { peer.send_packet(packet).await?; }
//! let mut packets = client.iter_received_packets(Duration::from_millis(10));
//! while let Some(packet) = packets.next().await {
//!     println!("Received packet: {}", packet?);
//! }
//! # Ok::<(), udgram::Error>(())
//! # })?;
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! # The socket
//!
//! [`socket`](UnixDatagramEndpoint::socket) returns the socket of a client or endpoint: its addresses, its
//! descriptor ([`AsFd`](std::os::fd::AsFd)), its options. The common options have methods; [`sockopt`] has all
//! others. [`into_socket`](UnixDatagramEndpoint::into_socket) takes the socket out.
//!
//! ```
//! use udgram::sockopt;
//! # use udgram::protocol::Json;
//! # use udgram::{DatagramSocket, UnixDatagramClient};
//!
//! # let (ours, theirs) = DatagramSocket::pair()?;
//! # let client = UnixDatagramClient::from_connected(ours, Json)?;
//! let socket = client.socket()?;
//! socket.set_timestamps(true)?;
//! socket.set_send_buffer_size(65_536)?;
//! println!("{:?}", sockopt::get(&socket, &sockopt::find("SO_TYPE")?)?);
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! # Errors
//!
//! Every failure is an [`Error`]: one line with the cause last, a [`kind`](Error::kind) to decide by, the
//! `errno` ([`raw_os_error`](Error::raw_os_error)), and a [`hint`](Error::hint) if one is known. It converts
//! into [`std::io::Error`].
//!
//! # Concurrency
//!
//! Every method takes `&self` and may be called from several threads, or tasks, at the same time.
//!
//! - Sending and receiving do not wait for each other; neither do two receives.
//! - [`close`](UnixDatagramEndpoint::close) does not wait. A receive or a send that waits in another thread
//!   fails with [`ErrorKind::Closed`], and so does every later call. Closing again does nothing.
//! - An error that the kernel stored in the socket (`SO_ERROR`) is returned by the next send or receive.
//!
//! ```
//! use udgram::ErrorKind;
//! # use udgram::protocol::Json;
//! # use udgram::{DatagramSocket, UnixDatagramClient};
//!
//! # let (ours, theirs) = DatagramSocket::pair()?;
//! # let client = UnixDatagramClient::from_connected(ours, Json)?;
//! std::thread::scope(|scope| {
//!     let receiver = scope.spawn(|| client.recv_packet(None));
//!     client.close();
//!     let error = receiver.join().unwrap().unwrap_err();
//!     assert_eq!(error.kind(), ErrorKind::Closed);
//! });
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! # For users of EasyNetwork
//!
//! The client follows that of [EasyNetwork](https://easynetwork.readthedocs.io/) for Python.
//!
//! | EasyNetwork | here |
//! |---|---|
//! | `DatagramProtocol` of a serializer | [`DatagramProtocol`](protocol::DatagramProtocol), a trait |
//! | `JSONSerializer`, `CBORSerializer`, `MessagePackSerializer` | [`Json`](protocol::Json), [`Cbor`](protocol::Cbor), [`MessagePack`](protocol::MessagePack): as JSON text, or of any type with [`Format::typed`](protocol::Format::typed) |
//! | `UnixDatagramClient(path, protocol)` | [`UnixDatagramClient::connect`] |
//! | `local_path` | [`UnixDatagramClient::connect_from`] |
//! | `UnixDatagramClient(socket, protocol)` | [`UnixDatagramClient::from_connected`], for unnamed sockets too |
//! | `UnixSocketAddress` | [`Address`] |
//! | `get_peer_name()`, `get_local_name()` | [`peer_address`](UnixDatagramClient::peer_address), [`local_address`](UnixDatagramEndpoint::local_address) |
//! | `send_packet(packet, timeout=…)` | [`send_packet`](UnixDatagramClient::send_packet) |
//! | `send_packet(…, ancillary_data=…)` | [`send_packet_with`](UnixDatagramClient::send_packet_with) a [`Control`](ancillary::Control) |
//! | `recv_packet(timeout=…)` | [`recv_packet`](UnixDatagramEndpoint::recv_packet) |
//! | `recv_packet(ancillary_data=…)` | [`recv_message`](UnixDatagramEndpoint::recv_message) |
//! | `SocketAncillary`, `SCMRights`, `SCMCredentials` | [`Ancillary`](ancillary::Ancillary), its descriptors, its credentials |
//! | `ancillary_bufsize` | [`recv_message_with_space`](UnixDatagramEndpoint::recv_message_with_space) |
//! | `iter_received_packets(timeout=…)` | [`iter_received_packets`](UnixDatagramEndpoint::iter_received_packets) |
//! | `client.socket`, a `SocketProxy` | [`socket`](UnixDatagramEndpoint::socket), [`sockopt`] |
//! | `with client:`, `close()`, `is_closed()` | `drop`, [`close`](UnixDatagramEndpoint::close), [`is_closed`](UnixDatagramEndpoint::is_closed) |
//! | `DatagramProtocolParseError` | [`ErrorKind::Parse`] |
//! | `TimeoutError`, `ClientClosedError` | [`ErrorKind::TimedOut`], [`ErrorKind::Closed`] |
//! | `AsyncUnixDatagramClient` | [`AsyncUnixDatagramClient`] |
//! | `wait_connected()` | none: connecting does not wait |
//! | `asyncio.timeout()`, `trio.fail_after()` | the runtime's timeout |
//! | a server's request handler | the handler of [`UnixDatagramServer::serve`] |
//!
//! # What it does not do
//!
//! - It supports no stream or seqpacket sockets, and no system other than Linux.
//! - It is as reliable as the kernel and no more: a datagram that was accepted is delivered whole and in order,
//!   or dropped with the receiver's socket. The sender does not learn whether it was read.
//! - It does not connect again by itself when a peer restarts; [`reconnect`](UnixDatagramClient::reconnect)
//!   does.
//! - It starts no threads, except for that of async-io with the feature `async`, and one that ends before
//!   [`DatagramSocket::with_queue`] returns. It prints nothing, and changes
//!   nothing of the process: no signal handlers, no environment.
#![cfg_attr(not(feature = "async"), allow(rustdoc::broken_intra_doc_links))]

#[cfg(not(target_os = "linux"))]
compile_error!("udgram is for Linux only: it uses abstract names, /proc, inotify and sock_diag");

mod address;
pub mod ancillary;
pub mod answers;
#[cfg(feature = "async")]
mod asynchronous;
mod batch;
mod binding;
mod client;
mod credentials;
mod descriptor;
mod diagnose;
mod endpoint;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod holder;
pub mod inventory;
mod memfd;
mod observer;
mod outgoing;
mod peer;
pub mod protocol;
mod question;
mod quoted;
mod server;
mod sock_diag;
mod socket;
pub mod sockopt;
mod spin;
mod sys;
pub mod users;
pub mod wait;

pub use address::{Address, AddressError, SUN_PATH_LEN, ToAddress};
#[cfg(feature = "async")]
pub use asynchronous::{
    AsyncUnixDatagramClient, AsyncUnixDatagramEndpoint, AsyncUnixDatagramServer,
};
pub use batch::{BATCH, Batch, Datagram, ReceiveMode};
pub use binding::{BindOptions, Binding, Lost, Occupied, bind};
pub use client::UnixDatagramClient;
pub use credentials::Credentials;
pub use descriptor::{
    Access, Description, describe_descriptor, duplicate, metadata, process_exists,
};
pub use endpoint::{Message, UnixDatagramEndpoint};
pub use error::{Error, ErrorKind, Result, Subject, strerror};
pub use holder::Holder;
pub use observer::{ObservedDatagram, Observer, Progress, Sender};
pub use outgoing::{Destination, MemfdDatagram, Outgoing, PeerName};
pub use peer::{PeerWatch, may_become_reachable};
pub use quoted::Quoted;
pub use server::{ServerEvent, UnixDatagramServer};
pub use socket::DatagramSocket;
