//! A worker of payment between two moves: a function that charges or aborts, and may die anywhere on its way. It is the
//! same in both variants.

use std::hash::Hash;

use saga::{
    Outcome, Step,
    payment::{Abort, Aborting, Charge, Charging},
};

use crate::{
    Faults, Twin,
    books::{Books, Provider},
};

/// How many workers charge or abort at the same time. A third would find what the second does.
pub(crate) const MAX_WORKERS: usize = 2;
/// How many leases are taken one after the other in [`Faults::Unbounded`].
const MAX_LEASES: i64 = 3;

/// What a worker is doing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    Charge(Charging),
    Abort(Aborting),
}

/// What happens to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It makes its next move, in words.
    Move(Provider, &'static str),
    /// It takes over the lease of another.
    TakeOver,
    /// It has no time left to ask the provider again.
    RunOutOfTime,
    /// It dies: between two moves, or before it has published what came of them, or as that fails.
    Die,
}

impl Progress {
    pub(crate) fn in_words(self, worker: usize) -> String {
        let what = match self {
            Self::Move(Provider::Answers, what) => what.to_owned(),
            Self::Move(Provider::ChargesSilently, what) => format!("{what}, which it does, but it does not answer"),
            Self::Move(Provider::IsSilent, what) => format!("{what}, which it does not, nor does it answer"),
            Self::TakeOver => "finds that the lease has ended".to_owned(),
            Self::RunOutOfTime => "has no time left, and releases the lease".to_owned(),
            Self::Die => "dies".to_owned(),
        };
        format!("payment's worker {worker} {what}")
    }

    /// It happens, which may use up some of the faults that there are.
    pub(crate) fn spend(self, faults: &mut Faults) {
        match self {
            Self::Move(Provider::ChargesSilently | Provider::IsSilent, _) => faults.spend(|left| &mut left.silences),
            Self::Die => faults.spend(|left| &mut left.deaths),
            Self::Move(Provider::Answers, _) | Self::TakeOver | Self::RunOutOfTime => {}
        }
    }
}

impl Work {
    /// Payment begins on this step, if it is one that takes several moves.
    pub(crate) fn on(step: Step) -> Option<Self> {
        match step {
            Step::Charge => Some(Self::Charge(Charging::default())),
            Step::Abort => Some(Self::Abort(Aborting::begin(None))),
            _ => None,
        }
    }

    /// What came of it, if nothing is left but to publish that.
    pub(crate) fn done(&self) -> Option<(Step, Outcome)> {
        match self {
            Self::Charge(charging) => match charging.next(0) {
                Charge::Answer(outcome) => Some((Step::Charge, outcome)),
                _ => None,
            },
            Self::Abort(aborting) => match aborting.next() {
                Abort::Answer(outcome) => Some((Step::Abort, outcome)),
                _ => None,
            },
        }
    }

    /// The next move is made.
    pub(crate) fn moved(self, books: &mut Books, progress: Progress, twin: Option<Twin>) -> Self {
        let (lease_has_ended, provider) = match progress {
            Progress::Move(provider, _) => (false, provider),
            _ => (true, Provider::Answers),
        };
        match self {
            Self::Charge(charging) => Self::Charge(books.charge(charging, lease_has_ended, provider, twin)),
            Self::Abort(aborting) => Self::Abort(books.abort(aborting, twin)),
        }
    }

    /// What may happen to it next, but for its end; `is_leased` says whether some worker holds the lease.
    pub(crate) fn progress(&self, faults: Faults, books: &Books, is_leased: bool) -> Vec<Progress> {
        let (next, what) = match self {
            Self::Charge(charging) => (charging.next(0), in_words(&charging.next(0))),
            // Which move it is does not matter here.
            Self::Abort(aborting) => (Charge::Void, abort_in_words(&aborting.next())),
        };
        let mut progress = Vec::new();
        if next == Charge::ComeBack {
            // It would come back until the lease has ended, at the latest when its holder is dead.
            if if faults.is_bounded() { !is_leased } else { books.leases() < MAX_LEASES } {
                progress.push(Progress::TakeOver);
            }
        } else {
            progress.push(Progress::Move(Provider::Answers, what));
        }
        if matches!(next, Charge::Ask { .. }) && faults.allow(|left| left.silences) {
            progress.push(Progress::Move(Provider::ChargesSilently, what));
            progress.push(Progress::Move(Provider::IsSilent, what));
        }
        // Without bounds it is as if the worker died.
        if faults.is_bounded() && self.needs_time() {
            progress.push(Progress::RunOutOfTime);
        }
        progress
    }

    /// Whether it is about to ask the provider again, which it does not if it has no time left.
    fn needs_time(&self) -> bool {
        let Self::Charge(charging) = self else { return false };
        let [in_time, too_late] = [0, i64::MAX].map(|now| charging.next(now));
        matches!((in_time, too_late), (Charge::Ask { .. }, Charge::Release { .. }))
    }

    /// Whether it has asked the provider in vain, and is about to ask it again or to give up.
    pub(crate) const fn is_asking_again(&self) -> bool {
        matches!(self, Self::Charge(Charging::Leased { unanswered: 1.., .. }))
    }

    pub(crate) const fn is_charging(&self) -> bool {
        matches!(self, Self::Charge(Charging::Leased { .. }))
    }

    pub(crate) const fn is_fenced(&self) -> bool {
        matches!(self, Self::Abort(Aborting::Fenced { .. }))
    }

    /// Whether it holds the lease.
    pub(crate) fn is_leased(&self, books: &Books) -> bool {
        match self {
            Self::Charge(Charging::Leased { until, .. }) => *until == books.leases(),
            Self::Charge(Charging::Answered { .. }) => true,
            _ => false,
        }
    }
}

/// A number that tells one thing from another, the same in every run.
pub(crate) fn code(thing: &impl Hash) -> u64 {
    const HASHING: ahash::RandomState = ahash::RandomState::with_seeds(1, 2, 3, 4);
    HASHING.hash_one(thing)
}

const fn in_words(charge: &Charge) -> &'static str {
    match charge {
        Charge::Lease { earlier: None } => "asks for the lease to charge",
        Charge::Lease { earlier: Some(_) } => "takes the lease over",
        Charge::Ask { find_first: false, .. } => "lets the provider charge",
        Charge::Ask { find_first: true, .. } => "asks the provider whether it charged, and lets it charge if not",
        Charge::Complete { .. } => "completes the charge",
        Charge::Release { .. } => "releases the lease",
        Charge::Void => "voids at the provider, and answers",
        Charge::Answer(_) => "answers",
        Charge::ComeBack => "has to come back later",
    }
}

const fn abort_in_words(abort: &Abort) -> &'static str {
    match abort {
        Abort::Fence(_) => "puts up the fence against a charge",
        Abort::Void => "voids at the provider, and answers",
        Abort::Record(_) => "records what is decided, and answers",
        Abort::Answer(_) => "answers",
    }
}
