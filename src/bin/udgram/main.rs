//! The `udgram` program: parses the command line, runs the subcommand, reports errors, and returns the
//! exit status.

mod admission;
mod cli;
mod cmd;
mod color;
mod endpoint;
mod envelope;
mod exit;
mod input;
mod json;
mod notify;
mod output;
mod printer;
mod process;
mod progress;
mod protocol;
mod receive;
mod reply;
mod report;
mod sender;
mod serve;
mod signal;
mod stats;
mod terminal;

use cli::{Cli, Command};
use exit::{Exit, Failure};
use nix::sys::signal::Signal;
use report::Report;
use stats::Stats;
use std::process::ExitCode;

fn main() -> ExitCode {
    // The Rust runtime ignores SIGPIPE; restore it. Commands that clean up block it in
    // `Signals::install`.
    let _ = process::default_action(Signal::SIGPIPE);
    // If the parent ignored SIGCHLD, we inherited that and waitpid(2) would fail with ECHILD. Restore
    // the default.
    let _ = process::default_action(Signal::SIGCHLD);
    let (exit, report) = match Cli::read(std::env::args_os()) {
        Ok(cli) => {
            let report = Report::new(cli.diagnostics.verbosity());
            (run(&cli.command, report), report)
        }
        Err(error) => return report::report_usage(&error),
    };
    let exit = exit.unwrap_or_else(|error| {
        let exit = Exit::of(&error);
        // The reader of stdout is gone: udgram ends silently, like other programs.
        if exit != Exit::Signal(Signal::SIGPIPE) {
            report.error(&error);
        }
        exit
    });
    if let Exit::Signal(signal) = exit {
        signal::die_of(signal);
    }
    exit.code()
}

fn run(command: &Command, report: Report) -> anyhow::Result<Exit> {
    command.check().map_err(Failure::usage)?;
    let stats = if command.stats() {
        Some(Stats::start(report)?)
    } else {
        None
    };
    let exit = match command {
        Command::Send(options) => cmd::send::run(options, report),
        Command::Recv(options) => cmd::recv::run(options, report),
        Command::Listen(options) => cmd::listen::run(options, report),
        Command::Iter(options) => cmd::iter::run(options, report),
        Command::Sockopt(options) => cmd::sockopt::run(options, report),
        Command::Exec(options) => cmd::exec::run(options, report),
        Command::Completions(options) => cmd::completions::run(options),
    };
    if let Some(stats) = stats {
        stats.tell();
    }
    exit
}
