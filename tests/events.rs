//! The choreographed variant on the local AWS: what happens when messages come twice, late, in another order or not at
//! all, when steps are given up, and when somebody says garbage.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, time::Duration};

use aws_sdk_dynamodb::types::AttributeValue;
use end_to_end::{DEADLINE, House, Tap, date, event_in, start_with, trip_of};
use jiff::{SignedDuration, Timestamp};
use local_aws::LocalAws;
use saga::{BookingId, Envelope, Event, Leg, Participant, Status, Step, Variant};
use serde_json::{Value, json};
use services::{DeadLetterQueues, DeadLetters};
use store::{Header, HeaderStore};
use traveller::{Booking, Client, TripRequest, client::fresh_key, scenarios::contradictions};

/// A stack of one test's own, for what others would notice.
struct Own {
    _local: LocalAws, // runs as long as this value lives
    house: House,
    api: Client,
}

impl Own {
    async fn called(name: &str) -> Self {
        Self::with(name, &[]).await
    }

    /// With settings of the emulator.
    async fn with(name: &str, env: &[(&str, &str)]) -> Self {
        let local = start_with(name, &[("MaxReceiveCount", "2"), ("PendingMaxAgeSeconds", "86400")], env);
        let house = House::of(local.stack()).await;
        let api = Client::new(&house.stack.api_url).unwrap();
        Self { _local: local, house, api }
    }

    /// A request that can be booked on dates of its own, with five units of everything on sale.
    async fn request(&self) -> TripRequest {
        request(&self.house).await
    }
}

async fn request(house: &House) -> TripRequest {
    let request = TripRequest { variant: Variant::Choreographed, ..TripRequest::on(date()) };
    house.seed(&trip_of(&request), 5).await;
    request
}

async fn shared() -> (House, Client) {
    let house = House::new().await;
    let api = Client::new(&house.stack.api_url).unwrap();
    (house, api)
}

async fn accepted(api: &Client, request: &TripRequest) -> BookingId {
    api.book_accepted(request, &fresh_key("events")).await.unwrap().booking_id
}

