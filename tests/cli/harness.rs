//! Runs programs as a user does, and checks what they print and their exit status.
//!
//! Nothing here sleeps. A program is ready when it reports `READY=1` (`NOTIFY_SOCKET`), when its
//! socket accepts connect(2) (inotify reports the file), or when it has printed something. Every
//! wait has a limit, after which the program is killed and the test fails with its output.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Once, OnceLock};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, mkfifo, pipe2};

use crate::forking::{nobody_forks, spawn};
use crate::outcome::Outcome;
use crate::running::{Running, Stream};
use crate::{sys, wpa_supplicant};

/// The longest any single wait may take before the test fails. A busy machine takes a hundred times as long as a
/// quiet one.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Skips the test and prints why if a program that it needs is not installed. With
/// `UDGRAM_FORBID_SKIPS=1`, fails the test instead.
macro_rules! peer {
    ($($program:literal),+) => {
        $(if !$crate::harness::installed($program) {
            return $crate::harness::skip(concat!($program, " is not installed"));
        })+
    };
}
pub(crate) use peer;

/// Skips the test and prints why unless it runs as root.
macro_rules! root {
    () => {
        if !nix::unistd::geteuid().is_root() {
            return $crate::harness::skip("this needs root");
        }
    };
}
pub(crate) use root;

#[track_caller]
pub(crate) fn skip(reason: &str) {
    assert!(
        std::env::var_os("UDGRAM_FORBID_SKIPS").is_none_or(|value| value != "1"),
        "skips are forbidden: {reason}"
    );
    println!("skipped: {reason}");
}

/// The reason for a skip; see [`Sandbox::runs_wpa_supplicant`].
pub(crate) const NO_WPA_SUPPLICANT: &str = "this wpa_supplicant needs nl80211 in the kernel";

/// Returns the search path of the programs that tests run: the directory of `udgram` first, those of
/// daemons last.
fn search_path() -> OsString {
    let own = Path::new(env!("CARGO_BIN_EXE_udgram")).parent().unwrap();
    let mut path = own.as_os_str().to_owned();
    if let Some(given) = std::env::var_os("PATH") {
        path.push(":");
        path.push(given);
    }
    path.push(":/usr/sbin:/sbin");
    path
}

/// Returns the variable that names the profile of a program built to measure its coverage, if it is set.
pub(crate) fn coverage() -> Option<(&'static str, OsString)> {
    let name = "LLVM_PROFILE_FILE";
    std::env::var_os(name).map(|file| (name, file))
}

/// Makes a pipe, which children do not inherit. Returns its reading and its writing end.
pub(crate) fn pipe() -> (File, File) {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
    (reader.into(), writer.into())
}

/// Makes a pipe that takes nothing more, as [`pipe`].
pub(crate) fn full_pipe() -> (File, File) {
    let (reader, mut writer) = pipe();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while writer.write(&[b'.'; 4096]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, writer)
}

/// Makes a FIFO that a command waits for, open at both ends, so that neither end waits to be opened.
pub(crate) fn fifo(sandbox: &Sandbox, name: &str) -> File {
    mkfifo(&sandbox.path(name), Mode::S_IRWXU).unwrap();
    File::options()
        .read(true)
        .write(true)
        .open(sandbox.path(name))
        .unwrap()
}

/// Closes a descriptor while no child of another test can have a copy of it.
pub(crate) fn close(descriptor: impl Into<OwnedFd>) {
    let _nobody_forks = nobody_forks();
    drop(descriptor.into());
}

pub(crate) fn installed(program: &str) -> bool {
    if let Some(module) = program.strip_prefix("python3 -m ") {
        return installed("python3")
            && spawn(
                Command::new("python3")
                    .args(["-c", &format!("import {module}")])
                    .stderr(Stdio::null()),
            )
            .and_then(|mut python| python.wait())
            .is_ok_and(|status| status.success());
    }
    std::env::split_paths(&search_path()).any(|dir| dir.join(program).is_file())
}

/// A temporary directory, removed when the test ends.
pub(crate) struct Sandbox {
    dir: PathBuf,
    /// A copy of the program for users who cannot reach the build directory.
    program: OnceLock<PathBuf>,
}

