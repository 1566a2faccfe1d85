//! The model of a sequence: which sockets exist, and what each step must return.

use super::kernel::{Datagram, Id, Kernel, Limits, Name, Refusal, To};
use super::{Call, Role, Sending, Step, Wait};
use std::collections::BTreeMap;
use udgram::ErrorKind;

/// The steps at the start of each sequence.
pub(super) const FIRST: [Step; 3] = [Step::StartServer, Step::StartStranger, Step::StartClient];

/// The steps at the end of each sequence: what is still queued is received, and all sockets are closed.
pub(super) const LAST: [Step; 8] = [
    Step::Receives(Role::Server, Call::Packets),
    Step::Receives(Role::Former, Call::Packets),
    Step::Receives(Role::Stranger, Call::Packets),
    Step::ClientReceives(Call::Packets),
    Step::CloseClient,
    Step::Close(Role::Server),
    Step::Close(Role::Former),
    Step::Close(Role::Stranger),
];

/// The outcome of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// The socket of the step does not exist.
    Skipped,
    Done,
    Failed(ErrorKind),
    /// Some datagrams were sent, and then one failed.
    Sent(usize, ErrorKind),
    /// These were received; the iterator ended with this error.
    Got(Vec<String>, Option<ErrorKind>),
}

/// Returns a received datagram as text; of a packet, only its number is known.
pub(super) fn shown(call: Call, number: &str, from: &str, descriptors: usize) -> String {
    match call {
        Call::Message => format!("{number} from {from} with {descriptors}"),
        Call::Packet | Call::Packets => number.to_owned(),
    }
}

/// Returns the packet with a number. All packets have the same length.
pub(super) fn packet(number: u32) -> String {
    format!("{number:05}")
}

pub(super) struct Model {
    pub(super) kernel: Kernel,
    limits: Limits,
    client: Option<Id>,
    roles: BTreeMap<Role, Id>,
    /// The number of the packets so far.
    count: u32,
    /// The first packet of the last step.
    pub(super) first: u32,
    /// The last packet of a step that sends until there is room.
    pub(super) last: u32,
    /// True if the last step, one with two threads, takes place.
    pub(super) takes_place: bool,
    /// The endpoint that receives in the last step; `None`: the client.
    pub(super) receiver: Option<Role>,
}

