//! `udgram exec`: one socket for several calls.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::harness::{LIMIT, Peer, Sandbox, close, peer, text};
use crate::outcome::{SIGNALS, ordinary_signals};
use crate::running::{Running, children};
use crate::sys;

#[test]
fn one_address_serves_several_calls() {
    let sandbox = Sandbox::new();
    let app = sandbox.bind("app");
    let running = sandbox
        .udgram(["exec", "--bind", "me", "--connect", "app", "--", "sh", "-c"])
        .arg("udgram send - '{\"op\":\"ping\"}'; udgram recv --timeout 100s")
        .start();
    let (bytes, from) = app.take_from();
    assert_eq!(
        (bytes.as_slice(), from.as_pathname()),
        (&b"{\"op\":\"ping\"}"[..], Some(&*sandbox.path("me")))
    );
    app.send_to(b"{\"op\":\"pong\"}", sandbox.path("me"))
        .unwrap();
    running.finish().succeeds("{\"op\":\"pong\"}\n");
    assert!(!sandbox.exists("me"));
}

#[test]
fn the_socket_is_descriptor_three_and_the_environment_says_so() {
    let sandbox = Sandbox::new();
    let script = "echo $UDGRAM_SOCKET_FD $LISTEN_FDS; test $LISTEN_PID = $$ && echo own; \
                  test -n \"$LISTEN_FDNAMES\" && echo named; readlink /proc/$$/fd/3 | cut -d: -f1";
    sandbox
        .udgram(["exec", "--bind", "me", "--", "sh", "-c", script])
        .run()
        .succeeds("3 1\nown\nnamed\nsocket\n");
}

#[test]
fn the_status_of_the_command_is_its_own() {
    let sandbox = Sandbox::new();
    for status in [0, 1, 42, 255] {
        let script = format!("exit {status}");
        sandbox
            .udgram(["exec", "--bind", "me", "--", "sh", "-c", &script])
            .run()
            .ends(status, "")
            .says_nothing();
        assert!(!sandbox.exists("me"));
    }
}

#[test]
fn udgram_dies_of_the_signal_that_killed_its_command() {
    let sandbox = Sandbox::new();
    for signal in ["TERM", "KILL", "USR1"] {
        let script = format!("kill -{signal} $$");
        let outcome = sandbox
            .udgram(["exec", "--bind", "me", "--", "sh", "-c", &script])
            .run();
        let signal: Signal = format!("SIG{signal}").parse().unwrap();
        outcome.dies_of(signal, "").says_nothing();
        assert!(!sandbox.exists("me"));
    }
}

#[test]
fn the_command_finds_the_signals_as_udgram_found_them() {
    let sandbox = Sandbox::new();
    let usual = ordinary_signals(&sandbox.command(SIGNALS[0], &SIGNALS[1..]).run().lines());
    let lines = sandbox
        .udgram(["exec", "--bind", "me", "--"])
        .args(SIGNALS)
        .run()
        .lines();
    assert_eq!(ordinary_signals(&lines), usual);
}

#[test]
fn the_command_gets_the_signal_and_its_status_is_returned() {
    peer!("python3");
    let sandbox = Sandbox::new();
    for (signal, name) in [
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGHUP, "HUP"),
    ] {
        // The signals are blocked, so none is lost before sigwait().
        let script = format!(
            "import signal, sys\n\
             expected = [signal.SIG{name}]\n\
             signal.pthread_sigmask(signal.SIG_BLOCK, expected)\n\
             print('ready', flush=True)\n\
             signal.sigwait(expected)\n\
             print('{name}', flush=True)\n\
             sys.exit(7)"
        );
        let mut running = sandbox
            .udgram(["exec", "--bind", "me", "--", "python3", "-c", &script])
            .start();
        assert_eq!(running.line(), "ready");
        running.signal(signal);
        assert_eq!(running.line(), name);
        running
            .finish()
            .ends(7, format!("ready\n{name}\n"))
            .says_nothing();
        assert!(!sandbox.exists("me"));
    }
}

#[test]
fn a_signal_that_comes_together_with_sigcont_is_passed_on() {
    let sandbox = Sandbox::new();
    let mut running = sandbox
        .udgram(["exec", "-b", "s", "--", "sh", "-c"])
        .arg("echo up; exec sleep 600")
        .start();
    assert_eq!(running.line(), "up");
    running.stop();
    running.signal(Signal::SIGTERM);
    running.resume();
    running
        .finish()
        .dies_of(Signal::SIGTERM, "up\n")
        .says_nothing();
}

