//! Arguments about the socket that commands share: which one it is, its options, its file.

use super::value::{Descriptor, descriptor, mode, owner};
use clap::Args;

// Where the socket comes from, and how it is set up.
#[derive(Debug, Args)]
#[command(next_help_heading = "Socket")]
pub(crate) struct Socket {
    #[command(flatten)]
    pub(crate) inherited: Inherited,

    /// Set a socket option before use; may repeat
    ///
    /// NAME is SO_RCVBUF or rcvbuf, VALUE an integer, on or off, a size (1MiB), a duration;
    /// udgram-sockopt(1) has all of them.
    #[arg(short = 'o', long, value_name = "NAME=VALUE")]
    pub(crate) sockopt: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Socket")]
pub(crate) struct Inherited {
    /// Use this open socket, of udgram or of process PID
    ///
    /// It is descriptor FD of udgram, or a copy of descriptor FD of process PID (pidfd_getfd(2),
    /// which needs the right to trace that process); a usage error if it is no Unix datagram socket,
    /// or not connected where a peer is needed. Without it and without an address (for send: with
    /// PEER -), the descriptor in UDGRAM_SOCKET_FD is used, or the one that socket activation passes.
    #[arg(short, long, value_name = "[PID:]FD", value_parser = descriptor)]
    pub(crate) socket_fd: Option<Descriptor>,
}

// The socket file that binding a pathname makes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Socket")]
pub(crate) struct SocketFile {
    /// Permission bits of the socket file [default: 0600]
    ///
    /// They are as given, whatever the umask, from the file's first moment on. Sending to a socket
    /// needs write permission to its file: a daemon that has dropped its privileges can answer
    /// 'send --bind PATH --mode 0666'.
    #[arg(short, long, value_name = "OCTAL", value_parser = mode, allow_negative_numbers = true)]
    pub(crate) mode: Option<u32>,

    /// Owner, and group, of the socket file
    ///
    /// Numbers. Giving a file away needs privileges (chown(2)).
    #[arg(long, value_name = "UID[:GID]", value_parser = owner)]
    pub(crate) owner: Option<(u32, Option<u32>)>,

    /// Take over a pathname that a live socket holds
    ///
    /// Without it, that is an error. A stale socket file, which nobody is bound to, is replaced in
    /// any case; what is no socket never is.
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
