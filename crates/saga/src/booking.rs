//! What a traveller asks for.

use std::fmt;

use jiff::{ToSpan, civil::Date};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;

use crate::{
    Leg, Money, PaymentToken, Violation,
    id::digest,
    money::MoneyError,
    reading::{Fields, read_object},
};

/// The most units (seats, rooms) that one booking may ask for.
pub const MOST_UNITS: u32 = 9;
/// The most nights of a stay and days of a rental. With the journal's items they have to fit into one transaction,
/// which DynamoDB limits to 100 items.
pub const MOST_DAYS: i32 = 30;

/// Who coordinates the booking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// A state machine calls the participants (the conductor).
    Orchestrated,
    /// The participants react to each other's events (the dancers).
    Choreographed,
}

impl Variant {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Orchestrated, Self::Choreographed];

    /// `orchestrated` or `choreographed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orchestrated => "orchestrated",
            Self::Choreographed => "choreographed",
        }
    }
}

/// Who travels. Personal data: kept in the booking's header and nowhere else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traveller {
    /// 1 to 100 characters.
    pub name: String,
    /// At most 254 characters (RFC 5321).
    pub email: String,
}

impl fmt::Debug for Traveller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Traveller(…)")
    }
}

/// Seats on a flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct FlightLeg {
    flight_no: String,
    date: Date,
    seats: u32,
}

/// Rooms in a hotel, for at least one night.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HotelLeg {
    hotel_id: String,
    check_in: Date,
    check_out: Date,
    rooms: u32,
}

/// A car, for at least one day: picked up and dropped off on the same date counts as a day.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct CarLeg {
    station_id: String,
    category: String,
    pick_up: Date,
    drop_off: Date,
}

/// One leg of the trip, with what is to be reserved for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum LegRequest {
    /// Seats on a flight.
    Flight(FlightLeg),
    /// Rooms in a hotel.
    Hotel(HotelLeg),
    /// A car.
    Car(CarLeg),
}

/// So many units of one product on one date: the grain in which stock is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StockLine {
    /// A flight number, a hotel, or a station and category (`jfk#compact`).
    pub product: String,
    /// The flight's date, the night, the day.
    pub date: Date,
    /// How many are needed.
    pub units: u32,
}

impl LegRequest {
    /// Reads the fields of this leg, which must not begin before `earliest`.
    pub fn read(leg: Leg, fields: &mut Fields<'_, '_>, earliest: Date) -> Option<Self> {
        match leg {
            Leg::Flight => {
                let flight_no = fields.text("flight_no", flight_no);
                let date = fields.date_since("date", earliest);
                let seats = fields.count("seats", MOST_UNITS);
                Some(Self::Flight(FlightLeg { flight_no: flight_no?, date: date?, seats: seats? }))
            }
            Leg::Hotel => {
                let hotel_id = fields.text("hotel_id", name);
                let check_in = fields.date_since("check_in", earliest);
                let check_out = fields.date("check_out");
                let rooms = fields.count("rooms", MOST_UNITS);
                let (check_in, check_out) = span(fields, "check_out", check_in?, check_out?, 1)?;
                Some(Self::Hotel(HotelLeg { hotel_id: hotel_id?, check_in, check_out, rooms: rooms? }))
            }
            Leg::Car => {
                let station_id = fields.text("station_id", name);
                let category = fields.text("category", name);
                let pick_up = fields.date_since("pick_up", earliest);
                let drop_off = fields.date("drop_off");
                let (pick_up, drop_off) = span(fields, "drop_off", pick_up?, drop_off?, 0)?;
                Some(Self::Car(CarLeg { station_id: station_id?, category: category?, pick_up, drop_off }))
            }
        }
    }

    /// Which leg it is.
    pub const fn leg(&self) -> Leg {
        match self {
            Self::Flight(_) => Leg::Flight,
            Self::Hotel(_) => Leg::Hotel,
            Self::Car(_) => Leg::Car,
        }
    }

    /// What is sold: a flight number, a hotel, or a station and category (`jfk#compact`).
    pub fn product(&self) -> String {
        match self {
            Self::Flight(flight) => flight.flight_no.clone(),
            Self::Hotel(hotel) => hotel.hotel_id.clone(),
            Self::Car(car) => car_product(&car.station_id, &car.category),
        }
    }

