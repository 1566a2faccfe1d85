//! The command line: what a user may write, checked and turned into values. What is done with
//! them is not known here. Help, manual pages and completions come from these definitions: the
//! first paragraph of an argument is its line in `-h`; all of it is in `--help` and the manual.

use crate::exit::{Exit, Failure};
use crate::report::Report;
use crate::value::{
    Claim, Descriptor, Replies, Timeout, address, credentials, descriptor, mode, owner, peer,
    replies, timeout, user,
};
use clap::{
    ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
};
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::process::ExitCode;
use std::sync::OnceLock;
use udgram::Address;
use udgram::ancillary::MAX_DESCRIPTORS;

const MORE: &str = "\
Exit status: 0 done; 1 the system refused; 2 usage; 3 no valid packet; 4 nobody is there;
124 timed out; 126, 127 CMD cannot be run, is not found; 128+N ended by signal N.

'udgram COMMAND -h' lists the options of a command, --help explains them; man udgram.";

const SEND_EXAMPLES: &str = "\
Examples:
  udgram send app.sock '{\"op\":\"start\"}'           one packet
  udgram send app.sock <packets.jsonl             each line of a file
  udgram send -p text -r -t 2s ctrl/wlan0 PING    ask, and print the answer
  udgram send -w -t 10s app.sock </dev/null       wait until it is there
  udgram send --fd 3 app.sock '{}' 3<file         hand over an open file";

const RECV_EXAMPLES: &str = "\
Examples:
  udgram recv app.sock                            one packet, printed
  udgram recv -t 5s -n 3 -e @name                 three, with their senders
  udgram recv in.sock -- cat /dev/fd/3            read a file that is handed over";

const LISTEN_EXAMPLES: &str = "\
Examples:
  udgram listen --creds app.sock                  who sends what, and when
  udgram listen -p text --exec 'tr a-z A-Z' s     a server
  udgram listen -e app.sock >capture.jsonl        keep it, to send it again:
  udgram send -e app.sock <capture.jsonl";

const ITER_EXAMPLES: &str = "\
Examples:
  udgram iter --peek -e -s 812:3                  look into a daemon's queue
  udgram iter -t 1s app.sock                      what comes within a second
  udgram iter -s 3                                empty an inherited queue";

const SOCKOPT_EXAMPLES: &str = "\
Examples:
  udgram sockopt                                  what a new socket has
  udgram sockopt -s 812:3                         a daemon's, and its queue
  udgram sockopt -s 3 sndbuf=1MiB passcred=on     set, print what came of it";

const EXEC_EXAMPLES: &str = "\
Examples:
  udgram exec -b me -c app.sock -- sh script      one socket for a whole script
  udgram exec -b app.sock -- ./daemon             activation without systemd";

/// Send and receive Unix datagrams: JSON lines, descriptors, credentials, deadlines
#[derive(Debug, Parser)]
#[command(name = "udgram", version, after_help = MORE, max_term_width = 100)]
#[command(
    disable_help_flag = true,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = false
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) diagnostics: Diagnostics,
}

impl Cli {
    /// What `arguments` say, the first of which is the program's name.
    pub(crate) fn read<A: Into<OsString> + Clone>(
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self, clap::Error> {
        // To take the definitions apart again would be a twentieth of the life of `udgram send`.
        static KEPT: OnceLock<(clap::Command, ArgMatches)> = OnceLock::new();
        let mut command = Self::command();
        let mut matches = command.try_get_matches_from_mut(arguments)?;
        let read =
            Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))?;
        let _ = KEPT.set((command, matches));
        Ok(read)
    }
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Diagnostics {
    /// Print errors only
    ///
    /// Warnings and hints are left out; errors are not.
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        display_order = 900
    )]
    pub(crate) quiet: bool,

    /// Print the local and the peer address, too
    #[arg(short, long, global = true, display_order = 901)]
    pub(crate) verbose: bool,

    /// Print help: -h in short, --help in full
    #[arg(short, long, global = true, action = ArgAction::Help, display_order = 903)]
    help: Option<bool>,
}

/// When JSON is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal
    Auto,
    /// Wherever it goes
    Always,
    /// Nowhere
    Never,
}

