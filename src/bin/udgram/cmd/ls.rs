//! `udgram ls`: lists datagram sockets.

use crate::cli::Ls;
use crate::color;
use crate::exit::{Exit, Failure};
use crate::listing::{Listed, write_candidates, write_json};
use crate::output::Output;
use crate::report::Report;
use crate::signal::{Signals, stop_descriptor};
use crate::table::Table;
use anyhow::Result;
use udgram::inventory::{Entry, Inventory};
use udgram::wait::Wake;
use udgram::{Address, Quoted};

pub(crate) fn run(options: &Ls, report: Report) -> Result<Exit> {
    Output::require()?;
    // Counting sets SO_PEEK_OFF; a signal must not end the process before it is reset.
    Signals::install_if(options.all)?;
    let mut inventory = Inventory::read()?;
    let mut exit = Exit::Done;
    let mut entries = Vec::new();
    if options.addresses.is_empty() {
        entries = if options.all {
            inventory.all()
        } else {
            inventory.named()
        };
    }
    for address in &options.addresses {
        let found = inventory.at(address).map_err(anyhow::Error::from);
        let found = found.and_then(|found| {
            let reached = found.iter().any(|entry| entry.reachable != Some(false));
            let refused = (!reached).then(|| unreached(address, &found));
            entries.extend(found);
            refused.map_or(Ok(()), Err)
        });
        if let Err(error) = found {
            report.error(&error);
            if exit == Exit::Done {
                exit = Exit::of(&error);
            }
        }
    }
    let listed: Vec<Listed> = entries
        .into_iter()
        .map(|entry| count(entry, options.all, &inventory))
        .collect();
    let mut output = Output::new();
    if options.candidates {
        write_candidates(&listed, &mut output.lines);
    } else if output.terminal {
        let color = color::wanted(options.shown.color, true);
        Table::new(&listed, options.all).write(Output::width(), color, &mut output.lines);
    } else {
        for listed in &listed {
            write_json(listed, &mut output.lines);
        }
        if color::wanted(options.shown.color, false) {
            color::paint(&mut output.lines, 0);
        }
    }
    output.flush(&Wake::new(stop_descriptor(), None))?;
    Ok(exit)
}

/// Makes the error of an address that leads this process to no socket, with the entries that have this name.
fn unreached(address: &Address<'_>, found: &[Entry]) -> anyhow::Error {
    let message = format!("no socket is bound to {}", address.quoted());
    let elsewhere = found.iter().find_map(|entry| {
        let path = entry.address.as_path()?.strip_prefix("/").ok()?;
        Some(entry.root.as_ref()?.join(path))
    });
    match elsewhere {
        Some(path) => Failure::with_hint(
            Exit::NobodyThere,
            message + " in this root directory",
            format!("its owner has another one: {}", Quoted(path.as_os_str())),
        ),
        None => Failure::error(Exit::NobodyThere, message),
    }
}

/// Adds the number of datagrams in the queue of a socket, counted if `all` is set.
fn count(entry: Entry, all: bool, inventory: &Inventory) -> Listed {
    let queued = if all {
        inventory.count_queue(&entry).ok()
    } else {
        entry.queued.then_some(1)
    };
    Listed { entry, queued }
}