/// Waits until this is true of a booking.
async fn until(api: &Client, id: &BookingId, what: &str, is_true: impl Fn(&Booking) -> bool) -> Booking {
    let deadline = Timestamp::now() + DEADLINE;
    loop {
        let booking = api.show(id).await.unwrap();
        if is_true(&booking) {
            return booking;
        }
        assert!(Timestamp::now() < deadline, "not {what}: {booking:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ended(api: &Client, id: &BookingId) -> Booking {
    let booking = until(api, id, "ended", |booking| matches!(booking.status, Status::Confirmed | Status::Failed)).await;
    assert_eq!(contradictions(&booking), Vec::<String>::new());
    booking
}

/// Nobody has anything more to say on a booking: all inboxes are empty, and it does not change any more.
async fn settled(house: &House) {
    let deadline = Timestamp::now() + DEADLINE;
    for queue in ["FlightInbox", "HotelInbox", "CarInbox", "BookingInbox", "StepFailures"] {
        while house.depth(queue).await > 0 {
            assert!(Timestamp::now() < deadline, "{queue} is not emptied");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

const UNTOUCHED: [&[i64]; 3] = [&[5], &[5, 5, 5], &[5, 5, 5]];
const BOOKED: [&[i64]; 3] = [&[3], &[4, 4, 4], &[4, 4, 4]];

fn said(booking: &BookingId, event: Event) -> Value {
    json!(Envelope { booking_id: booking.clone(), event, causation_id: None, time: Timestamp::now(), trace: None })
}

fn requested(header: &Header) -> Value {
    json!(Envelope::requested(header.booking_id.clone(), header.plan(), Timestamp::now(), None))
}

/// What Lambda puts into the queue of failures when a function gives an event up.
fn given_up(house: &House, function: &str, message: &Value) -> Value {
    json!({
        "version": "1.0",
        "timestamp": "2027-01-01T10:00:00.000Z",
        "requestContext": {
            "requestId": "e4b46cbf-b738-4c1b-8880-a18cdf61200e",
            "functionArn": format!("arn:aws:lambda:eu-central-1:000000000000:function:{}:$LATEST", house.function(function)),
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3
        },
        "requestPayload": {"Records": [{
            "EventSource": "aws:sns",
            "EventVersion": "1.0",
            "Sns": {"Type": "Notification", "MessageId": "1", "Message": message.to_string()}
        }]},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": {"errorType": "Runtime.ExitError", "errorMessage": "exited"}
    })
}

// -------------------------------------------------------------------------------------------- steps that are given up

/// Breaks a function's table for as long as it takes until payment has aborted, then mends it.
async fn gives_up(name: &str, function: &str, variable: &str, token: &str, hotel: &str) -> (Own, Booking) {
    let own = Own::called(name).await;
    let mut request = own.request().await;
    (request.payment.token, request.hotel.hotel_id) = (token.into(), hotel.into());
    if hotel != "nyc-plaza" {
        own.house.seed_leg(trip_of(&request).leg(Leg::Hotel), 0).await;
    }
    let right = own.house.reconfigure(function, variable, "no-such-table").await;
    let id = accepted(&own.api, &request).await;
    // It has been tried three times, and the record of that is in the queue of failures, or has been taken from it.
    let failures = own.house.queue("StepFailures").await;
    assert!(!failures.is_empty());
    until(&own.api, &id, "given up", |booking| booking.entry(Step::Abort).is_some() || function == "payment").await;
    if function == "payment" {
        gave_up(&own.house).await;
    }
    own.house.reconfigure(function, variable, &right).await;
    let booking = ended_with_help(&own, &id).await;
    let mut free = request.clone();
    free.hotel.hotel_id = "nyc-plaza".into();
    assert_eq!(own.house.left(&free).await, UNTOUCHED, "{name}");
    (own, booking)
}

/// Waits until a function has given up, and payment cannot deal with that.
async fn gave_up(house: &House) {
    let deadline = Timestamp::now() + DEADLINE;
    while house.depth("StepFailures").await + house.depth("StepFailuresDeadLetters").await == 0 {
        assert!(Timestamp::now() < deadline, "nobody gave up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for the end; what was given up for good meanwhile is put back, as an operator would. A function that is
/// mended while it is at work loses what it is at, which then comes again after a minute.
async fn ended_with_help(own: &Own, id: &BookingId) -> Booking {
    let deadline = Timestamp::now() + 4 * DEADLINE;
    loop {
        let booking = own.api.show(id).await.unwrap();
        if matches!(booking.status, Status::Confirmed | Status::Failed) {
            assert_eq!(contradictions(&booking), Vec::<String>::new());
            return booking;
        }
        assert!(Timestamp::now() < deadline, "{booking:#?}");
        for queue in ["FlightInbox", "HotelInbox", "CarInbox", "BookingInbox", "StepFailures"] {
            let dead_letters = match queue {
                "StepFailures" => "StepFailuresDeadLetters".to_owned(),
                inbox => inbox.replace("Inbox", "DeadLetters"),
            };
            put_back(&own.house, &dead_letters, queue).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn put_back(house: &House, dead_letters: &str, queue: &str) {
    let sqs = house.sqs().await;
    let (from, to) = (house.queue(dead_letters).await, house.queue(queue).await);
    let arn = async |url: &str| {
        use aws_sdk_sqs::types::QueueAttributeName::QueueArn;
        let attributes = sqs.get_queue_attributes().queue_url(url).attribute_names(QueueArn).send().await.unwrap();
        attributes.attributes.unwrap().remove(&QueueArn).unwrap()
    };
    sqs.start_message_move_task().source_arn(arn(&from).await).destination_arn(arn(&to).await).send().await.unwrap();
}

fn reason(booking: &Booking) -> (Option<Step>, &str) {
    let reason = booking.reason.as_ref().unwrap_or_else(|| panic!("no reason: {booking:#?}"));
    (reason.step.as_deref().and_then(Step::named), reason.code.as_str())
}

#[tokio::test]
async fn a_seller_that_gives_up_is_compensated() {
    for (function, leg) in [("flight", Leg::Flight), ("hotel", Leg::Hotel), ("car", Leg::Car)] {
        let (_, booking) = gives_up(&format!("no-{function}"), function, "STOCK_TABLE", "tok_visa", "nyc-plaza").await;
        assert_eq!(booking.status, Status::Failed);
        assert_eq!(reason(&booking), (Some(Step::Reserve(leg)), "technical_failure"));
        // It failed there and nowhere else: nothing of it was reserved, all others were.
        assert_eq!(booking.entry(Step::Cancel(leg)).unwrap().released(), Some(false));
        for other in Leg::ALL.into_iter().filter(|other| *other != leg) {
            assert_eq!(booking.entry(Step::Cancel(other)).unwrap().released(), Some(true), "{other:?}");
        }
        assert!(booking.entry(Step::Charge).is_none());
    }
}

#[tokio::test]
async fn a_charge_that_is_given_up_is_aborted_and_compensated() {
    let (_, booking) = gives_up("no-charge", "payment", "PROVIDER_LEDGER_TABLE", "tok_visa", "nyc-plaza").await;
    assert_eq!((booking.status, reason(&booking)), (Status::Failed, (Some(Step::Charge), "technical_failure")));
    assert_eq!(booking.entry(Step::Abort).unwrap().outcome, "aborted");
    assert_eq!(booking.entry(Step::Charge).unwrap().outcome, "in_progress", "it came as far as the lease");
}

#[tokio::test]
async fn a_charge_that_cannot_be_published_is_told_by_the_abort_that_follows() {
    let own = Own::called("no-topic").await;
    let request = own.request().await;
    let gone = format!("{}-gone", own.house.stack.output("EventsTopicArn").unwrap());
    let right = own.house.reconfigure("payment", "EVENTS_TOPIC_ARN", &gone).await;
    let id = accepted(&own.api, &request).await;
    // Each attempt finds it charged, and fails at saying so; then payment gives up the event that it was given.
    gave_up(&own.house).await;
    let booking = own.api.show(&id).await.unwrap();
    assert_eq!((booking.status, &*booking.entry(Step::Charge).unwrap().outcome), (Status::Pending, "charged"));
    own.house.reconfigure("payment", "EVENTS_TOPIC_ARN", &right).await;
    let booking = ended_with_help(&own, &id).await;
    assert_eq!((booking.status, &*booking.entry(Step::Abort).unwrap().outcome), (Status::Confirmed, "charged"));
    assert_eq!(own.house.left(&request).await, BOOKED);
}

#[tokio::test]
async fn an_abort_that_is_given_up_is_aborted_from_the_queue_with_the_first_reason() {
    let (_, booking) = gives_up("no-abort", "payment", "PAYMENTS_TABLE", "tok_visa", "nyc-annex").await;
    assert_eq!(booking.status, Status::Failed);
    // Payment could not note the prices of the others either: the first that comes from the queue is the reason.
    let reasons = [(Some(Step::Reserve(Leg::Hotel)), "sold_out"), (Some(Step::Charge), "technical_failure")];
    assert!(reasons.contains(&reason(&booking)), "{booking:#?}");
    assert!(booking.entry(Step::Charge).is_none());
}

#[tokio::test]
async fn an_undo_that_is_given_up_needs_an_operator_who_puts_it_back() {
    let (own, request, id) = undo_is_given_up("no-undo").await;
    let booking = ended_with_help(&own, &id).await;
    assert_eq!((booking.status, reason(&booking)), (Status::Failed, (Some(Step::Charge), "card_declined")));
    assert_eq!(own.house.left(&request).await, UNTOUCHED);
}

#[tokio::test]
async fn a_booking_whose_parked_message_is_gone_is_driven_again_by_an_operator() {
    let (own, request, id) = undo_is_given_up("gone").await;
    let dead_letters = own.house.queue("HotelDeadLetters").await;
    own.house.sqs().await.purge_queue().queue_url(dead_letters).send().await.unwrap();
    assert_eq!(own.house.depth("HotelDeadLetters").await, 0);
    operator::dead_letters::drive(&own.house.stack, std::slice::from_ref(&id)).await.unwrap();
    let booking = ended(&own.api, &id).await;
    assert_eq!((booking.status, reason(&booking)), (Status::Failed, (Some(Step::Charge), "card_declined")));
    assert_eq!(contradictions(&booking), Vec::<String>::new());
    assert_eq!(own.house.left(&request).await, UNTOUCHED);
}

/// A booking that needs an operator, as the hotel could not cancel; by now it could.
async fn undo_is_given_up(name: &str) -> (Own, TripRequest, BookingId) {
    let own = Own::called(name).await;
    let (house, api) = (&own.house, &own.api);
    let mut request = own.request().await;
    request.payment.token = "tok_declined".into();
    let header = house.record_only(&request, &fresh_key("undo"), SignedDuration::ZERO).await;
    // The hotel reserves, then loses its table.
    house
        .invoke(
            "hotel",
            &json!({
                "step": "hotel.reserve", "booking_id": header.booking_id, "hotel": trip_of(&request).leg(Leg::Hotel)
            }),
        )
        .await;
    let id = header.booking_id.clone();
    let right = house.reconfigure("hotel", "JOURNAL_TABLE", "no-such-table").await;
    for leg in ["flight", "car"] {
        let reserve = json!({"step": format!("{leg}.reserve"), "booking_id": id, leg: request.to_json()[leg]});
        assert_eq!(house.invoke(leg, &reserve).await["outcome"], "reserved");
    }
    let plan = header.plan();
    let reason = saga::Rejection::new("card_declined", "no").at(Step::Charge);
    let payment = &plan.payment.reference;
    let abort = json!({"step": "payment.abort", "booking_id": id, "payment": {"reference": payment}, "reason": reason});
    assert_eq!(house.invoke("payment", &abort).await["outcome"], "aborted");
    house.publish(said(&id, Event::Aborted { reason: Some(reason), trip: plan.trip.clone() })).await;

    let compensating = until(api, &id, "compensated but for the hotel", |booking| {
        [Leg::Flight, Leg::Car].iter().all(|leg| booking.entry(Step::Cancel(*leg)).is_some())
    });
    assert_eq!(compensating.await.status, Status::Compensating);
    let parked = house.await_message("HotelDeadLetters", |message| message.body().unwrap().contains(id.as_str())).await;
    assert!(parked.body().unwrap().contains("booking.aborted"));
    let done = house.invoke("reconciler", &json!({"source": "aws.events"})).await;
    assert_eq!(done["parked"], json!([id]), "{done}");
    let booking = api.show(&id).await.unwrap();
    assert_eq!(booking.status, Status::NeedsOperator);
    assert_eq!(self::reason(&booking), (Some(Step::Cancel(Leg::Hotel)), "parked"));
    assert!(booking.entry(Step::Fail).is_none());
    let done = house.invoke("reconciler", &json!({"source": "aws.events"})).await;
    assert_eq!(done["parked"], json!([]), "an operator is called once");

    house.reconfigure("hotel", "JOURNAL_TABLE", &right).await;
    (own, request, id)
}

// --------------------------------------------------------------------------- duplicates, other orders, contradictions

#[tokio::test]
async fn every_message_twice_changes_nothing() {
    let own = Own::called("twice").await;
    let (house, api) = (&own.house, &own.api);
    for (token, status, left, said) in
        [("tok_visa", Status::Confirmed, BOOKED, 6), ("tok_declined", Status::Failed, UNTOUCHED, 9)]
    {
        let mut tap = Tap::on(house).await;
        let mut request = own.request().await;
        request.payment.token = token.into();
        let id = accepted(api, &request).await;
        let before = ended(api, &id).await;
        assert_eq!(before.status, status);
        let messages = tap.about(&id, said).await;
        assert_eq!(messages.len(), said, "{messages:#?}");
        for message in messages.iter().chain(messages.iter().rev()) {
            house.publish(message).await;
        }
        // Whatever was said in answer to that is said: at the least what was said at first, twice over.
        tap.about(&id, 3 * said).await;
        settled(house).await;
        let after = api.show(&id).await.unwrap();
        assert_eq!(after, before, "{token}");
        assert_eq!(house.left(&request).await, left, "{token}");
    }
}

#[tokio::test]
async fn a_reserve_that_comes_after_the_abort_is_refused() {
    let (house, api) = shared().await;
    let request = request(&house).await;
    let header = house.record_only(&request, &fresh_key("overtaken"), SignedDuration::ZERO).await;
    let id = header.booking_id.clone();
    // The hotel is said to have given up, before anybody has heard of the booking.
    house.send("StepFailures", given_up(&house, "hotel", &requested(&header))).await;
    let failed = ended(&api, &id).await;
    assert_eq!(
        (failed.status, reason(&failed)),
        (Status::Failed, (Some(Step::Reserve(Leg::Hotel)), "technical_failure"))
    );
    for leg in Leg::ALL {
        assert_eq!(failed.entry(Step::Reserve(leg)).unwrap().detail["code"], "cancelled", "the tombstone");
    }
    let mut tap = Tap::on(&house).await;
    house.publish(requested(&header)).await;
    let rejected = |message: &&Value| event_in(message)["type"].as_str().is_some_and(|t| t.ends_with(".rejected"));
    let mut answers = tap.about(&id, 4).await;
    while answers.iter().filter(rejected).count() < 3 {
        answers = tap.about(&id, answers.len() + 1).await; // payment may be quicker than the last of them
    }
    settled(&house).await;
    assert_eq!(api.show(&id).await.unwrap(), failed);
    assert_eq!(house.left(&request).await, UNTOUCHED);
}

#[tokio::test]
async fn a_failure_that_is_reported_after_the_charge_leaves_the_trip_confirmed() {
    let (house, api) = shared().await;
    let request = request(&house).await;
    let id = accepted(&api, &request).await;
    let confirmed = ended(&api, &id).await;
    assert_eq!(confirmed.status, Status::Confirmed);
    let header = house.headers().get(&id).await.unwrap().unwrap();
    let mut tap = Tap::on(&house).await;
    for function in ["flight", "hotel", "car"] {
        house.send("StepFailures", given_up(&house, function, &requested(&header))).await;
    }
    // Each is answered with `payment.charged`, and that with `booking.confirmed`.
    tap.about(&id, 6).await;
    settled(&house).await;
    let after = api.show(&id).await.unwrap();
    assert_eq!((after.status, after.total), (Status::Confirmed, confirmed.total));
    assert_eq!(after.entry(Step::Abort).unwrap().outcome, "charged", "payment says what it decided");
    assert_eq!(contradictions(&after), Vec::<String>::new());
    assert_eq!(house.left(&request).await, BOOKED);
}

#[tokio::test]
async fn a_notification_that_reached_nobody_is_a_step_that_was_given_up() {
    let (house, api) = shared().await;
    let request = request(&house).await;
    let header = house.record_only(&request, &fresh_key("undelivered"), SignedDuration::ZERO).await;
    let notification = json!({"Type": "Notification", "MessageId": "1", "Message": requested(&header).to_string()});
    house.send("StepFailures", notification).await;
    let failed = ended(&api, &header.booking_id).await;
    assert_eq!((failed.status, reason(&failed)), (Status::Failed, (None, "technical_failure")));
}

/// No filter holds anything back, as may be after a deployment: each topic says all to all who listen to it.
#[tokio::test]
async fn filters_that_have_not_settled_change_no_end_and_park_nothing() {
    let local = start_with("unsettled", &[("MaxReceiveCount", "2")], &[("SNS_UNSETTLED_FILTERS", "1")]);
    let house = House::of(local.stack()).await;
    let api = Client::new(&house.stack.api_url).unwrap();
    let mut bookings = Vec::new();
    for token in ["tok_visa", "tok_declined"] {
        let mut request = request(&house).await;
        request.payment.token = token.into();
        bookings.push((accepted(&api, &request).await, request));
    }
    for (id, request) in &bookings {
        let (status, left) = match request.payment.token.as_str() {
            "tok_visa" => (Status::Confirmed, BOOKED),
            _ => (Status::Failed, UNTOUCHED),
        };
        assert_eq!(ended(&api, id).await.status, status);
        assert_eq!(house.left(request).await, left);
    }
    settled(&house).await;
    still(&house).await;
    for function in PARTICIPANTS {
        let log = log(&house, function).await;
        assert!(log.contains("event for somebody else ignored"), "{function} was sent nothing that is not for it");
    }
    for queue in ["Flight", "Hotel", "Car", "Booking", "StepFailures"] {
        assert_eq!(house.depth(&format!("{queue}DeadLetters")).await, 0, "{queue}");
    }
}

const PARTICIPANTS: [&str; 5] = ["flight", "hotel", "car", "payment", "booking"];

/// Waits until nobody is invoked any more.
async fn still(house: &House) {
    let deadline = Timestamp::now() + DEADLINE;
    let mut before = 0;
    loop {
        let mut now = 0;
        for function in PARTICIPANTS {
            now += invocations(house, function).await;
        }
        if now == before {
            return;
        }
        assert!(Timestamp::now() < deadline, "they answer each other without end: {before} invocations, then {now}");
        before = now;
        tokio::time::sleep(Duration::from_secs(1)).await; // longer than an answer takes on its way
    }
}

/// With Lambda's own waits of one minute and two, and those of the state machine.
#[tokio::test]
async fn a_provider_that_is_out_of_order_for_a_moment_does_not_cost_a_wait_of_lambda() {
    let own = Own::with("aws-waits", &[("LAMBDA_ASYNC_RETRY_BASE_SECONDS", "60")]).await;
    let mut asked = 0;
    // In the choreographed variant payment is invoked for each leg, and charges at the last.
    for (variant, times) in [(Variant::Orchestrated, 1), (Variant::Choreographed, 3)] {
        for token in ["tok_flaky", "tok_timeout"] {
            let mut request = TripRequest { variant, ..own.request().await };
            request.payment.token = token.into();
            let began = Timestamp::now();
            let id = accepted(&own.api, &request).await;
            let booking = ended(&own.api, &id).await;
            let took = Timestamp::now().duration_since(began);
            assert_eq!(booking.status, Status::Confirmed, "{token} ({}): {booking:#?}", variant.name());
            assert!(took < SignedDuration::from_secs(15), "{token} ({}): {took:?}", variant.name());
            asked += times;
            let deadline = Timestamp::now() + DEADLINE;
            while invocations(&own.house, "payment").await < asked && Timestamp::now() < deadline {
                tokio::time::sleep(Duration::from_millis(50)).await; // it may still be about to return
            }
            assert_eq!(invocations(&own.house, "payment").await, asked, "{token} ({})", variant.name());
        }
    }
}

// ------------------------------------------------------------------------------------------------ what nobody can read

#[tokio::test]
async fn only_what_can_succeed_later_comes_back_from_a_batch() {
    let own = Own::called("batch").await;
    let house = &own.house;
    let request = own.request().await;
    let good = house.record_only(&request, &fresh_key("good"), SignedDuration::ZERO).await.booking_id;
    let bad = house.record_only(&request, &fresh_key("bad"), SignedDuration::ZERO).await.booking_id;
    let total = saga::Money::eur(5);
    // More than a DynamoDB item can hold (400 KB): refused each time, as throttling would be.
    let long = saga::Reason { step: None, code: "technical_failure".into(), detail: "x".repeat(450_000) };
    let cancelled = |leg| said(&bad, Event::Cancelled { leg, reason: Some(long.clone()) });
    let desk = house.desk();
    for leg in [Leg::Flight, Leg::Hotel] {
        assert!(desk.hear(&cancelled(leg)).await.unwrap().is_none());
    }
    let record = |id: &str, body: String| {
        json!({
            "messageId": id, "receiptHandle": id, "body": body, "eventSource": "aws:sqs",
            "attributes": {"ApproximateReceiveCount": "1"}
        })
    };
    let newer = json!({"type": "payment.charged", "schema_version": 2, "booking_id": good, "data": {}});
    let batch = json!({"Records": [
        record("good", said(&good, Event::Charged { amount: total }).to_string()),
        record("bad", cancelled(Leg::Car).to_string()),
        record("garbage", "{\"type\": 5".into()),
        record("newer", newer.to_string()),
        record("unknown", json!({"type": "invoice.sent"}).to_string()),
    ]});
    let answer = house.invoke("booking", &batch).await;
    assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": "bad"}]}));
    assert_eq!(own.api.show(&good).await.unwrap().status, Status::Confirmed);
    assert_eq!(own.api.show(&bad).await.unwrap().status, Status::Pending);
    for (body, why) in [("{\"type\": 5", "no JSON"), ("\"schema_version\":2", "schema version 2")] {
        let parked = house.await_message("BookingDeadLetters", |message| message.body().unwrap().contains(body)).await;
        let reason = parked.message_attributes().unwrap()["reason"].string_value().unwrap();
        assert!(reason.contains(why), "{reason}");
    }
    assert_eq!(house.depth("BookingDeadLetters").await, 2);
}

#[tokio::test]
async fn a_poison_message_is_parked_after_its_attempts_and_the_others_are_not_held_up() {
    let own = Own::called("poison").await;
    let (house, api) = (&own.house, &own.api);
    let request = own.request().await;
    let poisoned = house.record_only(&request, &fresh_key("poison"), SignedDuration::ZERO).await.booking_id;
    let long = saga::Reason { step: None, code: "technical_failure".into(), detail: "x".repeat(450_000) };
    for leg in Leg::ALL {
        house.send("BookingInbox", said(&poisoned, Event::Cancelled { leg, reason: Some(long.clone()) })).await;
    }
    let id = accepted(api, &request).await;
    assert_eq!(ended(api, &id).await.status, Status::Confirmed);
    let is_it = |message: &aws_sdk_sqs::types::Message| message.body().unwrap().contains(poisoned.as_str());
    house.await_message("BookingDeadLetters", is_it).await;
    settled(house).await;
    assert_eq!(house.depth("BookingDeadLetters").await, 1, "the two that were not the last did no harm");
    house.invoke("reconciler", &json!({})).await;
    let booking = api.show(&poisoned).await.unwrap();
    assert_eq!((booking.status, reason(&booking)), (Status::NeedsOperator, (Some(Step::Fail), "parked")));
}

#[tokio::test]
async fn garbage_is_parked_with_its_reason_wherever_it_comes_in() {
    let own = Own::called("garbage").await;
    let house = &own.house;
    let reason_of = async |queue: &str, body: &str| {
        let parked = house.await_message(queue, |message| message.body().unwrap().contains(body)).await;
        parked.message_attributes().unwrap()["reason"].string_value().unwrap().to_owned()
    };
    for (inbox, dead_letters) in [
        ("FlightInbox", "FlightDeadLetters"),
        ("BookingInbox", "BookingDeadLetters"),
        ("StepFailures", "StepFailuresDeadLetters"),
        ("ReconcilerInbox", "ParkedQueue"),
    ] {
        house.send(inbox, "garbage").await;
        assert!(reason_of(dead_letters, "garbage").await.contains("no JSON"), "{inbox}");
    }
    // On the topic nobody gets what is no event; what looks like one is given up by those who listen to it.
    house.publish("garbage").await;
    house.publish(json!({"type": "invoice.sent"})).await;
    house.publish(json!({"type": "booking.requested", "booking_id": "nobody's"})).await;
    house.publish(json!({"type": "booking.aborted", "schema_version": 9, "booking_id": "x"})).await;
    assert!(reason_of("StepFailuresDeadLetters", "nobody's").await.contains("it is no event"));
    for queue in ["FlightDeadLetters", "HotelDeadLetters", "CarDeadLetters"] {
        assert!(reason_of(queue, "booking.aborted").await.contains("schema version 9"), "{queue}");
    }
    let request = own.request().await;
    let id = accepted(&own.api, &request).await;
    assert_eq!(ended(&own.api, &id).await.status, Status::Confirmed, "neighbours are not held up");
    settled(house).await;
    assert_eq!(house.depth("StepFailuresDeadLetters").await, 1 + 3, "flight, hotel and car gave it up, once each");
}

// ----------------------------------------------------------------------------------------------------- what gets lost

#[tokio::test]
async fn a_booking_that_cannot_be_read_keeps_no_other_from_being_driven() {
    let own = Own::called("unreadable").await;
    let (house, api, request) = (&own.house, &own.api, own.request().await);
    let [older, old] = [49, 48].map(SignedDuration::from_hours);
    let newer = house.record_only(&request, &fresh_key("newer"), older).await.booking_id;
    let id = house.record_only(&request, &fresh_key("stuck"), old).await.booking_id;
    let dynamodb = aws_sdk_dynamodb::Client::new(&house.stack.sdk().await.unwrap());
    let change = dynamodb.update_item().table_name(house.stack.bookings_table().unwrap());
    let change =
        change.key("booking_id", AttributeValue::S(newer.to_string())).update_expression("SET variant = :newer");
    change.expression_attribute_values(":newer", AttributeValue::S("unheard-of".into())).send().await.unwrap();

    let failed = house.invoke("reconciler", &json!({"source": "aws.events"})).await;
    assert_eq!(failed["errorType"], "CorruptRecord", "{failed}");
    let message = failed["errorMessage"].as_str().unwrap();
    assert!(message.starts_with("1 of the records") && message.contains(newer.as_str()), "{message}");
    assert_eq!(ended(api, &id).await.status, Status::Confirmed);
}

#[tokio::test]
async fn a_long_dead_letter_queue_is_looked_through_and_a_short_one_is_left_visible() {
    let own = Own::called("look").await;
    let (sqs, house) = (own.house.sqs().await, &own.house);
    let (car, hotel) = (house.queue("CarDeadLetters").await, house.queue("HotelDeadLetters").await);
    let seller = Participant::Seller(Leg::Car);
    let queues = DeadLetterQueues::new(sqs.clone(), vec![(seller, car)], hotel);
    for (queue, messages) in [("CarDeadLetters", 9), ("HotelDeadLetters", 35)] {
        for nth in 0..messages {
            house.send(queue, nth).await;
        }
    }
    for _ in 0..2 {
        let (found, errors) = queues.look().await;
        assert!(errors.is_empty(), "{errors:?}");
        let of = |by| found.iter().filter(|(of, _)| *of == by).map(|(_, body)| body).collect::<BTreeSet<_>>().len();
        assert_eq!((of(Some(seller)), of(None), found.len()), (9, 35, 44));
        // Nothing of the short one was hidden, and the long one is visible again when it is looked at the next time.
        assert_eq!(house.visible("CarDeadLetters").await, 9);
        let deadline = Timestamp::now() + DEADLINE;
        while house.visible("HotelDeadLetters").await < 35 {
            assert!(Timestamp::now() < deadline, "messages stay hidden");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn the_reconciler_rescues_bookings_whose_event_was_lost_wherever_that_was() {
    let own = Own::called("lost").await;
    let (house, api) = (&own.house, &own.api);
    let two_days = SignedDuration::from_hours(48);
    let mut lost = Vec::new();
    // How many events were heard before one was lost: by the sellers, by payment.
    for (sellers, payment) in [(0, 0), (2, 0), (3, 2), (3, 3)] {
        let request = own.request().await;
        let header = house.record_only(&request, &fresh_key(format!("lost-{sellers}{payment}")), two_days).await;
        let mut reserved = Vec::new();
        for leg in &Leg::ALL[..sellers] {
            reserved.push(house.seller(*leg).hear(&requested(&header)).await.unwrap().unwrap());
        }
        for event in &reserved[..payment] {
            house.cashier().hear(&json!(event)).await.unwrap();
        }
        lost.push((header.booking_id, request, Status::Confirmed));
    }
    // Payment has aborted, and nobody has heard of it.
    let mut request = own.request().await;
    request.payment.token = "tok_declined".into();
    let header = house.record_only(&request, &fresh_key("lost-abort"), two_days).await;
    for leg in Leg::ALL {
        let reserved = house.seller(leg).hear(&requested(&header)).await.unwrap().unwrap();
        house.cashier().hear(&json!(reserved)).await.unwrap();
    }
    assert_eq!(api.show(&header.booking_id).await.unwrap().status, Status::Compensating);
    lost.push((header.booking_id, request, Status::Failed));

    let done = house.invoke("reconciler", &json!({"source": "aws.events"})).await;
    assert_eq!(done["stuck"], 5, "{done}");
    for (id, request, status) in lost {
        assert!(done["restarted"].as_array().unwrap().contains(&json!(id)), "{done}");
        let booking = ended(api, &id).await;
        assert_eq!(booking.status, status);
        let left = if status == Status::Confirmed { BOOKED } else { UNTOUCHED };
        assert_eq!(house.left(&request).await, left);
        if status == Status::Failed {
            assert_eq!(reason(&booking), (Some(Step::Charge), "card_declined"), "the reason is not lost either");
        }
    }
}

// ------------------------------------------------------------------------------------------------------ size and number

#[tokio::test]
async fn no_message_grows_on_the_longest_path() {
    let own = Own::called("size").await;
    let mut tap = Tap::on(&own.house).await;
    let mut request = own.request().await;
    // As long as can be: the longest trip, and a rejection after everything else succeeded.
    request = request.clone().lasting(request.flight.date, 9);
    own.house.seed(&trip_of(&request), 5).await;
    request.traveller.name = "N".repeat(100);
    request.payment.token = "tok_insufficient_funds".into();
    let id = accepted(&own.api, &request).await;
    assert_eq!(ended(&own.api, &id).await.status, Status::Failed);
    let messages = tap.about(&id, 9).await;
    let records: Vec<_> = messages.iter().filter(|message| message.get("requestPayload").is_some()).collect();
    assert_eq!(records.len(), 3, "{messages:#?}");
    for record in &records {
        let cause = record.pointer("/requestPayload/Records/0/Sns/Message").unwrap().as_str().unwrap();
        assert!(!cause.contains("Payload"), "a record of an event, and no deeper: {cause}");
    }
    // The longest is the record of payment giving such a record up.
    let failure = records.iter().map(|record| given_up(&own.house, "payment", record).to_string().len()).max().unwrap();
    assert!(tap.longest() < 16 * 1024 && failure < 16 * 1024, "{} and {failure} bytes", tap.longest());
}

#[tokio::test]
async fn a_booking_takes_so_many_invocations_and_messages_and_no_more() {
    const BOTH: [&str; 4] = ["booking.requested", "car.reserved", "flight.reserved", "hotel.reserved"];
    const CONFIRMED: [&str; 2] = ["booking.confirmed", "payment.charged"];
    const FAILED: [&str; 5] =
        ["booking.aborted", "booking.failed", "car.cancelled", "flight.cancelled", "hotel.cancelled"];
    for (token, others, sellers) in [("tok_visa", &CONFIRMED[..], 1), ("tok_declined", &FAILED[..], 2)] {
        let own = Own::called(&format!("counted-{sellers}")).await;
        let (house, api) = (&own.house, &own.api);
        let mut tap = Tap::on(house).await;
        let mut request = own.request().await;
        request.payment.token = token.into();
        let id = accepted(api, &request).await;
        ended(api, &id).await;
        let messages = tap.about(&id, BOTH.len() + others.len()).await;
        let mut said: Vec<_> = messages.iter().map(|message| event_in(message)["type"].as_str().unwrap()).collect();
        said.sort_unstable();
        let mut expected = [&BOTH, others].concat();
        expected.sort_unstable();
        assert_eq!(said, expected);
        for (function, times) in [("flight", sellers), ("hotel", sellers), ("car", sellers), ("payment", 3)] {
            assert_eq!(invocations(house, function).await, times, "{function}");
        }
        if others == CONFIRMED {
            assert_eq!(invocations(house, "booking").await, 1); // three messages may come in one batch, or in three
        }
    }
}

/// How often a function was invoked, by its log.
async fn invocations(house: &House, function: &str) -> usize {
    log(house, function).await.matches("REPORT RequestId").count()
}

async fn log(house: &House, function: &str) -> String {
    let headers = [("x-amz-target", "Logs_20140328.FilterLogEvents"), ("content-type", "application/x-amz-json-1.1")];
    let group = json!({"logGroupName": format!("/aws/lambda/{}", house.function(function))});
    house.aws("logs").await.send("POST", "/", &headers, group.to_string()).await.unwrap().body
}
