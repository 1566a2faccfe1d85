//! A datagram to send, and where it goes.

use crate::address::{Address, ToAddress};
use crate::ancillary::Control;
use crate::batch::Datagram;
use crate::diagnose::peer_error;
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::memfd;
use crate::protocol::Carrier;
use crate::sys::SockAddr;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The destination of datagrams: the address given, and the way to reach it now.
///
/// [`DatagramSocket::establish`](crate::DatagramSocket::establish) makes it reachable, at first and
/// whenever its socket has gone away.
#[derive(Debug)]
pub struct Destination {
    address: Address<'static>,
    route: Route,
}

#[derive(Debug)]
enum Route {
    /// The socket is connected to it. The name is the one that the peer is bound with.
    Connected(Option<PeerName>),
    /// The socket was connected to it elsewhere: only the name that the peer is bound with is known.
    Found(PeerName),
    /// The same, by a process that may see other files under that name.
    Elsewhere(PeerName),
    /// Each datagram names it.
    Named(SocketName),
}

/// The address that a connected peer is bound with, which its datagrams carry.
///
/// It may differ from the address that the peer was connected by: a relative pathname, a link.
#[derive(Debug, Clone, Copy)]
pub struct PeerName(SockAddr);

impl PeerName {
    pub(crate) fn new(name: SockAddr) -> Self {
        Self(name)
    }

    /// Returns the address.
    #[must_use]
    pub fn address(&self) -> Address<'_> {
        self.0.address()
    }

    /// Returns whether this peer sent the datagram.
    #[must_use]
    pub fn has_sent(&self, datagram: &Datagram<'_>) -> bool {
        datagram.sender() == self.address()
    }
}

impl Destination {
    /// Makes the destination of a socket that is to be connected to `peer`.
    #[must_use]
    pub fn connected(peer: &Address<'_>) -> Self {
        Self {
            address: peer.clone().into_owned(),
            route: Route::Connected(None),
        }
    }

    /// Makes the destination of a socket that is connected to `peer` already, which is bound with `name`.
    #[must_use]
    pub fn connected_as(peer: &Address<'_>, name: PeerName) -> Self {
        Self {
            address: peer.clone().into_owned(),
            route: Route::Connected(Some(name)),
        }
    }

    /// Makes the destination of a socket that was connected elsewhere, to a peer of this name.
    #[must_use]
    pub fn found(name: PeerName) -> Self {
        Self {
            address: name.address().into_owned(),
            route: Route::Found(name),
        }
    }

    /// Makes the destination of a socket that another process has connected, to a peer of this name. It
    /// is not connected to again: in another mount namespace, the name means another file.
    #[must_use]
    pub fn found_elsewhere(name: PeerName) -> Self {
        Self {
            address: name.address().into_owned(),
            route: Route::Elsewhere(name),
        }
    }

    /// Returns a copy of the destination of a connected socket, to be established again.
    pub(crate) fn again(&self) -> Self {
        Self {
            address: self.address.clone(),
            route: match self.route {
                Route::Found(name) => Route::Found(name),
                Route::Elsewhere(name) => Route::Elsewhere(name),
                _ => Route::Connected(self.peer_name()),
            },
        }
    }

    /// Returns whether its socket can be found again by its address. A relative pathname that a peer
    /// is bound with means something else in another directory, and an unnamed peer has no address.
    #[must_use]
    pub fn can_be_found(&self) -> bool {
        match (&self.route, &self.address) {
            (_, Address::Unnamed) | (Route::Elsewhere(_), _) => false,
            (Route::Found(_), Address::Pathname(path)) => path.starts_with(b"/"),
            _ => true,
        }
    }

    /// Makes a destination that each datagram names, whatever its socket is connected to.
    ///
    /// A pathname too long for `sun_path` is opened, and reached through /proc/self/fd. If it is not
    /// there yet, sending to it fails until it is established.
    pub fn named(to: impl ToAddress) -> Result<Self> {
        let to = to.to_address()?;
        let name = match SocketName::of(&to) {
            Err(Errno::ENOENT) => SocketName::missing(),
            name => name,
        };
        let name = name.map_err(|errno| peer_error("send to", &to, errno))?;
        Ok(Self {
            address: to.into_owned(),
            route: Route::Named(name),
        })
    }

