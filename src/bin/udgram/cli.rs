//! The command line: what a user may write, checked and turned into values. What is done with
//! them is not known here. Help, manual pages and completions come from these definitions.

use crate::exit::{Exit, Failure};
use crate::report::Report;
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use nix::unistd::User;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::Duration;
use udgram::Address;
use udgram::ancillary::{Credentials, MAX_DESCRIPTORS};

const EXIT_STATUS: &str = "\
Exit status: 0 done; 1 the system refused; 2 usage; 3 no valid packet; 4 nobody is there; \
124 timed out; 126, 127 CMD cannot be run, is not found; 128+N ended by signal N.";

/// Send and receive Unix datagrams: JSON lines, descriptors, credentials, deadlines
#[derive(Debug, Parser)]
#[command(name = "udgram", version, after_help = EXIT_STATUS, max_term_width = 100)]
#[command(
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

#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Diagnostics {
    /// Print errors only: no warnings, no hints
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        display_order = 900
    )]
    pub(crate) quiet: bool,

    /// Print what is done, too: the local and the peer address
    #[arg(short, long, global = true, display_order = 901)]
    pub(crate) verbose: bool,
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
}

#[derive(Debug, Args)]
#[command(
    override_usage = "udgram send [OPTIONS] PEER [PACKET]...\n       udgram send [OPTIONS] --to ADDR [PACKET]...\n       udgram send [OPTIONS] --socket-fd FD [PACKET]..."
)]
pub(crate) struct Send {
    /// The address to send to (left out with --to, --socket-fd or an inherited socket), then the
    /// packets; without any, each line of stdin is one
    #[arg(value_name = "PEER [PACKET]", allow_negative_numbers = true)]
    pub(crate) arguments: Vec<OsString>,

    /// Local address; without it the kernel chooses an abstract name, so that the peer can answer;
    /// '' leaves the socket unnamed
    #[arg(short, long, value_name = "ADDR", value_parser = address(), help_heading = "Socket")]
    pub(crate) bind: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) socket: Socket,

    #[command(flatten)]
    pub(crate) file: SocketFile,

    /// Send to this address: every argument is then a packet
    #[arg(long, value_name = "ADDR", value_parser = peer(), help_heading = "Socket")]
    pub(crate) to: Option<Address<'static>>,

    /// When the peer is not there yet, or goes away, wait for it instead of failing
    #[arg(short, long, help_heading = "Socket")]
    pub(crate) wait: bool,

    #[command(flatten)]
    pub(crate) packets: Packets,

    /// The longest wait for room in the peer's queue, for the peer (--wait) and for each reply:
    /// 250ms, '1m 30s'; a bare number is seconds; none is no limit
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, default_value = "none", help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    /// After each packet wait for N replies and print them; all: until the timeout
    #[arg(short, long, value_name = "N", value_parser = replies, num_args = 0..=1, require_equals = true, default_missing_value = "1", help_heading = "Packets")]
    pub(crate) reply: Option<Replies>,

    /// Attach descriptor N, of process PID if given, to every packet; may repeat
    #[arg(long, value_name = "[PID:]N", value_parser = descriptor, help_heading = "Descriptors and credentials")]
    pub(crate) fd: Vec<Descriptor>,

    /// Attach credentials: this process's own, or those given
    #[arg(long, value_name = "PID:UID:GID", value_parser = credentials, num_args = 0..=1, require_equals = true, default_missing_value = "own", help_heading = "Descriptors and credentials")]
    pub(crate) creds: Option<Claim>,
}

#[derive(Debug, Args)]
#[command(override_usage = "udgram recv [OPTIONS] ADDR [-- CMD...]")]
pub(crate) struct Recv {
    /// The address to bind (left out with --socket-fd or an inherited socket)
    #[arg(value_name = "ADDR", value_parser = peer())]
    pub(crate) address: Option<Address<'static>>,

