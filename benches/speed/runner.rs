//! Runs the programs in a directory: one function for each kind of measurement.

use crate::contender::{Contender, End, OBSERVED, Program};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The packet, 100 bytes. Each copy has its own sequence number, which is checked on arrival.
const PACKET: &str = concat!(
    r#"{"seq":"000000000","op":"set","name":"sensor-7","#,
    r#""value":21.375,"unit":"degC","tags":["a"],"on":true}"#
);
/// The offset of the end of the sequence number.
const NUMBERED: usize = 17;
/// The size of a datagram that needs a larger SO_SNDBUF.
const LARGE: u32 = 4_000_000;
const LARGE_COUNT: u32 = 32;
/// The count for a receiver that must not exit.
pub(crate) const ENDLESS: u32 = 4_000_000_000;
/// The timeout for a program to be ready, and to finish after the last packet is sent.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The time without a new line after which a burst is over.
const QUIET: Duration = Duration::from_millis(100);
/// The time that a receiver waits before its idle memory is read.
const IDLE: Duration = Duration::from_secs(2);

/// The processors that the two sides run on.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pin {
    One,
    Two,
}

/// A process, killed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    name: &'static str,
    stderr: PathBuf,
}

impl Running {
    /// Starts the work of a waiting generator or client, and returns the time.
    pub(crate) fn go(&mut self) -> Result<Instant> {
        let mut stdin = self.child.stdin.take().context("no stdin")?;
        let now = Instant::now();
        stdin.write_all(b"\n")?;
        Ok(now)
    }

