//! `harmony compare`: orchestration or choreography, measured.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use clap::{Args, ValueEnum};
use comparison::{
    Mode,
    explanation::explanations,
    load::{Fate, Load, LoadResult, Mix, Travellers},
    local_aws,
    outage::{self, OutagePlan, measure_outage},
    report::{Measurements, Ratio, Report, Turn, difference},
    violations,
    work::{self, WorkLog},
};
use futures_util::{StreamExt, stream};
use jiff::{Timestamp, ToSpan};
use local_aws::{Stack, checkout::root};
use traveller::{Client, client::fresh_key, trip::today};

use crate::{
    Result,
    output::{Progress, say},
};

#[derive(Args)]
pub struct Options {
    /// The stack on AWS with WorkflowType STANDARD, for the load [default: a local AWS]
    #[arg(long, value_name = "STACK", requires = "express")]
    standard: Option<String>,
    /// The stack on AWS with WorkflowType EXPRESS
    #[arg(long, value_name = "STACK", requires = "standard")]
    express: Option<String>,
    /// Measure only this; may be repeated [default: everything]
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// Number of rounds, in each of which every mode has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Travellers of the closed load, each booking one trip after the other
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    travellers: u16,
    /// Bookings of the closed load in each turn
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    bookings: u32,
    /// Requests per second of the open load
    #[arg(long, default_value_t = 5.0, value_parser = rate)]
    rate: f64,
    /// Seconds of the open load in each turn
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// Percentage of bookings whose hotel is sold out
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=50))]
    sold_out: u8,
    /// Percentage of bookings whose card is declined
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=50))]
    declined: u8,
    /// Bookings of each kind whose work is counted
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    counted: u16,
    /// Seconds that each outage lasts
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=600))]
    outage: u16,
    /// The folder for the report [default: target/comparison]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The ratios.json of another run to compare with
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
}

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The work for a booking and its costs, always on a local AWS
    Work,
    /// Latency and throughput of bookings
    Load,
    /// Bookings while the coordinator is out of order, on a local AWS
    Outages,
    /// Number of queries that explain a failure, on a local AWS
    Explanations,
}

fn rate(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.1..=1000.0).contains(&rate) => Ok(rate),
        _ => Err("must be a number from 0.1 to 1000".into()),
    }
}

/// How long bookings may take to end after the load.
const PATIENCE: Duration = Duration::from_secs(300);
/// How many bookings each mode is warmed up with, so that each function has an instance.
const WARM_UP: usize = 16;
/// How many outages are measured at once. Each has its own local AWS, which is hardly busy.
const OUTAGES_AT_ONCE: usize = 3;

pub async fn run(options: &Options) -> Result<ExitCode> {
    let folder = match &options.out {
        Some(folder) => folder.clone(),
        None => root()?.join("target/comparison"),
    };
    let plots = folder.join("comparison");
    fs::create_dir_all(&plots).map_err(|error| format!("{} cannot be made: {error}", plots.display()))?;
    let before = options.before.as_deref().map(ratios).transpose()?;

    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let mut measured = Measurements {
        about: about(options),
        mix: Mix { sold_out: options.sold_out, declined: options.declined },
        turns: BTreeMap::new(),
        counted: Vec::new(),
        outage_results: Vec::new(),
        explanations: Vec::new(),
        violations: Vec::new(),
    };
    if wanted(Part::Work) {
        count_work(options, &folder, &mut measured).await?;
    }
    if wanted(Part::Load) {
        put_load(options, &mut measured).await?;
    }
    // Failures of outages and explanations are reported after all measurements are written.
    let result = if wanted(Part::Outages) { outages(options, &mut measured).await } else { Ok(()) };
    let explained = if wanted(Part::Explanations) { explain(&mut measured).await } else { Ok(()) };

    let report = measured.report()?;
    write(&folder, &report)?;
    say(&report.markdown)?;
    let violations = measured.violations.iter().chain(measured.outage_results.iter().flat_map(|each| &each.violations));
    let violations: Vec<_> = violations.collect();
    violations.iter().try_for_each(say)?;
    if let Some(before) = before {
        let (table, most) = difference(&report.ratios, &before);
        say(format!("{table}\n\nThe two runs are at most {:.0}% apart.", most * 100.0))?;
    }
    say(format!("The page is {}", folder.join("report.html").display()))?;
    keep([result, explained], &mut Vec::new())?;
    let turns = measured.turns.values().flatten();
    let unexpected = turns.map(|turn| turn.closed.unexpected().count() + turn.open.unexpected().count()).sum::<usize>();
    Ok(if violations.is_empty() && unexpected == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn explain(measured: &mut Measurements) -> Result<()> {
    let _progress = Progress::of("failing a booking in each variant, and finding out why");
    measured.explanations = explanations().await?;
    Ok(())
}

fn write(folder: &Path, report: &Report) -> Result<()> {
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))
    };
    put("report.html", &report.html)?;
    put("summary.md", &report.markdown)?;
    put("ratios.json", &format!("{}\n", serde_json::to_string_pretty(&report.ratios)?))?;
    for (name, plot) in &report.plots {
        put(&format!("comparison/{name}"), plot)?;
    }
    Ok(())
}

