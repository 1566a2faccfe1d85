//! The program and a second implementation in Python, tests/oracle/reference.py, agree on what is sent and
//! printed and on the exit status.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use data_encoding::BASE64;
use serde_json::Value;

use crate::forking::spawn;
use crate::harness::{Sandbox, installed, limited};

/// Returns the byte string that is in base64 in the case.
fn bytes(value: &Value) -> Vec<u8> {
    BASE64.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn all_bytes(value: &Value) -> Vec<Vec<u8>> {
    value.as_array().unwrap().iter().map(bytes).collect()
}

/// Removes each part of `text` from `start` to the next `end`, and keeps `end`.
fn without(text: &[u8], start: &[u8], end: &[u8]) -> Vec<u8> {
    let find = |text: &[u8], part: &[u8]| text.windows(part.len()).position(|found| found == part);
    let (mut kept, mut rest) = (Vec::new(), text);
    while let Some(at) = find(rest, start) {
        kept.extend_from_slice(&rest[..at]);
        rest = &rest[at + start.len()..];
        rest = &rest[find(rest, end).unwrap()..];
    }
    kept.extend_from_slice(rest);
    kept
}

/// Removes what the reference does not know: the time of arrival, and the words of a message.
fn comparable(stdout: &[u8]) -> Vec<u8> {
    let timeless = without(stdout, b"\"time\":", b"\"from\"");
    without(&timeless, b",\"message\":", b"},\"raw\"")
}

/// Runs udgram on a case. Returns what differs, as text.
fn difference(sandbox: &Sandbox, case: &Value) -> Option<String> {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let ours = limited(ours);
    for datagram in all_bytes(&case["queue"]) {
        ours.send(&datagram).unwrap();
    }
    let words = case["command"].as_array().unwrap();
    let words = words.iter().map(|word| word.as_str().unwrap().to_owned());
    let packets = all_bytes(&case["packets"]);
    let mut invocation = sandbox
        .udgram(words)
        .args(["-s", "5"])
        .descriptor(&theirs, 5)
        .stdin(bytes(&case["stdin"]));
    if !packets.is_empty() {
        invocation = invocation.arg("--");
        for packet in &packets {
            invocation = invocation.arg(OsStr::from_bytes(packet));
        }
    }
    let outcome = invocation.run();
    ours.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    let mut sent = Vec::new();
    while let Ok(size) = ours.recv(&mut buffer) {
        sent.push(buffer[..size].to_vec());
    }
    let status = outcome.code().unwrap_or(-1);
    let stdout = comparable(outcome.stdout());
    let wanted = (
        case["status"].as_i64().unwrap(),
        bytes(&case["stdout"]),
        all_bytes(&case["sent"]),
    );
    let same = wanted.0 == i64::from(status) && wanted.1 == stdout && wanted.2 == sent;
    (!same).then(|| {
        let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let all = |list: &[Vec<u8>]| list.iter().map(|bytes| show(bytes)).collect::<Vec<_>>();
        format!(
            "{} {:?}, stdin {:?}, queue {:?}\n  udgram: {status} {:?} {:?}\n  reference: {} {:?} {:?}\n",
            case["command"],
            all(&packets),
            show(&bytes(&case["stdin"])),
            all(&all_bytes(&case["queue"])),
            show(&stdout),
            all(&sent),
            wanted.0,
            show(&wanted.1),
            all(&wanted.2),
        )
    })
}

#[test]
fn udgram_does_what_a_second_implementation_computes() {
    if !installed("python3") {
        return;
    }
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/reference.py");
    let number = std::env::var("UDGRAM_ORACLE").unwrap_or_else(|_| "1 300".to_owned());
    // Started as other programs are, so that it does not keep copies of other tests' descriptors.
    let mut python = Command::new("python3");
    python.arg(reference).args(number.split(' '));
    let python = spawn(python.stdout(Stdio::piped())).unwrap();
    let cases = python.wait_with_output().unwrap();
    assert!(cases.status.success(), "{cases:?}");
    let sandbox = Sandbox::new();
    let cases = String::from_utf8(cases.stdout).unwrap();
    let differences: Vec<_> = cases
        .lines()
        .filter_map(|line| difference(&sandbox, &serde_json::from_str(line).unwrap()))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
