//! Makes the completion scripts: those of clap_complete, with candidates that are found at completion time; for
//! bash, in which words end at `=` and `:`, its own script.

use crate::cli::setting::Part;
use crate::cli::{Cli, Protocol, Shell, When};
use clap::{Arg, Command, CommandFactory, ValueEnum};
use clap_complete::Shell as ClapShell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use udgram::sockopt::OPTIONS;

/// Lists the descriptors of a new shell, which inherits those that udgram will inherit.
const DESCRIPTORS: &str = include_str!("shell/descriptors.in");
const NOTE: &str = "# Made from the definitions of the command line by tests/generated.\n";

#[test]
fn the_completion_scripts_are_those_of_the_command_line() {
    let scripts = BTreeMap::from([
        ("udgram.bash".to_owned(), bash()),
        ("_udgram".to_owned(), zsh()),
        ("udgram.fish".to_owned(), fish()),
        (
            "udgram.elv".to_owned(),
            format!("{NOTE}{}", of_clap(ClapShell::Elvish)),
        ),
        (
            "_udgram.ps1".to_owned(),
            format!("{NOTE}{}", of_clap(ClapShell::PowerShell)),
        ),
    ]);
    crate::compare_or_write("completions", &scripts);
}

fn command() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

fn of_clap(shell: ClapShell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "udgram", &mut script);
    let script = String::from_utf8(script).unwrap();
    let mut hidden = Vec::new();
    for subcommand in command().get_subcommands() {
        let arguments = subcommand.get_arguments();
        let arguments = arguments.filter(|argument| argument.is_hide_set());
        hidden.extend(arguments.filter_map(|argument| argument.get_long().map(str::to_owned)));
    }
    // clap_complete leaves blanks at the ends of lines, and writes hidden options.
    script
        .lines()
        .map(str::trim_end)
        .filter(|line| !hidden.iter().any(|option| line.contains(option)))
        .fold(String::new(), |script, line| script + line + "\n")
}

/// Returns the name of an option's value in the help.
fn value_name(argument: &Arg) -> Option<&str> {
    if !argument.get_action().takes_values() {
        return None;
    }
    Some(argument.get_value_names()?.first()?.as_str())
}

/// The options whose address is a socket that exists.
const PEER_OPTIONS: [&str; 2] = ["connect", "to"];

/// Returns the bash script's name for the kind of an option's value.
fn kind(argument: &Arg) -> &'static str {
    let is_peer = argument
        .get_long()
        .is_some_and(|long| PEER_OPTIONS.contains(&long));
    match value_name(argument).unwrap_or_default() {
        "ADDR" if is_peer => "peer",
        "ADDR" => "address",
        "FD|ADDR" => "socket",
        "[PID:]N" | "FD" => "descriptor",
        "NAME=VALUE" => "sockopt",
        "UID|NAME" => "user",
        "NAME" => "protocol",
        "WHEN" => "when",
        _ => "none",
    }
}

fn protocols() -> String {
    names(Protocol::value_variants())
}

fn names<V: ValueEnum>(values: &[V]) -> String {
    let names: Vec<String> = values
        .iter()
        .map(|value| value.to_possible_value().unwrap().get_name().to_owned())
        .collect();
    names.join(" ")
}

/// Returns the parts of the listing of `sockopt` that are not options.
fn parts() -> String {
    Part::ALL.map(Part::name).join(" ")
}

/// Returns the names of socket options in lower case and without their prefix.
fn sockopts() -> impl Iterator<Item = (String, &'static str)> {
    OPTIONS.iter().map(|option| {
        let name = option.name().trim_start_matches("SO_").to_lowercase();
        (name, option.description())
    })
}

