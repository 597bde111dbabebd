//! What the tests on the local AWS share: one stack per test program, and for each test clients and dates of its own.

#![allow(clippy::unwrap_used)] // in a test, to panic is to fail

pub mod deployed;

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_sdk_dynamodb::{
    Client,
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextRef},
    error::BoxError,
};
use aws_sdk_sqs::types::{Message, QueueAttributeName};
use jiff::{SignedDuration, Timestamp, ToSpan, civil::Date};
use local_aws::{LocalAws, LocalAwsOptions, Stack};
use saga::{
    BookingId, Catalogue, Claim, Currency, Document, IdempotencyKey, Owner, Part, PartName, PartType, Parts,
    PaymentReference, PaymentToken, Price, Status, StockLine, payment::Prices,
};
use serde_json::{Value, json};
use services::{BookingService, PaymentProvider, PaymentService, SandboxProvider, Seller};
use store::{Bookings, Header, Headers, Intake, IntakeStore, Journal, Ledger, Payments, StockTable};
use travel::TRAVEL;
use traveller::{Client as Http, client::Authorization};

/// Whether `make prove` asks for the whole proof. What `make test` runs is a bounded part of it.
pub fn is_whole_proof() -> bool {
    std::env::var_os("HARMONY_PROOF").is_some()
}

/// Notes a figure, such as `crash points: 212`, for the summary of `make prove`: `HARMONY_PROOF` is the file.
pub fn note_figure(figure: &str) {
    if let Some(path) = std::env::var_os("HARMONY_PROOF") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{figure}").unwrap();
    }
}

/// Starts a local AWS with the whole stack. It ends when the value is dropped or this process ends.
pub fn start(stack: &str, parameters: &[(&str, &str)]) -> LocalAws {
    start_with(stack, parameters, &[])
}

/// The same, with settings of the emulator. `HARMONY_TEST_LOGS` names a folder for its logs.
pub fn start_with(stack: &str, parameters: &[(&str, &str)], env: &[(&str, &str)]) -> LocalAws {
    start_of(stack, parameters, env, None)
}

/// The same, with its log in this file.
pub fn start_logged(stack: &str, parameters: &[(&str, &str)], env: &[(&str, &str)], log: &Path) -> LocalAws {
    start_logging(stack, parameters, env, None, Some(log.to_owned()))
}

/// The same, of the functions in this folder.
pub fn start_of(
    stack: &str,
    parameters: &[(&str, &str)],
    env: &[(&str, &str)],
    functions: Option<PathBuf>,
) -> LocalAws {
    let log = std::env::var_os("HARMONY_TEST_LOGS").map(|folder| Path::new(&folder).join(format!("{stack}.log")));
    start_logging(stack, parameters, env, functions, log)
}

fn start_logging(
    stack: &str,
    parameters: &[(&str, &str)],
    env: &[(&str, &str)],
    functions: Option<PathBuf>,
    log: Option<PathBuf>,
) -> LocalAws {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    // AWS waits for a minute, then for two, before it invokes a function again that failed asynchronously.
    // And a user may have told Python where to find itself, which is not this Python.
    let usual = [("LAMBDA_ASYNC_RETRY_BASE_SECONDS", "0.2"), ("PYTHONHOME", "/nowhere")];
    let env = [&usual[..], env].concat().iter().map(owned).collect();
    let parameters = parameters.iter().map(owned).collect();
    let options =
        LocalAwsOptions { stack_name: stack.into(), parameters, env, log, functions, ..LocalAwsOptions::default() };
    LocalAws::start(options).unwrap_or_else(|error| panic!("no local AWS: {error}"))
}

static LOCAL: LazyLock<LocalAws> = LazyLock::new(|| start("harmony", &[("PendingMaxAgeSeconds", "86400")]));
static NEXT_DATE: AtomicI32 = AtomicI32::new(0);