#[test]
fn udgram_dies_of_a_real_time_signal_too() {
    let sandbox = Sandbox::new();
    let number = libc::SIGRTMIN() + 6;
    let script = format!("kill -{number} $$");
    let outcome = sandbox
        .udgram(["exec", "--bind", "me", "--", "sh", "-c", &script])
        .run();
    assert_eq!(outcome.status.signal(), Some(number));
    outcome.says_nothing();
    assert!(!sandbox.exists("me"));
}

#[test]
fn udgram_dumps_no_core_when_its_command_does() {
    let sandbox = Sandbox::new();
    let script = "ulimit -c unlimited; exec udgram exec -b '' -- sh -c 'kill -ABRT $$'";
    let outcome = sandbox.shell(script).run();
    assert!(!outcome.status.core_dumped());
    outcome.dies_of(Signal::SIGABRT, "").says_nothing();
}

/// A command that prints `ready`, each signal that it is sent with its value, and ends at SIGRTMAX.
const PRINTS_SIGNALS: &str = "
import ctypes, os, signal
expected = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
signal.pthread_sigmask(signal.SIG_BLOCK, expected)
libc = ctypes.CDLL(None)
waited = (ctypes.c_uint64 * 16)(*[2**64 - 1] * 16)
info = (ctypes.c_int * 32)()
print('ready', flush=True)
while True:
    number = libc.sigwaitinfo(ctypes.byref(waited), ctypes.byref(info))
    if number == signal.SIGRTMAX:
        break
    if number > 0 and number != signal.SIGCHLD:
        # SI_QUEUE
        print(number, info[6] if info[2] == -1 else '', flush=True)
";

/// `exec` with a command that prints the signals it is sent.
#[track_caller]
fn prints_signals(sandbox: &Sandbox) -> Running {
    let script = sandbox.file("prints_signals.py", PRINTS_SIGNALS);
    let mut running = sandbox
        .udgram(["exec", "--bind", "me", "--", "python3", text(&script)])
        .start();
    assert_eq!(running.line(), "ready");
    running
}

/// Ends the command of [`prints_signals`] and returns what it has printed since `ready`.
#[track_caller]
fn printed_signals(running: Running) -> Vec<String> {
    sys::signal(running.pid(), libc::SIGRTMAX());
    let lines = running.finish().lines();
    lines[1..].to_vec()
}

#[test]
fn every_signal_is_passed_on() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let mut running = prints_signals(&sandbox);
    let kept = [libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD];
    let ordinary = (1..32).filter(|number| !kept.contains(number));
    for number in ordinary.chain(libc::SIGRTMIN()..libc::SIGRTMAX()) {
        sys::signal(running.pid(), number);
        assert_eq!(running.line(), format!("{number} "));
    }
    assert!(!printed_signals(running).is_empty());
}

#[test]
fn real_time_signals_are_passed_on_each_and_with_their_values() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let running = prints_signals(&sandbox);
    let number = libc::SIGRTMIN() + 1;
    for value in [7, 8, 9] {
        sys::signal_with_value(running.pid(), number, value);
    }
    let expected = [7, 8, 9].map(|value| format!("{number} {value}"));
    assert_eq!(printed_signals(running), expected);
}

#[test]
fn a_signal_to_the_process_group_reaches_the_command_once() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let mut running = prints_signals(&sandbox);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGWINCH] {
        // udgram is held until the command has it: two that are pending at once would be one.
        running.signal(Signal::SIGSTOP);
        killpg(Pid::from_raw(running.pid()), signal).unwrap();
        assert_eq!(running.line(), format!("{} ", signal as i32));
        running.signal(Signal::SIGCONT);
        assert_eq!(running.line(), format!("{} ", libc::SIGCONT));
    }
    assert_eq!(printed_signals(running).len(), 6);
}

#[test]
fn of_two_signals_of_a_number_the_one_that_is_not_for_the_process_group_is_passed_on() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let mut running = prints_signals(&sandbox);
    let number = libc::SIGRTMIN() + 1;
    let (group, own) = (-running.pid(), running.pid());
    let to_group = || sys::signal(group, number);
    let to_udgram = || sys::signal_with_value(own, number, 7);
    // udgram is held, so that it gets all of them at the same time.
    let orders: [&[&dyn Fn()]; 3] = [
        &[&to_group, &to_udgram],
        &[&to_udgram, &to_group],
        &[&to_group, &to_udgram, &to_group, &to_udgram],
    ];
    for order in orders {
        running.signal(Signal::SIGSTOP);
        for send in order {
            send();
        }
        let half = order.len() / 2;
        for _ in 0..half {
            assert_eq!(running.line(), format!("{number} "));
        }
        running.signal(Signal::SIGCONT);
        assert_eq!(running.line(), format!("{} ", libc::SIGCONT));
        for _ in 0..half {
            assert_eq!(running.line(), format!("{number} 7"));
        }
    }
    assert_eq!(printed_signals(running).len(), 11);
}

