//! Checks README.md and docs/*.md: their examples run as printed, their links lead somewhere, and the exit statuses and
//! messages are the program's.
//!
//! An example is a block of shell with `<!-- run -->` before it and, where it prints anything, a block of text
//! after it, in which `…` matches any text on the line. The comment may have more lines:
//! `needs: PROGRAM...` for programs that must be installed (and `root`), `before: COMMAND` to prepare what the reader
//! already has, `after: COMMAND` to print a result, `here: PATH=NAME` for a path that has another name
//! in the test.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "cli/wpa_supplicant.rs"]
mod wpa_supplicant;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, mkdtemp};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const README: &str = include_str!("../README.md");
/// The longest time that an example may take.
const LONGEST: Duration = Duration::from_secs(60);

/// A block of shell to run, and its output.
#[derive(Debug)]
struct Example {
    /// The page and its first line there: `docs/syslog.md:12`.
    place: String,
    needs: Vec<String>,
    script: String,
    output: String,
}

/// Returns the pages, by their names from the root of the repository.
fn pages() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = BTreeMap::from([("README.md".to_owned(), README.to_owned())]);
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = format!("docs/{}", path.file_name().unwrap().to_str().unwrap());
            pages.insert(name, fs::read_to_string(path).unwrap());
        }
    }
    pages
}

fn examples(page: &str, text: &str) -> Vec<Example> {
    let lines: Vec<&str> = text.lines().collect();
    let mut examples = Vec::new();
    let mut at = 0;
    while let Some(start) = (at..lines.len()).find(|&line| lines[line].starts_with("<!-- run")) {
        let end = start + position(&lines[start..], |line| line.ends_with("-->"));
        let mut needs = Vec::new();
        let mut here = Vec::new();
        let mut script = String::new();
        let mut after = String::new();
        for line in &lines[start + 1..end.max(start + 1)] {
            if let Some(programs) = line.strip_prefix("needs: ") {
                needs.extend(programs.split(' ').map(str::to_owned));
            } else if let Some(command) = line.strip_prefix("before: ") {
                script.push_str(command);
                script.push('\n');
            } else if let Some(command) = line.strip_prefix("after: ") {
                after.push_str(command);
                after.push('\n');
            } else if let Some(place) = line.strip_prefix("here: ") {
                here.push(place.split_once('=').unwrap());
            } else {
                panic!("{page} has {line:?} before an example");
            }
        }
        assert_eq!(lines[end + 1], "```sh", "{page}:{}", end + 2);
        let close = end + 2 + position(&lines[end + 2..], |line| line == "```");
        for line in &lines[end + 2..close] {
            let line = here.iter().fold((*line).to_owned(), |line, (path, name)| {
                line.replace(path, name)
            });
            script.push_str(&line);
            script.push('\n');
        }
        script.push_str(&after);
        at = close + 1;
        let mut output = String::new();
        if lines.get(at) == Some(&"```text") {
            let close = at + 1 + position(&lines[at + 1..], |line| line == "```");
            output = lines[at + 1..close].join("\n");
            at = close + 1;
        }
        examples.push(Example {
            place: format!("{page}:{}", end + 2),
            needs,
            script,
            output,
        });
    }
    examples
}

fn position(lines: &[&str], is: impl Fn(&str) -> bool) -> usize {
    lines
        .iter()
        .position(|line| is(line))
        .expect("a page ends inside a block")
}

