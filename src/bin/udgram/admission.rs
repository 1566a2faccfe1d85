//! Whose packets are taken in: `--allow-uid`, by the kernel's word for the sender.

use crate::report::Report;
use udgram::Datagram;
use udgram::ancillary::Credentials;

/// What the kernel says where it cannot name a user: a datagram that was queued before
/// `SO_PASSCRED` was on (then it names no process either), a user of another user namespace.
const OVERFLOW_UID: u32 = 65534;

/// Everybody, or some users only.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    /// Nobody named: everybody.
    users: Vec<u32>,
    refused: u64,
}

impl Admission {
    /// The packets of these users only; of everybody, if none is given.
    pub(crate) fn of(users: &[u32]) -> Self {
        Self {
            users: users.to_vec(),
            refused: 0,
        }
    }

    /// Whether `datagram` is to be taken in. Of one that is not, the descriptors are closed, and
    /// the first is reported.
    pub(crate) fn admits(&mut self, datagram: &mut Datagram<'_>, report: Report) -> bool {
        if self.users.is_empty() {
            return true;
        }
        let credentials = datagram.ancillary.credentials;
        if credentials.is_some_and(|sender| self.names(sender)) {
            return true;
        }
        datagram.ancillary.descriptors.clear();
        self.refused += 1;
        if self.refused == 1 {
            let sender = datagram.sender();
            let from = sender.quoted();
            match credentials {
                Some(Credentials { pid, uid, .. }) => report.warning(format_args!(
                    "a packet of {from} was dropped: it comes from user {uid} (process {pid}), whom --allow-uid does not name"
                )),
                None => report.warning(format_args!(
                    "a packet of {from} was dropped: the kernel does not say which user it comes from"
                )),
            }
        }
        false
    }

    fn names(&self, sender: Credentials) -> bool {
        let unknown = sender.pid == 0 && sender.uid == OVERFLOW_UID;
        !unknown && self.users.contains(&sender.uid)
    }

    /// Tells at the end how many were dropped, unless that has been told.
    pub(crate) fn conclude(&self, report: Report) {
        if self.refused > 1 {
            report.warning(format_args!(
                "{} packets of users whom --allow-uid does not name were dropped",
                self.refused
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_whom_the_kernel_cannot_name_is_nobody() {
        let admission = Admission::of(&[OVERFLOW_UID, 7]);
        let sender = |pid, uid| Credentials { pid, uid, gid: 0 };
        assert!(admission.names(sender(1, 7)));
        // From another pid namespace.
        assert!(admission.names(sender(0, 7)));
        assert!(admission.names(sender(1, OVERFLOW_UID)));
        assert!(!admission.names(sender(0, OVERFLOW_UID)));
        assert!(!admission.names(sender(1, 0)));
    }
}
