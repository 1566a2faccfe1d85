//! `udgram ls`: lists datagram sockets, their owners, and which are full or have waiting senders.

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::thread;
use std::time::Instant;

use nix::libc;
use nix::unistd::gettid;
use serde_json::{Value, json};

use crate::harness::{
    LIMIT, Peer, Sandbox, bind_abstract, bytes_path, close, limited, peer, root, skip, text,
};
use crate::outcome::Outcome;
use crate::running::Running;

/// A program that binds the address in its argument and keeps the socket open until its stdin ends.
pub(crate) const HOLDER: &str = "
import socket, sys
held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
held.bind(sys.argv[1].replace('@', '\\0'))
print(held.fileno(), flush=True)
sys.stdin.read()
";

/// Starts a process that binds `address`; `before` is the beginning of its command line. Returns it with the
/// number of its descriptor.
#[track_caller]
pub(crate) fn holder(sandbox: &Sandbox, before: &[&str], address: &str) -> (Running, i64) {
    let command = [before, &["python3", "-c", HOLDER, address]].concat();
    let mut running = sandbox
        .command(command[0], &command[1..])
        .stdin_open()
        .start();
    let number = running.line().parse().unwrap();
    (running, number)
}

/// Returns the lines as JSON. Fails unless the program succeeded and printed nothing on stderr.
#[track_caller]
fn entries(outcome: Outcome) -> Vec<Value> {
    let lines = outcome.lines();
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[track_caller]
fn only_entry(outcome: Outcome) -> Value {
    let mut entries = entries(outcome);
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries.remove(0)
}

fn pids(entry: &Value) -> Vec<i64> {
    let owners = entry["owners"].as_array().into_iter().flatten();
    owners.map(|owner| owner["pid"].as_i64().unwrap()).collect()
}

/// Waits until thread `tid` of this process sleeps in this function of the kernel.
pub(crate) fn until_in(tid: libc::pid_t, function: &str) {
    let start = Instant::now();
    loop {
        let place = fs::read_to_string(format!("/proc/self/task/{tid}/wchan")).unwrap();
        if place == function {
            return;
        }
        assert!(start.elapsed() < LIMIT, "it is in {place}");
        thread::yield_now();
    }
}

/// Starts a thread that sends `count` datagrams and waits for space. Returns its number and its handle.
fn sender(socket: UnixDatagram, count: usize) -> (libc::pid_t, thread::JoinHandle<()>) {
    let (report, tid) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        report.send(gettid().as_raw()).unwrap();
        for _ in 0..count {
            socket.send(b"1").unwrap();
        }
    });
    (tid.recv().unwrap(), thread)
}

#[test]
fn a_socket_is_a_line_with_its_owner_and_its_queue() {
    let sandbox = Sandbox::new();
    let owner = sandbox.listen(["s"]);
    let path = sandbox.path("s");
    let entry = only_entry(sandbox.udgram(["ls", "s"]).run());
    let number = entry["owners"][0]["fd"].as_i64().unwrap();
    let target = fs::read_link(format!("/proc/{}/fd/{number}", owner.pid())).unwrap();
    assert!(text(&target).starts_with("socket:["), "{target:?}");
    let uid = nix::unistd::geteuid().as_raw();
    assert_eq!(
        entry,
        json!({
            "address": text(&path), "state": "live",
            "owners": [{"pid": owner.pid(), "comm": "udgram", "fd": number, "uid": uid}],
            "clients": 0, "full": false, "blocked": 0,
        })
    );
    let counted = only_entry(sandbox.udgram(["ls", "--all", "s"]).run());
    assert_eq!(counted["queued"], 0);
}

#[test]
fn an_abstract_name_is_printed_in_the_syntax_of_arguments() {
    let sandbox = Sandbox::new();
    let name = sandbox.unique() + "\\\0\n";
    let _socket = bind_abstract(&name);
    let written = format!("@{}\\\\\\0\\x0a", sandbox.unique());
    let entry = only_entry(sandbox.udgram(["ls", &written]).run());
    assert_eq!(
        (&entry["address"], &entry["state"]),
        (&json!(written), &json!("live"))
    );
    let all = entries(sandbox.udgram(["ls"]).run());
    let count = all.iter().filter(|entry| entry["address"] == written);
    assert_eq!(count.count(), 1);
}

#[test]
fn a_path_that_is_not_utf8_has_its_bytes_beside_it() {
    let sandbox = Sandbox::new();
    let _socket = sandbox.bind(bytes_path(b"\xff"));
    let ls = sandbox.udgram(["ls"]).arg(bytes_path(b"\xff"));
    let entry = only_entry(ls.run());
    let raw = entry["address_raw"].as_str().unwrap();
    let raw = sandbox
        .udgram(["send", "-p", "base64", "c", raw])
        .arg("--")
        .run();
    raw.refuses(4, &[]);
    assert!(entry["address"].as_str().unwrap().ends_with("/\u{fffd}"));
}

#[test]
fn a_relative_name_is_shown_by_the_path_that_leads_to_it() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let (owner, _) = holder(&sandbox, &[], "s");
    for address in ["s", "./s", text(&sandbox.path("s"))] {
        let entry = only_entry(sandbox.udgram(["ls", address]).run());
        assert_eq!(entry["address"], text(&sandbox.path("s")), "{address}");
        assert_eq!(pids(&entry), [i64::from(owner.pid())]);
    }
    owner.finish().succeeds("3\n");
}

