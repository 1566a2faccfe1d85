//! A blocked standard error: it delays neither the next packet nor the end.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;

use crate::harness::{Invocation, Sandbox, close};
use crate::outcome::Outcome;
use crate::running::Running;

/// Fills a pipe to the last byte.
fn fill(mut pipe: &File) {
    let flags = OFlag::from_bits_retain(fcntl(pipe, FcntlArg::F_GETFL).unwrap());
    let set = |flags| fcntl(pipe.as_fd(), FcntlArg::F_SETFL(flags)).unwrap();
    set(flags | OFlag::O_NONBLOCK);
    while pipe.write(b"x").is_ok() {}
    set(flags);
}

/// Returns the content of the pipe without the bytes that filled it.
fn drain(pipe: &mut File) -> String {
    let flags = OFlag::from_bits_retain(fcntl(&*pipe, FcntlArg::F_GETFL).unwrap());
    fcntl(pipe.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut piece) {
        bytes.extend_from_slice(&piece[..count]);
    }
    let text = String::from_utf8(bytes).unwrap();
    text.trim_start_matches('x').to_owned()
}

/// Sends a packet and waits until it is printed.
#[track_caller]
fn passes(sandbox: &Sandbox, running: &mut Running, packet: &str) {
    sandbox.udgram(["send", "s", packet]).run().succeeds("");
    assert_eq!(running.line(), packet);
}

fn send_text(sandbox: &Sandbox, text: &str) {
    sandbox
        .udgram(["send", "-p", "text", "s", text])
        .run()
        .succeeds("");
}

fn message(sandbox: &Sandbox, from: &str) -> String {
    let from = sandbox.path(from);
    format!(
        "udgram: packet from '{}' is not JSON (byte 0) (hint: -p text, or -e to see it)\n",
        from.display()
    )
}

#[test]
fn the_next_packet_is_printed_and_a_signal_ends_it() {
    let sandbox = Sandbox::new();
    let (reader, writer) = crate::harness::pipe();
    fill(&writer);
    let mut running = sandbox.udgram(["listen", "s"]).stderr_to(writer).start();
    running.wait_bound("s");
    let mut printed = String::new();
    for number in 0..100 {
        send_text(&sandbox, "oops");
        passes(&sandbox, &mut running, &number.to_string());
        let _ = writeln!(printed, "{number}");
    }
    running.signal(Signal::SIGTERM);
    let _ = running.finish().dies_of(Signal::SIGTERM, printed);
    close(reader);
}

