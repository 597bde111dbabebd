//! What DynamoDB, the network and the payment provider do to a request, and the local AWS does not: conflicting
//! transactions, throttling, silence, answers that are lost. Whatever it is, a step has one effect.

#![allow(clippy::unwrap_used)]

use std::{
    fmt,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_config::{BehaviorVersion, Region, SdkConfig, timeout::TimeoutConfig};
use aws_sdk_dynamodb::{
    Client,
    config::{Credentials, SharedCredentialsProvider, SharedHttpClient},
};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    shared::IntoShared,
};
use aws_smithy_types::body::SdkBody;
use end_to_end::{House, date, trip, trip_of};
use jiff::{SignedDuration, Timestamp};
use local_aws::Stack;
use saga::{
    BookingId, Leg, LegRequest, Money, Outcome, PaymentReference, PaymentToken, Reason, Step,
    booking::Trip,
    payment::{Prices, State},
};
use serde_json::{Value, json};
use services::{
    ASKING, BookingDesk, Cashier, Catalogue, Clock, ErrorKind, Executions, LEASE, PATIENCE, PaymentProvider,
    ProviderError, SandboxProvider, Seller, StateMachine, StepError, UnknownToken,
};
use store::{Bookings, Commit, Header, HeaderStore, IntakeStore, Journal, Ledger, PaymentStore, Payments, StockTable};
use traveller::{TripRequest, client::fresh_key};

// -------------------------------------------------------------------------------------------- between SDK and DynamoDB

/// What becomes of a request.
#[derive(Clone, Debug)]
enum Fate {
    /// DynamoDB gets it and answers.
    Passes,
    /// DynamoDB gets it, does not know its token any more, and answers.
    PassesAsNew,
    /// DynamoDB gets it and does what it says; the connection is closed before the answer is there.
    IsAnsweredInVain,
    /// Nothing ever comes back.
    IsNotAnswered,
    /// This comes back: an HTTP status and a body.
    IsAnswered(u16, Value),
}

/// A request, as it was sent.
#[derive(Clone, Debug, PartialEq)]
struct Sent {
    operation: String,
    body: Value,
}

type Fates = dyn Fn(&[Sent]) -> Fate + Send + Sync;

/// The way to DynamoDB. It decides on each request, given all that were sent so far.
#[derive(Clone)]
struct Wire {
    sent: Arc<Mutex<Vec<Sent>>>,
    fate: Arc<Fates>,
}

/// The wire, and what is at its other end.
#[derive(Debug)]
struct Connector(Wire, Option<SharedHttpConnector>);

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sent.fmt(f)
    }
}

impl Wire {
    fn new(fate: impl Fn(&[Sent]) -> Fate + Send + Sync + 'static) -> Self {
        Self { sent: Arc::default(), fate: Arc::new(fate) }
    }

    fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    /// A client for the SDK, with what else there is at the other end.
    fn http(&self, beyond: Option<SharedHttpClient>) -> SharedHttpClient {
        let wire = self.clone();
        http_client_fn(move |settings, components| {
            use aws_smithy_runtime_api::client::http::HttpClient;
            let beyond = beyond.as_ref().map(|beyond| beyond.http_connector(settings, components));
            Connector(wire.clone(), beyond).into_shared()
        })
    }

    /// A client of a DynamoDB that is nowhere.
    fn client(&self) -> Client {
        client(self.http(None))
    }

    /// The same house, reached over this wire.
    async fn house(&self, house: &House) -> House {
        let mut sdk = house.stack.sdk().await.unwrap().to_builder();
        sdk.set_http_client(Some(self.http(house.stack.sdk().await.unwrap().http_client())));
        let mut house = House::of(&house.stack).await;
        house.client = store::client(&sdk.build());
        house
    }
}

impl HttpConnector for Connector {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let Self(wire, beyond) = self;
        let target = request.headers().get("x-amz-target").unwrap();
        let operation = target.rsplit('.').next().unwrap().to_owned();
        let body: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        let fate = {
            let mut sent = wire.sent.lock().unwrap();
            sent.push(Sent { operation, body: body.clone() });
            (wire.fate)(&sent)
        };
        let beyond = || beyond.as_ref().expect("there is nothing at the other end");
        match fate {
            Fate::Passes => beyond().call(request),
            Fate::PassesAsNew => {
                let token = body["ClientRequestToken"].as_str().unwrap();
                let other: String = token.chars().rev().collect(); // as long: the length is in a header
                *request.body_mut() = SdkBody::from(body.to_string().replace(token, &other));
                beyond().call(request)
            }
            Fate::IsAnsweredInVain => {
                let answer = beyond().call(request);
                HttpConnectorFuture::new(async move {
                    answer.await?;
                    Err(ConnectorError::io("connection closed before message completed".into()))
                })
            }
            Fate::IsNotAnswered => HttpConnectorFuture::new(std::future::pending()),
            fate @ Fate::IsAnswered(..) => answered(fate),
        }
    }
}

