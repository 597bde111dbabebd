//! `harmony compare`: the same load in every mode, in turns, and what is different.

use std::{collections::BTreeMap, fs, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use harmony::{
    Client, LocalAws, Stack,
    audit::{
        Audit, Ends,
        whole::{Finding, Reading},
    },
    client::fresh_key,
    load::{Fate, Load, Measured, Mix, Travellers},
    local::{self, root},
    trip::today,
};
use hdrhistogram::Histogram;
use jiff::{Timestamp, ToSpan};
use saga::Variant;

use crate::{
    Result,
    output::{Progress, say},
};

#[derive(Args)]
pub struct Options {
    /// The stack on AWS with WorkflowType STANDARD, for the orchestrated and the choreographed mode [default: a local AWS]
    #[arg(long, value_name = "STACK", requires = "express")]
    standard: Option<String>,
    /// The stack on AWS with WorkflowType EXPRESS
    #[arg(long, value_name = "STACK", requires = "standard")]
    express: Option<String>,
    /// How often each mode has its turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Travellers who book at once, one trip after the other
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    travellers: u16,
    /// Trips that they book together in each turn
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    bookings: u32,
    /// Requests a second of travellers who know nothing of each other
    #[arg(long, default_value_t = 5.0, value_parser = rate)]
    rate: f64,
    /// How many seconds of that in each turn
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// What percentage of the hotels is sold out
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=50))]
    sold_out: u8,
    /// What percentage of the cards is declined
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=50))]
    declined: u8,
    /// The folder for the summary [default: target/comparison]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn rate(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.1..=1000.0).contains(&rate) => Ok(rate),
        _ => Err("must be a number from 0.1 to 1000".into()),
    }
}

/// How long bookings may take to end after the load.
const PATIENCE: Duration = Duration::from_secs(300);
/// How many bookings each mode is warmed up with: each function has an instance then.
const WARM_UP: usize = 16;

/// A way to carry bookings out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Choreographed,
    Standard,
    Express,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Choreographed, Self::Standard, Self::Express];

    const fn name(self) -> &'static str {
        match self {
            Self::Choreographed => "choreographed",
            Self::Standard => "orchestrated, STANDARD",
            Self::Express => "orchestrated, EXPRESS",
        }
    }

    const fn variant(self) -> Variant {
        match self {
            Self::Choreographed => Variant::Choreographed,
            Self::Standard | Self::Express => Variant::Orchestrated,
        }
    }
}

/// The stacks, and what runs them.
struct Stacks {
    standard: Stack,
    express: Stack,
    _local: Vec<LocalAws>, // run as long as this value lives
}

impl Stacks {
    fn of(options: &Options) -> Result<Self> {
        if let (Some(standard), Some(express)) = (&options.standard, &options.express) {
            let (standard, express) = (Stack::deployed(standard)?, Stack::deployed(express)?);
            return Ok(Self { standard, express, _local: Vec::new() });
        }
        let _progress = Progress::of("starting two local AWS");
        let start = |name: &str, workflow: &str| {
            let parameters = [("WorkflowType", workflow), ("ApiRateLimit", "10000"), ("ApiBurstLimit", "5000")];
            let parameters = parameters.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
            let log = Some(root()?.join(format!(".harmony/{name}.log")));
            LocalAws::start(local::Options { stack_name: name.into(), parameters, log, ..local::Options::default() })
        };
        let local = vec![start("standard", "STANDARD")?, start("express", "EXPRESS")?];
        let [standard, express] = [0, 1].map(|nth: usize| local.get(nth).map(|aws| aws.stack().clone()));
        let (Some(standard), Some(express)) = (standard, express) else { return Err("there are two".into()) };
        Ok(Self { standard, express, _local: local })
    }

    const fn stack(&self, mode: Mode) -> &Stack {
        match mode {
            Mode::Choreographed | Mode::Standard => &self.standard,
            Mode::Express => &self.express,
        }
    }
}

