//! Events: "this happened". Each participant knows which events it reacts to and how: see [`reaction`]. No participant
//! knows the whole flow.
//!
//! ```text
//!   booking.requested ─▶ each seller whose part is in the plan: reserve
//!   *.reserved ─▶ payment: charge, once the parts that are priced are the plan's
//!   *.rejected ─▶ payment: abort
//!   payment.charged ─▶ booking: confirm
//!   booking.aborted ─▶ each seller whose part is in the plan: cancel
//!   *.cancelled ─▶ booking: fail, once the parts that are cancelled are the plan's
//! ```
//!
//! Sellers' events are matched by their last word: a participant that reacts to `flight.reserved` reacts to every
//! part's `reserved` event.
//!
//! [`reaction`]: crate::reaction

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    id::{BookingId, digest},
    money::{Money, Price},
    outcome::{Outcome, Reason, Rejection},
    part::{PartName, Parts},
    plan::Plan,
    reading::{Fields, Violation, read_object},
    step::Step,
};

/// The schema version of the events that this program writes, and the only one that it reads. Fields may be added
/// without a new version, because readers ignore fields they do not know. Version 1, of release 0.1, had one field per
/// part.
pub const SCHEMA_VERSION: u64 = 2;

/// Something that happened to a booking, with what the participants that react to it need.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A booking was accepted.
    Requested {
        /// The plan of the booking.
        plan: Plan,
    },
    /// A seller reserved its part.
    Reserved {
        /// The part of that seller.
        part: PartName,
        /// The price of the part.
        price: Price,
        /// The plan of the booking.
        plan: Plan,
    },
    /// A seller rejected its part.
    Rejected {
        /// The part of that seller.
        part: PartName,
        /// The business reason.
        rejection: Rejection,
        /// The plan of the booking.
        plan: Plan,
    },
    /// Payment decided: the booking is charged.
    Charged {
        /// The amount charged.
        amount: Money,
    },
    /// Payment decided: the booking is not charged, and never will be.
    Aborted {
        /// The first failure of this booking.
        reason: Option<Reason>,
        /// The parts to cancel.
        parts: Parts,
    },
    /// A seller cancelled its part.
    Cancelled {
        /// The part of that seller.
        part: PartName,
        /// The first failure of this booking.
        reason: Option<Reason>,
    },
    /// The booking succeeded.
    Confirmed {
        /// The amount charged.
        total: Money,
    },
    /// The booking failed: nothing is reserved and nothing is charged.
    Failed {
        /// The first failure of this booking.
        reason: Option<Reason>,
    },
}

/// The type of an event. Written as `booking.requested`, `flight.reserved`, …: its name everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    /// See [`Event::Requested`].
    Requested,
    /// See [`Event::Reserved`].
    Reserved(PartName),
    /// See [`Event::Rejected`].
    Rejected(PartName),
    /// See [`Event::Charged`].
    Charged,
    /// See [`Event::Aborted`].
    Aborted,
    /// See [`Event::Cancelled`].
    Cancelled(PartName),
    /// See [`Event::Confirmed`].
    Confirmed,
    /// See [`Event::Failed`].
    Failed,
}

impl EventType {
    /// All event types of a booking with these parts.
    pub fn of(parts: &[PartName]) -> Vec<Self> {
        let each = |event: fn(PartName) -> Self| parts.iter().copied().map(event);
        let before = [Self::Requested].into_iter().chain(each(Self::Reserved)).chain(each(Self::Rejected));
        let decided = before.chain([Self::Charged, Self::Aborted]).chain(each(Self::Cancelled));
        decided.chain([Self::Confirmed, Self::Failed]).collect()
    }

    /// The event type with this name; none if there is no such type.
    pub fn named(name: &str) -> Option<Self> {
        let (subject, happened) = name.split_once('.')?;
        match (subject, happened) {
            ("booking", "requested") => Some(Self::Requested),
            ("payment", "charged") => Some(Self::Charged),
            ("booking", "aborted") => Some(Self::Aborted),
            ("booking", "confirmed") => Some(Self::Confirmed),
            ("booking", "failed") => Some(Self::Failed),
            (part, "reserved") => PartName::try_from(part).ok().map(Self::Reserved),
            (part, "rejected") => PartName::try_from(part).ok().map(Self::Rejected),
            (part, "cancelled") => PartName::try_from(part).ok().map(Self::Cancelled),
            _ => None,
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.pad("booking.requested"),
            Self::Reserved(part) => f.pad(&format!("{part}.reserved")),
            Self::Rejected(part) => f.pad(&format!("{part}.rejected")),
            Self::Charged => f.pad("payment.charged"),
            Self::Aborted => f.pad("booking.aborted"),
            Self::Cancelled(part) => f.pad(&format!("{part}.cancelled")),
            Self::Confirmed => f.pad("booking.confirmed"),
            Self::Failed => f.pad("booking.failed"),
        }
    }
}

