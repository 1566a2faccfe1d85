//! Descriptors in ancillary data (SCM_RIGHTS).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::harness::{Peer, Sandbox, content, text, timeless};
use crate::outcome::{SIGNALS, ordinary_signals};
use crate::running::Running;
use crate::sys::{send_descriptors, take_message};

#[track_caller]
fn receiver(sandbox: &Sandbox, args: &[&str]) -> Running {
    let running = sandbox.udgram(["recv"]).args(args).start();
    running.wait_bound("s");
    running
}

/// Returns an open file with this content.
#[track_caller]
fn open(sandbox: &Sandbox, name: &str) -> File {
    File::open(sandbox.file(name, format!("content of {name}\n"))).unwrap()
}

#[test]
fn a_descriptor_is_attached_to_every_packet() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let file = open(&sandbox, "file");
    sandbox
        .udgram(["send", "--fd", "7", "s", "1", "2"])
        .descriptor(&file, 7)
        .run()
        .succeeds("");
    for packet in [b"1", b"2"] {
        let mut message = take_message(&peer);
        assert_eq!(message.bytes, packet);
        assert_eq!(message.descriptors.len(), 1);
        let mut copy = File::from(message.descriptors.remove(0));
        copy.rewind().unwrap();
        assert_eq!(content(OwnedFd::from(copy)), b"content of file\n");
    }
}

#[test]
fn several_descriptors_keep_their_order() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let (a, b) = (open(&sandbox, "a"), open(&sandbox, "b"));
    sandbox
        .udgram(["send", "--fd", "9", "--fd=5", "s", "1"])
        .descriptor(&a, 5)
        .descriptor(&b, 9)
        .run()
        .succeeds("");
    let contents: Vec<_> = take_message(&peer)
        .descriptors
        .into_iter()
        .map(content)
        .collect();
    assert_eq!(contents, [b"content of b\n", b"content of a\n"]);
}

#[test]
fn an_empty_datagram_may_carry_a_descriptor() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let file = open(&sandbox, "file");
    sandbox
        .udgram(["send", "-p", "raw", "--fd", "3", "s", ""])
        .descriptor(&file, 3)
        .run()
        .succeeds("");
    let message = take_message(&peer);
    assert_eq!((message.bytes.len(), message.descriptors.len()), (0, 1));
}

#[test]
fn as_many_descriptors_as_the_kernel_takes_are_sent_and_no_more() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let file = open(&sandbox, "file");
    let options: Vec<&str> = ["--fd", "3"].repeat(253);
    sandbox
        .udgram(["send"])
        .args(&options)
        .args(["s", "1"])
        .descriptor(&file, 3)
        .run()
        .succeeds("");
    assert_eq!(take_message(&peer).descriptors.len(), 253);
    sandbox
        .udgram(["send"])
        .args(&options)
        .args(["--fd", "3", "s", "1"])
        .descriptor(&file, 3)
        .run()
        .refuses(2, &["253"]);
    peer.has_nothing_more();
}

#[test]
fn a_descriptor_that_is_not_open_is_a_usage_error() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    sandbox
        .udgram(["send", "--fd", "77", "s", "1"])
        .run()
        .refuses(2, &["77", "not open"]);
    for fd in ["x", "-1", "", "99999999999", "1:", ":1"] {
        let option = format!("--fd={fd}");
        sandbox
            .udgram(["send", &option, "s", "1"])
            .run()
            .refuses(2, &["--fd"]);
    }
    peer.has_nothing_more();
}

#[test]
fn a_descriptor_of_another_process_is_attached() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let file = open(&sandbox, "file");
    let owner = sandbox
        .command("cat", [] as [&str; 0])
        .stdin_open()
        .descriptor(&file, 8)
        .start();
    let option = format!("{}:8", owner.pid());
    sandbox
        .udgram(["send", "--fd", &option, "s", "1"])
        .run()
        .succeeds("");
    let mut message = take_message(&peer);
    assert_eq!(content(message.descriptors.remove(0)), b"content of file\n");
    owner.finish().succeeds("");
}

