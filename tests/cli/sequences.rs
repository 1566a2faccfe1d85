//! Random sequences of commands in a session of `udgram exec`, whose peer goes away and comes back among
//! strangers. A model says the status and the output of each command, and which descriptors in flight are
//! open after it.

#[path = "../library/sequences/kernel.rs"]
mod kernel;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::harness::{Invocation, Peer, Sandbox, close, pipe, text};
use crate::outcome::Outcome;
use crate::sys;
use kernel::{Datagram, Id, Kernel, Limits, Name, Refusal, To};

#[derive(Debug, Clone)]
enum Step {
    /// `send -`, with this number of packets.
    Send(u32),
    /// `send --fd`, with a pipe.
    SendDescriptor,
    /// `send --to`, from the session's socket to that of the stranger.
    SendToStranger,
    /// `send --reply -`, which the peer answers.
    Ask,
    /// `send --wait -`, while the peer is away; it comes back.
    SendAndWait,
    /// `recv --count`.
    Recv(u32),
    /// `iter`, without or with `--count`.
    Iter(Option<u32>),
    /// `send --to`, from the peer's socket to the session's.
    PeerSends,
    PeerTakesAll,
    PeerConnectsBack,
    PeerShutsDown,
    PeerStarts,
    PeerEnds,
    /// The peer's socket is closed, and its file stays.
    PeerCrashes,
    PeerIsRenamed,
    /// A socket that is not the peer sends to the session's.
    StrangerSends,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (1..4_u32).prop_map(Step::Send),
        2 => Just(Step::Send(12)),
        2 => Just(Step::SendDescriptor),
        1 => Just(Step::SendToStranger),
        2 => Just(Step::Ask),
        2 => Just(Step::SendAndWait),
        3 => (1..4_u32).prop_map(Step::Recv),
        3 => proptest::option::of(1..4_u32).prop_map(Step::Iter),
        4 => Just(Step::PeerSends),
        2 => Just(Step::PeerTakesAll),
        1 => Just(Step::PeerConnectsBack),
        1 => Just(Step::PeerShutsDown),
        4 => Just(Step::PeerStarts),
        3 => Just(Step::PeerEnds),
        1 => Just(Step::PeerCrashes),
        1 => Just(Step::PeerIsRenamed),
        3 => Just(Step::StrangerSends),
    ];
    vec(step, 1..20)
}

/// A session, its sockets and their model.
struct Session {
    sandbox: Sandbox,
    kernel: Kernel,
    own: (Id, UnixDatagram),
    stranger: (Id, UnixDatagram),
    peer: Option<(Id, UnixDatagram)>,
    /// The number of packets so far.
    count: u32,
    /// The pipes whose writing ends were sent, by the number of the packet.
    pipes: BTreeMap<u32, File>,
}

fn file(name: Name) -> &'static str {
    match name {
        Name::Client => "own",
        Name::Server => "s",
        Name::Stranger => "stranger",
        Name::Moved => "moved",
    }
}

/// Returns the status of a send, and the number of packets that were sent.
fn status(refusal: Refusal) -> i32 {
    match refusal {
        Refusal::QueueFull | Refusal::BufferFull => 124,
        Refusal::NobodyThere => 4,
        Refusal::NotPermitted | Refusal::Reset => 1,
    }
}

impl Session {
    fn new(queued: usize) -> Self {
        let sandbox = Sandbox::new();
        // No sequence sends so much that a send buffer of the usual size is full.
        let mut kernel = Kernel::new(Limits {
            queued,
            unread: usize::MAX,
        });
        let peer = (kernel.bind(Name::Server, None), sandbox.bind("s"));
        let own = (kernel.bind(Name::Client, None), sandbox.bind("own"));
        let stranger = (kernel.bind(Name::Stranger, None), sandbox.bind("stranger"));
        kernel.connect(own.0, Name::Server).unwrap();
        own.1.connect(sandbox.path("s")).unwrap();
        Self {
            sandbox,
            kernel,
            own,
            stranger,
            peer: Some(peer),
            count: 0,
            pipes: BTreeMap::new(),
        }
    }

    /// An invocation in the session.
    fn udgram<const N: usize>(&self, arguments: [&str; N]) -> Invocation {
        let inode = fstat(&self.own.1).unwrap().st_ino;
        self.sandbox
            .udgram(arguments)
            .env("UDGRAM_SOCKET_FD", "7")
            .env("UDGRAM_SOCKET_INODE", inode.to_string())
            .env("UDGRAM_PEER", self.sandbox.path("s"))
            .descriptor(&self.own.1, 7)
    }