/// Clients of the stack that all tests of a program share, with dates that belong to one test alone.
pub struct House {
    /// What is deployed.
    pub stack: Stack,
    /// A client whose requests are counted.
    pub client: Client,
    calls: Arc<AtomicUsize>,
}

/// Counts requests as they go out, retries included.
#[derive(Debug)]
struct Counter(Arc<AtomicUsize>);

impl Intercept for Counter {
    fn name(&self) -> &'static str {
        "Counter"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl House {
    /// The shared stack, started if it is not there yet.
    pub async fn new() -> Self {
        Self::of(LOCAL.stack()).await
    }

    /// Clients of this stack.
    pub async fn of(stack: &Stack) -> Self {
        let sdk = stack.sdk().await.unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let config = store::client(&sdk).config().to_builder().interceptor(Counter(calls.clone())).build();
        Self { stack: stack.clone(), client: Client::from_conf(config), calls }
    }

    /// How many requests DynamoDB got while this ran, and what came of it.
    pub async fn counted<T>(&self, work: impl Future<Output = T>) -> (usize, T) {
        let before = self.calls.load(Ordering::Relaxed);
        let result = work.await;
        (self.calls.load(Ordering::Relaxed) - before, result)
    }

    /// The journal.
    pub fn journal(&self) -> Journal {
        Journal::new(self.client.clone(), self.stack.journal_table().unwrap(), 730)
    }

    /// The stock of a part.
    pub fn stock(&self, part: PartName) -> StockTable {
        StockTable::new(self.client.clone(), self.stack.stock_table(part).unwrap(), self.journal())
    }

    /// The seller of a part.
    pub fn seller(&self, part_type: PartType) -> Seller<StockTable> {
        let catalogue = Catalogue::read(part_type.price_list).unwrap();
        Seller { part_type, store: self.stock(part_type.name), catalogue, clock: Timestamp::now }
    }

    /// The sandbox provider's books.
    pub fn ledger(&self) -> Ledger {
        Ledger::new(self.client.clone(), self.stack.provider_ledger_table().unwrap())
    }

    /// Payment's decisions.
    pub fn payments(&self) -> Payments {
        Payments::new(self.client.clone(), self.stack.payments_table().unwrap(), self.journal())
    }

    /// Payment, which decides.
    pub fn payment(&self) -> PaymentService<Payments, SandboxProvider> {
        let provider = SandboxProvider { ledger: self.ledger(), clock: Timestamp::now };
        PaymentService { store: self.payments(), provider, clock: Timestamp::now }
    }

    /// The headers.
    pub fn headers(&self) -> Headers {
        Headers::new(self.client.clone(), self.stack.bookings_table().unwrap())
    }

    /// What accepts bookings.
    pub fn intake(&self) -> Intake {
        Intake::new(self.headers(), self.stack.customers_table().unwrap(), 30)
    }

    /// Booking, which ends bookings.
    pub fn booking(&self) -> BookingService<Bookings> {
        let store = Bookings::new(self.client.clone(), self.stack.bookings_table().unwrap(), self.journal());
        BookingService { store, clock: Timestamp::now }
    }

    /// Puts so many units on sale for each line of each part.
    pub async fn seed(&self, parts: &Parts, units: u32) {
        for name in parts.names() {
            self.seed_part(&parts.get(name).unwrap(), units).await;
        }
    }

    /// Puts so many units on sale for each line of the part.
    pub async fn seed_part(&self, part: &Part, units: u32) {
        let lines: Vec<_> = lines(part).into_iter().map(|line| StockLine { units, ..line }).collect();
        self.stock(part.name).seed(&lines).await.unwrap();
    }

    /// How many units are available of each line of the part.
    pub async fn available(&self, part: &Part) -> Vec<i64> {
        let mut available = Vec::new();
        for line in lines(part) {
            available.push(self.stock(part.name).available(&line).await.unwrap().expect("on sale").0);
        }
        available
    }

    /// How many units are available of each line that a request asks for: part by part, in the order in which the parts
    /// of a trip are listed.
    pub async fn left(&self, request: &traveller::TripRequest) -> Vec<Vec<i64>> {
        let parts = trip_of(request);
        let mut left = Vec::new();
        for part in TRAVEL.parts.iter().filter_map(|part_type| parts.get(part_type.name)) {
            left.push(self.available(&part).await);
        }
        left
    }
}

// ------------------------------------------------------------------------------------------- functions and queues
impl House {
    /// The deployed name of a function: that of the stack, and its own.
    pub fn function(&self, name: &str) -> String {
        let reconciler = self.stack.output("ReconcilerFunctionName").unwrap();
        format!("{}-{name}", reconciler.trim_end_matches("-reconciler"))
    }