fn answered(fate: Fate) -> HttpConnectorFuture {
    let Fate::IsAnswered(status, body) = fate else { panic!("no answer: {fate:?}") };
    let answer = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body.to_string()));
    HttpConnectorFuture::ready(Ok(answer))
}

fn client(http: SharedHttpClient) -> Client {
    store::client(&sdk(http))
}

fn sdk(http: SharedHttpClient) -> SdkConfig {
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_secs(3)).build();
    SdkConfig::builder()
        .timeout_config(timeouts)
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .endpoint_url("http://dynamodb.test")
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("a", "b", None, None, "test")))
        .http_client(http)
        .build()
}

/// An error, as DynamoDB writes it.
fn error(status: u16, code: &str) -> Fate {
    let body = json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "in a test"});
    Fate::IsAnswered(status, body)
}

/// A transaction that was cancelled, with these reasons.
fn cancelled(reasons: &[Value]) -> Fate {
    let codes: Vec<_> = reasons.iter().map(|reason| reason["Code"].as_str().unwrap()).collect();
    let message =
        format!("Transaction cancelled, please refer cancellation reasons for specific reasons [{}]", codes.join(", "));
    let code = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException";
    // In this error, and in no other, the message begins with a capital.
    Fate::IsAnswered(400, json!({"__type": code, "Message": message, "CancellationReasons": reasons}))
}

fn because(code: &str) -> Value {
    if code == "None" { json!({"Code": code}) } else { json!({"Code": code, "Message": "in a test"}) }
}

/// The condition on an item failed; this was there, or nothing.
fn failed(item: Option<Value>) -> Value {
    let mut reason = json!({"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"});
    if let Some(item) = item {
        reason["Item"] = item;
    }
    reason
}

fn done() -> Fate {
    Fate::IsAnswered(200, json!({}))
}

// ----------------------------------------------------------------------------------------------------------- the steps

fn journal(client: &Client) -> Journal {
    Journal::new(client.clone(), "journal", 730)
}

fn seller(client: &Client, leg: Leg) -> Seller<StockTable> {
    let store = StockTable::new(client.clone(), "stock", journal(client));
    Seller { leg, store, catalogue: Catalogue::bundled().unwrap(), clock: Timestamp::now }
}

fn payments(client: &Client) -> Payments {
    Payments::new(client.clone(), "payments", journal(client))
}

fn cashier(client: &Client) -> Cashier<Payments, SandboxProvider> {
    let provider = SandboxProvider { ledger: Ledger::new(client.clone(), "ledger"), clock: Timestamp::now };
    Cashier { store: payments(client), provider, clock: Timestamp::now }
}

fn desk(client: &Client) -> BookingDesk<Bookings> {
    BookingDesk { store: Bookings::new(client.clone(), "bookings", journal(client)), clock: Timestamp::now }
}

const PRICES: Prices = Prices::new([Money::eur(100), Money::eur(20), Money::eur(3)]);
const TOTAL: Money = Money::eur(123);

fn leg(flight_no: &str) -> LegRequest {
    let mut trip = json!(trip("2027-03-01".parse().unwrap()));
    trip["flight"]["flight_no"] = json!(flight_no);
    serde_json::from_value::<Trip>(trip).unwrap().leg(Leg::Flight).clone()
}

fn flight() -> LegRequest {
    leg("LH400")
}

fn id() -> BookingId {
    BookingId::try_from("0123456789abcdef0123456789abcdef".to_owned()).unwrap()
}

fn reference() -> PaymentReference {
    PaymentReference::derive(&id(), "digest")
}

/// A journal item, as the table has it.
fn journal_item(step: Step, outcome: &Outcome, validation: &str) -> Value {
    json!({
        "id": {"S": id().as_str()},
        "step": {"S": step.name()},
        "status": {"S": "COMPLETED"},
        "outcome": {"S": outcome.name()},
        "data": {"S": json!(outcome).to_string()},
        "validation": {"S": validation},
        "started_at": {"S": "2027-01-01T10:00:00.000Z"},
        "finished_at": {"S": "2027-01-01T10:00:00.001Z"},
        "expiration": {"N": "1900000000"},
    })
}

fn is_reserved(result: &Result<Outcome, StepError>) -> bool {
    matches!(result, Ok(Outcome::Reserved { .. }))
}

