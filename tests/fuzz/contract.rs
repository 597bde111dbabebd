//! What every decoder owes to whatever it is sent: no panic, and an answer that the contract knows. The fuzz targets call
//! it, and so does an ordinary test, with the whole corpus: `tests/hostile.rs`.
//!
//! | target | what is sent |
//! |---|---|
//! | `gateway` | the payload of the function `api`: what API Gateway makes of a request |
//! | `request` | an HTTP request: what its sender makes of it |
//! | `invocation` | the payload of any other function: a command, or what SNS and SQS make of messages |
//! | `message` | one message of the topic or a queue, a destination record too |
//! | `command` | what the state machine sends |
//! | `event` | what participants tell each other |

#![allow(clippy::unwrap_used, missing_docs)] // in a test, to panic is to fail

pub mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{Timestamp, Unit};
use runtime::{Diagnostic, Input};
use saga::{
    BookingId, Command, Envelope, Event, Participant, Parts, Step,
    command::Action,
    event::{SCHEMA_VERSION, Unread},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use services::{ErrorKind, api::MAX_BYTES};
use travel::TRAVEL;
use url::Url;
use world::{Answer, INVOKED, World, clock, sent};

/// A target's name, and what it does with an input. It panics if the contract is broken.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("gateway", gateway),
    ("request", request),
    ("invocation", invocation),
    ("message", message),
    ("command", command),
    ("event", event),
];

/// Sends this to the target of that name.
pub fn check(target: &str, data: &[u8]) {
    let (_, check) = TARGETS.into_iter().find(|(name, _)| *name == target).expect("it is a target");
    check(data);
}

/// The most that an answer may be longer than what was sent: a field of one character is reported with its pointer and
/// what is wrong with it. Whatever is sent, nothing explodes.
fn most(sent: usize) -> usize {
    4096 + 32 * sent
}

/// Waits for what takes no time.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

// ------------------------------------------------------------------------------------------------------------- HTTP

/// The answers that `openapi.yaml` knows, and 404 for what is not there. `tests/hostile.rs` holds it against that file.
pub fn documented(method: &str, path: &str) -> &'static [u64] {
    match (method, path) {
        ("POST", "/bookings") => &[202, 400, 413, 415, 422, 503],
        ("GET", "/openapi.yaml") => &[200],
        ("GET", path) if path.starts_with("/bookings/") => &[200, 404, 503],
        _ => &[404],
    }
}

/// Any payload: it is answered, or refused as none of API Gateway.
fn gateway(data: &[u8]) {
    let Ok(payload) = serde_json::from_slice::<Value>(data) else { return };
    let method = payload["httpMethod"].as_str().unwrap_or_default();
    let path = path_of(&payload);
    for works in [true, false] {
        match block_on(World::new(works).http(payload.clone())) {
            Ok(answer) => {
                is_well_formed(method, &path, &answer);
                assert!(answer.to_string().len() <= most(data.len()) + TRAVEL.openapi.len() * 2);
            }
            Err(error) => {
                assert_eq!(error.error_type, "InvalidInput");
                assert!(error.error_message.starts_with("the payload is not a request of a REST API: "), "{error:?}");
            }
        }
    }
}

/// The path of the resource that API Gateway found, with its parameters. What is no path is nowhere.
fn path_of(payload: &Value) -> String {
    let mut path = payload["resource"].as_str().unwrap_or_default().to_owned();
    let encoded = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    for (name, value) in payload["pathParameters"].as_object().into_iter().flatten() {
        let value: String = value.as_str().unwrap_or_default().bytes().map(encoded).collect();
        path = path.replace(&format!("{{{name}}}"), &value);
    }
    let path = path.parse::<http::Uri>().map_or_else(|_| "/".to_owned(), |uri| uri.path().to_owned());
    path.strip_suffix('/').unwrap_or(&path).to_owned()
}

