//! Decoding: from the bytes of an invocation, in each possible shape, to the input of the step logic. The payloads are
//! those in `events/`.

use std::{env, fs, path::Path, process::Command, time::Duration};

use criterion::{BatchSize, Criterion};
use futures_util::FutureExt;
use http::Response;
use runtime::{Failure, Fault, Handler, Input, PublishedBy, Queue};
use saga::Envelope;
use serde_json::{Value, json};

use crate::{Outcome, report::Report, waiting::environment};

/// What is decoded: shape, payload, and how often its first record is repeated (0: the payload is used unchanged).
const SHAPES: [(&str, &str, usize); 6] = [
    ("command", "flight/command-reserve", 0),
    ("SNS record", "flight/sns-booking-requested", 0),
    ("SQS batch of one", "flight/sqs-booking-aborted", 0),
    ("SQS batch of ten", "flight/sqs-booking-aborted", 10),
    ("destination record, from SNS", "payment/sns-flight-reserved", 0),
    ("HTTP request", "api/post-booking", 0),
];

/// The argument that makes this program the measured process.
pub(crate) const DECODE: &str = "decode";

pub(crate) fn measure(report: &mut Report) -> Outcome<()> {
    report.part(
        "Decoding an invocation",
        "From its bytes to the typed command, event or booking request that the step logic takes, and back to the answer.",
    );
    let process = Command::new(env::current_exe()?).arg(DECODE).envs(environment()).output()?;
    if !process.status.success() {
        return Err(format!("decoding was not measured: {}", String::from_utf8_lossy(&process.stderr)).into());
    }
    let mut found = Vec::new();
    for (shape, payload, records) in SHAPES {
        let estimates = fs::read_to_string(crate::folder()?.join(format!("criterion/{shape}/new/estimates.json")))?;
        let estimates: Value = serde_json::from_str(&estimates)?;
        let bytes = bytes_of(payload, records)?.len();
        let nanoseconds = estimates["median"]["point_estimate"].as_f64().ok_or("criterion estimated nothing")?;
        found.push((shape, bytes, nanoseconds));
    }
    let command = found.first().map_or(f64::NAN, |(_, _, nanoseconds)| *nanoseconds);
    let row = |(shape, bytes, nanoseconds): &(&str, usize, f64)| {
        vec![
            (*shape).to_owned(),
            bytes.to_string(),
            format!("{:.1} µs", nanoseconds / 1e3),
            format!("{:.2}", nanoseconds / command),
        ]
    };
    report.table(&["shape", "bytes", "median", "× the command"], found.iter().map(row));
    let figures = found.iter().map(|(shape, bytes, nanoseconds)| {
        json!({"shape": shape, "bytes": bytes, "ns": nanoseconds, "of_command": nanoseconds / command})
    });
    report.keep("decoding", figures.collect());
    Ok(())
}

fn bytes_of(payload: &str, records: usize) -> Outcome<Vec<u8>> {
    let path = local_aws::checkout::root()?.join("events").join(payload).with_extension("json");
    let mut payload: Value = serde_json::from_slice(&fs::read(&path)?)?;
    if let Some(Value::Array(all)) = payload.get_mut("Records").filter(|_| records > 0) {
        all.resize(records, all.first().cloned().unwrap_or_default());
    }
    Ok(serde_json::to_vec(&payload)?)
}

/// Measures, and leaves the estimates in files.
pub(crate) fn decode() -> Outcome<()> {
    let handler = Handler {
        handle: async |input| match input {
            Input::Command(payload) => Ok(Some(json!(saga::Command::read(&payload).map_err(NotRead::of)?.booking_id))),
            Input::Event(event) | Input::Failure(Failure { event, .. }) => {
                Envelope::read(&event).map_err(NotRead::of)?;
                Ok(None)
            }
        },
        publish: async |_| Ok::<_, NotRead>(()),
        published_by: PublishedBy::Destination,
        fault: |_: &NotRead| Fault { error_type: "NotRead", is_retriable: false },
        queue: Queue::of_function(&runtime::aws()?)?,
    };
    let mut criterion = Criterion::default()
        .without_plots()
        .output_directory(&crate::folder()?.join("criterion"))
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for (shape, payload, records) in SHAPES {
        let bytes = bytes_of(payload, records)?;
        let is_http = Path::new(payload).starts_with("api");
        let decode = |bytes: &[u8]| -> Outcome<String> {
            let value = serde_json::from_slice(bytes)?;
            let answer = if is_http {
                let read = async |_: &str, request: http::Request<Vec<u8>>| {
                    let body = serde_json::from_slice(request.body()).unwrap_or_default();
                    Response::new(
                        travel::TRAVEL
                            .read(&body, jiff::civil::date(2027, 1, 1))
                            .map(|_| "read".to_owned())
                            .unwrap_or_default(),
                    )
                };
                let answer = runtime::answer_http(value, read).now_or_never().ok_or("waits")?;
                serde_json::to_string(&answer.map_err(|error| error.error_message)?)?
            } else {
                let answer = handler.invoked(value).now_or_never().ok_or("waits")?;
                serde_json::to_string(&answer.map_err(|error| error.error_message)?)?
            };
            Ok(answer)
        };
        let answer = decode(&bytes)?; // otherwise this would measure how fast it is refused
        if is_http && !answer.contains("read") || answer.contains("itemIdentifier") {
            return Err(format!("{shape} was answered with {answer}").into());
        }
        criterion.bench_function(shape, |bencher| {
            bencher.iter_batched(|| bytes.clone(), |bytes| decode(&bytes).is_ok(), BatchSize::SmallInput);
        });
    }
    Ok(())
}

/// A payload that should be readable, but is not.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotRead(String);

impl NotRead {
    fn of(why: impl std::fmt::Debug) -> Self {
        Self(format!("{why:?}"))
    }
}
