//! The whole, through the HTTP API: what a client may send, and what becomes of it.

#![allow(clippy::unwrap_used)]

#[path = "api/callers.rs"]
mod callers;
#[path = "api/input.rs"]
mod input;
#[path = "api/parts.rs"]
mod parts;

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use end_to_end::{DEADLINE, House, choices, date, deployed::sellers, lines, part_of, start, start_with, trip_of};
use jiff::{SignedDuration, civil::Date};
use saga::{BookingId, Money, Part, PartType, Participant, PaymentReference, Status, Step, Variant};
use serde_json::{Value, json};
use store::HeaderStore;
use travel::{FLIGHT, HOTEL, TRAVEL, part_names};
use traveller::{
    Booking, Client, TripRequest,
    client::{Authorization, fresh_key},
    scenarios,
};
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
    api.wait_until_settled(&accepted.booking_id, DEADLINE).await.unwrap()
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
    let booking = api.wait_until_settled(&id, DEADLINE).await.unwrap();
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
    let booking = api.wait_until_settled(&accepted.booking_id, DEADLINE).await.unwrap();
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
            assert!(api.wait_until_settled(&id, DEADLINE).await.unwrap().status.is_settled());
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
    assert_eq!(api.wait_until_settled(&id, DEADLINE).await.unwrap().status, Status::Confirmed);
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
    assert_eq!(api.wait_until_settled(&id, DEADLINE).await.unwrap().status, Status::Confirmed);
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
    let booking = api.wait_until_settled(&id, DEADLINE).await.unwrap();
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
        let booking = api.wait_until_settled(&id, DEADLINE).await.unwrap();
        let reason = booking.reason.clone().unwrap();
        let step = Step::Reserve(part).to_string();
        assert_eq!((reason.step.as_deref(), reason.code.as_str()), (Some(step.as_str()), "cancelled"));
        assert_eq!(booking.status, Status::Failed);
        assert_eq!(house.left(&request).await, left(&request, 5, 0));
    }
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
        assert!(book(&api, &request).await.status.is_settled());
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
