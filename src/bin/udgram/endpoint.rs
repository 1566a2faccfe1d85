//! Opens the socket that a command line asks for: makes, binds and connects a new one, or uses an
//! inherited one. Undoes the changes when the command ends.

use crate::cli::setting::Setting;
use crate::cli::{Inherited, Receive, SocketFile};
use crate::exit::{Exit, Failure};
use crate::inherited::{InheritedSocket, OpenedCopy};
use crate::report::Report;
use anyhow::{Context, Result};
use nix::libc::{self, c_int};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use udgram::wait::{Deadline, Wake};
use udgram::{
    Address, BindOptions, Binding, DatagramSocket, Destination, Error, ErrorKind, Occupied,
    PeerName, PeerWatch, bind, may_become_reachable, sockopt,
};

// From asm-generic/socket.h; libc defines them for some targets only.
const SO_TIMESTAMP_NEW: c_int = 63;
const SO_TIMESTAMPNS_NEW: c_int = 64;

/// The socket that a command line asks for.
#[derive(Debug)]
pub(crate) struct Request<'r> {
    pub(crate) source: Source<'r>,
    /// The peer to connect to.
    pub(crate) connect: Option<Connect<'r>>,
    /// `--sockopt`, as written.
    pub(crate) settings: &'r [String],
    pub(crate) file: &'r SocketFile,
    /// The limit of the queue of a new socket, which holds one datagram more (`--queue`).
    pub(crate) queue: Option<u32>,
    /// The options of `SOL_SOCKET` that the command needs; they must be on before the first datagram.
    pub(crate) needs: &'r [c_int],
    pub(crate) purpose: Purpose,
}

/// The use that a command makes of the packets in the socket's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The command receives them.
    Take,
    /// The command sends, and receives them while it waits for answers.
    Answers,
    /// They stay in the queue.
    Leave,
}

/// A peer to connect to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connect<'r> {
    pub(crate) peer: &'r Address<'static>,
    pub(crate) absent: Absent<'r>,
}

/// The treatment of a peer that does not exist.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Absent<'r> {
    /// Fail at once.
    Fail,
    /// Wait for it, for so long, or until something ends the wait.
    Wait(Option<Duration>, Wake<'r>),
    /// Leave the socket unconnected. Each send tries to connect it.
    Ignore,
}

impl<'r> Connect<'r> {
    /// Returns the request to connect at once, or to fail if the peer does not exist.
    pub(crate) fn now(peer: &'r Address<'static>) -> Self {
        Self {
            peer,
            absent: Absent::Fail,
        }
    }
}

impl<'r> Request<'r> {
    /// Returns the request of a command that receives; it binds `address`, if one is given.
    pub(crate) fn to_receive(
        address: Option<&'r Address<'static>>,
        receive: &'r Receive,
        needs: &'r [c_int],
    ) -> Result<Self> {
        let connect = receive.connect.as_ref();
        Ok(Self {
            source: Source::of(
                address,
                connect.is_some(),
                &receive.socket.inherited,
                "ADDR",
            )?,
            connect: connect.map(Connect::now),
            settings: &receive.socket.sockopt,
            file: &receive.file,
            queue: None,
            needs,
            purpose: Purpose::Take,
        })
    }

    /// Returns the request of a command that looks into the queue of the socket which is bound to
    /// `address`.
    pub(crate) fn to_peek(address: &'r Address<'static>, receive: &'r Receive) -> Result<Self> {
        if receive.socket.inherited.socket_fd.is_some() {
            return Err(Failure::usage("ADDR and --socket-fd exclude each other"));
        }
        Ok(Self {
            source: Source::Inherited(InheritedSocket::bound(address)),
            connect: receive.connect.as_ref().map(Connect::now),
            settings: &receive.socket.sockopt,
            file: &receive.file,
            queue: None,
            needs: &[],
            purpose: Purpose::Leave,
        })
    }
}

/// The source of the socket.
#[derive(Debug, Clone)]
pub(crate) enum Source<'r> {
    /// A new socket, bound to this address.
    Bound(&'r Address<'static>),
    /// A new socket, bound to an abstract name that the kernel chooses.
    Autobound,
    /// A socket that is open already.
    Inherited(InheritedSocket),
}

