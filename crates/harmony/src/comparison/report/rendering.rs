//! The report as a page, and as Markdown.

use std::fmt::Write;

use comfy_table::{CellAlignment, presets::ASCII_MARKDOWN};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Measurements, Part, Ratio, Section, Table};

impl Measurements {
    pub(super) fn markdown(&self, sections: &[Section]) -> String {
        let mut text = String::from("# Orchestration or choreography, measured\n\n");
        let about = Table {
            head: vec!["run".into(), String::new()],
            rows: self.about.iter().map(|(name, value)| vec![(*name).into(), value.clone()]).collect(),
        };
        let _ = writeln!(text, "{}", as_markdown(&about, false)); // a string takes all
        for section in sections {
            let _ = writeln!(text, "\n## {}", section.title);
            for part in &section.parts {
                let _ = match part {
                    Part::Text(paragraph) => writeln!(text, "\n{paragraph}"),
                    Part::Table(table) => writeln!(text, "\n{}", as_markdown(table, true)),
                    Part::Plot { name, caption, .. } => {
                        writeln!(text, "\n![{caption}](comparison/{name}.svg)\n\n*{caption}*")
                    }
                };
            }
        }
        text
    }

    pub(super) fn page(&self, sections: &[Section]) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { "Orchestration or choreography, measured" }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    h1 { "Orchestration or choreography, measured" }
                    table.about { @for (name, value) in &self.about { tr { th { (name) } td { (value) } } } }
                    nav { @for (nth, section) in sections.iter().enumerate() { a href={ "#s" (nth) } { (section.title) } } }
                    @for (nth, section) in sections.iter().enumerate() {
                        section id={ "s" (nth) } {
                            h2 { (section.title) }
                            @for part in &section.parts {
                                @match part {
                                    Part::Text(text) => p { (text) },
                                    Part::Table(table) => div.wide { (as_html(table)) },
                                    Part::Plot { caption, svg, .. } => figure { (PreEscaped(svg)) figcaption { (caption) } },
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; color: #22262e; background: #f5f6f8; max-width: 1000px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.7rem } h2 { font-size: 1.25rem; margin: 0 0 .6rem }
section, .about { background: #fff; border: 1px solid #dfe2e8; border-radius: 8px; padding: 1.2rem 1.4rem; margin: 1.2rem 0 }
nav { display: flex; flex-wrap: wrap; gap: .4rem 1rem } a { color: #0b6470 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums }
.wide table { width: 100% } th, td { padding: .28rem .6rem; border-bottom: 1px solid #e8eaef; text-align: left; vertical-align: top }
th { font-weight: 600 } td.figure, th.figure { text-align: right; white-space: nowrap }
figure { margin: 1rem 0 } figure svg { max-width: 100%; height: auto } figcaption { color: #5a616e; font-size: .86rem }
";

/// Whether a column holds figures only, which stand at the right.
fn is_figures(table: &Table, column: usize) -> bool {
    let figure =
        |cell: &String| cell.is_empty() || cell.starts_with(|first: char| first.is_ascii_digit()) && cell.len() < 24;
    column > 0 && table.rows.iter().filter_map(|row| row.get(column)).all(figure)
}

fn as_html(table: &Table) -> Markup {
    let class = |column| is_figures(table, column).then_some("figure");
    html! {
        table {
            thead { tr { @for (column, cell) in table.head.iter().enumerate() { th class=[class(column)] { (cell) } } } }
            tbody {
                @for row in &table.rows {
                    tr {
                        @for (column, cell) in row.iter().enumerate() {
                            td class=[class(column)] {
                                @if cell.starts_with("https://") { a href=(cell) { "source" } } @else { (cell) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn as_markdown(table: &Table, figures: bool) -> String {
    let mut drawn = comfy_table::Table::new();
    drawn.load_preset(ASCII_MARKDOWN).set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    drawn.set_header(&table.head);
    for row in &table.rows {
        drawn.add_row(row.iter().map(|cell| {
            if cell.starts_with("https://") { format!("[source]({cell})") } else { cell.replace('|', "\\|") }
        }));
    }
    for (nth, column) in drawn.column_iter_mut().enumerate() {
        if figures && is_figures(table, nth) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    drawn.to_string()
}

/// How far the ratios of two runs are apart, as a table; the share is of the smaller one.
pub fn difference(one: &[Ratio], other: &[Ratio]) -> (String, f64) {
    let mut most: f64 = 0.0;
    let mut rows = Vec::new();
    for ratio in one {
        let Some(before) = other.iter().find(|each| each.what == ratio.what && each.mode == ratio.mode) else {
            continue;
        };
        let apart = (ratio.value / before.value).max(before.value / ratio.value) - 1.0;
        most = most.max(apart);
        rows.push(vec![
            format!("{}, {}", ratio.what, ratio.mode),
            format!("{:.2}", before.value),
            format!("{:.2}", ratio.value),
            format!("{:.0}%", apart * 100.0),
        ]);
    }
    let head = ["ratio to choreographed", "before", "now", "apart"].map(str::to_owned).to_vec();
    (as_markdown(&Table { head, rows }, true), most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_held_against_each_other_ratio_by_ratio() {
        let ratio = |what: &str, value| Ratio { what: what.into(), mode: "m".into(), value };
        let (text, most) =
            difference(&[ratio("a", 1.1), ratio("b", 0.5)], &[ratio("a", 1.0), ratio("b", 0.625), ratio("c", 1.0)]);
        assert!((most - 0.25).abs() < 1e-9, "{most}");
        assert!(text.contains("| a, m") && text.contains("25%") && !text.contains("| c"), "{text}");
    }

    #[test]
    fn a_cell_cannot_break_a_table_or_a_page() {
        let table = Table { head: vec!["a".into()], rows: vec![vec!["x | y <b>".into()]] };
        assert!(as_markdown(&table, true).contains("x \\| y"));
        assert!(as_html(&table).into_string().contains("&lt;b&gt;"));
    }
}
