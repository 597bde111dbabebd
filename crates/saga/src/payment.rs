//! What payment decides. Exactly one of *charged* and *not charged* is ever decided, here and nowhere else.
//!
//! ```text
//!   collecting ──▶ charging ──▶ charged
//!       │             ├───────▶ declined
//!       └─────────────┴───────▶ aborted       (never from charged, never to charging)
//! ```
//!
//! The charge itself happens at a provider, outside of any transaction. So a worker takes a lease first (state
//! *charging*, and a journal item in progress), charges with a reference that makes the charge happen at most once,
//! and completes. An abort puts up its fence first (state *aborted*, after which no completion can succeed), then
//! voids whatever the provider did or may still do, and only then answers.

use crate::{
    Event, Leg, Money, Outcome, Participant, PaymentReference, Reason, Rejection, Step, money::MoneyError, reservation,
};

/// What payment does when it hears of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Note the price of a leg that is reserved, and charge once all are: see [`Prices::of`].
    Collect {
        /// Which.
        leg: Leg,
        /// What it costs.
        price: Money,
        /// What to charge.
        reference: PaymentReference,
    },
    /// Abort.
    Abort {
        /// What not to charge.
        reference: PaymentReference,
        /// What went wrong.
        reason: Reason,
    },
}

/// What payment does when it hears of this; none if it does not listen to it.
pub fn reaction(event: &Event) -> Option<Reaction> {
    match event {
        Event::Reserved { leg, price, plan } => {
            Some(Reaction::Collect { leg: *leg, price: *price, reference: plan.payment.reference.clone() })
        }
        Event::Rejected { leg, rejection, plan } => Some(Reaction::Abort {
            reference: plan.payment.reference.clone(),
            reason: rejection.at(Step::Reserve(*leg)),
        }),
        _ => None,
    }
}

/// What payment does when somebody (if it is known who) has given up what this event should have led to; none if
/// nothing depends on it. Nobody knows what really happened, and nobody needs to: an abort decides.
pub fn reaction_to_failure(event: &Event, who: Option<Participant>, why: &str) -> Option<Reaction> {
    let reference = event.plan()?.payment.reference.clone();
    let step = match who {
        Some(Participant::Seller(leg)) => reservation::reaction(leg, event).map(|action| action.step()),
        Some(Participant::Payment) => Some(Step::Charge),
        Some(Participant::Booking) | None => None,
    };
    let failure = Reason { step, code: "technical_failure".into(), detail: format!("gave up after {why}") };
    let reason = match reaction(event) {
        Some(Reaction::Abort { reason, .. }) => reason, // it was to be aborted before that
        _ => failure,
    };
    Some(Reaction::Abort { reference, reason })
}

/// The decision on a booking, as far as it is made.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum State {
    /// Nothing was tried. There is no record yet.
    #[default]
    Collecting,
    /// A worker holds, or held, the lease to charge.
    Charging,
    /// Charged. Final.
    Charged {
        /// How much.
        amount: Money,
        /// The provider's name for it.
        charge_id: String,
    },
    /// The provider declined. Final.
    Declined,
    /// Aborted. Final.
    Aborted {
        /// The first thing that went wrong.
        reason: Option<Reason>,
    },
}

impl State {
    /// The state's name in the table.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Collecting => "collecting",
            Self::Charging => "charging",
            Self::Charged { .. } => "charged",
            Self::Declined => "declined",
            Self::Aborted { .. } => "aborted",
        }
    }

    /// The state that the provider's answer leads to; none if that is no answer of a provider.
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

/// What the journal holds for the charge.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Recorded {
    /// Nothing.
    #[default]
    Absent,
    /// A worker took a lease that ends at this time, in milliseconds since 1970.
    InProgress {
        /// When another worker may take over.
        lease_ends: i64,
    },
    /// It is done.
    Completed(Outcome),
}

