//! What the checker finds, to the state: a rule that is changed changes the numbers, and somebody has to look why.

use model::{Faults, Run, Variant};

#[test]
fn the_invariants_hold_in_every_world() {
    let expected = [
        (Variant::Choreographed, "anything, without end", 223_003),
        (Variant::Orchestrated(1), "anything, without end", 997_711),
        (Variant::Choreographed, "nothing goes wrong", 6_188),
        (Variant::Choreographed, "duplicate", 59_212),
        (Variant::Choreographed, "death", 49_111),
        (Variant::Choreographed, "given up", 162_869),
        (Variant::Choreographed, "silence", 6_221),
        (Variant::Choreographed, "early drive", 304_987),
        (Variant::Choreographed, "loss", 43_344),
        (Variant::Choreographed, "parked", 55_539),
        (Variant::Orchestrated(2), "nothing goes wrong", 62),
        (Variant::Orchestrated(2), "duplicate", 245),
        (Variant::Orchestrated(2), "death", 558),
        (Variant::Orchestrated(2), "given up", 677),
        (Variant::Orchestrated(2), "silence", 88),
        (Variant::Orchestrated(2), "early drive", 577),
    ];
    let mut found = Vec::new();
    for run in Run::bounded() {
        let checked = run.check();
        assert!(checked.violations.is_empty(), "{:?}, {}: {:#?}", run.variant, run.name, checked.violations);
        if run.faults == Faults::Unbounded {
            assert!(checked.unseen.is_empty(), "{:?}, {}: never {:?}", run.variant, run.name, checked.unseen);
        }
        found.push((run.variant, run.name, checked.states));
    }
    let found: Vec<_> = found.iter().map(|(variant, name, states)| (*variant, name.as_str(), *states)).collect();
    assert_eq!(found, expected);
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
    assert_eq!(broken.len(), 18);
}
