//! Binds sockets to addresses. Sets the mode and the owner of a socket file, and removes it again.

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

/// The options for binding a pathname.
#[derive(Debug, Clone, Copy)]
pub struct BindOptions {
    /// The permission bits of the socket file; the umask is ignored. Sending needs write permission.
    pub mode: u32,
    /// The user and the group that own the socket file; `None`: those of the process.
    pub owner: Option<(u32, Option<u32>)>,
    /// The action if a live socket has the pathname.
    pub occupied: Occupied,
}

impl Default for BindOptions {
    /// Returns mode 0600, the owner of the process, and [`Occupied::Refuse`].
    fn default() -> Self {
        Self {
            mode: 0o600,
            owner: None,
            occupied: Occupied::Refuse,
        }
    }
}

/// The action if a live socket has the pathname.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupied {
    /// Binding fails with [`ErrorKind::InUse`](crate::ErrorKind::InUse).
    Refuse,
    /// The socket file is replaced: peers cannot reach that socket any more.
    Replace,
}

/// The reason why peers cannot reach a socket by its pathname any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The name does not exist.
    Removed,
    /// The name belongs to another file.
    Replaced,
}

/// The socket file that a socket is bound to.
///
/// Dropping it removes the file, unless the name belongs to another file by then. A process that ends
/// without dropping it leaves a stale file, which the next [`bind`] replaces.
#[derive(Debug)]
pub struct Binding {
    place: Place,
    file: SocketFile,
    watch: Option<Inotify>,
}

impl Binding {
    /// Starts to watch the socket file; see [`notice`](Self::notice). Call [`lost`](Self::lost) once after
    /// it: earlier changes are not reported.
    #[doc(alias = "inotify")]
    pub fn watch(&mut self) {
        if self.watch.is_none() {
            self.watch = self.place.watch(&self.file).ok();
        }
    }

    /// Returns a descriptor that becomes readable when the socket file may have lost its name. Then call
    /// [`lost`](Self::lost), which also reads all events.
    ///
    /// Returns `None` if the file is not watched: [`watch`](Self::watch) was not called, no inotify
    /// instance is left (`fs.inotify.max_user_instances`), or the process may not read the file.
    #[must_use]
    pub fn notice(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Returns how the socket file has lost its name; `None` if it still has it. Costs one or two system
    /// calls, with or without a [`watch`](Self::watch).
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
        // Hold the directory lock, or another udgram could replace the file between check and unlink(2).
        let _lock = Lock::of(&self.place);
        self.place.clear(self.file.identity());
    }
}

/// Binds `socket` to `address`; bind(2). Returns the [`Binding`] of a pathname.
///
/// A pathname may have any length. A relative one is bound by its absolute form if that fits into
/// `sun_path`: the kernel reports the name to peers as it was bound, and they may have another working
/// directory. The socket file has the requested mode, and never a more permissive one before. A stale
/// socket file is replaced, a file of another type never.
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
    // bind(2) creates the file with the mode of the socket, less the umask. Withhold group and other bits
    // until chown(2): they would apply to the wrong group.
    let first = match options.owner {
        Some(_) => mode & Mode::S_IRWXU,
        None => mode,
    };
    fchmod(socket.as_fd(), first).map_err(|errno| place.error("bind", errno))?;
    place.occupy(socket, options.occupied)?;
    let file = place.created_file(socket)?;
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
    fn a_lost_socket_file_is_noticed_without_a_watch() {
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
