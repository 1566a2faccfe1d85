//! The protocols whose packets have types of their own, over sockets.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use udgram::ancillary::{Control, Credentials};
use udgram::protocol::{DatagramProtocol, FieldList, Fields, Raw, Syslog};
use udgram::{DatagramSocket, ErrorKind, UnixDatagramClient};

/// The longest wait for a packet that is there.
const LIMIT: Option<Duration> = Some(Duration::from_secs(10));

/// Returns fields that are too long for a datagram.
fn long() -> FieldList {
    FieldList::from([("A", vec![b'x'; 5 << 20]), ("B", vec![b'\n'; 1 << 20])])
}

fn clients() -> (UnixDatagramClient<Fields>, UnixDatagramClient<Fields>) {
    let (ours, theirs) = DatagramSocket::pair().unwrap();
    (
        UnixDatagramClient::from_connected(ours, Fields).unwrap(),
        UnixDatagramClient::from_connected(theirs, Fields).unwrap(),
    )
}

#[test]
fn fields_travel_in_a_datagram_or_in_a_memfd() {
    let (ours, theirs) = clients();
    let ready = FieldList::from([("READY", "1")]);
    for fields in [&ready, &long(), &ready] {
        ours.send_packet(fields, LIMIT).unwrap();
        // Of long fields, a failure need not print all.
        let arrived = theirs.recv_packet(LIMIT).unwrap() == *fields;
        assert!(arrived, "other fields arrived");
    }
    // With credentials, and without a trace of the memfd.
    theirs.socket().unwrap().set_passcred(true).unwrap();
    let control = Control::new(&[], Some(Credentials::own())).unwrap();
    ours.send_packet_with(&long(), &control, LIMIT).unwrap();
    let message = theirs.recv_message(LIMIT).unwrap();
    let arrived = message.packet == long();
    assert!(arrived, "other fields arrived");
    assert_eq!(message.ancillary.credentials, Some(Credentials::own()));
    assert!(message.ancillary.descriptors.is_empty());
}

#[test]
fn fields_that_are_too_long_are_not_sent_beside_descriptors() {
    let (ours, theirs) = clients();
    let control = Control::new(&[theirs.socket().unwrap().as_fd()], None).unwrap();
    let error = ours.send_packet_with(&long(), &control, LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLong);
}

#[test]
fn a_memfd_that_holds_no_fields_is_a_parse_error_and_the_next_packet_follows() {
    let (ours, theirs) = DatagramSocket::pair().unwrap();
    let ours = UnixDatagramClient::from_connected(ours, Raw).unwrap();
    let theirs = UnixDatagramClient::from_connected(theirs, Fields).unwrap();
    let mut memfd = File::from(memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap());
    memfd.write_all(b"A=1\nhello").unwrap();
    let control = Control::new(&[memfd.as_fd()], None).unwrap();
    ours.send_packet_with(b"", &control, LIMIT).unwrap();
    ours.send_packet(b"A=1", LIMIT).unwrap();
    let error = theirs.recv_packet(LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Parse);
    assert!(error.to_string().ends_with("offset 9"), "{error}");
    assert_eq!(theirs.recv_packet(LIMIT).unwrap().text("A"), Some("1"));
}

#[test]
fn as_many_as_1024_fields_of_up_to_64_mib_are_sent() {
    // The length that the fields may need, in the binary form: with that of the value, and three separators.
    let fields = |len: usize| FieldList::from([("A", vec![b'x'; (64 << 20) - 12 + len])]);
    assert_eq!(
        Fields.make_datagram(&fields(0)).unwrap().len(),
        (64 << 20) - 9
    );
    let error = Fields.make_datagram(&fields(1)).unwrap_err();
    assert_eq!(error.message(), "expected fields of at most 64 MiB");
    // And as many as 1024.
    let many = |len| -> FieldList { [("A", "")].repeat(len).into_iter().collect() };
    assert_eq!(Fields.make_datagram(&many(1024)).unwrap().len(), 3072);
    let error = Fields.make_datagram(&many(1025)).unwrap_err();
    assert_eq!(error.message(), "expected at most 1024 fields");
}