impl Event {
    /// The type of this event.
    pub const fn event_type(&self) -> EventType {
        match self {
            Self::Requested { .. } => EventType::Requested,
            Self::Reserved { part, .. } => EventType::Reserved(*part),
            Self::Rejected { part, .. } => EventType::Rejected(*part),
            Self::Charged { .. } => EventType::Charged,
            Self::Aborted { .. } => EventType::Aborted,
            Self::Cancelled { part, .. } => EventType::Cancelled(*part),
            Self::Confirmed { .. } => EventType::Confirmed,
            Self::Failed { .. } => EventType::Failed,
        }
    }

    /// The event that a step's outcome is published as, given the event that caused the step; none if no participant
    /// reacts to it. A declined charge is payment's decision not to charge, and an abort that found the booking charged
    /// publishes that it is charged.
    pub fn after(cause: &Self, step: Step, outcome: &Outcome) -> Option<Self> {
        match (step, outcome, cause) {
            (Step::Reserve(part), Outcome::Reserved { price }, Self::Requested { plan }) => {
                Some(Self::Reserved { part, price: *price, plan: plan.clone() })
            }
            (Step::Reserve(part), Outcome::Rejected(rejection), Self::Requested { plan }) => {
                Some(Self::Rejected { part, rejection: rejection.clone(), plan: plan.clone() })
            }
            (Step::Charge | Step::Abort, Outcome::Charged { amount, .. }, _) => Some(Self::Charged { amount: *amount }),
            (Step::Charge, Outcome::Declined(rejection), _) => {
                Some(Self::Aborted { reason: Some(rejection.at(step)), parts: cause.plan()?.parts.clone() })
            }
            (Step::Charge | Step::Abort, Outcome::Aborted { reason }, _) => {
                Some(Self::Aborted { reason: reason.clone(), parts: cause.plan()?.parts.clone() })
            }
            (Step::Cancel(part), Outcome::Cancelled { .. }, Self::Aborted { reason, .. }) => {
                Some(Self::Cancelled { part, reason: reason.clone() })
            }
            (Step::Confirm, Outcome::Confirmed { total }, _) => Some(Self::Confirmed { total: *total }),
            (Step::Fail, Outcome::Failed { reason }, _) => Some(Self::Failed { reason: reason.clone() }),
            _ => None,
        }
    }

    /// The plan of the booking, for the event types that carry it.
    pub const fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Requested { plan } | Self::Reserved { plan, .. } | Self::Rejected { plan, .. } => Some(plan),
            _ => None,
        }
    }

    fn data(&self) -> Value {
        let mut data = match self {
            Self::Requested { .. } => json!({}),
            Self::Reserved { price, .. } => json!({ "price": price }),
            Self::Rejected { rejection, .. } => json!({ "rejection": rejection }),
            Self::Charged { amount } => json!({ "amount": amount }),
            Self::Aborted { reason, parts } => json!({ "reason": reason, "parts": parts }),
            Self::Confirmed { total } => json!({ "total": total }),
            Self::Cancelled { reason, .. } | Self::Failed { reason } => json!({ "reason": reason }),
        };
        if let (Some(data), Some(Value::Object(plan))) = (data.as_object_mut(), self.plan().map(|plan| json!(plan))) {
            data.extend(plan);
        }
        data
    }

    fn read(event_type: EventType, fields: &mut Fields<'_, '_>) -> Option<Self> {
        Some(match event_type {
            EventType::Requested => Self::Requested { plan: Plan::read(fields)? },
            EventType::Reserved(part) => {
                let price = fields.value("price");
                Self::Reserved { part, plan: Plan::read(fields)?, price: price? }
            }
            EventType::Rejected(part) => {
                let rejection = fields.value("rejection");
                Self::Rejected { part, plan: Plan::read(fields)?, rejection: rejection? }
            }
            EventType::Charged => Self::Charged { amount: fields.value("amount")? },
            EventType::Aborted => {
                let reason = fields.value("reason");
                Self::Aborted { parts: fields.value("parts")?, reason: reason? }
            }
            EventType::Cancelled(part) => Self::Cancelled { part, reason: fields.value("reason")? },
            EventType::Confirmed => Self::Confirmed { total: fields.value("total")? },
            EventType::Failed => Self::Failed { reason: fields.value("reason")? },
        })
    }
}

