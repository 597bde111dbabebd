//! Holds the template against who reacts to what: every event reaches exactly those who listen to it, on the edge that
//! their step needs, and whatever cannot be delivered or done ends in a queue (tests/alarms.rs: that somebody watches).

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, time::Duration};

use end_to_end::deployed::template;
use saga::{
    Class, Event, Participant, Step,
    event::samples,
    header::{self, Reaction as Ending},
    payment::{self, ATTEMPTS, Charge, Charging, Reaction as Deciding},
    reservation,
};
use serde_yaml_ng::Value;
use services::{ASKING, ErrorKind, LEASE, PATIENCE};

/// The step that a participant carries out when it hears of an event, if all that it waits for is there.
fn step(participant: Participant, event: &Event) -> Option<Step> {
    match participant {
        Participant::Seller(leg) => reservation::reaction(leg, event).map(|action| action.step()),
        Participant::Payment => payment::reaction(event).map(|reaction| match reaction {
            Deciding::Collect { .. } => Step::Charge,
            Deciding::Abort { .. } => Step::Abort,
        }),
        Participant::Booking => header::reaction(event).map(|reaction| match reaction {
            Ending::Confirm { .. } => Step::Confirm,
            Ending::Collect { .. } => Step::Fail,
        }),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    /// SNS invokes the function, which may give up in bounded time: then payment aborts.
    Forward,
    /// SNS puts the message into the function's inbox, where it stays until it is done.
    Inbox,
}

/// What a step needs. What leads to the decision may be given up, for the decision can be *no*; what follows from it
/// may not.
fn edge(step: Step) -> Edge {
    match step.class() {
        Class::Compensatable | Class::Pivot => Edge::Forward,
        Class::Retriable if step == Step::Abort => Edge::Forward,
        Class::Retriable => Edge::Inbox,
    }
}

/// How an event looks to a filter: as it was published, or in a record of the function that returned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    Plain,
    Record,
}

impl Shape {
    /// Where it is said. Whoever answers a record by a destination must not listen where records are said.
    fn topic(self) -> &'static str {
        match self {
            Self::Plain => "EventsTopic",
            Self::Record => "OutcomesTopic",
        }
    }
}

/// The participants whose programs say themselves what they have to say when they are invoked by SNS. Of the others it
/// is for a destination to carry it.
fn speakers() -> BTreeSet<Participant> {
    let says = |participant: &Participant, how: &str| {
        let path = format!("{}/../functions/{}/src/main.rs", env!("CARGO_MANIFEST_DIR"), participant.name());
        fs::read_to_string(path).unwrap().contains(&format!("says: Says::{how},"))
    };
    let all = Participant::ALL.into_iter();
    all.filter(|participant| {
        let itself = says(participant, "Itself");
        assert_ne!(itself, says(participant, "ByDestination"), "{}", participant.name());
        itself
    })
    .collect()
}

/// The shape in which an event travels, which follows from who says it, and from the edges on which the steps that it
/// tells of are asked for.
fn shapes(event: &Event, speakers: &BTreeSet<Participant>) -> BTreeSet<Shape> {
    let mut shapes = BTreeSet::new();
    if let Event::Requested { .. } = event {
        shapes.insert(Shape::Plain); // the API and the reconciler say it themselves
    }
    for cause in samples() {
        for participant in Participant::ALL {
            let Some(step) = step(participant, &cause) else { continue };
            let outcomes = saga_outcomes();
            let said = outcomes.iter().filter_map(|outcome| Event::after(&cause, step, outcome));
            if said.into_iter().any(|said| said.event_type() == event.event_type()) {
                let is_carried = edge(step) == Edge::Forward && !speakers.contains(&participant);
                shapes.insert(if is_carried { Shape::Record } else { Shape::Plain });
            }
        }
    }
    if matches!(event, Event::Charged { .. } | Event::Aborted { .. }) {
        shapes.insert(Shape::Plain); // payment is fed with failures by SQS
    }
    shapes
}