#[test]
fn a_link_leads_to_the_socket() {
    let sandbox = Sandbox::new();
    let _socket = sandbox.bind("s");
    std::os::unix::fs::symlink("s", sandbox.path("link")).unwrap();
    let entry = only_entry(sandbox.udgram(["ls", "link"]).run());
    assert_eq!(entry["address"], text(&sandbox.path("s")));
}

#[test]
fn a_renamed_socket_file_is_printed_with_the_bound_name() {
    let sandbox = Sandbox::new();
    let _socket = sandbox.bind("before");
    fs::rename(sandbox.path("before"), sandbox.path("after")).unwrap();
    let entry = only_entry(sandbox.udgram(["ls", "after"]).run());
    assert_eq!(
        (&entry["address"], &entry["bound"], &entry["state"]),
        (
            &json!(text(&sandbox.path("after"))),
            &json!(text(&sandbox.path("before"))),
            &json!("live")
        )
    );
    sandbox
        .udgram(["send", entry["address"].as_str().unwrap(), "1"])
        .run()
        .succeeds("");
    let all = entries(sandbox.udgram(["ls"]).run());
    let listed = |entry: &&Value| entry["address"] == text(&sandbox.path("before"));
    let entry = all.iter().find(listed).unwrap();
    assert_eq!(
        (&entry["state"], entry.get("bound")),
        (&json!("removed"), None)
    );
}

#[test]
fn format_characters_in_a_name_are_escaped() {
    peer!("script", "stty");
    let sandbox = Sandbox::new();
    let _socket = sandbox.bind("gnp.\u{202e}kcos");
    let name = bind_abstract(&(sandbox.unique() + "\u{202e}"));
    let entry = sandbox.udgram(["ls", "gnp.\u{202e}kcos"]).run().one_line();
    assert!(entry.contains("gnp.\\u202ekcos"), "{entry}");
    let written = format!("@{}\\xe2\\x80\\xae", sandbox.unique());
    let entry = only_entry(sandbox.udgram(["ls", &written]).run());
    assert_eq!(entry["address"], written);
    sandbox
        .udgram(["ls", "gone\u{202e}"])
        .run()
        .refuses(4, &["'gone\\u{202e}'"]);
    let command = "stty cols 200; udgram ls $(printf 'gnp.\\342\\200\\256kcos')";
    let outcome = sandbox
        .command("script", ["-qec", command, "/dev/null"])
        .env("TERM", "xterm")
        .run();
    let table = String::from_utf8(outcome.stdout().to_vec()).unwrap();
    assert!(table.contains("gnp.\\u{202e}kcos"), "{table}");
    let candidates = sandbox.udgram(["ls", "--candidates"]).run().lines();
    assert!(!candidates.iter().any(|line| line.contains("kcos")));
    drop(name);
}

#[test]
fn a_path_too_long_for_the_kernel_is_found() {
    let sandbox = Sandbox::new();
    let path = sandbox.long_path("s");
    let owner = sandbox.listen([&path]);
    let entry = only_entry(sandbox.udgram(["ls"]).arg(&path).run());
    assert_eq!(pids(&entry), [i64::from(owner.pid())]);
    assert_eq!(entry["state"], "live");
}

#[test]
fn of_two_sockets_bound_to_one_name_the_earlier_is_shadowed() {
    let sandbox = Sandbox::new();
    let before = sandbox.bind("s");
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(sandbox.path("s")).unwrap();
    fs::remove_file(sandbox.path("s")).unwrap();
    let _after = sandbox.bind("s");
    sender.send(b"1").unwrap();
    let entries = entries(sandbox.udgram(["ls", "s"]).run());
    let states: Vec<&Value> = entries.iter().map(|entry| &entry["state"]).collect();
    assert_eq!(states, ["live", "shadowed"]);
    assert_eq!(entries[1]["queued"], 1);
    assert_eq!(entries[1]["clients"], 1);
    assert_eq!(entries[1].get("full"), None);
    assert_eq!(before.take(), b"1");
}

#[test]
fn a_socket_whose_file_is_removed_is_printed_with_status_4() {
    let sandbox = Sandbox::new();
    let _socket = sandbox.bind("s");
    fs::remove_file(sandbox.path("s")).unwrap();
    let outcome = sandbox.udgram(["ls", "s"]).run();
    let entry: Value = serde_json::from_slice(outcome.stdout()).unwrap();
    assert_eq!(entry["state"], "removed");
    assert_eq!(outcome.code(), Some(4));
    outcome.mentions(&["no socket is bound to 's'"]);
}

#[test]
fn a_removed_socket_with_a_relative_name_is_found_by_its_owners_working_directory() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let (owner, number) = holder(&sandbox, &[], "s");
    fs::remove_file(sandbox.path("s")).unwrap();
    let uid = nix::unistd::geteuid();
    let line = format!(
        "{{\"address\":\"s\",\"owners\":[{{\"pid\":{},\"comm\":\"python3\",\"fd\":{number},\"uid\":{uid}}}],\
         \"clients\":0,\"blocked\":0}}\n",
        owner.pid()
    );
    let absolute = sandbox.path("s");
    for name in ["s", "./s", text(&absolute)] {
        let outcome = sandbox.udgram(["ls", name]).run().ends(4, &line);
        outcome.says(format!("udgram: no socket is bound to '{name}'"));
    }
    owner.finish().succeeds("3\n");
}

