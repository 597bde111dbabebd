//! What a seller sells: everything that is peculiar to one kind of part.

use std::fmt;

use jiff::civil::Date;
use serde_json::Value;

use crate::{
    money::{Money, MoneyError, Price},
    part::PartName,
    reading::{Fields, Violation, read_object},
};

/// So many units of one product, on one date if it is sold by date: the grain in which stock is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StockLine {
    /// As the price list calls it.
    pub product: String,
    /// The date for which it is sold; none for what is the same on every date.
    pub date: Option<Date>,
    /// How many are needed.
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

/// So many units, such as `2 seats`.
pub fn count(units: u32, unit: &str) -> String {
    if units == 1 { format!("{units} {unit}") } else { format!("{units} {unit}s") }
}

/// One kind of part, with all that is peculiar to it. A saga lists its part types; a seller is made for one of them.
#[derive(Clone, Copy)]
pub struct PartType {
    /// What it is called, and its seller.
    pub name: PartName,
    /// What one unit is called, in the singular.
    pub unit: &'static str,
    /// Whether stock is counted for each date.
    pub is_dated: bool,
    /// What is for sale, as JSON: see [`Catalogue`](crate::Catalogue).
    pub price_list: &'static str,
    /// Reads what is asked for, which must not begin before this date.
    pub read: fn(&mut Fields<'_, '_>, Date) -> Option<Box<dyn PartRequest>>,
    /// The contents of a part that can be booked as long as there is stock: from this date on, for so many nights. For
    /// demos and tests.
    pub example: fn(Date, u16) -> Value,
}

impl PartType {
    /// Reads the contents of a part that was accepted, whenever that was.
    pub fn request(&self, contents: &Value) -> Result<Box<dyn PartRequest>, Vec<Violation>> {
        read_object(contents, |fields| (self.read)(fields, Date::MIN))
    }
}

impl fmt::Debug for PartType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartType({})", self.name)
    }
}

/// What is asked for of one seller, as it was read.
pub trait PartRequest: fmt::Debug + Send + Sync {
    /// The stock that it needs: at least one line, and no line twice.
    fn lines(&self) -> Vec<StockLine>;

    /// What it costs if all units of all lines cost this at the prices of the catalogue.
    fn price(&self, sum: Money) -> Result<Price, MoneyError> {
        Price::of(sum)
    }

    /// The last date on which it is used; none if it is not bound to a date.
    fn last_day(&self) -> Option<Date>;

    /// What is asked for, in a few words for people.
    fn summary(&self) -> String;
}
