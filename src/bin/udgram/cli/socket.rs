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
    /// NAME is SO_RCVBUF or rcvbuf; VALUE is an integer, on or off, a size (1MiB) or a duration.
    /// udgram-sockopt(1) lists the options.
    #[arg(short = 'o', long, value_name = "NAME=VALUE")]
    pub(crate) sockopt: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Socket")]
pub(crate) struct Inherited {
    /// Use this open socket, or the one bound to ADDR
    ///
    /// Uses descriptor FD of udgram; with PID:FD, a copy of descriptor FD of process PID; or a copy of the
    /// socket that is bound to ADDR now, whichever process holds it (pidfd_getfd(2), which needs the right
    /// to trace that process). An ADDR contains a letter, /, . or @. Packets received from the socket of
    /// another process are lost for it. A descriptor that is not a Unix datagram socket is a usage error. Without this option and an address (send: with PEER -), commands other than
    /// sockopt use the descriptor in UDGRAM_SOCKET_FD, or the socket that socket activation passes.
    #[arg(short, long, value_name = "FD|ADDR", value_parser = open_socket())]
    pub(crate) socket_fd: Option<OpenSocket>,
}

// How much the queue of a new socket holds.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Socket")]
pub(crate) struct Depth {
    /// Room for N datagrams in the queue (needs root)
    ///
    /// The kernel's queue holds net.unix.max_dgram_qlen (10) datagrams; a sender then waits, or loses its
    /// packet. With this option it holds N, for this socket alone: the socket is made in a network namespace
    /// of its own, which needs CAP_SYS_ADMIN, and to write that setting there, root or CAP_NET_ADMIN. If
    /// the setting of the system is N already, this needs nothing. Such a socket cannot reach an abstract
    /// name nor have one, so that ADDR is a pathname; ss(8) and 'udgram ls' do not list it.
    #[arg(long, value_name = "N", value_parser = queue, allow_negative_numbers = true)]
    pub(crate) queue: Option<u32>,
}

// The socket file that binding a pathname makes.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Socket")]
pub(crate) struct SocketFile {
    /// Permission bits of the socket file [default: 0600]
    ///
    /// Created with exactly these bits; the umask is ignored. Sending to a socket needs write
    /// permission on its file: a daemon that has dropped its privileges can answer to
    /// 'send --bind PATH --mode 0666'.
    #[arg(short, long, value_name = "OCTAL", value_parser = mode, allow_negative_numbers = true)]
    pub(crate) mode: Option<u32>,

    /// Owner, and group, of the socket file
    ///
    /// Takes numbers. Changing the owner needs privileges (chown(2)).
    #[arg(long, value_name = "UID[:GID]", value_parser = owner, hide_short_help = true)]
    pub(crate) owner: Option<(u32, Option<u32>)>,

    /// Take over a pathname that a live socket holds
    ///
    /// Without this option, that is an error. A stale socket file, which no process has bound, is
    /// always replaced; a file that is not a socket is never replaced.
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
