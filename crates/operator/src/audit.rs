//! An audit: checks what the tables hold against what must always be true.
//!
//! | | |
//! |---|---|
//! | a confirmed booking | has every part of its plan reserved and is charged once, the sum of their prices |
//! | a failed booking | has no part reserved, and nothing is charged |
//! | a booking that needs an operator | says in its journal what was given up |
//! | a booking that is pending | has not been pending for longer than any step is tried |
//! | a line of stock | is never below zero, and stock plus reservations is what was put on sale |
//! | a step, a payment, a charge | belongs to a booking, and a reservation to a part of its plan |
//!
//! [`check_booking`] and [`check_line`] are pure functions of what was read about one booking or one line. What has to
//! be read, and in which order so that a booking under way is not mistaken for a violation, is in [`whole`].

pub mod whole;

use std::fmt;

use aws_config::SdkConfig;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use saga::{
    BookingId, Money, Outcome, PartName, PaymentReference, Price, Status, Step, StockLine, money::MoneyError,
    payment::State,
};
use store::{
    Header, HeaderStore, Headers, Journal, JournalEntry, Ledger, Payments, StockTable, StoreError, UnreadableItem,
};

use local_aws::{Stack, StackError};
use traveller::Booking;

/// How many bookings, or stock lines, are read at once.
const AT_ONCE: usize = 8;

/// A state that must never occur.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditViolation {
    pub kind: ViolationKind,
    /// What it is about: a booking, stock line or payment, such as `booking 5b7c…` or `flight LH400 on 2027-03-01`.
    pub about: String,
    /// What was found.
    pub says: String,
}

impl fmt::Display for AuditViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.says)
    }
}

/// The kinds of violation, each with a stable name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ViolationKind {
    /// Confirmed, but a part is not reserved.
    NotReserved,
    /// Confirmed, but payment decided otherwise, or for another amount.
    NotCharged,
    /// Confirmed, but the provider was paid another amount, or nothing.
    WrongCharge,
    /// The total in the header is wrong.
    WrongTotal,
    /// Failed, but a part is reserved.
    StillReserved,
    /// Failed, but no tombstone guarantees that a late reserve of a part is refused.
    NotCancelled,
    /// Failed, but payment decided otherwise, or not at all.
    NotAborted,
    /// Failed, but the provider was paid.
    StillCharged,
    /// Ended, but the journal does not record it.
    NotRecorded,
    /// Needs an operator, but the journal does not record why.
    NotParked,
    /// Not ended, although it should have.
    NotEnded,
    /// Belongs to no booking, or to no part of its plan.
    Orphan,
    /// Stock is below zero.
    BelowZero,
    /// Stock and reservations do not add up to what was put on sale.
    Stock,
    /// An item does not have the form in which this program writes it.
    Unreadable,
}

impl ViolationKind {
    pub const ALL: [Self; 15] = [
        Self::NotReserved,
        Self::NotCharged,
        Self::WrongCharge,
        Self::WrongTotal,
        Self::StillReserved,
        Self::NotCancelled,
        Self::NotAborted,
        Self::StillCharged,
        Self::NotRecorded,
        Self::NotParked,
        Self::NotEnded,
        Self::Orphan,
        Self::BelowZero,
        Self::Stock,
        Self::Unreadable,
    ];

    /// The name for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotReserved => "not-reserved",
            Self::NotCharged => "not-charged",
            Self::WrongCharge => "wrong-charge",
            Self::WrongTotal => "wrong-total",
            Self::StillReserved => "still-reserved",
            Self::NotCancelled => "not-cancelled",
            Self::NotAborted => "not-aborted",
            Self::StillCharged => "still-charged",
            Self::NotRecorded => "not-recorded",
            Self::NotParked => "not-parked",
            Self::NotEnded => "not-ended",
            Self::Orphan => "orphan",
            Self::BelowZero => "below-zero",
            Self::Stock => "stock",
            Self::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for ViolationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// When a booking must have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// It must have ended if it was accepted before this time.
    pub accepted_before: Timestamp,
    /// Whether a booking may need an operator instead.
    pub may_need_operator: bool,
}

