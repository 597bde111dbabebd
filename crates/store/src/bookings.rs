//! Booking headers: one item per booking. Those that have not ended are also in an index, spread over 16 shards by the
//! first digit of their id, so that not every booking writes to the same partition of the index.

use aws_sdk_dynamodb::{
    Client,
    operation::update_item::UpdateItemError,
    types::{AttributeValue, Put, ReturnValue, ReturnValuesOnConditionCheckFailure::AllOld, TransactWriteItem, Update},
};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use saga::{
    BookingId, Claim, Customer, Money, Owner, PartName, Parts, PaymentReference, Plan, Reason, Status, Step, Variant,
};

use crate::{
    BookingStore, ClaimStore, Commit, Cursor, End, GivenBack, HeaderFound, HeaderStore, IntakeStore, Journal, Page,
    Record, StoreError, UnreadableItem,
    journal::{recorded_outcome, time},
    tables,
    transaction::{Item, built, from_json, integer, json, number, string, text, write},
};

/// What is known about a booking as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The booking's id.
    pub booking_id: BookingId,
    /// The digest of its request, to tell a repeat from another request.
    pub request_digest: String,
    /// The variant that carries the booking out.
    pub variant: Variant,
    /// The stored status; never `compensating`, which follows from the journal.
    pub status: Status,
    /// The caller who made the booking, and who alone may see it.
    pub owner: Owner,
    /// The parts of the booking, each with its contents.
    pub parts: Parts,
    /// The amount paid; none unless the booking is confirmed.
    pub total: Option<Money>,
    /// The first failure; none if there was none.
    pub reason: Option<Reason>,
    /// The claim on its latest start.
    pub claim: Claim,
    /// When the booking was accepted.
    pub created_at: Timestamp,
    /// When its status last changed.
    pub updated_at: Timestamp,
}

impl Header {
    /// What participants need to know about the booking.
    pub fn plan(&self) -> Plan {
        Plan::new(self.parts.clone(), PaymentReference::derive(&self.booking_id, &self.request_digest))
    }
}

/// A header as a repeated request finds it. The fields needed to answer that request are available even if the rest
/// cannot be read because a newer program wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The booking's id.
    pub booking_id: BookingId,
    /// The digest of its request, to tell a repeat from another request.
    pub request_digest: String,
    /// The variant that carries the booking out.
    pub variant: Variant,
    /// The stored status.
    pub status: Status,
    /// The whole header, or why it cannot be read.
    pub header: Result<Header, UnreadableItem>,
}

/// The table of headers.
#[derive(Clone, Debug)]
pub struct Headers {
    client: Client,
    table: String,
}

/// The table of headers, with the table of customers. Their names and addresses are kept nowhere else.
#[derive(Clone, Debug)]
pub struct Intake {
    headers: Headers,
    customers: String,
    retention: SignedDuration,
}

/// The table of headers, with the journal that belongs to it.
#[derive(Clone, Debug)]
pub struct Bookings {
    client: Client,
    table: String,
    journal: Journal,
}

impl Headers {
    /// The headers in this table.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    async fn item(&self, booking_id: &BookingId) -> Result<Option<Item>, StoreError> {
        let request = self.client.get_item().table_name(&self.table).key("booking_id", string(booking_id.as_str()));
        let answer = request.consistent_read(true).send().await;
        Ok(answer.map_err(|error| StoreError::unavailable("reading a booking", error))?.item)
    }

    /// A page of all headers, at most `limit` if given.
    pub async fn page(&self, from: Option<Cursor>, limit: Option<i32>) -> Result<Page<Header>, StoreError> {
        tables::page(&self.client, &self.table, &KEY, from, limit, header).await
    }

    /// The headers of these bookings, in any order. Each booking may be named once. Bookings without a header are left
    /// out.
    pub async fn of_all(&self, bookings: &[BookingId]) -> Result<Vec<Result<Header, UnreadableItem>>, StoreError> {
        let keys = bookings.iter().map(|id| Item::from([("booking_id".into(), string(id.as_str()))])).collect();
        tables::each(&self.client, &self.table, &KEY, keys, header).await
    }
}

impl Intake {
    /// Headers, and the customers in this table, which are kept for `retention_days` after they are needed.
    pub fn new(headers: Headers, customers: impl Into<String>, retention_days: u32) -> Self {
        let retention = SignedDuration::from_hours(24 * i64::from(retention_days));
        Self { headers, customers: customers.into(), retention }
    }

    /// When DynamoDB may delete a customer who is needed until then, in seconds since 1970.
    fn expiration(&self, needed_until: Timestamp) -> i64 {
        needed_until.saturating_add(self.retention).unwrap_or(Timestamp::MAX).as_second() // only months can fail
    }
}

