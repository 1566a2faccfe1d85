//! Waits until a peer can be reached: with inotify(7) for a pathname, and by repeated attempts at growing
//! intervals for an abstract name, which no event reports.

use crate::address::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::outgoing::Destination;
use crate::socket::DatagramSocket;
use crate::wait::{Deadline, Until, Wake, pause, wait};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first interval after an event: bind(2) creates the file before the socket can be reached
/// (`unix_bind_bsd`).
const MIN_INTERVAL: Duration = Duration::from_millis(1);
/// The interval of the first attempts, before inotify(7) is used: a server that restarts is often back
/// within this time, and closing an inotify instance takes milliseconds (`synchronize_srcu`).
const QUICK_INTERVAL: Duration = Duration::from_micros(100);
/// The number of the first attempts.
const QUICK_PAUSES: u32 = 4;
/// The longest interval, after which a change without an event is noticed.
const MAX_INTERVAL: Duration = Duration::from_millis(200);

/// Returns whether a destination that could not be reached may become reachable: the error is
/// [`ErrorKind::NobodyThere`] or `EACCES`.
#[must_use]
pub fn may_become_reachable(error: &Error) -> bool {
    error.kind() == ErrorKind::NobodyThere || error.errno() == Some(Errno::EACCES)
}

/// A watch that reports when another attempt to reach an address may succeed.
#[derive(Debug)]
pub struct PeerWatch {
    path: Option<PathBuf>,
    inotify: Option<Inotify>,
    watched: Option<PathBuf>,
    pauses: u32,
    interval: Duration,
}

impl PeerWatch {
    /// Makes a watch for `peer`.
    #[must_use]
    pub fn new(peer: &Address<'_>) -> Self {
        Self {
            path: peer.as_path().map(Path::to_owned),
            inotify: None,
            watched: None,
            pauses: 0,
            interval: MIN_INTERVAL,
        }
    }

    /// Makes `destination` reachable from `socket`. Waits while no socket is bound to it, and while this
    /// process may not write to its file: a daemon calls bind(2) before chmod(2).
    ///
    /// Returns the last failure if the deadline passed, and `None` when the destination is reachable.
    /// Fails as [`Wake`] says, and at once on any other failure.
    pub fn establish(
        &mut self,
        socket: &DatagramSocket,
        destination: &mut Destination,
        deadline: Deadline,
        wake: &Wake<'_>,
    ) -> Result<Option<Error>> {
        loop {
            let failure = match socket.establish(destination) {
                Err(error) if destination.can_be_found() && may_become_reachable(&error) => error,
                established => return established.map(|()| None),
            };
            if !self.wait(deadline, wake)? {
                return Ok(Some(failure));
            }
        }
    }

    /// Waits until another attempt may succeed. Call it after an attempt that failed. Returns `false` if the
    /// deadline has passed.
    ///
    /// Fails as [`Wake`] says.
    pub fn wait(&mut self, deadline: Deadline, wake: &Wake<'_>) -> Result<bool> {
        if self.pauses < QUICK_PAUSES {
            self.pauses += 1;
            pause(deadline.or_after(QUICK_INTERVAL), wake)?;
            return Ok(!deadline.passed());
        }
        if self.pauses == QUICK_PAUSES {
            self.pauses += 1;
            let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
            // Without an inotify instance (EMFILE), attempts follow at intervals.
            self.inotify = self.path.as_ref().and_then(|_| Inotify::init(flags).ok());
        }
        if self.watch_nearest_directory() {
            // The peer may have bound its socket before the watch was added: try again now.
            return Ok(true);
        }
        let next = deadline.or_after(self.interval);
        let Some(inotify) = &self.inotify else {
            self.interval = (self.interval * 2).min(MAX_INTERVAL);
            pause(next, wake)?;
            return Ok(!deadline.passed());
        };
        if wait(inotify, Until::Readable, next, wake)?.is_none() {
            self.interval = (self.interval * 2).min(MAX_INTERVAL);
            return Ok(!deadline.passed());
        }
        while matches!(inotify.read_events(), Ok(events) if !events.is_empty()) {}
        self.interval = MIN_INTERVAL;
        Ok(true)
    }

