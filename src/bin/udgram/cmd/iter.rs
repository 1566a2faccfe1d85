//! `udgram iter`: prints the packets that are queued already or come within a total time.

use crate::cli::Iter;
use crate::endpoint::{Endpoint, Purpose, Request};
use crate::exit::Exit;
use crate::handler::PrintOnly;
use crate::output::Output;
use crate::printer::ReceiveOptions;
use crate::protocol::Client;
use crate::receive::{Limits, Patience, Receiver, Replies};
use crate::report::Report;
use crate::signal::Signals;
use anyhow::Result;
use nix::libc;

pub(crate) fn run(options: &Iter, report: Report) -> Result<Exit> {
    let receive = &options.receive;
    let wanted = ReceiveOptions::from_args(receive, false);
    let needs = if options.peek {
        Vec::new()
    } else {
        // The time of arrival tells what was queued when it began.
        let time = (!wanted.envelope).then_some(libc::SO_TIMESTAMPNS);
        wanted.needs().into_iter().chain(time).collect()
    };
    let mut request = Request::to_receive(options.address.as_ref(), receive, &needs)?;
    if options.peek {
        request.purpose = Purpose::Leave;
    }
    Output::require()?;
    let signals = Signals::install()?;
    let Endpoint {
        socket,
        opened,
        mut cleanup,
        ..
    } = Endpoint::open(&request, report)?;
    if options.peek {
        // With SO_PEEK_OFF set, each peek returns the next datagram.
        cleanup.set(&socket, libc::SO_PEEK_OFF, 0)?;
    }
    let client = Client::new(socket, wanted.protocol)?;
    let mut receiver = Receiver::new(&client, opened, wanted, PrintOnly, options.count, report)?;
    let exit = if options.peek {
        receiver.peek(&client, options.count, &signals)?
    } else {
        let limits = Limits {
            count: options.count,
            patience: Patience::Total(options.timeout().0),
            expired: Exit::Done,
            drain: false,
        };
        receiver.run(&client, &limits, Replies::All, Some(&signals))?
    };
    receiver.conclude(&client, exit)
}
