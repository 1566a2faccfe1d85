//! Compares the speed of `udgram` with a minimal C program ("the floor") and with other tools:
//!
//!     cargo bench --bench speed                         # all parts; twenty minutes
//!     cargo bench --bench speed -- --quick receive send # two parts, a tenth of the packets, three rounds
//!
//! Each round measures each contender once, and ratios are taken within a round, so that a machine
//! that becomes slower changes both sides. The scheduler's placement of sender and receiver has more
//! effect than the programs have: `--pin one` and `--pin two` fix it. A run that loses a packet is
//! reported and not counted.

#![allow(clippy::print_stdout, reason = "a benchmark is there to print")]

mod contender;
mod plot;
mod report;
mod runner;
mod scale;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use contender::{Contender, Program};
use report::{Cell, Report, Spread, Unit, thousands};
use runner::{Pin, Runner};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Measures udgram, the C floor, and the other tools that are installed.
#[derive(Parser)]
struct Options {
    /// The parts to measure [default: all]
    parts: Vec<Part>,
    /// A tenth of the packets, three rounds
    #[arg(long)]
    quick: bool,
    /// Number of rounds: each measures each contender once
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// The largest number of packets that `flat` sends
    #[arg(long, value_name = "N", default_value_t = 4_000_000)]
    max: u32,
    /// Measure udgram and the floor only
    #[arg(long)]
    no_peers: bool,
    /// Run both sides on one processor, or each on its own: the figures vary less
    #[arg(long, value_name = "PROCESSORS")]
    pin: Option<Pin>,
    /// Also draw the figures to an SVG file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Added by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Datagrams to lines of a file, from a sender that sends batches
    Receive,
    /// The same, from a sender that makes one system call for each datagram
    Singly,
    /// Lines of a file to datagrams
    Send,
    /// Request and answer, one at a time
    Echo,
    /// Request and answer, several under way: --echo, --pipe and --exec
    Answers,
    /// One packet, from the start of a process to its exit; the instructions executed
    Start,
    /// Memory of a receiver after a million datagrams, and after large ones
    Memory,
    /// Cost of a packet, for 10 and 1,000 times as many packets
    Flat,
    /// Time from a single packet to the line that can be read
    Latency,
    /// Receiving with a deep queue on one and on two processors, and what arrives of a burst (as root)
    Queue,
    /// Questions with several under way
    Window,
    /// Datagrams that a process receives while `listen --peek` or strace observes it; the records lost
    Observe,
    /// Datagrams, and requests and answers, that pass a relay
    Relay,
    /// More senders, longer runs, larger datagrams, more clients: cost of a datagram, and memory
    Scale,
    /// Size of the program
    Size,
}

/// A function that returns the seconds that a contender takes for a number of packets.
type Work = fn(&Runner, &Contender, u32) -> Result<f64>;

/// A run of the benchmark.
struct Run {
    options: Options,
    runner: Runner,
    present: Vec<Program>,
    report: Report,
}

impl Run {
    /// Measures each contender in each round, and enters the figures in one row for each suffix.
    fn compare(
        &mut self,
        unit: Unit,
        rounds: u32,
        contenders: &[Contender],
        suffixes: &[impl AsRef<str>],
        sample: impl Fn(&Runner, &Contender) -> Result<Vec<f64>>,
    ) {
        let present: Vec<_> = contenders
            .iter()
            .filter(|c| self.present.contains(&c.program))
            .filter(|c| self.runner.static_build.is_some() || !c.command.contains("{static}"))
            .filter(|c| self.runner.has_jq || !c.command.contains("{jq}"))
            .collect();
        let mut cells: Vec<_> = present
            .iter()
            .map(|_| vec![Cell::Values(Vec::new()); suffixes.len()])
            .collect();
        let mut order: Vec<_> = (0..present.len()).collect();
        // Round 0 warms up and is not counted.
        for round in 0..=rounds {
            for &i in &order {
                if matches!(cells[i][0], Cell::Missing(_)) {
                    continue;
                }
                match sample(&self.runner, present[i]) {
                    Ok(_) if round == 0 => {}
                    Ok(values) => {
                        for (cell, value) in cells[i].iter_mut().zip(values) {
                            if let Cell::Values(seen) = cell {
                                seen.push(value);
                            }
                        }
                    }
                    Err(e) => cells[i].fill(Cell::Missing(format!("{e:#}"))),
                }
            }
            order.reverse();
        }
        for (contender, figures) in present.iter().zip(&cells) {
            if contender.program == Program::Floor {
                continue;
            }
            for ((suffix, figure), floor) in suffixes.iter().zip(figures).zip(&cells[0]) {
                let work = format!("{}{}", contender.work, suffix.as_ref());
                self.report
                    .enter(&work, unit, Program::Floor, floor.clone(), None);
                self.report.enter(
                    &work,
                    unit,
                    contender.program,
                    figure.clone(),
                    contender.note,
                );
            }
        }
        for (work, program, why) in contender::UNABLE {
            if self.present.contains(program) && contenders.iter().any(|c| c.work == *work) {
                self.report
                    .enter(work, unit, *program, Cell::Missing((*why).to_owned()), None);
            }
        }
    }

