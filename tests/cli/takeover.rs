//! Binding a name that already has a file: stale, of a live socket, of another type, locked.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;

use crate::harness::{Peer, Sandbox, bind_abstract, close, peer, root, text};

#[test]
fn a_stale_socket_file_is_replaced() {
    let sandbox = Sandbox::new();
    sandbox.stale("s");
    let running = sandbox.listen(["-n", "1", "s"]);
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    running.finish().succeeds("1\n");
    assert!(!sandbox.exists("s"));
}

#[test]
fn a_stale_stream_socket_file_is_replaced_too() {
    let sandbox = Sandbox::new();
    close(UnixListener::bind(sandbox.path("s")).unwrap());
    let running = sandbox.listen(["-n", "1", "s"]);
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    running.finish().succeeds("1\n");
}

#[test]
fn a_live_socket_is_not_replaced_without_replace() {
    let sandbox = Sandbox::new();
    let owner = sandbox.bind("s");
    sandbox
        .udgram(["recv", "s"])
        .run()
        .refuses(1, &["cannot bind 's'", "it is in use", "--peek"]);
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    assert_eq!(owner.take(), b"1");
    owner.has_nothing_more();
}

#[test]
fn a_live_stream_socket_is_not_replaced_without_replace() {
    let sandbox = Sandbox::new();
    let owner = UnixListener::bind(sandbox.path("s")).unwrap();
    sandbox.udgram(["recv", "s"]).run().fails(
        1,
        "udgram: cannot bind 's': it is a stream socket, not a datagram socket",
    );
    std::os::unix::net::UnixStream::connect(sandbox.path("s")).unwrap();
    drop(owner);
}

#[test]
fn a_name_in_use_is_reported_with_its_process() {
    let sandbox = Sandbox::new();
    let owner = sandbox.listen(["s"]);
    sandbox.udgram(["recv", "s"]).run().fails(
        1,
        format!(
            "udgram: cannot bind 's': it is in use by udgram (process {}) \
             (hint: to see what it is sent: udgram listen --peek s)",
            owner.pid()
        ),
    );
    let path = sandbox.path("n".repeat(120));
    let owner = sandbox.listen([&path]);
    sandbox
        .udgram(["recv", text(&path)])
        .run()
        .refuses(1, &[&format!("by udgram (process {})", owner.pid())]);
}

#[test]
fn a_socket_whose_process_is_not_visible_is_still_in_use() {
    root!();
    let sandbox = Sandbox::new();
    let _owner = sandbox.listen(["-m", "666", "s"]);
    sandbox.udgram_as(65534, ["recv", "s"]).run().fails(
        1,
        "udgram: cannot bind 's': it is in use (hint: to see what it is sent: udgram listen --peek s)",
    );
}

#[test]
fn a_socket_file_that_may_not_be_tested_is_left_alone() {
    root!();
    let sandbox = Sandbox::new();
    sandbox.stale("s");
    let inode = fs::metadata(sandbox.path("s")).unwrap().ino();
    fs::set_permissions(sandbox.path("s"), fs::Permissions::from_mode(0o600)).unwrap();
    sandbox.udgram_as(65534, ["recv", "s"]).run().fails(
        1,
        "udgram: cannot bind 's': a socket file exists and you may not test whether it is in use \
         (hint: --replace takes the name from it)",
    );
    assert_eq!(fs::metadata(sandbox.path("s")).unwrap().ino(), inode);
}

#[test]
fn a_live_socket_connected_to_another_socket_is_not_stale() {
    let sandbox = Sandbox::new();
    let other = sandbox.bind("other");
    let owner = sandbox.bind("s");
    owner.connect(sandbox.path("other")).unwrap();
    sandbox
        .udgram(["recv", "s"])
        .run()
        .refuses(1, &["cannot bind 's'", "it is in use", "--peek"]);
    owner.send(b"1").unwrap();
    assert_eq!(other.take(), b"1");
}

#[test]
fn a_live_socket_is_replaced_with_replace() {
    let sandbox = Sandbox::new();
    let before = sandbox.bind("s");
    let inode = fs::metadata(sandbox.path("s")).unwrap().ino();
    let running = sandbox.udgram(["recv", "--replace", "s"]).start();
    running.wait_until("s", || {
        fs::metadata(sandbox.path("s")).is_ok_and(|file| file.ino() != inode)
    });
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    running.finish().succeeds("1\n");
    before.has_nothing_more();
    assert!(!sandbox.exists("s"));
}

