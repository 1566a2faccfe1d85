//! A bound pathname: the mode and the owner of its socket file, and the file's removal.

mod file;
mod place;

use crate::address::Address;
use crate::error::{Error, Result, Subject};
use crate::socket::DatagramSocket;
use crate::sys::{self, SockAddr};
use file::SocketFile;
use nix::errno::Errno;
use nix::sys::inotify::Inotify;
use nix::sys::stat::{Mode, fchmod};
use place::{Lock, Place};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How a pathname is bound.
#[derive(Debug, Clone, Copy)]
pub struct BindOptions {
    /// The permission bits of the socket file, whatever the umask; sending needs write permission.
    pub mode: u32,
    /// The user and the group that the socket file is given to; `None`: those of the process.
    pub owner: Option<(u32, Option<u32>)>,
    /// What happens when a live socket holds the pathname.
    pub occupied: Occupied,
}

impl Default for BindOptions {
    /// Returns mode 0600, the owner of the process, and live sockets left alone.
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
    /// Binding fails with [`ErrorKind::InUse`](crate::ErrorKind::InUse).
    Refuse,
    /// The name is taken from that socket.
    Replace,
}

/// Why a socket is not reached by its pathname any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The name is gone.
    Removed,
    /// The name belongs to another file.
    Replaced,
}

/// The socket file that a socket is bound to.
///
/// Dropping it removes the file, if the name still belongs to it. A process that ends without
/// dropping it leaves a stale file, which the next [`bind`] replaces.
#[derive(Debug)]
pub struct Binding {
    place: Place,
    file: SocketFile,
    watch: Option<Inotify>,
}

impl Binding {
    /// Begins to watch the socket file: see [`notice`](Self::notice). What happened before is not
    /// reported: call [`lost`](Self::lost) once after it.
    #[doc(alias = "inotify")]
    pub fn watch(&mut self) {
        if self.watch.is_none() {
            self.watch = self.place.watch(&self.file).ok();
        }
    }