    /// Returns the number of packets, a tenth of `count` with `--quick`.
    fn count(&self, count: u32) -> u32 {
        if self.options.quick {
            count / 10
        } else {
            count
        }
    }

    fn rounds(&self) -> u32 {
        let usual = if self.options.quick { 3 } else { 11 };
        self.options.rounds.unwrap_or(usual)
    }

    fn part(&mut self, part: Part) {
        match part {
            Part::Receive => {
                self.throughput(contender::RECEIVE, "", Runner::receive);
                self.throughput(contender::RECEIVE_SENDERS, "", Runner::receive);
            }
            Part::Singly => {
                let suffix = ", sent singly";
                self.throughput(contender::RECEIVE, suffix, Runner::receive_singly);
            }
            Part::Send => self.throughput(contender::SEND, "", Runner::send),
            Part::Echo => self.echo(),
            Part::Answers => self.answers(),
            Part::Start => self.start(),
            Part::Memory => self.memory(),
            Part::Flat => self.flat(),
            Part::Latency => self.latency(),
            Part::Queue => self.queue(),
            Part::Window => self.window(),
            Part::Observe => self.observe(),
            Part::Relay => self.relay(),
            Part::Scale => self.scale(),
            Part::Size => self.size(),
        }
        println!("{}", self.report.text().trim_end());
    }

    fn throughput(&mut self, contenders: &[Contender], suffix: &str, work: Work) {
        let (count, rounds) = (self.count(400_000), self.rounds());
        self.compare(
            Unit::PerSecond,
            rounds,
            contenders,
            &[suffix],
            |runner, c| {
                let count = count / c.share;
                Ok(vec![f64::from(count) / work(runner, c, count)?])
            },
        );
    }

    fn echo(&mut self) {
        let rounds = self.rounds();
        self.compare(
            Unit::Seconds,
            rounds,
            contender::ECHO,
            &[""],
            |runner, c| Ok(vec![runner.echo(c, 20_000 / c.share)?]),
        );
        for contenders in contender::ASKED {
            self.compare(Unit::Seconds, rounds, contenders, &[""], |runner, c| {
                Ok(vec![runner.asked(c, 20_000)?])
            });
        }
    }

    fn answers(&mut self) {
        let (count, rounds) = (self.count(100_000), self.rounds());
        let rates = RefCell::new(BTreeMap::<_, Vec<f64>>::new());
        let contenders = contender::ANSWERS;
        self.compare(Unit::PerSecond, rounds, contenders, &[""], |runner, c| {
            let rate = 1.0 / runner.answers(c, count / c.share)?;
            rates.borrow_mut().entry(c.work).or_default().push(rate);
            Ok(vec![rate])
        });
        let rates = rates.into_inner();
        let Some(echo) = rates.get(contender::ANSWERS_ECHO) else {
            return;
        };
        for (work, rates) in &rates {
            if work.is_empty() || *work == contender::ANSWERS_ECHO {
                continue;
            }
            // Each list begins with round 0, which warms up.
            let ratios = rates
                .iter()
                .zip(echo)
                .skip(1)
                .map(|(rate, echo)| rate / echo);
            let cell = Cell::Values(ratios.collect());
            let work = format!("{work}, ratio to --echo");
            self.report
                .enter(&work, Unit::Ratio, Program::Udgram, cell, None);
        }
    }

    fn start(&mut self) {
        let rounds = self.rounds() * 4;
        self.compare(
            Unit::Seconds,
            rounds,
            contender::START,
            &[""],
            |runner, c| Ok(vec![runner.start(c, 20 / c.share)?]),
        );
        if contender::works("valgrind --version") {
            let compiled = &contender::START[..contender::COMPILED];
            let suffix = [", instructions"];
            self.compare(Unit::Instructions, 1, compiled, &suffix, |runner, c| {
                Ok(vec![runner.instructions(c)?])
            });
        }
    }

