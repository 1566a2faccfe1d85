//! The sockets of a sequence, used through the library.

use super::kernel::{Name, To};
use super::model::{Model, Seen, packet, shown};
use super::{Call, Role, Sending, Step, Wait};
use crate::{is_polling, pipe, this_thread};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::ScopedJoinHandle;
use std::time::Duration;
use tempfile::TempDir;
use udgram::ancillary::Control;
use udgram::protocol::Text;
use udgram::wait::Wake;
use udgram::{
    Address, BindOptions, Binding, Destination, Error, ErrorKind, Message, Occupied, Outgoing,
    Result, UnixDatagramClient, UnixDatagramEndpoint,
};

const NOW: Option<Duration> = Some(Duration::ZERO);
const SHORT: Option<Duration> = Some(Duration::from_millis(1));
/// Longer than the system takes to wake a thread: a call that waits this long waits for the wrong event.
const SOON: Option<Duration> = Some(Duration::from_secs(10));

pub(super) struct System {
    directory: TempDir,
    client: Option<UnixDatagramClient<Text>>,
    /// The socket file of a client that was made of a copy.
    binding: Option<Binding>,
    endpoints: BTreeMap<Role, UnixDatagramEndpoint<Text>>,
    /// The pipes whose writing ends were sent, by the number of the packet.
    pipes: BTreeMap<u32, File>,
}

