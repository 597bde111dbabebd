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

    /// Leaves a message where the state machine leaves what it gives up, with an alarm on it, for an operator to put back.
    fn park(&self, message: String) -> impl Future<Output = Result<(), DeadLettersError>> + Send;
}

/// SQS did not answer, or refused.
#[derive(Debug, thiserror::Error)]
#[error("{operation} the dead-letter queue {url} failed: {cause}; it is tried again in a minute")]
pub struct DeadLettersError {
    operation: &'static str,
    url: String,
    cause: String,
}

/// Dead-letter queues of Amazon SQS.
#[derive(Clone, Debug)]
pub struct DeadLetterQueues {
    client: Client,
    of_participants: Vec<(Participant, String)>,
    parked: String,
}

/// How many times a queue is looked into for up to ten messages each: what is not seen is seen in a minute.
const LOOKS: usize = 20;
/// For how many seconds a message that was looked at is not shown again: as long as looking may take.
const HIDDEN: i32 = 5;

impl DeadLetterQueues {
    /// The queues with these URLs: those of participants, and that of the state machine.
    pub const fn new(client: Client, of_participants: Vec<(Participant, String)>, parked: String) -> Self {
        Self { client, of_participants, parked }
    }

    async fn look_into(&self, url: &str) -> Result<Vec<String>, DeadLettersError> {
        let mut bodies = Vec::new();
        for _ in 0..LOOKS {
            let request = self.client.receive_message().queue_url(url).max_number_of_messages(10);
            let answer = request.visibility_timeout(HIDDEN).send().await;
            let answer = answer.map_err(|error| failed("looking into", url, &error))?;
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
        let of_participants = self.of_participants.iter().map(|(by, url)| (Some(*by), url));
        for (by, url) in of_participants.chain([(None, &self.parked)]) {
            match self.look_into(url).await {
                Ok(bodies) => messages.extend(bodies.into_iter().map(|body| (by, body))),
                Err(error) => errors.push(error),
            }
        }
        (messages, errors)
    }

    async fn park(&self, message: String) -> Result<(), DeadLettersError> {
        let sent = self.client.send_message().queue_url(&self.parked).message_body(message).send().await;
        sent.map(drop).map_err(|error| failed("parking a booking in", &self.parked, &error))
    }
}

fn failed(operation: &'static str, url: &str, error: &dyn std::error::Error) -> DeadLettersError {
    DeadLettersError { operation, url: url.to_owned(), cause: store::causes(error) }
}
