//! Random sequences of what programs do with the library, on four sockets. A model says what each step must
//! return; after each step, the files and the descriptors in flight are compared with the model, and at
//! the end the queues.

mod kernel;
mod model;
mod system;

use kernel::{Limits, Name, To};
use model::{Model, Seen};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner};
use system::System;
use udgram::DatagramSocket;

use crate::{nobody_forks, within};
use std::time::Duration;

/// The sockets that are endpoints. The fourth is the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// The server that was started last.
    Server,
    /// The server that was started before it.
    Former,
    Stranger,
}

/// The longest wait of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    /// Long enough to look for the reason why there is no room.
    Short,
}

/// The call that receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Packet,
    Message,
    /// The iterator over all packets that are queued.
    Packets,
}

/// A send.
#[derive(Debug, Clone, Copy)]
struct Sending {
    wait: Wait,
    has_descriptor: bool,
}

/// A step. It has no effect if its socket does not exist.
#[derive(Debug, Clone)]
enum Step {
    StartClient,
    StartServer,
    /// Starts a server that takes the name from another one.
    ReplaceServer,
    StartStranger,
    CloseClient,
    Close(Role),
    /// Closes an endpoint so that its file stays.
    Crash(Role),
    /// Renames the file of the server.
    Rename,
    /// Makes another client of a copy of the descriptor, as a child would.
    Inherit,
    Reconnect,
    ClientSends(Sending),
    ClientReceives(Call),
    /// Asks a question, which the server answers after all that it has received before.
    Ask,
    Sends(Role, Name, Sending),
    Receives(Role, Call),
    /// Sends several datagrams in one call.
    SendsMany(Role, Vec<To>),
    Connects(Role, Name),
    /// Checks that a name can be reached.
    Establishes(Role, Name),
    ShutsDown(Role),
    /// Sends until there is no room, and once more: the receiver reads when the sender sleeps.
    ClientSendsUntilRoom,
    SendsUntilRoom(Role, Name),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let role = || {
        select(
            &[
                Role::Server,
                Role::Server,
                Role::Server,
                Role::Former,
                Role::Stranger,
            ][..],
        )
    };
    let name = || {
        select(
            &[
                Name::Client,
                Name::Client,
                Name::Server,
                Name::Stranger,
                Name::Moved,
            ][..],
        )
    };
    let to = || prop_oneof![Just(To::Peer), Just(To::Peer), name().prop_map(To::Name)];
    let sending = || {
        let wait = prop_oneof![9 => Just(Wait::No), 1 => Just(Wait::Short)];
        (wait, any::<bool>()).prop_map(|(wait, has_descriptor)| Sending {
            wait,
            has_descriptor,
        })
    };
    let call = || select(&[Call::Packet, Call::Message, Call::Packets][..]);
    // Random destinations, or one whose queue gets full.
    let many = prop_oneof![
        vec(to(), 1..20),
        (to(), 1..20_usize).prop_map(|(to, count)| vec![to; count])
    ];
    let step = prop_oneof![
        4 => Just(Step::StartClient),
        1 => Just(Step::StartServer),
        1 => Just(Step::ReplaceServer),
        1 => Just(Step::StartStranger),
        1 => Just(Step::CloseClient),
        2 => role().prop_map(Step::Close),
        1 => role().prop_map(Step::Crash),
        1 => Just(Step::Rename),
        3 => Just(Step::Inherit),
        4 => Just(Step::Reconnect),
        20 => sending().prop_map(Step::ClientSends),
        10 => call().prop_map(Step::ClientReceives),
        2 => Just(Step::Ask),
        20 => (role(), name(), sending()).prop_map(|(role, name, sending)| Step::Sends(role, name, sending)),
        8 => (role(), call()).prop_map(|(role, call)| Step::Receives(role, call)),
        10 => (role(), many).prop_map(|(role, to)| Step::SendsMany(role, to)),
        4 => (role(), name()).prop_map(|(role, name)| Step::Connects(role, name)),
        4 => (role(), name()).prop_map(|(role, name)| Step::Establishes(role, name)),
        1 => role().prop_map(Step::ShutsDown),
        3 => Just(Step::ClientSendsUntilRoom),
        3 => (role(), name()).prop_map(|(role, name)| Step::SendsUntilRoom(role, name)),
    ];
    vec(step, 1..60)
}

/// Returns the limits of this system.
fn limits() -> Limits {
    let path = "/proc/sys/net/unix/max_dgram_qlen";
    let text = std::fs::read_to_string(path).unwrap();
    // The kernel compares before it adds (`unix_recvq_full`).
    let queued = text.trim().parse::<usize>().unwrap() + 1;
    let (one, _other) = DatagramSocket::pair().unwrap();
    one.set_send_buffer_size(0).unwrap();
    let other = std::os::unix::net::UnixDatagram::from(one);
    other.set_nonblocking(true).unwrap();
    let unread = (0..10_000).find(|_| other.send(b"00000").is_err()).unwrap();
    Limits { queued, unread }
}

fn run(steps: &[Step], limits: Limits) -> Result<(), String> {
    // A child of another test would keep descriptors open.
    let _alone = nobody_forks();
    let mut model = Model::new(limits);
    let mut system = System::new();
    for step in model::FIRST.iter().chain(steps).chain(&model::LAST) {
        let expected: Vec<Seen> = model.take(step);
        let seen = system.take(step, &model);
        if !expected.contains(&seen) {
            return Err(format!("{step:?}: {seen:?} instead of {expected:?}"));
        }
        system
            .compare(&model)
            .map_err(|difference| format!("after {step:?}: {difference}"))?;
    }
    Ok(())
}

#[test]
fn the_library_does_what_the_model_says_in_every_sequence() {
    let given = std::env::var("UDGRAM_SEQUENCES").unwrap_or_else(|_| "1 120".to_owned());
    let (seed, cases) = given.split_once(' ').unwrap();
    let (seed, cases) = (seed.parse::<u64>().unwrap(), cases.parse().unwrap());
    within(Duration::from_secs(60 + u64::from(cases)), move || {
        let limits = limits();
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = ProptestConfig {
            cases,
            max_shrink_iters: 2000,
            ..ProptestConfig::default()
        };
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(config, random);
        let result = runner.run(&steps(), |steps| {
            run(&steps, limits).map_err(TestCaseError::fail)
        });
        if let Err(failure) = result {
            panic!("{failure}");
        }
    });
}
