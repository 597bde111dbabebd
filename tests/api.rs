//! The whole, through the HTTP API: what a client may send, and what becomes of it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use end_to_end::{DEADLINE, House, choices, date, deployed::sellers, lines, part_of, start, start_with, trip_of};
use harmony::{
    Booking, Client, TripRequest,
    client::{Authorization, fresh_key},
    scenarios,
};
use jiff::{SignedDuration, civil::Date};
use saga::{BookingId, Money, Part, PartType, Participant, PaymentReference, Status, Step, Variant};
use serde_json::{Value, json};
use store::HeaderStore;
use travel::{FLIGHT, HOTEL, TRAVEL, part_names};
use url::Url;

const JSON: (&str, &str) = ("content-type", "application/json");

/// Holds an answer against the API's own description, as the API serves it.
struct Description(Value);

impl Description {
    async fn of(api: &Client) -> Self {
        let answer = api.send("GET", "/openapi.yaml", &[], "").await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers.get("content-type"), Some("application/yaml"));
        Self(serde_yaml_ng::from_str(&answer.body).unwrap())
    }

    /// Panics unless this status and body are described for this operation.
    fn check(&self, path: &str, method: &str, status: u16, body: &str) {
        let described = &self.0["paths"][path][method]["responses"][status.to_string()];
        assert!(!described.is_null(), "{method} {path} {status} is not described");
        let response = match described["$ref"].as_str() {
            Some(reference) => self.0.pointer(&reference[1..]).unwrap(),
            None => described,
        };
        let content = response["content"].as_object().unwrap().values().next().unwrap();
        let mut schema = content["schema"].clone();
        schema["components"] = self.0["components"].clone(); // where its references point to
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        let errors: Vec<_> =
            validator.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{method} {path} {status}: {errors:#?}\n{body:#}");
    }
}

/// A client of the shared stack, and a request for all parts that can be booked on dates of its own, with so many units on
/// sale.
async fn setting(units: u32) -> (House, Client, TripRequest) {
    setting_of(TRAVEL.parts, units).await
}

async fn setting_of(parts: &[PartType], units: u32) -> (House, Client, TripRequest) {
    let house = House::new().await;
    let api = Client::new(&house.stack.api_url).unwrap();
    let request = TripRequest::of(parts, date(), 3);
    house.seed(&trip_of(&request), units).await;
    (house, api, request)
}

/// What is left of each line of a request if it was seeded with so many units, and so many bookings have taken it.
fn left(request: &TripRequest, units: i64, bookings: i64) -> Vec<Vec<i64>> {
    let parts = TRAVEL.parts.iter().filter_map(|part_type| trip_of(request).get(part_type.name));
    parts.map(|part| lines(&part).iter().map(|line| units - bookings * i64::from(line.units)).collect()).collect()
}

async fn book(api: &Client, request: &TripRequest) -> Booking {
    let accepted = api.book_accepted(request, &fresh_key("test")).await.unwrap();
    api.wait_until_final(&accepted.booking_id, DEADLINE).await.unwrap()
}

// --------------------------------------------------------------------------------------------------------- scenarios

#[tokio::test]
async fn every_scenario_of_the_demo_ends_as_it_must_in_both_variants_and_leaves_the_stock_as_it_must() {
    let mut running = tokio::task::JoinSet::new();
    let all = scenarios::ALL.iter().flat_map(|scenario| Variant::ALL.map(|variant| (*scenario, variant)));
    for (scenario, variant) in all {
        running.spawn(async move {
            let name = format!("{}, {}", scenario.name, variant.name());
            let (house, api, free) = setting(5).await;
            let request = scenario.request(free.clone(), variant);
            // The hotel of the demo that is always full. An unknown flight has no stock to look at.
            let mut full = free.clone();
            full.set(HOTEL.name, "hotel_id", "nyc-annex");
            house.seed_part(&part_of(&full, HOTEL.name), 0).await;
            let observed = scenario.run(&api, &request, &fresh_key("scenario"), DEADLINE, |_| ()).await.unwrap();
            scenarios::check(&scenario, &observed).unwrap_or_else(|wrong| panic!("{name}: {wrong:#?}"));
            let description = Description::of(&api).await;
            for answer in &observed.answers {
                description.check("/bookings", "post", answer.status, &answer.body);
            }
            let id = &observed.bookings[0].booking_id;
            let shown = api.send("GET", &format!("/bookings/{id}"), &[], "").await.unwrap();
            description.check("/bookings/{booking_id}", "get", 200, &shown.body);

            let header = house.headers().get(id).await.unwrap().unwrap();
            let reference = PaymentReference::derive(id, &header.request_digest);
            let paid = house.ledger().paid(&reference).await.unwrap().map(|paid| paid.amount);
            if scenario.expected.status == Status::Confirmed {
                assert_eq!(house.left(&request).await, left(&request, 5, 1), "{name}");
                assert_eq!(paid, observed.bookings[0].total, "{name}");
                assert!(paid.is_some());
            } else {
                assert_eq!(house.left(&free).await, left(&free, 5, 0), "{name}");
                assert_eq!(paid, None, "{name}");
            }
            let mut others = free; // the parts that the scenario does without
            others.parts.retain(|name, _| !request.parts.contains_key(name));
            if !others.parts.is_empty() {
                assert_eq!(house.left(&others).await, left(&others, 5, 0), "{name}");
            }
        });
    }
    running.join_all().await;
}

