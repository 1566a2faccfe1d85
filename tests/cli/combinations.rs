//! Options without effect in the combination given are usage errors that name the option.

use crate::harness::Sandbox;

/// An option about a socket file, with its value.
const FILE_OPTIONS: [&[&str]; 3] = [&["--mode", "0666"], &["--owner", "0"], &["--replace"]];

#[track_caller]
fn is_refused(arguments: &[&str], message: &str) {
    let sandbox = Sandbox::new();
    sandbox
        .udgram(arguments)
        .stdin("1\n")
        .run()
        .refuses(2, &[&format!("udgram: {message} (hint: "), "try 'udgram "]);
    assert!(!sandbox.exists("s"), "{arguments:?}");
}

#[test]
fn options_about_a_socket_file_need_a_pathname_that_is_bound() {
    let abstract_name = "an abstract name has no file";
    let unnamed = "an unnamed socket has no file";
    let open = "--socket-fd binds nothing";
    for (command, why) in [
        (
            &["send", "s", "1"][..],
            "no pathname is bound without --bind",
        ),
        (&["send", "-", "1"], "no pathname is bound without --bind"),
        (
            &["send", "--to", "s", "1"],
            "no pathname is bound without --bind",
        ),
        (&["send", "--bind", "@x", "s", "1"], abstract_name),
        (&["send", "--bind", "", "s", "1"], unnamed),
        (&["send", "-s", "0", "1"], open),
        (&["recv", "@x"], abstract_name),
        (&["recv", "-s", "0"], open),
        (&["recv", "-c", "s"], "no pathname is bound without ADDR"),
        (&["recv"], "no pathname is bound without ADDR"),
        (&["listen", "@x"], abstract_name),
        (&["listen", "-s", "0"], open),
        (&["listen", "-c", "s"], "no pathname is bound without ADDR"),
        (&["iter", "-t", "1", "@x"], abstract_name),
        (&["iter", "-s", "0"], open),
        (&["iter", "--peek", "-s", "0"], open),
        (&["iter", "--peek", "s"], "--peek binds nothing"),
        (&["sockopt"], "no pathname is bound without --bind"),
        (&["sockopt", "--bind", "@x"], abstract_name),
        (&["sockopt", "--bind", ""], unnamed),
        (
            &["sockopt", "-c", "s"],
            "no pathname is bound without --bind",
        ),
        (&["sockopt", "-s", "0"], open),
        (&["exec", "-b", "@x"], abstract_name),
        (&["exec", "-b", "", "-c", "s"], unnamed),
        (&["exec", "-c", "s"], "no pathname is bound without --bind"),
        (&["exec", "-s", "0"], open),
    ] {
        for option in FILE_OPTIONS {
            let mut arguments = command.to_vec();
            arguments.extend(option);
            if command[0] == "exec" {
                arguments.extend(["--", "true"]);
            }
            is_refused(&arguments, &format!("{} has no effect: {why}", option[0]));
        }
    }
}

#[test]
fn colours_need_lines_that_are_json() {
    let no_effect = "--color always has no effect";
    for command in [
        &["recv", "s"][..],
        &["listen", "s"],
        &["iter", "-t", "1", "s"],
        &["send", "-r", "s", "1"],
        &["talk", "s"],
    ] {
        for protocol in ["text", "raw", "hex", "base64"] {
            let mut arguments = command.to_vec();
            arguments.extend(["-p", protocol, "--color", "always"]);
            is_refused(
                &arguments,
                &format!("{no_effect}: lines of -p {protocol} are not JSON"),
            );
        }
    }
    for (arguments, why) in [
        (
            &["send", "s", "1"][..],
            "send prints nothing without --reply",
        ),
        (
            &["send", "-e", "s", "{}"],
            "send prints nothing without --reply",
        ),
        (
            &["sockopt", "rcvbuf"],
            "one value is printed alone, not as JSON",
        ),
    ] {
        let mut arguments = arguments.to_vec();
        arguments.push("--color=always");
        is_refused(&arguments, &format!("{no_effect}: {why}"));
    }
    is_refused(
        &["recv", "--color", "always", "s", "--", "true"],
        &format!("{no_effect}: the packet goes to CMD, not to stdout"),
    );
}

