//! Where a socket file is made: its directory, its name, and what is there already.

use super::file::{Identity, SocketFile};
use super::{Lost, Occupied};
use crate::address::{Address, SUN_PATH_LEN};
use crate::diagnose::has_proc;
use crate::error::{Error, Result, Subject, describe};
use crate::holder::Holder;
use crate::socket::DatagramSocket;
use crate::sys::{self, SockAddr};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, fstatat, stat};
use nix::unistd::{LinkatFlags, UnlinkatFlags, linkat, unlinkat};
use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest file name that fits into `sun_path` behind `/proc/4194304/fd/1048575/`: the largest
/// process id and, by default, the largest descriptor. It does not depend on the process, so that
/// the next one knows where to look for what a killed one left.
const LONGEST_NAME: usize = SUN_PATH_LEN - 1 - "/proc/4194304/fd/1048575/".len();

/// How old a socket file is before it counts as stale. bind(2) makes the file a moment before the
/// socket answers there.
const SETTLED: Duration = Duration::from_millis(100);

/// How often a name is cleared that another program takes each time.
const ATTEMPTS: usize = 8;

/// The place of a socket file.
#[derive(Debug)]
pub(super) struct Place {
    /// The address as the caller wrote it, for messages.
    subject: Subject,
    directory: OwnedFd,
    name: OsString,
    /// The path for bind(2), if it fits into `sun_path`.
    path: PathBuf,
    /// A short file name that belongs to `name`: the second link of a file whose name is too long
    /// for bind(2), and for a moment the name of a file that is being removed.
    hidden: OsString,
}

/// How bind(2) names the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    /// By its path.
    Path,
    /// Through this process's descriptor of the directory, which peers can follow too.
    Directory,
    /// Likewise, by the hidden name; the file's own name is a second link.
    HiddenLink,
}

/// What is behind a socket file.
enum Occupant {
    /// No socket: the file is stale.
    None,
    /// A socket.
    Live,
    /// A socket or none: this process may not write to the file.
    Denied,
    /// A socket or none: this is why it cannot be tested.
    Unknown(Cow<'static, str>),
}

impl Occupant {
    /// Reads the outcome of a connect(2) to the file. Returns an errno that does not say whether there
    /// is a socket.
    fn of_connect(connected: Result<(), Errno>) -> Result<Self, Errno> {
        match connected {
            Err(Errno::ECONNREFUSED) => Ok(Self::None),
            // Connected to another peer, or a socket of another type.
            Ok(()) | Err(Errno::EPERM | Errno::EPROTOTYPE) => Ok(Self::Live),
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

    /// Binds `socket`, in the place of a stale socket file if there is one, or of a live one if
    /// `occupied` says so.
    pub(super) fn occupy(&self, socket: &DatagramSocket, occupied: Occupied) -> Result<()> {
        // A hidden file was left by a udgram that was killed, or is just being removed.
        if self.status(&self.hidden).is_err() {
            match self.bind(socket) {
                Err(Errno::EADDRINUSE) => {}
                bound => return bound.map_err(|errno| self.refused(errno)),
            }
        }
        self.take_over(socket, occupied)
    }

    /// Opens the file that `socket` has just made. The kernel says which it is to a process with
    /// CAP_NET_ADMIN; for others it is the one that has the name.
    pub(super) fn made(&self, socket: &DatagramSocket) -> Result<SocketFile> {
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

    /// Sets the permission bits of `file`, which was made here.
    pub(super) fn set_mode(&self, file: &SocketFile, mode: Mode) -> Result<(), Errno> {
        match file.set_mode(mode) {
            // Without /proc, Linux before 6.6 takes the name only.
            Err(Errno::ENOENT) if self.is_same(&self.name, file.identity()) => fchmodat(
                &self.directory,
                self.name.as_os_str(),
                mode,
                FchmodatFlags::FollowSymlink,
            ),
            set => set,
        }
    }

    /// Removes the file from under all its names, as far as they still belong to it.
    pub(super) fn clear(&self, file: Identity) {
        // A failure here cannot be reported any more.
        if self.route() == Route::HiddenLink {
            let _ = self.remove(&self.hidden, file);
        }
        let _ = self.remove(&self.name, file);
    }

    /// Returns how `file` has lost its name.
    pub(super) fn lost(&self, file: Identity) -> Option<Lost> {
        match self.status(&self.name) {
            Ok(there) if Identity::of(&there) == file => None,
            Ok(_) => Some(Lost::Replaced),
            Err(Errno::ENOENT) => Some(Lost::Removed),
            // A failure such as ENOMEM says nothing of the file.
            Err(_) => None,
        }
    }

    /// Makes an inotify instance that reports when `file` gets or loses a name.
    pub(super) fn watch(&self, file: &SocketFile) -> Result<Inotify, Errno> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // The process holds the file open: removing its last name changes the link count only.
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

    fn route(&self) -> Route {
        if self.path.as_os_str().len() < SUN_PATH_LEN {
            Route::Path
        } else if self.name.len() <= LONGEST_NAME {
            Route::Directory
        } else {
            Route::HiddenLink
        }
    }

    /// Calls bind(2). Peers see, and answer to, the very name that it is given.
    fn bind(&self, socket: &DatagramSocket) -> Result<(), Errno> {
        match self.route() {
            Route::Path => sys::bind(socket.as_fd(), &pathname(self.path.as_os_str())?),
            Route::Directory => sys::bind(socket.as_fd(), &self.through(&self.name)?),
            Route::HiddenLink => self.bind_hidden(socket),
        }
    }

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
            // The failure that led here is the one that is reported.
            let _ = self.unlink(&self.hidden);
            match errno {
                Errno::EEXIST => Errno::EADDRINUSE,
                errno => errno,
            }
        })
    }

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

