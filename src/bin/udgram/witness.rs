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
/// How many reports are read at a time.
const REPORTS: usize = 64;

/// The process beside CMD, and what it has reported.
#[derive(Debug)]
pub(crate) struct Witness {
    process: WitnessProcess,
    /// The signals that it reported, and when, of those that this process has not received yet.
    reported: Vec<(c_int, Instant)>,
    /// Whether it still runs: it may have been killed, or may have found no close_range(2).
    runs: bool,
}

impl Witness {
    /// Starts the witness; see [`WitnessProcess::start`].
    pub(crate) fn start() -> Result<Self> {
        Ok(Self {
            process: WitnessProcess::start()
                .context("cannot start the process that tells which signals CMD has received")?,
            reported: Vec::new(),
            runs: true,
        })
    }

    /// Returns those of the signals `came`, which this process has just received, that the witness has not
    /// received with it. A report of the witness stands for one signal.
    pub(crate) fn missing(&mut self, came: &[c_int]) -> Vec<c_int> {
        if let Some(since) = Instant::now().checked_sub(SPREAD) {
            self.reported.retain(|(_, reported)| *reported >= since);
        }
        self.collect(Deadline::after(Some(SPREAD)), |witness, _| {
            witness.unseen(came).is_empty()
        });
        if !self.unseen(came).is_empty() && self.process.ask().is_ok() {
            // What it had received and not reported yet comes before the answer.
            self.collect(Deadline::after(Some(ANSWER)), |_, answered| answered);
        }
        let missing = self.unseen(came);
        for number in came {
            if let Some(at) = self.reported.iter().position(|(seen, _)| seen == number) {
                self.reported.remove(at);
            }
        }
        missing
    }

    fn unseen(&self, came: &[c_int]) -> Vec<c_int> {
        let mut seen: Vec<c_int> = self.reported.iter().map(|(number, _)| *number).collect();
        came.iter()
            .copied()
            .filter(|number| match seen.iter().position(|seen| seen == number) {
                Some(at) => {
                    seen.swap_remove(at);
                    false
                }
                None => true,
            })
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
            let mut numbers = [0; REPORTS];
            let count = reports.read(&mut numbers).unwrap_or(0);
            self.runs = count > 0;
            let now = Instant::now();
            let signals = numbers[..count].iter().filter(|number| **number != 0);
            self.reported
                .extend(signals.map(|number| (c_int::from(*number), now)));
            if numbers[..count].contains(&0) && enough(self, true) {
                return;
            }
        }
    }
}