#[test]
fn the_state_of_a_relative_name_is_unknown_once_its_owner_has_another_working_directory() {
    root!();
    peer!("python3", "unshare");
    let sandbox = Sandbox::new();
    sandbox.directory("empty");
    sandbox.directory("other");
    sandbox.file("other/s", "");
    let script = "
import os, socket, subprocess
held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
held.bind('s')
print(os.getpid(), flush=True)
for directory in ['.', 'empty', '../other']:
    os.chdir(directory)
    subprocess.run(['udgram', 'ls'], check=True)
";
    let mut lines = sandbox
        .command("unshare", ["-n", "python3", "-c", script])
        .run()
        .lines();
    let pid = lines.remove(0);
    let owners = format!(
        "\"owners\":[{{\"pid\":{pid},\"comm\":\"python3\",\"fd\":3,\"uid\":0}}],\"clients\":0"
    );
    let unknown = format!("{{\"address\":\"s\",{owners},\"blocked\":0}}");
    assert_eq!(
        lines,
        [
            format!(
                "{{\"address\":\"{}\",\"state\":\"live\",{owners},\"full\":false,\"blocked\":0}}",
                sandbox.path("s").display()
            ),
            unknown.clone(),
            unknown,
        ]
    );
}

#[test]
fn a_socket_on_a_file_system_that_numbers_its_files_differently_is_live() {
    root!();
    peer!("python3", "unshare", "mount");
    let sandbox = Sandbox::new();
    for name in ["lower", "upper", "overlay"] {
        sandbox.directory(name);
    }
    // Its two layers are on different file systems, so stat(2) returns other device numbers than sock_diag(7).
    let mount = "
mount -t tmpfs none lower && mount -t tmpfs none upper && mkdir upper/files upper/work &&
mount -t overlay none -o lowerdir=lower,upperdir=upper/files,workdir=upper/work overlay &&
exec \"$@\"";
    let script = "
import os, socket, subprocess, sys
held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
held.bind(os.path.abspath('overlay/s'))
print(os.getpid(), flush=True)
sys.exit(subprocess.run(['udgram', 'ls']).returncode)
";
    let mut lines = sandbox
        .command("unshare", ["-mn", "sh", "-c", mount, "sh"])
        .args(["python3", "-c", script])
        .run()
        .lines();
    let pid = lines.remove(0);
    assert_eq!(
        lines,
        [format!(
            "{{\"address\":\"{}\",\"state\":\"live\",\
             \"owners\":[{{\"pid\":{pid},\"comm\":\"python3\",\"fd\":3,\"uid\":0}}],\
             \"clients\":0,\"full\":false,\"blocked\":0}}",
            sandbox.path("overlay/s").display()
        )]
    );
}

#[test]
fn a_socket_file_that_no_socket_is_bound_to_is_stale() {
    let sandbox = Sandbox::new();
    let path = sandbox.stale("s");
    let line = format!("{}\n", json!({"address": text(&path), "state": "stale"}));
    sandbox
        .udgram(["ls", "s"])
        .run()
        .ends(4, line)
        .says("udgram: no socket is bound to 's'");
}

#[test]
fn addresses_without_a_datagram_socket_are_reported_and_the_first_decides_the_status() {
    let sandbox = Sandbox::new();
    sandbox.file("file", "");
    let _stream = UnixListener::bind(sandbox.path("stream")).unwrap();
    let ls = |address: &str| sandbox.udgram(["ls", address]).run();
    ls("missing").fails(
        4,
        "udgram: cannot find the socket at 'missing': No such file or directory",
    );
    ls("file").fails(
        1,
        "udgram: cannot find the socket at 'file': it is a regular file, not a socket",
    );
    ls("stream").refuses(1, &["'stream'", "stream socket"]);
    let name = format!("@{}", sandbox.unique());
    ls(&name).refuses(4, &[&name, "no datagram socket"]);
    let _socket = sandbox.bind("s");
    let outcome = sandbox.udgram(["ls", "missing", "s", "file"]).run();
    assert_eq!(outcome.diagnostics().len(), 2);
    assert_eq!(outcome.code(), Some(4));
    let entry: Value = serde_json::from_slice(outcome.stdout()).unwrap();
    assert_eq!(entry["address"], text(&sandbox.path("s")));
}

