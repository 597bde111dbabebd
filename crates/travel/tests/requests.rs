//! What the API reads as a request for a trip, and what it refuses.

#![allow(clippy::unwrap_used)] // in a test, to panic is to fail

use jiff::civil::date;
use jiff::{ToSpan, civil::Date};
use proptest::prelude::*;
use saga::{Catalogue, Parts, StockLine, Variant, reservation::quote, text::is_visible};
use serde_json::{Value, json};
use travel::{CAR, FLIGHT, HOTEL, MAX_DAYS, MAX_UNITS, TRAVEL, part_type};

/// What an address cannot have in its parts: the `specials` of RFC 5322, section 3.2.3, but for the dot.
const SPECIALS: &str = "()<>[]:;@\\,\"";

fn lines(parts: &Parts, part: &saga::PartType) -> Vec<StockLine> {
    part.request(&parts.get(part.name).unwrap().contents).unwrap().lines()
}

fn days(first: Date, last: Date) -> i32 {
    first.until(last).unwrap().get_days()
}

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
    TRAVEL.read(body, TODAY).unwrap_err().into_iter().map(|v| v.pointer).collect()
}

fn with(pointer: &str, value: impl Into<Value>) -> Value {
    let mut body = body();
    *body.pointer_mut(pointer).unwrap() = value.into();
    body
}

#[test]
fn the_request_of_the_contract_is_read() {
    let request = TRAVEL.read(&body(), TODAY).unwrap();
    let line = |product: &str, day, units| StockLine { product: product.into(), date: Some(date(2027, 3, day)), units };
    assert_eq!(lines(&request.parts, &FLIGHT), [line("LH400", 1, 2)]);
    assert_eq!(lines(&request.parts, &HOTEL).len(), 3);
    assert_eq!(lines(&request.parts, &CAR)[2], line("jfk#compact", 3, 1));
    assert_eq!(request.last_day, Some(date(2027, 3, 4)));
    let catalogue = Catalogue::read(FLIGHT.price_list).unwrap();
    let unit_price = catalogue.unit_price("LH400").unwrap();
    let quote = quote(&FLIGHT, &catalogue, &body()["flight"]).unwrap();
    assert_eq!(quote.price.payable(), Some(unit_price.times(2).unwrap()));
}

#[test]
fn a_trip_has_the_parts_that_are_asked_for_and_at_least_one() {
    let names: Vec<_> = travel::part_names();
    for asked in 0..1_usize << names.len() {
        let mut body = body();
        for (_, name) in names.iter().enumerate().filter(|(at, _)| asked >> at & 1 == 0) {
            body.as_object_mut().unwrap().remove(name.as_str());
        }
        for (_, name) in names.iter().enumerate().filter(|(at, _)| asked >> at & 1 == 1) {
            body[name.as_str()] = (part_type(*name).unwrap().example)(date(2027, 3, 1), 3);
        }
        match TRAVEL.read(&body, TODAY) {
            Ok(request) => {
                assert_eq!(request.parts.names().len(), asked.count_ones() as usize);
                assert!(request.last_day.is_some());
            }
            Err(violations) => {
                assert_eq!((asked, violations.len(), violations[0].pointer.as_str()), (0, 1, ""), "{violations:?}");
                assert!(violations[0].detail.starts_with("must have at least one of flight, hotel, car"));
            }
        }
    }
}

