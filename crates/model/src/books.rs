//! What the tables hold on one booking, and what each participant does to them. Every function here is one request to
//! the tables, or one to the payment provider: nothing happens in between, and a worker may die before and after.

use std::collections::BTreeMap;

use saga::{
    Outcome, PartName, PartNames, Status, Step,
    header::{self, Move},
    payment::{Abort, Aborting, Charge, Charging, Prices, Recorded, State},
    reservation::{self, Cancel, Reserve, Stock},
};

use crate::{
    MAX_PARTS, Scope, Twin,
    scope::{PARTS, declined, place_of, plain, reason, rejected},
};

/// What the tables, and the payment provider, hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Books {
    scope: Scope,
    /// What is recorded of each part; of those that the plan does not have, nothing.
    parts: [PartBooks; MAX_PARTS],
    /// What payment has decided.
    pub payment: State,
    /// What is recorded of `charge`.
    pub charge: Recorded,
    /// What is recorded of `abort`.
    pub abort: Option<Outcome>,
    /// How often the provider has charged.
    pub times_charged: u8,
    /// Whether the provider was told to void.
    pub voided: bool,
    declines: bool,
    /// The header.
    pub status: Status,
    ended: [bool; 2],
    /// Somebody asked for an end that contradicts the one that there was.
    pub contradiction: bool,
    /// How many `*.reserved` and `*.cancelled` were counted: only a twin counts.
    counted: [u8; 2],
}

/// What is recorded of one part. It sorts, so that parts that are alike can be put in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PartBooks {
    /// Whether nobody sells it.
    is_unsold: bool,
    /// Whether payment's program was built before there was this part: only in a twin.
    is_new: bool,
    /// How many units were put on sale: one or none.
    seeded: i8,
    available: i8,
    reserve: Option<Reserved>,
    /// What is recorded of `cancel`: whether there was something to give back.
    cancel: Option<bool>,
    /// Whether payment knows its price.
    is_priced: bool,
    /// Whether booking knows that it is cancelled.
    is_cancelled: bool,
}

/// What is recorded of `reserve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Reserved {
    Reserved,
    Rejected,
}

impl PartBooks {
    fn reserve(&self, scope: Scope, part: usize) -> Option<Outcome> {
        self.reserve.map(|recorded| match recorded {
            Reserved::Reserved => scope.booking().reserved(part),
            Reserved::Rejected => Outcome::Rejected(rejected()),
        })
    }

    /// Whether its reservation stands: it was made, and not cancelled.
    fn stands(&self) -> bool {
        self.reserve == Some(Reserved::Reserved) && self.cancel.is_none()
    }
}

/// What the payment provider does when it is asked to charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// It does, and answers.
    Answers,
    /// It does, and does not answer.
    ChargesSilently,
    /// It does nothing, and does not answer.
    IsSilent,
}

impl Books {
    /// A booking that was accepted, of which so many units of each part are on sale (one or none), paid with a card that
    /// is declined or not.
    pub fn accepted(scope: Scope, on_sale: &[i8], declines: bool) -> Self {
        assert_eq!(on_sale.len(), scope.parts());
        let mut parts = [PartBooks::default(); MAX_PARTS];
        for (place, (part, units)) in parts.iter_mut().zip(on_sale).enumerate() {
            *part = PartBooks { seeded: *units, available: *units, is_unsold: !scope.sells(place), ..*part };
        }
        Self {
            scope,
            parts,
            payment: State::Collecting,
            charge: Recorded::Absent,
            abort: None,
            times_charged: 0,
            voided: false,
            declines,
            status: Status::Pending,
            ended: [false; 2],
            contradiction: false,
            counted: [0; 2],
        }
    }

    /// The bookings that differ in what the checker has to know. The parts that somebody sells are alike in everything, so
    /// it is enough that the first ones are sold out.
    pub(crate) fn all(scope: Scope, twin: Option<Twin>) -> Vec<Self> {
        let sold = (0..scope.parts()).filter(|part| scope.sells(*part)).count();
        let on_sale = |sold_out| (0..scope.parts()).map(|part| i8::from((sold_out..sold).contains(&part))).collect();
        let accepted = |sold_out, declines| {
            let on_sale: Vec<_> = on_sale(sold_out);
            let mut books = Self::accepted(scope, &on_sale, declines);
            books.parts[scope.parts() - 1].is_new = twin == Some(Twin::ChargeWithoutNames);
            books
        };
        (0..=sold).map(|sold_out| accepted(sold_out, false)).chain([accepted(0, true)]).collect()
    }

