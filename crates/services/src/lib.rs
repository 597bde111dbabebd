//! What the participants, the API and the reconciler do. Each step is a loop of *decide* (a pure function of `saga`)
//! and *commit* (one request to the `store`): if something else turns out to be the case than was known, the decision
//! is made again with what is the case.

pub mod api;
mod booking;
mod catalogue;
mod error;
mod executions;
mod payment;
mod provider;
mod reconciler;
mod sandbox;
mod seller;

use jiff::Timestamp;
use saga::{BookingId, Command, Outcome, Participant, Step, Violation};
use serde::Serialize;
use serde_json::Value;
use store::Record;

pub use booking::BookingDesk;
pub use catalogue::{Catalogue, CatalogueError, Offer};
pub use error::{ErrorKind, StepError};
pub use executions::{Executions, ExecutionsError, Started, StateMachine};
pub use payment::Cashier;
pub use provider::{PaymentProvider, ProviderError};
pub use reconciler::{Reconciled, Reconciler};
pub use sandbox::SandboxProvider;
pub use seller::Seller;

/// Tells the time. A function, so that tests can tell another.
pub type Clock = fn() -> Timestamp;

/// How often a step decides again before it leaves the rest to its caller's retries. Each further decision means that
/// somebody else has just carried out a step of the same booking, and there are few of those.
const MOST_DECISIONS: u32 = 6;

/// What a participant answers to a command.
#[derive(Clone, Debug, Serialize)]
pub struct Reply {
    /// Which booking.
    pub booking_id: String,
    /// Which step.
    pub step: Step,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Reads a command that is meant for this participant.
fn command(payload: &Value, participant: Participant) -> Result<Command, StepError> {
    let command = Command::read(payload).map_err(|violations| invalid(&violations))?;
    if command.step().participant() == participant {
        Ok(command)
    } else {
        let (name, step) = (participant.name(), command.step());
        Err(StepError::InvalidCommand(format!("{name} was asked to do {step}, which is another participant's")))
    }
}

/// A step that is being carried out: what its record will say, whatever its outcome.
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

    fn record<'r>(&'r self, outcome: &'r Outcome) -> Record<'r> {
        Record {
            id: self.booking_id.as_str(),
            step: self.step.name(),
            outcome,
            validation: &self.validation,
            started_at: self.started_at,
            finished_at: (self.clock)(),
        }
    }

    /// A repeat has to be a repeat: the same step of the same booking with other contents is somebody's mistake.
    fn is_repeat_of(&self, validation: &str) -> Result<(), StepError> {
        if validation == self.validation {
            return Ok(());
        }
        Err(StepError::InvalidCommand(format!(
            "{} was carried out before for this booking, with other contents",
            self.step
        )))
    }
}

fn invalid(violations: &[Violation]) -> StepError {
    let all: Vec<_> = violations.iter().map(|v| format!("{}: {}", v.pointer, v.detail)).collect();
    StepError::InvalidCommand(all.join("; "))
}

/// Logs what came of a command, and makes a reply of its outcome.
fn answer(command: &Command, result: Result<Outcome, StepError>) -> Result<Reply, StepError> {
    let (booking_id, step) = (command.booking_id.as_str(), command.step());
    match &result {
        Ok(outcome) => tracing::info!(booking_id, step = step.name(), outcome = outcome.name(), "step done"),
        Err(error) => {
            tracing::error!(booking_id, step = step.name(), error_type = error.error_type(), %error, "step failed")
        }
    }
    Ok(Reply { booking_id: booking_id.to_owned(), step, outcome: result? })
}