#[test]
fn each_envelope_attaches_its_descriptors() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let file = open(&sandbox, "file");
    sandbox
        .udgram(["send", "-e", "s"])
        .stdin("{\"packet\":1}\n{\"packet\":2,\"fds\":[5,5]}\n{\"packet\":3}\n")
        .descriptor(&file, 5)
        .run()
        .succeeds("");
    let counts = [0; 3].map(|_: i32| take_message(&peer).descriptors.len());
    assert_eq!(counts, [0, 2, 0]);
}

#[test]
fn descriptors_that_a_receiver_described_are_skipped_with_a_warning() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let line = r#"{"packet":1,"fds":[{"fd":3,"type":"file","path":"/etc/hosts","access":"r"}]}"#;
    let outcome = sandbox.udgram(["send", "-e", "s", line]).run();
    outcome.ends(0, "").mentions(&["describes descriptors"]);
    let message = take_message(&peer);
    assert_eq!(
        (message.bytes.as_slice(), message.descriptors.len()),
        (&b"1"[..], 0)
    );
    sandbox
        .udgram(["send", "-q", "-e", "s", line])
        .run()
        .succeeds("");
}

#[test]
fn received_descriptors_are_described() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["-e", "s"]);
    let file = open(&sandbox, "file");
    let written = File::options()
        .append(true)
        .open(sandbox.path("file"))
        .unwrap();
    let both = File::options()
        .read(true)
        .write(true)
        .open(sandbox.path("file"))
        .unwrap();
    let directory = File::open(sandbox.dir()).unwrap();
    let (reader, writer) = crate::harness::pipe();
    let socket = sandbox.bind("other");
    let memory = memfd_create("notes", MFdFlags::MFD_CLOEXEC).unwrap();
    let event = EventFd::new().unwrap();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let null = File::open("/dev/null").unwrap();
    let terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/ptmx")
        .unwrap();
    let sent: [BorrowedFd<'_>; 12] = [
        file.as_fd(),
        written.as_fd(),
        both.as_fd(),
        directory.as_fd(),
        reader.as_fd(),
        writer.as_fd(),
        socket.as_fd(),
        memory.as_fd(),
        event.as_fd(),
        epoll.0.as_fd(),
        null.as_fd(),
        terminal.as_fd(),
    ];
    let sender = UnixDatagram::unbound().unwrap();
    send_descriptors(&sender, &sandbox.path("s"), b"1", &sent);
    let line = running.finish().one_line();
    let envelope: serde_json::Value = serde_json::from_str(&line).unwrap();
    let fds = envelope["fds"].as_array().unwrap();
    let path = text(&sandbox.path("file")).to_owned();
    let expected = [
        ("file", path.as_str(), "r"),
        ("file", &path, "w"),
        ("file", &path, "rw"),
        ("dir", text(sandbox.dir()), "r"),
        ("pipe", "", "r"),
        ("pipe", "", "w"),
        ("socket", "", "rw"),
        ("memfd", "", "rw"),
        ("eventfd", "", "rw"),
        ("epoll", "", "rw"),
        ("char", "/dev/null", "r"),
        ("tty", "", "rw"),
    ];
    assert_eq!(fds.len(), expected.len(), "{line}");
    for (fd, (kind, path, access)) in fds.iter().zip(expected) {
        assert_eq!(fd["type"], kind, "{fd}");
        assert_eq!(fd["access"], access, "{fd}");
        assert!(fd["fd"].is_number(), "{fd}");
        if !path.is_empty() {
            assert_eq!(fd["path"], path, "{fd}");
        }
    }
}

