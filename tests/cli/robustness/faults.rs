//! Failures of system calls: `strace -e inject` makes each system call of udgram fail once with each
//! errno that it may return, and twice in a row. Each time, udgram must end in time with a documented status,
//! report the cause, leave no socket file, and report lost packets.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::forking::spawn;
use crate::harness::{LIMIT, Peer, Sandbox, close, coverage, limited, peer, root};
use crate::running::sleeps_in_poll;
use crate::sys::pidfd;

use super::scaled;

/// Returns the errnos that a call may return; the short form tries the first one only.
fn errnos(call: &str) -> &'static [&'static str] {
    match call {
        "socket" => &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"],
        "bind" => &["EACCES", "EADDRINUSE", "ENOMEM", "EROFS", "ENOENT"],
        "connect" => &[
            "ECONNREFUSED",
            "ENOENT",
            "EACCES",
            "EAGAIN",
            "EINTR",
            "EPERM",
        ],
        "sendmmsg" => &[
            "EINTR",
            "EAGAIN",
            "ENOBUFS",
            "ENOMEM",
            "ECONNRESET",
            "EMSGSIZE",
            "EPERM",
            "EPIPE",
            "ECONNREFUSED",
            "ETOOMANYREFS",
        ],
        "recvmmsg" => &["EINTR", "EAGAIN", "ENOMEM", "ECONNRESET"],
        "ppoll" | "ftruncate" | "fallocate" => &["EINTR", "ENOMEM"],
        "read" => &["EINTR", "EIO", "EAGAIN"],
        "write" => &["EINTR", "ENOSPC", "EAGAIN", "EIO", "EPIPE"],
        "openat" => &["EMFILE", "ENFILE", "EACCES", "ENOENT", "EINTR", "ENOMEM"],
        "fstat" | "newfstatat" | "statx" => &["ENOMEM", "EIO", "ENOENT"],
        "fchmod" | "fchmodat" | "fchmodat2" | "fchownat" => &["EPERM", "EROFS", "EIO"],
        "flock" => &["EINTR", "EWOULDBLOCK", "ENOLCK"],
        "unlinkat" | "unlink" | "renameat2" => &["EPERM", "EBUSY", "EROFS"],
        "linkat" => &["EPERM", "EMLINK", "EEXIST"],
        "clone" | "clone3" | "vfork" => &["EAGAIN", "ENOMEM"],
        "pipe2" | "fcntl" | "dup" | "dup2" | "eventfd2" | "epoll_create1" | "memfd_create"
        | "inotify_init1" | "signalfd4" | "pidfd_open" | "pidfd_getfd" => &["EMFILE", "ENFILE"],
        "epoll_ctl" | "inotify_add_watch" => &["ENOSPC", "ENOMEM"],
        "getsockopt" | "setsockopt" => &["ENOBUFS", "EPERM", "ENOPROTOOPT"],
        "getsockname" | "getpeername" => &["ENOBUFS"],
        "shutdown" => &["ENOTCONN"],
        "execve" => &["ENOENT", "EACCES", "E2BIG", "ENOMEM"],
        "bpf" => &["EPERM", "ENOMEM", "EINVAL", "E2BIG"],
        "unshare" => &["EPERM", "ENOMEM", "ENOSPC"],
        "sendto" | "sendmsg" | "recvfrom" | "recvmsg" => &["EINTR", "ENOBUFS", "ENOMEM"],
        "poll" | "epoll_wait" | "epoll_pwait" | "epoll_pwait2" | "wait4" | "waitid" => &["EINTR"],
        "getdents64" | "readlink" | "readlinkat" | "lseek" => &["EIO", "ENOENT"],
        "prlimit64" | "madvise" | "ioctl" => &["EINVAL"],
        "mmap" => &["ENOMEM"],
        // These cannot fail with these arguments (getpid, rt_sigprocmask), or fail without an effect on udgram
        // (close, munmap; after brk, the allocator calls mmap).
        _ => &[],
    }
}

/// A command line of udgram, and what it prints without a failure.
struct Scenario<'s> {
    arguments: Vec<&'s str>,
    stdin: String,
    /// Datagrams to send when udgram is ready.
    feed: &'static [&'static str],
    /// The socket to send them to.
    feed_to: &'static str,
    ready: Ready,
    stdout: &'static str,
    /// Makes stdout the same in every run.
    normalize: fn(String) -> String,
    /// Datagrams that the peer at `peer` must receive.
    arrived: &'static [&'static str],
    end: End,
    traced: Traced,
}

