//! Deadlines under tokio: an answer that comes in time, one that does not, and packets within a budget.
//!
//! Run it with `cargo run --features async --example tokio_deadlines`.
#![allow(clippy::print_stdout)]

use futures_lite::StreamExt;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use udgram::protocol::Text;
use udgram::{AsyncUnixDatagramClient, AsyncUnixDatagramEndpoint, ErrorKind};

/// Answers "now" at once, and nothing else.
async fn serve(server: &AsyncUnixDatagramEndpoint<Text>) -> udgram::Result<()> {
    loop {
        let message = match server.recv_message().await {
            Err(error) if error.kind() == ErrorKind::Closed => return Ok(()),
            message => message?,
        };
        if message.packet == "now" {
            server.send_packet_to("done", &message.sender).await?;
        }
    }
}

async fn run() -> Result<(), Box<dyn Error + Send + Sync>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("app.sock");
    let server = Arc::new(AsyncUnixDatagramEndpoint::bind(&path, Text)?);
    let serving = tokio::spawn({
        let server = Arc::clone(&server);
        async move { serve(&server).await }
    });

    let client = AsyncUnixDatagramClient::connect(&path, Text)?;
    let answer = timeout(Duration::from_secs(10), client.request("now")).await??;
    println!("answered: {answer}");

    // Dropping a future that waits loses no datagram.
    match timeout(Duration::from_millis(50), client.request("later")).await {
        Ok(answer) => println!("answered: {}", answer?),
        Err(_) => println!("no answer within 50 ms"),
    }

    // A budget is for all packets of the stream together.
    client.send_packet("now").await?;
    let mut packets = client.iter_received_packets(Duration::from_millis(200));
    while let Some(packet) = packets.next().await {
        println!("received: {}", packet?);
    }

    server.close();
    serving.await??;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()?
        .block_on(run())
}
