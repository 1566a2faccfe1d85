//! `udgram ls`: lists datagram sockets.

use crate::cli::Ls;
use crate::color;
use crate::exit::{Exit, Failure};
use crate::listing::{Listed, write_candidates, write_json};
use crate::output::Output;
use crate::peek::lock;
use crate::report::Report;
use crate::signal::{Signals, stop_descriptor};
use crate::table::Table;
use anyhow::Result;
use udgram::Address;
use udgram::inventory::{Entry, Inventory, State};
use udgram::wait::Wake;

pub(crate) fn run(options: &Ls, report: Report) -> Result<Exit> {
    Output::require()?;
    // While a queue is counted, the socket has an option set that has to be reset.
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
            entries.extend(found);
            if reached {
                Ok(())
            } else {
                Err(nobody(address))
            }
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

fn nobody(address: &Address<'_>) -> anyhow::Error {
    let message = format!("no socket is bound to {}", address.quoted());
    Failure::error(Exit::NobodyThere, message)
}

/// Counts the datagrams in the queue of a socket, if all are to be counted.
fn count(entry: Entry, all: bool, inventory: &Inventory) -> Listed {
    let queued = match entry.state {
        Some(State::Stale) => None,
        // Two that peek would move each other's SO_PEEK_OFF.
        _ if all => lock(u64::from(entry.inode))
            .ok()
            .and_then(|_lock| inventory.count_queue(&entry).ok()),
        _ => Some(usize::from(entry.queued)),
    };
    Listed { entry, queued }
}
