//! The structure of the code: imports run one way, files and functions stay short, and unsafe code has
//! its modules.
//!
//! It reads the source as text: `use crate::…` lines outside of test modules are the imports. A
//! module is a file of `src` or of `src/bin/udgram`, or a folder there with all its files.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The longest file, in lines.
const LONGEST_FILE: usize = 600;
/// The longest function, in lines from its signature to its closing brace.
const LONGEST_FUNCTION: usize = 60;
/// The longest file of a subcommand, in lines.
const LONGEST_COMMAND: usize = 200;

/// A source file: its path below `src`, and its text up to its test module.
struct Source {
    path: PathBuf,
    lines: Vec<String>,
}

fn sources(below: &str) -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![src.join(below)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&src).unwrap().to_owned();
            if path.is_dir() {
                // The program is a crate of its own.
                if below.is_empty() && name == Path::new("bin") {
                    continue;
                }
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let lines = text.lines().map(str::to_owned);
                sources.push(Source {
                    path: name,
                    lines: lines.take_while(|line| line != "#[cfg(test)]").collect(),
                });
            }
        }
    }
    sources
}

/// The module that a path below the crate's folder belongs to.
fn module(path: &Path) -> String {
    let first = path.components().next().unwrap();
    let name = first.as_os_str().to_str().unwrap();
    name.strip_suffix(".rs").unwrap_or(name).to_owned()
}

/// The modules that each module imports.
fn imports(below: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Source { path, lines } in sources(below) {
        let from = module(path.strip_prefix(below).unwrap());
        // These two name every module: they are the roots.
        if ["lib", "main"].contains(&from.as_str()) {
            continue;
        }
        // A link in a comment is no import.
        let code = lines
            .iter()
            .filter(|line| !line.trim_start().starts_with("//"));
        let text = code.map(String::as_str).collect::<Vec<_>>().join("\n");
        let to = imports.entry(from.clone()).or_default();
        for rest in text.split("crate::").skip(1) {
            let name: String = rest
                .chars()
                .take_while(|character| character.is_alphanumeric() || *character == '_')
                .collect();
            if name != from && !name.is_empty() {
                to.insert(name);
            }
        }
    }
    let known: BTreeSet<String> = imports.keys().cloned().collect();
    for to in imports.values_mut() {
        to.retain(|name| known.contains(name));
    }
    imports
}

/// Returns the modules of a circle, if there is one: those left when all modules without imports are removed, repeatedly.
fn circle(mut imports: BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    loop {
        let leaf = imports.iter().find(|(_, to)| to.is_empty());
        let Some(leaf) = leaf.map(|(name, _)| name.clone()) else {
            return imports.into_keys().collect();
        };
        imports.remove(&leaf);
        for to in imports.values_mut() {
            to.remove(&leaf);
        }
    }
}

#[test]
fn the_imports_of_the_library_run_one_way() {
    assert_eq!(
        circle(imports("")),
        [""; 0],
        "modules that import each other"
    );
}

#[test]
fn the_imports_of_the_program_run_one_way() {
    assert_eq!(
        circle(imports("bin/udgram")),
        [""; 0],
        "modules that import each other"
    );
}

/// The rows of the table of the code structure in CONTRIBUTING.md: the modules of each.
fn rows(below: &str) -> Vec<Vec<String>> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("CONTRIBUTING.md"));
    let page = page.unwrap();
    let cells = page.lines().filter_map(|line| {
        line.strip_prefix("| `src/")?
            .split('|')
            .next()
            .map(str::to_owned)
    });
    let of_program = |cell: &String| cell.starts_with("bin/udgram/");
    cells
        .filter(|cell| of_program(cell) != below.is_empty())
        .map(|cell| {
            cell.split('`')
                .step_by(2)
                .map(|name| name.trim_start_matches("src/"))
                .map(|name| name.trim_start_matches("bin/udgram/"))
                .map(|name| module(Path::new(name)))
                .collect()
        })
        .collect()
}

