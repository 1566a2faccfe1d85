//! Lists the Unix datagram sockets, the processes that hold them, and how full their queues are.
//!
//! The kernel lists the sockets (sock_diag(7)), and /proc/PID/fd has the processes that hold them. What this
//! process may not see is absent: an ordinary user sees all sockets, but only its own processes.
//!
//! ```no_run
//! use udgram::inventory::Inventory;
//!
//! for entry in Inventory::read()?.named() {
//!     if entry.full == Some(true) {
//!         println!("{} is full: {:?}", entry.address, entry.owners);
//!     }
//! }
//! # Ok::<(), udgram::Error>(())
//! ```

mod mounts;
mod place;
mod queue;
mod root;
mod waiting;

use crate::address::{Address, ToAddress};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::holder::{self, Holder, command, inode_bound_to, processes, socket_descriptors};
use crate::sock_diag::{UnixSocket, find, find_by_file, unix_sockets, unix_sockets_of};
use nix::libc;
use place::{Place, Probe};
use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use waiting::{Target, waiting_senders};

/// A process that holds a socket, and the descriptor that it holds it by.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Owner {
    /// The process.
    pub pid: i32,
    /// The name of its command, of at most 15 bytes (/proc/PID/comm).
    pub comm: String,
    /// The number of the descriptor there.
    pub fd: RawFd,
    /// The effective user of the process.
    pub uid: u32,
}

/// The state of the name of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// The name leads to the socket.
    Live,
    /// The name leads to a socket file that no socket is bound to.
    Stale,
    /// The name leads to another file.
    Shadowed,
    /// The name leads to nothing: the socket file was removed or renamed.
    Removed,
}

impl State {
    /// Returns the word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Shadowed => "shadowed",
            Self::Removed => "removed",
        }
    }
}

/// A datagram socket, or a socket file without one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry {
    /// The address that leads to the socket, if there is one: the name that it is bound to, with a relative
    /// pathname made absolute, or the pathname by which [`Inventory::at`] found it. Otherwise the name that
    /// it is bound to.
    pub address: Address<'static>,
    /// The name that it is bound to, if `address` is another one, because the socket file was renamed or has
    /// several names.
    pub bound: Option<Address<'static>>,
    /// The target of the address: for this process, or else for an owner, which may have another root
    /// directory. `None` if that is unknown, or if the socket is unnamed.
    pub state: Option<State>,
    /// The root directory of the owner, such as `/proc/812/root`, below which `address` leads to the
    /// socket. `None` if it leads there for this process, too, or not at all.
    pub root: Option<PathBuf>,
    /// True if the address leads this process to the socket; `None` if that is unknown.
    pub reachable: Option<bool>,
    /// The processes that hold it, as far as this process may see them.
    pub owners: Vec<Owner>,
    /// The address of the peer that it is connected to. `None` if it is not connected, or if the peer is
    /// closed or in another network namespace.
    pub peer: Option<Address<'static>>,
    /// The number of sockets that are connected to it and can send. `None` if it is in a network namespace
    /// that this process cannot list.
    pub clients: Option<usize>,
    /// True if at least one datagram is queued. False if that is unknown: the kernel reports the size of the
    /// first datagram, which is 0 for an empty one, too. [`Inventory::count_queue`] counts.
    pub queued: bool,
    /// True if a sender finds no space in the queue; `None` if that is unknown.
    pub full: Option<bool>,
    /// The number of threads that wait to send to it, as far as this process may see them. `None` if it is in
    /// a network namespace that this process cannot list.
    pub blocked: Option<usize>,
    /// The inode number of the socket, which /proc/PID/fd shows as `socket:[N]`.
    pub inode: u32,
}

/// The Unix datagram sockets of this network namespace at one moment.
#[derive(Debug)]
pub struct Inventory {
    sockets: HashMap<u32, UnixSocket>,
    /// The sockets of other network namespaces that [`at`](Self::at) has found one in.
    elsewhere: HashMap<u32, UnixSocket>,
    /// Those of `elsewhere` of which only the name is known.
    unlisted: HashSet<u32>,
    /// The number of sockets that are connected to each.
    clients: HashMap<u32, usize>,
    owners: HashMap<u32, Vec<Owner>>,
    /// The number of threads that wait to send to each; counted on first use.
    blocked: OnceCell<HashMap<u32, usize>>,
    /// Finds out which queues are full; `None` if no socket can be made.
    probe: Option<Probe>,
    /// The devices of file systems on which a lookup by this process may wait for a server.
    remote: BTreeSet<u32>,
}

