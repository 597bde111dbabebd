//! Crash at every point, for real. A booking of each scenario is watched first: every request to AWS that a function
//! makes for it, and everything that a function is invoked for. Then, for each of these points, one booking meets its
//! fault there and nowhere else:
//!
//! | fault | what it stands for |
//! |---|---|
//! | the process ends before the request is sent, or after it is answered | a crash, a timeout, a machine that is gone |
//! | the work is done, and who invoked the function learns of an error | a reply that is lost |
//! | an event is acknowledged, and nobody hears it | an event that is lost |
//!
//! What brings the booking to its end after that is what does so on AWS: the client's repeat, the retries of Step
//! Functions and Lambda, a message that becomes visible again; and for lost events the reconciler. The functions are
//! those of `make faults`, which differ from those that are deployed in having these points
//! ([`faults.rs`](../crates/runtime/src/faults.rs)); the last test here holds the deployed ones against that.
//!
//! To add a kind of fault: `Then` and what it does, in `faults.rs`; `Fault`, in `points.rs`; where it strikes and who mends
//! it, in `faults()` and `needs_the_reconciler` here. The compiler shows the rest.

#![allow(clippy::unwrap_used)]

#[path = "crashes/lab.rs"]
mod lab;
#[path = "crashes/points.rs"]
mod points;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use aws_sdk_sqs::types::QueueAttributeName;
use end_to_end::{DEADLINE, House, date, deployed::template, is_whole_proof, note_figure, part_of, start_of, trip_of};
use jiff::{SignedDuration, Timestamp, civil::Date};
use local_aws::LocalAws;
use saga::{BookingId, Document, EventType, IdempotencyKey, PartType, PaymentReference, Status, Step, Variant};
use serde_json::{Value, json};
use store::HeaderStore;
use tokio::{sync::Semaphore, task::JoinSet};
use travel::{CAR, FLIGHT, HOTEL};
use traveller::{
    Booking, Client, TripRequest,
    client::fresh_key,
    scenarios::{ALL, Expected, Scenario, VARIANTS, contradictions, was_overtaken},
};

use lab::Lab;
use points::{Fault, Passed, Point, Points};

/// Lambda's wait before it tries an event again. It has to be longer than a lease (15 s), as it is on AWS (60 s).
const RETRY_SECONDS: &str = "16";
/// After what time a message comes again: a little longer than a function may take (10 s), so that no message is
/// worked on twice at once. On AWS it is 60 s.
const VISIBILITY_SECONDS: &str = "12";
/// For everything that is under way at the same time.
const PATIENCE: Duration = Duration::from_secs(240);
/// How many bookings are sent at once.
const CLIENTS: usize = 6;
/// Units of each line, more than all bookings take.
const UNITS: u32 = 5_000;

/// What is booked: the scenario, the parts of the plan, and who coordinates.
type What = (&'static Scenario, &'static [PartType], Variant);

/// A booking, and what is to happen to it.
#[derive(Clone, Debug)]
struct Case {
    scenario: &'static Scenario,
    plan: &'static [PartType],
    variant: Variant,
    request: TripRequest,
    key: String,
    id: BookingId,
    reference: PaymentReference,
    fault: Option<Fault>,
}

impl Case {
    fn new((scenario, plan, variant): What, date: Date, fault: Option<Fault>) -> Self {
        let request = scenario.request(TripRequest::of(plan, date, 3), variant);
        let key = fresh_key("crash");
        let id = BookingId::derive("anonymous", &IdempotencyKey::try_from(key.as_str()).unwrap());
        let digest = Document::from(request.to_json()).digest();
        let reference = PaymentReference::derive(&id, &digest);
        Self { scenario, plan, variant, request, key, id, reference, fault }
    }

    fn what(&self) -> What {
        (self.scenario, self.plan, self.variant)
    }

