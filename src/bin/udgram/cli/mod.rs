//! Defines and parses the command line: the subcommands and their arguments. Help, manual pages and
//! completions are generated from these definitions: the first paragraph of an argument's
//! documentation is its line in `-h`; `--help` and the manual page have all of it.
//!
//! `socket` and `packets` define the arguments that commands share, `check` has the checks that clap
//! cannot express, `usage` words usage errors, `value` and `setting` parse values. This module does
//! not depend on the commands.

mod check;
mod packets;
pub(crate) mod setting;
mod socket;
pub(crate) mod usage;
pub(crate) mod value;

pub(crate) use packets::{Counting, Packets, Protocol, Receive, Shown, When};
pub(crate) use socket::{Inherited, Socket, SocketFile};

use crate::verbosity::Verbosity;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::time::Duration;
use udgram::Address;
use value::{
    Claim, Descriptor, Replies, Timeout, address, count, credentials, descriptor, number, peer,
    replies, timeout, user,
};

/// The commands, in the order of the help.
const COMMANDS: [&str; 9] = [
    "send",
    "recv",
    "listen",
    "iter",
    "ls",
    "sockopt",
    "exec",
    "completions",
    "help",
];

const MORE: &str = "\
Exit status: 0 done; 1 the system refused; 2 usage error; 3 not a valid packet; 4 peer
not found; 124 timed out; 126 CMD cannot be run; 127 CMD is not found; 128+N signal N.

'udgram COMMAND -h' lists the options of a command, --help explains them; man udgram.";

const SEND_EXAMPLES: &str = "\
Examples:
  udgram send app.sock '{\"op\":\"start\"}'           one packet
  udgram send app.sock <packets.jsonl             each line of a file
  udgram send -p text -r -t 2s ctrl/wlan0 PING    request and reply
  udgram send -w -t 10s app.sock </dev/null       wait for the peer
  udgram send --fd 3 app.sock '{}' 3<file         pass an open file";

const RECV_EXAMPLES: &str = "\
Examples:
  udgram recv app.sock                            print one packet
  udgram recv -t 5s -n 3 -e @name                 print three, with senders
  udgram recv in.sock -- cat /dev/fd/3            read a file that is passed";

const LISTEN_EXAMPLES: &str = "\
Examples:
  udgram listen --creds app.sock                  print senders and times
  udgram listen -p text --exec 'tr a-z A-Z' s     a server
  udgram listen -p text --peek -e /dev/log        observe a daemon's socket
  udgram listen -e app.sock >capture.jsonl        capture, and send again:
  udgram send -e app.sock <capture.jsonl";

const ITER_EXAMPLES: &str = "\
Examples:
  udgram iter --peek -e app.sock                  show the queue of a daemon
  udgram iter -t 1s app.sock                      packets of one second
  udgram iter -s 3                                empty an inherited queue";

const LS_EXAMPLES: &str = "\
Examples:
  udgram ls                                       all, sockets in trouble first
  udgram ls /dev/log                              whose it is, and whether it is full
  udgram ls --all /run/app.sock | jq .queued      number of queued datagrams
  udgram ls | jq -r 'select(.full).address'       sockets whose queue is full";

const SOCKOPT_EXAMPLES: &str = "\
Examples:
  udgram sockopt                                  options of a new socket
  udgram sockopt -s /run/app.sock queue           queue of a daemon's socket
  udgram sockopt -s 3 sndbuf=1MiB passcred=on     set, and print the result";

const EXEC_EXAMPLES: &str = "\
Examples:
  udgram exec -b me -c app.sock -- sh script      one socket for a script
  udgram exec -b app.sock -- ./daemon             activation without systemd";

/// Send and receive Unix datagrams: JSON lines, descriptors, credentials, deadlines
#[derive(Debug, Parser)]
#[command(name = "udgram", version, after_help = MORE, max_term_width = 100)]
#[command(
    disable_help_flag = true,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) diagnostics: Diagnostics,
}

