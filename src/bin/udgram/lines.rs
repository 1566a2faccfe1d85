//! Lines of stdin as they come, and the datagrams made of them.

use crate::cli::{Packets, Protocol};
use crate::envelope::Times;
use crate::exit::{Exit, Failure};
use crate::input::Input;
use crate::invalid::Origin;
use crate::prepared::Prepared;
use crate::preparer::{Preparer, too_long};
use crate::report::Report;
use anyhow::Result;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use udgram::ancillary::Control;
use udgram::wait::Ready;
use udgram::{BATCH, Destination};

/// A line that cannot be sent.
struct Refused {
    number: u64,
    line: Vec<u8>,
    error: anyhow::Error,
}

/// Lines of stdin for one peer.
pub(crate) struct Lines {
    /// stdin; `None` once it has ended.
    input: Option<Input>,
    preparer: Preparer,
    packets: Packets,
    /// The number of lines that were read.
    pub(crate) count: u64,
    /// The datagrams of lines that were read and not sent yet.
    pub(crate) pending: VecDeque<Prepared<'static>>,
    /// The line after those.
    refused: Option<Refused>,
}

impl Lines {
    pub(crate) fn new(input: Input, packets: Packets, report: Report) -> Result<Self> {
        Ok(Self {
            input: Some(input),
            preparer: Preparer::new(packets, Times::Ignored, &[], None, report)?,
            packets,
            count: 0,
            pending: VecDeque::new(),
            refused: None,
        })
    }

    /// Returns the descriptor to wait for before [`read`](Self::read); `None` at the end.
    pub(crate) fn watched(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().and_then(Input::watched)
    }

    /// Returns the ancillary data of datagrams whose envelope gives none.
    pub(crate) fn control(&self) -> &Control {
        self.preparer.control()
    }

    /// Reads stdin if it is `ready`, and makes datagrams of lines that have been read, once those before
    /// are sent. `sent` is how many packets were sent, for a message.
    pub(crate) fn read(
        &mut self,
        ready: Option<Ready>,
        peer: &Destination,
        sent: u64,
    ) -> Result<()> {
        if !self.pending.is_empty() || self.refused.is_some() {
            return Ok(());
        }
        if let (Some(_), Some(input)) = (ready, &mut self.input) {
            input.read_ready()?;
        }
        while self.pending.len() < BATCH && self.refused.is_none() {
            let Some(input) = &mut self.input else {
                break;
            };
            let line = input.next_line().map_err(|error| {
                let place = format!("line {}", self.count + 1);
                too_long(&place, error, sent)
            })?;
            let Some(line) = line else {
                if input.watched().is_none() {
                    self.input = None;
                }
                break;
            };
            self.count += 1;
            let number = self.count;
            let line = if self.packets.protocol == Protocol::Raw && !self.packets.envelope {
                line
            } else {
                line.strip_suffix(&[self.packets.terminator().byte()])
                    .unwrap_or(line)
            };
            if line.trim_ascii().is_empty() && !self.preparer.keeps_blank_lines() {
                continue;
            }
            let prepared = self.preparer.prepare(number, line);
            match prepared.and_then(|prepared| to_peer(prepared, peer)) {
                Ok(prepared) => self.pending.push_back(prepared),
                Err(error) => {
                    let line = line.to_vec();
                    self.refused = Some(Refused {
                        number,
                        line,
                        error,
                    });
                }
            }
        }
        Ok(())
    }

    /// Reads no more lines.
    pub(crate) fn end(&mut self) {
        self.input = None;
    }

    /// Returns whether stdin has ended and all lines were sent.
    pub(crate) fn are_over(&self) -> bool {
        self.input.is_none() && self.pending.is_empty() && self.refused.is_none()
    }

    /// Returns the error of a line that cannot be sent, once; `sent` packets were sent before it.
    pub(crate) fn take_refused(&mut self, sent: u64) -> Option<anyhow::Error> {
        let Refused {
            number,
            line,
            error,
        } = self.refused.take()?;
        let place = (Origin::Line, number);
        Some(self.preparer.refusal(place, &line, error, sent))
    }

    /// Counts the lines that were read and are not sent.
    pub(crate) fn count_unsent(&mut self) -> usize {
        let mut left = self.pending.len() + usize::from(self.refused.is_some());
        while let Some(Ok(Some(_))) = self.input.as_mut().map(Input::next_line) {
            left += 1;
        }
        left
    }
}

/// Fails if the envelope of a packet names another destination than the peer.
fn to_peer(mut prepared: Prepared<'_>, peer: &Destination) -> Result<Prepared<'static>> {
    match prepared.to.take() {
        Some(to) if to.address() != peer.address() => Err(Failure::error(
            Exit::Parse,
            format!(
                "the envelope is to {}, and talk sends to its peer alone",
                to.address().quoted()
            ),
        )),
        _ => Ok(prepared.into_owned()),
    }
}
