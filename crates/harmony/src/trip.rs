//! A trip to ask for: the body of `POST /bookings`.

use jiff::{ToSpan, civil::Date};
use saga::{Traveller, Variant};
use serde::{Deserialize, Serialize};

/// The date of today in UTC.
pub fn today() -> Date {
    jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// What to book. All fields can be changed, to nonsense too: the API is who refuses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TripRequest {
    /// Who coordinates.
    pub variant: Variant,
    /// Who travels.
    pub traveller: Traveller,
    /// Which flight.
    pub flight: Flight,
    /// Which hotel.
    pub hotel: Hotel,
    /// Which car.
    pub car: Car,
    /// How it is paid.
    pub payment: Payment,
}

/// Seats on a flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flight {
    /// Such as `LH400`.
    pub flight_no: String,
    /// When it leaves.
    pub date: Date,
    /// How many.
    pub seats: u32,
}

/// Rooms in a hotel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hotel {
    /// Such as `nyc-plaza`.
    pub hotel_id: String,
    /// The first night.
    pub check_in: Date,
    /// The day after the last night.
    pub check_out: Date,
    /// How many.
    pub rooms: u32,
}

/// A car.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Car {
    /// Where, such as `jfk`.
    pub station_id: String,
    /// Such as `compact`.
    pub category: String,
    /// The first day.
    pub pick_up: Date,
    /// The day on which it comes back.
    pub drop_off: Date,
}

/// How a trip is paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Payment {
    /// The payment provider's name for a card. Those of the sandbox are no secrets.
    pub token: String,
}

impl TripRequest {
    /// How many days ahead trips start if nothing else is said.
    pub const DAYS_AHEAD: i32 = 30;

    /// A trip that can be booked if there is stock: to New York on that date, for three nights.
    pub fn on(date: Date) -> Self {
        Self {
            variant: Variant::Orchestrated,
            traveller: Traveller { name: "Ada Lovelace".into(), email: "ada@example.com".into() },
            flight: Flight { flight_no: "LH400".into(), date, seats: 2 },
            hotel: Hotel { hotel_id: "nyc-plaza".into(), check_in: date, check_out: date, rooms: 1 },
            car: Car { station_id: "jfk".into(), category: "compact".into(), pick_up: date, drop_off: date },
            payment: Payment { token: "tok_visa".into() },
        }
        .lasting(date, 3)
    }

    /// The same trip on this date, for so many nights.
    pub fn lasting(mut self, date: Date, nights: u16) -> Self {
        let last = date.saturating_add(i64::from(nights).days());
        self.flight.date = date;
        (self.hotel.check_in, self.hotel.check_out) = (date, last);
        (self.car.pick_up, self.car.drop_off) = (date, last);
        self
    }

    /// The request as the API reads it.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self)
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
    use saga::{BookingRequest, Leg};

    use super::*;

    #[test]
    fn the_api_reads_it() {
        let request = BookingRequest::read(&TripRequest::default().to_json(), today()).unwrap();
        assert_eq!(request.token.reveal(), "tok_visa");
        let day = date(2027, 3, 1);
        let trip = BookingRequest::read(&TripRequest::on(day).to_json(), day).unwrap().trip;
        let lines = Leg::ALL.map(|leg| trip.leg(leg).lines());
        assert_eq!(lines.each_ref().map(Vec::len), [1, 3, 3]);
        assert_eq!(lines[0][0].product, "LH400");
        assert_eq!(lines[1][2].date, date(2027, 3, 3));
        assert_eq!(lines[2][0].product, "jfk#compact");
    }
}
