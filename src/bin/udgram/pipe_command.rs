//! The command of --pipe: gets each packet as a line, and each line that it prints answers the packet in the
//! same place.

use crate::answering::Answers;
use crate::cli::{Protocol, Terminator};
use crate::exit::{Exit, Failure};
use crate::invalid;
use crate::lasting_command::{Fault, LastingCommand, Stage};
use crate::printer::Printer;
use crate::protocol::Client;
use crate::report::Report;
use crate::shell::{ShellLine, describe};
use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};
use udgram::Datagram;
use udgram::answers::Recipient;
use udgram::protocol::DatagramProtocol;
use udgram::wait::{Deadline, Wake, pause};

/// The largest number of packets that the command has and has not answered.
const MAX_UNDER_WAY: usize = 100;
/// The time after which a packet that is not answered is reported.
const STALL_TIMEOUT: Duration = Duration::from_secs(1);
/// The time that the command has to end once its stdin is closed, and for the remaining answers after a signal.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// A command that answers packets in their order. Packets are numbered from 1, as lines of its stdin.
pub(crate) struct PipeCommand<'l> {
    line: ShellLine<'l>,
    protocol: Protocol,
    terminator: Terminator,
    command: LastingCommand,
    /// The senders of the packets that are not answered, in the order of the packets.
    awaiting: VecDeque<Recipient>,
    /// The number of the last of these packets that the command cannot have seen: nothing of them is written.
    unseen: usize,
    /// The number of packets that are answered, with a reply or without.
    answered: u64,
    /// The time from which the oldest of the others waits for its answer.
    since: Instant,
    /// True once a packet was reported that was not answered for a while.
    stall_reported: bool,
    /// True once the end of the command was reported.
    end_reported: bool,
    /// The time that the command has for each remaining answer after --count or --timeout; `None` is no limit.
    patience: Option<Duration>,
    /// True if udgram ends the command, which may go on until its stdin ends.
    closed: bool,
    /// The exit for what was wrong with the command or with an answer.
    failure: Option<Exit>,
}

impl<'l> PipeCommand<'l> {
    /// Starts the command.
    pub(crate) fn start(
        line: &'l OsStr,
        protocol: Protocol,
        terminator: Terminator,
        timeout: Option<Duration>,
    ) -> Result<Self> {
        let line = ShellLine::new(line)?;
        let command = LastingCommand::start(&line, terminator.byte())?;
        Ok(Self {
            line,
            protocol,
            terminator,
            command,
            awaiting: VecDeque::new(),
            unseen: 0,
            answered: 0,
            since: Instant::now(),
            stall_reported: false,
            end_reported: false,
            patience: timeout.map(|timeout| timeout.max(END_TIMEOUT)),
            closed: false,
            failure: None,
        })
    }

    /// Returns how many more packets it takes now.
    pub(crate) fn room(&self) -> usize {
        if self.command.takes_lines() {
            MAX_UNDER_WAY.saturating_sub(self.awaiting.len())
        } else {
            0
        }
    }

    /// Returns whether answers are awaited.
    pub(crate) fn is_busy(&self) -> bool {
        !self.awaiting.is_empty()
    }

    /// Returns a descriptor that is readable when [`work`](Self::work) has something to do, or when `other` is
    /// readable.
    pub(crate) fn notice(&self, other: Option<&OwnedFd>) -> Result<OwnedFd> {
        if let Some(other) = other {
            self.command.watch(other.as_fd())?;
        }
        let events = self.command.events().try_clone_to_owned();
        events.context("cannot wait for CMD")
    }

