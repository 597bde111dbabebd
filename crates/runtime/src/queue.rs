//! The queue that a function is fed from, seen from the function: SQS deletes what is done, and what is not done comes
//! again. How soon, and what can never be done, the function says itself.

use std::time::Duration;

use aws_sdk_sqs::{Client, types::MessageAttributeValue};
use aws_types::SdkConfig;

use crate::{Error, setting};

/// A queue with its dead-letter queue.
#[derive(Clone, Debug)]
pub struct Queue {
    client: Client,
    url: String,
    dead_letters_url: String,
}

/// The name of the attribute that says why a message is in a dead-letter queue.
pub const REASON: &str = "reason";

/// How long to wait before the second attempt, and how long at the most: each wait is up to twice as long as the one
/// before, and a random part of that.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

impl Queue {
    /// The queue of this function, which `QUEUE_URL` and `DEAD_LETTER_QUEUE_URL` name.
    pub fn of_function(aws: &SdkConfig) -> Result<Self, Error> {
        Ok(Self::new(aws, setting("QUEUE_URL")?, setting("DEAD_LETTER_QUEUE_URL")?))
    }

    /// The queue with this URL, whose dead-letter queue has that one.
    pub fn new(aws: &SdkConfig, url: impl Into<String>, dead_letters_url: impl Into<String>) -> Self {
        Self { client: Client::new(aws), url: url.into(), dead_letters_url: dead_letters_url.into() }
    }

    /// Puts a message aside that can never be done, with the reason, instead of trying it again and again.
    pub(crate) async fn park(&self, body: &str, reason: &str) -> Result<(), aws_sdk_sqs::Error> {
        let reason: String = reason.chars().filter(|c| is_taken(*c)).take(1_000).collect();
        let reason = MessageAttributeValue::builder().data_type("String").string_value(reason).build()?;
        let message = self.client.send_message().queue_url(&self.dead_letters_url).message_body(body);
        message.message_attributes(REASON, reason).send().await?;
        Ok(())
    }

    /// Lets a message come again after a while that grows with each attempt. If that cannot be said, it comes again after
    /// the queue's visibility timeout.
    pub(crate) async fn back_off(&self, receipt: &str, received: u32) -> Result<(), aws_sdk_sqs::Error> {
        let seconds = backoff(received).as_secs_f64() * fastrand::f64();
        let request = self.client.change_message_visibility().queue_url(&self.url).receipt_handle(receipt);
        request.visibility_timeout(seconds.round() as i32).send().await?; // at most 300
        Ok(())
    }
}

/// A message with a character that SQS does not take would not be parked, and the reason may name a field by a name that
/// has one: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>.
fn is_taken(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')
}

fn backoff(received: u32) -> Duration {
    let doubled = 1_u32.checked_shl(received.saturating_sub(1)).unwrap_or(u32::MAX);
    BACKOFF.0.saturating_mul(doubled).min(BACKOFF.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        let seconds = |received| backoff(received).as_secs();
        assert_eq!([0, 1, 2, 3, 9].map(seconds), [1, 1, 2, 4, 256]);
        assert_eq!([10, 32, 33, u32::MAX].map(seconds), [300; 4]);
    }
}
