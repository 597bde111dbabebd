//! A seller's stock: one item per product and date, `{product, date, available, seeded}`. What is sold without a
//! date has `-` for one.

use std::time::Duration;

use aws_sdk_dynamodb::{
    Client,
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure::AllOld, TransactWriteItem, Update},
};
use jiff::civil::Date;
use saga::{Outcome, Step, StockLine, reservation::Stock};

use crate::{
    Begun, Commit, Cursor, Journal, NotTaken, Page, PartRecords, Record, Recording, StockStore, StoreError,
    journal::recording,
    tables,
    transaction::{Item, built, number, string, text, write},
};

/// A table of stock, with the journal that belongs to it.
#[derive(Clone, Debug)]
pub struct StockTable {
    client: Client,
    table: String,
    journal: Journal,
}

impl StockTable {
    /// The stock in this table.
    pub fn new(client: Client, table: impl Into<String>, journal: Journal) -> Self {
        Self { client, table: table.into(), journal }
    }

    fn line(&self, line: &StockLine, change: &str, condition: &str) -> Result<TransactWriteItem, StoreError> {
        let update = Update::builder()
            .table_name(&self.table)
            .key("product", string(&line.product))
            .key("date", string(date_of(line)))
            .update_expression(change)
            .condition_expression(condition)
            .expression_attribute_values(":units", number(line.units))
            .return_values_on_condition_check_failure(AllOld);
        built(update.build().map(|update| TransactWriteItem::builder().update(update).build()))
    }
}

/// The sort key of what is sold without a date.
const UNDATED: &str = "-";

fn date_of(line: &StockLine) -> String {
    line.date.map_or_else(|| UNDATED.to_owned(), |date| date.to_string())
}

/// The item of a line that is on sale, as it is seeded.
pub(crate) fn seeded(line: &StockLine) -> Item {
    Item::from([
        ("product".into(), string(&line.product)),
        ("date".into(), string(date_of(line))),
        ("available".into(), number(line.units)),
        ("seeded".into(), number(line.units)),
    ])
}

impl StockTable {
    /// Puts this stock on sale, replacing what there was of these lines. For loading, not for steps.
    pub async fn seed(&self, lines: &[StockLine]) -> Result<(), StoreError> {
        use aws_sdk_dynamodb::types::{PutRequest, WriteRequest};
        const SEED: &str = "loading stock";
        for lines in lines.chunks(25) {
            let mut writes = Vec::with_capacity(lines.len());
            for line in lines {
                let put = built(PutRequest::builder().set_item(Some(seeded(line))).build())?;
                writes.push(WriteRequest::builder().put_request(put).build());
            }
            let mut left = Some(std::collections::HashMap::from([(self.table.clone(), writes)]));
            while let Some(writes) = left.filter(|writes| !writes.is_empty()) {
                let answer = self.client.batch_write_item().set_request_items(Some(writes)).send().await;
                left = answer.map_err(|error| StoreError::unavailable(SEED, error))?.unprocessed_items;
                if left.as_ref().is_some_and(|left| !left.is_empty()) {
                    tokio::time::sleep(Duration::from_millis(200)).await; // the table takes no more just now
                }
            }
        }
        Ok(())
    }

    /// How many units of a line are available, and how many there are; none if it is not on sale.
    pub async fn available(&self, line: &StockLine) -> Result<Option<(i64, i64)>, StoreError> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.table)
            .key("product", string(&line.product))
            .key("date", string(date_of(line)))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| StoreError::unavailable(READ, error))?;
        answer.item.as_ref().map(units).transpose()
    }

    /// A page of all lines, of at most `limit` if given.
    pub async fn page(&self, from: Option<Cursor>, limit: Option<i32>) -> Result<Page<OnSale>, StoreError> {
        tables::page(&self.client, &self.table, &["product", "date"], from, limit, on_sale).await
    }
}

/// A line of stock, for readers that scan all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnSale {
    /// What is sold.
    pub product: String,
    /// For which date; none if it is sold without one.
    pub date: Option<Date>,
    /// How many units are available.
    pub available: i64,
    /// How many were put on sale.
    pub seeded: i64,
}

const READ: &str = "reading stock";

fn on_sale(item: &Item) -> Result<OnSale, StoreError> {
    let (available, seeded) = units(item)?;
    let date = match text(READ, item, "date")? {
        UNDATED => None,
        date => Some(date.parse().map_err(|error| StoreError::corrupt(READ, format!("date: {error}")))?),
    };
    Ok(OnSale { product: text(READ, item, "product")?.to_owned(), date, available, seeded })
}