    fn next(&mut self, sender: Id, has_descriptor: bool) -> Datagram {
        self.count += 1;
        Datagram {
            number: self.count,
            sender,
            from: self.kernel.socket(sender).name,
            has_descriptor,
        }
    }

    /// Returns the status of `send`, which connects again once to a peer that it does not find.
    fn send(&mut self, sender: Id, to: To, datagrams: Vec<Datagram>) -> i32 {
        for datagram in datagrams {
            let mut sent = self.kernel.send(to, datagram.clone());
            let again = sent == Err(Refusal::NobodyThere)
                && match to {
                    To::Peer => self.kernel.connect(sender, Name::Server).is_ok(),
                    To::Name(name) => self.kernel.find(name).is_ok(),
                };
            if again {
                sent = self.kernel.send(to, datagram);
            }
            if let Err(refusal) = sent {
                return status(refusal);
            }
        }
        0
    }

    /// Takes datagrams from the queue of the session's socket and drops those of strangers. Returns at most
    /// `count` as lines.
    fn receive(&mut self, count: u32) -> (u32, String) {
        let socket = self.kernel.socket_mut(self.own.0);
        socket.is_reset = false;
        let (mut got, mut lines) = (0, String::new());
        while got < count {
            let Some(datagram) = socket.queue.pop_front() else {
                break;
            };
            if datagram.from == Name::Server {
                got += 1;
                writeln!(lines, "{}", datagram.number).unwrap();
            }
        }
        (got, lines)
    }

    /// Connects the session's socket, if the kernel has disconnected it, as a command that receives does.
    fn reconnect(&mut self) -> Result<(), Refusal> {
        match self.kernel.socket(self.own.0).peer {
            Some(_) => Ok(()),
            None => self.kernel.connect(self.own.0, Name::Server),
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Send(count) => {
                let own = self.own.0;
                let datagrams: Vec<_> = (0..*count).map(|_| self.next(own, false)).collect();
                let packets = datagrams.iter().map(|datagram| datagram.number.to_string());
                let command = self.udgram(["send", "-t", "0", "-"]).args(packets);
                let wanted = self.send(own, To::Peer, datagrams);
                ends(&command.run(), wanted, "")
            }
            Step::SendDescriptor => {
                let (reader, writer) = pipe();
                let datagram = self.next(self.own.0, true);
                let number = datagram.number;
                let command = self
                    .udgram(["send", "-t", "0", "--fd", "9", "-"])
                    .arg(number.to_string())
                    .descriptor(&writer, 9);
                close(writer);
                self.pipes.insert(number, reader);
                let wanted = self.send(self.own.0, To::Peer, vec![datagram]);
                ends(&command.run(), wanted, "")
            }
            Step::SendToStranger => {
                let datagram = self.next(self.own.0, false);
                let packet = datagram.number.to_string();
                let to = self.sandbox.path("stranger");
                let command = self.udgram(["send", "-t", "0", "--to", text(&to), &packet]);
                let wanted = self.send(self.own.0, To::Name(Name::Stranger), vec![datagram]);
                ends(&command.run(), wanted, "")
            }
            Step::Recv(count) => {
                let number = count.to_string();
                let command = self.udgram(["recv", "-t", "0", "-n", &number]);
                let (wanted, lines) = self.reconnect().map_or_else(
                    |refusal| (status(refusal), String::new()),
                    |()| {
                        let (got, lines) = self.receive(*count);
                        (if got < *count { 124 } else { 0 }, lines)
                    },
                );
                ends(&command.run(), wanted, &lines)
            }
            Step::Iter(count) => {
                let number = count.map(|count| count.to_string());
                let command = self.udgram(["iter"]);
                let command = command.args(number.iter().flat_map(|number| ["-n", number]));
                let (wanted, lines) = match self.reconnect() {
                    Err(refusal) => (status(refusal), String::new()),
                    Ok(()) => (0, self.receive(count.unwrap_or(u32::MAX)).1),
                };
                ends(&command.run(), wanted, &lines)
            }
            Step::Ask => self.ask(),
            Step::SendAndWait => self.send_and_wait(),
            Step::StrangerSends => {
                let datagram = self.next(self.stranger.0, false);
                let packet = datagram.number.to_string();
                let wanted = self.kernel.send(To::Name(Name::Client), datagram);
                self.stranger.1.set_nonblocking(true).unwrap();
                let to = self.sandbox.path("own");
                let sent = self.stranger.1.send_to(packet.as_bytes(), to);
                same(
                    "a stranger's datagram is sent",
                    &sent.is_ok(),
                    &wanted.is_ok(),
                )
            }
            _ => self.peer_takes(step),
        }
    }

