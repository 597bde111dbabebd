//! Events: each leads to the same requests as a command, and one more where others are waited for.

use super::{booking::header, *};

type Reacted = (usize, Result<Option<StepResponse>, StepError>);

/// What is published, which must be an event, and how many requests it took.
fn event((calls, response): Reacted) -> (usize, Envelope) {
    match response.unwrap() {
        Some(StepResponse::Event(event)) => (calls, *event),
        other => panic!("expected an event, got {other:?}"),
    }
}

fn nothing((calls, response): Reacted) -> usize {
    assert!(response.as_ref().unwrap().is_none(), "{response:?}");
    calls
}

/// These parts of a trip.
fn some(trip: &Parts, chosen: &[PartType]) -> Parts {
    let part = |part_type: &PartType| (part_type.name, trip.get(part_type.name).unwrap().contents);
    Parts::try_from(chosen.iter().map(part).collect::<BTreeMap<_, _>>()).unwrap()
}

/// The first event of a booking of these parts that is recorded and whose stock is on sale.
async fn requested(house: &House, chosen: &[PartType]) -> Envelope {
    let header = header(house, some(&trip(date()), chosen)).await;
    house.seed(&header.parts, 5).await;
    let plan = header.plan();
    let token = PaymentToken::try_from("tok_visa").unwrap();
    house.payment().provider.attach(&plan.payment.reference, &token).await.unwrap().unwrap();
    Envelope::requested(header.booking_id, plan, Timestamp::now(), Some("Root=1-x".into()))
}

/// Parts that a trip may have, and this one has not.
fn others(chosen: &[PartType]) -> impl Iterator<Item = &'static PartType> {
    let chosen: Vec<_> = chosen.iter().map(|part_type| part_type.name).collect();
    TRAVEL.parts.iter().filter(move |part_type| !chosen.contains(&part_type.name))
}

#[tokio::test]
async fn events_lead_to_a_confirmation_with_the_same_requests_and_one_more_for_each_that_is_waited_for() {
    let house = House::new().await;
    for chosen in choices() {
        let requested = requested(&house, &chosen).await;
        for part_type in others(&chosen) {
            let calls = nothing(house.counted(house.seller(*part_type).react(&json!(requested))).await);
            assert_eq!(calls, 0, "{} is not in {chosen:?}", part_type.name);
        }
        let mut reserved = Vec::new();
        for part_type in &chosen {
            let seller = house.seller(*part_type);
            for repeat in [false, true] {
                let (calls, event) = event(house.counted(seller.react(&json!(requested))).await);
                assert_eq!(calls, 1, "{part_type:?}, {repeat}");
                assert!(matches!(&event.event, Event::Reserved { part, .. } if *part == part_type.name), "{event:?}");
                assert_eq!(event.causation_id, Some(requested.event_id()));
                assert_eq!(event.trace, requested.trace);
                if !repeat {
                    reserved.push(event);
                }
            }
        }
        let payment = house.payment();
        let (last, before) = reserved.split_last().unwrap();
        for event in before.iter().chain(before) {
            assert_eq!(nothing(house.counted(payment.react(&json!(event))).await), 1, "a part twice is not two parts");
        }
        let (calls, charged) = event(house.counted(payment.react(&json!(last))).await);
        assert_eq!(calls, 1 + 3, "{chosen:?}");
        let (calls, again) = event(house.counted(payment.react(&json!(reserved[0]))).await);
        assert_eq!((calls, &again.event), (1 + 1, &charged.event), "a duplicate is answered the same");

        let booking = house.booking();
        for _ in 0..2 {
            let (calls, confirmed) = event(house.counted(booking.react(&json!(charged))).await);
            assert_eq!(calls, 1);
            assert!(matches!(confirmed.event, Event::Confirmed { .. }));
        }
        let header = house.headers().get(&requested.booking_id).await.unwrap().unwrap();
        let Event::Charged { amount } = charged.event else { panic!("{charged:?}") };
        assert_eq!((header.status, header.total), (Status::Confirmed, Some(amount)));
        let price = |event: &Envelope| match &event.event {
            Event::Reserved { price, .. } => price.amount,
            other => panic!("{other:?}"),
        };
        assert_eq!(reserved.iter().map(price).sum::<i64>(), amount.amount as i64, "{chosen:?}");
    }
}

#[tokio::test]
async fn events_lead_to_a_failure_that_is_published_only_when_every_part_is_given_back() {
    let house = House::new().await;
    for chosen in choices() {
        for rejected in &chosen {
            fail(&house, &chosen, rejected).await;
        }
    }
}