/// What the tables hold about a booking.
#[derive(Clone, Debug)]
pub struct BookingRecords {
    pub booking_id: BookingId,
    /// Its header, if there is one.
    pub header: Option<Header>,
    /// Its steps.
    pub journal: Vec<JournalEntry>,
    pub decision: State,
    /// What the provider was paid, after all charges and refunds.
    pub paid: Option<Money>,
    /// Its steps that cannot be read.
    pub unreadable: Vec<UnreadableItem>,
}

impl BookingRecords {
    /// The booking as its owner sees it, but without the customer; none without a header.
    pub fn booking(&self) -> Option<Booking> {
        let view = services::api::view(&travel::TRAVEL, self.header.as_ref()?, None, &self.journal);
        serde_json::from_value(view).ok() // it is what the API shows
    }
}

/// What a table holds about a stock line.
#[derive(Clone, Debug)]
pub struct StockRecord {
    pub part: PartName,
    /// The line. Its units do not matter.
    pub line: StockLine,
    /// How many units are available, and how many were put on sale; none if the line is not on sale.
    pub units: Option<(i64, i64)>,
}

impl BookingRecords {
    fn entry(&self, step: Step) -> Option<&JournalEntry> {
        self.journal.iter().find(|entry| entry.step == step)
    }

    fn outcome(&self, step: Step) -> Option<&Outcome> {
        self.entry(step)?.outcome.as_ref()
    }

    fn is_cancelled(&self, part: PartName) -> bool {
        matches!(self.outcome(Step::Cancel(part)), Some(Outcome::Cancelled { .. }))
    }

    /// The price of a part that is reserved, and not cancelled.
    fn reserved(&self, part: PartName) -> Option<Price> {
        match self.outcome(Step::Reserve(part)) {
            Some(Outcome::Reserved { price }) if !self.is_cancelled(part) => Some(*price),
            _ => None,
        }
    }

    /// How many units of a line this booking has reserved.
    fn units(&self, part: PartName, line: &StockLine) -> i64 {
        let lines = match &self.header {
            Some(header) if self.reserved(part).is_some() => lines_of(header, part),
            _ => Vec::new(),
        };
        let same = lines.iter().filter(|other| (&other.product, other.date) == (&line.product, line.date));
        same.map(|line| i64::from(line.units)).sum()
    }
}

/// The stock that a part of a booking needs; none if this program does not know the part or cannot read it.
fn lines_of(header: &Header, part: PartName) -> Vec<StockLine> {
    let contents = header.parts.get(part).map(|part| part.contents);
    let request = travel::part_type(part).zip(contents).map(|(part_type, contents)| part_type.request(&contents));
    request.and_then(Result::ok).map_or_else(Vec::new, |request| request.lines())
}

/// All violations of one booking; empty if there are none.
pub fn check_booking(records: &BookingRecords, deadline: &Deadline) -> Vec<AuditViolation> {
    let mut wrong: Wrong =
        records.unreadable.iter().map(|item| (ViolationKind::Unreadable, item.to_string())).collect();
    match &records.header {
        _ if !wrong.is_empty() => {} // what seems to be missing may be in them
        None => wrong.push((ViolationKind::Orphan, orphan(records))),
        Some(header) => {
            check_parts(records, header, &mut wrong);
            match header.status {
                Status::Confirmed => check_confirmed(records, header, &mut wrong),
                Status::Failed => check_failed(records, header, &mut wrong),
                Status::NeedsOperator => check_parked(records, deadline, &mut wrong),
                Status::Pending | Status::Compensating if header.created_at < deadline.accepted_before => {
                    let says = format!("not ended: {} since {:.3}", header.status, header.created_at);
                    wrong.push((ViolationKind::NotEnded, says));
                }
                Status::Pending | Status::Compensating => {}
            }
        }
    }
    let about = format!("booking {}", records.booking_id);
    wrong.into_iter().map(|(kind, says)| AuditViolation { kind, about: about.clone(), says }).collect()
}

