//! Hostile input, without a fuzzer: every input that is kept in `tests/fuzz/corpus`, every past finding among them, and
//! what a bounded number of mutations make of them. `make fuzz` looks for more, guided by coverage.
//!
//! A finding is written to `target/findings`. Once it is understood it belongs into the corpus.

#![allow(clippy::unwrap_used)]

#[path = "fuzz/contract.rs"]
mod contract;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use contract::{
    PARTS, TARGETS, block_on, by_sns, by_sqs, check, documented,
    world::{World, clock, sent},
};
use end_to_end::{choices, is_whole_proof, note_figure};
use fastrand::Rng;
use saga::{
    BookingId, Command, Envelope, Event, EventType, PartName, Participant, Step, command::Action, event::samples,
    reaction::concerns,
};
use serde_json::{Value, json};
use travel::{TRAVEL, part_names};

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
    // Those of a part that nobody here sells, too.
    let parts: Vec<_> = part_names().into_iter().chain([PartName::new("sauna")]).collect();
    let envelopes: Vec<_> = json("event").iter().filter_map(|json| Envelope::read(json).ok()).collect();
    let events: BTreeSet<_> = envelopes.iter().map(|envelope| envelope.event.event_type()).collect();
    assert_eq!(events, EventType::of(&parts).into_iter().collect());
    let plans: BTreeSet<_> =
        envelopes.iter().filter_map(|envelope| Some(envelope.event.plan()?.names().len())).collect();
    assert!(plans.is_superset(&[1, 2, 3, 4].into()), "plans of {plans:?} parts");
    for target in ["command", "invocation"] {
        let commands: Vec<_> = json(target).iter().filter_map(|json| Command::read(json).ok()).collect();
        let steps: BTreeSet<_> = commands.iter().map(Command::step).collect();
        let missing: Vec<_> = Step::of(&part_names()).into_iter().filter(|step| !steps.contains(step)).collect();
        assert_eq!(missing, [], "{target}");
        let charged = commands.iter().filter_map(|command| match &command.action {
            Action::Charge { prices, .. } => Some(prices.names().len()),
            _ => None,
        });
        assert!(charged.collect::<BTreeSet<_>>().is_superset(&[1, 2, 3].into()), "{target}");
    }
}