/// A command line that runs no command.
#[derive(Debug)]
pub(crate) enum Unread {
    /// Prints the help or the version: to stderr, if no option asked for it.
    Help(clap::Error),
    /// The command line is wrong.
    Usage(anyhow::Error),
}

impl Cli {
    /// Parses and checks `arguments`, the first of which is the program's name.
    pub(crate) fn read(arguments: &[OsString]) -> Result<Self, Unread> {
        let refuse = |error: clap::Error| match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Unread::Help(error),
            _ => Unread::Usage(usage::refused(&error, arguments)),
        };
        let cli = Self::try_parse_from(arguments).map_err(refuse)?;
        if let Command::Help(Help { command }) = &cli.command {
            let mut asked = vec![OsString::from("udgram")];
            asked.extend(command.iter().map(OsString::from));
            asked.push("--help".into());
            return match Self::try_parse_from(&asked) {
                Ok(cli) => Ok(cli),
                Err(help) => Err(refuse(help)),
            };
        }
        if let Some(error) = usage::misunderstood(arguments, &cli.command) {
            return Err(Unread::Usage(error));
        }
        cli.check().map_err(Unread::Usage)?;
        Ok(cli)
    }
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Diagnostics {
    /// Print errors only
    ///
    /// Suppresses warnings and hints, but not errors.
    #[arg(short, long, global = true, display_order = 900)]
    pub(crate) quiet: bool,

    /// Also print the local and the peer address
    #[arg(short, long, global = true, display_order = 901)]
    pub(crate) verbose: bool,

    /// Print help: -h in short, --help in full
    #[arg(short, long, global = true, action = ArgAction::Help, display_order = 903)]
    help: Option<bool>,
}

impl Diagnostics {
    /// Returns which diagnostics are printed.
    pub(crate) fn verbosity(self) -> Verbosity {
        match self {
            Self { quiet: true, .. } => Verbosity::Quiet,
            Self { verbose: true, .. } => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Send packets: each PACKET, or else each line of stdin
    Send(Box<Send>),
    /// Bind ADDR, wait for one packet (or --count), print it or pass it to CMD
    Recv(Box<Recv>),
    /// Bind ADDR, print every packet until stopped
    Listen(Box<Listen>),
    /// Print the queued packets, within a total time limit
    Iter(Box<Iter>),
    /// List datagram sockets: whose, how full, stale or stuck
    Ls(Box<Ls>),
    /// Show or set the options of a socket
    Sockopt(Box<Sockopt>),
    /// Open a socket and run CMD with it as descriptor 3
    Exec(Box<Exec>),
    /// Print the completion script of a shell
    Completions(Completions),
    /// Print the help of udgram or of a command
    Help(Help),
}

#[derive(Debug, Args)]
#[command(
    after_help = SEND_EXAMPLES,
    override_usage = "udgram send [OPTIONS] PEER [PACKET]...\n       udgram send [OPTIONS] - [PACKET]...\n       udgram send [OPTIONS] --to ADDR [PACKET]...\n       udgram send [OPTIONS] --socket-fd FD|ADDR [PACKET]..."
)]
pub(crate) struct Send {
    /// Destination, then packets [default: lines of stdin]
    ///
    /// PEER is an address: a pathname, @NAME for an abstract name, or ./@NAME for the pathname
    /// @NAME. The PEER - is the inherited socket (UDGRAM_SOCKET_FD, socket activation) and the peer
    /// that it is connected to. With --to or --socket-fd there is no PEER: every argument is a
    /// packet. An empty argument sends an empty datagram; empty stdin sends nothing.
    #[arg(value_name = "PEER [PACKET]", allow_negative_numbers = true)]
    pub(crate) arguments: Vec<OsString>,

