//! Observes the socket of another process: sees each datagram that is sent to it.
//!
//! The kernel runs the filter of a socket in the context of each sender (`unix_dgram_sendmsg`). The observer
//! attaches a filter by way of a copy of the socket. The filter copies each datagram into a ring buffer
//! and passes it on unchanged. The observer then closes its copy: the socket is closed when its owner
//! closes it.

mod filter;
mod program;
mod refusal;

use crate::address::ToAddress;
use crate::credentials::Credentials;
use crate::error::{Error, Result, Subject};
use crate::holder::Holder;
use crate::sock_diag::unix_socket;
use crate::socket::{DatagramSocket, Lock};
use crate::sys::map_memory::{Control, Ring, Slot};
use crate::sys::{bpf, realtime_offset};
use crate::wait::{Deadline, Ready, Until, Wake, pause, wait};
use bpf::MapKind;
use filter::{
    Filter, Identity, NAME, OTHER_INTERVAL, OTHER_TIMEOUT, filter_of, observed_already,
    refuse_filtered,
};
use nix::errno::Errno;
use nix::libc;
use program::{Clock, HEADER, Helpers};
use refusal::{Step, refused};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use std::time::{Duration, Instant, SystemTime};

/// The size of the ring buffer in bytes; a power of two.
const RING: u32 = 32 << 20;
/// The number of bytes of the ring that a batch may have. Their space is released together.
const BATCH: usize = 4 << 20;
/// The time between two batches: waking the observer for each datagram would take most of the senders' time.
const BATCH_INTERVAL: Duration = Duration::from_millis(3);
/// The size in bytes from which on a batch is followed by the next one at once.
const LARGE_BATCH: usize = 1 << 20;
/// The number of intervals without a datagram after which the observer asks to be woken.
const IDLE_INTERVALS: u32 = 3;
/// The interval at which the observer checks that the socket still exists. It also bounds the delay after
/// a missed wake-up.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// The inode number of /proc/self/ns/pid in the initial pid namespace (`PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;

/// Observes a Unix datagram socket: sees each datagram that is sent to it after attaching, and takes none.
/// Dropping it removes the filter.
///
/// It sees what senders try to send, even if the kernel then refuses it because the queue is full. Before
/// about Linux 6.14 it sees a datagram again each time its sender has waited for space in the queue.
///
/// ```no_run
/// use udgram::wait::{Deadline, Wake};
/// use udgram::{Observer, Progress};
///
/// let mut observer = Observer::attach_to("/dev/log")?;
/// while observer.next_batch(Deadline::NEVER, &Wake::default())? == Progress::Datagrams {
///     for datagram in observer.datagrams() {
///         println!("{} bytes from {:?}", datagram.size, datagram.sender);
///     }
/// }
/// # Ok::<(), udgram::Error>(())
/// ```
#[derive(Debug)]
pub struct Observer {
    ring: Ring,
    control: Control,
    helpers: Helpers,
    /// The map with the recording program. When it is closed, the kernel empties it.
    _slot: OwnedFd,
    holder: Holder,
    /// The socket as the caller named it, for messages.
    subject: Subject,
    socket: Identity,
    /// The id of the attached program.
    filter: u32,
    attached: bool,
    /// The positions in the ring at which the batch begins and ends.
    batch: (usize, usize),
    /// The difference in nanoseconds from the program's clock to `CLOCK_REALTIME`.
    clock_offset: i128,
    /// The number of intervals without a datagram since the last batch.
    idle: u32,
    /// The time of the last batch.
    last_batch: Instant,
    checked: Instant,
    closed: bool,
    pids_are_ours: bool,
}

/// The outcome of waiting for datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// There are datagrams.
    Datagrams,
    /// The deadline passed, or [`Wake::notice`] became readable.
    Nothing,
    /// The socket is closed, or the observer is detached, and all datagrams are read.
    Ended,
}

/// A datagram that was sent to the observed socket.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ObservedDatagram<'o> {
    /// Its bytes.
    pub bytes: &'o [u8],
    /// Its length. `bytes` is shorter only if the kernel could not copy all of it.
    pub size: usize,
    /// The time at which it was sent.
    pub time: SystemTime,
    /// The task that sent it, if [`Observer::sees_senders`].
    pub sender: Option<Sender<'o>>,
}

/// The task that sent a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sender<'o> {
    /// Its process, real user and real group. The process is 0 if this process is not in the initial pid
    /// namespace: the kernel reports its number in that namespace only.
    pub credentials: Credentials,
    /// Its name, of at most 15 bytes.
    pub comm: &'o [u8],
}

