//! The audit of a whole stack, while it is in use.
//!
//! Nothing locks the tables while they are read, so the order matters. Each read relies on this: headers are written
//! first and never deleted, a recorded step stays recorded, and an end is final:
//!
//! ```text
//!   1. stock       a page at a time ──▶ available and seeded of each line
//!   2. ledger      the charged payments: all have headers by now
//!   3. journal     booking by booking, with header, decision and charge ──▶ check_booking, reservations of each line
//!   4. headers     those without a journal, those that are open ──▶ check_booking
//!   5. payments    those without a header
//!   6. each line   available + reservations = seeded?
//! ```
//!
//! *A booking* may change between two reads of it. If something seems wrong it is read once more, header first:
//! whatever its status promises was written before the status, so it is found if it exists at all. *A line* is read
//! before the journal. So every reservation counted in the line is in the journal, and what was recorded later shows it
//! by its time: within these bounds the line is *in motion*, and only outside of them it is wrong.
//!
//! Memory holds a page of each table, the stock lines, and a limited number of charges at once
//! ([`AuditOptions::charges`]).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem,
    time::{Duration, Instant},
};

use futures_util::future::try_join;
use jiff::{SignedDuration, Timestamp, civil::Date};
use saga::{BookingId, PartName, PaymentReference, Status, Step, StockLine, payment::State};
use store::{Cursor, Header, JournalEntry, LedgerEntry, StoreError, UnreadableItem};

use super::{
    Audit, AuditViolation, BookingRecords, Deadline, ReservedUnits, StockRecord, Verdict, ViolationKind, check_booking,
    check_line, lines_of,
};

/// How long before a line was read a step may claim to have finished, and yet have been written afterwards: a function
/// lives for ten seconds at most, and clocks differ.
const LATE: SignedDuration = SignedDuration::from_secs(30);

/// How long a booking may be pending beyond the age at which it is driven again: a step that must succeed is tried for
/// a quarter of an hour before it is given up, and three of them may follow one another.
pub const SLACK: SignedDuration = SignedDuration::from_hours(1);

/// How to audit a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    pub deadline: Deadline,
    /// Whether nothing is under way. Then nothing can be in motion either.
    pub is_at_rest: bool,
    /// Bookings that were accepted before this time may have lost their journals, and are not checked.
    pub journal_since: Timestamp,
    /// How many items to read at once; none for as many as fit into a megabyte, which is the maximum.
    pub page: Option<i32>,
    /// How many charges to keep in memory at once. If there are more, the headers are read once more for each batch.
    pub charges: usize,
}

impl AuditOptions {
    /// How many charges are kept in memory by default: some 8 MB.
    pub const CHARGES: usize = 1 << 18;
}

/// A result of the audit.
#[derive(Debug)]
pub enum Finding<'f> {
    /// Violations that belong together, with what the tables hold about their booking, if they are about one.
    Wrong(&'f [AuditViolation], Option<&'f BookingRecords>),
    /// A stock line that is in motion.
    InMotion(&'f str),
}

/// The result of an audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// How many bookings there are in each status.
    pub bookings: [(Status, u64); 4],
    /// How many of those were not checked, because their journals may have expired.
    pub expired: u64,
    /// How many stock lines there are.
    pub lines: u64,
    /// How many of those were in motion.
    pub in_motion: u64,
    pub journal_items: u64,
    pub violations: u64,
    pub took: Duration,
}

/// Why a stack cannot be audited.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("there is no table {0}: deploy template.yaml again, or check that region and account are the stack's")]
    NoTable(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A stock line, and what is reserved of it.
#[derive(Debug, Default)]
struct Line {
    units: Option<(i64, i64)>,
    reserved: ReservedUnits,
}

/// The state of one audit.
struct Run<'a, T, P> {
    audit: &'a Audit,
    reading: AuditOptions,
    /// When the first line was read, minus some time.
    late: Timestamp,
    lines: HashMap<(PartName, String, Option<Date>), Line>,
    report: AuditReport,
    on_finding: T,
    progress: P,
}

const STATUSES: [Status; 4] = [Status::Confirmed, Status::Failed, Status::Pending, Status::NeedsOperator];