    /// Local address; '' for none [default: autobound]
    ///
    /// By default the kernel chooses an abstract name, so that the peer can answer. With '' the
    /// socket is unnamed and cannot be answered. A peer can answer to a pathname only if it has
    /// write permission on the socket file: see --mode. A relative pathname is bound in its
    /// absolute form.
    #[arg(short, long, value_name = "ADDR", value_parser = address(), help_heading = "Socket")]
    pub(crate) bind: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) socket: Socket,

    #[command(flatten)]
    pub(crate) file: SocketFile,

    /// Send to this address: every argument is a packet
    ///
    /// The packets are sent from the inherited socket if there is one, otherwise from a new one. The
    /// socket is not connected, so that any socket can answer. The 'to' of an envelope has
    /// precedence.
    #[arg(long, value_name = "ADDR", value_parser = peer(), help_heading = "Socket")]
    pub(crate) to: Option<Address<'static>>,

    /// Wait for a peer that does not exist, or goes away
    ///
    /// Waits within --timeout instead of failing with status 4. The current packet is sent again;
    /// none is lost. With no packets (</dev/null), nothing is sent and the exit status says whether
    /// the peer exists.
    #[arg(short, long, help_heading = "Socket")]
    pub(crate) wait: bool,

    #[command(flatten)]
    pub(crate) packets: Packets,

    /// Longest wait for peer, queue, reply (250ms, '1m 30s')
    ///
    /// Limits each wait: for space in the peer's queue, for the peer (--wait) and for each reply
    /// (--reply). A bare number is seconds, none is no limit. When it expires, the exit status is
    /// 124 and the message names what was awaited.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true, default_value = "none", hide_default_value = true, help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    /// Await N replies to each (default 1; all: till timeout)
    ///
    /// Replies are printed as recv prints packets. The command exits when the last reply arrives; no
    /// reply in time is status 124. With all, it exits when the timeout expires, with status 0. Packets
    /// that arrived before the request are reported, not counted. A peer that closes its socket before
    /// it replies is status 4.
    #[arg(short, long, value_name = "N", value_parser = replies, num_args = 0..=1, require_equals = true, default_missing_value = "1", help_heading = "Packets")]
    pub(crate) reply: Option<Replies>,

    /// Attach a descriptor to each packet; may repeat
    ///
    /// N is a descriptor of udgram, or a descriptor of process PID that is copied (pidfd_getfd(2),
    /// which needs the right to trace that process). One message carries at most 253.
    #[arg(long, value_name = "[PID:]N", value_parser = descriptor, help_heading = "Descriptors and credentials")]
    pub(crate) fd: Vec<Descriptor>,

    /// Attach credentials: its own, or these
    ///
    /// Attaches the numbers of process, user and group (SCM_CREDENTIALS). Credentials of another
    /// process need privileges: if the kernel refuses them, the status is 1. The option does not
    /// change how replies are printed.
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
    /// A pathname, @NAME for an abstract name, or ./@NAME for the pathname @NAME. A relative pathname
    /// is bound in its absolute form. Without ADDR, the command uses --socket-fd or the inherited
    /// socket; with --connect, it uses a new socket with an abstract name that the kernel chooses.
    #[arg(value_name = "ADDR", value_parser = peer())]
    pub(crate) address: Option<Address<'static>>,

    /// Run CMD with the packet and its descriptors
    ///
    /// CMD replaces udgram (execve(2)). It has the packet in UDGRAM_PACKET, the sender in
    /// UDGRAM_FROM and the received descriptors from 3 up, announced as sd_listen_fds(3) reads
    /// them. A packet with a NUL cannot be passed in a variable; -p hex and base64 avoid NULs.
    #[arg(value_name = "CMD", last = true)]
    pub(crate) command: Vec<OsString>,

    #[command(flatten)]
    pub(crate) receive: Receive,

    /// End after N packets
    ///
    /// Counts all datagrams. One that is not a valid packet is reported, and the exit status is 3;
    /// the command still waits for the rest.
    #[arg(short = 'n', long, value_name = "N", default_value = "1", value_parser = count, allow_negative_numbers = true, conflicts_with = "command", help_heading = "Packets")]
    pub(crate) count: u64,

    /// Longest wait for each packet (250ms, '1m 30s')
    ///
    /// A bare number is seconds, none is no limit. When it expires before all packets have arrived,
    /// the exit status is 124.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true, default_value = "none", hide_default_value = true, help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    /// Number of a received descriptor in CMD; may repeat
    ///
    /// The first descriptor gets the first number; the default is 3, 4, and so on. Fewer descriptors
    /// than numbers are an error. Surplus descriptors are closed, with a warning. A number given
    /// twice is a usage error.
    #[arg(long, value_name = "N", value_parser = number, allow_negative_numbers = true, help_heading = "Descriptors and credentials")]
    pub(crate) fd: Vec<RawFd>,
}

