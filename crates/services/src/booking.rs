//! Booking: records how a booking ended.

use saga::{
    BookingId, Command, Money, Outcome, Participant, Reason, Reply, Status, Step,
    command::Action,
    header::{self, Move},
    reaction::{self, BookingReaction},
};
use serde_json::Value;
use store::{BookingStore, Commit, End, HeaderFound};

use crate::{Attempt, Clock, MAX_DECISIONS, StepError, StepResponse, answer, command, event_for, published};

/// The participant that owns the headers.
#[derive(Debug)]
pub struct BookingService<S> {
    /// The headers, and their part of the journal.
    pub store: S,
    /// Returns the current time; tests replace it.
    pub clock: Clock,
}

impl<S: BookingStore> BookingService<S> {
    /// Carries out a command and returns the reply.
    pub async fn handle(&self, payload: &Value) -> Result<StepResponse, StepError> {
        self.carry_out(&command(payload, Participant::Booking)?).await.map(StepResponse::Reply)
    }

    /// Reacts to an event and returns the event to publish; none if there is nothing to do yet.
    pub async fn react(&self, message: &Value) -> Result<Option<StepResponse>, StepError> {
        let Some(cause) = event_for(Participant::Booking, message)? else { return Ok(None) };
        let booking_id = cause.booking_id.clone();
        let action = match reaction::of_booking(&cause.event) {
            None => return Ok(None),
            Some(BookingReaction::Confirm { total }) => Action::Confirm { total },
            Some(BookingReaction::Collect { part, reason }) => {
                let given_back = self.store.collect(&booking_id, part).await?;
                let given_back = given_back.ok_or(StepError::Contradiction { step: Step::Fail, status: None })?;
                if !header::is_all_cancelled(&given_back.cancelled, &given_back.plan) {
                    return Ok(None);
                }
                Action::Fail { reason }
            }
        };
        let reply = self.carry_out(&Command { booking_id, action }).await?;
        Ok(published(&cause, &reply, self.clock))
    }

    /// Records that a booking needs an operator.
    pub async fn park(&self, booking_id: &BookingId, reason: &Reason) -> Result<(), StepError> {
        let action = Action::Park { reason: reason.clone() };
        self.carry_out(&Command { booking_id: booking_id.clone(), action }).await.map(drop)
    }

    async fn carry_out(&self, command: &Command) -> Result<Reply, StepError> {
        let step = command.step();
        let (outcome, total, reason): (Outcome, Option<Money>, Option<&Reason>) = match &command.action {
            Action::Confirm { total } => (Outcome::Confirmed { total: *total }, Some(*total), None),
            Action::Fail { reason } => (Outcome::Failed { reason: reason.clone() }, None, reason.as_ref()),
            Action::Park { reason } => (Outcome::Parked { reason: reason.clone() }, None, Some(reason)),
            _ => return Err(StepError::InvalidInput(format!("booking does not carry out {step}"))),
        };
        let result = self.end(&command.booking_id, step, outcome, total, reason).await;
        answer(command, result)
    }

    /// Ends the booking, or marks it for an operator. May be repeated. One request.
    async fn end(
        &self,
        booking_id: &BookingId,
        step: Step,
        outcome: Outcome,
        total: Option<Money>,
        reason: Option<&Reason>,
    ) -> Result<Outcome, StepError> {
        let this = Attempt::begin(booking_id, step, String::new(), self.clock);
        let mut known = HeaderFound { status: Some(Status::Pending), recorded: None };
        for _ in 0..MAX_DECISIONS {
            let contradiction = StepError::Contradiction { step, status: known.status };
            let Some(status) = known.status else {
                // Only the condition on the journal item failed.
                return known.recorded.map(|recording| recording.outcome).ok_or(contradiction);
            };
            match header::end(step, status, known.recorded.is_some()) {
                Move::Contradiction => return Err(contradiction),
                Move::Replay => return Ok(known.recorded.map_or(outcome, |recording| recording.outcome)),
                Move::End(status) => {
                    match self.store.end(&this.record(&outcome), &End { status, total, reason }).await? {
                        Commit::Done => {
                            if let Some(Reason { step, detail, .. }) = reason.filter(|reason| reason.is_technical()) {
                                let (booking_id, step) = (booking_id.as_str(), step.map(|step| step.to_string()));
                                tracing::error!(booking_id, step, detail, "booking failed for a technical reason");
                            }
                            return Ok(outcome);
                        }
                        Commit::Found(found) => known = found,
                    }
                }
            }
        }
        Err(StepError::Undecided(step))
    }
}