#[test]
fn a_signal_that_follows_one_to_the_process_group_is_passed_on() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let mut running = prints_signals(&sandbox);
    // A signal that is pending twice arrives twice.
    let number = libc::SIGRTMIN() + 1;
    let line = format!("{number} ");
    for _ in 0..5 {
        sys::signal(-running.pid(), number);
        assert_eq!(running.line(), line);
        sys::signal(running.pid(), number);
        assert_eq!(running.line(), line);
    }
    assert_eq!(printed_signals(running), vec![line; 10]);
}

#[test]
fn a_signal_to_each_process_of_a_cgroup_reaches_the_command_once() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let mut running = prints_signals(&sandbox);
    // The witness and the command.
    let pids = children(running.pid());
    assert_eq!(pids.len(), 2);
    running.signal(Signal::SIGSTOP);
    // systemd signals the processes of a cgroup one after the other.
    for pid in pids.into_iter().chain([running.pid()]) {
        sys::signal(pid, libc::SIGTERM);
    }
    assert_eq!(running.line(), format!("{} ", libc::SIGTERM));
    running.signal(Signal::SIGCONT);
    let expected = [libc::SIGTERM, libc::SIGCONT].map(|number| format!("{number} "));
    assert_eq!(printed_signals(running), expected);
}

#[test]
fn a_command_in_a_process_group_of_its_own_is_sent_what_the_group_of_udgram_gets() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let script = format!("import os\nos.setpgid(0, 0)\n{PRINTS_SIGNALS}");
    let script = sandbox.file("own_group.py", script);
    let mut running = sandbox
        .udgram(["exec", "--bind", "me", "--", "python3", text(&script)])
        .start();
    assert_eq!(running.line(), "ready");
    killpg(Pid::from_raw(running.pid()), Signal::SIGTERM).unwrap();
    assert_eq!(running.line(), format!("{} ", libc::SIGTERM));
    assert_eq!(printed_signals(running).len(), 1);
}

#[test]
fn signals_are_passed_on_when_the_witness_is_gone() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let mut running = prints_signals(&sandbox);
    // It is started first.
    sys::signal(children(running.pid())[0], libc::SIGKILL);
    for number in [libc::SIGTERM, libc::SIGTERM, libc::SIGRTMIN()] {
        sys::signal(running.pid(), number);
        assert_eq!(running.line(), format!("{number} "));
    }
    assert_eq!(printed_signals(running).len(), 3);
}

#[test]
fn a_command_gets_no_sigchld_for_a_child_of_udgram() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let script = "import os, signal
for name in ('SIGCHLD', 'SIGUSR1'):
    signal.signal(getattr(signal, name), lambda *_, name=name: os.write(1, name.encode() + b'\\n'))
print('up', flush=True)
while True: signal.pause()";
    let mut running = sandbox
        .udgram(["exec", "-b", "s", "--", "python3", "-c", script])
        .start();
    assert_eq!(running.line(), "up");
    let witness = children(running.pid()).into_iter().find(|child| {
        fs::read_to_string(format!("/proc/{child}/comm")).unwrap() == "udgram-witness\n"
    });
    sys::signal(witness.unwrap(), Signal::SIGKILL as i32);
    running.wait_asleep();
    running.signal(Signal::SIGUSR1);
    assert_eq!(running.line(), "SIGUSR1");
    running.signal(Signal::SIGTERM);
    let _ = running.finish().dies_of(Signal::SIGTERM, "up\nSIGUSR1\n");
}

