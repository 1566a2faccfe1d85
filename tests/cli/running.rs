//! A running program: what it has printed so far, whether it is ready, and its end.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::harness::{LIMIT, Peer};
use crate::outcome::{Outcome, describe};
use crate::sys;

/// The bytes received from a pipe so far.
pub(crate) struct Stream {
    state: Mutex<Received>,
    changed: Condvar,
}

#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    ended: bool,
}

impl Stream {
    pub(crate) fn of(source: Option<impl Read + Send + 'static>) -> Arc<Self> {
        let stream = Arc::new(Self {
            state: Mutex::new(Received {
                ended: source.is_none(),
                ..Received::default()
            }),
            changed: Condvar::new(),
        });
        if let Some(mut source) = source {
            let stream = Arc::clone(&stream);
            thread::spawn(move || {
                let mut buffer = vec![0; 65536];
                loop {
                    let got = source.read(&mut buffer);
                    let mut state = stream.state.lock().unwrap();
                    match got {
                        Ok(0) | Err(_) => state.ended = true,
                        Ok(size) => state.bytes.extend_from_slice(&buffer[..size]),
                    }
                    let ended = state.ended;
                    drop(state);
                    stream.changed.notify_all();
                    if ended {
                        return;
                    }
                }
            });
        }
        stream
    }

    /// Waits until `enough` returns a value; returns `None` after [`LIMIT`].
    fn wait<T>(&self, mut enough: impl FnMut(&Received) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + LIMIT;
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(result) = enough(&state) {
                return Some(result);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.state.lock().unwrap().bytes.clone()
    }
}

/// Watches a directory from now on.
pub(crate) struct Watch(Inotify);

impl Watch {
    #[must_use]
    #[track_caller]
    pub(crate) fn on(directory: &Path) -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
        inotify
            .add_watch(directory, AddWatchFlags::IN_ALL_EVENTS)
            .unwrap();
        Self(inotify)
    }

    /// Returns the name of the next file made there that `wanted` accepts.
    #[must_use]
    #[track_caller]
    pub(crate) fn created(&self, by: &Running, wanted: impl Fn(&OsStr) -> bool) -> OsString {
        loop {
            for event in self.0.read_events().unwrap_or_default() {
                let made = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
                let name = event.name.filter(|_| event.mask.intersects(made));
                if let Some(name) = name.filter(|name| wanted(name)) {
                    return name;
                }
            }
            assert!(
                by.wait_readable(self.0.as_fd()),
                "no file was made\n{}",
                by.context()
            );
        }
    }
}

/// The system calls of poll(2): ppoll and, in 32-bit programs, ppoll_time64.
const POLL: [libc::c_long; 2] = [libc::SYS_ppoll, 414];

/// Returns the number of the system call that a process sleeps or is stopped in.
fn system_call(pid: &str) -> Option<libc::c_long> {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    call.split(' ').next()?.parse().ok()
}

/// Returns whether a process sleeps in poll(2) without a time limit: the third argument is a null pointer.
fn sleeps_without_limit(pid: i32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let mut words = call.split(' ');
    let number = words.next().and_then(|number| number.parse().ok());
    number.is_some_and(|number| POLL.contains(&number)) && words.nth(2) == Some("0x0")
}

/// Returns whether a process sleeps in poll(2).
pub(crate) fn sleeps_in_poll(pid: i32) -> bool {
    system_call(&pid.to_string()).is_some_and(|call| POLL.contains(&call))
}

/// Returns the children of a process.
#[must_use]
#[track_caller]
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    list.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// A running program; dropping it kills and reaps it.
#[must_use = "a running program is ended by finish()"]
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) shown: String,
    pub(crate) dir: PathBuf,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Arc<Stream>,
    pub(crate) stderr: Arc<Stream>,
    /// Readable once the program has ended.
    pub(crate) ended: File,
    pub(crate) reaped: bool,
    /// The number of lines that the test has taken.
    pub(crate) lines: usize,
    pub(crate) notify: Option<UnixDatagram>,
}