/// An event as it is published: `{"type": "flight.reserved", "schema_version": 2, "booking_id": "…", "event_id": "…",
/// "causation_id": "…", "time": "…", "trace": "…", "data": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The booking that the event belongs to.
    pub booking_id: BookingId,
    /// The event itself.
    pub event: Event,
    /// The id of the event that caused this one; none for the first event of a booking.
    pub causation_id: Option<String>,
    /// When the event was published. An event that is published again keeps its id and gets a new time.
    pub time: Timestamp,
    /// The trace that the booking started with, in the form of the `X-Amzn-Trace-Id` header.
    pub trace: Option<String>,
}

/// Why a message could not be read as an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// Its type is unknown to this program. Other programs may use it, so it can be ignored.
    #[error("there is no event of the type {0:?}")]
    UnknownType(String),
    /// It was written by a program of another release. Ignoring it might lose something, so it has to wait for a
    /// program of that release.
    #[error("{event_type} has schema version {version}, and this program reads version {SCHEMA_VERSION} only")]
    OtherVersion {
        /// The event's type.
        event_type: EventType,
        /// The schema version of the message.
        version: u64,
    },
    /// It is not an event.
    #[error("it is not an event: {}", Violation::list(.0))]
    Malformed(Vec<Violation>),
}

impl Envelope {
    /// The first event of a booking: `booking.requested`.
    pub const fn requested(booking_id: BookingId, plan: Plan, time: Timestamp, trace: Option<String>) -> Self {
        Self { booking_id, event: Event::Requested { plan }, causation_id: None, time, trace }
    }

    /// The event to publish after a step that this event caused; none if no participant reacts to the outcome.
    pub fn after(&self, step: Step, outcome: &Outcome, time: Timestamp) -> Option<Self> {
        let event = Event::after(&self.event, step, outcome)?;
        Some(Self {
            booking_id: self.booking_id.clone(),
            event,
            causation_id: Some(self.event_id()),
            time,
            trace: self.trace.clone(),
        })
    }

    /// The event's id: 32 hexadecimal digits derived from the booking and the type. Each event of a booking happens
    /// once, so whoever sees an id again sees the same event again.
    pub fn event_id(&self) -> String {
        digest(&[b"event", self.booking_id.as_str().as_bytes(), self.event.event_type().to_string().as_bytes()])
    }

    /// Reads an event. Unknown fields are ignored, so that events can grow.
    pub fn read(message: &Value) -> Result<Self, Unread> {
        let known = message["type"].as_str().map(|name| EventType::named(name).ok_or(name)).transpose();
        let event_type = known.map_err(|name| Unread::UnknownType(name.chars().take(100).collect()))?;
        if let (Some(event_type), Some(version)) = (event_type, message["schema_version"].as_u64())
            && version != SCHEMA_VERSION
        {
            return Err(Unread::OtherVersion { event_type, version });
        }
        read_object(message, |fields| {
            fields.ignore_others();
            let event_type = fields.text("type", |name| EventType::named(name).ok_or_else(String::new)); // checked
            fields.count("schema_version", u32::MAX);
            let booking_id = fields.value("booking_id");
            let causation_id = fields.value("causation_id");
            let time = fields.value("time");
            let trace = fields.value("trace");
            let event = event_type.and_then(|event_type| {
                fields.object("data", |fields| {
                    fields.ignore_others();
                    Event::read(event_type, fields)
                })
            });
            Some(Self {
                booking_id: booking_id?,
                event: event?,
                causation_id: causation_id?,
                time: time?,
                trace: trace?,
            })
        })
        .map_err(Unread::Malformed)
    }
}

impl Serialize for Envelope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = [
            ("type", json!(self.event.event_type().to_string())),
            ("schema_version", json!(SCHEMA_VERSION)),
            ("booking_id", json!(self.booking_id)),
            ("event_id", json!(self.event_id())),
            ("causation_id", json!(self.causation_id)),
            ("time", json!(format!("{:.3}", self.time))),
            ("trace", json!(self.trace)),
            ("data", self.event.data()),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().serialize(serializer)
    }
}

