//! Fault points: places where a test makes a function crash or lose its answer. They are compiled in only with the
//! feature `fault-points`, which no deployed function has.
//!
//! | operation | before | after |
//! |---|---|---|
//! | `TransactWriteItems`, `Publish`, …: a request to AWS | it is not sent yet | it is answered, but the function does not know yet |
//! | `Command`, `Event`, `Message`, `Request`: what the function is invoked for | nothing is done yet | all is done, but no other program knows yet |
//!
//! `HARMONY_FAULTS` names a folder. A fault is a file there, `WORD.NAME.json`: it strikes at the first point whose text
//! (the request's body, or the function's input) contains the word and that matches the rest of the file. The file is
//! then renamed, which only one process can do, so each fault strikes once; `WORD.NAME.fired` records where. Every
//! point that is passed is appended to `trace`, one line of JSON each.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, PoisonError},
};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        http::{
            HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
            SharedHttpConnector,
        },
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::{RuntimeComponents, RuntimeComponentsBuilder},
    },
    http::StatusCode,
};
use aws_smithy_types::{body::SdkBody, config_bag::ConfigBag};
use lambda_runtime::Diagnostic;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::message;

/// Names the folder of faults and traces.
const FOLDER: &str = "HARMONY_FAULTS";
/// The result of a task that has an answer: a reply, an event, or the acknowledgement of a message.
const ANSWERED: &str = "said";

/// Where a fault strikes, and what it does.
#[derive(Debug, Deserialize)]
struct InjectedFault {
    function: String,
    operation: String,
    when: When,
    contains: Vec<String>,
    lacks: Vec<String>,
    then: Then,
}

/// Whether the fault strikes before or after the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum When {
    Before,
    After,
}

/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Then {
    /// The process ends immediately: nothing is unwound, dropped or flushed.
    Crash,
    /// The function's answer is lost on its way: the caller gets an error.
    LoseReply,
    /// The function's event is lost: the message is acknowledged, but the event never arrives.
    LoseEvent,
}

/// A point that is passed.
#[derive(Debug)]
struct Point<'a> {
    operation: &'a str,
    when: When,
    text: &'a str,
    /// What is known after the operation: the HTTP status of the answer, or whether the function has an answer.
    result: Option<Value>,
}

struct Folder {
    path: PathBuf,
    function: String,
    trace: Mutex<File>,
}

static FAULTS: LazyLock<Option<Folder>> = LazyLock::new(|| {
    let path = PathBuf::from(std::env::var_os(FOLDER)?);
    let function = std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default();
    match OpenOptions::new().create(true).append(true).open(path.join("trace")) {
        Ok(trace) => Some(Folder { path, function, trace: Mutex::new(trace) }),
        Err(error) => {
            tracing::error!(%error, folder = %path.display(), "the folder of faults cannot be used");
            None
        }
    }
});

/// Records that a point is passed, and applies the fault that strikes there. A fault that only the caller can apply is
/// returned.
fn pass(point: &Point<'_>) -> Option<Then> {
    let faults = FAULTS.as_ref()?;
    faults.record(point);
    let fault = fs::read_dir(&faults.path).ok()?.flatten().find_map(|file| faults.strike(&file.path(), point))?;
    match fault {
        Then::Crash => std::process::abort(),
        other => Some(other),
    }
}

impl Folder {
    fn line(&self, point: &Point<'_>) -> String {
        let Point { operation, when, text, result } = point;
        let pid = std::process::id();
        let line = json!({
            "function": self.function, "pid": pid, "operation": operation, "when": when, "text": text, "result": result,
        });
        format!("{line}\n")
    }

    /// One write per line, so that the lines of several processes do not mix.
    fn record(&self, point: &Point<'_>) {
        let mut trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = trace.write_all(self.line(point).as_bytes()) {
            tracing::error!(%error, "the trace cannot be written, and has a gap");
        }
    }

    /// The effect of the fault in this file, if it strikes here. It is then used up.
    fn strike(&self, file: &Path, point: &Point<'_>) -> Option<Then> {
        let name = file.file_name()?.to_str()?.strip_suffix(".json")?;
        if !point.text.contains(name.split('.').next()?) {
            return None;
        }
        let fault: InjectedFault = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        let strikes = (&*fault.operation, fault.when) == (point.operation, point.when)
            && fault.function == self.function
            && fault.contains.iter().all(|word| point.text.contains(word))
            && !fault.lacks.iter().any(|word| point.text.contains(word))
            && (fault.then != Then::LoseEvent || point.result.as_ref().is_none_or(|result| result == ANSWERED));
        if !strikes {
            return None;
        }
        let (claimed, fired) = (file.with_extension("claimed"), file.with_extension("fired"));
        fs::rename(file, &claimed).ok()?; // another process was first
        fs::write(&claimed, self.line(point)).and_then(|()| fs::rename(&claimed, fired)).ok()?;
        Some(fault.then)
    }
}

