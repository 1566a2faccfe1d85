//! Tells the signals that came to `udgram exec` alone from those that also came to its CMD: a signal that
//! was sent to the process group (by a terminal, by timeout(1)) or to the cgroup (by systemd) must not be
//! passed on a second time. A witness, a process beside CMD, receives such a signal as CMD does.

use crate::process::WitnessProcess;
use anyhow::{Context, Result};
use nix::libc::c_int;
use std::io::Read;
use std::time::{Duration, Instant};
use udgram::wait::{Deadline, Until, Wake, wait};

/// How long after the first process of a group or cgroup the last one receives a signal: systemd and
/// timeout(1) send it to one after the other.
const SPREAD: Duration = Duration::from_millis(20);
/// How long to wait for an answer of the witness, which a loaded system may let wait for a processor.
const ANSWER: Duration = Duration::from_secs(1);
/// How many numbers of signals there are, with 0, which is none.
const NUMBERS: usize = 65;

/// The process beside CMD, and what it has reported.
#[derive(Debug)]
pub(crate) struct Witness {
    process: WitnessProcess,
    /// When each signal was last reported.
    reported: [Option<Instant>; NUMBERS],
    /// Whether it still runs: it may have been killed, or may have found no close_range(2).
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

    /// Returns those of the signals `came`, which this process has just received, that the witness has not
    /// received with it.
    pub(crate) fn missing(&mut self, came: &[c_int]) -> Vec<c_int> {
        let since = Instant::now().checked_sub(SPREAD);
        self.collect(Deadline::after(Some(SPREAD)), |witness, _| {
            witness.unseen(came, since).is_empty()
        });
        if !self.unseen(came, since).is_empty() && self.process.ask().is_ok() {
            // What it had received and not reported yet comes before the answer.
            self.collect(Deadline::after(Some(ANSWER)), |_, answered| answered);
        }
        self.unseen(came, since)
    }

    fn unseen(&self, came: &[c_int], since: Option<Instant>) -> Vec<c_int> {
        let seen = |number: &c_int| {
            let number = usize::try_from(*number).unwrap_or_default();
            let reported = self.reported.get(number).copied().flatten();
            reported.is_some_and(|reported| since.is_none_or(|since| reported >= since))
        };
        came.iter()
            .copied()
            .filter(|number| !seen(number))
            .collect()
    }

    /// Reads reports until the deadline, or until `enough`, which is told whether 0 was among them.
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