/// One part is sold out. Of the others every second one is reserved in time, the rest late, which comes to nothing.
async fn fail(house: &House, chosen: &[PartType], sold_out: &PartType) {
    let (requested, which) = (requested(house, chosen).await, format!("{} of {chosen:?}", sold_out.name));
    let parts = requested.event.plan().unwrap().parts.clone();
    house.seed_part(&parts.get(sold_out.name).unwrap(), 0).await;
    let others = chosen.iter().filter(|part_type| part_type.name != sold_out.name);
    let (in_time, late): (Vec<_>, Vec<_>) = others.enumerate().partition(|(nth, _)| nth % 2 == 0);
    let react = async |part_type: &PartType, message: &Envelope| {
        event(house.counted(house.seller(*part_type).react(&json!(message))).await)
    };
    let payment = house.payment();
    for (_, part_type) in &in_time {
        let (_, reserved) = react(part_type, &requested).await;
        assert_eq!(nothing(house.counted(payment.react(&json!(reserved))).await), 1, "{which}");
    }
    let (calls, rejected) = react(sold_out, &requested).await;
    assert_eq!(calls, 2, "{which}");
    let (calls, aborted) = event(house.counted(payment.react(&json!(rejected))).await);
    assert_eq!(calls, 2, "{which}");

    let mut cancelled = Vec::new();
    for part_type in chosen {
        let (calls, event) = react(part_type, &aborted).await;
        let is_reserved = in_time.iter().any(|(_, reserved)| reserved.name == part_type.name);
        assert_eq!(calls, if is_reserved { 1 } else { 2 }, "{which}: {}", part_type.name);
        cancelled.push(event);
    }
    for (_, part_type) in late {
        let (_, late) = react(part_type, &requested).await;
        assert!(matches!(late.event, Event::Rejected { part, .. } if part == part_type.name), "{late:?}");
        let (_, again) = event(house.counted(payment.react(&json!(late))).await);
        assert_eq!(again.event, aborted.event, "the first reason stays");
    }

    let booking = house.booking();
    let (last, before) = cancelled.split_last().unwrap();
    for event in before.iter().chain(before) {
        assert_eq!(nothing(house.counted(booking.react(&json!(event))).await), 1, "{which}");
        assert_eq!(house.headers().get(&requested.booking_id).await.unwrap().unwrap().status, Status::Pending);
    }
    let (calls, failed) = event(house.counted(booking.react(&json!(last))).await);
    assert_eq!(calls, 1 + 1, "{which}");
    let Event::Failed { reason: Some(reason) } = failed.event else { panic!("{failed:?}") };
    assert_eq!((reason.step, reason.code.as_str()), (Some(Step::Reserve(sold_out.name)), "sold_out"), "{which}");
    for (name, contents) in parts.iter().filter(|(name, _)| *name != sold_out.name) {
        let part = Part { name, contents: contents.clone() };
        assert_eq!(house.available(&part).await, all(5, &part), "{which}: {name}");
    }
}

#[tokio::test]
async fn a_part_that_its_seller_cannot_read_is_rejected_and_holds_up_no_neighbour() {
    let house = House::new().await;
    for odd in TRAVEL.parts {
        let whole = trip(date());
        house.seed(&whole, 5).await;
        let mut parts: BTreeMap<_, _> = whole.iter().map(|(name, contents)| (name, contents.clone())).collect();
        parts.insert(odd.name, json!({"odd": true}));
        let header = header(&house, Parts::try_from(parts).unwrap()).await;
        let requested = Envelope::requested(header.booking_id.clone(), header.plan(), Timestamp::now(), None);
        let mut published = Vec::new();
        for part_type in TRAVEL.parts {
            published.push(event(house.counted(house.seller(*part_type).react(&json!(requested))).await).1);
        }
        let mut aborted = None;
        for event in published {
            let is_odd = matches!(event.event, Event::Rejected { part, .. } if part == odd.name);
            assert!(is_odd || matches!(event.event, Event::Reserved { part, .. } if part != odd.name), "{event:?}");
            aborted = house.payment().react(&json!(event)).await.unwrap().or(aborted);
        }
        let aborted = json!(aborted.expect("payment aborts"));
        let mut failed = None;
        for part_type in TRAVEL.parts {
            let cancelled = house.seller(*part_type).react(&aborted).await.unwrap().unwrap();
            failed = house.booking().react(&json!(cancelled)).await.unwrap();
        }
        let failed = json!(failed.expect("booking fails"));
        assert_eq!(failed["type"], "booking.failed");
        assert_eq!(failed["data"]["reason"]["code"], format!("invalid_{}", odd.name));
        for (part_type, part) in each(&whole) {
            assert_eq!(house.available(&part).await, all(5, &part), "{}", part_type.name);
        }
    }
}

