//! The idempotency table, read as the saga's log: one item per executed step.
//!
//! The attributes are those that Powertools for AWS Lambda uses for idempotency (`id`, `status`, `expiration`,
//! `in_progress_expiration`, `data`, `validation`), with the step as sort key, so that the log of one saga is one
//! query; `outcome`, `started_at` and `finished_at` are added for conditions and for people.
//! <https://docs.aws.amazon.com/powertools/python/latest/utilities/idempotency/>

use std::collections::HashSet;

use aws_sdk_dynamodb::{
    Client,
    types::{
        AttributeValue, ConditionCheck, Put, ReturnValuesOnConditionCheckFailure::AllOld, TransactWriteItem, Update,
    },
};
use jiff::{SignedDuration, Timestamp};
use saga::{BookingId, Outcome, Step};

use crate::{
    Commit, Cursor, Page, Recording, StoreError, Unreadable, tables,
    transaction::{Item, built, integer, number, string, text},
};

/// A step that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Begun<'a> {
    /// The booking that it belongs to.
    pub booking_id: &'a BookingId,
    /// Which step.
    pub step: Step,
    /// The digest of the command.
    pub validation: &'a str,
    /// When it began.
    pub started_at: Timestamp,
}

/// One executed step, to be written.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What was begun.
    pub begun: Begun<'a>,
    /// What it answers.
    pub outcome: &'a Outcome,
    /// When it was done.
    pub finished_at: Timestamp,
}

/// One executed step, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which step.
    pub step: Step,
    /// What it answered; none while it is in progress.
    pub outcome: Option<Outcome>,
    /// The digest of the command.
    pub validation: String,
    /// When it began, RFC 3339 in UTC.
    pub started_at: String,
    /// When it was done.
    pub finished_at: Option<String>,
    /// While it is in progress: when another worker may take over, in milliseconds since 1970.
    pub lease_ends: Option<i64>,
}

/// The journal's table.
#[derive(Clone, Debug)]
pub struct Journal {
    client: Client,
    table: String,
    retention: SignedDuration,
}

/// RFC 3339 in UTC with milliseconds: always of the same length, so that it sorts as text.
pub(crate) fn time(time: Timestamp) -> String {
    format!("{time:.3}")
}

const COMPLETED: &str = "COMPLETED";
const IN_PROGRESS: &str = "INPROGRESS";

impl Journal {
    /// The journal in this table, whose items expire after so many days. An item must not expire while its saga, or a
    /// repeat of one of its messages, can still come.
    pub fn new(client: Client, table: impl Into<String>, retention_days: u32) -> Self {
        Self { client, table: table.into(), retention: SignedDuration::from_hours(24 * i64::from(retention_days)) }
    }

    /// All steps of a booking, in the order in which they began, and those that cannot be read.
    pub async fn entries(&self, booking_id: &BookingId) -> Result<(Vec<Entry>, Vec<Unreadable>), StoreError> {
        const READ: &str = "reading the journal";
        let mut pages = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("id = :id")
            .expression_attribute_values(":id", string(booking_id.as_str()))
            .consistent_read(true)
            .into_paginator()
            .items()
            .send();
        let (mut entries, mut unreadable) = (Vec::new(), Vec::new());
        while let Some(item) = pages.next().await {
            let item = item.map_err(|error| StoreError::unavailable(READ, error))?;
            match tables::read(&item, &KEY, entry) {
                Ok(entry) => entries.push(entry),
                Err(item) => unreadable.push(item),
            }
        }
        entries.sort_by(|a, b| a.started_at.cmp(&b.started_at));
        Ok((entries, unreadable))
    }

    /// A page of all items, of at most `limit` if given: of which booking, and which step. The steps of a booking come one
    /// after the other, because a table keeps together what has the same partition key.
    pub async fn page(&self, from: Option<Cursor>, limit: Option<i32>) -> Result<Page<(String, Entry)>, StoreError> {
        let read = |item: &Item| Ok((text("reading the journal", item, "id")?.to_owned(), entry(item)?));
        tables::page(&self.client, &self.table, &KEY, from, limit, read).await
    }

