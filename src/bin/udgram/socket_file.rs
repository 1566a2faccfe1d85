//! Owns the socket file of a receiver, and reports once if the socket loses its name.

use crate::report::Report;
use std::os::fd::{BorrowedFd, OwnedFd};
use udgram::{Binding, Lost};

/// A socket file that is removed on drop; none if the socket has no file.
#[derive(Debug, Default)]
pub(crate) struct WatchedFile {
    binding: Option<Binding>,
    /// True once its loss was reported.
    lost: bool,
}

impl WatchedFile {
    /// Watches the file of `binding`.
    pub(crate) fn new(binding: Option<Binding>, report: Report) -> Self {
        let mut file = Self {
            binding,
            lost: false,
        };
        if let Some(binding) = &mut file.binding {
            binding.watch();
        }
        file.report_loss(report);
        file
    }

    /// Returns a copy of the descriptor that is readable when the file may be lost.
    pub(crate) fn notice(&self) -> Option<OwnedFd> {
        let notice: BorrowedFd<'_> = self.binding.as_ref()?.notice()?;
        notice.try_clone_to_owned().ok()
    }

    /// Reports once that the file is lost. The call also empties the inotify instance, which would
    /// otherwise end every wait.
    pub(crate) fn report_loss(&mut self, report: Report) {
        let lost = self.binding.as_ref().and_then(Binding::lost);
        let Some(lost) = lost.filter(|_| !self.lost) else {
            return;
        };
        self.lost = true;
        report.warning(match lost {
            Lost::Removed => "the socket file was removed: nobody can reach this socket any more",
            Lost::Replaced => "the socket file was replaced: senders reach another socket",
        });
    }
}
