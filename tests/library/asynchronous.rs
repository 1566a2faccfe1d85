//! Tests the asynchronous client, with the same code under each runtime.

use crate::{LIMIT, bound_socket, named_socket, nobody_forks, within_limit};
use futures_lite::{Stream, StreamExt, future};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use udgram::ancillary::{Control, Credentials};
use udgram::protocol::{Json, Raw, Text};
use udgram::wait::{Deadline, Wake, pause};
use udgram::{
    AsyncUnixDatagramClient, AsyncUnixDatagramEndpoint, BindOptions, Binding, DatagramSocket,
    Destination, Error, ErrorKind, Outgoing, sockopt,
};

#[derive(Debug, Clone, Copy)]
enum Runtime {
    TokioCurrentThread,
    TokioMultiThread,
    Smol,
}

impl Runtime {
    fn block_on<F: Future>(self, future: F) -> F::Output {
        match self {
            Self::TokioCurrentThread => tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap()
                .block_on(future),
            Self::TokioMultiThread => tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_time()
                .build()
                .unwrap()
                .block_on(future),
            Self::Smol => smol::block_on(future),
        }
    }

    async fn spawn<T: Send + 'static>(self, future: impl Future<Output = T> + Send + 'static) -> T {
        match self {
            Self::TokioCurrentThread | Self::TokioMultiThread => {
                tokio::spawn(future).await.unwrap()
            }
            Self::Smol => smol::spawn(future).await,
        }
    }

    /// The runtime's own timeout.
    async fn timeout<T>(self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        match self {
            Self::TokioCurrentThread | Self::TokioMultiThread => {
                tokio::time::timeout(limit, future).await.ok()
            }
            Self::Smol => {
                let over = async {
                    smol::Timer::after(limit).await;
                    None
                };
                future::or(async { Some(future.await) }, over).await
            }
        }
    }
}

fn under_every_runtime(test: impl AsyncFn(Runtime) + Send + Sync + 'static) {
    within_limit(move || {
        for runtime in [
            Runtime::TokioCurrentThread,
            Runtime::TokioMultiThread,
            Runtime::Smol,
        ] {
            runtime.block_on(async {
                let done = runtime.timeout(LIMIT / 3, test(runtime)).await;
                assert!(done.is_some(), "it hangs under {runtime:?}");
            });
        }
    });
}

type Client = AsyncUnixDatagramClient<Text>;

fn pair() -> (Arc<Client>, Arc<Client>) {
    let (one, other) = DatagramSocket::pair().unwrap();
    (
        Client::from_connected(one, Text).unwrap().into(),
        Client::from_connected(other, Text).unwrap().into(),
    )
}

fn client_and_server() -> (Client, AsyncUnixDatagramEndpoint<Text>) {
    let (socket, address) = named_socket();
    let server = AsyncUnixDatagramEndpoint::new(socket, Text).unwrap();
    (Client::connect(&address, Text).unwrap(), server)
}

/// Polls a future once, and drops it.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    future::poll_once(future).await
}