impl<'r> Source<'r> {
    /// Returns the source for a command that binds `address`, if one is given. `connected` says whether
    /// the command has a peer to connect to, and `argument` is what the command is given an address by.
    pub(crate) fn of(
        address: Option<&'r Address<'static>>,
        connected: bool,
        named: &Inherited,
        argument: &str,
    ) -> Result<Self> {
        match (address, &named.socket_fd) {
            (Some(_), Some(_)) => Err(Failure::usage(
                "an address to bind and --socket-fd exclude each other",
            )),
            (Some(address), None) => Ok(Self::Bound(address)),
            (None, Some(socket)) => Ok(Self::Inherited(InheritedSocket::named(socket)?)),
            // Connecting the environment's socket would send all its users to this peer.
            (None, None) if connected => Ok(Self::Autobound),
            (None, None) => match InheritedSocket::from_environment()? {
                Some(socket) => Ok(Self::Inherited(socket)),
                None => Err(Failure::usage(format!(
                    "{argument} is missing, and there is no --socket-fd, UDGRAM_SOCKET_FD or socket activation in its place",
                ))),
            },
        }
    }
}

/// The origin of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This command made it.
    New,
    /// It was open before; other processes may share it.
    Inherited,
}

/// An open socket.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) socket: DatagramSocket,
    /// Undoes the changes on drop.
    pub(crate) cleanup: Cleanup,
    /// The peer that it is connected to.
    pub(crate) peer: Option<Destination>,
    pub(crate) opened: Opened,
}

/// Facts about an open socket that a receiver needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) origin: Origin,
    /// The only peer whose datagrams are accepted; `None`: any.
    pub(crate) only_from: Option<PeerName>,
    /// True if every queued datagram has its time of arrival, if the command needs it.
    pub(crate) stamped: bool,
}

impl Opened {
    /// The facts about a socket that was made with everything that the command needs.
    pub(crate) const NEW: Self = Self {
        origin: Origin::New,
        only_from: None,
        stamped: true,
    };
}

/// The changes that opening a socket made. On drop, removes the socket file and restores the options of
/// an inherited socket, which other processes may share.
#[derive(Debug, Default)]
pub(crate) struct Cleanup {
    binding: Option<Binding>,
    /// A copy of the socket, and its options with their former values.
    options: Option<(OwnedFd, Vec<(c_int, c_int)>)>,
}

impl Cleanup {
    /// Returns the socket file; it is removed when the result is dropped.
    pub(crate) fn take_binding(&mut self) -> Option<Binding> {
        self.binding.take()
    }

    /// Sets an option of `SOL_SOCKET` until drop.
    pub(crate) fn set(
        &mut self,
        socket: &DatagramSocket,
        option: c_int,
        value: c_int,
    ) -> Result<()> {
        let before = (option, sockopt::get_int(socket, option)?);
        if self.options.is_none() {
            let copy = socket.as_fd().try_clone_to_owned();
            self.options = Some((copy.context("cannot copy the socket")?, Vec::new()));
        }
        sockopt::set_int(socket, option, value)?;
        if let Some((_, options)) = &mut self.options {
            options.push(before);
        }
        Ok(())
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let Some((socket, before)) = self.options.take() else {
            return;
        };
        for (option, value) in before {
            // Setting it has succeeded before, and drop cannot return an error.
            let _ = sockopt::set_int(&socket, option, value);
        }
    }
}

impl Endpoint {
    /// Opens the socket. Block the signals that end the process first, or they end it without the
    /// cleanup.
    pub(crate) fn open(request: &Request<'_>, report: Report) -> Result<Self> {
        let settings = request
            .settings
            .iter()
            .map(|written| Setting::parse(written))
            .collect::<udgram::Result<Vec<_>>>()?;
        let endpoint = match &request.source {
            Source::Inherited(inherited) => Self::inherit(inherited, request, &settings, report)?,
            Source::Bound(address) => Self::make(Some(address), request, &settings, report)?,
            Source::Autobound => Self::make(None, request, &settings, report)?,
        };
        endpoint.describe(report);
        Ok(endpoint)
    }

