//! The request for a trip: the body of `POST /bookings`.

use std::collections::BTreeMap;

use jiff::{ToSpan, civil::Date};
use saga::{Customer, PartName, PartType, Parts, StockLine, Variant};
use serde::Serialize;
use serde_json::{Value, json};

/// Today's date in UTC.
pub fn today() -> Date {
    jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// The request for a trip. Every field can be changed, also to invalid values, which the API has to refuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TripRequest {
    pub variant: Variant,
    pub traveller: Customer,
    /// Each part with its contents.
    #[serde(flatten)]
    pub parts: BTreeMap<PartName, Value>,
    pub payment: TripPayment,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TripPayment {
    /// The payment provider's token for a card. The sandbox's tokens are not secret.
    pub token: String,
}

/// The parts of a trip by default. A trip may have others, and any of these may be left out.
pub const USUAL: [PartType; 3] = [travel::FLIGHT, travel::HOTEL, travel::CAR];

impl TripRequest {
    /// How many days ahead trips start by default.
    pub const DAYS_AHEAD: i32 = 30;

    /// A trip that can be booked while stock lasts: to New York on this date, for three nights.
    pub fn on(date: Date) -> Self {
        Self::of(&USUAL, date, 3)
    }

    /// A trip of these parts that can be booked while stock lasts, from this date on, for this many nights.
    pub fn of(parts: &[PartType], date: Date, nights: u16) -> Self {
        Self {
            variant: Variant::Orchestrated,
            traveller: Customer { name: "Ada Lovelace".into(), email: "ada@example.com".into() },
            parts: parts.iter().map(|part| (part.name, (part.example)(date, nights))).collect(),
            payment: TripPayment { token: "tok_visa".into() },
        }
    }

    /// The same parts on this date, for this many nights; everything else as in [`TripRequest::of`].
    pub fn lasting(mut self, date: Date, nights: u16) -> Self {
        for (name, contents) in &mut self.parts {
            if let Some(part_type) = travel::part_type(*name) {
                *contents = (part_type.example)(date, nights);
            }
        }
        self
    }

    pub fn set(&mut self, part: PartName, field: &str, value: impl Into<Value>) {
        self.parts.entry(part).or_insert_with(|| json!({}))[field] = value.into();
    }

    /// A field of a part; null if it is missing.
    pub fn field(&self, part: PartName, field: &str) -> &Value {
        self.parts.get(&part).map_or(&Value::Null, |contents| &contents[field])
    }

    /// The stock lines that each part needs; none for parts that cannot be read.
    pub fn lines(&self) -> Vec<(PartName, Vec<StockLine>)> {
        let lines = |(name, contents): (&PartName, &Value)| {
            let request = travel::part_type(*name)?.request(contents).ok()?;
            Some((*name, request.lines()))
        };
        self.parts.iter().filter_map(lines).collect()
    }

    /// The first date on which any part is used; today if no part can be read.
    pub fn first_day(&self) -> Date {
        let dates = self.lines().into_iter().flat_map(|(_, lines)| lines).filter_map(|line| line.date);
        dates.min().unwrap_or_else(today)
    }

    /// Its parts as in a plan; an error if there are none.
    pub fn plan_parts(&self) -> Result<Parts, String> {
        Parts::try_from(self.parts.clone())
    }

    /// The request body.
    pub fn to_json(&self) -> Value {
        json!(self)
    }
}

impl Default for TripRequest {
    /// A trip in [`TripRequest::DAYS_AHEAD`] days.
    fn default() -> Self {
        Self::on(today().saturating_add(Self::DAYS_AHEAD.days()))
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use travel::TRAVEL;

    use super::*;

    #[test]
    fn the_api_reads_it() {
        let request = TRAVEL.read(&TripRequest::default().to_json(), today()).unwrap();
        assert_eq!(request.token.reveal(), "tok_visa");
        let day = date(2027, 3, 1);
        let trip = TripRequest::on(day);
        let read = TRAVEL.read(&trip.to_json(), day).unwrap();
        assert_eq!(read.parts, trip.plan_parts().unwrap());
        let lines = |part: PartType| trip.lines().into_iter().find(|(name, _)| *name == part.name).unwrap().1;
        assert_eq!(USUAL.map(|part| lines(part).len()), [1, 3, 3]);
        assert_eq!(lines(travel::FLIGHT)[0].product, "LH400");
        assert_eq!(lines(travel::HOTEL)[2].date, Some(date(2027, 3, 3)));
        assert_eq!(lines(travel::CAR)[0].product, "jfk#compact");
        assert_eq!(trip.first_day(), day);
        assert_eq!(trip.lasting(day, 5).lines().iter().map(|(_, lines)| lines.len()).max(), Some(5));
    }
}
