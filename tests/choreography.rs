//! Holds the template against who reacts to what: every event reaches exactly those who react to it, on the edge that
//! their step needs, and whatever cannot be delivered or done ends in a queue (tests/alarms.rs: that somebody watches).
//! That goes for the events of parts that the template has, and of one that it does not have: payment and booking get those
//! of any part, so that a new one needs no change of theirs.

#![allow(clippy::unwrap_used)]

#[path = "choreography/provider.rs"]
mod provider;
#[path = "choreography/sizes.rs"]
mod sizes;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::LazyLock,
    time::Duration,
};

use end_to_end::deployed::{self, logical, template};
use saga::{
    BookingId, Class, Envelope, Event, EventType, IdempotencyKey, PartName, PartType, Participant, Parts, Plan, Step,
    event::samples,
    payment::{ATTEMPTS, Charge, Charging},
    reaction::{self, BookingReaction, PaymentReaction},
};
use serde_json::json;
use serde_yaml_ng::Value;
use services::{ATTEMPTS_WINDOW, ErrorKind, LEASE, PROVIDER_TIMEOUT};

/// A part that the template does not have.
const SAUNA: PartName = PartName::new("sauna");

static SELLERS: LazyLock<Vec<PartName>> = LazyLock::new(deployed::sellers);

fn sellers() -> Vec<PartName> {
    SELLERS.clone()
}

/// One event of each type, for a booking of the parts that the template has and of one that it does not have.
fn events() -> Vec<Event> {
    let parts = sellers().into_iter().chain([SAUNA]).map(|part| (part, json!({})));
    samples(&Parts::try_from(parts.collect::<BTreeMap<_, _>>()).unwrap())
}

/// Who is deployed.
fn participants() -> Vec<Participant> {
    Participant::of(&sellers())
}

