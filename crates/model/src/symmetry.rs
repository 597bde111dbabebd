//! That states which differ only in which part is which are one makes no difference: everything is explored as it is, and
//! the states that are found, put in order, are those that are found in order.

use std::collections::HashSet;

use stateright::Model;

use crate::{Budget, Faults, Scope, Variant, choreography::Choreography, orchestration::Orchestration, work::code};

/// How many states there are as they are, and how many if each is put in order.
fn explore<M: Model>(model: &M, in_order: impl Fn(&M::State) -> M::State) -> (usize, usize)
where
    M::State: std::hash::Hash,
{
    let (mut known, mut ordered) = (HashSet::new(), HashSet::new());
    let mut open = model.init_states();
    while let Some(state) = open.pop() {
        if known.insert(code(&state)) {
            ordered.insert(code(&in_order(&state)));
            open.extend(model.next_states(&state));
        }
    }
    (known.len(), ordered.len())
}

fn worlds(variant: Variant) -> impl Iterator<Item = (&'static str, Faults)> {
    let nothing = ("nothing goes wrong", Budget::NOTHING);
    [nothing].into_iter().chain(Budget::of(variant)).map(|(name, budget)| (name, Faults::Bounded(budget)))
}

/// Counts the states as they are and in order, and says how many there are in order anyway.
fn compare(variant: Variant, scope: Scope, faults: Faults) -> (usize, usize, usize) {
    match variant {
        Variant::Choreographed => {
            let model = |parts_are_alike| Choreography { scope, faults, twin: None, parts_are_alike };
            let (plain, alike) = (model(false), model(true));
            let (all, ordered) = explore(&plain, |state| alike.in_order(state));
            (all, ordered, explore(&alike, Clone::clone).0)
        }
        Variant::Orchestrated(executions) => {
            let model = |parts_are_alike| Orchestration::new(scope, faults, None, executions, parts_are_alike);
            let (plain, alike) = (model(false), model(true));
            let (all, ordered) = explore(&plain, |state| alike.in_order(state));
            (all, ordered, explore(&alike, Clone::clone).0)
        }
    }
}

#[test]
fn in_order_there_are_the_states_that_there_are() {
    for variant in [Variant::Choreographed, Variant::Orchestrated(2)] {
        for scope in [Scope::of(2), Scope::of(3), Scope::with_unsold(3)] {
            for (name, faults) in worlds(variant) {
                let is_large = variant == Variant::Choreographed && scope == Scope::of(3);
                if is_large && !matches!(name, "nothing goes wrong" | "silence" | "loss") {
                    continue; // a hundred thousands of states are enough
                }
                let (all, ordered, in_order) = compare(variant, scope, faults);
                assert_eq!(ordered, in_order, "{variant}, {scope}, {name}");
                assert!(all > in_order, "{variant}, {scope}, {name}: there is nothing to put in order");
            }
        }
    }
}
