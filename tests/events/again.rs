//! Messages that come twice or in another order, contradict each other, or are for somebody else.

use super::*;

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
        assert!(
            log.contains("event for another participant ignored"),
            "{function} was sent nothing that is not for it"
        );
    }
    nothing_is_parked(&house).await;
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
