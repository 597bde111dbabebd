//! A function's queue: SQS deletes the messages that are done and redelivers the others. The function decides how soon,
//! and which messages can never succeed.

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

/// The message attribute that says why a message is in a dead-letter queue.
pub const REASON: &str = "reason";

/// The wait before the second attempt, and the maximum wait: each wait is up to twice as long as the previous one, of
/// which a random part is used.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

impl Queue {
    /// The queue of this function, from `QUEUE_URL` and `DEAD_LETTER_QUEUE_URL`.
    pub fn of_function(aws: &SdkConfig) -> Result<Self, Error> {
        Ok(Self::new(aws, setting("QUEUE_URL")?, setting("DEAD_LETTER_QUEUE_URL")?))
    }

    /// The queue with this URL, and the URL of its dead-letter queue.
    pub fn new(aws: &SdkConfig, url: impl Into<String>, dead_letters_url: impl Into<String>) -> Self {
        Self { client: Client::new(aws), url: url.into(), dead_letters_url: dead_letters_url.into() }
    }

    /// Moves a message that can never succeed to the dead-letter queue, with the reason, instead of trying it again and
    /// again.
    pub(crate) async fn park(&self, body: &str, reason: &str) -> Result<(), aws_sdk_sqs::Error> {
        let reason: String = reason.chars().filter(|c| is_taken(*c)).take(1_000).collect();
        let reason = MessageAttributeValue::builder().data_type("String").string_value(reason).build()?;
        let message = self.client.send_message().queue_url(&self.dead_letters_url).message_body(body);
        message.message_attributes(REASON, reason).send().await?;
        Ok(())
    }

    /// Delays the next delivery of a message, longer with each attempt. If that fails, the message is redelivered after
    /// the queue's visibility timeout.
    pub(crate) async fn back_off(&self, receipt: &str, received: u32) -> Result<(), aws_sdk_sqs::Error> {
        let seconds = backoff(received).as_secs_f64() * fastrand::f64();
        let request = self.client.change_message_visibility().queue_url(&self.url).receipt_handle(receipt);
        request.visibility_timeout(seconds.round() as i32).send().await?; // 300 at most
        Ok(())
    }
}

/// Whether SQS accepts a character. A message with another one would not be parked, and the reason may contain a field
/// name with such a character:
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>
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