fn saga_outcomes() -> Vec<saga::Outcome> {
    use saga::{Money, Outcome, Rejection};
    let rejection = Rejection::new("sold_out", "none left");
    vec![
        Outcome::Reserved { price: Money::eur(1) },
        Outcome::Rejected(rejection.clone()),
        Outcome::Cancelled { released: true },
        Outcome::Charged { amount: Money::eur(1), charge_id: "ch".into() },
        Outcome::Declined(rejection),
        Outcome::Aborted { reason: None },
        Outcome::Confirmed { total: Money::eur(1) },
        Outcome::Failed { reason: None },
    ]
}

/// Whether a filter policy with the scope `MessageBody` lets an event through. Of the operators of
/// <https://docs.aws.amazon.com/sns/latest/dg/sns-subscription-filter-policies.html> the template uses none but a list of
/// values and of ends of values.
fn lets_through(filter: &Value, event: &str, shape: Shape) -> bool {
    let Some(filter) = filter.as_mapping() else { return true };
    filter.iter().all(|(key, rule)| match (key.as_str().unwrap_or_default(), shape) {
        ("type", Shape::Plain) => rule.as_sequence().unwrap().iter().any(|rule| match rule.as_mapping() {
            None => rule.as_str() == Some(event),
            Some(only) if only.len() == 1 => event.ends_with(rule["suffix"].as_str().unwrap()),
            Some(_) => panic!("what {rule:?} lets through is not known here"),
        }),
        ("responsePayload", Shape::Record) => lets_through(rule, event, Shape::Plain),
        _ => false,
    })
}

/// The name behind `!Ref X`, `!GetAtt X.Arn` or the like.
fn target(value: &Value) -> String {
    let text = match value {
        Value::Tagged(tagged) => tagged.value.as_str(),
        other => other.as_str(),
    };
    text.unwrap_or_default().split('.').next().unwrap_or_default().to_owned()
}

/// The topic of a subscription, whether it is an event of a function or stands by itself.
fn topic_of(subscription: &Value) -> String {
    target(if subscription["Topic"].is_null() { &subscription["TopicArn"] } else { &subscription["Topic"] })
}

fn capital(participant: Participant) -> String {
    let name = participant.name();
    format!("{}{}", name[..1].to_uppercase(), &name[1..])
}

/// The template, and who says itself what it says.
struct Template(Value, BTreeSet<Participant>);

