//! Socket addresses as the kernel takes and gives them.
//!
//! nix's `UnixAddr` panics on the address of an unnamed sender, and its length cannot be trusted for
//! a name of 108 bytes: addresses are decoded here from their raw bytes and length.

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
    /// Names nothing: bind(2) autobinds a socket that it is given for.
    #[allow(clippy::cast_possible_truncation)] // Both constants fit.
    pub(crate) const UNNAMED: Self = Self {
        raw: sockaddr_un {
            sun_family: libc::AF_UNIX as libc::sa_family_t,
            sun_path: [0; SUN_PATH_LEN],
        },
        len: FAMILY_LEN as socklen_t,
    };

    /// Encodes `address`; `None` if it does not fit.
    pub(crate) fn new(address: &Address<'_>) -> Option<Self> {
        let mut name = Self::UNNAMED;
        let (start, bytes) = match address {
            Address::Unnamed => return Some(name),
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
        // A path of 108 bytes goes without its NUL: the kernel puts one behind it.
        let nul = usize::from(start == 0 && end < SUN_PATH_LEN);
        name.len = socklen_t::try_from(FAMILY_LEN + end + nul).ok()?;
        Some(name)
    }

    /// Borrows it.
    pub(crate) fn as_ref(&self) -> SockAddrRef<'_> {
        SockAddrRef {
            raw: &self.raw,
            len: self.len,
        }
    }

    /// Decodes it.
    pub(crate) fn address(&self) -> Address<'_> {
        self.as_ref().address()
    }

    pub(super) fn pointer(&self) -> *const libc::sockaddr {
        ptr::from_ref(&self.raw).cast()
    }
}

/// A `sockaddr_un` that lies elsewhere, such as in the buffers of a receive.
#[derive(Clone, Copy)]
pub(crate) struct SockAddrRef<'a> {
    pub(super) raw: &'a sockaddr_un,
    pub(super) len: socklen_t,
}

impl<'a> SockAddrRef<'a> {
    /// Decodes it.
    pub(crate) fn address(self) -> Address<'a> {
        let path = &raw const self.raw.sun_path;
        // SAFETY: `c_char` and `u8` have one size and alignment, and the array is initialised.
        let path = unsafe { &*path.cast::<[u8; SUN_PATH_LEN]>() };
        Address::from_raw(path, self.len as usize)
    }
}