/// And a request for every choice of parts, for none of them, and for one that nobody sells.
#[test]
fn the_corpus_has_a_request_for_every_choice_of_parts() {
    let today = clock().to_zoned(jiff::tz::TimeZone::UTC).date();
    let (mut accepted, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for (_, input) in corpus("request") {
        let Some(start) = input.windows(2).position(|two| two == b"\n\n") else { continue };
        let Ok(body) = serde_json::from_slice::<Value>(&input[start..]) else { continue };
        match TRAVEL.read(&body, today) {
            Ok(request) => drop(accepted.insert(request.parts.names())),
            Err(violations) => refused.extend(violations.into_iter().map(|violation| violation.pointer)),
        }
    }
    let choices = choices().into_iter().map(|choice| choice.into_iter().map(|part_type| part_type.name).collect());
    assert_eq!(accepted, choices.collect());
    assert!(["", "/sauna", "/parts"].iter().all(|pointer| refused.contains(*pointer)), "{refused:?}");
}

fn envelope(event: Event) -> Envelope {
    let booking_id = BookingId::try_from("0123456789abcdef0123456789abcdef".to_owned()).unwrap();
    Envelope { booking_id, event, causation_id: None, time: clock(), trace: None }
}

/// A message with each event, in the order of [`samples`].
fn events() -> Vec<(EventType, Value)> {
    samples(&PARTS).into_iter().map(|event| (event.event_type(), json!(envelope(event)))).collect()
}

fn participants() -> Vec<Participant> {
    Participant::of(&part_names())
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
    for participant in participants() {
        let mut messages = nothings();
        for (event_type, event) in events() {
            if !concerns(participant, event_type) {
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
            nothing_becomes_of(participant, &message);
            sent_to += 1;
        }
    }
    let (participants, events, parts) = (participants().len(), events().len(), part_names().len());
    let concerned = 2 * parts + 2 * parts + (1 + parts); // sellers, payment, booking
    assert_eq!(sent_to, participants * nothings().len() + 4 * (participants * events - concerned));
}

/// It is acknowledged, whoever brings it, and nothing else is done, published or parked.
fn nothing_becomes_of(participant: Participant, message: &str) {
    let refuses = World::new(false); // so that whatever asks it for anything fails
    let answer = block_on(refuses.invoke(Some(participant), by_sns(message)));
    assert_eq!(answer.unwrap(), None, "{participant} by SNS: {message}");
    let batch = block_on(refuses.invoke(Some(participant), by_sqs(&[("this", message)])));
    let acknowledged = json!({"batchItemFailures": []});
    assert_eq!(batch.unwrap(), Some(acknowledged), "{participant} by SQS: {message}");
    assert_eq!(sent(), Vec::<Value>::new(), "{participant} parks {message}");
}

/// Every seller gets every request, also of plans that it has no part in; payment, what any seller answers.
#[test]
fn what_is_about_parts_of_others_is_acknowledged_and_nothing_else_becomes_of_it() {
    let sauna = PartName::new("sauna");
    for part in part_names() {
        let others = PARTS.iter().filter(|(name, _)| *name != part).map(|(name, contents)| (name, contents.clone()));
        // What it cannot read is for somebody else to read.
        let others = others.chain([(sauna, json!("five of them"))]).collect::<BTreeMap<_, _>>();
        for event in samples(&others.try_into().unwrap()) {
            if concerns(Participant::Seller(part), event.event_type()) {
                nothing_becomes_of(Participant::Seller(part), &json!(envelope(event)).to_string());
            }
        }
    }
    for event in samples(&PARTS) {
        let of_sauna = match event {
            Event::Reserved { price, plan, .. } => Event::Reserved { part: sauna, price, plan },
            Event::Rejected { rejection, plan, .. } => Event::Rejected { part: sauna, rejection, plan },
            _ => continue,
        };
        nothing_becomes_of(Participant::Payment, &json!(envelope(of_sauna)).to_string());
    }
}

/// A seller rejects a part that it cannot read, and nobody else looks at it.
#[test]
fn a_part_that_cannot_be_read_is_rejected_by_its_seller_alone() {
    for unreadable in part_names() {
        let mut parts: BTreeMap<_, _> = PARTS.iter().map(|(name, contents)| (name, contents.clone())).collect();
        for contents in [json!(null), json!([1]), json!({}), json!({"anything": {"deep": 1}})] {
            parts.insert(unreadable, contents);
            let requested = samples(&parts.clone().try_into().unwrap()).remove(0);
            let message = json!(envelope(requested)).to_string();
            for seller in part_names() {
                let answer = block_on(World::new(true).invoke(Some(Participant::Seller(seller)), by_sns(&message)));
                match Envelope::read(&answer.unwrap().unwrap()).unwrap().event {
                    Event::Rejected { part, rejection, .. } => {
                        assert_eq!((part, part), (seller, unreadable));
                        assert_eq!(rejection.code, format!("invalid_{part}"));
                        assert!(
                            rejection.message.starts_with(&format!("the {part} cannot be read: ")),
                            "{rejection:?}"
                        );
                    }
                    Event::Reserved { part, .. } => assert!(part == seller && part != unreadable, "{message}"),
                    other => panic!("{seller} answers {other:?}"),
                }
            }
        }
    }
}

/// Payment aborts what somebody has given up, with an answer or without, if it was for them at all.
#[test]
fn what_was_given_up_is_aborted_if_it_was_for_whoever_gave_it_up() {
    for participant in participants() {
        for (event_type, event) in events() {
            let too_old = record(&participant.to_string(), "EventAgeExceeded", &event, &Value::Null).to_string();
            let world = World::new(true);
            let batch = block_on(world.invoke(Some(Participant::Payment), by_sqs(&[("this", &too_old)])));
            assert_eq!((batch.unwrap(), sent()), (Some(json!({"batchItemFailures": []})), Vec::new()), "{too_old}");
            let is_forward =
                matches!(event_type, EventType::Requested | EventType::Reserved(_) | EventType::Rejected(_));
            let aborted: Vec<_> = world.said().iter().map(|said| said.contains("\"booking.aborted\"")).collect();
            let expected = vec![true; usize::from(is_forward && concerns(participant, event_type))];
            assert_eq!(aborted, expected, "{participant} gave up {event_type}");
        }
    }
}

#[test]
fn an_answer_is_documented_if_the_description_of_the_api_has_it() {
    let description: Value = serde_yaml_ng::from_str(TRAVEL.openapi).unwrap();
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
    let description: Value = serde_yaml_ng::from_str(TRAVEL.openapi).unwrap();
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
