//! What is refused, and how.

use super::*;

#[tokio::test]
async fn each_refusal_of_the_contract_is_given_as_described() {
    let (_, api, request) = setting(5).await;
    let description = Description::of(&api).await;
    let key = fresh_key("refused");
    let key = ("idempotency-key", key.as_str());
    let long = "x".repeat(256);
    let good = request.to_json().to_string();
    let with = |pointer: &str, value: Value| {
        let mut body = request.to_json();
        *body.pointer_mut(pointer).unwrap() = value;
        body.to_string().into_bytes()
    };
    let mut not_utf8 = good.clone().into_bytes();
    let name = good.find("Ada").unwrap();
    not_utf8[name] = 0xff;
    let twice = good.replacen('{', "{\"payment\": {\"token\": \"tok_declined\"}, ", 1).into_bytes();
    let token_twice = good.replace("\"tok_visa\"", "\"tok_visa\", \"token\": \"\", \"token/\": 1").into_bytes();
    let (too_long, padding) = (16 * 1024 + 1, good.len());
    let padded = |size: usize| format!("{good}{}", " ".repeat(size - padding)).into_bytes();

    type Case<'a> = (&'a str, u16, Vec<(&'static str, &'a str)>, Vec<u8>, &'a [&'a str]);
    let cases: Vec<Case<'_>> = vec![
        ("no key", 400, vec![JSON], good.clone().into_bytes(), &[""]),
        ("empty key", 400, vec![JSON, ("idempotency-key", "")], good.clone().into_bytes(), &[""]),
        ("long key", 400, vec![JSON, ("idempotency-key", &long)], good.clone().into_bytes(), &[""]),
        ("key with a space", 400, vec![JSON, ("idempotency-key", "a b")], good.clone().into_bytes(), &[""]),
        ("not valid JSON", 400, vec![JSON, key], b"{\"variant\":".to_vec(), &[""]),
        ("nothing", 400, vec![JSON, key], vec![], &[""]),
        ("no object", 400, vec![JSON, key], b"[]".to_vec(), &[""]),
        ("not UTF-8", 400, vec![JSON, key], not_utf8, &[""]),
        ("deeply nested", 400, vec![JSON, key], "[".repeat(10_000).into_bytes(), &[""]),
        ("unknown variant", 400, vec![JSON, key], with("/variant", json!("danced")), &["/variant"]),
        ("past", 400, vec![JSON, key], with("/flight/date", json!("2020-01-01")), &["/flight/date"]),
        (
            "no night",
            400,
            vec![JSON, key],
            with("/hotel/check_out", request.field(HOTEL.name, "check_in").clone()),
            &["/hotel/check_out"],
        ),
        ("no seat", 400, vec![JSON, key], with("/flight/seats", json!(0)), &["/flight/seats"]),
        ("minus one", 400, vec![JSON, key], with("/hotel/rooms", json!(-1)), &["/hotel/rooms"]),
        ("long name", 400, vec![JSON, key], with("/traveller/name", json!(long)), &["/traveller/name"]),
        (
            "unknown field",
            400,
            vec![JSON, key],
            with("/car", json!({"wheels": 4})),
            &["/car/station_id", "/car/category", "/car/pick_up", "/car/drop_off", "/car/wheels"],
        ),
        ("payment twice", 400, vec![JSON, key], twice, &["/payment"]),
        ("token twice", 400, vec![JSON], token_twice, &["", "/payment/token", "/payment/token~1"]),
        ("unseen name", 400, vec![JSON, key], with("/traveller/name", json!("\u{200b}")), &["/traveller/name"]),
        ("two addresses", 400, vec![JSON, key], with("/traveller/email", json!("a@b.c,d@e.f")), &["/traveller/email"]),
        ("unknown token", 400, vec![JSON, key], with("/payment/token", json!("tok_nobody")), &["/payment/token"]),
        ("all at once", 400, vec![JSON], with("/flight/seats", json!(99)), &["", "/flight/seats"]),
        ("too large", 413, vec![JSON, key], padded(too_long), &[]),
        ("text", 415, vec![("content-type", "text/plain"), key], good.clone().into_bytes(), &[]),
        ("no type", 415, vec![key], good.clone().into_bytes(), &[]),
    ];
    for (name, status, headers, body, pointers) in cases {
        let answer = api.send("POST", "/bookings", &headers, body).await.unwrap();
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
        assert_eq!(answer.headers.get("content-type"), Some("application/problem+json"), "{name}");
        description.check("/bookings", "post", status, &answer.body);
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        let found: Vec<_> = errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect();
        assert_eq!(found, pointers, "{name}");
    }
    let unknown: String = (0..1_900).map(|n| format!("\"{n:x}\":1,")).collect();
    let many =
        api.send("POST", "/bookings", &[JSON, key], good.replacen('{', &format!("{{{unknown}"), 1)).await.unwrap();
    description.check("/bookings", "post", 400, &many.body);
    let problem: Value = many.json().unwrap();
    assert_eq!((problem["errors"].as_array().unwrap().len(), &problem["more_errors"]), (50, &json!(1_850)));

    let longest = api.send("POST", "/bookings", &[JSON, key], padded(too_long - 1)).await.unwrap();
    assert_eq!(longest.status, 202, "16,384 bytes are allowed");

    for id in ["0".repeat(32), "nobody".into()] {
        let answer = api.send("GET", &format!("/bookings/{id}"), &[], "").await.unwrap();
        assert_eq!(answer.status, 404);
        description.check("/bookings/{booking_id}", "get", 404, &answer.body);
    }
}

