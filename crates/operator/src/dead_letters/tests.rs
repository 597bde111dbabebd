use aws_sdk_sqs::{
    Config,
    config::{BehaviorVersion, Credentials, Region},
    types::MessageAttributeValue,
};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use saga::{Event, Money};
use serde_json::json;

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef";
const NOW: &str = "2027-01-01T12:00:00Z";

fn id() -> BookingId {
    BookingId::try_from(ID.to_owned()).unwrap()
}

/// An SQS that refuses each request whose body contains one of these words.
#[derive(Debug)]
struct Refusing(&'static [&'static str]);

impl HttpConnector for Refusing {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
        let operation = request.headers().get("x-amz-target").unwrap_or_default();
        let (status, answer) = match operation {
            _ if self.0.iter().any(|word| body.contains(word)) => {
                (400, json!({"__type": "com.amazonaws.sqs#AccessDenied", "message": "you may not"}))
            }
            "AmazonSQS.GetQueueAttributes" => (200, json!({"Attributes": {"ApproximateNumberOfMessages": "1"}})),
            "AmazonSQS.ReceiveMessage" => {
                let message = json!({"MessageId": "m1", "ReceiptHandle": "r", "Body": event().to_string()});
                (200, json!({"Messages": [message]}))
            }
            _ => (200, json!({})),
        };
        let answer = HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::from(answer.to_string()));
        HttpConnectorFuture::ready(Ok(answer))
    }
}

fn refusing(words: &'static [&'static str]) -> Client {
    let http = http_client_fn(move |_, _| SharedHttpConnector::new(Refusing(words)));
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("AKIA", "secret", None, None, "test"))
        .http_client(http);
    Client::from_conf(config.build())
}

#[tokio::test]
async fn a_queue_that_is_refused_hides_no_other() {
    let client = refusing(&["hotel-dead"]);
    let queue = |name| DeadLetterQueue { client: client.clone(), url: format!("https://sqs/1/{name}") };
    let found = contents(["flight-dead", "hotel-dead", "car-dead"].map(queue).into(), Duration::ZERO).await;
    let found: Vec<_> = found.iter().map(|(queue, content)| (queue.name(), content.as_ref())).collect();
    let [("flight-dead", Ok(flight)), ("hotel-dead", Err(error)), ("car-dead", Ok(car))] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!((flight.messages.len(), car.messages.len()), (1, 1));
    let error = error.to_string();
    assert!(error.starts_with("reading the attributes of hotel-dead failed: "), "{error}");
    assert!(error.contains("you may not") && error.ends_with("and your permissions"), "{error}");
}

#[tokio::test]
async fn a_booking_that_cannot_be_asked_for_stops_no_other() {
    let ids = ["1", "2", "3"].map(|digit| BookingId::try_from(digit.repeat(32)).unwrap());
    let client = refusing(&["11111111", "33333333"]);
    let Err(DriveError::NotAsked(not_asked)) = ask(&client, "https://sqs/1/inbox", &ids).await else {
        panic!("two are refused")
    };
    let bookings: Vec<_> = not_asked.iter().map(|refused| &refused.booking_id).collect();
    assert_eq!(bookings, [&ids[0], &ids[2]]);
    assert!(not_asked[1].cause.contains("you may not"), "{}", not_asked[1]);
    ask(&client, "https://sqs/1/inbox", &ids[1..2]).await.unwrap();
}

fn event() -> Value {
    json!(Envelope {
        booking_id: id(),
        event: Event::Charged { amount: Money::eur(100) },
        causation_id: None,
        time: NOW.parse().unwrap(),
        trace: None,
    })
}

fn received(body: impl ToString) -> Message {
    Message::builder().message_id("m1").receipt_handle("r").body(body.to_string()).build()
}

fn with_reason(body: impl ToString, reason: &str) -> Message {
    let reason = MessageAttributeValue::builder().data_type("String").string_value(reason).build().unwrap();
    Message::builder().message_id("m1").body(body.to_string()).message_attributes(REASON, reason).build()
}

fn says_and_why(message: &Message) -> (String, String) {
    let message = read(message, Some(8));
    (message.says, message.why)
}

fn failure(condition: &str) -> Value {
    let invocation = json!({"Records": [{"EventSource": "aws:sns", "Sns": {"Message": event().to_string()}}]});
    json!({
        "requestContext": {"functionArn": "arn:aws:lambda:eu-central-1:0:function:harmony-payment:$LATEST",
            "condition": condition},
        "requestPayload": invocation,
        "responsePayload": {"errorType": "StoreUnavailable"},
    })
}

#[test]
fn an_event_that_its_queue_gave_up_is_read() {
    let message = Message::builder()
        .message_id("m1")
        .body(event().to_string())
        .attributes(DeadLetterQueueSourceArn, "arn:aws:sqs:eu-central-1:0:booking-inbox")
        .attributes(SentTimestamp, "1798804800000")
        .build();
    let expected = DeadLetter {
        id: "m1".into(),
        booking_id: Some(id()),
        says: "payment.charged".into(),
        sent: Some("2027-01-01T12:00:00Z".parse().unwrap()),
        why: "given up after 8 attempts".into(),
    };
    assert_eq!(read(&message, Some(8)), expected);
    assert_eq!(read(&message, None).why, "given up");
}

