//! The orchestrated variant: executions of the deployed state machine, step by step.
//!
//! Step Functions may give any task up at any time (its retries are exhausted, or its time), although the function is
//! still at work or done; there may be two executions; and an execution may end anywhere (EXPRESS gives it five minutes).

use std::sync::Arc;

use saga::{
    Outcome, Step,
    claim::Drive,
    payment::{Aborting, Charging},
};
use stateright::{Model, Property};

use crate::{
    Faults, Scope, Twin,
    automaton::{Automaton, Place, Task, moved},
    books::Books,
    drives::Drives,
    properties::{self, Situation},
    set::{Id, Set},
    state_machine::Sends,
    work::{MAX_WORKERS, Progress, Work, code},
};

/// A function at payment between two moves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Worker {
    /// Whose task it is; nobody's if that was given up.
    of: Option<usize>,
    work: Work,
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
    asked: Set,
    /// Whether a step is in the queue of parked steps.
    parked: bool,
    /// What payment has answered so far: charged, not charged.
    answered: [bool; 2],
    faults: Faults,
    drives: Drives,
}

impl Situation for State {
    fn books(&self) -> &Books {
        &self.books
    }

    fn works(&self) -> impl Iterator<Item = &Work> {
        self.workers.iter().map(|worker| &worker.work)
    }
}

/// A task of an execution: which execution, and which of its tasks.
type At = (usize, usize);

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// A task is carried out, and its reply arrives; or a worker begins on it.
    Run(At, Option<Step>),
    /// A task is carried out, and its reply gets lost: it is tried again.
    LoseReply(At, Option<Step>),
    /// A task is given up, whatever came of it.
    GiveUp(At, Option<Step>),
    /// A step that was asked for is carried out (once more) for nobody.
    Late(Step),
    /// Something happens to a worker.
    Work(usize, Progress),
    /// An execution ends where it is.
    End(usize),
    /// Another execution begins, because of EXPRESS or the reconciler.
    Start,
    /// An operator puts the parked message back: the booking is claimed and started, and the message is gone.
    Redrive,
    /// The reconciler has driven the booking often enough, and parks it.
    GiveUpDriving,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Orchestration {
    scope: Scope,
    faults: Faults,
    twin: Option<Twin>,
    executions: usize,
    /// As in the other variant.
    parts_are_alike: bool,
    automaton: Arc<Automaton>,
    steps: Vec<Step>,
    orders: Vec<Order>,
}

/// An order in which the parts can stand, and what everything is called then.
#[derive(Clone, Debug)]
struct Order {
    parts: Vec<usize>,
    places: Vec<Place>,
    steps: Vec<Id>,
}

/// How many executions of a booking there are at a time: one more than there should be.
const MAX_EXECUTIONS: usize = 2;

impl Orchestration {
    /// The state machine that is deployed, with a booking of this scope, in such a world, without the safeguard that a twin
    /// lacks. There are at most so many executions of the booking at a time.
    pub fn new(scope: Scope, faults: Faults, twin: Option<Twin>, executions: usize, parts_are_alike: bool) -> Self {
        assert!((1..=MAX_EXECUTIONS).contains(&executions));
        let steps = Step::of(scope.names());
        Set::check(steps.len());
        let automaton = Automaton::of(scope, twin);
        let mut model = Self { scope, faults, twin, executions, parts_are_alike, automaton, steps, orders: Vec::new() };
        let orders = model.automaton.orders().iter().map(|(parts, places)| Order {
            parts: parts.clone(),
            places: places.clone(),
            steps: model.steps.iter().map(|step| model.place_of(moved(*step, parts))).collect(),
        });
        model.orders = orders.collect();
        if !parts_are_alike {
            model.orders.truncate(1); // the first is as they are
        }
        model
    }

    fn task(&self, state: &State, (execution, task): At) -> &Task {
        &self.automaton.tasks(state.executions[execution])[task]
    }

    /// Whether a task's step is one that somebody carries out.
    fn is_carried_out(&self, task: &Task) -> bool {
        match task.sends {
            Sends::Message => true,
            Sends::Command(step) => self.scope.carries_out(step),
            Sends::Refused(_) => false,
        }
    }