/// One event of each type for a booking with these parts, for tests that have to look at all of them.
#[doc(hidden)]
pub fn samples(parts: &Parts) -> Vec<Event> {
    let names: Vec<_> = parts.names().into_iter().collect();
    let key = crate::IdempotencyKey::try_from("sample").unwrap_or_else(|error| unreachable!("a valid key: {error}"));
    let reference = crate::PaymentReference::derive(&BookingId::derive("sample", &key), "sample");
    let plan = Plan::new(parts.clone(), reference);
    let price = Price { amount: 100, currency: crate::Currency::EUR };
    let rejection = Rejection::new("sold_out", "there is none left");
    let reason = Some(rejection.at(Step::Reserve(names[0])));
    let sample = |event_type| match event_type {
        EventType::Requested => Event::Requested { plan: plan.clone() },
        EventType::Reserved(part) => Event::Reserved { part, price, plan: plan.clone() },
        EventType::Rejected(part) => Event::Rejected { part, rejection: rejection.clone(), plan: plan.clone() },
        EventType::Charged => Event::Charged { amount: Money::eur(300) },
        EventType::Aborted => Event::Aborted { reason: reason.clone(), parts: parts.clone() },
        EventType::Cancelled(part) => Event::Cancelled { part, reason: reason.clone() },
        EventType::Confirmed => Event::Confirmed { total: Money::eur(300) },
        EventType::Failed => Event::Failed { reason: reason.clone() },
    };
    EventType::of(&names).into_iter().map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(event: Event) -> Envelope {
        Envelope {
            booking_id: BookingId::try_from("0123456789abcdef0123456789abcdef".to_owned()).unwrap(),
            event,
            causation_id: Some("c".into()),
            time: "2027-01-01T10:00:00.123Z".parse().unwrap(),
            trace: Some("Root=1-5759e988-bd862e3fe1be46a994272793".into()),
        }
    }

    fn all() -> Vec<Event> {
        samples(&serde_json::from_value(json!({"a": {"x": 1}, "b": [2], "c": null})).unwrap())
    }

    #[test]
    fn what_is_written_is_read() {
        for event in all() {
            let written = envelope(event);
            let json = serde_json::to_value(&written).unwrap();
            assert_eq!(Envelope::read(&json), Ok(written), "{json}");
        }
    }

    #[test]
    fn what_a_newer_program_adds_is_ignored() {
        for event in all() {
            let written = envelope(event);
            let mut json = serde_json::to_value(&written).unwrap();
            json["more"] = json!(1);
            json["data"]["more"] = json!(1);
            assert_eq!(Envelope::read(&json), Ok(written), "{json}");
        }
    }

    #[test]
    fn an_unknown_type_another_version_and_garbage_are_distinguished() {
        let good = serde_json::to_value(envelope(Event::Charged { amount: Money::eur(1) })).unwrap();
        let with = |name: &str, value: Value| {
            let mut json = good.clone();
            json[name] = value;
            Envelope::read(&json).unwrap_err()
        };
        for unknown in ["invoice.sent", "reserved", "Flight.reserved", "payment.reserved", "a.b.reserved"] {
            assert_eq!(with("type", json!(unknown)), Unread::UnknownType(unknown.into()));
        }
        for version in [1, 3] {
            let other = Unread::OtherVersion { event_type: EventType::Charged, version };
            assert_eq!(with("schema_version", json!(version)), other);
        }
        for (name, value) in [
            ("type", json!(5)),
            ("type", json!(null)),
            ("schema_version", json!("1")),
            ("booking_id", json!("../etc/passwd")),
            ("time", json!("yesterday")),
            ("data", json!([])),
            ("data", json!({"amount": {"amount": -1, "currency": "EUR"}})),
        ] {
            let unread = with(name, value.clone());
            let Unread::Malformed(violations) = &unread else { panic!("{name} {value}: {unread}") };
            assert!(violations[0].pointer.starts_with(&format!("/{name}")), "{unread}");
        }
        for garbage in [json!(null), json!([1]), json!("x"), json!({})] {
            assert!(matches!(Envelope::read(&garbage), Err(Unread::Malformed(_))), "{garbage}");
        }
    }

    #[test]
    fn a_plan_without_parts_or_with_a_bad_name_is_malformed() {
        let requested = all().into_iter().next().unwrap();
        let mut json = serde_json::to_value(envelope(requested)).unwrap();
        for parts in [json!({}), json!({"booking": {}}), json!({"a b": {}}), json!(null), json!(["a"])] {
            json["data"]["parts"] = parts.clone();
            let Err(Unread::Malformed(violations)) = Envelope::read(&json) else { panic!("{parts}") };
            assert_eq!(violations[0].pointer, "/data/parts", "{parts}");
        }
    }

    #[test]
    fn an_event_that_is_published_again_keeps_its_id() {
        let mut published = envelope(Event::Charged { amount: Money::eur(1) });
        let id = published.event_id();
        published.time = "2027-01-02T10:00:00Z".parse().unwrap();
        assert_eq!(published.event_id(), id);
        let ids: std::collections::HashSet<_> = all().into_iter().map(|event| envelope(event).event_id()).collect();
        assert_eq!(ids.len(), all().len());
    }

    #[test]
    fn an_abort_that_finds_the_booking_charged_publishes_charged() {
        let rejected = all().into_iter().find(|event| matches!(event, Event::Rejected { .. })).unwrap();
        let charged = Outcome::Charged { amount: Money::eur(5), charge_id: "ch".into() };
        let after = Event::after(&rejected, Step::Abort, &charged);
        assert_eq!(after, Some(Event::Charged { amount: Money::eur(5) }));
    }
}
