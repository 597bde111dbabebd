//! Booking: how a header ends, and who may start what it stands for.

use super::*;

pub(super) async fn header(house: &House, parts: Parts) -> Header {
    let now = Timestamp::now();
    let header = Header {
        booking_id: booking_id("header"),
        request_digest: "digest".into(),
        variant: saga::Variant::Orchestrated,
        status: Status::Pending,
        owner: saga::Owner::of("tests"),
        parts,
        total: None,
        reason: None,
        claim: Claim::first(now),
        created_at: now,
        updated_at: now,
    };
    let customer = Customer { name: "Ada".into(), email: "a@b".into() };
    let (calls, created) = house.counted(house.intake().accept(&header, &customer, now)).await;
    assert_eq!((calls, created.unwrap()), (1, Commit::Done));
    header
}

fn command(header: &Header, step: Step, name: &str, value: Value) -> Value {
    json!({"step": step, "booking_id": header.booking_id, name: value})
}

#[tokio::test]
async fn a_booking_is_confirmed_or_failed_in_one_request_and_stays_so() {
    let reason = Reason { step: Some(Step::Reserve(HOTEL.name)), code: "sold_out".into(), detail: "no room".into() };
    for (step, opposite, status) in
        [(Step::Confirm, Step::Fail, Status::Confirmed), (Step::Fail, Step::Confirm, Status::Failed)]
    {
        let house = House::new().await;
        let (service, header) = (house.booking(), header(&house, trip(date())).await);
        let end = |step| match step {
            Step::Confirm => command(&header, step, "total", json!(TOTAL)),
            _ => command(&header, step, "reason", json!(reason)),
        };
        for _ in 0..2 {
            let (calls, response) = house.counted(service.handle(&end(step))).await;
            let StepResponse::Reply(reply) = response.unwrap() else { panic!("a command is answered with a reply") };
            assert_eq!((calls, reply.step), (1, step));
            let found = house.headers().get(&header.booking_id).await.unwrap().unwrap();
            assert_eq!(found.status, status);
            assert_eq!(found.total.is_some(), status == Status::Confirmed);
            assert_eq!(found.reason.is_some(), status == Status::Failed);
        }
        let contradiction = service.handle(&end(opposite)).await.unwrap_err();
        assert_eq!(contradiction.kind(), ErrorKind::Contradiction);
        assert_eq!(house.headers().get(&header.booking_id).await.unwrap().unwrap().status, status);
    }
}

