//! Dead-letter queues, read without removing anything.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aws_sdk_sqs::Client;
use futures_util::future::join_all;
use saga::Participant;

/// Where a step that must succeed was given up: at a participant, or else in the state machine.
pub type GivenUpBy = Option<Participant>;

/// Reads dead letters, and leaves one for an operator.
pub trait DeadLetters {
    /// Some messages as they were received, each with where it was given up. They stay in their queues. What cannot be
    /// read is among the errors.
    fn look(&self) -> impl Future<Output = (Vec<(GivenUpBy, String)>, Vec<DeadLettersError>)> + Send;

    /// Leaves a message in the queue where the state machine parks steps; an alarm is on it, and an operator puts the
    /// message back.
    fn park(&self, message: String) -> impl Future<Output = Result<(), DeadLettersError>> + Send;
}

/// SQS did not answer, or refused.
#[derive(Debug, thiserror::Error)]
#[error("{operation} the dead-letter queue {url} failed: {cause}; the next run tries again in a minute")]
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

/// The maximum number of messages in one response.
const PAGE: usize = 10;
/// How many pages of a queue are read at most. Messages beyond that are seen a minute later.
const LOOKS: usize = 200;
/// How long a queue is read at most.
const LOOKING: Duration = Duration::from_secs(10);
/// For how many seconds the messages of a long queue are hidden, so that the next page has other messages. Meanwhile
/// they do not count as visible, and the alarms count visible messages.
const HIDDEN: i32 = 2;

impl DeadLetterQueues {
    /// The queues with these URLs: those of the participants, and that of the state machine.
    pub const fn new(client: Client, of_participants: Vec<(Participant, String)>, parked: String) -> Self {
        Self { client, of_participants, parked }
    }

    /// The messages in a queue, each once. If one page holds them all, nothing is hidden.
    async fn look_into(&self, url: &str) -> Result<Vec<String>, DeadLettersError> {
        let page = self.page(url, 0).await?;
        if page.len() < PAGE {
            return Ok(page.into_values().collect());
        }
        let (mut found, deadline) = (HashMap::new(), Instant::now() + LOOKING);
        for _ in 0..LOOKS {
            let before = found.len();
            found.extend(self.page(url, HIDDEN).await?);
            if found.len() == before || Instant::now() >= deadline {
                break;
            }
        }
        Ok(found.into_values().collect())
    }

    /// Some messages by their ids, which are hidden for this many seconds.
    async fn page(&self, url: &str, hidden: i32) -> Result<HashMap<String, String>, DeadLettersError> {
        let request = self.client.receive_message().queue_url(url).max_number_of_messages(PAGE as i32);
        let answer = request.visibility_timeout(hidden).send().await;
        let answer = answer.map_err(|error| failed("reading", url, &error))?;
        let messages = answer.messages.unwrap_or_default().into_iter();
        Ok(messages.filter_map(|message| Some((message.message_id?, message.body?))).collect())
    }
}

impl DeadLetters for DeadLetterQueues {
    async fn look(&self) -> (Vec<(GivenUpBy, String)>, Vec<DeadLettersError>) {
        let (mut messages, mut errors) = (Vec::new(), Vec::new());
        let of_participants = self.of_participants.iter().map(|(by, url)| (Some(*by), url));
        let looks =
            of_participants.chain([(None, &self.parked)]).map(async |(by, url)| (by, self.look_into(url).await));
        for (by, found) in join_all(looks).await {
            match found {
                Ok(bodies) => messages.extend(bodies.into_iter().map(|body| (by, body))),
                Err(error) => errors.push(error),
            }
        }
        (messages, errors)
    }

    async fn park(&self, message: String) -> Result<(), DeadLettersError> {
        let sent = self.client.send_message().queue_url(&self.parked).message_body(message).send().await;
        sent.map(drop).map_err(|error| failed("parking a message in", &self.parked, &error))
    }
}

fn failed(operation: &'static str, url: &str, error: &dyn std::error::Error) -> DeadLettersError {
    DeadLettersError { operation, url: url.to_owned(), cause: store::causes(error) }
}
