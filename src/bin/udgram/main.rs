//! The `udgram` program: parse, run, report, exit status, and nothing else.

mod admission;
mod cli;
mod cmd;
mod color;
mod endpoint;
mod envelope;
mod exit;
mod input;
mod line;
mod output;
mod process;
mod progress;
mod receive;
mod report;
mod signal;
mod stats;
mod terminal;
mod value;

use cli::{Cli, Command};
use exit::{Exit, Failure};
use nix::sys::signal::Signal;
use report::Report;
use stats::Stats;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Rust starts with SIGPIPE ignored. Where nothing is to be cleaned up it ends the program as
    // it ends others; where something is, it is held up with the other signals.
    let _ = process::default_action(Signal::SIGPIPE);
    // Whoever ignores the end of its children may have started this program so, too; nobody could
    // then wait for CMD.
    let _ = process::default_action(Signal::SIGCHLD);
    let (exit, report) = match Cli::read(std::env::args_os()) {
        Ok(cli) => {
            let report = Report::new(cli.diagnostics);
            (run(&cli.command, report), report)
        }
        Err(error) => return cli::report_usage(&error),
    };
    let exit = exit.unwrap_or_else(|error| {
        let exit = Exit::of(&error);
        // The reader of stdout is gone: it does not want to know.
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