/// The end of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// udgram ends by itself.
    Own,
    /// It gets SIGTERM when the peer has received everything, or when it sleeps and the peer has received nothing for
    /// this time.
    Signal(Duration),
}

/// The calls that fail.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Traced {
    /// Those of the main thread.
    Main,
    /// Those of each thread, which must not run commands.
    Threads,
}

/// The sign that udgram is ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ready {
    /// With `--verbose`, it reports its local address.
    LocalAddress,
    /// It sends READY=1 to its service manager.
    Notification,
}

struct Run {
    status: ExitStatus,
    stdout: String,
    stderr: String,
    arrived: Vec<String>,
    fed: usize,
}

/// Runs udgram under strace; returns `None` if it does not end in time.
fn run(sandbox: &Sandbox, scenario: &Scenario<'_>, strace: &[String]) -> Option<Run> {
    let _ = fs::remove_file(sandbox.path("peer"));
    let peer = Arc::new(sandbox.bind("peer"));
    let mut command = Command::new("strace");
    command
        .args(["-qq", "-o", "trace", "-e", "signal=none"])
        .args((scenario.traced == Traced::Threads).then_some("-f"))
        .args(strace)
        .args(["--", env!("CARGO_BIN_EXE_udgram"), "-v"])
        .args(&scenario.arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .envs(coverage())
        .current_dir(sandbox.dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let notify = (scenario.ready == Ready::Notification).then(|| {
        let path = sandbox.path("notify");
        let _ = fs::remove_file(&path);
        command.env("NOTIFY_SOCKET", &path);
        limited(UnixDatagram::bind(path).unwrap())
    });
    let mut child = spawn(&mut command).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = scenario.stdin.clone();
    let stdin = thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let mut stdout = child.stdout.take().unwrap();
    let stdout = thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.read_to_string(&mut text);
        text
    });
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (feed, path) = (scenario.feed, sandbox.path(scenario.feed_to));
    let early = if notify.is_some() { &[] } else { feed };
    let stderr = thread::spawn(move || watch(stderr, early, &path));
    let path = sandbox.path(scenario.feed_to);
    let notified = notify.map(|notify| thread::spawn(move || await_ready(&notify, feed, &path)));
    let directory = sandbox.dir().to_owned();
    let echo = Arc::clone(&peer);
    let id = child.id();
    let end = scenario.end;
    let most = match end {
        End::Own => usize::MAX,
        End::Signal(_) => scenario.arrived.len(),
    };
    let echo = thread::spawn(move || {
        let arrived = answer(&echo, &directory, most, || is_queued(&echo, end, id));
        if let (End::Signal(_), Some(udgram)) = (end, traced(id)) {
            let _ = kill(Pid::from_raw(udgram), Signal::SIGTERM);
        }
        arrived
    });
    let ended = ends(&mut child);
    let status = child.wait().unwrap();
    let (said, mut went) = stderr.join().unwrap();
    // An empty datagram ends `answer` and `await_ready`.
    let end = UnixDatagram::unbound().unwrap();
    end.set_nonblocking(true).unwrap();
    let _ = end.send_to(b"", sandbox.path("peer"));
    if let Some(notified) = notified {
        let _ = end.send_to(b"", sandbox.path("notify"));
        went = notified.join().unwrap();
    }
    stdin.join().unwrap();
    let run = Run {
        status,
        stdout: (scenario.normalize)(stdout.join().unwrap()),
        stderr: said,
        arrived: echo.join().unwrap(),
        fed: went,
    };
    // A child of another test may have a copy of it, which `ls --all` would list in the next run.
    close(Arc::into_inner(peer).unwrap());
    ended.then_some(run)
}

/// Waits for the end of the child; kills it and returns `false` after [`LIMIT`].
fn ends(child: &mut Child) -> bool {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let pidfd = pidfd(pid.as_raw());
    let mut watched = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(LIMIT).unwrap();
    let ended = poll(&mut watched, timeout) == Ok(1);
    if !ended {
        let _ = killpg(pid, Signal::SIGKILL);
    }
    ended
}

