//! The status of a file; statx(2).

use super::Result;
use nix::NixPath;
use nix::errno::Errno;
use nix::libc;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, SystemTime};

/// The identity of a file, its type and permission bits, and the time of its last change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Status {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) mode: u32,
    pub(crate) changed: SystemTime,
}

impl Status {
    /// Returns the status of a file without following a symbolic link. An empty name is the file that `directory`
    /// is open for.
    ///
    /// It comes from statx(2). The C library of a 32-bit target may have times of 32 bits, and then its fstatat(2)
    /// fails with EOVERFLOW for a file that was changed after 2038.
    pub(crate) fn of(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Self> {
        match Self::from_statx(directory, name) {
            // ENOSYS: Linux before 4.11 has no statx(2). EPERM: an old sandbox refuses unknown calls.
            Err(Errno::ENOSYS | Errno::EPERM) => Self::from_fstatat(directory, name),
            status => status,
        }
    }

    fn from_statx(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Self> {
        let mut status = MaybeUninit::<libc::statx>::uninit();
        let done = name.with_nix_path(|name| {
            // SAFETY: the path is a live C string, and `status` has room for the structure. The function of the C
            // library came with glibc 2.28, the system call does not need it.
            unsafe {
                libc::syscall(
                    libc::SYS_statx,
                    directory.as_raw_fd(),
                    name.as_ptr(),
                    FLAGS,
                    libc::STATX_BASIC_STATS,
                    status.as_mut_ptr(),
                )
            }
        })?;
        Errno::result(done)?;
        // SAFETY: the call has succeeded, so it has written the structure.
        let status = unsafe { status.assume_init() };
        Ok(Self {
            device: libc::makedev(status.stx_dev_major, status.stx_dev_minor),
            inode: status.stx_ino,
            mode: status.stx_mode.into(),
            changed: time(status.stx_ctime.tv_sec, status.stx_ctime.tv_nsec),
        })
    }

    fn from_fstatat(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Self> {
        let mut status = MaybeUninit::uninit();
        let done = name.with_nix_path(|name| {
            // SAFETY: the path is a live C string, and `status` has room for the structure.
            unsafe {
                libc::fstatat64(
                    directory.as_raw_fd(),
                    name.as_ptr(),
                    status.as_mut_ptr(),
                    FLAGS,
                )
            }
        })?;
        Errno::result(done)?;
        // SAFETY: the call has succeeded, so it has written the structure.
        let status = unsafe { status.assume_init() };
        Ok(Self {
            device: status.st_dev,
            inode: status.st_ino,
            mode: status.st_mode,
            changed: time(status.st_ctime, status.st_ctime_nsec),
        })
    }
}

const FLAGS: libc::c_int = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;

/// Returns the time that is so many seconds and nanoseconds after the epoch; the epoch for a time before it.
fn time(seconds: impl TryInto<u64>, nanoseconds: impl TryInto<u64>) -> SystemTime {
    let since_epoch = Duration::from_secs(seconds.try_into().unwrap_or(0))
        + Duration::from_nanos(nanoseconds.try_into().unwrap_or(0));
    SystemTime::UNIX_EPOCH
        .checked_add(since_epoch)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn both_calls_report_the_same() {
        // Nobody else changes the parent directory either.
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        File::create(inner.join("file")).unwrap();
        let open = File::open(&inner).unwrap();
        let of = |from: fn(BorrowedFd<'_>, &OsStr) -> Result<Status>, name: &str| {
            let status = from(open.as_fd(), OsStr::new(name)).unwrap();
            (status.device, status.inode, status.mode, status.changed)
        };
        for name in ["", "file", ".."] {
            assert_eq!(of(Status::from_statx, name), of(Status::from_fstatat, name));
        }
    }

    #[test]
    fn a_file_with_a_time_after_2038_has_a_status() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("file")).unwrap();
        let after = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 32);
        file.set_modified(after).unwrap();
        let open = File::open(directory.path()).unwrap();
        let status = Status::of(open.as_fd(), OsStr::new("file")).unwrap();
        assert!(status.changed < after);
        assert_eq!(time(1_i64 << 32, 0_u32), after);
    }
}