    /// Makes the destination of an open socket file (`O_PATH`), reached through /proc/self/fd:
    /// the file itself, whatever `address` means now.
    pub fn of_file(address: &Address<'_>, file: OwnedFd) -> Result<Self> {
        let name =
            SocketName::of_file(file).map_err(|errno| peer_error("send to", address, errno))?;
        Ok(Self {
            address: address.clone().into_owned(),
            route: Route::Named(name),
        })
    }

    /// Returns the address that was meant.
    #[must_use]
    pub fn address(&self) -> &Address<'static> {
        &self.address
    }

    /// Returns the name of the peer that the socket is connected to; `None` if it is not connected, and
    /// any socket may answer.
    #[must_use]
    pub fn peer_name(&self) -> Option<PeerName> {
        match self.route {
            Route::Connected(name) => name,
            Route::Found(name) | Route::Elsewhere(name) => Some(name),
            Route::Named(_) => None,
        }
    }

    /// Returns whether it is the peer of a connected socket.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !matches!(self.route, Route::Named(_))
    }

    pub(crate) fn set_peer_name(&mut self, name: PeerName) {
        self.route = match self.route {
            Route::Found(_) => Route::Found(name),
            Route::Elsewhere(_) => Route::Elsewhere(name),
            _ => Route::Connected(Some(name)),
        };
    }

    /// Opens a long pathname again: it may name another file now.
    pub fn refresh(&mut self) -> Result<()> {
        match &mut self.route {
            Route::Named(name) if SockAddr::new(&self.address).is_none() => {
                *name = SocketName::of(&self.address)
                    .map_err(|errno| peer_error("send to", &self.address, errno))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns whether it is reached through /proc.
    pub(crate) fn needs_proc(&self) -> bool {
        matches!(&self.route, Route::Named(name) if name.needs_proc())
    }

    /// Returns the name for `msg_name`; `None` for the peer of the socket.
    pub(crate) fn raw(&self) -> Option<&SockAddr> {
        match &self.route {
            Route::Connected(_) | Route::Found(_) | Route::Elsewhere(_) => None,
            Route::Named(name) => Some(&name.raw),
        }
    }
}

/// An address as bind(2), connect(2) and sendmsg(2) take it.
#[derive(Debug)]
pub(crate) struct SocketName {
    pub(crate) raw: SockAddr,
    /// The open file that a path longer than `sun_path` is reached through.
    through: Option<OwnedFd>,
}

impl SocketName {
    pub(crate) fn of(peer: &Address<'_>) -> Result<Self, Errno> {
        if let Some(raw) = SockAddr::new(peer) {
            return Ok(Self { raw, through: None });
        }
        let path = peer.as_path().ok_or(Errno::ENAMETOOLONG)?;
        let through = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        Self::of_file(through)
    }

    /// Stands for a file that is not there: sending to it fails with ENOENT.
    fn missing() -> Result<Self, Errno> {
        let nothing = Address::Pathname(b"/proc/self/fd/none".into());
        let raw = SockAddr::new(&nothing).ok_or(Errno::ENAMETOOLONG)?;
        Ok(Self { raw, through: None })
    }

    /// Names an open socket file, whatever its path means now.
    pub(crate) fn of_file(through: OwnedFd) -> Result<Self, Errno> {
        let short = format!("/proc/self/fd/{}", through.as_raw_fd());
        let raw = SockAddr::new(&Address::Pathname(short.as_bytes().into()))
            .ok_or(Errno::ENAMETOOLONG)?;
        Ok(Self {
            raw,
            through: Some(through),
        })
    }

    /// Returns whether it leads through /proc.
    pub(crate) fn needs_proc(&self) -> bool {
        self.through.is_some()
    }
}

/// One datagram to send.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outgoing<'o> {
    /// Its bytes; an empty datagram is a datagram like any other.
    pub bytes: &'o [u8],
    /// The destination; `None`: the peer that the socket is connected to.
    pub to: Option<&'o Destination>,
    /// Its control data.
    pub control: Option<&'o Control>,
}

/// An empty datagram that carries the bytes of a packet in a sealed memfd.
#[derive(Debug)]
pub struct MemfdDatagram {
    control: Control,
    /// Open until the datagram is sent.
    _memfd: OwnedFd,
}

impl MemfdDatagram {
    /// Makes the datagram that replaces `refused`, which could not be sent because of `error`.
    ///
    /// Fails with that error if the datagram was not too long, if the carrier is no memfd, and if it has
    /// descriptors: beside them the receiver would not know the memfd.
    pub fn replacing(refused: &Outgoing<'_>, error: Error, carrier: Carrier) -> Result<Self> {
        let credentials = refused.control.and_then(Control::credentials);
        let descriptors = refused.control.is_some_and(Control::has_descriptors);
        if carrier != Carrier::DatagramOrMemfd || descriptors || error.kind() != ErrorKind::TooLong
        {
            return Err(error);
        }
        let memfd = memfd::sealed(refused.bytes).map_err(|error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
            Error::system("put the packet into a memfd", Subject::None, errno)
        })?;
        Ok(Self {
            control: Control::new(&[memfd.as_fd()], credentials)?,
            _memfd: memfd,
        })
    }

    /// Returns the datagram, to be sent to `to`.
    #[must_use]
    pub fn outgoing<'m>(&'m self, to: Option<&'m Destination>) -> Outgoing<'m> {
        Outgoing {
            bytes: &[],
            to,
            control: Some(&self.control),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(written: &[u8]) -> PeerName {
        PeerName::new(SockAddr::new(&Address::parse(written).unwrap()).unwrap())
    }

    #[test]
    fn only_a_peer_with_a_name_that_means_the_same_everywhere_can_be_found_again() {
        assert!(Destination::found(name(b"/run/s")).can_be_found());
        assert!(Destination::found(name(b"@s")).can_be_found());
        assert!(!Destination::found(name(b"./s")).can_be_found());
        assert!(!Destination::found_elsewhere(name(b"/run/s")).can_be_found());
    }

    #[test]
    fn a_new_name_of_a_peer_leaves_the_way_to_it() {
        let mut found = Destination::found(name(b"/run/s"));
        found.set_peer_name(name(b"@t"));
        assert_eq!(found.peer_name().unwrap().address().to_string(), "@t");
        assert!(found.is_connected() && found.can_be_found());
        let mut relative = Destination::found(name(b"s"));
        relative.set_peer_name(name(b"@t"));
        assert!(!relative.can_be_found());
        let mut elsewhere = Destination::found_elsewhere(name(b"/run/s"));
        elsewhere.set_peer_name(name(b"@t"));
        assert_eq!(elsewhere.peer_name().unwrap().address().to_string(), "@t");
        assert!(!elsewhere.can_be_found());
        let mut named = Destination::named("@s").unwrap();
        assert!(!named.is_connected() && named.raw().is_some());
        named.set_peer_name(name(b"@t"));
        assert!(named.is_connected() && named.raw().is_none());
    }

    #[test]
    fn a_memfd_replaces_only_a_packet_that_is_too_long_and_has_no_descriptors() {
        let too_long = || Error::new(ErrorKind::TooLong, "send", Subject::None, "too long");
        let refused = Outgoing {
            bytes: b"A=1\n",
            ..Outgoing::default()
        };
        let replacing = MemfdDatagram::replacing;
        assert!(replacing(&refused, too_long(), Carrier::DatagramOrMemfd).is_ok());
        assert!(replacing(&refused, too_long(), Carrier::Datagram).is_err());
        let gone = Error::new(ErrorKind::NobodyThere, "send", Subject::None, "gone");
        assert!(replacing(&refused, gone, Carrier::DatagramOrMemfd).is_err());
        let stdin = std::io::stdin();
        let control = Control::new(&[stdin.as_fd()], None).unwrap();
        let with_descriptor = Outgoing {
            control: Some(&control),
            ..refused
        };
        assert!(replacing(&with_descriptor, too_long(), Carrier::DatagramOrMemfd).is_err());
    }
}