// How commands show JSON.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Shown {
    /// Colour JSON: auto (default), always, never
    ///
    /// With auto, JSON is coloured on a terminal, unless NO_COLOR is set to something or TERM is
    /// dumb.
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true,
        hide_possible_values = true,
        display_order = 898
    )]
    pub(crate) color: When,
}

// How commands that carry packets show them.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Counting {
    #[command(flatten)]
    pub(crate) shown: Shown,

    /// Print totals at the end, and on SIGUSR1
    ///
    /// They go to stderr, on one line: the datagrams received and their bytes, those that were no
    /// packets, the datagrams sent and their bytes, and the seconds that it took.
    #[arg(long, display_order = 899)]
    pub(crate) stats: bool,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Send packets: each PACKET, or else each line of stdin
    Send(Box<Send>),
    /// Bind ADDR, wait for one packet (or --count), print it or hand it to CMD
    Recv(Box<Recv>),
    /// Bind ADDR, print every packet until stopped
    Listen(Box<Listen>),
    /// Print the packets already waiting, within a total time
    Iter(Box<Iter>),
    /// Show or set the options of a socket
    Sockopt(Box<Sockopt>),
    /// Open a socket, run CMD with it as descriptor 3
    Exec(Box<Exec>),
    /// Print the completion script of a shell
    Completions(Completions),
}

#[derive(Debug, Args)]
#[command(
    after_help = SEND_EXAMPLES,
    override_usage = "udgram send [OPTIONS] PEER [PACKET]...\n       udgram send [OPTIONS] --to ADDR [PACKET]...\n       udgram send [OPTIONS] --socket-fd FD [PACKET]..."
)]
pub(crate) struct Send {
    /// Where to send, then packets [default: lines of stdin]
    ///
    /// PEER is an address: a pathname, @NAME for an abstract name, or ./@NAME for the pathname
    /// @NAME. It is left out with --to, with --socket-fd and where a socket is inherited: every
    /// argument is then a packet. An empty argument is an empty datagram; empty stdin is none.
    #[arg(value_name = "PEER [PACKET]", allow_negative_numbers = true)]
    pub(crate) arguments: Vec<OsString>,

    /// Local address; '' for none [default: autobound]
    ///
    /// Without it the kernel chooses an abstract name, so that the peer can answer; '' leaves the
    /// socket unnamed, and nobody can answer. A peer that may not write to a pathname cannot
    /// answer it: see --mode.
    #[arg(short, long, value_name = "ADDR", value_parser = address(), help_heading = "Socket")]
    pub(crate) bind: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) socket: Socket,

    #[command(flatten)]
    pub(crate) file: SocketFile,

    /// Send to this address: every argument is a packet
    ///
    /// It says where packets go when the socket comes from elsewhere, and works with --bind, too.
    /// The 'to' of an envelope goes before it.
    #[arg(long, value_name = "ADDR", value_parser = peer(), help_heading = "Socket")]
    pub(crate) to: Option<Address<'static>>,

    /// Wait for a peer that is not there, or goes away
    ///
    /// It is waited for within --timeout, in place of failing with status 4. The packet at hand is sent
    /// again; none is lost. With no packets (</dev/null) nothing is sent, and the exit status says
    /// whether the peer is there.
    #[arg(short, long, help_heading = "Socket")]
    pub(crate) wait: bool,

    #[command(flatten)]
    pub(crate) packets: Packets,

    /// Longest wait for peer, queue, reply (250ms, '1m 30s')
    ///
    /// It is for each packet: for room in the peer's queue, for the peer (--wait) and for each
    /// reply (--reply). A bare number is seconds, none is no limit. When it runs out, the
    /// exit status is 124 and the message says what was waited for.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, default_value = "none", hide_default_value = true, help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    /// Await N replies to each (default 1; all: till timeout)
    ///
    /// They are printed as recv would. It ends with the last reply awaited, not with the timeout;
    /// with all, the timeout is the end, and a normal one. No reply in time is status 124.
    #[arg(short, long, value_name = "N", value_parser = replies, num_args = 0..=1, require_equals = true, default_missing_value = "1", help_heading = "Packets")]
    pub(crate) reply: Option<Replies>,

    /// Attach a descriptor to each packet; may repeat
    ///
    /// It is number N of udgram, or a copy of number N of process PID (pidfd_getfd(2), which needs
    /// the right to trace that process). 253 is the most that one message carries.
    #[arg(long, value_name = "[PID:]N", value_parser = descriptor, help_heading = "Descriptors and credentials")]
    pub(crate) fd: Vec<Descriptor>,

    /// Attach credentials: one's own, or these
    ///
    /// They are process, user and group (SCM_CREDENTIALS). Claiming others than one's own needs
    /// privileges: the kernel decides, and a refusal is status 1. It says nothing about replies.
    #[arg(long, value_name = "PID:UID:GID", value_parser = credentials, num_args = 0..=1, require_equals = true, default_missing_value = "own", help_heading = "Descriptors and credentials")]
    pub(crate) creds: Option<Claim>,

    #[command(flatten)]
    pub(crate) counting: Counting,
}

