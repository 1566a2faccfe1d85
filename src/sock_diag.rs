//! Lists the Unix sockets of this network namespace; sock_diag(7).
//!
//! Names have a length. In /proc/net/unix, a name with a line end could forge an entry.

use crate::address::Address;
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use nix::sys::stat::{Mode, major, minor};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const UDIAG_SHOW_NAME: u32 = 1;
const UDIAG_SHOW_VFS: u32 = 2;
const UDIAG_SHOW_PEER: u32 = 4;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_RQLEN: u16 = 4;
const UNIX_DIAG_SHUTDOWN: u16 = 6;
/// The bit of `sk_shutdown` for a socket that cannot send any more.
const SEND_SHUTDOWN: u8 = 2;
/// The size of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The size of `struct unix_diag_msg`.
const MESSAGE: usize = 16;
/// The size of the receive buffer. The kernel puts at most 32 KiB into one datagram of a dump
/// (`netlink_dump`).
const BUFFER: usize = 64 << 10;

/// A Unix socket, as sock_diag(7) describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UnixSocket {
    /// The inode number of the socket, which /proc/PID/fd shows as `socket:[N]`.
    pub(crate) inode: u32,
    /// The type: `SOCK_STREAM`, `SOCK_DGRAM` or `SOCK_SEQPACKET`.
    pub(crate) kind: i32,
    /// The bytes of `sun_path` that it is bound to. An abstract name begins with a NUL, a pathname may end
    /// with one.
    pub(crate) name: Option<Vec<u8>>,
    /// The low 32 bits of the inode number of its file.
    pub(crate) file: Option<u32>,
    /// The device number of its file, in the kernel's own encoding (`s_dev`).
    pub(crate) device: Option<u32>,
    /// The size of the first datagram in its queue; 0 if there is none, or if that one is empty.
    pub(crate) queued: u32,
    /// The sides that are shut down (`sk_shutdown`).
    pub(crate) shutdown: u8,
    /// The inode number of its peer; 0 if the peer has closed its socket; `None` if it is not connected.
    pub(crate) peer: Option<u32>,
}

/// Lists the Unix sockets of this network namespace, of every type.
pub(crate) fn unix_sockets() -> Result<Vec<UnixSocket>, Errno> {
    let netlink = open(0, libc::NLM_F_REQUEST | libc::NLM_F_DUMP)?;
    let mut sockets = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let len = receive(&netlink, &mut buffer)?;
        for message in Messages(&buffer[..len]) {
            match i32::from(message.kind) {
                libc::NLMSG_DONE => return Ok(sockets),
                libc::NLMSG_ERROR => return Err(error(message.body)),
                _ => sockets.extend(UnixSocket::decode(message.body)),
            }
        }
    }
}

/// Returns the inode number of an open socket.
pub(crate) fn inode_of(socket: impl AsFd) -> Option<u32> {
    u32::try_from(sys::metadata(socket.as_fd()).ok()?.ino()).ok()
}

/// Lists the Unix sockets of the network namespace that a file such as /proc/PID/ns/net refers to. A separate
/// thread enters the namespace; EPERM without CAP_SYS_ADMIN.
pub(crate) fn unix_sockets_of(namespace: &Path) -> Result<Vec<UnixSocket>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let namespace = nix::fcntl::open(namespace, flags, Mode::empty())?;
    std::thread::scope(|scope| {
        let listing = scope.spawn(|| {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            unix_sockets()
        });
        listing.join().unwrap_or(Err(Errno::EAGAIN))
    })
}

/// Describes the Unix socket with this inode number. Fails with ENOENT if this network namespace has none.
pub(crate) fn unix_socket(inode: u32) -> Result<UnixSocket, Errno> {
    let netlink = open(inode, libc::NLM_F_REQUEST)?;
    let mut buffer = vec![0; BUFFER];
    let len = receive(&netlink, &mut buffer)?;
    let message = Messages(&buffer[..len]).next().ok_or(Errno::EBADMSG)?;
    match i32::from(message.kind) {
        libc::NLMSG_ERROR => Err(error(message.body)),
        _ => UnixSocket::decode(message.body).ok_or(Errno::EBADMSG),
    }
}