#[test]
fn a_full_queue_and_its_waiting_senders_are_printed_first() {
    let sandbox = Sandbox::new();
    let full = sandbox.bind("full");
    let queued = sandbox.fill("full");
    let named = limited(UnixDatagram::unbound().unwrap());
    let path = sandbox.path("full");
    let (report, tid) = std::sync::mpsc::channel();
    let unconnected = thread::spawn(move || {
        report.send(gettid().as_raw()).unwrap();
        named.send_to(b"1", path).unwrap();
    });
    until_in(tid.recv().unwrap(), "unix_wait_for_peer");
    let client = limited(UnixDatagram::unbound().unwrap());
    client.connect(sandbox.path("full")).unwrap();
    let (tid, connected) = sender(client, 1);
    until_in(tid, "unix_wait_for_peer");
    let entry = only_entry(sandbox.udgram(["ls", "full"]).run());
    assert_eq!(
        (
            &entry["queued"],
            &entry["full"],
            &entry["blocked"],
            &entry["clients"]
        ),
        (&json!(1), &json!(true), &json!(2), &json!(1))
    );
    let entry = only_entry(sandbox.udgram(["ls", "--all", "full"]).run());
    assert_eq!(entry["queued"], json!(queued));
    // It comes before sockets that are not full.
    let _well = sandbox.bind("a-first");
    let own = entries(sandbox.udgram(["ls"]).run());
    let own: Vec<&str> = own
        .iter()
        .filter_map(|entry| entry["address"].as_str())
        .filter(|address| address.starts_with(text(sandbox.dir())))
        .collect();
    assert_eq!(
        own,
        [text(&sandbox.path("full")), text(&sandbox.path("a-first"))]
    );
    for _ in 0..queued + 2 {
        let _ = full.take();
    }
    unconnected.join().unwrap();
    connected.join().unwrap();
    let entry = only_entry(sandbox.udgram(["ls", "-a", "full"]).run());
    assert_eq!(
        (&entry["queued"], &entry["full"], &entry["blocked"]),
        (&json!(0), &json!(false), &json!(0))
    );
}

#[test]
fn senders_that_name_the_receiver_in_each_call_count_as_blocked() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let full = sandbox.bind("full");
    let queued = sandbox.fill("full");
    let name = sandbox.unique();
    let named = bind_abstract(&name);
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    let address = named.local_addr().unwrap();
    while sender.send_to_addr(b"0", &address).is_ok() {}
    // sendto(2) and sendmsg(2), to a path below the working directory and to an abstract name.
    let script = "
import os, socket, sys, threading
def waits(send):
    thread = threading.Thread(target=send)
    thread.start()
    place = f'/proc/self/task/{thread.native_id}/wchan'
    while open(place).read() != 'unix_wait_for_peer':
        pass
make = lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for name in ['full', '\\0' + sys.argv[1]]:
    waits(lambda: make().sendto(b'1', name))
    waits(lambda: make().sendmsg([b'1'], [], 0, name))
print('waiting', flush=True)
";
    let mut senders = sandbox.python(script).arg(&name).start();
    assert_eq!(senders.line(), "waiting");
    for (address, received) in [("full", &full), (&*format!("@{name}"), &named)] {
        let entry = only_entry(sandbox.udgram(["ls", address]).run());
        assert_eq!(
            (&entry["full"], &entry["blocked"], &entry["clients"]),
            (&json!(true), &json!(2), &json!(0))
        );
        for _ in 0..queued + 2 {
            let _ = received.take();
        }
    }
    senders.finish().succeeds("waiting\n");
}

#[test]
fn a_sender_whose_send_buffer_is_full_counts_as_blocked() {
    let sandbox = Sandbox::new();
    let receiver = sandbox.bind("s");
    let client = limited(UnixDatagram::unbound().unwrap());
    client.connect(sandbox.path("s")).unwrap();
    client.set_nonblocking(true).unwrap();
    // The receiver accepts this peer alone, and any number of its datagrams.
    let name = sandbox.path("client");
    let address = nix::sys::socket::UnixAddr::new(&name).unwrap();
    nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&client), &address).unwrap();
    receiver.connect(&name).unwrap();
    let mut sent = 0;
    while client.send(b"1").is_ok() {
        sent += 1;
    }
    client.set_nonblocking(false).unwrap();
    let (tid, waiting) = sender(client, 1);
    until_in(tid, "sock_alloc_send_pskb");
    let entry = only_entry(sandbox.udgram(["ls", "-a", "s"]).run());
    assert_eq!(
        (
            &entry["queued"],
            &entry["full"],
            &entry["blocked"],
            &entry["peer"]
        ),
        (&json!(sent), &json!(false), &json!(1), &json!(text(&name)))
    );
    for _ in 0..=sent {
        let _ = receiver.take();
    }
    waiting.join().unwrap();
}

#[test]
fn counting_changes_no_datagram_and_no_option() {
    let sandbox = Sandbox::new();
    let socket = sandbox.bind("s");
    let sender = UnixDatagram::unbound().unwrap();
    let large = vec![b'x'; 100_000];
    for packet in [&b"1"[..], b"", &large, b"", b"22"] {
        sender.send_to(packet, sandbox.path("s")).unwrap();
    }
    let queued = || only_entry(sandbox.udgram(["ls", "-a", "s"]).run())["queued"].clone();
    assert_eq!(queued(), 5);
    // The kernel shows an empty datagram to the first look only.
    assert_eq!(queued(), 3);
    let offset = sandbox.udgram(["sockopt", "-s", "./s", "peek_off"]).run();
    offset.succeeds("-1\n");
    for packet in [&b"1"[..], b"", &large, b"", b"22"] {
        assert_eq!(socket.take(), packet);
    }
    socket.has_nothing_more();
}

