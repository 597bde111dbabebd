//! The payment provider: another company, outside every transaction.

use saga::{Money, Outcome, PaymentReference, PaymentToken};

/// A payment provider, reduced to what a booking needs.
///
/// Every call names the payment by a reference derived from the booking, and may be repeated: a payment is charged at
/// most once, and never after it was voided. The provider has to guarantee this. Payment waits two seconds for each
/// answer and makes a few attempts within one invocation; an implementation need not retry.
pub trait PaymentProvider {
    /// Hands over the customer's token, to be charged later under this reference, and forgets it. Nothing is charged
    /// yet. The inner result is whether the provider knows the token.
    fn attach(
        &self,
        reference: &PaymentReference,
        token: &PaymentToken,
    ) -> impl Future<Output = Result<Result<(), UnknownToken>, ProviderError>> + Send;

    /// Charges, or returns the same `Charged` as before if it has charged already. The outcome is `Charged` or
    /// `Declined`. After an error, or if the future is dropped, it is unknown whether it charged: the caller asks with
    /// `find` before it charges again.
    fn charge(
        &self,
        reference: &PaymentReference,
        amount: Money,
    ) -> impl Future<Output = Result<Outcome, ProviderError>> + Send;

    /// The result of an earlier charge: `Charged`, or none. None does not rule out that a charge still under way takes
    /// effect later; that charge then counts, and a repeated `charge` returns it.
    fn find(&self, reference: &PaymentReference)
    -> impl Future<Output = Result<Option<Outcome>, ProviderError>> + Send;

    /// Refunds or voids whatever was charged, and refuses every charge from now on.
    fn void(&self, reference: &PaymentReference) -> impl Future<Output = Result<(), ProviderError>> + Send;
}

/// The provider does not know this token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownToken;

/// The provider gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The provider could not be reached, or returned an error.
    #[error("the payment provider is unavailable ({0}); try again")]
    Unavailable(String),
    /// The provider did not answer in time. It may have carried out the request.
    #[error("the payment provider did not answer within {0:?}; ask it what happened, then try again")]
    Timeout(std::time::Duration),
}
