//! The `udgram` program: parses the command line, runs the subcommand, reports its error and returns the
//! exit status.

mod admission;
mod answering;
mod cli;
mod cmd;
mod color;
mod commands;
mod endpoint;
mod envelope;
mod exit;
mod handler;
mod histogram;
mod inherited;
mod input;
mod invalid;
mod json;
mod lasting_command;
mod limits;
mod lines;
mod listing;
mod manager;
mod notify;
mod output;
mod overview;
mod pacing;
mod peek;
mod pipe_command;
mod prepared;
mod preparer;
mod printer;
mod process;
mod progress;
mod protocol;
mod receive;
mod relay;
mod reply;
mod report;
mod sender;
mod serve;
mod shell;
mod shell_command;
mod signal;
mod socket_file;
mod stats;
mod stderr;
mod strangers;
mod supervision;
mod table;
mod talk;
mod terminal;
mod unanswered;
mod verbosity;
mod witness;

use cli::usage::help_of;
use cli::{Cli, Command, Unread};
use exit::{Exit, has_kind};
use nix::sys::signal::Signal;
use report::Report;
use stats::Stats;
use std::ffi::OsString;
use std::process::ExitCode;
use udgram::ErrorKind;
use verbosity::Verbosity;

fn main() -> ExitCode {
    process::set_actions();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let (exit, report) = match Cli::read(&arguments) {
        Ok(cli) => {
            let report = Report::new(cli.diagnostics.verbosity());
            (run(&cli.command, report), report)
        }
        Err(Unread::Usage(error)) => (Err(error), Report::new(Verbosity::Normal)),
        Err(Unread::Help(help)) => return report::print_help(&help),
    };
    let exit = exit.unwrap_or_else(|error| {
        // A command without a cleanup of its own returns this error unchanged.
        if has_kind(&error, ErrorKind::Stopped) {
            if let Some(signal) = signal::take_stop() {
                return Exit::Signal(signal);
            }
        }
        let exit = Exit::of(&error);
        match exit {
            // The reader of stdout has exited: end without a message, as other programs do.
            Exit::Signal(Signal::SIGPIPE) => {}
            Exit::Usage => report.usage_error(&error, &help_of(&arguments)),
            _ => report.error(&error),
        }
        exit
    });
    stderr::finish();
    if let Some(signal) = exit.signal() {
        process::end_by_signal(signal);
    }
    exit.code()
}

/// Runs the subcommand.
fn run(command: &Command, report: Report) -> anyhow::Result<Exit> {
    // `exec` waits for SIGCHLD itself.
    if process::inherits_orphans() && !matches!(command, Command::Exec(_)) {
        signal::on_every(Signal::SIGCHLD, process::reap_orphans)?;
        // A child may have ended before a shell executed udgram: the kernel does not repeat SIGCHLD.
        process::reap_orphans();
    }
    let stats = match command.stats() {
        Some(reporting) => {
            let round_trips = command.measures_round_trips();
            Some(Stats::start(report, reporting, round_trips)?)
        }
        None => None,
    };
    let exit = match command {
        Command::Send(options) => cmd::send::run(options, report),
        Command::Recv(options) => cmd::recv::run(options, report),
        Command::Listen(options) if options.peek => cmd::peek::run(options, report),
        Command::Listen(options) => cmd::listen::run(options, report),
        Command::Iter(options) => cmd::iter::run(options, report),
        Command::Talk(options) => cmd::talk::run(options, report),
        Command::Relay(options) => cmd::relay::run(options, report),
        Command::Ls(options) => cmd::ls::run(options, report),
        Command::Sockopt(options) => cmd::sockopt::run(options, report),
        Command::Exec(options) => cmd::exec::run(options, report),
        Command::Completions(options) => cmd::completions::run(options),
        // Never reached: `Cli::read` returns the help instead.
        Command::Help(_) => Ok(Exit::Done),
    };
    if let Some(stats) = stats {
        stats.conclude();
    }
    exit
}
