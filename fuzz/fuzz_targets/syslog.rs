//! Fuzzes log messages in both directions: a message that is read, from a datagram or from JSON, and can be sent is
//! then read as the same message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use udgram::protocol::{DatagramProtocol, Json, Syslog, SyslogMessage};

/// Checks that a message survives as JSON, and as a datagram if a form carries it. Returns whether one does.
fn check(message: &SyslogMessage) -> bool {
    let json = message.to_json();
    assert_eq!(Json.make_datagram(&json).expect("JSON"), json.as_bytes());
    let again = SyslogMessage::from_json(&json).expect("its own form");
    assert_eq!(again.to_json(), json);
    let Ok(datagram) = Syslog.make_datagram(message) else {
        return false;
    };
    let mut read = Syslog.build_packet(&datagram).expect("its own form");
    let text = read.message.len();
    // NULs and line breaks at the end are not sent.
    assert!(message.message[text..].iter().all(|byte| b"\0\n".contains(byte)));
    read.message.extend_from_slice(&message.message[text..]);
    assert_eq!(&read, message);
    true
}

fuzz_target!(|bytes: &[u8]| {
    match Syslog.build_packet(bytes) {
        // RFC 5424 has no time of RFC 3164, and RFC 3164 no way to quote what looks like a name.
        Ok(message) => assert!(check(&message), "{}", message.to_json()),
        Err(error) => assert!(error.offset() <= bytes.len()),
    }
    let Ok(written) = std::str::from_utf8(bytes) else {
        return;
    };
    match SyslogMessage::from_json(written) {
        Ok(message) => {
            check(&message);
        }
        Err(error) => assert!(error.offset() <= bytes.len()),
    }
});
