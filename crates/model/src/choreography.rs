//! The choreographed variant: participants react to events, and nobody knows the whole flow.

use saga::{EventType, Outcome, Status, Step, claim::Drive, payment::Aborting, payment::Charging};
use stateright::{Model, Property};

use crate::{
    Faults, Scope, Twin,
    books::Books,
    deliveries::{Deliveries, Reaction},
    drives::Drives,
    properties::{self, Situation},
    set::{Id, Set},
    work::{MAX_WORKERS, Progress, Work, code},
};

/// Somebody at payment who is between two moves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Worker {
    /// Whose message it works on, where that matters.
    of: Option<Id>,
    work: Work,
}

/// How everything stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// What the tables hold.
    pub books: Books,
    /// What has been published so far.
    published: Set,
    /// What has to be handled yet.
    waiting: Set,
    /// What is in a dead-letter queue.
    parked: Set,
    workers: Vec<Worker>,
    /// What may still go wrong.
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

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// A message is handled: what it leads to is done, published and acknowledged; or a worker begins.
    Handle(Id),
    /// A message is handled, and its handler dies after the (first) write, before anything is published.
    HandleAndDie(Id),
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
    /// The reconciler publishes once more that the booking was requested.
    Drive,
    /// The reconciler has driven the booking often enough, and calls the operator.
    GiveUpDriving,
    /// Something happens to a worker.
    Work(usize, Progress),
    /// A worker that is done publishes what came of it, and its message is acknowledged.
    Publish(usize),
    /// It publishes, and dies before it returns: its message comes again.
    PublishAndDie(usize),
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Choreography {
    /// How many parts the booking has.
    pub scope: Scope,
    /// What may go wrong.
    pub faults: Faults,
    /// The safeguard that is taken out.
    pub twin: Option<Twin>,
    /// Whether states that differ only in which part is which are one: not where somebody is to read what happens.
    pub parts_are_alike: bool,
}

