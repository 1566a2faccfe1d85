//! Writes messages to stderr. The program waits at most one second in all for a reader that does not
//! read. After that, messages for which there is no room are dropped and counted, and the number is
//! printed when there is room again.

use crate::process;
use crate::signal;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag};
use std::io::{self, IsTerminal, stderr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use udgram::wait::{Deadline, Until, Wake, pause, wait};
use udgram::{ErrorKind, metadata};

/// The longest time that the program waits for stderr, for all messages together.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// The number of bytes that a pipe takes without blocking if poll(2) reports it writable (`PIPE_BUF`).
const PIPE_ROOM: usize = 4096;
/// The time to wait if poll(2) reports room and write(2) finds none.
const PAUSE: Duration = Duration::from_millis(1);

static STDERR: Mutex<Stderr> = Mutex::new(Stderr {
    kind: Kind::Unknown,
    rest: Vec::new(),
    wait_left: MAX_WAIT,
    lost: 0,
});

static STANDARD: LazyLock<io::Stderr> = LazyLock::new(stderr);

struct Stderr {
    kind: Kind,
    /// The unwritten rest of the current message.
    rest: Vec<u8>,
    /// The time that the program may still wait.
    wait_left: Duration,
    /// The number of messages dropped since the last notice.
    lost: u64,
}

/// The kind of file that stderr is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Not determined yet: nothing has been written.
    Unknown,
    /// A file, or a device such as /dev/null: writing waits for no reader.
    File,
    /// A pipe, whose reader may be slow or exit. It can be reopened through /proc.
    Pipe,
    /// A terminal. It can be reopened through /proc.
    Terminal,
    /// A socket, which cannot be reopened.
    Socket,
    /// None: stderr was closed when the program started.
    Closed,
}

/// The descriptor that a message is written to.
struct Channel {
    /// A non-blocking descriptor of a pipe or a terminal: another process may fill the pipe between
    /// poll(2) and write(2), and a terminal that is stopped (Ctrl-S) may block although poll(2) reports
    /// it writable. It is open for one message only, so that it takes no number that a received
    /// descriptor needs (`RLIMIT_NOFILE`).
    reopened: Option<OwnedFd>,
    /// The largest number of bytes in a write(2).
    max: usize,
}

impl Channel {
    fn open(kind: Kind) -> Self {
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let reopened = match kind {
            Kind::Pipe | Kind::Terminal => open("/proc/self/fd/2", flags, Mode::empty()).ok(),
            _ => None,
        };
        let max = match kind {
            Kind::File => usize::MAX,
            // poll(2) reports a terminal writable if it takes one character.
            Kind::Terminal if reopened.is_none() => 1,
            _ => PIPE_ROOM,
        };
        Self { reopened, max }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.reopened {
            Some(reopened) => reopened.as_fd(),
            // std never closes it.
            None => STANDARD.as_fd(),
        }
    }

    fn write(&self, bytes: &[u8]) -> nix::Result<usize> {
        nix::unistd::write(self.fd(), &bytes[..bytes.len().min(self.max)])
    }

    /// Waits until there is room, for `timeout` at most. Returns `false` if there is none.
    fn wait(&self, timeout: Duration, stop: Option<BorrowedFd<'_>>) -> udgram::Result<bool> {
        let wake = Wake::new(stop, Some(self.fd()));
        let deadline = Deadline::after(Some(timeout));
        wait(self.fd(), Until::Writable, deadline, &wake).map(|ready| ready.is_some())
    }
}

/// Returns whether stderr is a terminal.
pub(crate) fn is_terminal() -> bool {
    lock().kind == Kind::Terminal
}

/// Writes a line. Does nothing if stderr is closed, full or without a reader: there is no other place
/// to report that.
pub(crate) fn write_line(line: &str) {
    lock().put(line.as_bytes());
}

