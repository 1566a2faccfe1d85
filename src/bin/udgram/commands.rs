//! The names of the commands that send datagrams (`comm` in `creds`).
//!
//! A process number alone says nothing: its process may have ended, and another one may have the number now.
//! The kernel supplies a descriptor of the sender (`SO_PASSPIDFD`); while the process it refers to has not
//! been reaped, the number is that process's. Such a descriptor costs as much as receiving the datagram does,
//! so that under load the kernel is asked for them only until all senders are known.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use udgram::{Datagram, process_exists};

/// The number of senders that are known at a time.
const MAX_KNOWN: usize = 64;
/// The time after which a name is read again: a process may execute another program.
const MAX_AGE: Duration = Duration::from_millis(100);
/// The smallest batch after which the kernel is not asked for descriptors of senders that are all known.
const LOAD: usize = 4;

/// The need for descriptors of the senders, which the kernel supplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Descriptors {
    Wanted,
    Superfluous,
}

/// A sender.
#[derive(Debug)]
struct Known {
    pid: i32,
    /// A descriptor of the process.
    process: OwnedFd,
    name: Vec<u8>,
    /// The time at which the name was read.
    read: Instant,
    /// True if the process was not reaped when the batch at hand had been received.
    exists: bool,
}

/// The names of the commands that send datagrams.
#[derive(Debug)]
pub(crate) struct Commands {
    /// True if /proc has the numbers of this process's namespace.
    available: bool,
    /// The senders, the latest first.
    known: VecDeque<Known>,
    /// The number of datagrams of the batch at hand.
    seen: usize,
    /// The number of those whose sender was not known.
    unknown: usize,
}

impl Commands {
    pub(crate) fn new() -> Self {
        let own = std::fs::read_link("/proc/self");
        Self {
            available: own
                .is_ok_and(|own| own.as_os_str() == std::process::id().to_string().as_str()),
            known: VecDeque::new(),
            seen: 0,
            unknown: 0,
        }
    }

    /// Returns the name of the command that sent `datagram`; `None` if it is not certain.
    pub(crate) fn name(&mut self, datagram: &Datagram<'_>) -> Option<&[u8]> {
        let pid = datagram.ancillary.credentials?.pid;
        if !self.available {
            return None;
        }
        self.seen += 1;
        match self.known.iter().position(|known| known.pid == pid) {
            Some(at) if self.known[at].is_current() => {
                if at > 0 {
                    let known = self.known.remove(at)?;
                    self.known.push_front(known);
                }
            }
            found => {
                self.unknown += 1;
                found.map(|at| self.known.remove(at));
                let process = datagram.ancillary.pidfd.as_ref()?.try_clone().ok()?;
                let known = Known::read(pid, process)?;
                self.known.truncate(MAX_KNOWN - 1);
                self.known.push_front(known);
            }
        }
        self.known.front().map(|known| known.name.as_slice())
    }

    /// Ends a batch, and returns whether the next one needs descriptors of senders.
    pub(crate) fn end_batch(&mut self) -> Descriptors {
        self.known.iter_mut().for_each(|known| known.exists = false);
        let (seen, unknown) = (
            std::mem::take(&mut self.seen),
            std::mem::take(&mut self.unknown),
        );
        if seen >= LOAD && unknown == 0 {
            Descriptors::Superfluous
        } else {
            Descriptors::Wanted
        }
    }
}

impl Known {
    /// Reads the name of the command of a process; `None` if the process was reaped.
    fn read(pid: i32, process: OwnedFd) -> Option<Self> {
        let name = name_of(pid)?;
        process_exists(process.as_fd()).then(|| Self {
            pid,
            process,
            name,
            read: Instant::now(),
            exists: true,
        })
    }

    /// Returns whether it is the process that has its number, and its name is known; reads the name again if
    /// that is old. Does so once for each batch.
    fn is_current(&mut self) -> bool {
        if !self.exists {
            if self.read.elapsed() >= MAX_AGE {
                // It fails, for instance, if no descriptor is free.
                let Some(name) = name_of(self.pid) else {
                    return false;
                };
                self.name = name;
                self.read = Instant::now();
            }
            // After the name was read: it is that of this process only if the number still is.
            self.exists = process_exists(self.process.as_fd());
        }
        self.exists
    }
}

/// Returns the name of the command that the process of this number executes.
fn name_of(pid: i32) -> Option<Vec<u8>> {
    let mut name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    if name.ends_with(b"\n") {
        name.pop();
    }
    Some(name)
}
