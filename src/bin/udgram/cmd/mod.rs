//! The subcommands: what each does with what `cli` understood.

pub(crate) mod completions;
pub(crate) mod exec;
pub(crate) mod iter;
pub(crate) mod listen;
pub(crate) mod recv;
pub(crate) mod send;
pub(crate) mod sockopt;

use crate::exit::{Exit, Failure};
use crate::receive::Client;
use crate::value::Timeout;
use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::process::Command;
use udgram::{Address, Quoted};

/// Of the `count` packets awaited only `came` had come when the time ran out.
pub(crate) fn timed_out(
    client: &Client,
    bound: Option<&Address<'static>>,
    came: u64,
    count: u64,
    timeout: Timeout,
) -> anyhow::Error {
    let timeout = humantime::format_duration(timeout.0.unwrap_or_default());
    let local = match bound {
        Some(address) => address.clone(),
        None => client.local_address().unwrap_or(Address::Unnamed),
    };
    let local = local.quoted();
    let cause = match came {
        0 => format!("no packet came within {timeout}"),
        came => format!("{came} of {count} packets came, and then none within {timeout}"),
    };
    Failure::error(
        Exit::TimedOut,
        format!("cannot receive on {local}: {cause}"),
    )
}

/// CMD could not be run: not found, or found and not to be run.
pub(crate) fn spawn_failure(command: &OsStr, error: &std::io::Error) -> anyhow::Error {
    let exit = if error.kind() == std::io::ErrorKind::NotFound {
        Exit::NotFound
    } else {
        Exit::CannotRun
    };
    let cause = error.raw_os_error().map_or_else(
        || error.to_string(),
        |errno| udgram::describe(nix::errno::Errno::from_raw(errno)).to_owned(),
    );
    Failure::error(exit, format!("cannot run {}: {cause}", Quoted(command)))
}

/// A socket that was inherited at a number that is used for something else is not there any more.
pub(crate) fn forget_overwritten(command: &mut Command, numbers: &[RawFd]) {
    let inherited = std::env::var("UDGRAM_SOCKET_FD")
        .ok()
        .and_then(|number| number.parse().ok());
    if inherited.is_some_and(|number| numbers.contains(&number)) {
        command.env_remove("UDGRAM_SOCKET_FD");
    }
}
