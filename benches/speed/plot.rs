//! Draws the figures of a run as an SVG: bars of speeds relative to the floor, and latencies.

use crate::contender::Program;
use crate::report::{Report, Unit};
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::path::Path;

/// Sizes in pixels.
const WIDTH: u32 = 860;
const MARGIN: i32 = 16;
const LABELS: i32 = 270;
const FIGURES: i32 = 130;
const BAR: i32 = 14;
const ROW_GAP: i32 = 10;
const HEADING: i32 = 36;

/// A grey that is visible on a light and on a dark page.
const LINE: RGBColor = RGBColor(140, 149, 159);

/// The colours of the text on a light and on a dark page. The background is transparent.
const STYLE: &str = "<style>text{fill:#1f2328}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}}</style>";

/// A bar: its program, its length and the figure at its end.
struct Bar {
    program: Program,
    length: f64,
    figure: String,
}

/// A heading, and groups of bars with their labels.
struct Panel {
    heading: &'static str,
    groups: Vec<(String, Vec<Bar>)>,
    /// The length at which a line is drawn.
    mark: Option<f64>,
}

impl Panel {
    fn height(&self) -> i32 {
        let rows = self
            .groups
            .iter()
            .map(|(_, bars)| BAR * i32::try_from(bars.len()).unwrap_or(i32::MAX / BAR) + ROW_GAP);
        HEADING + rows.sum::<i32>()
    }
}

/// Writes the picture of a run to `file`.
pub(crate) fn write(report: &Report, file: &Path) -> Result<()> {
    let panels: Vec<_> = [speeds(report), delays(report)]
        .into_iter()
        .filter(|panel| !panel.groups.is_empty())
        .collect();
    let height = 2 * MARGIN + panels.iter().map(Panel::height).sum::<i32>();
    let mut svg = String::new();
    {
        let size = (WIDTH, u32::try_from(height)?);
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let mut top = MARGIN;
        for panel in &panels {
            draw(&area, panel, top).map_err(|error| anyhow!("{error}"))?;
            top += panel.height();
        }
        area.present().map_err(|error| anyhow!("{error}"))?;
    }
    let start = svg.find("<svg").unwrap_or_default();
    let end = svg[start..].find('>').unwrap_or_default() + start + 1;
    svg.insert_str(end, STYLE);
    std::fs::write(file, svg)?;
    Ok(())
}

/// Returns the medians of speeds, with that of the floor as 1: times are inverted, so that a longer bar
/// is better in each row.
fn speeds(report: &Report) -> Panel {
    let mut groups = Vec::new();
    for row in report.rows() {
        let mut bars = Vec::new();
        for program in Program::ALL {
            let Some((_, Some(ratio))) = row.figures(program) else {
                continue;
            };
            let length = match row.unit {
                Unit::PerSecond => ratio.median,
                _ => 1.0 / ratio.median,
            };
            let figure = format!("{} ×{length:.2}", program.name());
            bars.push(Bar {
                program,
                length,
                figure,
            });
        }
        if !bars.is_empty() && row.unit != Unit::Instructions {
            groups.push((row.work.clone(), bars));
        }
    }
    Panel {
        heading: "Speed, relative to a minimal C program (the line; longer is faster)",
        groups,
        mark: Some(1.0),
    }
}

/// Returns the medians of latencies.
fn delays(report: &Report) -> Panel {
    let mut groups = Vec::new();
    for row in report.rows().iter().filter(|row| row.unit == Unit::Delay) {
        let bars = Program::ALL.into_iter().filter_map(|program| {
            let length = row.median(program)?;
            Some(Bar {
                program,
                length,
                figure: format!("{}, {}", program.name(), row.unit.show(length)),
            })
        });
        groups.push((row.work.clone(), bars.collect()));
    }
    Panel {
        heading: "Time from a packet to its line (shorter is better)",
        groups,
        mark: None,
    }
}

fn color(program: Program) -> RGBColor {
    match program {
        Program::Floor => LINE,
        Program::Udgram => RGBColor(47, 129, 247),
        Program::Socat => RGBColor(219, 109, 40),
        Program::Nc => RGBColor(163, 113, 247),
        Program::Python => RGBColor(191, 135, 0),
        Program::EasyNetwork => RGBColor(63, 152, 80),
        Program::Strace => RGBColor(207, 74, 122),
    }
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    panel: &Panel,
    top: i32,
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let longest = panel.groups.iter().flat_map(|(_, bars)| bars);
    let longest = longest.map(|bar| bar.length).fold(0.0, f64::max);
    let room = i32::try_from(WIDTH).unwrap_or(i32::MAX) - 2 * MARGIN - LABELS - FIGURES;
    let left = MARGIN + LABELS;
    #[allow(clippy::cast_possible_truncation, reason = "a length in pixels")]
    let end = |length: f64| left + (length / longest * f64::from(room)).round() as i32;
    let text = ("sans-serif", 13).into_font();
    let heading = ("sans-serif", 15).into_font().style(FontStyle::Bold);
    area.draw(&Text::new(panel.heading, (MARGIN, top), heading))?;
    let mut y = top + HEADING;
    if let Some(mark) = panel.mark.filter(|mark| *mark <= longest) {
        let line = [
            (end(mark), y - 4),
            (end(mark), top + panel.height() - ROW_GAP),
        ];
        area.draw(&PathElement::new(line, LINE))?;
    }
    for (work, bars) in &panel.groups {
        area.draw(&Text::new(work.as_str(), (MARGIN, y), text.clone()))?;
        for bar in bars {
            let corners = [(left, y), (end(bar.length).max(left + 1), y + BAR - 2)];
            area.draw(&Rectangle::new(corners, color(bar.program).filled()))?;
            let place = (end(bar.length) + 6, y - 1);
            area.draw(&Text::new(bar.figure.as_str(), place, text.clone()))?;
            y += BAR;
        }
        y += ROW_GAP;
    }
    Ok(())
}
