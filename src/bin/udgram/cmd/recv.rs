//! `udgram recv`: receives one packet, or a few, and prints them or hands the packet and its
//! descriptors to CMD.

use crate::cli::Recv;
use crate::cmd::timed_out;
use crate::endpoint::{Cleanup, Endpoint, Request};
use crate::exit::{Exit, Failure, has_kind};
use crate::output::Output;
use crate::printer::ReceiveOptions;
use crate::process::{
    forget_overwritten, hand_on_signals, place_descriptors, replace_process, require_command,
    spawn_failure,
};
use crate::protocol::Client;
use crate::receive::{Limits, Patience, PrintOnly, Receiver, wake};
use crate::report::Report;
use crate::signal::Signals;
use anyhow::Result;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::process::Command;
use udgram::ancillary::MAX_DESCRIPTORS;
use udgram::wait::Deadline;
use udgram::{ErrorKind, describe_descriptor};

/// The longest packet that fits in UDGRAM_PACKET: execve(2) limits a variable with its name and NUL
/// to `MAX_ARG_STRLEN`.
const LONGEST_PACKET: usize = (128 << 10) - "UDGRAM_PACKET=".len() - 1;

pub(crate) fn run(options: &Recv, report: Report) -> Result<Exit> {
    let receive = &options.receive;
    let wanted = ReceiveOptions::from_args(receive, !options.command.is_empty());
    let needs = wanted.needs();
    let request = Request::to_receive(options.address.as_ref(), receive, &needs)?;
    match options.command.first() {
        None => Output::require()?,
        Some(name) => require_command(name)?,
    }
    let signals = Signals::install()?;
    let Endpoint {
        socket,
        origin,
        cleanup,
    } = Endpoint::open(&request, report)?;
    let client = Client::new(socket, wanted.protocol)?;
    let receiver = Receiver::new(
        &client,
        origin,
        wanted,
        PrintOnly,
        Some(options.count),
        report,
    )?;
    if options.command.is_empty() {
        print(options, &client, receiver, &signals)
    } else {
        hand_to_command(options, cleanup, &client, receiver, &signals, report)
    }
}

/// Prints the packets asked for.
fn print(
    options: &Recv,
    client: &Client,
    mut receiver: Receiver<PrintOnly>,
    signals: &Signals,
) -> Result<Exit> {
    let limits = Limits {
        count: Some(options.count),
        patience: Patience::Each(options.timeout.0),
        expired: Exit::TimedOut,
        drain: false,
    };
    let exit = receiver.run(client, &limits, Some(signals))?;
    if exit == Exit::TimedOut {
        return Err(timed_out(
            client,
            options.address.as_ref(),
            receiver.received,
            options.count,
            options.timeout,
        ));
    }
    receiver.conclude(client, exit)
}

/// Receives one packet and runs CMD with it in place of udgram. Returns only if that fails.
fn hand_to_command(
    options: &Recv,
    cleanup: Cleanup,
    client: &Client,
    mut receiver: Receiver<PrintOnly>,
    signals: &Signals,
    report: Report,
) -> Result<Exit> {
    let wake = wake(Some(signals.stop()), receiver.printer.output.watched());
    let deadline = Deadline::after(options.timeout.0);
    match client.receive(&mut receiver.batch, 1, deadline, &wake, |_| anyhow::Ok(())) {
        Ok(_) => {}
        Err(error) if has_kind(&error, ErrorKind::TimedOut) => {
            return Err(timed_out(
                client,
                options.address.as_ref(),
                0,
                1,
                options.timeout,
            ));
        }
        Err(error) if has_kind(&error, ErrorKind::Stopped) => {
            return Ok(Exit::Signal(signals.take()));
        }
        Err(error) => return Err(error),
    }
    let Receiver { batch, printer, .. } = &mut receiver;
    let Some(datagram) = batch.datagrams().next() else {
        return Ok(Exit::TimedOut);
    };
    let numbers = numbers(&options.fd, datagram.ancillary.descriptors.len())?;
    let Some(packet) = printer.line(client, &datagram, &numbers) else {
        printer.output.flush(&wake)?;
        return Ok(Exit::Parse);
    };
    let from = datagram.sender().to_os_string();
    let descriptors = std::mem::take(&mut datagram.ancillary.descriptors);
    if descriptors.len() > numbers.len() {
        let (came, named) = (descriptors.len(), numbers.len());
        report.warning(format_args!(
            "{came} descriptors came and --fd names {named}: the others are closed"
        ));
    }
    let mut command = command(&options.command, packet, from)?;
    hand_on_signals(&mut command);
    hand_over(&mut command, descriptors, &numbers);
    // CMD replaces udgram: nothing is dropped after exec(3).
    drop(receiver);
    drop(cleanup);
    let error = replace_process(&mut command, &numbers);
    Err(spawn_failure(&options.command[0], &error))
}

/// Returns the numbers that `count` descriptors get: those named, or 3 and up.
fn numbers(named: &[RawFd], count: usize) -> Result<Vec<RawFd>> {
    if named.len() > count {
        let message = format!(
            "--fd names {} descriptors, the message brought {count}",
            named.len()
        );
        return Err(Failure::error(Exit::Refused, message));
    }
    if named.is_empty() {
        return Ok((3..).take(count.min(MAX_DESCRIPTORS)).collect());
    }
    Ok(named.to_vec())
}

/// Returns CMD with the packet and its sender in its environment.
fn command(words: &[OsString], packet: Vec<u8>, from: OsString) -> Result<Command> {
    if packet.contains(&0) {
        let message = "cannot hand the packet over in UDGRAM_PACKET: it has a NUL in it; -p hex or base64 has none";
        return Err(Failure::error(Exit::Refused, message));
    }
    if packet.len() > LONGEST_PACKET {
        let message = format!(
            "cannot hand the packet over in UDGRAM_PACKET: it has {} bytes, and {LONGEST_PACKET} is the most; pass a file with --fd instead",
            packet.len()
        );
        return Err(Failure::error(Exit::Refused, message));
    }
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
        .env("UDGRAM_PACKET", OsString::from_vec(packet))
        .env("UDGRAM_FROM", from);
    Ok(command)
}

/// Makes `command` start with the descriptors at these numbers, and announces those from 3 up
/// without a gap as sd_listen_fds(3) expects.
fn hand_over(command: &mut Command, descriptors: Vec<OwnedFd>, numbers: &[RawFd]) {
    let placed: Vec<(OwnedFd, RawFd)> = descriptors
        .into_iter()
        .zip(numbers.iter().copied())
        .collect();
    let names: Vec<String> = (3..)
        .map_while(|number| placed.iter().find(|(_, target)| *target == number))
        .map(|(descriptor, _)| describe_descriptor(descriptor.as_fd()).kind)
        .collect();
    command
        .env("LISTEN_FDS", names.len().to_string())
        .env("LISTEN_PID", std::process::id().to_string())
        .env("LISTEN_FDNAMES", names.join(":"));
    forget_overwritten(command, numbers);
    place_descriptors(command, placed);
}
