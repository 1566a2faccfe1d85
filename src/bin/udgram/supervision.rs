//! Waits for the CMD of `udgram exec`, and passes on to it the signals that have not reached it.

use crate::manager::Manager;
use crate::process::{self, STOPS};
use crate::witness::Witness;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::signalfd::{SignalFd, siginfo};
use nix::unistd::{Pid, getpgid, getpgrp};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use udgram::wait::{Deadline, Until, Wake, wait};

/// The number of signals that are handled together.
const TOGETHER: usize = 64;

/// Waits for CMD. Passes signals on to it, stops with it, and reaps what it leaves to PID 1.
pub(crate) fn supervise(
    cmd: Pid,
    mut witness: Witness,
    signals: &SignalFd,
    mut manager: Option<&mut Manager>,
) -> Result<ExitStatus> {
    loop {
        if let Some(manager) = &mut manager {
            manager.wait(signals.as_fd(), cmd)?;
        } else {
            let wake = Wake::default();
            wait(signals, Until::Readable, Deadline::NEVER, &wake)?;
        }
        let came = pending(signals)?;
        // A number stays valid until the process is waited for, which this does.
        let stopped = match process::poll_child(cmd).context("cannot wait for CMD")? {
            None => false,
            Some(status) => match status.stopped_signal() {
                Some(signal) => process::stop_by_signal(signal),
                None => return Ok(status),
            },
        };
        process::reap_orphans();
        let own = std::process::id();
        let came: Vec<&siginfo> = came
            .iter()
            .filter(|info| number(info) != libc::SIGCHLD && info.ssi_pid != own)
            .collect();
        let numbers: Vec<c_int> = came.iter().map(|info| number(info)).collect();
        // In a process group of its own, CMD does not get what is sent to that of the witness.
        let missing = if numbers.is_empty() || getpgid(Some(cmd)) != Ok(getpgrp()) {
            numbers
        } else {
            witness.missing(&numbers)
        };
        let missing = are_missing(&came, missing);
        for (at, (info, is_missing)) in came.iter().zip(missing).enumerate() {
            let opposite = opposite(number(info));
            let superseded = came[at..]
                .iter()
                .any(|later| opposite.contains(&number(later)))
                || opposite.iter().any(|number| process::is_pending(*number));
            if superseded || stopped && !opposite.is_empty() {
                continue;
            }
            if is_missing {
                // This fails if CMD has ended meanwhile, which the next round notices.
                let _ = process::forward_signal(info, cmd);
            }
        }
    }
}

/// Returns for each of the signals that came whether it is one of those with the `missing` numbers. A signal
/// with a value was sent to one process, and so is not the one of its number that the witness has received.
fn are_missing(came: &[&siginfo], mut missing: Vec<c_int>) -> Vec<bool> {
    let mut are_missing = vec![false; came.len()];
    let mut order: Vec<usize> = (0..came.len()).collect();
    order.sort_by_key(|at| came[*at].ssi_code != libc::SI_QUEUE);
    for at in order {
        let found = missing
            .iter()
            .position(|missing| *missing == number(came[at]));
        if let Some(found) = found {
            missing.swap_remove(found);
            are_missing[at] = true;
        }
    }
    are_missing
}

/// Returns the signals that supersede a signal of job control: the kernel discards a pending stop signal at
/// SIGCONT, and SIGCONT at a stop signal (`prepare_signal`). If that happens to the witness, it does not report
/// the signal, which must not reach a CMD that has stopped or continued since.
fn opposite(number: c_int) -> &'static [c_int] {
    match number {
        libc::SIGCONT => &STOPS,
        number if STOPS.contains(&number) => &[libc::SIGCONT],
        _ => &[],
    }
}

/// Returns the signals that are pending.
fn pending(signals: &SignalFd) -> Result<Vec<siginfo>> {
    let mut came = Vec::new();
    while came.len() < TOGETHER {
        match signals.read_signal() {
            Ok(Some(info)) => came.push(info),
            Ok(None) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for signals"),
        }
    }
    Ok(came)
}

fn number(info: &siginfo) -> c_int {
    c_int::try_from(info.ssi_signo).unwrap_or_default()
}
