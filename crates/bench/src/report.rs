//! The results: a summary in Markdown for people, and the figures as JSON for programs.

use std::{fmt, fs};

use serde_json::{Map, Value, json};

use crate::Outcome;

/// Collects the results of each measurement.
#[derive(Default)]
pub(crate) struct Report {
    summary: String,
    figures: Map<String, Value>,
}

/// The columns of a table: the first is text, the others are numbers.
type Columns<'a> = &'a [&'a str];

impl Report {
    /// Starts a section. Its figures are stored under its title.
    pub(crate) fn part(&mut self, title: &str, explanation: &str) {
        self.summary.push_str(&format!("\n## {title}\n\n{explanation}\n"));
        eprintln!("measuring: {title}");
    }

    /// Adds a paragraph.
    pub(crate) fn says(&mut self, text: impl fmt::Display) {
        self.summary.push_str(&format!("\n{text}\n"));
    }

    /// Says prominently what was not measured, and how to measure it.
    pub(crate) fn skips(&mut self, what: &str, way_out: &str) {
        self.says(format_args!("**SKIPPED: {what}. {way_out}**"));
        eprintln!("SKIPPED: {what}. {way_out}");
    }

    /// Adds a table.
    pub(crate) fn table(&mut self, columns: Columns<'_>, rows: impl IntoIterator<Item = Vec<String>>) {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head: Vec<_> = columns.iter().map(|column| (*column).to_owned()).collect();
        let rule: Vec<_> = (0..columns.len()).map(|place| if place == 0 { "---" } else { "--:" }.to_owned()).collect();
        self.summary.push('\n');
        self.summary.push_str(&line(&head));
        self.summary.push_str(&line(&rule));
        for row in rows {
            self.summary.push_str(&line(&row));
        }
    }

    /// Stores figures under a name.
    pub(crate) fn keep(&mut self, name: &str, figures: Value) {
        self.figures.insert(name.to_owned(), figures);
    }

    /// Prints the summary, and writes it and the figures to `target/bench`.
    pub(crate) fn publish(self) -> Outcome<()> {
        let folder = crate::folder()?;
        let summary =
            format!("# Benchmark\n\nAll from one run. Times depend on this machine, ratios do not.\n{}", self.summary);
        fs::write(folder.join("summary.md"), &summary)?;
        fs::write(folder.join("figures.json"), serde_json::to_string_pretty(&json!(self.figures))? + "\n")?;
        println!("{summary}\nThis summary and its figures: {}/{{summary.md,figures.json}}", folder.display());
        Ok(())
    }
}

/// The median.
pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 50)
}

/// The value that this percentage of values does not exceed.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let place = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values.get(place).copied().unwrap_or_default()
}
