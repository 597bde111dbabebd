//! Model checking of both variants: one booking, all participants, and everything that a network, Lambda, Step Functions
//! and SQS may do to them.
//!
//! What is explored is what is deployed: the decisions are the functions of [`saga`] that the handlers execute, and the
//! orchestrator is the file in `statemachines/`, its JSONata evaluated. What is modelled is what surrounds them: the
//! tables ([`books`], as the contracts of the store's traits say; a test holds DynamoDB against them), and the ways in
//! which messages and processes fail ([`choreography`], [`orchestration`]).
//!
//! A run of the checker is a [`Run`]: which variant, in which world, and what must be found. [`Faults`] says how bad the world is. [`Twin`] takes one safeguard out, to see that the checker notices.

mod automaton;
pub mod books;
pub mod choreography;
mod deliveries;
mod drives;
pub mod orchestration;
mod properties;
mod report;
mod scope;
mod set;
mod state_machine;
#[cfg(test)]
mod symmetry;
mod twin;
mod work;

pub use report::{Checked, Run, Variant, check};
pub use scope::{MAX_PARTS, PARTS, Scope};
pub use twin::Twin;

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Faults {
    /// Everything, at any time and without end: whatever was ever published may be delivered again or never, every step may be
    /// given up whatever came of it, every worker may stop for ever between any two moves. This is for what must hold
    /// always; that a booking ends cannot be asked of such a world.
    Unbounded,
    /// So much, and everything else goes well. This is for what must happen in the end.
    Bounded(Budget),
}

/// How often something may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// A message gets lost.
    pub losses: u8,
    /// A message comes twice.
    pub duplicates: u8,
    /// A process dies between two writes, or between the last write and its answer.
    pub deaths: u8,
    /// A step is given up: its retries are exhausted, or its time, whatever really came of it.
    pub give_ups: u8,
    /// A message is received too often, and parked in the dead-letter queue.
    pub parks: u8,
    /// The payment provider does not answer, whatever it did.
    pub silences: u8,
    /// The reconciler drives a booking that is not stuck at all.
    pub early_drives: u8,
    /// The reconciler drives a booking on which nobody works any more.
    pub drives: u8,
}

impl Budget {
    /// Each thing that may go wrong in this variant, once; with as many runs of the reconciler as can be needed after it.
    pub fn of(variant: Variant) -> Vec<(&'static str, Self)> {
        // What the state machine gives up it parks, unless it has to give that up, too.
        let drives = if variant == Variant::Choreographed { 0 } else { 1 };
        let both = [
            ("duplicate", Self { duplicates: 1, ..Self::NOTHING }),
            ("death", Self { deaths: 1, drives: 1, ..Self::NOTHING }),
            ("given up", Self { give_ups: 1, drives, ..Self::NOTHING }),
            ("silence", Self { silences: 1, ..Self::NOTHING }),
            ("early drive", Self { early_drives: 1, ..Self::NOTHING }),
        ];
        // Step Functions sends no messages that could get lost, and what it gives up it parks itself.
        let messages =
            [("loss", Self { losses: 1, drives: 1, ..Self::NOTHING }), ("parked", Self { parks: 1, ..Self::NOTHING })];
        let messages = messages.into_iter().filter(|_| variant == Variant::Choreographed);
        both.into_iter().chain(messages).collect()
    }

    /// Nothing goes wrong.
    pub const NOTHING: Self =
        Self { losses: 0, duplicates: 0, deaths: 0, give_ups: 0, parks: 0, silences: 0, early_drives: 0, drives: 0 };

    /// What goes wrong in one world, and in the other.
    pub const fn and(self, other: Self) -> Self {
        Self {
            losses: self.losses + other.losses,
            duplicates: self.duplicates + other.duplicates,
            deaths: self.deaths + other.deaths,
            give_ups: self.give_ups + other.give_ups,
            parks: self.parks + other.parks,
            silences: self.silences + other.silences,
            early_drives: self.early_drives + other.early_drives,
            drives: self.drives + other.drives,
        }
    }
}

impl Faults {
    /// Whether this may happen now.
    fn allow(self, left: fn(&Budget) -> u8) -> bool {
        match self {
            Self::Unbounded => true,
            Self::Bounded(budget) => left(&budget) > 0,
        }
    }

    /// It happens.
    fn spend(&mut self, left: fn(&mut Budget) -> &mut u8) {
        if let Self::Bounded(budget) = self {
            *left(budget) -= 1; // it was allowed
        }
    }

    const fn is_bounded(self) -> bool {
        matches!(self, Self::Bounded(_))
    }
}