#[test]
fn the_description_of_a_file_is_exactly_this() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["-e", "s"]);
    let file = open(&sandbox, "file");
    let sender = UnixDatagram::unbound().unwrap();
    send_descriptors(&sender, &sandbox.path("s"), b"1", &[file.as_fd()]);
    let line = timeless(&running.finish().one_line());
    let start = "{\"from\":null,\"size\":1,\"packet\":1,\"fds\":[{\"fd\":";
    let end = format!(
        ",\"type\":\"file\",\"path\":\"{}\",\"access\":\"r\"}}]}}",
        text(&sandbox.path("file"))
    );
    let number = line
        .strip_prefix(start)
        .and_then(|rest| rest.strip_suffix(&end));
    assert!(
        number.is_some_and(|number| number.parse::<u32>().is_ok()),
        "{line}"
    );
}

#[test]
fn unrequested_descriptors_are_dropped_with_a_warning_and_the_packet_is_printed() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["s"]);
    let sender = UnixDatagram::unbound().unwrap();
    send_descriptors(&sender, &sandbox.path("s"), b"1", &[sender.as_fd()]);
    running
        .finish()
        .ends(0, "1\n")
        .says("udgram: warning: dropped descriptors from an unnamed socket; --envelope lists them, a CMD receives them");
    let running = receiver(&sandbox, &["-q", "s"]);
    send_descriptors(&sender, &sandbox.path("s"), b"1", &[sender.as_fd()]);
    running.finish().succeeds("1\n");
}

#[test]
fn received_descriptors_are_closed_before_the_next_packet() {
    let sandbox = Sandbox::new();
    for options in [
        &["-n9", "s"][..],
        &["-e", "-n9", "s"],
        &["--creds", "-n9", "s"],
        &["-e", "--ancillary-bufsize=32", "-n9", "s"],
    ] {
        let mut running = receiver(&sandbox, options);
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"0", sandbox.path("s")).unwrap();
        let _ = running.line();
        let before = running.open_descriptors();
        for _ in 0..7 {
            let (mut reader, writer) = crate::harness::pipe();
            let sent = vec![writer.as_fd(); 20];
            send_descriptors(&sender, &sandbox.path("s"), b"1", &sent);
            drop(sent);
            drop(writer);
            let _ = running.line();
            // The end of input comes only when every copy has been closed.
            assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
        }
        assert_eq!(running.open_descriptors(), before, "{options:?}");
        sender.send_to(b"0", sandbox.path("s")).unwrap();
        assert_eq!(running.finish().code(), Some(0));
    }
}

#[test]
fn control_data_that_does_not_fit_is_reported_as_truncated() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["-e", "--ancillary-bufsize", "64", "s"]);
    let sender = UnixDatagram::unbound().unwrap();
    send_descriptors(&sender, &sandbox.path("s"), b"1", &[sender.as_fd(); 100]);
    let outcome = running.finish();
    let envelope: serde_json::Value = serde_json::from_slice(outcome.stdout()).unwrap();
    assert_eq!(envelope["packet"], 1);
    assert_eq!(envelope["ancillary_truncated"], true);
    assert!(envelope["fds"].as_array().is_none_or(|fds| fds.len() < 100));
    assert_eq!(outcome.code(), Some(0));
}

#[test]
fn without_a_command_a_descriptor_is_described_with_the_number_that_it_had() {
    let sandbox = Sandbox::new();
    let socket = sandbox.bind("s");
    send_descriptors(&socket, &sandbox.path("s"), b"1", &[socket.as_fd()]);
    let outcome = sandbox
        .udgram(["recv", "-e", "-s", "3"])
        .descriptor(&socket, 3)
        .run();
    let envelope: serde_json::Value = serde_json::from_slice(outcome.stdout()).unwrap();
    // The socket that it was received on has number 3.
    assert!(envelope["fds"][0]["fd"].as_u64().unwrap() > 3, "{envelope}");
}

