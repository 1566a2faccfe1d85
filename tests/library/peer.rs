//! Clients whose peer goes away and comes back: packets of others are not received meanwhile.

use crate::{
    LIMIT, bound_socket, named_socket, nobody_forks, this_thread, until_polling, within_limit,
};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;
use udgram::protocol::Text;
use udgram::{Address, Binding, Error, ErrorKind, UnixDatagramClient, UnixDatagramEndpoint};

const NOW: Option<Duration> = Some(Duration::ZERO);
const SOON: Option<Duration> = Some(LIMIT);

type Client = UnixDatagramClient<Text>;

/// A server at one address, which can be stopped and started again.
struct Server {
    endpoint: UnixDatagramEndpoint<Text>,
    address: Address<'static>,
    _binding: Binding,
}

impl Server {
    fn start(directory: &TempDir) -> Self {
        let (socket, address, binding) = bound_socket(directory);
        Self {
            endpoint: UnixDatagramEndpoint::new(socket, Text).unwrap(),
            address,
            _binding: binding,
        }
    }

    fn stop(self) {
        let _alone = nobody_forks();
        drop(self);
    }
}

/// Returns a client whose server has stopped, and whose last send has noticed that.
fn lost_client(directory: &TempDir) -> Client {
    let server = Server::start(directory);
    let client = Client::connect(&server.address, Text).unwrap();
    server.stop();
    assert_eq!(kind(client.send_packet("1", NOW)), ErrorKind::NobodyThere);
    client
}

/// Sends a packet to the client from another address.
fn intrude(client: &Client) {
    let (stranger, _) = named_socket();
    let stranger = UnixDatagramEndpoint::new(stranger, Text).unwrap();
    let to = client.local_address().unwrap();
    stranger.send_packet_to("stranger", &to, NOW).unwrap();
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn a_client_whose_peer_has_gone_receives_nothing_from_others() {
    let directory = tempfile::tempdir().unwrap();
    let client = lost_client(&directory);
    intrude(&client);
    assert_eq!(kind(client.recv_packet(SOON)), ErrorKind::NobodyThere);
    assert_eq!(kind(client.recv_message(NOW)), ErrorKind::NobodyThere);
    let mut packets = client.iter_received_packets(SOON);
    assert_eq!(kind(packets.next().unwrap()), ErrorKind::NobodyThere);
    assert!(packets.next().is_none());
    // It stays disconnected until a server exists again.
    assert_eq!(kind(client.send_packet("2", NOW)), ErrorKind::NobodyThere);
    assert_eq!(kind(client.reconnect()), ErrorKind::NobodyThere);
    assert_eq!(kind(client.recv_packet(NOW)), ErrorKind::NobodyThere);
}

#[test]
fn a_reconnected_client_receives_from_its_peer_only() {
    let directory = tempfile::tempdir().unwrap();
    let client = lost_client(&directory);
    let ours = client.local_address().unwrap();
    intrude(&client);
    let server = Server::start(&directory);
    // A new server is not the peer before the client is connected to it.
    server
        .endpoint
        .send_packet_to("greeting", &ours, NOW)
        .unwrap();
    assert_eq!(kind(client.recv_packet(NOW)), ErrorKind::NobodyThere);
    client.reconnect().unwrap();
    client.send_packet("question", NOW).unwrap();
    assert_eq!(server.endpoint.recv_packet(NOW).unwrap(), "question");
    server
        .endpoint
        .send_packet_to("answer", &ours, NOW)
        .unwrap();
    let packets: Result<Vec<_>, _> = client.iter_received_packets(Duration::ZERO).collect();
    assert_eq!(packets.unwrap(), ["greeting", "answer"]);
    assert_eq!(kind(client.recv_packet(NOW)), ErrorKind::TimedOut);
    assert_eq!(client.peer_address(), &server.address);
}

#[test]
fn a_client_is_reconnected_to_the_socket_that_has_the_address_now() {
    let directory = tempfile::tempdir().unwrap();
    let first = Server::start(&directory);
    let client = Client::connect(&first.address, Text).unwrap();
    first.stop();
    // No send has noticed it.
    let second = Server::start(&directory);
    client.reconnect().unwrap();
    client.send_packet("1", NOW).unwrap();
    assert_eq!(second.endpoint.recv_packet(NOW).unwrap(), "1");
}

#[test]
fn a_peer_without_an_address_cannot_be_found_again() {
    let (ours, theirs) = udgram::DatagramSocket::pair().unwrap();
    let client = Client::from_connected(ours, Text).unwrap();
    let alone = nobody_forks();
    drop(theirs);
    drop(alone);
    assert_eq!(kind(client.send_packet("1", NOW)), ErrorKind::NobodyThere);
    assert_eq!(kind(client.reconnect()), ErrorKind::NobodyThere);
}

/// Receives in another thread, in which the failure of a send in this one leaves the socket open to
/// everybody, and returns how that ends.
fn receive_meanwhile(receive: impl Fn(&Client) -> Result<String, Error> + Send) -> ErrorKind {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory);
    let client = Client::connect(&server.address, Text).unwrap();
    std::thread::scope(|scope| {
        let (started, start) = mpsc::channel();
        let receiver = scope.spawn({
            let client = &client;
            move || {
                started.send(this_thread()).unwrap();
                receive(client)
            }
        });
        until_polling(start.recv().unwrap());
        server.stop();
        assert_eq!(kind(client.send_packet("1", NOW)), ErrorKind::NobodyThere);
        intrude(&client);
        kind(receiver.join().unwrap())
    })
}

#[test]
fn a_receive_in_another_thread_returns_nothing_from_others() {
    within_limit(|| {
        let end = receive_meanwhile(|client| client.recv_packet(None));
        assert_eq!(end, ErrorKind::NobodyThere);
        let end = receive_meanwhile(|client| Ok(client.recv_message(None)?.packet));
        assert_eq!(end, ErrorKind::NobodyThere);
        let end = receive_meanwhile(|client| client.iter_received_packets(None).next().unwrap());
        assert_eq!(end, ErrorKind::NobodyThere);
        let end = receive_meanwhile(|client| client.request("question", None));
        assert_eq!(end, ErrorKind::NobodyThere);
    });
}
