//! The participants, the API and the reconciler. Each step is a loop of *decide* (a pure function of `saga`) and
//! *commit* (one request to the `store`): if the state is not what was known, the decision is made again from the
//! current state.

pub mod api;
mod booking;
mod dead_letters;
mod error;
mod events;
mod executions;
mod payment;
mod provider;
mod reconciler;
mod sandbox;
mod seller;
pub mod serve;
mod start;

use jiff::Timestamp;
use saga::{
    BookingId, Command, Envelope, EventType, Outcome, Participant, Reply, Step, Violation, event::Unread, reaction,
};
use serde::Serialize;
use serde_json::Value;
use store::{Begun, Record};

pub use booking::BookingService;
pub use dead_letters::{DeadLetterQueues, DeadLetters, DeadLettersError, GivenUpBy};
pub use error::{ErrorKind, StepError};
pub use events::{EventPublisher, PublishError, Topic};
pub use executions::{Executions, ExecutionsError, StateMachine};
pub use payment::{ATTEMPTS_WINDOW, LEASE, PROVIDER_TIMEOUT, PaymentService};
pub use provider::{PaymentProvider, ProviderError, UnknownToken};
pub use reconciler::{Reconciled, Reconciler};
pub use sandbox::SandboxProvider;
pub use seller::Seller;

/// Returns the current time. A function, so that tests can replace it.
pub type Clock = fn() -> Timestamp;

/// How often a step decides before it leaves the rest to its caller's retries. Each further decision means that another
/// worker has just carried out a step of the same booking, and a booking has few steps.
const MAX_DECISIONS: u32 = 6;

/// What a participant returns from a step.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum StepResponse {
    /// The reply to the sender of a command.
    Reply(Reply),
    /// An event to publish.
    Event(Box<Envelope>),
}

/// Reads an event for this participant; none if the event's type does not concern it or is unknown. The contents of
/// events for other participants are not looked at.
fn event_for(participant: Participant, message: &Value) -> Result<Option<Envelope>, StepError> {
    let event_type = message["type"].as_str().and_then(EventType::named);
    if let Some(event_type) = event_type.filter(|event_type| !reaction::concerns(participant, *event_type)) {
        tracing::info!(event_type = %event_type, "event for another participant ignored");
        return Ok(None);
    }
    event(message)
}

/// Reads an event; none if its type is unknown.
fn event(message: &Value) -> Result<Option<Envelope>, StepError> {
    match Envelope::read(message) {
        Ok(event) => Ok(Some(event)),
        Err(Unread::UnknownType(event_type)) => {
            tracing::warn!(event_type, "event of an unknown type ignored");
            Ok(None)
        }
        Err(unread) => Err(StepError::InvalidInput(unread.to_string())),
    }
}

/// The event to publish after a step that another event caused.
fn published(cause: &Envelope, reply: &Reply, clock: Clock) -> Option<StepResponse> {
    cause.after(reply.step, &reply.outcome, clock()).map(Box::new).map(StepResponse::Event)
}

/// A value as JSON.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default() // strings, numbers and maps of them can always be represented
}

/// Reads a command, which must be for this participant.
fn command(payload: &Value, participant: Participant) -> Result<Command, StepError> {
    let command = Command::read(payload).map_err(|violations| StepError::InvalidInput(Violation::list(&violations)))?;
    if command.step().participant() == participant {
        Ok(command)
    } else {
        let step = command.step();
        Err(StepError::InvalidInput(format!(
            "{participant} received the command {step}, which is for another participant"
        )))
    }
}

/// A step that is being carried out, with everything that its record will hold except the outcome.
struct Attempt<'a> {
    booking_id: &'a BookingId,
    step: Step,
    validation: String,
    started_at: Timestamp,
    clock: Clock,
}

impl<'a> Attempt<'a> {
    fn begin(booking_id: &'a BookingId, step: Step, validation: String, clock: Clock) -> Self {
        Self { booking_id, step, validation, started_at: clock(), clock }
    }

    fn begun(&self) -> Begun<'_> {
        Begun {
            booking_id: self.booking_id,
            step: self.step,
            validation: &self.validation,
            started_at: self.started_at,
        }
    }

    fn record<'r>(&'r self, outcome: &'r Outcome) -> Record<'r> {
        Record { begun: self.begun(), outcome, finished_at: (self.clock)() }
    }

    /// The same for an optional record: without one, there is nothing to repeat.
    fn is_repeat_of_any(&self, validation: Option<&str>) -> Result<(), StepError> {
        validation.map_or(Ok(()), |validation| self.is_repeat_of(validation))
    }

    /// A repeat has to be the same command: the same step of the same booking with other contents is the sender's
    /// mistake.
    fn is_repeat_of(&self, validation: &str) -> Result<(), StepError> {
        if validation == self.validation {
            return Ok(());
        }
        Err(StepError::InvalidInput(format!(
            "{} was carried out before for this booking, with other contents",
            self.step
        )))
    }
}

/// Logs the result of a command, and turns its outcome into a reply.
fn answer(command: &Command, result: Result<Outcome, StepError>) -> Result<Reply, StepError> {
    let (booking_id, step) = (command.booking_id.as_str(), command.step());
    match &result {
        Ok(outcome) => tracing::info!(booking_id, %step, outcome = outcome.name(), "step done"),
        Err(error) => {
            tracing::error!(booking_id, %step, error_type = error.error_type(), %error, "step failed")
        }
    }
    Ok(Reply { booking_id: command.booking_id.clone(), step, outcome: result? })
}