impl Choreography {
    fn deliveries(&self) -> &'static Deliveries {
        Deliveries::of(self.scope)
    }

    fn publish(&self, state: &mut State, to: Set) {
        let to = to.without(self.deliveries().to_nobody(self.scope));
        state.published = state.published.and(to);
        state.waiting = state.waiting.and(to);
    }

    fn publish_outcome(&self, state: &mut State, cause: Option<Id>, step: Step, outcome: &Outcome) {
        let deliveries = self.deliveries();
        let cause = cause.unwrap_or_else(|| deliveries.any_cause(step));
        self.publish(state, deliveries.after(cause, step, outcome));
    }

    /// The handler of a message does everything that it leads to; payment begins to.
    fn handle(&self, state: &mut State, id: Id) {
        match self.deliveries().get(id).reaction {
            Reaction::Reserve(part) => {
                let outcome = state.books.reserve(part);
                self.publish_outcome(state, Some(id), Step::Reserve(part), &outcome);
            }
            Reaction::Cancel(part) => {
                let outcome = state.books.cancel(part, self.twin);
                self.publish_outcome(state, Some(id), Step::Cancel(part), &outcome);
            }
            Reaction::Confirm => self.end(state, id, Step::Confirm),
            Reaction::CollectCancelled(part) => {
                if state.books.collect_cancelled(part, self.twin) {
                    self.end(state, id, Step::Fail);
                }
            }
            Reaction::CollectPrice(part) => {
                if state.books.collect_price(part, self.twin).is_some() {
                    state.workers.extend(Work::on(Step::Charge).map(|work| Worker { of: Some(id), work }));
                    return;
                }
            }
            Reaction::Abort if self.twin == Some(Twin::CancelWithoutDecision) => {
                self.publish(state, self.deliveries().of_event(EventType::Aborted));
            }
            Reaction::Abort => {
                state.workers.extend(Work::on(Step::Abort).map(|work| Worker { of: Some(id), work }));
                return;
            }
        }
        state.waiting = state.waiting.without(Set::of(id));
    }

    fn end(&self, state: &mut State, id: Id, step: Step) {
        if let Some(outcome) = state.books.end(step) {
            self.publish_outcome(state, Some(id), step, &outcome);
        }
    }

    /// The same, as far as the first write.
    fn handle_and_die(&self, state: &mut State, id: Id) {
        let delivery = self.deliveries().get(id);
        match delivery.reaction {
            Reaction::CollectCancelled(part) => {
                state.books.collect_cancelled(part, self.twin);
            }
            Reaction::CollectPrice(part) => {
                state.books.collect_price(part, self.twin);
            }
            Reaction::Abort => {}
            Reaction::Reserve(part) if self.twin == Some(Twin::EffectAndRecordApart) => {
                state.books.take_unrecorded(part);
            }
            Reaction::Reserve(_) | Reaction::Cancel(_) | Reaction::Confirm => {
                let before = (state.published, state.waiting);
                self.handle(state, id);
                (state.published, state.waiting) = before; // it is done, and nobody knows
            }
        }
        if self.twin == Some(Twin::AcknowledgeThenPublish) && !delivery.can_be_given_up {
            state.waiting = state.waiting.without(Set::of(id));
        }
    }

    /// A worker that is done publishes what came of it, and is gone. Returns its message.
    fn finish(&self, state: &mut State, index: usize) -> Set {
        let Worker { of, work } = state.workers.remove(index);
        if let Some((step, outcome)) = work.done() {
            self.publish_outcome(state, of, step, &outcome);
        }
        of.map_or(Set::EMPTY, Set::of)
    }

    fn work(&self, state: &mut State, index: usize, progress: Progress) {
        progress.spend(&mut state.faults);
        if progress == Progress::Die {
            state.workers.remove(index);
            return;
        }
        let Worker { of, work } = state.workers[index].clone();
        let work = work.moved(&mut state.books, progress, self.twin);
        if self.twin == Some(Twin::PublishThenVoid) && matches!(work, Work::Abort(Aborting::Fenced { .. })) {
            self.publish_outcome(state, of, Step::Abort, &Outcome::Aborted { reason: None });
        }
        if work == Work::Charge(Charging::Done(None)) {
            state.workers.remove(index); // an error: the message comes again
        } else {
            state.workers[index].work = work;
        }
    }

    fn happens(&self, state: &mut State, transition: Transition) {
        match transition {
            Transition::Handle(id) => self.handle(state, id),
            Transition::HandleAndDie(id) => {
                state.faults.spend(|left| &mut left.deaths);
                self.handle_and_die(state, id);
            }
            Transition::Lose(id) => {
                state.faults.spend(|left| &mut left.losses);
                state.waiting = state.waiting.without(Set::of(id));
            }
            Transition::Repeat(id) => {
                state.faults.spend(|left| &mut left.duplicates);
                state.waiting = state.waiting.and(Set::of(id));
            }
            Transition::GiveUp(id) => {
                state.faults.spend(|left| &mut left.give_ups);
                state.waiting = state.waiting.without(Set::of(id));
                let record = self.deliveries().get(id).record.map_or(Set::EMPTY, Set::of);
                self.publish(state, record);
            }
            Transition::Park(id) => {
                state.faults.spend(|left| &mut left.parks);
                state.waiting = state.waiting.without(Set::of(id));
                state.parked = state.parked.and(Set::of(id));
            }
            Transition::Redrive(id) => {
                state.parked = state.parked.without(Set::of(id));
                state.waiting = state.waiting.and(Set::of(id));
            }
            Transition::CallOperator | Transition::GiveUpDriving => {
                state.books.end(Step::Park);
            }
            Transition::Drive => {
                if is_asked_for(state) {
                    state.drives.redrive(self.scope, state.books.status);
                    state.books.redrive(); // at the operator's option
                } else {
                    state.drives.drive(self.scope, is_idle(state), &mut state.faults);
                }
                self.publish(state, self.deliveries().of_event(EventType::Requested));
            }
            Transition::Work(index, progress) => self.work(state, index, progress),
            Transition::Publish(index) => {
                let acknowledged = self.finish(state, index);
                state.waiting = state.waiting.without(acknowledged);
            }
            Transition::PublishAndDie(index) => {
                state.faults.spend(|left| &mut left.deaths);
                self.finish(state, index);
            }
        }
        self.arrange(state);
    }

    /// What does not matter is made alike.
    fn arrange(&self, state: &mut State) {
        if !state.faults.is_bounded() {
            // Whatever was published can be handled again anyway: neither what waits nor whose message it was matters.
            state.waiting = Set::EMPTY;
            state.workers.iter_mut().for_each(|worker| worker.of = None);
        }
        if self.parts_are_alike {
            self.arrange_parts(state);
        }
        if state.workers.len() > 1 {
            state.workers.sort_by_cached_key(|worker| (worker.of, code(&worker.work)));
        }
    }

    #[cfg(test)]
    pub(crate) fn in_order(&self, state: &State) -> State {
        let mut state = state.clone();
        self.arrange(&mut state);
        state
    }

    /// Parts are alike in everything, so of the states that differ only in which of them is which, one is enough: that in
    /// which they stand in order. Everything that there is of one part is in the key.
    fn arrange_parts(&self, state: &mut State) {
        let (parts, width) = (self.scope.parts(), self.deliveries().width);
        let key = |part: usize| {
            let slice = |set: Set| set.slice(part * width, width);
            let works = state.workers.iter().filter_map(|worker| {
                let of = usize::from(worker.of?);
                (of / width == part).then(|| (of % width, code(&worker.work)))
            });
            let mut works: Vec<_> = works.collect();
            works.sort_unstable();
            (state.books.of_part(part), slice(state.published), slice(state.waiting), slice(state.parked), works)
        };
        let mut keys: Vec<_> = (0..parts).map(|part| (key(part), part)).collect();
        keys.sort_unstable();
        let order: Vec<_> = keys.iter().map(|(_, part)| *part).collect();
        if order.is_sorted() {
            return;
        }
        for set in [&mut state.published, &mut state.waiting, &mut state.parked] {
            *set = set.arranged(&order, width);
        }
        let place = |id: Id| Set::of(id).arranged(&order, width).iter().next().unwrap_or(id); // there is one
        state.workers.iter_mut().for_each(|worker| worker.of = worker.of.map(place));
        state.books.arrange(&order);
    }
}

