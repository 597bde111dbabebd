//! `harmony demo`: books every scenario through the HTTP API in both variants, and shows the results.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use console::Style;
use futures_util::{StreamExt, stream};
use harmony::side_by_side::{self, duration, once};
use jiff::{ToSpan, civil::Date};
use local_aws::{Stack, checkout::root};
use operator::loader::{DAYS, StockLoader, dates};
use saga::{Status, Variant};
use traveller::{
    Answer, Booking, Client, ClientError, TripRequest,
    client::fresh_key,
    scenarios::{self, Observed, Scenario, VARIANTS, check},
    show::{Look, line, plain, render, wrap},
    trip::today,
};

use crate::{
    Result, booking, local,
    output::{ProgressGroup, say},
    stock::load_into,
    target::{self, Target},
};

const GOOD: Style = Style::new().green();
const BAD: Style = Style::new().red();

/// How long a booking may take on AWS, where Lambda waits for one minute and then for two before it retries an
/// asynchronous invocation.
const PATIENCE: Duration = Duration::from_secs(300);
/// How many bookings are made at once where each instance of a function is a container on the same machine: one
/// scenario in both variants. All at once would start a hundred containers.
const IN_CONTAINERS: usize = 2;

#[derive(Args)]
pub struct Options {
    /// Book in this variant only, and show all details [default: both, next to each other]
    #[arg(long, value_parser = booking::variant())]
    variant: Option<Variant>,
}

/// A scenario in a variant, and its result.
struct Outcome {
    scenario: &'static Scenario,
    variant: Variant,
    observed: std::result::Result<Observed, ClientError>,
    /// The differences from the expected result.
    wrong: Vec<String>,
    took: Duration,
}

pub async fn run(target: &target::Options, options: &Options) -> Result<ExitCode> {
    let own; // The local AWS runs as long as this value lives.
    let target = match answering(target).await? {
        Some(target) => target,
        None => {
            own = local::start(&root()?, Vec::new(), local::LOOPBACK, None)?;
            let stack = own.stack().clone();
            load_into(&stack, &dates(today(), DAYS)).await?;
            Target { client: Client::new(&stack.api_url)?, stack: Some(stack), is_named: false }
        }
    };
    on(&target, options).await
}

/// Books every scenario on this target, and returns success if all ended as expected.
pub async fn on(Target { client, stack, .. }: &Target, options: &Options) -> Result<ExitCode> {
    let variants = options.variant.map_or(VARIANTS.to_vec(), |variant| vec![variant]);
    let date = match stack {
        Some(stack) => date_with_stock(stack, variants.len()).await?,
        None => TripRequest::default().first_day(),
    };
    let (patience, at_once) = match stack {
        Some(stack) if stack.is_on_local_aws() => (booking::PATIENCE, usize::MAX),
        Some(stack) if stack.is_local() => (PATIENCE, IN_CONTAINERS),
        _ => (PATIENCE, usize::MAX),
    };
    let started = Instant::now();
    let outcomes = book(client, date, &variants, patience, at_once).await?;
    report(&outcomes, variants.len(), started.elapsed())
}

/// The named target, or the running local AWS, if it answers.
async fn answering(options: &target::Options) -> Result<Option<Target>> {
    let Some(target) = options.find().await? else { return Ok(None) };
    let url = target.client.api_url();
    match target.client.send("GET", "/openapi.yaml", &[], "").await {
        Ok(answer) if answer.status == 200 => Ok(Some(target)),
        Ok(_) | Err(_) if !target.is_named => Ok(None),
        Ok(answer) => {
            let what = format!("{url} is not this project's API: it answers {} to GET /openapi.yaml", answer.status);
            Err(format!("{what}; check --api-url, or deploy the stack again").into())
        }
        Err(error) => Err(error.into()),
    }
}

/// A date on which the stock suffices for all scenarios. A local AWS without stock is loaded.
async fn date_with_stock(stack: &Stack, variants: usize) -> Result<Date> {
    let stock = StockLoader::of(stack, &stack.sdk().await?)?;
    let most = (scenarios::ALL.len() * variants) as u32; // 18
    let mut empty = None;
    // Every start date up to the last day that is loaded by default.
    let starts = TripRequest::DAYS_AHEAD..i32::from(DAYS) - 4;
    for date in starts.map(|day| today().saturating_add(day.days())) {
        let trip = TripRequest::on(date);
        match stock.suffices(&trip, most).await? {
            Some(true) => return Ok(date),
            Some(false) => {}
            None => empty = empty.or(Some(date)),
        }
    }
    match empty {
        Some(date) if stack.is_local() => {
            load_into(stack, &dates(date, 4)).await?;
            Ok(date)
        }
        _ => Err("there is too little stock left for the demo: `harmony load` puts all on sale again".into()),
    }
}