fn bash() -> String {
    let command = command();
    let mut long = BTreeSet::new();
    let mut short = BTreeSet::new();
    let mut options: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut flags = String::new();
    let mut positionals = String::new();
    let all: Vec<&Command> = std::iter::once(&command)
        .chain(command.get_subcommands())
        .collect();
    for subcommand in all {
        let is_root = subcommand.get_name() == "udgram";
        let name = if is_root { "" } else { subcommand.get_name() };
        let mut own = Vec::new();
        for argument in arguments(subcommand) {
            let spellings = spellings(argument);
            own.extend(
                spellings
                    .iter()
                    .filter(|word| word.starts_with("--"))
                    .cloned(),
            );
            if argument.is_positional() {
                let kind = match value_name(argument) {
                    _ if argument.is_last_set() => continue,
                    Some("ADDR") => "address",
                    Some("PEER" | "PEER [PACKET]") => "peer",
                    Some("NAME[=VALUE]") => "name",
                    Some("SHELL") => "shell",
                    Some("COMMAND") => "command",
                    other => panic!("what is {other:?}?"),
                };
                let many = kind == "name" || name == "ls" || argument.get_id() == "peers";
                let count = if many { "*" } else { "0" };
                let _ = writeln!(positionals, "            {name}:{count}) kind={kind} ;;");
            }
            if argument.is_positional() || value_name(argument).is_none() {
                continue;
            }
            // An optional value follows after '='.
            if !argument.is_require_equals_set() {
                for word in &spellings {
                    if word.starts_with("--") {
                        long.insert(word.clone());
                    } else {
                        short.insert(word[1..].to_owned());
                    }
                }
            }
            let alternatives = spellings.iter().map(|word| format!("*{word}"));
            options
                .entry(kind(argument))
                .or_default()
                .extend(alternatives);
        }
        own.sort();
        let _ = writeln!(
            flags,
            "                '{name}') candidates=({}) ;;",
            own.join(" ")
        );
    }
    options.remove("none");
    let options: String = options
        .into_iter()
        .map(|(kind, words)| format!("            {}) kind={kind} ;;\n", join(words, " | ")))
        .collect();
    let commands: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    let sockopts: Vec<String> = sockopts().map(|(name, _)| name).collect();
    let script = include_str!("shell/bash.in")
        .replace("            @POSITIONALS@\n", &positionals)
        .replace("            @OPTIONS@\n", &options)
        .replace("                @FLAGS@\n", &flags)
        .replace("@LONG@", &join(long, " | "))
        .replace("@SHORT@", &join(short, ""))
        .replace("@COMMANDS@", &commands.join(" "))
        .replace("@PROTOCOLS@", &protocols())
        .replace("@PARTS@", &parts())
        .replace("@WHENS@", &names(When::value_variants()))
        .replace("@SHELLS@", &names(Shell::value_variants()))
        .replace("@SOCKOPTS@", &sockopts.join("\n"))
        .replace("@DESCRIPTORS@", DESCRIPTORS.trim_end());
    format!("{NOTE}\n{script}")
}

fn join(words: BTreeSet<String>, between: &str) -> String {
    Vec::from_iter(words).join(between)
}

/// Returns the arguments of a command that are not hidden.
fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
}

/// Returns the forms of an option on the command line: `-b`, `--bind`.
fn spellings(argument: &Arg) -> Vec<String> {
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    short.into_iter().chain(long).collect()
}

