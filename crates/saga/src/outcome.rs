//! What a step returns. A rejection is an outcome, never an error.

use serde::{Deserialize, Serialize};

use crate::{
    id::BookingId,
    money::{Money, Price},
    step::Step,
};

/// The business reason why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rejection {
    /// Machine-readable: `sold_out`, `card_declined`, …
    pub code: String,
    /// Human-readable.
    pub message: String,
}

impl Rejection {
    /// A rejection with this code and message.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }

    /// The reason with which a booking fails after this step was rejected.
    pub fn at(&self, step: Step) -> Reason {
        Reason { step: Some(step), code: self.code.clone(), detail: self.message.clone() }
    }
}

/// Why a booking failed, or needs an operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reason {
    /// The step that failed, if it was one.
    pub step: Option<Step>,
    /// Machine-readable: the code of a rejection, or `technical_failure`.
    pub code: String,
    /// Human-readable.
    pub detail: String,
}

impl Reason {
    /// The code of a step that was given up without an outcome.
    pub const TECHNICAL_FAILURE: &str = "technical_failure";

    /// Whether something broke, as opposed to a business rejection.
    pub fn is_technical(&self) -> bool {
        self.code == Self::TECHNICAL_FAILURE
    }
}

/// The outcome of a step, as the journal records it and the reply carries it: `{"outcome": "reserved", "detail": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "detail", rename_all = "snake_case")]
pub enum Outcome {
    /// The part is reserved for this booking, at this price.
    Reserved {
        /// The total for all units and dates.
        price: Price,
    },
    /// The part is not reserved for this booking, and never will be.
    Rejected(Rejection),
    /// The part is no longer reserved for this booking, and never will be.
    Cancelled {
        /// Whether a reservation was released. If not, there was none.
        released: bool,
    },
    /// The customer has paid.
    Charged {
        /// The sum of the parts' prices.
        amount: Money,
        /// The provider's identifier of the charge.
        charge_id: String,
    },
    /// The charge was declined: the customer has not paid, and never will in this booking.
    Declined(Rejection),
    /// The booking is not charged, and no charge can succeed any more.
    Aborted {
        /// The first failure of this booking.
        #[serde(default)]
        reason: Option<Reason>,
    },
    /// All parts are reserved, and paid for.
    Confirmed {
        /// What was charged.
        total: Money,
    },
    /// No part is reserved and nothing is charged.
    Failed {
        /// The first failure of this booking.
        reason: Option<Reason>,
    },
    /// A step that must succeed was given up for now, and needs an operator.
    Parked {
        /// The step that was given up, and why.
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

/// A participant's reply to a command: `{"booking_id": "…", "step": "flight.reserve", "outcome": "reserved", "detail":
/// {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reply {
    /// The booking that the command named.
    pub booking_id: BookingId,
    /// The step that was carried out.
    pub step: Step,
    /// What the step returned, now or when it was first carried out.
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_one_that_is_written() {
        for outcome in [
            Outcome::Reserved { price: Price::of(Money::eur(1)).unwrap() },
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
