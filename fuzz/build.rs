//! Lists the modules of the program, which the targets compile: the program has no library target.

use std::path::Path;
use std::{env, error::Error, fmt::Write as _, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let program = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../src/bin/udgram");
    println!("cargo::rerun-if-changed={}", program.display());
    let main = fs::read_to_string(program.join("main.rs"))?;
    let mut modules = String::new();
    for line in main.lines() {
        let name = line
            .strip_prefix("mod ")
            .and_then(|rest| rest.strip_suffix(';'));
        if let Some(name) = name {
            let file = program.join(name).with_extension("rs");
            let file = if file.exists() {
                file
            } else {
                program.join(name).join("mod.rs")
            };
            writeln!(
                modules,
                "#[allow(unused_imports)] // Only main.rs uses some.\n#[path = {file:?}]\nmod {name};"
            )?;
        }
    }
    fs::write(Path::new(&env::var("OUT_DIR")?).join("program.rs"), modules)?;
    Ok(())
}