    /// Waits for the exit, and fails if its status is not 0.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), self.message(&status.to_string()));
        Ok(())
    }

    /// Waits for a successful exit, or until `enough` returns true.
    pub(crate) fn finish_soon(&mut self, enough: impl Fn() -> bool) -> Result<()> {
        let late = Instant::now() + TIMEOUT;
        while !enough() {
            if self.child.try_wait()?.is_some() {
                return self.finish();
            }
            if Instant::now() > late {
                bail!(self.message("did not finish: packets were lost"));
            }
            sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Returns an error message with the last line that the program has written to stderr.
    fn message(&self, what: &str) -> String {
        let said = fs::read_to_string(&self.stderr).unwrap_or_default();
        let last = said.lines().last().unwrap_or("nothing on stderr");
        format!("{}: {what} ({last})", self.name)
    }

    /// Reads a field of `/proc/PID/status`, in bytes.
    pub(crate) fn memory(&self, field: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u32>().ok())
            .context(format!("no {field}"))?;
        Ok(f64::from(kib) * 1024.0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The programs, and the directory in which they run.
pub(crate) struct Runner {
    pub(crate) directory: PathBuf,
    pub(crate) floor: String,
    pub(crate) udgram: String,
    pub(crate) static_build: Option<String>,
    pub(crate) python: String,
    pub(crate) pin: Option<Pin>,
    /// True if jq is installed.
    pub(crate) has_jq: bool,
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Runner {
    fn address(&self) -> PathBuf {
        self.directory.join("a")
    }

    /// Returns the address of the generator or client, for contenders that are given their peer.
    fn peer(&self) -> PathBuf {
        self.directory.join("a.peer")
    }

    /// Returns the address of the process that a relay passes packets on to.
    fn behind(&self) -> PathBuf {
        self.directory.join("a.behind")
    }

    pub(crate) fn lines(&self) -> PathBuf {
        self.directory.join("lines")
    }

    /// Returns the words of a command line, with those in braces replaced.
    fn words(&self, template: &str, count: u32) -> Vec<String> {
        let peers = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/speed/peers.py");
        template
            .split(' ')
            .flat_map(|word| match word {
                "{python}" => vec![self.python.clone(), peers.to_owned()],
                _ => vec![word.to_owned()],
            })
            .map(|word| {
                word.replace("{floor}", &self.floor)
                    .replace("{udgram}", &self.udgram)
                    .replace("{filter}", &format!("{} filter", self.floor))
                    .replace("{jq}", "jq -c --unbuffered .")
                    .replace(
                        "{static}",
                        self.static_build.as_deref().unwrap_or("{static}"),
                    )
                    .replace("{addr}", &self.address().to_string_lossy())
                    .replace("{behind}", &self.behind().to_string_lossy())
                    .replace("{lines}", &self.lines().to_string_lossy())
                    .replace("{peer}", &self.peer().to_string_lossy())
                    .replace("{count}", &count.to_string())
                    .replace("{linesize}", &(PACKET.len() + 1).to_string())
                    .replace("{packet}", PACKET)
            })
            .collect()
    }

    fn command(&self, template: &str, count: u32) -> Command {
        let words = self.words(template, count);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        // Cargo sets LD_LIBRARY_PATH, whose directories the dynamic linker of every contender would search.
        command.env_remove("LD_LIBRARY_PATH");
        command
    }

    /// Returns the command of the process at the other end.
    pub(crate) fn opposite(&self, template: &str, count: u32) -> Command {
        self.pinned("0", template, count)
    }

    fn contender(&self, contender: &Contender, count: u32) -> Command {
        self.pinned(self.processor(), contender.command, count)
    }

    /// The processor of the contender, if it has one of its own.
    fn processor(&self) -> &'static str {
        if self.pin == Some(Pin::Two) { "1" } else { "0" }
    }

    fn pinned(&self, processor: &str, template: &str, count: u32) -> Command {
        match self.pin {
            Some(_) => self.command(&format!("taskset -c {processor} {template}"), count),
            None => self.command(template, count),
        }
    }

    pub(crate) fn spawn(
        &self,
        name: &'static str,
        mut command: Command,
        stdin: Stdio,
        stdout: Stdio,
    ) -> Result<Running> {
        let stderr = self.directory.join(name);
        let child = command
            .stdin(stdin)
            .stdout(stdout)
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("{name}: {command:?}"))?;
        Ok(Running {
            child,
            name,
            stderr,
        })
    }

    pub(crate) fn clear(&self) {
        let _ = fs::remove_file(self.address());
        let _ = fs::remove_file(self.peer());
        let _ = fs::remove_file(self.behind());
    }

    /// Waits until a socket is bound to `path`. EPERM: it is bound, and connected to another peer.
    fn wait_bound(running: &mut Running, path: &Path) -> Result<()> {
        let late = Instant::now() + TIMEOUT;
        loop {
            match UnixDatagram::unbound()?.connect(path) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => return Ok(()),
                Err(_) if running.child.try_wait()?.is_some() => {
                    bail!(running.message("ended before it was ready"))
                }
                Err(e) if Instant::now() > late => bail!(running.message(&e.to_string())),
                Err(_) => sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Starts the other end, which binds its address and waits for [`Running::go`].
    pub(crate) fn counterpart(&self, template: &str, count: u32, end: End) -> Result<Running> {
        let mut command = self.opposite(template, count);
        let newline = if end == End::Size { "\n" } else { "" };
        command.arg(format!("{PACKET}{newline}")).arg(self.peer());
        let mut running = self.spawn("generator", command, Stdio::piped(), Stdio::piped())?;
        Self::wait_bound(&mut running, &self.peer())?;
        Ok(running)
    }

    pub(crate) fn receiver(
        &self,
        contender: &Contender,
        count: u32,
        stdout: Stdio,
    ) -> Result<Running> {
        let command = self.contender(contender, count);
        let mut receiver = self.spawn(contender.program.name(), command, Stdio::null(), stdout)?;
        Self::wait_bound(&mut receiver, &self.address())?;
        Ok(receiver)
    }

    /// Returns the bytes of so many lines.
    pub(crate) fn lines_len(count: u32) -> u64 {
        u64::from(count) * (PACKET.len() as u64 + 1)
    }

    pub(crate) fn line_count_reached(&self, bytes: u64) -> impl Fn() -> bool {
        let path = self.lines();
        move || path.metadata().is_ok_and(|m| m.len() >= bytes)
    }

    /// Returns the seconds from the first datagram sent to the last line in the receiver's file. The
    /// sender sends batches with sendmmsg(2).
    pub(crate) fn receive(&self, contender: &Contender, count: u32) -> Result<f64> {
        self.receive_from("{floor} generate {addr} {count}", contender, count)
    }

    /// The same with a sender that makes one system call for each datagram, as most programs do.
    pub(crate) fn receive_singly(&self, contender: &Contender, count: u32) -> Result<f64> {
        self.receive_from("{floor} generate-singly {addr} {count}", contender, count)
    }

    fn receive_from(&self, sender: &str, contender: &Contender, count: u32) -> Result<f64> {
        self.clear();
        let mut generator = self.counterpart(sender, count, contender.end)?;
        let mut receiver = self.receiver(contender, count, File::create(self.lines())?.into())?;
        let begun = generator.go()?;
        if let Err(e) = generator.finish() {
            bail!("{e}; {}", receiver.message("stopped receiving"));
        }
        let bytes = match contender.end {
            End::Exit => u64::MAX,
            End::Size => u64::from(count) * (PACKET.len() as u64 + 1),
        };
        receiver.finish_soon(self.line_count_reached(bytes))?;
        let elapsed = begun.elapsed().as_secs_f64();
        drop(receiver);
        self.check_lines(count)?;
        Ok(elapsed)
    }

    /// Checks that the file has every packet once, in order, one on a line.
    fn check_lines(&self, count: u32) -> Result<()> {
        let mut file = BufReader::with_capacity(1 << 20, File::open(self.lines())?);
        let mut line = Vec::new();
        let mut seen = 0;
        while file.read_until(b'\n', &mut line)? > 0 {
            let number = format!(r#"{{"seq":"{seen:09}""#);
            if memchr::memmem::find(&line, number.as_bytes()).is_none() {
                bail!("line {} is {:?}", seen + 1, String::from_utf8_lossy(&line));
            }
            seen += 1;
            line.clear();
        }
        ensure!(seen == count, "{seen} lines of {count} packets");
        Ok(())
    }

    fn write_lines(&self, count: u32) -> Result<()> {
        let mut file = BufWriter::new(File::create(self.lines())?);
        for number in 0..count {
            writeln!(file, r#"{{"seq":"{number:09}{}"#, &PACKET[NUMBERED..])?;
        }
        file.flush()?;
        Ok(())
    }

    /// Returns the seconds from the sender's start until its lines have arrived at a sink that checks them.
    pub(crate) fn send(&self, contender: &Contender, count: u32) -> Result<f64> {
        self.clear();
        let lines = u64::from(count) * (PACKET.len() as u64 + 1);
        if self.lines().metadata().map_or(0, |m| m.len()) != lines {
            self.write_lines(count)?;
        }
        let mut sink = self.spawn(
            "sink",
            self.opposite("{floor} sink {addr} {count}", count),
            Stdio::null(),
            Stdio::null(),
        )?;
        Self::wait_bound(&mut sink, &self.address())?;
        let begun = Instant::now();
        let command = self.contender(contender, count);
        let mut sender = self.spawn(
            contender.program.name(),
            command,
            File::open(self.lines())?.into(),
            Stdio::null(),
        )?;
        if let Err(e) = sender.finish() {
            bail!("{e}; {}", sink.message("still waits"));
        }
        sink.finish_soon(|| false)?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Returns how many datagrams of a burst a receiver that is ready for them writes. Those that find
    /// the queue full are lost.
    pub(crate) fn volley(&self, contender: &Contender, count: u32) -> Result<f64> {
        self.clear();
        let _receiver = self.receiver(contender, ENDLESS, File::create(self.lines())?.into())?;
        let mut senders = self.opposite("{floor} volley {addr} {count}", count);
        senders.arg(PACKET);
        self.spawn("senders", senders, Stdio::null(), Stdio::null())?
            .finish()?;
        let mut size = u64::MAX;
        loop {
            let now = self.lines().metadata()?.len();
            if now == size {
                break;
            }
            size = now;
            sleep(QUIET);
        }
        let received = u32::try_from(size / (PACKET.len() as u64 + 1))?;
        Ok(f64::from(received))
    }

    /// Returns the seconds in which a client has asked each line and printed each answer.
    pub(crate) fn ask(&self, contender: &Contender, count: u32) -> Result<f64> {
        self.clear();
        self.write_lines(count)?;
        let server = self.opposite("{udgram} listen -p json --echo {addr}", count);
        let mut server = self.spawn("server", server, Stdio::null(), Stdio::null())?;
        Self::wait_bound(&mut server, &self.address())?;
        let answers = self.directory.join("answers");
        let begun = Instant::now();
        let mut client = self.spawn(
            contender.program.name(),
            self.contender(contender, count),
            File::open(self.lines())?.into(),
            File::create(&answers)?.into(),
        )?;
        client.finish()?;
        let elapsed = begun.elapsed().as_secs_f64();
        ensure!(
            fs::read(self.lines())? == fs::read(&answers)?,
            "the answers are not the questions"
        );
        fs::remove_file(&answers)?;
        Ok(elapsed)
    }

    /// Returns the seconds for each request of one client, one at a time.
    pub(crate) fn echo(&self, contender: &Contender, count: u32) -> Result<f64> {
        self.ask_server("{floor} ping {addr} {count}", contender, count)
    }

    /// Returns the same for a client that has several requests under way.
    pub(crate) fn answers(&self, contender: &Contender, count: u32) -> Result<f64> {
        self.ask_server("{floor} ping-window {addr} {count}", contender, count)
    }

    fn ask_server(&self, client: &str, contender: &Contender, count: u32) -> Result<f64> {
        self.clear();
        let mut client = self.counterpart(client, count, End::Exit)?;
        let _server = self.receiver(contender, count, Stdio::null())?;
        client.go()?;
        client.finish()?;
        let mut answer = String::new();
        client
            .child
            .stdout
            .take()
            .context("no stdout")?
            .read_to_string(&mut answer)?;
        Ok(answer.trim().parse::<f64>()? / 1e9)
    }

    /// Returns the seconds for each request of `udgram send --reply`, one at a time.
    pub(crate) fn asked(&self, contender: &Contender, count: u32) -> Result<f64> {
        self.clear();
        self.write_lines(count)?;
        let _server = self.receiver(contender, count, Stdio::null())?;
        let begun = Instant::now();
        let mut client = self.spawn(
            "client",
            self.opposite("{udgram} send -p text --reply {addr}", count),
            File::open(self.lines())?.into(),
            Stdio::null(),
        )?;
        client.finish()?;
        Ok(begun.elapsed().as_secs_f64() / f64::from(count))
    }

    /// Returns the median run time of processes that each send one packet, in seconds.
    pub(crate) fn start(&self, contender: &Contender, count: u32) -> Result<f64> {
        let mut lives = Vec::new();
        self.one_by_one(contender.command, count, |command| {
            let begun = Instant::now();
            let status = command.status()?;
            lives.push(begun.elapsed().as_secs_f64());
            ensure!(status.success(), "{status}");
            Ok(())
        })?;
        lives.sort_by(f64::total_cmp);
        Ok(lives[lives.len() / 2])
    }

    /// Returns the instructions that one such process executes, as callgrind counts them.
    pub(crate) fn instructions(&self, contender: &Contender) -> Result<f64> {
        let valgrind = "valgrind --tool=callgrind --callgrind-out-file=/dev/null ";
        let mut collected = 0;
        self.one_by_one(&format!("{valgrind}{}", contender.command), 1, |command| {
            let output = command.stderr(Stdio::piped()).output()?;
            let text = String::from_utf8_lossy(&output.stderr);
            collected = text
                .lines()
                .find_map(|line| {
                    line.split_once("Collected : ")?
                        .1
                        .trim()
                        .parse::<u32>()
                        .ok()
                })
                .with_context(|| format!("valgrind said: {text}"))?;
            Ok(())
        })?;
        Ok(f64::from(collected))
    }

    /// Runs a command that sends one packet, and checks that the packet arrives.
    fn one_by_one(
        &self,
        template: &str,
        count: u32,
        mut run: impl FnMut(&mut Command) -> Result<()>,
    ) -> Result<()> {
        self.clear();
        let packet = self.directory.join("packet");
        fs::write(&packet, PACKET)?;
        let sink = UnixDatagram::bind(self.address())?;
        sink.set_read_timeout(Some(TIMEOUT))?;
        let mut buffer = [0; 2 * PACKET.len()];
        for _ in 0..count {
            let mut command = self.command(template, 1);
            command
                .stdin(File::open(&packet)?)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            run(&mut command)?;
            let size = sink.recv(&mut buffer)?;
            ensure!(
                &buffer[..size] == PACKET.as_bytes(),
                "the packet arrived changed"
            );
        }
        Ok(())
    }

    /// Returns a receiver's memory in bytes: peak and current after small datagrams, and current after
    /// large ones once idle. Programs that truncate datagrams are not sent large ones.
    pub(crate) fn memory(&self, contender: &Contender, count: u32) -> Result<Vec<f64>> {
        self.clear();
        let mut generator =
            self.counterpart("{floor} generate {addr} {count}", count, contender.end)?;
        let mut receiver = self.receiver(contender, ENDLESS, File::create(self.lines())?.into())?;
        generator.go()?;
        generator.finish()?;
        let small = u64::from(count) * (PACKET.len() as u64 + 1);
        receiver.finish_soon(self.line_count_reached(small))?;
        let mut sizes = vec![receiver.memory("VmHWM")?, receiver.memory("VmRSS")?];
        if contender.end == End::Exit {
            let mut burst = self.opposite("{floor} burst {addr} {count}", LARGE_COUNT);
            burst.arg(LARGE.to_string());
            self.spawn("burst", burst, Stdio::null(), Stdio::null())?
                .finish()?;
            let large = u64::from(LARGE_COUNT) * (u64::from(LARGE) + 1);
            receiver.finish_soon(self.line_count_reached(small + large))?;
            sleep(IDLE);
            sizes.push(receiver.memory("VmRSS")?);
        }
        File::create(self.lines())?;
        Ok(sizes)
    }

    /// Returns the seconds from a single packet, sent to a sleeping receiver, to the line in its pipe:
    /// median, 99th percentile and maximum.
    pub(crate) fn latency(&self, contender: &Contender, count: u32) -> Result<Vec<f64>> {
        self.clear();
        let sender = UnixDatagram::bind(self.peer())?;
        let mut receiver = self.receiver(contender, ENDLESS, Stdio::piped())?;
        let mut lines = receiver.child.stdout.take().context("no stdout")?;
        let newline = if contender.end == End::Size { "\n" } else { "" };
        let mut times = Vec::new();
        let mut buffer = [0; 2 * PACKET.len()];
        for number in 0..count {
            sleep(Duration::from_millis(2));
            let line = format!(r#"{{"seq":"{number:09}{}{newline}"#, &PACKET[NUMBERED..]);
            let sent = Instant::now();
            sender.send_to(line.as_bytes(), self.address())?;
            let mut filled = 0;
            while buffer[..filled].last() != Some(&b'\n') {
                let mut wanted = [PollFd::new(lines.as_fd(), PollFlags::POLLIN)];
                let patience = PollTimeout::try_from(TIMEOUT)?;
                ensure!(
                    poll(&mut wanted, patience)? > 0,
                    receiver.message("writes nothing")
                );
                let n = lines.read(&mut buffer[filled..])?;
                ensure!(n > 0, receiver.message("closed stdout"));
                filled += n;
            }
            times.push(sent.elapsed().as_secs_f64());
            ensure!(
                buffer[..filled].trim_ascii_end() == line.trim_end().as_bytes(),
                "the packet arrived changed"
            );
        }
        times.sort_by(f64::total_cmp);
        Ok(vec![
            times[times.len() / 2],
            times[times.len() * 99 / 100],
            times[times.len() - 1],
        ])
    }

    /// Returns the seconds in which a process receives all that is sent to it while the contender
    /// observes it, and how many datagrams `listen --peek` has not recorded. The floor observes nothing.
    /// The sender blocks: one that tries again after EAGAIN is seen each time.
    pub(crate) fn observe(&self, contender: &Contender, count: u32) -> Result<(f64, f64)> {
        let sender = "{floor} generate-singly {addr} {count}";
        self.clear();
        let command = self.opposite(OBSERVED, count);
        let mut daemon = self.spawn("daemon", command, Stdio::null(), Stdio::null())?;
        Self::wait_bound(&mut daemon, &self.address())?;
        let mut generator = self.counterpart(sender, count, End::Exit)?;
        let mut observer = match contender.program {
            Program::Floor => None,
            _ => Some(self.observer(contender, daemon.child.id())?),
        };
        let begun = generator.go()?;
        generator.finish()?;
        daemon.finish()?;
        let elapsed = begun.elapsed().as_secs_f64();
        let Some(observer) = &mut observer else {
            return Ok((elapsed, 0.0));
        };
        // It ends when the daemon does.
        observer.child.wait()?;
        if contender.program != Program::Udgram {
            return Ok((elapsed, 0.0));
        }
        let said = fs::read_to_string(&observer.stderr)?;
        let missed: u32 = said
            .split(' ')
            .find_map(|word| word.strip_prefix("missed=")?.parse().ok())
            .with_context(|| observer.message("printed no totals"))?;
        if missed == 0 {
            self.check_lines(count)?;
        }
        Ok((elapsed, f64::from(missed)))
    }

    /// Returns the seconds in which a process receives `count` datagrams that are sent singly to a relay in
    /// front of it. The floor is no relay: they are sent to the process.
    pub(crate) fn relay(&self, contender: &Contender, count: u32) -> Result<f64> {
        self.clear();
        let (mut sink, _relay) = self.relayed(contender, "{floor} sink {place} {count}", count)?;
        let sender = "{floor} generate-singly {addr} {count}";
        let mut generator = self.counterpart(sender, count, End::Exit)?;
        let begun = generator.go()?;
        generator.finish()?;
        sink.finish_soon(|| false)?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Returns the seconds for each request of one client that a process behind a relay answers.
    pub(crate) fn relay_echo(&self, contender: &Contender, count: u32) -> Result<f64> {
        self.clear();
        let mut client = self.counterpart("{floor} ping {addr} {count}", count, End::Exit)?;
        let _processes = self.relayed(contender, "{floor} echo {place}", count)?;
        let begun = client.go()?;
        client.finish()?;
        Ok(begun.elapsed().as_secs_f64() / f64::from(count))
    }

    /// Starts a process and, unless the contender is the floor, a relay in front of it.
    fn relayed(
        &self,
        contender: &Contender,
        process: &str,
        count: u32,
    ) -> Result<(Running, Option<Running>)> {
        let (place, path) = match contender.program {
            Program::Floor => ("{addr}", self.address()),
            _ => ("{behind}", self.behind()),
        };
        let command = self.opposite(&process.replace("{place}", place), count);
        let mut process = self.spawn("process", command, Stdio::null(), Stdio::null())?;
        Self::wait_bound(&mut process, &path)?;
        let relay = match contender.program {
            Program::Floor => None,
            _ => Some(self.receiver(contender, count, Stdio::null())?),
        };
        Ok((process, relay))
    }

    /// Starts an observer of process `pid`, and waits until it observes.
    fn observer(&self, contender: &Contender, pid: u32) -> Result<Running> {
        let ready = self.directory.join("ready");
        let _ = fs::remove_file(&ready);
        let notified = UnixDatagram::bind(&ready)?;
        notified.set_nonblocking(true)?;
        let template = contender.command.replace("{pid}", &pid.to_string());
        let mut command = self.pinned(self.processor(), &template, 0);
        command.env("NOTIFY_SOCKET", &ready);
        let stdout = match contender.program {
            Program::Udgram => File::create(self.lines())?.into(),
            _ => Stdio::null(),
        };
        let mut observer = self.spawn(contender.program.name(), command, Stdio::null(), stdout)?;
        let status = format!("/proc/{pid}/status");
        observer.finish_soon(|| {
            notified.recv(&mut [0; 64]).is_ok()
                || fs::read_to_string(&status).is_ok_and(|s| !s.contains("TracerPid:\t0\n"))
        })?;
        Ok(observer)
    }
}
