//! Formats medians, ranges and ratios: as text during the run, and as a Markdown table at the end.

use crate::contender::Program;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The unit of a figure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    Seconds,
    /// Seconds of latency. It is not compared with the floor, which does not spin before it sleeps.
    Delay,
    Bytes,
    Instructions,
    Packets,
    /// A ratio to another row.
    Ratio,
}

impl Unit {
    /// Returns whether figures are compared with the floor: rates and costs, but not sizes.
    fn has_ratio(self) -> bool {
        !matches!(
            self,
            Self::Bytes | Self::Delay | Self::Packets | Self::Ratio
        )
    }

    pub(crate) fn show(self, value: f64) -> String {
        let scales: &[(f64, &str)] = match self {
            Self::PerSecond => &[(1e6, " M/s"), (1e3, " k/s"), (1.0, " /s")],
            Self::Seconds | Self::Delay => &[(1e-3, " ms"), (1e-6, " µs"), (1e-9, " ns")],
            Self::Bytes => &[(1_048_576.0, " MiB"), (1024.0, " KiB")],
            Self::Packets => &[(1.0, "")],
            Self::Ratio => &[(0.01, " %")],
            Self::Instructions => &[(1e6, " M"), (1e3, " k"), (1.0, "")],
        };
        let (scale, suffix) = scales
            .iter()
            .find(|(scale, _)| value >= *scale)
            .unwrap_or(&scales[scales.len() - 1]);
        let amount = value / scale;
        let decimals = match amount {
            s if s >= 100.0 => 0,
            s if s >= 10.0 => 1,
            _ => 2,
        };
        format!("{amount:.decimals$}{suffix}")
    }
}

/// The median, the minimum and the maximum.
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, min, max })
    }
}

/// The values of one program and one kind of work, or the reason why there are none.
#[derive(Clone)]
pub(crate) enum Cell {
    Values(Vec<f64>),
    Missing(String),
}

impl Cell {
    fn values(&self) -> &[f64] {
        match self {
            Self::Values(values) => values,
            Self::Missing(_) => &[],
        }
    }
}

/// The cells of one kind of work.
pub(crate) struct Row {
    pub(crate) work: String,
    pub(crate) unit: Unit,
    cells: BTreeMap<Program, (Cell, Option<String>)>,
}

impl Row {
    /// Returns the median of a program's values.
    pub(crate) fn median(&self, program: Program) -> Option<f64> {
        let spread = Spread::of(self.cells.get(&program)?.0.values())?;
        Some(spread.median)
    }

    /// Returns the median and the range, and the ratios to the floor in the same rounds.
    pub(crate) fn figures(&self, program: Program) -> Option<(String, Option<Spread>)> {
        let values = self.cells.get(&program)?.0.values();
        let floor = self
            .cells
            .get(&Program::Floor)
            .map_or(&[][..], |c| c.0.values());
        let spread = Spread::of(values)?;
        let mut text = self.unit.show(spread.median);
        if values.len() > 1 {
            let (min, max) = (self.unit.show(spread.min), self.unit.show(spread.max));
            let _ = write!(text, " ({min} – {max})");
        }
        let ratios: Vec<f64> = values.iter().zip(floor).map(|(v, f)| v / f).collect();
        let ratio =
            Spread::of(&ratios).filter(|_| self.unit.has_ratio() && program != Program::Floor);
        Some((text, ratio))
    }
}

/// All figures of a run.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    shown: usize,
}

impl Report {
    /// Enters a cell, and adds its row if that is new.
    pub(crate) fn enter(
        &mut self,
        work: &str,
        unit: Unit,
        program: Program,
        cell: Cell,
        note: Option<&str>,
    ) {
        let place = self.rows.iter().position(|row| row.work == work);
        let row = if let Some(place) = place {
            &mut self.rows[place]
        } else {
            let (work, cells) = (work.to_owned(), BTreeMap::new());
            self.rows.push(Row { work, unit, cells });
            let last = self.rows.len() - 1;
            &mut self.rows[last]
        };
        row.cells.insert(program, (cell, note.map(str::to_owned)));
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Returns the rows that are new since the last call.
    pub(crate) fn text(&mut self) -> String {
        let mut text = String::new();
        for row in &self.rows[self.shown..] {
            let _ = writeln!(text, "\n{}", row.work);
            for (&program, (cell, note)) in &row.cells {
                let figures = match (row.figures(program), cell) {
                    (Some((figures, Some(r))), _) => format!(
                        "{figures:38}  ×{:.2} ({:.2} – {:.2})",
                        r.median, r.min, r.max
                    ),
                    (Some((figures, None)), _) => figures,
                    (None, Cell::Missing(why)) => format!("– {why}"),
                    (None, Cell::Values(_)) => "–".to_owned(),
                };
                let note = note
                    .as_deref()
                    .map_or_else(String::new, |n| format!("  [{n}]"));
                let _ = writeln!(text, "  {:12} {figures}{note}", program.name());
            }
        }
        self.shown = self.rows.len();
        text
    }

    /// Returns the table: a row for each kind of work, a column for each program.
    pub(crate) fn markdown(&self) -> String {
        let columns: Vec<Program> = Program::ALL
            .into_iter()
            .filter(|p| self.rows.iter().any(|row| row.figures(*p).is_some()))
            .collect();
        let mut notes: Vec<&str> = Vec::new();
        let mut text = String::from("| |");
        for program in &columns {
            let _ = write!(text, " {} |", program.name());
        }
        let _ = write!(text, "\n|---|{}", "--:|".repeat(columns.len()));
        for row in &self.rows {
            let _ = write!(text, "\n| {} |", row.work);
            for program in &columns {
                let Some((cell, note)) = row.cells.get(program) else {
                    text.push_str(" |");
                    continue;
                };
                let figures = match row.figures(*program) {
                    Some((figures, Some(r))) => format!(" {figures} **×{:.2}**", r.median),
                    Some((figures, None)) => format!(" {figures}"),
                    None => " –".to_owned(),
                };
                text.push_str(&figures);
                let why = match cell {
                    Cell::Missing(why) => Some(why.as_str()),
                    Cell::Values(_) => note.as_deref(),
                };
                if let Some(why) = why {
                    let number = notes.iter().position(|n| *n == why).unwrap_or_else(|| {
                        notes.push(why);
                        notes.len() - 1
                    });
                    let _ = write!(text, "<sup>{}</sup>", number + 1);
                }
                text.push_str(" |");
            }
        }
        text.push('\n');
        for (i, note) in notes.iter().enumerate() {
            let _ = write!(text, "\n{}. {note}", i + 1);
        }
        text
    }
}

/// Formats 4000000 as 4,000,000.
pub(crate) fn thousands(number: u32) -> String {
    match number / 1000 {
        0 => number.to_string(),
        more => format!("{},{:03}", thousands(more), number % 1000),
    }
}
