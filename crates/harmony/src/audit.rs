//! An audit: what the tables hold, against what must always be true.
//!
//! | | |
//! |---|---|
//! | a confirmed booking | has every part of its plan reserved and is charged once, the sum of their prices |
//! | a failed booking | has no part reserved, and nothing is charged |
//! | a booking that needs an operator | says in its journal what was given up |
//! | a booking that is pending | is not so for longer than anything takes that is still tried |
//! | a line of stock | is never below zero, and with what is reserved of it adds up to what was put on sale |
//! | a step, a payment, a charge | belongs to a booking, and a reservation to a part of its plan |
//!
//! What one booking or one line must be is a pure function of what was read of it: [`check_booking`], [`check_line`]. What
//! has to be read, and in which order so that a booking under way is not taken for a wrong one, is in [`whole`].

pub mod whole;

use std::fmt;

use aws_config::SdkConfig;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use saga::{
    BookingId, Money, Outcome, PartName, PaymentReference, Price, Status, Step, StockLine, money::MoneyError,
    payment::State,
};
use store::{Entry, Header, HeaderStore, Headers, Journal, Ledger, Payments, StockTable, StoreError, Unreadable};

use crate::{Booking, Stack, StackError};

/// How many bookings, or lines of stock, are read at once.
const AT_ONCE: usize = 8;

/// Something that must never be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Of which kind.
    pub kind: Kind,
    /// The booking, line of stock or payment that it is about, such as `booking 5b7c…` or `flight LH400 on 2027-03-01`.
    pub about: String,
    /// What is so.
    pub says: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.says)
    }
}

/// The kinds of violation, each with a name that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Confirmed, and a part is not reserved.
    NotReserved,
    /// Confirmed, and payment decided otherwise, or for another amount.
    NotCharged,
    /// Confirmed, and the provider got another amount, or nothing.
    WrongCharge,
    /// The total in the header is not what it has to be.
    WrongTotal,
    /// Failed, and a part is reserved.
    StillReserved,
    /// Failed, and nobody can be sure that a late reserve of a part is refused.
    NotCancelled,
    /// Failed, and payment decided otherwise, or not at all.
    NotAborted,
    /// Failed, and the provider was paid.
    StillCharged,
    /// It ended, and its journal does not say so.
    NotRecorded,
    /// It needs an operator, and its journal does not say why.
    NotParked,
    /// It has not ended, and should have.
    NotEnded,
    /// It belongs to no booking, or to no part of its plan.
    Orphan,
    /// Stock is below zero.
    BelowZero,
    /// Stock and reservations do not add up to what was put on sale.
    Stock,
    /// Nobody wrote it so.
    Unreadable,
}

impl Kind {
    /// All of them.
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

    /// Its name, for programs.
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

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// When a booking has to have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// If it was accepted before this.
    pub of_before: Timestamp,
    /// Whether it will do that an operator was called.
    pub may_be_parked: bool,
}

/// What the tables hold on a booking.
#[derive(Clone, Debug)]
pub struct Books {
    /// Which booking.
    pub booking_id: BookingId,
    /// Its header, if there is one.
    pub header: Option<Header>,
    /// Its steps.
    pub journal: Vec<Entry>,
    /// Payment's decision.
    pub decision: State,
    /// What the provider has got for it, after all charges and refunds.
    pub paid: Option<Money>,
    /// Steps of it that cannot be read.
    pub unreadable: Vec<Unreadable>,
}

impl Books {
    /// The booking as its owner sees it, but for who travels; none without a header.
    pub fn booking(&self) -> Option<Booking> {
        let view = services::api::view(&travel::TRAVEL, self.header.as_ref()?, None, &self.journal);
        serde_json::from_value(view).ok() // it is what the API would show
    }
}

/// What a table holds on a line of stock.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// Who sells it.
    pub part: PartName,
    /// Which line. Its units do not matter.
    pub line: StockLine,
    /// How many units are available, and how many were put on sale; none if it is not on sale.
    pub units: Option<(i64, i64)>,
}

impl Books {
    fn entry(&self, step: Step) -> Option<&Entry> {
        self.journal.iter().find(|entry| entry.step == step)
    }

    fn outcome(&self, step: Step) -> Option<&Outcome> {
        self.entry(step)?.outcome.as_ref()
    }

    fn is_cancelled(&self, part: PartName) -> bool {
        matches!(self.outcome(Step::Cancel(part)), Some(Outcome::Cancelled { .. }))
    }