impl System {
    pub(super) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            client: None,
            binding: None,
            endpoints: BTreeMap::new(),
            pipes: BTreeMap::new(),
        }
    }

    fn path(&self, name: Name) -> PathBuf {
        self.directory.path().join(format!("{name:?}"))
    }

    /// Returns the difference between the state and that of the model.
    pub(super) fn compare(&mut self, model: &Model) -> std::result::Result<(), String> {
        for name in [Name::Client, Name::Server, Name::Stranger, Name::Moved] {
            let exists = fs::symlink_metadata(self.path(name)).is_ok();
            if exists != model.kernel.has_file(name) {
                return Err(format!("the file {name:?}: {exists}"));
            }
        }
        let files = fs::read_dir(self.directory.path()).unwrap().count();
        if files > 4 {
            return Err(format!("{files} files"));
        }
        for (number, pipe) in &self.pipes {
            let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, PollTimeout::ZERO).unwrap();
            let is_open = polled[0].any() == Some(false);
            if is_open != model.kernel.holds_descriptor(*number) {
                return Err(format!(
                    "the descriptor of packet {number} is open: {is_open}"
                ));
            }
        }
        self.pipes
            .retain(|number, _| model.kernel.holds_descriptor(*number));
        Ok(())
    }

    /// Takes a step. `model` has taken it before.
    pub(super) fn take(&mut self, step: &Step, model: &Model) -> Seen {
        match step {
            Step::StartServer => self.start_server(Occupied::Refuse),
            Step::ReplaceServer => self.start_server(Occupied::Replace),
            Step::StartStranger if self.endpoints.contains_key(&Role::Stranger) => Seen::Skipped,
            Step::StartStranger => {
                let endpoint = self.bind(Name::Stranger, Occupied::Refuse);
                self.endpoints.insert(Role::Stranger, endpoint.unwrap());
                Seen::Done
            }
            Step::StartClient if self.client.is_some() => Seen::Skipped,
            Step::StartClient => {
                let (own, peer) = (self.path(Name::Client), self.path(Name::Server));
                let client = UnixDatagramClient::connect_from(&own, &peer, Text);
                done(client.map(|client| {
                    client.socket().unwrap().set_send_buffer_size(0).unwrap();
                    self.client = Some(client);
                }))
            }
            Step::Rename => {
                let _ = fs::rename(self.path(Name::Server), self.path(Name::Moved));
                Seen::Done
            }
            Step::Close(role) => match self.endpoints.remove(role) {
                Some(endpoint) => {
                    endpoint.close();
                    assert!(endpoint.is_closed());
                    Seen::Done
                }
                None => Seen::Skipped,
            },
            Step::Crash(role) => self.crash(*role),
            Step::Sends(role, ..)
            | Step::Receives(role, _)
            | Step::SendsMany(role, _)
            | Step::Connects(role, _)
            | Step::Establishes(role, _)
            | Step::ShutsDown(role) => {
                if self.endpoints.contains_key(role) {
                    self.endpoint_takes(*role, step, model)
                } else {
                    Seen::Skipped
                }
            }
            Step::Ask | Step::ClientSendsUntilRoom | Step::SendsUntilRoom(..)
                if !model.takes_place =>
            {
                Seen::Skipped
            }
            Step::Ask => self.ask(model),
            Step::ClientSendsUntilRoom => self.send_until_room(None, model),
            Step::SendsUntilRoom(role, name) => self.send_until_room(Some((*role, *name)), model),
            _ => self.client_takes(step, model),
        }
    }

    fn bind(&self, name: Name, occupied: Occupied) -> Result<UnixDatagramEndpoint<Text>> {
        let options = BindOptions {
            occupied,
            ..BindOptions::default()
        };
        let endpoint = UnixDatagramEndpoint::bind_with(self.path(name), options, Text)?;
        endpoint.socket()?.set_send_buffer_size(0)?;
        Ok(endpoint)
    }

    fn start_server(&mut self, occupied: Occupied) -> Seen {
        done(self.bind(Name::Server, occupied).map(|endpoint| {
            if let Some(previous) = self.endpoints.insert(Role::Server, endpoint) {
                // The one before it is closed.
                self.endpoints.insert(Role::Former, previous);
            }
        }))
    }

    fn crash(&mut self, role: Role) -> Seen {
        let Some(endpoint) = self.endpoints.remove(&role) else {
            return Seen::Skipped;
        };
        let address = endpoint.local_address().unwrap();
        let path = address.as_path().unwrap();
        let aside = self.directory.path().join("aside");
        let moved = fs::rename(path, &aside);
        drop(endpoint);
        if moved.is_ok() {
            fs::rename(&aside, path).unwrap();
        }
        Seen::Done
    }

    fn client_takes(&mut self, step: &Step, model: &Model) -> Seen {
        let Some(client) = &self.client else {
            return Seen::Skipped;
        };
        match step {
            Step::CloseClient => {
                client.close();
                self.client = None;
                self.binding = None;
                Seen::Done
            }
            Step::Inherit => {
                let copy = client.socket().unwrap().try_clone().unwrap();
                let inherited = UnixDatagramClient::from_connected(copy, Text);
                done(inherited.map(|inherited| {
                    let previous = self.client.replace(inherited).unwrap();
                    let (_, binding) = previous.into_socket().unwrap();
                    self.binding = binding.or(self.binding.take());
                }))
            }
            Step::Reconnect => done(client.reconnect()),
            Step::ClientSends(sending) => {
                let cargo = cargo(*sending);
                let (text, control) = (packet(model.first), control(cargo.as_ref()));
                let sent = client.send_packet_with(&text, &control, limit(*sending));
                self.pipes
                    .extend(cargo.map(|(reader, _)| (model.first, reader)));
                done(sent)
            }
            Step::ClientReceives(Call::Packet) => {
                got(client.recv_packet(NOW).map(|text| (text, None)))
            }
            Step::ClientReceives(Call::Message) => got(client.recv_message(NOW).map(parts)),
            Step::ClientReceives(Call::Packets) => all(client.iter_received_packets(NOW)),
            _ => Seen::Skipped,
        }
    }

    fn endpoint_takes(&mut self, role: Role, step: &Step, model: &Model) -> Seen {
        let endpoint = &self.endpoints[&role];
        let socket = endpoint.socket().unwrap();
        match step {
            Step::Sends(_, name, sending) => {
                let cargo = cargo(*sending);
                let (text, control) = (packet(model.first), control(cargo.as_ref()));
                let to = self.path(*name);
                let sent = endpoint.send_packet_to_with(&text, &to, &control, limit(*sending));
                self.pipes
                    .extend(cargo.map(|(reader, _)| (model.first, reader)));
                done(sent)
            }
            Step::Receives(_, Call::Packet) => {
                got(endpoint.recv_packet(NOW).map(|text| (text, None)))
            }
            Step::Receives(_, Call::Message) => got(endpoint.recv_message(NOW).map(parts)),
            Step::Receives(_, Call::Packets) => all(endpoint.iter_received_packets(NOW)),
            Step::Connects(_, name) => done(socket.connect(self.path(*name))),
            Step::Establishes(_, name) => {
                let destination = Destination::named(self.path(*name));
                done(destination.and_then(|mut to| socket.establish(&mut to)))
            }
            Step::ShutsDown(_) => done(socket.shutdown_read()),
            Step::SendsMany(_, all) => self.send_many(endpoint, all, model.first),
            _ => Seen::Skipped,
        }
    }

    fn send_many(&self, endpoint: &UnixDatagramEndpoint<Text>, all: &[To], first: u32) -> Seen {
        let destinations: Vec<_> = all
            .iter()
            .map(|to| match to {
                To::Peer => Destination::connected(&Address::Unnamed),
                To::Name(name) => Destination::named(self.path(*name)).unwrap(),
            })
            .collect();
        let texts: Vec<_> = (first..).map(packet).take(all.len()).collect();
        let messages: Vec<_> = texts
            .iter()
            .zip(&destinations)
            .map(|(text, to)| Outgoing {
                bytes: text.as_bytes(),
                to: Some(to),
                control: None,
            })
            .collect();
        match endpoint.send_batch(&messages, NOW, &Wake::default()) {
            Ok(_) => Seen::Done,
            Err((sent, error)) => Seen::Sent(sent, error.kind()),
        }
    }

    fn ask(&self, model: &Model) -> Seen {
        let (question, answer) = (packet(model.first), packet(model.first + 1));
        let client = self.client.as_ref().unwrap();
        let server = &self.endpoints[&model.receiver.unwrap()];
        let to = self.path(Name::Client);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| client.request(&question, SOON));
            let mut received = Vec::new();
            while received.last() != Some(&question) {
                match server.recv_packet(SOON) {
                    Ok(text) => received.push(text),
                    Err(error) => return Seen::Got(received, Some(error.kind())),
                }
            }
            if let Err(error) = server.send_packet_to(&answer, &to, SOON) {
                return Seen::Got(received, Some(error.kind()));
            }
            match asking.join().unwrap() {
                Ok(text) => {
                    received.push(text);
                    Seen::Got(received, None)
                }
                Err(error) => Seen::Got(received, Some(error.kind())),
            }
        })
    }

    /// Sends to `to`, or from the client to its peer, until there is no room. The receiver reads when the
    /// sender sleeps.
    fn send_until_room(&self, to: Option<(Role, Name)>, model: &Model) -> Seen {
        let send = |number, timeout| match (&self.client, to) {
            (_, Some((role, name))) => {
                let endpoint = &self.endpoints[&role];
                endpoint.send_packet_to(&packet(number), self.path(name), timeout)
            }
            (Some(client), None) => client.send_packet(&packet(number), timeout),
            (None, None) => Ok(()),
        };
        for (sent, number) in (model.first..model.last).enumerate() {
            if let Err(error) = send(number, NOW) {
                return Seen::Sent(sent, error.kind());
            }
        }
        let receive = || match model.receiver {
            Some(role) => self.endpoints[&role].recv_packet(SOON),
            None => self.client.as_ref().unwrap().recv_packet(SOON),
        };
        let (started, start) = mpsc::channel();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let started = started;
                started.send(this_thread()).unwrap();
                send(model.last, SOON)
            });
            let mut received = Vec::new();
            if !until_polling_or_ended(start.recv().unwrap(), &thread) {
                let end = thread.join().unwrap();
                return Seen::Got(received, end.err().map(|error| error.kind()));
            }
            while received.last() != Some(&packet(model.last)) {
                match receive() {
                    Ok(text) => received.push(text),
                    Err(_) => break,
                }
            }
            let end = thread.join().unwrap();
            Seen::Got(received, end.err().map(|error| error.kind()))
        })
    }
}

