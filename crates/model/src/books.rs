//! What the tables hold on one booking, and what each participant does to them. Every function here is one request to
//! the tables, or one to the payment provider: nothing happens in between, and a worker may die before and after.

use std::sync::LazyLock;

use saga::{
    BookingId, Event, EventType, IdempotencyKey, Leg, LegRequest, Money, Outcome, PaymentReference, Plan, Reason,
    Rejection, Status, Step,
    header::{self, Move},
    payment::{Abort, Aborting, Charge, Charging, Prices, Recorded, State},
    reservation::{self, Cancel, Reserve, Stock},
};

use crate::Twin;

/// What a unit of anything costs.
const UNIT_PRICE: Money = Money::eur(100);

/// The booking that everything is about.
pub(crate) struct World {
    pub(crate) booking_id: BookingId,
    pub(crate) plan: Plan,
    pub(crate) total: Money,
    /// Each event that there can be. Why something went wrong is left out: nobody decides on it.
    events: Vec<Event>,
}

impl World {
    pub(crate) fn event(&self, event_type: EventType) -> &Event {
        let event = self.events.iter().find(|event| event.event_type() == event_type);
        event.unwrap_or_else(|| unreachable!("{event_type} is among them")) // they are made of all types
    }

    fn prices(&self) -> [Money; 3] {
        Leg::ALL.map(|leg| price(self.plan.trip.leg(leg)))
    }
}

pub(crate) fn price(leg: &LegRequest) -> Money {
    leg.price(UNIT_PRICE).unwrap_or_else(|error| unreachable!("some nights at 1 EUR: {error}"))
}

/// Any rejection of a reservation.
pub(crate) fn rejected() -> Rejection {
    Rejection::new("rejected", "")
}

/// Any reason why a charge is declined.
pub(crate) fn declined() -> Rejection {
    Rejection::new("declined", "")
}

/// Any technical reason: which one does not matter.
pub(crate) fn reason() -> Reason {
    Reason { step: None, code: "technical_failure".into(), detail: String::new() }
}

pub(crate) static WORLD: LazyLock<World> = LazyLock::new(|| {
    let samples = saga::event::samples();
    let plan = samples.iter().find_map(Event::plan).cloned();
    let plan = plan.unwrap_or_else(|| unreachable!("the first event of a booking has the plan"));
    let prices = Leg::ALL.map(|leg| price(plan.trip.leg(leg)));
    let total = Prices::new(prices).total().unwrap_or_else(|error| unreachable!("three small prices: {error}"));
    let events = samples.into_iter().map(|event| bare(&event, &plan, total)).collect();
    let key = IdempotencyKey::try_from("model").unwrap_or_else(|error| unreachable!("a good key: {error}"));
    World { booking_id: BookingId::derive("model", &key), plan, total, events }
});

/// The event without what nobody decides on, and with the amounts of this booking.
fn bare(event: &Event, plan: &Plan, total: Money) -> Event {
    let plan = plan.clone();
    match event.clone() {
        Event::Requested { .. } => Event::Requested { plan },
        Event::Reserved { leg, .. } => Event::Reserved { leg, price: price(plan.trip.leg(leg)), plan },
        Event::Rejected { leg, .. } => Event::Rejected { leg, rejection: rejected(), plan },
        Event::Charged { .. } => Event::Charged { amount: total },
        Event::Aborted { .. } => Event::Aborted { reason: None, trip: plan.trip },
        Event::Cancelled { leg, .. } => Event::Cancelled { leg, reason: None },
        Event::Confirmed { .. } => Event::Confirmed { total },
        Event::Failed { .. } => Event::Failed { reason: None },
    }
}

/// The type of an event that somebody says. It must be the one event of its type that this booking knows: then the type
/// says it all.
pub(crate) fn said(event: &Event) -> EventType {
    let (world, event_type) = (&*WORLD, event.event_type());
    let amounts_are_right = match event {
        Event::Reserved { leg, price: said, .. } => *said == price(world.plan.trip.leg(*leg)),
        Event::Charged { amount: total } | Event::Confirmed { total } => *total == world.total,
        _ => true,
    };
    assert!(amounts_are_right, "{event:?} is about another amount");
    assert!(event.plan().is_none_or(|plan| *plan == world.plan), "{event:?} is about another trip");
    assert_eq!(bare(event, &world.plan, world.total), *world.event(event_type));
    event_type
}

/// What the tables, and the payment provider, hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Books {
    /// How many units of each leg are there, of one or none that was put on sale.
    pub available: [i8; 3],
    seeded: [i8; 3],
    /// What is recorded of `reserve`.
    pub reserve: [Option<Outcome>; 3],
    /// What is recorded of `cancel`.
    pub cancel: [Option<Outcome>; 3],
    /// Which prices payment knows.
    pub priced: [bool; 3],
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
    /// Which legs booking knows to be given back.
    pub given_back: [bool; 3],
    /// Somebody asked for an end that contradicts the one that there was.
    pub contradiction: bool,
}