#[test]
fn there_is_something_to_sell() {
    for part in TRAVEL.parts {
        let catalogue = Catalogue::read(part.price_list).unwrap();
        assert!(catalogue.offers().count() >= 2, "{part:?}");
        let example = (part.example)(date(2027, 3, 1), 3);
        let quote = quote(part, &catalogue, &example).unwrap();
        assert!(quote.price.amount > 0, "{part:?}");
        let lines: std::collections::HashSet<_> = quote.lines.iter().map(|line| (&line.product, line.date)).collect();
        assert_eq!(lines.len(), quote.lines.len(), "no line twice");
    }
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

#[test]
fn what_is_unknown_or_missing_is_refused() {
    let mut extra = body();
    extra["hotel"]["breakfast"] = json!(true);
    assert_eq!(pointers(&extra), ["/hotel/breakfast"]);
    let mut missing = body();
    missing["car"].as_object_mut().unwrap().remove("category");
    assert_eq!(pointers(&missing), ["/car/category"]);
    missing["car"] = json!(null);
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
    assert!(TRAVEL.read(&with("/flight/date", "2027-01-15"), TODAY).is_ok());
}

#[test]
fn a_car_for_one_day_is_a_day() {
    let request = TRAVEL.read(&with("/car/drop_off", "2027-03-01"), TODAY).unwrap();
    assert_eq!(lines(&request.parts, &CAR).len(), 1);
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
    (day(), prop_oneof![Just(least), Just(MAX_DAYS), least..=MAX_DAYS])
        .prop_map(|(first, days)| (first, first.saturating_add(days.days())))
}

/// Any request that keeps every rule, and a day on which it does.
fn valid() -> impl Strategy<Value = (Value, Date)> {
    let variant = prop::sample::select(Variant::ALL.to_vec());
    let flight = ("[A-Z0-9]{2}[0-9]{1,4}", day(), 1..=MAX_UNITS);
    let hotel = ("[a-z0-9-]{1,64}", dates(1), 1..=MAX_UNITS);
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
        let large = u64::from(MAX_UNITS) + 1..=u64::MAX;
        any_of(vec![prop::sample::select(odd).boxed(), large.prop_map(Value::from).boxed()])
    };
    let no_date = || {
        let odd = "2027-02-29 2100-02-29 2027-13-01 2027-00-10 2027-03-32 2027-3-1 20270301 27-03-01 +002027-03-01 \
                   -002027-03-01 10000-01-01 2027-03-01T00:00 2027-03-01Z 2027-W09-1";
        let odd: Vec<_> = odd.split(' ').filter(|odd| !odd.is_empty()).map(Value::from).collect();
        any_of(vec![no_text(), prop::sample::select(odd).boxed(), pattern("[0-9-]{0,9}"), pattern("\\PC{11,20}")])
    };
    // One character that is not allowed among those that are; nothing; one too many.
    let no_name =
        || any_of(vec![no_text(), pattern("[a-z0-9-]{0,31}[^a-z0-9-][a-z0-9-]{0,31}"), pattern("[a-z0-9-]{65,80}|")]);
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
        body["hotel"]["check_out"] = after(date_in(&body["hotel"]["check_in"]), MAX_DAYS + 1 + n);
    }),
    ("/car/pick_up", |body, today, n| {
        (body["car"]["pick_up"], body["car"]["drop_off"]) = (after(today, -1 - n), after(today, -1 - n));
    }),
    ("/car/drop_off", |body, _, n| body["car"]["drop_off"] = after(date_in(&body["car"]["pick_up"]), -1 - n)),
    ("/car/drop_off", |body, _, n| {
        body["car"]["drop_off"] = after(date_in(&body["car"]["pick_up"]), MAX_DAYS + 1 + n);
    }),
];

fn after(date: Date, days: i32) -> Value {
    json!(date.saturating_add(days.days()))
}

fn date_in(value: &Value) -> Date {
    value.as_str().unwrap().parse().unwrap()
}

fn violated(body: &Value, today: Date) -> Vec<String> {
    let violations = TRAVEL.read(body, today).err().unwrap_or_default();
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
        holds(prop::sample::select(no_object), &object, |body, _, other| *body.pointer_mut(&object).unwrap() = other);
        holds(Just(()), &format!("{object}/more"), |body, _, ()| body.pointer_mut(&object).unwrap()["more"] = json!(1));
        // A part may be left out.
        let is_optional =
            |name: &&String| object.is_empty() && TRAVEL.parts.iter().any(|part| part.name.as_str() == **name);
        for name in body.pointer(&object).unwrap().as_object().unwrap().keys().filter(|name| !is_optional(name)) {
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
    let broken: std::collections::BTreeSet<_> = wrong().into_iter().map(|(pointer, _)| pointer.to_owned()).collect();
    assert_eq!(fields.collect::<std::collections::BTreeSet<_>>(), broken);
}

proptest! {
    /// No valid request is refused on a day on which it is valid, and its parts need one line for each date that they span.
    #[test]
    fn valid_requests_are_read((body, today) in valid()) {
        let request = TRAVEL.read(&body, today);
        prop_assert!(request.is_ok(), "{:?} {}", request, body);
        let request = request.unwrap();
        let span = |part: &str, from, to| days(date_in(&body[part][from]), date_in(&body[part][to]));
        let lines = |part| lines(&request.parts, part).len() as i32;
        prop_assert_eq!(lines(&HOTEL), span("hotel", "check_in", "check_out"));
        prop_assert_eq!(lines(&CAR), span("car", "pick_up", "drop_off").max(1));
        for (name, contents) in request.parts.iter() {
            prop_assert_eq!(contents, &body[name.as_str()]);
        }
        prop_assert_eq!(json!(request.customer), body["traveller"].clone());
        prop_assert_eq!(request.token.reveal(), body["payment"]["token"].as_str().unwrap());
        let json = serde_json::to_value(&request.parts).unwrap();
        prop_assert_eq!(serde_json::from_value::<Parts>(json).unwrap(), request.parts);
    }

    /// Whatever comes, it is read or refused: no panic.
    #[test]
    fn no_text_panics(text in "\\PC{0,300}", pointer in prop::sample::select(vec![
        "/variant", "/traveller/name", "/traveller/email", "/flight/flight_no", "/flight/date", "/flight/seats",
        "/hotel/hotel_id", "/hotel/check_in", "/hotel/check_out", "/car/pick_up", "/car/drop_off", "/payment/token",
    ])) {
        let _ = TRAVEL.read(&with(pointer, text), TODAY);
    }
}
