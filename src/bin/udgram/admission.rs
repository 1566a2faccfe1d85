//! `--allow-uid`: accepts packets of some users only, by the credentials that the kernel reports.

use crate::report::Report;
use udgram::Datagram;
use udgram::users::{Sender, Users};

/// The users whose packets are accepted.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    /// `None`: all users.
    list: Option<AllowList>,
}

#[derive(Debug)]
struct AllowList {
    allowed: Vec<u32>,
    users: Users,
    refused: u64,
    /// The causes that were reported; all users count as user 0.
    reported: Vec<Sender>,
}

impl Admission {
    /// Admits the packets of these users only; of all users if none is given.
    pub(crate) fn of(allowed: &[u32]) -> Self {
        let list = (!allowed.is_empty()).then(|| AllowList {
            allowed: allowed.to_vec(),
            users: Users::of_this_process(),
            refused: 0,
            reported: Vec::new(),
        });
        Self { list }
    }

    /// Returns whether `datagram` is accepted. Closes the descriptors of one that is not, and reports
    /// the first for each cause.
    pub(crate) fn admits(&mut self, datagram: &mut Datagram<'_>, report: Report) -> bool {
        self.list
            .as_mut()
            .is_none_or(|list| list.admits(datagram, report))
    }

    /// Reports the number of packets that were dropped, unless each was reported.
    pub(crate) fn conclude(&self, report: Report) {
        let list = self.list.as_ref();
        if let Some(list) = list.filter(|list| list.refused > list.reported.len() as u64) {
            report.warning(format_args!(
                "{} packets of users whom --allow-uid does not name were dropped",
                list.refused
            ));
        }
    }
}

impl AllowList {
    fn admits(&mut self, datagram: &mut Datagram<'_>, report: Report) -> bool {
        let credentials = datagram.ancillary.credentials;
        let sender = self.users.sender(credentials);
        if matches!(sender, Sender::User(user) if self.allowed.contains(&user)) {
            return true;
        }
        datagram.ancillary.descriptors.clear();
        self.refused += 1;
        let kind = match sender {
            Sender::User(_) => Sender::User(0),
            unnamed => unnamed,
        };
        if self.reported.contains(&kind) {
            return false;
        }
        self.reported.push(kind);
        let from = datagram.sender();
        let dropped = format!("a packet of {} was dropped", from.quoted());
        match sender {
            Sender::User(user) => {
                let pid = credentials.map_or(0, |credentials| credentials.pid);
                report.warning(format_args!(
                    "{dropped}: it comes from user {user} (process {pid}), whom --allow-uid does not name"
                ));
            }
            Sender::Unmapped => report.warning(format_args!(
                "{dropped}: its user has no number in this user namespace"
            )),
            Sender::Unknown => report.warning(format_args!(
                "{dropped}: the kernel does not say who sent it, it was queued before SO_PASSCRED was on (hint: for systemd's socket activation, PassCredentials=yes in the socket unit)"
            )),
            Sender::Unasked => report.warning(format_args!(
                "{dropped}: the kernel does not say which user it comes from"
            )),
        }
        false
    }
}