#[tokio::test]
async fn what_no_function_can_read_is_a_typed_error_that_is_not_retried() {
    let house = House::new().await;
    for name in Participant::of(&sellers()).iter().map(ToString::to_string) {
        for payload in [
            json!({}),
            json!([1]),
            json!("x"),
            json!(null),
            json!({"step": "flight.fly"}),
            json!({
                "step": format!("{name}.reserve"), "booking_id": "../x", "part": {"hotel_id": 1}, "extra": true
            }),
            // As release 0.1 wrote it.
            json!({"step": format!("{name}.reserve"), "booking_id": "0".repeat(32), (name.as_str()): {"seats": 1}}),
        ] {
            let answer = house.invoke(&name, &payload).await;
            assert_eq!(answer["errorType"], "InvalidInput", "{name} on {payload}: {answer}");
        }
    }
    assert_eq!(house.invoke("api", &json!({"httpMethod": 5})).await["errorType"], "InvalidInput");
}

#[tokio::test]
async fn another_participants_command_is_refused() {
    let house = House::new().await;
    let command = json!({"step": "payment.abort", "booking_id": "0".repeat(32), "payment": {"reference": "0".repeat(32)}, "reason": null});
    for seller in sellers() {
        let of_another = sellers().into_iter().find(|other| *other != seller).unwrap();
        let of_another = json!({"step": Step::Reserve(of_another), "booking_id": "0".repeat(32), "part": {}});
        for command in [&command, &of_another] {
            let answer = house.invoke(seller.as_str(), command).await;
            assert_eq!(answer["errorType"], "InvalidInput");
            assert!(answer["errorMessage"].as_str().unwrap().contains("another participant"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_charge_that_does_not_name_the_plans_parts_is_refused_and_nothing_is_charged() {
    let house = House::new().await;
    let price = json!({"amount": 100, "currency": "EUR"});
    let id = "f".repeat(32);
    let command = json!({"step": "payment.charge", "booking_id": id, "payment": {"reference": id}});
    for more in [
        json!({"prices": {"flight": price}}),
        json!({"parts": ["flight", "hotel"], "prices": {"flight": price}}),
        json!({"parts": ["flight"], "prices": {"flight": price, "hotel": price}}),
        json!({"parts": ["flight", "hotel"], "prices": {"flight": price, "car": price}}),
        json!({"parts": ["flight", "flight"], "prices": {"flight": price}}),
        json!({"parts": [], "prices": {}}),
    ] {
        let mut command = command.clone();
        command.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = house.invoke("payment", &command).await;
        assert_eq!(answer["errorType"], "InvalidInput", "{command}: {answer}");
    }
    let (entries, _) = house.journal().entries(&BookingId::try_from(id).unwrap()).await.unwrap();
    assert_eq!(entries, []);
}
