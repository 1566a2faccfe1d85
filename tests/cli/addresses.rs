//! Pathnames, abstract names and unnamed sockets, as they are written and as they are printed.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::harness::{Peer, Sandbox, at, bind_abstract, bytes_path, limited, root, text, timeless};

use crate::sys;

#[test]
fn a_pathname_may_be_absolute_or_relative() {
    let sandbox = Sandbox::new();
    sandbox.directory("dir");
    for (bound, written) in [
        ("a", text(&sandbox.path("a"))),
        ("b", "b"),
        ("c", "./c"),
        ("dir/d", "dir/d"),
        ("e", "dir/../e"),
        ("f", "//proc/self/cwd/f"),
    ] {
        let peer = sandbox.bind(bound);
        sandbox.udgram(["send", written, "1"]).run().succeeds("");
        assert_eq!(peer.take(), b"1", "sent to {written}");
    }
}

#[test]
fn a_pathname_may_hold_any_byte_but_nul() {
    let sandbox = Sandbox::new();
    for name in [
        &b"a b"[..],
        b"new\nline",
        b"\\x41",
        b"\xff\xfe",
        "h\u{e9}".as_bytes(),
        b"-x",
    ] {
        let name = bytes_path(name);
        let peer = sandbox.bind(&name);
        sandbox
            .udgram(["send", "-p", "text", "--"])
            .arg(&name)
            .arg("x")
            .run()
            .succeeds("");
        assert_eq!(peer.take(), b"x", "sent to {name:?}");
    }
}

#[test]
fn an_at_sign_makes_an_abstract_name() {
    let sandbox = Sandbox::new();
    let name = sandbox.unique();
    let peer = bind_abstract(&name);
    sandbox.udgram(["send", &at(&name), "1"]).run().succeeds("");
    assert_eq!(peer.take(), b"1");
}

#[test]
fn an_at_sign_after_a_slash_is_part_of_a_pathname() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("@name");
    sandbox.udgram(["send", "./@name", "1"]).run().succeeds("");
    assert_eq!(peer.take(), b"1");
}

#[test]
fn escapes_in_an_abstract_name_stand_for_any_byte() {
    let sandbox = Sandbox::new();
    let unique = sandbox.unique();
    for (written, bytes) in [
        (r"\\", &b"\\"[..]),
        (r"\0", b"\0"),
        (r"\x00\x7f\xff", b"\0\x7f\xff"),
        (r"\xAb", b"\xab"),
        ("/not/a/path", b"/not/a/path"),
        ("\u{e9} @", "\u{e9} @".as_bytes()),
    ] {
        let peer = bind_abstract([unique.as_bytes(), bytes].concat());
        let address = format!("@{unique}{written}");
        sandbox.udgram(["send", &address, "1"]).run().succeeds("");
        assert_eq!(peer.take(), b"1", "sent to {address}");
    }
}

#[test]
fn an_abstract_name_padded_with_nuls_is_another_name() {
    let sandbox = Sandbox::new();
    let name = sandbox.unique();
    let mut bytes = name.clone().into_bytes();
    bytes.resize(107, 0);
    let padded = bind_abstract(&bytes);
    let plain = bind_abstract(&name);
    let address = format!("@{name}{}", r"\0".repeat(107 - name.len()));
    sandbox.udgram(["send", &address, "1"]).run().succeeds("");
    assert_eq!(padded.take(), b"1");
    plain.has_nothing_more();
}

#[test]
fn an_abstract_name_has_at_most_107_bytes() {
    let sandbox = Sandbox::new();
    let name = "n".repeat(108);
    sandbox
        .udgram(["send", &at(&name), "1"])
        .run()
        .refuses(2, &["107"]);
    sandbox
        .udgram(["recv", &at(&name)])
        .run()
        .refuses(2, &["107"]);
}

#[test]
fn an_unknown_escape_is_a_usage_error() {
    let sandbox = Sandbox::new();
    for name in [r"@a\q", r"@a\", r"@a\x4", r"@a\xzz"] {
        sandbox
            .udgram(["send", name, "1"])
            .run()
            .refuses(2, &["\\"]);
    }
}

#[test]
fn an_empty_address_is_a_usage_error() {
    let sandbox = Sandbox::new();
    sandbox
        .udgram(["send", "", "1"])
        .run()
        .refuses(2, &["address"]);
    sandbox.udgram(["recv", ""]).run().refuses(2, &["address"]);
}

