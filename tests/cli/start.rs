//! Tests the start of the program: the libraries that the dynamic linker loads.

use std::fs;

use crate::harness::Sandbox;

#[test]
fn the_program_needs_no_library_besides_the_c_library() {
    let sandbox = Sandbox::new();
    let receiver = sandbox.udgram(["recv", "s"]).start();
    receiver.wait_bound("s");
    let maps = fs::read_to_string(format!("/proc/{}/maps", receiver.pid())).unwrap();
    let mut libraries: Vec<_> = maps
        .lines()
        .filter_map(|line| line.rsplit('/').next())
        .filter(|name| name.contains(".so."))
        .collect();
    libraries.dedup();
    assert_eq!(libraries, ["libc.so.6", "ld-linux-x86-64.so.2"]);
}