impl Sandbox {
    #[must_use]
    #[track_caller]
    pub(crate) fn new() -> Self {
        static SIGNALS: Once = Once::new();
        // A shell starts a job in the background with SIGINT and SIGQUIT ignored, nohup(1) a command with
        // SIGHUP ignored, and programs inherit that.
        SIGNALS.call_once(sys::restore_signals);
        // A socket's pathname has at most 107 bytes, so the directory's name is short.
        let dir = nix::unistd::mkdtemp("/tmp/ud-XXXXXX").unwrap();
        Self {
            dir,
            program: OnceLock::new(),
        }
    }

    #[must_use]
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    #[must_use]
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// Returns an abstract name, without `@`, that no other test uses.
    #[must_use]
    pub(crate) fn unique(&self) -> String {
        self.dir.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// Binds a socket in this directory.
    #[must_use]
    #[track_caller]
    pub(crate) fn bind(&self, name: impl AsRef<Path>) -> UnixDatagram {
        limited(UnixDatagram::bind(self.path(name)).unwrap())
    }

    /// Fills the queue of a socket in this directory with datagrams `0`, and returns their number.
    #[track_caller]
    pub(crate) fn fill(&self, name: &str) -> usize {
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while filler.send_to(b"0", self.path(name)).is_ok() {
            sent += 1;
        }
        sent
    }

    /// Makes a stale socket file: its socket is closed.
    #[track_caller]
    pub(crate) fn stale(&self, name: &str) -> PathBuf {
        close(self.bind(name));
        self.path(name)
    }

    #[track_caller]
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    #[track_caller]
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        fs::create_dir_all(self.path(name)).unwrap();
        self.path(name)
    }

    /// Returns a pathname that is too long for `sun_path`; its parent directory exists.
    #[track_caller]
    pub(crate) fn long_path(&self, name: &str) -> PathBuf {
        let parent = format!("{}/{}", "d".repeat(100), "e".repeat(100));
        self.directory(&parent).join(name)
    }

    #[must_use]
    pub(crate) fn exists(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path(name)).is_ok()
    }

    /// Returns the permission bits of a file in this directory.
    #[must_use]
    #[track_caller]
    pub(crate) fn mode(&self, name: &str) -> u32 {
        use std::os::unix::fs::MetadataExt;
        fs::symlink_metadata(self.path(name)).unwrap().mode() & 0o7777
    }

    pub(crate) fn udgram<I>(&self, args: I) -> Invocation
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.command(env!("CARGO_BIN_EXE_udgram"), args)
    }

    /// Runs the program as another user, who gets access to this directory.
    pub(crate) fn udgram_as<I>(&self, user: u32, args: I) -> Invocation
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let program = self.program.get_or_init(|| {
            let dir = nix::unistd::mkdtemp("/tmp/ud-XXXXXX").unwrap();
            open_to_all(&dir);
            // cp(1) writes the copy. If this process did, a child that another test has just forked
            // could have it open for writing, and execve(2) would fail with ETXTBSY.
            let mut copy = Command::new("cp");
            copy.arg(env!("CARGO_BIN_EXE_udgram"))
                .arg(dir.join("udgram"));
            assert!(spawn(&mut copy).unwrap().wait().unwrap().success());
            dir.join("udgram")
        });
        open_to_all(&self.dir);
        let mut invocation = self.command(program.to_str().unwrap(), args);
        invocation.command.gid(user).uid(user);
        invocation
    }

    pub(crate) fn shell(&self, script: &str) -> Invocation {
        self.command("sh", ["-c", script])
    }

    pub(crate) fn python(&self, script: &str) -> Invocation {
        self.command("python3", ["-c", script])
    }

    pub(crate) fn command<I>(&self, program: &str, args: I) -> Invocation
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .env("PATH", search_path())
            .env("LC_ALL", "C")
            .envs(coverage())
            .current_dir(&self.dir)
            .process_group(0);
        Invocation {
            command,
            dir: self.dir.clone(),
            input: Input::Empty,
            output: None,
            diagnostics: None,
            descriptors: Vec::new(),
            descriptor_limit: None,
            notify: None,
        }
    }

    /// Returns whether the installed wpa_supplicant runs on this kernel.
    #[must_use]
    #[track_caller]
    pub(crate) fn runs_wpa_supplicant(&self) -> bool {
        let version = self.command("wpa_supplicant", ["-v"]).run();
        wpa_supplicant::runs(&String::from_utf8_lossy(version.stdout()))
    }

    /// Starts `udgram listen` with these arguments and waits until it reports that it is ready.
    #[track_caller]
    pub(crate) fn listen<I>(&self, args: I) -> Running
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let arguments = std::iter::once(OsString::from("listen"))
            .chain(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self.udgram(arguments).start_ready()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
        if let Some(program) = self.program.get() {
            let _ = fs::remove_dir_all(program.parent().unwrap());
        }
    }
}

