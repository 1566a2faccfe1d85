//! Fuzzes JSON: the parser accepts what serde_json accepts, and the packet is the same JSON on one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use udgram::protocol::{DatagramProtocol, Json};

fuzz_target!(|datagram: &[u8]| {
    let reference = serde_json::from_slice::<IgnoredAny>(datagram).is_ok()
        && std::str::from_utf8(datagram).is_ok();
    match Json.build_packet(datagram) {
        Ok(packet) => {
            assert!(reference);
            assert!(!packet.contains(['\n', '\r']));
            let again = Json
                .make_datagram(&packet)
                .expect("a packet can be sent again");
            assert_eq!(again, packet.as_bytes());
            let kept = |byte: &&u8| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
            assert!(
                datagram
                    .iter()
                    .filter(kept)
                    .eq(packet.as_bytes().iter().filter(kept))
            );
        }
        Err(error) => {
            assert!(!reference);
            assert!(error.offset() <= datagram.len());
        }
    }
});
