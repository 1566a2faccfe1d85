//! What travels beside a datagram: descriptors, credentials, the time of arrival; cmsg(3).

pub use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::sockopt;
use crate::sys;
use nix::libc::{self, c_int};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

/// How many descriptors one message carries at most (`SCM_MAX_FD` of the kernel).
#[doc(alias = "SCM_MAX_FD")]
pub const MAX_DESCRIPTORS: usize = 253;

/// The default room for control data in bytes: `CMSG_SPACE(8192)`, enough for every message.
#[doc(alias = "CMSG_SPACE")]
pub const DEFAULT_CONTROL_LEN: usize = space(8192);

const WORD: usize = size_of::<usize>();
const HEADER: usize = size_of::<libc::cmsghdr>();
const UCRED: usize = size_of::<libc::ucred>();

/// `CMSG_SPACE(len)`: what a control message with `len` bytes of data takes in a buffer.
const fn space(len: usize) -> usize {
    HEADER.next_multiple_of(WORD) + len.next_multiple_of(WORD)
}

/// What came beside a datagram. Descriptors are owned: the ones nobody takes are closed when
/// this is dropped.
#[derive(Debug, Default)]
pub struct Ancillary {
    /// The descriptors received, in the order they were sent, close-on-exec.
    #[doc(alias = "SCM_RIGHTS")]
    pub descriptors: Vec<OwnedFd>,
    /// The sender's credentials, with `SO_PASSCRED`.
    pub credentials: Option<Credentials>,
    /// When the kernel took the datagram in, with `SO_TIMESTAMPNS` or `SO_TIMESTAMP`.
    #[doc(alias = "SCM_TIMESTAMPNS")]
    pub time: Option<SystemTime>,
    /// The sender's pidfd, with `SO_PASSPIDFD`.
    #[doc(alias = "SCM_PIDFD")]
    pub pidfd: Option<OwnedFd>,
    /// Control data did not fit, or descriptors did not: `MSG_CTRUNC`.
    #[doc(alias = "MSG_CTRUNC")]
    pub truncated: bool,
}

impl Ancillary {
    /// Takes everything out of the control data of a message just received. Every descriptor in
    /// it is owned from here on, whatever else the message holds.
    pub(crate) fn take(control: &[u8], flags: c_int) -> Self {
        let contents = Contents::of(control);
        Self {
            descriptors: contents.descriptors.into_iter().map(sys::own).collect(),
            credentials: contents.credentials,
            time: contents.time,
            pidfd: contents.pidfd.map(sys::own),
            truncated: flags & libc::MSG_CTRUNC != 0,
        }
    }
}

/// What control data says; its descriptors as the numbers they are.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) descriptors: Vec<c_int>,
    credentials: Option<Credentials>,
    time: Option<SystemTime>,
    pub(crate) pidfd: Option<c_int>,
}

impl Contents {
    pub(crate) fn of(control: &[u8]) -> Self {
        let mut contents = Self::default();
        for message in ControlMessages(control) {
            let ControlMessage {
                level: libc::SOL_SOCKET,
                kind,
                data,
            } = message
            else {
                continue;
            };
            match kind {
                libc::SCM_RIGHTS => contents.descriptors.extend(numbers(data)),
                libc::SCM_CREDENTIALS => contents.credentials = Credentials::from_bytes(data),
                // Where it could not open one, the kernel writes the negative errno in its place.
                SCM_PIDFD => contents.pidfd = numbers(data).next().filter(|number| *number >= 0),
                libc::SCM_TIMESTAMPNS | SO_TIMESTAMPNS_NEW => contents.time = time(data, 1),
                libc::SCM_TIMESTAMP | SO_TIMESTAMP_NEW => {
                    contents.time = contents.time.or_else(|| time(data, 1_000));
                }
                _ => {}
            }
        }
        contents
    }
}

// linux/socket.h, asm-generic/socket.h; libc has them for some targets only.
const SCM_PIDFD: c_int = 4;
const SO_TIMESTAMP_NEW: c_int = 63;
const SO_TIMESTAMPNS_NEW: c_int = 64;
const SO_TIMESTAMPING_NEW: c_int = 65;

fn numbers(data: &[u8]) -> impl Iterator<Item = c_int> {
    data.as_chunks()
        .0
        .iter()
        .map(|number| c_int::from_ne_bytes(*number))
}

/// A `timespec` (`unit` 1) or `timeval` (`unit` 1,000) of two longs.
fn time(data: &[u8], unit: u64) -> Option<SystemTime> {
    let long = |from: usize| Some(i64::from_ne_bytes(*data.get(from..)?.first_chunk()?));
    let seconds = u64::try_from(long(0)?).ok()?;
    let fraction = u64::try_from(long(8)?).ok()?;
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::new(seconds, 0))?
        .checked_add(Duration::from_nanos(fraction.checked_mul(unit)?))
}

struct ControlMessage<'c> {
    level: c_int,
    kind: c_int,
    data: &'c [u8],
}

/// The messages in a control buffer, as `CMSG_NXTHDR` walks them. A length that does not fit the
/// buffer ends the walk at what there is.
struct ControlMessages<'c>(&'c [u8]);