#[test]
fn an_event_that_a_function_gave_up_is_described() {
    let (says, why) = says_and_why(&received(failure("RetriesExhausted")));
    assert_eq!(says, "payment.charged, given up by harmony-payment after StoreUnavailable");
    assert_eq!(why, "");
    let undelivered = json!({"Type": "Notification", "Message": event().to_string()});
    assert_eq!(says_and_why(&received(&undelivered)).0, "payment.charged, not delivered");
    assert_eq!(read(&received(undelivered), None).booking_id, Some(id()));
}

#[test]
fn what_the_state_machine_parked_is_read() {
    let stuck = json!([
        {"step": "flight.cancel", "error": "StoreUnavailable"},
        {"step": null, "error": "States.Timeout"},
    ]);
    let message = received(json!({"booking_id": ID, "stuck": stuck, "execution": "arn:…"}));
    let says = "flight.cancel gave up after StoreUnavailable; a step gave up after States.Timeout";
    assert_eq!(says_and_why(&message), (says.into(), "parked by the state machine".into()));
    assert_eq!(read(&message, None).booking_id, Some(id()));

    let reason = FailureReason { step: None, code: "not_ended".into(), detail: "driven again 6 times".into() };
    let message = received(json!({"booking_id": ID, "reason": reason, "claim": 7}));
    assert_eq!(says_and_why(&message), ("driven again 6 times".into(), "parked by the reconciler".into()));
    assert_eq!(read(&message, None).booking_id, Some(id()));
}

#[test]
fn a_parked_message_shows_its_reason_until_its_queue_gives_it_up() {
    let mut newer = event();
    newer["schema_version"] = json!(2);
    let message = with_reason(&newer, "payment.charged has schema version 2,\nand this program reads 1");
    let (says, why) = says_and_why(&message);
    assert_eq!((says.as_str(), read(&message, None).booking_id), ("payment.charged", Some(id())));
    assert_eq!(why, "payment.charged has schema version 2, and this program reads 1");

    let mut again = message;
    again.attributes = Some(HashMap::from([(DeadLetterQueueSourceArn, "arn".into())]));
    assert_eq!(says_and_why(&again).1, "given up after 8 attempts");
}

#[test]
fn the_beginning_of_an_unreadable_message_is_shown() {
    let body = format!("\u{1b}[31m{{\"card\":\n{}", "0123456789".repeat(10));
    let message = with_reason(&body, "it is not valid JSON");
    let (says, why) = says_and_why(&message);
    assert_eq!(says, format!("unreadable: �[31m{{\"card\": {}012345…", "0123456789".repeat(4)));
    assert_eq!(why, "it is not valid JSON");
    assert_eq!(read(&message, None).booking_id, None);
    assert_eq!(says_and_why(&received("")).0, "nothing");
    assert_eq!(says_and_why(&received(json!({"a": 1}))).0, "unreadable: {\"a\":1}");
    let unknown = json!({"type": "invoice.\u{202e}sent", "booking_id": "../etc/passwd"});
    assert_eq!(says_and_why(&received(unknown)).0, "invoice.�sent");
}

#[test]
fn a_redrive_policy_has_the_number_of_attempts() {
    assert_eq!(attempts(r#"{"deadLetterTargetArn": "arn", "maxReceiveCount": 8}"#), Some(8));
    assert_eq!(attempts(r#"{"deadLetterTargetArn": "arn", "maxReceiveCount": "8"}"#), Some(8));
    assert_eq!(attempts(""), None);
}

#[test]
fn messages_are_a_table() {
    let event = DeadLetter { sent: Some("2027-01-01T11:56:00Z".parse().unwrap()), ..read(&received(event()), None) };
    let messages = [DeadLetter { why: "given up after 8 attempts".into(), ..event }, read(&received("x"), None)];
    let expected = "
╭──────────────────────────────────┬─────────────────┬───────────┬───────────────────────────╮
│ booking                          ┆ says            ┆ sent      ┆ why                       │
╞══════════════════════════════════╪═════════════════╪═══════════╪═══════════════════════════╡
│ 0123456789abcdef0123456789abcdef ┆ payment.charged ┆ 4 min ago ┆ given up after 8 attempts │
│                                  ┆ unreadable: x   ┆           ┆                           │
╰──────────────────────────────────┴─────────────────┴───────────┴───────────────────────────╯
";
    assert_eq!(render(&messages, NOW.parse().unwrap(), Look::default()), expected.trim());
    for width in [60, 80, 90] {
        let narrow = render(&messages, NOW.parse().unwrap(), Look { colour: false, width: Some(width) });
        assert!(narrow.contains(ID) && narrow.contains("4 min ago"), "{narrow}");
        assert!(narrow.lines().all(|line| console::measure_text_width(line) <= width.into()), "{narrow}");
    }
    let narrow = render(&messages, NOW.parse().unwrap(), Look { colour: false, width: Some(60) });
    let expected =
        format!("{ID}\n  payment.charged, sent 4 min ago; given up after 8 attempts\nno booking\n  unreadable: x");
    assert_eq!(narrow, expected);
}

#[test]
fn ages_are_rough() {
    assert_eq!([-5, 119, 120, 7_200, 172_800].map(ago), ["0 s ago", "119 s ago", "2 min ago", "2 h ago", "2 d ago"]);
}

#[test]
fn a_queue_is_called_by_the_last_part_of_its_url() {
    assert_eq!(name("https://sqs.eu-central-1.amazonaws.com/123456789012/harmony-dead"), "harmony-dead");
    assert_eq!(name("http://localhost:4566/000000000000/dead/"), "dead");
}
