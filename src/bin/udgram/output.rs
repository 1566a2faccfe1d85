//! Writes to stdout. Lines are collected while more packets are queued, and written before the program
//! waits.

use crate::exit::{Exit, Failure};
use crate::process;
use crate::stderr;
use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag};
use std::fs::Metadata;
use std::io::{IsTerminal, Stdout, stderr, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use udgram::wait::{Deadline, Until, Wake, pause, wait};
use udgram::{metadata, strerror};

/// The number of collected bytes at which they are written.
const MAX_COLLECTED: usize = 256 << 10;
/// The longest time for which a line is collected while more packets are queued.
const MAX_LATENCY: Duration = Duration::from_millis(1);
/// The number of bytes that a pipe takes without blocking if poll(2) reports it writable (`PIPE_BUF`).
const PIPE_ROOM: usize = 4096;
/// The longest time for which a blocked stdout delays the end of the program.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

static STDOUT: LazyLock<Stdout> = LazyLock::new(stdout);

/// stdout, with the lines that are collected for it.
#[derive(Debug)]
pub(crate) struct Output {
    /// The collected lines.
    pub(crate) lines: Vec<u8>,
    /// The time at which the oldest of them was seen.
    since: Option<Instant>,
    kind: Kind,
    /// A non-blocking descriptor of a terminal: a terminal that is stopped (Ctrl-S) may block a write(2)
    /// although poll(2) reports it writable.
    reopened: Option<OwnedFd>,
    /// True if stderr is the same file.
    shared: bool,
    /// True if stdout is a terminal.
    pub(crate) terminal: bool,
    /// The time that writing has taken so far.
    pub(crate) writing: Duration,
}

/// The kind of file that stdout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A file, or a device such as /dev/null: writing waits for no reader.
    File,
    /// A pipe, a socket or a terminal: its reader may be slow or exit.
    Reader,
    /// None: stdout was closed when the program started.
    Closed,
}

