//! Without /proc: chroots, small containers, an early boot.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use nix::sys::signal::Signal;

use crate::harness::{Invocation, Sandbox, peer, root, text};

/// A shell script that is run where /proc is empty.
fn without_proc(sandbox: &Sandbox, script: &str) -> Invocation {
    let script = format!("mount -t tmpfs none /proc && {script}");
    sandbox.command("unshare", ["-m", "sh", "-c", &script])
}

#[test]
fn a_stale_socket_file_is_replaced_without_proc() {
    root!();
    let sandbox = Sandbox::new();
    for name in ["s", "./s", text(&sandbox.path("s"))] {
        sandbox.stale("s");
        without_proc(&sandbox, &format!("exec udgram recv -t 0 {name}"))
            .run()
            .refuses(124, &["no packet"]);
        assert!(!sandbox.exists("s"));
    }
}

#[test]
fn a_live_socket_is_left_alone_without_proc() {
    root!();
    let sandbox = Sandbox::new();
    let _owner = sandbox.bind("s");
    without_proc(&sandbox, "exec udgram recv s").run().fails(
        1,
        "udgram: cannot bind 's': it is in use (hint: to see what it is sent: udgram listen --peek s)",
    );
}

#[test]
fn a_socket_file_that_cannot_be_tested_without_proc_is_not_to_be_replaced() {
    root!();
    let sandbox = Sandbox::new();
    sandbox.stale("s");
    let user = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    fs::set_permissions(sandbox.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(sandbox.path("s"), fs::Permissions::from_mode(0o600)).unwrap();
    without_proc(&sandbox, &format!("exec {user} udgram recv s"))
        .run()
        .fails(
            1,
            "udgram: cannot bind 's': a socket file exists, and whether it is in use \
             cannot be tested: Permission denied, and /proc is not mounted",
        );
}

#[test]
fn a_listener_notices_without_proc_that_its_socket_file_is_removed() {
    root!();
    let sandbox = Sandbox::new();
    let listen = without_proc(&sandbox, "exec udgram listen s").start_ready();
    fs::remove_file(sandbox.path("s")).unwrap();
    let message = "the socket file was removed: nobody can reach this socket any more";
    listen.wait_stderr(message);
    listen.signal(Signal::SIGTERM);
    listen
        .finish()
        .dies_of(Signal::SIGTERM, "")
        .says(format!("udgram: warning: {message}"));
}

#[test]
fn the_mode_and_the_owner_are_set_without_proc() {
    root!();
    let sandbox = Sandbox::new();
    let script = "umask 077; exec udgram listen -m 664 --owner 1:2 s";
    let listen = without_proc(&sandbox, script).start_ready();
    let file = fs::metadata(sandbox.path("s")).unwrap();
    assert_eq!((file.uid(), file.gid()), (1, 2));
    assert_eq!(sandbox.mode("s"), 0o664);
    listen.signal(Signal::SIGTERM);
    let _ = listen.finish();
    assert!(!sandbox.exists("s"));
}

#[test]
fn the_mode_is_that_of_the_file_itself_without_proc() {
    peer!("strace");
    root!();
    let sandbox = Sandbox::new();
    let script = "mount -t tmpfs none /proc && umask 077 && exec udgram listen -m 664 s";
    let strace = ["-f", "-o", "trace", "-e", "inject=bind:delay_exit=300000"];
    let listen = sandbox
        .command("strace", strace)
        .args(["unshare", "-m", "sh", "-c", script])
        .start();
    listen.wait_bound("s");
    fs::rename(sandbox.path("s"), sandbox.path("moved")).unwrap();
    listen.wait_until("moved", || sandbox.mode("moved") == 0o664);
}

/// Runs a command for which fchmodat2(2) fails with ENOSYS, as before Linux 6.6. An older strace does
/// not know the call.
const WITHOUT_FCHMODAT2: &str = "
import ctypes, os, struct, sys
def step(code, jt, jf, k): return struct.pack('HBBI', code, jt, jf, k)
filter = ctypes.create_string_buffer(step(0x20, 0, 0, 0) + step(0x15, 0, 1, int(sys.argv[1]))
    + step(0x06, 0, 0, 0x50026) + step(0x06, 0, 0, 0x7fff0000))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', 4, ctypes.addressof(filter)))
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, program) == 0
os.execvp(sys.argv[2], sys.argv[2:])
";

