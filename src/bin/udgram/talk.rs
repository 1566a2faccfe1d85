//! A conversation with one peer: lines of stdin go out as they come, and packets of the peer are printed
//! as they come. One wait watches stdin, the socket and stdout, so that none of them holds up another.

use crate::cli::{Protocol, Talk};
use crate::exit::{Exit, Failure, has_kind};
use crate::handler::PrintOnly;
use crate::input::Input;
use crate::limits::{Limits, Patience};
use crate::lines::Lines;
use crate::protocol::Client;
use crate::receive::Receiver;
use crate::reply::PEER_CHECK_INTERVAL;
use crate::report::Report;
use crate::signal::Signals;
use crate::stats::TOTALS;
use anyhow::Result;
use nix::sys::signal::Signal;
use std::fmt;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use udgram::protocol::DatagramProtocol;
use udgram::wait::{Deadline, MAX_WAITED, Ready, Until, Wake, wait_any};
use udgram::{
    DatagramSocket, Destination, Error, ErrorKind, MemfdDatagram, Outgoing, PeerWatch,
    may_become_reachable,
};

/// The time for which packets are awaited after the end of stdin, unless stdin is a terminal.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The interval of attempts that poll(2) cannot time: it reports a descriptor ready that is not.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// The number of times that the queue is emptied before a send.
const MAX_TAKEN: usize = 16;

// The places of the descriptors in a wait.
const STDIN: usize = 0;
const QUEUE: usize = 1;
const ROOM: usize = 2;
const STDOUT: usize = 3;

/// The writer of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// A user at a terminal, who sees what is reported and can write the line again.
    User,
    /// A program or a file: lines depend on each other, and the exit status reports a failure.
    Program,
}

/// The connection to the peer.
enum Link {
    Connected,
    /// The peer has closed its socket. The socket is connected to this one meanwhile, which nobody uses: the
    /// kernel refuses the datagrams of all others. `None` if other processes share the socket.
    Lost {
        _parked: Option<DatagramSocket>,
    },
}

/// The way in which a descriptor that was not ready is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// Once poll(2) reports it ready.
    OnEvent,
    /// After an interval: it was not ready although poll(2) said so.
    AfterInterval,
}

/// Sends lines to one peer, and prints what the peer sends.
pub(crate) struct Conversation<'t> {
    client: Client,
    peer: Destination,
    link: Link,
    /// Awaits the peer since its socket was found closed; `None` once packets go or come again.
    watch: Option<PeerWatch>,
    receiver: Receiver<PrintOnly>,
    lines: Lines,
    protocol: Protocol,
    reconnects: bool,
    writer: Writer,
    sent: u64,
    timeout: Option<Duration>,
    /// The last time at which a packet arrived or was sent, or stdin ended.
    since: Instant,
    /// The last time at which the peer had its socket open.
    checked: Instant,
    /// The descriptors that the last wait has reported.
    ready: [Option<Ready>; MAX_WAITED],
    retry: Retry,
    wake: Wake<'t>,
    signals: &'t Signals,
    report: Report,
    exit: Exit,
}

impl<'t> Conversation<'t> {
    /// Returns a conversation over the socket of `client`, which is or was connected to `peer`.
    pub(crate) fn new(
        client: Client,
        peer: Destination,
        mut receiver: Receiver<PrintOnly>,
        options: &Talk,
        signals: &'t Signals,
        report: Report,
    ) -> Result<Self> {
        let input = Input::new(options.packets.terminator())?;
        let writer = if input.is_terminal() {
            Writer::User
        } else {
            Writer::Program
        };
        let timeout = match (options.timeout, writer) {
            (Some(timeout), _) => timeout.0,
            (None, Writer::User) => Some(Duration::ZERO),
            (None, Writer::Program) => Some(TIMEOUT),
        };
        // Another process that shares the socket may find that the peer has gone: then anybody can send to it.
        receiver.strangers.peer = peer.peer_name();
        let now = Instant::now();
        Ok(Self {
            lines: Lines::new(input, options.packets, report)?,
            protocol: options.packets.protocol,
            reconnects: options.wait && peer.can_be_found(),
            wake: Wake::new(Some(signals.stop()), receiver.printer.output.watched()),
            client,
            peer,
            link: Link::Connected,
            watch: None,
            receiver,
            writer,
            sent: 0,
            timeout,
            since: now,
            checked: now,
            ready: [None; MAX_WAITED],
            retry: Retry::OnEvent,
            signals,
            report,
            exit: Exit::Done,
        })
    }