impl Template {
    fn of_type<'t>(&'t self, kind: &'t str) -> impl Iterator<Item = (&'t str, &'t Value)> {
        let all = self.0["Resources"].as_mapping().unwrap().iter();
        all.filter(move |(_, resource)| resource["Type"] == kind)
            .map(|(name, resource)| (name.as_str().unwrap(), &resource["Properties"]))
    }

    fn properties(&self, name: &str) -> &Value {
        &self.0["Resources"][name]["Properties"]
    }

    fn queue_of(&self, function: &str) -> Option<(String, &Value)> {
        let mut mappings = self.of_type("AWS::Lambda::EventSourceMapping");
        mappings
            .find(|(_, mapping)| target(&mapping["FunctionName"]) == function)
            .map(|(_, mapping)| (target(&mapping["EventSourceArn"]), mapping))
    }

    fn timeout(&self, function: &str) -> u64 {
        let own = self.properties(function)["Timeout"].as_u64();
        own.or(self.0["Globals"]["Function"]["Timeout"].as_u64()).unwrap()
    }

    /// The filters of those subscriptions that bring events to this function on this edge.
    fn filters(&self, function: &str, edge: Edge) -> Vec<&Value> {
        let is_event = |event: &&Value| event["Type"] == "SNS";
        match edge {
            Edge::Forward => {
                let events = self.properties(function)["Events"].as_mapping();
                let events = events.into_iter().flat_map(|events| events.values()).filter(is_event);
                events.map(|event| &event["Properties"]).collect()
            }
            Edge::Inbox => {
                let Some((queue, _)) = self.queue_of(function) else { return Vec::new() };
                let all = self.of_type("AWS::SNS::Subscription");
                all.filter(|(_, sub)| target(&sub["Endpoint"]) == queue).map(|(_, sub)| sub).collect()
            }
        }
    }

    /// Everything that is wrong with the template.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for participant in Participant::ALL {
            self.events(participant, &mut faults);
            self.function(participant, &mut faults);
        }
        self.queues(&mut faults);
        self.subscriptions(&mut faults);
        self.asynchronous(&mut faults);
        faults
    }

    fn events(&self, participant: Participant, faults: &mut Vec<String>) {
        let function = format!("{}Function", capital(participant));
        for event in samples() {
            let (name, step) = (event.event_type().name(), step(participant, &event));
            for shape in [Shape::Plain, Shape::Record] {
                for on in [Edge::Forward, Edge::Inbox] {
                    let filters = self.filters(&function, on);
                    let comes = |sub: &&&Value| {
                        topic_of(sub) == shape.topic() && lets_through(&sub["FilterPolicy"], name, shape)
                    };
                    let comes = filters.iter().filter(comes).count();
                    let wanted = step.is_some_and(|step| edge(step) == on) && shapes(&event, &self.1).contains(&shape);
                    match (wanted, comes) {
                        (true, 1) | (false, 0) => {}
                        (true, 0) => faults.push(format!("{function} does not get {name} ({on:?}, {shape:?})")),
                        (true, _) => faults.push(format!("{function} gets {name} more than once ({on:?}, {shape:?})")),
                        (false, _) => {
                            faults.push(format!(
                                "{function} gets {name}, which it does not react to ({on:?}, {shape:?})"
                            ));
                        }
                    }
                }
            }
        }
    }

    fn function(&self, participant: Participant, faults: &mut Vec<String>) {
        let name = format!("{}Function", capital(participant));
        let function = self.properties(&name);
        let suffix = format!("${{AWS::StackName}}-{}", participant.name());
        if target(&function["FunctionName"]) != suffix {
            faults.push(format!("{name} is not named {suffix}, so that a failure cannot be told to be its own"));
        }
        let forward = samples().iter().any(|event| step(participant, event).is_some_and(|s| edge(s) == Edge::Forward));
        if forward {
            let config = &function["EventInvokeConfig"];
            let destinations = &config["DestinationConfig"];
            match (self.1.contains(&participant), target(&destinations["OnSuccess"]["Destination"]).as_str()) {
                (false, to) if to == Shape::Record.topic() => {}
                (true, "") => {}
                (false, _) => {
                    faults.push(format!("{name} has no OnSuccess destination: nobody hears of its outcomes"));
                }
                (true, _) => {
                    faults.push(format!("{name} says itself what it says, and its OnSuccess destination nothing"));
                }
            }
            if target(&destinations["OnFailure"]["Destination"]) != "StepFailures" {
                faults.push(format!("{name} has no OnFailure destination StepFailures: nobody hears that it gave up"));
            }
            if !config["MaximumRetryAttempts"].is_u64() || !config["MaximumEventAgeInSeconds"].is_u64() {
                faults.push(format!("{name} does not give up in bounded time"));
            }
        }
        let variables = &function["Environment"]["Variables"];
        let Some((queue, _)) = self.queue_of(&name) else {
            faults.push(format!("{name} is fed by no queue"));
            return;
        };
        let dead_letters = target(&self.properties(&queue)["RedrivePolicy"]["deadLetterTargetArn"]);
        for (variable, wanted) in [("QUEUE_URL", &queue), ("DEAD_LETTER_QUEUE_URL", &dead_letters)] {
            if target(&variables[variable]) != *wanted {
                faults.push(format!("{name}: {variable} is not {wanted}"));
            }
        }
    }

    fn queues(&self, faults: &mut Vec<String>) {
        let redriven = format!("{:?}", self.0["Outputs"]["DeadLetterQueueUrls"]["Value"]);
        for (_, mapping) in self.of_type("AWS::Lambda::EventSourceMapping") {
            let (queue, function) = (target(&mapping["EventSourceArn"]), target(&mapping["FunctionName"]));
            let properties = self.properties(&queue);
            let least = 6 * self.timeout(&function);
            if properties["VisibilityTimeout"].as_u64().is_none_or(|timeout| timeout < least) {
                faults.push(format!("{queue}: VisibilityTimeout is less than {least}, six times that of {function}"));
            }
            if !format!("{:?}", mapping["FunctionResponseTypes"]).contains("ReportBatchItemFailures") {
                faults.push(format!("{queue}: its mapping does not report batch item failures"));
            }
            let dead_letters = target(&properties["RedrivePolicy"]["deadLetterTargetArn"]);
            if self.properties(&dead_letters).is_null() {
                faults.push(format!("{queue} has no dead-letter queue"));
            } else if !redriven.contains(&format!("\"{dead_letters}\"")) {
                faults
                    .push(format!("{dead_letters} is not among the output DeadLetterQueueUrls: nobody can redrive it"));
            }
        }
        for (queue, properties) in self.of_type("AWS::SQS::Queue") {
            if properties["SqsManagedSseEnabled"] != true {
                faults.push(format!("{queue} is not encrypted"));
            }
        }
    }

    fn subscriptions(&self, faults: &mut Vec<String>) {
        let policies: Vec<_> = self.of_type("AWS::SQS::QueuePolicy").map(|(_, policy)| policy).collect();
        let may_send = |topic: &str, queue: &str| {
            policies.iter().any(|policy| {
                policy["Queues"].as_sequence().unwrap().iter().any(|of| target(of) == queue)
                    && policy["PolicyDocument"]["Statement"].as_sequence().unwrap().iter().any(|statement| {
                        let topics = statement["Condition"]["ArnEquals"]["aws:SourceArn"].as_sequence();
                        statement["Principal"]["Service"] == "sns.amazonaws.com"
                            && topics.is_some_and(|topics| topics.iter().any(|of| target(of) == topic))
                    })
            })
        };
        let mut subscriptions: Vec<(String, &Value)> =
            self.of_type("AWS::SNS::Subscription").map(|(name, sub)| (name.to_owned(), sub)).collect();
        for (name, function) in self.of_type("AWS::Serverless::Function") {
            let events = function["Events"].as_mapping().into_iter().flatten();
            let events = events.filter(|(_, event)| event["Type"] == "SNS");
            subscriptions
                .extend(events.map(|(event, e)| (format!("{name}{}", event.as_str().unwrap()), &e["Properties"])));
        }
        for (name, subscription) in subscriptions {
            if subscription["FilterPolicyScope"] != "MessageBody" {
                faults.push(format!("{name} does not filter on the message"));
            }
            let topic = topic_of(subscription);
            let dead_letters = target(&subscription["RedrivePolicy"]["deadLetterTargetArn"]);
            if dead_letters.is_empty() {
                faults.push(format!("{name} has no dead-letter queue"));
            } else if !may_send(&topic, &dead_letters) {
                faults.push(format!("{dead_letters} has no policy that lets {topic} send to it"));
            }
            if subscription["Protocol"] == "sqs" {
                if subscription["RawMessageDelivery"] != true {
                    faults.push(format!("{name} wraps messages, which makes them grow"));
                }
                let queue = target(&subscription["Endpoint"]);
                if !may_send(&topic, &queue) {
                    faults.push(format!("{queue} has no policy that lets {topic} send to it"));
                }
            }
        }
    }

    fn asynchronous(&self, faults: &mut Vec<String>) {
        for (name, function) in self.of_type("AWS::Serverless::Function") {
            let events: Vec<_> = function["Events"].as_mapping().into_iter().flat_map(|all| all.values()).collect();
            if !events.iter().any(|event| event["Type"] == "SNS" || event["Type"] == "Schedule") {
                continue;
            }
            let destinations = &function["EventInvokeConfig"]["DestinationConfig"];
            let hears = |topic: &str| events.iter().any(|event| topic_of(&event["Properties"]) == topic);
            if !destinations["OnSuccess"].is_null() && hears(Shape::Record.topic()) {
                faults.push(format!("{name} answers records with records: without end, while filters do not hold"));
            }
            if target(&destinations["OnFailure"]["Destination"]).is_empty() {
                faults.push(format!("{name} is invoked asynchronously and has nowhere to put what fails"));
            }
            for event in events.iter().filter(|event| event["Type"] == "Schedule") {
                if event["Properties"]["DeadLetterConfig"].is_null() {
                    faults.push(format!("the schedule of {name} has no dead-letter queue"));
                }
            }
        }
    }
}

