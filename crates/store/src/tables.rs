//! Whole tables, for who looks at everything: page by page in the order in which DynamoDB keeps them, and many items by
//! their keys at once. All reads are consistent: an item is read as it is, not as it was a moment before.

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    types::{AttributeValue, KeysAndAttributes},
};

use crate::{
    StoreError,
    transaction::{Item, built},
};

/// A page of a table.
#[derive(Debug)]
pub struct Page<T> {
    /// What was read. An item that cannot be read does not hide the others.
    pub items: Vec<Result<T, Unreadable>>,
    /// Where the next page begins; none if this was the last one.
    pub next: Option<Cursor>,
}

/// A place in a table.
#[derive(Clone, Debug)]
pub struct Cursor(Item);

/// An item that this program did not write so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the item {key} cannot be read: {cause}")]
pub struct Unreadable {
    /// Its key; the parts of a longer one with a blank between them.
    pub key: String,
    /// What is wrong with it.
    pub cause: String,
}

/// How many items a table has, about: DynamoDB counts every six hours. None if there is no such table.
pub async fn count(client: &Client, table: &str) -> Result<Option<u64>, StoreError> {
    match client.describe_table().table_name(table).send().await {
        Ok(answer) => Ok(answer.table.and_then(|table| table.item_count?.try_into().ok()).or(Some(0))),
        Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_not_found_exception()) => Ok(None),
        Err(error) => Err(StoreError::unavailable("looking at a table", error)),
    }
}

/// Reads a page, of at most `limit` items if given, else of a megabyte.
pub(crate) async fn page<T>(
    client: &Client,
    table: &str,
    keys: &[&str],
    from: Option<Cursor>,
    limit: Option<i32>,
    read: impl Fn(&Item) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let request = client.scan().table_name(table).set_limit(limit).consistent_read(true);
    let request = request.set_exclusive_start_key(from.map(|cursor| cursor.0));
    let answer = request.send().await.map_err(|error| StoreError::unavailable("reading a table", error))?;
    let items = answer.items().iter().map(|item| self::read(item, keys, &read));
    Ok(Page { items: items.collect(), next: answer.last_evaluated_key.map(Cursor) })
}

/// Reads the items with these keys, in any order; those that are not there are left out. No key may be there twice.
pub(crate) async fn each<T>(
    client: &Client,
    table: &str,
    names: &[&str],
    keys: Vec<Item>,
    read: impl Fn(&Item) -> Result<T, StoreError>,
) -> Result<Vec<Result<T, Unreadable>>, StoreError> {
    let items = items(client, table, keys).await?;
    Ok(items.iter().map(|item| self::read(item, names, &read)).collect())
}

/// The items with these keys, as [`each`] reads them.
pub(crate) async fn items(client: &Client, table: &str, keys: Vec<Item>) -> Result<Vec<Item>, StoreError> {
    const READ: &str = "reading many items";
    /// How many items one request may ask for, as DynamoDB has it.
    const MOST: usize = 100;
    let mut found = Vec::with_capacity(keys.len());
    for keys in keys.chunks(MOST) {
        let wanted = built(KeysAndAttributes::builder().set_keys(Some(keys.to_vec())).consistent_read(true).build())?;
        let mut left = Some(HashMap::from([(table.to_owned(), wanted)]));
        let mut pause = Duration::from_millis(50);
        while let Some(wanted) = left.filter(|wanted| !wanted.is_empty()) {
            let answer = client.batch_get_item().set_request_items(Some(wanted)).send().await;
            let answer = answer.map_err(|error| StoreError::unavailable(READ, error))?;
            found.extend(answer.responses.unwrap_or_default().remove(table).unwrap_or_default());
            left = answer.unprocessed_keys;
            if left.as_ref().is_some_and(|left| !left.is_empty()) {
                tokio::time::sleep(pause).await; // the answer was too long, or the table is throttled
                pause = (pause * 2).min(Duration::from_secs(2));
            }
        }
    }
    Ok(found)
}

/// Reads one item of many, which has these keys.
pub(crate) fn read<T>(
    item: &Item,
    keys: &[&str],
    read: impl Fn(&Item) -> Result<T, StoreError>,
) -> Result<T, Unreadable> {
    read(item).map_err(|error| unreadable(item, keys, error))
}

fn unreadable(item: &Item, keys: &[&str], error: StoreError) -> Unreadable {
    let cause = match error {
        StoreError::Corrupt { cause, .. } => cause,
        other => other.to_string(),
    };
    let key = |name: &&str| match item.get(*name) {
        Some(AttributeValue::S(text)) => text.clone(),
        other => format!("{other:?}"), // all keys are strings
    };
    Unreadable { key: keys.iter().map(key).collect::<Vec<_>>().join(" "), cause }
}