const KEY: [&str; 1] = ["booking_id"];
const INDEX: &str = "open-bookings";
/// The first characters that an id can have.
const SHARDS: &str = "0123456789abcdef";

impl Bookings {
    /// The headers in this table, whose steps are recorded in this journal.
    pub fn new(client: Client, table: impl Into<String>, journal: Journal) -> Self {
        Self { client, table: table.into(), journal }
    }
}

impl BookingStore for Bookings {
    async fn collect(&self, booking_id: &BookingId, part: PartName) -> Result<Option<GivenBack>, StoreError> {
        const COLLECT: &str = "recording that a part is cancelled";
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("booking_id", string(booking_id.as_str()))
            .update_expression("ADD cancelled :part")
            .condition_expression("attribute_exists(booking_id)")
            .expression_attribute_values(":part", AttributeValue::Ss(vec![part.to_string()]))
            .return_values(ReturnValue::AllNew);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                return match error.as_service_error() {
                    Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(None),
                    _ => Err(StoreError::unavailable(COLLECT, error)),
                };
            }
        };
        let item = answer.attributes.unwrap_or_default();
        let Some(AttributeValue::Ss(names)) = item.get("cancelled") else {
            return Err(StoreError::corrupt(COLLECT, "the set of cancelled parts is missing"));
        };
        let cancelled = names.iter().map(|name| PartName::try_from(name.as_str())).collect::<Result<_, _>>();
        let cancelled = cancelled.map_err(|error| StoreError::corrupt(COLLECT, error))?;
        Ok(Some(GivenBack { cancelled, plan: parts(&item)?.names() }))
    }

    async fn end(&self, record: &Record<'_>, end: &End<'_>) -> Result<Commit<HeaderFound>, StoreError> {
        const END: &str = "ending a booking";
        let not_ended = "#status IN (:pending, :needs_operator)";
        let mut change = String::from("SET #status = :to, updated_at = :now");
        let mut update = Update::builder()
            .table_name(&self.table)
            .key("booking_id", string(record.begun.booking_id.as_str()))
            .condition_expression(not_ended)
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":pending", string(Status::Pending.name()))
            .expression_attribute_values(":needs_operator", string(Status::NeedsOperator.name()))
            .expression_attribute_values(":to", string(end.status.name()))
            .expression_attribute_values(":now", string(time(record.finished_at)))
            .return_values_on_condition_check_failure(AllOld);
        if let Some(total) = end.total {
            change.push_str(", #total = :total");
            update = update
                .expression_attribute_names("#total", "total")
                .expression_attribute_values(":total", string(json(&total)));
        }
        if let Some(reason) = end.reason {
            change.push_str(", reason = :reason");
            update = update.expression_attribute_values(":reason", string(json(reason)));
        }
        // A booking that was parked and has ended after all has no reason any more.
        change.push_str(if end.reason.is_none() { " REMOVE open_shard, reason" } else { " REMOVE open_shard" });
        let update = built(update.update_expression(change).build())?;
        let journal = if record.begun.step == Step::Park {
            self.journal.put_again(record)?
        } else {
            self.journal.put_if_absent(record)?
        };
        let items = vec![TransactWriteItem::builder().update(update).build(), journal];
        let Err(refused) = write(&self.client, END, items).await? else { return Ok(Commit::Done) };
        refused.all_known(2)?; // if the booking has ended but this step is not recorded, it is the opposite end
        Ok(Commit::Found(HeaderFound {
            status: refused.item(0).map(|item| status(END, item)).transpose()?,
            recorded: refused.item(1).map(recorded_outcome).transpose()?.flatten(),
        }))
    }
}

impl ClaimStore for Headers {
    async fn claim(&self, header: &Header, claim: &Claim, now: Timestamp) -> Result<bool, StoreError> {
        // Every claim increments the number, so it identifies the claim that was decided on.
        const AS_KNOWN: &str = "#status = :known_status AND claims = :known";
        let mut change =
            String::from("SET claims = :claims, drives = :drives, #status = :pending, open_shard = :shard");
        let mut request = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("booking_id", string(header.booking_id.as_str()))
            .condition_expression(AS_KNOWN)
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":known_status", string(header.status.name()))
            .expression_attribute_values(":known", number(header.claim.number))
            .expression_attribute_values(":claims", number(claim.number))
            .expression_attribute_values(":drives", number(claim.drives))
            .expression_attribute_values(":pending", string(Status::Pending.name()))
            .expression_attribute_values(":shard", string(shard(&header.booking_id)));
        if let Some(redrive) = &claim.redrive {
            change.push_str(", redrive = :redrive");
            request = request.expression_attribute_values(":redrive", string(redrive));
        }
        if header.status != Status::Pending {
            change.push_str(", updated_at = :now");
            request = request.expression_attribute_values(":now", string(time(now)));
        }
        match claim.at {
            Some(at) => {
                change.push_str(", claimed_at = :at REMOVE reason"); // the reason why it needed an operator
                request = request.expression_attribute_values(":at", string(time(at)));
            }
            None => change.push_str(" REMOVE claimed_at, reason"),
        }
        match request.update_expression(change).send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(false),
                _ => Err(StoreError::unavailable("claiming the start of a booking", error)),
            },
        }
    }
}

