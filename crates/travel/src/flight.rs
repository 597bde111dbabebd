//! Seats on a flight: `{"flight_no": "LH400", "date": "2027-03-01", "seats": 2}`.

use jiff::civil::Date;
use saga::{PartName, PartRequest, PartType, StockLine, reading::Fields, stock::count};
use serde_json::json;

use crate::fields::MAX_UNITS;

/// The part type of seats on a flight. A product is a flight number: `LH400`.
pub const FLIGHT: PartType = PartType {
    name: PartName::new("flight"),
    unit: "seat",
    is_dated: true,
    price_list: include_str!("flight.json"),
    read,
    example: |date, _| json!({"flight_no": "LH400", "date": date, "seats": 2}),
};

#[derive(Debug)]
struct Flight {
    flight_no: String,
    date: Date,
    seats: u32,
}

fn read(fields: &mut Fields<'_, '_>, earliest: Date) -> Option<Box<dyn PartRequest>> {
    let flight_no = fields.text("flight_no", flight_no);
    let date = fields.date_since("date", earliest);
    let seats = fields.count("seats", MAX_UNITS);
    Some(Box::new(Flight { flight_no: flight_no?, date: date?, seats: seats? }))
}

impl PartRequest for Flight {
    fn lines(&self) -> Vec<StockLine> {
        vec![StockLine { product: self.flight_no.clone(), date: Some(self.date), units: self.seats }]
    }

    fn last_day(&self) -> Option<Date> {
        Some(self.date)
    }

    fn summary(&self) -> String {
        format!("{} on {}, {}", self.flight_no, self.date, count(self.seats, FLIGHT.unit))
    }
}

/// An airline's two-character designator and up to four digits (IATA Resolution 762), written together.
fn flight_no(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    let airline = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit();
    if (3..=6).contains(&bytes.len()) && bytes[..2].iter().all(airline) && bytes[2..].iter().all(u8::is_ascii_digit) {
        Ok(text.to_owned())
    } else {
        Err("must be a flight number such as LH400".into())
    }
}