    /// Run CMD in place of udgram, with the packet in UDGRAM_PACKET, its sender in UDGRAM_FROM and
    /// the descriptors from 3 up
    #[arg(value_name = "CMD", last = true)]
    pub(crate) command: Vec<OsString>,

    #[command(flatten)]
    pub(crate) receive: Receive,

    /// End after N packets
    #[arg(short = 'n', long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "command", help_heading = "Packets")]
    pub(crate) count: u64,

    /// The longest wait for each packet: 250ms, '1m 30s'; a bare number is seconds; none is no limit
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, default_value = "none", help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    /// Give CMD the received descriptors at these numbers, in this order; default 3, 4, …
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(RawFd).range(0..), requires = "command", help_heading = "Descriptors and credentials")]
    pub(crate) fd: Vec<RawFd>,
}

#[derive(Debug, Args)]
#[command(override_usage = "udgram listen [OPTIONS] ADDR")]
pub(crate) struct Listen {
    /// The address to bind (left out with --socket-fd or an inherited socket)
    #[arg(value_name = "ADDR", value_parser = peer())]
    pub(crate) address: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) receive: Receive,

    /// End after N packets
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Packets")]
    pub(crate) count: Option<u64>,

    /// The longest wait for each packet: 250ms, '1m 30s'; a bare number is seconds; none is no limit
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, default_value = "none", help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    /// Take in the packets of this user only, by the kernel's word for the sender; may repeat. Those
    /// of others are dropped and counted, and what they brought is closed
    #[arg(long, value_name = "UID|NAME", value_parser = user, help_heading = "Descriptors and credentials")]
    pub(crate) allow_uid: Vec<u32>,

    /// Send every datagram back to its sender, as it came
    #[arg(long, conflicts_with = "exec", help_heading = "Packets")]
    pub(crate) echo: bool,

    /// Run CMD (by sh -c) for each packet, the datagram on its stdin; what it prints is the reply
    #[arg(long, value_name = "CMD", help_heading = "Packets")]
    pub(crate) exec: Option<OsString>,
}

#[derive(Debug, Args)]
#[command(override_usage = "udgram iter [OPTIONS] [ADDR]")]
pub(crate) struct Iter {
    /// The address to bind (left out with --socket-fd or an inherited socket)
    #[arg(value_name = "ADDR", value_parser = peer())]
    pub(crate) address: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) receive: Receive,

    /// End after N packets
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Packets")]
    pub(crate) count: Option<u64>,

    /// The time for all packets together; 0: only those that are there already
    #[arg(short, long, value_name = "DURATION", value_parser = timeout, default_value = "0", help_heading = "Packets")]
    pub(crate) timeout: Timeout,

    /// Leave the packets in the queue, and the socket's options as they were
    #[arg(long, conflicts_with_all = ["timeout", "creds"], help_heading = "Packets")]
    pub(crate) peek: bool,
}

#[derive(Debug, Args)]
#[command(override_usage = "udgram sockopt [OPTIONS] [NAME[=VALUE]]...")]
pub(crate) struct Sockopt {
    /// Options to print (NAME) or to set and print (NAME=VALUE); without any, all of them
    #[arg(value_name = "NAME[=VALUE]")]
    pub(crate) options: Vec<String>,

    /// Local address of a new socket
    #[arg(short, long, value_name = "ADDR", value_parser = address(), help_heading = "Socket")]
    pub(crate) bind: Option<Address<'static>>,

    /// Connect the socket to this peer
    #[arg(short, long, value_name = "ADDR", value_parser = peer(), help_heading = "Socket")]
    pub(crate) connect: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) inherited: Inherited,

    #[command(flatten)]
    pub(crate) file: SocketFile,
}

#[derive(Debug, Args)]
#[command(override_usage = "udgram exec [OPTIONS] -- CMD...")]
pub(crate) struct Exec {
    /// The program to run, with its arguments
    #[arg(value_name = "CMD", last = true, required = true)]
    pub(crate) command: Vec<OsString>,

