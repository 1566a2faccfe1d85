//! System calls that the standard library lacks; all `unsafe` code of these tests but that of `forking` is here.

#![allow(unsafe_code)]

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{self, SigHandler, Signal};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, bind, recvmsg,
    sendmsg, setsockopt, sockopt,
};

use crate::harness::{LIMIT, Peer};

/// Returns a number that no other caller in this process gets.
pub(crate) fn counter() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Returns a close-on-exec copy with a number above those that tests give to programs.
#[track_caller]
pub(crate) fn duplicate_out_of_the_way(descriptor: BorrowedFd<'_>) -> OwnedFd {
    let copy = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(500)).unwrap();
    // SAFETY: fcntl(2) has just made this descriptor, and nothing else knows of it.
    unsafe { OwnedFd::from_raw_fd(copy) }
}

/// Restores the default actions of the signals that this process may have been started with ignored.
pub(crate) fn restore_signals() {
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: the default action runs no code of this process.
        unsafe { signal::signal(signal, SigHandler::SigDfl) }.unwrap();
    }
}

/// Makes the program have these descriptors at these numbers.
pub(crate) fn place_descriptors(command: &mut Command, descriptors: Vec<(OwnedFd, RawFd)>) {
    if descriptors.is_empty() {
        return;
    }
    let place = move || {
        for (descriptor, number) in &descriptors {
            // SAFETY: dup2(2) takes two integers and is async-signal-safe; the source is owned by
            // this closure, and what the number stood for in the new process is not in use yet.
            if unsafe { libc::dup2(descriptor.as_raw_fd(), *number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure calls nothing but dup2(2) and reads errno.
    unsafe { command.pre_exec(place) };
}

/// Lowers RLIMIT_NOFILE of the program.
pub(crate) fn limit_descriptors(command: &mut Command, limit: u32) {
    let limit = limit.into();
    let lower = move || Ok(setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?);
    // SAFETY: the closure calls nothing but setrlimit(2) and reads errno.
    unsafe { command.pre_exec(lower) };
}

/// Returns a `sockaddr_un` with this pathname. A pathname of 108 bytes has no final NUL.
#[track_caller]
fn pathname_address(path: &Path) -> (libc::sockaddr_un, libc::socklen_t) {
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: all zeros is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap();
    assert!(
        bytes.len() <= address.sun_path.len(),
        "{} is too long",
        path.display()
    );
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    let length = std::mem::offset_of!(libc::sockaddr_un, sun_path) + bytes.len();
    (address, u32::try_from(length).unwrap())
}

/// Binds a pathname of up to 108 bytes; the standard library allows 107.
#[track_caller]
pub(crate) fn bind_unterminated(socket: &UnixDatagram, path: &Path) {
    let (address, length) = pathname_address(path);
    // SAFETY: the address is alive during the call, and its length is at most its size.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Returns a socket with a name that the kernel chose, and that name.
#[track_caller]
pub(crate) fn autobound() -> (UnixDatagram, Vec<u8>) {
    use std::os::linux::net::SocketAddrExt;
    let socket = crate::harness::limited(UnixDatagram::unbound().unwrap());
    bind(socket.as_raw_fd(), &UnixAddr::new("").unwrap()).unwrap();
    let name = socket.local_addr().unwrap();
    let name = name.as_abstract_name().unwrap().to_owned();
    (socket, name)
}

/// Connects to a pathname of any length, and returns the errno of a failure.
pub(crate) fn connect(socket: &UnixDatagram, path: &Path) -> Result<(), Errno> {
    if path.as_os_str().len() < 108 {
        return socket
            .connect(path)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL)));
    }
    let parent = fs::File::open(path.parent().unwrap()).map_err(|_| Errno::ENOENT)?;
    let short = format!(
        "/proc/self/fd/{}/{}",
        parent.as_raw_fd(),
        Path::new(path.file_name().unwrap()).display()
    );
    connect(socket, Path::new(&short))
}

/// A datagram and its ancillary data.
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
    pub(crate) credentials: Option<UnixCredentials>,
}

/// Sets SO_PASSCRED.
#[track_caller]
pub(crate) fn ask_for_credentials(socket: &UnixDatagram) {
    setsockopt(socket, sockopt::PassCred, &true).unwrap();
}

/// Receives the next datagram with its descriptors and credentials.
#[must_use]
#[track_caller]
pub(crate) fn take_message(socket: &UnixDatagram) -> Message {
    socket.wait_queued();
    let mut buffer = vec![0; 65536];
    let mut control = vec![0; 8192];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let received = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )
    .unwrap();
    let mut descriptors = Vec::new();
    let mut credentials = None;
    for message in received.cmsgs().unwrap() {
        match message {
            ControlMessageOwned::ScmRights(numbers) => {
                for number in numbers {
                    // SAFETY: the kernel has just installed it for this message alone.
                    descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
                }
            }
            ControlMessageOwned::ScmCredentials(given) => credentials = Some(given),
            other => panic!("an unexpected control message: {other:?}"),
        }
    }
    let size = received.bytes;
    buffer.truncate(size);
    Message {
        bytes: buffer,
        descriptors,
        credentials,
    }
}

