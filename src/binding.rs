//! A bound pathname: made with the mode it is to have, never in the place of something alive, and
//! removed when it is no longer needed, if it is still the same file.

use crate::address::{Address, SUN_PATH_LEN};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::socket::DatagramSocket;
use crate::sys::{self, SockAddr};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, fstatat};
use nix::unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchownat, linkat, unlinkat};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How a pathname is bound.
#[derive(Debug, Clone, Copy)]
pub struct BindOptions {
    /// The permission bits of the socket file, whatever the umask; writing to it is sending.
    pub mode: u32,
    /// Its owner and group, where they are not to be the process's own.
    pub owner: Option<(u32, Option<u32>)>,
    /// Whether a name that another live socket holds is taken from it.
    pub occupied: Occupied,
}

impl Default for BindOptions {
    /// Mode 0600, the process's own, live sockets left alone.
    fn default() -> Self {
        Self {
            mode: 0o600,
            owner: None,
            occupied: Occupied::Refuse,
        }
    }
}

/// What happens when a live socket holds the pathname.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupied {
    /// It keeps it, and binding fails.
    Refuse,
    /// It loses it.
    Replace,
}

/// The socket file that a socket is bound to. Dropping it removes the file, if the name still
/// belongs to it; a process that ends without dropping it leaves a stale file, which the next
/// [`bind`] replaces.
#[derive(Debug)]
pub struct Binding {
    directory: OwnedFd,
    names: Vec<OsString>,
    /// The device and inode number of the file, which has it as long as `file` is open.
    identity: (u64, u64),
    file: OwnedFd,
}

impl Drop for Binding {
    fn drop(&mut self) {
        // Under the lock that whoever replaces the file holds: else the check and the removal
        // could have a new file of theirs between them.
        let _lock = lock(&self.directory);
        for name in &self.names {
            if is_same(&self.directory, name, self.identity) {
                // Nobody is left to be told of a failure.
                let _ = unlinkat(
                    &self.directory,
                    name.as_os_str(),
                    UnlinkatFlags::NoRemoveDir,
                );
            }
        }
    }
}

/// Binds `socket` to `address`; bind(2). A pathname may have any length; what it makes has the
/// mode asked for and is at no moment more open. A stale socket file in its place is replaced,
/// anything that is not a socket never is. For a pathname the [`Binding`] comes back.
///
/// The unnamed address leaves the socket as it is.
pub fn bind(
    socket: &DatagramSocket,
    address: &Address<'_>,
    options: BindOptions,
) -> Result<Option<Binding>> {
    match address {
        Address::Unnamed => Ok(None),
        Address::Abstract(_) => {
            let name = SockAddr::new(address).ok_or(Errno::ENAMETOOLONG);
            name.and_then(|name| sys::bind(socket.as_fd(), &name))
                .map(|()| None)
                .map_err(|errno| {
                    let error = failed(address, errno);
                    if errno == Errno::EADDRINUSE {
                        error.with_hint("another socket has this abstract name")
                    } else {
                        error
                    }
                })
        }
        Address::Pathname(path) => {
            bind_path(socket, address, Path::new(OsStr::from_bytes(path)), options).map(Some)
        }
    }
}

fn failed(address: &Address<'_>, errno: Errno) -> Error {
    Error::system(
        "bind",
        Subject::Address(address.clone().into_owned()),
        errno,
    )
}

