//! A socket that is named by the address it is bound to: `--socket-fd ADDR` and `iter --peek ADDR`.

use std::fs;
use std::os::unix::net::UnixListener;

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use crate::harness::{Peer, Sandbox, bind_abstract, close, peer, root, text};
use crate::ls::holder;
use crate::sys;

#[test]
fn a_socket_is_named_by_its_address() {
    peer!("python3");
    let sandbox = Sandbox::new();
    let (owner, _) = holder(&sandbox, &[], "s");
    for packet in ["1", "2", "3", "4"] {
        sandbox.udgram(["send", "s", packet]).run().succeeds("");
    }
    let warning = format!(
        "udgram: warning: packets taken from the socket of process {} are gone for it; iter --peek and listen --peek leave them",
        owner.pid()
    );
    let path = sandbox.path("s");
    // A name without a letter or a mark in it is a number.
    for (command, address) in [("recv", "s"), ("iter", text(&path)), ("listen", "./s")] {
        sandbox
            .udgram([command, "-n", "1", "-s", address])
            .run()
            .ends(
                0,
                match command {
                    "recv" => "1\n",
                    "iter" => "2\n",
                    _ => "3\n",
                },
            )
            .says(&warning);
    }
    sandbox
        .udgram(["exec", "-s", "s", "--", "udgram", "iter", "--peek"])
        .run()
        .succeeds("4\n");
    owner.finish().succeeds("3\n");
}

#[test]
fn packets_are_sent_from_the_socket_that_is_bound_to_an_address() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("peer");
    let own = sandbox.bind("own");
    let name = sandbox.unique();
    let abstract_socket = bind_abstract(&name);
    sandbox
        .udgram(["send", "-s", "own", "--to", "peer", "1"])
        .run()
        .succeeds("");
    let (bytes, from) = peer.take_from();
    assert_eq!(
        (bytes.as_slice(), from.as_pathname()),
        (&b"1"[..], Some(sandbox.path("own").as_path()))
    );
    sandbox
        .udgram(["send", "-s", "own", "1"])
        .run()
        .refuses(2, &["not connected", "--to"]);
    abstract_socket.connect(sandbox.path("peer")).unwrap();
    let at = format!("@{name}");
    sandbox.udgram(["send", "-s", &at, "2"]).run().succeeds("");
    assert_eq!(peer.take(), b"2");
    close(own);
}

#[test]
fn a_receiver_of_one_peer_hears_nobody_else_after_a_copy_of_its_socket_found_the_peer_gone() {
    for count in [1, 2] {
        let sandbox = Sandbox::new();
        let peer = sandbox.bind("peer");
        let mut receiver = sandbox.listen(["--connect", "peer", "s"]);
        peer.send_to(b"1", sandbox.path("s")).unwrap();
        assert_eq!(receiver.line(), "1");
        close(peer);
        // The kernel forgets the peer.
        let outcome = sandbox.udgram(["send", "-s", "s", "2"]).run();
        assert_eq!(outcome.code(), Some(4), "{}", outcome.stderr_text());
        let stranger = sandbox.bind("stranger");
        for packet in &[b"3", b"4"][..count] {
            stranger.send_to(*packet, sandbox.path("s")).unwrap();
        }
        sys::wait_received(&stranger);
        receiver.signal(Signal::SIGTERM);
        let outcome = receiver.finish().dies_of(Signal::SIGTERM, "1\n");
        let mut said = vec![format!(
            "udgram: warning: dropped a packet from '{}', which is not the peer",
            text(&sandbox.path("stranger"))
        )];
        if count > 1 {
            said.push(format!(
                "udgram: warning: {count} packets of others than the peer were dropped"
            ));
        }
        assert_eq!(outcome.diagnostics(), said);
    }
}

