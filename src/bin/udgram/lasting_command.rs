//! A command that keeps running: its stdin and its stdout are pipes that never block udgram, and its end is
//! bounded in time.

use crate::process::{SpawnedProcess, bytes_in_pipe, pidfd, take_broken_pipe};
use crate::shell::ShellLine;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, pipe2};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// The number of bytes in a read(2): a pipe holds no more by default.
const READ_SIZE: usize = 64 << 10;
/// The longest line. The kernel carries about 4 MiB in a datagram, and a line has at most 6 bytes for each.
const MAX_LINE: usize = 32 << 20;
/// The time between two checks whether the command has ended, without pidfd_open(2).
const EXIT_CHECK_INTERVAL: Duration = Duration::from_millis(5);
/// The time from SIGTERM to SIGKILL.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(1);

/// The descriptors that epoll(7) reports.
const OUTPUT: u64 = 0;
const INPUT: u64 = 1;
const ENDED: u64 = 2;
const OTHER: u64 = 3;

/// A running command.
pub(crate) struct LastingCommand {
    child: SpawnedProcess,
    /// The byte that ends a line.
    line_end: u8,
    /// Readable when [`read`](Self::read) or [`write`](Self::write) has something to do.
    events: Epoll,
    /// Readable when the command has ended; `None` before Linux 5.3, which has no pidfd_open(2).
    pidfd: Option<OwnedFd>,
    /// The pipe to its stdin; `None` once that is closed.
    input: Option<OwnedFd>,
    /// The lines for its stdin, until all of them are written.
    lines: Vec<u8>,
    /// The number of bytes of `lines` that are written.
    written: usize,
    /// True if `events` reports space in the pipe.
    awaits_space: bool,
    /// The pipe from its stdout; `None` once its end is read.
    output: Option<OwnedFd>,
    /// The bytes from its stdout, from the start of the first line that was not taken.
    printed: Vec<u8>,
    /// The number of bytes of `printed` that were taken.
    taken: usize,
    /// The number of bytes of `printed` that were searched for a line end.
    searched: usize,
    buffer: Box<[u8]>,
    stage: Stage,
    /// True once it has closed its stdin or its stdout.
    faulty: bool,
}

/// The stage of the life of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    /// It runs.
    Running,
    /// Its stdin is closed once all is written; it gets SIGTERM at this time, if there is one.
    Closing(Option<Instant>),
    /// It was sent SIGTERM; it gets SIGKILL at this time.
    Terminated(Instant),
    /// It has ended by itself; `None` if its status is unknown, because it was reaped elsewhere.
    Ended(Option<ExitStatus>),
    /// It has ended after a signal from here.
    Killed,
}

/// A fault of a command, after which nothing more can be exchanged with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It has closed its stdin.
    ClosedInput,
    /// It has closed its stdout.
    ClosedOutput,
    /// It has printed more than the longest line.
    TooLong,
}

