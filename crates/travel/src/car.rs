//! A car, for at least one day: `{"station_id": "jfk", "category": "compact", "pick_up": "2027-03-01", "drop_off":
//! "2027-03-04"}`.

use jiff::{ToSpan, civil::Date};
use saga::{PartName, PartRequest, PartType, StockLine, reading::Fields};
use serde_json::json;

use crate::fields::{days, identifier, span};

/// The part type of cars. A product is a category of cars at a station: `jfk#compact`.
pub const CAR: PartType = PartType {
    name: PartName::new("car"),
    unit: "car",
    is_dated: true,
    price_list: include_str!("car.json"),
    read,
    example: |date, nights| {
        let drop_off = date.saturating_add(i64::from(nights).days());
        json!({"station_id": "jfk", "category": "compact", "pick_up": date, "drop_off": drop_off})
    },
};

#[derive(Debug)]
struct Car {
    station_id: String,
    category: String,
    pick_up: Date,
    drop_off: Date,
}

fn read(fields: &mut Fields<'_, '_>, earliest: Date) -> Option<Box<dyn PartRequest>> {
    let station_id = fields.text("station_id", identifier);
    let category = fields.text("category", identifier);
    let (pick_up, drop_off) = span(fields, ["pick_up", "drop_off"], earliest, 0)?;
    Some(Box::new(Car { station_id: station_id?, category: category?, pick_up, drop_off }))
}

impl PartRequest for Car {
    /// One line per day. On the day of drop-off the car is free again, unless it was picked up on the same day.
    fn lines(&self) -> Vec<StockLine> {
        let day = |day: i32| StockLine {
            product: format!("{}#{}", self.station_id, self.category),
            date: Some(self.pick_up.saturating_add(day.days())),
            units: 1,
        };
        (0..days(self.pick_up, self.drop_off).max(1)).map(day).collect()
    }

    fn last_day(&self) -> Option<Date> {
        Some(self.drop_off)
    }

    fn summary(&self) -> String {
        format!("{} car at {}", self.category, self.station_id)
    }
}
