//! What can go wrong with the store, technically.

use aws_sdk_dynamodb::error::{DisplayErrorContext, SdkError};

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
    pub(crate) fn unavailable<E, R>(operation: &'static str, error: SdkError<E, R>) -> Self
    where
        E: std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        Self::Unavailable { operation, cause: DisplayErrorContext(error).to_string() }
    }

    pub(crate) fn corrupt(operation: &'static str, cause: impl Into<String>) -> Self {
        Self::Corrupt { operation, cause: cause.into() }
    }
}