    fn peer_takes(&mut self, step: &Step) -> Result<(), String> {
        if let Step::PeerStarts = step {
            if self.peer.is_none() {
                self.start_peer();
            }
            return Ok(());
        }
        let Some((id, socket)) = &self.peer else {
            return Ok(());
        };
        let id = *id;
        match step {
            Step::PeerSends => {
                let to = self.sandbox.path("own");
                let number = (self.count + 1).to_string();
                let command = self
                    .sandbox
                    .udgram(["send", "-t", "0", "-s", "5", "--to", text(&to), &number])
                    .descriptor(socket, 5);
                let datagram = self.next(id, false);
                let wanted = self.send(id, To::Name(Name::Client), vec![datagram]);
                return ends(&command.run(), wanted, "");
            }
            Step::PeerTakesAll => {
                let taken = take_all(socket);
                let model = self.kernel.socket_mut(id);
                model.is_reset = false;
                let queue = std::mem::take(&mut model.queue);
                let wanted: Vec<_> = queue.iter().map(|datagram| datagram.number).collect();
                return same("the peer takes", &taken, &wanted);
            }
            Step::PeerConnectsBack => {
                let connected = sys::connect(socket, &self.sandbox.path("own"));
                let wanted = self.kernel.connect(id, Name::Client);
                return same("the peer connects", &connected.is_ok(), &wanted.is_ok());
            }
            Step::PeerShutsDown => {
                socket.shutdown(std::net::Shutdown::Read).unwrap();
                self.kernel.socket_mut(id).is_shut_down = true;
            }
            Step::PeerIsRenamed => {
                let _ = fs::rename(self.sandbox.path("s"), self.sandbox.path("moved"));
                self.kernel.rename(Name::Server, Name::Moved);
            }
            _ => {
                let (_, socket) = self.peer.take().unwrap();
                close(socket);
                self.kernel.close(id);
                if matches!(step, Step::PeerEnds) && self.kernel.has_file(Name::Server) {
                    self.kernel.remove_file(id, Name::Server);
                    if !self.kernel.has_file(Name::Server) {
                        fs::remove_file(self.sandbox.path("s")).unwrap();
                    }
                }
            }
        }
        Ok(())
    }

    /// Binds a socket to the name of the peer. A stale file is replaced.
    fn start_peer(&mut self) {
        let _ = fs::remove_file(self.sandbox.path("s"));
        let id = self.kernel.bind(Name::Server, None);
        self.peer = Some((id, self.sandbox.bind("s")));
    }

    /// Asks a question that the peer can receive and answer.
    fn ask(&mut self) -> Result<(), String> {
        let own = self.own.0;
        let Some(peer) = self.peer.as_ref().map(|(id, _)| *id) else {
            return Ok(());
        };
        let mut trial = self.kernel.clone();
        let is_connected = trial.socket(own).peer == Some(peer);
        let is_ready = !trial.socket(own).is_reset && trial.admit(own, peer).is_ok();
        if !is_connected || !is_ready {
            return Ok(());
        }
        trial.socket_mut(own).queue.clear();
        let (question, answer) = (self.next(own, false), self.next(peer, false));
        let (asked, answered) = (question.number.to_string(), answer.number.to_string());
        let asking = self
            .udgram(["send", "-r", "-t", "100s", "-", &asked])
            .start();
        let (_, socket) = self.peer.as_ref().unwrap();
        let mut taken = vec![number(&socket.take())];
        while taken.last() != Some(&question.number) {
            taken.push(number(&socket.take()));
        }
        socket
            .send_to(answered.as_bytes(), self.sandbox.path("own"))
            .unwrap();
        let outcome = asking.finish();
        trial.send(To::Peer, question).unwrap();
        trial.socket_mut(peer).is_reset = false;
        let queue = std::mem::take(&mut trial.socket_mut(peer).queue);
        let wanted: Vec<_> = queue.iter().map(|datagram| datagram.number).collect();
        self.kernel = trial;
        same("the peer takes", &taken, &wanted)?;
        ends(&outcome, 0, &format!("{answered}\n"))
    }

