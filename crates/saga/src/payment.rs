//! Payment's decision. Exactly one of *charged* and *not charged* is ever decided, here and nowhere else.
//!
//! ```text
//!   collecting ──▶ charging ──▶ charged
//!       │             ├───────▶ declined
//!       └─────────────┴───────▶ aborted       (never from charged, never to charging)
//! ```
//!
//! The charge itself happens at a provider, outside any transaction. So a worker first takes a lease (state *charging*,
//! and a journal item in progress), charges with a reference that makes the charge happen at most once, and completes.
//! If the provider does not answer, the worker asks again a few times while it holds the lease: it asks what happened
//! first, and charges only if nothing did. An abort first fences (state *aborted*, after which no completion can
//! succeed), then voids whatever the provider did or may still do, and only then answers.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    money::{Money, MoneyError, Price},
    outcome::{Outcome, Reason, Rejection},
    part::{PartName, PartNames},
};

/// Payment's decision on a booking so far.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum State {
    /// Nothing was tried yet, and there is no record.
    #[default]
    Collecting,
    /// A worker holds, or held, the lease to charge.
    Charging,
    /// Charged. Final.
    Charged {
        /// The amount charged.
        amount: Money,
        /// The provider's identifier of the charge.
        charge_id: String,
    },
    /// The provider declined. Final.
    Declined,
    /// Aborted. Final.
    Aborted {
        /// The first failure of this booking.
        reason: Option<Reason>,
    },
}

impl State {
    /// The name of the state in the table.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Collecting => "collecting",
            Self::Charging => "charging",
            Self::Charged { .. } => "charged",
            Self::Declined => "declined",
            Self::Aborted { .. } => "aborted",
        }
    }

    /// The state that the provider's answer leads to; none if a provider cannot give this answer.
    pub fn after(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Charged { amount, charge_id } => {
                Some(Self::Charged { amount: *amount, charge_id: charge_id.clone() })
            }
            Outcome::Declined(_) => Some(Self::Declined),
            _ => None,
        }
    }
}

/// What the journal records about the charge.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum Recorded {
    /// The journal has no item for this step.
    #[default]
    Absent,
    /// A worker holds a lease until this time, in milliseconds since 1970.
    InProgress {
        /// The time from which another worker may take over.
        lease_ends: i64,
    },
    /// The step is completed with this outcome.
    Completed(Outcome),
}

/// How many times a worker calls the provider within one lease. If it still has no answer then, the rest is left to the
/// retries of the caller, which wait longer.
pub const ATTEMPTS: u32 = 3;

/// The pause before the second attempt. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The maximum pause before the next attempt, after this many attempts that the provider did not answer; none if there
/// must be no further attempt, because there were enough or because it is past `ask_until`. The first attempt is always
/// made, immediately. Times are in milliseconds since 1970.
pub fn pause(unanswered: u32, now_ms: i64, ask_until: i64) -> Option<Duration> {
    match unanswered {
        0 => Some(Duration::ZERO),
        1..ATTEMPTS if now_ms < ask_until => Some(FIRST_PAUSE * 2_u32.pow(unanswered - 1)),
        _ => None,
    }
}

/// The progress of a worker that carries out a charge. It starts with `default`: a worker assumes that nothing was
/// tried, and is corrected when it asks for the lease. It may die between any two moves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Charging {
    /// The state as the worker knows it, which may be outdated.
    Deciding {
        /// The decision so far.
        state: State,
        /// What the journal records about the charge.
        recorded: Recorded,
    },
    /// The worker holds the lease.
    Leased {
        /// When the lease ends, in milliseconds since 1970.
        until: i64,
        /// When it is too late to call the provider again, in milliseconds since 1970.
        ask_until: i64,
        /// Whether another worker held the lease before, and may have charged.
        after_another: bool,
        /// How many of this worker's attempts the provider has not answered. Any of them may have charged.
        unanswered: u32,
    },
    /// The provider has answered.
    Answered {
        /// The provider's answer as an outcome.
        outcome: Outcome,
        /// The state that the outcome leads to.
        decision: State,
    },
    /// The worker is done and answers with this outcome; with none, another worker has to continue.
    Done(Option<Outcome>),
}