    /// Talks until stdin has ended and no packet has arrived for the timeout, or until a signal.
    pub(crate) fn run(mut self) -> Result<Exit> {
        let exit = match self.converse() {
            Ok(()) => {
                self.receiver.drain(&self.client, self.signals)?;
                self.receiver.printer.output.flush(&self.wake)?;
                self.exit
            }
            Err(error) if has_kind(&error, ErrorKind::Stopped) => {
                match self.lines.count_unsent() {
                    0 => {}
                    1 => self
                        .report
                        .warning("stopped: 1 line that was read was not sent"),
                    left => self.report.warning(format_args!(
                        "stopped: {left} lines that were read were not sent"
                    )),
                }
                let limits = Limits {
                    count: None,
                    patience: Patience::Each(None),
                    expired: Exit::Done,
                    drain: true,
                };
                self.receiver.stop(&self.client, &limits, self.signals)?
            }
            Err(error) => {
                if Exit::of(&error) != Exit::Signal(Signal::SIGPIPE) {
                    // The error is returned; the lines that are ready are printed before it.
                    let _ = self.receiver.printer.output.flush_at_exit();
                }
                return Err(error);
            }
        };
        self.receiver.conclude(&self.client, exit, "--timeout")
    }

    fn converse(&mut self) -> Result<()> {
        if self.peer.peer_name().is_none() {
            // An inherited socket whose peer has gone.
            match self.establish()? {
                Some(error) if self.reconnects && may_become_reachable(&error) => self.lose()?,
                failure => failure.map_or(Ok(()), Err)?,
            }
        }
        loop {
            self.retry = Retry::OnEvent;
            let (lines, sent) = (self.lines.count, self.sent);
            let taken = self.receive()?;
            let over = self.is_over();
            self.lines.read(self.ready[STDIN], &self.peer, self.sent)?;
            if self.is_over() && !over {
                self.since = Instant::now();
            }
            self.send()?;
            self.print()?;
            if self.has_ended() {
                return Ok(());
            }
            let busy = taken > 0 || self.lines.count > lines || self.sent > sent;
            self.wait(busy)?;
        }
    }

    fn is_connected(&self) -> bool {
        matches!(self.link, Link::Connected)
    }

    /// Takes in packets that are queued, and notices that the peer has closed its socket. Returns how many
    /// they were.
    fn receive(&mut self) -> Result<usize> {
        if self.receiver.printer.output.is_full() || !self.is_connected() {
            return Ok(0);
        }
        // What the peer has sent before it closed its socket is queued by now.
        let closed = self.checked.elapsed() >= PEER_CHECK_INTERVAL && self.peer_is_closed()?;
        let count = self.take_queued()?;
        if count == 0 && closed {
            self.lose()?;
            self.report_loss()?;
        } else if count == 0 && self.ready[QUEUE] == Some(Ready::ShutDown) {
            return Err(Failure::error(
                Exit::Refused,
                "cannot receive: the reading side of the socket is shut down",
            ));
        }
        Ok(count)
    }

    fn take_queued(&mut self) -> Result<usize> {
        let count = self.receiver.take_queued(&self.client, &self.wake)?;
        if count > 0 {
            self.since = Instant::now();
            self.watch = None;
        }
        Ok(count)
    }

    /// Takes in what is queued before a send, in case that the peer closes its socket in between. A peer that sends
    /// without end does not hold up the send, and stdout not more than its limit.
    fn take_last(&mut self) -> Result<()> {
        for _ in 0..MAX_TAKEN {
            if self.receiver.printer.output.is_full() || self.take_queued()? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Returns whether the peer has closed its socket, which no event reports.
    fn peer_is_closed(&mut self) -> Result<bool> {
        let socket = self.client.socket()?;
        let closed = socket.peer_is_closed() || socket.peer_name()?.is_none();
        if !closed {
            self.checked = Instant::now();
        }
        Ok(closed)
    }

    /// Sends datagrams that are pending as far as there is room. Behind them, reports the line that cannot
    /// be sent.
    fn send(&mut self) -> Result<()> {
        while let Some(head) = self.lines.pending.front() {
            let number = head.number;
            match self.try_send() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) if self.writer == Writer::User && is_about_line(&error) => {
                    let error = error.context(format!("line {number} was not sent"));
                    self.report.error(&error);
                    self.lines.pending.pop_front();
                }
                Err(error) if number > 1 && is_about_line(&error) => {
                    return Err(error.context(format!("line {number}")));
                }
                Err(error) => return Err(error),
            }
        }
        let Some(error) = self.lines.take_refused(self.sent) else {
            return Ok(());
        };
        self.report.error(&error);
        if self.writer == Writer::Program {
            // What follows may depend on this line. Answers to those before it are still printed.
            self.exit = Exit::of(&error);
            self.lines.end();
            self.since = Instant::now();
        }
        Ok(())
    }

