//! Packets of your own types: requests and replies that serde encodes in JSON, and a binary protocol.
//!
//! Run it with `cargo run --example typed_protocol`.
#![allow(clippy::print_stdout)]

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;
use udgram::protocol::{DatagramProtocol, Format, Json, ParseError};
use udgram::{DatagramSocket, UnixDatagramClient, UnixDatagramEndpoint};

const TIMEOUT: Option<Duration> = Some(Duration::from_secs(10));

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Get { sensor: String },
    Reset,
}

#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Celsius(f64),
    Done,
}

fn answer(request: &Request) -> Reply {
    match request {
        Request::Get { sensor } if sensor == "attic" => Reply::Celsius(21.5),
        Request::Get { .. } => Reply::Celsius(19.0),
        Request::Reset => Reply::Done,
    }
}

/// A temperature in tenths of a degree: two bytes, big endian.
struct Thermometer;

impl DatagramProtocol for Thermometer {
    type Sent = i16;
    type View<'d> = i16;
    type Received = i16;

    fn make_datagram<'p>(&self, tenths: &'p i16) -> Result<Cow<'p, [u8]>, ParseError> {
        Ok(tenths.to_be_bytes().to_vec().into())
    }

    fn build_packet(&self, datagram: &[u8]) -> Result<i16, ParseError> {
        let bytes = datagram
            .try_into()
            .map_err(|_| ParseError::new(0, "expected two bytes"))?;
        Ok(i16::from_be_bytes(bytes))
    }
}

fn ask_in_json() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("sensors.sock");
    // Each side sends what the other one receives.
    let server = UnixDatagramEndpoint::bind(&path, Json.typed_pair::<Reply, Request>())?;
    let client = UnixDatagramClient::connect(&path, Json.typed_pair::<Request, Reply>())?;
    std::thread::scope(|scope| {
        let requests = [
            Request::Get {
                sensor: "attic".to_owned(),
            },
            Request::Reset,
        ];
        let count = requests.len();
        let serving = scope.spawn(move || {
            for message in server.iter_received_messages(TIMEOUT).take(count) {
                let message = message?;
                server.send_packet_to(&answer(&message.packet), &message.sender, TIMEOUT)?;
            }
            Ok::<(), udgram::Error>(())
        });
        for request in &requests {
            println!("{request:?} -> {:?}", client.request(request, TIMEOUT)?);
        }
        serving.join().map_err(|_| "the server panicked")??;
        Ok(())
    })
}

fn measure_in_two_bytes() -> Result<(), Box<dyn Error>> {
    let (sensor, reader) = DatagramSocket::pair()?;
    let sensor = UnixDatagramClient::from_connected(sensor, Thermometer)?;
    let reader = UnixDatagramClient::from_connected(reader, Thermometer)?;
    sensor.send_packet(&215, TIMEOUT)?;
    let tenths = reader.recv_packet(TIMEOUT)?;
    println!("{}.{} degrees", tenths / 10, tenths % 10);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    ask_in_json()?;
    measure_in_two_bytes()
}
