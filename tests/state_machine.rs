//! Holds the state machine against the saga's definition and against the errors that the code emits.

use std::collections::{BTreeMap, BTreeSet};

use end_to_end::deployed;
use saga::{Class, Command, PartName, Participant, Step};
use serde_json::{Map, Value, json};
use services::ErrorKind;

fn definition() -> Value {
    serde_json::from_str(include_str!("../statemachines/booking.asl.json")).expect("the definition is JSON")
}

/// The parts that bookings are made of here. The file names none, so any will do: those that are sold, and one that is not.
fn parts() -> Vec<PartName> {
    deployed::sellers().into_iter().chain([PartName::try_from("cruise").expect("a name")]).collect()
}

/// Every state with the name of the Map state around it, if there is one.
fn states(definition: &Value) -> BTreeMap<String, (Option<String>, Value)> {
    fn walk(states: &Value, around: Option<&str>, all: &mut BTreeMap<String, (Option<String>, Value)>) {
        for (name, state) in states["States"].as_object().expect("states") {
            let before = all.insert(name.clone(), (around.map(str::to_owned), state.clone()));
            assert!(before.is_none(), "two states are called {name}");
            if let Some(iteration) = state.get("ItemProcessor") {
                walk(iteration, Some(name), all);
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(definition, None, &mut all);
    all
}

/// The state as an iteration over this part has it: what is put together from the part's name is put together.
fn of_part(state: &Value, part: PartName) -> Value {
    match state {
        Value::String(text) => concatenated(text, part).map_or_else(|| state.clone(), Value::String),
        Value::Array(items) => items.iter().map(|item| of_part(item, part)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), of_part(value, part))).collect(),
        other => other.clone(),
    }
}

/// The value of `{% 'text' & $states.input.name %}` and its like; none if it is another expression.
fn concatenated(text: &str, part: PartName) -> Option<String> {
    let expression = text.strip_prefix("{% ")?.strip_suffix(" %}")?;
    let piece = |piece: &str| match piece {
        "$states.input.name" => Some(part.to_string()),
        literal => {
            literal.strip_prefix('\'')?.strip_suffix('\'').filter(|text| !text.contains('\'')).map(str::to_owned)
        }
    };
    expression.split(" & ").map(piece).collect()
}

/// The tasks that call a participant, by the step that they ask for.
fn tasks() -> BTreeMap<Step, (String, Option<String>, Value)> {
    let mut tasks = BTreeMap::new();
    for (name, (around, state)) in states(&definition()) {
        if state.pointer("/Arguments/Payload/step").is_none() {
            continue;
        }
        // A task of an iteration asks each part's seller.
        let each = match around {
            Some(_) => parts().into_iter().map(|part| of_part(&state, part)).collect(),
            None => vec![state],
        };
        for state in each {
            let step = &state["Arguments"]["Payload"]["step"];
            let step = step
                .as_str()
                .and_then(Step::named)
                .unwrap_or_else(|| panic!("{name} asks for {step}, which is no step"));
            let before = tasks.insert(step, (name.clone(), around.clone(), state));
            assert!(before.is_none(), "two states ask for {step}");
        }
    }
    tasks
}

/// Where a state may go to next.
fn successors(state: &Value) -> BTreeSet<String> {
    let choices = state["Choices"].as_array().into_iter().flatten();
    let catches = state["Catch"].as_array().into_iter().flatten();
    let nexts = choices.chain(catches).map(|rule| &rule["Next"]);
    nexts.chain([&state["Next"], &state["Default"]]).filter_map(Value::as_str).map(str::to_owned).collect()
}

/// All states that can come after this one, on the top level.
fn after(name: &str) -> BTreeSet<String> {
    let states = states(&definition());
    let (mut seen, mut open) = (BTreeSet::new(), vec![name.to_owned()]);
    while let Some(name) = open.pop() {
        for next in successors(&states[&name].1) {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    seen
}

fn catch_all(state: &Value) -> &Value {
    let last = state["Catch"].as_array().and_then(|catches| catches.last()).expect("a Catch");
    assert_eq!(last["ErrorEquals"], json!(["States.ALL"]), "{state}");
    last
}

/// What Lambda says when an account's or a function's concurrency is used up:
/// <https://docs.aws.amazon.com/step-functions/latest/dg/sfn-best-practices.html#bp-lambda-serviceexception>.
const REFUSED: &str = "Lambda.TooManyRequestsException";

/// How long an attempt can take that Lambda refuses: no function runs, and the answer is a 429,
/// <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>.
const REFUSAL_SECONDS: f64 = 1.0;

/// How long a task can take until it is given up, or succeeds in its last attempt: each retrier counts its own attempts,
/// <https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html#error-handling-retrying-after-an-error>,
/// whose default values are these.
fn task_seconds(task: &Value) -> f64 {
    let timeout = task["TimeoutSeconds"].as_f64().expect("a timeout");
    let retries = task["Retry"].as_array().into_iter().flatten().map(|retrier| {
        let number = |name: &str, default: f64| retrier.get(name).map_or(default, |it| it.as_f64().expect(name));
        let attempt = if retrier["ErrorEquals"] == json!([REFUSED]) { REFUSAL_SECONDS } else { timeout };
        let (mut interval, mut seconds) = (number("IntervalSeconds", 1.0), 0.0);
        for _ in 0..retrier.get("MaxAttempts").map_or(3, |it| it.as_u64().expect("MaxAttempts")) {
            seconds += attempt + interval.min(number("MaxDelaySeconds", f64::INFINITY));
            interval *= number("BackoffRate", 2.0);
        }
        seconds
    });
    timeout + retries.sum::<f64>()
}

/// Everything that a machine can assign to a variable.
fn assigned<'m>(machine: &'m Value, variable: &str) -> Vec<&'m Value> {
    let own = machine.pointer(&format!("/Assign/{variable}"));
    let inside: Vec<_> = match machine {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    };
    own.into_iter().chain(inside.into_iter().flat_map(|inside| assigned(inside, variable))).collect()
}

/// For how many seconds of an execution a rule of a Choice can hold, if it does so only for a while: until the moment that
/// is in a variable, which is always the same.
fn until(machine: &Value, rule: &Value) -> Option<f64> {
    let (_, bound) = rule["Condition"].as_str()?.split_once("$toMillis($states.context.State.EnteredTime) < $")?;
    let variable = bound.split(' ').next().expect("a name");
    let moments = assigned(machine, variable);
    let [moment, others @ ..] = &moments[..] else { panic!("nothing is assigned to {variable}") };
    assert!(others.iter().all(|other| other == moment), "{variable} is not always the same");
    let moment = moment.as_str().expect("an expression");
    let seconds = moment
        .strip_prefix("{% $toMillis($states.context.Execution.StartTime) + ")
        .and_then(|moment| moment.strip_suffix(" * 1000 %}"))
        .unwrap_or_else(|| panic!("{variable} is no time after the start: {moment}"));
    match seconds {
        "${PatienceSeconds}" => {
            let template = deployed::template();
            Some(template["Parameters"]["PatienceSeconds"]["MaxValue"].as_f64().expect("MaxValue"))
        }
        seconds => Some(seconds.parse().expect("a number")),
    }
}

/// How long it can take from this state of a machine (or of an iteration) to its end, and through which tasks, if no rule
/// holds any more that holds only for a while.
fn longest(machine: &Value, name: &str, before: &[&str]) -> (f64, Vec<String>) {
    assert!(!before.contains(&name), "{name} can come after itself, so nothing bounds the time");
    let (mut state, before) = (machine["States"][name].clone(), [before, &[name]].concat());
    if let Some(choices) = state["Choices"].as_array_mut() {
        choices.retain(|rule| until(machine, rule).is_none());
    }
    let after = successors(&state).iter().map(|next| longest(machine, next, &before)).max_by(by_time);
    let (rest, tasks) = after.unwrap_or_default();
    let (own, own_tasks) = match state["Type"].as_str().expect("a type") {
        "Choice" | "Pass" | "Fail" => (0.0, Vec::new()),
        "Wait" => (state["Seconds"].as_f64().expect("Seconds"), Vec::new()),
        "Task" => (task_seconds(&state), vec![name.to_owned()]),
        // All iterations at once, up to 40 of them, if nothing else is said:
        // https://docs.aws.amazon.com/step-functions/latest/dg/state-map-inline.html.
        "Map" => {
            assert_eq!(state["Retry"], Value::Null, "{name} repeats its iterations");
            assert_eq!(state["MaxConcurrency"], Value::Null, "{name} lets iterations wait for each other");
            let iteration = &state["ItemProcessor"];
            assert_eq!(iteration["ProcessorConfig"], json!({"Mode": "INLINE"}), "{name}");
            longest(iteration, iteration["StartAt"].as_str().expect("StartAt"), &[])
        }
        other => panic!("{name}: how long a {other} state takes is not computed here"),
    };
    (own + rest, [own_tasks, tasks].concat())
}

/// Every way through a machine that can be the longest: from its start, and from where a rule leads in the last moment in
/// which it holds.
fn ways(machine: &Value) -> Vec<(f64, Vec<String>)> {
    let start = longest(machine, machine["StartAt"].as_str().expect("StartAt"), &[]);
    let states = machine["States"].as_object().expect("states").values();
    let rules = states.flat_map(|state| state["Choices"].as_array().into_iter().flatten());
    let late = rules.filter_map(|rule| {
        let (seconds, tasks) = longest(machine, rule["Next"].as_str().expect("Next"), &[]);
        Some((until(machine, rule)? + seconds, tasks))
    });
    [start].into_iter().chain(late).collect()
}

fn by_time(one: &(f64, Vec<String>), other: &(f64, Vec<String>)) -> std::cmp::Ordering {
    one.0.total_cmp(&other.0)
}

#[test]
fn every_step_is_asked_for_once_of_its_own_participant() {
    let tasks = tasks();
    for step in Step::of(&parts()) {
        let (name, _, state) = tasks.get(&step).unwrap_or_else(|| panic!("no state asks for {step}"));
        let function = match step.participant() {
            Participant::Seller(part) => format!("${{SellerArnPrefix}}{part}"),
            other => format!("${{{}}}", deployed::logical(other, "FunctionArn")),
        };
        assert_eq!(state["Arguments"]["FunctionName"], json!(function), "{name}");
    }
    assert_eq!(tasks.len(), Step::of(&parts()).len());
}

/// A new part needs no edit of the file.
#[test]
fn no_part_is_named() {
    let text = include_str!("../statemachines/booking.asl.json");
    for part in parts() {
        assert!(!text.to_lowercase().contains(part.as_str()), "{part} is in the file");
    }
}

#[test]
fn what_is_put_together_from_a_parts_name_is_read_as_jsonata_reads_it() {
    let part = PartName::try_from("hotel").expect("a name");
    let read = |text: &str| concatenated(text, part);
    assert_eq!(read("{% $states.input.name & '.reserve' %}").as_deref(), Some("hotel.reserve"));
    assert_eq!(read("{% 'a-' & $states.input.name & '-b' %}").as_deref(), Some("a-hotel-b"));
    for other in ["hotel", "{% $states.input.part %}", "{% 'a' & $states.errorOutput.Error %}", "{% 'a' = 'b' %}"] {
        assert_eq!(read(other), None, "{other}");
    }
}

/// Both Map states hand each iteration the booking, and one part with its name: in an array even if there is but one.
#[test]
fn every_part_has_an_iteration_of_its_own() {
    let mut maps = 0;
    for (name, (around, state)) in states(&definition()) {
        assert_ne!(state["Type"], "Parallel", "{name} names its branches");
        if state["Type"] == "Map" {
            let item = "{'booking_id': $states.input.booking_id, 'name': $k, 'part': $v}";
            let items = format!("{{% [$each($states.input.parts, function($v, $k) {{ {item} }})] %}}");
            assert_eq!(
                (&state["Items"], &state["ItemSelector"], around),
                (&json!(items), &Value::Null, None),
                "{name}"
            );
            maps += 1;
        }
    }
    assert_eq!(maps, 2);
}

#[test]
fn every_command_can_be_read_by_its_participant() {
    let id = "0123456789abcdef0123456789abcdef";
    let money = json!({"amount": 1, "currency": "EUR"});
    let prices: Map<_, _> = parts().iter().map(|part| (part.to_string(), money.clone())).collect();
    let samples = json!({
        "booking_id": id, "part": {"anything": ["that", {"its": "seller"}, "reads"]},
        "payment": {"reference": id}, "parts": parts(), "prices": prices, "total": money,
        "reason": {"step": "hotel.reserve", "code": "sold_out", "detail": "…"},
        "step": "flight.cancel", "code": "parked", "detail": "…",
    });
    /// The payload with a sample in place of every expression.
    fn filled(payload: &Map<String, Value>, samples: &Value) -> Value {
        let fill = |(name, value): (&String, &Value)| {
            let sample = match value {
                Value::Object(inner) => filled(inner, samples),
                Value::String(text) if text.starts_with("{%") => samples[name].clone(),
                other => other.clone(),
            };
            (name.clone(), sample)
        };
        Value::Object(payload.iter().map(fill).collect())
    }
    for (step, (name, _, state)) in tasks() {
        let payload = state["Arguments"]["Payload"].as_object().expect("a payload");
        let payload = filled(payload, &samples);
        let command = Command::read(&payload);
        assert_eq!(command.as_ref().map(Command::step), Ok(step), "{name} sends {payload}");
    }
}

#[test]
fn every_task_has_a_timeout_and_a_catch_all_and_the_same_retry() {
    let permanent: Vec<_> =
        ErrorKind::ALL.into_iter().filter(|kind| !kind.is_retriable()).map(ErrorKind::name).collect();
    let permanent = json!({"ErrorEquals": permanent, "MaxAttempts": 0});
    let in_progress = json!([ErrorKind::ChargeInProgress.name()]);
    let mut profiles = BTreeSet::new();
    for (name, (_, state)) in states(&definition()) {
        if state["Type"] == "Map" {
            catch_all(&state);
        }
        if state["Type"] != "Task" {
            continue;
        }
        catch_all(&state);
        let timeout = state["TimeoutSeconds"].as_u64().unwrap_or_else(|| panic!("{name} has no timeout"));
        let retries = state["Retry"].as_array().unwrap_or_else(|| panic!("{name} has no Retry"));
        let last = retries.last().expect("a Retry");
        assert_eq!(last["ErrorEquals"], json!(["States.ALL"]), "{name}");
        if state.pointer("/Arguments/Payload/step").is_none() {
            profiles.insert(last.to_string());
            continue;
        }
        assert!(timeout > 10, "{name} gives up before the function's own timeout of 10 s");
        let retries = retries.iter().filter(|retrier| retrier["ErrorEquals"] != in_progress);
        let [first, refused, last] = retries.collect::<Vec<_>>()[..] else { panic!("{name} has other retriers") };
        assert_eq!(*first, permanent, "{name} repeats what cannot succeed");
        assert_eq!(refused["ErrorEquals"], json!([REFUSED]), "{name}");
        for retrier in [refused, last] {
            assert_eq!(retrier["JitterStrategy"], "FULL", "{name}");
        }
        profiles.extend([refused, last].map(Value::to_string));
    }
    assert_eq!(profiles.len(), 2, "one way to wait for concurrency, one to repeat: {profiles:#?}");
}

/// EXPRESS ends an execution after five minutes, wherever it is, and runs no Catch then:
/// <https://docs.aws.amazon.com/step-functions/latest/dg/choosing-workflow-type.html>. What is left of them is for the
/// transitions between states.
#[test]
fn every_way_through_ends_before_express_does() {
    let ways = ways(&definition());
    for (seconds, tasks) in &ways {
        assert!(*seconds <= 280.0, "{seconds} s through {tasks:?}");
    }
    let steps = ["Charge", "Abort", "Fail", "Park", "MarkNeedsOperator"];
    assert!(steps.iter().all(|step| ways[0].1.iter().any(|task| task == step)), "{ways:?}");
    assert_eq!(ways.len(), 5, "what must succeed is tried again for a while: {ways:?}");
}

#[test]
fn time_is_computed_as_step_functions_waits() {
    let task = json!({"Type": "Task", "TimeoutSeconds": 10, "End": true, "Retry": [
        {"ErrorEquals": ["Never"], "MaxAttempts": 0},
        {"ErrorEquals": [REFUSED], "IntervalSeconds": 2, "MaxDelaySeconds": 5, "MaxAttempts": 3},
        {"ErrorEquals": ["States.ALL"], "BackoffRate": 3},
    ]});
    let (refused, others) = (3.0 + 2.0 + 4.0 + 5.0, 30.0 + 1.0 + 3.0 + 9.0);
    assert_eq!(task_seconds(&task), 10.0 + refused + others);
    let quick = json!({"Type": "Task", "TimeoutSeconds": 1, "End": true});
    let inline = json!({"Mode": "INLINE"});
    let iteration = json!({"ProcessorConfig": inline, "StartAt": "B", "States": {"B": task}});
    let machine = json!({"States": {
        "A": {"Type": "Map", "ItemProcessor": iteration, "Next": "C"},
        "C": {"Type": "Choice", "Choices": [{"Next": "D"}], "Default": "E"},
        "D": quick,
        "E": {"Type": "Task", "TimeoutSeconds": 2, "Catch": [{"Next": "D"}], "End": true},
    }});
    let (seconds, tasks) = longest(&machine, "A", &[]);
    assert_eq!((seconds, tasks.join(" ")), (task_seconds(&task) + 2.0 + 1.0, "B E D".to_owned()));
    let early = "{% $toMillis($states.context.State.EnteredTime) < $end and $x %}";
    let end = json!({"end": "{% $toMillis($states.context.Execution.StartTime) + 50 * 1000 %}"});
    let machine = json!({"StartAt": "A", "States": {
        "A": {"Type": "Task", "TimeoutSeconds": 3, "Assign": end, "Next": "B"},
        "B": {"Type": "Choice", "Choices": [{"Condition": early, "Next": "C"}], "Default": "D"},
        "C": {"Type": "Wait", "Seconds": 7, "Next": "A"},
        "D": {"Type": "Fail"},
    }});
    let seconds: Vec<_> = ways(&machine).into_iter().map(|(seconds, _)| seconds).collect();
    assert_eq!(seconds, [3.0, 50.0 + 7.0 + 3.0]);
}

/// Whose worker dies while it charges must not lose the trip by that alone.
#[test]
fn a_charge_is_tried_again_for_longer_than_a_dead_workers_lease_lasts() {
    let charge = &tasks()[&Step::Charge].2;
    let retries = charge["Retry"].as_array().expect("Retry");
    let waits = retries.iter().find(|retry| retry["ErrorEquals"] == json!([ErrorKind::ChargeInProgress.name()]));
    let waits = waits.expect("a retry of its own for a charge that is in progress");
    assert_eq!(
        (&waits["BackoffRate"], waits.get("JitterStrategy")),
        (&json!(1), None),
        "it is known how long it takes"
    );
    let number = |name: &str| waits[name].as_u64().expect("a number");
    let seconds = number("IntervalSeconds") * number("MaxAttempts");
    assert!(seconds > services::LEASE.as_secs(), "{seconds} s");
}

#[test]
fn every_error_that_is_named_is_one_that_is_emitted() {
    for (name, (_, state)) in states(&definition()) {
        for rule in
            ["Retry", "Catch"].into_iter().flat_map(|field| state[field].as_array().cloned().unwrap_or_default())
        {
            for error in rule["ErrorEquals"].as_array().expect("ErrorEquals") {
                let error = error.as_str().expect("a name");
                let known = error.starts_with("States.")
                    || error == REFUSED
                    || ErrorKind::ALL.into_iter().any(|kind| kind.name() == error);
                assert!(known, "{name} names {error}, which nobody emits");
            }
        }
    }
}

#[test]
fn a_compensatable_step_that_errs_does_not_abandon_its_siblings_and_is_undone() {
    let (tasks, states) = (tasks(), states(&definition()));
    let mut together = BTreeSet::new();
    for step in Step::of(&parts()).into_iter().filter(|step| step.class() == Class::Compensatable) {
        let (_, around, state) = &tasks[&step];
        together.insert(around.clone());
        let caught = catch_all(state);
        assert_eq!(caught["Output"]["step"], json!(step.to_string()));
        assert_ne!(caught["Output"]["outcome"], "reserved", "an error is no reservation");
        assert_eq!(states[caught["Next"].as_str().expect("Next")].1["End"], true, "{step}");
        let undo = step.undo().expect("compensatable");
        let (_, map, _) = &tasks[&undo];
        let undone = map.as_deref().expect("the undos are made at once");
        assert!(after("Abort").contains(undone), "{undo} does not follow an abort");
    }
    assert_eq!(together.len(), 1, "the reservations are made in one Map");
    assert!(!together.contains(&None));
}

#[test]
fn what_must_succeed_is_tried_again_for_a_while_and_then_parked() {
    let definition = definition();
    let (tasks, states) = (tasks(), states(&definition));
    let permanent = ErrorKind::ALL.into_iter().filter(|kind| !kind.is_retriable());
    let permanent = json!(permanent.map(ErrorKind::name).collect::<Vec<_>>());
    // Wherever the first state leads, both variables are known.
    let first = &states[definition["StartAt"].as_str().expect("StartAt")].1;
    for variable in ["permanent", "patience"] {
        for way in [first, catch_all(first)] {
            assert!(!way["Assign"][variable].is_null(), "{variable} is not known after {way}");
        }
    }
    assert!(assigned(&definition, "permanent").into_iter().all(|names| *names == permanent));
    let is_to_succeed = |step: &Step| step.class() == Class::Retriable && *step != Step::Park;
    for step in Step::of(&parts()).into_iter().filter(is_to_succeed) {
        let (name, around, state) = &tasks[&step];
        let caught = catch_all(state);
        let (again, later) = match around {
            None => (name, caught["Next"].as_str().expect("Next")),
            Some(map) => {
                assert_eq!(caught["Output"]["step"], json!(step.to_string()));
                assert_eq!(caught["Output"]["outcome"], "parked", "{name}");
                (map, states[map].1["Next"].as_str().expect("Next"))
            }
        };
        let later = &states[later].1;
        assert_eq!(later["Default"], "Park", "{name}");
        let rule = later["Choices"].as_array().expect("Choices").last().expect("a rule");
        assert!(until(&definition, rule).is_some(), "{name} is tried again without an end");
        let condition = rule["Condition"].as_str().expect("a condition");
        let can_help = " and $count($stuck[error in $permanent]) = 0 %}";
        assert!(condition.ends_with(can_help), "{name} is tried again although that cannot help: {condition}");
        let pause = &states[rule["Next"].as_str().expect("Next")].1;
        assert_eq!((&pause["Type"], &pause["Next"]), (&json!("Wait"), &json!(again)), "{name}");
    }
    assert_eq!(states["Park"].1["Resource"], "arn:${Partition}:states:::sqs:sendMessage");
    assert!(after("Park").contains(&tasks[&Step::Park].0));
    assert_eq!(states["NeedsOperator"].1["Type"], "Fail");
}

#[test]
fn the_pivot_divides_forwards_from_back() {
    let tasks = tasks();
    let name = |step: Step| tasks[&step].0.clone();
    let charge = &tasks[&Step::Charge];
    assert_eq!(catch_all(&charge.2)["Next"], json!(name(Step::Abort)), "an unknown charge is for payment to decide");
    assert_eq!(states(&definition())["Charged"].1["Default"], "Cancel", "a declined charge is the decision");
    let after_confirm = after(&name(Step::Confirm));
    for back in [name(Step::Abort), name(Step::Charge), name(Step::Fail), "Cancel".to_owned()] {
        assert!(!after_confirm.contains(&back), "{back} may follow the confirmation");
    }
    let after_cancel = after("Cancel");
    for forwards in [name(Step::Charge), name(Step::Confirm)] {
        assert!(!after_cancel.contains(&forwards), "{forwards} may follow the compensation");
    }
    assert!(after(&name(Step::Abort)).contains(&name(Step::Confirm)), "an abort that finds it charged goes forwards");
}

#[test]
fn every_state_is_reached_and_every_target_exists() {
    let definition = definition();
    let states = states(&definition);
    let start = definition["StartAt"].as_str().expect("StartAt");
    let reached = after(start);
    for (name, (around, state)) in &states {
        for next in successors(state) {
            let target = states.get(&next).unwrap_or_else(|| panic!("{name} goes to {next}, which does not exist"));
            assert_eq!(&target.0, around, "{name} leaves its iteration");
        }
        assert!(around.is_some() || name == start || reached.contains(name), "{name} is never reached");
        let ends = state["End"] == true || state["Type"] == "Fail";
        assert!(ends || !successors(state).is_empty(), "{name} goes nowhere");
    }
}

/// A state that does nothing is a transition all the same, and transitions are what a STANDARD execution costs.
#[test]
fn an_execution_ends_with_the_step_that_ends_its_booking() {
    let ends =
        states(&definition()).into_iter().filter(|(_, (around, state))| around.is_none() && state["End"] == true);
    let ends: BTreeSet<_> = ends.map(|(name, _)| name).collect();
    assert_eq!(ends, [Step::Confirm, Step::Fail].map(|step| tasks()[&step].0.clone()).into());
    assert!(states(&definition()).values().all(|(_, state)| state["Type"] != "Succeed"));
}

#[test]
fn no_participant_is_left_out() {
    let asked: BTreeSet<_> = tasks().keys().map(|step| step.participant()).collect();
    assert_eq!(asked, Participant::of(&parts()).into_iter().collect());
}