/// What `charge` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Take the lease, then charge.
    Lease,
    /// The worker that held the lease is gone, and nobody knows how far it got. Take the lease over, ask the provider
    /// what happened, and charge only if nothing did.
    TakeOver {
        /// When the old lease ended: the new one is taken only if that is still the last one.
        lease_ended: i64,
    },
    /// Another worker is at it: come back later.
    Wait,
    /// It is aborted, and who aborted it may have died before the provider was told: void (again), then answer.
    Void(Outcome),
    /// It is decided; answer this.
    Answer(Outcome),
}

/// Decides on `charge`.
pub fn charge(state: &State, recorded: &Recorded, now_ms: i64) -> Charge {
    match (state, recorded) {
        (_, Recorded::Completed(outcome)) => Charge::Answer(outcome.clone()),
        (State::Aborted { reason }, _) => Charge::Void(Outcome::Aborted { reason: reason.clone() }),
        (State::Charged { amount, charge_id }, _) => {
            Charge::Answer(Outcome::Charged { amount: *amount, charge_id: charge_id.clone() })
        }
        (State::Declined, _) => {
            Charge::Answer(Outcome::Declined(Rejection::new("declined", "the payment was declined")))
        }
        (_, Recorded::InProgress { lease_ends }) if *lease_ends > now_ms => Charge::Wait,
        (_, Recorded::InProgress { lease_ends }) => Charge::TakeOver { lease_ended: *lease_ends },
        (State::Collecting | State::Charging, Recorded::Absent) => Charge::Lease,
    }
}

/// What `abort` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Abort {
    /// Put up the fence and record the outcome, in one, provided that nothing is decided; then void, then answer.
    Fence(Outcome),
    /// The fence stands; whether the void was carried out is not known. Void (again), then answer.
    Void(Outcome),
    /// It is decided, and nothing is left at the provider: record this and answer it.
    Record(Outcome),
    /// Answer what was answered before.
    Replay(Outcome),
}

/// Decides on `abort`, given why and what the journal holds for it. The first reason stays.
pub fn abort(state: &State, recorded: Option<&Outcome>, reason: Option<&Reason>) -> Abort {
    match (state, recorded) {
        (State::Collecting | State::Charging, _) => Abort::Fence(Outcome::Aborted { reason: reason.cloned() }),
        (State::Aborted { reason }, _) => Abort::Void(Outcome::Aborted { reason: reason.clone() }),
        (State::Charged { .. } | State::Declined, Some(outcome)) => Abort::Replay(outcome.clone()),
        (State::Declined, None) => Abort::Record(Outcome::Aborted { reason: reason.cloned() }),
        (State::Charged { amount, charge_id }, None) => {
            Abort::Record(Outcome::Charged { amount: *amount, charge_id: charge_id.clone() })
        }
    }
}

/// The prices of all legs. That there is one for each leg says that each is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices([Money; 3]);

impl Prices {
    /// The prices that have been collected, once there is one for every leg.
    pub fn of(collected: &[(Leg, Money)]) -> Option<Self> {
        let price = |leg| collected.iter().find(|(of, _)| *of == leg).map(|(_, price)| *price);
        let [flight, hotel, car] = Leg::ALL.map(price);
        Some(Self([flight?, hotel?, car?]))
    }

    /// One price per leg, in the order of [`Leg::ALL`].
    pub const fn new(prices: [Money; Leg::ALL.len()]) -> Self {
        Self(prices)
    }