    fn memory(&mut self) {
        let (count, rounds) = (self.count(1_000_000), self.rounds().min(3));
        let after = thousands(count);
        let rows = [
            format!(", peak after {after} packets"),
            format!(", after {after} packets"),
            ", idle after a burst of 4 MB packets".to_owned(),
        ];
        self.compare(
            Unit::Bytes,
            rounds,
            contender::ENDLESS,
            &rows,
            |runner, c| runner.memory(c, count),
        );
    }

    fn flat(&mut self) {
        let rounds = self.rounds().min(3);
        let max = if self.options.quick {
            40_000
        } else {
            self.options.max
        };
        let sizes = [4_000, 40_000, 4_000_000].into_iter().filter(|s| *s <= max);
        let sizes: Vec<u32> = sizes.collect();
        let rows: Vec<_> = sizes
            .iter()
            .map(|s| format!(", each of {}", thousands(*s)))
            .collect();
        let works: [Work; 2] = [Runner::receive, Runner::send];
        for (contenders, work) in contender::FLAT.iter().zip(works) {
            self.compare(Unit::Seconds, rounds, contenders, &rows, |runner, c| {
                let cost = |size: &u32| {
                    // Small numbers of packets take a few milliseconds: take the median of several runs.
                    let runs = (0..(40_000 / size).max(1)).map(|_| work(runner, c, *size));
                    let times = runs.collect::<Result<Vec<_>>>()?;
                    let middle = Spread::of(&times).context("no runs")?.median;
                    Ok(middle / f64::from(*size))
                };
                sizes.iter().map(cost).collect()
            });
        }
    }

    fn latency(&mut self) {
        let rounds = self.rounds().min(5);
        let rows = [
            ", packet to line",
            ", packet to line, p99",
            ", packet to line, worst of 1,000",
        ];
        self.compare(
            Unit::Delay,
            rounds,
            contender::ENDLESS,
            &rows,
            |runner, c| runner.latency(c, 1_000),
        );
    }

    fn queue(&mut self) {
        let pin = self.runner.pin;
        for (processors, suffix) in [
            (Pin::One, ", one processor"),
            (Pin::Two, ", two processors"),
        ] {
            self.runner.pin = Some(processors);
            for contenders in contender::QUEUE {
                self.throughput(contenders, suffix, Runner::receive);
            }
            let rounds = self.rounds();
            let contenders = contender::BURST;
            self.compare(Unit::Packets, rounds, contenders, &[suffix], |runner, c| {
                Ok(vec![runner.volley(c, 4_000)?])
            });
        }
        self.runner.pin = pin;
    }

    fn window(&mut self) {
        let (count, rounds) = (self.count(100_000), self.rounds().min(7));
        let contenders = contender::WINDOW;
        self.compare(Unit::PerSecond, rounds, contenders, &[""], |runner, c| {
            Ok(vec![f64::from(count) / runner.ask(c, count)?])
        });
    }

    fn observe(&mut self) {
        let (count, rounds) = (self.count(1_000_000), self.rounds().min(5));
        let lost = RefCell::new(BTreeMap::<_, Vec<f64>>::new());
        let contenders = contender::OBSERVE;
        self.compare(Unit::PerSecond, rounds, contenders, &[""], |runner, c| {
            let count = count / c.share;
            let (seconds, missed) = runner.observe(c, count)?;
            if c.program == Program::Udgram {
                let in_a_million = missed * 1e6 / f64::from(count);
                lost.borrow_mut()
                    .entry(c.work)
                    .or_default()
                    .push(in_a_million);
            }
            Ok(vec![f64::from(count) / seconds])
        });
        for (work, lost) in lost.into_inner() {
            let work = format!("{work}, records lost in a million");
            let cell = Cell::Values(lost);
            self.report
                .enter(&work, Unit::Packets, Program::Udgram, cell, None);
        }
    }

    fn relay(&mut self) {
        let (count, rounds) = (self.count(400_000), self.rounds());
        let contenders = contender::RELAY;
        self.compare(Unit::PerSecond, rounds, contenders, &[""], |runner, c| {
            Ok(vec![f64::from(count) / runner.relay(c, count)?])
        });
        let both_ways = &contenders[..contender::BOTH_WAYS];
        let suffix = [", request and answer"];
        self.compare(Unit::Seconds, rounds, both_ways, &suffix, |runner, c| {
            Ok(vec![runner.relay_echo(c, 20_000)?])
        });
    }

