//! What the tests on the local AWS share: one stack per test program, and for each test clients and dates of its own.

#![allow(clippy::unwrap_used)] // in a test, to panic is to fail

use std::{
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
use harmony::{LocalAws, Options, Stack};
use jiff::{Timestamp, ToSpan, civil::Date};
use saga::{BookingId, IdempotencyKey, Leg, LegRequest, StockLine, booking::Trip};
use serde_json::json;
use services::{BookingDesk, Cashier, Catalogue, SandboxProvider, Seller};
use store::{Bookings, Headers, Journal, Ledger, Payments, StockTable};

/// Starts a local AWS with the whole stack. It ends when the value is dropped or this process ends.
pub fn start(stack: &str, parameters: &[(&str, &str)]) -> LocalAws {
    let parameters = parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let options = Options { stack_name: stack.into(), parameters, ..Options::default() };
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

    /// The stock of a leg.
    pub fn stock(&self, leg: Leg) -> StockTable {
        StockTable::new(self.client.clone(), self.stack.stock_table(leg).unwrap(), self.journal())
    }

    /// The participant that sells a leg.
    pub fn seller(&self, leg: Leg) -> Seller<StockTable> {
        Seller { leg, store: self.stock(leg), catalogue: Catalogue::bundled().unwrap(), clock: Timestamp::now }
    }

    /// The sandbox provider's books.
    pub fn ledger(&self) -> Ledger {
        Ledger::new(self.client.clone(), self.stack.provider_ledger_table().unwrap())
    }

    /// Payment's decisions.
    pub fn payments(&self) -> Payments {
        Payments::new(self.client.clone(), self.stack.payments_table().unwrap(), self.journal())
    }

    /// The participant that decides.
    pub fn cashier(&self) -> Cashier<Payments, SandboxProvider> {
        let provider = SandboxProvider { ledger: self.ledger(), clock: Timestamp::now };
        Cashier { store: self.payments(), provider, clock: Timestamp::now }
    }

    /// The headers.
    pub fn headers(&self) -> Headers {
        Headers::new(self.client.clone(), self.stack.bookings_table().unwrap())
    }

    /// The participant that ends bookings.
    pub fn desk(&self) -> BookingDesk<Bookings> {
        let store = Bookings::new(self.client.clone(), self.stack.bookings_table().unwrap(), self.journal());
        BookingDesk { store, clock: Timestamp::now }
    }

    /// Puts so many units on sale for each line of the trip.
    pub async fn seed(&self, trip: &Trip, units: u32) {
        for leg in Leg::ALL {
            self.seed_leg(trip.leg(leg), units).await;
        }
    }

    /// Puts so many units on sale for each line of the leg.
    pub async fn seed_leg(&self, leg: &LegRequest, units: u32) {
        let lines: Vec<_> = leg.lines().into_iter().map(|line| StockLine { units, ..line }).collect();
        self.stock(leg.leg()).seed(&lines).await.unwrap();
    }

    /// How many units are available of each line of the leg.
    pub async fn available(&self, leg: &LegRequest) -> Vec<i64> {
        let mut available = Vec::new();
        for line in leg.lines() {
            available.push(self.stock(leg.leg()).available(&line).await.unwrap().expect("on sale").0);
        }
        available
    }
}

/// A date that no other test of this program uses, with nine free days after it.
pub fn date() -> Date {
    let days = 40 + 10 * NEXT_DATE.fetch_add(1, Ordering::Relaxed);
    harmony::trip::today().saturating_add(days.days())
}

/// A booking that no other test uses.
pub fn booking_id(of: &str) -> BookingId {
    let key = format!("{of}-{}-{}", std::process::id(), Timestamp::now().as_nanosecond());
    BookingId::derive("tests", &IdempotencyKey::try_from(key.as_str()).unwrap())
}

/// A trip of two seats, a room and a car, for three nights from this date.
pub fn trip(date: Date) -> Trip {
    let until = date.saturating_add(3.days());
    serde_json::from_value(json!({
        "flight": {"flight_no": "LH400", "date": date, "seats": 2},
        "hotel": {"hotel_id": "nyc-plaza", "check_in": date, "check_out": until, "rooms": 1},
        "car": {"station_id": "jfk", "category": "compact", "pick_up": date, "drop_off": until},
    }))
    .unwrap()
}

/// Long enough for everything that ends at all.
pub const DEADLINE: Duration = Duration::from_secs(30);
