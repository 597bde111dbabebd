//! A whole saga in one file: a trip that is confirmed and one that is compensated, orchestrated and choreographed, in
//! memory and without AWS. Read this first.
//!
//! ```text
//! cargo run --release -p travel --example trip
//! ```
//!
//! The decisions are those of the kit, which the Lambda functions carry out too. What is simple here is what surrounds
//! them: the tables are maps, nothing is lost and nobody crashes. Where a function commits a move to DynamoDB on the
//! condition that nothing has changed, this file just writes.

#![allow(clippy::print_stdout, clippy::unwrap_used)] // an example prints, and stops at what cannot be

use std::collections::{BTreeMap, HashMap, VecDeque};

use jiff::{Span, Timestamp, civil};
use saga::{
    BookingId, Catalogue, Envelope, Event, IdempotencyKey, Outcome, Part, PartName, PartNames, Parts, PaymentReference,
    Plan, Price, Reason, Rejection, Status, Step, StockLine,
    command::Action,
    header::{self, Move},
    payment::{Abort, Aborting, Charge, Charging, Prices, Recorded, State},
    reaction::{self, BookingReaction, PaymentReaction},
    reservation::{self, Cancel, Reserve, Stock},
};
use travel::{CAR, FLIGHT, HOTEL};

const DAY: civil::Date = civil::date(2027, 3, 1);

/// What each service keeps. On AWS each has tables of its own.
#[derive(Default)]
struct World {
    /// The sellers' stock: how many units of each line are left.
    stock: HashMap<(String, Option<civil::Date>), u32>,
    /// The journal: what each step answered. A seller's item is its reservation.
    journal: BTreeMap<Step, Outcome>,
    /// Payment's decision.
    decision: State,
    /// What payment and booking have collected so far.
    prices: BTreeMap<PartName, Price>,
    cancelled: PartNames,
    /// The header's status.
    status: Option<Status>,
    /// Whether the card is good.
    card_is_good: bool,
}

impl World {
    fn new(card_is_good: bool) -> Self {
        let mut stock = HashMap::new();
        for part_type in [FLIGHT, HOTEL, CAR] {
            for (product, offer) in Catalogue::read(part_type.price_list).unwrap().offers() {
                let days = (0..4).map(|day| DAY.saturating_add(Span::new().days(day)));
                stock.extend(days.map(|day| ((product.to_owned(), Some(day)), offer.units)));
            }
        }
        Self { stock, card_is_good, status: Some(Status::Pending), ..Self::default() }
    }

    /// A service carries out a command, and answers with the outcome.
    fn carry_out(&mut self, action: &Action) -> Outcome {
        let outcome = match action {
            Action::Reserve(part) => self.reserve(part),
            Action::Cancel(part) => self.cancel(part),
            Action::Charge { prices, .. } => self.charge(prices),
            Action::Abort { reason, .. } => self.abort(reason.clone()),
            Action::Confirm { total } => self.end(Step::Confirm, Outcome::Confirmed { total: *total }),
            Action::Fail { reason } => self.end(Step::Fail, Outcome::Failed { reason: reason.clone() }),
            Action::Park { reason } => self.end(Step::Park, Outcome::Parked { reason: reason.clone() }),
        };
        println!("    {:16} {}", action.step().to_string(), describe(&outcome));
        outcome
    }

    // ---------------------------------------------------------------- a seller
    fn reserve(&mut self, part: &Part) -> Outcome {
        let part_type = travel::part_type(part.name).unwrap();
        let catalogue = Catalogue::read(part_type.price_list).unwrap();
        let quote = reservation::quote(part_type, &catalogue, &part.contents);
        let step = Step::Reserve(part.name);
        let mut stock = Stock::Enough;
        loop {
            match reservation::reserve(quote.as_ref(), self.journal.get(&step), &stock) {
                Reserve::Replay(outcome) => return outcome,
                Reserve::Reject(outcome) => return self.record(step, outcome),
                Reserve::Take(outcome) => {
                    let lines = &quote.as_ref().unwrap().lines; // there is no such decision without a quote
                    if let Some(line) = lines.iter().find(|line| *self.left(line) < line.units) {
                        stock = Stock::SoldOut(line.clone());
                        continue;
                    }
                    lines.iter().for_each(|line| *self.left(line) -= line.units);
                    return self.record(step, outcome);
                }
            }
        }
    }

