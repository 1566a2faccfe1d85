//! The command line: the subcommands, their arguments, and how they are read. Help, manual pages
//! and completions are made from these definitions: the first paragraph of an argument's
//! documentation is its line in `-h`; all of it is in `--help` and in the manual page.
//!
//! `socket` and `packets` define the arguments that commands share, `check` what clap cannot
//! check, `usage` says what is wrong, `value` and `setting` parse the values written for arguments.
//! What the commands do with them is not known here.

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
const COMMANDS: [&str; 8] = [
    "send",
    "recv",
    "listen",
    "iter",
    "sockopt",
    "exec",
    "completions",
    "help",
];

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
  udgram listen -p text --peek -e /dev/log        what is sent to a daemon
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
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) diagnostics: Diagnostics,
}

/// A command line that asks for nothing to be done.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The help or the version is to be printed: to stderr, if it was not asked for.
    Help(clap::Error),
    /// It is wrong.
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
    /// Warnings and hints are left out; errors are not.
    #[arg(short, long, global = true, display_order = 900)]
    pub(crate) quiet: bool,

    /// Print the local and the peer address, too
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
    /// Print the help of udgram or of a command
    Help(Help),
}

#[derive(Debug, Args)]
#[command(
    after_help = SEND_EXAMPLES,
    override_usage = "udgram send [OPTIONS] PEER [PACKET]...\n       udgram send [OPTIONS] - [PACKET]...\n       udgram send [OPTIONS] --to ADDR [PACKET]...\n       udgram send [OPTIONS] --socket-fd FD [PACKET]..."
)]
pub(crate) struct Send {
    /// Where to send, then packets [default: lines of stdin]
    ///
    /// PEER is an address: a pathname, @NAME for an abstract name, or ./@NAME for the pathname
    /// @NAME. A single - is the inherited socket (UDGRAM_SOCKET_FD, socket activation) and the peer
    /// that it is connected to. With --to and with --socket-fd there is no PEER: every argument is a
    /// packet. An empty argument is an empty datagram; empty stdin is no packet.
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
    /// The packets are sent from the inherited socket, or else from a new one, which is not connected:
    /// any socket can answer. The 'to' of an envelope has precedence.
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
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true, default_value = "none", hide_default_value = true, help_heading = "Packets")]
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
    #[arg(short = 'n', long, value_name = "N", default_value = "1", value_parser = count, allow_negative_numbers = true, conflicts_with = "command", help_heading = "Packets")]
    pub(crate) count: u64,

    /// Longest wait for each packet (250ms, '1m 30s')
    ///
    /// A bare number is seconds, none is no limit. When it runs out before the packet or packets
    /// asked for have come, the exit status is 124.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true, default_value = "none", hide_default_value = true, help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    /// Number that CMD gets a descriptor at; may repeat
    ///
    /// The first that came is at the first number; default 3, 4, and so on. More numbers than descriptors came is an error; more descriptors than numbers are closed,
    /// with a warning. A number given twice is a usage error.
    #[arg(long, value_name = "N", value_parser = number, allow_negative_numbers = true, help_heading = "Descriptors and credentials")]
    pub(crate) fd: Vec<RawFd>,
}

#[derive(Debug, Args)]
#[command(after_help = LISTEN_EXAMPLES, override_usage = "udgram listen [OPTIONS] ADDR")]
pub(crate) struct Listen {
    /// The address to bind; with --peek, to observe
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
    #[arg(short = 'n', long, value_name = "N", value_parser = count, allow_negative_numbers = true, help_heading = "Packets")]
    pub(crate) count: Option<u64>,

    /// Longest wait for each packet (250ms, '1m 30s')
    ///
    /// A bare number is seconds, none is no limit. When it runs out, listen ends: with status 124
    /// if there is a --count, else with 0.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true, default_value = "none", hide_default_value = true, help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    /// Print what is sent to a socket of others, and leave it
    ///
    /// Nothing is bound: ADDR, or --socket-fd, is the socket of a process that runs. Each datagram that
    /// is sent to it is printed when it is sent, whole, and reaches it unchanged: a BPF socket filter
    /// copies it on its way. Envelopes have the time, and the process, user, group and command that
    /// sent it; not its address nor its descriptors. It needs the right to trace the process,
    /// CAP_BPF, and for senders CAP_PERFMON.
    #[arg(long, conflicts_with_all = ["connect", "sockopt", "mode", "owner", "replace", "ancillary_bufsize", "allow_uid", "echo", "exec"], help_heading = "Packets")]
    pub(crate) peek: bool,

    /// Take packets of this user only; may repeat
    ///
    /// It is a number or a name; the kernel's word for the sender decides. The packets of others are
    /// dropped and counted, and what they brought is closed.
    #[arg(long, value_name = "UID|NAME", value_parser = user, help_heading = "Descriptors and credentials")]
    pub(crate) allow_uid: Vec<u32>,

    /// Send every datagram back to its sender
    ///
    /// It is sent as it came, valid packet or not, and printed too. One that cannot be sent is
    /// reported, once for each client.
    #[arg(long, conflicts_with = "exec", help_heading = "Packets")]
    pub(crate) echo: bool,

    /// Run CMD for each packet; what it prints is the reply
    ///
    /// CMD is run by sh -c, one at a time, with the datagram's bytes on its stdin, UDGRAM_FROM,
    /// UDGRAM_PID, UDGRAM_UID and UDGRAM_GID in its environment, and the UDGRAM_FDS received
    /// descriptors from 3 up. When it ends, what it has printed, less one final newline (with -p raw:
    /// unchanged), is sent to the sender as one datagram, unless it is empty.
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
    #[arg(short = 'n', long, value_name = "N", value_parser = count, allow_negative_numbers = true, help_heading = "Packets")]
    pub(crate) count: Option<u64>,

    /// Time for all packets together (250ms; default 0)
    ///
    /// A bare number is seconds, none is no limit; 0 prints only what is there already. That it
    /// runs out is the normal end, with status 0.
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true, help_heading = "Packets")]
    timeout: Option<Timeout>,

    /// Leave the packets in the queue
    ///
    /// The socket's options stay as they were, too (SO_PEEK_OFF and MSG_PEEK; socket(7), recv(2)):
    /// the program that the socket belongs to notices
    /// nothing, unless it peeks itself.
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
    /// It finds the socket at descriptor 3, and UDGRAM_SOCKET_FD=3, UDGRAM_SOCKET_INODE, LISTEN_FDS=1,
    /// LISTEN_PID, LISTEN_FDNAMES and, with --connect, UDGRAM_PEER (the absolute address of the peer)
    /// in its environment. Signals are passed on to it, and its end is udgram's.
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