    /// Those of these bookings, each named once with a step, whose step is recorded.
    pub async fn recorded(&self, steps: &[(&str, Step)]) -> Result<HashSet<String>, StoreError> {
        let keys = steps.iter().map(|(id, step)| key(id, *step)).collect();
        let items = tables::items(&self.client, &self.table, keys).await?;
        items.iter().map(|item| text("reading the journal", item, "id").map(str::to_owned)).collect()
    }

    /// Writes an outcome and nothing else, if none is recorded.
    pub(crate) async fn record(
        &self,
        operation: &'static str,
        record: &Record<'_>,
    ) -> Result<Commit<Recording>, StoreError> {
        let request = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(self.item(record)))
            .condition_expression(ABSENT)
            .return_values_on_condition_check_failure(AllOld);
        match request.send().await {
            Ok(_) => Ok(Commit::Done),
            Err(error) => match error.as_service_error() {
                Some(aws_sdk_dynamodb::operation::put_item::PutItemError::ConditionalCheckFailedException(failed)) => {
                    match failed.item().map(recording).transpose()?.flatten() {
                        Some(found) => Ok(Commit::Found(found)),
                        None => Err(StoreError::corrupt(operation, "a step is in progress that is never left so")),
                    }
                }
                _ => Err(StoreError::unavailable(operation, error)),
            },
        }
    }

    /// As part of a transaction: writes the outcome, if none is recorded.
    pub(crate) fn put_if_absent(&self, record: &Record<'_>) -> Result<TransactWriteItem, StoreError> {
        self.put(self.item(record), Some(ABSENT))
    }

    /// As part of a transaction: writes the outcome, whatever is recorded.
    pub(crate) fn put_again(&self, record: &Record<'_>) -> Result<TransactWriteItem, StoreError> {
        self.put(self.item(record), None)
    }

    /// As part of a transaction: a step begins that takes a while, if it is not recorded.
    pub(crate) fn begin(&self, begun: &Begun<'_>, lease_ends: i64) -> Result<TransactWriteItem, StoreError> {
        let mut item = self.begun(begun, begun.started_at);
        item.insert("status".into(), string(IN_PROGRESS));
        item.insert("in_progress_expiration".into(), number(lease_ends));
        self.put(item, Some(ABSENT))
    }

    /// As part of a transaction: takes over a lease, if this end of it is still the last.
    pub(crate) fn take_over(
        &self,
        begun: &Begun<'_>,
        ended: i64,
        lease_ends: i64,
    ) -> Result<TransactWriteItem, StoreError> {
        let is_the_last = "#status = :in_progress AND in_progress_expiration = :ended";
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key(begun.booking_id.as_str(), begun.step)))
            .update_expression("SET in_progress_expiration = :ends")
            .condition_expression(is_the_last)
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":in_progress", string(IN_PROGRESS))
            .expression_attribute_values(":ended", number(ended))
            .expression_attribute_values(":ends", number(lease_ends))
            .return_values_on_condition_check_failure(AllOld);
        built(update.build().map(|update| TransactWriteItem::builder().update(update).build()))
    }

    /// Ends a lease early, if it is still ours.
    pub(crate) async fn release(
        &self,
        booking_id: &BookingId,
        step: Step,
        lease_ends: i64,
        now: i64,
    ) -> Result<(), StoreError> {
        let is_ours = "#status = :in_progress AND in_progress_expiration = :ours";
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(booking_id.as_str(), step)))
            .update_expression("SET in_progress_expiration = :now")
            .condition_expression(is_ours)
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":in_progress", string(IN_PROGRESS))
            .expression_attribute_values(":ours", number(lease_ends))
            .expression_attribute_values(":now", number(now));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) => Ok(()),
            Err(error) => Err(StoreError::unavailable("releasing the lease", error)),
        }
    }

    /// As part of a transaction: completes a step that is in progress, whoever began it.
    pub(crate) fn complete(&self, record: &Record<'_>) -> Result<TransactWriteItem, StoreError> {
        let mut item = self.item(record);
        let mut value = |name: &str| item.remove(name).unwrap_or_else(|| AttributeValue::Null(true)); // all are in an item
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key(record.begun.booking_id.as_str(), record.begun.step)))
            .update_expression(
                "SET #status = :completed, outcome = :outcome, #data = :data, finished_at = :finished, \
                 expiration = :expiration REMOVE in_progress_expiration",
            )
            .condition_expression("#status = :in_progress")
            .expression_attribute_names("#status", "status")
            .expression_attribute_names("#data", "data")
            .expression_attribute_values(":in_progress", string(IN_PROGRESS))
            .expression_attribute_values(":completed", string(COMPLETED))
            .expression_attribute_values(":outcome", value("outcome"))
            .expression_attribute_values(":data", value("data"))
            .expression_attribute_values(":finished", value("finished_at"))
            .expression_attribute_values(":expiration", value("expiration"))
            .return_values_on_condition_check_failure(AllOld);
        built(update.build().map(|update| TransactWriteItem::builder().update(update).build()))
    }

    /// As part of a transaction: requires that this step is recorded with this outcome and the digest that it has begun
    /// with.
    pub(crate) fn require(&self, begun: &Begun<'_>, outcome: &str) -> Result<TransactWriteItem, StoreError> {
        let check = ConditionCheck::builder()
            .table_name(&self.table)
            .set_key(Some(key(begun.booking_id.as_str(), begun.step)))
            .condition_expression("outcome = :outcome AND #validation = :validation")
            .expression_attribute_names("#validation", "validation")
            .expression_attribute_values(":outcome", string(outcome))
            .expression_attribute_values(":validation", string(begun.validation))
            .return_values_on_condition_check_failure(AllOld);
        built(check.build().map(|check| TransactWriteItem::builder().condition_check(check).build()))
    }

    fn put(&self, item: Item, condition: Option<&str>) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item))
            .set_condition_expression(condition.map(str::to_owned))
            .return_values_on_condition_check_failure(AllOld);
        built(put.build().map(|put| TransactWriteItem::builder().put(put).build()))
    }

    fn item(&self, record: &Record<'_>) -> Item {
        // Numbers, strings and maps of them: always representable.
        let data = serde_json::to_string(record.outcome).unwrap_or_default();
        let mut item = self.begun(&record.begun, record.finished_at);
        item.extend([
            ("status".into(), string(COMPLETED)),
            ("outcome".into(), string(record.outcome.name())),
            ("data".into(), string(data)),
            ("finished_at".into(), string(time(record.finished_at))),
        ]);
        item
    }

    /// What is known of a step when it begins; it is kept for as long after this time as the table keeps items.
    fn begun(&self, begun: &Begun<'_>, written_at: Timestamp) -> Item {
        let expires = written_at.saturating_add(self.retention).unwrap_or(Timestamp::MAX);
        let mut item = key(begun.booking_id.as_str(), begun.step);
        item.extend([
            ("validation".into(), string(begun.validation)),
            ("started_at".into(), string(time(begun.started_at))),
            ("expiration".into(), number(expires.as_second())),
        ]);
        item
    }
}

