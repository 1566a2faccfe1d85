//! Makes sockets whose queue holds another number of datagrams than those of other sockets.
//!
//! The kernel takes the limit of a queue from the sysctl of the network namespace in which the socket is made
//! (`unix_create1`), and keeps it for the socket's life. Pathnames lead to a socket from any network
//! namespace, abstract names only in the socket's own (`unix_find_other`).

use super::DatagramSocket;
use crate::error::{Error, ErrorKind, Result, Subject, strerror};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use std::fs::{OpenOptions, read_to_string};
use std::io::{self, Write};

/// The limit of queues in the network namespace of the thread that opens it.
const LIMIT: &str = "/proc/sys/net/unix/max_dgram_qlen";

const OPERATION: &str = "make a socket with its own queue limit";

impl DatagramSocket {
    /// Makes an unnamed socket, as [`new`](Self::new) does, whose queue takes `limit` + 1 datagrams before senders
    /// wait, instead of the system's limit (`net.unix.max_dgram_qlen`).
    ///
    /// If the limit of the system is another one, the socket is made in a network namespace of its own,
    /// in a thread that ends before this returns: the limit of the system stays as it is. Such a socket can
    /// be bound and connected to pathnames only, and sock_diag(7) does not list it.
    ///
    /// Fails with [`ErrorKind::System`] and `EPERM` without CAP_SYS_ADMIN.
    #[doc(alias = "max_dgram_qlen")]
    pub fn with_queue(limit: u32) -> Result<Self> {
        if system_limit().is_ok_and(|system| system == limit) {
            return Self::new();
        }
        let maker = std::thread::Builder::new().spawn(move || make_elsewhere(limit));
        let made = maker.map_err(|error| failed(&error))?.join();
        made.unwrap_or_else(|_| {
            let cause = "the thread that makes it has failed";
            Err(Error::new(
                ErrorKind::System,
                OPERATION,
                Subject::None,
                cause,
            ))
        })
    }
}

/// Moves the calling thread to a new network namespace, and makes the socket there.
fn make_elsewhere(limit: u32) -> Result<DatagramSocket> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
        let error = Error::system(OPERATION, Subject::None, errno);
        match errno {
            Errno::EPERM => error.with_cause("a network namespace of its own needs CAP_SYS_ADMIN"),
            _ => error,
        }
    })?;
    let opened = OpenOptions::new().write(true).open(LIMIT);
    let written = opened.and_then(|mut file| file.write_all(limit.to_string().as_bytes()));
    written.map_err(|error| {
        let cause = match error.kind() {
            io::ErrorKind::PermissionDenied => format!("writing {LIMIT} needs CAP_NET_ADMIN"),
            // A user namespace has no such file, whatever its capabilities (`unix_sysctl_register`).
            _ => format!("{LIMIT}: {}", strerror(error.raw_os_error().unwrap_or(0))),
        };
        failed(&error).with_cause(cause)
    })?;
    let socket = DatagramSocket::new()?;
    match system_limit() {
        Ok(set) if set == limit => Ok(socket),
        Err(error) => {
            let cause = strerror(error.raw_os_error().unwrap_or(0));
            Err(failed(&error).with_cause(format!("{LIMIT}: {cause}")))
        }
        // /proc shows another namespace than that of this thread.
        Ok(_) => Err(failed(&io::Error::from(Errno::EINVAL))
            .with_cause(format!("{LIMIT} is not that of the new network namespace"))),
    }
}

/// Returns the limit in the network namespace of this thread.
fn system_limit() -> io::Result<u32> {
    let written = read_to_string(LIMIT)?;
    written.trim().parse().map_err(io::Error::other)
}

fn failed(error: &io::Error) -> Error {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO));
    Error::system(OPERATION, Subject::None, errno)
}