/// Whether nobody works on the booking any more, and no message about it is under way.
fn is_idle(state: &State) -> bool {
    state.waiting.is_empty() && state.parked.is_empty() && state.workers.is_empty()
}

/// Whether the operator has the booking driven again: it waits for one, and no message does.
fn is_asked_for(state: &State) -> bool {
    state.books.status == Status::NeedsOperator && is_idle(state)
}

impl Model for Choreography {
    type State = State;
    type Action = Transition;

    fn init_states(&self) -> Vec<State> {
        let accepted = |books| {
            let mut state = State {
                books,
                published: Set::EMPTY,
                waiting: Set::EMPTY,
                parked: Set::EMPTY,
                workers: Vec::new(),
                faults: self.faults,
                drives: Drives::default(),
            };
            self.publish(&mut state, self.deliveries().of_event(EventType::Requested));
            self.arrange(&mut state);
            state
        };
        Books::all(self.scope, self.twin).into_iter().map(accepted).collect()
    }

    fn actions(&self, state: &State, transitions: &mut Vec<Transition>) {
        let (faults, deliveries) = (state.faults, self.deliveries());
        let can_be_handled = if faults.is_bounded() {
            state.waiting
        } else {
            let records = state.published.iter().filter_map(|id| deliveries.get(id).record);
            state.published.and(records.collect())
        };
        for id in can_be_handled.iter() {
            let delivery = deliveries.get(id);
            let is_at_work = state.workers.iter().any(|worker| worker.of == Some(id));
            if !delivery.reaction.is_of_payment()
                || (state.workers.len() < MAX_WORKERS && (!is_at_work || !faults.is_bounded()))
            {
                transitions.push(Transition::Handle(id));
            }
            if faults.allow(|left| left.deaths) && !is_at_work {
                transitions.push(Transition::HandleAndDie(id));
            }
            if faults.is_bounded() {
                if faults.allow(|left| left.losses) && !is_at_work {
                    transitions.push(Transition::Lose(id));
                }
                if faults.allow(|left| left.give_ups) && delivery.can_be_given_up {
                    transitions.push(Transition::GiveUp(id));
                }
                if faults.allow(|left| left.parks) && !delivery.can_be_given_up && !is_at_work {
                    transitions.push(Transition::Park(id));
                }
            }
        }
        if faults.is_bounded() && faults.allow(|left| left.duplicates) {
            transitions.extend(state.published.without(state.waiting).iter().map(Transition::Repeat));
        }
        transitions.extend(state.parked.iter().map(Transition::Redrive));
        if !state.parked.is_empty() || (!faults.is_bounded() && state.books.status == Status::Pending) {
            transitions.push(Transition::CallOperator);
        }
        let is_idle = is_idle(state);
        if state.books.is_driven() {
            match state.drives.next(self.scope, is_idle, faults) {
                Some(Drive::Again(_)) if self.twin != Some(Twin::NoReconciler) => transitions.push(Transition::Drive),
                Some(Drive::GiveUp) => transitions.push(Transition::GiveUpDriving),
                _ => {}
            }
        } else if is_asked_for(state) && state.drives.may_redrive(self.scope) {
            transitions.push(Transition::Drive);
        }
        let is_leased = state.workers.iter().any(|worker| worker.work.is_leased(&state.books));
        for (index, worker) in state.workers.iter().enumerate() {
            if faults.allow(|left| left.deaths) {
                transitions.push(Transition::Work(index, Progress::Die));
            }
            if worker.work.done().is_some() {
                transitions.push(Transition::Publish(index));
                // Without bounds it is the same: the message can be handled again anyway.
                if faults.is_bounded() && faults.allow(|left| left.deaths) {
                    transitions.push(Transition::PublishAndDie(index));
                }
                continue;
            }
            let progress = worker.work.progress(faults, &state.books, is_leased);
            transitions.extend(progress.into_iter().map(|progress| Transition::Work(index, progress)));
        }
    }