    fn take_over(&self, socket: &DatagramSocket, occupied: Occupied) -> Result<()> {
        if occupied == Occupied::Refuse
            && let Ok(there) = SocketFile::open(&self.directory, &self.name)
        {
            // Wait for a young file before taking the lock, which others wait for.
            let _ = self.occupant(&self.name, &there);
        }
        let _lock = Lock::of(self);
        for _ in 0..ATTEMPTS {
            let hidden = self.vacate(&self.hidden, occupied);
            if self.route() == Route::HiddenLink {
                hidden?;
            }
            self.vacate(&self.name, occupied)?;
            match self.bind(socket) {
                // A program that does not take the lock was quicker.
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

    /// Finds out what is behind a socket file. Asks again until the file is old enough.
    fn occupant(&self, name: &OsStr, file: &SocketFile) -> Occupant {
        let start = Instant::now();
        loop {
            let occupant = self.probe(name, file);
            // The second condition ends it where the clock is behind the file's time.
            let settled = file.is_older_than(SETTLED) || start.elapsed() >= SETTLED;
            if settled || !matches!(occupant, Occupant::None) {
                return occupant;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Connects a scratch socket to the file, which sends nothing.
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
                    // Another program has replaced it since.
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

    /// Removes `file` from under this name, if the name still belongs to it.
    fn remove(&self, name: &OsStr, file: Identity) -> Result<(), Errno> {
        if !self.is_same(name, file) {
            return Ok(());
        }
        // A program that does not take the lock may replace the file after that look. Move it to a
        // name that no program replaces, look again, and move another's file back.
        if sys::rename_noreplace(&self.directory, name, &self.hidden).is_err() {
            // The file system cannot do that, or another udgram is removing a file right now.
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

    /// Removes the socket file just made, of which there is no descriptor.
    fn discard(&self) {
        let is_socket = |status: &FileStat| {
            SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK
        };
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

    fn status(&self, name: &OsStr) -> Result<FileStat, Errno> {
        fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    fn is_same(&self, name: &OsStr, file: Identity) -> bool {
        // A failure that passes, such as ENOMEM, is no reason to leave a file behind.
        let there = self.status(name).or_else(|_| self.status(name));
        there.is_ok_and(|there| Identity::of(&there) == file)
    }
}

/// A lock among all udgram that replace or remove files of one directory: flock(2).
pub(super) struct Lock {
    /// Closing it unlocks.
    _directory: OwnedFd,
}

impl Lock {
    /// Locks the directory of `place`. Returns `None` if the directory cannot be read, or if another
    /// process holds the lock for too long: any user may hold it.
    pub(super) fn of(place: &Place) -> Option<Self> {
        const PATIENCE: Duration = Duration::from_millis(100);
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
                Err(Errno::EAGAIN | Errno::EINTR) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return None,
            }
        }
    }
}

fn pathname(path: &OsStr) -> Result<SockAddr, Errno> {
    SockAddr::new(&Address::Pathname(path.as_bytes().into())).ok_or(Errno::ENAMETOOLONG)
}

/// Returns the absolute form of a relative path, if it fits into `sun_path` and leads to `directory`.
fn absolute_form(path: &Path, directory: &OwnedFd) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    let bytes = absolute.as_os_str().as_bytes();
    // getcwd(2) calls a directory outside of the root `(unreachable)/…`.
    if path.is_absolute() || !bytes.starts_with(b"/") || bytes.len() >= SUN_PATH_LEN {
        return None;
    }
    // A file system may be mounted over the working directory, or a directory on the way be closed
    // to this process.
    let reached = stat(absolute.parent()?).ok()?;
    let meant = fstat(directory).ok()?;
    (Identity::of(&reached) == Identity::of(&meant)).then_some(absolute)
}

/// Returns the hidden name that belongs to a file name: the FNV-1a hash of its bytes.
fn hidden_name(name: &OsStr) -> OsString {
    let hash = name
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!(".udgram-{hash:016x}").into()
}
