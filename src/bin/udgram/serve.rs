//! Answers the packets of `listen`: --echo sends each back, --exec runs a command for each and sends the
//! command's output.

use crate::answering::Answers;
use crate::handler::Handler;
use crate::printer::Printer;
use crate::protocol::Client;
use crate::report::Report;
use crate::shell_command::{Finished, ShellCommand};
use anyhow::Result;
use std::time::Duration;
use udgram::answers::{Growth, Recipient};
use udgram::users::Users;
use udgram::wait::{Deadline, Wake};
use udgram::{BATCH, Datagram};

/// The way in which packets are answered.
pub(crate) enum Action<'l> {
    /// They are not answered.
    Nothing,
    /// Each datagram is sent back to its sender.
    Echo,
    /// The output of a command is sent; one command runs at a time.
    Run(ShellCommand<'l>),
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
        match &self.action {
            Action::Nothing => Ok(()),
            Action::Echo => {
                let recipient = Recipient::of(datagram, self.users);
                answers.send(client, recipient, datagram.bytes, report)
            }
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
        }
    }

    fn retry(&mut self, client: &Client, report: Report) -> Result<Option<Duration>> {
        self.answers.retry(client, report)
    }

    fn stop(&mut self) {
        if let Action::Run(command) = &mut self.action {
            command.stop();
        }
    }

    fn finish(&mut self, client: &Client, report: Report, until: Deadline, wake: &Wake<'_>) {
        self.answers.finish(client, report, until, wake);
    }
}
