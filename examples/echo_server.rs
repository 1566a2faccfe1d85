//! A server that echoes packets, and a client that asks it.
//!
//! Run it with `cargo run --example echo_server`.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::time::Duration;
use udgram::protocol::Json;
use udgram::{ErrorKind, UnixDatagramClient, UnixDatagramEndpoint};

/// Echoes each packet to its sender until the endpoint is closed.
fn serve(server: &UnixDatagramEndpoint<Json>) -> udgram::Result<()> {
    for message in server.iter_received_messages(None) {
        match message {
            Ok(message) => {
                println!("server: {} from {}", message.packet, message.sender);
                // A client that does not read must not hold up the others.
                let timeout = Some(Duration::from_millis(100));
                if let Err(error) = server.send_packet_to(&message.packet, &message.sender, timeout)
                {
                    println!("server: {error}");
                }
            }
            // One client's invalid packet does not end the service.
            Err(error) if error.kind() == ErrorKind::Parse => println!("server: {error}"),
            Err(error) if error.kind() == ErrorKind::Closed => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
    // The socket file is removed when the server is closed.
    let server = UnixDatagramEndpoint::bind(&path, Json)?;

    std::thread::scope(|scope| {
        let serving = scope.spawn(|| serve(&server));
        let asked = ask(&path);
        // Whatever came of it, the server ends with this.
        server.close();
        serving.join().map_err(|_| "the server panicked")??;
        Ok(asked?)
    })
}