type Wrong = Vec<(ViolationKind, String)>;

fn orphan(records: &BookingRecords) -> String {
    let steps: Vec<_> = records.journal.iter().map(|entry| entry.step.to_string()).collect();
    let mut left = Vec::new();
    if !steps.is_empty() {
        left.push(format!("its journal has {}", steps.join(", ")));
    }
    if records.decision != State::Collecting {
        left.push(format!("payment's decision is {}", decision(&records.decision)));
    }
    let but = if left.is_empty() { String::new() } else { format!(", but {}", left.join(" and ")) };
    format!("there is no such booking{but}")
}

fn check_parts(records: &BookingRecords, header: &Header, wrong: &mut Wrong) {
    let names = header.parts.names();
    for entry in &records.journal {
        if let Step::Reserve(part) | Step::Cancel(part) = entry.step
            && !names.contains(&part)
        {
            wrong.push((ViolationKind::Orphan, format!("{} is recorded, but {part} is not a part of it", entry.step)));
        }
    }
}

fn check_confirmed(records: &BookingRecords, header: &Header, wrong: &mut Wrong) {
    check_recorded(records, Step::Confirm, Status::Confirmed, wrong);
    let mut prices = Vec::new();
    for (part, _) in header.parts.iter() {
        match records.reserved(part) {
            Some(price) => prices.push(price),
            None => wrong.push((ViolationKind::NotReserved, format!("confirmed, but {part} is not reserved"))),
        }
    }
    if prices.len() < header.parts.names().len() {
        return;
    }
    match sum(prices) {
        Err(error) => {
            wrong.push((ViolationKind::NotCharged, format!("confirmed, but its prices have no sum: {error}")))
        }
        Ok(sum) => {
            if !matches!(records.decision, State::Charged { amount, .. } if amount == sum) {
                let decision = decision(&records.decision);
                wrong.push((
                    ViolationKind::NotCharged,
                    format!("confirmed at {sum}, but payment's decision is {decision}"),
                ));
            }
            if records.paid != Some(sum) {
                let paid = shown(records.paid);
                wrong.push((
                    ViolationKind::WrongCharge,
                    format!("confirmed at {sum}, but the provider was paid {paid}"),
                ));
            }
            if header.total != Some(sum) {
                let total = shown(header.total);
                wrong.push((ViolationKind::WrongTotal, format!("confirmed at {sum}, but its total is {total}")));
            }
        }
    }
}

fn sum(prices: Vec<Price>) -> Result<Money, MoneyError> {
    let sum = prices.into_iter().map(Ok).reduce(|sum, price| sum?.plus(price?));
    sum.and_then(|sum| sum.map(Price::payable).transpose()).unwrap_or(Err(MoneyError::TooMuch))
}

fn check_failed(records: &BookingRecords, header: &Header, wrong: &mut Wrong) {
    check_recorded(records, Step::Fail, Status::Failed, wrong);
    for (part, _) in header.parts.iter() {
        if records.reserved(part).is_some() {
            wrong.push((ViolationKind::StillReserved, format!("failed, but {part} is still reserved")));
        } else if !records.is_cancelled(part) {
            wrong.push((ViolationKind::NotCancelled, format!("failed, but {} is not recorded", Step::Cancel(part))));
        }
    }
    if !matches!(records.decision, State::Declined | State::Aborted { .. }) {
        let decision = decision(&records.decision);
        wrong.push((ViolationKind::NotAborted, format!("failed, but payment's decision is {decision}")));
    }
    if records.paid.is_some() {
        wrong.push((ViolationKind::StillCharged, format!("failed, but the provider was paid {}", shown(records.paid))));
    }
    if header.total.is_some() {
        wrong.push((ViolationKind::WrongTotal, format!("failed, but its total is {}", shown(header.total))));
    }
}

