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

#![allow(clippy::unwrap_used)]

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
use end_to_end::{DEADLINE, House, date, is_whole_proof, note_figure, start_of, trip_of};
use jiff::{SignedDuration, Timestamp, civil::Date};
use local_aws::LocalAws;
use saga::{BookingId, Document, EventType, IdempotencyKey, Leg, PaymentReference, Status, Step, Variant};
use serde_json::{Value, json};
use store::HeaderStore;
use tokio::{sync::Semaphore, task::JoinSet};
use traveller::{
    Booking, Client, TripRequest,
    client::fresh_key,
    scenarios::{ALL, Expected, Scenario, VARIANTS, contradictions, was_overtaken},
};

const FUNCTIONS: [&str; 7] = ["api", "flight", "hotel", "car", "payment", "booking", "reconciler"];
/// Queues that functions are fed from.
const INBOXES: [&str; 5] = ["FlightInbox", "HotelInbox", "CarInbox", "BookingInbox", "StepFailures"];
/// Where something lies that was given up.
const DEAD_LETTERS: [&str; 6] = [
    "FlightDeadLetters",
    "HotelDeadLetters",
    "CarDeadLetters",
    "BookingDeadLetters",
    "StepFailuresDeadLetters",
    "ParkedQueue",
];
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

// --------------------------------------------------------------------------------------------------- points and faults
/// A line of the trace: a point that a function has passed.
#[derive(Clone, Debug, PartialEq)]
struct Passed {
    pid: u64,
    after: bool,
    text: String,
    result: Value,
    point: Point,
}

/// A place in the work on a booking: what is asked of whom, told apart by the words in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    function: String,
    operation: String,
    words: Vec<String>,
}

/// Words that tell one point from another. Steps and events, and what tells requests of the same step apart.
fn vocabulary() -> impl Iterator<Item = String> {
    let names = Step::ALL.map(Step::name).into_iter().chain(EventType::ALL.map(EventType::name));
    let of_legs =
        Leg::ALL.into_iter().flat_map(|leg| [format!("{}_price", leg.name()), format!("[\"{}\"]", leg.name())]);
    let others = [
        "\":outcome\"",
        "INPROGRESS",
        "COMPLETED",
        "failures_left",
        "open_shard",
        "charged_at",
        "voided_at",
        "errorType",
    ];
    names.chain(others).map(str::to_owned).chain(of_legs)
}

impl Passed {
    fn read(line: &str) -> Self {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text = line["text"].as_str().unwrap().to_owned();
        let function = line["function"].as_str().unwrap();
        let point = Point {
            function: function.rsplit('-').next().unwrap().to_owned(),
            operation: line["operation"].as_str().unwrap().to_owned(),
            words: vocabulary().filter(|word| text.contains(word.as_str())).collect(),
        };
        let (pid, after) = (line["pid"].as_u64().unwrap(), line["when"] == "after");
        Self { pid, after, text, result: line["result"].clone(), point }
    }
}

impl Passed {
    /// Whether a task was done. A message that is not comes again.
    fn is_done(&self) -> bool {
        self.after && (self.result == "said" || self.result == "nothing" && self.point.operation != "Message")
    }
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = if self.after { "after" } else { "before" };
        write!(f, "{when} {} with {} in process {}", self.point, self.result, self.pid)
    }
}

impl Point {
    /// Whether it is what a function is invoked for, and not a request that it makes.
    fn is_task(&self) -> bool {
        ["Command", "Event", "Message", "Request", "Batch"].contains(&self.operation.as_str())
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {}", self.function, self.operation, self.words.join(", "))
    }
}

/// Points, each with the result that is known after it.
type Points = BTreeMap<Point, Value>;

/// What happens to a booking.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// The process ends.
    Crash {
        at: Point,
        after: bool,
        /// The HTTP status that the request was answered with when nothing went wrong.
        status: Value,
    },
    /// A reply is lost.
    LoseReply { at: Point },
    /// An event is lost: what is published, or what the function returns.
    LoseEvent { at: Point },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash { at, after, .. } => write!(f, "crash {} {at}", if *after { "after" } else { "before" }),
            Self::LoseReply { at } => write!(f, "reply lost of {at}"),
            Self::LoseEvent { at } => write!(f, "event lost of {at}"),
        }
    }
}

