//! Deadlines, and the one place that blocks: ppoll(2) on a descriptor and on those that end a wait
//! early.

use crate::error::{Error, ErrorKind, Result, Subject};
use crate::sys;
use nix::errno::Errno;
use nix::libc::{POLLIN, POLLOUT, POLLRDHUP, pollfd};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// The number of descriptors that [`wait_any`] takes.
pub const MAX_WAITED: usize = 4;

/// An entry that poll(2) ignores: its descriptor is negative.
const NOT_POLLED: pollfd = pollfd {
    fd: -1,
    events: 0,
    revents: 0,
};

/// The moment at which a wait gives up; [`Deadline::NEVER`] sets no limit.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// Sets no limit.
    pub const NEVER: Self = Self(None);

    /// Returns the moment `timeout` from now. `None`, and a time that the clock cannot express, set no
    /// limit.
    #[must_use]
    pub fn after(timeout: Option<Duration>) -> Self {
        Self(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    /// Sets the limit at a moment.
    #[must_use]
    pub fn at(moment: Instant) -> Self {
        Self(Some(moment))
    }

    /// Returns whether the deadline has passed.
    #[must_use]
    pub fn passed(self) -> bool {
        self.0.is_some_and(|moment| moment <= Instant::now())
    }

    /// Returns this deadline or the moment `timeout` from now, whichever is earlier.
    #[must_use]
    pub fn or_after(self, timeout: Duration) -> Self {
        self.or(Self::after(Some(timeout)))
    }

    /// Returns this deadline or the other, whichever is earlier.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(one), Some(two)) => Self(Some(one.min(two))),
            (one, two) => Self(one.or(two)),
        }
    }

    /// Returns the deadline moved by `time`: a wait that did not count against it.
    #[must_use]
    pub fn extended(self, time: Duration) -> Self {
        Self(self.0.and_then(|moment| moment.checked_add(time)))
    }

    /// Returns the time left, zero once it has passed; `None` without a limit.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        self.0
            .map(|moment| moment.saturating_duration_since(Instant::now()))
    }
}

/// The descriptors that end a wait early.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Wake<'a> {
    /// Becomes readable when the process is asked to stop: the wait fails with
    /// [`ErrorKind::Stopped`].
    pub stop: Option<BorrowedFd<'a>>,
    /// The write end of a pipe or a socket that output goes to: when its reader goes away, the wait
    /// fails with [`ErrorKind::OutputGone`].
    pub output: Option<BorrowedFd<'a>>,
    /// Becomes readable when the caller has something else to do: the wait ends with
    /// [`Ready::Notice`].
    pub notice: Option<BorrowedFd<'a>>,
    /// Becomes readable when the client is closed: the wait fails with [`ErrorKind::Closed`].
    pub(crate) closed: Option<BorrowedFd<'a>>,
}

impl<'a> Wake<'a> {
    /// Makes one of these two descriptors.
    #[must_use]
    pub fn new(stop: Option<BorrowedFd<'a>>, output: Option<BorrowedFd<'a>>) -> Self {
        Self {
            stop,
            output,
            ..Self::default()
        }
    }

    /// Returns the same without [`notice`](Self::notice).
    #[must_use]
    pub fn without_notice(self) -> Self {
        Self {
            notice: None,
            ..self
        }
    }

    /// Fails if a wait would end early; does not wait. `Ok(true)` says that
    /// [`notice`](Self::notice) is readable.
    pub fn check(&self) -> Result<bool> {
        let now = Deadline::after(Some(Duration::ZERO));
        let ended = poll_until(&mut [NOT_POLLED; MAX_WAITED], now, self)?;
        Ok(ended == Some(Ready::Notice))
    }
}

/// The event that a descriptor is polled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// A datagram is queued, or none can arrive any more.
    Readable,
    /// There is room to write.
    Writable,
}

impl Until {
    fn events(self) -> i16 {
        match self {
            Self::Readable => POLLIN | POLLRDHUP,
            Self::Writable => POLLOUT,
        }
    }
}

/// The event that ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ready {
    /// The descriptor is ready, or in error.
    Now,
    /// The reading side is shut down: queued datagrams can still be read, and no others can arrive.
    ShutDown,
    /// [`Wake::notice`] is readable.
    Notice,
}

