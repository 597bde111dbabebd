//! How much of a warm step is waiting for DynamoDB: the flight function's own code in this program, on the local AWS's
//! DynamoDB, with a stopwatch at the place where the SDK hands a request over and gets the answer.
//!
//! ```text
//!   payload ─▶ runtime ─▶ services ─▶ store ─▶ SDK ──send──▶ │ DynamoDB │ ──answer──▶ SDK ─▶ … ─▶ reply
//!   ◀───────────────────────────────── handler ─────────────────────────────────────────────────────▶
//!                                                  ◀──────── waiting ────────▶
//! ```

use std::{
    env, fmt,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::config::{
    ConfigBag, Intercept, RuntimeComponents,
    interceptors::{BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef},
};
use jiff::Timestamp;
use runtime::{Fault, Input, Participant, Queue};
use saga::Leg;
use serde::{Deserialize, Serialize};
use serde_json::json;
use services::{Catalogue, Seller, StepError};
use store::{Journal, StockTable};

use crate::{
    Outcome,
    process::Process,
    report::{Report, median},
    step::{self, Steps},
};

const WARM_UP: usize = 50;
const STEPS: usize = 500;
/// Between two steps, as other processes work between two invocations: what the step needs is then no longer in the
/// processor's caches.
const PAUSE: Duration = Duration::from_millis(5);
/// What DynamoDB is known for, in milliseconds.
const TYPICAL: [f64; 2] = [5.0, 10.0];

/// What the measured process found, medians in milliseconds.
#[derive(Serialize, Deserialize)]
struct Split {
    handler: f64,
    waiting: f64,
    own: f64,
    share: f64,
    processor: f64,
}

pub(crate) fn measure(report: &mut Report, steps: &Steps, warm_processor_ms: f64) -> Outcome<()> {
    report.part(
        "What a warm step spends its time on",
        "The handler's time, from the payload to the reply, with the flight function's own code and configuration. \
         Waiting is from the request being handed over to be sent to its answer having arrived.",
    );
    let stack = steps.stack();
    let endpoint = stack.endpoint.as_deref().ok_or("the local AWS has no endpoint")?;
    let mut process = Command::new(env::current_exe()?);
    process.arg(STEP).envs(environment()).env("AWS_ENDPOINT_URL", endpoint);
    process.env("STOCK_TABLE", stack.stock_table(Leg::Flight)?).env("JOURNAL_TABLE", stack.journal_table()?);
    let output = process.output()?;
    let said = String::from_utf8_lossy(&output.stdout); // its log, and then the result
    let split: Split = serde_json::from_str(said.lines().last().unwrap_or_default())
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let part = |name: &str, time: f64| {
        vec![name.into(), format!("{time:.3} ms"), format!("{:.1} %", 100.0 * time / split.handler)]
    };
    report.table(
        &["", &format!("median of {STEPS}"), "of the handler's time"],
        [part("handler", split.handler), part("waiting for DynamoDB", split.waiting), part("the rest", split.own)],
    );
    let whole = |waiting: f64| waiting / (waiting + warm_processor_ms);
    let computed = TYPICAL.map(|latency| (latency, latency / (latency + split.own), whole(latency)));
    report.says(format_args!(
        "Waiting takes {:.1} % of a step (median). If all that the function's process does for an invocation is added, \
         whenever it does it ({warm_processor_ms:.3} ms on a processor, see above), {:.1} %. The handler alone takes {:.3} ms \
         on a processor, what it does while it waits included.",
        100.0 * split.share, 100.0 * whole(split.waiting), split.processor,
    ));
    let shares = computed.map(|(latency, handler, whole)| {
        format!("{:.1} % (of the whole process {:.1} %) at {latency} ms", 100.0 * handler, 100.0 * whole)
    });
    report.says(format_args!(
        "Computed, not measured: were DynamoDB to answer as it does on AWS, in single-digit milliseconds, waiting would take {}.",
        shares.join(", ")
    ));
    report.keep(
        "waiting",
        json!({
            "handler_ms": split.handler, "waiting_ms": split.waiting, "rest_ms": split.own, "share": split.share,
            "share_of_process": whole(split.waiting), "handler_processor_ms": split.processor,
            "computed": computed.map(|(latency, handler, whole)| json!({"ms": latency, "share": handler, "share_of_process": whole})),
        }),
    );
    Ok(())
}

/// What Lambda puts into a function's environment, and the function reads.
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

/// The argument with which this program is the measured process.
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
        leg: Leg::Flight,
        store: StockTable::new(client, runtime::setting("STOCK_TABLE")?, journal),
        catalogue: Catalogue::bundled()?,
        clock: Timestamp::now,
    };
    let participant = Participant {
        handle: async |input| match input {
            Input::Command(payload) => seller.handle(&payload).await.map(Some),
            Input::Event(_) | Input::Failure(_) => Ok(None),
        },
        publish: async |_| Ok::<_, StepError>(()),
        fault: |error: &StepError| Fault { error_type: error.error_type(), is_retriable: error.kind().is_retriable() },
        queue: Queue::of_function(&aws)?,
    };
    let this = Process::new(std::process::id());
    let (mut handler, mut waiting, mut own, mut share) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut processor = Duration::ZERO;
    for number in 0..WARM_UP + STEPS {
        let payload = step::command("handler", number)?;
        tokio::time::sleep(PAUSE).await;
        let (before, began) = (this.processor_time()?, Instant::now());
        let answer = participant.invoked(payload).await;
        let took = began.elapsed();
        let waited = stopwatch.reset()?;
        if !answer.as_ref().is_ok_and(|answer| answer.as_ref().is_some_and(|reply| reply["outcome"] == "reserved")) {
            return Err(format!("{answer:?}").into());
        }
        // The system brings the figure up to date when the process waits.
        tokio::time::sleep(Duration::from_millis(1)).await;
        if number >= WARM_UP {
            processor += this.processor_time()? - before;
            let [took, waited] = [took, waited].map(|time| time.as_secs_f64() * 1e3);
            handler.push(took);
            waiting.push(waited);
            own.push(took - waited);
            share.push(waited / took);
        }
    }
    let [handler, waiting, own, share] = [handler, waiting, own, share].map(|times| median(&times));
    let processor = processor.as_secs_f64() * 1e3 / STEPS as f64;
    println!("{}", serde_json::to_string(&Split { handler, waiting, own, share, processor })?);
    Ok(())
}

/// Notes when a request is handed over to be sent, and when its answer is there.
#[derive(Clone, Debug, Default)]
struct Stopwatch(Arc<Mutex<(Option<Instant>, Duration)>>);

/// Another thread that holds the lock has panicked, and there is none.
#[derive(Debug)]
struct Poisoned;

impl fmt::Display for Poisoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stopwatch is broken")
    }
}

impl std::error::Error for Poisoned {}

type Intercepted = Result<(), aws_sdk_dynamodb::error::BoxError>;

impl Stopwatch {
    /// How long was waited since the last time.
    fn reset(&self) -> Result<Duration, Poisoned> {
        Ok(std::mem::take(&mut *self.0.lock().map_err(|_| Poisoned)?).1)
    }
}

impl Intercept for Stopwatch {
    fn name(&self) -> &'static str {
        "Stopwatch"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Intercepted {
        self.0.lock().map_err(|_| Poisoned)?.0 = Some(Instant::now());
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        _: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Intercepted {
        let mut watch = self.0.lock().map_err(|_| Poisoned)?;
        if let Some(began) = watch.0.take() {
            watch.1 += began.elapsed();
        }
        Ok(())
    }
}
