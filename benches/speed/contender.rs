//! Lists the programs that are measured, with their command lines.

use std::process::{Command, Stdio};

/// A measured program: a column of the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Program {
    Floor,
    Udgram,
    Socat,
    Nc,
    Python,
    EasyNetwork,
    Strace,
}

impl Program {
    pub(crate) const ALL: [Self; 7] = [
        Self::Floor,
        Self::Udgram,
        Self::Socat,
        Self::Nc,
        Self::Python,
        Self::EasyNetwork,
        Self::Strace,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "C floor",
            Self::Udgram => "udgram",
            Self::Socat => "socat",
            Self::Nc => "nc",
            Self::Python => "Python",
            Self::EasyNetwork => "EasyNetwork",
            Self::Strace => "strace",
        }
    }

    pub(crate) fn is_peer(self) -> bool {
        !matches!(self, Self::Floor | Self::Udgram)
    }

    /// Returns a command that succeeds if the program is installed. Only OpenBSD's nc has Unix sockets.
    pub(crate) fn probe(self) -> &'static str {
        match self {
            Self::Floor | Self::Udgram => "true",
            Self::Socat => "socat -V",
            Self::Nc => "nc -h 2>&1 | grep OpenBSD",
            Self::Python => "python3 -V",
            Self::EasyNetwork => "python3 -c 'import easynetwork.clients.unix_datagram'",
            Self::Strace => "strace -V",
        }
    }
}

/// The way in which the benchmark notices that a receiver has written all packets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The receiver is given the number of packets and exits.
    Exit,
    /// The receiver does not exit and adds no newline: the packets contain one, and the output file
    /// reaches its size.
    Size,
}

/// A program with one kind of work: a cell of the table.
pub(crate) struct Contender {
    pub(crate) program: Program,
    /// The kind of work, which is the row of the table. The floor is in all rows of its part.
    pub(crate) work: &'static str,
    /// The command line, split at blanks. [`crate::runner::Runner::command`] replaces the words in braces.
    pub(crate) command: &'static str,
    /// The end of its run.
    pub(crate) end: End,
    /// The number by which the count of packets is divided for a slow program.
    pub(crate) share: u32,
    pub(crate) note: Option<&'static str>,
}

const fn contender(program: Program, work: &'static str, command: &'static str) -> Contender {
    Contender::new(program, work, command)
}

impl Contender {
    pub(crate) const fn new(program: Program, work: &'static str, command: &'static str) -> Self {
        Self {
            program,
            work,
            command,
            end: End::Exit,
            share: 1,
            note: None,
        }
    }

    const fn noted(mut self, note: &'static str) -> Self {
        self.note = Some(note);
        self
    }

    const fn endless(mut self) -> Self {
        self.end = End::Size;
        self
    }

    const fn slow(mut self, share: u32) -> Self {
        self.share = share;
        self
    }
}

const RECEIVE_JSON: &str = "{udgram} listen -p json --count {count} {addr}";
const RECEIVE_FLOOR: &str = "{floor} receive {addr} {count}";
const SEND_JSON: &str = "{udgram} send -p json {addr}";
const SEND_FLOOR: &str = "{floor} send {addr}";
const NO_NEWLINE: &str = "adds no newline: its datagrams contain one";

/// Programs that write datagrams as lines to a file.
pub(crate) const RECEIVE: &[Contender] = &[
    contender(Program::Floor, "", RECEIVE_FLOOR),
    contender(Program::Udgram, "receive, json", RECEIVE_JSON),
    contender(
        Program::Udgram,
        "receive, text",
        "{udgram} listen -p text --count {count} {addr}",
    ),
    contender(
        Program::Udgram,
        "receive, --envelope",
        "{udgram} listen --envelope --count {count} {addr}",
    ),
    contender(
        Program::Udgram,
        "receive, --envelope --creds",
        "{udgram} listen --envelope --creds --count {count} {addr}",
    ),
    contender(
        Program::Socat,
        "receive, text",
        "socat -u UNIX-RECV:{addr} -",
    )
    .endless()
    .noted(NO_NEWLINE),
    contender(Program::Nc, "receive, text", "nc -dkluU {addr}")
        .endless()
        .noted(NO_NEWLINE),
    contender(
        Program::Python,
        "receive, text",
        "{python} socket receive {addr} {count}",
    ),
    contender(
        Program::EasyNetwork,
        "receive, json",
        "{python} easynetwork receive {addr} {count}",
    )
    .slow(10),
];

/// The receiver with the most to ask the kernel for, beside a floor that asks for as much.
pub(crate) const RECEIVE_SENDERS: &[Contender] = &[
    contender(Program::Floor, "", "{floor} receive-senders {addr} {count}"),
    contender(
        Program::Udgram,
        "receive, --envelope --creds, floor that asks for times and credentials",
        "{udgram} listen --envelope --creds --count {count} {addr}",
    ),
];

