//! The asynchronous server keeps the promises of the one that blocks, under tokio and smol.

use crate::{named_socket, within_limit};
use futures_lite::{StreamExt, future};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use udgram::answers::Reason;
use udgram::protocol::{Raw, Text};
use udgram::{
    Address, AsyncUnixDatagramClient, AsyncUnixDatagramEndpoint, AsyncUnixDatagramServer,
    ErrorKind, Message, ServerEvent, UnixDatagramClient, UnixDatagramEndpoint,
};

/// The shortest time that an answer waits for room.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

fn bound() -> (AsyncUnixDatagramServer<Text>, Address<'static>) {
    let (socket, address) = named_socket();
    drop(socket);
    let server = AsyncUnixDatagramServer::bind(&address, Text).unwrap();
    (server, address)
}

async fn echo(request: Message<String>) -> Option<String> {
    Some(request.packet)
}

async fn connect(address: &Address<'static>) -> AsyncUnixDatagramClient<Text> {
    future::yield_now().await;
    AsyncUnixDatagramClient::connect(address, Text).unwrap()
}

#[test]
fn many_clients_are_answered_on_a_runtime_of_several_threads() {
    within_limit(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (server, address) = bound();
            let server = Arc::new(server);
            let handled = Arc::new(AtomicUsize::new(0));
            let serving: Vec<_> = (0..3)
                .map(|_| {
                    let (server, handled) = (Arc::clone(&server), Arc::clone(&handled));
                    tokio::spawn(async move {
                        let handle = async |request| {
                            handled.fetch_add(1, Ordering::Relaxed);
                            echo(request).await
                        };
                        server.serve(handle).await
                    })
                })
                .collect();
            let clients: Vec<_> = (0..20)
                .map(|client| {
                    let address = address.clone();
                    tokio::spawn(async move {
                        let socket = connect(&address).await;
                        for packet in 0..50 {
                            let packet = format!("{client} {packet}");
                            assert_eq!(socket.request(&packet).await.unwrap(), packet);
                        }
                    })
                })
                .collect();
            for client in clients {
                client.await.unwrap();
            }
            server.stop();
            for serving in serving {
                serving.await.unwrap().unwrap();
            }
            assert_eq!(handled.load(Ordering::Relaxed), 20 * 50);
        });
    });
}

#[test]
fn one_task_answers_the_packets_of_a_client_in_order() {
    within_limit(|| {
        smol::block_on(async {
            let (server, address) = bound();
            let asking = async {
                let client = connect(&address).await;
                for packet in 0..5 {
                    client.send_packet(&packet.to_string()).await.unwrap();
                }
                let mut answers = client.iter_received_packets(None);
                for packet in 0..5 {
                    let answer = answers.next().await.unwrap().unwrap();
                    assert_eq!(answer, packet.to_string());
                }
                server.stop();
            };
            let slow = async |request: Message<String>| {
                future::yield_now().await;
                echo(request).await
            };
            let (result, ()) = future::zip(server.serve(slow), asking).await;
            result.unwrap();
        });
    });
}

#[test]
fn a_client_that_does_not_read_delays_no_other_client() {
    within_limit(|| {
        smol::block_on(async {
            let (server, address) = bound();
            let directory = tempfile::tempdir().unwrap();
            let deaf = UnixDatagramEndpoint::bind(directory.path().join("deaf"), Text).unwrap();
            let noted = Mutex::new(Vec::new());
            let asking = async {
                let start = Instant::now();
                for _ in 0..10 {
                    deaf.send_packet_to("deaf", &address, None).unwrap();
                    future::yield_now().await;
                }
                let client = connect(&address).await;
                let mut asked = 0;
                while noted.lock().unwrap().is_empty() {
                    assert_eq!(client.request("x").await.unwrap(), "x");
                    // So few that the limit of answers that wait is not reached before their time is over.
                    if asked % 8 == 0 && asked < 512 {
                        deaf.send_packet_to("deaf", &address, Some(Duration::ZERO))
                            .ok();
                    }
                    asked += 1;
                }
                assert!(start.elapsed() >= ROOM_TIMEOUT, "{:?}", start.elapsed());
                assert!(asked > 2, "only {asked} answers");
                server.stop();
            };
            let note = |event: ServerEvent<'_>| {
                let ServerEvent::Undelivered(undelivered) = event else {
                    panic!("{event:?}");
                };
                let address = undelivered.recipient().address().clone();
                noted.lock().unwrap().push((address, undelivered.reason()));
            };
            let (result, ()) = future::zip(server.serve_with(echo, note), asking).await;
            result.unwrap();
            let (address, reason) = noted.lock().unwrap()[0].clone();
            assert_eq!(address, deaf.local_address().unwrap());
            assert_eq!(reason, Reason::NoRoom);
        });
    });
}

