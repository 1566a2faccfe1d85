//! Unix datagram sockets on Linux: packets, descriptors, credentials, deadlines.

mod address;
pub mod ancillary;
#[cfg(feature = "async")]
mod asynchronous;
mod binding;
mod client;
mod descriptor;
mod error;
mod peer;
pub mod protocol;
mod socket;
pub mod sockopt;
mod sys;
pub mod wait;

pub use address::{Address, SUN_PATH_LEN};
#[cfg(feature = "async")]
pub use asynchronous::{AsyncUnixDatagramClient, AsyncUnixDatagramEndpoint};
pub use binding::{BindOptions, Binding, Occupied, bind};
pub use client::{Message, UnixDatagramClient, UnixDatagramEndpoint};
pub use descriptor::{Access, Description, describe_descriptor};
pub use error::{Error, ErrorKind, Quoted, Result, Subject, describe};
pub use peer::{PeerWatch, connect_when_there};
pub use socket::{BATCH, Batch, Datagram, DatagramSocket, Name, Outgoing, Take, duplicate};
pub use sys::{default_action, place_descriptors, set_listen_pid, was_closed_at_start};
