//! `udgram ls`: its lines for sockets in each condition, and its table on a terminal.

use crate::harness::{Sandbox, peer, root, text};
use crate::running::Running;

/// Names this process so that its owner is shown in 20 characters, whatever its number is.
const NAMED: &str = "
import os, socket, subprocess, sys, threading
with open('/proc/self/comm', 'w') as comm:
    comm.write('own' + 'e' * (13 - len(str(os.getpid()))) + 'r')
";

/// Binds the address in its argument.
const OWNER: &str = "
held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
held.bind(sys.argv[1].replace('@', '\\0'))
print('bound', flush=True)
sys.stdin.read()
";

/// Makes sockets in each condition, prints the numbers of the two processes that hold them, and runs a shell
/// script.
const CONDITIONS: &str = "
def make(name=None, peer=None):
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if name:
        made.bind(os.path.abspath(name))
    if peer:
        made.connect(os.path.abspath(peer))
    return made
def fill(name):
    with make() as sender:
        sender.setblocking(False)
        try:
            while True:
                sender.sendto(b'1', name)
        except BlockingIOError:
            pass
held = [make(name) for name in ['idle', 'two', 'full', 'waited', 'moved', 'other']]
held += [make('client', 'idle'), held[0].dup()]
fill('full')
fill('waited')
for number in range(2):
    held[0].sendto(b'1', 'two')
os.rename('moved', 'elsewhere')
os.remove('other')
open('other', 'w').close()
waits = threading.Thread(target=lambda: make(None, 'waited').send(b'1'), daemon=True)
waits.start()
place = f'/proc/self/task/{waits.native_id}/wchan'
while open(place).read() != 'unix_wait_for_peer':
    pass
idle = held[0].fileno()
second = subprocess.Popen(['cat'], stdin=subprocess.PIPE, pass_fds=[idle])
print(os.getpid(), second.pid, *(each.fileno() for each in held), flush=True)
shell = subprocess.run(['sh', '-c', sys.argv[1]])
second.communicate()
sys.exit(shell.returncode)
";

/// The sockets of [`CONDITIONS`], as `udgram ls` has them.
struct Conditions {
    directory: String,
    /// The processes that hold them.
    pids: [i32; 2],
    /// The descriptors there.
    numbers: Vec<i32>,
    /// The lines of the script.
    lines: Vec<String>,
}

impl Conditions {
    /// Runs a shell script beside the sockets, in a network namespace that has no other sockets.
    #[track_caller]
    fn run(script: &str) -> Self {
        let sandbox = Sandbox::new();
        let mut lines = sandbox
            .command("unshare", ["-n", "python3", "-c"])
            .args([&(NAMED.to_owned() + CONDITIONS), script])
            .env("TERM", "xterm")
            .run()
            .lines();
        let first = lines.remove(0);
        let mut words = first.split(' ').map(|word| word.parse().unwrap());
        Self {
            directory: text(sandbox.dir()).to_owned(),
            pids: [words.next().unwrap(), words.next().unwrap()],
            numbers: words.collect(),
            lines,
        }
    }

    fn comm(&self) -> String {
        comm(&self.pids[0].to_string())
    }

    /// Returns the owner in the table.
    fn owner(&self) -> String {
        format!("{} ({})", self.comm(), self.pids[0])
    }

    /// Returns the owners of the socket that two processes hold, in the order of their numbers.
    fn owners(&self) -> String {
        let mut owners = [
            (self.pids[0], self.owner()),
            (self.pids[1], format!("cat ({})", self.pids[1])),
        ];
        owners.sort();
        owners.map(|(_, owner)| owner).join(", ")
    }
}

fn comm(pid: &str) -> String {
    format!("own{}r", "e".repeat(13 - pid.len()))
}

