//! Commands: "do this step for this booking", as the orchestrator sends them.

use jiff::civil::Date;
use serde_json::Value;

use crate::{
    BookingId, Leg, LegRequest, Money, PaymentReference, Reason, Step, Violation,
    payment::Prices,
    reading::{Fields, read_object},
};

/// One step to be done for one booking, with what it needs. An undo needs nothing of the reply of what it undoes:
/// that may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Which booking.
    pub booking_id: BookingId,
    /// What to do.
    pub action: Action,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reserve this leg.
    Reserve(LegRequest),
    /// Give this leg back, or see to it that it cannot be reserved any more.
    Cancel(LegRequest),
    /// Charge the sum of these prices.
    Charge {
        /// With this payment.
        reference: PaymentReference,
        /// One for each leg.
        prices: Prices,
    },
    /// Make sure that this payment is not charged, unless it is already.
    Abort {
        /// This payment.
        reference: PaymentReference,
        /// The first thing that went wrong.
        reason: Option<Reason>,
    },
    /// The trip is booked.
    Confirm {
        /// What was charged.
        total: Money,
    },
    /// The trip is not booked.
    Fail {
        /// The first thing that went wrong.
        reason: Option<Reason>,
    },
    /// A step that must succeed was given up for now.
    Park {
        /// Which, and why.
        reason: Reason,
    },
}

impl Action {
    /// The step that this is.
    pub const fn step(&self) -> Step {
        match self {
            Self::Reserve(leg) => Step::Reserve(leg.leg()),
            Self::Cancel(leg) => Step::Cancel(leg.leg()),
            Self::Charge { .. } => Step::Charge,
            Self::Abort { .. } => Step::Abort,
            Self::Confirm { .. } => Step::Confirm,
            Self::Fail { .. } => Step::Fail,
            Self::Park { .. } => Step::Park,
        }
    }
}

impl Command {
    /// The step that is asked for.
    pub const fn step(&self) -> Step {
        self.action.step()
    }

    /// Reads `{"step": "flight.reserve", "booking_id": "…", "flight": {…}}` and its like.
    pub fn read(payload: &Value) -> Result<Self, Vec<Violation>> {
        read_object(payload, |fields| {
            let step = fields.text("step", |name| Step::try_from(name.to_owned()));
            let booking_id = fields.text("booking_id", |text| BookingId::try_from(text.to_owned()));
            let action = match step? {
                Step::Reserve(leg) => Action::Reserve(leg_request(leg, fields)?),
                Step::Cancel(leg) => Action::Cancel(leg_request(leg, fields)?),
                Step::Charge => {
                    let reference = reference(fields);
                    let prices = fields.object("prices", |fields| {
                        let [flight, hotel, car] = Leg::ALL.map(|leg| fields.value::<Money>(leg.name()));
                        Some(Prices::new([flight?, hotel?, car?]))
                    });
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

fn leg_request(leg: Leg, fields: &mut Fields<'_, '_>) -> Option<LegRequest> {
    fields.object(leg.name(), |fields| LegRequest::read(leg, fields, Date::MIN))
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
        let flight = json!({"flight_no": "LH400", "date": "2027-03-01", "seats": 2});
        let hotel = json!({"hotel_id": "plaza", "check_in": "2027-03-01", "check_out": "2027-03-02", "rooms": 1});
        let car = json!({"station_id": "jfk", "category": "suv", "pick_up": "2027-03-01", "drop_off": "2027-03-02"});
        let price = json!({"amount": 100, "currency": "EUR"});
        let reason = json!({"step": "hotel.reserve", "code": "sold_out", "detail": "no room"});
        for step in Step::ALL {
            let mut payload = json!({"step": step.name(), "booking_id": ID});
            let more = match step {
                Step::Reserve(Leg::Flight) | Step::Cancel(Leg::Flight) => json!({ "flight": flight }),
                Step::Reserve(Leg::Hotel) | Step::Cancel(Leg::Hotel) => json!({ "hotel": hotel }),
                Step::Reserve(Leg::Car) | Step::Cancel(Leg::Car) => json!({ "car": car }),
                Step::Charge => {
                    json!({"payment": {"reference": ID}, "prices": {"flight": price, "hotel": price, "car": price}})
                }
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
    fn a_charge_needs_a_price_for_every_leg() {
        let price = json!({"amount": 100, "currency": "EUR"});
        let violations = Command::read(&json!({
            "step": "payment.charge", "booking_id": ID, "payment": {"reference": ID},
            "prices": {"flight": price, "hotel": price}
        }))
        .unwrap_err();
        assert_eq!(violations, [Violation { pointer: "/prices/car".into(), detail: "is required".into() }]);
    }
}