    fn place_of(&self, step: Step) -> Id {
        let at = self.steps.iter().position(|other| *other == step);
        at.and_then(|at| Id::try_from(at).ok()).unwrap_or_else(|| panic!("{step} is no step of this booking"))
    }

    fn member(&self, step: Step) -> Set {
        Set::of(self.place_of(step))
    }

    fn steps(&self, asked: Set) -> impl Iterator<Item = Step> {
        asked.iter().map(|at| self.steps[usize::from(at)])
    }

    /// A step is carried out, all at once; none for those that payment begins to, and for a contradiction.
    fn carry_out(&self, books: &mut Books, step: Step) -> Option<Outcome> {
        match step {
            Step::Reserve(part) => Some(books.reserve(part)),
            Step::Cancel(part) => Some(books.cancel(part, self.twin)),
            Step::Confirm | Step::Fail | Step::Park => books.end(step),
            Step::Charge | Step::Abort => None,
        }
    }

    fn run(&self, state: &mut State, at: At) {
        let task = self.task(state, at);
        let Some(step) = task.sends.step() else {
            state.parked = true;
            state.executions[at.0] = task.after(self.scope, None);
            return;
        };
        state.asked = state.asked.and(self.member(step));
        match Work::on(step) {
            Some(work) => state.workers.push(Worker { of: Some(at.0), work }),
            None => {
                let outcome = self.carry_out(&mut state.books, step);
                // No retry can help a contradiction.
                let next = outcome.map_or(task.given_up(), |outcome| task.after(self.scope, Some(&outcome)));
                state.executions[at.0] = next;
            }
        }
    }

    fn work(&self, state: &mut State, index: usize, progress: Progress) {
        progress.spend(&mut state.faults);
        if progress == Progress::Die {
            state.workers.remove(index);
            return;
        }
        let work = state.workers[index].work.clone().moved(&mut state.books, progress, self.twin);
        let answers_early = self.twin == Some(Twin::PublishThenVoid) && work.is_fenced();
        let outcome = match &work {
            Work::Charge(Charging::Done(outcome)) => outcome.clone(),
            Work::Abort(Aborting::Done(outcome)) => Some(outcome.clone()),
            Work::Abort(_) if answers_early => Some(Outcome::Aborted { reason: None }),
            _ => {
                state.workers[index].work = work;
                return;
            }
        };
        let of = state.workers[index].of.take();
        state.workers[index].work = work;
        if !answers_early {
            state.workers.remove(index);
        }
        // Without an outcome it is an error, and the task is tried again.
        let Some(outcome) = outcome else { return };
        state.answered[usize::from(!matches!(outcome, Outcome::Charged { .. }))] = true;
        if let Some(execution) = of {
            state.executions[execution] = self.task(state, (execution, 0)).after(self.scope, Some(&outcome));
        }
    }

