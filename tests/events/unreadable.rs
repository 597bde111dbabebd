//! What nobody, or not everybody, can read.

use super::*;

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
        ("{\"type\": 5", "not valid JSON"),
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
        assert!(reason_of(&dead_letters, "garbage").await.contains("not valid JSON"), "{inbox}");
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
            let is_late = traveller::scenarios::was_overtaken(&booking, other);
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