impl Output {
    pub(crate) fn new() -> Self {
        let terminal = STDOUT.is_terminal();
        let file = metadata(&*STDOUT).ok();
        let mode = file.as_ref().map_or(0, MetadataExt::mode);
        let identity = |file: Metadata| (file.dev(), file.ino());
        let shared = file.is_some_and(|file| {
            metadata(stderr()).is_ok_and(|other| identity(other) == identity(file))
        });
        let kind = match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
            _ if process::was_closed_at_start(1) => Kind::Closed,
            SFlag::S_IFREG | SFlag::S_IFBLK => Kind::File,
            SFlag::S_IFCHR if !terminal => Kind::File,
            _ => Kind::Reader,
        };
        // Another writer of the pipe may take the room between poll(2) and write(2), and a terminal that
        // is stopped takes less than it is ready for.
        let is_pipe = SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFIFO;
        let reopened = if kind == Kind::Reader && (terminal || is_pipe) {
            let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            open("/proc/self/fd/1", flags, Mode::empty()).ok()
        } else {
            None
        };
        Self {
            lines: Vec::new(),
            since: None,
            kind,
            reopened,
            shared,
            terminal,
            writing: Duration::ZERO,
        }
    }

    /// Fails if stdout was closed when the program started. Call it before a packet is received, which
    /// could not be printed.
    pub(crate) fn require() -> Result<()> {
        if process::was_closed_at_start(1) {
            return Err(closed());
        }
        Ok(())
    }

    /// Returns the number of columns of the terminal; 80 if it does not report any.
    pub(crate) fn width() -> usize {
        process::terminal_width(STDOUT.as_fd()).unwrap_or(80)
    }

    /// Returns the descriptor that a wait watches to notice that the reader of stdout has exited.
    pub(crate) fn watched(&self) -> Option<BorrowedFd<'static>> {
        (self.kind == Kind::Reader).then(|| STDOUT.as_fd())
    }

    /// Writes as many lines as stdout takes without waiting. Returns whether it took any.
    pub(crate) fn flush_ready(&mut self, wake: &Wake<'_>) -> Result<bool> {
        let before = self.lines.len();
        self.write(Deadline::after(Some(Duration::ZERO)), wake)?;
        Ok(self.lines.len() < before)
    }

    /// Returns whether the lines have reached 256 KiB.
    pub(crate) fn is_full(&self) -> bool {
        self.lines.len() >= MAX_COLLECTED
    }

    /// Writes the lines if they have reached 256 KiB.
    pub(crate) fn flush_if_full(&mut self, wake: &Wake<'_>) -> Result<()> {
        if !self.is_full() {
            return Ok(());
        }
        self.flush(wake)
    }

    /// Writes the lines if the oldest is 1 ms old at `now`.
    pub(crate) fn flush_if_stale(&mut self, now: Instant, wake: &Wake<'_>) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) < MAX_LATENCY {
            return Ok(());
        }
        self.flush(wake)
    }

    /// Writes all lines, waiting for the reader. After a failure, the unwritten ones are kept.
    pub(crate) fn flush(&mut self, wake: &Wake<'_>) -> Result<()> {
        self.write(Deadline::NEVER, wake)
    }

    /// Writes all lines before the program ends, waiting at most a second for the reader.
    pub(crate) fn flush_at_exit(&mut self) -> Result<()> {
        self.write(Deadline::after(Some(EXIT_TIMEOUT)), &Wake::default())
    }

    fn write(&mut self, deadline: Deadline, wake: &Wake<'_>) -> Result<()> {
        self.since = None;
        if self.lines.is_empty() {
            return Ok(());
        }
        // A notice would end the wait while stdout is still blocked.
        let wake = &wake.without_notice();
        let start = Instant::now();
        // A reader that is slow takes a line in several pieces.
        let held = self.shared.then(stderr::hold);
        let mut written = 0;
        let result = loop {
            let rest = &self.lines[written..];
            if rest.is_empty() {
                break Ok(());
            }
            match self.write_some(rest, deadline, wake) {
                Ok(Some(count)) => written += count,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        drop(held);
        self.writing += start.elapsed();
        self.lines.drain(..written);
        if self.lines.is_empty() {
            // Free the memory of a large packet.
            self.lines.shrink_to(2 * MAX_COLLECTED);
        }
        result
    }

    fn write_some(
        &self,
        bytes: &[u8],
        deadline: Deadline,
        wake: &Wake<'_>,
    ) -> Result<Option<usize>> {
        let bytes = match self.kind {
            Kind::Closed => return Err(closed()),
            Kind::File => bytes,
            Kind::Reader => {
                if wait(STDOUT.as_fd(), Until::Writable, deadline, wake)?.is_none() {
                    return Ok(None);
                }
                // poll(2) reports a terminal writable if it takes one character.
                let ready = if self.terminal && self.reopened.is_none() {
                    1
                } else {
                    PIPE_ROOM
                };
                &bytes[..bytes.len().min(ready)]
            }
        };
        let written = match &self.reopened {
            Some(terminal) => nix::unistd::write(terminal, bytes),
            None => nix::unistd::write(&*STDOUT, bytes),
        };
        match written {
            Ok(count) => Ok(Some(count)),
            Err(Errno::EINTR) => Ok(Some(0)),
            // A terminal with room for one character does not take a line end, which it makes two; or
            // stdout is non-blocking, because another process has set O_NONBLOCK.
            Err(Errno::EAGAIN) => {
                pause(deadline.or_after(MAX_LATENCY), wake)?;
                Ok((!deadline.passed()).then_some(0))
            }
            Err(Errno::EPIPE) => Err(Failure::error(
                Exit::Signal(Signal::SIGPIPE),
                "the reader of stdout is gone",
            )),
            Err(errno) => Err(Failure::error(
                Exit::Refused,
                format!("cannot write to stdout: {}", strerror(errno as i32)),
            )),
        }
    }
}

fn closed() -> anyhow::Error {
    Failure::error(Exit::Refused, "cannot write to stdout: it is closed")
}
