//! The content of a message, in whichever shape it travels.
//!
//! | shape | source | content |
//! |---|---|---|
//! | any JSON object | published to a topic | the event is the message |
//! | a record of a success | Destinations, `OnSuccess` | the event is what the function returned (`responsePayload`); none, if it returned none |
//! | a record of a failure | Destinations, `OnFailure` | the function gave up the event that it was invoked with (`requestPayload`) |
//! | a notification | a subscription's dead-letter queue | the event was not delivered |
//!
//! A record nests its cause, and the record of a failure may nest the record of a success. No function passes a record
//! on: each publishes an event of its own, which ends the nesting.
//! <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html>
//!
//! A subscription's filter keeps records without an event away from its subscribers, but a change to a filter takes up
//! to 15 minutes: <https://docs.aws.amazon.com/sns/latest/dg/sns-subscription-filter-policies.html>. Until then such
//! records arrive anyway.

use serde_json::Value;

/// The input of a function.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The payload itself: a command, or a schedule's event.
    Command(Value),
    /// An event to react to.
    Event(Value),
    /// An event that was given up.
    Failure(Failure),
}

/// An event that was given up after all retries.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The event.
    pub event: Value,
    /// The name of the function that gave up; empty if the event was not delivered to any function.
    pub function: String,
    /// The error's type, or the condition under which Lambda gave up.
    pub error_type: String,
}

/// A message that cannot be read, however often it is delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message cannot be read: {0}")]
pub struct UnreadableMessage(pub(crate) String);

fn unreadable(cause: impl Into<String>) -> UnreadableMessage {
    UnreadableMessage(cause.into())
}

/// Reads a message from a topic or a queue; none if it contains no event.
pub fn read(text: &str) -> Result<Option<Input>, UnreadableMessage> {
    let message: Value =
        serde_json::from_str(text).map_err(|error| unreadable(format!("it is not valid JSON: {error}")))?;
    if !message.is_object() {
        return Err(unreadable("it is not a JSON object"));
    }
    if message["Type"] == "Notification" {
        let event =
            event(message["Message"].as_str().ok_or_else(|| unreadable("it is a notification without a message"))?)?;
        let failure = |event| Failure { event, function: String::new(), error_type: "no delivery".into() };
        return Ok(event.map(failure).map(Input::Failure));
    }
    let Some(condition) = message.pointer("/requestContext/condition").and_then(Value::as_str) else {
        return Ok(Some(Input::Event(message)));
    };
    if condition == "Success" {
        return Ok(response(message)?.map(Input::Event));
    }
    // Whether there is an answer does not matter: an event that was already too old has none.
    let error_type = message.pointer("/responsePayload/errorType").and_then(Value::as_str).unwrap_or(condition);
    let function = function_name(message.pointer("/requestContext/functionArn"));
    let failure = |event| Failure { event, function, error_type: error_type.to_owned() };
    Ok(event(notified(&message["requestPayload"])?)?.map(failure).map(Input::Failure))
}

/// The event in a message, whether published or given up; none if it contains no event.
pub fn event(text: &str) -> Result<Option<Value>, UnreadableMessage> {
    Ok(read(text)?.map(|input| match input {
        Input::Event(event) | Input::Command(event) => event,
        Input::Failure(failure) => failure.event,
    }))
}

/// The message in an invocation by SNS, which always contains exactly one.
pub(crate) fn notified(payload: &Value) -> Result<&str, UnreadableMessage> {
    match payload["Records"].as_array().map(Vec::as_slice) {
        Some([record]) => record.pointer("/Sns/Message").and_then(Value::as_str),
        _ => None,
    }
    .ok_or_else(|| unreadable("it is about an invocation without an SNS message"))
}

fn response(mut record: Value) -> Result<Option<Value>, UnreadableMessage> {
    match record["responsePayload"].take() {
        event @ Value::Object(_) => Ok(Some(event)),
        Value::Null => Ok(None),
        _ => Err(unreadable("it is a record of a function whose answer is not an event")),
    }
}

