//! The choreographed variant: participants react to events, and nobody knows the whole flow.
//!
//! A *delivery* is one event on its way to one participant that reacts to it, or the record that a participant has given
//! an event up, on its way to payment. Who listens to what follows from the reactions in [`saga`].

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::LazyLock,
};

use saga::{
    Event, EventType, Leg, Outcome, Participant, Status, Step,
    command::Action as Command,
    header, payment,
    payment::{Abort, Aborting, Charge, Charging},
    reservation,
};
use stateright::{Model, Property};

use crate::{
    Faults, Twin,
    books::{self, Books, Provider, WORLD},
};

/// How many workers charge or abort at the same time. A third would find what the second does.
const WORKERS: usize = 2;
/// How many leases are taken one after the other in [`Faults::Unbounded`].
const LEASES: i64 = 3;

/// A message on its way to a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Delivery {
    event: EventType,
    to: Participant,
    /// Who has given the event up, if it is the record of that.
    given_up_by: Option<Participant>,
}

impl Delivery {
    fn event(self) -> &'static Event {
        WORLD.event(self.event)
    }

    /// Whether it comes by SNS → Lambda, to be given up after some attempts; otherwise by SQS, to be parked.
    fn can_be_given_up(self) -> bool {
        self.given_up_by.is_none() && payment::reaction_to_failure(self.event(), Some(self.to), "").is_some()
    }

    fn payment_reaction(self) -> Option<payment::Reaction> {
        match self.given_up_by {
            Some(by) => payment::reaction_to_failure(self.event(), Some(by), ""),
            None => payment::reaction(self.event()),
        }
    }
}

/// All that there can be.
static DELIVERIES: LazyLock<Vec<Delivery>> = LazyLock::new(|| {
    let listens = |to, event: &Event| match to {
        Participant::Seller(leg) => reservation::reaction(leg, event).is_some(),
        Participant::Payment => payment::reaction(event).is_some(),
        Participant::Booking => header::reaction(event).is_some(),
    };
    let to = |event: EventType| Participant::ALL.into_iter().filter(move |to| listens(*to, WORLD.event(event)));
    let all =
        EventType::ALL.into_iter().flat_map(|event| to(event).map(move |to| Delivery { event, to, given_up_by: None }));
    let all: Vec<_> = all.collect();
    let given_up = all.iter().filter(|delivery| delivery.can_be_given_up());
    let given_up = given_up.map(|by| Delivery { to: Participant::Payment, given_up_by: Some(by.to), ..*by });
    all.iter().copied().chain(given_up).collect()
});

/// The place of a delivery among all.
type Id = u8;
/// A set of deliveries.
type Set = u32;

fn ids(set: Set) -> impl Iterator<Item = Id> {
    (0..DELIVERIES.len() as Id).filter(move |id| set & bit(*id) != 0) // about two dozen
}

const fn bit(id: Id) -> Set {
    1 << id
}

fn delivery(id: Id) -> Delivery {
    DELIVERIES[usize::from(id)]
}

/// The deliveries of an event to those who react to it.
fn deliveries_of(event: EventType) -> Set {
    let is_of = |id: &Id| delivery(*id).event == event && delivery(*id).given_up_by.is_none();
    ids(Set::MAX).filter(is_of).map(bit).sum()
}

/// The record that this delivery was given up.
fn given_up(id: Id) -> Option<Id> {
    let Delivery { event, to, .. } = delivery(id);
    ids(Set::MAX).find(|other| delivery(*other).event == event && delivery(*other).given_up_by == Some(to))
}

/// Somebody at payment who is between two moves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Worker {
    /// Whose message it works on, where that matters.
    of: Option<Id>,
    work: Work,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    Charge(Charging),
    Abort(Aborting),
}

impl Work {
    /// What came of it, if nothing is left but to say so.
    fn done(&self) -> Option<(Step, Outcome)> {
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
}

/// How everything stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// What the tables hold.
    pub books: Books,
    /// What has been said so far.
    said: Set,
    /// What has to be heard yet.
    waiting: Set,
    /// What is in a dead-letter queue.
    parked: Set,
    workers: Vec<Worker>,
    /// What may still go wrong.
    faults: Faults,
}

