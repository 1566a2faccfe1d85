//! Looks up pathnames as another process does, below its root directory.

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The root directory and the working directory of a process. Absolute symbolic links and `..` stay below
/// the root, as they do for the process (`RESOLVE_IN_ROOT`).
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
    /// The working directory, by its path below the root; `None` if it is not below the root.
    working: Option<PathBuf>,
}

impl Root {
    /// Opens the root of a process or a thread, whose folder in /proc is `process`. Needs the right to
    /// trace it.
    pub(super) fn open(process: &Path) -> Result<Self, Errno> {
        let link = process.join("root");
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(&link, flags, Mode::empty())?;
        let working = || {
            let working = fs::read_link(process.join("cwd")).ok()?;
            let root = fs::read_link(&link).ok()?;
            Some(Path::new("/").join(working.strip_prefix(root).ok()?))
        };
        Ok(Self {
            directory,
            working: working(),
        })
    }

    /// Returns the path below the root that `path` is for the process.
    pub(super) fn absolute(&self, path: &Path) -> Option<PathBuf> {
        if path.is_absolute() {
            return Some(path.to_owned());
        }
        Some(self.working.as_ref()?.join(path))
    }

    /// Opens the file that an absolute path leads the process to, with `O_PATH`. ENOSYS before Linux 5.6;
    /// ELOOP for a path through the links of /proc, which mean something else to each process.
    pub(super) fn file(&self, path: &Path) -> Result<File, Errno> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.directory, path, how).map(File::from)
    }
}

/// Returns a path of this process that leads to an open file.
pub(super) fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
