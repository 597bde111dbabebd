//! The input that a saga starts with.

use serde::{Deserialize, Serialize};

use crate::{
    id::PaymentReference,
    part::{PartNames, Parts},
    reading::Fields,
};

/// What participants need to know about a booking to take part in it: no personal data and no secrets. It is also the
/// input of the state machine's execution. Written as `{"parts": {…}, "payment": {"reference": "…"}}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Plan {
    /// The parts to reserve.
    pub parts: Parts,
    /// How the booking is paid.
    pub payment: Payment,
}

/// How a booking is paid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Payment {
    /// The payment at its provider, which was given the card.
    pub reference: PaymentReference,
}

impl Plan {
    /// A plan for these parts, paid with the payment of this reference.
    pub const fn new(parts: Parts, reference: PaymentReference) -> Self {
        Self { parts, payment: Payment { reference } }
    }

    /// The names of its parts.
    pub fn names(&self) -> PartNames {
        self.parts.names()
    }

    /// Reads the fields `parts` and `payment`.
    pub fn read(fields: &mut Fields<'_, '_>) -> Option<Self> {
        let parts = fields.value("parts");
        let reference = fields.object("payment", |fields| fields.value("reference"));
        Some(Self::new(parts?, reference?))
    }
}
