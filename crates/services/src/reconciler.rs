//! The reconciler: drives bookings again that should have ended, and calls an operator for those that cannot end
//! without one. Every step is safe to repeat, so to start over is always right.

use std::time::Duration;

use jiff::Timestamp;
use saga::{
    BookingId, Envelope, Event, Participant, Reason, Status, Step,
    claim::{Drive, Pace},
    id::digest,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{BookingStore, Header, HeaderStore, StoreError};

use crate::{
    BookingDesk, Clock, DeadLetters, Events, Executions, GivenUpBy, MOST_DECISIONS, StepError, start::Starter,
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
    /// How often it is driven then.
    pub pace: Pace,
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

/// What the state machine leaves in the queue of parked steps, and the reconciler. Of an event it is the part that names
/// the booking.
#[derive(Deserialize)]
struct Parked {
    booking_id: BookingId,
    #[serde(default)]
    stuck: Vec<Stuck>,
    #[serde(default)]
    reason: Option<Reason>,
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
            if let Err(error) = self.drive(&header, now, &mut done).await {
                let booking_id = header.booking_id.as_str();
                tracing::error!(booking_id, %error, "stuck booking could not be driven again");
                failure = Some(error);
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

    /// Drives a booking again because an operator has put its message back, or asked for it: with a claim of its own, and
    /// once. From then on it is pending, so the reconciler remembers it, and the message need not.
    pub async fn resume(&self, message: &Value) -> Result<(), StepError> {
        let Parked { booking_id, .. } = Parked::deserialize(message)
            .map_err(|error| StepError::InvalidInput(format!("the message names no booking: {error}")))?;
        let name = digest(&[message.to_string().as_bytes()]);
        for _ in 0..MOST_DECISIONS {
            let Some(header) = self.headers.get(&booking_id).await? else {
                return Err(StepError::InvalidInput(format!("there is no booking {booking_id}")));
            };
            let now = (self.clock)();
            let Some(claim) = header.claim.redrive(header.status, &name, now) else {
                tracing::info!(booking_id = booking_id.as_str(), "parked booking has ended, or is under way");
                return Ok(());
            };
            if self.starter().claim_and_start(&header, claim, now, None).await? {
                tracing::info!(booking_id = booking_id.as_str(), "parked booking driven again");
                return Ok(());
            }
        }
        Err(StoreError::Contention { operation: "claiming a booking for an operator" }.into())
    }

    const fn starter(&self) -> Starter<'_, H, E, P> {
        Starter { claims: &self.headers, executions: &self.executions, events: &self.events }
    }

    /// Drives a stuck booking again if its latest start has had its time, or calls an operator if that was done often
    /// enough.
    async fn drive(&self, header: &Header, now: Timestamp, done: &mut Reconciled) -> Result<(), StepError> {
        let booking_id = header.booking_id.as_str();
        match header.claim.drive(now, &self.pace) {
            Drive::Wait => {}
            Drive::Again(claim) => {
                if self.starter().claim_and_start(header, claim, now, None).await? {
                    tracing::warn!(booking_id, created_at = %header.created_at, "stuck booking driven again");
                    done.restarted.push(header.booking_id.clone());
                }
            }
            Drive::GiveUp => {
                // The index may be behind. A claim fails then; a message would be there for nothing.
                let now_known = self.headers.get(&header.booking_id).await?;
                if now_known.is_none_or(|known| (known.status, &known.claim) != (header.status, &header.claim)) {
                    return Ok(());
                }
                let detail = format!(
                    "driven again {} times without an end; find the participant that does not answer, then redrive",
                    header.claim.drives
                );
                let reason = Reason { step: None, code: "not_ended".into(), detail };
                // The message first: it raises the alarm, and if this ends here, the next run reads the reason in it.
                let message = json!({"booking_id": booking_id, "reason": reason, "claim": header.claim.number});
                self.dead_letters.park(message.to_string()).await?;
                self.park(&header.booking_id, &reason, &mut done.parked).await?;
            }
        }
        Ok(())
    }

    async fn park(&self, booking: &BookingId, reason: &Reason, parked: &mut Vec<BookingId>) -> Result<(), StepError> {
        self.desk.park(booking, reason).await?;
        let (booking_id, step) = (booking.as_str(), reason.step.map(Step::name));
        tracing::error!(booking_id, step, code = reason.code, detail = reason.detail, "booking needs an operator");
        parked.push(booking.clone());
        Ok(())
    }

    /// A step that must succeed is given up if its message is in a dead-letter queue: its booking needs an operator.
    async fn call_operator(&self, by: GivenUpBy, message: &str, parked: &mut Vec<BookingId>) -> Result<(), StepError> {
        let Some(message) = (self.read)(message) else { return Ok(()) };
        // What names no booking is garbage. Its queue's alarm has been raised.
        let Ok(Parked { booking_id, stuck, reason }) = Parked::deserialize(&message) else { return Ok(()) };
        let header = self.headers.get(&booking_id).await?;
        if header.is_none_or(|header| header.status != Status::Pending) {
            return Ok(());
        }
        let reason = reason.unwrap_or_else(|| {
            let step = match by {
                Some(participant) => {
                    Envelope::read(&message).ok().and_then(|envelope| given_up(participant, &envelope.event))
                }
                None => stuck.first().and_then(|stuck| stuck.step),
            };
            let who = by.map_or("state machine", Participant::name);
            let name = step.map_or("a step", Step::name);
            let detail = format!("{name} was given up; its message is in the dead-letter queue of {who}");
            Reason { step, code: "parked".into(), detail }
        });
        self.park(&booking_id, &reason, parked).await
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
