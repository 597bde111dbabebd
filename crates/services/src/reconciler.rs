//! The reconciler: drives bookings again that should have ended, and calls an operator for those that cannot end
//! without one. Every step is safe to repeat, so to start over is always right.

use std::time::Duration;

use jiff::Timestamp;
use saga::{BookingId, Envelope, Event, Participant, Reason, Status, Step, Variant, id::digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{BookingStore, Header, HeaderStore};

use crate::{
    BookingDesk, Clock, DeadLetters, Events, EventsError, Executions, ExecutionsError, GivenUpBy, Started, StepError,
    api::execution_input,
};

/// Finds what is stuck and drives it again.
#[derive(Debug)]
pub struct Reconciler<H, E, P, D, B> {
    /// The headers.
    pub headers: H,
    /// The state machine.
    pub executions: E,
    /// The topic.
    pub events: P,
    /// What participants have given up.
    pub dead_letters: D,
    /// Finds the event in such a message.
    pub read: fn(&str) -> Option<Value>,
    /// Who keeps the headers.
    pub desk: BookingDesk<B>,
    /// How old a booking may be before it is stuck.
    pub max_age: Duration,
    /// Its clock.
    pub clock: Clock,
}

/// What one run did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// Bookings that were found open for too long.
    pub stuck: usize,
    /// Those of them that were driven again.
    pub restarted: Vec<BookingId>,
    /// Bookings that need an operator from now on.
    pub parked: Vec<BookingId>,
}

