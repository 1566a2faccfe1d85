//! Makes the manual pages: name, synopsis, options and tables from the definitions of the command line, the rest from
//! the parts in manual/, in which the marks `@COMMANDS@`, `@OPTIONS@`, `@STATUS …@` and `@SOCKOPTS@` are replaced.

use crate::cli::Cli;
use clap::{Arg, Command, CommandFactory};
use std::collections::BTreeMap;
use std::fmt::Write;
use udgram::sockopt::{Access, OPTIONS};

/// The date of the last change of the pages. The current date would make each build differ.
const DATE: &str = "2026-11-25";

/// The heading of arguments that have none in the help.
const GENERAL: &str = "General";

/// The exit statuses and their meanings.
const STATUSES: [(&str, &str); 9] = [
    ("0", "Done."),
    (
        "1",
        "The system refused the operation; the message names the operation, the address and the reason.",
    ),
    ("2", "Usage error."),
    ("3", "A datagram or a line is not a valid packet."),
    (
        "4",
        "Peer not found: no such socket, a stale socket file, or a peer that closed its socket.",
    ),
    (
        "124",
        ".B \\-\\-timeout\nexpired before the operation was complete.",
    ),
    ("126", "CMD cannot be run."),
    ("127", "CMD is not found."),
    (
        "128",
        "128+\\fIN\\fR: ended by signal\n.IR N ,\nas a shell sees it.",
    ),
];

#[test]
fn the_manual_pages_are_those_of_the_command_line() {
    let mut command = Cli::command();
    command.build();
    let common = common(&command);
    let mut pages = BTreeMap::from([
        ("udgram.1".to_owned(), root_page(&command, &common)),
        ("udgram-protocols.7".to_owned(), protocols_page()),
    ]);
    for subcommand in documented(&command) {
        let name = subcommand.get_name();
        pages.insert(format!("udgram-{name}.1"), page(subcommand, &common));
    }
    crate::compare_or_write("man", &pages);
}

#[test]
fn every_option_of_the_help_is_in_the_manual() {
    let mut command = Cli::command();
    command.build();
    let common = common(&command);
    let root = root_page(&command, &common);
    for subcommand in documented(&command) {
        // The text of an option that several commands have is in udgram(1).
        let page = page(subcommand, &common) + &root;
        let help = subcommand.clone().render_long_help().to_string();
        let options = help
            .split(|character: char| !(character.is_ascii_lowercase() || character == '-'))
            .filter(|word| word.starts_with("--") && word.len() > 2);
        for option in options {
            assert!(
                page.contains(&option.replace('-', "\\-")),
                "udgram-{}.1 lacks {option}",
                subcommand.get_name()
            );
        }
    }
}