#[test]
fn a_command_that_cannot_get_all_descriptors_is_run_and_that_is_reported() {
    let sandbox = Sandbox::new();
    let arguments = [
        "--ancillary-bufsize",
        "64",
        "s",
        "--",
        "printenv",
        "UDGRAM_PACKET",
    ];
    let running = receiver(&sandbox, &arguments);
    let sender = sandbox.bind("me");
    send_descriptors(&sender, &sandbox.path("s"), b"1", &[sender.as_fd(); 100]);
    running.finish().ends(0, "1\n").says(format!(
        "udgram: warning: not all descriptors that '{}' sent could be received",
        text(&sandbox.path("me"))
    ));
}

#[test]
fn descriptors_beyond_the_limit_of_open_files_are_reported_as_truncated() {
    let sandbox = Sandbox::new();
    let running = sandbox.shell("ulimit -n 20; exec udgram recv -e s").start();
    running.wait_bound("s");
    let sender = UnixDatagram::unbound().unwrap();
    send_descriptors(&sender, &sandbox.path("s"), b"1", &[sender.as_fd(); 100]);
    let outcome = running.finish();
    let envelope: serde_json::Value = serde_json::from_slice(outcome.stdout()).unwrap();
    assert_eq!(
        (&envelope["packet"], &envelope["ancillary_truncated"]),
        (&1.into(), &true.into())
    );
    assert_eq!(outcome.code(), Some(0));
}

#[test]
fn descriptors_within_the_limit_of_open_files_are_all_received() {
    let sandbox = Sandbox::new();
    let running = sandbox
        .udgram(["recv", "-e", "s"])
        .descriptor_limit(64)
        .start();
    running.wait_bound("s");
    let sender = UnixDatagram::unbound().unwrap();
    send_descriptors(&sender, &sandbox.path("s"), b"1", &[sender.as_fd(); 20]);
    let envelope: serde_json::Value = serde_json::from_str(&running.finish().one_line()).unwrap();
    assert_eq!(envelope["fds"].as_array().unwrap().len(), 20);
    assert_eq!(envelope.get("ancillary_truncated"), None);
}

#[test]
fn ancillary_bufsize_without_effect_is_a_usage_error() {
    let sandbox = Sandbox::new();
    sandbox
        .udgram(["recv", "--ancillary-bufsize", "64", "s"])
        .run()
        .refuses(2, &["--ancillary-bufsize"]);
}

#[test]
fn a_command_gets_the_descriptors_from_three_up() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["s", "--", "sh", "-c", "cat <&4; cat <&3"]);
    let (a, b) = (open(&sandbox, "a"), open(&sandbox, "b"));
    let sender = UnixDatagram::unbound().unwrap();
    send_descriptors(&sender, &sandbox.path("s"), b"1", &[a.as_fd(), b.as_fd()]);
    running.finish().succeeds("content of b\ncontent of a\n");
    assert!(!sandbox.exists("s"));
}

#[test]
fn a_command_gets_the_packet_and_its_sender_in_its_environment() {
    let sandbox = Sandbox::new();
    let script = "printf '%s|%s\\n' \"$UDGRAM_PACKET\" \"$UDGRAM_FROM\"";
    let running = receiver(&sandbox, &["s", "--", "sh", "-c", script]);
    sandbox
        .udgram(["send", "--bind", "me", "s", "{\"a\": 1}"])
        .run()
        .succeeds("");
    let from = sandbox.path("me");
    running
        .finish()
        .succeeds(format!("{{\"a\": 1}}|{}\n", from.display()));
}

#[test]
fn a_commands_environment_has_its_descriptors_as_in_socket_activation() {
    let sandbox = Sandbox::new();
    let script = "echo $LISTEN_FDS; test $LISTEN_PID = $$ && echo own; echo $LISTEN_FDNAMES";
    let running = receiver(&sandbox, &["s", "--", "sh", "-c", script]);
    let file = open(&sandbox, "file");
    let pid = running.pid();
    send_descriptors(
        &UnixDatagram::unbound().unwrap(),
        &sandbox.path("s"),
        b"1",
        &[file.as_fd(), file.as_fd()],
    );
    let outcome = running.finish();
    let printed = String::from_utf8(outcome.stdout().to_vec()).unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[..2], ["2", "own"], "process {pid}");
    assert_eq!(lines[2].split(':').count(), 2, "{printed}");
    outcome.succeeds(&printed);
}

