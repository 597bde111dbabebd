//! Warm step: processor time and memory of the function's own process over many steps on the local AWS.

use serde_json::json;

use crate::{
    Outcome,
    process::Process,
    report::{Report, median},
    step::Steps,
};

const ROUNDS: usize = 20;
const STEPS: usize = 50; // in a round

pub(crate) async fn measure(report: &mut Report, steps: &mut Steps) -> Outcome<f64> {
    report.part(
        "Warm step",
        "A `flight.reserve` on the local AWS, in the function's own process. A payload that is refused immediately costs \
         what the runtime costs for any invocation. A step waits three times (for an event, for DynamoDB, and until its \
         answer is accepted), and each wake-up costs time, because other processes have used the processor's caches.",
    );
    let flight = steps.flight.clone();
    for _ in 0..STEPS {
        steps.reserve(&flight).await?;
    }
    let process = Process::of_function(steps.stack(), &flight)?;
    let (mut done, mut refused) = (Vec::new(), Vec::new());
    let mut waits = [0, 0];
    for _ in 0..ROUNDS {
        for (is_refused, times) in [(false, &mut done), (true, &mut refused)] {
            let (before, waits_before) = (process.processor_time()?, process.waits()?);
            for _ in 0..STEPS {
                match is_refused {
                    true => steps.refused(&flight).await?,
                    false => steps.reserve(&flight).await.map(|_| ())?,
                }
            }
            times.push((process.processor_time()? - before).as_secs_f64() * 1e3 / STEPS as f64);
            waits[usize::from(is_refused)] += process.waits()? - waits_before;
        }
    }
    let invocations = STEPS + 2 * ROUNDS * STEPS;
    let (step, least) = (median(&done), done.iter().copied().fold(f64::INFINITY, f64::min));
    let waits = waits.map(|waits| waits as f64 / (ROUNDS * STEPS) as f64);
    let (nothing, resident) = (median(&refused), process.resident()?);
    report.table(
        &["", &format!("processor, median of {ROUNDS} × {STEPS}"), "× a step", "times that it waits"],
        [
            vec!["a step".into(), format!("{step:.3} ms"), "1".into(), format!("{:.1}", waits[0])],
            vec![
                "a refused payload".into(),
                format!("{nothing:.3} ms"),
                format!("{:.2}", nothing / step),
                format!("{:.1}", waits[1]),
            ],
        ],
    );
    report.says(format_args!(
        "The best {STEPS} steps took {least:.3} ms each. After {invocations} invocations the process has {resident:.1} MB in \
         memory."
    ));
    report.keep(
        "warm_step",
        json!({
            "processor_ms": step, "least_processor_ms": least, "refused_processor_ms": nothing,
            "refused_of_step": nothing / step, "waits": waits[0], "refused_waits": waits[1], "resident_mb": resident, "invocations": invocations,
        }),
    );
    Ok(step)
}
