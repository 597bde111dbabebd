//! Least privilege, enforced: the local AWS checks the role of every caller, as AWS does. Everything works with what the
//! template grants; everything that it grants is used; and nothing else is allowed to whoever has a function's
//! credentials.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::{
    config::{Credentials, SharedCredentialsProvider},
    types::AttributeValue,
};
use end_to_end::{
    DEADLINE, House, date,
    deployed::{logical, sellers, template},
    part_of, start_logged, trip_of,
};
use jiff::{SignedDuration, Timestamp};
use local_aws::LocalAws;
use operator::dead_letters;
use saga::{Currency, Envelope, Event, PartName, Participant, Price, Status, Variant};
use serde_json::json;
use serde_yaml_ng::Value as Yaml;
use traveller::{
    Client, TripRequest,
    client::fresh_key,
    scenarios::{self, VARIANTS, check},
};

const ENFORCED: [(&str, &str); 2] = [("AUTH", "true"), ("SFN_WAIT_SCALE", "0.02")];

/// Who may do what on which resource, by the template's names.
type Grants = BTreeSet<(String, String, String)>;

/// What no program does but the platform in its name, or nothing at all unless somebody looks: traces, logs, and the
/// delivery of the state machine's log.
fn is_of_the_platform(action: &str) -> bool {
    action.starts_with("xray:") || action.starts_with("logs:")
}

fn list(value: &Yaml) -> Vec<Yaml> {
    value.as_sequence().cloned().unwrap_or_else(|| vec![value.clone()])
}

/// The logical name in `!GetAtt X.Arn`, `!Ref X` or `!Sub "${X.Arn}/…"`; of an execution, that of its state machine.
fn resource(value: &Yaml) -> String {
    let text = match value {
        Yaml::Tagged(tagged) => tagged.value.as_str().unwrap_or_default(),
        other => other.as_str().unwrap_or_default(),
    };
    let last = text.rfind("${").map_or(text, |at| &text[at + 2..]);
    last.split(['.', '}']).next().unwrap_or_default().to_owned()
}

/// What every role is granted.
fn granted() -> Grants {
    let mut grants = Grants::new();
    for (role, statement) in statements() {
        for action in list(&statement["Action"]) {
            for on in list(&statement["Resource"]) {
                grants.insert((role.clone(), action.as_str().unwrap().to_owned(), resource(&on)));
            }
        }
    }
    grants
}

/// The statements of all roles, each with its role.
fn statements() -> Vec<(String, Yaml)> {
    let template = template();
    let roles = template["Resources"].as_mapping().unwrap().iter().filter(|(_, r)| r["Type"] == "AWS::IAM::Role");
    let mut statements = Vec::new();
    for (name, role) in roles {
        for policy in role["Properties"]["Policies"].as_sequence().into_iter().flatten() {
            for statement in list(&policy["PolicyDocument"]["Statement"]) {
                // `!If [condition, statement, nothing]`
                let statement = match &statement {
                    Yaml::Tagged(tagged) => tagged.value[1].clone(),
                    plain => plain.clone(),
                };
                statements.push((name.as_str().unwrap().to_owned(), statement));
            }
        }
    }
    statements
}

#[test]
fn no_role_has_a_wildcard_but_where_aws_knows_no_resource() {
    for (role, statement) in statements() {
        assert_eq!(statement["Effect"], "Allow", "{role}");
        for action in list(&statement["Action"]) {
            let action = action.as_str().unwrap();
            assert!(!action.contains('*'), "{role} may do {action}");
            for on in list(&statement["Resource"]) {
                let any = on.as_str() == Some("*");
                assert!(!any || is_of_the_platform(action), "{role} may do {action} on anything");
                let written = matches!(action, "logs:CreateLogStream" | "logs:PutLogEvents");
                assert!(!any || !written, "{role} may write any log");
            }
        }
    }
}

