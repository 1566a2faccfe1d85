//! The exact messages of usage errors.

use crate::harness::{Peer, Sandbox};

/// The message of a usage error without a hint of its own.
fn usage(command: &str, message: &str) -> String {
    format!("udgram: {message} (hint: try 'udgram {command} --help')")
}

/// Runs `send` with these arguments, in a directory with a socket `app.sock` that gets nothing.
#[track_caller]
fn refused(arguments: &[&str], status: i32, message: &str) {
    let sandbox = Sandbox::new();
    let app = sandbox.bind("app.sock");
    sandbox
        .udgram(["send"])
        .args(arguments)
        .run()
        .fails(status, message);
    app.has_nothing_more();
}

#[track_caller]
fn is_refused(command: &str, arguments: [&str; 2], message: &str) {
    Sandbox::new()
        .udgram([command])
        .args(arguments)
        .run()
        .fails(2, usage(command, message));
}

#[test]
fn a_packet_in_place_of_the_peer_says_that_the_peer_comes_first() {
    let sixty = format!("[{}]", "1".repeat(58));
    for (arguments, message) in [
        (
            &[r#"{"a":1}"#][..],
            r#"PEER comes first: udgram send PEER '{"a":1}'"#,
        ),
        (
            &[r#"{"a":1}"#, "app.sock"],
            r#"PEER comes first: udgram send app.sock '{"a":1}'"#,
        ),
        (
            &["-p", "text", r#"["it's"]"#, "app.sock"],
            "PEER comes first: udgram send app.sock PACKET",
        ),
        // A packet of more than 60 bytes is not shown.
        (
            &[&sixty],
            &format!("PEER comes first: udgram send PEER '{sixty}'"),
        ),
        (
            &[&format!("[{sixty}]")],
            "PEER comes first: udgram send PEER PACKET",
        ),
        (&["[1]", "[2]"], "PEER comes first: udgram send PEER '[1]'"),
    ] {
        refused(arguments, 2, &usage("send", message));
    }
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("[1]");
    sandbox.udgram(["send", "[1]", "2"]).run().succeeds("");
    assert_eq!(peer.take(), b"2");
}

#[test]
fn a_value_apart_from_its_option_says_how_they_are_joined() {
    let number = "the number goes with an equals sign: --reply=3";
    let hint = "(hint: a packet 3 goes after --; try 'udgram send --help')";
    for arguments in [
        &["-r", "3", "app.sock", "1"][..],
        &["-t", "1s", "-r", "3", "app.sock", "1"],
        &["-wr", "3", "app.sock", "1"],
        &["-r3", "app.sock", "1"],
        &["--reply", "3", "app.sock"],
        &["app.sock", "-r", "3"],
        &["--to", "app.sock", "-r", "3"],
    ] {
        refused(arguments, 2, &format!("udgram: {number} {hint}"));
    }
    refused(
        &["-t", "1s", "-r", "all", "app.sock", "1"],
        2,
        "udgram: the number goes with an equals sign: --reply=all (hint: a packet all goes after --; try \
         'udgram send --help')",
    );
    refused(
        &["--creds", "1:0:0", "app.sock", "1"],
        2,
        "udgram: the value goes with an equals sign: --creds=1:0:0 (hint: a packet 1:0:0 goes after \
         --; try 'udgram send --help')",
    );
    for (option, value) in [("--creds", "1:0:0"), ("--stats", "1s"), ("--pace", "2")] {
        let message = format!("the value goes with an equals sign: {option}={value}");
        refused(
            &["-p", "text", "app.sock", option, value],
            2,
            &format!(
                "udgram: {message} (hint: a packet {value} goes after --; try 'udgram send --help')"
            ),
        );
    }
    let sandbox = Sandbox::new();
    for arguments in [
        &["listen", "--stats", "1s", "app.sock"][..],
        &["recv", "--stats", "1s"],
        &["talk", "--stats", "1s", "app.sock"],
    ] {
        sandbox.udgram(arguments).run().fails(
            2,
            usage(
                arguments[0],
                "the value goes with an equals sign: --stats=1s",
            ),
        );
    }
    for command in ["recv", "listen", "iter", "send"] {
        for (arguments, joined) in [
            (["-t", "100", "ms", "app.sock"], "100ms"),
            (["--timeout", "1.5", "min", "app.sock"], "1.5min"),
        ] {
            sandbox.udgram([command]).args(arguments).run().fails(
                2,
                usage(
                    command,
                    &format!("write it as one word: --timeout {joined}"),
                ),
            );
        }
    }
}

#[test]
fn a_command_that_begins_before_the_dashes_is_a_usage_error() {
    let sandbox = Sandbox::new();
    let begins = "the command begins after --";
    for (arguments, message) in [
        (
            &["recv", "x", "cat", "--", "file"][..],
            format!("unexpected argument 'cat' (hint: {begins}; try 'udgram recv --help')"),
        ),
        (
            &["exec", "-b", "x", "ls", "--", "-l"],
            format!("unexpected argument 'ls' (hint: {begins}; try 'udgram exec --help')"),
        ),
        (
            &["exec", "--notify", "3", "--", "true"],
            "the value goes with an equals sign: --notify=3 (hint: try 'udgram exec --help')"
                .to_owned(),
        ),
    ] {
        sandbox
            .udgram(arguments)
            .run()
            .fails(2, format!("udgram: {message}"));
    }
}

#[test]
fn exec_without_a_socket_says_how_it_gets_one() {
    let sandbox = Sandbox::new();
    sandbox.udgram(["exec", "--", "true"]).run().fails(
        2,
        usage(
            "exec",
            "--bind or --connect is missing, and there is no --socket-fd, UDGRAM_SOCKET_FD or socket activation in \
             its place",
        ),
    );
}

#[test]
fn a_packet_that_looks_like_a_value_is_sent_after_two_dashes() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let running = sandbox.udgram(["send", "-r", "s", "--", "3"]).start();
    let (packet, from) = peer.take_from();
    assert_eq!(packet, b"3");
    peer.send_to_addr(b"4", &from).unwrap();
    running.finish().succeeds("4\n");
    // A socket may have the name of a unit.
    sandbox
        .udgram(["send", "-t", "20", "s", "5"])
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"5");
}

#[test]
fn wrong_values_say_what_the_option_takes() {
    for (command, arguments, message) in [
        (
            "recv",
            ["-t", "-1"],
            "--timeout takes a duration such as 250ms, 2s or 1m, not '-1'",
        ),
        (
            "recv",
            ["-t", "5x"],
            "--timeout takes a duration such as 250ms, 2s or 1m, not '5x'",
        ),
        (
            "send",
            ["-t", ""],
            "--timeout takes a duration such as 250ms, 2s or 1m, not ''",
        ),
        (
            "recv",
            ["-n", "0"],
            "--count takes a number from 1 up, not '0'",
        ),
        (
            "recv",
            ["-n", "two"],
            "--count takes a number from 1 up, not 'two'",
        ),
        (
            "listen",
            ["-n", "-1"],
            "--count takes a number from 1 up, not '-1'",
        ),
        (
            "send",
            ["--reply=0", "s"],
            "--reply takes a number from 1 up, or all, not '0'",
        ),
        (
            "recv",
            ["-m", "9"],
            "--mode takes permission bits as octal digits, 0 to 7777, not '9'",
        ),
        (
            "recv",
            ["--owner", "x"],
            "--owner takes numbers, UID or UID:GID, not 'x'",
        ),
        (
            "recv",
            ["-s", "1:"],
            "--socket-fd takes a descriptor number from 0 up, with a process as PID:FD, not '1:'",
        ),
        (
            "send",
            ["--creds=1:2", "s"],
            "--creds takes three numbers, PID:UID:GID, not '1:2'",
        ),
        (
            "recv",
            ["--ancillary-bufsize", "-1"],
            "--ancillary-bufsize takes a number of bytes from 0 to 16777216, not '-1'",
        ),
        (
            "recv",
            ["--ancillary-bufsize", "16777217"],
            "--ancillary-bufsize takes a number of bytes from 0 to 16777216, not '16777217'",
        ),
        (
            "recv",
            ["--fd", "-1"],
            "--fd takes a descriptor number from 0 up, not '-1'",
        ),
        (
            "listen",
            ["--allow-uid", "no such user"],
            "--allow-uid 'no such user': there is no user of this name",
        ),
    ] {
        is_refused(command, arguments, message);
    }
    let sandbox = Sandbox::new();
    sandbox.udgram(["send", "-p", "jsn", "s", "1"]).run().fails(
        2,
        "udgram: --protocol takes json, text, raw, hex, base64, cbor, msgpack, fields, syslog, not 'jsn' (hint: did \
         you mean json? try 'udgram send --help')",
    );
}

#[test]
fn addresses_that_are_empty_are_refused() {
    for (command, arguments, message) in [
        (
            "recv",
            ["@", "--stats"],
            "ADDR '@': the abstract name is empty",
        ),
        ("recv", ["", "--stats"], "ADDR '': the address is empty"),
        ("send", ["@", "{}"], "PEER: the abstract name is empty"),
        (
            "send",
            ["--to", "@"],
            "--to '@': the abstract name is empty",
        ),
        (
            "send",
            ["--bind", "@"],
            "--bind '@': the abstract name is empty",
        ),
    ] {
        is_refused(command, arguments, message);
    }
}

#[test]
fn options_of_other_tools_are_answered_with_those_of_udgram() {
    let sandbox = Sandbox::new();
    for (arguments, message, hint) in [
        (
            &["recv", "-timeout", "3", "s"][..],
            "there is no option -timeout",
            "did you mean --timeout? try 'udgram recv --help'",
        ),
        (
            &["recv", "-count", "3", "s"],
            "there is no option -count",
            "did you mean --count? try 'udgram recv --help'",
        ),
        (
            &["send", "-bind", "me", "s"],
            "there is no option -bind",
            "did you mean --bind? try 'udgram send --help'",
        ),
        (
            &["send", "-to", "s", "1"],
            "there is no option -to",
            "did you mean --to? try 'udgram send --help'",
        ),
        (
            &["recv", "-fd", "3", "s"],
            "there is no option -fd",
            "did you mean --fd? try 'udgram recv --help'",
        ),
        (
            &["recv", "-socket-fd", "3"],
            "there is no option -socket-fd",
            "did you mean --socket-fd? try 'udgram recv --help'",
        ),
        (
            &["ls", "-all"],
            "there is no option -all",
            "did you mean --all? try 'udgram ls --help'",
        ),
        (
            &["recv", "--timout", "3", "s"],
            "unexpected argument '--timout'",
            "did you mean --timeout? try 'udgram recv --help'",
        ),
        (
            &["send", "--text", "s", "x"],
            "unexpected argument '--text'",
            "did you mean -p text? try 'udgram send --help'",
        ),
        (
            &["recv", "--hex", "s"],
            "unexpected argument '--hex'",
            "did you mean -p hex? try 'udgram recv --help'",
        ),
        (
            &["listen", "--json", "s"],
            "unexpected argument '--json'",
            "did you mean -p json? try 'udgram listen --help'",
        ),
        (
            &["-p", "text", "send", "s", "x"],
            "-p goes after the command",
            "udgram send -p ...; try 'udgram send --help'",
        ),
        (
            &["--timeout=3", "recv", "s"],
            "--timeout goes after the command",
            "udgram recv --timeout ...; try 'udgram recv --help'",
        ),
    ] {
        sandbox
            .udgram(arguments)
            .run()
            .fails(2, format!("udgram: {message} (hint: {hint})"));
    }
    assert!(!sandbox.exists("s"));
}

#[test]
fn a_value_too_many_or_missing_is_named_with_what_the_option_takes() {
    let sandbox = Sandbox::new();
    for (arguments, message) in [
        (
            &["listen", "--echo=1", "s"][..],
            "--echo takes no value (hint: try 'udgram listen --help')",
        ),
        (
            &["listen", "s", "--timeout"],
            "--timeout needs a value (hint: try 'udgram listen --help')",
        ),
        (
            &["listen", "s", "--color"],
            "--color needs a value: auto, always, never (hint: try 'udgram listen --help')",
        ),
        (
            &["listen", "s", "t"],
            "unexpected argument 't': there is one ADDR (hint: try 'udgram listen --help')",
        ),
    ] {
        sandbox
            .udgram(arguments)
            .run()
            .fails(2, format!("udgram: {message}"));
    }
    assert!(!sandbox.exists("s"));
}

#[test]
fn commands_to_run_go_after_two_dashes() {
    let sandbox = Sandbox::new();
    for (arguments, message, hint) in [
        (
            &["recv", "x", "cat"][..],
            "unexpected argument 'cat'",
            "put -- before the command: udgram recv x -- cat; try 'udgram recv --help'",
        ),
        (
            &["recv", "x", "grep", "a b"],
            "unexpected argument 'grep'",
            "put -- before the command: udgram recv x -- grep 'a b'; try 'udgram recv --help'",
        ),
        (
            &["exec", "ls"],
            "unexpected argument 'ls'",
            "put -- before the command: udgram exec -- ls; try 'udgram exec --help'",
        ),
        (
            &["exec", "-b", "x"],
            "CMD is missing",
            "udgram exec -- CMD...; try 'udgram exec --help'",
        ),
        (
            &["recv", "--fd", "3", "x"],
            "--fd without a CMD, which gets the descriptors",
            "udgram recv --fd N ADDR -- CMD...; try 'udgram recv --help'",
        ),
    ] {
        sandbox
            .udgram(arguments)
            .run()
            .fails(2, format!("udgram: {message} (hint: {hint})"));
    }
    // A line of more than 200 characters is not shown.
    let fits = "y".repeat(200 - "udgram recv x -- ".len());
    let shown = format!("udgram recv x -- {fits}");
    let long = fits.clone() + "y";
    for (arguments, shown) in [
        (&["recv", "x", &fits][..], shown.as_str()),
        (&["recv", "x", &long], "udgram recv ADDR -- CMD..."),
        (&["exec", "-b", "x", &long], "udgram exec -- CMD..."),
    ] {
        let hint = format!("(hint: put -- before the command: {shown}; try ");
        sandbox
            .udgram(arguments)
            .run()
            .refuses(2, &["unexpected argument 'yyy", &hint]);
    }
    sandbox.udgram(["listen", "--exec", "x.sock"]).run().fails(
        2,
        usage(
            "listen",
            "ADDR is missing: --exec took 'x.sock' for its command",
        ),
    );
    assert!(!sandbox.exists("x") && !sandbox.exists("x.sock"));
}

#[test]
fn socket_options_are_distinguished_from_values_and_addresses() {
    let sandbox = Sandbox::new();
    let none = "there is no such option for Unix datagram sockets";
    for (arguments, name, hint) in [
        (
            &["rcvbuf", "100000"][..],
            "100000",
            "did you mean rcvbuf=100000?",
        ),
        (&["passcred", "on"], "on", "did you mean passcred=on?"),
        (
            &["app.sock"],
            "app.sock",
            "that is an address: -s app.sock;",
        ),
        (
            &["rcvbuf", "app.sock"],
            "app.sock",
            "that is an address: -s app.sock;",
        ),
        (&["@name"], "@name", "that is an address: -s @name;"),
        (&["rcvbug"], "rcvbug", "did you mean SO_RCVBUF?"),
    ] {
        sandbox.udgram(["sockopt"]).args(arguments).run().fails(
            2,
            format!(
                "udgram: cannot use the socket option '{name}': {none} (hint: {hint} try 'udgram \
                 sockopt --help')"
            ),
        );
    }
}

#[test]
fn a_command_that_is_missing_or_unknown_says_which_there_are() {
    let sandbox = Sandbox::new();
    let help = sandbox.udgram(["--help"]).run().lines();
    assert!(help.iter().any(|line| line.starts_with("  send  ")));
    assert_eq!(sandbox.udgram(["help"]).run().lines(), help);
    let outcome = sandbox.udgram([] as [&str; 0]).run();
    let short = sandbox.udgram(["-h"]).run().lines().join("\n") + "\n";
    assert_eq!(outcome.stderr_text(), short);
    let _ = outcome.ends(2, "");
    for command in [
        "send",
        "recv",
        "listen",
        "iter",
        "talk",
        "relay",
        "ls",
        "sockopt",
        "exec",
        "completions",
        "help",
    ] {
        let help = sandbox.udgram([command, "--help"]).run().lines();
        assert_eq!(sandbox.udgram(["help", command]).run().lines(), help);
        // Two screens, and one.
        assert!(help.len() <= 100, "{help:?}");
        assert!(help.last().unwrap().starts_with("Manual: man udgram"));
        let short = sandbox.udgram([command, "-h"]).run().lines();
        assert!(short.len() <= 50, "{short:?}");
    }
    for (arguments, message, hint) in [
        (
            &["sned", "s"][..],
            "there is no command 'sned'",
            "did you mean send? try 'udgram --help'",
        ),
        (
            &["help", "sned"],
            "there is no command 'sned'",
            "did you mean send? try 'udgram help --help'",
        ),
        (
            &["app.sock"],
            "there is no command 'app.sock'",
            "try 'udgram --help'",
        ),
        (&["-v"], "a command is missing", "try 'udgram --help'"),
    ] {
        sandbox
            .udgram(arguments)
            .run()
            .fails(2, format!("udgram: {message} (hint: {hint})"));
    }
}

#[test]
fn every_usage_error_names_the_help_unless_quiet() {
    let sandbox = Sandbox::new();
    sandbox
        .udgram(["send", "-s", "99", "1"])
        .run()
        .fails(2, usage("send", "cannot use descriptor 99: it is not open"));
    sandbox
        .udgram(["send", "-q", "-s", "99", "1"])
        .run()
        .fails(2, "udgram: cannot use descriptor 99: it is not open");
    sandbox
        .udgram(["send", "-q", r#"{"a":1}"#])
        .run()
        .refuses(2, &[r#"PEER comes first: udgram send PEER '{"a":1}'"#]);
}

#[test]
fn control_characters_in_a_wrong_command_line_stay_on_one_line() {
    let sandbox = Sandbox::new();
    for (arguments, shown) in [
        (&["recv", "x", "a\n\u{1b}[1m"][..], r"'a\n\u{1b}[1m'"),
        (&["send", "--pro\ntocol", "x"], r"'--pro\ntocol'"),
        (&["a\nb"], r"'a\nb'"),
        (&["recv", "-n", "1\n"], r"'1\n'"),
    ] {
        let outcome = sandbox.udgram(arguments).run();
        assert!(!outcome.stderr_text().contains('\u{1b}'));
        outcome.refuses(2, &[shown]);
    }
}
