//! What Harmony keeps in DynamoDB: stock, the journal, payment's decisions, booking headers, and the books of the
//! sandbox payment provider.
//!
//! Each trait below is one participant's view of it. A method commits one *move* of the saga in one request, on the
//! condition that what the caller knew when it decided still holds: [`Commit::Done`]. Otherwise nothing is changed
//! and the method says what is the case: [`Commit::Found`], and the caller decides again. Effect, journal item and
//! outcome are in the same request, so there is no moment at which one is there without the others.

mod bookings;
mod error;
mod journal;
mod ledger;
mod payments;
mod stock;
mod tables;
mod transaction;

pub use bookings::{Bookings, Header, Headers, Intake, Receipt};
pub use error::{StoreError, causes};
pub use journal::{Begun, Entry, Journal, Record};
pub use ledger::{Card, ChargeResult, Entered, Ledger, Paid};
pub use payments::Payments;
pub use stock::{OnSale, StockTable};
pub use tables::{Cursor, Page, Unreadable, count};
pub use transaction::{client, patient_client};

use std::collections::BTreeMap;

use jiff::Timestamp;
use saga::{
    BookingId, Claim, Customer, Money, Outcome, PartName, PartNames, Price, Reason, Status, StockLine,
    payment::{Recorded, State},
    reservation::Stock,
};

/// What became of a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit<F> {
    /// It is carried out and recorded.
    Done,
    /// Nothing is changed: something else is the case than the caller knew.
    Found(F),
}

/// An outcome that the journal holds, and the digest of the command that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// What was answered.
    pub outcome: Outcome,
    /// What was asked.
    pub validation: String,
}

/// Why stock was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// The reserve was carried out, or ruled out, before.
    Recorded(Recording),
    /// A line has too little.
    Stock(Stock),
}

/// What the journal holds on one part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartRecords {
    /// What `reserve` answered.
    pub reserve: Option<Recording>,
    /// What `cancel` did.
    pub cancel: Option<Recording>,
}

/// A seller's stock and its part of the journal.
pub trait StockStore {
    /// Takes the units of all lines and records the outcome of `reserve`, if no reserve is recorded and every line
    /// has enough.
    fn take(
        &self,
        record: &Record<'_>,
        lines: &[StockLine],
    ) -> impl Future<Output = Result<Commit<NotTaken>, StoreError>> + Send;

    /// Records an outcome without touching stock, if none is recorded for that step.
    fn record(&self, record: &Record<'_>) -> impl Future<Output = Result<Commit<Recording>, StoreError>> + Send;

    /// Gives the units of all lines back and records the outcome of `cancel`, if the part is reserved with the same
    /// digest and not cancelled.
    fn give_back(
        &self,
        record: &Record<'_>,
        lines: &[StockLine],
    ) -> impl Future<Output = Result<Commit<PartRecords>, StoreError>> + Send;

    /// Records the tombstone as the outcome of `reserve`, and the outcome of `cancel`, if neither is recorded.
    fn leave_tombstone(
        &self,
        record: &Record<'_>,
        tombstone: &Outcome,
    ) -> impl Future<Output = Result<Commit<PartRecords>, StoreError>> + Send;
}

/// How a payment stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PaymentFound {
    /// The decision, as far as it is made.
    pub state: State,
    /// What the journal holds for the step in question.
    pub recorded: Recorded,
    /// The digest of the command that is recorded, if one is.
    pub validation: Option<String>,
}

/// Payment's decisions and its part of the journal.
pub trait PaymentStore {
    /// Takes the lease to charge until `lease_ends` (milliseconds since 1970), if nothing is decided and no charge is
    /// recorded; or, given the end of an earlier lease, takes that one over if it is still the last.
    fn lease(
        &self,
        begun: &Begun<'_>,
        lease_ends: i64,
        earlier: Option<i64>,
    ) -> impl Future<Output = Result<Commit<PaymentFound>, StoreError>> + Send;