    /// The word by which a text is known to be about this booking: the API is asked with the key, the payment provider
    /// with the reference, all others with the booking's id.
    fn word_in<'a>(&'a self, point: &Point, text: &str) -> Option<&'a str> {
        let words = [self.id.as_str(), self.reference.as_str(), &self.key];
        let words = if point.operation == "Request" { &words[2..] } else { &words[..2] };
        words.iter().copied().find(|word| text.contains(word))
    }

    fn is_about(&self, passed: &Passed) -> bool {
        self.word_in(&passed.point, &passed.text).is_some()
    }

    /// The word that a request or a task of this booking is known by.
    fn word_at(&self, at: &Point) -> &str {
        let asks_the_provider = at.function == "payment" && at.operation == "GetItem";
        let is_for_the_provider =
            asks_the_provider || at.words.iter().any(|word| word == "failures_left" || word == "voided_at");
        match at.operation.as_str() {
            "Request" => &self.key,
            _ if is_for_the_provider => self.reference.as_str(),
            _ => self.id.as_str(),
        }
    }

    /// Whether an event is lost without which the booking does not end. It can do without those that say how it ended,
    /// which concern nobody here, and where one part is rejected nobody waits for the others.
    fn needs_the_reconciler(&self) -> bool {
        let rejected = self.scenario.expected.reason.map(|(step, _)| step.participant().to_string());
        match &self.fault {
            Some(Fault::LoseEvent { at }) if at.function == "booking" => false,
            Some(Fault::LoseEvent { at }) if at.operation == "Event" => rejected
                .is_none_or(|rejected| rejected == Step::Charge.participant().to_string() || rejected == at.function),
            Some(Fault::LoseEvent { .. }) => true,
            // Whoever dies between claim and start leaves it to the reconciler: to the client's repeat it looks as if the
            // booking were under way.
            Some(Fault::Crash { at, after, .. }) if at.function == "api" => match at.operation.as_str() {
                "TransactWriteItems" => *after,
                "StartExecution" | "Publish" => !after,
                _ => false,
            },
            Some(Fault::Crash { .. } | Fault::LoseReply { .. }) | None => false,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}), {:?}, {}", self.scenario.name, self.variant.name(), self.plan, self.id)?;
        self.fault.as_ref().map_or(Ok(()), |fault| write!(f, ": {fault}"))
    }
}

/// A part that cannot be reserved, however often it is tried.
static GIVES_UP: Scenario = Scenario {
    name: "hotel gives up",
    about: "The hotel's function dies whenever it is asked to reserve: flight and car are given back.",
    change: |_| (),
    sent: 1,
    expected: Expected {
        status: Status::Failed,
        reason: Some((Step::Reserve(HOTEL.name), "technical_failure")),
        steps: &[],
    },
};

/// Scenarios in which something is tried again. The faults that they meet are those at the points that no other has: of
/// the hotel's cancel after it gave up; of the provider, between two attempts.
const TRIED_AGAIN: [&str; 3] = [GIVES_UP.name, "provider answers too late", "provider out of order"];

/// The plans that bookings have: of one, two and three parts, each with the one that is rejected in some scenarios.
const PLANS: [&[PartType]; 3] = [&[HOTEL], &[HOTEL, CAR], &[FLIGHT, HOTEL, CAR]];
/// That of scenarios in which how many parts there are makes no difference, or which need a certain one.
const USUAL: &[PartType] = PLANS[2];

