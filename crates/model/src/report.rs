use std::{
    fmt::{self, Debug},
    hash::Hash,
    thread,
    time::{Duration, Instant},
};

use ahash::AHashMap;
use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::{
    Budget, Faults, MAX_PARTS, Scope, Twin, choreography::Choreography, orchestration::Orchestration, work::code,
};

/// Who coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Everyone reacts to events.
    Choreographed,
    /// A state machine, with so many executions at a time: one, or one more than there should be.
    Orchestrated(usize),
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Choreographed => f.pad("choreographed"),
            Self::Orchestrated(executions) => f.pad(&format!("orchestrated/{executions}")),
        }
    }
}

/// How many states each run has that is no twin's, but for those in which something stands in for what is missing: a rule
/// that is changed changes the numbers, and somebody has to look why.
const COUNTS: &str = include_str!("../counts.txt");

/// What to explore.
#[derive(Clone, Debug)]
pub struct Run {
    /// Who coordinates.
    pub variant: Variant,
    /// How many parts the booking has, and whether somebody sells them.
    pub scope: Scope,
    /// The world, in words.
    pub name: String,
    /// What may go wrong.
    pub faults: Faults,
    /// What is missing.
    pub twin: Option<Twin>,
    /// Whether states that differ only in which part is which are one. What happens cannot be read then.
    pub parts_are_alike: bool,
}

impl fmt::Display for Run {
    /// `choreographed, 3 parts, duplicate`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.variant, self.scope, self.name)?;
        self.twin.map_or(Ok(()), |twin| write!(f, ", {twin:?}"))
    }
}

/// The number of parts of which everything is explored that is explored at all.
const PARTS: usize = 3;

impl Run {
    /// What is explored with every run of the tests: a world in which everything goes wrong, and one for each thing that
    /// goes wrong once, with bookings of one, two and three parts, and of four as far as that is quick; and the worlds in
    /// which nobody sells a part.
    pub fn bounded() -> Vec<Self> {
        let mut runs: Vec<_> = (1..=PARTS).flat_map(|parts| Self::of_scope(Scope::of(parts))).collect();
        runs.extend(Self::of_scope(Scope::of(MAX_PARTS)).into_iter().filter(Self::is_quick));
        for parts in 2..=PARTS {
            let unsold = Self::of_scope(Scope::with_unsold(parts)).into_iter();
            runs.extend(unsold.filter(|run| run.faults.is_bounded()));
        }
        runs
    }

    /// What is explored beyond that for a whole proof: the other worlds of four parts, and, with three, one for each two
    /// things that go wrong.
    pub fn whole() -> Vec<Self> {
        let mut runs: Vec<_> = Self::of_scope(Scope::of(MAX_PARTS)).into_iter().filter(|run| !run.is_quick()).collect();
        for variant in [Variant::Choreographed, Variant::Orchestrated(2)] {
            let singles = Budget::of(variant);
            for (at, (first, budget)) in singles.iter().enumerate() {
                for (second, other) in &singles[at..] {
                    let both = Faults::Bounded(budget.and(*other));
                    runs.push(Self::new(variant, Scope::of(PARTS), &format!("{first} and {second}"), both));
                }
            }
        }
        runs
    }

    fn of_scope(scope: Scope) -> Vec<Self> {
        let mut runs = vec![
            Self::new(Variant::Choreographed, scope, "anything, without end", Faults::Unbounded),
            Self::new(Variant::Orchestrated(1), scope, "anything, without end", Faults::Unbounded),
        ];
        for variant in [Variant::Choreographed, Variant::Orchestrated(2)] {
            runs.push(Self::new(variant, scope, "nothing goes wrong", Faults::Bounded(Budget::NOTHING)));
            let singles = Budget::of(variant).into_iter();
            runs.extend(singles.map(|(name, budget)| Self::new(variant, scope, name, Faults::Bounded(budget))));
        }
        runs
    }

    /// Whether it takes a second or two with as many parts as there can be.
    fn is_quick(&self) -> bool {
        let is_small = matches!(self.name.as_str(), "nothing goes wrong" | "silence");
        self.faults.is_bounded() && (is_small || self.variant != Variant::Choreographed)
    }

    /// Each safeguard taken out, in a world that is bad enough.
    pub fn twins(parts_are_alike: bool) -> Vec<Self> {
        let variants = [Variant::Choreographed, Variant::Orchestrated(1)].into_iter();
        let of = |variant| {
            Twin::ALL.into_iter().filter(move |twin| twin.is_of(variant)).map(move |twin| Self {
                twin: Some(twin),
                parts_are_alike,
                ..Self::new(variant, Scope::of(PARTS), &format!("{twin:?}"), twin.world())
            })
        };
        variants.flat_map(of).collect()
    }

