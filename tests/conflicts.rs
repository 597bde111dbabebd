//! What DynamoDB, the network and the payment provider do to a request, and the local AWS does not: conflicting
//! transactions, throttling, silence, answers that are lost. Whatever it is, a step has one effect.

#![allow(clippy::unwrap_used)]

#[path = "conflicts/lost.rs"]
mod lost;
#[path = "conflicts/provider.rs"]
mod provider;

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
use end_to_end::{House, date, prices, trip_of};
use jiff::{SignedDuration, Timestamp};
use local_aws::Stack;
use saga::{
    BookingId, Catalogue, Currency, Customer, Money, Outcome, Part, PaymentReference, PaymentToken, Price, Reason,
    Step,
    payment::{Prices, State},
};
use serde_json::{Value, json};
use services::{
    ATTEMPTS_WINDOW, BookingService, Clock, ErrorKind, Executions, LEASE, PROVIDER_TIMEOUT, PaymentProvider,
    PaymentService, ProviderError, SandboxProvider, Seller, StateMachine, StepError, UnknownToken,
};
use store::{Bookings, Commit, Header, HeaderStore, IntakeStore, Journal, Ledger, PaymentStore, Payments, StockTable};
use travel::{CAR, FLIGHT, HOTEL};
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

fn seller(client: &Client) -> Seller<StockTable> {
    let (store, catalogue) = (StockTable::new(client.clone(), "stock", journal(client)), FLIGHT.price_list);
    Seller { part_type: FLIGHT, store, catalogue: Catalogue::read(catalogue).unwrap(), clock: Timestamp::now }
}

fn payments(client: &Client) -> Payments {
    Payments::new(client.clone(), "payments", journal(client))
}

fn payment(client: &Client) -> PaymentService<Payments, SandboxProvider> {
    let provider = SandboxProvider { ledger: Ledger::new(client.clone(), "ledger"), clock: Timestamp::now };
    PaymentService { store: payments(client), provider, clock: Timestamp::now }
}

fn booking(client: &Client) -> BookingService<Bookings> {
    BookingService { store: Bookings::new(client.clone(), "bookings", journal(client)), clock: Timestamp::now }
}

/// The prices of a trip, which sum up to [`TOTAL`].
fn of_trip() -> Prices {
    prices(&[(FLIGHT.name, 100), (HOTEL.name, 20), (CAR.name, 3)])
}

const TOTAL: Money = Money::eur(123);

fn euro_cents(amount: i64) -> Price {
    Price { amount, currency: Currency::EUR }
}

fn numbered(flight_no: &str) -> Part {
    let mut contents = (FLIGHT.example)("2027-03-01".parse().unwrap(), 3);
    contents["flight_no"] = json!(flight_no);
    Part { name: FLIGHT.name, contents }
}

fn flight() -> Part {
    numbered("LH400")
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
        "step": {"S": step.to_string()},
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
        let outcome = seller(&wire.client()).reserve(&id(), &flight()).await;
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
        let error = seller(&wire.client()).reserve(&id(), &flight()).await.unwrap_err();
        assert_eq!((error.kind(), kind.is_retriable()), (kind, true), "{trouble:?}: {error}");
        assert_eq!(wire.sent().len(), 8, "{trouble:?}");
    }
    let wire = Wire::new(|_| Fate::IsNotAnswered);
    let began = tokio::time::Instant::now();
    let error = seller(&wire.client()).reserve(&id(), &flight()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
    assert_eq!(began.elapsed().as_secs(), 7, "a function has ten seconds");
    assert!((3..=4).contains(&wire.sent().len()), "two seconds for each answer");
}