impl Fault {
    /// As the functions of this stack read it.
    fn to_json(&self, stack: &str) -> Value {
        let at = |at: &Point, when: &str, then: &str| {
            let lacks: Vec<_> = vocabulary().filter(|word| !at.words.contains(word)).collect();
            json!({"function": format!("{stack}-{}", at.function), "operation": at.operation, "when": when,
                   "contains": at.words, "lacks": lacks, "then": then})
        };
        match self {
            Self::Crash { at: point, after, .. } => at(point, if *after { "after" } else { "before" }, "crash"),
            Self::LoseReply { at: point } => at(point, "after", "lose_reply"),
            Self::LoseEvent { at: point } => at(point, if point.is_task() { "after" } else { "before" }, "lose_event"),
        }
    }

    /// Whether the client learns of it, and has to send its request again.
    fn hits_the_client(&self) -> bool {
        matches!(self, Self::Crash { at, .. } | Self::LoseReply { at } if at.function == "api")
    }

    fn loses_an_event(&self) -> bool {
        matches!(self, Self::LoseEvent { .. })
    }

    /// Whether it struck where it was meant to, after the answer that is given there. Where events race, that may be
    /// another one: a cancel came first, or a neighbour's crash has interrupted the same step before.
    fn check(&self, struck: &Passed, variant: Variant) -> Result<(), String> {
        let is_right = match self {
            Self::Crash { at, after, status } => {
                let is_answer = struck.result == *status
                    || variant == Variant::Choreographed && (struck.result == 200 || struck.result == 400);
                struck.point == *at && struck.after == *after && (!after || is_answer)
            }
            Self::LoseReply { at } => struck.point == *at && struck.after && struck.is_done(),
            Self::LoseEvent { at } => struck.point == *at && struck.after == at.is_task(),
        };
        if is_right { Ok(()) } else { Err(format!("{self}, but it struck at {struck}")) }
    }
}

/// A booking, and what is to happen to it.
#[derive(Clone, Debug)]
struct Case {
    scenario: &'static Scenario,
    variant: Variant,
    request: TripRequest,
    key: String,
    id: BookingId,
    reference: PaymentReference,
    fault: Option<Fault>,
}

impl Case {
    fn new(scenario: &'static Scenario, variant: Variant, date: Date, fault: Option<Fault>) -> Self {
        let request = scenario.request(TripRequest::on(date), variant);
        let key = fresh_key("crash");
        let id = BookingId::derive("anonymous", &IdempotencyKey::try_from(key.as_str()).unwrap());
        let digest = Document::from(request.to_json()).digest();
        let reference = PaymentReference::derive(&id, &digest);
        Self { scenario, variant, request, key, id, reference, fault }
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
    /// to which nobody here listens, and where one leg is rejected nobody waits for the others.
    fn needs_the_reconciler(&self) -> bool {
        let rejected = self.scenario.expected.reason.map(|(step, _)| step.participant().name());
        match &self.fault {
            Some(Fault::LoseEvent { at }) if at.function == "booking" => false,
            Some(Fault::LoseEvent { at }) if at.operation == "Event" => {
                rejected.is_none_or(|rejected| rejected == "payment" || rejected == at.function)
            }
            Some(Fault::LoseEvent { .. }) => true,
            // Whoever dies between claim and start leaves it to the reconciler: to the client's repeat it looks as if the
            // booking were under way.
            Some(Fault::Crash { at, after, .. }) if at.function == "api" => match at.operation.as_str() {
                "TransactWriteItems" => *after,
                "StartExecution" | "Publish" => !after,
                _ => false,
            },
            _ => false,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}), {}", self.scenario.name, self.variant.name(), self.id)?;
        self.fault.as_ref().map_or(Ok(()), |fault| write!(f, ": {fault}"))
    }
}

// ----------------------------------------------------------------------------------------------------------- the stack
struct Lab {
    stack: &'static str,
    _local: LocalAws, // runs as long as this value lives
    house: House,
    api: Client,
    date: Date,
    folder: PathBuf,
    trace: Vec<Passed>,
    read: u64,
    armed: usize,
}

