//! Rooms in a hotel, for at least one night: `{"hotel_id": "nyc-plaza", "check_in": "2027-03-01", "check_out":
//! "2027-03-04", "rooms": 1}`.

use jiff::{ToSpan, civil::Date};
use saga::{PartName, PartRequest, PartType, StockLine, reading::Fields, stock::count};
use serde_json::json;

use crate::fields::{MAX_UNITS, days, identifier, span};

/// The part type of hotel rooms. A product is a hotel: `nyc-plaza`.
pub const HOTEL: PartType = PartType {
    name: PartName::new("hotel"),
    unit: "room",
    is_dated: true,
    price_list: include_str!("hotel.json"),
    read,
    example: |date, nights| {
        let check_out = date.saturating_add(i64::from(nights.max(1)).days());
        json!({"hotel_id": "nyc-plaza", "check_in": date, "check_out": check_out, "rooms": 1})
    },
};

#[derive(Debug)]
struct Hotel {
    hotel_id: String,
    check_in: Date,
    check_out: Date,
    rooms: u32,
}

fn read(fields: &mut Fields<'_, '_>, earliest: Date) -> Option<Box<dyn PartRequest>> {
    let hotel_id = fields.text("hotel_id", identifier);
    let rooms = fields.count("rooms", MAX_UNITS);
    let (check_in, check_out) = span(fields, ["check_in", "check_out"], earliest, 1)?;
    Some(Box::new(Hotel { hotel_id: hotel_id?, check_in, check_out, rooms: rooms? }))
}

impl PartRequest for Hotel {
    /// One line per night. On the day of departure the room is free again.
    fn lines(&self) -> Vec<StockLine> {
        let night = |night: i32| StockLine {
            product: self.hotel_id.clone(),
            date: Some(self.check_in.saturating_add(night.days())),
            units: self.rooms,
        };
        (0..days(self.check_in, self.check_out)).map(night).collect()
    }

    fn last_day(&self) -> Option<Date> {
        Some(self.check_out)
    }

    fn summary(&self) -> String {
        format!("{} to {}, {}", self.hotel_id, self.check_out, count(self.rooms, HOTEL.unit))
    }
}
