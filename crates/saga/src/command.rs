//! Commands: "do this step for this booking", as the orchestrator sends them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    id::{BookingId, PaymentReference},
    money::Money,
    outcome::Reason,
    part::{Part, PartName},
    payment::Prices,
    reading::{Fields, Violation, read_object},
    step::Step,
};

/// One step to carry out for one booking, with everything that it needs. An undo needs nothing from the reply of the
/// step that it undoes: that reply may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The booking that the step belongs to.
    pub booking_id: BookingId,
    /// The step and its input.
    pub action: Action,
}

/// A step together with its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reserve this part.
    Reserve(Part),
    /// Give this part back, or make sure that it can no longer be reserved.
    Cancel(Part),
    /// Charge the sum of these prices.
    Charge {
        /// The payment to charge.
        reference: PaymentReference,
        /// One price for each part of the plan.
        prices: Prices,
    },
    /// Make sure that this payment is not charged, unless it is already.
    Abort {
        /// The payment.
        reference: PaymentReference,
        /// The first failure of this booking.
        reason: Option<Reason>,
    },
    /// Record that the booking succeeded.
    Confirm {
        /// The amount charged.
        total: Money,
    },
    /// Record that the booking failed.
    Fail {
        /// The first failure of this booking.
        reason: Option<Reason>,
    },
    /// Record that a step which must succeed was given up for now.
    Park {
        /// The step that was given up, and why.
        reason: Reason,
    },
}

impl Action {
    /// The step that this action carries out.
    pub const fn step(&self) -> Step {
        match self {
            Self::Reserve(part) => Step::Reserve(part.name),
            Self::Cancel(part) => Step::Cancel(part.name),
            Self::Charge { .. } => Step::Charge,
            Self::Abort { .. } => Step::Abort,
            Self::Confirm { .. } => Step::Confirm,
            Self::Fail { .. } => Step::Fail,
            Self::Park { .. } => Step::Park,
        }
    }
}

impl Command {
    /// The step that this command asks for.
    pub const fn step(&self) -> Step {
        self.action.step()
    }

    /// Reads `{"step": "flight.reserve", "booking_id": "…", "part": {…}}` and similar. The contents of the part are
    /// left for its seller to read.
    pub fn read(payload: &Value) -> Result<Self, Vec<Violation>> {
        read_object(payload, |fields| {
            let step = fields.text("step", |name| Step::try_from(name.to_owned()));
            let booking_id = fields.text("booking_id", |text| BookingId::try_from(text.to_owned()));
            let action = match step? {
                Step::Reserve(name) => Action::Reserve(Part { name, contents: fields.value("part")? }),
                Step::Cancel(name) => Action::Cancel(Part { name, contents: fields.value("part")? }),
                Step::Charge => {
                    let reference = reference(fields);
                    let prices = prices(fields);
                    Action::Charge { reference: reference?, prices: prices? }
                }
                Step::Abort => {
                    let reference = reference(fields);
                    Action::Abort { reason: fields.value("reason")?, reference: reference? }
                }
                Step::Confirm => Action::Confirm { total: fields.value("total")? },
                Step::Fail => Action::Fail { reason: fields.value("reason")? },
                Step::Park => Action::Park { reason: fields.value("reason")? },
            };
            Some(Self { booking_id: booking_id?, action })
        })
    }
}

/// The prices of a charge. The command has to name the plan's parts, because payment knows only what the command
/// contains.
fn prices(fields: &mut Fields<'_, '_>) -> Option<Prices> {
    let plan = fields.value::<Vec<PartName>>("parts");
    let known = fields.value("prices");
    let (plan, known) = (plan?, known?);
    let names: BTreeSet<_> = plan.iter().copied().collect();
    let prices = Prices::of(known, &names).filter(|_| names.len() == plan.len());
    if prices.is_none() {
        fields.violation("prices", "must have a price for each of the parts, and for nothing else");
    }
    prices
}

fn reference(fields: &mut Fields<'_, '_>) -> Option<PaymentReference> {
    fields.object("payment", |fields| fields.value("reference"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn every_step_has_a_command() {
        let price = json!({"amount": 100, "currency": "EUR"});
        let reason = json!({"step": "a.reserve", "code": "sold_out", "detail": "no room"});
        for step in Step::of(&["a", "b"].map(PartName::new)) {
            let mut payload = json!({"step": step, "booking_id": ID});
            let more = match step {
                Step::Reserve(_) | Step::Cancel(_) => json!({"part": {"anything": [1]}}),
                Step::Charge => json!({
                    "payment": {"reference": ID}, "parts": ["a", "b"], "prices": {"a": price, "b": price}
                }),
                Step::Abort => json!({"payment": {"reference": ID}, "reason": reason}),
                Step::Confirm => json!({ "total": price }),
                Step::Fail | Step::Park => json!({ "reason": reason }),
            };
            payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            assert_eq!(Command::read(&payload).map(|command| command.step()), Ok(step), "{payload}");
            payload["more"] = json!(1);
            assert!(Command::read(&payload).is_err());
        }
    }

    #[test]
    fn a_charge_needs_a_price_for_every_part_of_the_plan_and_for_no_other() {
        let price = json!({"amount": 100, "currency": "EUR"});
        let read = |parts: Value, prices: Value| {
            let payload = json!({
                "step": "payment.charge", "booking_id": ID, "payment": {"reference": ID},
                "parts": parts, "prices": prices,
            });
            Command::read(&payload).map_err(|violations| violations[0].pointer.clone())
        };
        assert!(read(json!(["b", "a"]), json!({"a": price, "b": price})).is_ok());
        assert!(read(json!(["a"]), json!({ "a": price })).is_ok());
        for (parts, prices) in [
            (json!(["a", "b"]), json!({ "a": price })),
            (json!(["a"]), json!({"a": price, "b": price})),
            (json!(["a", "b"]), json!({"a": price, "c": price})),
            (json!(["a", "a"]), json!({ "a": price })),
            (json!([]), json!({})),
        ] {
            assert_eq!(read(parts.clone(), prices.clone()), Err("/prices".into()), "{parts} {prices}");
        }
        assert_eq!(read(json!("a"), json!({ "a": price })), Err("/parts".into()));
        assert_eq!(read(json!(["payment"]), json!({})), Err("/parts".into()));
        assert_eq!(read(json!(["a"]), json!({"a": 5})), Err("/prices".into()));
    }
}
