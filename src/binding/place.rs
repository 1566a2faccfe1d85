//! Creates, replaces and removes socket files: handles the directory, the name, and a file that is there
//! already.

use super::file::{Identity, SocketFile};
use super::{Lost, Occupied};
use crate::address::{Address, SUN_PATH_LEN};
use crate::diagnose::{has_proc, other_socket_type};
use crate::error::{Error, Result, Subject, describe};
use crate::holder::Holder;
use crate::socket::DatagramSocket;
use crate::sys::{self, SockAddr, Status};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::libc;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{LinkatFlags, UnlinkatFlags, linkat, unlinkat};
use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest file name that fits into `sun_path` after `/proc/4194304/fd/1048575/`: the largest process
/// id, and the largest descriptor with the default of fs.nr_open. It is the same for every process, so that
/// a process finds the file that a killed one has left.
const LONGEST_NAME: usize = SUN_PATH_LEN - 1 - "/proc/4194304/fd/1048575/".len();

/// The age at which an unused socket file counts as stale: bind(2) creates the file shortly before the socket
/// can be reached there (`unix_bind_bsd`).
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// The number of attempts to bind a name that another program takes in between.
const ATTEMPTS: usize = 8;

/// The directory and the name of a socket file.
#[derive(Debug)]
pub(super) struct Place {
    /// The address as the caller wrote it, for messages.
    subject: Subject,
    directory: OwnedFd,
    name: OsString,
    /// The path for bind(2), if it fits into `sun_path`.
    path: PathBuf,
    /// A short file name, derived from `name`: the first link of a file whose name is too long for
    /// bind(2), and the temporary name of a file that is being removed.
    hidden: OsString,
}

/// The path that bind(2) is given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    /// The path of the file.
    Path,
    /// A path through this process's descriptor of the directory (`/proc/PID/fd/N/NAME`), which peers can
    /// follow, too.
    Directory,
    /// The same with the hidden name; linkat(2) adds the name of the file as a second link.
    HiddenLink,
}

/// The result of testing whether a socket file is in use.
enum Occupant {
    /// No socket is bound to it: the file is stale.
    None,
    /// A datagram socket is bound to it.
    Live,
    /// A socket of another type is bound to it.
    OtherType,
    /// It cannot be tested: this process may not write to the file.
    Denied,
    /// It cannot be tested for this cause.
    Unknown(Cow<'static, str>),
}

impl Occupant {
    /// Interprets the result of a connect(2) to the file. Returns an errno that does not show whether a
    /// socket is bound to it.
    fn of_connect(connected: Result<(), Errno>) -> Result<Self, Errno> {
        match connected {
            Err(Errno::ECONNREFUSED) => Ok(Self::None),
            // EPERM: the socket is connected to another peer.
            Ok(()) | Err(Errno::EPERM) => Ok(Self::Live),
            Err(Errno::EPROTOTYPE) => Ok(Self::OtherType),
            Err(errno) => Err(errno),
        }
    }
}

impl Place {
    /// Opens the directory of `path`.
    pub(super) fn of(address: &Address<'_>, path: &Path) -> Result<Self> {
        let subject = Subject::Address(address.clone().into_owned());
        let failed = |errno| Error::system("bind", subject.clone(), errno);
        let bytes = path.as_os_str().as_bytes();
        let name = path
            .file_name()
            .filter(|_| !bytes.ends_with(b"/") && !bytes.ends_with(b"/."))
            .ok_or_else(|| failed(Errno::EISDIR))?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(parent, flags, Mode::empty()).map_err(failed)?;
        Ok(Self {
            subject,
            name: name.to_owned(),
            path: absolute_form(path, &directory).unwrap_or_else(|| path.to_owned()),
            hidden: hidden_name(name),
            directory,
        })
    }

    /// Makes the error of a system call that failed here.
    pub(super) fn error(&self, operation: &'static str, errno: Errno) -> Error {
        Error::system(operation, self.subject.clone(), errno)
    }

    /// Binds `socket`. Replaces a stale socket file, and a live one with [`Occupied::Replace`].
    pub(super) fn occupy(&self, socket: &DatagramSocket, occupied: Occupied) -> Result<()> {
        // A hidden file was left by a udgram that was killed, or is being removed: `take_over` handles it.
        if self.status(&self.hidden).is_err() {
            match self.bind(socket) {
                Err(Errno::EADDRINUSE) => {}
                bound => return bound.map_err(|errno| self.refused(errno)),
            }
        }
        self.take_over(socket, occupied)
    }