/// Any request that HTTP allows: it is answered, and not with an error of the function.
fn request(data: &[u8]) {
    let Some((method, path, payload, body)) = proxied(data) else { return };
    if payload["resource"].as_str().is_none_or(|resource| resource.parse::<http::Uri>().is_err()) {
        return; // API Gateway has no such resource
    }
    let world = World::new(true);
    let send = |world: &World, payload: &Value| block_on(world.http(payload.clone())).expect("it is a request");
    let answer = send(&world, &payload);
    is_well_formed(&method, &path, &answer);
    assert!(answer.to_string().len() <= most(data.len()) + TRAVEL.openapi.len() * 2, "{answer}");

    // When nothing works, nobody is told that it does.
    let refused = send(&World::new(false), &payload);
    is_well_formed(&method, &path, &refused);
    assert!(refused["statusCode"] != 202, "{refused}");
    if refused["statusCode"] != 503 {
        assert_eq!(refused, answer);
    }
    if answer["statusCode"] != 202 {
        assert!(world.headers().is_empty() && world.said().is_empty(), "refused and done all the same: {answer}");
        return;
    }

    assert_eq!(world.looks(), 0, "only what would be refused is looked up");

    // What was accepted is what was asked for, and keeps the rules.
    assert!(body.len() <= MAX_BYTES);
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&body);
    let asked: Value = serde_json::from_slice(body).unwrap();
    let mut parts: BTreeSet<_> = asked.as_object().unwrap().keys().map(String::as_str).collect();
    assert!(["variant", TRAVEL.customer, "payment"].iter().all(|name| parts.remove(name)), "{asked}");
    assert!(serde_json::from_slice::<Plain>(body).unwrap().is(&asked), "{asked} is not what was sent");
    let today = clock().to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(-12))).date();
    let read = TRAVEL.read(&asked, today).unwrap();
    let [header] = &world.headers()[..] else { panic!("accepted, and not one booking") };
    let customer = world.customer_of(&header.booking_id).unwrap();
    assert_eq!((&header.parts, &customer, header.variant), (&read.parts, &read.customer, read.variant));
    let accepted: Vec<_> = header.parts.iter().map(|(name, contents)| (name.to_string(), contents)).collect();
    assert_eq!(accepted, parts.iter().map(|name| ((*name).to_owned(), &asked[*name])).collect::<Vec<_>>());
    assert!(header.parts.names().into_iter().all(|name| travel::part_type(name).is_some()), "{asked}");
    assert_eq!(json!(customer), asked[TRAVEL.customer]);

    // It can be looked at, and the same request finds it again.
    let accepted: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(accepted, json!({"booking_id": header.booking_id, "variant": header.variant, "status": "pending"}));
    let location = answer["headers"]["location"].as_str().unwrap();
    let sent_to = format!("https://trips.example.com{}", payload["path"].as_str().unwrap());
    let location = Url::parse(&sent_to).unwrap().join(location).unwrap();
    assert_eq!(location.path(), format!("{BASE_PATH}/bookings/{}", header.booking_id), "{sent_to}");
    let look = routed("GET", location.path());
    is_well_formed("GET", &path_of(&look), &send(&world, &look));
    let shown = send(&world, &look);
    let shown: Value = serde_json::from_str(shown["body"].as_str().unwrap()).unwrap();
    for name in parts.iter().chain(&["variant", TRAVEL.customer]) {
        assert_eq!(shown[*name], asked[*name], "{shown}");
    }
    let others = TRAVEL.parts.iter().filter(|part_type| !parts.contains(part_type.name.as_str()));
    assert!(others.into_iter().all(|other| shown.get(other.name.as_str()).is_none()), "{shown}");
    let mut again = send(&world, &payload);
    assert_eq!(again["headers"].as_object_mut().unwrap().remove("idempotency-replayed"), Some(json!("true")));
    again["multiValueHeaders"] = answer["multiValueHeaders"].clone();
    assert_eq!(again, answer);
    let mut other = payload.clone();
    other["body"] = json!("{}");
    other["isBase64Encoded"] = json!(false);
    assert_eq!(send(&world, &other)["statusCode"], 422, "it is another request first, and then one that breaks rules");
    assert_eq!(world.headers().len(), 1);

    // Neither the token nor the traveller goes where they have no business.
    let token = format!("{:?}", read.token.reveal());
    for said in world.said() {
        let said: Value = serde_json::from_str(&said).unwrap();
        let said = said.get("data").unwrap_or(&said);
        assert!(said["traveller"].is_null() && said["payment"].as_object().unwrap().len() == 1, "{said} {token}");
    }
}

