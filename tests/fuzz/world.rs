//! What the decoders work with, in memory: ports that do whatever they are asked to, or refuse everything; and an AWS
//! that takes every message.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    sync::{LazyLock, Mutex, MutexGuard},
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
    orchestrator::{HttpRequest, HttpResponse},
};
use jiff::Timestamp;
use runtime::{Diagnostic, Failure, Fault, Input, PublishedBy, Queue};
use saga::{
    BookingId, Catalogue, Claim, Customer, Envelope, Money, Outcome, PartName, PartNames, Participant,
    PaymentReference, PaymentToken, Price, Status, claim::Pace,
};
use serde_json::{Value, json};
use services::{
    BookingService, DeadLetters, DeadLettersError, EventPublisher, Executions, ExecutionsError, GivenUpBy,
    PaymentProvider, PaymentService, ProviderError, PublishError, Reconciler, Seller, StepError, UnknownToken,
    api::Api,
};
use store::{
    Begun, BookingStore, ClaimStore, Commit, End, GivenBack, Header, HeaderFound, HeaderStore, IntakeStore, Journal,
    NotTaken, PartRecords, PaymentFound, PaymentStore, Receipt, Record, RecordedOutcome, StockStore, StoreError,
};

/// It is always the same time here.
pub fn clock() -> Timestamp {
    Timestamp::constant(1_800_000_000, 0)
}

/// As it is deployed.
const PACE: Pace = Pace { period: std::time::Duration::from_secs(600), max_drives: 6 };

/// Who can be invoked with a payload: a participant, or else the reconciler.
pub static INVOKED: LazyLock<Vec<Option<Participant>>> =
    LazyLock::new(|| Participant::of(&travel::part_names()).into_iter().map(Some).chain([None]).collect());

/// What is around a function.
#[derive(Debug)]
pub struct World {
    works: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    headers: HashMap<BookingId, Header>,
    customers: HashMap<BookingId, Customer>,
    plans: HashMap<BookingId, PartNames>,
    looks: u32,
    executions: HashMap<String, String>,
    events: Vec<String>,
}

/// What a function answers.
pub type Answer = Result<Option<Value>, Diagnostic>;