/// Binds `name` and another name, connects both to each other, and connects the other one elsewhere while it
/// has a datagram queued: the kernel then reports ECONNRESET to the first (`unix_dgram_disconnected`).
pub(crate) fn with_pending_error(sandbox: &Sandbox, name: &str) -> UnixDatagram {
    let socket = sandbox.bind(name);
    let other = sandbox.bind("other");
    let third = sandbox.bind("third");
    socket.connect(sandbox.path("other")).unwrap();
    other.connect(sandbox.path(name)).unwrap();
    socket.send(b"lost").unwrap();
    other.send(b"1").unwrap();
    other.connect(sandbox.path("third")).unwrap();
    close(third);
    socket
}

#[test]
fn counting_leaves_a_pending_error_to_the_owner() {
    let sandbox = Sandbox::new();
    let socket = with_pending_error(&sandbox, "s");
    let entry = only_entry(sandbox.udgram(["ls", "--all", "s"]).run());
    assert_eq!(entry.get("queued"), None);
    let error = socket
        .take_error()
        .unwrap()
        .and_then(|error| error.raw_os_error());
    assert_eq!(error, Some(libc::ECONNRESET));
    let entry = only_entry(sandbox.udgram(["ls", "--all", "s"]).run());
    assert_eq!(entry["queued"], 1);
}

#[test]
fn a_queue_that_begins_with_an_empty_datagram_is_not_printed_as_empty() {
    let sandbox = Sandbox::new();
    let socket = sandbox.bind("s");
    let client = limited(UnixDatagram::unbound().unwrap());
    client.connect(sandbox.path("s")).unwrap();
    client.send(b"").unwrap();
    let entry = only_entry(sandbox.udgram(["ls", "s"]).run());
    assert_eq!(entry.get("queued"), None);
    client.set_nonblocking(true).unwrap();
    let mut queued = 1;
    while client.send(b"").is_ok() {
        queued += 1;
    }
    client.set_nonblocking(false).unwrap();
    let (tid, waiting) = sender(client, 1);
    until_in(tid, "unix_wait_for_peer");
    // Without its file, whether it is full cannot be found out.
    fs::remove_file(sandbox.path("s")).unwrap();
    let outcome = sandbox.udgram(["ls", "s"]).run();
    let entry: Value = serde_json::from_slice(outcome.stdout()).unwrap();
    assert_eq!(
        (&entry["queued"], entry.get("full"), &entry["blocked"]),
        (&json!(1), None, &json!(1))
    );
    for _ in 0..=queued {
        let _ = socket.take();
    }
    waiting.join().unwrap();
}

#[test]
fn a_queue_that_its_owner_peeks_at_is_not_counted() {
    let sandbox = Sandbox::new();
    let _socket = sandbox.bind("s");
    let offset = |option| sandbox.udgram(["sockopt", "-s", "./s", option]).run();
    offset("peek_off=7").succeeds("7\n");
    let entry = only_entry(sandbox.udgram(["ls", "-a", "s"]).run());
    assert_eq!(entry.get("queued"), None);
    offset("peek_off").succeeds("7\n");
}

#[test]
fn peers_and_clients_are_printed() {
    let sandbox = Sandbox::new();
    let server = sandbox.bind("server");
    let client = sandbox.bind("client");
    client.connect(sandbox.path("server")).unwrap();
    let (one, _other) = UnixDatagram::pair().unwrap();
    let name = sandbox.unique();
    let address = nix::sys::socket::UnixAddr::new_abstract(name.as_bytes()).unwrap();
    nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&one), &address).unwrap();
    let entry = |address: &str| only_entry(sandbox.udgram(["ls", address]).run());
    assert_eq!(entry("server")["clients"], 1);
    assert_eq!(entry("server").get("peer"), None);
    assert_eq!(entry("client")["peer"], text(&sandbox.path("server")));
    let paired = entry(&format!("@{name}"));
    assert_eq!(
        (&paired["peer"], &paired["clients"]),
        (&Value::Null, &json!(1))
    );
    assert!(paired.get("peer").is_some());
    close(server);
}

#[test]
fn all_lists_sockets_without_a_name() {
    root!();
    peer!("python3", "unshare");
    let sandbox = Sandbox::new();
    // In a network namespace of its own: --all copies every socket for a moment, which would keep those open
    // that other tests close.
    let script = "
import socket, subprocess
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.bind('server')
client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
client.connect('server')
for options in [], ['--all']:
    listed = subprocess.run(['udgram', 'ls', *options], stdout=subprocess.PIPE, check=True)
    print(listed.stdout.count(b'{\"address\":null,'), listed.stdout.count(b'\"peer\":'))
";
    sandbox
        .command("unshare", ["-n", "python3", "-c", script])
        .run()
        .succeeds("0 0\n1 1\n");
}

#[test]
fn a_socket_of_another_network_namespace_is_found_by_its_path() {
    root!();
    peer!("python3", "unshare");
    let sandbox = Sandbox::new();
    let (owner, number) = holder(&sandbox, &["unshare", "-n"], "s");
    let path = sandbox.path("s");
    let listed = |entry: &Value| entry["address"] == text(&path);
    assert!(!entries(sandbox.udgram(["ls"]).run()).iter().any(listed));
    let entry = only_entry(sandbox.udgram(["ls", "s"]).run());
    assert_eq!(entry["state"], "live");
    assert_eq!(pids(&entry), [i64::from(owner.pid())]);
    assert_eq!(entry["owners"][0]["fd"], number);
    let queued = sandbox.fill("s");
    let entry = only_entry(sandbox.udgram(["ls", "--all", "s"]).run());
    assert_eq!(
        (&entry["queued"], &entry["full"]),
        (&json!(queued), &json!(true))
    );
    owner.finish().succeeds("3\n");
}