/// Lets other users reach the files of a directory.
fn open_to_all(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Binds a socket to an abstract name; see [`Sandbox::unique`].
#[must_use]
#[track_caller]
pub(crate) fn bind_abstract(name: impl AsRef<[u8]>) -> UnixDatagram {
    use std::os::linux::net::SocketAddrExt;
    let address = SocketAddr::from_abstract_name(name).unwrap();
    limited(UnixDatagram::bind_addr(&address).unwrap())
}

/// Sets a time limit for receiving on a socket, so that a test fails instead of blocking for ever. There is none
/// for sending: a send with a time limit is not restarted after a signal (`sock_intr_errno`).
#[must_use]
#[track_caller]
pub(crate) fn limited(socket: UnixDatagram) -> UnixDatagram {
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// Receives on a socket of the test.
pub(crate) trait Peer {
    /// Receives the next datagram.
    #[must_use]
    fn take(&self) -> Vec<u8>;
    /// Receives the next datagram and its sender.
    #[must_use]
    fn take_from(&self) -> (Vec<u8>, SocketAddr);
    /// Waits until a datagram is queued, without receiving it.
    fn wait_queued(&self);
    /// Fails unless the queue is empty.
    fn has_nothing_more(&self);
}

impl Peer for UnixDatagram {
    #[track_caller]
    fn take(&self) -> Vec<u8> {
        self.take_from().0
    }

    #[track_caller]
    fn take_from(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 8 << 20];
        // A datagram is queued, so that no signal or freeze of the cgroup interrupts the receive: one with a time
        // limit is not restarted (`sock_intr_errno`).
        self.wait_queued();
        let (size, from) = self.recv_from(&mut buffer).unwrap();
        buffer.truncate(size);
        buffer.shrink_to_fit();
        (buffer, from)
    }

    #[track_caller]
    fn wait_queued(&self) {
        let mut watched = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(LIMIT).unwrap();
        while poll(&mut watched, timeout) == Err(Errno::EINTR) {}
        assert!(
            watched[0].any() == Some(true),
            "no datagram arrived within {LIMIT:?}"
        );
    }

    #[track_caller]
    fn has_nothing_more(&self) {
        self.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        let got = self.recv(&mut buffer);
        self.set_nonblocking(false).unwrap();
        if let Ok(size) = got {
            panic!(
                "one datagram too many: {:?}",
                String::from_utf8_lossy(&buffer[..size])
            );
        }
    }
}

enum Input {
    Empty,
    Bytes(Vec<u8>),
    Open,
    From(Stdio),
}

/// A program to run, with its arguments and descriptors.
#[must_use = "a program is run by run() or start()"]
pub(crate) struct Invocation {
    command: Command,
    dir: PathBuf,
    input: Input,
    output: Option<Stdio>,
    diagnostics: Option<Stdio>,
    descriptors: Vec<(OwnedFd, RawFd)>,
    descriptor_limit: Option<u32>,
    notify: Option<UnixDatagram>,
}

impl Invocation {
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<I>(mut self, args: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the whole content of standard input.
    pub(crate) fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.input = Input::Bytes(bytes.as_ref().to_vec());
        self
    }

    /// Leaves standard input open: see [`Running::write`].
    pub(crate) fn stdin_open(mut self) -> Self {
        self.input = Input::Open;
        self
    }

    pub(crate) fn stdin_from(mut self, stdin: impl Into<Stdio>) -> Self {
        self.input = Input::From(stdin.into());
        self
    }

    /// Redirects standard output; the test does not see it.
    pub(crate) fn stdout_to(mut self, stdout: impl Into<Stdio>) -> Self {
        self.output = Some(stdout.into());
        self
    }

    /// Redirects standard error; the test does not see it.
    pub(crate) fn stderr_to(mut self, stderr: impl Into<Stdio>) -> Self {
        self.diagnostics = Some(stderr.into());
        self
    }

    /// Gives the program a copy of an open descriptor, at this number.
    #[track_caller]
    pub(crate) fn descriptor(mut self, descriptor: impl AsFd, number: RawFd) -> Self {
        self.descriptors
            .push((sys::duplicate_out_of_the_way(descriptor.as_fd()), number));
        self
    }

    /// Sets RLIMIT_NOFILE of the program: descriptors have numbers below this.
    pub(crate) fn descriptor_limit(mut self, limit: u32) -> Self {
        self.descriptor_limit = Some(limit);
        self
    }

    #[track_caller]
    pub(crate) fn run(self) -> Outcome {
        self.start().finish()
    }

    #[track_caller]
    pub(crate) fn start(mut self) -> Running {
        let shown = format!("{:?}", self.command);
        self.command.stdin(match &mut self.input {
            Input::Empty => Stdio::null(),
            Input::Bytes(_) | Input::Open => Stdio::piped(),
            Input::From(stdio) => std::mem::replace(stdio, Stdio::null()),
        });
        self.command
            .stdout(self.output.take().unwrap_or_else(Stdio::piped))
            .stderr(self.diagnostics.take().unwrap_or_else(Stdio::piped));
        sys::place_descriptors(&mut self.command, self.descriptors);
        if let Some(limit) = self.descriptor_limit {
            sys::limit_descriptors(&mut self.command, limit);
        }
        let mut child = match spawn(&mut self.command) {
            Ok(child) => child,
            Err(error) => panic!("{shown} cannot be started: {error}"),
        };
        // The command has the other ends of the pipes, and copies of the descriptors that the program was given.
        let alone = nobody_forks();
        drop(self.command);
        drop(alone);
        let mut stdin = child.stdin.take();
        if let Input::Bytes(bytes) = self.input {
            let mut stdin = stdin.take().unwrap();
            // A program may end before it has read everything: the error is ignored.
            thread::spawn(move || stdin.write_all(&bytes));
        }
        let (ended, writer) = pipe();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        thread::spawn(move || {
            // WNOWAIT does not reap the child, so its process id is not reused.
            while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
                == Err(Errno::EINTR)
            {}
            drop(writer);
        });
        Running {
            stdout: Stream::of(child.stdout.take()),
            stderr: Stream::of(child.stderr.take()),
            child,
            shown,
            dir: self.dir,
            stdin,
            ended,
            reaped: false,
            lines: 0,
            notify: self.notify,
        }
    }

    /// Starts the program and waits for its `READY=1`.
    #[track_caller]
    pub(crate) fn start_ready(mut self) -> Running {
        let name = format!(".notify-{}", sys::counter());
        let notify = limited(UnixDatagram::bind(self.dir.join(&name)).unwrap());
        self.command.env("NOTIFY_SOCKET", self.dir.join(name));
        self.notify = Some(notify);
        let running = self.start();
        // Daemons send other fields with it, or before it.
        while !running.notification().lines().any(|line| line == "READY=1") {}
        running
    }
}

/// Returns an envelope without its `time`, after checking the form of the time.
#[must_use]
#[track_caller]
pub(crate) fn timeless(envelope: &str) -> String {
    let (time, rest) = split_time(envelope);
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(
        shape, "0000-00-00T00:00:00.000000000Z",
        "the time in {envelope}"
    );
    format!("{{{rest}")
}

/// Splits an envelope into its `time` and what follows it.
#[must_use]
#[track_caller]
pub(crate) fn split_time(envelope: &str) -> (&str, &str) {
    envelope
        .strip_prefix("{\"time\":\"")
        .and_then(|rest| rest.split_once("\","))
        .unwrap_or_else(|| panic!("no time first in {envelope}"))
}

/// Returns the path as text, for an argument or an expected message.
#[must_use]
#[track_caller]
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Returns an abstract name as `udgram` writes it.
#[must_use]
pub(crate) fn at(name: &str) -> String {
    format!("@{name}")
}

/// Reads a descriptor to its end.
#[must_use]
#[track_caller]
pub(crate) fn content(descriptor: OwnedFd) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::from(descriptor).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Returns a pathname of any bytes.
#[must_use]
pub(crate) fn bytes_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}
