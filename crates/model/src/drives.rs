//! How often the reconciler drives a booking.
//!
//! A booking of which every part is sold ends by itself or after as many drives as its faults need, and those are a part of
//! the world's budget. One with a part that nobody sells never ends: there [`Claim`] counts, as it does in the reconciler,
//! and decides when an operator is called.

use std::time::Duration;

use jiff::Timestamp;
use saga::{
    Claim, Status,
    claim::{Drive, Pace},
};

use crate::{Faults, Scope};

/// Every period is over as soon as it is looked at.
const PACE: Pace = Pace { period: Duration::ZERO, max_drives: 2 };
/// How often an operator has a booking driven again that cannot end.
const MAX_REDRIVES: u8 = 1;
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// How often a booking was driven, where that is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Drives {
    drives: u8,
    redrives: u8,
}

impl Drives {
    fn claim(self) -> Claim {
        let drives = self.drives.into();
        Claim { number: drives + 1, at: Some(NOW), drives, redrive: None }
    }

    /// What the reconciler may do now about a booking that is open; nothing, if it does not look. It may look too early.
    pub(crate) fn next(self, scope: Scope, is_idle: bool, faults: Faults) -> Option<Drive> {
        if scope.is_sold() {
            let may_drive =
                if is_idle { faults.allow(|left| left.drives) } else { faults.allow(|left| left.early_drives) };
            return may_drive.then(|| Drive::Again(self.claim()));
        }
        (is_idle || faults.allow(|left| left.early_drives)).then(|| self.claim().drive(NOW, &PACE))
    }

    /// It drives it.
    pub(crate) fn drive(&mut self, scope: Scope, is_idle: bool, faults: &mut Faults) {
        if !is_idle {
            faults.spend(|left| &mut left.early_drives);
        } else if scope.is_sold() {
            faults.spend(|left| &mut left.drives);
        }
        if !scope.is_sold()
            && let Drive::Again(claim) = self.claim().drive(NOW, &PACE)
        {
            self.drives = u8::try_from(claim.drives).unwrap_or(u8::MAX); // two at most
        }
    }

    /// Whether an operator may have it driven again.
    pub(crate) const fn may_redrive(self, scope: Scope) -> bool {
        scope.is_sold() || self.redrives < MAX_REDRIVES
    }

    /// An operator has it driven again.
    pub(crate) fn redrive(&mut self, scope: Scope, status: Status) {
        if !scope.is_sold()
            && let Some(claim) = self.claim().redrive(status, "message", NOW)
        {
            *self = Self { drives: u8::try_from(claim.drives).unwrap_or(u8::MAX), redrives: self.redrives + 1 };
        }
    }
}
