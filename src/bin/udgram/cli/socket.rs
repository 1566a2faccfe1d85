//! Arguments about the socket that commands share: which one it is, its options, its file.

use super::value::{OpenSocket, mode, open_socket, owner, queue};
use clap::Args;

// The source of the socket, and its options.
#[derive(Debug, Args)]
#[command(next_help_heading = "Socket")]
pub(crate) struct Socket {
    #[command(flatten)]
    pub(crate) inherited: Inherited,

    /// Set a socket option before use; may repeat
    ///
    /// NAME is rcvbuf or SO_RCVBUF; udgram-sockopt(1) lists the options.
    ///
    /// VALUE is an integer, on or off, a size (1MiB) or a duration.
    #[arg(short = 'o', long, value_name = "NAME=VALUE")]
    pub(crate) sockopt: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Socket")]
pub(crate) struct Inherited {
    /// Use this open socket, or the one bound to ADDR
    ///
    /// With PID:FD or ADDR, a copy of the socket of another process.
    ///
    /// FD is a descriptor of udgram, and PID:FD is descriptor FD of process PID. ADDR is the socket that is
    /// bound to this address now, whichever process holds it; it contains a letter, '.', '/' or '@'. The copy
    /// (pidfd_getfd(2)) needs the right to trace the process, and packets received from it are lost for
    /// that process. A descriptor that is not a Unix datagram socket is a usage error. So is a socket that is
    /// not connected, for talk, and for send without --to or --envelope.
    ///
    /// Without this option and an address (send and talk: with PEER -), commands other than sockopt use the
    /// descriptor in UDGRAM_SOCKET_FD, or the socket that socket activation passes.
    #[arg(short, long, value_name = "FD|ADDR", value_parser = open_socket())]
    pub(crate) socket_fd: Option<OpenSocket>,
}

// How much the queue of a new socket holds.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Socket")]
pub(crate) struct Depth {
    /// Room for N + 1 datagrams in the queue (needs root)
    ///
    /// Replaces net.unix.max_dgram_qlen (10); for pathnames only.
    ///
    /// When the kernel's queue is full, a sender waits, or loses its packet. The socket is made in a network
    /// namespace of its own, which needs CAP_SYS_ADMIN, and to write that setting there, root or
    /// CAP_NET_ADMIN. If the setting of the system is N already, this needs nothing. Such a socket cannot
    /// reach an abstract name nor have one; ss(8) and 'udgram ls' do not list it. As it cannot answer abstract
    /// names, listen does not combine --queue with --echo, --exec or --pipe.
    #[arg(long, value_name = "N", value_parser = queue, allow_negative_numbers = true)]
    pub(crate) queue: Option<u32>,
}

// The socket file that binding a pathname makes.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Socket")]
pub(crate) struct SocketFile {
    /// Permission bits of the socket file [default: 0600]
    ///
    /// A process that sends to the socket needs write permission on it.
    ///
    /// The file is created with exactly these bits; the umask is ignored. A daemon that has dropped its
    /// privileges can answer to 'send --bind PATH --mode 0666'.
    #[arg(short, long, value_name = "OCTAL", value_parser = mode, allow_negative_numbers = true)]
    pub(crate) mode: Option<u32>,

    /// Owner, and group, of the socket file
    ///
    /// Takes numbers. Changing the owner needs privileges (chown(2)).
    #[arg(long, value_name = "UID[:GID]", value_parser = owner, hide_short_help = true)]
    pub(crate) owner: Option<(u32, Option<u32>)>,

    /// Take over a pathname that a live socket holds
    ///
    /// A stale socket file is replaced without this option.
    ///
    /// A socket file is stale if no process has it bound. A file that is not a socket is never replaced.
    #[arg(long)]
    pub(crate) replace: bool,
}

impl SocketFile {
    /// Returns the permission bits that the socket file gets.
    pub(crate) fn permissions(&self) -> u32 {
        self.mode.unwrap_or(0o600)
    }

    /// Returns the options that are given, as they are written.
    pub(super) fn given(&self) -> impl Iterator<Item = &'static str> {
        let mode = self.mode.map(|_| "--mode");
        let owner = self.owner.map(|_| "--owner");
        let replace = self.replace.then_some("--replace");
        [mode, owner, replace].into_iter().flatten()
    }
}
