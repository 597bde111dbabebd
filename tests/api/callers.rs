//! Who may ask, and from where.

use super::*;

/// A request to a custom domain with the base path `trips`, as API Gateway hands it to the function once it knows who
/// asks. One header of it is odd, and nobody's business here.
fn asked(by: &Value, method: &str, booking_id: Option<&str>, key: &str, body: &str) -> Value {
    let odd = "Zo\u{eb}\n\u{0}";
    let headers = json!({"content-type": "application/json", "idempotency-key": key, "x-client": odd, "a b": "c"});
    let (path, resource) = match booking_id {
        Some(id) => (format!("/trips/bookings/{id}"), "/bookings/{booking_id}"),
        None => ("/trips/bookings".to_owned(), "/bookings"),
    };
    json!({
        "httpMethod": method, "path": path, "resource": resource, "pathParameters": booking_id.map(|id| json!({"booking_id": id})),
        "headers": headers, "multiValueHeaders": {"x-client": [odd, 1]}, "body": body, "requestContext": by
    })
}

#[tokio::test]
async fn a_booking_is_its_callers_alone() {
    let (house, _, request) = setting(9).await;
    let key = fresh_key("whose");
    let session = |name: &str| json!({"identity": {"userArn": format!("arn:aws:sts::1:assumed-role/shop/{name}")}});
    let (body, mut ids) = (request.to_json().to_string(), BTreeSet::new());
    let cognito = |sub: &str| json!({"authorizer": {"claims": {"sub": sub, "email": "a@b"}}});
    for (one, again, other) in [
        (
            session("monday"),
            session("tuesday"),
            json!({"identity": {"userArn": "arn:aws:sts::1:assumed-role/till/monday"}}),
        ),
        (
            json!({"identity": {"userArn": "arn:aws:iam::1:user/ann"}}),
            json!({"identity": {"userArn": "arn:aws:iam::1:user/ann"}}),
            json!({}),
        ),
        (cognito("1f"), cognito("1f"), cognito("2e")),
        (json!({"authorizer": {"principalId": "ann"}}), json!({"authorizer": {"principalId": "ann"}}), session("ann")),
    ] {
        let accepted = house.invoke("api", &asked(&one, "POST", None, &key, &body)).await;
        assert_eq!(accepted["statusCode"], 202, "{accepted}");
        let id = serde_json::from_str::<Value>(accepted["body"].as_str().unwrap()).unwrap()["booking_id"].clone();
        assert!(ids.insert(id.to_string()), "the same key of another caller is another booking");
        let repeated = house.invoke("api", &asked(&again, "POST", None, &key, &body)).await;
        assert_eq!(repeated["headers"]["idempotency-replayed"], "true", "{repeated}");
        for (who, status) in [(&one, 200), (&again, 200), (&other, 404), (&json!({}), 404)] {
            let shown = house.invoke("api", &asked(who, "GET", id.as_str(), "", "")).await;
            assert_eq!(shown["statusCode"], status, "{who}: {shown}");
        }
        let waited = BookingId::try_from(id.as_str().unwrap().to_owned()).unwrap();
        let deadline = jiff::Timestamp::now() + DEADLINE;
        while house.headers().get(&waited).await.unwrap().unwrap().status == Status::Pending {
            assert!(jiff::Timestamp::now() < deadline);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn with_iam_only_signed_requests_get_in() {
    // Without AUTH=true the local AWS would let everybody in.
    let local = start_with(
        "iam",
        &[("Authorization", "AWS_IAM"), ("CorsOrigin", "https://trips.example.com")],
        &[("AUTH", "true")],
    );
    let house = House::of(local.stack()).await;
    let api = Client::new(&house.stack.api_url).unwrap();
    let request = TripRequest::on(date());
    house.seed(&trip_of(&request), 5).await;
    let refused = api.book(&request, &fresh_key("iam")).await.unwrap();
    assert_eq!(refused.status, 403, "{}", refused.body);
    assert_eq!(refused.headers.get("content-type"), Some("application/problem+json"));
    assert_eq!(refused.headers.get("access-control-allow-origin"), Some("https://trips.example.com"));
    let problem: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!((&problem["type"], problem["title"].is_string()), (&json!("about:blank"), true), "{problem}");
    Description::of(&api).await; // which anyone may read

    let sdk = Box::new(house.stack.sdk().await.unwrap());
    let signed = api.clone().with(Authorization::Signature { sdk, service: "execute-api" });
    let booking = book(&signed, &request).await;
    assert_eq!(booking.status, Status::Confirmed);
    assert_eq!(api.send("GET", &format!("/bookings/{}", booking.booking_id), &[], "").await.unwrap().status, 403);
    let preflight = [("origin", "https://trips.example.com"), ("access-control-request-method", "POST")];
    let answer = api.send("OPTIONS", "/bookings", &preflight, "").await.unwrap();
    assert_eq!(answer.status, 204, "a browser asks without credentials: {}", answer.body);
}

#[tokio::test]
async fn pages_of_one_origin_may_call_the_api_and_others_only_if_all_may() {
    let (_, without, _) = setting(1).await;
    assert_eq!(without.send("OPTIONS", "/bookings", &[], "").await.unwrap().status, 404);
    let description = without.send("GET", "/openapi.yaml", &[], "").await.unwrap();
    assert_eq!(description.headers.get("access-control-allow-origin"), None);

    let local = start("cors", &[("CorsOrigin", "https://trips.example.com")]);
    let api = Client::new(&local.stack().api_url).unwrap();
    let id = "0123456789abcdef0123456789abcdef";
    for path in ["/bookings".to_owned(), format!("/bookings/{id}")] {
        let preflight =
            [("origin", "https://trips.example.com"), ("access-control-request-headers", "idempotency-key")];
        let answer = api.send("OPTIONS", &path, &preflight, "").await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
        assert_eq!(answer.headers.get("access-control-allow-origin"), Some("https://trips.example.com"));
        for (name, of) in [("methods", "POST"), ("headers", "Idempotency-Key"), ("headers", "Authorization")] {
            let allowed = answer.headers.get(format!("access-control-allow-{name}")).unwrap();
            assert!(allowed.split(", ").any(|each| each == of), "{name}: {allowed}");
        }
    }
    let unknown = api.send("GET", &format!("/bookings/{id}"), &[], "").await.unwrap();
    assert_eq!((unknown.status, unknown.headers.get("vary")), (404, Some("Origin")));
    let exposed = unknown.headers.get("access-control-expose-headers").unwrap();
    assert!(exposed.contains("Idempotency-Replayed"), "{exposed}");
}
