//! The part `scale`: the cost of a datagram and the memory of the receiver for more senders, longer runs, larger
//! datagrams, and more clients with unread answers.

use crate::contender::{Contender, End, Program};
use crate::report::thousands;
use crate::runner::{ENDLESS, Runner};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::Read;
use std::process::Stdio;
use std::time::Instant;

/// One kind of load on a receiver.
#[derive(Clone, Copy)]
pub(crate) enum Load {
    /// Datagrams of 100 bytes from so many processes at once.
    Senders(u32),
    /// So many datagrams of 100 bytes.
    Packets(u32),
    /// Datagrams of so many bytes.
    Size(u32),
    /// So many clients, each with an answer that it has not read.
    Clients(u32),
}

/// The loads, from small to large in each direction.
pub(crate) const LOADS: &[Load] = &[
    Load::Senders(1),
    Load::Senders(8),
    Load::Senders(64),
    Load::Senders(512),
    Load::Packets(1),
    Load::Packets(1_000),
    Load::Packets(100_000),
    Load::Packets(10_000_000),
    Load::Size(0),
    Load::Size(100),
    Load::Size(1_000),
    Load::Size(10_000),
    Load::Size(100_000),
    Load::Size(1_000_000),
    Load::Size(4_000_000),
    Load::Clients(100),
    Load::Clients(1_000),
    Load::Clients(10_000),
];

/// Programs that write datagrams as lines.
const RECEIVE: [Contender; 2] = [
    Contender::new(Program::Floor, "", "{floor} receive {addr} {count}"),
    Contender::new(Program::Udgram, "", "{udgram} listen -p text {addr}"),
];

/// The program that answers. The floor waits for room for the first answer that does not fit into its send buffer,
/// which some 280 answers fill.
const ANSWER: [Contender; 1] = [Contender::new(
    Program::Udgram,
    "",
    "{udgram} listen -p text --echo {addr}",
)];

/// The number of datagrams, unless it is the load.
const COUNT: u32 = 400_000;
/// The number of bytes that large datagrams have together.
const BYTES: u32 = 400_000_000;

impl Load {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Senders(1) => "1 sender".to_owned(),
            Self::Senders(count) => format!("{count} senders"),
            Self::Packets(1) => "1 datagram".to_owned(),
            Self::Packets(count) => format!("{} datagrams", thousands(count)),
            Self::Size(bytes) => format!("{} bytes", thousands(bytes)),
            Self::Clients(count) => format!("{} clients with an unread answer", thousands(count)),
        }
    }

    pub(crate) fn contenders(self) -> &'static [Contender] {
        match self {
            Self::Clients(_) => &ANSWER,
            _ => &RECEIVE,
        }
    }

    /// Returns the same load with a tenth of the largest number of packets.
    pub(crate) fn quick(self) -> Self {
        match self {
            Self::Packets(count) => Self::Packets(count.min(1_000_000)),
            load => load,
        }
    }

    /// Returns whether one round is enough, and any more would take minutes.
    pub(crate) fn is_long(self) -> bool {
        matches!(self, Self::Packets(count) if count > 1_000_000)
    }
}

impl Runner {
    /// Returns the seconds for each datagram, and the peak of the receiver's memory in bytes.
    pub(crate) fn scaled(&self, contender: &Contender, load: Load) -> Result<(f64, f64)> {
        match load {
            Load::Senders(senders) => self.received(
                contender,
                &format!("{{floor}} crowd {{addr}} {{count}} {senders}"),
                COUNT,
            ),
            Load::Packets(count) => {
                self.received(contender, "{floor} crowd {addr} {count} 1", count)
            }
            Load::Size(bytes) => self.large(contender, bytes),
            Load::Clients(count) => self.unread(contender, count),
        }
    }

    fn received(&self, contender: &Contender, sender: &str, count: u32) -> Result<(f64, f64)> {
        self.clear();
        let mut sender = self.counterpart(sender, count, End::Exit)?;
        let lines = File::create(self.lines())?;
        let mut receiver = self.receiver(contender, ENDLESS, lines.into())?;
        let begun = sender.go()?;
        sender.finish()?;
        receiver.finish_soon(self.line_count_reached(Self::lines_len(count)))?;
        let each = begun.elapsed().as_secs_f64() / f64::from(count);
        let peak = receiver.memory("VmHWM")?;
        drop(receiver);
        fs::remove_file(self.lines())?;
        Ok((each, peak))
    }

    fn large(&self, contender: &Contender, bytes: u32) -> Result<(f64, f64)> {
        self.clear();
        let count = (BYTES / bytes.max(1)).clamp(100, COUNT);
        let lines = File::create(self.lines())?;
        let mut receiver = self.receiver(contender, ENDLESS, lines.into())?;
        let mut sender = self.opposite("{floor} burst {addr} {count}", count);
        sender.arg(bytes.to_string());
        let begun = Instant::now();
        self.spawn("sender", sender, Stdio::null(), Stdio::null())?
            .finish()?;
        let all = u64::from(count) * (u64::from(bytes) + 1);
        receiver.finish_soon(self.line_count_reached(all))?;
        let each = begun.elapsed().as_secs_f64() / f64::from(count);
        let peak = receiver.memory("VmHWM")?;
        drop(receiver);
        fs::remove_file(self.lines())?;
        Ok((each, peak))
    }

    fn unread(&self, contender: &Contender, count: u32) -> Result<(f64, f64)> {
        self.clear();
        let mut clients = self.counterpart("{floor} clients {addr} {count}", count, End::Exit)?;
        let server = self.receiver(contender, count, Stdio::null())?;
        clients.go()?;
        clients.finish()?;
        let mut answer = String::new();
        let mut stdout = clients.child.stdout.take().context("no stdout")?;
        stdout.read_to_string(&mut answer)?;
        let each = answer.trim().parse::<f64>()? / 1e9;
        Ok((each, server.memory("VmHWM")?))
    }
}