/// Something that happens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A message is heard, and what it leads to is done, said and acknowledged; or a worker begins.
    Hear(Id),
    /// A message is heard, and who hears it dies after the (first) write, before anything is said.
    HearAndDie(Id),
    /// A message gets lost.
    Lose(Id),
    /// A message comes once more.
    Repeat(Id),
    /// Who should react to a message gives up, whatever came of it.
    GiveUp(Id),
    /// A message is received too often, and parked.
    Park(Id),
    /// The operator puts a message back.
    Redrive(Id),
    /// The reconciler sees what is parked, and calls the operator.
    CallOperator,
    /// The reconciler says once more that the booking was requested.
    Drive,
    /// A worker makes its next move, in words.
    Move(usize, Provider, &'static str),
    /// A worker that is done publishes what came of it, and its message is acknowledged.
    Say(usize),
    /// It publishes, and dies before it returns: its message comes again.
    SayAndDie(usize),
    /// A worker takes over the lease of another.
    TakeOver(usize),
    /// A worker has no time left to ask the provider again.
    RunOutOfTime(usize),
    /// A worker dies: between two moves, or before it has published what came of them, or as that fails.
    Die(usize),
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |id: Id| {
            let Delivery { event, to, given_up_by } = delivery(id);
            match given_up_by {
                None => format!("{event} to {}", to.name()),
                Some(by) => format!("the record that {} gave {event} up", by.name()),
            }
        };
        match self {
            Self::Hear(id) => write!(f, "{} arrives, and is handled", on(*id)),
            Self::HearAndDie(id) => write!(f, "{} arrives, and its handler dies after the first write", on(*id)),
            Self::Lose(id) => write!(f, "{} gets lost", on(*id)),
            Self::Repeat(id) => write!(f, "{} is sent twice", on(*id)),
            Self::GiveUp(id) => write!(f, "{} is given up", on(*id)),
            Self::Park(id) => write!(f, "{} is parked in a dead-letter queue", on(*id)),
            Self::Redrive(id) => write!(f, "{} is put back by the operator", on(*id)),
            Self::CallOperator => write!(f, "the reconciler calls the operator"),
            Self::Drive => write!(f, "the reconciler publishes booking.requested again"),
            Self::Move(worker, Provider::Answers, what) => write!(f, "payment's worker {worker} {what}"),
            Self::Move(worker, Provider::ChargesSilently, what) => {
                write!(f, "payment's worker {worker} {what}, which it does, but it does not answer")
            }
            Self::Move(worker, Provider::IsSilent, what) => {
                write!(f, "payment's worker {worker} {what}, which it does not, nor does it answer")
            }
            Self::Say(worker) => write!(f, "payment's worker {worker} publishes its answer"),
            Self::SayAndDie(worker) => {
                write!(f, "payment's worker {worker} publishes its answer, and dies before it returns")
            }
            Self::TakeOver(worker) => write!(f, "payment's worker {worker} finds that the lease has ended"),
            Self::RunOutOfTime(worker) => {
                write!(f, "payment's worker {worker} has no time left, and releases the lease")
            }
            Self::Die(worker) => write!(f, "payment's worker {worker} dies"),
        }
    }
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Choreography {
    /// What may go wrong.
    pub faults: Faults,
    /// The safeguard that is taken out.
    pub twin: Option<Twin>,
    /// Whether states that differ only in which leg is which are one: not where somebody is to read what happens.
    pub legs_are_alike: bool,
}

impl Choreography {
    fn say(&self, state: &mut State, cause: Option<Id>, step: Step, outcome: &Outcome) {
        let cause = cause.unwrap_or_else(|| any_cause(step));
        if let Some(event) = Event::after(delivery(cause).event(), step, outcome) {
            publish(state, books::said(&event));
        }
    }

