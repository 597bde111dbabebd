//! The deployed state machine, followed with every reply that there can be.
//!
//! The file in `statemachines/` is read and its JSONata evaluated by a JSONata library; what a task sends is read as the
//! handlers read it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
};

use bumpalo::Bump;
use jsonata_rs::JsonAta;
use saga::{Command, Step, command::Action};
use serde_json::{Map, Value, json};

use crate::{Scope, Twin};

const FILE: &str = include_str!("../../../statemachines/booking.asl.json");

/// The states of a state machine.
pub(crate) struct Machine {
    scope: Scope,
    start_at: String,
    states: HashMap<String, Value>,
    /// Whether payment is not told which parts the plan has, and charges for those that it is told prices of.
    charges_without_names: bool,
    /// Whether a command may be one that its participant cannot read.
    may_be_refused: bool,
    jsonata: Jsonata,
}

/// What a task sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sends {
    /// A message to the queue of parked steps.
    Message,
    /// The command to do this step.
    Command(Step),
    /// A command for this step that its participant cannot read: it fails each time.
    Refused(Step),
}

impl Sends {
    pub(crate) const fn step(self) -> Option<Step> {
        match self {
            Self::Message => None,
            Self::Command(step) | Self::Refused(step) => Some(step),
        }
    }
}

/// Where an execution is, with all that it knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Execution {
    /// The name of its state; [`ENDED`] if it is in none any more.
    state: String,
    /// Where its iterations are, in a Map state.
    iterations: Vec<Iteration>,
    input: Value,
    variables: BTreeMap<String, Value>,
}

const ENDED: &str = "";

/// One iteration of a Map state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Iteration {
    /// It is in this state, with this input.
    At(String, Value),
    Done(Value),
}

impl Execution {
    /// Nothing that it knew matters any more.
    fn ended() -> Self {
        Self { state: ENDED.to_owned(), iterations: Vec::new(), input: Value::Null, variables: BTreeMap::new() }
    }
}

/// The fields of a Map state that are followed here.
const MAP_FIELDS: [&str; 9] = ["Type", "Comment", "Items", "ItemProcessor", "Assign", "Catch", "Output", "Next", "End"];

impl Machine {
    /// Whether this twin has another state machine.
    pub(crate) const fn differs(twin: Twin) -> bool {
        matches!(twin, Twin::CancelWithoutDecision | Twin::ChargeWithoutLooking | Twin::ChargeWithoutNames)
    }

