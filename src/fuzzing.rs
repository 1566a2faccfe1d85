//! Gives the fuzzers of fuzz/ access to private functions; compiled with `cfg(fuzzing)` only, which
//! cargo-fuzz sets.

use crate::address::{Address, SUN_PATH_LEN};
use crate::sockopt::SocketOption;
use crate::sys::Contents;

/// Decodes a `sockaddr_un`, as the kernel may fill it in.
#[must_use]
pub fn address(sun_path: &[u8; SUN_PATH_LEN], len: usize) -> Address<'static> {
    Address::from_raw(sun_path, len).into_owned()
}

/// Parses control data without owning its descriptors. Returns how many it names.
#[must_use]
pub fn control(control: &[u8]) -> usize {
    Contents::of(control).descriptor_count()
}

/// Decodes the bytes that getsockopt(2) returned. Returns whether they are a value.
#[must_use]
pub fn option_value(option: &SocketOption, bytes: &[u8]) -> bool {
    option.decode(bytes).is_some()
}