    /// The local AWS without the SDK, which hides what may be secret and makes what is malformed impossible.
    pub async fn aws(&self, service: &'static str) -> Http {
        let sdk = Box::new(self.stack.sdk().await.unwrap());
        let http = Http::new(self.stack.endpoint.as_deref().unwrap()).unwrap();
        http.with(Authorization::Signature { sdk, service })
    }

    /// Invokes a function as anyone who may could, and returns its answer.
    pub async fn invoke(&self, function: &str, payload: &Value) -> Value {
        let path = format!("/2015-03-31/functions/{}/invocations", self.function(function));
        let answer = self.aws("lambda").await.send("POST", &path, &[], payload.to_string()).await.unwrap();
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{function}: {error}: {}", answer.body))
    }

    /// Sets an environment variable of a function, and returns what it was.
    pub async fn reconfigure(&self, function: &str, variable: &str, value: &str) -> String {
        let path = format!("/2015-03-31/functions/{}/configuration", self.function(function));
        let configuration: Value = self.aws("lambda").await.send("GET", &path, &[], "").await.unwrap().json().unwrap();
        let mut variables = configuration["Environment"]["Variables"].clone();
        let before = variables[variable].as_str().unwrap_or_else(|| panic!("{function} has no {variable}")).to_owned();
        variables[variable] = json!(value);
        let body = json!({"Environment": {"Variables": variables}}).to_string();
        let answer = self.aws("lambda").await.send("PUT", &path, &[], body).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        before
    }

    /// A client of SQS.
    pub async fn sqs(&self) -> aws_sdk_sqs::Client {
        aws_sdk_sqs::Client::new(&self.stack.sdk().await.unwrap())
    }

    /// Publishes a message: a record of what a seller answered where Lambda would, all else with the events.
    pub async fn publish(&self, message: impl ToString) {
        let (sns, message) = (aws_sdk_sns::Client::new(&self.stack.sdk().await.unwrap()), message.to_string());
        let is_record = serde_json::from_str::<Value>(&message).is_ok_and(|it| it.get("responsePayload").is_some());
        let topic = self.stack.output(TOPICS[usize::from(is_record)]).unwrap();
        sns.publish().topic_arn(topic).message(message).send().await.unwrap();
    }

    /// The URL of the queue whose name has this logical name in it.
    pub async fn queue(&self, logical: &str) -> String {
        let queues = self.sqs().await.list_queues().send().await.unwrap();
        let found = queues.queue_urls().iter().find(|url| url.contains(&format!("-{logical}-")));
        found.unwrap_or_else(|| panic!("no queue {logical} among {:?}", queues.queue_urls())).clone()
    }

    /// Puts a message into a queue.
    pub async fn send(&self, queue: &str, body: impl ToString) {
        let url = self.queue(queue).await;
        self.sqs().await.send_message().queue_url(url).message_body(body.to_string()).send().await.unwrap();
    }