#[derive(Debug, Args)]
#[command(after_help = RECV_EXAMPLES, override_usage = "udgram recv [OPTIONS] ADDR [-- CMD...]")]
pub(crate) struct Recv {
    /// The address to bind
    ///
    /// A pathname, @NAME for an abstract name, or ./@NAME for the pathname @NAME. It is left out
    /// with --socket-fd and where a socket is inherited; with --connect, the kernel then chooses an
    /// abstract name.
    #[arg(value_name = "ADDR", value_parser = peer())]
    pub(crate) address: Option<Address<'static>>,

    /// Run CMD with the packet and its descriptors
    ///
    /// It runs in place of udgram, with the packet in UDGRAM_PACKET, its sender in UDGRAM_FROM and
    /// the descriptors from 3 up, announced as sd_listen_fds(3) reads them. A packet that has a NUL
    /// in it cannot be handed over so: -p hex or base64 has none.
    #[arg(value_name = "CMD", last = true)]
    pub(crate) command: Vec<OsString>,

    #[command(flatten)]
    pub(crate) receive: Receive,

    /// End after N packets
    ///
    /// Datagrams are counted, good or bad: one that is no packet does not stop what was asked for,
    /// but makes the exit status 3.
    #[arg(short = 'n', long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "command", help_heading = "Packets")]
    pub(crate) count: u64,

    /// Longest wait for each packet (250ms, '1m 30s')
    ///
    /// A bare number is seconds, none is no limit. When it runs out before the packet or packets
    /// asked for have come, the exit status is 124.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, default_value = "none", hide_default_value = true, help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    /// Number that CMD gets a descriptor at; may repeat
    ///
    /// The first that came is at the first number; default 3, 4, and so on. More numbers than descriptors came is an error; more descriptors than numbers are closed,
    /// with a warning. A number given twice is a usage error.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(RawFd).range(0..), requires = "command", help_heading = "Descriptors and credentials")]
    pub(crate) fd: Vec<RawFd>,
}

#[derive(Debug, Args)]
#[command(after_help = LISTEN_EXAMPLES, override_usage = "udgram listen [OPTIONS] ADDR")]
pub(crate) struct Listen {
    /// The address to bind
    ///
    /// A pathname, @NAME for an abstract name, or ./@NAME for the pathname @NAME. It is left out
    /// with --socket-fd and where a socket is inherited; with --connect, the kernel then chooses an
    /// abstract name.
    #[arg(value_name = "ADDR", value_parser = peer())]
    pub(crate) address: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) receive: Receive,

    /// End after N packets
    ///
    /// Datagrams are counted, good or bad. Without it, listen ends with a signal, with its stdout's
    /// reader or with --timeout.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Packets")]
    pub(crate) count: Option<u64>,

    /// Longest wait for each packet (250ms, '1m 30s')
    ///
    /// A bare number is seconds, none is no limit. When it runs out, listen ends: with status 124
    /// if there is a --count, else with 0.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, default_value = "none", hide_default_value = true, help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    /// Take packets of this user only; may repeat
    ///
    /// It is a number or a name; the kernel's word for the sender decides. The packets of others are
    /// dropped and counted, and what they brought is closed.
    #[arg(long, value_name = "UID|NAME", value_parser = user, help_heading = "Descriptors and credentials")]
    pub(crate) allow_uid: Vec<u32>,

    /// Send every datagram back to its sender
    ///
    /// It goes as it came, packet or not, and is printed all the same. One that cannot be sent back
    /// is reported, no more.
    #[arg(long, conflicts_with = "exec", help_heading = "Packets")]
    pub(crate) echo: bool,

    /// Run CMD for each packet; what it prints is the reply
    ///
    /// CMD is run by sh -c, one at a time, with the datagram's bytes on its stdin, UDGRAM_FROM,
    /// UDGRAM_PID, UDGRAM_UID and UDGRAM_GID in its environment and received descriptors from 3 up.
    /// What it prints, less one final newline (with -p raw: as it is), is sent to the sender as one
    /// datagram, unless it is empty.
    #[arg(long, value_name = "CMD", help_heading = "Packets")]
    pub(crate) exec: Option<OsString>,
}