impl World {
    /// One in which everything works, or nothing.
    pub fn new(works: bool) -> Self {
        Self { works, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The bookings that are recorded.
    pub fn headers(&self) -> Vec<Header> {
        self.state().headers.values().cloned().collect()
    }

    /// How often it was looked up whether a request had come before.
    pub fn looks(&self) -> u32 {
        self.state().looks
    }

    /// Who has asked for a booking.
    pub fn customer_of(&self, booking: &BookingId) -> Option<Customer> {
        self.state().customers.get(booking).cloned()
    }

    /// With what executions were started, and the events that were published: as JSON.
    pub fn said(&self) -> Vec<String> {
        let state = self.state();
        state.executions.values().chain(&state.events).cloned().collect()
    }

    /// Answers an invocation of the function `api`.
    pub async fn http(&self, payload: Value) -> Result<Value, Diagnostic> {
        let api = Api {
            saga: travel::TRAVEL,
            intake: self,
            journal: Journal::new(DYNAMODB.clone(), "journal", 730),
            executions: self,
            events: self,
            provider: self,
            cors_origin: None,
            clock,
        };
        let answer = runtime::answer_http(payload, async |caller, request| api.handle(caller, request).await).await?;
        Ok(serde_json::to_value(answer).expect("an answer can be written"))
    }

    /// Answers an invocation of this participant's function.
    pub async fn invoke(&self, who: Option<Participant>, payload: Value) -> Answer {
        let handle = async |input| self.handle(who, input).await;
        let publish = async |event| self.publish(event).await;
        let fault =
            |error: &StepError| Fault { error_type: error.error_type(), is_retriable: error.kind().is_retriable() };
        let is_seller = matches!(who, Some(Participant::Seller(_)));
        let published_by = if is_seller { PublishedBy::Destination } else { PublishedBy::Function };
        runtime::Handler { handle, publish, published_by, fault, queue: QUEUE.clone() }.invoked(payload).await
    }

    /// As `services::serve` wires each function.
    async fn handle(&self, who: Option<Participant>, input: Input) -> Result<Option<Value>, StepError> {
        let said = match (who, input) {
            (Some(Participant::Seller(part)), input) => {
                let part_type = *travel::part_type(part).expect("it is sold");
                let seller = Seller { part_type, store: self, catalogue: CATALOGUES[&part].clone(), clock };
                match input {
                    Input::Command(payload) => seller.handle(&payload).await.map(Some),
                    Input::Event(event) | Input::Failure(Failure { event, .. }) => seller.react(&event).await,
                }
            }
            (Some(Participant::Payment), input) => {
                let payment = PaymentService { store: self, provider: self, clock };
                match input {
                    Input::Command(payload) => payment.handle(&payload).await.map(Some),
                    Input::Event(event) => {
                        self.note_plan(&event);
                        payment.react(&event).await
                    }
                    Input::Failure(failure) => {
                        payment.react_to_failure(&failure.event, &failure.function, &failure.error_type).await
                    }
                }
            }
            (Some(Participant::Booking), input) => {
                let bookings = BookingService { store: self, clock };
                match input {
                    Input::Command(payload) => bookings.handle(&payload).await.map(Some),
                    Input::Event(event) | Input::Failure(Failure { event, .. }) => bookings.react(&event).await,
                }
            }
            (None, input) => {
                let reconciler = Reconciler {
                    headers: self,
                    executions: self,
                    events: self,
                    dead_letters: self,
                    read: |message| runtime::event(message).ok().flatten(),
                    bookings: BookingService { store: self, clock },
                    max_age: PACE.period,
                    pace: PACE,
                    clock,
                };
                return match input {
                    Input::Command(_) => {
                        reconciler.run(std::time::Duration::from_secs(60)).await.map(|done| Some(json!(done)))
                    }
                    Input::Event(event) | Input::Failure(Failure { event, .. }) => {
                        reconciler.resume(&event).await.map(|()| None)
                    }
                };
            }
        };
        said.map(|said| said.map(|said| json!(said)))
    }

    /// Which parts the booking has that this event is about, if it says so.
    fn note_plan(&self, event: &Value) {
        if let Ok(Envelope { booking_id, event, .. }) = Envelope::read(event)
            && let Some(plan) = event.plan()
        {
            self.state().plans.insert(booking_id, plan.names());
        }
    }

    fn refuse(&self) -> Result<(), StoreError> {
        let cause = || String::from("it refuses everything");
        if self.works { Ok(()) } else { Err(StoreError::Unavailable { operation: "this", cause: cause() }) }
    }

    fn done<F>(&self) -> Result<Commit<F>, StoreError> {
        self.refuse().map(|()| Commit::Done)
    }
}

impl ClaimStore for &World {
    async fn claim(&self, header: &Header, claim: &Claim, _: Timestamp) -> Result<bool, StoreError> {
        self.refuse()?;
        let mut state = self.state();
        let Some(found) = state.headers.get_mut(&header.booking_id) else { return Ok(false) };
        let is_as_known = (found.status, found.claim.number) == (header.status, header.claim.number);
        if is_as_known {
            (found.status, found.claim) = (Status::Pending, claim.clone());
        }
        Ok(is_as_known)
    }
}

fn receipt_of(header: Header) -> Receipt {
    Receipt {
        booking_id: header.booking_id.clone(),
        request_digest: header.request_digest.clone(),
        variant: header.variant,
        status: header.status,
        header: Ok(header),
    }
}

impl IntakeStore for &World {
    async fn accept(
        &self,
        header: &Header,
        customer: &Customer,
        _: Timestamp,
    ) -> Result<Commit<Box<Receipt>>, StoreError> {
        if let Some(found) = HeaderStore::get(self, &header.booking_id).await? {
            return Ok(Commit::Found(Box::new(receipt_of(found))));
        }
        let mut state = self.state();
        state.headers.insert(header.booking_id.clone(), header.clone());
        state.customers.insert(header.booking_id.clone(), customer.clone());
        Ok(Commit::Done)
    }

    async fn receipt(&self, booking: &BookingId) -> Result<Option<Receipt>, StoreError> {
        self.state().looks += 1;
        Ok(HeaderStore::get(self, booking).await?.map(receipt_of))
    }

    async fn header(&self, booking: &BookingId) -> Result<Option<Header>, StoreError> {
        HeaderStore::get(self, booking).await
    }

    async fn customer(&self, booking: &BookingId) -> Result<Option<Customer>, StoreError> {
        self.refuse()?;
        Ok(self.customer_of(booking))
    }
}

impl HeaderStore for &World {
    async fn get(&self, booking: &BookingId) -> Result<Option<Header>, StoreError> {
        self.refuse()?;
        Ok(self.state().headers.get(booking).cloned())
    }

    async fn open_before(&self, time: Timestamp) -> (Vec<BookingId>, Vec<StoreError>) {
        if let Err(refused) = self.refuse() {
            return (Vec::new(), vec![refused]);
        }
        let is_open = |header: &Header| header.status == Status::Pending && header.created_at < time;
        (self.headers().into_iter().filter(is_open).map(|header| header.booking_id).collect(), Vec::new())
    }
}

impl StockStore for &World {
    async fn take(&self, _: &Record<'_>, _: &[saga::StockLine]) -> Result<Commit<NotTaken>, StoreError> {
        self.done()
    }

    async fn record(&self, _: &Record<'_>) -> Result<Commit<RecordedOutcome>, StoreError> {
        self.done()
    }

    async fn give_back(&self, _: &Record<'_>, _: &[saga::StockLine]) -> Result<Commit<PartRecords>, StoreError> {
        self.done()
    }

    async fn leave_tombstone(&self, _: &Record<'_>, _: &Outcome) -> Result<Commit<PartRecords>, StoreError> {
        self.done()
    }
}

impl PaymentStore for &World {
    async fn lease(&self, _: &Begun<'_>, _: i64, _: Option<i64>) -> Result<Commit<PaymentFound>, StoreError> {
        self.done()
    }

    async fn release(&self, _: &BookingId, _: i64, _: i64) -> Result<(), StoreError> {
        self.refuse()
    }

    async fn complete(&self, _: &Record<'_>, _: &saga::payment::State) -> Result<Commit<PaymentFound>, StoreError> {
        self.done()
    }

    /// This is always the last part that payment waits for.
    async fn collect(
        &self,
        booking: &BookingId,
        _: PartName,
        price: Price,
    ) -> Result<BTreeMap<PartName, Price>, StoreError> {
        self.refuse()?;
        Ok(self.state().plans[booking].iter().map(|part| (*part, price)).collect())
    }

    async fn fence(&self, _: &Record<'_>) -> Result<Commit<PaymentFound>, StoreError> {
        self.done()
    }

    async fn record(&self, _: &Record<'_>) -> Result<Commit<RecordedOutcome>, StoreError> {
        self.done()
    }
}

impl BookingStore for &World {
    /// This is always the last part that booking waits for.
    async fn collect(&self, _: &BookingId, part: PartName) -> Result<Option<GivenBack>, StoreError> {
        self.refuse()?;
        Ok(Some(GivenBack { cancelled: [part].into(), plan: [part].into() }))
    }

    async fn end(&self, _: &Record<'_>, _: &End<'_>) -> Result<Commit<HeaderFound>, StoreError> {
        self.done()
    }
}

impl PaymentProvider for &World {
    async fn attach(
        &self,
        _: &PaymentReference,
        token: &PaymentToken,
    ) -> Result<Result<(), UnknownToken>, ProviderError> {
        Ok(if token.reveal().starts_with("tok_") { Ok(()) } else { Err(UnknownToken) })
    }

    async fn charge(&self, _: &PaymentReference, amount: Money) -> Result<Outcome, ProviderError> {
        Ok(Outcome::Charged { amount, charge_id: "ch".into() })
    }

    async fn find(&self, _: &PaymentReference) -> Result<Option<Outcome>, ProviderError> {
        Ok(None)
    }

    async fn void(&self, _: &PaymentReference) -> Result<(), ProviderError> {
        Ok(())
    }
}

impl Executions for &World {
    async fn start(&self, name: &str, input: &str) -> Result<(), ExecutionsError> {
        let before = self.state().executions.insert(name.to_owned(), input.to_owned());
        assert_eq!(before, None, "{name} is started twice");
        Ok(())
    }
}

impl EventPublisher for &World {
    async fn publish(&self, event: String) -> Result<(), PublishError> {
        let read = serde_json::from_str(&event).map(|event| Envelope::read(&event));
        assert!(matches!(read, Ok(Ok(_))), "published what nobody can read: {event}");
        self.state().events.push(event);
        Ok(())
    }
}

impl DeadLetters for &World {
    async fn look(&self) -> (Vec<(GivenUpBy, String)>, Vec<DeadLettersError>) {
        Default::default()
    }

    async fn park(&self, _: String) -> Result<(), DeadLettersError> {
        Ok(())
    }
}

static CATALOGUES: LazyLock<HashMap<PartName, Catalogue>> = LazyLock::new(|| {
    let read = |part: &saga::PartType| (part.name, Catalogue::read(part.price_list).expect("it is a price list"));
    travel::TRAVEL.parts.iter().map(read).collect()
});
static QUEUE: LazyLock<Queue> = LazyLock::new(|| Queue::new(&AWS, "https://sqs/queue", "https://sqs/dead-letters"));
static DYNAMODB: LazyLock<aws_sdk_dynamodb::Client> = LazyLock::new(|| store::client(&AWS));
static AWS: LazyLock<SdkConfig> = LazyLock::new(|| {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .endpoint_url("https://sqs")
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("test", "test", None, None, "none")))
        .http_client(http_client_fn(|_, _| SharedHttpConnector::new(Aws)))
        .build()
});

/// An AWS whose queues take every message and whose tables are empty.
#[derive(Debug)]
struct Aws;

thread_local! {
    static SENT: RefCell<Vec<Value>> = const { RefCell::new(Vec::new()) };
}

/// The messages that were sent to queues by this thread since this was last asked.
pub fn sent() -> Vec<Value> {
    SENT.take()
}

impl HttpConnector for Aws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let operation = request.headers().get("x-amz-target").unwrap_or_default().to_owned();
        let answer = match operation.rsplit('.').next() {
            Some("Query") => r#"{"Count": 0, "ScannedCount": 0, "Items": []}"#,
            Some("SendMessage") => {
                let body = request.body().bytes().expect("a request has a body");
                SENT.with_borrow_mut(|sent| sent.push(serde_json::from_slice(body).expect("it is JSON")));
                r#"{"MessageId": "1", "MD5OfMessageBody": "1"}"#
            }
            Some("ChangeMessageVisibility") => "{}",
            _ => panic!("nobody asks AWS for {operation}"),
        };
        HttpConnectorFuture::ready(Ok(HttpResponse::new(200.try_into().expect("it is a status"), answer.into())))
    }
}
