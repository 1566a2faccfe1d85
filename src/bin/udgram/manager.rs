//! A service manager for one service (`exec --notify`): receives its notifications, sd_notify(3), prints
//! them, and ends a service that is not ready in time.

use crate::cli::value::ReadyReport;
use crate::cli::{Protocol, ServiceManager, Terminator};
use crate::endpoint::Opened;
use crate::exit::{Exit, Failure};
use crate::handler::Handler;
use crate::notify::{Forwarding, Service};
use crate::printer::{DescriptorUse, Printer, ReceiveOptions};
use crate::process;
use crate::protocol::Client;
use crate::receive::Receiver;
use crate::report::Report;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid, mkdtemp};
use std::fs::{Permissions, read_to_string, remove_dir, set_permissions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use udgram::ancillary::{ControlSpace, DEFAULT_CONTROL_LEN};
use udgram::wait::{Deadline, MAX_WAITED, Until, Wake, wait, wait_any};
use udgram::{Address, BindOptions, Binding, Datagram, DatagramSocket, Occupied, bind};

/// The longest pathname of a socket that a service can connect to (`sun_path`).
const MAX_PATH: usize = 107;
/// The time after SIGTERM at which a service that is still running is killed.
const KILL_AFTER: Duration = Duration::from_secs(10);
/// The interval of attempts to write to a stdout that is not ready although poll(2) reports it ready.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// The state of the service.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// It has to be ready by then.
    Starting(Deadline),
    Ready,
    /// It was not ready in time. SIGTERM was sent; SIGKILL follows then.
    Ending(Deadline),
    Killed,
}

/// The service manager of one service.
pub(crate) struct Manager {
    // Fields are dropped in this order: the socket file is removed before its directory.
    client: Client,
    receiver: Receiver<Notifications>,
    _binding: Option<Binding>,
    directory: Directory,
    phase: Phase,
    timeout: Option<Duration>,
    printing: Printing,
    report: Report,
}

/// The state of printing notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Printing {
    On,
    /// stdout did not take them; the service is not ended for that.
    Failed,
}

/// The directory of the socket; removed on drop.
struct Directory(PathBuf);

impl Directory {
    fn make() -> Result<Self> {
        let name = "udgram-XXXXXX/notify".len() + 1;
        let parent = Some(std::env::temp_dir())
            .filter(|parent| parent.is_absolute() && parent.as_os_str().len() + name <= MAX_PATH)
            .unwrap_or_else(|| "/tmp".into());
        let path = mkdtemp(&parent.join("udgram-XXXXXX")).with_context(|| {
            format!(
                "cannot make a directory in {}",
                udgram::Quoted(parent.as_os_str())
            )
        })?;
        let directory = Self(path);
        // A service that has dropped its privileges reaches the socket, and cannot list the directory.
        set_permissions(&directory.0, Permissions::from_mode(0o711))
            .context("cannot open the directory of the socket to the service")?;
        Ok(directory)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("notify")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Drop cannot return an error, and a directory that is not empty is not udgram's alone any more.
        let _ = remove_dir(&self.0);
    }
}

impl Manager {
    /// Binds the socket for the notifications. Block the signals before.
    pub(crate) fn new(options: &ServiceManager, report: Report) -> Result<Self> {
        let wanted = ReceiveOptions {
            protocol: options.protocol.unwrap_or(Protocol::Fields),
            terminator: Terminator::LineBreak,
            envelope: options.envelope,
            credentials: true,
            space: ControlSpace::Bytes(DEFAULT_CONTROL_LEN),
            descriptor_use: DescriptorUse::Closed,
            color: options.shown.color,
        };
        let descriptor = match options.notify {
            Some(ReadyReport::Descriptor(number)) => Some(process::take_descriptor(number)?),
            _ => None,
        };
        let directory = Directory::make()?;
        let socket = DatagramSocket::new()?;
        socket.set_passcred(true)?;
        socket.set_timestamps(true)?;
        let path = directory.socket();
        let file = BindOptions {
            mode: 0o666,
            owner: None,
            occupied: Occupied::Refuse,
        };
        let address = Address::Pathname(path.as_os_str().as_bytes().into());
        let binding = bind(&socket, &address, file)?;
        let client = Client::new(socket, wanted.protocol)?;
        let notifications = Notifications {
            outer: Forwarding::new(Service::from_environment(report)),
            descriptor,
            readiness: Readiness::Awaited,
            extension: None,
            user: geteuid().as_raw(),
            report,
        };
        let receiver = Receiver::new(&client, Opened::NEW, wanted, notifications, None, report)?;
        Ok(Self {
            client,
            receiver,
            _binding: binding,
            directory,
            phase: Phase::Ready,
            timeout: options.timeout.and_then(|timeout| timeout.0),
            printing: Printing::On,
            report,
        })
    }

