//! The control data of received messages: cmsg(3), unix(7).

use super::own;
use crate::credentials::Credentials;
use nix::libc::{self, c_int};
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

const WORD: usize = size_of::<usize>();
const HEADER: usize = size_of::<libc::cmsghdr>();

// linux/socket.h, asm-generic/socket.h; libc has them for some targets only.
const SCM_PIDFD: c_int = 4;
pub(crate) const SO_TIMESTAMP_NEW: c_int = 63;
pub(crate) const SO_TIMESTAMPNS_NEW: c_int = 64;
pub(crate) const SO_TIMESTAMPING_NEW: c_int = 65;

/// Parsed control data; descriptors are raw numbers, not yet owned.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    descriptors: Vec<c_int>,
    credentials: Option<Credentials>,
    time: Option<SystemTime>,
    pidfd: Option<c_int>,
}

/// Parsed control data of a message just received, which owns its descriptors.
#[derive(Debug, Default)]
pub(crate) struct ReceivedControl {
    pub(crate) descriptors: Vec<OwnedFd>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) time: Option<SystemTime>,
    pub(crate) pidfd: Option<OwnedFd>,
    /// `MSG_CTRUNC`.
    pub(crate) truncated: bool,
}

impl Contents {
    /// Parses control data.
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
                // If it could not open one, the kernel writes the negative errno in its place.
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

    /// Returns how many descriptors there are.
    #[cfg(fuzzing)]
    pub(crate) fn descriptor_count(&self) -> usize {
        self.descriptors.len() + usize::from(self.pidfd.is_some())
    }

    /// Owns every descriptor.
    ///
    /// # Safety
    ///
    /// The control data comes from a recvmsg(2) that has just installed its descriptors, and none of
    /// them is owned yet.
    pub(super) unsafe fn own(self, flags: c_int) -> ReceivedControl {
        let owned = |number| {
            // SAFETY: the caller vouches for each of them.
            unsafe { own(number) }
        };
        ReceivedControl {
            descriptors: self.descriptors.into_iter().map(owned).collect(),
            credentials: self.credentials,
            time: self.time,
            pidfd: self.pidfd.map(owned),
            truncated: flags & libc::MSG_CTRUNC != 0,
        }
    }
}

fn numbers(data: &[u8]) -> impl Iterator<Item = c_int> {
    data.chunks_exact(size_of::<c_int>())
        .filter_map(|number| Some(c_int::from_ne_bytes(*number.first_chunk()?)))
}

/// Decodes a `timespec` (`unit` 1) or `timeval` (`unit` 1,000): two numbers of 64 bits or, from the options
/// that are not `_NEW` on 32-bit targets, of 32 bits: the kernel writes the lower half, which goes on without a sign
/// from 2038 to 2106.
fn time(data: &[u8], unit: u64) -> Option<SystemTime> {
    let number = |half: &[u8]| match half.len() {
        4 => Some(u32::from_ne_bytes(*half.first_chunk()?).into()),
        _ => i64::from_ne_bytes(*half.first_chunk()?).try_into().ok(),
    };
    let (seconds, fraction) = data.split_at(data.len() / 2);
    let seconds: u64 = number(seconds)?;
    let fraction: u64 = number(fraction)?;
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
/// buffer ends the walk.
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
        control.resize(control.len().next_multiple_of(WORD), 0);
        let timespec = [1_i64, 5].map(i64::to_ne_bytes).concat();
        control.extend(message(libc::SCM_TIMESTAMPNS, HEADER + 16, &timespec));
        let contents = Contents::of(&control);
        let credentials = Credentials {
            pid: 7,
            uid: 8,
            gid: 9,
        };
        assert_eq!(contents.credentials, Some(credentials));
        let time = SystemTime::UNIX_EPOCH + Duration::new(1, 5);
        assert_eq!(contents.time, Some(time));
    }

    #[test]
    fn a_time_of_32_bits_is_decoded() {
        // The second one is in 2038.
        for seconds in [1, 1 << 31] {
            let data = [seconds, 5].map(u32::to_ne_bytes).concat();
            let control = message(libc::SCM_TIMESTAMPNS, HEADER + 8, &data);
            let time = SystemTime::UNIX_EPOCH + Duration::new(seconds.into(), 5);
            assert_eq!(Contents::of(&control).time, Some(time));
        }
    }

    #[test]
    fn a_pidfd_that_the_kernel_could_not_open_is_none() {
        let control = message(SCM_PIDFD, HEADER + 4, &(-24_i32).to_ne_bytes());
        assert_eq!(Contents::of(&control).pidfd, None);
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
            assert_eq!(Contents::of(&control).time, None);
        }
    }

    #[test]
    fn lengths_that_do_not_fit_end_the_walk() {
        for len in [0, 1, HEADER - 1, usize::MAX, usize::MAX - 7] {
            let control = message(libc::SCM_CREDENTIALS, len, &[1; 4]);
            assert_eq!(Contents::of(&control).credentials, None);
        }
    }
}