    /// Opens the file that bind(2) has just created for `socket`. The kernel returns it to a process with
    /// CAP_NET_ADMIN; another process opens the file of this name.
    pub(super) fn created_file(&self, socket: &DatagramSocket) -> Result<SocketFile> {
        if let Ok(file) = SocketFile::bound_by(socket) {
            return Ok(file);
        }
        match SocketFile::open(&self.directory, &self.name) {
            Ok(file) if file.other_type().is_none() && file.is_of(socket) => Ok(file),
            Ok(_) => Err(self
                .error("bind", Errno::ESTALE)
                .with_cause("another program replaced the socket file at once")),
            Err(errno) => {
                self.discard();
                Err(self.error("bind", errno))
            }
        }
    }

    /// Sets the permission bits of `file`, which this process has created.
    pub(super) fn set_mode(&self, file: &SocketFile, mode: Mode) -> Result<(), Errno> {
        match file.set_mode(mode) {
            // Without /proc, Linux before 6.6 can change the mode only by name.
            Err(Errno::ENOENT) if self.is_same(&self.name, file.identity()) => fchmodat(
                &self.directory,
                self.name.as_os_str(),
                mode,
                FchmodatFlags::FollowSymlink,
            ),
            set => set,
        }
    }

    /// Removes all names of the file that still belong to it.
    pub(super) fn clear(&self, file: Identity) {
        // The caller is a drop or handles another error: a failure here cannot be reported.
        if self.route() == Route::HiddenLink {
            let _ = self.remove(&self.hidden, file);
        }
        let _ = self.remove(&self.name, file);
    }

    /// Returns how `file` has lost its name; `None` if it still has it.
    pub(super) fn lost(&self, file: Identity) -> Option<Lost> {
        match self.status(&self.name) {
            Ok(there) if Identity::of(&there) == file => None,
            Ok(_) => Some(Lost::Replaced),
            Err(Errno::ENOENT) => Some(Lost::Removed),
            // Another failure, such as ENOMEM, says nothing about the file.
            Err(_) => None,
        }
    }

    /// Makes an inotify instance that reports when `file` gets or loses a name.
    pub(super) fn watch(&self, file: &SocketFile) -> Result<Inotify, Errno> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // This process holds the file open, so unlink(2) of its last name only changes the link count
        // (IN_ATTRIB).
        let events =
            AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
        match inotify.add_watch(file.link().as_str(), events) {
            Err(Errno::ENOENT) => {
                inotify.add_watch(&self.path, events | AddWatchFlags::IN_DONT_FOLLOW)?;
                if !self.is_same(&self.name, file.identity()) {
                    return Err(Errno::ESTALE);
                }
            }
            watched => drop(watched?),
        }
        Ok(inotify)
    }

    /// Returns the shortest form of the path that fits into `sun_path`.
    fn route(&self) -> Route {
        if self.path.as_os_str().len() < SUN_PATH_LEN {
            Route::Path
        } else if self.name.len() <= LONGEST_NAME {
            Route::Directory
        } else {
            Route::HiddenLink
        }
    }

    /// Calls bind(2). The kernel reports the path it is given to peers, which answer to it.
    fn bind(&self, socket: &DatagramSocket) -> Result<(), Errno> {
        match self.route() {
            Route::Path => sys::bind(socket.as_fd(), &pathname(self.path.as_os_str())?),
            Route::Directory => sys::bind(socket.as_fd(), &self.through(&self.name)?),
            Route::HiddenLink => self.bind_hidden(socket),
        }
    }

    /// Binds the hidden name, and links the file to its own name.
    fn bind_hidden(&self, socket: &DatagramSocket) -> Result<(), Errno> {
        match self.status(&self.name) {
            Ok(_) => return Err(Errno::EADDRINUSE),
            Err(Errno::ENAMETOOLONG) => return Err(Errno::ENAMETOOLONG),
            Err(_) => {}
        }
        sys::bind(socket.as_fd(), &self.through(&self.hidden)?)?;
        let linked = linkat(
            &self.directory,
            self.hidden.as_os_str(),
            &self.directory,
            self.name.as_os_str(),
            LinkatFlags::empty(),
        );
        linked.map_err(|errno| {
            // The failure of linkat(2) is reported, not one of this cleanup.
            let _ = self.unlink(&self.hidden);
            match errno {
                Errno::EEXIST => Errno::EADDRINUSE,
                errno => errno,
            }
        })
    }