impl Running {
    #[must_use]
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Stops the program, and waits until it is stopped.
    #[track_caller]
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let stopped = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
        let pid = Pid::from_raw(self.pid());
        while waitid(Id::Pid(pid), stopped) == Err(Errno::EINTR) {}
    }

    /// Continues the program that [`stop`](Self::stop) stopped.
    #[track_caller]
    pub(crate) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Waits until the program sleeps in poll(2).
    #[track_caller]
    pub(crate) fn wait_asleep(&self) -> &Self {
        self.wait_yielding("it does not sleep in poll(2)", || {
            sleeps_in_poll(self.pid())
        })
    }

    /// Waits until the program sleeps in poll(2) until something happens: no time limit wakes it.
    #[track_caller]
    pub(crate) fn wait_idle(&self) -> &Self {
        self.wait_yielding("it does not sleep in poll(2) without a time limit", || {
            sleeps_without_limit(self.pid())
        })
    }

    /// Waits until the program has read what was written to its standard input.
    #[track_caller]
    pub(crate) fn wait_read(&self) -> &Self {
        let stdin = self.stdin.as_ref().unwrap();
        self.wait_yielding("it does not read stdin", || {
            sys::bytes_in_pipe(stdin.as_fd()) == 0
        })
    }

    /// Waits until the program waits for a change in a directory, as `--wait` does.
    #[track_caller]
    pub(crate) fn wait_watching(&self) -> &Self {
        self.wait_yielding("it watches no directory", || {
            let open = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
            open.flatten()
                .filter_map(|entry| fs::read_link(entry.path()).ok())
                .any(|target| target == Path::new("anon_inode:inotify"))
        })
    }

    /// Waits until the pipe that the program writes to takes nothing more.
    #[track_caller]
    pub(crate) fn wait_full(&self, pipe: impl AsFd) -> &Self {
        self.wait_yielding("the pipe has room", || {
            let mut watched = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
            poll(&mut watched, PollTimeout::ZERO) == Ok(0)
        })
    }

    /// Waits until a signal has stopped a child of the program.
    #[track_caller]
    pub(crate) fn wait_child_stopped(&self, pid: i32) -> &Self {
        self.wait_yielding("its child does not stop", || {
            let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            // The name, in parentheses, may contain any character.
            status.rsplit(')').next().unwrap().starts_with(" T ")
        })
    }

    /// Waits for a state of the program that no descriptor announces.
    #[track_caller]
    fn wait_yielding(&self, failure: &str, condition: impl Fn() -> bool) -> &Self {
        let start = Instant::now();
        while !condition() {
            assert!(
                start.elapsed() < LIMIT && !self.has_ended(),
                "{failure}\n{}",
                self.context()
            );
            thread::yield_now();
        }
        self
    }

    #[track_caller]
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes.as_ref()).unwrap();
        stdin.flush().unwrap();
    }

    /// Receives the next message of the program to its service manager.
    #[must_use]
    #[track_caller]
    pub(crate) fn notification(&self) -> String {
        let socket = self.notify.as_ref().unwrap().as_fd();
        assert!(
            self.wait_readable(socket),
            "no notification came\n{}",
            self.context()
        );
        let bytes = self.notify.as_ref().unwrap().take();
        String::from_utf8(bytes).unwrap().trim_end().to_owned()
    }

    /// Returns the next line on standard output, without its line break.
    #[must_use]
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let wanted = self.lines;
        let line = self.stdout.wait(|received| {
            let mut lines = received.bytes.split_inclusive(|&byte| byte == b'\n');
            match lines.nth(wanted) {
                Some(line) if line.ends_with(b"\n") => Some(Some(line[..line.len() - 1].to_vec())),
                _ if received.ended => Some(None),
                _ => None,
            }
        });
        self.lines += 1;
        let Some(Some(line)) = line else {
            panic!("line {} was not printed\n{}", wanted + 1, self.context())
        };
        String::from_utf8(line).unwrap()
    }

    /// Waits until standard output has as many bytes as `wanted`, for programs that end no line.
    #[must_use]
    #[track_caller]
    pub(crate) fn text(&self, wanted: &str) -> String {
        let enough = |received: &Received| {
            let there = received.bytes.len() >= wanted.len() || received.ended;
            there.then(|| String::from_utf8_lossy(&received.bytes).into_owned())
        };
        match self.stdout.wait(enough) {
            Some(text) => text,
            None => panic!("{wanted:?} was not printed\n{}", self.context()),
        }
    }

    /// Waits until this text is on standard error.
    #[track_caller]
    pub(crate) fn wait_stderr(&self, text: &str) {
        let found = self.stderr.wait(|received| {
            let there = String::from_utf8_lossy(&received.bytes).contains(text);
            (there || received.ended).then_some(there)
        });
        assert!(
            found == Some(true),
            "{text:?} was not printed\n{}",
            self.context()
        );
    }

    /// Waits until a live datagram socket has this name.
    #[track_caller]
    pub(crate) fn wait_bound(&self, path: impl AsRef<Path>) -> &Self {
        let path = self.dir.join(path);
        let probe = UnixDatagram::unbound().unwrap();
        let start = Instant::now();
        let watch = Watch::on(path.parent().unwrap());
        loop {
            let pause = match sys::connect(&probe, &path) {
                // EPERM: it is bound, and connected to another socket.
                Ok(()) | Err(Errno::EPERM | Errno::EACCES) => return self,
                // bind(2) makes the file, which inotify reports, before the socket accepts connect(2).
                Err(Errno::ECONNREFUSED) => Duration::from_millis(5),
                Err(_) => LIMIT,
            };
            let in_time = self.wait_readable_for(watch.0.as_fd(), pause) || pause < LIMIT;
            assert!(
                in_time && start.elapsed() < LIMIT && !self.has_ended(),
                "{} was never bound\n{}",
                path.display(),
                self.context()
            );
            let _ = watch.0.read_events();
        }
    }

    /// Waits until a condition holds; it is checked at each change in the directory of `path`.
    #[track_caller]
    pub(crate) fn wait_until(
        &self,
        path: impl AsRef<Path>,
        mut condition: impl FnMut() -> bool,
    ) -> &Self {
        let path = self.dir.join(path);
        let watch = Watch::on(path.parent().unwrap());
        while !condition() {
            assert!(
                self.wait_readable(watch.0.as_fd()),
                "the condition on {} never held\n{}",
                path.display(),
                self.context()
            );
            let _ = watch.0.read_events();
        }
        self
    }

    /// Waits until the descriptor is readable; returns `false` if the program ended or after
    /// [`LIMIT`].
    #[must_use]
    fn wait_readable(&self, descriptor: BorrowedFd<'_>) -> bool {
        self.wait_readable_for(descriptor, LIMIT)
    }

    fn has_ended(&self) -> bool {
        let mut watched = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        poll(&mut watched, PollTimeout::ZERO) == Ok(1)
    }

    fn wait_readable_for(&self, descriptor: BorrowedFd<'_>, limit: Duration) -> bool {
        let mut watched = [
            PollFd::new(descriptor, PollFlags::POLLIN),
            PollFd::new(self.ended.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = PollTimeout::try_from(limit).unwrap();
        while poll(&mut watched, timeout) == Err(Errno::EINTR) {}
        watched[0].any() == Some(true)
    }

    /// Waits until the program's child is stopped in one of these system calls.
    #[track_caller]
    pub(crate) fn wait_child_in(&self, calls: &[libc::c_long]) {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        self.wait_yielding("the child was never seen in these system calls", || {
            let child = fs::read_to_string(&children).unwrap_or_default();
            system_call(child.trim()).is_some_and(|number| calls.contains(&number))
        });
    }

    /// Returns the number of descriptors that the program has open.
    #[must_use]
    #[track_caller]
    pub(crate) fn open_descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .count()
    }

    #[track_caller]
    pub(crate) fn finish(mut self) -> Outcome {
        self.stdin = None;
        let mut watched = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(LIMIT).unwrap();
        while poll(&mut watched, timeout) == Err(Errno::EINTR) {}
        assert!(
            watched[0].any() == Some(true),
            "did not end within {LIMIT:?}\n{}",
            self.context()
        );
        let status = self.child.wait().unwrap();
        self.reaped = true;
        for stream in [&self.stdout, &self.stderr] {
            if stream
                .wait(|received| received.ended.then_some(()))
                .is_none()
            {
                panic!("a stream stays open after the end\n{}", self.context());
            }
        }
        Outcome {
            shown: self.shown.clone(),
            dir: self.dir.clone(),
            stdout: self.stdout.bytes(),
            stderr: self.stderr.bytes(),
            status,
        }
    }

    pub(crate) fn context(&self) -> String {
        describe(
            &self.shown,
            &self.dir,
            &self.stdout.bytes(),
            &self.stderr.bytes(),
            "running",
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Kill its process group, so that no handler outlives the test.
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        if !self.reaped {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
