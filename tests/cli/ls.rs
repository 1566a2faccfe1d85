//! `udgram ls`: which datagram sockets there are, whose they are, and which are full or stuck.

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::thread;
use std::time::Instant;

use nix::libc;
use nix::unistd::gettid;
use serde_json::{Value, json};

use crate::harness::{LIMIT, Peer, Sandbox, bind_abstract, bytes_path, limited, peer, root, text};
use crate::outcome::Outcome;
use crate::running::Running;

/// Binds the address in its argument, and holds the socket until its input ends.
pub(crate) const HOLDER: &str = "
import socket, sys
held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
held.bind(sys.argv[1].replace('@', '\\0'))
print(held.fileno(), flush=True)
sys.stdin.read()
";

/// A process that holds the socket that it has bound to `address`, and the number of its descriptor;
/// `before` is the beginning of its command line.
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

/// The lines as JSON, of a program that succeeded without a word.
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

/// A thread that sends until `count` datagrams have gone, and waits for room in between: the number of the
/// thread, and the thread.
fn sender(socket: UnixDatagram, count: usize) -> (libc::pid_t, thread::JoinHandle<()>) {
    let (tell, tid) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        tell.send(gettid().as_raw()).unwrap();
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
            "clients": 0, "queued": 0, "full": false, "blocked": 0,
        })
    );
}

#[test]
fn an_abstract_socket_is_listed_as_it_is_written() {
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
fn a_path_too_long_for_the_kernel_is_found() {
    let sandbox = Sandbox::new();
    let path = sandbox.long_path("s");
    let owner = sandbox.listen([&path]);
    let entry = only_entry(sandbox.udgram(["ls"]).arg(&path).run());
    assert_eq!(pids(&entry), [i64::from(owner.pid())]);
    assert_eq!(entry["state"], "live");
}

#[test]
fn of_two_sockets_under_one_name_the_one_that_it_leads_to_is_live() {
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
fn a_socket_without_its_file_is_removed_and_nobody_is_there() {
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
fn a_socket_file_with_nobody_behind_it_is_stale() {
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
fn what_is_no_datagram_socket_is_said_with_the_status_of_the_first() {
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
fn a_full_queue_and_those_who_wait_for_room_are_seen() {
    let sandbox = Sandbox::new();
    let full = sandbox.bind("full");
    let queued = sandbox.fill("full");
    let named = limited(UnixDatagram::unbound().unwrap());
    let path = sandbox.path("full");
    let (tell, tid) = std::sync::mpsc::channel();
    let unconnected = thread::spawn(move || {
        tell.send(gettid().as_raw()).unwrap();
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
    // It comes before all that are well.
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
fn a_sender_whose_own_buffer_is_full_waits_for_the_receiver_too() {
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
fn counting_leaves_every_datagram_and_option_as_it_was() {
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

#[test]
fn a_queue_that_somebody_peeks_at_is_not_counted() {
    let sandbox = Sandbox::new();
    let _socket = sandbox.bind("s");
    let offset = |option| sandbox.udgram(["sockopt", "-s", "./s", option]).run();
    offset("peek_off=7").succeeds("7\n");
    let entry = only_entry(sandbox.udgram(["ls", "-a", "s"]).run());
    assert_eq!(entry.get("queued"), None);
    offset("peek_off").succeeds("7\n");
}

#[test]
fn peers_and_clients_are_told() {
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
    drop(server);
}

#[test]
fn sockets_without_a_name_are_listed_with_all() {
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
    assert_eq!(pids(&entry), [i64::from(owner.pid())]);
    owner.finish().succeeds("bound\n");
}

#[test]
fn a_socket_of_another_mount_namespace_is_as_live_as_its_owner_sees_it() {
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
    assert_eq!(
        entry.map(|entry| (&entry["state"], &entry["full"])),
        Some((&json!("live"), &json!(false)))
    );
    // Here, the path leads nowhere.
    let outcome = sandbox.udgram(["ls", text(&path)]).run();
    let entry: Value = serde_json::from_slice(outcome.stdout()).unwrap();
    assert_eq!(
        (outcome.code(), pids(&entry)),
        (Some(4), vec![i64::from(owner.pid())])
    );
    let inside = format!("/proc/{}/root{}", owner.pid(), path.display());
    let entry = only_entry(sandbox.udgram(["ls", &inside]).run());
    assert_eq!(pids(&entry), [i64::from(owner.pid())]);
    // Here, another socket has the path.
    let _other = sandbox.bind("dir/s");
    let here = entries(sandbox.udgram(["ls", text(&path)]).run());
    assert_eq!(here.len(), 2);
    assert_eq!(pids(&here[1]), [i64::from(owner.pid())]);
    owner.finish().succeeds("3\n");
}

#[test]
fn an_ordinary_user_sees_what_may_be_seen() {
    root!();
    let sandbox = Sandbox::new();
    let _open = sandbox.listen(["-m", "666", "open"]);
    let _closed = sandbox.listen(["closed"]);
    let _removed = sandbox.bind("removed");
    fs::remove_file(sandbox.path("removed")).unwrap();
    let ls = |address: &str| only_entry(sandbox.udgram_as(65534, ["ls", address]).run());
    let address = |name: &str| json!(text(&sandbox.path(name)));
    let mut expected = json!({
        "address": address("open"), "state": "live", "clients": 0, "queued": 0, "full": false,
        "blocked": 0,
    });
    assert_eq!(ls("open"), expected);
    expected["address"] = address("closed");
    expected.as_object_mut().unwrap().remove("full");
    assert_eq!(ls("closed"), expected);
    // Whether its owner sees a file of this name cannot be told.
    let removed = format!(
        "{{\"address\":{},\"clients\":0,\"queued\":0,\"blocked\":0}}\n",
        address("removed")
    );
    sandbox
        .udgram_as(65534, ["ls", "removed"])
        .run()
        .ends(4, removed)
        .says("udgram: no socket is bound to 'removed'");
    // Nor what is in a queue.
    let counted = sandbox.udgram_as(65534, ["ls", "-a", "open"]).run();
    assert_eq!(only_entry(counted).get("queued"), None);
    let _ = sandbox.udgram_as(65534, ["ls"]).run().lines();
}

#[test]
fn on_a_terminal_it_is_a_table_that_fits() {
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
    assert_eq!(words(lines[2]), ["live", "0", "0", "udgram", &shown, &path]);
    for (columns, headings) in [(20, 2), (30, 2), (40, 3), (60, 5), (65, 5)] {
        let narrow = table(columns, "--color never");
        let longest = narrow.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(columns), "{narrow}");
        let first = narrow.lines().next().unwrap_or_default();
        assert_eq!(words(first).len(), headings, "{narrow}");
        assert!(narrow.contains('…'), "{narrow}");
    }
    let coloured = table(200, "--all");
    assert!(
        coloured.contains("\u{1b}[1m\u{1b}[31mfull\u{1b}[0m"),
        "{coloured:?}"
    );
    assert!(coloured.contains("\u{1b}[32mlive\u{1b}[0m"), "{coloured:?}");
}

#[test]
fn candidates_for_completion_are_what_can_be_sent_to() {
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
fn a_reader_that_goes_away_ends_it_quietly() {
    let sandbox = Sandbox::new();
    let _sockets: Vec<UnixDatagram> = (0..800)
        .map(|number| sandbox.bind(format!("{number:080}")))
        .collect();
    sandbox
        .shell("udgram ls | head -n 0; udgram ls | head -n 1 >/dev/null")
        .run()
        .succeeds("");
}