/// The step that a participant carries out on an event, if all that it waits for is there.
fn step(participant: Participant, event: &Event) -> Option<Step> {
    match participant {
        Participant::Seller(part) => reaction::of_seller(part, event).map(|action| action.step()),
        Participant::Payment => reaction::of_payment(event).map(|reaction| match reaction {
            PaymentReaction::Collect { .. } => Step::Charge,
            PaymentReaction::Abort { .. } => Step::Abort,
        }),
        Participant::Booking => reaction::of_booking(event).map(|reaction| match reaction {
            BookingReaction::Confirm { .. } => Step::Confirm,
            BookingReaction::Collect { .. } => Step::Fail,
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
    /// Where it is published. Whoever answers a record by a destination must not subscribe to where records are published.
    fn topic(self) -> &'static str {
        match self {
            Self::Plain => "EventsTopic",
            Self::Record => "OutcomesTopic",
        }
    }
}

/// The participants whose programs publish themselves what they answer to SNS. Of the others a destination carries it.
fn publishers() -> BTreeSet<Participant> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let serve = fs::read_to_string(format!("{root}/crates/services/src/serve.rs")).unwrap();
    let publishes = |participant: &Participant| {
        let main = fs::read_to_string(format!("{root}/functions/{participant}/src/main.rs")).unwrap();
        let (_, rest) = main.split_once("services::serve::").unwrap();
        let function = rest.split_once('(').unwrap().0;
        let (_, rest) = serve.split_once(&format!("pub async fn {function}")).unwrap();
        let body = rest.split("\n}").next().unwrap();
        let says = |who: &str| body.contains(&format!("serve(&aws, PublishedBy::{who}, handle)"));
        assert_ne!(says("Function"), says("Destination"), "{participant}: {body}");
        says("Function")
    };
    participants().into_iter().filter(publishes).collect()
}

/// The shape in which an event travels, which follows from who publishes it, and from the edges on which the steps that it
/// is about are asked for.
fn shapes(event: &Event, publishers: &BTreeSet<Participant>) -> BTreeSet<Shape> {
    let mut shapes = BTreeSet::new();
    if let Event::Requested { .. } = event {
        shapes.insert(Shape::Plain); // the API and the reconciler publish it themselves
    }
    for cause in events() {
        for participant in participants().into_iter().chain([Participant::Seller(SAUNA)]) {
            let Some(step) = step(participant, &cause) else { continue };
            let outcomes = saga_outcomes();
            let mut published = outcomes.iter().filter_map(|outcome| Event::after(&cause, step, outcome));
            if published.any(|published| published.event_type() == event.event_type()) {
                let is_carried = edge(step) == Edge::Forward && !publishers.contains(&participant);
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
    use saga::{Currency, Money, Outcome, Price, Rejection};
    let rejection = Rejection::new("sold_out", "none left");
    vec![
        Outcome::Reserved { price: Price { amount: 1, currency: Currency::EUR } },
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
/// <https://docs.aws.amazon.com/sns/latest/dg/sns-subscription-filter-policies.html> the template uses a list of values,
/// each of which may be matched by its suffix:
/// <https://docs.aws.amazon.com/sns/latest/dg/string-value-matching.html>.
fn lets_through(filter: &Value, event: &str, shape: Shape) -> bool {
    let Some(filter) = filter.as_mapping() else { return true };
    let matches = |value: &Value| match (value, value["suffix"].as_str()) {
        (Value::String(name), _) => name == event,
        (Value::Mapping(operators), Some(suffix)) if operators.len() == 1 => event.ends_with(suffix),
        (other, _) => panic!("an operator that this test does not know: {other:?}"),
    };
    filter.iter().all(|(key, rule)| match (key.as_str().unwrap_or_default(), shape) {
        ("type", Shape::Plain) => rule.as_sequence().unwrap().iter().any(matches),
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

/// The template, and who publishes its answers itself.
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
        for participant in participants() {
            self.events(participant, &mut faults);
            self.function(participant, &mut faults);
        }
        self.queues(&mut faults);
        self.subscriptions(&mut faults);
        self.asynchronous(&mut faults);
        faults
    }

    fn events(&self, participant: Participant, faults: &mut Vec<String>) {
        let function = logical(participant, "Function");
        for event in events() {
            let (name, step) = (&event.event_type().to_string(), step(participant, &event));
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
        let name = logical(participant, "Function");
        let function = self.properties(&name);
        let suffix = format!("${{AWS::StackName}}-{participant}");
        if target(&function["FunctionName"]) != suffix {
            faults.push(format!("{name} is not named {suffix}, so that a failure cannot be told to be its own"));
        }
        let forward = events().iter().any(|event| step(participant, event).is_some_and(|s| edge(s) == Edge::Forward));
        if forward {
            let config = &function["EventInvokeConfig"];
            let destinations = &config["DestinationConfig"];
            match (self.1.contains(&participant), target(&destinations["OnSuccess"]["Destination"]).as_str()) {
                (false, to) if to == Shape::Record.topic() => {}
                (true, "") => {}
                (false, _) => {
                    faults.push(format!("{name} has no OnSuccess destination: nobody gets its outcomes"));
                }
                (true, _) => {
                    faults.push(format!("{name} publishes its answers itself, and its OnSuccess destination nothing"));
                }
            }
            if target(&destinations["OnFailure"]["Destination"]) != "StepFailures" {
                faults
                    .push(format!("{name} has no OnFailure destination StepFailures: nobody is told that it gave up"));
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
            let subscribes = |topic: &str| events.iter().any(|event| topic_of(&event["Properties"]) == topic);
            if !destinations["OnSuccess"].is_null() && subscribes(Shape::Record.topic()) {
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
fn every_event_reaches_who_reacts_and_nobody_else_and_nothing_gets_lost_on_the_way() {
    assert_eq!(Template(template(), publishers()).faults(), Vec::<String>::new());
}

/// A filter that goes by the last word lets through what has the same last word. There is no such event but those of
/// sellers; what is not an event is ignored.
#[test]
fn a_filter_by_the_last_word_lets_through_events_of_sellers_only() {
    let template = Template(template(), publishers());
    let subjects = ["booking", "payment", "invoice", "reconciler", "a.b", "Flight", "", "9"];
    let happened = ["requested", "reserved", "rejected", "charged", "aborted", "cancelled", "confirmed", "failed"];
    let mut let_through = 0; // of `invoice`, which may be the name of a part, and of what is not an event
    for participant in participants() {
        for edge in [Edge::Forward, Edge::Inbox] {
            for subscription in template.filters(&logical(participant, "Function"), edge) {
                for (subject, happened) in subjects.iter().flat_map(|subject| happened.map(|word| (subject, word))) {
                    let name = format!("{subject}.{happened}");
                    let filter = &subscription["FilterPolicy"];
                    if [Shape::Plain, Shape::Record].iter().any(|shape| lets_through(filter, &name, *shape)) {
                        let_through += 1;
                        let event = EventType::named(&name);
                        let concerns = event.is_none_or(|event| reaction::concerns(participant, event));
                        assert!(concerns, "{participant} gets {name}");
                    }
                }
            }
        }
    }
    assert!(let_through > subjects.len(), "{let_through}");
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
            |t| {
                let names = |word: &'static str| sellers().into_iter().map(move |part| format!("{part}.{word}").into());
                let names: Vec<Value> = ["reserved", "rejected"].into_iter().flat_map(names).collect();
                let payment = &mut t["Resources"]["PaymentFunction"]["Properties"]["Events"]["ReservedOrRejected"];
                payment["Properties"]["FilterPolicy"]["responsePayload"]["type"] = names.into();
            },
            "PaymentFunction does not get sauna.rejected",
        ),
        (
            |t| {
                let names = sellers().into_iter().map(|part| format!("{part}.cancelled").into());
                let names: Vec<Value> = names.chain(["payment.charged".into()]).collect();
                let booking = &mut t["Resources"]["BookingInboxSubscription"]["Properties"];
                booking["FilterPolicy"]["type"] = names.into();
            },
            "BookingFunction does not get sauna.cancelled",
        ),
        (
            |t| {
                let booking = &mut t["Resources"]["BookingInboxSubscription"]["Properties"];
                booking["FilterPolicy"]["type"].as_sequence_mut().unwrap().push("booking.failed".into());
            },
            "BookingFunction gets booking.failed, which it does not react to",
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
            "CarFunction has no OnSuccess destination: nobody gets",
        ),
        (
            |t| {
                let [payment, car] = ["PaymentFunction", "CarFunction"].map(|name| ["Resources", name, "Properties"]);
                let config = car.iter().fold(&*t, |at, name| &at[*name])["EventInvokeConfig"].clone();
                payment.iter().fold(t, |at, name| &mut at[*name])["EventInvokeConfig"] = config;
            },
            "PaymentFunction publishes its answers itself, and its OnSuccess destination nothing",
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
        let faults = Template(changed, publishers()).faults();
        assert!(faults.iter().any(|found| found.contains(fault)), "expected {fault:?} among {faults:#?}");
    }
    // And in a program: it leaves its answers to a destination, and there is none.
    let faults = Template(template(), BTreeSet::new()).faults();
    for fault in
        ["PaymentFunction has no OnSuccess destination: nobody gets", "BookingFunction does not get payment.charged"]
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
    let (plain, record) = (filter("type: [a, {suffix: .b}]"), filter("responsePayload: {type: [{suffix: .b}]}"));
    for name in ["x.b", "y.b", "x.y.b", ".b"] {
        assert!(lets_through(&plain, name, Shape::Plain) && lets_through(&record, name, Shape::Record), "{name}");
    }
    for name in ["b", "xb", "x.bb", "x.B", "x.b "] {
        assert!(!lets_through(&plain, name, Shape::Plain) && !lets_through(&record, name, Shape::Record), "{name}");
    }
    assert!(lets_through(&plain, "a", Shape::Plain) && !lets_through(&plain, "x.b", Shape::Record));
}
