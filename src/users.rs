//! Finds out which user sent a datagram, as far as this user namespace shows it.

use crate::credentials::Credentials;
use std::fs;

/// The default of `kernel.overflowuid`, the id that the kernel reports for users without an id here.
const OVERFLOW_UID: u32 = 65534;
/// The content of /proc/self/uid_map, with single spaces, if every user has its own id here.
const IDENTITY: &str = "0 0 4294967295";

/// The sender of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The user that sent it.
    User(u32),
    /// A user without an id in this user namespace: the kernel reports the overflow id.
    Unmapped,
    /// Unknown: the kernel reports process 0 and the overflow id, because the datagram was queued before
    /// `SO_PASSCRED` was set.
    Unknown,
    /// Unknown: the datagram has no credentials.
    Unasked,
}

/// The meaning of user ids in this user namespace.
#[derive(Debug, Clone, Copy)]
pub struct Users {
    overflow: u32,
    /// True if every user has an id here: the overflow id is then the id of one user.
    all_mapped: bool,
}

impl Users {
    /// Reads the meaning from /proc. Without /proc, it assumes that users may be unmapped.
    #[must_use]
    pub fn of_this_process() -> Self {
        let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid")
            .ok()
            .and_then(|number| number.trim().parse().ok());
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        Self {
            overflow: overflow.unwrap_or(OVERFLOW_UID),
            all_mapped: map.split_whitespace().eq(IDENTITY.split(' ')),
        }
    }

    /// Returns the sender with these credentials.
    #[must_use]
    pub fn sender(self, credentials: Option<Credentials>) -> Sender {
        match credentials {
            None => Sender::Unasked,
            Some(Credentials { pid: 0, uid, .. }) if uid == self.overflow => Sender::Unknown,
            Some(Credentials { uid, .. }) if uid == self.overflow && !self.all_mapped => {
                Sender::Unmapped
            }
            Some(Credentials { uid, .. }) => Sender::User(uid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overflow_id_names_a_user_only_where_all_users_are_mapped() {
        let users = |all_mapped| Users {
            overflow: 7,
            all_mapped,
        };
        let sender = |pid, uid| Some(Credentials { pid, uid, gid: 0 });
        assert_eq!(users(true).sender(sender(1, 7)), Sender::User(7));
        assert_eq!(users(false).sender(sender(1, 7)), Sender::Unmapped);
        for all_mapped in [true, false] {
            // A process of another pid namespace has no number here.
            assert_eq!(users(all_mapped).sender(sender(0, 1)), Sender::User(1));
            assert_eq!(users(all_mapped).sender(sender(0, 7)), Sender::Unknown);
            assert_eq!(users(all_mapped).sender(None), Sender::Unasked);
        }
    }
}
