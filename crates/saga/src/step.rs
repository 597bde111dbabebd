//! The participants, their steps, and the class of each step.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::part::PartName;

/// A service that takes part in a saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Participant {
    /// Sells one kind of part, and has the part's name.
    Seller(PartName),
    /// Owns the decision whether the booking is charged.
    Payment,
    /// Owns the booking's header.
    Booking,
}

impl Participant {
    /// All participants of a saga with these parts.
    pub fn of(parts: &[PartName]) -> Vec<Self> {
        parts.iter().copied().map(Self::Seller).chain([Self::Payment, Self::Booking]).collect()
    }

    /// The participant with this name; none if no participant can have it.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "payment" => Some(Self::Payment),
            "booking" => Some(Self::Booking),
            _ => PartName::try_from(name).ok().map(Self::Seller),
        }
    }
}

impl fmt::Display for Participant {
    /// `flight`, `payment`, `booking`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seller(part) => part.fmt(f),
            Self::Payment => f.pad("payment"),
            Self::Booking => f.pad("booking"),
        }
    }
}

/// The class of a step: what its success or failure means for the saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Can be undone by its compensation, and is undone unless the pivot succeeds.
    Compensatable,
    /// Decides: before it the saga can still roll back, after it the saga only goes forwards.
    Pivot,
    /// Must succeed eventually; never triggers a rollback.
    Retriable,
}

/// One action of one participant. Written as `flight.reserve`, `payment.charge`, …: its name everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Step {
    /// Take the units that the part asks for from every stock line it needs, or reject.
    Reserve(PartName),
    /// Give back exactly what this saga took; if it took nothing, make sure that it never will.
    Cancel(PartName),
    /// Charge the sum of the parts' prices, once.
    Charge,
    /// Make sure that the saga is not charged and never will be, unless it is charged already.
    Abort,
    /// Record that the booking succeeded.
    Confirm,
    /// Record that the booking failed.
    Fail,
    /// Record that a step which must succeed was given up for now.
    Park,
}

impl Step {
    /// All steps of a saga with these parts.
    pub fn of(parts: &[PartName]) -> Vec<Self> {
        let reserves = parts.iter().copied().map(Self::Reserve);
        let cancels = parts.iter().copied().map(Self::Cancel);
        let before = reserves.chain([Self::Charge, Self::Confirm, Self::Abort]);
        before.chain(cancels).chain([Self::Fail, Self::Park]).collect()
    }

    /// The participant that carries out this step.
    pub const fn participant(self) -> Participant {
        match self {
            Self::Reserve(part) | Self::Cancel(part) => Participant::Seller(part),
            Self::Charge | Self::Abort => Participant::Payment,
            Self::Confirm | Self::Fail | Self::Park => Participant::Booking,
        }
    }

    /// Whether this step can be undone, decides, or must succeed.
    pub const fn class(self) -> Class {
        match self {
            Self::Reserve(_) => Class::Compensatable,
            Self::Charge => Class::Pivot,
            Self::Cancel(_) | Self::Abort | Self::Confirm | Self::Fail | Self::Park => Class::Retriable,
        }
    }

    /// The step that undoes this one; none if it cannot be undone.
    pub const fn undo(self) -> Option<Self> {
        match self {
            Self::Reserve(part) => Some(Self::Cancel(part)),
            _ => None,
        }
    }

    /// The second half of the step's name: `reserve`, `charge`, …
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Reserve(_) => "reserve",
            Self::Cancel(_) => "cancel",
            Self::Charge => "charge",
            Self::Abort => "abort",
            Self::Confirm => "confirm",
            Self::Fail => "fail",
            Self::Park => "park",
        }
    }

    /// The step with this name, such as `flight.reserve`; none if there is no such step.
    pub fn named(name: &str) -> Option<Self> {
        let (participant, verb) = name.split_once('.')?;
        match (Participant::named(participant)?, verb) {
            (Participant::Seller(part), "reserve") => Some(Self::Reserve(part)),
            (Participant::Seller(part), "cancel") => Some(Self::Cancel(part)),
            (Participant::Payment, "charge") => Some(Self::Charge),
            (Participant::Payment, "abort") => Some(Self::Abort),
            (Participant::Booking, "confirm") => Some(Self::Confirm),
            (Participant::Booking, "fail") => Some(Self::Fail),
            (Participant::Booking, "park") => Some(Self::Park),
            _ => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.participant(), self.verb()))
    }
}

impl From<Step> for String {
    fn from(step: Step) -> Self {
        step.to_string()
    }
}

impl TryFrom<String> for Step {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::named(&name).ok_or_else(|| format!("{name:?} is not a step"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Step> {
        Step::of(&["a", "b"].map(PartName::new))
    }

    #[test]
    fn names_say_who_and_are_unique() {
        for step in all() {
            assert_eq!(Step::named(&step.to_string()), Some(step));
            assert_eq!(step.to_string().split('.').next(), Some(step.participant().to_string().as_str()));
        }
        for odd in ["", "a", "a.", ".reserve", "a.charge", "payment.reserve", "A.reserve", "a.reserve.b"] {
            assert_eq!(Step::named(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn what_can_be_undone_is_what_is_compensatable_and_its_undo_must_succeed() {
        for step in all() {
            assert_eq!(step.undo().is_some(), step.class() == Class::Compensatable, "{step}");
            assert!(step.undo().is_none_or(|undo| undo.class() == Class::Retriable), "{step}");
        }
        assert_eq!(all().into_iter().filter(|step| step.class() == Class::Pivot).count(), 1);
    }
}
