//! Blocks the signals that end the program: SIGINT, SIGTERM, SIGHUP and SIGPIPE. A signalfd(2) reports
//! them, and every wait watches it, so that the program can write its output and remove its files first. It
//! then ends by the same signal, as a shell and systemd expect.

use crate::process;
use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use udgram::{Error, Subject};

/// The blocked signals of this process, once a command has installed them.
static BLOCKED: OnceLock<Blocked> = OnceLock::new();

/// The blocked signals.
#[derive(Debug)]
struct Blocked {
    descriptor: SignalFd,
    /// The number of the last signal that was taken.
    last: AtomicI32,
    /// The number of signals that were taken.
    count: AtomicU32,
}

impl Blocked {
    /// Consumes and returns the pending signal; if none is pending, the last one again.
    fn take(&self) -> Signal {
        // A read returns one signal; if another one is pending, the descriptor stays readable.
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

/// Proof that the signals are blocked: they do not end the process by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    blocked: &'static Blocked,
}

impl Signals {
    /// Blocks the signals and opens the descriptor that reports them. A signal that was ignored when
    /// udgram started (by nohup(1), or by a shell for a background job) stays ignored.
    pub(crate) fn install() -> Result<Self> {
        if let Some(blocked) = BLOCKED.get() {
            return Ok(Self { blocked });
        }
        let set: SigSet = [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGPIPE,
        ]
        .into_iter()
        // The kernel queues a blocked signal even if its action is to ignore it.
        .filter(|signal| !process::is_ignored(*signal))
        .collect();
        set.thread_block().context("cannot block signals")?;
        let descriptor = open(&set)?;
        let blocked = BLOCKED.get_or_init(|| Blocked {
            descriptor,
            last: AtomicI32::new(Signal::SIGTERM as i32),
            count: AtomicU32::new(0),
        });
        Ok(Self { blocked })
    }

    /// Blocks the signals if the command has a cleanup (`needed`), or if this process is PID 1: the kernel
    /// drops a signal to PID 1 whose action is the default. Otherwise returns `None`, and a signal ends the
    /// process at once.
    pub(crate) fn install_if(needed: bool) -> Result<Option<Self>> {
        if needed || Pid::this().as_raw() == 1 {
            return Self::install().map(Some);
        }
        Ok(None)
    }

    /// Returns the descriptor that is readable while a signal is pending.
    pub(crate) fn stop(&self) -> BorrowedFd<'static> {
        self.blocked.descriptor.as_fd()
    }

    /// Consumes and returns the pending signal; if none is pending, the last one again.
    pub(crate) fn take(&self) -> Signal {
        self.blocked.take()
    }

    /// Returns whether more than one was taken.
    pub(crate) fn repeated(&self) -> bool {
        self.blocked.count.load(Ordering::Relaxed) > 1
    }
}

/// Returns the descriptor that is readable while a signal is pending that ends the program, if the command
/// has blocked the signals. Every wait of the program watches it.
pub(crate) fn stop_descriptor() -> Option<BorrowedFd<'static>> {
    BLOCKED.get().map(|blocked| blocked.descriptor.as_fd())
}

/// Consumes and returns the signal that ended a wait, if the command has blocked the signals.
pub(crate) fn take_stop() -> Option<Signal> {
    BLOCKED.get().map(Blocked::take)
}

/// Opens a descriptor that reports the signals of `set`, which are blocked.
pub(crate) fn open(set: &SigSet) -> Result<SignalFd> {
    SignalFd::with_flags(set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(|errno| {
        Error::from_raw_os_error("wait for signals", Subject::None, errno as i32)
            .of_call("signalfd4", "2.6.27")
            .into()
    })
}

/// Calls `action` in a new thread each time `signal` arrives. Call it before another thread is started:
/// the kernel may deliver the signal to a thread that has not blocked it.
pub(crate) fn on_every(signal: Signal, mut action: impl FnMut() + Send + 'static) -> Result<()> {
    let set = SigSet::from(signal);
    set.thread_block().context("cannot block signals")?;
    in_thread(move || {
        while set.wait().is_ok() {
            action();
        }
    })
    .with_context(|| format!("cannot wait for {signal}"))
}

/// Runs `action` in a new thread that takes no signals: those that end the program go to the main thread.
pub(crate) fn in_thread(action: impl FnOnce() + Send + 'static) -> Result<()> {
    // The new thread inherits this mask.
    let before = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_BLOCK)
        .context("cannot block signals")?;
    let thread = std::thread::Builder::new().spawn(action);
    before.thread_set_mask().context("cannot unblock signals")?;
    thread.context("cannot start a thread")?;
    Ok(())
}