/// What is an object and what is not, read without `Value`: that one once took an object with a field of a certain name
/// for something else.
#[derive(Deserialize)]
#[serde(untagged)]
enum Plain {
    Object(BTreeMap<String, Plain>),
    Other(IgnoredAny),
}

impl Plain {
    fn is(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Object(fields), Value::Object(map)) => {
                fields.len() == map.len()
                    && fields.iter().all(|(name, field)| map.get(name).is_some_and(|value| field.is(value)))
            }
            (Self::Other(_), value) => !value.is_object(),
            (Self::Object(_), _) => false,
        }
    }
}

/// An HTTP request as API Gateway passes it on: method, path, the payload, and the body. None if it is no request that
/// would get that far. It is written as HTTP writes it, the version left out and lines ended as one likes.
fn proxied(data: &[u8]) -> Option<(String, String, Value, Vec<u8>)> {
    let end = data.windows(2).position(|two| two == b"\n\n").map(|at| (at, at + 2));
    let crlf = data.windows(4).position(|four| four == b"\r\n\r\n").map(|at| (at, at + 4));
    let (head, body) = match [end, crlf].into_iter().flatten().min() {
        Some((to, from)) => (&data[..to], &data[from..]),
        None => (data, &data[..0]),
    };
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let (method, target) = lines.next()?.split_once(' ')?;
    method.parse::<http::Method>().ok()?;
    let mut headers = serde_json::Map::new();
    let mut all = serde_json::Map::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let (name, value) = (name.parse::<http::HeaderName>().ok()?, value.trim());
        value.parse::<http::HeaderValue>().ok()?;
        all.entry(name.as_str()).or_insert_with(|| json!([])).as_array_mut().unwrap().push(json!(value));
        headers.insert(name.as_str().to_owned(), json!(value));
    }
    let path = format!("{BASE_PATH}{}", target.split('?').next().unwrap());
    let text = std::str::from_utf8(body).ok().filter(|text| !text.contains('\u{1}')); // so that both ways are taken
    let mut payload = routed(method, &path);
    payload["headers"] = headers.into();
    payload["multiValueHeaders"] = all.into();
    payload["isBase64Encoded"] = text.is_none().into();
    payload["body"] = match text {
        Some("") => Value::Null,
        Some(text) => json!(text),
        None => json!(STANDARD.encode(body)),
    };
    Some((method.to_owned(), path_of(&payload), payload, body.to_vec()))
}

/// Of a custom domain at which the API is served.
const BASE_PATH: &str = "/trips";

/// A request to this path of a custom domain, once API Gateway has found the resource that is meant.
fn routed(method: &str, path: &str) -> Value {
    let below = path.strip_prefix(BASE_PATH).unwrap_or(path);
    let segment = below.strip_prefix("/bookings/").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let (resource, parameters) = match segment {
        Some(id) if !id.is_empty() && !id.contains('/') => ("/bookings/{booking_id}", json!({"booking_id": id})),
        _ => (below, Value::Null),
    };
    json!({
        "resource": resource, "path": path, "httpMethod": method, "headers": null, "multiValueHeaders": null,
        "queryStringParameters": null, "multiValueQueryStringParameters": null, "pathParameters": parameters,
        "stageVariables": null, "isBase64Encoded": false, "body": null,
        "requestContext": {"httpMethod": method, "path": path, "stage": "Prod", "identity": {"sourceIp": "127.0.0.1"}}
    })
}

fn is_well_formed(method: &str, path: &str, answer: &Value) {
    let status = answer["statusCode"].as_u64().unwrap();
    assert!(documented(method, path).contains(&status), "{method} {path} is answered with {status}");
    assert_eq!(answer["isBase64Encoded"], false);
    let text = answer["body"].as_str().unwrap();
    let media_type = &answer["headers"]["content-type"];
    if status < 400 {
        let wanted = if path == "/openapi.yaml" { "application/yaml" } else { "application/json" };
        assert_eq!(media_type, wanted);
        assert!(path == "/openapi.yaml" || serde_json::from_str::<Value>(text).unwrap().is_object());
        return;
    }
    assert_eq!(media_type, "application/problem+json");
    let body: Value = serde_json::from_str(text).unwrap();
    assert_eq!(body["status"], status);
    assert!(body["type"].as_str().unwrap().starts_with("urn:problem-type:harmony:"), "{body}");
    assert!(["title", "detail"].iter().all(|name| !body[name].as_str().unwrap().is_empty()), "{body}");
    assert_eq!(answer["headers"]["retry-after"] == "1", status == 503);
    let errors = body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert_eq!(!errors.is_empty(), status == 400, "{body}");
    let mut pointers = BTreeSet::new();
    for error in errors {
        let (pointer, detail) = (error["pointer"].as_str().unwrap(), error["detail"].as_str().unwrap());
        assert!(pointer.is_empty() || pointer.starts_with('/') && !detail.is_empty(), "{body}");
        assert!(pointer.is_empty() || pointers.insert(pointer), "{pointer} is reported twice: {body}");
    }
}

