//! What can go wrong with the store, technically.

use std::error::Error;

use aws_sdk_dynamodb::error::ProvideErrorMetadata;

/// A request to the store that led to no answer. Nothing is known of its effect, and it is safe to send again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Others kept changing the same items, or the table is throttled, for longer than the client retries.
    #[error("{operation} met conflicting transactions or throttling on every attempt; try again later")]
    Contention {
        /// What was tried.
        operation: &'static str,
    },
    /// DynamoDB did not answer, or refused.
    #[error(
        "{operation} failed: {cause}; try again, and check table names, permissions and the endpoint if it stays so"
    )]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// What the SDK says.
        cause: String,
    },
    /// An item is there that this program did not write so. Trying again does not help.
    #[error("{operation} found an item that cannot be read: {cause}")]
    Corrupt {
        /// What was tried.
        operation: &'static str,
        /// What is wrong with it.
        cause: String,
    },
}

impl StoreError {
    /// What an error that the SDK has given up on stands for, and that is no answer.
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

/// DynamoDB is well, but others are at work on the same item, or there is too much work altogether.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
const BUSY: [&str; 5] = [
    "TransactionConflictException",
    "TransactionInProgressException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
];

/// An error and what lies behind it, on one line.
pub fn causes(error: &dyn Error) -> String {
    let mut all = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        all = format!("{all}: {cause}");
        next = cause.source();
    }
    all
}
