//! Rules that several parts share.

use jiff::civil::Date;
use saga::reading::Fields;

/// The maximum number of units (seats, rooms) that one booking may ask for.
pub const MAX_UNITS: u32 = 9;
/// The maximum number of nights of a stay and of days of a rental. Together with the journal's items they have to fit
/// into one transaction, which DynamoDB limits to 100 items.
pub const MAX_DAYS: i32 = 30;

/// How many days one date is after another.
pub(crate) fn days(first: Date, last: Date) -> i32 {
    // Without units, `until` counts in days; it fails only if asked for units of time.
    first.until(last).map_or(0, |span| span.get_days())
}

/// Reads a first date that is not before `earliest`, and a last date that is at least `min_days` days after it.
pub(crate) fn span(
    fields: &mut Fields<'_, '_>,
    [first, last]: [&'static str; 2],
    earliest: Date,
    min_days: i32,
) -> Option<(Date, Date)> {
    let (from, to) = (fields.date_since(first, earliest), fields.date(last));
    let (from, to) = (from?, to?);
    match days(from, to) {
        days if days < min_days => {
            fields.violation(
                last,
                if min_days > 0 { "must be after the first date" } else { "must not be before the first date" },
            );
        }
        days if days > MAX_DAYS => {
            fields.violation(last, format!("must be at most {MAX_DAYS} days after the first date"));
        }
        _ => return Some((from, to)),
    }
    None
}

/// An identifier that a service gives one of its products, or a part of such an identifier.
pub(crate) fn identifier(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 64 of the characters a-z, 0-9 and -".into())
    }
}
