//! Ancillary data, which travels with a datagram: descriptors, credentials, the time of arrival;
//! cmsg(3), unix(7).

pub use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::protocol::Carrier;
use crate::sockopt;
use crate::sys::{ReceivedControl, SO_TIMESTAMP_NEW, SO_TIMESTAMPING_NEW, SO_TIMESTAMPNS_NEW};
use nix::libc::{self, c_int};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

/// The largest number of descriptors in one message (`SCM_MAX_FD` of the kernel).
#[doc(alias = "SCM_MAX_FD")]
pub const MAX_DESCRIPTORS: usize = 253;

/// The default space for control data in bytes: `CMSG_SPACE(8192)`, enough for every message.
#[doc(alias = "CMSG_SPACE")]
pub const DEFAULT_CONTROL_LEN: usize = space(8192);

/// The space for the control data of one descriptor in bytes: `CMSG_SPACE(4)`.
pub(crate) const ONE_DESCRIPTOR_LEN: usize = space(size_of::<c_int>());

/// The largest space for control data in bytes: 1 MiB, far more than the kernel ever fills.
pub const MAX_CONTROL_LEN: usize = 1 << 20;

const WORD: usize = size_of::<usize>();
const HEADER: usize = size_of::<libc::cmsghdr>();
const UCRED: usize = size_of::<libc::ucred>();

/// Returns `CMSG_SPACE(len)`: the length of a control message with `len` bytes of data in a buffer.
const fn space(len: usize) -> usize {
    HEADER.next_multiple_of(WORD) + len.next_multiple_of(WORD)
}

/// The ancillary data of a received datagram. It owns the descriptors: those that are not taken out
/// are closed when it is dropped.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Ancillary {
    /// The received descriptors, close-on-exec, in the order in which they were sent.
    #[doc(alias = "SCM_RIGHTS")]
    pub descriptors: Vec<OwnedFd>,
    /// The sender's credentials, with `SO_PASSCRED`
    /// ([`DatagramSocket::set_passcred`](crate::DatagramSocket::set_passcred)).
    pub credentials: Option<Credentials>,
    /// The time at which the kernel accepted the datagram, with `SO_TIMESTAMPNS` or `SO_TIMESTAMP`
    /// ([`DatagramSocket::set_timestamps`](crate::DatagramSocket::set_timestamps)). For a datagram that
    /// was queued before the option was set, it is the time of the receive.
    #[doc(alias = "SCM_TIMESTAMPNS")]
    pub time: Option<SystemTime>,
    /// A descriptor of the sending process, with `SO_PASSPIDFD`
    /// ([`DatagramSocket::set_passpidfd`](crate::DatagramSocket::set_passpidfd)).
    #[doc(alias = "SCM_PIDFD")]
    pub pidfd: Option<OwnedFd>,
    /// True if control data was truncated, or descriptors were lost: `MSG_CTRUNC`.
    #[doc(alias = "MSG_CTRUNC")]
    pub truncated: bool,
}

impl From<ReceivedControl> for Ancillary {
    fn from(control: ReceivedControl) -> Self {
        Self {
            descriptors: control.descriptors,
            credentials: control.credentials,
            time: control.time,
            pidfd: control.pidfd,
            truncated: control.truncated,
        }
    }
}

/// Control data to send with a datagram, in the kernel's layout.
///
/// It holds descriptor numbers, not descriptors: the caller keeps them open until the datagram is sent.
#[derive(Debug, Clone, Default)]
pub struct Control {
    words: Vec<usize>,
    credentials: Option<Credentials>,
    descriptors: bool,
}

impl Control {
    /// Lays out `SCM_RIGHTS` with the descriptors and `SCM_CREDENTIALS` with the credentials, each if
    /// there are any.
    ///
    /// Fails with [`ErrorKind::Unusable`] on more than [`MAX_DESCRIPTORS`].
    pub fn new(descriptors: &[BorrowedFd<'_>], credentials: Option<Credentials>) -> Result<Self> {
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(Error::new(
                ErrorKind::Unusable,
                "send so many descriptors",
                Subject::None,
                format!(
                    "{} given, one message carries at most {MAX_DESCRIPTORS}",
                    descriptors.len()
                ),
            ));
        }
        let mut control = Self::default();
        if !descriptors.is_empty() {
            let numbers = descriptors
                .iter()
                .flat_map(|fd| fd.as_raw_fd().to_ne_bytes())
                .collect();
            control.push(libc::SCM_RIGHTS, numbers);
            control.descriptors = true;
        }
        if let Some(Credentials { pid, uid, gid }) = credentials {
            let ucred = [pid.to_ne_bytes(), uid.to_ne_bytes(), gid.to_ne_bytes()].concat();
            control.push(libc::SCM_CREDENTIALS, ucred);
            control.credentials = credentials;
        }
        Ok(control)
    }

    fn push(&mut self, kind: c_int, data: Vec<u8>) {
        let mut bytes = (HEADER + data.len()).to_ne_bytes().to_vec();
        bytes.extend(libc::SOL_SOCKET.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(WORD), 0);
        self.words.extend(
            bytes
                .chunks_exact(WORD)
                .filter_map(|word| Some(usize::from_ne_bytes(*word.first_chunk()?))),
        );
    }

    /// Returns whether it carries descriptors.
    pub(crate) fn has_descriptors(&self) -> bool {
        self.descriptors
    }

    /// Returns the credentials that it claims.
    pub(crate) fn credentials(&self) -> Option<Credentials> {
        self.credentials
    }

    /// Returns the credentials that it claims, unless they are those of this process.
    pub(crate) fn foreign_credentials(&self) -> Option<Credentials> {
        self.credentials
            .filter(|claimed| *claimed != Credentials::own())
    }

