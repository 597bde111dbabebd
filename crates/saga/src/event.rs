//! Events: "this happened", and who reacts to what. No participant knows the whole flow; each knows its own row.

use crate::{Leg, Outcome, Participant, Step};

/// Something that happened to a booking and that others may react to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A booking was accepted.
    Requested,
    /// A leg is reserved.
    Reserved(Leg),
    /// A leg will not be reserved.
    Rejected(Leg),
    /// Payment decided: charged.
    Charged,
    /// Payment decided: not charged.
    Aborted,
    /// A leg is given back.
    Cancelled(Leg),
    /// The trip is booked.
    Confirmed,
    /// The trip is not booked.
    Failed,
}

impl Event {
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

    /// `booking.requested`, `flight.reserved`, …
    pub fn name(self) -> String {
        match self {
            Self::Requested => "booking.requested".into(),
            Self::Reserved(leg) => format!("{}.reserved", leg.name()),
            Self::Rejected(leg) => format!("{}.rejected", leg.name()),
            Self::Charged => "payment.charged".into(),
            Self::Aborted => "booking.aborted".into(),
            Self::Cancelled(leg) => format!("{}.cancelled", leg.name()),
            Self::Confirmed => "booking.confirmed".into(),
            Self::Failed => "booking.failed".into(),
        }
    }

    /// What a step's outcome means to the others. A declined charge is payment's decision not to charge, and an
    /// abort that found the booking charged says so.
    pub const fn of(step: Step, outcome: &Outcome) -> Option<Self> {
        match (step, outcome) {
            (Step::Reserve(leg), Outcome::Reserved { .. }) => Some(Self::Reserved(leg)),
            (Step::Reserve(leg), Outcome::Rejected(_)) => Some(Self::Rejected(leg)),
            (Step::Cancel(leg), Outcome::Cancelled { .. }) => Some(Self::Cancelled(leg)),
            (Step::Charge | Step::Abort, Outcome::Charged { .. }) => Some(Self::Charged),
            (Step::Charge, Outcome::Declined(_)) | (Step::Abort, Outcome::Aborted {}) => Some(Self::Aborted),
            (Step::Confirm, Outcome::Confirmed { .. }) => Some(Self::Confirmed),
            (Step::Fail, Outcome::Failed { .. }) => Some(Self::Failed),
            _ => None,
        }
    }
}

/// What a participant does when it hears of an event; none if it does not listen to it. Payment charges only once it
/// has heard of every leg.
pub const fn reaction(participant: Participant, event: Event) -> Option<Step> {
    match (participant, event) {
        (Participant::Seller(leg), Event::Requested) => Some(Step::Reserve(leg)),
        (Participant::Seller(leg), Event::Aborted) => Some(Step::Cancel(leg)),
        (Participant::Payment, Event::Reserved(_)) => Some(Step::Charge),
        (Participant::Payment, Event::Rejected(_)) => Some(Step::Abort),
        (Participant::Booking, Event::Charged) => Some(Step::Confirm),
        (Participant::Booking, Event::Aborted) => Some(Step::Fail),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;

    #[test]
    fn each_reacts_with_its_own_steps() {
        for participant in Participant::ALL {
            for event in Event::ALL {
                if let Some(step) = reaction(participant, event) {
                    assert_eq!(step.participant(), participant, "{} on {}", step, event.name());
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_undone_is_done_only_on_payments_decision() {
        for participant in Participant::ALL {
            for event in Event::ALL {
                let Some(step) = reaction(participant, event) else { continue };
                if step.class() == Class::Retriable && step != Step::Abort {
                    assert!(matches!(event, Event::Charged | Event::Aborted), "{step} on {}", event.name());
                }
            }
        }
    }

    #[test]
    fn every_end_is_reached_by_a_reaction() {
        let done: Vec<_> = Participant::ALL
            .into_iter()
            .flat_map(|participant| Event::ALL.into_iter().filter_map(move |event| reaction(participant, event)))
            .collect();
        for step in Step::ALL.into_iter().filter(|step| *step != Step::Park) {
            assert!(done.contains(&step), "nothing leads to {step}");
        }
    }
}