#[test]
fn a_file_that_is_not_a_socket_is_never_replaced() {
    let sandbox = Sandbox::new();
    sandbox.file("file", "precious");
    sandbox.directory("dir");
    nix::unistd::mkfifo(&sandbox.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("file", sandbox.path("link")).unwrap();
    for name in ["file", "dir", "fifo", "link"] {
        for options in [&["recv", name][..], &["recv", "--replace", name]] {
            sandbox
                .udgram(options)
                .run()
                .refuses(1, &[&format!("'{name}'")]);
        }
    }
    assert_eq!(fs::read(sandbox.path("file")).unwrap(), b"precious");
    assert!(fs::metadata(sandbox.path("dir")).unwrap().is_dir());
    assert!(
        fs::metadata(sandbox.path("fifo"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert!(
        fs::symlink_metadata(sandbox.path("link"))
            .unwrap()
            .is_symlink()
    );
}

#[test]
fn the_local_address_of_send_is_not_taken_from_a_live_socket() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("peer");
    let owner = sandbox.bind("me");
    sandbox
        .udgram(["send", "--bind", "me", "peer", "1"])
        .run()
        .refuses(1, &["cannot bind 'me'", "it is in use", "--peek"]);
    peer.has_nothing_more();
    close(owner);
    sandbox
        .udgram(["send", "--bind", "me", "peer", "1"])
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"1");
}

#[test]
fn a_live_abstract_name_is_never_taken() {
    let sandbox = Sandbox::new();
    let name = sandbox.unique();
    let _owner = bind_abstract(&name);
    let address = format!("@{name}");
    sandbox.udgram(["recv", &address]).run().fails(1, format!("udgram: cannot bind '{address}': Address already in use (hint: another socket has this abstract name)"));
}

#[test]
fn a_socket_file_is_stale_only_when_it_is_old_enough() {
    let sandbox = Sandbox::new();
    // bind(2) makes the file a moment before the socket answers there.
    let stale = fs::metadata(sandbox.stale("s")).unwrap();
    let _listen = sandbox.listen(["s"]);
    let new = fs::metadata(sandbox.path("s")).unwrap();
    let time = |file: &fs::Metadata| file.ctime() * 1_000_000_000 + file.ctime_nsec();
    // Times of files are those of the last tick of the clock, up to 10 ms earlier.
    assert!(time(&new) - time(&stale) >= 90_000_000);
}

/// The system calls of `udgram recv -t 0 s`, by strace, while the directory is locked by others.
fn calls_in_a_locked_directory(sandbox: &Sandbox) -> Vec<String> {
    let directory = fs::File::open(sandbox.dir()).unwrap();
    let _lock = Flock::lock(directory, FlockArg::LockExclusive).unwrap();
    sandbox
        .shell("exec strace -o trace -e trace=bind,flock udgram recv -t 0 s")
        .run()
        .refuses(124, &["no packet"]);
    assert!(!sandbox.exists("s"));
    let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
    let calls = trace
        .lines()
        .filter_map(|line| line.split('(').next())
        .filter(|call| ["bind", "flock"].contains(call));
    calls.map(str::to_owned).collect()
}

#[test]
fn a_lock_of_another_process_on_the_directory_delays_binding_only_briefly() {
    peer!("strace");
    let sandbox = Sandbox::new();
    let calls = calls_in_a_locked_directory(&sandbox);
    assert_eq!(calls.first().map(String::as_str), Some("bind"), "{calls:?}");
    // One attempt each millisecond or less often, for a tenth of a second.
    assert!(calls[1..].iter().all(|call| call == "flock"), "{calls:?}");
    assert!((1..=102).contains(&(calls.len() - 1)), "{}", calls.len());
}

#[test]
fn a_lock_of_another_process_on_the_directory_is_waited_for_a_tenth_of_a_second() {
    peer!("strace");
    let sandbox = Sandbox::new();
    let directory = fs::File::open(sandbox.dir()).unwrap();
    let _lock = Flock::lock(directory, FlockArg::LockExclusive).unwrap();
    sandbox
        .shell("exec strace -ttt -o trace -e trace=openat,renameat2 udgram recv -t 0 s")
        .run()
        .refuses(124, &["no packet"]);
    let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
    // From the open(2) of the directory, which is locked, to the removal of the file.
    let time = |call: &str| -> f64 {
        let line = trace.lines().find(|line| line.contains(call)).unwrap();
        line.split(' ').next().unwrap().parse().unwrap()
    };
    let waited = time("renameat2(") - time(", \".\", O_RDONLY");
    assert!(waited >= 0.099_999, "{trace}");
}

#[test]
fn a_lock_of_another_process_on_the_directory_does_not_protect_a_stale_file() {
    peer!("strace");
    let sandbox = Sandbox::new();
    sandbox.stale("s");
    let calls = calls_in_a_locked_directory(&sandbox);
    let locked = calls.iter().filter(|call| *call == "flock").count();
    assert!((2..=204).contains(&locked), "{locked}");
}

#[test]
fn the_age_of_a_stale_file_is_waited_for_before_the_directory_is_locked() {
    peer!("strace");
    let sandbox = Sandbox::new();
    sandbox.stale("s");
    sandbox
        .shell("exec strace -o trace -e trace=connect,flock udgram recv -t 0 s")
        .run()
        .refuses(124, &["no packet"]);
    let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
    let first = trace.lines().find_map(|line| line.split('(').next());
    assert_eq!(first, Some("connect"), "{trace}");
    assert!(trace.contains("flock("), "{trace}");
}

/// Returns the number of hidden files of udgram.
fn hidden(sandbox: &Sandbox) -> usize {
    let files = fs::read_dir(sandbox.dir()).unwrap();
    files
        .filter(|file| {
            let name = file.as_ref().unwrap().file_name();
            text(name.as_ref()).starts_with(".udgram-")
        })
        .count()
}

#[test]
fn a_long_file_name_leaves_no_hidden_file_behind_once_it_is_bound_again() {
    let sandbox = Sandbox::new();
    let long = "n".repeat(120);
    // A path of more than 107 bytes, to a file that a shorter one leads to as well.
    let name = "n".repeat(90);
    let roundabout = format!("{}{}/{name}", text(sandbox.dir()), "/.".repeat(10));
    for (killed, next) in [(&*long, &*long), (&*roundabout, &*name)] {
        let listen = sandbox.listen([killed]);
        assert_eq!(hidden(&sandbox), 1);
        listen.signal(Signal::SIGKILL);
        let _ = listen.finish();
        assert_eq!(hidden(&sandbox), 1);
        sandbox
            .udgram(["recv", "-t", "0", next])
            .run()
            .refuses(124, &[]);
        assert_eq!(hidden(&sandbox), 0, "{next}");
        assert!(!sandbox.exists(next));
    }
}

/// Returns the hidden name of a file, with the FNV-1a hash of its name, by which each version finds the file that
/// another one has left.
fn hidden_name(name: &str) -> String {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    let hash = name.bytes().fold(start, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!(".udgram-{hash:016x}")
}

#[test]
fn the_name_of_a_hidden_file_depends_on_that_of_the_socket_file_alone() {
    for name in ["n".repeat(120), "m".repeat(120)] {
        let sandbox = Sandbox::new();
        let _listen = sandbox.listen([&name]);
        assert!(sandbox.exists(&hidden_name(&name)), "{name}");
        assert_eq!(hidden(&sandbox), 1);
    }
}

#[test]
fn another_file_of_a_hidden_name_is_an_obstacle_to_long_names_only() {
    let sandbox = Sandbox::new();
    let file = sandbox.file(&hidden_name("s"), "");
    sandbox.stale("s");
    sandbox.udgram(["recv", "-t", "0", "s"]).run().fails(
        124,
        "udgram: cannot receive on 's': no packet came within 0s",
    );
    assert!(file.exists() && !sandbox.exists("s"));
    let long = "n".repeat(120);
    let file = sandbox.file(&hidden_name(&long), "");
    sandbox.udgram(["recv", "-t", "0", &long]).run().fails(
        1,
        format!(
            "udgram: cannot bind '{long}': a regular file is there, not a socket, and is never replaced"
        ),
    );
    assert!(file.exists());
}

#[test]
fn a_hidden_file_without_a_socket_file_is_removed_too() {
    let sandbox = Sandbox::new();
    let long = "n".repeat(120);
    let name = "n".repeat(90);
    let roundabout = format!("{}{}/{name}", text(sandbox.dir()), "/.".repeat(10));
    for (killed, next) in [(&*long, &*long), (&*roundabout, &*name)] {
        let listen = sandbox.listen([killed]);
        listen.signal(Signal::SIGKILL);
        let _ = listen.finish();
        fs::remove_file(sandbox.path(next)).unwrap();
        assert_eq!(hidden(&sandbox), 1);
        let listen = sandbox.listen([next]);
        sandbox.udgram(["send", next, "1"]).run().succeeds("");
        listen.signal(Signal::SIGTERM);
        let _ = listen.finish().dies_of(Signal::SIGTERM, "1\n");
        assert_eq!(hidden(&sandbox), 0);
        assert!(!sandbox.exists(next));
    }
}

#[test]
fn a_live_socket_with_a_long_file_name_is_replaced_only_with_replace() {
    let sandbox = Sandbox::new();
    let long = "n".repeat(120);
    let before = sandbox.listen([&long]);
    sandbox
        .udgram(["recv", &long])
        .run()
        .refuses(1, &["it is in use"]);
    let listen = sandbox.listen(["--replace", &long]);
    before.signal(Signal::SIGTERM);
    let _ = before.finish();
    sandbox.udgram(["send", &long, "1"]).run().succeeds("");
    listen.signal(Signal::SIGTERM);
    let _ = listen.finish().dies_of(Signal::SIGTERM, "1\n");
    assert_eq!(hidden(&sandbox), 0);
}

#[test]
fn a_file_system_that_may_take_no_sockets_is_named_as_a_guess() {
    peer!("strace");
    let sandbox = Sandbox::new();
    for (errno, message) in [
        (
            "EPERM",
            "Operation not permitted (hint: the file system may not support sockets, \
             or a sandbox or a security module may forbid it)",
        ),
        (
            "EOPNOTSUPP",
            "Operation not supported on transport endpoint \
             (hint: the file system may not support sockets)",
        ),
    ] {
        let inject = format!("inject=bind:error={errno}");
        let script = format!("exec strace -o trace -e {inject} udgram recv s");
        let message = format!("udgram: cannot bind 's': {message}");
        sandbox.shell(&script).run().fails(1, message);
    }
}
