//! Defines the interface between the receive loop and the command, which handles each datagram.

use crate::exit::Exit;
use crate::printer::Printer;
use crate::protocol::Client;
use crate::report::Report;
use anyhow::Result;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};
use udgram::wait::{Deadline, Wake, pause};
use udgram::{BATCH, Datagram};

/// A handler of received datagrams, besides printing them.
pub(crate) trait Handler {
    /// Returns the largest number of datagrams to receive at a time; 0 if none may be received now.
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

    /// Returns whether a datagram was sent before the question that it could answer.
    fn is_late(&self, sent: SystemTime) -> bool {
        let _ = sent;
        false
    }

    /// Handles one datagram.
    fn handle(
        &mut self,
        client: &Client,
        datagram: &mut Datagram<'_>,
        printer: &mut Printer,
        wake: &Wake<'_>,
    ) -> Result<()>;

    /// Ends a batch. `handled` are its datagrams that were handled, if the handler [`answers`](Self::answers).
    fn end_batch(
        &mut self,
        client: &Client,
        handled: &[Datagram<'_>],
        report: Report,
    ) -> Result<()> {
        let _ = (client, handled, report);
        Ok(())
    }

    /// Does pending work; called before each receive. Returns the time until the next call; `None` if nothing
    /// is pending.
    fn retry(&mut self, client: &Client, report: Report) -> Result<Option<Duration>> {
        let _ = (client, report);
        Ok(None)
    }

    /// Returns a descriptor that ends a wait: it is readable when [`retry`](Self::retry) has something to do, or
    /// when `other` is readable.
    fn notice(&self, other: Option<OwnedFd>) -> Result<Option<OwnedFd>> {
        Ok(other)
    }

    /// Returns whether the next event is as likely to be a notice as a datagram.
    fn is_busy(&self) -> bool {
        false
    }

    /// Waits until [`retry`](Self::retry) has something to do.
    fn pause(&self, until: Deadline, wake: &Wake<'_>) -> udgram::Result<()> {
        pause(until, wake)
    }

    /// Returns whether nothing can be handled any more.
    fn has_ended(&self) -> bool {
        false
    }

    /// Returns the exit of the program, if nothing else decides it.
    fn exit(&self) -> Exit {
        Exit::Done
    }

    /// Prepares for handling queued datagrams after a signal: stdout may be blocked, and the next signal ends
    /// the current one.
    fn stop(&mut self) {}

    /// Tries to complete pending work, until `until` at most, and reports the rest.
    ///
    /// May fail after a signal if `until` is no limit. Then call it again with one.
    fn finish(
        &mut self,
        client: &Client,
        report: Report,
        until: Deadline,
        wake: &Wake<'_>,
    ) -> Result<()> {
        let _ = (client, report, until, wake);
        Ok(())
    }
}

/// A handler that does nothing: datagrams are only printed.
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