#[test]
fn a_socket_that_takes_nothing_delays_neither_the_next_packet_nor_the_end() {
    let sandbox = Sandbox::new();
    let (reader, mut writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    while writer.write(b"x").is_ok() {}
    writer.set_nonblocking(false).unwrap();
    let writer = OwnedFd::from(writer);
    let mut running = sandbox.udgram(["listen", "s"]).stderr_to(writer).start();
    running.wait_bound("s");
    for packet in ["1", "2"] {
        send_text(&sandbox, "oops");
        passes(&sandbox, &mut running, packet);
    }
    running.signal(Signal::SIGTERM);
    let _ = running.finish().dies_of(Signal::SIGTERM, "1\n2\n");
    close(reader);
}

#[test]
fn messages_that_were_lost_are_counted_once_there_is_room() {
    let sandbox = Sandbox::new();
    let (mut reader, writer) = crate::harness::pipe();
    fill(&writer);
    let mut running = sandbox.udgram(["listen", "s"]).stderr_to(writer).start();
    running.wait_bound("s");
    let sender = sandbox.bind("me");
    let send = |text: &[u8]| sender.send_to(text, sandbox.path("s")).unwrap();
    for _ in 0..4 {
        send(b"oops");
    }
    passes(&sandbox, &mut running, "1");
    assert_eq!(drain(&mut reader), "");
    send(b"oops");
    passes(&sandbox, &mut running, "2");
    let message = message(&sandbox, "me");
    // The first one waited in the program.
    let notice = "udgram: warning: 3 messages were lost, for stderr took nothing\n";
    assert_eq!(drain(&mut reader), format!("{message}{notice}{message}"));
    send(b"oops");
    passes(&sandbox, &mut running, "3");
    assert_eq!(drain(&mut reader), message);
    running.signal(Signal::SIGTERM);
    let _ = running.finish().dies_of(Signal::SIGTERM, "1\n2\n3\n");
}

#[test]
fn the_end_says_how_many_messages_were_lost() {
    let sandbox = Sandbox::new();
    let (mut reader, writer) = crate::harness::pipe();
    fill(&writer);
    let mut running = sandbox.udgram(["listen", "s"]).stderr_to(writer).start();
    running.wait_bound("s");
    let sender = sandbox.bind("me");
    for _ in 0..2 {
        sender.send_to(b"oops", sandbox.path("s")).unwrap();
    }
    passes(&sandbox, &mut running, "1");
    assert_eq!(drain(&mut reader), "");
    running.signal(Signal::SIGTERM);
    let _ = running.finish().dies_of(Signal::SIGTERM, "1\n");
    assert_eq!(
        drain(&mut reader),
        format!(
            "{}udgram: warning: 1 message was lost, for stderr took nothing\n",
            message(&sandbox, "me")
        )
    );
}

#[test]
fn a_message_that_is_longer_than_the_pipe_takes_at_a_time_is_whole() {
    let sandbox = Sandbox::new();
    let name = "n".repeat(100_000);
    sandbox
        .udgram(["recv", "s", &name])
        .run()
        .refuses(2, &[&format!("unexpected argument '{name}'")]);
}

#[test]
fn a_stderr_that_is_full_closed_or_without_a_reader_is_not_an_error() {
    let listen = |sandbox: &Sandbox, invocation: Invocation| {
        let running = invocation.start();
        running.wait_bound("s");
        send_text(sandbox, "oops");
        sandbox.udgram(["send", "s", "1"]).run().succeeds("");
        running.finish().ends(3, "1\n").says_nothing();
    };
    let sandbox = Sandbox::new();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let arguments = ["listen", "-n", "2", "s"];
    listen(&sandbox, sandbox.udgram(arguments).stderr_to(full));
    listen(&sandbox, sandbox.shell("exec udgram listen -n 2 s 2>&-"));
    let (reader, writer) = crate::harness::pipe();
    close(reader);
    listen(&sandbox, sandbox.udgram(arguments).stderr_to(writer));
}

/// Starts `listen` with this stdout, sends a packet and SIGTERM while it is stopped, and calls `meanwhile`.
#[track_caller]
fn stopped_by_a_signal(
    sandbox: &Sandbox,
    stdout: impl Into<Stdio>,
    meanwhile: impl FnOnce(),
) -> Outcome {
    let running = sandbox.udgram(["listen", "s"]).stdout_to(stdout).start();
    running.wait_bound("s").wait_asleep();
    running.stop();
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    running.signal(Signal::SIGTERM);
    meanwhile();
    running.resume();
    running.finish()
}

#[test]
fn after_a_signal_a_stdout_that_fails_is_an_error_and_one_without_a_reader_is_none() {
    let sandbox = Sandbox::new();
    let full = File::options().write(true).open("/dev/full").unwrap();
    stopped_by_a_signal(&sandbox, full, || {})
        .fails(1, "udgram: cannot write to stdout: No space left on device");
    let (reader, writer) = crate::harness::pipe();
    stopped_by_a_signal(&sandbox, writer, || close(reader))
        .dies_of(Signal::SIGTERM, "")
        .says_nothing();
    assert!(!sandbox.exists("s"));
}

#[test]
fn after_a_signal_it_says_how_much_a_stdout_without_room_has_not_taken() {
    let sandbox = Sandbox::new();
    let (reader, writer) = crate::harness::full_pipe();
    let start = Instant::now();
    stopped_by_a_signal(&sandbox, writer, || {})
        .dies_of(Signal::SIGTERM, "")
        .says("udgram: warning: stdout takes nothing more: 2 bytes were not written");
    assert!(start.elapsed() >= Duration::from_secs(1));
    close(reader);
}