/// The next move of a worker that charges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Take the lease: if nothing was tried, or, given the end of an earlier lease, if that is still the last one. The
    /// worker of that lease is gone, and how far it got is unknown. Then [`Charging::leased`], or [`Charging::found`].
    Lease {
        /// When the earlier lease ended.
        earlier: Option<i64>,
    },
    /// Call the provider to charge; if an earlier attempt may have charged, ask what happened first, and charge only if
    /// nothing did. Then [`Charging::answered`].
    Ask {
        /// Whether an earlier attempt, by this worker or another, may have charged.
        find_first: bool,
        /// The maximum pause before the call, which lets the provider recover.
        pause: Duration,
    },
    /// Record this, provided that nothing is decided yet. Then [`Charging::completed`], or [`Charging::found`].
    Complete {
        /// The provider's answer as an outcome.
        outcome: Outcome,
        /// The state that the outcome leads to.
        decision: State,
    },
    /// End the lease, so that the next worker need not wait. Then [`Charging::released`].
    Release {
        /// When the lease would end.
        until: i64,
    },
    /// The booking is aborted, and the worker that aborted it may have died before it voided at the provider: void
    /// (again), with as many attempts as [`pause`] allows. Then [`Charging::voided`].
    Void,
    /// Answer with this outcome.
    Answer(Outcome),
    /// The caller has to retry later: another worker holds the lease, or the provider did not answer.
    ComeBack,
}

impl Default for Charging {
    fn default() -> Self {
        Self::Deciding { state: State::Collecting, recorded: Recorded::Absent }
    }
}

impl Charging {
    /// The next move at this time, in milliseconds since 1970.
    pub fn next(&self, now_ms: i64) -> Charge {
        let (state, recorded) = match self {
            Self::Deciding { state, recorded } => (state, recorded),
            Self::Leased { until, ask_until, after_another, unanswered } => {
                return match pause(*unanswered, now_ms, *ask_until) {
                    Some(pause) => Charge::Ask { find_first: *after_another || *unanswered > 0, pause },
                    None => Charge::Release { until: *until },
                };
            }
            Self::Answered { outcome, decision } => {
                return Charge::Complete { outcome: outcome.clone(), decision: decision.clone() };
            }
            Self::Done(Some(outcome)) => return Charge::Answer(outcome.clone()),
            Self::Done(None) => return Charge::ComeBack,
        };
        match (state, recorded) {
            (_, Recorded::Completed(outcome)) => Charge::Answer(outcome.clone()),
            (State::Aborted { .. }, _) => Charge::Void,
            (State::Charged { amount, charge_id }, _) => {
                Charge::Answer(Outcome::Charged { amount: *amount, charge_id: charge_id.clone() })
            }
            (State::Declined, _) => {
                Charge::Answer(Outcome::Declined(Rejection::new("declined", "the payment was declined")))
            }
            (_, Recorded::InProgress { lease_ends }) if *lease_ends > now_ms => Charge::ComeBack,
            (_, Recorded::InProgress { lease_ends }) => Charge::Lease { earlier: Some(*lease_ends) },
            (State::Collecting | State::Charging, Recorded::Absent) => Charge::Lease { earlier: None },
        }
    }

    /// The store refused the move: this is the current state.
    pub const fn found(state: State, recorded: Recorded) -> Self {
        Self::Deciding { state, recorded }
    }

    /// The lease was taken until `until`. After `ask_until`, which is earlier, the provider is not called again.
    pub const fn leased(until: i64, ask_until: i64, earlier: Option<i64>) -> Self {
        Self::Leased { until, ask_until, after_another: earlier.is_some(), unanswered: 0 }
    }