fn zsh() -> String {
    let script = of_clap(ClapShell::Zsh);
    // The options of a peer, long and short.
    let script: String = script
        .lines()
        .map(|line| {
            let options = ["--connect=[", "-c+[", "--to=["];
            if options.iter().any(|option| line.contains(option)) {
                line.replace(":ADDR:_default", ":peer:_udgram_peers") + "\n"
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    // In zsh a colon ends the name of a value, unless it is escaped. Only some values are files.
    let script = [
        (":ADDR:_default", ":address:_udgram_addresses"),
        (":FD|ADDR:_default", ":socket:_udgram_open_sockets"),
        (":[PID:]N:_default", ":descriptor:_udgram_descriptors"),
        (":FD:_default", ":descriptor:_udgram_descriptors"),
        (":NAME=VALUE:_default", ":setting:_udgram_settings"),
        (":UID[:GID]:_default", ":owner: "),
        (":PID:UID:GID:_default", ":credentials: "),
        (":OCTAL:_default", ":mode: "),
        (":DURATION:_default", ":duration: "),
        (":BYTES:_default", ":bytes: "),
        (":N:_default", ":number: "),
        (":N[/UNIT]:_default", ":rate: "),
        (":FACTOR:_default", ":factor: "),
        (":INTERVAL:_default", ":interval: "),
        (":UID|NAME:_default", ":user:_users"),
        (":CMD:_default", ":command: _cmdstring"),
    ]
    .iter()
    .fold(script, |script, (clap, own)| script.replace(clap, own));
    let script: String = script
        .lines()
        .map(|line| {
            let own = [
                ("'*::command ", "_udgram_program' \\"),
                ("'::address ", "_udgram_addresses' \\"),
                ("'*::addresses ", "_udgram_addresses' \\"),
                ("':address ", "_udgram_addresses' \\"),
                ("'*::peers ", "_udgram_peers' \\"),
                ("'*::arguments ", "_udgram_peer' \\"),
                ("'::peer ", "_udgram_peers' \\"),
                ("'*::options ", "_udgram_sockopts' \\"),
            ]
            .iter()
            .find(|(start, _)| line.starts_with(start));
            match own {
                Some((_, action)) => {
                    format!("{}{action}\n", line.strip_suffix("_default' \\").unwrap())
                }
                None => format!("{line}\n"),
            }
        })
        .collect();
    assert!(
        !script.contains("_default'"),
        "a value has no candidates of its own: {script}"
    );
    let options: String = sockopts()
        .map(|(name, what)| format!("        {}\n", quoted(&format!("{name}:{what}"), "'\\''")))
        .collect();
    let candidates = include_str!("shell/zsh.in")
        .replace("@SOCKOPTS@\n", &options)
        .replace("@PARTS@", &parts())
        .replace("@DESCRIPTORS@", DESCRIPTORS.trim_end());
    // `#compdef` must stay the first line, and the call of the function the last one.
    let (first, rest) = script.split_once('\n').unwrap();
    let (functions, call) = rest
        .rsplit_once("\nif [ \"$funcstack[1]\" = \"_udgram\" ]")
        .unwrap();
    format!("{first}\n{NOTE}{functions}{candidates}\nif [ \"$funcstack[1]\" = \"_udgram\" ]{call}")
}

fn quoted(text: &str, quote: &str) -> String {
    format!("'{}'", text.replace('\'', quote))
}

fn fish() -> String {
    let command = command();
    let mut specs: BTreeMap<String, &str> = BTreeMap::new();
    let mut script = of_clap(ClapShell::Fish)
        .lines()
        .map(|line| {
            let Some(argument) = option_of(&command, line) else {
                return format!("{line}\n");
            };
            let own = match value_name(argument).map(|_| kind(argument)) {
                Some("address") => " -a \"(__fish_udgram_addresses)\"",
                Some("peer") => " -f -a \"(__fish_udgram_peers)\"",
                Some("socket") => " -f -a \"(__fish_udgram_peers; __fish_udgram_descriptors)\"",
                Some("descriptor") => " -f -a \"(__fish_udgram_descriptors)\"",
                Some("sockopt") => " -f -a \"(__fish_udgram_settings)\"",
                Some("user") => " -f -a \"(__fish_complete_users)\"",
                Some("none") if value_name(argument) != Some("CMD") => " -f",
                _ => "",
            };
            format!("{line}{own}\n")
        })
        .collect::<String>();
    for subcommand in command.get_subcommands() {
        for argument in arguments(subcommand).filter(|argument| !argument.is_positional()) {
            let names = match (argument.get_short(), argument.get_long()) {
                (Some(short), Some(long)) => format!("{short}/{long}"),
                (None, Some(long)) => long.to_owned(),
                _ => continue,
            };
            let takes = match value_name(argument) {
                None => "",
                Some(_) if argument.is_require_equals_set() => "=?",
                Some(_) => "=+",
            };
            // The same option may have a value in one subcommand and none in another.
            let known = specs.entry(names).or_insert(takes);
            if known.is_empty() {
                *known = takes;
            }
        }
    }
    let specs: Vec<String> = specs
        .into_iter()
        .map(|(names, takes)| format!("'{names}{takes}'"))
        .collect();
    let sockopts: String = sockopts()
        .map(|(name, what)| format!("        {} \\\n", quoted(&format!("{name}\t{what}"), "\\'")))
        .collect();
    let escaped = |program: &str| program.trim_end().replace('\\', "\\\\");
    let candidates = include_str!("shell/fish.in")
        .replace(
            "@SOCKOPTS@\n",
            sockopts
                .strip_suffix(" \\\n")
                .map(|list| format!("{list}\n"))
                .as_deref()
                .unwrap(),
        )
        .replace("@SPECS@", &specs.join(" "))
        .replace("@DESCRIPTORS@", &escaped(DESCRIPTORS));
    script.push_str(&fish_arguments(&command));
    format!("{NOTE}\n{candidates}\n{script}")
}

const PEERS: &str = "-f -a \"(__fish_udgram_peers)\"";
const ADDRESSES: &str = "-a \"(__fish_udgram_addresses)\"";

/// Returns what fish offers for arguments that are not options.
fn fish_arguments(command: &Command) -> String {
    let mut script = String::new();
    let commands: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    let first = |names: &str| format!("__fish_udgram_wants_first {names}");
    let using = |name: &str| format!("__fish_udgram_using_subcommand {name}");
    // What each command line has next: its condition and its candidates.
    let mut next = vec![
        (
            first("completions"),
            format!("-f -a \"{}\"", names(Shell::value_variants())),
        ),
        (first("help"), format!("-f -a \"{}\"", commands.join(" "))),
        (first("send talk"), PEERS.to_owned()),
        (first("recv listen iter relay"), ADDRESSES.to_owned()),
        (using("ls"), ADDRESSES.to_owned()),
        (
            format!("{}; and not {}", using("relay"), first("relay")),
            PEERS.to_owned(),
        ),
        (
            using("sockopt"),
            format!("-f -a \"(__fish_udgram_sockopts) {}\"", parts()),
        ),
        (
            "__fish_udgram_wants_program".to_owned(),
            "-f -a \"(__fish_udgram_program)\"".to_owned(),
        ),
        (using("exec"), "-f".to_owned()),
    ];
    // Further arguments are packets, or there are none.
    for name in [
        "send",
        "talk",
        "recv",
        "listen",
        "iter",
        "completions",
        "help",
    ] {
        next.push((
            format!("{}; and not {}", using(name), first(name)),
            "-f".to_owned(),
        ));
    }
    for (condition, candidates) in next {
        let _ = writeln!(script, "complete -c udgram -n \"{condition}\" {candidates}");
    }
    script
}

/// Returns the option that a line of the fish script completes.
fn option_of<'c>(command: &'c Command, line: &str) -> Option<&'c Arg> {
    let subcommand = line
        .split_once("__fish_udgram_using_subcommand ")?
        .1
        .split_once('"')?
        .0;
    let long = line.split_once(" -l ")?.1.split_once(' ')?.0;
    command
        .find_subcommand(subcommand)?
        .get_arguments()
        .find(|argument| argument.get_long() == Some(long))
}