fn bind_path(
    socket: &DatagramSocket,
    address: &Address<'_>,
    path: &Path,
    options: BindOptions,
) -> Result<Binding> {
    let failed = |errno| failed(address, errno);
    let name = path
        .file_name()
        .filter(|_| !path.as_os_str().as_bytes().ends_with(b"/"));
    let name = name.ok_or_else(|| failed(Errno::EISDIR))?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let directory = open(
        parent,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(failed)?;
    // The mode that bind(2) gives the file is the socket's own less the umask. As long as it has
    // not got its owner, the process's own group and others are nobody it is meant for.
    let mode = Mode::from_bits_truncate(options.mode);
    let first = match options.owner {
        Some(_) => mode & Mode::S_IRWXU,
        None => mode,
    };
    fchmod(socket.as_fd(), first).map_err(failed)?;
    let place = Place {
        directory: &directory,
        name,
        path,
    };
    // The kernel makes the file before the socket answers there. To another udgram that looks in
    // between, or before it is known which file is this one, it would be a stale one.
    let held = lock(&directory);
    match place.bind(socket) {
        Err(Errno::EADDRINUSE) => place.take_over(socket, address, options.occupied)?,
        bound => bound.map_err(failed)?,
    }
    let (file, status) = place.made(socket).map_err(|errno| {
        place.remove();
        failed(errno)
    })?;
    if !is_socket(&status) {
        return Err(failed(Errno::ESTALE));
    }
    drop(held);
    let mut names = vec![name.to_owned()];
    names.extend(place.short_name());
    let binding = Binding {
        directory,
        names,
        identity: identity(&status),
        file,
    };
    // The file itself, whatever its name has come to mean.
    let itself = PathBuf::from(format!("/proc/self/fd/{}", binding.file.as_raw_fd()));
    if let Some((uid, gid)) = options.owner {
        fchownat(
            AT_FDCWD,
            &itself,
            Some(Uid::from_raw(uid)),
            gid.map(Gid::from_raw),
            AtFlags::empty(),
        )
        .map_err(|errno| {
            Error::system(
                "set the owner of",
                Subject::Address(address.clone().into_owned()),
                errno,
            )
        })?;
    }
    if status.st_mode & 0o7777 != mode.bits() {
        fchmodat(AT_FDCWD, &itself, mode, FchmodatFlags::FollowSymlink).map_err(failed)?;
    }
    Ok(binding)
}

/// Where a socket file is to be.
struct Place<'p> {
    directory: &'p OwnedFd,
    name: &'p OsStr,
    path: &'p Path,
}