    /// The provider's answer; none, or an outcome that is not a provider's answer, means that it is unknown what the
    /// provider did.
    pub fn answered(self, outcome: Option<Outcome>) -> Self {
        let Self::Leased { until, ask_until, after_another, unanswered } = self else {
            return self; // the provider is never called without a lease
        };
        match outcome.and_then(|outcome| State::after(&outcome).map(|decision| (outcome, decision))) {
            Some((outcome, decision)) => Self::Answered { outcome, decision },
            None => Self::Leased { until, ask_until, after_another, unanswered: unanswered + 1 },
        }
    }

    /// The outcome is recorded.
    pub fn completed(self) -> Self {
        match self {
            Self::Answered { outcome, .. } => Self::Done(Some(outcome)),
            other => other, // there is nothing to complete yet
        }
    }

    /// The lease has ended.
    pub const fn released() -> Self {
        Self::Done(None)
    }

    /// The provider has returned whatever it charged, and will not charge any more.
    pub fn voided(self) -> Self {
        match self {
            Self::Deciding { state: State::Aborted { reason }, .. } => Self::Done(Some(Outcome::Aborted { reason })),
            other => other, // only an aborted booking is voided
        }
    }
}

/// The progress of a worker that carries out an abort. It may die between any two moves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Aborting {
    /// The state as the worker knows it, which may be outdated.
    Deciding {
        /// The decision so far.
        state: State,
        /// What the journal records about the abort.
        recorded: Option<Outcome>,
        /// Why the booking is aborted. The first reason is kept.
        reason: Option<Reason>,
    },
    /// No charge can be completed any more, but the provider may have charged, or may still charge.
    Fenced {
        /// Why the booking is aborted.
        reason: Option<Reason>,
    },
    /// The worker is done and answers with this outcome; with none, another worker has to continue.
    Done(Outcome),
}

/// The next move of a worker that aborts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Abort {
    /// Fence (move to *aborted*) and record this outcome in one transaction, provided that nothing is decided yet. Then
    /// [`Aborting::fenced`], or [`Aborting::found`].
    Fence(Outcome),
    /// Call the provider to void, with as many attempts as [`pause`] allows. The provider may have voided already: the
    /// fence alone does not show it. Then [`Aborting::voided`].
    Void,
    /// The decision is made, and there is nothing left to do at the provider: record this outcome and answer with it.
    /// Then [`Aborting::recorded`].
    Record(Outcome),
    /// Answer with this outcome.
    Answer(Outcome),
}

impl Aborting {
    /// Starts an abort for this reason. Its worker assumes that nothing is decided, and is corrected by the fence.
    pub const fn begin(reason: Option<Reason>) -> Self {
        Self::Deciding { state: State::Collecting, recorded: None, reason }
    }

    /// The next move.
    pub fn next(&self) -> Abort {
        let (state, recorded, reason) = match self {
            Self::Deciding { state, recorded, reason } => (state, recorded, reason),
            Self::Fenced { .. } => return Abort::Void,
            Self::Done(outcome) => return Abort::Answer(outcome.clone()),
        };
        match (state, recorded) {
            (State::Collecting | State::Charging, _) => Abort::Fence(Outcome::Aborted { reason: reason.clone() }),
            (State::Aborted { .. }, _) => Abort::Void,
            (State::Charged { .. } | State::Declined, Some(outcome)) => Abort::Answer(outcome.clone()),
            (State::Declined, None) => Abort::Record(Outcome::Aborted { reason: reason.clone() }),
            (State::Charged { amount, charge_id }, None) => {
                Abort::Record(Outcome::Charged { amount: *amount, charge_id: charge_id.clone() })
            }
        }
    }

    /// The store refused the fence: this is the current state.
    pub fn found(self, state: State, recorded: &Recorded) -> Self {
        let recorded = match recorded {
            Recorded::Completed(outcome) => Some(outcome.clone()),
            Recorded::Absent | Recorded::InProgress { .. } => None, // an abort takes no lease
        };
        match self {
            Self::Deciding { reason, .. } => Self::Deciding { state, recorded, reason },
            other => other, // only a fence is refused
        }
    }