/// Finds the socket that is bound to an abstract name, or to the file that a pathname leads to.
pub(crate) fn find<'s>(
    sockets: impl Iterator<Item = &'s UnixSocket> + Clone,
    address: &Address<'_>,
) -> Option<&'s UnixSocket> {
    match address {
        Address::Unnamed => None,
        Address::Abstract(name) => sockets.clone().find(|socket| {
            (socket.name.as_deref()).is_some_and(|bound| bound.strip_prefix(b"\0") == Some(name))
        }),
        Address::Pathname(path) => {
            let file = std::fs::metadata(OsStr::from_bytes(path)).ok()?;
            find_by_file(sockets, &file)
        }
    }
}

/// Finds the socket that is bound to a file: one whose device matches, too, or else the only one whose inode
/// number matches.
pub(crate) fn find_by_file<'s>(
    sockets: impl Iterator<Item = &'s UnixSocket> + Clone,
    file: &Metadata,
) -> Option<&'s UnixSocket> {
    let certain = sockets.clone().find(|socket| socket.has_file(file));
    certain.or_else(|| {
        let mut likely = sockets.filter(|socket| socket.has_inode(file.ino()));
        likely.next().filter(|_| likely.next().is_none())
    })
}

/// Returns the number of a file's device as the kernel has it (`s_dev`): 20 bits are the minor number.
fn kernel_device(file: &Metadata) -> Option<u32> {
    let (major, minor) = (major(file.dev()), minor(file.dev()));
    u32::try_from(major << 20 | minor).ok()
}

/// Opens a netlink socket, and sends the request for one socket or, with `NLM_F_DUMP`, for all.
fn open(inode: u32, flags: libc::c_int) -> Result<OwnedFd, Errno> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    let mut request = Vec::with_capacity(HEADER + 24);
    request.extend(40_u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(
        u16::try_from(flags)
            .map_err(|_| Errno::EINVAL)?
            .to_ne_bytes(),
    );
    request.extend([0; 8]);
    // struct unix_diag_req: family, protocol, padding; all states; the inode; the attributes to return;
    // no cookie.
    request.extend([u8::try_from(libc::AF_UNIX).unwrap_or(1), 0, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(inode.to_ne_bytes());
    let show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN;
    request.extend(show.to_ne_bytes());
    request.extend([0xff; 8]);
    while let Err(errno) = send(netlink.as_raw_fd(), &request, MsgFlags::empty()) {
        if errno != Errno::EINTR {
            return Err(errno);
        }
    }
    Ok(netlink)
}

/// Receives one datagram.
fn receive(netlink: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match recv(netlink.as_raw_fd(), buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            received => return received,
        }
    }
}

/// Returns the errno in an `NLMSG_ERROR`, which has it negated.
fn error(body: &[u8]) -> Errno {
    body.first_chunk().map_or(Errno::EBADMSG, |errno| {
        Errno::from_raw(i32::from_ne_bytes(*errno).wrapping_neg())
    })
}

/// A netlink message.
struct Message<'b> {
    kind: u16,
    body: &'b [u8],
}

/// An iterator over the netlink messages in a buffer. It ends at a length that exceeds the buffer.
struct Messages<'b>(&'b [u8]);

impl<'b> Iterator for Messages<'b> {
    type Item = Message<'b>;

    fn next(&mut self) -> Option<Self::Item> {
        let len = u32::from_ne_bytes(*self.0.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*self.0.get(4..)?.first_chunk()?);
        let body = self.0.get(HEADER..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, body })
    }
}

