//! The recipient of an answer: finds the socket that sent the packet, and refuses a path that may lead
//! to another user's socket.

use crate::users::{Sender, Users};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use udgram::{
    Address, Datagram, DatagramSocket, Destination, Error, ErrorKind, Subject, metadata, strerror,
};

/// The sender of a packet that is answered, with what identifies it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Recipient {
    address: Address<'static>,
    /// The user that sent the packet, if the address is a pathname.
    user: Sender,
    /// The process that sent the packet, if the address is a relative pathname; 0 if the kernel does
    /// not report it.
    process: i32,
}

/// The reason why a packet cannot be answered.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The sender has no address.
    Unnamed,
    /// The path may lead to another user's socket; the cause, with a hint.
    Untrusted(String),
    /// The socket cannot be reached.
    Unreachable(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Unreachable(error)
    }
}

impl Recipient {
    /// Returns the recipient of an answer to `datagram`: its sender.
    pub(crate) fn of(datagram: &Datagram<'_>, users: Users) -> Self {
        let address = datagram.sender().into_owned();
        let credentials = datagram.ancillary.credentials;
        let (user, process) = match &address {
            Address::Pathname(path) => {
                let user = users.sender(credentials);
                let relative = credentials.filter(|_| !path.starts_with(b"/"));
                (user, relative.map_or(0, |credentials| credentials.pid))
            }
            Address::Abstract(_) | Address::Unnamed => (Sender::Unasked, 0),
        };
        Self {
            address,
            user,
            process,
        }
    }

    pub(crate) fn address(&self) -> &Address<'static> {
        &self.address
    }

    /// Returns the destination of answers; `None` for the peer that `socket` is connected to. `own` is
    /// the effective user of this process.
    ///
    /// Another user may have bound a pathname and then replaced the file by a link to a socket to which
    /// this process may write and that user may not. Such a path is opened without following a final
    /// link (`O_NOFOLLOW`), and the socket file must belong to the sender's user.
    pub(crate) fn destination(
        &self,
        socket: &DatagramSocket,
        own: u32,
    ) -> Result<Option<Destination>, Refusal> {
        let Some(path) = self.address.as_path() else {
            return match self.address {
                // The other end of a socketpair(2) is unnamed, but this socket is connected to it.
                Address::Unnamed if socket.peer_name()?.is_some() => Ok(None),
                Address::Unnamed => Err(Refusal::Unnamed),
                _ => Ok(Some(Destination::named(&self.address)?)),
            };
        };
        let user = match self.user {
            Sender::User(user) => user,
            Sender::Unmapped => {
                return Err(Refusal::Untrusted(
                    "its user has no number in this user namespace".to_owned(),
                ));
            }
            Sender::Unknown | Sender::Unasked => {
                return Err(Refusal::Untrusted(
                    "the kernel does not say which user sent the packet (hint: for systemd's socket activation, PassCredentials=yes in the socket unit)"
                        .to_owned(),
                ));
            }
        };
        let directory = self.directory(path).map_err(|errno| {
            Refusal::Untrusted(format!(
                "its path is relative, and the working directory of process {} cannot be opened: {}",
                self.process,
                strerror(errno as i32)
            ))
        })?;
        if user == own && directory.is_none() {
            return Ok(Some(Destination::named(&self.address)?));
        }
        let directory = directory.as_ref().map_or(AT_FDCWD, AsFd::as_fd);
        let file = if user == own {
            self.open(directory, path, OFlag::empty())?
        } else {
            let file = self.open(directory, path, OFlag::O_NOFOLLOW)?;
            check_owner(&file, user)?;
            file
        };
        Ok(Some(Destination::of_file(&self.address, file)?))
    }

    /// Opens the working directory of the sender, to which a relative path is relative. Returns `None`
    /// for an absolute path.
    fn directory(&self, path: &Path) -> Result<Option<OwnedFd>, Errno> {
        if path.is_absolute() {
            return Ok(None);
        }
        if self.process == 0 {
            return Err(Errno::ESRCH);
        }
        let directory = format!("/proc/{}/cwd", self.process);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(directory.as_str(), flags, Mode::empty()).map(Some)
    }

    fn open(
        &self,
        directory: BorrowedFd<'_>,
        path: &Path,
        flags: OFlag,
    ) -> Result<OwnedFd, Refusal> {
        let flags = flags | OFlag::O_PATH | OFlag::O_CLOEXEC;
        openat(directory, path, flags, Mode::empty()).map_err(|errno| {
            let subject = Subject::Address(self.address.clone());
            Refusal::Unreachable(match errno {
                Errno::ENOENT | Errno::ENOTDIR => Error::new(
                    ErrorKind::NobodyThere,
                    "send to",
                    subject,
                    strerror(errno as i32),
                ),
                errno => Error::from_raw_os_error("send to", subject, errno as i32),
            })
        })
    }
}

/// Fails unless `file` is a socket that belongs to `user`.
fn check_owner(file: &OwnedFd, user: u32) -> Result<(), Refusal> {
    let untrusted = |reason: String| Err(Refusal::Untrusted(reason));
    match metadata(file) {
        Err(error) => untrusted(format!(
            "its file cannot be examined: {}",
            strerror(error.raw_os_error().unwrap_or(0))
        )),
        Ok(file) => match SFlag::from_bits_truncate(file.mode()) & SFlag::S_IFMT {
            SFlag::S_IFSOCK if file.uid() == user => Ok(()),
            SFlag::S_IFSOCK => untrusted(format!(
                "its file belongs to user {}, and user {user} sent the packet",
                file.uid()
            )),
            SFlag::S_IFLNK => untrusted(format!(
                "its path is a symbolic link, and user {user} sent the packet"
            )),
            _ => untrusted("its path leads to no socket".to_owned()),
        },
    }
}
