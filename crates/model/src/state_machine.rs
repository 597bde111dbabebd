//! The deployed state machine, followed with every reply that there can be.
//!
//! The file in `statemachines/` is read and its JSONata evaluated by a JSONata library; what a task sends is read as the
//! handlers read it. The result is an [`Automaton`]: where an execution can be, and where each reply leads from there.

use std::collections::{BTreeMap, HashMap};

use bumpalo::Bump;
use jsonata_rs::JsonAta;
use saga::{Command, Leg, Outcome, Reply, Step, command::Action};
use serde_json::{Map, Value, json};

use crate::{
    Twin,
    books::{self, WORLD},
};

const FILE: &str = include_str!("../../../statemachines/booking.asl.json");

/// The number of a place in an [`Automaton`].
pub(crate) type Place = u16;

/// Where executions can be. Those from which everything that follows is the same are one place.
#[derive(Clone, Debug)]
pub(crate) struct Automaton {
    places: Vec<Vec<Task>>,
    start: Place,
    /// For each order of the legs, the place where an execution would be if the legs had changed places.
    alike: Vec<([usize; 3], Vec<Place>)>,
}

/// Every order in which flight, hotel and car can stand: at each place, which of them stands there now.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// A task that is open at a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Task {
    /// The step that it asks for; none if it sends a message to the queue of parked steps.
    pub(crate) step: Option<Step>,
    /// Where each reply leads. Of a message there is one.
    replies: Vec<Place>,
    given_up: Place,
}

impl Automaton {
    /// Follows the state machine that is deployed, or that of a twin.
    pub(crate) fn of(twin: Option<Twin>) -> Self {
        let machine = Machine::of(twin);
        let start = machine.begin();
        let (mut known, mut open) = (HashMap::from([(start.clone(), 0)]), vec![start]);
        let mut places = Vec::new();
        while places.len() < open.len() {
            let execution = open[places.len()].clone();
            let mut number = |execution: Execution| {
                *known.entry(execution).or_insert_with_key(|execution| {
                    open.push(execution.clone());
                    Place::try_from(open.len() - 1).unwrap_or_else(|_| panic!("too many places in the state machine"))
                })
            };
            let tasks = machine.tasks(&execution).into_iter().map(|branch| {
                let command = machine.command(&execution, branch);
                let step = command.map(|command| command.step());
                let results = match step {
                    None => vec![json!({})],
                    Some(step) => outcomes(step).into_iter().map(|outcome| payload(step, outcome)).collect(),
                };
                Task {
                    step,
                    replies: results.into_iter().map(|it| number(machine.reply(&execution, branch, it))).collect(),
                    given_up: number(machine.give_up(&execution, branch)),
                }
            });
            places.push(tasks.collect());
        }
        Self { places, start: 0, alike: Vec::new() }.merged().with_alike()
    }

    /// Where an execution begins.
    pub(crate) const fn start(&self) -> Place {
        self.start
    }

    /// The tasks that are open at a place: none if the execution has ended.
    pub(crate) fn tasks(&self, place: Place) -> &[Task] {
        &self.places[usize::from(place)]
    }

    /// See [`Self::alike`]: each order of the legs, with the number that each place has then.
    pub(crate) fn orders(&self) -> &[([usize; 3], Vec<Place>)] {
        &self.alike
    }

    /// Flight, hotel and car are alike to the state machine too: after any change of places it is the same automaton.
    /// That is found out here, and not assumed.
    fn with_alike(mut self) -> Self {
        self.alike = ORDERS.map(|order| (order, self.renamed(order))).to_vec();
        self
    }

    fn renamed(&self, order: [usize; 3]) -> Vec<Place> {
        let mut names = vec![None; self.places.len()];
        let mut open = vec![(self.start, self.start)];
        while let Some((place, other)) = open.pop() {
            match names[usize::from(place)] {
                Some(name) => assert_eq!(name, other, "the state machine treats the legs differently"),
                None => {
                    names[usize::from(place)] = Some(other);
                    for task in self.tasks(place) {
                        let step = task.step.map(|step| moved(step, order));
                        let twin = self.tasks(other).iter().find(|other| other.step == step);
                        let twin = twin.unwrap_or_else(|| panic!("{step:?} is not asked for as {:?} is", task.step));
                        open.extend(task.replies.iter().copied().zip(twin.replies.iter().copied()));
                        open.push((task.given_up, twin.given_up));
                    }
                }
            }
        }
        names.into_iter().map(Option::unwrap_or_default).collect() // every place is reached
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
        Self { places, start: class_of[usize::from(self.start)], alike: Vec::new() }
    }
}

