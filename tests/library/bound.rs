//! Tests clients and endpoints that are bound to an address.

use crate::{LIMIT, named_socket, nobody_forks};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;
use udgram::protocol::Text;
use udgram::{
    Address, BindOptions, DatagramSocket, ErrorKind, UnixDatagramClient, UnixDatagramEndpoint,
};

const SOON: Option<Duration> = Some(LIMIT);

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn an_endpoint_removes_its_socket_file_when_it_is_closed_or_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let endpoint = UnixDatagramEndpoint::bind(&path, Text).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(endpoint.local_address().unwrap(), Address::from(&*path));
    endpoint.close();
    assert!(!path.exists());
    let options = BindOptions {
        mode: 0o640,
        ..BindOptions::default()
    };
    let endpoint = UnixDatagramEndpoint::bind_with(&*path, options, Text).unwrap();
    assert_eq!(mode(&path), 0o640);
    drop(endpoint);
    assert!(!path.exists());
}

#[test]
fn an_address_may_be_text_a_path_or_an_address() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let text = path.to_str().unwrap();
    let abstract_name = format!("@{text}");
    let server = UnixDatagramEndpoint::bind(text, Text).unwrap();
    let other = UnixDatagramEndpoint::bind(&abstract_name, Text).unwrap();
    let address = other.local_address().unwrap();
    assert!(matches!(address, Address::Abstract(_)));
    let standard = UnixDatagram::unbound().unwrap();
    standard.connect(text).unwrap();
    let standard = standard.peer_addr().unwrap();
    for (client, server) in [
        (UnixDatagramClient::connect(text, Text), &server),
        (UnixDatagramClient::connect(&path, Text), &server),
        (UnixDatagramClient::connect(&standard, Text), &server),
        (UnixDatagramClient::connect(&abstract_name, Text), &other),
        (UnixDatagramClient::connect(&address, Text), &other),
    ] {
        let client = client.unwrap();
        client.send_packet("hello", None).unwrap();
        let message = server.recv_message(SOON).unwrap();
        server
            .send_packet_to("hello", &message.sender, None)
            .unwrap();
        assert_eq!(client.recv_packet(SOON).unwrap(), "hello");
    }
    server
        .send_packet_to("hello", &abstract_name, None)
        .unwrap();
    assert_eq!(other.recv_packet(SOON).unwrap(), "hello");
    let error = UnixDatagramClient::connect(r"@a\b", Text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
}

#[test]
fn a_bound_client_is_reached_by_its_name_and_receives_from_its_peer_only() {
    let directory = tempfile::tempdir().unwrap();
    let local = directory.path().join("me");
    let (server, address) = named_socket();
    let server = UnixDatagramEndpoint::new(server, Text).unwrap();
    let client = UnixDatagramClient::connect_from(&local, &address, Text).unwrap();
    assert_eq!(mode(&local), 0o600);
    let stranger = UnixDatagram::unbound().unwrap();
    let error = stranger.send_to(b"psst", &local).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    client.send_packet("question", None).unwrap();
    let question = server.recv_message(SOON).unwrap();
    assert_eq!(question.sender, Address::from(&*local));
    server.send_packet_to("answer", &local, None).unwrap();
    assert_eq!(client.recv_packet(SOON).unwrap(), "answer");
    client.close();
    assert!(!local.exists());
}

#[test]
fn a_client_without_a_peer_leaves_no_socket_file() {
    let directory = tempfile::tempdir().unwrap();
    let [local, missing] = ["me", "missing"].map(|name| directory.path().join(name));
    let error = UnixDatagramClient::connect_from(&local, &missing, Text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NobodyThere);
    assert!(!local.exists());
}

#[test]
fn a_socket_that_is_taken_out_keeps_its_name_as_long_as_its_binding() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let endpoint = UnixDatagramEndpoint::bind(&path, Text).unwrap();
    let number = endpoint.socket().unwrap().as_raw_fd();
    let (socket, binding) = endpoint.into_socket().unwrap();
    assert_eq!(socket.as_raw_fd(), number);
    let client = UnixDatagramClient::connect(&path, Text).unwrap();
    client.send_packet("hello", None).unwrap();
    let endpoint = UnixDatagramEndpoint::new(socket, Text).unwrap();
    assert_eq!(endpoint.recv_packet(SOON).unwrap(), "hello");
    drop(binding);
    assert!(!path.exists());

    // The caller still has the socket, so this is a copy.
    let held = endpoint.socket().unwrap();
    let (copy, binding) = endpoint.into_socket().unwrap();
    assert!(binding.is_none());
    assert_ne!(copy.as_raw_fd(), held.as_raw_fd());
    client.send_packet("again", None).unwrap();
    let endpoint = UnixDatagramEndpoint::new(copy, Text).unwrap();
    assert_eq!(endpoint.recv_packet(SOON).unwrap(), "again");
    endpoint.close();
    assert_eq!(
        endpoint.into_socket().unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[test]
fn a_client_gives_its_socket_back() {
    let (ours, theirs) = DatagramSocket::pair().unwrap();
    let number = ours.as_raw_fd();
    let client = UnixDatagramClient::from_connected(ours, Text).unwrap();
    let (socket, binding) = client.into_socket().unwrap();
    assert_eq!((socket.as_raw_fd(), binding.is_none()), (number, true));
    let peer = UnixDatagramClient::from_connected(theirs, Text).unwrap();
    let alone = nobody_forks();
    drop(socket);
    drop(alone);
    let error = peer.send_packet("", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NobodyThere);
}

#[cfg(feature = "async")]
#[test]
fn an_asynchronous_client_is_bound_and_gives_its_socket_back() {
    use udgram::{AsyncUnixDatagramClient, AsyncUnixDatagramEndpoint};
    let directory = tempfile::tempdir().unwrap();
    let [local, path] = ["me", "s"].map(|name| directory.path().join(name));
    let server = AsyncUnixDatagramEndpoint::bind(&path, Text).unwrap();
    let client = AsyncUnixDatagramClient::connect_from(&local, &path, Text).unwrap();
    futures_lite::future::block_on(async {
        client.send_packet("question").await.unwrap();
        let question = server.recv_message().await.unwrap();
        assert_eq!(question.sender, Address::from(&*local));
        server.send_packet_to("answer", &local).await.unwrap();
        assert_eq!(client.recv_packet().await.unwrap(), "answer");
    });
    let number = client.socket().unwrap().as_raw_fd();
    let (socket, binding) = client.into_socket().unwrap();
    assert_eq!(socket.as_raw_fd(), number);
    assert!(local.exists());
    drop(binding);
    assert!(!local.exists());
    server.close();
    assert!(!path.exists());
}