#[test]
fn a_socket_that_is_connected_to_somebody_else_is_named_all_the_same() {
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("peer");
    let own = sandbox.bind("own");
    own.connect(sandbox.path("peer")).unwrap();
    let name = sandbox.unique();
    let abstract_socket = bind_abstract(&name);
    abstract_socket.connect(sandbox.path("peer")).unwrap();
    std::os::unix::fs::symlink("own", sandbox.path("link")).unwrap();
    fs::rename(sandbox.path("own"), sandbox.path("renamed")).unwrap();
    std::os::unix::fs::symlink("renamed", sandbox.path("own")).unwrap();
    let path = sandbox.path("peer");
    for address in ["renamed", "own", "link", &format!("@{name}")] {
        sandbox
            .udgram(["sockopt", "-s", address, "peer"])
            .run()
            .succeeds(format!("{}\n", path.display()));
    }
}

#[test]
fn the_queue_of_the_socket_at_an_address_is_looked_into() {
    let sandbox = Sandbox::new();
    let socket = sandbox.bind("s");
    setsockopt(&socket, sockopt::PassCred, &true).unwrap();
    sandbox.udgram(["send", "s", "1", "[2]"]).run().succeeds("");
    for _ in 0..2 {
        sandbox
            .udgram(["iter", "--peek", "s"])
            .run()
            .succeeds("1\n[2]\n");
    }
    sandbox
        .udgram(["sockopt", "-s", "./s", "queue"])
        .run()
        .succeeds("{\"inq\":1,\"outq\":0}\n");
    let path = sandbox.path("s");
    let both = sandbox.udgram(["sockopt", "-s", text(&path), "local", "PEER", "passcred"]);
    both.run().succeeds(format!(
        "{{\"local\":\"{}\",\"peer\":null,\"SO_PASSCRED\":true}}\n",
        path.display()
    ));
    let local = sandbox.udgram(["sockopt", "-s", "./s", "local"]).run();
    local.succeeds(format!("{}\n", path.display()));
    let peer = sandbox.udgram(["sockopt", "-s", "./s", "peer"]).run();
    peer.succeeds("null\n");
    sandbox.udgram(["sockopt", "-s", "./s", "queue=1"]).run().fails(
        2,
        "udgram: cannot set the socket option queue: it can only be read (hint: try 'udgram sockopt --help')",
    );
    assert_eq!([socket.take(), socket.take()], [&b"1"[..], b"[2]"]);
}

#[test]
fn of_two_sockets_under_one_name_it_is_the_one_that_the_path_leads_to() {
    let sandbox = Sandbox::new();
    let before = sandbox.bind("s");
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    fs::remove_file(sandbox.path("s")).unwrap();
    let _owner = sandbox.listen(["s"]);
    let peek = |option: &str| sandbox.udgram(["iter", option, "--peek", "s"]).run();
    peek("-q").succeeds("");
    let said = peek("-v").stderr_text();
    assert!(
        said.contains("another socket had the name 's' before"),
        "{said}"
    );
    assert_eq!(before.take(), b"1");
}

#[test]
fn an_earlier_socket_of_the_name_is_mentioned_on_request() {
    let sandbox = Sandbox::new();
    let mut holders = Vec::new();
    for (number, mentioned) in [
        (0, ""),
        (1, "another socket had the name 's' before"),
        (2, "2 other sockets had the name 's' before"),
    ] {
        holders.push(sandbox.bind("s"));
        let outcome = sandbox.udgram(["sockopt", "-v", "-s", "s", "type"]).run();
        assert_eq!(outcome.code(), Some(0));
        let said = outcome.stderr_text();
        let lines = said.lines().filter(|line| line.contains(" before"));
        let lines: Vec<&str> = lines.collect();
        assert_eq!(lines.len(), usize::from(number > 0), "{said}");
        assert!(said.contains(mentioned), "{said}");
        fs::remove_file(sandbox.path("s")).unwrap();
    }
}

