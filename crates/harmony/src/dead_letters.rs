//! Dead-letter queues: what lies in them, and how it is put back.
//!
//! ```text
//!   queue ── given up after so many attempts ──▶ dead-letter queue     looked at: hidden for a moment, then visible
//!     ▲                                                 │
//!     └────────── message move task of SQS ─────────────┘
//! ```
//!
//! Whoever else looks into such a queue hides its messages for a while, as the reconciler does each minute. A message
//! that is hidden is not seen here and is not moved, so both wait for it.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use aws_sdk_sqs::{
    Client,
    types::{
        ChangeMessageVisibilityBatchRequestEntry, ListMessageMoveTasksResultEntry, Message as Received,
        MessageSystemAttributeName::{DeadLetterQueueSourceArn, SentTimestamp},
        QueueAttributeName,
    },
};
use aws_types::SdkConfig;
use comfy_table::{
    ColumnConstraint, ContentArrangement, Table, modifiers::UTF8_ROUND_CORNERS, presets::UTF8_FULL_CONDENSED,
};
use console::Style;
use futures_util::future::join_all;
use jiff::Timestamp;
use runtime::{Failure, Input, REASON};
use saga::{BookingId, Envelope};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Stack, StackError,
    client::Reason,
    show::{Look, count, plain, wrap},
};

/// How long to wait for messages that somebody else looks at: longer than the reconciler hides them.
pub const HELD: Duration = Duration::from_secs(10);
/// How long it may take to put the messages of a queue back.
const PATIENCE: Duration = Duration::from_secs(150);
/// How long to wait before looking again.
const AGAIN: Duration = Duration::from_millis(500);
/// For how many seconds a message that was looked at is hidden, if it cannot be made visible again at once.
const HIDDEN: i32 = 20;
/// How many messages of a queue are looked at.
const MOST: usize = 2_000;
/// How many characters of a message are shown that cannot be read, and how many of a reason.
const SHOWN: (usize, usize) = (60, 300);

/// Why bookings cannot be driven again.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// It is not known where to ask for them.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The reconciler was asked for all others.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    NotAsked(Vec<NotAsked>),
}

/// A booking that the reconciler was not asked for: SQS did not answer, or refused.
#[derive(Debug, thiserror::Error)]
#[error("asking the reconciler for booking {booking} failed: {cause}; check your permissions, then repeat it")]
pub struct NotAsked {
    /// Which booking.
    pub booking: BookingId,
    /// What SQS says.
    pub cause: String,
}

/// Why a dead-letter queue cannot be looked into, or its messages not be put back.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// SQS did not answer, or refused.
    #[error("{operation} {queue} failed: {cause}; check that the queue is there, and your permissions")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// With which queue.
        queue: String,
        /// What went wrong.
        cause: String,
    },
    /// Where messages came from is not clear.
    #[error(
        "{queue} is the dead-letter queue of {sources} queues, not of one: move its messages in the console of SQS"
    )]
    NoSource {
        /// Which queue.
        queue: String,
        /// Of how many.
        sources: usize,
    },
    /// A task ended before its time.
    #[error("moving the messages of {queue} ended as {status}: {cause}; see `harmony parked`, then redrive again")]
    NotMoved {
        /// Which queue.
        queue: String,
        /// How the task ended.
        status: String,
        /// What SQS says.
        cause: String,
    },
    /// It takes too long.
    #[error("{queue} still has {left} after {} s: see `harmony parked`, then redrive again", PATIENCE.as_secs())]
    Left {
        /// Which queue.
        queue: String,
        /// How many messages.
        left: String,
    },
}

/// A dead-letter queue.
#[derive(Clone, Debug)]
pub struct DeadLetterQueue {
    client: Client,
    url: String,
}

/// What lies in a dead-letter queue.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// The messages, the oldest first.
    pub messages: Vec<Message>,
    /// How many more there are: somebody else looks at them, or there are very many.
    pub held: usize,
}

