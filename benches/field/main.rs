//! The speed of `udgram`, beside a floor in C and beside its peers, in one run:
//!
//!     cargo bench --bench field                         # everything; a quarter of an hour
//!     cargo bench --bench field -- --quick receive send # two parts, a tenth of the packets, three rounds
//!
//! Every round measures each contender once, and a ratio is taken inside a round, so that a machine
//! whose mood changes does not change the verdict. Where the scheduler puts the two sides matters more than
//! anything they do: `--pin one` or `--pin two` takes that choice away from it.
//! Nothing here passes or fails; but a run in which a packet is lost is reported as such and not counted.

#![allow(clippy::print_stdout, reason = "a benchmark is there to print")]

mod contender;
mod field;
mod report;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use contender::{Contender, Program};
use field::{Field, Pin};
use report::{Cell, Report, Spread, Unit};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Measures udgram, a C floor and the peers that are installed.
#[derive(Parser)]
struct Options {
    /// What to measure [default: all of it]
    parts: Vec<Part>,
    /// A tenth of the packets, three rounds
    #[arg(long)]
    quick: bool,
    /// How often each contender is measured
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// The packets that `flat` sends at most
    #[arg(long, value_name = "N", default_value_t = 4_000_000)]
    most: u32,
    /// udgram and the floor only
    #[arg(long)]
    no_peers: bool,
    /// Keep both sides on one processor, or each on its own, for figures that vary less
    #[arg(long, value_name = "PROCESSORS")]
    pin: Option<Pin>,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Datagrams to lines of a file, from a sender that sends in batches
    Receive,
    /// The same, from a sender that makes a call for each datagram
    Singly,
    /// Lines of a file to datagrams
    Send,
    /// Request and answer, one at a time
    Echo,
    /// One packet, from the start of a process to its exit; its instructions
    Start,
    /// What a receiver holds after a million datagrams, and after large ones
    Memory,
    /// The cost of a packet, for 10 and 1,000 times as many
    Flat,
    /// A packet that arrives alone, to the line that can be read
    Latency,
    /// The program
    Size,
}

/// Seconds that so many packets took a contender.
type Work = fn(&Field, &Contender, u32) -> Result<f64>;

/// A run: who is there, and how much is asked of them.
struct Run {
    options: Options,
    field: Field,
    present: Vec<Program>,
    report: Report,
}