/// Programs that send the lines of a file as datagrams.
pub(crate) const SEND: &[Contender] = &[
    contender(Program::Floor, "", SEND_FLOOR),
    contender(Program::Udgram, "send, json", SEND_JSON),
    contender(
        Program::Udgram,
        "send, text",
        "{udgram} send -p text {addr}",
    ),
    contender(
        Program::Socat,
        "send, text",
        "socat -u -b {linesize} - UNIX-SENDTO:{addr}",
    )
    .noted("keeps the lines separate only because all have the length given with `-b`; sends the newline too"),
    contender(
        Program::Python,
        "send, text",
        "{python} socket send {addr}",
    ),
    contender(
        Program::EasyNetwork,
        "send, json",
        "{python} easynetwork send {addr}",
    )
    .slow(10),
];

/// Programs that cannot do a kind of work, with the reason.
pub(crate) const UNABLE: &[(&str, Program, &str)] = &[
    (
        "send, text",
        Program::Nc,
        "merges lines into datagrams of 16 KiB",
    ),
    ("request and answer", Program::Nc, "cannot answer"),
];

/// Programs that answer requests, one at a time.
pub(crate) const ECHO: &[Contender] = &[
    contender(Program::Floor, "", "{floor} echo {addr}"),
    contender(
        Program::Udgram,
        "request and answer",
        "{udgram} listen -p json --echo {addr}",
    ),
    contender(
        Program::Socat,
        "request and answer",
        "socat UNIX-RECVFROM:{addr},fork PIPE",
    )
    .slow(20)
    .noted("starts a process for each packet"),
    contender(
        Program::Python,
        "request and answer",
        "{python} socket echo {addr}",
    ),
    contender(
        Program::EasyNetwork,
        "request and answer",
        "{python} easynetwork echo {addr}",
    ),
];

/// Programs that answer `udgram send --reply`, which spins before it sleeps. The floor sleeps in the first
/// comparison, and spins as long as udgram in the second.
pub(crate) const ASKED: [&[Contender]; 2] = [
    &[
        contender(Program::Floor, "", "{floor} echo {addr}"),
        contender(
            Program::Udgram,
            "request of udgram and answer, beside a floor that sleeps",
            "{udgram} listen -p text --echo {addr}",
        ),
    ],
    &[
        contender(Program::Floor, "", "{floor} echo-spin {addr}"),
        contender(
            Program::Udgram,
            "request of udgram and answer, beside a floor that spins",
            "{udgram} listen -p text --echo {addr}",
        ),
    ],
];

/// Servers with several requests under way. The first row of udgram is compared with the others.
pub(crate) const ANSWERS: &[Contender] = &[
    contender(Program::Floor, "", "{floor} echo {addr}"),
    contender(
        Program::Udgram,
        ANSWERS_ECHO,
        "{udgram} listen -p json --echo {addr}",
    ),
    contender(
        Program::Udgram,
        "answers, --pipe of a C filter",
        "{udgram} listen -p json --pipe {filter} {addr}",
    ),
    contender(
        Program::Udgram,
        "answers, --pipe 'jq -c --unbuffered .'",
        "{udgram} listen -p json --pipe {jq} {addr}",
    ),
    contender(
        Program::Udgram,
        "answers, --exec of a C filter",
        "{udgram} listen -p json --exec {filter} {addr}",
    )
    .slow(50),
];

/// The row of [`ANSWERS`] that the others are compared with.
pub(crate) const ANSWERS_ECHO: &str = "answers, --echo";

/// Programs that send one packet and exit. The packet is in the arguments and on stdin.
pub(crate) const START: &[Contender] = &[
    contender(Program::Floor, "", "{floor} one {addr} {packet}"),
    contender(
        Program::Udgram,
        "one packet",
        "{udgram} send -p json {addr} {packet}",
    ),
    contender(
        Program::Udgram,
        "one packet, static build",
        "{static} send -p json {addr} {packet}",
    ),
    contender(
        Program::Socat,
        "one packet",
        "socat -u - UNIX-SENDTO:{addr}",
    ),
    contender(Program::Nc, "one packet", "nc -uU -q0 {addr}"),
    contender(
        Program::Python,
        "one packet",
        "{python} socket one {addr} {packet}",
    )
    .slow(5),
    contender(
        Program::EasyNetwork,
        "one packet",
        "{python} easynetwork one {addr} {packet}",
    )
    .slow(10),
];

/// The number of entries at the start of [`START`] that are machine code, and fast enough under valgrind.
pub(crate) const COMPILED: usize = 3;

