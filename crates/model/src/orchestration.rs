//! The orchestrated variant: executions of the deployed state machine, step by step.
//!
//! Step Functions may give any task up at any time (its retries are exhausted, or its time), although the function is
//! still at work or done; there may be two executions; and an execution may end anywhere (EXPRESS gives it five minutes).

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use saga::{
    Outcome, Status, Step,
    payment::{self, Aborting, Charge, Charging},
};
use stateright::{Model, Property};

use crate::{
    Faults, Twin,
    books::{self, Books, Provider},
    state_machine::{Automaton, Place, Task, moved},
};

/// How many workers charge or abort at the same time.
const WORKERS: usize = 2;
/// How many leases are taken one after the other in [`Faults::Unbounded`].
const LEASES: i64 = 3;

/// A function at payment between two moves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Worker {
    /// Whose task it is; nobody's if that was given up.
    of: Option<usize>,
    work: Work,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    Charge(Charging),
    Abort(Aborting),
}

/// How everything stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// What the tables hold.
    pub books: Books,
    /// Where the executions are that have not ended.
    executions: Vec<Place>,
    workers: Vec<Worker>,
    /// Which steps were asked for so far: each may be carried out late, or again.
    asked: u16,
    /// Whether a step is in the queue of parked steps.
    parked: bool,
    /// What payment has answered so far: charged, not charged.
    told: [bool; 2],
    faults: Faults,
}

/// A task of an execution: which execution, and which of its tasks.
type At = (usize, usize);

/// Something that happens.
#[derive(Clone, PartialEq, Eq)]
pub enum Action {
    /// A task is carried out, and its reply arrives; or a worker begins on it.
    Run(At, Option<Step>),
    /// A task is carried out, and its reply gets lost: it is tried again.
    RunUnheard(At, Option<Step>),
    /// A task is given up, whatever came of it.
    GiveUp(At, Option<Step>),
    /// A step that was asked for is carried out (once more) for nobody.
    Late(Step),
    /// A worker makes its next move, in words.
    Move(usize, Provider, &'static str),
    /// A worker takes over the lease of another.
    TakeOver(usize),
    /// A worker has no time left to ask the provider again.
    RunOutOfTime(usize),
    /// A worker dies.
    Die(usize),
    /// An execution ends where it is.
    End(usize),
    /// Another execution begins, because of EXPRESS or the reconciler.
    Start,
    /// An operator puts the parked message back: the booking is claimed and started, and the message is gone.
    Redrive,
    /// The reconciler has driven the booking often enough, and parks it.
    GiveUpDriving,
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |(execution, _): At, step: Option<Step>| {
            format!("{} of execution {}", step.map_or("the message to the parked queue", Step::name), execution + 1)
        };
        match self {
            Self::Run(at, Some(step @ (Step::Charge | Step::Abort))) => write!(f, "{} begins", of(*at, Some(*step))),
            Self::Run(at, step) => write!(f, "{} is done", of(*at, *step)),
            Self::RunUnheard(at, step) => write!(f, "{} is begun or done, and its reply gets lost", of(*at, *step)),
            Self::GiveUp(at, step) => write!(f, "{} is given up", of(*at, *step)),
            Self::Late(step) => write!(f, "{step}, asked for before, is carried out late or again"),
            Self::Move(worker, Provider::Answers, what) => write!(f, "payment's worker {worker} {what}"),
            Self::Move(worker, Provider::ChargesSilently, what) => {
                write!(f, "payment's worker {worker} {what}, which it does, but it does not answer")
            }
            Self::Move(worker, Provider::IsSilent, what) => {
                write!(f, "payment's worker {worker} {what}, which it does not, nor does it answer")
            }
            Self::TakeOver(worker) => write!(f, "payment's worker {worker} finds that the lease has ended"),
            Self::RunOutOfTime(worker) => {
                write!(f, "payment's worker {worker} has no time left, and releases the lease")
            }
            Self::Die(worker) => write!(f, "payment's worker {worker} dies"),
            Self::End(execution) => write!(f, "execution {} ends where it is", execution + 1),
            Self::Start => write!(f, "another execution begins"),
            Self::Redrive => write!(f, "the parked message is put back, and another execution begins"),
            Self::GiveUpDriving => write!(f, "the reconciler drives the booking no more, and calls the operator"),
        }
    }
}

