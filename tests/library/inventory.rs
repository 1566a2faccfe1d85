//! The list of sockets with their owners, and the socket that an address leads to.

use crate::{bound_socket, named_socket, nobody_forks};
use nix::sys::socket::{Shutdown, shutdown};
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use udgram::inventory::{Entry, Inventory, Owner, State};
use udgram::wait::Wake;
use udgram::{
    Address, Batch, DatagramSocket, Destination, ErrorKind, Holder, Outgoing, ReceiveMode,
    ancillary::ControlSpace,
};

fn send(from: &DatagramSocket, to: &Address<'_>, bytes: &[u8]) {
    let destination = Destination::named(to).unwrap();
    let outgoing = [Outgoing {
        bytes,
        to: Some(&destination),
        ..Outgoing::default()
    }];
    from.send(&outgoing, None, &Wake::default()).unwrap();
}

#[track_caller]
fn only(address: &Address<'_>) -> Entry {
    let mut entries = Inventory::read().unwrap().at(address).unwrap();
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries.remove(0)
}

/// Returns whether this process is among the owners, by this descriptor.
fn is_own(owner: &Owner, socket: &DatagramSocket) -> bool {
    let pid = i32::try_from(std::process::id()).unwrap();
    let uid = nix::unistd::geteuid().as_raw();
    let comm = fs::read_to_string("/proc/self/comm").unwrap();
    (owner.pid, owner.fd, owner.uid) == (pid, socket.as_fd().as_raw_fd(), uid)
        && owner.comm == comm.trim_end()
}

#[test]
fn a_bound_socket_is_listed_by_its_name_with_its_owner() {
    let directory = tempfile::tempdir().unwrap();
    let (bound, path, _file) = bound_socket(&directory);
    let (named, name) = named_socket();
    for (socket, address) in [(&bound, &path), (&named, &name)] {
        let entry = only(address);
        assert_eq!(entry.address, *address);
        assert_eq!(entry.state, Some(State::Live));
        assert!(
            entry.owners.iter().any(|owner| is_own(owner, socket)),
            "{entry:?}"
        );
        assert_eq!(
            (entry.queued, entry.full, entry.blocked),
            (false, Some(false), Some(0))
        );
        let listed = Inventory::read().unwrap().named();
        assert!(listed.iter().any(|listed| listed.address == *address));
    }
}

#[test]
fn counting_a_queue_leaves_it_unchanged() {
    let (receiver, address) = named_socket();
    let sender = DatagramSocket::new().unwrap();
    for bytes in [&b"1"[..], b"", b"333"] {
        send(&sender, &address, bytes);
    }
    let entry = only(&address);
    assert!(entry.queued);
    let inventory = Inventory::read().unwrap();
    assert_eq!(inventory.count_queue(&entry).unwrap(), 3);
    let mut batch = Batch::new(&receiver, ControlSpace::NoDescriptors, 8).unwrap();
    assert_eq!(
        receiver
            .try_receive(&mut batch, 8, ReceiveMode::Remove)
            .unwrap(),
        3
    );
}

#[test]
fn unnamed_sockets_are_among_all() {
    let (server, address) = named_socket();
    let client = DatagramSocket::new().unwrap();
    client.connect(&address).unwrap();
    let inventory = Inventory::read().unwrap();
    let is_client =
        |entry: &Entry| entry.address == Address::Unnamed && entry.peer.as_ref() == Some(&address);
    assert!(inventory.all().iter().any(is_client));
    assert!(!inventory.named().iter().any(is_client));
    assert_eq!(only(&address).clients, Some(1));
    // A socket that cannot send is not a client: an inventory connects one to find out which queues are full.
    let mute = DatagramSocket::new().unwrap();
    mute.connect(&address).unwrap();
    shutdown(mute.as_fd().as_raw_fd(), Shutdown::Write).unwrap();
    assert_eq!(only(&address).clients, Some(1));
    drop(server);
}

#[test]
fn the_state_of_a_socket_follows_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, address, _file) = bound_socket(&directory);
    let path: &Path = address.as_path().unwrap();
    fs::rename(path, directory.path().join("moved")).unwrap();
    assert_eq!(only(&address).state, Some(State::Removed));
    fs::write(path, "").unwrap();
    assert_eq!(only(&address).state, Some(State::Shadowed));
    fs::rename(directory.path().join("moved"), path).unwrap();
    assert_eq!(only(&address).state, Some(State::Live));
    let _nobody_forks = nobody_forks();
    drop(socket);
    assert_eq!(only(&address).state, Some(State::Stale));
}

#[test]
fn an_address_without_a_datagram_socket_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let mut inventory = Inventory::read().unwrap();
    for (path, kind) in [
        (&missing, ErrorKind::NobodyThere),
        (&file, ErrorKind::System),
    ] {
        assert_eq!(inventory.at(path.as_path()).unwrap_err().kind(), kind);
        assert_eq!(Holder::bound_to(path.as_path()).unwrap_err().kind(), kind);
        assert_eq!(Holder::copy_bound(path.as_path()).unwrap_err().kind(), kind);
    }
}

#[test]
fn the_socket_at_an_address_is_copied_from_a_process_that_holds_it() {
    let directory = tempfile::tempdir().unwrap();
    let (bound, path, _file) = bound_socket(&directory);
    let (named, name) = named_socket();
    let (_client, client_name) = named_socket();
    for (socket, address) in [(&bound, &path), (&named, &name)] {
        // A connected socket accepts datagrams of its peer only.
        for connected in [false, true] {
            if connected {
                socket.connect(&client_name).unwrap();
            }
            let (copy, holder) = Holder::copy_bound(address).unwrap();
            assert_eq!(copy.local_address().unwrap(), *address);
            assert!(holder.pid > 0 && holder.number > 2);
            let shown = holder.to_string();
            assert!(
                shown.ends_with(&format!(" (process {})", holder.pid)),
                "{shown}"
            );
        }
    }
}
