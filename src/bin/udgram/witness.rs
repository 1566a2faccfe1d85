//! Finds out which signals `udgram exec` must forward to its CMD. A signal that was sent to the process group
//! (by a terminal, by timeout(1)) or to the cgroup (by systemd) has reached CMD already. The witness, a child
//! process beside CMD, receives such a signal too, and reports it.

use crate::process::WitnessProcess;
use anyhow::{Context, Result};
use nix::libc::c_int;
use std::io::Read;
use std::time::{Duration, Instant};
use udgram::wait::{Deadline, Until, Wake, wait};

/// The longest time between the first and the last process of a group or cgroup that receive a signal:
/// systemd sends it to one process after the other.
const SPREAD: Duration = Duration::from_millis(20);
/// How long to wait for an answer of the witness: under load it may wait for a processor.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// The number of signals, and 0, which is no signal: the numbers from 0 to `SIGRTMAX` (64).
const NUMBERS: usize = 65;

/// The witness process, and what it has reported.
#[derive(Debug)]
pub(crate) struct Witness {
    process: WitnessProcess,
    /// The time at which each signal was last reported.
    reported: [Option<Instant>; NUMBERS],
    /// Whether it runs: it may have been killed, and it exits if there is no close_range(2) (before Linux
    /// 5.9).
    runs: bool,
}

impl Witness {
    /// Starts the witness; see [`WitnessProcess::start`].
    pub(crate) fn start() -> Result<Self> {
        Ok(Self {
            process: WitnessProcess::start().context("cannot start a process")?,
            reported: [None; NUMBERS],
            runs: true,
        })
    }

    /// Returns those of the signals `received`, which this process has just received, that the witness has
    /// not received.
    pub(crate) fn missing(&mut self, received: &[c_int]) -> Vec<c_int> {
        let since = Instant::now().checked_sub(SPREAD);
        self.collect(Deadline::after(Some(SPREAD)), |witness, _| {
            witness.unseen(received, since).is_empty()
        });
        if !self.unseen(received, since).is_empty() && self.process.ask().is_ok() {
            // Signals that the witness has received and not reported yet come before the answer.
            self.collect(Deadline::after(Some(ANSWER_TIMEOUT)), |_, answered| {
                answered
            });
        }
        self.unseen(received, since)
    }

    /// Returns those of the signals `received` that were not reported after `since`.
    fn unseen(&self, received: &[c_int], since: Option<Instant>) -> Vec<c_int> {
        let seen = |number: &c_int| {
            let number = usize::try_from(*number).unwrap_or_default();
            let reported = self.reported.get(number).copied().flatten();
            reported.is_some_and(|reported| since.is_none_or(|since| reported >= since))
        };
        received
            .iter()
            .copied()
            .filter(|number| !seen(number))
            .collect()
    }

    /// Reads reports until the deadline, or until `enough` returns `true`; its argument says whether 0 was
    /// among them.
    fn collect(&mut self, deadline: Deadline, enough: impl Fn(&Self, bool) -> bool) {
        while self.runs && !enough(self, false) {
            let reports = &mut self.process.reports;
            if !matches!(
                wait(&*reports, Until::Readable, deadline, &Wake::default()),
                Ok(Some(_))
            ) {
                return;
            }
            let mut numbers = [0; NUMBERS];
            let count = reports.read(&mut numbers).unwrap_or(0);
            self.runs = count > 0;
            let now = Instant::now();
            for number in &numbers[..count] {
                if let Some(reported) = self.reported.get_mut(usize::from(*number)) {
                    *reported = Some(now);
                }
            }
            if numbers[..count].contains(&0) && enough(self, true) {
                return;
            }
        }
    }
}