/// Waits until a thread sleeps in poll(2) or has ended. Returns whether it sleeps.
fn until_polling_or_ended<T>(tid: i32, thread: &ScopedJoinHandle<'_, T>) -> bool {
    while !thread.is_finished() {
        if is_polling(tid) == Some(true) {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// Returns the reading and the writing end of a pipe, whose writing end is to be sent.
fn cargo(sending: Sending) -> Option<(File, File)> {
    sending.has_descriptor.then(pipe)
}

/// Makes the control data that passes the writing end of a pipe.
fn control(cargo: Option<&(File, File)>) -> Control {
    let descriptors: Vec<_> = cargo.iter().map(|(_, writer)| writer.as_fd()).collect();
    Control::new(&descriptors, None).unwrap()
}

fn limit(sending: Sending) -> Option<Duration> {
    match sending.wait {
        Wait::No => NOW,
        Wait::Short => SHORT,
    }
}

fn done(result: Result<()>) -> Seen {
    match result {
        Ok(()) => Seen::Done,
        Err(error) => Seen::Failed(error.kind()),
    }
}

/// Returns the packet of a message, its sender and the number of its descriptors.
fn parts(message: Message<String>) -> (String, Option<(String, usize)>) {
    let sender = message.sender.as_path().unwrap();
    let sender = sender.file_name().unwrap().to_str().unwrap().to_owned();
    let descriptors = message.ancillary.descriptors.len();
    (message.packet, Some((sender, descriptors)))
}

fn got(result: Result<(String, Option<(String, usize)>)>) -> Seen {
    match result {
        Ok((text, None)) => Seen::Got(vec![shown(Call::Packet, &text, "", 0)], None),
        Ok((text, Some((from, descriptors)))) => {
            let message = shown(Call::Message, &text, &from, descriptors);
            Seen::Got(vec![message], None)
        }
        Err(error) => Seen::Failed(error.kind()),
    }
}

fn all(packets: impl Iterator<Item = Result<String>>) -> Seen {
    let mut received = Vec::new();
    let mut end: Option<ErrorKind> = None;
    for packet in packets {
        match packet {
            Ok(text) => received.push(text),
            Err(error) => end = Some(Error::kind(&error)),
        }
    }
    Seen::Got(received, end)
}