    /// Who hears a message does everything that it leads to; payment begins to.
    fn hear(&self, state: &mut State, id: Id) {
        let Delivery { to, .. } = delivery(id);
        let event = delivery(id).event();
        match to {
            Participant::Seller(leg) => {
                if let Some(command) = reservation::reaction(leg, event) {
                    let outcome = match command {
                        Command::Reserve(_) => state.books.reserve(leg),
                        _ => state.books.cancel(leg, self.twin),
                    };
                    self.say(state, Some(id), command.step(), &outcome);
                }
            }
            Participant::Booking => {
                let (step, is_last) = match header::reaction(event) {
                    Some(header::Reaction::Confirm { .. }) => (Step::Confirm, true),
                    Some(header::Reaction::Collect { leg, .. }) => (Step::Fail, state.books.collect_given_back(leg)),
                    None => return,
                };
                if is_last && let Some(outcome) = state.books.end(step) {
                    self.say(state, Some(id), step, &outcome);
                }
            }
            Participant::Payment => match delivery(id).payment_reaction() {
                Some(payment::Reaction::Collect { leg, .. }) => {
                    let prices = state.books.collect_price(leg, self.twin);
                    if prices.is_some() {
                        begin(state, id, Work::Charge(Charging::default()));
                        return;
                    }
                }
                Some(payment::Reaction::Abort { .. }) if self.twin == Some(Twin::CancelWithoutDecision) => {
                    publish(state, EventType::Aborted);
                }
                Some(payment::Reaction::Abort { .. }) => {
                    begin(state, id, Work::Abort(Aborting::begin(None)));
                    return;
                }
                None => {}
            },
        }
        state.waiting &= !bit(id);
    }

    /// The same, as far as the first write.
    fn hear_and_die(&self, state: &mut State, id: Id) {
        let Delivery { to, .. } = delivery(id);
        let event = delivery(id).event();
        match (to, header::reaction(event)) {
            (Participant::Booking, Some(header::Reaction::Collect { leg, .. })) => {
                state.books.collect_given_back(leg);
            }
            (Participant::Seller(leg), _)
                if self.twin == Some(Twin::EffectAndRecordApart)
                    && matches!(reservation::reaction(leg, event), Some(Command::Reserve(_))) =>
            {
                state.books.take_unrecorded(leg);
            }
            (Participant::Payment, _) => {
                if let Some(payment::Reaction::Collect { leg, .. }) = delivery(id).payment_reaction() {
                    state.books.collect_price(leg, self.twin);
                }
            }
            _ => {
                let before = (state.said, state.waiting);
                self.hear(state, id);
                (state.said, state.waiting) = before; // it is done, and nobody knows
            }
        }
        if self.twin == Some(Twin::AcknowledgeThenPublish) && !delivery(id).can_be_given_up() {
            state.waiting &= !bit(id);
        }
    }

    /// A worker that is done says so, and is gone. Returns its message.
    fn finish(&self, state: &mut State, index: usize) -> Set {
        let Worker { of, work } = state.workers.remove(index);
        if let Some((step, outcome)) = work.done() {
            self.say(state, of, step, &outcome);
        }
        of.map_or(0, bit)
    }

    fn work(&self, state: &mut State, index: usize, lease_has_ended: bool, provider: Provider) {
        let worker = state.workers[index].clone();
        let work = match worker.work {
            Work::Charge(charging) => Work::Charge(state.books.charge(charging, lease_has_ended, provider, self.twin)),
            Work::Abort(aborting) => Work::Abort(state.books.abort(aborting, self.twin)),
        };
        if self.twin == Some(Twin::SayThenVoid) && matches!(work, Work::Abort(Aborting::Fenced { .. })) {
            self.say(state, worker.of, Step::Abort, &Outcome::Aborted { reason: None });
        }
        if work == Work::Charge(Charging::Done(None)) {
            state.workers.remove(index); // an error: the message comes again
        } else {
            state.workers[index].work = work;
        }
    }