#[test]
fn answers_that_wait_for_room_are_sent_while_the_handler_waits() {
    within_limit(|| {
        smol::block_on(async {
            let (server, address) = bound();
            let (slow, _) = named_socket();
            let slow = AsyncUnixDatagramEndpoint::new(slow, Text).unwrap();
            let (release, released) = smol::channel::bounded::<()>(1);
            let asking = async {
                for packet in 0..30 {
                    let packet = packet.to_string();
                    slow.send_packet_to(&packet, &address).await.unwrap();
                }
                slow.send_packet_to("wait", &address).await.unwrap();
                for packet in 0..30 {
                    assert_eq!(slow.recv_packet().await.unwrap(), packet.to_string());
                }
                release.send(()).await.unwrap();
                assert_eq!(slow.recv_packet().await.unwrap(), "wait");
                server.stop();
            };
            let handle = async |request: Message<String>| {
                if request.packet == "wait" {
                    released.recv().await.unwrap();
                }
                echo(request).await
            };
            let note = |event: ServerEvent<'_>| panic!("{event:?}");
            let (result, ()) = future::zip(server.serve_with(handle, note), asking).await;
            result.unwrap();
        });
    });
}

#[test]
fn a_server_that_is_dropped_while_it_waits_loses_no_packet_and_no_answer() {
    within_limit(|| {
        smol::block_on(async {
            let (server, address) = bound();
            let client = UnixDatagramClient::connect(&address, Text).unwrap();
            let mut never = async |_: Message<String>| -> Option<String> { panic!() };
            for packet in 0..100 {
                // Polled once, and dropped.
                assert!(future::poll_once(server.serve(&mut never)).await.is_none());
                client.send_packet(&packet.to_string(), None).unwrap();
                let handled = Cell::new(false);
                let once = async |request: Message<String>| {
                    handled.set(true);
                    echo(request).await
                };
                let mut serving = Box::pin(server.serve(once));
                while !handled.get() {
                    assert!(future::poll_once(&mut serving).await.is_none());
                }
                drop(serving);
                assert_eq!(client.recv_packet(None).unwrap(), packet.to_string());
            }
        });
    });
}

#[test]
fn a_stop_and_a_close_end_a_server_that_waits() {
    within_limit(|| {
        smol::block_on(async {
            let (server, address) = bound();
            let client = UnixDatagramClient::connect(&address, Text).unwrap();
            let stop = async {
                future::yield_now().await;
                client.send_packet("last", None).unwrap();
                server.stop();
            };
            let (result, ()) = future::zip(server.serve(echo), stop).await;
            result.unwrap();
            assert_eq!(client.recv_packet(None).unwrap(), "last");
            assert!(client.send_packet("late", None).is_err());

            let (server, _) = bound();
            let close = async {
                future::yield_now().await;
                server.close();
            };
            let (result, ()) = future::zip(server.serve(echo), close).await;
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Closed);
        });
    });
}

#[test]
fn an_invalid_packet_and_a_client_that_is_gone_are_events() {
    within_limit(|| {
        smol::block_on(async {
            let (server, address) = bound();
            let client = UnixDatagramClient::connect(&address, Raw).unwrap();
            client.send_packet(b"\xff", None).unwrap();
            client.send_packet(b"gone", None).unwrap();
            {
                let _alone = crate::nobody_forks();
                drop(client);
            }
            server.stop();
            let mut noted = Vec::new();
            let note = |event: ServerEvent<'_>| {
                noted.push(match event {
                    ServerEvent::InvalidPacket(error) => error.to_string(),
                    ServerEvent::Undelivered(undelivered) => {
                        format!("{:?}", undelivered.reason())
                    }
                    event => panic!("{event:?}"),
                });
            };
            server.serve_with(echo, note).await.unwrap();
            assert!(
                noted[0].ends_with("expected UTF-8 at offset 0"),
                "{noted:?}"
            );
            assert_eq!(noted[1..], ["Unreachable"]);
        });
    });
}
