//! Somebody else's socket, observed: each datagram that is sent to it, seen in passing.
//!
//! The kernel runs a socket's filter in the context of each sender (`unix_dgram_sendmsg`). The
//! observer attaches one to a copy of the socket, which copies each datagram into a ring buffer and
//! lets it pass whole; then it closes the copy, so that the socket ends with its owner.

mod program;
mod refusal;

use crate::address::ToAddress;
use crate::credentials::Credentials;
use crate::error::{Error, Result, Subject};
use crate::holder::Holder;
use crate::sock_diag::unix_socket;
use crate::socket::DatagramSocket;
use crate::sockopt;
use crate::sys::{self, bpf};
use crate::wait::{Deadline, Ready, Until, Wake, pause, wait};
use bpf::{MapKind, Ring, Shelf, Slot};
use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{fstat, stat};
use program::{Clock, HEADER, Helpers};
use refusal::{Step, refused};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant, SystemTime};

/// The room for datagrams that are not yet read; a power of two.
const RING: u32 = 32 << 20;
/// The number of bytes of the ring that are read before their room is given back.
const BATCH: usize = 4 << 20;
/// The time that datagrams gather before they are read: a wake-up for each would take most of the
/// senders' time. Those that fill more than so many bytes do not wait for others.
const GATHERED: usize = 1 << 20;
const GATHERING: Duration = Duration::from_millis(3);
/// The number of such times in a row without a datagram after which the kernel is asked for a wake-up.
const IDLE_AFTER: u32 = 3;
/// The interval at which the observer checks that the socket still exists; and for datagrams, should a
/// wake-up be missed.
const LOOK: Duration = Duration::from_millis(100);
/// The time that the kernel may take to notice that a killed observer is gone.
const EMPTYING: Duration = Duration::from_secs(1);
/// The name of the filter, by which the next observer knows that of a killed one.
const NAME: &str = "udgram_peek";
/// The inode number of /proc/self/ns/pid in the initial pid namespace (`PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;

/// Observes a Unix datagram socket: each datagram that is sent to it, from the moment of attaching,
/// without taking it. Dropping it removes the filter.
///
/// It sees what senders try to send, also what the kernel then refuses because the queue is full.
/// Before Linux 6.14 or so it sees a datagram again each time that its sender has waited for room.
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
    shelf: Shelf,
    helpers: Helpers,
    /// Has the recording program, as long as it is open.
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
    /// The nanoseconds by which `CLOCK_REALTIME` is ahead of the program's clock.
    ahead: i128,
    /// The number of times in a row that nothing came.
    idle: u32,
    /// The time at which the last batch was found.
    found: Instant,
    looked: Instant,
    closed: bool,
    pids_are_ours: bool,
}

/// The identity of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    inode: u64,
    cookie: [u8; 8],
}

/// The outcome of waiting for datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Some came.
    Datagrams,
    /// The deadline passed, or [`Wake::notice`] became readable.
    Nothing,
    /// No process has the socket any more, or the observer is detached, and all datagrams are read.
    Ended,
}

/// A datagram that was sent to the observed socket.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ObservedDatagram<'o> {
    /// Its bytes.
    pub bytes: &'o [u8],
    /// Its length: more than `bytes` has only where it could not be copied whole.
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
    /// Its process, real user and real group. The process is 0 in another pid namespace than the
    /// initial one, where its number would mean another.
    pub credentials: Credentials,
    /// Its name, of at most 15 bytes.
    pub comm: &'o [u8],
}

impl Observer {
    /// Attaches an observer to the socket that is bound to `address` now, whichever process has it.
    ///
    /// Fails as [`attach`](Self::attach) does, with [`ErrorKind::NobodyThere`](crate::ErrorKind::NobodyThere) if no socket is bound to
    /// `address`, and with [`ErrorKind::System`](crate::ErrorKind::System) if no process that has it can be seen or looked into.
    pub fn attach_to(address: impl ToAddress) -> Result<Self> {
        let address = address.to_address()?;
        let (socket, holder) = Holder::copy_bound(&address)?;
        Self::new(&socket, holder, Subject::Address(address.into_owned()))
    }

