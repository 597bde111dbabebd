//! Payment: charges once, or aborts so that no charge can follow.

use std::time::Duration;

use saga::{
    BookingId, Command, Envelope, Outcome, Participant, PaymentReference, Reason, Reply, Step,
    command::Action,
    event::EventType,
    id::digest,
    payment::{self, Abort, Aborting, Charge, Charging, Prices, Reaction},
};
use serde_json::Value;
use store::{Commit, PaymentStore};

use crate::{
    Attempt, Clock, MOST_DECISIONS, PaymentProvider, ProviderError, Said, StepError, answer, command, event, told,
};

/// How long a worker waits for the provider.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a lease lasts: longer than a worker lives, which a function's timeout (10 s) bounds.
pub const LEASE: Duration = Duration::from_secs(15);

/// How many moves a decision leads to at the most: lease, provider, completion, answer.
const MOVES: u32 = 4;

/// The participant that decides.
#[derive(Debug)]
pub struct Cashier<S, P> {
    /// Its decisions, and its part of the journal.
    pub store: S,
    /// Where the money is.
    pub provider: P,
    /// Its clock.
    pub clock: Clock,
}

impl<S: PaymentStore, P: PaymentProvider> Cashier<S, P> {
    /// Carries out a command.
    pub async fn handle(&self, payload: &Value) -> Result<Said, StepError> {
        self.carry_out(&command(payload, Participant::Payment)?).await.map(Said::Reply)
    }

    /// Reacts to an event; says nothing if it is none that it listens to, or not the last that it waits for.
    pub async fn hear(&self, message: &Value) -> Result<Option<Said>, StepError> {
        let concerns = |event_type: EventType| event_type.concerns(Participant::Payment);
        let Some(cause) = event(message, concerns)? else { return Ok(None) };
        self.react(&cause, payment::reaction(&cause.event)).await
    }

    /// Reacts to an event that this function has given up, because of an error of this type. Functions are named after
    /// their participants; without a name nobody was given the event.
    pub async fn hear_failure(
        &self,
        message: &Value,
        function: &str,
        error_type: &str,
    ) -> Result<Option<Said>, StepError> {
        let Some(cause) = event(message, |_| true)? else { return Ok(None) };
        let is_of = |participant: &Participant| function.rsplit('-').next() == Some(participant.name());
        let who = Participant::ALL.into_iter().find(is_of);
        self.react(&cause, payment::reaction_to_failure(&cause.event, who, error_type)).await
    }

    async fn react(&self, cause: &Envelope, reaction: Option<Reaction>) -> Result<Option<Said>, StepError> {
        let action = match reaction {
            None => return Ok(None),
            Some(Reaction::Abort { reference, reason }) => Action::Abort { reference, reason: Some(reason) },
            Some(Reaction::Collect { leg, price, reference }) => {
                let collected = self.store.collect(&cause.booking_id, leg, price).await?;
                let Some(prices) = Prices::of(&collected) else { return Ok(None) };
                Action::Charge { reference, prices }
            }
        };
        let reply = self.carry_out(&Command { booking_id: cause.booking_id.clone(), action }).await?;
        Ok(told(cause, &reply, self.clock))
    }

    async fn carry_out(&self, command: &Command) -> Result<Reply, StepError> {
        let result = match &command.action {
            Action::Charge { reference, prices } => self.charge(&command.booking_id, reference, prices).await,
            Action::Abort { reference, reason } => self.abort(&command.booking_id, reference, reason.as_ref()).await,
            _ => return Err(StepError::InvalidInput(format!("payment does not do {}", command.step()))),
        };
        answer(command, result)
    }