impl UnixSocket {
    /// Returns the address that it is bound to.
    pub(crate) fn address(&self) -> Option<Address<'static>> {
        self.name.as_deref().map(Address::from_sun_path)
    }

    /// Returns whether it is a datagram socket.
    pub(crate) fn is_datagram(&self) -> bool {
        self.kind == libc::SOCK_DGRAM
    }

    /// Returns whether it can send.
    pub(crate) fn can_send(&self) -> bool {
        self.shutdown & SEND_SHUTDOWN == 0
    }

    /// Returns whether it is bound to this file. `false` is not certain: on some file systems (btrfs,
    /// overlayfs), stat(2) returns another device number than sock_diag(7).
    pub(crate) fn has_file(&self, file: &Metadata) -> bool {
        self.has_inode(file.ino()) && self.device == kernel_device(file)
    }

    /// Returns whether it is bound to a file with this inode number. Compares the low 32 bits only: the
    /// kernel reports no more.
    pub(crate) fn has_inode(&self, inode: u64) -> bool {
        self.file
            .is_some_and(|file| u64::from(file) == inode & 0xffff_ffff)
    }

    /// Decodes a `struct unix_diag_msg` with its attributes.
    fn decode(body: &[u8]) -> Option<Self> {
        let mut socket = Self {
            kind: i32::from(*body.get(1)?),
            inode: u32::from_ne_bytes(*body.get(4..)?.first_chunk()?),
            ..Self::default()
        };
        let mut rest = body.get(MESSAGE..)?;
        while let Some(header) = rest.first_chunk::<4>() {
            let [low, high, kind @ ..] = *header;
            let len = usize::from(u16::from_ne_bytes([low, high]));
            let Some(value) = rest.get(4..len) else { break };
            let number = || Some(u32::from_ne_bytes(*value.first_chunk()?));
            match u16::from_ne_bytes(kind) {
                UNIX_DIAG_NAME => socket.name = Some(value.to_vec()),
                UNIX_DIAG_VFS => {
                    socket.file = number();
                    let device = value.get(4..).and_then(<[u8]>::first_chunk);
                    socket.device = device.map(|device| u32::from_ne_bytes(*device));
                }
                UNIX_DIAG_RQLEN => socket.queued = number().unwrap_or(0),
                UNIX_DIAG_SHUTDOWN => socket.shutdown = value.first().copied().unwrap_or(0),
                UNIX_DIAG_PEER => socket.peer = number(),
                _ => {}
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        Some(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::fs::MetadataExt;
    use std::os::unix::net::UnixDatagram;

    fn inode(socket: &UnixDatagram) -> u32 {
        let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
        u32::try_from(std::fs::metadata(link).unwrap().st_ino()).unwrap()
    }

    #[test]
    fn a_bound_socket_is_listed_with_its_name_and_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let bound = UnixDatagram::bind(&path).unwrap();
        let file = std::fs::metadata(&path).unwrap().st_ino();
        let listed = unix_sockets().unwrap();
        let found = listed.iter().find(|socket| socket.inode == inode(&bound));
        let name = found.unwrap().name.clone().unwrap();
        assert!(name.starts_with(path.to_str().unwrap().as_bytes()));
        assert_eq!(found.unwrap().file, u32::try_from(file).ok());
        assert_eq!(found.unwrap().kind, libc::SOCK_DGRAM);
        assert_eq!(unix_socket(inode(&bound)).as_ref(), Ok(found.unwrap()));
    }

    #[test]
    fn a_peer_that_is_closed_has_the_inode_number_0() {
        let (one, other) = UnixDatagram::pair().unwrap();
        let peer = || unix_socket(inode(&one)).unwrap().peer;
        assert_eq!(peer(), Some(inode(&other)));
        drop(other);
        assert_eq!(peer(), Some(0));
    }

    #[test]
    fn lengths_that_do_not_fit_end_the_walk() {
        for len in [0_u32, 3, 15, 17, u32::MAX] {
            let mut bytes = len.to_ne_bytes().to_vec();
            bytes.extend([0; 12]);
            assert_eq!(Messages(&bytes).count(), 0);
        }
        let mut body = vec![1, 2, 0, 0];
        body.extend([0; 12]);
        body.extend([200, 0, 0, 0, 1]);
        assert_eq!(UnixSocket::decode(&body).unwrap().name, None);
    }
}
