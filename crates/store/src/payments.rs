//! Payment's decisions: one item per booking, `{booking_id, state, amount, currency, charge_id, reason}`, and while
//! events come in, the prices of the parts: `{price_flight, price_hotel, …}`.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::{
    Client,
    types::{ConditionCheck, ReturnValue, ReturnValuesOnConditionCheckFailure::AllOld, TransactWriteItem, Update},
};
use saga::{
    BookingId, Currency, Money, Outcome, PartName, Price, Step,
    payment::{Recorded, State},
};

use crate::{
    Begun, Commit, Cursor, Journal, Page, PaymentFound, PaymentStore, Record, Recording, StoreError, Unreadable,
    journal::entry,
    tables,
    transaction::{Item, Refused, built, from_json, integer, json, number, string, text, write},
};

/// The table of payment's decisions, with the journal that belongs to it.
#[derive(Clone, Debug)]
pub struct Payments {
    client: Client,
    table: String,
    journal: Journal,
}

impl Payments {
    /// The decisions in this table.
    pub fn new(client: Client, table: impl Into<String>, journal: Journal) -> Self {
        Self { client, table: table.into(), journal }
    }

    /// The decision on a booking, as far as it is made.
    pub async fn state(&self, booking: &BookingId) -> Result<State, StoreError> {
        let request = self.client.get_item().table_name(&self.table).key("booking_id", string(booking.as_str()));
        let answer = request.consistent_read(true).send().await;
        let answer = answer.map_err(|error| StoreError::unavailable("reading a payment", error))?;
        state(answer.item.as_ref())
    }

    /// A page of all records, of at most `limit` if given: of which booking, and how far its payment is.
    pub async fn page(&self, from: Option<Cursor>, limit: Option<i32>) -> Result<Page<(String, State)>, StoreError> {
        tables::page(&self.client, &self.table, &["booking_id"], from, limit, record).await
    }

    /// The records of these bookings, each named once, in any order. Bookings that have none are left out.
    pub async fn of_all(&self, bookings: &[BookingId]) -> Result<Vec<Result<(String, State), Unreadable>>, StoreError> {
        let keys = bookings.iter().map(|id| Item::from([("booking_id".into(), string(id.as_str()))])).collect();
        tables::each(&self.client, &self.table, &["booking_id"], keys, record).await
    }

    fn move_to(&self, booking: &str, state: &State, allowed: &str) -> Result<TransactWriteItem, StoreError> {
        let mut update = Update::builder()
            .table_name(&self.table)
            .key("booking_id", string(booking))
            .update_expression("SET #state = :to")
            .condition_expression(allowed)
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":to", string(state.name()))
            .return_values_on_condition_check_failure(AllOld);
        if allowed.contains(":charging") {
            update = update.expression_attribute_values(":charging", string(State::Charging.name()));
        }
        if let State::Charged { amount, charge_id } = state {
            update = update
                .update_expression("SET #state = :to, amount = :amount, currency = :currency, charge_id = :charge_id")
                .expression_attribute_values(":amount", number(amount.amount))
                .expression_attribute_values(":currency", string(String::from(amount.currency)))
                .expression_attribute_values(":charge_id", string(charge_id));
        }
        if let State::Aborted { reason: Some(reason) } = state {
            update = update
                .update_expression("SET #state = :to, reason = :reason")
                .expression_attribute_values(":reason", string(json(reason)));
        }
        built(update.build().map(|update| TransactWriteItem::builder().update(update).build()))
    }

    fn still_charging(&self, booking: &str) -> Result<TransactWriteItem, StoreError> {
        let check = ConditionCheck::builder()
            .table_name(&self.table)
            .key("booking_id", string(booking))
            .condition_expression(IS_CHARGING)
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":charging", string(State::Charging.name()))
            .return_values_on_condition_check_failure(AllOld);
        built(check.build().map(|check| TransactWriteItem::builder().condition_check(check).build()))
    }
}

const NOTHING_TRIED: &str = "attribute_not_exists(#state)";
const IS_CHARGING: &str = "#state = :charging";
const NOTHING_DECIDED: &str = "attribute_not_exists(#state) OR #state = :charging";

impl PaymentStore for Payments {
    // Who wins, charge or abort?
    //
    //   charge:  lease (nothing tried → charging) ─── provider ─── complete (charging → charged)
    //   abort:        fence (nothing decided → aborted) ─── void at the provider ─── answer
    //
    // The fence before the lease: no lease, so no charge.       The fence before complete: complete is refused, and
    // The fence after complete: refused, answers "charged".     the void undoes or forestalls what the provider did.
    async fn lease(
        &self,
        begun: &Begun<'_>,
        lease_ends: i64,
        earlier: Option<i64>,
    ) -> Result<Commit<PaymentFound>, StoreError> {
        let booking_id = begun.booking_id.as_str();
        const LEASE: &str = "taking the lease to charge";
        let items = match earlier {
            None => {
                vec![self.move_to(booking_id, &State::Charging, NOTHING_TRIED)?, self.journal.begin(begun, lease_ends)?]
            }
            Some(ended) => {
                vec![self.still_charging(booking_id)?, self.journal.take_over(begun, ended, lease_ends)?]
            }
        };
        found(write(&self.client, LEASE, items).await?)
    }