impl Place<'_> {
    /// The file that `socket` has just made, and what it is. The kernel tells which it is to who
    /// has CAP_NET_ADMIN; to others, it is the one that has the name.
    fn made(&self, socket: &DatagramSocket) -> Result<(OwnedFd, FileStat), Errno> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = sys::bound_file(socket.as_fd())
            .or_else(|_| openat(self.directory, self.name, flags, Mode::empty()))?;
        let status = fstat(&file)?;
        Ok((file, status))
    }

    /// Removes the socket file just made, under the lock, where there is no descriptor of it.
    fn remove(&self) {
        let status = fstatat(self.directory, self.name, AtFlags::AT_SYMLINK_NOFOLLOW);
        if status.is_ok_and(|status| is_socket(&status)) {
            for name in std::iter::once(self.name.to_owned()).chain(self.short_name()) {
                // The failure that led here is what is told.
                let _ = unlinkat(self.directory, name.as_os_str(), UnlinkatFlags::NoRemoveDir);
            }
        }
    }

    /// Peers see, and answer to, the very name that bind(2) was given. One too long for it is
    /// reached through this process's descriptor of the directory, which they can follow too.
    fn bind(&self, socket: &DatagramSocket) -> Result<(), Errno> {
        let bytes = self.path.as_os_str().as_bytes();
        if bytes.len() < SUN_PATH_LEN {
            let name =
                SockAddr::new(&Address::Pathname(bytes.into())).ok_or(Errno::ENAMETOOLONG)?;
            return sys::bind(socket.as_fd(), &name);
        }
        if self.name.len() > 255 {
            return Err(Errno::ENAMETOOLONG);
        }
        let Some(short) = self.short_name() else {
            return sys::bind(socket.as_fd(), &self.through(self.name)?);
        };
        // A file name so long that even this has no room for it is a second link to a short one.
        if fstatat(self.directory, self.name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok() {
            return Err(Errno::EADDRINUSE);
        }
        sys::bind(socket.as_fd(), &self.through(&short)?)?;
        let linked = linkat(
            self.directory,
            short.as_os_str(),
            self.directory,
            self.name,
            LinkatFlags::empty(),
        );
        linked.map_err(|errno| {
            let _ = unlinkat(
                self.directory,
                short.as_os_str(),
                UnlinkatFlags::NoRemoveDir,
            );
            if errno == Errno::EEXIST {
                Errno::EADDRINUSE
            } else {
                errno
            }
        })
    }

    fn through(&self, name: &OsStr) -> Result<SockAddr, Errno> {
        let mut path = format!(
            "/proc/{}/fd/{}/",
            std::process::id(),
            self.directory.as_raw_fd()
        )
        .into_bytes();
        path.extend_from_slice(name.as_bytes());
        SockAddr::new(&Address::Pathname(path.into())).ok_or(Errno::ENAMETOOLONG)
    }

    /// The short name that a file name too long for [`through`](Self::through) goes with.
    fn short_name(&self) -> Option<OsString> {
        let long = self.path.as_os_str().len() >= SUN_PATH_LEN && self.through(self.name).is_err();
        long.then(|| {
            format!(
                ".udgram-{}-{}",
                std::process::id(),
                self.directory.as_raw_fd()
            )
            .into()
        })
    }

    /// Binds where something is already: in the place of a stale socket file, or of a live one's
    /// if that is asked for. Under the lock: of two that find the same stale file, the second
    /// would else replace the first's new one.
    fn take_over(
        &self,
        socket: &DatagramSocket,
        address: &Address<'_>,
        occupied: Occupied,
    ) -> Result<()> {
        let failed = |errno| failed(address, errno);
        let in_use = |cause: String| {
            let subject = Subject::Address(address.clone().into_owned());
            Error::new(ErrorKind::System(Errno::EADDRINUSE), "bind", subject, cause)
        };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let there = match openat(self.directory, self.name, flags, Mode::empty()) {
            Ok(there) => there,
            Err(Errno::ENOENT) => return self.bind(socket).map_err(failed),
            Err(errno) => return Err(failed(errno)),
        };
        let status = fstat(&there).map_err(failed)?;
        if !is_socket(&status) {
            let kind = match SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT {
                SFlag::S_IFLNK => "symbolic link",
                SFlag::S_IFDIR => "directory",
                SFlag::S_IFIFO => "FIFO",
                SFlag::S_IFREG => "regular file",
                _ => "device",
            };
            return Err(in_use(format!(
                "a {kind} is there, not a socket, and is never replaced"
            )));
        }
        match probe(&there) {
            Err(Errno::ECONNREFUSED) => {}
            _ if occupied == Occupied::Replace => {}
            Err(Errno::EACCES) => {
                return Err(in_use(
                    "a socket is there, and it cannot be told whether it is in use".to_owned(),
                )
                .with_hint("--replace takes the name from it"));
            }
            _ => {
                return Err(
                    in_use("another socket is bound to it and in use".to_owned())
                        .with_hint("--replace takes the name from it"),
                );
            }
        }
        if !is_same(self.directory, self.name, identity(&status)) {
            return Err(failed(Errno::EADDRINUSE));
        }
        unlinkat(self.directory, self.name, UnlinkatFlags::NoRemoveDir).map_err(|errno| {
            let subject = Subject::File(self.path.to_owned());
            Error::system("remove the socket file", subject, errno)
        })?;
        self.bind(socket).map_err(failed)
    }
}

fn is_socket(status: &FileStat) -> bool {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK
}

fn identity(status: &FileStat) -> (u64, u64) {
    (status.st_dev, status.st_ino)
}

fn is_same(directory: &OwnedFd, name: &OsStr, file: (u64, u64)) -> bool {
    let look = || fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    // A failure that passes, such as ENOMEM, is no reason to leave a file behind.
    let there = look().or_else(|_| look());
    there.is_ok_and(|there| identity(&there) == file)
}

/// Whether a socket file has a socket behind it, asked by connecting: which sends nothing.
/// ECONNREFUSED says that it has none.
fn probe(file: &OwnedFd) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let name =
        SockAddr::new(&Address::Pathname(path.as_bytes().into())).ok_or(Errno::ENAMETOOLONG)?;
    let scratch = DatagramSocket::new().map_err(|error| error.errno().unwrap_or(Errno::EMFILE))?;
    sys::connect(scratch.as_fd(), &name)
}

/// A lock among all udgram that replace or remove files of this directory; none where the
/// directory cannot be read, and none for long where a stranger holds it.
fn lock(directory: &OwnedFd) -> Option<OwnedFd> {
    const PATIENCE: Duration = Duration::from_millis(500);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let readable = openat(directory, ".", flags, Mode::empty()).ok()?;
    let start = Instant::now();
    loop {
        match sys::try_lock(readable.as_fd()) {
            // Closing it gives the lock back.
            Ok(()) => return Some(readable),
            Err(Errno::EAGAIN | Errno::EINTR) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(_) => return None,
        }
    }
}