impl LastingCommand {
    /// Starts a command that prints lines which end with `line_end`.
    pub(crate) fn start(line: &ShellLine<'_>, line_end: u8) -> Result<Self> {
        let waiting = "cannot wait for CMD";
        let (stdin, input) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        let (output, stdout) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        // The ends of the command stay blocking.
        for end in [&input, &output] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context(waiting)?;
        }
        let child = line.start(stdin.as_fd(), stdout.as_fd(), &[], &[])?;
        let pidfd = pidfd(child.id()).ok();
        let events = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context(waiting)?;
        for (descriptor, name) in [(Some(&output), OUTPUT), (pidfd.as_ref(), ENDED)] {
            if let Some(descriptor) = descriptor {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, name);
                events.add(descriptor, event).context(waiting)?;
            }
        }
        Ok(Self {
            child,
            line_end,
            events,
            pidfd,
            input: Some(input),
            lines: Vec::new(),
            written: 0,
            awaits_space: false,
            output: Some(output),
            printed: Vec::new(),
            taken: 0,
            searched: 0,
            buffer: vec![0; READ_SIZE].into(),
            stage: Stage::Running,
            faulty: false,
        })
    }

    /// Returns a descriptor that is readable when [`read`](Self::read) or [`write`](Self::write) has something to
    /// do.
    pub(crate) fn events(&self) -> BorrowedFd<'_> {
        self.events.0.as_fd()
    }

    /// Makes [`events`](Self::events) readable when `other` is, too, as long as a copy of it is open.
    pub(crate) fn watch(&self, other: BorrowedFd<'_>) -> Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, OTHER);
        self.events.add(other, event).context("cannot wait for CMD")
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended(_) | Stage::Killed)
    }

    /// Returns whether all lines for it are written, and more may be added.
    pub(crate) fn takes_lines(&self) -> bool {
        matches!(self.stage, Stage::Running) && self.lines.is_empty()
    }

    /// Adds a line, with its line end, for its stdin. [`write`](Self::write) writes it.
    pub(crate) fn push(&mut self, line: &[u8]) {
        self.lines.extend_from_slice(line);
    }

    /// Returns the next line that it has printed, without the line end.
    pub(crate) fn next_line(&mut self) -> Option<&[u8]> {
        let Some(end) = memchr::memchr(self.line_end, &self.printed[self.searched..]) else {
            self.searched = self.printed.len();
            return None;
        };
        let end = self.searched + end;
        let start = std::mem::replace(&mut self.taken, end + 1);
        self.searched = self.taken;
        Some(&self.printed[start..end])
    }

    /// Returns whether it has printed the beginning of a line.
    pub(crate) fn is_inside_line(&self) -> bool {
        self.taken < self.printed.len()
    }

    /// Reads what it has printed without waiting, notices its end, and ends it when its time is over. Call
    /// [`next_line`](Self::next_line) until it returns `None` before the next call.
    pub(crate) fn read(&mut self) -> Result<(), Fault> {
        if self.has_ended() {
            return Ok(());
        }
        let mut events = [EpollEvent::empty(); 4];
        let count = self.events.wait(&mut events, EpollTimeout::ZERO);
        let ready = &events[..count.unwrap_or(0)];
        let is_ready = |name| ready.iter().any(|event| event.data() == name);
        let read = if is_ready(OUTPUT) {
            self.read_once()
        } else {
            Ok(())
        };
        if is_ready(ENDED) || self.pidfd.is_none() {
            self.check_end();
        }
        self.pass_deadlines();
        if self.has_ended() { Ok(()) } else { read }
    }

    /// Writes the lines to its stdin until that is full.
    pub(crate) fn write(&mut self) -> Result<(), Fault> {
        while let Some(input) = self
            .input
            .as_ref()
            .filter(|_| self.written < self.lines.len())
        {
            match nix::unistd::write(input, &self.lines[self.written..]) {
                Ok(count) => self.written += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.watch_space(true);
                    return Ok(());
                }
                Err(_) => {
                    // The signal would end udgram, as the end of the reader of stdout does.
                    take_broken_pipe();
                    self.input = None;
                    self.lines.clear();
                    self.written = 0;
                    self.faulty = true;
                    return Err(Fault::ClosedInput);
                }
            }
        }
        self.watch_space(false);
        self.lines.clear();
        self.written = 0;
        // Free the memory of large packets.
        self.lines.shrink_to(2 * READ_SIZE);
        if matches!(self.stage, Stage::Closing(_)) {
            self.input = None;
        }
        Ok(())
    }

    /// Makes `events` report space in the pipe to its stdin only while that is full: a pipe without a reader would
    /// be reported all the time.
    fn watch_space(&mut self, full: bool) {
        let Some(input) = self.input.as_ref().filter(|_| full != self.awaits_space) else {
            return;
        };
        let changed = if full {
            let event = EpollEvent::new(EpollFlags::EPOLLOUT, INPUT);
            self.events.add(input, event)
        } else {
            self.events.delete(input)
        };
        if changed.is_ok() {
            self.awaits_space = full;
        }
    }

    /// Reads from its stdout once.
    fn read_once(&mut self) -> Result<(), Fault> {
        let Some(output) = &self.output else {
            return Ok(());
        };
        match nix::unistd::read(output, &mut self.buffer) {
            Ok(0) => {
                self.output = None;
                self.faulty = true;
                return Err(Fault::ClosedOutput);
            }
            Ok(count) => self.add_printed(count),
            Err(_) => {}
        }
        // The bytes of a line whose end was not in what came before.
        if self.searched > MAX_LINE {
            return Err(Fault::TooLong);
        }
        Ok(())
    }

    /// Adds the first bytes of the buffer to what it has printed.
    fn add_printed(&mut self, count: usize) {
        self.printed.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        if self.printed.is_empty() {
            // Free the memory of a large line.
            self.printed.shrink_to(2 * READ_SIZE);
        }
        self.printed.extend_from_slice(&self.buffer[..count]);
    }

    /// Checks whether the command has ended, and then reads what the pipe from its stdout holds. It does not
    /// read until the end of the pipe: a background process of the command may write to it forever.
    fn check_end(&mut self) {
        let status = match self.child.try_wait() {
            Ok(None) => return,
            Ok(status) => status,
            // ECHILD: it was reaped elsewhere.
            Err(_) => None,
        };
        let mut left = match &self.output {
            Some(output) => bytes_in_pipe(output.as_fd()).unwrap_or(0),
            None => 0,
        };
        while left > 0 && self.output.is_some() && self.read_once().is_ok() {
            left = left.saturating_sub(READ_SIZE);
        }
        self.stage = match self.stage {
            Stage::Terminated(_) => Stage::Killed,
            _ => Stage::Ended(status),
        };
        self.input = None;
        self.output = None;
    }

    /// Closes its stdin once all is written. It is ended if it has not ended by the deadline.
    pub(crate) fn close(&mut self, deadline: Option<Instant>) {
        if matches!(self.stage, Stage::Running | Stage::Closing(_)) {
            self.stage = Stage::Closing(deadline);
            // The pipe is closed at once if nothing is left to write.
            let _ = self.write();
        }
    }

    /// Returns whether it has closed its stdin or its stdout: it may answer no more.
    pub(crate) fn is_faulty(&self) -> bool {
        self.faulty
    }

    fn pass_deadlines(&mut self) {
        let now = Instant::now();
        match self.stage {
            Stage::Closing(Some(deadline)) if deadline <= now => {
                self.signal(Signal::SIGTERM);
                self.stage = Stage::Terminated(now + TERMINATION_TIMEOUT);
            }
            Stage::Terminated(deadline) if deadline <= now => self.kill(),
            _ => {}
        }
    }

    /// Returns the time until the next call of [`read`](Self::read), if that does not depend on `events`
    /// alone.
    pub(crate) fn soon(&self) -> Option<Duration> {
        let deadline = match self.stage {
            Stage::Running | Stage::Closing(None) => None,
            Stage::Closing(Some(deadline)) | Stage::Terminated(deadline) => {
                Some(deadline.saturating_duration_since(Instant::now()))
            }
            Stage::Ended(_) | Stage::Killed => Some(Duration::ZERO),
        };
        let check = self.pidfd.is_none().then_some(EXIT_CHECK_INTERVAL);
        deadline.into_iter().chain(check).min()
    }

    /// Drops what it has printed and was not taken.
    pub(crate) fn discard_printed(&mut self) {
        self.printed.clear();
        self.taken = 0;
        self.searched = 0;
    }

    /// Kills the command and the processes that it has started.
    pub(crate) fn kill(&mut self) {
        if self.has_ended() {
            return;
        }
        self.signal(Signal::SIGKILL);
        self.child.wait();
        self.stage = Stage::Killed;
        self.input = None;
        self.output = None;
    }

    /// Sends a signal to the process group of the command.
    fn signal(&self, signal: Signal) {
        // ESRCH: all of its processes have ended.
        let _ = killpg(Pid::from_raw(self.child.id()), signal);
    }
}

impl Drop for LastingCommand {
    fn drop(&mut self) {
        // udgram ends without waiting for it, for example because the reader of stdout has exited.
        self.kill();
    }
}