/// The model.
#[derive(Clone, Debug)]
pub struct Orchestration {
    faults: Faults,
    twin: Option<Twin>,
    executions: usize,
    /// As in the other variant.
    legs_are_alike: bool,
    automaton: Automaton,
}

impl Orchestration {
    /// The state machine that is deployed, in such a world, without the safeguard that a twin lacks. There are at most
    /// so many executions of the booking at a time.
    pub fn new(faults: Faults, twin: Option<Twin>, executions: usize, legs_are_alike: bool) -> Self {
        Self { faults, twin, executions, legs_are_alike, automaton: Automaton::of(twin) }
    }

    fn orders(&self) -> &[([usize; 3], Vec<Place>)] {
        let orders = self.automaton.orders();
        if self.legs_are_alike { orders } else { &orders[..1] } // the first is as they are
    }

    fn task(&self, state: &State, (execution, task): At) -> &Task {
        &self.automaton.tasks(state.executions[execution])[task]
    }

    /// A step is carried out, all at once; none for those that payment begins to, and for a contradiction.
    fn carry_out(&self, books: &mut Books, step: Step) -> Option<Outcome> {
        match step {
            Step::Reserve(leg) => Some(books.reserve(leg)),
            Step::Cancel(leg) => Some(books.cancel(leg, self.twin)),
            Step::Confirm | Step::Fail | Step::Park => books.end(step),
            Step::Charge | Step::Abort => None,
        }
    }

    fn run(&self, state: &mut State, at: At) {
        let task = self.task(state, at);
        let Some(step) = task.step else {
            state.parked = true;
            state.executions[at.0] = task.after(None);
            return;
        };
        state.asked |= bit(step);
        match step {
            Step::Charge => begin(state, Work::Charge(Charging::default()), Some(at.0)),
            Step::Abort => begin(state, Work::Abort(Aborting::begin(None)), Some(at.0)),
            step => {
                let outcome = self.carry_out(&mut state.books, step);
                // No retry can help a contradiction.
                state.executions[at.0] = outcome.map_or(task.given_up(), |outcome| task.after(Some(&outcome)));
            }
        }
    }

    fn work(&self, state: &mut State, index: usize, lease_has_ended: bool, provider: Provider) {
        let work = match state.workers[index].work.clone() {
            Work::Charge(charging) => Work::Charge(state.books.charge(charging, lease_has_ended, provider, self.twin)),
            Work::Abort(aborting) => Work::Abort(state.books.abort(aborting, self.twin)),
        };
        let says_early = self.twin == Some(Twin::SayThenVoid) && matches!(work, Work::Abort(Aborting::Fenced { .. }));
        let outcome = match &work {
            Work::Charge(Charging::Done(outcome)) => outcome.clone(),
            Work::Abort(Aborting::Done(outcome)) => Some(outcome.clone()),
            Work::Abort(_) if says_early => Some(Outcome::Aborted { reason: None }),
            _ => {
                state.workers[index].work = work;
                return;
            }
        };
        let of = state.workers[index].of.take();
        state.workers[index].work = work;
        if !says_early {
            state.workers.remove(index);
        }
        // Without an outcome it is an error, and the task is tried again.
        let Some(outcome) = outcome else { return };
        state.told[usize::from(!matches!(outcome, Outcome::Charged { .. }))] = true;
        if let Some(execution) = of {
            state.executions[execution] = self.task(state, (execution, 0)).after(Some(&outcome));
        }
    }

