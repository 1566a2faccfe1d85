//! Control messages, however they are laid out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use udgram::fuzzing;

fuzz_target!(|control: &[u8]| {
    // Each descriptor takes the four bytes of its number.
    assert!(fuzzing::control(control) * 4 <= control.len());
});