    /// The price of a part whose reservation stands: it was made, and not cancelled.
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

/// The stock that a part of a booking needs; none of a part that this program does not know, or cannot read.
fn lines_of(header: &Header, part: PartName) -> Vec<StockLine> {
    let contents = header.parts.get(part).map(|part| part.contents);
    let request = travel::part_type(part).zip(contents).map(|(part_type, contents)| part_type.request(&contents));
    request.and_then(Result::ok).map_or_else(Vec::new, |request| request.lines())
}

/// What is wrong with a booking: nothing, if all is well.
pub fn check_booking(books: &Books, ends: &Ends) -> Vec<Violation> {
    let mut wrong: Wrong = books.unreadable.iter().map(|item| (Kind::Unreadable, item.to_string())).collect();
    match &books.header {
        _ if !wrong.is_empty() => {} // what seems to be missing may stand in them
        None => wrong.push((Kind::Orphan, orphan(books))),
        Some(header) => {
            check_parts(books, header, &mut wrong);
            match header.status {
                Status::Confirmed => check_confirmed(books, header, &mut wrong),
                Status::Failed => check_failed(books, header, &mut wrong),
                Status::NeedsOperator => check_parked(books, ends, &mut wrong),
                Status::Pending | Status::Compensating if header.created_at < ends.of_before => {
                    let says = format!("not ended: {} since {:.3}", header.status, header.created_at);
                    wrong.push((Kind::NotEnded, says));
                }
                Status::Pending | Status::Compensating => {}
            }
        }
    }
    let about = format!("booking {}", books.booking_id);
    wrong.into_iter().map(|(kind, says)| Violation { kind, about: about.clone(), says }).collect()
}

type Wrong = Vec<(Kind, String)>;

fn orphan(books: &Books) -> String {
    let steps: Vec<_> = books.journal.iter().map(|entry| entry.step.to_string()).collect();
    let mut left = Vec::new();
    if !steps.is_empty() {
        left.push(format!("its journal has {}", steps.join(", ")));
    }
    if books.decision != State::Collecting {
        left.push(format!("payment's decision is {}", decision(&books.decision)));
    }
    let but = if left.is_empty() { String::new() } else { format!(", but {}", left.join(" and ")) };
    format!("there is no such booking{but}")
}

fn check_parts(books: &Books, header: &Header, wrong: &mut Wrong) {
    let names = header.parts.names();
    for entry in &books.journal {
        if let Step::Reserve(part) | Step::Cancel(part) = entry.step
            && !names.contains(&part)
        {
            wrong.push((Kind::Orphan, format!("{} is recorded, but {part} is not a part of it", entry.step)));
        }
    }
}

fn check_confirmed(books: &Books, header: &Header, wrong: &mut Wrong) {
    check_recorded(books, Step::Confirm, Status::Confirmed, wrong);
    let mut prices = Vec::new();
    for (part, _) in header.parts.iter() {
        match books.reserved(part) {
            Some(price) => prices.push(price),
            None => wrong.push((Kind::NotReserved, format!("confirmed, but {part} is not reserved"))),
        }
    }
    if prices.len() < header.parts.names().len() {
        return;
    }
    match sum(prices) {
        Err(error) => wrong.push((Kind::NotCharged, format!("confirmed, but its prices have no sum: {error}"))),
        Ok(sum) => {
            if !matches!(books.decision, State::Charged { amount, .. } if amount == sum) {
                let decision = decision(&books.decision);
                wrong.push((Kind::NotCharged, format!("confirmed at {sum}, but payment's decision is {decision}")));
            }
            if books.paid != Some(sum) {
                let paid = shown(books.paid);
                wrong.push((Kind::WrongCharge, format!("confirmed at {sum}, but the provider was paid {paid}")));
            }
            if header.total != Some(sum) {
                let total = shown(header.total);
                wrong.push((Kind::WrongTotal, format!("confirmed at {sum}, but its total is {total}")));
            }
        }
    }
}

fn sum(prices: Vec<Price>) -> Result<Money, MoneyError> {
    let sum = prices.into_iter().map(Ok).reduce(|sum, price| sum?.plus(price?));
    sum.and_then(|sum| sum.map(Price::payable).transpose()).unwrap_or(Err(MoneyError::TooMuch))
}

fn check_failed(books: &Books, header: &Header, wrong: &mut Wrong) {
    check_recorded(books, Step::Fail, Status::Failed, wrong);
    for (part, _) in header.parts.iter() {
        if books.reserved(part).is_some() {
            wrong.push((Kind::StillReserved, format!("failed, but {part} is still reserved")));
        } else if !books.is_cancelled(part) {
            wrong.push((Kind::NotCancelled, format!("failed, but {} is not recorded", Step::Cancel(part))));
        }
    }
    if !matches!(books.decision, State::Declined | State::Aborted { .. }) {
        let decision = decision(&books.decision);
        wrong.push((Kind::NotAborted, format!("failed, but payment's decision is {decision}")));
    }
    if books.paid.is_some() {
        wrong.push((Kind::StillCharged, format!("failed, but the provider was paid {}", shown(books.paid))));
    }
    if header.total.is_some() {
        wrong.push((Kind::WrongTotal, format!("failed, but its total is {}", shown(header.total))));
    }
}

fn check_parked(books: &Books, ends: &Ends, wrong: &mut Wrong) {
    if !ends.may_be_parked {
        wrong.push((Kind::NotEnded, format!("not ended: {}", Status::NeedsOperator)));
    }
    if !matches!(books.outcome(Step::Park), Some(Outcome::Parked { .. })) {
        let status = Status::NeedsOperator;
        wrong.push((Kind::NotParked, format!("{status}, but {} is not recorded", Step::Park)));
    }
}

/// Header and journal item are one transaction. The outcome is called as the status is.
fn check_recorded(books: &Books, step: Step, status: Status, wrong: &mut Wrong) {
    if books.outcome(step).map(Outcome::name) != Some(status.name()) {
        wrong.push((Kind::NotRecorded, format!("{status}, but {step} is not recorded")));
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

/// How many units of a line were reserved when the line was read, as the journal tells later on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// By the reservations that stand.
    pub stands: i64,
    /// Of those: by steps so late that the line may have been read before them.
    pub lately: i64,
    /// And by reservations that were taken back so late that the line may have been read before that.
    pub given_back_lately: i64,
}

/// What is to be said of a line of stock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Right,
    /// It may well be, but units of it were sold or given back just when it was read.
    InMotion(String),
    /// This is wrong.
    Wrong(Violation),
}

/// What is to be said of a line of stock. Where the journal of old bookings is gone, lines may have been sold of which it
/// knows nothing: it `is_whole` where that cannot be.
pub fn check_line(shelf: &Shelf, reserved: Reserved, is_whole: bool) -> Verdict {
    let Shelf { part, line, units } = shelf;
    let about = format!("{part} {line}");
    let Reserved { stands, lately, given_back_lately } = reserved;
    let wrong = |kind, says| Verdict::Wrong(Violation { kind, about: about.clone(), says });
    let (available, seeded) = units.unwrap_or((0, 0));
    if available < 0 {
        return wrong(Kind::BelowZero, format!("{available} available"));
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
        wrong(Kind::Stock, says)
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
    /// An audit of this stack, reached with this configuration.
    pub fn of(stack: &Stack, sdk: &SdkConfig) -> Result<Self, StackError> {
        let client = store::patient_client(sdk);
        let (bookings, journal_table) = (stack.bookings_table()?, stack.journal_table()?);
        let (payments, ledger) = (stack.payments_table()?, stack.provider_ledger_table()?);
        let journal = Journal::new(client.clone(), journal_table, 1); // not written to here
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

    /// All violations, of these bookings and then of these lines of stock; none if all is well. The bookings have to be
    /// all those that may have reserved some of the lines, and none of them may be under way or need an operator.
    pub async fn run(
        &self,
        bookings: impl IntoIterator<Item = &BookingId>,
        lines: impl IntoIterator<Item = (PartName, StockLine)>,
    ) -> Result<Vec<String>, StoreError> {
        let books = stream::iter(bookings).map(async |id| if_readable(format!("booking {id}"), self.books(id).await));
        let (books, mut wrong) = separate(books.buffered(AT_ONCE).try_collect().await?);
        let shelves = stream::iter(lines).map(async |(part, line)| {
            let about = format!("{part} {line}");
            if_readable(about, self.shelf(part, line).await)
        });
        let (shelves, unreadable) = separate(shelves.buffered(AT_ONCE).try_collect().await?);
        wrong.extend(unreadable);
        let ends = Ends { of_before: Timestamp::MAX, may_be_parked: false };
        wrong.extend(books.iter().flat_map(|books| check_booking(books, &ends)));
        for shelf in &shelves {
            let stands = books.iter().map(|books| books.units(shelf.part, &shelf.line)).sum();
            if let Verdict::Wrong(violation) = check_line(shelf, Reserved { stands, ..Reserved::default() }, true) {
                wrong.push(violation);
            }
        }
        Ok(wrong.iter().map(Violation::to_string).collect())
    }

    /// A booking as its owner sees it, but for who travels; none if there is none.
    pub async fn booking(&self, booking_id: &BookingId) -> Result<Option<Booking>, StoreError> {
        Ok(self.books(booking_id).await?.booking())
    }

    /// What the tables hold on a booking. The header comes first: what follows from it is already there then, and is read.
    async fn books(&self, booking_id: &BookingId) -> Result<Books, StoreError> {
        let header = self.headers.get(booking_id).await?;
        let paid = match &header {
            Some(header) => {
                let reference = PaymentReference::derive(booking_id, &header.request_digest);
                self.ledger.paid(&reference).await?.map(|paid| paid.amount)
            }
            None => None,
        };
        let (journal, unreadable) = self.journal.entries(booking_id).await?;
        Ok(Books {
            booking_id: booking_id.clone(),
            header,
            journal,
            decision: self.payments.state(booking_id).await?,
            paid,
            unreadable,
        })
    }

    async fn shelf(&self, part: PartName, line: StockLine) -> Result<Shelf, StoreError> {
        let mut units = None;
        for (_, table) in self.stock.iter().filter(|(of, _)| *of == part) {
            units = table.available(&line).await?;
        }
        Ok(Shelf { part, line, units })
    }
}

/// What was read, or the violation that it cannot be: that hides no other.
fn if_readable<T>(about: String, read: Result<T, StoreError>) -> Result<Result<T, Violation>, StoreError> {
    match read {
        Err(StoreError::Corrupt { cause, .. }) => {
            Ok(Err(Violation { kind: Kind::Unreadable, about, says: format!("cannot be read: {cause}") }))
        }
        read => read.map(Ok),
    }
}

fn separate<T>(read: Vec<Result<T, Violation>>) -> (Vec<T>, Vec<Violation>) {
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