    /// The stock that the leg needs: a line for the flight's date, for each night, for each day. A car that is
    /// dropped off on a later date is free again on that date, as a room is on the day of departure.
    pub fn lines(&self) -> Vec<StockLine> {
        let (first, days, units) = match self {
            Self::Flight(flight) => (flight.date, 1, flight.seats),
            Self::Hotel(hotel) => (hotel.check_in, days(hotel.check_in, hotel.check_out), hotel.rooms),
            Self::Car(car) => (car.pick_up, days(car.pick_up, car.drop_off).max(1), 1),
        };
        let product = self.product();
        (0..days)
            .map(|day| StockLine { product: product.clone(), date: first.saturating_add(day.days()), units })
            .collect()
    }

    /// What the leg costs if one unit costs `unit_price` per line.
    pub fn price(&self, unit_price: Money) -> Result<Money, MoneyError> {
        let units = self.lines().iter().map(|line| u64::from(line.units)).sum();
        unit_price.times(units)
    }

    /// Tells this leg from any other, to see whether a repeated command is the same command.
    pub fn digest(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default(); // strings and numbers only: always representable
        digest(&[self.leg().name().as_bytes(), &json])
    }
}

/// The product name of a category of cars at a station.
pub fn car_product(station_id: &str, category: &str) -> String {
    format!("{station_id}#{category}")
}

/// The legs of a trip, one of each. Written and read as `{"flight": {…}, "hotel": {…}, "car": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Trip {
    flight: LegRequest,
    hotel: LegRequest,
    car: LegRequest,
}

impl Trip {
    /// Reads the fields `flight`, `hotel` and `car`, none of which must begin before `earliest`.
    pub fn read(fields: &mut Fields<'_, '_>, earliest: Date) -> Option<Self> {
        let [flight, hotel, car] =
            Leg::ALL.map(|leg| fields.object(leg.name(), |fields| LegRequest::read(leg, fields, earliest)));
        Some(Self { flight: flight?, hotel: hotel?, car: car? })
    }

    /// The request for this leg.
    pub const fn leg(&self, leg: Leg) -> &LegRequest {
        match leg {
            Leg::Flight => &self.flight,
            Leg::Hotel => &self.hotel,
            Leg::Car => &self.car,
        }
    }
}

impl<'de> Deserialize<'de> for Trip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        read_object(&value, |fields| Self::read(fields, Date::MIN))
            .map_err(|violations| D::Error::custom(Violation::list(&violations)))
    }
}

/// A request that keeps every rule that can be checked without looking into stock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookingRequest {
    /// Who coordinates.
    pub variant: Variant,
    /// Who travels.
    pub traveller: Traveller,
    /// Where to, and when.
    pub trip: Trip,
    /// What to charge.
    pub token: PaymentToken,
}

impl BookingRequest {
    /// Reads the body of `POST /bookings`. `today` is the earliest date that it is anywhere on earth: what lies
    /// before it is past for everyone.
    pub fn read(body: &Value, today: Date) -> Result<Self, Vec<Violation>> {
        read_object(body, |fields| {
            let variant = fields.text("variant", |text| match text {
                "orchestrated" => Ok(Variant::Orchestrated),
                "choreographed" => Ok(Variant::Choreographed),
                _ => Err("must be \"orchestrated\" or \"choreographed\"".into()),
            });
            let traveller = fields.object("traveller", |fields| {
                let name = fields.text("name", person_name);
                let email = fields.text("email", email);
                Some(Traveller { name: name?, email: email? })
            });
            let trip = Trip::read(fields, today);
            let token = fields.object("payment", |fields| fields.text("token", |text| PaymentToken::try_from(text)));
            Some(Self { variant: variant?, traveller: traveller?, trip: trip?, token: token? })
        })
    }

    /// Tells this request from any other, the card included, whatever its JSON looked like.
    pub fn digest(&self) -> String {
        // Strings and numbers only: always representable.
        let trip = serde_json::to_vec(&self.trip).unwrap_or_default();
        let traveller = serde_json::to_vec(&self.traveller).unwrap_or_default();
        digest(&[self.variant.name().as_bytes(), &trip, &traveller, self.token.reveal().as_bytes()])
    }
}

fn days(first: Date, last: Date) -> i32 {
    // Without units, `until` counts in days; it fails only if told to count in units of time.
    first.until(last).map_or(0, |span| span.get_days())
}