    fn happens(&self, state: &mut State, action: Action) {
        match action {
            Action::Hear(id) => self.hear(state, id),
            Action::HearAndDie(id) => {
                state.faults.spend(|left| &mut left.deaths);
                self.hear_and_die(state, id);
            }
            Action::Lose(id) => {
                state.faults.spend(|left| &mut left.losses);
                state.waiting &= !bit(id);
            }
            Action::Repeat(id) => {
                state.faults.spend(|left| &mut left.duplicates);
                state.waiting |= bit(id);
            }
            Action::GiveUp(id) => {
                state.faults.spend(|left| &mut left.give_ups);
                state.waiting &= !bit(id);
                let record = given_up(id).map_or(0, bit);
                state.said |= record;
                state.waiting |= record;
            }
            Action::Park(id) => {
                state.faults.spend(|left| &mut left.parks);
                state.waiting &= !bit(id);
                state.parked |= bit(id);
            }
            Action::Redrive(id) => {
                state.parked &= !bit(id);
                state.waiting |= bit(id);
            }
            Action::CallOperator => {
                state.books.end(Step::Park);
            }
            Action::Drive => {
                if is_asked_for(state) {
                    state.books.redrive(); // at the operator's option
                } else if is_idle(state) {
                    state.faults.spend(|left| &mut left.drives);
                } else {
                    state.faults.spend(|left| &mut left.early_drives);
                }
                publish(state, EventType::Requested);
            }
            Action::Move(index, provider, _) => {
                if provider != Provider::Answers {
                    state.faults.spend(|left| &mut left.silences);
                }
                self.work(state, index, false, provider);
            }
            Action::Say(index) => {
                let acknowledged = self.finish(state, index);
                state.waiting &= !acknowledged;
            }
            Action::SayAndDie(index) => {
                state.faults.spend(|left| &mut left.deaths);
                self.finish(state, index);
            }
            Action::TakeOver(index) | Action::RunOutOfTime(index) => self.work(state, index, true, Provider::Answers),
            Action::Die(index) => {
                state.faults.spend(|left| &mut left.deaths);
                state.workers.remove(index);
            }
        }
        if !state.faults.is_bounded() {
            // Whatever was said can be heard again anyway: neither what waits nor whose message it was matters.
            state.waiting = 0;
            state.workers.iter_mut().for_each(|worker| worker.of = None);
        }
        if self.legs_are_alike {
            arrange(state);
        }
        state.workers.sort_by_cached_key(|worker| (worker.of, code(&worker.work)));
    }
}

/// Flight, hotel and car are alike in everything, so of the states that differ only in which of them is which, one is
/// enough: that in which they stand in order.
fn arrange(state: &mut State) {
    let mut legs = [0, 1, 2];
    legs.sort_by_cached_key(|leg| {
        let of_leg = |set: Set| OF_LEG[*leg].iter().map(|id| set & bit(*id) != 0).collect::<Vec<_>>();
        let works = state.workers.iter().filter_map(|worker| {
            OF_LEG[*leg].iter().position(|id| Some(*id) == worker.of).map(|kind| (kind, code(&worker.work)))
        });
        let mut works: Vec<_> = works.collect();
        works.sort_unstable();
        (state.books.leg_code(*leg), of_leg(state.said), of_leg(state.waiting), of_leg(state.parked), works)
    });
    if legs != [0, 1, 2] {
        let place = |id: Id| {
            let from = (0..3).find_map(|leg| OF_LEG[leg].iter().position(|of| *of == id).map(|kind| (leg, kind)));
            let to = |leg: usize| legs.iter().position(|of| *of == leg).unwrap_or_default(); // each stands somewhere
            from.map_or(id, |(leg, kind)| OF_LEG[to(leg)][kind])
        };
        let moved = |set: Set| ids(set).map(|id| bit(place(id))).sum();
        state.said = moved(state.said);
        state.waiting = moved(state.waiting);
        state.parked = moved(state.parked);
        state.workers.iter_mut().for_each(|worker| worker.of = worker.of.map(place));
        state.books.arrange(legs);
    }
}

/// The deliveries that are about each leg, in the same order for each.
static OF_LEG: LazyLock<[Vec<Id>; 3]> = LazyLock::new(|| {
    Leg::ALL.map(|leg| {
        let is_of_leg = |id: &Id| {
            let Delivery { event, to, given_up_by } = delivery(*id);
            let of_event = match event {
                EventType::Reserved(leg) | EventType::Rejected(leg) | EventType::Cancelled(leg) => Some(leg),
                _ => None,
            };
            let seller = |participant| matches!(participant, Participant::Seller(of) if of == leg);
            of_event == Some(leg) || seller(to) || given_up_by.is_some_and(seller)
        };
        ids(Set::MAX).filter(is_of_leg).collect()
    })
});