impl ClaimStore for Intake {
    async fn claim(&self, header: &Header, claim: &Claim, now: Timestamp) -> Result<bool, StoreError> {
        self.headers.claim(header, claim, now).await
    }
}

impl IntakeStore for Intake {
    async fn accept(
        &self,
        header: &Header,
        customer: &Customer,
        needed_until: Timestamp,
    ) -> Result<Commit<Box<Receipt>>, StoreError> {
        const ACCEPT: &str = "recording a booking";
        let who = Put::builder()
            .table_name(&self.customers)
            .item("booking_id", string(header.booking_id.as_str()))
            .item("customer", string(json(customer)))
            .item("expiration", number(self.expiration(needed_until)));
        let header = Put::builder()
            .table_name(&self.headers.table)
            .set_item(Some(item(header)))
            .condition_expression("attribute_not_exists(booking_id)")
            .return_values_on_condition_check_failure(AllOld);
        let items = [header, who].map(|put| Ok(TransactWriteItem::builder().put(built(put.build())?).build()));
        let items = items.into_iter().collect::<Result<_, StoreError>>()?;
        let Err(refused) = write(&self.headers.client, ACCEPT, items).await? else { return Ok(Commit::Done) };
        let found = refused
            .item(0)
            .ok_or_else(|| StoreError::corrupt(ACCEPT, "the transaction was refused, but there is no item"))?;
        Ok(Commit::Found(Box::new(receipt(found)?)))
    }

    async fn receipt(&self, booking_id: &BookingId) -> Result<Option<Receipt>, StoreError> {
        self.headers.item(booking_id).await?.as_ref().map(receipt).transpose()
    }

    async fn header(&self, booking_id: &BookingId) -> Result<Option<Header>, StoreError> {
        self.headers.get(booking_id).await
    }

    async fn customer(&self, booking_id: &BookingId) -> Result<Option<Customer>, StoreError> {
        const READ: &str = "reading the customer";
        let key = string(booking_id.as_str());
        let answer = self.headers.client.get_item().table_name(&self.customers).key("booking_id", key).send().await;
        let answer = answer.map_err(|error| StoreError::unavailable(READ, error))?;
        answer.item.map(|item| from_json(READ, &item, "customer")).transpose()
    }
}

impl HeaderStore for Headers {
    async fn get(&self, booking_id: &BookingId) -> Result<Option<Header>, StoreError> {
        self.item(booking_id).await?.as_ref().map(header).transpose()
    }

    async fn open_before(&self, limit: Timestamp) -> (Vec<BookingId>, Vec<StoreError>) {
        let shards = SHARDS.chars().map(|shard| self.open_in(shard, limit));
        let (mut open, mut errors) = (Vec::new(), Vec::new());
        for (of_shard, errors_of_shard) in join_all(shards).await {
            open.extend(of_shard);
            errors.extend(errors_of_shard);
        }
        open.sort_unstable_by(|(created_at, _), (other, _)| created_at.cmp(other));
        (open.into_iter().map(|(_, booking)| booking).collect(), errors)
    }
}

impl Headers {
    /// One shard of [`HeaderStore::open_before`], with the creation times of the bookings.
    async fn open_in(&self, shard: char, limit: Timestamp) -> (Vec<(String, BookingId)>, Vec<StoreError>) {
        const FIND: &str = "looking for stuck bookings";
        let (mut open, mut errors) = (Vec::new(), Vec::new());
        let mut items = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(INDEX)
            .key_condition_expression("open_shard = :shard AND created_at < :limit")
            .expression_attribute_values(":shard", string(shard))
            .expression_attribute_values(":limit", string(time(limit)))
            .projection_expression("booking_id, created_at") // there may be a great many
            .into_paginator()
            .items()
            .send();
        while let Some(item) = items.next().await {
            let read = item
                .map_err(|error| StoreError::unavailable(FIND, error))
                .and_then(|item| Ok((text(FIND, &item, "created_at")?.to_owned(), booking_id(&item)?)));
            match read {
                Ok(found) => open.push(found),
                Err(error) => errors.push(error),
            }
        }
        (open, errors)
    }
}

