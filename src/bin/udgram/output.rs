//! stdout: packets are gathered while more keep coming, and written before the program waits.

use crate::exit::{Exit, Failure};
use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, fstat};
use std::io::{IsTerminal, Stdout, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use udgram::describe;
use udgram::wait::{Deadline, Until, Wake, pause, wait};

/// What is gathered at most before it is written.
const GATHERED: usize = 256 << 10;
/// How long a packet waits at most for others to be written with, where more keep coming.
const LATENCY: Duration = Duration::from_millis(1);
/// What a pipe that is ready for writing takes without blocking (`PIPE_BUF`).
const READY: usize = 4096;
/// How long a blocked stdout holds up a program that was told to end.
const GRACE: Duration = Duration::from_secs(1);

static STDOUT: LazyLock<Stdout> = LazyLock::new(stdout);

#[derive(Debug)]
pub(crate) struct Output {
    /// Lines to be written.
    pub(crate) lines: Vec<u8>,
    /// When the oldest of them was put there.
    since: Option<Instant>,
    kind: Kind,
    /// A terminal once more, non-blocking: one that is stopped may take less than it is ready for.
    reopened: Option<OwnedFd>,
    /// Whether a person reads it.
    pub(crate) terminal: bool,
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
            _ if crate::process::was_closed_at_start(1) => Kind::Closed,
            SFlag::S_IFREG | SFlag::S_IFBLK => Kind::File,
            SFlag::S_IFCHR if !terminal => Kind::File,
            _ => Kind::Reader,
        };
        let reopened = if terminal {
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
        }
    }

    /// Fails if stdout was closed when the program started: to be asked before any packet is
    /// taken that could not be printed.
    pub(crate) fn require() -> Result<()> {
        if crate::process::was_closed_at_start(1) {
            return Err(closed());
        }
        Ok(())
    }

    /// What a wait is to watch, so that it ends when the reader goes.
    pub(crate) fn watched(&self) -> Option<BorrowedFd<'static>> {
        (self.kind == Kind::Reader).then(|| STDOUT.as_fd())
    }

    /// Writes what has been gathered if it is much.
    pub(crate) fn make_room(&mut self, wake: &Wake<'_>) -> Result<()> {
        if self.lines.len() < GATHERED {
            return Ok(());
        }
        self.flush(wake)
    }

    /// Writes what has been gathered if it is old by `now`.
    pub(crate) fn keep_up(&mut self, now: Instant, wake: &Wake<'_>) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) < LATENCY {
            return Ok(());
        }
        self.flush(wake)
    }

    /// Writes everything, waiting for the reader; what is left after a failure is kept.
    pub(crate) fn flush(&mut self, wake: &Wake<'_>) -> Result<()> {
        self.write(Deadline::NEVER, wake)
    }

    /// Writes everything before the program ends; a reader that takes nothing is not waited for
    /// any longer than a second.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.write(Deadline::after(Some(GRACE)), &Wake::default())
    }

    fn write(&mut self, deadline: Deadline, wake: &Wake<'_>) -> Result<()> {
        self.since = None;
        let mut written = 0;
        let result = loop {
            let rest = &self.lines[written..];
            if rest.is_empty() {
                break Ok(());
            }
            match self.write_some(rest, deadline, wake) {
                Ok(count) => written += count,
                Err(error) => break Err(error),
            }
        };
        self.lines.drain(..written);
        if self.lines.is_empty() {
            // What a large packet took is given back.
            self.lines.shrink_to(2 * GATHERED);
        }
        result
    }

    fn write_some(&self, bytes: &[u8], deadline: Deadline, wake: &Wake<'_>) -> Result<usize> {
        let bytes = match self.kind {
            Kind::Closed => return Err(closed()),
            Kind::File => bytes,
            Kind::Reader => {
                wait(STDOUT.as_fd(), Until::Writable, deadline, wake)?;
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
            Ok(count) => Ok(count),
            Err(Errno::EINTR) => Ok(0),
            // A terminal with room for one character does not take a line end, which is two; a
            // stdout that somebody has made non-blocking is waited for all the same.
            Err(Errno::EAGAIN) => {
                pause(deadline.or_after(LATENCY), wake)?;
                Ok(0)
            }
            Err(Errno::EPIPE) => Err(Failure::error(
                Exit::Signal(Signal::SIGPIPE),
                "the reader of stdout is gone",
            )),
            Err(errno) => Err(Failure::error(
                Exit::Refused,
                format!("cannot write to stdout: {}", describe(errno)),
            )),
        }
    }
}

fn closed() -> anyhow::Error {
    Failure::error(Exit::Refused, "cannot write to stdout: it is closed")
}
