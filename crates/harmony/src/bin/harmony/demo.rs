//! `harmony demo`: books every scenario through the HTTP API, and shows what became of it.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use console::Style;
use futures_util::future::join_all;
use harmony::{
    Answer, Client, ClientError, Stack, TripRequest,
    client::fresh_key,
    loader::{DAYS, Stock, dates},
    local::root,
    scenarios::{self, Observed, check},
    show::{Look, line, render, wrap},
    trip::today,
};
use jiff::{ToSpan, civil::Date};
use saga::BookingRequest;

use crate::{
    Result,
    booking::PATIENCE,
    local,
    output::{Several, say},
    stock::load_into,
    target::{self, Target},
};

const GOOD: Style = Style::new().green();
const BAD: Style = Style::new().red();

type Outcome = (std::result::Result<Observed, ClientError>, Duration);

pub async fn run(target: &target::Options) -> Result<ExitCode> {
    let own; // The local AWS runs as long as this value lives.
    let Target { client, stack, .. } = match answering(target).await? {
        Some(target) => target,
        None => {
            own = local::start(&root()?, Vec::new(), None)?;
            let stack = own.stack().clone();
            load_into(&stack, &dates(today(), DAYS)).await?;
            Target { client: Client::new(&stack.api_url)?, stack: Some(stack), is_named: false }
        }
    };
    let date = match &stack {
        Some(stack) => date_with_stock(stack).await?,
        None => TripRequest::default().flight.date,
    };
    let started = Instant::now();
    let outcomes = book(&client, date).await?;
    report(&outcomes, started.elapsed())
}

/// What is named, or the local AWS that runs, if it answers.
async fn answering(options: &target::Options) -> Result<Option<Target>> {
    let Some(target) = options.find()? else { return Ok(None) };
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

/// A date on which all scenarios can be booked, as far as stock is concerned. A local AWS that has none gets some.
async fn date_with_stock(stack: &Stack) -> Result<Date> {
    let stock = Stock::of(stack, &stack.sdk().await?)?;
    let most = scenarios::ALL.len() as u32; // 8
    let mut empty = None;
    // Every start until the last day that stock is loaded for by default.
    let starts = TripRequest::DAYS_AHEAD..i32::from(DAYS) - 4;
    for date in starts.map(|day| today().saturating_add(day.days())) {
        let trip = BookingRequest::read(&TripRequest::on(date).to_json(), today()).map_err(|_| "no trip to book")?.trip;
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

/// Books all scenarios at once, as their travellers would.
async fn book(client: &Client, date: Date) -> Result<Vec<Outcome>> {
    let several = Several::default();
    let run = fresh_key("demo");
    let bookings = scenarios::ALL.iter().map(|scenario| {
        let (request, key) =
            (scenario.request(TripRequest::on(date)), format!("{run}-{}", scenario.name.replace(' ', "-")));
        let line = several.add(format!("{:26}", scenario.name));
        async move {
            let started = Instant::now();
            let look = |booking: &harmony::Booking| line.now(format!("{:26}{}", scenario.name, booking.status));
            let observed = scenario.run(client, &request, &key, PATIENCE, look).await;
            let took = started.elapsed();
            let end = observed.as_ref().map_or("no end".into(), |observed| {
                observed.bookings.first().map_or("refused".into(), |booking| booking.status.to_string())
            });
            line.end(format!("{:26}{end}, after {took:.1?}", scenario.name));
            (observed, took)
        }
    });
    let outcomes = join_all(bookings).await;
    several.clear()?;
    Ok(outcomes)
}

fn report(outcomes: &[Outcome], took: Duration) -> Result<ExitCode> {
    let look = Look::of_stdout();
    let mut otherwise = Vec::new();
    for (nth, (scenario, (observed, took))) in scenarios::ALL.iter().zip(outcomes).enumerate() {
        let wrong = match observed {
            Ok(observed) => check(scenario, observed).err().unwrap_or_default(),
            Err(error) => vec![format!("expected {}, got no end: {error}", scenario.expected)],
        };
        let mark = if wrong.is_empty() { look.style(GOOD, "✓") } else { look.style(BAD, "✗") };
        let title = look.style(Style::new().bold(), format!("{}. {}", nth + 1, scenario.name));
        say(format!("{mark} {title}, after {took:.1?}"))?;
        say(wrap(look, scenario.about, 0))?;
        say(line(look, "expected", scenario.expected))?;
        for wrong in &wrong {
            say(line(look, "but", look.style(BAD, wrong)))?;
        }
        if let Ok(observed) = observed {
            if scenario.sent > 1 {
                let answers: Vec<_> = observed.answers.iter().map(answered).collect();
                say(line(look, "answers", answers.join(", then ")))?;
            }
            for booking in &observed.bookings {
                say(render(booking, look))?;
            }
        }
        say("")?;
        // The rest stands above.
        otherwise.extend(wrong.first().map(|wrong| format!("{}: {wrong}", scenario.name)));
    }
    let as_expected = outcomes.len() - otherwise.len();
    say(format!("{as_expected} of {} scenarios ended as expected, in {took:.1?}", outcomes.len()))?;
    for wrong in &otherwise {
        say(look.style(BAD, wrong))?;
    }
    Ok(if otherwise.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn answered(answer: &Answer) -> String {
    let replay = if answer.is_replay() { " with Idempotency-Replayed: true" } else { "" };
    format!("{}{replay}", answer.status)
}
