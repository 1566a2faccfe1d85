//! Runs the subcommands, each in its own module.

pub(crate) mod completions;
pub(crate) mod exec;
pub(crate) mod iter;
pub(crate) mod listen;
pub(crate) mod ls;
pub(crate) mod peek;
pub(crate) mod recv;
pub(crate) mod relay;
pub(crate) mod send;
pub(crate) mod sockopt;
pub(crate) mod talk;

use crate::cli::value::Timeout;
use crate::exit::{Exit, Failure};
use crate::protocol::Client;
use udgram::Address;

/// Returns whether options as they are written set the size of the send buffer.
pub(crate) fn sets_send_buffer(settings: &[String]) -> bool {
    let is_size = |setting: &String| setting.to_ascii_uppercase().contains("SNDBUF");
    settings.iter().any(is_size)
}

/// Makes the error of a timeout after `received` of `count` packets.
pub(crate) fn timed_out(
    client: &Client,
    bound: Option<&Address<'static>>,
    received: u64,
    count: u64,
    timeout: Timeout,
) -> anyhow::Error {
    let timeout = humantime::format_duration(timeout.0.unwrap_or_default());
    let local = match bound {
        Some(address) => address.clone(),
        None => client.local_address().unwrap_or(Address::Unnamed),
    };
    let local = local.quoted();
    let cause = match received {
        0 => format!("no packet came within {timeout}"),
        received => format!("{received} of {count} packets came, and then none within {timeout}"),
    };
    Failure::error(
        Exit::TimedOut,
        format!("cannot receive on {local}: {cause}"),
    )
}
