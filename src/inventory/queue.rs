//! Counts the datagrams in a queue.

use crate::error::{Error, Result, Subject};
use crate::socket::DatagramSocket;
use crate::sockopt;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, recv};
use std::os::fd::{AsFd, AsRawFd};

const COUNT: &str = "count the queue of";

/// Counts the datagrams in the queue of a socket that other processes may share. It removes none and copies
/// no byte: each peek begins where the last datagram ended.
pub(super) fn count(socket: &DatagramSocket, subject: &Subject) -> Result<usize> {
    if !socket.lock_for_peeking()? {
        let cause = "another process peeks at it";
        return Err(Error::system(COUNT, subject.clone(), Errno::EBUSY).with_cause(cause));
    }
    // An offset belongs to the owner. The owner may change it meanwhile, so that restoring it could be wrong.
    if sockopt::get_int(socket, libc::SO_PEEK_OFF)? >= 0 {
        let cause = "its owner peeks at it (SO_PEEK_OFF)";
        return Err(Error::system(COUNT, subject.clone(), Errno::EBUSY).with_cause(cause));
    }
    let counted = walk(socket, subject);
    sockopt::set_int(socket, libc::SO_PEEK_OFF, -1)?;
    counted
}

fn walk(socket: &DatagramSocket, subject: &Subject) -> Result<usize> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
    let (mut count, mut offset) = (0, 0);
    loop {
        // recv(2) would return the pending error and clear it (`__skb_try_recv_datagram`), so that the
        // owner would not get it.
        if sockopt::has_pending_error(socket)? {
            let cause = "it has a pending error, which the owner has not read yet";
            return Err(Error::system(COUNT, subject.clone(), Errno::EBUSY).with_cause(cause));
        }
        sockopt::set_int(socket, libc::SO_PEEK_OFF, offset)?;
        match recv(socket.as_fd().as_raw_fd(), &mut [0], flags) {
            Ok(len) => {
                count += 1;
                offset = i32::try_from(len)
                    .ok()
                    .and_then(|len| offset.checked_add(len))
                    .unwrap_or(i32::MAX);
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(count),
            Err(errno) => return Err(Error::system("peek", Subject::None, errno)),
        }
    }
}
