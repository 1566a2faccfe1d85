//! Fuzzes MessagePack in both directions: a received packet can be sent, and is then received as the same
//! packet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use udgram::protocol::{DatagramProtocol, Json, MessagePack};

fuzz_target!(|bytes: &[u8]| {
    match MessagePack.build_packet(bytes) {
        Ok(packet) => {
            assert!(Json.make_datagram(&packet).is_ok());
            assert!(!packet.contains(['\n', '\r']));
            let datagram = MessagePack
                .make_datagram(&packet)
                .expect("a packet can be sent again");
            assert_eq!(
                MessagePack.build_packet(&datagram).expect("its own form"),
                packet
            );
        }
        Err(error) => assert!(error.offset() <= bytes.len()),
    }
    let Ok(written) = std::str::from_utf8(bytes) else {
        return;
    };
    match MessagePack.make_datagram(written) {
        Ok(datagram) => {
            let packet = MessagePack.build_packet(&datagram).expect("its own form");
            assert_eq!(
                MessagePack.make_datagram(&packet).expect("a packet"),
                datagram
            );
        }
        Err(error) => assert!(error.offset() <= bytes.len()),
    }
});
