//! The booking that everything is about: how many parts it has, and all that can be said of it.

use std::{fmt, sync::LazyLock};

use saga::{
    BookingId, Currency, Event, EventType, IdempotencyKey, Money, Outcome, PartName, Parts, PaymentReference, Plan,
    Price, Reason, Rejection, Step, StockLine, payment::Prices, reservation::Quote,
};
use serde_json::json;

/// The most parts that are explored.
pub const MAX_PARTS: usize = 4;

/// What the parts are called.
pub const PARTS: [PartName; MAX_PARTS] =
    [PartName::new("a"), PartName::new("b"), PartName::new("c"), PartName::new("d")];

/// The place of a part among those of its plan.
pub(crate) fn place_of(part: PartName) -> usize {
    PARTS.iter().position(|other| *other == part).unwrap_or_else(|| panic!("there is no part {part} here"))
}

/// How large a booking is explored, and whether somebody sells all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    parts: u8,
    is_last_sold: bool,
}

impl Scope {
    /// A booking with so many parts, each of which somebody sells.
    pub fn of(parts: usize) -> Self {
        assert!((1..=MAX_PARTS).contains(&parts), "bookings of 1 to {MAX_PARTS} parts are explored, not of {parts}");
        Self { parts: parts as u8, is_last_sold: true } // at most four
    }

    /// The same, but that nobody sells the last one.
    pub fn with_unsold(parts: usize) -> Self {
        Self { is_last_sold: false, ..Self::of(parts) }
    }

    /// How many parts the plan has.
    pub const fn parts(self) -> usize {
        self.parts as usize
    }

    /// Whether somebody sells every part.
    pub const fn is_sold(self) -> bool {
        self.is_last_sold
    }

    pub(crate) fn names(self) -> &'static [PartName] {
        &PARTS[..self.parts()]
    }

    /// Whether somebody sells this part.
    pub(crate) fn sells(self, part: usize) -> bool {
        self.is_last_sold || part + 1 < self.parts()
    }

    /// Whether somebody carries this step out.
    pub(crate) fn carries_out(self, step: Step) -> bool {
        match step {
            Step::Reserve(part) | Step::Cancel(part) => self.sells(place_of(part)),
            _ => true,
        }
    }

    pub(crate) fn booking(self) -> &'static Booking {
        &BOOKINGS[self.parts() - 1]
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = if self.parts == 1 { "part" } else { "parts" };
        let unsold = if self.is_last_sold { "" } else { " of which one is unsold" };
        f.pad(&format!("{} {parts}{unsold}", self.parts))
    }
}

/// One booking.
pub(crate) struct Booking {
    pub(crate) booking_id: BookingId,
    pub(crate) plan: Plan,
    pub(crate) total: Money,
    pub(crate) prices: Prices,
    /// What each seller offers.
    pub(crate) quotes: Vec<Quote>,
    /// Each event that there can be. Why something went wrong is left out: nobody decides on it.
    events: Vec<Event>,
}

static BOOKINGS: LazyLock<Vec<Booking>> =
    LazyLock::new(|| (1..=MAX_PARTS).map(|parts| Booking::with(&PARTS[..parts])).collect());