#[test]
fn a_relative_pathname_is_bound_by_its_absolute_form() {
    let sandbox = Sandbox::new();
    sandbox.directory("dir");
    for (written, bound) in [
        ("relative", "relative"),
        ("./dotted", "dotted"),
        (".//dir/./deep", "dir/deep"),
        ("dir/../up", "dir/../up"),
        ("./@not-abstract", "@not-abstract"),
    ] {
        let printed = printed_sender(&sandbox, Path::new(written));
        let absolute = format!("{}/{bound}", text(sandbox.dir()));
        assert_eq!(printed, serde_json::to_string(&absolute).unwrap());
    }
}

#[test]
fn a_relative_pathname_can_be_answered_from_another_directory() {
    let sandbox = Sandbox::new();
    sandbox.directory("dir");
    let _listen = sandbox.listen(["--echo", "s"]);
    sandbox
        .shell("cd dir && exec udgram send --reply -t 100s --bind me ../s 1")
        .run()
        .succeeds("1\n");
    assert!(!sandbox.exists("dir/me"));
}

#[test]
fn a_relative_pathname_too_long_in_its_absolute_form_is_bound_as_written() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("peer");
    let deep = sandbox.long_path("me");
    let script = format!(
        "cd {} && exec udgram send --bind me {} 1",
        text(deep.parent().unwrap()),
        text(&sandbox.path("peer"))
    );
    sandbox.shell(&script).run().succeeds("");
    let (_, from) = peer.take_from();
    assert_eq!(from.as_pathname(), Some(Path::new("me")));
}

#[test]
fn a_relative_pathname_whose_absolute_form_leads_elsewhere_is_bound_as_written() {
    root!();
    let sandbox = Sandbox::new();
    sandbox.directory("dir");
    let peer = sandbox.bind("peer");
    let script = "cd dir && mount -t tmpfs none \"$PWD\" && exec udgram send --bind me ../peer 1";
    sandbox
        .command("unshare", ["-m", "sh", "-c", script])
        .run()
        .succeeds("");
    let (_, from) = peer.take_from();
    assert_eq!(from.as_pathname(), Some(Path::new("me")));
    assert!(!sandbox.exists("dir/me"));
}

/// Sends from `written` and returns what the receiver prints as `from`, in JSON.
#[track_caller]
fn printed_sender(sandbox: &Sandbox, written: &Path) -> String {
    let name = format!("printer-{}", sys::counter());
    let receiver = sandbox.udgram(["recv", "--envelope", &name]).start();
    receiver.wait_bound(&name);
    sandbox
        .udgram(["send", "--bind"])
        .arg(written)
        .args([&name, "1"])
        .run()
        .succeeds("");
    let line = timeless(&receiver.finish().one_line());
    line.strip_prefix("{\"from\":")
        .and_then(|rest| rest.strip_suffix(",\"size\":1,\"packet\":1}"))
        .unwrap_or_else(|| panic!("an unexpected envelope: {line}"))
        .to_owned()
}

#[test]
fn a_sender_is_printed_in_the_form_of_an_argument() {
    let sandbox = Sandbox::new();
    let unique = sandbox.unique();
    for address in [
        text(&sandbox.path("absolute")).to_owned(),
        format!("@{unique}"),
        format!(r"@{unique}\\"),
        format!(r"@{unique}\0\0x"),
        format!(r"@{unique}\xff"),
    ] {
        let json = serde_json::to_string(&address).unwrap();
        assert_eq!(printed_sender(&sandbox, Path::new(&address)), json);
    }
}

#[test]
fn control_characters_of_an_abstract_name_survive_being_printed_and_pasted() {
    let sandbox = Sandbox::new();
    let unique = sandbox.unique();
    let printed = printed_sender(&sandbox, Path::new(&format!(r"@{unique}\x01\x1b\x0a\x7f")));
    let pasted: String = serde_json::from_str(&printed).unwrap();
    let peer = bind_abstract([unique.as_bytes(), b"\x01\x1b\n\x7f"].concat());
    sandbox.udgram(["send", &pasted, "1"]).run().succeeds("");
    assert_eq!(peer.take(), b"1");
}

#[test]
fn an_unnamed_sender_is_null() {
    let sandbox = Sandbox::new();
    assert_eq!(printed_sender(&sandbox, Path::new("")), "null");
}

#[test]
fn a_pathname_that_is_not_utf8_is_printed_with_its_bytes_beside_it() {
    let sandbox = Sandbox::new();
    assert_eq!(
        printed_sender(&sandbox, &bytes_path(b"caf\xe9")),
        format!(
            "\"{}/caf\u{fffd}\",\"from_raw\":\"{}\"",
            text(sandbox.dir()),
            data_encoding::BASE64
                .encode(&[sandbox.dir().as_os_str().as_bytes(), b"/caf\xe9"].concat())
        )
    );
}

