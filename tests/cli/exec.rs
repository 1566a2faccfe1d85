//! `udgram exec`: one socket for several calls.

use nix::sys::signal::Signal;

use crate::harness::{Peer, Sandbox, close, peer};
use crate::outcome::{SIGNALS, ordinary_signals};

#[test]
fn one_address_serves_several_calls() {
    let sandbox = Sandbox::new();
    let app = sandbox.bind("app");
    let running = sandbox
        .udgram(["exec", "--bind", "me", "--connect", "app", "--", "sh", "-c"])
        .arg("udgram send - '{\"op\":\"ping\"}'; udgram recv --timeout 20s")
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
fn it_dies_of_the_signal_its_command_died_of() {
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
fn signals_are_passed_on() {
    peer!("python3");
    let sandbox = Sandbox::new();
    for (signal, name) in [
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGHUP, "HUP"),
    ] {
        // Blocked and waited for, no signal can come a moment too early.
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
fn an_ignored_end_of_children_is_no_obstacle() {
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
    std::fs::remove_file(sandbox.path("s")).unwrap();
    let successor = crate::harness::limited(sandbox.bind("s"));
    let mut packet = [0; 8];
    assert_eq!(successor.recv(&mut packet).unwrap(), 1);
    assert_eq!(packet[0], b'2');
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