    /// The parts of the plan.
    fn parts(&self) -> &[PartBooks] {
        &self.parts[..self.scope.parts()]
    }

    /// How many units of each part are there.
    pub fn available(&self) -> Vec<i8> {
        self.parts().iter().map(|part| part.available).collect()
    }

    /// The names of the parts of which this is true.
    fn names(&self, of: impl Fn(&PartBooks) -> bool) -> PartNames {
        PARTS.into_iter().zip(self.parts()).filter(|(_, part)| of(part)).map(|(name, _)| name).collect()
    }

    /// A seller carries out `reserve`: the loop of the handler, of which only the last transaction does anything.
    pub fn reserve(&mut self, part: PartName) -> Outcome {
        let place = place_of(part);
        let quote = &self.scope.booking().quotes[place];
        let recorded = self.parts[place].reserve(self.scope, place);
        let mut stock = Stock::Enough;
        loop {
            match reservation::reserve(Ok(quote), recorded.as_ref(), &stock) {
                Reserve::Replay(outcome) => return outcome,
                Reserve::Take(_) if self.parts[place].available < 1 => {
                    stock = Stock::SoldOut(quote.lines[0].clone());
                }
                Reserve::Take(outcome) => {
                    assert_eq!(outcome, self.scope.booking().reserved(place));
                    self.parts[place].available -= 1;
                    self.parts[place].reserve = Some(Reserved::Reserved);
                    return outcome;
                }
                Reserve::Reject(outcome) => {
                    self.parts[place].reserve = Some(Reserved::Rejected);
                    return plain(outcome);
                }
            }
        }
    }

    /// The first of the two writes of [`Twin::EffectAndRecordApart`].
    pub(crate) fn take_unrecorded(&mut self, part: PartName) {
        let part = &mut self.parts[place_of(part)];
        if part.reserve.is_none() && part.available > 0 {
            part.available -= 1;
        }
    }

    /// A seller carries out `cancel`.
    pub fn cancel(&mut self, part: PartName, twin: Option<Twin>) -> Outcome {
        let place = place_of(part);
        let reserve = self.parts[place].reserve(self.scope, place);
        let part = &mut self.parts[place];
        let recorded = part.cancel.map(|released| Outcome::Cancelled { released });
        let outcome = match reservation::cancel(reserve.as_ref(), recorded.as_ref()) {
            Cancel::Replay(outcome) => return outcome,
            Cancel::GiveBack(outcome) => {
                part.available += 1;
                outcome
            }
            Cancel::Tombstone(outcome) => {
                if twin != Some(Twin::NoTombstone) {
                    assert!(matches!(reservation::tombstone(), Outcome::Rejected(_)));
                    part.reserve = Some(Reserved::Rejected);
                }
                outcome
            }
            Cancel::Record(outcome) => outcome,
        };
        part.cancel = Some(outcome == Outcome::Cancelled { released: true });
        outcome
    }

    /// Payment records the price of a part, and says which prices it knows, if those are the plan's.
    pub fn collect_price(&mut self, part: PartName, twin: Option<Twin>) -> Option<Prices> {
        self.parts[place_of(part)].is_priced = true;
        let booking = self.scope.booking();
        let known = match twin {
            Some(Twin::ChargeAtFirst) => return Some(booking.prices.clone()),
            Some(Twin::ChargeByCount) => return self.counts(0).then(|| booking.prices.clone()),
            Some(Twin::ChargeWithoutNames) => {
                let is_complete = self.names(|part| part.is_priced && !part.is_new) == self.names(|part| !part.is_new);
                return is_complete.then(|| booking.prices.clone());
            }
            _ => self.names(|part| part.is_priced),
        };
        let known: BTreeMap<_, _> =
            known.into_iter().map(|name| (name, booking.quotes[place_of(name)].price)).collect();
        Prices::of(known, &booking.plan.names())
    }