fn ratios(path: &Path) -> Result<Vec<Ratio>> {
    let text = fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    Ok(serde_json::from_slice(&text).map_err(|error| format!("{} does not contain ratios: {error}", path.display()))?)
}

/// What is measured, where and when.
fn about(options: &Options) -> Vec<(&'static str, String)> {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key).map(str::to_owned)).unwrap_or_default();
        line.trim_matches(|c: char| c.is_whitespace() || c == ':' || c == '=' || c == '"').to_owned()
    };
    let output_of = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let python =
        output_of(".venv/bin/python", &["-c", "import importlib.metadata as m; print(m.version('ministack'))"]);
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let load = match &options.standard {
        Some(_) => "two stacks on AWS",
        None => "two local AWS in turns, on the machine of the generator",
    };
    vec![
        ("date", Timestamp::now().strftime("%F %R UTC").to_string()),
        ("command", format!("harmony {}", arguments.join(" "))),
        ("load", load.into()),
        (
            "loads",
            format!(
                "{} rounds; closed: {} travellers, {} bookings a turn; open: {} a second for {} s; {}% sold out, {}% declined",
                options.rounds,
                options.travellers,
                options.bookings,
                options.rate,
                options.seconds,
                options.sold_out,
                options.declined
            ),
        ),
        (
            "machine",
            format!(
                "{cores} cores, {}, {}",
                first("/proc/cpuinfo", "model name"),
                first("/etc/os-release", "PRETTY_NAME")
            ),
        ),
        (
            "versions",
            format!(
                "harmony {} ({}), {}, MiniStack {python}",
                env!("CARGO_PKG_VERSION"),
                output_of("git", &["describe", "--always", "--dirty"]),
                output_of("rustc", &["--version"])
            ),
        ),
    ]
}

/// Travellers on a stack that has plenty of stock for them.
async fn travellers(stack: &Stack) -> Result<Travellers> {
    let first = today().saturating_add(30.days());
    let travellers = Travellers::of(stack, Client::new(&stack.api_url)?, first).await?;
    travellers.seed(stack).await?;
    Ok(travellers)
}

async fn count_work(options: &Options, folder: &Path, measured: &mut Measurements) -> Result<()> {
    for workflow_type in ["STANDARD", "EXPRESS"] {
        let path = folder.join(format!("work-{workflow_type}.jsonl").to_lowercase());
        fs::write(&path, "").map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        let name = format!("counted-{workflow_type}").to_lowercase();
        let aws = local_aws(&name, workflow_type, &[], Some(&path))?;
        let (travellers, log) = (travellers(aws.stack()).await?, WorkLog::at(&path));
        let modes = Mode::ALL.into_iter().filter(|mode| match mode {
            Mode::Choreographed | Mode::Standard => workflow_type == "STANDARD",
            Mode::Express => workflow_type == "EXPRESS",
        });
        for mode in modes {
            let warm_up = Load::Closed { travellers: 4, bookings: WARM_UP };
            let name = format!("warm-up-{mode:?}");
            travellers.make(warm_up, mode.variant(), |n| measured.mix.nth(n), &name, PATIENCE, |_| ()).await?;
            for fate in Fate::ALL {
                let bookings = usize::from(options.counted);
                let progress = Progress::counting(format!("counting, {}: {}", mode.name(), fate.name()), bookings);
                let name = format!("count-{mode:?}-{fate:?}");
                let made = |done| progress.done(done);
                measured.counted.push(work::count((mode, fate), (&travellers, &log), bookings, &name, made).await?);
            }
        }
    }
    Ok(())
}

