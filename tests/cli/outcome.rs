//! The exit status and the output of a program, and checks of them.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use nix::sys::signal::Signal;

/// The exit status of a program and what it printed.
#[must_use = "an outcome must be checked"]
pub(crate) struct Outcome {
    pub(crate) shown: String,
    pub(crate) dir: PathBuf,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) status: ExitStatus,
}

impl Outcome {
    fn context(&self) -> String {
        describe(
            &self.shown,
            &self.dir,
            &self.stdout,
            &self.stderr,
            &self.status.to_string(),
        )
    }

    /// Checks for status 0, exactly this on standard output, nothing on standard error.
    #[track_caller]
    pub(crate) fn succeeds(self, stdout: impl AsRef<[u8]>) {
        self.ends(0, stdout).says_nothing();
    }

    /// Checks for this status, and exactly this on standard output.
    #[track_caller]
    pub(crate) fn ends(self, status: i32, stdout: impl AsRef<[u8]>) -> Self {
        assert_eq!(
            self.status.code(),
            Some(status),
            "the status\n{}",
            self.context()
        );
        self.printed(stdout)
    }

    /// Checks for an end by this signal, and exactly this on standard output.
    #[track_caller]
    pub(crate) fn dies_of(self, signal: Signal, stdout: impl AsRef<[u8]>) -> Self {
        assert_eq!(
            self.status.signal(),
            Some(signal as i32),
            "the signal\n{}",
            self.context()
        );
        self.printed(stdout)
    }

    /// Checks for this status, nothing on standard output, exactly this line on standard error.
    #[track_caller]
    pub(crate) fn fails(self, status: i32, stderr: impl AsRef<str>) {
        self.ends(status, "").says(stderr);
    }

    /// Checks for this status, nothing on standard output, and one line on standard error that has
    /// these parts in this order; the other words may change.
    #[track_caller]
    pub(crate) fn refuses(self, status: i32, parts: &[&str]) {
        self.ends(status, "").mentions(parts);
    }

    #[track_caller]
    fn printed(self, stdout: impl AsRef<[u8]>) -> Self {
        let wanted = stdout.as_ref();
        assert!(
            self.stdout == wanted,
            "standard output is not {}\n{}",
            wanted[..wanted.len().min(4000)].escape_ascii(),
            self.context()
        );
        self
    }

    #[track_caller]
    pub(crate) fn says_nothing(self) {
        assert!(
            self.stderr.is_empty(),
            "standard error is not empty\n{}",
            self.context()
        );
    }

    /// Checks for exactly this line on standard error.
    #[track_caller]
    pub(crate) fn says(self, line: impl AsRef<str>) {
        let wanted = format!("{}\n", line.as_ref());
        assert!(
            self.stderr == wanted.as_bytes(),
            "standard error is not {wanted:?}\n{}",
            self.context()
        );
    }

    /// Checks for one diagnostic line on standard error, with these parts in this order.
    #[track_caller]
    pub(crate) fn mentions(self, parts: &[&str]) {
        let lines = self.diagnostics();
        assert_eq!(
            lines.len(),
            1,
            "not one line on standard error\n{}",
            self.context()
        );
        let mut rest = lines[0].as_str();
        for part in parts {
            let Some(at) = rest.find(part) else {
                panic!(
                    "standard error lacks {part:?}, or has it too early\n{}",
                    self.context()
                );
            };
            rest = &rest[at + part.len()..];
        }
    }

    /// Returns the lines of standard error, after checking that each is a diagnostic.
    #[must_use]
    #[track_caller]
    pub(crate) fn diagnostics(&self) -> Vec<String> {
        let text = String::from_utf8(self.stderr.clone()).unwrap();
        let complete = text.is_empty() || text.ends_with('\n');
        let lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
        assert!(
            complete && lines.iter().all(|line| line.starts_with("udgram: ")),
            "standard error is not made of diagnostics\n{}",
            self.context()
        );
        lines
    }

    #[must_use]
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    #[must_use]
    pub(crate) fn stderr_text(&self) -> String {
        String::from_utf8(self.stderr.clone()).unwrap()
    }

    #[must_use]
    pub(crate) fn stdout(&self) -> &[u8] {
        &self.stdout
    }

    /// Returns the lines of standard output of a program that succeeded without diagnostics.
    #[must_use]
    #[track_caller]
    pub(crate) fn lines(self) -> Vec<String> {
        assert_eq!(
            self.status.code(),
            Some(0),
            "the status\n{}",
            self.context()
        );
        assert!(
            self.stderr.is_empty(),
            "standard error is not empty\n{}",
            self.context()
        );
        let text = String::from_utf8(self.stdout.clone()).unwrap();
        text.lines().map(ToOwned::to_owned).collect()
    }

    /// Returns the one line of standard output of a program that succeeded without diagnostics.
    #[must_use]
    #[track_caller]
    pub(crate) fn one_line(self) -> String {
        let context = self.context();
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "not one line on standard output\n{context}");
        lines.remove(0)
    }
}

/// A command that prints its blocked and its ignored signals. It needs no shell, which could change
/// them.
pub(crate) const SIGNALS: [&str; 4] = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"];

/// Returns signals 1 to 31 of what [`SIGNALS`] printed: the C library uses some of those above.
#[must_use]
#[track_caller]
pub(crate) fn ordinary_signals(lines: &[String]) -> Vec<u64> {
    let masks = lines
        .iter()
        .map(|line| line.split_whitespace().nth(1).unwrap());
    masks
        .map(|mask| u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff)
        .collect()
}

/// Describes a program and its output, for the message of a failed test.
pub(crate) fn describe(
    shown: &str,
    dir: &Path,
    stdout: &[u8],
    stderr: &[u8],
    status: &str,
) -> String {
    let shorten = |bytes: &[u8]| {
        let shown = bytes.len().min(4000);
        let more = if shown < bytes.len() { " …" } else { "" };
        format!("{}{more}", bytes[..shown].escape_ascii())
    };
    let mut text = format!(
        "command: {shown}\nstatus:  {status}\nstdout:  {}\nstderr:  {}\nfiles:  ",
        shorten(stdout),
        shorten(stderr)
    );
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let _ = write!(text, " {}", Path::new(&entry.file_name()).display());
    }
    text
}