    fn happens(&self, state: &mut State, action: &Action) {
        match action {
            Action::Run(at, _) => self.run(state, *at),
            Action::RunUnheard(_, None) => state.faults.spend(|left| &mut left.deaths),
            Action::RunUnheard(_, Some(step)) => {
                state.faults.spend(|left| &mut left.deaths);
                state.asked |= bit(*step);
                match step {
                    Step::Reserve(leg) if self.twin == Some(Twin::EffectAndRecordApart) => {
                        state.books.take_unrecorded(*leg);
                    }
                    step => drop(self.carry_out(&mut state.books, *step)),
                }
            }
            Action::GiveUp(at, step) => {
                state.faults.spend(|left| &mut left.give_ups);
                state.asked |= step.map_or(0, bit);
                state.executions[at.0] = self.task(state, *at).given_up();
                state.workers.iter_mut().for_each(|worker| worker.of = worker.of.filter(|of| *of != at.0));
            }
            Action::Late(step) => {
                state.faults.spend(|left| &mut left.duplicates);
                match step {
                    Step::Charge => begin(state, Work::Charge(Charging::default()), None),
                    Step::Abort => begin(state, Work::Abort(Aborting::begin(None)), None),
                    step => drop(self.carry_out(&mut state.books, *step)),
                }
            }
            Action::Move(index, provider, _) => {
                if *provider != Provider::Answers {
                    state.faults.spend(|left| &mut left.silences);
                }
                self.work(state, *index, false, *provider);
            }
            Action::TakeOver(index) | Action::RunOutOfTime(index) => self.work(state, *index, true, Provider::Answers),
            Action::Die(index) => {
                state.faults.spend(|left| &mut left.deaths);
                state.workers.remove(*index);
            }
            Action::End(execution) => {
                state.faults.spend(|left| &mut left.deaths);
                remove(state, *execution);
            }
            Action::Start => {
                if is_idle(state) {
                    state.faults.spend(|left| &mut left.drives);
                } else {
                    state.faults.spend(|left| &mut left.early_drives);
                }
                state.executions.push(self.automaton.start());
            }
            Action::Redrive => {
                state.parked = false;
                state.books.redrive();
                state.executions.push(self.automaton.start());
            }
            Action::GiveUpDriving => {
                state.parked = true;
                state.books.end(Step::Park);
            }
        }
        self.arrange(state);
    }

    /// Executions that have ended, and the order of what is alike, do not matter.
    fn arrange(&self, state: &mut State) {
        while let Some(at) = state.executions.iter().position(|place| self.automaton.tasks(*place).is_empty()) {
            remove(state, at);
        }
        if !state.faults.is_bounded() {
            // What can be asked for may be carried out at any time, before it is heard of or after.
            let open = state.executions.iter().flat_map(|place| self.automaton.tasks(*place));
            state.asked |= open.filter_map(|task| task.step).map(bit).fold(0, |all, step| all | step);
        }
        // Flight, hotel and car are alike, so of the states that differ only in which is which, one is enough.
        let legs = [0, 1, 2].map(|leg| state.books.leg_code(leg));
        let arranged = |(order, names): &([usize; 3], Vec<Place>)| {
            let asked: u16 = steps(state.asked).map(|step| bit(moved(step, *order))).sum();
            let mut executions: Vec<_> = state.executions.iter().map(|place| names[usize::from(*place)]).collect();
            let is_swapped = matches!(executions.as_slice(), [first, second] if first > second);
            executions.sort_unstable();
            (order.map(|leg| legs[leg]), asked, executions, is_swapped, *order)
        };
        if let Some((_, asked, executions, is_swapped, order)) = self.orders().iter().map(arranged).min() {
            (state.asked, state.executions) = (asked, executions);
            state.books.arrange(order);
            if is_swapped {
                state.workers.iter_mut().for_each(|worker| worker.of = worker.of.map(|of| 1 - of));
            }
        }
        state.workers.sort_by_cached_key(|worker| {
            let mut hasher = DefaultHasher::new(); // the same in every run
            worker.hash(&mut hasher);
            hasher.finish()
        });
    }
}

fn bit(step: Step) -> u16 {
    Step::ALL.iter().position(|other| *other == step).map_or(0, |at| 1 << at) // there are eleven
}

fn steps(asked: u16) -> impl Iterator<Item = Step> {
    Step::ALL.into_iter().filter(move |step| asked & bit(*step) != 0)
}

fn begin(state: &mut State, work: Work, of: Option<usize>) {
    state.workers.push(Worker { of, work });
}

