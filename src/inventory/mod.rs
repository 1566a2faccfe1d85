//! Lists Unix datagram sockets, with their owners and the state of their queues.
//!
//! The kernel lists the sockets (sock_diag(7)); /proc/PID/fd tells who holds them. What may not be
//! seen is absent: an ordinary user sees every socket, but of the processes only the own ones.
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

mod place;
mod queue;
mod waiting;

use crate::address::{Address, ToAddress};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::holder::{self, Holder, command, inode_bound_to, processes, socket_descriptors};
use crate::sock_diag::{UnixSocket, find, unix_sockets, unix_sockets_of};
use nix::libc;
use place::{Place, Probe};
use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
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

/// The target of the name of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// To the socket.
    Live,
    /// To nothing: the name is a socket file that no socket is bound to.
    Stale,
    /// To another file, which has taken the name.
    Shadowed,
    /// To nothing: the socket file was removed.
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
    /// The address that it is bound to, as it was bound. A relative pathname is made absolute if that
    /// leads to the socket.
    pub address: Address<'static>,
    /// The target of the address: for this process, or else for an owner, which may have another root or
    /// another working directory. `None` if that cannot be told, or if it is unnamed.
    pub state: Option<State>,
    /// True if the address leads this process to the socket; `None` if that is unknown.
    pub reachable: Option<bool>,
    /// The processes that hold it, as far as they may be seen.
    pub owners: Vec<Owner>,
    /// The address of the peer that it is connected to. `None` if it is not connected, or if the peer is
    /// closed or in another network namespace.
    pub peer: Option<Address<'static>>,
    /// The number of sockets that are connected to it and can send.
    pub clients: usize,
    /// True if anything is queued, as far as the kernel reports. [`Inventory::count_queue`] counts.
    pub queued: bool,
    /// True if a sender finds no room in the queue; `None` if that is unknown.
    pub full: Option<bool>,
    /// The number of threads that wait to send to it, as far as this process may see them.
    pub blocked: usize,
    /// The inode number of the socket, which /proc/PID/fd shows as `socket:[N]`.
    pub inode: u32,
}

