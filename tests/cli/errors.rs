//! Errors: one line on standard error and an exit status.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use crate::harness::{Sandbox, at, bind_abstract, close, peer, root, text};

#[test]
fn a_missing_peer_is_status_four() {
    let sandbox = Sandbox::new();
    let absolute = sandbox.path("missing");
    let long = sandbox.long_path("missing");
    for name in ["missing", "no/such/dir", text(&absolute), text(&long)] {
        sandbox.udgram(["send", name, "1"]).run().fails(
            4,
            format!("udgram: cannot connect to '{name}': No such file or directory"),
        );
    }
}

#[test]
fn a_stale_socket_file_is_status_four_with_a_hint() {
    let sandbox = Sandbox::new();
    sandbox.stale("s");
    sandbox.udgram(["send", "s", "1"]).run().fails(
        4,
        "udgram: cannot connect to 's': Connection refused (hint: a stale socket file, or a bind \
         mount of an old one: no socket is bound to it)",
    );
    assert!(
        sandbox.exists("s"),
        "a sender never removes a file that is not its own"
    );
}

#[test]
fn an_abstract_name_that_is_not_bound_is_status_four() {
    let sandbox = Sandbox::new();
    let address = format!("@{}", sandbox.unique());
    sandbox.udgram(["send", &address, "1"]).run().fails(
        4,
        format!(
            "udgram: cannot connect to '{address}': Connection refused (hint: no datagram socket has \
             this abstract name in this network namespace)"
        ),
    );
}

#[test]
fn a_file_that_is_not_a_socket_is_status_one_and_named() {
    let sandbox = Sandbox::new();
    sandbox.file("file", "");
    sandbox.directory("dir");
    nix::unistd::mkfifo(&sandbox.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (name, kind) in [
        ("file", "regular file"),
        ("dir", "directory"),
        ("fifo", "FIFO"),
    ] {
        sandbox.udgram(["send", name, "1"]).run().fails(
            1,
            format!("udgram: cannot connect to '{name}': it is a {kind}, not a socket"),
        );
    }
}

#[test]
fn a_missing_peer_with_a_path_too_long_for_the_kernel_is_status_four() {
    let sandbox = Sandbox::new();
    let path = sandbox.long_path("missing");
    sandbox.udgram(["send", text(&path), "1"]).run().fails(
        4,
        format!(
            "udgram: cannot connect to '{}': No such file or directory",
            path.display()
        ),
    );
}

#[test]
fn an_abstract_name_that_is_bound_with_padding_is_named_in_the_hint() {
    let sandbox = Sandbox::new();
    let name = sandbox.unique();
    let padding = 107 - name.len();
    let _padded = bind_abstract(name.clone() + &"\0".repeat(padding));
    sandbox
        .udgram(["send", &format!("@{name}"), "1"])
        .run()
        .fails(
            4,
            format!(
                "udgram: cannot connect to '@{name}': Connection refused (hint: that name padded with \
                 NULs to 108 bytes is bound: '@{name}{}')",
                "\\0".repeat(padding)
            ),
        );
    // The padding of a name of 107 bytes is part of it.
    let full = "x".repeat(107 - name.len()) + &name;
    sandbox
        .udgram(["send", &format!("@{full}"), "1"])
        .run()
        .fails(
            4,
            format!(
                "udgram: cannot connect to '@{full}': Connection refused (hint: no datagram socket has \
                 this abstract name in this network namespace)"
            ),
        );
}

#[test]
fn a_stream_socket_is_status_one_with_a_hint() {
    let sandbox = Sandbox::new();
    let _listener = UnixListener::bind(sandbox.path("s")).unwrap();
    sandbox.udgram(["send", "s", "1"]).run().fails(
        1,
        "udgram: cannot connect to 's': Protocol wrong type for socket (hint: it is a stream socket, \
         not a datagram socket)",
    );
}

#[test]
fn a_seqpacket_socket_is_status_one_and_not_called_a_stream_socket() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let owner = sandbox
        .python(
            "import socket, sys\n\
             s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
             s.bind('s'); s.listen()\n\
             print('bound', flush=True); sys.stdin.read()",
        )
        .stdin_open()
        .start();
    let mut owner = owner;
    assert_eq!(owner.line(), "bound");
    sandbox.udgram(["send", "s", "1"]).run().fails(
        1,
        "udgram: cannot connect to 's': Protocol wrong type for socket (hint: it is a seqpacket \
             socket, not a datagram socket)",
    );
    owner.finish().succeeds("bound\n");
}

