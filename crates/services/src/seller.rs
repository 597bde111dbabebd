//! Flight, hotel and car: each sells the stock of one leg.

use saga::{
    BookingId, Command, Leg, LegRequest, Outcome, Participant, Reply, Step,
    command::Action,
    reservation::{self, Cancel, Reserve, Stock},
};
use serde_json::Value;
use store::{Commit, NotTaken, StockStore};

use crate::{Attempt, Catalogue, Clock, MOST_DECISIONS, Said, StepError, answer, command, event, told};

/// The participant that sells one leg.
#[derive(Debug)]
pub struct Seller<S> {
    /// Which leg.
    pub leg: Leg,
    /// Its stock, and its part of the journal.
    pub store: S,
    /// What it sells, and at what price.
    pub catalogue: Catalogue,
    /// Its clock.
    pub clock: Clock,
}

impl<S: StockStore> Seller<S> {
    /// Carries out a command.
    pub async fn handle(&self, payload: &Value) -> Result<Said, StepError> {
        self.carry_out(&command(payload, Participant::Seller(self.leg))?).await.map(Said::Reply)
    }

    /// Reacts to an event; says nothing if it is none that it listens to.
    pub async fn hear(&self, message: &Value) -> Result<Option<Said>, StepError> {
        let this = Participant::Seller(self.leg);
        let Some(cause) = event(message, |event_type| event_type.concerns(this))? else { return Ok(None) };
        let Some(action) = reservation::reaction(self.leg, &cause.event) else { return Ok(None) };
        let reply = self.carry_out(&Command { booking_id: cause.booking_id.clone(), action }).await?;
        Ok(told(&cause, &reply, self.clock))
    }

    async fn carry_out(&self, command: &Command) -> Result<Reply, StepError> {
        let result = match &command.action {
            Action::Reserve(leg) => self.reserve(&command.booking_id, leg).await,
            Action::Cancel(leg) => self.cancel(&command.booking_id, leg).await,
            _ => return Err(StepError::InvalidInput(format!("a seller does not do {}", command.step()))),
        };
        answer(command, result)
    }

    /// Reserves a leg, or says why not. May be repeated: the first outcome stays. One request if it succeeds, is
    /// repeated or the product is unknown, two if stock does not suffice.
    pub async fn reserve(&self, booking: &BookingId, leg: &LegRequest) -> Result<Outcome, StepError> {
        let step = Step::Reserve(leg.leg());
        let this = Attempt::begin(booking, step, leg.digest(), self.clock);
        let unit_price = self.catalogue.unit_price(leg);
        let (mut recorded, mut stock) = (None, Stock::Enough);
        for _ in 0..MOST_DECISIONS {
            let found = match reservation::reserve(leg, recorded.as_ref(), &stock, unit_price) {
                Reserve::Replay(outcome) => return Ok(outcome),
                Reserve::Take(outcome) => match self.store.take(&this.record(&outcome), &leg.lines()).await? {
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

    /// Gives a leg back, or sees to it that it will never be reserved. May be repeated, and may come before the
    /// reserve that it takes back. One request if the leg is reserved, two if not.
    pub async fn cancel(&self, booking: &BookingId, leg: &LegRequest) -> Result<Outcome, StepError> {
        let step = Step::Cancel(leg.leg());
        let this = Attempt::begin(booking, step, leg.digest(), self.clock);
        // A cancel mostly comes for a leg that is reserved, at a price that does not matter here.
        let mut decision = Cancel::GiveBack(Outcome::Cancelled { released: true });
        for _ in 0..MOST_DECISIONS {
            let found = match &decision {
                Cancel::Replay(outcome) => return Ok(outcome.clone()),
                Cancel::GiveBack(outcome) => match self.store.give_back(&this.record(outcome), &leg.lines()).await? {
                    Commit::Done => return Ok(outcome.clone()),
                    Commit::Found(found) => found,
                },
                Cancel::Tombstone(outcome) => {
                    match self.store.bury(&this.record(outcome), &reservation::tombstone()).await? {
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
