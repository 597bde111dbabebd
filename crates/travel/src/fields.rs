//! Rules that several parts have in common.

use jiff::civil::Date;
use saga::reading::Fields;

/// The most units (seats, rooms) that one booking may ask for.
pub const MAX_UNITS: u32 = 9;
/// The most nights of a stay and days of a rental. With the journal's items they have to fit into one transaction,
/// which DynamoDB limits to 100 items.
pub const MAX_DAYS: i32 = 30;

/// How many days one date is after another.
pub(crate) fn days(first: Date, last: Date) -> i32 {
    // Without units, `until` counts in days; it fails only if told to count in units of time.
    first.until(last).map_or(0, |span| span.get_days())
}

/// A first date, not before `earliest`, and a last one at least so many days after it.
pub(crate) fn span(
    fields: &mut Fields<'_, '_>,
    [first, last]: [&'static str; 2],
    earliest: Date,
    least: i32,
) -> Option<(Date, Date)> {
    let (from, to) = (fields.date_since(first, earliest), fields.date(last));
    let (from, to) = (from?, to?);
    match days(from, to) {
        days if days < least => {
            fields.violation(
                last,
                if least > 0 { "must be after the first date" } else { "must not be before the first date" },
            );
        }
        days if days > MAX_DAYS => {
            fields.violation(last, format!("must be at most {MAX_DAYS} days after the first date"));
        }
        _ => return Some((from, to)),
    }
    None
}

/// What a service calls one of its products, or a part of that name.
pub(crate) fn identifier(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 64 of the characters a-z, 0-9 and -".into())
    }
}
