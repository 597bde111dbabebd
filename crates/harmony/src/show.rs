//! Renders a booking for people: what became of it, and its timeline as a table.

use comfy_table::{
    CellAlignment, Column, ColumnConstraint, ContentArrangement, Table, modifiers::UTF8_ROUND_CORNERS,
    presets::UTF8_FULL_CONDENSED,
};
use console::Style;
use jiff::Timestamp;
use saga::{Reason, Status};
use serde::Deserialize;
use serde_json::Value;

use crate::{Booking, client::Entry};

/// What the output is for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Whether it may have colours.
    pub colour: bool,
    /// The width of the terminal; none if lines may be as long as they are.
    pub width: Option<u16>,
}

impl Look {
    /// The look that fits standard output: colours only on a terminal, and not if `NO_COLOR` is set.
    pub fn of_stdout() -> Self {
        let width = console::Term::stdout().size_checked().map(|(_, columns)| columns);
        Self { colour: console::colors_enabled(), width }
    }

    /// Text in this style, where there are colours.
    pub fn style(self, style: Style, text: impl std::fmt::Display) -> String {
        style.force_styling(self.colour).apply_to(text).to_string()
    }

    /// A status in its colour.
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

/// The whole of a booking: its header, and its timeline.
pub fn render(booking: &Booking, look: Look) -> String {
    format!("{}\n{}", header(booking, look), timeline(booking, look))
}

/// Where the text of a [`line`] begins.
const INDENT: usize = 10;

/// A line of a header: what it is about, and what there is to say.
pub fn line(look: Look, about: &str, text: impl std::fmt::Display) -> String {
    let about = look.style(Style::new().dim(), format!("{about:INDENT$}"));
    format!("{about}{}", wrap(look, &text.to_string(), INDENT))
}

/// Breaks a text between words where the terminal's lines end. It begins, and goes on, at this column.
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

/// What was booked, and what became of it: a line each.
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
pub(crate) fn trip(booking: &Booking) -> String {
    let (flight, hotel, car) = (&booking.flight, &booking.hotel, &booking.car);
    let (seats, rooms) = (count(flight.seats, "seat"), count(hotel.rooms, "room"));
    let flight = format!("{} on {}, {seats}", flight.flight_no, flight.date);
    let hotel = format!("{} to {}, {rooms}", hotel.hotel_id, hotel.check_out);
    format!("{flight}; {hotel}; {} car at {}", car.category, car.station_id)
}

/// The status, and what was paid.
pub(crate) fn status(booking: &Booking, look: Look) -> String {
    let total = booking.total.map(|total| format!(", {total}")).unwrap_or_default();
    format!("{}{total}", look.status(booking.status))
}

/// What went wrong, if something did.
pub(crate) fn reason(booking: &Booking) -> Option<String> {
    let reason = booking.reason.as_ref()?;
    let detail = if reason.detail.is_empty() { String::new() } else { format!(": {}", reason.detail) };
    Some(format!("{}{detail}", because(reason)))
}

fn because(reason: &Reason) -> String {
    reason.step.map_or_else(|| reason.code.clone(), |step| format!("{step} {}", reason.code))
}

/// So many of them, such as `2 seats`.
pub fn count(n: impl Into<u64>, what: &str) -> String {
    let n = n.into();
    if n == 1 { format!("{n} {what}") } else { format!("{n} {what}s") }
}

/// The timeline as a table.
pub fn timeline(booking: &Booking, look: Look) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).apply_modifier(UTF8_ROUND_CORNERS);
    table.set_header(["step", "outcome", "started", "took", "detail"]);
    for entry in &booking.timeline {
        let [detail, _] = details(entry);
        table.add_row([
            entry.step.name().to_owned(),
            entry.outcome.clone(),
            started(booking, entry),
            took(entry),
            detail,
        ]);
    }
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

/// When a step began, from when the booking was accepted.
pub(crate) fn started(booking: &Booking, entry: &Entry) -> String {
    format!("{:+} ms", milliseconds(booking.created_at, entry.started_at))
}

/// How long a step took.
pub(crate) fn took(entry: &Entry) -> String {
    match entry.finished_at.map(|finished_at| milliseconds(entry.started_at, finished_at)) {
        Some(0) => "< 1 ms".to_owned(),
        Some(took) => format!("{took} ms"),
        None => "…".to_owned(),
    }
}

