//! Hostile input, without a fuzzer: every input that is kept in `tests/fuzz/corpus`, every past finding among them, and
//! what a bounded number of mutations make of them. `make fuzz` looks for more, guided by coverage.
//!
//! A finding is written to `target/findings`. Once it is understood it belongs into the corpus.

#![allow(clippy::unwrap_used)]

#[path = "fuzz/contract.rs"]
mod contract;

use std::{
    collections::BTreeSet,
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use contract::{
    TARGETS, block_on, by_sns, by_sqs, check, documented,
    world::{World, clock, sent},
};
use end_to_end::{is_whole_proof, note_figure};
use fastrand::Rng;
use saga::{BookingId, Command, Envelope, EventType, Participant, Step, event::samples};
use serde_json::{Value, json};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz");

/// Mutated inputs per target.
const ROUNDS: u64 = 1_500;
const ROUNDS_OF_THE_WHOLE_PROOF: u64 = 50_000;
/// What the mutations follow from: another one makes others of the same corpus.
const SEED: u64 = 20_270_101;
/// Longer inputs are cut: what is long is no more hostile, and slow.
const MOST_BYTES: usize = 20_000;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(FOLDER).join("corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

/// The words of libFuzzer's dictionary: <https://llvm.org/docs/LibFuzzer.html#dictionaries>.
fn words() -> Vec<Vec<u8>> {
    let unescaped = |word: &str| {
        let mut bytes = Vec::new();
        let mut rest = word.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match (byte, byte == b'\\') {
                (_, false) => byte,
                _ => match rest.next().unwrap() {
                    b'x' => {
                        let digits = [rest.next().unwrap(), rest.next().unwrap()];
                        u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                    }
                    other => other,
                },
            });
        }
        bytes
    };
    let text = fs::read_to_string(Path::new(FOLDER).join("words.dict")).unwrap();
    let words = text.lines().filter(|line| line.starts_with('"'));
    words.map(|line| unescaped(line.strip_prefix('"').unwrap().strip_suffix('"').unwrap())).collect()
}

#[test]
fn every_input_of_the_corpus_is_answered_as_the_contract_says() {
    for (target, _) in TARGETS {
        let inputs = corpus(target);
        assert!(inputs.len() >= 10, "the corpus of {target} is all but empty");
        for (file, input) in inputs {
            let answered = catch_unwind(|| check(target, &input));
            assert!(answered.is_ok(), "see above what {} leads to", file.display());
        }
    }
}

#[test]
fn and_so_is_what_mutations_make_of_it() {
    let rounds = if is_whole_proof() { ROUNDS_OF_THE_WHOLE_PROOF } else { ROUNDS };
    let words = words();
    for (target, _) in TARGETS {
        let inputs = corpus(target);
        for round in 0..rounds {
            let mut rng = Rng::with_seed(SEED ^ round);
            let input = mutated(&inputs, &words, &mut rng);
            if catch_unwind(|| check(target, &input)).is_err() {
                let folder = Path::new(FOLDER).join("../../target/findings");
                let file = folder.join(format!("{target}-{SEED}-{round}"));
                fs::create_dir_all(&folder).unwrap();
                fs::write(&file, &input).unwrap();
                panic!("{target}, seed {SEED}, round {round}: see above what {} leads to", file.display());
            }
        }
    }
    note_figure(&format!("mutated inputs: {} in {} targets, 0 findings", rounds * TARGETS.len() as u64, TARGETS.len()));
}

/// One input after some changes, each at a random place.
fn mutated(inputs: &[(PathBuf, Vec<u8>)], words: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let other = |rng: &mut Rng| &inputs[rng.usize(..inputs.len())].1;
    let mut input = other(rng).clone();
    for _ in 0..rng.usize(1..=4) {
        let at = rng.usize(..=input.len());
        let to = (at + rng.usize(..=16)).min(input.len());
        match rng.u32(..8) {
            0 => drop(input.drain(at..to)),
            1 => input.insert(at, rng.u8(..)),
            2 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << rng.u32(..8);
                }
            }
            3 => {
                let again = input[at..to].to_vec();
                input.splice(at..at, again.repeat(rng.usize(1..200)));
            }
            4 => {
                let other = other(rng);
                let from = rng.usize(..=other.len());
                input.splice(at..at, other[from..].iter().take(200).copied());
            }
            5 => {
                // A value, or what one takes for it, becomes another.
                let is_end = |byte: &u8| b",:{}[]\" \n".contains(byte);
                let to = input[at..].iter().position(is_end).map_or(input.len(), |length| at + length);
                input.splice(at..to, words[rng.usize(..words.len())].iter().copied());
            }
            _ => drop(input.splice(at..at, words[rng.usize(..words.len())].iter().copied())),
        }
    }
    input.truncate(MOST_BYTES);
    input
}

/// What a mutation can start from: without it, a whole decoder could go unseen.
#[test]
fn the_corpus_has_every_event_and_every_command() {
    let json = |target: &str| -> Vec<Value> {
        corpus(target).iter().filter_map(|(_, input)| serde_json::from_slice(input).ok()).collect()
    };
    let events: BTreeSet<_> =
        json("event").iter().filter_map(|json| Some(Envelope::read(json).ok()?.event.event_type())).collect();
    assert_eq!(events, EventType::ALL.into_iter().collect());
    for target in ["command", "invocation"] {
        let steps: BTreeSet<_> =
            json(target).iter().filter_map(|json| Some(Command::read(json).ok()?.step())).collect();
        assert_eq!(steps, Step::ALL.into_iter().collect(), "{target}");
    }
}

