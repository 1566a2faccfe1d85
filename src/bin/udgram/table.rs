//! Prints the table of `udgram ls` on a terminal: a line for each socket, no wider than the terminal.

use crate::listing::{Listed, condition};
use crate::terminal::{Controls, escape_controls};
use anstyle::{AnsiColor, Style};
use std::io::Write;
use udgram::Address;
use udgram::inventory::{Entry, State};

const HEADINGS: [&str; COLUMNS] = ["STATE", "QUEUED", "CLIENTS", "OWNER", "ADDRESS"];
const COLUMNS: usize = 5;
const QUEUED: usize = 1;
const CLIENTS: usize = 2;
const OWNER: usize = 3;
const ADDRESS: usize = 4;
/// The number of spaces between columns.
const GAP: usize = 2;
/// The widths to which the owner and the address are shortened before a column is left out.
const SHORTEST: (usize, usize) = (12, 16);

const HEADING: Style = Style::new().bold();
const TROUBLE: Style = AnsiColor::Red.on_default().bold();
const OUT_OF_REACH: Style = AnsiColor::Yellow.on_default();
const LIVE: Style = AnsiColor::Green.on_default();

/// A table.
pub(crate) struct Table {
    rows: Vec<Row>,
}

struct Row {
    cells: [String; COLUMNS],
    style: Style,
}

impl Table {
    /// Makes a table of these sockets. Unless their queues were `counted`, a number is a lower bound.
    pub(crate) fn new(listed: &[Listed], counted: bool) -> Self {
        let rows = listed.iter().map(|listed| Row::new(listed, counted));
        Self {
            rows: rows.collect(),
        }
    }

    /// Appends the table, in colour if `color` says so.
    pub(crate) fn write(&self, width: usize, color: bool, lines: &mut Vec<u8>) {
        if self.rows.is_empty() {
            return;
        }
        let widths = self.widths(width);
        let styled = |style: Style| if color { style } else { Style::new() };
        write_line(
            &HEADINGS.map(str::to_owned),
            widths,
            styled(HEADING),
            true,
            lines,
        );
        for row in &self.rows {
            write_line(&row.cells, widths, styled(row.style), false, lines);
        }
    }

    /// Returns the widths of the columns; 0 for one that is left out.
    fn widths(&self, available: usize) -> [usize; COLUMNS] {
        let mut widths = HEADINGS.map(str::len);
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(&row.cells) {
                *width = (*width).max(width_of(cell));
            }
        }
        let (owner, address) = (widths[OWNER], widths[ADDRESS]);
        widths[OWNER] = owner.min(SHORTEST.0);
        widths[ADDRESS] = address.min(SHORTEST.1);
        for column in [CLIENTS, QUEUED, OWNER] {
            if total(&widths) > available {
                widths[column] = 0;
            }
        }
        let excess = total(&widths).saturating_sub(available);
        widths[ADDRESS] = widths[ADDRESS].saturating_sub(excess).max(1);
        // The address gets most of the remaining width.
        let mut left = available.saturating_sub(total(&widths));
        let wanted = [
            (OWNER, owner, left / 3),
            (ADDRESS, address, left),
            (OWNER, owner, left),
        ];
        for (column, natural, share) in wanted {
            if widths[column] > 0 {
                let more = (natural - widths[column]).min(share).min(left);
                widths[column] += more;
                left -= more;
            }
        }
        widths
    }
}

/// Returns the width of a line.
fn total(widths: &[usize; COLUMNS]) -> usize {
    let columns = widths.iter().filter(|width| **width > 0);
    widths.iter().sum::<usize>() + GAP * columns.count().saturating_sub(1)
}

impl Row {
    fn new(listed: &Listed, counted: bool) -> Self {
        let entry = &listed.entry;
        let state = match condition(entry) {
            "" => "-".to_owned(),
            "blocked" => format!("blocked {}", entry.blocked.unwrap_or_default()),
            word => word.to_owned(),
        };
        let style = match entry.state {
            _ if entry.blocked > Some(0) || entry.full == Some(true) => TROUBLE,
            Some(State::Live) => LIVE,
            Some(_) => OUT_OF_REACH,
            None => Style::new(),
        };
        let queued = match listed.queued {
            None => "-".to_owned(),
            Some(0) => "0".to_owned(),
            Some(count) if counted => count.to_string(),
            Some(count) => format!("{count}+"),
        };
        let clients = entry
            .clients
            .map_or_else(|| "-".to_owned(), |count| count.to_string());
        let cells = [state, queued, clients, owners(entry), addresses(entry)];
        Self {
            cells: cells.map(|cell| escape_controls(&cell, Controls::Rust).into_owned()),
            style,
        }
    }
}

/// Returns the processes that hold a socket, each once.
fn owners(entry: &Entry) -> String {
    let mut owners: Vec<String> = entry
        .owners
        .iter()
        .map(|owner| format!("{} ({})", owner.comm, owner.pid))
        .collect();
    owners.dedup();
    if owners.is_empty() {
        return "-".to_owned();
    }
    owners.join(", ")
}

fn addresses(entry: &Entry) -> String {
    let shown = |address: &Address<'_>| match address {
        Address::Unnamed => "-".to_owned(),
        named => named.to_string(),
    };
    let root = entry.root.as_ref().map(|root| root.display());
    let root = root.map_or_else(String::new, |root| root.to_string());
    let address = root + &shown(&entry.address);
    match &entry.peer {
        Some(peer) => format!("{address} -> {}", shown(peer)),
        None => address,
    }
}

/// Appends a line. The style applies to its first cell, or to all cells.
fn write_line(
    cells: &[String; COLUMNS],
    widths: [usize; COLUMNS],
    style: Style,
    all: bool,
    lines: &mut Vec<u8>,
) {
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if width == 0 {
            continue;
        }
        let cell = match index {
            // The end of an address is more distinctive than its beginning.
            ADDRESS => shorten_start(cell, width),
            _ => shorten_end(cell, width),
        };
        let pad = match index {
            ADDRESS => 0,
            _ => width.saturating_sub(width_of(&cell)) + GAP,
        };
        let style = if all || index == 0 {
            style
        } else {
            Style::new()
        };
        // Writing to a vector cannot fail.
        let _ = write!(lines, "{style}{cell}{style:#}{:pad$}", "");
    }
    lines.push(b'\n');
}

fn shorten_end(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let kept = text
        .chars()
        .take_while(|character| fits(*character, &mut left));
    kept.chain(['…']).collect()
}

fn shorten_start(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let end = text.chars().rev();
    let end: Vec<char> = end
        .take_while(|character| fits(*character, &mut left))
        .collect();
    ['…'].into_iter().chain(end.into_iter().rev()).collect()
}

fn fits(character: char, left: &mut usize) -> bool {
    let rest = left.checked_sub(columns(character));
    *left = rest.unwrap_or(0);
    rest.is_some()
}

fn width_of(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// Returns the largest width of a character in columns: two in scripts with wide characters.
fn columns(character: char) -> usize {
    match character {
        '\0'..='\u{10ff}' | '\u{2000}'..='\u{2e7f}' => 1,
        _ => 2,
    }
}
