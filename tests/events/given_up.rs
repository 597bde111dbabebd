//! Steps that are given up.

use super::*;

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
    operator::dead_letters::drive(&own.house.stack, std::slice::from_ref(&id)).await.unwrap();
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
