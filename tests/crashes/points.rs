//! Points that functions pass, and the faults that a booking can meet there.

use super::*;

/// A line of the trace: a point that a function has passed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Passed {
    pub(super) pid: u64,
    pub(super) after: bool,
    pub(super) text: String,
    pub(super) result: Value,
    pub(super) point: Point,
}

/// A place in the work on a booking: what is asked of whom, told apart by the words in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    pub(super) function: String,
    pub(super) operation: String,
    pub(super) words: Vec<String>,
}

/// Words that tell one point from another. Steps and events, and what tells requests of the same step apart.
fn vocabulary() -> impl Iterator<Item = String> {
    let parts = travel::part_names();
    let steps = Step::of(&parts).into_iter().map(|step| step.to_string());
    let names = steps.chain(EventType::of(&parts).into_iter().map(|event| event.to_string()));
    let of_parts = parts.into_iter().flat_map(|part| [format!("price_{part}"), format!("[\"{part}\"]")]);
    let others = [
        "\":outcome\"",
        "INPROGRESS",
        "COMPLETED",
        "failures_left",
        "open_shard",
        "charged_at",
        "voided_at",
        "errorType",
    ];
    names.chain(others.map(str::to_owned)).chain(of_parts)
}

impl Passed {
    pub(super) fn read(line: &str) -> Self {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text = line["text"].as_str().unwrap().to_owned();
        let function = line["function"].as_str().unwrap();
        let point = Point {
            function: function.rsplit('-').next().unwrap().to_owned(),
            operation: line["operation"].as_str().unwrap().to_owned(),
            words: vocabulary().filter(|word| text.contains(word.as_str())).collect(),
        };
        let (pid, after) = (line["pid"].as_u64().unwrap(), line["when"] == "after");
        Self { pid, after, text, result: line["result"].clone(), point }
    }
}

impl Passed {
    /// Whether a task was done. A message that is not comes again.
    pub(super) fn is_done(&self) -> bool {
        self.after && (self.result == "said" || self.result == "nothing" && self.point.operation != "Message")
    }
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = if self.after { "after" } else { "before" };
        write!(f, "{when} {} with {} in process {}", self.point, self.result, self.pid)
    }
}

impl Point {
    /// Whether it is what a function is invoked for, and not a request that it makes.
    pub(super) fn is_task(&self) -> bool {
        ["Command", "Event", "Message", "Request", "Batch"].contains(&self.operation.as_str())
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {}", self.function, self.operation, self.words.join(", "))
    }
}

/// Points, each with the result that is known after it.
pub(super) type Points = BTreeMap<Point, Value>;

/// What happens to a booking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process ends.
    Crash {
        at: Point,
        after: bool,
        /// The HTTP status that the request was answered with when nothing went wrong.
        status: Value,
    },
    /// A reply is lost.
    LoseReply { at: Point },
    /// An event is lost: what is published, or what the function returns.
    LoseEvent { at: Point },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash { at, after, .. } => write!(f, "crash {} {at}", if *after { "after" } else { "before" }),
            Self::LoseReply { at } => write!(f, "reply lost of {at}"),
            Self::LoseEvent { at } => write!(f, "event lost of {at}"),
        }
    }
}

impl Fault {
    /// As the functions of this stack read it.
    pub(super) fn to_json(&self, stack: &str) -> Value {
        let at = |at: &Point, when: &str, then: &str| {
            let lacks: Vec<_> = vocabulary().filter(|word| !at.words.contains(word)).collect();
            json!({"function": format!("{stack}-{}", at.function), "operation": at.operation, "when": when,
                   "contains": at.words, "lacks": lacks, "then": then})
        };
        match self {
            Self::Crash { at: point, after, .. } => at(point, if *after { "after" } else { "before" }, "crash"),
            Self::LoseReply { at: point } => at(point, "after", "lose_reply"),
            Self::LoseEvent { at: point } => at(point, if point.is_task() { "after" } else { "before" }, "lose_event"),
        }
    }

    /// Whether the client learns of it, and has to send its request again.
    pub(super) fn hits_the_client(&self) -> bool {
        matches!(self, Self::Crash { at, .. } | Self::LoseReply { at } if at.function == "api")
    }

    pub(super) fn loses_an_event(&self) -> bool {
        matches!(self, Self::LoseEvent { .. })
    }

    /// Whether it struck where it was meant to, after the answer that is given there. Where events race, that may be
    /// another one: a cancel came first, or a neighbour's crash has interrupted the same step before.
    pub(super) fn check(&self, struck: &Passed, variant: Variant) -> Result<(), String> {
        let is_right = match self {
            Self::Crash { at, after, status } => {
                let is_answer = struck.result == *status
                    || variant == Variant::Choreographed && (struck.result == 200 || struck.result == 400);
                struck.point == *at && struck.after == *after && (!after || is_answer)
            }
            Self::LoseReply { at } => struck.point == *at && struck.after && struck.is_done(),
            Self::LoseEvent { at } => struck.point == *at && struck.after == at.is_task(),
        };
        if is_right { Ok(()) } else { Err(format!("{self}, but it struck at {struck}")) }
    }
}
