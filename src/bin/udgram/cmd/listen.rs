//! `udgram listen`: prints every packet until it is stopped; with --echo or --exec, it answers them.

use crate::admission::Admission;
use crate::cli::Listen;
use crate::cmd::timed_out;
use crate::endpoint::{Endpoint, Request};
use crate::exit::Exit;
use crate::notify::Service;
use crate::output::Output;
use crate::printer::ReceiveOptions;
use crate::protocol::Client;
use crate::receive::{Limits, Patience, Receiver, Replies};
use crate::report::Report;
use crate::serve::{Action, ShellCommand};
use crate::signal::Signals;
use anyhow::Result;
use nix::libc;

pub(crate) fn run(options: &Listen, report: Report) -> Result<Exit> {
    let receive = &options.receive;
    let wanted = ReceiveOptions::from_args(receive, options.exec.is_some());
    let mut needs = wanted.needs();
    let who = options.exec.is_some() || !options.allow_uid.is_empty();
    if who && !needs.contains(&libc::SO_PASSCRED) {
        needs.push(libc::SO_PASSCRED);
    }
    let request = Request::to_receive(options.address.as_ref(), receive, &needs)?;
    Output::require()?;
    let signals = Signals::install()?;
    let Endpoint {
        socket,
        opened,
        mut cleanup,
        ..
    } = Endpoint::open(&request, report)?;
    let client = Client::new(socket, wanted.protocol)?;
    let handler = match (&options.exec, options.echo) {
        (Some(command), _) => Action::Run(ShellCommand {
            command,
            protocol: wanted.protocol,
            signals: &signals,
        }),
        (None, true) => Action::Echo,
        (None, false) => Action::Nothing,
    };
    let mut receiver = Receiver::new(&client, opened, wanted, handler, options.count, report)?;
    receiver.watch(cleanup.take_binding());
    receiver.admission = Admission::of(&options.allow_uid);
    let service = Service::of_environment(report);
    service.tell("READY=1");
    let limits = Limits {
        count: options.count,
        patience: Patience::Each(options.timeout.0),
        // Without a count nothing is missing when time runs out.
        expired: if options.count.is_some() {
            Exit::TimedOut
        } else {
            Exit::Done
        },
        drain: true,
    };
    let exit = receiver.run(&client, &limits, Replies::All, Some(&signals));
    service.tell("STOPPING=1");
    receiver.admission.conclude(report);
    let exit = exit?;
    if exit == Exit::TimedOut {
        let count = options.count.unwrap_or_default();
        return Err(timed_out(
            &client,
            options.address.as_ref(),
            receiver.received,
            count,
            options.timeout,
        ));
    }
    receiver.conclude(&client, exit)
}
