//! The messages of the choreography: every event on its way to every participant that reacts to it. Who reacts to what,
//! how, and what is published then, follows from the reactions in [`saga`]; it is worked out once for each number of parts.

use std::{fmt, sync::LazyLock};

use saga::{
    Event, EventType, Outcome, PartName, Participant, Step,
    command::Action,
    reaction::{self, BookingReaction, PaymentReaction},
};

use crate::{
    MAX_PARTS, Scope,
    scope::{Booking, PARTS, plain},
    set::{Id, Set},
};

/// A message on its way to a participant: a *delivery*.
pub(crate) struct Delivery {
    event: EventType,
    to: Participant,
    /// Who has given the event up, if it is the record of that.
    given_up_by: Option<Participant>,
    pub(crate) reaction: Reaction,
    /// Whether it comes by SNS → Lambda, to be given up after some attempts; otherwise by SQS, to be parked.
    pub(crate) can_be_given_up: bool,
    /// The deliveries of what is published then, by the step's outcome.
    published: Vec<(Step, Outcome, Set)>,
    /// The record that it was given up.
    pub(crate) record: Option<Id>,
}

/// What a delivery leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// A seller reserves.
    Reserve(PartName),
    /// A seller cancels.
    Cancel(PartName),
    /// Payment records a price, and charges if all are known.
    CollectPrice(PartName),
    /// Payment aborts.
    Abort,
    /// Booking confirms.
    Confirm,
    /// Booking records that a part is cancelled, and fails if all are.
    CollectCancelled(PartName),
}

impl Reaction {
    const fn step(self) -> Step {
        match self {
            Self::Reserve(part) => Step::Reserve(part),
            Self::Cancel(part) => Step::Cancel(part),
            Self::CollectPrice(_) => Step::Charge,
            Self::Abort => Step::Abort,
            Self::Confirm => Step::Confirm,
            Self::CollectCancelled(_) => Step::Fail,
        }
    }

    /// Whether payment does it, with a worker.
    pub(crate) const fn is_of_payment(self) -> bool {
        matches!(self, Self::CollectPrice(_) | Self::Abort)
    }
}

/// All deliveries that there can be: first those that are about one part, as many for each part and in the same order, so
/// that parts can change places, then the others.
pub(crate) struct Deliveries {
    pub(crate) all: Vec<Delivery>,
    /// How many are about one part.
    pub(crate) width: usize,
}

static DELIVERIES: LazyLock<Vec<Deliveries>> =
    LazyLock::new(|| (1..=MAX_PARTS).map(|parts| Deliveries::among(Scope::of(parts))).collect());

impl Deliveries {
    pub(crate) fn of(scope: Scope) -> &'static Self {
        &DELIVERIES[scope.parts() - 1]
    }

    fn among(scope: Scope) -> Self {
        let (names, booking) = (scope.names(), scope.booking());
        let mut all = Vec::new();
        for event in EventType::of(names) {
            for to in Participant::of(names) {
                if let Some(reaction) = reaction_of(to, booking.event(event), booking) {
                    assert!(reaction::concerns(to, event), "{event} is filtered out before it reaches {to}");
                    let can_be_given_up = given_up(to, booking.event(event)).is_some();
                    let published = Vec::new();
                    let delivery =
                        Delivery { event, to, given_up_by: None, reaction, can_be_given_up, published, record: None };
                    all.push(delivery);
                }
            }
        }
        let records = all.iter().filter_map(|delivery| {
            let reaction = given_up(delivery.to, booking.event(delivery.event))?;
            let (to, given_up_by) = (Participant::Payment, Some(delivery.to));
            let event = delivery.event;
            Some(Delivery {
                event,
                to,
                given_up_by,
                reaction,
                can_be_given_up: false,
                published: Vec::new(),
                record: None,
            })
        });
        let records: Vec<_> = records.collect();
        all.extend(records);
        Set::check(all.len());

        let place = |delivery: &Delivery| {
            delivery.part().map_or(names.len(), |part| names.iter().position(|name| *name == part).unwrap_or_default())
        };
        all.sort_by_key(place); // which keeps the order of those about one part
        let width = all.iter().filter(|delivery| place(delivery) == 0).count();
        let kind = |at: usize| all[at].kind();
        for at in 0..width * names.len() {
            assert_eq!((place(&all[at]), kind(at)), (at / width, kind(at % width)), "the parts are not alike");
        }

        let mut deliveries = Self { all, width };
        for at in 0..deliveries.all.len() {
            let Delivery { event, reaction, to, .. } = deliveries.all[at];
            let step = reaction.step();
            let published = booking.outcomes(step).into_iter().map(|outcome| {
                let event = Event::after(booking.event(event), step, &outcome);
                let to = event.map_or(Set::EMPTY, |event| deliveries.of_event(booking.published(&event)));
                (step, outcome, to)
            });
            let published = published.collect();
            let is_record = |other: &Delivery| other.event == event && other.given_up_by == Some(to);
            let record = deliveries.all.iter().position(is_record).map(id);
            let delivery = &mut deliveries.all[at];
            delivery.published = published;
            delivery.record = record.filter(|_| delivery.given_up_by.is_none());
        }
        deliveries
    }

    pub(crate) fn get(&self, id: Id) -> &Delivery {
        &self.all[usize::from(id)]
    }

    /// The deliveries of an event to those who react to it.
    pub(crate) fn of_event(&self, event: EventType) -> Set {
        let is_of = |delivery: &Delivery| delivery.event == event && delivery.given_up_by.is_none();
        self.all.iter().enumerate().filter(|(_, delivery)| is_of(delivery)).map(|(at, _)| id(at)).collect()
    }

    /// The deliveries to those who do not exist, because nobody sells the part.
    pub(crate) fn to_nobody(&self, scope: Scope) -> Set {
        let is_to_nobody = |delivery: &Delivery| !scope.carries_out(delivery.reaction.step());
        self.all.iter().enumerate().filter(|(_, delivery)| is_to_nobody(delivery)).map(|(at, _)| id(at)).collect()
    }

    /// The deliveries of what is published when this delivery's step ends so.
    pub(crate) fn after(&self, cause: Id, step: Step, outcome: &Outcome) -> Set {
        let delivery = self.get(cause);
        let outcome = plain(outcome.clone());
        let found = delivery.published.iter().find(|(of, with, _)| *of == step && *with == outcome);
        found.unwrap_or_else(|| panic!("{step} of {} does not answer {outcome:?}", delivery)).2
    }

    /// Some message that leads payment to this step.
    pub(crate) fn any_cause(&self, step: Step) -> Id {
        let found = self.all.iter().position(|delivery| delivery.reaction.step() == step);
        id(found.unwrap_or_else(|| panic!("nothing leads to {step}")))
    }
}