/// Starts [`OWNER`]. Returns it, and its cell of 20 columns in the table.
#[track_caller]
fn owner(sandbox: &Sandbox, address: &str) -> (Running, String) {
    let script = NAMED.to_owned() + OWNER;
    let owner = sandbox.command("python3", ["-c", &script, address]);
    let mut owner = owner.stdin_open().start();
    assert_eq!(owner.line(), "bound");
    let pid = owner.pid().to_string();
    let cell = format!("{} ({pid})", comm(&pid));
    (owner, cell)
}

/// Runs a command on a terminal of this width, and returns its lines.
#[track_caller]
fn on_terminal(sandbox: &Sandbox, columns: usize, command: &str) -> Vec<String> {
    let command = format!("stty cols {columns}; {command}");
    let script = sandbox.command("script", ["-qec", &command, "/dev/null"]);
    script.env("TERM", "xterm").run().lines()
}

#[test]
fn sockets_in_trouble_come_first_then_those_with_datagrams_then_those_without_a_name() {
    root!();
    peer!("python3", "unshare");
    let listed = Conditions::run("udgram ls --all");
    let (directory, pids) = (&listed.directory, listed.pids);
    let owner = |pid: i32, comm: &str, number: i32| {
        format!("{{\"pid\":{pid},\"comm\":\"{comm}\",\"fd\":{number},\"uid\":0}}")
    };
    let own = |at: usize| owner(pids[0], &listed.comm(), listed.numbers[at]);
    let mut idle = [
        (pids[0], own(0) + "," + &own(7)),
        (pids[1], owner(pids[1], "cat", listed.numbers[0])),
    ];
    idle.sort();
    let line = |name: &str, state: &str, owners: &str, rest: &str| {
        format!(
            "{{\"address\":\"{directory}/{name}\",\"state\":\"{state}\",\"owners\":[{owners}],{rest}}}"
        )
    };
    let peer = format!("\"peer\":\"{directory}/idle\"");
    let mut lines = listed.lines.clone();
    // The socket of the waiting thread has any number.
    let unnamed = lines.pop().unwrap();
    assert_eq!(
        lines,
        [
            line(
                "waited",
                "live",
                &own(3),
                "\"clients\":1,\"queued\":11,\"full\":true,\"blocked\":1"
            ),
            line(
                "full",
                "live",
                &own(2),
                "\"clients\":0,\"queued\":11,\"full\":true,\"blocked\":0"
            ),
            line(
                "moved",
                "removed",
                &own(4),
                "\"clients\":0,\"queued\":0,\"blocked\":0"
            ),
            line(
                "other",
                "shadowed",
                &own(5),
                "\"clients\":0,\"queued\":0,\"blocked\":0"
            ),
            line(
                "two",
                "live",
                &own(1),
                "\"clients\":0,\"queued\":2,\"full\":false,\"blocked\":0"
            ),
            line(
                "client",
                "live",
                &own(6),
                &(peer + ",\"clients\":0,\"queued\":0,\"full\":false,\"blocked\":0")
            ),
            line(
                "idle",
                "live",
                &idle.map(|(_, owner)| owner).join(","),
                "\"clients\":1,\"queued\":0,\"full\":false,\"blocked\":0"
            ),
        ]
    );
    assert!(
        unnamed.starts_with("{\"address\":null,\"owners\":[{"),
        "{unnamed}"
    );
    let end = format!(
        "}}],\"peer\":\"{directory}/waited\",\"clients\":0,\"queued\":0,\"full\":false,\"blocked\":0}}"
    );
    assert!(unnamed.ends_with(&end), "{unnamed}");
}

