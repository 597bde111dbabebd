//! How long a message gets.

use super::*;

/// No message may be longer (design.md, section 5). SNS and SQS allow sixteen times as much.
const MAX_BYTES: usize = 16 * 1024;

/// The longest contents of this part that its seller can read: each text as long as it may be, each number.
fn longest(part_type: &PartType) -> serde_json::Value {
    let mut contents = (part_type.example)(jiff::civil::date(2027, 3, 1), 3);
    let names: Vec<_> = contents.as_object().unwrap().keys().cloned().collect();
    for name in names {
        for more in 1..300 {
            let mut longer = contents.clone();
            longer[&name] = match &contents[&name] {
                serde_json::Value::String(text) => json!(format!("{text}{}", text.chars().last().unwrap())),
                serde_json::Value::Number(number) => json!(number.as_u64().unwrap().saturating_mul(10)),
                other => panic!("{other} is not lengthened"),
            };
            if longer == contents || part_type.request(&longer).is_err() {
                break;
            }
            assert!(more < 299, "{name} of {} has no end", part_type.name);
            contents = longer;
        }
    }
    contents
}

/// A trip of the three longest parts, and of a fourth that is as long as the longest of them.
fn longest_plan() -> Plan {
    let mut parts: Vec<_> = travel::TRAVEL.parts.iter().map(|part| (part.name, longest(part))).collect();
    parts.sort_by_key(|(_, contents)| std::cmp::Reverse(contents.to_string().len()));
    parts.truncate(3);
    parts.push((PartName::new("abcdefghijklmnopqrst"), parts[0].1.clone()));
    let parts: Parts = parts.into_iter().collect::<BTreeMap<_, _>>().try_into().unwrap();
    Plan::new(parts, saga::PaymentReference::derive(&booking_id(), "longest"))
}

fn booking_id() -> BookingId {
    BookingId::derive("tests", &IdempotencyKey::try_from("longest").unwrap())
}

/// What Lambda puts on a topic or into a queue about a function that was given this by SNS, with names as long as AWS
/// allows.
fn record_of(condition: &str, given: &serde_json::Value, answer: &serde_json::Value) -> serde_json::Value {
    let text = include_str!("../../events/hotel/sns-booking-requested.json");
    let text = text.replace("harmony-", &format!("{}-", "n".repeat(128)));
    let mut payload: serde_json::Value = serde_json::from_str(&text).unwrap();
    payload["Records"][0]["Sns"]["Message"] = json!(given.to_string());
    let function = format!("arn:aws-us-gov:lambda:ap-southeast-2:123456789012:function:{}:$LATEST", "f".repeat(64));
    json!({
        "version": "1.0", "timestamp": "2027-01-15T08:00:00.123Z",
        "requestContext": {
            "requestId": "e4b46cbf-b738-4c1b-8880-a18cdf61200e", "functionArn": function, "condition": condition,
            "approximateInvokeCount": 3
        },
        "requestPayload": payload,
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": answer
    })
}

#[test]
fn no_message_of_the_longest_trip_with_four_parts_is_too_long() {
    let plan = longest_plan();
    assert_eq!(plan.names().len(), 4);
    for part_type in travel::TRAVEL.parts {
        let (example, longest) = ((part_type.example)(jiff::civil::date(2027, 3, 1), 3), longest(part_type));
        assert!(longest.to_string().len() > example.to_string().len(), "{} is not lengthened", part_type.name);
    }
    // Errors and reasons are as long as a line of text; the trace is cut at 256 characters by the API.
    let error = json!({"errorType": "StoreUnavailable", "errorMessage": "e".repeat(1_000)});
    let envelope = |event| Envelope {
        booking_id: booking_id(),
        event,
        causation_id: Some("c".repeat(32)),
        time: jiff::Timestamp::MAX,
        trace: Some("t".repeat(256)),
    };
    let events: Vec<_> = samples(&plan.parts).into_iter().map(|event| json!(envelope(event))).collect();
    let mut longest = ("", 0);
    let mut look = |what, message: &serde_json::Value| {
        let bytes = message.to_string().len();
        assert!(bytes < MAX_BYTES, "{what} has {bytes} bytes: {message}");
        if bytes > longest.1 {
            longest = (what, bytes);
        }
    };
    let requested = &events[0];
    for event in &events {
        look("an event", event);
        look("the record of a seller's failure", &record_of("RetriesExhausted", event, &error));
        // A seller answers the request, and nobody else answers by a destination.
        let success = record_of("Success", requested, event);
        look("the record of a seller's answer", &success);
        look("the record of payment's failure", &record_of("RetriesExhausted", &success, &error));
    }
    let mut input = json!(plan);
    input["booking_id"] = json!(booking_id());
    look("the input of an execution", &input);
    assert_eq!(longest.0, "the record of payment's failure");
    eprintln!("the longest message of a trip with four parts: {} has {} bytes", longest.0, longest.1);
    // Most of it is the wrapping of SNS and Lambda, twice; four parts are a quarter of it.
    assert!(longest.1 > MAX_BYTES / 4, "{longest:?}: the test has lost what it looks at");
}
