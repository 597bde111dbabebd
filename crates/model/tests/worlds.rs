//! What the checker finds, to the state: a rule that is changed changes the numbers in `counts.txt`, and somebody has to
//! look why.

use std::collections::BTreeSet;

use model::{Faults, Run, Scope, Twin, Variant};

#[test]
fn the_invariants_hold_in_every_world() {
    for run in Run::bounded() {
        holds(&run);
    }
}

#[test]
fn a_state_machine_that_does_not_look_is_refused_by_payment() {
    for run in Run::guarded() {
        holds(&run);
    }
}

fn holds(run: &Run) {
    let checked = run.check();
    assert!(checked.violations.is_empty(), "{run}: {:#?}", checked.violations);
    // With a safeguard less, some of what is interesting may not come about.
    if run.faults == Faults::Unbounded && run.twin.is_none() {
        assert!(checked.unseen.is_empty(), "{run}: never {:?}", checked.unseen);
    }
    assert_eq!(Some(checked.states), run.expected(), "{run}");
}

#[test]
fn every_world_has_its_count_and_every_count_its_world() {
    let counts = include_str!("../counts.txt").lines().filter_map(|line| line.rsplit_once(": "));
    let counts: BTreeSet<_> = counts.map(|(run, _)| run.to_owned()).collect();
    let runs = [Run::bounded(), Run::whole(), Run::guarded()].concat();
    assert_eq!(counts, runs.iter().map(Run::to_string).collect());
}

#[test]
fn without_any_safeguard_something_breaks() {
    let mut broken = Vec::new();
    for run in Run::twins(true) {
        let checked = run.check();
        let violated = checked.violations.first().map(|(property, _)| *property);
        assert!(violated.is_some(), "{:?} without {}: the checker does not notice", run.variant, run.name);
        broken.push(run.twin);
    }
    assert_eq!(broken.len(), 22);
}

#[test]
fn what_nobody_sells_is_noticed_only_because_somebody_looks_after_what_is_stuck() {
    let unsold = Run::bounded().into_iter().filter(|run| run.scope == Scope::with_unsold(2));
    // The state machine parks the booking itself, unless it dies.
    let is_noticed = |run: &Run| run.variant == Variant::Choreographed || run.name == "death";
    for run in unsold.filter(is_noticed) {
        let checked = Run { twin: Some(Twin::NoReconciler), ..run.clone() }.check();
        let violated: Vec<_> = checked.violations.iter().map(|(property, _)| *property).collect();
        assert_eq!(violated, ["an operator is called in the end"], "{run}");
    }
}
