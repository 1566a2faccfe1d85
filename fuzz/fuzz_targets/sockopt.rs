//! Fuzzes socket options: the values of getsockopt(2), and settings on the command line.
#![no_main]
#![allow(dead_code)]

include!("program.rs");

use libfuzzer_sys::fuzz_target;
use udgram::{fuzzing, sockopt};

fuzz_target!(|bytes: &[u8]| {
    for option in sockopt::OPTIONS {
        let _ = fuzzing::option_value(option, bytes);
    }
    let _ = fuzzing::option_value(&sockopt::numbered(1, 9999), bytes);
    if let Ok(written) = std::str::from_utf8(bytes) {
        let _ = cli::setting::Setting::parse(written);
    }
});
