//! Answers the packets of `listen`: --echo sends each back, --exec runs a command for each and sends the
//! command's output, --pipe gives them to one command and sends the lines that it prints.

use crate::answering::Answers;
use crate::exit::Exit;
use crate::handler::Handler;
use crate::pipe_command::PipeCommand;
use crate::printer::Printer;
use crate::protocol::Client;
use crate::report::Report;
use crate::shell_command::{Finished, ShellCommand};
use anyhow::Result;
use std::os::fd::OwnedFd;
use std::time::Duration;
use udgram::answers::{Growth, Recipient};
use udgram::users::Users;
use udgram::wait::{Deadline, Wake, pause};
use udgram::{BATCH, Datagram};

/// The way in which packets are answered.
pub(crate) enum Action<'l> {
    /// They are not answered.
    Nothing,
    /// Each datagram is sent back to its sender.
    Echo,
    /// The output of a command is sent; one command runs at a time.
    Run(ShellCommand<'l>),
    /// One command gets all of them; a line of its output answers each.
    Pipe(Box<PipeCommand<'l>>),
}

/// A server: answers the packets that its socket receives.
pub(crate) struct Server<'l> {
    action: Action<'l>,
    answers: Answers,
    users: Users,
}

impl<'l> Server<'l> {
    /// Makes a server; `growth` says whether it may enlarge the send buffer of its socket.
    pub(crate) fn new(action: Action<'l>, growth: Growth) -> Self {
        Self {
            action,
            answers: Answers::new(growth),
            users: Users::of_this_process(),
        }
    }
}

impl Handler for Server<'_> {
    fn max(&self) -> usize {
        match self.action {
            // While a command runs, packets wait in the kernel's queue, whose limit makes senders
            // wait; in a batch they would not count.
            Action::Run(_) => 1,
            Action::Pipe(ref command) => command.room(),
            Action::Echo | Action::Nothing => BATCH,
        }
    }

    fn answers(&self) -> bool {
        !matches!(self.action, Action::Nothing)
    }

    fn handle(
        &mut self,
        client: &Client,
        datagram: &mut Datagram<'_>,
        printer: &mut Printer,
        wake: &Wake<'_>,
    ) -> Result<()> {
        let answers = &mut self.answers;
        let report = printer.report;
        match &mut self.action {
            // All of a batch are sent back at its end.
            Action::Nothing | Action::Echo => Ok(()),
            Action::Run(command) => {
                let mut meanwhile = || answers.retry(client, report);
                let Finished { reply, stopped } =
                    command.run(datagram, printer, wake, &mut meanwhile)?;
                if !reply.is_empty() {
                    let recipient = Recipient::of(datagram, self.users);
                    answers.send(client, recipient, &reply, report)?;
                }
                stopped
            }
            Action::Pipe(command) => {
                let recipient = Recipient::of(datagram, self.users);
                command.give(datagram, recipient, printer);
                Ok(())
            }
        }
    }

    fn end_batch(
        &mut self,
        client: &Client,
        handled: &[Datagram<'_>],
        report: Report,
    ) -> Result<()> {
        if !matches!(self.action, Action::Echo) {
            return Ok(());
        }
        let echoes = handled
            .iter()
            .map(|datagram| (Recipient::of(datagram, self.users), datagram.bytes));
        self.answers.send_all(client, echoes, report)
    }

    fn retry(&mut self, client: &Client, report: Report) -> Result<Option<Duration>> {
        let work = match &mut self.action {
            Action::Pipe(command) => command.work(client, &mut self.answers, report)?,
            _ => None,
        };
        let retry = self.answers.retry(client, report)?;
        Ok(work.into_iter().chain(retry).min())
    }

    fn notice(&self, other: Option<OwnedFd>) -> Result<Option<OwnedFd>> {
        match &self.action {
            // The socket file keeps a copy of `other` open.
            Action::Pipe(command) => command.notice(other.as_ref()).map(Some),
            _ => Ok(other),
        }
    }

    fn is_busy(&self) -> bool {
        matches!(&self.action, Action::Pipe(command) if command.is_busy())
    }

    fn pause(&self, until: Deadline, wake: &Wake<'_>) -> udgram::Result<()> {
        match &self.action {
            Action::Pipe(command) => command.pause(until, wake),
            _ => pause(until, wake),
        }
    }

    fn has_ended(&self) -> bool {
        matches!(&self.action, Action::Pipe(command) if command.has_ended())
    }

    fn exit(&self) -> Exit {
        match &self.action {
            Action::Pipe(command) => command.exit(),
            _ => Exit::Done,
        }
    }

    fn stop(&mut self) {
        if let Action::Run(command) = &mut self.action {
            command.stop();
        }
    }

    fn finish(
        &mut self,
        client: &Client,
        report: Report,
        until: Deadline,
        wake: &Wake<'_>,
    ) -> Result<()> {
        let answers = &mut self.answers;
        if let Action::Pipe(command) = &mut self.action {
            command.finish(client, answers, report, until, wake)?;
        }
        answers.finish(client, report, until, wake);
        Ok(())
    }
}
