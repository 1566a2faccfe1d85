//! `udgram iter`: prints the packets that are queued already or arrive within a total time.

use crate::cli::Iter;
use crate::endpoint::{Endpoint, Purpose, Request};
use crate::exit::Exit;
use crate::handler::PrintOnly;
use crate::limits::{Limits, Patience};
use crate::output::Output;
use crate::peek::Peek;
use crate::printer::ReceiveOptions;
use crate::protocol::Client;
use crate::receive::{Receiver, Replies};
use crate::report::Report;
use crate::signal::Signals;
use anyhow::Result;
use udgram::sockopt;

pub(crate) fn run(options: &Iter, report: Report) -> Result<Exit> {
    if options.peek {
        return peek(options, report);
    }
    let receive = &options.receive;
    let wanted = ReceiveOptions::from_args(receive, false);
    // The time of arrival shows which datagrams were queued when the command began.
    let time = (!wanted.envelope).then_some(sockopt::TIMESTAMPNS);
    let needs: Vec<_> = wanted.needs().into_iter().chain(time).collect();
    let request = Request::to_receive(options.address.as_ref(), receive, &needs)?;
    Output::require()?;
    let signals = Signals::install()?;
    let Endpoint {
        socket,
        opened,
        cleanup: _cleanup,
        ..
    } = Endpoint::open(&request, report)?;
    let client = Client::new(socket, wanted.protocol)?;
    let mut receiver = Receiver::new(&client, opened, wanted, PrintOnly, options.count, report)?;
    let limits = Limits {
        count: options.count,
        patience: Patience::Total(options.timeout().0),
        expired: Exit::Done,
        drain: false,
    };
    let exit = receiver.run(&client, &limits, Replies::All, Some(&signals))?;
    receiver.conclude(&client, exit, "--count, or listen")
}

/// Prints what waits, and leaves it and the options of the socket as they are.
fn peek(options: &Iter, report: Report) -> Result<Exit> {
    let receive = &options.receive;
    let wanted = ReceiveOptions::from_args(receive, false);
    let request = match &options.address {
        // ADDR names the socket that is bound to it: nothing is bound.
        Some(address) => Request::to_peek(address, receive)?,
        None => Request {
            purpose: Purpose::Leave,
            ..Request::to_receive(None, receive, &[])?
        },
    };
    Output::require()?;
    let signals = Signals::install()?;
    let endpoint = Endpoint::open(&request, report)?;
    Peek::begin(endpoint, wanted, report)?.run(options.count, &signals)
}