#[derive(Debug, Args)]
#[command(after_help = LISTEN_EXAMPLES, override_usage = "udgram listen [OPTIONS] ADDR")]
pub(crate) struct Listen {
    /// The address to bind; with --peek, to observe
    ///
    /// A pathname, @NAME for an abstract name, or ./@NAME for the pathname @NAME. A relative pathname
    /// is bound in its absolute form. Without ADDR, the command uses --socket-fd or the inherited
    /// socket; with --connect, it uses a new socket with an abstract name that the kernel chooses.
    #[arg(value_name = "ADDR", value_parser = peer())]
    pub(crate) address: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) receive: Receive,

    /// End after N packets
    ///
    /// Counts all datagrams, valid packets or not. Without this option, listen ends by a signal, by
    /// the end of the reader of stdout or by --timeout.
    #[arg(short = 'n', long, value_name = "N", value_parser = count, allow_negative_numbers = true, help_heading = "Packets")]
    pub(crate) count: Option<u64>,

    /// Longest wait for each packet (250ms, '1m 30s')
    ///
    /// A bare number is seconds, none is no limit. When it expires, listen exits: with status 124
    /// if --count is given, otherwise with 0.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true, default_value = "none", hide_default_value = true, help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    /// Print what is sent to another process's socket
    ///
    /// Binds nothing: ADDR or --socket-fd is the socket of a running process. Each datagram is printed
    /// whole when it is sent, and reaches that socket unchanged: a BPF socket filter copies it.
    /// Envelopes have the time, and the process, user, group and command that sent the datagram, but
    /// not its address or descriptors. This needs the right to trace the process, CAP_BPF, and, for
    /// the credentials of senders, CAP_PERFMON.
    #[arg(long, conflicts_with_all = ["connect", "sockopt", "mode", "owner", "replace", "ancillary_bufsize", "allow_uid", "echo", "exec"], help_heading = "Packets")]
    pub(crate) peek: bool,

    /// Accept packets of this user only; may repeat
    ///
    /// Takes a number or a name. The kernel verifies the user of the sender. Packets of other users
    /// are dropped and counted, and their descriptors are closed.
    #[arg(long, value_name = "UID|NAME", value_parser = user, help_heading = "Descriptors and credentials")]
    pub(crate) allow_uid: Vec<u32>,

    /// Send every datagram back to its sender
    ///
    /// Echoed byte for byte, valid packet or not, and printed. An echo waits for space in the
    /// client's queue for up to a second; a failed echo is only reported, once for each client.
    #[arg(long, conflicts_with = "exec", help_heading = "Packets")]
    pub(crate) echo: bool,

    /// Run CMD for each packet; what it prints is the reply
    ///
    /// Runs CMD by sh -c, for one packet at a time, with the bytes of the datagram on its stdin. Its
    /// environment has UDGRAM_FROM, UDGRAM_PID, UDGRAM_UID and UDGRAM_GID, and the received
    /// descriptors are numbered from 3 up; UDGRAM_FDS is their number. When CMD ends, its output is
    /// sent to the sender as one datagram, unless it is empty. One final newline is removed from it
    /// (not with -p raw).
    #[arg(long, value_name = "CMD", help_heading = "Packets")]
    pub(crate) exec: Option<OsString>,
}