impl Booking {
    fn with(names: &[PartName]) -> Self {
        let parts = names.iter().map(|name| (name.as_str().to_owned(), json!({ "wanted": name })));
        let parts: Parts = serde_json::from_value(parts.collect()).unwrap_or_else(|error| panic!("the parts: {error}"));
        let key = IdempotencyKey::try_from("model").unwrap_or_else(|error| panic!("a good key: {error}"));
        let booking_id = BookingId::derive("model", &key);
        let plan = Plan::new(parts.clone(), PaymentReference::derive(&booking_id, "model"));
        let quotes: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(at, name)| Quote {
                lines: vec![StockLine { product: name.to_string(), date: None, units: 1 }],
                // No sum of some of them is that of others.
                price: Price { amount: 100 << at, currency: Currency::EUR },
                unit: "unit",
            })
            .collect();
        let priced = names.iter().copied().zip(quotes.iter().map(|quote| quote.price));
        let prices = Prices::of(priced.collect(), &plan.names()).unwrap_or_else(|| panic!("each part has a price"));
        let total = prices.total().ok().and_then(Price::payable).unwrap_or_else(|| panic!("small prices have a sum"));
        let mut booking = Self { booking_id, plan, total, prices, quotes, events: Vec::new() };
        booking.events = saga::event::samples(&parts).iter().map(|event| booking.bare(event)).collect();
        booking
    }

    pub(crate) fn event(&self, event_type: EventType) -> &Event {
        let event = self.events.iter().find(|event| event.event_type() == event_type);
        event.unwrap_or_else(|| panic!("{event_type} is no event of this booking"))
    }

    /// The event without what nobody decides on, and with the amounts of this booking.
    fn bare(&self, event: &Event) -> Event {
        let plan = self.plan.clone();
        match event.clone() {
            Event::Requested { .. } => Event::Requested { plan },
            Event::Reserved { part, .. } => Event::Reserved { part, price: self.quotes[place_of(part)].price, plan },
            Event::Rejected { part, .. } => Event::Rejected { part, rejection: rejected(), plan },
            Event::Charged { .. } => Event::Charged { amount: self.total },
            Event::Aborted { .. } => Event::Aborted { reason: None, parts: plan.parts },
            Event::Cancelled { part, .. } => Event::Cancelled { part, reason: None },
            Event::Confirmed { .. } => Event::Confirmed { total: self.total },
            Event::Failed { .. } => Event::Failed { reason: None },
        }
    }

    /// The type of an event that somebody publishes. It must be the one event of its type that this booking knows: then
    /// the type says it all.
    pub(crate) fn published(&self, event: &Event) -> EventType {
        let event_type = event.event_type();
        let reasonless = match event.clone() {
            Event::Rejected { part, plan, .. } => Event::Rejected { part, rejection: rejected(), plan },
            Event::Aborted { parts, .. } => Event::Aborted { reason: None, parts },
            Event::Cancelled { part, .. } => Event::Cancelled { part, reason: None },
            Event::Failed { .. } => Event::Failed { reason: None },
            other => other,
        };
        assert_eq!(reasonless, *self.event(event_type), "it is about another booking");
        event_type
    }

    /// Everything that a step may answer.
    pub(crate) fn outcomes(&self, step: Step) -> Vec<Outcome> {
        match step {
            Step::Reserve(part) => vec![self.reserved(place_of(part)), Outcome::Rejected(rejected())],
            Step::Cancel(_) => [true, false].map(|released| Outcome::Cancelled { released }).to_vec(),
            Step::Charge => vec![self.charged(), Outcome::Declined(declined()), Outcome::Aborted { reason: None }],
            Step::Abort => vec![self.charged(), Outcome::Aborted { reason: None }],
            Step::Confirm => vec![Outcome::Confirmed { total: self.total }],
            Step::Fail => vec![Outcome::Failed { reason: None }],
            Step::Park => vec![Outcome::Parked { reason: reason() }],
        }
    }

    pub(crate) fn reserved(&self, part: usize) -> Outcome {
        Outcome::Reserved { price: self.quotes[part].price }
    }

    pub(crate) fn charged(&self) -> Outcome {
        Outcome::Charged { amount: self.total, charge_id: "ch".into() }
    }
}

/// Any rejection of a reservation.
pub(crate) fn rejected() -> Rejection {
    Rejection::new("rejected", "")
}

/// Any reason why a charge is declined.
pub(crate) fn declined() -> Rejection {
    Rejection::new("declined", "")
}

/// Any technical reason: which one does not matter.
pub(crate) fn reason() -> Reason {
    Reason { step: None, code: Reason::TECHNICAL_FAILURE.into(), detail: String::new() }
}

/// An outcome without what nobody decides on.
pub(crate) fn plain(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Rejected(_) => Outcome::Rejected(rejected()),
        Outcome::Declined(_) => Outcome::Declined(declined()),
        Outcome::Aborted { .. } => Outcome::Aborted { reason: None },
        Outcome::Failed { .. } => Outcome::Failed { reason: None },
        outcome => outcome,
    }
}
