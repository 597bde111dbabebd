//! Measures the functions and prints figures and ratios, all from one run.
//!
//! - **Cold start**: from the start of the process to its first request for work, against a local runtime endpoint,
//!   in turns with an empty function and with the usual set-up, built the same way.
//! - **Warm step**: processor time and resident memory of a function's process over many `flight.reserve` steps on
//!   the local AWS, each for another booking.

#![allow(clippy::print_stdout)] // it is what this program is for

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    io::Read,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use harmony::{Client, LocalAws, Options, TripRequest};
use saga::{BookingId, IdempotencyKey, StockLine};
use serde_json::{Value, json};
use store::{Journal, StockTable};

type Outcome<T> = Result<T, Box<dyn Error>>;

const STARTS: usize = 25;
const STEPS: usize = 1_000;

fn main() -> Outcome<()> {
    let bin = |name: &str| -> Outcome<PathBuf> {
        let path = harmony::local::root()?.join("target/release").join(name);
        if path.exists() { Ok(path) } else { Err(format!("{} is missing: run `make bench`", path.display()).into()) }
    };
    cold_starts(&[
        ("empty", bin("empty")?),
        ("flight", bin("flight")?),
        ("payment", bin("payment")?),
        ("api", bin("api")?),
        ("usual", bin("usual")?),
    ])?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(warm_steps())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The `VmRSS` of a process in kB, from <https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>.
fn resident(process: &Path) -> Outcome<f64> {
    let status = fs::read_to_string(process.join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn cold_starts(functions: &[(&str, PathBuf)]) -> Outcome<()> {
    let endpoint = TcpListener::bind("127.0.0.1:0")?;
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut sizes: BTreeMap<&str, f64> = BTreeMap::new();
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
                .envs([("TRAVELLERS_TABLE", "t"), ("PERSONAL_DATA_RETENTION_DAYS", "30")])
                .envs([("EVENTS_TOPIC_ARN", "a"), ("QUEUE_URL", "q"), ("DEAD_LETTER_QUEUE_URL", "q")])
                .spawn()?;
            let (mut connection, _) = endpoint.accept()?;
            let mut request = [0; 1024];
            let length = connection.read(&mut request)?;
            let took = started.elapsed();
            let asks = request[..length].starts_with(b"GET /2018-06-01/runtime/invocation/next");
            let size = resident(&PathBuf::from(format!("/proc/{}", process.id())));
            process.kill()?;
            process.wait()?;
            if !asks {
                return Err(format!("{name} did not ask for work").into());
            }
            if round > 0 {
                times.entry(name).or_default().push(took.as_secs_f64() * 1e3);
                sizes.insert(name, size?);
            }
        }
    }
    println!("cold start, median of {STARTS}, in turns:");
    let median_of = |name: &str| median(times.get(name).cloned().unwrap_or_default());
    for (name, _) in functions {
        let own = median_of(name);
        println!(
            "  {name:8} {own:6.2} ms  {:5.2} x empty  {:5.2} x usual  {:6.1} MB resident",
            own / median_of("empty"),
            own / median_of("usual"),
            sizes.get(name).copied().unwrap_or_default() / 1e3,
        );
    }
    Ok(())
}

/// The process that serves a function, by the name in its environment.
fn process_of(function: &str) -> Outcome<PathBuf> {
    let name = format!("AWS_LAMBDA_FUNCTION_NAME={function}\0");
    for entry in fs::read_dir("/proc")? {
        let process = entry?.path();
        let is_bootstrap = fs::read_link(process.join("exe")).is_ok_and(|exe| exe.ends_with("bootstrap"));
        if is_bootstrap
            && fs::read(process.join("environ"))
                .is_ok_and(|all| all.windows(name.len()).any(|part| part == name.as_bytes()))
        {
            return Ok(process);
        }
    }
    Err(format!("no process serves {function}").into())
}

/// Nanoseconds on a processor so far, the first field of `/proc/PID/schedstat`.
fn processor_time(process: &Path) -> Outcome<Duration> {
    let text = fs::read_to_string(process.join("schedstat"))?;
    Ok(Duration::from_nanos(text.split_whitespace().next().ok_or("no schedstat")?.parse()?))
}

async fn warm_steps() -> Outcome<()> {
    let local = LocalAws::start(Options::default())?;
    let stack = local.stack();
    let trip = TripRequest::default();
    let client = store::client(&stack.sdk().await?);
    let journal = Journal::new(client.clone(), stack.journal_table()?, 730);
    let line = StockLine { product: trip.flight.flight_no.clone(), date: trip.flight.date, units: 1_000_000 };
    StockTable::new(client, stack.stock_table(saga::Leg::Flight)?, journal).seed(&[line]).await?;

    let lambda = Client::new(stack.endpoint.as_deref().ok_or("the local AWS has no endpoint")?)?;
    let functions: Value = lambda.send("GET", "/2015-03-31/functions/", &[], "").await?.json()?;
    let names = functions["Functions"].as_array().ok_or("no functions")?.iter();
    let function = names.filter_map(|f| f["FunctionName"].as_str()).find(|name| name.ends_with("-flight"));
    let function = function.ok_or("no function is called …-flight")?;
    let path = format!("/2015-03-31/functions/{function}/invocations");
    let reserve = async |number: usize| -> Outcome<()> {
        let key = IdempotencyKey::try_from(format!("bench-{number}").as_str())?;
        let command = json!({
            "step": "flight.reserve", "booking_id": BookingId::derive("bench", &key), "flight": trip.flight,
        });
        let answer = lambda.send("POST", &path, &[], command.to_string()).await?;
        if answer.body.contains("reserved") { Ok(()) } else { Err(answer.body.into()) }
    };
    let nothing = async || -> Outcome<()> {
        lambda.send("POST", &path, &[], "{}").await?; // is refused at once
        Ok(())
    };
    for number in 0..50 {
        reserve(number).await?;
    }
    let process = process_of(function)?;
    let mut figures = Vec::new();
    for refused in [false, true] {
        let before = processor_time(&process)?;
        for number in 0..STEPS {
            if refused { nothing().await? } else { reserve(1_000 + number).await? }
        }
        figures.push((processor_time(&process)? - before).as_secs_f64() * 1e3 / STEPS as f64);
    }
    let (step, refused) = (figures[0], figures[1]);
    println!("warm flight.reserve, mean of {STEPS}, of the function's own process:");
    println!("  a step              {step:.3} ms on a processor");
    println!("  a refused payload   {refused:.3} ms, {:.2} x of a step: what the runtime takes", refused / step);
    println!("  resident after {} invocations: {:.1} MB", 50 + 2 * STEPS, resident(&process)? / 1e3);
    Ok(())
}