    /// Watches the nearest existing ancestor directory of the path. Returns whether it differs from the
    /// one watched before.
    fn watch_nearest_directory(&mut self) -> bool {
        let (Some(path), Some(inotify)) = (&self.path, &self.inotify) else {
            return false;
        };
        let events = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        for directory in path.ancestors().skip(1) {
            let directory = if directory.as_os_str().is_empty() {
                Path::new(".")
            } else {
                directory
            };
            if self.watched.as_deref() == Some(directory) && directory.is_dir() {
                return false;
            }
            match inotify.add_watch(directory, events) {
                Ok(_) => {
                    self.watched = Some(directory.to_owned());
                    return true;
                }
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => {}
                Err(_) => return false,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;

    /// Returns a watch that watches the directory of this path, and would wait a second for other changes.
    fn watch(path: &Path) -> PeerWatch {
        let address = Address::Pathname(path.as_os_str().as_bytes().into());
        let mut watch = PeerWatch::new(&address);
        while watch.watched.is_none() {
            assert!(watch.wait(Deadline::NEVER, &Wake::default()).unwrap());
        }
        watch.interval = Duration::from_secs(1);
        watch
    }

    #[test]
    fn events_of_the_directory_and_of_the_file_end_the_wait() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        let (file, moved) = (inner.join("s"), directory.path().join("moved"));
        let mode = |mode| fs::Permissions::from_mode(mode);
        let changes: [(&str, &dyn Fn()); 5] = [
            ("create", &|| fs::write(&file, "").unwrap()),
            ("chmod", &|| {
                fs::set_permissions(&file, mode(0o600)).unwrap();
            }),
            ("move to", &|| {
                fs::write(&moved, "").unwrap();
                fs::rename(&moved, &file).unwrap();
            }),
            ("move the directory", &|| {
                fs::rename(&inner, &moved).unwrap();
            }),
            ("remove the directory", &|| {
                fs::remove_dir_all(&inner).unwrap();
            }),
        ];
        fs::create_dir(&inner).unwrap();
        for (name, change) in changes {
            fs::create_dir_all(&inner).unwrap();
            let mut watch = watch(&file);
            assert_eq!(watch.watched.as_ref(), Some(&inner));
            change();
            assert!(watch.wait(Deadline::NEVER, &Wake::default()).unwrap());
            // The wait was not one of a second, after which the next one is longer.
            let again = watch.watched.as_ref() != Some(&inner);
            assert!(again || watch.interval == MIN_INTERVAL, "{name}");
        }
    }

    #[test]
    fn the_file_of_a_directory_that_does_not_exist_is_waited_for_in_the_nearest_one_that_does() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        let mut watch = watch(&inner.join("s"));
        assert_eq!(watch.watched.as_deref(), Some(directory.path()));
        fs::create_dir(&inner).unwrap();
        assert!(watch.wait(Deadline::NEVER, &Wake::default()).unwrap());
        assert_eq!(watch.watched.as_deref(), Some(&*inner));
    }

    #[test]
    fn only_the_first_pauses_are_short() {
        let mut watch = PeerWatch::new(&Address::Abstract(b"x".into()));
        for _ in 0..=QUICK_PAUSES {
            assert_eq!(watch.interval, MIN_INTERVAL);
            assert!(watch.wait(Deadline::NEVER, &Wake::default()).unwrap());
        }
        assert_eq!(watch.interval, MIN_INTERVAL * 2);
    }

    #[test]
    fn a_directory_without_changes_is_looked_at_ever_less_often() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = watch(&directory.path().join("s"));
        for times in [2, 4, 8] {
            watch.interval = MIN_INTERVAL * times / 2;
            assert!(watch.wait(Deadline::NEVER, &Wake::default()).unwrap());
            assert_eq!(watch.interval, MIN_INTERVAL * times);
        }
    }

    #[test]
    fn a_failure_that_does_not_pass_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let address = Address::Pathname(file.as_os_str().as_bytes().into());
        let now = Deadline::after(Some(Duration::ZERO));
        let wake = Wake::default();
        let socket = DatagramSocket::new().unwrap();
        let establish = |address: &Address<'_>| {
            let mut destination = Destination::connected(address);
            PeerWatch::new(address).establish(&socket, &mut destination, now, &wake)
        };
        assert!(establish(&address).is_err());
        fs::remove_file(&file).unwrap();
        let failure = establish(&address).unwrap().unwrap();
        assert_eq!(failure.kind(), ErrorKind::NobodyThere);
    }
}