    /// The fence is committed.
    pub fn fenced(self) -> Self {
        match self {
            Self::Deciding { reason, .. } => Self::Fenced { reason },
            other => other, // it was committed before
        }
    }

    /// The provider has returned whatever it charged, and will not charge any more.
    pub fn voided(self) -> Self {
        match self {
            Self::Fenced { reason } | Self::Deciding { state: State::Aborted { reason }, .. } => {
                Self::Done(Outcome::Aborted { reason })
            }
            other => other, // only an aborted booking is voided
        }
    }

    /// This outcome is recorded, by this worker or another.
    pub const fn recorded(outcome: Outcome) -> Self {
        Self::Done(outcome)
    }
}

/// A price for each part of a plan, and for no other part. If they are all there, every part is reserved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Prices(BTreeMap<PartName, Price>);

impl Prices {
    /// The known prices, if they cover exactly the parts of the plan.
    pub fn of(known: BTreeMap<PartName, Price>, plan: &PartNames) -> Option<Self> {
        (!known.is_empty() && known.keys().eq(plan)).then_some(Self(known))
    }

    /// The names of the priced parts.
    pub fn names(&self) -> PartNames {
        self.0.keys().copied().collect()
    }

    /// The sum of all prices: what the customer pays, or a credit if the credits exceed the other prices.
    pub fn total(&self) -> Result<Price, MoneyError> {
        let mut prices = self.0.values().copied();
        let first = prices.next().unwrap_or(Price { amount: 0, currency: crate::money::Currency::EUR }); // never empty
        prices.try_fold(first, Price::plus)
    }
}