/// A step is recorded under its key or not at all.
const ABSENT: &str = "attribute_not_exists(id)";

const KEY: [&str; 2] = ["id", "step"];

fn key(id: &str, step: Step) -> Item {
    Item::from([("id".into(), string(id)), ("step".into(), string(step.to_string()))])
}

/// The outcome that an item holds; none while its step is in progress.
pub(crate) fn recording(item: &Item) -> Result<Option<Recording>, StoreError> {
    let entry = entry(item)?;
    Ok(entry.outcome.map(|outcome| Recording { outcome, validation: entry.validation }))
}

pub(crate) fn entry(item: &Item) -> Result<Entry, StoreError> {
    const READ: &str = "reading a journal item";
    let outcome = match text(READ, item, "status")? {
        IN_PROGRESS => None,
        COMPLETED => {
            let data = serde_json::from_str(text(READ, item, "data")?);
            Some(data.map_err(|error| StoreError::corrupt(READ, error.to_string()))?)
        }
        other => return Err(StoreError::corrupt(READ, format!("status {other}"))),
    };
    Ok(Entry {
        step: Step::try_from(text(READ, item, "step")?.to_owned()).map_err(|error| StoreError::corrupt(READ, error))?,
        validation: text(READ, item, "validation")?.to_owned(),
        started_at: text(READ, item, "started_at")?.to_owned(),
        finished_at: if outcome.is_some() { Some(text(READ, item, "finished_at")?.to_owned()) } else { None },
        lease_ends: integer(READ, item, "in_progress_expiration")?,
        outcome,
    })
}
