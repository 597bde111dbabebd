//! Dead-letter queues, looked at without taking anything away.

use aws_sdk_sqs::Client;
use saga::Participant;

/// Who gives steps up that must succeed: a participant, or else the state machine.
pub type GivenUpBy = Option<Participant>;

/// Messages that were given up.
pub trait DeadLetters {
    /// Some messages, with who has given them up, as they were given to it. They stay where they are. What cannot be
    /// looked into is among the errors.
    fn look(&self) -> impl Future<Output = (Vec<(GivenUpBy, String)>, Vec<DeadLettersError>)> + Send;
}

/// SQS did not answer, or refused.
#[derive(Debug, thiserror::Error)]
#[error("looking into the dead-letter queue {url} failed: {cause}; it is looked into again in a minute")]
pub struct DeadLettersError {
    url: String,
    cause: String,
}

/// Dead-letter queues of Amazon SQS.
#[derive(Clone, Debug)]
pub struct DeadLetterQueues {
    client: Client,
    urls: Vec<(GivenUpBy, String)>,
}

/// How many times a queue is looked into for up to ten messages each: what is not seen is seen in a minute.
const LOOKS: usize = 20;
/// For how many seconds a message that was looked at is not shown again: as long as looking may take.
const HIDDEN: i32 = 5;

impl DeadLetterQueues {
    /// The queues with these URLs.
    pub const fn new(client: Client, urls: Vec<(GivenUpBy, String)>) -> Self {
        Self { client, urls }
    }

    async fn look_into(&self, url: &str) -> Result<Vec<String>, DeadLettersError> {
        let mut bodies = Vec::new();
        for _ in 0..LOOKS {
            let request = self.client.receive_message().queue_url(url).max_number_of_messages(10);
            let answer = request.visibility_timeout(HIDDEN).send().await;
            let answer =
                answer.map_err(|error| DeadLettersError { url: url.to_owned(), cause: store::causes(&error) })?;
            let found: Vec<_> = answer.messages.unwrap_or_default().into_iter().filter_map(|m| m.body).collect();
            if found.is_empty() {
                break;
            }
            bodies.extend(found);
        }
        Ok(bodies)
    }
}

impl DeadLetters for DeadLetterQueues {
    async fn look(&self) -> (Vec<(GivenUpBy, String)>, Vec<DeadLettersError>) {
        let (mut messages, mut errors) = (Vec::new(), Vec::new());
        for (by, url) in &self.urls {
            match self.look_into(url).await {
                Ok(bodies) => messages.extend(bodies.into_iter().map(|body| (*by, body))),
                Err(error) => errors.push(error),
            }
        }
        (messages, errors)
    }
}