    /// Makes a socket. Connects it before it has a name: no other process can send to it in between.
    fn make(
        address: Option<&Address<'_>>,
        request: &Request<'_>,
        settings: &[Setting],
        report: Report,
    ) -> Result<Self> {
        let socket = match request.queue {
            Some(limit) => DatagramSocket::with_queue(limit)?,
            None => DatagramSocket::new()?,
        };
        let mut connection = Connection::begin(&socket, request.connect)?;
        if address.is_some_and(|address| *address != Address::Unnamed) {
            connection.park(&socket)?;
        } else {
            connection.finish(&socket)?;
        }
        // Set SO_PASSCRED after connect(2), which autobinds a socket that has it set
        // (`unix_dgram_connect`).
        let mut stamped = true;
        for option in request.needs {
            stamped &= switch_on(&socket, *option, report)?;
        }
        for setting in settings {
            sockopt::set(&socket, &setting.option, &setting.value)?;
        }
        let binding = if let Some(address) = address {
            bind(&socket, address, bind_options(request.file))?
        } else {
            socket.autobind()?;
            None
        };
        // The binding removes the file again if the connection fails.
        connection.finish(&socket)?;
        Ok(Self {
            socket,
            cleanup: Cleanup {
                binding,
                options: None,
            },
            opened: Opened {
                origin: Origin::New,
                only_from: connection.peer_name(),
                stamped,
            },
            peer: connection.destination,
        })
    }

    /// Uses an open socket.
    fn inherit(
        inherited: &InheritedSocket,
        request: &Request<'_>,
        settings: &[Setting],
        report: Report,
    ) -> Result<Self> {
        let OpenedCopy { socket, of } = inherited.open(report)?;
        if let (Some(pid), Purpose::Take | Purpose::Answers) = (of, request.purpose) {
            report.warning(format_args!(
                "packets taken from the socket of process {pid} are gone for it; iter --peek and listen --peek leave them"
            ));
        }
        let mut connection = Connection::begin(&socket, request.connect)?;
        connection.finish(&socket)?;
        let mut only_from = connection.peer_name();
        let mut peer = connection.destination;
        if peer.is_none() {
            peer = inherited.destination(&socket, of)?;
            if let Some(peer) = peer.as_mut().filter(|_| inherited.session_peer().is_some()) {
                // The kernel has disconnected the socket, so any process can send to it. Connect it
                // again before receiving.
                if peer.peer_name().is_none() && request.purpose == Purpose::Take {
                    socket.establish(peer)?;
                }
                only_from = peer.peer_name();
            }
        }
        let mut cleanup = Cleanup::default();
        let mut stamped = true;
        for option in request.needs {
            stamped &= cleanup.switch_on(&socket, *option, report)?;
        }
        for setting in settings {
            sockopt::set(&socket, &setting.option, &setting.value)?;
        }
        Ok(Self {
            socket,
            cleanup,
            peer,
            opened: Opened {
                origin: Origin::Inherited,
                only_from,
                stamped,
            },
        })
    }

    /// Prints the addresses with `--verbose`.
    fn describe(&self, report: Report) {
        if !report.is_verbose() {
            return;
        }
        if let Ok(address) = self.socket.local_address() {
            report.note(format_args!("the local address is {}", address.quoted()));
        }
        if let Some(peer) = &self.peer {
            report.note(format_args!("the peer is {}", peer.address().quoted()));
        }
    }
}

/// A connection that is being made, before or after the socket has a name.
struct Connection<'r> {
    destination: Option<Destination>,
    /// The deadline, the timeout and what ends the wait, while the peer does not exist yet.
    wait: Option<(Deadline, Option<Duration>, Wake<'r>)>,
    /// A socket of this process to which the socket is connected meanwhile: the kernel refuses the
    /// datagrams of all others (EPERM).
    parked: Option<DatagramSocket>,
}

impl<'r> Connection<'r> {
    /// Connects at once if the peer exists. Otherwise, [`finish`](Self::finish) waits for it.
    fn begin(socket: &DatagramSocket, connect: Option<Connect<'r>>) -> Result<Self> {
        let Some(Connect { peer, absent }) = connect else {
            return Ok(Self {
                destination: None,
                wait: None,
                parked: None,
            });
        };
        let mut destination = Destination::connected(peer);
        let wait = match (socket.establish(&mut destination), absent) {
            (Ok(()), _) => None,
            (Err(error), Absent::Wait(timeout, wake)) if may_become_reachable(&error) => {
                Some((Deadline::after(timeout), timeout, wake))
            }
            (Err(error), Absent::Ignore) if may_become_reachable(&error) => None,
            (Err(error), _) => return Err(error.into()),
        };
        Ok(Self {
            destination: Some(destination),
            wait,
            parked: None,
        })
    }