/// What is worth another try at once, and what it counts as if it stays so.
fn passing_troubles() -> Vec<(Fate, ErrorKind)> {
    use ErrorKind::{StoreContention, StoreUnavailable};
    let reasons = |codes: [&str; 2]| cancelled(&codes.map(because));
    vec![
        (reasons(["None", "TransactionConflict"]), StoreContention),
        (reasons(["TransactionConflict", "TransactionConflict"]), StoreContention),
        (reasons(["ThrottlingError", "None"]), StoreContention),
        (reasons(["TransactionConflict", "ProvisionedThroughputExceeded"]), StoreContention),
        (error(400, "ThrottlingException"), StoreContention),
        (error(400, "ProvisionedThroughputExceededException"), StoreContention),
        (error(400, "RequestLimitExceeded"), StoreContention),
        (error(400, "TransactionInProgressException"), StoreContention),
        (error(500, "InternalServerError"), StoreUnavailable),
        (Fate::IsAnswered(503, json!("busy")), StoreUnavailable),
    ]
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_tried_again_as_the_same_transaction() {
    for trouble in passing_troubles().into_iter().map(|(trouble, _)| trouble).chain([Fate::IsNotAnswered]) {
        let again = trouble.clone();
        let wire = Wire::new(move |sent| if sent.len() < 3 { again.clone() } else { done() });
        let outcome = seller(&wire.client(), Leg::Flight).reserve(&id(), &flight()).await;
        assert!(is_reserved(&outcome), "{trouble:?}: {outcome:?}");
        let sent = wire.sent();
        assert_eq!(sent.len(), 3, "{trouble:?}");
        assert!(sent.iter().all(|request| *request == sent[0]), "{trouble:?}: {sent:#?}");
        assert!(sent[0].body["ClientRequestToken"].as_str().is_some_and(|token| token.len() == 36));
    }
}

#[tokio::test(start_paused = true)]
async fn what_stays_is_an_error_for_the_callers_retry() {
    for (trouble, kind) in passing_troubles() {
        let again = trouble.clone();
        let wire = Wire::new(move |_| again.clone());
        let error = seller(&wire.client(), Leg::Flight).reserve(&id(), &flight()).await.unwrap_err();
        assert_eq!((error.kind(), kind.is_retriable()), (kind, true), "{trouble:?}: {error}");
        assert_eq!(wire.sent().len(), 8, "{trouble:?}");
    }
    let wire = Wire::new(|_| Fate::IsNotAnswered);
    let began = tokio::time::Instant::now();
    let error = seller(&wire.client(), Leg::Flight).reserve(&id(), &flight()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
    assert_eq!(began.elapsed().as_secs(), 7, "a function has ten seconds");
    assert!((3..=4).contains(&wire.sent().len()), "two seconds for each answer");
}

#[tokio::test(start_paused = true)]
async fn a_single_write_that_meets_a_transaction_is_tried_again() {
    let conflict = || error(400, "TransactionConflictException");
    for stays in [false, true] {
        let wire = Wire::new(move |sent| if stays || sent.len() < 3 { conflict() } else { done() });
        let price = payments(&wire.client()).collect(&id(), Leg::Car, Money::eur(1)).await.map_err(StepError::from);
        assert_eq!(wire.sent()[0].operation, "UpdateItem");
        assert_eq!(wire.sent().len(), if stays { 8 } else { 3 });
        assert_eq!(price.err().map(|error| error.kind()), stays.then_some(ErrorKind::StoreContention));

        let wire = Wire::new(move |sent| if stays || sent.len() < 3 { conflict() } else { done() });
        let outcome = seller(&wire.client(), Leg::Flight).reserve(&id(), &leg("XX1")).await;
        assert_eq!(wire.sent()[0].operation, "PutItem");
        assert_eq!(wire.sent().len(), if stays { 8 } else { 3 });
        assert_eq!(outcome.err().map(|error| error.kind()), stays.then_some(ErrorKind::StoreContention));
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_try_does_not_change_is_tried_once() {
    let reasons = |codes: [&str; 2]| cancelled(&codes.map(because));
    for refusal in [
        error(400, "IdempotentParameterMismatchException"),
        error(400, "AccessDeniedException"),
        error(400, "ResourceNotFoundException"),
        reasons(["None", "ValidationError"]),
        reasons(["None", "ItemCollectionSizeLimitExceeded"]),
    ] {
        let again = refusal.clone();
        let wire = Wire::new(move |_| again.clone());
        let seller = seller(&wire.client(), Leg::Flight);
        for _ in 0..2 {
            let error = seller.reserve(&id(), &flight()).await.unwrap_err();
            assert_eq!((error.kind(), error.kind().is_retriable()), (ErrorKind::StoreUnavailable, true), "{refusal:?}");
        }
        // What the caller tries again is another transaction: its token cannot be one that is taken.
        let [first, second] = &wire.sent()[..] else { panic!("tried more than once: {refusal:?}") };
        assert_ne!(first.body["ClientRequestToken"], second.body["ClientRequestToken"]);
    }
}

#[tokio::test(start_paused = true)]
async fn conflicts_use_up_nothing_that_an_instance_needs_for_its_next_events() {
    // Each of many bookings that one instance of a function gets meets three conflicts.
    let wire = Wire::new(|sent| {
        let conflict = cancelled(&["None", "TransactionConflict"].map(because));
        if sent.len().is_multiple_of(4) { done() } else { conflict }
    });
    let seller = seller(&wire.client(), Leg::Flight);
    for number in 0..200 {
        let outcome = seller.reserve(&id(), &flight()).await;
        assert!(is_reserved(&outcome), "{number}: {outcome:?}");
    }
    assert_eq!(wire.sent().len(), 4 * 200);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_not_made_worse_by_retries() {
    let wire = Wire::new(|_| error(500, "InternalServerError"));
    let seller = seller(&wire.client(), Leg::Flight);
    for _ in 0..20 {
        assert_eq!(seller.reserve(&id(), &flight()).await.unwrap_err().kind(), ErrorKind::StoreUnavailable);
    }
    let before = wire.sent().len();
    assert!(before < 20 * 8, "{before}");
    seller.reserve(&id(), &flight()).await.unwrap_err();
    assert_eq!(wire.sent().len(), before + 1);
}

// ---------------------------------------------------------------------------------------------- one item for everybody

/// An item of stock as DynamoDB has it: it takes part in one transaction at a time, for a while, and all others that
/// come meanwhile are cancelled.
#[derive(Clone, Debug)]
struct Shelf {
    units: Arc<AtomicUsize>,
    is_taken: Arc<AtomicBool>,
    conflicts: Arc<AtomicUsize>,
}

/// How long DynamoDB takes for a transaction.
const TRANSACTION: Duration = Duration::from_millis(10);

impl HttpConnector for Shelf {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let shelf = self.clone();
        let is_transaction = request.headers().get("x-amz-target").unwrap().ends_with("TransactWriteItems");
        HttpConnectorFuture::new(async move {
            let answer = if !is_transaction {
                done()
            } else if shelf.is_taken.swap(true, Ordering::Relaxed) {
                shelf.conflicts.fetch_add(1, Ordering::Relaxed);
                cancelled(&["None", "TransactionConflict"].map(because))
            } else {
                tokio::time::sleep(TRANSACTION).await;
                let taken =
                    shelf.units.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |units| units.checked_sub(1));
                shelf.is_taken.store(false, Ordering::Relaxed);
                let none_left = json!({"product": {"S": "LH400"}, "available": {"N": "0"}});
                if taken.is_ok() { done() } else { cancelled(&[because("None"), failed(Some(none_left))]) }
            };
            answered(answer).await
        })
    }
}

/// So many reserve one unit of the same item at the same time, each in an instance of its own. How many called more
/// than once, and how many conflicts there were.
async fn crowd(buyers: usize, units: usize) -> (usize, usize) {
    let shelf = Shelf { units: Arc::new(units.into()), is_taken: Arc::default(), conflicts: Arc::default() };
    let mut reserving = tokio::task::JoinSet::new();
    for _ in 0..buyers {
        let connector = shelf.clone();
        let seller = seller(&client(http_client_fn(move |_, _| connector.clone().into_shared())), Leg::Flight);
        reserving.spawn(async move {
            // As the state machine does it.
            for (call, pause) in [1, 2, 4, 8, 0].into_iter().enumerate() {
                match seller.reserve(&id(), &flight()).await {
                    Ok(outcome) => return (call, outcome),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::StoreContention, "{error}"),
                }
                tokio::time::sleep(Duration::from_secs(pause).mul_f64(fastrand::f64())).await;
            }
            panic!("given up, although there may have been units");
        });
    }
    let results = reserving.join_all().await;
    let reserved = results.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Reserved { .. })).count();
    let is_sold_out = |outcome: &Outcome| matches!(outcome, Outcome::Rejected(why) if why.code == "sold_out");
    let rejected = results.iter().filter(|(_, outcome)| is_sold_out(outcome)).count();
    assert_eq!((reserved, rejected), (units, buyers - units));
    (results.iter().filter(|(calls, _)| *calls > 0).count(), shelf.conflicts.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn a_crowd_at_one_item_gets_through_although_each_transaction_bars_all_others() {
    let (buyers, units) = (200, 40);
    let (again, conflicts) = crowd(buyers, units).await;
    assert!(conflicts > buyers, "{conflicts}");
    end_to_end::note_figure(&format!(
        "{buyers} reserves of one item at once, transactions of {} ms that bar each other: {conflicts} conflicts, \
         {again} needed the caller's retry, none was given up",
        TRANSACTION.as_millis()
    ));
}

// --------------------------------------------------------------- a failed condition on one item, a conflict on another

#[tokio::test(start_paused = true)]
async fn a_failed_condition_is_an_answer_beside_a_conflict() {
    let outcome = Outcome::Reserved { price: Money::eur(5) };
    let item = journal_item(Step::Reserve(Leg::Flight), &outcome, &flight().digest());
    // A duplicate of a reserve that is done, while others book the same flight.
    let answer = cancelled(&[failed(Some(item)), because("TransactionConflict")]);
    let wire = Wire::new(move |_| answer.clone());
    assert_eq!(seller(&wire.client(), Leg::Flight).reserve(&id(), &flight()).await.unwrap(), outcome);
    assert_eq!(wire.sent().len(), 1);

    // No seat, while a duplicate is at it: whether it got one is found out when the rejection is recorded.
    let item = journal_item(Step::Reserve(Leg::Flight), &outcome, &flight().digest());
    let stock = json!({"product": {"S": "LH400"}, "date": {"S": "2027-03-01"}, "available": {"N": "1"}});
    let wire = Wire::new(move |sent| match sent.last().unwrap().operation.as_str() {
        "TransactWriteItems" => cancelled(&[because("TransactionConflict"), failed(Some(stock.clone()))]),
        _ => {
            let code = "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException";
            Fate::IsAnswered(400, json!({"__type": code, "message": "The conditional request failed", "Item": item}))
        }
    });
    assert_eq!(seller(&wire.client(), Leg::Flight).reserve(&id(), &flight()).await.unwrap(), outcome);
    assert_eq!(wire.sent().len(), 2);

    // A cancel of what was never reserved, while a duplicate of it is at work.
    let wire = Wire::new(move |sent| match sent.len() {
        1 => cancelled(&[failed(None), because("TransactionConflict"), because("None")]),
        _ => done(),
    });
    let outcome = seller(&wire.client(), Leg::Flight).cancel(&id(), &flight()).await.unwrap();
    assert_eq!((outcome, wire.sent().len()), (Outcome::Cancelled { released: false }, 2));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_concluded_from_half_an_answer() {
    let contention = |result: Result<Outcome, StepError>| {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.kind().is_retriable()), (ErrorKind::StoreContention, true), "{error}");
    };
    // Nothing on sale, and a reserve under way: that is no stock line that was sold and is gone.
    let wire = Wire::new(|_| cancelled(&[because("TransactionConflict"), because("None"), failed(None)]));
    contention(seller(&wire.client(), Leg::Flight).cancel(&id(), &flight()).await);

    // Declined; with which code is in the journal.
    let declined = json!({"booking_id": {"S": id().as_str()}, "state": {"S": "declined"}});
    let wire = Wire::new(move |_| cancelled(&[failed(Some(declined.clone())), because("TransactionConflict")]));
    contention(cashier(&wire.client()).charge(&id(), &reference(), &PRICES).await);

    // Confirmed, and a duplicate at work: that is no booking that ended the other way.
    let confirmed = json!({"booking_id": {"S": id().as_str()}, "status": {"S": "confirmed"}});
    let wire = Wire::new(move |_| cancelled(&[failed(Some(confirmed.clone())), because("TransactionConflict")]));
    let confirm = json!({"step": "booking.confirm", "booking_id": id(), "total": TOTAL});
    contention(desk(&wire.client()).handle(&confirm).await.map(|_| Outcome::Confirmed { total: TOTAL }));
}

// -------------------------------------------------------------------------------------------- starts, and their claims

/// How often an execution was asked for, and whether it is known in the end that none was started.
async fn started(fate: impl Fn(usize) -> Fate + Send + Sync + 'static) -> (usize, Result<(), bool>) {
    let wire = Wire::new(move |sent| fate(sent.len()));
    let machine = StateMachine::new(aws_sdk_sfn::Client::new(&sdk(wire.http(None))), "arn");
    let started = machine.start("name", "{}").await;
    assert!(wire.sent().iter().all(|sent| sent.operation == "StartExecution"));
    (wire.sent().len(), started.map_err(|error| error.is_refused))
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_answer_may_be_lost_is_not_made_again_and_one_that_was_refused_is() {
    let unknown = [error(500, "InternalServerError"), Fate::IsAnswered(503, json!("busy")), Fate::IsNotAnswered];
    for fate in unknown {
        let again = fate.clone();
        assert_eq!(started(move |_| again.clone()).await, (1, Err(false)), "{fate:?}");
    }
    let throttled = || error(400, "ThrottlingException");
    let passing = move |sent: usize| if sent < 3 { throttled() } else { done() };
    assert_eq!(started(passing).await, (3, Ok(())));
    assert_eq!(started(move |_| throttled()).await, (3, Err(true)));
    assert_eq!(started(|_| error(400, "StateMachineDoesNotExist")).await, (1, Err(true)));
    // It is the one of this claim, whose answer was lost.
    assert_eq!(started(|_| error(400, "ExecutionAlreadyExists")).await, (1, Ok(())));
}

// ---------------------------------------------------------------------------- a provider that is out of order, or silent

/// What a provider does when it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Answer,
    Fail,
    /// It does what it is asked to, and answers later than anybody waits.
    AnswerLate,
}

/// A provider that does this, call by call, and then always the last; with what it was asked, and whether it has charged.
struct Scripted {
    does: &'static [Does],
    asked: Mutex<Vec<&'static str>>,
    has_charged: AtomicBool,
}

impl Scripted {
    /// What it does when it is asked this.
    async fn called<T>(&self, what: &'static str, answer: impl FnOnce() -> T) -> Result<T, ProviderError> {
        let nth = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(what);
            asked.len() - 1
        };
        match self.does[nth.min(self.does.len() - 1)] {
            Does::Answer => Ok(answer()),
            Does::Fail => Err(ProviderError::Unavailable("it is out of order".into())),
            Does::AnswerLate => {
                let answer = answer();
                tokio::time::sleep(2 * PATIENCE).await;
                Ok(answer)
            }
        }
    }
}