#[test]
fn a_socket_of_another_network_namespace_has_its_peer_and_its_waiting_senders() {
    root!();
    peer!("python3", "unshare");
    let sandbox = Sandbox::new();
    let script = "
import os, socket, sys
def bind(name):
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(name)
    return made
full, connected, other = bind('full'), bind('connected'), bind('other')
connected.connect('other')
if os.fork() == 0:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    client.connect('full')
    print(os.getpid(), flush=True)
    while True:
        client.send(b'1')
sys.stdin.read()
os.kill(0, 9)
";
    let mut owner = sandbox
        .command("unshare", ["-n", "setsid", "python3", "-c", script])
        .stdin_open()
        .start();
    let sender = owner.line();
    let place = || fs::read_to_string(format!("/proc/{sender}/wchan")).unwrap();
    let start = Instant::now();
    while place() != "unix_wait_for_peer" {
        assert!(start.elapsed() < LIMIT, "it is in {}", place());
        thread::yield_now();
    }
    // One call, the second socket of which is in the namespace that the first has led to.
    let found = entries(sandbox.udgram(["ls", "full", "connected"]).run());
    assert_eq!(
        (
            &found[0]["clients"],
            &found[0]["queued"],
            &found[0]["full"],
            &found[0]["blocked"]
        ),
        (&json!(1), &json!(1), &json!(true), &json!(1))
    );
    let entry = only_entry(sandbox.udgram(["ls", "connected"]).run());
    for entry in [&found[1], &entry] {
        assert_eq!(
            (&entry["peer"], &entry["full"], &entry["blocked"]),
            (&json!("other"), &json!(false), &json!(0))
        );
    }
    assert_eq!(
        only_entry(sandbox.udgram(["ls", "other"]).run())["clients"],
        1
    );
    let _ = owner.finish();
}

#[test]
fn a_socket_of_a_network_namespace_without_a_process_is_found_by_its_path() {
    root!();
    peer!("python3");
    let sandbox = Sandbox::new();
    let script = "
import ctypes, socket, sys, threading
def make():
    global held
    assert ctypes.CDLL(None).unshare(0x40000000) == 0
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
thread = threading.Thread(target=make)
thread.start()
thread.join()
held.bind('s')
print('bound', flush=True)
sys.stdin.read()
";
    let mut owner = sandbox.python(script).stdin_open().start();
    assert_eq!(owner.line(), "bound");
    let entry = only_entry(sandbox.udgram(["ls", "-a", "s"]).run());
    assert_eq!(
        (&entry["state"], &entry["queued"], &entry["full"]),
        (&json!("live"), &json!(0), &json!(false))
    );
    // The kernel does not list the socket in any namespace that a process has.
    assert_eq!(
        [
            entry.get("bound"),
            entry.get("clients"),
            entry.get("blocked"),
            entry.get("peer")
        ],
        [None, None, None, None]
    );
    assert_eq!(pids(&entry), [i64::from(owner.pid())]);
    owner.finish().succeeds("bound\n");
}

#[test]
fn a_socket_of_another_mount_namespace_has_the_root_directory_of_its_owner() {
    root!();
    peer!("python3", "unshare");
    let sandbox = Sandbox::new();
    sandbox.directory("dir");
    let script = "mount -t tmpfs none dir && exec \"$@\"";
    let before = ["unshare", "-m", "sh", "-c", script, "sh"];
    let path = sandbox.path("dir/s");
    let (owner, _) = holder(&sandbox, &before, text(&path));
    let own = entries(sandbox.udgram(["ls"]).run());
    let entry = own.iter().find(|entry| entry["address"] == text(&path));
    let root = format!("/proc/{}/root", owner.pid());
    assert_eq!(
        entry.map(|entry| (&entry["state"], &entry["root"], &entry["full"])),
        Some((&json!("live"), &json!(root), &json!(false)))
    );
    // In the root directory of this process, the path leads to nothing.
    let inside = format!("{root}{}", path.display());
    let outcome = sandbox.udgram(["ls", text(&path)]).run();
    let entry: Value = serde_json::from_slice(outcome.stdout()).unwrap();
    assert_eq!(
        (pids(&entry), &entry["root"]),
        (vec![i64::from(owner.pid())], &json!(root))
    );
    let line = outcome.stdout().to_vec();
    outcome.ends(4, line).says(format!(
        "udgram: no socket is bound to '{}' in this root directory (hint: its owner has another one: '{inside}')",
        path.display()
    ));
    let entry = only_entry(sandbox.udgram(["ls", &inside]).run());
    assert_eq!(pids(&entry), [i64::from(owner.pid())]);
    assert_eq!(
        (&entry["address"], &entry["bound"], entry.get("root")),
        (&json!(inside), &json!(text(&path)), None)
    );
    // Another socket is bound to the path in the root directory of this process.
    let _other = sandbox.bind("dir/s");
    let here = entries(sandbox.udgram(["ls", text(&path)]).run());
    assert_eq!(here.len(), 2);
    assert_eq!(pids(&here[1]), [i64::from(owner.pid())]);
    owner.finish().succeeds("3\n");
}