    pub(crate) fn of(scope: Scope, twin: Option<Twin>) -> Self {
        let text = match twin {
            // Whatever leads to the abort leads to the cancels at once.
            Some(Twin::CancelWithoutDecision) => {
                let text = replaced(FILE, "\"Next\": \"Abort\"", "\"Next\": \"Cancel\"");
                replaced(&text, "\"Default\": \"Abort\"", "\"Default\": \"Cancel\"")
            }
            // It does not look whether all parts are reserved.
            Some(Twin::ChargeWithoutLooking | Twin::ChargeWithoutNames) => {
                replaced(FILE, "$count($reasons) = 0", "true")
            }
            _ => FILE.to_owned(),
        };
        let text = text.replace("${PatienceSeconds}", "100");
        let machine: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("booking.asl.json: {error}"));
        let mut states = HashMap::new();
        collect(&machine, &mut states);
        Self {
            scope,
            start_at: text_of(&machine["StartAt"]).to_owned(),
            states,
            charges_without_names: twin == Some(Twin::ChargeWithoutNames),
            may_be_refused: matches!(twin, Some(Twin::ChargeWithoutLooking | Twin::ChargeWithoutNames)),
            jsonata: Jsonata::default(),
        }
    }

    fn definition(&self, name: &str) -> &Value {
        self.states.get(name).unwrap_or_else(|| panic!("the state machine has no state {name}"))
    }

    pub(crate) fn begin(&self) -> Execution {
        let booking = self.scope.booking();
        let mut input = json!(booking.plan);
        input["booking_id"] = json!(booking.booking_id);
        self.enter(self.start_at.clone(), input, BTreeMap::new())
    }

    /// Goes to a state, and on through all that need nobody else.
    fn enter(&self, state: String, input: Value, variables: BTreeMap<String, Value>) -> Execution {
        let mut execution = Execution { state, iterations: Vec::new(), input, variables };
        loop {
            let definition = self.definition(&execution.state);
            let states = json!({ "input": execution.input, "context": context() });
            let evaluate = |field: &Value| self.jsonata.evaluate(field, &states, &execution.variables);
            match text_of(&definition["Type"]) {
                "Choice" => {
                    let holds = |choice: &&Value| evaluate(&choice["Condition"]) == Value::Bool(true);
                    let choice = items(&definition["Choices"]).iter().find(holds);
                    let next = text_of(choice.map_or(&definition["Default"], |choice| &choice["Next"]));
                    execution.state = next.to_owned();
                }
                "Map" => {
                    let fields = definition.as_object().into_iter().flat_map(Map::keys);
                    let others: Vec<_> = fields.filter(|field| !MAP_FIELDS.contains(&field.as_str())).collect();
                    assert!(others.is_empty(), "{}: {others:?} of a Map are not followed here", execution.state);
                    let processor = &definition["ItemProcessor"];
                    assert_eq!(processor["ProcessorConfig"], json!({"Mode": "INLINE"}), "another Map is not followed");
                    let start = text_of(&processor["StartAt"]);
                    let wanted = evaluate(&definition["Items"]);
                    let iterations = items(&wanted).iter().map(|item| Iteration::At(start.to_owned(), item.clone()));
                    execution.iterations = iterations.collect();
                    assert_eq!(execution.iterations.len(), self.scope.parts(), "there is an iteration for each part");
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
        let states = states(&execution.input, kind, &result);
        let mut variables = execution.variables.clone();
        for (name, value) in fields["Assign"].as_object().unwrap_or(&Map::new()) {
            variables.insert(name.clone(), self.jsonata.evaluate(value, &states, &execution.variables));
        }
        let output =
            fields.get("Output").map_or(result, |output| self.jsonata.evaluate(output, &states, &execution.variables));
        match fields["End"].as_bool() {
            Some(true) => Execution::ended(),
            _ => self.enter(text_of(&fields["Next"]).to_owned(), output, variables),
        }
    }

    /// The iterations, or the one place, where a task is open.
    pub(crate) fn tasks(&self, execution: &Execution) -> Vec<Option<usize>> {
        if execution.iterations.is_empty() {
            return if execution.state == ENDED { Vec::new() } else { vec![None] };
        }
        let is_open = |at: &usize| matches!(execution.iterations[*at], Iteration::At(..));
        (0..execution.iterations.len()).filter(is_open).map(Some).collect()
    }

    /// The task, with its input.
    fn task<'e>(&'e self, execution: &'e Execution, iteration: Option<usize>) -> (&'e Value, &'e Value) {
        match iteration.map(|iteration| &execution.iterations[iteration]) {
            Some(Iteration::At(name, input)) => (self.definition(name), input),
            _ => (self.definition(&execution.state), &execution.input),
        }
    }

    /// What a task sends.
    pub(crate) fn sends(&self, execution: &Execution, iteration: Option<usize>) -> Sends {
        let (task, input) = self.task(execution, iteration);
        let states = states(input, "context", &context());
        let arguments = self.jsonata.evaluate(&task["Arguments"], &states, &execution.variables);
        if task["Resource"] != "arn:${Partition}:states:::lambda:invoke" {
            return Sends::Message;
        }
        let mut payload = arguments["Payload"].clone();
        if self.charges_without_names
            && let Some(prices) = payload["prices"].as_object()
        {
            payload["parts"] = prices.keys().cloned().collect();
        }
        let command = match Command::read(&payload) {
            Ok(command) => command,
            Err(_) if self.may_be_refused => {
                let step = Step::named(text_of(&payload["step"]));
                return Sends::Refused(step.unwrap_or_else(|| panic!("{payload} asks for no step")));
            }
            Err(error) => panic!("{payload} is not a command: {error:?}"),
        };
        self.check(&command);
        if let Action::Reserve(part) | Action::Cancel(part) = &command.action {
            let function = format!("${{SellerArnPrefix}}{}", part.name);
            assert_eq!(arguments["FunctionName"], json!(function), "it is sent to another seller");
        }
        Sends::Command(command.step())
    }

    /// A command must be about this booking: then its step says it all.
    fn check(&self, command: &Command) {
        let booking = self.scope.booking();
        assert_eq!(command.booking_id, booking.booking_id);
        match &command.action {
            Action::Reserve(part) | Action::Cancel(part) => {
                assert_eq!(Some(part), booking.plan.parts.get(part.name).as_ref());
            }
            Action::Charge { reference, prices } => {
                assert_eq!(*reference, booking.plan.payment.reference);
                assert!(self.charges_without_names || *prices == booking.prices, "{prices:?}");
            }
            Action::Abort { reference, .. } => assert_eq!(*reference, booking.plan.payment.reference),
            Action::Confirm { total } => assert_eq!(*total, booking.total),
            Action::Fail { .. } | Action::Park { .. } => {}
        }
    }

    /// Where a task's result leads.
    pub(crate) fn reply(&self, execution: &Execution, iteration: Option<usize>, result: Value) -> Execution {
        let (task, input) = self.task(execution, iteration);
        let Some(iteration) = iteration else { return self.leave(execution, task, "result", result) };
        assert_eq!(task["End"], json!(true), "an iteration has one task");
        assert!(task.get("Assign").is_none(), "an iteration assigns nothing");
        let states = states(input, "result", &result);
        let output =
            task.get("Output").map_or(result, |output| self.jsonata.evaluate(output, &states, &execution.variables));
        self.join(execution, iteration, output)
    }

    /// Where it leads that a task is given up.
    pub(crate) fn give_up(&self, execution: &Execution, iteration: Option<usize>) -> Execution {
        let error = json!({"Error": "States.TaskFailed", "Cause": ""});
        let (task, input) = self.task(execution, iteration);
        let catcher = &task["Catch"][0];
        assert_eq!(catcher["ErrorEquals"], json!(["States.ALL"]), "{} does not catch everything", execution.state);
        let Some(iteration) = iteration else { return self.leave(execution, catcher, "errorOutput", error) };
        let next = self.definition(text_of(&catcher["Next"]));
        assert_eq!((&next["Type"], &next["End"]), (&json!("Pass"), &json!(true)), "an iteration ends with an outcome");
        assert!(["Output", "Assign"].iter().all(|field| next.get(field).is_none()), "which is that of the catcher");
        let states = states(input, "errorOutput", &error);
        let output = self.jsonata.evaluate(&catcher["Output"], &states, &execution.variables);
        self.join(execution, iteration, output)
    }

    /// An iteration has ended.
    fn join(&self, execution: &Execution, iteration: usize, output: Value) -> Execution {
        let mut execution = execution.clone();
        execution.iterations[iteration] = Iteration::Done(output);
        let outputs = execution.iterations.iter().map(|iteration| match iteration {
            Iteration::Done(output) => Some(output.clone()),
            Iteration::At(..) => None,
        });
        match outputs.collect::<Option<Vec<_>>>() {
            None => execution,
            Some(outputs) => self.leave(&execution, self.definition(&execution.state), "result", Value::Array(outputs)),
        }
    }
}

/// The text with all of this replaced, of which there must be something.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the state machine has no {from} any more");
    text.replace(from, to)
}

