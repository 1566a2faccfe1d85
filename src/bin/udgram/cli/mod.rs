//! Defines and parses the command line: the subcommands and their arguments. Help, manual pages and
//! completions are generated from these definitions: the first paragraph of an argument's
//! documentation is its line in `-h`; `--help` adds the second, and the manual page has all of them.
//!
//! Each command has a module of its own. `socket` and `packets` define the arguments that commands
//! share, `check` has the checks that clap cannot express, `help` words `--help` and `usage` the usage
//! errors, `value` and `setting` parse values. This module does not depend on the commands of `cmd`.

mod check;
mod exec;
mod help;
mod iter;
mod listen;
mod ls;
mod packets;
mod recv;
mod relay;
mod send;
pub(crate) mod setting;
mod socket;
mod sockopt;
mod talk;
pub(crate) mod usage;
pub(crate) mod value;

pub(crate) use exec::{Exec, ServiceManager};
pub(crate) use iter::Iter;
pub(crate) use listen::Listen;
pub(crate) use ls::Ls;
pub(crate) use packets::{Packets, Protocol, Receive, Shown, Terminator, When};
pub(crate) use recv::Recv;
pub(crate) use relay::Relay;
pub(crate) use send::Send;
pub(crate) use socket::{Depth, Inherited, SocketFile};
pub(crate) use sockopt::Sockopt;
pub(crate) use talk::Talk;

use crate::verbosity::Verbosity;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::mem::ManuallyDrop;

/// The commands, in the order of the help.
const COMMANDS: [&str; 11] = [
    "send",
    "recv",
    "listen",
    "iter",
    "talk",
    "relay",
    "ls",
    "sockopt",
    "exec",
    "completions",
    "help",
];

const MORE: &str = "\
Exit status: 0 done; 1 the system refused; 2 usage error; 3 not a valid packet; 4 peer
not found; 124 timed out; 126 CMD cannot be run; 127 CMD is not found; 128+N signal N.

'udgram COMMAND -h' lists the main options, --help all; manual: man udgram.";

const SCRIPTS: &str = "\
Where the script goes:
  bash            ~/.local/share/bash-completion/completions/udgram
  zsh             _udgram in a directory of $fpath
  fish            ~/.config/fish/completions/udgram.fish
  elvish          source it in rc.elv
  powershell      source it in $PROFILE";

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
        let arguments = &usage::null_spelled_out(arguments);
        let refuse = |error: clap::Error| match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Unread::Help(error),
            _ => Unread::Usage(usage::refused(&error, arguments)),
        };
        let cli = Self::parse_words(arguments).map_err(refuse)?;
        if let Command::Help(Help { command }) = &cli.command {
            let mut asked = vec![OsString::from("udgram")];
            asked.extend(command.iter().map(OsString::from));
            asked.push("--help".into());
            return match Self::parse_words(&asked) {
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

    /// Parses `arguments` without the checks that clap cannot express. The definitions are not freed: that takes
    /// 50,000 of the 680,000 instructions of `send PEER PACKET`.
    fn parse_words(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let in_detail = arguments.iter().any(|argument| argument == "--help");
        let mut command = ManuallyDrop::new(if in_detail {
            help::detailed()
        } else {
            Self::command()
        });
        let matches = command.try_get_matches_from_mut(arguments)?;
        let mut matches = ManuallyDrop::new(matches);
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Diagnostics {
    /// Print errors only
    ///
    /// Suppresses warnings and hints.
    #[arg(short, long, global = true, display_order = 900)]
    pub(crate) quiet: bool,

    /// Also print the local and the peer address
    ///
    /// Commands that open no socket (ls, completions) have none to print.
    #[arg(short, long, global = true, display_order = 901)]
    pub(crate) verbose: bool,

    /// Print help: -h the main options, --help all
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
    /// Send lines of stdin as they come, print packets as they come
    Talk(Box<Talk>),
    /// Pass packets between clients of ADDR and PEER, print what passes
    Relay(Box<Relay>),
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
#[command(after_help = SCRIPTS, override_usage = "udgram completions [OPTIONS] SHELL")]
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
    Bash,
    Zsh,
    Fish,
    Elvish,
    Powershell,
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
}