    /// Passes the address of the socket to the service.
    pub(crate) fn set_variable(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", self.directory.socket());
    }

    /// Begins the time in which the service has to be ready.
    pub(crate) fn start(&mut self) {
        self.phase = Phase::Starting(Deadline::after(self.timeout));
    }

    /// Takes in notifications until `signals` is readable. Ends `service` if it is not ready in time.
    pub(crate) fn wait(&mut self, signals: BorrowedFd<'_>, service: Pid) -> Result<()> {
        let mut stuck = false;
        loop {
            if !self.receiver.printer.output.is_full() {
                self.receiver.take_queued(&self.client, &Wake::default())?;
            }
            stuck = !self.print() && stuck;
            let mut deadline = self.enforce(service);
            let outer = &mut self.receiver.handler.outer;
            outer.retry();
            if outer.holds_any() {
                deadline = deadline.or_after(Forwarding::RETRY_INTERVAL);
            }
            let socket = self.client.socket()?;
            let output = &self.receiver.printer.output;
            let mut waited = [None; MAX_WAITED];
            waited[0] = Some((signals, Until::Readable));
            if !output.is_full() {
                waited[1] = Some((socket.as_fd(), Until::Readable));
            }
            if !output.lines.is_empty() {
                if stuck {
                    deadline = deadline.or_after(RETRY_INTERVAL);
                } else {
                    let stdout = output.watched();
                    waited[2] = stdout.map(|stdout| (stdout, Until::Writable));
                }
            }
            let held_up = output.is_full().then(Instant::now);
            let ready = wait_any(waited, deadline, &Wake::default())?;
            if let (Some(since), Phase::Starting(deadline)) = (held_up, self.phase) {
                // READY=1 may lie behind what the reader of stdout holds up.
                self.phase = Phase::Starting(deadline.extended(since.elapsed()));
            }
            if ready[0].is_some() {
                return Ok(());
            }
            stuck = ready[2].is_some();
        }
    }

    /// Writes what stdout takes. Returns whether it took anything.
    fn print(&mut self) -> bool {
        let output = &mut self.receiver.printer.output;
        if output.lines.is_empty() {
            return false;
        }
        if self.printing == Printing::On {
            match output.flush_ready(&Wake::default()) {
                Ok(written) => return written,
                Err(error) => self.stop_printing(&error),
            }
        }
        self.receiver.printer.output.lines.clear();
        false
    }

    fn stop_printing(&mut self, error: &anyhow::Error) {
        self.printing = Printing::Failed;
        if !matches!(Exit::of(error), Exit::Signal(_)) {
            self.report.error(error);
        }
    }

    /// Sends the signals that end a service which is not ready in time. Returns the time of the next check.
    fn enforce(&mut self, service: Pid) -> Deadline {
        let handler = &mut self.receiver.handler;
        if let (Phase::Starting(deadline), Some(extension)) = (self.phase, handler.extension.take())
        {
            let extended = Deadline::after(Some(extension));
            let later = match (deadline.remaining(), extended.remaining()) {
                (Some(left), Some(extended)) => extended > left,
                _ => false,
            };
            if later {
                self.phase = Phase::Starting(extended);
            }
        }
        match self.phase {
            Phase::Starting(_) if handler.readiness == Readiness::Reported => {
                self.phase = Phase::Ready;
            }
            Phase::Starting(deadline) if deadline.passed() => {
                handler.readiness = Readiness::TooLate;
                let timeout = humantime::format_duration(self.timeout.unwrap_or_default());
                let message = format!("CMD is not ready (READY=1) after {timeout}: ending it");
                self.report.error(&Failure::error(Exit::TimedOut, message));
                // This fails if CMD has ended meanwhile. A stopped process takes SIGTERM once it continues.
                let _ = kill(service, Signal::SIGTERM);
                let _ = kill(service, Signal::SIGCONT);
                self.phase = Phase::Ending(Deadline::after(Some(KILL_AFTER)));
            }
            Phase::Ending(deadline) if deadline.passed() => {
                let after = humantime::format_duration(KILL_AFTER);
                self.report.warning(format_args!(
                    "CMD is still running {after} after SIGTERM: killing it"
                ));
                let _ = kill(service, Signal::SIGKILL);
                self.phase = Phase::Killed;
            }
            _ => {}
        }
        match self.phase {
            Phase::Starting(deadline) | Phase::Ending(deadline) => deadline,
            Phase::Ready | Phase::Killed => Deadline::NEVER,
        }
    }