#[tokio::test]
async fn a_step_that_was_given_up_aborts_and_names_the_step() {
    let house = House::new().await;
    for chosen in choices() {
        let requested = requested(&house, &chosen).await;
        let (payment, message) = (house.payment(), json!(requested));
        // One that has no part in the plan has given up nothing of it.
        for part_type in others(&chosen) {
            let function = format!("harmony-{}", part_type.name);
            let react = payment.react_to_failure(&message, &function, "StoreUnavailable");
            assert_eq!(nothing(house.counted(react).await), 0, "{function}: {chosen:?}");
        }
        let function = format!("harmony-{}", chosen[0].name);
        let react = payment.react_to_failure(&message, &function, "StoreUnavailable");
        let (calls, aborted) = event(house.counted(react).await);
        assert_eq!(calls, 2);
        let Event::Aborted { reason: Some(reason), .. } = aborted.event else { panic!("{aborted:?}") };
        assert_eq!(reason.step, Some(Step::Reserve(chosen[0].name)));
        let said = (reason.code.as_str(), reason.detail.as_str());
        assert_eq!(said, ("technical_failure", "gave up after StoreUnavailable"));
    }
}

#[tokio::test]
async fn a_failure_that_is_reported_after_the_charge_goes_forwards() {
    let house = House::new().await;
    for chosen in choices() {
        let requested = requested(&house, &chosen).await;
        let mut charged = None;
        for part_type in &chosen {
            let reserved = event(house.counted(house.seller(*part_type).react(&json!(requested))).await).1;
            charged = house.payment().react(&json!(reserved)).await.unwrap();
        }
        assert!(charged.is_some());
        for part_type in &chosen {
            let (payment, function) = (house.payment(), format!("harmony-{}", part_type.name));
            let late = payment.react_to_failure(&json!(requested), &function, "Runtime.ExitError").await.unwrap();
            let Some(StepResponse::Event(event)) = late else { panic!("{late:?}") };
            assert!(matches!(event.event, Event::Charged { .. }), "{event:?}");
        }
    }
}

#[tokio::test]
async fn what_concerns_nobody_costs_nothing_and_what_nobody_can_read_is_an_error() {
    let house = House::new().await;
    let envelope = |event| Envelope {
        booking_id: booking_id("ignored"),
        event,
        causation_id: None,
        time: Timestamp::now(),
        trace: None,
    };
    for event in saga::event::samples(&trip(date())) {
        let (event_type, message) = (event.event_type(), json!(envelope(event.clone())));
        if reaction::of_payment(&event).is_none() {
            let calls = nothing(house.counted(house.payment().react(&message)).await);
            assert_eq!(calls, 0, "payment: {event_type}");
        }
        if reaction::of_booking(&event).is_none() {
            let calls = nothing(house.counted(house.booking().react(&message)).await);
            assert_eq!(calls, 0, "booking: {event_type}");
        }
        for part_type in TRAVEL.parts.iter().filter(|it| reaction::of_seller(it.name, &event).is_none()) {
            let calls = nothing(house.counted(house.seller(*part_type).react(&message)).await);
            assert_eq!(calls, 0, "{}: {event_type}", part_type.name);
        }
    }
    assert_eq!(nothing(house.counted(house.booking().react(&json!({"type": "invoice.sent"}))).await), 0);
    let garbage = [
        json!({}),
        json!({"type": "booking.aborted"}),
        json!({"type": "booking.aborted", "schema_version": 1}),
        json!({"type": "booking.aborted", "schema_version": 2}),
        json!({"type": "booking.aborted", "schema_version": 3}),
    ];
    for (part_type, garbage) in TRAVEL.parts.iter().flat_map(|part_type| garbage.iter().map(move |it| (part_type, it)))
    {
        let error = house.seller(*part_type).react(garbage).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{garbage}");
    }
    let nobody = envelope(Event::Cancelled { part: CAR.name, reason: None });
    let error = house.booking().react(&json!(nobody)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Contradiction);
    assert!(house.headers().get(&nobody.booking_id).await.unwrap().is_none(), "no header out of nothing");
}
