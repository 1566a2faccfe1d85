//! The signals that end the program. They are noticed while it waits, so that it can write what it has
//! and remove what it made; then it ends by the same signal, as a shell and systemd expect.

use crate::process;
use crate::stats;
use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
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
    found: SigSet,
}

impl Signals {
    /// From here on the signals end nothing by themselves. One that is ignored (by nohup(1), or by
    /// a shell for what it runs in the background) stays ignored.
    pub(crate) fn install() -> Result<Self> {
        let ignored = ignored();
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGPIPE] {
            // A blocked signal would come even if it is ignored.
            if !ignored(signal) {
                set.add(signal);
            }
        }
        // Blocked before ctrlc makes its thread, which then has them blocked as well.
        let found = block(&set)?;
        let others = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("cannot wait for signals")?;
        let interrupted = Arc::new(
            EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .context("cannot wait for signals")?,
        );
        if !ignored(Signal::SIGINT) {
            let interrupt = Arc::clone(&interrupted);
            ctrlc::set_handler(move || {
                // A counter at its limit is as readable as any.
                let _ = interrupt.write(1);
            })
            .context("cannot wait for SIGINT")?;
        }
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
            found,
        })
    }

    /// The signals that were blocked before: what a program that is run starts with.
    pub(crate) fn found(&self) -> SigSet {
        stats::without_ours(self.found)
    }

    /// Readable when a signal has come.
    pub(crate) fn stop(&self) -> BorrowedFd<'_> {
        self.either.0.as_fd()
    }

    /// Consumes and returns the pending signal; if none is pending, the last one again.
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

/// Blocks the signals of `set` and returns those that were blocked before.
pub(crate) fn block(set: &SigSet) -> Result<SigSet> {
    set.thread_swap_mask(SigmaskHow::SIG_BLOCK)
        .context("cannot block signals")
}

/// Tells which signals this process ignores, as /proc/self/status has it.
fn ignored() -> impl Fn(Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    move |signal| mask & (1 << (signal as i32 - 1)) != 0
}

/// Ends the process by `signal`, as if it had never been blocked.
pub(crate) fn die_of(signal: Signal) {
    let mut set = SigSet::empty();
    set.add(signal);
    // Each of these can only fail for a signal that cannot be caught; the exit status then says
    // what the signal would have said.
    let _ = process::default_action(signal);
    let _ = set.thread_unblock();
    let _ = raise(signal);
}
