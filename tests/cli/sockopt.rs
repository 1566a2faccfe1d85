//! `udgram sockopt`: the options of a socket, shown and set.

use std::os::unix::net::UnixDatagram;

use nix::sys::socket::{getsockopt, sockopt};
use serde_json::Value;

use crate::harness::{Sandbox, limited, peer, root};

#[test]
fn every_option_is_listed_in_one_object() {
    let sandbox = Sandbox::new();
    let line = sandbox.udgram(["sockopt"]).run().one_line();
    let listing: Value = serde_json::from_str(&line).unwrap();
    let text = listing.to_string();
    for name in [
        "SO_SNDBUF",
        "SO_RCVBUF",
        "SO_PASSCRED",
        "SO_TIMESTAMP",
        "SO_TIMESTAMPNS",
        "SO_SNDTIMEO",
        "SO_RCVTIMEO",
        "SO_PEEK_OFF",
        "SO_PRIORITY",
        "SO_LINGER",
        "SO_DEBUG",
        "SO_BROADCAST",
        "SO_MARK",
        "SO_TYPE",
        "SO_DOMAIN",
        "SO_PROTOCOL",
        "SO_ACCEPTCONN",
        "SO_ERROR",
        "SO_MEMINFO",
        "SO_COOKIE",
        "SO_PASSSEC",
    ] {
        assert!(
            text.contains(&format!("\"{name}\"")),
            "{name} is missing in {line}"
        );
    }
}

#[test]
fn the_value_of_one_option_is_printed_alone() {
    let sandbox = Sandbox::new();
    let (_ours, theirs) = UnixDatagram::pair().unwrap();
    let size = getsockopt(&theirs, sockopt::SndBuf).unwrap();
    for name in ["SO_SNDBUF", "so_sndbuf", "sndbuf", "SNDBUF", "1:7"] {
        sandbox
            .udgram(["sockopt", "--socket-fd", "5", name])
            .descriptor(&theirs, 5)
            .run()
            .succeeds(format!("{size}\n"));
    }
}

#[test]
fn a_value_is_set_and_what_the_kernel_made_of_it_is_printed() {
    let sandbox = Sandbox::new();
    let (_ours, theirs) = UnixDatagram::pair().unwrap();
    let set = |option: &str| {
        sandbox
            .udgram(["sockopt", "-s", "5", option])
            .descriptor(&theirs, 5)
            .run()
    };
    // The kernel doubles the sizes of buffers, for its own bookkeeping.
    assert_eq!(set("SO_SNDBUF=10000").lines(), ["20000"]);
    assert_eq!(getsockopt(&theirs, sockopt::SndBuf).unwrap(), 20000);
    assert_eq!(set("rcvbuf=16KiB").lines(), ["32768"]);
    let _ = set("passcred=on").one_line();
    assert!(getsockopt(&theirs, sockopt::PassCred).unwrap());
    let _ = set("passcred=off").one_line();
    assert!(!getsockopt(&theirs, sockopt::PassCred).unwrap());
    let _ = set("rcvtimeo=1500ms").one_line();
    let timeout = theirs.read_timeout().unwrap().unwrap();
    assert_eq!(timeout.as_millis(), 1500);
    let _ = set("1:8=20000").one_line();
    assert_eq!(getsockopt(&theirs, sockopt::RcvBuf).unwrap(), 40000);
}

#[test]
fn a_value_of_each_kind_is_printed_as_it_is_given() {
    let sandbox = Sandbox::new();
    for (given, printed) in [
        ("broadcast=on", "on"),
        ("broadcast=off", "off"),
        ("priority=3", "3"),
        ("1:12=6", "6"),
        ("peek_off=-1", "-1"),
        ("timestamping=0x10", "16"),
        ("max_pacing_rate=5", "5"),
        ("max_pacing_rate=4294967294", "4294967294"),
        ("rcvtimeo=1500ms", "1s 500ms"),
        ("sndtimeo=1h", "1h"),
        ("linger=5s", "5s"),
        ("linger=0", "0s"),
        ("linger=off", "off"),
        // SO_TIMESTAMP_NEW and SO_RCVTIMEO_NEW are not in the table.
        ("1:63", "0"),
        ("1:63=1", "1"),
        ("1:66", "hex:00000000000000000000000000000000"),
    ] {
        sandbox
            .udgram(["sockopt", given])
            .run()
            .succeeds(format!("{printed}\n"));
    }
}

#[test]
fn a_socket_of_a_pair_knows_who_made_it() {
    let sandbox = Sandbox::new();
    let (one, _other) = UnixDatagram::pair().unwrap();
    let print = |option: &str| {
        sandbox
            .udgram(["sockopt", "-s", "5", option])
            .descriptor(&one, 5)
            .run()
    };
    let (pid, uid, gid) = (
        std::process::id(),
        nix::unistd::geteuid(),
        nix::unistd::getegid(),
    );
    print("peercred").succeeds(format!("{{\"pid\":{pid},\"uid\":{uid},\"gid\":{gid}}}\n"));
    // SO_PEERPIDFD is of Linux 6.5.
    let peer = print("peerpidfd");
    if peer.code() == Some(0) {
        peer.succeeds(format!("{pid}\n"));
    } else {
        peer.fails(
            1,
            "udgram: cannot get the socket option SO_PEERPIDFD: this kernel has no such option for \
             Unix datagram sockets",
        );
    }
}

