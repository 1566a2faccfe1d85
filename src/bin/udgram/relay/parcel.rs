//! Datagrams on their way to a peer.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use udgram::ancillary::Credentials;

/// A datagram to pass on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parcel<'p> {
    pub(crate) bytes: &'p [u8],
    pub(crate) descriptors: &'p [OwnedFd],
    /// The credentials of the process that sent it.
    pub(crate) credentials: Option<Credentials>,
}

/// A datagram that waits. Those that wait for it share one copy.
#[derive(Debug)]
pub(crate) struct Kept {
    bytes: Box<[u8]>,
    descriptors: Vec<OwnedFd>,
    credentials: Option<Credentials>,
}

impl Kept {
    pub(crate) fn parcel(&self) -> Parcel<'_> {
        Parcel {
            bytes: &self.bytes,
            descriptors: &self.descriptors,
            credentials: self.credentials,
        }
    }
}

/// A received datagram, which is copied only if it has to wait.
#[derive(Debug)]
pub(crate) enum Passing<'d> {
    Received {
        bytes: &'d [u8],
        descriptors: Vec<OwnedFd>,
        credentials: Option<Credentials>,
    },
    Kept(Rc<Kept>),
}

impl Passing<'_> {
    pub(crate) fn parcel(&self) -> Parcel<'_> {
        match self {
            Self::Received {
                bytes,
                descriptors,
                credentials,
            } => Parcel {
                bytes,
                descriptors,
                credentials: *credentials,
            },
            Self::Kept(kept) => kept.parcel(),
        }
    }

    /// Returns the shared copy, which it makes first if there is none.
    pub(crate) fn keep(&mut self) -> Rc<Kept> {
        let kept = match self {
            Self::Kept(kept) => return Rc::clone(kept),
            Self::Received {
                bytes,
                descriptors,
                credentials,
            } => Rc::new(Kept {
                bytes: (*bytes).into(),
                descriptors: std::mem::take(descriptors),
                credentials: *credentials,
            }),
        };
        *self = Self::Kept(Rc::clone(&kept));
        kept
    }
}