    pub(crate) fn words(&self) -> &[usize] {
        &self.words
    }
}

/// The space for control data in a receiver's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlSpace {
    /// None for descriptors. The kernel drops those that arrive, and the message reports that
    /// ([`Ancillary::truncated`]).
    NoDescriptors,
    /// This many bytes, at most [`MAX_CONTROL_LEN`], besides those that the socket's own options need;
    /// `CMSG_SPACE(4 * N)` bytes hold N descriptors. [`DEFAULT_CONTROL_LEN`] is the usual number.
    Bytes(usize),
}

impl ControlSpace {
    /// Fails with [`ErrorKind::Unusable`] on more than [`MAX_CONTROL_LEN`].
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Bytes(len) if len > MAX_CONTROL_LEN => Err(Error::new(
                ErrorKind::Unusable,
                "receive",
                Subject::None,
                format!(
                    "{len} bytes of space for control data are too many, at most {MAX_CONTROL_LEN}"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Returns the length of the control buffer: the space asked for, and that of the messages that the
    /// socket's options (`SO_PASSCRED` and others) make the kernel write first.
    pub(crate) fn buffer_len(self, socket: impl AsFd) -> usize {
        let is_on =
            |option: &c_int| sockopt::get_int(&socket, *option).is_ok_and(|value| value != 0);
        // The kernel writes one of these at most.
        let stamps = [
            libc::SO_TIMESTAMP,
            libc::SO_TIMESTAMPNS,
            SO_TIMESTAMP_NEW,
            SO_TIMESTAMPNS_NEW,
        ];
        let stamp = stamps.iter().any(is_on).then_some(space(16));
        let others = [
            // Three timestamps: software, deprecated, hardware.
            (libc::SO_TIMESTAMPING, space(48)),
            (SO_TIMESTAMPING_NEW, space(48)),
            (libc::SO_PASSCRED, space(UCRED)),
            (libc::SO_PASSSEC, space(256)),
            (libc::SO_PASSPIDFD, space(size_of::<c_int>())),
        ];
        let others = others.iter().filter(|(option, _)| is_on(option));
        let taken = others.map(|(_, space)| space).chain(&stamp).sum::<usize>();
        match self {
            Self::NoDescriptors => taken,
            Self::Bytes(len) => taken + len,
        }
    }

    /// Returns the same space, or one for a descriptor if packets travel in memfds.
    #[must_use]
    pub fn for_carrier(self, carrier: Carrier) -> Self {
        match (self, carrier) {
            (Self::NoDescriptors, Carrier::DatagramOrMemfd) => Self::Bytes(ONE_DESCRIPTOR_LEN),
            (space, _) => space,
        }
    }

    /// Returns the same space, limited to `count` descriptors.
    pub(crate) fn within(self, count: usize) -> Self {
        match self {
            Self::Bytes(len) if self.max_descriptors() > count => {
                // Not rounded up: the rest of a word would hold another descriptor.
                Self::Bytes(len.min(HEADER + count * size_of::<c_int>()))
            }
            space => space,
        }
    }

    /// Returns the largest number of descriptors that one message can bring.
    pub(crate) fn max_descriptors(self) -> usize {
        match self {
            Self::NoDescriptors => 0,
            Self::Bytes(len) => {
                (len.saturating_sub(HEADER) / size_of::<c_int>()).min(MAX_DESCRIPTORS)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_space_has_room_for_as_many_descriptors_as_fit_behind_its_header() {
        for (len, count) in [
            (0, 0),
            (HEADER, 0),
            (HEADER + 3, 0),
            (HEADER + 4, 1),
            (HEADER + 11, 2),
            (DEFAULT_CONTROL_LEN, MAX_DESCRIPTORS),
        ] {
            assert_eq!(ControlSpace::Bytes(len).max_descriptors(), count, "{len}");
        }
        assert_eq!(ControlSpace::NoDescriptors.max_descriptors(), 0);
    }

    #[test]
    fn a_limited_space_has_room_for_exactly_that_many() {
        let space = ControlSpace::Bytes(HEADER + 8);
        for (limit, count) in [(0, 0), (1, 1), (2, 2), (3, 2)] {
            assert_eq!(space.within(limit).max_descriptors(), count, "{limit}");
        }
        // A space that is not reduced keeps its length.
        assert_eq!(space.within(2), space);
        let longer = ControlSpace::Bytes(HEADER + 11);
        assert_eq!(longer.within(2), longer);
        let none = ControlSpace::NoDescriptors;
        assert_eq!(none.within(0), none);
    }

    #[test]
    fn only_a_space_longer_than_the_limit_is_refused() {
        for len in [0, DEFAULT_CONTROL_LEN, MAX_CONTROL_LEN] {
            assert!(ControlSpace::Bytes(len).check().is_ok(), "{len}");
        }
        let error = ControlSpace::Bytes(MAX_CONTROL_LEN + 1).check();
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Unusable);
        assert!(ControlSpace::NoDescriptors.check().is_ok());
    }

    #[test]
    fn control_data_knows_what_it_carries() {
        let stdin = std::io::stdin();
        let credentials = Credentials {
            pid: 1,
            uid: 2,
            gid: 3,
        };
        let both = Control::new(&[stdin.as_fd()], Some(credentials)).unwrap();
        assert!(both.has_descriptors());
        assert_eq!(both.credentials(), Some(credentials));
        let neither = Control::new(&[], None).unwrap();
        assert!(!neither.has_descriptors());
        assert_eq!(neither.credentials(), None);
    }
}
