//! Prints what waits in the queue of a socket and leaves it there: recv(2) with MSG_PEEK, which
//! SO_PEEK_OFF moves on.

use crate::endpoint::{Cleanup, Endpoint};
use crate::exit::{Exit, Failure, has_kind};
use crate::inherited::inode;
use crate::printer::{Printer, ReceiveOptions};
use crate::receive::{STOP_CHECK_INTERVAL, keep_time_of_arrival};
use crate::report::Report;
use crate::signal::Signals;
use crate::stats::TOTALS;
use anyhow::Result;
use nix::libc;
use std::time::{Duration, Instant, SystemTime};
use udgram::wait::{Deadline, Until, Wake, wait};
use udgram::{Address, Batch, BindOptions, DatagramSocket, ErrorKind, ReceiveMode, bind, sockopt};

/// How long a queue is looked into. Each peek walks from the head of the queue to the offset
/// (`__skb_try_recv_from_queue`), so a long queue takes the square of its length. Time spent writing
/// does not count.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A look into the queue of a socket that other processes may use.
pub(crate) struct Peek {
    socket: DatagramSocket,
    batch: Batch,
    printer: Printer,
    /// How many datagrams were printed.
    printed: u64,
    /// Restores SO_PEEK_OFF. Dropped before `_alone`: the next udgram finds it restored.
    _restore: Cleanup,
    _alone: DatagramSocket,
}

impl Peek {
    /// Begins a look into the queue of `endpoint`, from its head on. Fails if another udgram looks
    /// into it: both would move the one offset that the socket has.
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
        let alone = exclude_others(&socket)?;
        let offset = sockopt::get_int(&socket, libc::SO_PEEK_OFF)?;
        if offset >= 0 {
            // Whose it is cannot be told, so it is restored like every other option.
            report.warning(format_args!(
                "SO_PEEK_OFF of the socket was {offset} already, and stays so: its program peeks, or an earlier --peek was killed (hint: udgram sockopt peek_off=-1 resets it)"
            ));
        }
        restore.set(&socket, libc::SO_PEEK_OFF, 0)?;
        Ok(Self {
            batch: Batch::new(&socket, options.space, 1)?,
            socket,
            printer: Printer::new(options, report),
            printed: 0,
            _restore: restore,
            _alone: alone,
        })
    }

    /// Prints what is queued, but no more than `count` datagrams, and returns how the program ends.
    pub(crate) fn run(&mut self, count: Option<u64>, signals: &Signals) -> Result<Exit> {
        let wake = Wake::new(Some(signals.stop()), self.printer.output.watched());
        let exit = match self.look(count, &wake) {
            Err(error) if has_kind(&error, ErrorKind::Stopped) => Exit::Signal(signals.take()),
            looked => looked.map(|()| Exit::Done)?,
        };
        Ok(self.printer.conclude(exit))
    }

    fn look(&mut self, count: Option<u64>, wake: &Wake<'_>) -> Result<()> {
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
            let called = SystemTime::now();
            if (self.socket).try_receive(&mut self.batch, 1, ReceiveMode::Peek)? == 0 {
                break;
            }
            if self.printed == 0 {
                self.note_hidden()?;
            }
            self.printed += 1;
            for mut datagram in self.batch.datagrams() {
                // A peek stamps a datagram that has no time, and so the next one finds it with a time
                // (`__sock_recv_timestamp`): that one has a time does not say that all behind it do.
                keep_time_of_arrival(&mut datagram, called);
                self.printer.print(&datagram);
                TOTALS.received.add(1, datagram.size);
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

    /// Warns of an empty packet at the head of the queue that was peeked at before: with SO_PEEK_OFF
    /// the kernel shows it once only (`__skb_try_recv_from_queue`).
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

/// Returns a socket with the abstract name that the first udgram to peek at `socket` has. The kernel
/// frees the name however that udgram ends. The name belongs to the network namespace.
fn exclude_others(socket: &DatagramSocket) -> Result<DatagramSocket> {
    let name = format!("udgram-peek-{}", inode(socket)?);
    let alone = DatagramSocket::new()?;
    let address = Address::Abstract(name.into_bytes().into());
    match bind(&alone, &address, BindOptions::default()) {
        Ok(_) => Ok(alone),
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => Err(Failure::error(
            Exit::Refused,
            "cannot peek: another udgram is peeking at this socket",
        )),
        Err(error) => Err(error.into()),
    }
}