    /// Attaches an observer to the socket that is descriptor `number` of process `pid`.
    ///
    /// Fails with [`ErrorKind::Unusable`](crate::ErrorKind::Unusable) if that is not a Unix datagram socket, and with
    /// [`ErrorKind::System`](crate::ErrorKind::System) if it has a filter already or the kernel refuses: it takes the right to
    /// trace the process, and CAP_BPF unless `kernel.unprivileged_bpf_disabled` is 0. Seeing the
    /// senders takes CAP_PERFMON, too. A filter that a killed observer left behind is replaced;
    /// telling that from others takes CAP_SYS_ADMIN.
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
        if cfg!(not(target_pointer_width = "64")) {
            return Err(failed(Step::Map)(Errno::ENOSYS));
        }
        let identity = Identity::of(socket.as_fd()).map_err(failed(Step::Attach))?;
        refuse_filtered(socket.as_fd(), &identity, &subject)?;
        let map = |kind, step| bpf::create_map(kind, NAME).map_err(failed(step));
        let shelf = map(MapKind::Value(Shelf::LEN), Step::Map)?;
        let ring = map(MapKind::Ring(RING), Step::Ring)?;
        let (recorder, helpers) =
            load_recorder(ring.as_fd(), shelf.as_fd()).map_err(failed(Step::Program))?;
        let slot =
            bpf::create_map(MapKind::Program, &identity.name()).map_err(failed(Step::Map))?;
        bpf::set_program(slot.as_fd(), recorder.as_fd()).map_err(failed(Step::Map))?;
        let filter = bpf::load_filter(&program::filter(slot.as_fd()), NAME)
            .map_err(failed(Step::Program))?;
        let info = bpf::program_info(filter.as_fd()).map_err(failed(Step::Program))?;
        let shelf = Shelf::new(shelf.as_fd()).map_err(failed(Step::Map))?;
        let ring = Ring::new(ring, RING as usize).map_err(failed(Step::Ring))?;
        bpf::attach_filter(socket.as_fd(), filter.as_fd()).map_err(failed(Step::Attach))?;
        let namespace = stat("/proc/self/ns/pid").map(|status| status.st_ino);
        Ok(Self {
            ring,
            shelf,
            helpers,
            _slot: slot,
            holder,
            subject,
            socket: identity,
            filter: info.id,
            attached: true,
            batch: (0, 0),
            ahead: 0,
            idle: IDLE_AFTER,
            found: Instant::now(),
            looked: Instant::now(),
            closed: false,
            pids_are_ours: namespace == Ok(INITIAL_PID_NAMESPACE),
        })
    }

    /// Waits for datagrams, and forgets those of the last batch; [`datagrams`](Self::datagrams) has
    /// the new ones.
    ///
    /// Fails as [`Wake`] says, and if somebody replaced the filter.
    pub fn next_batch(&mut self, deadline: Deadline, wake: &Wake<'_>) -> Result<Progress> {
        let (start, end) = self.batch;
        self.ring.release(end);
        self.batch.0 = end;
        if self.idle == 0 {
            let time = match end.wrapping_sub(start) {
                ..GATHERED => GATHERING.saturating_sub(self.found.elapsed()),
                _ => Duration::ZERO,
            };
            pause(deadline.or_after(time), wake)?;
        }
        loop {
            if self.collect() {
                self.idle = 0;
                self.found = Instant::now();
                return Ok(Progress::Datagrams);
            }
            if self.closed || !self.attached {
                return Ok(Progress::Ended);
            }
            if self.looked.elapsed() >= LOOK {
                self.look()?;
                // What came before the end is still to be read.
                continue;
            }
            if deadline.passed() {
                return Ok(Progress::Nothing);
            }
            if self.rest(deadline, wake)? == Some(Ready::Notice) {
                return Ok(Progress::Nothing);
            }
        }
    }

    /// The datagrams of the last batch, in the order they were sent.
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

    /// Returns how many datagrams were sent and not recorded because the ring was full: the reader did
    /// not keep up.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shelf.lost()
    }

    /// Returns whether datagrams have their [`sender`](ObservedDatagram::sender): this takes CAP_PERFMON,
    /// and a kernel that tells socket filters.
    #[must_use]
    pub fn sees_senders(&self) -> bool {
        self.helpers.task
    }

    /// Removes the filter. What was sent until then is still to be read.
    pub fn detach(&mut self) {
        if !self.attached {
            return;
        }
        self.attached = false;
        // Another filter in its place is left alone. Without CAP_SYS_ADMIN that cannot be told.
        if bpf::program(self.filter).err() == Some(Errno::ENOENT) {
            return;
        }
        // A socket that nobody has takes the filter with it; one that cannot be reached keeps a
        // filter that does nothing once `_slot` is closed.
        if !self.find_holder() {
            return;
        }
        if let Ok(socket) = self.holder.socket() {
            let same = Identity::of(socket.as_fd()).as_ref() == Ok(&self.socket);
            if same && filter_of(socket.as_fd()) == Ok(Filter::Extended) {
                let _ = bpf::detach_filter(socket.as_fd());
            }
        }
    }

    /// Takes the finished records at the end of the batch into it, up to [`BATCH`] bytes: whether
    /// there are any.
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
        self.ahead = match self.helpers.clock {
            Clock::Monotonic => bpf::realtime_ahead_of(libc::CLOCK_MONOTONIC).unwrap_or(0),
            Clock::Tai => {
                // The two clocks are read one after the other; they differ by whole seconds.
                const SECOND: i128 = 1_000_000_000;
                let ahead = bpf::realtime_ahead_of(libc::CLOCK_TAI).unwrap_or(0);
                (ahead + SECOND / 2).div_euclid(SECOND) * SECOND
            }
        };
        true
    }

    /// Waits a moment for datagrams to gather, or, when none have come for a while, for the next.
    fn rest(&mut self, deadline: Deadline, wake: &Wake<'_>) -> Result<Option<Ready>> {
        if self.idle < IDLE_AFTER {
            self.idle += 1;
            // A large datagram wakes it. A record that is being written would not let it sleep.
            if self.ring.slot(self.batch.1) == Slot::Busy {
                pause(deadline.or_after(GATHERING), wake)?;
                return Ok(None);
            }
            return wait(
                &self.ring,
                Until::Readable,
                deadline.or_after(GATHERING),
                wake,
            );
        }
        self.shelf.set_asleep(true);
        // What is recorded after this wakes it, but for a sender that has already looked: LOOK
        // bounds what that costs. poll(2) itself finds what was recorded before.
        let waited = wait(&self.ring, Until::Readable, deadline.or_after(LOOK), wake);
        self.shelf.set_asleep(false);
        if matches!(waited, Ok(Some(_))) {
            self.idle = 0;
        }
        waited
    }

    /// Notices that the socket is closed, or that the filter is not this one any more.
    fn look(&mut self) -> Result<()> {
        self.looked = Instant::now();
        if !self.find_holder() && !self.is_listed() {
            // The filter may be there yet: clients that were connected keep what is left of a socket.
            self.closed = true;
            return Ok(());
        }
        // Without CAP_SYS_ADMIN the kernel does not say.
        if bpf::program(self.filter).err() != Some(Errno::ENOENT) {
            return Ok(());
        }
        self.attached = false;
        Err(
            Error::system("observe", self.subject.clone(), Errno::EEXIST)
                .with_cause("another program replaced the filter"),
        )
    }

    /// Makes sure that `holder` has the socket: another one, if that has closed it. Returns whether
    /// any has.
    fn find_holder(&mut self) -> bool {
        if self.holder.has(self.socket.inode) {
            return true;
        }
        let found = Holder::of_socket(self.socket.inode).ok().flatten();
        self.holder = found.unwrap_or(self.holder);
        found.is_some()
    }

    /// Returns whether sock_diag(7) lists the socket in this network namespace: its process may be one that
    /// may no longer be looked into (EACCES after setuid(2), for example).
    fn is_listed(&self) -> bool {
        u32::try_from(self.socket.inode).is_ok_and(|inode| unix_socket(inode).is_ok())
    }

    fn decode<'o>(&self, record: &'o [u8]) -> Option<ObservedDatagram<'o>> {
        let (header, data) = record.split_at_checked(HEADER)?;
        let number = |at: usize| Some(u32::from_ne_bytes(*header.get(at..)?.first_chunk()?));
        let long = |at: usize| Some(u64::from_ne_bytes(*header.get(at..)?.first_chunk()?));
        let time = i128::from(long(program::TIME)?) + self.ahead;
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

