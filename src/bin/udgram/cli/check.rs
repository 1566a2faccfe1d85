//! Checks what clap cannot: options that exclude or need each other, and options
//! that have no effect in the combination given.

use super::value::{Replies, Reporting};
use super::{
    Cli, Command, Depth, Exec, Inherited, Iter, Listen, Ls, Packets, Protocol, Receive, Recv,
    Relay, Send, ServiceManager, Shown, SocketFile, Sockopt, Talk, When,
};
use crate::exit::{Exit, Failure};
use anyhow::Result;
use std::ffi::{OsStr, OsString};
use std::fs::symlink_metadata;
use std::os::unix::ffi::OsStrExt;
use udgram::ancillary::MAX_DESCRIPTORS;
use udgram::protocol::{DatagramProtocol, Json};
use udgram::{Address, Quoted};

/// The variables in which another program passes a socket.
const ENVIRONMENT: [&str; 2] = ["UDGRAM_SOCKET_FD", "LISTEN_FDS"];

impl Cli {
    /// Checks the arguments.
    pub(super) fn check(&self) -> Result<()> {
        // clap compares only options on the same side of the command.
        if self.diagnostics.quiet && self.diagnostics.verbose {
            return refuse("--quiet and --verbose exclude each other");
        }
        match &self.command {
            Command::Send(send) => send.check(),
            Command::Recv(recv) => recv.check(),
            Command::Listen(listen) => listen.check(),
            Command::Iter(iter) => iter.check(),
            Command::Talk(talk) => talk.check(),
            Command::Relay(relay) => relay.check(),
            Command::Ls(ls) => ls.check(),
            Command::Sockopt(sockopt) => sockopt.check(),
            Command::Exec(exec) => exec.check(),
            Command::Completions(_) | Command::Help(_) => Ok(()),
        }
    }
}

impl Command {
    /// Returns when totals are printed (`--stats`).
    pub(crate) fn stats(&self) -> Option<Reporting> {
        match self {
            Self::Send(send) => send.counting.stats,
            Self::Recv(recv) => recv.receive.counting.stats,
            Self::Listen(listen) => listen.receive.counting.stats,
            Self::Iter(iter) => iter.receive.counting.stats,
            Self::Talk(talk) => talk.counting.stats,
            Self::Relay(relay) => relay.counting.stats,
            Self::Ls(_)
            | Self::Sockopt(_)
            | Self::Exec(_)
            | Self::Completions(_)
            | Self::Help(_) => None,
        }
    }

    /// Returns whether the time from packets to their replies is measured.
    pub(crate) fn measures_round_trips(&self) -> bool {
        matches!(self, Self::Send(send) if send.reply.is_some())
    }
}

fn refuse(message: impl Into<String>) -> Result<()> {
    Err(Failure::usage(message))
}

fn refuse_with_hint(message: impl Into<String>, hint: impl Into<String>) -> Result<()> {
    Err(Failure::with_hint(Exit::Usage, message, hint))
}

impl Send {
    fn check(&self) -> Result<()> {
        self.check_peer()?;
        self.file
            .check(self.bind.as_ref(), &self.socket.inherited, "--bind")?;
        if self.fd.len() > MAX_DESCRIPTORS {
            return refuse(format!(
                "--fd is given {} times, one message carries {MAX_DESCRIPTORS} at most",
                self.fd.len()
            ));
        }
        if self.reply.is_some() && self.bind == Some(Address::Unnamed) {
            return refuse("--reply with --bind '': nobody can answer an unnamed socket");
        }
        if self.reply == Some(Replies::All) && self.timeout.0.is_none() {
            return refuse("--reply=all needs a --timeout, which is its end");
        }
        self.check_pace()?;
        let shown = self.counting.shown;
        if self.reply.is_none() {
            return shown.check("send prints nothing without --reply");
        }
        shown.check_lines(self.packets.protocol, self.packets.envelope)
    }

