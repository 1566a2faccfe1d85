//! `udgram listen`: prints every packet until it is stopped; with --echo, --exec or --pipe, it answers them.

use crate::admission::Admission;
use crate::cli::Listen;
use crate::cmd::{sets_send_buffer, timed_out};
use crate::endpoint::{Cleanup, Endpoint, Origin, Request};
use crate::exit::Exit;
use crate::limits::{Limits, Patience};
use crate::notify::Service;
use crate::output::Output;
use crate::pipe_command::PipeCommand;
use crate::printer::ReceiveOptions;
use crate::protocol::Client;
use crate::receive::{Receiver, Replies};
use crate::report::Report;
use crate::serve::{Action, Server};
use crate::shell_command::ShellCommand;
use crate::signal::Signals;
use anyhow::Result;
use nix::libc;
use udgram::answers::Growth;
use udgram::{Address, DatagramSocket, sockopt};

pub(crate) fn run(options: &Listen, report: Report) -> Result<Exit> {
    let receive = &options.receive;
    let wanted = ReceiveOptions::from_args(receive, options.exec.is_some());
    let needs = needs(options, wanted);
    let request = Request {
        queue: options.depth.queue,
        ..Request::to_receive(options.address.as_ref(), receive, &needs)?
    };
    Output::require()?;
    let signals = Signals::install()?;
    let Endpoint {
        socket,
        opened,
        mut cleanup,
        ..
    } = Endpoint::open(&request, report)?;
    if options.echo {
        request_credentials(&socket, &mut cleanup)?;
    }
    let client = Client::new(socket, wanted.protocol)?;
    let handler = server(options, opened.origin, &signals)?;
    let mut receiver = Receiver::new(&client, opened, wanted, handler, options.count, report)?;
    if options.pipe.is_some() {
        receiver.printer.keep_lines();
    }
    receiver.watch(cleanup.take_binding());
    receiver.admission = Admission::of(&options.allow_uid);
    let service = Service::from_environment(report);
    service.notify("READY=1");
    let limits = Limits {
        count: options.count,
        patience: Patience::Each(options.timeout.0),
        // Without a count, a timeout is the normal end.
        expired: if options.count.is_some() {
            Exit::TimedOut
        } else {
            Exit::Done
        },
        drain: true,
    };
    let exit = receiver.run(&client, &limits, Replies::All, Some(&signals));
    service.notify("STOPPING=1");
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
    receiver.conclude(&client, exit, "--count, or listen")
}

/// Returns the options of `SOL_SOCKET` that must be on before the first datagram.
fn needs(options: &Listen, wanted: ReceiveOptions) -> Vec<libc::c_int> {
    let mut needs = wanted.needs();
    // An answer to a pathname needs the sender's user (`Recipient::destination`). `request_credentials`
    // does this for --echo on a socket that is not bound here.
    let runs = options.exec.is_some() || options.pipe.is_some();
    let answers = runs || (options.echo && options.address.is_some());
    let identify = answers || !options.allow_uid.is_empty();
    if identify && !needs.contains(&libc::SO_PASSCRED) {
        needs.push(libc::SO_PASSCRED);
    }
    needs
}

/// Makes the server that answers the packets, and starts the command of --pipe.
fn server<'l>(options: &'l Listen, origin: Origin, signals: &'l Signals) -> Result<Server<'l>> {
    let packets = options.receive.packets;
    let (protocol, timeout) = (packets.protocol, options.timeout.0);
    let action = match (&options.exec, &options.pipe, options.echo) {
        (Some(command), ..) => Action::Run(ShellCommand::new(command, protocol, signals)?),
        (_, Some(command), _) => {
            let command = PipeCommand::start(command, protocol, packets.terminator(), timeout)?;
            Action::Pipe(command.into())
        }
        (.., true) => Action::Echo,
        (.., false) => Action::Nothing,
    };
    let settings = &options.receive.socket.sockopt;
    // Other processes may share an inherited socket: leave its options unchanged.
    let growth = if origin == Origin::Inherited || sets_send_buffer(settings) {
        Growth::Forbidden
    } else {
        Growth::Allowed
    };
    Ok(Server::new(action, growth))
}

/// Sets `SO_PASSCRED` on a socket that has a name. An unnamed one is an end of a socketpair(2), whose
/// peer needs no check; `SO_PASSCRED` would bind it to an abstract name with the first answer
/// (`unix_dgram_sendmsg`).
fn request_credentials(socket: &DatagramSocket, cleanup: &mut Cleanup) -> Result<()> {
    if sockopt::get_int(socket, libc::SO_PASSCRED)? == 0
        && socket.local_address()? != Address::Unnamed
    {
        cleanup.set(socket, libc::SO_PASSCRED, 1)?;
    }
    Ok(())
}