async fn fill(client: &Client) -> usize {
    let mut sent = 0;
    while at_once(client.send_packet("filler")).await.is_some() {
        sent += 1;
    }
    sent
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn packets_go_both_ways() {
    under_every_runtime(async |_| {
        let (client, server) = client_and_server();
        client.send_packet("question").await.unwrap();
        let question = server.recv_message().await.unwrap();
        assert_eq!(question.packet, "question");
        assert_eq!(question.sender, client.local_address().unwrap());
        server
            .send_packet_to("answer", &question.sender)
            .await
            .unwrap();
        assert_eq!(client.recv_packet().await.unwrap(), "answer");
        assert_eq!(client.peer_address(), &server.local_address().unwrap());
    });
}

#[test]
fn two_tasks_send_and_receive_at_the_same_time() {
    under_every_runtime(async |runtime| {
        const COUNT: usize = 500;
        let (client, peer) = pair();
        let echo = runtime.spawn({
            let peer = peer.clone();
            async move {
                for _ in 0..COUNT {
                    let packet = peer.recv_packet().await.unwrap();
                    peer.send_packet(&packet).await.unwrap();
                }
            }
        });
        let send = runtime.spawn({
            let client = client.clone();
            async move {
                for number in 0..COUNT {
                    client.send_packet(&number.to_string()).await.unwrap();
                }
            }
        });
        let receive = runtime.spawn(async move {
            for number in 0..COUNT {
                assert_eq!(client.recv_packet().await.unwrap(), number.to_string());
            }
        });
        future::zip(echo, future::zip(send, receive)).await;
    });
}

#[test]
fn a_cancelled_receive_loses_no_datagram() {
    under_every_runtime(async |runtime| {
        const COUNT: usize = 300;
        let (client, peer) = pair();
        let send = runtime.spawn(async move {
            for number in 0..COUNT {
                peer.send_packet(&number.to_string()).await.unwrap();
                future::yield_now().await;
            }
        });
        let receive = async {
            let mut number = 0;
            while number < COUNT {
                // The future is often dropped while it waits.
                let packet = match at_once(client.recv_packet()).await {
                    Some(packet) => Some(packet),
                    None => {
                        runtime
                            .timeout(Duration::from_micros(50), client.recv_packet())
                            .await
                    }
                };
                if let Some(packet) = packet {
                    assert_eq!(packet.unwrap(), number.to_string());
                    number += 1;
                }
            }
        };
        future::zip(send, receive).await;
    });
}

#[test]
fn a_cancelled_send_has_sent_nothing() {
    under_every_runtime(async |_| {
        let (client, server) = client_and_server();
        let filled = fill(&client).await;
        let packets: Vec<_> = server.iter_received_packets(Duration::ZERO).collect().await;
        assert_eq!(packets.len(), filled);
    });
}

#[test]
fn the_timeout_of_the_runtime_ends_a_receive() {
    under_every_runtime(async |runtime| {
        let (client, peer) = pair();
        let timeout = Duration::from_millis(20);
        let begin = Instant::now();
        assert!(
            runtime
                .timeout(timeout, client.recv_packet())
                .await
                .is_none()
        );
        assert!(begin.elapsed() >= timeout);
        peer.send_packet("late").await.unwrap();
        let packet = runtime.timeout(LIMIT, client.recv_packet()).await;
        assert_eq!(packet.unwrap().unwrap(), "late");
    });
}

#[test]
fn a_send_waits_until_the_queue_has_room() {
    under_every_runtime(async |_| {
        let (client, server) = client_and_server();
        let (stranger, _) = named_socket();
        let stranger = AsyncUnixDatagramEndpoint::new(stranger, Text).unwrap();
        let filled = fill(&client).await;
        let to = server.local_address().unwrap();
        let send = future::zip(
            client.send_packet("last"),
            stranger.send_packet_to("last", &to),
        );
        let receive = async {
            for _ in 0..filled {
                assert_eq!(server.recv_packet().await.unwrap(), "filler");
            }
            for _ in 0..2 {
                assert_eq!(server.recv_packet().await.unwrap(), "last");
            }
        };
        let ((one, other), ()) = future::zip(send, receive).await;
        one.unwrap();
        other.unwrap();
    });
}

#[test]
fn closing_ends_what_waits_in_other_tasks() {
    under_every_runtime(async |runtime| {
        let (client, _server) = client_and_server();
        fill(&client).await;
        let client = Arc::new(client);
        let receives = [(); 2].map(|()| {
            let client = client.clone();
            Box::pin(runtime.spawn(async move { client.recv_packet().await }))
        });
        let [mut one, mut other] = receives;
        let mut send = Box::pin(runtime.spawn({
            let client = client.clone();
            async move { client.send_packet("last").await }
        }));
        // Both have begun and wait.
        assert!(at_once(&mut one).await.is_none());
        assert!(at_once(&mut other).await.is_none());
        assert!(at_once(&mut send).await.is_none());
        future::yield_now().await;
        client.close();
        assert_eq!(kind(one.await), ErrorKind::Closed);
        assert_eq!(kind(other.await), ErrorKind::Closed);
        assert_eq!(kind(send.await), ErrorKind::Closed);
    });
}

#[test]
fn closing_twice_is_fine_and_every_call_after_it_fails_with_closed() {
    under_every_runtime(async |_| {
        let (client, peer) = pair();
        peer.send_packet("never received").await.unwrap();
        assert!(!client.is_closed());
        let alone = nobody_forks();
        client.close();
        client.close();
        drop(alone);
        assert!(client.is_closed());
        assert_eq!(kind(client.recv_packet().await), ErrorKind::Closed);
        assert_eq!(kind(client.recv_message().await), ErrorKind::Closed);
        assert_eq!(
            kind(client.recv_message_with_space(64).await),
            ErrorKind::Closed
        );
        assert_eq!(kind(client.send_packet("").await), ErrorKind::Closed);
        let control = Control::default();
        assert_eq!(
            kind(client.send_packet_with("", &control).await),
            ErrorKind::Closed
        );
        assert_eq!(kind(client.socket()), ErrorKind::Closed);
        assert_eq!(kind(client.local_address()), ErrorKind::Closed);
        // The socket is closed, not only the client.
        assert_eq!(kind(peer.send_packet("").await), ErrorKind::NobodyThere);
    });
}

/// Returns the remaining items of a stream, with the kinds of errors.
async fn rest<P>(stream: impl Stream<Item = Result<P, Error>>) -> Vec<Result<P, ErrorKind>> {
    stream
        .map(|item| item.map_err(|error| error.kind()))
        .collect()
        .await
}

#[test]
fn a_stream_of_received_packets_ends_with_its_budget_or_with_the_client() {
    under_every_runtime(async |runtime| {
        let (ours, theirs) = DatagramSocket::pair().unwrap();
        let client = Arc::new(AsyncUnixDatagramClient::from_connected(ours, Json).unwrap());
        let peer = AsyncUnixDatagramClient::from_connected(theirs, Raw).unwrap();
        for datagram in [&b"1"[..], b"no", b"2"] {
            peer.send_packet(datagram).await.unwrap();
        }
        assert_eq!(
            rest(client.iter_received_packets(Duration::ZERO)).await,
            [
                Ok("1".to_owned()),
                Err(ErrorKind::Parse),
                Ok("2".to_owned())
            ]
        );
        // The budget is for all packets; time between two calls does not count.
        let budget = Duration::from_millis(40);
        let mut stream = client.iter_received_packets(budget);
        peer.send_packet(b"3").await.unwrap();
        let begin = Instant::now();
        assert_eq!(stream.next().await.unwrap().unwrap(), "3");
        let first = begin.elapsed();
        pause(Deadline::after(Some(budget * 2)), &Wake::default()).unwrap();
        let begin = Instant::now();
        assert!(stream.next().await.is_none());
        assert!(first + begin.elapsed() >= budget);
        assert!(stream.next().await.is_none());
        // In another task.
        let shared = client.clone();
        let task = async move { shared.iter_received_packets(Duration::ZERO).count().await };
        assert_eq!(runtime.spawn(task).await, 0);
        // Without a limit, until the client is closed.
        let stream = rest(client.iter_received_packets(None));
        let close = async {
            peer.send_packet(b"4").await.unwrap();
            future::yield_now().await;
            client.close();
        };
        let (mut packets, ()) = future::zip(stream, close).await;
        assert_eq!(packets.pop(), Some(Err(ErrorKind::Closed)));
        assert!(packets.is_empty() || packets == [Ok("4".to_owned())]);
    });
}

#[test]
fn a_stream_of_messages_has_their_senders_and_descriptors() {
    under_every_runtime(async |_| {
        let (client, server) = client_and_server();
        let null = File::open("/dev/null").unwrap();
        let control = Control::new(&[null.as_fd()], None).unwrap();
        client.send_packet_with("one", &control).await.unwrap();
        let messages: Vec<_> = server
            .iter_received_messages(Duration::ZERO)
            .collect()
            .await;
        let [Ok(message)] = &messages[..] else {
            panic!("{messages:?}")
        };
        assert_eq!(message.packet, "one");
        assert_eq!(message.sender, client.local_address().unwrap());
        assert_eq!(message.ancillary.descriptors.len(), 1);
        server.send_packet_to("two", &message.sender).await.unwrap();
        let mut messages = client.iter_received_messages(LIMIT);
        assert_eq!(messages.next().await.unwrap().unwrap().packet, "two");
    });
}

#[test]
fn packets_before_the_question_are_not_the_answer_and_a_closed_peer_is_an_error() {
    under_every_runtime(async |runtime| {
        for answers in [true, false] {
            let (client, peer) = pair();
            peer.send_packet("late").await.unwrap();
            let answering = runtime.spawn(async move {
                assert_eq!(peer.recv_packet().await.unwrap(), "question");
                if answers {
                    peer.send_packet("answer").await.unwrap();
                }
                let _alone = nobody_forks();
                peer.close();
            });
            let (answer, ()) = future::zip(client.request("question"), answering).await;
            if answers {
                assert_eq!(answer.unwrap(), "answer");
            } else {
                assert_eq!(kind(answer), ErrorKind::NobodyThere);
            }
        }
    });
}

#[test]
fn descriptors_and_credentials_come_with_packets() {
    under_every_runtime(async |_| {
        let (client, peer) = pair();
        peer.socket().unwrap().set_passcred(true).unwrap();
        let null = File::open("/dev/null").unwrap();
        let control = Control::new(&[null.as_fd(); 2], Some(Credentials::own())).unwrap();
        client.send_packet_with("two", &control).await.unwrap();
        let message = peer.recv_message().await.unwrap();
        assert_eq!(message.packet, "two");
        assert_eq!(message.ancillary.descriptors.len(), 2);
        assert_eq!(message.ancillary.credentials, Some(Credentials::own()));
        client.send_packet_with("two", &control).await.unwrap();
        let message = peer.recv_message_with_space(16 + 4).await.unwrap();
        assert_eq!(message.ancillary.descriptors.len(), 1);
        assert!(message.ancillary.truncated);
    });
}

#[test]
fn a_question_and_its_answer_have_descriptors() {
    under_every_runtime(async |_| {
        let (client, server) = client_and_server();
        client.socket().unwrap().autobind().unwrap();
        let null = File::open("/dev/null").unwrap();
        let control = Control::new(&[null.as_fd()], None).unwrap();
        let serve = async {
            let question = server.recv_message_with_space(16 + 8).await.unwrap();
            assert_eq!(question.ancillary.descriptors.len(), 1);
            let socket = server.socket().unwrap();
            let to = Destination::named(&question.sender).unwrap();
            let answer = Outgoing {
                bytes: b"answer",
                to: Some(&to),
                control: Some(&control),
            };
            assert_eq!(socket.try_send(&[answer]).unwrap(), 1);
        };
        let ask = client.request_message("question", &control);
        let answer = future::zip(ask, serve).await.0.unwrap();
        assert_eq!(answer.packet, "answer");
        assert_eq!(answer.ancillary.descriptors.len(), 1);
    });
}

#[test]
fn options_set_the_mode_of_the_socket_file_and_the_socket_can_be_taken_out() {
    under_every_runtime(async |_| {
        let directory = tempfile::tempdir().unwrap();
        let [path, other] = ["endpoint", "client"].map(|name| directory.path().join(name));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let options = |mode| BindOptions {
            mode,
            ..BindOptions::default()
        };
        let endpoint = AsyncUnixDatagramEndpoint::bind_with(&path, options(0o640), Text).unwrap();
        assert_eq!(mode(&path), 0o640);
        assert!(!endpoint.is_closed());
        let client = Client::connect_from_with(&other, options(0o600), &path, Text).unwrap();
        assert_eq!(mode(&other), 0o600);
        client.send_packet("queued").await.unwrap();
        let (socket, binding) = endpoint.into_socket().unwrap();
        assert!(path.exists());
        let again = AsyncUnixDatagramEndpoint::new(socket, Text).unwrap();
        assert_eq!(again.recv_packet().await.unwrap(), "queued");
        drop(binding);
        assert!(!path.exists());
        again.close();
        assert!(again.is_closed());
    });
}

#[test]
fn the_status_flags_of_an_inherited_socket_are_unchanged() {
    under_every_runtime(async |_| {
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let shared = ours.try_clone().unwrap();
        let flags = fcntl(&shared, FcntlArg::F_GETFL).unwrap();
        let client = Client::from_connected(ours, Text).unwrap();
        let receive = client.recv_packet();
        let send = async {
            future::yield_now().await;
            theirs.send(b"hello").unwrap();
        };
        assert_eq!(future::zip(receive, send).await.0.unwrap(), "hello");
        assert_eq!(fcntl(&shared, FcntlArg::F_GETFL).unwrap(), flags);
    });
}

#[test]
fn reading_shut_down_ends_receives_after_what_is_queued() {
    under_every_runtime(async |_| {
        let (client, peer) = pair();
        peer.send_packet("queued").await.unwrap();
        client.socket().unwrap().shutdown_read().unwrap();
        assert_eq!(client.recv_packet().await.unwrap(), "queued");
        let end = client.recv_packet().await.unwrap_err();
        assert_eq!(end.raw_os_error(), Some(libc::EPIPE));
        assert_eq!(kind(peer.send_packet("").await), ErrorKind::NobodyThere);
    });
}

/// A server at a pathname.
fn server_at(directory: &tempfile::TempDir) -> (AsyncUnixDatagramEndpoint<Text>, Binding) {
    let (socket, _, binding) = bound_socket(directory);
    (
        AsyncUnixDatagramEndpoint::new(socket, Text).unwrap(),
        binding,
    )
}

/// Sends a packet to the client from another address.
async fn intrude(client: &Client) {
    let (stranger, _) = named_socket();
    let stranger = AsyncUnixDatagramEndpoint::new(stranger, Text).unwrap();
    let to = client.local_address().unwrap();
    stranger.send_packet_to("stranger", &to).await.unwrap();
}

#[test]
fn a_client_whose_peer_has_gone_receives_nothing_until_it_is_reconnected() {
    under_every_runtime(async |_| {
        let directory = tempfile::tempdir().unwrap();
        let server = server_at(&directory);
        let address = server.0.local_address().unwrap();
        let client = Client::connect(&address, Text).unwrap();
        let alone = nobody_forks();
        drop(server);
        drop(alone);
        assert_eq!(kind(client.send_packet("1").await), ErrorKind::NobodyThere);
        intrude(&client).await;
        assert_eq!(kind(client.recv_packet().await), ErrorKind::NobodyThere);
        assert_eq!(kind(client.recv_message().await), ErrorKind::NobodyThere);
        assert_eq!(
            rest(client.iter_received_packets(None)).await,
            [Err(ErrorKind::NobodyThere)]
        );
        assert_eq!(kind(client.reconnect()), ErrorKind::NobodyThere);
        let (server, _binding) = server_at(&directory);
        client.reconnect().unwrap();
        client.send_packet("question").await.unwrap();
        let question = server.recv_message().await.unwrap();
        server
            .send_packet_to("answer", &question.sender)
            .await
            .unwrap();
        assert_eq!(
            rest(client.iter_received_packets(Duration::ZERO)).await,
            [Ok("answer".to_owned())]
        );
        assert!(at_once(client.recv_packet()).await.is_none());
    });
}

#[test]
fn a_receive_or_a_request_in_another_task_returns_nothing_from_others() {
    under_every_runtime(async |runtime| {
        for asks in [false, true] {
            receive_meanwhile(runtime, asks).await;
        }
    });
}

/// Receives in another task, in which the failure of a send in this one leaves the socket open to
/// everybody.
async fn receive_meanwhile(runtime: Runtime, asks: bool) {
    let directory = tempfile::tempdir().unwrap();
    let server = server_at(&directory);
    let address = server.0.local_address().unwrap();
    let client = Arc::new(Client::connect(&address, Text).unwrap());
    let shared = client.clone();
    let mut receive = Box::pin(runtime.spawn(async move {
        if asks {
            shared.request("question").await
        } else {
            shared.recv_packet().await
        }
    }));
    // It has begun and waits.
    assert!(at_once(&mut receive).await.is_none());
    future::yield_now().await;
    let alone = nobody_forks();
    drop(server);
    drop(alone);
    assert_eq!(kind(client.send_packet("1").await), ErrorKind::NobodyThere);
    intrude(&client).await;
    assert_eq!(kind(receive.await), ErrorKind::NobodyThere);
}

#[test]
fn a_packet_that_comes_while_the_question_is_unread_is_not_the_answer() {
    under_every_runtime(async |_| {
        let (client, peer) = pair();
        let mut asking = Box::pin(client.request("question"));
        assert!(at_once(&mut asking).await.is_none());
        peer.send_packet("late").await.unwrap();
        // The packet is received and is not the answer: the request waits again.
        while sockopt::queue(&*peer.socket().unwrap()).unwrap().outq > 0 {
            assert!(at_once(&mut asking).await.is_none());
            future::yield_now().await;
        }
        assert_eq!(peer.recv_packet().await.unwrap(), "question");
        peer.send_packet("answer").await.unwrap();
        assert_eq!(asking.await.unwrap(), "answer");
    });
}
