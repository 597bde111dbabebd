//! The right to start a booking.
//!
//! A start (an execution of the state machine, or the publishing of `booking.requested`) is *claimed* before it is
//! made, by a write on the condition that the claim on the booking is still the one that was read. The execution's name
//! does not guard against double starts: of EXPRESS executions, Step Functions starts as many under one name as are
//! requested (<https://docs.aws.amazon.com/step-functions/latest/dg/express-at-least-once-execution.html>).
//!
//! ```text
//!   request ──▶ claim 1 ── start ─▶ under way ── a period without an end ──▶ claim 2, 3, … of the reconciler
//!                  │                                                              │
//!                  └─ refused: released, so the next one need not wait            └─ max_drives: needs_operator
//!                                                                                    redrive: a claim of its own ─▶ …
//! ```
//!
//! A worker that dies between claim and start, or gets no answer, leaves the claim in place: the booking may be under
//! way, and the reconciler drives it once the period is over.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{header::Status, id::BookingId};

/// The claim on a booking's latest start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Which start the claim is for, from 1: the number of starts, not counting those that were refused.
    pub number: u32,
    /// When the claim was taken; none if no start is claimed because the last one was refused.
    pub at: Option<Timestamp>,
    /// How often the booking was driven since it was requested, or since an operator had it driven again.
    pub drives: u32,
    /// The id of the latest operator message that the booking was driven for.
    pub redrive: Option<String>,
}

/// How often the reconciler drives a booking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long to leave a start alone: longer than an EXPRESS execution may take.
    pub period: Duration,
    /// After how many drives without an end the reconciler gives up.
    pub max_drives: u32,
}

/// What the reconciler does with a booking that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drive {
    /// Nothing: the latest start may still bring the booking to its end.
    Wait,
    /// Take this claim, and start it again.
    Again(Claim),
    /// Call an operator: the booking was driven often enough.
    GiveUp,
}

impl Claim {
    /// The claim of a new request, which is recorded with the booking.
    pub const fn first(now: Timestamp) -> Self {
        Self { number: 1, at: Some(now), drives: 0, redrive: None }
    }

    /// The claim of a repeated request; none unless the latest start was refused.
    pub fn repeat(&self, now: Timestamp) -> Option<Self> {
        self.at.is_none().then(|| self.next(now))
    }

    /// What the reconciler does with a booking that has this claim and has not ended.
    pub fn drive(&self, now: Timestamp, pace: &Pace) -> Drive {
        let period = SignedDuration::try_from(pace.period).unwrap_or(SignedDuration::MAX);
        if self.at.is_some_and(|at| now.duration_since(at) < period) {
            Drive::Wait
        } else if self.drives >= pace.max_drives {
            Drive::GiveUp
        } else {
            Drive::Again(self.next(now))
        }
    }

    /// The claim of an operator's message about a booking of this status, no matter when the last claim was taken; none
    /// if the booking has ended, or is under way because of this very message, which was delivered again.
    pub fn redrive(&self, status: Status, message: &str, now: Timestamp) -> Option<Self> {
        let is_repeat = status == Status::Pending && self.at.is_some() && self.redrive.as_deref() == Some(message);
        (!status.has_ended() && !is_repeat).then(|| Self {
            drives: 0,
            redrive: Some(message.to_owned()),
            ..self.next(now)
        })
    }

    /// The claim that remains once this claim's start was refused.
    pub fn released(&self) -> Self {
        let (number, drives) = (self.number.saturating_sub(1), self.drives.saturating_sub(1));
        Self { number, at: None, drives, redrive: self.redrive.clone() }
    }

    /// The name of this claim's execution.
    pub fn execution_name(&self, booking_id: &BookingId) -> String {
        if self.number == 1 { booking_id.to_string() } else { format!("{booking_id}-{}", self.number) }
    }

    fn next(&self, now: Timestamp) -> Self {
        // The first start is not a drive, whoever makes it.
        let drives = if self.number == 0 { 0 } else { self.drives.saturating_add(1) };
        Self { number: self.number.saturating_add(1), at: Some(now), drives, redrive: self.redrive.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::IdempotencyKey;

    const PACE: Pace = Pace { period: Duration::from_secs(300), max_drives: 3 };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn driven(claim: &Claim, second: i64) -> Claim {
        match claim.drive(at(second), &PACE) {
            Drive::Again(claim) => claim,
            other => panic!("{other:?} at {second}"),
        }
    }

    #[test]
    fn a_start_is_left_alone_for_a_period() {
        let first = Claim::first(at(0));
        assert_eq!(first.repeat(at(9_999)), None, "a client's repeat is not a start");
        assert_eq!(first.drive(at(299), &PACE), Drive::Wait);
        let second = driven(&first, 300);
        assert_eq!(second.drive(at(599), &PACE), Drive::Wait);
        assert_eq!((second.number, second.drives), (2, 1));
    }

    #[test]
    fn a_booking_that_does_not_end_is_given_up_after_its_drives_and_a_redrive_begins_anew() {
        let mut claim = Claim::first(at(0));
        for drive in 1..=3 {
            claim = driven(&claim, drive * 300);
        }
        assert_eq!(claim.drive(at(1_199), &PACE), Drive::Wait, "the last drive has its period too");
        assert_eq!(claim.drive(at(1_200), &PACE), Drive::GiveUp);

        let redriven = claim.redrive(Status::NeedsOperator, "message", at(1_201)).unwrap();
        assert_eq!((redriven.number, redriven.drives), (5, 0));
        assert_eq!(redriven.drive(at(1_500), &PACE), Drive::Wait);
        assert_eq!(driven(&redriven, 1_501).drives, 1);
        assert_eq!(redriven.redrive(Status::Pending, "message", at(9_999)), None, "it is delivered again");
        assert!(redriven.redrive(Status::Pending, "another", at(1_202)).is_some());
        assert!(redriven.redrive(Status::NeedsOperator, "message", at(9_999)).is_some(), "parked again since");
        assert!(redriven.released().redrive(Status::Pending, "message", at(1_202)).is_some(), "it was refused");
        for over in [Status::Confirmed, Status::Failed] {
            assert_eq!(redriven.redrive(over, "another", at(1_202)), None);
        }
    }

    #[test]
    fn what_was_refused_leaves_no_trace_and_is_tried_again_at_once() {
        let refused = Claim::first(at(0)).released();
        assert_eq!(refused, Claim::default());
        assert_eq!(refused.repeat(at(1)), Some(Claim::first(at(1))));
        assert_eq!(driven(&refused, 1), Claim::first(at(1)), "the first start is not a drive");

        let second = driven(&Claim::first(at(0)), 300);
        let refused = second.released();
        assert_eq!((refused.number, refused.at, refused.drives), (1, None, 0));
        assert_eq!(driven(&refused, 301), Claim { at: Some(at(301)), ..second });
    }

    #[test]
    fn each_claim_has_one_name() {
        let key = IdempotencyKey::try_from("key").unwrap();
        let booking = BookingId::derive("caller", &key);
        let first = Claim::first(at(0));
        assert_eq!(first.execution_name(&booking), booking.as_str());
        assert_eq!(driven(&first, 300).execution_name(&booking), format!("{booking}-2"));
        assert_eq!(
            first.released().redrive(Status::Pending, "m", at(1)).unwrap().execution_name(&booking),
            booking.as_str()
        );
    }
}
