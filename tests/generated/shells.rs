//! Loads the completion scripts in their shells, asks for candidates, and compares them.

use crate::installed;
use nix::unistd::mkdtemp;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/completions");

/// A directory with sockets in it, and sockets with names that begin with `prefix`.
struct World {
    directory: PathBuf,
    prefix: String,
    _sockets: Vec<UnixDatagram>,
    _listener: UnixListener,
}

impl World {
    fn new(shell: &str) -> Self {
        let template = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{shell}-XXXXXX"));
        let directory = mkdtemp(&template).unwrap();
        fs::write(directory.join("document"), "").unwrap();
        fs::write(directory.join("dataset"), "").unwrap();
        // The kernel keeps the name as it was bound: a long directory would not fit.
        let short = PathBuf::from(format!("/tmp/udgram-{shell}-{}", std::process::id()));
        let _ = fs::remove_file(&short);
        std::os::unix::fs::symlink(&directory, &short).unwrap();
        let prefix = format!("udgram-{shell}-{}", std::process::id());
        let named = |name: &[u8]| {
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap()
        };
        let plain = format!("{prefix}-plain");
        let slash = format!("{prefix}-back\\slash");
        // Its socket is closed at once.
        drop(UnixDatagram::bind(short.join("data-stale")).unwrap());
        let sockets = vec![
            UnixDatagram::bind(short.join("datagram")).unwrap(),
            named(plain.as_bytes()),
            named(slash.as_bytes()),
        ];
        let stream = SocketAddr::from_abstract_name(format!("{prefix}-stream")).unwrap();
        Self {
            directory: short,
            prefix,
            _sockets: sockets,
            _listener: UnixListener::bind_addr(&stream).unwrap(),
        }
    }

    /// Returns command lines, and the candidates that each must have.
    fn questions(&self) -> Vec<(String, Vec<String>)> {
        let prefix = &self.prefix;
        let abstracts = vec![
            format!("@{prefix}-back\\\\slash"),
            format!("@{prefix}-plain"),
        ];
        let question = |line: &str, candidates: &[&str]| {
            (
                line.to_owned(),
                candidates
                    .iter()
                    .map(|&candidate| candidate.to_owned())
                    .collect(),
            )
        };
        vec![
            question("udgram li", &["listen"]),
            question("udgram send --tim", &["--timeout"]),
            question("udgram recv -p m", &["msgpack"]),
            question("udgram completions f", &["fish"]),
            question("udgram ls --color a", &["always", "auto"]),
            question("udgram ls --color ", &["always", "auto", "never"]),
            question("udgram help so", &["sockopt"]),
            question("udgram help docu", &[]),
            (format!("udgram send @{prefix}-"), abstracts.clone()),
            (format!("udgram recv -e @{prefix}-"), abstracts.clone()),
            (format!("udgram talk -w @{prefix}-"), abstracts.clone()),
            (
                format!("udgram listen --connect @{prefix}-"),
                abstracts.clone(),
            ),
            (format!("udgram send -wb @{prefix}-"), abstracts.clone()),
            question("udgram iter docu", &["document"]),
            // A peer is a live socket; the file `dataset` and the socket file `data-stale` are none.
            question("udgram send da", &["datagram"]),
            question("udgram send --to da", &["datagram"]),
            // A packet, or no argument at all, is not a file.
            question("udgram send datagram da", &[]),
            question("udgram send --to datagram da", &[]),
            question("udgram send -s 7 da", &[]),
            question("udgram talk datagram da", &[]),
            question("udgram recv datagram da", &[]),
            question("udgram listen datagram da", &[]),
            question("udgram iter -t 1 datagram da", &[]),
            question("udgram completions bash da", &[]),
            question("udgram help send da", &[]),
            question("udgram exec da", &[]),
            question("udgram listen da", &["data-stale", "datagram", "dataset"]),
            question("udgram relay da", &["data-stale", "datagram", "dataset"]),
            question("udgram relay -p text new da", &["datagram"]),
            question("udgram relay new datagram da", &["datagram"]),
            (
                format!("udgram exec -- udgram send -w @{prefix}-"),
                abstracts.clone(),
            ),
            question("udgram recv s -- udgram send --tim", &["--timeout"]),
            question("udgram recv --sockopt passc", &["passcred="]),
            question("udgram recv --sockopt SO_PASSC", &["SO_PASSCRED="]),
            question("udgram sockopt rcvbuf", &["rcvbuf", "rcvbufforce"]),
            question("udgram sockopt que", &["queue"]),
            question("udgram sockopt SO_RCVBUF", &["SO_RCVBUF", "SO_RCVBUFFORCE"]),
            question("udgram listen --allow-uid roo", &["root"]),
            question("udgram listen -s 7", &["7"]),
            (format!("udgram recv -s @{prefix}-"), abstracts.clone()),
            (
                format!("udgram ls @{prefix}- @{prefix}-"),
                abstracts.clone(),
            ),
            (format!("udgram iter --peek @{prefix}-"), abstracts),
            question("udgram send --fd 7", &["7"]),
        ]
    }

