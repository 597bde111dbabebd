//! The choreographed variant on the local AWS: what happens when messages come twice, late, in another order or not at
//! all, when steps are given up, and when somebody publishes what nobody can read.

#![allow(clippy::unwrap_used)]

#[path = "events/again.rs"]
mod again;
#[path = "events/given_up.rs"]
mod given_up;
#[path = "events/unreadable.rs"]
mod unreadable;

use std::{collections::BTreeSet, time::Duration};

use aws_sdk_dynamodb::types::AttributeValue;
use end_to_end::{
    DEADLINE, House, Tap, date,
    deployed::{logical, sellers},
    event_in, lines, part_of, start_with, trip_of,
};
use jiff::{SignedDuration, Timestamp};
use local_aws::LocalAws;
use saga::{BookingId, Envelope, Event, PartName, PartType, Participant, Status, Step, Variant};
use serde_json::{Value, json};
use services::{DeadLetterQueues, DeadLetters};
use store::{Header, HeaderStore};
use travel::TRAVEL;
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

fn reason(booking: &Booking) -> (Option<Step>, &str) {
    let reason = booking.reason.as_ref().unwrap_or_else(|| panic!("no reason: {booking:#?}"));
    (reason.step.as_deref().and_then(Step::named), reason.code.as_str())
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

/// How often a function was invoked, by its log.
async fn invocations(house: &House, function: &str) -> usize {
    log(house, function).await.matches("REPORT RequestId").count()
}

async fn log(house: &House, function: &str) -> String {
    let headers = [("x-amz-target", "Logs_20140328.FilterLogEvents"), ("content-type", "application/x-amz-json-1.1")];
    let group = json!({"logGroupName": format!("/aws/lambda/{}", house.function(function))});
    house.aws("logs").await.send("POST", "/", &headers, group.to_string()).await.unwrap().body
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