#[test]
fn an_address_without_a_datagram_socket_says_what_is_there() {
    let sandbox = Sandbox::new();
    sandbox.stale("stale");
    let _stream = UnixListener::bind(sandbox.path("stream")).unwrap();
    sandbox.file("file", "");
    let sockopt = |address: &str| sandbox.udgram(["sockopt", "-s", address, "queue"]).run();
    sockopt("missing").fails(
        4,
        "udgram: cannot find the socket at 'missing': No such file or directory",
    );
    sockopt("stale").refuses(4, &["'stale'", "Connection refused", "stale"]);
    sockopt("file").refuses(1, &["'file'", "a regular file, not a socket"]);
    sockopt("stream").refuses(1, &["'stream'", "stream socket"]);
    sockopt("@").refuses(2, &["--socket-fd", "the abstract name is empty"]);
    let name = format!("@{}", sandbox.unique());
    sockopt(&name).refuses(4, &[&name]);
}

#[test]
fn a_socket_whose_processes_may_not_be_seen_says_which_permission_is_missing() {
    root!();
    let sandbox = Sandbox::new();
    let _owner = sandbox.listen(["-m", "666", "s"]);
    sandbox
        .udgram_as(65534, ["iter", "--peek", "s"])
        .run()
        .fails(
            1,
            "udgram: cannot find a process that holds 's': no process that may be traced holds it \
         (hint: tracing another user's processes needs CAP_SYS_PTRACE)",
        );
}

#[test]
fn a_socket_of_another_network_namespace_is_named_by_path_and_by_abstract_name() {
    root!();
    peer!("python3", "unshare");
    let sandbox = Sandbox::new();
    let at = format!("@{}", sandbox.unique());
    let (abstract_owner, _) = holder(&sandbox, &["unshare", "-n"], &at);
    let (path_owner, _) = holder(&sandbox, &["unshare", "-n"], "s");
    for address in [at.as_str(), "./s"] {
        let queue = sandbox.udgram(["sockopt", "-s", address, "queue"]).run();
        queue.succeeds("{\"inq\":0,\"outq\":0}\n");
    }
    // A second one of that name, in a third namespace.
    let (second_owner, _) = holder(&sandbox, &["unshare", "-n"], &at);
    sandbox.udgram(["sockopt", "-s", &at]).run().refuses(
        1,
        &[&at, "2 other network namespaces have a socket of this name"],
    );
    // One in this namespace goes before them.
    let _here = bind_abstract(sandbox.unique());
    let own = sandbox.udgram(["sockopt", "-v", "-s", &at, "queue"]).run();
    let said = own.stderr_text();
    assert!(
        said.contains(&format!("(process {})", std::process::id())),
        "{said}"
    );
    for owner in [abstract_owner, path_owner, second_owner] {
        owner.finish().succeeds("3\n");
    }
}

#[test]
fn of_several_holders_of_one_socket_any_will_do() {
    let sandbox = Sandbox::new();
    let socket = sandbox.bind("s");
    let holders: Vec<_> = (0..2)
        .map(|_| {
            let cat = sandbox.command("cat", [] as [&str; 0]).stdin_open();
            cat.descriptor(&socket, 8).start()
        })
        .collect();
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    close(socket);
    let peek = || sandbox.udgram(["iter", "--peek", "s"]).run();
    peek().succeeds("1\n");
    for holder in holders {
        peek().succeeds("1\n");
        holder.finish().succeeds("");
    }
    let gone = peek();
    gone.refuses(4, &["'s'", "Connection refused"]);
}

#[test]
fn what_is_sent_to_a_socket_is_observed_under_its_address() {
    root!();
    let sandbox = Sandbox::new();
    let socket = sandbox.bind("s");
    let peek = ["listen", "--peek", "-n", "1", "-s", "./s"];
    let mut running = sandbox.udgram(peek).start_ready();
    sandbox.udgram(["send", "s", "1"]).run().succeeds("");
    assert_eq!(running.line(), "1");
    running.finish().succeeds("1\n");
    assert_eq!(socket.take(), b"1");
}