    /// Returns a path to `name` through the descriptor of the directory.
    fn through(&self, name: &OsStr) -> Result<SockAddr, Errno> {
        let (process, directory) = (std::process::id(), self.directory.as_raw_fd());
        let mut path = OsString::from(format!("/proc/{process}/fd/{directory}/"));
        path.push(name);
        pathname(&path)
    }

    /// Makes the error of a bind(2) that failed.
    fn refused(&self, errno: Errno) -> Error {
        let error = self.error("bind", errno);
        match errno {
            Errno::ENOENT if self.route() != Route::Path && !has_proc() => error.with_cause(
                "a path of more than 107 bytes is bound through /proc, which is not mounted",
            ),
            Errno::EOPNOTSUPP => error.with_hint("the file system may not support sockets"),
            Errno::EPERM => error.with_hint(
                "the file system may not support sockets, or a sandbox or a security module may forbid it",
            ),
            _ => error,
        }
    }

    /// Removes the file that has the name, and binds `socket`.
    fn take_over(&self, socket: &DatagramSocket, occupied: Occupied) -> Result<()> {
        if occupied == Occupied::Refuse {
            // This waits until a new file is old enough. Do it without the lock, for which others wait.
            if let Ok(there) = SocketFile::open(&self.directory, &self.name) {
                let _ = self.occupant(&self.name, &there);
            }
        }
        let _lock = Lock::of(self);
        for _ in 0..ATTEMPTS {
            let hidden = self.vacate(&self.hidden, occupied);
            if self.route() == Route::HiddenLink {
                hidden?;
            }
            self.vacate(&self.name, occupied)?;
            match self.bind(socket) {
                // A program that does not take the lock has bound the name in between.
                Err(Errno::EADDRINUSE) => {}
                bound => return bound.map_err(|errno| self.refused(errno)),
            }
        }
        Err(self.error("bind", Errno::EADDRINUSE))
    }

    /// Removes the socket file of this name, if there is one and it may be replaced.
    fn vacate(&self, name: &OsStr, occupied: Occupied) -> Result<()> {
        let there = match SocketFile::open(&self.directory, name) {
            Ok(there) => there,
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(self.error("bind", errno)),
        };
        let in_use = self.error("bind", Errno::EADDRINUSE);
        if let Some(kind) = there.other_type() {
            return Err(in_use.with_cause(format!(
                "a {kind} is there, not a socket, and is never replaced"
            )));
        }
        if occupied == Occupied::Refuse {
            match self.occupant(name, &there) {
                Occupant::None => {}
                Occupant::Live => {
                    let file = Address::Pathname(there.link().into_bytes().into());
                    let holder = Holder::bound_to(&file).ok();
                    return Err(in_use.replaceable().with_cause(match holder {
                        Some(holder) => format!("it is in use by {holder}"),
                        None => "it is in use".to_owned(),
                    }));
                }
                Occupant::OtherType => {
                    let file = Address::Pathname(there.link().into_bytes().into());
                    return Err(in_use.replaceable().with_cause(other_socket_type(&file)));
                }
                Occupant::Denied => {
                    return Err(in_use.replaceable().with_cause(
                        "a socket file exists and you may not test whether it is in use",
                    ));
                }
                Occupant::Unknown(cause) => {
                    return Err(in_use.with_cause(format!(
                        "a socket file exists, and whether it is in use cannot be tested: {cause}"
                    )));
                }
            }
        }
        self.remove(name, there.identity())
            .map_err(|errno| self.error("remove the socket file", errno))
    }