#[derive(Debug, Args)]
#[command(after_help = ITER_EXAMPLES, override_usage = "udgram iter [OPTIONS] [ADDR]")]
pub(crate) struct Iter {
    /// Address to bind; with --peek, of a bound socket
    ///
    /// A pathname, @NAME for an abstract name, or ./@NAME for the pathname @NAME. A relative pathname
    /// is bound in its absolute form. Without ADDR, the command uses --socket-fd or the inherited
    /// socket.
    /// With --peek nothing is bound: the command shows the queue of the socket that is bound to ADDR,
    /// whichever process holds it.
    #[arg(value_name = "ADDR", value_parser = peer())]
    pub(crate) address: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) receive: Receive,

    /// End after N packets
    ///
    /// Counts all datagrams, valid packets or not.
    #[arg(short = 'n', long, value_name = "N", value_parser = count, allow_negative_numbers = true, help_heading = "Packets")]
    pub(crate) count: Option<u64>,

    /// Time for all packets together (250ms; default 0)
    ///
    /// A bare number is seconds, none is no limit; 0 prints everything that was queued at the start.
    /// The time to write output does not count. Timing out is normal here: status 0.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true, help_heading = "Packets")]
    timeout: Option<Timeout>,

    /// Leave the packets in the queue
    ///
    /// Uses SO_PEEK_OFF (socket(7)), and restores it: the program that owns the socket notices
    /// nothing, unless it peeks, too. The kernel shows an empty packet to the first peek only.
    #[arg(long, conflicts_with_all = ["timeout", "creds"], help_heading = "Packets")]
    pub(crate) peek: bool,
}

impl Iter {
    /// Returns the time for all packets together.
    pub(crate) fn timeout(&self) -> Timeout {
        self.timeout.unwrap_or(Timeout(Some(Duration::ZERO)))
    }
}

#[derive(Debug, Args)]
#[command(after_help = LS_EXAMPLES, override_usage = "udgram ls [OPTIONS] [ADDR]...")]
pub(crate) struct Ls {
    /// List the sockets bound to ADDR [default: all with a name]
    ///
    /// A pathname, @NAME for an abstract name, or ./@NAME for the pathname @NAME. If no socket is bound to
    /// it, the exit status is 4.
    #[arg(value_name = "ADDR", value_parser = peer())]
    pub(crate) addresses: Vec<Address<'static>>,

    /// Count each queue; list sockets without a name, too
    ///
    /// udgram looks through each queue in a copy of the socket (pidfd_getfd(2), which needs the right to
    /// trace a process that holds it); if that is refused, 'queued' is absent. No packet is removed.
    #[arg(short, long, help_heading = "Output")]
    pub(crate) all: bool,

    /// Print an address and a description a line, for completion scripts
    #[arg(long, hide = true)]
    pub(crate) candidates: bool,

    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Args)]
#[command(after_help = SOCKOPT_EXAMPLES, override_usage = "udgram sockopt [OPTIONS] [NAME[=VALUE]]...")]
pub(crate) struct Sockopt {
    /// Options to print (NAME) or set (NAME=VALUE) [default: print all]
    ///
    /// NAME is SO_RCVBUF, rcvbuf, or LEVEL:NUMBER for an option that udgram does not know; local, peer
    /// and queue print these parts of the listing. VALUE
    /// depends on the option: an integer, on or off, a size (1MiB), a duration, or hex:BYTES. After
    /// setting an option, its value is read back from the kernel and printed.
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
    /// The socket is descriptor 3 of CMD. Its environment has UDGRAM_SOCKET_FD=3,
    /// UDGRAM_SOCKET_INODE, LISTEN_FDS=1, LISTEN_PID, LISTEN_FDNAMES and, with --connect,
    /// UDGRAM_PEER (the absolute address of the peer). udgram forwards signals to CMD and exits
    /// with its status.
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

#[derive(Debug, Args)]
#[command(override_usage = "udgram help [COMMAND]")]
pub(crate) struct Help {
    /// The command [default: all of udgram]
    #[arg(value_name = "COMMAND", value_parser = COMMANDS, hide_possible_values = true)]
    pub(crate) command: Option<String>,
}

/// A shell that has a completion script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// Source it, or save it as ~/.local/share/bash-completion/completions/udgram
    Bash,
    /// Save it as _udgram in a directory of $fpath
    Zsh,
    /// Save it as ~/.config/fish/completions/udgram.fish
    Fish,
    /// Source it in rc.elv
    Elvish,
    /// Source it in $PROFILE
    Powershell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

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
}