/// Blocks until `fd` is ready; ppoll(2). `None` says that the deadline passed first.
///
/// Fails as [`Wake`] says.
pub fn wait(
    fd: impl AsFd,
    until: Until,
    deadline: Deadline,
    wake: &Wake<'_>,
) -> Result<Option<Ready>> {
    let mut polled = [NOT_POLLED; MAX_WAITED];
    polled[0] = entry(fd.as_fd(), until.events());
    poll_until(&mut polled, deadline, wake)
}

/// Blocks until one of several descriptors is ready; ppoll(2). Entries that are `None` are not waited
/// for. Returns the event of each entry: none if the deadline passed first, or if [`Wake::notice`] is
/// readable.
///
/// Fails as [`Wake`] says.
pub fn wait_any(
    waited: [Option<(BorrowedFd<'_>, Until)>; MAX_WAITED],
    deadline: Deadline,
    wake: &Wake<'_>,
) -> Result<[Option<Ready>; MAX_WAITED]> {
    let mut polled =
        waited.map(|waited| waited.map_or(NOT_POLLED, |(fd, until)| entry(fd, until.events())));
    poll_until(&mut polled, deadline, wake)?;
    Ok(polled.map(|polled| event(polled.revents)))
}

/// Blocks until the deadline, or until [`Wake::notice`] is readable.
///
/// Fails as [`Wake`] says.
pub fn pause(deadline: Deadline, wake: &Wake<'_>) -> Result<()> {
    poll_until(&mut [NOT_POLLED; MAX_WAITED], deadline, wake).map(drop)
}

fn entry(fd: BorrowedFd<'_>, events: i16) -> pollfd {
    pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    }
}

/// Returns the event of a descriptor that is waited for.
fn event(revents: i16) -> Option<Ready> {
    if revents & POLLRDHUP != 0 {
        return Some(Ready::ShutDown);
    }
    (revents != 0).then_some(Ready::Now)
}

/// Blocks until an entry of `waited` is ready, and returns its event.
fn poll_until(
    waited: &mut [pollfd; MAX_WAITED],
    deadline: Deadline,
    wake: &Wake<'_>,
) -> Result<Option<Ready>> {
    let early = |fd: Option<BorrowedFd<'_>>, events| fd.map_or(NOT_POLLED, |fd| entry(fd, events));
    let [first, second, third, fourth] = *waited;
    let mut polled = [
        first,
        second,
        third,
        fourth,
        early(wake.stop, POLLIN),
        early(wake.closed, POLLIN),
        // poll(2) always reports POLLERR on the write end of a pipe without a reader.
        early(wake.output, 0),
        early(wake.notice, POLLIN),
    ];
    let fail = |kind, cause| Err(Error::new(kind, "wait", Subject::None, cause));
    loop {
        match sys::poll(&mut polled, deadline.remaining()) {
            Ok(()) | Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(Error::system("wait", Subject::None, errno).of_call("ppoll", "2.6.16"));
            }
        }
        let [.., stop, closed, output, notice] = polled.map(|entry| entry.revents);
        if stop != 0 {
            return fail(ErrorKind::Stopped, "the process was asked to stop");
        }
        if closed != 0 {
            return fail(ErrorKind::Closed, "the client was closed");
        }
        if output != 0 {
            return fail(ErrorKind::OutputGone, "the reader of the output is gone");
        }
        waited.copy_from_slice(&polled[..MAX_WAITED]);
        let ready = waited.iter().find_map(|entry| event(entry.revents));
        if ready.is_some() {
            return Ok(ready);
        }
        if notice != 0 {
            return Ok(Some(Ready::Notice));
        }
        if deadline.passed() {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_check_says_whether_a_wait_would_end_early() {
        let (mut writer, readable) = UnixStream::pair().unwrap();
        writer.write_all(b"1").unwrap();
        let (_writer, quiet) = UnixStream::pair().unwrap();
        let wake = |stop: bool, notice: bool| {
            let event = |on: bool| Some(if on { readable.as_fd() } else { quiet.as_fd() });
            Wake {
                notice: event(notice),
                ..Wake::new(event(stop), None)
            }
        };
        assert!(!wake(false, false).check().unwrap());
        assert!(wake(false, true).check().unwrap());
        assert!(!wake(false, true).without_notice().check().unwrap());
        for notice in [false, true] {
            let error = wake(true, notice).check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Stopped);
        }
    }
}