/// Sends a datagram with descriptors.
#[track_caller]
pub(crate) fn send_descriptors(
    socket: &UnixDatagram,
    to: &Path,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let address = UnixAddr::new(to).unwrap();
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        &[ControlMessage::ScmRights(&numbers)],
        MsgFlags::empty(),
        Some(&address),
    )
    .unwrap();
}

/// Sends a signal by its number, which may be that of a real-time signal.
#[track_caller]
pub(crate) fn signal(pid: i32, number: i32) {
    // SAFETY: the call takes numbers and checks them.
    Errno::result(unsafe { libc::kill(pid, number) }).unwrap();
}

/// Sends a signal with a value; sigqueue(3).
#[track_caller]
pub(crate) fn signal_with_value(pid: i32, number: i32, value: usize) {
    let value = libc::sigval {
        sival_ptr: std::ptr::without_provenance_mut(value),
    };
    // SAFETY: the call takes numbers and checks them; the value is for the receiver alone.
    Errno::result(unsafe { libc::sigqueue(pid, number, value) }).unwrap();
}

/// Returns a descriptor that is readable once the process has ended; pidfd_open(2).
#[must_use]
#[track_caller]
pub(crate) fn pidfd(pid: i32) -> OwnedFd {
    // SAFETY: the call takes two numbers and checks them.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let pidfd = Errno::result(pidfd).unwrap().try_into().unwrap();
    // SAFETY: the call has just returned this descriptor, and nothing else knows of it.
    unsafe { OwnedFd::from_raw_fd(pidfd) }
}

/// Sends a datagram with one descriptor to the socket's peer.
#[track_caller]
pub(crate) fn send_to_peer(socket: &UnixDatagram, bytes: &[u8], descriptor: BorrowedFd<'_>) {
    let numbers = [descriptor.as_raw_fd()];
    let slices = [IoSlice::new(bytes)];
    let control = [ControlMessage::ScmRights(&numbers)];
    let flags = MsgFlags::empty();
    sendmsg::<()>(socket.as_raw_fd(), &slices, &control, flags, None).unwrap();
}

/// Returns the most memory that a process has used so far, in bytes.
#[must_use]
#[track_caller]
pub(crate) fn peak_memory(pid: i32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = peak.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<usize>().unwrap() << 10
}

/// Waits until every datagram sent from the socket has been received.
#[track_caller]
pub(crate) fn wait_received(socket: &UnixDatagram) {
    let start = Instant::now();
    let mut unread: libc::c_int = 1;
    while unread > 0 {
        // SAFETY: TIOCOUTQ writes one int, which `unread` is.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
        assert!(
            result == 0 && start.elapsed() < LIMIT,
            "{unread} bytes are not received"
        );
        std::thread::yield_now();
    }
}

/// Returns the number of bytes in a pipe; ioctl_pipe(2).
pub(crate) fn bytes_in_pipe(pipe: BorrowedFd<'_>) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: the call writes one number into a variable of its type.
    let result = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    assert_eq!(result, 0);
    usize::try_from(count).unwrap()
}