// ------------------------------------------------------------------------------------------------ commands and events

/// Any JSON: it is a command, or it is told what is wrong with it.
fn command(data: &[u8]) {
    let Ok(payload) = serde_json::from_slice::<Value>(data) else { return };
    match Command::read(&payload) {
        Ok(read) => {
            let written = write(&read);
            assert_eq!(Command::read(&written), Ok(read), "{written}");
        }
        Err(violations) => {
            assert!(!violations.is_empty());
            for violation in violations {
                assert!(violation.pointer.is_empty() || violation.pointer.starts_with('/'), "{violation:?}");
                assert!(!violation.detail.is_empty(), "{violation:?}");
            }
        }
    }
}

/// The command as the state machine would write it.
fn write(command: &Command) -> Value {
    let mut json = match &command.action {
        Action::Reserve(part) | Action::Cancel(part) => json!({ "part": part.contents }),
        Action::Charge { reference, prices } => {
            json!({"payment": {"reference": reference}, "parts": prices.names(), "prices": prices})
        }
        Action::Abort { reference, reason } => json!({"payment": {"reference": reference}, "reason": reason}),
        Action::Confirm { total } => json!({ "total": total }),
        Action::Fail { reason } => json!({ "reason": reason }),
        Action::Park { reason } => json!({ "reason": reason }),
    };
    json["step"] = json!(command.step());
    json["booking_id"] = json!(command.booking_id);
    json
}

/// Any JSON: it is an event, or one that somebody else may know, or one of another release, or it is told what is wrong.
fn event(data: &[u8]) {
    let Ok(message) = serde_json::from_slice::<Value>(data) else { return };
    match Envelope::read(&message) {
        Ok(read) => round(&read),
        Err(Unread::UnknownType(name)) => {
            assert!(message["type"].as_str().unwrap().starts_with(&name) && name.chars().count() <= 100);
        }
        Err(Unread::OtherVersion { event_type, version }) => {
            assert_eq!(
                (message["type"].as_str(), message["schema_version"].as_u64()),
                (Some(event_type.to_string().as_str()), Some(version))
            );
            assert_ne!(version, SCHEMA_VERSION);
        }
        Err(Unread::Malformed(violations)) => assert!(!violations.is_empty()),
    }
}

/// What is written is what was read. Times are written with milliseconds.
fn round(read: &Envelope) {
    let written = json!(read);
    let again = Envelope::read(&written).unwrap_or_else(|unread| panic!("{unread}: {written}"));
    let milliseconds = |time: Timestamp| {
        time.round(jiff::TimestampRound::new().smallest(Unit::Millisecond).mode(jiff::RoundMode::Floor))
    };
    assert_eq!(Ok(again.time), milliseconds(read.time).map_err(|_| ()));
    assert_eq!(Envelope { time: read.time, ..again.clone() }, *read);
    assert_eq!(json!(again), written);
    assert_eq!(written["event_id"], read.event_id());
}

// --------------------------------------------------------------------------------------------- what AWS makes of them

/// Any payload: the function answers, or says by an error's type what is the matter.
fn invocation(data: &[u8]) {
    let Ok(payload) = serde_json::from_slice::<Value>(data) else { return };
    let source = payload.pointer("/Records/0/eventSource").or(payload.pointer("/Records/0/EventSource"));
    let source = source.and_then(Value::as_str).unwrap_or_default().to_owned();
    for (who, works) in INVOKED.iter().flat_map(|who| [(*who, true), (*who, false)]) {
        let world = World::new(works);
        let answer = block_on(world.invoke(who, payload.clone()));
        is_known(&answer, data.len(), works);
        match source.as_str() {
            "aws:sqs" => is_batch(&payload, &answer, &world, works),
            // What is said is returned or published, and not both.
            "aws:sns" => assert!(!matches!(answer, Ok(Some(_))) || world.said().is_empty(), "{answer:?}"),
            _ => is_reply(who, &payload, &answer, works),
        }
    }
}