/// Collects stderr, and sends the datagrams once udgram has reported its address. Returns stderr and
/// the number of datagrams sent.
fn watch(mut stderr: impl BufRead, feed: &[&str], path: &Path) -> (String, usize) {
    let (mut said, mut went) = (String::new(), 0);
    let mut line = String::new();
    while stderr.read_line(&mut line).unwrap_or(0) > 0 {
        if line.contains("the local address is") {
            went = send_all(feed, path);
        }
        said.push_str(&line);
        line.clear();
    }
    (said, went)
}

/// Sends datagrams as far as possible, and returns how many were sent.
fn send_all(feed: &[&str], path: &Path) -> usize {
    let sender = UnixDatagram::unbound().unwrap();
    feed.iter()
        .take_while(|bytes| sender.send_to(bytes.as_bytes(), path).is_ok())
        .count()
}

/// Sends the datagrams when READY=1 arrives. An empty datagram ends the wait.
fn await_ready(notify: &UnixDatagram, feed: &[&str], path: &Path) -> usize {
    loop {
        // `ends` has the time limit.
        while !is_queued_within(notify, LIMIT) {}
        let notification = notify.take();
        if notification.is_empty() {
            return 0;
        }
        if notification.starts_with(b"READY=1") {
            return send_all(feed, path);
        }
    }
}

