//! The payment provider: another company, outside of every transaction.

use saga::{Money, Outcome, PaymentReference, PaymentToken};

/// A payment provider, as far as a booking needs one.
///
/// Every call names the payment by a reference that follows from the booking, and may be repeated: a payment is
/// charged at most once, and never after it was voided. This is what the provider has to guarantee. Payment waits for two
/// seconds, and asks a few times within one invocation; an implementation need not retry.
pub trait PaymentProvider {
    /// Hands the traveller's token over, to be charged later under this reference, and forgets it. Nothing is charged.
    /// The inner result tells whether the provider knows the token.
    fn attach(
        &self,
        reference: &PaymentReference,
        token: &PaymentToken,
    ) -> impl Future<Output = Result<Result<(), UnknownToken>, ProviderError>> + Send;

    /// Charges, or answers `Charged` as before if it did. The outcome is `Charged` or `Declined`. After an error, or if
    /// the future is dropped, nobody knows whether it was charged: the caller asks with `find` before it charges again.
    fn charge(
        &self,
        reference: &PaymentReference,
        amount: Money,
    ) -> impl Future<Output = Result<Outcome, ProviderError>> + Send;

    /// What became of an earlier charge: `Charged`, or nothing. Nothing does not rule out that a charge which is still
    /// under way takes effect later; then it is the one, and a repeat answers it.
    fn find(&self, reference: &PaymentReference)
    -> impl Future<Output = Result<Option<Outcome>, ProviderError>> + Send;

    /// Refunds or voids whatever was charged, and refuses every charge from now on.
    fn void(&self, reference: &PaymentReference) -> impl Future<Output = Result<(), ProviderError>> + Send;
}

/// The provider does not know this token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownToken;

/// The provider gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// It could not be reached, or answered with an error of its own.
    #[error("the payment provider is out of order ({0}); try again")]
    Unavailable(String),
    /// It did not answer in time. It may have done what it was asked to.
    #[error("the payment provider did not answer within {0:?}; ask it what happened, then try again")]
    Timeout(std::time::Duration),
}