    /// Returns whether the command has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.command.has_ended()
    }

    /// Returns the exit of the program once the command has ended.
    pub(crate) fn exit(&self) -> Exit {
        match (self.failure, self.command.stage()) {
            (Some(Exit::Refused), _) => Exit::Refused,
            (_, Stage::Ended(Some(status))) if !status.success() => match status.code() {
                Some(code) => Exit::Command(u8::try_from(code).unwrap_or(u8::MAX)),
                None => Exit::CommandSignal(status.signal().unwrap_or_default()),
            },
            (failure, _) => failure.unwrap_or(Exit::Done),
        }
    }

    /// Gives the packet that was printed last to the command, as the line that was printed.
    pub(crate) fn give(
        &mut self,
        datagram: &mut Datagram<'_>,
        recipient: Recipient,
        printer: &Printer,
    ) {
        datagram.ancillary.descriptors.clear();
        // A datagram that is not a valid packet was reported, and has none.
        let Some(line) = printer.kept_line() else {
            return;
        };
        let inside = &line[..line.len().saturating_sub(1)];
        if let Some(place) = memchr::memchr(self.terminator.byte(), inside) {
            self.failure.get_or_insert(Exit::Parse);
            let message = format!(
                "packet from {} has a {} (byte {place}), and was not given to {}",
                datagram.sender().quoted(),
                self.terminator.name(),
                self.line.quoted()
            );
            let hint = "-e gives each packet as an envelope, which is one line";
            let error = Failure::with_hint(Exit::Parse, message, hint);
            return printer.report.error(&error);
        }
        if self.awaiting.is_empty() {
            self.since = Instant::now();
        }
        self.command.push(line);
        self.awaiting.push_back(recipient);
        self.unseen += 1;
    }

    /// Sends the answers that the command has printed, and writes to it. Returns the time until the next call,
    /// if that does not depend on [`notice`](Self::notice) alone.
    pub(crate) fn work(
        &mut self,
        client: &Client,
        answers: &mut Answers,
        report: Report,
    ) -> Result<Option<Duration>> {
        let read = self.command.read();
        while let Some(line) = self.command.next_line() {
            if self.awaiting.len() <= self.unseen {
                self.refuse_line(report);
                break;
            }
            let Some(recipient) = self.awaiting.pop_front() else {
                break;
            };
            self.answered += 1;
            self.since = Instant::now();
            let is_blank =
                line.is_empty() || self.protocol.lines_are_json() && line.trim_ascii().is_empty();
            if is_blank {
                continue;
            }
            match self.protocol.make_datagram(line) {
                Ok(reply) => answers.send(client, recipient, &reply, report)?,
                Err(error) => {
                    self.failure.get_or_insert(Exit::Parse);
                    let what = invalid::describe(self.protocol, &error);
                    let message = format!("the answer to packet {} {what}", self.answered);
                    report.error(&Failure::error(Exit::Parse, message));
                }
            }
        }
        self.unseen = 0;
        match read.and(self.command.write()) {
            Ok(()) => {}
            Err(Fault::TooLong) => {
                self.fail(
                    format_args!(
                        "was ended: its answer to packet {} is longer than any datagram",
                        self.answered + 1
                    ),
                    report,
                );
            }
            // It may be ending; if it goes on, it is ended.
            Err(Fault::ClosedInput | Fault::ClosedOutput) => {
                self.close(Some(END_TIMEOUT));
            }
        }
        if self.command.has_ended() {
            self.report_end(report);
        }
        Ok(self
            .check_stall(report)
            .into_iter()
            .chain(self.command.soon())
            .min())
    }

    /// Ends the command, which has printed a line that answers no packet: whether its earlier lines answered
    /// the packets in their places is not known.
    fn refuse_line(&mut self, report: Report) {
        let place = match self.answered {
            0 => "before the first packet".to_owned(),
            answered => format!("after its answer to packet {answered}"),
        };
        self.fail(
            format_args!("was ended: it printed a line too many {place}"),
            report,
        );
    }

    /// Ends the command and reports why.
    fn fail(&mut self, why: std::fmt::Arguments<'_>, report: Report) {
        self.command.kill();
        // What it has printed since is not reported, too.
        self.command.discard_printed();
        self.failure = Some(Exit::Refused);
        let message = format!("{} {why}", self.line.quoted());
        report.error(&Failure::error(Exit::Refused, message));
    }

    /// Reports once that the command has ended, and which packets it has not answered.
    fn report_end(&mut self, report: Report) {
        if std::mem::replace(&mut self.end_reported, true) {
            return;
        }
        let within = if self.command.is_inside_line() {
            " inside a line"
        } else {
            ""
        };
        let how = match self.command.stage() {
            Stage::Ended(Some(status)) => format!("{}{within}", describe(status)),
            Stage::Ended(None) => format!("has ended{within}"),
            _ => "was ended".to_owned(),
        };
        let line = self.line.quoted();
        if let Some(packets) = self.unanswered() {
            report.warning(format_args!("{packets} not answered: {line} {how}"));
        } else if self.failure == Some(Exit::Refused) {
            // It is reported already.
        } else if !self.closed {
            let place = match self.answered {
                0 => "before the first packet".to_owned(),
                answered => format!("after packet {answered}"),
            };
            report.warning(format_args!("{line} {how}, {place}"));
        } else if let Stage::Ended(Some(status)) = self.command.stage() {
            self.line.report_status(status, report);
        } else {
            report.warning(format_args!("{line} {how}"));
        }
        if !self.closed && matches!(self.command.stage(), Stage::Killed) {
            self.failure = Some(Exit::Refused);
        }
        self.awaiting.clear();
    }

    /// Returns the numbers of the packets that are not answered, as the beginning of a sentence.
    fn unanswered(&self) -> Option<String> {
        let first = self.answered + 1;
        match self.awaiting.len() as u64 {
            0 => None,
            1 => Some(format!("packet {first} was")),
            count => Some(format!("packets {first} to {} were", self.answered + count)),
        }
    }

    /// Reports once that a packet is not answered for a while. Returns the time until the next check.
    fn check_stall(&mut self, report: Report) -> Option<Duration> {
        let runs = matches!(self.command.stage(), Stage::Running | Stage::Closing(None));
        if self.stall_reported || !runs || self.awaiting.is_empty() {
            return None;
        }
        let left = STALL_TIMEOUT.saturating_sub(self.since.elapsed());
        if left.is_zero() {
            self.stall_reported = true;
            report.warning(format_args!(
                "{} has not answered packet {} for {STALL_TIMEOUT:?} (hint: it may buffer its output: jq --unbuffered, sed -u, stdbuf -oL)",
                self.line.quoted(),
                self.answered + 1
            ));
            return None;
        }
        Some(left)
    }

    /// Closes the stdin of the command, which is ended if it has not ended after `time`, or after a second if it
    /// may answer no more.
    fn close(&mut self, time: Option<Duration>) {
        let deadline =
            |time: Option<Duration>| time.and_then(|time| Instant::now().checked_add(time));
        self.command.close(deadline(time));
        // The call may be the first that finds its stdin closed.
        if self.command.is_faulty() {
            self.command.close(deadline(Some(END_TIMEOUT)));
        }
    }

    /// Closes the stdin of the command, sends the remaining answers, and reports the packets that are not
    /// answered. Without a limit, each answer has the time of --timeout. Then the command has a second to end.
    ///
    /// Fails after a signal if there was no limit. Then call it again with one.
    pub(crate) fn finish(
        &mut self,
        client: &Client,
        answers: &mut Answers,
        report: Report,
        until: Deadline,
        wake: &Wake<'_>,
    ) -> Result<()> {
        let limited = until.remaining().is_some();
        self.closed |= !self.command.has_ended();
        if until.passed() {
            self.command.kill();
        }
        self.unseen = 0;
        // The number of answers at the last change of the deadline.
        let mut answered = None;
        loop {
            let Ok(mut soon) = self.work(client, answers, report) else {
                break;
            };
            if self.command.has_ended() {
                break;
            }
            if answered.is_none() || !limited && answered != Some(self.answered) {
                answered = Some(self.answered);
                self.close(if limited || self.awaiting.is_empty() {
                    Some(END_TIMEOUT)
                } else {
                    self.patience
                });
                continue;
            }
            if let Ok(Some(retry)) = answers.retry(client, report) {
                soon = Some(soon.map_or(retry, |soon| soon.min(retry)));
            }
            match self.pause(Deadline::after(soon), wake) {
                Ok(()) => {}
                Err(error) if !limited => return Err(error.into()),
                Err(_) => break,
            }
        }
        self.command.kill();
        self.report_end(report);
        Ok(())
    }

    /// Waits until [`work`](Self::work) has something to do.
    pub(crate) fn pause(&self, until: Deadline, wake: &Wake<'_>) -> udgram::Result<()> {
        let mut wake = *wake;
        wake.notice = Some(self.command.events());
        pause(until, &wake)
    }
}
