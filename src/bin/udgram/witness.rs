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
/// The time to wait for an answer of the witness: under load it may wait for a processor.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest number of reports that are read at a time.
const REPORTS: usize = 64;

/// The witness process, and what it has reported.
#[derive(Debug)]
pub(crate) struct Witness {
    process: WitnessProcess,
    /// The signals that it has reported and this process has not received yet, each with the time of the
    /// report.
    reported: Vec<(c_int, Instant)>,
    /// True while it runs: it may have been killed, and it exits if there is no close_range(2) (before Linux
    /// 5.9).
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

    /// Returns those of the signals `received`, which this process has just received, that the witness has not
    /// received with it. Each report of the witness is one signal.
    pub(crate) fn missing(&mut self, received: &[c_int]) -> Vec<c_int> {
        if let Some(since) = Instant::now().checked_sub(SPREAD) {
            self.reported.retain(|(_, reported)| *reported >= since);
        }
        self.collect(Deadline::after(Some(SPREAD)), |witness, _| {
            witness.unseen(received).is_empty()
        });
        if !self.unseen(received).is_empty() && self.process.ask().is_ok() {
            // Signals that the witness has received and not reported yet come before the answer.
            self.collect(Deadline::after(Some(ANSWER_TIMEOUT)), |_, answered| {
                answered
            });
        }
        let missing = self.unseen(received);
        for number in received {
            if let Some(at) = self.reported.iter().position(|(seen, _)| seen == number) {
                self.reported.remove(at);
            }
        }
        missing
    }

    /// Returns those of the signals `received` that are not reported.
    fn unseen(&self, received: &[c_int]) -> Vec<c_int> {
        let mut seen: Vec<c_int> = self.reported.iter().map(|(number, _)| *number).collect();
        received
            .iter()
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