#[test]
fn other_options_without_effect_or_that_contradict_each_other_are_named() {
    for (arguments, message) in [
        (
            &["recv", "--stats", "s", "--", "true"][..],
            "--stats with a CMD: udgram is gone when it ends",
        ),
        (
            &["recv", "-n", "2", "s", "--", "true"],
            "--count and CMD exclude each other",
        ),
        (
            &["recv", "--fd", "3", "s"],
            "--fd without a CMD, which gets the descriptors",
        ),
        (
            &["recv", "--fd", "3", "--fd", "3", "s", "--", "true"],
            "--fd 3 is given twice",
        ),
        (
            &["listen", "--echo", "--exec", "true", "s"],
            "--echo and --exec exclude each other",
        ),
        (
            &["listen", "--echo", "--pipe", "cat", "s"],
            "--echo and --pipe exclude each other",
        ),
        (
            &["listen", "--exec", "cat", "--pipe", "cat", "s"],
            "--exec and --pipe exclude each other",
        ),
        (
            &["listen", "--peek", "--pipe", "cat", "s"],
            "--peek and --pipe exclude each other",
        ),
        (
            &["listen", "--peek", "--echo", "--exec", "cat", "s"],
            "--peek and --echo and --exec exclude each other",
        ),
        (
            &["listen", "-p", "raw", "--pipe", "cat", "s"],
            "--pipe with -p raw: bytes are not lines",
        ),
        (
            &["listen", "--pipe", "s"],
            "ADDR is missing: --pipe took 's' for its command",
        ),
        (
            &["send", "-r", "-b", "", "s", "1"],
            "--reply with --bind '': nobody can answer an unnamed socket",
        ),
        (
            &["send", "--reply=all", "s", "1"],
            "--reply=all needs a --timeout, which is its end",
        ),
        (
            &["iter", "s"],
            "a socket bound just now has nothing waiting",
        ),
        (
            &["iter", "-c", "s"],
            "a socket bound just now has nothing waiting",
        ),
        (
            &["iter", "--peek", "-s", "0", "s"],
            "ADDR and --socket-fd exclude each other",
        ),
        (
            &["iter", "--peek", "-c", "s", "-s", "0"],
            "--peek leaves the socket as it is, --connect does not",
        ),
        (
            &["iter", "--peek", "-t", "1", "-s", "0"],
            "--peek and --timeout exclude each other",
        ),
        (
            &["ls", "--candidates", "--all"],
            "--candidates lists what can be sent to, and takes neither ADDR nor --all",
        ),
        (
            &["ls", "--candidates", "s"],
            "--candidates lists what can be sent to, and takes neither ADDR nor --all",
        ),
        (
            &["ls", "--candidates", "--color=always"],
            "--color always has no effect: candidates are not JSON",
        ),
        (
            &["iter", "--peek", "--creds", "-s", "0"],
            "--peek and --creds exclude each other",
        ),
    ] {
        is_refused(arguments, message);
    }
    for command in ["recv", "listen"] {
        is_refused(
            &[command, "--ancillary-bufsize", "64", "s"],
            "--ancillary-bufsize has no effect without --envelope, --creds or a CMD",
        );
    }
}

