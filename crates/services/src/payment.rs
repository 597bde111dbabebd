//! Payment: charges once, or aborts so that no charge can follow.

use std::time::Duration;

use saga::{
    BookingId, Command, Envelope, Money, Outcome, Participant, PaymentReference, Reason, Reply, Step,
    command::Action,
    id::digest,
    payment::{self, ATTEMPTS, Abort, Aborting, Charge, Charging, Prices},
    reaction::{self, PaymentReaction},
};
use serde_json::Value;
use store::{Commit, PaymentStore};

use crate::{
    Attempt, Clock, MAX_DECISIONS, PaymentProvider, ProviderError, StepError, StepResponse, answer, command, event,
    event_for, published,
};

/// How long a worker waits for the provider in each attempt.
pub const PROVIDER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a worker starts new attempts at the provider. The last attempt then still ends, and its outcome is recorded
/// and published, before the function's timeout (10 s).
pub const ATTEMPTS_WINDOW: Duration = Duration::from_secs(6);

/// How long a lease lasts: longer than a worker, which the function's timeout (10 s) ends.
pub const LEASE: Duration = Duration::from_secs(15);

/// The maximum number of moves that a decision leads to: lease, attempts at the provider, completion, answer.
const MOVES: u32 = ATTEMPTS + 3;

/// The participant that decides.
#[derive(Debug)]
pub struct PaymentService<S, P> {
    /// Its decisions, and its part of the journal.
    pub store: S,
    /// The provider that charges and voids.
    pub provider: P,
    /// Returns the current time; tests replace it.
    pub clock: Clock,
}

impl<S: PaymentStore, P: PaymentProvider> PaymentService<S, P> {
    /// Carries out a command and returns the reply.
    pub async fn handle(&self, payload: &Value) -> Result<StepResponse, StepError> {
        self.carry_out(&command(payload, Participant::Payment)?).await.map(StepResponse::Reply)
    }

    /// Reacts to an event and returns the event to publish; none if there is nothing to do yet.
    pub async fn react(&self, message: &Value) -> Result<Option<StepResponse>, StepError> {
        let Some(cause) = event_for(Participant::Payment, message)? else { return Ok(None) };
        self.follow(&cause, reaction::of_payment(&cause.event)).await
    }

    /// Reacts to an event that this function gave up because of an error of this type. Functions are named after their
    /// participants; without a name, the event was not delivered to any function.
    pub async fn react_to_failure(
        &self,
        message: &Value,
        function: &str,
        error_type: &str,
    ) -> Result<Option<StepResponse>, StepError> {
        let Some(cause) = event(message)? else { return Ok(None) };
        let who = function.rsplit('-').next().and_then(Participant::named);
        self.follow(&cause, reaction::of_payment_to_failure(&cause.event, who, error_type)).await
    }

    async fn follow(
        &self,
        cause: &Envelope,
        reaction: Option<PaymentReaction>,
    ) -> Result<Option<StepResponse>, StepError> {
        let action = match reaction {
            None => return Ok(None),
            Some(PaymentReaction::Abort { reference, reason }) => Action::Abort { reference, reason: Some(reason) },
            Some(PaymentReaction::Collect { part, price, plan, reference }) => {
                let known = self.store.collect(&cause.booking_id, part, price).await?;
                let Some(prices) = Prices::of(known, &plan) else { return Ok(None) };
                Action::Charge { reference, prices }
            }
        };
        let reply = self.carry_out(&Command { booking_id: cause.booking_id.clone(), action }).await?;
        Ok(published(cause, &reply, self.clock))
    }

    async fn carry_out(&self, command: &Command) -> Result<Reply, StepError> {
        let result = match &command.action {
            Action::Charge { reference, prices } => self.charge(&command.booking_id, reference, prices).await,
            Action::Abort { reference, reason } => self.abort(&command.booking_id, reference, reason.as_ref()).await,
            _ => return Err(StepError::InvalidInput(format!("payment does not carry out {}", command.step()))),
        };
        answer(command, result)
    }