/// Programs that receive until they are killed.
pub(crate) const ENDLESS: &[Contender] = &[
    contender(Program::Floor, "", RECEIVE_FLOOR),
    contender(Program::Udgram, "receiver", RECEIVE_JSON),
    contender(Program::Socat, "receiver", "socat -u UNIX-RECV:{addr} -")
        .endless()
        .noted("truncates datagrams to 8 KiB"),
    contender(Program::Nc, "receiver", "nc -dkluU {addr}")
        .endless()
        .noted("truncates datagrams to 16 KiB"),
    contender(
        Program::Python,
        "receiver",
        "{python} socket receive {addr} {count}",
    ),
];

/// Programs that receive and send growing numbers of packets: the cost of one packet must not grow.
pub(crate) const FLAT: [&[Contender]; 2] = [
    &[
        contender(Program::Floor, "", RECEIVE_FLOOR),
        contender(Program::Udgram, "receive", RECEIVE_JSON),
    ],
    &[
        contender(Program::Floor, "", SEND_FLOOR),
        contender(Program::Udgram, "send", SEND_JSON),
    ],
];

/// Receive with a deep queue, beside a floor with the default one, and beside one with the same.
pub(crate) const QUEUE: [&[Contender]; 2] = [
    &[
        contender(Program::Floor, "", RECEIVE_FLOOR),
        contender(Program::Udgram, "receive, json", RECEIVE_JSON),
        contender(
            Program::Udgram,
            "receive, json, --queue 512",
            "{udgram} listen -p json --queue 512 --count {count} {addr}",
        ),
    ],
    &[
        contender(Program::Floor, "", "{floor} receive {addr} {count} 512"),
        contender(
            Program::Udgram,
            "receive, json, --queue 512, floor with the same queue",
            "{udgram} listen -p json --queue 512 --count {count} {addr}",
        ),
    ],
];

/// Receive a burst from senders that do not wait.
pub(crate) const BURST: &[Contender] = &[
    contender(Program::Floor, "", RECEIVE_FLOOR),
    contender(
        Program::Udgram,
        "received of a burst of 4,000",
        "{udgram} listen -p json {addr}",
    ),
    contender(
        Program::Udgram,
        "received of a burst of 4,000, --queue 512",
        "{udgram} listen -p json --queue 512 {addr}",
    ),
    contender(
        Program::Udgram,
        "received of a burst of 4,000, --queue 4096",
        "{udgram} listen -p json --queue 4096 {addr}",
    ),
];

/// Ask `listen --echo`, beside a client that has one question under way.
pub(crate) const WINDOW: &[Contender] = &[
    contender(
        Program::Floor,
        "",
        "{udgram} send -p json -r --window 1 {addr}",
    ),
    contender(
        Program::Udgram,
        "questions, --window 8",
        "{udgram} send -p json -r --window 8 {addr}",
    ),
    contender(
        Program::Udgram,
        "questions, --window 64",
        "{udgram} send -p json -r --window 64 {addr}",
    ),
];

/// Observe a process that receives: the first row of each is the process by itself.
pub(crate) const OBSERVE: &[Contender] = &[
    contender(Program::Floor, "", OBSERVED),
    contender(
        Program::Udgram,
        "received while observed",
        "{udgram} listen --stats -p json --peek {addr}",
    ),
    contender(
        Program::Udgram,
        "received while observed, --envelope",
        "{udgram} listen --stats -p json --envelope --peek {addr}",
    ),
    contender(
        Program::Strace,
        "received while observed",
        "strace -f -qq -e trace=network -o {lines} -p {pid}",
    )
    .slow(50)
    .noted("`-f -e trace=network`; prints at most 32 bytes of each datagram"),
];

/// Programs that pass packets on to a process. In the place of the floor, there is none between the two ends.
pub(crate) const RELAY: &[Contender] = &[
    contender(Program::Floor, "", ""),
    contender(
        Program::Udgram,
        "through a relay",
        "{udgram} relay -p json {addr} {behind}",
    ),
    contender(
        Program::Socat,
        "through a relay",
        "socat -u UNIX-RECV:{addr} UNIX-SENDTO:{behind}",
    )
    .noted("one way, without credentials, descriptors and the senders' addresses"),
];

/// The number of entries at the start of [`RELAY`] that pass answers back.
pub(crate) const BOTH_WAYS: usize = 2;

/// The process that is observed: it checks that each datagram arrives, in order.
pub(crate) const OBSERVED: &str = "{floor} sink {addr} {count}";

/// Returns whether a shell command succeeds.
pub(crate) fn works(probe: &str) -> bool {
    Command::new("sh")
        .args(["-c", probe])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Returns the path of the interpreter itself: pyenv puts a shell script in its place.
pub(crate) fn python() -> String {
    Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "python3".to_owned(), |path| path.trim().to_owned())
}
