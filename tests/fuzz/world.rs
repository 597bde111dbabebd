//! What the decoders work with, in memory: ports that do whatever they are asked to, or refuse everything; and an AWS
//! that takes every message.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{LazyLock, Mutex, MutexGuard},
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
    orchestrator::{HttpRequest, HttpResponse},
};
use jiff::Timestamp;
use runtime::{Diagnostic, Failure, Fault, Input, Queue, Says};
use saga::{
    BookingId, Claim, Envelope, Leg, Money, Outcome, Participant, PaymentReference, PaymentToken, Status, Traveller,
    claim::Pace,
};
use serde_json::{Value, json};
use services::{
    BookingDesk, Cashier, Catalogue, DeadLetters, DeadLettersError, Events, EventsError, Executions, ExecutionsError,
    GivenUpBy, PaymentProvider, ProviderError, Reconciler, Seller, StepError, UnknownToken, api::Api,
};
use store::{
    BookingStore, ClaimStore, Commit, End, Header, HeaderFound, HeaderStore, IntakeStore, Journal, LegRecords,
    NotTaken, PaymentFound, PaymentStore, Receipt, Record, Recording, StockStore, StoreError,
};

/// It is always the same time here.
pub fn clock() -> Timestamp {
    Timestamp::constant(1_800_000_000, 0)
}

/// As it is deployed.
const PACE: Pace = Pace { period: std::time::Duration::from_secs(600), max_drives: 6 };

/// Who can be invoked with a payload: a participant, or else the reconciler.
pub const INVOKED: [Option<Participant>; 6] = [
    Some(Participant::Seller(Leg::Flight)),
    Some(Participant::Seller(Leg::Hotel)),
    Some(Participant::Seller(Leg::Car)),
    Some(Participant::Payment),
    Some(Participant::Booking),
    None,
];

/// What is around a function.
#[derive(Debug)]
pub struct World {
    works: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    headers: HashMap<BookingId, Header>,
    travellers: HashMap<BookingId, Traveller>,
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

    /// Who travels with a booking.
    pub fn traveller_of(&self, booking: &BookingId) -> Option<Traveller> {
        self.state().travellers.get(booking).cloned()
    }

    /// With what executions were started, and the events that were published: as JSON.
    pub fn said(&self) -> Vec<String> {
        let state = self.state();
        state.executions.values().chain(&state.events).cloned().collect()
    }

    /// Answers an invocation of the function `api`.
    pub async fn http(&self, payload: Value) -> Result<Value, Diagnostic> {
        let api = Api {
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
        let says = if let Some(Participant::Seller(_)) = who { Says::ByDestination } else { Says::Itself };
        runtime::Participant { handle, publish, says, fault, queue: QUEUE.clone() }.invoked(payload).await
    }

    /// As each function's `main.rs` wires it.
    async fn handle(&self, who: Option<Participant>, input: Input) -> Result<Option<Value>, StepError> {
        let said = match (who, input) {
            (Some(Participant::Seller(leg)), input) => {
                let seller = Seller { leg, store: self, catalogue: CATALOGUE.clone(), clock };
                match input {
                    Input::Command(payload) => seller.handle(&payload).await.map(Some),
                    Input::Event(event) | Input::Failure(Failure { event, .. }) => seller.hear(&event).await,
                }
            }
            (Some(Participant::Payment), input) => {
                let cashier = Cashier { store: self, provider: self, clock };
                match input {
                    Input::Command(payload) => cashier.handle(&payload).await.map(Some),
                    Input::Event(event) => cashier.hear(&event).await,
                    Input::Failure(failure) => {
                        cashier.hear_failure(&failure.event, &failure.function, &failure.error_type).await
                    }
                }
            }
            (Some(Participant::Booking), input) => {
                let desk = BookingDesk { store: self, clock };
                match input {
                    Input::Command(payload) => desk.handle(&payload).await.map(Some),
                    Input::Event(event) | Input::Failure(Failure { event, .. }) => desk.hear(&event).await,
                }
            }
            (None, input) => {
                let reconciler = Reconciler {
                    headers: self,
                    executions: self,
                    events: self,
                    dead_letters: self,
                    read: |message| runtime::event(message).ok().flatten(),
                    desk: BookingDesk { store: self, clock },
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
    async fn accept(&self, header: &Header, traveller: &Traveller) -> Result<Commit<Box<Receipt>>, StoreError> {
        if let Some(found) = HeaderStore::get(self, &header.booking_id).await? {
            return Ok(Commit::Found(Box::new(receipt_of(found))));
        }
        let mut state = self.state();
        state.headers.insert(header.booking_id.clone(), header.clone());
        state.travellers.insert(header.booking_id.clone(), traveller.clone());
        Ok(Commit::Done)
    }

    async fn receipt(&self, booking: &BookingId) -> Result<Option<Receipt>, StoreError> {
        self.state().looks += 1;
        Ok(HeaderStore::get(self, booking).await?.map(receipt_of))
    }

    async fn header(&self, booking: &BookingId) -> Result<Option<Header>, StoreError> {
        HeaderStore::get(self, booking).await
    }

    async fn traveller(&self, booking: &BookingId) -> Result<Option<Traveller>, StoreError> {
        self.refuse()?;
        Ok(self.traveller_of(booking))
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

    async fn record(&self, _: &Record<'_>) -> Result<Commit<Recording>, StoreError> {
        self.done()
    }

    async fn give_back(&self, _: &Record<'_>, _: &[saga::StockLine]) -> Result<Commit<LegRecords>, StoreError> {
        self.done()
    }

    async fn bury(&self, _: &Record<'_>, _: &Outcome) -> Result<Commit<LegRecords>, StoreError> {
        self.done()
    }
}

impl PaymentStore for &World {
    async fn lease(&self, _: &Record<'_>, _: i64, _: Option<i64>) -> Result<Commit<PaymentFound>, StoreError> {
        self.done()
    }

    async fn release(&self, _: &BookingId, _: i64, _: i64) -> Result<(), StoreError> {
        self.refuse()
    }

    async fn complete(&self, _: &Record<'_>, _: &saga::payment::State) -> Result<Commit<PaymentFound>, StoreError> {
        self.done()
    }

    /// This is always the last leg that payment waits for.
    async fn collect(&self, _: &BookingId, _: Leg, price: Money) -> Result<Vec<(Leg, Money)>, StoreError> {
        self.refuse()?;
        Ok(Leg::ALL.map(|leg| (leg, price)).to_vec())
    }

    async fn fence(&self, _: &Record<'_>) -> Result<Commit<PaymentFound>, StoreError> {
        self.done()
    }

    async fn record(&self, _: &Record<'_>) -> Result<Commit<Recording>, StoreError> {
        self.done()
    }
}

impl BookingStore for &World {
    /// This is always the last leg that booking waits for.
    async fn collect(&self, _: &BookingId, _: Leg) -> Result<Option<Vec<Leg>>, StoreError> {
        self.refuse()?;
        Ok(Some(Leg::ALL.to_vec()))
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

impl Events for &World {
    async fn publish(&self, event: String) -> Result<(), EventsError> {
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

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::bundled().unwrap());
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