    /// The first message in a queue that this is true of, looked at without taking it away; waits until there is one.
    pub async fn await_message(&self, queue: &str, is_it: impl Fn(&Message) -> bool) -> Message {
        let (url, sqs) = (self.queue(queue).await, self.sqs().await);
        let deadline = Timestamp::now() + DEADLINE;
        loop {
            let request = sqs.receive_message().queue_url(&url).max_number_of_messages(10).visibility_timeout(0);
            let answer = request.message_attribute_names("All").send().await.unwrap();
            if let Some(found) = answer.messages().iter().find(|message| is_it(message)) {
                return found.clone();
            }
            assert!(Timestamp::now() < deadline, "{queue} has no such message: {:?}", answer.messages());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How many messages a queue holds, in flight or not.
    pub async fn depth(&self, queue: &str) -> usize {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        self.count(queue, &names).await
    }

    /// How many messages a queue would show.
    pub async fn visible(&self, queue: &str) -> usize {
        self.count(queue, &[QueueAttributeName::ApproximateNumberOfMessages]).await
    }

    async fn count(&self, queue: &str, names: &[QueueAttributeName]) -> usize {
        let request = self.sqs().await.get_queue_attributes().queue_url(self.queue(queue).await);
        let answer = request.set_attribute_names(Some(names.to_vec())).send().await.unwrap();
        answer.attributes().unwrap().values().map(|count| count.parse::<usize>().unwrap()).sum()
    }

    /// What is there if the API function dies after it recorded a booking, and with it the claim on its start, and before
    /// it started it. The trip may be past by now, or have a part that nobody sells, and the provider may not know the
    /// token any more.
    pub async fn record_only(&self, request: &traveller::TripRequest, key: &str, age: SignedDuration) -> Header {
        let booking_id = BookingId::derive("anonymous", &IdempotencyKey::try_from(key).unwrap());
        let created_at = Timestamp::now() - age;
        let header = Header {
            booking_id: booking_id.clone(),
            request_digest: Document::from(request.to_json()).digest(),
            variant: request.variant,
            status: Status::Pending,
            owner: Owner::of("anonymous"),
            parts: trip_of(request),
            total: None,
            reason: None,
            claim: Claim::first(created_at),
            created_at,
            updated_at: created_at,
        };
        let reference = PaymentReference::derive(&booking_id, &header.request_digest);
        let token = PaymentToken::try_from(request.payment.token.as_str()).unwrap();
        let _ = self.payment().provider.attach(&reference, &token).await.unwrap();
        self.intake().accept(&header, &request.traveller, Timestamp::now()).await.unwrap();
        header
    }
}

/// The outputs that name the topics: of what functions publish, and of what Lambda records of sellers.
const TOPICS: [&str; 2] = ["EventsTopicArn", "OutcomesTopicArn"];

/// A queue that gets everything that is published on the topics, for tests to look at.
pub struct Tap {
    sqs: aws_sdk_sqs::Client,
    url: String,
    received: Vec<Value>,
    longest: usize,
}

impl Tap {
    /// From now on.
    pub async fn on(house: &House) -> Self {
        let sdk = house.stack.sdk().await.unwrap();
        let (sqs, sns) = (aws_sdk_sqs::Client::new(&sdk), aws_sdk_sns::Client::new(&sdk));
        let name = format!("tap-{}", Timestamp::now().as_nanosecond());
        let url = sqs.create_queue().queue_name(name).send().await.unwrap().queue_url.unwrap();
        let arn = sqs.get_queue_attributes().queue_url(&url).attribute_names(QueueAttributeName::QueueArn);
        let arn = arn.send().await.unwrap().attributes.unwrap().remove(&QueueAttributeName::QueueArn).unwrap();
        let policy = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": arn,
        }]});
        let allow =
            sqs.set_queue_attributes().queue_url(&url).attributes(QueueAttributeName::Policy, policy.to_string());
        allow.send().await.unwrap();
        for topic in TOPICS {
            let subscribe = sns.subscribe().topic_arn(house.stack.output(topic).unwrap()).protocol("sqs");
            subscribe.endpoint(&arn).attributes("RawMessageDelivery", "true").send().await.unwrap();
        }
        Self { sqs, url, received: Vec::new(), longest: 0 }
    }

    /// Everything that was published about a booking, in the shape in which it travelled, until this many messages came.
    pub async fn about(&mut self, booking: &BookingId, messages: usize) -> Vec<Value> {
        let deadline = Timestamp::now() + DEADLINE;
        loop {
            let request = self.sqs.receive_message().queue_url(&self.url).max_number_of_messages(10);
            for message in request.visibility_timeout(3_600).send().await.unwrap().messages() {
                let body = message.body().unwrap();
                self.longest = self.longest.max(body.len());
                self.received.push(serde_json::from_str(body).unwrap());
            }
            let is_about = |message: &&Value| message.to_string().contains(booking.as_str());
            let about: Vec<_> = self.received.iter().filter(is_about).cloned().collect();
            if about.len() >= messages {
                return about;
            }
            assert!(Timestamp::now() < deadline, "{} of {messages} messages: {about:#?}", about.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The size of the longest message so far, in bytes.
    pub fn longest(&self) -> usize {
        self.longest
    }
}

/// The event in a message, whichever shape it has.
pub fn event_in(message: &Value) -> &Value {
    message.get("responsePayload").unwrap_or(message)
}

/// The parts that a request names.
pub fn trip_of(request: &traveller::TripRequest) -> Parts {
    request.plan_parts().unwrap()
}

/// A part that a request names.
pub fn part_of(request: &traveller::TripRequest, name: PartName) -> Part {
    trip_of(request).get(name).unwrap_or_else(|| panic!("the trip has no {name}"))
}

/// The stock that a part needs.
pub fn lines(part: &Part) -> Vec<StockLine> {
    let part_type = travel::part_type(part.name).unwrap_or_else(|| panic!("nobody sells a {}", part.name));
    part_type.request(&part.contents).unwrap_or_else(|violations| panic!("{part:?}: {violations:?}")).lines()
}

/// A date that no other test of this program uses, with nine free days after it.
pub fn date() -> Date {
    let days = 40 + 10 * NEXT_DATE.fetch_add(1, Ordering::Relaxed);
    traveller::trip::today().saturating_add(days.days())
}

/// A booking that no other test uses.
pub fn booking_id(of: &str) -> BookingId {
    let key = format!("{of}-{}-{}", std::process::id(), Timestamp::now().as_nanosecond());
    BookingId::derive("tests", &IdempotencyKey::try_from(key.as_str()).unwrap())
}

/// A trip of all the parts that a trip may have, for three nights from this date: two seats, a room, a car, …
pub fn trip(date: Date) -> Parts {
    let parts = TRAVEL.parts.iter().map(|part_type| (part_type.name, (part_type.example)(date, 3)));
    Parts::try_from(parts.collect::<BTreeMap<_, _>>()).unwrap()
}

/// Every choice of at least one of the parts that a trip may have.
pub fn choices() -> Vec<Vec<PartType>> {
    let all = TRAVEL.parts;
    let is_chosen = |choice: usize, part: usize| choice & (1 << part) != 0;
    let chosen = |choice| all.iter().enumerate().filter(move |(part, _)| is_chosen(choice, *part));
    (1..1_usize << all.len()).map(|choice| chosen(choice).map(|(_, part_type)| *part_type).collect()).collect()
}

/// Prices in euro cents, as those of a plan that has these parts.
pub fn prices(amounts: &[(PartName, i64)]) -> Prices {
    let price = |(part, amount): &(PartName, i64)| (*part, Price { amount: *amount, currency: Currency::EUR });
    let plan = amounts.iter().map(|(part, _)| *part).collect();
    Prices::of(amounts.iter().map(price).collect(), &plan).unwrap()
}

/// Held by tests that book dozens of trips at once: two of them together would keep the emulator busy for longer than
/// anyone waits for an answer.
pub static MANY_AT_ONCE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Long enough for everything that ends at all.
pub const DEADLINE: Duration = Duration::from_secs(30);
