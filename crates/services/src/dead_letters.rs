//! Dead-letter queues, looked at without taking anything away.

use aws_sdk_sqs::Client;
use saga::Participant;

/// Messages that their participants have given up.
pub trait DeadLetters {
    /// Some messages that this participant has given up, as they were given to it. They stay where they are.
    fn of(&self, participant: Participant) -> impl Future<Output = Result<Vec<String>, DeadLettersError>> + Send;
}

/// SQS did not answer, or refused.
#[derive(Debug, thiserror::Error)]
#[error("looking into the dead-letter queue of {participant} failed: {cause}; it is looked into again in a minute")]
pub struct DeadLettersError {
    participant: &'static str,
    cause: String,
}

/// The dead-letter queues of Amazon SQS, one for each participant.
#[derive(Clone, Debug)]
pub struct DeadLetterQueues {
    client: Client,
    urls: [(Participant, String); Participant::ALL.len()],
}

/// How many times a queue is looked into for up to ten messages each: what is not seen is seen in a minute.
const LOOKS: usize = 20;
/// For how many seconds a message that was looked at is not shown again: as long as looking may take.
const HIDDEN: i32 = 20;

impl DeadLetterQueues {
    /// The queues with these URLs.
    pub const fn new(client: Client, urls: [(Participant, String); Participant::ALL.len()]) -> Self {
        Self { client, urls }
    }
}

impl DeadLetters for DeadLetterQueues {
    async fn of(&self, participant: Participant) -> Result<Vec<String>, DeadLettersError> {
        let mut bodies = Vec::new();
        let urls = self.urls.iter().filter(|(of, _)| *of == participant);
        for (_, url) in urls {
            for _ in 0..LOOKS {
                let request = self.client.receive_message().queue_url(url).max_number_of_messages(10);
                let answer = request.visibility_timeout(HIDDEN).send().await.map_err(|error| DeadLettersError {
                    participant: participant.name(),
                    cause: store::causes(&error),
                })?;
                let found: Vec<_> = answer.messages.unwrap_or_default().into_iter().filter_map(|m| m.body).collect();
                if found.is_empty() {
                    break;
                }
                bodies.extend(found);
            }
        }
        Ok(bodies)
    }
}