#[test]
fn the_table_has_the_condition_the_queue_the_clients_and_the_owners_of_each_socket() {
    root!();
    peer!("python3", "unshare", "script", "stty");
    let table = |command: &str| {
        Conditions::run(&format!("script -qec 'stty cols 200; {command}' /dev/null"))
    };
    let counted = table("udgram ls --all --color never");
    let (owner, owners, directory) = (counted.owner(), counted.owners(), &counted.directory);
    let gap = " ".repeat(owners.len() - 20);
    assert_eq!(
        counted.lines,
        [
            format!("STATE      QUEUED  CLIENTS  OWNER               {gap}  ADDRESS"),
            format!("blocked 1  11      1        {owner}{gap}  {directory}/waited"),
            format!("full       11      0        {owner}{gap}  {directory}/full"),
            format!("removed    0       0        {owner}{gap}  {directory}/moved"),
            format!("shadowed   0       0        {owner}{gap}  {directory}/other"),
            format!("live       2       0        {owner}{gap}  {directory}/two"),
            format!(
                "live       0       0        {owner}{gap}  {directory}/client -> {directory}/idle"
            ),
            format!("live       0       1        {owners}  {directory}/idle"),
            format!("-          0       0        {owner}{gap}  - -> {directory}/waited"),
        ]
    );
    // Without --all, a number is a lower bound, and colours show the trouble.
    let coloured = table("udgram ls");
    let (owner, owners, directory) = (coloured.owner(), coloured.owners(), &coloured.directory);
    let gap = " ".repeat(owners.len() - 20);
    let bold = |word: &str| format!("\u{1b}[1m{word}\u{1b}[0m");
    let red = |word: &str| format!("\u{1b}[1m\u{1b}[31m{word}\u{1b}[0m");
    let yellow = |word: &str| format!("\u{1b}[33m{word}\u{1b}[0m");
    let green = |word: &str| format!("\u{1b}[32m{word}\u{1b}[0m");
    let headings = ["STATE", "QUEUED", "CLIENTS", "OWNER", "ADDRESS"].map(bold);
    let [state, queued, clients, heading, address] = headings;
    assert_eq!(
        coloured.lines,
        [
            format!("{state}      {queued}  {clients}  {heading}               {gap}  {address}"),
            format!(
                "{}  1+      1        {owner}{gap}  {directory}/waited",
                red("blocked 1")
            ),
            format!(
                "{}       1+      0        {owner}{gap}  {directory}/full",
                red("full")
            ),
            format!(
                "{}    -       0        {owner}{gap}  {directory}/moved",
                yellow("removed")
            ),
            format!(
                "{}   -       0        {owner}{gap}  {directory}/other",
                yellow("shadowed")
            ),
            format!(
                "{}       1+      0        {owner}{gap}  {directory}/two",
                green("live")
            ),
            format!(
                "{}       -       0        {owner}{gap}  {directory}/client -> {directory}/idle",
                green("live")
            ),
            format!(
                "{}       -       1        {owners}  {directory}/idle",
                green("live")
            ),
        ]
    );
}

#[test]
fn a_candidate_is_an_address_with_its_condition_and_its_first_owner() {
    root!();
    peer!("python3", "unshare");
    let listed = Conditions::run("udgram ls --candidates");
    let (directory, owner) = (&listed.directory, listed.owner());
    let owners = listed.owners();
    let first = owners.split(", ").next().unwrap();
    assert_eq!(
        listed.lines,
        [
            format!("{directory}/waited\tblocked, {owner}"),
            format!("{directory}/full\tfull, {owner}"),
            format!("{directory}/two\tlive, {owner}"),
            format!("{directory}/client\tlive, {owner}"),
            format!("{directory}/idle\tlive, {first}"),
        ]
    );
}

