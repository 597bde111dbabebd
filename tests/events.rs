//! The choreographed variant on the local AWS: what happens when messages come twice, late, in another order or not at
//! all, when steps are given up, and when somebody publishes what nobody can read.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, time::Duration};

use aws_sdk_dynamodb::types::AttributeValue;
use end_to_end::{
    DEADLINE, House, Tap, date,
    deployed::{logical, sellers},
    event_in, lines, part_of, start_with, trip_of,
};
use harmony::{Booking, Client, LocalAws, TripRequest, client::fresh_key, scenarios::contradictions};
use jiff::{SignedDuration, Timestamp};
use saga::{BookingId, Envelope, Event, PartName, PartType, Participant, Status, Step, Variant};
use serde_json::{Value, json};
use services::{DeadLetterQueues, DeadLetters};
use store::{Header, HeaderStore};
use travel::TRAVEL;

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

/// A trip of all parts that there are.
async fn request(house: &House) -> TripRequest {
    request_of(house, TRAVEL.parts).await
}

async fn request_of(house: &House, parts: &[PartType]) -> TripRequest {
    let request = TripRequest { variant: Variant::Choreographed, ..TripRequest::of(parts, date(), 3) };
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

/// The queues that participants are fed from, each with where its dead letters are.
fn queues() -> Vec<(String, String)> {
    let with_inbox = sellers().into_iter().map(Participant::Seller).chain([Participant::Booking]);
    let inboxes = with_inbox.map(|participant| (logical(participant, "Inbox"), logical(participant, "DeadLetters")));
    inboxes.chain([("StepFailures".into(), "StepFailuresDeadLetters".into())]).collect()
}

/// Nothing of any booking is under way: all queues are empty.
async fn settled(house: &House) {
    let deadline = Timestamp::now() + DEADLINE;
    for (queue, _) in queues() {
        while house.depth(&queue).await > 0 {
            assert!(Timestamp::now() < deadline, "{queue} is not emptied");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What is left of each line of a request if nobody has taken anything of it.
fn untouched(request: &TripRequest) -> Vec<Vec<i64>> {
    left_by(request, 0)
}

/// The same if so many bookings have taken it.
fn left_by(request: &TripRequest, bookings: i64) -> Vec<Vec<i64>> {
    let parts = TRAVEL.parts.iter().filter_map(|part_type| trip_of(request).get(part_type.name));
    parts.map(|part| lines(&part).iter().map(|line| 5 - bookings * i64::from(line.units)).collect()).collect()
}

fn published(booking: &BookingId, event: Event) -> Value {
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

/// Breaks a function's table for as long as it takes until payment has aborted, then mends it. A part may be sold out.
async fn gives_up(name: &str, function: &str, variable: &str, sold_out: Option<PartName>) -> (Own, Booking) {
    let own = Own::called(name).await;
    let request = own.request().await;
    if let Some(part) = sold_out {
        own.house.seed_part(&part_of(&request, part), 0).await;
    }
    let before = own.house.left(&request).await;
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
    assert_eq!(own.house.left(&request).await, before, "{name}");
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
        for (queue, dead_letters) in queues() {
            put_back(&own.house, &dead_letters, &queue).await;
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
    for part in sellers() {
        let (_, booking) = gives_up(&format!("no-{part}"), part.as_str(), "STOCK_TABLE", None).await;
        assert_eq!(booking.status, Status::Failed);
        assert_eq!(reason(&booking), (Some(Step::Reserve(part)), "technical_failure"));
        // It failed there and nowhere else: nothing of it was reserved, all others were.
        assert_eq!(booking.entry(Step::Cancel(part)).unwrap().released(), Some(false));
        for other in sellers().into_iter().filter(|other| *other != part) {
            assert_eq!(booking.entry(Step::Cancel(other)).unwrap().released(), Some(true), "{other}");
        }
        assert!(booking.entry(Step::Charge).is_none());
    }
}

#[tokio::test]
async fn a_charge_that_is_given_up_is_aborted_and_compensated() {
    let (_, booking) = gives_up("no-charge", "payment", "PROVIDER_LEDGER_TABLE", None).await;
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
    // Each attempt finds it charged, and fails to publish that; then payment gives up the event that it was given.
    gave_up(&own.house).await;
    let booking = own.api.show(&id).await.unwrap();
    assert_eq!((booking.status, &*booking.entry(Step::Charge).unwrap().outcome), (Status::Pending, "charged"));
    own.house.reconfigure("payment", "EVENTS_TOPIC_ARN", &right).await;
    let booking = ended_with_help(&own, &id).await;
    assert_eq!((booking.status, &*booking.entry(Step::Abort).unwrap().outcome), (Status::Confirmed, "charged"));
    assert_eq!(own.house.left(&request).await, left_by(&request, 1));
}

#[tokio::test]
async fn an_abort_that_is_given_up_is_aborted_from_the_queue_with_the_first_reason() {
    let sold_out = sellers()[1];
    let (_, booking) = gives_up("no-abort", "payment", "PAYMENTS_TABLE", Some(sold_out)).await;
    assert_eq!(booking.status, Status::Failed);
    // Payment could not note the prices of the others either: the first that comes from the queue is the reason.
    let reasons = [(Some(Step::Reserve(sold_out)), "sold_out"), (Some(Step::Charge), "technical_failure")];
    assert!(reasons.contains(&reason(&booking)), "{booking:#?}");
    assert!(booking.entry(Step::Charge).is_none());
}

#[tokio::test]
async fn an_undo_that_is_given_up_needs_an_operator_who_puts_it_back() {
    let (own, request, id, _) = undo_is_given_up("no-undo").await;
    let booking = ended_with_help(&own, &id).await;
    assert_eq!((booking.status, reason(&booking)), (Status::Failed, (Some(Step::Charge), "card_declined")));
    assert_eq!(own.house.left(&request).await, untouched(&request));
}

#[tokio::test]
async fn a_booking_whose_parked_message_is_gone_is_driven_again_by_an_operator() {
    let (own, request, id, stuck) = undo_is_given_up("gone").await;
    let dead_letters = logical(stuck, "DeadLetters");
    own.house.sqs().await.purge_queue().queue_url(own.house.queue(&dead_letters).await).send().await.unwrap();
    assert_eq!(own.house.depth(&dead_letters).await, 0);
    harmony::dead_letters::drive(&own.house.stack, std::slice::from_ref(&id)).await.unwrap();
    let booking = ended(&own.api, &id).await;
    assert_eq!((booking.status, reason(&booking)), (Status::Failed, (Some(Step::Charge), "card_declined")));
    assert_eq!(contradictions(&booking), Vec::<String>::new());
    assert_eq!(own.house.left(&request).await, untouched(&request));
}

/// A booking that needs an operator, as one of its sellers could not cancel; by now it could.
async fn undo_is_given_up(name: &str) -> (Own, TripRequest, BookingId, PartName) {
    let own = Own::called(name).await;
    let (house, api, stuck) = (&own.house, &own.api, sellers()[1]);
    let mut request = own.request().await;
    request.payment.token = "tok_declined".into();
    let header = house.record_only(&request, &fresh_key("undo"), SignedDuration::ZERO).await;
    let id = header.booking_id.clone();
    // All reserve, then one of them loses its table.
    for (part, contents) in header.parts.iter() {
        let reserve = json!({"step": Step::Reserve(part), "booking_id": id, "part": contents});
        assert_eq!(house.invoke(part.as_str(), &reserve).await["outcome"], "reserved");
    }
    let right = house.reconfigure(stuck.as_str(), "JOURNAL_TABLE", "no-such-table").await;
    let plan = header.plan();
    let reason = saga::Rejection::new("card_declined", "no").at(Step::Charge);
    let payment = &plan.payment.reference;
    let abort = json!({"step": "payment.abort", "booking_id": id, "payment": {"reference": payment}, "reason": reason});
    assert_eq!(house.invoke("payment", &abort).await["outcome"], "aborted");
    house.publish(published(&id, Event::Aborted { reason: Some(reason), parts: plan.parts.clone() })).await;

    let compensating = until(api, &id, "compensated but for one part", |booking| {
        sellers().iter().all(|part| *part == stuck || booking.entry(Step::Cancel(*part)).is_some())
    });
    assert_eq!(compensating.await.status, Status::Compensating);
    let is_about = |message: &aws_sdk_sqs::types::Message| message.body().unwrap().contains(id.as_str());
    let parked = house.await_message(&logical(stuck, "DeadLetters"), is_about).await;
    assert!(parked.body().unwrap().contains("booking.aborted"));
    let done = house.invoke("reconciler", &json!({"source": "aws.events"})).await;
    assert_eq!(done["parked"], json!([id]), "{done}");
    let booking = api.show(&id).await.unwrap();
    assert_eq!(booking.status, Status::NeedsOperator);
    assert_eq!(self::reason(&booking), (Some(Step::Cancel(stuck)), "parked"));
    assert!(booking.entry(Step::Fail).is_none());
    let done = house.invoke("reconciler", &json!({"source": "aws.events"})).await;
    assert_eq!(done["parked"], json!([]), "an operator is called once");

    house.reconfigure(stuck.as_str(), "JOURNAL_TABLE", &right).await;
    (own, request, id, stuck)
}

// --------------------------------------------------------------------------- duplicates, other orders, contradictions

#[tokio::test]
async fn every_message_twice_changes_nothing() {
    let own = Own::called("twice").await;
    let (house, api) = (&own.house, &own.api);
    let parts = sellers().len();
    // Requested, reserved, charged and confirmed; or requested, reserved, aborted, cancelled and failed.
    for (token, status, bookings, messages_of_one) in
        [("tok_visa", Status::Confirmed, 1, 3 + parts), ("tok_declined", Status::Failed, 0, 3 + 2 * parts)]
    {
        let mut tap = Tap::on(house).await;
        let mut request = own.request().await;
        request.payment.token = token.into();
        let id = accepted(api, &request).await;
        let before = ended(api, &id).await;
        assert_eq!(before.status, status);
        let messages = tap.about(&id, messages_of_one).await;
        assert_eq!(messages.len(), messages_of_one, "{messages:#?}");
        for message in messages.iter().chain(messages.iter().rev()) {
            house.publish(message).await;
        }
        // What is published in answer to that: at the least what was published at first, twice over.
        tap.about(&id, 3 * messages_of_one).await;
        settled(house).await;
        let after = api.show(&id).await.unwrap();
        assert_eq!(after, before, "{token}");
        assert_eq!(house.left(&request).await, left_by(&request, bookings), "{token}");
    }
}

#[tokio::test]
async fn a_reserve_that_comes_after_the_abort_is_refused() {
    let (house, api) = shared().await;
    let request = request(&house).await;
    let header = house.record_only(&request, &fresh_key("overtaken"), SignedDuration::ZERO).await;
    let id = header.booking_id.clone();
    // One is reported to have given up, before anybody was told of the booking.
    let first = sellers()[1];
    house.send("StepFailures", given_up(&house, first.as_str(), &requested(&header))).await;
    let failed = ended(&api, &id).await;
    assert_eq!((failed.status, reason(&failed)), (Status::Failed, (Some(Step::Reserve(first)), "technical_failure")));
    for part in sellers() {
        assert_eq!(failed.entry(Step::Reserve(part)).unwrap().detail["code"], "cancelled", "the tombstone");
    }
    let mut tap = Tap::on(&house).await;
    house.publish(requested(&header)).await;
    let rejected = |message: &&Value| event_in(message)["type"].as_str().is_some_and(|t| t.ends_with(".rejected"));
    let parts = sellers().len();
    let mut answers = tap.about(&id, 1 + parts).await;
    while answers.iter().filter(rejected).count() < parts {
        answers = tap.about(&id, answers.len() + 1).await; // payment may be quicker than the last of them
    }
    settled(&house).await;
    assert_eq!(api.show(&id).await.unwrap(), failed);
    assert_eq!(house.left(&request).await, untouched(&request));
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
    for seller in sellers() {
        house.send("StepFailures", given_up(&house, seller.as_str(), &requested(&header))).await;
    }
    // Each is answered with `payment.charged`, and that with `booking.confirmed`.
    tap.about(&id, 2 * sellers().len()).await;
    settled(&house).await;
    let after = api.show(&id).await.unwrap();
    assert_eq!((after.status, after.total), (Status::Confirmed, confirmed.total));
    assert_eq!(after.entry(Step::Abort).unwrap().outcome, "charged", "payment answers what it decided");
    assert_eq!(contradictions(&after), Vec::<String>::new());
    assert_eq!(house.left(&request).await, left_by(&request, 1));
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

/// No filter holds anything back, as may be after a deployment: each topic sends everything to all its subscribers.
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
        let (status, bookings) = match request.payment.token.as_str() {
            "tok_visa" => (Status::Confirmed, 1),
            _ => (Status::Failed, 0),
        };
        assert_eq!(ended(&api, id).await.status, status);
        assert_eq!(house.left(request).await, left_by(request, bookings));
    }
    settled(&house).await;
    still(&house).await;
    for function in functions() {
        let log = log(&house, &function).await;
        assert!(log.contains("event for somebody else ignored"), "{function} was sent nothing that is not for it");
    }
    nothing_is_parked(&house).await;
}

async fn nothing_is_parked(house: &House) {
    for (_, dead_letters) in queues() {
        assert_eq!(house.depth(&dead_letters).await, 0, "{dead_letters}");
    }
}

/// The participants' functions.
fn functions() -> Vec<String> {
    Participant::of(&sellers()).iter().map(ToString::to_string).collect()
}

/// Waits until nobody is invoked any more.
async fn still(house: &House) {
    let deadline = Timestamp::now() + DEADLINE;
    let mut before = 0;
    loop {
        let mut now = 0;
        for function in functions() {
            now += invocations(house, &function).await;
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
    // In the choreographed variant payment is invoked for each part, and charges at the last.
    for (variant, times) in [(Variant::Orchestrated, 1), (Variant::Choreographed, sellers().len())] {
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
    let cancelled = |part| published(&bad, Event::Cancelled { part, reason: Some(long.clone()) });
    let parts = sellers();
    let (last, others) = parts.split_last().unwrap();
    for part in others {
        assert!(house.booking().react(&cancelled(*part)).await.unwrap().is_none());
    }
    let record = |id: &str, body: String| {
        json!({
            "messageId": id, "receiptHandle": id, "body": body, "eventSource": "aws:sqs",
            "attributes": {"ApproximateReceiveCount": "1"}
        })
    };
    let of_version =
        |version| json!({"type": "payment.charged", "schema_version": version, "booking_id": good, "data": {}});
    let batch = json!({"Records": [
        record("good", published(&good, Event::Charged { amount: total }).to_string()),
        record("bad", cancelled(*last).to_string()),
        record("garbage", "{\"type\": 5".into()),
        record("older", of_version(1).to_string()),
        record("newer", of_version(3).to_string()),
        record("unknown", json!({"type": "invoice.sent"}).to_string()),
    ]});
    let answer = house.invoke("booking", &batch).await;
    assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": "bad"}]}));
    assert_eq!(own.api.show(&good).await.unwrap().status, Status::Confirmed);
    assert_eq!(own.api.show(&bad).await.unwrap().status, Status::Pending);
    for (body, why) in [
        ("{\"type\": 5", "no JSON"),
        ("\"schema_version\":1", "schema version 1"),
        ("\"schema_version\":3", "schema version 3"),
    ] {
        let parked = house.await_message("BookingDeadLetters", |message| message.body().unwrap().contains(body)).await;
        let reason = parked.message_attributes().unwrap()["reason"].string_value().unwrap();
        assert!(reason.contains(why), "{reason}");
    }
    assert_eq!(house.depth("BookingDeadLetters").await, 3);
}

#[tokio::test]
async fn a_poison_message_is_parked_after_its_attempts_and_the_others_are_not_held_up() {
    let own = Own::called("poison").await;
    let (house, api) = (&own.house, &own.api);
    let request = own.request().await;
    let poisoned = house.record_only(&request, &fresh_key("poison"), SignedDuration::ZERO).await.booking_id;
    let long = saga::Reason { step: None, code: "technical_failure".into(), detail: "x".repeat(450_000) };
    for part in sellers() {
        house.send("BookingInbox", published(&poisoned, Event::Cancelled { part, reason: Some(long.clone()) })).await;
    }
    let id = accepted(api, &request).await;
    assert_eq!(ended(api, &id).await.status, Status::Confirmed);
    let is_it = |message: &aws_sdk_sqs::types::Message| message.body().unwrap().contains(poisoned.as_str());
    house.await_message("BookingDeadLetters", is_it).await;
    settled(house).await;
    assert_eq!(house.depth("BookingDeadLetters").await, 1, "those that were not the last did no harm");
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
    for (inbox, dead_letters) in queues().into_iter().chain([("ReconcilerInbox".into(), "ParkedQueue".into())]) {
        house.send(&inbox, "garbage").await;
        assert!(reason_of(&dead_letters, "garbage").await.contains("no JSON"), "{inbox}");
    }
    // Of the topic nobody gets what is not an event; what looks like one is given up by those who react to it.
    house.publish("garbage").await;
    house.publish(json!({"type": "invoice.sent"})).await;
    house.publish(json!({"type": "booking.requested", "booking_id": "nobody's"})).await;
    house.publish(json!({"type": "booking.aborted", "schema_version": 9, "booking_id": "x"})).await;
    assert!(reason_of("StepFailuresDeadLetters", "nobody's").await.contains("it is not an event"));
    for queue in sellers().into_iter().map(|part| logical(part, "DeadLetters")) {
        assert!(reason_of(&queue, "booking.aborted").await.contains("schema version 9"), "{queue}");
    }
    let request = own.request().await;
    let id = accepted(&own.api, &request).await;
    assert_eq!(ended(&own.api, &id).await.status, Status::Confirmed, "neighbours are not held up");
    settled(house).await;
    let parked = house.depth("StepFailuresDeadLetters").await;
    assert_eq!(parked, 1 + sellers().len(), "each seller gave it up, once");
}

/// Release 0.1 wrote a plan with one field for each part. Nothing of it is misread, and nothing is lost.
#[tokio::test]
async fn an_event_of_release_0_1_is_parked_with_its_reason_and_changes_nothing() {
    let own = Own::called("older").await;
    let (house, api, request) = (&own.house, &own.api, own.request().await);
    let header = house.record_only(&request, &fresh_key("older"), SignedDuration::ZERO).await;
    let id = &header.booking_id;
    let older = |event: Event| {
        let mut event = published(id, event);
        event["schema_version"] = json!(1);
        if let Some(parts) = event["data"].as_object_mut().unwrap().remove("parts") {
            event["data"].as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
        }
        event
    };
    let parts = header.parts.names();
    let (plan, reason) = (header.plan(), Some(saga::Rejection::new("sold_out", "none left").at(Step::Charge)));
    let price = saga::Price { amount: 1, currency: saga::Currency::EUR };
    let requested = older(Event::Requested { plan: plan.clone() });
    assert!(
        requested["data"]["parts"].is_null() && parts.iter().all(|part| requested["data"][part.as_str()].is_object())
    );
    house.publish(&requested).await;
    house.publish(older(Event::Aborted { reason: reason.clone(), parts: plan.parts.clone() })).await;
    house.publish(older(Event::Charged { amount: saga::Money::eur(1) })).await;
    for part in &parts {
        house.publish(older(Event::Cancelled { part: *part, reason: reason.clone() })).await;
        let reserved = older(Event::Reserved { part: *part, price, plan: plan.clone() });
        house.publish(json!({
            "requestContext": {"condition": "Success", "functionArn": format!("a:b:c:d:e:function:{}", house.function(part.as_str()))},
            "requestPayload": {}, "responsePayload": reserved
        }))
        .await;
    }
    let is_parked = async |queue: &str, event: &str| {
        let is_it = |message: &aws_sdk_sqs::types::Message| {
            let body = message.body().unwrap();
            body.contains(id.as_str()) && body.contains(event)
        };
        let parked = house.await_message(queue, is_it).await;
        let reason = parked.message_attributes().unwrap()["reason"].string_value().unwrap().to_owned();
        assert!(reason.contains("has schema version 1, and this program reads version 2 only"), "{event}: {reason}");
    };
    is_parked("BookingDeadLetters", "payment.charged").await;
    is_parked("StepFailuresDeadLetters", "booking.requested").await; // the sellers gave it up
    for part in &parts {
        is_parked(&logical(part, "DeadLetters"), "booking.aborted").await;
        is_parked("BookingDeadLetters", &format!("{part}.cancelled")).await;
        is_parked("StepFailuresDeadLetters", &format!("{part}.reserved")).await; // payment gave it up
    }
    settled(house).await;
    let deadline = Timestamp::now() + DEADLINE;
    let failures = 2 * parts.len(); // each seller the request, payment what each of them answered
    while house.depth("StepFailuresDeadLetters").await < failures {
        assert!(Timestamp::now() < deadline, "{}", house.depth("StepFailuresDeadLetters").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(house.depth("StepFailuresDeadLetters").await, failures);
    assert_eq!(house.depth("BookingDeadLetters").await, 1 + parts.len());
    let booking = api.show(id).await.unwrap();
    assert_eq!((booking.status, booking.timeline.len()), (Status::Pending, 0), "{booking:#?}");
    assert_eq!(house.left(&request).await, untouched(&request));
    // A new request is not held up.
    assert_eq!(ended(api, &accepted(api, &request).await).await.status, Status::Confirmed);
}

/// In the choreographed variant by its event; in the orchestrated one the reconciler starts an execution.
#[tokio::test]
async fn a_part_that_its_seller_cannot_read_fails_its_booking_and_holds_up_nobody() {
    let own = Own::called("invalid").await;
    let (house, api) = (&own.house, &own.api);
    let mut bookings = Vec::new();
    for (part, variant) in sellers().into_iter().flat_map(|part| Variant::ALL.map(|variant| (part, variant))) {
        let mut request = TripRequest { variant, ..own.request().await };
        let unreadable = [json!({"from": {"another": ["release"]}, "of": part}), json!(null), json!([1]), json!({})];
        let contents = unreadable[bookings.len() % unreadable.len()].clone();
        let readable = request.parts.insert(part, contents.clone()).unwrap();
        let age = SignedDuration::from_hours(if variant == Variant::Orchestrated { 48 } else { 0 });
        let header = house.record_only(&request, &fresh_key("invalid"), age).await;
        assert_eq!(header.parts.get(part).unwrap().contents, contents);
        request.parts.insert(part, readable);
        bookings.push((part, header, request));
    }
    let neighbour = own.request().await;
    let done = house.invoke("reconciler", &json!({"source": "aws.events"})).await;
    assert_eq!(done["restarted"].as_array().unwrap().len(), sellers().len(), "{done}");
    for (_, header, _) in bookings.iter().filter(|(_, header, _)| header.variant == Variant::Choreographed) {
        house.publish(requested(header)).await;
    }
    let neighbour_id = accepted(api, &neighbour).await;
    for (part, header, request) in &bookings {
        let booking = ended(api, &header.booking_id).await;
        let code = format!("invalid_{part}");
        assert_eq!(booking.status, Status::Failed, "{part}");
        assert_eq!(reason(&booking), (Some(Step::Reserve(*part)), code.as_str()));
        assert!(booking.reason.as_ref().unwrap().detail.starts_with(&format!("the {part} cannot be read: ")));
        assert_eq!(booking.entry(Step::Cancel(*part)).unwrap().released(), Some(false));
        // The others were asked and answered: they reserved, or came too late.
        for other in sellers().into_iter().filter(|other| other != part) {
            let reserve = booking.entry(Step::Reserve(other)).unwrap();
            let is_late = harmony::scenarios::was_overtaken(&booking, other);
            assert!(reserve.outcome == "reserved" || is_late, "{other}: {booking:#?}");
            assert_eq!(booking.entry(Step::Cancel(other)).unwrap().released(), Some(!is_late), "{other}");
        }
        assert!(booking.entry(Step::Charge).is_none());
        assert_eq!(house.left(request).await, untouched(request), "{part}");
    }
    assert_eq!(ended(api, &neighbour_id).await.status, Status::Confirmed);
    settled(house).await;
    nothing_is_parked(house).await;
    assert_eq!(house.depth("ParkedQueue").await, 0);
}

/// The sellers that have no part in a plan get its events all the same.
#[tokio::test]
async fn an_event_for_a_plan_without_the_sellers_part_does_nothing() {
    let own = Own::called("others").await;
    let (house, api) = (&own.house, &own.api);
    let (mut payments, parts) = (0, sellers().len());
    for part_type in TRAVEL.parts {
        let part = part_type.name;
        let (reserve, cancel) = (Step::Reserve(part), Step::Cancel(part));
        for (token, status, bookings, steps, events) in [
            (
                "tok_visa",
                Status::Confirmed,
                1,
                vec![reserve, Step::Charge, Step::Confirm],
                vec![format!("{part}.reserved"), "payment.charged".into(), "booking.confirmed".into()],
            ),
            (
                "tok_declined",
                Status::Failed,
                0,
                vec![reserve, Step::Charge, cancel, Step::Fail],
                vec![
                    format!("{part}.reserved"),
                    "booking.aborted".into(),
                    format!("{part}.cancelled"),
                    "booking.failed".into(),
                ],
            ),
        ] {
            let mut tap = Tap::on(house).await;
            let mut request = request_of(house, std::slice::from_ref(part_type)).await;
            request.payment.token = token.into();
            let header = house.record_only(&request, &fresh_key("alone"), SignedDuration::ZERO).await;
            house.publish(requested(&header)).await;
            let booking = ended(api, &header.booking_id).await;
            assert_eq!(booking.status, status, "{part}");
            let done: Vec<_> = booking.timeline.iter().map(|entry| Step::named(&entry.step).unwrap()).collect();
            assert_eq!(done, steps, "{part}");
            assert_eq!(house.left(&request).await, left_by(&request, bookings), "{part}");
            // Lambda records every answer, so the topic gets one of each of the others that says nothing.
            let messages = tap.about(&header.booking_id, 1 + events.len() + parts - 1).await;
            let types = messages.iter().map(|message| event_in(message)["type"].as_str().unwrap_or("nothing"));
            let mut types: Vec<_> = types.collect();
            types.sort_unstable();
            let mut expected: Vec<_> = events.iter().map(String::as_str).collect();
            expected.extend(["booking.requested"].into_iter().chain(std::iter::repeat_n("nothing", parts - 1)));
            expected.sort_unstable();
            assert_eq!(types, expected, "{part}");
            payments += 1;
        }
    }
    settled(house).await;
    still(house).await;
    assert_eq!(invocations(house, "payment").await, payments, "what says nothing does not wake it");
    nothing_is_parked(house).await;
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
    let [short, long] = [sellers()[0], sellers()[1]].map(|part| logical(part, "DeadLetters"));
    let seller = Participant::Seller(sellers()[0]);
    let queues =
        DeadLetterQueues::new(sqs.clone(), vec![(seller, house.queue(&short).await)], house.queue(&long).await);
    for (queue, messages) in [(&short, 9), (&long, 35)] {
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
        assert_eq!(house.visible(&short).await, 9);
        let deadline = Timestamp::now() + DEADLINE;
        while house.visible(&long).await < 35 {
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
    let (mut lost, all) = (Vec::new(), TRAVEL.parts.len());
    // How many events arrived before one was lost: at the sellers, at payment.
    for (sellers, payment) in [(0, 0), (all - 1, 0), (all, all - 1), (all, all)] {
        let request = own.request().await;
        let header = house.record_only(&request, &fresh_key(format!("lost-{sellers}{payment}")), two_days).await;
        let mut reserved = Vec::new();
        for part_type in &TRAVEL.parts[..sellers] {
            reserved.push(house.seller(*part_type).react(&requested(&header)).await.unwrap().unwrap());
        }
        for event in &reserved[..payment] {
            house.payment().react(&json!(event)).await.unwrap();
        }
        lost.push((header.booking_id, request, Status::Confirmed));
    }
    // Payment has aborted, and nobody was told.
    let mut request = own.request().await;
    request.payment.token = "tok_declined".into();
    let header = house.record_only(&request, &fresh_key("lost-abort"), two_days).await;
    for part_type in TRAVEL.parts {
        let reserved = house.seller(*part_type).react(&requested(&header)).await.unwrap().unwrap();
        house.payment().react(&json!(reserved)).await.unwrap();
    }
    assert_eq!(api.show(&header.booking_id).await.unwrap().status, Status::Compensating);
    lost.push((header.booking_id, request, Status::Failed));

    let done = house.invoke("reconciler", &json!({"source": "aws.events"})).await;
    assert_eq!(done["stuck"], 5, "{done}");
    for (id, request, status) in lost {
        assert!(done["restarted"].as_array().unwrap().contains(&json!(id)), "{done}");
        let booking = ended(api, &id).await;
        assert_eq!(booking.status, status);
        let bookings = i64::from(status == Status::Confirmed);
        assert_eq!(house.left(&request).await, left_by(&request, bookings));
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
    let first_day = request.first_day();
    request = request.lasting(first_day, 9);
    own.house.seed(&trip_of(&request), 5).await;
    request.traveller.name = "N".repeat(100);
    request.payment.token = "tok_insufficient_funds".into();
    let id = accepted(&own.api, &request).await;
    assert_eq!(ended(&own.api, &id).await.status, Status::Failed);
    let parts = sellers().len();
    let messages = tap.about(&id, 3 + 2 * parts).await;
    let records: Vec<_> = messages.iter().filter(|message| message.get("requestPayload").is_some()).collect();
    assert_eq!(records.len(), parts, "{messages:#?}");
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
    let of_each =
        |happened: &str| sellers().into_iter().map(move |part| format!("{part}.{happened}")).collect::<Vec<_>>();
    let both = [of_each("reserved"), vec!["booking.requested".into()]].concat();
    let confirmed: Vec<String> = ["booking.confirmed", "payment.charged"].map(str::to_owned).into();
    let failed = [of_each("cancelled"), ["booking.aborted", "booking.failed"].map(str::to_owned).into()].concat();
    for (token, others, times) in [("tok_visa", &confirmed, 1), ("tok_declined", &failed, 2)] {
        let own = Own::called(&format!("counted-{times}")).await;
        let (house, api) = (&own.house, &own.api);
        let mut tap = Tap::on(house).await;
        let mut request = own.request().await;
        request.payment.token = token.into();
        let id = accepted(api, &request).await;
        ended(api, &id).await;
        let messages = tap.about(&id, both.len() + others.len()).await;
        let mut types: Vec<_> = messages.iter().map(|message| event_in(message)["type"].as_str().unwrap()).collect();
        types.sort_unstable();
        let mut expected = [both.as_slice(), others].concat();
        expected.sort_unstable();
        assert_eq!(types, expected);
        for part in sellers() {
            assert_eq!(invocations(house, part.as_str()).await, times, "{part}");
        }
        assert_eq!(invocations(house, "payment").await, sellers().len());
        if others == &confirmed {
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
