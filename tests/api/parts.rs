//! Which parts a trip has.

use super::*;

#[tokio::test]
async fn every_choice_of_parts_is_booked_shown_and_charged_in_both_variants_and_nothing_else_is() {
    let mut running = tokio::task::JoinSet::new();
    let all = choices().into_iter().flat_map(|choice| Variant::ALL.map(|variant| (choice.clone(), variant)));
    for (choice, variant) in all {
        running.spawn(async move {
            let (house, api, request) = setting_of(&choice, 5).await;
            let (request, description) = (TripRequest { variant, ..request }, Description::of(&api).await);
            let what = format!("{choice:?}, {}", variant.name());
            let answer = api.book(&request, &fresh_key("choice")).await.unwrap();
            assert_eq!(answer.status, 202, "{what}: {}", answer.body);
            description.check("/bookings", "post", answer.status, &answer.body);
            let id = answer.accepted().unwrap().booking_id;
            let booking = api.wait_until_settled(&id, DEADLINE).await.unwrap();
            assert_eq!(booking.status, Status::Confirmed, "{what}: {booking:#?}");
            assert_eq!(scenarios::contradictions(&booking), Vec::<String>::new(), "{what}");

            // It has the parts that were asked for, and steps of these only.
            let shown = api.send("GET", &format!("/bookings/{id}"), &[], "").await.unwrap();
            description.check("/bookings/{booking_id}", "get", 200, &shown.body);
            let shown: Value = shown.json().unwrap();
            for part_type in TRAVEL.parts {
                let name = part_type.name;
                assert_eq!(shown.get(name.as_str()), request.parts.get(&name), "{what}");
            }
            let names: Vec<_> = choice.iter().map(|part_type| part_type.name).collect();
            let steps: BTreeSet<_> = booking.timeline.iter().map(|entry| Step::named(&entry.step).unwrap()).collect();
            let reserves = names.iter().copied().map(Step::Reserve);
            assert_eq!(steps, reserves.clone().chain([Step::Charge, Step::Confirm]).collect(), "{what}");

            // The sum of their prices is charged, and each line is taken.
            let prices = reserves.map(|step| booking.entry(step).unwrap().money().unwrap().amount);
            let sum = Some(Money::eur(prices.sum()));
            let header = house.headers().get(&id).await.unwrap().unwrap();
            let paid = house.ledger().paid(&PaymentReference::derive(&id, &header.request_digest)).await.unwrap();
            assert_eq!((booking.total, paid.map(|paid| paid.amount)), (sum, sum), "{what}");
            assert_eq!(booking.entry(Step::Charge).unwrap().money(), sum, "{what}");
            assert_eq!(house.left(&request).await, left(&request, 5, 1), "{what}");
        });
    }
    assert_eq!(running.join_all().await.len(), 2 * ((1 << TRAVEL.parts.len()) - 1));
}

#[tokio::test]
async fn whichever_part_of_whichever_choice_is_sold_out_nothing_is_charged_and_nothing_is_left() {
    let mut running = tokio::task::JoinSet::new();
    for choice in choices() {
        for (nth, sold_out) in choice.clone().into_iter().enumerate() {
            let choice = choice.clone();
            running.spawn(async move {
                let (house, api, request) = setting_of(&choice, 5).await;
                let variant = Variant::ALL[(nth + choice.len()) % 2];
                let (request, what) = (TripRequest { variant, ..request }, format!("{sold_out:?} of {choice:?}"));
                house.seed_part(&part_of(&request, sold_out.name), 0).await;
                let before = house.left(&request).await;
                let booking = book(&api, &request).await;
                assert_eq!(booking.status, Status::Failed, "{what}: {booking:#?}");
                assert_eq!(scenarios::contradictions(&booking), Vec::<String>::new(), "{what}");
                let reason = booking.reason.as_ref().unwrap();
                let step = Step::Reserve(sold_out.name).to_string();
                assert_eq!((reason.step.as_deref(), reason.code.as_str()), (Some(step.as_str()), "sold_out"), "{what}");
                assert!(booking.entry(Step::Charge).is_none(), "{what}");
                let parts: Vec<_> = booking.parts().into_iter().map(|(name, _)| name.to_string()).collect();
                assert_eq!(parts.len(), choice.len(), "{what}: {parts:?}");
                assert_eq!(house.left(&request).await, before, "{what}");
                let header = house.headers().get(&booking.booking_id).await.unwrap().unwrap();
                let reference = PaymentReference::derive(&booking.booking_id, &header.request_digest);
                assert_eq!(house.ledger().paid(&reference).await.unwrap(), None, "{what}");
            });
        }
    }
    running.join_all().await;
}

#[tokio::test]
async fn a_trip_has_at_least_one_part_and_none_that_nobody_sells() {
    let (house, api, request) = setting(5).await;
    let description = Description::of(&api).await;
    let send = async |body: &Value| {
        let key = fresh_key("parts");
        let answer = api.send("POST", "/bookings", &[JSON, ("idempotency-key", &key)], body.to_string()).await.unwrap();
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        description.check("/bookings", "post", 400, &answer.body);
        let problem: Value = answer.json().unwrap();
        let of = |error: &Value| ["pointer", "detail"].map(|name| error[name].as_str().unwrap().to_owned());
        problem["errors"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    let mut none = request.to_json();
    none.as_object_mut().unwrap().retain(|name, _| part_names().iter().all(|part| part.as_str() != name));
    let names: Vec<_> = part_names().iter().map(ToString::to_string).collect();
    let at_least_one = ["".to_owned(), format!("must have at least one of {}", names.join(", "))];
    assert_eq!(send(&none).await, std::slice::from_ref(&at_least_one));

    let unknown = ["/sauna".to_owned(), "is not a field of this object".to_owned()];
    let mut with_sauna = request.to_json();
    with_sauna["sauna"] = json!({"hours": 2});
    assert_eq!(send(&with_sauna).await, std::slice::from_ref(&unknown));
    none["sauna"] = json!({"hours": 2});
    assert_eq!(send(&none).await, [at_least_one, unknown]);

    // A part is there with contents or not at all, and its contents are not a list of parts.
    for part in part_names() {
        let mut empty = request.to_json();
        empty[part.as_str()] = Value::Null;
        assert_eq!(send(&empty).await, [[format!("/{part}"), "must be an object".to_owned()]]);
    }
    let mut inside = request.to_json();
    inside["parts"] = json!(trip_of(&request));
    assert_eq!(send(&inside).await, [["/parts".to_owned(), "is not a field of this object".to_owned()]]);
    assert_eq!(house.left(&request).await, left(&request, 5, 0));
}

/// With the same key another choice of parts is another request.
#[tokio::test]
async fn a_request_that_comes_again_without_one_of_its_parts_is_refused() {
    let (house, api, request) = setting(5).await;
    let key = fresh_key("fewer");
    let id = api.book_accepted(&request, &key).await.unwrap().booking_id;
    for part in part_names() {
        let mut fewer = request.clone();
        fewer.parts.remove(&part);
        assert_eq!(api.book(&fewer, &key).await.unwrap().status, 422, "{part}");
    }
    assert_eq!(api.wait_until_settled(&id, DEADLINE).await.unwrap().status, Status::Confirmed);
    assert_eq!(house.left(&request).await, left(&request, 5, 1));
}