#[derive(Debug, thiserror::Error)]
enum NotDriven {
    #[error(transparent)]
    Executions(#[from] ExecutionsError),
    #[error(transparent)]
    Events(#[from] EventsError),
}

impl From<NotDriven> for StepError {
    fn from(error: NotDriven) -> Self {
        match error {
            NotDriven::Executions(error) => error.into(),
            NotDriven::Events(error) => error.into(),
        }
    }
}

/// What the state machine leaves in the queue of parked steps. Of an event it is the part that names the booking.
#[derive(Deserialize)]
struct Parked {
    booking_id: BookingId,
    #[serde(default)]
    stuck: Vec<Stuck>,
    #[serde(default)]
    execution: String,
}

#[derive(Deserialize)]
struct Stuck {
    step: Option<Step>,
}

impl<H: HeaderStore, E: Executions, P: Events, D: DeadLetters, B: BookingStore> Reconciler<H, E, P, D, B> {
    /// One run over everything that is stuck. What cannot be driven again does not keep the others from it: it is
    /// logged, and tried again in the next run.
    pub async fn run(&self) -> Result<Reconciled, StepError> {
        let now = (self.clock)();
        let mut done = Reconciled::default();
        let mut failure = None;
        for header in self.headers.open_before(now - self.max_age).await? {
            done.stuck += 1;
            let booking_id = header.booking_id.as_str();
            // At most one new execution in each such period.
            let period = now.as_second() / i64::try_from(self.max_age.as_secs().max(1)).unwrap_or(i64::MAX);
            match self.drive(&header, now, &period.to_string()).await {
                Ok(Started::Now) => {
                    tracing::warn!(booking_id, created_at = %header.created_at, "stuck booking driven again");
                    done.restarted.push(header.booking_id);
                }
                Ok(Started::Before) => {}
                Err(error) => {
                    tracing::error!(booking_id, %error, "stuck booking could not be driven again");
                    failure = Some(error.into());
                }
            }
        }
        let (messages, errors) = self.dead_letters.look().await;
        for (by, message) in messages {
            if let Err(error) = self.call_operator(by, &message, &mut done.parked).await {
                tracing::error!(%error, "an operator could not be called for a message that was given up");
                failure = Some(error);
            }
        }
        for error in errors {
            tracing::error!(%error, "dead letters could not be looked through");
            failure = Some(error.into());
        }
        failure.map_or(Ok(done), Err) // the alarm is on this function's errors
    }

    /// Drives a booking again that was parked by the state machine and put back by an operator. The message names it, and
    /// has to come again until the booking has ended: an execution may end before that, and nothing else would remember.
    pub async fn resume(&self, message: &Value) -> Result<(), StepError> {
        let parked = Parked::deserialize(message)
            .map_err(|error| StepError::InvalidInput(format!("the message names no booking: {error}")))?;
        let Some(header) = self.headers.get(&parked.booking_id).await? else {
            return Err(StepError::InvalidInput(format!("there is no booking {}", parked.booking_id)));
        };
        let booking_id = header.booking_id.as_str();
        if matches!(header.status, Status::Confirmed | Status::Failed) {
            tracing::info!(booking_id, "parked booking has ended");
            return Ok(());
        }
        // One execution for each that has parked the booking, and if that ends without an end, one each minute.
        let now = (self.clock)();
        let attempt = &digest(&[parked.execution.as_bytes()])[..16];
        if self.drive(&header, now, attempt).await? == Started::Before
            && !self.executions.is_running(&format!("{booking_id}-{attempt}")).await?
        {
            self.drive(&header, now, &format!("{attempt}-{}", now.as_second() / 60)).await?;
        }
        Err(StepError::NotEnded)
    }

    async fn drive(&self, header: &Header, now: Timestamp, attempt: &str) -> Result<Started, NotDriven> {
        if header.variant == Variant::Choreographed {
            // Everyone answers again what it answered before, and goes on from there.
            let requested = Envelope::requested(header.booking_id.clone(), header.plan(), now, None);
            self.events.publish(crate::json(&requested)).await?;
            return Ok(Started::Now);
        }
        let name = header.booking_id.as_str();
        let input = execution_input(header);
        let started = self.executions.start(name, &input).await?;
        if started == Started::Now || self.executions.is_running(name).await? {
            return Ok(started);
        }
        // It ran and ended without ending the booking, and names are used once.
        Ok(self.executions.start(&format!("{name}-{attempt}"), &input).await?)
    }

    /// A step that must succeed is given up if its message is in a dead-letter queue: its booking needs an operator.
    async fn call_operator(&self, by: GivenUpBy, message: &str, parked: &mut Vec<BookingId>) -> Result<(), StepError> {
        let Some(message) = (self.read)(message) else { return Ok(()) };
        // What names no booking is garbage. Its queue's alarm has been raised.
        let Ok(Parked { booking_id, stuck, .. }) = Parked::deserialize(&message) else { return Ok(()) };
        let header = self.headers.get(&booking_id).await?;
        if header.is_none_or(|header| header.status != Status::Pending) {
            return Ok(());
        }
        let step = match by {
            Some(participant) => {
                Envelope::read(&message).ok().and_then(|envelope| given_up(participant, &envelope.event))
            }
            None => stuck.first().and_then(|stuck| stuck.step),
        };
        let who = by.map_or("state machine", Participant::name);
        let name = step.map_or("a step", Step::name);
        let detail = format!("{name} was given up; its message is in the dead-letter queue of {who}");
        self.desk.park(&booking_id, &Reason { step, code: "parked".into(), detail }).await?;
        tracing::error!(booking_id = booking_id.as_str(), step = name, "booking needs an operator");
        parked.push(booking_id);
        Ok(())
    }
}

/// The step that this participant should have carried out on this event.
fn given_up(participant: Participant, event: &Event) -> Option<Step> {
    match (participant, event) {
        (Participant::Seller(leg), _) => saga::reservation::reaction(leg, event).map(|action| action.step()),
        (Participant::Payment, _) => Some(Step::Abort), // what others gave up comes to it to be aborted
        (Participant::Booking, Event::Charged { .. }) => Some(Step::Confirm),
        (Participant::Booking, Event::Cancelled { .. }) => Some(Step::Fail),
        (Participant::Booking, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use saga::Leg;

    use super::*;

    #[test]
    fn what_was_given_up_is_the_step_that_the_event_leads_to() {
        let step = |participant, name: &str| {
            let samples = saga::event::samples();
            given_up(participant, samples.iter().find(|event| event.event_type().name() == name).unwrap())
        };
        assert_eq!(step(Participant::Seller(Leg::Car), "booking.aborted"), Some(Step::Cancel(Leg::Car)));
        assert_eq!(step(Participant::Payment, "booking.requested"), Some(Step::Abort));
        assert_eq!(step(Participant::Booking, "payment.charged"), Some(Step::Confirm));
        assert_eq!(step(Participant::Booking, "hotel.cancelled"), Some(Step::Fail));
        assert_eq!(step(Participant::Booking, "booking.requested"), None);
    }
}
