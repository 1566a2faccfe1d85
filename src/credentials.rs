//! The credentials of a process; unix(7), `SCM_CREDENTIALS`.

/// Identifies the process that sent a datagram, as verified by the kernel; unix(7), `SCM_CREDENTIALS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(alias = "ucred")]
#[doc(alias = "SCM_CREDENTIALS")]
pub struct Credentials {
    /// The process id; 0 if the kernel reports none: for a process of another pid namespace, and for a
    /// datagram that was queued before `SO_PASSCRED` was set.
    pub pid: i32,
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

impl Credentials {
    /// Returns the credentials of this process, as the kernel would attach them.
    #[must_use]
    pub fn own() -> Self {
        Self {
            pid: nix::unistd::getpid().as_raw(),
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
        }
    }

    /// Decodes a `struct ucred`, native byte order.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            pid: i32::from_ne_bytes(*bytes.first_chunk()?),
            uid: u32::from_ne_bytes(*bytes.get(4..)?.first_chunk()?),
            gid: u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?),
        })
    }
}