impl Observer {
    /// Attaches an observer to the socket that is bound to `address` now, whichever process has it.
    ///
    /// Fails as [`attach`](Self::attach) does, with
    /// [`ErrorKind::NobodyThere`](crate::ErrorKind::NobodyThere) if no socket is bound to `address`, and with
    /// [`ErrorKind::System`](crate::ErrorKind::System) if this process may not see or trace a process that
    /// has it.
    pub fn attach_to(address: impl ToAddress) -> Result<Self> {
        let address = address.to_address()?;
        let (socket, holder) = Holder::copy_bound(&address)?;
        Self::new(&socket, holder, Subject::Address(address.into_owned()))
    }

    /// Attaches an observer to the socket that is descriptor `number` of process `pid`.
    ///
    /// Fails with [`ErrorKind::Unusable`](crate::ErrorKind::Unusable) if that is not a Unix datagram
    /// socket, and with [`ErrorKind::System`](crate::ErrorKind::System) if it has a filter already or the
    /// kernel refuses. Needs the right to trace the process, and CAP_BPF unless
    /// `kernel.unprivileged_bpf_disabled` is 0. Seeing the senders also needs CAP_PERFMON.
    ///
    /// A filter that remains after an observer was killed is replaced. Distinguishing it from other eBPF
    /// programs needs CAP_SYS_ADMIN. Without it, the observer does not notice that another program replaces
    /// its filter by an eBPF program, and [`detach`](Self::detach) removes that one.
    pub fn attach(pid: i32, number: RawFd) -> Result<Self> {
        let holder = Holder { pid, number };
        let pid = Some(pid);
        Self::new(
            &holder.socket()?,
            holder,
            Subject::Descriptor { pid, number },
        )
    }

    fn new(socket: &DatagramSocket, holder: Holder, subject: Subject) -> Result<Self> {
        let failed = |step| {
            let subject = subject.clone();
            move |errno| refused(step, subject, errno)
        };
        // `Ring::release` knows the order of the halves of a position on these only.
        if cfg!(not(any(
            target_pointer_width = "64",
            target_endian = "little"
        ))) {
            return Err(failed(Step::Map)(Errno::ENOSYS));
        }
        let identity = Identity::of(socket.as_fd()).map_err(failed(Step::Attach))?;
        // Attaching replaces a filter that another observer attaches between the check and this. The lock
        // ends when the copy of the socket is closed.
        let until = Deadline::after(Some(OTHER_TIMEOUT));
        while !socket.try_lock(Lock::Observe)? {
            if until.passed() {
                return Err(observed_already(&subject));
            }
            std::thread::sleep(OTHER_INTERVAL);
        }
        refuse_filtered(socket.as_fd(), &identity, &subject)?;
        let map = |kind, step| bpf::create_map(kind, NAME).map_err(failed(step));
        let control = map(MapKind::Value(Control::LEN), Step::Map)?;
        let ring = map(MapKind::Ring(RING), Step::Ring)?;
        let (recorder, helpers) =
            load_recorder(ring.as_fd(), control.as_fd()).map_err(failed(Step::Program))?;
        let slot =
            bpf::create_map(MapKind::Program, &identity.name()).map_err(failed(Step::Map))?;
        bpf::set_program(slot.as_fd(), recorder.as_fd()).map_err(failed(Step::Map))?;
        let filter = bpf::load_filter(&program::filter(slot.as_fd()), NAME)
            .map_err(failed(Step::Program))?;
        let info = bpf::program_info(filter.as_fd()).map_err(failed(Step::Program))?;
        let control = Control::new(control.as_fd()).map_err(failed(Step::Map))?;
        let ring = Ring::new(ring, RING as usize).map_err(failed(Step::Ring))?;
        bpf::attach_filter(socket.as_fd(), filter.as_fd()).map_err(failed(Step::Attach))?;
        let namespace = std::fs::metadata("/proc/self/ns/pid").map(|link| link.ino());
        Ok(Self {
            ring,
            control,
            helpers,
            _slot: slot,
            holder,
            subject,
            socket: identity,
            filter: info.id,
            attached: true,
            batch: (0, 0),
            clock_offset: 0,
            idle: IDLE_INTERVALS,
            last_batch: Instant::now(),
            checked: Instant::now(),
            closed: false,
            pids_are_ours: namespace.is_ok_and(|inode| inode == INITIAL_PID_NAMESPACE),
        })
    }