    /// Checks how packets are read and when they are sent.
    fn check_pace(&self) -> Result<()> {
        self.packets.check(self.packets.envelope)?;
        let packets = self.arguments.len() - usize::from(self.peer().is_some());
        if self.packets.null && packets > 0 && self.reply.is_none() {
            return refuse(
                "--null has no effect: packets are arguments, and send prints nothing without --reply",
            );
        }
        if self.pace.is_some() && !self.packets.envelope {
            return refuse("--pace needs --envelope, whose lines have a time");
        }
        if self.drop && self.timeout.0.is_some() {
            return refuse("--timeout has no effect: --drop never waits");
        }
        match self.reply {
            _ if self.window == 1 => Ok(()),
            None => refuse("--window has no effect without --reply"),
            Some(Replies::All) => {
                refuse("--window with --reply=all: nothing says which packet a reply belongs to")
            }
            Some(Replies::Count(_)) => Ok(()),
        }
    }

    /// Returns the argument PEER; `None` with --to or --socket-fd, where every argument is a packet.
    pub(super) fn peer(&self) -> Option<&OsStr> {
        if self.to.is_some() || self.socket.inherited.socket_fd.is_some() {
            return None;
        }
        self.arguments.first().map(OsString::as_os_str)
    }

    /// Refuses a packet in place of PEER.
    fn check_peer(&self) -> Result<()> {
        let Some(first) = self.peer() else {
            return Ok(());
        };
        let rest = &self.arguments[1..];
        let is_json = |word: &OsStr| {
            let text = word.to_str().unwrap_or_default();
            text.starts_with(['{', '[', '"']) && Json.make_datagram(text).is_ok()
        };
        if !is_json(first) || symlink_metadata(first).is_ok() {
            return Ok(());
        }
        let peer = match rest {
            [peer] if !is_json(peer) => peer.clone(),
            _ => OsString::from("PEER"),
        };
        let shown = |word: &OsStr, stands_for: &str| {
            if word.len() > 60 || word.as_bytes().contains(&b'\'') {
                stands_for.to_owned()
            } else {
                Quoted(word).to_string()
            }
        };
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._/-@".contains(byte);
        let peer = match peer.to_str() {
            Some(text) if text.as_bytes().iter().all(plain) => text.to_owned(),
            _ => shown(&peer, "PEER"),
        };
        refuse(format!(
            "PEER comes first: udgram send {peer} {}",
            shown(first, "PACKET")
        ))
    }
}

impl Recv {
    fn check(&self) -> Result<()> {
        let runs = !self.command.is_empty();
        self.receive.check(self.address.as_ref(), runs)?;
        let connect = self.receive.connect.as_ref();
        self.depth.check(self.address.as_ref(), connect, "ADDR")?;
        if runs {
            if self.receive.packets.null {
                return refuse("--null has no effect: the packet goes to CMD, not to stdout");
            }
            if self.receive.counting.stats.is_some() {
                return refuse("--stats with a CMD: udgram is gone when it ends");
            }
            self.receive
                .counting
                .shown
                .check("the packet goes to CMD, not to stdout")?;
        } else if !self.fd.is_empty() {
            return refuse_with_hint(
                "--fd without a CMD, which gets the descriptors",
                "udgram recv --fd N ADDR -- CMD...",
            );
        }
        let twice = self
            .fd
            .iter()
            .enumerate()
            .find(|(index, number)| self.fd[..*index].contains(number));
        match twice {
            Some((_, number)) => refuse(format!("--fd {number} is given twice")),
            None => Ok(()),
        }
    }
}

