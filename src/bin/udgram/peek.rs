//! Prints the datagrams in the queue of a socket and leaves them there: recv(2) with MSG_PEEK at the offset
//! SO_PEEK_OFF, which the kernel advances.

use crate::endpoint::{Cleanup, Endpoint};
use crate::exit::{Exit, Failure, has_kind};
use crate::printer::{Printer, ReceiveOptions};
use crate::receive::{STOP_CHECK_INTERVAL, keep_time_of_arrival};
use crate::report::Report;
use crate::signal::Signals;
use crate::stats::TOTALS;
use anyhow::Result;
use nix::libc;
use std::time::{Duration, Instant, SystemTime};
use udgram::wait::{Deadline, Until, Wake, wait};
use udgram::{Batch, DatagramSocket, ErrorKind, ReceiveMode, sockopt};

/// The longest time for peeking, without the time for writing. Each peek walks from the head of the queue to
/// the offset (`__skb_try_recv_from_queue`), so the time grows with the square of the length.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Peeks at the queue of a socket that other processes may use.
///
/// The lock of [`DatagramSocket::lock_for_peeking`] lasts until one of the descriptors is closed: until
/// `_restore` has restored SO_PEEK_OFF.
pub(crate) struct Peek {
    /// Restores SO_PEEK_OFF. It is dropped first, while the lock is held.
    _restore: Cleanup,
    socket: DatagramSocket,
    batch: Batch,
    printer: Printer,
    /// The number of printed datagrams.
    printed: u64,
}

impl Peek {
    /// Starts to peek at the head of the queue of `endpoint`. Fails if another udgram peeks at it: both would
    /// move the only offset of the socket.
    pub(crate) fn begin(
        endpoint: Endpoint,
        options: ReceiveOptions,
        report: Report,
    ) -> Result<Self> {
        let Endpoint {
            socket,
            cleanup: mut restore,
            ..
        } = endpoint;
        if !socket.lock_for_peeking()? {
            return Err(Failure::error(
                Exit::Refused,
                "cannot peek: another udgram is peeking at this socket",
            ));
        }
        let offset = sockopt::get_int(&socket, libc::SO_PEEK_OFF)?;
        if offset >= 0 {
            // Who has set it is unknown, so it is restored like every other option.
            report.warning(format_args!(
                "SO_PEEK_OFF of the socket was {offset} already, and stays so: its program peeks, or an earlier --peek was killed (hint: udgram sockopt -s ADDR peek_off=-1 resets it)"
            ));
        }
        restore.set(&socket, libc::SO_PEEK_OFF, 0)?;
        Ok(Self {
            batch: Batch::new(&socket, options.space, 1)?,
            socket,
            printer: Printer::new(options, report),
            printed: 0,
            _restore: restore,
        })
    }

    /// Prints the queued datagrams, `count` at most, and returns the exit of the program.
    pub(crate) fn run(&mut self, count: Option<u64>, signals: &Signals) -> Result<Exit> {
        let wake = Wake::new(Some(signals.stop()), self.printer.output.watched());
        let exit = match self.print_queue(count, &wake) {
            Err(error) if has_kind(&error, ErrorKind::Stopped) => Exit::Signal(signals.take()),
            printed => printed.map(|()| Exit::Done)?,
        };
        Ok(self.printer.conclude(exit))
    }

    /// Prints the queued datagrams.
    fn print_queue(&mut self, count: Option<u64>, wake: &Wake<'_>) -> Result<()> {
        let deadline = Deadline::after(Some(TIMEOUT));
        let mut checked = Instant::now();
        while count.is_none_or(|count| self.printed < count) {
            if deadline.extended(self.printer.output.writing).passed() {
                self.printer.report.warning(format_args!(
                    "the queue was not peeked to its end within {}",
                    humantime::format_duration(TIMEOUT)
                ));
                break;
            }
            // A peek would return the pending error and clear it (`__skb_try_recv_datagram`).
            if sockopt::has_pending_error(&self.socket)? {
                self.printer.output.flush(wake)?;
                return Err(Failure::with_hint(
                    Exit::Refused,
                    "cannot peek: the socket has a pending error, which its program has not read yet",
                    "peeking would take the error from the program",
                ));
            }
            let called = SystemTime::now();
            if (self.socket).try_receive(&mut self.batch, 1, ReceiveMode::Peek)? == 0 {
                break;
            }
            if self.printed == 0 {
                self.note_hidden()?;
            }
            self.printed += 1;
            for mut datagram in self.batch.datagrams() {
                // Peeking at a datagram without a time sets its time (`__sock_recv_timestamp`). So a
                // datagram with a time does not show that the later ones have theirs from arrival.
                keep_time_of_arrival(&mut datagram, called);
                self.printer.print(&datagram);
                TOTALS.note_received(1, datagram.size);
            }
            let now = Instant::now();
            self.printer.output.flush_if_full(wake)?;
            self.printer.output.flush_if_stale(now, wake)?;
            if now.duration_since(checked) >= STOP_CHECK_INTERVAL {
                wake.check()?;
                checked = now;
            }
        }
        if self.printed == 0 {
            self.note_hidden()?;
        }
        self.printer.output.flush(wake)
    }

    /// Warns if an empty packet that was peeked at before heads the queue: with SO_PEEK_OFF, the kernel returns it
    /// only once (`__skb_try_recv_from_queue`).
    fn note_hidden(&mut self) -> Result<()> {
        let first = self.batch.datagrams().next().map(|datagram| datagram.size);
        let now = Deadline::after(Some(Duration::ZERO));
        let waiting = wait(&self.socket, Until::Readable, now, &Wake::default())?;
        if waiting.is_some() && sockopt::queue(&self.socket)?.inq == 0 && first != Some(0) {
            self.printer.report.warning(
                "an empty packet heads the queue that was peeked at before: the kernel shows it once only",
            );
        }
        Ok(())
    }
}
