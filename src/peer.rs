//! Waiting until a peer is there: by inotify(7) where it is a pathname, by asking again at
//! growing intervals where it is an abstract name, which nothing announces.

use crate::address::Address;
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::socket::DatagramSocket;
use crate::wait::{Deadline, Until, Wake, pause, wait};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first interval after something happened: a socket file is there a moment before the socket
/// behind it answers.
const SHORTEST: Duration = Duration::from_millis(1);
/// The longest interval: what an unannounced change may cost.
const LONGEST: Duration = Duration::from_millis(200);

/// Connects `socket` to `peer`, waiting for it while nobody is there.
///
/// Fails with [`ErrorKind::TimedOut`] when the deadline passes, as [`Wake`] says, and at once on
/// any other error than that nobody is there.
pub fn connect_when_there(
    socket: &DatagramSocket,
    peer: &Address<'_>,
    deadline: Deadline,
    wake: &Wake<'_>,
) -> Result<()> {
    let mut watch = PeerWatch::new(peer);
    loop {
        match socket.connect(peer) {
            Err(error) if error.kind() == ErrorKind::NobodyThere => {}
            connected => return connected,
        }
        match watch.wait(deadline, wake) {
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                let subject = Subject::Address(peer.clone().into_owned());
                let cause = "nobody is there, and no time is left";
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    "connect to",
                    subject,
                    cause,
                ));
            }
            waited => waited?,
        }
    }
}

/// Tells when it is worth trying again to reach an address.
#[derive(Debug)]
pub struct PeerWatch {
    path: Option<PathBuf>,
    inotify: Option<Inotify>,
    watched: Option<PathBuf>,
    interval: Duration,
}

impl PeerWatch {
    /// A watch for `peer`.
    #[must_use]
    pub fn new(peer: &Address<'_>) -> Self {
        let path = peer.as_path().map(Path::to_owned);
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        // Without inotify there are the intervals.
        let inotify = path.as_ref().and_then(|_| Inotify::init(flags).ok());
        Self {
            path,
            inotify,
            watched: None,
            interval: SHORTEST,
        }
    }

    /// Waits until it is worth trying again. Call it after an attempt that failed.
    ///
    /// Fails with [`ErrorKind::TimedOut`] when the deadline has passed, and as [`Wake`] says.
    pub fn wait(&mut self, deadline: Deadline, wake: &Wake<'_>) -> Result<()> {
        if self.arm() {
            // What happened before the watch was there is seen by trying once more.
            return Ok(());
        }
        let next = deadline.or_after(self.interval);
        let Some(inotify) = &self.inotify else {
            self.interval = (self.interval * 2).min(LONGEST);
            pause(next, wake)?;
            return expired(deadline);
        };
        match wait(inotify.as_fd(), Until::Readable, next, wake) {
            Ok(_) => {
                while matches!(inotify.read_events(), Ok(events) if !events.is_empty()) {}
                self.interval = SHORTEST;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                self.interval = (self.interval * 2).min(LONGEST);
                expired(deadline)
            }
            Err(error) => Err(error),
        }
    }

    /// Watches the nearest directory on the way to the path that is there: whether that is a new
    /// one.
    fn arm(&mut self) -> bool {
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

fn expired(deadline: Deadline) -> Result<()> {
    if deadline.passed() {
        return Err(Error::new(
            ErrorKind::TimedOut,
            "wait",
            Subject::None,
            "no time is left",
        ));
    }
    Ok(())
}
