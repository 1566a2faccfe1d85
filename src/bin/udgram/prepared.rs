//! A datagram that is ready to be sent.

use crate::invalid::Origin;
use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::time::SystemTime;
use udgram::ancillary::Control;
use udgram::{Address, Destination, MemfdDatagram, Outgoing};

/// A datagram to send, with the destination and ancillary data that its envelope gives it.
pub(crate) struct Prepared<'p> {
    /// The number of its line or argument.
    pub(crate) number: u64,
    pub(crate) bytes: Cow<'p, [u8]>,
    pub(crate) to: Option<Destination>,
    pub(crate) control: Option<Control>,
    /// The time at which it was received, for --pace.
    pub(crate) received: Option<SystemTime>,
    /// Kept open until it is sent.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// The datagram that is sent instead if this one is too long.
    pub(crate) memfd: Option<MemfdDatagram>,
}

impl Prepared<'_> {
    /// Adds to an error which packet it is about. The first may be the only one: no number.
    pub(crate) fn add_place(&self, error: anyhow::Error, origin: Origin) -> anyhow::Error {
        match self.number {
            0 | 1 => error,
            number => error.context(format!("{} {number}", origin.name())),
        }
    }

    /// Copies the bytes, so that it outlives its line.
    pub(crate) fn into_owned(self) -> Prepared<'static> {
        Prepared {
            number: self.number,
            bytes: self.bytes.into_owned().into(),
            to: self.to,
            control: self.control,
            received: self.received,
            descriptors: self.descriptors,
            memfd: self.memfd,
        }
    }

    /// Returns the destination that its envelope names.
    pub(crate) fn own_address(&self) -> Option<Address<'static>> {
        self.to.as_ref().map(|to| to.address().clone())
    }

    /// Returns what is sent: to `to`, with `control` unless it has control data of its own.
    pub(crate) fn outgoing<'o>(
        &'o self,
        to: Option<&'o Destination>,
        control: &'o Control,
    ) -> Outgoing<'o> {
        match &self.memfd {
            Some(memfd) => memfd.outgoing(to),
            None => Outgoing {
                bytes: &self.bytes,
                to,
                control: Some(self.control.as_ref().unwrap_or(control)),
            },
        }
    }
}