/// Times are kept in whole milliseconds.
pub(crate) fn milliseconds(from: Timestamp, to: Timestamp) -> i64 {
    to.as_millisecond() - from.as_millisecond()
}

/// What belongs to an outcome, as people would say it: in full, and in short.
pub(crate) fn details(entry: &Entry) -> [String; 2] {
    let text = |name: &str| entry.detail.get(name).and_then(Value::as_str);
    let both = |text: String| [text.clone(), text];
    match (entry.money(), entry.released(), text("code"), entry.detail.get("reason")) {
        (Some(money), ..) => both(money.to_string()),
        (_, Some(true), ..) => both("released".into()),
        (_, Some(false), ..) => ["nothing to release".into(), "nothing".into()],
        (_, _, Some(code), _) => [format!("{code}: {}", text("message").unwrap_or_default()), code.to_owned()],
        (.., Some(reason)) => match Reason::deserialize(reason) {
            Ok(reason) => [because(&reason), reason.code],
            Err(_) => both(String::new()), // null: nobody said why
        },
        _ if entry.detail.as_object().is_none_or(serde_json::Map::is_empty) => both(String::new()),
        _ => both(entry.detail.to_string()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    fn eur(amount: u64) -> Value {
        json!({"amount": amount, "currency": "EUR"})
    }

    fn with(status: &str, total: Value, reason: Value, timeline: &[(&str, &str, u32, u32, Value)]) -> Booking {
        let at = |ms: u32| format!("2027-01-01T10:00:00.{ms:03}Z");
        let timeline: Vec<_> = timeline
            .iter()
            .map(|(step, outcome, started, finished, detail)| {
                json!({"step": step, "outcome": outcome, "started_at": at(*started), "finished_at": at(*finished),
                    "detail": detail})
            })
            .collect();
        serde_json::from_value(json!({
            "booking_id": "0123456789abcdef0123456789abcdef", "variant": "orchestrated", "status": status,
            "total": total, "reason": reason, "created_at": at(0), "updated_at": at(200),
            "traveller": {"name": "Ada Lovelace", "email": "ada@example.com"},
            "flight": {"flight_no": "LH400", "date": "2027-03-01", "seats": 2},
            "hotel": {"hotel_id": "nyc-plaza", "check_in": "2027-03-01", "check_out": "2027-03-04", "rooms": 1},
            "car": {"station_id": "jfk", "category": "compact", "pick_up": "2027-03-01", "drop_off": "2027-03-04"},
            "timeline": timeline,
        }))
        .unwrap()
    }

    pub(crate) fn booking() -> Booking {
        let charge = json!({"amount": eur(167_400), "charge_id": "ch_1"});
        with(
            "confirmed",
            eur(167_400),
            json!(null),
            &[
                ("flight.reserve", "reserved", 12, 20, json!({"price": eur(84_000)})),
                ("hotel.reserve", "reserved", 13, 22, json!({"price": eur(65_700)})),
                ("car.reserve", "reserved", 13, 13, json!({"price": eur(17_700)})),
                ("payment.charge", "charged", 30, 134, charge),
                ("booking.confirm", "confirmed", 140, 144, json!({"total": eur(167_400)})),
            ],
        )
    }

    pub(crate) fn failed() -> Booking {
        let no_room = "nyc-plaza has no room left on 2027-03-01";
        let reason = json!({"step": "hotel.reserve", "code": "sold_out", "detail": no_room});
        with(
            "failed",
            json!(null),
            reason.clone(),
            &[
                ("flight.reserve", "reserved", 12, 20, json!({"price": eur(84_000)})),
                ("hotel.reserve", "rejected", 13, 22, json!({"code": "sold_out", "message": no_room})),
                ("car.reserve", "reserved", 13, 21, json!({"price": eur(17_700)})),
                ("payment.abort", "aborted", 30, 34, json!({"reason": reason})),
                ("flight.cancel", "cancelled", 40, 44, json!({"released": true})),
                ("hotel.cancel", "cancelled", 40, 46, json!({"released": false})),
                ("car.cancel", "cancelled", 41, 45, json!({"released": true})),
                ("booking.fail", "failed", 50, 54, json!({"reason": reason})),
            ],
        )
    }

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
