//! The progress of `send` through a large file: one line that is redrawn on a terminal.
//!
//! A progress bar crate would link libm, and every start of the program would load it.

use crate::process;
use crate::stderr::draw;
use nix::libc;
use std::io::{IsTerminal, stderr, stdin};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use udgram::metadata;

/// The time before the line is first shown.
const PATIENCE: Duration = Duration::from_millis(500);
/// The time between two drawings of the line.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// The number of characters of the line on the terminal. Locked while the line is written.
static SHOWN: Mutex<usize> = Mutex::new(0);

pub(crate) struct Progress {
    since: Instant,
    /// The time of the next drawing.
    due: Instant,
    length: u64,
    /// True once a handler of SIGINT erases the line.
    erased_on_interrupt: bool,
}

impl Progress {
    /// Starts the progress through stdin; `None` unless stdin is a file and stderr a terminal.
    pub(crate) fn of_stdin() -> Option<Self> {
        let file = metadata(stdin()).ok()?;
        let since = Instant::now();
        (file.is_file() && stderr().is_terminal()).then(|| Self {
            since,
            due: since + PATIENCE,
            length: file.len(),
            erased_on_interrupt: false,
        })
    }

    /// Shows the number of packets sent and of bytes read from the file, if the line is due.
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
        if !self.erased_on_interrupt {
            self.erased_on_interrupt = true;
            // It fails if SIGINT is ignored; then SIGINT does not end the program. If the command
            // blocks the signals, the handler never runs, and `drop` erases the line.
            let _ = ctrlc::try_set_handler(erase_and_die);
        }
        write_line(&line);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        erase_line();
    }
}

/// Writes `line` over the one on the terminal.
fn write_line(line: &str) {
    if let Ok(mut shown) = SHOWN.lock() {
        let before = std::mem::replace(&mut *shown, line.len());
        draw(&format!("\r{line:before$}"));
    }
}

/// Erases the line, so that the next report begins on an empty one.
fn erase_line() {
    if let Ok(mut shown) = SHOWN.lock() {
        erase(&mut shown);
    }
}

fn erase(shown: &mut usize) {
    if *shown > 0 {
        // The terminal echoes Ctrl-C as ^C after the line.
        let width = std::mem::take(shown) + "^C".len();
        draw(&format!("\r{:width$}\r", ""));
    }
}

/// Erases the line and ends the program by SIGINT. Runs in the thread of ctrlc.
fn erase_and_die() {
    // Hold the lock to the end, so that no new line is written. Do not wait for it long: without /proc,
    // a line that is written to a stopped terminal (Ctrl-S) blocks.
    let until = Instant::now() + REDRAW_INTERVAL;
    let mut line = SHOWN.try_lock();
    while line.is_err() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
        line = SHOWN.try_lock();
    }
    if let Ok(shown) = &mut line {
        erase(shown);
    }
    process::end_by_signal(libc::SIGINT);
}

/// Formats a number of bytes with a unit and one digit after the point.
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
    fn a_size_has_one_decimal_and_the_largest_binary_unit() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(1 << 10), "1.0 KiB");
        assert_eq!(size((1 << 20) - 1), "1023.9 KiB");
        assert_eq!(size(1 << 20), "1.0 MiB");
        assert_eq!(size((1 << 30) - 1), "1023.9 MiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
        assert_eq!(size(5000 << 30), "5000.0 GiB");
    }
}