/// Books all scenarios, this many at once, as their travellers would.
async fn book(
    client: &Client,
    date: Date,
    variants: &[Variant],
    patience: Duration,
    at_once: usize,
) -> Result<Vec<Outcome>> {
    const SCENARIOS: &[Scenario] = &scenarios::ALL;
    let several = ProgressGroup::default();
    let run = fresh_key("demo");
    let both = SCENARIOS.iter().flat_map(|scenario| variants.iter().map(move |variant| (scenario, *variant)));
    let bookings = both.map(|(scenario, variant)| {
        let request = scenario.request(TripRequest::on(date), variant);
        let key = format!("{run}-{}-{}", scenario.name.replace(' ', "-"), variant.name());
        let name = format!("{:26}{:15}", scenario.name, variant.name());
        let line = several.add(&name);
        async move {
            let started = Instant::now();
            let look = |booking: &Booking| line.now(format!("{name}{}", booking.status));
            let observed = scenario.run(client, &request, &key, patience, look).await;
            let took = started.elapsed();
            let end = observed.as_ref().map_or("no end".into(), |observed| {
                observed.bookings.first().map_or("refused".into(), |booking| booking.status.to_string())
            });
            line.end(format!("{name}{end}, after {took:.1?}"));
            let wrong = match &observed {
                Ok(observed) => check(scenario, observed).err().unwrap_or_default(),
                Err(error) => vec![format!("expected {}, got no end: {error}", scenario.expected)],
            };
            Outcome { scenario, variant, observed, wrong, took }
        }
    });
    let outcomes = stream::iter(bookings).buffered(at_once.min(SCENARIOS.len() * variants.len())).collect().await;
    several.clear()?;
    Ok(outcomes)
}

impl Outcome {
    fn booking(&self) -> Option<&Booking> {
        self.observed.as_ref().ok()?.bookings.first()
    }

    fn answers(&self) -> String {
        let answers = self.observed.as_ref().map(|observed| observed.answers.iter().map(answered).collect::<Vec<_>>());
        answers.map_or("none".into(), |answers| answers.join(", then "))
    }
}

fn report(outcomes: &[Outcome], variants: usize, took: Duration) -> Result<ExitCode> {
    let look = Look::of_stdout();
    for (nth, outcomes) in outcomes.chunks(variants).enumerate() {
        scenario(nth + 1, outcomes, look)?;
    }
    // The rest is above.
    let otherwise: Vec<_> = outcomes.iter().filter_map(|outcome| Some((outcome, outcome.wrong.first()?))).collect();
    let as_expected = outcomes.len() - otherwise.len();
    say(format!("{as_expected} of {} bookings ended as expected, in {took:.1?}", outcomes.len()))?;
    // The first scenario is the confirmed trip.
    let times = outcomes.iter().take(variants).filter_map(|outcome| {
        let booking = outcome.booking().filter(|booking| booking.status == Status::Confirmed)?;
        Some(format!("{} {}", outcome.variant.name(), duration(booking)))
    });
    let times: Vec<_> = times.collect();
    if let ([_, ..], Some(outcome)) = (times.as_slice(), outcomes.first()) {
        say(format!("{}, from the request to the end: {}", outcome.scenario.name, times.join(", ")))?;
    }
    for (Outcome { scenario, variant, .. }, wrong) in &otherwise {
        say(look.style(BAD, plain(&format!("{}, {}: {wrong}", scenario.name, variant.name()))))?;
    }
    Ok(if otherwise.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A scenario, and its result in each variant.
fn scenario(nth: usize, outcomes: &[Outcome], look: Look) -> Result<()> {
    let [Outcome { scenario, took, .. }, others @ ..] = outcomes else { return Ok(()) };
    let good = outcomes.iter().all(|outcome| outcome.wrong.is_empty());
    let mark = if good { look.style(GOOD, "✓") } else { look.style(BAD, "✗") };
    let title = look.style(Style::new().bold(), format!("{nth}. {}", scenario.name));
    let after = if others.is_empty() { format!(", after {took:.1?}") } else { String::new() };
    say(format!("{mark} {title}{after}"))?;
    say(wrap(look, scenario.about, 0))?;
    say(line(look, "expected", scenario.expected))?;
    for Outcome { variant, wrong, .. } in outcomes {
        let variant = if others.is_empty() { String::new() } else { format!("{}: ", variant.name()) };
        for wrong in wrong {
            say(line(look, "but", look.style(BAD, plain(&format!("{variant}{wrong}")))))?;
        }
    }
    if scenario.sent > 1 {
        let answers: Vec<_> = outcomes.iter().map(|outcome| (outcome.variant, outcome.answers())).collect();
        say(once(look, "answers", &answers).join("\n"))?;
    }
    if let [Outcome { observed, .. }] = outcomes {
        for booking in observed.iter().flat_map(|observed| &observed.bookings) {
            say(render(booking, look))?;
        }
    } else {
        let sides: Vec<_> = outcomes.iter().map(|outcome| (outcome.variant, outcome.booking())).collect();
        say(side_by_side::render(&sides, look))?;
    }
    Ok(say("")?)
}

fn answered(answer: &Answer) -> String {
    let replay = if answer.is_replay() { " with Idempotency-Replayed: true" } else { "" };
    format!("{}{replay}", answer.status)
}