#[test]
fn a_file_system_that_does_not_answer_does_not_delay_the_list() {
    root!();
    peer!("python3", "unshare", "nsenter");
    if fs::File::open("/dev/fuse").is_err() {
        return skip("there is no /dev/fuse");
    }
    let sandbox = Sandbox::new();
    let directory = sandbox.directory("stalled");
    let mut owner = sandbox
        .command("unshare", ["-m", "python3", "-c", STALLED])
        .arg(&directory)
        .stdin_open()
        .start();
    assert_eq!(owner.line(), "bound");
    let path = directory.join("s");
    let pid = owner.pid().to_string();
    for before in [&[][..], &["nsenter", "-m", "-t", &pid]] {
        let command = [before, &["udgram", "ls"]].concat();
        let all = entries(sandbox.command(command[0], &command[1..]).run());
        let entry = all.iter().find(|entry| entry["address"] == text(&path));
        let entry = entry.unwrap_or_else(|| panic!("{all:?}"));
        assert_eq!(pids(entry), [i64::from(owner.pid())]);
        assert_eq!([entry.get("state"), entry.get("full")], [None, None]);
    }
    owner.finish().succeeds("bound\n");
}

/// A FUSE server that has a socket at `s` and does not answer any more after it was bound.
const STALLED: &str = "
import ctypes, os, socket, struct, subprocess, sys, threading, time
directory = sys.argv[1]
device = os.open('/dev/fuse', os.O_RDWR)
options = 'fd=%d,rootmode=40000,user_id=0,group_id=0' % device
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(b'stalled', directory.encode(), b'fuse', 0, options.encode()) == 0, ctypes.get_errno()
known = False
def attributes(node):
    mode = 0o40755 if node == 1 else 0o140755
    # struct fuse_attr
    return struct.pack('=6Q10I', node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
def entry():
    return struct.pack('=QQQQII', 2, 0, 0, 0, 0, 0) + attributes(2)
def serve():
    global known
    while True:
        request = os.read(device, 1 << 20)
        length, opcode, unique, node = struct.unpack('=IIQQ', request[:24])
        error, reply = 0, b''
        if opcode == 26: # INIT
            reply = struct.pack('=IIIIHHIIHHI7I', 7, 31, 65536, 0, 0, 0, 4096, 1, 0, 0, 0, *[0]*7)
        elif opcode == 1: # LOOKUP
            error, reply = (0, entry()) if known else (-2, b'')
        elif opcode == 8: # MKNOD
            known, reply = True, entry()
        elif opcode == 3: # GETATTR
            reply = struct.pack('=QII', 0, 0, 0) + attributes(node)
        elif opcode in (2, 42):
            continue
        else:
            error = -38
        os.write(device, struct.pack('=IiQ', 16 + len(reply), error, unique) + reply)
        if opcode == 8:
            # It does not answer any more.
            return
threading.Thread(target=serve, daemon=True).start()
held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
held.bind(directory + '/s')
print('bound', flush=True)
sys.stdin.read()
libc.umount2(directory.encode(), 2)
";

#[test]
fn an_absolute_symbolic_link_leads_a_process_in_a_chroot_to_a_socket_below_its_root() {
    root!();
    peer!("python3");
    let sandbox = Sandbox::new();
    for directory in ["jail", "jail/run", "jail/var"] {
        sandbox.directory(directory);
    }
    std::os::unix::fs::symlink("/run", sandbox.path("jail/var/run")).unwrap();
    let script = "
import os, socket, sys
os.chroot('jail')
os.chdir('/run')
name = sys.argv[1]
held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
held.bind('/var/run/' + name)
relative = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
relative.bind('../var/run/relative-' + name)
if os.fork() == 0:
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    print(os.getpid(), flush=True)
    while True:
        sender.sendto(b'1', '/var/run/' + name)
sys.stdin.read()
os.kill(0, 9)
";
    let name = sandbox.unique();
    let mut owner = sandbox
        .command("setsid", ["python3", "-c", script, &name])
        .stdin_open()
        .start();
    let sender = owner.line();
    let place = || fs::read_to_string(format!("/proc/{sender}/wchan")).unwrap();
    let start = Instant::now();
    while place() != "unix_wait_for_peer" {
        assert!(start.elapsed() < LIMIT, "it is in {}", place());
        thread::yield_now();
    }
    let all = entries(sandbox.udgram(["ls"]).run());
    let named = |address: &str| {
        let entry = all.iter().find(|entry| entry["address"] == address);
        entry.unwrap_or_else(|| panic!("{all:?}"))
    };
    let path = format!("/var/run/{name}");
    let entry = named(&path);
    let root = entry["root"].as_str().unwrap().to_owned();
    let holders = pids(entry);
    assert!(
        holders
            .iter()
            .any(|pid| root == format!("/proc/{pid}/root")),
        "{entry}"
    );
    assert_eq!(
        (
            &entry["state"],
            &entry["queued"],
            &entry["full"],
            &entry["blocked"]
        ),
        (&json!("live"), &json!(1), &json!(true), &json!(1))
    );
    // The working directory of the owner is /run below its root.
    let relative = named(&format!("/run/../var/run/relative-{name}"));
    assert_eq!(
        (&relative["state"], &relative["root"]),
        (&json!("live"), &json!(root))
    );
    let outcome = sandbox.udgram(["ls", &path]).run();
    assert_eq!(outcome.code(), Some(4));
    let _ = owner.finish();
}

#[test]
fn unknown_fields_are_absent_for_an_ordinary_user() {
    root!();
    let sandbox = Sandbox::new();
    let _open = sandbox.listen(["-m", "666", "open"]);
    let _closed = sandbox.listen(["closed"]);
    let _removed = sandbox.bind("removed");
    fs::remove_file(sandbox.path("removed")).unwrap();
    let ls = |address: &str| only_entry(sandbox.udgram_as(65534, ["ls", address]).run());
    let address = |name: &str| json!(text(&sandbox.path(name)));
    let mut expected = json!({
        "address": address("open"), "state": "live", "clients": 0, "full": false,
        "blocked": 0,
    });
    assert_eq!(ls("open"), expected);
    expected["address"] = address("closed");
    expected.as_object_mut().unwrap().remove("full");
    assert_eq!(ls("closed"), expected);
    // Whether the name leads its owner to a file is unknown.
    let removed = format!(
        "{{\"address\":{},\"clients\":0,\"blocked\":0}}\n",
        address("removed")
    );
    sandbox
        .udgram_as(65534, ["ls", "removed"])
        .run()
        .ends(4, removed)
        .says("udgram: no socket is bound to 'removed'");
    // So is the number of queued datagrams.
    let counted = sandbox.udgram_as(65534, ["ls", "-a", "open"]).run();
    assert_eq!(only_entry(counted).get("queued"), None);
    let _ = sandbox.udgram_as(65534, ["ls"]).run().lines();
}

#[test]
fn on_a_terminal_the_output_is_a_table_as_wide_as_the_terminal() {
    peer!("script", "stty");
    let sandbox = Sandbox::new();
    let _full = sandbox.bind("full");
    sandbox.fill("full");
    let owner = sandbox.listen(["ok\u{1b}[31m"]);
    let table = |columns: usize, options: &str| {
        let command =
            format!("stty cols {columns}; udgram ls {options} full \"$(printf 'ok\\033[31m')\"");
        let outcome = sandbox
            .command("script", ["-qec", &command, "/dev/null"])
            .env("TERM", "xterm")
            .run();
        String::from_utf8(outcome.stdout().to_vec()).unwrap()
    };
    let plain = table(200, "--color never");
    let lines: Vec<&str> = plain.lines().collect();
    assert_eq!(lines.len(), 3, "{plain}");
    let words =
        |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    assert_eq!(
        words(lines[0]),
        ["STATE", "QUEUED", "CLIENTS", "OWNER", "ADDRESS"]
    );
    assert_eq!(words(lines[1])[..3], ["full", "1+", "0"]);
    let shown = format!("({})", owner.pid());
    let path = format!("{}\\u{{1b}}[31m", sandbox.path("ok").display());
    assert_eq!(words(lines[2]), ["live", "-", "0", "udgram", &shown, &path]);
    for (columns, headings) in [(20, 2), (30, 2), (40, 3), (60, 5), (65, 5)] {
        let narrow = table(columns, "--color never");
        let longest = narrow.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(columns), "{narrow}");
        let first = narrow.lines().next().unwrap_or_default();
        assert_eq!(words(first).len(), headings, "{narrow}");
        assert!(narrow.contains('…'), "{narrow}");
    }
    // A terminal whose width is not known.
    assert_eq!(table(0, "--color never"), table(80, "--color never"));
    let coloured = table(200, "--all");
    assert!(
        coloured.contains("\u{1b}[1m\u{1b}[31mfull\u{1b}[0m"),
        "{coloured:?}"
    );
    assert!(coloured.contains("\u{1b}[32mlive\u{1b}[0m"), "{coloured:?}");
}

