//! `udgram recv`: receives one or more packets and prints them, or runs CMD with the packet and its
//! descriptors.

use crate::cli::Recv;
use crate::cmd::timed_out;
use crate::endpoint::{Endpoint, Request};
use crate::exit::{Exit, Failure};
use crate::handler::{Handler, PrintOnly};
use crate::limits::{Limits, Patience};
use crate::output::Output;
use crate::printer::{Printer, ReceiveOptions};
use crate::process::{
    place_descriptors, replace_process, require_command, restore_signals, spawn_failure,
    unset_overwritten,
};
use crate::protocol::Client;
use crate::receive::{Receiver, Replies};
use crate::report::Report;
use crate::signal::Signals;
use anyhow::Result;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::process::Command;
use udgram::ancillary::MAX_DESCRIPTORS;
use udgram::protocol::DatagramProtocol;
use udgram::wait::Wake;
use udgram::{Datagram, describe_descriptor};

/// The longest packet that fits in UDGRAM_PACKET: execve(2) limits a variable with its name and NUL
/// to `MAX_ARG_STRLEN`.
const LONGEST_PACKET: usize = (128 << 10) - "UDGRAM_PACKET=".len() - 1;

pub(crate) fn run(options: &Recv, report: Report) -> Result<Exit> {
    let receive = &options.receive;
    let wanted = ReceiveOptions::from_args(receive, !options.command.is_empty());
    let needs = wanted.needs();
    let request = Request {
        queue: options.depth.queue,
        ..Request::to_receive(options.address.as_ref(), receive, &needs)?
    };
    match options.command.first() {
        None => Output::require()?,
        Some(name) => require_command(name)?,
    }
    let signals = Signals::install()?;
    let Endpoint {
        socket,
        opened,
        cleanup,
        ..
    } = Endpoint::open(&request, report)?;
    let client = Client::new(socket, wanted.protocol)?;
    let count = Some(options.count);
    if options.command.is_empty() {
        let mut receiver = Receiver::new(&client, opened, wanted, PrintOnly, count, report)?;
        return receive_count(options, &client, &mut receiver, &signals);
    }
    let handler = HandOver {
        options,
        ready: None,
    };
    let mut receiver = Receiver::new(&client, opened, wanted, handler, count, report)?;
    let exit = receive_count(options, &client, &mut receiver, &signals)?;
    let Some((mut command, numbers)) = receiver.handler.ready.take() else {
        return Ok(exit);
    };
    // CMD replaces udgram, and execve(2) runs no destructor.
    drop(receiver);
    drop(client);
    drop(cleanup);
    let error = replace_process(&mut command, &numbers);
    Err(spawn_failure(&options.command[0], &error))
}

/// Receives the packets asked for.
fn receive_count<H: Handler>(
    options: &Recv,
    client: &Client,
    receiver: &mut Receiver<H>,
    signals: &Signals,
) -> Result<Exit> {
    let limits = Limits {
        count: Some(options.count),
        patience: Patience::Each(options.timeout.0),
        expired: Exit::TimedOut,
        drain: false,
    };
    let exit = receiver.run(client, &limits, Replies::All, Some(signals))?;
    if exit == Exit::TimedOut {
        return Err(timed_out(
            client,
            options.address.as_ref(),
            receiver.received,
            options.count,
            options.timeout,
        ));
    }
    receiver.conclude(client, exit, "--count, or listen")
}

/// The handler that prepares CMD for the packet.
struct HandOver<'o> {
    options: &'o Recv,
    /// CMD with the packet, and the numbers of its descriptors; `None` if it was not a valid packet.
    ready: Option<(Command, Vec<RawFd>)>,
}

impl Handler for HandOver<'_> {
    fn prints(&self) -> bool {
        false
    }

    fn handle(
        &mut self,
        _: &Client,
        datagram: &mut Datagram<'_>,
        printer: &mut Printer,
        _: &Wake<'_>,
    ) -> Result<()> {
        // A memfd that carries the packet is not for CMD.
        let count = datagram.descriptors_beside(self.options.receive.packets.protocol.carrier());
        let numbers = numbers(&self.options.fd, count)?;
        let Some(packet) = printer.line(datagram, &numbers) else {
            return Ok(());
        };
        let from = datagram.sender().to_os_string();
        let mut descriptors = std::mem::take(&mut datagram.ancillary.descriptors);
        descriptors.truncate(count);
        if descriptors.len() > numbers.len() {
            let (came, named) = (descriptors.len(), numbers.len());
            printer.report.warning(format_args!(
                "{came} descriptors came and --fd names {named}: the others are closed"
            ));
        }
        let mut command = command(&self.options.command, packet, from)?;
        restore_signals(&mut command);
        hand_over(&mut command, descriptors, &numbers);
        self.ready = Some((command, numbers));
        Ok(())
    }
}

/// Returns the numbers that `count` descriptors get in CMD: those of --fd, or from 3 up.
fn numbers(named: &[RawFd], count: usize) -> Result<Vec<RawFd>> {
    if named.len() > count {
        let carried = match count {
            0 => "no descriptor".to_owned(),
            1 => "1 descriptor".to_owned(),
            count => format!("{count} descriptors"),
        };
        let asked = named.len();
        let message = format!("the packet carried {carried}, but --fd asks for {asked}");
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

/// Makes `command` start with the descriptors at these numbers. Sets `LISTEN_FDS` for those that are from 3
/// up without a gap, as sd_listen_fds(3) expects.
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
    unset_overwritten(command, numbers);
    place_descriptors(command, placed);
}
