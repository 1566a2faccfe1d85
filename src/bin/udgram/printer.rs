//! Prints received datagrams: the packet or the envelope of each, escaped and coloured for a terminal, and
//! the warnings about it.

use crate::cli::{Packets, Protocol, Receive, Terminator, When};
use crate::color;
use crate::commands::Descriptors;
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
use std::borrow::Cow;
use std::fmt::{self, Display};
use std::os::fd::RawFd;
use udgram::ancillary::{ControlSpace, DEFAULT_CONTROL_LEN};
use udgram::protocol::{DatagramProtocol, ParseError};
use udgram::{Address, Datagram, ObservedDatagram, Sender, sockopt};

/// The number that the first descriptor of a packet has in CMD.
pub(crate) const FIRST_DESCRIPTOR: RawFd = 3;

/// The use of the descriptors of a packet, which decides their numbers in an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DescriptorUse {
    /// They are described with their numbers in this process, and closed.
    Described,
    /// They are the same in an envelope. Without one, nobody expects them: closing them is their purpose.
    Closed,
    /// They are passed to CMD, with numbers from [`FIRST_DESCRIPTOR`] up.
    Passed,
}

/// The options of a command line about received packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReceiveOptions {
    pub(crate) protocol: Protocol,
    pub(crate) terminator: Terminator,
    pub(crate) envelope: bool,
    pub(crate) credentials: bool,
    pub(crate) space: ControlSpace,
    pub(crate) descriptor_use: DescriptorUse,
    pub(crate) color: When,
}

impl ReceiveOptions {
    /// Returns the options of a command line. `descriptors` says whether a CMD receives the descriptors:
    /// then they need space even without an envelope.
    pub(crate) fn from_args(receive: &Receive, descriptors: bool) -> Self {
        let envelope = receive.packets.envelope || receive.creds;
        let space = match receive.ancillary_bufsize {
            Some(bytes) => ControlSpace::Bytes(bytes as usize),
            None if envelope || descriptors => ControlSpace::Bytes(DEFAULT_CONTROL_LEN),
            None => ControlSpace::NoDescriptors.for_carrier(receive.packets.protocol.carrier()),
        };
        Self {
            protocol: receive.packets.protocol,
            terminator: receive.packets.terminator(),
            envelope,
            credentials: receive.creds,
            space,
            descriptor_use: if descriptors {
                DescriptorUse::Passed
            } else {
                DescriptorUse::Described
            },
            color: receive.counting.shown.color,
        }
    }

    /// Returns the options of a command that sends, for the packets of its peer.
    pub(crate) fn for_peer(packets: Packets, color: When) -> Self {
        Self {
            protocol: packets.protocol,
            terminator: packets.terminator(),
            envelope: packets.envelope,
            credentials: false,
            space: if packets.envelope {
                ControlSpace::Bytes(DEFAULT_CONTROL_LEN)
            } else {
                ControlSpace::NoDescriptors.for_carrier(packets.protocol.carrier())
            },
            descriptor_use: DescriptorUse::Described,
            color,
        }
    }

    /// Returns the options of `SOL_SOCKET` that the printer needs; they must be on before the first
    /// datagram.
    pub(crate) fn needs(self) -> Vec<libc::c_int> {
        let time = self.envelope.then_some(sockopt::TIMESTAMPNS);
        time.into_iter()
            .chain(self.credentials.then_some(libc::SO_PASSCRED))
            .chain(self.credentials.then_some(libc::SO_PASSPIDFD))
            .collect()
    }
}

/// A printer of datagrams. It counts what the exit status depends on.
#[derive(Debug)]
pub(crate) struct Printer {
    pub(crate) output: Output,
    pub(crate) report: Report,
    protocol: Protocol,
    terminator: Terminator,
    envelope: Option<EnvelopeWriter>,
    /// The last line, without the escapes and colours of a terminal; empty if it was not a valid packet.
    /// `None` if lines are not kept.
    kept: Option<Vec<u8>>,
    /// True if the lines are JSON and coloured.
    color: bool,
    /// The number of datagrams that were not valid packets.
    failures: u64,
    /// The number of messages whose descriptors were dropped because nothing asks for them.
    dropped: u64,
    /// The number of packets for which CMD could not be run.
    unhandled: u64,
    descriptor_use: DescriptorUse,
}

impl Printer {
    pub(crate) fn new(options: ReceiveOptions, report: Report) -> Self {
        let ReceiveOptions {
            protocol,
            terminator,
            credentials,
            descriptor_use,
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
            terminator,
            envelope,
            kept: None,
            failures: 0,
            dropped: 0,
            unhandled: 0,
            descriptor_use,
        }
    }