impl PaymentProvider for &Scripted {
    async fn attach(&self, _: &PaymentReference, _: &PaymentToken) -> Result<Result<(), UnknownToken>, ProviderError> {
        self.called("attach", || Ok(())).await
    }

    async fn charge(&self, _: &PaymentReference, amount: Money) -> Result<Outcome, ProviderError> {
        self.called("charge", || {
            self.has_charged.store(true, Ordering::Relaxed);
            charged(amount)
        })
        .await
    }

    async fn find(&self, _: &PaymentReference) -> Result<Option<Outcome>, ProviderError> {
        self.called("find", || self.has_charged.load(Ordering::Relaxed).then(|| charged(TOTAL))).await
    }

    async fn void(&self, _: &PaymentReference) -> Result<(), ProviderError> {
        self.called("void", || ()).await
    }
}

fn charged(amount: Money) -> Outcome {
    Outcome::Charged { amount, charge_id: "ch".into() }
}

/// The time of a test in which time passes at once.
fn paused_clock() -> Timestamp {
    static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    let passed = tokio::time::Instant::now().into_std().saturating_duration_since(*START);
    Timestamp::UNIX_EPOCH + SignedDuration::try_from(passed).unwrap()
}

/// What a step at a provider comes to: what it answers, how long it takes, what the provider is asked, and what
/// DynamoDB is.
struct Course {
    answer: Result<Outcome, ErrorKind>,
    took: Duration,
    asked: Vec<&'static str>,
    requests: Vec<String>,
}

