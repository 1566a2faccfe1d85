//! Sends a datagram with the credentials of its client, as far as the kernel permits; SCM_CREDENTIALS in
//! unix(7).

use super::parcel::Parcel;
use crate::report::Report;
use nix::libc;
use std::io;
use std::os::fd::AsFd;
use udgram::ancillary::{Control, Credentials};
use udgram::users::{Sender, Users};
use udgram::{DatagramSocket, Outgoing};

/// The part of a client's credentials that is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// The process, the user and the group.
    Process,
    /// The user and the group, with the process of udgram.
    User,
    /// Nothing: the kernel adds the credentials of udgram.
    Nothing,
}

/// The claim for the packets of a process. It is found by the first packet.
#[derive(Debug)]
pub(crate) struct Identity {
    sender: Option<Credentials>,
    claim: Claim,
    /// The control data of a packet without descriptors.
    control: Option<Control>,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            sender: None,
            claim: Claim::Nothing,
            control: None,
        }
    }
}

/// Sends datagrams with the credentials of clients.
#[derive(Debug)]
pub(crate) struct Impersonator {
    own: Credentials,
    users: Users,
    report: Report,
    /// True once a process that is not claimed was reported.
    process_reported: bool,
    /// True once a user who is not claimed was reported.
    user_reported: bool,
}

impl Impersonator {
    pub(crate) fn new(users: Users, report: Report) -> Self {
        Self {
            own: Credentials::own(),
            users,
            report,
            process_reported: false,
            user_reported: false,
        }
    }

    /// Makes one attempt to send `parcel` to the peer of `socket`. Returns whether there was room.
    /// `identity` is what is known of the sender of the last one.
    ///
    /// Fails with the errno of the system call.
    pub(crate) fn send(
        &mut self,
        socket: &DatagramSocket,
        parcel: Parcel<'_>,
        identity: &mut Identity,
    ) -> io::Result<bool> {
        if identity.sender != parcel.credentials {
            identity.sender = parcel.credentials;
            let claim = self.greatest_claim(parcel.credentials);
            self.claim(identity, claim)?;
        }
        let first = identity.claim;
        let mut cause = None;
        loop {
            let with_descriptors = if parcel.descriptors.is_empty() {
                None
            } else {
                Some(self.control(parcel, identity.claim)?)
            };
            let sent = socket.try_send_one(&Outgoing {
                bytes: parcel.bytes,
                to: None,
                control: with_descriptors.as_ref().or(identity.control.as_ref()),
            });
            let denied = match &sent {
                Ok(_) => None,
                // The process has been reaped, or a capability is missing (`scm_check_creds`).
                Err(error) => error
                    .raw_os_error()
                    .filter(|errno| [libc::ESRCH, libc::EPERM].contains(errno)),
            };
            match (denied, identity.claim) {
                (Some(errno), Claim::Process) => {
                    cause = Some(errno);
                    self.claim(identity, Claim::User)?;
                }
                (Some(_), Claim::User) => self.claim(identity, Claim::Nothing)?,
                (Some(_), Claim::Nothing) => {
                    // The peer refuses this socket, whatever it claims.
                    self.claim(identity, first)?;
                    return sent;
                }
                (None, claim) => {
                    match claim {
                        _ if claim == first => {}
                        Claim::Nothing => self.report_user(parcel.credentials),
                        _ => self.report_process(parcel.credentials, cause),
                    }
                    return sent;
                }
            }
        }
    }

    /// Returns the most that may be claimed for a process with these credentials.
    fn greatest_claim(&mut self, sender: Option<Credentials>) -> Claim {
        match (self.users.sender(sender), sender) {
            // A process of another PID namespace has no number here.
            (Sender::User(_), Some(Credentials { pid: 0, .. })) => {
                self.report_process(sender, None);
                Claim::User
            }
            (Sender::User(_), _) => Claim::Process,
            _ => {
                self.report_user(None);
                Claim::Nothing
            }
        }
    }

    fn claim(&self, identity: &mut Identity, claim: Claim) -> io::Result<()> {
        identity.claim = claim;
        identity.control = match self.claimed(identity.sender, claim) {
            None => None,
            claimed => Some(Control::new(&[], claimed).map_err(io::Error::other)?),
        };
        Ok(())
    }

    /// Returns the control data of `parcel`.
    fn control(&self, parcel: Parcel<'_>, claim: Claim) -> io::Result<Control> {
        let descriptors: Vec<_> = parcel.descriptors.iter().map(AsFd::as_fd).collect();
        Control::new(&descriptors, self.claimed(parcel.credentials, claim))
            .map_err(io::Error::other)
    }

    /// Returns the credentials to claim; `None` if they are those of udgram.
    fn claimed(&self, sender: Option<Credentials>, claim: Claim) -> Option<Credentials> {
        let claimed = match claim {
            Claim::Process => sender?,
            Claim::User => Credentials {
                pid: self.own.pid,
                ..sender?
            },
            Claim::Nothing => return None,
        };
        (claimed != self.own).then_some(claimed)
    }

    /// Reports once that the process of a client is not claimed, because of `errno`.
    fn report_process(&mut self, sender: Option<Credentials>, errno: Option<i32>) {
        if self.process_reported {
            return;
        }
        self.process_reported = true;
        let pid = sender.map_or(0, |sender| sender.pid);
        let cause = match errno {
            Some(libc::ESRCH) => format!("process {pid} has exited"),
            Some(_) => format!("claiming process {pid} needs CAP_SYS_ADMIN"),
            None => "the client's process has no number in this PID namespace".to_owned(),
        };
        self.report.warning(format_args!(
            "packets are passed on with the process of udgram: {cause}"
        ));
    }

    /// Reports once that the user of a client is not claimed: `sender`, or one without a number here.
    fn report_user(&mut self, sender: Option<Credentials>) {
        if self.user_reported {
            return;
        }
        self.user_reported = true;
        let cause = match sender {
            Some(Credentials { uid, gid, .. }) => {
                format!("claiming user {uid} and group {gid} needs CAP_SETUID and CAP_SETGID")
            }
            None => "the client's user has no number in this user namespace".to_owned(),
        };
        self.report.warning(format_args!(
            "packets are passed on with the credentials of udgram: {cause}"
        ));
    }
}