impl Lab {
    async fn called(stack: &'static str) -> Self {
        let functions = root().join("target/faults");
        assert!(functions.is_dir(), "there are no functions with fault points: run `make faults`");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(fresh_key("faults"));
        fs::create_dir_all(&folder).unwrap();
        let local = start_of(
            stack,
            &[("PendingMaxAgeSeconds", "86400"), ("MaxReceiveCount", "30"), ("MaxDrives", "1000")],
            &[("LAMBDA_ASYNC_RETRY_BASE_SECONDS", RETRY_SECONDS), ("HARMONY_FAULTS", folder.to_str().unwrap())],
            Some(functions),
        );
        let house = House::of(local.stack()).await;
        let api = Client::new(&house.stack.api_url).unwrap();
        for inbox in INBOXES {
            let request = house.sqs().await.set_queue_attributes().queue_url(house.queue(inbox).await);
            let request = request.attributes(QueueAttributeName::VisibilityTimeout, VISIBILITY_SECONDS);
            request.send().await.unwrap();
        }
        let date = date();
        let trip = TripRequest::on(date);
        house.seed(&trip_of(&trip), UNITS).await;
        let sold_out = scenario("hotel sold out").request(trip, Variant::Orchestrated);
        house.seed_leg(trip_of(&sold_out).leg(Leg::Hotel), 0).await;
        Self { stack, _local: local, house, api, date, folder, trace: Vec::new(), read: 0, armed: 0 }
    }

