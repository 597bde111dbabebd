//! Events: "this happened". Each participant knows what it listens to and what it does then: see `reaction` in
//! [`reservation`](crate::reservation), [`payment`](crate::payment) and [`header`](crate::header). Nobody knows the
//! whole flow.
//!
//! ```text
//!   booking.requested ─▶ flight, hotel, car: reserve
//!   flight.reserved, hotel.reserved, car.reserved ─▶ payment: charge, once all three are there
//!   flight.rejected, hotel.rejected, car.rejected ─▶ payment: abort
//!   payment.charged ─▶ booking: confirm
//!   booking.aborted ─▶ flight, hotel, car: cancel
//!   flight.cancelled, hotel.cancelled, car.cancelled ─▶ booking: fail, once all three are there
//! ```

use std::fmt;

use jiff::{Timestamp, civil::Date};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    BookingId, Leg, Money, Outcome, Participant, PaymentReference, Reason, Rejection, Step, Violation,
    booking::Trip,
    id::digest,
    reading::{Fields, read_object},
};

/// The version of the events that this program writes, and the newest that it reads. Fields may be added without a
/// new version: readers ignore what they do not know.
pub const SCHEMA_VERSION: u64 = 1;

/// What participants need to know of a booking to take part in it: no personal data, and no secret. It is what an
/// execution of the state machine is started with, too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Plan {
    /// Where to, and when.
    #[serde(flatten)]
    pub trip: Trip,
    /// How it is paid.
    pub payment: Payment,
}

/// How a booking is paid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Payment {
    /// The payment at its provider.
    pub reference: PaymentReference,
}

impl Plan {
    /// A plan for this trip, paid with this payment.
    pub const fn new(trip: Trip, reference: PaymentReference) -> Self {
        Self { trip, payment: Payment { reference } }
    }

    fn read(fields: &mut Fields<'_, '_>) -> Option<Self> {
        let trip = Trip::read(fields, Date::MIN);
        let reference = fields.object("payment", |fields| fields.value("reference"));
        Some(Self::new(trip?, reference?))
    }
}

/// Something that happened to a booking, with what those who react to it need.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A booking was accepted.
    Requested {
        /// What is to be booked.
        plan: Plan,
    },
    /// A leg is reserved.
    Reserved {
        /// Which.
        leg: Leg,
        /// What it costs.
        price: Money,
        /// What is to be booked.
        plan: Plan,
    },
    /// A leg will not be reserved.
    Rejected {
        /// Which.
        leg: Leg,
        /// Why.
        rejection: Rejection,
        /// What is to be booked.
        plan: Plan,
    },
    /// Payment decided: charged.
    Charged {
        /// How much.
        amount: Money,
    },
    /// Payment decided: not charged.
    Aborted {
        /// The first thing that went wrong.
        reason: Option<Reason>,
        /// What is to be given back.
        trip: Trip,
    },
    /// A leg is given back.
    Cancelled {
        /// Which.
        leg: Leg,
        /// The first thing that went wrong.
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
}

/// Which event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    /// See [`Event::Requested`].
    Requested,
    /// See [`Event::Reserved`].
    Reserved(Leg),
    /// See [`Event::Rejected`].
    Rejected(Leg),
    /// See [`Event::Charged`].
    Charged,
    /// See [`Event::Aborted`].
    Aborted,
    /// See [`Event::Cancelled`].
    Cancelled(Leg),
    /// See [`Event::Confirmed`].
    Confirmed,
    /// See [`Event::Failed`].
    Failed,
}

impl EventType {
    /// All events of a booking.
    pub const ALL: [Self; 14] = [
        Self::Requested,
        Self::Reserved(Leg::Flight),
        Self::Reserved(Leg::Hotel),
        Self::Reserved(Leg::Car),
        Self::Rejected(Leg::Flight),
        Self::Rejected(Leg::Hotel),
        Self::Rejected(Leg::Car),
        Self::Charged,
        Self::Aborted,
        Self::Cancelled(Leg::Flight),
        Self::Cancelled(Leg::Hotel),
        Self::Cancelled(Leg::Car),
        Self::Confirmed,
        Self::Failed,
    ];

