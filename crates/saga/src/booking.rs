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
    text::{is_letter, is_visible},
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
    /// 1 to 100 characters that can be seen.
    pub name: String,
    /// One address of at most 254 bytes (RFC 5321).
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

    /// The last date on which anything of it is used.
    pub fn last_day(&self) -> Date {
        let last_of = |leg: &LegRequest| match leg {
            LegRequest::Flight(flight) => flight.date,
            LegRequest::Hotel(hotel) => hotel.check_out,
            LegRequest::Car(car) => car.drop_off,
        };
        Leg::ALL.map(|leg| last_of(self.leg(leg))).into_iter().max().unwrap_or(Date::MAX) // there are three
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
    if (1..=100).contains(&text.chars().count()) && text.contains(is_letter) && is_visible(text) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 100 visible characters, at least one of them a letter".into())
    }
}

/// The `specials` of RFC 5322, section 3.2.3, which an address has only within quotes, but for the dot. Whoever gives out
/// addresses should do without quotes (RFC 5321, section 4.1.2), and here they would let a list in.
const SPECIALS: &str = "()<>[]:;@\\,\"";

/// One address, without a name, as far as its form tells: who really owns it, a confirmation mail tells.
fn email(text: &str) -> Result<String, String> {
    let is_odd = |c: char| c.is_whitespace() || SPECIALS.contains(c);
    let is_part = |part: &str| !part.is_empty() && !part.contains(is_odd);
    match text.split_once('@') {
        Some((local, domain)) if is_part(local) && is_part(domain) && text.len() <= 254 && is_visible(text) => {
            Ok(text.to_owned())
        }
        _ => Err("must be one e-mail address, such as ada@example.com, of at most 254 bytes".into()),
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
            ("/traveller/name", json!("\u{200b}")),
            ("/traveller/name", json!("Ada\u{202e}ecalevoL")),
            ("/traveller/name", json!("...")),
            ("/traveller/email", json!("ada@example.com,bob@example.com")),
            ("/traveller/email", json!("Ada <ada@example.com>")),
            ("/traveller/email", json!("ada@bob@example.com")),
            ("/traveller/email", json!("a\u{200b}da@example.com")),
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

    /// One of each script in which people write their names, and what is hard about some.
    const NAMES: &[&str] = &[
        "Ada Lovelace",
        "O",
        "Jean-Luc d'Orléans",
        "Anna-Lena Groß",
        "Nguye\u{302}\u{303}n Thi\u{323} Minh",
        "Þórunn Ægisdóttir",
        "Şule Yıldız",
        "Keoni Kealiʻikuaʻāina",
        "X Æ A-12",
        "Martin Luther King, Jr.",
        "Gal·la Placídia",
        "ǃXóõ ǂKhomani",
        "Ọlá Ṣẹ́gun",
        "Ελένη Παπαδοπούλου",
        "Дмитрий Шостакович",
        "Ґалаґан Їжакевич",
        "Արամ Խաչատրյան",
        "ქეთევან წამებული",
        "דוד בן־גוריון",
        "שָׁלוֹם עֲלֵיכֶם",
        "ז'בוטינסקי ג׳ורג׳",
        "محمد بن عبد الله",
        "مُحَمَّد",
        "نرگس\u{200c}سادات حسینی",
        "علی\u{200c}رضا می\u{200c}بدی",
        "ܐܦܪܝܡ ܣܘܪܝܝܐ",
        "އަހްމަދު",
        "ߒߞߏ ߛߟߏߡߣߊ",
        "አበበ ቢቂላ",
        "ᏎᏉᏯ",
        "रामप्रसाद शर्मा",
        "लक्\u{200d}ष्मी",
        "রবীন্দ্রনাথ ঠাকুর",
        "র\u{200d}্যাফেল",
        "ਗੁਰਪ੍ਰੀਤ ਸਿੰਘ",
        "ગાંધી",
        "ଜଗନ୍ନାଥ",
        "சுப்பிரமணிய பாரதி",
        "రామకృష్ణ",
        "ಕುವೆಂಪು",
        "മോഹന്\u{200d}ലാല്\u{200d}",
        "ශ්\u{200d}රී චන්ද්\u{200d}රිකා",
        "สมชาย ใจดี",
        "ສົມສະຫວາດ",
        "သန်းရွှေ",
        "នរោត្ដម សីហនុ",
        "བསྟན་འཛིན་རྒྱ་མཚོ",
        "ᠴᠢᠩᠭᠢᠰ",
        "ᠰᠠᠷ\u{180e}ᠠ",
        "毛泽东",
        "山田\u{3000}太郎",
        "葛\u{e0100}城 渡邉",
        "ヤマダ・タロウ",
        "ジョン＝スミス",
        "さくら",
        "김정희",
        "\u{1112}\u{1161}\u{11ab}나",
        "歐陽\u{20021}",
        "ꋊꇙ ꀋꉬ",
        "𞤀𞤣𞤤𞤢𞤥",
        "ⵎⵓⵃⵎⵎⴷ",
        "ᱥᱟᱱᱛᱟᱲ",
    ];

    #[test]
    fn names_of_real_people_pass_in_every_script() {
        for name in NAMES {
            assert!(BookingRequest::read(&with("/traveller/name", *name), TODAY).is_ok(), "{name:?}");
        }
        for address in ["ada@example.com", "o'hara+trips@bücher.example", "用户@例子.公司", "x@localhost", "a.b..c@d"]
        {
            assert!(BookingRequest::read(&with("/traveller/email", address), TODAY).is_ok(), "{address:?}");
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

    /// Characters of these classes that names and addresses may have.
    fn visible(classes: &str) -> impl Strategy<Value = char> {
        let any = prop::string::string_regex(classes).unwrap().prop_filter("hidden", |one| is_visible(one));
        any.prop_map(|one| one.chars().next().unwrap())
    }

    fn text(of: impl Strategy<Value = char>, length: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = String> {
        prop::collection::vec(of, length).prop_map(|chars| chars.into_iter().collect())
    }

    const SEEN: &str = "[\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Zs}]";

    fn person() -> impl Strategy<Value = String> {
        let some = |most| text(visible(SEEN), 0..=most);
        (some(49), text(visible("\\p{L}"), 1..=1), some(50)).prop_map(|(a, letter, b)| a + &letter + &b)
    }

    fn address() -> impl Strategy<Value = String> {
        let seen = || visible(SEEN).prop_filter("no part", |c| !c.is_whitespace() && !SPECIALS.contains(*c));
        let international = (text(seen(), 1..=30), text(seen(), 1..=30));
        prop_oneof![international, ("[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,200}", "[a-z.]{1,53}")]
            .prop_map(|(local, domain)| format!("{local}@{domain}"))
    }

    /// Any first day of a trip, those at the ends of months, years and times more often.
    fn day() -> impl Strategy<Value = Date> {
        let ends = [date(2028, 2, 29), date(2027, 2, 28), date(2100, 2, 28), date(2027, 12, 31), date(10, 1, 1)];
        let any_day = (0..3_640_000i32).prop_map(|days| date(10, 1, 1).saturating_add(days.days()));
        prop_oneof![prop::sample::select(ends.to_vec()), any_day]
    }

    fn dates(least: i32) -> impl Strategy<Value = (Date, Date)> {
        (day(), prop_oneof![Just(least), Just(MOST_DAYS), least..=MOST_DAYS])
            .prop_map(|(first, days)| (first, first.saturating_add(days.days())))
    }

    /// Any request that keeps every rule, and a day on which it does.
    fn valid() -> impl Strategy<Value = (Value, Date)> {
        let variant = prop::sample::select(Variant::ALL.to_vec());
        let flight = ("[A-Z0-9]{2}[0-9]{1,4}", day(), 1..=MOST_UNITS);
        let hotel = ("[a-z0-9-]{1,64}", dates(1), 1..=MOST_UNITS);
        let car = ("[a-z0-9-]{1,64}", "[a-z0-9-]{1,64}", dates(0));
        let ahead = prop_oneof![Just(0), 0..3_000i32];
        (variant, (person(), address()), flight, hotel, car, "[!-~]{1,255}", ahead).prop_map(
            |(variant, (name, email), (flight_no, date, seats), hotel, (station_id, category, car), token, ahead)| {
                let (hotel_id, (check_in, check_out), rooms) = hotel;
                let (pick_up, drop_off) = car;
                let body = json!({
                    "variant": variant,
                    "traveller": {"name": name, "email": email},
                    "flight": {"flight_no": flight_no, "date": date, "seats": seats},
                    "hotel": {"hotel_id": hotel_id, "check_in": check_in, "check_out": check_out, "rooms": rooms},
                    "car": {"station_id": station_id, "category": category, "pick_up": pick_up, "drop_off": drop_off},
                    "payment": {"token": token}
                });
                (body, date.min(check_in).min(pick_up).saturating_sub(ahead.days()))
            },
        )
    }

    /// For each field: everything that breaks a rule of its own, and no rule of another field.
    fn wrong() -> Vec<(&'static str, BoxedStrategy<Value>)> {
        let no_text = || {
            let others = vec![json!(null), json!(true), json!(0), json!(-1.5), json!([]), json!(["a"]), json!({})];
            prop::sample::select(others).boxed()
        };
        let pattern = |regex: &'static str| regex.prop_map(Value::from).boxed();
        let any_of = |all: Vec<BoxedStrategy<Value>>| prop::strategy::Union::new(all).boxed();
        let no_count = || {
            let odd = vec![json!(0), json!(-1), json!(1.0), json!(1e300), json!("1"), json!(null), json!([1])];
            let large = u64::from(MOST_UNITS) + 1..=u64::MAX;
            any_of(vec![prop::sample::select(odd).boxed(), large.prop_map(Value::from).boxed()])
        };
        let no_date = || {
            let odd = "2027-02-29 2100-02-29 2027-13-01 2027-00-10 2027-03-32 2027-3-1 20270301 27-03-01 +002027-03-01 \
                       -002027-03-01 10000-01-01 2027-03-01T00:00 2027-03-01Z 2027-W09-1";
            let odd: Vec<_> = odd.split(' ').filter(|odd| !odd.is_empty()).map(Value::from).collect();
            any_of(vec![no_text(), prop::sample::select(odd).boxed(), pattern("[0-9-]{0,9}"), pattern("\\PC{11,20}")])
        };
        // One character that is not allowed among those that are; nothing; one too many.
        let no_name = || {
            any_of(vec![no_text(), pattern("[a-z0-9-]{0,31}[^a-z0-9-][a-z0-9-]{0,31}"), pattern("[a-z0-9-]{65,80}|")])
        };
        let odd = "[\u{0}-\u{1f}\u{7f}-\u{9f}\u{ad}\u{61c}\u{200b}\u{200e}\u{2028}-\u{202e}\u{2060}-\u{206f}\u{3164}\u{e000}\u{feff}\u{fffd}]";
        vec![
            ("/variant", any_of(vec![no_text(), pattern("[a-z]{0,11}"), pattern(" ?Orchestrated|choreographed ")])),
            (
                "/traveller/name",
                any_of(vec![
                    no_text(),
                    pattern("\\s{0,100}"),
                    pattern("[0-9. '-]{1,100}"),
                    pattern("[a-zé]{101,120}"),
                    (person(), odd, person()).prop_map(|(a, odd, b)| Value::from(a + &odd + &b)).boxed(),
                ]),
            ),
            (
                "/traveller/email",
                any_of(vec![
                    no_text(),
                    pattern("[a-zé.]{0,20}"),
                    pattern("@[a-z]{0,9}"),
                    pattern("[a-z]{0,9}@"),
                    pattern("[a-z@]{127}@[a-z]{127,150}"),
                    pattern("[a-z]{1,9}@[a-z.]{1,9}[,;][a-z]{1,9}@[a-z]{1,9}"),
                    pattern("[a-z]{0,9}[,;:<(\\[\"\\\\@][a-z]{0,9}@[a-z]{1,9}[>)\\]\"]?"),
                    pattern("[a-z]{1,9}[\\s\u{85}\u{a0}\u{3000}]@[a-z]{1,9}"),
                    ("[a-z]{1,9}", odd).prop_map(|(a, odd)| Value::from(format!("{a}@{odd}{a}"))).boxed(),
                ]),
            ),
            (
                "/flight/flight_no",
                any_of(vec![
                    no_text(),
                    pattern("[A-Z0-9]{0,2}"),
                    pattern("[A-Z0-9]{2}[0-9]{5,9}"),
                    pattern("[A-Z]{3}[0-9]{1,3}"),
                    pattern("[a-z][A-Z][0-9]{1,4}"),
                    pattern("[A-Z]{2} [0-9]{1,3}"),
                    pattern("[A-Z]{2}[٠-٩]"),
                    pattern("[A-Z]{2}[0-9]{1,3}[\n A-Z]"),
                ]),
            ),
            ("/flight/date", no_date()),
            ("/flight/seats", no_count()),
            ("/hotel/hotel_id", no_name()),
            ("/hotel/check_in", no_date()),
            ("/hotel/check_out", no_date()),
            ("/hotel/rooms", no_count()),
            ("/car/station_id", no_name()),
            ("/car/category", no_name()),
            ("/car/pick_up", no_date()),
            ("/car/drop_off", no_date()),
            (
                "/payment/token",
                any_of(vec![no_text(), pattern("[!-~]{256,300}|"), pattern("[!-~]{0,100}[^!-~][!-~]{0,100}")]),
            ),
        ]
    }

    /// The rules on how dates follow each other and today, each with a way to break it by so many days.
    type Late = fn(&mut Value, Date, i32);
    const MISPLACED: [(&str, Late); 7] = [
        ("/flight/date", |body, today, n| body["flight"]["date"] = after(today, -1 - n)),
        ("/hotel/check_in", |body, today, n| {
            (body["hotel"]["check_in"], body["hotel"]["check_out"]) = (after(today, -1 - n), after(today, -n));
        }),
        ("/hotel/check_out", |body, _, n| body["hotel"]["check_out"] = after(date_in(&body["hotel"]["check_in"]), -n)),
        ("/hotel/check_out", |body, _, n| {
            body["hotel"]["check_out"] = after(date_in(&body["hotel"]["check_in"]), MOST_DAYS + 1 + n);
        }),
        ("/car/pick_up", |body, today, n| {
            (body["car"]["pick_up"], body["car"]["drop_off"]) = (after(today, -1 - n), after(today, -1 - n));
        }),
        ("/car/drop_off", |body, _, n| body["car"]["drop_off"] = after(date_in(&body["car"]["pick_up"]), -1 - n)),
        ("/car/drop_off", |body, _, n| {
            body["car"]["drop_off"] = after(date_in(&body["car"]["pick_up"]), MOST_DAYS + 1 + n);
        }),
    ];

    fn after(date: Date, days: i32) -> Value {
        json!(date.saturating_add(days.days()))
    }

    fn date_in(value: &Value) -> Date {
        value.as_str().unwrap().parse().unwrap()
    }

    fn violated(body: &Value, today: Date) -> Vec<String> {
        let violations = BookingRequest::read(body, today).err().unwrap_or_default();
        violations.into_iter().map(|violation| violation.pointer).collect()
    }

    /// Holds a rule against many requests that keep all the others.
    fn holds<T: std::fmt::Debug>(wrong: impl Strategy<Value = T>, pointer: &str, breaks: impl Fn(&mut Value, Date, T)) {
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(100));
        let held = runner.run(&(valid(), wrong), |((mut body, today), wrong)| {
            breaks(&mut body, today, wrong);
            prop_assert_eq!(violated(&body, today), [pointer], "{}", body);
            Ok(())
        });
        held.unwrap_or_else(|error| panic!("{pointer}: {error}"));
    }

    #[test]
    fn none_that_breaks_a_rule_is_accepted_and_that_rule_alone_is_pointed_at() {
        for (pointer, wrong) in wrong() {
            holds(wrong, pointer, |body, _, wrong| *body.pointer_mut(pointer).unwrap() = wrong);
        }
        for (pointer, misplace) in MISPLACED {
            holds(0..400i32, pointer, misplace);
        }
        let body = body();
        let objects = body.as_object().unwrap().iter().filter(|(_, value)| value.is_object());
        let objects: Vec<_> = objects.map(|(name, _)| format!("/{name}")).chain([String::new()]).collect();
        for object in objects {
            let no_object = vec![json!(null), json!([]), json!("{}"), json!(1), json!(false), json!([{}])];
            holds(prop::sample::select(no_object), &object, |body, _, other| {
                *body.pointer_mut(&object).unwrap() = other
            });
            holds(Just(()), &format!("{object}/more"), |body, _, ()| {
                body.pointer_mut(&object).unwrap()["more"] = json!(1)
            });
            for name in body.pointer(&object).unwrap().as_object().unwrap().keys() {
                holds(Just(()), &format!("{object}/{name}"), |body, _, ()| {
                    drop(body.pointer_mut(&object).unwrap().as_object_mut().unwrap().remove(name));
                });
            }
        }
    }

    #[test]
    fn every_field_has_rules_that_can_be_broken() {
        let body = body();
        let fields = body.as_object().unwrap().iter().flat_map(|(name, value)| match value {
            Value::Object(fields) => fields.keys().map(|field| format!("/{name}/{field}")).collect(),
            _ => vec![format!("/{name}")],
        });
        let broken: std::collections::BTreeSet<_> =
            wrong().into_iter().map(|(pointer, _)| pointer.to_owned()).collect();
        assert_eq!(fields.collect::<std::collections::BTreeSet<_>>(), broken);
    }

    proptest! {
        /// No valid request is refused on a day on which it is valid, and its legs need one line for each date that they span.
        #[test]
        fn valid_requests_are_read((body, today) in valid()) {
            let request = BookingRequest::read(&body, today);
            prop_assert!(request.is_ok(), "{:?} {}", request, body);
            let request = request.unwrap();
            let trip = request.trip;
            let span = |leg: &str, from, to| days(date_in(&body[leg][from]), date_in(&body[leg][to]));
            prop_assert_eq!(trip.leg(Leg::Hotel).lines().len() as i32, span("hotel", "check_in", "check_out"));
            prop_assert_eq!(trip.leg(Leg::Car).lines().len() as i32, span("car", "pick_up", "drop_off").max(1));
            for leg in Leg::ALL {
                prop_assert_eq!(json!(trip.leg(leg)), body[leg.name()].clone());
            }
            prop_assert_eq!(json!(request.traveller), body["traveller"].clone());
            prop_assert_eq!(request.token.reveal(), body["payment"]["token"].as_str().unwrap());
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