    /// Tests whether a socket file is in use. Repeats the test until the file is old enough to be stale.
    fn occupant(&self, name: &OsStr, file: &SocketFile) -> Occupant {
        let start = Instant::now();
        loop {
            let occupant = self.probe(name, file);
            // The second condition ends the loop if the clock is behind the time of the file.
            let settled = file.is_older_than(SETTLE_TIME) || start.elapsed() >= SETTLE_TIME;
            if settled || !matches!(occupant, Occupant::None) {
                return occupant;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Tests once whether a socket file is in use: connects a scratch socket to it, which sends nothing.
    fn probe(&self, name: &OsStr, file: &SocketFile) -> Occupant {
        let scratch = match DatagramSocket::new() {
            Ok(scratch) => scratch,
            Err(error) => return Occupant::Unknown(error.cause().to_owned().into()),
        };
        let connect = |path: &OsStr| sys::connect(scratch.as_fd(), &pathname(path)?);
        match connect(OsStr::new(&file.link())) {
            Err(Errno::EACCES) => Occupant::Denied,
            Err(Errno::ENOENT) if !has_proc() => {
                let connected = connect(self.path.with_file_name(name).as_os_str());
                if !self.is_same(name, file.identity()) {
                    // Another program has replaced the file since.
                    return Occupant::Live;
                }
                Occupant::of_connect(connected).unwrap_or_else(|errno| {
                    let cause = format!("{}, and /proc is not mounted", describe(errno));
                    Occupant::Unknown(cause.into())
                })
            }
            connected => Occupant::of_connect(connected)
                .unwrap_or_else(|errno| Occupant::Unknown(describe(errno).into())),
        }
    }

    /// Removes this name of `file`, if the name still belongs to it.
    fn remove(&self, name: &OsStr, file: Identity) -> Result<(), Errno> {
        if !self.is_same(name, file) {
            return Ok(());
        }
        // A program that does not take the lock may replace the file after this check. So move the file
        // to the hidden name, which no program replaces, check again, and move another's file back.
        if sys::rename_noreplace(&self.directory, name, &self.hidden).is_err() {
            // EINVAL: the file system has no RENAME_NOREPLACE. EEXIST: another udgram is removing a file.
            return if self.is_same(name, file) {
                self.unlink(name)
            } else {
                Ok(())
            };
        }
        if self.is_same(&self.hidden, file) {
            return self.unlink(&self.hidden);
        }
        sys::rename_noreplace(&self.directory, &self.hidden, name)
    }

    /// Removes the socket file that has just been created and could not be opened.
    fn discard(&self) {
        let is_socket = |status: &Status| status.mode & libc::S_IFMT == libc::S_IFSOCK;
        if let Some(status) = self.status(&self.name).ok().filter(is_socket) {
            self.clear(Identity::of(&status));
        }
    }

    fn unlink(&self, name: &OsStr) -> Result<(), Errno> {
        match unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            unlinked => unlinked,
        }
    }

    fn status(&self, name: &OsStr) -> Result<Status, Errno> {
        Status::of(self.directory.as_fd(), name)
    }

    fn is_same(&self, name: &OsStr, file: Identity) -> bool {
        // Try twice: a temporary failure, such as ENOMEM, must not leave the file behind.
        let there = self.status(name).or_else(|_| self.status(name));
        there.is_ok_and(|there| Identity::of(&there) == file)
    }
}

/// A lock of a directory, which every udgram takes to replace or remove socket files in it; flock(2).
pub(super) struct Lock {
    /// The locked descriptor; closing it unlocks the directory.
    _directory: OwnedFd,
}

impl Lock {
    /// Locks the directory of `place`. Returns `None` if the directory cannot be opened for reading, or if
    /// another process holds the lock for more than 100 ms: any user who can read it may lock it.
    pub(super) fn of(place: &Place) -> Option<Self> {
        const LOCK_TIMEOUT: Duration = Duration::from_millis(100);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = openat(&place.directory, ".", flags, Mode::empty()).ok()?;
        let start = Instant::now();
        loop {
            match sys::try_lock(directory.as_fd()) {
                Ok(()) => {
                    return Some(Self {
                        _directory: directory,
                    });
                }
                Err(Errno::EAGAIN | Errno::EINTR) if start.elapsed() < LOCK_TIMEOUT => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return None,
            }
        }
    }
}

/// Makes the socket address of a path.
fn pathname(path: &OsStr) -> Result<SockAddr, Errno> {
    SockAddr::new(&Address::Pathname(path.as_bytes().into())).ok_or(Errno::ENAMETOOLONG)
}

/// Returns the absolute form of a relative path, if it fits into `sun_path` and leads to `directory`.
fn absolute_form(path: &Path, directory: &OwnedFd) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    let bytes = absolute.as_os_str().as_bytes();
    // getcwd(2) returns `(unreachable)/…` for a directory outside of the root.
    if path.is_absolute() || !bytes.starts_with(b"/") || bytes.len() >= SUN_PATH_LEN {
        return None;
    }
    // The path may lead elsewhere if a file system is mounted over the working directory, and nowhere if
    // this process may not search a parent directory.
    let reached = std::fs::metadata(absolute.parent()?).ok()?;
    let meant = sys::metadata(directory.as_fd()).ok()?;
    let same = (reached.dev(), reached.ino()) == (meant.dev(), meant.ino());
    same.then_some(absolute)
}

/// Returns the hidden name for a file name, with the FNV-1a hash of its bytes.
fn hidden_name(name: &OsStr) -> OsString {
    let hash = name
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!(".udgram-{hash:016x}").into()
}
