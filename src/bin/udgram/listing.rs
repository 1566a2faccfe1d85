//! The lines that `udgram ls` prints: JSON, and candidates for completion scripts.

use crate::json::{Layout, Object};
use crate::terminal::{Controls, escape};
use std::os::unix::ffi::OsStrExt;
use udgram::Quoted;
use udgram::inventory::{Entry, Owner};

/// A socket, and the number of datagrams in its queue: 1 for at least one, unless they were counted; `None`
/// if it is unknown.
pub(crate) struct Listed {
    pub(crate) entry: Entry,
    pub(crate) queued: Option<usize>,
}

/// Appends a JSON object on a line.
pub(crate) fn write_json(listed: &Listed, lines: &mut Vec<u8>) {
    let Listed { entry, queued } = listed;
    let start = lines.len();
    let mut object = Object::begin(lines, Layout::Compact);
    object.address("address", &entry.address);
    if let Some(bound) = &entry.bound {
        object.address("bound", bound);
    }
    if let Some(state) = entry.state {
        object.string("state", state.as_str());
    }
    if let Some(root) = &entry.root {
        object.string("root", &root.to_string_lossy());
    }
    if !entry.owners.is_empty() {
        write_owners(&entry.owners, object.member("owners"));
    }
    if let Some(peer) = &entry.peer {
        object.address("peer", peer);
    }
    if let Some(clients) = entry.clients {
        object.literal("clients", clients);
    }
    if let Some(queued) = queued {
        object.literal("queued", queued);
    }
    if let Some(full) = entry.full {
        object.literal("full", full);
    }
    if let Some(blocked) = entry.blocked {
        object.literal("blocked", blocked);
    }
    object.end();
    // serde_json does not escape DEL, C1 controls and format characters.
    escape(lines, start, Controls::Json);
    lines.push(b'\n');
}

fn write_owners(owners: &[Owner], json: &mut Vec<u8>) {
    for (index, owner) in owners.iter().enumerate() {
        json.push(if index == 0 { b'[' } else { b',' });
        let mut object = Object::begin(json, Layout::Compact);
        object.literal("pid", owner.pid);
        object.string("comm", &owner.comm);
        object.literal("fd", owner.fd);
        object.literal("uid", owner.uid);
        object.end();
    }
    json.push(b']');
}

/// Appends a line for each socket that this process can send to: the address, a tab, its condition and its
/// owner.
pub(crate) fn write_candidates(listed: &[Listed], lines: &mut Vec<u8>) {
    for Listed { entry, .. } in listed {
        let written = entry.address.to_os_string();
        let text = written.to_str();
        let is_line = text.is_some_and(|text| !text.contains(Quoted::escapes));
        if entry.reachable != Some(true) || !is_line {
            continue;
        }
        lines.extend_from_slice(written.as_bytes());
        lines.push(b'\t');
        let start = lines.len();
        lines.extend_from_slice(condition(entry).as_bytes());
        if let Some(owner) = entry.owners.first() {
            lines.extend_from_slice(format!(", {} ({})", owner.comm, owner.pid).as_bytes());
        }
        escape(lines, start, Controls::Space);
        lines.push(b'\n');
    }
}

/// Returns the word for the condition of a socket: the worst one that applies.
pub(crate) fn condition(entry: &Entry) -> &'static str {
    match entry.state {
        _ if entry.blocked > Some(0) => "blocked",
        _ if entry.full == Some(true) => "full",
        Some(state) => state.as_str(),
        None => "",
    }
}