    /// What the traveller pays.
    pub fn total(&self) -> Result<Money, MoneyError> {
        self.0[0].plus(self.0[1])?.plus(self.0[2])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn charged() -> Outcome {
        Outcome::Charged { amount: Money::eur(5), charge_id: "ch".into() }
    }

    #[test]
    fn an_abort_that_comes_after_the_charge_answers_charged() {
        let state = State::after(&charged()).unwrap();
        assert_eq!(abort(&state, None, None), Abort::Record(charged()));
        assert_eq!(abort(&state, Some(&charged()), None), Abort::Replay(charged()));
    }

    #[test]
    fn a_lease_is_respected_until_it_ends() {
        let recorded = Recorded::InProgress { lease_ends: 1000 };
        assert_eq!(charge(&State::Charging, &recorded, 999), Charge::Wait);
        assert_eq!(charge(&State::Charging, &recorded, 1000), Charge::TakeOver { lease_ended: 1000 });
    }

    #[test]
    fn an_abort_that_was_recorded_voids_again() {
        let reason = Some(Rejection::new("sold_out", "no seat").at(Step::Reserve(Leg::Flight)));
        let state = State::Aborted { reason: reason.clone() };
        let outcome = Outcome::Aborted { reason };
        assert_eq!(abort(&state, Some(&outcome), None), Abort::Void(outcome), "with the reason that it had first");
    }

    /// One payment and its provider: workers that may die between any two moves, and aborts between them.
    #[derive(Debug, Default)]
    struct Payment {
        state: State,
        charge: Recorded,
        abort: Option<Outcome>,
        provider_charged: bool,
        provider_voided: bool,
        workers_with_lease: Vec<bool>, // true once the provider has answered
        answered: Vec<Outcome>,
        now: i64,
    }

    impl Payment {
        fn charge(&mut self) {
            match charge(&self.state, &self.charge, self.now) {
                Charge::Lease | Charge::TakeOver { .. } => {
                    self.state = State::Charging;
                    self.charge = Recorded::InProgress { lease_ends: self.now + 10 };
                    self.workers_with_lease.push(false);
                }
                Charge::Wait => {}
                Charge::Void(outcome) => self.void(outcome),
                Charge::Answer(outcome) => self.answered.push(outcome),
            }
        }

        fn provider(&mut self) {
            if let Some(worker) = self.workers_with_lease.iter_mut().find(|done| !**done) {
                *worker = true;
                if !self.provider_voided {
                    self.provider_charged = true;
                }
            }
        }

        fn complete(&mut self) {
            if let Some(index) = self.workers_with_lease.iter().position(|done| *done) {
                self.workers_with_lease.remove(index);
                if self.state == State::Charging && self.provider_charged {
                    self.state = State::after(&charged()).unwrap();
                    self.charge = Recorded::Completed(charged());
                    self.answered.push(charged());
                } else {
                    self.charge();
                }
            }
        }

        fn abort(&mut self, dies_before_void: bool) {
            match abort(&self.state, self.abort.as_ref(), None) {
                Abort::Fence(outcome) => {
                    self.state = State::Aborted { reason: None };
                    self.abort = Some(outcome.clone());
                    if !dies_before_void {
                        self.void(outcome);
                    }
                }
                Abort::Void(outcome) => self.void(outcome),
                Abort::Record(outcome) => {
                    self.abort = Some(outcome.clone());
                    self.answered.push(outcome);
                }
                Abort::Replay(outcome) => self.answered.push(outcome),
            }
        }

        fn void(&mut self, outcome: Outcome) {
            self.provider_voided = true;
            self.provider_charged = false;
            self.answered.push(outcome);
        }
    }

    proptest! {
        /// Whatever happens in whatever order, nobody is ever told both *charged* and *aborted*, and what is told is so.
        #[test]
        fn one_decision(moves in prop::collection::vec(0..6u8, 0..40)) {
            let mut payment = Payment::default();
            for step in moves {
                match step {
                    0 => payment.charge(),
                    1 => payment.provider(),
                    2 => payment.complete(),
                    3 => payment.abort(false),
                    4 => payment.abort(true),
                    _ => payment.now += 6,
                }
                let told_charged = payment.answered.iter().any(|o| matches!(o, Outcome::Charged { .. }));
                let told_aborted = payment.answered.iter().any(|o| matches!(o, Outcome::Aborted { .. }));
                prop_assert!(!(told_charged && told_aborted), "{payment:?}");
                prop_assert!(!told_charged || payment.provider_charged, "{payment:?}");
                prop_assert!(!told_aborted || !payment.provider_charged, "{payment:?}");
            }
        }
    }

    #[test]
    fn the_total_is_the_sum() {
        assert_eq!(Prices::new([Money::eur(1), Money::eur(20), Money::eur(300)]).total(), Ok(Money::eur(321)));
        assert!(Prices::new([Money::eur(u64::MAX), Money::eur(1), Money::eur(1)]).total().is_err());
    }
}
