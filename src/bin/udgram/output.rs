//! stdout: lines are collected while more packets come, and written before the program waits.

use crate::exit::{Exit, Failure};
use crate::process;
use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, fstat};
use std::io::{IsTerminal, Stdout, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use udgram::strerror;
use udgram::wait::{Deadline, Until, Wake, pause, wait};

/// How many bytes are collected before they are written.
const MAX_COLLECTED: usize = 256 << 10;
/// How long a line waits at most, while more packets come, to be written with others.
const LATENCY: Duration = Duration::from_millis(1);
/// What a pipe that is ready for writing takes without blocking (`PIPE_BUF`).
const READY: usize = 4096;
/// How long a blocked stdout delays the end of the program.
const GRACE: Duration = Duration::from_secs(1);

static STDOUT: LazyLock<Stdout> = LazyLock::new(stdout);

#[derive(Debug)]
pub(crate) struct Output {
    /// Lines to be written.
    pub(crate) lines: Vec<u8>,
    /// When the oldest of them was seen.
    since: Option<Instant>,
    kind: Kind,
    /// A terminal once more, non-blocking: one that is stopped may take less than it is ready for.
    reopened: Option<OwnedFd>,
    /// Whether a person reads it.
    pub(crate) terminal: bool,
    /// How much time writing has taken so far.
    pub(crate) writing: Duration,
}

/// What stdout is, as far as writing to it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A file, or a device like /dev/null: writing does not wait for anybody.
    File,
    /// A pipe, a socket, a terminal: whoever reads it may be slow, or go away.
    Reader,
    /// It was closed when the program started.
    Closed,
}

impl Output {
    pub(crate) fn new() -> Self {
        let terminal = STDOUT.is_terminal();
        let mode = fstat(&*STDOUT).map_or(0, |status| status.st_mode);
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
            terminal,
            writing: Duration::ZERO,
        }
    }

    /// Fails if stdout was closed when the program started. Call it before a packet is taken that
    /// could not be printed.
    pub(crate) fn require() -> Result<()> {
        if process::was_closed_at_start(1) {
            return Err(closed());
        }
        Ok(())
    }

    /// Returns how many columns the terminal has: 80 if it does not say.
    pub(crate) fn width() -> usize {
        process::terminal_width(STDOUT.as_fd()).unwrap_or(80)
    }

    /// Returns what a wait watches to end when the reader of stdout goes away.
    pub(crate) fn watched(&self) -> Option<BorrowedFd<'static>> {
        (self.kind == Kind::Reader).then(|| STDOUT.as_fd())
    }

    /// Writes the lines if there are many.
    pub(crate) fn flush_if_full(&mut self, wake: &Wake<'_>) -> Result<()> {
        if self.lines.len() < MAX_COLLECTED {
            return Ok(());
        }
        self.flush(wake)
    }

    /// Writes the lines if the oldest has waited long enough at `now`.
    pub(crate) fn flush_if_stale(&mut self, now: Instant, wake: &Wake<'_>) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) < LATENCY {
            return Ok(());
        }
        self.flush(wake)
    }

    /// Writes everything, waiting for the reader. What is left after a failure is kept.
    pub(crate) fn flush(&mut self, wake: &Wake<'_>) -> Result<()> {
        self.write(Deadline::NEVER, wake)
    }

    /// Writes everything before the program ends, waiting at most a second for the reader.
    pub(crate) fn flush_at_exit(&mut self) -> Result<()> {
        self.write(Deadline::after(Some(GRACE)), &Wake::default())
    }

    fn write(&mut self, deadline: Deadline, wake: &Wake<'_>) -> Result<()> {
        self.since = None;
        if self.lines.is_empty() {
            return Ok(());
        }
        // A notice would end the wait for a stdout that is still blocked.
        let wake = &wake.without_notice();
        let start = Instant::now();
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
        self.writing += start.elapsed();
        self.lines.drain(..written);
        if self.lines.is_empty() {
            // What a large packet took is given back.
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
                // A terminal is ready as soon as it takes one character.
                let ready = if self.terminal && self.reopened.is_none() {
                    1
                } else {
                    READY
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
            // A terminal with room for one character does not take a line end, which is two; a
            // stdout that somebody has made non-blocking is waited for all the same.
            Err(Errno::EAGAIN) => {
                pause(deadline.or_after(LATENCY), wake)?;
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
