//! Colours of diagnostics: on a terminal whose user wants them, and nowhere else.

use crate::harness::{Sandbox, peer};

/// Returns what a terminal shows of a shell command with this environment.
fn on_a_terminal(sandbox: &Sandbox, command: &str, environment: &[(&str, &str)]) -> String {
    let mut script = sandbox
        .command("script", ["-qefc", command, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .env("TERM", "xterm");
    for (name, value) in environment {
        script = script.env(name, value);
    }
    String::from_utf8(script.run().stdout().to_vec()).unwrap()
}

#[test]
fn on_a_terminal_the_start_of_an_error_and_its_hint_are_coloured() {
    peer!("script");
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("s");
    assert_eq!(
        on_a_terminal(&sandbox, "udgram send s hello", &[]),
        "\x1b[1m\x1b[31mudgram:\x1b[0m argument 1 is not JSON (column 1); nothing was sent \
         (\x1b[1m\x1b[36mhint:\x1b[0m for plain text use -p text)\r\n"
    );
    assert_eq!(
        on_a_terminal(&sandbox, "udgram -q send s hello", &[]),
        "\x1b[1m\x1b[31mudgram:\x1b[0m argument 1 is not JSON (column 1); nothing was sent\r\n"
    );
}

#[test]
fn on_a_terminal_a_warning_is_coloured_and_a_note_is_not() {
    peer!("script");
    let sandbox = Sandbox::new();
    let command = "udgram listen -v -n 1 -p text --exec 'exit 3' a & \
                   udgram send -p text --wait -t 30s a x; wait";
    let shown = on_a_terminal(&sandbox, command, &[]);
    assert!(
        shown.contains("udgram: \x1b[1m\x1b[33mwarning: \x1b[0m") && shown.contains("\nudgram: "),
        "{shown:?}"
    );
}

#[test]
fn the_environment_turns_colours_off() {
    peer!("script");
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("s");
    for (name, value) in [("NO_COLOR", "1"), ("CLICOLOR", "0"), ("TERM", "dumb")] {
        let shown = on_a_terminal(&sandbox, "udgram send s hello", &[(name, value)]);
        assert_eq!(
            shown,
            "udgram: argument 1 is not JSON (column 1); nothing was sent \
             (hint: for plain text use -p text)\r\n",
            "{name}={value}"
        );
    }
}

#[test]
fn stderr_that_is_no_terminal_has_no_colours() {
    peer!("script");
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("s");
    let command = "udgram send s hello 2>errors; cat errors";
    let shown = on_a_terminal(&sandbox, command, &[("CLICOLOR_FORCE", "1")]);
    assert!(!shown.contains('\x1b'), "{shown:?}");
}
