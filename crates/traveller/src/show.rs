//! Renders a booking for people: its result, and its timeline as a table.

use std::{
    env,
    io::{self, IsTerminal},
};

use comfy_table::{
    CellAlignment, Column, ColumnConstraint, ContentArrangement, Table, modifiers::UTF8_ROUND_CORNERS,
    presets::UTF8_FULL_CONDENSED,
};
use console::Style;
use jiff::Timestamp;
use saga::{PartName, Status};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Booking,
    client::{FailureReason, TimelineEntry},
};

/// How output is rendered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Whether colours may be used.
    pub colour: bool,
    /// The width of the terminal; none if lines may have any length.
    pub width: Option<u16>,
}

impl Look {
    /// The look for standard output: colours only on a terminal.
    pub fn of_stdout() -> Self {
        let width = console::Term::stdout().size_checked().map(|(_, columns)| columns);
        Self { colour: has_colours(|name| env::var(name).ok(), io::stdout().is_terminal()), width }
    }

    /// Whether a table of this width does not fit.
    pub fn is_too_narrow_for(self, width: usize) -> bool {
        self.width.is_some_and(|columns| usize::from(columns) < width)
    }

    /// The text in this style, if colours may be used.
    pub fn style(self, style: Style, text: impl std::fmt::Display) -> String {
        style.force_styling(self.colour).apply_to(text).to_string()
    }

    pub fn status(self, status: Status) -> String {
        let style = match status {
            Status::Confirmed => Style::new().green().bold(),
            Status::Failed => Style::new().red().bold(),
            Status::NeedsOperator => Style::new().magenta().bold(),
            Status::Pending | Status::Compensating => Style::new().yellow().bold(),
        };
        self.style(style, status)
    }
}

/// Whether the user wants colours: <https://no-color.org> and <https://bixense.com/clicolors>. An empty variable counts
/// as not set.
fn has_colours(variable: impl Fn(&str) -> Option<String>, is_terminal: bool) -> bool {
    let given = |name| variable(name).filter(|value| !value.is_empty());
    if given("NO_COLOR").is_some() {
        return false;
    }
    let forced = given("CLICOLOR_FORCE").is_some_and(|value| value != "0");
    let is_capable =
        given("TERM").is_some_and(|term| term != "dumb") && given("CLICOLOR").is_none_or(|value| value != "0");
    forced || is_terminal && is_capable
}

/// Makes a text from outside, such as a response or a table item, safe to print: on one line, and without characters
/// that move the cursor, set colours, hide text or reverse it.
pub fn plain(text: &str) -> String {
    let shown = |c| match c {
        '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => ' ',
        '\u{61c}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' => REPLACED,
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => REPLACED,
        c if c.is_control() => REPLACED,
        c => c,
    };
    text.chars().map(shown).collect()
}

/// The whole booking: its header and its timeline.
pub fn render(booking: &Booking, look: Look) -> String {
    format!("{}\n{}", header(booking, look), timeline(booking, look))
}

/// Where the text of a [`line`] begins: beside its label, or below it.
const INDENT: (usize, usize) = (10, 2);
/// Replaces a character that is not printed.
const REPLACED: char = char::REPLACEMENT_CHARACTER;

/// A line of a header: a label and a text. A text with a word that does not fit beside the label goes below it.
pub fn line(look: Look, about: &str, text: impl std::fmt::Display) -> String {
    let (beside, below) = INDENT;
    let text = text.to_string();
    let longest = text.split(' ').map(console::measure_text_width).max().unwrap_or(0);
    let dim = |about: String| look.style(Style::new().dim(), about);
    if look.is_too_narrow_for(beside + longest) {
        return format!("{}\n{}{}", dim(about.to_owned()), " ".repeat(below), wrap(look, &text, below));
    }
    format!("{}{}", dim(format!("{about:beside$}")), wrap(look, &text, beside))
}