/// A message that tells of each event, in the order of [`samples`].
fn events() -> Vec<(EventType, Value)> {
    let booking_id = BookingId::try_from("0123456789abcdef0123456789abcdef".to_owned()).unwrap();
    let said =
        |event| Envelope { booking_id: booking_id.clone(), event, causation_id: None, time: clock(), trace: None };
    samples().into_iter().map(|event| (event.event_type(), json!(said(event)))).collect()
}

/// What Lambda records of a function that was given this message.
fn record(function: &str, condition: &str, given: &Value, answer: &Value) -> Value {
    let arn = format!("arn:aws-us-gov:lambda:us-gov-west-1:0:function:harmony-{function}:$LATEST");
    json!({
        "requestContext": {"functionArn": arn, "condition": condition},
        "requestPayload": by_sns(&given.to_string()), "responsePayload": answer
    })
}

/// What says nothing to anyone: an answer of nothing, also if it could not be delivered or was itself given up; what none
/// of these programs knows.
fn nothings() -> Vec<Value> {
    let requested = &events()[0].1;
    let nothing = record("flight", "Success", requested, &Value::Null);
    let undelivered = json!({"Type": "Notification", "MessageId": "1", "Message": nothing.to_string()});
    let given_up = record("payment", "EventAgeExceeded", &nothing, &Value::Null);
    vec![nothing, undelivered, given_up, json!({"type": "invoice.sent"})]
}

/// Until the filter of a subscription has settled, a function is sent what is not for it.
#[test]
fn what_is_not_for_a_function_is_acknowledged_and_nothing_else_becomes_of_it() {
    let mut sent_to = 0;
    for participant in Participant::ALL {
        let mut messages = nothings();
        for (event_type, event) in events() {
            if !event_type.concerns(participant) {
                let altered = |name: &str, value: Value| {
                    let mut event = event.clone();
                    event[name] = value;
                    event
                };
                messages.push(record("flight", "Success", &event, &event));
                messages.extend([altered("schema_version", json!(9)), altered("data", Value::Null), event]);
            }
        }
        for message in messages.iter().map(Value::to_string) {
            let refuses = World::new(false); // so that whatever asks it for anything fails
            let answer = block_on(refuses.invoke(Some(participant), by_sns(&message)));
            assert_eq!(answer.unwrap(), None, "{} by SNS: {message}", participant.name());
            let batch = block_on(refuses.invoke(Some(participant), by_sqs(&[("this", &message)])));
            let acknowledged = json!({"batchItemFailures": []});
            assert_eq!(batch.unwrap(), Some(acknowledged), "{} by SQS: {message}", participant.name());
            assert_eq!(sent(), Vec::<Value>::new(), "{} parks {message}", participant.name());
            sent_to += 1;
        }
    }
    assert_eq!(sent_to, 5 * 4 + 4 * (5 * 14 - 3 * 2 - 6 - 4));
}

/// Payment aborts what somebody has given up, with an answer or without, if it was for them at all.
#[test]
fn what_was_given_up_is_aborted_if_it_was_for_whoever_gave_it_up() {
    for participant in Participant::ALL {
        for (event_type, event) in events() {
            let too_old = record(participant.name(), "EventAgeExceeded", &event, &Value::Null).to_string();
            let world = World::new(true);
            let batch = block_on(world.invoke(Some(Participant::Payment), by_sqs(&[("this", &too_old)])));
            assert_eq!((batch.unwrap(), sent()), (Some(json!({"batchItemFailures": []})), Vec::new()), "{too_old}");
            let is_forward =
                matches!(event_type, EventType::Requested | EventType::Reserved(_) | EventType::Rejected(_));
            let aborted: Vec<_> = world.said().iter().map(|said| said.contains("\"booking.aborted\"")).collect();
            let expected = vec![true; usize::from(is_forward && event_type.concerns(participant))];
            assert_eq!(aborted, expected, "{} gave up {event_type}", participant.name());
        }
    }
}

#[test]
fn an_answer_is_documented_if_the_description_of_the_api_has_it() {
    let description: Value = serde_yaml_ng::from_str(services::api::OPENAPI).unwrap();
    for (path, method) in [("/bookings", "POST"), ("/bookings/{booking_id}", "GET"), ("/openapi.yaml", "GET")] {
        let responses = description["paths"][path][method.to_lowercase()]["responses"].as_object().unwrap();
        let described: Vec<u64> = responses.keys().map(|status| status.parse().unwrap()).collect();
        assert_eq!(documented(method, path), described, "{method} {path}");
    }
}

/// Of objects that are one of several kinds each kind says itself what it must have, so that whoever makes types of the
/// description does not make it optional.
#[test]
fn what_an_alternative_says_of_a_member_it_says_of_one_that_is_there() {
    fn alternatives<'v>(schema: &'v Value, found: &mut Vec<&'v Value>) {
        match schema {
            Value::Object(members) => {
                found.extend(members.get("oneOf").and_then(Value::as_array).into_iter().flatten());
                members.values().for_each(|member| alternatives(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| alternatives(item, found)),
            _ => {}
        }
    }
    let description: Value = serde_yaml_ng::from_str(services::api::OPENAPI).unwrap();
    let mut found = Vec::new();
    alternatives(&description, &mut found);
    let found: Vec<_> = found.into_iter().filter(|alternative| alternative["properties"].is_object()).collect();
    assert!(found.len() > 15, "{found:?}");
    for alternative in found {
        let properties = alternative["properties"].as_object().unwrap();
        let said = properties.iter().filter(|(_, schema)| **schema != false).map(|(name, _)| name.as_str());
        let required = alternative["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        assert!(said.collect::<BTreeSet<_>>().is_subset(&required.collect()), "{alternative}");
    }
}
