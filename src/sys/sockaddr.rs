//! Socket addresses as the kernel takes and gives them; unix(7).
//!
//! The `UnixAddr` of nix panics on the address of an unnamed sender, and reads a byte too far in a name
//! of 108 bytes without a NUL. Addresses are decoded here from their raw bytes and length.

use crate::address::{Address, SUN_PATH_LEN};
use nix::libc::{self, c_char, sockaddr_un, socklen_t};
use std::ptr;

const FAMILY_LEN: usize = size_of::<libc::sa_family_t>();

/// A `sockaddr_un` and the length of its used part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SockAddr {
    pub(super) raw: sockaddr_un,
    pub(super) len: socklen_t,
}

impl SockAddr {
    /// Names nothing: bind(2) with it autobinds the socket.
    #[allow(clippy::cast_possible_truncation)] // Both constants fit.
    pub(crate) const UNNAMED: Self = Self {
        raw: sockaddr_un {
            sun_family: libc::AF_UNIX as libc::sa_family_t,
            sun_path: [0; SUN_PATH_LEN],
        },
        len: FAMILY_LEN as socklen_t,
    };

    /// Encodes `address`; `None` if it does not fit, or if it is a pathname that is empty or contains a
    /// NUL: the kernel would take it for another name.
    pub(crate) fn new(address: &Address<'_>) -> Option<Self> {
        let mut name = Self::UNNAMED;
        let (start, bytes) = match address {
            Address::Unnamed => return Some(name),
            Address::Pathname(path) if path.is_empty() || path.contains(&0) => return None,
            Address::Pathname(path) => (0, path),
            Address::Abstract(abstract_name) => (1, abstract_name),
        };
        let end = start + bytes.len();
        for (to, from) in name
            .raw
            .sun_path
            .get_mut(start..end)?
            .iter_mut()
            .zip(bytes.iter())
        {
            *to = c_char::from_ne_bytes([*from]);
        }
        // A path of 108 bytes has no room for a NUL: the kernel appends one (`unix_mkname_bsd`).
        let nul = usize::from(start == 0 && end < SUN_PATH_LEN);
        name.len = socklen_t::try_from(FAMILY_LEN + end + nul).ok()?;
        Some(name)
    }

    /// Borrows the address.
    pub(crate) fn as_ref(&self) -> SockAddrRef<'_> {
        SockAddrRef {
            raw: &self.raw,
            len: self.len,
        }
    }

    /// Decodes the address.
    pub(crate) fn address(&self) -> Address<'_> {
        self.as_ref().address()
    }

    pub(super) fn pointer(&self) -> *const libc::sockaddr {
        ptr::from_ref(&self.raw).cast()
    }
}

/// A borrowed `sockaddr_un`, such as one in the buffers of a receive.
#[derive(Clone, Copy)]
pub(crate) struct SockAddrRef<'a> {
    pub(super) raw: &'a sockaddr_un,
    pub(super) len: socklen_t,
}

impl<'a> SockAddrRef<'a> {
    /// Decodes the address.
    pub(crate) fn address(self) -> Address<'a> {
        let path = &raw const self.raw.sun_path;
        // SAFETY: `c_char` and `u8` have one size and alignment, and the array is initialised.
        let path = unsafe { &*path.cast::<[u8; SUN_PATH_LEN]>() };
        Address::from_raw(path, self.len as usize)
    }
}
