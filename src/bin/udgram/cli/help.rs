//! Words the help that `--help` prints. The documentation of an argument has paragraphs: `-h` prints the first,
//! `--help` the first and the second, and the manual page has all of them. clap's own long help has a blank
//! line and a line of names for each argument, which fills four screens for `send`, so both helps have the
//! layout of the short one.

use super::Cli;
use clap::builder::StyledStr;
use clap::{Arg, ArgAction, Command, CommandFactory};

/// Returns the command line whose help is that of `--help`.
pub(super) fn detailed() -> Command {
    let mut command = Cli::command();
    command.build();
    let names: Vec<String> = command
        .get_subcommands()
        .map(|subcommand| subcommand.get_name().to_owned())
        .collect();
    names
        .iter()
        .fold(command, |command, name| {
            command.mut_subcommand(name, with_reference)
        })
        .mut_args(with_detail)
}

/// Details the arguments of a command, and names its manual page.
fn with_reference(command: Command) -> Command {
    let page = match command.get_name() {
        "help" => "udgram".to_owned(),
        name => format!("udgram-{name}"),
    };
    let examples = match command.get_after_help() {
        Some(examples) => format!("{examples}\n\n"),
        None => String::new(),
    };
    let reference = format!("{examples}Manual: man {page}");
    command.mut_args(with_detail).after_help(reference)
}

/// Gives an argument the help that `--help` prints of it.
fn with_detail(argument: Arg) -> Arg {
    let argument = match argument.get_action() {
        ArgAction::Help => argument.action(ArgAction::HelpShort),
        _ => argument.hide_short_help(false),
    };
    let Some(long) = argument.get_long_help().map(StyledStr::to_string) else {
        return argument;
    };
    let paragraphs: Vec<&str> = long.split("\n\n").take(2).collect();
    argument.help(paragraphs.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the help of every command on a terminal of `width` columns: at most `most` lines.
    fn check(mut command: Command, width: usize, most: usize) {
        command.build();
        let root = command.clone().term_width(width).render_help().to_string();
        assert!(root.lines().count() <= most, "{root}");
        for command in command.get_subcommands() {
            let help = command.clone().term_width(width).render_help().to_string();
            let (name, lines) = (command.get_name(), help.lines().count());
            assert!(lines <= most, "{name} has {lines} lines: {help}");
            assert!(
                help.lines().all(|line| line.chars().count() <= width),
                "{name}: {help}"
            );
        }
    }

    #[test]
    fn the_short_help_of_a_command_fits_a_screen() {
        check(Cli::command(), 80, 48);
        check(Cli::command(), 100, 48);
    }

    #[test]
    fn the_help_of_a_command_fits_two_screens() {
        check(detailed(), 80, 98);
        check(detailed(), 100, 98);
    }

    #[test]
    fn the_help_names_the_manual_page() {
        for command in detailed().get_subcommands_mut() {
            let help = command.render_help().to_string();
            assert!(help.contains("Manual: man udgram"), "{help}");
        }
    }
}
