//! Starts the commands of --exec and --pipe: by `sh -c`, or directly where the shell would do nothing but run
//! the program.

use crate::printer::FIRST_DESCRIPTOR;
use crate::process::{PosixSpawn, SpawnedProcess, close_on_exec, spawn_failure};
use crate::report::Report;
use anyhow::{Context, Result};
use std::ffi::{CString, OsStr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use udgram::Quoted;

/// Variables that are meant for udgram, or that are not true for the command.
const NOT_FOR_COMMANDS: [&str; 10] = [
    "NOTIFY_SOCKET",
    "UDGRAM_SOCKET_FD",
    "UDGRAM_SOCKET_INODE",
    "UDGRAM_PEER",
    "UDGRAM_PACKET",
    "UDGRAM_FROM",
    "UDGRAM_FDS",
    "UDGRAM_PID",
    "UDGRAM_UID",
    "UDGRAM_GID",
];
const NOT_FOR_COMMANDS_PREFIXES: [&str; 2] = ["LISTEN_", "WATCHDOG_"];

/// Words that a shell does not look up as a program: the reserved words and the built-in commands of POSIX,
/// dash, bash and ksh.
const SHELL_WORDS: &[&str] = &[
    ".",
    ":",
    "alias",
    "bg",
    "bind",
    "break",
    "builtin",
    "caller",
    "case",
    "cd",
    "chdir",
    "command",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "coproc",
    "declare",
    "dirs",
    "disown",
    "do",
    "done",
    "echo",
    "elif",
    "else",
    "enable",
    "esac",
    "eval",
    "exec",
    "exit",
    "export",
    "false",
    "fc",
    "fg",
    "fi",
    "for",
    "function",
    "getopts",
    "global",
    "hash",
    "help",
    "history",
    "if",
    "in",
    "integer",
    "jobs",
    "kill",
    "let",
    "local",
    "login",
    "logout",
    "mapfile",
    "newgrp",
    "popd",
    "print",
    "printf",
    "pushd",
    "pwd",
    "read",
    "readarray",
    "readonly",
    "return",
    "select",
    "set",
    "shift",
    "shopt",
    "source",
    "suspend",
    "test",
    "then",
    "time",
    "times",
    "trap",
    "true",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "until",
    "wait",
    "whence",
    "while",
];

/// A command line for a shell.
pub(crate) struct ShellLine<'l> {
    text: &'l OsStr,
    /// The program and its arguments, if the shell would only run them; otherwise empty.
    words: Vec<CString>,
    /// The shell with the command line.
    shell: Vec<CString>,
    /// The variables that every command has, as `NAME=value`.
    environment: Vec<CString>,
}

impl<'l> ShellLine<'l> {
    /// Takes a command line. Makes all descriptors of this process from 3 up close-on-exec.
    pub(crate) fn new(text: &'l OsStr) -> Result<Self> {
        close_on_exec(FIRST_DESCRIPTOR);
        let begins = |name: &OsStr, with: &str| name.as_bytes().starts_with(with.as_bytes());
        // bash exports functions in such variables, and runs one instead of a program of the same name.
        let functions = std::env::vars_os().any(|(name, _)| begins(&name, "BASH_FUNC_"));
        let is_for_commands = |name: &OsStr| {
            !NOT_FOR_COMMANDS.iter().any(|other| name == *other)
                && !NOT_FOR_COMMANDS_PREFIXES
                    .iter()
                    .any(|with| begins(name, with))
        };
        let environment = std::env::vars_os().filter(|(name, _)| is_for_commands(name));
        let words = if functions {
            Vec::new()
        } else {
            plain_words(text)
        };
        // Without `--` the shell takes a command line that begins with a hyphen for options.
        let shell = ["sh", "-c", "--"].map(OsStr::new).into_iter().chain([text]);
        Ok(Self {
            text,
            words: strings(words)?,
            shell: strings(shell)?,
            environment: environment
                .map(|(name, value)| variable(name.as_bytes(), &value))
                .collect::<Result<_>>()?,
        })
    }

