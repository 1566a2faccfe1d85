//! Counts the datagrams in a queue.

use crate::error::{Error, Result, Subject};
use crate::socket::DatagramSocket;
use crate::sockopt;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, recv};
use std::os::fd::{AsFd, AsRawFd};

/// Counts the datagrams in the queue of a socket that other processes may share. None is taken, and no
/// byte of them is copied: each peek begins where the last datagram ended.
pub(super) fn count(socket: &DatagramSocket, subject: Subject) -> Result<usize> {
    // An offset is the owner's, or another observer's, and putting it back could be wrong by then.
    if sockopt::get_int(socket, libc::SO_PEEK_OFF)? >= 0 {
        let cause = "another process peeks at it";
        return Err(Error::system("count the queue of", subject, Errno::EBUSY).with_cause(cause));
    }
    let counted = walk(socket);
    sockopt::set_int(socket, libc::SO_PEEK_OFF, -1)?;
    counted
}

fn walk(socket: &DatagramSocket) -> Result<usize> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
    let (mut count, mut offset) = (0, 0);
    loop {
        sockopt::set_int(socket, libc::SO_PEEK_OFF, offset)?;
        match recv(socket.as_fd().as_raw_fd(), &mut [0], flags) {
            Ok(len) => {
                count += 1;
                offset = i32::try_from(len)
                    .ok()
                    .and_then(|len| offset.checked_add(len))
                    .unwrap_or(i32::MAX);
            }
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            Err(Errno::EAGAIN) => return Ok(count),
            Err(errno) => return Err(Error::system("peek", Subject::None, errno)),
        }
    }
}
