//! Renders the result of one request in each variant, side by side.
//!
//! ```text
//!   status    failed
//!   ╭ orchestrated, 412 ms ────────────────────╮  ╭ choreographed, 538 ms ───────────────────╮
//!   │ flight.reserve  reserved    +12 ms  8 ms │  │ flight.reserve  reserved    +10 ms  8 ms │
//! ```

use console::{Style, measure_text_width};
use saga::Variant;

use traveller::{
    Booking,
    show::{Look, details, line, milliseconds, plain, reason, started, status, timeline, took, trip},
};

/// A variant, and its booking; none if there is no booking.
pub type Side<'a> = (Variant, Option<&'a Booking>);

/// On a narrower terminal, the bookings are shown below each other.
const MIN_WIDTH: usize = 90;
/// The width if the terminal's is unknown.
const PAGE: usize = 120;
/// The gap between two boxes.
const GAP: &str = "  ";
/// What separates each column from the previous one: step, outcome, started, took, detail. The third and fourth are
/// right-aligned.
const BEFORE: [&str; 5] = ["", " ", " ", " ", "  "];

/// What the bookings have in common, then the timeline of each in its own order.
pub fn render(sides: &[Side<'_>], look: Look) -> String {
    let width = look.width.map_or(PAGE, usize::from);
    let mut lines = common(sides, look);
    if width < MIN_WIDTH {
        lines.extend(sides.iter().map(|side| below(side, look)));
    } else {
        let boxes = sides.len().max(1);
        lines.extend(beside(sides, (width - GAP.len() * (boxes - 1)) / boxes, look));
    }
    lines.join("\n")
}

/// One line if all variants have the same text, otherwise one line per variant.
pub fn once(look: Look, about: &str, texts: &[(Variant, String)]) -> Vec<String> {
    match texts {
        [(_, first), others @ ..] if others.iter().all(|(_, other)| other == first) => vec![line(look, about, first)],
        _ => {
            let abouts = std::iter::once(about).chain(std::iter::repeat(""));
            let each = texts.iter().zip(abouts);
            each.map(|((variant, text), about)| line(look, about, format!("{}: {text}", variant.name()))).collect()
        }
    }
}

fn common(sides: &[Side<'_>], look: Look) -> Vec<String> {
    let each = |say: &dyn Fn(&Booking) -> String| -> Vec<_> {
        sides.iter().map(|(variant, booking)| (*variant, booking.map_or("no booking".into(), say))).collect()
    };
    let first = sides.iter().find_map(|(_, booking)| *booking);
    let mut lines: Vec<_> = first.map(|booking| line(look, "trip", trip(booking))).into_iter().collect();
    lines.extend(once(look, "status", &each(&|booking| status(booking, look))));
    if sides.iter().any(|(_, booking)| booking.is_some_and(|booking| booking.reason.is_some())) {
        lines.extend(once(look, "reason", &each(&|booking| reason(booking).unwrap_or_else(|| "none".into()))));
    }
    lines
}

/// The time from the request to the end, according to the booking itself.
pub fn duration(booking: &Booking) -> String {
    match milliseconds(booking.created_at, booking.updated_at) {
        ms @ ..10_000 => format!("{ms} ms"),
        ms => format!("{:.1} s", ms as f64 / 1_000.0),
    }
}

fn title((variant, booking): &Side<'_>) -> String {
    booking.map_or(variant.name().into(), |booking| format!("{}, {}", variant.name(), duration(booking)))
}

fn below(side: &Side<'_>, look: Look) -> String {
    let title = look.style(Style::new().bold(), title(side));
    match side.1 {
        Some(booking) => format!("{title}, {}\n{}", booking.booking_id, timeline(booking, look)),
        None => title,
    }
}

fn beside(sides: &[Side<'_>], width: usize, look: Look) -> Vec<String> {
    const FRAME: usize = 4; // a border and a space on each side
    let contents: Vec<_> = sides.iter().map(|(_, booking)| rows(*booking, width.saturating_sub(FRAME))).collect();
    let titles: Vec<_> = sides.iter().map(title).collect();
    let texts = contents.iter().flatten().chain(&titles).map(|text| measure_text_width(text));
    let inner = texts.max().unwrap_or(0).max(FRAME + 32); // a booking's id has 32 digits
    let height = contents.iter().map(Vec::len).max().unwrap_or(0);

    let edge = |left: &str, text: &str, style: Style, right: &str| {
        let text = if text.is_empty() { String::new() } else { format!(" {text} ") };
        let rest = "─".repeat((inner + 2).saturating_sub(measure_text_width(&text)));
        format!("{left}{}{rest}{right}", look.style(style, text))
    };
    let boxes = sides.iter().zip(contents).zip(titles).map(|(((_, booking), rows), title)| {
        let mut lines = vec![edge("╭", &title, Style::new().bold(), "╮")];
        for row in 0..height {
            let text = format!("{:inner$}", rows.get(row).map_or("", String::as_str));
            let style = if row == 0 { Style::new().dim() } else { Style::new() };
            lines.push(format!("│ {} │", look.style(style, text)));
        }
        let name = booking.map(|booking| booking.booking_id.to_string()).unwrap_or_default();
        lines.push(edge("╰", &name, Style::new().dim(), "╯"));
        lines
    });
    let boxes: Vec<_> = boxes.collect();
    (0..height + 2).map(|row| boxes.iter().map(|lines| lines[row].as_str()).collect::<Vec<_>>().join(GAP)).collect()
}

/// The timeline as lines of at most this width. Columns that do not fit are left out, as are details whose short form
/// does not fit.
fn rows(booking: Option<&Booking>, width: usize) -> Vec<String> {
    let Some(booking) = booking else { return vec!["no booking".into()] };
    let mut rows = vec![["step", "outcome", "started", "took"].map(str::to_owned).to_vec()];
    rows.extend(booking.timeline.iter().map(|entry| {
        let took = format!("{:>6}", took(entry)); // as wide as "< 1 ms", for a visible gap
        vec![plain(&entry.step), plain(&entry.outcome), started(booking, entry), took]
    }));
    while rows[0].len() > 1 && total(&rows) > width {
        rows.iter_mut().for_each(|row| row.truncate(row.len() - 1));
    }
    if rows[0].len() == 4 {
        let room = width.saturating_sub(total(&rows) + BEFORE[4].len());
        let fits = |text: &String| measure_text_width(text) <= room;
        let details = booking.timeline.iter().map(|entry| details(entry).into_iter().find(fits).unwrap_or_default());
        let details: Vec<_> = std::iter::once("detail".to_owned()).chain(details).collect();
        if details.iter().all(fits) && details[1..].iter().any(|detail| !detail.is_empty()) {
            rows.iter_mut().zip(details).for_each(|(row, detail)| row.push(detail));
        }
    }
    let widths = widths(&rows);
    let cell = |(column, text): (usize, &String)| {
        let (before, width) = (BEFORE[column], widths[column]);
        if matches!(column, 2 | 3) { format!("{before}{text:>width$}") } else { format!("{before}{text:width$}") }
    };
    rows.iter().map(|row| row.iter().enumerate().map(cell).collect::<String>().trim_end().to_owned()).collect()
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let widest = |column: usize| rows.iter().map(|row| measure_text_width(&row[column])).max().unwrap_or(0);
    (0..rows[0].len()).map(widest).collect()
}

fn total(rows: &[Vec<String>]) -> usize {
    widths(rows).iter().zip(BEFORE).map(|(width, before)| before.len() + width).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use traveller::samples::{booking, failed};

    fn look(width: impl Into<Option<u16>>) -> Look {
        Look { colour: false, width: width.into() }
    }

    fn choreographed(mut booking: Booking) -> Booking {
        booking.variant = Variant::Choreographed;
        booking.updated_at = "2027-01-01T10:00:12.345Z".parse().unwrap();
        booking
    }

    fn both(booking: fn() -> Booking, look: Look) -> String {
        let (one, other) = (booking(), choreographed(booking()));
        render(&[(Variant::Orchestrated, Some(&one)), (Variant::Choreographed, Some(&other))], look)
    }

    #[test]
    fn common_values_are_shown_once_and_each_timeline_keeps_its_order() {
        let (one, mut other) = (booking(), choreographed(booking()));
        other.timeline.swap(0, 1);
        let rendered =
            render(&[(Variant::Orchestrated, Some(&one)), (Variant::Choreographed, Some(&other))], look(120));
        let expected = "
trip      LH400 on 2027-03-01, 2 seats; nyc-plaza to 2027-03-04, 1 room; compact car at jfk
status    confirmed, 1674.00 EUR
╭ orchestrated, 200 ms ─────────────────────────────────╮  ╭ choreographed, 12.3 s ────────────────────────────────╮
│ step            outcome   started   took  detail      │  │ step            outcome   started   took  detail      │
│ flight.reserve  reserved   +12 ms   8 ms  840.00 EUR  │  │ hotel.reserve   reserved   +13 ms   9 ms  657.00 EUR  │
│ hotel.reserve   reserved   +13 ms   9 ms  657.00 EUR  │  │ flight.reserve  reserved   +12 ms   8 ms  840.00 EUR  │
│ car.reserve     reserved   +13 ms < 1 ms  177.00 EUR  │  │ car.reserve     reserved   +13 ms < 1 ms  177.00 EUR  │
│ payment.charge  charged    +30 ms 104 ms  1674.00 EUR │  │ payment.charge  charged    +30 ms 104 ms  1674.00 EUR │
│ booking.confirm confirmed +140 ms   4 ms  1674.00 EUR │  │ booking.confirm confirmed +140 ms   4 ms  1674.00 EUR │
╰ 0123456789abcdef0123456789abcdef ─────────────────────╯  ╰ 0123456789abcdef0123456789abcdef ─────────────────────╯
";
        assert_eq!(rendered, expected.trim());
    }

    #[test]
    fn differing_values_are_shown_for_each_variant() {
        let (one, other) = (booking(), choreographed(failed()));
        let both = render(&[(Variant::Orchestrated, Some(&one)), (Variant::Choreographed, Some(&other))], look(None));
        let expected = "
trip      LH400 on 2027-03-01, 2 seats; nyc-plaza to 2027-03-04, 1 room; compact car at jfk
status    orchestrated: confirmed, 1674.00 EUR
          choreographed: failed
reason    orchestrated: none
          choreographed: hotel.reserve sold_out: nyc-plaza has no room left on 2027-03-01
╭ orchestrated, 200 ms ─────────────────────────────────╮  ╭ choreographed, 12.3 s ────────────────────────────────╮
│ step            outcome   started   took  detail      │  │ step           outcome   started   took  detail       │
│ flight.reserve  reserved   +12 ms   8 ms  840.00 EUR  │  │ flight.reserve reserved   +12 ms   8 ms  840.00 EUR   │
│ hotel.reserve   reserved   +13 ms   9 ms  657.00 EUR  │  │ hotel.reserve  rejected   +13 ms   9 ms  sold_out     │
│ car.reserve     reserved   +13 ms < 1 ms  177.00 EUR  │  │ car.reserve    reserved   +13 ms   8 ms  177.00 EUR   │
│ payment.charge  charged    +30 ms 104 ms  1674.00 EUR │  │ payment.abort  aborted    +30 ms   4 ms  sold_out     │
│ booking.confirm confirmed +140 ms   4 ms  1674.00 EUR │  │ flight.cancel  cancelled  +40 ms   4 ms  released     │
│                                                       │  │ hotel.cancel   cancelled  +40 ms   6 ms  nothing      │
│                                                       │  │ car.cancel     cancelled  +41 ms   4 ms  released     │
│                                                       │  │ booking.fail   failed     +50 ms   4 ms  sold_out     │
╰ 0123456789abcdef0123456789abcdef ─────────────────────╯  ╰ 0123456789abcdef0123456789abcdef ─────────────────────╯
";
        assert_eq!(both, expected.trim());

        let half = render(&[(Variant::Orchestrated, None), (Variant::Choreographed, Some(&other))], look(120));
        assert!(half.contains("status    orchestrated: no booking\n          choreographed: failed\n"), "{half}");
        assert!(half.contains("│ no booking "), "{half}");
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_the_right() {
        fn slow() -> Booking {
            let mut booking = booking();
            booking.timeline[4].started_at = "2027-01-01T10:00:01.140Z".parse().unwrap();
            booking.timeline[4].finished_at = None;
            booking
        }
        let columns = |width: u16| {
            let rendered = both(slow, look(width));
            let header = rendered.lines().find(|line| line.contains("outcome")).unwrap();
            header[..header.find("│  │").unwrap()]
                .trim_matches(['│', ' '])
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        };
        let all: Vec<String> = columns(120);
        assert_eq!(all, ["step", "outcome", "started", "took", "detail"]);
        assert_eq!(columns(100), all[..4]);
        assert_eq!(columns(90), all[..3]);
        // There is room for the reason in short at this width, and in full at the next one.
        assert!(both(failed, look(120)).contains(" sold_out "));
        assert!(both(failed, look(210)).contains(" sold_out: nyc-plaza has no room left on 2027-03-01 "));
    }

    #[test]
    fn on_a_narrow_terminal_they_stand_below_each_other() {
        let rendered = both(failed, look(80));
        assert!(rendered.contains("\norchestrated, 200 ms, 0123456789abcdef0123456789abcdef\n╭"), "{rendered}");
        assert!(rendered.contains("╯\nchoreographed, 12.3 s, 0123456789abcdef0123456789abcdef\n╭"), "{rendered}");
    }

    #[test]
    fn no_line_is_longer_than_the_terminal_and_colours_change_nothing() {
        for width in [60, 80, 90, 91, 100, 111, 120, 159, 240] {
            for of in [booking, failed] {
                let plain = both(of, look(width));
                assert!(plain.lines().all(|line| measure_text_width(line) <= width.into()), "{width}:\n{plain}");
                let colourful = both(of, Look { colour: true, ..look(width) });
                assert_ne!(colourful, plain);
                assert_eq!(console::strip_ansi_codes(&colourful), plain);
            }
        }
    }
}