#[test]
fn an_autobound_sender_can_be_pasted_back() {
    let sandbox = Sandbox::new();
    let (sender, name) = sys::autobound();
    let receiver = sandbox.udgram(["recv", "-e", "r"]).start();
    receiver.wait_bound("r");
    sender.send_to(b"1", sandbox.path("r")).unwrap();
    let address = at(std::str::from_utf8(&name).unwrap());
    assert_eq!(
        timeless(&receiver.finish().one_line()),
        format!("{{\"from\":\"{address}\",\"size\":1,\"packet\":1}}")
    );
    sandbox.udgram(["send", &address, "2"]).run().succeeds("");
    assert_eq!(sender.take(), b"2");
}

#[test]
fn a_pathname_too_long_for_the_kernel_can_be_sent_to() {
    let sandbox = Sandbox::new();
    let path = sandbox.long_path("s");
    let parent = File::open(path.parent().unwrap()).unwrap();
    let short = format!("/proc/self/fd/{}/s", parent.as_raw_fd());
    let peer = limited(UnixDatagram::bind(short).unwrap());
    sandbox
        .udgram(["send", text(&path), "1"])
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"1");
    let relative = path.strip_prefix(sandbox.dir()).unwrap();
    sandbox
        .udgram(["send", text(relative), "2"])
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"2");
}

#[test]
fn a_pathname_too_long_for_the_kernel_can_be_bound_and_is_removed() {
    let sandbox = Sandbox::new();
    let path = sandbox.long_path("s");
    let receiver = sandbox.udgram(["recv", text(&path)]).start();
    receiver.wait_bound(&path);
    sandbox
        .udgram(["send", text(&path), "1"])
        .run()
        .succeeds("");
    receiver.finish().succeeds("1\n");
    assert_eq!(
        std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
        0
    );
}

#[test]
fn a_peer_can_answer_a_pathname_too_long_for_the_kernel() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("peer");
    let path = sandbox.long_path("me");
    let running = sandbox
        .udgram(["send", "--reply", "--bind", text(&path), "peer", "1"])
        .start();
    let (bytes, from) = peer.take_from();
    assert_eq!(bytes, b"1");
    peer.send_to_addr(b"2", &from).unwrap();
    running.finish().succeeds("2\n");
}

#[test]
fn a_peer_can_answer_a_file_name_too_long_for_the_kernel() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("peer");
    let running = sandbox
        .udgram(["send", "--reply", "--bind", &"n".repeat(120), "peer", "1"])
        .start();
    let (bytes, from) = peer.take_from();
    assert_eq!(bytes, b"1");
    peer.send_to_addr(b"2", &from).unwrap();
    running.finish().succeeds("2\n");
    assert_eq!(std::fs::read_dir(sandbox.dir()).unwrap().count(), 1);
}

#[test]
fn a_name_of_107_bytes_works_both_ways() {
    let sandbox = Sandbox::new();
    let peer = sandbox.bind("peer");
    let name = "n".repeat(107 - sandbox.dir().as_os_str().len() - 1);
    let path = sandbox.path(&name);
    let running = sandbox
        .udgram(["send", "--reply", "--bind", text(&path), "peer", "1"])
        .start();
    let (_, from) = peer.take_from();
    assert_eq!(from.as_pathname(), Some(path.as_path()));
    peer.send_to(b"2", &path).unwrap();
    running.finish().succeeds("2\n");
    let owner = sandbox.bind(&name);
    sandbox
        .udgram(["send", text(&path), "3"])
        .run()
        .succeeds("");
    assert_eq!(owner.take(), b"3");
}

#[test]
fn a_name_of_108_bytes_without_a_final_nul_works_both_ways() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("n".repeat(108 - sandbox.dir().as_os_str().len() - 1));
    let peer = limited(UnixDatagram::unbound().unwrap());
    sys::bind_unterminated(&peer, &path);
    let receiver = sandbox.udgram(["recv", "--envelope", "r"]).start();
    receiver.wait_bound("r");
    peer.send_to(b"1", sandbox.path("r")).unwrap();
    let from = serde_json::to_string(text(&path)).unwrap();
    assert_eq!(
        timeless(&receiver.finish().one_line()),
        format!("{{\"from\":{from},\"size\":1,\"packet\":1}}")
    );
    sandbox
        .udgram(["send", text(&path), "2"])
        .run()
        .succeeds("");
    assert_eq!(peer.take(), b"2");
}
