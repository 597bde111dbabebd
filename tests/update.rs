//! A stack is updated while travellers book: no booking is lost, and those under way are finished.

#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::AttributeValue;
use end_to_end::{DEADLINE, House, date, start_with, trip_of};
use local_aws::{LocalAws, LocalAwsOptions};
use operator::audit::Audit;
use saga::{BookingId, Status};
use serde_json::{Value, json};
use traveller::{
    Client, ClientError, TripRequest,
    client::{Authorization, fresh_key},
    scenarios::VARIANTS,
};

/// How many travellers book at once, one trip after the other.
const TRAVELLERS: usize = 4;

/// A form as CloudFormation's query API takes it; values are of letters, digits and few signs that need no escape.
fn form(fields: &[(String, String)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Asks CloudFormation, and says what it answered.
async fn cloudformation(house: &House, action: &str, more: Vec<(String, String)>) -> String {
    let mut fields = vec![
        ("Action".to_owned(), action.to_owned()),
        ("Version".to_owned(), "2010-05-15".to_owned()),
        ("StackName".to_owned(), house.function("").trim_end_matches('-').to_owned()),
    ];
    fields.extend(more);
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let answer = house.aws("cloudformation").await.send("POST", "/", &headers, form(&fields)).await.unwrap();
    assert_eq!(answer.status, 200, "{action}: {}", answer.body);
    answer.body
}

/// Changes parameters that reach every function, every inbox and the API, and waits until that is done.
async fn update(house: &House, changed: &[(&str, &str)]) -> Duration {
    let started = Instant::now();
    let template = end_to_end::deployed::template();
    let mut fields = vec![("UsePreviousTemplate".to_owned(), "true".to_owned())];
    for (nth, capability) in ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"].iter().enumerate() {
        fields.push((format!("Capabilities.member.{}", nth + 1), (*capability).to_owned()));
    }
    for (nth, name) in template["Parameters"].as_mapping().unwrap().keys().enumerate() {
        let (name, member) = (name.as_str().unwrap(), format!("Parameters.member.{}", nth + 1));
        fields.push((format!("{member}.ParameterKey"), name.to_owned()));
        fields.push(match changed.iter().find(|(parameter, _)| *parameter == name) {
            Some((_, value)) => (format!("{member}.ParameterValue"), (*value).to_owned()),
            None => (format!("{member}.UsePreviousValue"), "true".to_owned()),
        });
    }
    cloudformation(house, "UpdateStack", fields).await;
    let deadline = started + 2 * DEADLINE;
    loop {
        let stack = cloudformation(house, "DescribeStacks", Vec::new()).await;
        let status = stack.split_once("<StackStatus>").unwrap().1.split_once('<').unwrap().0;
        match status {
            "UPDATE_COMPLETE" => return started.elapsed(),
            "UPDATE_IN_PROGRESS" | "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS" => {}
            other => panic!("{other}: {stack}"),
        }
        assert!(Instant::now() < deadline, "still {status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Books one trip after the other until it is time to stop. What is not accepted is sent again, as a client would.
async fn travel(
    api: Client,
    request: TripRequest,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
) -> Vec<BookingId> {
    const TOKENS: [&str; 5] = ["tok_visa", "tok_visa", "tok_declined", "tok_visa", "tok_flaky"];
    let mut ids = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut request = request.clone();
        request.variant = VARIANTS[ids.len() % 2];
        request.payment.token = TOKENS[ids.len() % 5].into();
        let (key, deadline) = (fresh_key(format!("update-{}", ids.len())), Instant::now() + DEADLINE);
        let booking = loop {
            match api.book_accepted(&request, &key).await {
                Ok(booking) => break booking,
                Err(ClientError::NoAnswer { .. } | ClientError::Refused { status: 404 | 429 | 500.., .. }) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(Instant::now() < deadline, "nothing is accepted any more");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        ids.push(booking.booking_id);
        accepted.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ids
}

#[tokio::test]
async fn nothing_is_lost_when_the_stack_is_updated_under_load() {
    let local = start_with("update", &[("PendingMaxAgeSeconds", "10")], &[("SFN_WAIT_SCALE", "0.1")]);
    let house = House::of(local.stack()).await;
    let api = Client::new(&house.stack.api_url).unwrap();
    let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut travellers = tokio::task::JoinSet::new();
    let mut requests = Vec::new();
    for traveller in 0..TRAVELLERS {
        let mut request = TripRequest::on(date());
        request.traveller.name = format!("Traveller {traveller}");
        house.seed(&trip_of(&request), 500).await;
        requests.push(request.clone());
        travellers.spawn(travel(api.clone(), request, Arc::clone(&stop), Arc::clone(&accepted)));
    }
    let some_more = async |many: usize| {
        let (from, deadline) = (accepted.load(Ordering::Relaxed), Instant::now() + DEADLINE);
        while accepted.load(Ordering::Relaxed) < from + many {
            assert!(Instant::now() < deadline, "nobody can book");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    some_more(10).await;
    let before = accepted.load(Ordering::Relaxed);
    let took = update(&house, &[("LogLevel", "WARN"), ("MaxReceiveCount", "5"), ("ApiRateLimit", "500")]).await;
    let meanwhile = accepted.load(Ordering::Relaxed) - before;
    some_more(10).await;
    stop.store(true, Ordering::Relaxed);
    let ids: Vec<_> = travellers.join_all().await.into_iter().flatten().collect();
    eprintln!("updated in {took:.1?}, with {meanwhile} of {} bookings accepted meanwhile", ids.len());
    assert!(took < Duration::from_secs(30), "the update took {took:?}");

    // The update has reached the functions.
    for part in house.stack.parts() {
        let path = format!("/2015-03-31/functions/{}/configuration", house.function(part.as_str()));
        let configured: Value = house.aws("lambda").await.send("GET", &path, &[], "").await.unwrap().json().unwrap();
        assert_eq!(configured["LoggingConfig"]["ApplicationLogLevel"], "WARN", "{part}");
    }

    let deadline = Instant::now() + 4 * DEADLINE;
    for id in &ids {
        loop {
            let booking = api.show(id).await.unwrap();
            if matches!(booking.status, Status::Confirmed | Status::Failed) {
                break;
            }
            assert!(Instant::now() < deadline, "{booking:#?}");
            house.invoke("reconciler", &json!({"source": "aws.events"})).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    let audit = Audit::of(&house.stack, &house.stack.sdk().await.unwrap()).unwrap();
    let parts = requests.iter().flat_map(TripRequest::lines);
    let lines = parts.flat_map(|(part, lines)| lines.into_iter().map(move |line| (part, line)));
    assert_eq!(audit.run(&ids, lines).await.unwrap(), Vec::<String>::new());
    let kept = house.client.scan().table_name(house.stack.bookings_table().unwrap());
    let kept = kept.projection_expression("booking_id").send().await.unwrap();
    let kept: Vec<&AttributeValue> = kept.items().iter().map(|item| &item["booking_id"]).collect();
    assert_eq!(kept.len(), ids.len(), "bookings that were accepted, and those that there are");
}

/// Asks the local Cognito.
async fn cognito(house: &House, operation: &str, body: Value) -> Value {
    let target = format!("AWSCognitoIdentityProviderService.{operation}");
    let headers = [("x-amz-target", target.as_str()), ("content-type", "application/x-amz-json-1.1")];
    let answer = house.aws("cognito-idp").await.send("POST", "/", &headers, body.to_string()).await.unwrap();
    assert_eq!(answer.status, 200, "{operation}: {}", answer.body);
    answer.json().unwrap_or_default() // some answer with nothing
}

/// A user of the pool who has signed in: the ID token.
async fn token(house: &House, pool: &Value, app: &Value, name: &str) -> String {
    let (user, password) = (json!({"UserPoolId": pool, "Username": name}), "Correct-Horse-7");
    cognito(house, "AdminCreateUser", user.clone()).await;
    let mut set = user;
    set["Password"] = json!(password);
    set["Permanent"] = json!(true);
    cognito(house, "AdminSetUserPassword", set).await;
    let sign_in = json!({
        "ClientId": app, "AuthFlow": "USER_PASSWORD_AUTH",
        "AuthParameters": {"USERNAME": name, "PASSWORD": password}
    });
    let answer = cognito(house, "InitiateAuth", sign_in).await;
    answer["AuthenticationResult"]["IdToken"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test]
async fn users_of_a_pool_are_let_in_once_the_stack_is_told_to() {
    let local = start_with("pool", &[], &[("AUTH", "true")]);
    let house = House::of(local.stack()).await;
    let api = Client::new(&house.stack.api_url).unwrap();
    let request = TripRequest::on(date());
    house.seed(&trip_of(&request), 9).await;
    let before = api.book_accepted(&request, &fresh_key("pool")).await.unwrap().booking_id;

    let pool = cognito(&house, "CreateUserPool", json!({"PoolName": "travellers"})).await["UserPool"].clone();
    let flows =
        json!({"UserPoolId": pool["Id"], "ClientName": "web", "ExplicitAuthFlows": ["ALLOW_USER_PASSWORD_AUTH"]});
    let app = cognito(&house, "CreateUserPoolClient", flows).await["UserPoolClient"]["ClientId"].clone();
    update(&house, &[("Authorization", "COGNITO"), ("CognitoUserPoolArn", pool["Arn"].as_str().unwrap())]).await;

    // Here an API gets a new name when its definition changes; on AWS it keeps it.
    let stack = cloudformation(&house, "DescribeStacks", Vec::new()).await;
    let id = stack.split_once("<OutputKey>ApiId</OutputKey>").unwrap().1.split_once("<OutputValue>").unwrap().1;
    let id = id.split_once('<').unwrap().0;
    let api = Client::new(&format!("{}/_aws/execute-api/{id}/live", house.stack.endpoint.as_deref().unwrap())).unwrap();
    let path = format!("/bookings/{before}");
    let shown = api.send("GET", &path, &[], "").await.unwrap();
    assert_eq!(shown.status, 401, "{}", shown.body);
    let mut ann = api.clone();
    let mut ids = Vec::new();
    for name in ["ann", "bob"] {
        let token = token(&house, &pool["Id"], &app, name).await;
        let user = api.clone().with(Authorization::Token(token));
        let id = user.book_accepted(&request, "the-same-key").await.unwrap().booking_id;
        assert_eq!(user.wait_until_settled(&id, DEADLINE).await.unwrap().status, Status::Confirmed);
        assert_eq!(user.send("GET", &path, &[], "").await.unwrap().status, 404, "nobody's is not everybody's");
        ids.push(id);
        ann = if name == "ann" { user } else { ann };
    }
    assert_eq!(ann.send("GET", &format!("/bookings/{}", ids[1]), &[], "").await.unwrap().status, 404, "bob's");
    let forged = api.with(Authorization::Token("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.".into()));
    assert_eq!(forged.send("GET", &format!("/bookings/{}", ids[0]), &[], "").await.unwrap().status, 401);
}

#[tokio::test]
async fn protected_tables_cannot_be_deleted_until_they_are_not_protected_any_more() {
    let local = start_with("protected", &[("DeletionProtection", "ON")], &[]);
    let house = House::of(local.stack()).await;
    let tables = house.client.list_tables().send().await.unwrap();
    assert_eq!(tables.table_names().len(), 5 + house.stack.parts().len(), "of each seller, and those of all");
    for table in tables.table_names() {
        let refused = house.client.delete_table().table_name(table).send().await.unwrap_err();
        let said = store::causes(&refused);
        assert!(said.contains("protect"), "{table}: {said}");
    }
    update(&house, &[("DeletionProtection", "OFF")]).await;
    for table in tables.table_names() {
        house.client.delete_table().table_name(table).send().await.unwrap();
    }
}

#[test]
fn parameters_that_do_not_fit_are_refused_before_anything_is_made() {
    for (parameter, value, why) in [
        ("Authorization", "COGNITO", "Authorization COGNITO needs CognitoUserPoolArn"),
        ("Authorization", "nobody", "Authorization"),
        ("CorsOrigin", "trips.example.com", "CorsOrigin"),
        ("ApiRateLimit", "0", "ApiRateLimit"),
    ] {
        let parameters = vec![(parameter.to_owned(), value.to_owned())];
        let refused =
            LocalAws::start(LocalAwsOptions { stack_name: "refused".into(), parameters, ..LocalAwsOptions::default() });
        let said = refused.expect_err("it has to be refused").to_string();
        assert!(said.contains(why), "{parameter}={value}: {said}");
    }
}
