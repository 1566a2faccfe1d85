//! Tests with the model, EasyNetwork of Python, as the peer: as client and as server, blocking and
//! asynchronous, in every format, with descriptors and credentials.

use crate::forking::spawn;
use crate::{bound_socket, within_limit};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use udgram::ancillary::{Ancillary, Control, Credentials};
use udgram::protocol::{Cbor, DatagramProtocol, Json, MessagePack};
use udgram::{Address, DatagramSocket, Message, UnixDatagramClient, UnixDatagramEndpoint};

const SOON: Option<Duration> = Some(Duration::from_secs(20));

/// A packet with numbers that a double cannot hold, escapes, and keys out of order.
const PACKET: &str = r#"{"u":18446744073709551615,"i":-9223372036854775808,"f":0.1,"t":"é\n\u0001\u001f😀\"\\","l":[1,2.5,null,true,[],{}],"":{"z":1,"a":-0.5}}"#;

/// Returns whether the model is installed. If not, prints that the test is skipped.
fn model_is_there() -> bool {
    let import = spawn(
        Command::new("python3")
            .args(["-c", "import cbor2, easynetwork.servers, msgpack"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )
    .and_then(Child::wait_with_output);
    match import {
        Ok(output) if output.status.success() => true,
        missing => {
            let forbidden = std::env::var_os("UDGRAM_FORBID_SKIPS").is_some_and(|set| set == "1");
            assert!(
                !forbidden,
                "python3 lacks easynetwork, cbor2 or msgpack: {missing:?}"
            );
            // Not by `eprintln!`, which the test harness captures.
            let skipped = b"skipped: python3 lacks easynetwork, cbor2 or msgpack\n";
            std::io::stderr().write_all(skipped).unwrap();
            false
        }
    }
}

/// A running model; killed when dropped.
struct Model {
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Model {
    fn start(role: &str, mode: &str, format: &str, path: &Path) -> Self {
        let mut process = spawn(
            Command::new("python3")
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/library/model.py"))
                .args([role, mode, format])
                .arg(path)
                .stdin(Stdio::null())
                .stdout(Stdio::piped()),
        )
        .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Self { process, lines }
    }

    /// Returns the next line that it prints.
    fn says(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Makes a pipe, and control data that passes its writing end and the credentials of this process.
fn outgoing() -> (File, OwnedFd, Control) {
    let (reader, writer) = crate::pipe();
    let writer = OwnedFd::from(writer);
    let control = Control::new(&[writer.as_fd()], Some(Credentials::own())).unwrap();
    (reader, writer, control)
}

fn text_of(mut pipe: impl Read) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).unwrap();
    text
}

/// Checks the ancillary data of a packet of the model.
fn check_ancillary(ancillary: &mut Ancillary, model: &Model) {
    assert!(!ancillary.truncated);
    let descriptors: Vec<_> = ancillary.descriptors.drain(..).collect();
    assert_eq!(descriptors.len(), 1);
    for descriptor in descriptors {
        assert_eq!(text_of(File::from(descriptor)), "from the model");
    }
    let own = Credentials::own();
    let pid = i32::try_from(model.process.id()).unwrap();
    assert_eq!(ancillary.credentials, Some(Credentials { pid, ..own }));
}

fn own_credentials() -> Value {
    let Credentials { pid, uid, gid } = Credentials::own();
    json!([[pid, uid, gid]])
}

/// Checks the reply of the model's server. Its JSON has different white space.
fn check_reply(packet: &str, format: &str) {
    let reply: Value = serde_json::from_str(packet).unwrap();
    let sent: Value = serde_json::from_str(PACKET).unwrap();
    assert_eq!(reply["echo"], sent);
    assert_eq!(reply["blob"], "AP8=");
    assert_eq!(reply["credentials"], own_credentials());
    if format != "json" {
        assert!(
            packet.starts_with(&format!("{{\"echo\":{PACKET},\"blob\":")),
            "{packet}"
        );
    }
}

fn the_model_serves<P>(protocol: &P, format: &str)
where
    P: DatagramProtocol<Sent = str, Received = String> + Clone,
{
    for mode in ["sync", "async"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.sock");
        let mut model = Model::start("server", mode, format, &path);
        model.says();
        let address = Address::parse(path.as_os_str().as_encoded_bytes()).unwrap();

        let client = UnixDatagramClient::connect(&address, protocol.clone()).unwrap();
        client.socket().unwrap().set_passcred(true).unwrap();
        let (reader, writer, control) = outgoing();
        client.send_packet_with(PACKET, &control, SOON).unwrap();
        drop(writer);
        let mut reply = client.recv_message(SOON).unwrap();
        assert_eq!(&reply.sender, client.peer_address());
        check_reply(&reply.packet, format);
        check_ancillary(&mut reply.ancillary, &model);
        assert_eq!(text_of(reader), "through the model");

        #[cfg(feature = "async")]
        futures_lite::future::block_on(async {
            let client =
                udgram::AsyncUnixDatagramClient::connect(&address, protocol.clone()).unwrap();
            client.socket().unwrap().set_passcred(true).unwrap();
            let (reader, writer, control) = outgoing();
            client.send_packet_with(PACKET, &control).await.unwrap();
            drop(writer);
            let mut reply = client.recv_message().await.unwrap();
            check_reply(&reply.packet, format);
            check_ancillary(&mut reply.ancillary, &model);
            assert_eq!(text_of(reader), "through the model");
        });
    }
}

/// Checks the first packet of the model's client.
fn check_greeting(greeting: &mut Message<String>, model: &Model) {
    let packet: Value = serde_json::from_str(&greeting.packet).unwrap();
    assert_eq!(packet, json!({"hello": "wörld", "blob": "AP8="}));
    check_ancillary(&mut greeting.ancillary, model);
}

/// Checks the packet that the model's client returns unchanged.
fn check_return(packet: &str) {
    let [packet, sent]: [Value; 2] =
        [packet, PACKET].map(|text| serde_json::from_str(text).unwrap());
    assert_eq!(packet, sent);
}

/// The last packets for the model's client, after which it ends.
const REST: [&str; 3] = ["1", "[2.5]", "null"];

fn check_end(model: &mut Model) {
    let end = model.says();
    assert_eq!(end["pid"], model.process.id());
    assert_eq!(end["credentials"], own_credentials());
    assert_eq!(end["rest"], json!([1, [2.5]]));
    assert!(model.process.wait().unwrap().success());
}

fn serve<P>(socket: DatagramSocket, protocol: P, model: &Model)
where
    P: DatagramProtocol<Sent = str, Received = String>,
{
    let server = UnixDatagramEndpoint::new(socket, protocol).unwrap();
    let mut greeting = server.recv_message(SOON).unwrap();
    check_greeting(&mut greeting, model);
    let client = greeting.sender;
    let (reader, writer, control) = outgoing();
    server
        .send_packet_to_with(PACKET, &client, &control, SOON)
        .unwrap();
    drop(writer);
    assert_eq!(text_of(reader), "through the model");
    check_return(&server.recv_packet(SOON).unwrap());
    for packet in REST {
        server.send_packet_to(packet, &client, SOON).unwrap();
    }
}

#[cfg(feature = "async")]
async fn serve_async<P>(socket: DatagramSocket, protocol: P, model: &Model)
where
    P: DatagramProtocol<Sent = str, Received = String>,
{
    let server = udgram::AsyncUnixDatagramEndpoint::new(socket, protocol).unwrap();
    let mut greeting = server.recv_message().await.unwrap();
    check_greeting(&mut greeting, model);
    let client = greeting.sender;
    let (reader, writer, control) = outgoing();
    server
        .send_packet_to_with(PACKET, &client, &control)
        .await
        .unwrap();
    drop(writer);
    assert_eq!(text_of(reader), "through the model");
    check_return(&server.recv_packet().await.unwrap());
    for packet in REST {
        server.send_packet_to(packet, &client).await.unwrap();
    }
}

fn the_model_is_served<P>(protocol: &P, format: &str)
where
    P: DatagramProtocol<Sent = str, Received = String> + Clone,
{
    let with_model = |mode: &str, serve: &dyn Fn(DatagramSocket, &Model)| {
        let directory = tempfile::tempdir().unwrap();
        let (socket, address, _binding) = bound_socket(&directory);
        socket.set_passcred(true).unwrap();
        let mut model = Model::start("client", mode, format, address.as_path().unwrap());
        serve(socket, &model);
        check_end(&mut model);
    };
    for mode in ["sync", "async"] {
        with_model(mode, &|socket, model| {
            serve(socket, protocol.clone(), model);
        });
        #[cfg(feature = "async")]
        with_model(mode, &|socket, model| {
            smol::block_on(serve_async(socket, protocol.clone(), model));
        });
    }
}

#[test]
fn a_client_of_the_library_talks_to_an_easynetwork_server_in_json() {
    if model_is_there() {
        within_limit(|| the_model_serves(&Json, "json"));
    }
}

#[test]
fn a_client_of_the_library_talks_to_an_easynetwork_server_in_cbor() {
    if model_is_there() {
        within_limit(|| the_model_serves(&Cbor, "cbor"));
    }
}

#[test]
fn a_client_of_the_library_talks_to_an_easynetwork_server_in_messagepack() {
    if model_is_there() {
        within_limit(|| the_model_serves(&MessagePack, "msgpack"));
    }
}

#[test]
fn an_endpoint_of_the_library_serves_an_easynetwork_client_in_json() {
    if model_is_there() {
        within_limit(|| the_model_is_served(&Json, "json"));
    }
}

#[test]
fn an_endpoint_of_the_library_serves_an_easynetwork_client_in_cbor() {
    if model_is_there() {
        within_limit(|| the_model_is_served(&Cbor, "cbor"));
    }
}

#[test]
fn an_endpoint_of_the_library_serves_an_easynetwork_client_in_messagepack() {
    if model_is_there() {
        within_limit(|| the_model_is_served(&MessagePack, "msgpack"));
    }
}