// -------------------------------------------------------------------------------------- what a function is invoked for
/// The input that a function is processing.
pub(crate) struct Task {
    operation: &'static str,
    text: String,
}

impl Task {
    /// An invocation has just arrived. The messages of a batch are tasks of their own.
    pub(crate) fn of(payload: &Value) -> Self {
        let source = payload.pointer("/Records/0/eventSource").or(payload.pointer("/Records/0/EventSource"));
        match source.and_then(Value::as_str) {
            Some("aws:sqs") => Self::begin("Batch", String::new()),
            Some("aws:sns") => Self::message("Event", message::notified(payload).unwrap_or_default()),
            _ => Self::begin("Command", payload.to_string()),
        }
    }

    /// A message has just arrived. Its text is the event in it, without the records around the event.
    pub(crate) fn message(operation: &'static str, text: &str) -> Self {
        Self::begin(
            operation,
            message::event(text).ok().flatten().map_or_else(|| text.to_owned(), |event| event.to_string()),
        )
    }

    /// A task of this kind has just started.
    pub(crate) fn begin(operation: &'static str, text: String) -> Self {
        pass(&Point { operation, when: When::Before, text: &text, result: None });
        Self { operation, text }
    }

    /// The function has done its work and is about to return this answer. If the answer is lost, it returns an error or
    /// nothing.
    pub(crate) fn end<T: Default>(
        self,
        answer: Result<T, Diagnostic>,
        says: impl Fn(&T) -> bool,
    ) -> Result<T, Diagnostic> {
        let result = match &answer {
            Ok(answer) if says(answer) => ANSWERED,
            Ok(_) => "nothing",
            Err(_) => "error",
        };
        match pass(&Point {
            operation: self.operation,
            when: When::After,
            text: &self.text,
            result: Some(json!(result)),
        }) {
            Some(Then::LoseReply) => {
                Err(Diagnostic { error_type: "ReplyLost".into(), error_message: "a test has lost it".into() })
            }
            Some(Then::LoseEvent) => Ok(T::default()),
            Some(Then::Crash) | None => answer,
        }
    }
}

// ----------------------------------------------------------------------------------------------------- requests to AWS
/// A client that passes a point before and after each request.
pub(crate) fn watched(client: impl HttpClient + 'static) -> SharedHttpClient {
    SharedHttpClient::new(Watched(SharedHttpClient::new(client)))
}

#[derive(Debug)]
struct Watched(SharedHttpClient);

impl HttpClient for Watched {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(WatchedConnector(self.0.http_connector(settings, components)))
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.validate_base_client_config(components, config)
    }

    fn validate_final_config(&self, components: &RuntimeComponents, config: &ConfigBag) -> Result<(), BoxError> {
        self.0.validate_final_config(components, config)
    }
}

#[derive(Debug)]
struct WatchedConnector(SharedHttpConnector);

impl HttpConnector for WatchedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let text = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
        let operation = operation(&request, &text);
        match pass(&Point { operation: &operation, when: When::Before, text: &text, result: None }) {
            Some(Then::LoseEvent) => return HttpConnectorFuture::ready(published()),
            Some(fault @ (Then::Crash | Then::LoseReply)) => panic!("{fault:?} cannot strike before {operation}"),
            None => {}
        }
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await;
            let status = answer.as_ref().ok().map(|answer| json!(answer.status().as_u16()));
            let fault = pass(&Point { operation: &operation, when: When::After, text: &text, result: status });
            assert_eq!(fault, None, "only a crash can strike after {operation}");
            answer
        })
    }
}

/// `TransactWriteItems` of `DynamoDB_20120810.TransactWriteItems`, or `Publish` of `Action=Publish&…`.
fn operation(request: &HttpRequest, text: &str) -> String {
    let target = request.headers().get("x-amz-target").and_then(|target| target.rsplit('.').next());
    let action = || text.strip_prefix("Action=").and_then(|rest| rest.split('&').next());
    target.or_else(action).unwrap_or_default().to_owned()
}

/// The answer of SNS to a published event. This is the only operation that is reported without being carried out.
fn published() -> Result<HttpResponse, ConnectorError> {
    let body = "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult><MessageId>\
        00000000-0000-0000-0000-000000000000</MessageId></PublishResult></PublishResponse>";
    let ok = StatusCode::try_from(200).map_err(|error| ConnectorError::other(error.into(), None))?;
    Ok(HttpResponse::new(ok, SdkBody::from(body)))
}