/// Writes text that is redrawn later, unless stderr has no room now or a message waits.
pub(crate) fn draw(text: &str) {
    let stderr = lock();
    if stderr.kind == Kind::Closed || !stderr.rest.is_empty() || stderr.lost > 0 {
        return;
    }
    let channel = Channel::open(stderr.kind);
    if matches!(channel.wait(Duration::ZERO, None), Ok(true)) {
        // A failure or a partial write is corrected by the next redraw.
        let _ = channel.write(text.as_bytes());
    }
}

/// Writes the rest of the last message and the number of dropped messages before the program ends.
pub(crate) fn finish() {
    let mut stderr = STDERR.lock().unwrap_or_else(PoisonError::into_inner);
    if stderr.write_rest() {
        stderr.put_notice();
    }
}

fn lock() -> MutexGuard<'static, Stderr> {
    let mut stderr = STDERR.lock().unwrap_or_else(PoisonError::into_inner);
    if stderr.kind == Kind::Unknown {
        stderr.detect_kind();
    }
    stderr
}

impl Stderr {
    fn detect_kind(&mut self) {
        let mode = metadata(stderr()).map_or(0, |metadata| metadata.mode());
        self.kind = match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
            _ if process::was_closed_at_start(2) => Kind::Closed,
            SFlag::S_IFIFO => Kind::Pipe,
            SFlag::S_IFSOCK => Kind::Socket,
            _ if stderr().is_terminal() => Kind::Terminal,
            _ => Kind::File,
        };
    }

    fn put(&mut self, line: &[u8]) {
        if self.kind == Kind::Closed {
            return;
        }
        if !self.write_rest() || !self.put_notice() {
            self.lost += 1;
            return;
        }
        self.rest.extend_from_slice(line);
        self.write_rest();
    }

    /// Writes how many messages were dropped, if any were. Returns whether nothing is left to write.
    fn put_notice(&mut self) -> bool {
        let notice = match std::mem::take(&mut self.lost) {
            0 => return true,
            1 => "udgram: warning: 1 message was lost, for stderr took nothing\n".to_owned(),
            lost => {
                format!("udgram: warning: {lost} messages were lost, for stderr took nothing\n")
            }
        };
        self.rest.extend_from_slice(notice.as_bytes());
        self.write_rest()
    }

    /// Writes the rest of the current message. Returns whether nothing is left to write.
    fn write_rest(&mut self) -> bool {
        if self.rest.is_empty() {
            return true;
        }
        let channel = Channel::open(self.kind);
        while !self.rest.is_empty() {
            if !self.has_room(&channel) {
                return self.rest.is_empty();
            }
            match channel.write(&self.rest) {
                Ok(count) => drop(self.rest.drain(..count)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if self.wait_left.is_zero() => return false,
                Err(Errno::EAGAIN) => {
                    let begin = Instant::now();
                    // If the pause fails, the next attempt follows at once.
                    let _ = pause(Deadline::after(Some(PAUSE)), &Wake::default());
                    self.wait_left = self.wait_left.saturating_sub(begin.elapsed());
                }
                // Drop the rest. The cause may be temporary (ENOSPC), so the next message is tried.
                Err(_) => self.rest.clear(),
            }
        }
        true
    }

    /// Waits for room. A signal that ends the program ends the wait, too.
    fn has_room(&mut self, channel: &Channel) -> bool {
        if self.kind == Kind::File {
            return true;
        }
        let mut room = channel.wait(Duration::ZERO, None);
        if matches!(room, Ok(false)) && !self.wait_left.is_zero() {
            let begin = Instant::now();
            room = channel.wait(self.wait_left, signal::stop_descriptor());
            self.wait_left = self.wait_left.saturating_sub(begin.elapsed());
        }
        room.unwrap_or_else(|error| match error.kind() {
            // Drop the rest. A FIFO may have another reader for the next message.
            ErrorKind::OutputGone => {
                self.rest.clear();
                false
            }
            // A signal ends the program: wait no more.
            ErrorKind::Stopped => {
                self.wait_left = Duration::ZERO;
                false
            }
            _ => true,
        })
    }
}