    /// Returns the command line, quoted for messages.
    pub(crate) fn quoted(&self) -> Quoted<'l> {
        Quoted(self.text)
    }

    /// Starts the command with `descriptors` from 3 up and no others, and these variables, as `NAME=value`,
    /// besides those of udgram that are not meant for it.
    pub(crate) fn start(
        &self,
        stdin: BorrowedFd<'_>,
        stdout: BorrowedFd<'_>,
        descriptors: &[OwnedFd],
        variables: &[CString],
    ) -> Result<SpawnedProcess> {
        let environment = [&self.environment[..], variables].concat();
        let start = |words| {
            let program = PosixSpawn {
                words,
                environment: &environment,
                stdin,
                stdout,
                descriptors,
                first: FIRST_DESCRIPTOR,
            };
            program.start()
        };
        let direct = (!self.words.is_empty()).then(|| start(&self.words));
        if let Some(Ok(started)) = direct {
            return Ok(started);
        }
        // If the program cannot be run, the shell says why, as for every other command; and it runs a script
        // without `#!`.
        start(&self.shell).map_err(|error| spawn_failure(OsStr::new("sh"), &error))
    }

    /// Prints a warning if the command failed.
    pub(crate) fn report_status(&self, status: ExitStatus, report: Report) {
        if !status.success() {
            report.warning(format_args!("{} {}", self.quoted(), describe(status)));
        }
    }
}

/// Makes strings for C of words. No word of a command line has a NUL, nor has a variable.
fn strings<'w>(words: impl IntoIterator<Item = &'w OsStr>) -> Result<Vec<CString>> {
    let strings = words.into_iter().map(|word| CString::new(word.as_bytes()));
    strings.collect::<Result<_, _>>().context("cannot run CMD")
}

/// Makes `NAME=value` for [`ShellLine::start`].
pub(crate) fn variable(name: &[u8], value: &OsStr) -> Result<CString> {
    CString::new([name, b"=", value.as_bytes()].concat()).context("cannot run CMD")
}

/// Returns how a command ended, in words.
pub(crate) fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("ended with status {code}"),
        None => format!(
            "was ended by signal {}",
            status.signal().unwrap_or_default()
        ),
    }
}

/// Returns the words of a command line in which no character and no word means anything to a shell but the
/// program to run and its arguments; otherwise nothing.
fn plain_words(text: &OsStr) -> Vec<&OsStr> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./+:,@%=".contains(byte);
    let bytes = text.as_bytes();
    let words: Vec<&OsStr> = bytes
        .split(is_blank)
        .filter(|word| !word.is_empty())
        .map(OsStr::from_bytes)
        .collect();
    let is_program = |name: &OsStr| {
        let assigns_or_is_job = name.as_bytes().iter().any(|byte| b"=%".contains(byte));
        !assigns_or_is_job && !SHELL_WORDS.iter().any(|word| name == *word)
    };
    let plain = bytes.iter().all(|byte| is_plain(byte) || is_blank(byte));
    if plain && words.first().is_some_and(|name| is_program(name)) {
        words
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_means_nothing_to_a_shell_is_run_without_one() {
        let words = |text: &'static str| plain_words(OsStr::new(text));
        assert_eq!(words("tr a-z A-Z"), ["tr", "a-z", "A-Z"]);
        assert_eq!(
            words("\t./handler.py  --level=3 "),
            ["./handler.py", "--level=3"]
        );
        for text in [
            "", "  ", ":", "true", "echo x", "x=1 env", "a|b", "a;b", "a&", "a>b", "a<b", "$a",
            "a $b", "`a`", "(a)", "{ a", "a *", "a ?", "a [b]", "a ~", "a 'b'", "a \"b\"", "a\\b",
            "a #b", "! a", "a\nb", "%1", "if", "jq .a^b", "jq {a,b}",
        ] {
            assert_eq!(words(text), [""; 0], "{text}");
        }
    }
}
