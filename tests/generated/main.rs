//! Makes the files of completions/ and man/ from the definitions of the command line and from the parts in
//! this directory, and compares them with the committed files.
//!
//! `UPDATE_GENERATED=1 cargo test --test generated` writes them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::format_collect)]

#[allow(dead_code, unused_imports)]
#[path = "../../src/bin/udgram/cli/mod.rs"]
mod cli;
mod completions;
#[allow(dead_code)]
#[path = "../../src/bin/udgram/exit.rs"]
mod exit;
mod manual;
mod shells;
#[allow(dead_code)]
#[path = "../../src/bin/udgram/terminal.rs"]
mod terminal;
#[allow(dead_code)]
#[path = "../../src/bin/udgram/verbosity.rs"]
mod verbosity;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Compares the files of `folder` with `generated`, which has the text for each name, or writes them if
/// `UPDATE_GENERATED` is 1.
#[track_caller]
fn compare_or_write(folder: &str, generated: &BTreeMap<String, String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let committed: BTreeMap<String, String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let text = fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), text)
        })
        .collect();
    if std::env::var_os("UPDATE_GENERATED").is_some_and(|value| value == "1") {
        for name in committed
            .keys()
            .filter(|name| !generated.contains_key(*name))
        {
            fs::remove_file(folder.join(name)).unwrap();
        }
        for (name, text) in generated {
            fs::write(folder.join(name), text).unwrap();
        }
        return;
    }
    assert!(
        committed.keys().eq(generated.keys()),
        "{} has {:?}; made were {:?}. {HOW}",
        folder.display(),
        committed.keys(),
        generated.keys(),
    );
    for (name, text) in generated {
        let (made, kept) = (text.lines(), committed[name].lines());
        let same = made
            .zip(kept)
            .take_while(|(made, kept)| made == kept)
            .count();
        assert!(
            *text == committed[name],
            "{} is not what is made, from line {} on. {HOW}",
            folder.join(name).display(),
            same + 1,
        );
    }
}

const HOW: &str = "To write them: UPDATE_GENERATED=1 cargo test --test generated";

/// Returns whether `program` is installed. If not, prints that the test is skipped.
fn installed(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|output| output.status.success());
    if !found {
        assert!(
            std::env::var_os("UDGRAM_FORBID_SKIPS").is_none_or(|value| value != "1"),
            "skips are forbidden: {program} is not installed"
        );
        let message = format!("skipped: {program} is not installed\n");
        std::io::Write::write_all(&mut std::io::stderr(), message.as_bytes()).unwrap();
    }
    found
}