#[test]
fn the_examples_of_the_pages_run_as_printed() {
    let mut wrong = String::new();
    let pages = pages();
    let examples: Vec<Example> = pages
        .iter()
        .flat_map(|(page, text)| examples(page, text))
        .collect();
    assert!(examples.len() > 30, "the pages have lost their examples");
    for example in &examples {
        let place = &example.place;
        let missing: Vec<_> = example
            .needs
            .iter()
            .filter(|program| !installed(program))
            .collect();
        if !missing.is_empty() {
            let message =
                format!("{place} is not run: {missing:?} is not here, or does not run here");
            assert!(
                std::env::var_os("UDGRAM_FORBID_SKIPS").is_none_or(|value| value != "1"),
                "{message}"
            );
            writeln!(std::io::stderr(), "{message}").unwrap();
            continue;
        }
        let (status, output) = run(&example.script, place.replace(['/', ':', '.'], "-"));
        // On a busy machine, the command of `--pipe` takes more than a second to start.
        let is_late = |line: &&str| line.contains(" has not answered packet ");
        let printed: Vec<&str> = output.lines().filter(|line| !is_late(line)).collect();
        let printed = printed.join("\n");
        if status.code() != Some(0) || !matches(&example.output, printed.trim_end_matches('\n')) {
            writeln!(wrong, "{place} ended with {status} and printed:\n{output}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_first_command_of_the_readme_ends_with_a_packet_received() {
    let command = README
        .lines()
        .find_map(|line| line.strip_prefix("cargo build --release && "))
        .expect("README.md has lost its first command");
    // The program has been built for this test already.
    let (status, output) = run(&command.replace("target/release/udgram", "udgram"), "first");
    assert_eq!(status.code(), Some(0), "{output}");
    assert_eq!(output, "{\"data\":42}\n");
}

/// Runs `script` in a new directory. Returns its exit status and its output.
fn run(script: &str, name: impl std::fmt::Display) -> (ExitStatus, String) {
    let template = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-XXXXXX"));
    let directory = mkdtemp(&template).unwrap();
    let printed = directory.with_extension("out");
    let output = File::create(&printed).unwrap();
    let mut child = Command::new("bash")
        .args(["-e", "-o", "pipefail", "-c", script])
        .current_dir(&directory)
        .env_clear()
        .env("PATH", path())
        .env("HOME", &directory)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .process_group(0)
        .spawn()
        .unwrap();
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (done, ended) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let status = child.wait().unwrap();
        let _ = done.send(());
        status
    });
    let in_time = ended.recv_timeout(LONGEST);
    // Kill the processes that it left running, or all of them if it has not ended.
    let _ = killpg(group, Signal::SIGKILL);
    let status = waiter.join().unwrap();
    let mut output = String::from_utf8_lossy(&fs::read(&printed).unwrap()).into_owned();
    if in_time.is_err() {
        let _ = writeln!(output, "(killed after {LONGEST:?})");
    }
    let _ = fs::remove_dir_all(&directory);
    let _ = fs::remove_file(&printed);
    (status, output)
}

/// Returns the search path: the built program, the user's path, the directories of daemons.
fn path() -> String {
    let built = Path::new(env!("CARGO_BIN_EXE_udgram")).parent().unwrap();
    let users = std::env::var("PATH").unwrap();
    format!("{}:{users}:/usr/sbin:/sbin", built.display())
}

fn installed(program: &str) -> bool {
    if program == "root" {
        return nix::unistd::geteuid().is_root();
    }
    let there = path()
        .split(':')
        .any(|directory| Path::new(directory).join(program).is_file());
    if there && program == "wpa_supplicant" {
        let mut version = Command::new(program);
        let version = version.arg("-v").env("PATH", path()).output().unwrap();
        return wpa_supplicant::runs(&String::from_utf8_lossy(&version.stdout));
    }
    there
}

/// Returns whether `output` matches `expected`, in which `…` matches any text on the line.
fn matches(expected: &str, output: &str) -> bool {
    let (expected, output): (Vec<_>, Vec<_>) =
        (expected.lines().collect(), output.lines().collect());
    expected.len() == output.len()
        && expected
            .iter()
            .zip(output)
            .all(|(expected, output)| line_matches(expected, output))
}

fn line_matches(expected: &str, output: &str) -> bool {
    let Some((start, rest)) = expected.split_once('…') else {
        return expected == output;
    };
    let Some(output) = output.strip_prefix(start) else {
        return false;
    };
    (0..=output.len())
        .filter(|&at| output.is_char_boundary(at))
        .any(|at| line_matches(rest, &output[at..]))
}

/// Returns the rows of the table of exit statuses in a section of Markdown: status and meaning.
fn statuses() -> BTreeMap<&'static str, &'static str> {
    let (_, section) = README.split_once("\n## Exit status\n").unwrap();
    section
        .split("\n## ")
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| ")?
                .strip_suffix(" |")?
                .split_once(" | ")
        })
        .filter(|(status, _)| *status != "status")
        .collect()
}

#[test]
fn the_exit_statuses_of_the_readme_are_those_of_the_program() {
    // A command line for each row.
    let tried = BTreeMap::from([
        ("0", "udgram recv s & udgram send --wait s 1; wait $!"),
        ("1", "mkdir directory; udgram send directory 1"),
        ("2", "udgram send"),
        (
            "3",
            "udgram recv s & udgram send --wait s '{'; s=$?; kill $!; exit $s",
        ),
        ("4", "udgram send missing 1"),
        ("124", "udgram recv --timeout 1ms s"),
        ("126", "udgram exec --bind s -- /"),
        ("127", "udgram exec --bind s -- ./missing"),
        (
            "128+N",
            "udgram recv s & udgram send --wait s </dev/null; kill -TERM $!; wait $!",
        ),
    ]);
    let documented = statuses();
    assert!(
        documented.keys().eq(tried.keys()),
        "the README has {documented:?}"
    );
    for (status, script) in tried {
        let expected = match status {
            "128+N" => 128 + Signal::SIGTERM as i32,
            number => number.parse().unwrap(),
        };
        let script = format!("set +e\n{script}");
        let (ended, output) = run(&script, format_args!("status-{status}"));
        assert_eq!(ended.code(), Some(expected), "{script}: {ended}: {output}");
        assert_eq!(ended.signal(), None);
    }
}

