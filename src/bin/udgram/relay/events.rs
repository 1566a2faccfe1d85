//! Reports which sockets are ready; epoll(7).

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::{AsFd, BorrowedFd};

/// The number of events that one system call returns.
const EVENTS: usize = 64;

/// The events that a descriptor is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Nothing,
    Readable,
    Writable,
    Both,
}

/// A descriptor that is ready: the token that it was added with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub(crate) token: u64,
    /// True also if an error is pending, which is reported until a receive has returned it: ECONNRESET, when
    /// the peer connects elsewhere (`unix_dgram_disconnected`).
    pub(crate) readable: bool,
}

/// A set of watched descriptors. A descriptor that is closed leaves it.
#[derive(Debug)]
pub(crate) struct Events {
    epoll: Epoll,
    ready: [EpollEvent; EVENTS],
}

impl Events {
    pub(crate) fn new() -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
        Ok(Self {
            epoll: epoll.context("cannot wait for several sockets")?,
            ready: [EpollEvent::empty(); EVENTS],
        })
    }

    pub(crate) fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<(), Errno> {
        self.epoll.add(fd, event(token, interest))
    }

    pub(crate) fn set(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<(), Errno> {
        self.epoll.modify(fd, &mut event(token, interest))
    }

    /// Returns the descriptors that are ready now, at most [`EVENTS`] of them.
    pub(crate) fn ready(&mut self) -> Result<Vec<Event>> {
        let count = match self.epoll.wait(&mut self.ready, EpollTimeout::ZERO) {
            Err(Errno::EINTR) => 0,
            count => count.context("cannot wait for several sockets")?,
        };
        let ready = self.ready[..count].iter().map(|event| Event {
            token: event.data(),
            readable: event
                .events()
                .intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLERR),
        });
        Ok(ready.collect())
    }
}

impl AsFd for Events {
    /// Returns the descriptor that is readable while one of the set is ready.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

fn event(token: u64, interest: Interest) -> EpollEvent {
    let flags = match interest {
        Interest::Nothing => EpollFlags::empty(),
        Interest::Readable => EpollFlags::EPOLLIN,
        Interest::Writable => EpollFlags::EPOLLOUT,
        Interest::Both => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
    };
    EpollEvent::new(flags, token)
}
