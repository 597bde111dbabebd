//! Who takes part, what each can do, and what kind of step that is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A part of the trip that is reserved at a service of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Leg {
    /// Seats on one flight.
    Flight,
    /// Rooms for some nights.
    Hotel,
    /// A car for some days.
    Car,
}

impl Leg {
    /// All legs of a booking, in the order in which they are listed.
    pub const ALL: [Self; 3] = [Self::Flight, Self::Hotel, Self::Car];

    /// The leg's name, which is its participant's name too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flight => "flight",
            Self::Hotel => "hotel",
            Self::Car => "car",
        }
    }
}

/// A service that takes part in a booking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Participant {
    /// Sells the stock of one leg.
    Seller(Leg),
    /// Owns the decision: charged, or not charged.
    Payment,
    /// Owns the header.
    Booking,
}

impl Participant {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Seller(Leg::Flight), Self::Seller(Leg::Hotel), Self::Seller(Leg::Car), Self::Payment, Self::Booking];

    /// `flight`, `hotel`, `car`, `payment`, `booking`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seller(leg) => leg.name(),
            Self::Payment => "payment",
            Self::Booking => "booking",
        }
    }
}

/// What a step does to the saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Can be undone by its compensation, and is, unless the pivot succeeds.
    Compensatable,
    /// Decides: before it there is only back, after it only forwards.
    Pivot,
    /// Must succeed in the end; never triggers a rollback.
    Retriable,
}

/// One action of one participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Step {
    /// Take one unit, or as many as are asked for, of every stock line that the leg needs; or reject.
    Reserve(Leg),
    /// Give back exactly what this booking took; if it took nothing, see to it that it never will.
    Cancel(Leg),
    /// Charge the sum of the legs' prices, once.
    Charge,
    /// See to it that the booking is not charged and never will be, unless it is charged already.
    Abort,
    /// Say that the trip is booked.
    Confirm,
    /// Say that it is not.
    Fail,
    /// Say that a step which must succeed was given up for now.
    Park,
}

impl Step {
    /// All steps of a booking.
    pub const ALL: [Self; 11] = [
        Self::Reserve(Leg::Flight),
        Self::Reserve(Leg::Hotel),
        Self::Reserve(Leg::Car),
        Self::Charge,
        Self::Confirm,
        Self::Abort,
        Self::Cancel(Leg::Flight),
        Self::Cancel(Leg::Hotel),
        Self::Cancel(Leg::Car),
        Self::Fail,
        Self::Park,
    ];

    /// Who does it.
    pub const fn participant(self) -> Participant {
        match self {
            Self::Reserve(leg) | Self::Cancel(leg) => Participant::Seller(leg),
            Self::Charge | Self::Abort => Participant::Payment,
            Self::Confirm | Self::Fail | Self::Park => Participant::Booking,
        }
    }

    /// What kind of step it is.
    pub const fn class(self) -> Class {
        match self {
            Self::Reserve(_) => Class::Compensatable,
            Self::Charge => Class::Pivot,
            Self::Cancel(_) | Self::Abort | Self::Confirm | Self::Fail | Self::Park => Class::Retriable,
        }
    }

    /// The step that takes it back, for those that can be taken back.
    pub const fn undo(self) -> Option<Self> {
        match self {
            Self::Reserve(leg) => Some(Self::Cancel(leg)),
            _ => None,
        }
    }

    /// `flight.reserve`, `payment.charge`, …: the step's name everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reserve(Leg::Flight) => "flight.reserve",
            Self::Reserve(Leg::Hotel) => "hotel.reserve",
            Self::Reserve(Leg::Car) => "car.reserve",
            Self::Cancel(Leg::Flight) => "flight.cancel",
            Self::Cancel(Leg::Hotel) => "hotel.cancel",
            Self::Cancel(Leg::Car) => "car.cancel",
            Self::Charge => "payment.charge",
            Self::Abort => "payment.abort",
            Self::Confirm => "booking.confirm",
            Self::Fail => "booking.fail",
            Self::Park => "booking.park",
        }
    }

    /// The step of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Step> for String {
    fn from(step: Step) -> Self {
        step.name().to_owned()
    }
}

impl TryFrom<String> for Step {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::named(&name).ok_or_else(|| format!("{name:?} is no step"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_who_and_are_unique() {
        for step in Step::ALL {
            assert_eq!(Step::named(step.name()), Some(step));
            assert_eq!(step.name().split('.').next(), Some(step.participant().name()));
        }
    }

    #[test]
    fn what_can_be_undone_is_what_is_compensatable_and_its_undo_must_succeed() {
        for step in Step::ALL {
            assert_eq!(step.undo().is_some(), step.class() == Class::Compensatable, "{step}");
            assert!(step.undo().is_none_or(|undo| undo.class() == Class::Retriable), "{step}");
        }
        assert_eq!(Step::ALL.iter().filter(|step| step.class() == Class::Pivot).count(), 1);
    }
}