async fn put_load(options: &Options, measured: &mut Measurements) -> Result<()> {
    let mut running = Vec::new(); // they live as long as the load lasts
    let mut stack = async |given: &Option<String>, mode: Mode| -> Result<Stack> {
        if let Some(name) = given {
            return Ok(Stack::deployed(name).await?);
        }
        let aws = local_aws(&format!("{mode:?}").to_lowercase(), mode.workflow_type(), &[], None)?;
        let stack = aws.stack().clone();
        running.push(aws);
        Ok(stack)
    };
    let standard = stack(&options.standard, Mode::Standard).await?;
    let express = stack(&options.express, Mode::Express).await?;
    let (at_standard, at_express) = (travellers(&standard).await?, travellers(&express).await?);
    let travellers = |mode| if mode == Mode::Express { &at_express } else { &at_standard };

    let run = fresh_key("compare");
    let mix = measured.mix;
    let closed = Load::Closed { travellers: options.travellers.into(), bookings: options.bookings as usize };
    let open = Load::Open { rate: options.rate, lasting: Duration::from_secs(options.seconds.into()) };
    let turn = async |mode: Mode, load: Load, name: &str| -> Result<LoadResult> {
        let count = match load {
            Load::Closed { bookings, .. } => bookings,
            Load::Open { rate, lasting } => (rate * lasting.as_secs_f64()) as usize,
        };
        let progress = Progress::counting(format!("{}: {name}", mode.name()), count);
        let key = format!("{run}-{name}-{mode:?}").replace(' ', "-");
        let made = |done| progress.done(done);
        Ok(travellers(mode).make(load, mode.variant(), |n| mix.nth(n), &key, PATIENCE, made).await?)
    };
    let warm_up = Load::Closed { travellers: options.travellers.into(), bookings: WARM_UP };
    for mode in Mode::ALL {
        turn(mode, warm_up, "warm-up").await?;
    }
    for round in 0..usize::from(options.rounds) {
        let mut order = Mode::ALL;
        order.rotate_left(round % Mode::ALL.len());
        for mode in order {
            let closed = turn(mode, closed, &format!("round {}, closed", round + 1)).await?;
            let open = turn(mode, open, &format!("round {}, open", round + 1)).await?;
            measured.turns.entry(mode).or_default().push(Turn { closed, open });
        }
    }
    let _progress = Progress::of("auditing");
    for stack in [&standard, &express] {
        measured.violations.extend(violations(stack).await?);
    }
    Ok(())
}

async fn outages(options: &Options, measured: &mut Measurements) -> Result<()> {
    let plan = OutagePlan {
        rate: 1.0, // waiting bookings all continue at once afterwards, and the machine must not be the bottleneck
        before: Duration::from_secs(10),
        outage: Duration::from_secs(options.outage.into()),
        after: Duration::from_secs(20),
        patience: Duration::from_secs(900),
        reconcile_after: Duration::from_secs(60),
    };
    let each = (plan.rate * (plan.before + plan.outage + plan.after).as_secs_f64()) as usize;
    let all: Vec<_> = outage::OutageKind::ALL.into_iter().flat_map(|kind| Mode::ALL.map(|mode| (mode, kind))).collect();
    let progress = Progress::counting("outages: bookings made", each * all.len());
    let progress = &progress;
    let results = stream::iter(all)
        .map(async |(mode, kind)| {
            let result = measure_outage(mode, kind, plan, |done| progress.done(done)).await;
            Ok(result.map_err(|error| format!("{}, {}: {error}", kind.name(), mode.name()))?)
        })
        .buffered(OUTAGES_AT_ONCE);
    keep(results.collect::<Vec<_>>().await, &mut measured.outage_results)
}

/// Keeps the successful measurements; the error lists all failures.
fn keep<T>(measured: impl IntoIterator<Item = Result<T>>, kept: &mut Vec<T>) -> Result<()> {
    let mut failed = Vec::new();
    for each in measured {
        match each {
            Ok(each) => kept.push(each),
            Err(error) => failed.push(error.to_string()),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_hides_nothing_that_was_measured() {
        let mut kept = Vec::new();
        let error = keep([Ok(1), Err("a".into()), Ok(2), Err("b".into())], &mut kept).unwrap_err();
        assert_eq!((kept, error.to_string().as_str()), (vec![1, 2], "a; b"));
        keep([Ok(1)], &mut Vec::new()).unwrap();
    }
}