#[tokio::test]
async fn an_express_workflow_does_the_same() {
    let local = start("express", &[("WorkflowType", "EXPRESS")]);
    let house = House::of(local.stack()).await;
    let period = house.reconfigure("reconciler", "MIN_DRIVE_PERIOD_SECONDS", "300").await;
    assert_eq!(period, "300", "no execution is at work when the next one is started");
    let api = Client::new(&house.stack.api_url).unwrap();
    let mut request = TripRequest::of(TRAVEL.parts, date(), 3);
    house.seed(&trip_of(&request), 5).await;
    assert_eq!(book(&api, &request).await.status, Status::Confirmed);
    request.payment.token = "tok_declined".into();
    let booking = book(&api, &request).await;
    assert_eq!(booking.reason.unwrap().step.as_deref(), Some("payment.charge"));
    assert_eq!(house.left(&request).await, left(&request, 5, 1));
}

// ------------------------------------------------------------------------------------------------------------- parts

#[tokio::test]
async fn every_choice_of_parts_is_booked_shown_and_charged_in_both_variants_and_nothing_else_is() {
    let mut running = tokio::task::JoinSet::new();
    let all = choices().into_iter().flat_map(|choice| Variant::ALL.map(|variant| (choice.clone(), variant)));
    for (choice, variant) in all {
        running.spawn(async move {
            let (house, api, request) = setting_of(&choice, 5).await;
            let (request, description) = (TripRequest { variant, ..request }, Description::of(&api).await);
            let what = format!("{choice:?}, {}", variant.name());
            let answer = api.book(&request, &fresh_key("choice")).await.unwrap();
            assert_eq!(answer.status, 202, "{what}: {}", answer.body);
            description.check("/bookings", "post", answer.status, &answer.body);
            let id = answer.accepted().unwrap().booking_id;
            let booking = api.wait_until_final(&id, DEADLINE).await.unwrap();
            assert_eq!(booking.status, Status::Confirmed, "{what}: {booking:#?}");
            assert_eq!(scenarios::contradictions(&booking), Vec::<String>::new(), "{what}");

            // It has the parts that were asked for, and steps of these only.
            let shown = api.send("GET", &format!("/bookings/{id}"), &[], "").await.unwrap();
            description.check("/bookings/{booking_id}", "get", 200, &shown.body);
            let shown: Value = shown.json().unwrap();
            for part_type in TRAVEL.parts {
                let name = part_type.name;
                assert_eq!(shown.get(name.as_str()), request.parts.get(&name), "{what}");
            }
            let names: Vec<_> = choice.iter().map(|part_type| part_type.name).collect();
            let steps: BTreeSet<_> = booking.timeline.iter().map(|entry| Step::named(&entry.step).unwrap()).collect();
            let reserves = names.iter().copied().map(Step::Reserve);
            assert_eq!(steps, reserves.clone().chain([Step::Charge, Step::Confirm]).collect(), "{what}");

            // The sum of their prices is charged, and each line is taken.
            let prices = reserves.map(|step| booking.entry(step).unwrap().money().unwrap().amount);
            let sum = Some(Money::eur(prices.sum()));
            let header = house.headers().get(&id).await.unwrap().unwrap();
            let paid = house.ledger().paid(&PaymentReference::derive(&id, &header.request_digest)).await.unwrap();
            assert_eq!((booking.total, paid.map(|paid| paid.amount)), (sum, sum), "{what}");
            assert_eq!(booking.entry(Step::Charge).unwrap().money(), sum, "{what}");
            assert_eq!(house.left(&request).await, left(&request, 5, 1), "{what}");
        });
    }
    assert_eq!(running.join_all().await.len(), 2 * ((1 << TRAVEL.parts.len()) - 1));
}

#[tokio::test]
async fn whichever_part_of_whichever_choice_is_sold_out_nothing_is_charged_and_nothing_is_left() {
    let mut running = tokio::task::JoinSet::new();
    for choice in choices() {
        for (nth, sold_out) in choice.clone().into_iter().enumerate() {
            let choice = choice.clone();
            running.spawn(async move {
                let (house, api, request) = setting_of(&choice, 5).await;
                let variant = Variant::ALL[(nth + choice.len()) % 2];
                let (request, what) = (TripRequest { variant, ..request }, format!("{sold_out:?} of {choice:?}"));
                house.seed_part(&part_of(&request, sold_out.name), 0).await;
                let before = house.left(&request).await;
                let booking = book(&api, &request).await;
                assert_eq!(booking.status, Status::Failed, "{what}: {booking:#?}");
                assert_eq!(scenarios::contradictions(&booking), Vec::<String>::new(), "{what}");
                let reason = booking.reason.as_ref().unwrap();
                let step = Step::Reserve(sold_out.name).to_string();
                assert_eq!((reason.step.as_deref(), reason.code.as_str()), (Some(step.as_str()), "sold_out"), "{what}");
                assert!(booking.entry(Step::Charge).is_none(), "{what}");
                let parts: Vec<_> = booking.parts().into_iter().map(|(name, _)| name.to_string()).collect();
                assert_eq!(parts.len(), choice.len(), "{what}: {parts:?}");
                assert_eq!(house.left(&request).await, before, "{what}");
                let header = house.headers().get(&booking.booking_id).await.unwrap().unwrap();
                let reference = PaymentReference::derive(&booking.booking_id, &header.request_digest);
                assert_eq!(house.ledger().paid(&reference).await.unwrap(), None, "{what}");
            });
        }
    }
    running.join_all().await;
}

