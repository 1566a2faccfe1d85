//! Reads the width of the terminal.

use nix::libc;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Returns the number of columns of a terminal; `None` if it does not say (TIOCGWINSZ; ioctl_tty(2)).
pub(crate) fn terminal_width(terminal: BorrowedFd<'_>) -> Option<usize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the request writes one `winsize`, which is live and writable.
    let got = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (got == 0 && size.ws_col > 0).then(|| size.ws_col.into())
}
