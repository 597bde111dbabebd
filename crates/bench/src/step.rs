//! The measured step, on a local AWS: `flight.reserve`, each time for another booking.

use std::time::{Duration, Instant};

use local_aws::{LocalAws, LocalAwsOptions, Stack};
use saga::{BookingId, IdempotencyKey, StockLine};
use serde_json::{Value, json};
use store::{Journal, StockTable};
use travel::FLIGHT;
use traveller::{Client, TripRequest};

use crate::Outcome;

/// A local AWS with enough seats on one flight.
pub(crate) struct Steps {
    pub(crate) local: LocalAws,
    pub(crate) lambda: Client,
    /// The name of the flight function.
    pub(crate) flight: String,
    number: usize,
}

impl Steps {
    pub(crate) async fn on(options: LocalAwsOptions) -> Outcome<Self> {
        let local = LocalAws::start(options)?;
        let stack = local.stack();
        let client = store::client(&stack.sdk().await?);
        let journal = Journal::new(client.clone(), stack.journal_table()?, 730);
        let lines = FLIGHT.request(&flight()).map_err(|violations| format!("{violations:?}"))?.lines();
        let lines: Vec<_> = lines.into_iter().map(|line| StockLine { units: 1_000_000, ..line }).collect();
        StockTable::new(client, stack.stock_table(FLIGHT.name)?, journal).seed(&lines).await?;
        let lambda = Client::new(stack.endpoint.as_deref().ok_or("the local AWS has no endpoint")?)?;
        let functions: Value = lambda.send("GET", "/2015-03-31/functions/", &[], "").await?.json()?;
        let names = functions["Functions"].as_array().ok_or("no functions")?.iter();
        let flight = names.filter_map(|f| f["FunctionName"].as_str()).find(|name| name.ends_with("-flight"));
        let flight = flight.ok_or("no function is called …-flight")?.to_owned();
        Ok(Self { local, lambda, flight, number: 0 })
    }

    pub(crate) fn stack(&self) -> &Stack {
        self.local.stack()
    }

    /// Makes a function carry out the next step, and returns how long the caller waited.
    pub(crate) async fn reserve(&mut self, function: &str) -> Outcome<Duration> {
        self.number += 1;
        let command = command("bench", self.number)?.to_string();
        let began = Instant::now();
        let answer = self.lambda.send("POST", &invocations(function), &[], command).await?;
        let took = began.elapsed();
        if answer.body.contains("reserved") { Ok(took) } else { Err(format!("{function}: {}", answer.body).into()) }
    }

    /// Sends a function a payload that it refuses immediately.
    pub(crate) async fn refused(&self, function: &str) -> Outcome<()> {
        self.lambda.send("POST", &invocations(function), &[], "{}").await?;
        Ok(())
    }
}

fn invocations(function: &str) -> String {
    format!("/2015-03-31/functions/{function}/invocations")
}

/// The flight on which seats are taken.
fn flight() -> Value {
    TripRequest::default().parts.remove(&FLIGHT.name).unwrap_or_default()
}

/// A command to reserve a seat, for the booking with this number.
pub(crate) fn command(caller: &str, number: usize) -> Outcome<Value> {
    let key = IdempotencyKey::try_from(format!("bench-{number}").as_str())?;
    Ok(json!({"step": "flight.reserve", "booking_id": BookingId::derive(caller, &key), "part": flight()}))
}