/// `arn:PARTITION:lambda:REGION:ACCOUNT:function:NAME:VERSION`
fn function_name(arn: Option<&Value>) -> String {
    arn.and_then(Value::as_str).and_then(|arn| arn.split(':').nth(6)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn invocation(message: &Value) -> Value {
        json!({"Records": [{"EventSource": "aws:sns", "Sns": {"Type": "Notification", "Message": message.to_string()}}]})
    }

    fn record(condition: &str, request: &Value, response: &Value) -> Value {
        json!({
            "version": "1.0",
            "timestamp": "2019-11-14T18:16:05.568Z",
            "requestContext": {
                "requestId": "e4b46cbf-b738-xmpl-8880-a18cdf61200e",
                "functionArn": "arn:aws:lambda:us-east-2:123456789012:function:my-flight:$LATEST",
                "condition": condition,
                "approximateInvokeCount": 3
            },
            "requestPayload": request,
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
            "responsePayload": response
        })
    }

    fn read_json(message: &Value) -> Result<Input, UnreadableMessage> {
        read(&message.to_string()).map(|input| input.expect("it contains an event"))
    }

    #[test]
    fn an_event_is_found_in_every_shape() {
        let (first, second) = (json!({"type": "a"}), json!({"type": "b"}));
        assert_eq!(read_json(&first), Ok(Input::Event(first.clone())));
        let success = record("Success", &invocation(&first), &second);
        assert_eq!(read_json(&success), Ok(Input::Event(second.clone())));

        let failed = |error_type: &str, event: &Value| {
            Ok(Input::Failure(Failure {
                event: event.clone(),
                function: "my-flight".into(),
                error_type: error_type.into(),
            }))
        };
        let error = json!({"errorType": "StoreUnavailable", "errorMessage": "…"});
        assert_eq!(
            read_json(&record("RetriesExhausted", &invocation(&first), &error)),
            failed("StoreUnavailable", &first)
        );
        // The next function fails on the record of the previous one.
        assert_eq!(
            read_json(&record("EventAgeExceeded", &invocation(&success), &json!(null))),
            failed("EventAgeExceeded", &second)
        );

        let undelivered = json!({"Type": "Notification", "MessageId": "1", "Message": success.to_string()});
        let expected = Failure { event: second.clone(), function: String::new(), error_type: "no delivery".into() };
        assert_eq!(read_json(&undelivered), Ok(Input::Failure(expected)));
        assert_eq!(event(&undelivered.to_string()), Ok(Some(second)));
    }

    #[test]
    fn a_record_without_an_event_is_none_however_deep_it_is_nested() {
        let mut answered = record("Success", &invocation(&json!({"type": "a"})), &json!(null));
        for _ in 0..2 {
            let undelivered = json!({"Type": "Notification", "MessageId": "1", "Message": answered.to_string()});
            let given_up = record("EventAgeExceeded", &invocation(&answered), &json!(null));
            for nothing in [&answered, &undelivered, &given_up] {
                assert_eq!(read(&nothing.to_string()), Ok(None), "{nothing}");
                assert_eq!(event(&nothing.to_string()), Ok(None), "{nothing}");
            }
            answered.as_object_mut().unwrap().remove("responsePayload");
        }
    }

    #[test]
    fn a_failure_without_an_answer_is_a_failure() {
        let requested = json!({"type": "a"});
        let mut aged = record("EventAgeExceeded", &invocation(&requested), &json!(null));
        for _ in 0..2 {
            let Ok(Input::Failure(failure)) = read_json(&aged) else { panic!("{aged}") };
            assert_eq!((failure.event, &*failure.error_type), (requested.clone(), "EventAgeExceeded"));
            for name in ["responsePayload", "responseContext"] {
                aged.as_object_mut().unwrap().remove(name);
            }
        }
    }

    #[test]
    fn a_function_is_known_in_every_partition() {
        for partition in ["aws", "aws-us-gov", "aws-cn", "aws-iso-b"] {
            let arn = json!(format!("arn:{partition}:lambda:us-east-2:123456789012:function:my-flight:$LATEST"));
            assert_eq!(function_name(Some(&arn)), "my-flight");
        }
    }

    #[test]
    fn an_unreadable_message_has_a_reason() {
        let empty = invocation(&json!({}))["Records"].clone();
        for (garbage, lack) in [
            ("".to_owned(), "not valid JSON"),
            ("[1]".into(), "not a JSON object"),
            ("\"x\"".into(), "not a JSON object"),
            (json!({"Type": "Notification"}).to_string(), "notification without a message"),
            (json!({"Type": "Notification", "Message": "{"}).to_string(), "not valid JSON"),
            (record("Success", &json!({}), &json!("x")).to_string(), "answer is not an event"),
            (record("RetriesExhausted", &json!({}), &json!({})).to_string(), "without an SNS message"),
            (
                record("RetriesExhausted", &json!({"Records": [empty[0], empty[0]]}), &json!({})).to_string(),
                "without an SNS message",
            ),
        ] {
            let error = read(&garbage).unwrap_err().to_string();
            assert!(error.contains(lack), "{garbage}: {error}");
        }
    }
}