/// The step that a leg's step becomes when the legs change places.
pub(crate) fn moved(step: Step, order: [usize; 3]) -> Step {
    let to = |leg| {
        let from = Leg::ALL.iter().position(|other| *other == leg);
        let place = order.iter().position(|leg| Some(*leg) == from).unwrap_or_default(); // each stands somewhere
        Leg::ALL[place]
    };
    match step {
        Step::Reserve(leg) => Step::Reserve(to(leg)),
        Step::Cancel(leg) => Step::Cancel(to(leg)),
        step => step,
    }
}

impl Task {
    /// Where the execution goes with this reply.
    pub(crate) fn after(&self, outcome: Option<&Outcome>) -> Place {
        let at = match (self.step, outcome) {
            (Some(step), Some(outcome)) => outcomes(step).iter().position(|other| other == outcome),
            _ => Some(0),
        };
        self.replies[at.unwrap_or_else(|| panic!("{:?} does not answer {outcome:?}", self.step))]
    }

    /// Where it goes when the task is given up.
    pub(crate) const fn given_up(&self) -> Place {
        self.given_up
    }

    fn renumbered(&self, numbers: &[Place]) -> Self {
        let number = |place: &Place| numbers[usize::from(*place)];
        Self { step: self.step, replies: self.replies.iter().map(number).collect(), given_up: number(&self.given_up) }
    }
}

/// Everything that a step may answer.
fn outcomes(step: Step) -> Vec<Outcome> {
    let charged = || Outcome::Charged { amount: WORLD.total, charge_id: "ch".into() };
    let aborted = || Outcome::Aborted { reason: None };
    match step {
        Step::Reserve(leg) => {
            vec![
                Outcome::Reserved { price: books::price(WORLD.plan.trip.leg(leg)) },
                Outcome::Rejected(books::rejected()),
            ]
        }
        Step::Cancel(_) => [true, false].map(|released| Outcome::Cancelled { released }).to_vec(),
        Step::Charge => vec![charged(), Outcome::Declined(books::declined()), aborted()],
        Step::Abort => vec![charged(), aborted()],
        Step::Confirm => vec![Outcome::Confirmed { total: WORLD.total }],
        Step::Fail => vec![Outcome::Failed { reason: None }],
        Step::Park => vec![Outcome::Parked { reason: books::reason() }],
    }
}

/// The states of a state machine.
struct Machine {
    start_at: String,
    states: HashMap<String, Value>,
}

/// Where an execution is, with all that it knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Execution {
    /// The name of its state; [`ENDED`] if it is in none any more.
    state: String,
    /// Where its branches are, in a Parallel state.
    branches: Vec<Branch>,
    input: Value,
    variables: BTreeMap<String, Value>,
}

const ENDED: &str = "";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Branch {
    At(String),
    Done(Value),
}

impl Execution {
    /// Nothing that it knew matters any more.
    fn ended() -> Self {
        Self { state: ENDED.to_owned(), branches: Vec::new(), input: Value::Null, variables: BTreeMap::new() }
    }
}

