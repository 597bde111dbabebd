//! How much of a warm step is spent waiting for DynamoDB: the flight function's own code in this program, on the local
//! AWS's DynamoDB, with a stopwatch where the SDK sends a request and receives the answer.
//!
//! ```text
//!   payload ─▶ runtime ─▶ services ─▶ store ─▶ SDK ──send──▶ │ DynamoDB │ ──answer──▶ SDK ─▶ … ─▶ reply
//!   ◀───────────────────────────────── handler ─────────────────────────────────────────────────────▶
//!                                          ◀──────────────── call ───────────────────▶
//!                                                  ◀──────── waiting ────────▶
//! ```

use std::{
    env,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::config::{
    ConfigBag, Intercept, RuntimeComponents,
    interceptors::{
        BeforeDeserializationInterceptorContextRef, BeforeSerializationInterceptorContextRef,
        BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
    },
};
use jiff::Timestamp;
use runtime::{Fault, Handler, Input, PublishedBy, Queue};
use saga::Catalogue;
use serde::{Deserialize, Serialize};
use serde_json::json;
use services::{Seller, StepError};
use store::{Journal, StockTable};
use travel::FLIGHT;

use crate::{
    Outcome,
    report::{Report, median},
    step::{self, Steps},
};

const WARM_UP: usize = 50;
const STEPS: usize = 500;
/// The pause between two steps. Between two invocations other processes run, and the step's data is no longer in the
/// processor's caches; without a pause it still is.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::ZERO];
/// DynamoDB's usual latencies, in milliseconds.
const TYPICAL: [f64; 2] = [5.0, 10.0];

/// The result of the measured process, medians in milliseconds.
#[derive(Serialize, Deserialize)]
struct Split {
    handler: f64,
    call: f64,
    waiting: f64,
    rest: f64,
    share_of_call: f64,
    share: f64,
}

pub(crate) fn measure(report: &mut Report, steps: &Steps, warm_processor_ms: f64) -> Outcome<()> {
    report.part(
        "What a warm step spends its time on",
        "The handler's time, from the payload to the reply, with the flight function's own code and configuration. The \
         call is the SDK's whole call to DynamoDB, including signing and parsing; waiting is from sending the request \
         until its answer has arrived.",
    );
    let stack = steps.stack();
    let endpoint = stack.endpoint.as_deref().ok_or("the local AWS has no endpoint")?;
    let mut process = Command::new(env::current_exe()?);
    process.arg(STEP).envs(environment()).env("AWS_ENDPOINT_URL", endpoint);
    process.env("STOCK_TABLE", stack.stock_table(FLIGHT.name)?).env("JOURNAL_TABLE", stack.journal_table()?);
    let output = process.output()?;
    let stdout = String::from_utf8_lossy(&output.stdout); // its log, followed by the result
    let [paused, at_once]: [Split; 2] = serde_json::from_str(stdout.lines().last().unwrap_or_default())
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let row = |name: &str, pick: fn(&Split) -> f64| {
        vec![name.to_owned(), format!("{:.3} ms", pick(&paused)), format!("{:.3} ms", pick(&at_once))]
    };
    report.table(
        &[&format!("median of {STEPS}"), &format!("every {} ms", PAUSES[0].as_millis()), "back to back"],
        [
            row("handler", |split| split.handler),
            row("in the call to DynamoDB", |split| split.call),
            row("of that, waiting", |split| split.waiting),
            row("all but waiting", |split| split.rest),
            vec![
                "share of the call".into(),
                format!("{:.1} %", 100.0 * paused.share_of_call),
                format!("{:.1} %", 100.0 * at_once.share_of_call),
            ],
            vec![
                "share of waiting".into(),
                format!("{:.1} %", 100.0 * paused.share),
                format!("{:.1} %", 100.0 * at_once.share),
            ],
        ],
    );
    let whole = |waiting: f64| waiting / (waiting + warm_processor_ms);
    report.says(format_args!(
        "Of everything that the function's process does for an invocation ({warm_processor_ms:.3} ms of processor time, \
         see above), waiting takes {:.1} %. The local AWS is reached without TLS.",
        100.0 * whole(paused.waiting),
    ));
    let computed = TYPICAL.map(|latency| (latency, latency / (latency + paused.rest), whole(latency)));
    let shares = computed.map(|(latency, handler, whole)| {
        format!("{:.1} % at {latency} ms (of all that the process does {:.1} %)", 100.0 * handler, 100.0 * whole)
    });
    report.says(format_args!(
        "Calculated, not measured: if the answer took single-digit milliseconds, as DynamoDB's does on AWS, waiting would \
         take {}.",
        shares.join(", ")
    ));
    let split = |split: &Split| json!({"handler_ms": split.handler, "call_ms": split.call, "share_of_call": split.share_of_call, "waiting_ms": split.waiting, "rest_ms": split.rest, "share": split.share});
    let computed = computed
        .map(|(latency, handler, whole)| json!({"dynamodb_ms": latency, "share": handler, "share_of_process": whole}));
    report.keep(
        "waiting",
        json!({
            "paused": split(&paused), "back_to_back": split(&at_once), "share_of_process": whole(paused.waiting),
            "computed": computed,
        }),
    );
    Ok(())
}

/// The variables that Lambda sets in a function's environment and that the function reads.
pub(crate) fn environment() -> [(&'static str, &'static str); 8] {
    [
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("STOCK_TABLE", "t"),
        ("JOURNAL_TABLE", "t"),
        ("JOURNAL_RETENTION_DAYS", "730"),
        ("QUEUE_URL", "q"),
        ("DEAD_LETTER_QUEUE_URL", "q"),
    ]
}

/// The argument that makes this program the measured process.
pub(crate) const STEP: &str = "step";

/// Carries out steps and prints the [`Split`].
pub(crate) async fn steps() -> Outcome<()> {
    runtime::start_logging();
    let aws = runtime::aws()?;
    let stopwatch = Stopwatch::default();
    let config = store::client(&aws).config().to_builder().interceptor(stopwatch.clone()).build();
    let client = aws_sdk_dynamodb::Client::from_conf(config);
    let retention = runtime::number_setting("JOURNAL_RETENTION_DAYS")?;
    let journal = Journal::new(client.clone(), runtime::setting("JOURNAL_TABLE")?, retention);
    let seller = Seller {
        part_type: FLIGHT,
        store: StockTable::new(client, runtime::setting("STOCK_TABLE")?, journal),
        catalogue: Catalogue::read(FLIGHT.price_list)?,
        clock: Timestamp::now,
    };
    let handler = Handler {
        handle: async |input| match input {
            Input::Command(payload) => seller.handle(&payload).await.map(Some),
            Input::Event(_) | Input::Failure(_) => Ok(None),
        },
        publish: async |_| Ok::<_, StepError>(()),
        published_by: PublishedBy::Destination,
        fault: |error: &StepError| Fault { error_type: error.error_type(), is_retriable: error.kind().is_retriable() },
        queue: Queue::of_function(&aws)?,
    };
    let mut splits = Vec::new();
    for pause in PAUSES {
        let mut figures = [const { Vec::new() }; 6];
        for number in 0..WARM_UP + STEPS {
            let payload = step::command(&format!("handler after {pause:?}"), number)?;
            tokio::time::sleep(pause).await;
            let began = Instant::now();
            let answer = handler.invoked(payload).await;
            let took = began.elapsed();
            let (called, waited) = stopwatch.reset()?;
            if !matches!(&answer, Ok(Some(reply)) if reply["outcome"] == "reserved") {
                return Err(format!("{answer:?}").into());
            }
            if number >= WARM_UP {
                let [took, called, waited] = [took, called, waited].map(|time| time.as_secs_f64() * 1e3);
                let found = [took, called, waited, took - waited, called / took, waited / took];
                figures.iter_mut().zip(found).for_each(|(values, value)| values.push(value));
            }
        }
        let [handler, call, waiting, rest, share_of_call, share] = figures.map(|values| median(&values));
        splits.push(Split { handler, call, waiting, rest, share_of_call, share });
    }
    println!("{}", serde_json::to_string(&splits)?);
    Ok(())
}

/// Records when a call begins and ends, when its request is handed over to be sent, and when its answer arrives.
#[derive(Clone, Debug, Default)]
struct Stopwatch(Arc<Mutex<Laps>>);

#[derive(Debug, Default)]
struct Laps {
    call: Lap,
    wait: Lap,
}

/// When it began, if it has, and the total of the previous ones.
#[derive(Debug, Default)]
struct Lap(Option<Instant>, Duration);

impl Lap {
    fn begin(&mut self) {
        self.0 = Some(Instant::now());
    }

    fn end(&mut self) {
        if let Some(began) = self.0.take() {
            self.1 += began.elapsed();
        }
    }
}

/// A thread that held the lock has panicked.
#[derive(Debug, thiserror::Error)]
#[error("the stopwatch is broken: its lock was held by a thread that panicked")]
struct Poisoned;

type Intercepted = Result<(), aws_sdk_dynamodb::error::BoxError>;

impl Stopwatch {
    /// The duration of all calls since the last reset, and how much of it was waiting.
    fn reset(&self) -> Result<(Duration, Duration), Poisoned> {
        let laps = std::mem::take(&mut *self.0.lock().map_err(|_| Poisoned)?);
        Ok((laps.call.1, laps.wait.1))
    }

    fn record(&self, what: impl FnOnce(&mut Laps)) -> Intercepted {
        what(&mut *self.0.lock().map_err(|_| Poisoned)?);
        Ok(())
    }
}

impl Intercept for Stopwatch {
    fn name(&self) -> &'static str {
        "Stopwatch"
    }

    fn read_before_execution(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        _: &mut ConfigBag,
    ) -> Intercepted {
        self.record(|laps| laps.call.begin())
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Intercepted {
        self.record(|laps| laps.wait.begin())
    }

    fn read_before_deserialization(
        &self,
        _: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Intercepted {
        self.record(|laps| laps.wait.end())
    }

    fn read_after_execution(
        &self,
        _: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Intercepted {
        self.record(|laps| laps.call.end())
    }
}
