//! The signals that end the program: noticed while it waits, so that it can write what it has and
//! remove what it made, and then let through, so that a shell and systemd see it ended by them.

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// One descriptor that becomes readable on SIGINT, SIGTERM, SIGHUP and SIGPIPE.
#[derive(Debug)]
pub(crate) struct Signals {
    either: Epoll,
    others: SignalFd,
    interrupted: Arc<EventFd>,
    /// The one that came last.
    taken: Cell<Signal>,
}

impl Signals {
    /// From here on the signals end nothing by themselves. A SIGHUP that is ignored (nohup(1))
    /// stays ignored.
    pub(crate) fn install() -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGPIPE] {
            set.add(signal);
        }
        // Blocked before ctrlc makes its thread, which then has them blocked as well.
        set.thread_block().context("cannot block signals")?;
        let others = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("cannot wait for signals")?;
        let interrupted = Arc::new(
            EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .context("cannot wait for signals")?,
        );
        let interrupt = Arc::clone(&interrupted);
        ctrlc::set_handler(move || {
            // A counter at its limit is as readable as any.
            let _ = interrupt.write(1);
        })
        .context("cannot wait for SIGINT")?;
        let either =
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("cannot wait for signals")?;
        for fd in [others.as_fd(), interrupted.as_fd()] {
            either
                .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0))
                .context("cannot wait for signals")?;
        }
        Ok(Self {
            either,
            others,
            interrupted,
            taken: Cell::new(Signal::SIGINT),
        })
    }

    /// Readable when a signal has come.
    pub(crate) fn stop(&self) -> BorrowedFd<'_> {
        self.either.0.as_fd()
    }

    /// The signal that has come; the next one will be noticed anew. Asked again before that, the
    /// same one.
    pub(crate) fn take(&self) -> Signal {
        let pending = self.others.read_signal().ok().flatten();
        let pending =
            pending.and_then(|info| Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok());
        let interrupted = self.interrupted.read().is_ok().then_some(Signal::SIGINT);
        if let Some(signal) = pending.or(interrupted) {
            self.taken.set(signal);
        }
        self.taken.get()
    }
}

/// Ends the process by `signal`, as if it had never been held up.
pub(crate) fn die_of(signal: Signal) {
    let mut set = SigSet::empty();
    set.add(signal);
    // Each of these can only fail for a signal that cannot be caught; the exit status then says
    // what the signal would have said.
    let _ = udgram::default_action(signal);
    let _ = set.thread_unblock();
    let _ = raise(signal);
}