#[tokio::test(start_paused = true)]
async fn a_single_write_that_meets_a_transaction_is_tried_again() {
    let conflict = || error(400, "TransactionConflictException");
    for stays in [false, true] {
        let wire = Wire::new(move |sent| if stays || sent.len() < 3 { conflict() } else { done() });
        let price = payments(&wire.client()).collect(&id(), CAR.name, euro_cents(1)).await.map_err(StepError::from);
        assert_eq!(wire.sent()[0].operation, "UpdateItem");
        assert_eq!(wire.sent().len(), if stays { 8 } else { 3 });
        assert_eq!(price.err().map(|error| error.kind()), stays.then_some(ErrorKind::StoreContention));

        let wire = Wire::new(move |sent| if stays || sent.len() < 3 { conflict() } else { done() });
        let outcome = seller(&wire.client()).reserve(&id(), &numbered("XX1")).await;
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
        let seller = seller(&wire.client());
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
    let seller = seller(&wire.client());
    for number in 0..200 {
        let outcome = seller.reserve(&id(), &flight()).await;
        assert!(is_reserved(&outcome), "{number}: {outcome:?}");
    }
    assert_eq!(wire.sent().len(), 4 * 200);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_not_made_worse_by_retries() {
    let wire = Wire::new(|_| error(500, "InternalServerError"));
    let seller = seller(&wire.client());
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
        let seller = seller(&client(http_client_fn(move |_, _| connector.clone().into_shared())));
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
    let outcome = Outcome::Reserved { price: euro_cents(5) };
    let item = journal_item(Step::Reserve(FLIGHT.name), &outcome, &flight().digest());
    // A duplicate of a reserve that is done, while others book the same flight.
    let answer = cancelled(&[failed(Some(item)), because("TransactionConflict")]);
    let wire = Wire::new(move |_| answer.clone());
    assert_eq!(seller(&wire.client()).reserve(&id(), &flight()).await.unwrap(), outcome);
    assert_eq!(wire.sent().len(), 1);

    // No seat, while a duplicate is at it: whether it got one is found out when the rejection is recorded.
    let item = journal_item(Step::Reserve(FLIGHT.name), &outcome, &flight().digest());
    let stock = json!({"product": {"S": "LH400"}, "date": {"S": "2027-03-01"}, "available": {"N": "1"}});
    let wire = Wire::new(move |sent| match sent.last().unwrap().operation.as_str() {
        "TransactWriteItems" => cancelled(&[because("TransactionConflict"), failed(Some(stock.clone()))]),
        _ => {
            let code = "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException";
            Fate::IsAnswered(400, json!({"__type": code, "message": "The conditional request failed", "Item": item}))
        }
    });
    assert_eq!(seller(&wire.client()).reserve(&id(), &flight()).await.unwrap(), outcome);
    assert_eq!(wire.sent().len(), 2);

    // A cancel of what was never reserved, while a duplicate of it is at work.
    let wire = Wire::new(move |sent| match sent.len() {
        1 => cancelled(&[failed(None), because("TransactionConflict"), because("None")]),
        _ => done(),
    });
    let outcome = seller(&wire.client()).cancel(&id(), &flight()).await.unwrap();
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
    contention(seller(&wire.client()).cancel(&id(), &flight()).await);

    // Declined; with which code is in the journal.
    let declined = json!({"booking_id": {"S": id().as_str()}, "state": {"S": "declined"}});
    let wire = Wire::new(move |_| cancelled(&[failed(Some(declined.clone())), because("TransactionConflict")]));
    contention(payment(&wire.client()).charge(&id(), &reference(), &of_trip()).await);

    // Confirmed, and a duplicate at work: that is no booking that ended the other way.
    let confirmed = json!({"booking_id": {"S": id().as_str()}, "status": {"S": "confirmed"}});
    let wire = Wire::new(move |_| cancelled(&[failed(Some(confirmed.clone())), because("TransactionConflict")]));
    let confirm = json!({"step": "booking.confirm", "booking_id": id(), "total": TOTAL});
    contention(booking(&wire.client()).handle(&confirm).await.map(|_| Outcome::Confirmed { total: TOTAL }));
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