    /// Counts one more event of a kind, and says whether there are as many as the plan has parts.
    fn counts(&mut self, kind: usize) -> bool {
        let parts = self.scope.parts() as u8; // at most four
        self.counted[kind] = parts.min(self.counted[kind] + 1);
        self.counted[kind] == parts
    }

    /// A worker that charges makes its next move. `lease_has_ended` says whether an earlier worker's lease has.
    pub fn charge(
        &mut self,
        charging: Charging,
        lease_has_ended: bool,
        provider: Provider,
        twin: Option<Twin>,
    ) -> Charging {
        let last = match self.charge {
            Recorded::InProgress { lease_ends } => lease_ends,
            _ => 0,
        };
        match charging.next(if lease_has_ended { i64::MAX } else { 0 }) {
            Charge::Lease { earlier: None } => {
                let (is_collecting, is_absent) = (self.payment == State::Collecting, self.charge == Recorded::Absent);
                if !is_collecting || !is_absent {
                    return self.charge_found(is_collecting, is_absent);
                }
                self.payment = State::Charging;
                self.charge = Recorded::InProgress { lease_ends: 1 };
                Charging::leased(1, 1, None)
            }
            Charge::Lease { earlier: Some(ended) } => {
                let is_charging = self.payment == State::Charging;
                let is_the_last = self.charge == (Recorded::InProgress { lease_ends: ended });
                if !is_charging || !is_the_last {
                    return self.charge_found(is_charging, is_the_last);
                }
                self.charge = Recorded::InProgress { lease_ends: last + 1 };
                Charging::leased(last + 1, last + 1, Some(ended))
            }
            Charge::Ask { find_first, .. } => charging.answered(self.provider(find_first, provider, twin)),
            Charge::Complete { outcome, decision } => {
                let is_charging = self.payment == State::Charging;
                let is_in_progress = matches!(self.charge, Recorded::InProgress { .. });
                if (!is_charging || !is_in_progress) && twin != Some(Twin::ChargeWithoutGuard) {
                    return self.charge_found(is_charging, is_in_progress);
                }
                self.payment = decision;
                self.charge = Recorded::Completed(plain(outcome));
                charging.completed()
            }
            // It only lets the next worker come sooner, and here leases end at any time.
            Charge::Release { .. } => Charging::released(),
            Charge::Void => {
                self.voided = true;
                charging.voided()
            }
            Charge::Answer(outcome) => Charging::Done(Some(outcome)),
            Charge::ComeBack => Charging::Done(None),
        }
    }

    /// What a refused transaction tells: of each item whose own condition did not hold what is there, of the other
    /// nothing.
    fn charge_found(&self, state_is_as_known: bool, record_is_as_known: bool) -> Charging {
        Charging::found(
            if state_is_as_known { State::Collecting } else { self.payment.clone() },
            if record_is_as_known { Recorded::Absent } else { self.charge.clone() },
        )
    }

    fn provider(&mut self, find_first: bool, provider: Provider, twin: Option<Twin>) -> Option<Outcome> {
        let booking = self.scope.booking();
        let is_charged = self.times_charged > 0 && !self.voided;
        if provider == Provider::IsSilent {
            return None;
        }
        let answer = if find_first && is_charged && twin != Some(Twin::NewReferencePerAttempt) {
            booking.charged()
        } else if self.voided || self.declines {
            Outcome::Declined(declined())
        } else {
            if !is_charged || twin == Some(Twin::NewReferencePerAttempt) {
                self.times_charged += 1;
            }
            booking.charged()
        };
        Some(answer).filter(|_| provider == Provider::Answers)
    }

    /// A worker that aborts makes its next move.
    pub fn abort(&mut self, aborting: Aborting, twin: Option<Twin>) -> Aborting {
        match aborting.next() {
            Abort::Fence(outcome) => {
                let is_undecided = matches!(self.payment, State::Collecting | State::Charging)
                    || twin == Some(Twin::AbortWithoutGuard);
                if !is_undecided || self.abort.is_some() {
                    let state = if is_undecided { State::Collecting } else { self.payment.clone() };
                    return aborting.found(state, &self.abort.clone().map_or(Recorded::Absent, Recorded::Completed));
                }
                self.payment = State::Aborted { reason: None };
                self.abort = Some(plain(outcome));
                aborting.fenced()
            }
            Abort::Void => {
                self.voided = true;
                aborting.voided()
            }
            Abort::Record(outcome) => Aborting::recorded(self.abort.get_or_insert_with(|| plain(outcome)).clone()),
            Abort::Answer(outcome) => Aborting::recorded(plain(outcome)),
        }
    }