#[tokio::test]
async fn a_trip_has_at_least_one_part_and_none_that_nobody_sells() {
    let (house, api, request) = setting(5).await;
    let description = Description::of(&api).await;
    let send = async |body: &Value| {
        let key = fresh_key("parts");
        let answer = api.send("POST", "/bookings", &[JSON, ("idempotency-key", &key)], body.to_string()).await.unwrap();
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        description.check("/bookings", "post", 400, &answer.body);
        let problem: Value = answer.json().unwrap();
        let of = |error: &Value| ["pointer", "detail"].map(|name| error[name].as_str().unwrap().to_owned());
        problem["errors"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    let mut none = request.to_json();
    none.as_object_mut().unwrap().retain(|name, _| part_names().iter().all(|part| part.as_str() != name));
    let names: Vec<_> = part_names().iter().map(ToString::to_string).collect();
    let at_least_one = ["".to_owned(), format!("must have at least one of {}", names.join(", "))];
    assert_eq!(send(&none).await, [at_least_one.clone()]);

    let unknown = ["/sauna".to_owned(), "is not a field of this object".to_owned()];
    let mut with_sauna = request.to_json();
    with_sauna["sauna"] = json!({"hours": 2});
    assert_eq!(send(&with_sauna).await, [unknown.clone()]);
    none["sauna"] = json!({"hours": 2});
    assert_eq!(send(&none).await, [at_least_one, unknown]);

    // A part is there with contents or not at all, and its contents are not a list of parts.
    for part in part_names() {
        let mut empty = request.to_json();
        empty[part.as_str()] = Value::Null;
        assert_eq!(send(&empty).await, [[format!("/{part}"), "must be an object".to_owned()]]);
    }
    let mut inside = request.to_json();
    inside["parts"] = json!(trip_of(&request));
    assert_eq!(send(&inside).await, [["/parts".to_owned(), "is not a field of this object".to_owned()]]);
    assert_eq!(house.left(&request).await, left(&request, 5, 0));
}

/// With the same key another choice of parts is another request.
#[tokio::test]
async fn a_request_that_comes_again_without_one_of_its_parts_is_refused() {
    let (house, api, request) = setting(5).await;
    let key = fresh_key("fewer");
    let id = api.book_accepted(&request, &key).await.unwrap().booking_id;
    for part in part_names() {
        let mut fewer = request.clone();
        fewer.parts.remove(&part);
        assert_eq!(api.book(&fewer, &key).await.unwrap().status, 422, "{part}");
    }
    assert_eq!(api.wait_until_final(&id, DEADLINE).await.unwrap().status, Status::Confirmed);
    assert_eq!(house.left(&request).await, left(&request, 5, 1));
}

// ------------------------------------------------------------------------------------------------------- idempotency

#[tokio::test]
async fn the_same_request_twenty_times_at_once_is_one_booking() {
    let (house, api, request) = setting(50).await;
    let key = fresh_key("twenty");
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (api, request, key) = (api.clone(), request.clone(), key.clone());
        sending.spawn(async move { api.book(&request, &key).await.unwrap() });
    }
    let answers = sending.join_all().await;
    let ids: BTreeSet<_> = answers.iter().map(|answer| answer.accepted().unwrap().booking_id.to_string()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(answers.iter().filter(|answer| !answer.is_replay()).count(), 1);
    let id = answers[0].accepted().unwrap().booking_id;
    let booking = api.wait_until_final(&id, DEADLINE).await.unwrap();
    assert_eq!(booking.status, Status::Confirmed);
    assert_eq!(house.left(&request).await, left(&request, 50, 1));

    let late = api.book(&request, &key).await.unwrap();
    assert_eq!((late.status, late.is_replay()), (202, true));
    assert_eq!(late.accepted().unwrap().status, Status::Pending);
    let location = late.headers.get("location").unwrap().to_owned();
    assert_eq!(location, format!("bookings/{id}"));

    // As a standard client resolves it, behind a stage here, and whether the path ends with a slash or not.
    let headers = [JSON, ("idempotency-key", key.as_str())];
    let again = api.send("POST", "/bookings/", &headers, request.to_json().to_string()).await.unwrap();
    let below = again.headers.get("location").unwrap();
    for (sent_to, location) in [("/bookings", location.as_str()), ("/bookings/", below)] {
        let sent_to = Url::parse(&format!("{}{sent_to}", api.api_url())).unwrap();
        let found = sent_to.join(location).unwrap().to_string();
        let shown = api.send("GET", found.strip_prefix(api.api_url()).unwrap(), &[], "").await.unwrap();
        assert_eq!(shown.json::<Booking>().unwrap().booking_id, id, "{location} of {sent_to}");
    }
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused_and_changes_nothing() {
    let (house, api, mut request) = setting(5).await;
    let key = fresh_key("other");
    let accepted = api.book_accepted(&request, &key).await.unwrap();
    request.payment.token = "tok_declined".into();
    let answer = api.book(&request, &key).await.unwrap();
    assert_eq!(answer.status, 422);
    Description::of(&api).await.check("/bookings", "post", 422, &answer.body);
    let booking = api.wait_until_final(&accepted.booking_id, DEADLINE).await.unwrap();
    assert_eq!(booking.status, Status::Confirmed);
    assert_eq!(house.left(&request).await, left(&request, 5, 1));
}

#[tokio::test]
async fn the_same_request_written_otherwise_is_the_same_request() {
    let (_, api, request) = setting(5).await;
    let key = fresh_key("written");
    let first = api.book_accepted(&request, &key).await.unwrap();
    let pretty = serde_json::to_string_pretty(&request.to_json()).unwrap();
    let headers = [("content-type", "application/json; charset=utf-8"), ("idempotency-key", key.as_str())];
    for written in [format!("\u{feff}{pretty}"), pretty.replace("\"seats\": 2", "\"seats\": 2.0")] {
        let answer = api.send("POST", "/bookings", &headers, written).await.unwrap();
        assert_eq!(answer.accepted().unwrap().booking_id, first.booking_id);
        assert!(answer.is_replay());
    }
}

#[tokio::test]
async fn what_was_accepted_once_is_not_refused_later() {
    let (house, api, request) = setting(5).await;
    let mut past = request.clone();
    past.set(FLIGHT.name, "date", "2020-01-01");
    let mut unknown_token = request.clone();
    unknown_token.payment.token = "tok_forgotten".into();
    let mut narrow = request.clone();
    narrow.traveller.name = "...".into(); // which no rule forbade when it was recorded
    for (name, accepted) in [("past", past), ("token", unknown_token)] {
        let key = fresh_key(name);
        let id = house.record_only(&accepted, &key, SignedDuration::from_hours(48)).await.booking_id;
        for _ in 0..2 {
            let again = api.book(&accepted, &key).await.unwrap();
            assert_eq!((again.status, again.is_replay()), (202, true), "{name}: {}", again.body);
            house.invoke("reconciler", &json!({})).await;
            assert!(api.wait_until_final(&id, DEADLINE).await.unwrap().status.is_final());
        }
        let other = api.book(&narrow, &key).await.unwrap();
        assert_eq!(other.status, 422, "{name}: {}", other.body);
        let garbage = api.send("POST", "/bookings", &[JSON, ("idempotency-key", key.as_str())], "{").await.unwrap();
        assert_eq!(garbage.status, 400, "what is not JSON is compared with nothing");
        let new = api.book(&accepted, &fresh_key(name)).await.unwrap();
        assert_eq!(new.status, 400, "{name}: {}", new.body);
    }
}

#[tokio::test]
async fn a_booking_that_cannot_be_read_whole_is_not_booked_again_either() {
    let (house, api, request) = setting(5).await;
    let key = fresh_key("unreadable");
    let id = house.record_only(&request, &key, SignedDuration::ZERO).await.booking_id;
    let newer = house
        .client
        .update_item()
        .table_name(house.stack.bookings_table().unwrap())
        .key("booking_id", AttributeValue::S(id.to_string()))
        // Released, so that it would be started; and not in the reconciler's way.
        .update_expression("SET parts = :newer REMOVE claimed_at, open_shard")
        .expression_attribute_values(":newer", AttributeValue::S("{\"train-2\": {}}".into()));
    newer.send().await.unwrap();
    let again = api.book(&request, &key).await.unwrap();
    assert_eq!((again.status, again.is_replay()), (202, true), "{}", again.body);
    let mut other = request.clone();
    other.set(FLIGHT.name, "seats", 1);
    assert_eq!(api.book(&other, &key).await.unwrap().status, 422);
    let sfn = aws_sdk_sfn::Client::new(&house.stack.sdk().await.unwrap());
    let arn = house.stack.state_machine_arn().unwrap().replace(":stateMachine:", ":execution:");
    let execution = sfn.describe_execution().execution_arn(format!("{arn}:{id}")).send().await;
    assert!(execution.is_err(), "nothing is started: {execution:?}");
}

// ---------------------------------------------------------------------------------------------------------- bad input

#[tokio::test]
async fn each_refusal_of_the_contract_is_given_as_described() {
    let (_, api, request) = setting(5).await;
    let description = Description::of(&api).await;
    let key = fresh_key("refused");
    let key = ("idempotency-key", key.as_str());
    let long = "x".repeat(256);
    let good = request.to_json().to_string();
    let with = |pointer: &str, value: Value| {
        let mut body = request.to_json();
        *body.pointer_mut(pointer).unwrap() = value;
        body.to_string().into_bytes()
    };
    let mut not_utf8 = good.clone().into_bytes();
    let name = good.find("Ada").unwrap();
    not_utf8[name] = 0xff;
    let twice = good.replacen('{', "{\"payment\": {\"token\": \"tok_declined\"}, ", 1).into_bytes();
    let token_twice = good.replace("\"tok_visa\"", "\"tok_visa\", \"token\": \"\", \"token/\": 1").into_bytes();
    let (too_long, padding) = (16 * 1024 + 1, good.len());
    let padded = |size: usize| format!("{good}{}", " ".repeat(size - padding)).into_bytes();

    type Case<'a> = (&'a str, u16, Vec<(&'static str, &'a str)>, Vec<u8>, &'a [&'a str]);
    let cases: Vec<Case<'_>> = vec![
        ("no key", 400, vec![JSON], good.clone().into_bytes(), &[""]),
        ("empty key", 400, vec![JSON, ("idempotency-key", "")], good.clone().into_bytes(), &[""]),
        ("long key", 400, vec![JSON, ("idempotency-key", &long)], good.clone().into_bytes(), &[""]),
        ("key with a space", 400, vec![JSON, ("idempotency-key", "a b")], good.clone().into_bytes(), &[""]),
        ("no JSON", 400, vec![JSON, key], b"{\"variant\":".to_vec(), &[""]),
        ("nothing", 400, vec![JSON, key], vec![], &[""]),
        ("no object", 400, vec![JSON, key], b"[]".to_vec(), &[""]),
        ("not UTF-8", 400, vec![JSON, key], not_utf8, &[""]),
        ("deeply nested", 400, vec![JSON, key], "[".repeat(10_000).into_bytes(), &[""]),
        ("unknown variant", 400, vec![JSON, key], with("/variant", json!("danced")), &["/variant"]),
        ("past", 400, vec![JSON, key], with("/flight/date", json!("2020-01-01")), &["/flight/date"]),
        (
            "no night",
            400,
            vec![JSON, key],
            with("/hotel/check_out", request.field(HOTEL.name, "check_in").clone()),
            &["/hotel/check_out"],
        ),
        ("no seat", 400, vec![JSON, key], with("/flight/seats", json!(0)), &["/flight/seats"]),
        ("minus one", 400, vec![JSON, key], with("/hotel/rooms", json!(-1)), &["/hotel/rooms"]),
        ("long name", 400, vec![JSON, key], with("/traveller/name", json!(long)), &["/traveller/name"]),
        (
            "unknown field",
            400,
            vec![JSON, key],
            with("/car", json!({"wheels": 4})),
            &["/car/station_id", "/car/category", "/car/pick_up", "/car/drop_off", "/car/wheels"],
        ),
        ("payment twice", 400, vec![JSON, key], twice, &["/payment"]),
        ("token twice", 400, vec![JSON], token_twice, &["", "/payment/token", "/payment/token~1"]),
        ("unseen name", 400, vec![JSON, key], with("/traveller/name", json!("\u{200b}")), &["/traveller/name"]),
        ("two addresses", 400, vec![JSON, key], with("/traveller/email", json!("a@b.c,d@e.f")), &["/traveller/email"]),
        ("unknown token", 400, vec![JSON, key], with("/payment/token", json!("tok_nobody")), &["/payment/token"]),
        ("all at once", 400, vec![JSON], with("/flight/seats", json!(99)), &["", "/flight/seats"]),
        ("too large", 413, vec![JSON, key], padded(too_long), &[]),
        ("text", 415, vec![("content-type", "text/plain"), key], good.clone().into_bytes(), &[]),
        ("no type", 415, vec![key], good.clone().into_bytes(), &[]),
    ];
    for (name, status, headers, body, pointers) in cases {
        let answer = api.send("POST", "/bookings", &headers, body).await.unwrap();
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
        assert_eq!(answer.headers.get("content-type"), Some("application/problem+json"), "{name}");
        description.check("/bookings", "post", status, &answer.body);
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        let found: Vec<_> = errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect();
        assert_eq!(found, pointers, "{name}");
    }
    let unknown: String = (0..1_900).map(|n| format!("\"{n:x}\":1,")).collect();
    let many =
        api.send("POST", "/bookings", &[JSON, key], good.replacen('{', &format!("{{{unknown}"), 1)).await.unwrap();
    description.check("/bookings", "post", 400, &many.body);
    let problem: Value = many.json().unwrap();
    assert_eq!((problem["errors"].as_array().unwrap().len(), &problem["more_errors"]), (50, &json!(1_850)));

    let longest = api.send("POST", "/bookings", &[JSON, key], padded(too_long - 1)).await.unwrap();
    assert_eq!(longest.status, 202, "16,384 bytes are allowed");

    for id in ["0".repeat(32), "nobody".into()] {
        let answer = api.send("GET", &format!("/bookings/{id}"), &[], "").await.unwrap();
        assert_eq!(answer.status, 404);
        description.check("/bookings/{booking_id}", "get", 404, &answer.body);
    }
}