#[test]
fn every_import_runs_down_the_table_of_the_code_structure() {
    for below in ["", "bin/udgram"] {
        let rows = rows(below);
        let row = |name: &String| rows.iter().position(|row| row.contains(name));
        for (from, to) in imports(below) {
            let from_row = row(&from).unwrap_or_else(|| panic!("{from} is not in the table"));
            for to in to {
                let to_row = row(&to).unwrap_or_else(|| panic!("{to} is not in the table"));
                assert!(
                    from_row <= to_row,
                    "{from} imports {to}, which stands above it"
                );
            }
        }
    }
}

#[test]
fn a_circle_of_imports_is_found() {
    let to = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    let imports = BTreeMap::from([
        ("a".to_owned(), to(&["b"])),
        ("b".to_owned(), to(&["c"])),
        ("c".to_owned(), to(&["b"])),
        ("d".to_owned(), to(&[])),
    ]);
    assert_eq!(circle(imports), ["a", "b", "c"]);
}

#[test]
fn no_file_is_longer_than_600_lines_and_no_subcommand_longer_than_200() {
    for source in sources("").into_iter().chain(sources("bin/udgram")) {
        let text = fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("src")
                .join(&source.path),
        );
        let lines = text.unwrap().lines().count();
        let command = source.path.starts_with("bin/udgram/cmd");
        let longest = if command {
            LONGEST_COMMAND
        } else {
            LONGEST_FILE
        };
        assert!(lines <= longest, "{}: {lines} lines", source.path.display());
    }
}

#[test]
fn no_function_is_longer_than_60_lines() {
    for source in sources("").into_iter().chain(sources("bin/udgram")) {
        let mut start: Option<(usize, String)> = None;
        for (number, line) in source.lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let is_function = line.trim_start().split(' ').any(|word| word == "fn")
                && !line.trim_start().starts_with("//")
                && !line.ends_with(';');
            if is_function && start.is_none() {
                start = Some((number, format!("{}}}", " ".repeat(indent))));
            }
            let ends = |(first, end): &(usize, String)| {
                line == end || (*first == number && line.ends_with('}'))
            };
            if let Some((first, _)) = start.take_if(|start| ends(start)) {
                let length = number - first + 1;
                assert!(
                    length <= LONGEST_FUNCTION,
                    "{}:{}: a function of {length} lines",
                    source.path.display(),
                    first + 1
                );
            }
        }
    }
}

#[test]
fn unsafe_code_is_only_in_the_system_call_modules() {
    for source in sources("").into_iter().chain(sources("bin/udgram")) {
        if source.path.starts_with("sys") || source.path.starts_with("bin/udgram/process") {
            continue;
        }
        for (number, line) in source.lines.iter().enumerate() {
            assert!(
                line.trim_start().starts_with("//") || !line.contains("unsafe"),
                "{}:{}: {line}",
                source.path.display(),
                number + 1
            );
        }
    }
}

#[test]
fn no_documentation_begins_with_an_interrogative() {
    let interrogatives = [
        "What", "Who", "Whom", "Whose", "Whether", "How", "Where", "When", "Which", "That",
    ];
    let folders = ["", "bin/udgram", "../tests", "../benches", "../examples"];
    for source in folders.into_iter().flat_map(sources) {
        let mut documented = false;
        for (number, line) in source.lines.iter().enumerate() {
            let comment = ["///", "//!"]
                .iter()
                .find_map(|mark| line.trim_start().strip_prefix(mark));
            if let Some(text) = comment.filter(|_| !documented) {
                let word = text.split_whitespace().next().unwrap_or_default();
                assert!(
                    !interrogatives.contains(&word),
                    "{}:{}: {text}",
                    source.path.display(),
                    number + 1
                );
            }
            documented = comment.is_some();
        }
    }
}