/// Lets payment carry a step out, with a provider that does this and a DynamoDB that does that.
async fn course(step: Step, does: &'static [Does], wire: &Wire) -> Course {
    let provider = Scripted { does, asked: Mutex::default(), has_charged: AtomicBool::new(false) };
    let cashier = Cashier { store: payments(&wire.client()), provider: &provider, clock: paused_clock };
    let began = tokio::time::Instant::now();
    let answer = match step {
        Step::Charge => cashier.charge(&id(), &reference(), &PRICES).await,
        _ => cashier.abort(&id(), &reference(), None).await,
    };
    Course {
        answer: answer.map_err(|error| error.kind()),
        took: began.elapsed(),
        asked: provider.asked.into_inner().unwrap(),
        requests: wire.sent().into_iter().map(|sent| sent.operation).collect(),
    }
}

/// The lease and the completion.
const DONE: [&str; 2] = ["TransactWriteItems"; 2];
/// The lease and its release.
const RELEASED: [&str; 2] = ["TransactWriteItems", "UpdateItem"];

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_out_of_order_for_a_moment_charges_within_one_lease() {
    use Does::{Answer, AnswerLate, Fail};
    for (does, asked, late) in [
        (&[Answer][..], &["charge"][..], 0_u32),
        (&[Fail, Answer], &["charge", "find", "charge"], 0),
        (&[Fail, Answer, Fail, Answer], &["charge", "find", "charge", "find", "charge"], 0),
        (&[Fail, Fail, Answer], &["charge", "find", "find", "charge"], 0),
        (&[AnswerLate, Answer], &["charge", "find"], 1),
        (&[AnswerLate, AnswerLate, Answer], &["charge", "find", "find"], 2),
    ] {
        let course = course(Step::Charge, does, &Wire::new(|_| done())).await;
        assert_eq!((course.answer, &*course.asked), (Ok(charged(TOTAL)), asked), "{does:?}");
        assert_eq!(course.requests, DONE, "{does:?}: one lease");
        let pauses = course.took - late * PATIENCE;
        assert!(pauses < Duration::from_secs(1), "{does:?}: {pauses:?} beside the waiting for answers");
        assert_eq!(course.took.is_zero(), does == [Answer], "{does:?}: no pause before the first attempt");
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_stays_out_of_order_is_left_to_the_retries_outside_in_good_time() {
    for (does, asked) in [
        (&[Does::Fail][..], &["charge", "find", "find"][..]),
        (&[Does::AnswerLate], &["charge", "find", "find"]),
        (
            &[Does::Fail, Does::Answer, Does::Fail, Does::Answer, Does::Fail],
            &["charge", "find", "charge", "find", "charge"],
        ),
    ] {
        let course = course(Step::Charge, does, &Wire::new(|_| done())).await;
        assert_eq!((course.answer, &*course.asked), (Err(ErrorKind::ProviderUnavailable), asked), "{does:?}");
        assert_eq!(course.requests, RELEASED, "{does:?}");
        assert!(course.took < ASKING + PATIENCE, "{does:?}: {:?}", course.took);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_waited_for_its_lease_asks_less_often_and_ends_before_its_function_does() {
    // Two answers of DynamoDB get lost, which takes the client two seconds each.
    let slow = || Wire::new(|sent| if sent.len() < 3 { Fate::IsNotAnswered } else { done() });
    let slowed = course(Step::Charge, &[Does::AnswerLate], &slow()).await;
    assert_eq!((slowed.answer, &*slowed.asked), (Err(ErrorKind::ProviderUnavailable), &["charge"][..]));
    assert!(slowed.took < Duration::from_secs(10) && slowed.took < LEASE, "{:?}", slowed.took);
    let quick = course(Step::Charge, &[Does::AnswerLate], &Wire::new(|_| done())).await;
    assert_eq!(quick.asked.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_void_is_tried_again_as_a_charge_is() {
    let (aborted, gave_up) = (Ok(Outcome::Aborted { reason: None }), Err(ErrorKind::ProviderUnavailable));
    for (does, answer) in [
        (&[Does::Fail, Does::AnswerLate, Does::Answer][..], aborted),
        (&[Does::Fail], gave_up.clone()),
        (&[Does::AnswerLate], gave_up),
    ] {
        let course = course(Step::Abort, does, &Wire::new(|_| done())).await;
        assert_eq!((course.answer, course.asked), (answer, vec!["void"; 3]), "{does:?}");
        assert_eq!(course.requests, ["TransactWriteItems"], "{does:?}: one fence");
        assert!(course.took < ASKING + PATIENCE, "{does:?}: {:?}", course.took);
    }
}

// ----------------------------------------------------------------------------------------------- answers that are lost

/// What a step does to the tables, and how it is made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Reserve,
    ReserveSoldOut,
    Cancel,
    CancelNothing,
    Charge,
    ChargeDeclined,
    Abort,
    AbortCharged,
    Confirm,
    Fail,
    Park,
    CollectPrice,
    CollectCancelled,
}

impl Case {
    const ALL: [Self; 13] = [
        Self::Reserve,
        Self::ReserveSoldOut,
        Self::Cancel,
        Self::CancelNothing,
        Self::Charge,
        Self::ChargeDeclined,
        Self::Abort,
        Self::AbortCharged,
        Self::Confirm,
        Self::Fail,
        Self::Park,
        Self::CollectPrice,
        Self::CollectCancelled,
    ];

    /// A booking that is as far as it has to be.
    async fn booking(self, house: &House, request: &TripRequest) -> Header {
        let mut request = request.clone();
        if self == Self::ChargeDeclined {
            request.payment.token = "tok_declined".into();
        }
        house.seed(&trip_of(&request), if self == Self::ReserveSoldOut { 0 } else { 5 }).await;
        let header = house.record_only(&request, &fresh_key("lost"), SignedDuration::ZERO).await;
        let before = match self {
            Self::Cancel => Some(Self::Reserve),
            Self::AbortCharged => Some(Self::Charge),
            _ => None,
        };
        if let Some(before) = before {
            before.act(house, &header, Timestamp::now).await.unwrap();
        }
        header
    }

    async fn act(self, house: &House, header: &Header, clock: Clock) -> Result<Value, StepError> {
        let (id, hotel) = (&header.booking_id, header.trip.leg(Leg::Hotel));
        let (seller, reference) = (house.seller(Leg::Hotel), header.plan().payment.reference);
        let cashier = Cashier { clock, ..house.cashier() };
        let reason = Reason { step: Some(Step::Charge), code: "card_declined".into(), detail: "no".into() };
        let end = async |command: Value| Ok(json!(house.desk().handle(&command).await?));
        let outcome = match self {
            Self::Reserve | Self::ReserveSoldOut => seller.reserve(id, hotel).await?,
            Self::Cancel | Self::CancelNothing => seller.cancel(id, hotel).await?,
            Self::Charge | Self::ChargeDeclined => cashier.charge(id, &reference, &PRICES).await?,
            Self::Abort | Self::AbortCharged => cashier.abort(id, &reference, Some(&reason)).await?,
            Self::Confirm => return end(json!({"step": "booking.confirm", "booking_id": id, "total": TOTAL})).await,
            Self::Fail => return end(json!({"step": "booking.fail", "booking_id": id, "reason": reason})).await,
            Self::Park => return end(json!({"step": "booking.park", "booking_id": id, "reason": reason})).await,
            Self::CollectPrice => {
                let known = cashier.store.collect(id, Leg::Car, TOTAL).await?;
                return Ok(known.iter().map(|(leg, price)| json!([leg.name(), price])).collect());
            }
            Self::CollectCancelled => {
                let event = saga::Event::Cancelled { leg: Leg::Car, reason: Some(reason) };
                let (booking_id, time) = (id.clone(), Timestamp::now());
                let event = saga::Envelope { booking_id, event, causation_id: None, time, trace: None };
                return Ok(json!(house.desk().hear(&json!(event)).await?));
            }
        };
        Ok(json!(outcome))
    }
}

/// What the tables hold on a booking, but for its names and times.
async fn tables(house: &House, request: &TripRequest, header: &Header) -> Value {
    let reference = header.plan().payment.reference;
    let (journal, _) = house.journal().entries(header.booking_id.as_str()).await.unwrap();
    let journal: Vec<_> = journal.into_iter().map(|entry| (entry.step, json!(entry.outcome))).collect();
    let decision = match house.payments().state(&header.booking_id).await.unwrap() {
        State::Aborted { reason } => json!(["aborted", reason]),
        state => json!(state.name()),
    };
    let status = house.headers().get(&header.booking_id).await.unwrap().unwrap();
    nameless(
        header,
        &json!({
            "left": house.left(request).await,
            "journal": journal,
            "decision": decision,
            "paid": house.ledger().paid(&reference).await.unwrap().map(|paid| paid.amount),
            "header": [json!(status.status), json!(status.total), json!(status.reason)],
        }),
    )
}

fn nameless(header: &Header, value: &Value) -> Value {
    let reference = header.plan().payment.reference;
    let text = value.to_string().replace(header.booking_id.as_str(), "ID").replace(reference.as_str(), "REFERENCE");
    serde_json::from_str(&text).unwrap()
}

/// When a lease that was taken now has ended.
fn later() -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(20)
}

#[tokio::test]
async fn each_step_has_one_effect_whichever_of_its_answers_is_lost() {
    let house = House::new().await;
    let request = TripRequest::on(date());
    let (mut lost, mut forgotten) = (0, 0);
    for case in Case::ALL {
        let wire = Wire::new(|_| Fate::Passes);
        let header = case.booking(&house, &request).await;
        let answer = case.act(&wire.house(&house).await, &header, Timestamp::now).await.unwrap();
        let (answer, right) = (nameless(&header, &answer), tables(&house, &request, &header).await);

        let requests = wire.sent();
        for (place, is_token_known) in (0..requests.len()).flat_map(|place| [(place, true), (place, false)]) {
            if requests[place].operation != "TransactWriteItems" && !is_token_known {
                continue; // it has none
            }
            let told = format!("{case:?}, request {place} ({}), {is_token_known}", requests[place].operation);
            let wire = Wire::new(move |sent| match sent.len() - 1 {
                this if this == place => Fate::IsAnsweredInVain,
                this if this == place + 1 && !is_token_known => Fate::PassesAsNew,
                _ => Fate::Passes,
            });
            let header = case.booking(&house, &request).await;
            let over = wire.house(&house).await;
            let again = match case.act(&over, &header, Timestamp::now).await {
                // Its own lease looks like another worker's: that is told after the lease has ended.
                Err(error) if place == 0 && !is_token_known && matches!(case, Case::Charge | Case::ChargeDeclined) => {
                    assert_eq!((error.kind(), error.kind().is_retriable()), (ErrorKind::ChargeInProgress, true));
                    case.act(&over, &header, later).await
                }
                result => result,
            };
            assert_eq!(nameless(&header, &again.unwrap_or_else(|error| panic!("{told}: {error}"))), answer, "{told}");
            assert_eq!(tables(&house, &request, &header).await, right, "{told}");
            let sent = wire.sent();
            assert_eq!(sent[place], sent[place + 1], "{told}: the retry is the same request, token and all");
            lost += 1;
            forgotten += usize::from(!is_token_known);
        }
    }
    end_to_end::note_figure(&format!("lost answers: {lost}, in {forgotten} the retry was taken for a new request"));
    assert!(lost > 30 && forgotten > 10, "{lost}, {forgotten}");
}

#[tokio::test]
async fn a_booking_whose_creation_was_not_answered_is_found_as_its_own() {
    let house = House::new().await;
    let header = Case::Confirm.booking(&house, &TripRequest::on(date())).await;
    let traveller = saga::Traveller { name: "Ada".into(), email: "a@b".into() };
    // DynamoDB knows the token of the first request for ten minutes.
    for (name, is_known) in [("known", true), ("forgotten", false)] {
        let wire = Wire::new(move |sent| match (sent.len(), is_known) {
            (1, _) => Fate::IsAnsweredInVain,
            (_, true) => Fate::Passes,
            (_, false) => Fate::PassesAsNew,
        });
        let header = Header { booking_id: end_to_end::booking_id(name), ..header.clone() };
        match wire.house(&house).await.intake().accept(&header, &traveller).await.unwrap() {
            Commit::Done => assert!(is_known, "the retry must meet what the first request has put there"),
            Commit::Found(found) => {
                assert!(!is_known);
                assert_eq!(
                    (found.request_digest, found.booking_id),
                    (header.request_digest, header.booking_id.clone())
                );
            }
        }
        assert_eq!(wire.sent().len(), 2);
        let traveller_of = house.intake().traveller(&header.booking_id).await.unwrap();
        assert_eq!(traveller_of.as_ref(), Some(&traveller));
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_without_an_answer_is_a_lost_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let mut tokens = Vec::new();
        for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            tokens.push(serde_json::from_slice::<Value>(&body).unwrap()["ClientRequestToken"].clone());
        }
        tokens
    });
    let stack = Stack {
        endpoint: Some(endpoint),
        region: None,
        api_url: String::new(),
        outputs: Default::default(),
        pid: None,
    };
    let client = store::client(&stack.sdk().await.unwrap());
    let outcome = seller(&client, Leg::Flight).reserve(&id(), &flight()).await;
    assert!(is_reserved(&outcome), "{outcome:?}");
    let tokens = server.join().unwrap();
    assert_eq!(tokens.len(), 2);
    assert!(tokens[0].is_string() && tokens[0] == tokens[1], "{tokens:?}");
}