/// The Unix datagram sockets of this network namespace at one moment.
#[derive(Debug)]
pub struct Inventory {
    sockets: HashMap<u32, UnixSocket>,
    /// The number of sockets that are connected to each.
    clients: HashMap<u32, usize>,
    owners: HashMap<u32, Vec<Owner>>,
    /// The number of threads that wait to send to each; counted on first use.
    blocked: OnceCell<HashMap<u32, usize>>,
    /// Tells how full queues are; `None` if no socket can be made.
    probe: Option<Probe>,
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
            clients: HashMap::new(),
            owners,
            blocked: OnceCell::new(),
            probe: Probe::new().ok(),
        };
        inventory.add(listed);
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
        let mut entries = self.entries(self.sockets.values().filter(same_name));
        for entry in &mut entries {
            if Some(entry.inode) == reached {
                entry.state = Some(State::Live);
                entry.reachable = Some(true);
                let probe = self.probe.as_ref().filter(|_| entry.full.is_none());
                entry.full = entry.full.or_else(|| probe?.is_full(address));
            }
        }
        if let Some(error) = error {
            let nobody = error.kind() == ErrorKind::NobodyThere;
            if nobody && address.as_path().is_some_and(is_socket_file) {
                entries.push(Entry::stale(address));
            } else if entries.is_empty() {
                return Err(error);
            }
            for entry in entries.iter_mut().filter(|_| nobody) {
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
    /// (`SO_PEEK_OFF`). An empty datagram that was peeked at before is not seen.
    ///
    /// Fails with [`ErrorKind::System`] if no process that holds it may be seen or traced
    /// (pidfd_getfd(2)), and with `EBUSY` if somebody peeks at offsets already.
    pub fn count_queue(&self, entry: &Entry) -> Result<usize> {
        let holders = entry.owners.iter().map(|owner| {
            Ok(Holder {
                pid: owner.pid,
                number: owner.fd,
            })
        });
        let subject = Subject::Address(entry.address.clone());
        let (socket, _) = holder::copy(holders, entry.inode, &subject)?;
        queue::count(&socket, subject)
    }

    fn add(&mut self, sockets: Vec<UnixSocket>) {
        for socket in sockets.into_iter().filter(UnixSocket::is_datagram) {
            if let Some(peer) = socket.peer.filter(|_| socket.can_send()) {
                *self.clients.entry(peer).or_default() += 1;
            }
            self.sockets.insert(socket.inode, socket);
        }
    }

    /// Makes sure that the socket with this inode number, which `address` leads to, is one of the list:
    /// it may be in another network namespace, even in one without a process.
    fn include(&mut self, inode: u32, address: &Address<'_>) {
        if self.sockets.contains_key(&inode) {
            return;
        }
        let owners = self.owners.get(&inode).map_or(&[][..], Vec::as_slice);
        let namespaces: BTreeSet<PathBuf> = owners
            .iter()
            .map(|owner| PathBuf::from(format!("/proc/{}/ns/net", owner.pid)))
            .collect();
        for namespace in namespaces {
            let sockets = unix_sockets_of(&namespace).unwrap_or_default();
            if let Some(socket) = sockets.iter().find(|socket| socket.inode == inode) {
                let is_client = |other: &&UnixSocket| other.peer == Some(inode) && other.can_send();
                let clients = sockets.iter().filter(is_client);
                *self.clients.entry(inode).or_default() += clients.count();
                self.sockets.insert(inode, socket.clone());
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
        self.sockets.insert(inode, socket);
    }

    fn entries<'s>(&self, sockets: impl Iterator<Item = &'s UnixSocket>) -> Vec<Entry> {
        let mut entries: Vec<Entry> = sockets.map(|socket| self.entry(socket)).collect();
        entries.sort_by_cached_key(|entry| (entry.rank(), entry.address.to_string(), entry.inode));
        entries
    }

    fn entry(&self, socket: &UnixSocket) -> Entry {
        let name = socket.address().unwrap_or(Address::Unnamed);
        let owners = self.owners_of(socket).to_vec();
        let place = Place::of(&name, socket, &owners, self.probe.as_ref());
        // Only the peer of a connected socket may send to it, and finds room whatever is queued
        // (`unix_dgram_sendmsg`).
        let full = match (socket.peer, place.state, &self.probe) {
            (Some(_), ..) => Some(false),
            (None, Some(State::Live), Some(probe)) => probe.is_full(&place.reached),
            _ => None,
        };
        let queued = socket.queued > 0 || full == Some(true);
        let blocked = if queued {
            let blocked = self.blocked.get_or_init(|| self.blocked());
            blocked.get(&socket.inode).copied().unwrap_or(0)
        } else {
            0
        };
        let peer = socket.peer.and_then(|peer| self.sockets.get(&peer));
        Entry {
            address: place.address,
            state: place.state,
            reachable: place.reachable,
            owners,
            peer: peer.map(|peer| peer.address().unwrap_or(Address::Unnamed)),
            clients: self.clients.get(&socket.inode).copied().unwrap_or(0),
            queued,
            full,
            blocked,
            inode: socket.inode,
        }
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
                Target::PeerOf(sender) => self.sockets.get(&sender).and_then(|socket| socket.peer),
                Target::Address(address) => {
                    find(self.sockets.values(), &address).map(|socket| socket.inode)
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
            state: Some(State::Stale),
            reachable: Some(false),
            owners: Vec::new(),
            peer: None,
            clients: 0,
            queued: false,
            full: None,
            blocked: 0,
            inode: 0,
        }
    }

    /// Returns how far down the list it stands: trouble comes first.
    fn rank(&self) -> u8 {
        match self.state {
            _ if self.blocked > 0 => 0,
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

/// Returns the absolute form of an address; symbolic links stay.
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

/// Finds which process holds which socket, but for those of `others`.
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
                // This folder belongs to the effective user, whatever its files do (proc(5)).
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
