//! One transaction, and what its refusal means.

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    config::{
        self,
        retry::{RetryConfig, RetryPartition, TokenBucket},
        timeout::TimeoutConfig,
    },
    error::SdkError,
    operation::{put_item::PutItemError, transact_write_items::TransactWriteItemsError, update_item::UpdateItemError},
    types::{AttributeValue, CancellationReason, TransactWriteItem},
};
use aws_smithy_runtime_api::client::{
    interceptors::context::InterceptorContext,
    retries::classifiers::{ClassifyRetry, RetryAction},
};
use aws_types::SdkConfig;

use serde::{Serialize, de::DeserializeOwned};

use crate::StoreError;

pub(crate) type Item = HashMap<String, AttributeValue>;

/// A DynamoDB client that retries conflicting and throttled transactions as it retries everything else: with
/// exponential backoff and jitter, within the time that a function has.
pub fn client(sdk: &SdkConfig) -> Client {
    let config = config::Builder::from(sdk)
        .retry_classifier(Conflicts)
        .retry_partition(RetryPartition::custom("store").token_bucket(quota()).build())
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(8)
                .with_initial_backoff(Duration::from_millis(40))
                .with_max_backoff(Duration::from_secs(1)),
        )
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(1))
                .operation_attempt_timeout(Duration::from_secs(2))
                .operation_timeout(Duration::from_secs(7))
                .build(),
        )
        .build();
    Client::from_conf(config)
}

/// What an instance of a function may spend on retries, all its events taken together. Retries in vain are paid for,
/// and when nothing is left there are no more, so as not to make an outage worse. But conflicts are no outage: DynamoDB
/// answers. At the SDK's price for a transient error two dozen bookings of a flight that everybody wants use the quota
/// up, and from then on the instance gives up at the first conflict. So they are free; all else has the SDK's price.
fn quota() -> TokenBucket {
    TokenBucket::builder().retry_cost(0).build()
}

/// The same for who reads whole tables and has the time: a page may take a while.
pub fn patient_client(sdk: &SdkConfig) -> Client {
    let patience = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .operation_attempt_timeout(Duration::from_secs(60))
        .operation_timeout(Duration::from_secs(300))
        .build();
    Client::from_conf(client(sdk).config().to_builder().timeout_config(patience).build())
}

/// A transaction that was cancelled for no better reason than that others were at work on its items, or that there
/// was too much work altogether. The SDK leaves it to its users to tell that from a condition that failed.
#[derive(Debug)]
struct Conflicts;

impl ClassifyRetry for Conflicts {
    fn name(&self) -> &'static str {
        "Conflicting Transactions"
    }

    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(Result::err).and_then(|error| error.as_operation_error());
        let Some(error) = error else { return RetryAction::NoActionIndicated };
        let is_conflict = match error.downcast_ref::<TransactWriteItemsError>() {
            Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                let reasons = cancelled.cancellation_reasons();
                if !is_contention(reasons) {
                    return RetryAction::NoActionIndicated;
                }
                reasons.iter().filter_map(CancellationReason::code).all(|code| matches!(code, "None" | CONFLICT))
            }
            // A single write met a transaction on its item.
            _ if error.downcast_ref().is_some_and(UpdateItemError::is_transaction_conflict_exception)
                || error.downcast_ref().is_some_and(PutItemError::is_transaction_conflict_exception) =>
            {
                true
            }
            _ => return RetryAction::NoActionIndicated,
        };
        // As the error of a client it is free: see `quota`.
        if is_conflict { RetryAction::client_error() } else { RetryAction::throttling_error() }
    }
}

const CONFLICT: &str = "TransactionConflict";

/// Codes from <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>.
fn is_contention(reasons: &[CancellationReason]) -> bool {
    let mut codes = reasons.iter().filter_map(CancellationReason::code).filter(|code| *code != "None").peekable();
    codes.peek().is_some() && codes.all(is_busy)
}

fn is_busy(code: &str) -> bool {
    matches!(code, CONFLICT | "ThrottlingError" | "ProvisionedThroughputExceeded")
}