    /// Appends the packet or the envelope of `datagram` to the output. Reports a datagram that is not a
    /// valid packet.
    pub(crate) fn print(&mut self, datagram: &Datagram<'_>) {
        self.show(datagram, Arrival::Timely);
    }

    /// Appends the envelope of a datagram that is passed on to `to`. Reports a datagram that is not a valid
    /// packet.
    pub(crate) fn print_passed(&mut self, datagram: &Datagram<'_>, to: &Address<'_>) {
        self.show(datagram, Arrival::Passing(to));
    }

    /// Ends a batch of datagrams. Returns whether the next one needs descriptors of the senders; `None` if
    /// the senders' commands are not printed.
    pub(crate) fn end_batch(&mut self) -> Option<Descriptors> {
        let commands = self.envelope.as_mut()?.commands.as_mut()?;
        Some(commands.end_batch())
    }

    /// Prints the envelope of a packet that was queued before the question, or reports the packet.
    pub(crate) fn print_late(&mut self, datagram: &Datagram<'_>) {
        if self.envelope.is_some() {
            // The exit status does not depend on a packet that is no answer.
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

    /// Drops a packet that another socket than the peer has sent, and reports the first one.
    pub(crate) fn refuse(&self, datagram: &mut Datagram<'_>, strangers: &mut u64) {
        *strangers += 1;
        TOTALS.note_refused();
        if *strangers == 1 {
            self.report.warning(format_args!(
                "dropped a packet from {}, which is not the peer",
                datagram.sender().quoted()
            ));
        }
        datagram.ancillary.descriptors.clear();
    }

    /// Appends `datagram` to the output, escaped and coloured.
    fn show(&mut self, datagram: &Datagram<'_>, arrival: Arrival<'_>) {
        let start = self.output.lines.len();
        let count = datagram.ancillary.descriptors.len();
        let numbers: Option<Vec<RawFd>> = (self.descriptor_use == DescriptorUse::Passed
            && count > 0)
            .then(|| (FIRST_DESCRIPTOR..).take(count).collect());
        let failures = self.failures;
        let payload = datagram.payload(self.protocol.carrier());
        let shown = self.append(datagram, payload, numbers.as_deref(), arrival);
        let valid = failures == self.failures;
        self.keep(start, valid);
        if shown {
            self.finish(start);
        }
    }

    /// Keeps the line from `start` on, if lines are kept.
    fn keep(&mut self, start: usize, valid: bool) {
        let is_ended = self.is_ended(start);
        let Some(kept) = &mut self.kept else {
            return;
        };
        kept.clear();
        if valid {
            kept.extend_from_slice(&self.output.lines[start..]);
            if !is_ended {
                kept.push(self.terminator.byte());
            }
        }
    }

    /// Keeps each line that is printed until the next.
    pub(crate) fn keep_lines(&mut self) {
        self.kept = Some(Vec::new());
    }

    /// Returns the last line that was printed, with its line end and without colours; `None` if that was not a
    /// valid packet, or if lines are not kept.
    pub(crate) fn kept_line(&self) -> Option<&[u8]> {
        self.kept.as_deref().filter(|line| !line.is_empty())
    }

    /// Appends the packet or the envelope of an observed datagram to the output. Reports a datagram that is
    /// not a valid packet.
    pub(crate) fn print_observed(&mut self, datagram: &ObservedDatagram<'_>) {
        let start = self.output.lines.len();
        let write = |envelope: &mut EnvelopeWriter, packet: Result<&[u8], &str>, lines: &mut _| {
            envelope.write_observed(datagram, packet, lines);
        };
        let task = Task(datagram.sender);
        if self.append_packet(Ok(datagram.bytes), datagram.size, task, write) {
            self.finish(start);
        }
    }

    /// Escapes and colours the packet or envelope from `start` on, for a terminal, and ends it.
    fn finish(&mut self, start: usize) {
        let is_ended = self.is_ended(start);
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
        if !is_ended {
            self.output.lines.push(self.terminator.byte());
        }
    }

    /// Returns whether the packet from `start` on needs no line end: it has one, or its protocol adds none.
    fn is_ended(&self, start: usize) -> bool {
        self.terminator == Terminator::LineBreak
            && self.envelope.is_none()
            && !self.protocol.adds_line_break(&self.output.lines[start..])
    }

    /// Appends the line of `datagram`, whose packet has the bytes `payload`: the packet or the envelope. Reports a
    /// datagram that is not a valid packet. Returns whether there is anything to print.
    fn append(
        &mut self,
        datagram: &Datagram<'_>,
        payload: Result<Cow<'_, [u8]>, ParseError>,
        numbers: Option<&[RawFd]>,
        arrival: Arrival<'_>,
    ) -> bool {
        // A memfd that carried the packet is used up.
        let memfd = matches!(payload, Ok(Cow::Owned(_)));
        let numbers = numbers.filter(|_| !memfd);
        let descriptors = &datagram.ancillary.descriptors;
        if datagram.ancillary.truncated || !memfd && !descriptors.is_empty() {
            self.note_dropped_descriptors(datagram);
        }
        let (bytes, fault) = match payload {
            Ok(bytes) => (bytes, None),
            Err(error) => (datagram.bytes.into(), Some(error)),
        };
        let write = |envelope: &mut EnvelopeWriter, packet: Result<&[u8], &str>, lines: &mut _| {
            envelope.write(datagram, &bytes, packet, numbers, arrival, lines);
        };
        let sender = datagram.sender();
        let payload = fault.map_or(Ok(&*bytes), Err);
        self.append_packet(payload, datagram.size, sender.quoted(), write)
    }

    /// Appends the packet with the bytes `payload` of a datagram of this size, or calls `write` to append its
    /// envelope. Reports a datagram that is not a valid packet. Returns whether it appended
    /// anything, which may be empty.
    fn append_packet(
        &mut self,
        payload: Result<&[u8], ParseError>,
        size: usize,
        from: impl Display,
        write: impl FnOnce(&mut EnvelopeWriter, Result<&[u8], &str>, &mut Vec<u8>),
    ) -> bool {
        let lines = &mut self.output.lines;
        let (what, error) = match payload {
            Ok(bytes) if size > bytes.len() => {
                let came = bytes.len();
                let what = format!("has {size} bytes and was truncated to {came}");
                (what, None)
            }
            payload => {
                let packet = payload.and_then(|bytes| self.protocol.build_packet(bytes));
                match (packet, &mut self.envelope) {
                    (Ok(packet), None) => {
                        lines.extend_from_slice(&packet);
                        return true;
                    }
                    (Ok(packet), Some(envelope)) => {
                        write(envelope, Ok(&packet), lines);
                        return true;
                    }
                    (Err(error), _) => (invalid::describe(self.protocol, &error), Some(error)),
                }
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
        self.report.error(&invalid::invalid_datagram(
            from,
            &what,
            form,
            error.as_ref(),
        ));
        self.envelope.is_some()
    }

    /// Returns the line of `datagram` for CMD, without its line end; `numbers` are the numbers of its
    /// descriptors. Returns `None` if it is not a valid packet: then it is reported, and its envelope, if
    /// one is asked for, is in the output.
    pub(crate) fn line(&mut self, datagram: &Datagram<'_>, numbers: &[RawFd]) -> Option<Vec<u8>> {
        let (start, failures) = (self.output.lines.len(), self.failures);
        let payload = datagram.payload(self.protocol.carrier());
        let appended = self.append(datagram, payload, Some(numbers), Arrival::Timely);
        if self.failures > failures {
            if appended {
                self.finish(start);
            }
            return None;
        }
        let mut line = std::mem::take(&mut self.output.lines);
        if self.protocol == Protocol::Text && line.ends_with(b"\n") {
            line.pop();
        }
        Some(line)
    }

    /// Reports descriptors that are not described and not passed on.
    fn note_dropped_descriptors(&mut self, datagram: &Datagram<'_>) {
        let truncated = datagram.ancillary.truncated;
        match (self.envelope.is_some(), self.descriptor_use) {
            (false, DescriptorUse::Described) => {
                self.dropped += 1;
                if self.dropped == 1 {
                    self.report.warning(format_args!(
                        "dropped descriptors from {}; --envelope lists them, a CMD receives them",
                        datagram.sender().quoted()
                    ));
                }
            }
            (false, DescriptorUse::Passed) if truncated => self.report.warning(format_args!(
                "not all descriptors that {} sent could be received",
                datagram.sender().quoted()
            )),
            _ => {}
        }
    }

    /// Reports that CMD could not be run for a packet.
    pub(crate) fn note_unhandled(&mut self, error: &anyhow::Error) {
        self.unhandled += 1;
        self.report.error(error);
    }

    /// Writes the remaining output after a signal. Reports how much stdout did not take, unless its reader
    /// has exited.
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

    /// Prints final warnings and returns the exit: `exit`, or if that is 0, the one for the failures.
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