    /// Local address of the socket
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

/// What every command that receives takes.
#[derive(Debug, Args)]
pub(crate) struct Receive {
    /// Exchange packets with this peer only
    #[arg(short, long, value_name = "ADDR", value_parser = peer(), help_heading = "Socket")]
    pub(crate) connect: Option<Address<'static>>,

    #[command(flatten)]
    pub(crate) socket: Socket,

    #[command(flatten)]
    pub(crate) file: SocketFile,

    #[command(flatten)]
    pub(crate) packets: Packets,

    /// Ask for the sender's credentials; implies --envelope
    #[arg(long, help_heading = "Descriptors and credentials")]
    pub(crate) creds: bool,

    /// Room for control data in bytes; default CMSG_SPACE(8192), which holds all that can come
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(..=16 << 20), help_heading = "Descriptors and credentials")]
    pub(crate) ancillary_bufsize: Option<u32>,
}

/// Where the socket comes from, and how it is set up.
#[derive(Debug, Args)]
#[command(next_help_heading = "Socket")]
pub(crate) struct Socket {
    #[command(flatten)]
    pub(crate) inherited: Inherited,

    /// Set a socket option before use; may repeat
    #[arg(short = 'o', long, value_name = "NAME=VALUE")]
    pub(crate) sockopt: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Socket")]
pub(crate) struct Inherited {
    /// Use this open socket: descriptor FD of udgram, or a copy of FD of process PID
    #[arg(short, long, value_name = "[PID:]FD", value_parser = descriptor)]
    pub(crate) socket_fd: Option<Descriptor>,
}

/// The socket file that binding a pathname makes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Socket")]
pub(crate) struct SocketFile {
    /// Permission bits of the socket file, whatever the umask
    #[arg(short, long, value_name = "OCTAL", value_parser = mode, default_value = "0600")]
    pub(crate) mode: u32,

    /// Owner, and group, of the socket file
    #[arg(long, value_name = "UID[:GID]", value_parser = owner)]
    pub(crate) owner: Option<(u32, Option<u32>)>,

    /// Take over a pathname that another live socket holds
    #[arg(long)]
    pub(crate) replace: bool,
}

/// How datagrams and lines translate.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Packets")]
pub(crate) struct Packets {
    /// How datagrams and lines translate
    #[arg(short, long, value_name = "NAME", value_enum, default_value = "json")]
    pub(crate) protocol: Protocol,

    /// Lines are envelopes: JSON objects with the packet and what is known about it
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

/// `--timeout`: `None` is no limit.
pub(crate) type Timeout = OptionalDuration;

#[derive(Debug, Clone, Copy)]
pub(crate) struct OptionalDuration(pub(crate) Option<Duration>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replies {
    Count(u64),
    All,
}

/// `--creds` of send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// This process's own credentials.
    Own,
    /// These.
    Of(Credentials),
}

/// A descriptor of this process or of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) pid: Option<i32>,
    pub(crate) number: RawFd,
}

/// An address; the empty string is the unnamed one.
fn address() -> ValueParser {
    OsStringValueParser::new()
        .try_map(|written| {
            Address::parse(written.as_bytes())
                .map(Address::into_owned)
                .map_err(|error| cause(&error))
        })
        .into()
}

/// An address that has a name.
fn peer() -> ValueParser {
    OsStringValueParser::new()
        .try_map(|written| parse_peer(&written))
        .into()
}

pub(crate) fn parse_peer(written: &OsString) -> Result<Address<'static>, String> {
    match Address::parse(written.as_bytes()) {
        Ok(Address::Unnamed) => Err("the address is empty".to_owned()),
        parsed => parsed
            .map(Address::into_owned)
            .map_err(|error| cause(&error)),
    }
}

fn cause(error: &udgram::Error) -> String {
    error.cause().to_owned()
}

fn timeout(written: &str) -> Result<OptionalDuration, String> {
    if written == "none" {
        return Ok(OptionalDuration(None));
    }
    parse_duration(written).map(|duration| OptionalDuration(Some(duration)))
}

