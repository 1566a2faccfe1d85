//! The signals that end the program: SIGINT, SIGTERM, SIGHUP and SIGPIPE. They are held in a
//! signalfd(2), which every wait watches, so that the program can write what it has and remove what it
//! made. It then ends by the same signal, as a shell and systemd expect.

use crate::process;
use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// The signals of this process, once a command holds them.
static HELD: OnceLock<Held> = OnceLock::new();

#[derive(Debug)]
struct Held {
    descriptor: SignalFd,
    /// The number of the last signal that was taken.
    last: AtomicI32,
    /// How many were taken.
    count: AtomicU32,
}

impl Held {
    /// Consumes and returns the pending signal; if none is pending, the last one again.
    fn take(&self) -> Signal {
        // signalfd(2) returns one signal a read: another one keeps the descriptor readable.
        let pending = self.descriptor.read_signal().ok().flatten();
        let number = match pending.and_then(|info| i32::try_from(info.ssi_signo).ok()) {
            Some(number) => {
                self.last.store(number, Ordering::Relaxed);
                self.count.fetch_add(1, Ordering::Relaxed);
                number
            }
            None => self.last.load(Ordering::Relaxed),
        };
        Signal::try_from(number).unwrap_or(Signal::SIGTERM)
    }
}

/// Proof that the signals are held: from then on they end nothing by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    held: &'static Held,
}

impl Signals {
    /// Blocks the signals and opens the descriptor that reports them. A signal that was ignored when
    /// udgram started (by nohup(1), or by a shell for a background job) stays ignored.
    pub(crate) fn install() -> Result<Self> {
        if let Some(held) = HELD.get() {
            return Ok(Self { held });
        }
        let set: SigSet = [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGPIPE,
        ]
        .into_iter()
        // A blocked signal is queued even if it is ignored.
        .filter(|signal| !process::is_ignored(*signal))
        .collect();
        set.thread_block().context("cannot block signals")?;
        let descriptor = open(&set)?;
        let held = HELD.get_or_init(|| Held {
            descriptor,
            last: AtomicI32::new(Signal::SIGTERM as i32),
            count: AtomicU32::new(0),
        });
        Ok(Self { held })
    }

    /// Installs them if the command has something to write or to remove at its end (`needed`), or if
    /// this process is PID 1: the kernel drops a signal to PID 1 whose action is the default one. With
    /// `None`, a signal ends the process at once.
    pub(crate) fn install_if(needed: bool) -> Result<Option<Self>> {
        if needed || Pid::this().as_raw() == 1 {
            return Self::install().map(Some);
        }
        Ok(None)
    }

    /// Returns the descriptor that is readable while a signal is pending.
    pub(crate) fn stop(&self) -> BorrowedFd<'static> {
        self.held.descriptor.as_fd()
    }

    /// Consumes and returns the pending signal; if none is pending, the last one again.
    pub(crate) fn take(&self) -> Signal {
        self.held.take()
    }

    /// Returns whether more than one was taken.
    pub(crate) fn repeated(&self) -> bool {
        self.held.count.load(Ordering::Relaxed) > 1
    }
}

/// Returns the descriptor that is readable while a signal is pending that is to end the program, if the
/// command holds the signals: what any wait of the program watches.
pub(crate) fn stop_descriptor() -> Option<BorrowedFd<'static>> {
    HELD.get().map(|held| held.descriptor.as_fd())
}

/// Returns the signal that ended a wait, if the command holds the signals.
pub(crate) fn taken() -> Option<Signal> {
    HELD.get().map(Held::take)
}

/// Opens a descriptor that reports the signals of `set`, which are blocked.
pub(crate) fn open(set: &SigSet) -> Result<SignalFd> {
    SignalFd::with_flags(set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("cannot wait for signals")
}

/// Calls `action` in a thread whenever `signal` comes. To be called before any other thread is there:
/// a thread that has not blocked the signal would take it.
pub(crate) fn on_each(signal: Signal, mut action: impl FnMut() + Send + 'static) -> Result<()> {
    let set = SigSet::from(signal);
    // The thread takes no other signal: those that end the program are for the command.
    let before = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_BLOCK)
        .context("cannot block signals")?;
    let thread = std::thread::Builder::new().spawn(move || {
        while set.wait().is_ok() {
            action();
        }
    });
    let mut after = before;
    after.add(signal);
    after.thread_set_mask().context("cannot unblock signals")?;
    thread.with_context(|| format!("cannot wait for {signal}"))?;
    Ok(())
}
