//! A seller: sells the stock of one kind of part.

use saga::{
    BookingId, Catalogue, Command, Outcome, Part, PartType, Participant, Reply, Step, StockLine, Violation,
    command::Action,
    reaction,
    reservation::{self, Cancel, Reserve, Stock},
};
use serde_json::Value;
use store::{Commit, NotTaken, StockStore};

use crate::{Attempt, Clock, MAX_DECISIONS, StepError, StepResponse, answer, command, event_for, published};

/// The participant that sells one kind of part.
#[derive(Debug)]
pub struct Seller<S> {
    /// The kind of part that it sells.
    pub part_type: PartType,
    /// Its price list.
    pub catalogue: Catalogue,
    /// Its stock, and its part of the journal.
    pub store: S,
    /// Returns the current time; tests replace it.
    pub clock: Clock,
}

impl<S: StockStore> Seller<S> {
    const fn participant(&self) -> Participant {
        Participant::Seller(self.part_type.name)
    }

    /// Carries out a command and returns the reply.
    pub async fn handle(&self, payload: &Value) -> Result<StepResponse, StepError> {
        self.carry_out(&command(payload, self.participant())?).await.map(StepResponse::Reply)
    }

    /// Reacts to an event and returns the event to publish; none if there is nothing to do.
    pub async fn react(&self, message: &Value) -> Result<Option<StepResponse>, StepError> {
        let Some(cause) = event_for(self.participant(), message)? else { return Ok(None) };
        let Some(action) = reaction::of_seller(self.part_type.name, &cause.event) else { return Ok(None) };
        let reply = self.carry_out(&Command { booking_id: cause.booking_id.clone(), action }).await?;
        Ok(published(&cause, &reply, self.clock))
    }

    async fn carry_out(&self, command: &Command) -> Result<Reply, StepError> {
        let result = match &command.action {
            Action::Reserve(part) => self.reserve(&command.booking_id, part).await,
            Action::Cancel(part) => self.cancel(&command.booking_id, part).await,
            _ => return Err(StepError::InvalidInput(format!("a seller does not carry out {}", command.step()))),
        };
        answer(command, result)
    }

    /// Reserves a part, or rejects. May be repeated: the first outcome is kept. One request if it succeeds, is a
    /// repeat, or is rejected whatever the stock is; two if the stock does not suffice.
    pub async fn reserve(&self, booking_id: &BookingId, part: &Part) -> Result<Outcome, StepError> {
        let step = Step::Reserve(part.name);
        let this = Attempt::begin(booking_id, step, part.digest(), self.clock);
        let quote = reservation::quote(&self.part_type, &self.catalogue, &part.contents);
        let lines = quote.as_ref().map_or(&[][..], |quote| &quote.lines);
        let (mut recorded, mut stock) = (None, Stock::Enough);
        for _ in 0..MAX_DECISIONS {
            let found = match reservation::reserve(quote.as_ref(), recorded.as_ref(), &stock) {
                Reserve::Replay(outcome) => return Ok(outcome),
                Reserve::Take(outcome) => match self.store.take(&this.record(&outcome), lines).await? {
                    Commit::Done => return Ok(outcome),
                    Commit::Found(NotTaken::Recorded(found)) => found,
                    Commit::Found(NotTaken::Stock(found)) => {
                        stock = found;
                        continue;
                    }
                },
                Reserve::Reject(outcome) => match self.store.record(&this.record(&outcome)).await? {
                    Commit::Done => return Ok(outcome),
                    Commit::Found(found) => found,
                },
            };
            this.is_repeat_of(&found.validation)?;
            recorded = Some(found.outcome);
        }
        Err(StepError::Undecided(step))
    }

    /// Cancels a part: gives it back, or makes sure that it is never reserved. May be repeated, and may arrive before
    /// the reserve that it undoes. One request if the part is reserved, two if not.
    pub async fn cancel(&self, booking_id: &BookingId, part: &Part) -> Result<Outcome, StepError> {
        let step = Step::Cancel(part.name);
        let this = Attempt::begin(booking_id, step, part.digest(), self.clock);
        let lines = self.part_type.request(&part.contents).map(|request| request.lines());
        // Usually the part is reserved. A part that cannot be read is not, or not by this program.
        let mut decision = match lines {
            Ok(_) => Cancel::GiveBack(Outcome::Cancelled { released: true }),
            Err(_) => reservation::cancel(None, None),
        };
        for _ in 0..MAX_DECISIONS {
            let found = match &decision {
                Cancel::Replay(outcome) => return Ok(outcome.clone()),
                Cancel::GiveBack(outcome) => {
                    match self.store.give_back(&this.record(outcome), readable(&lines)?).await? {
                        Commit::Done => return Ok(outcome.clone()),
                        Commit::Found(found) => found,
                    }
                }
                Cancel::Tombstone(outcome) => {
                    let tombstone = reservation::tombstone();
                    match self.store.leave_tombstone(&this.record(outcome), &tombstone).await? {
                        Commit::Done => return Ok(outcome.clone()),
                        Commit::Found(found) => found,
                    }
                }
                Cancel::Record(outcome) => match self.store.record(&this.record(outcome)).await? {
                    Commit::Done => return Ok(outcome.clone()),
                    Commit::Found(found) => return Ok(found.outcome),
                },
            };
            for recording in [&found.reserve, &found.cancel].into_iter().flatten() {
                this.is_repeat_of(&recording.validation)?;
            }
            let [reserve, cancel] = [found.reserve, found.cancel].map(|recording| recording.map(|r| r.outcome));
            decision = reservation::cancel(reserve.as_ref(), cancel.as_ref());
        }
        Err(StepError::Undecided(step))
    }
}

/// The lines to give back. A newer program of this seller may have reserved a part that this one cannot read.
fn readable(lines: &Result<Vec<StockLine>, Vec<Violation>>) -> Result<&[StockLine], StepError> {
    match lines {
        Ok(lines) => Ok(lines),
        Err(violations) => {
            let detail = Violation::list(violations);
            Err(StepError::InvalidInput(format!("the part is reserved, and cannot be read: {detail}")))
        }
    }
}
