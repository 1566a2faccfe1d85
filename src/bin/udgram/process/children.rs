//! Starts and reaps children: commands, orphans, and the witness of `udgram exec`.

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::{self, c_int};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::{ForkResult, Pid, fork, getppid, pipe2};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The process ids of the children that an owner waits for.
static AWAITED: Mutex<Vec<libc::pid_t>> = Mutex::new(Vec::new());

fn awaited() -> MutexGuard<'static, Vec<libc::pid_t>> {
    // The list is never left inconsistent, so poisoning is ignored.
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child whose owner waits for it: [`reap_orphans`] does not reap it.
#[derive(Debug)]
pub(crate) struct AwaitedChild(Child);

/// Starts a command.
pub(crate) fn spawn(command: &mut Command) -> io::Result<AwaitedChild> {
    // Hold the lock until the child is in the list: it may end at once, and be reaped as an orphan.
    let mut awaited = awaited();
    let child = command.spawn()?;
    awaited.push(pid_of(&child));
    Ok(AwaitedChild(child))
}

impl Deref for AwaitedChild {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for AwaitedChild {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for AwaitedChild {
    fn drop(&mut self) {
        stop_awaiting(pid_of(&self.0));
    }
}

/// Adds a child to the list. `start` starts it.
pub(super) fn start_awaited(
    start: impl FnOnce() -> io::Result<libc::pid_t>,
) -> io::Result<libc::pid_t> {
    // The lock is held as in `spawn`.
    let mut awaited = awaited();
    let pid = start()?;
    awaited.push(pid);
    Ok(pid)
}

fn pid_of(child: &Child) -> libc::pid_t {
    libc::pid_t::from_ne_bytes(child.id().to_ne_bytes())
}

/// Removes a child from the list.
pub(super) fn stop_awaiting(pid: libc::pid_t) {
    awaited().retain(|awaited| *awaited != pid);
    // `reap_orphans` stops at an awaited child that has ended: reap the children after it now.
    reap_orphans();
}

/// Reaps the ended children that no owner waits for: orphaned descendants of commands, which PID 1 and a
/// subreaper inherit.
pub(crate) fn reap_orphans() {
    let awaited = awaited();
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: the call writes to the live `info`.
        if unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags) } != 0 {
            return;
        }
        // SAFETY: all zeros is a valid `siginfo_t`, and so is what the call has written.
        let info = unsafe { info.assume_init() };
        // SAFETY: the kernel sets this field for children; it stays 0 if none has ended.
        let pid = unsafe { info.si_pid() };
        // waitid(2) returns the same child again until it is reaped. Its owner does that, and then
        // calls this function.
        if pid == 0 || awaited.contains(&pid) {
            return;
        }
        // SAFETY: the call takes a number, and no place to write to.
        unsafe { libc::waitpid(pid, ptr::null_mut(), libc::WNOHANG) };
    }
}

/// Returns whether the process inherits the orphans among its descendants.
pub(crate) fn inherits_orphans() -> bool {
    Pid::this().as_raw() == 1 || prctl::get_child_subreaper().unwrap_or(false)
}

/// Reaps a child if it has ended, and returns its status. Returns the status of a stopped child, too, once
/// for each stop; waitpid(2).
pub(crate) fn poll_child(pid: Pid) -> nix::Result<Option<ExitStatus>> {
    let mut status = 0;
    let flags = libc::WNOHANG | libc::WUNTRACED;
    let changed = loop {
        // SAFETY: the call writes to the live `status`.
        match Errno::result(unsafe { libc::waitpid(pid.as_raw(), &raw mut status, flags) }) {
            Err(Errno::EINTR) => {}
            changed => break changed?,
        }
    };
    Ok((changed != 0).then(|| ExitStatus::from_raw(status)))
}

/// A child that reports the signals that it receives: those sent to the process group or to the cgroup.
/// Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct WitnessProcess {
    pid: Pid,
    /// The numbers of the signals that it has received, one byte each, and 0 for each [`ask`](Self::ask).
    pub(crate) reports: File,
}

impl WitnessProcess {
    /// Starts it. Call it from the only thread, with all signals blocked: the witness inherits the mask.
    pub(crate) fn start() -> io::Result<Self> {
        let (reports, writer) = pipe2(OFlag::O_CLOEXEC)?;
        let parent = Pid::this();
        let mut awaited = awaited();
        // SAFETY: the child makes system calls, allocates nothing and takes no lock until it ends.
        match unsafe { fork() }? {
            ForkResult::Child => {
                // If it fails, it exits, and the parent reads the end of `reports`.
                let _ = witness(&writer, parent);
                // SAFETY: the call ends the process and runs nothing of the parent's.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                awaited.push(child.as_raw());
                Ok(Self {
                    pid: child,
                    reports: reports.into(),
                })
            }
        }
    }

    /// Makes it report 0 after all signals that it has received. It does so on SIGCHLD, which the kernel
    /// does not send to a process without children.
    pub(crate) fn ask(&self) -> nix::Result<()> {
        kill(self.pid, Signal::SIGCHLD)
    }
}

impl Drop for WitnessProcess {
    fn drop(&mut self) {
        // Both calls fail only if the process does not exist.
        let _ = kill(self.pid, Signal::SIGKILL);
        // SAFETY: the call takes a number, and no place to write to.
        unsafe { libc::waitpid(self.pid.as_raw(), ptr::null_mut(), 0) };
        stop_awaiting(self.pid.as_raw());
    }
}

/// Runs the witness: reports each signal that it receives.
fn witness(writer: &OwnedFd, parent: Pid) -> nix::Result<()> {
    /// The size of one record of signalfd(2).
    const RECORD: usize = size_of::<siginfo>();
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        return Ok(());
    }
    prctl::set_name(c"udgram-witness")?;
    close_all_but(writer.as_raw_fd())?;
    let signals = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC)?;
    loop {
        // Room for every signal: a read returns them in the order of their numbers, and a smaller array
        // could end with SIGCHLD although signals with higher numbers are pending.
        let mut records = [0; 65 * RECORD];
        let read = match nix::unistd::read(&signals, &mut records) {
            Err(Errno::EINTR) => continue,
            read => read?,
        };
        let mut report = [0; 65];
        let (mut count, mut asked) = (0, false);
        for record in records[..read].chunks_exact(RECORD) {
            // The first field is `ssi_signo`.
            let [a, b, c, d, ..] = *record else { continue };
            let number = u32::from_ne_bytes([a, b, c, d]);
            if c_int::try_from(number) == Ok(libc::SIGCHLD) {
                asked = true;
            } else {
                report[count] = u8::try_from(number).unwrap_or(0);
                count += 1;
            }
        }
        // SIGCHLD took no byte, so the byte after the last number is 0.
        nix::unistd::write(writer, &report[..count + usize::from(asked)])?;
    }
}

/// Closes all descriptors of the process except one; close_range(2).
fn close_all_but(kept: RawFd) -> nix::Result<()> {
    let kept = libc::c_uint::try_from(kept).map_err(|_| Errno::EBADF)?;
    for (first, last) in [(0, kept - 1), (kept + 1, libc::c_uint::MAX)] {
        // SAFETY: the call takes numbers and checks them. The process uses none of the descriptors again.
        Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
    }
    Ok(())
}
