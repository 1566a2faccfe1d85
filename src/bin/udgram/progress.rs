//! Progress: how far `send` has come with a large file, one line that is redrawn on a terminal.
//!
//! A progress bar crate would link the mathematics library, which every start of the program loads.

use nix::sys::stat::{SFlag, fstat};
use std::io::{IsTerminal, Write, stderr, stdin};
use std::time::{Duration, Instant};

/// Nothing is shown of what takes no longer than this.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the line is redrawn.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) struct Progress {
    since: Instant,
    /// When the line is redrawn next.
    due: Instant,
    length: u64,
    /// How many characters of a line are on the terminal.
    shown: usize,
}

impl Progress {
    /// The progress through stdin, where that is a file and stderr a terminal.
    pub(crate) fn of_stdin() -> Option<Self> {
        let status = fstat(stdin()).ok()?;
        let file = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        let since = Instant::now();
        (file && stderr().is_terminal()).then(|| Self {
            since,
            due: since + PATIENCE,
            length: u64::try_from(status.st_size).unwrap_or(0),
            shown: 0,
        })
    }

    /// So many packets are sent, which took so many bytes of the file.
    pub(crate) fn show(&mut self, packets: u64, bytes: u64) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        self.due = now + REDRAW_INTERVAL;
        let milliseconds = (now - self.since).as_millis().max(1);
        let rate = u128::from(bytes) * 1000 / milliseconds;
        let line = format!(
            "{packets} packets, {} of {}, {}/s",
            size(bytes),
            size(self.length),
            size(u64::try_from(rate).unwrap_or(u64::MAX)),
        );
        self.write(&line);
    }

    /// Writes `line` in place of the one that is there.
    fn write(&mut self, line: &str) {
        let shown = std::mem::replace(&mut self.shown, line.len());
        // A terminal that is gone has nobody to watch.
        let _ = write!(stderr(), "\r{line:shown$}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // The line belongs to what is told next.
        if self.shown > 0 {
            self.write("");
            let _ = write!(stderr(), "\r");
        }
    }
}

/// A number of bytes as a person reads it, with one digit after the point.
fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..0x400 => return format!("{bytes} bytes"),
        0x400..0x10_0000 => (1 << 10, "KiB"),
        0x10_0000..0x4000_0000 => (1 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_read_at_a_glance() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size((1 << 20) - 1), "1023.9 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
        assert_eq!(size(5000 << 30), "5000.0 GiB");
    }
}
