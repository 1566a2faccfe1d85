//! Command lines: every argument that the program may be given, in any order.
#![no_main]
#![allow(dead_code)]

include!("program.rs");

use libfuzzer_sys::fuzz_target;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

fuzz_target!(|bytes: &[u8]| {
    let arguments = bytes.split(|byte| *byte == b'\n').map(OsStr::from_bytes);
    let program = std::iter::once(OsStr::new("udgram"));
    match cli::Cli::read(program.chain(arguments)) {
        Ok(cli) => drop(cli.command.check()),
        Err(error) => drop(error.render().to_string()),
    }
});
