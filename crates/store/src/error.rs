//! Technical errors of the store.

use std::error::Error;

use aws_sdk_dynamodb::error::ProvideErrorMetadata;

/// A request to the store without a result. Its effect is unknown, and it is safe to repeat.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Other writers kept changing the same items, or the table was throttled, for longer than the client retries.
    #[error("{operation} met conflicting transactions or throttling on every attempt; try again later")]
    Contention {
        /// The operation that was tried.
        operation: &'static str,
    },
    /// DynamoDB did not answer, or refused.
    #[error(
        "{operation} failed: {cause}; try again, and if it keeps failing check table names, permissions and the endpoint"
    )]
    Unavailable {
        /// The operation that was tried.
        operation: &'static str,
        /// The error of the SDK.
        cause: String,
    },
    /// An item does not have the form in which this program writes it. Trying again does not help.
    #[error("{operation} found an item that cannot be read: {cause}")]
    Corrupt {
        /// The operation that was tried.
        operation: &'static str,
        /// What is wrong with the item.
        cause: String,
    },
}

impl StoreError {
    /// The error for a request that the SDK has given up on without a usable answer.
    pub(crate) fn unavailable(operation: &'static str, error: impl Error + ProvideErrorMetadata) -> Self {
        match error.code() {
            Some(code) if BUSY.contains(&code) => Self::Contention { operation },
            _ => Self::Unavailable { operation, cause: causes(&error) },
        }
    }

    pub(crate) fn corrupt(operation: &'static str, cause: impl Into<String>) -> Self {
        Self::Corrupt { operation, cause: cause.into() }
    }
}

/// DynamoDB works, but others are writing the same item, or the table is throttled.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
const BUSY: [&str; 5] = [
    "TransactionConflictException",
    "TransactionInProgressException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
];

/// An error and its sources, on one line.
pub fn causes(error: &dyn Error) -> String {
    let mut all = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        all = format!("{all}: {cause}");
        next = cause.source();
    }
    all
}
