//! A customer's request, and the [`Definition`] of a saga.

use std::{collections::BTreeMap, fmt};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    customer::Customer,
    id::PaymentToken,
    part::Parts,
    reading::{Violation, read_object},
    stock::PartType,
};

/// Who coordinates the booking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// A state machine calls the participants (the conductor).
    Orchestrated,
    /// The participants react to each other's events (the dancers).
    Choreographed,
}

impl Variant {
    /// Both variants.
    pub const ALL: [Self; 2] = [Self::Orchestrated, Self::Choreographed];

    /// `orchestrated` or `choreographed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orchestrated => "orchestrated",
            Self::Choreographed => "choreographed",
        }
    }
}

/// The definition of one saga: what its requests look like, and which parts they may contain.
#[derive(Clone, Copy)]
pub struct Definition {
    /// The name of its bookings in the API's paths: `bookings`.
    pub collection: &'static str,
    /// The field with the customer, in requests and in responses: `traveller`.
    pub customer: &'static str,
    /// The parts that a request may contain, in the order in which they are listed.
    pub parts: &'static [PartType],
    /// The OpenAPI description of its API.
    pub openapi: &'static str,
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Definition({})", self.collection)
    }
}

/// A request that satisfies every rule that can be checked without looking at the stock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookingRequest {
    /// The variant that carries the booking out.
    pub variant: Variant,
    /// The customer, who is personal data.
    pub customer: Customer,
    /// The parts to book, each with its contents.
    pub parts: Parts,
    /// Stands for the card to charge.
    pub token: PaymentToken,
    /// The last date on which any part is used; none if no part is tied to a date.
    pub last_day: Option<Date>,
}

impl Definition {
    /// Reads the body of a request, and reports every rule that it violates. `today` is the earliest date that it is
    /// anywhere on earth: dates before it are in the past for everyone.
    pub fn read(&self, body: &Value, today: Date) -> Result<BookingRequest, Vec<Violation>> {
        read_object(body, |fields| {
            let variant = fields.text("variant", |text| match text {
                "orchestrated" => Ok(Variant::Orchestrated),
                "choreographed" => Ok(Variant::Choreographed),
                _ => Err("must be \"orchestrated\" or \"choreographed\"".into()),
            });
            let customer = fields.object(self.customer, Customer::read);
            let (mut parts, mut last_day, mut is_readable) = (BTreeMap::new(), None, true);
            for part_type in self.parts {
                let name = part_type.name.as_str();
                let request = fields.object_if_present(name, |part| (part_type.read)(part, today));
                let Some(request) = request else { continue };
                is_readable &= request.is_some();
                last_day = last_day.max(request.and_then(|request| request.last_day()));
                parts.insert(part_type.name, body[name].clone());
            }
            let token = fields.object("payment", |fields| fields.text("token", |text| PaymentToken::try_from(text)));
            let parts = Parts::try_from(parts).map_err(|_| self.no_part());
            let parts = parts.map_err(|detail| fields.violation_of_all(detail)).ok();
            let parts = parts.filter(|_| is_readable);
            Some(BookingRequest { variant: variant?, customer: customer?, parts: parts?, token: token?, last_day })
        })
    }

    fn no_part(&self) -> String {
        let names: Vec<_> = self.parts.iter().map(|part_type| part_type.name.as_str()).collect();
        format!("must have at least one of {}", names.join(", "))
    }
}