    /// Charges the sum of the prices, or declines. May be repeated: it charges once. Three requests (lease, provider,
    /// completion), two more (find, charge) for each further attempt at a provider that does not answer, and one for a
    /// repeat.
    pub async fn charge(
        &self,
        booking_id: &BookingId,
        reference: &PaymentReference,
        prices: &Prices,
    ) -> Result<Outcome, StepError> {
        let total = prices.total().map_err(|error| StepError::InvalidInput(format!("/prices: {error}")))?;
        let validation = digest(&[reference.as_str().as_bytes(), crate::json(prices).as_bytes()]);
        let to_charge = payment::to_charge(total);
        let this = Attempt::begin(booking_id, Step::Charge, validation, self.clock);
        let (mut charging, mut failure) = (Charging::default(), StepError::ChargeInProgress);
        for _ in 0..MAX_DECISIONS * MOVES {
            let now = (self.clock)().as_millisecond();
            charging = match charging.next(now) {
                Charge::Answer(outcome) => return Ok(outcome),
                Charge::ComeBack => return Err(failure),
                Charge::Lease { earlier } => {
                    let until = now + LEASE.as_millis() as i64; // 15,000
                    match self.store.lease(&this.begun(), until, earlier).await? {
                        Commit::Done => Charging::leased(until, ask_until(&this), earlier),
                        Commit::Found(found) => {
                            this.is_repeat_of_any(found.validation.as_deref())?;
                            Charging::found(found.state, found.recorded)
                        }
                    }
                }
                Charge::Ask { find_first, pause } => match &to_charge {
                    Err(outcome) => charging.answered(Some(outcome.clone())),
                    Ok(amount) => {
                        rest(pause).await;
                        match self.ask_provider(reference, *amount, find_first).await {
                            Ok(outcome) => charging.answered(Some(outcome)),
                            Err(error) => {
                                let booking_id = booking_id.as_str();
                                tracing::warn!(booking_id, %error, "it is unknown whether the booking is charged");
                                failure = error.into();
                                charging.answered(None)
                            }
                        }
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
                    if let Err(error) = self.store.release(booking_id, until, now).await {
                        let booking_id = booking_id.as_str();
                        tracing::warn!(booking_id, %error, "the lease could not be released and stays until it ends");
                    }
                    Charging::released()
                }
                Charge::Void => {
                    self.void(&this, reference).await?;
                    charging.voided()
                }
            };
        }
        Err(StepError::Undecided(Step::Charge))
    }

    async fn ask_provider(
        &self,
        reference: &PaymentReference,
        total: Money,
        find_first: bool,
    ) -> Result<Outcome, ProviderError> {
        patiently(async {
            if find_first && let Some(outcome) = self.provider.find(reference).await? {
                return Ok(outcome);
            }
            self.provider.charge(reference, total).await
        })
        .await
    }

    /// Voids, whether or not an earlier unanswered attempt has done so.
    async fn void(&self, this: &Attempt<'_>, reference: &PaymentReference) -> Result<(), ProviderError> {
        let mut unanswered = 0;
        loop {
            let Err(error) = patiently(self.provider.void(reference)).await else { return Ok(()) };
            unanswered += 1;
            match payment::pause(unanswered, (self.clock)().as_millisecond(), ask_until(this)) {
                Some(pause) => rest(pause).await,
                None => return Err(error),
            }
        }
    }

    /// Makes sure that the booking is not charged, or returns `Charged` if it is. May be repeated. Two requests.
    pub async fn abort(
        &self,
        booking_id: &BookingId,
        reference: &PaymentReference,
        reason: Option<&Reason>,
    ) -> Result<Outcome, StepError> {
        let this = Attempt::begin(booking_id, Step::Abort, digest(&[reference.as_str().as_bytes()]), self.clock);
        let mut aborting = Aborting::begin(reason.cloned());
        for _ in 0..MAX_DECISIONS * MOVES {
            aborting = match aborting.next() {
                Abort::Answer(outcome) => return Ok(outcome),
                Abort::Void => {
                    self.void(&this, reference).await?;
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

/// When it is too late for a worker to start another attempt at the provider, in milliseconds since 1970.
fn ask_until(this: &Attempt<'_>) -> i64 {
    this.started_at.as_millisecond() + ATTEMPTS_WINDOW.as_millis() as i64 // 6,000
}

async fn patiently<T>(answer: impl Future<Output = Result<T, ProviderError>>) -> Result<T, ProviderError> {
    tokio::time::timeout(PROVIDER_TIMEOUT, answer).await.unwrap_or(Err(ProviderError::Timeout(PROVIDER_TIMEOUT)))
}

/// Sleeps for at least half of this time, plus a random part of the other half, so that workers that failed together do
/// not retry together.
async fn rest(at_most: Duration) {
    if !at_most.is_zero() {
        tokio::time::sleep(at_most.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }
}