/// The descriptors a shell has that the test itself runs.
#[track_caller]
fn descriptors_of_a_shell(sandbox: &Sandbox) -> Vec<String> {
    sandbox.shell("ls /proc/$$/fd").run().lines()
}

#[test]
fn a_command_runs_without_descriptors_too() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["s", "--", "sh", "-c", "ls /proc/$$/fd"]);
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    assert_eq!(running.finish().lines(), descriptors_of_a_shell(&sandbox));
}

#[test]
fn a_command_is_run_with_the_signals_as_udgram_found_them() {
    let sandbox = Sandbox::new();
    let usual = ordinary_signals(&sandbox.command(SIGNALS[0], &SIGNALS[1..]).run().lines());
    let running = receiver(&sandbox, &[&["s", "--"][..], &SIGNALS].concat());
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    assert_eq!(ordinary_signals(&running.finish().lines()), usual);
}

#[test]
fn a_command_gets_the_descriptors_at_the_numbers_asked_for() {
    let sandbox = Sandbox::new();
    let running = receiver(
        &sandbox,
        &[
            "--fd",
            "4",
            "--fd",
            "0",
            "--fd",
            "3",
            "s",
            "--",
            "sh",
            "-c",
            "cat; cat <&3; cat <&4; ls /proc/$$/fd",
        ],
    );
    let (a, b, c) = (
        open(&sandbox, "a"),
        open(&sandbox, "b"),
        open(&sandbox, "c"),
    );
    let sender = UnixDatagram::unbound().unwrap();
    send_descriptors(
        &sender,
        &sandbox.path("s"),
        b"1",
        &[a.as_fd(), b.as_fd(), c.as_fd()],
    );
    let mut open: BTreeSet<String> = descriptors_of_a_shell(&sandbox).into_iter().collect();
    open.extend(["3", "4"].map(String::from));
    let open: Vec<String> = open.into_iter().collect();
    running.finish().succeeds(format!(
        "content of b\ncontent of c\ncontent of a\n{}\n",
        open.join("\n")
    ));
}

#[test]
fn placing_descriptors_never_overwrites_one_still_to_be_moved() {
    let sandbox = Sandbox::new();
    // Each is moved to the number of another one.
    for order in [
        [3, 4, 5, 6, 7, 8],
        [8, 7, 6, 5, 4, 3],
        [4, 5, 6, 7, 8, 3],
        [5, 3, 8, 4, 7, 6],
    ] {
        let mut args: Vec<String> = order
            .iter()
            .map(|number| format!("--fd={number}"))
            .collect();
        args.extend(["s", "--", "sh", "-c"].map(String::from));
        args.push(order.map(|number| format!("cat <&{number}")).join("; "));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let running = receiver(&sandbox, &args);
        let names = ["a", "b", "c", "d", "e", "f"];
        let files = names.map(|name| open(&sandbox, name));
        let sent: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        send_descriptors(
            &UnixDatagram::unbound().unwrap(),
            &sandbox.path("s"),
            b"1",
            &sent,
        );
        running
            .finish()
            .succeeds(names.map(|name| format!("content of {name}\n")).concat());
    }
}

#[test]
fn a_number_given_twice_is_a_usage_error() {
    let sandbox = Sandbox::new();
    sandbox
        .udgram(["recv", "--fd", "5", "--fd", "5", "s", "--", "true"])
        .run()
        .refuses(2, &["5", "twice"]);
}

#[test]
fn numbers_without_a_command_are_a_usage_error() {
    let sandbox = Sandbox::new();
    sandbox
        .udgram(["recv", "--fd", "5", "s"])
        .run()
        .refuses(2, &["CMD"]);
}