/// Breaks a text between words at the width of the terminal. The text begins, and continues, at this column.
pub fn wrap(look: Look, text: &str, indent: usize) -> String {
    let width = look.width.map_or(usize::MAX, usize::from);
    let (mut wrapped, mut column) = (String::new(), indent);
    for word in text.split(' ') {
        let length = console::measure_text_width(word);
        if !wrapped.is_empty() && column + 1 + length > width {
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(indent));
            column = indent;
        } else if !wrapped.is_empty() {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

/// What was booked and how it ended, one line each.
pub fn header(booking: &Booking, look: Look) -> String {
    let mut lines = vec![
        line(look, "booking", format!("{}, {}", booking.booking_id, booking.variant.name())),
        line(look, "trip", trip(booking)),
        line(look, "status", status(booking, look)),
    ];
    lines.extend(reason(booking).map(|reason| line(look, "reason", reason)));
    lines.join("\n")
}

/// What was booked.
pub fn trip(booking: &Booking) -> String {
    let summary = |(name, contents): (PartName, &Value)| {
        let request = travel::part_type(name).and_then(|part_type| part_type.request(contents).ok());
        request.map_or_else(|| name.to_string(), |request| request.summary())
    };
    let parts: Vec<_> = booking.parts().into_iter().map(summary).collect();
    plain(&parts.join("; "))
}

/// The status, and the amount paid.
pub fn status(booking: &Booking, look: Look) -> String {
    let total = booking.total.map(|total| format!(", {total}")).unwrap_or_default();
    format!("{}{total}", look.status(booking.status))
}

/// What went wrong, if anything did.
pub fn reason(booking: &Booking) -> Option<String> {
    let reason = booking.reason.as_ref()?;
    let detail = if reason.detail.is_empty() { String::new() } else { format!(": {}", reason.detail) };
    Some(plain(&format!("{}{detail}", because(reason))))
}

fn because(reason: &FailureReason) -> String {
    reason.step.as_ref().map_or_else(|| reason.code.clone(), |step| format!("{step} {}", reason.code))
}

/// A number of things in words, such as `2 seats`.
pub fn count(n: impl Into<u64>, what: &str) -> String {
    let n = n.into();
    if n == 1 { format!("{n} {what}") } else { format!("{n} {what}s") }
}

/// The minimum width of the terminal for the timeline as a table: below it, hardly any room is left for details.
const TIMELINE: usize = 72;

/// The timeline as a table, or as a list on a narrow terminal.
pub fn timeline(booking: &Booking, look: Look) -> String {
    let rows = booking.timeline.iter().map(|entry| {
        let [detail, _] = details(entry);
        [plain(&entry.step), plain(&entry.outcome), started(booking, entry), took(entry), detail]
    });
    let rows: Vec<_> = rows.collect();
    if look.is_too_narrow_for(TIMELINE) {
        let entries = rows.iter().map(|[step, outcome, started, took, detail]| {
            let detail = if detail.is_empty() { String::new() } else { format!("; {detail}") };
            let about = look.style(Style::new().bold(), format!("{step} {outcome}"));
            format!("{about}\n  {}", wrap(look, &format!("{started}, took {took}{detail}"), 2))
        });
        return entries.collect::<Vec<_>>().join("\n");
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).apply_modifier(UTF8_ROUND_CORNERS);
    table.set_header(["step", "outcome", "started", "took", "detail"]);
    table.add_rows(rows);
    for column in [2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if let Some(width) = look.width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        // Only the details are wrapped.
        table.column_iter_mut().take(4).for_each(|column: &mut Column| {
            column.set_constraint(ColumnConstraint::ContentWidth);
        });
    }
    table.to_string()
}

/// When a step began, relative to when the booking was accepted.
pub fn started(booking: &Booking, entry: &TimelineEntry) -> String {
    format!("{:+} ms", milliseconds(booking.created_at, entry.started_at))
}

pub fn took(entry: &TimelineEntry) -> String {
    match entry.finished_at.map(|finished_at| milliseconds(entry.started_at, finished_at)) {
        Some(0) => "< 1 ms".to_owned(),
        Some(took) => format!("{took} ms"),
        None => "…".to_owned(),
    }
}

/// Times are stored in whole milliseconds.
pub fn milliseconds(from: Timestamp, to: Timestamp) -> i64 {
    to.as_millisecond() - from.as_millisecond()
}

/// The detail of an outcome, for people: in full, and in short.
pub fn details(entry: &TimelineEntry) -> [String; 2] {
    let text = |name: &str| entry.detail.get(name).and_then(Value::as_str).map(plain);
    let both = |text: String| [text.clone(), text];
    match (entry.money(), entry.released(), text("code"), entry.detail.get("reason")) {
        (Some(money), ..) => both(money.to_string()),
        (_, Some(true), ..) => both("released".into()),
        (_, Some(false), ..) => ["nothing to release".into(), "nothing".into()],
        (_, _, Some(code), _) => [format!("{code}: {}", text("message").unwrap_or_default()), code],
        (.., Some(reason)) => match FailureReason::deserialize(reason) {
            Ok(reason) => [plain(&because(&reason)), plain(&reason.code)],
            Err(_) => both(String::new()), // null: there is no reason
        },
        _ if entry.detail.as_object().is_none_or(serde_json::Map::is_empty) => both(String::new()),
        _ => both(plain(&entry.detail.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::samples::{booking, failed, with};

    #[test]
    fn a_booking_is_its_header_and_its_timeline() {
        let expected = "
booking   0123456789abcdef0123456789abcdef, orchestrated
trip      LH400 on 2027-03-01, 2 seats; nyc-plaza to 2027-03-04, 1 room; compact car at jfk
status    confirmed, 1674.00 EUR
╭─────────────────┬───────────┬─────────┬────────┬─────────────╮
│ step            ┆ outcome   ┆ started ┆   took ┆ detail      │
╞═════════════════╪═══════════╪═════════╪════════╪═════════════╡
│ flight.reserve  ┆ reserved  ┆  +12 ms ┆   8 ms ┆ 840.00 EUR  │
│ hotel.reserve   ┆ reserved  ┆  +13 ms ┆   9 ms ┆ 657.00 EUR  │
│ car.reserve     ┆ reserved  ┆  +13 ms ┆ < 1 ms ┆ 177.00 EUR  │
│ payment.charge  ┆ charged   ┆  +30 ms ┆ 104 ms ┆ 1674.00 EUR │
│ booking.confirm ┆ confirmed ┆ +140 ms ┆   4 ms ┆ 1674.00 EUR │
╰─────────────────┴───────────┴─────────┴────────┴─────────────╯
";
        assert_eq!(render(&booking(), Look::default()), expected.trim());
    }

    #[test]
    fn long_details_are_wrapped_and_nothing_else() {
        let rendered = render(&failed(), Look { colour: false, width: Some(80) });
        let expected = "
booking   0123456789abcdef0123456789abcdef, orchestrated
trip      LH400 on 2027-03-01, 2 seats; nyc-plaza to 2027-03-04, 1 room; compact
          car at jfk
status    failed
reason    hotel.reserve sold_out: nyc-plaza has no room left on 2027-03-01
╭────────────────┬───────────┬─────────┬──────┬────────────────────────────╮
│ step           ┆ outcome   ┆ started ┆ took ┆ detail                     │
╞════════════════╪═══════════╪═════════╪══════╪════════════════════════════╡
│ flight.reserve ┆ reserved  ┆  +12 ms ┆ 8 ms ┆ 840.00 EUR                 │
│ hotel.reserve  ┆ rejected  ┆  +13 ms ┆ 9 ms ┆ sold_out: nyc-plaza has no │
│                ┆           ┆         ┆      ┆ room left on 2027-03-01    │
│ car.reserve    ┆ reserved  ┆  +13 ms ┆ 8 ms ┆ 177.00 EUR                 │
│ payment.abort  ┆ aborted   ┆  +30 ms ┆ 4 ms ┆ hotel.reserve sold_out     │
│ flight.cancel  ┆ cancelled ┆  +40 ms ┆ 4 ms ┆ released                   │
│ hotel.cancel   ┆ cancelled ┆  +40 ms ┆ 6 ms ┆ nothing to release         │
│ car.cancel     ┆ cancelled ┆  +41 ms ┆ 4 ms ┆ released                   │
│ booking.fail   ┆ failed    ┆  +50 ms ┆ 4 ms ┆ hotel.reserve sold_out     │
╰────────────────┴───────────┴─────────┴──────┴────────────────────────────╯
";
        assert_eq!(rendered, expected.trim());
        assert!(rendered.lines().all(|line| console::measure_text_width(line) <= 80));
    }

    #[test]
    fn a_step_that_only_a_newer_api_knows_is_shown_by_its_name() {
        let reason = json!({"step": "visa.check", "code": "refused", "detail": "no visa"});
        let steps = [
            ("visa.check", "rejected", 12, 20, json!({"code": "refused", "message": "no visa"})),
            ("booking.fail", "failed", 50, 54, json!({"reason": reason})),
        ];
        let rendered = render(&with("failed", json!(null), reason.clone(), &steps), Look::default());
        assert!(rendered.contains("\nreason    visa.check refused: no visa\n"), "{rendered}");
        let [check, fail] =
            ["│ visa.check   ┆ rejected", "│ booking.fail ┆ failed   ┆  +50 ms ┆ 4 ms ┆ visa.check refused"];
        assert!(rendered.contains(check) && rendered.contains(fail), "{rendered}");
    }

    #[test]
    fn a_narrow_terminal_gets_a_list() {
        let rendered = render(&failed(), Look { colour: false, width: Some(40) });
        let expected = "
booking
  0123456789abcdef0123456789abcdef,
  orchestrated
trip      LH400 on 2027-03-01, 2 seats;
          nyc-plaza to 2027-03-04, 1
          room; compact car at jfk
status    failed
reason    hotel.reserve sold_out:
          nyc-plaza has no room left on
          2027-03-01
flight.reserve reserved
  +12 ms, took 8 ms; 840.00 EUR
hotel.reserve rejected
  +13 ms, took 9 ms; sold_out: nyc-plaza
  has no room left on 2027-03-01
";
        assert!(rendered.starts_with(expected.trim()), "{rendered}");
        assert!(rendered.lines().all(|line| console::measure_text_width(line) <= 40), "{rendered}");
    }

    #[test]
    fn what_others_have_written_cannot_play_with_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\r\n\u{202e}c\u{9b}\u{7f}"), "a�[31mb  �c��");
        assert_eq!(plain("Zoë 李 👩\u{200d}🚀"), "Zoë 李 👩\u{200d}🚀");
        let mut booking = failed();
        let evil = "\u{1b}]0;owned\u{7}\n";
        for contents in booking.others.values_mut() {
            *contents = json!({"hotel_id": evil, "flight_no": evil, evil: evil});
        }
        booking.others.insert(evil.into(), json!({}));
        let reason = json!({"step": evil, "code": evil, "detail": evil});
        booking.reason = serde_json::from_value(reason.clone()).unwrap();
        let details = [json!({"code": evil, "message": evil}), json!({"reason": reason}), json!({"other": evil})];
        for (entry, detail) in booking.timeline.iter_mut().zip(details.iter().cycle()) {
            (entry.step, entry.outcome) = (evil.into(), evil.into());
            entry.detail = detail.clone();
        }
        let rendered = render(&booking, Look { colour: false, width: Some(40) });
        assert!(rendered.chars().all(|c| c == '\n' || !c.is_control()), "{rendered:?}");
        assert_eq!(rendered.lines().filter(|line| line.starts_with("status")).count(), 1);
    }

    #[test]
    fn colours_are_for_those_who_want_them() {
        let has = |variables: &[(&str, &str)], is_terminal| {
            let find =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            has_colours(find, is_terminal)
        };
        let term = ("TERM", "xterm");
        assert!(has(&[term], true) && !has(&[term], false) && !has(&[("TERM", "dumb")], true));
        assert!(has(&[term, ("NO_COLOR", "")], true), "an empty variable is not set");
        assert!(!has(&[term, ("NO_COLOR", "0")], true) && !has(&[term, ("CLICOLOR", "0")], true));
        assert!(has(&[("CLICOLOR_FORCE", "1")], false) && !has(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], true));
    }

    #[test]
    fn text_is_broken_between_words() {
        let look = Look { colour: true, width: Some(12) };
        let red = look.style(Style::new().red(), "red");
        assert_eq!(wrap(look, &format!("one two {red} four"), 2), format!("one two\n  {red} four"));
        assert_eq!(wrap(look, "incomprehensibilities of one word", 0), "incomprehensibilities\nof one word");
        assert_eq!(wrap(Look::default(), "one two three four", 2), "one two three four");
    }

    #[test]
    fn only_a_terminal_gets_colours() {
        let colourful = header(&booking(), Look { colour: true, width: None });
        assert!(colourful.contains("\u{1b}[32m"));
        assert_eq!(console::strip_ansi_codes(&colourful), header(&booking(), Look::default()));
    }
}