    fn record(&mut self, step: Step, outcome: Outcome) -> Outcome {
        self.journal.insert(step, outcome.clone());
        outcome
    }

    fn left(&mut self, line: &StockLine) -> &mut u32 {
        self.stock.get_mut(&(line.product.clone(), line.date)).unwrap()
    }

    fn cancel(&mut self, part: &Part) -> Outcome {
        let (reserve, cancel) = (Step::Reserve(part.name), Step::Cancel(part.name));
        let outcome = match reservation::cancel(self.journal.get(&reserve), self.journal.get(&cancel)) {
            Cancel::Replay(outcome) => return outcome,
            Cancel::GiveBack(outcome) => {
                let request = travel::part_type(part.name).unwrap().request(&part.contents).unwrap();
                request.lines().iter().for_each(|line| *self.left(line) += line.units);
                outcome
            }
            // A late reserve finds this, and is refused.
            Cancel::Tombstone(outcome) => {
                self.record(reserve, reservation::tombstone());
                outcome
            }
            Cancel::Record(outcome) => outcome,
        };
        self.record(cancel, outcome)
    }

    // ---------------------------------------------------------------- payment, which decides
    fn charge(&mut self, prices: &Prices) -> Outcome {
        let total = prices.total().unwrap().payable().unwrap();
        let mut charging = Charging::default();
        loop {
            charging = match charging.next(0) {
                Charge::Lease { earlier: None } if self.decision == State::Collecting => {
                    self.decision = State::Charging;
                    Charging::leased(1, 1, None)
                }
                Charge::Lease { .. } => Charging::found(self.decision.clone(), Recorded::Absent),
                Charge::Ask { .. } if self.card_is_good => {
                    charging.answered(Some(Outcome::Charged { amount: total, charge_id: "ch_1".into() }))
                }
                Charge::Ask { .. } => {
                    charging.answered(Some(Outcome::Declined(Rejection::new("card_declined", "the card was declined"))))
                }
                Charge::Complete { outcome, decision } => {
                    self.decision = decision;
                    self.journal.insert(Step::Charge, outcome);
                    charging.completed()
                }
                Charge::Void => charging.voided(),
                Charge::Answer(outcome) => return outcome,
                Charge::Release { .. } | Charge::ComeBack => panic!("nobody else is at work here"),
            };
        }
    }

    fn abort(&mut self, reason: Option<Reason>) -> Outcome {
        let mut aborting = Aborting::begin(reason);
        loop {
            aborting = match aborting.next() {
                Abort::Fence(outcome) if matches!(self.decision, State::Collecting | State::Charging) => {
                    let Outcome::Aborted { reason } = &outcome else { panic!("a fence aborts") };
                    self.decision = State::Aborted { reason: reason.clone() };
                    self.journal.insert(Step::Abort, outcome);
                    aborting.fenced()
                }
                Abort::Fence(_) => aborting.found(self.decision.clone(), &Recorded::Absent),
                Abort::Void => aborting.voided(), // nothing was charged
                Abort::Record(outcome) => {
                    Aborting::recorded(self.journal.entry(Step::Abort).or_insert(outcome).clone())
                }
                Abort::Answer(outcome) => return outcome,
            };
        }
    }

    // ---------------------------------------------------------------- booking
    fn end(&mut self, step: Step, outcome: Outcome) -> Outcome {
        match header::end(step, self.status.unwrap(), self.journal.contains_key(&step)) {
            Move::End(status) => self.status = Some(status),
            Move::Replay => {}
            Move::Contradiction => panic!("payment decides once"),
        }
        self.record(step, outcome)
    }
}

/// The conductor: it knows the flow, and asks each service in turn.
fn conduct(world: &mut World, plan: &Plan) {
    let reference = plan.payment.reference.clone();
    let parts = || plan.names().into_iter().map(|name| plan.parts.get(name).unwrap());
    let (mut prices, mut reason) = (BTreeMap::new(), None);
    for part in parts() {
        match world.carry_out(&Action::Reserve(part.clone())) {
            Outcome::Reserved { price } => drop(prices.insert(part.name, price)),
            Outcome::Rejected(rejection) => reason = reason.or(Some(rejection.at(Step::Reserve(part.name)))),
            other => panic!("a seller does not answer {other:?}"),
        }
    }
    let decision = match Prices::of(prices, &plan.names()) {
        Some(prices) => world.carry_out(&Action::Charge { reference, prices }),
        None => world.carry_out(&Action::Abort { reference, reason: reason.clone() }),
    };
    if let Outcome::Charged { amount, .. } = decision {
        world.carry_out(&Action::Confirm { total: amount }); // after the pivot: only forwards
        return;
    }
    if let Outcome::Declined(rejection) = decision {
        reason = Some(rejection.at(Step::Charge));
    }
    for part in parts() {
        world.carry_out(&Action::Cancel(part));
    }
    world.carry_out(&Action::Fail { reason });
}