/// A message that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Its name in this queue.
    pub id: String,
    /// The booking that it is about, if it says so.
    pub booking_id: Option<BookingId>,
    /// What it says.
    pub says: String,
    /// When it was sent. To be moved into a dead-letter queue does not change that.
    pub sent: Option<Timestamp>,
    /// Why it is here; empty if nobody said so.
    pub why: String,
}

/// The queue that messages came from.
struct Source {
    name: String,
    arn: String,
    /// How often a message is tried there.
    attempts: Option<u64>,
}

/// What became of the messages that were put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutBack {
    /// The queue that they are in now.
    pub into: String,
    /// How many were moved, as SQS counts them.
    pub moved: i64,
    /// How many messages have come into the dead-letter queue since: they may be the same ones, given up again.
    pub came: usize,
}

/// Has the reconciler drive bookings again, whether a message of theirs is parked or not. To ask again is another message.
/// It is asked for every one, whatever becomes of the others.
pub async fn drive(stack: &Stack, bookings: &[BookingId]) -> Result<(), DriveError> {
    let client = Client::new(&stack.sdk().await?);
    ask(&client, stack.output("ReconcilerInboxUrl")?, bookings).await
}

async fn ask(client: &Client, inbox: &str, bookings: &[BookingId]) -> Result<(), DriveError> {
    let mut not_asked = Vec::new();
    for booking in bookings {
        let message = json!({"booking_id": booking, "asked_at": Timestamp::now()}).to_string();
        if let Err(error) = client.send_message().queue_url(inbox).message_body(message).send().await {
            not_asked.push(NotAsked { booking: booking.clone(), cause: store::causes(&error) });
        }
    }
    if not_asked.is_empty() { Ok(()) } else { Err(DriveError::NotAsked(not_asked)) }
}

/// What lies in each of these queues, and why that is not known of some: they hide nothing of the others.
pub async fn contents(
    queues: Vec<DeadLetterQueue>,
    within: Duration,
) -> Vec<(DeadLetterQueue, Result<Content, DeadLetterError>)> {
    let looks = queues.into_iter().map(async |queue| {
        let content = queue.content(within).await;
        (queue, content)
    });
    join_all(looks).await
}

impl DeadLetterQueue {
    /// The dead-letter queues of a stack.
    pub fn all(stack: &Stack, sdk: &SdkConfig) -> Result<Vec<Self>, StackError> {
        let client = Client::new(sdk);
        let queue = |url: &str| Self { client: client.clone(), url: url.to_owned() };
        Ok(stack.dead_letter_queue_urls()?.map(queue).collect())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        name(&self.url)
    }

    fn refused<E: std::error::Error>(&self, operation: &'static str) -> impl Fn(E) -> DeadLetterError {
        let queue = self.name().to_owned();
        move |error| DeadLetterError::Refused { operation, queue: queue.clone(), cause: store::causes(&error) }
    }

    /// What lies in the queue. The messages stay there. Waits for so long for those that somebody else looks at.
    pub async fn content(&self, within: Duration) -> Result<Content, DeadLetterError> {
        let deadline = Instant::now() + within;
        let mut found = BTreeMap::new();
        let held = loop {
            let there = self.size().await?;
            self.look(&mut found).await?;
            let held = there.saturating_sub(found.len());
            if held == 0 || found.len() >= MOST || Instant::now() >= deadline {
                break held;
            }
            tokio::time::sleep(AGAIN).await;
        };
        // Who may look at messages need not be allowed to look at their source: then it is left open how often they
        // were tried.
        let attempts =
            if found.is_empty() { None } else { self.source().await.ok().and_then(|source| source.attempts) };
        let mut messages: Vec<_> = found.values().map(|message| read(message, attempts)).collect();
        messages.sort_by_key(|message| message.sent);
        Ok(Content { messages, held })
    }

