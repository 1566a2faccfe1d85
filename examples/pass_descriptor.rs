//! A client that passes an open descriptor and proves who it is; a server that writes into it.
//!
//! Run it with `cargo run --example pass_descriptor`.
#![allow(clippy::print_stdout)]

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;
use udgram::ancillary::{Control, Credentials};
use udgram::protocol::Text;
use udgram::{BindOptions, DatagramSocket, UnixDatagramClient, UnixDatagramEndpoint};

const TIMEOUT: Option<Duration> = Some(Duration::from_secs(10));

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("log.sock");

    // Credentials are attached to datagrams that arrive after this: set it before the socket has a name.
    let socket = DatagramSocket::new()?;
    socket.set_passcred(true)?;
    let server = UnixDatagramEndpoint::bind_socket(socket, &path, BindOptions::default(), Text)?;

    // The client passes the writing end of a pipe, and keeps the reading end.
    let client = UnixDatagramClient::connect(&path, Text)?;
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let control = Control::new(&[writer.as_fd()], None)?;
    client.send_packet_with("write here", &control, TIMEOUT)?;
    drop(writer);

    // The server owns the descriptors it receives.
    let message = server.recv_message(TIMEOUT)?;
    let credentials = message.ancillary.credentials.ok_or("no credentials")?;
    println!(
        "server: {:?} from process {}",
        message.packet, credentials.pid
    );
    if credentials != Credentials::own() {
        return Err("this example talks to itself only".into());
    }
    for descriptor in message.ancillary.descriptors {
        writeln!(File::from(descriptor), "hello through your pipe")?;
    }

    // The text ends when the last copy of the writing end is closed.
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text)?;
    print!("client: {text}");
    Ok(())
}
