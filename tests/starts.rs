//! How often a booking is started: an execution of the state machine, or `booking.requested` on the topic. Once for its
//! request, once for each period without an end, once for each message of an operator, and not oftener.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use end_to_end::{DEADLINE, House, Tap, date, event_in, start_with, trip_of};
use jiff::{SignedDuration, Timestamp};
use local_aws::LocalAws;
use operator::dead_letters;
use saga::{BookingId, Claim, IdempotencyKey, PartName, Status, Step, Variant, payment::State};
use serde_json::{Value, json};
use store::{Header, HeaderStore};
use travel::TRAVEL;
use traveller::{Client, TripRequest, client::fresh_key};

/// A period that does not end while a test runs. For EXPRESS no period is shorter than five minutes.
const LONG: &str = "3600";

struct Lab {
    house: House,
    api: Client,
    sfn: aws_sdk_sfn::Client,
    tap: Tap,
    _local: LocalAws, // runs as long as this value lives
}

impl Lab {
    async fn called(name: &str) -> Self {
        let parameters = [("PendingMaxAgeSeconds", "1"), ("MaxDrives", "3"), ("PatienceSeconds", "2")];
        let local = start_with(name, &parameters, &[("SFN_WAIT_SCALE", "0.02")]);
        let house = House::of(local.stack()).await;
        let api = Client::new(&house.stack.api_url).unwrap();
        let sfn = aws_sdk_sfn::Client::new(&house.stack.sdk().await.unwrap());
        let tap = Tap::on(&house).await;
        let lab = Self { house, api, sfn, tap, _local: local };
        assert_eq!(lab.wait_between_drives(LONG).await, "1", "as STANDARD has it");
        lab
    }

    async fn wait_between_drives(&self, seconds: &str) -> String {
        self.house.reconfigure("reconciler", "MIN_DRIVE_PERIOD_SECONDS", seconds).await
    }

    /// Every execution fails at once, and nobody tells one of the sellers what is requested.
    async fn break_both_variants(&self) {
        let fails = json!({"StartAt": "Fails", "States": {"Fails": {"Type": "Fail"}}}).to_string();
        let machine = self.house.stack.state_machine_arn().unwrap();
        self.sfn.update_state_machine().state_machine_arn(machine).definition(fails).send().await.unwrap();
        let sns = aws_sdk_sns::Client::new(&self.house.stack.sdk().await.unwrap());
        let all = sns.list_subscriptions().send().await.unwrap();
        let function = self.house.function(TRAVEL.parts.last().unwrap().name.as_str());
        let mut of_one = all.subscriptions().iter().filter(|each| each.endpoint().unwrap().ends_with(&function));
        let arn = of_one.next().unwrap().subscription_arn().unwrap();
        sns.unsubscribe().subscription_arn(arn).send().await.unwrap();
    }

    async fn request(&self, variant: Variant) -> (TripRequest, String) {
        let request = TripRequest { variant, ..TripRequest::on(date()) };
        self.house.seed(&trip_of(&request), 5).await;
        (request, fresh_key("starts"))
    }

    async fn header(&self, id: &BookingId) -> Header {
        self.house.headers().get(id).await.unwrap().unwrap()
    }

    async fn reconcile(&self) -> Value {
        self.house.invoke("reconciler", &json!({"source": "aws.events"})).await
    }

