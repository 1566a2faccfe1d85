//! From the socket arguments of a command line to an open socket: a new one that is bound and
//! connected, or an inherited one. What that changed is undone when the command ends.

use crate::cli::setting::Setting;
use crate::cli::value::Descriptor;
use crate::cli::{Inherited, Receive, SocketFile};
use crate::exit::Failure;
use crate::process::require_open_at_start;
use crate::report::Report;
use anyhow::{Context, Result};
use nix::libc::c_int;
use std::os::fd::{AsFd, OwnedFd};
use udgram::sockopt;
use udgram::{Address, BindOptions, Binding, DatagramSocket, Occupied, bind};

/// What a command line says about its socket.
#[derive(Debug)]
pub(crate) struct Request<'r> {
    pub(crate) source: Source<'r>,
    pub(crate) connect: Option<&'r Address<'static>>,
    /// `--sockopt`, as written.
    pub(crate) settings: &'r [String],
    pub(crate) file: &'r SocketFile,
    /// Options of `SOL_SOCKET` that the command itself needs on, from before the first datagram.
    pub(crate) needs: &'r [c_int],
}

impl<'r> Request<'r> {
    /// The request of a command that receives, on `address` if one is given.
    pub(crate) fn to_receive(
        address: Option<&'r Address<'static>>,
        receive: &'r Receive,
        needs: &'r [c_int],
    ) -> Result<Self> {
        let connect = receive.connect.as_ref();
        Ok(Self {
            source: Source::of(address, connect.is_some(), &receive.socket.inherited)?,
            connect,
            settings: &receive.socket.sockopt,
            file: &receive.file,
            needs,
        })
    }
}

/// The socket that is meant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'r> {
    /// A new one, bound to this address.
    Bound(&'r Address<'static>),
    /// A new one, with an abstract name of the kernel's choosing.
    Autobound,
    /// One that is open already.
    Inherited(Descriptor),
}

impl<'r> Source<'r> {
    /// The socket of a command that binds `address`, if one is given; `connected`: whether it is
    /// given one to connect to.
    pub(crate) fn of(
        address: Option<&'r Address<'static>>,
        connected: bool,
        named: &Inherited,
    ) -> Result<Self> {
        match (address, named.socket_fd) {
            (Some(_), Some(_)) => Err(Failure::usage(
                "an address to bind and --socket-fd exclude each other",
            )),
            (Some(address), None) => Ok(Self::Bound(address)),
            (None, _) => match inherited(named)? {
                Some(descriptor) => Ok(Self::Inherited(descriptor)),
                None if connected => Ok(Self::Autobound),
                None => Err(Failure::usage(
                    "an address is missing, and there is no --socket-fd, UDGRAM_SOCKET_FD or socket activation in its place",
                )),
            },
        }
    }
}

/// Where a socket comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was made here.
    New,
    /// It was open before, and may be shared with others.
    Inherited,
}

/// An open socket.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) socket: DatagramSocket,
    pub(crate) origin: Origin,
    /// Undoes on drop what opening the socket changed.
    pub(crate) cleanup: Cleanup,
}

/// Undoes on drop what opening a socket changed: removes the socket file, and restores the options
/// of an inherited socket, which other processes may share.
#[derive(Debug, Default)]
pub(crate) struct Cleanup {
    _binding: Option<Binding>,
    /// A copy of the socket, and the values that its options had.
    options: Option<(OwnedFd, Vec<(c_int, c_int)>)>,
}

impl Cleanup {
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
        let Ok(socket) = DatagramSocket::from_fd(socket) else {
            return;
        };
        for (option, value) in before {
            // Setting it worked before; a failure now cannot be reported any more.
            let _ = sockopt::set_int(&socket, option, value);
        }
    }
}

/// The descriptor of an inherited socket: the one named, or else the one that the environment
/// names.
pub(crate) fn inherited(named: &Inherited) -> Result<Option<Descriptor>> {
    if named.socket_fd.is_some() {
        return Ok(named.socket_fd);
    }
    let number = |name: &str| -> Result<Option<i32>> {
        let Some(value) = std::env::var_os(name) else {
            return Ok(None);
        };
        let number = value
            .to_str()
            .and_then(|value| value.parse().ok())
            .filter(|number| *number >= 0);
        number.map(Some).ok_or_else(|| {
            Failure::usage(format!("{name} is no number: {}", udgram::Quoted(&value)))
        })
    };
    if let Some(number) = number("UDGRAM_SOCKET_FD")? {
        return Ok(Some(Descriptor { pid: None, number }));
    }
    let own = i32::try_from(std::process::id()).ok();
    let activated = std::env::var_os("LISTEN_PID").is_some() && number("LISTEN_PID")? == own;
    let passed = activated && number("LISTEN_FDS")?.is_some_and(|count| count > 0);
    Ok(passed.then_some(Descriptor {
        pid: None,
        number: 3,
    }))
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
        let endpoint = match request.source {
            Source::Inherited(descriptor) => Self::inherit(descriptor, request, &settings)?,
            Source::Bound(address) => Self::make(Some(address), request, &settings)?,
            Source::Autobound => Self::make(None, request, &settings)?,
        };
        endpoint.describe(report);
        Ok(endpoint)
    }

    fn make(
        address: Option<&Address<'_>>,
        request: &Request<'_>,
        settings: &[Setting],
    ) -> Result<Self> {
        let socket = DatagramSocket::new()?;
        for option in request.needs {
            sockopt::set_int(&socket, *option, 1)?;
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
        // A connection that fails leaves no file behind.
        let cleanup = Cleanup {
            _binding: binding,
            options: None,
        };
        let endpoint = Self {
            socket,
            origin: Origin::New,
            cleanup,
        };
        if let Some(peer) = request.connect {
            endpoint.socket.connect(peer)?;
        }
        Ok(endpoint)
    }

    fn inherit(
        descriptor: Descriptor,
        request: &Request<'_>,
        settings: &[Setting],
    ) -> Result<Self> {
        let Descriptor { pid, number } = descriptor;
        require_open_at_start(pid, number)?;
        let socket = DatagramSocket::from_number(pid, number)?;
        let mut cleanup = Cleanup::default();
        for option in request.needs {
            if sockopt::get_int(&socket, *option)? == 0 {
                cleanup.set(&socket, *option, 1)?;
            }
        }
        for setting in settings {
            sockopt::set(&socket, &setting.option, &setting.value)?;
        }
        if let Some(peer) = request.connect {
            socket.connect(peer)?;
        }
        Ok(Self {
            socket,
            origin: Origin::Inherited,
            cleanup,
        })
    }

    fn describe(&self, report: Report) {
        if !report.is_verbose() {
            return;
        }
        if let Ok(address) = self.socket.local_address() {
            report.note(format_args!("the local address is {}", address.quoted()));
        }
        if let Ok(Some(peer)) = self.socket.peer_address() {
            report.note(format_args!("the peer is {}", peer.quoted()));
        }
    }
}

fn bind_options(file: &SocketFile) -> BindOptions {
    BindOptions {
        mode: file.mode,
        owner: file.owner,
        occupied: if file.replace {
            Occupied::Replace
        } else {
            Occupied::Refuse
        },
    }
}