#[test]
fn candidates_for_completion_are_sockets_that_can_be_sent_to() {
    let sandbox = Sandbox::new();
    let owner = sandbox.listen(["live"]);
    let _line_break = sandbox.bind("line\nbreak");
    let _removed = sandbox.bind("removed");
    fs::remove_file(sandbox.path("removed")).unwrap();
    let lines = sandbox.udgram(["ls", "--candidates"]).run().lines();
    let own: Vec<&String> = lines
        .iter()
        .filter(|line| line.starts_with(text(sandbox.dir())))
        .collect();
    let live = sandbox.path("live");
    // The socket for READY=1 is one, too.
    assert!(
        own.contains(&&format!(
            "{}\tlive, udgram ({})",
            live.display(),
            owner.pid()
        )),
        "{own:?}"
    );
    assert!(
        !own.iter()
            .any(|line| line.contains("removed") || line.contains("break"))
    );
}

#[test]
fn the_end_of_the_reader_of_stdout_ends_it_without_a_message() {
    let sandbox = Sandbox::new();
    let _sockets: Vec<UnixDatagram> = (0..800)
        .map(|number| sandbox.bind(format!("{number:080}")))
        .collect();
    sandbox
        .shell("udgram ls | head -n 0; udgram ls | head -n 1 >/dev/null")
        .run()
        .succeeds("");
}
