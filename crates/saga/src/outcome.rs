//! What a step answers. A rejection is an outcome, never an error.

use serde::{Deserialize, Serialize};

use crate::{
    id::BookingId,
    money::{Money, Price},
    step::Step,
};

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

/// Why a booking failed, or needs an operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reason {
    /// The step where it happened, if it was one.
    pub step: Option<Step>,
    /// For programs: a rejection's code, or `technical_failure`.
    pub code: String,
    /// For people.
    pub detail: String,
}

impl Reason {
    /// The code of a step that was given up without an outcome.
    pub const TECHNICAL_FAILURE: &str = "technical_failure";

    /// Whether something broke, rather than that somebody said no.
    pub fn is_technical(&self) -> bool {
        self.code == Self::TECHNICAL_FAILURE
    }
}

/// The outcome of a step, as it is recorded in the journal and answered: `{"outcome": "reserved", "detail": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "detail", rename_all = "snake_case")]
pub enum Outcome {
    /// The part is this booking's, at this price.
    Reserved {
        /// For all units and dates together.
        price: Price,
    },
    /// The part is not, and never will be, this booking's.
    Rejected(Rejection),
    /// The part is not, and never will be, this booking's, whatever it was before.
    Cancelled {
        /// Whether there was something to give back.
        released: bool,
    },
    /// The customer has paid.
    Charged {
        /// The sum of the parts' prices.
        amount: Money,
        /// The provider's name for the charge.
        charge_id: String,
    },
    /// The customer has not paid and, in this booking, never will.
    Declined(Rejection),
    /// Not charged, and no charge can succeed any more.
    Aborted {
        /// The first thing that went wrong.
        #[serde(default)]
        reason: Option<Reason>,
    },
    /// All parts are the customer's.
    Confirmed {
        /// What it cost.
        total: Money,
    },
    /// No part is reserved, and nothing is charged.
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