    /// A safeguard taken out that another stands in for, so that nothing breaks: a state machine that asks for a charge
    /// without looking whether all parts are reserved.
    pub fn guarded() -> Vec<Self> {
        let twin = Twin::ChargeWithoutLooking;
        let runs = (2..=PARTS).flat_map(|parts| Self::of_scope(Scope::of(parts)));
        let runs = runs.filter(|run| twin.is_of(run.variant) && run.variant != Variant::Choreographed);
        runs.map(|run| Self { twin: Some(twin), ..run }).collect()
    }

    fn new(variant: Variant, scope: Scope, name: &str, faults: Faults) -> Self {
        Self { variant, scope, name: name.to_owned(), faults, twin: None, parts_are_alike: true }
    }

    /// How many states there are, as somebody has reviewed it: see `counts.txt`.
    pub fn expected(&self) -> Option<usize> {
        let lines = COUNTS.lines().filter_map(|line| line.rsplit_once(": "));
        let mut found = lines.filter(|(run, _)| *run == self.to_string());
        found.next().and_then(|(_, states)| states.parse().ok())
    }

    /// Explores it.
    pub fn check(&self) -> Checked {
        let Self { scope, faults, twin, parts_are_alike, .. } = *self;
        match self.variant {
            Variant::Choreographed => self.check_model(&Choreography { scope, faults, twin, parts_are_alike }),
            Variant::Orchestrated(executions) => {
                self.check_model(&Orchestration::new(scope, faults, twin, executions, parts_are_alike))
            }
        }
    }

    fn check_model<M>(&self, model: &M) -> Checked
    where
        M: Model + Clone + Send + Sync + 'static,
        M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
        M::Action: Clone + Debug + PartialEq + Send + Sync,
    {
        let began = Instant::now();
        // Both explore everything, one in breadth and one in depth.
        let (mut checked, loops) = thread::scope(|scope| {
            let loops = self.faults.is_bounded().then(|| scope.spawn(|| has_cycle(model)));
            (check(model.clone()), loops.is_some_and(|loops| loops.join().unwrap_or_else(|_| panic!("it stopped"))))
        });
        if loops && checked.violations.is_empty() {
            checked.violations.push(("does not loop forever", Vec::new()));
        }
        checked.took = began.elapsed();
        checked
    }
}

/// What a model checker found out.
#[derive(Clone, Debug)]
pub struct Checked {
    /// How many different states there are.
    pub states: usize,
    /// How long it took.
    pub took: Duration,
    /// What does not hold, with how it comes about.
    pub violations: Vec<(&'static str, Vec<String>)>,
    /// Interesting situations that never come about. In a world in which everything goes wrong, they all should.
    pub unseen: Vec<&'static str>,
}

/// Explores a model to its end, or to the first violation.
pub fn check<M>(model: M) -> Checked
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (mut violations, mut unseen) = (Vec::new(), Vec::new());
    for property in checker.model().properties() {
        let discovery = checker.discovery(property.name);
        match (property.expectation, discovery) {
            (Expectation::Always | Expectation::Eventually, Some(path)) => {
                let model = checker.model();
                let actions = path.into_actions().iter().map(|action| model.format_action(action)).collect();
                violations.push((property.name, actions));
            }
            (Expectation::Sometimes, None) => unseen.push(property.name),
            _ => {}
        }
    }
    Checked { states: checker.unique_state_count(), took: began.elapsed(), violations, unseen }
}

/// Whether it is possible to come back to a state. The checker takes *eventually* to be violated where nothing more can
/// happen; a booking that loops forever would escape it.
fn has_cycle<M: Model>(model: &M) -> bool
where
    M::State: Hash,
{
    let number = |state: &M::State| code(state);
    // Whether a state that was met is still on the way that is being followed.
    let mut met = AHashMap::new();
    for start in model.init_states() {
        let mut way = vec![(number(&start), vec![start])];
        while let Some((_, open)) = way.last_mut() {
            let Some(state) = open.pop() else {
                way.pop();
                if let Some((left, _)) = way.last() {
                    met.insert(*left, false);
                }
                continue;
            };
            let here = number(&state);
            match met.get(&here) {
                Some(true) => return true,
                Some(false) => {}
                None => {
                    met.insert(here, true);
                    if let Some((of, _)) = way.last_mut() {
                        *of = here;
                    }
                    way.push((here, model.next_states(&state)));
                }
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes from 0 up to a number, and from there back to another or nowhere.
    struct Steps(u8, Option<u8>);

    impl Model for Steps {
        type State = u8;
        type Action = ();

        fn init_states(&self) -> Vec<u8> {
            vec![0]
        }

        fn actions(&self, _: &u8, actions: &mut Vec<()>) {
            actions.push(());
        }

        fn next_state(&self, last: &u8, (): ()) -> Option<u8> {
            if *last == self.0 { self.1 } else { Some(last + 1) }
        }
    }

    #[test]
    fn a_cycle_is_noticed() {
        assert!(!has_cycle(&Steps(9, None)));
        assert!(has_cycle(&Steps(9, Some(0))));
        assert!(has_cycle(&Steps(9, Some(5))));
    }
}
