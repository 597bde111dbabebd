use std::{
    collections::HashMap,
    fmt::Debug,
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::{Budget, Faults, Twin, choreography::Choreography, orchestration::Orchestration};

/// Who coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Everyone reacts to events.
    Choreographed,
    /// A state machine, with so many executions at a time: one, or one more than there should be.
    Orchestrated(usize),
}

/// What to explore.
#[derive(Clone, Debug)]
pub struct Run {
    /// Who coordinates.
    pub variant: Variant,
    /// The world, in words.
    pub name: String,
    /// What may go wrong.
    pub faults: Faults,
    /// What is missing.
    pub twin: Option<Twin>,
    /// Whether states that differ only in which leg is which are one. What happens cannot be read then.
    pub legs_are_alike: bool,
}

impl Run {
    /// What is explored with every run of the tests: a world in which everything goes wrong, and one for each thing that
    /// goes wrong once.
    pub fn bounded() -> Vec<Self> {
        let mut runs = vec![
            Self::new(Variant::Choreographed, "anything, without end", Faults::Unbounded),
            Self::new(Variant::Orchestrated(1), "anything, without end", Faults::Unbounded),
        ];
        for variant in [Variant::Choreographed, Variant::Orchestrated(2)] {
            runs.push(Self::new(variant, "nothing goes wrong", Faults::Bounded(Budget::NOTHING)));
            let singles = Budget::of(variant).into_iter();
            runs.extend(singles.map(|(name, budget)| Self::new(variant, name, Faults::Bounded(budget))));
        }
        runs
    }

    /// What is explored beyond that for a whole proof: a world for each two things that go wrong.
    pub fn whole() -> Vec<Self> {
        let mut runs = Vec::new();
        for variant in [Variant::Choreographed, Variant::Orchestrated(2)] {
            let singles = Budget::of(variant);
            for (at, (first, budget)) in singles.iter().enumerate() {
                for (second, other) in &singles[at..] {
                    let both = Faults::Bounded(budget.and(*other));
                    runs.push(Self::new(variant, &format!("{first} and {second}"), both));
                }
            }
        }
        runs
    }

    /// Each safeguard taken out, in a world that is bad enough.
    pub fn twins(legs_are_alike: bool) -> Vec<Self> {
        let of = |variant| {
            move |twin: Twin| Self {
                variant,
                name: format!("{twin:?}"),
                faults: twin.world(),
                twin: Some(twin),
                legs_are_alike,
            }
        };
        let orchestrated = Twin::ALL.into_iter().filter(|twin| twin.is_of_orchestration());
        Twin::ALL
            .into_iter()
            .map(of(Variant::Choreographed))
            .chain(orchestrated.map(of(Variant::Orchestrated(1))))
            .collect()
    }

    fn new(variant: Variant, name: &str, faults: Faults) -> Self {
        Self { variant, name: name.to_owned(), faults, twin: None, legs_are_alike: true }
    }

    /// Explores it.
    pub fn check(&self) -> Checked {
        match self.variant {
            Variant::Choreographed => {
                let (faults, twin, legs_are_alike) = (self.faults, self.twin, self.legs_are_alike);
                self.check_model(&Choreography { faults, twin, legs_are_alike })
            }
            Variant::Orchestrated(executions) => {
                self.check_model(&Orchestration::new(self.faults, self.twin, executions, self.legs_are_alike))
            }
        }
    }

    fn check_model<M>(&self, model: &M) -> Checked
    where
        M: Model + Clone + Send + Sync + 'static,
        M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
        M::Action: Clone + Debug + PartialEq + Send + Sync,
    {
        let mut checked = check(model.clone());
        if self.faults != Faults::Unbounded && checked.violations.is_empty() && goes_round(model) {
            checked.violations.push(("does not go round for ever", Vec::new()));
        }
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
                let actions = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
                violations.push((property.name, actions));
            }
            (Expectation::Sometimes, None) => unseen.push(property.name),
            _ => {}
        }
    }
    Checked { states: checker.unique_state_count(), took: began.elapsed(), violations, unseen }
}

/// Whether it is possible to come back to a state. The checker takes *eventually* to be violated where nothing more can
/// happen; a booking that goes round for ever would escape it.
fn goes_round<M: Model>(model: &M) -> bool
where
    M::State: Hash,
{
    let number = |state: &M::State| {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        hasher.finish()
    };
    // Whether a state that was met is still on the way that is being followed.
    let mut met = HashMap::new();
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
    fn what_goes_round_is_noticed() {
        assert!(!goes_round(&Steps(9, None)));
        assert!(goes_round(&Steps(9, Some(0))));
        assert!(goes_round(&Steps(9, Some(5))));
    }
}