/// A number that tells one worker's work from another's.
fn code(work: &Work) -> u64 {
    let mut hasher = DefaultHasher::new(); // the same in every run
    work.hash(&mut hasher);
    hasher.finish()
}

/// Some message that leads to this step.
fn any_cause(step: Step) -> Id {
    let event = match step {
        Step::Charge => EventType::Reserved(Leg::Flight),
        _ => EventType::Rejected(Leg::Flight),
    };
    ids(deliveries_of(event)).next().unwrap_or_default() // payment listens to both
}

fn publish(state: &mut State, event: EventType) {
    let to = deliveries_of(event);
    state.said |= to;
    state.waiting |= to;
}

fn begin(state: &mut State, of: Id, work: Work) {
    state.workers.push(Worker { of: Some(of), work });
}

/// Whether nobody works on the booking any more, and no message about it is under way.
const fn is_idle(state: &State) -> bool {
    state.waiting == 0 && state.parked == 0 && state.workers.is_empty()
}

/// Whether the operator has the booking driven again: it waits for one, and no message does.
fn is_asked_for(state: &State) -> bool {
    state.books.status == Status::NeedsOperator && is_idle(state)
}

/// Whether a worker has asked the provider in vain, and is about to ask it again or to give up.
const fn is_asking_again(worker: &Worker) -> bool {
    matches!(worker.work, Work::Charge(Charging::Leased { unanswered: 1.., .. }))
}

/// Whether a worker holds the lease.
fn is_leased(state: &State) -> bool {
    let holds = |worker: &Worker| {
        matches!(&worker.work, Work::Charge(Charging::Leased { until, .. }) if *until == state.books.leases())
            || matches!(&worker.work, Work::Charge(Charging::Answered { .. }))
    };
    state.workers.iter().any(holds)
}

