//! Cold start: from the start of the process to its first request for an invocation, against a local runtime endpoint,
//! alternating with an empty function and with the usual set-up, built the same way.

use std::{collections::BTreeMap, io::Read, net::TcpListener, path::PathBuf, process::Command, time::Instant};

use serde_json::json;

use crate::{
    Outcome,
    process::Process,
    report::{Report, median},
};

const STARTS: usize = 25;

pub(crate) fn measure(report: &mut Report) -> Outcome<()> {
    report.part(
        "Cold start",
        "From the start of the process to its first request for an invocation, and its memory at that point. `empty` \
         returns its payload, `usual` is set up as in the SDK's guides.",
    );
    let mut functions = Vec::new();
    for name in ["empty", "flight", "payment", "api", "usual"] {
        functions.push((name, crate::built(name)?));
    }
    let (times, sizes) = starts(&functions)?;
    let median_of = |name: &str| times.get(name).map(|times| median(times)).unwrap_or_default();
    let mut rows = Vec::new();
    for (name, _) in &functions {
        let (own, size) = (median_of(name), sizes.get(name).copied().unwrap_or_default());
        let (of_empty, of_usual) = (own / median_of("empty"), own / median_of("usual"));
        rows.push(vec![
            format!("`{name}`"),
            format!("{own:.2} ms"),
            format!("{of_empty:.2}"),
            format!("{of_usual:.2}"),
            format!("{size:.1} MB"),
        ]);
        report.keep(
            &format!("cold_start_{name}"),
            json!({"ms": own, "of_empty": of_empty, "of_usual": of_usual, "resident_mb": size}),
        );
    }
    report.table(&["function", &format!("median of {STARTS}, in turns"), "× empty", "× usual", "resident"], rows);
    Ok(())
}

type ByName<'a, T> = BTreeMap<&'a str, T>;

fn starts<'a>(functions: &[(&'a str, PathBuf)]) -> Outcome<(ByName<'a, Vec<f64>>, ByName<'a, f64>)> {
    let endpoint = TcpListener::bind("127.0.0.1:0")?;
    let (mut times, mut sizes) = (ByName::<Vec<f64>>::new(), ByName::new());
    for round in 0..=STARTS {
        for (name, path) in functions {
            let started = Instant::now();
            let mut process = Command::new(path)
                .env_clear()
                .env("AWS_LAMBDA_RUNTIME_API", endpoint.local_addr()?.to_string())
                .envs([("AWS_LAMBDA_FUNCTION_NAME", "f"), ("AWS_LAMBDA_FUNCTION_VERSION", "1")])
                .envs([("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"), ("AWS_REGION", "eu-central-1")])
                .envs([("AWS_LAMBDA_LOG_GROUP_NAME", "g"), ("AWS_LAMBDA_LOG_STREAM_NAME", "s")])
                .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
                .envs([("STOCK_TABLE", "t"), ("JOURNAL_TABLE", "t"), ("BOOKINGS_TABLE", "t"), ("PAYMENTS_TABLE", "t")])
                .envs([("PROVIDER_LEDGER_TABLE", "t"), ("STATE_MACHINE_ARN", "a"), ("JOURNAL_RETENTION_DAYS", "730")])
                .envs([("CUSTOMERS_TABLE", "t"), ("PERSONAL_DATA_RETENTION_DAYS", "30")])
                .envs([("EVENTS_TOPIC_ARN", "a"), ("QUEUE_URL", "q"), ("DEAD_LETTER_QUEUE_URL", "q")])
                .spawn()?;
            let (mut connection, _) = endpoint.accept()?;
            let mut request = [0; 1024];
            let length = connection.read(&mut request)?;
            let took = started.elapsed();
            let asks = request[..length].starts_with(b"GET /2018-06-01/runtime/invocation/next");
            let size = Process::new(process.id()).resident();
            process.kill()?;
            process.wait()?;
            if !asks {
                return Err(format!("{name} did not ask for an invocation").into());
            }
            if round > 0 {
                times.entry(name).or_default().push(took.as_secs_f64() * 1e3);
                sizes.insert(*name, size?);
            }
        }
    }
    Ok((times, sizes))
}
