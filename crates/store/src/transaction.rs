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

/// A DynamoDB client that retries conflicting and throttled transactions like everything else: with exponential backoff
/// and jitter, within the time that a function has.
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

/// What an instance of a function may spend on retries, for all its events together. Failed retries use the quota up,
/// and when nothing is left there are no more retries, so as not to make an outage worse. But conflicts are not an
/// outage: DynamoDB answers. At the SDK's price for a transient error, two dozen bookings of a popular flight would use
/// the quota up, and from then on the instance would give up at the first conflict. So conflicts are free; everything
/// else has the SDK's price.
fn quota() -> TokenBucket {
    TokenBucket::builder().retry_cost(0).build()
}

/// The same client with more patience, for programs that read whole tables: reading a page may take a while.
pub fn patient_client(sdk: &SdkConfig) -> Client {
    let patience = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .operation_attempt_timeout(Duration::from_secs(60))
        .operation_timeout(Duration::from_secs(300))
        .build();
    Client::from_conf(client(sdk).config().to_builder().timeout_config(patience).build())
}

/// A transaction that was cancelled only because others were writing the same items, or because of throttling. The SDK
/// leaves it to its users to distinguish that from a failed condition.
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
            // A single write conflicted with a transaction on its item.
            _ if error.downcast_ref().is_some_and(UpdateItemError::is_transaction_conflict_exception)
                || error.downcast_ref().is_some_and(PutItemError::is_transaction_conflict_exception) =>
            {
                true
            }
            _ => return RetryAction::NoActionIndicated,
        };
        // Classified as a client error it costs no quota: see `quota`.
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

/// Why nothing was written: for each item of the transaction, whether its own condition failed, and which item was
/// there.
///
/// A failed condition is a result even if another item of the transaction was in conflict. Only that other item then
/// remains unknown.
pub(crate) struct Refused {
    operation: &'static str,
    reasons: Vec<CancellationReason>,
}

impl Refused {
    /// Fails if one of the first items remains unknown, for callers that cannot decide without them.
    pub(crate) fn all_known(&self, first: usize) -> Result<(), StoreError> {
        if self.reasons.iter().take(first).filter_map(CancellationReason::code).any(is_busy) {
            return Err(StoreError::Contention { operation: self.operation });
        }
        Ok(())
    }

    /// Whether the condition on the item at this position of the transaction failed.
    pub(crate) fn failed(&self, place: usize) -> bool {
        self.reasons.get(place).and_then(CancellationReason::code) == Some("ConditionalCheckFailed")
    }

    /// The item that was found instead; none if there was none, or if the condition held.
    pub(crate) fn item(&self, place: usize) -> Option<&Item> {
        if self.failed(place) { self.reasons[place].item().filter(|item| !item.is_empty()) } else { None }
    }
}

/// Writes all items or none. The SDK adds a client token, so a retry after a lost response is the same transaction.
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

/// Building a request fails only if a required member is missing, and all are set.
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
        _ => Err(StoreError::corrupt(operation, format!("{name} is not a string"))),
    }
}

/// The value of a number attribute; none if the item does not have it.
pub(crate) fn integer(operation: &'static str, item: &Item, name: &str) -> Result<Option<i64>, StoreError> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::N(digits)) => match digits.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(StoreError::corrupt(operation, format!("{name} is not a whole number"))),
        },
        Some(_) => Err(StoreError::corrupt(operation, format!("{name} is not a number"))),
    }
}

/// A value as JSON.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default() // strings, numbers and maps of them can always be represented
}

/// The value of a string attribute that holds JSON.
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
