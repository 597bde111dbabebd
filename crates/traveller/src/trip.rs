//! A trip to ask for: the body of `POST /bookings`.

use std::collections::BTreeMap;

use jiff::{ToSpan, civil::Date};
use saga::{Customer, PartName, PartType, Parts, StockLine, Variant};
use serde::Serialize;
use serde_json::{Value, json};

/// The date of today in UTC.
pub fn today() -> Date {
    jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// What to book. Everything can be changed, to nonsense too: it is for the API to refuse it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TripRequest {
    /// Who coordinates.
    pub variant: Variant,
    /// Who travels.
    pub traveller: Customer,
    /// What to book: each part with its contents.
    #[serde(flatten)]
    pub parts: BTreeMap<PartName, Value>,
    /// How it is paid.
    pub payment: Payment,
}

/// How a trip is paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Payment {
    /// The payment provider's name for a card. Those of the sandbox are not secret.
    pub token: String,
}

/// The parts of a trip if nothing else is said. A trip may have others, and any of these may be left out.
pub const USUAL: [PartType; 3] = [travel::FLIGHT, travel::HOTEL, travel::CAR];

impl TripRequest {
    /// How many days ahead trips start if nothing else is said.
    pub const DAYS_AHEAD: i32 = 30;

    /// A trip that can be booked if there is stock: to New York on that date, for three nights.
    pub fn on(date: Date) -> Self {
        Self::of(&USUAL, date, 3)
    }

    /// A trip of these parts that can be booked if there is stock, from that date on, for so many nights.
    pub fn of(parts: &[PartType], date: Date, nights: u16) -> Self {
        Self {
            variant: Variant::Orchestrated,
            traveller: Customer { name: "Ada Lovelace".into(), email: "ada@example.com".into() },
            parts: parts.iter().map(|part| (part.name, (part.example)(date, nights))).collect(),
            payment: Payment { token: "tok_visa".into() },
        }
    }

    /// The same parts on this date, for so many nights, otherwise as in [`TripRequest::of`].
    pub fn lasting(mut self, date: Date, nights: u16) -> Self {
        for (name, contents) in &mut self.parts {
            if let Some(part_type) = travel::part_type(*name) {
                *contents = (part_type.example)(date, nights);
            }
        }
        self
    }

    /// Changes a field of a part.
    pub fn set(&mut self, part: PartName, field: &str, value: impl Into<Value>) {
        self.parts.entry(part).or_insert_with(|| json!({}))[field] = value.into();
    }

    /// A field of a part; null if it is not there.
    pub fn field(&self, part: PartName, field: &str) -> &Value {
        self.parts.get(&part).map_or(&Value::Null, |contents| &contents[field])
    }

    /// The stock that its parts need, each with its lines; of parts that cannot be read none.
    pub fn lines(&self) -> Vec<(PartName, Vec<StockLine>)> {
        let lines = |(name, contents): (&PartName, &Value)| {
            let request = travel::part_type(*name)?.request(contents).ok()?;
            Some((*name, request.lines()))
        };
        self.parts.iter().filter_map(lines).collect()
    }

    /// The first date on which anything of it is used; today if nothing of it can be read.
    pub fn first_day(&self) -> Date {
        let dates = self.lines().into_iter().flat_map(|(_, lines)| lines).filter_map(|line| line.date);
        dates.min().unwrap_or_else(today)
    }

    /// Its parts, as they stand in a plan. A trip has at least one.
    pub fn plan_parts(&self) -> Result<Parts, String> {
        Parts::try_from(self.parts.clone())
    }

    /// The request as the API reads it.
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
