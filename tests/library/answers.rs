//! Answers to many clients: `Answers`.
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

use super::{named_socket, nobody_forks};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use udgram::ancillary::ControlSpace;
use udgram::answers::{Answers, Growth, Outcome, Reason, Recipient};
use udgram::users::Users;
use udgram::wait::{Deadline, Wake};
use udgram::{Address, BATCH, Batch, ReceiveMode};

/// The number of clients whose answers together take five times the size that the send buffer has at first.
const CLIENTS: usize = 300;

/// A socket that is bound, and connected to nothing: its queue has a limit.
fn client(name: &str) -> UnixDatagram {
    let name = SocketAddr::from_abstract_name(name).unwrap();
    let socket = UnixDatagram::bind_addr(&name).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    socket
}

fn received(client: &UnixDatagram) -> String {
    let mut bytes = [0; 64];
    let len = client.recv(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

#[test]
fn answers_sent_together_come_in_order_and_a_client_without_room_delays_no_other() {
    let unique = tempfile::tempdir().unwrap();
    let name = |last: &str| format!("{}/{last}", unique.path().display());
    let (server, address) = named_socket();
    let [slow, gone, quick] = ["slow", "gone", "quick"].map(|last| client(&name(last)));
    let Address::Abstract(server_name) = address else {
        panic!("{address:?} is not abstract");
    };
    let to = SocketAddr::from_abstract_name(&server_name).unwrap();
    for client in [&slow, &gone, &quick] {
        client.send_to_addr(b"?", &to).unwrap();
    }
    let mut batch = Batch::new(&server, ControlSpace::NoDescriptors, BATCH).unwrap();
    let count = server
        .try_receive(&mut batch, BATCH, ReceiveMode::Remove)
        .unwrap();
    assert_eq!(count, 3);
    let users = Users::of_this_process();
    let recipients: Vec<_> = batch
        .datagrams()
        .map(|datagram| Recipient::of(&datagram, users))
        .collect();
    let lock = nobody_forks();
    drop(gone);
    drop(lock);

    let limit = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
    let count = limit.trim().parse::<usize>().unwrap() + 5;
    let texts: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    let mut all: Vec<(Recipient, &[u8])> = Vec::new();
    for text in &texts {
        all.push((recipients[0].clone(), text.as_bytes()));
    }
    all.insert(2, (recipients[1].clone(), b"lost"));
    all.insert(1, (recipients[2].clone(), b"first"));
    all.push((recipients[2].clone(), b"last"));
    let mut answers = Answers::new(Growth::Allowed);
    let (mut sent, mut undelivered) = (0, Vec::new());
    answers.send_all(&server, all, &mut |outcome| match outcome {
        Outcome::Sent { .. } => sent += 1,
        Outcome::Undelivered(answer) => undelivered.push((answer.reason(), answer.count())),
    });
    assert_eq!(undelivered, [(Reason::Unreachable, 1)]);
    assert!(answers.waiting() > 0);
    assert_eq!(sent + answers.waiting(), count + 2);
    assert_eq!([received(&quick), received(&quick)], ["first", "last"]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for text in &texts {
                assert_eq!(received(&slow), *text);
            }
        });
        answers.finish(&server, Deadline::NEVER, &Wake::default(), &mut |outcome| {
            assert!(matches!(outcome, Outcome::Sent { .. }));
        });
    });
}

#[test]
fn clients_that_all_read_late_are_all_answered() {
    if !nix::unistd::geteuid().is_root() {
        assert!(
            std::env::var_os("UDGRAM_FORBID_SKIPS").is_none_or(|value| value != "1"),
            "skips are forbidden: this needs root"
        );
        println!("skipped: this needs root");
        return;
    }
    let (server, address) = named_socket();
    let Address::Abstract(server_name) = address else {
        panic!("{address:?} is not abstract");
    };
    let to = SocketAddr::from_abstract_name(&server_name).unwrap();
    let unique = tempfile::tempdir().unwrap();
    let mut batch = Batch::new(&server, ControlSpace::NoDescriptors, BATCH).unwrap();
    let (mut clients, mut recipients) = (Vec::new(), Vec::new());
    for number in 0..CLIENTS {
        let client = client(&format!("{}/{number}", unique.path().display()));
        client.send_to_addr(b"?", &to).unwrap();
        server
            .try_receive(&mut batch, 1, ReceiveMode::Remove)
            .unwrap();
        let users = Users::of_this_process();
        recipients.extend(batch.datagrams().map(|asked| Recipient::of(&asked, users)));
        clients.push(client);
    }
    let answer = [b'a'; 10_000];
    let all = recipients.into_iter().map(|to| (to, &answer[..]));
    let mut answers = Answers::new(Growth::Allowed);
    let mut sent = 0;
    let mut count = |outcome: Outcome<'_>| {
        assert!(matches!(outcome, Outcome::Sent { .. }), "{outcome:?}");
        sent += 1;
    };
    answers.send_all(&server, all, &mut count);
    answers.finish(&server, Deadline::NEVER, &Wake::default(), &mut count);
    assert_eq!(sent, CLIENTS);
    for client in clients {
        assert_eq!(client.recv(&mut [0; 16_000]).unwrap(), answer.len());
    }
}