#[test]
fn options_about_the_time_the_loss_and_the_end_of_packets_that_contradict_are_named() {
    for (arguments, message) in [
        (
            &["send", "--window", "2", "s", "1"][..],
            "--window has no effect without --reply",
        ),
        (
            &["send", "--window", "2", "--reply=all", "-t", "1", "s", "1"],
            "--window with --reply=all: nothing says which packet a reply belongs to",
        ),
        (
            &["send", "--drop", "-w", "s", "1"],
            "--drop and --wait exclude each other",
        ),
        (
            &["send", "--drop", "-r", "s", "1"],
            "--drop and --reply exclude each other",
        ),
        (
            &["send", "--drop", "-t", "1", "s", "1"],
            "--timeout has no effect: --drop never waits",
        ),
        (
            &["send", "--rate", "1", "--pace", "-e", "s"],
            "--rate and --pace exclude each other",
        ),
        (
            &["send", "--pace", "s", "1"],
            "--pace needs --envelope, whose lines have a time",
        ),
        (
            &["send", "-0", "-p", "raw", "s"],
            "--null has no effect: -p raw adds nothing to packets",
        ),
        (
            &["recv", "-0", "-p", "raw", "s"],
            "--null has no effect: -p raw adds nothing to packets",
        ),
        (
            &["send", "-0", "s", "1"],
            "--null has no effect: packets are arguments, and send prints nothing without --reply",
        ),
        (
            &["recv", "-0", "s", "--", "true"],
            "--null has no effect: the packet goes to CMD, not to stdout",
        ),
        (
            &["listen", "--queue", "9", "--echo", "s"],
            "--queue and --echo exclude each other: a socket with --queue cannot answer an abstract name",
        ),
        (
            &["listen", "--queue", "9", "--exec", "true", "s"],
            "--queue and --exec exclude each other: a socket with --queue cannot answer an abstract name",
        ),
        (
            &["listen", "--queue", "9", "--peek", "s"],
            "--queue and --peek exclude each other",
        ),
    ] {
        is_refused(arguments, message);
    }
}

#[test]
fn a_deep_queue_needs_a_pathname() {
    let reason =
        "the socket is in a network namespace of its own, in which nobody sees abstract names";
    let no_bind = "--queue has no effect: no pathname is bound without";
    for (arguments, message) in [
        (
            &["recv", "@x"][..],
            format!("--queue needs a pathname to bind: {reason}"),
        ),
        (
            &["listen", "@x"],
            format!("--queue needs a pathname to bind: {reason}"),
        ),
        (
            &["exec", "-b", "@x"],
            format!("--queue needs a pathname to bind: {reason}"),
        ),
        (
            &["recv", "-c", "@x", "s"],
            format!("--queue needs a pathname to connect to: {reason}"),
        ),
        (
            &["exec", "-c", "@x", "-b", "s"],
            format!("--queue needs a pathname to connect to: {reason}"),
        ),
        (&["listen", "-s", "0"], format!("{no_bind} ADDR")),
        (&["listen", "-c", "p"], format!("{no_bind} ADDR")),
        (&["exec", "-c", "p"], format!("{no_bind} --bind")),
        (&["exec", "-b", "", "-c", "p"], format!("{no_bind} --bind")),
    ] {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--queue", "100"]);
        if arguments[0] == "exec" {
            arguments.extend(["--", "true"]);
        }
        is_refused(&arguments, &message);
    }
}

#[test]
fn quiet_and_verbose_exclude_each_other_on_either_side_of_the_command() {
    for arguments in [
        ["-q", "-v", "recv", "s"],
        ["-v", "recv", "-q", "s"],
        ["-q", "recv", "-v", "s"],
        ["recv", "-q", "-v", "s"],
    ] {
        let sandbox = Sandbox::new();
        sandbox
            .udgram(arguments)
            .run()
            .refuses(2, &["--quiet and --verbose exclude each other"]);
    }
}

#[test]
fn an_address_and_an_open_socket_exclude_each_other() {
    for arguments in [
        &["recv", "-s", "0", "s"][..],
        &["listen", "-s", "0", "s"],
        &["iter", "-s", "0", "-t", "1", "s"],
        &["send", "-s", "0", "-b", "s", "1"],
        &["sockopt", "-s", "0", "-b", "s"],
        &["exec", "-s", "0", "-b", "s", "--", "true"],
    ] {
        is_refused(
            arguments,
            "an address to bind and --socket-fd exclude each other",
        );
    }
}