impl Identity {
    fn of(socket: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut cookie = [0; 8];
        sys::getsockopt(socket, libc::SOL_SOCKET, libc::SO_COOKIE, &mut cookie)?;
        Ok(Self {
            inode: fstat(socket)?.st_ino,
            cookie,
        })
    }

    /// The name of the map by which the filter tells its socket: the kernel counts cookies from 1 up,
    /// so that their 60 lower bits are enough.
    fn name(&self) -> String {
        format!("{:x}", u64::from_ne_bytes(self.cookie) & (u64::MAX >> 4))
    }
}

/// The filter of a socket; `SO_GET_FILTER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    None,
    /// A classic one, of so many instructions.
    Classic(usize),
    /// An eBPF program.
    Extended,
}

fn filter_of(socket: BorrowedFd<'_>) -> Result<Filter, Errno> {
    match sys::getsockopt(socket, libc::SOL_SOCKET, libc::SO_GET_FILTER, &mut []) {
        Ok(0) => Ok(Filter::None),
        Ok(len) => Ok(Filter::Classic(len / size_of::<libc::sock_filter>())),
        Err(Errno::EACCES) => Ok(Filter::Extended),
        Err(errno) => Err(errno),
    }
}

/// Fails if a filter can or must not be attached to the socket.
fn refuse_filtered(socket: BorrowedFd<'_>, identity: &Identity, subject: &Subject) -> Result<()> {
    let failed = |errno| refused(Step::Attach, subject.clone(), errno);
    let refuse = |errno, cause: String| {
        Err(Error::system("observe", subject.clone(), errno).with_cause(cause))
    };
    if sockopt::get_int(socket, libc::SO_LOCK_FILTER).is_ok_and(|locked| locked != 0) {
        return Err(failed(Errno::EPERM));
    }
    match filter_of(socket).map_err(failed)? {
        Filter::None => return Ok(()),
        Filter::Classic(len) => {
            let cause = format!("it has a filter already, of {len} instructions");
            return refuse(Errno::EEXIST, cause);
        }
        Filter::Extended => {}
    }
    let mut left = left_behind(identity);
    let until = Deadline::after(Some(EMPTYING));
    while left == Ok(Some(Left::AtWork)) && !until.passed() {
        std::thread::sleep(GATHERING);
        left = left_behind(identity);
    }
    match left {
        Ok(Some(Left::Idle)) => Ok(()),
        Ok(Some(Left::AtWork)) => refuse(Errno::EBUSY, "it is being observed already".to_owned()),
        foreign => refuse(
            Errno::EEXIST,
            "it has a filter already, an eBPF program".to_owned(),
        )
        .map_err(|error| match foreign {
            Err(_) => {
                error.with_hint("finding out whether a killed observer left it takes CAP_SYS_ADMIN")
            }
            Ok(_) => error,
        }),
    }
}

