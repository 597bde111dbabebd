//! How each participant reacts to events. The whole choreography is here, and no participant depends on what another
//! one sells.

use crate::{
    command::Action,
    event::{Event, EventType},
    id::PaymentReference,
    money::{Money, Price},
    outcome::Reason,
    part::{PartName, PartNames},
    step::{Participant, Step},
};

/// Whether a participant reacts to events of this type. It ignores all others: it may receive them until the filter of
/// its subscription has settled.
pub const fn concerns(participant: Participant, event: EventType) -> bool {
    matches!(
        (participant, event),
        (Participant::Seller(_), EventType::Requested | EventType::Aborted)
            | (Participant::Payment, EventType::Reserved(_) | EventType::Rejected(_))
            | (Participant::Booking, EventType::Charged | EventType::Cancelled(_))
    )
}

/// The seller's reaction to an event; none if the plan does not have its part.
pub fn of_seller(part: PartName, event: &Event) -> Option<Action> {
    match event {
        Event::Requested { plan } => plan.parts.get(part).map(Action::Reserve),
        Event::Aborted { parts, .. } => parts.get(part).map(Action::Cancel),
        _ => None,
    }
}

/// Payment's reaction to an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PaymentReaction {
    /// Record the price of a reserved part, and charge once all parts are reserved: see
    /// [`Prices::of`](crate::payment::Prices::of).
    Collect {
        /// The part.
        part: PartName,
        /// Its price.
        price: Price,
        /// The names of all the plan's parts.
        plan: PartNames,
        /// The payment to charge.
        reference: PaymentReference,
    },
    /// Abort.
    Abort {
        /// The payment that must not be charged.
        reference: PaymentReference,
        /// The rejection, or the step that was given up.
        reason: Reason,
    },
}

/// Payment's reaction to an event; none if the event is about a part that the plan does not have.
pub fn of_payment(event: &Event) -> Option<PaymentReaction> {
    match event {
        Event::Reserved { part, price, plan } => {
            let names = plan.names();
            names.contains(part).then(|| PaymentReaction::Collect {
                part: *part,
                price: *price,
                plan: names,
                reference: plan.payment.reference.clone(),
            })
        }
        Event::Rejected { part, rejection, plan } => plan.names().contains(part).then(|| PaymentReaction::Abort {
            reference: plan.payment.reference.clone(),
            reason: rejection.at(Step::Reserve(*part)),
        }),
        _ => None,
    }
}

/// Payment's reaction when a participant (if it is known which) gave up on what this event should have led to; none if
/// nothing depends on it, because that participant had nothing to do. What really happened is unknown, and need not be
/// known: an abort decides.
pub fn of_payment_to_failure(event: &Event, who: Option<Participant>, why: &str) -> Option<PaymentReaction> {
    if who.is_some_and(|who| !concerns(who, event.event_type())) {
        return None;
    }
    let reference = event.plan()?.payment.reference.clone();
    let step = match who {
        // A seller that has no part in the plan gives up nothing of it.
        Some(Participant::Seller(part)) => Some(of_seller(part, event)?.step()),
        Some(Participant::Payment) => Some(Step::Charge),
        Some(Participant::Booking) | None => None,
    };
    let failure = Reason { step, code: Reason::TECHNICAL_FAILURE.into(), detail: format!("gave up after {why}") };
    let reason = match of_payment(event) {
        Some(PaymentReaction::Abort { reason, .. }) => reason, // it had to be aborted anyway
        _ => failure,
    };
    Some(PaymentReaction::Abort { reference, reason })
}

/// Booking's reaction to an event; none if it has nothing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BookingReaction {
    /// Confirm.
    Confirm {
        /// The amount charged.
        total: Money,
    },
    /// Record that a part is cancelled, and fail once all parts are: see
    /// [`is_all_cancelled`](crate::header::is_all_cancelled).
    Collect {
        /// The part.
        part: PartName,
        /// The first failure of this booking.
        reason: Option<Reason>,
    },
}

/// Booking's reaction to an event; none if it has nothing to do.
pub fn of_booking(event: &Event) -> Option<BookingReaction> {
    match event {
        Event::Charged { amount } => Some(BookingReaction::Confirm { total: *amount }),
        Event::Cancelled { part, reason } => Some(BookingReaction::Collect { part: *part, reason: reason.clone() }),
        _ => None,
    }
}