impl Model {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            kernel: Kernel::new(limits),
            limits,
            client: None,
            roles: BTreeMap::new(),
            count: 0,
            first: 0,
            last: 0,
            takes_place: false,
            receiver: None,
        }
    }

    /// Takes a step. Returns the permitted outcomes.
    pub(super) fn take(&mut self, step: &Step) -> Vec<Seen> {
        self.first = self.count;
        self.takes_place = false;
        match step {
            Step::StartServer | Step::ReplaceServer | Step::StartStranger => {
                return vec![self.start(step)];
            }
            Step::Rename => self.kernel.rename(Name::Server, Name::Moved),
            Step::StartClient if self.client.is_none() => return vec![self.start_client()],
            Step::Close(role) | Step::Crash(role) => {
                let Some(id) = self.roles.remove(role) else {
                    return vec![Seen::Skipped];
                };
                let name = self.kernel.socket(id).name;
                self.kernel.close(id);
                if matches!(step, Step::Close(_)) {
                    self.kernel.remove_file(id, name);
                }
            }
            Step::Sends(role, ..)
            | Step::Receives(role, _)
            | Step::SendsMany(role, _)
            | Step::Connects(role, _)
            | Step::Establishes(role, _)
            | Step::ShutsDown(role)
            | Step::SendsUntilRoom(role, _) => {
                let Some(id) = self.roles.get(role).copied() else {
                    return vec![Seen::Skipped];
                };
                return self.endpoint_takes(id, step);
            }
            _ => {
                let Some(id) = self.client else {
                    return vec![Seen::Skipped];
                };
                return self.client_takes(id, step);
            }
        }
        vec![Seen::Done]
    }

    fn start(&mut self, step: &Step) -> Seen {
        if matches!(step, Step::StartStranger) {
            if self.roles.contains_key(&Role::Stranger) {
                return Seen::Skipped;
            }
            let id = self.kernel.bind(Name::Stranger, None);
            self.roles.insert(Role::Stranger, id);
            return Seen::Done;
        }
        if matches!(step, Step::StartServer) && self.kernel.find(Name::Server).is_ok() {
            return Seen::Failed(ErrorKind::InUse);
        }
        let id = self.kernel.bind(Name::Server, None);
        if let Some(previous) = self.roles.insert(Role::Server, id) {
            if let Some(former) = self.roles.insert(Role::Former, previous) {
                self.kernel.close(former);
            }
        }
        Seen::Done
    }

    fn start_client(&mut self) -> Seen {
        let server = match self.kernel.find(Name::Server) {
            Ok(server) if self.kernel.socket(server).peer.is_none() => server,
            Ok(_) => return Seen::Failed(ErrorKind::System),
            Err(_) => return Seen::Failed(ErrorKind::NobodyThere),
        };
        self.client = Some(self.kernel.bind(Name::Client, Some(server)));
        Seen::Done
    }

    fn client_takes(&mut self, id: Id, step: &Step) -> Vec<Seen> {
        let is_connected = self.kernel.socket(id).peer.is_some();
        match step {
            Step::CloseClient => {
                self.client = None;
                self.kernel.close(id);
                self.kernel.remove_file(id, Name::Client);
            }
            Step::Inherit if is_connected => {}
            Step::Inherit => return vec![Seen::Failed(ErrorKind::Unusable)],
            Step::Reconnect => return vec![outcome(self.kernel.connect(id, Name::Server))],
            Step::ClientSends(sending) => return self.send(id, To::Peer, *sending),
            Step::ClientReceives(call) if is_connected => {
                let seen = self.receive(id, *call, Some(Name::Server));
                return vec![seen];
            }
            Step::ClientReceives(Call::Packets) => {
                return vec![Seen::Got(Vec::new(), Some(ErrorKind::NobodyThere))];
            }
            Step::ClientReceives(_) => return vec![Seen::Failed(ErrorKind::NobodyThere)],
            Step::Ask => return vec![self.ask(id)],
            Step::ClientSendsUntilRoom => return vec![self.send_until_room(id, To::Peer)],
            // A second client.
            _ => return vec![Seen::Skipped],
        }
        vec![Seen::Done]
    }

    fn endpoint_takes(&mut self, id: Id, step: &Step) -> Vec<Seen> {
        match step {
            Step::Sends(_, name, sending) => return self.send(id, To::Name(*name), *sending),
            Step::Receives(_, call) => return vec![self.receive(id, *call, None)],
            Step::SendsMany(_, to) => return self.send_many(id, to),
            Step::Connects(_, name) => return vec![outcome(self.kernel.connect(id, *name))],
            Step::Establishes(_, name) => {
                return vec![outcome(self.kernel.find(*name).map(drop))];
            }
            Step::ShutsDown(_) => self.kernel.socket_mut(id).is_shut_down = true,
            Step::SendsUntilRoom(_, name) => {
                return vec![self.send_until_room(id, To::Name(*name))];
            }
            _ => {}
        }
        vec![Seen::Done]
    }

    fn next(&mut self, sender: Id, has_descriptor: bool) -> Datagram {
        self.count += 1;
        Datagram {
            number: self.count - 1,
            sender,
            from: self.kernel.socket(sender).name,
            has_descriptor,
        }
    }

    fn send(&mut self, sender: Id, to: To, sending: Sending) -> Vec<Seen> {
        let datagram = self.next(sender, sending.has_descriptor);
        let sent = self.kernel.send(to, datagram);
        let mut seen = vec![outcome(sent)];
        if sent == Err(Refusal::BufferFull) && self.reason(sender, to) == Err(Refusal::NobodyThere)
        {
            // Kernels differ in what they check first, and so does a wait for room.
            seen.push(Seen::Failed(ErrorKind::NobodyThere));
        }
        let waits = sending.wait == Wait::Short && sent == Err(Refusal::BufferFull);
        if waits && self.reason(sender, to) == Err(Refusal::NotPermitted) {
            seen.push(Seen::Failed(ErrorKind::System));
        }
        seen
    }

    /// Returns the reason why a datagram cannot be sent, besides the send buffer.
    fn reason(&self, sender: Id, to: To) -> Result<(), Refusal> {
        let receiver = self.kernel.receiver(sender, to)?;
        if !self.kernel.is_open(receiver) {
            return Err(Refusal::NobodyThere);
        }
        self.kernel.admit(sender, receiver)
    }

    fn send_many(&mut self, sender: Id, all: &[To]) -> Vec<Seen> {
        for (sent, to) in all.iter().enumerate() {
            let datagram = self.next(sender, false);
            if let Err(refusal) = self.kernel.send(*to, datagram) {
                let mut seen = vec![Seen::Sent(sent, kind(refusal))];
                let reason = self.reason(sender, *to);
                if refusal == Refusal::BufferFull && reason == Err(Refusal::NobodyThere) {
                    seen.push(Seen::Sent(sent, ErrorKind::NobodyThere));
                }
                return seen;
            }
        }
        vec![Seen::Done]
    }

    /// Takes datagrams from a queue, and drops those that are not `from` the peer of a client.
    fn receive(&mut self, id: Id, call: Call, from: Option<Name>) -> Seen {
        let socket = self.kernel.socket_mut(id);
        // A receive takes no notice of ECONNRESET.
        socket.is_reset = false;
        let mut got = Vec::new();
        while let Some(datagram) = socket.queue.pop_front() {
            if from.is_some_and(|from| from != datagram.from) {
                continue;
            }
            let number = packet(datagram.number);
            let from = format!("{:?}", datagram.from);
            got.push(shown(call, &number, &from, datagram.has_descriptor.into()));
            if call != Call::Packets {
                return Seen::Got(got, None);
            }
        }
        // Without a wait, a shutdown is not noticed.
        match call {
            Call::Packets => Seen::Got(got, None),
            Call::Packet | Call::Message => Seen::Failed(ErrorKind::TimedOut),
        }
    }

    /// Returns the endpoint that has a socket.
    fn role(&self, id: Id) -> Option<Role> {
        let mut roles = self.roles.iter();
        roles.find(|(_, of)| **of == id).map(|(role, _)| *role)
    }

    fn ask(&mut self, client: Id) -> Seen {
        let Some((server, role)) = self.kernel.socket(client).peer.and_then(|server| {
            let role = self.role(server)?;
            Some((server, role))
        }) else {
            return Seen::Skipped;
        };
        self.receiver = Some(role);
        let (one, other) = (self.kernel.socket(client), self.kernel.socket(server));
        let possible = !one.is_shut_down
            && !other.is_shut_down
            && self.kernel.find(Name::Client) == Ok(client)
            && self.kernel.admit(client, server).is_ok()
            && self.kernel.unread(client) < self.limits.unread
            && self.kernel.unread(server) < self.limits.unread;
        if !possible {
            return Seen::Skipped;
        }
        self.takes_place = true;
        self.kernel.socket_mut(client).queue.clear();
        self.kernel.socket_mut(client).is_reset = false;
        let question = self.next(client, false);
        let answer = self.next(server, false);
        self.kernel.send(To::Peer, question).unwrap();
        let Seen::Got(mut got, _) = self.receive(server, Call::Packets, None) else {
            return Seen::Skipped;
        };
        got.push(packet(answer.number));
        Seen::Got(got, None)
    }

    fn send_until_room(&mut self, sender: Id, to: To) -> Seen {
        let receiver = self.kernel.receiver(sender, to);
        let Some(receiver) = receiver.ok().filter(|id| self.kernel.is_open(*id)) else {
            return Seen::Skipped;
        };
        let socket = self.kernel.socket(receiver);
        let role = self.role(receiver);
        let reads = role.is_some() || socket.peer == Some(sender);
        let own = socket.queue.iter();
        let own = own.filter(|datagram| datagram.sender == sender).count();
        // poll(2) reports room in the send buffer when a quarter is used (`unix_writable`).
        let room = 4 * (self.kernel.unread(sender) - own) <= self.limits.unread;
        let refused = self.reason(sender, to);
        let refused = matches!(refused, Err(refusal) if refusal != Refusal::QueueFull);
        let is_reset = self.kernel.socket(sender).is_reset;
        if !reads || !room || refused || is_reset || sender == receiver {
            return Seen::Skipped;
        }
        self.takes_place = true;
        self.receiver = role;
        let last = loop {
            let datagram = self.next(sender, false);
            let number = datagram.number;
            if self.kernel.send(to, datagram).is_err() {
                break number;
            }
        };
        self.last = last;
        let from = role.is_none().then_some(Name::Server);
        let Seen::Got(mut got, _) = self.receive(receiver, Call::Packets, from) else {
            return Seen::Skipped;
        };
        got.push(packet(last));
        Seen::Got(got, None)
    }
}

fn outcome(result: Result<(), Refusal>) -> Seen {
    match result {
        Ok(()) => Seen::Done,
        Err(refusal) => Seen::Failed(kind(refusal)),
    }
}

fn kind(refusal: Refusal) -> ErrorKind {
    match refusal {
        Refusal::QueueFull | Refusal::BufferFull => ErrorKind::TimedOut,
        Refusal::NobodyThere => ErrorKind::NobodyThere,
        Refusal::NotPermitted | Refusal::Reset => ErrorKind::System,
    }
}