#[test]
fn every_event_reaches_who_listens_and_nobody_else_and_nothing_gets_lost_on_the_way() {
    assert_eq!(Template(template(), speakers()).faults(), Vec::<String>::new());
}

/// Each fault that somebody could make who adds a participant, and what the test above would say.
#[test]
fn what_is_forgotten_is_named() {
    type Change = fn(&mut Value);
    let cases: &[(Change, &str)] = &[
        (
            |t| drop(t["Resources"]["HotelFunction"]["Properties"].as_mapping_mut().unwrap().remove("Events")),
            "HotelFunction does not get booking.requested",
        ),
        (
            |t| t["Resources"]["CarInboxSubscription"]["Properties"]["FilterPolicy"] = Value::Null,
            "CarFunction gets flight.reserved, which it does not react to",
        ),
        (
            |t| drop(t["Resources"].as_mapping_mut().unwrap().remove("BookingInboxSubscription")),
            "BookingFunction does not get payment.charged",
        ),
        (
            |t| drop(t["Resources"].as_mapping_mut().unwrap().remove("FlightInboxMapping")),
            "FlightFunction is fed by no queue",
        ),
        (
            |t| {
                let types =
                    &mut t["Resources"]["PaymentFunction"]["Properties"]["Events"]["ReservedOrRejected"]["Properties"];
                types["FilterPolicy"]["responsePayload"]["type"].as_sequence_mut().unwrap().remove(0);
            },
            "PaymentFunction does not get car.reserved",
        ),
        (
            |t| drop(t["Resources"]["CarFunction"]["Properties"].as_mapping_mut().unwrap().remove("EventInvokeConfig")),
            "CarFunction has no OnFailure destination",
        ),
        (
            |t| {
                let config = &mut t["Resources"]["CarFunction"]["Properties"]["EventInvokeConfig"];
                drop(config["DestinationConfig"].as_mapping_mut().unwrap().remove("OnSuccess"));
            },
            "CarFunction has no OnSuccess destination: nobody hears",
        ),
        (
            |t| {
                let [payment, car] = ["PaymentFunction", "CarFunction"].map(|name| ["Resources", name, "Properties"]);
                let config = car.iter().fold(&*t, |at, name| &at[*name])["EventInvokeConfig"].clone();
                payment.iter().fold(t, |at, name| &mut at[*name])["EventInvokeConfig"] = config;
            },
            "PaymentFunction says itself what it says, and its OnSuccess destination nothing",
        ),
        (
            |t| t["Resources"]["CarFunction"]["Properties"]["EventInvokeConfig"]["MaximumRetryAttempts"] = Value::Null,
            "CarFunction does not give up in bounded time",
        ),
        (
            |t| t["Resources"]["HotelInbox"]["Properties"]["VisibilityTimeout"] = 59.into(),
            "HotelInbox: VisibilityTimeout is less than 60",
        ),
        (
            |t| drop(t["Resources"]["HotelInbox"]["Properties"].as_mapping_mut().unwrap().remove("RedrivePolicy")),
            "HotelInbox has no dead-letter queue",
        ),
        (
            |t| {
                let queues = &mut t["Resources"]["QueuePolicy"]["Properties"]["Queues"];
                queues.as_sequence_mut().unwrap().retain(|queue| target(queue) != "CarInbox");
            },
            "CarInbox has no policy that lets EventsTopic send",
        ),
        (
            |t| {
                let allow = &mut t["Resources"]["QueuePolicy"]["Properties"]["PolicyDocument"]["Statement"][0];
                let topics = &mut allow["Condition"]["ArnEquals"]["aws:SourceArn"];
                topics.as_sequence_mut().unwrap().retain(|topic| target(topic) != "OutcomesTopic");
            },
            "StepFailures has no policy that lets OutcomesTopic send",
        ),
        (
            |t| {
                let car = &mut t["Resources"]["CarFunction"]["Properties"]["Events"]["Requested"]["Properties"];
                car["Topic"] = "OutcomesTopic".into();
            },
            "CarFunction answers records with records",
        ),
        (
            |t| {
                let payment = &mut t["Resources"]["PaymentFunction"]["Properties"]["Events"]["ReservedOrRejected"];
                payment["Properties"]["Topic"] = "EventsTopic".into();
            },
            "PaymentFunction does not get flight.reserved",
        ),
        (
            |t| {
                let sub = &mut t["Resources"]["CarInboxSubscription"]["Properties"];
                drop(sub.as_mapping_mut().unwrap().remove("RedrivePolicy"));
            },
            "CarInboxSubscription has no dead-letter queue",
        ),
        (
            |t| t["Resources"]["CarInboxSubscription"]["Properties"]["RawMessageDelivery"] = false.into(),
            "CarInboxSubscription wraps messages",
        ),
        (
            |t| t["Resources"]["CarInboxMapping"]["Properties"]["FunctionResponseTypes"] = Value::Null,
            "CarInbox: its mapping does not report batch item failures",
        ),
        (|t| t["Outputs"]["DeadLetterQueueUrls"]["Value"] = Value::Null, "CarDeadLetters is not among the output"),
        (
            |t| t["Resources"]["CarFunction"]["Properties"]["FunctionName"] = Value::Null,
            "CarFunction is not named ${AWS::StackName}-car",
        ),
        (
            |t| t["Resources"]["CarFunction"]["Properties"]["Environment"]["Variables"]["QUEUE_URL"] = Value::Null,
            "CarFunction: QUEUE_URL is not CarInbox",
        ),
        (
            |t| {
                let schedule = &mut t["Resources"]["ReconcilerFunction"]["Properties"]["Events"]["EveryMinute"];
                schedule["Properties"]["DeadLetterConfig"] = Value::Null;
            },
            "the schedule of ReconcilerFunction has no dead-letter queue",
        ),
    ];
    for (change, fault) in cases {
        let mut changed = template();
        change(&mut changed);
        let faults = Template(changed, speakers()).faults();
        assert!(faults.iter().any(|found| found.contains(fault)), "expected {fault:?} among {faults:#?}");
    }
    // And in a program: it leaves to a destination what it has to say, and there is none.
    let faults = Template(template(), BTreeSet::new()).faults();
    for fault in
        ["PaymentFunction has no OnSuccess destination: nobody hears", "BookingFunction does not get payment.charged"]
    {
        assert!(faults.iter().any(|found| found.contains(fault)), "expected {fault:?} among {faults:#?}");
    }
}