impl Listen {
    fn check(&self) -> Result<()> {
        self.receive
            .check(self.address.as_ref(), self.exec.is_some())?;
        let packets = self.receive.packets;
        if self.pipe.is_some() && packets.protocol == Protocol::Raw && !packets.envelope {
            return refuse_with_hint(
                "--pipe with -p raw: bytes are not lines",
                "-p hex, -p base64, or -e",
            );
        }
        let connect = self.receive.connect.as_ref();
        self.depth.check(self.address.as_ref(), connect, "ADDR")?;
        let answers = [
            ("--echo", self.echo),
            ("--exec", self.exec.is_some()),
            ("--pipe", self.pipe.is_some()),
        ];
        if let (Some(_), Some((option, _))) =
            (self.depth.queue, answers.iter().find(|(_, given)| *given))
        {
            return refuse(format!(
                "--queue and {option} exclude each other: a socket with --queue cannot answer an abstract name"
            ));
        }
        let inherited = self.receive.socket.inherited.is_given();
        if self.address.is_some() || self.receive.connect.is_some() || inherited {
            return Ok(());
        }
        for (option, command) in [("--exec", &self.exec), ("--pipe", &self.pipe)] {
            if let Some(command) = command {
                return refuse(format!(
                    "ADDR is missing: {option} took {} for its command",
                    Quoted(command)
                ));
            }
        }
        Ok(())
    }
}

impl Iter {
    fn check(&self) -> Result<()> {
        if self.peek && self.address.is_some() {
            if let Some(option) = self.receive.file.given().next() {
                return refuse(format!("{option} has no effect: --peek binds nothing"));
            }
        }
        self.receive.check(self.address.as_ref(), false)?;
        if self.peek {
            if self.receive.connect.is_some() {
                return refuse("--peek leaves the socket as it is, --connect does not");
            }
            return Ok(());
        }
        let inherited = self.receive.socket.inherited.is_given();
        let new = self.address.is_some() || self.receive.connect.is_some() && !inherited;
        if new && self.timeout.is_none() {
            return refuse_with_hint(
                "a socket bound just now has nothing waiting",
                "--timeout waits for packets, --peek shows those of a bound socket, -s takes them",
            );
        }
        Ok(())
    }
}

impl Talk {
    fn check(&self) -> Result<()> {
        let named = self.socket.inherited.socket_fd.is_some();
        match &self.peer {
            Some(_) if named => {
                return refuse("PEER and --socket-fd exclude each other: the socket has its peer");
            }
            None if !named => return refuse("PEER is missing"),
            _ => {}
        }
        self.counting
            .shown
            .check_lines(self.packets.protocol, self.packets.envelope)
    }
}

impl Relay {
    fn check(&self) -> Result<()> {
        self.file.check_bound(Some(&self.address), "ADDR")?;
        if self.timeout.0.is_some_and(|timeout| timeout.is_zero()) {
            return refuse("--timeout 0 closes a client's socket before an answer can come");
        }
        for (index, peer) in self.peers.iter().enumerate() {
            if *peer == self.address {
                return refuse(format!(
                    "{} is ADDR and PEER: udgram would send to itself",
                    peer.quoted()
                ));
            }
            if self.peers[..index].contains(peer) {
                return refuse(format!("PEER {} is given twice", peer.quoted()));
            }
        }
        Ok(())
    }
}

impl Ls {
    fn check(&self) -> Result<()> {
        if !self.candidates {
            return Ok(());
        }
        if self.all || !self.addresses.is_empty() {
            return refuse(
                "--candidates lists what can be sent to, and takes neither ADDR nor --all",
            );
        }
        self.shown.check("candidates are not JSON")
    }
}

impl Sockopt {
    fn check(&self) -> Result<()> {
        self.file
            .check(self.bind.as_ref(), &self.inherited, "--bind")?;
        if self.options.len() == 1 {
            return self.shown.check("one value is printed alone, not as JSON");
        }
        Ok(())
    }
}

impl Exec {
    fn check(&self) -> Result<()> {
        self.service.check()?;
        let bind = self.bind.as_ref();
        self.file.check(bind, &self.socket.inherited, "--bind")?;
        self.depth.check(bind, self.connect.as_ref(), "--bind")
    }
}

impl ServiceManager {
    fn check(&self) -> Result<()> {
        let protocol = self.protocol.unwrap_or(Protocol::Fields);
        if self.notify.is_some() {
            return self.shown.check_lines(protocol, self.envelope);
        }
        let given = [
            (self.timeout.is_some(), "--timeout"),
            (self.protocol.is_some(), "--protocol"),
            (self.envelope, "--envelope"),
        ];
        match given.iter().find(|(given, _)| *given) {
            Some((_, option)) => refuse(format!("{option} has no effect without --notify")),
            None => self.shown.check("exec prints nothing without --notify"),
        }
    }
}

