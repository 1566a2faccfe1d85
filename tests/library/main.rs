//! Tests the library as its users use it: a test for each guarantee of the client, and EasyNetwork, the model,
//! as its peer in both directions.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

mod answers;
#[cfg(feature = "async")]
mod asynchronous;
#[cfg(feature = "async")]
mod asynchronous_server;
mod bound;
mod client;
#[path = "../cli/forking.rs"]
mod forking;
mod formats;
mod inventory;
mod json;
mod model;
mod observer;
mod peer;
mod processes;
mod request;
mod sequences;
mod server;
mod waiting;

use forking::nobody_forks;
use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::pipe2;
use std::fs::File;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use udgram::{Address, BindOptions, Binding, DatagramSocket, bind};

/// Longer than any test takes: a test that hangs fails after it.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes a pipe, which children do not inherit. Returns its reading and its writing end.
fn pipe() -> (File, File) {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
    (reader.into(), writer.into())
}

/// Runs a test on a new thread for at most [`LIMIT`].
fn within_limit(test: impl FnOnce() + Send + 'static) {
    within(LIMIT, test);
}

/// Runs a test on a new thread for at most `limit`.
fn within(limit: Duration, test: impl FnOnce() + Send + 'static) {
    let (done, end) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        done.send(()).unwrap();
    });
    match end.recv_timeout(limit) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it takes more than {limit:?}"),
        _ => thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// Makes an unconnected socket with an abstract name that the kernel chooses.
fn named_socket() -> (DatagramSocket, Address<'static>) {
    let socket = DatagramSocket::new().unwrap();
    socket.autobind().unwrap();
    let address = socket.local_address().unwrap();
    (socket, address)
}

/// Makes a socket bound in the directory; dropping the binding removes the file.
fn bound_socket(directory: &tempfile::TempDir) -> (DatagramSocket, Address<'static>, Binding) {
    use std::os::unix::ffi::OsStrExt;
    let path = directory.path().join("bound.sock");
    let address = Address::Pathname(path.as_os_str().as_bytes().to_vec().into());
    let socket = DatagramSocket::new().unwrap();
    let binding = bind(&socket, &address, BindOptions::default()).unwrap();
    (socket, address, binding.expect("a pathname"))
}

/// Waits until thread `tid` of this process sleeps in poll(2).
fn until_polling(tid: i32) {
    let start = Instant::now();
    while !is_polling(tid).expect("the thread has ended") {
        assert!(start.elapsed() < LIMIT, "it does not sleep");
        std::thread::yield_now();
    }
}

/// Returns whether thread `tid` of this process sleeps in poll(2); `None` if it has ended.
fn is_polling(tid: i32) -> Option<bool> {
    // ppoll and, in 32-bit programs, ppoll_time64.
    const POLL: [libc::c_long; 2] = [libc::SYS_ppoll, 414];
    let call = std::fs::read_to_string(format!("/proc/self/task/{tid}/syscall")).ok()?;
    let number = call.split(' ').next().and_then(|word| word.parse().ok());
    Some(number.is_some_and(|number| POLL.contains(&number)))
}

fn this_thread() -> i32 {
    nix::unistd::gettid().as_raw()
}
