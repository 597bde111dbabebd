//! The topic that participants publish their events to.

use aws_sdk_sns::Client;

use crate::executions::is_refused;

/// Publishes events to the participants.
pub trait EventPublisher {
    /// Publishes an event, as JSON. May be repeated for the same event.
    fn publish(&self, event: String) -> impl Future<Output = Result<(), PublishError>> + Send;
}

/// SNS did not answer, or refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "publishing an event failed: {cause}; try again, and if it keeps failing check the topic's ARN and permissions"
)]
pub struct PublishError {
    /// Whether it is certain that nothing was published. If the answer is missing, it may have been lost.
    pub is_refused: bool,
    /// The error of the SDK.
    pub cause: String,
}

/// A topic of Amazon SNS.
#[derive(Clone, Debug)]
pub struct Topic {
    client: Client,
    arn: String,
}

impl Topic {
    /// The topic with this ARN.
    pub fn new(client: Client, arn: impl Into<String>) -> Self {
        Self { client, arn: arn.into() }
    }
}

impl EventPublisher for Topic {
    async fn publish(&self, event: String) -> Result<(), PublishError> {
        match self.client.publish().topic_arn(&self.arn).message(event).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(PublishError { is_refused: is_refused(&error), cause: store::causes(&error) }),
        }
    }
}