impl Receive {
    /// Checks the arguments that all commands which receive on `address` share; `command` says that a CMD
    /// takes descriptors.
    fn check(&self, address: Option<&Address<'static>>, command: bool) -> Result<()> {
        self.file.check(address, &self.socket.inherited, "ADDR")?;
        let envelope = self.packets.envelope || self.creds;
        self.packets.check(envelope)?;
        if self.ancillary_bufsize.is_some() && !(envelope || command) {
            return refuse(
                "--ancillary-bufsize has no effect without --envelope, --creds or a CMD",
            );
        }
        self.counting
            .shown
            .check_lines(self.packets.protocol, envelope)
    }
}

impl Packets {
    /// Refuses a terminator where there is none; `envelope` says that lines are envelopes.
    fn check(self, envelope: bool) -> Result<()> {
        if self.null && self.protocol == Protocol::Raw && !envelope {
            return refuse("--null has no effect: -p raw adds nothing to packets");
        }
        Ok(())
    }
}

impl Depth {
    /// Refuses a queue where no socket is made that can have it; `argument` is what names the socket.
    fn check(
        self,
        bound: Option<&Address<'static>>,
        peer: Option<&Address<'static>>,
        argument: &str,
    ) -> Result<()> {
        if self.queue.is_none() {
            return Ok(());
        }
        let reason =
            "the socket is in a network namespace of its own, in which nobody sees abstract names";
        match (bound, peer) {
            (Some(Address::Abstract(_)), _) => {
                refuse(format!("--queue needs a pathname to bind: {reason}"))
            }
            (Some(Address::Pathname(_)), Some(Address::Abstract(_))) => {
                refuse(format!("--queue needs a pathname to connect to: {reason}"))
            }
            (Some(Address::Pathname(_)), _) => Ok(()),
            (Some(Address::Unnamed) | None, _) => refuse(format!(
                "--queue has no effect: no pathname is bound without {argument}"
            )),
        }
    }
}

impl SocketFile {
    /// Refuses options about a socket file where none is made; `argument` is what names it.
    fn check(
        &self,
        bound: Option<&Address<'static>>,
        inherited: &Inherited,
        argument: &str,
    ) -> Result<()> {
        if bound.is_some() || inherited.socket_fd.is_none() {
            return self.check_bound(bound, argument);
        }
        match self.given().next() {
            Some(option) => refuse(format!("{option} has no effect: --socket-fd binds nothing")),
            None => Ok(()),
        }
    }

    /// Refuses options about a socket file if no pathname is `bound`.
    fn check_bound(&self, bound: Option<&Address<'static>>, argument: &str) -> Result<()> {
        let Some(option) = self.given().next() else {
            return Ok(());
        };
        let why = match bound {
            Some(Address::Pathname(_)) => return Ok(()),
            Some(Address::Abstract(_)) => "an abstract name has no file".to_owned(),
            Some(Address::Unnamed) => "an unnamed socket has no file".to_owned(),
            None => format!("no pathname is bound without {argument}"),
        };
        refuse(format!("{option} has no effect: {why}"))
    }
}

impl Inherited {
    /// Returns whether the socket is open already, by the arguments or by the environment.
    fn is_given(&self) -> bool {
        let named = ENVIRONMENT.map(std::env::var_os);
        self.socket_fd.is_some() || named.iter().any(Option::is_some)
    }
}

impl Shown {
    /// Refuses colours where lines are not JSON.
    fn check_lines(self, protocol: Protocol, envelope: bool) -> Result<()> {
        if envelope || protocol.lines_are_json() {
            return Ok(());
        }
        self.check(&format!("lines of -p {} are not JSON", protocol.written()))
    }

    /// Refuses colours, for this reason.
    fn check(self, why: &str) -> Result<()> {
        if self.color != When::Always {
            return Ok(());
        }
        refuse(format!("--color always has no effect: {why}"))
    }
}
