//! The ledger of the sandbox payment provider: one item per payment reference. It stands for another company's
//! database: apart from the sandbox and the tests, nothing in Harmony reads it.

use aws_sdk_dynamodb::{
    Client,
    operation::update_item::{UpdateItemError, builders::UpdateItemFluentBuilder},
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure::AllOld},
};
use jiff::Timestamp;
use saga::{Money, PaymentReference};

use crate::{
    Cursor, Page, StoreError, UnreadableItem,
    journal::time,
    payments::money,
    tables,
    transaction::{Item, integer, number, string, text},
};

/// How the card behind a payment behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// Declines every charge with this code.
    pub declines_with: Option<String>,
    /// How many charges fail before one succeeds.
    pub failures_left: u32,
    /// The first charge takes effect, but its answer is too late.
    pub answers_late: bool,
}

/// The result of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChargeResult {
    /// It is carried out, now or by an earlier attempt.
    Paid(Paid),
    /// It is carried out, but the answer will be late.
    PaidLate(Paid),
    /// The card declines, with this code.
    Declines(String),
    /// The provider is unavailable this time.
    OutOfOrder,
    /// The payment was voided and can no longer be charged.
    Voided,
    /// The provider does not know this reference.
    Unknown,
}

/// A charge that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paid {
    /// The amount charged.
    pub amount: Money,
    /// The provider's identifier of the charge.
    pub charge_id: String,
}

/// An item of the ledger, for readers that scan all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The payment reference.
    pub reference: String,
    /// What the customer has paid in total, after all charges and refunds; none if nothing.
    pub paid: Option<Money>,
}

/// The provider's table.
#[derive(Clone, Debug)]
pub struct Ledger {
    client: Client,
    table: String,
}

const CHARGE: &str = "charging at the sandbox provider";

impl Ledger {
    /// The ledger in this table.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    /// Records which card to charge for a payment. The first one is kept.
    pub async fn attach(&self, reference: &PaymentReference, card: &Card) -> Result<(), StoreError> {
        let mut request = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("reference", string(reference.as_str()))
            .item("failures_left", number(card.failures_left))
            .item("answers_late", AttributeValue::Bool(card.answers_late))
            .condition_expression("attribute_not_exists(#reference)")
            .expression_attribute_names("#reference", "reference");
        if let Some(code) = &card.declines_with {
            request = request.item("declines_with", string(code));
        }
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) => Ok(()),
            Err(error) => Err(StoreError::unavailable("attaching a card at the sandbox provider", error)),
        }
    }

    /// Charges at most once, however often it is called.
    pub async fn charge(
        &self,
        reference: &PaymentReference,
        amount: Money,
        now: Timestamp,
    ) -> Result<ChargeResult, StoreError> {
        let can_be_charged = "attribute_exists(#reference) AND attribute_not_exists(charged_at) \
             AND attribute_not_exists(voided_at) AND attribute_not_exists(declines_with) AND failures_left = :zero";
        let request = self
            .update(reference)
            .update_expression("SET charged_at = :now, amount = :amount, currency = :currency")
            .condition_expression(can_be_charged)
            .expression_attribute_names("#reference", "reference")
            .expression_attribute_values(":now", string(time(now)))
            .expression_attribute_values(":amount", number(amount.amount))
            .expression_attribute_values(":currency", string(String::from(amount.currency)))
            .expression_attribute_values(":zero", number(0))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(AllOld);
        let found = match request.send().await {
            Ok(done) => {
                let item = done.attributes.unwrap_or_default();
                let paid = Paid { amount, charge_id: charge_id(reference) };
                let late = item.get("answers_late") == Some(&AttributeValue::Bool(true));
                return Ok(if late { ChargeResult::PaidLate(paid) } else { ChargeResult::Paid(paid) });
            }
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => failed.item.clone(),
                _ => return Err(StoreError::unavailable(CHARGE, error)),
            },
        };
        let Some(item) = found.filter(|item| !item.is_empty()) else { return Ok(ChargeResult::Unknown) };
        if item.contains_key("voided_at") {
            Ok(ChargeResult::Voided)
        } else if let Some(paid) = paid(reference, &item)? {
            Ok(ChargeResult::Paid(paid))
        } else if item.contains_key("declines_with") {
            Ok(ChargeResult::Declines(text(CHARGE, &item, "declines_with")?.to_owned()))
        } else {
            let failures = integer(CHARGE, &item, "failures_left")?.unwrap_or(0);
            let request = self.update(reference).update_expression("SET failures_left = :left");
            let request = request.expression_attribute_values(":left", number(failures - 1));
            request.send().await.map_err(|error| StoreError::unavailable(CHARGE, error))?;
            Ok(ChargeResult::OutOfOrder)
        }
    }

    /// Refunds what was charged, if anything, and refuses every charge from now on.
    pub async fn void(&self, reference: &PaymentReference, now: Timestamp) -> Result<(), StoreError> {
        let request = self
            .update(reference)
            .update_expression("SET voided_at = if_not_exists(voided_at, :now)")
            .expression_attribute_values(":now", string(time(now)));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(StoreError::unavailable("voiding at the sandbox provider", error)),
        }
    }

    /// What the customer has paid, after all charges and refunds; none if nothing.
    pub async fn paid(&self, reference: &PaymentReference) -> Result<Option<Paid>, StoreError> {
        const ASK: &str = "asking the sandbox provider";
        let request = self.client.get_item().table_name(&self.table).key("reference", string(reference.as_str()));
        let answer = request.consistent_read(true).send().await;
        match answer.map_err(|error| StoreError::unavailable(ASK, error))?.item {
            Some(item) => Ok(ledger_entry(&item)?.paid.map(|amount| Paid { amount, charge_id: charge_id(reference) })),
            None => Ok(None),
        }
    }

    /// A page of all entries, at most `limit` if given.
    pub async fn page(&self, from: Option<Cursor>, limit: Option<i32>) -> Result<Page<LedgerEntry>, StoreError> {
        tables::page(&self.client, &self.table, &["reference"], from, limit, ledger_entry).await
    }

    /// The entries of these payments, in any order. Each payment may be named once. Payments without an entry are left
    /// out.
    pub async fn of_all(
        &self,
        references: &[PaymentReference],
    ) -> Result<Vec<Result<LedgerEntry, UnreadableItem>>, StoreError> {
        let key = |reference: &PaymentReference| Item::from([("reference".into(), string(reference.as_str()))]);
        let keys = references.iter().map(key).collect();
        tables::each(&self.client, &self.table, &["reference"], keys, ledger_entry).await
    }

    fn update(&self, reference: &PaymentReference) -> UpdateItemFluentBuilder {
        self.client.update_item().table_name(&self.table).key("reference", string(reference.as_str()))
    }
}

fn ledger_entry(item: &Item) -> Result<LedgerEntry, StoreError> {
    let is_paid = item.contains_key("charged_at") && !item.contains_key("voided_at");
    Ok(LedgerEntry {
        reference: text(CHARGE, item, "reference")?.to_owned(),
        paid: if is_paid { Some(money(CHARGE, item)?) } else { None },
    })
}

fn paid(reference: &PaymentReference, item: &Item) -> Result<Option<Paid>, StoreError> {
    if !item.contains_key("charged_at") {
        return Ok(None);
    }
    Ok(Some(Paid { amount: money(CHARGE, item)?, charge_id: charge_id(reference) }))
}

/// There is one charge per payment, so its id is derived from the payment's.
fn charge_id(reference: &PaymentReference) -> String {
    format!("ch_{}", reference.as_str())
}
