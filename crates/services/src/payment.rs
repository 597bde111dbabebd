//! Payment: charges once, or aborts so that no charge can follow.

use std::time::Duration;

use saga::{
    BookingId, Outcome, Participant, PaymentReference, Step,
    command::Action,
    id::digest,
    payment::{self, Abort, Charge, Prices, Recorded, State},
};
use serde_json::Value;
use store::{Commit, PaymentFound, PaymentStore};

use crate::{Attempt, Clock, MOST_DECISIONS, PaymentProvider, ProviderError, Reply, StepError, answer, command};

/// How long a worker waits for the provider.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a lease lasts: longer than a worker lives, which a function's timeout (10 s) bounds.
const LEASE: Duration = Duration::from_secs(15);

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
    pub async fn handle(&self, payload: &Value) -> Result<Reply, StepError> {
        let command = command(payload, Participant::Payment)?;
        let result = match &command.action {
            Action::Charge { reference, prices } => self.charge(&command.booking_id, reference, prices).await,
            Action::Abort { reference } => self.abort(&command.booking_id, reference).await,
            _ => return Err(StepError::InvalidCommand(format!("payment does not do {}", command.step()))),
        };
        answer(&command, result)
    }

    /// Charges the sum of the prices, or says why not. May be repeated: it charges once. Three requests (lease,
    /// provider, completion), and one for a repeat.
    pub async fn charge(
        &self,
        booking: &BookingId,
        reference: &PaymentReference,
        prices: &Prices,
    ) -> Result<Outcome, StepError> {
        let total = prices.total().map_err(|error| StepError::InvalidCommand(format!("/prices: {error}")))?;
        let currency = String::from(total.currency);
        let validation = digest(&[reference.as_str().as_bytes(), &total.amount.to_be_bytes(), currency.as_bytes()]);
        let this = Attempt::begin(booking, Step::Charge, validation, self.clock);
        let mut known = PaymentFound::default();
        for _ in 0..MOST_DECISIONS {
            let now = (self.clock)().as_millisecond();
            let earlier = match payment::charge(&known.state, &known.recorded, now) {
                Charge::Answer(outcome) => return Ok(outcome),
                Charge::Wait => return Err(StepError::ChargeInProgress),
                Charge::Lease => None,
                Charge::TakeOver { lease_ended } => Some(lease_ended),
            };
            let lease_ends = now + LEASE.as_millis() as i64; // 15,000
            // The outcome is not known yet, and not written.
            let found = match self.store.lease(&this.record(&Outcome::Aborted {}), lease_ends, earlier).await? {
                Commit::Found(found) => found,
                Commit::Done => {
                    let outcome = match self.ask_provider(reference, total, earlier.is_some()).await {
                        Ok(outcome) => outcome,
                        Err(error) => {
                            // This worker lives: the next need not wait for its lease to end.
                            let now = (self.clock)().as_millisecond();
                            if let Err(error) = self.store.release(booking, lease_ends, now).await {
                                tracing::warn!(booking_id = booking.as_str(), %error, "the lease stays until it ends");
                            }
                            return Err(error.into());
                        }
                    };
                    let Some(decision) = State::after(&outcome) else {
                        return Err(ProviderError::Unavailable(format!("it answered {}", outcome.name())).into());
                    };
                    match self.store.complete(&this.record(&outcome), &decision).await? {
                        Commit::Done => return Ok(outcome),
                        Commit::Found(found) => found,
                    }
                }
            };
            if let Some(recorded) = &found.validation {
                this.is_repeat_of(recorded)?;
            }
            known = found;
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
    pub async fn abort(&self, booking: &BookingId, reference: &PaymentReference) -> Result<Outcome, StepError> {
        let this = Attempt::begin(booking, Step::Abort, digest(&[reference.as_str().as_bytes()]), self.clock);
        let mut known = PaymentFound::default();
        for _ in 0..MOST_DECISIONS {
            let recorded = match &known.recorded {
                Recorded::Completed(outcome) => Some(outcome),
                Recorded::Absent | Recorded::InProgress { .. } => None, // an abort has no lease
            };
            match payment::abort(&known.state, recorded) {
                Abort::Replay(outcome) => return Ok(outcome),
                Abort::Void(outcome) => {
                    self.provider.void(reference).await?;
                    return Ok(outcome);
                }
                Abort::Fence(outcome) => match self.store.fence(&this.record(&outcome)).await? {
                    Commit::Done => {
                        self.provider.void(reference).await?;
                        return Ok(outcome);
                    }
                    Commit::Found(found) => {
                        if let Some(recorded) = &found.validation {
                            this.is_repeat_of(recorded)?;
                        }
                        known = found;
                    }
                },
                Abort::Record(outcome) => match self.store.record(&this.record(&outcome)).await? {
                    Commit::Done => return Ok(outcome),
                    Commit::Found(found) => return Ok(found.outcome),
                },
            }
        }
        Err(StepError::Undecided(Step::Abort))
    }
}
