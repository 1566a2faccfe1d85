//! Makes the datagrams of packets to send: of each argument or line, bare or in an envelope.

use crate::cli::Packets;
use crate::cli::value::Descriptor;
use crate::envelope::{Claims, OutgoingEnvelope, Times};
use crate::exit::{Exit, Failure};
use crate::input::TooLong;
use crate::invalid::{self, Form, Origin};
use crate::prepared::Prepared;
use crate::process::require_open_at_start;
use crate::report::Report;
use anyhow::Result;
use std::os::fd::{AsFd, OwnedFd};
use udgram::ancillary::{Control, Credentials};
use udgram::protocol::{DatagramProtocol, ParseError};
use udgram::{Destination, duplicate};

/// Makes the datagrams of packets, with the ancillary data that the command line gives them.
pub(crate) struct Preparer {
    packets: Packets,
    times: Times,
    descriptors: Vec<OwnedFd>,
    credentials: Option<Credentials>,
    /// The ancillary data of datagrams whose envelope gives none.
    control: Control,
    report: Report,
    warned_described: bool,
}

fn open_descriptor(descriptor: &Descriptor) -> Result<OwnedFd> {
    require_open_at_start(descriptor.pid, descriptor.number)?;
    Ok(duplicate(descriptor.pid, descriptor.number)?)
}

fn control(descriptors: &[OwnedFd], credentials: Option<Credentials>) -> Result<Control> {
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    Ok(Control::new(&borrowed, credentials)?)
}

impl Preparer {
    /// Returns a preparer that attaches `descriptors` and `credentials` to each datagram.
    pub(crate) fn new(
        packets: Packets,
        times: Times,
        descriptors: &[Descriptor],
        credentials: Option<Credentials>,
        report: Report,
    ) -> Result<Self> {
        let descriptors = descriptors
            .iter()
            .map(open_descriptor)
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            packets,
            times,
            control: control(&descriptors, credentials)?,
            descriptors,
            credentials,
            report,
            warned_described: false,
        })
    }

    /// Returns whether a blank line is a packet: it is one where an empty argument is one, and no JSON
    /// value.
    pub(crate) fn keeps_blank_lines(&self) -> bool {
        !self.packets.envelope && !self.packets.protocol.lines_are_json()
    }

    /// Returns the ancillary data of datagrams whose envelope gives none.
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// Makes the datagram of a packet or an envelope.
    pub(crate) fn prepare<'p>(&mut self, number: u64, packet: &'p [u8]) -> Result<Prepared<'p>> {
        let protocol = self.packets.protocol;
        if !self.packets.envelope {
            let bytes = protocol.make_datagram(packet)?;
            return Ok(Prepared {
                number,
                bytes,
                to: None,
                control: None,
                received: None,
                descriptors: Vec::new(),
                memfd: None,
            });
        }
        let claims = match self.credentials {
            Some(_) => Claims::Sent,
            None => Claims::Ignored,
        };
        let envelope = OutgoingEnvelope::parse(packet, protocol, claims, self.times)?;
        if envelope.described > 0 && !self.warned_described {
            self.warned_described = true;
            self.report.warning(
                "an envelope describes descriptors that its receiver had: they are not sent",
            );
        }
        let descriptors = envelope
            .descriptors
            .iter()
            .map(open_descriptor)
            .collect::<Result<Vec<_>>>()?;
        let credentials = self
            .credentials
            .map(|own| envelope.credentials.unwrap_or(own));
        let all: Vec<_> = self
            .descriptors
            .iter()
            .chain(&descriptors)
            .map(AsFd::as_fd)
            .collect();
        Ok(Prepared {
            number,
            bytes: envelope.bytes.into(),
            to: envelope.to.as_ref().map(Destination::named).transpose()?,
            control: Some(Control::new(&all, credentials)?),
            received: envelope.time,
            descriptors,
            memfd: None,
        })
    }

    /// Returns the error of a packet that cannot be sent, with its place and how many were sent.
    pub(crate) fn refusal(
        &self,
        (origin, number): (Origin, u64),
        packet: &[u8],
        error: anyhow::Error,
        sent: u64,
    ) -> anyhow::Error {
        match error.downcast::<ParseError>() {
            Ok(error) => {
                let form = Form {
                    protocol: self.packets.protocol,
                    envelope: self.packets.envelope,
                };
                invalid::invalid_input((origin, number), packet, form, &error, sent)
            }
            Err(error) => {
                let sent = invalid::sent_so_far(sent);
                error.context(format!("{} {number}; {sent}", origin.name()))
            }
        }
    }
}

/// Returns the error of input that does not end: `place` is where, and `sent` packets were sent.
pub(crate) fn too_long(place: &str, error: anyhow::Error, sent: u64) -> anyhow::Error {
    match error.downcast::<TooLong>() {
        Ok(too_long) => {
            let sent = invalid::sent_so_far(sent);
            Failure::error(Exit::Parse, format!("{place} {too_long}; {sent}"))
        }
        Err(error) => error,
    }
}
