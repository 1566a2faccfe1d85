//! The protocols whose packets have types of their own, over sockets.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use udgram::ancillary::{Control, Credentials};
use udgram::protocol::{FieldList, Fields, Raw};
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
