//! stderr: a reader that takes nothing holds the program up for a second in all. After that, messages
//! that find no room are dropped and counted, and the number is printed once there is room again.

use crate::process;
use crate::signal;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::io::{self, IsTerminal, stderr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use udgram::ErrorKind;
use udgram::wait::{Deadline, Until, Wake, pause, wait};

/// How long the program waits for stderr, all its messages together.
const PATIENCE: Duration = Duration::from_secs(1);
/// What a pipe that is ready for writing takes without blocking (`PIPE_BUF`).
const READY: usize = 4096;
/// How long to wait where poll(2) reports room and write(2) finds none.
const PAUSE: Duration = Duration::from_millis(1);

static STDERR: Mutex<Stderr> = Mutex::new(Stderr {
    kind: Kind::Unknown,
    rest: Vec::new(),
    patience: PATIENCE,
    lost: 0,
});

static STANDARD: LazyLock<io::Stderr> = LazyLock::new(stderr);

struct Stderr {
    kind: Kind,
    /// What is left of the message that is being written.
    rest: Vec<u8>,
    /// How long the program may still wait.
    patience: Duration,
    /// How many messages were dropped since the last notice.
    lost: u64,
}

/// What stderr is, as far as writing to it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing has been written yet.
    Unknown,
    /// A file, or a device like /dev/null: writing does not wait for a reader.
    File,
    /// A pipe or a terminal, whose reader may be slow, or go away. It can be opened once more.
    Pipe,
    Terminal,
    /// A socket.
    Socket,
    /// It was closed when the program started.
    Closed,
}

/// Where a message is written to.
struct Channel {
    /// A pipe or a terminal once more, non-blocking: another process may take the room between
    /// poll(2) and write(2), and a terminal that is stopped takes less than it is ready for. It is
    /// open for one message only: descriptor numbers are for what is received.
    reopened: Option<OwnedFd>,
    /// How many bytes are written at a time.
    most: usize,
}

impl Channel {
    fn open(kind: Kind) -> Self {
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let reopened = match kind {
            Kind::Pipe | Kind::Terminal => open("/proc/self/fd/2", flags, Mode::empty()).ok(),
            _ => None,
        };
        let most = match kind {
            Kind::File => usize::MAX,
            // A terminal is ready as soon as it takes one character.
            Kind::Terminal if reopened.is_none() => 1,
            _ => READY,
        };
        Self { reopened, most }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.reopened {
            Some(reopened) => reopened.as_fd(),
            // std leaves it open for as long as the process runs.
            None => STANDARD.as_fd(),
        }
    }

    fn write(&self, bytes: &[u8]) -> nix::Result<usize> {
        nix::unistd::write(self.fd(), &bytes[..bytes.len().min(self.most)])
    }

    /// Waits until there is room, for `timeout` at most. `Ok(false)`: there is none.
    fn wait(&self, timeout: Duration, stop: Option<BorrowedFd<'_>>) -> udgram::Result<bool> {
        let wake = Wake::new(stop, Some(self.fd()));
        let deadline = Deadline::after(Some(timeout));
        wait(self.fd(), Until::Writable, deadline, &wake).map(|ready| ready.is_some())
    }
}

/// Writes a line. A stderr that is closed, full or without a reader is no error: nothing is left to
/// report that to.
pub(crate) fn write_line(line: &str) {
    lock().put(line.as_bytes());
}

/// Writes what is redrawn, if there is room for it at once and no message is waiting.
pub(crate) fn draw(text: &str) {
    let stderr = lock();
    if stderr.kind == Kind::Closed || !stderr.rest.is_empty() || stderr.lost > 0 {
        return;
    }
    let channel = Channel::open(stderr.kind);
    if matches!(channel.wait(Duration::ZERO, None), Ok(true)) {
        // What does not fit is drawn the next time.
        let _ = channel.write(text.as_bytes());
    }
}

/// Writes what is left before the program ends, and how many messages were dropped.
pub(crate) fn finish() {
    let mut stderr = STDERR.lock().unwrap_or_else(PoisonError::into_inner);
    if stderr.write_rest() {
        stderr.put_notice();
    }
}

fn lock() -> MutexGuard<'static, Stderr> {
    let mut stderr = STDERR.lock().unwrap_or_else(PoisonError::into_inner);
    if stderr.kind == Kind::Unknown {
        stderr.look();
    }
    stderr
}

impl Stderr {
    fn look(&mut self) {
        let mode = fstat(stderr()).map_or(0, |status| status.st_mode);
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

    /// Writes how many messages were dropped, if any were. Returns whether all is written.
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

    /// Writes what is left. Returns whether that is all of it.
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
                Err(Errno::EAGAIN) if self.patience.is_zero() => return false,
                Err(Errno::EAGAIN) => {
                    let begin = Instant::now();
                    // An early end of the pause leads to the next attempt.
                    let _ = pause(Deadline::after(Some(PAUSE)), &Wake::default());
                    self.patience = self.patience.saturating_sub(begin.elapsed());
                }
                // A full file system may have room for the next message.
                Err(_) => self.rest.clear(),
            }
        }
        true
    }

    /// Waits for room. A signal that ends the program ends that, too.
    fn has_room(&mut self, channel: &Channel) -> bool {
        if self.kind == Kind::File {
            return true;
        }
        let mut room = channel.wait(Duration::ZERO, None);
        if matches!(room, Ok(false)) && !self.patience.is_zero() {
            let begin = Instant::now();
            room = channel.wait(self.patience, signal::stop_descriptor());
            self.patience = self.patience.saturating_sub(begin.elapsed());
        }
        room.unwrap_or_else(|error| match error.kind() {
            // A pipe with a name may get another reader, for the next message.
            ErrorKind::OutputGone => {
                self.rest.clear();
                false
            }
            // The program is to end.
            ErrorKind::Stopped => {
                self.patience = Duration::ZERO;
                false
            }
            _ => true,
        })
    }
}