    /// Sends datagrams that are pending, once. Returns whether it makes sense to go on: `false` if there is
    /// no room, or the peer is awaited.
    fn try_send(&mut self) -> Result<bool> {
        if self.is_connected() {
            // The kernel empties the queue of this socket if a send finds that the peer has closed its own
            // (`unix_dgram_disconnected`). What the peer has sent before is taken in first.
            if self.peer_is_closed()? {
                while self.take_queued()? > 0 {}
                self.lose()?;
            } else {
                self.take_last()?;
            }
        }
        if !self.is_connected() {
            if self.reconnects {
                return Ok(false);
            }
            self.establish()?.map_or(Ok(()), Err)?;
        }
        self.send_once()
    }

    /// Sends datagrams that are pending to the connected peer, once; as [`try_send`](Self::try_send).
    fn send_once(&mut self) -> Result<bool> {
        let outgoing: Vec<Outgoing<'_>> = self
            .lines
            .pending
            .iter()
            .map(|prepared| prepared.outgoing(Some(&self.peer), self.lines.control()))
            .collect();
        let error = match self.client.socket()?.try_send(&outgoing) {
            Ok(0) => {
                if self.ready[ROOM].is_some() {
                    self.retry = Retry::AfterInterval;
                }
                return Ok(false);
            }
            Ok(count) => {
                let bytes = outgoing[..count].iter().map(|sent| sent.bytes.len());
                TOTALS.note_sent(count, bytes.sum());
                self.sent += count as u64;
                self.lines.pending.drain(..count);
                self.since = Instant::now();
                self.watch = None;
                return Ok(true);
            }
            Err(error) => error,
        };
        let head = outgoing.first().copied().unwrap_or_default();
        let error = match MemfdDatagram::replacing(&head, error, self.protocol.carrier()) {
            Ok(memfd) => {
                if let Some(head) = self.lines.pending.front_mut() {
                    head.memfd = Some(memfd);
                }
                return Ok(true);
            }
            Err(error) => error,
        };
        if error.kind() != ErrorKind::NobodyThere {
            return Err(error.into());
        }
        self.lose()?;
        if self.is_connected() || self.reconnects {
            Ok(self.is_connected())
        } else {
            Err(error.into())
        }
    }

    /// Gives up the connection to a peer that has closed its socket. Connects again at once if another socket
    /// has its address.
    fn lose(&mut self) -> Result<()> {
        let parked = if self.receiver.is_shared() {
            None
        } else {
            let parked = DatagramSocket::new()?;
            parked.autobind()?;
            self.client.socket()?.connect(&parked.local_address()?)?;
            Some(parked)
        };
        self.link = Link::Lost { _parked: parked };
        let first = self.watch.is_none();
        let peer = self.peer.address();
        self.watch.get_or_insert_with(|| PeerWatch::new(peer));
        // A socket that is there may accept nothing (EPIPE): wait before each further attempt.
        if first && !self.is_over() && self.establish()?.is_none() {
            return Ok(());
        }
        if self.reconnects {
            self.tell(format_args!(
                "{} has closed its socket: waiting for it",
                self.peer.address().quoted()
            ));
        }
        Ok(())
    }

    /// Reports that the peer has gone away while no line is to be sent. That ends the conversation unless
    /// the peer is awaited, or a user can act.
    fn report_loss(&self) -> Result<()> {
        if self.is_connected() || self.reconnects || self.is_over() {
            return Ok(());
        }
        let message = format!("{} has closed its socket", self.peer.address().quoted());
        if self.writer == Writer::Program {
            return Err(Failure::error(Exit::NobodyThere, message));
        }
        self.report.warning(format_args!(
            "{message} (hint: the next line connects to its address again, --wait does so at once)"
        ));
        Ok(())
    }