    /// How many messages there are, hidden or not, as far as SQS knows at once.
    async fn size(&self) -> Result<usize, DeadLetterError> {
        const COUNTS: [QueueAttributeName; 2] = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        ];
        let attributes = self.attributes(&self.url, &COUNTS).await?;
        let count = |name| attributes.get(name).and_then(|count| count.parse::<usize>().ok()).unwrap_or(0);
        Ok(COUNTS.iter().map(count).sum())
    }

    async fn attributes(
        &self,
        url: &str,
        names: &[QueueAttributeName],
    ) -> Result<HashMap<QueueAttributeName, String>, DeadLetterError> {
        let request = self.client.get_queue_attributes().queue_url(url).set_attribute_names(Some(names.to_vec()));
        let answer = request.send().await.map_err(self.refused("looking at the attributes of"))?;
        Ok(answer.attributes.unwrap_or_default())
    }

    /// Takes every message that is visible for a moment, page by page until nothing new comes, then gives all back.
    async fn look(&self, found: &mut BTreeMap<String, Received>) -> Result<(), DeadLetterError> {
        let mut seen = BTreeMap::new();
        while seen.len() < MOST {
            let request = self
                .client
                .receive_message()
                .queue_url(&self.url)
                .max_number_of_messages(10)
                .visibility_timeout(HIDDEN)
                .wait_time_seconds(1) // not to wait at all would be to ask only some of SQS's servers
                .message_system_attribute_names(SentTimestamp)
                .message_system_attribute_names(DeadLetterQueueSourceArn)
                .message_attribute_names(REASON);
            let page = request.send().await.map_err(self.refused("looking into"))?.messages.unwrap_or_default();
            let before = seen.len();
            seen.extend(page.into_iter().filter_map(|message| Some((message.message_id.clone()?, message))));
            if seen.len() == before {
                break;
            }
        }
        let messages: Vec<_> = seen.values().collect();
        for page in messages.chunks(10) {
            let entries = page.iter().enumerate().filter_map(|(nth, message)| {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(nth.to_string());
                entry.set_receipt_handle(message.receipt_handle.clone()).visibility_timeout(0).build().ok()
            });
            let request = self.client.change_message_visibility_batch().queue_url(&self.url);
            let _ = request.set_entries(Some(entries.collect())).send().await; // or else they come back by themselves
        }
        found.extend(seen);
        Ok(())
    }

    async fn source(&self) -> Result<Source, DeadLetterError> {
        let request = self.client.list_dead_letter_source_queues().queue_url(&self.url);
        let answer = request.send().await.map_err(self.refused("looking up the source of"))?;
        let [url] = answer.queue_urls() else {
            let sources = answer.queue_urls().len();
            return Err(DeadLetterError::NoSource { queue: self.name().to_owned(), sources });
        };
        let mut attributes =
            self.attributes(url, &[QueueAttributeName::QueueArn, QueueAttributeName::RedrivePolicy]).await?;
        let policy = attributes.get(&QueueAttributeName::RedrivePolicy).map(String::as_str).unwrap_or_default();
        let attempts = attempts(policy);
        let arn = attributes.remove(&QueueAttributeName::QueueArn).unwrap_or_default();
        Ok(Source { name: name(url).to_owned(), arn, attempts })
    }

    /// Puts everything back to where it came from, and waits until none of these messages is left. `tell` is told how
    /// it goes on.
    pub async fn put_back(&self, messages: &[Message], tell: impl Fn(&str)) -> Result<PutBack, DeadLetterError> {
        let deadline = Instant::now() + PATIENCE;
        let source = self.source().await?;
        let arn = self.attributes(&self.url, &[QueueAttributeName::QueueArn]).await?;
        let arn = arn.get(&QueueAttributeName::QueueArn).map(String::as_str).unwrap_or_default();
        let mut moved = 0;
        loop {
            tell(&format!("{}: moving {}", self.name(), count(messages.len() as u64, "message")));
            moved += self.move_all(arn, &source, deadline).await?;
            tell(&format!("{}: looking whether it is empty", self.name()));
            let content = self.content(HELD.min(deadline.saturating_duration_since(Instant::now()))).await?;
            let is_left = |message: &&Message| messages.iter().any(|before| before.id == message.id);
            let left = content.messages.iter().filter(is_left).count() + content.held;
            if left == 0 {
                return Ok(PutBack { into: source.name, moved, came: content.messages.len() });
            }
            if Instant::now() >= deadline {
                return Err(self.left(left));
            }
        }
    }

    fn left(&self, left: usize) -> DeadLetterError {
        DeadLetterError::Left { queue: self.name().to_owned(), left: count(left as u64, "message") }
    }

    /// Moves what is visible. Only one such task can run for a queue: if there is one, it is as good.
    async fn move_all(&self, arn: &str, source: &Source, deadline: Instant) -> Result<i64, DeadLetterError> {
        let earlier = match self.last_task(arn).await? {
            Some(task) if matches!(task.status(), Some("RUNNING" | "CANCELLING")) => None,
            earlier => {
                let request = self.client.start_message_move_task().source_arn(arn).destination_arn(&source.arn);
                request.send().await.map_err(self.refused("moving the messages of"))?;
                earlier.map(|task| task.started_timestamp)
            }
        };
        loop {
            // The list may be a moment behind, and not know the new task yet.
            let task = self.last_task(arn).await?.filter(|task| Some(task.started_timestamp) != earlier);
            match task.as_ref().and_then(ListMessageMoveTasksResultEntry::status) {
                Some("COMPLETED") => return Ok(task.map_or(0, |task| task.approximate_number_of_messages_moved)),
                Some(status @ ("FAILED" | "CANCELLED")) => {
                    let cause = task.as_ref().and_then(|task| task.failure_reason()).unwrap_or("SQS gives no reason");
                    return Err(DeadLetterError::NotMoved {
                        queue: self.name().to_owned(),
                        status: status.to_lowercase(),
                        cause: cause.to_owned(),
                    });
                }
                _ if Instant::now() >= deadline => return Err(self.left(self.size().await?)),
                _ => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    async fn last_task(&self, arn: &str) -> Result<Option<ListMessageMoveTasksResultEntry>, DeadLetterError> {
        let request = self.client.list_message_move_tasks().source_arn(arn).max_results(1); // the newest comes first
        let answer =
            request.send().await.map_err(self.refused("looking up how far SQS is with moving the messages of"))?;
        Ok(answer.results.unwrap_or_default().into_iter().next())
    }
}

/// The last part of a queue's URL.
fn name(url: &str) -> &str {
    url.trim_end_matches('/').rsplit('/').next().unwrap_or(url)
}

/// How often a message is tried in a queue with this redrive policy. How often a dead letter was received says less: to
/// look at it counts too, whoever looks.
fn attempts(policy: &str) -> Option<u64> {
    let policy: Value = serde_json::from_str(policy).ok()?;
    let attempts = &policy["maxReceiveCount"];
    attempts.as_u64().or_else(|| attempts.as_str()?.parse().ok())
}

/// The beginning of a text that anybody may have written.
fn beginning(text: &str, most: usize) -> String {
    let text = plain(text);
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Reads a message from a dead-letter queue whose source tries so often.
fn read(message: &Received, attempts: Option<u64>) -> Message {
    let body = message.body().unwrap_or_default();
    let (booking_id, says, by) = said(body).unwrap_or_else(|| {
        let says = if body.is_empty() { "nothing".into() } else { format!("unreadable: {}", beginning(body, SHOWN.0)) };
        (None, says, "")
    });
    let system = |name| message.attributes()?.get(&name).map(String::as_str);
    let reason = message.message_attributes().and_then(|attributes| attributes.get(REASON)?.string_value());
    // One that was put back keeps its attributes, and may have been given up by the queue since.
    let why = match (system(DeadLetterQueueSourceArn), reason, attempts) {
        (Some(_), _, Some(attempts)) => format!("given up after {}", count(attempts, "attempt")),
        (Some(_), _, None) => "given up".into(),
        (None, Some(reason), _) => beginning(reason, SHOWN.1),
        (None, None, _) => by.to_owned(),
    };
    let sent = system(SentTimestamp).and_then(|sent| Timestamp::from_millisecond(sent.parse().ok()?).ok());
    Message { id: message.message_id().unwrap_or_default().to_owned(), booking_id, says, sent, why }
}

/// What the state machine leaves if a step that must succeed was given up.
#[derive(Deserialize)]
struct Parked {
    booking_id: BookingId,
    stuck: Vec<Stuck>,
}

/// What the reconciler leaves if a booking does not end.
#[derive(Deserialize)]
struct Unending {
    booking_id: BookingId,
    reason: Reason,
}

#[derive(Deserialize)]
struct Stuck {
    step: Option<String>,
    error: String,
}

type Said = (Option<BookingId>, String, &'static str);

/// The booking, what is said of it, and by whom it was given up if the queue did not do it; none if nobody can read it.
fn said(body: &str) -> Option<Said> {
    if let Ok(Parked { booking_id, stuck }) = serde_json::from_str(body) {
        let stuck = stuck.iter().map(|Stuck { step, error }| {
            let step = step.as_deref().map_or("a step".into(), |step| beginning(step, SHOWN.0));
            format!("{step} gave up after {}", beginning(error, SHOWN.0))
        });
        let stuck: Vec<_> = stuck.collect();
        return Some((Some(booking_id), stuck.join("; "), "parked by the state machine"));
    }
    if let Ok(Unending { booking_id, reason }) = serde_json::from_str(body) {
        return Some((Some(booking_id), beginning(&reason.detail, SHOWN.1), "parked by the reconciler"));
    }
    let (event, after) = match runtime::read(body).ok()?? {
        Input::Event(event) | Input::Command(event) => (event, String::new()),
        Input::Failure(Failure { event, function, .. }) if function.is_empty() => (event, ", not delivered".into()),
        Input::Failure(Failure { event, function, error_type }) => (
            event,
            format!(", given up by {} after {}", beginning(&function, SHOWN.0), beginning(&error_type, SHOWN.0)),
        ),
    };
    let says = match Envelope::read(&event) {
        Ok(envelope) => envelope.event.event_type().to_string(),
        Err(_) => beginning(event["type"].as_str()?, SHOWN.0), // it looks like an event
    };
    Some((BookingId::deserialize(&event["booking_id"]).ok(), format!("{says}{after}"), ""))
}

/// How wide a terminal has to be for messages as a table: with less, hardly anything is left for what they say.
const TABLE: usize = 84;

/// The messages of a queue as a table, or as a list on a narrow terminal.
pub fn render(messages: &[Message], now: Timestamp, look: Look) -> String {
    if look.is_too_narrow_for(TABLE) {
        let entries = messages.iter().map(|message| {
            let about = message.booking_id.as_ref().map_or("no booking".into(), ToString::to_string);
            let sent = message.sent.map(|sent| format!(", sent {}", ago(now.as_second() - sent.as_second())));
            let why = if message.why.is_empty() { String::new() } else { format!("; {}", message.why) };
            let text = format!("{}{}{why}", message.says, sent.unwrap_or_default());
            format!("{}\n  {}", look.style(Style::new().bold(), about), wrap(look, &text, 2))
        });
        return entries.collect::<Vec<_>>().join("\n");
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).apply_modifier(UTF8_ROUND_CORNERS);
    table.set_header(["booking", "says", "sent", "why"]);
    for message in messages {
        table.add_row([
            message.booking_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            message.says.clone(),
            message.sent.map(|sent| ago(now.as_second() - sent.as_second())).unwrap_or_default(),
            message.why.clone(),
        ]);
    }
    if let Some(width) = look.width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        // Names and times are not wrapped.
        for column in [0, 2] {
            if let Some(column) = table.column_mut(column) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
    }
    table.to_string()
}

fn ago(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{} s ago", seconds.max(0)),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;
