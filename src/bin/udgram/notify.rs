//! Reports to the service manager that udgram is ready and that it stops, and passes on the notifications of a
//! service; sd_notify(3).

use crate::report::Report;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;
use udgram::ancillary::Control;
use udgram::wait::{Deadline, Wake};
use udgram::{Address, DatagramSocket, Destination, ErrorKind, Outgoing};

/// The time to wait for room in the queue of the service manager.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// The most notifications that are held back for a service manager.
const MAX_HELD: usize = 64;
/// The most descriptors of such notifications: as many as one datagram has (`SCM_MAX_FD`).
const MAX_HELD_DESCRIPTORS: usize = 253;

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
        if let Err(error) = self.send(state.as_bytes(), None, SEND_TIMEOUT) {
            self.report.warning(format_args!(
                "the service manager (NOTIFY_SOCKET) did not get {state}: {error}"
            ));
        }
    }

    fn send(
        &self,
        bytes: &[u8],
        control: Option<&Control>,
        timeout: Duration,
    ) -> udgram::Result<()> {
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
            .send(&[message], Some(timeout), &Wake::default())
            .map(drop)
            .map_err(|(_, error)| error)
    }
}

/// A notification with its descriptors, which are closed once it has been passed on.
type Notification = (Vec<u8>, Vec<OwnedFd>);

/// Passes the notifications of a service on to the service manager that started udgram, in order and without waiting:
/// those for which that one's queue has no room are held back.
pub(crate) struct Forwarding {
    service: Service,
    held: VecDeque<Notification>,
    /// True if the last notification was dropped, which has been reported.
    failing: bool,
}

impl Forwarding {
    /// The interval of attempts while notifications are held back: no event reports room in a queue.
    pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(100);

    pub(crate) fn new(service: Service) -> Self {
        Self {
            service,
            held: VecDeque::new(),
            failing: false,
        }
    }

    /// Passes on a notification. A failure is reported and is no error.
    pub(crate) fn pass_on(&mut self, notification: &[u8], descriptors: Vec<OwnedFd>) {
        if self.service.address.is_none() {
            return;
        }
        let held = self.held.iter().map(|(_, held)| held.len());
        if self.held.len() >= MAX_HELD
            || held.sum::<usize>() + descriptors.len() > MAX_HELD_DESCRIPTORS
        {
            return self.report_dropped("its queue is full");
        }
        self.held.push_back((notification.to_vec(), descriptors));
        self.retry();
    }

    /// Returns whether notifications are held back.
    pub(crate) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Passes on the notifications that are held back, as far as there is room.
    pub(crate) fn retry(&mut self) {
        self.send_until(Deadline::after(Some(Duration::ZERO)));
    }

    /// Waits a second for room before the end.
    pub(crate) fn finish(&mut self) {
        self.send_until(Deadline::after(Some(SEND_TIMEOUT)));
        let left = match self.held.len() {
            0 => return,
            1 => "1 notification was".to_owned(),
            left => format!("{left} notifications were"),
        };
        self.service.report.warning(format_args!(
            "{left} not passed on to the service manager (NOTIFY_SOCKET): its queue is full"
        ));
    }

    fn send_until(&mut self, deadline: Deadline) {
        while let Some((notification, descriptors)) = self.held.front() {
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            let timeout = deadline.remaining().unwrap_or_default();
            let sent = Control::new(&borrowed, None)
                .and_then(|control| self.service.send(notification, Some(&control), timeout));
            match sent {
                Ok(()) => self.failing = false,
                Err(error) if error.kind() == ErrorKind::TimedOut => return,
                Err(error) => self.report_dropped(error),
            }
            self.held.pop_front();
        }
    }

    /// Reports that a notification is dropped, unless the one before was, too.
    fn report_dropped(&mut self, cause: impl Display) {
        if !std::mem::replace(&mut self.failing, true) {
            self.service.report.warning(format_args!(
                "notifications are not passed on to the service manager (NOTIFY_SOCKET): {cause}"
            ));
        }
    }
}
