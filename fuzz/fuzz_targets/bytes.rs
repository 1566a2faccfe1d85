//! Fuzzes text, raw, hex and base64 in both directions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use udgram::protocol::{Base64, DatagramProtocol, Hex, Raw, Text};

/// Checks that bytes survive a round trip, and that written text does if it is valid.
fn check_both_directions<P>(protocol: &P, bytes: &[u8])
where
    P: DatagramProtocol<Sent = str, Received = String>,
{
    let packet: String = protocol.build_packet(bytes).expect("any bytes").into();
    assert_eq!(
        protocol.make_datagram(&packet).expect("its own form"),
        bytes
    );
    let Ok(written) = std::str::from_utf8(bytes) else {
        return;
    };
    match protocol.make_datagram(written) {
        Ok(datagram) => {
            let packet: String = protocol.build_packet(&datagram).expect("any bytes").into();
            let plain: String = written.split_ascii_whitespace().collect();
            assert!(packet.eq_ignore_ascii_case(&plain));
        }
        Err(error) => assert!(error.offset() <= bytes.len()),
    }
}

fuzz_target!(|bytes: &[u8]| {
    check_both_directions(&Hex, bytes);
    check_both_directions(&Base64, bytes);
    assert_eq!(Raw.build_packet(bytes).expect("any bytes"), bytes);
    match Text.build_packet(bytes) {
        Ok(text) => assert_eq!(Text.make_datagram(text).expect("any text"), bytes),
        Err(error) => assert!(error.offset() < bytes.len()),
    }
});
