//! What a seller sells: everything that is peculiar to one kind of part.

use std::fmt;

use jiff::civil::Date;
use serde_json::Value;

use crate::{
    money::{Money, MoneyError, Price},
    part::PartName,
    reading::{Fields, Violation, read_object},
};

/// A number of units of one product, on one date if it is sold by date: the granularity at which stock is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StockLine {
    /// The product's name in the price list.
    pub product: String,
    /// The date that it is sold for; none for products without dates.
    pub date: Option<Date>,
    /// The number of units.
    pub units: u32,
}

impl fmt::Display for StockLine {
    /// The product, with the date if it has one: `LH400 on 2027-03-01`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.date {
            Some(date) => write!(f, "{} on {date}", self.product),
            None => f.write_str(&self.product),
        }
    }
}

/// A number of units in words, such as `2 seats`.
pub fn count(units: u32, unit: &str) -> String {
    if units == 1 { format!("{units} {unit}") } else { format!("{units} {unit}s") }
}

/// One kind of part, with everything that is peculiar to it. A saga lists its part types; each seller serves one of
/// them.
#[derive(Clone, Copy)]
pub struct PartType {
    /// The name of the part, and of its seller.
    pub name: PartName,
    /// The name of one unit, in the singular.
    pub unit: &'static str,
    /// Whether stock is counted per date.
    pub is_dated: bool,
    /// What is for sale, as JSON: see [`Catalogue`](crate::Catalogue).
    pub price_list: &'static str,
    /// Reads the contents of a part. Dates must not be before the given one.
    pub read: fn(&mut Fields<'_, '_>, Date) -> Option<Box<dyn PartRequest>>,
    /// The contents of a part that can be booked while stock lasts: from this date on, for this many nights. For demos
    /// and tests.
    pub example: fn(Date, u16) -> Value,
}

impl PartType {
    /// Reads the contents of a part that was accepted at any time in the past.
    pub fn request(&self, contents: &Value) -> Result<Box<dyn PartRequest>, Vec<Violation>> {
        read_object(contents, |fields| (self.read)(fields, Date::MIN))
    }
}

impl fmt::Debug for PartType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartType({})", self.name)
    }
}

/// What a customer asks of one seller: the contents of a part, read and checked.
pub trait PartRequest: fmt::Debug + Send + Sync {
    /// The stock that it needs: at least one line, and no line twice.
    fn lines(&self) -> Vec<StockLine>;

    /// The price, given the sum of all units of all lines at catalogue prices.
    fn price(&self, sum: Money) -> Result<Price, MoneyError> {
        Price::of(sum)
    }

    /// The last date on which it is used; none if it is not tied to a date.
    fn last_day(&self) -> Option<Date>;

    /// A short description for people.
    fn summary(&self) -> String;
}