/// The amount that the provider has to charge; or the outcome, if there is nothing to charge because the credits equal
/// or exceed the other prices.
pub fn to_charge(total: Price) -> Result<Money, Outcome> {
    match total.payable() {
        None => Err(Outcome::Declined(Rejection::new("overpaid", "the credits exceed the price of the other parts"))),
        Some(amount) if amount.amount == 0 => Err(Outcome::Charged { amount, charge_id: "none".into() }),
        Some(amount) => Ok(amount),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{money::Currency, step::Step};

    fn charged() -> Outcome {
        Outcome::Charged { amount: Money::eur(5), charge_id: "ch".into() }
    }

    fn aborting(state: State, recorded: Option<Outcome>) -> Aborting {
        Aborting::Deciding { state, recorded, reason: None }
    }

    #[test]
    fn an_abort_that_comes_after_the_charge_answers_charged() {
        let state = State::after(&charged()).unwrap();
        assert_eq!(aborting(state.clone(), None).next(), Abort::Record(charged()));
        assert_eq!(aborting(state, Some(charged())).next(), Abort::Answer(charged()));
    }

    #[test]
    fn a_lease_is_respected_until_it_ends() {
        let charging = Charging::found(State::Charging, Recorded::InProgress { lease_ends: 1000 });
        assert_eq!(charging.next(999), Charge::ComeBack);
        assert_eq!(charging.next(1000), Charge::Lease { earlier: Some(1000) });
    }

    #[test]
    fn who_takes_a_lease_over_asks_what_happened_first() {
        let pause = Duration::ZERO;
        assert_eq!(Charging::leased(1000, 600, None).next(0), Charge::Ask { find_first: false, pause });
        assert_eq!(Charging::leased(1000, 600, Some(500)).next(0), Charge::Ask { find_first: true, pause });
    }

    #[test]
    fn a_provider_that_does_not_answer_is_asked_again_what_happened_first_and_then_the_lease_is_released() {
        for answer in [None, Some(Outcome::Cancelled { released: true })] {
            let mut charging = Charging::leased(1000, 600, None);
            for pause in [250, 500].map(Duration::from_millis) {
                charging = charging.answered(answer.clone());
                assert_eq!(charging.next(599), Charge::Ask { find_first: true, pause });
            }
            charging = charging.answered(answer);
            assert_eq!(charging.next(599), Charge::Release { until: 1000 });
            assert_eq!(Charging::released().next(599), Charge::ComeBack);
        }
    }

    #[test]
    fn a_worker_whose_time_is_up_asks_once_and_not_once_more() {
        let charging = Charging::leased(1000, 600, None);
        assert_eq!(charging.next(600), Charge::Ask { find_first: false, pause: Duration::ZERO });
        assert_eq!(charging.answered(None).next(600), Charge::Release { until: 1000 });
    }

    #[test]
    fn an_answer_to_a_later_attempt_is_the_answer() {
        let charging = Charging::leased(1000, 600, None).answered(None).answered(Some(charged()));
        let decision = State::after(&charged()).unwrap();
        assert_eq!(charging.next(0), Charge::Complete { outcome: charged(), decision });
    }

    #[test]
    fn an_abort_that_was_recorded_voids_again_and_keeps_its_first_reason() {
        let reason = Some(Rejection::new("sold_out", "no seat").at(Step::Reserve(PartName::new("tent"))));
        let state = State::Aborted { reason: reason.clone() };
        let outcome = Outcome::Aborted { reason };
        let again = aborting(state.clone(), Some(outcome.clone()));
        assert_eq!(again.next(), Abort::Void);
        assert_eq!(again.voided().next(), Abort::Answer(outcome.clone()));
        let late = Charging::found(state, Recorded::Absent);
        assert_eq!(late.next(0), Charge::Void);
        assert_eq!(late.voided().next(0), Charge::Answer(outcome));
    }

    fn prices(amounts: &[(&str, i64)]) -> BTreeMap<PartName, Price> {
        let price = |amount| Price { amount, currency: Currency::EUR };
        amounts.iter().map(|(name, amount)| (PartName::new(name), price(*amount))).collect()
    }

    fn total(amounts: &[(&str, i64)]) -> Price {
        let known = prices(amounts);
        let plan = known.keys().copied().collect();
        Prices::of(known, &plan).unwrap().total().unwrap()
    }

    #[test]
    fn the_total_is_the_sum() {
        assert_eq!(total(&[("a", 1), ("b", 20), ("c", 300)]).amount, 321);
        assert_eq!(total(&[("a", 1)]).amount, 1);
        let too_much = prices(&[("a", i64::MAX), ("b", 1)]);
        let plan = too_much.keys().copied().collect();
        assert!(Prices::of(too_much, &plan).unwrap().total().is_err());
    }

    #[test]
    fn there_are_prices_of_the_plans_parts_and_of_no_others() {
        let plan: PartNames = ["a", "b"].map(PartName::new).into();
        assert!(Prices::of(prices(&[("a", 1), ("b", 1)]), &plan).is_some());
        for other in [&[][..], &[("a", 1)], &[("a", 1), ("c", 1)], &[("a", 1), ("b", 1), ("c", 1)]] {
            assert_eq!(Prices::of(prices(other), &plan), None, "{other:?}");
        }
    }

    #[test]
    fn a_provider_is_asked_only_if_there_is_something_to_charge() {
        assert_eq!(to_charge(total(&[("a", 100), ("b", -99)])), Ok(Money::eur(1)));
        let nothing = to_charge(total(&[("a", 100), ("b", -100)])).unwrap_err();
        assert!(matches!(nothing, Outcome::Charged { amount, .. } if amount.amount == 0));
        assert_eq!(State::after(&nothing).map(|state| state.name()), Some("charged"));
        let overpaid = to_charge(total(&[("a", 100), ("b", -101)])).unwrap_err();
        assert!(matches!(overpaid, Outcome::Declined(rejection) if rejection.code == "overpaid"));
    }
}