impl Model for Choreography {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let requested = deliveries_of(EventType::Requested);
        let accepted = |books| State {
            books,
            said: requested,
            waiting: if self.faults.is_bounded() { requested } else { 0 },
            parked: 0,
            workers: Vec::new(),
            faults: self.faults,
        };
        Books::all().into_iter().map(accepted).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let faults = state.faults;
        let can_be_heard = if faults.is_bounded() {
            state.waiting
        } else {
            ids(state.said).fold(state.said, |all, id| all | given_up(id).map_or(0, bit))
        };
        for id in ids(can_be_heard) {
            let is_at_work = state.workers.iter().any(|worker| worker.of == Some(id));
            let to_payment = delivery(id).to == Participant::Payment;
            if !to_payment || (state.workers.len() < WORKERS && (!is_at_work || !faults.is_bounded())) {
                actions.push(Action::Hear(id));
            }
            if faults.allow(|left| left.deaths) && !is_at_work {
                actions.push(Action::HearAndDie(id));
            }
            if faults.is_bounded() {
                if faults.allow(|left| left.losses) && !is_at_work {
                    actions.push(Action::Lose(id));
                }
                if faults.allow(|left| left.give_ups) && delivery(id).can_be_given_up() {
                    actions.push(Action::GiveUp(id));
                }
                if faults.allow(|left| left.parks) && !delivery(id).can_be_given_up() && !is_at_work {
                    actions.push(Action::Park(id));
                }
            }
        }
        if faults.is_bounded() && faults.allow(|left| left.duplicates) {
            actions.extend(ids(state.said & !state.waiting).map(Action::Repeat));
        }
        actions.extend(ids(state.parked).map(Action::Redrive));
        if state.parked != 0 || (!faults.is_bounded() && state.books.status == Status::Pending) {
            actions.push(Action::CallOperator);
        }
        let may_drive =
            if is_idle(state) { faults.allow(|left| left.drives) } else { faults.allow(|left| left.early_drives) };
        let is_stuck = state.books.is_driven() && may_drive && self.twin != Some(Twin::NoReconciler);
        if is_stuck || is_asked_for(state) {
            actions.push(Action::Drive);
        }
        for (index, worker) in state.workers.iter().enumerate() {
            if faults.allow(|left| left.deaths) {
                actions.push(Action::Die(index));
            }
            if worker.work.done().is_some() {
                actions.push(Action::Say(index));
                // Without bounds it is the same: the message can be heard again anyway.
                if faults.is_bounded() && faults.allow(|left| left.deaths) {
                    actions.push(Action::SayAndDie(index));
                }
                continue;
            }
            let (next, what) = match &worker.work {
                Work::Charge(charging) => (charging.next(0), books::words(&charging.next(0))),
                // Which move it is does not matter here.
                Work::Abort(aborting) => (Charge::Void, books::words_of_abort(&aborting.next())),
            };
            if next == Charge::ComeBack {
                // It would come back until the lease has ended, at the latest when its holder is dead.
                let has_ended = if faults.is_bounded() { !is_leased(state) } else { state.books.leases() < LEASES };
                if has_ended {
                    actions.push(Action::TakeOver(index));
                }
            } else {
                actions.push(Action::Move(index, Provider::Answers, what));
            }
            if matches!(next, Charge::Ask { .. }) && faults.allow(|left| left.silences) {
                actions.push(Action::Move(index, Provider::ChargesSilently, what));
                actions.push(Action::Move(index, Provider::IsSilent, what));
            }
            // Without bounds it is as if the worker died.
            if faults.is_bounded() && matches!(&worker.work, Work::Charge(charging) if books::needs_time(charging)) {
                actions.push(Action::RunOutOfTime(index));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.happens(&mut state, action);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::<Self>::always("confirmed: all reserved, charged once", |_, state| {
                state.books.is_confirmed_only_with_all()
            }),
            Property::<Self>::always("failed: nothing reserved, nothing charged", |_, state| {
                state.books.is_failed_only_with_nothing()
            }),
            Property::<Self>::always("stock adds up", |_, state| state.books.stock_adds_up()),
            Property::<Self>::always("charged at most once", |_, state| state.books.times_charged <= 1),
            Property::<Self>::always("one decision is told", |_, state| {
                let is_said = |event| state.said & deliveries_of(event) != 0;
                let both = is_said(EventType::Charged) && is_said(EventType::Aborted);
                !both && !state.books.contradiction
            }),
            Property::<Self>::sometimes("confirmed", |_, state| state.books.status == Status::Confirmed),
            Property::<Self>::sometimes("failed", |_, state| state.books.status == Status::Failed),
            Property::<Self>::sometimes("cancelled before it is reserved", |_, state| state.books.has_tombstone()),
            Property::<Self>::sometimes("an abort races with a charge", |_, state| {
                let is_charging = |worker: &Worker| matches!(worker.work, Work::Charge(Charging::Leased { .. }));
                let is_fenced = |worker: &Worker| matches!(worker.work, Work::Abort(Aborting::Fenced { .. }));
                state.workers.iter().any(is_charging) && state.workers.iter().any(is_fenced)
            }),
            Property::<Self>::sometimes("charged by the provider, then aborted and voided", |_, state| {
                state.books.times_charged == 1 && state.books.voided && state.books.status == Status::Failed
            }),
            Property::<Self>::sometimes("a failure is reported after the charge", |_, state| {
                matches!(state.books.abort, Some(Outcome::Charged { .. })) && state.books.status == Status::Confirmed
            }),
            Property::<Self>::sometimes("a lease is taken over", |_, state| state.books.leases() > 1),
            Property::<Self>::sometimes("an abort wins between two attempts at the provider", |_, state| {
                let is_aborted = matches!(state.books.payment, payment::State::Aborted { .. });
                is_aborted && state.workers.iter().any(is_asking_again)
            }),
            Property::<Self>::sometimes("the provider is asked again after it has charged", |_, state| {
                state.books.times_charged > 0 && state.workers.iter().any(is_asking_again)
            }),
            Property::<Self>::sometimes("an operator is called", |_, state| {
                state.books.status == Status::NeedsOperator
            }),
        ];
        if self.faults.is_bounded() {
            properties.push(Property::<Self>::eventually("ends", |_, state| state.books.has_ended()));
        }
        properties
    }
}