#[test]
fn no_witness_outlives_exec() {
    let sandbox = Sandbox::new();
    let mut running = sandbox
        .udgram([
            "exec",
            "--bind",
            "me",
            "--",
            "sh",
            "-c",
            "echo ready; exec cat",
        ])
        .stdin_open()
        .start();
    assert_eq!(running.line(), "ready");
    let witness = sys::pidfd(children(running.pid())[0]);
    running.signal(Signal::SIGKILL);
    let outcome = running.finish();
    let mut watched = [PollFd::new(witness.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(LIMIT).unwrap();
    assert_eq!(poll(&mut watched, limit), Ok(1));
    outcome.dies_of(Signal::SIGKILL, "ready\n").says_nothing();
}

/// Starts a command that prints a line at each SIGCONT.
#[track_caller]
fn prints_continued(sandbox: &Sandbox) -> (Running, Pid) {
    let script = "
import os, signal
signal.signal(signal.SIGCONT, lambda *_: os.write(1, b'continued\\n'))
os.write(1, b'ready\\n')
while True:
    signal.pause()
";
    let mut running = sandbox
        .udgram(["exec", "--bind", "me", "--", "python3", "-c", script])
        .start();
    assert_eq!(running.line(), "ready");
    let pid = Pid::from_raw(running.pid());
    (running, pid)
}

/// Waits until SIGTSTP has stopped a child of this process.
#[track_caller]
fn wait_stopped(pid: Pid) {
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
    let stopped = waitid(Id::Pid(pid), flags).unwrap();
    assert_eq!(stopped, WaitStatus::Stopped(pid, Signal::SIGTSTP));
}

#[test]
fn udgram_stops_and_continues_with_its_command() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let (mut running, pid) = prints_continued(&sandbox);
    // To udgram alone, and to the process group, as the terminal does at Ctrl-Z.
    for number in [pid.as_raw(), -pid.as_raw()] {
        sys::signal(number, libc::SIGTSTP);
        wait_stopped(pid);
        sys::signal(number, libc::SIGCONT);
        assert_eq!(running.line(), "continued");
    }
    running.signal(Signal::SIGTERM);
    running
        .finish()
        .dies_of(Signal::SIGTERM, "ready\ncontinued\ncontinued\n")
        .says_nothing();
    assert!(!sandbox.exists("me"));
}

#[test]
fn a_command_that_has_continued_is_not_stopped_by_the_signal_that_stopped_it() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let (mut running, pid) = prints_continued(&sandbox);
    // The witness does not report SIGTSTP before SIGCONT discards it, as on a busy machine.
    let witness = children(running.pid())[0];
    sys::signal(witness, libc::SIGSTOP);
    running.wait_child_stopped(witness);
    sys::signal(-pid.as_raw(), libc::SIGTSTP);
    wait_stopped(pid);
    sys::signal(-pid.as_raw(), libc::SIGCONT);
    assert_eq!(running.line(), "continued");
    running.signal(Signal::SIGTERM);
    running
        .finish()
        .dies_of(Signal::SIGTERM, "ready\ncontinued\n")
        .says_nothing();
}

#[test]
fn the_command_finds_the_address_of_the_peer_in_its_environment() {
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("app");
    let directory = sandbox.dir().to_str().unwrap().to_owned();
    let run = |connect: &[&str]| {
        sandbox
            .udgram(["exec", "-b", "me"])
            .args(connect)
            .args(["--", "sh", "-c", "echo \"${UDGRAM_PEER-unset}\""])
            .env("UDGRAM_PEER", "outer")
            .run()
    };
    run(&["-c", "app"]).succeeds(format!("{directory}/app\n"));
    run(&["-c", "./app"]).succeeds(format!("{directory}/app\n"));
    run(&["-c", &format!("{directory}/app")]).succeeds(format!("{directory}/app\n"));
    let name = format!("{}\\x01", sandbox.unique());
    let _abstract = crate::harness::bind_abstract(format!("{}\x01", sandbox.unique()));
    run(&["-c", &format!("@{name}")]).succeeds(format!("@{name}\n"));
    run(&[]).succeeds("unset\n");
}

#[test]
fn a_command_that_is_not_found_or_cannot_be_run_has_its_own_status() {
    let sandbox = Sandbox::new();
    sandbox.file("not-executable", "");
    for (command, status) in [("./not-executable", 126), ("no-such-command-anywhere", 127)] {
        sandbox
            .udgram(["exec", "--bind", "me", "--", command])
            .run()
            .refuses(status, &[command]);
        assert!(!sandbox.exists("me"));
    }
}

#[test]
fn neither_an_address_nor_a_command_is_a_usage_error() {
    let sandbox = Sandbox::new();
    sandbox.udgram(["exec", "--", "true"]).run().refuses(2, &[]);
    sandbox
        .udgram(["exec", "--bind", "me"])
        .run()
        .refuses(2, &[]);
    sandbox
        .udgram(["exec", "--bind", "me", "--"])
        .run()
        .refuses(2, &[]);
}