    /// Takes in what a service that has ended with `exit` has sent, and returns the exit status.
    pub(crate) fn conclude(mut self, exit: Exit) -> Result<Exit> {
        self.client.socket()?.shutdown_read()?;
        while self.receiver.take_queued(&self.client, &Wake::default())? > 0 {}
        self.receiver.handler.outer.finish();
        if self.printing == Printing::On {
            if let Err(error) = self.receiver.printer.output.flush_at_exit() {
                self.stop_printing(&error);
            }
        }
        if matches!(self.phase, Phase::Ending(_) | Phase::Killed) {
            return Ok(Exit::TimedOut);
        }
        if self.receiver.handler.readiness == Readiness::Awaited {
            let message = "CMD has ended before it was ready (READY=1)";
            self.report.error(&Failure::error(exit, message));
        }
        Ok(exit)
    }
}

/// The state of the report that the service is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Awaited,
    Reported,
    /// It has not, in time; a later report has no effect.
    TooLate,
}

/// Handles the notifications of the service.
struct Notifications {
    /// The service manager that started udgram, if any.
    outer: Forwarding,
    /// The descriptor that gets a line break when the service is ready.
    descriptor: Option<OwnedFd>,
    readiness: Readiness,
    /// The longest time that the service has asked for since the last check (`EXTEND_TIMEOUT_USEC`).
    extension: Option<Duration>,
    /// The user of this process.
    user: u32,
    report: Report,
}

impl Notifications {
    /// Returns whether the service has sent a datagram: a process of the same user or of root, for nobody else
    /// knows the name of the socket, or one that descends from this process.
    fn is_from_service(&self, datagram: &Datagram<'_>) -> bool {
        datagram.ancillary.credentials.is_some_and(|sender| {
            sender.uid == self.user || sender.uid == 0 || descends_from_self(sender.pid)
        })
    }

    /// Takes note of what a notification says.
    fn read(&mut self, bytes: &[u8]) {
        for line in bytes.split(|byte| *byte == b'\n') {
            if line == b"READY=1" && self.readiness == Readiness::Awaited {
                self.readiness = Readiness::Reported;
                self.write_line_break();
            } else if let Some(value) = line.strip_prefix(b"EXTEND_TIMEOUT_USEC=") {
                let number = std::str::from_utf8(value).ok();
                let number = number.and_then(|number| number.parse().ok());
                self.extension = number.map(Duration::from_micros).max(self.extension);
            }
        }
    }

    fn write_line_break(&mut self) {
        let Some(descriptor) = self.descriptor.take() else {
            return;
        };
        // write(2) would wait for the reader of a pipe that is full.
        let now = Deadline::after(Some(Duration::ZERO));
        let written = match wait(&descriptor, Until::Writable, now, &Wake::default()) {
            Ok(Some(_)) => nix::unistd::write(&descriptor, b"\n"),
            _ => Err(Errno::EAGAIN),
        };
        if let Err(errno) = written {
            self.report.warning(format_args!(
                "cannot write to the descriptor of --notify: {}",
                udgram::strerror(errno as i32)
            ));
        }
    }
}

impl Handler for Notifications {
    fn prints(&self) -> bool {
        false
    }

    fn handle(
        &mut self,
        _: &Client,
        datagram: &mut Datagram<'_>,
        printer: &mut Printer,
        _: &Wake<'_>,
    ) -> Result<()> {
        if self.is_from_service(datagram) {
            printer.print(datagram);
            let descriptors = std::mem::take(&mut datagram.ancillary.descriptors);
            self.outer.pass_on(datagram.bytes, descriptors);
            self.read(datagram.bytes);
        } else {
            self.report.warning(format_args!(
                "dropped a notification from {}, which does not belong to CMD",
                datagram.sender().quoted()
            ));
        }
        // A barrier ends when its descriptor is closed.
        datagram.ancillary.descriptors.clear();
        Ok(())
    }
}

/// Returns whether a process descends from this one. It may have ended: then this is not known.
fn descends_from_self(pid: i32) -> bool {
    let own = Pid::this().as_raw();
    let mut pid = pid;
    while pid > 1 {
        let Some(parent) = parent(pid) else {
            return false;
        };
        if parent == own {
            return true;
        }
        pid = parent;
    }
    false
}

/// Returns the parent of a process; proc_pid_stat(5).
fn parent(pid: i32) -> Option<i32> {
    let status = read_to_string(Path::new(&format!("/proc/{pid}/stat"))).ok()?;
    // The name of the command, in parentheses, may have any characters.
    let (_, rest) = status.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}