#[test]
fn the_status_of_the_command_is_the_status_of_recv() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["s", "--", "sh", "-c", "exit 42"]);
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    running.finish().ends(42, "").says_nothing();
}

#[test]
fn a_command_that_is_not_found_or_cannot_be_run_has_its_own_status() {
    let sandbox = Sandbox::new();
    sandbox.file("not-executable", "");
    sandbox.directory("directory");
    for (command, status) in [
        ("./not-executable", 126),
        ("./directory", 126),
        ("no-such-command-anywhere", 127),
        ("./no-such-file", 127),
        ("", 127),
    ] {
        // It ends before a packet comes, and takes none.
        sandbox
            .udgram(["recv", "s", "--", command])
            .run()
            .refuses(status, &[command]);
        assert!(!sandbox.exists("s"));
    }
}

#[test]
fn a_packet_that_cannot_be_an_environment_variable_is_reported() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["-p", "raw", "s", "--", "sh", "-c", "echo ran"]);
    UnixDatagram::unbound()
        .unwrap()
        .send_to(b"a\0b", sandbox.path("s"))
        .unwrap();
    let outcome = running.finish();
    // An environment variable cannot contain NUL.
    assert!(!outcome.diagnostics().is_empty(), "{:?}", outcome.code());
}

#[test]
fn a_datagram_that_is_not_a_valid_packet_runs_no_command() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["s", "--", "touch", "ran"]);
    UnixDatagram::unbound()
        .unwrap()
        .send_to(b"oops", sandbox.path("s"))
        .unwrap();
    running.finish().refuses(3, &["byte 0"]);
    assert!(!sandbox.exists("ran"));
}

#[test]
fn a_pipe_passed_as_a_descriptor_works() {
    let sandbox = Sandbox::new();
    let running = receiver(
        &sandbox,
        &["--fd", "1", "s", "--", "echo", "through the pipe"],
    );
    let (mut reader, writer) = crate::harness::pipe();
    send_descriptors(
        &UnixDatagram::unbound().unwrap(),
        &sandbox.path("s"),
        b"1",
        &[writer.as_fd()],
    );
    drop(writer);
    running.finish().succeeds("");
    let mut got = String::new();
    reader.read_to_string(&mut got).unwrap();
    assert_eq!(got, "through the pipe\n");
}

#[test]
fn a_file_goes_from_send_to_a_command_of_recv() {
    let sandbox = Sandbox::new();
    let running = receiver(&sandbox, &["s", "--", "sh", "-c", "cat <&3"]);
    let mut file = File::create_new(sandbox.path("file")).unwrap();
    file.write_all(b"handed over\n").unwrap();
    sandbox
        .shell("exec udgram send --fd 5 s '{}' 5<file")
        .run()
        .succeeds("");
    running.finish().succeeds("handed over\n");
}

#[test]
fn fd_that_names_fewer_or_more_descriptors_than_came_is_reported() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("file", "content");
    let receive = |numbers: &[&str]| {
        let running = sandbox
            .udgram(["recv", "s"])
            .args(numbers)
            .args([
                "--",
                "sh",
                "-c",
                "cat <&5; readlink /proc/$$/fd/* | grep -c /file",
            ])
            .start();
        running.wait_bound("s");
        sandbox
            .udgram(["send", "s", "1", "--fd", "7", "--fd", "7"])
            .descriptor(File::open(&file).unwrap(), 7)
            .run()
            .succeeds("");
        running.finish()
    };
    receive(&["--fd", "5"])
        .ends(0, "content1\n")
        .says("udgram: warning: 2 descriptors came and --fd names 1: the others are closed");
    receive(&["--fd", "5", "--fd", "6", "--fd", "7"]).fails(
        1,
        "udgram: the packet carried 2 descriptors, but --fd asks for 3",
    );
}