impl<'c> Iterator for ControlMessages<'c> {
    type Item = ControlMessage<'c>;

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from_ne_bytes(*self.0.first_chunk()?);
        let level = c_int::from_ne_bytes(*self.0.get(WORD..)?.first_chunk()?);
        let kind = c_int::from_ne_bytes(*self.0.get(WORD + size_of::<c_int>()..)?.first_chunk()?);
        let data = self.0.get(HEADER..len.min(self.0.len()))?;
        let next = len.checked_next_multiple_of(WORD).unwrap_or(usize::MAX);
        self.0 = self.0.get(next..).unwrap_or_default();
        Some(ControlMessage { level, kind, data })
    }
}

/// Control data to send beside a datagram, in the kernel's layout.
///
/// It holds descriptor numbers, not descriptors: these stay the caller's, and open until sent.
#[derive(Debug, Clone, Default)]
pub struct Control {
    words: Vec<usize>,
    credentials: Option<Credentials>,
    descriptors: bool,
}

impl Control {
    /// Lays out `SCM_RIGHTS` with the descriptors and `SCM_CREDENTIALS`, each if there is any.
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
                .as_chunks()
                .0
                .iter()
                .map(|word| usize::from_ne_bytes(*word)),
        );
    }

    /// Returns whether descriptors are among it.
    pub(crate) fn has_descriptors(&self) -> bool {
        self.descriptors
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

/// How much control data a receiver has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlSpace {
    /// For descriptors: none. The kernel drops those that come, and the message says so
    /// ([`Ancillary::truncated`]).
    NoDescriptors,
    /// This many bytes beside what the socket's own options ask for; `CMSG_SPACE(4 * N)` is room
    /// for N descriptors. [`DEFAULT_CONTROL_LEN`] is the usual figure.
    Bytes(usize),
}

impl ControlSpace {
    /// The length of the control buffer: the room asked for, and what the messages take that the
    /// socket's options (`SO_PASSCRED` and its like) make the kernel write first.
    pub(crate) fn buffer_len(self, socket: impl AsFd) -> usize {
        let is_on =
            |option: &c_int| sockopt::get_int(&socket, *option).is_ok_and(|value| value != 0);
        // Each of these takes the place of the others.
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
            Self::Bytes(room) => taken + room,
        }
    }

    /// The same room, as far as it is for no more than `count` descriptors.
    pub(crate) fn within(self, count: usize) -> Self {
        match self {
            Self::Bytes(room) if self.most_descriptors() > count => {
                // Not rounded up: what is left of a word would hold another one.
                Self::Bytes(room.min(HEADER + count * size_of::<c_int>()))
            }
            room => room,
        }
    }

    /// How many descriptors one message can bring at most.
    pub(crate) fn most_descriptors(self) -> usize {
        match self {
            Self::NoDescriptors => 0,
            Self::Bytes(room) => {
                (room.saturating_sub(HEADER) / size_of::<c_int>()).min(MAX_DESCRIPTORS)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: c_int, len: usize, data: &[u8]) -> Vec<u8> {
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(libc::SOL_SOCKET.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn credentials_and_time_are_decoded() {
        let ucred = [7, 8, 9].map(i32::to_ne_bytes).concat();
        let mut control = message(libc::SCM_CREDENTIALS, HEADER + 12, &ucred);
        control.extend([0; 4]);
        let timespec = [1_i64, 5].map(i64::to_ne_bytes).concat();
        control.extend(message(libc::SCM_TIMESTAMPNS, HEADER + 16, &timespec));
        let ancillary = Ancillary::take(&control, 0);
        assert_eq!(
            ancillary.credentials,
            Some(Credentials {
                pid: 7,
                uid: 8,
                gid: 9
            })
        );
        assert_eq!(
            ancillary.time,
            Some(SystemTime::UNIX_EPOCH + Duration::new(1, 5))
        );
        assert!(!ancillary.truncated);
    }

    #[test]
    fn a_pidfd_that_the_kernel_could_not_open_is_none() {
        let control = message(SCM_PIDFD, HEADER + 4, &(-24_i32).to_ne_bytes());
        assert!(Ancillary::take(&control, 0).pidfd.is_none());
    }

    #[test]
    fn a_time_beyond_the_clock_is_none() {
        for (kind, [seconds, fraction]) in [
            (libc::SCM_TIMESTAMP, [1, i64::MAX]),
            (libc::SCM_TIMESTAMPNS, [i64::MAX, i64::MAX]),
            (libc::SCM_TIMESTAMPNS, [-1, 0]),
        ] {
            let data = [seconds, fraction].map(i64::to_ne_bytes).concat();
            let control = message(kind, HEADER + 16, &data);
            assert_eq!(Ancillary::take(&control, 0).time, None);
        }
    }

    #[test]
    fn lengths_that_lie_end_the_walk() {
        for len in [0, 1, HEADER - 1, usize::MAX, usize::MAX - 7] {
            let control = message(libc::SCM_CREDENTIALS, len, &[1; 4]);
            let ancillary = Ancillary::take(&control, libc::MSG_CTRUNC);
            assert_eq!(ancillary.credentials, None);
            assert!(ancillary.truncated);
        }
    }
}