#[test]
fn mandoc_reports_no_fault_in_the_manual() {
    if !crate::installed("mandoc") {
        return;
    }
    let output = std::process::Command::new("sh")
        .args(["-c", "mandoc -T lint -W warning man/*"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert!(output.status.success());
}

#[test]
fn the_readme_has_the_exit_statuses_of_the_manual() {
    let readme = include_str!("../../README.md");
    for (status, meaning) in STATUSES {
        let row = match status {
            "128" => "| 128+N | ended by signal N, as a shell sees it |".to_owned(),
            "124" => "| 124 | `--timeout` expired before the operation was complete |".to_owned(),
            _ => {
                let mut meaning = meaning.trim_end_matches('.').to_owned();
                if !meaning.starts_with("CMD") {
                    meaning[..1].make_ascii_lowercase();
                }
                format!("| {status} | {meaning} |")
            }
        };
        assert!(readme.contains(&row), "README.md lacks {row}");
    }
}

/// Returns the commands that have a page: all but `help`, which udgram(1) describes.
fn documented(command: &Command) -> impl Iterator<Item = &Command> {
    let subcommands = command.get_subcommands();
    subcommands.filter(|subcommand| subcommand.get_name() != "help")
}

/// An option that several commands have with the same text, and their names.
struct Common {
    argument: Arg,
    commands: Vec<String>,
}

/// Returns the options that at least three commands have with the same text.
fn common(command: &Command) -> Vec<Common> {
    let mut found: Vec<Common> = Vec::new();
    for subcommand in documented(command) {
        let name = subcommand.get_name().to_owned();
        for argument in subcommand.get_opts_and_flags() {
            if argument.get_long_help().is_none() || is_global(argument) {
                continue;
            }
            match found
                .iter_mut()
                .find(|known| same(&known.argument, argument))
            {
                Some(known) => known.commands.push(name.clone()),
                None => found.push(Common {
                    argument: argument.clone(),
                    commands: vec![name.clone()],
                }),
            }
        }
    }
    found.retain(|known| known.commands.len() > 2);
    found
}

fn same(first: &Arg, second: &Arg) -> bool {
    first.get_long() == second.get_long()
        && first.get_long_help().map(ToString::to_string)
            == second.get_long_help().map(ToString::to_string)
}

fn is_global(argument: &Arg) -> bool {
    ["quiet", "verbose", "help", "version"]
        .map(Some)
        .contains(&argument.get_long())
}

fn root_page(command: &Command, common: &[Common]) -> String {
    let mut roff = head("UDGRAM", "udgram", command);
    for subcommand in command.get_subcommands() {
        let usage = subcommand.clone().render_usage().to_string();
        for line in usage.trim_start_matches("Usage:").lines() {
            synopsis(line.trim(), &mut roff);
        }
    }
    let part = include_str!("manual/udgram.roff").replace("@COMMANDS@\n", &commands(command));
    let (version, all): (Vec<&Arg>, Vec<&Arg>) = command
        .get_opts_and_flags()
        .partition(|argument| argument.get_long() == Some("version"));
    let mut options = String::from(".SH OPTIONS\nThese options apply to all commands:\n");
    for argument in all {
        option(argument, &mut options);
    }
    options.push_str(".PP\nWithout a command:\n");
    for argument in version {
        option(argument, &mut options);
    }
    options.push_str(".SS Options of several commands\n");
    for Common { argument, commands } in common {
        option(argument, &mut options);
        let _ = writeln!(options, "Commands: {}.", listed(commands));
        let others: Vec<String> = documented(command)
            .filter(|subcommand| {
                !commands.iter().any(|name| name == subcommand.get_name())
                    && subcommand
                        .get_opts_and_flags()
                        .any(|other| other.get_long() == argument.get_long())
            })
            .map(|subcommand| subcommand.get_name().to_owned())
            .collect();
        if !others.is_empty() {
            let _ = writeln!(options, "It differs for {}: see there.", listed(&others));
        }
    }
    finish(roff, &part, &options)
}

/// Returns names in a sentence: `send, recv and talk`.
fn listed(names: &[String]) -> String {
    match names {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => names.concat(),
    }
}

/// Returns the list of commands: each page, and what its command does.
fn commands(command: &Command) -> String {
    let mut roff = String::new();
    for subcommand in documented(command) {
        let name = subcommand.get_name();
        let about = text(&subcommand.get_about().unwrap().to_string());
        let _ = writeln!(roff, ".TP\n.BR udgram\\-{name} (1)\n{about}.");
    }
    roff
}

/// Returns the page of protocols and envelopes.
fn protocols_page() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let head = format!(
        "'\\\" t\n.\\\" Made by tests/generated.\n.TH UDGRAM\\-PROTOCOLS 7 {DATE} \"udgram {version}\" \"udgram\"\n"
    );
    finish(head, include_str!("manual/protocols.roff"), "")
}

fn page(command: &Command, common: &[Common]) -> String {
    let name = command.get_name();
    let part = match name {
        "send" => include_str!("manual/send.roff"),
        "recv" => include_str!("manual/recv.roff"),
        "listen" => include_str!("manual/listen.roff"),
        "iter" => include_str!("manual/iter.roff"),
        "talk" => include_str!("manual/talk.roff"),
        "relay" => include_str!("manual/relay.roff"),
        "ls" => include_str!("manual/ls.roff"),
        "sockopt" => include_str!("manual/sockopt.roff"),
        "exec" => include_str!("manual/exec.roff"),
        "completions" => include_str!("manual/completions.roff"),
        other => panic!("tests/generated/manual has no part for {other}"),
    };
    let title = format!("UDGRAM\\-{}", name.to_uppercase());
    let mut roff = head(&title, &format!("udgram\\-{name}"), command);
    let usage = command.clone().render_usage().to_string();
    for line in usage.trim_start_matches("Usage:").lines() {
        synopsis(line.trim(), &mut roff);
    }
    let mut options = String::from(".SH ARGUMENTS\n");
    for argument in command.get_positionals() {
        let name = argument.get_value_names().unwrap().join(" ");
        let many = argument
            .get_num_args()
            .is_some_and(|range| range.max_values() > 1);
        let dots = if many { "..." } else { "" };
        let _ = writeln!(options, ".TP\n{}{dots}", placeholder(&name));
        describe(argument, &mut options);
    }
    options.push_str(".SH OPTIONS\n");
    let mut headings: Vec<&str> = Vec::new();
    for argument in command.get_opts_and_flags() {
        let heading = argument.get_help_heading().unwrap_or(GENERAL);
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    headings.sort_by_key(|heading| *heading == GENERAL);
    for heading in headings {
        let _ = writeln!(options, ".SS {heading}");
        let mut arguments: Vec<&Arg> = command
            .get_opts_and_flags()
            .filter(|argument| argument.get_help_heading().unwrap_or(GENERAL) == heading)
            .collect();
        arguments.sort_by_key(|argument| {
            let long = argument.get_long();
            ["quiet", "verbose", "help"]
                .iter()
                .position(|global| long == Some(*global))
        });
        for argument in arguments {
            if common.iter().any(|known| same(&known.argument, argument)) {
                names(argument, &mut options);
                let help = argument.get_help().map(ToString::to_string);
                let _ = writeln!(
                    options,
                    "{}; see\n.BR udgram (1).",
                    text(&help.unwrap_or_default())
                );
            } else {
                option(argument, &mut options);
            }
        }
    }
    finish(roff, part, &options)
}

trait OptsAndFlags {
    fn get_opts_and_flags(&self) -> impl Iterator<Item = &Arg>;
}

impl OptsAndFlags for Command {
    fn get_opts_and_flags(&self) -> impl Iterator<Item = &Arg> {
        self.get_arguments()
            .filter(|argument| !argument.is_positional())
    }
}

fn head(title: &str, name: &str, command: &Command) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let about = text(&command.get_about().unwrap().to_string());
    format!(
        ".\\\" Made from the definitions of the command line by tests/generated.\n\
         .TH {title} 1 {DATE} \"udgram {version}\" \"User Commands\"\n\
         .SH NAME\n{name} \\- {}{}\n.SH SYNOPSIS\n",
        about[..1].to_lowercase(),
        &about[1..],
    )
}

/// Returns a line of the synopsis: `udgram send [OPTIONS] PEER [PACKET]...`.
fn synopsis(usage: &str, roff: &mut String) {
    let (command, rest) = usage.split_once(' ').unwrap();
    let (subcommand, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let between = if roff.ends_with(".SH SYNOPSIS\n") {
        ""
    } else {
        ".PP\n"
    };
    let _ = writeln!(roff, "{between}.B {command} {}", escape(subcommand));
    for word in rest.split(' ') {
        if word.starts_with("--") {
            let _ = writeln!(roff, ".B {}", escape(word));
        } else {
            let _ = writeln!(roff, "{}", escape(&placeholder(word)));
        }
    }
}

/// Formats the names of values in italics, and the text between them in roman.
fn placeholder(name: &str) -> String {
    let mut roff = String::new();
    let mut italic = false;
    for character in name.chars() {
        if character.is_ascii_uppercase() != italic {
            italic = !italic;
            roff.push_str(if italic { "\\fI" } else { "\\fR" });
        }
        roff.push(character);
    }
    if italic {
        roff.push_str("\\fR");
    }
    roff
}

fn option(argument: &Arg, roff: &mut String) {
    names(argument, roff);
    describe(argument, roff);
}

/// Writes the names of an option and of its value.
fn names(argument: &Arg, roff: &mut String) {
    let short = argument
        .get_short()
        .map(|short| format!("\\fB\\-{short}\\fR"));
    let long = argument
        .get_long()
        .map(|long| format!("\\fB{}\\fR", escape(&format!("--{long}"))));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let value = argument
        .get_value_names()
        .filter(|_| argument.get_action().takes_values())
        .map(|names| placeholder(&names.join(" ")))
        .unwrap_or_default();
    let value = if value.is_empty() {
        value
    } else if argument.is_require_equals_set() {
        format!("[={value}]")
    } else {
        format!(" {value}")
    };
    let _ = writeln!(roff, ".TP\n{}{value}", names.join(", "));
}

fn describe(argument: &Arg, roff: &mut String) {
    let help = argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let long = argument
        .get_long_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let rest = long
        .strip_prefix(&help)
        .unwrap_or(&long)
        .trim_start_matches('.')
        .trim();
    let stop = if help.ends_with('.') { "" } else { "." };
    let _ = writeln!(roff, "{}{stop}", text(&help));
    for paragraph in rest.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        for sentence in sentences(paragraph) {
            let _ = writeln!(roff, "{}", text(sentence));
        }
    }
    let values = argument.get_possible_values();
    let listed: Vec<String> = values
        .iter()
        .filter(|_| argument.get_action().takes_values())
        .map(|value| format!("\\fB{}\\fR", value.get_name()))
        .collect();
    match listed.as_slice() {
        [first @ .., last] if !help.contains(values[0].get_name()) => {
            let _ = writeln!(roff, "It is {} or {last}.", first.join(", "));
        }
        _ => {}
    }
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .filter_map(|value| value.to_str())
        .collect();
    if argument.get_action().takes_values() && !defaults.is_empty() {
        let _ = writeln!(roff, "Default: {}.", text(&defaults.join(" ")));
    }
}

/// Writes one sentence a line, as manual pages do.
fn sentences(paragraph: &str) -> impl Iterator<Item = &str> {
    paragraph.split_inclusive(". ").map(str::trim)
}

/// Formats running text.
fn text(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\e")
        .replace('\'', "\\(aq")
        .replace("--", "\\-\\-");
    let words: Vec<String> = escaped
        .split(' ')
        .map(|word| match word.strip_prefix('-') {
            Some(rest) if !rest.is_empty() => format!("\\-{rest}"),
            _ => word.to_owned(),
        })
        .collect();
    let escaped = words.join(" ");
    if escaped.starts_with('.') {
        format!("\\&{escaped}")
    } else {
        escaped
    }
}

/// Escapes hyphens in text that a user types.
fn escape(text: &str) -> String {
    text.replace('-', "\\-")
}

/// Returns the page: the part, with its marks replaced.
fn finish(mut roff: String, part: &str, options: &str) -> String {
    for line in part.lines() {
        if line == "@OPTIONS@" {
            roff.push_str(options);
        } else if line == "@SOCKOPTS@" {
            sockopts(&mut roff);
        } else if let Some(statuses) = line.strip_prefix("@STATUS ") {
            for status in statuses.trim_end_matches('@').split(' ') {
                let (_, meaning) = STATUSES.iter().find(|(known, _)| *known == status).unwrap();
                let status = if status == "128" {
                    "128+\\fIN\\fR"
                } else {
                    status
                };
                let meaning = meaning.trim_start_matches("128+\\fIN\\fR: ");
                let meaning = meaning[..1].to_uppercase() + &meaning[1..];
                let _ = writeln!(roff, ".TP\n.B {status}\n{meaning}");
            }
        } else {
            roff.push_str(line);
            roff.push('\n');
        }
    }
    roff
}

fn sockopts(roff: &mut String) {
    for option in OPTIONS {
        let access = match option.access() {
            Access::Read => ", read only",
            Access::Set { .. } => ", set only",
            _ => "",
        };
        let (name, kind) = (option.name(), option.kind());
        let _ = writeln!(
            roff,
            ".TP\n.B {name}\n({kind}{access}) {}.",
            text(option.description())
        );
    }
}
