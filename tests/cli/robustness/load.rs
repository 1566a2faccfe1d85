//! Load: many datagrams, many senders, receivers that restart, many handlers. No packet may be lost
//! or out of order, and no process, descriptor or memory may leak.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::forking::spawn;
use crate::harness::{Peer, Sandbox, peer};
use crate::running::children;
use crate::sys::peak_memory;

use super::scaled;

/// Kills the process when dropped, also if the test fails.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn udgram(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_udgram"));
    command
        .args(arguments)
        .current_dir(sandbox.dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0);
    command
}

#[test]
fn numbered_datagrams_arrive_complete_and_in_order_in_bounded_memory() {
    let count: u64 = scaled(200_000, 10_000_000);
    let sandbox = Sandbox::new();
    let mut listen = Guard(spawn(&mut udgram(&sandbox, &["listen", "s"])).unwrap());
    let mut send = Guard(
        spawn(&mut udgram(
            &sandbox,
            &["send", "s", "--wait", "--timeout", "60s"],
        ))
        .unwrap(),
    );
    let input = send.0.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        let mut input = BufWriter::with_capacity(1 << 16, input);
        for number in 0..count {
            writeln!(input, "{number}").unwrap();
        }
        input.flush().unwrap();
        input
    });
    let mut output = BufReader::new(listen.0.stdout.take().unwrap());
    let mut line = String::new();
    for number in 0..count {
        line.clear();
        assert!(
            output.read_line(&mut line).unwrap() > 0,
            "it ended after {number}"
        );
        assert_eq!(line.trim_end().parse::<u64>().ok(), Some(number));
    }
    let pids = [&listen, &send].map(|child| i32::try_from(child.0.id()).unwrap());
    let memory = pids.map(peak_memory);
    println!(
        "{count} datagrams, at most {} KiB and {} KiB",
        memory[0] >> 10,
        memory[1] >> 10
    );
    assert!(memory.iter().all(|bytes| *bytes < 48 << 20), "{memory:?}");
    drop(writer.join().unwrap());
    assert!(send.0.wait().unwrap().success());
}

#[test]
fn eight_senders_at_once_lose_nothing_and_each_keeps_its_order() {
    let each: usize = scaled(10_000, 500_000);
    let sandbox = Sandbox::new();
    let mut listen = Guard(spawn(&mut udgram(&sandbox, &["listen", "s"])).unwrap());
    let senders: Vec<_> = (0..8)
        .map(|sender| {
            let command = ["send", "s", "--wait", "--timeout", "60s"];
            let mut child = spawn(&mut udgram(&sandbox, &command)).unwrap();
            let mut input = BufWriter::new(child.stdin.take().unwrap());
            thread::spawn(move || {
                for number in 0..each {
                    writeln!(input, "[{sender},{number}]").unwrap();
                }
                drop(input);
                assert!(child.wait().unwrap().success());
            })
        })
        .collect();
    let mut next = [0; 8];
    let output = BufReader::new(listen.0.stdout.take().unwrap());
    for line in output.lines().take(8 * each) {
        let line = line.unwrap();
        let (sender, number) = line.trim_matches(['[', ']']).split_once(',').unwrap();
        let sender: usize = sender.parse().unwrap();
        assert_eq!(number.parse(), Ok(next[sender]), "of sender {sender}");
        next[sender] += 1;
    }
    assert_eq!(next, [each; 8]);
    for sender in senders {
        sender.join().unwrap();
    }
}

#[test]
fn no_packet_is_lost_or_doubled_when_the_receiver_restarts_under_send_wait() {
    let (restarts, each) = scaled((10, 200), (50, 5_000));
    let sandbox = Sandbox::new();
    let command = ["send", "s", "--wait", "--timeout", "60s"];
    let mut child = spawn(udgram(&sandbox, &command).stdout(Stdio::null())).unwrap();
    let input = child.stdin.take().unwrap();
    let mut send = Some(Guard(child));
    let enough = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let enough = Arc::clone(&enough);
        move || {
            let mut input = BufWriter::new(input);
            let mut count = 0_usize;
            while !enough.load(Ordering::Relaxed) {
                writeln!(input, "{count}").unwrap();
                count += 1;
            }
            count
        }
    });
    let mut expected = 0;
    for round in 0..=restarts {
        let mut listen = Guard(spawn(&mut udgram(&sandbox, &["listen", "s"])).unwrap());
        let lines = BufReader::new(listen.0.stdout.take().unwrap()).lines();
        let pid = Pid::from_raw(i32::try_from(listen.0.id()).unwrap());
        let mut came = 0;
        // After SIGTERM, it prints the packets that are queued, then ends.
        for line in lines {
            assert_eq!(line.unwrap().parse(), Ok(expected), "lost or doubled");
            expected += 1;
            came += 1;
            if came == each && round < restarts {
                kill(pid, Signal::SIGTERM).unwrap();
            } else if came == each {
                enough.store(true, Ordering::Relaxed);
                let watcher = send.take().unwrap();
                thread::spawn(move || {
                    let mut watcher = watcher;
                    let status = watcher.0.wait();
                    kill(pid, Signal::SIGTERM).unwrap();
                    assert!(status.unwrap().success());
                });
            }
        }
    }
    let count = writer.join().unwrap();
    println!("{restarts} restarts, {count} datagrams");
    assert_eq!(expected, count);
}

#[test]
fn handlers_leave_no_process_and_no_descriptor() {
    let count = scaled(100, 20_000);
    let sandbox = Sandbox::new();
    let null = File::create("/dev/null").unwrap();
    let listen = sandbox
        .udgram(["listen", "s", "--exec", "cat"])
        .stdout_to(null)
        .start_ready();
    let before = listen.open_descriptors();
    let client = sandbox.bind("client");
    for number in 0..count {
        let packet = number.to_string();
        client
            .send_to(packet.as_bytes(), sandbox.path("s"))
            .unwrap();
        assert_eq!(client.take(), packet.as_bytes());
    }
    // listen reaps a handler before it sends the answer.
    assert_eq!(children(listen.pid()), [0; 0]);
    assert!(listen.open_descriptors() <= before);
    listen.signal(Signal::SIGTERM);
    let _ = listen.finish();
    assert!(!sandbox.exists("s"));
}

#[test]
fn a_full_disk_is_reported() {
    let sandbox = Sandbox::new();
    let client = sandbox.bind("client");
    let listen = sandbox
        .shell("exec udgram listen s >/dev/full")
        .start_ready();
    client.send_to(b"1", sandbox.path("s")).unwrap();
    listen
        .finish()
        .refuses(1, &["cannot write to stdout", "No space left"]);
    assert!(!sandbox.exists("s"));
}

#[test]
fn valgrind_reports_no_error() {
    peer!("valgrind");
    let sandbox = Sandbox::new();
    let check = "valgrind -q --error-exitcode=99 --sim-hints=lax-ioctls --log-file=log.%p udgram";
    let listen = format!("{check} listen s --envelope --creds --count 3 --timeout 100s");
    let listen = sandbox.shell(&listen).start_ready();
    for options in [
        "1 --fd 0",
        "'{\"a\":[1,2.5,\"\\u00e9\"]}' --creds",
        "-p cbor 1",
    ] {
        sandbox
            .shell(&format!("{check} send s {options}"))
            .run()
            .succeeds("");
    }
    assert_eq!(listen.finish().code(), Some(3));
    for file in fs::read_dir(sandbox.dir()).unwrap() {
        let path = file.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("log.")
        {
            assert_eq!(fs::read_to_string(path).unwrap(), "");
        }
    }
}