#[tokio::test]
async fn every_open_booking_is_found_the_oldest_first_whatever_its_item_holds() {
    const SHARED: usize = 70;
    let house = House::new().await;
    let dynamodb = aws_sdk_dynamodb::Client::new(&house.stack.sdk().await.unwrap());
    let time = |nth: usize| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(nth as i64);
    let id = |nth: usize| format!("c{nth:031x}"); // all in one shard, and no header could be read of any
    for nth in (0..SHARED).rev() {
        let put = dynamodb.put_item().table_name(house.stack.bookings_table().unwrap());
        let put = put.item("booking_id", AttributeValue::S(id(nth))).item("open_shard", AttributeValue::S("c".into()));
        put.item("created_at", AttributeValue::S(format!("{:.3}", time(nth)))).send().await.unwrap();
    }
    let open = async |before| {
        let (open, errors) = house.headers().open_before(before).await;
        assert!(errors.is_empty(), "{errors:?}");
        open.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(open(time(SHARED)).await, (0..SHARED).map(id).collect::<Vec<_>>());
    assert_eq!(open(time(1)).await, [id(0)]);
}

#[tokio::test]
async fn a_parked_booking_leaves_the_index_and_can_still_be_ended() {
    let house = House::new().await;
    let (service, header) = (house.booking(), header(&house, trip(date())).await);
    let is_open = async || {
        let (open, errors) = house.headers().open_before(Timestamp::now() + SignedDuration::from_mins(1)).await;
        assert!(errors.is_empty(), "{errors:?}");
        open.contains(&header.booking_id)
    };
    assert!(is_open().await);
    let reason = json!({"step": "hotel.cancel", "code": "parked", "detail": "gave up"});
    for _ in 0..2 {
        service.handle(&command(&header, Step::Park, "reason", reason.clone())).await.unwrap();
        let found = house.headers().get(&header.booking_id).await.unwrap().unwrap();
        assert_eq!(found.status, Status::NeedsOperator);
        assert_eq!(found.reason.unwrap().step, Some(Step::Cancel(HOTEL.name)));
    }
    assert!(!is_open().await);
    service.handle(&command(&header, Step::Confirm, "total", json!(TOTAL))).await.unwrap();
    let found = house.headers().get(&header.booking_id).await.unwrap().unwrap();
    assert_eq!((found.status, found.reason), (Status::Confirmed, None));
    // A park that comes late changes nothing.
    service.handle(&command(&header, Step::Park, "reason", reason)).await.unwrap();
    assert_eq!(house.headers().get(&header.booking_id).await.unwrap().unwrap().status, Status::Confirmed);
}

#[tokio::test]
async fn a_start_is_claimed_by_one_and_what_is_not_as_it_was_known_by_nobody() {
    let house = House::new().await;
    let (headers, header) = (house.headers(), header(&house, trip(date())).await);
    let read = async || headers.get(&header.booking_id).await.unwrap().unwrap();
    let now = Timestamp::now();
    let second = Claim { number: 2, at: Some(now), drives: 1, redrive: None };
    let (calls, is_claimed) = house.counted(headers.claim(&header, &second, now)).await;
    assert_eq!((calls, is_claimed.unwrap()), (1, true));
    assert!(!headers.claim(&header, &second, now).await.unwrap(), "somebody was first");

    let taken = read().await;
    assert_eq!((taken.claim.number, taken.claim.at.is_some(), taken.claim.drives), (2, true, 1));
    assert!(headers.claim(&taken, &taken.claim.released(), now).await.unwrap());
    let released = read().await;
    assert_eq!(released.claim, Claim { number: 1, at: None, drives: 0, redrive: None });

    let reason = json!({"step": null, "code": "not_ended", "detail": "driven again"});
    house.booking().handle(&command(&header, Step::Park, "reason", reason)).await.unwrap();
    assert!(!headers.claim(&released, &second, now).await.unwrap(), "it needs an operator");
    let redrive = Claim { redrive: Some("message".into()), ..second };
    assert!(headers.claim(&read().await, &redrive, now).await.unwrap(), "who asks for it");
    let found = read().await;
    assert_eq!((found.status, found.reason, found.claim.redrive), (Status::Pending, None, redrive.redrive));
    let (open, _) = headers.open_before(now + SignedDuration::from_mins(1)).await;
    assert!(open.contains(&header.booking_id), "the reconciler finds it again");
}

#[tokio::test]
async fn a_booking_of_release_0_1_is_not_misread_and_its_request_is_still_answered() {
    let house = House::new().await;
    let header = header(&house, trip(date())).await;
    let key = AttributeValue::S(header.booking_id.to_string());
    let table = house.stack.bookings_table().unwrap();
    let request = house.client.update_item().table_name(table).key("booking_id", key);
    let trip = AttributeValue::S(json!(header.parts).to_string());
    let request = request.expression_attribute_values(":trip", trip);
    request.update_expression("SET trip = :trip REMOVE parts").send().await.unwrap();
    let is_told = |error: &str| assert!(error.contains("release 0.1: see docs/deploy.md"), "{error}");
    let Err(error) = house.headers().get(&header.booking_id).await else { panic!("it is misread") };
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    is_told(&error.to_string());
    let receipt = house.intake().receipt(&header.booking_id).await.unwrap().unwrap();
    assert_eq!((receipt.request_digest, receipt.status), (header.request_digest, Status::Pending));
    is_told(&receipt.header.unwrap_err().to_string());
    let event = Envelope {
        booking_id: header.booking_id,
        event: Event::Cancelled { part: CAR.name, reason: None },
        causation_id: None,
        time: Timestamp::now(),
        trace: None,
    };
    is_told(&house.booking().react(&json!(event)).await.unwrap_err().to_string());
}

#[tokio::test]
async fn a_booking_that_nobody_recorded_cannot_be_ended() {
    let house = House::new().await;
    let nobody = json!({"step": "booking.confirm", "booking_id": booking_id("nobody"), "total": TOTAL});
    assert_eq!(house.booking().handle(&nobody).await.unwrap_err().kind(), ErrorKind::Contradiction);
}