/// The dance: each service reacts to what it hears of, and publishes what came of it. Nobody knows the flow.
fn dance(world: &mut World, booking_id: BookingId, plan: &Plan) {
    let mut topic =
        VecDeque::from([Envelope::requested(booking_id.clone(), plan.clone(), Timestamp::UNIX_EPOCH, None)]);
    while let Some(cause) = topic.pop_front() {
        println!("  {}", cause.event.event_type());
        let mut actions: Vec<_> =
            [FLIGHT, HOTEL, CAR].iter().filter_map(|seller| reaction::of_seller(seller.name, &cause.event)).collect();
        actions.extend(payment_reacts(world, &cause.event));
        actions.extend(booking_reacts(world, plan, &cause.event));
        for action in actions {
            let outcome = world.carry_out(&action);
            topic.extend(cause.after(action.step(), &outcome, Timestamp::UNIX_EPOCH));
        }
    }
}

fn payment_reacts(world: &mut World, event: &Event) -> Option<Action> {
    match reaction::of_payment(event)? {
        PaymentReaction::Abort { reference, reason } => Some(Action::Abort { reference, reason: Some(reason) }),
        PaymentReaction::Collect { part, price, plan, reference } => {
            world.prices.insert(part, price);
            let prices = Prices::of(world.prices.clone(), &plan)?; // or else it waits for the others
            Some(Action::Charge { reference, prices })
        }
    }
}

fn booking_reacts(world: &mut World, plan: &Plan, event: &Event) -> Option<Action> {
    match reaction::of_booking(event)? {
        BookingReaction::Confirm { total } => Some(Action::Confirm { total }),
        BookingReaction::Collect { part, reason } => {
            world.cancelled.insert(part);
            header::is_all_cancelled(&world.cancelled, &plan.names()).then_some(Action::Fail { reason })
        }
    }
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Rejected(no) | Outcome::Declined(no) => format!("{}: {}", outcome.name(), no.message),
        Outcome::Cancelled { released: false } => "cancelled, nothing to give back".into(),
        other => other.name().to_owned(),
    }
}

/// Books a trip to this hotel in one of the two ways, and says what is the case then.
fn book(variant: &str, hotel: &str, card_is_good: bool) -> World {
    println!("\n{variant}, hotel {hotel}");
    let mut parts: BTreeMap<_, _> =
        [FLIGHT, HOTEL, CAR].iter().map(|part| (part.name, (part.example)(DAY, 3))).collect();
    parts.get_mut(&HOTEL.name).unwrap()["hotel_id"] = hotel.into();
    let booking_id = BookingId::derive("ada", &IdempotencyKey::try_from("my-first-trip").unwrap());
    let plan = Plan::new(Parts::try_from(parts).unwrap(), PaymentReference::derive(&booking_id, "request"));
    let mut world = World::new(card_is_good);
    match variant {
        "orchestrated" => conduct(&mut world, &plan),
        _ => dance(&mut world, booking_id, &plan),
    }
    println!("  => {}", world.status.unwrap());
    world
}

fn main() {
    for variant in ["orchestrated", "choreographed"] {
        book(variant, "nyc-plaza", true);
        book(variant, "nyc-annex", true); // has no room
    }
}

#[test]
fn a_trip_is_booked_whole_or_not_at_all() {
    for variant in ["orchestrated", "choreographed"] {
        let full = World::new(true).stock;
        let confirmed = book(variant, "nyc-plaza", true);
        assert_eq!((confirmed.status, confirmed.decision.name()), (Some(Status::Confirmed), "charged"));
        assert_ne!(confirmed.stock, full);
        for (hotel, card_is_good) in [("nyc-annex", true), ("nyc-plaza", false)] {
            let failed = book(variant, hotel, card_is_good);
            assert_eq!((failed.status, failed.stock), (Some(Status::Failed), full.clone()), "all stock is back");
            assert!(matches!(failed.decision, State::Aborted { .. } | State::Declined));
        }
    }
}