    /// `booking.requested`, `flight.reserved`, …: the event's name everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requested => "booking.requested",
            Self::Reserved(Leg::Flight) => "flight.reserved",
            Self::Reserved(Leg::Hotel) => "hotel.reserved",
            Self::Reserved(Leg::Car) => "car.reserved",
            Self::Rejected(Leg::Flight) => "flight.rejected",
            Self::Rejected(Leg::Hotel) => "hotel.rejected",
            Self::Rejected(Leg::Car) => "car.rejected",
            Self::Charged => "payment.charged",
            Self::Aborted => "booking.aborted",
            Self::Cancelled(Leg::Flight) => "flight.cancelled",
            Self::Cancelled(Leg::Hotel) => "hotel.cancelled",
            Self::Cancelled(Leg::Car) => "car.cancelled",
            Self::Confirmed => "booking.confirmed",
            Self::Failed => "booking.failed",
        }
    }

    /// The event of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name() == name)
    }

    /// Whether a participant reacts to such events. To it, others are nothing to do: it may be sent them until the filter
    /// of its subscription has settled.
    pub const fn concerns(self, participant: Participant) -> bool {
        matches!(
            (participant, self),
            (Participant::Seller(_), Self::Requested | Self::Aborted)
                | (Participant::Payment, Self::Reserved(_) | Self::Rejected(_))
                | (Participant::Booking, Self::Charged | Self::Cancelled(_))
        )
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Event {
    /// Which event it is.
    pub const fn event_type(&self) -> EventType {
        match self {
            Self::Requested { .. } => EventType::Requested,
            Self::Reserved { leg, .. } => EventType::Reserved(*leg),
            Self::Rejected { leg, .. } => EventType::Rejected(*leg),
            Self::Charged { .. } => EventType::Charged,
            Self::Aborted { .. } => EventType::Aborted,
            Self::Cancelled { leg, .. } => EventType::Cancelled(*leg),
            Self::Confirmed { .. } => EventType::Confirmed,
            Self::Failed { .. } => EventType::Failed,
        }
    }

    /// What a step's outcome means to the others, given the event that led to the step. A declined charge is payment's
    /// decision not to charge, and an abort that found the booking charged says so.
    pub fn after(cause: &Self, step: Step, outcome: &Outcome) -> Option<Self> {
        match (step, outcome, cause) {
            (Step::Reserve(leg), Outcome::Reserved { price }, Self::Requested { plan }) => {
                Some(Self::Reserved { leg, price: *price, plan: plan.clone() })
            }
            (Step::Reserve(leg), Outcome::Rejected(rejection), Self::Requested { plan }) => {
                Some(Self::Rejected { leg, rejection: rejection.clone(), plan: plan.clone() })
            }
            (Step::Charge | Step::Abort, Outcome::Charged { amount, .. }, _) => Some(Self::Charged { amount: *amount }),
            (Step::Charge, Outcome::Declined(rejection), _) => {
                Some(Self::Aborted { reason: Some(rejection.at(step)), trip: cause.plan()?.trip.clone() })
            }
            (Step::Charge | Step::Abort, Outcome::Aborted { reason }, _) => {
                Some(Self::Aborted { reason: reason.clone(), trip: cause.plan()?.trip.clone() })
            }
            (Step::Cancel(leg), Outcome::Cancelled { .. }, Self::Aborted { reason, .. }) => {
                Some(Self::Cancelled { leg, reason: reason.clone() })
            }
            (Step::Confirm, Outcome::Confirmed { total }, _) => Some(Self::Confirmed { total: *total }),
            (Step::Fail, Outcome::Failed { reason }, _) => Some(Self::Failed { reason: reason.clone() }),
            _ => None,
        }
    }

    /// What is to be booked, for the events that say so.
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
            Self::Aborted { reason, trip } => {
                let mut data = json!(trip);
                data["reason"] = json!(reason);
                data
            }
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
            EventType::Reserved(leg) => {
                let price = fields.value("price");
                Self::Reserved { leg, plan: Plan::read(fields)?, price: price? }
            }
            EventType::Rejected(leg) => {
                let rejection = fields.value("rejection");
                Self::Rejected { leg, plan: Plan::read(fields)?, rejection: rejection? }
            }
            EventType::Charged => Self::Charged { amount: fields.value("amount")? },
            EventType::Aborted => {
                let reason = fields.value("reason");
                Self::Aborted { trip: Trip::read(fields, Date::MIN)?, reason: reason? }
            }
            EventType::Cancelled(leg) => Self::Cancelled { leg, reason: fields.value("reason")? },
            EventType::Confirmed => Self::Confirmed { total: fields.value("total")? },
            EventType::Failed => Self::Failed { reason: fields.value("reason")? },
        })
    }
}

/// An event as it travels: `{"type": "flight.reserved", "schema_version": 1, "booking_id": "…", "event_id": "…",
/// "causation_id": "…", "time": "…", "trace": "…", "data": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// To which booking it happened.
    pub booking_id: BookingId,
    /// What happened.
    pub event: Event,
    /// The event that led to this one; none for the first of a booking.
    pub causation_id: Option<String>,
    /// When this was said. Said again, an event keeps its id and gets another time.
    pub time: Timestamp,
    /// The trace that the booking began with, in the form of the `X-Amzn-Trace-Id` header.
    pub trace: Option<String>,
}