#[test]
fn the_mode_of_the_socket_file_is_the_one_asked_for() {
    let sandbox = Sandbox::new();
    sandbox
        .udgram([
            "exec", "--bind", "me", "--mode", "0640", "--", "stat", "-c", "%a", "me",
        ])
        .run()
        .succeeds("640\n");
}

/// A server in shell: it answers each question from the address that the question was sent to.
const SHELL_SERVER: &str = r#"
udgram listen --envelope --count 2 | while IFS= read -r question; do
    from=$(printf '%s' "$question" | sed 's/.*"from":"\([^"]*\)".*/\1/')
    printf '{"to":"%s","packet":{"answer":42}}\n' "$from" | udgram send --envelope -
done
"#;

const PYTHON_CLIENT: &str = "
import socket
client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
client.bind('client')
client.settimeout(20)
client.sendto(b'{\"question\": 1}', 's')
answer, sender = client.recvfrom(100)
print(answer.decode(), sender)
";

const EASYNETWORK_CLIENT: &str = "
from easynetwork.clients.unix_datagram import UnixDatagramClient
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import JSONSerializer

with UnixDatagramClient('s', DatagramProtocol(JSONSerializer())) as client:
    client.send_packet({'question': 2})
    print(client.recv_packet(timeout=20))
";

#[test]
fn a_shell_server_answers_a_python_and_an_easynetwork_client() {
    peer!("python3 -m easynetwork");
    let sandbox = Sandbox::new();
    let server = sandbox
        .udgram(["exec", "--bind", "s", "--", "sh", "-c", SHELL_SERVER])
        .start();
    server.wait_bound("s");
    sandbox.python(PYTHON_CLIENT).run().succeeds(format!(
        "{{\"answer\":42}} {}\n",
        sandbox.path("s").display()
    ));
    sandbox
        .python(EASYNETWORK_CLIENT)
        .run()
        .succeeds("{'answer': 42}\n");
    server.finish().succeeds("");
    assert!(!sandbox.exists("s"));
}

#[test]
fn sigchld_ignored_by_the_parent_does_not_break_commands() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let ignoring = |command: &str| {
        sandbox.python(&format!(
            "import os, signal, sys\n\
             signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n\
             os.execvp('udgram', ['udgram'] + {command})"
        ))
    };
    ignoring("['exec', '-b', 'me', '--', 'sh', '-c', 'exit 7']")
        .run()
        .ends(7, "")
        .says_nothing();
    let listen = ignoring("['listen', '-n', '1', '-p', 'text', '--exec', 'cat', 's']").start();
    listen.wait_bound("s");
    sandbox
        .udgram(["send", "--reply", "-p", "text", "s", "1"])
        .run()
        .succeeds("1\n");
    listen.finish().succeeds("1\n");
}

#[test]
fn send_waits_for_the_peer_of_an_inherited_socket_to_come_back() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("s");
    let watch = crate::running::Watch::on(sandbox.dir());
    let running = sandbox
        .udgram([
            "exec",
            "-b",
            "me",
            "-c",
            "s",
            "--",
            "sh",
            "-c",
            "udgram send - 1; read line; : >gone; exec udgram send --wait - 2",
        ])
        .stdin_open()
        .start();
    let mut running = running;
    assert_eq!(
        crate::harness::limited(peer.try_clone().unwrap())
            .recv(&mut [0; 8])
            .unwrap(),
        1
    );
    close(peer);
    running.write("\n");
    let _ = watch.created(&running, |name| name == "gone");
    fs::remove_file(sandbox.path("s")).unwrap();
    let successor = sandbox.bind("s");
    assert_eq!(successor.take(), b"2");
    running.finish().succeeds("");
}

#[test]
fn a_reply_to_an_inherited_socket_without_a_name_is_a_usage_error() {
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("s");
    sandbox
        .udgram([
            "exec", "-b", "", "-c", "s", "--", "udgram", "send", "--reply", "-", "1",
        ])
        .run()
        .refuses(2, &["--reply", "unnamed"]);
}

#[test]
fn the_command_finds_the_inode_number_of_the_socket_in_its_environment() {
    let sandbox = Sandbox::new();
    let script = "test \"socket:[$UDGRAM_SOCKET_INODE]\" = \"$(readlink /proc/$$/fd/3)\"";
    sandbox
        .udgram(["exec", "-b", "me", "--", "sh", "-c", script])
        .env("UDGRAM_SOCKET_INODE", "1")
        .run()
        .succeeds("");
}
