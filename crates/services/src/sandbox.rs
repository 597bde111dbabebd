//! A payment provider for tests and demos. It keeps its own ledger, and its test tokens behave as their names say.

use std::time::Duration;

use saga::{Money, Outcome, PaymentReference, PaymentToken, Rejection};
use store::{Card, ChargeResult, Ledger, Paid, StoreError};

use crate::{Clock, PaymentProvider, ProviderError, provider::UnknownToken};

/// The delay of a late answer: longer than any caller waits.
const LATE: Duration = Duration::from_secs(5);

/// The sandbox provider.
#[derive(Debug)]
pub struct SandboxProvider {
    /// Its ledger.
    pub ledger: Ledger,
    /// Returns the current time; tests replace it.
    pub clock: Clock,
}

fn card(token: &str) -> Option<Card> {
    Some(match token {
        "tok_visa" => Card::default(),
        "tok_declined" => Card { declines_with: Some("card_declined".into()), ..Card::default() },
        "tok_insufficient_funds" => Card { declines_with: Some("insufficient_funds".into()), ..Card::default() },
        "tok_timeout" => Card { answers_late: true, ..Card::default() },
        "tok_flaky" => Card { failures_left: 2, ..Card::default() },
        _ => return None,
    })
}

fn charged(paid: Paid) -> Outcome {
    Outcome::Charged { amount: paid.amount, charge_id: paid.charge_id }
}

fn declined(code: &str, message: &str) -> Outcome {
    Outcome::Declined(Rejection::new(code, message))
}

fn unavailable(error: StoreError) -> ProviderError {
    ProviderError::Unavailable(error.to_string())
}

impl PaymentProvider for SandboxProvider {
    async fn attach(
        &self,
        reference: &PaymentReference,
        token: &PaymentToken,
    ) -> Result<Result<(), UnknownToken>, ProviderError> {
        let Some(card) = card(token.reveal()) else { return Ok(Err(UnknownToken)) };
        self.ledger.attach(reference, &card).await.map_err(unavailable)?;
        Ok(Ok(()))
    }

    async fn charge(&self, reference: &PaymentReference, amount: Money) -> Result<Outcome, ProviderError> {
        match self.ledger.charge(reference, amount, (self.clock)()).await.map_err(unavailable)? {
            ChargeResult::Paid(paid) => Ok(charged(paid)),
            ChargeResult::PaidLate(paid) => {
                tokio::time::sleep(LATE).await;
                Ok(charged(paid))
            }
            ChargeResult::Declines(code) if code == "insufficient_funds" => {
                Ok(declined(&code, "the account has insufficient funds"))
            }
            ChargeResult::Declines(code) => Ok(declined(&code, "the card was declined")),
            ChargeResult::Voided => Ok(declined("voided", "the payment was voided")),
            ChargeResult::Unknown => Ok(declined("unknown_payment", "no card was attached to this payment")),
            ChargeResult::OutOfOrder => Err(ProviderError::Unavailable("it reports a failure".into())),
        }
    }

    async fn find(&self, reference: &PaymentReference) -> Result<Option<Outcome>, ProviderError> {
        Ok(self.ledger.paid(reference).await.map_err(unavailable)?.map(charged))
    }

    async fn void(&self, reference: &PaymentReference) -> Result<(), ProviderError> {
        self.ledger.void(reference, (self.clock)()).await.map_err(unavailable)
    }
}