    /// Asks a shell for the candidates of each command line, by a script that prints one candidate a line.
    fn ask(&self, shell: &[&str], question: impl Fn(&str) -> String) {
        for (line, expected) in self.questions() {
            let output = Command::new(shell[0])
                .args(&shell[1..])
                .arg(question(&line))
                .current_dir(&self.directory)
                .env_clear()
                .env("PATH", search_path())
                .env("HOME", &self.directory)
                .env("LC_ALL", "C.UTF-8")
                .env("TERM", "dumb")
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            let printed = String::from_utf8_lossy(&output.stdout);
            let candidates: BTreeSet<&str> = printed
                .lines()
                .map(|line| line.split('\t').next().unwrap())
                .filter(|candidate| !candidate.is_empty())
                .collect();
            let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
            assert_eq!(candidates, expected, "{line:?} in {shell:?}: {errors}");
            assert_eq!(errors, "", "{line:?} in {shell:?}");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(fs::read_link(&self.directory).unwrap_or_default());
        let _ = fs::remove_file(&self.directory);
    }
}

/// Returns the search path with the built program first: the scripts ask it for sockets.
fn search_path() -> OsString {
    let own = Path::new(env!("CARGO_BIN_EXE_udgram")).parent().unwrap();
    let mut path = own.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    path
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[test]
fn bash_offers_what_fits() {
    if !installed("bash") {
        return;
    }
    World::new("bash").ask(&["bash", "--norc", "-c"], |line| {
        // The current word begins, in bash, after the last '=' or ':'.
        let word = line.rsplit([' ', '=', ':']).next().unwrap();
        format!(
            "exec 7</dev/null; source {SCRIPTS}/udgram.bash
             COMP_LINE={line} COMP_POINT=${{#COMP_LINE}}
             _udgram udgram {word}
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            line = quoted(line),
            word = quoted(word),
        )
    });
}

#[test]
fn a_socket_is_offered_with_its_state_and_its_owner() {
    let (bash, fish) = (installed("bash"), installed("fish"));
    let world = World::new("owner");
    let line = format!("udgram send @{}-", world.prefix);
    let owner = fs::read_to_string("/proc/self/comm").unwrap();
    let what = format!("live, {} ({})", owner.trim_end(), std::process::id());
    let plain = format!("@{}-plain", world.prefix);
    let list = format!(
        "source {SCRIPTS}/udgram.bash
         COMP_LINE={line} COMP_POINT=${{#COMP_LINE}} COMP_TYPE=63
         _udgram udgram @{prefix}-
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        line = quoted(&line),
        prefix = world.prefix,
    );
    let complete = format!(
        "source {SCRIPTS}/udgram.fish; complete -C {}",
        quoted(&line)
    );
    for (shell, there, script, offered) in [
        (
            &["bash", "--norc", "-c"],
            bash,
            list,
            format!("{plain}  ({what})"),
        ),
        (
            &["fish", "--no-config", "-c"],
            fish,
            complete,
            format!("{plain}\t{what}"),
        ),
    ] {
        if !there {
            continue;
        }
        let printed = Command::new(shell[0])
            .args(&shell[1..])
            .arg(script)
            .env("PATH", search_path())
            .env("HOME", &world.directory)
            .output()
            .unwrap();
        let printed = String::from_utf8(printed.stdout).unwrap();
        assert!(printed.lines().any(|line| line == offered), "{printed}");
    }
}

#[test]
fn a_descriptor_is_offered_with_what_it_refers_to() {
    let (bash, fish) = (installed("bash"), installed("fish"));
    let world = World::new("descriptor");
    let own = format!("{}:0", std::process::id());
    let link = fs::read_link("/proc/self/fd/0").unwrap();
    let link = link.to_str().unwrap();
    for (line, number, what) in [
        ("udgram send --fd ".to_owned(), "7", "/dev/null"),
        (
            format!("udgram recv -s {}:", std::process::id()),
            &own,
            link,
        ),
    ] {
        let list = format!(
            "exec 7</dev/null; source {SCRIPTS}/udgram.bash
             COMP_LINE={line} COMP_POINT=${{#COMP_LINE}} COMP_TYPE=63
             _udgram udgram ''
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            line = quoted(&line),
        );
        let complete = format!(
            "exec 7</dev/null; exec fish --no-config -c {}",
            quoted(&format!(
                "source {SCRIPTS}/udgram.fish; complete -C {}",
                quoted(&line)
            ))
        );
        // In bash the process before the colon is a word of its own.
        let short = number.rsplit(':').next().unwrap();
        for (there, shell, script, offered) in [
            (bash, "bash", list, format!("{short}  ({what})")),
            (fish, "sh", complete, format!("{number}\t{what}")),
        ] {
            if !there {
                continue;
            }
            let printed = Command::new(shell)
                .args(["-c", &script])
                .env("PATH", search_path())
                .env("HOME", &world.directory)
                .output()
                .unwrap();
            let printed = String::from_utf8(printed.stdout).unwrap();
            assert!(
                printed.lines().any(|line| line == offered),
                "{line}: {printed}"
            );
        }
    }
}

#[test]
fn bash_completes_inside_a_word_and_leaves_packets_alone() {
    if !installed("bash") {
        return;
    }
    let world = World::new("bash-equals");
    let printed = Command::new("bash")
        .args(["--norc", "-c"])
        .arg(format!(
            "source {SCRIPTS}/udgram.bash
             COMP_LINE='udgram recv --protocol=m' COMP_POINT=${{#COMP_LINE}}
             _udgram udgram m
             printf '%s\\n' \"${{COMPREPLY[@]}}\"
             COMP_LINE='udgram recv -s {pid}:' COMP_POINT=${{#COMP_LINE}}
             _udgram udgram ''
             printf '%s\\n' \"${{COMPREPLY[@]}}\" | grep -x 0
             COMP_LINE='udgram send --socket-fd 3 docu' COMP_POINT=${{#COMP_LINE}}
             _udgram udgram docu
             echo \"${{#COMPREPLY[@]}}\"",
            pid = std::process::id(),
        ))
        .current_dir(&world.directory)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&printed.stdout), "msgpack\n0\n0\n");
}

#[test]
fn fish_offers_what_fits() {
    if !installed("fish") {
        return;
    }
    World::new("fish").ask(&["sh", "-c"], |line| {
        let script = format!("source {SCRIPTS}/udgram.fish; complete -C {}", quoted(line));
        format!(
            "exec 7</dev/null; exec fish --no-config -c {}",
            quoted(&script)
        )
    });
}

#[test]
fn zsh_offers_what_fits() {
    if !installed("zsh") {
        return;
    }
    let world = World::new("zsh");
    let answer = world.directory.join("answer");
    // An interactive shell in a terminal, whose candidates are written to a file.
    let setting = format!(
        r#"
        exec 7</dev/null
        PROMPT= RPROMPT= fpath=({SCRIPTS} $fpath)
        autoload -Uz compinit && compinit -D -u
        compadd() {{
            if [[ " ${{@[1,(i)(-|--)]}} " == *' -'[OAD]' '* ]]; then builtin compadd "$@"; return; fi
            local -a hits
            builtin compadd -A hits "$@"
            print -rl -- ${{(Q)hits}} >>{answer}
            builtin compadd "$@"
        }}
        comppostfuncs=(exit)
        "#,
        answer = answer.display(),
    );
    let file = world.directory.join("setting");
    fs::write(&file, setting).unwrap();
    world.ask(&["zsh", "-f", "-c"], |line| {
        let _ = fs::remove_file(&answer);
        format!(
            "zmodload zsh/zpty
             zpty shell zsh -f -i
             zpty -w shell {load}
             zpty -n -w shell {line}$'\\t'
             while zpty -r shell text; do :; done >/dev/null
             [[ ! -e answer ]] || sort -u answer",
            load = quoted(&format!("source {}", Path::new(&file).display())),
            line = quoted(line),
        )
    });
}