#[test]
fn every_function_and_the_state_machine_have_a_role_of_their_own() {
    let template = template();
    let mut roles = BTreeSet::new();
    for (name, of) in template["Resources"].as_mapping().unwrap() {
        let kind = of["Type"].as_str().unwrap();
        if kind == "AWS::Serverless::Function" || kind == "AWS::Serverless::StateMachine" {
            let (name, role) = (name.as_str().unwrap(), resource(&of["Properties"]["Role"]));
            assert!(roles.insert(role.clone()), "{name} shares {role}");
            let trusted = &template["Resources"][&role]["Properties"]["AssumeRolePolicyDocument"]["Statement"][0];
            let service = if kind.ends_with("Function") { "lambda.amazonaws.com" } else { "states.amazonaws.com" };
            assert_eq!(trusted["Principal"]["Service"], service, "{role}");
            assert!(of["Properties"]["Policies"].is_null(), "{name}: SAM ignores Policies beside Role");
        }
    }
    // Beside the sellers: the API, payment, booking, the reconciler and the state machine.
    assert_eq!(roles.len(), sellers().len() + 5);
}

/// A seller may use its own table, queues and log, and what belongs to all of them; and each may do the same.
#[test]
fn every_seller_is_granted_the_same_with_what_is_its_own() {
    let granted = granted();
    let in_common = ["JournalTable", "EventsTopic", "OutcomesTopic", "StepFailures", "*"];
    let of = |part: &PartName| -> BTreeSet<(String, String)> {
        let (role, capital) = (logical(part, "Role"), logical(part, ""));
        let own = granted.iter().filter(|(of, ..)| *of == role);
        own.map(|(_, action, on)| {
            let own = on.strip_prefix(&capital);
            assert!(own.is_some() || in_common.contains(&on.as_str()), "{role} may do {action} on {on}");
            (action.clone(), own.map_or_else(|| on.clone(), |own| format!("its {own}")))
        })
        .collect()
    };
    let sellers = sellers();
    for part in &sellers {
        assert_eq!(of(part), of(&sellers[0]), "{part}");
    }
}

/// The state machine puts the name of a seller's function together. Its role says of which.
#[test]
fn the_state_machine_may_invoke_the_participants_and_no_other_function() {
    let granted = granted();
    let own =
        granted.iter().filter(|(role, action, _)| role == "StateMachineRole" && action == "lambda:InvokeFunction");
    let participants = Participant::of(&sellers()).into_iter().map(|participant| logical(participant, "Function"));
    assert_eq!(own.map(|(.., on)| on.clone()).collect::<BTreeSet<_>>(), participants.collect());
}

// ------------------------------------------------------------------------------------------------------ what is used

struct Enforced {
    house: House,
    api: Client,
    log: PathBuf,
    _local: LocalAws, // runs as long as this value lives
}

impl Enforced {
    async fn start(name: &str, env: &[(&str, &str)]) -> Self {
        let log = std::env::temp_dir().join(format!("harmony-{name}-{}.log", std::process::id()));
        let parameters = [("MaxReceiveCount", "2"), ("PendingMaxAgeSeconds", "60"), ("PatienceSeconds", "2")];
        let local = start_logged(name, &parameters, &[&ENFORCED, env].concat(), &log);
        let house = House::of(local.stack()).await;
        let api = Client::new(&house.stack.api_url).unwrap();
        Self { house, api, log, _local: local }
    }

    /// Decisions about roles, as the local AWS has noted them: `[decision, role, action, resource]`, by the template's
    /// names.
    fn decisions(&self) -> BTreeSet<[String; 4]> {
        let log = fs::read_to_string(&self.log).unwrap();
        let said = log.lines().filter_map(|line| line.split_once("[permissions] "));
        said.map(|(_, said)| {
            let words: Vec<_> = said.split_whitespace().collect();
            let [decision, role, "may", "do", action, "on", arn] = words[..] else { panic!("{said}") };
            let parts: Vec<_> = arn.splitn(6, ':').collect();
            let named = match parts[..] {
                ["arn", _, "states", _, _, name] => name.split(':').nth(1).unwrap(), // of a machine or of its execution
                [.., name] => name.trim_start_matches("table/").trim_start_matches("function:"),
                [] => unreachable!("a split has a part"),
            };
            let named = named.split('/').next().unwrap(); // a table's index counts as the table
            [decision.trim_end_matches(':').to_owned(), self.logical(role), action.to_owned(), self.logical(named)]
        })
        .collect()
    }