/// The states of a machine and of its iterations, by name: names are unique in the whole machine.
fn collect(machine: &Value, into: &mut HashMap<String, Value>) {
    for (name, definition) in machine["States"].as_object().unwrap_or(&Map::new()) {
        if let Some(processor) = definition.get("ItemProcessor") {
            collect(processor, into);
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
fn states(input: &Value, kind: &str, value: &Value) -> Value {
    json!({ "input": input, "context": context(), kind: value })
}

/// Evaluates JSONata. An expression has the same value whenever it is given the same, so that is looked up.
#[derive(Default)]
struct Jsonata(RefCell<HashMap<Given, Value>>);

/// An expression, `$states`, and the variables that it mentions.
type Given = (String, Value, Vec<(String, Value)>);

impl Jsonata {
    /// The value of a field in which `{% … %}` is JSONata.
    fn evaluate(&self, field: &Value, states: &Value, variables: &BTreeMap<String, Value>) -> Value {
        match field {
            Value::String(text) => match text.strip_prefix("{%").and_then(|text| text.strip_suffix("%}")) {
                Some(expression) => self.expression(expression.trim(), states, variables),
                None => field.clone(),
            },
            Value::Array(items) => items.iter().map(|item| self.evaluate(item, states, variables)).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(name, field)| (name.clone(), self.evaluate(field, states, variables))).collect()
            }
            other => other.clone(),
        }
    }

    fn expression(&self, expression: &str, states: &Value, variables: &BTreeMap<String, Value>) -> Value {
        let is_mentioned = |name: &String| expression.contains(&format!("${name}"));
        let mentioned = variables.iter().filter(|(name, _)| is_mentioned(name));
        let mentioned = mentioned.map(|(name, value)| (name.clone(), value.clone())).collect();
        let states = if expression.contains("$states") { states.clone() } else { Value::Null };
        let given = (expression.to_owned(), states, mentioned);
        if let Some(value) = self.0.borrow().get(&given) {
            return value.clone();
        }
        let value = jsonata(expression, &given.1, &given.2);
        self.0.borrow_mut().insert(given, value.clone());
        value
    }
}

/// Evaluates, as Step Functions does: a result that is undefined is an error.
fn jsonata(expression: &str, states: &Value, variables: &[(String, Value)]) -> Value {
    let arena = Bump::new();
    let program = JsonAta::new(expression, &arena).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut bound: HashMap<&str, &Value> = variables.iter().map(|(name, value)| (name.as_str(), value)).collect();
    bound.insert("states", states);
    let value = program.evaluate(None, Some(&bound)).unwrap_or_else(|error| panic!("{expression}: {error}"));
    assert!(!value.is_undefined(), "{expression} is undefined");
    serde_json::from_str(&value.serialize(false)).unwrap_or_else(|error| panic!("{expression}: {error}"))
}