impl Run {
    /// Measures each contender, round after round, and enters its figures: for each suffix a row.
    fn compare(
        &mut self,
        unit: Unit,
        rounds: u32,
        contenders: &[Contender],
        suffixes: &[impl AsRef<str>],
        sample: impl Fn(&Field, &Contender) -> Result<Vec<f64>>,
    ) {
        let present: Vec<_> = contenders
            .iter()
            .filter(|c| self.present.contains(&c.program))
            .filter(|c| self.field.static_build.is_some() || !c.command.contains("{static}"))
            .collect();
        let mut cells: Vec<_> = present
            .iter()
            .map(|_| vec![Cell::Values(Vec::new()); suffixes.len()])
            .collect();
        let mut order: Vec<_> = (0..present.len()).collect();
        // The first round warms up, and is not counted.
        for round in 0..=rounds {
            for &i in &order {
                if matches!(cells[i][0], Cell::Missing(_)) {
                    continue;
                }
                match sample(&self.field, present[i]) {
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

    /// What is asked of everyone, less when in a hurry.
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
            Part::Receive => self.throughput(contender::RECEIVE, "", Field::receive),
            Part::Singly => {
                let suffix = ", sent singly";
                self.throughput(contender::RECEIVE, suffix, Field::receive_singly);
            }
            Part::Send => self.throughput(contender::SEND, "", Field::send),
            Part::Echo => self.echo(),
            Part::Start => self.start(),
            Part::Memory => self.memory(),
            Part::Flat => self.flat(),
            Part::Latency => self.latency(),
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
            |field, c| {
                let count = count / c.share;
                Ok(vec![f64::from(count) / work(field, c, count)?])
            },
        );
    }

    fn echo(&mut self) {
        let rounds = self.rounds();
        self.compare(Unit::Seconds, rounds, contender::ECHO, &[""], |field, c| {
            Ok(vec![field.echo(c, 20_000 / c.share)?])
        });
    }

    fn start(&mut self) {
        let rounds = self.rounds() * 4;
        self.compare(
            Unit::Seconds,
            rounds,
            contender::START,
            &[""],
            |field, c| Ok(vec![field.start(c, 20 / c.share)?]),
        );
        if contender::works("valgrind --version") {
            let compiled = &contender::START[..contender::COMPILED];
            let suffix = [", instructions"];
            self.compare(Unit::Instructions, 1, compiled, &suffix, |field, c| {
                Ok(vec![field.instructions(c)?])
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
            |field, c| field.memory(c, count),
        );
    }

    fn flat(&mut self) {
        let rounds = self.rounds().min(3);
        let most = if self.options.quick {
            40_000
        } else {
            self.options.most
        };
        let sizes = [4_000, 40_000, 4_000_000]
            .into_iter()
            .filter(|s| *s <= most);
        let sizes: Vec<u32> = sizes.collect();
        let rows: Vec<_> = sizes
            .iter()
            .map(|s| format!(", each of {}", thousands(*s)))
            .collect();
        let works: [Work; 2] = [Field::receive, Field::send];
        for (contenders, work) in contender::FLAT.iter().zip(works) {
            self.compare(Unit::Seconds, rounds, contenders, &rows, |field, c| {
                let cost = |size: &u32| {
                    // A run of a few milliseconds says little alone.
                    let runs = (0..(40_000 / size).max(1)).map(|_| work(field, c, *size));
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
        let rows = [", packet to line", ", packet to line, worst of 1,000"];
        self.compare(
            Unit::Delay,
            rounds,
            contender::ENDLESS,
            &rows,
            |field, c| field.latency(c, 1_000),
        );
    }

    fn size(&mut self) {
        let builds = [
            ("size, stripped", Some(&self.field.udgram)),
            (
                "size, stripped, static build",
                self.field.static_build.as_ref(),
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

/// 4000000 as 4,000,000.
fn thousands(number: u32) -> String {
    match number / 1000 {
        0 => number.to_string(),
        more => format!("{},{:03}", thousands(more), number % 1000),
    }
}

/// A copy of `program`, as users have it: what a linker has just written lies in memory in single
/// pages, from which a process starts slower.
fn install(program: &Path, to: &Path, name: &str) -> Result<String> {
    let bin = to.join("bin");
    fs::create_dir_all(&bin)?;
    let installed = bin.join(name);
    let _ = fs::remove_file(&installed);
    fs::copy(program, &installed).with_context(|| installed.display().to_string())?;
    Ok(installed.to_string_lossy().into_owned())
}

fn build_floor(to: &Path) -> Result<String> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/field/floor.c");
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

/// `None`, and a word about it, where the C library has no static version.
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
        println!("a static build cannot be made here");
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
    // In memory where that can be had: a disk has moods of its own.
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    let directory = base.join(format!("udgram-bench-{}", std::process::id()));
    fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
    let field = Field {
        directory,
        floor,
        udgram: install(Path::new(env!("CARGO_BIN_EXE_udgram")), built, "udgram")?,
        static_build,
        python: contender::python(),
        pin: options.pin,
    };
    let mut present = Vec::new();
    for program in Program::ALL {
        match contender::works(program.probe()) {
            _ if options.no_peers && program.is_peer() => {}
            true => present.push(program),
            false => println!("{} is absent", program.name()),
        }
    }
    let report = Report::default();
    let mut run = Run {
        options,
        field,
        present,
        report,
    };
    for part in parts {
        run.part(part);
    }
    println!("\n{}", run.report.markdown());
    Ok(())
}
