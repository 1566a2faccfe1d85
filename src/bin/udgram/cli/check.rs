//! What clap cannot check of a command line: combinations of arguments that exclude or need each
//! other. Each check returns what is wrong in one line.

use super::value::Replies;
use super::{Command, Receive, Recv, Send};
use udgram::Address;
use udgram::ancillary::MAX_DESCRIPTORS;

impl Command {
    /// Returns whether totals are printed (`--stats`).
    pub(crate) fn stats(&self) -> bool {
        match self {
            Self::Send(send) => send.counting.stats,
            Self::Recv(recv) => recv.receive.counting.stats,
            Self::Listen(listen) => listen.receive.counting.stats,
            Self::Iter(iter) => iter.receive.counting.stats,
            Self::Sockopt(_) | Self::Exec(_) | Self::Completions(_) => false,
        }
    }

    /// Checks the arguments of the command.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Send(send) => send.check(),
            Self::Recv(recv) => recv
                .receive
                .check(!recv.command.is_empty())
                .and_then(|()| recv.check()),
            Self::Listen(listen) => listen.receive.check(listen.exec.is_some()),
            Self::Iter(iter) => iter.receive.check(false),
            Self::Sockopt(_) | Self::Exec(_) | Self::Completions(_) => Ok(()),
        }
    }
}

impl Send {
    fn check(&self) -> Result<(), String> {
        if self.fd.len() > MAX_DESCRIPTORS {
            return Err(format!(
                "--fd is given {} times, one message carries {MAX_DESCRIPTORS} at most",
                self.fd.len()
            ));
        }
        if self.reply.is_some() && self.bind == Some(Address::Unnamed) {
            return Err("--reply with --bind '': nobody can answer an unnamed socket".to_owned());
        }
        if self.reply == Some(Replies::All) && self.timeout.0.is_none() {
            return Err("--reply=all needs a --timeout, which is its end".to_owned());
        }
        Ok(())
    }
}

impl Recv {
    fn check(&self) -> Result<(), String> {
        if self.receive.counting.stats && !self.command.is_empty() {
            return Err("--stats with a CMD: udgram is gone when it ends".to_owned());
        }
        let twice = self
            .fd
            .iter()
            .enumerate()
            .find(|(index, number)| self.fd[..*index].contains(number));
        match twice {
            Some((_, number)) => Err(format!("--fd {number} is given twice")),
            None => Ok(()),
        }
    }
}

impl Receive {
    fn check(&self, command: bool) -> Result<(), String> {
        if self.ancillary_bufsize.is_some() && !(self.packets.envelope || self.creds || command) {
            return Err(
                "--ancillary-bufsize means nothing without --envelope, --creds or a CMD".to_owned(),
            );
        }
        Ok(())
    }
}