/// How many tasks and requests there are in a booking of so many parts to which nothing happens. Each term stands for what
/// some participant is asked to do, or asks: whatever is added shows.
fn expected((scenario, plan, variant): What) -> (usize, usize) {
    let (parts, sellers) = (plan.len(), travel::part_names().len());
    let is_orchestrated = variant == Variant::Orchestrated;
    // The API: the provider is told the card, the booking is recorded, and started.
    let (begun, requests) = (1, 3);
    // Each part is reserved, and cancelled, and an event about it goes to payment, and to booking. Each seller is told what
    // is requested, and aborted, whether it has a part in the plan or not. Each event but those that sellers return to
    // Lambda is published with a request.
    let (charge, abort, end) = (3, 2, 1);
    let confirmed = if is_orchestrated {
        (begun + parts + 2, requests + parts + charge + end)
    } else {
        (begun + sellers + parts + 1, requests + parts + (parts + charge + 1) + (end + 1))
    };
    // One seller needs a second request to find out that there is nothing to give back.
    let failed = |reserves: usize, prices: usize, decision: usize, cancels: usize| {
        if is_orchestrated {
            (begun + parts + 1 + parts + 1, requests + reserves + decision + cancels + end)
        } else {
            let undone = cancels + parts + (parts + end + 1);
            (begun + sellers + parts + sellers + parts, requests + reserves + (prices + decision + 1) + undone)
        }
    };
    match scenario.name {
        "trip confirmed" => confirmed,
        "provider answers too late" => (confirmed.0, confirmed.1 + 1), // it is asked what happened
        "provider out of order" => (confirmed.0, confirmed.1 + 2),     // and notes down that it fails
        // That the stock does not suffice is found out by one request, and recorded with another.
        "hotel sold out" => failed(parts + 1, parts - 1, abort, parts + 1),
        "unknown flight" => failed(parts, parts - 1, abort, parts + 1),
        "card declined" => failed(parts, parts, charge, parts),
        // The hotel never answers; in its place somebody says that it was given up.
        "hotel gives up" => {
            let (tasks, requests) = failed(parts - 1, parts - 1, abort, parts + 1);
            (tasks - 1, requests)
        }
        name => panic!("{name} was never counted"),
    }
}

/// Whether a cancel came before its reserve, of a part that was not to fail.
fn is_overtaken(case: &Case, booking: &Booking) -> bool {
    let fails = case.scenario.expected.reason.map(|(step, _)| step);
    let mut parts = case.plan.iter().map(|part_type| part_type.name);
    parts.any(|part| fails != Some(Step::Reserve(part)) && was_overtaken(booking, part))
}

/// Sends a booking, again and again with the same key, until it is accepted. Returns how often.
async fn post(api: &Client, case: &Case) -> usize {
    for sent in 1..=3 {
        let answer = api.book(&case.request, &case.key).await.unwrap();
        if let Some(accepted) = answer.accepted() {
            assert_eq!(accepted.booking_id, case.id);
            return sent;
        }
        assert!(answer.status >= 500, "{case}: {answer:?}");
    }
    panic!("{case} is not accepted");
}

/// What the template has of this type, each with its name and properties.
fn resources(of: &str) -> Vec<(String, serde_yaml_ng::Value)> {
    let template = template();
    let resources = template["Resources"].as_mapping().unwrap().iter();
    let of_type = resources.filter(|(_, resource)| resource["Type"] == of);
    of_type.map(|(name, resource)| (name.as_str().unwrap().to_owned(), resource["Properties"].clone())).collect()
}

fn functions() -> Vec<String> {
    let functions = resources("AWS::Serverless::Function").into_iter();
    functions.map(|(name, _)| name.trim_end_matches("Function").to_lowercase()).collect()
}

/// Queues that participants are fed from: the reconciler, which has another patience, has nothing to do here.
fn inboxes() -> Vec<String> {
    let queues = resources("AWS::SQS::Queue").into_iter();
    let inboxes = queues.filter(|(_, queue)| !queue["RedrivePolicy"].is_null() && queue["VisibilityTimeout"] == 60);
    let names: Vec<_> = inboxes.map(|(name, _)| name).collect();
    assert!(names.len() > travel::part_names().len(), "there are no more than {names:?}");
    names
}

/// Where something lies that was given up.
fn dead_letters() -> Vec<String> {
    let queues = resources("AWS::SQS::Queue").into_iter().filter(|(_, queue)| queue["RedrivePolicy"].is_null());
    let names: Vec<_> = queues.map(|(name, _)| name).collect();
    assert!(names.len() > inboxes().len(), "there are no more than {names:?}");
    names
}

fn root() -> PathBuf {
    local_aws::checkout::root().unwrap()
}

fn scenario(name: &str) -> &'static Scenario {
    const { &ALL }.iter().find(|scenario| scenario.name == name).unwrap()
}

/// All faults that a booking can meet at these points.
fn faults(points: &Points) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (at, result) in points {
        let at = || at.clone();
        let says_an_event = at().operation == "Event" && result == "said";
        if at().is_task() {
            faults.push(Fault::LoseReply { at: at() });
        } else {
            faults.push(Fault::Crash { at: at(), after: false, status: Value::Null });
            faults.push(Fault::Crash { at: at(), after: true, status: result.clone() });
        }
        if says_an_event || at().operation == "Publish" {
            faults.push(Fault::LoseEvent { at: at() });
        }
    }
    faults
}

