//! The topic that participants tell each other on what happened.

use aws_sdk_sns::Client;

/// Publishes events.
pub trait Events {
    /// Publishes an event, as JSON. It may be published again.
    fn publish(&self, event: String) -> impl Future<Output = Result<(), EventsError>> + Send;
}

/// SNS did not answer, or refused.
#[derive(Debug, thiserror::Error)]
#[error("publishing an event failed: {cause}; try again, and check the topic's ARN and permissions if it stays so")]
pub struct EventsError {
    cause: String,
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
            Err(error) => Err(EventsError { cause: store::causes(&error) }),
        }
    }
}