impl Inventory {
    /// Reads the kernel's list of sockets, and which processes hold them.
    pub fn read() -> Result<Self> {
        let listed = unix_sockets()
            .map_err(|errno| Error::system("list the sockets", Subject::None, errno))?;
        let others = listed.iter().filter(|socket| !socket.is_datagram());
        let owners = owners(&others.map(|socket| socket.inode).collect());
        let mut inventory = Self {
            sockets: HashMap::new(),
            elsewhere: HashMap::new(),
            unlisted: HashSet::new(),
            clients: HashMap::new(),
            owners,
            blocked: OnceCell::new(),
            probe: Probe::new().ok(),
            remote: mounts::remote_devices(Path::new("/proc/self")),
        };
        inventory.count_clients(&listed);
        inventory.sockets = by_inode(listed);
        Ok(inventory)
    }

    /// Returns the datagram sockets that have a name, those in trouble first.
    #[must_use]
    pub fn named(&self) -> Vec<Entry> {
        self.entries(self.sockets.values().filter(|socket| socket.name.is_some()))
    }

    /// Returns all datagram sockets, those in trouble first.
    #[must_use]
    pub fn all(&self) -> Vec<Entry> {
        self.entries(self.sockets.values())
    }

    /// Returns the sockets that have the name `address`, first the one that it leads to: also one of
    /// another network namespace. A socket file that no socket is bound to is an entry, too.
    ///
    /// Fails with [`ErrorKind::NobodyThere`] if there is nothing of this name, and as
    /// [`DatagramSocket::connect`](crate::DatagramSocket::connect) does if it is something else than a datagram socket.
    pub fn at(&mut self, address: impl ToAddress) -> Result<Vec<Entry>> {
        let address = &address.to_address()?;
        let (reached, error) = match inode_bound_to(address) {
            Ok(inode) => (Some(inode), None),
            Err(error) => (None, Some(error)),
        };
        if let Some(inode) = reached {
            self.include(inode, address);
        }
        let name = absolute(address);
        let same_name = |socket: &&UnixSocket| {
            Some(socket.inode) == reached
                || socket.address().is_some_and(|bound| {
                    bound == name || self.absolute_name(socket, &bound).as_ref() == Some(&name)
                })
        };
        let found = reached.and_then(|inode| self.elsewhere.get(&inode));
        let found = self.sockets.values().chain(found);
        let mut entries = self.entries(found.filter(same_name));
        for entry in entries.iter_mut().filter(|e| Some(e.inode) == reached) {
            if entry.reachable != Some(true) {
                entry.reach(&name);
            }
            let probe = self.probe.as_ref().filter(|_| entry.full.is_none());
            entry.full = entry.full.or_else(|| probe?.is_full(address));
            entry.queued |= entry.full == Some(true);
        }
        if let Some(error) = error {
            let is_missing = error.kind() == ErrorKind::NobodyThere;
            if is_missing && address.as_path().is_some_and(is_socket_file) {
                entries.push(Entry::stale(address));
            } else if entries.is_empty() {
                return Err(error);
            }
            for entry in entries.iter_mut().filter(|_| is_missing) {
                entry.reachable = Some(false);
            }
        }
        entries.sort_by_key(|entry| {
            (
                Some(entry.inode) != reached,
                entry.state != Some(State::Live),
            )
        });
        Ok(entries)
    }

    /// Counts the datagrams in the queue of a socket, by peeking at each in a copy of the socket
    /// (`SO_PEEK_OFF`). An empty datagram that was peeked at before is not counted: the kernel shows it
    /// once.
    ///
    /// Fails with [`ErrorKind::System`] if this process may not see or trace a process that holds it
    /// (pidfd_getfd(2)). The error number is `EBUSY` if a process peeks at it already, or if it has a
    /// pending error, which peeking would take from its owner.
    pub fn count_queue(&self, entry: &Entry) -> Result<usize> {
        let holders = entry.owners.iter().map(|owner| {
            Ok(Holder {
                pid: owner.pid,
                number: owner.fd,
            })
        });
        let subject = Subject::Address(entry.address.clone());
        let (socket, _) = holder::copy(holders, entry.inode, &subject)?;
        queue::count(&socket, &subject)
    }

