//! What Harmony keeps in DynamoDB: stock, the journal, payment's decisions, booking headers, and the ledger of the
//! sandbox payment provider.
//!
//! Each trait below is one participant's view of it. A method commits one *move* of the saga in one request, on the
//! condition that what the caller knew when it decided still holds: [`Commit::Done`]. Otherwise it changes nothing and
//! returns the current state: [`Commit::Found`], and the caller decides again. Effect, journal item and outcome are
//! written in the same request, so none of them ever exists without the others.

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
pub use journal::{Begun, Journal, JournalEntry, Record};
pub use ledger::{Card, ChargeResult, Ledger, LedgerEntry, Paid};
pub use payments::Payments;
pub use stock::{OnSale, StockTable};
pub use tables::{Cursor, Page, UnreadableItem, count};
pub use transaction::{client, patient_client};

use std::collections::BTreeMap;

use jiff::Timestamp;
use saga::{
    BookingId, Claim, Customer, Money, Outcome, PartName, PartNames, Price, Reason, Status, StockLine,
    payment::{Recorded, State},
    reservation::Stock,
};

/// The result of a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit<F> {
    /// The move is carried out and recorded.
    Done,
    /// Nothing is changed: the state is not what the caller knew. This is the current one.
    Found(F),
}

/// An outcome recorded in the journal, and the digest of the command that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedOutcome {
    /// The recorded outcome.
    pub outcome: Outcome,
    /// The digest of the command, to tell a repeat from another command.
    pub validation: String,
}

/// Why stock was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// The reserve was carried out, or ruled out by a tombstone, before.
    Recorded(RecordedOutcome),
    /// A line has too few units, or does not exist.
    Stock(Stock),
}

/// What the journal holds about one part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartRecords {
    /// The outcome of `reserve`; none if it is not recorded.
    pub reserve: Option<RecordedOutcome>,
    /// The outcome of `cancel`; none if it is not recorded.
    pub cancel: Option<RecordedOutcome>,
}

/// A seller's stock and its part of the journal.
pub trait StockStore {
    /// Takes the units of all lines and records the outcome of `reserve`, if no reserve is recorded and every line has
    /// enough units.
    fn take(
        &self,
        record: &Record<'_>,
        lines: &[StockLine],
    ) -> impl Future<Output = Result<Commit<NotTaken>, StoreError>> + Send;

    /// Records an outcome without touching the stock, if none is recorded for that step.
    fn record(&self, record: &Record<'_>) -> impl Future<Output = Result<Commit<RecordedOutcome>, StoreError>> + Send;

    /// Gives back the units of all lines and records the outcome of `cancel`, if the part is reserved with the same
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

/// The current state of a payment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PaymentFound {
    /// The decision so far.
    pub state: State,
    /// What the journal holds about the step in question.
    pub recorded: Recorded,
    /// The digest of the recorded command, if one is recorded.
    pub validation: Option<String>,
}

/// Payment's decisions and its part of the journal.
pub trait PaymentStore {
    /// Takes the lease to charge until `lease_ends` (milliseconds since 1970), if nothing is decided and no charge is
    /// recorded; or, given the end of an earlier lease, takes that lease over if it is still the last one.
    fn lease(
        &self,
        begun: &Begun<'_>,
        lease_ends: i64,
        earlier: Option<i64>,
    ) -> impl Future<Output = Result<Commit<PaymentFound>, StoreError>> + Send;