/// The step that this participant should have carried out on this event; none if that is unknown.
pub fn step_of(participant: Participant, event: &Event) -> Option<Step> {
    match (participant, event) {
        (Participant::Seller(part), _) => of_seller(part, event).map(|action| action.step()),
        (Participant::Payment, _) => Some(Step::Abort), // payment aborts what others gave up
        (Participant::Booking, Event::Charged { .. }) => Some(Step::Confirm),
        (Participant::Booking, Event::Cancelled { .. }) => Some(Step::Fail),
        (Participant::Booking, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{event::samples, step::Class};

    const PARTS: [PartName; 3] = [PartName::new("a"), PartName::new("b"), PartName::new("c")];

    fn all() -> Vec<Event> {
        samples(&serde_json::from_value(json!({"a": 1, "b": 2, "c": 3})).unwrap())
    }

    /// The steps that an event may lead to, at any participant.
    fn steps(event: &Event) -> Vec<(Participant, Step)> {
        let mut steps = Vec::new();
        for part in PARTS {
            steps.extend(of_seller(part, event).map(|action| (Participant::Seller(part), action.step())));
        }
        steps.extend(of_payment(event).map(|reaction| match reaction {
            PaymentReaction::Collect { .. } => (Participant::Payment, Step::Charge),
            PaymentReaction::Abort { .. } => (Participant::Payment, Step::Abort),
        }));
        steps.extend(of_booking(event).map(|reaction| match reaction {
            BookingReaction::Confirm { .. } => (Participant::Booking, Step::Confirm),
            BookingReaction::Collect { .. } => (Participant::Booking, Step::Fail),
        }));
        steps
    }

    #[test]
    fn each_participant_reacts_with_its_own_steps() {
        for event in all() {
            for (participant, step) in steps(&event) {
                assert_eq!(step.participant(), participant, "{step} on {}", event.event_type());
            }
        }
    }

    #[test]
    fn an_event_concerns_those_who_react_to_it() {
        for event in all() {
            let react: Vec<_> = steps(&event).into_iter().map(|(participant, _)| participant).collect();
            let concerned = Participant::of(&PARTS).into_iter().filter(|each| concerns(*each, event.event_type()));
            assert_eq!(concerned.collect::<Vec<_>>(), react, "{}", event.event_type());
        }
    }

    #[test]
    fn what_cannot_be_undone_is_done_only_after_payments_decision() {
        for event in all() {
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
        let done: Vec<_> = all().iter().flat_map(steps).map(|(_, step)| step).collect();
        for step in Step::of(&PARTS).into_iter().filter(|step| *step != Step::Park) {
            assert!(done.contains(&step), "nothing leads to {step}");
        }
    }

    #[test]
    fn a_part_that_is_not_in_the_plan_leads_to_nothing() {
        let other = PartName::new("other");
        for event in all() {
            assert_eq!(of_seller(other, &event), None, "{}", event.event_type());
            assert_eq!(of_payment_to_failure(&event, Some(Participant::Seller(other)), "error"), None);
        }
        let of_other = all().into_iter().filter_map(|event| match event {
            Event::Reserved { price, plan, .. } => Some(Event::Reserved { part: other, price, plan }),
            Event::Rejected { rejection, plan, .. } => Some(Event::Rejected { part: other, rejection, plan }),
            _ => None,
        });
        for event in of_other {
            assert_eq!(of_payment(&event), None, "{}", event.event_type());
        }
    }

    #[test]
    fn what_was_given_up_is_the_step_that_the_event_leads_to() {
        let step = |participant, name: &str| {
            step_of(participant, all().iter().find(|event| event.event_type().to_string() == name).unwrap())
        };
        assert_eq!(step(Participant::Seller(PARTS[2]), "booking.aborted"), Some(Step::Cancel(PARTS[2])));
        assert_eq!(step(Participant::Payment, "booking.requested"), Some(Step::Abort));
        assert_eq!(step(Participant::Booking, "payment.charged"), Some(Step::Confirm));
        assert_eq!(step(Participant::Booking, "b.cancelled"), Some(Step::Fail));
        assert_eq!(step(Participant::Booking, "booking.requested"), None);
    }
}