fn span(fields: &mut Fields<'_, '_>, end: &str, from: Date, to: Date, least: i32) -> Option<(Date, Date)> {
    match days(from, to) {
        days if days < least => {
            fields.violation(
                end,
                if least > 0 { "must be after the first date" } else { "must not be before the first date" },
            );
        }
        days if days > MOST_DAYS => {
            fields.violation(end, format!("must be at most {MOST_DAYS} days after the first date"))
        }
        _ => return Some((from, to)),
    }
    None
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

fn name(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 64 of the characters a-z, 0-9 and -".into())
    }
}

fn person_name(text: &str) -> Result<String, String> {
    let odd = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
    if (1..=100).contains(&text.chars().count()) && !text.trim().is_empty() && !text.chars().any(odd) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 100 characters, without control characters".into())
    }
}

/// Only what every address has: who really owns it, a confirmation mail tells.
fn email(text: &str) -> Result<String, String> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || c == char::REPLACEMENT_CHARACTER;
    match text.rsplit_once('@') {
        Some((local, domain))
            if !local.is_empty() && !domain.is_empty() && text.len() <= 254 && !text.contains(odd) =>
        {
            Ok(text.to_owned())
        }
        _ => Err("must be an e-mail address of at most 254 characters".into()),
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const TODAY: Date = date(2027, 1, 15);

    fn body() -> Value {
        json!({
            "variant": "orchestrated",
            "traveller": {"name": "Ada Lovelace", "email": "ada@example.com"},
            "flight": {"flight_no": "LH400", "date": "2027-03-01", "seats": 2},
            "hotel": {"hotel_id": "nyc-plaza", "check_in": "2027-03-01", "check_out": "2027-03-04", "rooms": 1},
            "car": {"station_id": "jfk", "category": "compact", "pick_up": "2027-03-01", "drop_off": "2027-03-04"},
            "payment": {"token": "tok_visa"}
        })
    }

    fn pointers(body: &Value) -> Vec<String> {
        BookingRequest::read(body, TODAY).unwrap_err().into_iter().map(|v| v.pointer).collect()
    }

    fn with(pointer: &str, value: impl Into<Value>) -> Value {
        let mut body = body();
        *body.pointer_mut(pointer).unwrap() = value.into();
        body
    }

    #[test]
    fn the_request_of_the_contract_is_read() {
        let request = BookingRequest::read(&body(), TODAY).unwrap();
        let lines = |leg| request.trip.leg(leg).lines();
        assert_eq!(lines(Leg::Flight), [StockLine { product: "LH400".into(), date: date(2027, 3, 1), units: 2 }]);
        assert_eq!(lines(Leg::Hotel).len(), 3);
        assert_eq!(lines(Leg::Car)[2], StockLine { product: "jfk#compact".into(), date: date(2027, 3, 3), units: 1 });
        assert_eq!(request.trip.leg(Leg::Flight).price(Money::eur(100)), Ok(Money::eur(200)));
    }

    #[test]
    fn each_broken_rule_is_pointed_at() {
        for (pointer, value) in [
            ("/variant", json!("danced")),
            ("/traveller/name", json!("  ")),
            ("/traveller/name", json!("a\u{0}b")),
            ("/traveller/name", json!("x".repeat(101))),
            ("/traveller/name", json!("\u{fffd}")),
            ("/traveller/email", json!("ada")),
            ("/traveller/email", json!(format!("a@{}", "x".repeat(254)))),
            ("/flight/flight_no", json!("lh400")),
            ("/flight/flight_no", json!("LH40000")),
            ("/flight/date", json!("2027-01-14")),
            ("/flight/seats", json!(0)),
            ("/flight/seats", json!(-1)),
            ("/flight/seats", json!(10)),
            ("/flight/seats", json!(1.5)),
            ("/flight/seats", json!("2")),
            ("/hotel/check_out", json!("2027-03-01")),
            ("/hotel/check_out", json!("2027-02-01")),
            ("/hotel/check_out", json!("2027-04-01")),
            ("/hotel/hotel_id", json!("NYC")),
            ("/car/drop_off", json!("2027-02-28")),
            ("/car/category", json!("")),
            ("/payment/token", json!("")),
            ("/payment/token", json!(null)),
            ("/payment", json!("tok_visa")),
        ] {
            assert_eq!(pointers(&with(pointer, value.clone())), [pointer], "{value}");
        }
    }

    #[test]
    fn what_is_unknown_or_missing_is_refused() {
        let mut extra = body();
        extra["hotel"]["breakfast"] = json!(true);
        assert_eq!(pointers(&extra), ["/hotel/breakfast"]);
        let mut missing = body();
        missing.as_object_mut().unwrap().remove("car");
        assert_eq!(pointers(&missing), ["/car"]);
        assert_eq!(pointers(&json!([])), [""]);
    }

    #[test]
    fn everything_is_pointed_at_at_once() {
        let mut body = with("/flight/date", "2027-01-01");
        body["flight"]["seats"] = json!(0);
        body["hotel"]["rooms"] = json!(0);
        body["more"] = json!(1);
        assert_eq!(pointers(&body), ["/flight/date", "/flight/seats", "/hotel/rooms", "/more"]);
    }

    #[test]
    fn a_day_is_past_only_when_it_is_past_everywhere() {
        assert!(BookingRequest::read(&with("/flight/date", "2027-01-15"), TODAY).is_ok());
    }

    #[test]
    fn a_car_for_one_day_is_a_day() {
        let request = BookingRequest::read(&with("/car/drop_off", "2027-03-01"), TODAY).unwrap();
        assert_eq!(request.trip.leg(Leg::Car).lines().len(), 1);
    }

    #[test]
    fn the_digest_is_of_what_was_asked_not_of_how_it_was_written() {
        let one = BookingRequest::read(&body(), TODAY).unwrap();
        let text = serde_json::to_string_pretty(&body()).unwrap();
        let two = BookingRequest::read(&serde_json::from_str(&text).unwrap(), TODAY).unwrap();
        assert_eq!(one.digest(), two.digest());
        for (pointer, value) in
            [("/payment/token", json!("tok_other")), ("/flight/seats", json!(3)), ("/traveller/name", json!("Bob"))]
        {
            let other = BookingRequest::read(&with(pointer, value), TODAY).unwrap();
            assert_ne!(one.digest(), other.digest(), "{pointer}");
        }
    }

    fn dates(most_days: i32, least: i32) -> impl Strategy<Value = (Date, Date)> {
        (0..600i32, least..=most_days).prop_map(|(start, days)| {
            let first = TODAY.saturating_add(start.days());
            (first, first.saturating_add(days.days()))
        })
    }

    proptest! {
        /// No valid request is refused, and its legs need one line for each date that they span.
        #[test]
        fn valid_requests_are_read(
            flight_no in "[A-Z0-9]{2}[0-9]{1,4}", seats in 1..=9u32, day in 0..600i32,
            (check_in, check_out) in dates(MOST_DAYS, 1), rooms in 1..=9u32, hotel in "[a-z0-9-]{1,64}",
            (pick_up, drop_off) in dates(MOST_DAYS, 0), station in "[a-z0-9-]{1,64}",
            name in "[^\\p{C}\\s\u{fffd}][^\\p{C}\u{fffd}]{0,99}", token in "[!-~]{1,255}",
        ) {
            let request = BookingRequest::read(&json!({
                "variant": "choreographed",
                "traveller": {"name": name, "email": "a@b"},
                "flight": {"flight_no": flight_no, "date": TODAY.saturating_add(day.days()), "seats": seats},
                "hotel": {"hotel_id": hotel, "check_in": check_in, "check_out": check_out, "rooms": rooms},
                "car": {"station_id": station, "category": "suv", "pick_up": pick_up, "drop_off": drop_off},
                "payment": {"token": token}
            }), TODAY);
            prop_assert!(request.is_ok(), "{:?}", request);
            let trip = request.unwrap().trip;
            prop_assert_eq!(trip.leg(Leg::Hotel).lines().len() as i32, days(check_in, check_out));
            prop_assert_eq!(trip.leg(Leg::Car).lines().len() as i32, days(pick_up, drop_off).max(1));
            let json = serde_json::to_value(&trip).unwrap();
            prop_assert_eq!(serde_json::from_value::<Trip>(json).unwrap(), trip);
        }

        /// Whatever comes, it is read or refused: no panic.
        #[test]
        fn no_text_panics(text in "\\PC{0,300}", pointer in prop::sample::select(vec![
            "/variant", "/traveller/name", "/traveller/email", "/flight/flight_no", "/flight/date", "/flight/seats",
            "/hotel/hotel_id", "/hotel/check_in", "/hotel/check_out", "/car/pick_up", "/car/drop_off", "/payment/token",
        ])) {
            let _ = BookingRequest::read(&with(pointer, text), TODAY);
        }
    }
}