    /// Ends the lease now, if this worker still holds it: the worker lives, but the provider did not answer.
    fn release(
        &self,
        booking_id: &BookingId,
        lease_ends: i64,
        now: i64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Moves from `charging` to the decision that the record's outcome stands for, and completes the journal item.
    fn complete(
        &self,
        record: &Record<'_>,
        decision: &State,
    ) -> impl Future<Output = Result<Commit<PaymentFound>, StoreError>> + Send;

    /// Records the price of a reserved part, and returns all prices known by now. It changes no decision, and may be
    /// repeated.
    fn collect(
        &self,
        booking_id: &BookingId,
        part: PartName,
        price: Price,
    ) -> impl Future<Output = Result<BTreeMap<PartName, Price>, StoreError>> + Send;

    /// Moves to `aborted` and records the outcome of `abort`, if nothing is decided.
    fn fence(&self, record: &Record<'_>) -> impl Future<Output = Result<Commit<PaymentFound>, StoreError>> + Send;

    /// Records an outcome and nothing else, if none is recorded for that step.
    fn record(&self, record: &Record<'_>) -> impl Future<Output = Result<Commit<RecordedOutcome>, StoreError>> + Send;
}

/// The current state of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderFound {
    /// Its status; none if there is no such booking.
    pub status: Option<Status>,
    /// What is recorded for the step in question.
    pub recorded: Option<RecordedOutcome>,
}

/// Which parts of a booking are cancelled, and which parts it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenBack {
    /// The parts cancelled so far.
    pub cancelled: PartNames,
    /// All parts of the plan.
    pub plan: PartNames,
}

/// The end of a booking, for its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End<'a> {
    /// The status to set.
    pub status: Status,
    /// The amount paid; none if nothing was.
    pub total: Option<Money>,
    /// The first failure; none if the booking succeeded.
    pub reason: Option<&'a Reason>,
}

/// Booking headers and their part of the journal, as the participant that ends bookings sees them.
pub trait BookingStore {
    /// Records that a part is cancelled, and returns all parts cancelled by now; none if there is no such booking. It
    /// changes no status, and may be repeated.
    fn collect(
        &self,
        booking_id: &BookingId,
        part: PartName,
    ) -> impl Future<Output = Result<Option<GivenBack>, StoreError>> + Send;

    /// Sets the end of the booking and records the outcome, if the booking has not ended and the step is not recorded.
    /// (`booking.park` may happen several times, and is recorded again.)
    fn end(
        &self,
        record: &Record<'_>,
        end: &End<'_>,
    ) -> impl Future<Output = Result<Commit<HeaderFound>, StoreError>> + Send;
}

/// Booking headers, for programs that start bookings.
pub trait ClaimStore {
    /// Takes this claim on a start, or releases it if the claim is not taken, and sets the booking to pending: if its
    /// status and the number of its claim are still those of this header. Returns whether they were.
    fn claim(
        &self,
        header: &Header,
        claim: &Claim,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// Booking headers and their customers, for the API, which accepts and shows bookings.
pub trait IntakeStore: ClaimStore {
    /// Records the booking and its customer, if there is no header with that id. The customer is needed until
    /// `needed_until`, and kept for a while after that.
    fn accept(
        &self,
        header: &Header,
        customer: &Customer,
        needed_until: Timestamp,
    ) -> impl Future<Output = Result<Commit<Box<Receipt>>, StoreError>> + Send;

    /// The current data that a repeated request is answered from; none if there is no such booking. A consistent read.
    fn receipt(&self, booking_id: &BookingId) -> impl Future<Output = Result<Option<Receipt>, StoreError>> + Send;

    /// The current header; none if there is no such booking. A consistent read.
    fn header(&self, booking_id: &BookingId) -> impl Future<Output = Result<Option<Header>, StoreError>> + Send;

    /// The customer; none if it is no longer kept.
    fn customer(&self, booking_id: &BookingId) -> impl Future<Output = Result<Option<Customer>, StoreError>> + Send;
}

/// Booking headers, for the reconciler.
pub trait HeaderStore: ClaimStore {
    /// The current header; none if there is no such booking. A consistent read.
    fn get(&self, booking_id: &BookingId) -> impl Future<Output = Result<Option<Header>, StoreError>> + Send;

    /// All bookings that have not ended and were created before this time, oldest first. Items that cannot be read are
    /// among the errors and do not hide the others. Reads from an index, so the newest changes may be missing: good
    /// enough to find stuck bookings, not to decide on them.
    fn open_before(&self, time: Timestamp) -> impl Future<Output = (Vec<BookingId>, Vec<StoreError>)> + Send;
}