/// Why a message is not read as an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It is of a type that this program does not know: others may have use for it, and it can be ignored.
    #[error("there is no event of the type {0:?}")]
    UnknownType(String),
    /// It was written by a newer program: to ignore it might lose something, so it has to wait for that program.
    #[error("{event_type} has schema version {version}, and this program reads versions up to {SCHEMA_VERSION}")]
    Newer {
        /// Which event.
        event_type: EventType,
        /// Its version.
        version: u64,
    },
    /// It is no event.
    #[error("it is no event: {}", Violation::list(.0))]
    Malformed(Vec<Violation>),
}

impl Envelope {
    /// The first event of a booking.
    pub const fn requested(booking_id: BookingId, plan: Plan, time: Timestamp, trace: Option<String>) -> Self {
        Self { booking_id, event: Event::Requested { plan }, causation_id: None, time, trace }
    }

    /// What a step that this event led to says to the others; none if its outcome matters to nobody.
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

    /// The event's name: 32 hexadecimal digits that follow from booking and type. Each event of a booking happens once;
    /// whoever sees the id again sees the same event again.
    pub fn event_id(&self) -> String {
        digest(&[b"event", self.booking_id.as_str().as_bytes(), self.event.event_type().name().as_bytes()])
    }

    /// Reads an event. Fields that it does not know are ignored, so that events can grow.
    pub fn read(message: &Value) -> Result<Self, Unread> {
        let known = message["type"].as_str().map(|name| EventType::named(name).ok_or(name)).transpose();
        let event_type = known.map_err(|name| Unread::UnknownType(name.chars().take(100).collect()))?;
        if let (Some(event_type), Some(version)) = (event_type, message["schema_version"].as_u64())
            && version > SCHEMA_VERSION
        {
            return Err(Unread::Newer { event_type, version });
        }
        read_object(message, |fields| {
            fields.ignore_others();
            let event_type = fields.text("type", |name| EventType::named(name).ok_or_else(String::new)); // known by now
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
            ("type", json!(self.event.event_type().name())),
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

/// One event of each type, for tests that have to look at all of them.
#[doc(hidden)]
pub fn samples() -> Vec<Event> {
    let trip: Trip = serde_json::from_value(json!({
        "flight": {"flight_no": "LH400", "date": "2027-03-01", "seats": 2},
        "hotel": {"hotel_id": "nyc-plaza", "check_in": "2027-03-01", "check_out": "2027-03-04", "rooms": 1},
        "car": {"station_id": "jfk", "category": "compact", "pick_up": "2027-03-01", "drop_off": "2027-03-04"},
    }))
    .unwrap_or_else(|error| unreachable!("the sample is a trip: {error}"));
    let key = crate::IdempotencyKey::try_from("sample").unwrap_or_else(|error| unreachable!("a good key: {error}"));
    let reference = PaymentReference::derive(&BookingId::derive("sample", &key), "sample");
    let plan = Plan::new(trip.clone(), reference);
    let rejection = Rejection::new("sold_out", "there is no room left");
    let reason = Some(rejection.at(Step::Reserve(Leg::Hotel)));
    let sample = |event_type| match event_type {
        EventType::Requested => Event::Requested { plan: plan.clone() },
        EventType::Reserved(leg) => Event::Reserved { leg, price: Money::eur(100), plan: plan.clone() },
        EventType::Rejected(leg) => Event::Rejected { leg, rejection: rejection.clone(), plan: plan.clone() },
        EventType::Charged => Event::Charged { amount: Money::eur(300) },
        EventType::Aborted => Event::Aborted { reason: reason.clone(), trip: trip.clone() },
        EventType::Cancelled(leg) => Event::Cancelled { leg, reason: reason.clone() },
        EventType::Confirmed => Event::Confirmed { total: Money::eur(300) },
        EventType::Failed => Event::Failed { reason: reason.clone() },
    };
    EventType::ALL.into_iter().map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Class, Participant,
        header::{self, Reaction as Ending},
        payment::{self, Reaction as Deciding},
        reservation,
    };

    fn envelope(event: Event) -> Envelope {
        Envelope {
            booking_id: BookingId::try_from("0123456789abcdef0123456789abcdef".to_owned()).unwrap(),
            event,
            causation_id: Some("c".into()),
            time: "2027-01-01T10:00:00.123Z".parse().unwrap(),
            trace: Some("Root=1-5759e988-bd862e3fe1be46a994272793".into()),
        }
    }

    /// The steps that an event may lead to, at whichever participant.
    fn steps(event: &Event) -> Vec<(Participant, Step)> {
        let mut steps = Vec::new();
        for leg in Leg::ALL {
            steps.extend(reservation::reaction(leg, event).map(|action| (Participant::Seller(leg), action.step())));
        }
        steps.extend(payment::reaction(event).map(|reaction| match reaction {
            Deciding::Collect { .. } => (Participant::Payment, Step::Charge),
            Deciding::Abort { .. } => (Participant::Payment, Step::Abort),
        }));
        steps.extend(header::reaction(event).map(|reaction| match reaction {
            Ending::Confirm { .. } => (Participant::Booking, Step::Confirm),
            Ending::Collect { .. } => (Participant::Booking, Step::Fail),
        }));
        steps
    }

    #[test]
    fn what_is_written_is_read() {
        for event in samples() {
            let written = envelope(event);
            let json = serde_json::to_value(&written).unwrap();
            assert_eq!(Envelope::read(&json), Ok(written), "{json}");
        }
    }

    #[test]
    fn what_a_newer_program_adds_is_ignored() {
        for event in samples() {
            let written = envelope(event);
            let mut json = serde_json::to_value(&written).unwrap();
            json["more"] = json!(1);
            json["data"]["more"] = json!(1);
            assert_eq!(Envelope::read(&json), Ok(written), "{json}");
        }
    }

    #[test]
    fn what_is_not_known_is_told_from_what_is_newer_and_from_garbage() {
        let good = serde_json::to_value(envelope(Event::Charged { amount: Money::eur(1) })).unwrap();
        let with = |name: &str, value: Value| {
            let mut json = good.clone();
            json[name] = value;
            Envelope::read(&json).unwrap_err()
        };
        assert_eq!(with("type", json!("invoice.sent")), Unread::UnknownType("invoice.sent".into()));
        assert_eq!(with("schema_version", json!(2)), Unread::Newer { event_type: EventType::Charged, version: 2 });
        for (name, value) in [
            ("type", json!(5)),
            ("type", json!(null)),
            ("schema_version", json!(0)),
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
    fn an_event_that_is_said_again_keeps_its_name() {
        let mut said = envelope(Event::Charged { amount: Money::eur(1) });
        let id = said.event_id();
        said.time = "2027-01-02T10:00:00Z".parse().unwrap();
        assert_eq!(said.event_id(), id);
        let ids: std::collections::HashSet<_> = samples().into_iter().map(|event| envelope(event).event_id()).collect();
        assert_eq!(ids.len(), EventType::ALL.len());
    }

    #[test]
    fn each_participant_reacts_with_its_own_steps() {
        for event in samples() {
            for (participant, step) in steps(&event) {
                assert_eq!(step.participant(), participant, "{step} on {}", event.event_type());
            }
        }
    }

    #[test]
    fn an_event_concerns_those_who_react_to_it() {
        for event in samples() {
            let react: Vec<_> = steps(&event).into_iter().map(|(participant, _)| participant).collect();
            let concerned = Participant::ALL.into_iter().filter(|each| event.event_type().concerns(*each));
            assert_eq!(concerned.collect::<Vec<_>>(), react, "{}", event.event_type());
        }
    }

    #[test]
    fn what_cannot_be_undone_is_done_only_after_payments_decision() {
        for event in samples() {
            for (_, step) in steps(&event) {
                if step.class() == Class::Retriable && step != Step::Abort {
                    let decided =
                        matches!(event.event_type(), EventType::Charged | EventType::Aborted | EventType::Cancelled(_));
                    assert!(decided, "{step} on {}", event.event_type());
                }
            }
        }
    }

    #[test]
    fn every_step_is_reached_by_a_reaction() {
        let done: Vec<_> = samples().iter().flat_map(steps).map(|(_, step)| step).collect();
        for step in Step::ALL.into_iter().filter(|step| *step != Step::Park) {
            assert!(done.contains(&step), "nothing leads to {step}");
        }
    }

    #[test]
    fn an_abort_that_finds_the_booking_charged_says_charged() {
        let rejected = samples().into_iter().find(|event| matches!(event, Event::Rejected { .. })).unwrap();
        let charged = Outcome::Charged { amount: Money::eur(5), charge_id: "ch".into() };
        let said = Event::after(&rejected, Step::Abort, &charged);
        assert_eq!(said, Some(Event::Charged { amount: Money::eur(5) }));
    }
}
