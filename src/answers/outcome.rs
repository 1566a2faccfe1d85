//! The outcome of an answer, and the reason if it was not delivered.

use super::recipient::{Recipient, Refusal};
use crate::error::{Error, ErrorKind, Subject};
use crate::outgoing::{Destination, Outgoing};
use crate::socket::DatagramSocket;
use nix::libc;
use std::io;
use std::time::Duration;

/// The outcome of an answer.
#[derive(Debug)]
pub enum Outcome<'o> {
    /// It was sent.
    Sent {
        /// The client.
        recipient: &'o Recipient,
        /// The length of the answer in bytes.
        bytes: usize,
    },
    /// It was not sent, and will not be.
    Undelivered(Undelivered<'o>),
}

/// The reason why an answer was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The client had no room for a second: it does not read.
    NoRoom,
    /// Too many answers wait, for this client or for all.
    TooMany,
    /// The server ended while the answer waited for room.
    Ended,
    /// The sender has no address.
    Unnamed,
    /// The sender's pathname may lead to another user's socket: the kernel does not report the sender's
    /// user, or the file belongs to another one.
    Untrusted,
    /// The system refused the answer: the client is gone, may not be written to, or the answer is too
    /// long.
    Unreachable,
}

/// Answers to one client that were not delivered.
#[derive(Debug)]
pub struct Undelivered<'u> {
    recipient: &'u Recipient,
    count: usize,
    cause: Cause<'u>,
}

/// The cause, with what is needed to explain it.
#[derive(Debug)]
pub(super) enum Cause<'u> {
    /// There was no room for this long.
    NoRoom(Duration),
    TooMany,
    Ended,
    Failure {
        failure: Failure,
        socket: &'u DatagramSocket,
        bytes: &'u [u8],
    },
}

/// The failure of an attempt to send.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(Refusal),
    /// The system call failed.
    System(Option<Destination>, io::Error),
}

impl Failure {
    /// Returns whether every answer to the same client fails for this reason.
    pub(super) fn is_for_all(&self) -> bool {
        let too_long = |error: &io::Error| {
            matches!(
                error.raw_os_error(),
                Some(libc::EMSGSIZE | libc::ENOBUFS | libc::ENOMEM)
            )
        };
        !matches!(self, Self::System(_, error) if too_long(error))
    }

    fn explain(&self, socket: &DatagramSocket, bytes: &[u8]) -> Error {
        match self {
            Self::Refused(Refusal::Unnamed) => Error::new(
                ErrorKind::Unusable,
                "answer a packet",
                Subject::None,
                "its sender has no address",
            ),
            Self::Refused(Refusal::Untrusted(error) | Refusal::Unreachable(error)) => error.clone(),
            Self::System(to, error) => {
                let message = Outgoing {
                    bytes,
                    to: to.as_ref(),
                    control: None,
                };
                socket.explain(&message, error)
            }
        }
    }
}

impl<'o> Outcome<'o> {
    pub(super) fn sent(recipient: &'o Recipient, answer: &[u8]) -> Self {
        let bytes = answer.len();
        Self::Sent { recipient, bytes }
    }

    pub(super) fn undelivered(recipient: &'o Recipient, count: usize, cause: Cause<'o>) -> Self {
        Self::Undelivered(Undelivered::new(recipient, count, cause))
    }
}

impl<'u> Undelivered<'u> {
    fn new(recipient: &'u Recipient, count: usize, cause: Cause<'u>) -> Self {
        Self {
            recipient,
            count,
            cause,
        }
    }

    /// Returns the client.
    #[must_use]
    pub fn recipient(&self) -> &'u Recipient {
        self.recipient
    }

    /// Returns how many answers to it were not delivered, at least 1.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match &self.cause {
            Cause::NoRoom(_) => Reason::NoRoom,
            Cause::TooMany => Reason::TooMany,
            Cause::Ended => Reason::Ended,
            Cause::Failure { failure, .. } => match failure {
                Failure::Refused(Refusal::Unnamed) => Reason::Unnamed,
                Failure::Refused(Refusal::Untrusted(_)) => Reason::Untrusted,
                _ => Reason::Unreachable,
            },
        }
    }

    /// Returns whether any answer to the client would fail now: it is gone, or may not be answered.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        matches!(&self.cause, Cause::Failure { failure, .. } if failure.is_for_all())
    }

    /// Returns the reason as an error, with the cause and a hint. To find the cause, it may list all
    /// sockets of the network namespace: do not call it for every answer of a client.
    #[must_use]
    pub fn error(&self) -> Error {
        let address = || Subject::Address(self.recipient.address().clone());
        let not_reading = |cause: String| {
            Error::new(ErrorKind::TimedOut, "answer", address(), cause)
                .with_hint("it may not be reading")
        };
        match &self.cause {
            Cause::NoRoom(time) => not_reading(format!("it had no room for {time:?}")),
            Cause::TooMany => {
                not_reading("too many answers wait for it or others to read".to_owned())
            }
            Cause::Ended => not_reading("it had no room before the end".to_owned()),
            Cause::Failure {
                failure,
                socket,
                bytes,
            } => failure.explain(socket, bytes),
        }
    }
}
