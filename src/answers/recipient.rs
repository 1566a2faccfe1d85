//! The recipient of an answer: finds the socket that sent the packet, and refuses a path that may lead
//! to another user's socket.

use crate::address::Address;
use crate::batch::Datagram;
use crate::credentials::Credentials;
use crate::descriptor::metadata;
use crate::error::{Error, ErrorKind, Subject, describe, strerror};
use crate::outgoing::Destination;
use crate::socket::DatagramSocket;
use crate::users::{Sender, Users};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag};
use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The sender of a packet that is answered, with what identifies it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Recipient {
    address: Address<'static>,
    /// The user that sent the packet, if the address is a pathname.
    user: Sender,
    /// The process that sent the packet, if the address is a relative pathname; 0 if the kernel does
    /// not report it.
    process: i32,
}

/// The reason why a packet cannot be answered.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The sender has no address.
    Unnamed,
    /// The path may lead to another user's socket.
    Untrusted(Error),
    /// The socket cannot be reached.
    Unreachable(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Unreachable(error)
    }
}

impl Recipient {
    /// Returns the recipient of an answer to `datagram`: its sender. A sender with a pathname is answered
    /// only if the datagram has credentials ([`DatagramSocket::set_passcred`]).
    #[must_use]
    pub fn of(datagram: &Datagram<'_>, users: Users) -> Self {
        let address = datagram.sender().into_owned();
        Self::new(address, datagram.ancillary.credentials, users)
    }

    /// Returns the recipient of an answer to a datagram of this sender, with these credentials.
    pub(crate) fn new(
        address: Address<'static>,
        credentials: Option<Credentials>,
        users: Users,
    ) -> Self {
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

    /// Returns the address of the client.
    #[must_use]
    pub fn address(&self) -> &Address<'static> {
        &self.address
    }

    /// Returns the destination of answers; `None` for the peer that `socket` is connected to. `own` is
    /// the effective user of this process.
    ///
    /// Another user may have bound a pathname and then replaced the file by a link to a socket to which
    /// this process may write and that user may not. Such a path is opened without following a final
    /// link (`O_NOFOLLOW`), and the socket file must belong to the sender's user.
    pub(super) fn destination(
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
                return Err(self.untrusted("its user has no number in this user namespace"));
            }
            Sender::Unknown | Sender::Unasked => {
                let error =
                    self.untrusted_error("the kernel does not say which user sent the packet");
                return Err(Refusal::Untrusted(error.with_hint(
                    "for systemd's socket activation, PassCredentials=yes in the socket unit",
                )));
            }
        };
        let directory = self.directory(path).map_err(|errno| {
            self.untrusted(format!(
                "its path is relative, and the working directory of process {} cannot be opened: {}",
                self.process,
                describe(errno)
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
            self.check_owner(&file, user)?;
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
                Errno::ENOENT | Errno::ENOTDIR => {
                    Error::new(ErrorKind::NobodyThere, "send to", subject, describe(errno))
                }
                errno => Error::system("send to", subject, errno),
            })
        })
    }

    /// Fails unless `file` is a socket that belongs to `user`.
    fn check_owner(&self, file: &OwnedFd, user: u32) -> Result<(), Refusal> {
        Err(self.untrusted(match metadata(file) {
            Err(error) => format!(
                "its file cannot be examined: {}",
                strerror(error.raw_os_error().unwrap_or(0))
            ),
            Ok(file) => match SFlag::from_bits_truncate(file.mode()) & SFlag::S_IFMT {
                SFlag::S_IFSOCK if file.uid() == user => return Ok(()),
                SFlag::S_IFSOCK => format!(
                    "its file belongs to user {}, and user {user} sent the packet",
                    file.uid()
                ),
                SFlag::S_IFLNK => {
                    format!("its path is a symbolic link, and user {user} sent the packet")
                }
                _ => "its path leads to no socket".to_owned(),
            },
        }))
    }

    fn untrusted(&self, cause: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::Untrusted(self.untrusted_error(cause))
    }

    fn untrusted_error(&self, cause: impl Into<Cow<'static, str>>) -> Error {
        let subject = Subject::Address(self.address.clone());
        Error::new(ErrorKind::Unusable, "answer", subject, cause)
    }
}