    fn happens(&self, state: &mut State, transition: Transition) {
        match transition {
            Transition::Run(at, _) => self.run(state, at),
            Transition::LoseReply(_, None) => state.faults.spend(|left| &mut left.deaths),
            Transition::LoseReply(_, Some(step)) => {
                state.faults.spend(|left| &mut left.deaths);
                state.asked = state.asked.and(self.member(step));
                match step {
                    Step::Reserve(part) if self.twin == Some(Twin::EffectAndRecordApart) => {
                        state.books.take_unrecorded(part);
                    }
                    step => drop(self.carry_out(&mut state.books, step)),
                }
            }
            Transition::GiveUp(at, step) => {
                let task = self.task(state, at);
                state.executions[at.0] = task.given_up();
                if self.is_carried_out(task) {
                    state.faults.spend(|left| &mut left.give_ups);
                    state.asked = state.asked.and(step.map_or(Set::EMPTY, |step| self.member(step)));
                }
                state.workers.iter_mut().for_each(|worker| worker.of = worker.of.filter(|of| *of != at.0));
            }
            Transition::Late(step) => {
                state.faults.spend(|left| &mut left.duplicates);
                match Work::on(step) {
                    Some(work) => state.workers.push(Worker { of: None, work }),
                    None => drop(self.carry_out(&mut state.books, step)),
                }
            }
            Transition::Work(index, progress) => self.work(state, index, progress),
            Transition::End(execution) => {
                state.faults.spend(|left| &mut left.deaths);
                remove(state, execution);
            }
            Transition::Start => {
                state.drives.drive(self.scope, is_idle(state), &mut state.faults);
                state.executions.push(self.automaton.start());
            }
            Transition::Redrive => {
                state.parked = false;
                state.drives.redrive(self.scope, state.books.status);
                state.books.redrive();
                state.executions.push(self.automaton.start());
            }
            Transition::GiveUpDriving => {
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
            // What can be asked for may be carried out at any time, before it is asked for or after.
            let open = state.executions.iter().flat_map(|place| self.automaton.tasks(*place));
            let steps = open.filter(|task| self.is_carried_out(task)).filter_map(|task| task.sends.step());
            state.asked = steps.fold(state.asked, |asked, step| asked.and(self.member(step)));
        }
        self.arrange_parts(state);
        if state.workers.len() > 1 {
            state.workers.sort_by_cached_key(code);
        }
    }

    #[cfg(test)]
    pub(crate) fn in_order(&self, state: &State) -> State {
        let mut state = state.clone();
        self.arrange(&mut state);
        state
    }

    /// Parts are alike, so of the states that differ only in which is which, one is enough: the least. Only orders in which
    /// what the tables hold of the parts is sorted can be that of the least, and they are few.
    fn arrange_parts(&self, state: &mut State) {
        let is_sorted = |order: &Order| order.parts.is_sorted_by_key(|part| state.books.of_part(*part));
        let arranged = |(at, order): (usize, &Order)| {
            let asked: Set = state.asked.iter().map(|step| order.steps[usize::from(step)]).collect();
            let mut executions = [Place::MAX; MAX_EXECUTIONS];
            for (arranged, place) in executions.iter_mut().zip(&state.executions) {
                *arranged = order.places[usize::from(*place)];
            }
            let is_swapped = !executions.is_sorted();
            executions.sort_unstable();
            (asked, executions, is_swapped, at)
        };
        let sorted = self.orders.iter().enumerate().filter(|(_, order)| !self.parts_are_alike || is_sorted(order));
        if let Some((asked, executions, is_swapped, at)) = sorted.map(arranged).min() {
            state.asked = asked;
            let count = state.executions.len();
            state.executions.copy_from_slice(&executions[..count]);
            state.books.arrange(&self.orders[at].parts);
            if is_swapped {
                state.workers.iter_mut().for_each(|worker| worker.of = worker.of.map(|of| 1 - of));
            }
        }
    }
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

impl Model for Orchestration {
    type State = State;
    type Action = Transition;

    fn init_states(&self) -> Vec<State> {
        let accepted = |books| State {
            books,
            executions: vec![self.automaton.start()],
            workers: Vec::new(),
            asked: Set::EMPTY,
            parked: false,
            answered: [false; 2],
            faults: self.faults,
            drives: Drives::default(),
        };
        Books::all(self.scope, self.twin).into_iter().map(accepted).collect()
    }

    fn actions(&self, state: &State, transitions: &mut Vec<Transition>) {
        let faults = state.faults;
        for (execution, place) in state.executions.iter().enumerate() {
            for (task, it) in self.automaton.tasks(*place).iter().enumerate() {
                let (at, step) = ((execution, task), it.sends.step());
                if !self.is_carried_out(it) {
                    transitions.push(Transition::GiveUp(at, step)); // it fails each time
                    continue;
                }
                let begins = step.is_some_and(|step| Work::on(step).is_some());
                let is_at_work = state.workers.iter().any(|worker| worker.of == Some(execution));
                if !begins || (!is_at_work && state.workers.len() < MAX_WORKERS) {
                    transitions.push(Transition::Run(at, step));
                }
                let is_late_anyway = !faults.is_bounded() && self.twin != Some(Twin::EffectAndRecordApart);
                if !begins && !is_late_anyway && faults.allow(|left| left.deaths) {
                    transitions.push(Transition::LoseReply(at, step));
                }
                if faults.allow(|left| left.give_ups) {
                    transitions.push(Transition::GiveUp(at, step));
                }
            }
        }
        if faults.allow(|left| left.duplicates) {
            let can_begin = |step: &Step| Work::on(*step).is_none() || state.workers.len() < MAX_WORKERS;
            transitions.extend(self.steps(state.asked).filter(can_begin).map(Transition::Late));
        }
        let is_leased = state.workers.iter().any(|worker| worker.work.is_leased(&state.books));
        for (index, worker) in state.workers.iter().enumerate() {
            let progress = worker.work.progress(faults, &state.books, is_leased);
            transitions.extend(progress.into_iter().map(|progress| Transition::Work(index, progress)));
            if faults.allow(|left| left.deaths) {
                transitions.push(Transition::Work(index, Progress::Die));
            }
        }
        if faults.allow(|left| left.deaths) {
            transitions.extend((0..state.executions.len()).map(Transition::End));
        }
        self.starts(state, transitions);
    }

    fn next_state(&self, last: &State, transition: Transition) -> Option<State> {
        let mut state = last.clone();
        self.happens(&mut state, transition);
        (state != *last).then_some(state)
    }

    fn format_action(&self, transition: &Transition) -> String {
        let of = |(execution, _): &At, step: &Option<Step>| {
            let what = step.map_or_else(|| "the message to the parked queue".to_owned(), |step| step.to_string());
            format!("{what} of execution {}", execution + 1)
        };
        match transition {
            Transition::Run(at, step @ Some(Step::Charge | Step::Abort)) => format!("{} begins", of(at, step)),
            Transition::Run(at, step) => format!("{} is done", of(at, step)),
            Transition::LoseReply(at, step) => format!("{} is begun or done, and its reply gets lost", of(at, step)),
            Transition::GiveUp(at, step) => format!("{} is given up", of(at, step)),
            Transition::Late(step) => format!("{step}, asked for before, is carried out late or again"),
            Transition::Work(worker, progress) => progress.in_words(*worker),
            Transition::End(execution) => format!("execution {} ends where it is", execution + 1),
            Transition::Start => "another execution begins".into(),
            Transition::Redrive => "the parked message is put back, and another execution begins".into(),
            Transition::GiveUpDriving => "the reconciler drives the booking no more, and calls the operator".into(),
        }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = properties::common(self.scope, self.faults);
        properties.push(Property::<Self>::always("one decision is answered", |_, state| {
            state.answered != [true; 2] && !state.books.contradiction
        }));
        properties.push(Property::<Self>::sometimes("a charge that was given up turns out to be made", |_, state| {
            properties::is_charged_after_all(&state.books)
        }));
        if self.executions > 1 {
            properties.push(Property::<Self>::sometimes(
                "two executions of one booking",
                |_, state| matches!(state.executions.as_slice(), [first, second] if first != second),
            ));
        }
        properties
    }
}

impl Orchestration {
    /// How another execution may begin, or the booking be given up.
    fn starts(&self, state: &State, transitions: &mut Vec<Transition>) {
        let is_idle = is_idle(state);
        let next = state.drives.next(self.scope, is_idle, state.faults).filter(|_| state.books.is_driven());
        let may_drive = matches!(next, Some(Drive::Again(_))) && self.twin != Some(Twin::NoReconciler);
        if (may_drive || !state.faults.is_bounded()) && state.executions.len() < self.executions {
            transitions.push(Transition::Start);
        }
        if state.parked
            && state.executions.is_empty()
            && !state.books.has_ended()
            && state.drives.may_redrive(self.scope)
        {
            transitions.push(Transition::Redrive);
        }
        // Where faults are not counted drives are not, either: it may give up at any time.
        let gives_up = next == Some(Drive::GiveUp) || (!state.faults.is_bounded() && state.books.is_driven());
        if gives_up {
            transitions.push(Transition::GiveUpDriving);
        }
    }
}