#[test]
fn filters_are_read_as_sns_reads_them() {
    let filter = |text: &str| -> Value { serde_yaml_ng::from_str(text).unwrap() };
    let (plain, record) = (filter("type: [a, b]"), filter("responsePayload: {type: [a]}"));
    assert!(lets_through(&plain, "b", Shape::Plain) && lets_through(&record, "a", Shape::Record));
    assert!(!lets_through(&plain, "a", Shape::Record) && !lets_through(&record, "a", Shape::Plain));
    assert!(!lets_through(&plain, "c", Shape::Plain) && !lets_through(&record, "b", Shape::Record));
    assert!(lets_through(&Value::Null, "a", Shape::Record), "no filter lets everything through");
    let by_end = filter("type: [a, {suffix: .b}]");
    assert!(["a", "x.b", "y.b"].iter().all(|name| lets_through(&by_end, name, Shape::Plain)));
    assert!(["x.a", "b", "x.b.c", "xb"].iter().all(|name| !lets_through(&by_end, name, Shape::Plain)));
}

// ------------------------------------------------------------------------- a provider that is out of order for a moment

/// What becomes of an attempt at the provider.
#[derive(Clone, Copy)]
enum Attempt {
    Fails,
    /// It charges, and nobody hears of it in time.
    IsLate,
    Succeeds,
}