#[test]
fn the_messages_that_are_explained_are_those_of_the_program() {
    let (_, table) = include_str!("../docs/troubleshooting.md")
        .split_once("| message | why, and what to do |")
        .unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with("| "));
    let mut source = String::new();
    gather(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")),
        &mut source,
    );
    for row in rows {
        let message = row.split('`').nth(1).unwrap();
        // The words of strerror(3) are not in the source; a `…` is a name in the message.
        let known = message == "No such file or directory"
            || message.split('…').all(|part| source.contains(part.trim()));
        assert!(known, "udgram has no message {message:?}");
    }
}

#[test]
fn the_speeds_of_the_readme_are_those_of_the_page_of_benchmarks() {
    let benchmarks = include_str!("../BENCHMARKS.md");
    let (_, table) = README.split_once("How fast, ").unwrap();
    let rows: Vec<_> = table
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains("**×"))
        .collect();
    assert_eq!(rows.len(), 4, "{rows:?}");
    for cell in rows.iter().flat_map(|row| row.split('|').skip(2)) {
        assert!(benchmarks.contains(cell.trim()), "{cell} is in no row");
    }
}

#[test]
fn the_links_of_the_pages_lead_to_files_and_headings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (page, text) in pages() {
        let folder = root.join(&page).parent().unwrap().to_owned();
        for link in text
            .split("](")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap())
        {
            if link.starts_with("https://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                root.join(&page)
            } else {
                folder.join(path)
            };
            assert!(target.exists(), "{page} has a link to {link}");
            if heading.is_empty() {
                continue;
            }
            let text = fs::read_to_string(target).unwrap();
            let found = text
                .lines()
                .filter(|line| line.starts_with('#'))
                .any(|line| anchor(line) == heading);
            assert!(found, "{page} has a link to {link}");
        }
    }
}

/// Returns the anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches(['#', ' '])
        .chars()
        .filter(|character| character.is_alphanumeric() || " -_".contains(*character))
        .map(|character| {
            if character == ' ' {
                '-'
            } else {
                character.to_ascii_lowercase()
            }
        })
        .collect()
}

#[test]
fn the_readme_has_a_link_to_every_page() {
    for page in pages().keys().filter(|page| *page != "README.md") {
        assert!(
            README.contains(&format!("]({page})")),
            "README.md lacks {page}"
        );
    }
}

#[test]
fn every_changelog_begins_with_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let newest = include_str!("../CHANGELOG.md")
        .lines()
        .filter_map(|line| line.strip_prefix("## ["))
        .find(|heading| !heading.starts_with("Unreleased"));
    assert!(newest.is_some_and(|heading| heading.starts_with(&format!("{version}]"))));
    let debian = include_str!("../packaging/debian-changelog");
    assert!(debian.starts_with(&format!("udgram ({version}-1) ")));
}

#[test]
fn the_table_of_the_code_structure_has_every_source_file() {
    let contributing = include_str!("../CONTRIBUTING.md");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for directory in ["src", "src/bin/udgram"] {
        for entry in fs::read_dir(root.join(directory)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let told = ["lib.rs", "bin"].contains(&name.as_str())
                || [format!("/{name}"), format!("`{name}`")]
                    .iter()
                    .any(|written| contributing.contains(written));
            assert!(told, "CONTRIBUTING.md lacks {directory}/{name}");
        }
    }
}

#[test]
fn contributing_lists_every_dependency() {
    let contributing = include_str!("../CONTRIBUTING.md");
    let (_, table) = contributing.split_once("| crate | why |").unwrap();
    let manifest = include_str!("../Cargo.toml");
    let dependencies = manifest
        .split("\n[")
        .filter(|section| section.contains("dependencies]"))
        .flat_map(|section| section.lines().skip(1))
        .filter_map(|line| line.split_once(" = "));
    for (name, _) in dependencies {
        let first = |line: &str| {
            line.split('|')
                .nth(1)
                .is_some_and(|names| names.split([',', ' ']).any(|known| known == name))
        };
        assert!(table.lines().any(first), "CONTRIBUTING.md lacks {name}");
    }
}

fn gather(directory: &Path, source: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(&path, source);
        } else {
            source.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}