    /// Connects the socket to one of this process until the peer exists, so that it accepts no
    /// datagrams.
    fn park(&mut self, socket: &DatagramSocket) -> Result<()> {
        if self.wait.is_some() {
            let parked = DatagramSocket::new()?;
            parked.autobind()?;
            socket.connect(&parked.local_address()?)?;
            self.parked = Some(parked);
        }
        Ok(())
    }

    /// Returns the peer that it is connected to.
    fn peer_name(&self) -> Option<PeerName> {
        self.destination.as_ref().and_then(Destination::peer_name)
    }

    /// Waits for a peer that did not exist, and connects to it.
    fn finish(&mut self, socket: &DatagramSocket) -> Result<()> {
        let (Some((deadline, timeout, wake)), Some(destination)) =
            (self.wait.take(), &mut self.destination)
        else {
            return Ok(());
        };
        let mut watch = PeerWatch::new(destination.address());
        match watch.establish(socket, destination, deadline, &wake)? {
            None => Ok(()),
            Some(failure) => Err(unreachable_in_time(destination, &failure, timeout)),
        }
    }
}

/// Makes the error of a destination that did not become reachable before the timeout.
pub(crate) fn unreachable_in_time(
    destination: &Destination,
    failure: &Error,
    timeout: Option<Duration>,
) -> anyhow::Error {
    let to = destination.address().quoted();
    let timeout = humantime::format_duration(timeout.unwrap_or_default());
    let message = if failure.kind() == ErrorKind::NobodyThere {
        format!("still no socket at {to} after {timeout}")
    } else {
        format!("{failure}, still after {timeout}")
    };
    match failure.hint() {
        Some(hint) => Failure::with_hint(Exit::TimedOut, message, hint),
        None => Failure::error(Exit::TimedOut, message),
    }
}

impl Cleanup {
    /// Sets an option that the command needs. Returns `false` if queued datagrams may lack their time of
    /// arrival: the kernel records it only while the option is set.
    fn switch_on(
        &mut self,
        socket: &DatagramSocket,
        option: c_int,
        report: Report,
    ) -> Result<bool> {
        // Another process that has the socket would not close the descriptors.
        if option == libc::SO_PASSPIDFD {
            return Ok(true);
        }
        if option != sockopt::TIMESTAMPNS {
            if !is_on(socket, option) {
                self.set(socket, option, 1)?;
            }
            return Ok(true);
        }
        if !is_stamped(socket) {
            if let Err(error) = self.set(socket, option, 1) {
                report.warning(format_args!("the time of arrival is missing: {error:#}"));
            }
        }
        Ok(false)
    }
}

/// Returns whether the kernel records the time of arrival for a socket.
pub(crate) fn is_stamped(socket: &DatagramSocket) -> bool {
    // Setting one of these options unsets the others. All kinds of timestamps are decoded.
    let stamps = [
        libc::SO_TIMESTAMP,
        libc::SO_TIMESTAMPNS,
        SO_TIMESTAMP_NEW,
        SO_TIMESTAMPNS_NEW,
    ];
    stamps.into_iter().any(|option| is_on(socket, option))
}

fn is_on(socket: &DatagramSocket, option: c_int) -> bool {
    sockopt::get_int(socket, option).is_ok_and(|value| value != 0)
}

/// Sets an option that the command needs on a new socket. Returns `false` if the kernel does not record
/// the time of arrival.
fn switch_on(socket: &DatagramSocket, option: c_int, report: Report) -> Result<bool> {
    match sockopt::set_int(socket, option, 1) {
        Ok(()) => Ok(true),
        // Linux before 6.5 has no such option, and envelopes then have no names of commands.
        Err(_) if option == libc::SO_PASSPIDFD => Ok(true),
        Err(error) if option == sockopt::TIMESTAMPNS => {
            report.warning(format_args!("the time of arrival is missing: {error}"));
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

fn bind_options(file: &SocketFile) -> BindOptions {
    BindOptions {
        mode: file.permissions(),
        owner: file.owner,
        occupied: if file.replace {
            Occupied::Replace
        } else {
            Occupied::Refuse
        },
    }
}
