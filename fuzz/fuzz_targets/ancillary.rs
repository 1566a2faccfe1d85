//! Fuzzes the parser of control messages.
#![no_main]

use libfuzzer_sys::fuzz_target;
use udgram::fuzzing;

fuzz_target!(|control: &[u8]| {
    // The number of each descriptor takes four bytes.
    assert!(fuzzing::control(control) * 4 <= control.len());
});