    async fn release(&self, booking: &BookingId, lease_ends: i64, now: i64) -> Result<(), StoreError> {
        self.journal.release(booking, Step::Charge, lease_ends, now).await
    }

    async fn complete(&self, record: &Record<'_>, decision: &State) -> Result<Commit<PaymentFound>, StoreError> {
        let items = vec![
            self.move_to(record.begun.booking_id.as_str(), decision, IS_CHARGING)?,
            self.journal.complete(record)?,
        ];
        found(write(&self.client, "completing the charge", items).await?)
    }

    async fn fence(&self, record: &Record<'_>) -> Result<Commit<PaymentFound>, StoreError> {
        let reason = match record.outcome {
            Outcome::Aborted { reason } => reason.clone(),
            _ => None,
        };
        let aborted = State::Aborted { reason };
        let items = vec![
            self.move_to(record.begun.booking_id.as_str(), &aborted, NOTHING_DECIDED)?,
            self.journal.put_if_absent(record)?,
        ];
        found(write(&self.client, "aborting the payment", items).await?)
    }

    async fn collect(
        &self,
        booking: &BookingId,
        part: PartName,
        price: Price,
    ) -> Result<BTreeMap<PartName, Price>, StoreError> {
        const COLLECT: &str = "recording the price of a part";
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("booking_id", string(booking.as_str()))
            .update_expression("SET #price = :price")
            .expression_attribute_names("#price", format!("{PRICE_OF}{part}"))
            .expression_attribute_values(":price", string(json(&price)))
            .return_values(ReturnValue::AllNew);
        let answer = request.send().await.map_err(|error| StoreError::unavailable(COLLECT, error))?;
        let item = answer.attributes.unwrap_or_default();
        let known = item.keys().filter_map(|name| Some((name, name.strip_prefix(PRICE_OF)?)));
        let price = |(attribute, part): (&String, &str)| {
            let part = PartName::try_from(part).map_err(|error| StoreError::corrupt(COLLECT, error))?;
            Ok((part, from_json(COLLECT, &item, attribute)?))
        };
        known.map(price).collect()
    }

    async fn record(&self, record: &Record<'_>) -> Result<Commit<Recording>, StoreError> {
        self.journal.record("recording an outcome", record).await
    }
}

/// In each of payment's transactions the decision comes first and the journal item second.
fn found(written: Result<(), Refused>) -> Result<Commit<PaymentFound>, StoreError> {
    let Err(refused) = written else { return Ok(Commit::Done) };
    refused.all_known(2)?; // what a decision was and what was answered go together
    let entry = refused.item(1).map(entry).transpose()?;
    let recorded = match &entry {
        None => Recorded::Absent,
        Some(entry) => match (&entry.outcome, entry.lease_ends) {
            (Some(outcome), _) => Recorded::Completed(outcome.clone()),
            (None, Some(lease_ends)) => Recorded::InProgress { lease_ends },
            (None, None) => return Err(StoreError::corrupt("reading the charge", "in progress, but without a lease")),
        },
    };
    let validation = entry.map(|entry| entry.validation);
    Ok(Commit::Found(PaymentFound { state: state(refused.item(0))?, recorded, validation }))
}

/// What the name of an attribute begins with that holds the price of a part, as JSON.
const PRICE_OF: &str = "price_";

fn record(item: &Item) -> Result<(String, State), StoreError> {
    Ok((text("reading a payment", item, "booking_id")?.to_owned(), state(Some(item))?))
}

fn state(item: Option<&Item>) -> Result<State, StoreError> {
    const READ: &str = "reading a payment";
    // Prices may have been collected before anything was tried.
    let Some(item) = item.filter(|item| item.contains_key("state")) else { return Ok(State::Collecting) };
    Ok(match text(READ, item, "state")? {
        "charging" => State::Charging,
        "declined" => State::Declined,
        "aborted" => State::Aborted {
            reason: if item.contains_key("reason") { Some(from_json(READ, item, "reason")?) } else { None },
        },
        "charged" => {
            State::Charged { amount: money(READ, item)?, charge_id: text(READ, item, "charge_id")?.to_owned() }
        }
        other => return Err(StoreError::corrupt(READ, format!("state {other}"))),
    })
}

/// The attributes `amount` and `currency`.
pub(crate) fn money(operation: &'static str, item: &Item) -> Result<Money, StoreError> {
    let amount = integer(operation, item, "amount")?.and_then(|amount| u64::try_from(amount).ok());
    let currency = Currency::try_from(text(operation, item, "currency")?.to_owned());
    match (amount, currency) {
        (Some(amount), Ok(currency)) => Ok(Money { amount, currency }),
        _ => Err(StoreError::corrupt(operation, "amount and currency are no money")),
    }
}