#[tokio::test]
async fn what_no_function_can_read_is_a_typed_error_that_is_not_retried() {
    let house = House::new().await;
    for name in Participant::of(&sellers()).iter().map(ToString::to_string) {
        for payload in [
            json!({}),
            json!([1]),
            json!("x"),
            json!(null),
            json!({"step": "flight.fly"}),
            json!({
                "step": format!("{name}.reserve"), "booking_id": "../x", "part": {"hotel_id": 1}, "extra": true
            }),
            // As release 0.1 wrote it.
            json!({
                "step": "hotel.reserve", "booking_id": "0".repeat(32), "hotel": trip_of(&TripRequest::default()).get(HOTEL.name).unwrap().contents
            }),
        ] {
            let answer = house.invoke(&name, &payload).await;
            assert_eq!(answer["errorType"], "InvalidInput", "{name} on {payload}: {answer}");
        }
    }
    assert_eq!(house.invoke("api", &json!({"httpMethod": 5})).await["errorType"], "InvalidInput");
}

#[tokio::test]
async fn another_participants_command_is_refused() {
    let house = House::new().await;
    let command = json!({"step": "payment.abort", "booking_id": "0".repeat(32), "payment": {"reference": "0".repeat(32)}, "reason": null});
    for seller in sellers() {
        let of_another = sellers().into_iter().find(|other| *other != seller).unwrap();
        let of_another = json!({"step": Step::Reserve(of_another), "booking_id": "0".repeat(32), "part": {}});
        for command in [&command, &of_another] {
            let answer = house.invoke(seller.as_str(), command).await;
            assert_eq!(answer["errorType"], "InvalidInput");
            assert!(answer["errorMessage"].as_str().unwrap().contains("another participant's"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_charge_that_does_not_name_the_plans_parts_is_refused_and_nothing_is_charged() {
    let house = House::new().await;
    let price = json!({"amount": 100, "currency": "EUR"});
    let id = "f".repeat(32);
    let command = json!({"step": "payment.charge", "booking_id": id, "payment": {"reference": id}});
    for more in [
        json!({"prices": {"flight": price}}),
        json!({"parts": ["flight", "hotel"], "prices": {"flight": price}}),
        json!({"parts": ["flight"], "prices": {"flight": price, "hotel": price}}),
        json!({"parts": ["flight", "hotel"], "prices": {"flight": price, "car": price}}),
        json!({"parts": ["flight", "flight"], "prices": {"flight": price}}),
        json!({"parts": [], "prices": {}}),
    ] {
        let mut command = command.clone();
        command.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = house.invoke("payment", &command).await;
        assert_eq!(answer["errorType"], "InvalidInput", "{command}: {answer}");
    }
    let (entries, _) = house.journal().entries(&BookingId::try_from(id).unwrap()).await.unwrap();
    assert_eq!(entries, []);
}

// ----------------------------------------------------------------------------------------------- nothing is lost

#[tokio::test]
async fn a_crash_between_recording_and_starting_is_mended_by_the_reconciler() {
    let (house, api, request) = setting(5).await;
    let two_days = SignedDuration::from_hours(48);
    let id = house.record_only(&request, &fresh_key("lost"), two_days).await.booking_id;
    let young = house.record_only(&request, &fresh_key("young"), SignedDuration::ZERO).await.booking_id;
    let done = house.invoke("reconciler", &json!({"source": "aws.events"})).await;
    // Another test's run may have been the one that restarted it.
    assert!(!done["restarted"].as_array().unwrap_or_else(|| panic!("{done}")).contains(&json!(young)), "{done}");
    assert_eq!(api.wait_until_final(&id, DEADLINE).await.unwrap().status, Status::Confirmed);
}

#[tokio::test]
async fn an_execution_that_died_is_started_again_under_another_name() {
    let (house, api, request) = setting(5).await;
    let two_days = SignedDuration::from_hours(48);
    let id = house.record_only(&request, &fresh_key("died"), two_days).await.booking_id;
    let sfn = aws_sdk_sfn::Client::new(&house.stack.sdk().await.unwrap());
    let arn = house.stack.state_machine_arn().unwrap();
    // It has the booking's name, comes nowhere without an input, and is stopped.
    let started = sfn.start_execution().state_machine_arn(arn).name(id.as_str()).input("{}").send().await.unwrap();
    sfn.stop_execution().execution_arn(started.execution_arn()).send().await.unwrap();
    let done = house.invoke("reconciler", &json!({})).await;
    assert!(done["stuck"].is_u64(), "{done}");
    assert_eq!(api.wait_until_final(&id, DEADLINE).await.unwrap().status, Status::Confirmed);
}

#[tokio::test]
async fn an_undo_that_cannot_succeed_is_parked_and_the_others_are_undone() {
    let (house, api, request) = setting(5).await;
    let key = fresh_key("parked");
    let id = BookingId::derive("anonymous", &saga::IdempotencyKey::try_from(key.as_str()).unwrap());
    // Somebody has used the booking's id for another stay: neither its reserve nor its cancel can be carried out.
    let other = json!({"hotel_id": "nyc-plaza", "check_in": "2031-01-01", "check_out": "2031-01-02", "rooms": 9});
    house.seller(HOTEL).reserve(&id, &Part { name: HOTEL.name, contents: other }).await.unwrap();

    api.book_accepted(&request, &key).await.unwrap();
    let booking = api.wait_until_final(&id, DEADLINE).await.unwrap();
    assert_eq!(booking.status, Status::NeedsOperator);
    let reason = booking.reason.clone().unwrap();
    assert_eq!((reason.step.as_deref(), reason.code.as_str()), (Some("hotel.cancel"), "parked"));
    for part in part_names().into_iter().filter(|part| *part != HOTEL.name) {
        assert_eq!(booking.entry(Step::Cancel(part)).unwrap().released(), Some(true), "{part}");
    }
    assert!(booking.entry(Step::Cancel(HOTEL.name)).is_none());
    assert_eq!(house.left(&request).await, left(&request, 5, 0));

    let sqs = Client::new(house.stack.endpoint.as_deref().unwrap()).unwrap();
    let receive = [("x-amz-target", "AmazonSQS.ReceiveMessage"), ("content-type", "application/x-amz-json-1.0")];
    let body = json!({"QueueUrl": house.stack.parked_queue_url().unwrap(), "MaxNumberOfMessages": 10});
    let answer = sqs.send("POST", "/", &receive, body.to_string()).await.unwrap();
    let messages: Value = serde_json::from_str(&answer.body).unwrap();
    let bodies: Vec<Value> = messages["Messages"]
        .as_array()
        .unwrap_or_else(|| panic!("nothing is parked: {messages}"))
        .iter()
        .map(|message| serde_json::from_str(message["Body"].as_str().unwrap()).unwrap())
        .collect();
    let parked = bodies.iter().find(|body| body["booking_id"] == json!(id)).unwrap();
    assert_eq!(parked["stuck"], json!([{"step": "hotel.cancel", "error": "InvalidInput"}]));
}

#[tokio::test]
async fn a_reserve_that_comes_after_its_cancel_is_refused_and_the_booking_fails() {
    for part in sellers() {
        let (house, api, request) = setting(5).await;
        let key = fresh_key("late");
        let id = BookingId::derive("anonymous", &saga::IdempotencyKey::try_from(key.as_str()).unwrap());
        let cancel = json!({"step": Step::Cancel(part), "booking_id": id, "part": request.parts[&part]});
        let answer = house.invoke(part.as_str(), &cancel).await;
        assert_eq!((&answer["outcome"], &answer["detail"]), (&json!("cancelled"), &json!({"released": false})));

        api.book_accepted(&request, &key).await.unwrap();
        let booking = api.wait_until_final(&id, DEADLINE).await.unwrap();
        let reason = booking.reason.clone().unwrap();
        let step = Step::Reserve(part).to_string();
        assert_eq!((reason.step.as_deref(), reason.code.as_str()), (Some(step.as_str()), "cancelled"));
        assert_eq!(booking.status, Status::Failed);
        assert_eq!(house.left(&request).await, left(&request, 5, 0));
    }
}

// -------------------------------------------------------------------------------------------------------- who may ask

/// A request to a custom domain with the base path `trips`, as API Gateway hands it to the function once it knows who
/// asks. One header of it is odd, and nobody's business here.
fn asked(by: &Value, method: &str, booking_id: Option<&str>, key: &str, body: &str) -> Value {
    let odd = "Zo\u{eb}\n\u{0}";
    let headers = json!({"content-type": "application/json", "idempotency-key": key, "x-client": odd, "a b": "c"});
    let (path, resource) = match booking_id {
        Some(id) => (format!("/trips/bookings/{id}"), "/bookings/{booking_id}"),
        None => ("/trips/bookings".to_owned(), "/bookings"),
    };
    json!({
        "httpMethod": method, "path": path, "resource": resource, "pathParameters": booking_id.map(|id| json!({"booking_id": id})),
        "headers": headers, "multiValueHeaders": {"x-client": [odd, 1]}, "body": body, "requestContext": by
    })
}

#[tokio::test]
async fn a_booking_is_its_callers_alone() {
    let (house, _, request) = setting(9).await;
    let key = fresh_key("whose");
    let session = |name: &str| json!({"identity": {"userArn": format!("arn:aws:sts::1:assumed-role/shop/{name}")}});
    let (body, mut ids) = (request.to_json().to_string(), BTreeSet::new());
    let cognito = |sub: &str| json!({"authorizer": {"claims": {"sub": sub, "email": "a@b"}}});
    for (one, again, other) in [
        (
            session("monday"),
            session("tuesday"),
            json!({"identity": {"userArn": "arn:aws:sts::1:assumed-role/till/monday"}}),
        ),
        (
            json!({"identity": {"userArn": "arn:aws:iam::1:user/ann"}}),
            json!({"identity": {"userArn": "arn:aws:iam::1:user/ann"}}),
            json!({}),
        ),
        (cognito("1f"), cognito("1f"), cognito("2e")),
        (json!({"authorizer": {"principalId": "ann"}}), json!({"authorizer": {"principalId": "ann"}}), session("ann")),
    ] {
        let accepted = house.invoke("api", &asked(&one, "POST", None, &key, &body)).await;
        assert_eq!(accepted["statusCode"], 202, "{accepted}");
        let id = serde_json::from_str::<Value>(accepted["body"].as_str().unwrap()).unwrap()["booking_id"].clone();
        assert!(ids.insert(id.to_string()), "the same key of another caller is another booking");
        let repeated = house.invoke("api", &asked(&again, "POST", None, &key, &body)).await;
        assert_eq!(repeated["headers"]["idempotency-replayed"], "true", "{repeated}");
        for (who, status) in [(&one, 200), (&again, 200), (&other, 404), (&json!({}), 404)] {
            let shown = house.invoke("api", &asked(who, "GET", id.as_str(), "", "")).await;
            assert_eq!(shown["statusCode"], status, "{who}: {shown}");
        }
        let waited = BookingId::try_from(id.as_str().unwrap().to_owned()).unwrap();
        let deadline = jiff::Timestamp::now() + DEADLINE;
        while house.headers().get(&waited).await.unwrap().unwrap().status == Status::Pending {
            assert!(jiff::Timestamp::now() < deadline);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn with_iam_only_signed_requests_get_in() {
    // Without AUTH=true the local AWS would let everybody in.
    let local = start_with(
        "iam",
        &[("Authorization", "AWS_IAM"), ("CorsOrigin", "https://trips.example.com")],
        &[("AUTH", "true")],
    );
    let house = House::of(local.stack()).await;
    let api = Client::new(&house.stack.api_url).unwrap();
    let request = TripRequest::on(date());
    house.seed(&trip_of(&request), 5).await;
    let refused = api.book(&request, &fresh_key("iam")).await.unwrap();
    assert_eq!(refused.status, 403, "{}", refused.body);
    assert_eq!(refused.headers.get("content-type"), Some("application/problem+json"));
    assert_eq!(refused.headers.get("access-control-allow-origin"), Some("https://trips.example.com"));
    let problem: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!((&problem["type"], problem["title"].is_string()), (&json!("about:blank"), true), "{problem}");
    Description::of(&api).await; // which anyone may read

    let sdk = Box::new(house.stack.sdk().await.unwrap());
    let signed = api.clone().with(Authorization::Signature { sdk, service: "execute-api" });
    let booking = book(&signed, &request).await;
    assert_eq!(booking.status, Status::Confirmed);
    assert_eq!(api.send("GET", &format!("/bookings/{}", booking.booking_id), &[], "").await.unwrap().status, 403);
    let preflight = [("origin", "https://trips.example.com"), ("access-control-request-method", "POST")];
    let answer = api.send("OPTIONS", "/bookings", &preflight, "").await.unwrap();
    assert_eq!(answer.status, 204, "a browser asks without credentials: {}", answer.body);
}

#[tokio::test]
async fn pages_of_one_origin_may_call_the_api_and_others_only_if_all_may() {
    let (_, without, _) = setting(1).await;
    assert_eq!(without.send("OPTIONS", "/bookings", &[], "").await.unwrap().status, 404);
    let description = without.send("GET", "/openapi.yaml", &[], "").await.unwrap();
    assert_eq!(description.headers.get("access-control-allow-origin"), None);

    let local = start("cors", &[("CorsOrigin", "https://trips.example.com")]);
    let api = Client::new(&local.stack().api_url).unwrap();
    let id = "0123456789abcdef0123456789abcdef";
    for path in ["/bookings".to_owned(), format!("/bookings/{id}")] {
        let preflight =
            [("origin", "https://trips.example.com"), ("access-control-request-headers", "idempotency-key")];
        let answer = api.send("OPTIONS", &path, &preflight, "").await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
        assert_eq!(answer.headers.get("access-control-allow-origin"), Some("https://trips.example.com"));
        for (name, of) in [("methods", "POST"), ("headers", "Idempotency-Key"), ("headers", "Authorization")] {
            let allowed = answer.headers.get(format!("access-control-allow-{name}")).unwrap();
            assert!(allowed.split(", ").any(|each| each == of), "{name}: {allowed}");
        }
    }
    let unknown = api.send("GET", &format!("/bookings/{id}"), &[], "").await.unwrap();
    assert_eq!((unknown.status, unknown.headers.get("vary")), (404, Some("Origin")));
    let exposed = unknown.headers.get("access-control-expose-headers").unwrap();
    assert!(exposed.contains("Idempotency-Replayed"), "{exposed}");
}

// ------------------------------------------------------------------------------------------------------ what is kept

#[tokio::test]
async fn neither_token_nor_traveller_is_found_where_it_has_no_business() {
    let local = start("secrets", &[]);
    let house = House::of(local.stack()).await;
    let api = Client::new(&house.stack.api_url).unwrap();
    let mut request = TripRequest::of(TRAVEL.parts, date(), 3);
    house.seed(&trip_of(&request), 5).await;
    request.traveller.name = "Zaphod Secretive".into();
    request.traveller.email = "zaphod@secretive.example".into();
    for token in ["tok_visa", "tok_declined", "tok_flaky"] {
        request.payment.token = token.into();
        assert!(book(&api, &request).await.status.is_final());
    }
    let stack = &house.stack;
    let travellers = stack.customers_table().unwrap();
    let mut tables = vec![stack.payments_table().unwrap(), stack.provider_ledger_table().unwrap(), travellers];
    tables.push(stack.bookings_table().unwrap());
    tables.push(stack.journal_table().unwrap());
    tables.extend(sellers().into_iter().map(|part| stack.stock_table(part).unwrap()));
    for table in tables {
        let items = format!("{:?}", house.client.scan().table_name(table).send().await.unwrap().items());
        assert!(!items.contains("tok_"), "{table}: {items}");
        assert_eq!(items.contains("ecretive"), table == travellers, "{table}: {items}");
    }
    // Who travels is deleted a month after the trip.
    let kept = house.client.scan().table_name(travellers).send().await.unwrap();
    let read = TRAVEL.read(&request.to_json(), Date::MIN).unwrap();
    let last_day = request.first_day().saturating_add(jiff::Span::new().days(3));
    assert_eq!(read.last_day, Some(last_day));
    let until =
        last_day.saturating_add(jiff::Span::new().days(30)).to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
    assert_eq!(kept.items().len(), 3);
    for item in kept.items() {
        assert_eq!(item["expiration"].as_n().unwrap(), &until.as_second().to_string());
    }
    let forget =
        house.client.delete_item().table_name(travellers).key("booking_id", kept.items()[0]["booking_id"].clone());
    forget.send().await.unwrap();
    let id = BookingId::try_from(kept.items()[0]["booking_id"].as_s().unwrap().clone()).unwrap();
    let shown = api.send("GET", &format!("/bookings/{id}"), &[], "").await.unwrap();
    Description::of(&api).await.check("/bookings/{booking_id}", "get", 200, &shown.body);
    assert_eq!(api.show(&id).await.unwrap().traveller, None);
    // Asked without the SDK, which hides what may be secret.
    let aws = Client::new(stack.endpoint.as_deref().unwrap()).unwrap();
    let states = async |operation: &str, body: Value| {
        let target = format!("AWSStepFunctions.{operation}");
        let headers = [("x-amz-target", target.as_str()), ("content-type", "application/x-amz-json-1.0")];
        aws.send("POST", "/", &headers, body.to_string()).await.unwrap().body
    };
    let machine = json!({"stateMachineArn": stack.state_machine_arn().unwrap()});
    let executions: Value = serde_json::from_str(&states("ListExecutions", machine).await).unwrap();
    let executions = executions["executions"].as_array().unwrap();
    assert_eq!(executions.len(), 3);
    for execution in executions {
        let arn = json!({"executionArn": execution["executionArn"]});
        for operation in ["DescribeExecution", "GetExecutionHistory"] {
            let all = states(operation, arn.clone()).await;
            assert!(all.contains("parts") && all.contains("flight_no"), "{all}");
            assert!(!all.contains("tok_") && !all.contains("ecretive"), "{all}");
        }
    }
    let mut seen = 0;
    let functions = Participant::of(&sellers()).into_iter().map(|participant| participant.to_string());
    for name in functions.chain(["api".to_owned()]) {
        let headers =
            [("x-amz-target", "Logs_20140328.FilterLogEvents"), ("content-type", "application/x-amz-json-1.1")];
        let group = json!({"logGroupName": format!("/aws/lambda/secrets-{name}")});
        let log = aws.send("POST", "/", &headers, group.to_string()).await.unwrap().body;
        seen += log.matches("step done").count() + log.matches("booking accepted").count();
        assert!(!log.contains("tok_") && !log.contains("ecretive"), "{name}: {log}");
    }
    // A function's last line may still be on its way.
    assert!(seen > 12, "the log of the functions is not where it is looked for: {seen}");
}