fn id(at: usize) -> Id {
    Id::try_from(at).unwrap_or_else(|_| panic!("{at} is no place in a set"))
}

impl Delivery {
    /// Which part it is about, if it is about one.
    fn part(&self) -> Option<PartName> {
        let seller = |who| match who {
            Participant::Seller(part) => Some(part),
            _ => None,
        };
        match self.event {
            EventType::Reserved(part) | EventType::Rejected(part) | EventType::Cancelled(part) => Some(part),
            _ => seller(self.to).or_else(|| self.given_up_by.and_then(seller)),
        }
    }

    /// What it would be if it were about the first part.
    fn kind(&self) -> (EventType, Participant, Option<Participant>) {
        let seller = |who| if matches!(who, Participant::Seller(_)) { Participant::Seller(PARTS[0]) } else { who };
        let event = match self.event {
            EventType::Reserved(_) => EventType::Reserved(PARTS[0]),
            EventType::Rejected(_) => EventType::Rejected(PARTS[0]),
            EventType::Cancelled(_) => EventType::Cancelled(PARTS[0]),
            other => other,
        };
        (event, seller(self.to), self.given_up_by.map(seller))
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, to, given_up_by, .. } = self;
        match given_up_by {
            None => write!(f, "{event} to {to}"),
            Some(by) => write!(f, "the record that {by} gave up {event}"),
        }
    }
}

/// What this participant does.
fn reaction_of(to: Participant, event: &Event, booking: &Booking) -> Option<Reaction> {
    match to {
        Participant::Seller(part) => reaction::of_seller(part, event).map(|action| {
            let (Action::Reserve(wanted) | Action::Cancel(wanted)) = &action else {
                panic!("a seller is not asked for {}", action.step())
            };
            assert_eq!(booking.plan.parts.get(part).as_ref(), Some(wanted));
            if matches!(action, Action::Reserve(_)) { Reaction::Reserve(part) } else { Reaction::Cancel(part) }
        }),
        Participant::Payment => reaction::of_payment(event).map(|reaction| of_payment(reaction, booking)),
        Participant::Booking => reaction::of_booking(event).map(|reaction| match reaction {
            BookingReaction::Confirm { total } => {
                assert_eq!(total, booking.total);
                Reaction::Confirm
            }
            BookingReaction::Collect { part, .. } => Reaction::CollectCancelled(part),
        }),
    }
}

fn of_payment(reaction: PaymentReaction, booking: &Booking) -> Reaction {
    let (PaymentReaction::Collect { reference, .. } | PaymentReaction::Abort { reference, .. }) = &reaction;
    assert_eq!(*reference, booking.plan.payment.reference);
    match reaction {
        PaymentReaction::Collect { part, plan, .. } => {
            assert_eq!(plan, booking.plan.names(), "payment is told which parts the plan has");
            Reaction::CollectPrice(part)
        }
        PaymentReaction::Abort { .. } => Reaction::Abort,
    }
}

/// What payment does if this participant gives the event up.
fn given_up(who: Participant, event: &Event) -> Option<Reaction> {
    reaction::of_payment_to_failure(event, Some(who), "").map(|_| Reaction::Abort)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_deliveries_as_the_design_says_and_they_fit() {
        for parts in 1..=MAX_PARTS {
            let deliveries = Deliveries::of(Scope::of(parts));
            // requested, aborted, reserved, rejected, cancelled; and the records that the first, third and fourth was given up.
            assert_eq!((deliveries.width, deliveries.all.len()), (8, 8 * parts + 1));
            assert!(deliveries.all.len() <= Set::CAPACITY);
        }
    }
}