    fn scale(&mut self) {
        for load in scale::LOADS {
            let load = if self.options.quick {
                load.quick()
            } else {
                *load
            };
            // Round 0 warms up and is not counted, unless a round takes long.
            let rounds = self.rounds().min(3);
            let counted = if load.is_long() { 0..1 } else { 1..rounds + 1 };
            let contenders = load.contenders();
            let mut samples = vec![Ok((Vec::new(), Vec::new())); contenders.len()];
            for round in 0..counted.end {
                for (contender, samples) in contenders.iter().zip(&mut samples) {
                    match (self.runner.scaled(contender, load), samples) {
                        (Ok((time, peak)), Ok((times, peaks))) if counted.contains(&round) => {
                            times.push(time);
                            peaks.push(peak);
                        }
                        (Ok(_), _) => {}
                        (Err(e), samples) => *samples = Err(format!("{e:#}")),
                    }
                }
            }
            for (contender, samples) in contenders.iter().zip(samples) {
                let (times, peaks) = match samples {
                    Ok((times, peaks)) => (Cell::Values(times), Cell::Values(peaks)),
                    Err(e) => (Cell::Missing(e.clone()), Cell::Missing(e)),
                };
                let row = |what| format!("{}, {what}", load.name());
                let program = contender.program;
                self.report
                    .enter(&row("each"), Unit::Seconds, program, times, None);
                self.report
                    .enter(&row("peak memory"), Unit::Bytes, program, peaks, None);
            }
        }
    }

    fn size(&mut self) {
        let builds = [
            ("size, stripped", Some(&self.runner.udgram)),
            (
                "size, stripped, static build",
                self.runner.static_build.as_ref(),
            ),
        ];
        for (work, program) in builds {
            let size = program.and_then(|p| u32::try_from(fs::metadata(p).ok()?.len()).ok());
            if let Some(size) = size {
                let cell = Cell::Values(vec![f64::from(size)]);
                self.report
                    .enter(work, Unit::Bytes, Program::Udgram, cell, None);
            }
        }
    }
}

/// Copies `program` to `to`, as an installation does. The page cache holds the linker's output in
/// single pages, from which a process starts slower.
fn install(program: &Path, to: &Path, name: &str) -> Result<String> {
    let bin = to.join("bin");
    fs::create_dir_all(&bin)?;
    let installed = bin.join(name);
    let _ = fs::remove_file(&installed);
    fs::copy(program, &installed).with_context(|| installed.display().to_string())?;
    Ok(installed.to_string_lossy().into_owned())
}

fn build_floor(to: &Path) -> Result<String> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/speed/floor.c");
    let program = to.join("floor");
    let status = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-o"])
        .arg(&program)
        .arg(source)
        .status();
    ensure!(
        status.context("cc")?.success(),
        "the C floor does not compile"
    );
    install(&program, to, "floor")
}

/// Builds the static program. Prints a line and returns `None` if there is no static C library.
fn build_static(to: &Path) -> Result<Option<String>> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let directory = to.join("static");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--locked", "--offline"])
        .args(["--bin", "udgram", "--target", &target, "--target-dir"])
        .arg(&directory)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C relocation-model=static",
        )
        .status();
    let program = directory.join(target).join("release/udgram");
    if status.is_ok_and(|s| s.success()) {
        install(&program, to, "udgram-static").map(Some)
    } else {
        println!("the static build failed: left out");
        Ok(None)
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let parts = match &options.parts[..] {
        [] => Part::value_variants().to_vec(),
        some => some.to_vec(),
    };
    let built = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let floor = build_floor(built)?;
    let static_build = if parts.iter().any(|p| matches!(p, Part::Start | Part::Size)) {
        build_static(built)?
    } else {
        None
    };
    // Prefer a directory in memory: the speed of a disk varies.
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    let directory = base.join(format!("udgram-bench-{}", std::process::id()));
    fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
    let runner = Runner {
        directory,
        floor,
        udgram: install(Path::new(env!("CARGO_BIN_EXE_udgram")), built, "udgram")?,
        static_build,
        python: contender::python(),
        pin: options.pin,
        has_jq: contender::works("jq --version"),
    };
    let mut present = Vec::new();
    for program in Program::ALL {
        match contender::works(program.probe()) {
            _ if options.no_peers && program.is_peer() => {}
            true => present.push(program),
            false => println!("{} is not installed: left out", program.name()),
        }
    }
    let report = Report::default();
    let mut run = Run {
        options,
        runner,
        present,
        report,
    };
    for part in parts {
        run.part(part);
    }
    println!("\n{}", run.report.markdown());
    if let Some(file) = &run.options.plot {
        plot::write(&run.report, file)?;
    }
    Ok(())
}