/// How long one invocation of payment waits at the most, and whether it then knows that it is charged.
fn invocation(attempts: &mut impl Iterator<Item = Attempt>) -> (Duration, bool) {
    let milliseconds = |time: Duration| time.as_millis() as i64;
    let (mut waited, mut charging) =
        (Duration::ZERO, Charging::leased(milliseconds(LEASE), milliseconds(ASKING), None));
    while let Charge::Ask { pause, .. } = charging.next(milliseconds(waited)) {
        waited += pause;
        match attempts.next() {
            None | Some(Attempt::Succeeds) => return (waited, true),
            Some(Attempt::IsLate) => waited += PATIENCE,
            Some(Attempt::Fails) => {}
        }
        charging = charging.answered(None);
    }
    (waited, false)
}

/// How long a charge waits at the most, if these are the waits between invocations of payment.
fn charge(attempts: &[Attempt], outside: &[Duration]) -> Option<Duration> {
    let (mut attempts, mut waits) = (attempts.iter().copied(), outside.iter());
    let mut total = Duration::ZERO;
    loop {
        let (waited, is_charged) = invocation(&mut attempts);
        total += waited;
        if is_charged {
            return Some(total);
        }
        total += *waits.next()?;
    }
}

/// Lambda's waits before it invokes a function again that failed asynchronously:
/// <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html>.
const LAMBDA: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(120)];