    async fn until(&self, is_true: impl AsyncFn() -> bool) {
        let deadline = Timestamp::now() + DEADLINE;
        while !is_true().await {
            assert!(Timestamp::now() < deadline, "it does not become true");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The names of a booking's executions; or, of each time that its request was published, nothing.
    async fn starts(&mut self, variant: Variant, id: &BookingId, at_least: usize) -> Vec<String> {
        if variant == Variant::Orchestrated {
            let machine = self.house.stack.state_machine_arn().unwrap();
            let all = self.sfn.list_executions().state_machine_arn(machine).send().await.unwrap();
            let names = all.executions().iter().map(|execution| execution.name().to_owned());
            let mut names: Vec<_> = names.filter(|name| name.starts_with(id.as_str())).collect();
            names.sort();
            return names;
        }
        let messages = self.tap.about(id, at_least).await;
        let types = messages.iter().map(|message| event_in(message)["type"].as_str().unwrap());
        types.filter(|event| *event == "booking.requested").map(|_| String::new()).collect()
    }
}

#[tokio::test]
async fn a_booking_is_started_for_its_request_each_period_and_each_redrive_and_not_oftener() {
    let mut lab = Lab::called("starts").await;
    lab.break_both_variants().await;
    let mut bookings = Vec::new();
    for variant in Variant::ALL {
        let (request, key) = lab.request(variant).await;
        let id = lab.api.book_accepted(&request, &key).await.unwrap().booking_id;
        for _ in 0..5 {
            let answer = lab.api.book(&request, &key).await.unwrap();
            assert!(answer.is_replay(), "{answer:?}");
        }
        bookings.push((variant, id));
    }
    lab.until(async || lab.reconcile().await["stuck"] == 2).await; // both are old enough
    for _ in 0..3 {
        assert_eq!(lab.reconcile().await["restarted"], json!([]), "within the period");
    }
    for (variant, id) in &bookings {
        assert_eq!(lab.starts(*variant, id, 1).await.len(), 1, "{}: one for the request", variant.name());
    }

    lab.wait_between_drives("1").await;
    for (variant, id) in &bookings {
        lab.until(async || {
            lab.reconcile().await;
            lab.header(id).await.status == Status::NeedsOperator
        })
        .await;
        let header = lab.header(id).await;
        assert_eq!((header.claim.number, header.claim.drives), (4, 3));
        assert_eq!(lab.starts(*variant, id, 4).await.len(), 4, "{}: and one for each period", variant.name());
        let reason = header.reason.unwrap();
        assert_eq!((reason.step, reason.code.as_str()), (None, "not_ended"));
        assert!(reason.detail.starts_with("driven again 3 times"), "{}", reason.detail);
    }
    lab.wait_between_drives(LONG).await;

    // Each message of an operator is one more, however often it comes.
    for (variant, id) in &bookings {
        let is_it = |message: &aws_sdk_sqs::types::Message| message.body().unwrap().contains(id.as_str());
        let parked = lab.house.await_message("ParkedQueue", is_it).await;
        let (sqs, url) = (lab.house.sqs().await, lab.house.queue("ParkedQueue").await);
        sqs.delete_message().queue_url(url).set_receipt_handle(parked.receipt_handle.clone()).send().await.unwrap();
        for _ in 0..2 {
            lab.house.send("ReconcilerInbox", parked.body().unwrap()).await;
            lab.until(async || lab.house.depth("ReconcilerInbox").await == 0).await;
        }
        let header = lab.header(id).await;
        assert_eq!((header.status, header.reason), (Status::Pending, None));
        assert_eq!((header.claim.number, header.claim.drives), (5, 0));
        dead_letters::drive(&lab.house.stack, std::slice::from_ref(id)).await.unwrap();
        lab.until(async || lab.house.depth("ReconcilerInbox").await == 0).await;
        let starts = lab.starts(*variant, id, 6).await;
        assert_eq!(starts.len(), 6, "{}", variant.name());
        if *variant == Variant::Orchestrated {
            let names = (2..=6).map(|number| format!("{id}-{number}"));
            assert_eq!(starts, [id.to_string()].into_iter().chain(names).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_start_that_was_refused_is_made_by_the_next_repeat_or_run_at_once() {
    let lab = Lab::called("refused").await;
    let refuse = async |function: &str| {
        let machine =
            lab.house.reconfigure(function, "STATE_MACHINE_ARN", &nowhere(&lab, "states", "stateMachine:no")).await;
        let topic = lab.house.reconfigure(function, "EVENTS_TOPIC_ARN", &nowhere(&lab, "sns", "no")).await;
        (machine, topic)
    };
    let (machine, topic) = refuse("api").await;
    refuse("reconciler").await;
    let mend = async |function: &str| {
        lab.house.reconfigure(function, "STATE_MACHINE_ARN", &machine).await;
        lab.house.reconfigure(function, "EVENTS_TOPIC_ARN", &topic).await;
    };
    for variant in Variant::ALL {
        for by_the_client in [true, false] {
            refuse("api").await;
            let (request, key) = lab.request(variant).await;
            let id = BookingId::derive("anonymous", &IdempotencyKey::try_from(key.as_str()).unwrap());
            for _ in 0..2 {
                assert_eq!(lab.api.book(&request, &key).await.unwrap().status, 503);
                assert_eq!(lab.header(&id).await.claim, Claim::default(), "{}", variant.name());
            }
            refuse("reconciler").await;
            lab.until(async || lab.reconcile().await["errorType"].is_string()).await; // once the booking is old enough
            assert_eq!(lab.header(&id).await.claim, Claim::default(), "{}", variant.name());
            if by_the_client {
                mend("api").await;
                assert!(lab.api.book(&request, &key).await.unwrap().is_replay());
            } else {
                mend("reconciler").await;
                lab.reconcile().await;
            }
            assert_eq!(lab.api.wait_until_settled(&id, DEADLINE).await.unwrap().status, Status::Confirmed);
            assert_eq!(lab.header(&id).await.claim.number, 1);
        }
    }
}

/// The API lets no such plan in. It may be there all the same, if the seller is gone, or its part was let in too early.
#[tokio::test]
async fn a_plan_with_a_part_that_nobody_sells_needs_an_operator_and_nothing_of_it_is_charged() {
    let lab = Lab::called("nobody-sells").await;
    let sauna = PartName::new("sauna");
    for (variant, sold) in Variant::ALL.into_iter().flat_map(|variant| [(variant, TRAVEL.parts), (variant, &[])]) {
        let which = format!("{}, beside {sold:?}", variant.name());
        let mut request = TripRequest { variant, ..TripRequest::of(sold, date(), 3) };
        if !sold.is_empty() {
            lab.house.seed(&trip_of(&request), 5).await;
        }
        request.set(sauna, "hours", 2);
        let refused = lab.api.book(&request, &fresh_key("refused")).await.unwrap();
        assert_eq!(refused.status, 400, "{which}: {refused:?}");
        assert!(refused.body.contains("\"/sauna\""), "{which}: {refused:?}");

        let untouched = lab.house.left(&request).await;
        lab.wait_between_drives(LONG).await;
        let two_days = SignedDuration::from_hours(48);
        let id = lab.house.record_only(&request, &fresh_key("nobody-sells"), two_days).await.booking_id;
        let done = lab.reconcile().await;
        assert_eq!(done["restarted"], json!([id]), "{which}: {done}");
        let events = Variant::Choreographed == variant;
        if events {
            lab.wait_between_drives("1").await; // nobody has given up, so it is driven as often as is allowed
        }
        lab.until(async || {
            if events {
                lab.reconcile().await;
            }
            lab.header(&id).await.status == Status::NeedsOperator
        })
        .await;

        let (header, booking) = (lab.header(&id).await, lab.api.show(&id).await.unwrap());
        let reason = header.reason.as_ref().unwrap();
        let expected = if events { (None, "not_ended") } else { (Some(Step::Cancel(sauna)), "parked") };
        assert_eq!((reason.step, reason.code.as_str()), expected, "{which}: {reason:?}");
        assert_eq!(booking.status, Status::NeedsOperator, "{which}");
        assert!(booking.parts().iter().all(|(part, _)| trip_of(&request).get(*part).is_some()), "{booking:#?}");
        let reference = header.plan().payment.reference;
        assert_eq!(lab.house.ledger().paid(&reference).await.unwrap(), None, "{which}");
        let state = lab.house.payments().state(&id).await.unwrap();
        let outcome = |step| booking.entry(step).map(|entry| entry.outcome.as_str());
        assert_eq!(outcome(Step::Charge), None, "{which}");
        for part_type in sold {
            let (reserve, cancel) = (Step::Reserve(part_type.name), Step::Cancel(part_type.name));
            assert_eq!(outcome(reserve), Some("reserved"), "{which}: {booking:#?}");
            // Of what was given up the conductor takes everything back. The dancers still wait: a seller may yet come.
            assert_eq!(outcome(cancel), (!events).then_some("cancelled"), "{which}: {booking:#?}");
        }
        let left = lab.house.left(&request).await;
        if events {
            assert_eq!(state, State::Collecting, "{which}");
            assert!(left.iter().zip(&untouched).all(|(left, untouched)| left < untouched), "{which}: {left:?}");
        } else {
            assert!(matches!(state, State::Aborted { .. }), "{which}: {state:?}");
            assert_eq!(left, untouched, "{which}");
        }
    }
}

fn nowhere(lab: &Lab, service: &str, name: &str) -> String {
    let arn = lab.house.stack.state_machine_arn().unwrap();
    let account: Vec<_> = arn.split(':').skip(3).take(2).collect();
    format!("arn:aws:{service}:{}:{name}", account.join(":"))
}
