//! Where an execution of the deployed state machine can be, and where each reply leads from there.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, LazyLock, Mutex},
};

use saga::{Outcome, Reply, Step};
use serde_json::{Value, json};

use crate::{
    Scope, Twin,
    scope::{PARTS, place_of},
    state_machine::{Machine, Sends},
};

/// The number of a place in an [`Automaton`].
pub(crate) type Place = u16;

/// Where executions can be. Those from which everything that follows is the same are one place.
#[derive(Debug)]
pub(crate) struct Automaton {
    scope: Scope,
    places: Vec<Vec<Task>>,
    start: Place,
    /// Each order of the parts, with the place where an execution would be if the parts had changed places so. The first
    /// is that in which they are.
    orders: Vec<(Vec<usize>, Vec<Place>)>,
}

/// A task that is open at a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Task {
    pub(crate) sends: Sends,
    /// Where each reply leads. Of a message there is one; of a command that is refused, none.
    replies: Vec<Place>,
    given_up: Place,
}

type Known = HashMap<(Scope, Option<Twin>), Arc<Automaton>>;
static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

impl Automaton {
    /// The state machine that is deployed, or that of a twin, with a booking of so many parts. It is followed once.
    pub(crate) fn of(scope: Scope, twin: Option<Twin>) -> Arc<Self> {
        let scope = Scope::of(scope.parts()); // who sells what makes no difference to it
        let twin = twin.filter(|twin| Machine::differs(*twin));
        let mut known = KNOWN.lock().unwrap_or_else(|error| panic!("{error}"));
        let automaton = known.entry((scope, twin)).or_insert_with(|| Arc::new(Self::follow(scope, twin)));
        Arc::clone(automaton)
    }

    fn follow(scope: Scope, twin: Option<Twin>) -> Self {
        let machine = Machine::of(scope, twin);
        let start = machine.begin();
        let (mut known, mut open) = (HashMap::from([(start.clone(), 0)]), vec![start]);
        let mut places = Vec::new();
        while places.len() < open.len() {
            let execution = open[places.len()].clone();
            let mut number = |execution| {
                *known.entry(execution).or_insert_with_key(|execution| {
                    open.push(execution.clone());
                    Place::try_from(open.len() - 1).unwrap_or_else(|_| panic!("too many places in the state machine"))
                })
            };
            let tasks = machine.tasks(&execution).into_iter().map(|iteration| {
                let sends = machine.sends(&execution, iteration);
                let results = match sends {
                    Sends::Message => vec![json!({})],
                    Sends::Command(step) => {
                        let outcomes = scope.booking().outcomes(step).into_iter();
                        outcomes.map(|outcome| payload(scope, step, outcome)).collect()
                    }
                    Sends::Refused(_) => Vec::new(),
                };
                let replies = results.into_iter().map(|result| number(machine.reply(&execution, iteration, result)));
                let replies = replies.collect();
                Task { sends, replies, given_up: number(machine.give_up(&execution, iteration)) }
            });
            places.push(tasks.collect());
        }
        Self { scope, places, start: 0, orders: Vec::new() }.merged().with_orders()
    }

    /// Where an execution begins.
    pub(crate) const fn start(&self) -> Place {
        self.start
    }

    /// The tasks that are open at a place: none if the execution has ended.
    pub(crate) fn tasks(&self, place: Place) -> &[Task] {
        &self.places[usize::from(place)]
    }

    /// Each order of the parts, with the number that each place has then.
    pub(crate) fn orders(&self) -> &[(Vec<usize>, Vec<Place>)] {
        &self.orders
    }

    /// Parts are alike to the state machine too: after any change of places it is the same automaton. That is found out
    /// here, and not assumed.
    fn with_orders(mut self) -> Self {
        let orders = orders(self.scope.parts()).into_iter();
        self.orders = orders.map(|order| (order.clone(), self.renamed(&order))).collect();
        self
    }

    fn renamed(&self, order: &[usize]) -> Vec<Place> {
        let mut names = vec![None; self.places.len()];
        let mut open = vec![(self.start, self.start)];
        while let Some((place, other)) = open.pop() {
            match names[usize::from(place)] {
                Some(name) => assert_eq!(name, other, "the state machine treats the parts differently"),
                None => {
                    names[usize::from(place)] = Some(other);
                    for task in self.tasks(place) {
                        let sends = sent_when_moved(task.sends, order);
                        let same = self.tasks(other).iter().find(|other| other.sends == sends);
                        let same = same.unwrap_or_else(|| panic!("{sends:?} is not asked for as {:?} is", task.sends));
                        open.extend(task.replies.iter().copied().zip(same.replies.iter().copied()));
                        open.push((task.given_up, same.given_up));
                    }
                }
            }
        }
        names.into_iter().map(|name| name.unwrap_or_else(|| panic!("a place is not reached"))).collect()
    }

