//! The interface between the receive loop and what a command does with each datagram.

use crate::printer::Printer;
use crate::protocol::Client;
use crate::report::Report;
use anyhow::Result;
use std::time::Duration;
use udgram::wait::{Deadline, Wake};
use udgram::{BATCH, Datagram};

/// Handles the datagrams of a receiver, besides printing them.
pub(crate) trait Handler {
    /// Returns how many datagrams may be taken from the queue at a time.
    fn max(&self) -> usize {
        BATCH
    }

    /// Returns whether senders expect an answer.
    fn answers(&self) -> bool {
        false
    }

    /// Returns whether datagrams are printed before they are handled.
    fn prints(&self) -> bool {
        true
    }

    /// Handles one datagram.
    fn handle(
        &mut self,
        client: &Client,
        datagram: &mut Datagram<'_>,
        printer: &mut Printer,
        wake: &Wake<'_>,
    ) -> Result<()>;

    /// Does what is pending, before each receive. Returns how soon it is to be called again.
    fn retry(&mut self, client: &Client, report: Report) -> Result<Option<Duration>> {
        let _ = (client, report);
        Ok(None)
    }

    /// Prepares for the datagrams that are handled after a signal: stdout may be blocked, and the next
    /// signal ends what is under way.
    fn stop(&mut self) {}

    /// Gives what is pending a last chance, until `until` at most, and reports what is not done.
    fn finish(&mut self, client: &Client, report: Report, until: Deadline, wake: &Wake<'_>) {
        let _ = (client, report, until, wake);
    }
}

/// Does nothing with datagrams: they are only printed.
pub(crate) struct PrintOnly;

impl Handler for PrintOnly {
    fn handle(
        &mut self,
        _: &Client,
        _: &mut Datagram<'_>,
        _: &mut Printer,
        _: &Wake<'_>,
    ) -> Result<()> {
        Ok(())
    }
}