#[test]
fn a_file_without_permission_is_status_one_with_the_file_and_its_mode() {
    root!();
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("s");
    std::fs::set_permissions(sandbox.path("s"), PermissionsExt::from_mode(0o640)).unwrap();
    sandbox.udgram_as(65534, ["send", "s", "1"]).run().fails(
        1,
        "udgram: cannot connect to 's': Permission denied (hint: 's' has mode 0640 and belongs to \
         0:0; sending needs write permission)",
    );
}

#[test]
fn a_directory_without_permission_is_named_in_the_hint() {
    root!();
    let sandbox = Sandbox::new();
    let dir = sandbox.directory("closed");
    let _peer = sandbox.bind("closed/s");
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).unwrap();
    sandbox
        .udgram_as(65534, ["send", "closed/s", "1"])
        .run()
        .fails(
            1,
            "udgram: cannot connect to 'closed/s': Permission denied (hint: 'closed' has mode 0700 \
             and belongs to 0:0; it must be searchable)",
        );
}

#[test]
fn a_directory_without_write_permission_is_named_as_any_other_file() {
    root!();
    let sandbox = Sandbox::new();
    let dir = sandbox.directory("dir");
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o555)).unwrap();
    sandbox.udgram_as(65534, ["send", "dir", "1"]).run().fails(
        1,
        "udgram: cannot connect to 'dir': Permission denied (hint: 'dir' has mode 0555 and belongs to \
         0:0; sending needs write permission)",
    );
}

#[test]
fn sockets_of_two_file_systems_with_the_same_inode_number_are_distinguished() {
    root!();
    peer!("python3", "unshare", "mount");
    let sandbox = Sandbox::new();
    sandbox.directory("a");
    sandbox.directory("b");
    let script = "
import os, socket, subprocess, sys
a, b = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
a.bind('a/s')
b.bind('b/s')
assert os.stat('a/s').st_ino == os.stat('b/s').st_ino
a.connect('b/s')
sys.exit(subprocess.run(['udgram', 'send', 'a/s', '1']).returncode)
";
    let mount = "mount -t tmpfs none a && mount -t tmpfs none b && exec \"$@\"";
    sandbox
        .command("unshare", ["-m", "sh", "-c", mount, "sh"])
        .args(["python3", "-c", script])
        .run()
        .fails(
            1,
            "udgram: cannot connect to 'a/s': Operation not permitted (hint: that socket is connected \
             to another peer and takes datagrams from it alone)",
        );
}

#[test]
fn a_peer_connected_to_another_socket_is_status_one_with_a_hint() {
    let sandbox = Sandbox::new();
    let _other = sandbox.bind("other");
    let owner = sandbox.bind("s");
    owner.connect(sandbox.path("other")).unwrap();
    sandbox.udgram(["send", "s", "1"]).run().fails(
        1,
        "udgram: cannot connect to 's': Operation not permitted (hint: that socket is connected \
         to another peer and takes datagrams from it alone)",
    );
}

#[test]
fn a_peer_that_shut_down_its_reading_side_is_an_error() {
    let sandbox = Sandbox::new();
    let owner = sandbox.bind("s");
    owner.shutdown(std::net::Shutdown::Read).unwrap();
    let outcome = sandbox.udgram(["send", "s", "1"]).run();
    assert_ne!(outcome.code(), Some(0));
    let lines = outcome.diagnostics();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("shut down its reading side"), "{lines:?}");
}

#[test]
fn usage_errors_are_one_line_and_status_two() {
    let sandbox = Sandbox::new();
    for args in [
        &["frobnicate"][..],
        &["send", "--no-such-option", "s", "1"],
        &["recv", "--no-such-option", "s"],
        &["recv", "a", "b"],
        &["recv", "--count"],
        &["send", "-p", "jsn", "s", "1"],
        &["recv", "--protocol=xml", "s"],
        &["recv", "--mode", "9", "s"],
        &["send"],
        &["recv"],
        &["recv", "--to", "x", "s"],
    ] {
        sandbox.udgram(args).run().refuses(2, &[]);
    }
    assert!(!sandbox.exists("s"));
}

#[test]
fn without_a_command_the_help_is_a_usage_error() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.udgram([] as [&str; 0]).run();
    assert_eq!(outcome.code(), Some(2));
}