    /// Returns a descriptor that becomes readable when the socket file may have lost its name: then
    /// call [`lost`](Self::lost), which also makes it unreadable again.
    ///
    /// Returns `None` if the file is not watched: [`watch`](Self::watch) was not called, no inotify
    /// instance is left (`fs.inotify.max_user_instances`), or the process may not read the file.
    #[must_use]
    pub fn notice(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Returns how the socket file has lost its name; `None` if it still has it. One call costs a
    /// system call or two, with or without a [`watch`](Self::watch).
    #[must_use]
    pub fn lost(&self) -> Option<Lost> {
        if let Some(watch) = &self.watch {
            while matches!(watch.read_events(), Ok(events) if !events.is_empty()) {}
        }
        self.place.lost(self.file.identity())
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        // Another udgram that takes the name over holds the lock meanwhile.
        let _lock = Lock::of(&self.place);
        self.place.clear(self.file.identity());
    }
}

/// Binds `socket` to `address`; bind(2). Returns the [`Binding`] of a pathname.
///
/// A pathname may have any length. A relative one is bound by its absolute form where that fits into
/// `sun_path`: the kernel reports the name to peers as it was bound, and they may have another working
/// directory. The socket file has the mode asked for and is at no moment more open. A stale socket file
/// is replaced, a file of another type never.
///
/// The unnamed address leaves the socket unchanged.
pub fn bind(
    socket: &DatagramSocket,
    address: &Address<'_>,
    options: BindOptions,
) -> Result<Option<Binding>> {
    match address {
        Address::Unnamed => Ok(None),
        Address::Abstract(_) => bind_abstract(socket, address).map(|()| None),
        Address::Pathname(path) => {
            let place = Place::of(address, Path::new(OsStr::from_bytes(path)))?;
            bind_path(socket, place, options).map(Some)
        }
    }
}

fn bind_abstract(socket: &DatagramSocket, address: &Address<'_>) -> Result<()> {
    let name = SockAddr::new(address).ok_or(Errno::ENAMETOOLONG);
    name.and_then(|name| sys::bind(socket.as_fd(), &name))
        .map_err(|errno| {
            let subject = Subject::Address(address.clone().into_owned());
            let error = Error::system("bind", subject, errno);
            if errno == Errno::EADDRINUSE {
                error.with_hint("another socket has this abstract name")
            } else {
                error
            }
        })
}

fn bind_path(socket: &DatagramSocket, place: Place, options: BindOptions) -> Result<Binding> {
    let mode = Mode::from_bits_truncate(options.mode);
    // bind(2) gives the file the mode of the socket less the umask. Withhold group and other bits
    // until chown(2): they would apply to the wrong group.
    let first = match options.owner {
        Some(_) => mode & Mode::S_IRWXU,
        None => mode,
    };
    fchmod(socket.as_fd(), first).map_err(|errno| place.error("bind", errno))?;
    place.occupy(socket, options.occupied)?;
    let file = place.made(socket)?;
    let binding = Binding {
        place,
        file,
        watch: None,
    };
    let Binding { place, file, .. } = &binding;
    if let Some((user, group)) = options.owner {
        file.set_owner(user, group)
            .map_err(|errno| place.error("set the owner of", errno))?;
    }
    if file.mode() != mode {
        place
            .set_mode(file, mode)
            .map_err(|errno| place.error("set the mode of", errno))?;
    }
    Ok(binding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::fs;
    use std::os::unix::net::UnixDatagram;
    use std::path::PathBuf;

    fn bound(directory: &tempfile::TempDir) -> (Binding, PathBuf) {
        let path = directory.path().join("s");
        let address = Address::Pathname(path.as_os_str().as_bytes().into());
        let socket = DatagramSocket::new().unwrap();
        let binding = bind(&socket, &address, BindOptions::default()).unwrap();
        (binding.unwrap(), path)
    }

    fn is_readable(binding: &mut Binding) -> bool {
        binding.watch();
        let watch = binding.notice().unwrap();
        poll(
            &mut [PollFd::new(watch, PollFlags::POLLIN)],
            PollTimeout::ZERO,
        ) == Ok(1)
    }

    #[test]
    fn a_socket_file_that_is_removed_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (mut binding, path) = bound(&directory);
        assert!(!is_readable(&mut binding));
        assert_eq!(binding.lost(), None);
        fs::remove_file(path).unwrap();
        assert!(is_readable(&mut binding));
        assert_eq!(binding.lost(), Some(Lost::Removed));
        assert!(!is_readable(&mut binding));
        assert_eq!(binding.lost(), Some(Lost::Removed));
    }

    #[test]
    fn a_socket_file_that_is_replaced_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (mut binding, path) = bound(&directory);
        let other = directory.path().join("other");
        let _successor = UnixDatagram::bind(&other).unwrap();
        assert!(!is_readable(&mut binding));
        fs::rename(other, &path).unwrap();
        assert!(is_readable(&mut binding));
        assert_eq!(binding.lost(), Some(Lost::Replaced));
        drop(binding);
        assert!(path.exists(), "the successor's file is removed");
    }

    #[test]
    fn a_socket_file_that_is_moved_and_moved_back_is_not_lost() {
        let directory = tempfile::tempdir().unwrap();
        let (mut binding, path) = bound(&directory);
        let other = directory.path().join("other");
        assert!(!is_readable(&mut binding));
        fs::rename(&path, &other).unwrap();
        assert!(is_readable(&mut binding));
        assert_eq!(binding.lost(), Some(Lost::Removed));
        fs::rename(&other, &path).unwrap();
        assert!(is_readable(&mut binding));
        assert_eq!(binding.lost(), None);
    }

    #[test]
    fn a_socket_file_that_nobody_watches_can_be_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let (binding, path) = bound(&directory);
        assert_eq!(binding.lost(), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(binding.lost(), Some(Lost::Removed));
        fs::write(&path, "").unwrap();
        assert_eq!(binding.lost(), Some(Lost::Replaced));
    }

    #[test]
    fn a_socket_file_with_a_long_name_is_watched_by_its_own_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n".repeat(120));
        let address = Address::Pathname(path.as_os_str().as_bytes().into());
        let socket = DatagramSocket::new().unwrap();
        let binding = bind(&socket, &address, BindOptions::default()).unwrap();
        let mut binding = binding.unwrap();
        assert!(!is_readable(&mut binding));
        fs::remove_file(path).unwrap();
        assert!(is_readable(&mut binding));
        assert_eq!(binding.lost(), Some(Lost::Removed));
        drop(binding);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
