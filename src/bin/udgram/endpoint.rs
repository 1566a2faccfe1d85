//! From the socket arguments of a command line to an open socket: a new one that is connected and
//! bound, or an inherited one. What that changed is undone when the command ends.

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
    PeerName, PeerWatch, bind, may_come, sockopt,
};

// linux/socket.h; libc has them for some targets only.
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
    /// Options of `SOL_SOCKET` that the command itself needs on, from before the first datagram.
    pub(crate) needs: &'r [c_int],
    pub(crate) purpose: Purpose,
}

/// What becomes of the packets in the socket's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The command takes them.
    Take,
    /// The command sends, and takes them while it waits for answers.
    Answers,
    /// They stay there.
    Leave,
}

/// A peer to connect to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connect<'r> {
    pub(crate) peer: &'r Address<'static>,
    /// How long to wait for it, and what ends that; `None`: it has to be there.
    pub(crate) wait: Option<(Option<Duration>, Wake<'r>)>,
}

impl<'r> Connect<'r> {
    /// Returns the connection to a peer that has to be there.
    pub(crate) fn now(peer: &'r Address<'static>) -> Self {
        Self { peer, wait: None }
    }
}

impl<'r> Request<'r> {
    /// Returns the request of a command that receives, on `address` if one is given.
    pub(crate) fn to_receive(
        address: Option<&'r Address<'static>>,
        receive: &'r Receive,
        needs: &'r [c_int],
    ) -> Result<Self> {
        let connect = receive.connect.as_ref();
        Ok(Self {
            source: Source::of(address, connect.is_some(), &receive.socket.inherited)?,
            connect: connect.map(Connect::now),
            settings: &receive.socket.sockopt,
            file: &receive.file,
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
            needs: &[],
            purpose: Purpose::Leave,
        })
    }
}

/// Where the socket comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source<'r> {
    /// It is made, and bound to this address.
    Bound(&'r Address<'static>),
    /// It is made, and gets an abstract name of the kernel's choosing.
    Autobound,
    /// It is open already.
    Inherited(InheritedSocket),
}

impl<'r> Source<'r> {
    /// Returns the socket of a command that binds `address`, if one is given. With `connected`, the
    /// command is given a peer to connect to.
    pub(crate) fn of(
        address: Option<&'r Address<'static>>,
        connected: bool,
        named: &Inherited,
    ) -> Result<Self> {
        match (address, &named.socket_fd) {
            (Some(_), Some(_)) => Err(Failure::usage(
                "an address to bind and --socket-fd exclude each other",
            )),
            (Some(address), None) => Ok(Self::Bound(address)),
            (None, Some(socket)) => Ok(Self::Inherited(InheritedSocket::named(socket)?)),
            // Connecting the environment's socket would send all its users to this peer.
            (None, None) if connected => Ok(Self::Autobound),
            (None, None) => match InheritedSocket::of_environment()? {
                Some(socket) => Ok(Self::Inherited(socket)),
                None => Err(Failure::usage(
                    "ADDR is missing, and there is no --socket-fd, UDGRAM_SOCKET_FD or socket activation in its place",
                )),
            },
        }
    }
}

/// Whether a socket was made by this command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was made here.
    New,
    /// It was open before, and may be shared with other processes.
    Inherited,
}

/// An open socket.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) socket: DatagramSocket,
    /// Undoes on drop what opening the socket changed.
    pub(crate) cleanup: Cleanup,
    /// The peer that it is connected to.
    pub(crate) peer: Option<Destination>,
    pub(crate) opened: Opened,
}

/// What a receiver has to know of how its socket was opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) origin: Origin,
    /// The only peer that datagrams are taken of.
    pub(crate) only_from: Option<PeerName>,
    /// Whether every queued datagram has the time of its arrival, if the command asked for it.
    pub(crate) stamped: bool,
}

/// Undoes on drop what opening a socket changed: removes the socket file, and restores the options
/// of an inherited socket, which other processes may share.
#[derive(Debug, Default)]
pub(crate) struct Cleanup {
    binding: Option<Binding>,
    /// A copy of the socket, and the values that its options had.
    options: Option<(OwnedFd, Vec<(c_int, c_int)>)>,
}

impl Cleanup {
    /// Hands over the socket file, which is removed when that is dropped.
    pub(crate) fn take_binding(&mut self) -> Option<Binding> {
        self.binding.take()
    }

    /// Sets an option of `SOL_SOCKET`, which is restored on drop.
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
            // Setting it worked before; a failure now cannot be reported any more.
            let _ = sockopt::set_int(&socket, option, value);
        }
    }
}

impl Endpoint {
    /// Opens the socket. The caller has blocked the signals that would end the process without the
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

