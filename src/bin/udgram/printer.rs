//! What is printed of each received datagram: its packet or its envelope, escaped and coloured for a
//! terminal, and the warnings about it.

use crate::cli::{Protocol, Receive, When};
use crate::color;
use crate::envelope::{Arrival, EnvelopeWriter};
use crate::exit::Exit;
use crate::invalid::{self, Form};
use crate::output::Output;
use crate::report::Report;
use crate::stats::TOTALS;
use crate::terminal::{Controls, escape};
use anyhow::Result;
use nix::libc;
use nix::sys::signal::Signal;
use std::fmt::{self, Display};
use std::os::fd::RawFd;
use udgram::ancillary::{ControlSpace, DEFAULT_CONTROL_LEN};
use udgram::protocol::DatagramProtocol;
use udgram::{Datagram, ObservedDatagram, Sender};

/// The number that CMD has for the first descriptor of a packet.
pub(crate) const FIRST_DESCRIPTOR: RawFd = 3;

/// Who takes the descriptors of a packet, and so has numbers for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taker {
    /// They are described and closed.
    Envelope,
    /// CMD, from [`FIRST_DESCRIPTOR`] up.
    Command,
}

/// What a command line asks for about received packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReceiveOptions {
    pub(crate) protocol: Protocol,
    pub(crate) envelope: bool,
    pub(crate) credentials: bool,
    pub(crate) space: ControlSpace,
    pub(crate) taker: Taker,
    pub(crate) color: When,
}

impl ReceiveOptions {
    /// Returns the options of a command line. With `descriptors`, a CMD takes descriptors even
    /// without an envelope.
    pub(crate) fn from_args(receive: &Receive, descriptors: bool) -> Self {
        let envelope = receive.packets.envelope || receive.creds;
        let space = match receive.ancillary_bufsize {
            Some(bytes) => ControlSpace::Bytes(bytes as usize),
            None if envelope || descriptors => ControlSpace::Bytes(DEFAULT_CONTROL_LEN),
            None => ControlSpace::NoDescriptors,
        };
        Self {
            protocol: receive.packets.protocol,
            envelope,
            credentials: receive.creds,
            space,
            taker: if descriptors {
                Taker::Command
            } else {
                Taker::Envelope
            },
            color: receive.counting.shown.color,
        }
    }

    /// Returns the options of `SOL_SOCKET` that must be on before the first datagram.
    pub(crate) fn needs(self) -> Vec<libc::c_int> {
        let time = self.envelope.then_some(libc::SO_TIMESTAMPNS);
        time.into_iter()
            .chain(self.credentials.then_some(libc::SO_PASSCRED))
            .collect()
    }
}

/// Prints datagrams, and counts what the exit status depends on.
#[derive(Debug)]
pub(crate) struct Printer {
    pub(crate) output: Output,
    pub(crate) report: Report,
    protocol: Protocol,
    envelope: Option<EnvelopeWriter>,
    /// Whether the lines are coloured as JSON.
    color: bool,
    /// Datagrams that were not valid packets.
    failures: u64,
    /// Messages whose descriptors the kernel dropped because there was no space for any.
    dropped: u64,
    /// Packets for which CMD could not be run.
    unhandled: u64,
    space: ControlSpace,
    taker: Taker,
}

impl Printer {
    pub(crate) fn new(options: ReceiveOptions, report: Report) -> Self {
        let ReceiveOptions {
            protocol,
            credentials,
            space,
            taker,
            ..
        } = options;
        let envelope = options
            .envelope
            .then(|| EnvelopeWriter::new(protocol, credentials));
        let output = Output::new();
        let json = options.envelope || protocol.lines_are_json();
        Self {
            color: json && color::wanted(options.color, output.terminal),
            output,
            report,
            protocol,
            envelope,
            failures: 0,
            dropped: 0,
            unhandled: 0,
            space,
            taker,
        }
    }

    /// Appends what is printed of `datagram` to the output, and reports one that is not a valid
    /// packet.
    pub(crate) fn print(&mut self, datagram: &Datagram<'_>) {
        self.show(datagram, Arrival::Timely);
    }

    /// Prints the envelope of a packet that was queued before the question, or reports the packet.
    pub(crate) fn print_late(&mut self, datagram: &Datagram<'_>) {
        if self.envelope.is_some() {
            // It is no answer, whatever is in it: the exit status does not depend on it.
            let failures = self.failures;
            self.show(datagram, Arrival::Late);
            self.failures = failures;
            return;
        }
        self.report.warning(format_args!(
            "a packet of {} bytes from {} came before the question was received: it is not the answer",
            datagram.size,
            datagram.sender().quoted()
        ));
    }

    /// Reports a packet of somebody else than the peer, which is dropped.
    pub(crate) fn note_stranger(&self, datagram: &Datagram<'_>) {
        self.report.warning(format_args!(
            "dropped a packet from {}, which is not the peer",
            datagram.sender().quoted()
        ));
    }

    fn show(&mut self, datagram: &Datagram<'_>, arrival: Arrival) {
        let start = self.output.lines.len();
        let count = datagram.ancillary.descriptors.len();
        let numbers: Option<Vec<RawFd>> = (self.taker == Taker::Command && count > 0)
            .then(|| (FIRST_DESCRIPTOR..).take(count).collect());
        self.append(datagram, numbers.as_deref(), arrival);
        self.adorn(start);
    }