fn is_known(answer: &Answer, length: usize, works: bool) {
    match answer {
        Ok(answer) => assert!(answer.as_ref().map_or(0, |answer| answer.to_string().len()) <= most(length)),
        Err(Diagnostic { error_type, error_message }) => {
            let kind = ErrorKind::ALL.into_iter().find(|kind| kind.name() == error_type).unwrap();
            assert!(!error_message.is_empty() && error_message.len() <= most(length), "{error_message}");
            assert_eq!(kind.is_retriable(), kind == ErrorKind::StoreUnavailable, "{error_message}");
            assert!(!(works && kind.is_retriable()), "a retry will not help: {error_message}");
        }
    }
}

/// A command is carried out by whom it is meant for, and by nobody else.
fn is_reply(who: Option<Participant>, payload: &Value, answer: &Answer, works: bool) {
    let Some(who) = who else { return }; // what wakes the reconciler tells it nothing
    match (Command::read(payload), answer) {
        (Ok(command), Ok(answer)) if works && command.step().participant() == who => {
            let answer = answer.as_ref().unwrap();
            assert_eq!(answer["booking_id"], json!(command.booking_id));
            assert_eq!(answer["step"], json!(command.step()));
            assert!(answer["outcome"].is_string() && answer["detail"].is_object(), "{answer}");
        }
        (Ok(command), Err(error)) => {
            let not_ours = command.step().participant() != who;
            let too_much =
                command.step() == Step::Charge && error.error_message.starts_with("invalid input: /prices: ");
            assert_eq!(error.error_type == "InvalidInput", not_ours || too_much, "{error:?}");
        }
        (Err(_), Err(error)) => assert_eq!(error.error_type, "InvalidInput"),
        (command, answer) => panic!("{command:?} is answered with {answer:?}"),
    }
}

/// No message of a batch is lost: it is done, or parked with a reason, or comes again; and when everything works, none
/// comes again.
fn is_batch(payload: &Value, answer: &Answer, world: &World, works: bool) {
    let parked = sent();
    let Ok(answer) = answer else { return };
    let answer = answer.as_ref().unwrap();
    assert_eq!(answer.as_object().unwrap().len(), 1);
    let failed = answer["batchItemFailures"].as_array().unwrap();
    let records = payload["Records"].as_array().unwrap();
    let id = |record: &Value| json!({"itemIdentifier": record["messageId"]});
    assert!(failed.iter().all(|failed| records.iter().any(|record| id(record) == *failed)), "{answer}");
    assert!(failed.len() + parked.len() + world.said().len() <= records.len());
    assert!(!works || failed.is_empty(), "{answer}");
    for parked in parked {
        is_parked(&parked);
        assert!(records.iter().any(|record| record["body"] == parked["MessageBody"]), "{parked}");
    }
}

/// SQS takes it, and people can read why it is there.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>
fn is_parked(message: &Value) {
    let reason = &message["MessageAttributes"][runtime::REASON];
    assert_eq!(reason["DataType"], "String");
    let reason = reason["StringValue"].as_str().unwrap();
    let refused = |c: char| matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}');
    assert!(!reason.is_empty() && reason.chars().count() <= 1_000 && !reason.contains(refused), "{reason:?}");
}

/// A trip with every part that there is.
pub static PARTS: LazyLock<Parts> = LazyLock::new(|| {
    let first_day = clock().to_zoned(jiff::tz::TimeZone::UTC).date();
    let parts: BTreeMap<_, _> = TRAVEL.parts.iter().map(|part| (part.name, (part.example)(first_day, 3))).collect();
    Parts::try_from(parts).unwrap()
});