    /// What the template calls what is deployed as `STACK-Name-0123456789ABC`, or `STACK-function`.
    fn logical(&self, physical: &str) -> String {
        let Some(own) = physical.strip_prefix(&self.house.function("")) else { return physical.to_owned() };
        match own.split_once('-') {
            Some((logical, _)) => logical.to_owned(),
            None => format!("{}{}Function", own[..1].to_uppercase(), &own[1..]),
        }
    }

    async fn request(&self, variant: Variant) -> TripRequest {
        let request = TripRequest { variant, ..TripRequest::of(travel::TRAVEL.parts, date(), 3) };
        self.house.seed(&trip_of(&request), 100).await;
        request
    }

    /// Waits until the log shows that this was allowed.
    async fn until_used(&self, role: &str, action: &str, on: &str) {
        let wanted = ["Allow", role, action, on].map(str::to_owned);
        let deadline = Timestamp::now() + 2 * DEADLINE;
        while !self.decisions().contains(&wanted) {
            assert!(Timestamp::now() < deadline, "{role} does not do {action} on {on}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test]
async fn everything_works_with_what_is_granted_and_everything_that_is_granted_is_used() {
    let stack = Enforced::start("enforced", &[]).await;
    let (house, api) = (&stack.house, &stack.api);

    // How bookings go.
    let request = stack.request(Variant::Orchestrated).await;
    let mut full = request.clone();
    full.set(travel::HOTEL.name, "hotel_id", "nyc-annex");
    house.seed_part(&part_of(&full, travel::HOTEL.name), 0).await;
    for variant in VARIANTS {
        for scenario in &scenarios::ALL {
            let request = scenario.request(request.clone(), variant);
            let observed = scenario.run(api, &request, &fresh_key("enforced"), DEADLINE, |_| ()).await.unwrap();
            assert_eq!(check(scenario, &observed), Ok(()), "{} {}", scenario.name, variant.name());
        }
    }
    assert!(!fs::read_to_string(&stack.log).unwrap().contains("AccessDenied"), "see {}", stack.log.display());

    // What nobody can read is parked.
    let inboxes = sellers().into_iter().map(|part| logical(part, "Inbox"));
    for queue in inboxes.chain(["BookingInbox", "StepFailures", "ReconcilerInbox"].map(str::to_owned)) {
        house.send(&queue, "garbage").await;
    }
    // What nobody has started is found, and started.
    for variant in VARIANTS {
        let request = TripRequest { variant, ..request.clone() };
        let id = house.record_only(&request, &fresh_key("stuck"), SignedDuration::from_mins(10)).await.booking_id;
        house.invoke("reconciler", &json!({"source": "aws.events"})).await;
        let booking = api.wait_until_settled(&id, DEADLINE).await.unwrap();
        assert_eq!(booking.status, Status::Confirmed);
    }

    // A charge that its provider did not answer is taken over by the next attempt.
    house.reconfigure("payment", "PROVIDER_LEDGER_TABLE", "no-such-table").await;
    api.book_accepted(&request, &fresh_key("unanswered")).await.unwrap();
    stack.until_used("PaymentRole", "dynamodb:ConditionCheckItem", "PaymentsTable").await;

    // What fails is tried again, given up, parked, and shown to an operator.
    for participant in Participant::of(&sellers()) {
        house.reconfigure(&participant.to_string(), "JOURNAL_TABLE", "no-such-table").await;
    }
    let choreographed = TripRequest { variant: Variant::Choreographed, ..request.clone() };
    let id = api.book_accepted(&choreographed, &fresh_key("broken")).await.unwrap().booking_id;
    let parts = trip_of(&choreographed);
    let message = |event| {
        json!(Envelope { booking_id: id.clone(), event, causation_id: None, time: Timestamp::now(), trace: None })
    };
    house.publish(message(Event::Aborted { reason: None, parts })).await;
    house.publish(message(Event::Charged { amount: saga::Money::eur(1) })).await;
    let header = store::HeaderStore::get(&house.headers(), &id).await.unwrap().unwrap();
    let price = Price { amount: 1, currency: Currency::EUR };
    for part in sellers() {
        let reserved = message(Event::Reserved { part, price, plan: header.plan() });
        house.publish(json!({"responsePayload": reserved})).await;
    }
    for participant in Participant::of(&sellers()) {
        let (role, inbox) = (logical(participant, "Role"), logical(participant, "Inbox"));
        let inbox = if participant == Participant::Payment { "StepFailures".to_owned() } else { inbox };
        stack.until_used(&role, "sqs:ChangeMessageVisibility", &inbox).await;
        if participant != Participant::Booking {
            stack.until_used(&role, "sqs:SendMessage", "StepFailures").await;
        }
    }
    api.book_accepted(&request, &fresh_key("broken")).await.unwrap();
    stack.until_used("StateMachineRole", "sqs:SendMessage", "ParkedQueue").await;
    for part in sellers() {
        let dead_letters = logical(part, "DeadLetters");
        house.await_message(&dead_letters, |message| message.body().unwrap().contains(id.as_str())).await;
    }
    let mut parked = json!([]);
    let deadline = Timestamp::now() + DEADLINE;
    while parked == json!([]) {
        assert!(Timestamp::now() < deadline, "no operator is called");
        parked = house.invoke("reconciler", &json!({"source": "aws.events"})).await["parked"].clone();
    }
    // A start that is refused releases its claim.
    house.reconfigure("api", "STATE_MACHINE_ARN", "arn:aws:states:us-east-1:000000000000:stateMachine:none").await;
    assert_eq!(api.book(&request, &fresh_key("refused")).await.unwrap().status, 503);
    stack.until_used("ApiRole", "dynamodb:UpdateItem", "BookingsTable").await;

    // The reconciler itself fails.
    house.reconfigure("reconciler", "BOOKINGS_TABLE", "no-such-table").await;
    dead_letters::drive(&house.stack, std::slice::from_ref(&id)).await.unwrap();
    stack.until_used("ReconcilerRole", "sqs:ChangeMessageVisibility", "ReconcilerInbox").await;
    let path = format!("/2015-03-31/functions/{}/invocations", house.function("reconciler"));
    let event = [("x-amz-invocation-type", "Event")];
    assert_eq!(house.aws("lambda").await.send("POST", &path, &event, "{}".to_owned()).await.unwrap().status, 202);
    stack.until_used("ReconcilerRole", "sqs:SendMessage", "ReconcilerFailures").await;

    let allowed = stack.decisions().into_iter().filter(|[decision, ..]| decision == "Allow");
    let used: Grants = allowed.map(|[_, role, action, on]| (role, action, on)).collect();
    let granted: Grants = granted().into_iter().filter(|(_, action, _)| !is_of_the_platform(action)).collect();
    let unused: Vec<_> = granted.difference(&used).collect();
    assert!(unused.is_empty(), "granted and never used: {unused:#?}");
    let more: Vec<_> = used.difference(&granted).collect();
    assert!(more.is_empty(), "used and, as this test reads the template, not granted: {more:#?}");
    let _ = fs::remove_file(&stack.log);
}

// -------------------------------------------------------------------------------------------------- what is not allowed

/// The credentials that a function of this stack runs with, as whoever breaks into it would find them: in its
/// environment. None where processes cannot be looked into like that.
fn stolen(function: &str) -> Option<Credentials> {
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let environment = fs::read(process.path().join("environ")).unwrap_or_default(); // it may have ended
        let variables: Vec<_> =
            environment.split(|byte| *byte == 0).filter_map(|v| std::str::from_utf8(v).ok()).collect();
        let value =
            |name: &str| variables.iter().find_map(|v| v.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
        if value("AWS_LAMBDA_FUNCTION_NAME").as_deref() == Some(function) {
            let (key, secret) = (value("AWS_ACCESS_KEY_ID")?, value("AWS_SECRET_ACCESS_KEY")?);
            return Some(Credentials::new(key, secret, value("AWS_SESSION_TOKEN"), None, "stolen"));
        }
    }
    None
}

/// Whether a request was refused for want of permission; any other answer means that it was allowed.
fn is_denied<T, E: std::error::Error>(answer: Result<T, E>) -> bool {
    answer.err().is_some_and(|error| {
        let said = store::causes(&error);
        said.contains("AccessDenied") || said.contains("AuthorizationError") || said.contains("not authorized")
    })
}

/// Tries everything that programs do here, and worse, on everything that is there; and says what is denied and what is not.
async fn try_all(house: &House, sdk: &SdkConfig) -> BTreeMap<(String, String), bool> {
    let mut denied = BTreeMap::new();
    let dynamodb = aws_sdk_dynamodb::Client::new(sdk);
    let no_such_key = || AttributeValue::S("nobody".into());
    for (logical, table) in resources("AWS::DynamoDB::Table") {
        let key = list(&table["KeySchema"]).into_iter();
        let names: Vec<_> = key.map(|key| key["AttributeName"].as_str().unwrap().to_owned()).collect();
        let table = house.stack.output(&format!("{logical}Name")).unwrap();
        let item = || Some(names.iter().map(|name| (name.clone(), no_such_key())).collect());
        let never = "attribute_exists(nothing)"; // so that what is allowed does no harm
        let mut note = |action: &str, is_denied: bool| {
            denied.insert((format!("dynamodb:{action}"), logical.clone()), is_denied);
        };
        note("GetItem", is_denied(dynamodb.get_item().table_name(table).set_key(item()).send().await));
        let put = dynamodb.put_item().table_name(table).set_item(item()).condition_expression(never);
        note("PutItem", is_denied(put.send().await));
        let update = dynamodb.update_item().table_name(table).set_key(item()).condition_expression(never);
        note("UpdateItem", is_denied(update.send().await));
        let delete = dynamodb.delete_item().table_name(table).set_key(item()).condition_expression(never);
        note("DeleteItem", is_denied(delete.send().await));
        let query = dynamodb.query().table_name(table).key_condition_expression("#key = :key");
        let query =
            query.expression_attribute_names("#key", &names[0]).expression_attribute_values(":key", no_such_key());
        note("Query", is_denied(query.send().await));
        note("Scan", is_denied(dynamodb.scan().table_name(table).limit(1).send().await));
    }
    let sqs = aws_sdk_sqs::Client::new(sdk);
    for (logical, _) in resources("AWS::SQS::Queue") {
        let url = house.queue(&logical).await;
        let mut note = |action: &str, is_denied: bool| {
            denied.insert((format!("sqs:{action}"), logical.clone()), is_denied);
        };
        note("SendMessage", is_denied(sqs.send_message().queue_url(&url).message_body("{}").send().await));
        let receive = sqs.receive_message().queue_url(&url).visibility_timeout(0);
        note("ReceiveMessage", is_denied(receive.send().await));
        note("PurgeQueue", is_denied(sqs.purge_queue().queue_url(&url).send().await));
    }
    let sns = aws_sdk_sns::Client::new(sdk);
    for (logical, _) in resources("AWS::SNS::Topic") {
        let publish = sns.publish().topic_arn(house.stack.output(&format!("{logical}Arn")).unwrap()).message("{}");
        denied.insert(("sns:Publish".to_owned(), logical), is_denied(publish.send().await));
    }
    let machine = house.stack.state_machine_arn().unwrap();
    let start = aws_sdk_sfn::Client::new(sdk).start_execution().state_machine_arn(machine).input("{}");
    let started = ("states:StartExecution".to_owned(), "BookingStateMachine".to_owned());
    denied.insert(started, is_denied(start.send().await));
    denied
}

/// The template's resources of a type, by name.
fn resources(kind: &str) -> Vec<(String, Yaml)> {
    let template = template();
    let all = template["Resources"].as_mapping().unwrap().iter().filter(|(_, of)| of["Type"] == kind);
    all.map(|(name, of)| (name.as_str().unwrap().to_owned(), of["Properties"].clone())).collect()
}

#[tokio::test]
async fn nothing_else_is_allowed_to_whoever_has_a_functions_credentials() {
    let stack = Enforced::start("stolen", &[]).await;
    let house = &stack.house;
    // Now there is an instance of each.
    let request = stack.request(Variant::Choreographed).await;
    let id = stack.api.book_accepted(&request, &fresh_key("stolen")).await.unwrap().booking_id;
    assert_eq!(stack.api.wait_until_settled(&id, DEADLINE).await.unwrap().status, Status::Confirmed);
    house.invoke("reconciler", &json!({"source": "aws.events"})).await;
    if stolen(&house.function("flight")).is_none() {
        eprintln!("SKIPPED: this system does not show the environment of processes");
        return;
    }
    let granted = granted();
    let (mut tried, mut allowed) = (0, 0);
    let functions = resources("AWS::Serverless::Function");
    for (name, _) in &functions {
        let name = name.trim_end_matches("Function");
        let credentials =
            stolen(&house.function(&name.to_lowercase())).unwrap_or_else(|| panic!("{name} does not run"));
        let sdk = house.stack.sdk().await.unwrap().to_builder();
        let sdk = sdk.credentials_provider(SharedCredentialsProvider::new(credentials)).build();
        for ((action, on), is_denied) in try_all(house, &sdk).await {
            let is_granted = granted.contains(&(format!("{name}Role"), action.clone(), on.clone()))
                // The reconciler may query the index of open bookings, and not the table.
                && !(action == "dynamodb:Query" && on == "BookingsTable");
            assert_eq!(is_denied, !is_granted, "{name}: {action} on {on}");
            tried += 1;
            allowed += usize::from(is_granted);
        }
    }
    // 6 actions on each table, 3 on each queue, 1 on each topic, and 1 more. Each seller has a function, a table and two
    // queues; beside them there are 4 functions, 5 tables and 7 queues, and 2 topics.
    let count = |kind: &str| resources(kind).len();
    let (tables, queues, sellers) = (count("AWS::DynamoDB::Table"), count("AWS::SQS::Queue"), sellers().len());
    assert_eq!((functions.len(), tables, queues), (sellers + 4, sellers + 5, 2 * sellers + 7));
    assert_eq!(tried, functions.len() * (6 * tables + 3 * queues + 2 + 1));
    assert!(allowed > 30, "{allowed}");
    let _ = fs::remove_file(&stack.log);
}

#[tokio::test]
async fn topics_and_queues_refuse_what_does_not_come_through_tls() {
    let stack = Enforced::start("plain", &[("TRANSPORT", "http")]).await;
    let house = &stack.house;
    let request = stack.request(Variant::Choreographed).await;
    let answer = stack.api.book(&request, &fresh_key("plain")).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.body);
    let denied = ["Deny", "ApiRole", "sns:Publish", "EventsTopic"].map(str::to_owned);
    assert!(stack.decisions().contains(&denied), "see {}", stack.log.display());
    // A function that may send to its dead-letter queue may not do so in the open.
    let request = TripRequest { variant: Variant::Orchestrated, ..request };
    let id = stack.api.book_accepted(&request, &fresh_key("plain")).await.unwrap().booking_id;
    assert_eq!(stack.api.wait_until_settled(&id, DEADLINE).await.unwrap().status, Status::Confirmed);
    let Some(credentials) = stolen(&house.function("flight")) else {
        eprintln!("SKIPPED: this system does not show the environment of processes");
        return;
    };
    let sdk = house.stack.sdk().await.unwrap().to_builder();
    let sqs = aws_sdk_sqs::Client::new(&sdk.credentials_provider(SharedCredentialsProvider::new(credentials)).build());
    let dead_letters = house.queue("FlightDeadLetters").await;
    assert!(is_denied(sqs.send_message().queue_url(dead_letters).message_body("{}").send().await));
    let _ = fs::remove_file(&stack.log);
}
