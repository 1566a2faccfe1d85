//! Finds threads that wait to send a datagram: for space in the receiver's queue, or in the send buffer of
//! their own socket, which unread datagrams fill.

use super::root::Root;
use crate::address::Address;
use crate::holder::socket_inode;
use nix::libc;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The kernel functions that they sleep in (/proc/PID/wchan).
const WAITS: [&[u8]; 2] = [b"unix_wait_for_peer", b"sock_alloc_send_pskb"];

/// socketcall(2), by which the C libraries of i386 and s390x send; -1 on others.
const SOCKETCALL: libc::c_long = if cfg!(any(target_arch = "x86", target_arch = "s390x")) {
    102
} else {
    -1
};

/// The socket that a thread waits to send to.
pub(super) enum Target {
    /// The peer of the socket with this inode number.
    PeerOf(u32),
    /// The socket that is bound to an abstract name.
    Abstract(Address<'static>),
    /// The socket that is bound to a file.
    File(Metadata),
}

/// Finds the threads of a process that wait to send. Of the messages of a sendmmsg(2), only the address of the
/// first is read.
pub(super) fn waiting_senders(pid: i32) -> Vec<Target> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks
        .filter_map(|task| {
            let task = task.path();
            let place = fs::read(task.join("wchan")).ok()?;
            if !WAITS.contains(&place.as_slice()) {
                return None;
            }
            let call = fs::read_to_string(task.join("syscall")).ok()?;
            target(&task, &call)
        })
        .collect()
}

/// Decodes /proc/PID/syscall: the number of the call, and its arguments in hexadecimal digits.
fn target(task: &Path, call: &str) -> Option<Target> {
    let mut words = call.split(' ');
    let number: libc::c_long = words.next()?.parse().ok()?;
    let arguments: Vec<u64> = words
        .map_while(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok())
        .collect();
    let own = has_own_calls(task);
    let (number, arguments) = match number {
        SOCKETCALL if own => inside_socketcall(task, &arguments)?,
        _ => (number, arguments),
    };
    let sender = task.join("fd").join(arguments.first()?.to_string());
    let sender = socket_inode(&sender).ok()??;
    if !own {
        return Some(Target::PeerOf(sender));
    }
    let (name, len) = match number {
        libc::SYS_sendto => (*arguments.get(4)?, *arguments.get(5)?),
        libc::SYS_sendmsg | libc::SYS_sendmmsg => {
            // struct msghdr begins with a pointer to the name and its length.
            let header = memory(task, *arguments.get(1)?, size_of::<usize>() + 4)?;
            let (name, len) = header.split_first_chunk()?;
            let len = u32::from_ne_bytes(*len.first_chunk()?);
            (u64::try_from(usize::from_ne_bytes(*name)).ok()?, len.into())
        }
        _ => (0, 0),
    };
    if name == 0 || !(3..=110).contains(&len) {
        return Some(Target::PeerOf(sender));
    }
    let raw = memory(task, name, usize::try_from(len).ok()?)?;
    let address = Address::from_sun_path(raw.get(size_of::<libc::sa_family_t>()..)?);
    let Some(path) = address.as_path() else {
        return Some(Target::Abstract(address));
    };
    let root = Root::open(task).ok()?;
    let file = root.file(&root.absolute(path)?).ok()?;
    Some(Target::File(file.metadata().ok()?))
}

/// Returns the number and the arguments of a call that is made with socketcall(2).
fn inside_socketcall(task: &Path, arguments: &[u64]) -> Option<(libc::c_long, Vec<u64>)> {
    // `SYS_SENDTO`, `SYS_SENDMSG`, `SYS_SENDMMSG` of linux/net.h.
    let number = match arguments.first()? {
        11 => libc::SYS_sendto,
        16 => libc::SYS_sendmsg,
        20 => libc::SYS_sendmmsg,
        _ => return None,
    };
    let inside = memory(task, *arguments.get(1)?, 6 * size_of::<usize>())?;
    let words = inside.chunks_exact(size_of::<usize>());
    let words = words.map(|word| Some(usize::from_ne_bytes(*word.first_chunk()?) as u64));
    Some((number, words.collect::<Option<_>>()?))
}

/// Returns whether the numbers and structures of system calls are those of this program: a 64-bit kernel
/// has others for 32-bit programs.
fn has_own_calls(task: &Path) -> bool {
    let class = |program: &Path| {
        let mut header = [0; 5];
        File::open(program)?.read_exact_at(&mut header, 0)?;
        std::io::Result::Ok(header)
    };
    let own = class(Path::new("/proc/self/exe"));
    own.is_ok_and(|own| class(&task.join("exe")).is_ok_and(|other| other == own))
}

/// Reads the memory of another process. Needs the right to trace it; ptrace(2).
fn memory(task: &Path, address: u64, len: usize) -> Option<Vec<u8>> {
    let memory = File::open(task.join("mem")).ok()?;
    let mut bytes = vec![0; len];
    memory.read_exact_at(&mut bytes, address).ok()?;
    Some(bytes)
}
