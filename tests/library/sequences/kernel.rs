//! A model of Unix datagram sockets as `net/unix/af_unix.c` of Linux implements them.

use std::collections::{BTreeMap, VecDeque};

/// The number of a socket. A closed socket keeps its number.
pub(crate) type Id = usize;

/// The names in the directory of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    Client,
    Server,
    Stranger,
    /// The name that the file of a server gets when it is renamed.
    Moved,
}

#[derive(Debug, Clone)]
pub(crate) struct Datagram {
    pub(crate) number: u32,
    pub(crate) sender: Id,
    pub(crate) from: Name,
    pub(crate) has_descriptor: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Socket {
    /// The name that it was bound with.
    pub(crate) name: Name,
    /// The socket that it is connected to, which may be closed.
    pub(crate) peer: Option<Id>,
    pub(crate) queue: VecDeque<Datagram>,
    pub(crate) is_shut_down: bool,
    /// The next system call fails with ECONNRESET, once.
    pub(crate) is_reset: bool,
}

/// The limits of this system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The number of datagrams that a queue holds.
    pub(crate) queued: usize,
    /// The number of unread datagrams that a send buffer holds.
    pub(crate) unread: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// The socket that the sender is connected to.
    Peer,
    Name(Name),
}

/// The reason why a system call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// EAGAIN because of the queue of the receiver.
    QueueFull,
    /// EAGAIN because of the send buffer of the sender.
    BufferFull,
    /// ENOENT, ECONNREFUSED, ENOTCONN or EPIPE.
    NobodyThere,
    /// EPERM: the receiver is connected to another socket.
    NotPermitted,
    /// ECONNRESET: the peer has connected elsewhere.
    Reset,
}

#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    sockets: BTreeMap<Id, Socket>,
    /// The socket that each file belongs to. If it is closed, the file is stale.
    files: BTreeMap<Name, Id>,
    next: Id,
    limits: Limits,
}

impl Kernel {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            sockets: BTreeMap::new(),
            files: BTreeMap::new(),
            next: 0,
            limits,
        }
    }

    pub(crate) fn socket(&self, id: Id) -> &Socket {
        &self.sockets[&id]
    }

    pub(crate) fn socket_mut(&mut self, id: Id) -> &mut Socket {
        self.sockets.get_mut(&id).unwrap()
    }

    pub(crate) fn is_open(&self, id: Id) -> bool {
        self.sockets.contains_key(&id)
    }

    pub(crate) fn has_file(&self, name: Name) -> bool {
        self.files.contains_key(&name)
    }

    /// Makes a socket that is bound to `name`, whose file it replaces.
    pub(crate) fn bind(&mut self, name: Name, peer: Option<Id>) -> Id {
        let id = self.next;
        self.next += 1;
        let socket = Socket {
            name,
            peer,
            queue: VecDeque::new(),
            is_shut_down: false,
            is_reset: false,
        };
        self.sockets.insert(id, socket);
        self.files.insert(name, id);
        id
    }

    /// Closes a socket. Its file stays.
    pub(crate) fn close(&mut self, id: Id) {
        self.sockets.remove(&id);
    }

    /// Removes the file that a socket was bound with, if it is still that of the socket.
    pub(crate) fn remove_file(&mut self, id: Id, name: Name) {
        if self.files.get(&name) == Some(&id) {
            self.files.remove(&name);
        }
    }

    pub(crate) fn rename(&mut self, from: Name, to: Name) {
        if let Some(id) = self.files.remove(&from) {
            self.files.insert(to, id);
        }
    }

    /// Returns the open socket that a name leads to.
    pub(crate) fn find(&self, name: Name) -> Result<Id, Refusal> {
        let id = self.files.get(&name).copied();
        id.filter(|id| self.is_open(*id))
            .ok_or(Refusal::NobodyThere)
    }

    /// Returns whether `sender` may send and connect to `receiver` (`unix_may_send`).
    pub(crate) fn may_send(&self, sender: Id, receiver: Id) -> bool {
        let peer = self.socket(receiver).peer;
        peer.is_none_or(|peer| peer == sender)
    }

    /// Returns how many datagrams of `sender` are unread.
    pub(crate) fn unread(&self, sender: Id) -> usize {
        let queues = self.sockets.values().map(|socket| &socket.queue);
        queues
            .flatten()
            .filter(|datagram| datagram.sender == sender)
            .count()
    }

    /// Connects a socket.
    pub(crate) fn connect(&mut self, id: Id, name: Name) -> Result<(), Refusal> {
        let other = self.find(name)?;
        if !self.may_send(id, other) {
            return Err(Refusal::NotPermitted);
        }
        let previous = self.socket_mut(id).peer.replace(other);
        if let Some(previous) = previous.filter(|previous| *previous != other) {
            self.disconnected(id, previous);
        }
        Ok(())
    }

    /// Drops the queue of a socket that was connected to `previous`, which is notified if it was connected
    /// to this socket (`unix_dgram_disconnected`).
    fn disconnected(&mut self, id: Id, previous: Id) {
        let queue = std::mem::take(&mut self.socket_mut(id).queue);
        let previous = self.sockets.get_mut(&previous);
        if let Some(previous) = previous.filter(|previous| previous.peer == Some(id)) {
            previous.is_reset |= !queue.is_empty();
        }
    }

    /// Sends a datagram. If the connected peer is closed, disconnects the sender, whose queue is lost.
    pub(crate) fn send(&mut self, to: To, datagram: Datagram) -> Result<(), Refusal> {
        let sender = datagram.sender;
        if std::mem::take(&mut self.socket_mut(sender).is_reset) && to == To::Peer {
            return Err(Refusal::Reset);
        }
        if self.unread(sender) >= self.limits.unread {
            return Err(Refusal::BufferFull);
        }
        let receiver = self.receiver(sender, to)?;
        if !self.is_open(receiver) {
            if self.socket(sender).peer == Some(receiver) {
                self.socket_mut(sender).peer = None;
                self.disconnected(sender, receiver);
            }
            return Err(Refusal::NobodyThere);
        }
        self.admit(sender, receiver)?;
        self.socket_mut(receiver).queue.push_back(datagram);
        Ok(())
    }

    /// Returns the socket that a datagram goes to.
    pub(crate) fn receiver(&self, sender: Id, to: To) -> Result<Id, Refusal> {
        match to {
            To::Peer => self.socket(sender).peer.ok_or(Refusal::NobodyThere),
            To::Name(name) => self.find(name),
        }
    }

    /// Fails unless an open receiver takes a datagram of `sender`.
    pub(crate) fn admit(&self, sender: Id, receiver: Id) -> Result<(), Refusal> {
        let socket = self.socket(receiver);
        if !self.may_send(sender, receiver) {
            return Err(Refusal::NotPermitted);
        }
        if socket.is_shut_down {
            return Err(Refusal::NobodyThere);
        }
        // The queue has no limit for the socket that the receiver is connected to, and for itself.
        let is_limited = receiver != sender && socket.peer != Some(sender);
        if is_limited && socket.queue.len() >= self.limits.queued {
            return Err(Refusal::QueueFull);
        }
        Ok(())
    }

    /// Returns whether a datagram with a descriptor is in a queue.
    pub(crate) fn holds_descriptor(&self, number: u32) -> bool {
        let mut queues = self.sockets.values().map(|socket| &socket.queue);
        queues.any(|queue| {
            let mut datagrams = queue.iter();
            datagrams.any(|datagram| datagram.number == number && datagram.has_descriptor)
        })
    }
}