#[derive(Debug, Args)]
#[command(after_help = ITER_EXAMPLES, override_usage = "udgram iter [OPTIONS] [ADDR]")]
pub(crate) struct Iter {
    /// The address to bind
    ///
    /// A pathname, @NAME for an abstract name, or ./@NAME for the pathname @NAME. It is left out
    /// with --socket-fd and where a socket is inherited.
    #[arg(value_name = "ADDR", value_parser = peer())]
    pub(crate) address: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) receive: Receive,

    /// End after N packets
    ///
    /// Datagrams are counted, good or bad.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Packets")]
    pub(crate) count: Option<u64>,

    /// Time for all packets together (250ms, '1m 30s')
    ///
    /// A bare number is seconds, none is no limit; 0 prints only what is there already. That it
    /// runs out is the normal end, with status 0.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, default_value = "0", help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    /// Leave the packets in the queue
    ///
    /// The socket's options stay as they were, too (SO_PEEK_OFF and MSG_PEEK; socket(7), recv(2)):
    /// the program that the socket belongs to notices
    /// nothing, unless it peeks itself.
    #[arg(long, conflicts_with_all = ["timeout", "creds"], help_heading = "Packets")]
    pub(crate) peek: bool,
}

#[derive(Debug, Args)]
#[command(after_help = SOCKOPT_EXAMPLES, override_usage = "udgram sockopt [OPTIONS] [NAME[=VALUE]]...")]
pub(crate) struct Sockopt {
    /// Options to print (NAME) or set (NAME=VALUE) [default: print all]
    ///
    /// NAME is SO_RCVBUF, rcvbuf, or LEVEL:NUMBER for one that udgram does not know. VALUE is an
    /// integer, on or off, a size (1MiB), a duration, or hex:BYTES, whatever the option takes. What
    /// is printed after setting is what the kernel made of it.
    #[arg(value_name = "NAME[=VALUE]")]
    pub(crate) options: Vec<String>,

    /// Local address of a new socket [default: none]
    #[arg(short, long, value_name = "ADDR", value_parser = address(), help_heading = "Socket")]
    pub(crate) bind: Option<Address<'static>>,

    /// Connect the socket to this peer
    #[arg(short, long, value_name = "ADDR", value_parser = peer(), help_heading = "Socket")]
    pub(crate) connect: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) inherited: Inherited,

    #[command(flatten)]
    pub(crate) file: SocketFile,

    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Args)]
#[command(after_help = EXEC_EXAMPLES, override_usage = "udgram exec [OPTIONS] -- CMD...")]
pub(crate) struct Exec {
    /// The program to run, with its arguments
    ///
    /// It finds the socket at descriptor 3, and UDGRAM_SOCKET_FD=3, LISTEN_FDS=1, LISTEN_PID and
    /// LISTEN_FDNAMES in its environment. Signals are passed on to it, and its end is udgram's.
    #[arg(value_name = "CMD", last = true, required = true)]
    pub(crate) command: Vec<OsString>,

    /// Local address; '' for none
    ///
    /// With --connect alone, the kernel chooses an abstract name, so that the peer can answer.
    #[arg(short, long, value_name = "ADDR", value_parser = address(), help_heading = "Socket")]
    pub(crate) bind: Option<Address<'static>>,

    /// Connect the socket to this peer
    #[arg(short, long, value_name = "ADDR", value_parser = peer(), help_heading = "Socket")]
    pub(crate) connect: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) socket: Socket,

    #[command(flatten)]
    pub(crate) file: SocketFile,
}