/// How many units are available, and how many there are.
fn units(item: &Item) -> Result<(i64, i64), StoreError> {
    let count = |name: &str| match item.get(name) {
        Some(AttributeValue::N(digits)) => digits.parse().ok(),
        _ => None,
    };
    match (count("available"), count("seeded")) {
        (Some(available), Some(seeded)) => Ok((available, seeded)),
        _ => Err(StoreError::corrupt(READ, "available or seeded is no whole number")),
    }
}

impl StockStore for StockTable {
    async fn take(&self, record: &Record<'_>, lines: &[StockLine]) -> Result<Commit<NotTaken>, StoreError> {
        const TAKE: &str = "taking stock";
        let never_below_zero = "available >= :units";
        let mut items = vec![self.journal.put_if_absent(record)?];
        for line in lines {
            items.push(self.line(line, "SET available = available - :units", never_below_zero)?);
        }
        let Err(refused) = write(&self.client, TAKE, items).await? else { return Ok(Commit::Done) };
        if let Some(item) = refused.item(0) {
            return Ok(Commit::Found(NotTaken::Recorded(completed(TAKE, item)?)));
        }
        let short = lines.iter().enumerate().find(|(index, _)| refused.failed(index + 1));
        let (index, line) = short.ok_or_else(|| StoreError::corrupt(TAKE, "refused for no condition of it"))?;
        let stock = match refused.item(index + 1) {
            Some(_) => Stock::SoldOut(line.clone()),
            None => Stock::NotOnSale(line.clone()),
        };
        Ok(Commit::Found(NotTaken::Stock(stock)))
    }

    async fn record(&self, record: &Record<'_>) -> Result<Commit<Recording>, StoreError> {
        self.journal.record("recording an outcome", record).await
    }

    async fn give_back(&self, record: &Record<'_>, lines: &[StockLine]) -> Result<Commit<PartRecords>, StoreError> {
        const GIVE_BACK: &str = "giving stock back";
        let is_on_sale = "attribute_exists(product)";
        let mut items =
            vec![self.journal.require(&reserve_of(record)?, "reserved")?, self.journal.put_if_absent(record)?];
        for line in lines {
            items.push(self.line(line, "SET available = available + :units", is_on_sale)?);
        }
        let Err(refused) = write(&self.client, GIVE_BACK, items).await? else { return Ok(Commit::Done) };
        if !refused.failed(0) && !refused.failed(1) {
            refused.all_known(2)?; // or else it may never have been sold
            return Err(StoreError::corrupt(GIVE_BACK, "a stock line that was sold is gone"));
        }
        Ok(Commit::Found(PartRecords {
            reserve: refused.item(0).map(|item| completed(GIVE_BACK, item)).transpose()?,
            cancel: refused.item(1).map(|item| completed(GIVE_BACK, item)).transpose()?,
        }))
    }

    async fn leave_tombstone(
        &self,
        record: &Record<'_>,
        tombstone: &Outcome,
    ) -> Result<Commit<PartRecords>, StoreError> {
        const LEAVE: &str = "leaving a tombstone";
        let in_place_of_reserve = Record { begun: reserve_of(record)?, outcome: tombstone, ..*record };
        let items = vec![self.journal.put_if_absent(&in_place_of_reserve)?, self.journal.put_if_absent(record)?];
        let Err(refused) = write(&self.client, LEAVE, items).await? else { return Ok(Commit::Done) };
        Ok(Commit::Found(PartRecords {
            reserve: refused.item(0).map(|item| completed(LEAVE, item)).transpose()?,
            cancel: refused.item(1).map(|item| completed(LEAVE, item)).transpose()?,
        }))
    }
}

/// The reserve that a cancel takes back.
fn reserve_of<'a>(record: &Record<'a>) -> Result<Begun<'a>, StoreError> {
    match record.begun.step {
        Step::Cancel(part) => Ok(Begun { step: Step::Reserve(part), ..record.begun }),
        step => Err(StoreError::corrupt("looking up what to take back", format!("{step} takes nothing back"))),
    }
}

/// A seller's steps are written once, completed.
fn completed(operation: &'static str, item: &Item) -> Result<Recording, StoreError> {
    recording(item)?.ok_or_else(|| StoreError::corrupt(operation, "a step is in progress that is never left so"))
}