fn check_parked(records: &BookingRecords, deadline: &Deadline, wrong: &mut Wrong) {
    if !deadline.may_need_operator {
        wrong.push((ViolationKind::NotEnded, format!("not ended: {}", Status::NeedsOperator)));
    }
    if !matches!(records.outcome(Step::Park), Some(Outcome::Parked { .. })) {
        let status = Status::NeedsOperator;
        wrong.push((ViolationKind::NotParked, format!("{status}, but {} is not recorded", Step::Park)));
    }
}

/// Header and journal item are written in one transaction. The outcome has the same name as the status.
fn check_recorded(records: &BookingRecords, step: Step, status: Status, wrong: &mut Wrong) {
    if records.outcome(step).map(Outcome::name) != Some(status.name()) {
        wrong.push((ViolationKind::NotRecorded, format!("{status}, but {step} is not recorded")));
    }
}

fn shown(money: Option<Money>) -> String {
    money.map_or("nothing".into(), |money| money.to_string())
}

fn decision(state: &State) -> String {
    match state {
        State::Charged { amount, .. } => format!("charged {amount}"),
        state => state.name().to_owned(),
    }
}

/// How many units of a line were reserved when the line was read, according to the journal, which is read later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReservedUnits {
    /// By reservations in force.
    pub stands: i64,
    /// Of those: by steps so late that the line may have been read before them.
    pub lately: i64,
    /// By reservations that were given back so late that the line may have been read before that.
    pub given_back_lately: i64,
}

/// The result for a stock line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    /// Units of it were sold or given back just when it was read, which may explain the difference.
    InMotion(String),
    Wrong(AuditViolation),
}

/// Checks a stock line. Where journals of old bookings have expired, units may have been sold that the journal does not
/// know of; `is_whole` means that this cannot be the case.
pub fn check_line(stock_record: &StockRecord, reserved: ReservedUnits, is_whole: bool) -> Verdict {
    let StockRecord { part, line, units } = stock_record;
    let about = format!("{part} {line}");
    let ReservedUnits { stands, lately, given_back_lately } = reserved;
    let wrong = |kind, says| Verdict::Wrong(AuditViolation { kind, about: about.clone(), says });
    let (available, seeded) = units.unwrap_or((0, 0));
    if available < 0 {
        return wrong(ViolationKind::BelowZero, format!("{available} available"));
    }
    let (taken, least, most) = (seeded - available, stands - lately, stands + given_back_lately);
    if taken == stands || (!is_whole && taken >= stands) {
        return Verdict::Right;
    }
    let says = match units {
        None => format!("not on sale, but {stands} reserved"),
        Some(_) => format!("{available} available and {stands} reserved, but {seeded} put on sale"),
    };
    if (least..=most).contains(&taken) {
        Verdict::InMotion(format!("{about}: {says}"))
    } else {
        wrong(ViolationKind::Stock, says)
    }
}

/// Reads what has to be checked.
#[derive(Clone, Debug)]
pub struct Audit {
    tables: Vec<String>,
    client: aws_sdk_dynamodb::Client,
    headers: Headers,
    journal: Journal,
    payments: Payments,
    ledger: Ledger,
    stock: Vec<(PartName, StockTable)>,
}

impl Audit {
    pub fn of(stack: &Stack, sdk: &SdkConfig) -> Result<Self, StackError> {
        let client = store::patient_client(sdk);
        let (bookings, journal_table) = (stack.bookings_table()?, stack.journal_table()?);
        let (payments, ledger) = (stack.payments_table()?, stack.provider_ledger_table()?);
        let journal = Journal::new(client.clone(), journal_table, 1); // never written here
        let sold = stack.parts().into_iter().map(|part| Ok((part, stack.stock_table(part)?)));
        let sold = sold.collect::<Result<Vec<_>, StackError>>()?;
        let tables = sold.iter().map(|(_, table)| *table).chain([ledger, journal_table, bookings, payments]);
        let stock = |(part, name)| (part, StockTable::new(client.clone(), name, journal.clone()));
        Ok(Self {
            tables: tables.map(str::to_owned).collect(),
            headers: Headers::new(client.clone(), bookings),
            payments: Payments::new(client.clone(), payments, journal.clone()),
            ledger: Ledger::new(client.clone(), ledger),
            stock: sold.iter().copied().map(stock).collect(),
            client,
            journal,
        })
    }