    /// Booking records that a part is cancelled, and says whether all are.
    pub fn collect_cancelled(&mut self, part: PartName, twin: Option<Twin>) -> bool {
        self.parts[place_of(part)].is_cancelled = true;
        if twin == Some(Twin::FailByCount) {
            return self.counts(1);
        }
        header::is_all_cancelled(&self.names(|part| part.is_cancelled), &self.scope.booking().plan.names())
    }

    /// Booking carries out `confirm`, `fail` or `park`. No answer: what is recorded contradicts it.
    pub fn end(&mut self, step: Step) -> Option<Outcome> {
        let outcome = match step {
            Step::Confirm => Outcome::Confirmed { total: self.scope.booking().total },
            Step::Fail => Outcome::Failed { reason: None },
            _ => Outcome::Parked { reason: reason() },
        };
        let recorded = match step {
            Step::Confirm => self.ended[0],
            Step::Fail => self.ended[1],
            _ => false,
        };
        match header::end(step, self.status, recorded) {
            Move::Replay => Some(outcome),
            Move::Contradiction => {
                self.contradiction = true;
                None
            }
            Move::End(status) => {
                self.status = status;
                match step {
                    Step::Confirm => self.ended[0] = true,
                    Step::Fail => self.ended[1] = true,
                    _ => {}
                }
                Some(outcome)
            }
        }
    }

    /// How often the customer has paid, all things considered.
    pub const fn paid(&self) -> u8 {
        if self.voided { 0 } else { self.times_charged }
    }

    /// The first invariant: every part reserved once, charged once, the amount being the sum of the prices.
    pub(crate) fn is_confirmed_only_with_all(&self) -> bool {
        let total = self.scope.booking().total;
        let decided = matches!(&self.payment, State::Charged { amount, .. } if *amount == total);
        self.status != Status::Confirmed || (self.parts().iter().all(PartBooks::stands) && self.paid() == 1 && decided)
    }

    /// The second invariant: nothing reserved, nothing charged.
    pub(crate) fn is_failed_only_with_nothing(&self) -> bool {
        self.status != Status::Failed || (!self.parts().iter().any(PartBooks::stands) && self.paid() == 0)
    }

    /// The third invariant: stock is never below zero, and stock and reservations are what was put on sale.
    pub(crate) fn stock_adds_up(&self) -> bool {
        let adds_up = |part: &PartBooks| part.available >= 0 && part.available + i8::from(part.stands()) == part.seeded;
        self.parts().iter().all(adds_up)
    }

    /// Whether the booking has come to its end.
    pub(crate) const fn has_ended(&self) -> bool {
        self.status.has_ended()
    }

    /// Whoever starts the booking for an operator claims it: it is pending again, unless it has ended.
    pub(crate) const fn redrive(&mut self) {
        if !self.has_ended() {
            self.status = Status::Pending;
        }
    }

    /// What is recorded of a part, as a value to sort by.
    pub(crate) const fn of_part(&self, part: usize) -> PartBooks {
        self.parts[part]
    }

    /// Puts what is recorded of the parts into another order. Prices are those of the places.
    pub(crate) fn arrange(&mut self, order: &[usize]) {
        let parts = self.parts;
        for (to, from) in order.iter().enumerate() {
            self.parts[to] = parts[*from];
        }
    }

    /// Whether a cancel came before its reserve, which will be refused.
    pub(crate) fn has_tombstone(&self) -> bool {
        let is_tombstone =
            |part: &PartBooks| part.cancel.is_some() && part.available == 1 && part.reserve == Some(Reserved::Rejected);
        self.parts().iter().any(is_tombstone)
    }

    /// Whether the reconciler drives the booking: it is in the index of what is open.
    pub(crate) const fn is_driven(&self) -> bool {
        matches!(self.status, Status::Pending)
    }

    /// The number of leases there have been.
    pub(crate) const fn leases(&self) -> i64 {
        match self.charge {
            Recorded::InProgress { lease_ends } => lease_ends,
            _ => 0,
        }
    }
}