/// What is booked, and meets a fault at each point that it passes.
fn what() -> Vec<What> {
    let usual = |name| (scenario(name), USUAL);
    let each = |name| PLANS.map(|plan| (scenario(name), plan)).to_vec();
    let mut what = each("trip confirmed");
    if is_whole_proof() {
        what.extend(each("hotel sold out"));
    } else {
        what.extend([(scenario("hotel sold out"), PLANS[0]), usual("hotel sold out")]);
    }
    what.extend(["provider answers too late", "provider out of order"].map(usual));
    if is_whole_proof() {
        what.extend([usual("card declined"), usual("unknown flight"), (&GIVES_UP, USUAL)]);
    }
    what.into_iter().flat_map(|(scenario, plan)| VARIANTS.map(|variant| (scenario, plan, variant))).collect()
}

/// Such as `1, 2, 3`.
fn numbers(numbers: impl Iterator<Item = usize>) -> String {
    numbers.collect::<BTreeSet<_>>().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn whatever_crashes_or_gets_lost_every_booking_ends_as_it_must() {
    let mut lab = Lab::called("crashes").await;
    let (mut cases, mut points) = (Vec::new(), BTreeSet::new());
    for what in what() {
        let (scenario, _, variant) = what;
        let mut passed = lab.watch(what).await;
        if TRIED_AGAIN.contains(&scenario.name) {
            passed.retain(|point, _| !points.contains(&(variant.name(), point.clone())));
            assert!(!passed.is_empty(), "{}: nothing new", variant.name());
        }
        points.extend(passed.keys().map(|point| (variant.name(), point.clone())));
        cases.extend(faults(&passed).into_iter().map(|fault| Case::new(what, lab.date, Some(fault))));
    }

    // Everything ends by itself but what waits for an event that was lost, or for a start that was claimed and not made.
    let sent = lab.send(cases).await;
    for (case, _) in sent.iter().filter(|(case, _)| !case.needs_the_reconciler()) {
        lab.check(case, &lab.api.show(&case.id).await.unwrap());
    }
    lab.all_struck(&sent).await;
    lab.all_received().await;
    let open = lab.open().await;
    // Unless a neighbour's crash made the message come again, and so the event.
    let (stuck, published_again): (Vec<_>, Vec<_>) = sent
        .iter()
        .filter(|(case, _)| case.needs_the_reconciler())
        .partition(|(case, _)| open.contains(case.id.as_str()));
    for (case, fired) in published_again {
        let struck = Passed::read(&fs::read_to_string(fired).unwrap());
        assert!(lab.was_repeated(case, &struck), "{case}: it did not need the reconciler");
    }
    assert!(!stuck.is_empty());
    lab.house.reconfigure("reconciler", "PENDING_MAX_AGE_SECONDS", "1").await;
    lab.house.invoke("reconciler", &json!({})).await;
    lab.all_end(sent.iter().map(|(case, _)| case)).await;
    lab.all_received().await;

    let mut steps = BTreeSet::new();
    for (case, _) in &sent {
        let booking = lab.api.show(&case.id).await.unwrap();
        lab.check(case, &booking);
        steps.extend(booking.timeline.into_iter().map(|entry| entry.step));
    }
    lab.nothing_was_given_up().await;
    let violations = lab.audit().await;
    let count = |is_it: fn(&Fault) -> bool| sent.iter().filter(|(case, _)| is_it(case.fault.as_ref().unwrap())).count();
    note_figure(&format!(
        "crashes: {} scenarios in {} variants, plans of {} parts, {} steps, {} points; {} crashes, {} lost replies, {} \
         lost events; {} bookings mended by the reconciler; {} bookings, {} violations",
        sent.iter().map(|(case, _)| case.scenario.name).collect::<BTreeSet<_>>().len(),
        VARIANTS.len(),
        numbers(sent.iter().map(|(case, _)| case.plan.len())),
        steps.len(),
        points.len(),
        count(|fault| matches!(fault, Fault::Crash { .. })),
        count(|fault| matches!(fault, Fault::LoseReply { .. })),
        count(Fault::loses_an_event),
        stuck.len(),
        sent.len(),
        violations.len(),
    ));
    assert_eq!(violations, Vec::<String>::new());
}

/// The API has recorded bookings and died, and whenever the reconciler drives one of them again it dies, too.
#[tokio::test]
async fn a_reconciler_that_crashes_does_its_work_in_its_next_run() {
    let mut lab = Lab::called("reconciled").await;
    let two_days = SignedDuration::from_hours(48);
    let (mut cases, mut crashes) = (Vec::new(), 0);
    for variant in VARIANTS {
        let case = Case::new((scenario("trip confirmed"), USUAL, variant), lab.date, None);
        lab.house.record_only(&case.request, &case.key, two_days).await;
        let done = lab.house.invoke("reconciler", &json!({})).await;
        assert_eq!(done["restarted"], json!([case.id]), "{done}");
        lab.all_end([&case]).await;
        lab.look();
        let of_the_reconciler = |passed: &&Passed| passed.after && passed.point.function == "reconciler";
        let about = lab.trace.iter().filter(of_the_reconciler).filter(|passed| case.is_about(passed));
        let points: Points = about.map(|passed| (passed.point.clone(), passed.result.clone())).collect();
        let operations: Vec<_> = points.keys().map(|point| point.operation.as_str()).collect();
        let start = if variant == Variant::Orchestrated { "StartExecution" } else { "Publish" };
        assert_eq!(operations, ["GetItem", start, "UpdateItem"], "it reads, claims, and starts");
        for fault in faults(&points) {
            cases.push(Case::new(case.what(), lab.date, Some(fault)));
        }
    }
    lab.house.reconfigure("reconciler", "PENDING_MAX_AGE_SECONDS", "1").await;
    // A run has many bookings at work, and ends for all of them: one fault at a time, or one would hide another.
    let mut fired = Vec::new();
    for case in &cases {
        let is_crash = !case.fault.as_ref().unwrap().loses_an_event();
        fired.push(lab.arm_for(case).unwrap());
        lab.house.record_only(&case.request, &case.key, two_days).await;
        let done = lab.house.invoke("reconciler", &json!({})).await;
        assert_eq!(done.get("errorType").is_some_and(|error| error == "Runtime.ExitError"), is_crash, "{case}: {done}");
        crashes += usize::from(is_crash);
    }
    // What was claimed then, and perhaps not started, is driven when its period is over.
    let deadline = Timestamp::now() + PATIENCE;
    while !lab.open().await.is_empty() {
        assert!(Timestamp::now() < deadline, "{:?} have not ended", lab.open().await);
        let done = lab.house.invoke("reconciler", &json!({})).await;
        assert_eq!(done.get("errorType"), None, "{done}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for (case, fired) in cases.iter().zip(&fired) {
        let struck = Passed::read(&fs::read_to_string(fired).unwrap_or_else(|error| panic!("{case}: {error}")));
        case.fault.as_ref().unwrap().check(&struck, case.variant).unwrap_or_else(|wrong| panic!("{case}: {wrong}"));
        lab.check(case, &lab.api.show(&case.id).await.unwrap());
    }
    lab.all_received().await;
    lab.nothing_was_given_up().await;
    let violations = lab.audit().await;
    note_figure(&format!("reconciler: {crashes} crashes, {} bookings, {} violations", cases.len(), violations.len()));
    assert_eq!(violations, Vec::<String>::new());
}

#[test]
fn no_function_that_is_deployed_has_fault_points() {
    let has_points = |folder: &str, function: &str| {
        let program = root().join("target").join(folder).join(function).join("bootstrap");
        let bytes = fs::read(&program).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let marker = b"HARMONY_FAULTS";
        bytes.windows(marker.len()).any(|window| window == marker)
    };
    for function in functions() {
        assert!(has_points("faults", &function), "{function}: it is found if it is there");
        assert!(!has_points("lambda", &function), "{function}");
    }
}