/// The longest waits of the state machine before it asks payment again to charge, after an error of the provider.
fn state_machine() -> Vec<Duration> {
    let definition: serde_json::Value =
        serde_json::from_str(include_str!("../statemachines/booking.asl.json")).expect("the state machine is JSON");
    let names = [ErrorKind::ProviderUnavailable.name(), "States.ALL"];
    let retries = definition["States"]["Charge"]["Retry"].as_array().unwrap();
    let is_of_provider = |retry: &&serde_json::Value| {
        retry["ErrorEquals"].as_array().unwrap().iter().any(|error| names.iter().any(|name| error == name))
    };
    let retry = retries.iter().find(is_of_provider).unwrap();
    // What is not said is as in <https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html>.
    let number = |name: &str, unsaid: f64| retry[name].as_f64().unwrap_or(unsaid);
    let wait = |nth: i32| number("IntervalSeconds", 1.0) * number("BackoffRate", 2.0).powi(nth);
    let waits = (0..number("MaxAttempts", 3.0) as i32).map(|nth| wait(nth).min(number("MaxDelaySeconds", f64::MAX)));
    waits.map(Duration::from_secs_f64).collect()
}

/// Computed, not measured: on a local AWS with these waits, `tests/events.rs` shows it.
#[test]
fn a_provider_that_is_out_of_order_for_a_moment_costs_a_few_seconds_in_both_variants() {
    use Attempt::{Fails, IsLate, Succeeds};
    let (tok_flaky, tok_timeout) = ([Fails, Fails, Succeeds], [IsLate, Succeeds]);
    for outside in [&LAMBDA[..], &state_machine()] {
        for attempts in [&tok_flaky[..], &tok_timeout] {
            let took = charge(attempts, outside).unwrap();
            assert!(took < Duration::from_secs(15), "{took:?}");
            assert_eq!(Some(took), charge(attempts, &[]), "one invocation is enough");
        }
    }
    // What lasts longer is for the waits outside.
    let outage = [Fails; ATTEMPTS as usize];
    assert_eq!(charge(&outage, &[]), None);
    assert!(charge(&outage, &LAMBDA).unwrap() > LAMBDA[0]);
    assert!(charge(&outage, &state_machine()).is_some());
}

#[test]
fn payment_stops_asking_the_provider_while_its_function_still_has_time_and_its_lease_lasts() {
    let timeout = Duration::from_secs(Template(template(), BTreeSet::new()).timeout("PaymentFunction"));
    let (longest, _) = invocation(&mut std::iter::repeat(Attempt::IsLate));
    assert!(longest <= ASKING + PATIENCE, "{longest:?}");
    // What was answered has to be recorded and published.
    assert!(ASKING + PATIENCE + Duration::from_secs(1) < timeout, "{timeout:?}");
    assert!(timeout < LEASE, "a worker outlives its lease");
}