#[test]
fn help_and_version_are_printed_on_standard_output() {
    let sandbox = Sandbox::new();
    let version = sandbox.udgram(["--version"]).run().one_line();
    assert_eq!(version, concat!("udgram ", env!("CARGO_PKG_VERSION")));
    for args in [&["--help"][..], &["send", "--help"], &["recv", "-h"]] {
        let lines = sandbox.udgram(args).run().lines();
        assert!(
            lines.iter().any(|line| line.starts_with("Usage: udgram")),
            "{args:?}"
        );
    }
}

#[test]
fn help_into_a_closed_pipe_ends_quietly() {
    let sandbox = Sandbox::new();
    let (reader, writer) = crate::harness::pipe();
    close(reader);
    let outcome = sandbox.udgram(["send", "--help"]).stdout_to(writer).run();
    outcome
        .dies_of(nix::sys::signal::Signal::SIGPIPE, "")
        .says_nothing();
}

#[test]
fn help_that_stdout_or_stderr_does_not_take_is_not_status_zero() {
    let sandbox = Sandbox::new();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for option in ["--help", "-h", "--version"] {
        sandbox
            .udgram([option])
            .stdout_to(full())
            .run()
            .fails(1, "udgram: cannot write to stdout: No space left on device");
    }
    // It was not asked for.
    sandbox
        .udgram([] as [&str; 0])
        .stderr_to(full())
        .run()
        .ends(2, "")
        .says_nothing();
}

#[test]
fn a_misspelt_option_suggests_the_nearest() {
    let sandbox = Sandbox::new();
    sandbox
        .udgram(["recv", "--timout", "1", "s"])
        .run()
        .refuses(2, &["--timout", "--timeout"]);
}

#[test]
fn control_characters_in_an_address_do_not_reach_a_terminal_or_break_the_line() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.udgram(["send", "bad\n\x1b[31mname", "1"]).run();
    let lines = outcome.diagnostics();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(!lines[0].contains('\x1b'), "{lines:?}");
    let _ = outcome.ends(4, "");
}

#[test]
fn quiet_silences_hints_and_never_errors() {
    let sandbox = Sandbox::new();
    sandbox.stale("s");
    sandbox
        .udgram(["send", "-q", "s", "1"])
        .run()
        .fails(4, "udgram: cannot connect to 's': Connection refused");
}

#[test]
fn socket_options_are_accepted_and_checked() {
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("s");
    sandbox
        .udgram(["send", "-o", "SO_SNDBUF=64KiB", "s", "1"])
        .run()
        .succeeds("");
    sandbox
        .udgram([
            "send",
            "--sockopt",
            "sndbuf=65536",
            "-o",
            "passcred=on",
            "s",
            "1",
        ])
        .run()
        .succeeds("");
    sandbox
        .udgram(["send", "-o", "sndbuff=1", "s", "1"])
        .run()
        .refuses(2, &["sndbuff", "SO_SNDBUF"]);
    for option in ["sndbuf", "sndbuf=", "sndbuf=lots", "=1", "passcred=maybe"] {
        sandbox
            .udgram(["send", "-o", option, "s", "1"])
            .run()
            .refuses(2, &[]);
    }
}

#[test]
fn an_abstract_name_of_a_stream_socket_is_status_one() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let name = sandbox.unique();
    let script = format!(
        "import socket, sys\n\
         s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)\n\
         s.bind('\\0{name}'); s.listen()\n\
         print('bound', flush=True); sys.stdin.read()"
    );
    let mut owner = sandbox.python(&script).stdin_open().start();
    assert_eq!(owner.line(), "bound");
    sandbox.udgram(["send", &at(&name), "1"]).run().fails(
        1,
        format!(
            "udgram: cannot connect to '@{name}': it is a stream socket, not a datagram socket"
        ),
    );
}

#[test]
fn a_peer_that_goes_away_is_named() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let mut running = sandbox.udgram(["send", "s"]).stdin_open().start();
    running.write("1\n");
    assert_eq!(
        crate::harness::limited(peer.try_clone().unwrap())
            .recv(&mut [0; 8])
            .unwrap(),
        1
    );
    close(peer);
    running.write("2\n");
    running.finish().refuses(
        4,
        &["line 2: cannot send to 's': Connection refused", "stale"],
    );
}

#[test]
fn the_highest_number_and_signed_numbers_are_not_users() {
    let sandbox = Sandbox::new();
    for owner in ["4294967295", "+0", "0:4294967295", "0:+1"] {
        sandbox
            .udgram(["recv", "--owner", owner, "s"])
            .run()
            .refuses(2, &["--owner"]);
    }
}