    /// Makes one place of all from which the same follows.
    fn merged(self) -> Self {
        let mut class_of = vec![0; self.places.len()];
        let mut count = 1;
        loop {
            let mut classes = HashMap::new();
            let next: Vec<Place> = self
                .places
                .iter()
                .enumerate()
                .map(|(place, tasks)| {
                    let seen: Vec<_> = tasks.iter().map(|task| task.renumbered(&class_of)).collect();
                    let fresh = classes.len() as Place; // fewer than places
                    *classes.entry((class_of[place], seen)).or_insert(fresh)
                })
                .collect();
            let is_stable = classes.len() == count;
            (class_of, count) = (next, classes.len());
            if is_stable {
                break;
            }
        }
        let mut places = vec![Vec::new(); count];
        for (place, tasks) in self.places.iter().enumerate() {
            places[usize::from(class_of[place])] = tasks.iter().map(|task| task.renumbered(&class_of)).collect();
        }
        Self { places, start: class_of[usize::from(self.start)], ..self }
    }
}

/// Every order in which so many parts can stand: at each place, which of them stands there then.
fn orders(parts: usize) -> Vec<Vec<usize>> {
    let Some(last) = parts.checked_sub(1) else { return vec![Vec::new()] };
    let with_last = |order: Vec<usize>| {
        (0..=order.len()).rev().map(move |at| {
            let mut order = order.clone();
            order.insert(at, last);
            order
        })
    };
    orders(last).into_iter().flat_map(with_last).collect()
}

/// The step that a part's step becomes when the parts change places.
pub(crate) fn moved(step: Step, order: &[usize]) -> Step {
    let to = |part| {
        let to = order.iter().position(|from| *from == place_of(part));
        PARTS[to.unwrap_or_else(|| panic!("{part} has no place in {order:?}"))]
    };
    match step {
        Step::Reserve(part) => Step::Reserve(to(part)),
        Step::Cancel(part) => Step::Cancel(to(part)),
        step => step,
    }
}

/// What is sent when the parts have changed places.
fn sent_when_moved(sends: Sends, order: &[usize]) -> Sends {
    match sends {
        Sends::Message => Sends::Message,
        Sends::Command(step) => Sends::Command(moved(step, order)),
        Sends::Refused(step) => Sends::Refused(moved(step, order)),
    }
}

impl Task {
    /// Where the execution goes with this reply.
    pub(crate) fn after(&self, scope: Scope, outcome: Option<&Outcome>) -> Place {
        let at = match (self.sends.step(), outcome) {
            (Some(step), Some(outcome)) => scope.booking().outcomes(step).iter().position(|other| other == outcome),
            _ => Some(0),
        };
        self.replies[at.unwrap_or_else(|| panic!("{:?} does not answer {outcome:?}", self.sends))]
    }

    /// Where it goes when the task is given up.
    pub(crate) const fn given_up(&self) -> Place {
        self.given_up
    }

    fn renumbered(&self, numbers: &[Place]) -> Self {
        let number = |place: &Place| numbers[usize::from(*place)];
        Self { sends: self.sends, replies: self.replies.iter().map(number).collect(), given_up: number(&self.given_up) }
    }
}

fn payload(scope: Scope, step: Step, outcome: Outcome) -> Value {
    json!({ "Payload": Reply { booking_id: scope.booking().booking_id.clone(), step, outcome } })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::MAX_PARTS;

    #[test]
    fn the_state_machine_is_this_automaton() {
        for parts in 1..=MAX_PARTS {
            let scope = Scope::of(parts);
            let automaton = Automaton::of(scope, None);
            // While parts are reserved: which are done, and whether one was not reserved. The same while they are cancelled.
            let subsets = 1 << parts;
            assert_eq!(automaton.places.len(), 2 * (subsets - 1) + 2 * (subsets - 2) + 7, "{parts} parts");
            // The JSONata library has the fields of an object in an order of its own.
            let sends = automaton.tasks(automaton.start()).iter().map(|task| task.sends);
            let reserves = scope.names().iter().map(|part| Sends::Command(Step::Reserve(*part)));
            assert_eq!(sends.collect::<HashSet<_>>(), reserves.collect());
            let ends = automaton.places.iter().filter(|tasks| tasks.is_empty()).count();
            assert_eq!(ends, 1, "nothing follows from any of its ends, so they are one");
        }
    }

    #[test]
    fn a_state_machine_that_does_not_look_is_refused_only_where_a_part_is_not_reserved() {
        let sends = |twin| {
            let automaton = Automaton::of(Scope::of(2), twin);
            let tasks = automaton.places.iter().flatten().map(|task| task.sends);
            let of_charge = tasks.filter(|sends| sends.step() == Some(Step::Charge));
            of_charge.collect::<HashSet<_>>()
        };
        let (charged, refused) = (Sends::Command(Step::Charge), Sends::Refused(Step::Charge));
        assert_eq!(sends(None), [charged].into());
        assert_eq!(sends(Some(Twin::ChargeWithoutLooking)), [charged, refused].into());
    }

    #[test]
    fn there_is_each_order_once_and_the_first_changes_nothing() {
        for (parts, count) in [(1, 1), (2, 2), (3, 6), (4, 24)] {
            let mut orders = orders(parts);
            assert!(orders[0].is_sorted());
            orders.sort();
            orders.dedup();
            assert_eq!(orders.len(), count);
        }
    }
}
