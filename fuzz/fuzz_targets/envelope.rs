//! Fuzzes the parser of envelopes in each protocol, and the escaping and colouring of lines for a terminal.
#![no_main]
#![allow(dead_code)]

include!("program.rs");

use clap::ValueEnum;
use cli::Protocol;
use libfuzzer_sys::fuzz_target;
use udgram::protocol::DatagramProtocol;

fuzz_target!(|line: &[u8]| {
    for protocol in Protocol::value_variants() {
        match envelope::OutgoingEnvelope::parse(line, *protocol, envelope::Claims::Sent, envelope::Times::Count) {
            // Names repeat before each value, and lengths precede binary ones.
            Ok(_) if matches!(protocol, Protocol::Fields | Protocol::Syslog) => {}
            Ok(sent) => assert!(sent.bytes.len() <= 2 * line.len()),
            Err(error) => assert!(error.offset() <= line.len(), "{error}"),
        }
        // The value in the envelope of a received datagram sends the same packet.
        let mut value = Vec::new();
        if let Ok(packet) = protocol.build_packet(line) {
            protocol.write_value(&packet, line, &mut value);
            let envelope = [b"{\"packet\":", value.as_slice(), b"}"].concat();
            let sent = envelope::OutgoingEnvelope::parse(&envelope, *protocol, envelope::Claims::Sent, envelope::Times::Count)
                .expect("its own envelope");
            let packet = |bytes: &[u8]| {
                protocol
                    .build_packet(bytes)
                    .map(|packet| packet.into_owned())
            };
            assert_eq!(packet(&sent.bytes).ok(), packet(line).ok());
        }
        let mut shown = Vec::new();
        if let Ok(packet) = protocol.build_packet(line) {
            shown.extend_from_slice(&packet);
        }
        if let Some(controls) = protocol.controls() {
            terminal::escape(&mut shown, 0, controls);
        }
        if protocol.lines_are_json() {
            let plain = shown.clone();
            color::paint(&mut shown, 0);
            let painted = String::from_utf8(shown).expect("text");
            let mut pieces = painted.split('\x1b');
            let mut bare = pieces.next().unwrap_or_default().to_owned();
            for piece in pieces {
                bare += piece.split_once('m').expect("a colour").1;
            }
            assert_eq!(bare.as_bytes(), plain);
            shown = plain;
        }
        if *protocol != Protocol::Raw {
            let shown = String::from_utf8(shown).expect("text");
            let text = *protocol == Protocol::Text;
            let controls = shown.chars().filter(|c| c.is_control() && *c != '\n');
            assert!(controls.into_iter().all(|c| text && c == '\t'));
        }
    }
});