    /// Reads what was added to the trace.
    fn look(&mut self) {
        let Ok(mut file) = fs::File::open(self.folder.join("trace")) else { return };
        file.seek(SeekFrom::Start(self.read)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        self.trace.extend(text[..whole].lines().map(Passed::read));
    }

    /// Puts a fault where the functions look for it.
    fn arm(&mut self, word: &str, fault: &Fault) -> PathBuf {
        self.armed += 1;
        let file = self.folder.join(format!("{word}.{}.json", self.armed));
        let aside = file.with_extension("new");
        fs::write(&aside, fault.to_json(self.stack).to_string()).unwrap();
        fs::rename(&aside, &file).unwrap();
        file.with_extension("fired")
    }

    /// The bookings that have not ended.
    async fn open(&self) -> BTreeSet<String> {
        let (open, errors) = self.house.headers().open_before(Timestamp::now()).await;
        assert!(errors.is_empty(), "{errors:?}");
        open.iter().map(ToString::to_string).collect()
    }

    /// Waits until all of these have ended.
    async fn all_end(&self, cases: impl IntoIterator<Item = &Case>) {
        let cases: Vec<_> = cases.into_iter().collect();
        let deadline = Timestamp::now() + PATIENCE;
        loop {
            let open = self.open().await;
            let left: Vec<_> = cases.iter().filter(|case| open.contains(case.id.as_str())).collect();
            if left.is_empty() {
                return;
            }
            let names: Vec<_> = left.iter().map(ToString::to_string).collect();
            assert!(Timestamp::now() < deadline, "{} have not ended:\n{}", left.len(), names.join("\n"));
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Waits until there is nothing left in the queues that functions are fed from.
    async fn all_heard(&self) {
        let deadline = Timestamp::now() + PATIENCE;
        for queue in INBOXES {
            while self.house.depth(queue).await > 0 {
                assert!(Timestamp::now() < deadline, "{queue} is not emptied");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Books one to which nothing happens, or nothing but what its scenario is about, and returns the points that it
    /// passed, each with the result that is known after it.
    async fn watch(&mut self, scenario: &'static Scenario, variant: Variant) -> Points {
        for _ in 0..10 {
            let case = Case::new(scenario, variant, self.date, None);
            self.arm_for(&case);
            assert_eq!(post(&self.api, &case).await, 1);
            self.all_end([&case]).await;
            let booking = self.api.show(&case.id).await.unwrap();
            self.check(&case, &booking);
            if !is_overtaken(&case, &booking) {
                return self.passed_by(&case, expected(scenario, variant)).await;
            }
        }
        panic!("{} ({}): a cancel always comes first", scenario.name, variant.name());
    }

    /// The points that a booking has passed, once there are so many tasks and requests.
    async fn passed_by(&mut self, case: &Case, expected: (usize, usize)) -> Points {
        let deadline = Timestamp::now() + DEADLINE;
        loop {
            self.look();
            let about = self.trace.iter().filter(|passed| passed.after && case.is_about(passed));
            let is_of_show =
                |point: &Point| point.function == "api" && ["GetItem", "Query"].contains(&&*point.operation);
            let about = about.filter(|passed| !is_of_show(&passed.point));
            let points: Points = about.map(|passed| (passed.point.clone(), passed.result.clone())).collect();
            let tasks = points.keys().filter(|point| point.is_task()).count();
            if (tasks, points.len() - tasks) == expected {
                return points;
            }
            let names: Vec<_> = points.keys().map(ToString::to_string).collect();
            assert!(
                Timestamp::now() < deadline && points.len() < expected.0 + expected.1,
                "{case} passed {tasks} tasks and {} requests:\n{}",
                points.len() - tasks,
                names.join("\n")
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Puts a booking's faults where the functions look for them. Returns the file that tells where its own struck.
    fn arm_for(&mut self, case: &Case) -> Option<PathBuf> {
        if case.scenario.name == GIVES_UP.name {
            // As often as the hotel is asked.
            let attempts = if case.variant == Variant::Orchestrated { 5 } else { 3 };
            let at = Point {
                function: "hotel".into(),
                operation: "TransactWriteItems".into(),
                words: [Step::Reserve(Leg::Hotel).name(), "COMPLETED"].map(str::to_owned).into(),
            };
            for _ in 0..attempts {
                self.arm(case.id.as_str(), &Fault::Crash { at: at.clone(), after: false, status: Value::Null });
            }
        }
        let fault = case.fault.as_ref()?;
        let word = match fault {
            Fault::Crash { at, .. } | Fault::LoseReply { at } | Fault::LoseEvent { at } => case.word_at(at),
        };
        Some(self.arm(word, fault))
    }

    /// Sends these bookings, each with its fault, and waits for the end of those that end by themselves. Returns them
    /// with the files that tell where each fault struck.
    ///
    /// A booking that does not come to its fault is booked again. Two things keep it from that, neither of them often:
    /// another one's fault in the same batch of messages is quicker; or, as events race, a cancel comes before its
    /// reserve, and then that leg's price is never noted.
    async fn send(&mut self, cases: Vec<Case>) -> Vec<(Case, PathBuf)> {
        let (mut sent, mut left) = (Vec::new(), cases);
        for _ in 0..5 {
            let armed: Vec<_> = left.into_iter().map(|case| (self.arm_for(&case).unwrap(), case)).collect();
            let (mut clients, turn) = (JoinSet::new(), Arc::new(Semaphore::new(CLIENTS)));
            for (_, case) in armed.clone() {
                let (api, turn) = (self.api.clone(), turn.clone());
                clients.spawn(async move {
                    let _turn = turn.acquire().await.unwrap();
                    let meets_its_fault = case.fault.as_ref().is_some_and(Fault::hits_the_client);
                    assert_eq!(post(&api, &case).await, if meets_its_fault { 2 } else { 1 }, "{case}");
                });
            }
            clients.join_all().await;
            self.all_end(armed.iter().map(|(_, case)| case).filter(|case| !case.needs_the_reconciler())).await;
            let deadline = Timestamp::now() + DEADLINE;
            let is_waiting = |(fired, _): &&(PathBuf, Case)| !fired.exists();
            while armed.iter().any(|each| is_waiting(&each)) && Timestamp::now() < deadline {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            left = Vec::new();
            for (fired, case) in armed {
                if fs::remove_file(fired.with_extension("json")).is_ok() {
                    left.push(Case::new(case.scenario, case.variant, self.date, case.fault.clone()));
                } else {
                    sent.push((case, fired));
                }
            }
            if left.is_empty() {
                return sent;
            }
        }
        panic!("{} never come to their faults, such as {}", left.len(), left[0]);
    }

    /// Waits until each fault has struck, where it was meant to, and what it interrupted was begun again and done.
    async fn all_struck(&mut self, sent: &[(Case, PathBuf)]) {
        let deadline = Timestamp::now() + PATIENCE;
        let mut left: Vec<_> = sent.iter().collect();
        loop {
            self.look();
            let mut waiting = Vec::new();
            for pair @ (case, fired) in left {
                let fault = case.fault.as_ref().unwrap();
                let Ok(struck) = fs::read_to_string(fired) else {
                    waiting.push((pair, "did not strike"));
                    continue;
                };
                let struck = Passed::read(&struck);
                fault.check(&struck, case.variant).unwrap_or_else(|wrong| panic!("{case}: {wrong}"));
                if !fault.loses_an_event() && !self.was_repeated(case, &struck) {
                    waiting.push((pair, "struck, and was not mended"));
                }
            }
            if waiting.is_empty() {
                return;
            }
            let names: Vec<_> = waiting.iter().map(|((case, _), why)| format!("{case} {why}")).collect();
            assert!(Timestamp::now() < deadline, "{}", names.join("\n"));
            left = waiting.into_iter().map(|(pair, _)| pair).collect();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Holds all tables against what must always be true, with the command that users have: see `make audit`.
    async fn audit(&self) -> Vec<String> {
        let file = std::env::temp_dir().join(format!("harmony-crashes-{}.json", std::process::id()));
        fs::write(&file, serde_json::to_vec(&self.house.stack).unwrap()).unwrap();
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/harmony"));
        command.args(["audit", "--all-ended", "--brief"]).env("HARMONY_STACK_FILE", &file);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        fs::remove_file(&file).unwrap();
        let [said, complaints] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        let violations: Vec<_> =
            said.lines().filter(|line| line.starts_with("violation ")).map(str::to_owned).collect();
        assert_eq!(output.status.success(), violations.is_empty(), "{said}\n{complaints}");
        assert!(said.contains(&format!(": {} violation", violations.len())), "{said}\n{complaints}");
        violations
    }

    async fn nothing_was_given_up(&self) {
        for queue in DEAD_LETTERS {
            assert_eq!(self.house.depth(queue).await, 0, "{queue}");
        }
    }

    /// How a booking has to have ended, whatever happened to it meanwhile.
    fn check(&self, case: &Case, booking: &Booking) {
        let reason = booking.reason.as_ref().map(|reason| (reason.step.as_deref(), reason.code.as_str()));
        let expected = case.scenario.expected;
        assert_eq!(
            (booking.status, reason),
            (expected.status, expected.reason.map(|(step, code)| (Some(step.name()), code))),
            "{case}: {booking:#?}"
        );
        assert_eq!(contradictions(booking), Vec::<String>::new(), "{case}");
    }

    /// Whether what a booking's fault interrupted was begun again, and done: by whom it is for to do so.
    fn was_repeated(&self, case: &Case, struck: &Passed) -> bool {
        let mut about = self.trace.iter().filter(|passed| case.is_about(passed));
        // Of the tasks of a batch it is the one that the process began last: all of them come again.
        let mut task = None;
        for passed in about.by_ref() {
            if passed.point.is_task() && passed.pid == struck.pid && !passed.after {
                task = Some(&passed.point);
            }
            if passed == struck {
                break;
            }
        }
        let task = if struck.point.is_task() { Some(&struck.point) } else { task };
        let mut later = about.filter(|passed| Some(&passed.point) == task);
        later.any(|passed| !passed.after) && later.any(Passed::is_done)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder); // a function that is still at work may be writing there
        }
    }
}

/// A leg that cannot be reserved, however often it is tried.
static GIVES_UP: Scenario = Scenario {
    name: "hotel gives up",
    about: "The hotel's function dies whenever it is asked to reserve: flight and car are given back.",
    change: |_| (),
    sent: 1,
    expected: Expected {
        status: Status::Failed,
        reason: Some((Step::Reserve(Leg::Hotel), "technical_failure")),
        steps: &[],
    },
};

/// Scenarios in which something is tried again. The faults that they meet are those at the points that no other has: of
/// the hotel's cancel after it gave up; of the provider, between two attempts.
const TRIED_AGAIN: [&str; 3] = [GIVES_UP.name, "provider answers too late", "provider out of order"];

/// How many tasks and requests there are in a booking to which nothing happens.
fn expected(scenario: &Scenario, variant: Variant) -> (usize, usize) {
    match (scenario.name, variant) {
        ("trip confirmed", Variant::Orchestrated) => (6, 10),
        ("trip confirmed", Variant::Choreographed) => (8, 15),
        ("hotel sold out", Variant::Orchestrated) => (9, 14),
        ("hotel sold out", Variant::Choreographed) => (13, 24),
        ("card declined", Variant::Orchestrated) => (9, 13),
        ("card declined", Variant::Choreographed) => (13, 24),
        ("unknown flight", Variant::Orchestrated) => (9, 13),
        ("unknown flight", Variant::Choreographed) => (13, 23),
        ("provider answers too late", Variant::Orchestrated) => (6, 11),
        ("provider answers too late", Variant::Choreographed) => (8, 16),
        ("provider out of order", Variant::Orchestrated) => (6, 12),
        ("provider out of order", Variant::Choreographed) => (8, 17),
        ("hotel gives up", Variant::Orchestrated) => (8, 12),
        ("hotel gives up", Variant::Choreographed) => (12, 22),
        (name, _) => panic!("{name} was never counted"),
    }
}

/// Whether a cancel came before its reserve, of a leg that was not to fail.
fn is_overtaken(case: &Case, booking: &Booking) -> bool {
    let fails = case.scenario.expected.reason.map(|(step, _)| step);
    Leg::ALL.into_iter().any(|leg| fails != Some(Step::Reserve(leg)) && was_overtaken(booking, leg))
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

#[tokio::test]
async fn whatever_crashes_or_gets_lost_every_booking_ends_as_it_must() {
    let mut lab = Lab::called("crashes").await;
    let names = ["trip confirmed", "hotel sold out", "provider answers too late", "provider out of order"];
    let mut scenarios = names.map(scenario).to_vec();
    if is_whole_proof() {
        scenarios.extend([scenario("card declined"), scenario("unknown flight"), &GIVES_UP]);
    }
    let (mut cases, mut points) = (Vec::new(), BTreeSet::new());
    for (scenario, variant) in scenarios.iter().flat_map(|scenario| VARIANTS.map(|variant| (*scenario, variant))) {
        let mut passed = lab.watch(scenario, variant).await;
        if TRIED_AGAIN.contains(&scenario.name) {
            passed.retain(|point, _| !points.contains(&(variant.name(), point.clone())));
            assert!(!passed.is_empty(), "{}: nothing new", variant.name());
        }
        points.extend(passed.keys().map(|point| (variant.name(), point.clone())));
        cases.extend(faults(&passed).into_iter().map(|fault| Case::new(scenario, variant, lab.date, Some(fault))));
    }

    // Everything ends by itself but what waits for an event that was lost, or for a start that was claimed and not made.
    let sent = lab.send(cases).await;
    for (case, _) in sent.iter().filter(|(case, _)| !case.needs_the_reconciler()) {
        lab.check(case, &lab.api.show(&case.id).await.unwrap());
    }
    lab.all_struck(&sent).await;
    lab.all_heard().await;
    let open = lab.open().await;
    // Unless a neighbour's crash made the message come again, and so the event.
    let (stuck, told_again): (Vec<_>, Vec<_>) = sent
        .iter()
        .filter(|(case, _)| case.needs_the_reconciler())
        .partition(|(case, _)| open.contains(case.id.as_str()));
    for (case, fired) in told_again {
        let struck = Passed::read(&fs::read_to_string(fired).unwrap());
        assert!(lab.was_repeated(case, &struck), "{case}: it did not need the reconciler");
    }
    assert!(!stuck.is_empty());
    lab.house.reconfigure("reconciler", "PENDING_MAX_AGE_SECONDS", "1").await;
    lab.house.invoke("reconciler", &json!({})).await;
    lab.all_end(sent.iter().map(|(case, _)| case)).await;
    lab.all_heard().await;

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
        "crashes: {} scenarios in {} variants, {} steps, {} points; {} crashes, {} lost replies, {} lost events; {} \
         bookings mended by the reconciler; {} bookings, {} violations",
        scenarios.len(),
        VARIANTS.len(),
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
        let case = Case::new(scenario("trip confirmed"), variant, lab.date, None);
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
            cases.push(Case::new(scenario("trip confirmed"), variant, lab.date, Some(fault)));
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
    lab.all_heard().await;
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
    for function in FUNCTIONS {
        assert!(has_points("faults", function), "{function}: it is found if it is there");
        assert!(!has_points("lambda", function), "{function}");
    }
}