    fn count_clients(&mut self, sockets: &[UnixSocket]) {
        let senders = sockets
            .iter()
            .filter(|socket| socket.is_datagram() && socket.can_send());
        for peer in senders.filter_map(|socket| socket.peer) {
            *self.clients.entry(peer).or_default() += 1;
        }
    }

    /// Adds the socket with this inode number, which `address` leads to, and all of its network namespace,
    /// unless they are known. Without CAP_SYS_ADMIN, or if no process is in that namespace, only its name
    /// is known.
    fn include(&mut self, inode: u32, address: &Address<'_>) {
        if self.sockets.contains_key(&inode) || self.elsewhere.contains_key(&inode) {
            return;
        }
        // The sockets of this namespace may be connected to those of the other one.
        self.blocked = OnceCell::new();
        let owners = self.owners.get(&inode).map_or(&[][..], Vec::as_slice);
        let namespaces: BTreeSet<PathBuf> = owners
            .iter()
            .filter_map(|owner| {
                let link = PathBuf::from(format!("/proc/{}/ns/net", owner.pid));
                // One link for each namespace.
                Some((fs::read_link(&link).ok()?, link))
            })
            .collect::<HashMap<_, _>>()
            .into_values()
            .collect();
        for namespace in namespaces {
            let sockets = unix_sockets_of(&namespace).unwrap_or_default();
            if sockets.iter().any(|socket| socket.inode == inode) {
                self.count_clients(&sockets);
                self.elsewhere.extend(by_inode(sockets));
                return;
            }
        }
        let name = match absolute(address) {
            Address::Pathname(path) => Some(path.into_owned()),
            Address::Abstract(name) => Some([b"\0", name.as_ref()].concat()),
            Address::Unnamed => None,
        };
        let socket = UnixSocket {
            inode,
            kind: libc::SOCK_DGRAM,
            name,
            ..UnixSocket::default()
        };
        self.elsewhere.insert(inode, socket);
        self.unlisted.insert(inode);
    }

    fn entries<'s>(&self, sockets: impl Iterator<Item = &'s UnixSocket>) -> Vec<Entry> {
        let mut entries: Vec<Entry> = sockets.map(|socket| self.entry(socket)).collect();
        entries.sort_by_cached_key(|entry| (entry.rank(), entry.address.to_string(), entry.inode));
        entries
    }

    fn entry(&self, socket: &UnixSocket) -> Entry {
        let name = socket.address().unwrap_or(Address::Unnamed);
        let owners = self.owners_of(socket).to_vec();
        let is_remote = (socket.device).is_some_and(|device| self.remote.contains(&device));
        let place = if is_remote {
            Place::unknown(&name)
        } else {
            Place::of(&name, socket, &owners, self.probe.as_ref())
        };
        // Only its peer may send to a connected socket, and always finds space (`unix_dgram_sendmsg`).
        let full = match (socket.peer, place.state, &self.probe) {
            (Some(_), ..) => Some(false),
            (None, Some(State::Live), Some(probe)) => probe.is_full(&place.reached()),
            _ => None,
        };
        let blocked = self.blocked.get_or_init(|| self.blocked());
        let blocked = blocked.get(&socket.inode).copied().unwrap_or(0);
        let is_listed = !self.unlisted.contains(&socket.inode);
        let clients = self.clients.get(&socket.inode).copied().unwrap_or(0);
        let peer = socket.peer.and_then(|peer| self.socket(peer));
        Entry {
            address: place.address,
            bound: None,
            state: place.state,
            root: place.root,
            reachable: place.reachable,
            owners,
            peer: peer.map(|peer| peer.address().unwrap_or(Address::Unnamed)),
            clients: is_listed.then_some(clients),
            queued: socket.queued > 0 || full == Some(true) || blocked > 0,
            full,
            blocked: is_listed.then_some(blocked),
            inode: socket.inode,
        }
    }

    /// Returns a socket of this network namespace, or of another one that is known.
    fn socket(&self, inode: u32) -> Option<&UnixSocket> {
        let own = self.sockets.get(&inode);
        own.or_else(|| self.elsewhere.get(&inode))
    }

    fn owners_of(&self, socket: &UnixSocket) -> &[Owner] {
        self.owners.get(&socket.inode).map_or(&[], Vec::as_slice)
    }

    /// Returns the absolute form of a relative name, by the working directory of an owner.
    fn absolute_name(&self, socket: &UnixSocket, name: &Address<'_>) -> Option<Address<'static>> {
        let path = name.as_path().filter(|path| !path.is_absolute())?;
        let owner = self.owners_of(socket).first()?;
        let directory = fs::read_link(format!("/proc/{}/cwd", owner.pid)).ok()?;
        Some(pathname(&directory.join(path)))
    }

    /// Counts the threads that wait to send, by the socket that they wait for.
    fn blocked(&self) -> HashMap<u32, usize> {
        let owners = self.owners.values().flatten();
        let processes: BTreeSet<i32> = owners.map(|owner| owner.pid).collect();
        let mut blocked = HashMap::new();
        for target in processes.into_iter().flat_map(waiting_senders) {
            let inode = match target {
                Target::PeerOf(sender) => self.socket(sender).and_then(|socket| socket.peer),
                Target::Abstract(address) => {
                    find(self.sockets.values(), &address).map(|socket| socket.inode)
                }
                Target::File(file) => {
                    let sockets = self.sockets.values().chain(self.elsewhere.values());
                    find_by_file(sockets, &file).map(|socket| socket.inode)
                }
            };
            if let Some(inode) = inode {
                *blocked.entry(inode).or_default() += 1;
            }
        }
        blocked
    }
}