    fn send_and_wait(&mut self) -> Result<(), String> {
        let own = self.own.0;
        if self.peer.is_some() || self.kernel.find(Name::Server).is_ok() {
            return Ok(());
        }
        let datagram = self.next(own, false);
        let packet = datagram.number.to_string();
        if self.kernel.send(To::Peer, datagram.clone()) != Err(Refusal::NobodyThere) {
            self.count -= 1;
            return Err("a peer that is away has received".to_owned());
        }
        let waiting = self
            .udgram(["send", "--wait", "-t", "100s", "-", &packet])
            .start();
        waiting.wait_watching();
        self.start_peer();
        let outcome = waiting.finish();
        let wanted = self.send(own, To::Peer, vec![datagram]);
        ends(&outcome, wanted, "")
    }

    /// Compares the files and the descriptors in flight with the model.
    fn compare(&mut self) -> Result<(), String> {
        for name in [Name::Client, Name::Server, Name::Stranger, Name::Moved] {
            let exists = self.sandbox.exists(file(name));
            same(file(name), &exists, &self.kernel.has_file(name))?;
        }
        for (number, pipe) in &self.pipes {
            let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, PollTimeout::ZERO).unwrap();
            let is_open = polled[0].any() == Some(false);
            let wanted = self.kernel.holds_descriptor(*number);
            same(&format!("descriptor of {number}"), &is_open, &wanted)?;
        }
        self.pipes
            .retain(|number, _| self.kernel.holds_descriptor(*number));
        Ok(())
    }

    /// Compares the queues with the model.
    fn compare_queues(&self) -> Result<(), String> {
        let peer = self.peer.iter();
        for (id, socket) in peer.chain([&self.own, &self.stranger]) {
            let queue = self.kernel.socket(*id).queue.iter();
            let wanted: Vec<_> = queue.map(|datagram| datagram.number).collect();
            same("the queue", &take_all(socket), &wanted)?;
        }
        Ok(())
    }
}

fn number(bytes: &[u8]) -> u32 {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

/// Takes all that is queued.
fn take_all(socket: &UnixDatagram) -> Vec<u32> {
    socket.set_nonblocking(true).unwrap();
    let mut taken = Vec::new();
    let mut buffer = [0; 100];
    loop {
        match socket.recv(&mut buffer) {
            Ok(size) => taken.push(number(&buffer[..size])),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(_) => break,
        }
    }
    socket.set_nonblocking(false).unwrap();
    taken
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, seen: &T, wanted: &T) -> Result<(), String> {
    if seen == wanted {
        return Ok(());
    }
    Err(format!("{what}: {seen:?} instead of {wanted:?}"))
}

/// Compares the end of a command.
fn ends(outcome: &Outcome, status: i32, stdout: &str) -> Result<(), String> {
    let seen = String::from_utf8_lossy(outcome.stdout()).into_owned();
    if outcome.code() == Some(status) && seen == stdout {
        return Ok(());
    }
    Err(format!(
        "status {:?} and {seen:?} instead of {status} and {stdout:?}: {}",
        outcome.code(),
        outcome.stderr_text()
    ))
}

fn run(steps: &[Step], queued: usize) -> Result<(), String> {
    let mut session = Session::new(queued);
    for step in steps {
        session
            .take(step)
            .and_then(|()| session.compare())
            .map_err(|difference| format!("{step:?}: {difference}"))?;
    }
    session.compare_queues()
}

#[test]
fn a_session_does_what_the_model_says_in_every_sequence() {
    let given = std::env::var("UDGRAM_SEQUENCES").unwrap_or_else(|_| "1 40".to_owned());
    let (seed, cases) = given.split_once(' ').unwrap();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.parse::<u64>().unwrap().to_le_bytes());
    let config = ProptestConfig {
        cases: cases.parse().unwrap(),
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    };
    let path = "/proc/sys/net/unix/max_dgram_qlen";
    let queued = fs::read_to_string(path).unwrap();
    // The kernel compares before it adds (`unix_recvq_full`).
    let queued = queued.trim().parse::<usize>().unwrap() + 1;
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, random);
    let result = runner.run(&steps(), |steps| {
        run(&steps, queued).map_err(TestCaseError::fail)
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