/// Why nothing was written: for each item of the transaction, whether its own condition failed, and what was there.
///
/// A condition that failed is an answer even if others were at work on another item of the transaction. Only that one
/// item remains unknown then.
pub(crate) struct Refused {
    operation: &'static str,
    reasons: Vec<CancellationReason>,
}

impl Refused {
    /// Fails if one of the first items remains unknown, for callers who cannot decide without them.
    pub(crate) fn all_known(&self, first: usize) -> Result<(), StoreError> {
        if self.reasons.iter().take(first).filter_map(CancellationReason::code).any(is_busy) {
            return Err(StoreError::Contention { operation: self.operation });
        }
        Ok(())
    }

    /// Whether the condition on the item at this place of the transaction failed.
    pub(crate) fn failed(&self, place: usize) -> bool {
        self.reasons.get(place).and_then(CancellationReason::code) == Some("ConditionalCheckFailed")
    }

    /// What was there instead; none if nothing was there or the condition held.
    pub(crate) fn item(&self, place: usize) -> Option<&Item> {
        if self.failed(place) { self.reasons[place].item().filter(|item| !item.is_empty()) } else { None }
    }
}

/// Writes all or nothing. The SDK adds a client token, so that a retry after a lost answer is the same transaction.
pub(crate) async fn write(
    client: &Client,
    operation: &'static str,
    items: Vec<TransactWriteItem>,
) -> Result<Result<(), Refused>, StoreError> {
    match client.transact_write_items().set_transact_items(Some(items)).send().await {
        Ok(_) => Ok(Ok(())),
        Err(SdkError::ServiceError(error)) => match error.into_err() {
            TransactWriteItemsError::TransactionCanceledException(cancelled) => {
                let reasons = cancelled.cancellation_reasons.unwrap_or_default();
                if reasons.iter().any(|reason| reason.code() == Some("ConditionalCheckFailed")) {
                    Ok(Err(Refused { operation, reasons }))
                } else if is_contention(&reasons) {
                    Err(StoreError::Contention { operation })
                } else {
                    Err(StoreError::Unavailable { operation, cause: format!("{reasons:?}") })
                }
            }
            other => Err(StoreError::unavailable(operation, other)),
        },
        Err(error) => Err(StoreError::unavailable(operation, error)),
    }
}

/// Building a request fails only if a required member was not set, and all are.
pub(crate) fn built<T>(result: Result<T, aws_sdk_dynamodb::error::BuildError>) -> Result<T, StoreError> {
    result.map_err(|error| StoreError::Unavailable { operation: "building a request", cause: error.to_string() })
}

pub(crate) fn string(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(crate) fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// The text of a string attribute.
pub(crate) fn text<'i>(operation: &'static str, item: &'i Item, name: &str) -> Result<&'i str, StoreError> {
    match item.get(name) {
        Some(AttributeValue::S(text)) => Ok(text),
        _ => Err(StoreError::corrupt(operation, format!("there is no text in {name}"))),
    }
}

/// The value of a number attribute; none if there is no such attribute.
pub(crate) fn integer(operation: &'static str, item: &Item, name: &str) -> Result<Option<i64>, StoreError> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::N(digits)) => match digits.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(StoreError::corrupt(operation, format!("{name} is no whole number"))),
        },
        Some(_) => Err(StoreError::corrupt(operation, format!("{name} is no number"))),
    }
}

/// A value as JSON text.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default() // strings, numbers and maps of them: always representable
}

/// The value of a string attribute that holds JSON text.
pub(crate) fn from_json<T: DeserializeOwned>(
    operation: &'static str,
    item: &Item,
    name: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text(operation, item, name)?)
        .map_err(|error| StoreError::corrupt(operation, format!("{name}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(codes: &[&str]) -> Vec<CancellationReason> {
        codes.iter().map(|code| CancellationReason::builder().code(*code).build()).collect()
    }

    #[test]
    fn a_failed_condition_is_no_contention() {
        assert!(is_contention(&reasons(&["None", "TransactionConflict"])));
        assert!(is_contention(&reasons(&["ThrottlingError", "None"])));
        assert!(!is_contention(&reasons(&["ConditionalCheckFailed", "TransactionConflict"])));
        assert!(!is_contention(&reasons(&["None", "ValidationError"])));
        assert!(!is_contention(&reasons(&[])));
    }
}