impl Audit {
    /// Approximately how many items the tables have.
    pub async fn size(&self) -> Result<u64, AuditError> {
        let mut size = 0;
        for table in &self.tables {
            let count = store::count(&self.client, table).await?;
            size += count.ok_or_else(|| AuditError::NoTable(table.clone()))?;
        }
        Ok(size)
    }

    /// Audits everything. `on_finding` gets each finding immediately, `progress` the number of further items read.
    pub async fn whole<E: From<AuditError>>(
        &self,
        reading: AuditOptions,
        on_finding: impl FnMut(Finding<'_>) -> Result<(), E>,
        progress: impl Fn(u64),
    ) -> Result<AuditReport, E> {
        let started = Instant::now();
        let late = Timestamp::now().saturating_sub(LATE).unwrap_or(Timestamp::MIN);
        let report = AuditReport {
            bookings: STATUSES.map(|status| (status, 0)),
            expired: 0,
            lines: 0,
            in_motion: 0,
            journal_items: 0,
            violations: 0,
            took: Duration::ZERO,
        };
        let mut run = Run { audit: self, reading, late, lines: HashMap::new(), report, on_finding, progress };
        run.read_stock().await?;
        let mut charges = run.read_charges(None).await?;
        run.read_journal().await?;
        run.read_headers(&mut charges.references).await?;
        loop {
            run.check_charges(&charges.references).await?;
            let Some(next) = charges.next else { break };
            charges = run.read_charges(Some(next)).await?;
            run.read_headers_for(&mut charges.references).await?;
        }
        run.read_payments().await?;
        run.check_lines()?;
        run.report.took = started.elapsed();
        Ok(run.report)
    }
}

/// Payment references as the numbers that their 32 digits stand for: a fifth of the size of their texts.
type References = HashSet<u128>;

/// Some of the charged payments.
struct Charges {
    references: References,
    /// Where the next ones start.
    next: Option<Cursor>,
}

impl<E: From<AuditError>, T: FnMut(Finding<'_>) -> Result<(), E>, P: Fn(u64)> Run<'_, T, P> {
    fn found(&mut self, violations: &[AuditViolation], records: Option<&BookingRecords>) -> Result<(), E> {
        if violations.is_empty() {
            return Ok(());
        }
        self.report.violations += violations.len() as u64;
        (self.on_finding)(Finding::Wrong(violations, records))
    }

    fn one(&mut self, kind: ViolationKind, about: String, says: impl Into<String>) -> Result<(), E> {
        self.found(&[AuditViolation { kind, about, says: says.into() }], None)
    }

    fn unreadable(&mut self, of: &str, item: &UnreadableItem) -> Result<(), E> {
        self.one(ViolationKind::Unreadable, format!("{of} {}", item.key), format!("cannot be read: {}", item.cause))
    }

    async fn read_stock(&mut self) -> Result<(), E> {
        for (part, table) in &self.audit.stock {
            let mut next = None;
            loop {
                let page = table.page(next, self.reading.page).await.map_err(AuditError::from)?;
                (self.progress)(page.items.len() as u64);
                for item in page.items {
                    self.report.lines += 1;
                    match item {
                        Ok(line) => {
                            let units = Some((line.available, line.seeded));
                            let key = (*part, line.product, line.date);
                            self.lines.insert(key, Line { units, ..Line::default() });
                        }
                        Err(item) => self.unreadable(part.as_str(), &item)?,
                    }
                }
                next = page.next;
                if next.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The charged payments from this position on, as many as fit into memory.
    async fn read_charges(&mut self, from: Option<Cursor>) -> Result<Charges, E> {
        let mut charges = Charges { references: References::new(), next: from };
        loop {
            let page = self.audit.ledger.page(charges.next, self.reading.page).await.map_err(AuditError::from)?;
            (self.progress)(page.items.len() as u64);
            for item in page.items {
                match item {
                    Ok(LedgerEntry { paid: None, .. }) => {} // a card is attached before the header is written
                    Ok(LedgerEntry { reference, paid: Some(paid) }) => {
                        match PaymentReference::try_from(reference.clone()) {
                            Ok(reference) => charges.references.extend(number(&reference)),
                            Err(error) => {
                                let says = format!(
                                    "the provider was paid {paid}, but this is not a payment reference: it {error}"
                                );
                                self.one(ViolationKind::Orphan, format!("payment {reference}"), says)?;
                            }
                        }
                    }
                    Err(item) => self.unreadable("payment", &item)?,
                }
            }
            charges.next = page.next;
            if charges.next.is_none() || charges.references.len() >= self.reading.charges {
                return Ok(charges);
            }
        }
    }

    async fn check_charges(&mut self, without_header: &References) -> Result<(), E> {
        for number in without_header {
            let about = format!("payment {number:032x}");
            let Ok(reference) = PaymentReference::try_from(format!("{number:032x}")) else { continue }; // always valid
            match self.audit.ledger.paid(&reference).await {
                Ok(None) => {}
                Ok(Some(paid)) => {
                    let says = format!("the provider was paid {}, but no booking has this payment", paid.amount);
                    self.one(ViolationKind::Orphan, about, says)?;
                }
                // It could be read a moment ago.
                Err(StoreError::Corrupt { cause, .. }) => {
                    self.one(ViolationKind::Unreadable, about, format!("cannot be read: {cause}"))?;
                }
                Err(error) => return Err(AuditError::from(error).into()),
            }
        }
        Ok(())
    }

    async fn read_journal(&mut self) -> Result<(), E> {
        let (mut next, mut last) = (None, None::<(String, Vec<JournalEntry>)>);
        loop {
            let page = self.audit.journal.page(next, self.reading.page).await.map_err(AuditError::from)?;
            self.report.journal_items += page.items.len() as u64;
            (self.progress)(page.items.len() as u64);
            let mut bookings = Vec::new();
            for item in page.items {
                match (item, &mut last) {
                    (Ok((id, entry)), Some((of, entries))) if *of == id => entries.push(entry),
                    (Ok((id, entry)), last) => bookings.extend(last.replace((id, vec![entry]))),
                    (Err(item), _) => self.unreadable("journal item", &item)?,
                }
            }
            next = page.next;
            // The last booking may continue on the next page.
            bookings.extend(if next.is_none() { last.take() } else { None });
            self.check_journals(bookings).await?;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// Checks the bookings with these steps, and adds up what they have reserved.
    async fn check_journals(&mut self, journals: Vec<(String, Vec<JournalEntry>)>) -> Result<(), E> {
        let mut of = BTreeMap::<String, Vec<JournalEntry>>::new();
        for (id, entries) in journals {
            of.entry(id).or_default().extend(entries);
        }
        let mut ids = Vec::with_capacity(of.len());
        for id in of.keys() {
            match BookingId::try_from(id.clone()) {
                Ok(id) => ids.push(id),
                Err(error) => self.one(
                    ViolationKind::Orphan,
                    format!("journal item {id}"),
                    format!("does not belong to a booking: its id {error}"),
                )?,
            }
        }
        let headers = self.audit.headers.of_all(&ids).await.map_err(AuditError::from)?;
        let mut headers = Read::of(headers, |header| header.booking_id.as_str().to_owned());
        let references: Vec<_> = headers.items.values().map(reference).collect();
        let reading = try_join(self.audit.payments.of_all(&ids), self.audit.ledger.of_all(&references));
        let (payments, charges) = reading.await.map_err(AuditError::from)?;
        let mut payments = Read::of(payments, |(id, _)| id.clone());
        let mut charges = Read::of(charges, |entry| entry.reference.clone());
        for booking_id in ids {
            let id = booking_id.as_str();
            let journal = of.remove(id).unwrap_or_default();
            let header = headers.items.remove(id);
            let reference = header.as_ref().map(reference);
            let reference = reference.as_ref().map(PaymentReference::as_str).unwrap_or_default();
            let is_unreadable =
                [(&headers.unreadable, id), (&payments.unreadable, id), (&charges.unreadable, reference)];
            let is_unreadable = is_unreadable.iter().any(|(unreadable, key)| unreadable.contains(*key));
            let decision = payments.items.remove(id).map_or(State::Collecting, |(_, state)| state);
            let paid = charges.items.remove(reference).and_then(|entry| entry.paid);
            let records = BookingRecords { booking_id, header, journal, decision, paid, unreadable: Vec::new() };
            if is_unreadable {
                self.add_reservations(&records); // reported where its table is read
            } else {
                self.check(records).await?;
            }
        }
        Ok(())
    }

    /// Checks a booking, and adds up what it has reserved. It may have changed while it was read: if it seems wrong it
    /// is read once more.
    async fn check(&mut self, records: BookingRecords) -> Result<(), E> {
        let records = if self.violations(&records).is_empty() { records } else { self.read_again(records).await? };
        self.add_reservations(&records);
        let mut violations = self.violations(&records);
        // Those are reported where all headers are read, as most of them have no journal.
        violations.retain(|violation| violation.kind != ViolationKind::NotEnded);
        self.found(&violations, Some(&records))
    }

    async fn read_again(&self, records: BookingRecords) -> Result<BookingRecords, E> {
        match self.audit.records(&records.booking_id).await {
            Ok(again) => Ok(again),
            Err(StoreError::Corrupt { .. }) => Ok(records), // reported where its table is read
            Err(error) => Err(AuditError::from(error).into()),
        }
    }

    fn violations(&self, records: &BookingRecords) -> Vec<AuditViolation> {
        let is_expired = records.header.as_ref().is_some_and(|header| self.is_expired(header));
        let mut violations = if is_expired { Vec::new() } else { check_booking(records, &self.reading.deadline) };
        violations.retain(|violation| violation.kind != ViolationKind::Unreadable); // reported where its table is read
        violations
    }

    fn is_expired(&self, header: &Header) -> bool {
        header.created_at < self.reading.journal_since && header.status.is_settled()
    }

    fn is_late(&self, records: &BookingRecords, step: Step) -> bool {
        let finished_at = records.entry(step).and_then(|entry| entry.finished_at.as_deref());
        let finished_at = finished_at.and_then(|time| time.parse::<Timestamp>().ok());
        !self.reading.is_at_rest && finished_at.is_some_and(|finished_at| finished_at >= self.late)
    }

    /// Adds what a booking has reserved, or had reserved just before, to the lines.
    fn add_reservations(&mut self, records: &BookingRecords) {
        let Some(header) = &records.header else { return };
        for (part, _) in header.parts.iter() {
            let (reserve, cancel) = (Step::Reserve(part), Step::Cancel(part));
            let stands = records.reserved(part).is_some();
            let was_reserved = matches!(records.outcome(reserve), Some(saga::Outcome::Reserved { .. }));
            if !was_reserved || (!stands && !self.is_late(records, cancel)) {
                continue;
            }
            let is_late = stands && self.is_late(records, reserve);
            for StockLine { product, date, units } in lines_of(header, part) {
                let reserved = &mut self.lines.entry((part, product, date)).or_default().reserved;
                let units = i64::from(units);
                if stands {
                    reserved.stands += units;
                } else {
                    reserved.given_back_lately += units;
                }
                if is_late {
                    reserved.lately += units;
                }
            }
        }
    }

    /// Counts all bookings, and checks those that are open or have no journal. Removes their payments from the charged
    /// ones.
    async fn read_headers(&mut self, charges: &mut References) -> Result<(), E> {
        let mut next = None;
        loop {
            let page = self.audit.headers.page(next, self.reading.page).await.map_err(AuditError::from)?;
            (self.progress)(page.items.len() as u64);
            let mut ended = Vec::new();
            for item in page.items {
                let header = match item {
                    Ok(header) => header,
                    Err(item) => {
                        self.unreadable("booking", &item)?;
                        continue;
                    }
                };
                number(&reference(&header)).map(|number| charges.remove(&number));
                let counts = self.report.bookings.iter_mut().filter(|(status, _)| *status == header.status);
                counts.for_each(|(_, count)| *count += 1);
                if self.is_expired(&header) {
                    self.report.expired += 1;
                } else if let Some(step) = end_of(header.status) {
                    ended.push((header, step));
                } else if header.created_at < self.reading.deadline.accepted_before {
                    self.check_without_journal(header, |kind, _| kind == ViolationKind::NotEnded).await?;
                }
            }
            let steps: Vec<_> = ended.iter().map(|(header, step)| (header.booking_id.as_str(), *step)).collect();
            let recorded = self.audit.journal.recorded(&steps).await.map_err(AuditError::from)?;
            ended.retain(|(header, _)| !recorded.contains(header.booking_id.as_str()));
            for (header, _) in ended {
                // If there is a journal, the booking is already checked.
                self.check_without_journal(header, |_, records| records.journal.is_empty()).await?;
            }
            next = page.next;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads a booking and reports the violations that satisfy `is_reported`.
    async fn check_without_journal(
        &mut self,
        header: Header,
        is_reported: fn(ViolationKind, &BookingRecords) -> bool,
    ) -> Result<(), E> {
        let unread = BookingRecords {
            booking_id: header.booking_id.clone(),
            header: Some(header),
            journal: Vec::new(),
            decision: State::Collecting,
            paid: None,
            unreadable: Vec::new(),
        };
        let records = self.read_again(unread).await?;
        let mut violations = self.violations(&records);
        violations.retain(|violation| is_reported(violation.kind, &records));
        self.found(&violations, Some(&records))
    }

    /// Removes the payments of all bookings from the charged ones.
    async fn read_headers_for(&self, charges: &mut References) -> Result<(), E> {
        let mut next = None;
        loop {
            let page = self.audit.headers.page(next, self.reading.page).await.map_err(AuditError::from)?;
            for header in page.items.into_iter().flatten() {
                number(&reference(&header)).map(|number| charges.remove(&number));
            }
            next = page.next;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    async fn read_payments(&mut self) -> Result<(), E> {
        let mut next = None;
        loop {
            let page = self.audit.payments.page(next, self.reading.page).await.map_err(AuditError::from)?;
            (self.progress)(page.items.len() as u64);
            let mut ids = Vec::new();
            for item in page.items {
                match item.map(|(id, _)| BookingId::try_from(id)) {
                    Ok(Ok(id)) => ids.push(id),
                    Ok(Err(error)) => {
                        self.one(
                            ViolationKind::Orphan,
                            "payment record".into(),
                            format!("does not belong to a booking: its id {error}"),
                        )?;
                    }
                    Err(item) => self.unreadable("payment record", &item)?,
                }
            }
            let headers = self.audit.headers.of_all(&ids).await.map_err(AuditError::from)?;
            let headers = Read::of(headers, |header| header.booking_id.as_str().to_owned());
            for id in ids {
                if headers.items.contains_key(id.as_str()) || headers.unreadable.contains(id.as_str()) {
                    continue;
                }
                // If there is a journal, it was reported there.
                let (journal, unreadable) = self.audit.journal.entries(&id).await.map_err(AuditError::from)?;
                if journal.is_empty() && unreadable.is_empty() {
                    let says = "there is no such booking, but a payment record";
                    self.one(ViolationKind::Orphan, format!("booking {id}"), says)?;
                }
            }
            next = page.next;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    fn check_lines(&mut self) -> Result<(), E> {
        let today = traveller::trip::today();
        let mut lines: Vec<_> = mem::take(&mut self.lines).into_iter().collect();
        lines.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for ((part, product, date), Line { units, reserved }) in lines {
            // Only journals of past trips can have expired.
            let is_whole = self.report.expired == 0 || date.is_none_or(|date| date >= today);
            let stock_record = StockRecord { part, line: StockLine { product, date, units: 0 }, units };
            match check_line(&stock_record, reserved, is_whole) {
                Verdict::Right => {}
                Verdict::InMotion(says) => {
                    self.report.in_motion += 1;
                    (self.on_finding)(Finding::InMotion(&says))?;
                }
                Verdict::Wrong(violation) => self.found(&[violation], None)?,
            }
        }
        Ok(())
    }
}

/// Items that were read by their keys.
struct Read<T> {
    items: HashMap<String, T>,
    unreadable: HashSet<String>,
}

impl<T> Read<T> {
    fn of(items: Vec<Result<T, UnreadableItem>>, key: impl Fn(&T) -> String) -> Self {
        let mut read = Self { items: HashMap::with_capacity(items.len()), unreadable: HashSet::new() };
        for item in items {
            match item {
                Ok(item) => _ = read.items.insert(key(&item), item),
                Err(item) => _ = read.unreadable.insert(item.key),
            }
        }
        read
    }
}

/// A payment reference as a number.
fn number(reference: &PaymentReference) -> Option<u128> {
    u128::from_str_radix(reference.as_str(), 16).ok()
}

fn reference(header: &Header) -> PaymentReference {
    PaymentReference::derive(&header.booking_id, &header.request_digest)
}

/// The step that is recorded in the same transaction as this status.
fn end_of(status: Status) -> Option<Step> {
    match status {
        Status::Confirmed => Some(Step::Confirm),
        Status::Failed => Some(Step::Fail),
        Status::NeedsOperator => Some(Step::Park),
        Status::Pending | Status::Compensating => None,
    }
}