    /// Charges the sum of the prices, or says why not. May be repeated: it charges once. Three requests (lease,
    /// provider, completion), and one for a repeat.
    pub async fn charge(
        &self,
        booking: &BookingId,
        reference: &PaymentReference,
        prices: &Prices,
    ) -> Result<Outcome, StepError> {
        let total = prices.total().map_err(|error| StepError::InvalidInput(format!("/prices: {error}")))?;
        let currency = String::from(total.currency);
        let validation = digest(&[reference.as_str().as_bytes(), &total.amount.to_be_bytes(), currency.as_bytes()]);
        let this = Attempt::begin(booking, Step::Charge, validation, self.clock);
        let (mut charging, mut failure) = (Charging::default(), StepError::ChargeInProgress);
        for _ in 0..MOST_DECISIONS * MOVES {
            let now = (self.clock)().as_millisecond();
            charging = match charging.next(now) {
                Charge::Answer(outcome) => return Ok(outcome),
                Charge::ComeBack => return Err(failure),
                Charge::Lease { earlier } => {
                    let until = now + LEASE.as_millis() as i64; // 15,000
                    // The outcome is not known yet, and not written.
                    let record = Outcome::Aborted { reason: None };
                    match self.store.lease(&this.record(&record), until, earlier).await? {
                        Commit::Done => Charging::leased(until, earlier),
                        Commit::Found(found) => {
                            this.is_repeat_of_any(found.validation.as_deref())?;
                            Charging::found(found.state, found.recorded)
                        }
                    }
                }
                Charge::Ask { find_first } => match self.ask_provider(reference, total, find_first).await {
                    Ok(outcome) => charging.answered(Some(outcome)),
                    Err(error) => {
                        failure = error.into();
                        charging.answered(None)
                    }
                },
                Charge::Complete { outcome, decision } => {
                    match self.store.complete(&this.record(&outcome), &decision).await? {
                        Commit::Done => charging.completed(),
                        Commit::Found(found) => {
                            this.is_repeat_of_any(found.validation.as_deref())?;
                            Charging::found(found.state, found.recorded)
                        }
                    }
                }
                Charge::Release { until } => {
                    if let Err(error) = self.store.release(booking, until, now).await {
                        tracing::warn!(booking_id = booking.as_str(), %error, "the lease stays until it ends");
                    }
                    Charging::released()
                }
                Charge::Void => {
                    self.provider.void(reference).await?;
                    charging.voided()
                }
            };
        }
        Err(StepError::Undecided(Step::Charge))
    }

    async fn ask_provider(
        &self,
        reference: &PaymentReference,
        total: saga::Money,
        after_another_worker: bool,
    ) -> Result<Outcome, ProviderError> {
        let answer = async {
            if after_another_worker && let Some(outcome) = self.provider.find(reference).await? {
                return Ok(outcome);
            }
            self.provider.charge(reference, total).await
        };
        tokio::time::timeout(PATIENCE, answer).await.unwrap_or(Err(ProviderError::Timeout(PATIENCE)))
    }

    /// Makes sure that the booking is not charged, or answers `charged` if it is. May be repeated. Two requests.
    pub async fn abort(
        &self,
        booking: &BookingId,
        reference: &PaymentReference,
        reason: Option<&Reason>,
    ) -> Result<Outcome, StepError> {
        let this = Attempt::begin(booking, Step::Abort, digest(&[reference.as_str().as_bytes()]), self.clock);
        let mut aborting = Aborting::begin(reason.cloned());
        for _ in 0..MOST_DECISIONS * MOVES {
            aborting = match aborting.next() {
                Abort::Answer(outcome) => return Ok(outcome),
                Abort::Void => {
                    self.provider.void(reference).await?;
                    aborting.voided()
                }
                Abort::Fence(outcome) => match self.store.fence(&this.record(&outcome)).await? {
                    Commit::Done => aborting.fenced(),
                    Commit::Found(found) => {
                        this.is_repeat_of_any(found.validation.as_deref())?;
                        aborting.found(found.state, &found.recorded)
                    }
                },
                Abort::Record(outcome) => match self.store.record(&this.record(&outcome)).await? {
                    Commit::Done => Aborting::recorded(outcome),
                    Commit::Found(found) => Aborting::recorded(found.outcome),
                },
            };
        }
        Err(StepError::Undecided(Step::Abort))
    }
}