impl Machine {
    fn of(twin: Option<Twin>) -> Self {
        let text = match twin {
            // Whatever leads to the abort leads to the cancels at once.
            Some(Twin::CancelWithoutDecision) => FILE
                .replace("\"Next\": \"Abort\"", "\"Next\": \"Cancel\"")
                .replace("\"Default\": \"Abort\"", "\"Default\": \"Cancel\""),
            _ => FILE.to_owned(),
        };
        let text = text.replace("${PatienceSeconds}", "100");
        let machine: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("booking.asl.json: {error}"));
        let mut states = HashMap::new();
        collect(&machine, &mut states);
        Self { start_at: text_of(&machine["StartAt"]).to_owned(), states }
    }

    fn definition(&self, name: &str) -> &Value {
        self.states.get(name).unwrap_or_else(|| panic!("the state machine has no state {name}"))
    }

    fn begin(&self) -> Execution {
        let mut input = json!(WORLD.plan);
        input["booking_id"] = json!(WORLD.booking_id);
        self.enter(self.start_at.clone(), input, BTreeMap::new())
    }

    /// Goes to a state, and on through all that need nobody else.
    fn enter(&self, state: String, input: Value, variables: BTreeMap<String, Value>) -> Execution {
        let mut execution = Execution { state, branches: Vec::new(), input, variables };
        loop {
            let definition = self.definition(&execution.state);
            match text_of(&definition["Type"]) {
                "Choice" => {
                    let states = json!({ "input": execution.input, "context": context() });
                    let holds = |choice: &&Value| {
                        evaluate(&choice["Condition"], &states, &execution.variables) == Value::Bool(true)
                    };
                    let choice = items(&definition["Choices"]).iter().find(holds);
                    let next = text_of(choice.map_or(&definition["Default"], |choice| &choice["Next"]));
                    execution.state = next.to_owned();
                }
                "Parallel" => {
                    let starts = items(&definition["Branches"]).iter().map(|branch| text_of(&branch["StartAt"]));
                    execution.branches = starts.map(|start| Branch::At(start.to_owned())).collect();
                    return execution;
                }
                "Task" => return execution,
                "Fail" => return Execution::ended(),
                other => panic!("{}: a {other} state is not followed here", execution.state),
            }
        }
    }

    /// Leaves a state with what came of it, as the state itself or one of its catchers says.
    fn leave(&self, execution: &Execution, fields: &Value, kind: &str, result: Value) -> Execution {
        let states = states(execution, kind, &result);
        let mut variables = execution.variables.clone();
        for (name, value) in fields["Assign"].as_object().unwrap_or(&Map::new()) {
            variables.insert(name.clone(), evaluate(value, &states, &execution.variables));
        }
        let output = fields.get("Output").map_or(result, |output| evaluate(output, &states, &execution.variables));
        match fields["End"].as_bool() {
            Some(true) => Execution::ended(),
            _ => self.enter(text_of(&fields["Next"]).to_owned(), output, variables),
        }
    }

    /// The branches, or the one place, where a task is open.
    fn tasks(&self, execution: &Execution) -> Vec<Option<usize>> {
        if execution.branches.is_empty() {
            return if execution.state == ENDED { Vec::new() } else { vec![None] };
        }
        let is_open = |at: &usize| matches!(execution.branches[*at], Branch::At(_));
        (0..execution.branches.len()).filter(is_open).map(Some).collect()
    }

    fn task(&self, execution: &Execution, branch: Option<usize>) -> &Value {
        match branch.map(|branch| &execution.branches[branch]) {
            Some(Branch::At(name)) => self.definition(name),
            _ => self.definition(&execution.state),
        }
    }

    /// The command that a task sends; none if it is no function's.
    fn command(&self, execution: &Execution, branch: Option<usize>) -> Option<Command> {
        let task = self.task(execution, branch);
        let arguments = evaluate(&task["Arguments"], &states(execution, "context", &context()), &execution.variables);
        if task["Resource"] != "arn:${Partition}:states:::lambda:invoke" {
            return None;
        }
        let payload = &arguments["Payload"];
        let command = Command::read(payload).unwrap_or_else(|error| panic!("{payload} is no command: {error:?}"));
        assert_eq!(command.booking_id, WORLD.booking_id);
        match &command.action {
            Action::Reserve(leg) | Action::Cancel(leg) => assert_eq!(leg, WORLD.plan.trip.leg(leg.leg())),
            Action::Charge { reference, prices } => {
                assert_eq!((reference, prices), (books::reference(), &books::prices()));
            }
            Action::Abort { reference, .. } => assert_eq!(reference, books::reference()),
            Action::Confirm { total } => assert_eq!(*total, WORLD.total),
            Action::Fail { .. } | Action::Park { .. } => {}
        }
        Some(command)
    }

    /// Where a task's result leads.
    fn reply(&self, execution: &Execution, branch: Option<usize>, result: Value) -> Execution {
        let task = self.task(execution, branch);
        let Some(branch) = branch else { return self.leave(execution, task, "result", result) };
        assert_eq!(task["End"], json!(true), "a branch has one task");
        let states = states(execution, "result", &result);
        let output = task.get("Output").map_or(result, |output| evaluate(output, &states, &execution.variables));
        self.join(execution, branch, output)
    }

    /// Where it leads that a task is given up.
    fn give_up(&self, execution: &Execution, branch: Option<usize>) -> Execution {
        let error = json!({"Error": "States.TaskFailed", "Cause": ""});
        let catcher = &self.task(execution, branch)["Catch"][0];
        assert_eq!(catcher["ErrorEquals"], json!(["States.ALL"]), "{} does not catch everything", execution.state);
        let Some(branch) = branch else { return self.leave(execution, catcher, "errorOutput", error) };
        let next = self.definition(text_of(&catcher["Next"]));
        assert_eq!((&next["Type"], &next["End"]), (&json!("Pass"), &json!(true)), "a branch ends with an outcome");
        let output = evaluate(&catcher["Output"], &states(execution, "errorOutput", &error), &execution.variables);
        self.join(execution, branch, output)
    }

    /// A branch has ended.
    fn join(&self, execution: &Execution, branch: usize, output: Value) -> Execution {
        let mut execution = execution.clone();
        execution.branches[branch] = Branch::Done(output);
        let outputs = execution.branches.iter().map(|branch| match branch {
            Branch::Done(output) => Some(output.clone()),
            Branch::At(_) => None,
        });
        match outputs.collect::<Option<Vec<_>>>() {
            None => execution,
            Some(outputs) => self.leave(&execution, self.definition(&execution.state), "result", Value::Array(outputs)),
        }
    }
}