#[derive(Debug, Args)]
#[command(override_usage = "udgram completions [OPTIONS] SHELL")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// A shell that there is a completion script for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// To be read by it, or ~/.local/share/bash-completion/completions/udgram
    Bash,
    /// As _udgram in a directory of $fpath
    Zsh,
    /// ~/.config/fish/completions/udgram.fish
    Fish,
    /// To be read by its rc.elv
    Elvish,
    /// To be read by its $PROFILE
    Powershell,
}

// What every command that receives takes. Where arguments are flattened into those of a command,
// a documentation comment would become the command's.
#[derive(Debug, Args)]
pub(crate) struct Receive {
    /// Exchange packets with this peer only
    ///
    /// The kernel then refuses everybody else's (connect(2)).
    #[arg(short, long, value_name = "ADDR", value_parser = peer(), help_heading = "Socket")]
    pub(crate) connect: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) socket: Socket,

    #[command(flatten)]
    pub(crate) file: SocketFile,

    #[command(flatten)]
    pub(crate) packets: Packets,

    /// Ask for credentials; implies --envelope
    ///
    /// They are the sender's process, user and group, as the kernel vouches for them (SO_PASSCRED).
    /// A packet queued before the socket asked for them has none.
    #[arg(long, help_heading = "Descriptors and credentials")]
    pub(crate) creds: bool,

    /// Room for control data in bytes
    ///
    /// The default is CMSG_SPACE(8192), which holds all that one message carries. Descriptors that
    /// there is no room for are lost, and the envelope says so (ancillary_truncated). Without --envelope, --creds or a CMD it means nothing and is a usage
    /// error.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(..=16 << 20), help_heading = "Descriptors and credentials")]
    pub(crate) ancillary_bufsize: Option<u32>,

    #[command(flatten)]
    pub(crate) counting: Counting,
}

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
    /// or not connected where a peer is needed. Without it and without an address, the descriptor
    /// in UDGRAM_SOCKET_FD is used, or the one that socket activation passes.
    #[arg(short, long, value_name = "[PID:]FD", value_parser = descriptor)]
    pub(crate) socket_fd: Option<Descriptor>,
}

// The socket file that binding a pathname makes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Socket")]
pub(crate) struct SocketFile {
    /// Permission bits of the socket file
    ///
    /// They are as given, whatever the umask, from the file's first moment on. Sending to a socket
    /// needs write permission to its file: a daemon that has dropped its privileges can answer
    /// 'send --bind PATH --mode 0666'.
    #[arg(short, long, value_name = "OCTAL", value_parser = mode, default_value = "0600")]
    pub(crate) mode: u32,

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

// How datagrams and lines translate.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Packets")]
pub(crate) struct Packets {
    /// json (default), text, raw, hex, base64, cbor, msgpack
    ///
    /// It says how datagrams and lines translate; see udgram(1). Bytes that it does not accept are
    /// a parse error, with its place: status 3.
    #[arg(
        short,
        long,
        value_name = "NAME",
        value_enum,
        default_value = "json",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub(crate) protocol: Protocol,

    /// Lines are JSON objects with all that is known
    ///
    /// Such an envelope has the packet, its sender, its time and more; its fields are in udgram(1).
    #[arg(short, long)]
    pub(crate) envelope: bool,
}

/// The wire's form, and the line's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// One JSON value, passed through unchanged
    Json,
    /// UTF-8 text
    Text,
    /// Bytes as they are; send takes all of stdin as one packet
    Raw,
    /// Bytes as hexadecimal digits
    Hex,
    /// Bytes as base64
    Base64,
    /// One CBOR value, shown as JSON
    Cbor,
    /// One MessagePack value, shown as JSON
    Msgpack,
}