static NEIGHBOUR: LazyLock<String> = LazyLock::new(|| {
    let booking_id = BookingId::try_from("0123456789abcdef0123456789abcdef".to_owned()).unwrap();
    let event = saga::event::samples(&PARTS).into_iter().find(|event| matches!(event, Event::Aborted { .. })).unwrap();
    json!(Envelope { booking_id, event, causation_id: None, time: clock(), trace: None }).to_string()
});

/// What a function is invoked with if SNS brings it this message.
pub fn by_sns(text: &str) -> Value {
    json!({"Records": [{
        "EventSource": "aws:sns", "EventVersion": "1.0", "EventSubscriptionArn": "arn",
        "Sns": {"Type": "Notification", "MessageId": "1", "TopicArn": "arn", "Message": text}
    }]})
}

/// The same of SQS, for these messages with their ids.
pub fn by_sqs(messages: &[(&str, &str)]) -> Value {
    let record = |(id, body): &(&str, &str)| {
        json!({
            "messageId": id, "receiptHandle": "handle", "body": body, "eventSource": "aws:sqs", "awsRegion": "r",
            "attributes": {"ApproximateReceiveCount": "1"}, "messageAttributes": {}
        })
    };
    json!({"Records": messages.iter().map(record).collect::<Vec<_>>()})
}

/// Any message: it is read or not, and that does not depend on who brings it.
fn message(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = runtime::read(text);
    match &read {
        Ok(None) => assert_eq!(runtime::event(text), Ok(None)),
        Ok(Some(input)) => {
            let about = match input {
                Input::Event(event) => event,
                Input::Failure(failure) => &failure.event,
                Input::Command(_) => panic!("a message is no command: {text}"),
            };
            assert!(about.is_object(), "{about}");
            assert_eq!(runtime::event(text).unwrap().as_ref(), Some(about));
            if let Ok(envelope) = Envelope::read(about) {
                round(&envelope);
            }
        }
        Err(error) => {
            assert!(error.to_string().starts_with("the message cannot be read: ") && error.to_string().len() < 300);
            assert_eq!(runtime::event(text).as_ref(), Err(error));
        }
    }
    let (sns, sqs) = (by_sns(text), by_sqs(&[("this", text), ("neighbour", &NEIGHBOUR)]));
    for (at, who) in INVOKED.iter().copied().enumerate() {
        for works in [true, false] {
            let world = World::new(works);
            let answer = block_on(world.invoke(who, sns.clone()));
            is_known(&answer, data.len(), works);
            if let (Ok(Some(said)), Some(_), Ok(Some(input))) = (&answer, who, &read) {
                follows(input, said);
            }
            if at + INVOKED.len() * usize::from(works) != data.len() % (2 * INVOKED.len()) {
                continue; // SQS brings it to one of them, once: to pack and sign what is parked takes long
            }
            let world = World::new(works);
            let batch = block_on(world.invoke(who, sqs.clone())).unwrap().unwrap();
            let parked = sent();
            parked.iter().for_each(is_parked);
            let comes_again =
                |id: &str| batch["batchItemFailures"].as_array().unwrap().contains(&json!({ "itemIdentifier": id }));
            let is_parked = parked.iter().any(|parked| parked["MessageBody"] == text);
            let is_retriable = |error: &Diagnostic| error.error_type == "StoreUnavailable";
            assert_eq!(comes_again("this"), answer.as_ref().is_err_and(is_retriable), "{answer:?}");
            assert_eq!(is_parked, answer.as_ref().is_err_and(|error| !is_retriable(error)), "{answer:?}");
            // The neighbour is an abort: parts are cancelled; payment and booking do not listen; to whoever resumes
            // bookings it names one that does not exist.
            let listens = matches!(who, Some(Participant::Seller(_)) | None);
            assert_eq!(comes_again("neighbour"), listens && !works);
        }
    }
}

/// What a function says about an event is an event of the same booking, and says what led to it.
fn follows(input: &Input, said: &Value) {
    let (Input::Event(cause) | Input::Failure(runtime::Failure { event: cause, .. })) = input else {
        panic!("{input:?} leads to {said}")
    };
    let (cause, said) = (Envelope::read(cause).unwrap(), Envelope::read(said).unwrap());
    assert_eq!((&said.booking_id, &said.trace), (&cause.booking_id, &cause.trace));
    assert_eq!(said.causation_id, Some(cause.event_id()));
    round(&said);
}