/// What was measured of a mode in all turns.
#[derive(Default)]
struct Figures {
    turns: Vec<Turn>,
}

/// One turn: the closed load, then the open one.
struct Turn {
    closed: Measured,
    open: Measured,
}

pub async fn run(options: &Options) -> Result<ExitCode> {
    let folder = match &options.out {
        Some(folder) => folder.clone(),
        None => root()?.join("target/comparison"),
    };
    fs::create_dir_all(&folder).map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
    let stacks = Stacks::of(options)?;
    let mix = Mix { sold_out: options.sold_out, declined: options.declined };
    let first = today().saturating_add(30.days());
    let mut travellers = BTreeMap::new();
    for mode in Mode::ALL {
        let stack = stacks.stack(mode);
        travellers.insert(mode, Travellers::of(stack, Client::new(&stack.api_url)?, first).await?);
    }
    for mode in [Mode::Standard, Mode::Express] {
        if let Some(travellers) = travellers.get(&mode) {
            travellers.seed(stacks.stack(mode)).await?;
        }
    }

    let run = fresh_key("compare");
    let closed = Load::Closed { travellers: options.travellers.into(), bookings: options.bookings as usize };
    let open = Load::Open { rate: options.rate, lasting: Duration::from_secs(options.seconds.into()) };
    let turn = async |mode: Mode, load: Load, name: &str| -> Result<Measured> {
        let count = match load {
            Load::Closed { bookings, .. } => bookings,
            Load::Open { rate, lasting } => (rate * lasting.as_secs_f64()) as usize,
        };
        let progress = Progress::counting(format!("{}: {name}", mode.name()), count);
        let Some(travellers) = travellers.get(&mode) else { return Err("no travellers for a mode".into()) };
        let key = format!("{run}-{name}-{mode:?}").replace(' ', "-");
        Ok(travellers.make(load, mode.variant(), mix, &key, PATIENCE, |done| progress.done(done)).await?)
    };
    let mut figures: BTreeMap<Mode, Figures> = BTreeMap::new();
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
            figures.entry(mode).or_default().turns.push(Turn { closed, open });
        }
    }

    let mut violations = 0;
    for mode in [Mode::Standard, Mode::Express] {
        violations += audited(stacks.stack(mode)).await?;
    }
    let summary = summary(&figures, options, violations);
    say(&summary)?;
    let path = folder.join("summary.md");
    fs::write(&path, &summary).map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    say(format!("written to {}", path.display()))?;
    let otherwise: usize = turns(&figures).map(|turn| turn.closed.otherwise.len() + turn.open.otherwise.len()).sum();
    Ok(if violations == 0 && otherwise == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn turns(figures: &BTreeMap<Mode, Figures>) -> impl Iterator<Item = &Turn> {
    figures.values().flat_map(|figures| &figures.turns)
}

/// How many violations an audit of everything finds.
async fn audited(stack: &Stack) -> Result<u64> {
    let audit = Audit::of(stack, &stack.sdk().await?)?;
    let since = Timestamp::now().saturating_sub(stack.journal_retention()?).unwrap_or(Timestamp::MIN);
    let reading = Reading {
        ends: Ends { of_before: Timestamp::MAX, may_be_parked: true },
        is_at_rest: true,
        journal_since: since,
        page: None,
        charges: Reading::CHARGES,
    };
    let _progress = Progress::of("auditing");
    let tell = |finding: Finding<'_>| -> Result<()> { Ok(say(format!("{finding:?}"))?) };
    Ok(audit.whole(reading, tell, |_| ()).await?.violations)
}

/// The figures as Markdown.
fn summary(figures: &BTreeMap<Mode, Figures>, options: &Options, violations: u64) -> String {
    let mut text = format!(
        "# Comparison of {}\n\n{} rounds, {}% sold out, {}% declined; closed: {} travellers, {} bookings a turn; open: {} a second for {} s.\n\n",
        Timestamp::now().strftime("%F"),
        options.rounds,
        options.sold_out,
        options.declined,
        options.travellers,
        options.bookings,
        options.rate,
        options.seconds,
    );
    let all = |of: Histograms, mode: Mode| {
        let mut merged = Histogram::<u64>::new(3).ok()?;
        for turn in figures.get(&mode).into_iter().flat_map(|figures| &figures.turns) {
            for histogram in of(&turn.open) {
                merged.add(histogram).ok()?;
            }
        }
        Some(merged)
    };

    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN);
    table.set_header(["ms", "mode", "p50", "p90", "p99", "max", "p50 as a ratio"]);
    for (name, of) in [("until 202", accepted as Histograms), ("until confirmed", confirmed), ("until failed", failed)]
    {
        let base = all(of, Mode::Choreographed).map(|histogram| histogram.value_at_quantile(0.5));
        for mode in Mode::ALL {
            let Some(histogram) = all(of, mode).filter(|histogram| !histogram.is_empty()) else { continue };
            let at = |quantile| ms(histogram.value_at_quantile(quantile));
            let ratio = base.filter(|base| *base > 0).map(|base| histogram.value_at_quantile(0.5) as f64 / base as f64);
            let ratio = ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
            table.add_row([name, mode.name(), &at(0.5), &at(0.9), &at(0.99), &ms(histogram.max()), &ratio]);
        }
    }
    right(&mut table);
    text.push_str(&format!("Open load, times from when a request was due:\n\n{table}\n\n"));

    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN);
    table.set_header([
        "closed load",
        "bookings/s, median",
        "least",
        "most",
        "as a ratio",
        "generator, of a core",
        "sent again",
    ]);
    let rates = |mode: Mode| {
        let turns = figures.get(&mode).into_iter().flat_map(|figures| &figures.turns);
        let mut rates: Vec<_> = turns.map(|turn| turn.closed.per_second).collect();
        rates.sort_by(f64::total_cmp);
        rates
    };
    let median = |rates: &[f64]| rates.get(rates.len() / 2).copied().unwrap_or_default();
    let base = median(&rates(Mode::Choreographed));
    for mode in Mode::ALL {
        let rates = rates(mode);
        let turns = || figures.get(&mode).into_iter().flat_map(|figures| &figures.turns);
        let most = turns().map(|turn| turn.closed.generator).fold(0.0, f64::max);
        let again: usize = turns().map(|turn| turn.closed.repeated + turn.open.repeated).sum();
        let of = |rate: Option<&f64>| rate.map_or(String::new(), |rate| format!("{rate:.1}"));
        table.add_row([
            mode.name().to_owned(),
            format!("{:.1}", median(&rates)),
            of(rates.first()),
            of(rates.last()),
            format!("{:.2}", median(&rates) / base),
            format!("{:.1}%", most * 100.0),
            again.to_string(),
        ]);
    }
    right(&mut table);
    let otherwise: usize = turns(figures).map(|turn| turn.closed.otherwise.len() + turn.open.otherwise.len()).sum();
    text.push_str(&format!(
        "{table}\n\n{otherwise} bookings ended otherwise than they must; the audit found {violations} violations.\n"
    ));
    text
}

/// Some of the histograms of a load.
type Histograms = for<'m> fn(&'m Measured) -> Vec<&'m Histogram<u64>>;

fn accepted(measured: &Measured) -> Vec<&Histogram<u64>> {
    vec![&measured.accepted]
}

fn confirmed(measured: &Measured) -> Vec<&Histogram<u64>> {
    measured.ended.get(&Fate::Confirmed).into_iter().collect()
}

fn failed(measured: &Measured) -> Vec<&Histogram<u64>> {
    [Fate::SoldOut, Fate::Declined].iter().filter_map(|fate| measured.ended.get(fate)).collect()
}

fn right(table: &mut Table) {
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
}

fn ms(micros: u64) -> String {
    format!("{:.1}", micros as f64 / 1000.0)
}