    /// Waits for the next batch of datagrams, which [`datagrams`](Self::datagrams) then returns. Releases
    /// the last batch.
    ///
    /// Fails as [`Wake`] says, and if another program has replaced or removed the filter.
    pub fn next_batch(&mut self, deadline: Deadline, wake: &Wake<'_>) -> Result<Progress> {
        let (start, end) = self.batch;
        self.ring.release(end);
        self.batch.0 = end;
        if self.idle == 0 {
            let time = match end.wrapping_sub(start) {
                ..LARGE_BATCH => BATCH_INTERVAL.saturating_sub(self.last_batch.elapsed()),
                _ => Duration::ZERO,
            };
            pause(deadline.or_after(time), wake)?;
        }
        loop {
            if self.collect() {
                self.idle = 0;
                self.last_batch = Instant::now();
                return Ok(Progress::Datagrams);
            }
            if self.closed || !self.attached {
                return Ok(Progress::Ended);
            }
            if self.checked.elapsed() >= CHECK_INTERVAL {
                self.check()?;
                // Read the datagrams that were sent before the socket was closed.
                continue;
            }
            if deadline.passed() {
                return Ok(Progress::Nothing);
            }
            if self.wait_for_records(deadline, wake)? == Some(Ready::Notice) {
                return Ok(Progress::Nothing);
            }
        }
    }