#[test]
fn the_mode_is_set_on_a_kernel_that_sets_it_by_paths_only() {
    peer!("python3");
    root!();
    let sandbox = Sandbox::new();
    for mount in ["true", "mount -t tmpfs none /proc"] {
        let script = format!(r#"umask 077 && {mount} && exec "$@""#);
        let listen = sandbox
            .command("python3", ["-c", WITHOUT_FCHMODAT2, "452"])
            .args(["unshare", "-m", "sh", "-c", &script, "sh"])
            .args(["udgram", "listen", "-m", "664", "s"])
            .start_ready();
        assert_eq!(sandbox.mode("s"), 0o664, "{mount}");
        listen.signal(Signal::SIGTERM);
        let _ = listen.finish();
    }
}

#[test]
fn on_such_a_kernel_without_proc_the_mode_of_another_file_is_left_alone() {
    peer!("python3", "strace");
    root!();
    let sandbox = Sandbox::new();
    let script = "mount -t tmpfs none /proc && umask 077 && exec udgram listen -m 664 s";
    let strace = ["-f", "-o", "trace", "-e", "inject=bind:delay_exit=300000"];
    let listen = sandbox
        .command("python3", ["-c", WITHOUT_FCHMODAT2, "452", "strace"])
        .args(strace)
        .args(["unshare", "-m", "sh", "-c", script])
        .start();
    listen.wait_bound("s");
    fs::remove_file(sandbox.path("s")).unwrap();
    let file = sandbox.file("s", "");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    listen.finish().fails(
        1,
        "udgram: cannot set the mode of 's': No such file or directory",
    );
    assert_eq!(sandbox.mode("s"), 0o600);
}

#[test]
fn a_path_too_long_for_the_kernel_needs_proc_and_says_so() {
    root!();
    let sandbox = Sandbox::new();
    let path = sandbox.long_path("s");
    for name in [text(&path), &"n".repeat(108), &"n".repeat(120)] {
        let script = format!("exec udgram recv {name}");
        without_proc(&sandbox, &script).run().fails(
            1,
            format!(
                "udgram: cannot bind '{name}': \
                 a path of more than 107 bytes is bound through /proc, which is not mounted"
            ),
        );
    }
}

#[test]
fn descriptors_are_described_without_proc_as_far_as_the_kernel_tells() {
    peer!("python3");
    root!();
    let sandbox = Sandbox::new();
    let receive = without_proc(&sandbox, "exec udgram recv -e s").start();
    receive.wait_bound("s");
    let send = "
import os, socket, sys
fds = [os.memfd_create('m'), os.open('/etc/passwd', os.O_RDONLY), os.open('.', os.O_RDONLY)]
fds += [os.pidfd_open(os.getpid()), os.eventfd(0)]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.connect('s')
    socket.send_fds(s, [b'1'], fds)
";
    sandbox.python(send).run().succeeds("");
    let line = receive.finish().one_line();
    let envelope: serde_json::Value = serde_json::from_str(&line).unwrap();
    let kinds: Vec<_> = envelope["fds"].as_array().unwrap().iter().collect();
    assert!(kinds.iter().all(|fd| fd.get("path").is_none()), "{line}");
    let kinds: Vec<_> = kinds
        .iter()
        .map(|fd| fd["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["memfd", "file", "dir", "pidfd", "unknown"]);
}

#[test]
fn only_a_path_that_is_reached_through_proc_fails_because_of_it() {
    root!();
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("s");
    let long = sandbox.long_path("s");
    let _other = sandbox.bind("other");
    fs::rename(sandbox.path("other"), &long).unwrap();
    let missing = "No such file or directory";
    let no_proc = "a path of more than 107 bytes is reached through /proc, which is not mounted";
    for (name, status, cause) in [("missing", 4, missing), (text(&long), 1, no_proc)] {
        without_proc(&sandbox, &format!("exec udgram send {name} 1"))
            .run()
            .fails(
                status,
                format!("udgram: cannot connect to '{name}': {cause}"),
            );
        without_proc(&sandbox, "exec udgram send --envelope s")
            .stdin(format!("{{\"to\":\"{name}\",\"packet\":1}}\n"))
            .run()
            .fails(status, format!("udgram: cannot send to '{name}': {cause}"));
    }
}
