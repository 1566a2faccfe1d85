//! Fuzzes fields in both directions: the fields of a datagram keep their values and the order of each name, as a
//! datagram and as JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use udgram::protocol::{DatagramProtocol, FieldList, Fields, Json};

/// Checks that a list survives as a datagram, and as JSON up to the places of repeated names.
fn check(fields: &FieldList) {
    let datagram = Fields.make_datagram(fields).expect("a packet");
    assert_eq!(&Fields.build_packet(&datagram).expect("its own form"), fields);
    let json = fields.to_json();
    assert_eq!(Json.make_datagram(&json).expect("JSON"), json.as_bytes());
    let again = FieldList::from_json(&json).expect("its own form");
    assert_eq!(again.len(), fields.len());
    assert_eq!(again.to_json(), json);
    for (name, _) in fields.iter() {
        assert!(again.values(name).eq(fields.values(name)));
    }
}

fuzz_target!(|bytes: &[u8]| {
    match Fields.build_packet(bytes) {
        Ok(fields) => check(&fields),
        Err(error) => assert!(error.offset() <= bytes.len()),
    }
    let Ok(written) = std::str::from_utf8(bytes) else {
        return;
    };
    match FieldList::from_json(written) {
        Ok(fields) if fields.is_empty() => {}
        Ok(fields) => check(&fields),
        Err(error) => assert!(error.offset() <= bytes.len()),
    }
});