    /// Returns the datagrams of the last batch, in the order they were sent.
    pub fn datagrams(&self) -> impl Iterator<Item = ObservedDatagram<'_>> {
        let (mut position, end) = self.batch;
        std::iter::from_fn(move || {
            if position == end {
                return None;
            }
            let Slot::Record(record, next) = self.ring.slot(position) else {
                return None;
            };
            position = next;
            self.decode(record)
        })
    }

    /// Returns the number of datagrams that were not recorded because the ring was full: they were sent
    /// faster than they were read.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.control.lost()
    }

    /// Returns whether datagrams have their [`sender`](ObservedDatagram::sender). This needs CAP_PERFMON, and a
    /// kernel whose socket filters may ask for it.
    #[must_use]
    pub fn sees_senders(&self) -> bool {
        self.helpers.task
    }

    /// Removes the filter. Datagrams that were sent until then can still be read.
    pub fn detach(&mut self) {
        if !self.attached {
            return;
        }
        self.attached = false;
        // Once the socket is closed, the kernel frees the filter. If the socket cannot be copied any more,
        // the filter stays and does nothing after `_slot` is closed.
        if !self.find_holder() || self.is_replaced() {
            return;
        }
        let attached = self
            .copy()
            .filter(|socket| filter_of(socket.as_fd()) == Ok(Filter::Extended));
        if let Some(socket) = attached {
            let _ = bpf::detach_filter(socket.as_fd());
        }
    }

    /// Adds finished records to the batch, up to [`BATCH`] bytes. Returns whether the batch has any.
    fn collect(&mut self) -> bool {
        let (start, mut end) = self.batch;
        while end.wrapping_sub(start) < BATCH {
            let Slot::Record(_, next) = self.ring.slot(end) else {
                break;
            };
            end = next;
        }
        self.batch.1 = end;
        if start == end {
            return false;
        }
        self.clock_offset = match self.helpers.clock {
            Clock::Monotonic => realtime_offset(libc::CLOCK_MONOTONIC).unwrap_or(0),
            Clock::Tai => {
                // The clocks differ by whole seconds; they are read one after the other, so round.
                const SECOND: i128 = 1_000_000_000;
                let offset = realtime_offset(libc::CLOCK_TAI).unwrap_or(0);
                (offset + SECOND / 2).div_euclid(SECOND) * SECOND
            }
        };
        true
    }

    /// Waits for an interval, or, after several intervals without a datagram, for the next datagram.
    fn wait_for_records(&mut self, deadline: Deadline, wake: &Wake<'_>) -> Result<Option<Ready>> {
        if self.idle < IDLE_INTERVALS {
            self.idle += 1;
            // A large datagram ends the wait. While a record is being written, poll(2) returns at once.
            if self.ring.slot(self.batch.1) == Slot::Busy {
                pause(deadline.or_after(BATCH_INTERVAL), wake)?;
                return Ok(None);
            }
            return wait(
                &self.ring,
                Until::Readable,
                deadline.or_after(BATCH_INTERVAL),
                wake,
            );
        }
        self.control.set_asleep(true);
        // A sender that has read the flag before it was set does not wake the observer; CHECK_INTERVAL
        // bounds the delay. poll(2) finds what was recorded before.
        let waited = wait(
            &self.ring,
            Until::Readable,
            deadline.or_after(CHECK_INTERVAL),
            wake,
        );
        self.control.set_asleep(false);
        if matches!(waited, Ok(Some(_))) {
            self.idle = 0;
        }
        waited
    }

    /// Checks whether the socket is closed or the filter was replaced.
    fn check(&mut self) -> Result<()> {
        self.checked = Instant::now();
        if !self.find_holder() && !self.is_listed() {
            // The filter may still exist: connected clients keep the kernel's structure of the socket.
            self.closed = true;
            return Ok(());
        }
        if !self.is_replaced() {
            return Ok(());
        }
        self.attached = false;
        Err(
            Error::system("observe", self.subject.clone(), Errno::EEXIST)
                .with_cause("another program replaced or removed the filter"),
        )
    }

    /// Returns whether the socket no longer has this filter. Without CAP_SYS_ADMIN, another eBPF program
    /// cannot be distinguished from it.
    fn is_replaced(&self) -> bool {
        match bpf::program(self.filter) {
            Err(Errno::ENOENT) => true,
            Err(Errno::EPERM) => self.copy().is_some_and(|socket| {
                matches!(
                    filter_of(socket.as_fd()),
                    Ok(Filter::None | Filter::Classic(_))
                )
            }),
            _ => false,
        }
    }

    /// Copies the socket from the process that has it, if this process may still trace that.
    fn copy(&self) -> Option<DatagramSocket> {
        let socket = self.holder.socket().ok()?;
        let same = Identity::of(socket.as_fd()).as_ref() == Ok(&self.socket);
        same.then_some(socket)
    }

    /// Sets `holder` to another process that has the socket if this one has closed it. Returns whether any
    /// has it.
    fn find_holder(&mut self) -> bool {
        if self.holder.has(self.socket.inode) {
            return true;
        }
        let found = Holder::of_socket(self.socket.inode).ok().flatten();
        self.holder = found.unwrap_or(self.holder);
        found.is_some()
    }

    /// Returns whether sock_diag(7) lists the socket in this network namespace. The process that has it may be
    /// one that this process may no longer trace (EACCES, after setuid(2), for example).
    fn is_listed(&self) -> bool {
        u32::try_from(self.socket.inode).is_ok_and(|inode| unix_socket(inode).is_ok())
    }

    fn decode<'o>(&self, record: &'o [u8]) -> Option<ObservedDatagram<'o>> {
        let (header, data) = record.split_at_checked(HEADER)?;
        let number = |at: usize| Some(u32::from_ne_bytes(*header.get(at..)?.first_chunk()?));
        let long = |at: usize| Some(u64::from_ne_bytes(*header.get(at..)?.first_chunk()?));
        let time = i128::from(long(program::TIME)?) + self.clock_offset;
        let time = Duration::from_nanos(u64::try_from(time).unwrap_or(0));
        let sender = if self.helpers.task {
            // The process and the group are in the upper halves.
            let (task, user) = (long(program::PID)?, long(program::USER)?);
            let comm = header.get(program::COMM..program::COMM + program::COMM_LEN)?;
            let pid = if self.pids_are_ours { task >> 32 } else { 0 };
            Some(Sender {
                credentials: Credentials {
                    pid: i32::try_from(pid).unwrap_or(0),
                    uid: u32::try_from(user & u64::from(u32::MAX)).unwrap_or(u32::MAX),
                    gid: (user >> 32) as u32,
                },
                comm: comm.split(|byte| *byte == 0).next().unwrap_or_default(),
            })
        } else {
            None
        };
        Some(ObservedDatagram {
            bytes: data.get(..number(program::COPIED)? as usize)?,
            size: number(program::SIZE)? as usize,
            time: SystemTime::UNIX_EPOCH + time,
            sender,
        })
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Loads the recording program with as many of its helpers as this kernel has.
fn load_recorder(
    ring: BorrowedFd<'_>,
    control: BorrowedFd<'_>,
) -> Result<(OwnedFd, Helpers), Errno> {
    let mut refusal = Errno::EINVAL;
    for helpers in Helpers::KNOWN {
        match bpf::load_filter(&program::recorder(ring, control, helpers), "udgram_record") {
            Ok(recorder) => return Ok((recorder, helpers)),
            Err(errno) => refusal = errno,
        }
        // EINVAL and EACCES: the verifier does not know a helper, or does not permit it.
        if !matches!(refusal, Errno::EINVAL | Errno::EACCES) {
            break;
        }
    }
    Err(refusal)
}