    /// Appends what is printed of an observed datagram to the output, and reports one that is not a
    /// valid packet.
    pub(crate) fn print_observed(&mut self, datagram: &ObservedDatagram<'_>) {
        let start = self.output.lines.len();
        let write = |envelope: &mut EnvelopeWriter, packet: Result<&[u8], &str>, lines: &mut _| {
            envelope.write_observed(datagram, packet, lines);
        };
        self.append_packet(datagram.bytes, datagram.size, Task(datagram.sender), write);
        self.adorn(start);
    }

    /// Escapes and colours what was appended from `start` on, for a terminal.
    fn adorn(&mut self, start: usize) {
        let controls = match self.envelope {
            Some(_) => Some(Controls::Json),
            None => self.protocol.controls(),
        };
        if let Some(controls) = controls.filter(|_| self.output.terminal) {
            escape(&mut self.output.lines, start, controls);
        }
        if self.color {
            color::paint(&mut self.output.lines, start);
        }
    }

    /// Appends the line of `datagram`, if it has any.
    fn append(&mut self, datagram: &Datagram<'_>, numbers: Option<&[RawFd]>, arrival: Arrival) {
        if datagram.ancillary.truncated {
            self.note_truncation(datagram);
        }
        let write = |envelope: &mut EnvelopeWriter, packet: Result<&[u8], &str>, lines: &mut _| {
            envelope.write(datagram, packet, numbers, arrival, lines);
        };
        let sender = datagram.sender();
        self.append_packet(datagram.bytes, datagram.size, sender.quoted(), write);
    }

    /// Appends the packet of a datagram of this size, or its envelope, which `write` writes. One that
    /// is not a valid packet is reported.
    fn append_packet(
        &mut self,
        bytes: &[u8],
        size: usize,
        from: impl Display,
        write: impl FnOnce(&mut EnvelopeWriter, Result<&[u8], &str>, &mut Vec<u8>),
    ) {
        let lines = &mut self.output.lines;
        let (what, error) = if size > bytes.len() {
            let came = bytes.len();
            let what = format!("has {size} bytes and was truncated to {came}");
            (what, None)
        } else {
            match (self.protocol.build_packet(bytes), &mut self.envelope) {
                (Ok(packet), None) => return self.protocol.write_line(&packet, lines),
                (Ok(packet), Some(envelope)) => return write(envelope, Ok(&packet), lines),
                (Err(error), _) => (invalid::what(self.protocol, &error), Some(error)),
            }
        };
        if let Some(envelope) = &mut self.envelope {
            write(envelope, Err(&what), lines);
        }
        self.failures += 1;
        TOTALS.note_no_packet();
        let form = Form {
            protocol: self.protocol,
            envelope: self.envelope.is_some(),
        };
        self.report
            .error(&invalid::received(from, &what, form, error.as_ref()));
    }

    /// Returns the line of `datagram` for CMD, without its line end; its descriptors are shown with
    /// `numbers`. Returns `None` if it is not a valid packet: that is reported, and the output has
    /// the envelope, if one is asked for.
    pub(crate) fn line(&mut self, datagram: &Datagram<'_>, numbers: &[RawFd]) -> Option<Vec<u8>> {
        let failures = self.failures;
        self.append(datagram, Some(numbers), Arrival::Timely);
        if self.failures > failures {
            return None;
        }
        let mut line = std::mem::take(&mut self.output.lines);
        if self.protocol != Protocol::Raw && line.ends_with(b"\n") {
            line.pop();
        }
        Some(line)
    }

    fn note_truncation(&mut self, datagram: &Datagram<'_>) {
        if self.space == ControlSpace::NoDescriptors {
            self.dropped += 1;
            if self.dropped == 1 {
                self.report.warning(format_args!(
                    "dropped descriptors from {}; --envelope lists them, a CMD receives them",
                    datagram.sender().quoted()
                ));
            }
        } else if self.envelope.is_none() {
            self.report.warning(format_args!(
                "not all descriptors that {} sent could be received",
                datagram.sender().quoted()
            ));
        }
    }

    /// Reports that CMD could not be run for a packet.
    pub(crate) fn note_unhandled(&mut self, error: &anyhow::Error) {
        self.unhandled += 1;
        self.report.error(error);
    }

    /// Writes what is left after a signal. What stdout does not take is reported, unless its reader is
    /// gone.
    pub(crate) fn flush_after_signal(&mut self) -> Result<()> {
        match self.output.flush_at_exit() {
            Ok(()) if !self.output.lines.is_empty() => {
                let left = self.output.lines.len();
                self.report.warning(format_args!(
                    "stdout takes nothing more: {left} bytes were not written"
                ));
            }
            Err(error) if Exit::of(&error) != Exit::Signal(Signal::SIGPIPE) => return Err(error),
            _ => {}
        }
        Ok(())
    }

    /// Prints final warnings and returns the exit status: `exit`, or if that is 0, what the failures
    /// make of it.
    pub(crate) fn conclude(&mut self, exit: Exit) -> Exit {
        if self.dropped > 1 {
            self.report.warning(format_args!(
                "the descriptors of {} messages were dropped",
                self.dropped
            ));
        }
        if exit == Exit::Done && self.unhandled > 0 {
            Exit::CannotRun
        } else if exit == Exit::Done && self.failures > 0 {
            Exit::Parse
        } else {
            exit
        }
    }
}

/// The task that sent an observed datagram, for messages.
struct Task<'o>(Option<Sender<'o>>);

impl Display for Task<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(sender) => {
                let comm = String::from_utf8_lossy(sender.comm);
                write!(f, "{comm} (process {})", sender.credentials.pid)
            }
            None => f.write_str("an unknown process"),
        }
    }
}
