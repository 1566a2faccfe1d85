//! Reports to the service manager that udgram is ready and that it stops, and passes on the notifications of a
//! service; sd_notify(3).

use crate::report::Report;
use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;
use udgram::ancillary::Control;
use udgram::wait::Wake;
use udgram::{Address, DatagramSocket, Destination, Outgoing};

/// The time to wait for room in the queue of the service manager.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The service manager that started udgram, if any.
pub(crate) struct Service {
    address: Option<OsString>,
    report: Report,
}

impl Service {
    /// Returns the service manager that `NOTIFY_SOCKET` names, if any.
    pub(crate) fn from_environment(report: Report) -> Self {
        let address = std::env::var_os("NOTIFY_SOCKET");
        // Another form, such as `vsock:`, is for a virtual machine and is ignored.
        let unix = |address: &OsString| matches!(address.as_bytes().first(), Some(b'/' | b'@'));
        Self {
            address: address.filter(unix),
            report,
        }
    }

    /// Sends a state, such as `READY=1`. A failure is reported and is no error.
    pub(crate) fn notify(&self, state: &str) {
        if let Err(error) = self.send(state.as_bytes(), None) {
            self.report.warning(format_args!(
                "the service manager (NOTIFY_SOCKET) was not told {state}: {error}"
            ));
        }
    }

    /// Passes on the notification of another process, with its descriptors. A failure is reported and is no
    /// error.
    pub(crate) fn pass_on(&self, notification: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let sent = Control::new(descriptors, None)
            .and_then(|control| self.send(notification, Some(&control)));
        if let Err(error) = sent {
            self.report.warning(format_args!(
                "a notification was not passed on to the service manager (NOTIFY_SOCKET): {error}"
            ));
        }
    }

    fn send(&self, bytes: &[u8], control: Option<&Control>) -> udgram::Result<()> {
        let Some(address) = &self.address else {
            return Ok(());
        };
        // Unlike on the command line, an abstract name has no escapes: `Address::parse` does not apply.
        let address = match address.as_bytes() {
            [b'@', name @ ..] => Address::Abstract(name.into()),
            path => Address::Pathname(path.into()),
        };
        let destination = Destination::named(&address)?;
        let message = Outgoing {
            bytes,
            to: Some(&destination),
            control,
        };
        let socket = DatagramSocket::new()?;
        socket
            .send(&[message], Some(SEND_TIMEOUT), &Wake::default())
            .map(drop)
            .map_err(|(_, error)| error)
    }
}