    /// Ends the lease now, if it is still ours: the worker lives, but the provider did not answer.
    fn release(
        &self,
        booking: &BookingId,
        lease_ends: i64,
        now: i64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Moves from `charging` to the decision that the record's outcome stands for, and completes the journal item.
    fn complete(
        &self,
        record: &Record<'_>,
        decision: &State,
    ) -> impl Future<Output = Result<Commit<PaymentFound>, StoreError>> + Send;

    /// Records the price of a part that is reserved, and says which are known by now. It changes no decision. May be
    /// repeated.
    fn collect(
        &self,
        booking: &BookingId,
        part: PartName,
        price: Price,
    ) -> impl Future<Output = Result<BTreeMap<PartName, Price>, StoreError>> + Send;

    /// Moves to `aborted` and records the outcome of `abort`, if nothing is decided.
    fn fence(&self, record: &Record<'_>) -> impl Future<Output = Result<Commit<PaymentFound>, StoreError>> + Send;

    /// Records an outcome only, if none is recorded for that step.
    fn record(&self, record: &Record<'_>) -> impl Future<Output = Result<Commit<Recording>, StoreError>> + Send;
}

/// How a header stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderFound {
    /// Its status; none if there is no such booking.
    pub status: Option<Status>,
    /// What is recorded for the step in question.
    pub recorded: Option<Recording>,
}

/// Which parts of a booking are given back, and which it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenBack {
    /// Those that are.
    pub cancelled: PartNames,
    /// All.
    pub plan: PartNames,
}

/// How a booking ends, for its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End<'a> {
    /// The status to set.
    pub status: Status,
    /// What was paid.
    pub total: Option<Money>,
    /// What went wrong.
    pub reason: Option<&'a Reason>,
}

/// Booking headers and their part of the journal, seen by the participant that ends bookings.
pub trait BookingStore {
    /// Records that a part is given back, and says which are by now; none if there is no such booking. It changes no
    /// status. May be repeated.
    fn collect(
        &self,
        booking: &BookingId,
        part: PartName,
    ) -> impl Future<Output = Result<Option<GivenBack>, StoreError>> + Send;

    /// Sets how the booking ends and records the outcome, if it has not ended and the step is not recorded (a step
    /// that may happen again, `booking.park`, is recorded again).
    fn end(
        &self,
        record: &Record<'_>,
        end: &End<'_>,
    ) -> impl Future<Output = Result<Commit<HeaderFound>, StoreError>> + Send;
}

/// Booking headers, seen by who starts bookings.
pub trait ClaimStore {
    /// Claims a start, or with a claim that is not taken releases it, and sets the booking to pending: if its status and
    /// the number of its claim are still those of this header. Says whether they were.
    fn claim(
        &self,
        header: &Header,
        claim: &Claim,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// Booking headers and their customers, seen by who accepts bookings and shows them.
pub trait IntakeStore: ClaimStore {
    /// Records the booking and its customer, if there is no header of that id. The customer is needed until this time, and
    /// kept for a while after it.
    fn accept(
        &self,
        header: &Header,
        customer: &Customer,
        needed_until: Timestamp,
    ) -> impl Future<Output = Result<Commit<Box<Receipt>>, StoreError>> + Send;

    /// What a repeated request is answered from, as it is now.
    fn receipt(&self, booking: &BookingId) -> impl Future<Output = Result<Option<Receipt>, StoreError>> + Send;

    /// The header, as it is now.
    fn header(&self, booking: &BookingId) -> impl Future<Output = Result<Option<Header>, StoreError>> + Send;

    /// Who the customer is; none if that is not kept any more.
    fn customer(&self, booking: &BookingId) -> impl Future<Output = Result<Option<Customer>, StoreError>> + Send;
}

/// Booking headers, seen by who looks after them.
pub trait HeaderStore: ClaimStore {
    /// The header, as it is now.
    fn get(&self, booking: &BookingId) -> impl Future<Output = Result<Option<Header>, StoreError>> + Send;

    /// All bookings that have not ended and were created before this time, oldest first. What cannot be read is among the
    /// errors, and hides nothing else. From an index, so the newest changes may be missing: good enough to find what is
    /// stuck, not to decide on it.
    fn open_before(&self, time: Timestamp) -> impl Future<Output = (Vec<BookingId>, Vec<StoreError>)> + Send;
}
