//! Reads stdin in large pieces, and returns whole lines, or packets that end with a NUL, without copying them.

use crate::cli::Terminator;
use crate::exit::{Exit, Failure};
use crate::process;
use anyhow::Result;
use nix::errno::Errno;
use std::fmt;
use std::io::{IsTerminal, Stdin, stdin};
use std::os::fd::{AsFd, BorrowedFd};
use udgram::strerror;
use udgram::wait::{Deadline, Until, Wake, wait};

/// The number of bytes in a read(2).
const READ_SIZE: usize = 256 << 10;
/// The longest line. The kernel carries about 4 MiB, which is shorter than this in every protocol.
const MAX_LEN: usize = 64 << 20;

/// The error of a line, or of the whole stdin, that is longer than any packet. The caller adds the place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = MAX_LEN >> 20;
        write!(f, "has more than {limit} MiB, which no datagram carries")
    }
}

impl std::error::Error for TooLong {}

/// The outcome of one read(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// It may have read something.
    Read,
    /// stdin is non-blocking, and nothing is there yet.
    NotThere,
}

/// stdin, with what has been read ahead.
#[derive(Debug)]
pub(crate) struct Input {
    stdin: Stdin,
    buffer: Vec<u8>,
    terminator: Terminator,
    /// The start of what has been read and not returned.
    start: usize,
    /// The end of what has been read.
    end: usize,
    /// The number of bytes from `start` on in which [`next_line`](Self::next_line) found no line end.
    searched: usize,
    /// True if read(2) has reported the end.
    ended: bool,
}

impl Input {
    /// Fails if stdin was closed when the program started.
    pub(crate) fn new(terminator: Terminator) -> Result<Self> {
        if process::was_closed_at_start(0) {
            return Err(Failure::error(
                Exit::Refused,
                "cannot read stdin: it is closed",
            ));
        }
        Ok(Self {
            stdin: stdin(),
            buffer: vec![0; READ_SIZE],
            terminator,
            start: 0,
            end: 0,
            searched: 0,
            ended: false,
        })
    }

    /// Returns the next lines, at least one, with their terminators; the last line may have none. Waits
    /// only if no whole line has been read. Returns `None` at the end.
    pub(crate) fn lines(&mut self, wake: &Wake<'_>) -> Result<Option<&[u8]>> {
        let mut searched = 0;
        loop {
            let unsearched = &self.buffer[self.start + searched..self.end];
            if let Some(last) = memchr::memrchr(self.terminator.byte(), unsearched) {
                let from = self.start;
                self.start += searched + last + 1;
                return Ok(Some(&self.buffer[from..self.start]));
            }
            searched = self.end - self.start;
            if self.ended {
                let from = std::mem::replace(&mut self.start, self.end);
                return Ok((from < self.end).then(|| &self.buffer[from..self.end]));
            }
            if searched >= MAX_LEN {
                return Err(TooLong.into());
            }
            self.read(wake)?;
        }
    }

    /// Reads stdin to its end, and returns it as one piece.
    pub(crate) fn whole(&mut self, wake: &Wake<'_>) -> Result<&[u8]> {
        while !self.ended {
            if self.end >= MAX_LEN {
                return Err(TooLong.into());
            }
            self.read(wake)?;
        }
        Ok(&self.buffer[..self.end])
    }

    /// Returns the next line that has been read, with its line end; the last line may have none. Does not
    /// wait. Returns `None` if no whole line has been read, or at the end.
    pub(crate) fn next_line(&mut self) -> Result<Option<&[u8]>> {
        let unread = &self.buffer[self.start..self.end];
        let end = match memchr::memchr(self.terminator.byte(), &unread[self.searched..]) {
            Some(end) => self.searched + end + 1,
            None if self.ended && !unread.is_empty() => unread.len(),
            None if unread.len() >= MAX_LEN => return Err(TooLong.into()),
            None => {
                self.searched = unread.len();
                return Ok(None);
            }
        };
        let from = self.start;
        self.start += end;
        self.searched = 0;
        Ok(Some(&self.buffer[from..self.start]))
    }

    /// Returns whether stdin is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.stdin.is_terminal()
    }

    /// Returns the descriptor to wait for before [`read_ready`](Self::read_ready); `None` at the end.
    pub(crate) fn watched(&self) -> Option<BorrowedFd<'_>> {
        (!self.ended).then(|| self.stdin.as_fd())
    }

    /// Reads the next piece into the buffer. Does not wait if stdin is readable.
    pub(crate) fn read_ready(&mut self) -> Result<()> {
        self.make_room();
        self.read_piece().map(drop)
    }

    /// Waits for the next piece, and reads it into the buffer.
    fn read(&mut self, wake: &Wake<'_>) -> Result<()> {
        self.make_room();
        // A blocking read(2) would not notice `wake`, so poll first; skip it if nothing is watched.
        if wake.stop.is_some() || wake.output.is_some() {
            wait(self.stdin.as_fd(), Until::Readable, Deadline::NEVER, wake)?;
        }
        if self.read_piece()? == Piece::NotThere {
            wait(self.stdin.as_fd(), Until::Readable, Deadline::NEVER, wake)?;
        }
        Ok(())
    }

    /// Makes room in the buffer for a piece.
    fn make_room(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() - self.end < READ_SIZE / 2 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
    }

    fn read_piece(&mut self) -> Result<Piece> {
        match nix::unistd::read(&self.stdin, &mut self.buffer[self.end..]) {
            Ok(0) => self.ended = true,
            Ok(count) => self.end += count,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(Piece::NotThere),
            Err(errno) => {
                let message = format!("cannot read stdin: {}", strerror(errno as i32));
                return Err(Failure::error(Exit::Refused, message));
            }
        }
        Ok(Piece::Read)
    }
}
