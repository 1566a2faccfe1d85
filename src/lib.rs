//! Unix datagram sockets on Linux: packets, descriptors, credentials, deadlines.
//!
//! A client translates packets to datagrams and back ([`protocol`]), sends and receives them with
//! deadlines, and with what travels beside them ([`ancillary`]). It is the client of
//! [EasyNetwork](https://easynetwork.readthedocs.io/) in Rust's idiom; [a table](#the-names-of-the-model)
//! says what is called how here. The program `udgram` stands on this library alone.
//!
//! A **datagram** is the bytes on the wire, a **packet** what a protocol makes of them. One packet is one
//! datagram: never split, never merged, in order, of any size the kernel carries (about 4 MiB).
//!
//! | feature | what it brings |
//! |---|---|
//! | `cli` (default) | the program; a user of the library does without: `default-features = false` |
//! | `async` | [`AsyncUnixDatagramClient`] and [`AsyncUnixDatagramEndpoint`] |
//! | `typed` | packets of any serde type in CBOR and MessagePack; in JSON they need no feature |
//!
//! # The protocol
//!
//! A client wants a [`DatagramProtocol`](protocol::DatagramProtocol):
//! [`Json`](protocol::Json), [`Cbor`](protocol::Cbor) and [`MessagePack`](protocol::MessagePack) have JSON
//! text as their packets, [`Text`](protocol::Text) any text, [`Raw`](protocol::Raw) bytes;
//! [`Format::typed`](protocol::Format::typed) has values of your own types.
//! [The trait](protocol::DatagramProtocol) is open, an implementation takes ten lines.
//!
//! # Connecting to a peer
//!
//! There is no connection as there is with a stream socket: [`connect`](UnixDatagramClient::connect) says
//! whom to send to and whom alone to receive from, and finds out whether anybody is there.
//!
//! ```
//! use udgram::protocol::Json;
//! use udgram::{Address, UnixDatagramClient};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("app.sock");
//! # let _server = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
//! # let path = path.to_str().unwrap();
//! // "/run/app/app.sock", say, or "@app" for an abstract name
//! let address = Address::parse(path.as_bytes())?;
//! let client = UnixDatagramClient::connect(&address, Json)?;
//! println!("Remote address: {}", client.peer_address());
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! The client has an abstract name of the kernel's choosing, so that the peer can answer. It is closed
//! when it is dropped.
//!
//! The asynchronous one runs under any executor. There is nothing to await in connecting:
//!
//! ```
//! # #[cfg(feature = "async")] {
//! use udgram::AsyncUnixDatagramClient;
//! use udgram::protocol::Json;
//!
//! # let server = udgram::DatagramSocket::new()?;
//! # server.autobind()?;
//! # let address = server.local_address()?;
//! let client = AsyncUnixDatagramClient::connect(&address, Json)?;
//! println!("Remote address: {}", client.peer_address());
//! # }
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! # Using an already connected socket
//!
//! Any connected `AF_UNIX` socket of the type `SOCK_DGRAM` will do, named or not; of any other the error
//! says what is wrong with it. The client owns the socket from then on.
//!
//! ```
//! use udgram::protocol::Json;
//! use udgram::{Address, BindOptions, DatagramSocket, UnixDatagramClient, bind};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("local.sock");
//! # let path = path.to_str().unwrap();
//! # let server = DatagramSocket::new()?;
//! # server.autobind()?;
//! # let address = server.local_address()?;
//! let socket = DatagramSocket::new()?;
//! let binding = bind(&socket, &Address::parse(path.as_bytes())?, BindOptions::default())?;
//! socket.connect(&address)?;
//!
//! // or a std::os::unix::net::UnixDatagram, or any OwnedFd
//! let client = UnixDatagramClient::from_connected(socket, Json)?;
//! println!("Local address: {}", client.local_address()?);
//! drop(binding); // removes the socket file
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! [`AsyncUnixDatagramClient::from_connected`] does the same. It leaves `O_NONBLOCK` as it is, which other
//! processes may share.
//!
//! # Sending packets
//!
//! What is no valid packet is not sent, and the error says where it is wrong. Where the peer's queue is
//! full, sending waits, here for a second at most. A datagram that `SO_SNDBUF` has no room for raises it.
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
//! ```
//! # #[cfg(feature = "async")] smol::block_on(async {
//! # use udgram::protocol::Json;
//! # use udgram::{AsyncUnixDatagramClient, DatagramSocket};
//! # let (ours, theirs) = DatagramSocket::pair()?;
//! # let client = AsyncUnixDatagramClient::from_connected(ours, Json)?;
//! client.send_packet(r#"{"data": 42}"#).await?;
//! # Ok::<(), udgram::Error>(())
//! # })?;
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! # Sending packets with control messages
//!
//! [`Control`](ancillary::Control) lays out descriptors and credentials to go beside a packet; sendmsg(2),
//! unix(7).
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
//! The next packet, already parsed; a timeout is for the whole call, whatever other threads do.
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
//! let packet = client.recv_packet(None)?;
//! println!("Received packet: {packet}");
//!
//! # let patience = Duration::from_millis(1);
//! // Some(Duration::from_secs(30)), say
//! match client.recv_packet(Some(patience)) {
//!     Ok(packet) => println!("Received packet: {packet}"),
//!     Err(error) if error.kind() == ErrorKind::TimedOut => println!("Timed out"),
//!     Err(error) => return Err(error),
//! }
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! The asynchronous methods have no timeouts: the runtime's own does. Any future may be dropped while it
//! waits; a receive that is dropped has taken no datagram.
//!
//! ```
//! # #[cfg(feature = "async")]
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use std::time::Duration;
//! # use udgram::protocol::Json;
//! # use udgram::{AsyncUnixDatagramClient, DatagramSocket};
//!
//! # let (ours, theirs) = DatagramSocket::pair()?;
//! # let client = AsyncUnixDatagramClient::from_connected(ours, Json)?;
//! # let peer = AsyncUnixDatagramClient::from_connected(theirs, Json)?;
//! # peer.send_packet("[1]").await?;
//! let packet = client.recv_packet().await?;
//! println!("Received packet: {packet}");
//!
//! # let patience = Duration::from_millis(1);
//! // Duration::from_secs(30), say
//! match tokio::time::timeout(patience, client.recv_packet()).await {
//!     Ok(packet) => println!("Received packet: {}", packet?),
//!     Err(_) => println!("Timed out"),
//! }
//! # Ok::<(), udgram::Error>(())
//! # })?;
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! A peer may send anything. A datagram that is no packet is an error that names the sender, the place and
//! what was expected there; the datagram is gone, and the next call receives the next.
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
//!         println!("Received something, but was not valid: {error}");
//!         # assert!(error.to_string().ends_with("offset 3"), "{error}");
//!     }
//!     Err(error) => return Err(error),
//! }
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! # Receiving packets with control messages
//!
//! [`recv_message`](UnixDatagramEndpoint::recv_message) gives the packet with its sender and what came
//! beside it; recvmsg(2). The descriptors are owned: those nobody takes are closed with the message, and
//! those of a datagram that is no packet at once.
//!
//! ```
//! # use udgram::ancillary::{Control, Credentials};
//! # use udgram::protocol::Json;
//! # use udgram::{DatagramSocket, UnixDatagramClient};
//!
//! # let (ours, theirs) = DatagramSocket::pair()?;
//! # let client = UnixDatagramClient::from_connected(ours, Json)?;
//! # let peer = UnixDatagramClient::from_connected(theirs, Json)?;
//! // The kernel states the credentials of those who send from now on.
//! client.socket()?.set_passcred(true)?;
//!
//! # let file = std::fs::File::open("/dev/null").unwrap();
//! # use std::os::fd::AsFd;
//! # peer.send_packet_with("[1]", &Control::new(&[file.as_fd()], None)?, None)?;
//! let message = client.recv_message(None)?;
//! println!("Received packet: {}", message.packet);
//! for descriptor in message.ancillary.descriptors {
//!     println!("Received file descriptor: {descriptor:?}");
//! }
//! if let Some(credentials) = message.ancillary.credentials {
//!     println!("Received unix credential: {credentials:?}");
//!     # assert_eq!(credentials, Credentials::own());
//! }
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! There is room for [`DEFAULT_CONTROL_LEN`](ancillary::DEFAULT_CONTROL_LEN) bytes of control data, which is enough for
//! every message. It can be changed:
//!
//! ```
//! # use udgram::protocol::Json;
//! # use udgram::{DatagramSocket, UnixDatagramClient};
//! # let (ours, theirs) = DatagramSocket::pair()?;
//! # let client = UnixDatagramClient::from_connected(ours, Json)?;
//! # let peer = UnixDatagramClient::from_connected(theirs, Json)?;
//! # peer.send_packet("[1]", None)?;
//! let most = 128;
//! // CMSG_LEN(most * sizeof(int))
//! let message = client.recv_message_with_space(None, 16 + most * 4)?;
//! assert!(!message.ancillary.truncated);
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! # Receiving many packets
//!
//! With no time to wait,
//! [`iter_received_packets`](UnixDatagramEndpoint::iter_received_packets) gives what is there already; with
//! a budget, what comes within that time, which is for all packets together and does not run while the
//! caller is at work.
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
//! let all: Result<Vec<String>, _> = client.iter_received_packets(Duration::ZERO).collect();
//! assert_eq!(all?, ["1", "2"]);
//!
//! for packet in client.iter_received_packets(Duration::from_millis(10)) {
//!     println!("Received packet: {}", packet?);
//! }
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! The asynchronous client has a stream of them:
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
//! # Low-level socket operations
//!
//! [`socket`](UnixDatagramEndpoint::socket) gives the socket, for its names and, by [`sockopt`], its
//! options. It cannot be closed through that.
//!
//! ```
//! use udgram::sockopt::{self, Value};
//! # use udgram::protocol::Json;
//! # use udgram::{DatagramSocket, UnixDatagramClient};
//!
//! # let (ours, theirs) = DatagramSocket::pair()?;
//! # let client = UnixDatagramClient::from_connected(ours, Json)?;
//! let socket = client.socket()?;
//! sockopt::set(&socket, &sockopt::find("SO_SNDBUF")?, &Value::Unsigned(65_536))?;
//! println!("{:?}", sockopt::get(&socket, &sockopt::find("SO_TYPE")?)?);
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! # Concurrency
//!
//! Every method takes `&self` and may be called from several threads, or tasks, at the same time.
//!
//! - Sending and receiving do not wait for each other; neither do two receives.
//! - [`close`](UnixDatagramEndpoint::close) waits for nothing. A receive or a send that waits meanwhile
//!   fails with [`ErrorKind::Closed`], and so does every later call; closing twice is fine.
//! - An error that the kernel stored in the socket (`SO_ERROR`) surfaces at the next send or receive.
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
//! # Answering many peers
//!
//! A [`UnixDatagramEndpoint`] is a client without a peer of its own: it receives from all who send to its
//! name, and sends where it is told.
//!
//! ```
//! use udgram::protocol::Json;
//! use udgram::{DatagramSocket, UnixDatagramClient, UnixDatagramEndpoint};
//!
//! let socket = DatagramSocket::new()?;
//! socket.autobind()?; // or bind()
//! let server = UnixDatagramEndpoint::new(socket, Json)?;
//!
//! let client = UnixDatagramClient::connect(&server.local_address()?, Json)?;
//! client.send_packet(r#"{"op": "ping"}"#, None)?;
//!
//! let request = server.recv_message(None)?;
//! server.send_packet_to(r#"{"op": "pong"}"#, &request.sender, None)?;
//! assert_eq!(client.recv_packet(None)?, r#"{"op": "pong"}"#);
//! # Ok::<(), udgram::Error>(())
//! ```
//!
//! # The names of the model
//!
//! | EasyNetwork | here |
//! |---|---|
//! | `DatagramProtocol` of a serializer | [`DatagramProtocol`](protocol::DatagramProtocol), a trait |
//! | `JSONSerializer`, `CBORSerializer`, `MessagePackSerializer` | [`Json`](protocol::Json), [`Cbor`](protocol::Cbor), [`MessagePack`](protocol::MessagePack): as JSON text, or of any type by [`Format::typed`](protocol::Format::typed) |
//! | `UnixDatagramClient(path, protocol)` | [`UnixDatagramClient::connect`] |
//! | `local_path` | [`bind`] before [`DatagramSocket::connect`] and [`UnixDatagramClient::from_connected`] |
//! | `UnixDatagramClient(socket, protocol)` | [`UnixDatagramClient::from_connected`], unnamed sockets too |
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
//! | `wait_connected()` | nothing: there is nothing to wait for |
//! | `asyncio.timeout()`, `trio.fail_after()` | the runtime's own |
//! | a server's request handler | [`UnixDatagramEndpoint`], and a loop of yours |
//!
//! # What it does not do
//!
//! It knows no stream and no seqpacket sockets, and no other system than Linux. It makes nothing more
//! reliable than the kernel does: a datagram that was accepted is delivered whole and in order, or dropped
//! with the receiver's socket, and nobody is told that it was read. It does not connect again, starts no
//! thread of its own (but async-io's one, with `async`), prints nothing, and changes nothing of the process:
//! no signal handlers, no environment.
#![cfg_attr(not(feature = "async"), allow(rustdoc::broken_intra_doc_links))]

mod address;
pub mod ancillary;
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
mod outgoing;
mod peer;
pub mod protocol;
mod quoted;
mod sock_diag;
mod socket;
pub mod sockopt;
mod sys;
pub mod wait;

pub use address::{Address, SUN_PATH_LEN};
#[cfg(feature = "async")]
pub use asynchronous::{AsyncUnixDatagramClient, AsyncUnixDatagramEndpoint};
pub use batch::{BATCH, Batch, Datagram, ReceiveMode};
pub use binding::{BindOptions, Binding, Lost, Occupied, bind};
pub use client::UnixDatagramClient;
pub use credentials::Credentials;
pub use descriptor::{Access, Description, describe_descriptor};
pub use endpoint::{Message, UnixDatagramEndpoint};
pub use error::{Error, ErrorKind, Result, Subject, describe};
pub use outgoing::{Destination, Outgoing, PeerName};
pub use peer::{PeerWatch, may_come};
pub use quoted::Quoted;
pub use socket::{DatagramSocket, duplicate};
