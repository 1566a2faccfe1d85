//! Starts the commands of `listen` by posix_spawn(3): the child shares the memory of this process until
//! execve(2), while fork(2) copies its page tables, which takes several times as long.

use super::children::{start_awaited, stop_awaiting};
use super::signals::set_action;
use super::start::initial_state;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_char, c_int};
use nix::sys::signal::{SigSet, Signal};
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr;

/// A program to start, in a process group of its own.
pub(crate) struct PosixSpawn<'s> {
    /// The program, which is searched in PATH, and its arguments.
    pub(crate) words: &'s [CString],
    pub(crate) environment: &'s [CString],
    pub(crate) stdin: BorrowedFd<'s>,
    pub(crate) stdout: BorrowedFd<'s>,
    /// The descriptors that it has from `first` up. All others of this process from there must be close-on-exec.
    pub(crate) descriptors: &'s [OwnedFd],
    pub(crate) first: RawFd,
}

/// A process that was started so, until it is waited for.
#[derive(Debug)]
pub(crate) struct SpawnedProcess {
    pid: libc::pid_t,
    /// True once it was waited for: its number may be that of another process.
    reaped: bool,
}

impl PosixSpawn<'_> {
    /// Starts it, with those signals blocked and ignored that were so when udgram started.
    pub(crate) fn start(&self) -> io::Result<SpawnedProcess> {
        let mut actions = Actions::new()?;
        actions.place(self.stdin.as_raw_fd(), 0)?;
        actions.place(self.stdout.as_raw_fd(), 1)?;
        let above = self.first + c_int::try_from(self.descriptors.len()).unwrap_or(c_int::MAX);
        let mut copies = Vec::new();
        for (descriptor, number) in self.descriptors.iter().zip(self.first..) {
            let mut source = descriptor.as_raw_fd();
            if source <= number {
                // An earlier one replaces it in the child, or it would stay close-on-exec (glibc before 2.29).
                source = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(above))?;
                // SAFETY: the call has just returned this descriptor, and nothing else owns it.
                copies.push(unsafe { OwnedFd::from_raw_fd(source) });
            }
            actions.place(source, number)?;
        }
        let attributes = Attributes::new()?;
        let (words, environment) = (pointers(self.words), pointers(self.environment));
        // udgram has SIGCHLD at its default to get the statuses of children, and the attributes cannot set a
        // signal to be ignored.
        let [_, chld_ignored, _] = initial_state().ignored;
        if chld_ignored {
            set_action(libc::SIGCHLD, true)?;
        }
        let started = start_awaited(|| {
            let mut pid = 0;
            // SAFETY: the program is the first of the words, and both arrays hold pointers to strings that
            // `self` borrows, and end with a null pointer. Actions and attributes are initialized.
            checked(unsafe {
                libc::posix_spawnp(
                    &raw mut pid,
                    words[0],
                    &raw const actions.0,
                    &raw const attributes.0,
                    words.as_ptr().cast(),
                    environment.as_ptr().cast(),
                )
            })?;
            Ok(pid)
        });
        if chld_ignored {
            set_action(libc::SIGCHLD, false)?;
        }
        Ok(SpawnedProcess {
            pid: started?,
            reaped: false,
        })
    }
}

/// Returns pointers to the strings, and a null pointer.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    let pointers = strings.iter().map(|string| string.as_ptr());
    pointers.chain([ptr::null()]).collect()
}

/// Returns the error of a function that returns its number.
fn checked(number: c_int) -> io::Result<()> {
    match number {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(number)),
    }
}

/// The descriptors that the child copies to their numbers.
struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the call initializes the live `actions`.
        checked(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: the call has succeeded.
        Ok(Self(unsafe { actions.assume_init() }))
    }

    /// Makes a copy of `source` at `number`, without close-on-exec.
    fn place(&mut self, source: RawFd, number: RawFd) -> io::Result<()> {
        // SAFETY: the actions are initialized; the call only records the numbers.
        checked(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, source, number) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: the actions are initialized, and are not used again.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

/// The process group and the signals of the child.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the call initializes the live `attributes`.
        checked(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: the call has succeeded.
        let mut attributes = Self(unsafe { attributes.assume_init() });
        let own = &raw mut attributes.0;
        let initial = initial_state();
        let mut defaults = SigSet::empty();
        let [.., xfsz_ignored] = initial.ignored;
        if !xfsz_ignored {
            defaults.add(Signal::SIGXFSZ);
        }
        let flags = libc::POSIX_SPAWN_SETPGROUP
            | libc::POSIX_SPAWN_SETSIGMASK
            | libc::POSIX_SPAWN_SETSIGDEF;
        let flags = libc::c_short::try_from(flags).unwrap_or_default();
        // SAFETY: the attributes are initialized; the call records a number.
        checked(unsafe { libc::posix_spawnattr_setpgroup(own, 0) })?;
        // SAFETY: the attributes are initialized, and the call copies the live set.
        checked(unsafe { libc::posix_spawnattr_setsigmask(own, initial.blocked.as_ref()) })?;
        // SAFETY: as above.
        checked(unsafe { libc::posix_spawnattr_setsigdefault(own, defaults.as_ref()) })?;
        // SAFETY: the attributes are initialized; the call records and checks the flags.
        checked(unsafe { libc::posix_spawnattr_setflags(own, flags) })?;
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: the attributes are initialized, and are not used again.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

impl SpawnedProcess {
    /// Returns its process id, which is also that of its process group.
    pub(crate) fn id(&self) -> libc::pid_t {
        self.pid
    }

    /// Returns its exit status if it has ended; does not wait. Call it no more after that.
    ///
    /// Fails with ECHILD if it was reaped elsewhere.
    pub(crate) fn try_wait(&mut self) -> nix::Result<Option<ExitStatus>> {
        self.wait_with(libc::WNOHANG)
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) {
        // ECHILD: it was reaped elsewhere.
        let _ = self.wait_with(0);
    }

    fn wait_with(&mut self, flags: c_int) -> nix::Result<Option<ExitStatus>> {
        if self.reaped {
            return Err(Errno::ECHILD);
        }
        let mut status = 0;
        loop {
            // SAFETY: the call writes to the live `status`.
            match Errno::result(unsafe { libc::waitpid(self.pid, &raw mut status, flags) }) {
                Err(Errno::EINTR) => {}
                Ok(0) => return Ok(None),
                ended => {
                    self.reaped = true;
                    return ended.map(|_| Some(ExitStatus::from_raw(status)));
                }
            }
        }
    }
}

impl Drop for SpawnedProcess {
    fn drop(&mut self) {
        stop_awaiting(self.pid);
    }
}