#[test]
fn columns_are_shortened_and_then_left_out_until_the_table_fits() {
    peer!("python3", "script", "stty");
    let sandbox = Sandbox::new();
    // An address of 40 columns.
    let address = format!("@{}-abcdefghijklmnopqrstuvwxyz012", sandbox.unique());
    let (running, owner) = owner(&sandbox, &address);
    let begins = |width: usize| format!("{}…", &owner[..width - 1]);
    let ends = |width: usize| format!("…{}", &address[address.len() + 1 - width..]);
    for (columns, headings, cells) in [
        (
            86,
            "STATE  QUEUED  CLIENTS  OWNER                 ADDRESS",
            format!("live   -       0        {owner}  {address}"),
        ),
        (
            85,
            "STATE  QUEUED  CLIENTS  OWNER                 ADDRESS",
            format!("live   -       0        {owner}  {}", ends(39)),
        ),
        // A third of the space beyond the shortest widths is the owner's.
        (
            70,
            "STATE  QUEUED  CLIENTS  OWNER              ADDRESS",
            format!("live   -       0        {}  {}", begins(17), ends(27)),
        ),
        (
            57,
            "STATE  QUEUED  CLIENTS  OWNER          ADDRESS",
            format!("live   -       0        {}  {}", begins(13), ends(18)),
        ),
        (
            54,
            "STATE  QUEUED  CLIENTS  OWNER         ADDRESS",
            format!("live   -       0        {}  {}", begins(12), ends(16)),
        ),
        (
            53,
            "STATE  QUEUED  OWNER           ADDRESS",
            format!("live   -       {}  {}", begins(14), ends(22)),
        ),
        (
            45,
            "STATE  QUEUED  OWNER         ADDRESS",
            format!("live   -       {}  {}", begins(12), ends(16)),
        ),
        (
            44,
            "STATE  OWNER           ADDRESS",
            format!("live   {}  {}", begins(14), ends(21)),
        ),
        (
            37,
            "STATE  OWNER         ADDRESS",
            format!("live   {}  {}", begins(12), ends(16)),
        ),
        (36, "STATE  ADDRESS", format!("live   {}", ends(29))),
        (14, "STATE  ADDRESS", format!("live   {}", ends(7))),
        (13, "STATE  …DRESS", format!("live   {}", ends(6))),
        (8, "STATE  …", "live   …".to_owned()),
        (1, "STATE  …", "live   …".to_owned()),
    ] {
        let command = format!("udgram ls --color never {address}");
        let lines = on_terminal(&sandbox, columns, &command);
        assert_eq!(lines, [headings, &cells], "{columns}");
    }
    running.finish().succeeds("bound\n");
}

#[test]
fn the_owner_gets_the_space_that_a_short_address_leaves() {
    peer!("python3", "script", "stty");
    let sandbox = Sandbox::new();
    let address = format!("@{}", sandbox.unique());
    let (running, owner) = owner(&sandbox, &address);
    for (columns, headings, cell) in [
        (
            56,
            "STATE  QUEUED  CLIENTS  OWNER                 ADDRESS",
            owner.clone(),
        ),
        (
            55,
            "STATE  QUEUED  CLIENTS  OWNER                ADDRESS",
            format!("{}…", &owner[..18]),
        ),
    ] {
        let command = format!("udgram ls --color never {address}");
        let lines = on_terminal(&sandbox, columns, &command);
        let cells = format!("live   -       0        {cell}  {address}");
        assert_eq!(lines, [headings, &cells], "{columns}");
    }
    running.finish().succeeds("bound\n");
}

#[test]
fn wide_characters_count_as_two_columns() {
    peer!("script", "stty");
    let sandbox = Sandbox::new();
    let name = "水é".repeat(15);
    let _socket = sandbox.bind(&name);
    for (columns, kept) in [
        (36, "é水é水é水é水é水é水é水é水é水é"),
        (35, "水é水é水é水é水é水é水é水é水é"),
        (34, "é水é水é水é水é水é水é水é水é"),
    ] {
        let command = format!("udgram ls --color never {name}");
        let lines = on_terminal(&sandbox, columns, &command);
        let cells = format!("live   …{kept}");
        assert_eq!(lines, ["STATE  ADDRESS", &cells], "{columns}");
    }
}

#[test]
fn a_list_without_sockets_has_no_headings() {
    peer!("script");
    let sandbox = Sandbox::new();
    let command = "udgram ls missing 2>/dev/null";
    let script = sandbox.command("script", ["-qec", command, "/dev/null"]);
    script.env("TERM", "xterm").run().ends(4, "").says_nothing();
}