const fn at(leg: Leg) -> usize {
    match leg {
        Leg::Flight => 0,
        Leg::Hotel => 1,
        Leg::Car => 2,
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

/// An outcome without what nobody decides on.
fn plain(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Rejected(_) => Outcome::Rejected(rejected()),
        Outcome::Declined(_) => Outcome::Declined(declined()),
        Outcome::Aborted { .. } => Outcome::Aborted { reason: None },
        Outcome::Failed { .. } => Outcome::Failed { reason: None },
        outcome => outcome,
    }
}

impl Books {
    /// A booking that was accepted, of which so many units of each leg are on sale (one or none), paid with a card that
    /// is declined or not.
    pub const fn accepted(on_sale: [i8; 3], declines: bool) -> Self {
        Self {
            available: on_sale,
            seeded: on_sale,
            reserve: [const { None }; 3],
            cancel: [const { None }; 3],
            priced: [false; 3],
            payment: State::Collecting,
            charge: Recorded::Absent,
            abort: None,
            times_charged: 0,
            voided: false,
            declines,
            status: Status::Pending,
            ended: [false; 2],
            given_back: [false; 3],
            contradiction: false,
        }
    }

    /// The bookings that differ in what the checker has to know. Flight, hotel and car are alike in everything, so it is
    /// enough that the first ones are sold out.
    pub fn all() -> Vec<Self> {
        let on_sale = [[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]];
        let charged = on_sale.map(|on_sale| Self::accepted(on_sale, false));
        charged.into_iter().chain([Self::accepted([1, 1, 1], true)]).collect()
    }

    /// A seller carries out `reserve`: the loop of the handler, of which only the last transaction does anything.
    pub fn reserve(&mut self, leg: Leg) -> Outcome {
        let (request, at) = (WORLD.plan.trip.leg(leg), at(leg));
        let mut stock = Stock::Enough;
        loop {
            match reservation::reserve(request, self.reserve[at].as_ref(), &stock, Some(UNIT_PRICE)) {
                Reserve::Replay(outcome) => return outcome,
                Reserve::Take(_) if self.available[at] < 1 => {
                    stock = Stock::SoldOut(request.lines().swap_remove(0)); // every leg needs a line
                }
                Reserve::Take(outcome) => {
                    self.available[at] -= 1;
                    self.reserve[at] = Some(outcome.clone());
                    return outcome;
                }
                Reserve::Reject(outcome) => {
                    let outcome = plain(outcome);
                    self.reserve[at] = Some(outcome.clone());
                    return outcome;
                }
            }
        }
    }

    /// The first of the two writes of [`Twin::EffectAndRecordApart`].
    pub fn take_unrecorded(&mut self, leg: Leg) {
        let at = at(leg);
        if self.reserve[at].is_none() && self.available[at] > 0 {
            self.available[at] -= 1;
        }
    }

    /// A seller carries out `cancel`.
    pub fn cancel(&mut self, leg: Leg, twin: Option<Twin>) -> Outcome {
        let at = at(leg);
        let outcome = match reservation::cancel(self.reserve[at].as_ref(), self.cancel[at].as_ref()) {
            Cancel::Replay(outcome) => return outcome,
            Cancel::GiveBack(outcome) => {
                self.available[at] += 1;
                outcome
            }
            Cancel::Tombstone(outcome) => {
                if twin != Some(Twin::NoTombstone) {
                    self.reserve[at] = Some(plain(reservation::tombstone()));
                }
                outcome
            }
            Cancel::Record(outcome) => outcome,
        };
        self.cancel[at] = Some(outcome.clone());
        outcome
    }

    /// Payment notes a price, and says which prices it knows.
    pub fn collect_price(&mut self, leg: Leg, twin: Option<Twin>) -> Option<Prices> {
        self.priced[at(leg)] = true;
        let known = Leg::ALL.into_iter().filter(|leg| self.priced[at(*leg)] || twin == Some(Twin::ChargeAtFirst));
        Prices::of(&known.zip(WORLD.prices()).collect::<Vec<_>>())
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
        let charged = || Outcome::Charged { amount: WORLD.total, charge_id: "ch".into() };
        let is_charged = self.times_charged > 0 && !self.voided;
        if provider == Provider::IsSilent {
            return None;
        }
        let answer = if find_first && is_charged && twin != Some(Twin::NewReferencePerAttempt) {
            charged()
        } else if self.voided || self.declines {
            Outcome::Declined(declined())
        } else {
            if !is_charged || twin == Some(Twin::NewReferencePerAttempt) {
                self.times_charged += 1;
            }
            charged()
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

    /// Booking notes that a leg is given back, and says whether all are.
    pub fn collect_given_back(&mut self, leg: Leg) -> bool {
        self.given_back[at(leg)] = true;
        let legs: Vec<_> = Leg::ALL.into_iter().filter(|leg| self.given_back[at(*leg)]).collect();
        header::all_given_back(&legs)
    }

    /// Booking carries out `confirm`, `fail` or `park`. No answer: what is recorded contradicts it.
    pub fn end(&mut self, step: Step) -> Option<Outcome> {
        let outcome = match step {
            Step::Confirm => Outcome::Confirmed { total: WORLD.total },
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

    /// Whether a leg's reservation stands: it was made, and not cancelled.
    pub fn is_reserved(&self, leg: Leg) -> bool {
        matches!(self.reserve[at(leg)], Some(Outcome::Reserved { .. })) && self.cancel[at(leg)].is_none()
    }

    /// How often the traveller has paid, all things considered.
    pub const fn paid(&self) -> u8 {
        if self.voided { 0 } else { self.times_charged }
    }

    /// The first invariant: every leg reserved once, charged once, the amount being the sum of the prices.
    pub fn is_confirmed_only_with_all(&self) -> bool {
        let decided = matches!(&self.payment, State::Charged { amount, .. } if *amount == WORLD.total);
        self.status != Status::Confirmed
            || (Leg::ALL.into_iter().all(|leg| self.is_reserved(leg)) && self.paid() == 1 && decided)
    }

    /// The second invariant: nothing reserved, nothing charged.
    pub fn is_failed_only_with_nothing(&self) -> bool {
        self.status != Status::Failed || (!Leg::ALL.into_iter().any(|leg| self.is_reserved(leg)) && self.paid() == 0)
    }

    /// The third invariant: stock is never below zero, and stock and reservations are what was put on sale.
    pub fn stock_adds_up(&self) -> bool {
        Leg::ALL.into_iter().all(|leg| {
            let reserved = i8::from(self.is_reserved(leg));
            self.available[at(leg)] >= 0 && self.available[at(leg)] + reserved == self.seeded[at(leg)]
        })
    }

    /// Whether the booking has come to its end.
    pub const fn has_ended(&self) -> bool {
        self.status.has_ended()
    }

    /// Whoever starts the booking for an operator claims it: it is pending again, unless it has ended.
    pub(crate) const fn redrive(&mut self) {
        if !self.has_ended() {
            self.status = Status::Pending;
        }
    }

    /// What is the case of a leg, as a value to sort by.
    pub(crate) fn leg_code(&self, leg: usize) -> impl Ord + Copy + use<> {
        let name = |outcome: &Option<Outcome>| outcome.as_ref().map(Outcome::name);
        let released = matches!(self.cancel[leg], Some(Outcome::Cancelled { released: true }));
        let (reserve, cancel) = (name(&self.reserve[leg]), name(&self.cancel[leg]));
        (self.seeded[leg], self.available[leg], reserve, cancel, released, self.priced[leg], self.given_back[leg])
    }

    /// Puts what is the case of the legs into another order.
    pub(crate) fn arrange(&mut self, legs: [usize; 3]) {
        self.seeded = legs.map(|leg| self.seeded[leg]);
        self.available = legs.map(|leg| self.available[leg]);
        // But for the price: that is the price of the place.
        let mut prices = WORLD.prices().into_iter();
        self.reserve = legs.map(|leg| match (self.reserve[leg].clone(), prices.next()) {
            (Some(Outcome::Reserved { .. }), Some(price)) => Some(Outcome::Reserved { price }),
            (outcome, _) => outcome,
        });
        self.cancel = legs.map(|leg| self.cancel[leg].clone());
        self.priced = legs.map(|leg| self.priced[leg]);
        self.given_back = legs.map(|leg| self.given_back[leg]);
    }

    /// Whether a cancel came before its reserve, which will be refused.
    pub fn has_tombstone(&self) -> bool {
        Leg::ALL.into_iter().any(|leg| {
            let at = at(leg);
            self.cancel[at].is_some()
                && self.available[at] == 1
                && matches!(self.reserve[at], Some(Outcome::Rejected(_)))
        })
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

/// Whether a worker is about to ask the provider again, which it does not if it has no time left.
pub(crate) fn needs_time(charging: &Charging) -> bool {
    let [in_time, too_late] = [0, i64::MAX].map(|now| charging.next(now));
    matches!((in_time, too_late), (Charge::Ask { .. }, Charge::Release { .. }))
}

/// What a worker is about to do, in words.
pub(crate) const fn words(charge: &Charge) -> &'static str {
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

/// The same for a worker that aborts.
pub(crate) const fn words_of_abort(abort: &Abort) -> &'static str {
    match abort {
        Abort::Fence(_) => "puts up the fence against a charge",
        Abort::Void => "voids at the provider, and answers",
        Abort::Record(_) => "records what is decided, and answers",
        Abort::Answer(_) => "answers",
    }
}

/// The prices of all legs.
pub(crate) fn prices() -> Prices {
    Prices::new(WORLD.prices())
}

/// The reference of the payment.
pub(crate) fn reference() -> &'static PaymentReference {
    &WORLD.plan.payment.reference
}
