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
        "A `flight.reserve` on the local AWS, of the function's own process. A payload that is refused at once costs \
         what the runtime takes for any invocation.",
    );
    let flight = steps.flight.clone();
    for _ in 0..STEPS {
        steps.reserve(&flight).await?;
    }
    let process = Process::of_function(steps.stack(), &flight)?;
    let (mut done, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (is_refused, times) in [(false, &mut done), (true, &mut refused)] {
            let before = process.processor_time()?;
            for _ in 0..STEPS {
                match is_refused {
                    true => steps.refused(&flight).await?,
                    false => steps.reserve(&flight).await.map(|_| ())?,
                }
            }
            times.push((process.processor_time()? - before).as_secs_f64() * 1e3 / STEPS as f64);
        }
    }
    let invocations = STEPS + 2 * ROUNDS * STEPS;
    let (step, least) = (median(&done), done.iter().copied().fold(f64::INFINITY, f64::min));
    let (nothing, resident) = (median(&refused), process.resident()?);
    report.table(
        &["", &format!("median of {ROUNDS} × {STEPS}"), "× a step"],
        [
            vec!["a step, on a processor".into(), format!("{step:.3} ms"), "1".into()],
            vec!["a refused payload".into(), format!("{nothing:.3} ms"), format!("{:.2}", nothing / step)],
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
            "refused_of_step": nothing / step, "resident_mb": resident, "invocations": invocations,
        }),
    );
    Ok(step)
}
