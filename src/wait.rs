//! Deadlines, and the one place that blocks: poll(2) on a socket and on what ends a wait early.

use crate::error::{Error, ErrorKind, Result, Subject};
use crate::sys;
use nix::errno::Errno;
use nix::libc::{POLLIN, POLLOUT, POLLRDHUP, pollfd};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// A moment after which a wait gives up; [`Deadline::NEVER`] is none.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// No limit.
    pub const NEVER: Self = Self(None);

    /// The moment `timeout` from now; `None`, and what the clock cannot express, is no limit.
    #[must_use]
    pub fn after(timeout: Option<Duration>) -> Self {
        Self(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    /// Whether the moment has come.
    #[must_use]
    pub fn passed(self) -> bool {
        self.0.is_some_and(|moment| moment <= Instant::now())
    }

    /// The earlier of the two.
    #[must_use]
    pub fn or_after(self, timeout: Duration) -> Self {
        let other = Self::after(Some(timeout));
        match (self.0, other.0) {
            (Some(one), Some(two)) => Self(Some(one.min(two))),
            (one, two) => Self(one.or(two)),
        }
    }

    /// Time left, zero once passed; `None` without a limit.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        self.0
            .map(|moment| moment.saturating_duration_since(Instant::now()))
    }
}

/// What ends a wait before its descriptor is ready.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wake<'a> {
    /// Readable when the process was asked to stop: the wait fails with [`ErrorKind::Stopped`].
    pub stop: Option<BorrowedFd<'a>>,
    /// The write end of a pipe or a socket, where output goes: when its reader is gone the wait
    /// fails with [`ErrorKind::OutputGone`].
    pub output: Option<BorrowedFd<'a>>,
    /// Readable when the client was closed: the wait fails with [`ErrorKind::Closed`].
    pub(crate) closed: Option<BorrowedFd<'a>>,
}

impl Wake<'_> {
    /// Whether something has ended the wait already, without waiting.
    pub fn check(&self) -> Result<()> {
        match poll_until(None, Deadline::after(Some(Duration::ZERO)), self) {
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }
}

/// What a descriptor is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// There is something to read, or nothing will come any more.
    Readable,
    /// There is room to write.
    Writable,
}

/// How a wait came to its normal end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// The descriptor is ready, or in error.
    Now,
    /// The reading side is shut down: nothing will come but what is there already.
    ShutDown,
}

/// Blocks until `fd` is ready.
///
/// Fails with [`ErrorKind::TimedOut`] when the deadline passes first, and as [`Wake`] says.
pub fn wait(
    fd: BorrowedFd<'_>,
    until: Until,
    deadline: Deadline,
    wake: &Wake<'_>,
) -> Result<Ready> {
    let events = match until {
        Until::Readable => POLLIN | POLLRDHUP,
        Until::Writable => POLLOUT,
    };
    let events = poll_until(Some(entry(fd, events)), deadline, wake)?;
    Ok(if events & POLLRDHUP == 0 {
        Ready::Now
    } else {
        Ready::ShutDown
    })
}

/// Lets the time pass until the deadline, which is its normal end.
pub fn pause(deadline: Deadline, wake: &Wake<'_>) -> Result<()> {
    match poll_until(None, deadline, wake) {
        Err(error) if error.kind() == ErrorKind::TimedOut => Ok(()),
        other => other.map(drop),
    }
}

fn entry(fd: BorrowedFd<'_>, events: i16) -> pollfd {
    pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    }
}

fn poll_until(ready: Option<pollfd>, deadline: Deadline, wake: &Wake<'_>) -> Result<i16> {
    // poll(2) passes over negative descriptors.
    let none = pollfd {
        fd: -1,
        events: 0,
        revents: 0,
    };
    let early = |fd: Option<BorrowedFd<'_>>, events| fd.map_or(none, |fd| entry(fd, events));
    let mut polled = [
        ready.unwrap_or(none),
        early(wake.stop, POLLIN),
        early(wake.closed, POLLIN),
        // An error on the write end of a pipe is reported without being asked for.
        early(wake.output, 0),
    ];
    let fail = |kind, cause: &str| Err(Error::new(kind, "wait", Subject::None, cause));
    loop {
        match sys::poll(&mut polled, deadline.remaining()) {
            Ok(()) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::system("wait", Subject::None, errno)),
        }
        match polled.map(|entry| entry.revents) {
            [_, 0, 0, 0] => {}
            [_, 0, 0, _] => return fail(ErrorKind::OutputGone, "the reader of the output is gone"),
            [_, 0, _, _] => return fail(ErrorKind::Closed, "it was closed"),
            _ => return fail(ErrorKind::Stopped, "a signal asked for the end"),
        }
        if polled[0].revents != 0 {
            return Ok(polled[0].revents);
        }
        if deadline.passed() {
            return fail(ErrorKind::TimedOut, "no time is left");
        }
    }
}
