//! The topic that participants tell each other on what happened.

use aws_sdk_sns::Client;

use crate::executions::is_refused;

/// Publishes events.
pub trait Events {
    /// Publishes an event, as JSON. It may be published again.
    fn publish(&self, event: String) -> impl Future<Output = Result<(), EventsError>> + Send;
}

/// SNS did not answer, or refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error("publishing an event failed: {cause}; try again, and check the topic's ARN and permissions if it stays so")]
pub struct EventsError {
    /// Whether nothing was published for certain. An answer that is missing may have been lost.
    pub is_refused: bool,
    /// What went wrong.
    pub cause: String,
}

/// A topic of Amazon SNS.
#[derive(Clone, Debug)]
pub struct Topic {
    client: Client,
    arn: String,
}

impl Topic {
    /// The topic of that ARN.
    pub fn new(client: Client, arn: impl Into<String>) -> Self {
        Self { client, arn: arn.into() }
    }
}

impl Events for Topic {
    async fn publish(&self, event: String) -> Result<(), EventsError> {
        match self.client.publish().topic_arn(&self.arn).message(event).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(EventsError { is_refused: is_refused(&error), cause: store::causes(&error) }),
        }
    }
}