fn remove(state: &mut State, execution: usize) {
    state.executions.remove(execution);
    for worker in &mut state.workers {
        worker.of = worker.of.filter(|of| *of != execution).map(|of| if of > execution { of - 1 } else { of });
    }
}

/// Whether nobody works on the booking any more.
const fn is_idle(state: &State) -> bool {
    state.executions.is_empty() && state.workers.is_empty()
}

/// Whether a worker has asked the provider in vain, and is about to ask it again or to give up.
const fn is_asking_again(worker: &Worker) -> bool {
    matches!(worker.work, Work::Charge(Charging::Leased { unanswered: 1.., .. }))
}

/// Whether a worker holds the lease.
fn is_leased(state: &State) -> bool {
    let holds = |worker: &Worker| match &worker.work {
        Work::Charge(Charging::Leased { until, .. }) => *until == state.books.leases(),
        Work::Charge(Charging::Answered { .. }) => true,
        _ => false,
    };
    state.workers.iter().any(holds)
}

impl Model for Orchestration {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let accepted = |books| State {
            books,
            executions: vec![self.automaton.start()],
            workers: Vec::new(),
            asked: 0,
            parked: false,
            told: [false; 2],
            faults: self.faults,
        };
        Books::all().into_iter().map(accepted).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let faults = state.faults;
        let tasks = state.executions.iter().enumerate().flat_map(|(execution, place)| {
            self.automaton.tasks(*place).iter().enumerate().map(move |(task, it)| ((execution, task), it.step))
        });
        for (at, step) in tasks {
            let begins = matches!(step, Some(Step::Charge | Step::Abort));
            let is_at_work = state.workers.iter().any(|worker| worker.of == Some(at.0));
            if !begins || (!is_at_work && state.workers.len() < WORKERS) {
                actions.push(Action::Run(at, step));
            }
            let is_late_anyway = !faults.is_bounded() && self.twin != Some(Twin::EffectAndRecordApart);
            if !begins && !is_late_anyway && faults.allow(|left| left.deaths) {
                actions.push(Action::RunUnheard(at, step));
            }
            if faults.allow(|left| left.give_ups) {
                actions.push(Action::GiveUp(at, step));
            }
        }
        if faults.allow(|left| left.duplicates) {
            for step in steps(state.asked) {
                if !matches!(step, Step::Charge | Step::Abort) || state.workers.len() < WORKERS {
                    actions.push(Action::Late(step));
                }
            }
        }
        for (index, worker) in state.workers.iter().enumerate() {
            let (next, what) = match &worker.work {
                Work::Charge(charging) => (charging.next(0), books::words(&charging.next(0))),
                // Which move it is does not matter here.
                Work::Abort(aborting) => (Charge::Void, books::words_of_abort(&aborting.next())),
            };
            if next == Charge::ComeBack {
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
            if faults.allow(|left| left.deaths) {
                actions.push(Action::Die(index));
            }
        }
        if faults.allow(|left| left.deaths) {
            actions.extend((0..state.executions.len()).map(Action::End));
        }
        let may_drive = state.books.is_driven()
            && if is_idle(state) { faults.allow(|left| left.drives) } else { faults.allow(|left| left.early_drives) };
        let may_start = (may_drive && self.twin != Some(Twin::NoReconciler)) || !faults.is_bounded();
        if may_start && state.executions.len() < self.executions {
            actions.push(Action::Start);
        }
        if state.parked && state.executions.is_empty() && !state.books.has_ended() {
            actions.push(Action::Redrive);
        }
        // However often it was driven: nothing is counted where faults are not.
        if !faults.is_bounded() && state.books.is_driven() {
            actions.push(Action::GiveUpDriving);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.happens(&mut state, &action);
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
                state.told != [true; 2] && !state.books.contradiction
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
            Property::<Self>::sometimes("a charge that was given up turns out to be made", |_, state| {
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
        if self.executions > 1 {
            properties.push(Property::<Self>::sometimes(
                "two executions of one booking",
                |_, state| matches!(state.executions.as_slice(), [first, second] if first != second),
            ));
        }
        if self.faults.is_bounded() {
            properties.push(Property::<Self>::eventually("ends", |_, state| state.books.has_ended()));
        }
        properties
    }
}