    fn next_state(&self, last: &State, transition: Transition) -> Option<State> {
        let mut state = last.clone();
        self.happens(&mut state, transition);
        (state != *last).then_some(state)
    }

    fn format_action(&self, transition: &Transition) -> String {
        let on = |id: &Id| self.deliveries().get(*id).to_string();
        match transition {
            Transition::Handle(id) => format!("{} arrives, and is handled", on(id)),
            Transition::HandleAndDie(id) => format!("{} arrives, and its handler dies after the first write", on(id)),
            Transition::Lose(id) => format!("{} gets lost", on(id)),
            Transition::Repeat(id) => format!("{} is sent twice", on(id)),
            Transition::GiveUp(id) => format!("{} is given up", on(id)),
            Transition::Park(id) => format!("{} is parked in a dead-letter queue", on(id)),
            Transition::Redrive(id) => format!("{} is put back by the operator", on(id)),
            Transition::CallOperator => "the reconciler calls the operator".into(),
            Transition::Drive => "the reconciler publishes booking.requested again".into(),
            Transition::GiveUpDriving => "the reconciler drives the booking no more, and calls the operator".into(),
            Transition::Work(worker, progress) => progress.in_words(*worker),
            Transition::Publish(worker) => format!("payment's worker {worker} publishes its answer"),
            Transition::PublishAndDie(worker) => {
                format!("payment's worker {worker} publishes its answer, and dies before it returns")
            }
        }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = properties::common(self.scope, self.faults);
        properties.push(Property::<Self>::always("one decision is published", |model, state| {
            let is_published = |event| state.published.meets(model.deliveries().of_event(event));
            let both = is_published(EventType::Charged) && is_published(EventType::Aborted);
            !both && !state.books.contradiction
        }));
        properties.push(Property::<Self>::sometimes("a failure is reported after the charge", |_, state| {
            properties::is_charged_after_all(&state.books)
        }));
        properties
    }
}