/// Returns the process that strace has started, if it runs.
fn traced(strace: u32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Waits until a datagram is queued. Returns `false` if udgram has to be ended first. At its end, an empty
/// datagram is queued.
fn is_queued(peer: &UnixDatagram, end: End, strace: u32) -> bool {
    let idle = match end {
        End::Own => LIMIT,
        End::Signal(idle) => idle,
    };
    while !is_queued_within(peer, idle) {
        // A busy machine takes longer to start it.
        if end != End::Own && traced(strace).is_some_and(sleeps_in_poll) {
            return false;
        }
    }
    true
}

/// Returns whether a datagram is queued before this time is over.
fn is_queued_within(peer: &UnixDatagram, time: Duration) -> bool {
    let mut watched = [PollFd::new(peer.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(time).unwrap();
    loop {
        match poll(&mut watched, timeout) {
            Err(Errno::EINTR) => {}
            count => return count.unwrap() > 0,
        }
    }
}

/// Echoes datagrams until an empty one or `most` of them have arrived, or no other is expected, and returns them.
fn answer(
    peer: &UnixDatagram,
    directory: &Path,
    most: usize,
    is_expected: impl Fn() -> bool,
) -> Vec<String> {
    let mut arrived = Vec::new();
    while arrived.len() < most && is_expected() {
        let (bytes, from) = peer.take_from();
        if bytes.is_empty() {
            break;
        }
        if let Some(path) = from.as_pathname() {
            let _ = peer.send_to(&bytes, directory.join(path));
        }
        arrived.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    arrived
}

/// Returns the calls that udgram makes from `main` on, each with its number among those of its name in its
/// thread.
fn calls(sandbox: &Sandbox) -> Vec<(String, usize)> {
    let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
    let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
    let mut calls = Vec::new();
    let mut early: HashMap<&str, usize> = HashMap::new();
    // `main` begins by restoring SIGPIPE. Calls before that are those of the loader and of Rust.
    let mut in_main = false;
    for line in trace.lines() {
        // Where threads are traced, their numbers come first.
        let call = line.trim_start_matches(|digit: char| digit.is_ascii_digit());
        let thread = &line[..line.len() - call.len()];
        let Some((name, rest)) = call.trim_start().split_once('(') else {
            continue;
        };
        if name.starts_with('<') {
            // The end of a call whose beginning has a line of its own.
            continue;
        }
        let count = counts.entry((thread, name)).or_default();
        *count += 1;
        // strace counts the calls of each thread: a small number would be a call of the loader, too.
        let first = early.get(name).copied().unwrap_or_default();
        let numbered = (name.to_owned(), *count);
        if in_main && *count > first && !calls.contains(&numbered) {
            calls.push(numbered);
        }
        if in_main && name == "execve" && rest.ends_with(" = 0") {
            // The calls that follow are those of CMD.
            break;
        }
        if !in_main && name == "rt_sigaction" && rest.starts_with("SIGPIPE, {sa_handler=SIG_DFL") {
            in_main = true;
            early = counts
                .iter()
                .map(|((_, name), count)| (*name, *count))
                .collect();
        }
    }
    calls
}

/// Leaves out calls of a name that is called very often, as those that look through /proc are. The others
/// are spread over the run.
fn spread(calls: Vec<(String, usize)>) -> Vec<(String, usize)> {
    let most = scaled(10, 200);
    let mut of_name: HashMap<String, (usize, usize)> = HashMap::new();
    for (name, _) in &calls {
        of_name.entry(name.clone()).or_default().0 += 1;
    }
    let mut chosen = calls;
    chosen.retain(|(name, _)| {
        let (count, index) = of_name.get_mut(name).unwrap();
        *index += 1;
        // The share of the calls so far grows by one.
        *count <= most || (*index * most) / *count > ((*index - 1) * most) / *count
    });
    chosen
}

/// Returns the calls that fail, as strace counts them: each once, and two calls of a name in a row, so that what
/// follows a failure fails, too. The short form has the first two of each name.
fn faults(calls: Vec<(String, usize)>) -> Vec<(String, String)> {
    let mut numbers: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (call, number) in &calls {
        numbers.entry(call.clone()).or_default().push(*number);
    }
    let mut faults: Vec<_> = spread(calls)
        .into_iter()
        .map(|(call, number)| (call, number.to_string()))
        .collect();
    for (call, numbers) in numbers {
        // A call that a failure repeats follows the last one.
        for number in numbers.iter().take(scaled(1, 50)) {
            faults.push((call.clone(), format!("{number}..{}", number + 1)));
        }
    }
    faults
}

/// Returns what is wrong with the end of a run with a failure, or `None`.
fn judge(
    sandbox: &Sandbox,
    scenario: &Scenario<'_>,
    (call, when): (&str, &str),
    errno: &str,
    run: &Run,
) -> Option<String> {
    let files: Vec<_> = fs::read_dir(sandbox.dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !["peer", "trace", "notify", "d", "t"].contains(&name.as_str()))
        .collect();
    for name in &files {
        fs::remove_file(sandbox.path(name)).unwrap();
    }
    let aborted = run.status.signal() == Some(Signal::SIGABRT as i32);
    if call == "mmap" && aborted && run.stderr.contains("memory allocation of") {
        // The allocator has no memory for the program: Rust ends it.
        return None;
    }
    // udgram looks twice whether the file is its own, and leaves it if it cannot know.
    let unknown = call == "newfstatat" && when.contains("..");
    if !files.is_empty() && !unknown && !call.starts_with("unlink") {
        return Some(format!("left behind: {files:?}"));
    }
    if run.stderr.contains("panicked") {
        return Some("a panic".to_owned());
    }
    let code = match (run.status.code(), run.status.signal()) {
        // EPIPE means that the reader of stdout is gone: udgram dies of SIGPIPE.
        (_, Some(13)) if errno == "EPIPE" => return None,
        (_, Some(15)) if scenario.end != End::Own => 0,
        (Some(code), _) if [0, 1, 2, 3, 4, 124, 126, 127].contains(&code) => code,
        _ => return Some("not a status of the table".to_owned()),
    };
    // If write(2) fails, the diagnostic is lost.
    let note = |line: &str| line.contains("the local address is") || line.contains("the peer is");
    let silent = run.stderr.lines().all(note);
    if code != 0 && silent && call != "write" {
        return Some("it does not report the cause".to_owned());
    }
    let complete = run.stdout == scenario.stdout && run.arrived == scenario.arrived;
    if code == 0 && run.fed == scenario.feed.len() && !complete && silent {
        return Some("a packet is lost without a report".to_owned());
    }
    if errno == "EINTR" && code != 0 && !["openat", "connect"].contains(&call) {
        return Some("an interrupted call is not made again".to_owned());
    }
    None
}

/// Runs a scenario once for each of its calls and errnos, with that call failing.
#[track_caller]
fn every_call_fails(scenario: &Scenario<'_>) {
    let sandbox = Sandbox::new();
    let all = run(&sandbox, scenario, &[]).expect("it does not end");
    let shown = scenario.arguments.join(" ");
    let ended = match scenario.end {
        End::Own => all.status.success(),
        End::Signal(_) => all.status.signal() == Some(Signal::SIGTERM as i32),
    };
    assert!(
        ended && all.stdout == scenario.stdout && all.arrived == scenario.arrived,
        "udgram {shown}: {}\n{}{}{:?}",
        all.status,
        all.stdout,
        all.stderr,
        all.arrived
    );
    assert_eq!(all.fed, scenario.feed.len());
    let calls = calls(&sandbox);
    assert!(calls.len() > 10, "{calls:?}");
    let mut wrong = String::new();
    let mut runs = 0;
    for (call, when) in faults(calls) {
        let errnos = errnos(&call);
        for errno in &errnos[..scaled(1, errnos.len()).min(errnos.len())] {
            let inject = format!("inject={call}:error={errno}:when={when}");
            let strace = ["-e".to_owned(), inject.clone()];
            runs += 1;
            let verdict = match run(&sandbox, scenario, &strace) {
                None => Some("it does not end".to_owned()),
                Some(run) => {
                    judge(&sandbox, scenario, (&call, &when), errno, &run).map(|verdict| {
                        format!(
                            "{verdict}: {}\n{}{}{:?}",
                            run.status, run.stdout, run.stderr, run.arrived
                        )
                    })
                }
            };
            if let Some(verdict) = verdict {
                writeln!(wrong, "udgram {shown}, {inject}: {verdict}").unwrap();
            }
        }
    }
    println!("udgram {shown}: {runs} faults");
    assert!(wrong.is_empty(), "{wrong}");
}

fn scenario<'s>(arguments: &[&'s str]) -> Scenario<'s> {
    Scenario {
        arguments: arguments.to_vec(),
        stdin: String::new(),
        feed: &[],
        feed_to: "s",
        ready: Ready::LocalAddress,
        stdout: "",
        normalize: |stdout| stdout,
        arrived: &[],
        end: End::Own,
        traced: Traced::Main,
    }
}

#[test]
fn listen_handles_a_failure_of_each_system_call() {
    peer!("strace");
    every_call_fails(&Scenario {
        feed: &["1", "[2]"],
        stdout: "1\n[2]\n",
        ..scenario(&["listen", "s", "--count", "2", "--timeout", "1s"])
    });
}

#[test]
fn listen_with_a_handler_handles_a_failure_of_each_system_call() {
    peer!("strace");
    every_call_fails(&Scenario {
        feed: &["1"],
        stdout: "1\n",
        ..scenario(&[
            "listen",
            "s",
            "--count",
            "1",
            "--timeout",
            "1s",
            "--exec",
            "true",
        ])
    });
}

#[test]
fn recv_with_a_command_handles_a_failure_of_each_system_call() {
    peer!("strace");
    every_call_fails(&Scenario {
        feed: &["1"],
        stdout: "1\n",
        ..scenario(&[
            "recv",
            "s",
            "--timeout",
            "1s",
            "--",
            "printenv",
            "UDGRAM_PACKET",
        ])
    });
}

#[test]
fn iter_handles_a_failure_of_each_system_call() {
    peer!("strace");
    every_call_fails(&Scenario {
        feed: &["1", "2"],
        stdout: "1\n2\n",
        ..scenario(&[
            "iter",
            "s",
            "--mode",
            "0666",
            "--owner",
            "0:0",
            "--count",
            "2",
            "--timeout",
            "1s",
        ])
    });
}

#[test]
fn send_handles_a_failure_of_each_system_call() {
    peer!("strace");
    every_call_fails(&Scenario {
        stdin: "1\n2\n".to_owned(),
        arrived: &["1", "2"],
        ..scenario(&["send", "peer", "--timeout", "1s"])
    });
}

#[test]
fn send_with_wait_handles_a_failure_of_each_system_call() {
    peer!("strace");
    every_call_fails(&Scenario {
        arrived: &["1", "2"],
        ..scenario(&["send", "peer", "1", "2", "--wait", "--timeout", "1s"])
    });
}

#[test]
fn send_with_a_reply_handles_a_failure_of_each_system_call() {
    peer!("strace");
    every_call_fails(&Scenario {
        stdout: "1\n",
        arrived: &["1"],
        ..scenario(&[
            "send",
            "peer",
            "1",
            "--bind",
            "s",
            "--reply",
            "--timeout",
            "1s",
            "--fd",
            "0",
            "--creds",
        ])
    });
}

#[test]
fn exec_handles_a_failure_of_each_system_call() {
    peer!("strace");
    every_call_fails(&Scenario {
        stdout: "3\n",
        ..scenario(&[
            "exec",
            "--bind",
            "s",
            "--connect",
            "peer",
            "--",
            "printenv",
            "UDGRAM_SOCKET_FD",
        ])
    });
}

#[test]
fn sockopt_handles_a_failure_of_each_system_call() {
    peer!("strace");
    every_call_fails(&Scenario {
        stdout: "off\n",
        ..scenario(&["sockopt", "--bind", "s", "passcred"])
    });
}

#[test]
fn listen_with_a_lasting_command_handles_a_failure_of_each_system_call() {
    peer!("strace", "sed");
    every_call_fails(&Scenario {
        feed: &["1"],
        stdout: "1\n",
        ..scenario(&[
            "listen",
            "s",
            "--count",
            "1",
            "--timeout",
            "1s",
            "--pipe",
            "sed -u s/.*//",
        ])
    });
}

#[test]
fn talk_handles_a_failure_of_each_system_call() {
    peer!("strace");
    every_call_fails(&Scenario {
        stdin: "1\n2\n".to_owned(),
        arrived: &["1", "2"],
        // Without a pathname, it gets no answer.
        ..scenario(&["talk", "peer", "--timeout", "100ms"])
    });
}

#[test]
fn ls_handles_a_failure_of_each_system_call() {
    peer!("strace");
    every_call_fails(&Scenario {
        stdout: "live",
        normalize: |line| {
            let live = line.lines().count() == 1 && line.contains("\"state\":\"live\"");
            if live { "live".to_owned() } else { line }
        },
        ..scenario(&["ls", "--all", "./peer"])
    });
}

#[test]
fn listen_with_peek_handles_a_failure_of_each_system_call() {
    peer!("strace");
    root!();
    every_call_fails(&Scenario {
        feed: &["1", "2"],
        feed_to: "peer",
        arrived: &["1", "2"],
        ready: Ready::Notification,
        stdout: "1\n2\n",
        ..scenario(&["listen", "--peek", "peer", "-n", "2", "--timeout", "1s"])
    });
}

#[test]
fn exec_with_notifications_handles_a_failure_of_each_system_call() {
    peer!("strace");
    every_call_fails(&Scenario {
        stdout: "{\"READY\":\"1\"}\n",
        ..scenario(&[
            "exec",
            "--notify",
            "--timeout",
            "5s",
            "--",
            "sh",
            "-c",
            concat!(
                env!("CARGO_BIN_EXE_udgram"),
                " send -p text \"$NOTIFY_SOCKET\" READY=1"
            ),
        ])
    });
}

#[test]
fn send_with_a_memfd_handles_a_failure_of_each_system_call() {
    peer!("strace");
    // Longer than a datagram can be. The datagram of the memfd is empty.
    let value = "x".repeat(5 << 20);
    every_call_fails(&Scenario {
        stdin: format!("{{\"A\":\"{value}\"}}\n"),
        ..scenario(&["send", "-p", "fields", "peer", "--timeout", "1s"])
    });
}

#[test]
fn listen_with_a_longer_queue_handles_a_failure_of_each_system_call() {
    peer!("strace");
    root!();
    every_call_fails(&Scenario {
        feed: &["1", "[2]"],
        stdout: "1\n[2]\n",
        // A thread makes the socket.
        traced: Traced::Threads,
        ..scenario(&["listen", "s", "--queue", "50", "-n", "2", "-t", "1s"])
    });
}

#[test]
fn a_copy_of_the_socket_of_a_process_handles_a_failure_of_each_system_call() {
    peer!("strace");
    every_call_fails(&Scenario {
        stdout: "off\n",
        ..scenario(&["sockopt", "--socket-fd", "./peer", "passcred"])
    });
}

#[test]
fn relay_handles_a_failure_of_each_system_call() {
    peer!("strace");
    every_call_fails(&Scenario {
        feed: &["1", "2"],
        arrived: &["1", "2"],
        ready: Ready::Notification,
        end: End::Signal(Duration::from_secs(3)),
        stdout: "2",
        normalize: |envelopes| envelopes.lines().count().to_string(),
        ..scenario(&["relay", "s", "peer"])
    });
}

#[test]
fn a_socket_file_with_a_long_name_handles_a_failure_of_each_system_call() {
    peer!("strace");
    // The kernel binds a hidden file, which gets its name by link(2).
    let name = "n".repeat(150);
    every_call_fails(&Scenario {
        arguments: vec!["iter", &name, "--timeout", "10ms"],
        ..scenario(&[])
    });
}