#[test]
fn the_process_that_made_a_pair_has_no_number_in_another_pid_namespace() {
    root!();
    peer!("unshare");
    let sandbox = Sandbox::new();
    let (one, _other) = UnixDatagram::pair().unwrap();
    let command = ["-pf", "--mount-proc", "udgram", "sockopt", "-s", "5"];
    sandbox
        .command("unshare", command)
        .args(["peercred", "passcred"])
        .descriptor(&one, 5)
        .run()
        .succeeds("{\"SO_PEERCRED\":{\"pid\":null,\"uid\":0,\"gid\":0},\"SO_PASSCRED\":false}\n");
    let peer = sandbox
        .command("unshare", command)
        .arg("peerpidfd")
        .descriptor(&one, 5)
        .run();
    // SO_PEERPIDFD is of Linux 6.5.
    if peer.code() == Some(0) {
        peer.succeeds("none\n");
    }
}

#[test]
fn several_options_make_one_object() {
    let sandbox = Sandbox::new();
    let line = sandbox
        .udgram(["sockopt", "sndbuf=10000", "SO_DOMAIN"])
        .run()
        .one_line();
    let object: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(object["SO_SNDBUF"], 20000, "{line}");
    assert!(!object["SO_DOMAIN"].is_null(), "{line}");
}

#[test]
fn an_unknown_name_suggests_the_nearest() {
    let sandbox = Sandbox::new();
    sandbox
        .udgram(["sockopt", "SO_SNDBUFF"])
        .run()
        .refuses(2, &["SO_SNDBUFF", "SO_SNDBUF"]);
    sandbox
        .udgram(["sockopt", "pascred=1"])
        .run()
        .refuses(2, &["pascred", "SO_PASSCRED"]);
}

#[test]
fn an_unknown_name_that_is_unlike_every_other_suggests_none() {
    let sandbox = Sandbox::new();
    // Ten of 16 characters would have to be replaced.
    let name = "preferxxxxxxxxxx";
    sandbox.udgram(["sockopt", name]).run().fails(
        2,
        format!(
            "udgram: cannot use the socket option '{name}': there is no such option for Unix datagram \
             sockets (hint: an option that is not in the table is written LEVEL:NUMBER; try 'udgram \
             sockopt --help')"
        ),
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_a_usage_error() {
    let sandbox = Sandbox::new();
    for option in [
        "sndbuf=big",
        "passcred=perhaps",
        "rcvtimeo=later",
        "sndbuf=",
        "1:x=1",
        "x:1",
    ] {
        sandbox.udgram(["sockopt", option]).run().refuses(2, &[]);
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_answered_with_how_a_value_is_written() {
    let sandbox = Sandbox::new();
    let number = "a number such as 6 or 0x1f";
    for (option, value, written) in [
        ("passcred", "perhaps", "on or off"),
        ("priority", "high", number),
        ("mark", "-1", number),
        ("sndbuf", "big", "a size such as 65536, 64K, or 1MiB"),
        (
            "rcvtimeo",
            "later",
            "a duration such as 250ms, 1m 30s, 5 (seconds), or none",
        ),
        ("linger", "long", "off, or a duration such as 5s"),
        (
            "1:9999",
            "x",
            "a number such as 6 or 0x1f, or bytes such as hex:00ff",
        ),
    ] {
        let hint =
            format!("(hint: '{value}' is given; write {written}; try 'udgram sockopt --help')");
        sandbox
            .udgram(["sockopt", &format!("{option}={value}")])
            .run()
            .refuses(2, &["udgram: cannot set the socket option ", &hint]);
    }
}

#[test]
fn an_option_this_kernel_lacks_is_left_out_of_the_list_and_an_error_when_named() {
    let sandbox = Sandbox::new();
    sandbox
        .udgram(["sockopt", "1:9999"])
        .run()
        .refuses(1, &["1:9999", "this kernel has no such option"]);
}

#[test]
fn an_option_that_can_only_be_read_is_not_set() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.udgram(["sockopt", "SO_TYPE=1"]).run();
    assert!(matches!(outcome.code(), Some(1 | 2)));
    let lines = outcome.diagnostics();
    assert!(
        lines.len() == 1 && lines[0].contains("SO_TYPE"),
        "{lines:?}"
    );
}

#[test]
fn a_privileged_option_without_the_privilege_says_so() {
    root!();
    let sandbox = Sandbox::new();
    sandbox
        .udgram_as(65534, ["sockopt", "SO_SNDBUFFORCE=1000000"])
        .run()
        .fails(
            1,
            "udgram: cannot set the socket option SO_SNDBUFFORCE: Operation not permitted (hint: needs \
             CAP_NET_ADMIN)",
        );
}

#[test]
fn a_new_socket_is_bound_and_connected_on_demand() {
    let sandbox = Sandbox::new();
    let _peer = sandbox.bind("peer");
    let line = sandbox
        .udgram(["sockopt", "--bind", "me", "--connect", "peer"])
        .run()
        .one_line();
    assert!(line.contains("/me\"") && line.contains("peer"), "{line}");
    assert!(!sandbox.exists("me"));
}

#[test]
fn the_listing_of_a_sockets_queue_does_not_disturb_it() {
    use crate::harness::Peer;
    let sandbox = Sandbox::new();
    let socket = limited(sandbox.bind("s"));
    sandbox.udgram(["send", "s", "12345"]).run().succeeds("");
    let line = sandbox
        .udgram(["sockopt", "-s", "5"])
        .descriptor(&socket, 5)
        .run()
        .one_line();
    let _: Value = serde_json::from_str(&line).unwrap();
    assert!(
        line.contains(":5,") || line.contains(":5}"),
        "SIOCINQ is 5 in {line}"
    );
    assert_eq!(socket.take(), b"12345");
}
