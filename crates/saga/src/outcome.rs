//! What a step answers. A rejection is an outcome, never an error.

use serde::{Deserialize, Serialize};

use crate::{BookingId, Money, Reason, Step};

/// The business reason why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rejection {
    /// For programs: `sold_out`, `card_declined`, …
    pub code: String,
    /// For people.
    pub message: String,
}

impl Rejection {
    /// A rejection with this code and message.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }

    /// The reason that a booking fails with after this step was rejected.
    pub fn at(&self, step: Step) -> Reason {
        Reason { step: Some(step), code: self.code.clone(), detail: self.message.clone() }
    }
}

/// The outcome of a step, as it is recorded in the journal and answered: `{"outcome": "reserved", "detail": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "detail", rename_all = "snake_case")]
pub enum Outcome {
    /// The leg is this booking's, at this price.
    Reserved {
        /// For all units and days together.
        price: Money,
    },
    /// The leg is not, and never will be, this booking's.
    Rejected(Rejection),
    /// The leg is not, and never will be, this booking's, whatever it was before.
    Cancelled {
        /// Whether there was something to give back.
        released: bool,
    },
    /// The traveller has paid.
    Charged {
        /// The sum of the legs' prices.
        amount: Money,
        /// The provider's name for the charge.
        charge_id: String,
    },
    /// The traveller has not paid and, in this booking, never will.
    Declined(Rejection),
    /// Not charged, and no charge can succeed any more.
    Aborted {
        /// The first thing that went wrong.
        #[serde(default)]
        reason: Option<Reason>,
    },
    /// The trip is booked.
    Confirmed {
        /// What it cost.
        total: Money,
    },
    /// The trip is not booked, and nothing of it is left.
    Failed {
        /// The first thing that went wrong.
        reason: Option<Reason>,
    },
    /// A step that must succeed was given up for now; an operator has been called.
    Parked {
        /// Which step, and why.
        reason: Reason,
    },
}

impl Outcome {
    /// The outcome's name: `reserved`, `rejected`, …
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Reserved { .. } => "reserved",
            Self::Rejected(_) => "rejected",
            Self::Cancelled { .. } => "cancelled",
            Self::Charged { .. } => "charged",
            Self::Declined(_) => "declined",
            Self::Aborted { .. } => "aborted",
            Self::Confirmed { .. } => "confirmed",
            Self::Failed { .. } => "failed",
            Self::Parked { .. } => "parked",
        }
    }
}

/// What a participant answers to a command: `{"booking_id": "…", "step": "flight.reserve", "outcome": "reserved",
/// "detail": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reply {
    /// Which booking.
    pub booking_id: BookingId,
    /// Which step.
    pub step: Step,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_one_that_is_written() {
        for outcome in [
            Outcome::Reserved { price: Money::eur(1) },
            Outcome::Rejected(Rejection::new("sold_out", "no seat")),
            Outcome::Cancelled { released: true },
            Outcome::Charged { amount: Money::eur(1), charge_id: "ch".into() },
            Outcome::Declined(Rejection::new("card_declined", "no")),
            Outcome::Aborted { reason: Some(Rejection::new("sold_out", "no seat").at(Step::Charge)) },
            Outcome::Confirmed { total: Money::eur(1) },
            Outcome::Failed { reason: None },
            Outcome::Parked { reason: Reason { step: None, code: "parked".into(), detail: String::new() } },
        ] {
            let json = serde_json::to_value(&outcome).unwrap();
            assert_eq!(json["outcome"], outcome.name());
            assert_eq!(serde_json::from_value::<Outcome>(json).unwrap(), outcome);
        }
    }
}