/// `250ms`, `1m 30s`; a bare number, with a fraction if need be, is seconds.
pub(crate) fn parse_duration(written: &str) -> Result<Duration, String> {
    let bare = !written.is_empty()
        && written
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if bare {
        let seconds = written
            .parse::<f64>()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        return seconds.ok_or_else(|| "not a number of seconds".to_owned());
    }
    humantime::parse_duration(written).map_err(|error| error.to_string())
}

fn replies(written: &str) -> Result<Replies, String> {
    match written {
        "all" => Ok(Replies::All),
        number => match number.parse() {
            Ok(count) if count > 0 => Ok(Replies::Count(count)),
            _ => Err("a number from 1 up, or 'all'".to_owned()),
        },
    }
}

fn descriptor(written: &str) -> Result<Descriptor, String> {
    let (pid, number) = match written.split_once(':') {
        Some((pid, number)) => (Some(pid), number),
        None => (None, written),
    };
    let pid = pid.map(|pid| {
        pid.parse()
            .ok()
            .filter(|pid| *pid > 0)
            .ok_or("the process is a number from 1 up")
    });
    let number = number.parse().ok().filter(|number| *number >= 0);
    Ok(Descriptor {
        pid: pid.transpose()?,
        number: number.ok_or("a descriptor is a number from 0 up, with a process as PID:FD")?,
    })
}

fn credentials(written: &str) -> Result<Claim, String> {
    if written == "own" {
        return Ok(Claim::Own);
    }
    let parts: Vec<&str> = written.split(':').collect();
    let [pid, uid, gid] = parts.as_slice() else {
        return Err("three numbers, PID:UID:GID".to_owned());
    };
    let parsed = (pid.parse(), uid.parse(), gid.parse());
    let (Ok(pid), Ok(uid), Ok(gid)) = parsed else {
        return Err("three numbers, PID:UID:GID".to_owned());
    };
    if pid < 1 {
        return Err("PID is a number from 1 up".to_owned());
    }
    Ok(Claim::Of(Credentials { pid, uid, gid }))
}

fn mode(written: &str) -> Result<u32, String> {
    match u32::from_str_radix(written, 8) {
        Ok(mode) if mode <= 0o7777 && !written.starts_with('+') => Ok(mode),
        _ => Err("permission bits are octal digits, 0 to 7777".to_owned()),
    }
}

fn owner(written: &str) -> Result<(u32, Option<u32>), String> {
    let refused = |_| "user and group are numbers, UID or UID:GID".to_owned();
    match written.split_once(':') {
        None => Ok((written.parse().map_err(refused)?, None)),
        Some((uid, gid)) => Ok((
            uid.parse().map_err(refused)?,
            Some(gid.parse().map_err(refused)?),
        )),
    }
}

/// A user, by number or by name.
fn user(written: &str) -> Result<u32, String> {
    if !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_digit()) {
        // The highest number means none to every system call.
        return match written.parse() {
            Ok(uid) if uid < u32::MAX => Ok(uid),
            _ => Err("there is no user of so high a number".to_owned()),
        };
    }
    match User::from_name(written) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err("there is no user of this name".to_owned()),
        Err(errno) => Err(format!(
            "the user cannot be looked up: {}",
            udgram::describe(errno)
        )),
    }
}

/// Checks what clap cannot: in one line, what is wrong.
impl Command {
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Send(send) => send.check(),
            Self::Recv(recv) => recv
                .receive
                .check(!recv.command.is_empty())
                .and_then(|()| recv.check()),
            Self::Listen(listen) => listen.receive.check(listen.exec.is_some()),
            Self::Iter(iter) => iter.receive.check(false),
            Self::Sockopt(_) | Self::Exec(_) => Ok(()),
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
    Report::new(Diagnostics {
        quiet: false,
        verbose: false,
    })
    .error(&Failure::usage(message));
    Exit::Usage.code()
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

    #[test]
    fn a_bare_number_is_seconds() {
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        for wrong in ["", ".", "-1", "1e3", "1 fortnight", "99999999999999999999"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
