//! The filter by which an observer is attached to a socket, and the other observers of the same socket.

use super::refusal::{Step, refused};
use crate::error::{Error, Result, Subject};
use crate::sockopt;
use crate::sys::{self, bpf};
use crate::wait::Deadline;
use nix::errno::Errno;
use nix::libc;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// The time within which the kernel releases the maps of a killed observer, and another observer attaches its
/// filter.
pub(super) const OTHER_TIMEOUT: Duration = Duration::from_secs(1);
/// The interval at which an observer looks whether the other one has ended.
pub(super) const OTHER_INTERVAL: Duration = Duration::from_millis(3);
/// The name of the filter, by which an observer recognizes that of another one.
pub(super) const NAME: &str = "udgram_peek";

/// The identity of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) inode: u64,
    cookie: [u8; 8],
}

impl Identity {
    pub(super) fn of(socket: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut cookie = [0; 8];
        sys::getsockopt(socket, libc::SOL_SOCKET, libc::SO_COOKIE, &mut cookie)?;
        Ok(Self {
            inode: sys::metadata(socket)?.ino(),
            cookie,
        })
    }

    /// Returns the name of the filter's map, which identifies the socket. A name has 15 characters, for 60 bits
    /// of the cookie; the kernel counts cookies from 1 up.
    pub(super) fn name(&self) -> String {
        format!("{:x}", u64::from_ne_bytes(self.cookie) & (u64::MAX >> 4))
    }
}

/// The filter of a socket; `SO_GET_FILTER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    None,
    /// A classic one, with the number of its instructions.
    Classic(usize),
    /// An eBPF program.
    Extended,
}

pub(super) fn filter_of(socket: BorrowedFd<'_>) -> Result<Filter, Errno> {
    match sys::getsockopt(socket, libc::SOL_SOCKET, libc::SO_GET_FILTER, &mut []) {
        Ok(0) => Ok(Filter::None),
        Ok(len) => Ok(Filter::Classic(len / size_of::<libc::sock_filter>())),
        Err(Errno::EACCES) => Ok(Filter::Extended),
        Err(errno) => Err(errno),
    }
}

/// Fails if the socket has a filter or a lock.
pub(super) fn refuse_filtered(
    socket: BorrowedFd<'_>,
    identity: &Identity,
    subject: &Subject,
) -> Result<()> {
    let failed = |errno| refused(Step::Attach, subject.clone(), errno);
    let refuse = |errno, cause: String| {
        Err(Error::system("observe", subject.clone(), errno).with_cause(cause))
    };
    if sockopt::get_int(socket, libc::SO_LOCK_FILTER).is_ok_and(|locked| locked != 0) {
        return Err(failed(Errno::EPERM));
    }
    let until = Deadline::after(Some(OTHER_TIMEOUT));
    loop {
        match filter_of(socket).map_err(failed)? {
            Filter::None => return Ok(()),
            Filter::Classic(len) => {
                let cause = format!("it has a filter already, of {len} instructions");
                return refuse(Errno::EEXIST, cause);
            }
            Filter::Extended => {}
        }
        let foreign = match other_observer(identity) {
            Ok(Some(Other::Gone)) => return Ok(()),
            Ok(Some(Other::Running)) if until.passed() => return Err(observed_already(subject)),
            Ok(Some(Other::Running)) => {
                std::thread::sleep(OTHER_INTERVAL);
                continue;
            }
            // Another observer has ended since, and has removed its filter.
            _ if filter_of(socket) == Ok(Filter::None) => return Ok(()),
            foreign => foreign,
        };
        let cause = "it has a filter already, an eBPF program".to_owned();
        return refuse(Errno::EEXIST, cause).map_err(|error| match foreign {
            Err(_) => error.with_hint(
                "finding out whether it remains after an observer was killed needs CAP_SYS_ADMIN",
            ),
            Ok(_) => error,
        });
    }
}

pub(super) fn observed_already(subject: &Subject) -> Error {
    Error::system("observe", subject.clone(), Errno::EBUSY)
        .with_cause("it is being observed already")
}

/// Another observer of the same socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Other {
    /// It has ended, and its filter remains.
    Gone,
    Running,
}

/// Finds another observer of this socket by its filter: a program with this name whose map has the name of
/// the socket. The kernel does not list programs that are not attached any more.
fn other_observer(identity: &Identity) -> Result<Option<Other>, Errno> {
    let mut id = 0;
    while let Some(next) = bpf::next_program(id)? {
        id = next;
        let program = match bpf::program(id) {
            Ok(program) => program,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(errno),
        };
        let info = bpf::program_info(program.as_fd())?;
        let Some(map) = info.map.filter(|_| info.name == NAME) else {
            continue;
        };
        let map = bpf::map(map)?;
        if bpf::map_name(map.as_fd())? == identity.name() {
            return Ok(Some(if bpf::has_program(map.as_fd())? {
                Other::Running
            } else {
                Other::Gone
            }));
        }
    }
    Ok(None)
}
