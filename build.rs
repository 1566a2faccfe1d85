//! Links the unwinder into the program, where the C compiler has it as a static library: to find
//! and to load libgcc_s.so.1 would be a fourteenth of the life of a process that sends one packet.
//! Where it cannot be found, the program is linked as any other.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name, value: &str| env::var(name).is_ok_and(|found| found == value);
    let is_program = env::var_os("CARGO_FEATURE_CLI").is_some();
    let is_glibc = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    // A static build has it anyway.
    let is_static = env::var("CARGO_CFG_TARGET_FEATURE")
        .is_ok_and(|features| features.split(',').any(|feature| feature == "crt-static"));
    let compiler = match env::var_os("RUSTC_LINKER") {
        Some(linker) => linker,
        None if env::var_os("TARGET") == env::var_os("HOST") => "cc".into(),
        None => return,
    };
    if !is_program || !is_glibc || is_static {
        return;
    }
    let Ok(found) = Command::new(compiler)
        .arg("-print-file-name=libgcc_eh.a")
        .output()
    else {
        return;
    };
    // Without a directory it is the name of what was not found.
    let path = String::from_utf8_lossy(&found.stdout);
    let path = Path::new(path.trim_end());
    if let Some(directory) = path
        .parent()
        .filter(|_| path.is_absolute() && path.exists())
    {
        println!("cargo::rustc-link-search=native={}", directory.display());
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}