    /// Makes a socket: connects it before it has a name, so that nobody else's datagram gets in.
    fn make(
        address: Option<&Address<'_>>,
        request: &Request<'_>,
        settings: &[Setting],
        report: Report,
    ) -> Result<Self> {
        let socket = DatagramSocket::new()?;
        let mut connection = Connection::begin(&socket, request.connect)?;
        if address.is_some_and(|address| *address != Address::Unnamed) {
            connection.park(&socket)?;
        } else {
            connection.finish(&socket)?;
        }
        // SO_PASSCRED comes after connect(2), which autobinds a socket that has it.
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

    fn inherit(
        inherited: &InheritedSocket,
        request: &Request<'_>,
        settings: &[Setting],
        report: Report,
    ) -> Result<Self> {
        let OpenedCopy { socket, of } = inherited.open(report)?;
        if let (Some(pid), Purpose::Take | Purpose::Answers) = (of, request.purpose) {
            report.warning(format_args!(
                "packets taken from the socket of process {pid} are gone for it; iter --peek leaves them"
            ));
        }
        let mut connection = Connection::begin(&socket, request.connect)?;
        connection.finish(&socket)?;
        let mut only_from = connection.peer_name();
        let mut peer = connection.destination;
        if peer.is_none() {
            peer = inherited.destination(&socket, of)?;
            if let Some(peer) = peer.as_mut().filter(|_| inherited.session_peer().is_some()) {
                // Open to everybody, the socket takes nothing until it is connected again.
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

/// Connecting a socket to its peer, before or after it has a name.
struct Connection<'r> {
    destination: Option<Destination>,
    /// How long to wait for a peer that is not there yet.
    wait: Option<(Deadline, Option<Duration>, Wake<'r>)>,
    /// A socket of this process that the socket is connected to meanwhile: the kernel refuses
    /// everybody else's datagrams (EPERM).
    parked: Option<DatagramSocket>,
}

impl<'r> Connection<'r> {
    fn begin(socket: &DatagramSocket, connect: Option<Connect<'r>>) -> Result<Self> {
        let Some(Connect { peer, wait }) = connect else {
            return Ok(Self {
                destination: None,
                wait: None,
                parked: None,
            });
        };
        let mut destination = Destination::connected(peer);
        let wait = match (socket.establish(&mut destination), wait) {
            (Ok(()), _) => None,
            (Err(error), Some((timeout, wake))) if may_come(&error) => {
                Some((Deadline::after(timeout), timeout, wake))
            }
            (Err(error), _) => return Err(error.into()),
        };
        Ok(Self {
            destination: Some(destination),
            wait,
            parked: None,
        })
    }

    /// Keeps everybody else's datagrams out while the peer is waited for.
    fn park(&mut self, socket: &DatagramSocket) -> Result<()> {
        if self.wait.is_some() {
            let parked = DatagramSocket::new()?;
            parked.autobind()?;
            socket.connect(&parked.local_address()?)?;
            self.parked = Some(parked);
        }
        Ok(())
    }

    fn peer_name(&self) -> Option<PeerName> {
        self.destination.as_ref().and_then(Destination::peer_name)
    }

    /// Waits for the peer, if it was not there.
    fn finish(&mut self, socket: &DatagramSocket) -> Result<()> {
        let (Some((deadline, timeout, wake)), Some(destination)) =
            (self.wait.take(), &mut self.destination)
        else {
            return Ok(());
        };
        let mut watch = PeerWatch::new(destination.address());
        match watch.establish(socket, destination, deadline, &wake)? {
            None => Ok(()),
            Some(failure) => Err(never_came(destination, &failure, timeout)),
        }
    }
}

/// Returns the error of a destination that was not reachable in time.
pub(crate) fn never_came(
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
    /// Switches an option on that the command needs. Returns `false` if datagrams that are queued
    /// already may lack what it adds to them: the kernel notes the time of arrival only while one of
    /// the options is on, and one that is on now may have been off.
    fn switch_on(
        &mut self,
        socket: &DatagramSocket,
        option: c_int,
        report: Report,
    ) -> Result<bool> {
        if option != libc::SO_TIMESTAMPNS {
            if !is_on(socket, option) {
                self.set(socket, option, 1)?;
            }
            return Ok(true);
        }
        if !is_stamped(socket)
            && let Err(error) = self.set(socket, option, 1)
        {
            report.warning(format_args!("the time of arrival is missing: {error:#}"));
        }
        Ok(false)
    }
}

/// Returns whether the kernel notes the time of arrival for a socket.
pub(crate) fn is_stamped(socket: &DatagramSocket) -> bool {
    // Each of these options takes the place of the others, and each kind of timestamp is decoded.
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

/// Switches an option on that the command needs on a new socket. Returns `false` if the kernel does
/// not note the time of arrival.
fn switch_on(socket: &DatagramSocket, option: c_int, report: Report) -> Result<bool> {
    match sockopt::set_int(socket, option, 1) {
        Ok(()) => Ok(true),
        Err(error) if option == libc::SO_TIMESTAMPNS => {
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