    /// All violations of these bookings, and then of these stock lines. The bookings have to include all that may have
    /// reserved some of the lines, and none of them may be under way or need an operator.
    pub async fn run(
        &self,
        bookings: impl IntoIterator<Item = &BookingId>,
        lines: impl IntoIterator<Item = (PartName, StockLine)>,
    ) -> Result<Vec<String>, StoreError> {
        let records =
            stream::iter(bookings).map(async |id| if_readable(format!("booking {id}"), self.records(id).await));
        let (records, mut wrong) = separate(records.buffered(AT_ONCE).try_collect().await?);
        let stock_records = stream::iter(lines).map(async |(part, line)| {
            let about = format!("{part} {line}");
            if_readable(about, self.stock_record(part, line).await)
        });
        let (stock_records, unreadable) = separate(stock_records.buffered(AT_ONCE).try_collect().await?);
        wrong.extend(unreadable);
        let deadline = Deadline { accepted_before: Timestamp::MAX, may_need_operator: false };
        wrong.extend(records.iter().flat_map(|records| check_booking(records, &deadline)));
        for stock_record in &stock_records {
            let stands = records.iter().map(|records| records.units(stock_record.part, &stock_record.line)).sum();
            if let Verdict::Wrong(violation) =
                check_line(stock_record, ReservedUnits { stands, ..ReservedUnits::default() }, true)
            {
                wrong.push(violation);
            }
        }
        Ok(wrong.iter().map(AuditViolation::to_string).collect())
    }

    /// A booking as its owner sees it, but without the customer; none if there is no such booking.
    pub async fn booking(&self, booking_id: &BookingId) -> Result<Option<Booking>, StoreError> {
        Ok(self.records(booking_id).await?.booking())
    }

    /// What the tables hold about a booking. The header is read first: whatever follows from it exists by then, and is
    /// read.
    async fn records(&self, booking_id: &BookingId) -> Result<BookingRecords, StoreError> {
        let header = self.headers.get(booking_id).await?;
        let paid = match &header {
            Some(header) => {
                let reference = PaymentReference::derive(booking_id, &header.request_digest);
                self.ledger.paid(&reference).await?.map(|paid| paid.amount)
            }
            None => None,
        };
        let (journal, unreadable) = self.journal.entries(booking_id).await?;
        Ok(BookingRecords {
            booking_id: booking_id.clone(),
            header,
            journal,
            decision: self.payments.state(booking_id).await?,
            paid,
            unreadable,
        })
    }

    async fn stock_record(&self, part: PartName, line: StockLine) -> Result<StockRecord, StoreError> {
        let mut units = None;
        for (_, table) in self.stock.iter().filter(|(of, _)| *of == part) {
            units = table.available(&line).await?;
        }
        Ok(StockRecord { part, line, units })
    }
}

/// What was read, or the violation that it cannot be read, which hides no other violation.
fn if_readable<T>(about: String, read: Result<T, StoreError>) -> Result<Result<T, AuditViolation>, StoreError> {
    match read {
        Err(StoreError::Corrupt { cause, .. }) => {
            Ok(Err(AuditViolation { kind: ViolationKind::Unreadable, about, says: format!("cannot be read: {cause}") }))
        }
        read => read.map(Ok),
    }
}

fn separate<T>(read: Vec<Result<T, AuditViolation>>) -> (Vec<T>, Vec<AuditViolation>) {
    let (mut readable, mut wrong) = (Vec::with_capacity(read.len()), Vec::new());
    for item in read {
        match item {
            Ok(item) => readable.push(item),
            Err(violation) => wrong.push(violation),
        }
    }
    (readable, wrong)
}

#[cfg(test)]
mod tests;