/// Checks what clap cannot: in one line, what is wrong.
impl Command {
    /// Whether totals are wanted.
    pub(crate) fn stats(&self) -> bool {
        match self {
            Self::Send(send) => send.counting.stats,
            Self::Recv(recv) => recv.receive.counting.stats,
            Self::Listen(listen) => listen.receive.counting.stats,
            Self::Iter(iter) => iter.receive.counting.stats,
            Self::Sockopt(_) | Self::Exec(_) | Self::Completions(_) => false,
        }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Send(send) => send.check(),
            Self::Recv(recv) => recv
                .receive
                .check(!recv.command.is_empty())
                .and_then(|()| recv.check()),
            Self::Listen(listen) => listen.receive.check(listen.exec.is_some()),
            Self::Iter(iter) => iter.receive.check(false),
            Self::Sockopt(_) | Self::Exec(_) | Self::Completions(_) => Ok(()),
        }
    }
}

impl Send {
    fn check(&self) -> Result<(), String> {
        if self.fd.len() > MAX_DESCRIPTORS {
            return Err(format!(
                "--fd is given {} times, one message carries {MAX_DESCRIPTORS} at most",
                self.fd.len()
            ));
        }
        if self.reply.is_some() && self.bind == Some(Address::Unnamed) {
            return Err("--reply with --bind '': nobody can answer an unnamed socket".to_owned());
        }
        if self.reply == Some(Replies::All) && self.timeout.0.is_none() {
            return Err("--reply=all needs a --timeout, which is its end".to_owned());
        }
        Ok(())
    }
}

impl Recv {
    fn check(&self) -> Result<(), String> {
        if self.receive.counting.stats && !self.command.is_empty() {
            return Err("--stats with a CMD: udgram is gone when it ends".to_owned());
        }
        let twice = self
            .fd
            .iter()
            .enumerate()
            .find(|(index, number)| self.fd[..*index].contains(number));
        match twice {
            Some((_, number)) => Err(format!("--fd {number} is given twice")),
            None => Ok(()),
        }
    }
}

impl Receive {
    fn check(&self, command: bool) -> Result<(), String> {
        if self.ancillary_bufsize.is_some() && !(self.packets.envelope || self.creds || command) {
            return Err(
                "--ancillary-bufsize means nothing without --envelope, --creds or a CMD".to_owned(),
            );
        }
        Ok(())
    }
}

/// What is wrong with a command line, in one line on stderr; help and version on stdout.
pub(crate) fn report_usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A stdout that cannot be written to has no reader for the help.
        return if error.print().is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let text = error.render().to_string();
    let text = text.split("\n\nUsage:").next().unwrap_or_default();
    let text = text
        .split("\n\nFor more information")
        .next()
        .unwrap_or_default();
    let words: Vec<&str> = text
        .strip_prefix("error: ")
        .unwrap_or(text)
        .split_whitespace()
        .collect();
    let message = words.join(" ").replace(" tip: ", "; ");
    // clap's way of passing it as an argument of its own is no help for an option's value.
    let message = message.split("; to pass '").next().unwrap_or_default();
    Report::new(Diagnostics {
        quiet: false,
        verbose: false,
        help: None,
    })
    .error(&Failure::usage(message));
    Exit::Usage.code()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_argument_has_help_and_no_two_collide() {
        Cli::command().help_expected(true).debug_assert();
    }

    #[test]
    fn a_command_is_what_the_list_of_commands_says() {
        let listed = Cli::command();
        let mut built = Cli::command();
        built.build();
        for command in listed.get_subcommands() {
            let name = command.get_name();
            let about = built
                .find_subcommand(name)
                .and_then(|built| built.get_about());
            assert_eq!(
                about.map(ToString::to_string),
                command.get_about().map(ToString::to_string),
                "{name}"
            );
        }
    }

    #[test]
    fn the_short_help_of_a_command_fits_a_screen() {
        let mut command = Cli::command().term_width(80);
        command.build();
        for command in command.get_subcommands_mut() {
            let help = command.render_help().to_string();
            let name = command.get_name();
            assert!(help.lines().count() <= 48, "{name}: {help}");
            assert!(
                help.lines().all(|line| line.chars().count() <= 80),
                "{name}: {help}"
            );
        }
    }

    #[test]
    fn a_user_is_a_number_or_a_name_of_this_system() {
        assert_eq!(user("0"), Ok(0));
        assert_eq!(user("root"), Ok(0));
        for wrong in [
            "",
            "-1",
            "4294967295",
            "99999999999",
            "no such user",
            "a\0b",
        ] {
            assert!(user(wrong).is_err(), "{wrong:?}");
        }
    }
}