fn item(header: &Header) -> Item {
    let mut item = Item::from([
        ("booking_id".into(), string(header.booking_id.as_str())),
        ("validation".into(), string(&header.request_digest)),
        ("variant".into(), string(header.variant.name())),
        ("status".into(), string(header.status.name())),
        ("owner".into(), string(header.owner.as_str())),
        ("parts".into(), string(json(&header.parts))),
        ("created_at".into(), string(time(header.created_at))),
        ("updated_at".into(), string(time(header.updated_at))),
    ]);
    if !header.status.is_settled() {
        item.insert("open_shard".into(), string(shard(&header.booking_id)));
    }
    item.insert("claims".into(), number(header.claim.number));
    if let Some(at) = header.claim.at {
        item.insert("claimed_at".into(), string(time(at)));
    }
    if let Some(total) = &header.total {
        item.insert("total".into(), string(json(total)));
    }
    if let Some(reason) = &header.reason {
        item.insert("reason".into(), string(json(reason)));
    }
    item
}

/// The shard of a booking in the index.
fn shard(booking_id: &BookingId) -> &str {
    &booking_id.as_str()[..1] // an id is 32 ASCII digits
}

const READ: &str = "reading a booking";

fn at(item: &Item, name: &str) -> Result<Timestamp, StoreError> {
    text(READ, item, name)?.parse().map_err(|error| StoreError::corrupt(READ, format!("{name}: {error}")))
}

fn count(item: &Item, name: &str) -> Result<Option<u32>, StoreError> {
    let count = integer(READ, item, name)?.map(u32::try_from).transpose();
    count.map_err(|error| StoreError::corrupt(READ, format!("{name}: {error}")))
}

fn claim(item: &Item) -> Result<Claim, StoreError> {
    Ok(Claim {
        number: count(item, "claims")?.ok_or_else(|| StoreError::corrupt(READ, "claims is missing"))?,
        at: if item.contains_key("claimed_at") { Some(at(item, "claimed_at")?) } else { None },
        drives: count(item, "drives")?.unwrap_or(0),
        redrive: if item.contains_key("redrive") { Some(text(READ, item, "redrive")?.to_owned()) } else { None },
    })
}

fn receipt(item: &Item) -> Result<Receipt, StoreError> {
    Ok(Receipt {
        booking_id: booking_id(item)?,
        request_digest: text(READ, item, "validation")?.to_owned(),
        variant: variant(item)?,
        status: status(READ, item)?,
        header: tables::read(item, &KEY, header),
    })
}

fn header(item: &Item) -> Result<Header, StoreError> {
    Ok(Header {
        booking_id: booking_id(item)?,
        request_digest: text(READ, item, "validation")?.to_owned(),
        variant: variant(item)?,
        status: status(READ, item)?,
        owner: Owner::try_from(text(READ, item, "owner")?.to_owned())
            .map_err(|error| StoreError::corrupt(READ, format!("owner {error}")))?,
        parts: parts(item)?,
        total: if item.contains_key("total") { Some(from_json(READ, item, "total")?) } else { None },
        reason: if item.contains_key("reason") { Some(from_json(READ, item, "reason")?) } else { None },
        claim: claim(item)?,
        created_at: at(item, "created_at")?,
        updated_at: at(item, "updated_at")?,
    })
}

/// The booked parts. Release 0.1 kept them in `trip`, with one field per part, which this release does not read.
fn parts(item: &Item) -> Result<Parts, StoreError> {
    if item.contains_key("trip") && !item.contains_key("parts") {
        return Err(StoreError::corrupt(READ, "the booking was written by release 0.1: see docs/deploy.md"));
    }
    from_json(READ, item, "parts")
}

fn booking_id(item: &Item) -> Result<BookingId, StoreError> {
    let key = text(READ, item, "booking_id")?;
    BookingId::try_from(key.to_owned())
        .map_err(|error| StoreError::corrupt(READ, format!("booking_id {key:?} {error}")))
}

fn variant(item: &Item) -> Result<Variant, StoreError> {
    let name = text(READ, item, "variant")?;
    Variant::ALL
        .into_iter()
        .find(|variant| variant.name() == name)
        .ok_or_else(|| StoreError::corrupt(READ, format!("variant {name}")))
}

fn status(operation: &'static str, item: &Item) -> Result<Status, StoreError> {
    let name = text(operation, item, "status")?;
    [Status::Pending, Status::Confirmed, Status::Failed, Status::NeedsOperator]
        .into_iter()
        .find(|status| status.name() == name)
        .ok_or_else(|| StoreError::corrupt(operation, format!("status {name}")))
}