#[test]
fn the_values_of_a_name_end_where_the_next_name_begins() {
    let values = |fields: &FieldList, name: &str| -> Vec<Vec<u8>> {
        fields.values(name).map(<[u8]>::to_vec).collect()
    };
    for (written, expected) in [
        (r#""1""#, &[&b"1"[..]][..]),
        ("[255]", &[b"\xff"]),
        ("[255,0]", &[b"\xff\0"]),
        (r#"["1"]"#, &[b"1"]),
        (r#"["1","2"]"#, &[b"1", b"2"]),
        ("[[255]]", &[b"\xff"]),
        (r#"[[255,0],"x",[1]]"#, &[b"\xff\0", b"x", b"\x01"]),
        (
            r#"["x",[1,2],[3],"y"]"#,
            &[b"x", b"\x01\x02", b"\x03", b"y"],
        ),
    ] {
        let fields = FieldList::from_json(&format!(r#"{{"A":{written},"B":"last"}}"#)).unwrap();
        assert_eq!(values(&fields, "A"), expected, "{written}");
        assert_eq!(values(&fields, "B"), [b"last"], "{written}");
    }
}

#[test]
fn text_that_only_looks_like_a_header_of_syslog_is_text() {
    for text in [
        "[12]: x",
        "app[]: x",
        "app[12: x",
        "host app: x",
        "a\u{1}b: x",
        "1 2026 was a year",
        "1 some-thing",
        "1 2026:x",
        "1 -",
        "1 ",
    ] {
        let message = Syslog
            .build_packet(format!("<13>{text}").as_bytes())
            .unwrap();
        assert_eq!(message.text(), Some(text));
        assert_eq!((message.timestamp, message.app), (None, None));
    }
    // The text behind the name of a program may look like another one.
    let message = Syslog
        .build_packet(b"<13>Oct 11 22:14:15 app: first second: x")
        .unwrap();
    assert_eq!(
        (message.hostname.as_deref(), message.app.as_deref()),
        (None, Some("app"))
    );
    assert_eq!(message.text(), Some("first second: x"));
    // The name of a host has at most 255 characters, and none of these.
    let time = "Oct 11 22:14:15";
    let long = "h".repeat(255);
    for host in ["a", "a.b-c_d:1%2", &long] {
        let datagram = format!("<13>{time} {host} app: text");
        let message = Syslog.build_packet(datagram.as_bytes()).unwrap();
        assert_eq!(message.text(), Some("text"));
        assert_eq!(message.hostname.as_deref(), Some(host));
        assert_eq!(message.app.as_deref(), Some("app"));
    }
    let longer = "h".repeat(256);
    for host in ["a/b", "(a)", &longer] {
        let datagram = format!("<13>{time} {host} app: text");
        let message = Syslog.build_packet(datagram.as_bytes()).unwrap();
        assert_eq!(message.timestamp.as_deref(), Some(time));
        assert_eq!(message.text(), Some(&*format!("{host} app: text")));
        assert_eq!((message.hostname, message.app), (None, None));
    }
}

#[cfg(feature = "typed")]
#[test]
fn the_errors_of_typed_packets_say_what_is_expected() {
    use udgram::protocol::{Cbor, Format, Json, MessagePack};

    let json = Json.typed::<Vec<u8>>();
    let cbor = Cbor.typed::<Vec<u8>>();
    let messagepack = MessagePack.typed::<Vec<u8>>();
    let said = |error: udgram::protocol::ParseError| (error.offset(), error.message().to_owned());
    for (datagram, offset, message) in [
        (
            &b"[1,300]"[..],
            5,
            "invalid value: integer `300`, expected u8",
        ),
        (b"[1", 2, "the JSON value does not end"),
        (b"[1] 2", 4, "a second JSON value"),
        (b"[1]\0", 3, "a NUL after the JSON value"),
        (b"[1\0", 2, "expected `,` or `]`"),
        (b"['1']", 1, "expected double quotes"),
        (
            b"\xef\xbb\xbf[1]",
            0,
            "a byte order mark before the JSON value",
        ),
        (b"", 0, "expected a JSON value"),
    ] {
        let error = json.build_packet(datagram).unwrap_err();
        assert_eq!(said(error), (offset, message.to_owned()));
    }
    for (datagram, offset, message) in [
        (&b"\x82\x01"[..], 2, "expected more bytes"),
        (b"\x81\x1c", 1, "expected a CBOR item"),
        (b"\x80\x01", 1, "expected the end, more bytes follow"),
    ] {
        let error = cbor.build_packet(datagram).unwrap_err();
        assert_eq!(said(error), (offset, message.to_owned()));
    }
    for (datagram, offset, message) in [
        (&b""[..], 0, "expected more bytes"),
        (b"\x92\x01", 2, "expected more bytes"),
        (b"\x91\xcd\x01", 3, "expected more bytes"),
        (b"\x90\x01", 1, "expected the end, more bytes follow"),
    ] {
        let error = messagepack.build_packet(datagram).unwrap_err();
        assert_eq!(said(error), (offset, message.to_owned()));
    }
}

#[cfg(feature = "async")]
#[test]
fn an_asynchronous_client_sends_and_receives_memfds() {
    use udgram::AsyncUnixDatagramClient;

    smol::block_on(async {
        let (ours, theirs) = DatagramSocket::pair().unwrap();
        let ours = AsyncUnixDatagramClient::from_connected(ours, Fields).unwrap();
        let theirs = AsyncUnixDatagramClient::from_connected(theirs, Fields).unwrap();
        ours.send_packet(&long()).await.unwrap();
        let arrived = theirs.recv_packet().await.unwrap() == long();
        assert!(arrived, "other fields arrived");
    });
}
