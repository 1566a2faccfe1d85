//! Fuzzes the parser of the command line with any arguments.
#![no_main]
#![allow(dead_code)]

include!("program.rs");

use libfuzzer_sys::fuzz_target;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

fuzz_target!(|bytes: &[u8]| {
    let arguments = bytes.split(|byte| *byte == b'\n').map(OsStr::from_bytes);
    let program = std::iter::once(OsStr::new("udgram"));
    let arguments: Vec<OsString> = program.chain(arguments).map(OsStr::to_owned).collect();
    match cli::Cli::read(&arguments) {
        Ok(_) => {}
        Err(cli::Unread::Help(help)) => drop(help.render().to_string()),
        Err(cli::Unread::Usage(error)) => assert_eq!(exit::Exit::of(&error), exit::Exit::Usage),
    }
});