/// A filter of another observer of the same socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Its observer is gone.
    Idle,
    AtWork,
}

/// Looks for the filter of another observer of this socket: a program of its name, whose map has the
/// socket's name. Once it is not attached any more, it is not in the list.
fn left_behind(identity: &Identity) -> Result<Option<Left>, Errno> {
    let mut id = 0;
    while let Some(next) = bpf::next_program(id)? {
        id = next;
        let program = match bpf::program(id) {
            Ok(program) => program,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(errno),
        };
        let info = bpf::program_info(program.as_fd())?;
        let Some(map) = info.map.filter(|_| info.name == NAME) else {
            continue;
        };
        let map = bpf::map(map)?;
        if bpf::map_name(map.as_fd())? == identity.name() {
            return Ok(Some(if bpf::has_program(map.as_fd())? {
                Left::AtWork
            } else {
                Left::Idle
            }));
        }
    }
    Ok(None)
}

/// Loads the recording program with as many of its helpers as this kernel has.
fn load_recorder(ring: BorrowedFd<'_>, shelf: BorrowedFd<'_>) -> Result<(OwnedFd, Helpers), Errno> {
    let mut refusal = Errno::EINVAL;
    for helpers in Helpers::KNOWN {
        match bpf::load_filter(&program::recorder(ring, shelf, helpers), "udgram_record") {
            Ok(recorder) => return Ok((recorder, helpers)),
            Err(errno) => refusal = errno,
        }
        // EINVAL and EACCES: the verifier does not know a helper, or does not let it be called.
        if !matches!(refusal, Errno::EINVAL | Errno::EACCES) {
            break;
        }
    }
    Err(refusal)
}
