//! A server that echoes packets, and a client that asks it.
//!
//! Run it with `cargo run --example echo_server`.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::time::Duration;
use udgram::protocol::Json;
use udgram::{ServerEvent, UnixDatagramClient, UnixDatagramServer};

/// Echoes each packet to its sender until the server is stopped.
fn serve(server: &UnixDatagramServer<Json>) -> udgram::Result<()> {
    server.serve_with(
        |request| {
            println!("server: {} from {}", request.packet, request.sender);
            Some(request.packet)
        },
        // One client's invalid packet does not end the service, and neither does a client that is gone.
        |event| match event {
            ServerEvent::InvalidPacket(error) => println!("server: {error}"),
            ServerEvent::Undelivered(undelivered) => println!("server: {}", undelivered.error()),
            event => println!("server: {event:?}"),
        },
    )
}

/// Asks the server twice.
fn ask(path: &Path) -> udgram::Result<()> {
    let client = UnixDatagramClient::connect(path, Json)?;
    for packet in [r#"{"op": "ping"}"#, "[1, 2, 3]"] {
        let answer = client.request(packet, Some(Duration::from_secs(10)))?;
        println!("client: {answer}");
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("echo.sock");
    // The socket file is removed when the server is dropped.
    let server = UnixDatagramServer::bind(&path, Json)?;

    std::thread::scope(|scope| {
        let serving = scope.spawn(|| serve(&server));
        let asked = ask(&path);
        // Whatever came of it, the server ends with this.
        server.stop();
        serving.join().map_err(|_| "the server panicked")??;
        Ok(asked?)
    })
}