    /// Prints a message that concerns a user, and otherwise is a note.
    fn tell(&self, message: fmt::Arguments<'_>) {
        match self.writer {
            Writer::User => self.report.warning(message),
            Writer::Program => self.report.note(message),
        }
    }

    /// Connects to the peer's address again. Returns the failure if that is not possible now.
    fn establish(&mut self) -> Result<Option<Error>> {
        let socket = self.client.socket()?;
        if let (true, None) = (self.receiver.is_shared(), socket.peer_name()?) {
            // The kernel has forgotten the peer, and packets of others may be queued.
            self.receiver.drop_queued(&self.client)?;
        }
        if let Err(error) = socket.establish(&mut self.peer) {
            return Ok(Some(error));
        }
        self.receiver.strangers.peer = self.peer.peer_name();
        self.checked = Instant::now();
        if !self.is_connected() {
            self.link = Link::Connected;
            self.tell(format_args!(
                "connected to {} again",
                self.peer.address().quoted()
            ));
        }
        Ok(None)
    }

    /// Writes what stdout takes.
    fn print(&mut self) -> Result<()> {
        let output = &mut self.receiver.printer.output;
        if output.lines.is_empty() {
            return Ok(());
        }
        let written = output.flush_ready(&self.wake)?;
        if !written && self.ready[STDOUT].is_some() {
            self.retry = Retry::AfterInterval;
        }
        // Only waiting for packets counts against the timeout.
        self.since = Instant::now();
        Ok(())
    }

    /// Returns whether all lines were sent.
    fn is_over(&self) -> bool {
        self.lines.are_over()
    }

    fn has_ended(&self) -> bool {
        let output = &self.receiver.printer.output;
        self.is_over()
            && (!self.is_connected()
                || output.lines.is_empty()
                    && (self.timeout).is_some_and(|timeout| self.since.elapsed() >= timeout))
    }

    /// Waits until something can be done; does not wait if this process is `busy`.
    fn wait(&mut self, busy: bool) -> Result<()> {
        let mut deadline = Deadline::NEVER;
        let connected = self.is_connected();
        if busy {
            deadline = Deadline::after(Some(Duration::ZERO));
        } else if !connected && self.reconnects {
            self.await_peer()?;
            deadline = Deadline::after(Some(Duration::ZERO));
        }
        if connected {
            deadline = deadline.or_after(PEER_CHECK_INTERVAL);
        }
        if let (true, Some(timeout)) = (self.is_over(), self.timeout) {
            deadline = deadline.or_after(timeout.saturating_sub(self.since.elapsed()));
        }
        let mut waited = [None; MAX_WAITED];
        let socket = self.client.socket()?;
        let output = &self.receiver.printer.output;
        if self.lines.pending.is_empty() {
            let stdin = self.lines.watched();
            waited[STDIN] = stdin.map(|stdin| (stdin, Until::Readable));
        }
        if connected && !output.is_full() {
            waited[QUEUE] = Some((socket.as_fd(), Until::Readable));
        }
        if self.retry == Retry::AfterInterval {
            deadline = deadline.or_after(RETRY_INTERVAL);
        } else {
            if connected && !self.lines.pending.is_empty() {
                waited[ROOM] = Some((socket.as_fd(), Until::Writable));
            }
            if !output.lines.is_empty() {
                let stdout = output.watched();
                waited[STDOUT] = stdout.map(|stdout| (stdout, Until::Writable));
            }
        }
        self.ready = wait_any(waited, deadline, &self.wake)?;
        Ok(())
    }

    /// Waits for a moment for a peer that has closed its socket, and connects to it once it is there.
    fn await_peer(&mut self) -> Result<()> {
        let Some(watch) = &mut self.watch else {
            return Ok(());
        };
        // stdin and stdout are looked at in between.
        let soon = Deadline::after(Some(PEER_CHECK_INTERVAL));
        if watch.wait(soon, &self.wake)? {
            match self.establish()? {
                Some(error) if !may_become_reachable(&error) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Returns whether an error concerns the line at hand: no signal has come, and stdout is there.
fn is_about_line(error: &anyhow::Error) -> bool {
    !has_kind(error, ErrorKind::Stopped)
        && !has_kind(error, ErrorKind::OutputGone)
        && !matches!(Exit::of(error), Exit::Signal(_))
}
