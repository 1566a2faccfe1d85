//! Links the unwinder into the program, where the C compiler has it as a static library: to find
//! and to load libgcc_s.so.1 would be a fourteenth of the life of a process that sends one packet.
//! Where it is not found, the program is linked as any other. Users of the library do not notice.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name, value: &str| env::var(name).is_ok_and(|found| found == value);
    let is_glibc = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    // A static build has it anyway.
    let is_static = env::var("CARGO_CFG_TARGET_FEATURE")
        .is_ok_and(|features| features.split(',').any(|feature| feature == "crt-static"));
    let linker = match env::var_os("RUSTC_LINKER") {
        Some(linker) => linker,
        None if env::var_os("TARGET") == env::var_os("HOST") => "cc".into(),
        None => return,
    };
    if env::var_os("CARGO_FEATURE_CLI").is_none() || !is_glibc || is_static {
        return;
    }
    let found = Command::new(linker)
        .arg("-print-file-name=libgcc_eh.a")
        .output();
    // Without a directory it is the name of what was not found.
    let is_there = |path: &str| Path::new(path).is_absolute() && Path::new(path).exists();
    if found.is_ok_and(|found| is_there(String::from_utf8_lossy(&found.stdout).trim_end())) {
        // It comes behind the shared one on the linker's line, and must win all the same.
        for argument in [
            "-Wl,--whole-archive",
            "-l:libgcc_eh.a",
            "-Wl,--no-whole-archive",
        ] {
            println!("cargo::rustc-link-arg-bins={argument}");
        }
    }
}