impl Entry {
    fn stale(address: &Address<'_>) -> Self {
        Self {
            address: absolute(address),
            bound: None,
            root: None,
            state: Some(State::Stale),
            reachable: Some(false),
            owners: Vec::new(),
            peer: None,
            clients: None,
            queued: false,
            full: None,
            blocked: None,
            inode: 0,
        }
    }

    /// Notes that `address` leads this process to the socket.
    fn reach(&mut self, address: &Address<'static>) {
        let bound = std::mem::replace(&mut self.address, address.clone());
        self.bound = Some(bound).filter(|bound| bound != address && *bound != Address::Unnamed);
        self.state = Some(State::Live);
        self.root = None;
        self.reachable = Some(true);
    }

    /// Returns its position in the list: sockets in trouble come first.
    fn rank(&self) -> u8 {
        match self.state {
            _ if self.blocked > Some(0) => 0,
            _ if self.full == Some(true) => 1,
            Some(State::Shadowed | State::Removed | State::Stale) => 2,
            _ if self.queued => 3,
            _ if self.address != Address::Unnamed => 4,
            _ => 5,
        }
    }
}

fn pathname(path: &Path) -> Address<'static> {
    Address::Pathname(path.as_os_str().as_bytes().to_vec().into())
}

/// Returns the absolute form of an address. Does not resolve symbolic links.
fn absolute(address: &Address<'_>) -> Address<'static> {
    let path = address.as_path().map(std::path::absolute);
    match path {
        Some(Ok(path)) => pathname(&path),
        _ => address.clone().into_owned(),
    }
}

fn is_socket_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

/// Returns the datagram sockets by their inode numbers.
fn by_inode(sockets: Vec<UnixSocket>) -> HashMap<u32, UnixSocket> {
    let datagrams = sockets.into_iter().filter(UnixSocket::is_datagram);
    datagrams.map(|socket| (socket.inode, socket)).collect()
}

/// Finds the processes that hold each socket, except those of `others`.
fn owners(others: &BTreeSet<u32>) -> HashMap<u32, Vec<Owner>> {
    let mut owners: HashMap<u32, Vec<Owner>> = HashMap::new();
    for pid in processes() {
        let descriptors = socket_descriptors(pid).unwrap_or_default();
        let mut about = None;
        for (fd, inode) in descriptors {
            if others.contains(&inode) {
                continue;
            }
            let (comm, uid) = about.get_or_insert_with(|| {
                // This folder belongs to the effective user even if its files belong to root (proc(5)).
                let process = fs::metadata(format!("/proc/{pid}"));
                (
                    command(pid),
                    process.map_or(u32::MAX, |process| process.uid()),
                )
            });
            owners.entry(inode).or_default().push(Owner {
                pid,
                comm: comm.clone(),
                fd,
                uid: *uid,
            });
        }
    }
    owners
}
