//! What a saga is started with.

use serde::{Deserialize, Serialize};

use crate::{
    id::PaymentReference,
    part::{PartNames, Parts},
    reading::Fields,
};

/// What participants need to know of a booking to take part in it: no personal data, and no secret. It is what an
/// execution of the state machine is started with, too. Written as `{"parts": {…}, "payment": {"reference": "…"}}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Plan {
    /// What is to be reserved.
    pub parts: Parts,
    /// How it is paid.
    pub payment: Payment,
}

/// How a booking is paid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Payment {
    /// The payment at its provider.
    pub reference: PaymentReference,
}

impl Plan {
    /// A plan for these parts, paid with this payment.
    pub const fn new(parts: Parts, reference: PaymentReference) -> Self {
        Self { parts, payment: Payment { reference } }
    }

    /// What its parts are called.
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