/// The states of a machine and of its branches, by name: names are unique in the whole machine.
fn collect(machine: &Value, into: &mut HashMap<String, Value>) {
    for (name, definition) in machine["States"].as_object().unwrap_or(&Map::new()) {
        for branch in items(&definition["Branches"]) {
            collect(branch, into);
        }
        let before = into.insert(name.clone(), definition.clone());
        assert!(before.is_none(), "two states are called {name}");
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// An execution has always run for so long that it has no time left to try again what it has given up: that Step
/// Functions carries a step out again is explored all the same.
fn context() -> Value {
    json!({
        "Execution": {"Id": "execution", "StartTime": "1970-01-01T00:00:00.000Z"},
        "State": {"EnteredTime": "1970-01-01T01:00:00.000Z"},
    })
}

/// `$states`.
fn states(execution: &Execution, kind: &str, value: &Value) -> Value {
    json!({ "input": execution.input, "context": context(), kind: value })
}

fn payload(step: Step, outcome: Outcome) -> Value {
    json!({ "Payload": Reply { booking_id: WORLD.booking_id.clone(), step, outcome } })
}

/// The value of a field in which `{% … %}` is JSONata.
fn evaluate(field: &Value, states: &Value, variables: &BTreeMap<String, Value>) -> Value {
    match field {
        Value::String(text) => match text.strip_prefix("{%").and_then(|text| text.strip_suffix("%}")) {
            Some(expression) => jsonata(expression.trim(), states, variables),
            None => field.clone(),
        },
        Value::Array(items) => items.iter().map(|item| evaluate(item, states, variables)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| (name.clone(), evaluate(field, states, variables))).collect()
        }
        other => other.clone(),
    }
}

/// Evaluates, as Step Functions does: a result that is undefined is an error.
fn jsonata(expression: &str, states: &Value, variables: &BTreeMap<String, Value>) -> Value {
    let arena = Bump::new();
    let program = JsonAta::new(expression, &arena).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut bound: HashMap<&str, &Value> = variables.iter().map(|(name, value)| (name.as_str(), value)).collect();
    bound.insert("states", states);
    let value = program.evaluate(None, Some(&bound)).unwrap_or_else(|error| panic!("{expression}: {error}"));
    assert!(!value.is_undefined(), "{expression} is undefined");
    serde_json::from_str(&value.serialize(false)).unwrap_or_else(|error| panic!("{expression}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_machine_is_this_automaton() {
        let automaton = Automaton::of(None);
        assert_eq!(automaton.places.len(), 33);
        let steps = |place| automaton.tasks(place).iter().map(|task| task.step).collect::<Vec<_>>();
        assert_eq!(steps(automaton.start()), Leg::ALL.map(|leg| Some(Step::Reserve(leg))));
        let ends = automaton.places.iter().filter(|tasks| tasks.is_empty()).count();
        assert_eq!(ends, 1, "nothing follows from any of its ends, so they are one");
    }
}
