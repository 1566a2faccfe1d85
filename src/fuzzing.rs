//! A way in for the fuzzers of fuzz/ to what the crate keeps to itself. No part of the library:
//! only `cfg(fuzzing)`, which cargo-fuzz sets, has it.

use crate::address::{Address, SUN_PATH_LEN};
use crate::ancillary::Contents;
use crate::sockopt::SocketOption;

/// The address in a `sockaddr_un`, as the kernel may fill it in.
#[must_use]
pub fn address(sun_path: &[u8; SUN_PATH_LEN], len: usize) -> Address<'static> {
    Address::from_raw(sun_path, len).into_owned()
}

/// Reads control data without taking the descriptors it names into possession: how many it names.
#[must_use]
pub fn control(control: &[u8]) -> usize {
    let contents = Contents::of(control);
    contents.descriptors.len() + usize::from(contents.pidfd.is_some())
}

/// Reads what getsockopt(2) gave; whether it is a value.
#[must_use]
pub fn option_value(option: &SocketOption, bytes: &[u8]) -> bool {
    // A pidfd would be taken into possession.
    option.kind() != crate::sockopt::Kind::Process && option.decode(bytes).is_some()
}
