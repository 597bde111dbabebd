//! The payloads in `events/` are what functions get, each function in each way, and are answered as they should be.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, time::Duration};

use end_to_end::{DEADLINE, House, deployed, start};
use jiff::Timestamp;
use local_aws::checkout::root;
use operator::events::{ENDS, Sample, booking, difference, prepare, samples};
use runtime::Input;
use saga::{Command, Envelope, Participant, Step};
use serde_json::{Value, json};
use serde_yaml_ng::Value as Yaml;
use traveller::Client;

/// A function, and who invokes it with what.
type Way = (String, String);

fn way(function: &str, who: &str, what: impl Into<String>) -> Way {
    (function.to_owned(), format!("{who} {}", what.into()))
}

/// In how many ways the template lets each function be invoked.
fn ways_of_the_template() -> BTreeSet<Way> {
    let template = deployed::template();
    let folder = |logical_id: &str| logical_id.trim_end_matches("Function").to_lowercase();
    let mut ways = BTreeSet::new();
    for (name, resource) in template["Resources"].as_mapping().unwrap() {
        let properties = &resource["Properties"];
        match resource["Type"].as_str().unwrap() {
            "AWS::Serverless::Function" => {
                let events = properties["Events"].as_mapping().into_iter().flatten();
                for (_, event) in events {
                    let given = &event["Properties"];
                    ways.insert(match event["Type"].as_str().unwrap() {
                        "Api" => {
                            let (method, path) = (given["Method"].as_str().unwrap(), given["Path"].as_str().unwrap());
                            way(&folder(name.as_str().unwrap()), "API", format!("{method} {path}"))
                        }
                        "SNS" => way(&folder(name.as_str().unwrap()), "SNS", ""),
                        "Schedule" => way(&folder(name.as_str().unwrap()), "schedule", ""),
                        other => panic!("{other} is no way that this test knows"),
                    });
                }
            }
            "AWS::Lambda::EventSourceMapping" => {
                let Yaml::Tagged(function) = &properties["FunctionName"] else { panic!("no !Ref") };
                ways.insert(way(&folder(function.value.as_str().unwrap()), "SQS", ""));
            }
            _ => {}
        }
    }
    // The state machine sends each step to its participant.
    for step in Step::of(&deployed::sellers()) {
        ways.insert(way(&step.participant().to_string(), "command", step.to_string()));
    }
    ways
}

/// Who invokes a function with this; panics if the function could not read it.
fn way_of(sample: &Sample) -> Way {
    let Sample { function, payload, name, .. } = sample;
    if let Some(method) = payload["httpMethod"].as_str() {
        let resource = payload["resource"].as_str().unwrap();
        assert_eq!(payload["requestContext"]["resourcePath"], resource, "{name}");
        return way(function, "API", format!("{method} {resource}"));
    }
    let records = payload["Records"].as_array();
    for record in records.into_iter().flatten() {
        let text = record["body"].as_str().or(record.pointer("/Sns/Message").and_then(Value::as_str)).unwrap();
        let event = runtime::event(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let event = event.unwrap_or_else(|| panic!("{name} has no event"));
        if function != "reconciler" {
            Envelope::read(&event).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    if payload["source"] == "aws.events" {
        return way(function, "schedule", "");
    }
    match records.map(|records| (&records[0]["eventSource"], &records[0]["EventSource"])) {
        Some((source, _)) if source == "aws:sqs" => way(function, "SQS", ""),
        Some((_, source)) if source == "aws:sns" => way(function, "SNS", ""),
        Some(other) => panic!("{name}: {other:?}"),
        None => way(function, "command", Command::read(payload).unwrap().step().to_string()),
    }
}

#[test]
fn every_way_in_which_a_function_is_invoked_has_a_payload() {
    let samples = samples(&root().unwrap()).unwrap();
    let ready: BTreeSet<_> = samples.iter().map(way_of).collect();
    assert_eq!(ready, ways_of_the_template());
    // Messages travel in four shapes, and payment and booking get each of those that the others make.
    let shapes = samples.iter().filter(|sample| ["payment", "booking"].contains(&sample.function.as_str()));
    let shapes = shapes.flat_map(|sample| sample.payload["Records"].as_array().into_iter().flatten());
    let shapes: BTreeSet<_> = shapes
        .map(|record| {
            let text = record["body"].as_str().or(record.pointer("/Sns/Message").and_then(Value::as_str)).unwrap();
            let message: Value = serde_json::from_str(text).unwrap();
            match (runtime::read(text).unwrap().unwrap(), message["responsePayload"].is_object()) {
                (Input::Failure(failure), false) if failure.function.is_empty() => "notification",
                (Input::Failure(_), _) => "record of a failure",
                (_, true) => "record of a success",
                (_, false) => "event",
            }
        })
        .collect();
    assert_eq!(shapes.len(), 4, "{shapes:?}");
}

#[tokio::test]
async fn every_payload_is_answered_as_it_should_be_as_often_as_it_comes() {
    let local = start("payloads", &[("PendingMaxAgeSeconds", "86400")]);
    let house = House::of(local.stack()).await;
    prepare(&house.stack).await.unwrap();
    let mut samples = samples(&root().unwrap()).unwrap();
    for _ in 0..2 {
        for sample in &samples {
            let answer = house.invoke(&sample.function, &sample.payload).await;
            assert_eq!(difference(&sample.answer, &answer), None, "{}", sample.name);
        }
        samples.reverse();
    }
    // The answer to a batch does not tell what became of it.
    let api = Client::new(&house.stack.api_url).unwrap();
    for (number, variant, status) in ENDS {
        let deadline = Timestamp::now() + DEADLINE;
        while (api.show(&booking(number)).await.unwrap().status, variant) != (status, variant) {
            assert!(Timestamp::now() < deadline, "{number} is not {status}: {:#?}", api.show(&booking(number)).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let sellers = deployed::sellers();
    let with_inbox = sellers.iter().copied().map(Participant::Seller).chain([Participant::Booking]);
    let queues = with_inbox.map(|participant| deployed::logical(participant, "DeadLetters"));
    for queue in queues.chain(["StepFailuresDeadLetters", "ParkedQueue"].map(str::to_owned)) {
        assert_eq!(house.depth(&queue).await, 0, "{queue}");
    }
    for seller in sellers {
        let answer = house.invoke(seller.as_str(), &json!({})).await;
        assert_ne!(answer["errorType"], Value::Null, "errors can be told from answers");
    }
}
