//! The booking's header: what a user sees of a booking, and how it ends.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{outcome::Outcome, part::PartNames, step::Step};

/// The status of a booking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, and not ended.
    Pending,
    /// Not charged, and being undone. Never stored: it follows from payment's decision in the journal.
    Compensating,
    /// Every part is reserved, and the booking is charged once.
    Confirmed,
    /// No part is reserved, and nothing is charged.
    Failed,
    /// A step that must succeed was given up for now.
    NeedsOperator,
}

impl Status {
    /// The status as the API and the tables write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Compensating => "compensating",
            Self::Confirmed => "confirmed",
            Self::Failed => "failed",
            Self::NeedsOperator => "needs_operator",
        }
    }

    /// Whether nothing more will happen without an operator.
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::Confirmed | Self::Failed | Self::NeedsOperator)
    }

    /// Whether nothing more will happen at all.
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Confirmed | Self::Failed)
    }

    /// The status that a user sees, given the stored status and the outcomes of payment's steps so far.
    pub fn shown<'o>(self, payment: impl IntoIterator<Item = &'o Outcome>) -> Self {
        let not_charged = |outcome: &Outcome| matches!(outcome, Outcome::Aborted { .. } | Outcome::Declined(_));
        match self {
            Self::Pending if payment.into_iter().any(not_charged) => Self::Compensating,
            _ => self,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What to do with the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Set this status and record the outcome.
    End(Status),
    /// Return the outcome that was recorded before.
    Replay,
    /// The booking has the opposite end. Because payment decides exactly once, this cannot happen; if it does, an
    /// operator has to look.
    Contradiction,
}

/// Whether nothing of the plan is left, so that the booking may fail: the cancelled parts are exactly the plan's.
pub fn is_all_cancelled(cancelled: &PartNames, plan: &PartNames) -> bool {
    cancelled == plan
}

/// Decides on confirm, fail and park. `recorded` is whether the journal holds this step already.
pub const fn end(step: Step, status: Status, recorded: bool) -> Move {
    use Status::{Compensating, Confirmed, Failed, NeedsOperator, Pending};
    if recorded && !matches!(step, Step::Park) {
        return Move::Replay;
    }
    match (step, status) {
        (Step::Confirm, Pending | NeedsOperator) => Move::End(Confirmed),
        (Step::Fail, Pending | Compensating | NeedsOperator) => Move::End(Failed),
        (Step::Park, Pending | Compensating | NeedsOperator) => Move::End(NeedsOperator),
        // What was parked has succeeded meanwhile: no operator is needed any more.
        (Step::Park, Confirmed | Failed) => Move::Replay,
        _ => Move::Contradiction,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Status; 5] =
        [Status::Pending, Status::Compensating, Status::Confirmed, Status::Failed, Status::NeedsOperator];

    #[test]
    fn an_end_stays() {
        for end_status in [Status::Confirmed, Status::Failed] {
            for step in [Step::Confirm, Step::Fail, Step::Park] {
                for recorded in [true, false] {
                    assert!(!matches!(end(step, end_status, recorded), Move::End(_)), "{step} on {end_status}");
                }
            }
        }
    }

    #[test]
    fn an_operator_can_be_called_off() {
        assert_eq!(end(Step::Confirm, Status::NeedsOperator, false), Move::End(Status::Confirmed));
        assert_eq!(end(Step::Fail, Status::NeedsOperator, false), Move::End(Status::Failed));
    }

    #[test]
    fn compensating_is_seen_only_while_it_lasts() {
        for status in ALL {
            let shown = status.shown(&[Outcome::Aborted { reason: None }]);
            assert_eq!(shown != status, status == Status::Pending);
            assert_eq!(status.shown(&[]), status);
        }
    }
}
