//! What a figure says: a table of contestants, and each target beside what was measured.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::measure::Runs;

/// The outcome of one figure.
pub(crate) struct Report {
    title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    targets: Vec<Target>,
    notes: Vec<String>,
}

struct Target {
    what: String,
    wanted: String,
    measured: String,
    met: bool,
}

impl Report {
    pub(crate) fn new(title: impl Into<String>, head: &[&str]) -> Self {
        let head = head.iter().map(|name| (*name).to_owned()).collect();
        Self { title: title.into(), head, rows: Vec::new(), targets: Vec::new(), notes: Vec::new() }
    }

    /// A table of [`contestant`](Self::contestant)s.
    pub(crate) fn of_runs(title: impl Into<String>) -> Self {
        Self::new(title, &["", "median s", "fastest..slowest", "cpu s", "peak MB", "runs"])
    }

    pub(crate) fn retitle(&mut self, title: String) {
        self.title = title;
    }

    pub(crate) fn contestant(&mut self, name: &str, runs: &Runs) {
        let (fastest, slowest) = runs.spread();
        self.row(vec![
            name.to_owned(),
            format!("{:.2}", runs.wall()),
            format!("{fastest:.2}..{slowest:.2}"),
            format!("{:.2}", runs.cpu()),
            format!("{:.0}", megabytes(runs.peak_bytes())),
            runs.0.len().to_string(),
        ]);
    }

    pub(crate) fn row(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    pub(crate) fn target(
        &mut self,
        what: impl Into<String>,
        wanted: impl Into<String>,
        measured: impl Into<String>,
        met: bool,
    ) {
        self.targets.push(Target { what: what.into(), wanted: wanted.into(), measured: measured.into(), met });
    }

    /// A target for a ratio of medians.
    pub(crate) fn ratio(&mut self, what: &str, at_most: f64, ours: &Runs, theirs: &Runs) {
        let ratio = ours.wall() / theirs.wall();
        let measured = format!("{ratio:.2} x ({:.2} s / {:.2} s)", ours.wall(), theirs.wall());
        self.target(what, format!("at most {at_most} x"), measured, ratio <= at_most);
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Appends `| date | figure | what | target | measured | met |` for every target.
    pub(crate) fn append_markdown(&self, file: &Path) -> Result<()> {
        let date = Command::new("date").arg("+%F").output()?;
        let date = String::from_utf8(date.stdout)?.trim().to_owned();
        let mut text = String::new();
        for Target { what, wanted, measured, met } in &self.targets {
            let met = if *met { "yes" } else { "no" };
            writeln!(text, "| {date} | {} | {what} | {wanted} | {measured} | {met} |", self.title)?;
        }
        Ok(OpenOptions::new().create(true).append(true).open(file)?.write_all(text.as_bytes())?)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}\n", self.title)?;
        let table: Vec<&Vec<String>> = std::iter::once(&self.head).chain(&self.rows).collect();
        let width = |column: usize| {
            table.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        for row in &table {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                match column {
                    0 => write!(line, "  {cell:<width$}", width = widths[0])?,
                    _ => write!(line, "  {cell:>width$}", width = widths[column])?,
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        writeln!(f)?;
        for Target { what, wanted, measured, met } in &self.targets {
            let met = if *met { "met" } else { "MISSED" };
            writeln!(f, "  {what}: {measured}; target {wanted}: {met}")?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }
}

pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}
